"""What can be said of a solution from anyone: is it one, what acts, has it a derivative.

f_Y + C'ν = 0,  signs, slacks        stationarity, with the Newton step that is left
ν_i > 0 or slack_i > 0               activity: strict, weak or undecided
Z'H Z positive definite              an isolated minimum, and then a derivative
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from .arrays import Array, asarray, namespace, norm
from .implicit.checked_solve import LinearizedSolve
from .krylov.direct import LARGEST, reduced_factor
from .operators.linear_operator import aslinearoperator
from .problem.multipliers import complete
from .problem.problem import ActiveSet, Problem, Solution
from .problem.stationarity_check import check_conditions
from .status import ConvergenceError, Status

_STATIONARY = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class SolutionReport:
    """The outcome of :func:`report`; ``print`` it, or ask its attributes.

    Attributes
    ----------
    stationarity : Status
        CONVERGED where the optimality conditions hold to 1e-3, NOT_STATIONARY or NOT_FINITE.
    relative_error : float or None
        The Newton step that is left, with violations, relative to y: to first order its error.
    residual_norm : float
        ‖f_Y + C'ν‖₂ over the free variables.
    active : ActiveSet or None
    derivative : Status or None
        How the adjoint solve for v ended, or why there is no derivative; None where the point
        is not stationary.
    adjoint_residual : float or None
        ‖K λ − (v, 0)‖ / ‖v‖ of it, recomputed.
    gradient : array (m,) or None
        g'(x)ᵀ v.
    proven : tuple of str
        What was shown by a computation that cannot err but by rounding.
    caveats : tuple of str
        What was not shown, or is one-sided.
    """

    stationarity: Status
    relative_error: float | None
    residual_norm: float
    active: ActiveSet | None
    derivative: Status | None = None
    adjoint_residual: float | None = None
    gradient: Array | None = None
    proven: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        good = self.stationarity is Status.CONVERGED
        return good and self.derivative is not None and self.derivative.acceptable

    def __repr__(self) -> str:
        return f"SolutionReport({'ok' if self else 'not ok'}: {self.stationarity.name})"

    def __str__(self) -> str:
        error = (
            "unknown" if self.relative_error is None else f"{self.relative_error:.1e}"
        )
        lines = [
            f"stationarity: {self.stationarity.name}, the error of y is {error} of its size"
        ]
        if self.active is not None:
            lines.append(f"activity: {_activity(self.active)}")
        if self.derivative is not None:
            left = self.adjoint_residual
            attained = "" if left is None else f", relative residual {left:.1e}"
            lines.append(f"derivative: {self.derivative.name}{attained}")
        lines += [f"proven: {line}" for line in self.proven]
        lines += [f"caveat: {line}" for line in self.caveats]
        return "\n".join(lines)


def report(
    problem: Problem,
    solution: Solution,
    v: Any = None,
    *,
    rng: np.random.Generator | int | None = None,
) -> SolutionReport:
    """Report on a solution from any solver: stationarity, activity, derivative.

    Nothing is raised for what is found.

    Parameters
    ----------
    problem : Problem
    solution : Solution
        ``Solution(y=..., x=...)`` is enough; multipliers and active set are recovered.
    v : array (n,), optional
        The direction of the adjoint, such as ∇_y of a loss; random by default.
    rng : Generator, int or None
        Draws v.

    Returns
    -------
    SolutionReport
        True where y is stationary and has a derivative.
    """
    if not isinstance(problem, Problem):
        raise TypeError(f"problem must be a Problem, found {type(problem).__name__}")
    if not isinstance(solution, Solution):
        raise TypeError(f"solution must be a Solution, found {type(solution).__name__}")
    check = check_conditions(problem, solution, _STATIONARY, "stationarity")
    found = SolutionReport(
        check.status,
        check.solution.relative_error if check.status is Status.CONVERGED else None,
        check.residual_norm,
        check.solution.active,
        caveats=(check.detail,) if check.detail else (),
    )
    if check.status is not Status.CONVERGED:
        return found
    like = check.solution.y
    if v is None:
        rng = np.random.default_rng(0 if rng is None else rng)
        v = asarray(rng.standard_normal(like.shape[0]), like)
    return _with_derivative(problem, complete(problem, check.solution), v, found)


def _with_derivative(
    problem: Problem, solution: Solution, v: Any, found: SolutionReport
) -> SolutionReport:
    try:
        solve = LinearizedSolve(problem, solution.judged_for(problem))
        v = solve.vector("v", v, solve.system.n)
        result = solve.solve_adjoint(v)
        gradient = solve.pull_back(result.x, v)
    except ConvergenceError as error:
        return dataclasses.replace(
            found, derivative=error.status, caveats=(*found.caveats, str(error))
        )
    size = norm(v)
    left = norm(result.residual) / size if size else 0.0
    proven, caveats = [], [*found.caveats, *solve.warnings]
    vertex = solve.system.H.shape[0] == 0 or _is_vertex(solve)
    if problem.penalty is not None and found.active and found.active.degenerate:
        # The system leaves out the coefficients that may enter the support.
        caveats.append(
            "nothing is proven of the coefficients that may enter the support"
        )
    elif vertex:
        proven.append("a vertex: y does not move with what enters f alone")
    elif _is_definite(solve):
        proven.append(
            "the Hessian is positive definite on the null space of the active rows: an "
            "isolated local minimum, by a factorisation"
        )
    else:
        caveats.append(
            "no negative curvature was met along the directions of the solve"
        )
    return dataclasses.replace(
        found,
        derivative=result.status,
        adjoint_residual=left if math.isfinite(left) else None,
        gradient=gradient,
        proven=tuple(proven),
        caveats=tuple(dict.fromkeys(caveats)),
    )


def _is_definite(solve: LinearizedSolve) -> bool:
    """Tell whether H is definite on the null space of C, by a factor of a small one."""
    system = solve.system
    n, rows = system.H.shape[0], 0 if system.C is None else system.C.shape[0]
    xp = namespace(solve.like)
    if n + rows > LARGEST or xp is not np:
        return False
    H = system.H @ np.eye(n, dtype=solve.like.dtype)
    C = None if rows == 0 else aslinearoperator(system.C) @ np.eye(n, dtype=H.dtype)
    scale = np.abs(np.diag(H))
    scale = np.where(scale > 0.0, scale, scale.max(initial=0.0) or 1.0)
    return reduced_factor(H, C, scale).status is None


def _is_vertex(solve: LinearizedSolve) -> bool:
    """Tell whether the rows that act leave no direction, where their rank is known."""
    rank = getattr(solve.null_space, "rank", None)
    return rank is not None and rank == solve.system.H.shape[0]


def _activity(active: ActiveSet) -> str:
    parts = []
    for name, acting, weak in (
        ("rows", active.strong, active.weak),
        ("bounds", active.fixed, active.weak_fixed),
    ):
        xp = namespace(acting)
        if not acting.shape[0]:
            continue
        (undecided,) = xp.nonzero(weak)
        strict = int(xp.count_nonzero(acting & ~weak))
        few = ", ".join(str(int(i)) for i in undecided[:8])
        text = f"{strict} of {acting.shape[0]} {name} hold"
        if undecided.shape[0]:
            text += f", {undecided.shape[0]} weak or undecided ({few})"
        parts.append(text)
    return "; ".join(parts) or "none"
