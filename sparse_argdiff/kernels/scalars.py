"""The scalars of a method: Python floats for one vector, arrays (k,) for k columns.

    α = where(active, ρ / p'Ap, 0)         0 where the column has ended

The recurrences are written once over these functions.  On a device the scalars stay
there, and the host sees them when it looks, every few steps.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from ..arrays import Array, asarray, norm

Scalar = Any  # a float, or an array of shape (k,) where the vectors live
Line = tuple[float, ...]  # the scalars of one step of one column

# Steps of a vector on the host before its listeners hear of them; the end of a solve is
# seen at once.
HOST_CHECK_EVERY = 64
_UNDERFLOW = 1e-30  # a square below has lost digits


class Floats:
    """One vector on the host."""

    sqrt = staticmethod(lambda value: math.sqrt(value) if value > 0.0 else 0.0)
    hypot = staticmethod(math.hypot)
    maximum = staticmethod(max)

    def full(self, value: float) -> float:
        """Return the value."""
        return value

    def given(self, values: list[float]) -> float:
        """Return the numbers of the host as scalars."""
        return values[0]

    def where(self, condition: bool, a: float, b: float) -> float:
        """Return a or b."""
        return a if condition else b

    def lengths(self, square: float, x: Array) -> float:
        """Return ‖x‖ from its square, or anew where that has left the floating range."""
        return math.sqrt(square) if square > _UNDERFLOW else norm(x)

    def any(self, mask: bool, *, look: bool) -> bool:
        """Tell whether the host sees the mask true."""
        return mask

    def none(self, mask: bool) -> bool:
        """Tell whether the host sees the mask false."""
        return not mask

    def lines(self, steps: list[tuple[float, ...]]) -> list[list[Line]]:
        """Return the scalars on the host: of each step, of each column."""
        return [[step] for step in steps]

    def values(self, scalar: Any) -> list[Any]:
        """Return one scalar on the host, of each column."""
        return [scalar]

    def without(self, mask: bool, columns: list[int]) -> bool:
        """Return the mask, false in these columns."""
        return mask and not columns

    def take(self, scalar: Any, columns: list[int], width: int) -> Any:
        """Return the scalar of these columns."""
        return scalar


class Rows:
    """k columns whose scalars are NumPy arrays on the host."""

    sqrt = staticmethod(lambda value: np.sqrt(np.where(value > 0.0, value, 0.0)))
    hypot = staticmethod(lambda *values: functools.reduce(np.hypot, values))
    maximum = staticmethod(np.maximum)
    where = staticmethod(np.where)

    def __init__(self, width: int) -> None:
        self.width = width

    def full(self, value: float) -> Array:
        """Return k times the value."""
        return np.full(self.width, value)

    def given(self, values: list[float]) -> Array:
        """Return the numbers of the columns, 1 for those that only fill up."""
        found = np.ones(self.width)
        found[: len(values)] = values
        return found

    def lengths(self, square: Array, x: Array) -> Array:
        """Return ‖x‖ of each column."""
        found = self.sqrt(square)
        for c in np.nonzero(square <= _UNDERFLOW)[0]:
            found[c] = norm(x[:, int(c)])
        return found

    def any(self, mask: Array, *, look: bool) -> bool:
        """Tell whether the mask is true in a column."""
        return bool(mask.any())

    def none(self, mask: Array) -> bool:
        """Tell whether the mask is false in all columns."""
        return not mask.any()

    def lines(self, steps: list[tuple[Array, ...]]) -> list[list[Line]]:
        """Return the scalars of each step, of each column."""
        return [
            list(zip(*(scalar.tolist() for scalar in step), strict=True))
            for step in steps
        ]

    def values(self, scalar: Array) -> list[Any]:
        """Return a scalar of each column."""
        found: list[Any] = scalar.tolist()
        return found

    def without(self, mask: Array, columns: list[int]) -> Array:
        """Return the mask, false in these columns."""
        mask = mask.copy()
        mask[columns] = False
        return mask

    def take(self, scalar: Array, columns: list[int], width: int) -> Any:
        """Return the scalar of these columns; a float where the next block is a vector."""
        if width == 0:
            return scalar[columns[0]].item()
        return np.concatenate(
            [scalar[columns], np.zeros(width - len(columns), scalar.dtype)]
        )


class OnDevice:
    """One vector on a device: every scalar is a 0-d array there."""

    def __init__(self, xp: Any, like: Array) -> None:
        self._xp, self._like = xp, like
        self.maximum, self.where = xp.maximum, xp.where

    def hypot(self, *values: Array) -> Array:
        """Return the root of the sum of squares."""
        return functools.reduce(self._xp.hypot, values)

    def sqrt(self, value: Array) -> Array:
        """Return the root of a square."""
        return self._xp.sqrt(self._xp.maximum(value, 0.0))

    def full(self, value: float) -> Array:
        """Return the value on the device."""
        return asarray(value, self._like, self._xp.asarray(value).dtype)

    def given(self, values: list[float]) -> Array:
        """Return a number of the host on the device."""
        return self.full(values[0])

    def lengths(self, square: Array, x: Array) -> Array:
        """Return ‖x‖ from its square."""
        return self._xp.sqrt(square)

    def any(self, mask: Array, *, look: bool) -> bool:
        """Tell whether the mask is true where the host is to look, else return false."""
        return look and bool(mask)

    def none(self, mask: Array) -> bool:
        """Return false: the host does not look."""
        return False

    def lines(self, steps: list[tuple[Array, ...]]) -> list[list[Line]]:
        """Return the scalars of all steps, in one transfer."""
        if not steps:
            return []
        xp = self._xp
        table = xp.stack(
            [xp.stack([xp.asarray(v, dtype=xp.float64) for v in s]) for s in steps]
        )
        return [[tuple(row)] for row in table.get().tolist()]

    def values(self, scalar: Array) -> list[Any]:
        """Return one scalar on the host."""
        return [scalar.item()]

    def without(self, mask: Array, columns: list[int]) -> Array:
        """Return the mask, or false."""
        return mask & (not columns)

    def take(self, scalar: Any, columns: list[int], width: int) -> Any:
        """Return the scalar."""
        return scalar


FLOATS = Floats()


def host_scalars(x: Array) -> Floats | Rows:
    """Return the functions of the scalars that go with a vector or a block on the host."""
    return FLOATS if x.ndim == 1 else Rows(x.shape[1])
