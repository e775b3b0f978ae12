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

from ..arrays import HostArray

_SHARE = 1e-4  # of the terms of an objective that cancel
_NO_WORK = 1e-10  # of the largest force over the largest length
_ROUNDING = 1e-12  # of the largest term: what is none
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
    """Return the usual size of terms, by which smaller ones are judged.

    Where most are zero that of the others, rounding of which may be left of zeros.
    """
    terms = terms[terms > _ROUNDING * terms.max(initial=0.0)]
    if not terms.size:
        return 1e-300
    at = round(_USUAL * (terms.size - 1))
    return float(np.partition(terms, at)[at])


def _share(off: HostArray, terms: HostArray, floor: float) -> float:
    if not off.size:
        return 0.0
    return float(np.max(np.abs(off) / np.maximum(terms, floor)))


def errors(program: ConvexProgram, point: PrimalDual) -> Errors:
    """Return how far a point is from meeting the conditions, in numbers without a unit.

    For a program in units in which the entries of each row and column are about 1.  Terms
    are those of rows and blocks, A y, G y, P y, …, at least as large as the usual ones, or
    as the usual |y_i|: one that is far along a direction in which nothing changes makes none
    of them larger.
    """
    return _compared(program, point)[0]


def errors_and_rounding(
    program: ConvexProgram, point: PrimalDual
) -> tuple[Errors, Errors]:
    """Return :func:`errors`, and those that rounding of the products alone may cause.

    Where A'ν is a small difference of large forces it has no more digits than these leave.
    """
    return _compared(program, point, with_rounding=True)


def _compared(
    program: ConvexProgram, point: PrimalDual, *, with_rounding: bool = False
) -> tuple[Errors, Errors]:
    y, nu, z, s = point
    size, f = np.abs(y), program
    Py, Ay, Gy = f.P @ y, f.A @ y, f.G @ y
    of_A, of_G = f.A.T @ nu, f.G.T @ z
    low, high = np.isfinite(f.lower), np.isfinite(f.upper)
    lower, upper = f.lower[low], f.upper[high]
    off = [
        Ay - f.b,
        np.maximum(Gy - f.h, 0.0),
        np.maximum(lower - y[low], 0.0),
        np.maximum(y[high] - upper, 0.0),
    ]
    terms = [
        np.maximum(np.abs(Ay), np.abs(f.b)),
        np.maximum(np.abs(Gy), np.abs(f.h)),
        np.maximum(size[low], np.abs(lower)),
        np.maximum(size[high], np.abs(upper)),
    ]
    force = np.abs(Py) + np.abs(f.q) + np.abs(of_A) + np.abs(of_G) + np.abs(s)
    sides = np.concatenate(terms)
    usual = max(floor_of(sides), floor_of(size)), floor_of(force)
    primal = _share(np.concatenate(off), sides, usual[0])
    dual = _share(Py + f.q + of_A + of_G - s, force, usual[1])
    pairs = [
        (Py, y),
        (f.q, y),
        (f.b, nu),
        (f.h, z),
        (-lower, np.maximum(s[low], 0.0)),
        (upper, np.maximum(-s[high], 0.0)),
    ]
    parts = [float(a @ b) for a, b in pairs]
    least = max(float(np.abs(a) @ np.abs(b)) for a, b in pairs)
    # An objective may be 0; its terms are not, or rounding of a force over a length.
    work = float(force.max(initial=0.0)) * float(size.max(initial=0.0))
    sizes = max(*map(abs, parts), _SHARE * least, _NO_WORK * work)
    gap = abs(sum(parts))
    found = Errors(primal, dual, gap / sizes if sizes > 0.0 else gap)
    if not with_rounding:
        return found, found
    forces = abs(f.P) @ size + np.abs(f.q) + np.abs(s)
    forces = forces + abs(f.A).T @ np.abs(nu) + abs(f.G).T @ np.abs(z)
    lengths = [abs(f.A) @ size + np.abs(f.b), abs(f.G) @ size + np.abs(f.h)]
    sums = np.concatenate([*lengths, *terms[2:]])
    unit, pull = float(np.finfo(float).eps), np.concatenate([np.abs(nu), np.abs(z)])
    lost = float(forces @ size) + float(np.concatenate(lengths) @ pull)
    return found, Errors(
        unit * _share(sums, sides, usual[0]),
        unit * _share(forces, force, usual[1]),
        unit * lost / sizes if sizes > 0.0 else 0.0,
    )
