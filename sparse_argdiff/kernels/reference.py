"""The primitives in the array namespace: NumPy, CuPy, any array-API array.

In place throughout; on NumPy nothing is allocated and y += a x is one pass (BLAS).
"""

from __future__ import annotations

import numpy as np

from ..arrays import Array, axpy, dot
from ..operators.linear_operator import LinearOperator
from .scalars import Scalars


class Reference:
    """What the other makes are tested against."""

    name = "reference"

    def operator(self, A: LinearOperator) -> LinearOperator:
        """Return A as it is."""
        return A

    def accept(self, y: Array, out: Array) -> Array:
        """Return y as it is: it is only read, and before the next product."""
        return y

    def dot(self, x: Array, y: Array) -> float:
        """Return x'y."""
        return dot(x, y)

    def subtract(self, b: Array, y: Array, out: Array) -> None:
        """Write b − y into ``out``."""
        if isinstance(out, np.ndarray):
            np.subtract(b, y, out=out, casting="same_kind")
        else:
            out[...] = b - y

    def fused(self, M: LinearOperator | None, like: Array) -> Array | None:
        """Return None: what is done in one pass is one operation."""
        return None

    def cg_residual(self, r: Array, q: Array, s: Scalars, d: None = None) -> None:
        """Step the residual, r −= α q."""
        axpy(-s.alpha, q, r)
        s.square = dot(r, r)

    def cg_advance(
        self, x: Array, p: Array, z: Array, s: Scalars, d: None = None
    ) -> None:
        """Step along p, x += α p, and turn it: p = z + β p."""
        axpy(s.alpha, p, x)
        p *= s.beta
        p += z

    def lanczos(self, older: Array, newer: Array, y: Array, s: Scalars) -> None:
        """Combine the three residual vectors."""
        older *= s.of_older
        axpy(s.of_newer, newer, older)
        axpy(s.of_y, y, older)
        s.square = dot(older, older)

    def minres_advance(
        self, x: Array, w_old: Array, w: Array, v: Array, s: Scalars
    ) -> None:
        """Combine the two directions and v; step along the new one."""
        w_old *= s.of_w_old
        axpy(s.of_w, w, w_old)
        axpy(s.of_v, v, w_old)
        axpy(s.step, w_old, x)


REFERENCE = Reference()
