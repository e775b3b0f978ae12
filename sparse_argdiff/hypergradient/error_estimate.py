"""Error estimates for an inexact hypergradient, by a Newton step on both solves.

    λ₁ = λ + K⁻¹ r,    y₂ = y − K⁻¹ f_Y,    λ₂ = λ₁ + K₂⁻¹ (∂f^U/∂y − K₂ λ₁)

with r the residual of the adjoint λ, f_Y that of the lower solution y, and inexact solves.
The error of the hypergradient z is z₂ − z up to the error of z₂, which is smaller by the
factor that the residuals fell by.  Where they did not fall enough, a second step shows the
rate at which the errors fall.  Proven bounds come from constants that are true bounds
(``error_bound.py``).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

from ..arrays import Array, dot, is_finite, namespace, norm
from ..implicit.checked_solve import LinearizedSolve
from ..problem.objective import Constants
from ..problem.optimality import residual
from ..problem.problem import Problem, Solution
from ..status import Status
from .error_bound import Bound, bound
from .upper_objective import UpperObjective, gradient_x, gradient_y, value_of

Descent = Literal["proven", "estimated", "not shown"]

_RTOL = 0.1  # of the linear solves
_SAFETY = 3.0
_WEAK = 0.3  # a contraction, or a relative change, above which a second step is taken


@dataclasses.dataclass(frozen=True)
class Certificate:
    """Bounds and estimates of the errors of a hypergradient.

    Attributes
    ----------
    value_error : float
        Estimate of |value − F(x)|, or its bound where that is smaller.
    gradient_error : float
        Estimate of ‖gradient − ∇F(x)‖₂, or its bound where that is smaller; infinite
        where nothing could be estimated.
    bound : Bound
        Proven bounds of both errors, infinite where nothing is proven.
    descent : {"proven", "estimated", "not shown"}
        Whether −gradient is a direction of descent: its error is below its norm.
    refined : Point
        The pair (y, λ) after the corrections: a better start for what follows.
    n_hvp, n_grad : int
        Cost of the certificate.
    """

    value_error: float
    gradient_error: float
    bound: Bound
    descent: Descent
    refined: Point = dataclasses.field(repr=False)
    n_hvp: int
    n_grad: int


@dataclasses.dataclass(frozen=True)
class Point:
    """A lower solution and an adjoint, with the value and the hypergradient they give.

    ``adjoint_residual`` is that of the linear solve, where it is known.
    """

    solution: Solution
    adjoint: Array
    value: float
    gradient: Array
    adjoint_residual: Array | None = None


@dataclasses.dataclass(frozen=True)
class _Correction:
    """One Newton step: the next point, None where it failed, and its cost."""

    point: Point | None
    fall: float = math.nan  # ratio of the residuals of the lower level
    n_hvp: int = 0
    n_grad: int = 0


def prove(
    problem: Problem,
    upper: UpperObjective,
    point: Point,
    constants: Constants | Callable[[Array, Array], Constants | None] | None = None,
) -> Bound:
    """Return the bounds that the given constants, or the objective's own, prove.

    They are infinite without constants, and with constraints: the bounds are of f_YY⁻¹.
    """
    solution = point.solution
    x, y = solution.x, solution.y
    given: Any = constants
    if given is None and not problem.maximize:
        given = getattr(problem.objective, "constants", None)
    found = given(x, y) if callable(given) else given
    if found is None or problem.constrained:
        return Bound()
    if solution.residual is None or point.adjoint_residual is None:
        return Bound()
    lipschitz = getattr(upper, "lipschitz", None)
    if math.isinf(found.upper_lipschitz) and callable(lipschitz):
        metric = namespace(y).ones_like(y) if found.metric is None else found.metric
        found = dataclasses.replace(found, upper_lipschitz=lipschitz(metric))
    if math.isinf(found.direct_lipschitz):
        absent = upper.grad_x(x, y) is None
        direct = 0.0 if absent else getattr(upper, "direct_lipschitz", math.inf)
        found = dataclasses.replace(found, direct_lipschitz=direct)
    own = getattr(problem.objective, "scale", None)
    scale = float(own(x)) if callable(own) else norm(problem.grad(x, 0.0 * y))
    return bound(
        found,
        forces=solution.residual,
        scale=scale,
        residual=point.adjoint_residual,
        right_hand_side=gradient_y(upper, x, y),
        adjoint=point.adjoint,
        gradient=point.gradient,
        value=point.value,
    )


def certify(
    problem: Problem,
    upper: UpperObjective,
    point: Point,
    proven: Bound | None = None,
    **options: Any,
) -> Certificate:
    """Estimate the errors of the value and the gradient of ``point``.

    Parameters
    ----------
    problem : Problem
    upper : UpperObjective
    point : Point
    proven : Bound, optional
        Its proven bounds.
    **options
        ``method``, ``M`` and ``maxiter`` of the linear solves.

    Notes
    -----
    On 300 random problems that were not used to choose the safety factors (logistic,
    squared, multinomial, equality-constrained; condition 10 to 10⁶; tolerances 1e-1 to
    1e-6) the estimate of the gradient's error was not below it in 99.2 % and within ten
    times of it in 98.7 %; descent was shown in 73 % and true in all of these.  That of the
    value's error was not below it in 99.1 % at 1e-3 and finer: ``tests/test_certificate.py``.
    """
    proven = Bound() if proven is None else proven
    size = norm(point.gradient)
    descent: Descent = "proven" if proven.gradient_error < size else "not shown"
    first = _correct(problem, upper, point, options)
    second, n_hvp, n_grad = first.point, first.n_hvp, first.n_grad
    error = value_error = math.inf
    last = point
    if second is not None:
        last = second
        change = norm(second.gradient - point.gradient)
        error = _SAFETY * change / (1.0 - min(first.fall, 0.8))
        value_error = 2.0 * abs(second.value - point.value)
        if first.fall > _WEAK or change > _WEAK * norm(second.gradient):
            more = _correct(problem, upper, second, options)
            n_hvp, n_grad = n_hvp + more.n_hvp, n_grad + more.n_grad
            if more.point is None:
                error = value_error = math.inf
            else:
                last = more.point
                step = norm(last.gradient - second.gradient)
                rate = min(step / change, 0.9) if change > 0.0 else 0.0
                whole = norm(last.gradient - point.gradient)
                error = max(4.0 / 3.0 * error, 1.5 * (whole + step * rate / (1 - rate)))
                value_error = max(value_error, 2.0 * abs(last.value - point.value))
    if descent != "proven" and error < size:
        descent = "estimated"
    return Certificate(
        value_error=min(value_error, proven.value_error),
        gradient_error=min(error, proven.gradient_error),
        bound=proven,
        descent=descent,
        refined=last,
        n_hvp=n_hvp,
        n_grad=n_grad,
    )


def _correct(
    problem: Problem, upper: UpperObjective, point: Point, options: Any
) -> _Correction:
    """Take one Newton step on the lower level and on the adjoint."""
    here = dataclasses.replace(point.solution, status=Status.CONVERGED)
    x, n = here.x, here.y.shape[0]
    wrong, n_grad = residual(problem, here)
    K = _linearized(problem, here, options)
    step = K(K.system.restrict(wrong))
    if not step.status.acceptable:
        return _Correction(None, n_hvp=K.n_hvp, n_grad=n_grad)
    move = K.system.expand(step.x)
    adjoint = point.adjoint
    if point.adjoint_residual is not None:
        improved = K(point.adjoint_residual)
        if improved.status.acceptable:
            adjoint = adjoint + K.system.expand(improved.x)
    multipliers = here.multipliers
    there = dataclasses.replace(
        here,
        y=here.y - move[:n],
        multipliers=None if multipliers is None else multipliers - move[n:],
        residual=None,
    )
    left, more = residual(problem, there)
    if not is_finite(left):  # the step left the domain of f
        return _Correction(None, n_hvp=K.n_hvp, n_grad=n_grad + more)
    there = dataclasses.replace(there, residual=left)
    K2 = _linearized(problem, there, options)
    system = K2.system
    old = system.restrict(adjoint)
    wanted = system.right_hand_side(gradient_y(upper, x, there.y))
    change = K2(wanted - system.K @ old)
    n_hvp, n_grad = K.n_hvp + K2.n_hvp + 1, n_grad + more
    if not change.status.acceptable:
        return _Correction(None, n_hvp=n_hvp, n_grad=n_grad)
    z = old + change.x
    adjoint = system.expand(z)
    gradient, direct = K2.pull_back(z), gradient_x(upper, x, there.y)
    if direct is not None:
        gradient = gradient + direct
    value = value_of(upper, x, there.y) - dot(adjoint, left)
    size = norm(wrong)
    fall = norm(left) / size if size > 0.0 else 0.0
    found = Point(there, adjoint, value, gradient)
    return _Correction(found, fall, n_hvp, n_grad)


def _linearized(problem: Problem, solution: Solution, options: Any) -> LinearizedSolve:
    return LinearizedSolve(
        problem,
        solution,
        method=options["method"],
        M=options["M"],
        rtol=_RTOL,
        maxiter=options["maxiter"],
        stationarity=math.inf,
        on_failure="ignore",
    )
