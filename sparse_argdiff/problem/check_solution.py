"""Whether a point from elsewhere is a solution: each condition, relative to its scale.

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
    """A solution, complete, and how well it meets the conditions."""

    solution: Solution
    status: Status  # CONVERGED, NOT_STATIONARY or NOT_FINITE
    detail: str
    residual_norm: float
    n_hvp: int


def check_conditions(
    problem: Problem, solution: Solution, tolerance: float, name: str
) -> StationarityCheck:
    """Check a solution that came without a status; costs two gradients.

    Parameters
    ----------
    tolerance : float
        What each condition may be off by, relative to its scale.
    name : str
        Of the tolerance, for the message.
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
    status, detail = Status.CONVERGED, " ".join(wrong)
    total = found.stationarity + found.infeasibility + found.complementarity
    if not math.isfinite(total):
        status, detail = Status.NOT_FINITE, "f_Y or a constraint is not finite."
    elif wrong:
        status = Status.NOT_STATIONARY
    return StationarityCheck(solution, status, detail, found.stationarity, n_hvp)


def check_stationary(
    problem: Problem, solution: Solution, tolerance: float, on_failure: OnFailure
) -> tuple[Solution, int]:
    """Refuse what is no solution; return it complete, with the Hessian products spent."""
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
        return complete(problem, solution), 0
    verdict = check_conditions(problem, solution, tolerance, "stationarity")
    if verdict.status is not Status.CONVERGED:
        raise_or_warn(
            verdict.status, verdict.solution, what, verdict.detail, on_failure
        )
    return verdict.solution, verdict.n_hvp
