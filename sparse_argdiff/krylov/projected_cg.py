"""Conjugate gradients in the null space of C (Gould, Hribar & Nocedal 2001).

    min ½ y'H y − b'y  subject to  C y = c,        [ H  C' ] [ y ]   [ b ]
                                                   [ C  0  ] [ ν ] = [ c ]

From a feasible y, CG with the projection P = G⁻¹ (I − C' W) as preconditioner keeps C y = c.
In floating point two measures are needed: each residual is replaced by its reduced part
r − C' w, else the share of the multipliers hides r'Pr; and the projection is refined until
C z is rounding.  H need only be definite on the null space.
"""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property
from typing import Any, NamedTuple

from ..arrays import (
    Array,
    as_count,
    as_floating,
    as_tolerance,
    axpy,
    check_callable,
    dot,
    empty,
    epsilon,
    namespace,
    norm,
    zeros,
)
from ..kernels import choose
from ..operators.block_matrices import widened
from ..operators.linear_operator import LinearOperator, as_operator
from ..operators.probes import random_signs
from ..status import Status
from .breakdown import flat_status
from .linear_system import Column, assemble
from .null_space import NullSpace, ProductNullSpace, null_space_for
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
        Start, feasible or not; it does not change the meaning of the tolerance.
    rtol, atol : float
        Stop when the recomputed ‖b − H y − C'ν‖₂ ≤ max(rtol s, atol), where ν are the
        best multipliers of y and s is this same norm at the least-norm y with C y = c.
        For c = 0 it is the part of b that no multiplier can balance: large multipliers
        do not loosen the tolerance.  Where C leaves nothing free, s is ‖b − H y‖₂.  With M
        the same must hold in the norm of M, where rtol s is the larger of the two: for
        M = diag(H)⁻¹ that is independent of the units of y.
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
        Numerical failure is a status, never an exception: curvature ≤ 0 on the null space
        (with its ``direction``), rows that contradict each other, NaN, stagnation (also
        of C y = 0), the iteration limit.

    Notes
    -----
    A solve costs niter + 1 products with H, one more for c ≠ 0 and for ``x0`` each, and
    an iteration one projection: two products with C and one with C' at least.  Where the
    residual stops falling another product tells what rounding explains.  A start
    whose multipliers balance b to rounding counts as converged.  Storage: 6 n, beside
    the null space's.

    References
    ----------
    N. I. M. Gould, M. E. Hribar, J. Nocedal, "On the solution of equality constrained
    quadratic programming problems arising in optimization", SIAM J. Sci. Comput. 23
    (2001) 1376-1395.
    """
    H = as_operator("H", H)
    b = as_floating("b", b, ndim=(1, 2))
    N = null_space_for(widened(C, b), M, H.shape[0])
    p, n = N.shape
    columns = b.shape[1:]
    b = _of_shape("b", b, (n, *columns), b)
    if c is None:
        c = zeros((p, *columns), b)
    c = _of_shape("c", c, (p, *columns), b)
    if x0 is not None:
        x0 = _of_shape("x0", x0, (n, *columns), b)
    check_callable(callback=callback)
    rtol, atol = as_tolerance("rtol", rtol), as_tolerance("atol", atol)
    limit = max(10 * n, 20) if maxiter is None else as_count("maxiter", maxiter)

    columns, points = [], []
    for j in range(1 if b.ndim == 1 else b.shape[1]):
        part: Any = ... if b.ndim == 1 else (slice(None), j)
        system = _System(H, N, b[part], c[part], rtol, atol, limit, callback, j)
        column, at = _solve(system, None if x0 is None else x0[part])
        columns.append(column)
        points.append(at)
    found = assemble(columns, [(at.y, at.residual) for at in points], b)
    multipliers = [at.multipliers for at in points]
    if b.ndim == 1:
        return dataclasses.replace(found, multipliers=multipliers[0])
    stack = namespace(c).stack
    return dataclasses.replace(
        found, multipliers=stack(multipliers, axis=1) if multipliers else c
    )


class _Size(NamedTuple):
    """The 2-norm of a vector, and that in the metric G⁻¹."""

    plain: float
    metric: float

    def within(self, target: _Size) -> bool:
        """Tell whether neither norm exceeds its target."""
        return self.plain <= target.plain and self.metric <= target.metric

    def times(self, factor: float) -> _Size:
        return _Size(factor * self.plain, factor * self.metric)


_NONE = _Size(0.0, 0.0)


def _larger(a: _Size, b: _Size) -> _Size:
    return _Size(max(a.plain, b.plain), max(a.metric, b.metric))


@dataclasses.dataclass(frozen=True)
class _Point:
    """A feasible y and the conditions there, all recomputed."""

    y: Array
    multipliers: Array
    residual: Array  # b − H y − C'ν
    size: _Size  # of the residual
    raw: _Size  # of b − H y
    terms: _Size  # of b, b − H y and what C'ν adds up, each entry of random sign


@dataclasses.dataclass(frozen=True)
class _System:
    """The system of one right-hand side, and what its solve is measured by."""

    H: LinearOperator
    N: NullSpace | ProductNullSpace
    b: Array
    c: Array
    rtol: float
    atol: float
    maxiter: int
    callback: Callback | None
    column: int

    @cached_property
    def b_norm(self) -> float:
        return norm(self.b)

    def size(self, v: Array) -> _Size:
        plain, N = norm(v), self.N
        if not (N.has_metric and math.isfinite(plain)):
            return _Size(plain, plain)
        return _Size(plain, math.sqrt(max(dot(v, N.unmetric(v)), 0.0)))

    @cached_property
    def unit_roundoff(self) -> float:
        return max(epsilon(self.b), self.H.accuracy or 0.0)

    def point(self, y: Array, Hy: Array | None) -> _Point:
        """Return the conditions at y, with the best multipliers."""
        N, raw = self.N, self.b if Hy is None else self.b - Hy
        size = self.size(raw)
        if not math.isfinite(size.plain):
            return _Point(y, zeros((N.shape[0],), self.b), raw, size, size, size)
        multipliers = N.multipliers(raw)
        # Once more: large multipliers are exact to their own rounding only.
        multipliers = multipliers + N.multipliers(raw - N.C.rmatvec(multipliers))
        residual = raw - N.C.rmatvec(multipliers)
        xp, signs = namespace(raw), random_signs(raw.shape[0], raw, 0)
        signs_of_rows = random_signs(N.shape[0], raw, 0)
        force = N.C.rmatvec(signs_of_rows * multipliers)
        terms = signs * (xp.abs(self.b) + xp.abs(raw) + xp.abs(force))
        sizes = self.size(residual), size, self.size(terms)
        return _Point(y, multipliers, residual, *sizes)

    def restored(self, y: Array) -> Array:
        """Return y with what is missing of C y = c added."""
        return y + self.N.particular(self.c - self.N.C.matvec(y))

    def feasible(self, y: Array) -> bool:
        return self.N.mismatch(self.c, y) <= max(self.rtol, 1e3 * epsilon(self.b))

    def rounding_level(self, at: _Point, moved: _Size = _NONE) -> _Size:
        """Return the norms of the residual that rounding of its terms explains."""
        parts = zip(at.terms, moved, strict=True)
        return _Size(*(32.0 * self.unit_roundoff * sum(sizes) for sizes in parts))

    def at_rounding(self, at: _Point, most: _Size) -> bool:
        """Tell whether rounding of y, too, explains the residual; one product.

        Each entry of y is off by its own rounding: H (g ∘ y), for g of random signs, is
        what this makes of the residual, in all units.  A y so large that rounding would
        excuse more than ``most`` is no answer.
        """
        moved = self.H.matvec(random_signs(at.y.shape[0], at.y, 0) * at.y)
        level = self.rounding_level(at, self.size(moved))
        return at.size.within(level) and at.size.within(most)

    def wants_stop(self, niter: int, y: Array, residual_norm: float) -> bool:
        """Call the callback; return whether it asks to stop."""
        iterate = Iterate(niter, y, residual_norm, self.column)
        try:
            return self.callback is not None and bool(self.callback(iterate))
        except StopIteration:
            return True


def _solve(system: _System, x0: Array | None) -> tuple[Column, _Point]:
    """Run the recurrence until the recomputed conditions hold, or do not improve."""
    H, N, xp = system.H, system.N, namespace(system.b)
    at, n_matvec = _least_norm_point(system)
    # Where C leaves nothing free, the multipliers balance all of it.
    scale = at.raw if N.rank == N.shape[1] else at.size
    target = scale.times(system.rtol)
    most = _larger(scale.times(0.1), system.rounding_level(at))
    if system.atol > target.plain:
        target = _Size(system.atol, math.inf)
    if x0 is not None and scale.plain > 0.0:
        warm = system.restored(x0)
        n_matvec += 1
        there = system.point(warm, H.matvec(warm))
        if there.size.plain <= scale.plain and system.feasible(warm):
            at = there
    niter, direction = 0, None
    status = _status_at_start(system, at, target)
    while status is None and niter < system.maxiter:
        aim = _larger(target, system.rounding_level(at).times(0.1))
        y = xp.asarray(at.y, copy=True)
        run = _iterate(system, y, at, aim, niter)
        niter += run.steps
        direction, y = run.direction, system.restored(y)
        n_matvec += run.products + 1
        before, at = at.size, system.point(y, H.matvec(y))
        failed = _failure(system, at)
        if failed is not None or at.size.within(target):
            status = failed or Status.CONVERGED
            continue
        status, half = run.status, before.times(0.5)
        slow = at.size.plain > half.plain and at.size.metric > half.metric
        if slow or status is not None:
            n_matvec += 1
            if system.at_rounding(at, most):
                status = Status.ROUNDING_LIMIT
            elif status is None and niter < system.maxiter:
                status = Status.STAGNATED
    column = Column(
        system.column,
        system.b_norm,
        target.plain,
        residual_norm=at.size.plain,
        niter=niter,
        n_matvec=n_matvec,
        status=status,
        direction=direction,
    )
    return column, at


def _least_norm_point(system: _System) -> tuple[_Point, int]:
    """Return the least-norm y with C y = c, and the products that its conditions took."""
    b, size = system.b, norm(system.c)
    if size == 0.0:
        return system.point(namespace(b).zeros_like(b), None), 0
    finite = math.isfinite(size)
    y = system.N.particular(system.c) if finite else 0.0 * b + math.nan
    return system.point(y, system.H.matvec(y)), 1


def _status_at_start(system: _System, at: _Point, target: _Size) -> Status | None:
    """Return why there is nothing to iterate for, or None."""
    asked = system.wants_stop(0, at.y, at.size.plain)
    failed = _failure(system, at)
    if failed is not None:
        return failed
    if at.size.within(_larger(target, system.rounding_level(at).times(0.25))):
        return Status.CONVERGED
    return Status.STOPPED_BY_CALLBACK if asked else None


def _failure(system: _System, at: _Point) -> Status | None:
    """Return the status of a point that is not finite or violates C y = c."""
    if not math.isfinite(sum(at.size)):
        return Status.NOT_FINITE
    if system.feasible(at.y):
        return None
    # y = 0 meets C y = 0: a violation is then an error of the projection.
    return Status.INCONSISTENT if norm(system.c) else Status.STAGNATED


class _Run(NamedTuple):
    status: Status | None  # None: reduced as wanted, or out of iterations
    steps: int
    products: int
    direction: Array | None  # p, when its curvature is not positive


def _iterate(system: _System, y: Array, at: _Point, target: _Size, niter: int) -> _Run:
    """Run CG in the null space on y, in place, until r is within the target."""
    N, unit_roundoff = system.N, system.unit_roundoff
    H = choose(None, y).operator(system.H)
    unit = at.size.plain  # r in units of it: squares of r stay in range
    r = N.reduce(at.residual / unit)
    z = N.unmetric(r)
    p = namespace(z).asarray(z, copy=True)
    q = empty(p.shape, p)
    rho = p_square = dot(r, z)
    largest = 0.0
    for step in range(system.maxiter - niter):
        if not 0.0 < rho < math.inf:
            status = None if rho == 0.0 else Status.NOT_FINITE
            return _Run(status, step, step, None)
        curvature = H.apply(p, q)
        curvature = dot(p, q) if curvature is None else curvature
        if not math.isfinite(curvature):
            return _Run(Status.NOT_FINITE, step, step + 1, None)
        quotient = curvature / p_square
        largest = max(largest, abs(quotient))
        # p is in the null space to rounding, and q may be long outside of it.
        outside = math.sqrt(dot(q, N.unmetric(q)) / p_square)
        zero = 10.0 * unit_roundoff * max(largest, outside)
        if quotient <= zero:
            status = Status.NEGATIVE_CURVATURE
            if quotient >= -zero:
                image = N.reduce(q)
                sizes = dot(image, N.unmetric(image)), curvature, p_square
                status = flat_status(*sizes, max(largest, outside), unit_roundoff)
            return _Run(status, step, step + 1, p)
        alpha = rho / curvature
        axpy(alpha * unit, p, y)  # y += α p
        axpy(-alpha, q, r)  # r −= α H p
        r = N.reduce(r)  # the residual update: r loses what the multipliers take
        z = N.unmetric(r)
        rho, rho_old = dot(r, z), rho
        size = _Size(unit * norm(r), unit * math.sqrt(max(rho, 0.0)))
        if system.wants_stop(niter + step + 1, y, size.plain):
            return _Run(Status.STOPPED_BY_CALLBACK, step + 1, step + 1, None)
        if size.within(target):
            return _Run(None, step + 1, step + 1, None)
        beta = rho / rho_old
        p *= beta
        p += z  # p = z + β p
        p_square = rho + beta * beta * p_square
    steps = system.maxiter - niter
    return _Run(None, steps, steps, None)


def _of_shape(name: str, value: Any, shape: tuple[int, ...], like: Array) -> Array:
    array = as_floating(name, value, ndim=(len(shape),))
    namespace(array, like)  # a mix is refused by name
    if tuple(array.shape) != shape:
        found = tuple(array.shape)
        raise ValueError(f"{name} must have shape {shape}, found shape {found}")
    return array
