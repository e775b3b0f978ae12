"""The exact solution of a small strictly convex program, by principal pivoting on its dual.

    y = − P⁻¹ (q + R'μ),    w = r − R y = S μ + d,    S = R P⁻¹ R',    d = R P⁻¹ q + r
    w = 0 on equality rows;   w >= 0, μ >= 0, w'μ = 0 on inequality rows

R has the equality rows, the inequality rows and the bounds.  One Cholesky factor of P, then one
of S on each active set, that of a start first: the sides whose μ or w is negative change, all at
once while their number falls, else one by one.  An active set is believed where every w and μ is
well away from zero and K, factorised on it, meets the conditions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import linalg, sparse

from ..arrays import HostArray
from ..krylov.convex_program import ConvexProgram, PrimalDual
from ..krylov.kkt_matrix import DenseKKT, refined

_VARIABLES = 120  # up to which dense algebra is faster than an interior point
_ENTRIES = 120_000  # of the rows that are multiplied in each step
_SETS = 30  # that are tried
_STEPS = 120  # of one side each
_FEW = 40  # variables up to which these are faster than an interior point
_PATIENCE = 3  # changes of all wrong sides at once that do not lower their number
_CLEAR = 1e-10  # of the largest w, μ or length of y: what decides a side without doubt
_TOUCHES = 1e-9  # of the terms of w at a start: its active set
_INDEPENDENT = 1e-9  # the least pivot of rows of length one in the metric of P
_SHIFT = 1e-10  # of K in units of one, removed by refinement
_EXACT = 1e-12  # what rounding may leave of a condition, relative to its terms


class Pivoted(NamedTuple):
    """A solution with the factor of its active set.

    Attributes
    ----------
    point : PrimalDual
    rows, low, high : bool arrays (k,), (n,), (n,)
        What acts, each with a force that is not zero; nothing else touches.
    matrix : DenseKKT
        Of diag(left) K diag(right), for the free variables, equality and acting rows.
    unknowns : int array
        These unknowns among y, the equality and the inequality rows.
    scale : array
        left and right alike.
    error : float
        Largest residual relative to the terms in it.
    niter : int
        Active sets.
    """

    point: PrimalDual
    rows: HostArray
    low: HostArray
    high: HostArray
    matrix: DenseKKT
    unknowns: HostArray
    scale: HostArray
    error: float
    niter: int


class _Sides(NamedTuple):
    """The rows R as V = L⁻¹ R' of unit columns, and where each kind is."""

    V: HostArray
    d: HostArray
    lengths: HostArray
    length: float  # of the y that nothing holds
    low: HostArray
    high: HostArray


def pivoted(program: ConvexProgram, start: HostArray | None = None) -> Pivoted | None:
    """Return the solution, None where it is not found or anything is in doubt.

    ``start``: a y (n,) whose active set is tried first.

    References
    ----------
    J. J. Júdice, F. M. Pires, "A block principal pivoting algorithm for large-scale strictly
    monotone linear complementarity problems", Comput. Oper. Res. 21 (1994) 587-596.
    D. Goldfarb, A. Idnani, "A numerically stable dual method for solving strictly convex
    quadratic programs", Math. Program. 27 (1983) 1-33.
    """
    n, p, k = program.n, program.b.size, program.h.size
    low = np.flatnonzero(program.lower > -np.inf)
    high = np.flatnonzero(program.upper < np.inf)
    entries = n * (p + k + low.size + high.size)
    if not 0 < n <= _VARIABLES or entries > _ENTRIES or p > n:
        return None
    if low.size and high.size and bool((program.lower >= program.upper).any()):
        return None
    P, A, G = (
        m.toarray() if sparse.issparse(m) else m
        for m in (program.P, program.A, program.G)
    )
    sides = _sides_of(program, (P, A, G), low, high)
    if sides is None:
        return None
    first = np.arange(sides.d.size) < p
    if start is not None:
        first[p:] = _touched(program, G, sides, start)
    found = _pivots(sides, first, p)
    if found is None:
        return None
    return _exact(program, (P, A, G), sides, *found)


