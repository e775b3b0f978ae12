"""Which constraints act at a solution: strongly, weakly, or not at all.

A row with value g_i <= 0 and multiplier λ_i is strongly active where its force, the step
that it prevents, exceeds its slack −g_i, both as lengths in the metric of the Hessian's
diagonal; it is weakly active where both vanish, to half the digits of y.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, asarray, epsilon, namespace, norm, zeros
from ..operators.block_matrices import is_explicit, take_rows
from .metric import Metric, metric_of
from .optimality import ACTIVE_TOL, Conditions, conditions, lagrangian_hess
from .problem import ActiveSet, Problem, Solution

_EXACT = 1e-7  # ten times the default error of a solve


class ForceAndSlack(NamedTuple):
    """What pulls at inequalities and how far they are, as lengths."""

    force: Array
    slack: Array


def forces_and_slacks(
    problem: Problem,
    x: Array,
    y: Array,
    found: Conditions,
    multipliers: Array,
    metric: Metric,
) -> list[ForceAndSlack]:
    """Return force and slack of the rows, the lower and the upper bounds."""
    sides = []
    if found.inequality.shape[0]:
        sizes = metric.row_norms(found.jacobians[1])
        part = multipliers[found.multipliers_of :]
        sides.append(ForceAndSlack(part * sizes, -found.inequality / sizes))
    if problem.bounded:
        lower, upper = problem.bounds(x, y)
        pull = metric.forces(found.lagrangian_grad)
        below, above = metric.root * (y - lower), metric.root * (upper - y)
        if found.kinks is not None:  # what a kink holds pulls at no bound
            xp, held = namespace(y), found.kinks.held
            pull = xp.where(held, xp.zeros_like(pull), pull)
            below, above = (
                xp.where(held, math.inf + 0.0 * y, s) for s in (below, above)
            )
        sides.append(ForceAndSlack(pull, below))
        sides.append(ForceAndSlack(-pull, above))
    return sides


def classify(problem: Problem, x: Array, y: Array, multipliers: Array) -> ActiveSet:
    """Return which inequality rows and bounds are strongly, weakly or not active.

    A row is strongly active where its force, the step that it prevents, exceeds its slack;
    where both are rounding or ``ACTIVE_TOL`` of the forces around, it is weakly active.
    """
    found = conditions(problem, x, y, multipliers)
    H = lagrangian_hess(problem, x, y, multipliers, found.multipliers_of)
    metric, _ = metric_of(H, y, found.grad)
    return classify_in(problem, x, y, found, multipliers, metric)


def classify_in(
    problem: Problem,
    x: Array,
    y: Array,
    found: Conditions,
    multipliers: Array,
    metric: Metric,
) -> ActiveSet:
    """Classify in a metric that is known, see :func:`classify`.

    What is undecided to half the digits of y is marked as weak, too, and keeps its place:
    y is hardly known better.
    """
    xp = namespace(y)
    sides = forces_and_slacks(problem, x, y, found, multipliers, metric)
    # Forces do not change with the origin; y counts by its rounding alone.
    force = max([norm(metric.forces(found.grad)), *(largest(s.force) for s in sides)])
    length = metric.length(y)
    # Rows that depend on each other may pull far more than anything moves.
    rounding = 64.0 * epsilon(y) * max(force, length)
    usual = max(length, norm(metric.forces(found.grad)))
    least = max(ACTIVE_TOL * min(force, usual), rounding)
    wide = max(least, math.sqrt(epsilon(y)) * length)
    # A solve may leave slacks larger; the farthest side is a length that has no origin.
    farthest = max(map(_farthest, sides), default=0.0)
    near = max(wide, _EXACT * min(length, farthest))
    strong = weak = zeros((0,), y, xp.bool)
    fixed = weak_fixed = zeros(y.shape, y, xp.bool)
    if found.inequality.shape[0]:
        strong, weak = _activity(sides.pop(0), least, wide, near)
        strong, weak = _with_pairs(metric, found.jacobians[1], strong, weak)
    if problem.bounded:
        lower, upper = problem.bounds(x, y)
        (low, weak_low), (high, weak_high) = (
            _activity(side, least, wide, near) for side in sides
        )
        fixed = low | high | (lower == upper)
        weak_fixed = (weak_low | weak_high) & (lower < upper)
    if found.kinks is not None:
        fixed = fixed | found.kinks.held
        weak_fixed = weak_fixed | found.kinks.weak(metric, y)
    return ActiveSet(strong, weak, fixed, weak_fixed)


class Touching(NamedTuple):
    """Inequalities at zero, by whether they push: masks of rows (q,) and bounds (n,)."""

    rows: Array  # that push
    low: Array  # bounds that push
    high: Array
    weak_rows: Array  # at zero without a force, to half the digits of y
    weak_low: Array
    weak_high: Array

    @property
    def weak(self) -> bool:
        """Whether anything at zero has no force."""
        weak = self.weak_rows, self.weak_low, self.weak_high
        return any(bool(namespace(mask).any(mask)) for mask in weak)


def touching(problem: Problem, solution: Solution) -> Touching:
    """Return which inequalities are at zero, and which of them push.

    Unlike :func:`classify`, without a word on pairs of rows that make an equality.
    """
    x, y, multipliers = solution.x, solution.y, solution.multipliers
    assert multipliers is not None
    found = conditions(problem, x, y, multipliers)
    H = lagrangian_hess(problem, x, y, multipliers, found.multipliers_of)
    metric, _ = metric_of(H, y, found.grad)
    xp, sides = (
        namespace(y),
        forces_and_slacks(problem, x, y, found, multipliers, metric),
    )
    length = metric.length(y)
    force = max([norm(metric.forces(found.grad)), *(largest(s.force) for s in sides)])
    wide = math.sqrt(epsilon(y)) * max(length, force)
    none = zeros((0,), y, xp.bool), zeros(y.shape, y, xp.bool)
    masks = [none[0], none[1], none[1], none[0], none[1], none[1]]
    for j in range(3):
        if (j == 0 and not found.inequality.shape[0]) or (
            j > 0 and not problem.bounded
        ):
            continue
        side = sides.pop(0)
        at_zero = side.slack <= wide
        masks[j] = (side.force > wide) & (side.force > side.slack)
        masks[j + 3] = at_zero & ~masks[j]
    # A variable that one of two equal bounds pushes at is not held by the other.
    masks[4], masks[5] = masks[4] & ~masks[2], masks[5] & ~masks[1]
    return Touching(*masks)


def _activity(
    side: ForceAndSlack, least: float, wide: float, near: float
) -> tuple[Array, Array]:
    """Return where an inequality is strongly, and where it may be weakly active."""
    force, slack = side
    undecided = (namespace(force).abs(force) <= wide) & (slack <= near)
    return (force > least) & (force > slack), undecided


def _with_pairs(
    metric: Metric, jac: Any, strong: Array, weak: Array
) -> tuple[Array, Array]:
    """Let one row of l(x) <= a(y) <= l(x) act, in place of both: it is an equality.

    A row that may be weak is left out where an opposite one acts.
    """
    xp = namespace(weak)
    (index,) = xp.nonzero(strong | weak)
    if not (is_explicit(jac) and index.shape[0] > 1 and bool(xp.any(weak))):
        return strong, weak
    rows = take_rows(jac, index)
    random = np.random.default_rng(0).standard_normal((jac.shape[1], 3))
    seen = metric.covariant(rows) @ asarray(random, metric.root)
    seen = seen / metric.row_norms(rows)[:, None]
    rounding = 64.0 * epsilon(seen) * float(xp.max(xp.abs(seen)))
    for k in range(index.shape[0]):
        apart = xp.max(xp.abs(seen + seen[k, :]), axis=1)
        others = index[(apart <= rounding) & (xp.max(xp.abs(seen), axis=1) > rounding)]
        if bool(weak[index[k]]) and others.shape[0]:
            strong[index[k]] = strong[index[k]] | ~xp.any(strong[others])
            weak[index[k]] = False
    return strong, weak


def _farthest(side: ForceAndSlack) -> float:
    """Return the largest finite slack."""
    xp = namespace(side.slack)
    return largest(xp.where(xp.isfinite(side.slack), side.slack, 0.0 * side.force))


def largest(values: Array) -> float:
    """Return the largest value, 0 where none is positive; NaN where there is one."""
    return max(float(namespace(values).max(values)), 0.0) if values.shape[0] else 0.0
