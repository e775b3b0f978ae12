"""The barrier function at a fixed μ, for steps where the residuals do not fall.

    φ(y, w) = f / unit − μ Σ log w_i + ρ ‖(e, G + w)‖

The residuals of a convex problem may rise on the way down (where gradients fade, or rows
are curved); φ does not: with curvature along it, the Newton step for this μ is a descent of
φ, whether f is convex or not.  Rows that hold strictly keep w = −G, so that φ is there the
barrier function itself, and μ is lowered once its own conditions are nearly met.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ...arrays import Array, dot, epsilon, namespace, norm
from ..infeasibility import largest
from .iterate import Central, Residuals, reach
from .newton_system import Direction

_ARMIJO = 1e-4
_LOWER = 0.1  # what μ is multiplied with
_MET = 10.0  # in μ: conditions that are met to this let it be lowered
_SPREAD = 1e2  # w_i z_i stay within this factor of μ


class Level:
    """The μ of the moment and the weight ρ of the violations.

    Parameters
    ----------
    now : Residuals
        Where to start: w and z are set anew by :meth:`centred`.
    length : float
        A size of y, in which forces become products w z.

    References
    ----------
    A. Wächter, L. T. Biegler, Math. Program. 106 (2006) 25-57 (levels, multipliers kept
    near μ / w).
    R. H. Byrd, J. Nocedal, R. A. Waltz, in "Large-Scale Nonlinear Optimization", 2006,
    35-59 (the slacks of strictly feasible rows).
    """

    def __init__(self, now: Residuals, length: float) -> None:
        self.length = length
        self.mu = max(now.mu, 0.1 * length * norm(now.r_d))
        self.weight = 0.0

    def centred(self, now: Residuals) -> Central:
        """Return the point with slacks of its own and z = μ / w."""
        point, xp = now.point, namespace(now.point.y)
        least = 1e-3 * self.length
        w = xp.maximum(-now.sides, least + 0.0 * point.w)
        return point._replace(w=w, z=self.mu / w)

    def lower(self, now: Residuals, least: float) -> None:
        """Lower μ, not below ``least``, as often as its conditions are met."""
        products = now.point.w * now.point.z
        while self.mu > least:
            off = max(
                norm(now.r_d) * self.length,
                largest(now.r_e),
                largest(now.r_g),
                largest(products - self.mu),
            )
            if off > _MET * self.mu:
                return
            self.mu = max(min(_LOWER * self.mu, self.mu**1.5), least)
            self.weight = 0.0

    def slope(self, now: Residuals, step: Direction, bend: float, unit: float) -> float:
        """Return dφ along the step, and raise ρ until it is negative."""
        fall = dot(now.grad, step.y) / unit - self.mu * _total(step.w / now.point.w)
        off = self._off(now)
        if off > 0.0:
            bend = max(bend, 0.0)  # a step back to the rows may curve down
            self.weight = max(self.weight, 2.0 * (fall + 0.5 * bend) / off)
        return fall - self.weight * off

    def value(self, now: Residuals, unit: float) -> float:
        """Return φ, infinite outside."""
        w, xp = now.point.w, namespace(now.point.w)
        if now.value is None or not bool(xp.all(w > 0.0)):
            return math.inf
        value = now.value / unit - self.mu * _total(xp.log(w))
        value += self.weight * self._off(now)
        return value if math.isfinite(value) else math.inf

    def settled(
        self, before: Residuals, after: Residuals, keep: float
    ) -> Central | None:
        """Return a trial with w = −G where rows held before, None where one is left."""
        xp, old, point = namespace(after.point.w), before.point.w, after.point
        exact = xp.abs(before.r_g) <= 1e-12 * (old + xp.abs(before.sides))
        inside = -after.sides
        if bool(xp.any(exact & (inside < (1.0 - keep) * old))):
            return None
        # A slack that is too small only costs; one of a row met again is its own.
        w = xp.where(exact | (inside > point.w), inside, point.w)
        z = xp.clip(point.z, self.mu / (_SPREAD * w), _SPREAD * self.mu / w)
        return point._replace(w=w, z=z)

    def enough(self, start: float, slope: float, alpha: float, new: float) -> bool:
        """Tell whether φ fell from ``start`` to ``new`` as it should."""
        return new <= start + _ARMIJO * alpha * slope

    def residual(self, now: Residuals) -> float:
        """Return the size of all conditions for this μ."""
        return math.hypot(now.size, norm(now.point.w * now.point.z - self.mu))

    def fall(
        self,
        now: Residuals,
        step: Direction,
        bend: float,
        unit: float,
        at: Callable[[Central], Residuals],
        bow: Array | None = None,
    ) -> Residuals | None:
        """Go along y + α dy + α² bow as far as the barrier function falls."""
        point, keep = now.point, 0.99
        alpha = min(1.0, keep * reach(point.w, step.w))
        dual = min(1.0, keep * reach(point.z, step.z))
        slope = self.slope(now, step, bend, unit)
        start, shortest = self.value(now, unit), 1e-3 * epsilon(point.y) ** 0.5
        first = True
        while alpha >= shortest:
            trial = at(
                Central(
                    y=point.y
                    + alpha * (step.y if bow is None else step.y + alpha * bow),
                    nu=point.nu + alpha * step.nu,
                    z=point.z + dual * step.z,
                    w=point.w + alpha * step.w,
                )
            )
            own = self.settled(now, trial, keep) if math.isfinite(trial.size) else None
            if own is not None:
                new = at(own)
                fell = self.enough(start, slope, alpha, self.value(new, unit))
                # Near the end the values are too inexact to tell.
                near = first and self.residual(new) <= 0.5 * self.residual(now)
                if (slope < 0.0 and fell) or near:
                    return new
            first, alpha = False, 0.5 * alpha
        return None

    def _off(self, now: Residuals) -> float:
        return math.hypot(norm(now.r_e), norm(now.r_g))


def _total(values: object) -> float:
    return float(namespace(values).sum(values))