def _sides_of(
    program: ConvexProgram,
    matrices: tuple[HostArray, HostArray, HostArray],
    low: HostArray,
    high: HostArray,
) -> _Sides | None:
    """Return the rows in the metric of P, None where P is not definite."""
    P, A, G = matrices
    n, p, k = program.n, program.b.size, program.h.size
    diagonal = P.diagonal()
    if not bool((diagonal > 0.0).all()):
        return None
    D = 1.0 / np.sqrt(diagonal)
    L, failed = linalg.lapack.dpotrf(D[:, None] * P * D, lower=1)
    if failed or not float(L.diagonal().min()) > _INDEPENDENT:
        return None
    rhs = np.empty((n, 1 + p + k + low.size + high.size), order="F")
    rhs[:, 0] = D * program.q
    rhs[:, 1 : 1 + p] = D[:, None] * A.T
    rhs[:, 1 + p : 1 + p + k] = D[:, None] * G.T
    at = 1 + p + k
    rhs[:, at:] = 0.0
    rhs[low, at + np.arange(low.size)] = -D[low]
    rhs[high, at + low.size + np.arange(high.size)] = D[high]
    V, _ = linalg.lapack.dtrtrs(L, rhs, lower=1)
    q, V = V[:, 0], V[:, 1:]
    r = np.concatenate([program.b, program.h, -program.lower[low], program.upper[high]])
    lengths = np.sqrt(np.einsum("ij,ij->j", V, V))
    if not bool((lengths > 0.0).all()):
        return None
    V = V / lengths
    length = float(np.linalg.norm(q))
    return _Sides(V, r / lengths + q @ V, lengths, length, low, high)


def _touched(
    program: ConvexProgram, G: HostArray, sides: _Sides, y: HostArray
) -> HostArray:
    """Return the inequality rows and bounds that a point is on, or beyond."""
    low, high = program.lower[sides.low], program.upper[sides.high]
    slacks = [program.h - G @ y, y[sides.low] - low, high - y[sides.high]]
    terms = [np.abs(program.h) + np.abs(G) @ np.abs(y), np.abs(low), np.abs(high)]
    return np.concatenate(slacks) <= _TOUCHES * np.concatenate(terms)


class _Multipliers(NamedTuple):
    """μ of the sides that act, w of all, and S_FF⁻¹ as a Cholesky factor."""

    mu: HostArray
    w: HostArray
    factor: HostArray


def _held(sides: _Sides, index: HostArray) -> _Multipliers | None:
    """Return the multipliers of a set of sides, None where these depend on each other."""
    V, d = sides.V, sides.d
    if not index.size:
        return _Multipliers(d[:0], d, d[:0])
    if index.size > V.shape[0]:
        return None
    W = V[:, index]
    L, failed = linalg.lapack.dpotrf(W.T @ W, lower=1)
    if failed or not float(L.diagonal().min()) ** 2 > _INDEPENDENT:
        return None
    mu, _ = linalg.lapack.dpotrs(L, -d[index], lower=1)
    return _Multipliers(mu, d + (W @ mu) @ V, L)


def _pivots(sides: _Sides, acting: HostArray, p: int) -> tuple[HostArray, int] | None:
    """Return the sides that act and the sets tried; None without a clear end.

    All wrong sides change at once while their number falls.
    """
    fewest, patience = sides.d.size + 1, _PATIENCE
    for tried in range(1, _SETS):
        index = np.flatnonzero(acting)
        found = _held(sides, index)
        if found is None:
            return _one_by_one(sides, p, tried)
        measure = found.w.copy()
        measure[index] = found.mu
        measure[:p] = math.inf
        wrong = measure < 0.0
        count = int(np.count_nonzero(wrong))
        if not count:
            return acting, tried
        patience = _PATIENCE if count < fewest else patience - 1
        fewest = min(count, fewest)
        if patience < 0:
            return _one_by_one(sides, p, tried)
        acting = acting ^ wrong
    return None


def _one_by_one(sides: _Sides, p: int, tried: int) -> tuple[HostArray, int] | None:
    """Return the same by adding the side that is most violated, and dropping what it moves.

    The dual method: μ >= 0 always, and the dual objective rises with each side.
    """
    if sides.V.shape[0] > _FEW:
        return None
    index = np.arange(p)
    for count in range(tried, tried + _STEPS):
        found = _held(sides, index)
        if found is None:
            return None
        measure = found.w.copy()
        measure[index] = math.inf
        if float(measure.min(initial=0.0)) >= 0.0:
            acting = np.zeros(measure.size, dtype=bool)
            acting[index] = True
            return acting, count
        entered = _with_side(sides, p, index, found, int(measure.argmin()))
        if entered is None:
            return None
        index = entered
    return None


