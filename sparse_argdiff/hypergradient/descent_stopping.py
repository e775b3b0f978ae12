"""An adjoint solve that ends once −z is estimated to be a descent direction.

    ‖z_j − z_{j−d}‖ · s ≤ (1 − η) ‖z_j‖,        z_j = ∂f^U/∂x − f_XYᵀ λ_j

The change over d iterations, times a safety factor s, estimates ‖z_j − z(K⁻¹ rhs)‖ in the
space of x; the start is judged by the change along one preconditioned residual.  Norms of
residuals overestimate this error by orders of magnitude.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable
from typing import Any

from ..arrays import Array, is_finite, namespace, norm
from ..implicit.checked_solve import linear_solver
from ..krylov import KrylovResult
from ..operators.linear_operator import LinearOperator, aslinearoperator
from ..problem.problem import Problem, Solution
from ..status import Status

_EVERY, _DELAY = 2, 4  # iterations
_SAFETY = 2.0
_ETA = 0.5  # share of ‖z‖ that the error must leave


def stopped_at_descent(
    problem: Problem,
    solution: Solution,
    direct: Array | None,
    method: Any,
    adjoint0: Any,
    until: str,
) -> tuple[Any, Any]:
    """Return start and method of an adjoint solve that a builder or descent changes.

    A builder takes K and returns M ≈ K⁻¹, for the start M rhs.

    References
    ----------
    G. H. Golub, G. Meurant, "Matrices, moments and quadrature II", BIT 37 (1997) 687-705
    (the delay, for the energy norm).
    """
    builder = adjoint0 if callable(adjoint0) else None
    if problem.constrained:
        if builder is not None:
            raise ValueError(
                "adjoint0 must be an array for a problem with constraints, found a "
                "function: it would have to be an inverse of the whole KKT matrix"
            )
        # Projected CG with an exact factor takes few iterations: it is not cut short.
        return adjoint0, method
    solver, cross = linear_solver(method), problem.cross(solution.x, solution.y)
    # The caller refuses what is not finite; it shows no descent.
    descent = until == "descent" and (direct is None or is_finite(direct))

    def gradient(adjoint: Array) -> Array:
        pulled = -(cross.T @ adjoint)
        return pulled if direct is None else pulled + direct

    def solve(
        K: LinearOperator, rhs: Array, x0: Any = None, **options: Any
    ) -> KrylovResult:
        if not is_finite(rhs):
            return solver(K, rhs, x0, **options)
        left, n_matvec = rhs, 0
        if builder is not None:
            M = aslinearoperator(builder(K))
            x0, n_matvec = M @ rhs, M.n_matvec
        if x0 is not None:
            left, n_matvec = rhs - K @ x0, n_matvec + 1
        if x0 is None or not norm(left) <= norm(rhs):  # worse than nothing
            x0, left = namespace(rhs).zeros_like(rhs), rhs
        elif descent and _shown(gradient, cross, x0, left, K, options.get("M")):
            status, size = Status.APPROXIMATE, norm(left)
            return KrylovResult(x0, status, False, 0, n_matvec, size, left)
        bound = getattr(solver, "keywords", {})  # of a functools.partial
        rtol = options.pop("rtol", bound.get("rtol", 1e-8))
        options["atol"] = max(rtol * norm(rhs), bound.get("atol", 0.0))
        if descent:
            options["callback"] = _watch(gradient, x0)
        found = solver(K, left, rtol=0.0, **options)
        total = {"x": x0 + found.x, "n_matvec": n_matvec + found.n_matvec}
        if found.status is Status.STOPPED_BY_CALLBACK:
            total |= {"status": Status.APPROXIMATE, "converged": False}
        return dataclasses.replace(found, **total)

    return None if builder is not None else adjoint0, solve


def _shown(
    gradient: Callable[[Array], Array],
    cross: LinearOperator,
    x0: Array,
    left: Array,
    K: LinearOperator,
    M: Any,
) -> bool:
    """Judge a start by the change of z along the preconditioned residual.

    The change counts twice: M is a rough approximation of K⁻¹.
    """
    if M is None and not K.has_diagonal:
        return False
    step = left / K.diagonal() if M is None else aslinearoperator(M) @ left
    change = norm(cross.T @ step)
    return 2.0 * _SAFETY * change <= (1.0 - _ETA) * norm(gradient(x0))


def _watch(gradient: Callable[[Array], Array], x0: Array) -> Callable[[Any], bool]:
    full = _DELAY // _EVERY + 1
    past: deque[Array] = deque(maxlen=full)

    def stop(iterate: Any) -> bool:
        if iterate.niter % _EVERY:
            return False
        past.append(gradient(x0 + iterate.x))
        if len(past) < full:
            return False
        now = past[-1]
        return _SAFETY * norm(now - past[0]) <= (1.0 - _ETA) * norm(now)

    return stop
