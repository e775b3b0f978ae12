"""Which passes are used: by the arrays, their size, and what is installed."""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any

from ..arrays import Array, namespace
from .compiled import compiled
from .device import Device
from .kernel_set import REFERENCE, KernelSet

# From so many entries of a vector on a compiled pass gains more than its call costs.
WORTH_COMPILING = 20_000


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
