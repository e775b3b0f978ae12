"""The passes over memory that the Krylov methods consist of, for NumPy, numba, a device."""

from .compiled import Compiled
from .device import Device
from .kernel_set import KernelSet, choose, multiply, product
from .reference import REFERENCE, Line, Reference, Scalar
from .workspace import Workspace

__all__ = [
    "REFERENCE",
    "Compiled",
    "Device",
    "KernelSet",
    "Line",
    "Reference",
    "Scalar",
    "Workspace",
    "choose",
    "multiply",
    "product",
]
