"""From a point near a solution to the exact solution of its active set, certified.

    z_i > s_i  proposes that side i acts;  the conditions then are a linear system

A side that acts with a multiplier of the wrong sign is dropped, a violated one is added, a few times;
where that settles, residuals, signs and slacks are compared with the terms that cancel in each.
"""

from __future__ import annotations

import dataclasses

from ...arrays import Array, epsilon, namespace
from ...krylov.stacked import apply, apply_transposed
from ...problem.stacked_active import FIXED, HeldSet, HeldSystem
from ...problem.stacked_quadratic import StackedQuadratic
from .interior_point import Iterate, largest, relative

_REPAIRS = 8  # changes of the active set
_REFINEMENTS = 12  # proximal steps
CERTIFIED = 1e-12  # residuals of a solution, relative to the terms that cancel
_TOUCHES = 1e-9  # the relative slack of a side that a start is taken to be on
UNDECIDED = 1e-10  # a multiplier or a slack relative to those around, below which it may be zero


@dataclasses.dataclass(frozen=True, eq=False)
class Polished:
    """Points of k members on exact active sets.

    Attributes
    ----------
    y : array (k, n)
    nu : array (k, p)
        Multipliers of the equality rows.
    rows, bounds : arrays (k, r), (k, n)
        Multipliers of rows and bounds, positive for the upper side.
    held : HeldSet
        The sides that act with a multiplier that is not zero.
    weak_rows, weak_bounds : int arrays (k, r), (k, n)
        1 above, −1 below, where a side may act or not: slack and multiplier are zero.
    error : array (k,)
        The largest residual, relative to the terms that cancel in it.
    settled : bool array (k,)
        Whether signs and slacks agree.
    """

    y: Array
    nu: Array
    rows: Array
    bounds: Array
    held: HeldSet
    weak_rows: Array
    weak_bounds: Array
    error: Array
    settled: Array

    def replace(self, index: Array, new: Polished) -> None:
        """Write other points into the places of an index."""
        for field in dataclasses.fields(Polished):
            if field.name != "held":
                getattr(self, field.name)[index, ...] = getattr(new, field.name)
        self.held.rows[index, ...] = new.held.rows
        self.held.bounds[index, ...] = new.held.bounds


def proposed(data: StackedQuadratic, reduced: StackedQuadratic, at: Iterate) -> HeldSet:
    """Return the sides whose multiplier exceeds their slack; FIXED where sides are equal.

    ``reduced``: the programs that the iterate belongs to, without fixed variables.
    """
    xp = namespace(at.y)
    k, n, r = at.y.shape[0], data.n, data.G.shape[1]
    acting = xp.astype(xp.isfinite(reduced.limits) & (at.z > at.s), at.y.dtype)
    # Of two sides of one row that both seem to act the one with the larger force.
    rows, bounds = reduced.split(at.z * acting)
    none = xp.zeros((k, 1), dtype=at.y.dtype)
    signs = [
        xp.astype(xp.sign(xp.where(xp.isfinite(v), v, xp.zeros_like(v))), xp.int8)
        for v in (none if rows is None else rows, none if bounds is None else bounds)
    ]
    held = (
        xp.broadcast_to(v, (k, size)) for v, size in zip(signs, (r, n), strict=True)
    )
    return _with_fixed(data, HeldSet(*held))


def touching(data: StackedQuadratic, y: Array) -> HeldSet:
    """Return the sides that are at zero at y: the set of a neighbouring solution."""
    xp = namespace(y)
    Gy, sizes = apply(data.G, y), apply(xp.abs(data.G), xp.abs(y))

    def sides(value: Array, terms: Array, high: Array, low: Array) -> Array:
        above = xp.abs(high - value) <= _TOUCHES * (terms + xp.abs(high))
        below = xp.abs(value - low) <= _TOUCHES * (terms + xp.abs(low))
        above = above & xp.isfinite(high)
        below = below & xp.isfinite(low) & ~above
        return xp.astype(above, xp.int8) - xp.astype(below, xp.int8)

    held = HeldSet(
        sides(Gy, sizes, data.h, data.h_lower),
        sides(y, xp.abs(y), data.upper, data.lower),
    )
    return _with_fixed(data, held)


