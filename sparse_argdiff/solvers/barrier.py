"""The path of barrier problems, followed by a primal-dual interior-point method.

    f_Y + Eᵀ ν + G_Yᵀ z = 0,    e = 0,    G + w = 0,    w_i z_i = μ = 1 / t,    w, z > 0

For each μ this is the solution of the paper's (61) with t = 1/μ, and μ → 0.  A step solves the
linearised conditions for a smaller μ (Mehrotra's predictor and corrector where they are
factorised), as long as w and z stay positive and the residuals fall.  Slacks w give every
start a place inside: no first phase is needed, and multipliers that grow into a proof of
infeasibility are recognised.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable
from typing import Any

from ..arrays import Array, dot, epsilon, namespace, norm
from ..linear_operator import aslinearoperator
from ..optimality import residual_scale, size_of
from ..problem import Problem, Solution
from ..status import Status
from .central import Central, Residuals, reach
from .correctors import corrected
from .ends import solution
from .lagrangian import explicit, lagrangian_hess
from .levels import Level
from .newton_cg import NewtonIterate, asks_to_stop
from .newton_step import Direction, NewtonSystem
from .projections import projections
from .rays import contradiction, falls_forever, largest
from .standard_form import StandardForm, standard_form

logger = logging.getLogger(__name__)

_PATIENCE = 25
_SLOW = 8
_FORCE = 10.0  # of a side at the start, relative to f_Y: too small costs iterations
_BALANCE = 3e-3  # least μ that is aimed at, relative to the residuals as at the start


def barrier(
    problem: Problem,
    x: Array,
    y0: Array,
    *,
    tol: float = 1e-8,
    maxiter: int | None = None,
    callback: Callable[[NewtonIterate], Any] | None = None,
) -> Solution:
    """Minimise f(x, ·) under constraints along the barrier path.

    Parameters
    ----------
    tol : float
        Stop when the gradient of the Lagrangian, relative to its scale, the violations,
        relative to max |y|, and the products w_i z_i, relative to both, are ≤ tol.
    maxiter : int, optional
        Newton steps, 300 by default.

    Returns
    -------
    Solution
        With multipliers and the active set; sides that the last μ leaves undecided are
        weak.

    Notes
    -----
    Where Hessian and Jacobians are arrays or sparse matrices the steps are factorised on
    the host (SciPy's SuperLU); otherwise they come from CG or projected CG.

    References
    ----------
    S. Mehrotra, SIAM J. Optim. 2 (1992) 575-601.
    S. Boyd, L. Vandenberghe, "Convex Optimization", 2004, section 11.7.
    N.-Y. Chiang, V. M. Zavala, Comput. Optim. Appl. 64 (2016) 327-354 (the test of
    curvature that stands for the inertia).
    """
    run = InteriorPoint(problem, x, y0, tol, maxiter, callback)
    return run.solution(run.follow())


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
        self.shift = 0.0  # of the Hessian in the last step
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
                if self.shift > 0.0:  # where the last step started f curved down
                    return Status.NEGATIVE_CURVATURE
                return Status.CONVERGED
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
            if len(errors) > _PATIENCE and smallest > 0.9 * min(errors[:-_PATIENCE]):
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

    def step(self, now: Residuals) -> Residuals | None:
        """Return the next point, None where no step makes progress."""
        point, form = now.point, self.form
        multipliers = form.multipliers(point.nu, point.z)
        H = lagrangian_hess(self.problem, self.x, point.y, multipliers, form.p)
        self.note = getattr(H, "note", "")
        H = H * (1.0 / form.unit)
        if (
            now.E is not None
            and self._rows is None
            and not _factorable(point.w, H, now)
        ):
            self._rows = projections(now.E)
        shift, largest = 0.0, 0.0
        if self.level is not None:
            force, size = self.units(now.grad, point.y)
            self.level.lower(now, 0.1 * self.tol * force * size)
        aim = (0.0 if self.level is None else self.level.mu) - point.w * point.z
        rtol = min(max(0.01 * self.tol, 100.0 * epsilon(point.y)), 1e-4)
        for _ in range(12):
            system = NewtonSystem(
                form, H, now.E, now.J, point.w, point.z, shift, rtol, self._rows
            )
            affine = system.solve(now.r_d, now.r_e, now.r_g, aim)
            bend = system.curvature(affine.y)
            spent = system.n_hvp
            self.n_hvp += spent
            length = dot(affine.y, affine.y)
            if not math.isfinite(bend):
                return None
            if bend >= 1e-12 * largest * length and not system.bends_down:
                break
            if self.can_descend(now):
                return self.step(self.descend(now))
            if length > 0.0:
                largest = max(largest, abs(bend) / length)
            self.bent = True
            shift = max(10.0 * shift, 1e-4, largest)
        self.shift = shift
        if self.level is not None:
            return self.level.fall(now, affine, bend, form.unit, self.at)
        found = corrected(now, system, affine, self.least(now))
        self.n_hvp += system.n_hvp - spent
        for direction in (found, affine):
            new = self.walk(now, direction)
            if new is not None:
                return new
        return None

    def least(self, now: Residuals) -> float:
        """Return the smallest μ to aim at: w and z must not vanish before the residuals.

        Where they do, w_i z_i → 0 far from a solution, and steps are cut to nothing.
        """
        return self.balance * now.size

    def walk(self, now: Residuals, step: Direction) -> Residuals | None:
        """Go along a direction: inside, and as far as the residuals fall.

        At first with lengths of their own for (y, w) and (ν, z), then with a common one.
        """
        point, keep = now.point, min(max(0.99, 1.0 - now.mu), 0.9999)
        primal = min(1.0, keep * reach(point.w, step.w))
        dual = min(1.0, keep * reach(point.z, step.z))
        rounding = 1e2 * epsilon(point.y) * (1.0 + norm(point.y) + norm(point.z))
        shortest = 1e-3 * epsilon(point.y) ** 0.5
        while primal >= shortest:
            new = self.at(
                Central(
                    y=point.y + primal * step.y,
                    nu=point.nu + dual * step.nu,
                    z=point.z + dual * step.z,
                    w=point.w + primal * step.w,
                )
            )
            sound = math.isfinite(new.size) and (
                new.value is None or math.isfinite(new.value)
            )
            alpha = min(primal, dual)
            allowed = max((1.0 - 0.01 * alpha) * now.size, 0.1 * new.mu, rounding)
            if sound and new.size <= allowed:
                return new
            primal = dual = alpha if primal != dual else 0.5 * alpha
        return None

    def solution(self, status: Status) -> Solution:
        """Return the best point as a solution."""
        return solution(self, status)


def _factorable(w: Array, H: Any, now: Residuals) -> bool:
    return explicit(w, H, *(part for part in (now.E, now.J) if part is not None))
