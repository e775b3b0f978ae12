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


def residual_scale(problem: Problem, x: Array, y: Array) -> float:
    """Return the size of what must cancel in the optimality conditions.

    Tolerances of a lower-level solve are relative to it: ‖f_Y(x, 0)‖, or the
    objective's own ``scale(x)``.  It follows the units of f and does not depend on
    the start.  Where it is zero or not finite (y = 0 is stationary, or outside the
    domain), ‖f_YY y‖ stands in.
    """
    own = getattr(problem.objective, "scale", None)
    scale = float(own(x)) if callable(own) else norm(problem.grad(x, 0.0 * y))
    if scale > 0.0 and math.isfinite(scale):
        return scale
    return norm(problem.hess(x, y).matvec(y))
