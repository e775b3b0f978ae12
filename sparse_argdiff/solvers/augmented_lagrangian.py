"""Kinks under linear equalities: an augmented Lagrangian, ended by Newton on the support.

    min f + Ω  s.t.  A y = b,  lower <= y <= upper

    y⁺ = argmin f + Ω + ν'h + ½ ρ Σ_i (h_i / s_i)²,    h = A y − b      (``on_supports``)
    ν⁺ = ν + ρ h(y⁺) / s²,     s_i = ‖a_i‖ in the norm of (diag f_YY)⁻¹

From (y⁺, ν⁺) the support is searched for (``equality_support``), and the run ends where that
finds the solution, to the accuracy of Newton's method.
"""

from __future__ import annotations

import math
from typing import Any

from ..arrays import Array, dot, epsilon, namespace, norm, zeros
from ..krylov.null_space import null_space_of
from ..operators.block_matrices import take_columns, transposed_product
from ..problem.metric import metric_of
from ..problem.problem import Problem
from ..status import Status
from .augmented_problem import augmented
from .equality_support import AffineRows, SupportSearch
from .on_supports import OnSupports
from .stopping import StoppingTest
from .working_set import PathEnd

_FIRST = 10.0  # ρ: the curvature along a row, in that of f
_LARGEST = 1e8
_LOOSE = 1e-2  # tolerance of the first minimum
_INNER = 20  # iterations between two updates of the multipliers
_UPDATES = 100
_CHANGES = (
    8  # of the support that are tried after the first; after each next twice as many
)
_FAR = 1e6  # lengths within which the rows are shown to contradict each other


class AugmentedLagrangian:
    """One run; the counters are its state.

    References
    ----------
    X. Li, D. Sun, K.-C. Toh, SIAM J. Optim. 28 (2018) 433-458 (semismooth Newton inside an
    augmented Lagrangian).
    """

    def __init__(self, problem: Problem, x: Array, test: StoppingTest, M: Any) -> None:
        self.problem, self.x, self.M = problem, x, M
        self.tol, self.callback = test.tol, test.callback
        self.maxiter = test.maxiter
        self.niter = self.n_grad = self.n_hvp = 0
        self.notes: tuple[str, ...] = ()

    def run(self, y: Array) -> PathEnd:
        """Minimise from y."""
        problem, x = self.problem, self.x
        assert problem.equalities is not None
        grad, h = problem.grad(x, y), problem.equalities.value(x, y)
        self.n_grad += 1
        if not math.isfinite(norm(grad) + norm(h)):
            return self.end(y, zeros(h.shape, y), Status.NOT_FINITE)
        jac = problem.equalities.jac(x, y)
        metric, self.n_hvp = metric_of(problem.hess(x, y), y, grad)
        sizes = metric.row_norms(jac)
        self.rows = AffineRows(jac, metric, sizes)
        nu, rho, left, tol = self.fitted(y, grad), _FIRST, math.inf, _LOOSE
        for update in range(_UPDATES):
            y, status = self.minimum(y, nu, rho, max(tol, self.tol))
            if not status.acceptable:
                return self.end(y, nu, status)
            h = problem.equalities.value(x, y)
            nu = nu + rho * h / sizes**2
            changes = _CHANGES << min(update, 20)
            search = SupportSearch(problem, x, self.rows, self.tol, changes)
            found = search.run(y, nu)
            self.add(search)
            if found.step is not None:
                error = found.step / (metric.length(found.y) or 1.0)
                return self.end(found.y, found.multipliers, Status.CONVERGED, error)
            now = norm(h / sizes)
            if now > self.tol * metric.length(y) and self.contradiction(y, h):
                return self.end(y, nu, Status.INFEASIBLE)
            rho = rho if now <= 0.25 * left else min(10.0 * rho, _LARGEST)
            left, tol = now, 0.1 * tol
        return self.end(y, nu, Status.STAGNATED)

    def end(
        self, y: Array, nu: Array, status: Status, error: float | None = None
    ) -> PathEnd:
        """Return the record."""
        counts = self.niter, self.n_hvp, self.n_grad
        return PathEnd(y, status, *counts, error, self.notes, multipliers=nu)

    def fitted(self, y: Array, grad: Array) -> Array:
        """Return argmin ‖f_Y + Ω_Y + A'ν‖ over the support of the start."""
        xp, penalty = namespace(y), self.problem.penalty
        (index,) = xp.nonzero(penalty.support(self.x, y) & (y != 0.0))
        pull = self.rows.metric.forces(grad + penalty.grad(self.x, y))
        if index.shape[0] == 0 or not math.isfinite(norm(pull)):
            return 0.0 * self.rows.sizes
        rows = take_columns(self.rows.metric.covariant(self.rows.jac), index)
        return null_space_of(rows).multipliers(-xp.take(pull, index))

    def minimum(
        self, y: Array, nu: Array, rho: float, tol: float
    ) -> tuple[Array, Status]:
        """Return the minimum of the augmented Lagrangian by y."""
        inner = augmented(self.problem, nu, self.rows.sizes, rho)
        left = max(self.maxiter - self.niter, 0)
        most = min(left, _INNER)
        found = OnSupports(inner, self.x, tol, most, self.callback, self.M).run(y)
        self.add(found)
        self.notes, status = found.notes, found.status
        if status is Status.ITERATION_LIMIT and most < left:
            status = Status.CONVERGED  # as far as it matters before the last update
        return found.y, status

    def add(self, found: Any) -> None:
        """Count what a part of the run has spent."""
        self.niter += found.niter
        self.n_hvp, self.n_grad = self.n_hvp + found.n_hvp, self.n_grad + found.n_grad

    def contradiction(self, y: Array, h: Array) -> bool:
        """Tell whether u'(A y' − b) > 0 for all y' near, with u = h / s²: a Farkas vector.

        Near is within the bounds, and ``_FAR`` lengths; what is excluded stays at zero.
        """
        problem, x, xp = self.problem, self.x, namespace(y)
        u = h / self.rows.sizes**2
        pull = transposed_product(self.rows.jac, u)
        reach = self.rows.metric.length(y) + norm(h / self.rows.sizes)
        below = -_FAR * reach / self.rows.metric.root
        above = -below
        if problem.bounded:
            lower, upper = problem.bounds(x, y)
            below, above = xp.maximum(below, lower - y), xp.minimum(above, upper - y)
        excluded = ~problem.penalty.support(x, xp.ones_like(y))
        least = xp.minimum(pull * below, pull * above)
        least = xp.where(excluded, xp.zeros_like(least), least)
        terms = dot(xp.abs(u), xp.abs(h)) + float(xp.sum(xp.abs(least)))
        terms += dot(xp.abs(pull), xp.abs(y))
        return dot(u, h) + float(xp.sum(least)) > 64.0 * epsilon(y) * terms
