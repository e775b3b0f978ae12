"""Truncated Newton: line-search Newton-CG (Nocedal & Wright, algorithm 7.1).

    f_YY d = − f_Y  by conjugate gradients until ‖error of d‖_H ≤ η ‖d‖_H,   y += α d

η = ‖d‖ / ρ, what the quadratic model will miss by the last one's error (after Eisenstat &
Walker), makes the convergence quadratic; η is never below what the final tolerance needs.  A direction of curvature ≤ 0 is followed
downhill.  Norms are those of f_YY and, of gradients, of M ≈ f_YY⁻¹ (``stopping.py``).
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..arrays import Array, dot, epsilon, namespace, norm
from ..kernels import Workspace, choose
from ..krylov.cg import ConjugateGradients, vectors_of_scratch
from ..krylov.saddle_point import SaddlePoint
from ..operators.checked_products import asymmetry, symmetry_tolerance
from ..operators.linear_operator import LinearOperator
from ..operators.scaling import diagonal_scale, random_signs
from ..preconditioners import Choice, jacobi
from ..problem.problem import Problem, Solution
from ..status import Status
from .line_search import Step, search
from .stopping import (
    Callback,
    NewtonIterate,
    NewtonStep,
    StoppingTest,
)

logger = logging.getLogger(__name__)

_HALVINGS = 40
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
    return _NewtonCG(problem, x, StoppingTest(tol, maxiter, callback), Choice(M)).run(
        y0
    )


class _Point(NamedTuple):
    y: Array
    grad: Array
    value: float | None
    size: float  # ‖grad‖₂


class _NewtonCG:
    """One run; the counters are its state."""

    def __init__(
        self, problem: Problem, x: Array, test: StoppingTest, choice: Choice
    ) -> None:
        self.problem, self.x, self.test, self.choice = problem, x, test, choice
        self.niter, self.n_hvp, self.n_grad = 0, 0, 0
        self.largest_square = 0.0  # y'f_YY y so far
        self.sized = False  # whether the sizes of the unknowns were estimated
        self.by_size: LinearOperator | None = None  # the diagonal that they give
        self.changes = 0.0  # of f_YY since y'f_YY y was measured, relative
        self.modelled = False  # whether the last step was full and shows ρ
        self.hess: LinearOperator | None = None
        self.probed = False  # whether negative curvature was looked for
        self.given: LinearOperator | None = None  # the caller's M, of the last step
        self.confirmed = False  # whether a zero gradient was asked for again

    def run(self, y0: Array) -> Solution:
        point, status = self.at(namespace(y0).asarray(y0, copy=True)), None
        while True:
            y, _, value, size = point
            logger.debug("newton_cg %d: |grad| %.3e", self.niter, size)
            iterate = NewtonIterate(self.niter, y, value, size, self.n_hvp)
            status = status or self.test.before(iterate)
            if size == 0.0 and not self.confirmed:
                # A gradient that is exactly zero ends all: it is asked for once more.
                point, status, self.confirmed = self.at(y), None, True
                continue
            if status is Status.CONVERGED and not self.is_probed():
                status, point = self.leave_saddle_point(point)
            if status is not None:
                break
            status, point = self.step(point)
        if status.acceptable and not self.has_symmetric_preconditioner(point.y):
            status = Status.NOT_SYMMETRIC
        value, hess = point.value, self.hess
        if hess is None and self.problem.fixed(self.x) is not None:
            hess = self.problem.hess(self.x, point.y)  # its note names them
        note = "" if hess is None else hess.note
        return Solution(
            y=point.y,
            x=self.x,
            value=-value if value is not None and self.problem.maximize else value,
            status=status,
            residual_norm=point.size,
            relative_error=self.test.relative_error,
            residual=point.grad,
            niter=self.niter,
            n_hvp=self.n_hvp,
            n_grad=self.n_grad,
            warnings=(note,) if note else (),
        )

    def at(self, y: Array) -> _Point:
        problem, x = self.problem, self.x
        grad = problem.grad(x, y)
        self.n_grad += 1
        value = problem.value(x, y) if problem.has_value else None
        return _Point(y, grad, value, norm(grad))

    def step(self, point: _Point) -> tuple[Status | None, _Point]:
        """Return the next point, and how the iteration ends there, if it does."""
        y = point.y
        self.hess = hess = self.problem.hess(self.x, y)
        if self.niter == 0 and bool(namespace(y).any(y != 0.0)):
            self.measure(hess, y)
        M = self.preconditioner(hess, y)
        direction = self.direction(hess, M, point)
        self.n_hvp += direction.n_hvp
        if direction.status is not None:
            return direction.status, point
        found = self.search(point, direction, M)
        if found.status is not None:
            return self.without_step(found.status, direction), point
        self.niter += 1
        new = _Point(found.y, found.grad, found.value, norm(found.grad))
        self.modelled = found.alpha == 1.0 and not direction.model_is_unbounded
        model_error = _metric(M, new.grad + direction.r)
        self.record(point, new, direction, found.alpha, model_error)
        if not self.modelled:
            return None, new
        shown = NewtonStep(
            decrement=direction.length,
            inner_error=direction.inner_error,
            gradient=direction.gradient,
            new_gradient=_metric(M, new.grad),
            model_error=model_error,
            largest=direction.largest,
        )
        status = self.test.after(shown)
        if status is Status.CONVERGED and not self.is_verified(hess, M, new):
            status = None
        better = shown.new_gradient < shown.gradient or status is None
        return status, new if better else point

    def preconditioner(self, hess: LinearOperator, y: Array) -> LinearOperator | None:
        """Return M; without another, the sizes of the unknowns where they differ."""
        M, n_setup = self.choice(hess)
        self.n_hvp += n_setup
        self.given = M if self.choice.auto is None else None
        if M is not None or hess.has_diagonal or self.choice.auto is None:
            return M
        if not self.sized:
            sizes, products = diagonal_scale(hess, y)
            self.sized, self.n_hvp = True, self.n_hvp + products
            self.by_size = None if sizes is None else jacobi(sizes, floor=0.0)
        return self.by_size

    def has_symmetric_preconditioner(self, like: Array) -> bool:
        """Test u'M v = v'M u: in another M the lengths, and what has converged, mean nothing."""
        M = self.given
        if M is None or M.symmetric or like.shape[0] == 0:
            return True
        u = random_signs(like.shape[0], like, 1)
        return not asymmetry(M, u, M.matvec(u)) > symmetry_tolerance(M, u)

    def search(
        self, point: _Point, direction: _Direction, M: LinearOperator | None
    ) -> Step:
        """Search along d; where values differ by rounding only, the gradient decides."""
        y, d = point.y, direction.d
        slope, unknown = dot(point.grad, d), direction.model_is_unbounded
        data = self.problem, self.x, y, d, point.value, slope, unknown
        found = search(*data, convex=not unknown)
        self.n_grad += found.n_grad
        if found.status is Status.LINE_SEARCH_FAILED and self.is_short(direction):
            new = self.at(y + d)
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
    ) -> None:
        """Keep y'f_YY y up to date: y₊'f_YY y₊ − y'f_YY y to the mean f_YY on the way."""
        test, hess = self.test, self.hess
        d, change = direction.d, new.grad - point.grad
        d = d if alpha == 1.0 else alpha * d
        test.square += 2.0 * dot(point.y, change) + dot(d, change)
        self.largest_square = max(self.largest_square, test.square)
        self.changes += model_error / direction.gradient if self.modelled else 1.0
        cancelled = not test.square >= 1e-4 * self.largest_square
        if cancelled or (self.changes > 2.0 and direction.length <= 1e-3 * test.size):
            assert hess is not None
            self.measure(hess, new.y)
        test.moved(point.y, norm(d), alpha * direction.length)

    def is_verified(
        self, hess: LinearOperator, M: LinearOperator | None, point: _Point
    ) -> bool:
        """Test the first step of CG from the point: the error is no shorter, one product."""
        if point.size == 0.0:
            return True
        z = point.grad if M is None else M.matvec(point.grad)
        self.n_hvp += 1
        square, curvature = dot(point.grad, z), dot(z, hess.matvec(z))
        return square <= self.test.tol * self.test.length * math.sqrt(
            max(curvature, 0.0)
        )

    def measure(self, hess: LinearOperator, y: Array) -> None:
        """Set y'f_YY y by a product."""
        self.test.square = self.largest_square = dot(y, hess.matvec(y))
        self.changes, self.n_hvp = 0.0, self.n_hvp + 1

    def is_short(self, direction: _Direction) -> bool:
        """Tell whether a step is so short that values hardly tell its ends apart."""
        return direction.length <= 1e-6 * self.test.size

    def without_step(self, status: Status, direction: _Direction) -> Status:
        """Tell rounding from a line search that failed."""
        if status is not Status.LINE_SEARCH_FAILED or not self.is_short(direction):
            return status
        self.test.relative_error = error = direction.length / (self.test.size or 1.0)
        return Status.CONVERGED if error <= self.test.tol else Status.ROUNDING_LIMIT

    def direction(
        self, hess: LinearOperator, M: LinearOperator | None, point: _Point
    ) -> _Direction:
        """Solve f_YY d = −f_Y until the error of d is ≤ η ‖d‖_H, or all that is wanted.

        The error is judged by the residual in the metric of M as well: where steps are
        short of the solution's eigenvectors of small curvature, their lengths do not
        show it.  Along p of curvature ≤ 0 the model has no minimum: p is added.
        """
        test, unit = self.test, _unit_of(point.size)
        r = -point.grad if unit == 1.0 else point.grad * (-1.0 / unit)
        d = namespace(r).zeros_like(r)
        wanted = 0.3 * test.tol * test.length
        limit, run = max(10 * d.shape[0], 20), _Steps(unit)
        for niter, step in enumerate(cg_steps(hess, d, r, M), 1):
            run.n_hvp += step.products
            if step.direction is not None:
                return self.downhill(hess, point, unit * d, step.direction, run)
            if step.status is not None:
                return _Direction(d, r, run.n_hvp, status=step.status)
            run.add(step)
            bent = run.length / test.radius if self.modelled else 1.0
            least = 0.3 * test.tol if wanted == 0.0 else wanted / run.length
            share = min(max(min(_LOOSEST, bent), least, epsilon(r)), 0.5)
            if run.converged(share) or niter >= limit:
                self.choice.record(niter, run.reduction)
                break
        if unit != 1.0:
            d, r = unit * d, unit * r
        return _Direction(
            d, r, run.n_hvp, run.length, run.error, run.first, run.largest
        )

    def downhill(
        self, hess: LinearOperator, point: _Point, d: Array, p: Array, run: _Steps
    ) -> _Direction:
        """Return d + p for p of curvature ≤ 0, p in the units of y: the search finds its length."""
        length, n_hvp = norm(d), run.n_hvp
        if length == 0.0:
            a_norm, n_hvp = norm(hess.matvec(p)) / norm(p), n_hvp + 1
            length = point.size / a_norm if a_norm else max(norm(point.y), 1.0)
        d = d + (length / norm(p)) * p
        return _Direction(d, point.grad, n_hvp, run.length, model_is_unbounded=True)

    def is_probed(self) -> bool:
        """Whether f is known to be convex, or its curvature was looked at."""
        convex = getattr(self.problem.objective, "convex", False)
        definite = self.hess is not None and self.hess.positive_definite
        return self.probed or (convex and not self.problem.maximize) or definite

    def leave_saddle_point(self, point: _Point) -> tuple[Status | None, _Point]:
        """Tell a minimum from a saddle point by a few products; descend from a saddle point.

        Products with the gradients alone never leave an invariant subspace of f_YY.
        """
        self.probed = True
        if self.hess is None:
            self.hess = self.problem.hess(self.x, point.y)
        if self.hess.positive_definite or point.y.shape[0] == 0:
            return Status.CONVERGED, point
        M = self.preconditioner(self.hess, point.y)
        found = SaddlePoint(self.hess, M=M).probe(point.y)
        self.n_hvp += found.n_matvec
        if found.status is not Status.NEGATIVE_CURVATURE or found.direction is None:
            return Status.CONVERGED, point
        if point.value is None:
            return Status.NEGATIVE_CURVATURE, point
        p, self.n_hvp = found.direction, self.n_hvp + 1
        if dot(point.grad, p) > 0.0:
            p = -p
        curvature = dot(p, self.hess.matvec(p))
        t = (norm(point.y) or 1.0) / norm(p)
        for _ in range(_HALVINGS):
            new = self.at(point.y + t * p)
            value = new.value if math.isfinite(new.size) else None
            if value is not None and value <= point.value + 0.1 * curvature * t * t:
                self.niter, self.probed = self.niter + 1, False
                self.test.restart()
                return None, new
            t *= 0.5
        return Status.NEGATIVE_CURVATURE, point


