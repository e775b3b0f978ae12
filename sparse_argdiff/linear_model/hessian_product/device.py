"""The Hessian product of a sparse model on the device, by the kernels of ``loops.cu``.

    H v = F'(d ∘ (F v)) + λ ∘ v

One pass over F where the product fits the L2 cache (its sums are atomic: they repeat to
rounding, not to the bit), else F and then its stored transpose.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import numpy as np

from ...arrays import Array, namespace
from ...kernels.device import functions
from ..design import Design
from ..loss import Curvature
from .two_pass import Products

L2_BYTES = 40 * 2**20  # of an A100; an H100 has 50 MiB
_THREADS = 256
_MOST_BLOCKS = 4096
SOURCE = resources.files(__package__).joinpath("loops.cu").read_text("utf-8")


class DeviceProducts:
    """Products of one design whose features are a CSR matrix on the device.

    ``deterministic``: two passes in a fixed order, also where one would do.
    """

    def __init__(self, design: Design, *, deterministic: bool) -> None:
        self.design = design
        self._forward = _Rows(design.features)
        self._backward = _Rows(design.transposed)
        bytes_out = design.n * np.dtype(design.dtype).itemsize
        self._one_pass = not deterministic and bytes_out <= L2_BYTES

    def products(self, curvature: Curvature, weights: Array, shift: float) -> Products:
        """Return the products; ``shift`` belongs to several outputs, which are not here."""
        assert self.design.outputs == 1
        assert not shift
        design, d, xp = self.design, curvature.diagonal, namespace(weights)
        size, count = np.int32(design.n), np.int32(design.n_coefficients)
        u = xp.empty(design.n_samples, dtype=design.dtype)

        def into(v: Array, out: Array) -> None:
            constant = v[design.n_features :] if design.intercept else None
            last = out[design.n_features :] if design.intercept else None
            self._forward.launch("gram_start", design.n, size, count, weights, v, out)
            if self._one_pass:
                self._forward("gram_rows", d, v, constant, out, last)
                return
            self._forward("csr_scaled", d, v, constant, u)
            self._backward("csr_add", u, out)
            if last is not None:
                last[...] = xp.sum(u)

        def matvec(v: Array) -> Array:
            out = xp.empty(design.n, dtype=design.dtype)
            into(xp.ascontiguousarray(v), out)
            return out

        return Products(matvec, None, into)


class _Rows:
    """A CSR matrix and its kernels: one warp for each row."""

    def __init__(self, matrix: Any) -> None:
        xp = namespace(matrix.data)
        self.rows = np.int32(matrix.shape[0])
        ones = bool(xp.all(matrix.data == 1.0))
        indices = xp.asarray(matrix.indices, dtype=xp.int32)
        self._matrix = (None if ones else matrix.data, indices, matrix.indptr)
        ctype = "float" if matrix.dtype == np.float32 else "double"
        index = "int" if matrix.indptr.dtype == np.int32 else "long long"
        self._functions = functions(xp, SOURCE, f"<{ctype}, {index}>")

    def __call__(self, name: str, *arguments: Any) -> None:
        self.launch(name, 32 * int(self.rows), self.rows, *self._matrix, *arguments)

    def launch(self, name: str, threads: int, *arguments: Any) -> None:
        """Launch a kernel on at least one block, and at most as many as are useful."""
        blocks = min(max(-(-threads // _THREADS), 1), _MOST_BLOCKS)
        self._functions[name]((blocks,), (_THREADS,), arguments)
