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

from .. import krylov
from ..arrays import Array, is_finite, namespace, norm
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
    descent: bool,
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
    method = DescentStoppedSolver(method, builder, cross, direct, descent)
    return None if builder is not None else adjoint0, method


class DescentStoppedSolver:
    """A linear solver for ``vjp`` with any start, which may end at a descent direction.

    Parameters
    ----------
    solver : None, str or solver function
        Solves for the correction of the start, CG by default.
    builder : callable or None
        Takes K and returns M ≈ K⁻¹: the start is M rhs.
    cross : operator (n, m)
        f_XY.
    direct : array (m,) or None
        ∂f^U/∂x.
    descent : bool
        Whether descent ends the solve, besides its tolerance.

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
        self._solver = solver if callable(solver) else _SOLVERS[solver]
        self._builder, self._cross, self._direct = builder, cross, direct
        # The caller refuses what is not finite; it shows no descent.
        self._descent = descent and (direct is None or is_finite(direct))

    def __call__(
        self, K: LinearOperator, rhs: Array, x0: Any = None, **options: Any
    ) -> KrylovResult:
        """Solve K λ = rhs."""
        if not is_finite(rhs):
            refused: KrylovResult = self._solver(K, rhs, x0, **options)
            return refused
        n_built = 0
        if self._builder is not None:
            M = aslinearoperator(self._builder(K))
            x0, n_built = M @ rhs, M.n_matvec
        left, n_matvec = rhs, n_built
        if x0 is None:
            x0 = namespace(rhs).zeros_like(rhs)
        else:
            left, n_matvec = rhs - K @ x0, n_built + 1
            if not norm(left) <= norm(rhs):  # worse than nothing
                x0, left = namespace(rhs).zeros_like(rhs), rhs
            elif self._descent and self._shown(x0, left, K, options.get("M")):
                return _ended(x0, left, 0, n_matvec)
        watch = self._watch(x0) if self._descent else None
        bound = getattr(self._solver, "keywords", {})  # of a functools.partial
        rtol = options.pop("rtol", bound.get("rtol", 1e-8))
        target = max(rtol * norm(rhs), bound.get("atol", 0.0))
        found: KrylovResult = self._solver(
            K, left, rtol=0.0, atol=target, callback=watch, **options
        )
        found = dataclasses.replace(
            found, x=x0 + found.x, n_matvec=n_matvec + found.n_matvec
        )
        if found.status is Status.STOPPED_BY_CALLBACK:
            return _ended(found.x, found.residual, found.niter, found.n_matvec)
        return found

    def _gradient(self, adjoint: Array) -> Array:
        pulled = -(self._cross.T @ adjoint)
        return pulled if self._direct is None else pulled + self._direct

    def _shown(self, x0: Array, left: Array, K: LinearOperator, M: Any) -> bool:
        """Judge a start by the change of z along the preconditioned residual.

        The change counts twice: M is a rough approximation of K⁻¹.
        """
        step = left if M is None else aslinearoperator(M) @ left
        if M is None:
            if not K.has_diagonal:
                return False
            step = left / K.diagonal()
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


def _ended(x: Array, residual: Array, niter: Any, n_matvec: int) -> KrylovResult:
    return KrylovResult(
        x=x,
        status=Status.APPROXIMATE,
        converged=False,
        niter=niter,
        n_matvec=n_matvec,
        residual_norm=norm(residual),
        residual=residual,
    )


_SOLVERS: dict[str | None, Any] = {
    None: krylov.cg,
    "cg": krylov.cg,
    "projected_cg": krylov.cg,
    "minres": krylov.minres,
    "diagonal": krylov.diagonal,
}