def _unit_of(size: float) -> float:
    """Return a power of two, 1 for ordinary sizes: squares of single precision underflow."""
    return 1.0 if 1e-8 < size < 1e8 else 2.0 ** math.floor(math.log2(size or 1.0))


def _metric(M: LinearOperator | None, g: Array) -> float:
    """Return ‖g‖ in the metric of M."""
    return norm(g) if M is None else math.sqrt(max(dot(g, M.matvec(g)), 0.0))


@dataclasses.dataclass(frozen=True)
class _Direction:
    d: Array
    r: Array  # −f_Y − f_YY d
    n_hvp: int
    length: float = 0.0  # ‖d‖_H
    inner_error: float = 0.0  # of d, in the same norm
    gradient: float = 0.0  # ‖f_Y‖_M
    largest: float = 0.0  # lower estimate of the largest eigenvalue of M f_YY
    model_is_unbounded: bool = False  # curvature ≤ 0: the length of d means nothing
    status: Status | None = None


class _Steps:
    """The steps of CG from zero: length, error and residual of d in invariant norms.

    ``unit`` is what the recurrence's vectors are in units of.
    """

    def __init__(self, unit: float) -> None:
        self.unit, self.n_hvp = unit, 0
        self.square = 0.0  # ‖d‖²_H
        self.rho: list[float] = []  # ‖r‖²_M, the first before any step
        self.largest = 0.0
        self.error = 0.0

    def add(self, step: _Step) -> None:
        """Record a step.  The error is taken to fall on as the residual does."""
        if not self.rho:
            self.rho.append(step.decrease / step.alpha)
        self.rho.append(step.rho)
        self.square += step.decrease
        self.largest = max(self.largest, 1.0 / step.alpha)
        back = min(len(self.rho) - 1, 3)
        before = self.rho[-1 - back]
        if step.rho < 0.0:  # M is indefinite; the next step says so
            self.error = math.inf
            return
        fall = (step.rho / before) ** (1.0 / back) if before > 0.0 else 0.0
        left = fall / (1.0 - fall) if fall < 1.0 else math.inf
        self.error = self.unit * math.sqrt(step.decrease * left)

    def converged(self, share: float) -> bool:
        """Tell whether error and residual are at most a share of what they were."""
        return self.error <= share * self.length and self.reduction <= share

    @property
    def length(self) -> float:
        """‖d‖_H."""
        return self.unit * math.sqrt(self.square)

    @property
    def first(self) -> float:
        """‖f_Y‖_M."""
        return self.unit * math.sqrt(self.rho[0])

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
    with Workspace().lend(r, vectors_of_scratch(M, r, kernels)) as scratch:
        cg = ConjugateGradients(
            kernels.operator(A), M, x, r, kernels, scratch, [target]
        )
        size, counted = norm(r), 0
        while cg.scalars.values(cg.active)[0]:
            for (line,) in cg.advance(kernels.check_every if kernels.on_device else 1):
                alpha, decrease, rho, size, _ = line
                if alpha > 0.0:
                    counted += 1
                    yield _Step(None, size, alpha, decrease, rho, None)
        if not size <= target:
            status, direction, _ = cg.breakdown(0)
            lost = cg.products - counted
            yield _Step(status, size, 0.0, 0.0, 0.0, direction, lost)
