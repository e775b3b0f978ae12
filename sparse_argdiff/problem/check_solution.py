"""Check that a point from elsewhere is a solution, each condition relative to its scale.

‖f_Y + h_Y' ν + J' λ − z‖ ≤ tol · scale,   |h_i| / ‖∇h_i‖ ≤ tol · max |y|
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ..arrays import norm
from ..status import OnFailure, Status, raise_or_warn
from .optimality import complete, conditions, residual_scale, size_of
from .problem import Problem, Solution


class StationarityCheck(NamedTuple):
    """How well a point meets the optimality conditions."""

    solution: Solution  # with multipliers and active set
    status: Status  # CONVERGED, NOT_STATIONARY or NOT_FINITE
    detail: str
    residual_norm: float
    n_hvp: int


def check_conditions(
    problem: Problem, solution: Solution, tolerance: float, name: str
) -> StationarityCheck:
    """Check the optimality conditions at a solution without a status; two gradients.

    Parameters
    ----------
    tolerance : float
        The largest error of each condition, relative to its scale.
    name : str
        The name of the tolerance, for the message.
    """
    x, y = solution.x, solution.y
    n = getattr(problem.objective, "n", None)
    if n is not None and n != y.shape[0]:
        raise ValueError(f"solution.y must have shape ({n},), found {tuple(y.shape)}")
    solution = complete(problem, solution)
    found = conditions(problem, x, y, solution.multipliers)
    scale, n_hvp = residual_scale(problem, x, y)
    what = "‖f_Y(x, y)‖"
    if problem.constrained:
        scale = max(scale, norm(found.grad))
        what = "the gradient of the Lagrangian"
    wrong = [
        f"{label} = {size:.2e} is {size / unit if unit else math.inf:.1e} of its scale, "
        f"above {name} = {tolerance:.0e}."
        for label, size, unit in (
            (what, found.stationarity, scale),
            ("the violation of a constraint", found.infeasibility, size_of(y)),
            ("the violation of complementarity", found.complementarity, scale),
        )
        if size > tolerance * unit
    ]
    status = Status.NOT_STATIONARY if wrong else Status.CONVERGED
    detail = " ".join(wrong)
    total = found.stationarity + found.infeasibility + found.complementarity
    if not math.isfinite(total):
        status, detail = Status.NOT_FINITE, "f_Y or a constraint is not finite."
    return StationarityCheck(solution, status, detail, found.stationarity, n_hvp)


def check_stationary(
    problem: Problem, solution: Solution, tolerance: float, on_failure: OnFailure
) -> tuple[Solution, int]:
    """Return the completed solution and the Hessian products spent; refuse other points."""
    if not isinstance(solution, Solution):
        raise TypeError(
            f"solution must be a Solution, found {type(solution).__name__}; wrap "
            "arrays as Solution(y=..., x=...)"
        )
    what = "differentiating the solution"
    if solution.status is not None:
        raise_or_warn(
            solution.status, solution, what, "the lower-level solve failed.", on_failure
        )
        return complete(problem, solution) if problem.constrained else solution, 0
    check = check_conditions(problem, solution, tolerance, "stationarity")
    if check.status is not Status.CONVERGED:
        raise_or_warn(check.status, check.solution, what, check.detail, on_failure)
    return check.solution, check.n_hvp
