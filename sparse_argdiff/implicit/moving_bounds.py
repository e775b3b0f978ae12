"""The variables that bounds hold, where the bounds are functions of x.

y_F = bound_F(x)    ⇒    ∂y_F/∂x = bound_X,      the free ones see  [H; C] bound_X
"""

from __future__ import annotations

from ..arrays import namespace
from ..operators.linear_operator import LinearOperator
from ..problem.bounds import selected
from ..problem.optimality import conditions
from ..problem.problem import Problem, Solution


def motion_of_fixed(problem: Problem, solution: Solution) -> LinearOperator | None:
    """Return the derivative by x of the variables that bounds hold, (n, m).

    Between bounds that are equal a variable goes with the one that it is pushed against.
    """
    x, y, active = solution.x, solution.y, solution.active
    if not problem.bounds_move or active is None:
        return None
    xp, (lower, upper) = namespace(y), problem.bounds(x, y)
    low = y - lower <= upper - y
    ties = active.fixed & (lower == upper)
    if bool(xp.any(ties)):
        force = conditions(problem, x, y, solution.multipliers).lagrangian_grad
        low = xp.where(ties, force >= 0.0, low)
    derivatives = problem.bound_derivatives(x, y)
    return selected(*derivatives, active.fixed & low, active.fixed & ~low, y)


def symmetric_product(H: LinearOperator, motion: LinearOperator) -> LinearOperator:
    """Return H motion for a symmetric H that may know its products in one direction."""
    return LinearOperator(
        motion.shape, lambda u: H @ (motion @ u), lambda w: motion.T @ (H @ w)
    )
