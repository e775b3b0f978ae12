"""Quadratic programs: an interior-point method or an engine, then the exact active set.

    (y, ν, z) near a solution  →  active set A  →  K_A (dy, dν, dz) = − residual  →  signs

Proposals come from an engine (``engines.py``) or, ``"active_set"``, from the package's own
``krylov.convex_quadratic``.  What any of them returns is a proposal: the answer is
the solution of the equations of an active set, and CONVERGED is said of the conditions of the
problem itself, evaluated there.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import HostArray, asarray, epsilon, norm
from ..krylov.convex_program import PrimalDual, errors
from ..krylov.convex_quadratic import (
    MAXITER,
    ConvexQuadraticPath,
    Ended,
    contradiction,
    follow,
)
from ..krylov.direct import KKTFactor
from ..krylov.polish import (
    PolishedPoint,
    RecessionDirection,
    factor_of,
    guess_at,
    guess_of,
    polish,
    polished_at,
)
from ..problem.explicit_program import ExplicitProgram, explicit_program
from ..problem.optimality import conditions, residual_of
from ..problem.problem import ActiveSet, Problem, Solution
from ..problem.quadratic import QuadraticObjective
from ..status import Status
from .engines import ask_engine
from .principal_pivoting import pivoted
from .stopping import NewtonIterate, asks_to_stop

_EARLY = 1e-6  # the error of a path from which a first set is tried
_MANY = 30  # sets that are tried where the path goes no further
_FEW = 4  # sets that are tried then, and from a start
_NEAR = 1e-9  # the error to which a path is followed for a guess that counts
_NEAREST = 1e-13  # for the last one: what acts weakly shows at the end alone
_LARGE = 4000  # unknowns and rows from which no other method is tried
_WRONG = 1e-3  # a force that is left, relative to its terms
_FAR = 1e6  # of the program's units: a y that is judged again
_UNSETTLED = (
    "the active set did not settle: this is the end of the path, where "
    "inequalities that it leaves undecided are called weak"
)
_NOT_CONVEX = (
    "P is not positive semidefinite: what was found is a local minimum, and another "
    "start may lead to a lower one"
)


def judged_by_program(
    problem: Problem, x: Any, solution: Solution, tol: float
) -> Solution:
    """Return what another method found, judged by the errors of the explicit program.

    A method that knows products alone compares a residual with ‖P‖ ‖y‖, which grows without
    bound with a y along a flat direction; and it takes a y that is far for one at infinity.
    """
    known = isinstance(problem.objective, QuadraticObjective)
    if not known or solution.status not in {Status.CONVERGED, Status.UNBOUNDED}:
        return solution
    explicit = explicit_program(problem, x, solution.y)
    if explicit is None or not explicit.convex:
        return solution
    path = ConvexQuadraticPath(explicit.program)
    if solution.status is Status.UNBOUNDED and path.has_inequalities:
        return solution
    p, rows, forces = explicit.p, solution.multipliers, solution.bound_multipliers
    every = np.zeros(p + explicit.k) if rows is None else np.asarray(rows, dtype=float)
    point = path.scaling.scaled(
        PrimalDual(
            np.asarray(solution.y, dtype=float),
            every[explicit.equal],
            every[p + explicit.rows],
            np.zeros(path.n) if forces is None else np.asarray(forces, dtype=float),
        )
    )
    if forces is None and solution.active is not None:
        held = np.asarray(solution.active.fixed)
        force = path.program.lagrangian_grad(point)
        point = point._replace(s=np.where(held, force, 0.0))
    found = errors(path.program, point)
    error = found.worst
    small = float(np.abs(point.y).max(initial=0.0)) <= _FAR * max(path.units)
    if error <= max(10.0 * tol, 1e2 * epsilon(solution.y)):
        status = Status.CONVERGED
    elif small and found.dual <= _WRONG:
        return solution  # at y = 0 lengths, and what is off of them, are rounding
    elif error <= math.sqrt(epsilon(solution.y)):
        status = Status.ROUNDING_LIMIT
    else:
        status = Status.STAGNATED
    return dataclasses.replace(solution, status=status, relative_error=error)


def solve_quadratic(
    problem: Problem,
    x: Any,
    y0: Any,
    *,
    tol: float,
    maxiter: int | None,
    callback: Callable[[NewtonIterate], Any] | None,
    engine: str | None = None,
    pivoting: bool = True,
    start: Solution | None = None,
) -> tuple[Solution | None, Any, str]:
    """Return the solution, None where the problem is no such program or was not solved.

    Also the best y so far, from which another method goes on, and a caveat.  ``pivoting``:
    whether a small program is first tried without iterates; ``start``: of a neighbouring x, tried
    with the factor that it keeps.
    """
    explicit = explicit_program(problem, x, y0)
    if explicit is None:
        return None, y0, ""
    if not explicit.convex:
        return None, y0, _NOT_CONVEX if explicit.known else ""
    run = _Run(explicit, x, y0, tol, MAXITER if maxiter is None else maxiter, callback)
    if start is not None and callback is None:
        found = run.from_solution(start)
        if found is not None:
            return found, y0, ""
    if pivoting and maxiter is None and callback is None:
        found = run.by_pivoting()
        if found is not None:
            return found, y0, ""
    found = run.solve(engine)
    trusted = run.trusted and explicit.known
    y = np.asarray(run.best.y, dtype=y0.dtype) if trusted else y0
    return found, y, run.note


@dataclasses.dataclass
class _Run:
    """One solve: the program, its path and what was spent."""

    explicit: ExplicitProgram
    x: HostArray
    y0: HostArray
    tol: float
    maxiter: int
    callback: Callable[[NewtonIterate], Any] | None
    niter: int = 0
    note: str = ""
    trusted: bool = False
    best: PrimalDual = dataclasses.field(init=False)

    @functools.cached_property
    def path(self) -> ConvexQuadraticPath:
        """The program in its own units."""
        return ConvexQuadraticPath(self.explicit.program)

    def by_pivoting(self) -> Solution | None:
        """Return the solution of a small strictly convex program, None without one."""
        explicit = self.explicit
        if self.y0.dtype != np.float64:
            return None
        # The origin, where no start is given, says nothing of the active set.
        found = pivoted(explicit.program, self.y0 if self.y0.any() else None)
        if found is None:
            return None
        self.niter = found.niter
        active = ActiveSet(
            strong=explicit.mask(found.rows),
            weak=np.zeros(explicit.k, dtype=bool),
            fixed=found.low | found.high,
            weak_fixed=np.zeros(explicit.program.n, dtype=bool),
        )
        factor = KKTFactor(
            matrix=found.matrix,
            left=found.scale,
            right=found.scale,
            kept=np.ones(found.unknowns.size, dtype=bool),
            index=explicit.unknowns[found.unknowns],
            size=explicit.program.n + explicit.p + explicit.k,
            y=found.point.y,
            x=self.x,
            active=active,
            independent=True,
        )
        solution = self.record(
            found.point,
            Status.CONVERGED,
            active=active,
            error=found.error,
            factor=factor if found.unknowns.size else None,
            method="pivoting",
        )
        known = explicit.known or self._is_the_problem(solution)
        return solution if known else None

    def from_solution(self, start: Solution) -> Solution | None:
        """Return the solution where the active set and the factor of a start are right.

        That is shown by the conditions of this program, whatever the factor is one of.
        """
        explicit, f, factor = self.explicit, self.explicit.program, start.factor
        n, p = f.n, explicit.p
        forces, multipliers = start.bound_multipliers, start.multipliers
        known = explicit.known and isinstance(factor, KKTFactor)
        if not known or factor.size != n + p + explicit.k:
            return None
        unknowns = factor.index[factor.kept]
        acting = np.zeros(factor.size, dtype=bool)
        acting[unknowns] = True
        fixed = ~acting[:n]
        if fixed.any() and forces is None:
            return None
        high = fixed & (np.zeros(n) if forces is None else np.asarray(forces) < 0.0)
        y0 = np.asarray(start.y)
        every = np.zeros(factor.size)
        every[:n] = np.where(high, f.upper, np.where(fixed, f.lower, y0))
        if multipliers is not None:
            every[n:] = np.where(acting[n:], np.asarray(multipliers), 0.0)
        places = explicit.unknowns
        if not np.isfinite(every).all():
            return None
        for _ in range(2):
            y, nu, z = np.split(every[places], [n, n + f.b.size])
            force = f.P @ y + f.q + f.A.T @ nu + f.G.T @ z
            misses = np.zeros(factor.size)
            misses[places] = np.concatenate([-force, f.b - f.A @ y, f.h - f.G @ y])
            every[unknowns] += factor.solve(misses[unknowns])
        y, nu, z = np.split(every[places], [n, n + f.b.size])
        force = f.P @ y + f.q + f.A.T @ nu + f.G.T @ z
        point = PrimalDual(y, nu, z, np.where(fixed, force, 0.0))
        rows = acting[n + p + explicit.rows]
        found = polished_at(self.path, point, rows, fixed & ~high, high)
        if found is None or not found.factorised:
            return None
        self.niter = 0
        solution = self.record(
            found.point, Status.CONVERGED, active=self.explicit.active_set(found)
        )
        kept = dataclasses.replace(
            factor, y=solution.y, x=solution.x, active=solution.active
        )
        return dataclasses.replace(solution, factor=kept)

    def solve(self, engine: str | None) -> Solution | None:
        """Return the solution, None where it was not found."""
        program = self.explicit.program
        y = np.asarray(self.y0, dtype=float)
        y = np.clip(y, program.lower, program.upper)
        self.best = PrimalDual(y, 0.0 * program.b, 0.0 * program.h, 0.0 * program.q)
        if not self.path.has_inequalities:
            guess = guess_at(self.path, self.best.y)
            return self.judged(polish(self.path, self.best, guess, _FEW))
        if bool(np.any(self.y0)):
            guess = guess_at(self.path, self.best.y)
            found = self.judged(polish(self.path, self.best, guess, _FEW))
            if found is not None:
                return found
        if engine is not None and self.callback is None:
            proposed, self.note = ask_engine(engine, self.path, self.tol)
            if proposed is not None:
                self.niter, self.best = proposed.niter, proposed.point
                guess = guess_of(self.path, self.best)
                found = self.judged(polish(self.path, self.best, guess))
                if found is not None:
                    return dataclasses.replace(found, method=engine)
        near = min(_NEAR, self.tol)
        for tol in (max(_EARLY, self.tol), near, min(_NEAREST, near)):
            ended = follow(program, tol, self.maxiter, self.observe, self.path)
            self.niter, self.best, self.trusted = ended.niter, ended.point, ended.solved
            failed = self.failed(ended)
            if failed is not None:
                return failed
            if ended.certificate:
                self.trusted = False
                return None
            guess = guess_of(self.path, self.best)
            sets = _FEW if tol > near and ended.solved else _MANY
            found = self.judged(polish(self.path, self.best, guess, sets))
            if found is not None:
                return found
            if not ended.solved:
                break
        end = self.unsettled(ended)
        unknowns = program.n + program.b.size + program.h.size
        large = self.explicit.known and unknowns > _LARGE
        if end is None and large and self.path.matrix.wide:
            # Where columns fill its factors, another method would take minutes.
            return self.record(ended.point, Status.STAGNATED)
        return end

    def observe(self, niter: int, y: HostArray) -> bool:
        """Call the callback with an iterate."""
        if self.callback is None:
            return False
        program = self.explicit.program
        force = norm(program.P @ y + program.q)
        value = program.value(y)
        iterate = NewtonIterate(
            niter, y.astype(self.y0.dtype), value, force, self.explicit.n_hvp
        )
        return asks_to_stop(self.callback, iterate)

    def failed(self, ended: Ended) -> Solution | None:
        """Return the solution of a run that ended without one, where that is proven."""
        if ended.stopped:
            return self.record(ended.point, Status.STOPPED_BY_CALLBACK)
        if ended.certificate == "infeasible":
            note = contradiction(self.path, self.explicit.equal, self.explicit.rows)
            return self.record(ended.point, Status.INFEASIBLE, note)
        if ended.certificate == "unbounded" and self.may_fall_forever:
            return self.record(ended.point, Status.UNBOUNDED)
        if not ended.solved and ended.niter >= self.maxiter:
            return self.record(ended.point, Status.ITERATION_LIMIT)
        return None

    @property
    def may_fall_forever(self) -> bool:
        """Whether a ray along which the program falls forever is one of f."""
        explicit = self.explicit
        return explicit.known and not explicit.problem.has_minimiser(self.x)

    def judged(
        self, found: PolishedPoint | RecessionDirection | None
    ) -> Solution | None:
        """Return the solution of a polished point where the problem's conditions hold.

        UNBOUNDED where f of a quadratic program falls forever.
        """
        if isinstance(found, RecessionDirection):
            if not self.may_fall_forever:
                return None
            return self.record(found.point, Status.UNBOUNDED)
        if found is None:
            return None
        active = self.explicit.active_set(found)
        solution = self.record(found.point, Status.CONVERGED, active=active)
        return self._certified(solution, found)

    def _certified(self, solution: Solution, found: PolishedPoint) -> Solution | None:
        """Return the solution with its factor, None where f is another one there."""
        solution = self._with_factor(solution, found)
        known = self.explicit.known or self._is_the_problem(solution)
        return solution if known else None

    def _with_factor(self, solution: Solution, found: PolishedPoint) -> Solution:
        explicit = self.explicit
        kept = factor_of(self.path, found)
        if kept is None:
            return solution
        scaling, n = self.path.scaling, self.path.n
        factor = KKTFactor(
            matrix=self.path.matrix,
            left=np.concatenate([scaling.unit * scaling.columns, scaling.rows]),
            right=np.concatenate([scaling.columns, scaling.rows / scaling.unit]),
            kept=kept,
            index=explicit.unknowns,
            size=n + explicit.p + explicit.k,
            y=solution.y,
            x=solution.x,
            active=solution.active,
        )
        return dataclasses.replace(solution, factor=factor)

    def _is_the_problem(self, solution: Solution) -> bool:
        """Tell whether f and the rows are at the solution what the program has of them.

        What is left of the conditions is small beside their terms, and so is the step to
        their solution, where a factor tells it: far along a direction of next to no
        curvature the terms are large, and hide all that is left.
        """
        problem, x = self.explicit.problem, self.x
        y: Any = solution.y
        left = np.asarray(solution.residual)
        terms = self._terms(y, solution.multipliers)
        usual = np.sort(terms)[terms.size // 2] if terms.size else 0.0
        rounding = 256.0 * epsilon(y)
        least = max(min(_NEAR, 0.1 * self.tol), rounding)
        if not bool(np.all(np.abs(left) <= least * (terms + usual))):
            return False
        if bool(np.any(np.abs(left) > rounding * (terms + usual))):
            step = self._step(solution, left)
            if not self._energy(step) <= max(self.tol, 1e-6) * self._energy(y):
                return False
        H = problem.given("hess", x, y)
        H = -H if problem.maximize else H
        P = self.explicit.program.P
        apart = abs(0.5 * (H + H.T) - P)
        size = abs(P)
        noise = 1e2 * math.sqrt(epsilon(y))
        return bool((apart - noise * size).max() <= 0.0) if P.shape[0] else True

    def _step(self, solution: Solution, left: HostArray) -> HostArray:
        """Return the Newton step of y, zero where there is no factor."""
        factor: Any = solution.factor
        every = np.zeros(left.size)
        if factor is not None:
            unknowns = factor.index[factor.kept]
            every[unknowns] = factor.solve(left[unknowns].astype(float))
        return every[: self.path.n]

    def _energy(self, y: HostArray) -> float:
        """Return the norm of y in the metric of the program's curvature."""
        return math.sqrt(max(float(y @ (self.explicit.program.P @ y)), 0.0))

    def _terms(self, y: HostArray, multipliers: Any) -> HostArray:
        """Return the sums of the absolute values of the terms of all conditions."""
        explicit, f = self.explicit, self.explicit.program
        size = np.abs(np.asarray(y, dtype=float))
        force = abs(f.P) @ size + np.abs(f.q)
        rows = np.zeros(explicit.p + explicit.k)
        of_rows = abs(f.A) @ size + np.abs(f.b), abs(f.G) @ size + np.abs(f.h)
        rows[explicit.equal] = of_rows[0]
        rows[explicit.p + explicit.rows] = of_rows[1]
        if multipliers is not None:
            pulls = np.abs(np.asarray(multipliers, dtype=float))
            force = force + abs(f.A).T @ pulls[explicit.equal]
            force = force + abs(f.G).T @ pulls[explicit.p + explicit.rows]
        return np.concatenate([force, rows])

    def unsettled(self, ended: Ended) -> Solution | None:
        """Return the end of the path, where it is good enough, with its active set."""
        if not ended.worst <= max(self.tol, 1e-12):
            return None
        explicit, path = self.explicit, self.path
        at = path.scaling.scaled(ended.point)
        guess = guess_of(path, ended.point)
        f, weight = path.program, path.weight
        undecided = 1e2

        def sides(force: HostArray, slack: HostArray) -> tuple[HostArray, HostArray]:
            far = weight * slack
            return force > undecided * far, (force * undecided >= far) & (
                force <= undecided * far
            )

        strong, weak = sides(at.z, np.maximum(f.h - f.G @ at.y, 0.0))
        slack = np.minimum(at.y - f.lower, f.upper - at.y)
        fixed, weak_fixed = sides(np.abs(at.s), np.maximum(slack, 0.0))
        fixed |= f.lower == f.upper
        point = ended.point._replace(
            z=np.where(strong, ended.point.z, 0.0),
            y=np.where(
                fixed & (guess.low | (f.lower == f.upper)),
                explicit.program.lower,
                np.where(fixed & guess.high, explicit.program.upper, ended.point.y),
            ),
        )
        active = ActiveSet(
            explicit.mask(strong),
            explicit.mask(weak & ~strong),
            fixed,
            weak_fixed & ~fixed,
        )
        solution = self.record(point, Status.CONVERGED, _UNSETTLED, active)
        if not explicit.known and not self._is_the_problem(solution):
            return None
        return solution if self.error(point) <= 10.0 * self.tol else None

    def error(self, point: PrimalDual) -> float:
        """Return the largest of the errors of the conditions."""
        path = self.path
        return errors(path.program, path.scaling.scaled(point)).worst

    def record(
        self,
        point: PrimalDual,
        status: Status,
        note: str = "",
        active: ActiveSet | None = None,
        error: float | None = None,
        **found_by: Any,
    ) -> Solution:
        """Return a point as a solution of the problem."""
        explicit, problem = self.explicit, self.explicit.problem
        like = self.y0
        y = asarray(point.y, like)
        multipliers = None
        if explicit.p + explicit.k:
            multipliers = asarray(explicit.multipliers(point.nu, point.z), like)
        residual = size = None
        if status is Status.CONVERGED:
            found = conditions(problem, self.x, y, multipliers)
            residual = residual_of(found, active)
            size = norm(residual)
        value = None
        if problem.has_value:
            value = problem.value(self.x, y)
            value = -value if problem.maximize else value
        notes = [note] if note else []
        if explicit.formed is not None and explicit.formed.note:
            notes.append(explicit.formed.note)
        with_sides = problem.inequalities is not None or problem.bounded
        if status is Status.CONVERGED and error is None:
            error = self.error(point)
        return Solution(
            y=y,
            x=self.x,
            value=value,
            multipliers=multipliers,
            active=active if with_sides else None,
            status=status,
            residual_norm=size,
            relative_error=error,
            residual=residual,
            bound_multipliers=asarray(point.s, like) if problem.bounded else None,
            niter=self.niter,
            n_hvp=explicit.n_hvp,
            n_grad=explicit.n_grad + 1,
            warnings=tuple(notes),
            **found_by,
        )
