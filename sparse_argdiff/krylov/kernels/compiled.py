"""The primitives as fused loops, compiled by numba at first use and cached on disk.

One pass each: a vector is read once and written once.  float32 vectors are combined in
float32 and summed in float64.  Index arrays are viewed as unsigned: a signed index makes
every gather test for a negative one.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from scipy import sparse

from ...arrays import Array
from ...linear_operator import LinearOperator
from .blocks import BLOCKS
from .scalars import Scalars


class Compiled:
    """The loops of :func:`_loops`, called with scalars of the vectors' dtype."""

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
        if A.into is not None:
            return A
        if A.is_diagonal:
            return self._diagonal(A)
        matrix = A.matrix
        if not sparse.issparse(matrix) or matrix.format != "csr":
            return A
        if matrix.dtype not in (np.float32, np.float64):
            return A
        unsigned = np.dtype(f"u{matrix.indices.dtype.itemsize}")
        arrays = (
            matrix.indptr.view(np.dtype(f"u{matrix.indptr.dtype.itemsize}")),
            matrix.indices.view(unsigned),
            matrix.data,
        )
        loop = self._loops["csr_product"]

        def into(x: Array, out: Array) -> Any:
            if x.ndim == 2:
                return BLOCKS.csr_product(arrays, x, out)
            return float(loop(*arrays, x, out))

        return A.writing(into, into_blocks=True)

    def _diagonal(self, A: LinearOperator) -> LinearOperator:
        diagonal = np.ascontiguousarray(A.diagonal()).view()
        diagonal.flags.writeable = False  # users' may be: each kind is a compilation
        loop = self._loops["diagonal_product"]

        def into(x: Array, out: Array) -> Any:
            if x.ndim == 2:
                return BLOCKS.scale(diagonal, x, out)
            return float(loop(diagonal, x, out))

        return A.writing(into, into_blocks=True)

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

    def cg_residual(self, r: Array, q: Array, s: Scalars) -> None:
        """Step the residual, r −= α q."""
        s.square = self._cg_residual(r, q, r.dtype.type(s.alpha))

    def cg_advance(self, x: Array, p: Array, z: Array, s: Scalars) -> None:
        """Step along p, x += α p, and turn it: p = z + β p."""
        scalar = x.dtype.type
        self._cg_advance(x, p, z, scalar(s.alpha), scalar(s.beta))

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


@cache
def compiled(*, threaded: bool) -> Compiled:
    """Return the compiled make; ``threaded`` splits every loop over numba's threads."""
    return Compiled(_loops(threaded), "threaded" if threaded else "compiled")


def _loops(threaded: bool) -> dict[str, Any]:
    import numba  # noqa: PLC0415 - the optional extra "fast"

    prange, double = numba.prange, numba.float64

    def dot(x, y):  # type: ignore[no-untyped-def]
        total = 0.0
        for i in prange(x.size):
            total += double(x[i]) * double(y[i])
        return total

    def csr_product(indptr, indices, data, x, out):  # type: ignore[no-untyped-def]
        total = 0.0
        for i in prange(out.size):
            row = data.dtype.type(0)
            for k in range(indptr[i], indptr[i + 1]):
                row += data[k] * x[indices[k]]
            out[i] = row
            total += double(x[i]) * double(row)
        return total

    one, two, three, four = (np.uint64(k) for k in range(1, 5))

    def csr_by_fours(indptr, indices, data, x, out):  # type: ignore[no-untyped-def]
        # Four rows of one length at a time: their sums do not wait for each other.
        total, i, rows = 0.0, np.uint64(0), np.uint64(out.size)
        while i < rows:
            a, b = np.uint64(indptr[i]), np.uint64(indptr[i + one])
            width = b - a
            r0 = r1 = r2 = r3 = data.dtype.type(0)
            if (
                i + four <= rows
                and np.uint64(indptr[i + two]) == b + width
                and np.uint64(indptr[i + three]) == b + width + width
                and np.uint64(indptr[i + four]) == b + width + width + width
            ):
                c, d = b + width, b + width + width
                for k in range(width):
                    r0 += data[a + k] * x[indices[a + k]]
                    r1 += data[b + k] * x[indices[b + k]]
                    r2 += data[c + k] * x[indices[c + k]]
                    r3 += data[d + k] * x[indices[d + k]]
                out[i + one], out[i + two], out[i + three] = r1, r2, r3
                total += double(x[i + one]) * double(r1)
                total += double(x[i + two]) * double(r2)
                total += double(x[i + three]) * double(r3)
                step = four
            else:
                for k in range(a, b):
                    r0 += data[k] * x[indices[k]]
                step = one
            out[i] = r0
            total += double(x[i]) * double(r0)
            i += step
        return total

    def diagonal_product(diagonal, x, out):  # type: ignore[no-untyped-def]
        total = 0.0
        for i in prange(x.size):
            entry = diagonal[i] * x[i]
            out[i] = entry
            total += double(entry) * double(x[i])
        return total

    def cg_residual(r, q, alpha):  # type: ignore[no-untyped-def]
        total = 0.0
        for i in prange(r.size):
            entry = r[i] - alpha * q[i]
            r[i] = entry
            total += double(entry) * double(entry)
        return total

    def cg_advance(x, p, z, alpha, beta):  # type: ignore[no-untyped-def]
        for i in prange(x.size):
            entry = p[i]
            x[i] += alpha * entry
            p[i] = z[i] + beta * entry

    def lanczos(older, newer, y, of_older, of_newer, of_y):  # type: ignore[no-untyped-def]
        total = 0.0
        for i in prange(older.size):
            entry = of_older * older[i] + of_newer * newer[i] + of_y * y[i]
            older[i] = entry
            total += double(entry) * double(entry)
        return total

    def minres_advance(x, w_old, w, v, of_w_old, of_w, of_v, step):  # type: ignore[no-untyped-def]
        for i in prange(x.size):
            entry = of_w_old * w_old[i] + of_w * w[i] + of_v * v[i]
            w_old[i] = entry
            x[i] += step * entry

    def compile_loop(loop: Any) -> Any:
        # Sums may be reordered, for SIMD; NaN and infinity stay what they are.
        options: dict[str, Any] = {"parallel": threaded}
        options["fastmath"] = {"reassoc", "contract"}
        try:
            return numba.njit(cache=True, **options)(loop)
        except RuntimeError:  # neither the package nor the user's cache can be written
            return numba.njit(**options)(loop)

    loops = (dot, diagonal_product, cg_residual, cg_advance, lanczos, minres_advance)
    product = csr_product if threaded else csr_by_fours
    compiled_loops = {loop.__name__: compile_loop(loop) for loop in loops}
    return compiled_loops | {"csr_product": compile_loop(product)}
