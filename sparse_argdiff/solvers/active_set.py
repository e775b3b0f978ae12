"""An exact point of the optimality conditions: Newton with the active sides as equations.

    f_Y + Eᵀ ν + G_Aᵀ z_A = 0,   e = 0,   G_A = 0,        A ← { i : z_i > 0 or G_i > 0 }

This is the primal-dual active set method, Newton's for the complementarity equations.  It
begins at y0 where that is near a solution, otherwise where the barrier path has nearly
told active sides from inactive ones, and goes back to the path for a better guess when the
set does not settle.  Variables at a bound leave the linear systems.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from ..arrays import Array, epsilon, namespace, norm, to_namespace
from ..krylov import cg, minres, projected_cg
from ..operators.block_matrices import (
    diagonal_operator,
    is_explicit,
    mask_of,
    principal,
    scatter,
    take_columns,
    take_rows,
    vstack,
)
from ..operators.linear_operator import aslinearoperator
from ..preconditioners import jacobi_of
from ..problem.lagrangian import explicit, lagrangian_hess
from ..problem.optimality import classify, size_of
from ..problem.problem import Problem, Solution
from ..status import Status
from .infeasibility import largest
from .interior_point.as_solution import record, strength
from .interior_point.iterate import Central, Residuals
from .interior_point.ldl_factor import Factor
from .interior_point.newton_system import probe
from .interior_point.primal_dual import InteriorPoint
from .newton_cg import NewtonIterate
from .newton_kkt import newton_kkt
from .projections import projections, saddle

logger = logging.getLogger(__name__)

_STEPS = 30
_NEAR = 0.1  # a start whose conditions are met to this is tried without the path
_GUESSES = (1e-6, 1.0, 1e-4)  # how far the path is followed: absolute, then tol times
_USEFUL = (Status.STAGNATED, Status.NEGATIVE_CURVATURE)  # ends to guess a set from


def active_set(
    problem: Problem,
    x: Array,
    y0: Array,
    *,
    tol: float = 1e-8,
    maxiter: int | None = None,
    callback: Callable[[NewtonIterate], Any] | None = None,
) -> Solution:
    """Minimise f(x, ·) under constraints, to an exact point of the optimality conditions.

    Parameters
    ----------
    tol : float
        As for :func:`sparse_argdiff.solvers.barrier`; active rows and bounds then hold to
        rounding, and the others have no multiplier.
    maxiter : int, optional
        Newton steps along the path.

    Returns
    -------
    Solution
        With multipliers and the active set, weakly active sides apart.  Where the set does
        not settle it is the solution at the end of the path, and says so in its warnings.

    References
    ----------
    M. Hintermüller, K. Ito, K. Kunisch, "The primal-dual active set strategy as a
    semismooth Newton method", SIAM J. Optim. 13 (2002) 865-888.
    """
    if problem.inequalities is None and not problem.bounded:
        return newton_kkt(problem, x, y0, tol=tol, maxiter=maxiter, callback=callback)
    run = InteriorPoint(problem, x, y0, tol, maxiter, callback)
    polish = _Polish(run, tol)
    found = polish.from_start(y0)
    if found is not None:
        return found
    status = Status.CONVERGED
    for factor in _GUESSES:
        run.tol = max(1e-6, tol) if factor == _GUESSES[0] else factor * tol
        status = run.follow()
        if not status.acceptable and status not in _USEFUL:
            break
        point = run.best.point
        found = polish.settle(point, strength(run) > 1.0)
        if found is not None:
            return found
        if status is not Status.CONVERGED:
            break
    saddle = status is Status.NEGATIVE_CURVATURE
    if not saddle and math.isfinite(run.best.size) and run.error(run.best) <= tol:
        status = Status.CONVERGED
        run.note = run.note or (
            "the active set did not settle: this is the end of the barrier path, where "
            "sides that its last t leaves undecided are called weak"
        )
    return run.solution(status)


@dataclasses.dataclass(frozen=True)
class _Step:
    y: Array
    nu: Array
    z: Array


class _Polish:
    """Newton on the conditions with an active set that follows the signs."""

    def __init__(self, run: InteriorPoint, tol: float) -> None:
        self.run, self.form, self.tol = run, run.form, tol

    def settle(self, point: Central, active: Array) -> Solution | None:
        """Return the solution where Newton and the set converge, None otherwise."""
        run, xp = self.run, namespace(point.y)
        y, nu, z = point.y, point.nu, xp.where(active, point.z, 0.0 * point.z)
        seen: set[bytes] = set()
        smallest, solved = math.inf, False  # solved: a step was taken with this set
        for _ in range(_STEPS):
            y = self.on_bounds(y, active)
            now = run.at(Central(y, nu, z, 0.0 * z))
            if not math.isfinite(now.size):
                return None
            force, length = run.units(now.grad, y)
            sides = now.r_g
            missing = ~active & (sides > self.tol * length)
            held = xp.where(active, sides, 0.0 * sides)
            free = self.free(y, active)
            z = self.bound_forces(now.r_d, z, active)
            stationarity = norm(now.r_d[free])
            error = max(stationarity / force, largest(now.r_e) / length)
            error = max(error, largest(held) / length)
            wrong = active & (z < -self.tol * force)
            changed = bool(xp.any(wrong | missing))
            logger.debug("active_set: error %.2e, set to change: %s", error, changed)
            if error <= self.tol and solved and not changed:
                if self.bends_down(now, active):
                    return None
                return self.solution(now, xp.where(active, z, 0.0 * z))
            if error <= max(self.tol, 1e-6) and changed:
                active = (active & ~wrong) | missing
                z = xp.where(active, z, 0.0 * z)
                key = bytes(np.packbits(to_namespace(active, np)))
                if key in seen:
                    return None
                seen.add(key)
                smallest = math.inf
                y = self.on_bounds(y, active)
                now = run.at(Central(y, nu, z, 0.0 * z))
            elif solved and not error <= 0.9 * smallest:
                return None
            else:
                smallest = error
            step = self.step(now, active)
            if step is None:
                return None
            run.niter, solved = run.niter + 1, True
            y, nu, z = y + step.y, nu + step.nu, z + step.z
        return None

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

    def free(self, y: Array, active: Array) -> Array:
        """Return the index of the variables at no active bound."""
        form, xp = self.form, namespace(y)
        _, low, high = form.split(active)
        n = y.shape[0]
        held = mask_of(n, form.at_lower[low]) | mask_of(n, form.at_upper[high])
        (free,) = xp.nonzero(~held)
        return free

    def bound_forces(self, r_d: Array, z: Array, active: Array) -> Array:
        """Return z with the forces of active bounds chosen such that r_d vanishes there."""
        form, q, xp = self.form, self.form.q, namespace(z)
        pulls = xp.concat([0.0 * z[:q], r_d[form.at_lower], -r_d[form.at_upper]])
        return xp.where(active, z + pulls, z)

    def from_start(self, y0: Array) -> Solution | None:
        """Try a start that is close to a solution, such as that of a neighbouring x."""
        run, form, xp = self.run, self.form, namespace(y0)
        sides, length = form.sides(y0), size_of(y0)
        off = max(largest(form.equalities(y0)), largest(xp.maximum(sides, 0.0 * sides)))
        if not off <= _NEAR * length:
            return None
        active = sides >= -1e-6 * length
        y, nothing = self.on_bounds(y0, active), 0.0 * sides
        now = run.at(Central(y, 0.0 * form.e_scale, nothing, nothing))
        if not math.isfinite(now.size):
            return None
        n, identity = y.shape[0], diagonal_operator(xp.ones_like(y))
        if isinstance(y, np.ndarray):
            identity = sparse.eye_array(n, format="csr")
        step = self.step(now, active, identity)
        force, _ = run.units(now.grad, y)
        if step is None or not norm(step.y) <= _NEAR * force:
            return None
        return self.settle(Central(y, step.nu, step.z, nothing), active)

    def step(self, now: Residuals, active: Array, H: Any = None) -> _Step | None:
        """Solve the linearised equations of the active set, with its own H or another."""
        run, point = self.run, now.point
        xp, n, q = namespace(point.y), point.y.shape[0], self.form.q
        free = self.free(point.y, active)
        (rows,) = xp.nonzero(active[:q])
        top, C = self.system(now, free, rows, H)
        c = xp.concat([now.r_e, now.r_g[:q][rows]])
        found, n_hvp = _solve(top, C, -now.r_d[free], -c, self.tol)
        run.n_hvp += n_hvp
        if found is None or not math.isfinite(norm(found)):
            return None
        k, p = free.shape[0], now.r_e.shape[0]
        dz = scatter(point.z.shape[0], rows)(found[k + p :])
        return _Step(scatter(n, free)(found[:k]), found[k : k + p], dz)

    def system(
        self, now: Residuals, free: Array, rows: Array, H: Any = None
    ) -> tuple[Any, Any]:
        """Return H on the free variables, and the equations of the active set."""
        run, form, point = self.run, self.form, now.point
        if H is None:
            multipliers = form.multipliers(point.nu, point.z)
            H = lagrangian_hess(run.problem, run.x, point.y, multipliers, form.p)
            H = H * (1.0 / form.unit)
        parts = [] if now.E is None else [now.E]
        if rows.shape[0]:
            parts.append(take_rows(now.J, rows))
        C = take_columns(vstack(parts), free) if parts else None
        return H[free][:, free] if is_explicit(H) else principal(H, free), C

    def bends_down(self, now: Residuals, active: Array) -> bool:
        """Tell whether f curves down where the active set leaves room.

        A factorisation has told it at each step, CG may not have met it.
        """
        xp, free = namespace(active), self.free(now.point.y, active)
        (rows,) = xp.nonzero(active[: self.form.q])
        H, C = self.system(now, free, rows)
        if explicit(active, H, *([] if C is None else [C])) or not free.shape[0]:
            return False
        rows_of = None if C is None else projections(C)
        found = probe(aslinearoperator(H), C, rows_of, now.point.y)
        self.run.n_hvp += found.n_matvec
        return found.status is Status.NEGATIVE_CURVATURE

    def solution(self, now: Residuals, z: Array) -> Solution:
        """Return what has converged, in the problem's units."""
        run, point, xp = self.run, now.point, namespace(z)
        multipliers = self.form.multipliers(point.nu, xp.where(z > 0.0, z, 0.0 * z))
        active = classify(run.problem, run.x, point.y, multipliers)
        return record(run, now, multipliers, active, Status.CONVERGED)


