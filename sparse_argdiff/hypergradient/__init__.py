"""The gradient of an upper-level objective through the argmin, with a certificate."""

from .error_estimate import Certificate
from .hypergradient import Hypergradient
from .influence import influence
from .result import HypergradientResult, WarmStart
from .upper_objective import FunctionUpper, UpperObjective

__all__ = [
    "Certificate",
    "FunctionUpper",
    "Hypergradient",
    "HypergradientResult",
    "UpperObjective",
    "WarmStart",
    "influence",
]
