"""CG that may change its preconditioner on the way: for a solve that drags on.

    look up        after  2 c  iterations, where a better M takes as long as c to build
    build it       where what is left, at the pace so far, takes more than  1.2 c

so that a solve is never much longer than without M, nor than with it from the start.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from ...arrays import Array, as_count, norm
from ...krylov import KrylovResult, cg
from ...operators.linear_operator import LinearOperator
from ...status import Status
from .from_argument import Choice


def switching_cg(
    choice: Choice, K: LinearOperator, b: Array, x0: Array | None, **options: Any
) -> KrylovResult:
    """Solve K x = b by :func:`cg` with the ``M`` of the options, and what choice offers.

    What ``M="auto"`` has offered (``Auto.offer``) is built for one right-hand side only:
    with several the next solve has it.  A residual that stagnates is reason enough.
    """
    given, offer = options.get("maxiter"), choice.offer
    most = max(10 * K.shape[0], 20) if given is None else as_count("maxiter", given)
    first = math.inf if offer is None else math.ceil(2.0 * offer)
    if b.ndim != 1 or not most > first:
        return observe(choice, b, cg(K, b, x0, **options))
    found = cg(K, b, x0, **(options | {"maxiter": first}))
    observe(choice, b, found)
    if found.status not in {Status.ITERATION_LIMIT, Status.STAGNATED}:
        return found
    attained, wanted = relative_residual(b, found), options.get("rtol", 1e-8)
    pace = max(-math.log10(attained), 0.0) / found.niter if attained > 0.0 else 0.0
    left = math.log10(attained / wanted) if wanted > 0.0 else math.inf
    if found.status is Status.STAGNATED or not left <= pace * 1.2 * (offer or 0.0):
        options = options | {"M": choice.now(K)}
    last = cg(K, b, found.x, **(options | {"maxiter": most - found.niter}))
    observe(choice, b, last)
    return dataclasses.replace(
        last,
        niter=found.niter + last.niter,
        n_matvec=found.n_matvec + last.n_matvec,
    )


def observe(choice: Choice, b: Array, result: KrylovResult) -> KrylovResult:
    """Tell the choice how a solve with its M went; return the result as it is."""
    columns = b.shape[1] if b.ndim == 2 else 1
    choice.observe(result.n_matvec // max(columns, 1), relative_residual(b, result))
    return result


def relative_residual(rhs: Array, result: KrylovResult) -> float:
    """Return ‖residual‖ / ‖right-hand side‖, the largest of several."""
    if rhs.ndim == 1:
        size = norm(rhs)
        return float(result.residual_norm) / size if size else 0.0
    sizes = [norm(rhs[:, j]) for j in range(rhs.shape[1])]
    found = [float(result.residual_norm[j]) / s for j, s in enumerate(sizes) if s]
    return math.nan if any(map(math.isnan, found)) else max(found, default=0.0)
