"""Many dense quadratic programs of one shape, as stacked arrays.

    min ½ y'P y + q'y   s.t.   A y = b,   h_lower <= G y <= h,   lower <= y <= upper

Each array has a leading axis, k programs long, or 1 where all share it.  An inequality has a
*side*: J y <= c, of the rows G and −G, of the variables y and −y, in this order.
"""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property
from typing import Any

from ..arrays import Array, namespace
from ..krylov.stacked import apply, apply_transposed

ROWS = 1e19  # a side from here on is none, as everywhere in collections of programs
STACK = 1 << 25  # bytes of one stack of Newton matrices
_PARTS = ("P", "q", "A", "b", "G", "h", "h_lower", "lower", "upper")


@dataclasses.dataclass(frozen=True, eq=False)
class StackedQuadratic:
    """The data of k programs; every array (k or 1, ...), in double precision.

    Attributes
    ----------
    P : array (·, n, n)
        Symmetric.
    q, lower, upper : arrays (·, n)
    A, b : arrays (·, p, n), (·, p)
    G, h, h_lower : arrays (·, r, n), (·, r), (·, r)
        Infinite sides are none.
    kinds : tuple or None
        The ``blocks`` of a stack of which this is a part.
    """

    P: Array
    q: Array
    A: Array
    b: Array
    G: Array
    h: Array
    h_lower: Array
    lower: Array
    upper: Array
    kinds: tuple[tuple[str, float], ...] | None = None

    @property
    def count(self) -> int:
        """How many programs these are."""
        return max(int(getattr(self, name).shape[0]) for name in _PARTS)

    @property
    def n(self) -> int:
        """Number of variables."""
        return int(self.P.shape[-1])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Variables, equality rows and inequality rows."""
        return self.n, int(self.A.shape[1]), int(self.G.shape[1])

    def widened(self, count: int) -> StackedQuadratic:
        """Return the same with a q for each of ``count`` programs, as ``take`` expects."""
        if self.q.shape[0] == count:
            return self
        q = namespace(self.q).broadcast_to(self.q, (count, self.n))
        return dataclasses.replace(self, q=q)

    def take(self, index: Any) -> StackedQuadratic:
        """Return the programs of an index (array, slice) on the leading axis."""
        parts: dict[str, Any] = {}
        for name in _PARTS:
            value = getattr(self, name)
            shared = value.shape[0] == 1 and name != "q"
            parts[name] = value if shared else value[index, ...]
        return StackedQuadratic(**parts, kinds=self.blocks)

    @cached_property
    def blocks(self) -> tuple[tuple[str, float], ...]:
        """The kinds of sides that any program has: ("rows" or "bounds", ±1)."""
        if self.kinds is not None:
            return self.kinds
        xp = namespace(self.q)
        kinds = (
            ("rows", 1.0, self.h),
            ("rows", -1.0, -self.h_lower),
            ("bounds", 1.0, self.upper),
            ("bounds", -1.0, -self.lower),
        )
        return tuple((kind, sign) for kind, sign, c in kinds if bool(xp.any(c < ROWS)))

    @cached_property
    def limits(self) -> Array:
        """The right-hand sides c of all sides (k or 1, R), infinite where there is none."""
        xp = namespace(self.q)
        given = {
            ("rows", 1.0): self.h,
            ("rows", -1.0): -self.h_lower,
            ("bounds", 1.0): self.upper,
            ("bounds", -1.0): -self.lower,
        }
        parts = [given[block] for block in self.blocks]
        if not parts:
            return self.q[:, :0]
        count = max(part.shape[0] for part in parts)
        wide = [xp.broadcast_to(part, (count, part.shape[1])) for part in parts]
        c = xp.concat(wide, axis=1)
        return xp.where(c < ROWS, c, xp.full_like(c, math.inf))

    def sides(self, y: Array) -> Array:
        """Return J y, (k, R)."""
        parts, Gy = [], None
        for kind, sign in self.blocks:
            if kind == "rows":
                Gy = apply(self.G, y) if Gy is None else Gy
            value = Gy if kind == "rows" else y
            parts.append(value if sign > 0 else -value)  # type: ignore[operator]
        return namespace(y).concat(parts, axis=1) if parts else y[:, :0]

    def split(self, z: Array, *, signed: bool = True) -> tuple[Any, Any]:
        """Return what sides add up to on rows and on variables, None for nothing.

        For multipliers z (k, R) those of the two-sided rows (k, r) and bounds (k, n);
        with ``signed=False`` the sums of weights.
        """
        rows = bounds = None
        start = 0
        for kind, sign in self.blocks:
            size = self.G.shape[1] if kind == "rows" else self.n
            part = z[:, start : start + size]
            part = -part if signed and sign < 0 else part
            start += size
            if kind == "rows":
                rows = part if rows is None else rows + part
            else:
                bounds = part if bounds is None else bounds + part
        return rows, bounds

    def pull(self, z: Array) -> Array:
        """Return J'z, (k, n)."""
        rows, bounds = self.split(z)
        total = None if rows is None else apply_transposed(self.G, rows)
        if bounds is not None:
            total = bounds if total is None else total + bounds
        if total is None:
            return namespace(z).zeros((z.shape[0], self.n), dtype=z.dtype)
        return total

    def gradient(self, y: Array) -> Array:
        """Return P y + q, (k, n)."""
        return apply(self.P, y) + self.q


def stack_size(n: int, p: int, r: int) -> int:
    """Return how many programs of n variables, p and r rows are treated at a time."""
    each = 8 * ((n + p) ** 2 + (n + p + r) * n + 1)
    return max(1, STACK // each)
