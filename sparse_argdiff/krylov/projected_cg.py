"""Conjugate gradients in the null space of C (Gould, Hribar & Nocedal 2001).

    min ½ y'H y − b'y  subject to  C y = c,        [ H  C' ] [ y ]   [ b ]
                                                   [ C  0  ] [ ν ] = [ c ]

From a feasible y, CG with the projection P = G⁻¹ (I − C' W) as preconditioner never
leaves the constraints.  Two things keep that true in floating point, and neither is
enough alone: the residual is replaced by its reduced part r − C' w after each step, else
r'Pr drowns in the multipliers' share of r; and the projection is refined until C z is
rounding.  H need only be definite on the null space.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ..arrays import (
    Array,
    as_count,
    as_floating,
    as_tolerance,
    asarray,
    axpy,
    dot,
    empty,
    epsilon,
    namespace,
    norm,
    zeros,
)
from ..kernels import choose
from ..operators.linear_operator import LinearOperator, as_operator
from ..status import Status
from .linear_system import flat_status
from .null_space import NullSpace, null_space_for
from .requests import Request, answer
from .result import Callback, Iterate, KrylovResult


def projected_cg(
    H: Any,
    C: Any,
    b: Any,
    c: Any = None,
    x0: Any = None,
    *,
    rtol: float = 1e-8,
    atol: float = 0.0,
    maxiter: int | None = None,
    M: Any = None,
    callback: Callback | None = None,
) -> KrylovResult:
    """Minimise ½ y'H y − b'y where C y = c.

    Parameters
    ----------
    H : operator (n, n)
        Symmetric; positive definite on the null space of C, whatever it is elsewhere.
    C : array or SciPy sparse matrix (p, n), or NullSpace
        The constraints; rows may depend on each other.  A
        :class:`~sparse_argdiff.krylov.null_space.NullSpace` saves the factorisation.
    b : array (n,) or (n, k)
        Right-hand side, or several.
    c : array (p,) or (p, k), optional
        Right-hand side of the constraints; zero by default.
    x0 : array like b, optional
        Start; it need not be feasible and does not change the meaning of the tolerance.
    rtol, atol : float
        Stop when the recomputed ‖b − H y − C'ν‖₂ ≤ max(rtol s, atol), where ν are the
        best multipliers of y and s is this same norm at the least-norm y with C y = c.
        For c = 0 it is the part of b that no multiplier can balance: large multipliers
        do not loosen the tolerance.  Where C leaves nothing free, s is ‖b − H y‖₂.
    maxiter : int, optional
        Limit on iterations, per column; 10 n by default.
    M : diagonal operator or ``preconditioners.constraint``, optional
        Approximates H⁻¹ and is the metric of the projection.
    callback : callable, optional
        ``callback(Iterate)`` from iteration 0 on; a true value or ``StopIteration``
        stops the solve (of that column).

    Returns
    -------
    KrylovResult
        ``x`` is y, ``multipliers`` ν, (p,) or (p, k), ``residual`` b − H y − C'ν.
        Numerical trouble is a status, never an exception: curvature that is not positive
        on the null space (with its ``direction``), rows that contradict each other,
        NaN, stagnation (of a C y = 0 that is missed, too), the iteration limit.

    Notes
    -----
    A solve costs niter + 1 products with H, and one more for c ≠ 0 or ``x0`` each, and
    per iteration one projection: two products with C and one with C' at least.  A b that
    the multipliers balance to rounding has the answer at the start and counts as
    converged.  Storage: 6 n, beside the null space's.

    References
    ----------
    N. I. M. Gould, M. E. Hribar, J. Nocedal, "On the solution of equality constrained
    quadratic programming problems arising in optimization", SIAM J. Sci. Comput. 23
    (2001) 1376-1395.
    """
    H = as_operator("H", H)
    constraints = null_space_for(C, M, H.shape[0])
    p, n = constraints.shape
    b = as_floating("b", b, ndim=(1, 2))
    columns = b.shape[1:]
    b = _of_shape("b", b, (n, *columns), b)
    if c is None:
        c = zeros((p, *columns), b)
    c = _of_shape("c", c, (p, *columns), b)
    if x0 is not None:
        x0 = _of_shape("x0", x0, (n, *columns), b)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be a function, found {type(callback).__name__}")
    options = _Options(
        as_tolerance("rtol", rtol),
        as_tolerance("atol", atol),
        max(10 * n, 20) if maxiter is None else as_count("maxiter", maxiter),
        callback,
    )

    def solve_one(part: Any, column: int = 0) -> KrylovResult:
        start = None if x0 is None else x0[part]
        own = options._replace(column=column)
        return _solve(H, constraints, b[part], c[part], start, own)

    if b.ndim == 1:
        return solve_one(...)
    return _stack([solve_one((slice(None), j), j) for j in range(b.shape[1])], b, c)


class _Options(NamedTuple):
    rtol: float
    atol: float
    maxiter: int
    callback: Callback | None
    column: int = 0

    def wants_stop(self, niter: int, y: Array, residual_norm: float) -> bool:
        """Tell the callback where we are; True when it asks to stop."""
        now = Iterate(niter, y, residual_norm, self.column)
        try:
            return self.callback is not None and bool(self.callback(now))
        except StopIteration:
            return True


class _Point(NamedTuple):
    """A feasible y and what is left of the conditions there, all recomputed."""

    y: Array
    multipliers: Array
    residual: Array  # b − H y − C'ν
    residual_norm: float
    raw_norm: float  # ‖b − H y‖
    force: float = 0.0  # the size of the terms that C'ν adds up


def _point(N: NullSpace, b: Array, y: Array, Hy: Array | None) -> _Point:
    raw = b if Hy is None else b - Hy
    size = norm(raw)
    if not math.isfinite(size):
        none = zeros((N.shape[0],), b)
        return _Point(y, none, raw, size, size)
    multipliers = N.multipliers(raw)
    # Once more: large multipliers are exact to their own rounding only.
    multipliers = multipliers + N.multipliers(raw - N.C.rmatvec(multipliers))
    residual = raw - N.C.rmatvec(multipliers)
    force = norm(N.row_lengths * multipliers)
    return _Point(y, multipliers, residual, norm(residual), size, force)


def _solve(
    H: LinearOperator,
    N: NullSpace,
    b: Array,
    c: Array,
    x0: Array | None,
    options: _Options,
) -> KrylovResult:
    unit_roundoff = max(epsilon(b), H.accuracy or 0.0)
    n_matvec, niter, a_norm = 0, 0, 0.0
    Hy, y, c_norm = None, namespace(b).zeros_like(b), norm(c)
    if c_norm != 0.0:
        finite = math.isfinite(c_norm)
        y = N.particular(c) if finite else math.nan + y
        Hy, n_matvec = H.matvec(y), 1
    at = _point(N, b, y, Hy)
    scale = at.raw_norm if N.rank == N.shape[1] else at.residual_norm
    target = max(options.rtol * scale, options.atol)
    b_norm = norm(b)
    direction: Array | None = None

    def floor(point: _Point) -> float:
        """Return the residual that rounding alone explains."""
        known = b_norm + point.raw_norm + point.force + a_norm * norm(point.y)
        return 32.0 * unit_roundoff * known

    def feasible(y: Array) -> bool:
        return N.mismatch(c, y) <= max(options.rtol, 1e3 * epsilon(b))

    # y = 0 meets C y = 0: what misses it is the projection, not a contradiction.
    infeasible = Status.INCONSISTENT if c_norm else Status.STAGNATED
    status: Status | None = None
    if x0 is not None and scale > 0.0:
        warm = x0 + N.particular(c - N.C.matvec(x0))
        n_matvec += 1
        there = _point(N, b, warm, H.matvec(warm))
        if there.residual_norm <= scale and feasible(warm):
            at = there
    asked = options.wants_stop(0, at.y, at.residual_norm)
    if not math.isfinite(at.residual_norm):
        status = Status.NOT_FINITE
    elif not feasible(at.y):
        status = infeasible
    elif at.residual_norm <= max(target, 0.25 * floor(at)):
        status = Status.CONVERGED
    elif asked:
        status = Status.STOPPED_BY_CALLBACK
    xp = namespace(b)
    while status is None and niter < options.maxiter:
        before, y = at.residual_norm, xp.asarray(at.y, copy=True)
        run = _iterate(H, N, y, at, max(target, 0.1 * floor(at)), niter, options)
        niter, a_norm = niter + run.steps, max(a_norm, run.a_norm)
        direction = run.direction
        y = y + N.particular(c - N.C.matvec(y))
        n_matvec += run.products + 1
        at = _point(N, b, y, H.matvec(y))
        true_norm = at.residual_norm
        if not math.isfinite(true_norm):
            status = Status.NOT_FINITE
        elif not feasible(y):
            status = infeasible
        elif true_norm <= target:
            status = Status.CONVERGED
        elif true_norm <= floor(at) and (
            run.status is not None or true_norm > 0.5 * before
        ):
            status = Status.ROUNDING_LIMIT
        elif run.status is not None:
            status = run.status
        elif true_norm > 0.5 * before and niter < options.maxiter:
            status = Status.STAGNATED
    status = status or Status.ITERATION_LIMIT
    return KrylovResult(
        x=at.y,
        status=status,
        converged=status is Status.CONVERGED,
        niter=niter,
        n_matvec=n_matvec,
        residual_norm=at.residual_norm,
        residual=at.residual,
        direction=direction,
        multipliers=at.multipliers,
    )


class _Run(NamedTuple):
    status: Status | None  # None: reduced as wanted, or out of iterations
    steps: int
    products: int
    a_norm: float  # lower estimate of ‖H‖
    direction: Array | None  # p, when its curvature is not positive


def _iterate(
    H: LinearOperator,
    N: NullSpace,
    y: Array,
    at: _Point,
    target: float,
    niter0: int,
    options: _Options,
) -> _Run:
    """Run the recurrence on y, in place, until ‖r‖ ≤ target."""
    unit_roundoff = max(epsilon(y), H.accuracy or 0.0)
    unit = at.residual_norm  # r in units of it: squares of r stay in range
    r = N.reduce(at.residual / unit)
    z = N.unmetric(r)
    p = namespace(z).asarray(z, copy=True)
    rho = p_square = dot(r, z)
    largest = a_norm = 0.0
    steps, buffer = 0, empty(p.shape, p)
    kernels = choose(None, p)
    H = kernels.operator(H)
    while niter0 + steps < options.maxiter:
        if not 0.0 < rho < math.inf:
            status = None if rho == 0.0 else Status.NOT_FINITE
            return _Run(status, steps, steps, a_norm, None)
        q, square = answer(Request(H, p, buffer), kernels)
        curvature = dot(p, q) if square is None else square
        if not math.isfinite(curvature):
            return _Run(Status.NOT_FINITE, steps, steps + 1, a_norm, None)
        quotient = curvature / p_square
        largest = max(largest, abs(quotient))
        a_norm = max(a_norm, norm(q) / norm(p))
        # p is in the null space to rounding, and q may be long outside of it.
        blur = math.sqrt(dot(q, N.unmetric(q)) / p_square)
        zero = 10.0 * unit_roundoff * max(largest, blur)
        if quotient <= zero:
            status = Status.NEGATIVE_CURVATURE
            if quotient >= -zero:
                status = flat_status(p, N.reduce(q), a_norm, unit_roundoff)
            return _Run(status, steps, steps + 1, a_norm, p)
        alpha = rho / curvature
        axpy(alpha * unit, p, y)
        # The residual update: r loses what the multipliers take.
        axpy(-alpha, q, r)
        r = N.reduce(r)
        z = N.unmetric(r)
        steps += 1
        residual_norm = unit * norm(r)
        if options.wants_stop(niter0 + steps, y, residual_norm):
            return _Run(Status.STOPPED_BY_CALLBACK, steps, steps, a_norm, None)
        if residual_norm <= target:
            break
        rho_new = dot(r, z)
        beta = rho_new / rho
        p *= beta
        p += z
        rho = rho_new
        p_square = rho + beta * beta * p_square
    return _Run(None, steps, steps, a_norm, None)


def _of_shape(name: str, value: Any, shape: tuple[int, ...], like: Array) -> Array:
    array = as_floating(name, value, ndim=(len(shape),))
    namespace(array, like)  # a mix is refused by name
    if tuple(array.shape) != shape:
        found = tuple(array.shape)
        raise ValueError(f"{name} must have shape {shape}, found shape {found}")
    return array


def _stack(results: list[KrylovResult], b: Array, c: Array) -> KrylovResult:
    xp = namespace(b)

    def block(columns: list[Any], like: Array) -> Array:
        return xp.stack(columns, axis=1) if columns else xp.zeros_like(like)

    failed = sorted(
        (r.status for r in results if not r.converged),
        key=lambda status: status.acceptable,
    )
    return KrylovResult(
        x=block([r.x for r in results], b),
        status=failed[0] if failed else Status.CONVERGED,
        converged=asarray([r.converged for r in results], b, xp.bool),
        niter=asarray([r.niter for r in results], b, xp.int64),
        n_matvec=sum(r.n_matvec for r in results),
        residual_norm=asarray([r.residual_norm for r in results], b, xp.float64),
        residual=block([r.residual for r in results], b),
        direction=next((r.direction for r in results if r.direction is not None), None),
        multipliers=block([r.multipliers for r in results], c),
    )
