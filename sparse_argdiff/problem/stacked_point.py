"""Solutions of stacked quadratic programs, by signed multipliers and by the problem's rows.

A row h_lower <= G y <= h has one signed multiplier here, positive at h and negative at
h_lower; the problem has a row with a multiplier >= 0 for each side that was given.
"""

from __future__ import annotations

import dataclasses

from ..arrays import Array, namespace, zeros
from ..krylov.stacked import apply, apply_transposed
from .batch_solution import BatchSolution
from .problem import ActiveSet
from .stacked_active import FIXED, HeldSet
from .stacked_parameters import StackedParameters
from .stacked_quadratic import StackedQuadratic


@dataclasses.dataclass(frozen=True, eq=False)
class StackedPoint:
    """Solutions of k programs.

    Attributes
    ----------
    y : array (k, n)
    nu, rows, bounds : arrays (k, p), (k, r), (k, n)
        Multipliers, of rows and bounds positive for upper sides.
    held : HeldSet
        What acts.
    """

    y: Array
    nu: Array
    rows: Array
    bounds: Array
    held: HeldSet

    @property
    def upper_rows(self) -> Array:
        """Where a row that acts does so at its upper side."""
        held = self.held.rows
        return namespace(held).where(held == FIXED, self.rows >= 0.0, held > 0)

    @property
    def upper_bounds(self) -> Array:
        """Where a variable goes with the upper bound: the one that it is pushed against."""
        held = self.held.bounds
        return namespace(held).where(held == FIXED, self.bounds > 0.0, held > 0)


def multipliers_of_rows(sides: list[str], nu: Array, rows: Array) -> Array:
    """Return the multipliers (k, p + q) of the problem's rows."""
    xp, none = namespace(nu), zeros((1, 1), nu)
    parts = [xp.maximum(rows if name == "h" else -rows, none) for name in sides]
    return xp.concat([nu, *parts], axis=1)


def masks_of_rows(sides: list[str], held: Array) -> Array:
    """Return which of the problem's inequality rows a signed mask (k, r) stands for."""
    xp = namespace(held)
    none = zeros((held.shape[0], 0), held, xp.bool)
    parts = [(held > 0) if name == "h" else (held < 0) for name in sides]
    return xp.concat([none, *parts], axis=1)


def residuals_of(
    sides: list[str],
    data: StackedQuadratic,
    at: tuple[Array, Array, Array],
    active: ActiveSet,
) -> Array:
    """Return the conditions that hold with equality, (k, n + p + q), at (y, ν, rows).

    The gradient of the Lagrangian where no bound holds, the equality rows, and those of the
    problem's inequality rows that act.
    """
    xp, (y, nu, rows) = namespace(at[0]), at
    force = data.gradient(y) + apply_transposed(data.A, nu)
    force = force + apply_transposed(data.G, rows)
    Gy = apply(data.G, y)
    parts = [Gy - data.h if name == "h" else data.h_lower - Gy for name in sides]
    values = xp.concat([zeros((y.shape[0], 0), y), *parts], axis=1)
    return xp.concat(
        [
            xp.where(active.fixed, 0.0 * force, force),
            apply(data.A, y) - data.b,
            xp.where(active.strong, values, xp.zeros_like(values)),
        ],
        axis=1,
    )


def seeds_of_rows(
    parameters: StackedParameters, point: StackedPoint, seeds: Array
) -> tuple[Array, Array]:
    """Return seeds for ν and for the signed multipliers, from those (k, p + q) of the rows."""
    xp, (_, p, r) = namespace(seeds), parameters.shape
    rows = 0.0 * point.rows
    for j, name in enumerate(parameters.sides):
        part = seeds[:, p + j * r : p + (j + 1) * r]
        if name == "h":
            rows = rows + xp.where(point.upper_rows, part, 0.0 * part)
        else:
            rows = rows - xp.where(point.upper_rows, 0.0 * part, part)
    return seeds[:, :p], rows


def point_of(
    parameters: StackedParameters,
    data: StackedQuadratic,
    solutions: BatchSolution,
    members: slice,
) -> StackedPoint:
    """Return some members of a record as stacked solutions, zero where they failed."""
    xp, (_, p, r) = namespace(solutions.y), parameters.shape
    good = solutions.converged[members][:, None]

    def part(v: Array) -> Array:
        whole = xp.astype(v[members, ...], xp.float64)
        return xp.where(good, whole, xp.zeros_like(whole))

    y = part(solutions.y)
    rows = zeros((y.shape[0], r), y)
    acting = zeros((y.shape[0], r), y, xp.int8)
    nu = zeros((y.shape[0], p), y)
    if solutions.multipliers is not None:
        given = part(solutions.multipliers)
        nu = given[:, :p]
        for j, name in enumerate(parameters.sides):
            place = slice(j * r, (j + 1) * r)
            assert solutions.active is not None
            strong = xp.astype(solutions.active.strong[members, place], xp.int8)
            own = given[:, p + j * r : p + (j + 1) * r]
            rows = rows + own if name == "h" else rows - own
            acting = acting + strong if name == "h" else acting - strong
    bounds, held = xp.zeros_like(y), zeros(y.shape, y, xp.int8)
    if solutions.bound_multipliers is not None and solutions.active is not None:
        bounds = -part(solutions.bound_multipliers)
        upper = data.upper - y < y - data.lower
        fixed = xp.astype(solutions.active.fixed[members, :], xp.int8)
        held = xp.where(upper, fixed, -fixed)
    two = xp.asarray(FIXED, dtype=xp.int8)
    return StackedPoint(
        y=y,
        nu=nu,
        rows=rows,
        bounds=bounds,
        held=HeldSet(
            xp.where(data.h == data.h_lower, two, acting),
            xp.where(data.lower == data.upper, two, held),
        ),
    )
