"""What one step of conjugate gradients did: the same wherever it was taken."""

from __future__ import annotations

from typing import NamedTuple

from ..arrays import Array
from ..status import Status


class Step(NamedTuple):
    """One step of the recurrence, or why there is none."""

    status: Status | None  # None: x and r have moved
    residual_norm: float  # of the recurrence
    alpha: float
    decrease: float  # α ρ = ‖x₊ − x‖²_A
    rho: float  # r'M r
    least: float  # the least r'M r over the Krylov space
    direction: Array | None  # p, when its curvature is not positive
    a_norm: float  # lower estimate of ‖A‖
    products: int = 1  # with A
