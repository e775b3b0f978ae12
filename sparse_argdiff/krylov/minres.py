"""MINRES for a symmetric A, definite or not (Paige & Saunders 1975).

Lanczos builds A V_k = V_{k+1} T_k in the metric of M, Givens rotations reduce T_k, and

    x_k = argmin ‖b − A x‖_M  over the Krylov space,   φ_k = ‖b − A x_k‖_M.

of one right-hand side (n,), or of the columns (n, k) of a block, which advance together.
Storage: 8 n (x and its last verified value, r, two Lanczos vectors, the product, two
directions), + n with M; all but x and r lie in the workspace.  Each step moves 12 n beside
the product and M: the Lanczos vectors are never normalised, their lengths are folded into
the coefficients.
"""

from __future__ import annotations

import math
from typing import Any

from ..arrays import Array, dot, norm
from ..kernels import Device, Line, Scalar, Workspace
from ..status import Status
from .column_blocks import Recurrence, take
from .linear_system import (
    Column,
    LinearSystem,
    column_of,
    contiguous,
    drive,
    operator_norm_estimates,
    solve_columns,
    solve_in_rounds,
)
from .result import Callback, KrylovResult

_RESTARTS = 3
# Why a column has ended.
_GOING, _NAN, _METRIC, _LEAST = range(4)
_ENDED = {
    _GOING: None,
    _NAN: Status.NOT_FINITE,
    _METRIC: Status.INDEFINITE_PRECONDITIONER,
    _LEAST: Status.LEAST_SQUARES,
}
_SCALARS = [
    "active",
    "beta",
    "code",
    "cosine",
    "delta_next",
    "epsilon_next",
    "least_root",
    "phi",
    "phi_there",
    "r_norm",
    "root",
    "scale",
    "sine",
    "size",
    "size_old",
    "start",
    "t_norm",
    "wanted",
    "_a_norm",
]


def minres(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    rtol: float = 1e-8,
    atol: float = 0.0,
    maxiter: int | None = None,
    M: Any = None,
    callback: Callback | None = None,
    kernels: str | Device | None = None,
    workspace: Workspace | None = None,
) -> KrylovResult:
    """Solve A x = b for a symmetric A that may be indefinite.

    The arguments, the stopping rule and the result are those of :func:`cg`; M must be
    symmetric positive definite even where A is not.

    Returns
    -------
    KrylovResult
        A singular, inconsistent system ends with status ``LEAST_SQUARES``: x then
        minimises the residual, which is not success.  ``energy_error`` is None.

    Notes
    -----
    The recurrence measures the residual in the metric of M; both norms are recomputed
    before convergence is said (one product), and the iteration restarts from there
    with a tighter target where one is missed.

    References
    ----------
    C. C. Paige, M. A. Saunders, "Solution of sparse indefinite systems of linear
    equations", SIAM J. Numer. Anal. 12 (1975) 617-629.
    """

    def method(system: LinearSystem) -> tuple[Array, Array]:
        progress = {column.index: _Progress() for column in system.columns}
        x, r = solve_in_rounds(
            system,
            6 + (system.M is not None),
            lambda part, x, r, scratch: _round(part, x, r, scratch, progress),
        )
        for c, column in enumerate(system.columns):
            _conclude(system, column, contiguous(x, c), contiguous(r, c))
        return x, r

    return solve_columns(
        method,
        A,
        b,
        x0,
        rtol=rtol,
        atol=atol,
        maxiter=maxiter,
        M=M,
        callback=callback,
        kernels=kernels,
        workspace=workspace,
    )


class _Progress:
    """What the rounds of one column hand on."""

    restarts = 0
    reduction = 1.0  # of the target: the M-norm is not the 2-norm


