"""The diagonal approximation: x = diag(A)⁻¹ b (the paper's section 6).

A cheap direction, not a solution.  The residual is recomputed all the same, so that
one product tells how good it is.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from ..arrays import Array, namespace, norm
from ..status import Status
from .linear_system import System, solve_columns
from .requests import Asking
from .result import Callback, KrylovResult


def diagonal(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    rtol: float = 1e-8,
    atol: float = 0.0,
    maxiter: int | None = None,
    M: Any = None,
    callback: Callback | None = None,
) -> KrylovResult:
    """Approximate A⁻¹ b by diag(A)⁻¹ b; the signature is that of :func:`cg`.

    Returns
    -------
    KrylovResult
        With status ``APPROXIMATE`` unless the residual happens to meet the tolerance.

    Raises
    ------
    NotImplementedError
        When A does not know its diagonal.
    """
    return solve_columns(
        _solve,
        A,
        b,
        x0,
        rtol=rtol,
        atol=atol,
        maxiter=maxiter,
        M=M,
        callback=callback,
    )


def _solve(system: System) -> Asking[KrylovResult]:
    diag: Array = system.A.diagonal()
    xp = namespace(diag, system.b)
    r = xp.empty_like(system.b)
    if bool(xp.any(diag == 0.0)):
        start = yield from dataclasses.replace(system, x0=None).start(r)
        return KrylovResult(
            start.x, Status.SINGULAR, False, 0, 0, start.residual_norm, start.r
        )
    x = system.b / diag
    yield from system.residual(x, r, r)
    size = norm(r)
    if not math.isfinite(size):
        status = Status.NOT_FINITE
    elif size <= system.target:
        status = Status.CONVERGED
    elif bool(xp.any(diag < 0.0)):
        status = Status.NEGATIVE_CURVATURE
    else:
        status = Status.APPROXIMATE
    return KrylovResult(x, status, status is Status.CONVERGED, 0, 1, size, r)
