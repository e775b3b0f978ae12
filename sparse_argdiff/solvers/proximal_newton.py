"""Proximal Newton for f + Ω: Newton's method on the support, found by proximal steps.

    y⁺ = prox(y − t D⁻¹ f_Y),   D = diag f_YY              the support S of y⁺
    (f_YY + Ω_YY)_SS d = − (f_Y + Ω_Y)_S                   Newton-CG there

Where columns are explicit and the penalty is one of norms, quadratic models on a working
set take the place of both (``working_set.py``).  A proximal step lowers f + Ω, and so does
each Newton step; near a solution that is not degenerate the support stands, and the
iteration is Newton's.  Only products with f_YY are needed, on arrays of any kind.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from typing import Any

from ..arrays import Array, copied, dot, epsilon, namespace, norm, zeros
from ..krylov import cg
from ..operators.block_matrices import scatter
from ..operators.linear_operator import LinearOperator
from ..preconditioners import Choice
from ..problem.kinks import block_means, block_norms, block_sums, kinks
from ..problem.metric import Metric, metric_of
from ..problem.optimality import Conditions, classify_in, conditions
from ..problem.problem import Problem, Solution
from ..problem.support import on_support
from ..status import Status
from .duality import duality_gap
from .newton_cg import newton_cg
from .stopping import MAXITER, Callback, NewtonIterate, StoppingTest, asks_to_stop
from .working_set import PathEnd, WorkingSetNewton, has_columns

logger = logging.getLogger(__name__)

_PROXIMAL_STEPS = 20  # between two runs of Newton's method
_HALVINGS = 60
_NEWTON_STEPS = 8
_TRIALS = 10
_LOOSE = 0.1  # relative residual of Newton steps before the support stands


def proximal_newton(
    problem: Problem,
    x: Array,
    y0: Array,
    *,
    tol: float = 1e-8,
    maxiter: int | None = None,
    callback: Callback | None = None,
    M: Any = "auto",
) -> Solution:
    """Minimise f(x, ·) + Ω(x, ·) from y0, within bounds.

    Parameters
    ----------
    tol : float
        Stop when the Newton step on the support that is left, and the forces off it that
        exceed what the kinks hold, are ≤ tol of the length of y in the metric of f_YY, and
        the duality gap, where the dual is known, is ≤ tol of f + Ω.
    maxiter : int, optional
        Iterations, 200 by default.
    M : operator, "auto", function or None
        Preconditioner of Newton-CG on the support; a function is given f_YY + Ω_YY there.

    Returns
    -------
    Solution
        Its ``support`` says what is known of the zeros in y, its ``active`` which of them are
        about to enter; nothing is raised for numerical trouble.

    References
    ----------
    J. D. Lee, Y. Sun, M. A. Saunders, SIAM J. Optim. 24 (2014) 1420-1443.
    F. E. Curtis, D. P. Robinson, IMA J. Numer. Anal. 39 (2019) 1170-1200 (reduced space).
    E. Ndiaye, O. Fercoq, A. Gramfort, J. Salmon, J. Mach. Learn. Res. 18 (2017) 128 (what
    the gap proves).
    """
    y = start_of(problem, x, y0)
    ended = _separately(problem, x, y, tol, maxiter, callback)
    if math.isnan(problem.penalty.value(x, namespace(y).ones_like(y))):
        ended = PathEnd(y, Status.NOT_FINITE)
        return as_solution(problem, x, ended, tol)
    if ended is None and has_columns(problem, x, y):
        ended = WorkingSetNewton(problem, x, StoppingTest(tol, maxiter, callback)).run(
            y
        )
    if ended is None:
        ended = _OnSupports(problem, x, tol, maxiter, callback, M).run(y)
    return as_solution(problem, x, ended, tol)


def _separately(
    problem: Problem,
    x: Array,
    y: Array,
    tol: float,
    maxiter: int | None,
    callback: Callback | None,
) -> PathEnd | None:
    """Return the end of several problems that do not meet, such as folds; None of one."""
    objective: Any = problem.objective
    separate = getattr(objective, "separate", None)
    if not callable(separate) or problem.bounded:
        return None
    parts = separate() if problem.penalty is objective.penalty else []
    if not parts or not has_columns(parts[0][0], x[parts[0][1]], y[parts[0][2]]):
        return None
    y, ended = copied(y), None
    for part, of_x, of_y in parts:
        run = WorkingSetNewton(part, x[of_x], StoppingTest(tol, maxiter, callback))
        found = run.run(start_of(part, x[of_x], y[of_y]))
        if found is None:
            return None
        y[of_y] = found.y
        ended = found if ended is None else ended.with_another(found)
    assert ended is not None
    return dataclasses.replace(ended, y=y)


def start_of(problem: Problem, x: Array, y0: Array) -> Array:
    """Return a start within the bounds, zero where the penalty excludes a coefficient."""
    xp = namespace(y0)
    if problem.bounded:
        lower, upper = problem.bounds(x, y0)
        y0 = xp.minimum(xp.maximum(y0, lower), upper)
    return xp.where(problem.penalty.support(x, y0), y0, xp.zeros_like(y0))


def as_solution(problem: Problem, x: Array, ended: PathEnd, tol: float) -> Solution:
    """Return the record of a point, with what is known of its support."""
    y, status = ended.y, ended.status
    n_grad, none = ended.n_grad + 1, zeros((0,), y)
    found = conditions(problem, x, y, none)
    finite = math.isfinite(norm(found.grad))
    n_hvp = ended.n_hvp
    metric = Metric(namespace(y).ones_like(y))
    if finite:
        metric, products = metric_of(problem.hess(x, y), y, found.grad)
        n_hvp += products
        cleared = _without_rounding(y, found, metric)
        if cleared is not None:
            y, n_grad = cleared, n_grad + 1
            ended = dataclasses.replace(ended, gap=None)
            found = conditions(problem, x, y, none)
    total = None
    notes = (*ended.notes, *excluded(problem, x, y))
    active, label, gap = None, "not settled", None
    xp = namespace(y)
    if finite:
        active = classify_in(problem, x, y, found, none, metric)
        label = "not settled" if active.degenerate else "estimated"
        dual = ended.gap or duality_gap(problem, x, y)
        if dual is not None:
            gap = dual.gap
            proven = bool(xp.all(dual.zero | ~active.fixed)) and dual.unique
            label = "proven" if proven and not active.degenerate else label
            if status is Status.CONVERGED and not dual.closes(tol):
                status = Status.ROUNDING_LIMIT if dual.is_rounding else Status.STAGNATED
    if ended.singular or not status.acceptable:
        label = "not settled"
    if problem.has_value:
        total = problem.total(x, y)
        total = -total if problem.maximize else total
    fixed = ~problem.penalty.support(x, y) if active is None else active.fixed
    residual = xp.where(fixed, xp.zeros_like(y), found.lagrangian_grad)
    assert found.kinks is not None
    over = norm(found.kinks.excess(Metric(xp.ones_like(y))))
    return Solution(
        y=y,
        x=x,
        value=total,
        multipliers=none,
        active=active,
        status=status,
        residual_norm=math.hypot(norm(residual), over),
        relative_error=ended.relative_error,
        residual=residual,
        niter=ended.niter,
        n_hvp=n_hvp,
        n_grad=n_grad,
        warnings=notes,
        gap=gap,
        support=label,
    )


def _without_rounding(y: Array, found: Conditions, metric: Metric) -> Array | None:
    """Return y without the coefficients that are rounding of zero; None where none is.

    Shorter than rounding of their forces they are as good as zero, and zeros are exact.
    """
    bends, xp = found.kinks, namespace(y)
    assert bends is not None
    there = ~bends.held & ~bends.free
    lengths = block_norms(metric.root * y, bends.blocks)
    pulls = block_norms(metric.forces(bends.grad), bends.blocks)
    tiny = there & (lengths <= 16.0 * epsilon(y) * pulls)
    return xp.where(tiny, xp.zeros_like(y), y) if bool(xp.any(tiny)) else None


def excluded(problem: Problem, x: Array, y: Array) -> tuple[str, ...]:
    """Return a note that names the coefficients of infinite weight."""
    xp = namespace(y)
    out = ~problem.penalty.support(x, xp.ones_like(y))
    if not bool(xp.any(out)):
        return ()
    if bool(xp.all(out)):
        return ("all coefficients have infinite weights: y = 0, with derivative zero",)
    (index,) = xp.nonzero(out)
    names = ", ".join(str(int(index[k])) for k in range(min(5, index.shape[0])))
    more = ", ..." if index.shape[0] > 5 else ""
    return (
        f"coefficients of infinite weight are zero, with derivative zero: {names}{more}",
    )


class _Smooth:
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


class _SmoothByGradient(_Smooth):
    """The same of an f without values."""

    value: Any = None


class _OnSupports:
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
            y, grad, stands = self.newton_steps(y, grad)
            if not stands:
                continue
            S = self.free(y, grad)
            y, grad, status = self.settle(y, grad, S)
            if status in {Status.UNBOUNDED, Status.NOT_FINITE}:
                return self.end(y, status)
            same = bool(namespace(y).all(self.free(y, grad) == S))
            if same and status.acceptable and self.is_settled(y, grad):
                return self.end(y, status)

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
        problem, x, xp = self.problem, self.x, namespace(y)
        if not math.isfinite(norm(grad)):
            return y, grad, math.nan, Status.NOT_FINITE
        self.step *= 2.0
        for _ in range(_HALVINGS):
            steps = self.step / self.weights
            new = problem.penalty.prox(x, y - steps * grad, steps)
            if problem.bounded:
                lower, upper = problem.bounds(x, y)
                new = xp.minimum(xp.maximum(new, lower), upper)
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
        problem = self.problem
        free = problem.penalty.support(self.x, y)
        if problem.bounded:
            lower, upper = problem.bounds(self.x, y)
            pull = grad + problem.penalty.grad(self.x, y)
            held = ((y <= lower) & (pull >= 0.0)) | ((y >= upper) & (pull <= 0.0))
            free = free & ~held
        return free

    def newton_steps(self, y: Array, grad: Array) -> tuple[Array, Array, bool]:
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
            new = self.within(xp.where(kept, new, xp.zeros_like(new)))
            after = self.merit(new, None)
            if math.isfinite(after) and after < before + self.noise(before, y):
                return new, whole
            alpha *= 0.5
        return None, False

    def merit(self, y: Array, grad: Array | None) -> float:
        """Return f + Ω, or without values the length of the proximal step."""
        if self.problem.has_value:
            return self.problem.total(self.x, y)
        grad = self.grad(y) if grad is None else grad
        steps = 1.0 / self.weights
        moved = self.problem.penalty.prox(self.x, y - steps * grad, steps) - y
        return norm(self.metric.root * moved)

    def noise(self, value: float, y: Array) -> float:
        """Return what rounding makes of a value."""
        return 16.0 * epsilon(y) * abs(value) if self.problem.has_value else 0.0

    def within(self, y: Array) -> Array:
        """Return y moved to the bounds that it violates."""
        if not self.problem.bounded:
            return y
        xp, (lower, upper) = namespace(y), self.problem.bounds(self.x, y)
        return xp.minimum(xp.maximum(y, lower), upper)

    def settle(self, y: Array, grad: Array, S: Array) -> tuple[Array, Array, Status]:
        """Return the end of Newton's method on a support, left when a sign changes."""
        xp = namespace(y)
        (index,) = xp.nonzero(S)
        kind = _Smooth if self.problem.has_value else _SmoothByGradient
        smooth = kind(self.problem, self.x, y, index)

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
        new = self.within(xp.where(kept, new, xp.zeros_like(new)))
        if not self.merit(new, None) < self.merit(y, grad):
            new = y
        return new, self.grad(new), Status.STOPPED_BY_CALLBACK

    def keeps(self, before: Array, y: Array) -> Array:
        """Return where y is within the bounds and on the side of zero that it was on."""
        problem, xp = self.problem, namespace(y)
        blocks = getattr(problem.penalty, "blocks", None)
        free = problem.penalty.support(self.x, xp.zeros_like(y))
        kept = xp.isfinite(y) & (free | (block_sums(before * y, blocks) >= 0.0))
        if problem.bounded:
            lower, upper = problem.bounds(self.x, y)
            kept = kept & (lower <= y) & (y <= upper)
        return kept

    def is_settled(self, y: Array, grad: Array) -> bool:
        """Tell whether forces off the support exceed nothing by more than the tolerance."""
        found = kinks(self.problem, self.x, y, grad)
        assert found is not None
        unit = 64.0 * epsilon(y)
        length = max(self.tol, unit) * self.metric.length(y)
        rounding = unit * norm(self.metric.forces(grad))
        return norm(found.excess(self.metric)) <= max(length, rounding)
