"""Minimise F(x) = f^U(x, g(x)): ``minimize`` is the door, each method has its file."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ..arrays import Array, as_count, as_tolerance, as_vector, namespace
from ..hypergradient import Hypergradient
from ..problem import Problem
from ..upper import UpperObjective
from .bounds import as_bounds
from .gradient_descent import gradient_descent
from .hoag import hoag
from .lbfgs import lbfgs
from .maid import maid
from .record import BilevelResult, HistoryRecord, Run

_METHODS: dict[str, Callable[[Run, Array, int], BilevelResult]] = {
    "maid": maid,
    "hoag": hoag,
    "hoag_quadratic": functools.partial(hoag, schedule="quadratic"),
    "gradient_descent": gradient_descent,
    "lbfgs": lbfgs,
}


def minimize(
    problem: Problem,
    upper: UpperObjective,
    x0: Any,
    *,
    y0: Any = None,
    method: str = "maid",
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
    method : {"maid", "hoag", "hoag_quadratic", "gradient_descent", "lbfgs"}
        "maid" solves the lower level as exactly as the next step needs;
        "gradient_descent" is the same descent, projected with spectral steps, at fixed
        tolerances; "lbfgs" is SciPy's L-BFGS-B; "hoag" is a published baseline, with its
        exponential or quadratic schedule of tolerances.
    bounds : (low, high), sequence of m pairs, (m, 2) array or scipy Bounds, optional
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
        Of :class:`Hypergradient`: ``solver``, ``tol`` as ``lower_tol`` (the finest, for
        "maid" and "hoag"), ``adjoint_tol``, ``warm_start``, ``M``, ...

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
    x0 = namespace(x0).asarray(x0, copy=True)
    if method not in _METHODS:
        known = ", ".join(repr(name) for name in _METHODS)
        raise ValueError(f"method must be one of {known}, found {method!r}")
    maxiter, tol = as_count("maxiter", maxiter), as_tolerance("tol", tol)
    lower_tol = options.pop("lower_tol", 1e-8)
    F = Hypergradient(problem, upper, y0=y0, tol=lower_tol, **options)
    low, high = as_bounds(bounds, x0)
    run = Run(F, low, high, tol, callback, _bar(progress, maxiter))
    return _METHODS[method](run, run.project(x0), maxiter)


def _bar(progress: bool, maxiter: int) -> Any:
    if not progress:
        return None
    try:
        from tqdm.auto import tqdm  # noqa: PLC0415  (an extra)
    except ImportError:
        return None
    return tqdm(total=maxiter, unit="step")


__all__ = ["BilevelResult", "HistoryRecord", "minimize"]
