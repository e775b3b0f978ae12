"""A primal-dual interior-point method for convex quadratic programs with their entries.

    P y + q + A'ν + G'z = 0,   A y = b,   G y + w = h,   w_i z_i = σ μ → 0,   w, z > 0

Bounds are rows of the identity, which enter the diagonal.  The data are brought to one unit
first (rows, columns and f), so that the steps are the same in any units of y, of f and of
rows; the first point is Mehrotra's, from the program's own lengths and forces.  The matrix
keeps its pattern and its ordering.  Its shift is that of a proximal point method: the step is
not corrected for it, so that free directions do not run away; it falls while the steps are
accurate, as it slows those of curvatures as small.  Variables between equal bounds are held.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from ..arrays import HostArray
from .convex_program import ConvexProgram, PrimalDual, errors, floor_of
from .kkt_matrix import DenseKKT, SparseKKT, kkt_matrix, refined

logger = logging.getLogger(__name__)

_PASSES = 10  # of the scaling of rows and columns
_EVEN = 0.2  # a pass that changes less is the last
_SHIFT = 1e-7  # of the unit diagonal: u / δ² < 1, no pivoting is needed
_MOST_OF_ROWS = 1e-3
_MOST_SHIFT = 1e-3  # of the units: the least that curvatures of them notice
_FALL_OF_SHIFT = 0.1  # while the steps are accurate
_LEAST_SHIFT = 1e-10  # of the unit diagonal, as PIQP's
_TO_BOUNDARY = 0.99
_PULL = 3.0  # of 1, 3, 10, 30: forces of the start that left the fewest unsolved
_USELESS = 1e-3  # a relative residual of a step that is none
_MORE_SHIFTS = 3
_ACCURATE = 1e-10  # a relative residual of the steps
_CORRECTIONS = 3
_SMALL = 200
_PATIENCE = 40  # steps in which the error must halve
MAXITER = 200


class Scaling(NamedTuple):
    """y = columns ŷ, rows of A and G times ``rows``, f times ``unit``."""

    columns: HostArray
    rows: HostArray
    unit: float

    def given(self, point: PrimalDual) -> PrimalDual:
        """Return a scaled point in the program's own units."""
        p = point.nu.shape[0]
        return PrimalDual(
            y=self.columns * point.y,
            nu=self.rows[:p] * point.nu / self.unit,
            z=self.rows[p:] * point.z / self.unit,
            s=point.s / (self.columns * self.unit),
        )

    def scaled(self, point: PrimalDual) -> PrimalDual:
        """Return a point of the program in the scaled units."""
        p = point.nu.shape[0]
        return PrimalDual(
            y=point.y / self.columns,
            nu=point.nu * self.unit / self.rows[:p],
            z=point.z * self.unit / self.rows[p:],
            s=point.s * (self.columns * self.unit),
        )


def scaled(program: ConvexProgram) -> tuple[ConvexProgram, Scaling]:
    """Return the program with entries of about 1 in each row and column of its KKT matrix.

    References
    ----------
    D. Ruiz, "A scaling algorithm to equilibrate both rows and columns norms in
    matrices", RAL-TR-2001-034.
    """
    n, p = program.n, program.b.shape[0]
    dense = isinstance(program.P, np.ndarray)
    C = _stacked(program)
    P = program.P if dense else sparse.csr_array(program.P)
    columns, rows, unit = np.ones(n), np.ones(C.shape[0]), 1.0
    aP, aC, ones = abs(P), abs(C), np.ones(n)
    for _ in range(_PASSES):
        of_P = unit * columns * _largest(_times(aP, columns, ones), 1)
        scaled_C = _times(aC, columns, rows)
        of_C, of_rows = _largest(scaled_C, 0), _largest(scaled_C, 1)
        size = np.maximum(of_P, of_C)
        size, of_rows = _or_one(size), _or_one(of_rows)
        columns, rows = columns / np.sqrt(size), rows / np.sqrt(of_rows)
        curved = of_P[of_P > 0.0] / (unit * size[of_P > 0.0])
        unit = 1.0 / float(np.exp(np.mean(np.log(curved)))) if curved.size else 1.0
        if all(np.max(np.abs(v - 1.0), initial=0.0) < _EVEN for v in (size, of_rows)):
            break
    A, G = _times(program.A, columns, rows[:p]), _times(program.G, columns, rows[p:])
    return (
        ConvexProgram(
            P=unit * _times(P, columns, columns),
            q=unit * columns * program.q,
            A=A,
            b=rows[:p] * program.b,
            G=G,
            h=rows[p:] * program.h,
            lower=program.lower / columns,
            upper=program.upper / columns,
        ),
        Scaling(columns, rows, unit),
    )


