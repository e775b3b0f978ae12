"""A point near the central path, and what should vanish there.

r_d = f_Y / unit + Eᵀ ν + G_Yᵀ z,    r_e = e,    r_g = G + w,    w_i z_i = μ
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

from ...arrays import Array, dot, namespace, norm
from .newton_system import Direction


class Central(NamedTuple):
    """A point near the path, in the units of the form."""

    y: Array
    nu: Array
    z: Array
    w: Array


@dataclasses.dataclass(frozen=True)
class Residuals:
    """What should vanish at a point, besides the products w z."""

    point: Central
    value: float | None
    grad: Array
    E: Any
    J: Any
    r_d: Array
    r_e: Array
    r_g: Array

    @property
    def size(self) -> float:
        """The norm of all three."""
        return math.hypot(norm(self.r_d), norm(self.r_e), norm(self.r_g))

    @property
    def sides(self) -> Array:
        """G(y), feasible where <= 0."""
        return self.r_g - self.point.w

    @property
    def gap(self) -> float:
        """The largest w_i z_i."""
        products = self.point.w * self.point.z
        return float(namespace(products).max(products)) if products.shape[0] else 0.0

    @property
    def mu(self) -> float:
        """The mean w_i z_i."""
        w = self.point.w
        return dot(w, self.point.z) / w.shape[0] if w.shape[0] else 0.0


def reach(values: Array, changes: Array) -> float:
    """Return the α at which the first of the values is zero."""
    xp, falls = namespace(values), changes < 0.0
    if not bool(xp.any(falls)):
        return math.inf
    return float(xp.min(values[falls] / -changes[falls]))


def common(point: Central, step: Direction) -> float:
    """Return the length, at most 1, that both w and z allow."""
    return min(1.0, reach(point.w, step.w), reach(point.z, step.z))
