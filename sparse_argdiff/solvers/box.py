"""A box with at most one linear row, lower <= y <= upper, c'y = b, and its projections.

They are argmin ‖z − y‖_D with D = diag(H), so that the units of y do not matter.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ..arrays import Array, HostArray, epsilon
from ..operators.linear_operator import aslinearoperator
from ..problem.problem import Problem
from .scaled_problem import curvatures


def is_box(problem: Problem) -> bool:
    """Tell whether the constraints are bounds and at most one linear row."""
    rows = problem.equalities
    if problem.inequalities is not None or not problem.bounded:
        return False
    return rows is None or (rows.affine and [part.p for part in rows.parts] == [1])


@dataclasses.dataclass(frozen=True)
class Box:
    """The box and the row, with the metric D."""

    lower: HostArray
    upper: HostArray
    row: HostArray | None
    right: float
    D: HostArray

    def project(self, y: HostArray) -> HostArray | None:
        """Return argmin ‖z − y‖_D over the box and the row, None where they are apart.

        z = clip(y − ν c / D), and c'z falls with ν, linearly between the values at which
        variables meet their bounds.
        """
        if self.row is None:
            return np.clip(y, self.lower, self.upper)
        c, slope = self.row, self.row / self.D

        def at(nu: float) -> tuple[HostArray, float]:
            z = np.clip(y - nu * slope, self.lower, self.upper)
            return z, float(c @ z) - self.right

        z, off = at(0.0)
        if abs(off) <= 4.0 * epsilon(y) * float(np.abs(c) @ np.abs(z)):
            return z
        moving = c != 0.0
        with np.errstate(invalid="ignore", over="ignore"):
            ends = [
                (y - side)[moving] / slope[moving] for side in (self.lower, self.upper)
            ]
        breaks = np.concatenate(ends)
        breaks = np.unique(breaks[np.isfinite(breaks)])
        first, last = -1, breaks.size  # c'z > b at the first, and < b at the last
        while last - first > 1:
            middle = (first + last) // 2
            first, last = (
                (middle, last) if at(breaks[middle])[1] > 0.0 else (first, middle)
            )
        if first >= 0 and last < breaks.size:
            low, high = breaks[first], breaks[last]
            above, below = at(low)[1], at(high)[1]
            nu = low + (high - low) * (above / (above - below))
            return at(nu)[0]
        if breaks.size == 0:
            base = 0.0
        else:
            base = float(breaks[0] if first < 0 else breaks[-1])
        free = np.isinf(self.lower if first >= 0 else self.upper) & moving & (c > 0.0)
        free |= np.isinf(self.upper if first >= 0 else self.lower) & moving & (c < 0.0)
        weight, off = float(c[free] @ slope[free]), at(base)[1]
        if weight > 0.0:
            return at(base + off / weight)[0]
        z = at(base)[0]
        rounding = 1e3 * epsilon(y) * (float(np.abs(c) @ np.abs(z)) + abs(self.right))
        return z if abs(off) <= rounding else None

    def on_face(self, y: HostArray, face: HostArray) -> Box:
        """Return the part of the box in which the other variables keep their values."""
        lower, upper = (np.where(face, side, y) for side in (self.lower, self.upper))
        return dataclasses.replace(self, lower=lower, upper=upper)

    def multiplier(self, g: HostArray, face: HostArray) -> float:
        """Return ν of the row that fits g + ν c = 0 on a face, in the metric."""
        if self.row is None:
            return 0.0
        c, w = self.row[face], self.row[face] / self.D[face]
        square = float(c @ w)
        return -float(w @ g[face]) / square if square > 0.0 else 0.0


def box_of(problem: Problem, x: Array, y: HostArray) -> tuple[Box, int]:
    """Return the box of a problem at x, and the products that its metric took."""
    lower: Any
    upper: Any
    D: Any
    lower, upper = problem.bounds(x, y)
    start = np.clip(y, lower, upper)
    D, n_hvp = curvatures(problem, x, start)
    known = (D > 0.0) & np.isfinite(D)
    typical = float(np.exp(np.mean(np.log(D[known])))) if np.any(known) else 1.0
    D = np.where(known, D, typical).astype(y.dtype, copy=False)
    row, right = None, 0.0
    if problem.equalities is not None:
        zero = np.zeros_like(y)
        jac = aslinearoperator(problem.equalities.jac(x, zero))
        row = np.asarray(jac.T @ np.ones(1, y.dtype)).astype(y.dtype, copy=False)
        right = -float(problem.equalities.value(x, zero)[0])
    return Box(lower, upper, row, right, D), n_hvp