def _or_one(values: HostArray) -> HostArray:
    return np.where(values > 0.0, values, 1.0)


def _stacked(program: ConvexProgram) -> Any:
    parts = program.A, program.G
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts)
    return sparse.vstack([sparse.csr_array(part) for part in parts], format="csr")


def _times(matrix: Any, columns: HostArray, rows: HostArray) -> Any:
    """Return diag(rows) M diag(columns)."""
    if isinstance(matrix, np.ndarray):
        return rows[:, None] * matrix * columns
    matrix = sparse.csr_array(matrix)
    data = matrix.data * columns[matrix.indices]
    data = data * np.repeat(rows, np.diff(matrix.indptr))
    return sparse.csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)


def _largest(matrix: Any, axis: int) -> HostArray:
    """Return the largest entry of each column (0) or row (1) of a matrix >= 0."""
    if 0 in matrix.shape:
        return np.zeros(matrix.shape[1 - axis])
    if isinstance(matrix, np.ndarray):
        return matrix.max(axis=axis)
    return matrix.max(axis=axis).toarray().ravel()


@dataclasses.dataclass
class _Point:
    """The variables and multipliers; sides are the rows of G, lower and upper bounds."""

    y: HostArray
    nu: HostArray
    z: HostArray
    w: HostArray


class _Direction(NamedTuple):
    y: HostArray
    nu: HostArray
    z: HostArray
    w: HostArray


@dataclasses.dataclass(frozen=True)
class Ended:
    """How the iteration ended.

    Attributes
    ----------
    point : PrimalDual
        The best one, in the program's own units.
    solved : bool
    certificate : {"", "infeasible", "unbounded"}
        What the last iterate proves.
    worst : float
        The largest error of the point.
    niter : int
    stopped : bool
        Whether the callback asked for it.
    """

    point: PrimalDual
    solved: bool
    certificate: str
    worst: float
    niter: int
    stopped: bool = False


