"""Proximal steps that find the support, and Newton's method on it, by products alone.

    y⁺ = prox(y − t D⁻¹ f_Y),   D = diag f_YY              the support S of y⁺
    (f_YY + Ω_YY)_SS d = − (f_Y + Ω_Y)_S                   Newton-CG there

Neither columns nor entries of f_YY are needed, on arrays of any kind.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from ..arrays import Array, dot, epsilon, namespace, norm
from ..krylov import cg
from ..operators.block_matrices import scatter
from ..operators.linear_operator import LinearOperator
from ..preconditioners import Choice
from ..problem.kinks import block_means, block_sums, kinks
from ..problem.metric import metric_of
from ..problem.problem import Problem
from ..problem.support import on_support
from ..status import Status
from .duality import Gap, duality_gap
from .newton_cg import newton_cg
from .stopping import MAXITER, Callback, NewtonIterate, asks_to_stop
from .working_set import PathEnd

_PROXIMAL_STEPS = 20  # between two runs of Newton's method
_HALVINGS = 60
_NEWTON_STEPS = 8
_TRIALS = 10
_REFINED = 2  # solutions on the support for the sake of the gap,
_FINER = 0.1  # each to this share of the tolerance before
_LOOSE = 0.1  # relative residual of Newton steps before the support stands


class Smooth:
    """f + Ω as a smooth objective of the coefficients of one support."""

    def __init__(self, problem: Problem, x: Array, y: Array, index: Array) -> None:
        self.problem, self.x, self.index = problem, x, index
        self.n = index.shape[0]
        spread = scatter(y.shape[0], index)
        inside = namespace(y).zeros_like(y) == y  # zeros stay what they are
        self._rest = y - spread(namespace(y).take(y, index))
        self._spread, self._inside = spread, inside
        self.convex = bool(
            getattr(problem.objective, "convex", False) and not problem.maximize
        ) and bool(getattr(problem.penalty, "convex", False))

    def whole(self, u: Array) -> Array:
        """Return y with u on the support."""
        return self._rest + self._spread(u)

    def value(self, x: Array, u: Array) -> float:
        """Return f + Ω."""
        return self.problem.total(self.x, self.whole(u))

    def grad(self, x: Array, u: Array) -> Array:
        """Return its gradient on the support."""
        y = self.whole(u)
        grad = self.problem.grad(self.x, y) + self.problem.penalty.grad(self.x, y)
        return namespace(grad).take(grad, self.index)

    def hess(self, x: Array, u: Array) -> LinearOperator:
        """Return the curvature on the support."""
        return on_support(self.problem, self.x, self.whole(u), self.index)

    def cross(self, x: Array, u: Array) -> LinearOperator:
        """Return nothing that a solver needs."""
        raise NotImplementedError("the restricted problem is not differentiated")


class SmoothByGradient(Smooth):
    """The same of an f without values."""

    value: Any = None


def smooth_on(problem: Problem, x: Array, y: Array, index: Array) -> Smooth:
    """Return f + Ω on an index inside the support, with a value where f has one."""
    kind = Smooth if problem.has_value else SmoothByGradient
    return kind(problem, x, y, index)


def free_at(problem: Problem, x: Array, y: Array, grad: Array) -> Array:
    """Return the mask (n,) of the support off the bounds that hold, for forces −grad."""
    free: Array = problem.penalty.support(x, y)
    if problem.bounded:
        lower, upper = problem.bounds(x, y)
        pull = grad + problem.penalty.grad(x, y)
        held = ((y <= lower) & (pull >= 0.0)) | ((y >= upper) & (pull <= 0.0))
        free = free & ~held
    return free


def keeps_sign(problem: Problem, x: Array, before: Array, y: Array) -> Array:
    """Return where y is on the side of zero that it was on, of blocks by their product."""
    xp, blocks = namespace(y), getattr(problem.penalty, "blocks", None)
    free = problem.penalty.support(x, xp.zeros_like(y))
    return xp.isfinite(y) & (free | (block_sums(before * y, blocks) >= 0.0))


def keeps(problem: Problem, x: Array, before: Array, y: Array) -> Array:
    """Return where y keeps its sign, and is within the bounds."""
    kept = keeps_sign(problem, x, before, y)
    if problem.bounded:
        lower, upper = problem.bounds(x, y)
        kept = kept & (lower <= y) & (y <= upper)
    return kept


def within(problem: Problem, x: Array, y: Array) -> Array:
    """Return y moved to the bounds that it violates."""
    if not problem.bounded:
        return y
    xp, (lower, upper) = namespace(y), problem.bounds(x, y)
    return xp.minimum(xp.maximum(y, lower), upper)


class OnSupports:
    """One run of proximal steps and Newton's method; the counters are its state."""

    def __init__(
        self,
        problem: Problem,
        x: Array,
        tol: float,
        maxiter: int | None,
        callback: Callback | None,
        M: Any,
    ) -> None:
        self.problem, self.x, self.tol, self.M = problem, x, tol, M
        self.asked, self.finer = tol, 0
        self.gap: Gap | None = None  # where the last solution on a support ended
        self.maxiter = MAXITER if maxiter is None else maxiter
        self.callback = callback
        self.niter = self.n_grad = self.n_hvp = 0
        self.step = 1.0
        self.error: float | None = None
        self.notes: tuple[str, ...] = ()
        self.choice = Choice(M)

    def run(self, y: Array) -> PathEnd:
        """Minimise from y."""
        problem, x = self.problem, self.x
        grad = self.grad(y)
        hess = problem.hess(x, y)
        self.metric, self.n_hvp = metric_of(hess, y, grad)
        self.notes = (hess.note,) if hess.note else ()
        blocks = getattr(problem.penalty, "blocks", None)
        self.weights = block_means(self.metric.root**2, blocks)
        while True:
            y, grad, moved, status = self.proximal_steps(y, grad)
            status = status or self.ends(y, grad, moved)
            if status is not None:
                return self.end(y, status)
            self.niter += 1
            y, grad, stands = self.newton_cg(y, grad)
            if not stands:
                continue
            S = self.free(y, grad)
            y, grad, status = self.settle(y, grad, S)
            if status in {Status.UNBOUNDED, Status.NOT_FINITE}:
                return self.end(y, status)
            same = bool(namespace(y).all(self.free(y, grad) == S))
            if same and status.acceptable and self.is_settled(y, grad, status):
                if self.closes(y):
                    return dataclasses.replace(self.end(y, status), gap=self.gap)
                self.tol *= _FINER

    def grad(self, y: Array) -> Array:
        """Return f_Y."""
        self.n_grad += 1
        return self.problem.grad(self.x, y)

    def end(self, y: Array, status: Status) -> PathEnd:
        """Return the record."""
        return PathEnd(
            y, status, self.niter, self.n_hvp, self.n_grad, self.error, self.notes
        )

    def ends(self, y: Array, grad: Array, moved: float) -> Status | None:
        """Return how the iteration ends before a Newton run, None: it goes on."""
        xp = namespace(y)
        if not math.isfinite(norm(grad)):
            return Status.NOT_FINITE
        noise = 16.0 * epsilon(y) * norm(self.metric.forces(grad))
        at_zero = self.metric.length(y) <= noise and moved <= noise
        if at_zero or (moved == 0.0 and not bool(xp.any(self.free(y, grad)))):
            self.error = 0.0
            return Status.CONVERGED
        value = self.problem.total(self.x, y) if self.problem.has_value else None
        iterate = NewtonIterate(self.niter, y, value, moved, self.n_hvp)
        if asks_to_stop(self.callback, iterate):
            return Status.STOPPED_BY_CALLBACK
        return Status.ITERATION_LIMIT if self.niter >= self.maxiter else None

    def proximal_steps(
        self, y: Array, grad: Array
    ) -> tuple[Array, Array, float, Status | None]:
        """Take proximal steps until the support stands; return the last one's length."""
        xp, moved = namespace(y), 0.0
        for count in range(_PROXIMAL_STEPS):
            S = self.problem.penalty.support(self.x, y)
            new, new_grad, moved, status = self.proximal_step(y, grad)
            if status is not None:
                return y, grad, moved, status
            y, grad = new, new_grad
            stands = bool(xp.all(self.problem.penalty.support(self.x, y) == S))
            if moved == 0.0 or (stands and count > 0):
                break
        return y, grad, moved, None

    def proximal_step(
        self, y: Array, grad: Array
    ) -> tuple[Array, Array, float, Status | None]:
        """Take one step, shortened until f + Ω falls: s'(f_Y(y⁺) − f_Y(y)) ≤ ½ ‖s‖² / t."""
        problem, x = self.problem, self.x
        if not math.isfinite(norm(grad)):
            return y, grad, math.nan, Status.NOT_FINITE
        self.step *= 2.0
        for _ in range(_HALVINGS):
            steps = self.step / self.weights
            new = problem.penalty.prox(x, y - steps * grad, steps)
            new = within(problem, x, new)
            s = new - y
            square = dot(s, self.weights * s)
            if square == 0.0:
                return y, grad, 0.0, None
            new_grad = self.grad(new)
            bent = dot(s, new_grad - grad)
            rounding = epsilon(y) * math.sqrt(square) * norm(self.metric.forces(grad))
            if (
                math.isfinite(bent)
                and bent <= 0.5 * square / self.step + 4.0 * rounding
            ):
                return new, new_grad, math.sqrt(square), None
            self.step *= 0.5
        return y, grad, 0.0, Status.LINE_SEARCH_FAILED

    def free(self, y: Array, grad: Array) -> Array:
        """Return the mask of the support off the bounds that hold."""
        return free_at(self.problem, self.x, y, grad)

    def newton_cg(self, y: Array, grad: Array) -> tuple[Array, Array, bool]:
        """Take Newton steps while they make coefficients vanish.

        Return whether the last one was a full step that kept the support.
        """
        for _ in range(_NEWTON_STEPS):
            S = self.free(y, grad)
            (index,) = namespace(y).nonzero(S)
            if index.shape[0] == 0:
                return y, grad, False
            d = self.direction(y, grad, index)
            if d is None:
                return y, grad, False
            new, whole = self.projected(y, grad, d)
            if new is None:
                return y, grad, False
            y, grad = new, self.grad(new)
            if whole:
                return y, grad, True
        return y, grad, False

    def direction(self, y: Array, grad: Array, index: Array) -> Array | None:
        """Return a Newton step on the support to a digit; None where it leads nowhere."""
        problem, xp = self.problem, namespace(y)
        K = on_support(problem, self.x, y, index)
        M, n_setup = self.choice(K)
        pull = xp.take(grad + problem.penalty.grad(self.x, y), index)
        found = cg(K, -pull, rtol=_LOOSE, M=M)
        self.n_hvp += n_setup + found.n_matvec
        d = found.x
        if not dot(pull, d) < 0.0:
            return None
        spread: Array = scatter(y.shape[0], index)(d)
        return spread

    def projected(self, y: Array, grad: Array, d: Array) -> tuple[Array | None, bool]:
        """Return a point along the step, with zeros for what would change its sign.

        That is the first of y + d, y + d/2, ... with a lower f + Ω, and whether it is the
        full step.
        """
        before, xp, alpha = self.merit(y, grad), namespace(y), 1.0
        for _ in range(_TRIALS):
            new = y + alpha * d
            kept = self.keeps(y, new)
            whole = alpha == 1.0 and bool(xp.all(kept))
            new = within(self.problem, self.x, xp.where(kept, new, xp.zeros_like(new)))
            after = self.merit(new, None)
            if math.isfinite(after) and after < before + self.noise(before, y):
                return new, whole
            alpha *= 0.5
        return None, False

    def merit(self, y: Array, grad: Array | None) -> float:
        """Return f + Ω, or without values the length of the proximal step."""
        if self.problem.has_value:
            return self.problem.total(self.x, y)
        return self.left(y, self.grad(y) if grad is None else grad)

    def noise(self, value: float, y: Array) -> float:
        """Return what rounding makes of a value."""
        return 16.0 * epsilon(y) * abs(value) if self.problem.has_value else 0.0

    def settle(self, y: Array, grad: Array, S: Array) -> tuple[Array, Array, Status]:
        """Return the end of Newton's method on a support, left when a sign changes."""
        xp = namespace(y)
        (index,) = xp.nonzero(S)
        smooth = smooth_on(self.problem, self.x, y, index)

        def left(iterate: NewtonIterate) -> bool:
            return not bool(xp.all(self.keeps(y, smooth.whole(iterate.y))))

        found = newton_cg(
            Problem(smooth),
            self.x,
            xp.take(y, index),
            tol=self.tol,
            maxiter=max(self.maxiter - self.niter, 1),
            callback=left,
            M=self.M,
        )
        self.niter += found.niter
        self.n_hvp, self.n_grad = self.n_hvp + found.n_hvp, self.n_grad + found.n_grad
        self.error, status = found.relative_error, found.status
        assert status is not None
        new = smooth.whole(found.y)
        kept = self.keeps(y, new)
        if bool(xp.all(kept)):
            return new, self.grad(new), status
        new = within(self.problem, self.x, xp.where(kept, new, xp.zeros_like(new)))
        if not self.merit(new, None) < self.merit(y, grad):
            new = y
        return new, self.grad(new), Status.STOPPED_BY_CALLBACK

    def keeps(self, before: Array, y: Array) -> Array:
        """Return where y is within the bounds and on the side of zero that it was on."""
        return keeps(self.problem, self.x, before, y)

    def closes(self, y: Array) -> bool:
        """Tell whether the duality gap is small enough, or will not get smaller."""
        self.gap, self.finer = duality_gap(self.problem, self.x, y), self.finer + 1
        gap = self.gap
        return gap is None or gap.closes(self.asked) or self.finer > _REFINED

    def is_settled(self, y: Array, grad: Array, status: Status) -> bool:
        """Tell whether forces off the support exceed nothing by more than the tolerance.

        Where Newton's method ended at rounding a proximal step has to be as short.
        """
        found = kinks(self.problem, self.x, y, grad)
        assert found is not None
        unit = 64.0 * epsilon(y)
        size = self.metric.length(y)
        rounding = unit * norm(self.metric.forces(grad))
        if norm(found.excess(self.metric)) > max(max(self.tol, unit) * size, rounding):
            return False
        most = max(math.sqrt(epsilon(y)) * size, rounding)
        return status is Status.CONVERGED or self.left(y, grad) <= most

    def left(self, y: Array, grad: Array) -> float:
        """Return the length of a proximal step of all coordinates at once."""
        steps = 1.0 / self.weights
        moved = self.problem.penalty.prox(self.x, y - steps * grad, steps)
        return norm(self.metric.root * (within(self.problem, self.x, moved) - y))
