"""A run along the path of barrier problems: its points, its steps and its ends.

    r_d = 0,    r_e = 0,    r_g = 0,    w_i z_i = μ → 0        by Newton's method

At first as long as the residuals fall; where they do not, or f curves down, on levels of
the barrier function (``levels``); away from saddle points by ``saddles``.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable
from typing import Any

from ...arrays import Array, epsilon, namespace, norm
from ...krylov.saddle_point import null_space_of
from ...operators.linear_operator import aslinearoperator
from ...problem.lagrangian import explicit, lagrangian_hess
from ...problem.optimality import residual_scale, size_of
from ...problem.problem import Problem, Solution
from ...status import Status
from ..infeasibility import contradiction, falls_forever, largest
from ..newton_cg import NewtonIterate, asks_to_stop
from .as_solution import solution
from .barrier_merit import Level
from .inertia_correction import Convex, convexified, downward, leave
from .iterate import Central, Residuals
from .newton_system import Direction, NewtonSystem
from .predictor_corrector import corrected, walk
from .standard_form import StandardForm, standard_form

logger = logging.getLogger(__name__)

_PATIENCE = 25
_SLOW = 8
_LEAPS = 10  # away from saddle points, at most
_FORCE = 10.0  # of a side at the start, relative to f_Y: too small costs iterations
_BALANCE = 3e-3  # least μ that is aimed at, relative to the residuals as at the start


class InteriorPoint:
    """One run along the path; the counters are its state."""

    def __init__(
        self,
        problem: Problem,
        x: Array,
        y0: Array,
        tol: float,
        maxiter: int | None,
        callback: Callable[[NewtonIterate], Any] | None,
    ) -> None:
        self.problem, self.x, self.tol, self.callback = problem, x, tol, callback
        self.maxiter = 300 if maxiter is None else maxiter
        self.niter, self.n_hvp, self.n_grad = 0, 0, 0
        self.note = ""
        self.level: Level | None = None
        self.curved = False  # whether f curved down where the last step started
        self.by_products = True  # whether the steps come from CG
        self.shift = 0.0  # of the Hessian, when one was needed last
        self.leaps = 0  # away from saddle points
        self.bent = False  # whether the Hessian had to be shifted
        self.reach = size_of(y0)
        y = namespace(y0).asarray(y0, copy=True)
        grad = problem.grad(x, y)
        scale, spent = residual_scale(problem, x, y)
        self.n_hvp += spent
        if not math.isfinite(scale):
            scale = 0.0
        self.scale = scale
        unit = max(scale, norm(grad))
        unit = unit if 0.0 < unit < math.inf else 1.0
        self.form: StandardForm = standard_form(problem, x, y, unit)
        self._jacobians: tuple[Any, Any] | None = None
        self._rows: Any = None
        self.best = self.start(y)
        self.balance = (
            _BALANCE * self.best.mu / self.best.size if self.best.size else 0.0
        )

    def start(self, y: Array) -> Residuals:
        """Return a first point inside: bounds are kept, slacks make up for the rows."""
        form, xp = self.form, namespace(y)
        width = form.upper - form.lower
        inside = xp.minimum(0.1 * self.reach + xp.zeros_like(y), 0.25 * width)
        y = xp.clip(y, form.lower + inside, form.upper - inside)
        y = xp.where(form.lower == form.upper, form.lower, y)
        sides = form.sides(y)
        violation = float(xp.max(sides)) if sides.shape[0] else 0.0
        least = max(violation, 0.1 * self.reach)
        rows, low, high = form.split(sides)
        w = xp.concat([xp.where(-rows > least, -rows, least + 0.0 * rows), -low, -high])
        nu = xp.zeros_like(form.e_scale)
        return self.at(Central(y, nu, _FORCE * least / w, w))

    def at(self, point: Central) -> Residuals:
        """Evaluate the conditions at a point."""
        problem, form, x, y = self.problem, self.form, self.x, point.y
        self.n_grad += 1
        grad = problem.grad(x, y)
        r_e, sides = form.equalities(y), form.sides(y)
        if self._jacobians is None or not self.affine:
            self._jacobians = form.equality_jac(y), form.row_jac(y)
            self._rows = None
        E, J = self._jacobians
        r_d = grad / form.unit + form.back(J, point.z)
        if E is not None:
            r_d = r_d + aslinearoperator(E).T @ point.nu
        value = problem.value(x, y) if problem.has_value else None
        return Residuals(point, value, grad, E, J, r_d, r_e, sides + point.w)

    @property
    def affine(self) -> bool:
        """Whether all rows are affine in y, so that Jacobians stay."""
        both = self.problem.equalities, self.problem.inequalities
        return all(rows is None or rows.affine for rows in both)

    def follow(self) -> Status:
        """Follow the path from the best point so far; leave the last in ``best``."""
        now, errors = self.best, [math.inf]
        smallest = math.inf
        while True:
            error = self.error(now)
            logger.debug("barrier %d: mu %.2e, error %.2e", self.niter, now.mu, error)
            if not math.isfinite(now.size) or (
                now.value is not None and math.isnan(now.value)
            ):
                return Status.NOT_FINITE
            if error < smallest:
                smallest, self.best = error, now
            if error <= self.tol:
                # Where the last step started f curved down, or only CG says that it did
                # not, this may be a saddle point.
                lower = self.onward(now) if self.curved or self.by_products else None
                if lower is None:
                    curved = Status.NEGATIVE_CURVATURE
                    return curved if self.curved else Status.CONVERGED
                now, errors, smallest = lower, [math.inf], math.inf
                continue
            force, y = norm(now.r_d) * self.form.unit, now.point.y
            iterate = NewtonIterate(self.niter, y, now.value, force, self.n_hvp)
            if asks_to_stop(self.callback, iterate):
                return Status.STOPPED_BY_CALLBACK
            errors.append(error)
            verdict = self.hopeless(now)
            if verdict is not None:
                self.best = now
                return verdict
            if self.niter >= self.maxiter:
                return Status.ITERATION_LIMIT
            # On a level it is the barrier function that falls, which takes longer to show.
            wait = _PATIENCE * (1 if self.level is None else 4)
            if len(errors) > wait and smallest > 0.9 * min(errors[:-wait]):
                # The multipliers of a curved contradiction grow slowly: less will do.
                verdict = self.hopeless(now, far=30.0)
                if verdict is not None or not self.can_descend(now):
                    return verdict or Status.STAGNATED
                now, errors = self.descend(now), [math.inf]
            elif len(errors) > _SLOW and self.crawls(now, smallest, errors):
                now, errors = self.descend(now), [math.inf]
            new = self.step(now)
            if new is None and self.level is None and self.can_descend(now):
                verdict = self.hopeless(now, far=30.0)
                if verdict is not None:
                    return verdict
                now, errors = self.descend(now), [math.inf]
                new = self.step(now)
            if new is None:
                rounding = 1e3 * epsilon(y)
                if smallest <= rounding:
                    return Status.ROUNDING_LIMIT
                return self.hopeless(now, far=30.0) or Status.STAGNATED
            now = new
            self.niter += 1

    def can_descend(self, now: Residuals) -> bool:
        """Tell whether the barrier function may take over from the residuals."""
        return self.level is None and now.value is not None and now.point.w.shape[0] > 0

    def crawls(self, now: Residuals, smallest: float, errors: list[float]) -> bool:
        """Tell whether little has been gained of late, though nearly all rows hold."""
        if not self.can_descend(now) or smallest <= 0.5 * min(errors[:-_SLOW]):
            return False
        length = self.units(now.grad, now.point.y)[1]
        return max(largest(now.r_e), largest(now.r_g)) <= 1e-2 * length

    def descend(self, now: Residuals) -> Residuals:
        """Go over to steps that lower the barrier function, see ``levels``."""
        length = self.units(now.grad, now.point.y)[1]
        self.level = Level(now, length)
        return self.placed(now, self.level.centred(now))

    def placed(self, now: Residuals, point: Central) -> Residuals:
        """Return the residuals with other slacks and multipliers z at the same y."""
        pull = self.form.back(now.J, point.z - now.point.z)
        return dataclasses.replace(
            now, point=point, r_d=now.r_d + pull, r_g=now.sides + point.w
        )

    def error(self, now: Residuals) -> float:
        """Return the residual of the conditions, each relative to its scale."""
        force, length = self.units(now.grad, now.point.y)
        off = max(largest(now.r_e), largest(now.r_g))
        return max(norm(now.r_d) / force, off / length, now.gap / (force * length))

    def units(self, grad: Array, y: Array) -> tuple[float, float]:
        """Return the force and the length that others are compared with.

        Where f_Y or y vanish at the solution, rounding at the start is what is left.
        """
        least = epsilon(y) ** 0.5
        force = max(self.scale, norm(grad)) / self.form.unit
        return max(force, least), max(size_of(y), least * self.reach)

    def hopeless(self, now: Residuals, far: float = 1e6) -> Status | None:
        """Recognise an infeasible or an unbounded problem by its ray."""
        form, point = self.form, now.point
        length = size_of(point.y)
        off = max(largest(now.r_e), largest(now.r_g))
        if off > self.tol * length:
            worst = max(largest(now.r_e), largest(now.sides), length, self.reach)
            named = contradiction(form, point.nu, point.z, now, far * worst)
            if named:
                self.note = named
                return Status.INFEASIBLE
        if length > 1e6 * self.reach:
            H = self.problem.hess(self.x, point.y)
            self.n_hvp += 1
            if falls_forever(form, H, point.y, now):
                return Status.UNBOUNDED
        return None

    def hessian(self, now: Residuals) -> Any:
        """Return the Hessian of the Lagrangian in the units of the form."""
        point, form = now.point, self.form
        multipliers = form.multipliers(point.nu, point.z)
        H = lagrangian_hess(self.problem, self.x, point.y, multipliers, form.p)
        self.note = getattr(H, "note", "")
        return H * (1.0 / form.unit)

    def builder(self, now: Residuals, H: Any) -> Callable[[float], NewtonSystem]:
        """Return the function that sets up the Newton system with a shift."""
        form, point = self.form, now.point
        if (
            now.E is not None
            and self._rows is None
            and not _factorable(point.w, H, now)
        ):
            self._rows = null_space_of(now.E)
        rtol = min(max(0.01 * self.tol, 100.0 * epsilon(point.y)), 1e-4)
        E, J, w, z, rows = now.E, now.J, point.w, point.z, self._rows
        return lambda shift: NewtonSystem(form, H, E, J, w, z, shift, rtol, rows)

    def newton(self, now: Residuals) -> Convex:
        """Return the Newton step for this μ, or for μ = 0, of a system that curves up."""
        point, H = now.point, self.hessian(now)
        if self.level is not None:
            force, size = self.units(now.grad, point.y)
            self.level.lower(now, 0.1 * self.tol * force * size)
        aim = (0.0 if self.level is None else self.level.mu) - point.w * point.z

        def solve(system: NewtonSystem) -> Direction:
            return system.solve(now.r_d, now.r_e, now.r_g, aim)

        build = self.builder(now, H)
        if self.can_descend(now):  # before it is shifted
            return convexified(build, solve, H, self.shift, trials=1)
        return convexified(build, solve, H, self.shift)

    def step(self, now: Residuals) -> Residuals | None:
        """Return the next point, None where no step makes progress."""
        found = self.newton(now)
        system, affine = found.system, found.step
        self.n_hvp += found.n_hvp
        if not math.isfinite(found.bend):
            return None
        if not found.done and self.can_descend(now):
            return self.step(self.descend(now))
        self.bent = self.bent or found.bent
        self.curved, self.shift = found.bent, found.shift or self.shift
        self.by_products = system.factor is None
        if self.level is not None:
            bow = None if self.affine else self.bow(now, system, affine)
            unit = self.form.unit
            return self.level.fall(now, affine, found.bend, unit, self.at, bow)
        spent = system.n_hvp
        better = corrected(now, system, affine, self.least(now))
        self.n_hvp += system.n_hvp - spent
        for direction in (better, affine):
            new = walk(now, direction, self.at)
            if new is not None:
                return new
        return None

    def bow(
        self, now: Residuals, system: NewtonSystem, step: Direction
    ) -> Array | None:
        """Return what bends a step along curved rows; straight on it leaves them."""
        point = now.point
        ahead = self.at(point._replace(y=point.y + step.y, w=point.w + step.w))
        if not math.isfinite(ahead.size):
            return None
        spent = system.n_hvp
        aside = system.solve(0.0 * now.r_d, ahead.r_e, ahead.r_g, 0.0 * point.w).y
        self.n_hvp += system.n_hvp - spent
        return aside if math.isfinite(norm(aside)) else None

    def onward(self, now: Residuals) -> Residuals | None:
        """Return a point below a stationary one where f curves down; None at a minimum.

        ``curved`` says which, where there is none below.
        """
        H = self.hessian(now)
        build = self.builder(now, H)
        plain = build(0.0)
        if plain.factor is None:
            plain.probe()
        self.curved = plain.bends_down
        self.bent = self.bent or self.curved
        p, bend = None, 0.0
        if self.curved and now.value is not None and self.leaps < _LEAPS:
            p, bend = downward(build, plain, H, self.shift)
        self.n_hvp += plain.n_hvp
        if p is None:
            return None
        self.leaps += 1
        length = self.units(now.grad, now.point.y)[1]
        lower = leave(now, self.form, p, bend, length, self.at)
        if lower is None:
            return None
        new, fall = lower
        self.level = self.level or Level(new, length)
        self.level.mu = max(self.level.mu, 0.1 * fall / new.point.w.shape[0])
        return self.placed(new, self.level.centred(new))

    def least(self, now: Residuals) -> float:
        """Return the smallest μ to aim at: w and z must not vanish before the residuals.

        Where they do, w_i z_i → 0 far from a solution, and steps are cut to nothing.
        """
        return self.balance * now.size

    def solution(self, status: Status) -> Solution:
        """Return the best point as a solution."""
        return solution(self, status)


def _factorable(w: Array, H: Any, now: Residuals) -> bool:
    return explicit(w, H, *(part for part in (now.E, now.J) if part is not None))
