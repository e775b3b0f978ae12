"""The passes over memory that the Krylov methods consist of, for NumPy, numba, a device."""

from .compiled import Compiled
from .device import Device
from .kernel_set import REFERENCE, KernelSet, Line, Scalar
from .selection import choose
from .workspace import Workspace

__all__ = [
    "REFERENCE",
    "Compiled",
    "Device",
    "KernelSet",
    "Line",
    "Scalar",
    "Workspace",
    "choose",
]
