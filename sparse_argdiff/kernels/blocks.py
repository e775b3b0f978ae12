"""The compiled passes over blocks: k vectors side by side.

    R (n, k), C-ordered:   r_c = R[:, c],   with an α, a β and an ‖r‖² of its own

Each pass reads a row of the block at a time: k columns read one after another would be k
passes.  A product with A reads A once for all columns.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

from .kernel_set import WIDEST

Block = Any  # a C-ordered NumPy array (n, k), or the scalars (k,) of its columns
LINE = 64  # bytes of a cache line
CACHE = 2**20  # bytes of a block up to which it stays near the core


class Blocks:
    """Passes over C-ordered blocks; the scalars of the columns are arrays (k,)."""

    def dot(self, X: Block, Y: Block) -> Block:
        """Return x'y of each column, summed in double precision."""
        return block_loops().dot(_flat(X), _flat(Y), _width(X))

    def scale(self, diagonal: Block, X: Block, out: Block) -> Block:
        """Write D x into ``out``; return x'D x of each column."""
        return block_loops().scale(diagonal, _flat(X), _flat(out), _width(X))

    def csr_product(self, arrays: tuple[Block, ...], X: Block, out: Block) -> Block:
        """Write A x into ``out``; return x'A x of each column."""
        return block_loops().csr_product(*arrays, _flat(X), _width(X), _flat(out))

    def cg_residual(
        self, R: Block, Q: Block, alpha: Block, d: Block | None
    ) -> tuple[Block, Block]:
        """Step the residuals, r −= α q; return r'r and r'(d ∘ r) of each column."""
        loop = block_loops().cg_residual
        if d is not None and d.ndim == 2:
            loop, d = block_loops().cg_residual_own, _flat(d)
        found: tuple[Block, Block] = loop(_flat(R), _flat(Q), alpha, d, _width(R))
        return found

    def cg_advance(
        self,
        X: Block,
        P: Block,
        Z: Block,
        alpha: Block,
        beta: Block,
        d: Block | None,
    ) -> None:
        """Step along p, then turn it: p = z + β p, or d ∘ z + β p; none where α = 0."""
        loop = block_loops().cg_advance
        if d is not None and d.ndim == 2:
            loop, d = block_loops().cg_advance_own, _flat(d)
        loop(_flat(X), _flat(P), _flat(Z), alpha, beta, d, _width(X))

    def lanczos(
        self,
        older: Block,
        newer: Block,
        Y: Block,
        a: Block,
        b: Block,
        c: Block,
    ) -> Block:
        """Combine the three residual vectors; return the square of each column."""
        loop = block_loops().lanczos
        return loop(_flat(older), _flat(newer), _flat(Y), a, b, c, _width(Y))

    def minres_advance(
        self,
        X: Block,
        w_old: Block,
        w: Block,
        V: Block,
        coefficients: tuple[Block, Block, Block],
        step: Block,
    ) -> None:
        """Combine the two directions and v; step along the new one."""
        vectors = _flat(X), _flat(w_old), _flat(w), _flat(V)
        block_loops().minres_advance(*vectors, *coefficients, step, _width(X))


BLOCKS = Blocks()


def width_for(columns: int, like: Block, *, in_place: bool, own: bool = False) -> int:
    """Return the width of a block for so many columns.

    Products in place go by rows of half a cache line, or one; others by any number.  Where
    columns have matrices of their ``own``, and blocks are beyond the cache, the vectors are
    the traffic: half a line, of which five columns fill one, and the fifth is a vector.
    """
    if not in_place:
        return min(columns, WIDEST)
    most = LINE // like.itemsize
    if columns <= most // 2:
        return int(most // 2)
    fits = like.shape[0] * LINE <= CACHE
    return int(most if fits or not own else most // 2)


@functools.cache
def block_loops() -> Any:
    """Import numba where it is first needed: half a second."""
    return importlib.import_module(".block_loops", __package__)


def _flat(X: Block) -> Block:
    return X.reshape(-1)


def _width(X: Block) -> tuple[int, ...]:
    return (0,) * int(X.shape[1])
