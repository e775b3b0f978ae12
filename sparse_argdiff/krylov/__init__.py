"""Krylov methods for symmetric systems, one file each, one stopping rule for all."""

from .cg import cg
from .diagonal import diagonal
from .minres import minres
from .projected_cg import projected_cg
from .result import Iterate, KrylovResult

__all__ = ["Iterate", "KrylovResult", "cg", "diagonal", "minres", "projected_cg"]
