"""The derivative of an argmin as a linear operator: g'(x) = − selectᵀ K⁻¹ B."""

from .derivative import Adjoint, Tangent, derivative, jvp, vjp

__all__ = ["Adjoint", "Tangent", "derivative", "jvp", "vjp"]
