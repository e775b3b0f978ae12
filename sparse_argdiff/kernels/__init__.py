"""The passes over memory that CG and MINRES consist of, in more than one make.

    cg_residual     r −= α q,            ‖r‖², r'D r                3 n, 4 n with D
    cg_advance      x += α p,            p = z + β p                5 n, 6 n with D, z = D r
    lanczos         r₋ = c₋ r₋ + c r + c_y y,   ‖r₋‖²               4 n
    minres_advance  w₋ = e w₋ + d w + g v,      x += φ w₋           6 n

The algorithms (``cg.py``, ``minres.py``) are written over these alone, with the scalars in
a record: a make may keep the record where its vectors live.  The counts are vectors read
and written by a fused make.  ``blocks.py`` has those of CG for vectors side by side.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any, Protocol

from ..arrays import Array, namespace
from ..operators.linear_operator import LinearOperator
from .compiled import Compiled, compiled
from .device import Device
from .reference import REFERENCE, Reference
from .scalars import Scalars

__all__ = ["Compiled", "Device", "Kernels", "Make", "Reference", "Scalars", "choose"]

# From here on a compiled pass gains more than its call costs.
WORTH_COMPILING = 20_000


class Kernels(Protocol):
    """One make of the primitives; vectors are 1-D, of one dtype, and do not overlap."""

    name: str

    def operator(self, A: LinearOperator) -> LinearOperator:
        """Return A, or the same A with a product of this make."""

    def accept(self, y: Array, out: Array) -> Array:
        """Return the product y, or ``out`` with y in it where the passes need that."""

    def dot(self, x: Array, y: Array) -> float:
        """Return x'y."""

    def subtract(self, b: Array, y: Array, out: Array) -> None:
        """Write b − y into ``out``, which may be y."""

    def fused(self, M: LinearOperator | None, like: Array) -> Array | None:
        """Return the diagonal of an M that the passes of CG take on, else None."""

    def cg_residual(
        self, r: Array, q: Array, s: Scalars, d: Array | None = None
    ) -> None:
        """Take α q from r; leave r'r in ``s.square``, and r'(d ∘ r) in ``s.rho``."""

    def cg_advance(
        self, x: Array, p: Array, z: Array, s: Scalars, d: Array | None = None
    ) -> None:
        """Add α p to x, then make p the next direction z + β p, or d ∘ z + β p."""

    def lanczos(self, older: Array, newer: Array, y: Array, s: Scalars) -> None:
        """Replace ``older`` by the combination; leave its square in ``s.square``."""

    def minres_advance(
        self, x: Array, w_old: Array, w: Array, v: Array, s: Scalars
    ) -> None:
        """Replace ``w_old`` by the next direction and add φ times it to x."""


# The device has loops of its own (``device_loops.py``), and shares only the first four.
Make = Kernels | Device


def choose(kernels: str | Device | None, like: Array) -> Make:
    """Return the make that was asked for, or the best one there is for ``like``.

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
    make = kernels if isinstance(kernels, Device) else Device()
    if kernels is make:
        kernels = "device"
    if kernels not in known:
        raise ValueError(f"kernels must be one of {known}, found {kernels!r}")
    home = namespace(like).__name__
    if kernels == "device" or (kernels is None and home == "cupy"):
        if home != "cupy":
            raise TypeError(f"kernels='device' needs CuPy arrays, found {home}")
        return make
    on_host = home == "numpy"
    if kernels is None:
        # Columns share the compilation, and gain more: they march in step.
        large = max(like.shape[0], like.size // 8) >= WORTH_COMPILING
        kernels = "compiled" if on_host and large and _has_numba() else "reference"
    if kernels == "reference":
        return REFERENCE
    if not on_host:
        raise TypeError(
            f"kernels={kernels!r} needs NumPy arrays, found {namespace(like).__name__}"
        )
    if not _has_numba():
        raise ImportError(
            f"kernels={kernels!r} needs numba: pip install 'sparse_argdiff[fast]'"
        )
    return compiled(threaded=kernels == "threaded")


@cache
def _has_numba() -> Any:
    return importlib.util.find_spec("numba") is not None
