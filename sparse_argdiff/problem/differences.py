"""Derivatives by central differences, (f(h) − f(−h)) / 2h, where a user gives no others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..arrays import Array, copied, epsilon, norm, returned_vector


def gradient_difference(
    grad: Callable[[Array, Array], Array], x: Array, y: Array, v: Array
) -> Array:
    """Return f_YY v by two gradients."""

    def along(h: float) -> Array:  # a copy: grad may reuse its buffer
        return copied(returned_vector("grad", grad(copied(x), y + h * v), y.shape[0]))

    return central_difference(along, y, v) if norm(v) else 0.0 * v


def central_difference(
    along: Callable[[float], Any], at: Array, d: Array, length: float | None = None
) -> Any:
    """Return (f(h) − f(−h)) / 2h of a function along d, an error of order h².

    The step h = ε^(1/3) length / ‖d‖ balances truncation and rounding for a function that
    bends over that length, 1 + ‖at‖ by default.
    """
    length = 1.0 + norm(at) if length is None else length
    h = epsilon(at) ** (1 / 3) * length / norm(d)
    return (along(h) - along(-h)) / (2.0 * h)
