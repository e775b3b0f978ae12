"""MAID, an adaptively inexact first-order method (Salehi, Mukherjee, Roberts, Ehrhardt 2025).

    x₊ = P(x − β ρ^i z),    accepted when  u(x₊) − l(x) ≤ η z'(x₊ − x)

    u = f^U + ‖∂f^U/∂y‖ e + ½ L e²,    l = f^U − ‖∂f^U/∂y‖ e,    e ≥ ‖y − g(x)‖

Both tolerances, of y and of the adjoint, fall by τ until the error of z is below (1 − η) ‖z‖,
so that −z is a direction of descent, and where no trial is accepted; they grow by ν, and β to
10/9 of the accepted step, after each step.  A published baseline.  Its constants, of which its
code estimates most, are estimated here by other means: e by the Newton step that is left, the
error of z by those of y and of the adjoint, L by the change of ∂f^U/∂y along the step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..arrays import Array, dot, norm
from ..hypergradient import upper_objective as level
from ..hypergradient.hypergradient import Hypergradient
from ..hypergradient.result import HypergradientResult
from ..problem.problem import Solution
from ..status import ConvergenceError, Status
from .result import BilevelResult
from .run import Run

_FIRST = 0.1  # ε and δ
_DESCENT = 1e-4  # η
_SHORTER, _LONGER = 0.9, 10.0 / 9.0  # ρ and its inverse
_TIGHTER, _LOOSER = 0.5, 1.05  # τ and ν
_TRIALS = 10  # of a search, and one more after each that failed
_LAST = 200  # of a search at the finest tolerances, which nothing can follow


def maid(run: Run, x0: Array) -> BilevelResult:
    """Run the method from x0.

    References
    ----------
    M. S. Salehi, S. Mukherjee, L. Roberts, M. J. Ehrhardt, "An adaptively inexact
    first-order method for bilevel optimization with application to hyperparameter
    learning", SIAM J. Math. Data Sci. 7 (2025), arXiv:2308.10098.
    """
    found, memory = run.begin(
        x0, lambda x: descending(run, x, _FIRST), last_is_best=True
    )
    size = norm(run.free_gradient(found.solution.x, found.gradient))
    step = math.sqrt(x0.shape[0]) / size if size > 0.0 else 1.0  # that of HOAG
    step, failed = memory.get("step", step), memory.get("failed", 0)
    while run.ended is None:
        trial, taken, reason = line_search(run, found, step, _TRIALS + failed)
        if trial is not None:
            found, step, failed = trial, _LONGER * taken, 0
            run.accept(found, {"step": step, "failed": failed})
        elif is_finest(run.F, found):
            return run.result(Status.LINE_SEARCH_FAILED, reason)
        else:
            failed += 1
            found = descending(run, found.solution.x, _TIGHTER * found.tol)
            run.replace(found, {"step": step, "failed": failed})
    return run.result(run.ended)


def descending(run: Run, x: Array, tol: float) -> HypergradientResult:
    """Evaluate F at x with tolerances so small that −z is a direction of descent."""
    F = run.F
    while True:
        of_y, of_adjoint = max(tol, F.tol), max(tol, F.adjoint_tol)
        found = F.evaluate(x, tol=of_y, adjoint_tol=of_adjoint, certify=False)
        found = run.confirmed(found)
        least = (1.0 - _DESCENT) * norm(found.gradient)
        if is_finest(F, found) or gradient_error(found) <= least:
            return found
        tol *= _TIGHTER


def is_finest(F: Hypergradient, found: HypergradientResult) -> bool:
    """Tell whether neither tolerance can be smaller."""
    return found.tol <= F.tol and found.adjoint_tol <= F.adjoint_tol


def gradient_error(found: HypergradientResult) -> float:
    """Estimate the error of z from those of y and of the adjoint, which it multiplies."""
    y_error, known = found.solution.relative_error, found.adjoint_error
    relative = found.tol if y_error is None else y_error
    relative += found.adjoint_tol if math.isnan(known) else known
    return relative * norm(found.adjoint.x)


def line_search(
    run: Run, found: HypergradientResult, step: float, most: int
) -> tuple[HypergradientResult | None, float, str]:
    """Backtrack along P(x − t z); return the trial, its t and why none was accepted."""
    F, x, reason = run.F, found.solution.x, ""
    finest = is_finest(F, found)
    here = _value(F, found.solution)
    slope_y = level.gradient_y(F.upper, found.solution)
    lowest = here - (
        0.0 if finest else norm(slope_y) * distance(found.solution, found.tol)
    )
    tol = max(found.tol if finest else _LOOSER * found.tol, F.tol)
    for t in lengths(step, _LAST if finest else most):
        point = run.project(x - t * found.gradient)
        limit = lowest + _DESCENT * dot(found.gradient, point - x)
        try:
            there = F.solve(point, tol=min(tol, _FIRST))
            highest = _value(F, there)
            if not finest:
                highest += rise(F, found.solution, there, tol)
            if highest <= limit:
                trial = descending(run, point, min(tol, _FIRST))
                if trial.value <= 2.0 * here - lowest:  # also where that is sharper
                    return trial, t, ""
        except ConvergenceError as error:
            reason = str(error)
    return None, 0.0, reason


def lengths(step: float, most: int) -> Iterator[float]:
    """Yield β, β ρ, β ρ², ..."""
    for k in range(most):
        yield step * _SHORTER**k


def distance(solution: Solution, tol: float) -> float:
    """Estimate ‖y − g(x)‖ by the Newton step that is left, else by the tolerance."""
    left = solution.relative_error
    return (tol if left is None else left) * norm(solution.y)


def rise(F: Hypergradient, last: Solution, there: Solution, tol: float) -> float:
    """Estimate by how much f^U at g(x) may exceed that at y."""
    e, slope = distance(there, tol), level.gradient_y(F.upper, there)
    change, moved = (
        norm(slope - level.gradient_y(F.upper, last)),
        norm(there.y - last.y),
    )
    lipschitz = change / moved if moved > 0.0 else 0.0
    return norm(slope) * e + 0.5 * lipschitz * e**2


def _value(F: Hypergradient, solution: Solution) -> float:
    return level.corrected_value(F.upper, solution, None)[0]
