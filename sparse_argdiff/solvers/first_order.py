"""A point of a problem with equality rows, and everything of first order there.

f_Y + h_Y' ν  with the least-squares ν,    |h_i| / ‖∇h_i‖
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ..arrays import Array, namespace, norm
from ..problem.optimality import row_norms


@dataclasses.dataclass(frozen=True)
class Point:
    """Everything of first order at y."""

    y: Array
    value: float | None
    grad: Array
    h: Array
    jac: Any
    rows: Any  # the projections on jac
    multipliers: Array
    lagrangian_grad: Array

    @property
    def stationarity(self) -> float:
        """‖f_Y + h_Y' ν‖."""
        return norm(self.lagrangian_grad)

    @property
    def infeasibility(self) -> float:
        """The largest |h_i| / ‖∇h_i‖: a distance in y."""
        if self.h.shape[0] == 0:
            return 0.0
        xp = namespace(self.h)
        return float(xp.max(xp.abs(self.h) / row_norms(self.jac, self.h)))
