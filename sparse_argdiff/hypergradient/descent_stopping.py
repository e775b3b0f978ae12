"""An adjoint solve that ends once −z is proven to be a direction of descent.

    z'∇F = ‖z‖² − (B z)' K⁻¹ r ≥ ‖z‖² − |B z| |r|,        |v|² = v' K⁻¹ v

with z = ∂f^U/∂x − B'λ of an adjoint λ, r = ∂f^U/∂y − K λ, and ∇F that of the exact adjoint
at the same y.  The solve ends where |B z| |r| ≤ (1 − η) ‖z‖², so that z'∇F ≥ η ‖z‖².

|v| needs a lower bound of K, and the steps of CG give none: a part δ of the right-hand side
along an eigenvector is not seen before the residual has fallen to δ, and moves λ by δ over
its eigenvalue.  Neither a small change over some steps nor a Ritz value excludes that.  A
bound K ≥ D = diag(d) is known where K = core + D says its parts, and from constants; then
|v|² ≤ Σ v_j² / d_j.  Entries P with d = 0, such as an intercept, are eliminated: the Schur
complement of a semidefinite core is semidefinite, so that

    |v|² ≤ v_P' K_PP⁻¹ v_P + Σ w_j² / d_j,        w = v − K_·P K_PP⁻¹ v_P
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

from .. import krylov
from ..arrays import Array, arange, dot, epsilon, is_finite, namespace, norm
from ..implicit.checked_solve import linear_solver
from ..krylov import KrylovResult
from ..operators.linear_operator import LinearOperator, aslinearoperator
from ..problem.constants import Constants
from ..problem.problem import Problem, Solution
from ..solvers.newton_cg import cg_steps
from ..status import Status

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
        d = _lower_bound(K, constants, rhs) if descent else None
        if d is None or not is_finite(rhs):
            found = solver(K, rhs, x0, **options)
        else:
            found = _Descent(K, d, cross, direct, rhs).solve(solver, x0, options)
        return dataclasses.replace(found, n_matvec=found.n_matvec + n_built)

    return None if builder is not None else adjoint0, solve


def _lower_bound(
    K: LinearOperator, constants: Callable[[], Constants | None], like: Array
) -> Array | None:
    """Return d ≥ 0 with K ≥ diag(d), or None."""
    d, xp = None, namespace(like)
    if K.split is not None:
        d = K.split[1]
    else:
        known = constants()
        if known is not None and known.convexity > 0.0:
            W = known.metric
            d = known.convexity * (xp.ones_like(like) if W is None else W)
    if d is None or not is_finite(d) or bool(xp.any(d < 0.0)):
        return None
    return d


class _Descent:
    """A solve with K ≥ diag(d) that ends at descent, or as ``solver`` does."""

    def __init__(
        self,
        K: LinearOperator,
        d: Array,
        cross: LinearOperator,
        direct: Array | None,
        rhs: Array,
    ) -> None:
        xp = namespace(d)
        self.K, self.cross, self.direct, self.rhs = K, cross, direct, rhs
        self._known = d > 0.0
        self._root = xp.sqrt(xp.where(self._known, d, xp.ones_like(d)))
        (self._free,) = xp.nonzero(~self._known)
        self.n_matvec = 0

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
            status, size = Status.APPROXIMATE, norm(left)
            return KrylovResult(x, status, False, niter, self.n_matvec, size, left)
        if options.get("maxiter") is not None:
            options["maxiter"] = max(options["maxiter"] - niter, 0)
        start = None if x0 is None and niter == 0 else x
        found = solver(self.K, rhs, start, **options)
        n_matvec = self.n_matvec + found.n_matvec
        return dataclasses.replace(found, niter=niter + found.niter, n_matvec=n_matvec)

    def _residual(self, x: Array) -> Array:
        self.n_matvec += 1
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
            self.n_matvec += taken.products
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
        size = norm(z)
        noise = _ROUNDING * max(epsilon(left), self.K.accuracy or 0.0)
        if not 0.0 < size < math.inf:
            return _UNKNOWN
        pulled, missing = self.cross @ z, math.inf
        for whole in (False, True):
            # The columns at P are worth no more products than the solve has taken.
            if whole and self._price > self.n_matvec:
                return _UNKNOWN
            force = self._size(left, whole) + noise * self._size(self.rhs, whole)
            reach = self._size(pulled, whole) / size
            missing = reach * force / ((1.0 - _ETA) * size)
            if not missing <= 1.0:
                break
        return missing

    def _size(self, v: Array, whole: bool) -> float:
        """Return the bound of |v|, or with ``whole`` false its part at d > 0 alone."""
        xp, square = namespace(v), 0.0
        if whole and self._free.shape[0]:
            K_P, K_PP = self._columns
            v_P = xp.take(v, self._free)
            t = xp.linalg.solve(K_PP, v_P)
            square, v = max(dot(v_P, t), 0.0), v - K_P @ t
        w = xp.where(self._known, v, xp.zeros_like(v)) / self._root
        return math.sqrt(square + dot(w, w))

    @property
    def _price(self) -> int:
        """Products that the columns K_·P still cost."""
        return 0 if "_columns" in vars(self) else int(self._free.shape[0])

    @functools.cached_property
    def _columns(self) -> tuple[Array, Array]:
        xp, root = namespace(self._root), self._root
        unit = arange(root.shape[0], root)[:, None] == self._free[None, :]
        K_P = self.K @ xp.where(unit, xp.ones_like(root[:, None]), 0.0 * root[:, None])
        self.n_matvec += int(self._free.shape[0])
        return K_P, xp.take(K_P, self._free, axis=0)
