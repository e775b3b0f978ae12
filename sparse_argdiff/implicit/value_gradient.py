"""The gradient of the optimal value, without a linear solve.

    V(x) = f(x, g(x))         V'(x) = f_X + h_X' ν + bound_X' z

by the envelope theorem: the terms with g'(x) cancel at a solution.  ν are the multipliers of the
rows and z the forces at the bounds, f_Y + h_Y' ν.

References
----------
J. F. Bonnans, A. Shapiro, *Perturbation Analysis of Optimization Problems*, Springer,
2000, theorem 4.24 and remark 4.27.
"""

from __future__ import annotations

import math

from ..arrays import (
    Array,
    as_number,
    as_tolerance,
    asarray,
    check_on_failure,
    copied,
    epsilon,
    is_finite,
    namespace,
    returned_vector,
    zeros,
)
from ..problem.optimality import conditions
from ..problem.problem import Problem, Solution
from ..status import OnFailure, Status, raise_or_warn
from .checked_solve import checked_solution
from .moving_bounds import motion_of_fixed


def value_gradient(
    problem: Problem,
    solution: Solution,
    *,
    stationarity: float = 1e-3,
    on_failure: OnFailure = "raise",
) -> Array:
    """Return the gradient by x of the optimal value f(x, g(x)), of the user's own f.

    Parameters
    ----------
    problem : Problem
        f_X is the objective's ``grad_x(x, y)`` where it has one; otherwise it is taken from
        differences of ``value`` in x at fixed y, four evaluations for each entry of x and
        about 12 digits.
    solution : Solution
        From ``solve``, or ``Solution(y=..., x=...)`` from anywhere.
    stationarity, on_failure
        As for :func:`derivative`.

    Returns
    -------
    array (m,)

    Raises
    ------
    ConvergenceError
        For a point that is not stationary.
    TypeError
        Where the objective has neither ``grad_x`` nor ``value``.

    Notes
    -----
    No linear solve and no Hessian: the error is of the order of that of y and of the multipliers.
    Where the multipliers are not unique the value has one-sided derivatives, and this is the
    one for the multipliers of the solution.
    """
    check_on_failure(on_failure)
    stationarity = as_tolerance("stationarity", stationarity)
    solution, _, _ = checked_solution(problem, solution, stationarity, on_failure)
    x, y = solution.x, solution.y
    total = _partial_gradient(problem, x, y)
    total = total + _of_penalty(problem, x, y)
    sign = -1.0 if problem.maximize else 1.0
    if problem.constrained and solution.multipliers is not None:
        total = total + sign * _of_constraints(problem, solution)
    if is_finite(total):
        return total
    what, detail = "the gradient of the value", "f_X or a constraint's is not finite."
    raise_or_warn(Status.NOT_FINITE, total, what, detail, on_failure)
    return total


def _of_penalty(problem: Problem, x: Array, y: Array) -> Array:
    """Return Ω_X of a penalty, of the user's own sign, (m,)."""
    by_differences = not callable(getattr(problem.objective, "grad_x", None))
    known = problem.nonsmooth or not by_differences  # differences have a smooth one
    if problem.penalty is None or not known:
        return zeros((x.shape[0],), y)
    grad_x = getattr(problem.penalty, "grad_x", None)
    if not callable(grad_x):
        raise TypeError(
            "penalty must have grad_x(x, y), the derivative of its value by x, found a "
            f"{type(problem.penalty).__name__} without"
        )
    found = returned_vector("penalty.grad_x", grad_x(x, y), x.shape[0])
    return -found if problem.maximize else found


def _of_constraints(problem: Problem, solution: Solution) -> Array:
    """Return h_X' ν + bound_X' z of the function that is minimised, (m,)."""
    x, y, multipliers = solution.x, solution.y, solution.multipliers
    assert multipliers is not None
    found = conditions(problem, x, y, multipliers)
    p, total = found.multipliers_of, zeros((x.shape[0],), y)
    for rows, part in (
        (problem.equalities, multipliers[:p]),
        (problem.inequalities, multipliers[p:]),
    ):
        moved = None if rows is None else rows.jac_x(x, y)
        if moved is not None:
            total = total + moved.T @ part
    motion = motion_of_fixed(problem, solution)
    if motion is not None:
        assert solution.active is not None
        xp, pull = namespace(y), found.lagrangian_grad
        held = xp.where(solution.active.fixed, pull, xp.zeros_like(pull))
        total = total + motion.T @ held
    return total


def _partial_gradient(problem: Problem, x: Array, y: Array) -> Array:
    """Return f_X(x, y) of the user's own f, (m,)."""
    if callable(getattr(problem.objective, "grad_x", None)):
        given = problem.given("grad_x", x, y)
        return copied(returned_vector("objective.grad_x", given, x.shape[0]))
    if not problem.has_value:
        raise TypeError(
            "value_gradient needs the objective's grad_x(x, y), or its value(x, y): this "
            "one has neither"
        )
    return _by_differences(problem, x, y)


def _by_differences(problem: Problem, x: Array, y: Array) -> Array:
    """Return f_X by differences of fourth order of the value in x.

    (8 (f(h) − f(−h)) − (f(2h) − f(−2h))) / 12h, with h = ε^(1/5) max(|x_j|, mean |x|),
    which balances truncation h⁴ and rounding ε / h.
    """
    unit, xp = epsilon(x) ** 0.2, namespace(x)
    mean = float(xp.mean(xp.abs(x))) if x.shape[0] else 0.0
    entries = []
    for j in range(x.shape[0]):
        h = unit * (max(abs(float(x[j])), mean) or 1.0)

        def at(step: float, j: int = j) -> float:
            moved = copied(x)
            moved[j] = moved[j] + step
            return as_number("objective.value", problem.given("value", moved, y))

        near, far = at(h) - at(-h), at(2.0 * h) - at(-2.0 * h)
        slope = (8.0 * near - far) / (12.0 * h)
        entries.append(slope if math.isfinite(slope) else math.nan)
    return asarray(entries, x) if entries else zeros((0,), x)
