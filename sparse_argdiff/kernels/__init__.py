"""The passes over memory that the Krylov methods consist of, for NumPy, numba, a device."""

from .compiled import Compiled
from .device import Device
from .kernel_set import KernelSet, choose, product
from .reference import REFERENCE, Reference
from .scalars import Line, Scalar
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
    "product",
]
