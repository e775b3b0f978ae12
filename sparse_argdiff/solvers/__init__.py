"""Solvers of the lower level, g(x) = argmin_y f(x, y), one file a method."""

from .batch import solve_many
from .solve import LowerSolver, solve

__all__ = ["LowerSolver", "solve", "solve_many"]
