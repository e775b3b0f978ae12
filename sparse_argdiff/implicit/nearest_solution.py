"""The exact solution of a quadratic program next to a point that another solver found.

    (y, ν, z) near a solution  →  active set A  →  K_A (dy, dν, dz) = − residual  →  signs

A solver that stops at its tolerance leaves slacks and forces of that size: which of them are
zero is seen at the solution of the equations of an active set alone, whose signs are right.
A point far from it is refused, unless it solves the program itself to half the digits: along
a flat direction y may be far where the conditions hold.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from ..arrays import asarray, epsilon
from ..krylov.convex_program import PrimalDual, errors
from ..krylov.convex_quadratic import ConvexQuadraticPath, follow
from ..krylov.polish import PolishedPoint, guess_of, polish
from ..problem.explicit_program import ExplicitProgram, explicit_program
from ..problem.metric import metric_of
from ..problem.problem import Problem, Solution
from ..problem.quadratic import QuadraticObjective
from ..status import Status

_FEW = 8  # sets that are tried from the point itself
_ERRORS = 1e-6, 1e-9  # of the path, at which a set is tried


class Nearest(NamedTuple):
    """A solution, and how far the point that was brought is from it, relative to its size."""

    solution: Solution
    distance: float


def nearest_solution(
    problem: Problem, solution: Solution, tolerance: float
) -> Nearest | None:
    """Return the solution next to a point from elsewhere, None without one that is near.

    Parameters
    ----------
    problem : Problem
        None is returned for other than convex quadratic programs with entries.
    solution : Solution
        With multipliers, which need not be exact.
    tolerance : float
        The largest distance, relative to the size of y in the metric of the Hessian.
    """
    if not isinstance(problem.objective, QuadraticObjective):
        return None
    explicit = explicit_program(problem, solution.x, solution.y)
    if explicit is None or not explicit.convex or not explicit.known:
        return None
    path = ConvexQuadraticPath(explicit.program)
    point = _point_of(explicit, solution)
    error = errors(path.program, path.scaling.scaled(point)).worst
    found = polish(path, point, guess_of(path, point), _FEW)
    if not isinstance(found, PolishedPoint):
        found = _from_within(path) if error <= tolerance else None
    if found is None:
        return None
    y = asarray(found.point.y, solution.y)
    grad = problem.grad(solution.x, y)
    metric, _ = metric_of(problem.hess(solution.x, y), y, grad)
    length, moved = metric.length(y), metric.length(y - solution.y)
    distance = moved / length if length else (math.inf if moved else 0.0)
    if not (distance <= tolerance or error <= math.sqrt(epsilon(y))):
        return None
    exact = dataclasses.replace(
        solution,
        y=y,
        multipliers=asarray(
            explicit.multipliers(found.point.nu, found.point.z), solution.y
        ),
        bound_multipliers=asarray(found.point.s, y) if problem.bounded else None,
        active=explicit.active_set(found) if problem.one_sided else None,
        relative_error=found.worst,
        residual=None,
        status=Status.CONVERGED,
    )
    return Nearest(exact, distance)


def _from_within(path: ConvexQuadraticPath) -> PolishedPoint | None:
    """Return the solution to which the path of the interior-point method leads."""
    for error in _ERRORS:
        ended = follow(path.given, error, path=path)
        found = polish(path, ended.point, guess_of(path, ended.point))
        if isinstance(found, PolishedPoint):
            return found
        if not ended.solved:
            break
    return None


def _point_of(explicit: ExplicitProgram, solution: Solution) -> PrimalDual:
    """Return the point with its multipliers, and at bounds the force that is left."""
    f, multipliers = explicit.program, solution.multipliers
    every = np.zeros(explicit.p + explicit.k)
    if multipliers is not None and multipliers.size:
        every = np.asarray(multipliers, dtype=float)
    nu, z = every[explicit.equal], every[explicit.p + explicit.rows]
    y = np.clip(np.asarray(solution.y, dtype=float), f.lower, f.upper)
    point = PrimalDual(y, nu, np.maximum(z, 0.0), np.zeros(f.n))
    force = f.lagrangian_grad(point)
    # Only a bound can carry a force, upwards a lower and downwards an upper one.
    most = np.where(np.isfinite(f.lower), np.inf, 0.0)
    least = np.where(np.isfinite(f.upper), -np.inf, 0.0)
    return point._replace(s=np.clip(force, least, most))
