"""Compiled loops over vectors that lie side by side: entry j of all of them in one row.

    X (n, width), C-ordered:    x_jc of column c at  X[j width + c]

One entry of a matrix then acts on a whole cache line.  LLVM does not vectorise such short
rows by itself, and gains nothing where they straddle lines: hence vector instructions by
hand, and aligned blocks (2.5 and 1.7 times faster).  The width travels in a type, as the
length of a tuple.  Passes that only scale and add run over stretches, with the scalars of
the columns repeated to the length of one, so that they are long plain loops.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, disable-error-code="call-arg,unreachable"

from __future__ import annotations

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import compile_loop

STRETCH = 256  # entries, at most: whole rows of the block


# rows as vectors ----------------------------------------------------------------------


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


def _scaled(context, builder, kinds, args, k, vector, dtype):
    """Return values[k], in the vector's dtype, times it; it alone where all are one."""
    if isinstance(kinds[0], types.NoneType):
        return vector
    data = context.make_array(kinds[0])(context, builder, args[0]).data
    value = builder.load(builder.gep(data, [k]))
    value = context.cast(builder, value, kinds[0].dtype, dtype)
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
def gather_row(_, values, indices, begin, end, tile, width, row, i):
    """Write Σ_k values[k] tile[indices[k]] into row i of ``row``.

    In two sums that do not wait for each other: 1.2 to 1.4 times faster than one.
    """

    def code(context, builder, signature, args):
        kinds, lanes = signature.args, signature.args[5].count
        size = kinds[4].dtype.bitwidth // 8
        vector = ir.VectorType(context.get_value_type(kinds[4].dtype), lanes)
        zero = ir.Constant(vector, None)
        even, odd = (cgutils.alloca_once_value(builder, zero) for _ in range(2))
        one, two = (ir.Constant(args[2].type, step) for step in (1, 2))

        def add(k, total):
            j = _column(context, builder, kinds, args, k)
            source = _row(context, builder, kinds[4], args[4], j, lanes)
            entry = _load(builder, source, size)
            entry = _scaled(context, builder, kinds, args, k, entry, kinds[4].dtype)
            builder.store(builder.fadd(builder.load(total), entry), total)

        left = builder.and_(builder.sub(args[3], args[2]), one)
        pairs = builder.sub(args[3], left)
        with cgutils.for_range_slice(builder, args[2], pairs, two, two.type) as (k, _):
            add(k, even)
            add(builder.add(k, one), odd)
        with cgutils.for_range_slice(builder, pairs, args[3], one, one.type) as (k, _):
            add(k, even)
        target = _row(context, builder, kinds[6], args[6], args[7], lanes)
        total = builder.fadd(builder.load(even), builder.load(odd))
        _store(builder, total, target, size)
        return context.get_dummy_value()

    signature = types.void(values, indices, begin, end, tile, width, row, i)
    return signature, code


@intrinsic
def scatter_row(_, values, indices, begin, end, tile, width, row, i):
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
            entry = _scaled(context, builder, kinds, args, k, own, kinds[4].dtype)
            _store(
                builder,
                builder.fadd(_load(builder, target, size), entry),
                target,
                size,
            )
        return context.get_dummy_value()

    signature = types.void(values, indices, begin, end, tile, width, row, i)
    return signature, code


@intrinsic
def scale_row(_, scale, j, X, width, out, i):
    """Write scale[j] times row j of X into row i of ``out``."""

    def code(context, builder, signature, args):
        kinds, lanes = signature.args, signature.args[3].count
        size = kinds[2].dtype.bitwidth // 8
        own = _load(
            builder, _row(context, builder, kinds[2], args[2], args[1], lanes), size
        )
        own = _scaled(context, builder, kinds, args, args[1], own, kinds[2].dtype)
        target = _row(context, builder, kinds[4], args[4], args[5], lanes)
        _store(builder, own, target, size)
        return context.get_dummy_value()

    return types.void(scale, j, X, width, out, i), code


