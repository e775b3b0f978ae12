"""The passes over vectors and blocks that CG and MINRES consist of.

    cg_residual     r −= α q,            ‖r‖², r'D r                3 n, 4 n with D
    cg_advance      x += α p,            p = z + β p                5 n, 6 n with D, z = D r
    lanczos         r₋ = c₋ r₋ + c r + c_y y,   ‖r₋‖²               4 n
    minres_advance  w₋ = e w₋ + d w + g v,      x += φ w₋           6 n

The methods (``cg.py``, ``minres.py``) are written over these alone; the counts are vectors
read and written by fused kernels.  A vector (n,) has scalars of shape (), k columns (n, k)
have scalars of shape (k,), which live where the vectors do.

Here they are those of the array namespace: NumPy, CuPy, any array-API array.  In place; on
NumPy vectors nothing is allocated and y += a x is one pass (BLAS).  ``compiled.py`` and
``device.py`` replace them.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Protocol

import numpy as np

from ..arrays import Array, HostArray, asarray, axpy, dot, namespace, norm, zeros
from ..operators.linear_operator import LinearOperator

Scalar = Any  # a float, or an array of shape (k,) where the vectors live
Line = tuple[float, ...]  # the scalars of one step of one column

WIDEST = 32  # columns of a block
# Steps of a vector on the host before its listeners hear of them; the end of a solve is
# seen at once.
HOST_CHECK_EVERY = 64
_UNDERFLOW = 1e-30  # a square below has lost digits


def _row(a: Any, like: Array) -> Array:
    """Return the scalars of the columns where ``like`` lives."""
    if isinstance(like, np.ndarray):
        return a.astype(like.dtype)
    return asarray(a.tolist(), like)


def _combine(x: Array, y: Array, z: Array, a: Scalar, b: Scalar, c: Scalar) -> None:
    """Replace x by a x + b y + c z."""
    if x.ndim == 1:
        x *= a
        axpy(b, y, x)
        axpy(c, z, x)
    else:
        x *= _row(a, x)
        x += y * _row(b, x)
        x += z * _row(c, x)


def _add(a: Scalar, x: Array, y: Array) -> None:
    if x.ndim == 1:
        axpy(a, x, y)
    else:
        y += x * _row(a, x)


class Scalars(Protocol):
    """Functions of the scalars of a method: α = where(active, ρ / p'Ap, 0).

    On a device the scalars stay there, and the host sees them when it looks.
    """

    def sqrt(self, value: Scalar) -> Scalar:
        """Return the root, 0 of what is not positive."""

    def hypot(self, *values: Scalar) -> Scalar:
        """Return the root of the sum of squares."""

    def maximum(self, a: Scalar, b: Scalar) -> Scalar:
        """Return the larger one."""

    def where(self, condition: Scalar, a: Scalar, b: Scalar) -> Scalar:
        """Return a or b."""

    def lengths(self, square: Scalar, x: Array, among: Scalar = True) -> Scalar:
        """Return ‖x‖ from its square, anew where that has left the floating range.

        ``among``: the columns that may be computed anew; others count no more.
        """

    def full(self, value: float) -> Scalar:
        """Return the same value for each column."""

    def given(self, values: list[float]) -> Scalar:
        """Return the numbers of the host, 1 for columns that only fill up."""

    def any(self, mask: Scalar, *, look: bool) -> bool:
        """Tell whether the host sees a true entry; on a device only if it is to look."""

    def none(self, mask: Scalar) -> bool:
        """Tell whether the host sees that no entry is true."""

    def without(self, mask: Scalar, columns: list[int]) -> Scalar:
        """Return the mask, false in these columns."""

    def values(self, scalar: Scalar) -> list[Any]:
        """Return one scalar on the host, of each column."""

    def lines(self, steps: list[Any]) -> list[list[Line]]:
        """Return the scalars of all steps on the host: of each step, of each column."""

    def take(self, scalar: Scalar, columns: list[int], width: int) -> Scalar:
        """Return the scalar of these columns of a block; width 0: a float."""


class _Floats:
    """The scalars of one vector on the host; see :class:`Scalars`."""

    hypot, maximum = staticmethod(math.hypot), staticmethod(max)

    def sqrt(self, value: float) -> float:
        return math.sqrt(value) if value > 0.0 else 0.0

    def lengths(self, square: float, x: Array, among: bool = True) -> float:
        return math.sqrt(square) if square > _UNDERFLOW else norm(x)

    def where(self, condition: bool, a: float, b: float) -> float:
        return a if condition else b

    def full(self, value: float) -> float:
        return value

    def given(self, values: list[float]) -> float:
        return values[0]

    def any(self, mask: bool, *, look: bool) -> bool:
        return mask

    def none(self, mask: bool) -> bool:
        return not mask

    def without(self, mask: bool, columns: list[int]) -> bool:
        return mask and not columns

    def values(self, scalar: Any) -> list[Any]:
        return [scalar]

    def lines(self, steps: list[Line]) -> list[list[Line]]:
        return [[step] for step in steps]

    def take(self, scalar: Any, columns: list[int], width: int) -> Any:
        return scalar


class _Rows:
    """The scalars of k columns on the host."""

    maximum, where = staticmethod(np.maximum), staticmethod(np.where)

    def __init__(self, width: int) -> None:
        self.width = width

    def sqrt(self, value: HostArray) -> HostArray:
        return np.sqrt(np.where(value > 0.0, value, 0.0))

    def hypot(self, *values: HostArray) -> HostArray:
        return functools.reduce(np.hypot, values)

    def lengths(
        self, square: HostArray, x: HostArray, among: HostArray | bool = True
    ) -> HostArray:
        found = self.sqrt(square)
        for c in np.nonzero((square <= _UNDERFLOW) & among)[0]:
            found[c] = norm(x[:, int(c)])
        return found

    def full(self, value: float) -> HostArray:
        return np.full(self.width, value)

    def given(self, values: list[float]) -> HostArray:
        found = np.ones(self.width)
        found[: len(values)] = values
        return found

    def any(self, mask: HostArray, *, look: bool) -> bool:
        return bool(mask.any())

    def none(self, mask: HostArray) -> bool:
        return not mask.any()

    def without(self, mask: HostArray, columns: list[int]) -> HostArray:
        mask = mask.copy()
        mask[columns] = False
        return mask

    def values(self, scalar: HostArray) -> list[Any]:
        found: list[Any] = scalar.tolist()
        return found

    def lines(self, steps: list[Any]) -> list[list[Line]]:
        return [
            list(zip(*(scalar.tolist() for scalar in step), strict=True))
            for step in steps
        ]

    def take(self, scalar: HostArray, columns: list[int], width: int) -> Any:
        if width == 0:
            return scalar[columns[0]].item()
        rest = np.zeros(width - len(columns), scalar.dtype)
        return np.concatenate([scalar[columns], rest])


_FLOATS = _Floats()


class KernelSet:
    """One set of passes, the reference; the arrays are of one dtype and do not overlap."""

    name = "reference"
    on_device = False
    check_every = HOST_CHECK_EVERY  # steps between two looks of the host at the scalars

    def scalars(self, x: Array) -> Any:
        """Return the functions of the scalars of x, (n,) or (n, k): :class:`Scalars`."""
        return _FLOATS if x.ndim == 1 else _Rows(x.shape[1])

    def block_width(self, columns: int, A: LinearOperator, like: Array) -> int:
        """Return the width of a block that holds so many columns; 1 for none."""
        return min(columns, WIDEST)

    def zeros(self, shape: tuple[int, int], like: Array, A: LinearOperator) -> Array:
        """Return a block of zeros, its columns contiguous where A takes such blocks.

        NumPy's passes are then as long as the columns.
        """
        if isinstance(like, np.ndarray) and not A.into_blocks:
            return np.zeros(shape[::-1], like.dtype).T
        return zeros(shape, like)

    def operator(self, A: LinearOperator) -> LinearOperator:
        """Return A, or the same A with a fused product: here as it is."""
        return A

    def multiply(
        self, A: LinearOperator, x: Array, out: Array
    ) -> tuple[Array, Scalar | None]:
        """Return y = A x, in ``out`` or where A puts it, and x'y where it comes with it."""
        if x.ndim == 2 or A.into is not None:
            return out, A.apply(x, out)
        return self.accept(A.matvec(x), out), None

    def product(self, A: LinearOperator, x: Array, out: Array) -> tuple[Array, Scalar]:
        """Return y = A x, in ``out`` or where A puts it, and x'y, of each column."""
        y, curvature = self.multiply(A, x, out)
        return y, self.dot(x, y) if curvature is None else curvature

    def accept(self, y: Array, out: Array) -> Array:
        """Return the product y, or ``out`` with y in it where the passes need that.

        Here as it is: it is only read, and before the next product.
        """
        return y

    def fused(self, M: LinearOperator | None, like: Array) -> Array | None:
        """Return the diagonal of an M that the passes of CG take on: here of none."""
        return None

    def dot(self, x: Array, y: Array) -> Scalar:
        """Return x'y, of each column."""
        if x.ndim == 1:
            return dot(x, y)
        if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
            return np.einsum("ij,ij->j", x, y, dtype=np.float64)
        xp = namespace(x)
        sums = xp.sum(x * y, axis=0, dtype=xp.float64)
        return np.asarray([float(sums[c]) for c in range(x.shape[1])])

    def subtract(self, b: Any, y: Any, out: Array) -> None:
        """Write b − y into ``out``, which may be y."""
        if isinstance(out, np.ndarray):
            np.subtract(b, y, out=out, casting="same_kind")
        else:
            out[...] = b - y

    def cg_residual(
        self, r: Array, q: Array, alpha: Scalar, d: Any = None
    ) -> tuple[Scalar, Scalar]:
        """Step the residual, r −= α q; return r'r and, with d, r'(d ∘ r)."""
        _add(-alpha, q, r)
        square = self.dot(r, r)
        return square, square

    def cg_advance(
        self, x: Array, p: Array, z: Array, alpha: Scalar, beta: Scalar, d: Any = None
    ) -> None:
        """Step along p, x += α p, then turn it: p = z + β p, or d ∘ z + β p.

        Columns whose α is zero keep their p.
        """
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
        _combine(older, newer, y, a, b, c)
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
        _combine(w_old, w, v, *coefficients)
        if x.ndim == 1:
            axpy(step, w_old, x)
        else:  # a column that has ended need not be finite
            row = _row(step, x)
            x += namespace(x).where(row != 0.0, row * w_old, row)


REFERENCE = KernelSet()
