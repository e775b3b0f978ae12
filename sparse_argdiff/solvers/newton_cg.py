"""Truncated Newton: line-search Newton-CG (Nocedal & Wright, algorithm 7.1).

    f_YY d = − f_Y  by conjugate gradients until ‖error of d‖_H ≤ η ‖d‖_H,   y += α d

η = ‖d‖ / ρ, what the quadratic model will miss by the last one's error (after Eisenstat &
Walker), makes the convergence quadratic; η is never below what the final tolerance needs.
A direction of curvature ≤ 0 is followed downhill.  Norms are those of f_YY and, of
gradients, of M ≈ f_YY⁻¹ (``stopping.py``).

A run yields requests (values, a Hessian, products, linear solves) and is sent the answers:
``newton_cg`` answers one run, ``newton_by_parts`` several, whose requests it bundles.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from collections.abc import Generator, Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, asarray, dot, empty, epsilon, namespace, norm
from ..kernels import choose
from ..krylov.cg import ConjugateGradients, cg, vectors_of_scratch
from ..operators.linear_operator import LinearOperator
from ..operators.probes import (
    asymmetry,
    diagonal_estimate,
    diagonal_scale,
    random_signs,
    symmetry_tolerance,
)
from ..preconditioners import Choice, jacobi
from ..problem.problem import Problem, Solution
from ..status import Status
from .line_search import Evaluate, Step, next_request, searching
from .stopping import FAR, FLAT, Callback, NewtonIterate, NewtonStep, StoppingTest

logger = logging.getLogger(__name__)

_HALVINGS = 40
_PROBE = 10  # products that look for negative curvature
_RENEWAL = 64  # products of steps, for which new sizes cost 1, or 8 where they differ
_LOOSEST = 0.2  # relative error of a Newton step


def newton_cg(
    problem: Problem,
    x: Array,
    y0: Array,
    *,
    tol: float = 1e-8,
    maxiter: int | None = None,
    callback: Callback | None = None,
    M: Any = "auto",
) -> Solution:
    """Minimise f(x, ·) from y0; stops on the length of the Newton step.

    Parameters
    ----------
    tol : float
        Stop when the error of y, in the metric of f_YY, is ≤ tol times the least of ‖y‖
        and the length over which f_YY is constant
        (:class:`sparse_argdiff.solvers.stopping.StoppingTest`).
    maxiter : int, optional
        Newton steps, 200 by default.
    M : operator, "auto", function or None
        Preconditioner M ≈ f_YY⁻¹; a function takes f_YY and returns it, such as a builder
        of ``preconditioners`` or an ``Auto`` that several solves share.

    Returns
    -------
    Solution
        Its status says how it ended; nothing is raised for numerical trouble.

    References
    ----------
    J. Nocedal, S. J. Wright, "Numerical Optimization", 2nd ed., 2006, section 7.1.
    S. C. Eisenstat, H. F. Walker, SIAM J. Sci. Comput. 17 (1996) 16-32 (forcing terms).
    W. W. Hager, H. Zhang, SIAM J. Optim. 16 (2005) 170-192 (the line search's stop).
    """
    bounded = functools.partial(problem.has_minimiser, x)
    test = StoppingTest(tol, maxiter, callback, bounded=bounded)
    convex = bool(getattr(problem.objective, "convex", False)) and not problem.maximize
    run = NewtonCG(test, Choice(M), convex=convex).run(y0)
    served, wanted = _Served(problem, x), next_request(run, None)
    while not isinstance(wanted, Outcome):
        wanted = next_request(run, served(wanted))
    return _solution(problem, x, wanted)


def _solution(problem: Problem, x: Array, found: Outcome) -> Solution:
    value, note = found.value, found.note
    if not note and found.niter == 0 and problem.fixed(x) is not None:
        note = problem.hess(x, found.y).note  # names what is fixed
    return Solution(
        y=found.y,
        x=x,
        value=-value if value is not None and problem.maximize else value,
        status=found.status,
        residual_norm=found.size,
        relative_error=found.relative_error,
        error=found.error,
        residual=found.grad,
        niter=found.niter,
        n_hvp=found.n_hvp,
        n_grad=found.n_grad,
        warnings=(note,) if note else (),
    )


class _Served:
    """The answers to the requests of a run on the whole problem."""

    def __init__(self, problem: Problem, x: Array) -> None:
        self.problem, self.x = problem, x
        self.hess: LinearOperator | None = None

    def __call__(self, wanted: Any) -> Any:
        problem, x = self.problem, self.x
        if isinstance(wanted, Evaluate):
            with np.errstate(all="ignore") if wanted.far else nullcontext():
                grad = problem.grad(x, wanted.y)
                return grad, problem.value(x, wanted.y) if problem.has_value else None
        if isinstance(wanted, Linearize):
            self.hess = problem.hess(x, wanted.y)
            return self.hess
        assert self.hess is not None
        if isinstance(wanted, Multiply):
            return self.hess.matvec(wanted.v)
        return self._solve(self.hess, wanted)

    def _solve(self, hess: LinearOperator, wanted: Solve) -> Ended:
        run = wanted.steps
        for step in cg_steps(hess, wanted.d, wanted.r, wanted.M):
            run.n_hvp += step.products
            if step.status is not None or step.direction is not None:
                return Ended(step.status, step.direction)
            run.add(step.alpha, step.decrease, step.rho)
            if run.enough:
                break
        return Ended()


class Linearize(NamedTuple):
    """A request for f_YY at y."""

    y: Array


class Multiply(NamedTuple):
    """A request for the product of the last f_YY with v."""

    v: Array


class Solve(NamedTuple):
    """A request to solve with the last f_YY by CG, from d = 0 with residual r.

    Both are updated in place until ``steps`` has enough.  The answer is an :class:`Ended`.
    """

    M: LinearOperator | None
    d: Array
    r: Array
    steps: Steps


class Ended(NamedTuple):
    """Why CG ended: None where the steps were enough."""

    status: Status | None = None
    direction: Array | None = None  # of curvature ≤ 0


Request = Evaluate | Linearize | Multiply | Solve
Run = Generator[Request, Any, Any]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The end of a run, the function's own value and what it cost."""

    y: Array
    grad: Array
    value: float | None
    size: float  # ‖grad‖₂
    status: Status
    relative_error: float | None
    error: float | None  # ‖error of y‖_H
    niter: int
    n_hvp: int
    n_grad: int
    note: str  # of the last f_YY


class _Point(NamedTuple):
    y: Array
    grad: Array
    value: float | None
    size: float  # ‖grad‖₂


class NewtonCG:
    """One run; the counters are its state.  ``convex``: whether f is known to be."""

    def __init__(self, test: StoppingTest, choice: Choice, *, convex: bool) -> None:
        self.test, self.choice, self.convex = test, choice, convex
        self.niter, self.n_hvp, self.n_grad = 0, 0, 0
        self.largest_square = 0.0  # y'f_YY y so far
        self.since_sized = math.inf  # products since the sizes of the unknowns were
        self.by_size: LinearOperator | None = None  # the diagonal that they give
        self.changes = 0.0  # of f_YY since y'f_YY y was measured, relative
        self.steep: Array | None = None  # diag f_YY at the start of steps as long
        self.modelled = False  # whether the last step was full and shows ρ
        self.hess: LinearOperator | None = None
        self.probed = False  # whether negative curvature was looked for
        self.given: LinearOperator | None = None  # the caller's M, of the last step
        self.confirmed = False  # whether a zero gradient was asked for again
        self.forces: Array | None = None  # |f_Y,j| of the start
        self.cold = False  # whether the start was given up for zero

    def run(self, y0: Array) -> Run:
        """Run from y0; the result is an :class:`Outcome`."""
        point = yield from self.at(namespace(y0).asarray(y0, copy=True))
        status = None
        while True:
            y, _, value, size = point
            logger.debug("newton_cg %d: |grad| %.3e", self.niter, size)
            iterate = NewtonIterate(self.niter, y, value, size, self.n_hvp)
            status = status or self.test.before(iterate)
            if size == 0.0 and not self.confirmed:
                # A gradient that is exactly zero ends all: it is asked for once more.
                point, status = (yield from self.at(y)), None
                self.confirmed = True
                continue
            if status is Status.CONVERGED and not self.is_probed():
                status, point = yield from self.leave_saddle_point(point)
            if status is not None:
                break
            status, point = yield from self.step(point)
        if status.acceptable and not self.has_symmetric_preconditioner(point.y):
            status = Status.NOT_SYMMETRIC
        return Outcome(
            y=point.y,
            grad=point.grad,
            value=point.value,
            size=point.size,
            status=status,
            relative_error=self.test.relative_error,
            error=self.test.error,
            niter=self.niter,
            n_hvp=self.n_hvp,
            n_grad=self.n_grad,
            note="" if self.hess is None else self.hess.note,
        )

    def at(self, y: Array) -> Run:
        """Return the point at y."""
        grad, value = yield Evaluate(y)
        self.n_grad += 1
        return _Point(y, grad, value, norm(grad))

    def product(self, v: Array) -> Run:
        """Return f_YY v."""
        self.n_hvp += 1
        return (yield Multiply(v))

    def step(self, point: _Point) -> Run:
        """Return the next point, and how the iteration ends there, if it does."""
        y = point.y
        self.hess = hess = yield Linearize(y)
        if self.forces is None:
            self.forces = namespace(y).abs(point.grad)
        if self.niter == 0 and bool(namespace(y).any(y != 0.0)):
            if self.meets_flat_force(point) and not self.cold:
                return None, (yield from self.from_zero(point))
            yield from self.measure(y)
        M = self.preconditioner(hess, y)
        direction = yield from self.direction(M, point)
        self.n_hvp += direction.n_hvp
        self.since_sized += direction.n_hvp
        if direction.status is not None:
            return direction.status, point
        found = yield from self.search(point, direction, M)
        if found.status is not None:
            if not self.cold and self.meets_flat_force(point):
                return None, (yield from self.from_zero(point))
            return self.without_step(found.status, direction), point
        self.niter += 1
        new = _Point(found.y, found.grad, found.value, norm(found.grad))
        self.modelled = found.alpha == 1.0 and not direction.model_is_unbounded
        assert direction.r is not None
        model_error = _metric(M, new.grad + direction.r)
        direction = dataclasses.replace(direction, r=None)  # has served
        yield from self.record(point, new, direction, found.alpha, model_error)
        if not self.modelled:
            return None, new
        shown = NewtonStep(
            decrement=direction.length,
            inner_error=direction.inner_error,
            gradient=direction.gradient,
            new_gradient=_metric(M, new.grad),
            model_error=model_error,
            largest=direction.largest,
            flatness=self.flatness(direction),
        )
        status = self.test.after(shown)
        if status is Status.UNBOUNDED:
            falls = yield from self.falls_beyond(new, direction.d)
            status = status if falls else None
        if status is Status.CONVERGED:
            verified = yield from self.is_confirmed(M, new, shown)
            status = status if verified else None
        if status is not None and self.meets_flat_force(new):
            if not self.cold:
                return None, (yield from self.from_zero(new))
            status = Status.LINE_SEARCH_FAILED if status.acceptable else status
        better = shown.new_gradient < shown.gradient or status is None
        return status, new if better else point

    def preconditioner(self, hess: LinearOperator, y: Array) -> LinearOperator | None:
        """Return M; without another, the sizes of the unknowns where they differ.

        They may on the way though not at the start, as those of y log y do.
        """
        M, n_setup = self.choice(hess)
        self.n_hvp += n_setup
        self.given = M if self.choice.auto is None else None
        if M is not None or hess.has_diagonal or self.choice.auto is None:
            return M
        if self.since_sized > _RENEWAL:
            sizes, products = diagonal_scale(hess, y)
            self.since_sized, self.n_hvp = 0, self.n_hvp + products
            self.by_size = None if sizes is None else jacobi(sizes, floor=0.0)
        return self.by_size

    def has_symmetric_preconditioner(self, like: Array) -> bool:
        """Test u'M v = v'M u: in another M the lengths, and what has converged, mean nothing."""
        M = self.given
        if M is None or M.symmetric or like.shape[0] == 0:
            return True
        u = random_signs(like.shape[0], like, 1)
        return asymmetry(M, u, M.matvec(u)) <= symmetry_tolerance(M, u)

    def search(
        self, point: _Point, direction: _Direction, M: LinearOperator | None
    ) -> Run:
        """Search along d; where values differ by rounding only, the gradient decides.

        So it does where f is convex, whose values may round to more than they are: of
        classes that are predicted to the last digits, for instance.
        """
        y, d = point.y, direction.d
        slope, unknown = dot(point.grad, d), direction.model_is_unbounded
        data = y, d, point.value, slope, unknown
        found: Step = yield from searching(*data, convex=not unknown)
        self.n_grad += found.n_grad
        failed = found.status is Status.LINE_SEARCH_FAILED
        if failed and (self.convex or self.is_short(direction)):
            new = yield from self.at(y + d)
            if _metric(M, new.grad) <= 0.5 * direction.gradient:
                return Step(new.y, new.grad, new.value, 1.0, 0, None)
        return found

    def record(
        self,
        point: _Point,
        new: _Point,
        direction: _Direction,
        alpha: float,
        model_error: float,
    ) -> Run:
        """Keep y'f_YY y up to date: y₊'f_YY y₊ − y'f_YY y to the mean f_YY on the way.

        It is measured anew where f_YY has changed: by a mean that is not that of the start.
        """
        test, d = self.test, direction.d
        d = d if alpha == 1.0 else alpha * d
        growth, along = _growth(point, new, d)
        test.square += growth
        self.largest_square = max(self.largest_square, test.square)
        length = alpha * direction.length  # whose square may overflow
        bent = abs(along) / length / length if length > 0.0 else 1.0
        self.changes += (
            model_error / direction.gradient if self.modelled else max(bent, 1.0)
        )
        cancelled = not 1e-4 * self.largest_square <= test.square < math.inf
        if cancelled or (self.changes > 2.0 and direction.length <= 1e-3 * test.size):
            yield from self.measure(new.y)
        test.moved(point.y, norm(d), alpha * direction.length)

    def is_confirmed(
        self, M: LinearOperator | None, point: _Point, last: NewtonStep
    ) -> Run:
        """Verify the end, by a new f_YY where the last step left the force as it was.

        All that such a step shows is an f_YY in which it is short.
        """
        if last.new_gradient > 0.5 * last.gradient and point.size > 0.0:
            self.hess = yield Linearize(point.y)
            M = self.preconditioner(self.hess, point.y)
            yield from self.measure(point.y)
        return (yield from self.is_verified(M, point))

    def is_verified(self, M: LinearOperator | None, point: _Point) -> Run:
        """Test the first step of CG from the point: the error is no shorter, one product."""
        if point.size == 0.0:
            return True
        z = point.grad if M is None else M.matvec(point.grad)
        size = norm(z)
        if not 0.0 < size < math.inf:
            return False
        z = z / size  # squares of what is far from 1 overflow, or vanish
        slope, curvature = dot(point.grad, z), dot(z, (yield from self.product(z)))
        energy = math.sqrt(max(curvature, 0.0))
        if not energy < math.inf:
            return False
        self.test.seen(1.0, energy)
        return slope <= self.test.tol * self.test.length * energy

    def flatness(self, direction: _Direction) -> float:
        """Return d'f_YY d / d'D d of steps that may be endless, D = diag f_YY.

        D is that of their start, until a quotient is small.
        """
        quotient, d = 1.0, direction.d
        if not self.test.endless or self.test.bounded():
            self.steep = None
            return quotient
        for again in (self.steep is None, True):
            if again:
                self.steep, n_hvp = diagonal_estimate(self.hess, d)
                self.n_hvp += n_hvp
            square = 0.0 if self.steep is None else dot(d, self.steep * d)
            quotient = direction.length**2 / square if square > 0.0 else 1.0
            if quotient > FLAT * epsilon(d):
                break
        return quotient

    def falls_beyond(self, point: _Point, d: Array) -> Run:
        """Tell whether f has not risen ``FAR`` steps ahead, one gradient."""
        grad, _ = yield Evaluate(point.y + FAR * d, far=True)
        self.n_grad += 1
        with np.errstate(all="ignore"):
            return dot(grad, d) <= FAR * abs(dot(point.grad, d))

    def measure(self, y: Array) -> Run:
        """Set y'f_YY y by a product."""
        self.test.square = self.largest_square = dot(y, (yield from self.product(y)))
        self.changes = 0.0

    def is_short(self, direction: _Direction) -> bool:
        """Tell whether a step is so short that values hardly tell its ends apart."""
        return direction.length <= 1e-6 * self.test.size

    def meets_flat_force(self, point: _Point) -> bool:
        """Tell whether f falls along a coordinate of which f_YY knows nothing.

        As a saturated logistic loss does, of weights that overshot: to f_YY, and to any M
        made of it, such a force is no distance.
        """
        if self.hess is None or self.forces is None or not self.hess.has_diagonal:
            return False
        xp, D = namespace(point.y), self.hess.diagonal()
        noise = 64.0 * epsilon(point.grad) * self.forces
        return bool(xp.any(~(D > 0.0) & (xp.abs(point.grad) > noise)))

    def from_zero(self, point: _Point) -> Run:
        """Return the point at zero, once, where f_YY may know more than far away."""
        self.cold, test = True, self.test
        self.test = StoppingTest(
            test.tol, test.maxiter, test.callback, bounded=test.bounded
        )
        self.largest_square = self.changes = 0.0
        self.modelled, self.niter = False, self.niter + 1
        return (yield from self.at(0.0 * point.y))

    def without_step(self, status: Status, direction: _Direction) -> Status:
        """Tell rounding from a line search that failed."""
        if status is not Status.LINE_SEARCH_FAILED or not self.is_short(direction):
            return status
        self.test.error = direction.length
        self.test.relative_error = error = direction.length / (self.test.size or 1.0)
        return Status.CONVERGED if error <= self.test.tol else Status.ROUNDING_LIMIT

    def direction(self, M: LinearOperator | None, point: _Point) -> Run:
        """Solve f_YY d = −f_Y until the error of d is ≤ η ‖d‖_H, or all that is wanted.

        The error is judged by the residual in the metric of M as well: where steps are
        short of the solution's eigenvectors of small curvature, their lengths do not
        show it.  Along p of curvature ≤ 0 the model has no minimum: p is added.
        """
        test, scale = self.test, _scale_of(point.size)
        r = -point.grad if scale == 1.0 else point.grad * (-1.0 / scale)
        d = namespace(r).zeros_like(r)
        run = Steps(
            wanted=0.3 * test.tol * test.length,
            radius=test.radius if self.modelled else None,
            least=0.3 * test.tol,
            unit=epsilon(r),
            limit=max(10 * d.shape[0], 20),
            scale=scale,
        )
        ended: Ended = yield Solve(M, d, r, run)
        if ended.direction is not None:
            return (yield from self.downhill(point, scale * d, ended.direction, run))
        if ended.status is not None:
            return _Direction(d, r, run.n_hvp, status=ended.status)
        self.choice.record(len(run.rho) - 1, run.reduction)
        if scale != 1.0:
            d, r = scale * d, scale * r
        return _Direction(
            d, r, run.n_hvp, run.length, run.error, run.first, run.largest
        )

    def downhill(self, point: _Point, d: Array, p: Array, run: Steps) -> Run:
        """Return d + p for p of curvature ≤ 0, p in the units of y: the search finds its length."""
        length, n_hvp = norm(d), run.n_hvp
        if length == 0.0:
            a_norm = norm((yield from self.product(p))) / norm(p)
            length = point.size / a_norm if a_norm else max(norm(point.y), 1.0)
        d = d + (length / norm(p)) * p
        return _Direction(d, point.grad, n_hvp, run.length, model_is_unbounded=True)

    def is_probed(self) -> bool:
        """Whether f is known to be convex, or its curvature was looked at."""
        definite = self.hess is not None and self.hess.positive_definite
        return self.probed or self.convex or definite

    def leave_saddle_point(self, point: _Point) -> Run:
        """Tell a minimum from a saddle point by a few products; descend from a saddle point.

        Products with the gradients alone never leave an invariant subspace of f_YY.
        """
        self.probed = True
        if self.hess is None:
            self.hess = yield Linearize(point.y)
        if self.hess.positive_definite or point.y.shape[0] == 0:
            return Status.CONVERGED, point
        M = self.preconditioner(self.hess, point.y)
        random = np.random.default_rng(0).standard_normal(point.y.shape[0])
        found = cg(self.hess, asarray(random, point.y), M=M, maxiter=_PROBE)
        self.n_hvp += found.n_matvec
        if found.status is Status.NOT_FINITE:
            return Status.NOT_FINITE, point
        if found.status is not Status.NEGATIVE_CURVATURE or found.direction is None:
            return Status.CONVERGED, point
        if point.value is None:
            return Status.NEGATIVE_CURVATURE, point
        p = found.direction
        if dot(point.grad, p) > 0.0:
            p = -p
        curvature = dot(p, (yield from self.product(p)))
        t = (norm(point.y) or 1.0) / norm(p)
        for _ in range(_HALVINGS):
            new = yield from self.at(point.y + t * p)
            value = new.value if math.isfinite(new.size) else None
            if value is not None and value <= point.value + 0.1 * curvature * t * t:
                self.niter, self.probed = self.niter + 1, False
                self.test.restart()
                return None, new
            t *= 0.5
        return Status.NEGATIVE_CURVATURE, point


def _scale_of(size: float) -> float:
    """Return a power of two, 1 for ordinary sizes: squares of single precision underflow."""
    return 1.0 if 1e-8 < size < 1e8 else 2.0 ** math.floor(math.log2(size or 1.0))


def _metric(M: LinearOperator | None, g: Array) -> float:
    """Return ‖g‖ in the metric of M."""
    return norm(g) if M is None else math.sqrt(max(dot(g, M.matvec(g)), 0.0))


@dataclasses.dataclass(frozen=True)
class _Direction:
    d: Array
    r: Array | None  # −f_Y − f_YY d, until the step is taken
    n_hvp: int
    length: float = 0.0  # ‖d‖_H
    inner_error: float = 0.0  # of d, in the same norm
    gradient: float = 0.0  # ‖f_Y‖_M
    largest: float = 0.0  # lower estimate of the largest eigenvalue of M f_YY
    model_is_unbounded: bool = False  # curvature ≤ 0: the length of d means nothing
    status: Status | None = None


def _growth(point: _Point, new: _Point, d: Array) -> tuple[float, float]:
    """Return y₊'f_YY y₊ − y'f_YY y, y₊ = y + d, and d'f_YY d for the mean f_YY on the way."""
    change = new.grad - point.grad
    along = dot(d, change)
    return 2.0 * dot(point.y, change) + along, along


class Steps:
    """The steps of CG from zero: length, error and residual of d in invariant norms.

    Parameters
    ----------
    wanted : float
        The error that the final tolerance needs, a length; 0 where it is not known.
    radius : float or None
        ρ, of η = ‖d‖ / ρ; None where the last step does not show it.
    least : float
        The smallest η where ``wanted`` is not known.
    unit : float
        Rounding, below which η does not go.
    limit : int
        On the steps.
    scale : float
        What the vectors of the recurrence are in units of.
    """

    def __init__(
        self,
        *,
        wanted: float,
        radius: float | None,
        least: float,
        unit: float,
        limit: int,
        scale: float,
    ) -> None:
        self.wanted, self.radius, self.least = wanted, radius, least
        self.unit, self.limit, self.scale = unit, limit, scale
        self.n_hvp = 0
        self.square = 0.0  # ‖d‖²_H
        self.rho: list[float] = []  # ‖r‖²_M, the first before any step
        self.largest = 0.0
        self.error = 0.0

    @property
    def enough(self) -> bool:
        """Whether d is accurate enough, or the limit is met."""
        bent = 1.0 if self.radius is None else self.length / self.radius
        least = self.least if self.wanted == 0.0 else self.wanted / self.length
        share = min(max(min(_LOOSEST, bent), least, self.unit), 0.5)
        return self.converged(share) or len(self.rho) > self.limit

    def add(self, alpha: float, decrease: float, rho: float) -> None:
        """Record a step: α, α ρ = ‖d₊ − d‖²_H and the next ρ = ‖r‖²_M.

        The error is taken to fall on as the residual does.
        """
        if not self.rho:
            self.rho.append(decrease / alpha)
        self.rho.append(rho)
        self.square += decrease
        self.largest = max(self.largest, 1.0 / alpha)
        back = min(len(self.rho) - 1, 3)
        before = self.rho[-1 - back]
        if rho < 0.0:  # M is indefinite; the next step says so
            self.error = math.inf
            return
        fall = (rho / before) ** (1.0 / back) if before > 0.0 else 0.0
        left = fall / (1.0 - fall) if fall < 1.0 else math.inf
        self.error = self.scale * math.sqrt(decrease * left)

    def converged(self, share: float) -> bool:
        """Tell whether error and residual are at most a share of what they were."""
        return self.error <= share * self.length and self.reduction <= share

    @property
    def length(self) -> float:
        """‖d‖_H."""
        return self.scale * math.sqrt(self.square)

    @property
    def first(self) -> float:
        """‖f_Y‖_M."""
        return self.scale * math.sqrt(self.rho[0])

    @property
    def reduction(self) -> float:
        """‖r‖_M / ‖f_Y‖_M."""
        return math.sqrt(abs(self.rho[-1] / self.rho[0])) if self.rho[0] > 0.0 else 0.0


class _Step(NamedTuple):
    """One step of the recurrence on a vector, or why there is none."""

    status: Status | None  # None: x and r have moved
    residual_norm: float  # of the recurrence
    alpha: float
    decrease: float  # α ρ = ‖x₊ − x‖²_A
    rho: float  # ‖r‖²_M after the step
    direction: Array | None  # p, when its curvature is not positive
    products: int = 1  # with A


def cg_steps(
    A: LinearOperator,
    x: Array,
    r: Array,
    M: LinearOperator | None = None,
    target: float = 0.0,
) -> Iterator[_Step]:
    """Yield the steps from x with residual r, both vectors updated in place.

    The last step has a status, or ‖r‖ ≤ ``target``.
    """
    kernels = choose(None, r)
    M = None if M is None else kernels.operator(M)
    scratch = [empty(r.shape, r) for _ in range(vectors_of_scratch(M, r, kernels))]
    run = ConjugateGradients(kernels.operator(A), M, x, r, kernels, scratch, [target])
    size, counted = norm(r), 0
    while run.scalars.values(run.active)[0]:
        for (line,) in run.advance(kernels.check_every if kernels.on_device else 1):
            alpha, decrease, rho, size, _ = line
            if alpha > 0.0:
                counted += 1
                yield _Step(None, size, alpha, decrease, rho, None)
    if not size <= target:
        status, direction, _ = run.breakdown(0)
        lost = run.products - counted
        yield _Step(status, size, 0.0, 0.0, 0.0, direction, lost)
