"""Newton on the optimality conditions under equality constraints: h(x, y) = 0.

    d = v + u,    v = − C⁺ h,    min_u ½ u'Hu + (f_Y + Hv)'u  with  C u = 0,    C = h_Y

The normal step v restores feasibility; the tangential step u solves a saddle point system
(``krylov.saddle_point``); the multipliers are the least-squares ones.  A line search on the
exact penalty f + μ ‖h‖ makes the method global, a second-order correction keeps its full
steps.  H, the Hessian of the Lagrangian, need only be definite on the null space of C.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

from ..arrays import Array, dot, epsilon, namespace, norm, zeros
from ..krylov.null_space import null_space
from ..krylov.saddle_point import SaddlePoint, null_space_of
from ..operators.block_matrices import is_explicit, squares
from ..operators.linear_operator import LinearOperator, aslinearoperator
from ..operators.probes import random_signs
from ..preconditioners import constraint_of
from ..preconditioners.damped_diagonal import is_level
from ..preconditioners.jacobi import jacobi_of
from ..problem.constraints import Stack
from ..problem.optimality import lagrangian_hess, row_norms
from ..problem.problem import Problem, Solution
from ..status import Status
from .infeasibility import UNSOLVED, contradict, name_row
from .interior_point.curvature import is_convex, negative_direction
from .interior_point.iterate import largest
from .last_step import LONG, LastStep
from .line_search import Step, search, search_by_size
from .newton_stationary import newton_stationary
from .scaled_problem import DRIFT, solve_scaled
from .stopping import FAR, NewtonIterate, asks_to_stop, falls_beyond

logger = logging.getLogger(__name__)

MAXITER = 200  # Newton steps
_PATIENCE = 25
_HALVINGS = 20
_ROUGH = 0.1  # residual of the step that is tested
_DRAWS = 3  # of signs: one may cancel
_STATIONARY = (Status.CONVERGED, Status.ROUNDING_LIMIT)
_BY_RESIDUALS = "without objective.value the search goes by residuals alone"


@dataclasses.dataclass(frozen=True)
class ConstrainedPoint:
    """The problem at y to first order; ``rows`` are the projections on ``jac``."""

    y: Array
    value: float | None
    grad: Array
    h: Array
    jac: Any
    rows: Any
    multipliers: Array  # argmin ‖f_Y + h_Y' ν‖
    lagrangian_grad: Array

    @cached_property
    def stationarity(self) -> float:
        """‖P (f_Y + h_Y' ν)‖: what a row holds is rounding of ν, and moves nothing."""
        whole = norm(self.lagrangian_grad)
        if self.rows is None or not math.isfinite(whole):
            return whole
        return min(whole, norm(self.rows.project(self.lagrangian_grad)))

    @cached_property
    def misfit(self) -> float:
        """The residual of the conditions; a force and a distance have one unit."""
        return math.hypot(self.stationarity, self.infeasibility)

    @cached_property
    def force(self) -> float:
        """The size of the terms that h_Y' ν adds up."""
        return norm(row_norms(self.jac, self.h) * self.multipliers)

    def free_size(self, v: Array) -> float:
        """Return (Σ v_i² P_ii)^½ of the projection P on the null space of the rows, roughly."""
        signs = (random_signs(v.shape[0], v, seed) for seed in range(_DRAWS))
        return max(norm(self.rows.project(sign * v)) for sign in signs)

    @cached_property
    def infeasibility(self) -> float:
        """The largest |h_i| / ‖∇h_i‖: a distance in y."""
        if self.h.shape[0] == 0:
            return 0.0
        xp = namespace(self.h)
        return float(xp.max(xp.abs(self.h) / row_norms(self.jac, self.h)))


@dataclasses.dataclass(frozen=True)
class ExactPenalty:
    """f + μ ‖h‖ for the line search; exact for μ > ‖ν‖, smooth where h ≠ 0."""

    problem: Problem
    constraints: Stack
    mu: float

    def value(self, x: Array, y: Array) -> float:
        """Return f + μ ‖h‖."""
        return self.problem.value(x, y) + self.mu * norm(self.constraints.value(x, y))

    def grad(self, x: Array, y: Array) -> Array:
        """Return f_Y + μ h_Y' h / ‖h‖, or f_Y where h = 0."""
        grad, h = self.problem.grad(x, y), self.constraints.value(x, y)
        size = norm(h)
        if size == 0.0:
            return grad
        jac = aslinearoperator(self.constraints.jac(x, y))
        return grad + (self.mu / size) * (jac.T @ h)


def newton_kkt(
    problem: Problem,
    x: Array,
    y0: Array,
    *,
    tol: float = 1e-8,
    maxiter: int | None = None,
    callback: Callable[[NewtonIterate], Any] | None = None,
) -> Solution:
    """Minimise f(x, ·) where h(x, ·) = 0; any stationary point without constraints.

    Parameters
    ----------
    tol : float
        Stop when the conditions hold and the next step is short: each relative to max |y|
        or to the way from the start, in the coordinates of ``scaled_problem``, and no
        longer than what affine rows leave free of y.
    maxiter : int, optional
        Newton steps, 200 by default.

    Returns
    -------
    Solution
        With multipliers.  Its status says how it ended, its warnings what is wrong.

    References
    ----------
    J. Nocedal, S. J. Wright, "Numerical Optimization", 2nd ed., 2006, sections 15.5
    (the corrections), 18.3 (the weight μ) and 18.5 (normal and tangential steps).
    """
    if problem.inequalities is not None or problem.bounded:
        raise ValueError(
            "method 'newton_kkt' is for equality constraints alone; with inequalities "
            "or bounds use 'active_set' or 'barrier'"
        )
    if problem.equalities is None:
        return newton_stationary(
            problem, x, y0, tol=tol, maxiter=maxiter, callback=callback
        )
    maxiter = MAXITER if maxiter is None else maxiter
    return solve_scaled(
        _find, problem, x, y0, tol=tol, maxiter=maxiter, callback=callback, form=False
    )


def _find(
    problem: Problem,
    x: Array,
    y0: Array,
    tol: float,
    maxiter: int,
    callback: Callable[[NewtonIterate], Any] | None,
) -> Solution:
    """Return the solution, of a scaled problem."""
    assert problem.equalities is not None
    return _NewtonKKT(problem, problem.equalities, x, tol, maxiter, callback).run(y0)


class _NewtonKKT:
    """One run; the counters are its state."""

    def __init__(
        self,
        problem: Problem,
        constraints: Stack,
        x: Array,
        tol: float,
        maxiter: int,
        callback: Callable[[NewtonIterate], Any] | None,
    ) -> None:
        self.problem, self.constraints, self.x = problem, constraints, x
        self.tol, self.maxiter, self.callback = tol, maxiter, callback
        self.n_hvp, self.n_grad, self.niter = 0, 0, 0
        self.mu = 0.0
        self.violations: list[float] = []  # ‖h‖ along the way
        self.h_norm = 0.0  # the largest ‖H u‖ / ‖u‖ so far, a lower estimate of ‖H‖
        self.notes: tuple[str, ...] = ()
        self.last = LastStep()
        self.inner = 0.0  # the residual that the last linear solve left
        self.probed = False  # whether negative curvature was looked for
        self.confirmed = False  # whether a zero gradient was asked for again
        self._jacobian: tuple[Any, Any] | None = None  # and its null space
        # A diagonal of H, and the null space of affine rows in it.
        self._metric: tuple[Array, Any] | None = None

    def run(self, y0: Array) -> Solution:
        self.y0 = y = namespace(y0).asarray(y0, copy=True)
        self.moved = 0.0 * y  # the last step
        point = self.at(y)
        status: Status | None = None
        while status is None:
            status = self.stop(point)
            if status is Status.CONVERGED and not (self.confirmed or norm(point.grad)):
                # A gradient that is exactly zero ends all: it is asked for once more.
                point, status, self.confirmed = self.at(point.y), None, True
                continue
            if status is Status.CONVERGED and not self.is_verified(point):
                status = None
            if status is None:
                status, point = self.step(point)
            if status in _STATIONARY and not self.probed:
                status, point = self.continue_from_stationary(status, point)
        residual = namespace(y).concat([point.lagrangian_grad, point.h])
        return Solution(
            y=point.y,
            x=self.x,
            value=point.value,
            multipliers=point.multipliers,
            status=status,
            residual_norm=norm(residual),
            residual=residual,
            niter=self.niter,
            n_hvp=self.n_hvp,
            n_grad=self.n_grad,
            warnings=self.notes,
        )

    def at(self, y: Array) -> ConstrainedPoint:
        """Evaluate the problem at y: one gradient, one Jacobian."""
        problem, x = self.problem, self.x
        grad, h = problem.grad(x, y), self.constraints.value(x, y)
        self.n_grad += 1
        if self._jacobian is None or not self.constraints.affine:
            jac, finite = self.constraints.jac(x, y), math.isfinite(norm(h))
            self._jacobian = (jac, null_space_of(jac)) if finite else None
        jac, rows = self._jacobian or (jac, None)
        value = problem.value(x, y) if problem.has_value else None
        nu, total = 0.0 * h, grad
        if rows is not None and math.isfinite(norm(grad)):
            nu = rows.multipliers(-grad)
            total = grad + aslinearoperator(jac).T @ nu
        return ConstrainedPoint(y, value, grad, h, jac, rows, nu, total)

    def length(self, point: ConstrainedPoint) -> float:
        """Return the length that the tolerance is relative to, of the way or from 0.

        Rounding on the longer one is within the tolerance.
        """
        size, way = largest(point.y), max(largest(point.y - self.y0), 1.0)
        unit = epsilon(point.y)
        least = max(math.sqrt(unit), 64.0 * unit / self.tol) if self.tol else 1.0
        return max(min(size, way), min(least, 1.0) * size, 64.0 * unit * way)

    def is_solved(self, point: ConstrainedPoint) -> bool:
        """Tell whether the conditions hold, and the next step would be short.

        It is short of what the rows leave free of y: y and forces that they hold, as y₂ = 1
        does, are no length of other unknowns, and no rounding of their forces.
        """
        length, rounding = self.length(point), self.rounding(point)
        if point.infeasibility > self.tol * length:
            return False
        if not self.is_short(point, length, rounding):
            return False
        if not (self.constraints.affine and point.y.shape[0] > point.h.shape[0]):
            return True  # what curved rows leave free has their length
        free = point.free_size(point.y)
        if free >= length:
            return True
        way = 64.0 * epsilon(point.y) * point.free_size(point.y - self.y0)
        return self.is_short(point, max(free, way), self.free_rounding(point))

    def is_short(self, point: ConstrainedPoint, length: float, rounding: float) -> bool:
        """Tell whether force and next step are below ``tol`` times a length, or rounding."""
        allowed = max(self.tol * min(length, self.last.radius), rounding)
        if point.stationarity > allowed:
            return False
        return self.niter == 0 or self.last.is_last(length, self.tol, rounding)

    def is_verified(self, point: ConstrainedPoint) -> bool:
        """Test the next step itself, roughly solved for, where no diagonal is known.

        A residual in units that products alone have told hides errors along unknowns that
        are in other units.  One test a point: the step that follows it is taken.
        """
        hess = self.lagrangian_hess(point)
        free = point.y.shape[0] - point.h.shape[0]
        if hess.has_diagonal or free <= 0 or point.stationarity == 0.0:
            return True
        force = point.rows.project(-point.lagrangian_grad)
        rhs = namespace(force).concat([force, zeros(point.h.shape, force)])
        system = SaddlePoint(hess, point.rows, M=constraint_of(hess, point.rows))
        found = system.solve(rhs, rtol=_ROUGH)
        self.n_hvp += found.n_matvec
        step = norm(found.x[: force.shape[0]])
        return step <= self.tol * self.length(point)  # false for NaN

    def stop(self, point: ConstrainedPoint) -> Status | None:
        """Return the status of a point at which the iteration ends, else None."""
        size, h_norm = point.stationarity, norm(point.h)
        logger.debug("newton_kkt %d: |residual| %.3e, %.3e", self.niter, size, h_norm)
        if not math.isfinite(size + h_norm):
            return Status.NOT_FINITE
        if point.value is not None and math.isnan(point.value):
            return Status.NOT_FINITE
        if self.is_solved(point) and self.last.not_shorter < LONG:
            return Status.CONVERGED
        if self.is_solved(point) and self.falls_beyond(point):
            return Status.UNBOUNDED
        iterate = NewtonIterate(self.niter, point.y, point.value, size, self.n_hvp)
        if asks_to_stop(self.callback, iterate):
            return Status.STOPPED_BY_CALLBACK
        return Status.ITERATION_LIMIT if self.niter >= self.maxiter else None

    def falls_beyond(self, point: ConstrainedPoint) -> bool:
        y = point.y
        far = y + FAR * self.moved
        return falls_beyond(lambda y: self.problem.grad(self.x, y), y, far, self.moved)

    def feasible(self, point: ConstrainedPoint) -> bool:
        return point.infeasibility <= self.tol * self.length(point)

    def step(self, point: ConstrainedPoint) -> tuple[Status | None, ConstrainedPoint]:
        """Return the next point, or a status and this point where there is none."""
        normal = point.rows.particular(-point.h)
        self.violations.append(norm(point.h))
        hold = self.feasible(point) or point.infeasibility <= self.row_rounding(point)
        status = None if hold else self.infeasible(point, normal)
        if status is not None:
            return status, point
        hess = self.lagrangian_hess(point)
        tangent, guessed, status = self.tangential(hess, point, normal)
        if status is not None:
            return status, point
        d = normal + tangent
        if not bool(namespace(d).any(d != 0.0)):
            return self.stalled(point), point
        found = self.search(point, hess, d, guessed)
        before = point.misfit
        if found.status is None:
            new = self.at(found.y)
        elif found.status in {Status.UNBOUNDED, Status.NOT_FINITE}:
            return found.status, point
        else:
            # Where values differ by rounding only, the conditions decide.
            new = self.at(point.y + d)
            if not new.misfit <= 0.5 * before:
                return self.stalled(point), point
        self.niter += 1
        after = new.misfit
        self.moved = new.y - point.y
        self.last = self.last.followed_by(norm(self.moved), before, after, self.inner)
        ended = self.stalled(point) if after > 0.5 * before else None
        if ended is Status.ROUNDING_LIMIT and self.is_long(d, new):
            ended = None
        if ended in {Status.ROUNDING_LIMIT, Status.UNBOUNDED}:
            return ended, point if before <= after else new
        return None, new

    def is_long(self, d: Array, point: ConstrainedPoint) -> bool:
        """Tell a step from rounding: a small residual is most of y on small curvature."""
        return norm(d) > epsilon(point.y) ** (1.0 / 3.0) * self.length(point)

    def infeasible(self, point: ConstrainedPoint, normal: Array) -> Status | None:
        """Return a status where the rows contradict each other, or stay violated."""
        affine, length = self.constraints.affine, self.length(point)
        left = point.h + aslinearoperator(point.jac) @ normal
        if norm(left) > (0.5 if affine else 0.99) * norm(point.h):
            if not contradict(left, point.rows, norm(normal) + length):
                self.notes = (UNSOLVED,)
                return Status.STAGNATED
            self.notes = (name_row(left, point.jac, affine),)
            return Status.INFEASIBLE
        past = self.violations[-_PATIENCE:]
        if len(past) < _PATIENCE or min(past[1:]) <= 0.99 * past[0]:
            return None
        if not contradict(point.h, point.rows, length, far=1.0):
            return Status.STAGNATED
        self.notes = (name_row(point.h, point.jac, affine=False),)
        return Status.INFEASIBLE

    def continue_from_stationary(
        self, status: Status, point: ConstrainedPoint
    ) -> tuple[Status | None, ConstrainedPoint]:
        """Tell a minimum from a saddle point, once; descend from a saddle point."""
        self.probed = True
        problem, p = self.problem, point.h.shape[0]
        H = lagrangian_hess(problem, self.x, point.y, point.multipliers, p)
        direction, found, n_hvp = negative_direction(
            H, point.jac, point.y, is_convex(problem), point.rows
        )
        self.n_hvp += n_hvp
        if direction is None:
            return found or status, point
        if not is_explicit(point.jac):  # MINRES would return to the saddle point
            return Status.NEGATIVE_CURVATURE, point
        self.n_hvp += 1

        def restore(y: Array) -> ConstrainedPoint:
            h = self.constraints.value(self.x, y)
            return self.at(y + point.rows.particular(-h))

        new = _descend(point, direction, aslinearoperator(H), restore)
        self.niter, self.probed = self.niter + 1, False
        return (Status.NEGATIVE_CURVATURE, point) if new is None else (None, new)

    def lagrangian_hess(self, point: ConstrainedPoint) -> LinearOperator:
        """Return H; its caveat becomes a warning."""
        hess = self.problem.hess(self.x, point.y)
        curvature = self.constraints.hess(self.x, point.y, point.multipliers)
        hess = hess if curvature is None else hess + curvature
        self.notes = (hess.note,) if hess.note else ()
        return hess

    def rounding(self, point: ConstrainedPoint) -> float:
        """Return the residual that rounding alone may leave at a point."""
        terms = self.h_norm * norm(point.y) + norm(point.grad) + point.force
        return 64.0 * epsilon(point.y) * terms

    def free_rounding(self, point: ConstrainedPoint) -> float:
        """Return :meth:`rounding` of what the rows leave free."""
        if not is_explicit(point.jac):
            return self.rounding(point)
        xp, jac = namespace(point.y), point.jac
        forces = xp.sqrt(squares(jac).T @ point.multipliers**2)
        y, grad = point.free_size(point.y), point.free_size(point.grad)
        terms = self.h_norm * y + grad + point.free_size(forces)
        return min(64.0 * epsilon(point.y) * terms, self.rounding(point))

    def row_rounding(self, point: ConstrainedPoint) -> float:
        """Return the distance by which rounding alone may miss the rows."""
        return 64.0 * epsilon(point.y) * norm(point.y) * math.sqrt(point.y.shape[0])

    def stalled(self, point: ConstrainedPoint) -> Status:
        """Tell the rounding limit from a line search that failed."""
        small = point.stationarity <= self.rounding(point)
        small = small and point.stationarity <= self.free_rounding(point)
        small = small and point.infeasibility <= self.row_rounding(point)
        start = max(largest(self.y0), 1.0)
        if largest(point.y) > start / math.sqrt(epsilon(point.y)):
            return Status.UNBOUNDED
        return Status.ROUNDING_LIMIT if small else Status.LINE_SEARCH_FAILED

    def tangential(
        self, hess: LinearOperator, point: ConstrainedPoint, normal: Array
    ) -> tuple[Array, bool, Status | None]:
        """Return u, whether its length is a guess, and a status where there is none."""
        force = -(point.lagrangian_grad + hess.matvec(normal))
        self.n_hvp += 1
        force = point.rows.project(force)
        size, unit = norm(force), min(self.length(point), self.last.radius)
        self.inner = size
        if self.is_noise(size, unit, point):
            return 0.0 * force, False, None
        rtol = min(1e-2, size / unit)
        rtol = max(rtol, 0.1 * self.tol * unit / size, 10.0 * epsilon(force))
        system = self.saddle_point(hess, point)
        rhs = namespace(force).concat([force, zeros(point.h.shape, force)])
        result = system.solve(rhs, rtol=min(rtol, 0.5))
        self.n_hvp += result.n_matvec
        self.inner = float(result.residual_norm)
        u, direction = result.x[: force.shape[0]], result.direction
        if system.method != "projected_cg":
            u = point.rows.project(u)
        length = norm(u)
        if result.status is Status.NOT_FINITE or not math.isfinite(length):
            return u, False, Status.NOT_FINITE
        if direction is not None:
            reach = length or max(norm(point.y), 1.0)
            sign = -1.0 if dot(force, direction) < 0.0 else 1.0
            return u + (sign * reach / norm(direction)) * direction, True, None
        if length == 0.0:
            return force, True, None
        Hu = hess.matvec(u)
        self.n_hvp += 1
        self.h_norm = max(self.h_norm, norm(Hu) / length)
        if dot(u, force) <= epsilon(u) ** 0.75 * length * size:
            # MINRES went to a saddle point: its step, reversed, or the steepest descent.
            u = -u if dot(u, force) < -0.1 * length * size else force
            return u, True, None
        return u, dot(u, Hu) <= 0.0, None

    def saddle_point(
        self, hess: LinearOperator, point: ConstrainedPoint
    ) -> SaddlePoint:
        """Return the system of the tangential step.

        Its metric is that of the coordinates, and where the diagonal of H has drifted from
        it that diagonal: the factorisation then costs less than the iterations it saves.
        """
        M = jacobi_of(hess) if is_explicit(point.jac) else None
        if M is None:
            return SaddlePoint(hess, point.rows, M=constraint_of(hess, point.rows))
        diagonal, metric = 1.0 / M.diagonal(), self._metric
        if metric is not None and is_level(diagonal / metric[0], DRIFT):
            return SaddlePoint(hess, metric[1])
        if is_level(diagonal, DRIFT):
            return SaddlePoint(hess, point.rows)
        rows = null_space(point.jac, diagonal)
        self._metric = (diagonal, rows) if self.constraints.affine else None
        return SaddlePoint(hess, rows)

    def is_noise(self, size: float, unit: float, point: ConstrainedPoint) -> bool:
        """Tell whether a free force of this size is rounding of ``unit`` or of the gradient."""
        least = epsilon(point.y)
        if size > least * max(unit, norm(point.grad)):
            return False
        unit = min(unit, point.free_size(point.y))
        return size <= least * max(unit, point.free_size(point.grad))

    def search(
        self, point: ConstrainedPoint, hess: LinearOperator, d: Array, guessed: bool
    ) -> Step:
        """Search along d: by value where there is one, by the residual otherwise."""
        if point.value is None:
            found = search_by_size(point, d, self.at, lambda new: new.misfit)
            if found.status is not None:
                self.notes = (_BY_RESIDUALS,)
            return found
        x, y, h_norm, affine = self.x, point.y, norm(point.h), self.constraints.affine
        J = aslinearoperator(point.jac)

        def slope_of(d: Array) -> float:
            change = self.mu * dot(point.h, J @ d) / h_norm if h_norm else 0.0
            return dot(point.grad, d) + change

        self.mu = max(self.mu, 2.0 * norm(point.multipliers))
        feasible, slope = self.feasible(point), dot(point.grad, d)
        if not feasible:
            curvature = max(dot(d, hess.matvec(d)), 0.0)
            self.n_hvp += 1
            self.mu = max(self.mu, (slope + 0.5 * curvature) / (0.9 * h_norm))
        function: Any = self.problem
        start = point.value
        if not (feasible and affine):  # a step along affine rows needs no penalty
            function = ExactPenalty(self.problem, self.constraints, self.mu)
            start, slope = point.value + self.mu * h_norm, slope_of(d)
        if not affine and not guessed:
            correction = point.rows.particular(-self.constraints.value(x, y + d))
            curved = d + correction
            if (
                norm(correction) <= 0.5 * norm(d)
                and slope_of(curved) <= 0.5 * slope < 0
            ):
                d, slope = curved, slope_of(curved)
        found = search(function, x, y, d, start, slope, guessed, double=True)
        self.n_grad += found.n_grad
        return found


def _descend(
    point: ConstrainedPoint,
    direction: Array,
    H: LinearOperator,
    restore: Callable[[Array], ConstrainedPoint],
) -> ConstrainedPoint | None:
    """Backtrack along a direction of negative curvature until f falls enough.

    ``restore`` evaluates the feasible point next to y; None: no step, or no value of f.
    """
    if point.value is None:
        return None
    p, t = direction / norm(direction), norm(point.y) or 1.0
    curvature = dot(p, H.matvec(p))
    for _ in range(_HALVINGS):
        new = restore(point.y + t * p)
        if new.value is not None:
            violation = norm(new.h) * norm(point.multipliers)
            if new.value + violation <= point.value + 0.1 * curvature * t * t:
                return new
        t *= 0.5
    return None
