"""The passes over vectors and blocks that CG and MINRES consist of.

    cg_residual     r −= α q,            ‖r‖², r'D r                3 n, 4 n with D
    cg_advance      x += α p,            p = z + β p                5 n, 6 n with D, z = D r
    lanczos         r₋ = c₋ r₋ + c r + c_y y,   ‖r₋‖²               4 n
    minres_advance  w₋ = e w₋ + d w + g v,      x += φ w₋           6 n

The methods (``cg.py``, ``minres.py``) are written over these alone; the counts are vectors
read and written by fused kernels.  A vector (n,) has scalars of shape (), k columns (n, k)
have scalars of shape (k,), which live where the vectors do.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any, Protocol

from ..arrays import Array, namespace
from ..operators.linear_operator import LinearOperator
from .compiled import compiled
from .device import Device
from .reference import REFERENCE, Line, Scalar

# From so many entries of a vector on a compiled pass gains more than its call costs.
WORTH_COMPILING = 20_000


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


class KernelSet(Protocol):
    """One set of passes; the arrays are of one dtype and do not overlap."""

    name: str
    on_device: bool
    check_every: int  # steps between two looks of the host at the scalars

    def scalars(self, x: Array) -> Scalars:
        """Return the functions of the scalars that go with x, (n,) or (n, k)."""

    def block_width(self, columns: int, A: LinearOperator, like: Array) -> int:
        """Return the width of a block that holds so many columns; 1 for none."""

    def zeros(self, shape: tuple[int, int], like: Array, A: LinearOperator) -> Array:
        """Return a block of zeros, stored as the passes and A like it."""

    def operator(self, A: LinearOperator) -> LinearOperator:
        """Return A, or the same A with a fused product."""

    def accept(self, y: Array, out: Array) -> Array:
        """Return the product y, or ``out`` with y in it where the passes need that."""

    def fused(self, M: LinearOperator | None, like: Array) -> Array | None:
        """Return the diagonal of an M that the passes of CG take on, else None."""

    def dot(self, x: Array, y: Array) -> Scalar:
        """Return x'y."""

    def subtract(self, b: Array, y: Array, out: Array) -> None:
        """Write b − y into ``out``, which may be y."""

    def cg_residual(
        self, r: Array, q: Array, alpha: Scalar, d: Any = None
    ) -> tuple[Scalar, Scalar]:
        """Take α q from r; return r'r and, with d, r'(d ∘ r)."""

    def cg_advance(
        self, x: Array, p: Array, z: Array, alpha: Scalar, beta: Scalar, d: Any = None
    ) -> None:
        """Add α p to x, then make p the next direction z + β p, or d ∘ z + β p.

        Columns whose α is zero keep their p.
        """

    def lanczos(
        self, older: Array, newer: Array, y: Array, a: Scalar, b: Scalar, c: Scalar
    ) -> Scalar:
        """Replace ``older`` by a older + b newer + c y; return its square."""

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


def multiply(
    kernels: KernelSet, A: LinearOperator, x: Array, out: Array
) -> tuple[Array, Scalar | None]:
    """Return y = A x, in ``out`` or where A puts it, and x'y where it comes with it."""
    if x.ndim == 2 or A.into is not None:
        return out, A.apply(x, out)
    return kernels.accept(A.matvec(x), out), None


def product(
    kernels: KernelSet, A: LinearOperator, x: Array, out: Array
) -> tuple[Array, Scalar]:
    """Return y = A x, in ``out`` or where A puts it, and x'y, of each column."""
    y, curvature = multiply(kernels, A, x, out)
    return y, kernels.dot(x, y) if curvature is None else curvature


def choose(kernels: str | Device | None, like: Array) -> KernelSet:
    """Return the kernels that were asked for, or the best ones there are for ``like``.

    Raises
    ------
    ValueError
        For an unknown name.
    TypeError
        When compiled kernels are asked for and the arrays are not NumPy's.
    ImportError
        When compiled kernels are asked for and numba is not installed.
    """
    known = (None, "reference", "compiled", "threaded", "device")
    device = None
    if isinstance(kernels, Device):
        device, kernels = kernels, "device"
    if kernels not in known:
        raise ValueError(f"kernels must be one of {known}, found {kernels!r}")
    home = namespace(like).__name__
    if kernels == "device" or (kernels is None and home == "cupy"):
        if home != "cupy":
            raise TypeError(f"kernels='device' needs CuPy arrays, found {home}")
        return Device() if device is None else device
    on_host = home == "numpy"
    if kernels is None:
        # Columns share the compilation, and gain more.
        large = max(like.shape[0], like.size // 8) >= WORTH_COMPILING
        kernels = "compiled" if on_host and large and _has_numba() else "reference"
    if kernels == "reference":
        return REFERENCE
    if not on_host:
        raise TypeError(f"kernels={kernels!r} needs NumPy arrays, found {home}")
    if not _has_numba():
        raise ImportError(
            f"kernels={kernels!r} needs numba: pip install 'sparse_argdiff[fast]'"
        )
    return compiled(threaded=kernels == "threaded")


@cache
def _has_numba() -> Any:
    return importlib.util.find_spec("numba") is not None
