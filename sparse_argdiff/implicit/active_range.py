"""How far x may move before another set of constraints is active.

    slack_i + t slack_i' >= 0,    ν_i + t ν_i' >= 0,        x + t u

With affine rows, f quadratic in y, and data that are affine in x, the solution is
y + t g'(x) u up to there: exact; of other problems it is the first order.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Unpack

from ..arrays import Array, described, namespace, zeros
from ..operators.linear_operator import aslinearoperator
from ..problem.optimality import Conditions, conditions, lagrangian_hess
from ..problem.problem import Problem, Solution
from .checked_solve import SolveOptions, checked_solution
from .derivative import jvp


@dataclasses.dataclass(frozen=True)
class ActiveRange:
    """The outcome of :func:`active_range`.

    Attributes
    ----------
    step : float
        The largest t for which the active set of x is that of x + t u; infinite where
        nothing changes, 0 where something is weakly active and u leads over the kink.
    kind : {"row", "lower", "upper"} or None
        What changes first: an inequality row or a bound.
    index : int or None
        Which row or variable.
    becomes : {"active", "inactive"} or None
    """

    step: float
    kind: str | None = None
    index: int | None = None
    becomes: str | None = None

    __repr__ = described


def active_range(
    problem: Problem, solution: Solution, u: Array, **options: Unpack[SolveOptions]
) -> ActiveRange:
    """Return how far x may move along u before a row or a bound changes, and which first.

    Parameters
    ----------
    problem : Problem
    solution : Solution
    u : array (m,)
        A direction in the parameters; −u asks for the other side.
    **options
        Those of :func:`derivative`; one linear solve is made.

    Returns
    -------
    ActiveRange
    """
    if problem.nonsmooth:
        raise ValueError(
            "active_range knows no penalty with kinks: solution.active.weak_fixed tells "
            "what is about to enter the support or to leave it"
        )
    solution, _, _ = checked_solution(
        problem,
        solution,
        options.get("stationarity", 1e-3),
        options.get("on_failure", "raise"),
    )
    if solution.active is None or solution.multipliers is None:
        return ActiveRange(math.inf)
    tangent = jvp(problem, solution, u, **options).tangent
    x, y, active = solution.x, solution.y, solution.active
    n = y.shape[0]
    found = conditions(problem, x, y, solution.multipliers)
    p, ends = found.multipliers_of, []
    dy, slope = tangent[:n], tangent[n:]
    if found.inequality.shape[0]:
        assert problem.inequalities is not None
        moved = problem.inequalities.jac_x(x, y)
        speed = aslinearoperator(found.jacobians[1]) @ dy
        speed = speed if moved is None else speed + moved @ u
        acting = active.strong
        ends.append(("row", "inactive", solution.multipliers[p:], slope[p:], acting))
        ends.append(("row", "active", -found.inequality, -speed, ~acting))
    if problem.bounded:
        force = _force_slope(problem, solution, found, dy, slope, u)
        bounds = problem.bounds(x, y)
        moves = [
            0.0 * y if b is None else b @ u for b in problem.bound_derivatives(x, y)
        ]
        low = (bounds[0] < bounds[1]) & (y - bounds[0] <= bounds[1] - y)
        high = (bounds[0] < bounds[1]) & ~low
        pull, fixed = found.lagrangian_grad, active.fixed
        ends.append(("lower", "inactive", pull, force, fixed & low))
        ends.append(("upper", "inactive", -pull, -force, fixed & high))
        ends.append(("lower", "active", y - bounds[0], dy - moves[0], ~fixed))
        ends.append(("upper", "active", bounds[1] - y, moves[1] - dy, ~fixed))
    return _first(ends)


def _first(ends: list[tuple[str, str, Array, Array, Array]]) -> ActiveRange:
    """Return the end that is reached first: value + t rate = 0, among those there."""
    first = ActiveRange(math.inf)
    for kind, becomes, value, rate, there in ends:
        xp = namespace(value)
        falls = there & (rate < 0.0) & xp.isfinite(value)
        one = xp.ones_like(value)
        left = xp.maximum(xp.where(falls, value, one), xp.zeros_like(value))
        ratio = left / xp.where(falls, -rate, one)
        ratio = xp.where(falls, ratio, xp.full_like(ratio, math.inf))
        j = int(xp.argmin(ratio)) if ratio.shape[0] else 0
        if ratio.shape[0] and float(ratio[j]) < first.step:
            first = ActiveRange(float(ratio[j]), kind, j, becomes)
    return first


def _force_slope(
    problem: Problem,
    solution: Solution,
    found: Conditions,
    dy: Array,
    slope: Array,
    u: Array,
) -> Array:
    """Return the derivative along u of f_Y + C'ν, (n,)."""
    x, y, multipliers = solution.x, solution.y, solution.multipliers
    assert multipliers is not None
    p, n = found.multipliers_of, y.shape[0]
    H = aslinearoperator(lagrangian_hess(problem, x, y, multipliers, p))
    total = H @ dy + problem.cross(x, y) @ u + zeros((n,), y)
    parts = (problem.equalities, slice(0, p)), (problem.inequalities, slice(p, None))
    for (rows, part), jac in zip(parts, found.jacobians, strict=True):
        if rows is None:
            continue
        total = total + aslinearoperator(jac).T @ slope[part]
        mixed = rows.cross(x, y, multipliers[part])
        total = total if mixed is None else total + mixed @ u
    return total
