"""Compiled loops of v ↦ F' (W (F v)) over the rows of a CSR matrix (numba).

    z_i = Σ_k a_k v_{j_k},    u_i = w_i z_i,    out_{j_k} += a_k u_i,    v'F'WFv = Σ_i w_i z_i²

A row that has just been read for z_i is still in the first cache when u_i is added:
one pass over the matrix instead of two (LIBLINEAR's ``Hv``).  Each function works on the
rows first … last−1, releases the GIL and writes only ``out`` and its scratch, so that
threads share nothing but what they read.

Conventions: indices are unsigned, or numba tests each for being negative; sums start from
a zero of the operand's dtype, or float32 would be computed in float64; ``values`` is None
where every entry is one, and ``staged`` is None for one pass, else (rows of F,) for the u of two.  Rounding: sums are reordered, NaN is kept.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, disable-error-code="call-arg,unreachable"

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


def _compile(**options: Any) -> Any:
    def decorate(function: Any) -> Any:
        try:
            return numba.njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:  # neither the package nor the user's cache can be written
            return numba.njit(nogil=True, **options)(function)

    return decorate


# one vector ---------------------------------------------------------------------------


@_compile(fastmath={"reassoc", "contract", "nsz"})
def start(weights, v, out):
    """Write λ ∘ v into ``out``, zero beyond λ; return v'(λ ∘ v)."""
    square = 0.0
    count = weights.shape[0]
    for j in range(count):
        pull = weights[j] * v[j]
        out[j] = pull
        square += pull * v[j]
    for j in range(count, out.shape[0]):
        out[j] = 0
    return square


one, two, three, four = (np.uint64(k) for k in range(1, 5))


@_compile(fastmath={"contract"})
def _sum(indices, begin, end, v):
    """Return Σ v[indices[k]], in four sums that do not wait for each other.

    Were the order free, LLVM would gather several entries by one instruction, which here
    is slower than as many loads: 1.1 to 1.4 times, from ten entries a row on.
    """
    a = b = c = d = v.dtype.type(0)
    k = begin
    while k + three < end:
        a += v[indices[k]]
        b += v[indices[k + one]]
        c += v[indices[k + two]]
        d += v[indices[k + three]]
        k += four
    while k < end:
        a += v[indices[k]]
        k += one
    return (a + b) + (c + d)


@_compile(fastmath={"reassoc", "contract", "nsz"})
def add_gram(
    values, indices, indptr, first, last, curvature, v, intercept, staged, out
):
    """Add F' (w ∘ (F v)) over some rows to ``out``; return Σ w_i z_i² in float64."""
    p = v.shape[0] - 1  # of the intercept, whose feature is 1 in every row
    zero = v.dtype.type(0)
    constant = v[p] if intercept else zero
    total = zero
    square = 0.0
    for i in range(first, last):
        begin, end = np.uint64(indptr[i]), np.uint64(indptr[i + 1])
        z = zero
        if values is None:
            z = _sum(indices, begin, end, v)
        else:
            for k in range(begin, end):
                z += values[k] * v[indices[k]]
        z += constant
        u = curvature[i] * z
        square += np.float64(z) * np.float64(u)
        total += u
        if staged is not None:
            staged[i] = u
        elif values is None:
            for k in range(begin, end):
                out[indices[k]] += u
        else:
            for k in range(begin, end):
                out[indices[k]] += values[k] * u
    if staged is not None:
        add_rows(values, indices, indptr, first, last, staged, out)
    if intercept:
        out[p] += total
    return square


@_compile()
def add_rows(values, indices, indptr, first, last, s, out):
    """Add F' s over some rows to ``out``."""
    for i in range(first, last):
        u = s[i]
        begin, end = np.uint64(indptr[i]), np.uint64(indptr[i + 1])
        if values is None:
            for k in range(begin, end):
                out[indices[k]] += u
        else:
            for k in range(begin, end):
                out[indices[k]] += values[k] * u


# several columns: tiles of a fixed width ----------------------------------------------
#
# A tile holds ``width`` columns side by side, so that one entry of the matrix acts on one
# or two whole cache lines.  LLVM does not vectorise such short loops by itself, and gains
# nothing where rows of a tile straddle lines: hence vector instructions by hand, and
# aligned buffers (2.5 and 1.7 times faster).  The width travels in a type, as the length
# of a tuple.


def _row(context, builder, kind, array, row, width):
    """Return a pointer to row ``row`` of a flat tile, as one vector."""
    data = context.make_array(kind)(context, builder, array).data
    offset = builder.mul(row, ir.Constant(row.type, width))
    vector = ir.VectorType(context.get_value_type(kind.dtype), width)
    return builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())


def _load(builder, pointer, itemsize):
    loaded = builder.load(pointer)
    loaded.align = itemsize  # what any array has
    return loaded


def _store(builder, vector, pointer, itemsize):
    builder.store(vector, pointer).align = itemsize


def _scaled(context, builder, kinds, args, k, vector):
    """Return values[k] times the vector, or the vector where every value is one."""
    if isinstance(kinds[0], types.NoneType):
        return vector
    data = context.make_array(kinds[0])(context, builder, args[0]).data
    value = builder.load(builder.gep(data, [k]))
    undefined = ir.Constant(vector.type, ir.Undefined)
    lane = ir.IntType(32)
    single = builder.insert_element(undefined, value, ir.Constant(lane, 0))
    lanes = ir.Constant(ir.VectorType(lane, vector.type.count), None)
    return builder.fmul(builder.shuffle_vector(single, undefined, lanes), vector)


