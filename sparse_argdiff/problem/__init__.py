"""What is minimised, subject to what, and when a point solves it."""

from .constants import Constants
from .constraints import Equality, Inequality, LinearEquality
from .group_penalty import GroupL1
from .log_barrier import LogBarrier
from .objective import FunctionObjective, Objective
from .penalties import L1, ElasticNet, Penalty
from .problem import ActiveSet, Problem, Solution
from .quadratic import QuadraticProgram

__all__ = [
    "L1",
    "ActiveSet",
    "Constants",
    "ElasticNet",
    "Equality",
    "FunctionObjective",
    "GroupL1",
    "Inequality",
    "LinearEquality",
    "LogBarrier",
    "Objective",
    "Penalty",
    "Problem",
    "QuadraticProgram",
    "Solution",
]