def _with_fixed(data: StackedQuadratic, held: HeldSet) -> HeldSet:
    xp = namespace(held.rows)
    two = xp.asarray(FIXED, dtype=xp.int8)
    rows = xp.where(data.h == data.h_lower, two, held.rows)
    return HeldSet(
        xp.where(xp.any(data.G != 0.0, axis=2), rows, 0 * rows),
        xp.where(data.lower == data.upper, two, held.bounds),
    )


def polish(
    data: StackedQuadratic, at: Iterate, rows: Array | None, held: HeldSet
) -> Polished:
    """Return the points on the active sets ``held``, repaired where signs disagree.

    ``rows``: multipliers of the inequality rows to start from, (k, r).
    """
    xp = namespace(at.y)
    if rows is None:
        rows = xp.zeros(held.rows.shape, dtype=at.y.dtype)
    found, change = _on_held(data, at.y, at.nu, rows, held)
    for _ in range(_REPAIRS):
        (wrong,) = xp.nonzero(~found.settled)
        if wrong.shape[0] == 0:
            break
        again, new = _on_held(
            data.take(wrong),
            at.y[wrong, ...],
            at.nu[wrong, ...],
            rows[wrong, ...],
            change.take(wrong),
        )
        found.replace(wrong, again)
        change.rows[wrong, ...] = new.rows
        change.bounds[wrong, ...] = new.bounds
    return found


def _targets(data: StackedQuadratic, held: HeldSet) -> tuple[Array, Array]:
    """Return the values of the sides that act, for all rows and variables."""
    xp = namespace(held.rows)
    return (
        xp.where(held.rows > 0, data.h, data.h_lower),
        xp.where(held.bounds > 0, data.upper, data.lower),
    )


def _on_held(
    data: StackedQuadratic, y: Array, nu: Array, rows: Array, held: HeldSet
) -> tuple[Polished, HeldSet]:
    """Solve the conditions with the active set held; return also the next set to try."""
    xp, system = namespace(y), HeldSystem(data, held)
    row_target, bound_target = _targets(data, held)
    y = xp.where(held.bounds != 0, bound_target, y)
    mu = system.gathered(nu, rows)
    c = system.gathered(xp.broadcast_to(data.b, nu.shape), row_target)
    C, best = system.whole_rows, (y, mu)
    least = xp.full((y.shape[0],), xp.inf, dtype=y.dtype)
    going = least > 0.0  # a member stops by its own residuals
    for _ in range(_REFINEMENTS):
        Py, pull, Cy = apply(data.P, y), apply_transposed(C, mu), apply(C, y)
        gradient, miss = (Py + data.q + pull), Cy - c
        forces = xp.maximum(largest(Py), xp.maximum(largest(data.q), largest(pull)))
        lengths = xp.maximum(largest(y), largest(c))
        error = xp.maximum(
            relative(largest(gradient * system.free), forces),
            relative(largest(miss), lengths),
        )
        going = going & (error < 0.5 * least)
        best = tuple(
            xp.where(going[:, None], new, old)
            for new, old in zip((y, mu), best, strict=True)
        )
        least = xp.where(going, error, least)
        going = going & (error > 8.0 * epsilon(y))
        if not bool(xp.any(going)):
            break
        dy, dmu = system.step(gradient, miss)
        y, mu = y + dy, mu + dmu
    return _judged(system, *best)


