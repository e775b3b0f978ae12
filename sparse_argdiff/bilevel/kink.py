"""Minima at kinks of F along a segment, where its slope jumps from −a to b.

    F(x + t s) ≥ max(F_a + a' (t − t_a), F_b + b' (t − t_b)),    a' < 0 < b',

for a convex F with slopes a', b' at both ends of a bracket: the next cut is where the two
tangents meet, and their value there bounds what F can still fall by; where F is not convex
near the kink, it is an estimate.  At a kink both slopes stay as the bracket shrinks; at a smooth
minimum their difference shrinks with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from ..arrays import Array, dot, norm
from ..hypergradient.result import HypergradientResult

_CUTS = 20  # evaluations of a search for a kink
_NARROWER = 0.1  # width of a bracket over that of an earlier one, for which
_KEPT = 0.5  # the jump of the slopes over that of the earlier one tells a kink
_INSIDE = 1e-3  # least distance of a cut from the ends, over the width


@dataclasses.dataclass(frozen=True)
class End:
    """An end of a bracket: x + t s, with the slope there along s."""

    t: float
    slope: float
    found: HypergradientResult

    @property
    def value(self) -> float:
        """F."""
        return self.found.value


@dataclasses.dataclass(frozen=True)
class Bracket:
    """Two ends with slopes of opposite sign; ``is_kink`` where these jump.

    ``length`` is that of s.
    """

    left: End
    right: End
    length: float
    is_kink: bool = False

    @property
    def width(self) -> float:
        """Distance of the ends, in t."""
        return self.right.t - self.left.t

    @property
    def jump(self) -> float:
        """Difference of the slopes, > 0."""
        return self.right.slope - self.left.slope

    @property
    def lower(self) -> End:
        """The end with the lower value."""
        return min(self.left, self.right, key=lambda end: end.value)

    @property
    def meeting(self) -> float:
        """Where the two tangents meet, as t."""
        rise = self.right.value - self.left.value - self.right.slope * self.width
        return self.left.t - rise / self.jump

    @property
    def fall(self) -> float:
        """What F can still fall by from the lower end, errors of its values included.

        Infinite where the tangents meet outside of the bracket: they tell nothing.  Where
        they meet above the lower end, F is not convex, and the distance is an estimate.
        """
        t = self.meeting
        if not self.left.t <= t <= self.right.t:
            return float("inf")
        least = self.left.value + self.left.slope * (t - self.left.t)
        errors = sum(abs(end.found.correction) for end in (self.left, self.right))
        return abs(self.lower.value - least) + errors

    def cut(self, end: End) -> Bracket:
        """Return the part on the side of an end inside to which F falls."""
        if end.slope < 0.0:
            return dataclasses.replace(self, left=end)
        return dataclasses.replace(self, right=end)

    def describe(self) -> str:
        """Return the slopes in words, per unit of x."""
        down, up = (end.slope / self.length for end in (self.left, self.right))
        return (
            f"slopes {down:.2g} and +{up:.2g} along the direction; "
            "g' is one-sided here."
        )


def bracket_kink(
    found: HypergradientResult,
    point: Array,
    evaluate: Callable[[Array], HypergradientResult],
    small: Callable[[float], float],
) -> Bracket | None:
    """Narrow the bracket between an iterate and a refused trial.

    Parameters
    ----------
    found : HypergradientResult
        The iterate, from which F falls towards ``point``.
    point : array (m,)
        A trial to which F rises.
    evaluate : callable
        Value and gradient of F; what it raises is passed on.
    small : callable
        What a value of F may still fall by at the end; a slope per unit of x that is no
        larger ends the search, too.

    Returns
    -------
    Bracket or None
        ``is_kink`` where the slopes jump and F can still fall by no more than that;
        None where the slopes at the two ends are not of opposite sign.
    """
    x, s = found.solution.x, point - found.solution.x

    def end(t: float) -> End:
        there = found if t == 0.0 else evaluate(x + t * s)
        return End(t, dot(there.gradient, s), there)

    left, right = end(0.0), end(1.0)
    if not left.slope < 0.0 < right.slope:
        return None
    bracket, past = Bracket(left, right, norm(s)), list[Bracket]()
    for _ in range(_CUTS):
        past.append(bracket)
        inside = end(_next(bracket, past))
        bracket, limit = bracket.cut(inside), small(inside.value)
        if abs(inside.slope) <= limit * bracket.length:
            break
        jumps = any(
            bracket.width <= _NARROWER * wider.width
            and bracket.jump >= _KEPT * wider.jump
            for wider in past
        )
        if jumps and bracket.fall <= small(bracket.lower.value):
            return dataclasses.replace(bracket, is_kink=True)
    return bracket


def _next(bracket: Bracket, past: list[Bracket]) -> float:
    """Return where the tangents meet; the middle where such cuts gain too little."""
    middle = 0.5 * (bracket.left.t + bracket.right.t)
    slow = len(past) > 2 and bracket.width > 0.5 * past[-3].width
    least = _INSIDE * bracket.width
    t = bracket.meeting
    if slow or not bracket.left.t <= t <= bracket.right.t:
        return middle
    return min(max(t, bracket.left.t + least), bracket.right.t - least)
