"""The passes in the array namespace: NumPy, CuPy, any array-API array.

In place; on NumPy vectors nothing is allocated and y += a x is one pass (BLAS).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array, asarray, axpy, dot, namespace
from ..operators.linear_operator import LinearOperator
from .scalars import HOST_CHECK_EVERY, Scalar, host_scalars

WIDEST = 32  # columns of a block


class Reference:
    """What the other kernels are tested against."""

    name = "reference"
    on_device = False
    check_every = HOST_CHECK_EVERY

    scalars = staticmethod(host_scalars)

    def block_width(self, columns: int, A: LinearOperator, like: Array) -> int:
        """Return the width of a block that holds so many columns."""
        return min(columns, WIDEST)

    def operator(self, A: LinearOperator) -> LinearOperator:
        """Return A as it is."""
        return A

    def accept(self, y: Array, out: Array) -> Array:
        """Return y as it is: it is only read, and before the next product."""
        return y

    def fused(self, M: LinearOperator | None, like: Array) -> Array | None:
        """Return None: no pass takes on the product with a diagonal."""
        return None

    def dot(self, x: Array, y: Array) -> Scalar:
        """Return x'y, of each column."""
        if x.ndim == 1:
            return dot(x, y)
        if isinstance(x, np.ndarray):
            return np.einsum("ij,ij->j", x, y, dtype=np.float64)
        xp = namespace(x)
        sums = xp.sum(x * y, axis=0, dtype=xp.float64)
        return np.asarray([float(sums[c]) for c in range(x.shape[1])])

    def subtract(self, b: Array, y: Array, out: Array) -> None:
        """Write b − y into ``out``, which may be y."""
        if isinstance(out, np.ndarray):
            np.subtract(b, y, out=out, casting="same_kind")
        else:
            out[...] = b - y

    def cg_residual(
        self, r: Array, q: Array, alpha: Scalar, d: None = None
    ) -> tuple[Scalar, Scalar]:
        """Step the residual, r −= α q; return r'r, twice."""
        _add(-alpha, q, r)
        square = self.dot(r, r)
        return square, square

    def cg_advance(
        self, x: Array, p: Array, z: Array, alpha: Scalar, beta: Scalar, d: None = None
    ) -> None:
        """Step along p, x += α p, then turn: p = z + β p; nothing where α = 0."""
        _add(alpha, p, x)
        if p.ndim == 1:
            p *= beta
            p += z
            return
        moves = alpha != 0.0
        p *= _row(np.where(moves, beta, 1.0), p)
        p += z * _row(moves, p)

    def lanczos(
        self, older: Array, newer: Array, y: Array, a: Scalar, b: Scalar, c: Scalar
    ) -> Scalar:
        """Replace ``older`` by a older + b newer + c y; return its square."""
        _scale(a, older)
        _add(b, newer, older)
        _add(c, y, older)
        return self.dot(older, older)

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
        a, b, c = coefficients
        _scale(a, w_old)
        _add(b, w, w_old)
        _add(c, v, w_old)
        if x.ndim == 1:
            axpy(step, w_old, x)
        else:  # a column that has ended need not be finite
            row = _row(step, x)
            x += namespace(x).where(row != 0.0, row * w_old, row)


def _row(a: Any, like: Array) -> Array:
    """Return the scalars of the columns where ``like`` lives."""
    if isinstance(like, np.ndarray):
        return a.astype(like.dtype)
    return asarray(a.tolist(), like)


def _scale(a: Scalar, x: Array) -> None:
    if x.ndim == 1:
        x *= a
    else:
        x *= _row(a, x)


def _add(a: Scalar, x: Array, y: Array) -> None:
    if x.ndim == 1:
        axpy(a, x, y)
    else:
        y += x * _row(a, x)


REFERENCE = Reference()