class Lanczos(Recurrence):
    """The recurrence from x with residual r: x is updated in place, r is not changed.

    A column ends where ‖r‖_M ≤ ``wanted``.

    The Lanczos vectors are kept with a length: ``newer`` is ``size`` times a vector of
    length one in the metric of M, ``size`` = ``scale`` β.  The scale, a power of two near
    1/‖A‖, keeps squares in the floating range.
    """

    def __init__(
        self,
        system: LinearSystem,
        x: Array,
        r: Array,
        scratch: list[Array],
    ) -> None:
        self.A, self.M, self.kernels = system.A, system.M, system.kernels
        self.x, self.r = x, r
        older, newer, buffer, w, w_old, *of_M = scratch
        for vector in (older, w, w_old):
            vector[...] = 0.0
        newer[...] = r
        self.scalars = s = self.kernels.scalars(r)
        v, square = newer, None
        if self.M is not None:
            v = of_M[0]
            square = self._metric(newer, v)
        if square is None:
            square = self.kernels.dot(newer, newer)
        self._vectors = older, newer, buffer, w, w_old, v
        unit = system.unit_roundoff
        self._unit, self._half = unit, math.sqrt(unit)
        self.r_norm = s.given([column.residual_norm for column in system.columns])
        self.active = (square > 0.0) & (square < math.inf)
        self.start = s.sqrt(s.where(self.active, square, 1.0))  # ‖r‖_M
        self.wanted = 0.1 * unit * self.start  # below r has nothing left to say
        self.code = s.where(
            self.active, _GOING, s.where(abs(square) < math.inf, _METRIC, _NAN)
        )
        one, none = s.full(1.0), s.full(0.0)
        self.size, self.size_old, self.scale, self.phi = (
            self.start,
            one,
            one,
            self.start,
        )
        self.beta = self.sine = self.delta_next = self.epsilon_next = none
        self.cosine, self.t_norm, self._a_norm = -one, none, none  # t_norm = ‖T‖_F
        self.root = self.least_root = self.phi_there = s.full(math.inf)
        self.products = 0

    def advance(self, most: int) -> list[list[Line]]:
        """Take up to so many steps; return whether each moved x, and ‖r‖, by columns."""
        A, M, kernels, s, unit = self.A, self.M, self.kernels, self.scalars, self._unit
        older, newer, buffer, w, w_old, v = self._vectors
        active, steps = self.active, []
        for count in range(1, most + 1):
            if s.none(active):
                break
            y, square = kernels.product(A, v, buffer)  # y = A v
            self.products += 1
            alpha = square / self.size / self.size
            if self.products == 1:
                self._set_scale(v, y)
            scale = self.scale
            c = scale / self.size
            a = -(self.beta * scale) / self.size_old
            b = -(alpha * scale) / self.size
            square = kernels.lanczos(older, newer, y, a, b, c)
            older, newer = newer, older
            if M is None:
                size = s.lengths(square, newer)
            else:
                square = self._metric(newer, buffer)
                size = s.sqrt(square)
            beta = size / scale
            self._check_column(active, alpha, beta, square)
            epsilon, delta, gamma_bar, gamma = self._rotate(alpha, beta)
            self._look_for_least_squares(active, gamma, look=count == most)
            active = active & (self.code == _GOING)
            if s.none(active):
                break
            self.cosine, self.sine = gamma_bar / gamma, beta / gamma
            step = s.where(active, self.cosine * self.phi, 0.0)
            self.phi = self.sine * self.phi
            # w = (v / size − ε w_old − δ w) / γ, in the buffer of the one before the last.
            coefficients = -epsilon / gamma, -delta / gamma, 1.0 / gamma / self.size
            kernels.minres_advance(self.x, w_old, w, v, coefficients, step)
            w_old, w = w, w_old
            v, buffer = (buffer, v) if M is not None else (newer, buffer)
            self.size_old, self.size, self.beta = self.size, size, beta
            moved = active
            active = active & (self.phi > self.wanted) & (beta > unit * self.t_norm)
            steps.append((moved, self.phi / self.start * self.r_norm, active))
        self._vectors = older, newer, buffer, w, w_old, v
        self.active = active
        lines: list[list[Line]] = s.lines(steps)
        return lines

    def breakdown(self, c: int) -> tuple[Status | None, Array | None, int]:
        """Return why column c has ended, None for a direction, and its last product."""
        status = _ENDED[int(self.scalars.values(self.code)[c])]
        return status, None, int(status is not None and self.products > 0)

    def a_norm(self, c: int) -> float:
        """Return a lower estimate of ‖A‖ from column c."""
        return float(self.scalars.values(self._a_norm)[c])

    def keep(self, columns: list[int], width: int) -> None:
        """Go on with these columns in a narrower block; width 0: in a vector."""
        shared = self._vectors[-1] is self._vectors[1]  # v is the newest vector itself
        vectors = [
            take(v, columns, width, self.kernels, self.A)
            for v in self._vectors[: 5 if shared else 6]
        ]
        older, newer, buffer, w, w_old, v = vectors + [vectors[1]] * shared
        self._vectors = older, newer, buffer, w, w_old, v
        self._keep(columns, width, ("x", "r"), _SCALARS)

    def _metric(self, r: Array, out: Array) -> Scalar:
        """Write M r into ``out`` itself, it must outlive the next product; return r'M r."""
        assert self.M is not None
        z, square = self.kernels.product(self.M, r, out)
        if z is not out:
            out[...] = z
        return square

    def _set_scale(self, v: Array, y: Array) -> None:
        """Estimate ‖A‖ from the first product, and the unit of the Lanczos vectors."""
        s, norms = self.scalars, operator_norm_estimates(v, y)
        scales = [
            _inverse_power_of_two(norms[c] * (norm(column_of(v, c)) / size) ** 2)
            for c, size in enumerate(s.values(self.size))
        ]
        self._a_norm, self.scale = s.given(norms), s.given(scales)

    def _check_column(
        self, active: Scalar, alpha: Scalar, beta: Scalar, square: Scalar
    ) -> None:
        """Note the norm of the new column of T, and end where it is none."""
        s = self.scalars
        length = s.where(active, s.hypot(alpha, self.beta, beta), 0.0)
        self.t_norm = s.hypot(self.t_norm, length)
        if self.M is None:
            self._a_norm = s.maximum(self._a_norm, length)
        sound = (abs(alpha) < math.inf) & (abs(square) < math.inf)
        bad = active & (sound ^ True)
        self._end(bad, _NAN)
        if self.M is not None:
            negative = square < -self._unit * (self.t_norm * self.scale) ** 2
            self._end(active & negative, _METRIC)

    def _rotate(
        self, alpha: Scalar, beta: Scalar
    ) -> tuple[Scalar, Scalar, Scalar, Scalar]:
        """Apply the last rotation to the new column of T; return its ε, δ, γ̄ and γ."""
        epsilon = self.epsilon_next
        delta = self.cosine * self.delta_next + self.sine * alpha
        gamma_bar = self.sine * self.delta_next - self.cosine * alpha
        self.epsilon_next, self.delta_next = self.sine * beta, -self.cosine * beta
        self.root = self.scalars.hypot(gamma_bar, self.delta_next)
        return epsilon, delta, gamma_bar, self.scalars.hypot(gamma_bar, beta)

    def _end(self, mask: Scalar, code: int) -> None:
        """Note why columns have ended."""
        if self.scalars.none(mask):
            return
        self.code = self.scalars.where(mask & (self.code == _GOING), code, self.code)

    def _look_for_least_squares(
        self, active: Scalar, gamma: Scalar, *, look: bool
    ) -> None:
        """End where ‖A r‖ = φ root is zero while φ is not: A is singular there."""
        s, phi, root, t_norm = self.scalars, self.phi, self.root, self.t_norm
        lower = active & (root < self.least_root)
        self.least_root = s.where(lower, root, self.least_root)
        self.phi_there = s.where(lower, phi, self.phi_there)
        half = self._half * t_norm
        flat = gamma <= 10.0 * self._unit * t_norm
        suspect = active & (flat | (self.least_root <= half))
        if s.none(suspect):
            return
        # Once ‖A r‖ rises again while ‖r‖ stands, x runs off along the null space.
        away = (root > 4.0 * self.least_root) & (phi > (1.0 - 1e-6) * self.phi_there)
        flat = suspect & (flat | (away & (self.least_root <= half)))
        near = suspect & (root <= half) & (phi > self.wanted)
        if s.any(near, look=look):
            flat = flat | (near & self._negligible())
        self._end(flat, _LEAST)

    def _negligible(self) -> Scalar:
        """Tell where rounding explains ‖A r‖ at this x."""
        s, t_norm = self.scalars, self.t_norm
        count = 1 if self.x.ndim == 1 else self.x.shape[1]
        sizes = s.given([norm(column_of(self.x, c)) for c in range(count)])
        reach = self.start * (1.0 + t_norm * sizes / self.r_norm)
        return self.phi * self.root <= 1e4 * self._unit * t_norm * reach


