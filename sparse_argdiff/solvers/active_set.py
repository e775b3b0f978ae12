"""Newton's method on the optimality conditions with the active inequalities as equations.

    f_Y + Eᵀ ν + G_Aᵀ z_A = 0,   e = 0,   G_A = 0,        A ← { i : z_i > 0 or G_i > 0 }

This is the primal-dual active set method, a semismooth Newton method for complementarity.
It starts at y0 where that is near a solution, otherwise on the barrier path where nearly
all inequalities are classified as active or inactive, and follows the path further when
the set does not settle.  Variables at a bound leave the linear systems.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from ..arrays import Array, epsilon, namespace, norm
from ..krylov.ldl_factor import LDLFactor
from ..krylov.saddle_point import SaddlePoint
from ..operators.block_matrices import (
    diagonal_operator,
    is_factorable,
    mask_of,
    scatter,
)
from ..operators.linear_operator import aslinearoperator
from ..preconditioners import constraint_of
from ..problem.active_constraints import classify
from ..problem.optimality import size_of
from ..problem.problem import Problem, Solution
from ..status import Status
from .interior_point.as_solution import complementarity_ratio
from .interior_point.curvature import free_variables, leads_down, reduced_system
from .interior_point.iterate import PrimalDualIterate, Residuals, evaluate, largest
from .interior_point.primal_dual import (
    MAXITER,
    PathState,
    follow_path,
    is_endless,
    start,
)
from .interior_point.standard_form import StandardForm
from .last_step import LastStep
from .newton_kkt import newton_kkt
from .quadratic_program import judged_by_program, solve_quadratic
from .scaled_problem import solve_scaled
from .stopping import NewtonIterate

logger = logging.getLogger(__name__)

_STEPS = 30
_NEAR = 0.1  # of y: a step this short from the start is tried without the path
_GUESSES = (1e-6, 1.0, 1e-4)  # how far the path is followed: absolute, then tol times
_USEFUL = (Status.STAGNATED, Status.NEGATIVE_CURVATURE)  # ends to guess a set from
_FAR = 1e-4  # of the length one that the coordinates have
_NO_MINIMUM = (Status.NEGATIVE_CURVATURE, Status.UNBOUNDED, Status.INFEASIBLE)
_NOT_SETTLED = (
    "the active set did not settle: this is the end of the barrier path, where "
    "inequalities that its last t leaves undecided are called weak"
)


def active_set(
    problem: Problem,
    x: Array,
    y0: Array,
    *,
    tol: float = 1e-8,
    maxiter: int | None = None,
    callback: Callable[[NewtonIterate], Any] | None = None,
    engine: str | None = None,
    pivoting: bool = True,
    start: Solution | None = None,
) -> Solution:
    """Minimise f(x, ·) under constraints, to an exact point of the optimality conditions.

    Parameters
    ----------
    tol : float
        As for :func:`sparse_argdiff.solvers.barrier`; active rows and bounds then hold to
        rounding, and the others have no multiplier.
    maxiter : int, optional
        Newton steps along the path.
    engine : {"piqp", "clarabel"}, optional
        What finds the first guess of a convex quadratic program with its entries.
    pivoting : bool
        Whether a small strictly convex one is first tried by principal pivoting.
    start : Solution, optional
        Of a quadratic program at a neighbouring x, whose kept factor is tried first.

    Returns
    -------
    Solution
        With multipliers and the active set, weakly active inequalities marked as such.
        Where the set does not settle, the end of the path with a warning.

    References
    ----------
    M. Hintermüller, K. Ito, K. Kunisch, "The primal-dual active set strategy as a
    semismooth Newton method", SIAM J. Optim. 13 (2002) 865-888.
    """
    options: dict[str, Any] = {"tol": tol, "maxiter": maxiter, "callback": callback}
    found, y0, note = solve_quadratic(
        problem,
        x,
        y0,
        engine=engine,
        pivoting=pivoting,
        start=start,
        **options,
    )
    if found is None:
        found = _by_functions(problem, x, y0, **options)
        found = judged_by_program(problem, x, found, tol)
    if not note and len(found.warnings) < 2:
        return found
    notes = (*found.warnings, *([note] if note else []))
    return dataclasses.replace(found, warnings=tuple(dict.fromkeys(notes)))


def _by_functions(
    problem: Problem, x: Array, y0: Array, *, maxiter: int | None, **options: Any
) -> Solution:
    """Return what Newton's method finds with the functions of the problem alone."""
    if problem.inequalities is None and not problem.bounded:
        return newton_kkt(problem, x, y0, maxiter=maxiter, **options)
    maxiter = MAXITER if maxiter is None else maxiter
    options |= {"maxiter": maxiter, "unsettled": _NOT_SETTLED}
    return solve_scaled(_find, problem, x, y0, **options)


