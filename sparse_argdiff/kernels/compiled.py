"""The primitives as fused loops, compiled by numba at first use and cached on disk.

The loops are in ``loops.py``; here they get scalars of the vectors' dtype, and a matrix
the fused product y = A x, x'y.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import numpy as np
from scipy import sparse

from ..arrays import Array
from ..operators.linear_operator import LinearOperator
from .blocks import BLOCKS
from .scalars import Scalars

# Short rows are fetched this many entries before they are needed, measured on stencils
# of 3 to 27 points: the hardware, which looks ahead by itself in long rows, does too little
# in short ones (1.3 times), and is disturbed by us in long ones (1/1.2).
_SHORT_ROW, _AHEAD = 16, 256


class Compiled:
    """The loops of :func:`loops.compile_loops`, called with scalars of the vectors' dtype."""

    def __init__(self, loops: dict[str, Any], name: str) -> None:
        self.name = name
        self._loops = loops
        self._dot = loops["dot"]
        self._cg_residual = loops["cg_residual"]
        self._cg_advance = loops["cg_advance"]
        self._lanczos = loops["lanczos"]
        self._minres_advance = loops["minres_advance"]

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

    def dot(self, x: Array, y: Array) -> float:
        """Return x'y, summed in double precision."""
        return float(self._dot(x, y))

    def subtract(self, b: Array, y: Array, out: Array) -> None:
        """Write b − y into ``out``: one pass as it is."""
        np.subtract(b, y, out=out, casting="same_kind")

    def fused(self, M: LinearOperator | None, like: Array) -> Array | None:
        """Return the diagonal of an M that is one."""
        if M is None or not M.is_diagonal:
            return None
        return read_only(M.diagonal().astype(like.dtype, copy=False))

    def cg_residual(
        self, r: Array, q: Array, s: Scalars, d: Array | None = None
    ) -> None:
        """Step the residual, r −= α q."""
        s.square, s.rho = self._cg_residual(r, q, r.dtype.type(s.alpha), d)

    def cg_advance(
        self, x: Array, p: Array, z: Array, s: Scalars, d: Array | None = None
    ) -> None:
        """Step along p, x += α p, and turn it: p = z + β p, or d ∘ z + β p."""
        scalar = x.dtype.type
        self._cg_advance(x, p, z, scalar(s.alpha), scalar(s.beta), d)

    def lanczos(self, older: Array, newer: Array, y: Array, s: Scalars) -> None:
        """Combine the three residual vectors."""
        scalar = older.dtype.type
        coefficients = scalar(s.of_older), scalar(s.of_newer), scalar(s.of_y)
        s.square = self._lanczos(older, newer, y, *coefficients)

    def minres_advance(
        self, x: Array, w_old: Array, w: Array, v: Array, s: Scalars
    ) -> None:
        """Combine the two directions and v; step along the new one."""
        scalar = x.dtype.type
        coefficients = scalar(s.of_w_old), scalar(s.of_w), scalar(s.of_v)
        self._minres_advance(x, w_old, w, v, *coefficients, scalar(s.step))


def read_only(vector: Array) -> Array:
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
    """Return the compiled make; ``threaded`` splits every loop over numba's threads."""
    loops = importlib.import_module(
        ".vector_loops", __package__
    )  # needs the extra "fast"
    made = loops.compile_loops(threaded=threaded)
    return Compiled(made, "threaded" if threaded else "compiled")
