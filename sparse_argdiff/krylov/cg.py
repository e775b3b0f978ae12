"""Conjugate gradients for a symmetric positive definite A (Hestenes & Stiefel 1952).

    α = ρ / p'Ap,   x += α p,   r −= α Ap,   β = ρ₊ / ρ,   p = M r + β p,   ρ = r'M r

The recurrence stands once, in :func:`iterates`; :func:`cg` adds the verified stop and
the truncated Newton method (``solvers/newton_cg.py``) adds its own, earlier one.
Storage: 4 n (x, r, p, Ap), 5 n with a preconditioner.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..arrays import Array, axpy, dot, epsilon, namespace, norm
from ..linear_operator import LinearOperator
from ..status import Status
from .result import (
    Callback,
    KrylovResult,
    System,
    operator_norm_estimate,
    solve_columns,
)


class Step(NamedTuple):
    """One step of the recurrence, or why there is none."""

    status: Status | None  # None: x and r have moved
    residual_norm: float  # of the recurrence
    decrease: float  # α ρ = ‖x₊ − x‖²_A
    direction: Array | None  # p, when its curvature is not positive
    a_norm: float  # lower estimate of ‖A‖
    product: bool = True  # whether A was applied


def iterates(
    A: LinearOperator, x: Array, r: Array, M: LinearOperator | None = None
) -> Iterator[Step]:
    """Run the recurrence from x with residual r, both updated in place; one product each.

    Curvature counts as zero when it is below rounding relative to the largest
    Rayleigh quotient met so far, whatever the scale of A.
    """
    unit = max(epsilon(r), A.accuracy or 0.0)
    xp = namespace(r)
    z = r if M is None else M.matvec(r)
    p = xp.asarray(z, copy=True)
    rho = dot(r, z)
    p_square = rho  # ‖p‖² in the metric of M⁻¹, by its own recurrence
    largest = a_norm = 0.0
    while True:
        if not 0.0 < rho < math.inf:
            status = (
                Status.INDEFINITE_PRECONDITIONER
                if math.isfinite(rho)
                else Status.NOT_FINITE
            )
            yield Step(status, norm(r), 0.0, None, a_norm, product=False)
            return
        q = A.matvec(p)
        curvature = dot(p, q)
        quotient = curvature / p_square
        if not math.isfinite(curvature):
            yield Step(Status.NOT_FINITE, norm(r), 0.0, None, a_norm)
            return
        largest = max(largest, abs(quotient))
        if a_norm == 0.0:
            a_norm = operator_norm_estimate(p, q)
        if quotient <= 10.0 * unit * largest:
            negative = quotient < -10.0 * unit * largest
            status = Status.NEGATIVE_CURVATURE if negative else Status.SINGULAR
            yield Step(status, norm(r), 0.0, p, a_norm)
            return
        alpha = rho / curvature
        axpy(alpha, p, x)
        axpy(-alpha, q, r)
        z = r if M is None else M.matvec(r)
        rho_new = dot(r, z)
        residual_norm = math.sqrt(rho_new) if M is None and rho_new > 1e-30 else norm(r)
        yield Step(
            None, residual_norm, alpha * rho, None, max(a_norm, _top(M, largest))
        )
        if residual_norm == 0.0:
            return
        beta = rho_new / rho
        p *= beta
        p += z
        rho = rho_new
        p_square = rho + beta * beta * p_square


def _top(M: LinearOperator | None, largest: float) -> float:
    """Rayleigh quotients bound ‖A‖ from below only in the plain metric."""
    return largest if M is None else 0.0


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
) -> KrylovResult:
    """Solve A x = b for a symmetric positive definite A.

    Parameters
    ----------
    A : operator (n, n)
        Anything :func:`aslinearoperator` accepts; symmetric positive definite.
    b : array (n,) or (n, k)
        Right-hand side, or several.
    x0 : array like b, optional
        Start; it does not change the meaning of the tolerance.
    rtol, atol : float
        Stop when the recomputed ‖b − A x‖₂ ≤ max(rtol ‖b‖₂, atol).
    maxiter : int, optional
        Limit on iterations, per column; 10 n by default.
    M : operator (n, n), optional
        Approximates A⁻¹; symmetric positive definite.
    callback : callable, optional
        ``callback(Iterate)`` from iteration 0 on; a true value or ``StopIteration``
        stops the solve.

    Returns
    -------
    KrylovResult
        Numerical trouble is a status, never an exception: indefinite or singular A,
        indefinite M, NaN, stagnation, the iteration limit.

    Notes
    -----
    A solve costs niter + 1 products (niter + 2 with ``x0``): the last one recomputes
    the residual.  Where the recurrence has drifted from it, the iteration restarts
    from the recomputed one.  ``energy_error`` extrapolates the decreases α ρ of the
    squared energy norm of the error beyond the last step (Hestenes & Stiefel 1952,
    theorem 6:1; Strakoš & Tichý 2002): an estimate, not a bound.

    References
    ----------
    M. R. Hestenes, E. Stiefel, "Methods of conjugate gradients for solving linear
    systems", J. Res. NBS 49 (1952) 409-436.
    """
    return solve_columns(
        _solve,
        A,
        b,
        x0,
        rtol=rtol,
        atol=atol,
        maxiter=maxiter,
        M=M,
        callback=callback,
    )


def _solve(system: System) -> KrylovResult:
    x, r, true_norm, n_matvec, status = system.start()
    niter, a_norm = 0, 0.0
    decreases: list[float] = []
    direction: Array | None = None
    # Below this the recurrence has nothing left to say about the residual.
    floor = 0.1 * epsilon(system.b) * max(system.b_norm, true_norm)
    while status is None and niter < system.maxiter:
        before = true_norm
        stop: Status | None = None
        for step in iterates(system.A, x, r, system.M):
            n_matvec += step.product
            a_norm = max(a_norm, step.a_norm)
            if step.status is not None:
                stop, direction = step.status, step.direction
                break
            niter += 1
            decreases.append(step.decrease)
            if system.wants_stop(niter, x, step.residual_norm):
                stop = Status.STOPPED_BY_CALLBACK
                break
            if step.residual_norm <= max(system.target, floor):
                break
            if niter == system.maxiter:
                break
        r = system.residual(x)
        n_matvec += 1
        true_norm = norm(r)
        if not math.isfinite(true_norm):
            status = Status.NOT_FINITE
        elif true_norm <= system.target:
            status = Status.CONVERGED
        elif true_norm <= system.rounding_level(x, a_norm) and (
            stop is not None or true_norm > 0.5 * before
        ):
            status = Status.ROUNDING_LIMIT
        elif stop is not None:
            status = stop
        elif true_norm > 0.5 * before and niter < system.maxiter:
            status = Status.STAGNATED
    status = status or Status.ITERATION_LIMIT
    return KrylovResult(
        x=x,
        status=status,
        converged=status is Status.CONVERGED,
        niter=niter,
        n_matvec=n_matvec,
        residual_norm=true_norm,
        residual=r,
        energy_error=0.0 if true_norm == 0.0 else _energy_error(decreases),
        direction=direction,
    )


def _energy_error(decreases: list[float], window: int = 8) -> float:
    """Extrapolate ‖x − x*‖²_A = Σ_{j ≥ k} α_j ρ_j from the decay of the last steps."""
    if not decreases:
        return math.nan  # nothing was measured: an exact start, or no step at all
    last = decreases[-window:]
    half = (len(last) + 1) // 2
    early, late = sum(last[:half]), sum(last[-half:])
    steps = len(last) - half
    if steps == 0 or early <= 0.0:
        return math.sqrt(max(last[-1], 0.0))
    rate = min((late / early) ** (1.0 / steps), 0.99)
    return math.sqrt(max(late / half * rate / (1.0 - rate), 0.0))