class ConvexQuadraticPath:
    """The iteration on a scaled program."""

    def __init__(self, program: ConvexProgram) -> None:
        self.given = program
        self.program, self.scaling = scaled(program)
        scaled_program = self.program
        self.n, self.p = program.n, program.b.shape[0]
        self.k = program.h.shape[0]
        self.C = _stacked(scaled_program)
        held = program.lower == program.upper
        self.fixed = np.flatnonzero(held)
        self.low = np.flatnonzero(np.isfinite(program.lower) & ~held)
        self.high = np.flatnonzero(np.isfinite(program.upper) & ~held)
        every = np.ones(self.n + self.p + self.k, dtype=bool)
        every[self.fixed] = False
        self._kept = every if self.fixed.size else None
        self.matrix: SparseKKT | DenseKKT = kkt_matrix(scaled_program.P, self.C)
        self._signs = np.concatenate(
            [np.ones(self.n), -np.ones(self.p), np.zeros(self.k)]
        )
        self.shift, self.residual = 1.0, 0.0
        self.now: _Point | None = None
        self.niter = 0

    @functools.cached_property
    def _unit_shifts(self) -> tuple[float, float]:
        """The shifts of y and of the rows: forces over lengths, and lengths over forces."""
        of_y = min(_SHIFT * self.weight, _MOST_SHIFT)
        return of_y, min(_SHIFT / self.weight, _MOST_OF_ROWS)

    @functools.cached_property
    def _shifts(self) -> HostArray:
        """The shift of each unknown."""
        of_y, of_rows = self._unit_shifts
        return np.where(self._signs > 0.0, of_y, of_rows) * self._signs

    def ease_shift(self) -> None:
        """Lower the shift after an accurate step."""
        least = _LEAST_SHIFT / math.sqrt(math.prod(self._unit_shifts))
        if self.residual <= _ACCURATE:
            self.shift = min(self.shift, max(_FALL_OF_SHIFT * self.shift, least))

    @functools.cached_property
    def weight(self) -> float:
        """The usual force over the usual length, of the data; 1 where there is none."""
        f = self.program
        bounds = f.lower[self.fixed], f.lower[self.low], f.upper[self.high]
        sides = np.concatenate([f.b, f.h, *bounds])
        self.force, self.length = _typical(f.q), _typical(sides)
        both = self.force > 0.0 and self.length > 0.0
        return self.force / self.length if both else 1.0

    @property
    def units(self) -> tuple[float, float]:
        """The usual force and length of the data, 1 where there is none."""
        ratio = self.weight
        if self.force > 0.0:
            return self.force, self.force / ratio
        return ratio * (self.length or 1.0), self.length or 1.0

    @property
    def has_inequalities(self) -> bool:
        """Whether there is any row of G or bound."""
        return bool(self.k + self.low.size + self.high.size)

    def typical_force(self, now: PrimalDual) -> float:
        """Return the median of the forces on the variables at a scaled point."""
        f = self.program
        force = abs(f.P) @ np.abs(now.y) + np.abs(f.q) + np.abs(now.s)
        force = force + abs(f.A).T @ np.abs(now.nu) + abs(f.G).T @ np.abs(now.z)
        return floor_of(force)

    def typical_length(self, now: PrimalDual) -> float:
        """Return the usual size of the variables at a scaled point."""
        return floor_of(np.abs(now.y))

    def factorise_set(
        self, kept: HostArray, shift: float, *, pivoting: bool = False
    ) -> bool:
        """Factorise the matrix of the unknowns that are kept, without slacks."""
        signs = np.where(self._signs == 0.0, -1.0, self._signs)
        return self.matrix.factorise(
            0.0 * signs, shift * signs, kept, pivoting=pivoting
        )

    # the sides ----------------------------------------------------------------------
    def side_values(self, y: HostArray) -> HostArray:
        """Return G y − h, lower − y and y − upper, feasible where <= 0."""
        f = self.program
        return np.concatenate(
            [
                f.G @ y - f.h,
                f.lower[self.low] - y[self.low],
                y[self.high] - f.upper[self.high],
            ]
        )

    def side_products(self, d: HostArray) -> HostArray:
        """Return the change of the side values along d."""
        return np.concatenate([self.program.G @ d, -d[self.low], d[self.high]])

    def pulls_of_bounds(self, z: HostArray) -> HostArray:
        """Return − z at lower and + z at upper bounds, (n,)."""
        found = np.zeros(self.n)
        m = self.k + self.low.size
        found[self.low] -= z[self.k : m]
        found[self.high] += z[m:]
        return found

    def as_point(self, now: _Point) -> PrimalDual:
        """Return the iterate in the program's own units."""
        s = -self.pulls_of_bounds(now.z)
        point = PrimalDual(now.y, now.nu, now.z[: self.k], s)
        if self.fixed.size:
            s[self.fixed] = self.program.lagrangian_grad(point)[self.fixed]
        return self.scaling.given(point)

    # steps --------------------------------------------------------------------------
    def residuals(self, now: _Point) -> tuple[HostArray, HostArray, HostArray]:
        """Return r_d, r_e and r_g."""
        f = self.program
        r_d = f.P @ now.y + f.q + f.A.T @ now.nu + f.G.T @ now.z[: self.k]
        r_d = r_d + self.pulls_of_bounds(now.z)
        r_d[self.fixed] = 0.0
        return r_d, f.A @ now.y - f.b, self.side_values(now.y) + now.w

    def factorise(self, ratio: HostArray) -> bool:
        """Factorise for z / w = ratio, with a larger shift where there is no factor."""
        diagonal = np.zeros(self.n + self.p + self.k)
        m = self.k + self.low.size
        diagonal[self.low] += ratio[self.k : m]
        np.add.at(diagonal, self.high, ratio[m:])
        diagonal[self.n + self.p :] = -1.0 / ratio[: self.k]
        for _ in range(4):
            shift = self.shift * self._shifts
            if self.matrix.factorise(diagonal + shift, 0.0 * shift, self._kept):
                return True
            self.shift *= 100.0
        return False

    def solve(
        self,
        now: _Point,
        r: tuple[HostArray, HostArray, HostArray],
        c: HostArray,
    ) -> _Direction:
        """Return the step with w dz + z dw = c that cancels the residuals."""
        r_d, r_e, r_g = r
        k, ratio = self.k, now.z / now.w
        push = c / now.w + ratio * r_g
        of_bounds = push.copy()
        of_bounds[:k] = 0.0
        top = -r_d - self.pulls_of_bounds(of_bounds)
        bottom = -r_g[:k] - c[:k] / now.z[:k]
        rhs = np.concatenate([top, -r_e, bottom])
        found, self.residual = refined(self.matrix, rhs, _ACCURATE, 3)
        dy, dnu = found[: self.n], found[self.n : self.n + self.p]
        along = self.side_products(dy)
        dz = push + ratio * along
        dz[:k] = found[self.n + self.p :]
        return _Direction(dy, dnu, dz, -r_g - along)

    def first_point(self) -> _Point | None:
        """Return Mehrotra's first point: least slacks and least forces, made positive.

        Each slack in the unit of its side, the usual length or a farther one, and each force
        in the unit that makes all products alike: a side at 1e5 counts as a near one.
        """
        f, (force, length) = self.program, self.units
        sides = np.concatenate([f.h, f.lower[self.low], f.upper[self.high]])
        of_w = np.maximum(np.abs(sides), length)
        of_z = force * length / of_w
        if not self.factorise(of_z / of_w):
            return None
        # min ½ y'Py + q'y + ½ Σ (of_z / of_w) w² where A y = b and G y + w = h.
        nothing = np.zeros(of_w.size)
        start = _Point(np.zeros(self.n), np.zeros(self.p), nothing, nothing)
        start.y[self.fixed] = f.lower[self.fixed]
        r_d, r_e, r_g = self.residuals(start)
        unit = _Point(start.y, start.nu, of_z, of_w)
        found = self.solve(unit, (r_d, r_e, r_g), nothing)
        y, nu = start.y + found.y, found.nu
        if not of_w.size:
            return _Point(y, nu, nothing, nothing)
        w, z = _positive(-self.side_values(y) / of_w), _positive(found.z / of_z)
        product = float(w @ z)
        w = w + 0.5 * product / float(z.sum())
        z = z + 0.5 * product / float(w.sum())
        return _Point(y, nu, _PULL * of_z * z, of_w * w)


