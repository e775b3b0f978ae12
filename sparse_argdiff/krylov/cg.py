"""Conjugate gradients for a symmetric positive definite A (Hestenes & Stiefel 1952).

    α = ρ / p'Ap,   x += α p,   r −= α Ap,   β = ρ₊ / ρ,   p = M r + β p,   ρ = r'M r

of one right-hand side (n,), or of the columns (n, k) of a block, which advance together.
Storage: 4 n (x, r, p, Ap), 5 n with a preconditioner (but for a diagonal, which compiled
passes take on), of which p, Ap and M r lie in the workspace.  Each step moves 10 n beside
the product and M.
"""

from __future__ import annotations

import math
from typing import Any

from ..arrays import Array, as_tolerance, epsilon, namespace, norm
from ..kernels import Device, KernelSet, Line, Workspace
from ..operators.linear_operator import LinearOperator
from ..status import Status
from .breakdown import breakdown
from .column_blocks import Recurrence
from .error_estimate import EnergyErrors
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


def cg(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    rtol: float = 1e-8,
    atol: float = 0.0,
    maxiter: int | None = None,
    M: Any = None,
    callback: Callback | None = None,
    smallest_eigenvalue: float | None = None,
    kernels: str | Device | None = None,
    workspace: Workspace | None = None,
) -> KrylovResult:
    """Solve A x = b for a symmetric positive definite A.

    Parameters
    ----------
    A : operator (n, n)
        Anything :func:`aslinearoperator` accepts; symmetric positive definite.
    b : array (n,) or (n, k)
        Right-hand side, or several; several are solved together, each by itself, where
        a product with a block costs less than those with its columns: A is then read
        once for 8 of them with compiled kernels (16 in float32), else for 32.
    x0 : array like b, optional
        Start; it does not change the meaning of the tolerance.
    rtol, atol : float
        Stop when the recomputed ‖b − A x‖₂ ≤ max(rtol ‖b‖₂, atol); with M when also
        ‖b − A x‖_M ≤ rtol ‖b‖_M, where ‖r‖²_M = r'M r, unless atol > rtol ‖b‖₂.  With a
        diagonal M of A the latter means the same in all units of x: no row is small
        beside another.
    maxiter : int, optional
        Limit on iterations, per column; 10 n by default.
    M : operator (n, n), optional
        Approximates A⁻¹; symmetric positive definite.
    callback : callable, optional
        ``callback(Iterate)`` from iteration 0 on; a true value or ``StopIteration``
        stops the solve (of that column).
    smallest_eigenvalue : float, optional
        A positive lower bound on the eigenvalues of A, of M A with a preconditioner: for
        a ridge, its weight.  ``energy_error_bound`` is then an upper bound.
    kernels : {None, "reference", "compiled", "threaded", "device"} or Device, optional
        The vector passes.  None: "device" for CuPy arrays; compiled by numba where it is
        installed, the arrays are NumPy's and large.  "threaded" uses numba's threads;
        ``krylov.Device(check_every=10)`` says how often the host looks.
    workspace : Workspace, optional
        Scratch that outlives the solve: the next one of this size allocates x and the
        residual that it returns, and nothing else.

    Returns
    -------
    KrylovResult
        Numerical trouble is a status, never an exception: indefinite or singular A,
        A or M that is not symmetric, indefinite M, NaN, stagnation, the iteration limit.

    Notes
    -----
    A solve costs niter + 1 products (niter + 2 with ``x0``): the last one recomputes
    the residual.  Where the recurrence has drifted from it, the iteration restarts
    from the recomputed one.  After a failure one to four more tell whether rounding
    explains it, or an A that is not symmetric and does not claim to be.  M is applied
    niter + 2 times (niter + 4 with ``x0``).

    The estimates of ‖x − x*‖_A cost no product and no vector.  ``energy_error`` takes the
    error to fall as the residual does, and is a guess; ``energy_error_earlier`` is
    reliable, of the last iterate whose error the steps since determine.  The upper bound is that of exact
    arithmetic, made true for the returned x by the drift of the recurrence; it is NaN
    where the iteration refutes ``smallest_eigenvalue``, which should lie a little below
    the truth.  Where A or M is found not to be definite, all of them are NaN.

    References
    ----------
    M. R. Hestenes, E. Stiefel, "Methods of conjugate gradients for solving linear
    systems", J. Res. NBS 49 (1952) 409-436.
    G. Meurant, J. Papež, P. Tichý, "Accurate error estimation in CG", Numer. Algorithms
    88 (2021) 1337-1359.
    G. Meurant, P. Tichý, "On computing quadrature-based bounds for the A-norm of the
    error in conjugate gradients", Numer. Algorithms 62 (2013) 163-191.
    """
    mu = smallest_eigenvalue
    if mu is not None and as_tolerance("smallest_eigenvalue", mu) == 0.0:
        raise ValueError(f"smallest_eigenvalue must be positive, found {mu!r}")

    def method(system: LinearSystem) -> tuple[Array, Array]:
        energy = EnergyErrors(system.columns, mu)
        x, r = solve_in_rounds(
            system,
            vectors_of_scratch(system.M, system.b, system.kernels),
            lambda part, x, r, scratch: _round(part, x, r, scratch, energy),
        )
        for c, column in enumerate(system.columns):
            r_c = contiguous(r, c)
            system.diagnose(column, contiguous(x, c), r_c)
            energy.conclude(column, r_c, system.single(column)[1])
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


