"""The derivative of an argmin as a linear operator: g'(x) = − selectᵀ K⁻¹ B."""

from .derivative import Adjoint, Tangent, derivative, jvp, vjp
from .many import jvp_many, vjp_many

__all__ = ["Adjoint", "Tangent", "derivative", "jvp", "jvp_many", "vjp", "vjp_many"]