def _solve(
    H: Any, C: Any, force: Array, c: Array, tol: float
) -> tuple[Array | None, int]:
    """Solve [H C'; C 0] z = (force, c); return z and the products with H."""
    if force.shape[0] + c.shape[0] == 0:
        return force, 0
    parts = [] if C is None else [C]
    if explicit(force, H, *parts):
        H = sparse.csr_array(H)
        C = sparse.csr_array((0, H.shape[0])) if C is None else sparse.csr_array(C)
        factor = Factor(H, C, np.zeros(C.shape[0]))
        if factor.bends_down():  # Newton would go to a saddle
            return None, 0
        z = factor.solve(np.concatenate([force, c]))
        return z.astype(force.dtype, copy=False), 0
    H = aslinearoperator(H)
    rtol = max(0.1 * tol, 10.0 * epsilon(force))
    xp = namespace(force)
    if C is None:
        result = cg(H, force, rtol=rtol, M=jacobi_of(H))
        z = result.x
    elif is_explicit(C):
        result = projected_cg(H, C, force, c, rtol=rtol)
        z = xp.concat([result.x, result.multipliers])
    else:
        result = minres(saddle(H, C), xp.concat([force, c]), rtol=rtol)
        z = result.x
    failed = result.status in {Status.NOT_FINITE, Status.NEGATIVE_CURVATURE}
    return None if failed else z, result.n_matvec