_SCALARS = ("rho", "p_square", "largest", "active", "target", "metric_aim", "size")


class ConjugateGradients(Recurrence):
    """The recurrence from x with residual r, both updated in place.

    A column ends where ‖r‖ ≤ its target and r'M r ≤ ``metric_aim``, or where p has no
    positive curvature: curvature counts as zero when it is below rounding relative to the
    largest Rayleigh quotient met so far, whatever the scale of A.  The vectors of a
    column that has ended stand still.
    """

    def __init__(
        self,
        A: LinearOperator,
        M: LinearOperator | None,
        x: Array,
        r: Array,
        kernels: KernelSet,
        scratch: list[Array],
        target: list[float],
    ) -> None:
        self.A, self.M, self.kernels = A, M, kernels
        self.x, self.r = x, r
        self.p, self._buffer, *rest = scratch
        self._of_M = rest[0] if rest else r
        self.q = self._buffer
        self._diagonal = kernels.fused(M, r)
        self.scalars = s = kernels.scalars(r)
        self._unit = max(epsilon(r), A.accuracy or 0.0)
        self.target, self.metric_aim = s.given(target), s.full(math.inf)
        self.size: Any = s.full(math.inf)  # ‖r‖, once there was a step
        z, rho = r, None
        if M is not None:
            z, rho = kernels.product(M, r, self.p)
        if z is not self.p:
            self.p[...] = z
        self.rho: Any = kernels.dot(r, r) if rho is None else rho
        self.p_square = self.rho  # ‖p‖² in the metric of M⁻¹, by its own recurrence
        self.largest = s.full(0.0)
        self.active = (self.rho > 0.0) & (self.rho < math.inf)
        self.products = 0  # with A, those of columns that have ended included
        self._first_norms: list[float] | None = None

    def advance(self, most: int) -> list[list[Line]]:
        """Take up to so many steps; return α, α ρ, ρ₊ and ‖r‖ of each, by columns."""
        A, M, d, kernels, s = self.A, self.M, self._diagonal, self.kernels, self.scalars
        x, r, p, rho, active = self.x, self.r, self.p, self.rho, self.active
        target, metric_aim, size, steps = self.target, self.metric_aim, self.size, []
        for _ in range(most):
            active = active & (rho > 0.0) & (rho < math.inf)
            if s.none(active):
                break
            q, curvature = kernels.product(A, p, self._buffer)  # q = A p
            self.q, self.products = q, self.products + 1
            if self._first_norms is None:
                self._first_norms = operator_norm_estimates(p, q)
            quotient = curvature / self.p_square
            self.largest = s.maximum(self.largest, abs(quotient))
            flat = 10.0 * self._unit * self.largest
            active = active & (quotient > flat) & (quotient < math.inf)
            if s.none(active):
                break
            alpha = s.where(active, rho / curvature, 0.0)  # α = ρ / p'Ap
            active = active & (alpha > 0.0)
            square, rho_next = kernels.cg_residual(r, q, alpha, d)  # r −= α q
            z = r
            if M is None:
                rho_next = square
            elif d is None:
                z, rho_next = kernels.product(M, r, self._of_M)  # ρ₊ = r'M r
            beta = rho_next / rho  # β = ρ₊ / ρ
            kernels.cg_advance(x, p, z, alpha, beta, d)  # x += α p, p = M r + β p
            size = s.lengths(square, r, active)
            self.p_square = s.where(
                active, rho_next + beta * beta * self.p_square, self.p_square
            )
            active = active & ((size > target) | (rho_next > metric_aim))
            steps.append((alpha, alpha * rho, rho_next, size, active))
            rho = rho_next
        self.rho, self.active, self.size = rho, active, size
        lines: list[list[Line]] = s.lines(steps)
        return lines

    def breakdown(self, c: int) -> tuple[Status | None, Array | None, int]:
        """Return why column c has no next step, p if it is the reason, the products lost."""
        values = self.scalars.values
        if values((self.size <= self.target) & (self.rho <= self.metric_aim))[c]:
            return None, None, 0
        M = None if self.M is None else self.M.for_columns([c], 0)
        p, q = column_of(self.p, c), contiguous(self.q, c)
        rho, square, largest = (
            values(v)[c] for v in (self.rho, self.p_square, self.largest)
        )
        return breakdown(p, q, rho, square, largest, self._unit, M)

    def a_norm(self, c: int) -> float:
        """Return a lower estimate of ‖A‖ from column c."""
        first = self._first_norms[c] if self._first_norms else 0.0
        if self.M is not None:  # Rayleigh quotients bound ‖A‖ in the plain metric only
            return first
        return max(first, float(self.scalars.values(self.largest)[c]))

    def keep(self, columns: list[int], width: int) -> None:
        """Go on with these columns in a narrower block; width 0: in a vector."""
        self._keep(columns, width, ("x", "r", "p", "q"), _SCALARS)
        self._buffer = self.q
        self._diagonal = self.kernels.fused(self.M, self.r)
        plain = self.M is None or self._diagonal is not None
        self._of_M = self.r if plain else namespace(self.q).zeros_like(self.q)
        if self._first_norms is not None:
            self._first_norms = [self._first_norms[c] for c in columns]


