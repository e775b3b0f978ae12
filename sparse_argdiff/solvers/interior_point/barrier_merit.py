"""The barrier function as a merit function, for the monotone mode of the barrier method.

    φ(y, w) = f / unit − μ Σ log w_i + ρ ‖(e, G + w)‖

The residuals of a convex problem may rise on the way to its solution, where gradients fade
or rows are curved; the Newton step for a fixed μ is a direction of descent of φ all the
same.  Rows that hold strictly keep w = −G, so that φ is there the barrier function
itself; μ falls once its own conditions are nearly met (Fiacco-McCormick).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from ...arrays import dot, epsilon, namespace, norm
from .iterate import (
    Direction,
    PrimalDualIterate,
    Residuals,
    evaluate,
    largest,
    max_step_to_boundary,
)

_ARMIJO = 1e-4
_REDUCTION = 0.1  # of μ
_MET = 10.0  # in μ: conditions that are met to this let μ fall
_SPREAD = 1e2  # w_i z_i stay within this factor of μ
_NOISE = 10.0  # roundings by which φ may seem to rise
_KEEP = 0.99  # of the way to the boundary


@dataclasses.dataclass(frozen=True)
class BarrierMerit:
    """φ at a fixed μ, with the weight ρ of the violations.

    References
    ----------
    A. Wächter, L. T. Biegler, Math. Program. 106 (2006) 25-57 (the rule for μ, multipliers
    kept near μ / w; their code, too, relaxes the test by ten roundings of φ).
    R. H. Byrd, J. Nocedal, R. A. Waltz, in "Large-Scale Nonlinear Optimization", 2006,
    35-59 (the slacks of strictly feasible rows).
    """

    mu: float
    weight: float = 0.0

    def reduced(self, now: Residuals, least: float) -> BarrierMerit:
        """Return φ with a smaller μ, not below ``least``, if its conditions are met."""
        mu, products = self.mu, now.point.w * now.point.z
        force, length = now.scales
        off = max(norm(now.r_d) * length, now.violation * force)
        while mu > least and max(off, largest(products - mu)) <= _MET * mu:
            mu = max(min(_REDUCTION * mu, mu**1.5), least)
        return self if mu == self.mu else BarrierMerit(mu)

    def value(self, now: Residuals) -> float:
        """Return φ, infinite where it has no value."""
        w, xp = now.point.w, namespace(now.point.w)
        if now.value is None or not bool(xp.all(w > 0.0)):
            return math.inf
        value = now.value / now.form.unit - self.mu * float(xp.sum(xp.log(w)))
        value += self.weight * _off(now)
        return value if math.isfinite(value) else math.inf

    def descent(
        self, now: Residuals, step: Direction, curvature: float
    ) -> tuple[BarrierMerit, float]:
        """Return φ with a weight for which its slope along the step is negative, and that.

        References
        ----------
        J. Nocedal, S. J. Wright, "Numerical Optimization", 2006, (18.36).
        """
        xp, point, weight = namespace(step.w), now.point, self.weight
        slope = dot(now.grad, step.y) / now.form.unit
        slope -= self.mu * float(xp.sum(step.w / point.w))
        off = _off(now)
        if off > 0.0:
            weight = max(weight, 2.0 * (slope + 0.5 * max(curvature, 0.0)) / off)
        return dataclasses.replace(self, weight=weight), slope - weight * off

    def backtrack(
        self,
        now: Residuals,
        step: Direction,
        slope: float,
        correction: Callable[[], Direction] | None,
    ) -> tuple[Residuals | None, int, int]:
        """Return the first point along the step where φ falls enough.

        Where it does not at the first point, the search goes on along the arc
        y + α dy + α² s, s the second-order ``correction`` of rows that are not affine.
        Returns the products and the evaluations, too.
        """
        point, arc, n_hvp, n_grad = now.point, 0.0 * step.y, 0, 0
        alpha = min(1.0, _KEEP * max_step_to_boundary(point.w, step.w))
        dual = min(1.0, _KEEP * max_step_to_boundary(point.z, step.z))
        start, shortest = self.value(now), 1e-3 * epsilon(point.y) ** 0.5
        noise = _NOISE * epsilon(point.y) * abs(start)
        first = True
        while slope < 0.0 and alpha >= shortest:
            trial = PrimalDualIterate(
                y=point.y + alpha * (step.y + alpha * arc),
                nu=point.nu + alpha * step.nu,
                z=point.z + dual * step.z,
                w=point.w + alpha * step.w,
            )
            new, n_grad = self._reset_slacks(now, evaluate(now.form, trial)), n_grad + 1
            enough = start + _ARMIJO * alpha * slope + noise
            if new is not None and self.value(new) <= enough:
                return new, n_hvp, n_grad
            if first and correction is not None:
                found = correction()
                arc, n_hvp, n_grad = found.y, found.n_hvp, n_grad + 1
            else:
                alpha *= 0.5
            first = False
        return None, n_hvp, n_grad

    def _reset_slacks(self, before: Residuals, trial: Residuals) -> Residuals | None:
        """Return a trial with w = −G where the rows held before; None too near the boundary."""
        if not trial.finite:
            return None
        xp, old, point = namespace(trial.point.w), before.point.w, trial.point
        held = xp.abs(before.r_g) <= 1e-12 * (old + xp.abs(before.inequality_values))
        inside = -trial.inequality_values
        if bool(xp.any(held & (inside < (1.0 - _KEEP) * old))):
            return None
        w = xp.where(held | (inside > point.w), inside, point.w)
        z = xp.clip(point.z, self.mu / (_SPREAD * w), _SPREAD * self.mu / w)
        return trial.with_slacks(w, z)


def enter_monotone_mode(now: Residuals) -> tuple[BarrierMerit, Residuals]:
    """Return φ for the μ of a point, and the point with its own slacks and z = μ / w."""
    length, xp = now.scales[1], namespace(now.point.w)
    mu = max(now.mu, 0.1 * length * norm(now.r_d))
    w = xp.maximum(-now.inequality_values, 1e-3 * length + 0.0 * now.point.w)
    return BarrierMerit(mu), now.with_slacks(w, mu / w)


def _off(now: Residuals) -> float:
    return math.hypot(norm(now.r_e), norm(now.r_g))
