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
from .polish import CERTIFIED, Polished, polish, proposed
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


def solve_stack(given: StackedQuadratic) -> StackedSolutions:
    """Solve the programs of one stack."""
    # Members that fail overflow on the way, and are told apart at the end.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return _solved(given.widened(given.count))


def _solved(given: StackedQuadratic) -> StackedSolutions:
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
    found, niter, proofs = _rounds(units.data, reduced, fixed, value, lost)
    status: list[Status | None] = [None] * k
    certified = found.settled & (found.error <= CERTIFIED)
    for name, mask in ((Status.CONVERGED, certified), *proofs.items(), *wrong.items()):
        for i in np.flatnonzero(to_host(mask)):
            status[i] = name
    return _in_user_units(found, units, status, niter)


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


def _in_user_units(
    found: Polished, units: Equilibrated, status: list[Status | None], niter: Array
) -> StackedSolutions:
    """Return the points in the units of the data, NaN where there is no solution."""
    xp, gamma = namespace(found.y), units.gamma
    good = xp.asarray([s is Status.CONVERGED for s in status])[:, None]

    def kept(v: Array) -> Array:
        return xp.where(good, v, xp.nan)

    return StackedSolutions(
        y=kept(found.y * units.D),
        nu=kept(found.nu * units.E / gamma),
        rows=kept(found.rows * units.F / gamma),
        bounds=kept(found.bounds / (units.D * gamma)),
        held=found.held,
        weak_rows=found.weak_rows,
        weak_bounds=found.weak_bounds,
        error=xp.where(good[:, 0], found.error, xp.nan),
        status=status,
        niter=niter,
    )
