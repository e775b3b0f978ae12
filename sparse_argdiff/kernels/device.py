"""The passes of ``vectors.cu``: vectors and their scalars stay on the device.

The host launches the passes of several steps and then looks at the scalars of all of them
in one transfer.
"""

from __future__ import annotations

import functools
import re
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from ..arrays import Array, asarray, namespace, zeros
from ..operators.linear_operator import LinearOperator
from .kernel_set import KernelSet, Line, Scalar

CHECK_EVERY = 10  # steps between two looks of the host
THREADS = 256
_MOST_BLOCKS = 1024  # several for each multiprocessor; a sum of so many parts is short
SOURCE = resources.files(__package__).joinpath("vectors.cu").read_text("utf-8")


@cache
def functions(xp: Any, source: str, types: str) -> dict[str, Any]:
    """Compile all kernels of a source for template arguments such as "<float>", by name."""
    kernels = re.findall(r"__global__ void (\w+)\(", source)
    names = [f"{kernel}{types}" for kernel in kernels]
    module = xp.RawModule(
        code=source, options=("--std=c++17",), name_expressions=tuple(names)
    )
    return {
        kernel: module.get_function(name)
        for kernel, name in zip(kernels, names, strict=True)
    }


class Device(KernelSet):
    """The passes on a CUDA device; several right-hand sides are solved one by one.

    Parameters
    ----------
    check_every : int
        Steps between two looks of the host.
    """

    name = "device"
    on_device = True

    def __init__(self, check_every: int = CHECK_EVERY) -> None:
        self.check_every = check_every

    def scalars(self, x: Array) -> _OnDevice:
        """Return the functions of scalars on the device."""
        return _OnDevice(namespace(x), x)

    def block_width(self, columns: int, A: LinearOperator, like: Array) -> int:
        """Return 1: the passes are those of vectors."""
        return 1

    def zeros(self, shape: tuple[int, int], like: Array, A: LinearOperator) -> Array:
        """Return a block of zeros."""
        return zeros(shape, like)

    def accept(self, y: Array, out: Array) -> Array:
        """Copy what is not a plain vector: a kernel takes no strides."""
        if y.dtype == out.dtype and y.flags.c_contiguous:
            return y
        out[...] = y
        return out

    def dot(self, x: Array, y: Array) -> Scalar:
        """Return x'y, on the device."""
        return _sum("dot", x, y)

    def subtract(self, b: Array, y: Array, out: Array) -> None:
        """Write b − y into ``out``."""
        namespace(b, y).subtract(b, y, out=out)

    def cg_residual(
        self, r: Array, q: Array, alpha: Scalar, d: None = None
    ) -> tuple[Scalar, Scalar]:
        """Take α q from r; return r'r, twice."""
        square = _sum("cg_residual", r, q, alpha)
        return square, square

    def cg_advance(
        self, x: Array, p: Array, z: Array, alpha: Scalar, beta: Scalar, d: None = None
    ) -> None:
        """Add α p to x, then make p the next direction z + β p; nothing where α = 0."""
        _launch("cg_advance", x, p, z, alpha, beta)

    def lanczos(
        self, older: Array, newer: Array, y: Array, a: Scalar, b: Scalar, c: Scalar
    ) -> Scalar:
        """Replace ``older`` by a older + b newer + c y; return its square."""
        return _sum("lanczos", older, newer, y, a, b, c)

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
        _launch("minres_advance", x, w_old, w, v, *coefficients, step)


def _launch(name: str, x: Array, *arguments: Any) -> None:
    xp, n = namespace(x), int(x.shape[0])
    types = "<float>" if x.dtype == np.float32 else "<double>"
    kernel = functions(xp, SOURCE, types)[name]
    blocks, threads = _grid(n)
    kernel((blocks,), (threads,), (np.uint64(n), x, *arguments))


def _sum(name: str, x: Array, *arguments: Any) -> Scalar:
    """Launch a pass that ends in a sum; return it as a 0-d array."""
    xp = namespace(x)
    total = xp.empty((), dtype=xp.float64)
    partials = xp.empty(_grid(int(x.shape[0]))[0])
    ticket = xp.zeros(1, dtype=xp.uint32)
    _launch(name, x, *arguments, total, partials, ticket)
    return total


def _grid(n: int) -> tuple[int, int]:
    """Return the blocks and the threads of a block for a vector of n entries."""
    threads = 32
    while threads < min(n, THREADS):
        threads *= 2
    return min(max(-(-n // threads), 1), _MOST_BLOCKS), threads


class _OnDevice:
    """The scalars of one vector on a device: 0-d arrays there."""

    def __init__(self, xp: Any, like: Array) -> None:
        self._xp, self._like = xp, like
        self.maximum, self.where = xp.maximum, xp.where

    def sqrt(self, value: Array) -> Array:
        return self._xp.sqrt(self._xp.maximum(value, 0.0))

    def hypot(self, *values: Array) -> Array:
        return functools.reduce(self._xp.hypot, values)

    def lengths(self, square: Array, x: Array, among: Any = True) -> Array:
        return self._xp.sqrt(square)

    def full(self, value: float) -> Array:
        return asarray(value, self._like, self._xp.float64)

    def given(self, values: list[float]) -> Array:
        return self.full(values[0])

    def any(self, mask: Array, *, look: bool) -> bool:
        return look and bool(mask)

    def none(self, mask: Array) -> bool:
        return False

    def without(self, mask: Array, columns: list[int]) -> Array:
        return mask & (not columns)

    def values(self, scalar: Any) -> list[Any]:
        return [scalar.item()]

    def lines(self, steps: list[Any]) -> list[list[Line]]:
        if not steps:
            return []
        xp = self._xp
        rows = [[xp.asarray(v, dtype=xp.float64) for v in step] for step in steps]
        table = xp.stack([xp.stack(row) for row in rows])
        return [[tuple(row)] for row in table.get().tolist()]

    def take(self, scalar: Any, columns: list[int], width: int) -> Any:
        return scalar
