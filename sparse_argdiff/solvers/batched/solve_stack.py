"""Solve a stack of dense quadratic programs, each to its exact active set.

equilibrate  →  interior point  →  polish and certify  →  (closer, and again)
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ...arrays import Array, namespace
from ...arrays.transfer import to_host
from ...problem.equilibrate import Equilibrated, equilibrate
from ...problem.stacked_active import HeldSet
from ...problem.stacked_quadratic import StackedQuadratic
from ...status import Status
from .interior_point import Iterate, interior_point
from .polish import CERTIFIED, Polished, polish, proposed, touching
from .prepare import convexified, indefinite, prepare, without_fixed

_ROUNDS = (1e-5, 1e-11)  # errors of the interior point before the active set is guessed


@dataclasses.dataclass(frozen=True, eq=False)
class StackedSolutions:
    """Solutions of k programs, in the units of the data.

    Attributes
    ----------
    y : array (k, n)
    nu : array (k, p)
        Multipliers of the equality rows.
    rows, bounds : arrays (k, r), (k, n)
        Multipliers of rows and bounds, positive for the upper side, negative for the lower.
    held : HeldSet
        The sides that act.
    weak_rows, weak_bounds : int arrays (k, r), (k, n)
        1 above, −1 below, where slack and multiplier of a side are both zero.
    error : array (k,)
        Largest residual of the conditions relative to the terms that cancel in it.
    status : list of Status or None, k long
        None where the method came to no end.
    niter : int array (k,)
    """

    y: Array
    nu: Array
    rows: Array
    bounds: Array
    held: HeldSet
    weak_rows: Array
    weak_bounds: Array
    error: Array
    status: list[Status | None]
    niter: Array


def solve_stack(
    given: StackedQuadratic, y0: Array | None = None, held: HeldSet | None = None
) -> StackedSolutions:
    """Solve the programs of one stack.

    ``y0``: starts (k, n), such as solutions for a neighbouring x; ``held``: what acts there,
    by default the sides that y0 is on.  Where that set is the right one, which is proven as
    always, no iteration is made.
    """
    # Members that fail overflow on the way, and are told apart at the end.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return _solved(given.widened(given.count), y0, held)


def _solved(
    given: StackedQuadratic, y0: Array | None, held: HeldSet | None
) -> StackedSolutions:
    prepared = prepare(given)
    xp, k = namespace(given.q), given.count
    units = equilibrate(prepared.data)
    wrong = dict(prepared.wrong)
    reduced, fixed, value = without_fixed(units.data)
    concave = xp.broadcast_to(indefinite(reduced.P), (k,))
    if bool(xp.any(concave)):
        reduced, failed = convexified(reduced, concave)
        wrong[Status.NEGATIVE_CURVATURE] = failed
    lost = xp.zeros((k,), dtype=xp.bool)
    for mask in wrong.values():
        lost = lost | mask
    if y0 is None:
        found, niter, proofs = _rounds(units.data, reduced, fixed, value, lost)
    else:
        start = _at_start(units, y0, held)
        found, niter, proofs = _from(start, units.data, reduced, fixed, value, lost)
    status: list[Status | None] = [None] * k
    certified = found.settled & (found.error <= CERTIFIED)
    for name, mask in ((Status.CONVERGED, certified), *proofs.items(), *wrong.items()):
        for i in np.flatnonzero(to_host(mask)):
            status[i] = name
    y = _within(prepared.data, found.y * units.D, found.held.bounds)
    return _in_user_units(found, y, units, status, niter)


def _rounds(
    data: StackedQuadratic,
    reduced: StackedQuadratic,
    fixed: Array,
    value: Array,
    lost: Array,
) -> tuple[Polished, Array, dict[Status, Array]]:
    """Alternate between the interior point and the polish for what is not certified."""
    xp = namespace(data.q)
    at, _, infeasible, unbounded, niter = interior_point(reduced, _ROUNDS[0])
    found = _polished(data, reduced, at, fixed, value)
    for tol in _ROUNDS[1:]:
        good = found.settled & (found.error <= CERTIFIED)
        (index,) = xp.nonzero(~(good | infeasible | unbounded | lost))
        if index.shape[0] == 0:
            break
        part = reduced.take(index)
        closer, _, no_y, no_end, more = interior_point(part, tol, at.take(index))
        infeasible[index] = no_y
        unbounded[index] = no_end
        niter[index] = niter[index] + more
        own = [v if v.shape[0] == 1 else v[index, ...] for v in (fixed, value)]
        found.replace(index, _polished(data.take(index), part, closer, *own))
    good = found.settled & (found.error <= CERTIFIED)
    proofs = {
        Status.INFEASIBLE: infeasible & ~good,
        Status.UNBOUNDED: unbounded & ~good,
    }
    return found, niter, proofs


def _at_start(units: Equilibrated, y0: Array, held: HeldSet | None) -> Polished:
    """Return the points on the active sets of a start."""
    xp, data = namespace(y0), units.data
    y = y0 / units.D
    y = xp.where(xp.isfinite(y), y, xp.zeros_like(y))
    none = xp.zeros((y.shape[0], data.A.shape[1]), dtype=y.dtype)
    held = touching(data, y) if held is None else held
    return polish(data, Iterate(y, none, y[:, :0], y[:, :0]), None, held)


def _from(
    start: Polished,
    data: StackedQuadratic,
    reduced: StackedQuadratic,
    fixed: Array,
    value: Array,
    lost: Array,
) -> tuple[Polished, Array, dict[Status, Array]]:
    """Return the start where it is certified, the outcome of ``_rounds`` elsewhere."""
    xp, k = namespace(data.q), data.count
    good = start.settled & (start.error <= CERTIFIED)
    niter = xp.zeros((k,), dtype=xp.int64)
    proofs = {Status.INFEASIBLE: good & False, Status.UNBOUNDED: good & False}
    (index,) = xp.nonzero(~(good | lost))
    if index.shape[0]:
        held, at = (v if v.shape[0] == 1 else v[index, ...] for v in (fixed, value))
        rest, more, shown = _rounds(
            data.take(index), reduced.take(index), held, at, lost[index]
        )
        start.replace(index, rest)
        niter[index] = more
        for name, mask in shown.items():
            proofs[name][index] = mask
    return start, niter, proofs


def _polished(
    data: StackedQuadratic,
    reduced: StackedQuadratic,
    at: Iterate,
    fixed: Array,
    value: Array,
) -> Polished:
    """Polish an iterate of the reduced programs as a point of the whole ones."""
    rows, _ = reduced.split(at.z)
    y = namespace(at.y).where(fixed, value, at.y)
    held = proposed(data, reduced, at)
    return polish(data, dataclasses.replace(at, y=y), rows, held)


def _within(data: StackedQuadratic, y: Array, held: Array) -> Array:
    """Return y at the very bounds that hold it, which rounding of its units may miss."""
    xp = namespace(y)
    y = xp.where(held > 0, data.upper, xp.where(held < 0, data.lower, y))
    return xp.minimum(xp.maximum(y, data.lower), data.upper)


def _in_user_units(
    found: Polished,
    y: Array,
    units: Equilibrated,
    status: list[Status | None],
    niter: Array,
) -> StackedSolutions:
    """Return the points in the units of the data, NaN where there is no solution."""
    xp, gamma = namespace(found.y), units.gamma
    good = xp.asarray([s is Status.CONVERGED for s in status])[:, None]

    def kept(v: Array) -> Array:
        return xp.where(good, v, xp.nan)

    def masked(v: Array) -> Array:
        return xp.where(good, v, xp.zeros_like(v))

    return StackedSolutions(
        y=kept(y),
        nu=kept(found.nu * units.E / gamma),
        rows=kept(found.rows * units.F / gamma),
        bounds=kept(found.bounds / (units.D * gamma)),
        held=HeldSet(masked(found.held.rows), masked(found.held.bounds)),
        weak_rows=masked(found.weak_rows),
        weak_bounds=masked(found.weak_bounds),
        error=xp.where(good[:, 0], found.error, xp.nan),
        status=status,
        niter=niter,
    )