def _with_side(
    sides: _Sides, p: int, index: HostArray, found: _Multipliers, entering: int
) -> HostArray | None:
    """Return the set with one side more, and without those that it moves.

    The multipliers move as that of the entering side grows; None where nothing stops it.
    """
    v, mu, force = sides.V[:, entering], found.mu, 0.0
    held: _Multipliers | None = found
    while held is not None:
        W, along = sides.V[:, index], np.zeros(0)
        if index.size:
            along, _ = linalg.lapack.dpotrs(held.factor, -(W.T @ v), lower=1)
        left = v + W @ along
        curvature = float(left @ left)
        miss = float(sides.d[entering] + v @ (W @ mu + force * v))
        whole = -miss / curvature if curvature > _INDEPENDENT else math.inf
        falls = np.flatnonzero(along[p:] < 0.0) + p
        reach = -mu[falls] / along[falls]
        first = float(reach.min(initial=math.inf))
        if whole <= first:
            return np.append(index, entering) if math.isfinite(whole) else None
        gone = int(falls[reach.argmin()])
        mu, force = np.delete(mu + first * along, gone), force + first
        index = np.delete(index, gone)
        held = _held(sides, index)
    return None


def _exact(
    program: ConvexProgram,
    matrices: tuple[HostArray, HostArray, HostArray],
    sides: _Sides,
    acting: HostArray,
    niter: int,
) -> Pivoted | None:
    """Return the solution of the equations of an active set, None where it is none."""
    P, A, G = matrices
    n, p, k = program.n, program.b.size, program.h.size
    m = p + k + sides.low.size
    rows = acting[p : p + k]
    low, high = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    low[sides.low[acting[p + k : m]]] = True
    high[sides.high[acting[m:]]] = True
    fixed = low | high
    free, held = np.flatnonzero(~fixed), np.flatnonzero(rows)
    y = np.where(low, program.lower, np.where(high, program.upper, 0.0))
    C = np.concatenate([A, G[held]])
    lengths = np.concatenate([sides.lengths[:p], sides.lengths[p : p + k][held]])
    scale = np.concatenate([1.0 / np.sqrt(P.diagonal()[free]), 1.0 / lengths])
    a = free.size
    P_free = scale[:a, None] * P[np.ix_(free, free)] * scale[:a]
    matrix = DenseKKT(P_free, scale[a:, None] * C[:, free] * scale[:a])
    misses = np.concatenate([program.b, program.h[held]]) - C @ y
    rhs = np.concatenate([-(program.q + P @ y)[free], misses])
    found, error = _solved(matrix, scale * rhs, a)
    if not error <= _EXACT:
        return None
    found = scale * found
    y[free] = found[:a]
    nu, z = found[a : a + p], np.zeros(k)
    z[held] = found[a + p :]
    force = P @ y + program.q + A.T @ nu + G.T @ z
    point = PrimalDual(y, nu, z, np.where(fixed, force, 0.0))
    index = np.concatenate([free, np.arange(n, n + p), n + p + held])
    pivoted = Pivoted(point, rows, low, high, matrix, index, scale, error, niter)
    return pivoted if _is_clear(program, G, sides, pivoted) else None


def _solved(matrix: DenseKKT, rhs: HostArray, n: int) -> tuple[HostArray, float]:
    """Return K⁻¹ rhs and its largest residual, relative to the terms of the row.

    Rows of small terms are judged by a hundredth of the largest ones of their kind.
    """
    if not rhs.size:
        return rhs, 0.0
    shift = np.full(rhs.size, _SHIFT)
    shift[n:] = -_SHIFT
    sound = bool(np.isfinite(rhs).all())
    if not (sound and matrix.factorise(0.0 * shift, shift)):
        return rhs, math.inf
    found, _ = refined(matrix, rhs, 1e-15, 5)
    off = np.abs(rhs - matrix.product(found))
    terms = matrix.size_of_product(found) + np.abs(rhs)
    error = 0.0
    for part in (slice(n), slice(n, None)):
        least = 1e-2 * float(terms[part].max(initial=0.0))
        if least > 0.0:
            share = off[part] / np.maximum(terms[part], least)
            error = max(error, float(share.max()))
    return found, error


def _is_clear(program: ConvexProgram, G: HostArray, sides: _Sides, at: Pivoted) -> bool:
    """Tell whether what acts pushes and all else is met, both by more than rounding.

    Forces and slacks are lengths in the metric of P.
    """
    (y, _, z, s), low, high = at.point, sides.low, sides.high
    p = program.b.size
    lengths = sides.lengths[p:]
    forces = np.concatenate([z, s[low], -s[high]]) * lengths
    slacks = np.concatenate(
        [program.h - G @ y, (y - program.lower)[low], (program.upper - y)[high]]
    )
    slacks = slacks / lengths
    acting = np.concatenate([at.rows, at.low[low], at.high[high]])
    sizes = np.concatenate([forces, slacks, sides.d])
    size = float(np.abs(sizes).max(initial=sides.length))
    return bool((np.where(acting, forces, slacks) > _CLEAR * size).all())