def _find(
    problem: Problem,
    x: Array,
    y0: Array,
    tol: float,
    maxiter: int,
    callback: Callable[[NewtonIterate], Any] | None,
) -> Solution:
    """Return the solution, of a scaled problem."""
    path = start(problem, x, y0, tol)
    newton = _ActiveSetNewton(path.best.form, tol)
    found, path = newton.from_start(path, y0)
    status = Status.CONVERGED
    for factor in _GUESSES:
        if found is not None:
            return found
        path_tol = max(1e-6, tol) if factor == _GUESSES[0] else factor * tol
        status, path = follow_path(path, path_tol, maxiter, callback)
        if not status.acceptable and status not in _USEFUL:
            break
        guess = complementarity_ratio(path.best) > 1.0
        found, path = newton.settle(path, path.best.point, guess)
        if status is not Status.CONVERGED:
            break
    if found is not None:
        return found
    if status not in _NO_MINIMUM and path.best.error <= tol:
        end = path.solution(Status.CONVERGED)
        # Far from the origin, in units of the form, tol · |y| may decide on inequalities:
        # a set without weak members is then settled by Newton's method, or wrong.
        weak = end.active is not None and end.active.degenerate
        sizes = namespace(y0).sort(namespace(y0).abs(path.best.point.y))
        far = tol * float(sizes[sizes.shape[0] // 2]) > _FAR
        status = Status.STAGNATED if far and not weak else Status.CONVERGED
        path = dataclasses.replace(path, note=path.note or _NOT_SETTLED)
    return path.solution(status)


@dataclasses.dataclass(frozen=True)
class _Step:
    y: Array
    nu: Array
    z: Array


@dataclasses.dataclass(frozen=True)
class _ActiveSetNewton:
    """Newton on the conditions with an active set that follows the signs."""

    form: StandardForm
    tol: float

    def settle(
        self, path: PathState, point: PrimalDualIterate, active: Array
    ) -> tuple[Solution | None, PathState]:
        """Return the solution where Newton and the set converge, None otherwise.

        The costs are added to the state of the path.
        """
        xp = namespace(point.y)
        y, nu, z = point.y, point.nu, xp.where(active, point.z, 0.0 * point.z)
        # The least residual, and the fewest inequalities that changed.
        smallest, fewest = math.inf, z.shape[0] + 1
        last, before, steepest = LastStep(), 0.0, path.steepest
        step: _Step | None = None
        for _ in range(_STEPS):
            y = self.on_bounds(y, active)
            now, path = self.evaluate(y, nu, z), path.plus(n_grad=1)
            if not math.isfinite(now.size):
                return None, path
            force, length = now.scales
            missing = ~active & (now.r_g > self.tol * length)
            z = self.bound_forces(now.r_d, z, active)
            stationarity, off = self.misfits(now, active)
            left, error = math.hypot(stationarity, off), off / length
            error = max(stationarity / force, error)
            wrong = active & (z < -self.tol * force)
            changed = bool(xp.any(wrong | missing))
            logger.debug("active_set: error %.2e, set to change: %s", error, changed)
            steepest = max(steepest, norm(now.grad))
            if step is not None:
                last = last.followed_by(norm(step.y), before, left)
            if step is not None and is_endless(now, last, steepest, step.y):
                path = dataclasses.replace(path, best=now)
                return path.solution(Status.UNBOUNDED), path
            done = step is not None and last.is_last(length, self.tol, now.rounding)
            if now.value is not None and not math.isfinite(now.value):
                return None, path
            if error <= self.tol and done and not changed:
                z = xp.where(active, z, 0.0 * z)
                return self.solution(now, z, path)
            if error <= max(self.tol, 1e-6) and changed:
                active = (active & ~wrong) | missing
                z = xp.where(active, z, 0.0 * z)
                count = int(xp.count_nonzero(wrong | missing))
                if count >= fewest:
                    return None, path
                fewest = count
                y = self.on_bounds(y, active)
                now, path = self.evaluate(y, nu, z), path.plus(n_grad=1)
                left, smallest = math.hypot(*self.misfits(now, active)), math.inf
            elif not left <= 0.9 * smallest:
                return None, path
            else:
                smallest = left
            step, n_hvp = self.step(now, active)
            path = path.plus(n_hvp=n_hvp)
            if step is None:
                return None, path
            path, before = path.plus(niter=1), left
            y, nu, z = y + step.y, nu + step.nu, z + step.z
        return None, path

    def misfits(self, now: Residuals, active: Array) -> tuple[float, float]:
        """Return the force on the free variables, and by how much the rows are off."""
        xp = namespace(active)
        held = xp.where(active, now.r_g, 0.0 * now.r_g)
        force = norm(now.r_d[free_variables(self.form, active)])
        return force, math.hypot(norm(now.r_e), norm(held))

    def evaluate(self, y: Array, nu: Array, z: Array) -> Residuals:
        """Evaluate the conditions at a point without slacks."""
        return evaluate(self.form, PrimalDualIterate(y, nu, z, 0.0 * z))

    def on_bounds(self, y: Array, active: Array) -> Array:
        """Return y with the variables of active bounds on them."""
        form, xp = self.form, namespace(y)
        _, low, high = form.split(active)
        for index, side in (
            (form.at_lower[low], form.lower),
            (form.at_upper[high], form.upper),
        ):
            y = xp.where(mask_of(y.shape[0], index), side, y)
        return y

    def bound_forces(self, r_d: Array, z: Array, active: Array) -> Array:
        """Return z with the forces of active bounds chosen such that r_d vanishes there."""
        form, q, xp = self.form, self.form.q, namespace(z)
        pulls = xp.concat([0.0 * z[:q], r_d[form.at_lower], -r_d[form.at_upper]])
        return xp.where(active, z + pulls, z)

    def from_start(
        self, path: PathState, y0: Array
    ) -> tuple[Solution | None, PathState]:
        """Try a start that is close to a solution, such as that of a neighbouring x."""
        form, xp = self.form, namespace(y0)
        values, length = form.inequality_values(y0), size_of(y0)
        violations = form.equalities(y0), xp.maximum(values, 0.0 * values)
        if not max(map(largest, violations)) <= _NEAR * length:
            return None, path
        active = values >= -1e-6 * length
        y, zeros = self.on_bounds(y0, active), 0.0 * values
        now, path = self.evaluate(y, 0.0 * form.e_scale, zeros), path.plus(n_grad=1)
        if not math.isfinite(now.size):
            return None, path
        n, identity = y.shape[0], diagonal_operator(xp.ones_like(y))
        if isinstance(y, np.ndarray):
            identity = sparse.eye_array(n, format="csr")
        step, n_hvp = self.step(now, active, identity)
        path = path.plus(n_hvp=n_hvp)
        if step is None or not norm(step.y) <= _NEAR * norm(y):
            return None, path
        return self.settle(path, PrimalDualIterate(y, step.nu, step.z, zeros), active)

    def step(
        self, now: Residuals, active: Array, H: Any = None
    ) -> tuple[_Step | None, int]:
        """Solve the linearised equations of the active set, with its own H or another.

        Returns the products with H, too.
        """
        point = now.point
        xp, n, q = namespace(point.y), point.y.shape[0], self.form.q
        top, C, free, rows = reduced_system(now, active, H)
        c = xp.concat([now.r_e, now.r_g[:q][rows]])
        found, n_hvp = _solve(top, C, -now.r_d[free], -c, self.tol)
        if found is None or not math.isfinite(norm(found)):
            return None, n_hvp
        k, p = free.shape[0], now.r_e.shape[0]
        dz = scatter(point.z.shape[0], rows)(found[k + p :])
        return _Step(scatter(n, free)(found[:k]), found[k : k + p], dz), n_hvp

    def solution(
        self, now: Residuals, z: Array, path: PathState
    ) -> tuple[Solution | None, PathState]:
        """Return what has converged, None where it is no minimum."""
        form, point, xp = self.form, now.point, namespace(z)
        multipliers = form.multipliers(point.nu, xp.where(z > 0.0, z, 0.0 * z))
        active = classify(form.problem, form.x, point.y, multipliers)
        strong = form.stacked(point.y, active.strong, active.fixed)
        weak = form.stacked(point.y, active.weak, active.weak_fixed)
        status, n_hvp = leads_down(now, strong, weak)
        path = path.plus(n_hvp=n_hvp)
        if status is not None:
            down = path.nonconvex or status is Status.NEGATIVE_CURVATURE
            return None, dataclasses.replace(path, nonconvex=down)
        converged = dataclasses.replace(path, best=now)
        return converged.solution(Status.CONVERGED, active, multipliers), path


def _solve(
    H: Any, C: Any, force: Array, c: Array, tol: float
) -> tuple[Array | None, int]:
    """Solve [H C'; C 0] z = (force, c); return z and the products with H."""
    if force.shape[0] + c.shape[0] == 0:
        return force, 0
    parts = [] if C is None else [C]
    if is_factorable(force, H, *parts):
        H = sparse.csr_array(H)
        C = sparse.csr_array((0, H.shape[0])) if C is None else sparse.csr_array(C)
        factor = LDLFactor(H, C, np.zeros(C.shape[0]))
        if factor.negative_curvature:  # Newton would go to a saddle
            return None, 0
        exact = factor.solve(np.concatenate([force, c]))
        return exact.astype(force.dtype, copy=False), 0
    H = aslinearoperator(H)
    rtol = max(0.1 * tol, 10.0 * epsilon(force))
    system = SaddlePoint(H, C, M=constraint_of(H, C))
    result = system.solve(namespace(force).concat([force, c]), rtol=rtol)
    failed = result.status in {Status.NOT_FINITE, Status.NEGATIVE_CURVATURE}
    return None if failed else result.x, result.n_matvec