def _round(
    system: LinearSystem,
    x: Array,
    r: Array,
    scratch: list[Array],
    progress: dict[int, _Progress],
) -> None:
    """Iterate until each column has ended, recompute the residuals, decide the statuses."""
    kept, _, newer, fresh = scratch[:4]
    columns = system.columns
    kept[...] = x
    before = [column.residual_norm for column in columns]
    recurrence = Lanczos(system, x, r, scratch[1:])
    metric_before = _aim(system, recurrence, progress)
    stops = drive(system, recurrence, x, r, lambda _, line: line[1])
    system.residual(x, fresh, fresh)
    metric = [0.0] * len(columns)
    if system.M is not None:
        metric = system.metric_norms(fresh, newer)[: len(columns)]
    for c, column in enumerate(columns):
        column.n_matvec += 1
        x_c, r_c = column_of(x, c), column_of(r, c)
        size, again = norm(column_of(fresh, c)), progress[column.index].restarts
        worse = size > before[c]
        if system.M is not None and (worse or again):
            # The M-norm must fall, the 2-norm need not at first.
            worse = metric[c] > metric_before[c] or (worse and again > _RESTARTS)
        if worse and stops[c] is not Status.NOT_FINITE:
            x_c[...], column.residual_norm = column_of(kept, c), before[c]
            column.metric_norm = metric_before[c]
            at_rounding = system.at_rounding(column, contiguous(x, c))
            column.status = Status.ROUNDING_LIMIT if at_rounding else Status.STAGNATED
            continue
        r_c[...], column.residual_norm = column_of(fresh, c), size
        column.metric_norm = metric[c]
        if stops[c] is Status.LEAST_SQUARES and not column.met:
            found = contiguous(x, c), contiguous(r, c)
            if not _solves_least_squares(system, column, *found, stagnated=False):
                stops[c] = None  # a small eigenvalue, not a zero one: go on from here
        slow = column.is_slow(before[c], metric_before[c])
        column.status = _status(
            system, column, contiguous(x, c), slow, stops[c], progress[column.index]
        )


