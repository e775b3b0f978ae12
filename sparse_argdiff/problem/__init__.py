"""What is minimised, subject to what, and when a point solves it."""

from .constants import Constants
from .constraints import Equality, Inequality, LinearEquality
from .log_barrier import LogBarrier
from .objective import FunctionObjective, Objective
from .problem import ActiveSet, Problem, Solution
from .quadratic import QuadraticProgram

__all__ = [
    "ActiveSet",
    "Constants",
    "Equality",
    "FunctionObjective",
    "Inequality",
    "LinearEquality",
    "LogBarrier",
    "Objective",
    "Problem",
    "QuadraticProgram",
    "Solution",
]
