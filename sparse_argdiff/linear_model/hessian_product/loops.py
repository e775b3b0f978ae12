"""Compiled loops of v ↦ F' (W (F v)) over the rows of a CSR matrix (numba).

    z_i = Σ_k a_k v_{j_k},    u_i = w_i z_i,    out_{j_k} += a_k u_i,    v'F'WFv = Σ_i w_i z_i²

The entries of row i are still in the first cache when u_i is added: one pass over the
matrix instead of two (LIBLINEAR's ``Hv``).  Each function works on the
rows first … last−1, releases the GIL and writes only ``out`` and its scratch, so that
threads share nothing but what they read.

Conventions: indices are unsigned, or numba tests each for being negative; sums start from
a zero of the operand's dtype, or float32 would be computed in float64; ``values`` is None
where every entry is one, and ``staged`` is None for one pass, else (rows of F,) for the u of two.  Rounding: sums are reordered, NaN is kept.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, disable-error-code="call-arg,unreachable"

from __future__ import annotations

import numpy as np

from ...kernels.block_loops import STRETCH, fold, gather_row, scatter_row
from ...kernels.jit import compile_loop

# one vector ---------------------------------------------------------------------------


@compile_loop(fastmath={"reassoc", "contract", "nsz"})
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


@compile_loop(fastmath={"contract"})
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


@compile_loop()
def _add_row(values, indices, begin, end, u, out):
    """Add u times a row of F to ``out``."""
    if values is None:
        for k in range(begin, end):
            out[indices[k]] += u
    else:
        for k in range(begin, end):
            out[indices[k]] += values[k] * u


@compile_loop(fastmath={"reassoc", "contract", "nsz"})
def add_product(
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
        else:
            _add_row(values, indices, begin, end, u, out)
    if staged is not None:
        for i in range(first, last):
            begin, end = np.uint64(indptr[i]), np.uint64(indptr[i + 1])
            _add_row(values, indices, begin, end, staged[i], out)
    if intercept:
        out[p] += total
    return square


@compile_loop()
def add_entries(values, indices, indptr, first, last, curvature, intercept, n, out):
    """Add F' diag(w) F over some rows to ``out``: n² entries S, then n of a diagonal D.

    The sum is S + S' + D, also where a row has its indices in any order, or twice.
    """
    square = np.uint64(n * n)
    p = np.uint64(n - 1)  # of the intercept, whose feature is 1 in every row
    for i in range(first, last):
        begin, end = np.uint64(indptr[i]), np.uint64(indptr[i + 1])
        w = curvature[i]
        for k in range(begin, end):
            j = np.uint64(indices[k])
            row = j * np.uint64(n)
            u = w if values is None else w * values[k]
            if values is None:
                for m in range(k + one, end):
                    out[row + indices[m]] += u
                out[square + j] += u
            else:
                for m in range(k + one, end):
                    out[row + indices[m]] += u * values[m]
                out[square + j] += u * values[k]
            if intercept:
                out[row + p] += u
        if intercept:
            out[square + p] += w
    return 0.0


# several columns: tiles of a fixed width (see kernels/block_loops.py) -----------------


@compile_loop(fastmath={"reassoc", "contract", "nsz"})
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


@compile_loop(fastmath={"contract"})
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
    """Add F' W (F tile) over some rows to ``out``; return Z ∘ W Z, summed by column.

    W is w_i in each column, or with ``probability`` p (rows of F, K) the soft-max's
    w_i (diag p_i − p_i p_i') across the first K columns; the sum is then that of
    w_i p_ic (z_ic − p_i'z_i)², which cannot be negative.
    """
    lanes = len(width)
    rows = np.uint64(tile.shape[0] // lanes - 1)  # of the intercept, the last of a tile
    zero = tile.dtype.type(0)
    total = np.zeros(lanes, tile.dtype)
    own = np.empty(lanes, tile.dtype)
    squares = np.zeros(lanes)
    for i in range(first, last):
        begin, end = np.uint64(indptr[i]), np.uint64(indptr[i + 1])
        gather_row(values, indices, begin, end, tile, width, own, np.uint64(0))
        if intercept:
            for c in range(lanes):
                own[c] += tile[rows * np.uint64(lanes) + np.uint64(c)]
        if probability is None:
            for c in range(lanes):
                u = curvature[i] * own[c]
                squares[c] += np.float64(own[c]) * np.float64(u)
                own[c] = u
        else:
            # Distances to the entry of the largest p: no digits cancel where p is one.
            largest, mean = 0, zero
            for c in range(1, probability.shape[1]):
                if probability[i, c] > probability[i, largest]:
                    largest = c
            origin = own[largest]
            for c in range(probability.shape[1]):
                mean += probability[i, c] * (own[c] - origin)
            for c in range(probability.shape[1]):
                centred = (own[c] - origin) - mean
                u = curvature[i] * probability[i, c] * centred
                squares[c] += np.float64(centred) * np.float64(u)
                own[c] = u
        if intercept:
            for c in range(lanes):
                total[c] += own[c]
        scatter_row(values, indices, begin, end, out, width, own, np.uint64(0))
    if intercept:
        for c in range(lanes):
            out[rows * np.uint64(lanes) + np.uint64(c)] += total[c]
    return squares


_SUMS = {"reassoc", "contract", "nsz"}


@compile_loop(fastmath=_SUMS)
def _weigh(z, curvature, sums):
    """Replace z by w ∘ z; add z ∘ w ∘ z to ``sums``."""
    for t in range(z.size):
        u = curvature[t] * z[t]
        sums[t] += np.float64(z[t]) * np.float64(u)
        z[t] = u


@compile_loop(fastmath=_SUMS)
def _add(x, sums):
    for t in range(x.size):
        sums[t] += x[t]


@compile_loop(fastmath={"contract"})
def gather_tile(
    values, indices, indptr, first, last, curvature, tile, width, intercept, z
):
    """Write w_c ∘ (F v_c) of each column for some rows into ``z``; return v'F'WFv.

    ``curvature`` lies like a tile: the weights of a row side by side, one a column; with
    None z is F V, and nothing is summed.  What is not the product with F runs over
    stretches of rows that are still near the core.
    """
    lanes, rows = len(width), STRETCH // len(width)
    sums, constant = np.zeros(rows * lanes), np.zeros(rows * lanes, tile.dtype)
    if intercept:
        for t in range(constant.size):
            constant[t] = tile[tile.size - lanes + t % lanes]
    for start in range(first, last, rows):
        stop = min(start + rows, last)
        for i in range(np.uint64(start), np.uint64(stop)):
            begin, end = np.uint64(indptr[i]), np.uint64(indptr[i + one])
            gather_row(values, indices, begin, end, tile, width, z, i)
        own = z[start * lanes : stop * lanes]
        if intercept:
            _add(constant[: own.size], own)
        if curvature is not None:
            _weigh(own, curvature[start * lanes : stop * lanes], sums)
    return fold(sums, width)


@compile_loop(fastmath={"contract"})
def scatter_tile(values, indices, indptr, first, last, z, width, intercept, out):
    """Add F' z of each column over some rows to ``out``."""
    lanes, rows = len(width), STRETCH // len(width)
    total = np.zeros(rows * lanes)
    for start in range(first, last, rows):
        stop = min(start + rows, last)
        for i in range(np.uint64(start), np.uint64(stop)):
            begin, end = np.uint64(indptr[i]), np.uint64(indptr[i + one])
            scatter_row(values, indices, begin, end, out, width, z, i)
        if intercept:
            _add(z[start * lanes : stop * lanes], total)
    if intercept:
        _add(fold(total, width), out[out.size - lanes :])


@compile_loop()
def finish_tile(tile, width, down, right, first, count, out):
    """Copy ``count`` columns of a tile to where ``out`` has them, as V in start_tile."""
    lanes = len(width)
    for j in range(tile.shape[0] // lanes):
        for c in range(count):
            out[j * down + (first + c) * right] = tile[j * lanes + c]
