"""The diagonal approximation: x = diag(A)⁻¹ b (the paper's section 6).

A cheap direction, not a solution.  The residual is recomputed all the same, so that
one product tells how good it is.
"""

from __future__ import annotations

import math
from typing import Any

from ..arrays import Array, namespace, norm
from ..status import Status
from .linear_system import LinearSystem, column_of, solve_columns
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


def _solve(system: LinearSystem) -> tuple[Array, Array]:
    diag: Array = system.A.diagonal()
    xp = namespace(diag, system.b)
    if bool(xp.any(diag == 0.0)):
        for column in system.columns:
            column.status, column.residual_norm = Status.SINGULAR, column.b_norm
        return xp.zeros_like(system.b), xp.asarray(system.b, copy=True)
    x = system.b / (diag if system.b.ndim == 1 else diag[:, None])
    r = xp.empty_like(system.b)
    system.residual(x, r, r)
    for c, column in enumerate(system.columns):
        column.n_matvec, column.residual_norm = 1, norm(column_of(r, c))
        if not math.isfinite(column.residual_norm):
            column.status = Status.NOT_FINITE
        elif column.residual_norm <= column.target:
            column.status = Status.CONVERGED
        elif bool(xp.any(diag < 0.0)):
            column.status = Status.NEGATIVE_CURVATURE
        else:
            column.status = Status.APPROXIMATE
    return x, r
