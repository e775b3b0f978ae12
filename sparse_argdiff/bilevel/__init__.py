"""Minimise F(x) = f^U(x, g(x)): ``minimize`` is the door, each method has its file."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from scipy.optimize import Bounds

from ..arrays import Array, as_vector, namespace
from ..hypergradient import Hypergradient, UpperObjective
from ..problem import Problem
from .gradient_descent import gradient_descent
from .lbfgs import lbfgs
from .record import BilevelResult, HistoryRecord, Run

_METHODS: dict[str, Callable[[Run, Array, int], BilevelResult]] = {
    "gradient_descent": gradient_descent,
    "lbfgs": lbfgs,
}


def minimize(
    problem: Problem,
    upper: UpperObjective,
    x0: Any,
    *,
    y0: Any = None,
    method: str = "lbfgs",
    bounds: Any = None,
    tol: float = 1e-4,
    maxiter: int = 100,
    callback: Callable[..., Any] | None = None,
    progress: bool = False,
    **options: Any,
) -> BilevelResult:
    """Minimise F(x) = f^U(x, g(x)) over the parameters x.

    Parameters
    ----------
    problem : Problem
        The lower level.
    upper : UpperObjective
        f^U.
    x0 : array (m,)
        Start.
    y0 : array (n,), optional
        First start of the lower-level solves.
    method : {"lbfgs", "gradient_descent"}
        "lbfgs" is SciPy's L-BFGS-B.
    bounds : (low, high), sequence of m pairs, or scipy.optimize.Bounds, optional
        Of x; None or an infinity for no bound.
    tol : float
        Stop when the projected gradient has fallen to ``tol`` times its first norm.
    maxiter : int
        Upper-level iterations.
    callback : callable, optional
        Called with an ``OptimizeResult`` (x, fun, jac, y, record) at each accepted
        iterate, 0 included; a true value or ``StopIteration`` stops.
    progress : bool
        Show a progress bar when tqdm is installed.
    **options
        Of :class:`Hypergradient`: ``solver``, ``tol`` as ``lower_tol``,
        ``adjoint_tol``, ``warm_start``, ``M``, ...

    Returns
    -------
    BilevelResult
        Its ``status`` says why it ended; the best point so far is never lost.

    Raises
    ------
    ConvergenceError
        When the very first evaluation fails.
    ValueError, TypeError
        For wrong arguments.
    """
    x0 = as_vector("x0", x0)
    if method not in _METHODS:
        known = ", ".join(repr(name) for name in _METHODS)
        raise ValueError(f"method must be one of {known}, found {method!r}")
    if isinstance(maxiter, bool) or int(maxiter) != maxiter or maxiter < 0:
        raise ValueError(f"maxiter must be a whole number >= 0, found {maxiter!r}")
    if not (isinstance(tol, int | float) and 0 <= tol < math.inf):
        raise ValueError(f"tol must be a number >= 0, found {tol!r}")
    lower_tol = options.pop("lower_tol", 1e-8)
    F = Hypergradient(problem, upper, y0=y0, tol=lower_tol, **options)
    low, high = _bounds(bounds, x0)
    run = Run(F, low, high, float(tol), callback, _bar(progress, int(maxiter)))
    return _METHODS[method](run, x0, int(maxiter))


def _bounds(bounds: Any, x0: Array) -> tuple[Array | None, Array | None]:
    if bounds is None:
        return None, None
    if isinstance(bounds, Bounds):
        low, high = bounds.lb, bounds.ub
    else:
        pairs = list(bounds)
        if len(pairs) == 2 and not any(isinstance(p, tuple | list) for p in pairs):
            low, high = pairs
        elif all(isinstance(p, tuple | list) and len(p) == 2 for p in pairs):
            low = [p[0] for p in pairs]
            high = [p[1] for p in pairs]
        else:
            raise ValueError(
                "bounds must be (low, high), a sequence of pairs or a scipy Bounds, "
                f"found {bounds!r}"
            )
    low = _side("low", low, -math.inf, x0)
    high = _side("high", high, math.inf, x0)
    if bool(namespace(x0).any(low > high)):
        raise ValueError("bounds must have low <= high everywhere")
    return low, high


def _side(name: str, side: Any, infinite: float, x0: Array) -> Array:
    xp = namespace(x0)
    if isinstance(side, list | tuple):
        side = [infinite if s is None else float(s) for s in side]
    side = xp.asarray(infinite if side is None else side, dtype=x0.dtype)
    if side.ndim > 1 or side.size not in {1, x0.shape[0]}:
        raise ValueError(
            f"bounds: {name} must be a number or have {x0.shape[0]} entries, found "
            f"shape {tuple(side.shape)}"
        )
    return side + xp.zeros_like(x0)


def _bar(progress: bool, maxiter: int) -> Any:
    if not progress:
        return None
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm(total=maxiter, unit="step")


__all__ = ["BilevelResult", "HistoryRecord", "minimize"]
