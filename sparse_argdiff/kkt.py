"""The optimality conditions at a point, their size, and their linearisation.

For an unconstrained problem the conditions are f_Y(x, y) = 0, and

    g'(x) = − K⁻¹ B,    K = f_YY,    B = f_XY        (the paper's Lemma 3.2)
"""

from __future__ import annotations

import dataclasses
import math

from .arrays import Array, norm
from .linear_operator import LinearOperator
from .problem import Problem, Solution
from .status import OnFailure, Status, settle


@dataclasses.dataclass(frozen=True)
class KKTSystem:
    """The optimality conditions linearised at a solution.

    Attributes
    ----------
    K : LinearOperator (N, N)
        Derivative by (y, multipliers): symmetric.
    B : LinearOperator (N, m)
        Derivative by x.
    n : int
        Size of y, the first n of the N unknowns.
    definite : bool
        Whether K is positive definite at a strict minimum.
    """

    K: LinearOperator
    B: LinearOperator
    n: int
    definite: bool


def linearize(problem: Problem, solution: Solution) -> KKTSystem:
    """Linearise the optimality conditions of ``problem`` at ``solution``, once."""
    x, y = solution.x, solution.y
    return KKTSystem(
        K=problem.hess(x, y), B=problem.cross(x, y), n=y.shape[0], definite=True
    )


def residual_scale(problem: Problem, x: Array, y: Array) -> tuple[float, int]:
    """Return the size of what must cancel in the optimality conditions, and its products.

    Tolerances of a lower-level solve are relative to it: ‖f_Y(x, 0)‖, or the
    objective's own ``scale(x)``.  It follows the units of f and does not depend on
    the start.  Where it is zero or not finite (y = 0 is stationary, or outside the
    domain), ‖f_YY y‖ stands in, for one Hessian product.
    """
    own = getattr(problem.objective, "scale", None)
    scale = float(own(x)) if callable(own) else norm(problem.grad(x, 0.0 * y))
    if scale > 0.0 and math.isfinite(scale):
        return scale, 0
    return norm(problem.hess(x, y).matvec(y)), 1


def check_stationary(
    problem: Problem, solution: Solution, tolerance: float, on_failure: OnFailure
) -> int:
    """Refuse what is no solution; return the Hessian products spent."""
    if not isinstance(solution, Solution):
        raise TypeError(
            f"solution must be a Solution, found {type(solution).__name__}; wrap "
            "arrays as Solution(y=..., x=...)"
        )
    what = "differentiating the solution"
    if solution.status is not None:
        settle(
            solution.status, solution, what, "the lower-level solve failed.", on_failure
        )
        return 0
    x, y = solution.x, solution.y
    n = getattr(problem.objective, "n", None)
    if n is not None and n != y.shape[0]:
        raise ValueError(f"solution.y must have shape ({n},), found {tuple(y.shape)}")
    size = norm(problem.grad(x, y))
    scale, n_hvp = residual_scale(problem, x, y)
    if not math.isfinite(size):
        settle(Status.NOT_FINITE, solution, what, "f_Y is not finite.", on_failure)
    elif size > tolerance * scale:
        detail = (
            f"‖f_Y(x, y)‖ = {size:.2e} is {size / scale if scale else math.inf:.1e} of "
            f"its scale, above stationarity = {tolerance:.0e}."
        )
        settle(Status.NOT_STATIONARY, solution, what, detail, on_failure)
    return n_hvp
