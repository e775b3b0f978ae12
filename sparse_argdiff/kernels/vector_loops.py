"""The primitives as loops for numba, one source for one thread and for several.

One pass each: a vector is read once and written once, at the speed of a copy.  What costs
more is the product of a CSR matrix with short rows,

    (4 + s) nnz + 4 n  bytes of matrix,   2 s n  of vectors        (s bytes a number),

whose many streams the hardware follows late: we fetch them ahead.

Conventions: float32 vectors are combined in float32 and summed in float64.  Indices are
unsigned: a signed one makes every gather test for a negative one.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, disable-error-code="call-arg,unreachable"

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from .jit import compile_loop

double = numba.float64
one, two, three, four = (np.uint64(k) for k in range(1, 5))


@intrinsic
def fetch(_, array, i):
    """Ask for the cache line of entry i, which may lie beyond the end, and do not wait."""

    def code(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        place = builder.bitcast(builder.gep(data, [args[1]]), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        # To be read, into the first cache, data.
        builder.call(function, [place, *(ir.Constant(word, k) for k in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(array, i), code


def compile_loops(*, threaded: bool) -> dict[str, Any]:
    """Return the loops by name, compiled at first use and cached on disk."""
    # Also what keeps the two forms of a loop apart in the cache: it knows no options.
    span = numba.prange if threaded else range
    # Sums may be reordered, for SIMD; NaN and infinity stay what they are.
    compiled = compile_loop(parallel=threaded, fastmath={"reassoc", "contract"})
    loops = (*_sums(span), *_steps(span))
    product = _csr_product(span) if threaded else _csr_by_fours()
    found = {loop.__name__: compiled(loop) for loop in loops}
    return found | {"csr_product": compiled(product)}


def _sums(span):
    """Return the loops that end in a sum."""

    def dot(x, y):
        total = 0.0
        for i in span(x.size):
            total += double(x[i]) * double(y[i])
        return total

    def diagonal_product(diagonal, x, out):
        total = 0.0
        for i in span(x.size):
            here = x[i]
            entry = diagonal[i] * here
            out[i] = entry
            total += double(entry) * double(here)
        return total

    def cg_residual(r, q, alpha, d):
        total, scaled = 0.0, 0.0
        for i in span(r.size):
            entry = r[i] - alpha * q[i]
            r[i] = entry
            total += double(entry) * double(entry)
            if d is not None:  # a type, not a test: there is a loop for each
                scaled += double(d[i] * entry) * double(entry)
        return total, scaled

    def lanczos(older, newer, y, of_older, of_newer, of_y):
        total = 0.0
        for i in span(older.size):
            entry = of_older * older[i] + of_newer * newer[i] + of_y * y[i]
            older[i] = entry
            total += double(entry) * double(entry)
        return total

    return dot, diagonal_product, cg_residual, lanczos


def _steps(span):
    """Return the loops that step along a direction."""

    def cg_advance(x, p, z, alpha, beta, d):
        for i in span(x.size):
            entry = p[i]
            x[i] += alpha * entry
            p[i] = (z[i] if d is None else d[i] * z[i]) + beta * entry

    def minres_advance(x, w_old, w, v, of_w_old, of_w, of_v, step):
        for i in span(x.size):
            entry = of_w_old * w_old[i] + of_w * w[i] + of_v * v[i]
            w_old[i] = entry
            x[i] += step * entry

    return cg_advance, minres_advance


def _csr_product(span):
    def csr_product(indptr, indices, data, ahead, x, out):
        total = 0.0
        for i in span(out.size):
            fetch(data, np.uint64(indptr[i]) + ahead)
            fetch(indices, np.uint64(indptr[i]) + ahead)
            row = data.dtype.type(0)
            for k in range(indptr[i], indptr[i + 1]):
                row += data[k] * x[indices[k]]
            out[i] = row
            total += double(x[i]) * double(row)
        return total

    return csr_product


def _csr_by_fours():
    """Return the product that takes four rows of one length at a time."""

    def csr_by_fours(indptr, indices, data, ahead, x, out):
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
                for start in (a, b, c, d):
                    fetch(data, start + ahead)
                    fetch(indices, start + ahead)
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

    return csr_by_fours