def vectors_of_scratch(
    M: LinearOperator | None, like: Array, kernels: KernelSet
) -> int:
    """Return how many vectors the recurrence needs beside x and r: p, A p, and M r."""
    return 2 + (M is not None and kernels.fused(M, like) is None)


def _round(
    system: LinearSystem,
    x: Array,
    r: Array,
    scratch: list[Array],
    energy: EnergyErrors,
) -> None:
    """Iterate until each column has ended, recompute the residuals, decide the statuses."""
    columns, p, q = system.columns, scratch[0], scratch[1]
    before = [column.residual_norm for column in columns]
    # Below this the recurrence has nothing left to say about the residual.
    floor = 0.1 * epsilon(x)
    aims = [max(c.target, floor * max(c.b_norm, c.residual_norm)) for c in columns]
    recurrence = ConjugateGradients(
        system.A, system.M, x, r, system.kernels, scratch, aims
    )
    starts = [float(rho) for rho in recurrence.scalars.values(recurrence.rho)]
    energy.start(columns, starts)
    metric_before = [math.sqrt(max(rho, 0.0)) for rho in starts]
    metric_aims = []
    for column, size in zip(columns, metric_before, strict=False):
        if column.b_metric == 0.0:  # without a start r is b
            column.b_metric = size
        aim = max(column.metric_target, floor * max(column.b_metric, size))
        metric_aims.append(aim * aim)
    if system.M is not None:
        recurrence.metric_aim = recurrence.scalars.given(metric_aims)
    stops = drive(system, recurrence, x, r, energy.listen)
    last = [column.residual_norm for column in columns]
    system.residual(x, q, q)
    drift = [math.nan] * len(columns)
    if energy.bounded:
        system.kernels.subtract(q, r, r)
        drift = system.metric_norms(r, p)
    r[...] = q
    system.measure(r, p)
    for c, column in enumerate(columns):
        column.n_matvec += 1
        column.residual_norm = true_norm = norm(column_of(r, c))
        growth = max(1.0, true_norm / last[c]) if last[c] > 0.0 else 1.0
        energy.conclude_round(column, growth, drift[c])
        slow = column.is_slow(before[c], metric_before[c])
        column.status = _status(system, column, column_of(x, c), slow, stops[c])


def _status(
    system: LinearSystem,
    column: Column,
    x: Array,
    slow: bool,
    stop: Status | None,
) -> Status | None:
    """Return how a column ended, by its recomputed residual; None: another round."""
    if not column.is_finite:
        return Status.NOT_FINITE
    if column.met:
        return Status.CONVERGED
    if (stop or slow) and system.at_rounding(column, x):
        return Status.ROUNDING_LIMIT
    if stop is None and slow and column.niter < system.maxiter:
        return Status.STAGNATED
    return stop
