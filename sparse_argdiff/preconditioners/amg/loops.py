"""Compiled passes over one multigrid level, fused over the rows of its matrix (numba).

    relax     x₊ = a x + b x₊ + c D⁻¹ (r − A x)
    restrict  r_c = P' (r − A x)
    prolong   x += P e

The residual of a row is used at once and never stored; P' is read as P by rows.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, disable-error-code="call-arg,unreachable"

from __future__ import annotations

import numpy as np

from ...kernels.jit import compile_loop
from ...kernels.vector_loops import fetch, one

_compile = compile_loop(fastmath={"contract"})


@_compile
def begin(inverse, r, c, out):
    """Write c D⁻¹ r into ``out``."""
    for i in range(out.size):
        out[i] = c * (inverse[i] * r[i])


@_compile
def relax(indptr, indices, data, ahead, inverse, r, x, a, b, c, out):
    """Write a x + b ``out`` + c D⁻¹ (r − A x) into ``out``; with b = 0 it is not read."""
    for row in range(out.size):
        i = np.uint64(row)
        first, last = np.uint64(indptr[i]), np.uint64(indptr[i + one])
        fetch(data, first + ahead)
        fetch(indices, first + ahead)
        left = data.dtype.type(0)
        for k in range(first, last):
            left += data[k] * x[indices[k]]
        entry = a * x[i] + c * (inverse[i] * (r[i] - left))
        if b != 0:
            entry += b * out[i]
        out[i] = entry


@_compile
def restrict(
    indptr, indices, data, ahead, pointers, columns, weights, beyond, r, x, coarse
):
    """Write P' (r − A x) into ``coarse``."""
    coarse[:] = 0
    for row in range(x.size):
        i = np.uint64(row)
        first, last = np.uint64(indptr[i]), np.uint64(indptr[i + one])
        fetch(data, first + ahead)
        fetch(indices, first + ahead)
        left = data.dtype.type(0)
        for k in range(first, last):
            left += data[k] * x[indices[k]]
        left = r[i] - left
        first, last = np.uint64(pointers[i]), np.uint64(pointers[i + one])
        fetch(weights, first + beyond)
        fetch(columns, first + beyond)
        for k in range(first, last):
            coarse[columns[k]] += weights[k] * left


@_compile
def prolong(pointers, columns, weights, beyond, e, x):
    """Add P e to x."""
    for row in range(x.size):
        i = np.uint64(row)
        first, last = np.uint64(pointers[i]), np.uint64(pointers[i + one])
        fetch(weights, first + beyond)
        fetch(columns, first + beyond)
        entry = x[i]
        for k in range(first, last):
            entry += weights[k] * e[columns[k]]
        x[i] = entry
