"""A convex quadratic program with its entries on the host, and how well a point solves it.

    min ½ y'Py + q'y,   A y = b,   G y <= h,   lower <= y <= upper
    P y + q + A'ν + G'z − s = 0,   z >= 0,   s = s₊ − s₋ of lower and upper bounds

Each row is judged by its own terms and each variable by its own forces; the gap is that of
the two objectives.  No largest |y| stands for all: one far coordinate would hide the others.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from ..arrays import HostArray

_USUAL = 0.7  # the quantile of the sizes by which rows of smaller terms are judged


@dataclasses.dataclass(frozen=True, eq=False)
class ConvexProgram:
    """The data; all sides of G are finite, bounds may be infinite.

    Attributes
    ----------
    P, A, G : arrays or CSR arrays (n, n), (p, n), (k, n)
    q, b, h, lower, upper : arrays
    """

    P: Any
    q: HostArray
    A: Any
    b: HostArray
    G: Any
    h: HostArray
    lower: HostArray
    upper: HostArray

    @property
    def n(self) -> int:
        """Size of y."""
        return int(self.q.shape[0])

    def value(self, y: HostArray) -> float:
        """Return ½ y'Py + q'y."""
        return float(0.5 * y @ (self.P @ y) + self.q @ y)

    def lagrangian_grad(self, point: PrimalDual) -> HostArray:
        """Return P y + q + A'ν + G'z, which bounds must carry."""
        found = self.P @ point.y + self.q
        if self.b.size:
            found = found + self.A.T @ point.nu
        return found + self.G.T @ point.z if self.h.size else found


class PrimalDual(NamedTuple):
    """A point with its multipliers; s > 0 pulls at a lower, s < 0 at an upper bound."""

    y: HostArray
    nu: HostArray
    z: HostArray
    s: HostArray


class Errors(NamedTuple):
    """The largest violation of a row or bound and of a force, and the gap: relative."""

    primal: float
    dual: float
    gap: float

    @property
    def worst(self) -> float:
        """The largest of the three; infinite where one is no number."""
        found = max(self)
        return found if all(map(math.isfinite, self)) else math.inf


def floor_of(terms: HostArray) -> float:
    """Return the usual size of terms, by which smaller ones are judged; 1 of none."""
    found = float(np.quantile(terms, _USUAL, method="nearest")) if terms.size else 0.0
    return found or float(terms.max(initial=0.0)) or 1.0


def _share(off: HostArray, terms: HostArray, floor: float) -> float:
    if not off.size:
        return 0.0
    return float(np.max(np.abs(off) / np.maximum(terms, floor)))


def errors(program: ConvexProgram, point: PrimalDual) -> Errors:
    """Return how far a point is from meeting the conditions, in numbers without a unit."""
    y, nu, z, s = point
    size = np.abs(y)
    Py = program.P @ y
    force = abs(program.P) @ size + np.abs(program.q) + np.abs(s)
    off: list[HostArray] = []
    terms: list[HostArray] = []
    left = Py + program.q - s
    gap = float(y @ Py + program.q @ y)
    sizes = float(size @ (abs(program.P) @ size) + np.abs(program.q) @ size)
    if program.b.size:
        left = left + program.A.T @ nu
        force = force + abs(program.A).T @ np.abs(nu)
        off.append(program.A @ y - program.b)
        terms.append(abs(program.A) @ size + np.abs(program.b))
        gap, sizes = (
            gap + float(program.b @ nu),
            sizes + float(np.abs(program.b) @ np.abs(nu)),
        )
    if program.h.size:
        left = left + program.G.T @ z
        force = force + abs(program.G).T @ z
        off.append(np.maximum(program.G @ y - program.h, 0.0))
        terms.append(abs(program.G) @ size + np.abs(program.h))
        gap, sizes = gap + float(program.h @ z), sizes + float(np.abs(program.h) @ z)
    for bound, sign in ((program.lower, 1.0), (program.upper, -1.0)):
        finite = np.isfinite(bound)
        off.append(np.maximum(sign * (bound - y), 0.0)[finite])
        terms.append((size + np.abs(bound))[finite])
        pull = np.where(finite & (sign * s > 0.0), s, 0.0)
        carried = float(np.where(finite, bound, 0.0) @ pull)
        gap, sizes = gap - carried, sizes + abs(carried)
    rows, sides = np.concatenate(off), np.concatenate(terms)
    primal = _share(rows, sides, floor_of(np.concatenate([sides, size])))
    dual = _share(left, force, floor_of(force))
    return Errors(primal, dual, abs(gap) / sizes if sizes > 0.0 else abs(gap))


def without_rows(n: int) -> Any:
    """Return a matrix of no rows."""
    return sparse.csr_array((0, n))
