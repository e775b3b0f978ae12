"""A primal-dual iterate (y, ν, z, w) and the residuals of its optimality conditions.

r_d = f_Y / unit + Eᵀ ν + G_Yᵀ z,    r_e = e,    r_g = G + w,    w_i z_i = μ
"""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property
from typing import Any, NamedTuple

from ...arrays import Array, dot, epsilon, namespace, norm
from ...operators.linear_operator import aslinearoperator
from .standard_form import StandardForm


class PrimalDualIterate(NamedTuple):
    """Variables y, multipliers ν and z, slacks w; w, z > 0, in the units of the form."""

    y: Array
    nu: Array
    z: Array
    w: Array


class Direction(NamedTuple):
    """A step in y, ν, z and w, and what is known of the system that it solves."""

    y: Array
    nu: Array
    z: Array
    w: Array
    n_hvp: int = 0
    negative_curvature: bool = False


@dataclasses.dataclass(frozen=True)
class Residuals:
    """The residuals at a point, with the derivatives of first order that they need."""

    form: StandardForm
    point: PrimalDualIterate
    value: float | None
    grad: Array
    E: Any
    J: Any
    r_d: Array
    r_e: Array
    r_g: Array

    @property
    def size(self) -> float:
        """‖(r_d, r_e, r_g)‖."""
        return math.hypot(norm(self.r_d), norm(self.r_e), norm(self.r_g))

    @property
    def finite(self) -> bool:
        """Whether the residuals are finite, and the value is not NaN."""
        value = self.value or 0.0
        return math.isfinite(self.size) and not math.isnan(value)

    @property
    def inequality_values(self) -> Array:
        """G(y), feasible where <= 0."""
        return self.r_g - self.point.w

    @property
    def violation(self) -> float:
        """The largest entry of r_e and r_g."""
        return max(largest(self.r_e), largest(self.r_g))

    @property
    def mu(self) -> float:
        """The mean w_i z_i."""
        w = self.point.w
        return dot(w, self.point.z) / w.shape[0] if w.shape[0] else 0.0

    @cached_property
    def scales(self) -> tuple[float, float]:
        """The force and the length that residuals are relative to.

        The length is max |y|, or the way from the start where the origin is farther, but
        what rounding leaves of the longer one, and of its forces, is within the tolerance.
        """
        y, form = self.point.y, self.form
        size, way = largest(y), max(largest(y - form.y0), 1.0)
        least, unit = form.resolution * max(size, way), form.unit
        length = max(min(size, way), least)
        return max(norm(self.grad), min(length, unit), least) / unit, length

    @cached_property
    def rounding(self) -> float:
        """The residual that rounding of the terms it adds up may leave."""
        point, (force, length) = self.point, self.scales
        terms = force + max(length, largest(point.y)) + norm(point.nu) + norm(point.z)
        return 64.0 * epsilon(point.y) * terms

    @cached_property
    def error(self) -> float:
        """The largest residual, products w_i z_i included, each relative to its scale."""
        force, length = self.scales
        gap = largest(self.point.w * self.point.z) / (force * length)
        return max(norm(self.r_d) / force, self.violation / length, gap)

    def with_slacks(self, w: Array, z: Array) -> Residuals:
        """Return the residuals for other slacks and multipliers z at the same y."""
        point = self.point._replace(w=w, z=z)
        r_d = self.r_d + self.form.inequality_vjp(self.J, z - self.point.z)
        return dataclasses.replace(
            self, point=point, r_d=r_d, r_g=self.inequality_values + w
        )


def evaluate(form: StandardForm, point: PrimalDualIterate) -> Residuals:
    """Evaluate the residuals at a point: one gradient."""
    problem, x, y = form.problem, form.x, point.y
    grad = problem.grad(x, y)
    E, J = form.jacobians(y)
    r_d = grad / form.unit + form.inequality_vjp(J, point.z)
    if E is not None:
        r_d = r_d + aslinearoperator(E).T @ point.nu
    value = problem.value(x, y) if problem.has_value else None
    r_g = form.inequality_values(y) + point.w
    return Residuals(form, point, value, grad, E, J, r_d, form.equalities(y), r_g)


def max_step_to_boundary(values: Array, changes: Array) -> float:
    """Return the α at which the first of the positive values is zero."""
    xp, falls = namespace(values), changes < 0.0
    if not bool(xp.any(falls)):
        return math.inf
    return float(xp.min(values[falls] / -changes[falls]))


def common_step_length(point: PrimalDualIterate, step: Direction) -> float:
    """Return the largest α <= 1 that keeps w and z non-negative."""
    return min(
        1.0,
        max_step_to_boundary(point.w, step.w),
        max_step_to_boundary(point.z, step.z),
    )


def largest(values: Array) -> float:
    """Return the largest magnitude, 0 of nothing."""
    xp = namespace(values)
    return float(xp.max(xp.abs(values))) if values.shape[0] else 0.0
