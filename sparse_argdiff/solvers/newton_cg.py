"""Truncated Newton: line-search Newton-CG (Nocedal & Wright, algorithm 7.1).

    f_YY d = − f_Y  by conjugate gradients until ‖residual‖ ≤ η ‖f_Y‖,   y += α d

η = ½ |‖f_Y‖ − ‖predicted f_Y‖| / ‖last f_Y‖ (Eisenstat & Walker), the relative error of the
last quadratic model, makes the convergence superlinear and is zero for a quadratic; η is
never below what the final tolerance needs.  A direction of curvature ≤ 0 is followed
downhill.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ..arrays import Array, dot, epsilon, namespace, norm
from ..kernels import Workspace, choose
from ..krylov.cg import ConjugateGradients, vectors_of_scratch
from ..operators.linear_operator import LinearOperator
from ..preconditioners import Choice
from ..problem.optimality import residual_scale
from ..problem.problem import Problem, Solution
from ..status import Status
from .line_search import search

logger = logging.getLogger(__name__)

MAXITER = 200  # Newton steps


@dataclasses.dataclass(frozen=True)
class NewtonIterate:
    """What a ``callback`` of ``solve`` gets, iteration 0 included; y is not a copy."""

    niter: int
    y: Array
    value: float | None
    gradient_norm: float
    n_hvp: int


def asks_to_stop(
    callback: Callable[[NewtonIterate], Any] | None, iterate: NewtonIterate
) -> bool:
    """Call the callback with the iterate; True when it asks to stop."""
    if callback is None:
        return False
    try:
        return bool(callback(iterate))
    except StopIteration:
        return True


class StoppingTest:
    """When Newton's method for f_Y(x, y) = 0 ends: ‖f_Y‖ ≤ tol · scale, or in failure.

    Towards a limit that is not attained, as in exp(−y) or in the log-likelihood of
    separable classes, each full step is as long as the last while the gradient falls
    by 1/e: it is soon below any tolerance, and the minimum is no nearer.  Such steps mean
    that f is unbounded or has no minimiser.
    """

    def __init__(
        self,
        scale: float,
        tol: float,
        maxiter: int | None,
        callback: Callable[[NewtonIterate], Any] | None,
    ) -> None:
        self.scale, self.target = scale, tol * scale
        self.maxiter = MAXITER if maxiter is None else maxiter
        self.callback = callback
        self._length, self._not_shorter = 0.0, 0

    def status(self, iterate: NewtonIterate) -> Status | None:
        """Return how the iteration ends at this iterate, or None: it goes on."""
        size, value = iterate.gradient_norm, iterate.value
        if not math.isfinite(size) or (value is not None and math.isnan(value)):
            return Status.NOT_FINITE
        if size <= self.target:
            return Status.UNBOUNDED if self._diverges(iterate) else Status.CONVERGED
        if asks_to_stop(self.callback, iterate):
            return Status.STOPPED_BY_CALLBACK
        if iterate.niter >= self.maxiter:
            return Status.ITERATION_LIMIT
        return None

    def record_step(self, length: float) -> None:
        """Record the length of an accepted step."""
        shorter = length < 0.95 * self._length
        self._length, self._not_shorter = (
            length,
            0 if shorter else self._not_shorter + 1,
        )

    def _diverges(self, iterate: NewtonIterate) -> bool:
        """Tell whether the gradient has gone to rounding while the steps have not."""
        small = math.sqrt(epsilon(iterate.y)) * self.scale
        return self._not_shorter >= 5 and iterate.gradient_norm <= small

    def rounding_level(self, a_norm: float, y: Array) -> float:
        """Return the gradient norm that rounding alone may leave at y."""
        return 32.0 * epsilon(y) * (a_norm * norm(y) + self.scale)


def stopping_test(
    problem: Problem,
    x: Array,
    y: Array,
    size: float,
    tol: float,
    maxiter: int | None,
    callback: Callable[[NewtonIterate], Any] | None,
) -> tuple[StoppingTest, int, int]:
    """Return the test for a start y with ‖f_Y‖ = size, its gradients and its products."""
    scale, n_hvp = math.nan, 0
    if math.isfinite(size):
        scale, n_hvp = residual_scale(problem, x, y)
        scale = scale or size
    n_grad = 0 if callable(getattr(problem.objective, "scale", None)) else 1
    return StoppingTest(scale, tol, maxiter, callback), n_grad, n_hvp


def newton_cg(
    problem: Problem,
    x: Array,
    y0: Array,
    *,
    tol: float = 1e-8,
    maxiter: int | None = None,
    callback: Callable[[NewtonIterate], Any] | None = None,
    M: Any = "auto",
) -> Solution:
    """Minimise f(x, ·) from y0; stops on the true gradient norm.

    Parameters
    ----------
    tol : float
        Stop when ‖f_Y(x, y)‖₂ ≤ tol · scale, see
        :func:`sparse_argdiff.problem.optimality.residual_scale`.
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
    S. C. Eisenstat, H. F. Walker, SIAM J. Sci. Comput. 17 (1996) 16-32 (choice 1 of η).
    W. W. Hager, H. Zhang, SIAM J. Optim. 16 (2005) 170-192 (the line search's stop).
    """
    point = _start(problem, x, y0)
    test, n_grad, n_hvp = stopping_test(
        problem, x, point.y, point.size, tol, maxiter, callback
    )
    n_grad, niter, a_norm, model_error = n_grad + 1, 0, 0.0, 1.0
    notes: tuple[str, ...] = ()
    choice = Choice(M)
    while True:
        y, grad, value, size = point
        logger.debug("newton_cg %d: |grad| %.3e, %d products", niter, size, n_hvp)
        status = test.status(NewtonIterate(niter, y, value, size, n_hvp))
        if status is not None:
            break
        hess = problem.hess(x, y)
        notes = (hess.note,) if hess.note else ()
        eta = _forcing_term(size, test.target, model_error, epsilon(y))
        step = _direction(hess, point, eta, choice)
        n_hvp, a_norm = n_hvp + step.n_hvp, max(a_norm, step.a_norm)
        status = step.status
        if status is not None:
            break
        slope = dot(grad, step.d)
        found = search(problem, x, y, step.d, value, slope, step.model_is_unbounded)
        n_grad += found.n_grad
        rounding = test.rounding_level(a_norm, y)
        status = found.status
        if status is not None:
            if size <= rounding and status is Status.LINE_SEARCH_FAILED:
                status = Status.ROUNDING_LIMIT
            break
        niter += 1
        test.record_step(found.alpha * norm(step.d))
        new = _Point(found.y, found.grad, found.value, norm(found.grad))
        stalls = new.size > 0.5 * size and max(new.size, size) <= rounding
        if new.size < size or not stalls:
            point = new
        if stalls:
            status = Status.ROUNDING_LIMIT
            break
        full = found.alpha == 1.0
        model_error = abs(new.size - step.residual_norm) / size if full else 1.0
    costs = {"niter": niter, "n_hvp": n_hvp, "n_grad": n_grad}
    return _solution(problem, x, point, status, warnings=notes, **costs)


class _Point(NamedTuple):
    y: Array
    grad: Array
    value: float | None
    size: float  # ‖grad‖


def _start(problem: Problem, x: Array, y0: Array) -> _Point:
    y = namespace(y0).asarray(y0, copy=True)
    grad = problem.grad(x, y)
    value = problem.value(x, y) if problem.has_value else None
    return _Point(y, grad, value, norm(grad))


def _solution(
    problem: Problem, x: Array, point: _Point, status: Status, **rest: Any
) -> Solution:
    value = point.value
    return Solution(
        y=point.y,
        x=x,
        value=-value if value is not None and problem.maximize else value,
        status=status,
        residual_norm=point.size,
        residual=point.grad,
        **rest,
    )


def _forcing_term(size: float, target: float, model_error: float, unit: float) -> float:
    """Return η: more accuracy than the final tolerance needs would be lost."""
    eta = min(0.1, 0.5 * model_error)
    return min(max(eta, 0.3 * target / size, unit), 0.5)


@dataclasses.dataclass(frozen=True)
class _Direction:
    d: Array
    n_hvp: int
    a_norm: float  # lower estimate of ‖f_YY‖
    residual_norm: float  # ‖f_Y + f_YY d‖
    model_is_unbounded: bool = False  # curvature ≤ 0: the length of d means nothing
    status: Status | None = None


def _direction(
    hess: LinearOperator, point: _Point, eta: float, choice: Choice
) -> _Direction:
    """Solve f_YY d = −f_Y to ‖residual‖ ≤ η ‖f_Y‖, with M in the norm of M as well.

    M weighs the coordinates anew: where the gradient is small and the curvature smaller,
    the step is long long before it is accurate, and the line search would shorten it.
    Along a direction p of curvature ≤ 0 the model has no minimum: p is added.
    """
    size, r = point.size, -point.grad
    d = namespace(r).zeros_like(r)
    M, n_hvp = choice(hess)
    a_norm, residual_norm = 0.0, size
    limit, first = max(10 * d.shape[0], 20), 0.0
    target = eta * size if M is None else 0.0
    for niter, step in enumerate(cg_steps(hess, d, r, M, target=target), 1):
        n_hvp += step.products
        if step.direction is not None:
            return _downhill(hess, point, d, step.direction, a_norm, n_hvp)
        if step.status is not None:
            return _Direction(d, n_hvp, a_norm, size, status=step.status)
        if M is None:  # 1/α ≤ ‖f_YY‖: part of a diagonal entry of the Lanczos matrix
            a_norm = max(a_norm, 1.0 / step.alpha)
        first = first or step.decrease / step.alpha  # f_Y' M f_Y
        residual_norm = step.residual_norm
        small = residual_norm <= eta * size
        if small and M is not None:
            small = dot(r, M.matvec(r)) <= eta**2 * first
        if small or niter >= limit:
            choice.record(niter, residual_norm / size)
            break
    length = norm(d)
    if M is not None and length > 0.0:
        a_norm = max(size - residual_norm, 0.0) / length  # ≤ ‖f_YY d‖ / ‖d‖
    return _Direction(d, n_hvp, a_norm, residual_norm)


def _downhill(
    hess: LinearOperator,
    point: _Point,
    d: Array,
    p: Array,
    a_norm: float,
    n_hvp: int,
) -> _Direction:
    """Return d + p for p of curvature ≤ 0, p in the units of y: the search finds its length."""
    length = norm(d)
    if length == 0.0 and a_norm == 0.0:
        a_norm, n_hvp = norm(hess.matvec(p)) / norm(p), n_hvp + 1
    if length == 0.0:
        length = point.size / a_norm if a_norm else max(norm(point.y), 1.0)
    d = d + (length / norm(p)) * p
    return _Direction(d, n_hvp, a_norm, point.size, model_is_unbounded=True)


class _Step(NamedTuple):
    """One step of the recurrence on a vector, or why there is none."""

    status: Status | None  # None: x and r have moved
    residual_norm: float  # of the recurrence
    alpha: float
    decrease: float  # α ρ = ‖x₊ − x‖²_A
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
                alpha, decrease, _, size, _ = line
                if alpha > 0.0:
                    counted += 1
                    yield _Step(None, size, alpha, decrease, None)
        if not size <= target:
            status, direction, _ = cg.breakdown(0)
            lost = cg.products - counted
            yield _Step(status, size, 0.0, 0.0, direction, lost)
