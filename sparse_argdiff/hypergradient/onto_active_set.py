"""An interior solution moved onto the active set that it states.

    y_j = its bound where j is held,        multiplier_i = 0 where row i does not act

An interior point ends with slacks at the former and forces at the latter, both small.
"""

from __future__ import annotations

import dataclasses

from ..arrays import namespace
from ..problem.problem import Problem, Solution


def onto_active_set(problem: Problem, found: Solution) -> Solution:
    """Return the solution with held variables at their bounds, and no force of idle rows.

    The conditions hold before, at a y that is not the solution; the residual of the
    result shows by how much they miss there.
    """
    active, y, multipliers = found.active, found.y, found.multipliers
    if active is None:
        return found
    xp = namespace(y)
    if problem.bounded:
        lower, upper = problem.bounds(found.x, y)
        bound = xp.where(y - lower <= upper - y, lower, upper)
        fixed = active.fixed
        if problem.nonsmooth:  # off the support y is zero, not at a bound
            fixed = fixed & problem.penalty.support(found.x, y)
        y = xp.where(fixed, bound, y)
    if problem.inequalities is not None and multipliers is not None:
        p = multipliers.shape[0] - active.strong.shape[0]
        forces = xp.where(active.strong, multipliers[p:], 0.0 * multipliers[p:])
        multipliers = xp.concat([multipliers[:p], forces])
    same = multipliers is found.multipliers or xp.all(multipliers == found.multipliers)
    if bool(same) and bool(xp.all(y == found.y)):
        return found
    return dataclasses.replace(found, y=y, multipliers=multipliers, residual=None)
