"""Polishing: the exact solution of a convex program from a guess of its active set.

    [ P_FF  C_F' ] [ dy ]     [ force on the free variables F ]
    [ C_F   0    ] [ dν ] = − [ C y − c of the active rows    ],     A ← signs, until none is wrong

One factorisation for each set, in the ordering of the program's own matrix.  Where active
rows depend on each other the multipliers next to the guess are taken: those of an
interior-point method are positive together where any are.

Where f falls from a point that meets all rows along a recession direction d,

    P d = 0,   A d = 0,   G d <= 0,   q'd < 0,

there is no solution.  Of P stored with an error P d is that error: with all of these off by
at most ε, −q'd <= ε (‖y‖₁ + ‖ν‖₁ + ‖z‖₁) for each solution (y, ν, z), which must then be
farther away than any that can be computed.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from ..arrays import HostArray
from .convex_program import (
    Errors,
    PrimalDual,
    errors,
    errors_and_rounding,
    floor_of,
)
from .convex_quadratic import ConvexQuadraticPath
from .graded_factor import graded_part
from .kkt_matrix import refined

_SETS = 30  # that are tried
_WAIT = 5  # sets in a row that are not more nearly right
_SHIFT = 1e-9
_Factors = tuple[tuple[float, bool, int], ...]  # shift, pivoting, sweeps
_FACTORS: _Factors = ((_SHIFT, False, 12), (1e-6, False, 40), (1e-12, True, 12))
_EXACT_FACTORS: _Factors = _FACTORS[
    -1:
]  # where refinement with a larger shift is too slow
_ROUNDING = 1e-13  # of the largest terms: what a solved system leaves
_FALL = 1e4  # of these roundings: a rest that is a force
_EXACT = Errors(1e-10, 1e-9, 1e-9)  # what rounding may leave of the conditions
_ROUNDINGS = 8.0  # of the sums in a condition that may be left, too
_PURE = 3  # times that what P and the rows have of a ray is removed
_FAR = 1e11  # of the program's units: a solution that far away is none
_SIGN = 1e-11  # of the usual force or length: a multiplier or slack below is rounding


@dataclasses.dataclass(frozen=True)
class PolishedPoint:
    """A point whose active inequalities hold with equality, and all others strictly.

    Attributes
    ----------
    point : PrimalDual
    strong, weak : bool arrays (k,)
        Rows that act; rows at zero whose multiplier is zero, both to rounding.
    fixed, weak_fixed : bool arrays (n,)
        The same of bounds.
    worst : float
        The largest of the errors of the conditions.
    factorised : bool
        Whether the last factor is that of this set.
    """

    point: PrimalDual
    strong: HostArray
    weak: HostArray
    fixed: HostArray
    weak_fixed: HostArray
    worst: float
    factorised: bool


@dataclasses.dataclass(frozen=True)
class RecessionDirection:
    """A point that meets all rows, from which f falls forever along d (n,), scaled."""

    point: PrimalDual
    d: HostArray


@dataclasses.dataclass
class _Guess:
    """Rows that act, and variables at their lower and at their upper bound."""

    rows: HostArray
    low: HostArray
    high: HostArray

    def count(self) -> int:
        """Return the number of members."""
        return int(self.rows.sum() + self.low.sum() + self.high.sum())


def guess_of(path: ConvexQuadraticPath, point: PrimalDual) -> _Guess:
    """Return the inequalities whose force exceeds their slack, both in the scaled units."""
    f, at = path.program, path.scaling.scaled(point)
    ratio = path.weight
    rows = at.z > ratio * (f.h - f.G @ at.y)
    low = at.s > ratio * (at.y - f.lower)
    high = -at.s > ratio * (f.upper - at.y)
    return _Guess(rows, low, high & ~low)


def guess_at(path: ConvexQuadraticPath, y: HostArray) -> _Guess:
    """Return the inequalities that hold with equality at a y, or not at all."""
    f, at = path.program, y / path.scaling.columns
    size = np.abs(at)

    def touches(slack: HostArray, terms: HostArray) -> HostArray:
        return slack <= 1e-9 * terms

    rows = touches(f.h - f.G @ at, abs(f.G) @ size + np.abs(f.h))
    with np.errstate(invalid="ignore"):
        low = touches(at - f.lower, size + np.abs(f.lower)) & np.isfinite(f.lower)
        high = touches(f.upper - at, size + np.abs(f.upper)) & np.isfinite(f.upper)
    return _Guess(rows, low, high & ~low)


def polish(
    path: ConvexQuadraticPath, point: PrimalDual, guess: _Guess, sets: int = _SETS
) -> PolishedPoint | RecessionDirection | None:
    """Return the solution where the signs agree within that many sets, else None.

    Also the proof that there is none, where f falls forever.
    """
    f, now = path.program, path.scaling.scaled(point)
    fixed_alike = f.lower == f.upper
    fewest, waited, factors = math.inf, 0, _FACTORS
    for _ in range(sets):
        guess.low |= fixed_alike
        guess.high &= ~fixed_alike
        solved, fall = _solved(path, now, guess, factors)
        if solved is None:
            return None
        if fall is not None:
            blocked = _first_blocking(path, solved, guess, fall)
            if blocked is None:
                endless = _recession_direction(path, solved, guess, fall)
                if endless is not None:
                    return endless
                now = solved  # the rest was rounding: of a point far away it is larger
                continue
            now, missing = blocked
            guess = _with(guess, missing)
            continue
        now = solved
        wrong, missing = _signs(path, now, guess, fixed_alike)
        changes = wrong.count() + missing.count()
        if not changes:
            now = _in_all_digits(path, now, guess)
            wrong, missing = _signs(path, now, guess, fixed_alike)
            changes = wrong.count() + missing.count()
        if not changes:
            last = factors is _EXACT_FACTORS
            if last or _leaves_rounding(path, now, guess):
                found = _finished(path, now, guess, fixed_alike)
                if found is not None or last:
                    return found
            factors = _EXACT_FACTORS
        waited = 0 if changes < fewest else waited + 1
        fewest = min(fewest, changes)
        if waited > _WAIT:
            return None
        guess = _with(guess, missing, wrong)
    return None


def polished_at(
    path: ConvexQuadraticPath,
    point: PrimalDual,
    rows: HostArray,
    low: HostArray,
    high: HostArray,
) -> PolishedPoint | None:
    """Return a point with its active set where the signs agree and the conditions hold."""
    now, guess = path.scaling.scaled(point), _Guess(rows, low, high)
    fixed_alike = path.program.lower == path.program.upper
    if any(part.count() for part in _signs(path, now, guess, fixed_alike)):
        return None
    return _finished(path, now, guess, fixed_alike)


def _with(guess: _Guess, missing: _Guess, wrong: _Guess | None = None) -> _Guess:
    """Return a set with some members more, and without some."""
    if wrong is not None:
        guess = _Guess(
            guess.rows & ~wrong.rows, guess.low & ~wrong.low, guess.high & ~wrong.high
        )
    return _Guess(
        guess.rows | missing.rows, guess.low | missing.low, guess.high | missing.high
    )


def _solved(
    path: ConvexQuadraticPath,
    now: PrimalDual,
    guess: _Guess,
    factors: _Factors,
) -> tuple[PrimalDual | None, HostArray | None]:
    """Return the solution of the equations of a set next to a point.

    Where f falls along directions without curvature that the set leaves free, they have no
    solution: then that of the rest, and the direction of the fall, (n,).
    """
    f, n, p = path.program, path.n, path.p
    fixed = guess.low | guess.high
    y = np.where(guess.low, f.lower, np.where(guess.high, f.upper, now.y))
    nu, z = now.nu, np.where(guess.rows, now.z, 0.0)
    kept = np.concatenate([~fixed, np.ones(p, dtype=bool), guess.rows])
    length = _largest_length(path, y) or 1.0
    # Curvatures are about 1 in these units: a step of that length meets such forces.
    force_scale = _largest_force(path, y, nu, z) or length
    least = np.full(kept.size, _ROUNDING * length)
    least[:n] = _ROUNDING * force_scale
    fall = None
    for again in (False, True, True):
        force = f.P @ y + f.q + f.A.T @ nu + f.G.T @ z
        rhs = -np.concatenate([force, f.A @ y - f.b, f.G @ y - f.h])
        rhs[~kept] = 0.0
        if again:  # with the factor at hand, against rounding of a long first step
            found, _ = refined(path.matrix, rhs, 1e-2, 3)
        else:
            found, rest = _solve(path, kept, rhs, least, factors)
            if bool(np.any(np.abs(rest[:n]) > _FALL * least[:n])):
                fall = rest[:n]
        if not np.isfinite(found).all():
            return None, None
        found = _without_null_part(path, rhs, found)
        y, nu, z = y + found[:n], nu + found[n : n + p], z + found[n + p :]
        if fall is not None:
            break
    force = f.P @ y + f.q + f.A.T @ nu + f.G.T @ z
    return PrimalDual(y, nu, z, np.where(fixed, force, 0.0)), fall


def _leaves_rounding(path: ConvexQuadraticPath, now: PrimalDual, guess: _Guess) -> bool:
    """Tell whether the force that is left on the free variables is rounding of its terms.

    A curvature below the shift lets more than that pass, which may be most of y.
    """
    f = path.program
    left = np.where(guess.low | guess.high, 0.0, f.lagrangian_grad(now))
    size = _largest_force(path, now.y, now.nu, now.z)
    unit = float(np.finfo(float).eps)
    return bool(np.abs(left).max(initial=0.0) <= _ROUNDINGS * unit * size)


def _in_all_digits(
    path: ConvexQuadraticPath, now: PrimalDual, guess: _Guess
) -> PrimalDual:
    """Return the solution of a small set where some unknowns have no curvature.

    Far from the origin the rounding of a long y hides what is left of a short one.
    """
    f, n, p = path.program, path.n, path.p
    fixed = guess.low | guess.high
    kept = np.concatenate([~fixed, np.ones(p, dtype=bool), guess.rows])
    factor = graded_part(path.matrix, kept)
    if factor is None:
        return now
    y, nu, z = now.y, now.nu, now.z
    for _ in range(2):
        force = f.P @ y + f.q + f.A.T @ nu + f.G.T @ z
        rhs = -np.concatenate([force, f.A @ y - f.b, f.G @ y - f.h])
        solved = factor.solve(rhs[kept])
        if solved is None:
            return now
        step = np.zeros(kept.size)
        step[kept] = solved
        y, nu, z = y + step[:n], nu + step[n : n + p], z + step[n + p :]
    force = f.P @ y + f.q + f.A.T @ nu + f.G.T @ z
    return PrimalDual(y, nu, z, np.where(fixed, force, 0.0))


def _without_null_part(
    path: ConvexQuadraticPath, rhs: HostArray, found: HostArray
) -> HostArray:
    """Return a solution of K x = rhs without its part in the null space of K, where it has one.

    Rounding of rhs moves x by rounding / shift along the null space, far enough to meet other
    rows; (K + shift)⁻¹ K x has no such part.  Where the shift is of the size of an eigenvalue
    that is no solution any more.
    """
    if not found.any():
        return found
    product = path.matrix.product(found)
    cleared = path.matrix.apply(product)
    left = rhs - path.matrix.product(cleared)
    allowed = 2.0 * float(np.linalg.norm(rhs - product))
    return cleared if float(np.linalg.norm(left)) <= allowed else found


def _largest_length(path: ConvexQuadraticPath, y: HostArray) -> float:
    f, size = path.program, np.abs(y)
    terms = [abs(f.A) @ size + np.abs(f.b), abs(f.G) @ size + np.abs(f.h), size]
    return float(np.concatenate(terms).max(initial=0.0))


def _largest_force(
    path: ConvexQuadraticPath, y: HostArray, nu: HostArray, z: HostArray
) -> float:
    f = path.program
    force = abs(f.P) @ np.abs(y) + np.abs(f.q)
    force = force + abs(f.A).T @ np.abs(nu) + abs(f.G).T @ np.abs(z)
    return float(force.max(initial=0.0))


def _solve(
    path: ConvexQuadraticPath,
    kept: HostArray,
    rhs: HostArray,
    least: HostArray,
    factors: _Factors,
) -> tuple[HostArray, HostArray]:
    """Return K⁻¹ (rhs − rest) and the rest, which is ≤ ``least`` where K is regular.

    The shift of the first factor costs the fewest sweeps, that of the second is safe
    without pivoting (u / δ² < 1), and the last one pivots.
    """
    best, rest = np.full_like(rhs, math.nan), np.full_like(rhs, math.inf)
    if not np.any(rhs):
        path.factorise_set(kept, _SHIFT)
        return rhs, rhs
    smallest = math.inf
    for shift, pivoting, sweeps in factors:
        if not path.factorise_set(kept, shift, pivoting=pivoting):
            continue
        found, _ = refined(path.matrix, rhs, 1e-15, sweeps)
        left = rhs - path.matrix.product(found)
        if bool(np.all(np.abs(left) <= _FALL * least)):
            return found, left
        # A rest in the null space has no solution; without it there is one.  It is met at a
        # distance of rest / shift, whose rounding is the rest of the next pass.
        for _ in range(_PURE):
            found, _ = refined(path.matrix, rhs - left, 1e-15, sweeps)
            off = rhs - left - path.matrix.product(found)
            solved = float(np.max(np.abs(off) / least))
            if solved <= 10.0:
                break
            left = left + off
        size = float(np.linalg.norm(left))
        if solved <= 10.0 and size < smallest:
            best, rest, smallest = found, left, size
    return best, rest


def _first_blocking(
    path: ConvexQuadraticPath, now: PrimalDual, guess: _Guess, fall: HostArray
) -> tuple[PrimalDual, _Guess] | None:
    """Go along a direction of fall to the first inequality, None where there is none."""
    f, y = path.program, now.y
    size = float(np.abs(fall).max())
    d = np.where(np.abs(fall) > 1e-6 * size, fall / size, 0.0)
    free = ~(guess.low | guess.high)
    along = np.where(guess.rows, 0.0, f.G @ d)
    reach = [
        (np.maximum(f.h - f.G @ y, 0.0), along),
        (np.maximum(y - f.lower, 0.0), np.where(free, -d, 0.0)),
        (np.maximum(f.upper - y, 0.0), np.where(free, d, 0.0)),
    ]
    lengths = [
        np.divide(slack, speed, out=np.full(slack.shape, math.inf), where=speed > 1e-9)
        for slack, speed in reach
    ]
    t = min(float(length.min(initial=math.inf)) for length in lengths)
    if not math.isfinite(t):
        return None
    first = [length <= t * (1.0 + 1e-12) for length in lengths]
    return now._replace(y=y + t * d), _Guess(*first)


def _recession_direction(
    path: ConvexQuadraticPath, now: PrimalDual, guess: _Guess, fall: HostArray
) -> RecessionDirection | None:
    """Return the proof that f falls forever along about ``fall``, None where it does not."""
    f, n, p = path.program, path.n, path.p
    fixed = guess.low | guess.high
    kept = np.concatenate([~fixed, np.ones(p, dtype=bool), guess.rows])
    if not path.factorise_set(kept, _SHIFT, pivoting=True):
        return None
    d = np.where(fixed, 0.0, fall)
    for _ in range(_PURE):
        d = d / (float(np.abs(d).max()) or 1.0)
        off = np.where(kept, np.concatenate([f.P @ d, f.A @ d, f.G @ d]), 0.0)
        d = d - refined(path.matrix, off, 1e-15, _FACTORS[0][2])[0][:n]
    d = d / (float(np.abs(d).max()) or 1.0)
    rises = np.maximum(path.side_products(d), 0.0)
    off = np.concatenate([np.abs(f.P @ d), np.abs(f.A @ d), rises])
    falls = -float(f.q @ d)
    if not falls > _FAR * max(path.units) * float(off.max(initial=0.0)):
        return None
    off = np.concatenate([np.zeros(n), f.b - f.A @ now.y, f.h - f.G @ now.y])
    step, _ = refined(path.matrix, np.where(kept, off, 0.0), 1e-15, _FACTORS[0][2])
    now = now._replace(y=now.y + step[:n])
    feasible = errors(f, now).primal <= _EXACT.primal
    return RecessionDirection(path.scaling.given(now), d) if feasible else None


def _signs(
    path: ConvexQuadraticPath, now: PrimalDual, guess: _Guess, free_sign: HostArray
) -> tuple[_Guess, _Guess]:
    """Return the members that pull the wrong way, and those that are missing."""
    f, size = path.program, np.abs(now.y)
    least = _SIGN * path.typical_force(now)
    wrong = _Guess(
        guess.rows & (now.z < -least),
        guess.low & (now.s < -least) & ~free_sign,
        guess.high & (now.s > least) & ~free_sign,
    )
    off = _SIGN * np.maximum(abs(f.G) @ size + np.abs(f.h), path.typical_length(now))
    free = ~(guess.low | guess.high)
    reach = _SIGN * np.maximum(size, path.typical_length(now))
    missing = _Guess(
        ~guess.rows & (f.G @ now.y - f.h > off),
        free & (f.lower - now.y > reach),
        free & (now.y - f.upper > reach),
    )
    return wrong, missing


def _finished(
    path: ConvexQuadraticPath,
    now: PrimalDual,
    guess: _Guess,
    fixed_alike: HostArray,
) -> PolishedPoint | None:
    """Return the point with what is weakly active marked, where it meets the conditions."""
    f, size = path.program, np.abs(now.y)
    least, length = _SIGN * path.typical_force(now), path.typical_length(now)
    z = np.where(now.z > least, now.z, 0.0)
    strong = guess.rows & (z > 0.0)
    near = _SIGN * np.maximum(abs(f.G) @ size + np.abs(f.h), length)
    weak = ~strong & (f.h - f.G @ now.y <= near)
    low, high = guess.low & (now.s > least), guess.high & (now.s < -least)
    fixed = low | high | fixed_alike
    reach = _SIGN * np.maximum(size, length)
    touching = (now.y - f.lower <= reach) | (f.upper - now.y <= reach)
    y = np.clip(now.y, f.lower, f.upper)
    s = np.where(fixed, now.s, 0.0)
    point = path.scaling.given(PrimalDual(y, now.nu, z, s))
    given = path.given
    exact = np.where(guess.low, given.lower, np.where(guess.high, given.upper, point.y))
    point = point._replace(y=np.clip(exact, given.lower, given.upper))
    left, rounding = errors_and_rounding(f, path.scaling.scaled(point))
    most = [max(e, _ROUNDINGS * r) for e, r in zip(_EXACT, rounding, strict=True)]
    if not all(e <= allowed for e, allowed in zip(left, most, strict=True)):
        return None
    if not _rows_hold(path, path.scaling.scaled(point).y, strong):
        return None
    weak_fixed = touching & ~fixed
    same = np.array_equal(strong, guess.rows)
    same = same and np.array_equal(fixed, guess.low | guess.high)
    return PolishedPoint(point, strong, weak, fixed, weak_fixed, left.worst, same)


def _rows_hold(path: ConvexQuadraticPath, y: HostArray, strong: HostArray) -> bool:
    """Tell whether the acting rows hold to what rounding leaves of their own terms.

    Beside unknowns of much longer units what is off in a row is short.
    """
    f, size = path.program, np.abs(y)
    off = [np.abs(f.A @ y - f.b), np.abs(f.G @ y - f.h)[strong]]
    terms = [abs(f.A) @ size + np.abs(f.b), (abs(f.G) @ size + np.abs(f.h))[strong]]
    usual = float(np.finfo(float).eps) * floor_of(size)
    allowed = _EXACT.primal * np.concatenate(terms) + _ROUNDINGS * usual
    return bool(np.all(np.concatenate(off) <= allowed))


def factor_of(path: ConvexQuadraticPath, found: PolishedPoint) -> HostArray | None:
    """Factorise the matrix of the active set; return its unknowns, None where singular."""
    kept = np.concatenate([~found.fixed, np.ones(path.p, dtype=bool), found.strong])
    if found.factorised:
        return kept
    probe = np.where(kept, np.random.default_rng(0).standard_normal(kept.size), 0.0)
    probe[path.n :] = 0.0
    _, rest = _solve(path, kept, probe, np.full(kept.size, 1e-11), _FACTORS)
    return kept if bool(np.all(np.abs(rest) <= 1e-11)) else None