# passes over blocks -------------------------------------------------------------------

# Stretches are slices: of ``X[b + t]`` it is not known that the index is not negative.
_SUMS = {"reassoc", "contract", "nsz"}


@compile_loop(fastmath=_SUMS)
def fold(sums, width):
    """Return the sums of the columns, of those along a stretch."""
    total = np.zeros(len(width))
    for t in range(sums.size):
        total[t % len(width)] += sums[t]
    return total


@compile_loop(fastmath=_SUMS)
def _add_products(x, y, sums):
    for t in range(x.size):
        sums[t] += np.float64(x[t]) * np.float64(y[t])


@compile_loop(fastmath=_SUMS)
def dot(X, Y, width):
    """Return x'y of each column."""
    stretch = STRETCH // len(width) * len(width)
    sums = np.zeros(stretch)
    for b in range(0, X.size, stretch):
        _add_products(X[b : b + stretch], Y[b : b + stretch], sums)
    return fold(sums, width)


@compile_loop(fastmath=_SUMS)
def _scaled_stretch(d, X, b, width, out):
    """Write d ∘ x of the stretch from entry b on into ``out``, zero beyond d."""
    first = b // len(width)
    last = min(first + out.size // len(width), d.size)
    for j in range(np.uint64(first), np.uint64(last)):
        scale_row(d, j, X, width, out, j - np.uint64(first))
    for t in range(max((last - first) * len(width), 0), min(out.size, X.size - b)):
        out[t] = 0


@compile_loop()
def _along(scalars, X, width):
    """Return the scalars of the columns, repeated along a stretch of X."""
    found = np.empty(STRETCH // len(width) * len(width), X.dtype)
    for t in range(found.size):
        found[t] = scalars[t % len(width)]
    return found


@compile_loop(fastmath=_SUMS)
def cg_residual(R, Q, alpha, d, width):
    """Take α q from r; return r'r and, with d, r'(d ∘ r) of each column."""
    alpha = _along(alpha, R, width)
    stretch = alpha.size
    sums, scaled = np.zeros(stretch), np.zeros(stretch)
    z = np.empty(stretch, R.dtype)
    for b in range(0, R.size, stretch):
        r, q = R[b : b + stretch], Q[b : b + stretch]
        for t in range(r.size):
            entry = r[t] - alpha[t] * q[t]
            r[t] = entry
            sums[t] += np.float64(entry) * np.float64(entry)
        if d is not None:
            _scaled_stretch(d, R, b, width, z)
            _add_products(r, z, scaled)
    return fold(sums, width), fold(scaled, width)


@compile_loop()
def _steps(alpha, beta, X, width):
    """Return α, β and the share of z, along a stretch: one, but zero where α is."""
    alpha, beta = _along(alpha, X, width), _along(beta, X, width)
    gamma = np.ones_like(alpha)
    for t in range(alpha.size):
        if alpha[t] == 0:
            beta[t], gamma[t] = 1, 0
    return alpha, beta, gamma


@compile_loop(fastmath=_SUMS)
def cg_advance(X, P, Z, alpha, beta, d, width):
    """Add α p to x, then make p z + β p, or d ∘ z + β p; p stays where α is zero."""
    alpha, beta, gamma = _steps(alpha, beta, X, width)
    stretch = alpha.size
    own = np.empty(stretch, X.dtype)
    for b in range(0, X.size, stretch):
        x, p, z = X[b : b + stretch], P[b : b + stretch], Z[b : b + stretch]
        if d is not None:
            _scaled_stretch(d, Z, b, width, own)
            z = own
        for t in range(x.size):
            entry = p[t]
            x[t] += alpha[t] * entry
            p[t] = gamma[t] * z[t] + beta[t] * entry


@compile_loop(fastmath=_SUMS)
def cg_residual_own(R, Q, alpha, D, width):
    """Take α q from r; return r'r and r'(D ∘ r), with a diagonal for each column."""
    alpha = _along(alpha, R, width)
    stretch = alpha.size
    sums, scaled = np.zeros(stretch), np.zeros(stretch)
    for b in range(0, R.size, stretch):
        r, q, d = R[b : b + stretch], Q[b : b + stretch], D[b : b + stretch]
        for t in range(r.size):
            entry = r[t] - alpha[t] * q[t]
            r[t] = entry
            square = np.float64(entry) * np.float64(entry)
            sums[t] += square
            scaled[t] += np.float64(d[t]) * square
    return fold(sums, width), fold(scaled, width)


@compile_loop(fastmath=_SUMS)
def cg_advance_own(X, P, Z, alpha, beta, D, width):
    """Add α p to x, then make p D ∘ z + β p, with a diagonal for each column."""
    alpha, beta, gamma = _steps(alpha, beta, X, width)
    stretch = alpha.size
    for b in range(0, X.size, stretch):
        x, p, z = X[b : b + stretch], P[b : b + stretch], Z[b : b + stretch]
        d = D[b : b + stretch]
        for t in range(x.size):
            entry = p[t]
            x[t] += alpha[t] * entry
            p[t] = gamma[t] * d[t] * z[t] + beta[t] * entry


@compile_loop(fastmath=_SUMS)
def lanczos(older, newer, Y, of_older, of_newer, of_y, width):
    """Combine the three residual vectors; return the square of each column."""
    of_older, of_newer = _along(of_older, Y, width), _along(of_newer, Y, width)
    of_y = _along(of_y, Y, width)
    stretch = of_y.size
    sums = np.zeros(stretch)
    for b in range(0, Y.size, stretch):
        o, n, y = older[b : b + stretch], newer[b : b + stretch], Y[b : b + stretch]
        for t in range(y.size):
            entry = of_older[t] * o[t] + of_newer[t] * n[t] + of_y[t] * y[t]
            o[t] = entry
            sums[t] += np.float64(entry) * np.float64(entry)
    return fold(sums, width)


@compile_loop(fastmath=_SUMS)
def minres_advance(X, W_old, W, V, of_w_old, of_w, of_v, step, width):
    """Combine the two directions and v, and step along the new one, in each column."""
    of_w_old, of_w = _along(of_w_old, X, width), _along(of_w, X, width)
    of_v, step = _along(of_v, X, width), _along(step, X, width)
    stretch = step.size
    for b in range(0, X.size, stretch):
        x, v = X[b : b + stretch], V[b : b + stretch]
        w_old, w = W_old[b : b + stretch], W[b : b + stretch]
        for t in range(x.size):
            entry = of_w_old[t] * w_old[t] + of_w[t] * w[t] + of_v[t] * v[t]
            w_old[t] = entry
            # A column that has ended need not be finite.
            x[t] += step[t] * entry if step[t] != 0 else 0


@compile_loop(fastmath=_SUMS)
def scale(d, X, out, width):
    """Write d ∘ x into ``out``, zero beyond d; return x'(d ∘ x) of each column."""
    stretch = STRETCH // len(width) * len(width)
    sums = np.zeros(stretch)
    for b in range(0, X.size, stretch):
        own = out[b : b + stretch]
        _scaled_stretch(d, X, b, width, own)
        _add_products(X[b : b + stretch], own, sums)
    return fold(sums, width)


@compile_loop(fastmath={"contract"})
def csr_product(indptr, indices, data, X, width, out):
    """Write A x into ``out``; return x'A x of each column."""
    lanes = len(width)
    rows = STRETCH // lanes
    stretch = rows * lanes
    sums = np.zeros(stretch)
    for b in range(0, X.size, stretch):
        first = b // lanes
        for i in range(np.uint64(first), np.uint64(min(first + rows, X.size // lanes))):
            begin, end = np.uint64(indptr[i]), np.uint64(indptr[i + np.uint64(1)])
            gather_row(data, indices, begin, end, X, width, out, i)
        _add_products(X[b : b + stretch], out[b : b + stretch], sums)
    return fold(sums, width)