def _typical(values: HostArray) -> float:
    """Return the median size of the entries that are not zero, 0 of none."""
    some = np.abs(values[values != 0.0])
    return float(np.median(some)) if some.size else 0.0


def _positive(values: HostArray) -> HostArray:
    """Return the values, in their units, plus what makes the least of them positive."""
    least = float(values.min())
    lifted = values + max(-1.5 * least, 0.0)
    floor = 1e-3 * max(float(np.abs(values).max()), 1.0)
    return lifted + floor if float(lifted.min()) < floor else lifted


def _longest(values: HostArray, changes: HostArray) -> float:
    falls = changes < 0.0
    if not falls.any():
        return math.inf
    return float(np.min(values[falls] / -changes[falls]))


def _step_lengths(now: _Point, d: _Direction) -> tuple[float, float]:
    return min(1.0, _longest(now.w, d.w)), min(1.0, _longest(now.z, d.z))


def follow(
    program: ConvexProgram,
    tol: float,
    maxiter: int = MAXITER,
    callback: Callable[[int, HostArray], bool] | None = None,
    path: ConvexQuadraticPath | None = None,
) -> Ended:
    """Solve a convex program to a relative error ``tol`` of rows, forces and the gap.

    Parameters
    ----------
    callback : callable, optional
        ``callback(niter, y)`` is called at each iterate; a true value stops.

    References
    ----------
    S. Mehrotra, "On the implementation of a primal-dual interior point method",
    SIAM J. Optim. 2 (1992) 575-601.
    R. Schwan, Y. Jiang, D. Kuhn, C. N. Jones, "PIQP: a proximal interior-point quadratic
    programming solver", CDC 2023, arXiv:2304.00290 (the proximal shift).
    """
    path = path or ConvexQuadraticPath(program)
    now = path.first_point() if path.now is None else path.now
    if now is None:
        nothing = np.zeros(program.n)
        point = PrimalDual(nothing, 0.0 * program.b, 0.0 * program.h, nothing)
        return Ended(point, False, "", math.inf, 0)
    best, least, history = path.as_point(now), math.inf, []
    while True:
        path.now, point = now, path.as_point(now)
        worst = errors(path.program, path.scaling.scaled(point)).worst
        mu = float(now.w @ now.z) / now.w.size if now.w.size else 0.0
        logger.debug("convex_quadratic %d: mu %.2e, %.2e", path.niter, mu, worst)
        if worst < least:
            best, least = point, worst
        if callback is not None and callback(path.niter, point.y):
            return Ended(best, False, "", least, path.niter, stopped=True)
        if worst <= tol:
            return Ended(point, True, "", worst, path.niter)
        certificate = _certificate(path, now)
        if certificate:
            return Ended(best, False, certificate, least, path.niter)
        history.append(least)
        stuck = len(history) > _PATIENCE and least > 0.5 * history[-_PATIENCE - 1]
        if path.niter >= maxiter or stuck:
            break
        moved = _predict_and_correct(path, now, mu)
        if moved is None:
            break
        path.ease_shift()
        now, path.niter = moved, path.niter + 1
    return Ended(best, False, "", least, path.niter)


