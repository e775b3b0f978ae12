"""Minimise F(x) = f^U(x, g(x)) by one of the upper-level methods."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
from collections.abc import Callable
from typing import Any

from ..arrays import (
    Array,
    as_count,
    as_tolerance,
    check_callable,
    check_finite,
    copied_vector,
)
from ..hypergradient.hypergradient import Hypergradient, show
from ..hypergradient.upper_objective import UpperObjective
from ..preconditioners import Auto
from ..problem.problem import Problem
from .bounds import as_bounds
from .checkpoint import Store, as_path, describe
from .gradient_descent import gradient_descent
from .hoag import hoag
from .inexact_lbfgs import inexact_lbfgs
from .lbfgs import lbfgs
from .maid import maid
from .newton import newton
from .prior import overfitting_note
from .result import BilevelResult
from .run import Run
from .starts import as_starts, lowest_start

_METHODS: dict[str, Callable[[Run, Array], BilevelResult]] = {
    "inexact_lbfgs": inexact_lbfgs,
    "maid": maid,
    "hoag": hoag,
    "hoag_quadratic": functools.partial(hoag, schedule="quadratic"),
    "gradient_descent": gradient_descent,
    "lbfgs": lbfgs,
    "newton": newton,
}

DEFAULT = "inexact_lbfgs"

_OPTIONS = {"lower_tol", *inspect.signature(Hypergradient).parameters}
_OPTIONS -= {"problem", "upper", "tol"}


def minimize(
    problem: Problem,
    upper: UpperObjective,
    x0: Any,
    *,
    y0: Any = None,
    method: str | None = None,
    bounds: Any = None,
    tol: float = 1e-4,
    maxiter: int = 100,
    starts: int = 1,
    callback: Callable[..., Any] | None = None,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 1,
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
    method : str, optional
        "inexact_lbfgs", the default, for all m: projected L-BFGS whose lower-level solves
        are as accurate as the next decision needs.  "newton", for few parameters of smooth
        problems: Newton's method from ∇²F at x0, which takes 2 m solves.  "lbfgs" is SciPy's L-BFGS-B at fixed
        tolerances, "gradient_descent" a projected descent with spectral steps.  For
        comparison with published methods: "maid", with the published rules of steps and
        tolerances and estimates where it asks for constants; "hoag" and "hoag_quadratic",
        with the published step rule and schedules of tolerances.
    bounds : (low, high), sequence of m pairs, (m, 2) array or scipy Bounds, optional
        Of x; None or an infinity for no bound.
    tol : float
        Stop when the norm of the projected gradient, the entries of ∇F that do not push x
        against a bound, is ≤ tol · max(|F|, 10⁻³ (F(x0) − F)): a step of length one,
        a factor e for log-penalties, would lower F by no more than ``tol`` of itself, or,
        where F tends to zero, of a thousandth of what the run has gained.  Where F has one
        parameter and a minimum at a kink, because y has a support or an active set, when
        the tangents on both sides meet no further than that below F; where F has several,
        when a convex combination of gradients on the sides of kinks is that small.
    maxiter : int
        Upper-level iterations.
    starts : int
        How many common shifts of x0, by factors of 10 of log-penalties, are tried by one
        loose solve each; the run begins at the lowest value.  F is not convex.
    callback : callable, optional
        Called with an ``OptimizeResult`` (x, fun, jac, y, record, fall), copies, at each
        accepted iterate, 0 included; ``fall`` is what "newton" expects F to fall by further, infinite
        where it is not known; a true value or ``StopIteration`` stops.
    progress : bool
        Show a progress bar when tqdm is installed.
    checkpoint : path, optional
        A file from which the same call continues after the process was killed, with the
        same iterates.  It is replaced atomically every ``checkpoint_every`` accepted steps
        and at the end; the one before it is kept as ``<checkpoint>.old``.  A run that ended
        by its callback or by ``maxiter`` continues with a larger ``maxiter``, one that
        converged returns its result at once.
    checkpoint_every : int
        See ``checkpoint``.
    **options
        Of :class:`Hypergradient`: ``solver``, ``tol`` as ``lower_tol`` (the finest, where
        a method has looser ones), ``adjoint_tol``, ``warm_start``, ``M``, ...  By default
        "inexact_lbfgs" shares one ``preconditioners.Auto()`` among all solves, which
        learns; checkpoints hold what an ``Auto`` has learned.

    Returns
    -------
    BilevelResult
        The best point so far, and a ``status`` that says why the run ended.  Its
        ``warnings`` are shown unless ``on_failure`` is "ignore".

    Raises
    ------
    ConvergenceError
        When the very first evaluation fails.
    ValueError, TypeError
        For wrong arguments, a damaged checkpoint, and one of another run: another
        method, size, dtype, start or option (as given), or other data.
    OSError
        When a checkpoint cannot be written; the last one is intact.

    Notes
    -----
    The point that is returned is evaluated and certified at the finest tolerances, however
    the run ends: ``certificate`` says how far off ``fun`` and ``jac`` may be.  Methods with
    looser tolerances claim convergence there only.  Values on the way, in the history, the
    progress bar and the callback, are those of looser solves: ``record.value_error`` and
    ``record.gradient_error`` say how far off they may be.

    An exception out of a user's function, the callback or the keyboard has the attributes
    ``best``, an ``OptimizeResult`` of the best point so far, and ``checkpoint``, its path.

    After a restart the callback is called again for steps that no checkpoint had saved.
    With "lbfgs" a checkpoint holds the gradients of all evaluations so far.
    """
    x0 = copied_vector("x0", x0)
    check_finite("x0", x0)
    check_callable(callback=callback)
    method = DEFAULT if method is None else method
    if method not in _METHODS:
        known = ", ".join(repr(name) for name in _METHODS)
        raise ValueError(f"method must be one of {known}, found {method!r}")
    maxiter, tol = as_count("maxiter", maxiter), as_tolerance("tol", tol)
    _check_known(options)
    lower_tol = options.pop("lower_tol", 1e-8)
    if method == DEFAULT:
        options.setdefault("M", Auto())  # it learns over the run
    F = Hypergradient(problem, upper, y0=y0, tol=lower_tol, **options)
    low, high = as_bounds(bounds, x0)
    starts, store = as_starts(starts), None
    if checkpoint is not None:
        every = as_count("checkpoint_every", checkpoint_every)
        same = {"m": x0.shape[0], "n": getattr(problem.objective, "n", None)}
        same |= {"dtype": str(x0.dtype), "x0": x0, "y0": y0, "low": low, "high": high}
        same |= {"starts": starts, "method": method, "tol": tol}
        same |= {"lower_tol": lower_tol, **options}
        identity = {name: describe(option) for name, option in same.items()}
        store = Store(as_path(checkpoint), every, identity)
    auto = options["M"] if isinstance(options.get("M"), Auto) else None
    run = Run(F, low, high, tol, callback, maxiter, store, auto)
    result = run.restore(x0)
    if result is None:
        with _bar(progress, maxiter, len(run.history)) as run.bar, run:
            start = run.start
            if start is None:
                start = lowest_start(run, x0, starts)
            result = _METHODS[method](run, start)
    note = overfitting_note(upper, x0.shape[0])
    result.warnings = (*result.warnings, *([note] if note else []))
    result.method = method
    caveats = (word for word in result.warnings if word not in result.limits)
    show(tuple(caveats), F.on_failure)
    return result


def _check_known(options: dict[str, Any]) -> None:
    unknown = sorted(options.keys() - _OPTIONS)
    if unknown:
        own = inspect.signature(minimize).parameters.keys() - {"options"}
        known = ", ".join(sorted(own | _OPTIONS))
        raise TypeError(f"minimize has no option {unknown[0]!r}; it has {known}")


def _bar(progress: bool, maxiter: int, records: int) -> Any:
    if progress:
        with contextlib.suppress(ImportError):
            from tqdm.auto import tqdm  # noqa: PLC0415  (an extra)

            return tqdm(total=maxiter, unit="step", initial=max(records - 1, 0))
    return contextlib.nullcontext()
