"""Preconditioners M ≈ A⁻¹, one file each; each a function that returns an operator."""

from .jacobi import jacobi, jacobi_of
from .nystrom import nystrom

__all__ = ["jacobi", "jacobi_of", "nystrom"]
