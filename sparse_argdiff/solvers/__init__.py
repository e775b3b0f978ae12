"""Solvers of the lower level, g(x) = argmin_y f(x, y), one file a method."""

from .solve import LowerSolver, solve

__all__ = ["LowerSolver", "solve"]
