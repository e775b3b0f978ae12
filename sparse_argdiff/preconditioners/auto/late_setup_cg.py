"""One linear solve with the preconditioner of an argument ``M``; CG may set it up late.

    first     2 c  iterations, where a setup that costs c iterations is deferred
    then      the setup, if the rest at the pace so far takes more than  1.2 c

The solve then takes at most a constant times the better of the two: never to set up, or
to set up at once (the online rule of :class:`Auto`, within one solve).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from ...arrays import Array, as_count, norm
from ...krylov import KrylovResult, cg
from ...operators.linear_operator import LinearOperator
from ...status import Status
from .from_argument import Choice


def preconditioned_solve(
    solver: Callable[..., KrylovResult],
    choice: Choice | None,
    K: LinearOperator,
    b: Array,
    x0: Array | None,
    **options: Any,
) -> tuple[KrylovResult, int]:
    """Solve K x = b by ``solver`` with the M of ``choice``; None: without passing M.

    Returns
    -------
    result : KrylovResult
    n_matvec : int
        Products that setting up M took, beside those of the result.
    """
    if choice is None:
        return _checked(solver(K, b, x0, **options)), 0
    M, n_setup = choice(K, options.get("rtol", 1e-8))
    options["M"] = M
    price = None if choice.auto is None else choice.auto.offer
    given, first = options.get("maxiter"), math.inf
    most = max(10 * K.shape[0], 20) if given is None else as_count("maxiter", given)
    if solver is cg and price is not None and b.ndim == 1:
        first = math.ceil(2.0 * price)
    if not most > first:
        return _recorded(choice, b, solver(K, b, x0, **options)), n_setup
    found = _recorded(choice, b, cg(K, b, x0, **(options | {"maxiter": first})))
    if found.status not in {Status.ITERATION_LIMIT, Status.STAGNATED}:
        return found, n_setup
    attained, wanted = relative_residual(b, found), options.get("rtol", 1e-8)
    pace = max(-math.log10(attained), 0.0) / found.niter if attained > 0.0 else 0.0
    left = math.log10(attained / wanted) if wanted > 0.0 else math.inf
    if found.status is Status.STAGNATED or not left <= pace * 1.2 * (price or 0.0):
        assert choice.auto is not None
        options["M"], n_late = choice.auto.choose(K, now=True)
        n_setup += n_late
    last = cg(K, b, found.x, **(options | {"maxiter": most - found.niter}))
    last = dataclasses.replace(
        _recorded(choice, b, last),
        niter=found.niter + last.niter,
        n_matvec=found.n_matvec + last.n_matvec,
    )
    return last, n_setup


def _recorded(choice: Choice, b: Array, found: Any) -> KrylovResult:
    result = _checked(found)
    columns = b.shape[1] if b.ndim == 2 else 1
    choice.record(result.n_matvec // max(columns, 1), relative_residual(b, result))
    return result


def _checked(result: Any) -> KrylovResult:
    if not isinstance(result, KrylovResult):
        raise TypeError(
            f"method must return a KrylovResult, found {type(result).__name__}"
        )
    return result


def relative_residual(rhs: Array, result: KrylovResult) -> float:
    """Return ‖residual‖ / ‖right-hand side‖, the largest over the columns."""
    if rhs.ndim == 1:
        size = norm(rhs)
        return float(result.residual_norm) / size if size else 0.0
    sizes = [norm(rhs[:, j]) for j in range(rhs.shape[1])]
    found = [float(result.residual_norm[j]) / s for j, s in enumerate(sizes) if s]
    return math.nan if any(map(math.isnan, found)) else max(found, default=0.0)