def _aim(
    system: LinearSystem, recurrence: Lanczos, progress: dict[int, _Progress]
) -> list[float]:
    """Tell the recurrence which ‖r‖_M is wanted; return those it starts from."""
    starts = [float(size) for size in recurrence.scalars.values(recurrence.start)]
    wanted = []
    for column, start in zip(system.columns, starts, strict=False):
        if column.b_metric == 0.0:  # without a start r is b
            column.b_metric = start
        share = progress[column.index].reduction * column.target / column.residual_norm
        wanted.append(min(share * start, column.metric_target))
    s, least = recurrence.scalars, recurrence.wanted
    recurrence.wanted = s.maximum(s.given(wanted), least)
    return starts


def _status(
    system: LinearSystem,
    column: Column,
    x: Array,
    slow: bool,
    stop: Status | None,
    progress: _Progress,
) -> Status | None:
    """Return how a column ended, by its recomputed residual; None: another round."""
    if not column.is_finite:
        return Status.NOT_FINITE
    if column.met:
        return Status.CONVERGED
    if (stop is not None or slow) and system.at_rounding(column, x):
        return Status.ROUNDING_LIMIT
    if stop is not None or column.niter >= system.maxiter:
        return stop
    progress.restarts += 1
    progress.reduction *= min(1.0, column.target / column.residual_norm)
    return Status.STAGNATED if slow and progress.restarts > _RESTARTS else None


def _conclude(system: LinearSystem, column: Column, x: Array, r: Array) -> None:
    """Complete a column: the cause of a failure."""
    column.status = column.status or Status.ITERATION_LIMIT
    if column.status is Status.STAGNATED and _solves_least_squares(
        system, column, x, r, stagnated=True
    ):
        column.status = Status.LEAST_SQUARES
    system.diagnose(column, x, r)


def _solves_least_squares(
    system: LinearSystem, column: Column, x: Array, r: Array, *, stagnated: bool
) -> bool:
    """Test ‖A M r‖_M ≪ ‖A‖_M ‖r‖_M, which the recurrence only estimated.

    It must be within what the rounding of x excuses, and by half the digits; of a
    residual that has ``stagnated`` the latter, nearly, is enough.
    """
    unit, a_norm = system.unit_roundoff, column.a_norm
    excused = 1e3 * unit * (1.0 + norm(x) * a_norm / norm(r))
    most = unit**0.45 if stagnated else min(excused, math.sqrt(unit))
    image, size = _image(system, r)
    column.n_matvec += 1
    if system.M is not None:  # what is known of ‖A‖ is not in this metric
        of_b, b_norm = _image(
            system, contiguous(system.b, system.columns.index(column))
        )
        a_norm = of_b / b_norm if b_norm else 0.0
        column.n_matvec += 1
    return image <= most * a_norm * size


def _image(system: LinearSystem, v: Array) -> tuple[float, float]:
    """Return ‖A M v‖ and ‖v‖, in the metric of M where there is one."""
    if system.M is None:
        return norm(system.A @ v), norm(v)
    z = system.M @ v
    size = math.sqrt(max(dot(v, z), 0.0))
    y = system.A @ z
    return math.sqrt(max(dot(y, system.M @ y), 0.0)), size


def _inverse_power_of_two(size: float) -> float:
    if not 0.0 < size < math.inf:
        return 1.0
    return math.ldexp(1.0, min(max(-math.frexp(size)[1], -1000), 1000))
