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
    """Return start and method of an adjoint solve that a builder or descent changes."""
    builder = adjoint0 if callable(adjoint0) else None
    if problem.constrained:
        if builder is not None:
            raise ValueError(
                "adjoint0 must be an array for a problem with constraints, found a "
                "function: it would have to be an inverse of the whole KKT matrix"
            )
        # Projected CG with an exact factor takes few iterations: it is not cut short.
        return adjoint0, method
    cross = problem.cross(solution.x, solution.y)
    method = DescentStoppedSolver(method, builder, cross, direct, until == "descent")
    return None if builder is not None else adjoint0, method


class DescentStoppedSolver:
    """A linear solver for ``vjp`` with any start, which may end at a descent direction.

    ``solver`` finds the correction of the start; ``builder`` takes K and returns M ≈ K⁻¹
    for the start M rhs; ``cross`` is f_XY and ``direct`` ∂f^U/∂x; ``descent`` says whether
    descent ends the solve, besides its tolerance.

    References
    ----------
    G. H. Golub, G. Meurant, "Matrices, moments and quadrature II", BIT 37 (1997) 687-705
    (the delay, for the energy norm).
    """

    def __init__(
        self,
        solver: Any,
        builder: Callable[[LinearOperator], Any] | None,
        cross: LinearOperator,
        direct: Array | None,
        descent: bool,
    ) -> None:
        self._solver = linear_solver(solver)
        self._builder, self._cross, self._direct = builder, cross, direct
        # The caller refuses what is not finite; it shows no descent.
        self._descent = descent and (direct is None or is_finite(direct))

    def __call__(
        self, K: LinearOperator, rhs: Array, x0: Any = None, **options: Any
    ) -> KrylovResult:
        """Solve K λ = rhs."""
        if not is_finite(rhs):
            return self._solver(K, rhs, x0, **options)
        left, n_matvec = rhs, 0
        if self._builder is not None:
            M = aslinearoperator(self._builder(K))
            x0, n_matvec = M @ rhs, M.n_matvec
        if x0 is not None:
            left, n_matvec = rhs - K @ x0, n_matvec + 1
        if x0 is None or not norm(left) <= norm(rhs):  # worse than nothing
            x0, left = namespace(rhs).zeros_like(rhs), rhs
        elif self._descent and self._shown(x0, left, K, options.get("M")):
            status, size = Status.APPROXIMATE, norm(left)
            return KrylovResult(x0, status, False, 0, n_matvec, size, left)
        bound = getattr(self._solver, "keywords", {})  # of a functools.partial
        rtol = options.pop("rtol", bound.get("rtol", 1e-8))
        options["atol"] = max(rtol * norm(rhs), bound.get("atol", 0.0))
        if self._descent:
            options["callback"] = self._watch(x0)
        found = self._solver(K, left, rtol=0.0, **options)
        if found.status is Status.STOPPED_BY_CALLBACK:
            found = dataclasses.replace(
                found, status=Status.APPROXIMATE, converged=False
            )
        return dataclasses.replace(
            found, x=x0 + found.x, n_matvec=n_matvec + found.n_matvec
        )

    def _gradient(self, adjoint: Array) -> Array:
        pulled = -(self._cross.T @ adjoint)
        return pulled if self._direct is None else pulled + self._direct

    def _shown(self, x0: Array, left: Array, K: LinearOperator, M: Any) -> bool:
        """Judge a start by the change of z along the preconditioned residual.

        The change counts twice: M is a rough approximation of K⁻¹.
        """
        if M is None and not K.has_diagonal:
            return False
        step = left / K.diagonal() if M is None else aslinearoperator(M) @ left
        change = norm(self._cross.T @ step)
        return 2.0 * _SAFETY * change <= (1.0 - _ETA) * norm(self._gradient(x0))

    def _watch(self, x0: Array) -> Callable[[Any], bool]:
        full = _DELAY // _EVERY + 1
        past: deque[Array] = deque(maxlen=full)

        def stop(iterate: Any) -> bool:
            if iterate.niter % _EVERY:
                return False
            past.append(self._gradient(x0 + iterate.x))
            if len(past) < full:
                return False
            now = past[-1]
            return _SAFETY * norm(now - past[0]) <= (1.0 - _ETA) * norm(now)

        return stop