def _judged(system: HeldSystem, y: Array, mu: Array) -> tuple[Polished, HeldSet]:
    """Return the points with what is wrong with them, and the next set to try."""
    xp, data, held = namespace(y), system.data, system.held
    nu, rows = system.scattered(mu)
    C, row_target = system.whole_rows, _targets(data, held)[0]
    Py, pull = apply(data.P, y), apply_transposed(C, mu)
    # Not |P| |y|, which grows without bound with a y along a flat direction.
    gradient, forces = Py + data.q + pull, xp.abs(Py) + xp.abs(data.q) + xp.abs(pull)
    bounds = xp.where(system.free, 0.0 * gradient, -gradient)
    force = xp.max(forces, axis=1, keepdims=True) if data.n else forces[:, :0]
    dual = xp.abs(gradient) * system.free / _floored(forces)
    Gy, Ay = apply(data.G, y), apply(data.A, y)
    G_terms = apply(xp.abs(data.G), xp.abs(y))
    A_terms = apply(xp.abs(data.A), xp.abs(y)) + xp.abs(data.b)
    acting = held.rows != 0
    values = xp.where(acting, row_target, Gy)
    target_terms = G_terms + xp.abs(values)
    length = xp.maximum(largest(y), xp.maximum(largest(A_terms), largest(target_terms)))
    length = length[:, None]
    primal = xp.abs(Ay - data.b) / _floored(A_terms, length)
    held_miss = xp.abs(Gy - values) / _floored(target_terms, length)
    error = xp.maximum(largest(dual), xp.maximum(largest(primal), largest(held_miss)))
    # Slacks and multipliers on the scales of what is around them.
    undecided = UNDECIDED * length
    slack = xp.minimum(data.h - Gy, Gy - data.h_lower)
    gap = xp.minimum(data.upper - y, y - data.lower)
    push, push_bounds = _along(held.rows, rows), _along(held.bounds, bounds)
    small = UNDECIDED * force
    violated = ~acting & (slack < -undecided), system.free & (gap < -undecided)
    dropped = acting & (push < -small), ~system.free & (push_bounds < -small)
    wrong = xp.concat([*violated, *dropped], axis=1)
    weak_rows = xp.where(acting, xp.abs(push) <= small, slack <= undecided)
    weak_rows = weak_rows & (xp.any(data.G != 0.0, axis=2))  # 0'y <= 0 never acts
    weak_bounds = xp.where(system.free, gap <= undecided, xp.abs(push_bounds) <= small)
    fixed = (held.rows == FIXED, held.bounds == FIXED)
    polished = Polished(
        y=y,
        nu=nu,
        rows=xp.where(weak_rows & ~fixed[0], 0.0 * rows, rows),
        bounds=xp.where(weak_bounds & ~fixed[1], 0.0 * bounds, bounds),
        held=HeldSet(
            xp.where(weak_rows & ~fixed[0], 0 * held.rows, held.rows),
            xp.where(weak_bounds & ~fixed[1], 0 * held.bounds, held.bounds),
        ),
        weak_rows=_sided(weak_rows & ~fixed[0], data.h - Gy, Gy - data.h_lower),
        weak_bounds=_sided(weak_bounds & ~fixed[1], data.upper - y, y - data.lower),
        error=error,
        settled=~xp.any(wrong, axis=1) & xp.isfinite(error),
    )
    return polished, _next(data, held, y, Gy, violated, dropped)


def _next(
    data: StackedQuadratic,
    held: HeldSet,
    y: Array,
    Gy: Array,
    violated: tuple[Array, Array],
    dropped: tuple[Array, Array],
) -> HeldSet:
    """Return the set without the sides of the wrong sign and with those violated."""
    xp = namespace(y)
    above = Gy - data.h > data.h_lower - Gy, y - data.upper > data.lower - y
    sides = tuple(2 * xp.astype(mask, xp.int8) - 1 for mask in above)
    rows, bounds = (
        xp.where(more, side, xp.where(less, 0 * now, now))
        for now, side, more, less in zip(
            (held.rows, held.bounds), sides, violated, dropped, strict=True
        )
    )
    return HeldSet(rows, bounds)


def _sided(weak: Array, above: Array, below: Array) -> Array:
    """Return 1 where the upper side is the weak one, −1 where the lower one is, else 0."""
    xp = namespace(weak)
    nearer = 2 * xp.astype(above <= below, xp.int8) - 1
    return xp.where(weak, nearer, 0 * nearer)


def _along(side: Array, multiplier: Array) -> Array:
    """Return multipliers with the sign in which their side may push; inf for FIXED."""
    xp = namespace(multiplier)
    signed = xp.where(side < 0, -multiplier, multiplier)
    return xp.where(side == FIXED, xp.full_like(signed, xp.inf), signed)


def _floored(terms: Array, size: Array | None = None) -> Array:
    """Return terms, but no less than a hundredth of the largest of the member; 1 for 0."""
    xp = namespace(terms)
    if terms.shape[1] == 0:
        return terms
    size = xp.max(terms, axis=1, keepdims=True) if size is None else size
    floor = xp.maximum(terms, 1e-2 * size)
    return xp.where(floor > 0.0, floor, xp.ones_like(floor))
