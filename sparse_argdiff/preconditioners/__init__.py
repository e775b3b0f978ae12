"""Approximations of an inverse, one file each: a builder returns M ≈ A⁻¹."""

from .jacobi import jacobi

__all__ = ["jacobi"]