def _predict_and_correct(
    path: ConvexQuadraticPath, now: _Point, mu: float
) -> _Point | None:
    """Return the next iterate, None where there is no step."""
    r = path.residuals(now)
    d = _predicted(path, now, r)
    if d is None:
        return None
    if now.w.size:
        alpha = min(_step_lengths(now, d))
        ahead = float((now.w + alpha * d.w) @ (now.z + alpha * d.z)) / now.w.size
        sigma = (max(ahead, 0.0) / mu) ** 3
        d = _centred(path, now, r, d, sigma * mu)
    if not all(np.isfinite(part).all() for part in d):
        return None
    primal = min(1.0, _TO_BOUNDARY * _longest(now.w, d.w))
    dual = min(1.0, _TO_BOUNDARY * _longest(now.z, d.z))
    return _Point(
        now.y + primal * d.y,
        now.nu + dual * d.nu,
        now.z + dual * d.z,
        now.w + primal * d.w,
    )


def _predicted(
    path: ConvexQuadraticPath,
    now: _Point,
    r: tuple[HostArray, HostArray, HostArray],
) -> _Direction | None:
    """Return the step to μ = 0, with a larger shift where rounding spoils the factor."""
    for _ in range(_MORE_SHIFTS):
        if not path.factorise(now.z / now.w):
            return None
        d = path.solve(now, r, -now.w * now.z)
        if path.residual <= _USELESS:
            return d
        path.shift *= 100.0
    return None


