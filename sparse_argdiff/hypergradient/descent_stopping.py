"""An adjoint solve that ends once −z is proven to be a direction of descent.

    z'∇F = ‖z‖² − (B z)' K⁻¹ r ≥ ‖z‖² − |B z| |r|,        |v|² = v' K⁻¹ v

with z = ∂f^U/∂x − B'λ of an adjoint λ, r = ∂f^U/∂y − K λ, and ∇F that of the exact adjoint
at the same y.  The solve ends where |B z| |r| ≤ (1 − η) ‖z‖², so that z'∇F ≥ η ‖z‖².

|v| is bounded from a lower bound of K alone (``inverse_norm.py``): neither a small change of z
over some steps nor a Ritz value tells what the residual hides.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from .. import krylov
from ..arrays import Array, epsilon, is_finite, namespace, norm
from ..implicit.checked_solve import linear_solver
from ..krylov import KrylovResult
from ..operators.linear_operator import LinearOperator, aslinearoperator
from ..problem.constants import Constants
from ..problem.problem import Problem, Solution
from ..solvers.newton_cg import cg_steps
from ..status import Status
from .inverse_norm import ByBlocks, InverseNorm, inverse_norm

_ETA = 0.25  # share of ‖z‖² that z'∇F keeps
_ROUNDING = 100.0  # error of a computed residual, in units of rounding
_UNKNOWN = math.nextafter(1.0, 2.0)  # more than proves descent, and no more is known


def stopped_at_descent(
    problem: Problem,
    solution: Solution,
    direct: Array | None,
    method: Any,
    adjoint0: Any,
    until: str,
    constants: Callable[[], Constants | None],
) -> tuple[Any, Any]:
    """Return start and method of an adjoint solve that a builder or descent changes.

    A builder takes K and returns M ≈ K⁻¹, for the start M rhs.
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
    finite = direct is None or is_finite(direct)
    descent = until == "descent" and finite and cross.has_matvec

    def solve(
        K: LinearOperator, rhs: Array, x0: Any = None, **options: Any
    ) -> KrylovResult:
        n_built = 0
        if builder is not None:
            M = aslinearoperator(builder(K))
            x0, n_built = M @ rhs, M.n_matvec
        size = None
        if descent and is_finite(rhs):
            size = inverse_norm(K, rhs, None if K.split else constants())
        if size is None:
            found = solver(K, rhs, x0, **options)
        else:
            found = _Descent(size, cross, direct, rhs).solve(solver, x0, options)
        return dataclasses.replace(found, n_matvec=found.n_matvec + n_built)

    return None if builder is not None else adjoint0, solve


class _Descent:
    """A solve that ends at descent, or as ``solver`` does."""

    def __init__(
        self,
        size: InverseNorm | ByBlocks,
        cross: LinearOperator,
        direct: Array | None,
        rhs: Array,
    ) -> None:
        self.size, self.cross, self.direct, self.rhs = size, cross, direct, rhs
        self.K, self.spent = size.K, 0

    @property
    def n_matvec(self) -> int:
        """Products so far."""
        return self.spent + self.size.n_matvec

    def solve(self, solver: Any, x0: Any, options: Any) -> KrylovResult:
        """Solve K x = rhs until −z descends, else as ``solver`` does."""
        rhs, niter = self.rhs, 0
        x, left = namespace(rhs).zeros_like(rhs), rhs
        if x0 is not None:
            r = self._residual(x0)
            if norm(r) <= norm(rhs):  # a start that is worse than nothing is not used
                x, left = x0, r
        descends = self._missing(x, left) <= 1.0
        if not descends and solver is krylov.cg:
            step, niter, seen = self._iterate(x, left, options)
            x = x + step
            if seen:  # by the residual of the recurrence
                left = self._residual(x)
                descends = self._missing(x, left) <= 1.0
        if descends:
            ended = Status.APPROXIMATE, False, niter, self.n_matvec
            return KrylovResult(x, *ended, norm(left), left)
        if options.get("maxiter") is not None:
            options["maxiter"] = max(options["maxiter"] - niter, 0)
        start = None if x0 is None and niter == 0 else x
        found = solver(self.K, rhs, start, **options)
        n_matvec = self.n_matvec + found.n_matvec
        return dataclasses.replace(found, niter=niter + found.niter, n_matvec=n_matvec)

    def _residual(self, x: Array) -> Array:
        self.spent += 1
        return self.rhs - self.K @ x

    def _iterate(self, x: Array, left: Array, options: Any) -> tuple[Array, int, bool]:
        """Take steps of CG to the tolerance; return their sum, and whether −z descends.

        Descent is looked for where ‖r‖ has halved, or fallen by the factor that was
        missing.  What makes CG break down is left for the solver to find.
        """
        xp, M, most = namespace(left), options.get("M"), options.get("maxiter")
        step, r, niter = xp.zeros_like(left), xp.asarray(left, copy=True), 0
        most = max(10 * left.shape[0], 20) if most is None else most
        M = None if M is None else aslinearoperator(M)
        wait, target = norm(left), options.get("rtol", 1e-8) * norm(self.rhs)
        if wait <= target:
            return step, 0, False
        for taken in cg_steps(self.K, step, r, M, target=target):
            self.spent += taken.products
            if taken.status is not None:
                return xp.zeros_like(left), 0, False
            niter += 1
            if taken.residual_norm <= target or niter >= most:
                break
            if taken.residual_norm <= wait:
                missing = self._missing(x + step, r)
                if missing <= 1.0:
                    return step, niter, True
                wait = taken.residual_norm / min(missing, 2.0)
        return step, niter, False

    def _missing(self, adjoint: Array, left: Array) -> float:
        """Return |B z| |r| over (1 − η) ‖z‖²: at most 1 where −z descends."""
        z = -(self.cross.T @ adjoint)
        z = z if self.direct is None else z + self.direct
        length = norm(z)
        noise = _ROUNDING * max(epsilon(left), self.K.accuracy or 0.0)
        if not 0.0 < length < math.inf:
            return _UNKNOWN
        pulled, missing = self.cross @ z, math.inf
        for whole in (False, True):
            # The columns at P are worth no more products than the solve has taken.
            if whole and self.size.price > self.spent:
                return _UNKNOWN
            force = self.size(left, whole=whole)
            force += noise * self.size(self.rhs, whole=whole)
            reach = self.size(pulled, whole=whole) / length
            missing = reach * force / ((1.0 - _ETA) * length)
            if not missing <= 1.0:
                break
        return missing
