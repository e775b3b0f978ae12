"""Preconditioners M ≈ A⁻¹, one file each; each a function that returns an operator."""

from .amg.amg import amg
from .auto import Auto, Choice, RecentSolutions
from .block_jacobi import block_jacobi
from .cholesky import cholesky
from .constraint import ConstraintPreconditioner, constraint, constraint_of
from .deflation import deflation, galerkin_start
from .jacobi import jacobi, jacobi_of
from .lbfgs import lbfgs
from .nystrom import nystrom

__all__ = [
    "Auto",
    "Choice",
    "ConstraintPreconditioner",
    "RecentSolutions",
    "amg",
    "block_jacobi",
    "cholesky",
    "constraint",
    "constraint_of",
    "deflation",
    "galerkin_start",
    "jacobi",
    "jacobi_of",
    "lbfgs",
    "nystrom",
]
