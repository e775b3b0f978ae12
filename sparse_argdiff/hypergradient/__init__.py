"""The gradient of an upper-level objective through the argmin, with a certificate."""

from .hypergradient import Hypergradient
from .result import Bound, Certificate, HypergradientResult, WarmStart

__all__ = ["Bound", "Certificate", "Hypergradient", "HypergradientResult", "WarmStart"]
