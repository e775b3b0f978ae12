"""The intercept of a support vector machine, from the forces of its dual variables.

    b = mean of r_i over the samples inside their bounds,    r = −s ∘ f_Y

Without such samples b lies between the largest r_i that are ≤ b and the smallest that are ≥ b.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

from ..arrays import Array, arange, dot, namespace
from ..problem.problem import ActiveSet
from ..status import ConvergenceWarning


class Intercept(NamedTuple):
    """The intercept, and the interval of those that are as good.

    Where no sample lies inside its bounds that is more than a point, of which ``value`` is
    the middle.
    """

    value: float
    lower: float
    upper: float


def intercept_of(
    r: Array, y: Array, C: Array, signs: Array, active: ActiveSet | None
) -> tuple[Intercept, Array]:
    """Return b = Σ_i ω_i r_i, and the weights ω, (n,).

    They are equal for the samples inside their bounds, where r_i = b; without any
    half each for those that b is closest to from either side.
    """
    xp = namespace(y)
    low, high = y <= 0.0, y >= C
    if active is not None:
        nearer = y <= C - y
        low, high = active.fixed & nearer, active.fixed & ~nearer
    counts, inside = C > 0.0, ~(low | high)
    if active is not None:  # at a bound with hardly a force: r_i is hardly b
        decided = inside & ~active.weak_fixed
        inside = decided if bool(xp.any(decided & counts)) else inside
    count = int(xp.count_nonzero(inside & counts))
    if count:
        weights = xp.astype(inside & counts, y.dtype) / count
        value = dot(weights, r)
        return Intercept(value, value, value), weights
    positive, infinite = signs > 0.0, xp.inf + 0.0 * r
    below = counts & (low == positive)  # r_i <= b
    above = counts & (low != positive)
    lows, highs = xp.where(below, r, -infinite), xp.where(above, r, infinite)
    lower, upper = float(xp.max(lows)), float(xp.min(highs))
    places = arange(y.shape[0], y)
    ends = [
        xp.astype(places == index, y.dtype)
        for index, end in ((xp.argmax(lows), lower), (xp.argmin(highs), upper))
        if np.isfinite(end)
    ]
    if not ends:
        return Intercept(0.0, -np.inf, np.inf), 0.0 * y
    weights = sum(ends[1:], ends[0]) / len(ends)
    return Intercept(dot(weights, r), lower, upper), weights


def tell(b: Intercept) -> None:
    """Warn of an intercept that is not unique."""
    if b.upper > b.lower:
        warnings.warn(
            "the intercept is not unique: no sample lies inside its bounds, and any value "
            f"in [{b.lower:.6g}, {b.upper:.6g}] is as good; {b.value:.6g} is taken",
            ConvergenceWarning,
            stacklevel=4,
        )
