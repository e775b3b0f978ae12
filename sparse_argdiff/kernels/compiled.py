"""The passes as fused loops, compiled by numba at first use and cached on disk.

The loops are in ``vector_loops.py`` and ``block_loops.py``; here they get scalars of the
vectors' dtype, and a matrix the fused product y = A x, x'y.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import numpy as np
from scipy import sparse

from ..arrays import Array, empty
from ..operators.linear_operator import LinearOperator
from .blocks import BLOCKS, width_for
from .kernel_set import KernelSet, Scalar

# Software prefetch speeds rows of at most 16 entries up by 1.3 (stencils of 3 to 27
# points) and slows longer ones down by 1.2, where the hardware prefetcher suffices.
_SHORT_ROW, _AHEAD = 16, 256


class Compiled(KernelSet):
    """The loops of :func:`vector_loops.compile_loops`, and those of blocks."""

    def __init__(self, loops: dict[str, Any], name: str) -> None:
        self.name = name
        self._loops = loops
        self._dot = loops["dot"]
        self._cg_residual = loops["cg_residual"]
        self._cg_advance = loops["cg_advance"]

    def block_width(self, columns: int, A: LinearOperator, like: Array) -> int:
        """Return the width of a block that holds so many columns."""
        own = A.structure.columns is not None
        return width_for(columns, like, in_place=A.into_blocks, own=own)

    def zeros(self, shape: tuple[int, int], like: Array, A: LinearOperator) -> Array:
        """Return a block of zeros that begins with a cache line, its rows contiguous."""
        found = empty(shape, like)
        found[...] = 0.0
        return found

    def operator(self, A: LinearOperator) -> LinearOperator:
        """Give a diagonal or a plain CSR matrix products that yield x'Ax on the way."""
        if A.is_diagonal:
            return self._diagonal(A)
        if A.into is not None:
            return A
        matrix = A.matrix
        if not sparse.issparse(matrix) or matrix.format != "csr":
            return A
        if matrix.dtype not in (np.float32, np.float64):
            return A
        rows, loop = csr_rows(matrix), self._loops["csr_product"]

        def into(x: Array, out: Array) -> Any:
            if x.ndim == 2:
                return BLOCKS.csr_product(rows[:3], x, out)
            return float(loop(*rows, x, out))

        return A.with_product(into, blocks=True)

    def _diagonal(self, A: LinearOperator) -> LinearOperator:
        diagonal = read_only(A.diagonal())
        loop = self._loops["diagonal_product"]

        def into(x: Array, out: Array) -> Any:
            if x.ndim == 2:
                return BLOCKS.scale(diagonal, x, out)
            return float(loop(diagonal, x, out))

        return A.with_product(into, blocks=True)

    def accept(self, y: Array, out: Array) -> Array:
        """Copy what is not a plain vector of our own kind: each kind is a compilation."""
        flags = y.flags
        if y.dtype == out.dtype and flags.c_contiguous and flags.writeable:
            return y
        out[...] = y
        return out

    def fused(self, M: LinearOperator | None, like: Array) -> Array | None:
        """Return the diagonal of an M that is one: the passes of CG take it on."""
        own = None if M is None else M.structure.own
        if own is not None and like.ndim == 2:
            return np.ascontiguousarray(own, dtype=like.dtype)
        if M is None or not M.is_diagonal:
            return None
        return read_only(M.diagonal().astype(like.dtype, copy=False))

    def dot(self, x: Array, y: Array) -> Scalar:
        """Return x'y, summed in double precision."""
        return float(self._dot(x, y)) if x.ndim == 1 else BLOCKS.dot(x, y)

    def cg_residual(
        self, r: Array, q: Array, alpha: Scalar, d: Array | None = None
    ) -> tuple[Scalar, Scalar]:
        """Step the residual, r −= α q; return r'r and r'(d ∘ r)."""
        if r.ndim == 2:
            return BLOCKS.cg_residual(r, q, alpha, d)
        found: tuple[float, float] = self._cg_residual(r, q, r.dtype.type(alpha), d)
        return found

    def cg_advance(
        self,
        x: Array,
        p: Array,
        z: Array,
        alpha: Scalar,
        beta: Scalar,
        d: Array | None = None,
    ) -> None:
        """Step along p, x += α p, and turn it: p = z + β p, or d ∘ z + β p."""
        if x.ndim == 2:
            return BLOCKS.cg_advance(x, p, z, alpha, beta, d)
        scalar = x.dtype.type
        self._cg_advance(x, p, z, scalar(alpha), scalar(beta), d)
        return None

    def lanczos(
        self,
        older: Array,
        newer: Array,
        y: Array,
        a: Scalar,
        b: Scalar,
        c: Scalar,
    ) -> Scalar:
        """Replace ``older`` by a older + b newer + c y; return its square."""
        if y.ndim == 2:
            return BLOCKS.lanczos(older, newer, y, a, b, c)
        scalar = older.dtype.type
        return self._loops["lanczos"](older, newer, y, scalar(a), scalar(b), scalar(c))

    def minres_advance(
        self,
        x: Array,
        w_old: Array,
        w: Array,
        v: Array,
        coefficients: tuple[Scalar, Scalar, Scalar],
        step: Scalar,
    ) -> None:
        """Replace ``w_old`` by a w_old + b w + c v, and add ``step`` times it to x."""
        if x.ndim == 2:
            return BLOCKS.minres_advance(x, w_old, w, v, coefficients, step)
        scalars = (x.dtype.type(value) for value in (*coefficients, step))
        self._loops["minres_advance"](x, w_old, w, v, *scalars)
        return None


def read_only(vector: Any) -> Any:
    """Return a contiguous read-only view: the users' may be, each kind is a compilation."""
    view = np.ascontiguousarray(vector).view()
    view.flags.writeable = False
    return view


def csr_rows(matrix: Any) -> tuple[Array, Array, Array, np.uint64]:
    """Return a CSR matrix as the loops take it: unsigned, and how far to fetch ahead."""
    pointers, indices = (
        array.view(f"u{array.dtype.itemsize}")
        for array in (matrix.indptr, matrix.indices)
    )
    short = matrix.nnz <= _SHORT_ROW * matrix.shape[0]
    return pointers, indices, matrix.data, np.uint64(_AHEAD if short else 0)


@cache
def compiled(*, threaded: bool) -> Compiled:
    """Return the compiled kernels; ``threaded`` splits every loop over numba's threads."""
    loops = importlib.import_module(".vector_loops", __package__)  # the extra "fast"
    made = loops.compile_loops(threaded=threaded)
    return Compiled(made, "threaded" if threaded else "compiled")
