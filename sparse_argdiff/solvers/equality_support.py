"""The support of a minimum under linear equalities, by Newton steps and an active set.

    [ (f_YY + Ω_YY)_SS + δ D   A_S' ] [ d ]   [ −(f_Y + Ω_Y + A'ν)_S ]
    [ A_S                      0    ] [ w ] = [ b − A y              ]

Along d the first coefficient that reaches zero, or a bound, leaves the support S.  Where
d has become short the one whose force −(f_Y + A'ν) exceeds most what its kink or bound holds
enters S, on the side of its force.  Where none does y is the solution, with multipliers ν + w.
The small δ D, D = diag f_YY, is that of a proximal point step: where S is larger than the
curvature has rank, d then leads along the flat direction to its first kink.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, asarray, epsilon, is_finite, namespace, norm
from ..krylov.saddle_point import SaddlePoint
from ..operators.block_matrices import (
    diagonal_operator,
    scatter,
    take_columns,
    transposed_product,
)
from ..preconditioners import constraint_of
from ..problem.kinks import block_sums, kinks
from ..problem.metric import Metric
from ..problem.problem import Problem
from ..problem.support import on_support
from ..status import Status
from .on_supports import free_at, keeps

_SHIFT = 1e-9  # δ
_RTOL = 1e-10
_SLOWEST = 0.5  # factor by which steps on one support must shrink


class AffineRows(NamedTuple):
    """A, and the lengths s (p,) of its rows in the metric of f_YY."""

    jac: Any
    metric: Metric
    sizes: Array


class Found(NamedTuple):
    """Where the search ended, and the length of the last step; None: no solution."""

    y: Array
    multipliers: Array
    step: float | None


class SupportSearch:
    """One search; the counters are its state."""

    def __init__(
        self, problem: Problem, x: Array, rows: AffineRows, tol: float, maxiter: int
    ) -> None:
        self.problem, self.x, self.rows, self.tol = problem, x, rows, tol
        self.maxiter = maxiter
        self.niter = self.n_grad = self.n_hvp = 0

    def run(self, y: Array, nu: Array) -> Found:
        """Search from a y near the solution, with multipliers near its own."""
        problem, x, xp, last = self.problem, self.x, namespace(y), math.inf
        metric, grad = self.rows.metric, self.grad(y, nu)
        free = free_at(problem, x, y, grad)
        for _ in range(self.maxiter):
            d, change, status = self.newton_step(y, nu, grad, free)
            if status is Status.NEGATIVE_CURVATURE or not is_finite(d):
                break
            self.niter += 1
            y, kept = self.towards(y, y + d)
            nu, step = nu + change, metric.length(d)
            grad = self.grad(y, nu)
            length = max(self.tol * metric.length(y), self.rounding(y, grad))
            if not bool(xp.all(kept)):
                free, last = free & kept, math.inf
            elif step > length:
                if step > _SLOWEST * last:
                    break
                last = step
            elif self.holds(y, grad, length):
                return self.without_rounding(Found(y, nu, step), grad, d)
            else:
                y, entering = self.entering(y, grad, free)
                if not bool(xp.any(entering)):
                    break
                grad, last = self.grad(y, nu), math.inf
                free = free | entering
        return Found(y, nu, None)

    def grad(self, y: Array, nu: Array) -> Array:
        """Return f_Y + A'ν."""
        self.n_grad += 1
        return self.problem.grad(self.x, y) + transposed_product(self.rows.jac, nu)

    def newton_step(
        self, y: Array, nu: Array, grad: Array, free: Array
    ) -> tuple[Array, Array, Status]:
        """Return the step of y on S, zero off it, that of the multipliers, and a status."""
        problem, x, xp = self.problem, self.x, namespace(y)
        assert problem.equalities is not None
        (index,) = xp.nonzero(free)
        k = index.shape[0]
        if k == 0:
            return xp.zeros_like(y), xp.zeros_like(nu), Status.CONVERGED
        pull = xp.take(grad + problem.penalty.grad(x, y), index)
        scale = xp.take(self.rows.metric.root, index) ** 2
        H = on_support(problem, x, y, index) + diagonal_operator(_SHIFT * scale)
        C = take_columns(self.rows.jac, index)
        rhs = xp.concat([-pull, -problem.equalities.value(x, y)])
        found = SaddlePoint(H, C, constraint_of(H, C, scale)).solve(rhs, rtol=_RTOL)
        self.n_hvp += found.n_matvec
        return scatter(y.shape[0], index)(found.x[:k]), found.x[k:], found.status

    def towards(self, y: Array, new: Array) -> tuple[Array, Array]:
        """Return the first point on the way where a sign changes, or the end.

        And the mask of what has not reached zero or a bound there; what has is exactly there.
        """
        problem, x, xp = self.problem, self.x, namespace(y)
        kept = keeps(problem, x, y, new)
        if bool(xp.all(kept)):
            return new, kept
        blocks = getattr(problem.penalty, "blocks", None)
        free = problem.penalty.support(x, xp.zeros_like(y))
        square, product = block_sums(y * y, blocks), block_sums(y * new, blocks)
        crosses = ~free & (product < 0.0)
        one, zero = xp.ones_like(y), xp.zeros_like(y)
        shares = xp.where(
            crosses, square / xp.where(crosses, square - product, one), one
        )
        ends = zero
        if problem.bounded:
            lower, upper = problem.bounds(x, y)
            for beyond, bound in ((new < lower, lower), (new > upper, upper)):
                way = xp.where(beyond, new - y, one)
                share = xp.where(beyond, (bound - y) / way, one)
                ends = xp.where(beyond & (share < shares), bound, ends)
                shares = xp.minimum(shares, share)
        first = float(xp.min(shares))
        reached = (shares <= first) & ~kept
        return xp.where(reached, ends, y + first * (new - y)), ~reached

    def entering(self, y: Array, grad: Array, free: Array) -> tuple[Array, Array]:
        """Return y with the block that is held least a step off its kink, and its mask."""
        problem, x, xp = self.problem, self.x, namespace(y)
        metric, found = self.rows.metric, kinks(problem, x, y, grad)
        assert found is not None
        excess = found.excess(metric)
        released = free_at(problem, x, y, grad) & ~free
        pull = xp.abs(metric.forces(grad + found.grad))
        wrong = xp.where(released, pull, excess)
        worst = int(xp.argmax(wrong))
        if not float(wrong[worst]) > 0.0:
            return y, released & False
        labels = np.arange(y.shape[0]) if found.blocks is None else found.blocks
        labels = np.asarray(labels)
        entering = asarray(labels == labels[worst], y, xp.bool)
        one = xp.ones_like(y)
        over = 1.0 - one / xp.maximum(found.activity, one)
        step = over * found.force / metric.root**2
        return xp.where(entering & found.held, step, y), entering

    def without_rounding(self, found: Found, grad: Array, d: Array) -> Found:
        """Return what was found with zeros for what is rounding of them.

        They were kept on S until here: at a vertex they determine the multipliers.
        """
        y, xp = found.y, namespace(d)
        now = kinks(self.problem, self.x, y, grad)
        assert now is not None
        tiny = now.rounding_of_zero(self.rows.metric, y)
        y, d = (xp.where(tiny, xp.zeros_like(v), v) for v in (y, d))
        return Found(y, found.multipliers, self.rows.metric.length(d))

    def rounding(self, y: Array, grad: Array) -> float:
        """Return the length that rounding of the forces may hide."""
        own, metric = self.problem.grad(self.x, y), self.rows.metric
        forces = norm(metric.forces(own)) + norm(metric.forces(grad - own))
        return 64.0 * epsilon(y) * forces

    def holds(self, y: Array, grad: Array, length: float) -> bool:
        """Tell whether the rows are met, and no force exceeds what kinks and bounds hold."""
        problem, x, xp, metric = self.problem, self.x, namespace(y), self.rows.metric
        assert problem.equalities is not None
        found = kinks(problem, x, y, grad)
        assert found is not None
        apart = norm(problem.equalities.value(x, y) / self.rows.sizes)
        left = xp.where(
            free_at(problem, x, y, grad), grad + found.grad, xp.zeros_like(y)
        )
        over = norm(found.excess(metric)) + norm(metric.forces(left))
        return apart <= length and over <= length
