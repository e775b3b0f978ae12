"""Preconditioners M ≈ A⁻¹, one file each; each a function that returns an operator."""

from .constraint import ConstraintPreconditioner, constraint, constraint_of
from .jacobi import jacobi, jacobi_of

__all__ = [
    "ConstraintPreconditioner",
    "constraint",
    "constraint_of",
    "jacobi",
    "jacobi_of",
]