def _centred(
    path: ConvexQuadraticPath,
    now: _Point,
    r: tuple[HostArray, HostArray, HostArray],
    affine: _Direction,
    mu: float,
) -> _Direction:
    """Return Mehrotra's direction to μ, with Gondzio's corrections of what is uneven."""
    c = mu - now.w * now.z - affine.w * affine.z
    d = path.solve(now, r, c)
    alpha = min(_step_lengths(now, d))
    worth = path.matrix.size > _SMALL  # a factorisation costs more than its solves
    for _ in range(_CORRECTIONS if worth else 0):
        longer = min(1.0, alpha + 0.3)
        product = (now.w + longer * d.w) * (now.z + longer * d.z)
        change = np.clip(product, 0.1 * mu, 10.0 * mu) - product
        change = np.maximum(change, -10.0 * mu)
        corrected = path.solve(now, r, c + change)
        length = min(_step_lengths(now, corrected))
        if not length >= alpha + 0.03:
            break
        c, d, alpha = c + change, corrected, length
    return d


def _certificate(path: ConvexQuadraticPath, now: _Point) -> str:
    """Return what the iterate proves: "infeasible", "unbounded" or nothing."""
    f, k = path.program, path.k
    size_z = max(float(np.abs(now.nu).max(initial=0.0)), float(now.z.max(initial=0.0)))
    if size_z > 0.0:
        pull = f.A.T @ now.nu + f.G.T @ now.z[:k] + path.pulls_of_bounds(now.z)
        sides = np.concatenate([f.h, -f.lower[path.low], f.upper[path.high]])
        held = -pull[path.fixed] * f.lower[path.fixed]
        pull[path.fixed] = 0.0
        terms = np.concatenate([f.b * now.nu, sides * now.z, held])
        proof = -float(terms.sum())
        reach = max(float(np.abs(now.y).max(initial=0.0)), path.units[1])
        # A point of the size of y, 1e6 times, cannot undo the proof.
        pulled = float(np.abs(pull).sum()) * reach
        if proof > 1e6 * pulled and proof > 1e-8 * float(np.abs(terms).sum()):
            return "infeasible"
    size = float(np.abs(now.y).max(initial=0.0))
    if size > 0.0:
        d = now.y / size
        d[path.fixed] = 0.0
        fall = float(f.q @ d)
        if fall < 0.0:
            along = np.maximum(path.side_products(d), 0.0)
            off = max(
                float(np.abs(f.A @ d).max(initial=0.0)),
                float(along.max(initial=0.0)),
                float(np.abs(f.P @ d).max(initial=0.0)),
            )
            scale = float(np.abs(f.q) @ np.abs(d))
            if off <= 1e-9 and -fall > 1e-6 * scale:
                return "unbounded"
    return ""


def contradiction(path: ConvexQuadraticPath, equal: HostArray, rows: HostArray) -> str:
    """Name the constraints that the last multipliers prove to contradict each other.

    ``equal`` and ``rows`` are the places of the program's rows among the problem's.
    """
    now, f, k = path.now, path.program, path.k
    if now is None:
        return ""
    middle = k + path.low.size
    held = -(f.A.T @ now.nu + f.G.T @ now.z[:k])[path.fixed]
    most = max(float(np.abs(now.nu).max(initial=0.0)), float(now.z.max(initial=0.0)))
    named = []
    for what, forces, places in (
        ("equality row", np.abs(now.nu), equal),
        ("inequality row", now.z[:k], rows),
        ("lower bound", now.z[k:middle], path.low),
        ("upper bound", now.z[middle:], path.high),
        ("equal bounds", np.abs(held), path.fixed),
    ):
        named += [f"{what} {int(i)}" for i in places[forces > 1e-3 * most]]
    some = ", ".join(named[:6]) + (", ..." if len(named) > 6 else "")
    sides = np.concatenate([f.h, -f.lower[path.low], f.upper[path.high]])
    size = -float(f.b @ now.nu + sides @ now.z + held @ f.lower[path.fixed]) / most
    return f"no y meets {some} at once: a weighted sum of them is off by {size:.2e}"