def _column(context, builder, kinds, args, k):
    data = context.make_array(kinds[1])(context, builder, args[1]).data
    index = builder.load(builder.gep(data, [k]))
    return index if index.type == k.type else builder.zext(index, k.type)


@intrinsic
def _gather(_, values, indices, begin, end, tile, width, row, i):
    """Write Σ_k values[k] tile[indices[k]] into row i of ``row``."""

    def code(context, builder, signature, args):
        kinds, lanes = signature.args, signature.args[5].count
        size = kinds[4].dtype.bitwidth // 8
        zero = ir.VectorType(context.get_value_type(kinds[4].dtype), lanes)
        total = cgutils.alloca_once_value(builder, ir.Constant(zero, None))
        step = ir.Constant(args[2].type, 1)
        with cgutils.for_range_slice(builder, args[2], args[3], step, step.type) as (
            k,
            _,
        ):
            j = _column(context, builder, kinds, args, k)
            source = _row(context, builder, kinds[4], args[4], j, lanes)
            entry = _load(builder, source, size)
            entry = _scaled(context, builder, kinds, args, k, entry)
            builder.store(builder.fadd(builder.load(total), entry), total)
        target = _row(context, builder, kinds[6], args[6], args[7], lanes)
        _store(builder, builder.load(total), target, size)
        return context.get_dummy_value()

    signature = types.void(values, indices, begin, end, tile, width, row, i)
    return signature, code


@intrinsic
def _scatter(_, values, indices, begin, end, tile, width, row, i):
    """Add values[k] times row i of ``row`` to each tile[indices[k]]."""

    def code(context, builder, signature, args):
        kinds, lanes = signature.args, signature.args[5].count
        size = kinds[4].dtype.bitwidth // 8
        source = _row(context, builder, kinds[6], args[6], args[7], lanes)
        own = _load(builder, source, size)
        step = ir.Constant(args[2].type, 1)
        with cgutils.for_range_slice(builder, args[2], args[3], step, step.type) as (
            k,
            _,
        ):
            j = _column(context, builder, kinds, args, k)
            target = _row(context, builder, kinds[4], args[4], j, lanes)
            entry = _scaled(context, builder, kinds, args, k, own)
            _store(
                builder,
                builder.fadd(_load(builder, target, size), entry),
                target,
                size,
            )
        return context.get_dummy_value()

    signature = types.void(values, indices, begin, end, tile, width, row, i)
    return signature, code


@_compile(fastmath={"reassoc", "contract", "nsz"})
def start_tile(weights, step, across, V, down, right, first, count, width, tile, out):
    """Copy ``count`` columns of V to a tile; start its product.

    V_jc = V[j down + c right].  ``out`` becomes λ ∘ V, with λ_jc = weights[j step +
    c across] and zero beyond; the columns that the tile has too many are zero.  Returns
    the sum of V ∘ λ ∘ V.
    """
    lanes = len(width)
    square = 0.0
    penalised = weights.shape[0] // step
    for j in range(tile.shape[0] // lanes):
        for c in range(count):
            entry = V[j * down + (first + c) * right]
            pull = entry - entry
            if j < penalised:
                pull = weights[j * step + c * across] * entry
            tile[j * lanes + c] = entry
            out[j * lanes + c] = pull
            square += np.float64(pull) * np.float64(entry)
        for c in range(count, lanes):
            tile[j * lanes + c] = 0
            out[j * lanes + c] = 0
    return square


@_compile(fastmath={"contract"})
def add_tile(
    values,
    indices,
    indptr,
    first,
    last,
    curvature,
    probability,
    tile,
    width,
    intercept,
    out,
):
    """Add F' W (F tile) over some rows to ``out``; return the sum of Z ∘ W Z.

    W is w_i in each column, or with ``probability`` p (rows of F, K) the soft-max's
    w_i (diag p_i − p_i p_i') across the first K columns; the sum is then
    w_i Σ_c p_ic (z_ic − p_i'z_i)², which cannot be negative.
    """
    lanes = len(width)
    rows = np.uint64(tile.shape[0] // lanes - 1)  # of the intercept, the last of a tile
    zero = tile.dtype.type(0)
    total = np.zeros(lanes, tile.dtype)
    own = np.empty(lanes, tile.dtype)
    square = 0.0
    for i in range(first, last):
        begin, end = np.uint64(indptr[i]), np.uint64(indptr[i + 1])
        _gather(values, indices, begin, end, tile, width, own, np.uint64(0))
        if intercept:
            for c in range(lanes):
                own[c] += tile[rows * np.uint64(lanes) + np.uint64(c)]
        if probability is None:
            for c in range(lanes):
                u = curvature[i] * own[c]
                square += np.float64(own[c]) * np.float64(u)
                own[c] = u
        else:
            mean = zero
            for c in range(probability.shape[1]):
                mean += probability[i, c] * own[c]
            for c in range(probability.shape[1]):
                centred = own[c] - mean
                u = curvature[i] * probability[i, c] * centred
                square += np.float64(centred) * np.float64(u)
                own[c] = u
        if intercept:
            for c in range(lanes):
                total[c] += own[c]
        _scatter(values, indices, begin, end, out, width, own, np.uint64(0))
    if intercept:
        for c in range(lanes):
            out[rows * np.uint64(lanes) + np.uint64(c)] += total[c]
    return square


@_compile()
def finish_tile(tile, width, down, right, first, count, out):
    """Copy ``count`` columns of a tile to where ``out`` has them, as V in start_tile."""
    lanes = len(width)
    for j in range(tile.shape[0] // lanes):
        for c in range(count):
            out[j * down + (first + c) * right] = tile[j * lanes + c]
