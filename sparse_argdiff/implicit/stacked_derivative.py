"""Derivatives of stacked quadratic programs by all their data, at exact active sets.

    adjoint   K (u, w) = (v, v_μ)       ∂/∂q = −u,              ∂/∂P = −½ (u y' + y u'),
                                        ∂/∂b = w,  ∂/∂A = −(μ u' + w y'),  likewise G and h

    tangent   K (dy, dμ) = −(dP y + dq + dC'μ, dC y − dc)

K has the active rows and the free variables; what a bound holds moves with the bound.

References
----------
B. Amos, J. Z. Kolter, "OptNet: differentiable optimization as a layer in neural networks",
ICML 2017, arXiv:1703.00443, equation (8).
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np

from ..arrays import Array, asarray, epsilon, namespace
from ..krylov.stacked import apply, apply_transposed
from ..problem.equilibrate import Equilibrated, equilibrate
from ..problem.stacked_active import HeldSystem
from ..problem.stacked_point import StackedPoint
from ..problem.stacked_quadratic import StackedQuadratic

_STEPS = 8  # proximal steps of a linear solve
REGULAR = 1e-10  # residual of a random right-hand side that a regular K meets


@dataclasses.dataclass(frozen=True, eq=False)
class DataCotangent:
    """The parts of the derivatives by all data.

    Attributes
    ----------
    u : array (k, n)
        Adjoint of y.
    nu, rows : arrays (k, p), (k, r)
        Adjoints of the rows.
    bounds : array (k, n)
        Derivatives by the bounds that hold, zero elsewhere.
    """

    u: Array
    nu: Array
    rows: Array
    bounds: Array


class StackedDerivative:
    """The linearised conditions of a stack of solutions, factorised once.

    Attributes
    ----------
    regular : bool array (k,)
        Where K is regular, so that the derivative exists and is unique.
    """

    def __init__(self, data: StackedQuadratic, point: StackedPoint) -> None:
        self.data, self.point = data, point
        self.units: Equilibrated = equilibrate(data)
        self.system = HeldSystem(self.units.data, point.held)
        self.regular = self._meets(rows_move=True)

    def _meets(self, *, rows_move: bool) -> Array:
        """Return where a random right-hand side is met, as K does if it is regular."""
        xp, (k, n) = namespace(self.point.y), self.point.y.shape
        rng, rows = np.random.default_rng(0), self.system.C.shape[1]
        dual, primal = rng.standard_normal(n), rng.standard_normal(rows)
        _, _, left = self._solve(
            xp.broadcast_to(asarray(dual, self.point.y)[None, :], (k, n)),
            xp.broadcast_to(
                asarray(primal if rows_move else 0.0 * primal, self.point.y)[None, :],
                (k, rows),
            ),
        )
        return left <= REGULAR

    @cached_property
    def isolated(self) -> Array:
        """Where y is unique, bool (k,): K is regular but for rows that depend on each other."""
        if bool(namespace(self.regular).all(self.regular)):
            return self.regular
        return self.regular | self._meets(rows_move=False)

    def error(self) -> Array:
        """Return the residual of the conditions at the points, relative to their terms, (k,)."""
        xp, at, data, system = (
            namespace(self.point.y),
            self.point,
            self.data,
            self.system,
        )
        Py, Ay, Gy = apply(data.P, at.y), apply(data.A, at.y), apply(data.G, at.y)
        pull = apply_transposed(data.A, at.nu) + apply_transposed(data.G, at.rows)
        pull = pull + at.bounds
        units = self.units
        scale = units.D * units.gamma
        size = xp.maximum(_sup(Py * scale), _sup(data.q * scale))
        size = xp.maximum(size, _sup(pull * scale))
        one = xp.ones_like(size)
        left = _sup((Py + data.q + pull) * scale) / xp.where(size > 0.0, size, one)
        sides = xp.where(at.upper_rows, data.h, data.h_lower)
        length = _sup(at.y / units.D)
        for value, side, factor, held in (
            (Ay, data.b, units.E, None),
            (Gy, sides, units.F, at.held.rows != 0),
            (
                at.y,
                xp.where(at.upper_bounds, data.upper, data.lower),
                1.0 / units.D,
                ~system.free,
            ),
        ):
            off = (value - side) * factor
            off = off if held is None else xp.where(held, off, xp.zeros_like(off))
            miss = _sup(off) / xp.where(length > 0.0, length, one)
            left = xp.maximum(left, miss)
        return left

    def _solve(self, dual: Array, primal: Array) -> tuple[Array, Array, Array]:
        """Solve K (u, w) = (dual, primal) on free variables and active rows.

        Also returned is the residual, relative to the right-hand side and the terms of it.
        """
        xp, system, p = namespace(dual), self.system, self.data.A.shape[1]
        dual = dual * system.free
        acting = xp.concat([xp.ones_like(primal[:, :p]), 1.0 * system.acting], axis=1)
        primal = primal * acting
        u, w = xp.zeros_like(dual), xp.zeros_like(primal)
        size = xp.maximum(_sup(dual), _sup(primal))
        size = xp.where(size > 0.0, size, xp.ones_like(size))
        least, best = xp.full_like(size, xp.inf), (u, w)
        going = xp.isfinite(size)  # a member stops by its own residuals
        for _ in range(_STEPS):
            du, dw = system.product(u, w)
            left = (du - dual) * system.free, (dw - primal) * acting
            error = xp.maximum(_sup(left[0]), _sup(left[1])) / size
            going = going & (error < 0.25 * least)
            best = tuple(
                xp.where(going[:, None], new, old)
                for new, old in zip((u, w), best, strict=True)
            )
            least = xp.where(going, error, least)
            going = going & (error > 32.0 * epsilon(u))
            if not bool(xp.any(going)):
                break
            du, dw = system.step(*left)
            u, w = u + du * system.free, w + dw * acting
        return *best, least

    def adjoint(
        self,
        v: Array,
        nu: Array | None = None,
        rows: Array | None = None,
        bounds: Array | None = None,
    ) -> DataCotangent:
        """Return the derivatives of v'y + ν̄'ν + …, of seeds for y and for multipliers."""
        xp, units, system = namespace(v), self.units, self.system
        p = self.data.A.shape[1]
        zeros = xp.zeros((v.shape[0], p + self.point.rows.shape[1]), dtype=v.dtype)
        seeds = [
            zeros[:, :p] if nu is None else nu * units.E / units.gamma,
            zeros[:, p:] if rows is None else rows * units.F / units.gamma,
        ]
        dual, primal = v * units.D, system.gathered(*seeds)
        force = xp.zeros_like(dual)
        if bounds is not None:  # a bound's multiplier is minus the gradient there
            force = xp.where(system.free, force, bounds / (units.D * units.gamma))
            dual = dual - apply(units.data.P, force)
            primal = primal - apply(system.whole_rows, force)
        u, w, _ = self._solve(dual, primal)
        u = u + force
        gradient = apply(units.data.P, u) + apply_transposed(system.whole_rows, w)
        moved = xp.where(system.free, xp.zeros_like(u), v * units.D - gradient)
        w_nu, w_rows = system.scattered(w)
        return DataCotangent(
            u=u * units.D * units.gamma,
            nu=w_nu * units.E,
            rows=w_rows * units.F,
            bounds=moved / units.D,
        )

    def tangent(self, change: StackedQuadratic) -> tuple[Array, Array, Array, Array]:
        """Return dy, dν and the changes of the multipliers of rows and bounds.

        ``change``: the direction in all data, zeros where a datum stays.
        """
        xp, units, system, at = (
            namespace(self.point.y),
            self.units,
            self.system,
            self.point,
        )
        y = at.y
        moved = xp.where(at.upper_bounds, change.upper, change.lower)
        fixed = xp.where(system.free, xp.zeros_like(y), moved)
        force = apply(change.P, y) + change.q + apply(self.data.P, fixed)
        force = force + apply_transposed(change.A, at.nu)
        force = force + apply_transposed(change.G, at.rows)
        side = xp.where(at.upper_rows, change.h, change.h_lower)
        nu = apply(change.A, y) - change.b + apply(self.data.A, fixed)
        rows = apply(change.G, y) - side + apply(self.data.G, fixed)
        dual = -force * units.D * units.gamma
        primal = -system.gathered(nu * units.E, rows * units.F)
        dy, dmu, _ = self._solve(dual, primal)
        d_nu, d_rows = system.scattered(dmu)
        d_nu, d_rows = d_nu * units.E / units.gamma, d_rows * units.F / units.gamma
        dy = dy * units.D
        pull = force + apply(self.data.P, dy) + apply_transposed(self.data.A, d_nu)
        pull = pull + apply_transposed(self.data.G, d_rows)
        return dy + fixed, d_nu, d_rows, xp.where(system.free, xp.zeros_like(y), -pull)


def _sup(v: Any) -> Any:
    xp = namespace(v)
    if v.shape[1] == 0:
        return xp.zeros((v.shape[0],), dtype=v.dtype)
    return xp.max(xp.abs(v), axis=1)
