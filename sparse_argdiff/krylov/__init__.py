"""Krylov methods for symmetric systems, one file each, one stopping rule for all."""

from .cg import cg
from .diagonal import diagonal
from .kernels import Device
from .minres import minres
from .projected_cg import projected_cg
from .result import Iterate, KrylovResult
from .workspace import Workspace

__all__ = [
    "Device",
    "Iterate",
    "KrylovResult",
    "Workspace",
    "cg",
    "diagonal",
    "minres",
    "projected_cg",
]
