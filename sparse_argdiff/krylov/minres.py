"""MINRES for a symmetric A, definite or not (Paige & Saunders 1975).

Lanczos builds A V_k = V_{k+1} T_k in the metric of M, Givens rotations reduce T_k, and

    x_k = argmin ‖b − A x‖_M  over the Krylov space,   φ_k = ‖b − A x_k‖_M.

Storage: 7 n (x, v, the two previous residual vectors, three directions), + n with M.
"""

from __future__ import annotations

import math
from typing import Any

from ..arrays import Array, axpy, dot, epsilon, namespace, norm
from ..status import Status
from .result import (
    Callback,
    KrylovResult,
    System,
    operator_norm_estimate,
    solve_columns,
)

_RESTARTS = 3


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
    The recurrence measures the residual in the metric of M; the 2-norm is recomputed
    before convergence is said (one product), and the iteration restarts from there
    with a tighter target when the two disagree.

    References
    ----------
    C. C. Paige, M. A. Saunders, "Solution of sparse indefinite systems of linear
    equations", SIAM J. Numer. Anal. 12 (1975) 617-629.
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
    x, r, n_matvec = system.start()
    true_norm = norm(r)
    status = Status.ITERATION_LIMIT
    niter, a_norm, reduction = 0, 0.0, 1.0
    if not math.isfinite(true_norm):
        status = Status.NOT_FINITE
    elif true_norm <= system.target:
        status = Status.CONVERGED
    if system.wants_stop(0, x, true_norm) and status is Status.ITERATION_LIMIT:
        status = Status.STOPPED_BY_CALLBACK
    restarts = 0
    while status is Status.ITERATION_LIMIT and niter < system.maxiter:
        before = true_norm
        wanted = reduction * system.target / true_norm
        stop, steps, products, a_norm = _lanczos(system, x, r, wanted, niter, a_norm)
        niter += steps
        n_matvec += products
        r = system.residual(x)
        n_matvec += 1
        true_norm = norm(r)
        if not math.isfinite(true_norm):
            status = Status.NOT_FINITE
        elif true_norm <= system.target:
            status = Status.CONVERGED
        elif true_norm <= system.rounding_level(x, a_norm) and true_norm > 0.5 * before:
            status = Status.ROUNDING_LIMIT
        elif stop is not None:
            status = stop
        elif niter < system.maxiter:
            restarts += 1
            reduction *= min(1.0, system.target / true_norm)
            if true_norm > 0.9 * before and restarts > _RESTARTS:
                at_rounding = true_norm <= system.rounding_level(x, a_norm)
                status = Status.ROUNDING_LIMIT if at_rounding else Status.STAGNATED
    return KrylovResult(
        x=x,
        status=status,
        converged=status is Status.CONVERGED,
        niter=niter,
        n_matvec=n_matvec,
        residual_norm=true_norm,
        residual=r,
    )


def _lanczos(
    system: System, x: Array, r: Array, wanted: float, niter0: int, a_norm: float
) -> tuple[Status | None, int, int, float]:
    """Add to x (in place) until ‖r‖_M fell by ``wanted``; r is not changed.

    Returns the reason for stopping (None: reduced, or out of iterations), the
    iterations, the products with A, and a lower estimate of ‖A‖.
    """
    A, M = system.A, system.M
    unit = max(epsilon(r), A.accuracy or 0.0)
    xp = namespace(r)
    older = xp.zeros_like(r)  # β_{k-1} times the previous Lanczos vector
    newer = xp.asarray(r, copy=True)
    v = newer if M is None else M.matvec(newer)
    square = dot(newer, v)
    if not square > 0.0:
        bad = math.isnan(square)
        return (
            Status.NOT_FINITE if bad else Status.INDEFINITE_PRECONDITIONER,
            0,
            0,
            a_norm,
        )
    beta = beta_start = math.sqrt(square)
    phi = beta
    beta_old = delta_next = epsilon_next = 0.0
    cosine, sine = -1.0, 0.0
    w, w_old = xp.zeros_like(r), xp.zeros_like(r)
    t_square = 0.0  # ‖T‖²_F, for what counts as zero
    steps = 0
    while niter0 + steps < system.maxiter:
        v = v / beta
        y = A.matvec(v)
        alpha = dot(v, y)
        if not math.isfinite(alpha):
            return Status.NOT_FINITE, steps, steps + 1, a_norm
        if M is None or steps == 0:
            a_norm = max(a_norm, operator_norm_estimate(v, y))
        if beta_old > 0.0:
            axpy(-beta / beta_old, older, y)
        axpy(-alpha / beta, newer, y)
        older, newer = newer, y
        z = newer if M is None else M.matvec(newer)
        square = dot(newer, z)
        beta_old, beta = beta, math.sqrt(max(square, 0.0))
        t_square += alpha**2 + beta_old**2 * (steps > 0) + beta**2
        t_norm = math.sqrt(t_square)
        if square < -unit * t_norm**2 or math.isnan(square):
            bad = math.isnan(square)
            return (
                Status.NOT_FINITE if bad else Status.INDEFINITE_PRECONDITIONER,
                steps,
                steps + 1,
                a_norm,
            )
        # The previous rotation, then the new one.
        epsilon_now, delta = epsilon_next, cosine * delta_next + sine * alpha
        gamma_bar = sine * delta_next - cosine * alpha
        epsilon_next, delta_next = sine * beta, -cosine * beta
        root = math.hypot(gamma_bar, delta_next)
        gamma = math.hypot(gamma_bar, beta)
        # ‖A r‖ = φ root: zero while φ is not, the least-squares point is reached.
        if steps > 0 and root <= 10.0 * unit * t_norm and phi > wanted * beta_start:
            return Status.LEAST_SQUARES, steps, steps + 1, a_norm
        if gamma <= 10.0 * unit * t_norm:
            return Status.LEAST_SQUARES, steps, steps + 1, a_norm
        cosine, sine = gamma_bar / gamma, beta / gamma
        step, phi = cosine * phi, sine * phi
        # w = (v − ε w_old − δ w) / γ, in the buffer of the one before the last.
        w_old *= -epsilon_now
        axpy(-delta, w, w_old)
        w_old += v
        w_old /= gamma
        w_old, w = w, w_old
        axpy(step, w, x)
        steps += 1
        if system.wants_stop(niter0 + steps, x, phi):
            return Status.STOPPED_BY_CALLBACK, steps, steps, a_norm
        if phi <= max(wanted, 0.1 * unit) * beta_start or beta <= unit * t_norm:
            break
        v = z
    return None, steps, steps, a_norm
