"""Krylov methods for symmetric systems, one file each, one stopping rule for all."""

from ..kernels import Device, Workspace
from .cg import cg
from .diagonal_solve import diagonal
from .minres import minres
from .projected_cg import projected_cg
from .result import Iterate, KrylovResult

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
