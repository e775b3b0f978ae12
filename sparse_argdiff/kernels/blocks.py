"""The primitives on blocks: the vectors of several solves, side by side.

    R (n, k), C-ordered:   r_c = R[:, c],   with an α, a β and an ‖r‖² of its own

Each reads a row of the block at a time, where the columns would be read one after another.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np

from ..arrays import Array
from .scalars import Scalars

WIDTH = 64  # bytes of a row: one cache line


class Blocks:
    """Passes over aligned blocks of 4, 8 or 16 columns; ``s`` has the columns' scalars.

    A column that ``s`` does not have gets no step, but has no use for its vectors either.
    """

    def dot(self, X: Array, Y: Array) -> Array:
        """Return x'y of each column, summed in double precision."""
        return lane_loops().dot(X.reshape(-1), Y.reshape(-1), _width(X))

    def scale(self, diagonal: Array, X: Array, out: Array) -> Array:
        """Write D x into ``out``; return x'D x of each column."""
        loop = lane_loops().scale
        return loop(diagonal, X.reshape(-1), out.reshape(-1), _width(X))

    def csr_product(self, arrays: tuple[Array, ...], X: Array, out: Array) -> Array:
        """Write A x into ``out``; return x'A x of each column."""
        loop = lane_loops().csr_product
        return loop(*arrays, X.reshape(-1), _width(X), out.reshape(-1))

    def cg_residual(
        self, R: Array, Q: Array, s: dict[int, Scalars], d: Array | None = None
    ) -> None:
        """Step the residuals, r −= α q."""
        alpha = _repeated(R, s, "alpha")
        flat = R.reshape(-1), Q.reshape(-1)
        found = lane_loops().cg_residual(*flat, alpha, d, _width(R))
        squares, scaled = (sums.tolist() for sums in found)
        for c, own in s.items():
            own.square, own.rho = squares[c], scaled[c]

    def cg_advance(
        self,
        X: Array,
        P: Array,
        Z: Array,
        s: dict[int, Scalars],
        d: Array | None = None,
    ) -> None:
        """Step along p, x += α p, and turn it: p = z + β p, or d ∘ z + β p."""
        alpha = _repeated(X, s, "alpha")
        beta = _repeated(X, s, "beta")
        flat = X.reshape(-1), P.reshape(-1), Z.reshape(-1)
        lane_loops().cg_advance(*flat, alpha, beta, d, _width(X))

    def lanczos(
        self, older: Array, newer: Array, Y: Array, s: dict[int, Scalars]
    ) -> None:
        """Combine the three residual vectors."""
        of_older = _repeated(Y, s, "of_older")
        of_newer = _repeated(Y, s, "of_newer")
        of_y = _repeated(Y, s, "of_y")
        flat = older.reshape(-1), newer.reshape(-1), Y.reshape(-1)
        loop = lane_loops().lanczos
        squares = loop(*flat, of_older, of_newer, of_y, _width(Y)).tolist()
        for c, own in s.items():
            own.square = squares[c]

    def minres_advance(
        self, X: Array, w_old: Array, w: Array, V: Array, s: dict[int, Scalars]
    ) -> None:
        """Combine the two directions and v; step along the new one."""
        of_w_old = _repeated(X, s, "of_w_old")
        of_w = _repeated(X, s, "of_w")
        of_v = _repeated(X, s, "of_v")
        step = _repeated(X, s, "step")
        flat = X.reshape(-1), w_old.reshape(-1), w.reshape(-1), V.reshape(-1)
        lane_loops().minres_advance(*flat, of_w_old, of_w, of_v, step)


BLOCKS = Blocks()


def lanes_for(columns: int, like: Array) -> int:
    """Return the columns of a block for so many solves: half a cache line, or one."""
    most = WIDTH // like.itemsize
    return int(most // 2 if columns <= most // 2 else most)


@functools.cache
def lane_loops() -> Any:
    """Import numba where it is first needed: half a second."""
    return importlib.import_module(".block_loops", __package__)


def _width(X: Array) -> tuple[int, ...]:
    return (0,) * int(X.shape[1])


def _repeated(X: Array, s: dict[int, Scalars], name: str) -> Array:
    """Return a scalar of the columns, zero where there is none, along a stretch."""
    row = np.zeros(X.shape[1], X.dtype)
    for c, own in s.items():
        row[c] = getattr(own, name)
    return np.tile(row, lane_loops().STRETCH // row.size)
