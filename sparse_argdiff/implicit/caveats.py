"""Caveats of a derivative: where it is one-sided, and where y is inaccurate."""

from __future__ import annotations

import math

from ..arrays import epsilon, namespace
from ..problem.bounds import move_apart
from ..problem.problem import Problem, Solution

# The relative error of y from which on a derivative has a caveat.
_ACCURATE = 1e-6


def inaccuracy(solution: Solution) -> str:
    """Return the caveat of a solution from elsewhere whose error counts, or nothing."""
    error = solution.relative_error or 0.0
    if error <= max(_ACCURATE, math.sqrt(epsilon(solution.y))):
        return ""
    return (
        f"y is {error:.1e} of its size away from the solution, by a Newton step: the "
        "derivative is no more accurate than that; solve(problem, x, y0=solution.y) "
        "polishes it"
    )


def moved(distance: float) -> str:
    """Return the caveat of a y that is not the solution at which g' is taken."""
    if distance <= _ACCURATE:
        return ""
    return (
        f"y is {distance:.1e} of its size away from the exact solution of its active set: "
        "the derivative is that of the solution"
    )


def one_sided(solution: Solution) -> str:
    """Return the caveat of weakly active constraints, or nothing."""
    active = solution.active
    if active is None or not active.degenerate:
        return ""
    xp = namespace(active.weak)
    acting = xp.any(active.weak & active.strong)
    acting = acting | xp.any(active.weak_fixed & active.fixed)
    side = "active as the solution has it" if bool(acting) else "inactive"
    if solution.support is not None:
        return (
            "some coefficients are about to enter the support, or to leave it: the "
            "derivative is one-sided there, and this is the one of the support as it is; "
            "jvp(..., one_sided=True) gives that along a direction"
        )
    return (
        "some constraints are weakly active: the derivative is one-sided there, and this "
        f"is the one with them {side}; LogBarrier gives the average of both sides"
    )


def moved_apart(problem: Problem, solution: Solution) -> str:
    """Return the caveat of variables whose bounds are equal here and part with x."""
    active, x, y = solution.active, solution.x, solution.y
    if active is None or not problem.bounds_move:
        return ""
    lower, upper = problem.bounds(x, y)
    ties = active.fixed & (lower == upper)
    if not bool(namespace(y).any(ties)) or not move_apart(
        *problem.bound_derivatives(x, y), ties, x, y
    ):
        return ""
    return (
        "lower = upper for some variables, and x moves these bounds apart: the derivative "
        "is one-sided, with the variables on the bound that they are pushed against"
    )
