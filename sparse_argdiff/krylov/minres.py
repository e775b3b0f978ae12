"""MINRES for a symmetric A, definite or not (Paige & Saunders 1975).

Lanczos builds A V_k = V_{k+1} T_k in the metric of M, Givens rotations reduce T_k, and

    x_k = argmin ‖b − A x‖_M  over the Krylov space,   φ_k = ‖b − A x_k‖_M.

Storage: 9 n (x and its last verified value, r, v, the product, two residual vectors, two
directions), + n with M.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ..arrays import Array, axpy, dot, namespace, norm
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
    x, r, true_norm, n_matvec, status = system.start()
    xp = namespace(x)
    niter, restarts, a_norm, reduction = 0, 0, 0.0, 1.0
    while status is None and niter < system.maxiter:
        kept, before = (xp.asarray(x, copy=True), r), true_norm
        wanted = reduction * system.target / true_norm
        run = _lanczos(system, x, r, true_norm, wanted, niter, a_norm)
        niter, a_norm, stop = niter + run.steps, run.a_norm, run.status
        r = system.residual(x)
        n_matvec += run.products + 1
        true_norm = norm(r)
        # The M-norm falls, the 2-norm need not: only restarts make a rise a failure.
        worse = true_norm > before and (system.M is None or restarts > _RESTARTS)
        if stop is Status.LEAST_SQUARES and true_norm > system.target and not worse:
            n_matvec += 1
            if not _solves_least_squares(system, x, r, a_norm):
                stop = None  # a small eigenvalue, not a zero one: go on from here
        if worse and stop is not Status.NOT_FINITE:
            (x, r), true_norm = kept, before
            at_rounding = true_norm <= system.rounding_level(x, a_norm)
            status = Status.ROUNDING_LIMIT if at_rounding else Status.STAGNATED
        elif not math.isfinite(true_norm):
            status = Status.NOT_FINITE
        elif true_norm <= system.target:
            status = Status.CONVERGED
        elif true_norm <= system.rounding_level(x, a_norm) and (
            stop is not None or true_norm > 0.5 * before
        ):
            status = Status.ROUNDING_LIMIT
        elif stop is not None:
            status = stop
        elif niter < system.maxiter:
            restarts += 1
            reduction *= min(1.0, system.target / true_norm)
            if true_norm > 0.9 * before and restarts > _RESTARTS:
                at_rounding = true_norm <= system.rounding_level(x, a_norm)
                status = Status.ROUNDING_LIMIT if at_rounding else Status.STAGNATED
    status = status or Status.ITERATION_LIMIT
    return KrylovResult(
        x=x,
        status=status,
        converged=status is Status.CONVERGED,
        niter=niter,
        n_matvec=n_matvec,
        residual_norm=true_norm,
        residual=r,
    )


def _solves_least_squares(system: System, x: Array, r: Array, a_norm: float) -> bool:
    """Test ‖A M r‖ against rounding, with one product: the recurrence only guessed."""
    z = r if system.M is None else system.M.matvec(r)
    reach = norm(z) * (1.0 + norm(x) * a_norm / norm(r))
    size = norm(system.A.matvec(z))
    return size <= 1e3 * system.unit_roundoff * a_norm * reach


class _Run(NamedTuple):
    status: Status | None  # None: reduced as wanted, or out of iterations
    steps: int
    products: int
    a_norm: float  # lower estimate of ‖A‖


def _lanczos(
    system: System,
    x: Array,
    r: Array,
    r_norm: float,
    wanted: float,
    niter0: int,
    a_norm: float,
) -> _Run:
    """Add to x (in place) until ‖r‖_M fell by ``wanted``; r is not changed."""
    A, M, unit = system.A, system.M, system.unit_roundoff
    xp = namespace(r)
    older = xp.zeros_like(r)  # β_{k-1} times the previous Lanczos vector
    newer = xp.asarray(r, copy=True)
    v = newer if M is None else M.matvec(newer)
    square = dot(newer, v)
    if not 0.0 < square < math.inf:
        return _Run(_bad_square(square), 0, 0, a_norm)
    beta = beta_start = math.sqrt(square)
    phi = beta
    beta_old = delta_next = epsilon_next = 0.0
    cosine, sine = -1.0, 0.0
    w, w_old = xp.zeros_like(r), xp.zeros_like(r)
    t_norm = 0.0  # ‖T‖_F, for what counts as zero
    steps = 0
    while niter0 + steps < system.maxiter:
        v = v / beta
        y = xp.asarray(A.matvec(v), copy=True)  # what a product returns is not ours
        alpha = dot(v, y)
        if not math.isfinite(alpha):
            return _Run(Status.NOT_FINITE, steps, steps + 1, a_norm)
        if M is None or steps == 0:
            a_norm = max(a_norm, operator_norm_estimate(v, y))
        if beta_old > 0.0:
            axpy(-beta / beta_old, older, y)
        axpy(-alpha / beta, newer, y)
        older, newer = newer, y
        z = newer if M is None else M.matvec(newer)
        beta_old = beta
        if M is None:
            square = beta = norm(newer)  # without the square, which may leave the range
        else:
            square = dot(newer, z)
            beta = math.sqrt(max(square, 0.0))
        t_norm = math.hypot(t_norm, alpha, beta_old * (steps > 0), beta)
        if square < -unit * t_norm * t_norm or not math.isfinite(square):
            return _Run(_bad_square(square), steps, steps + 1, a_norm)
        # The previous rotation, then the new one.
        epsilon_now, delta = epsilon_next, cosine * delta_next + sine * alpha
        gamma_bar = sine * delta_next - cosine * alpha
        epsilon_next, delta_next = sine * beta, -cosine * beta
        root = math.hypot(gamma_bar, delta_next)
        gamma = math.hypot(gamma_bar, beta)
        # ‖A r‖ = φ root: zero while φ is not, the least-squares point is reached.
        if root <= math.sqrt(unit) * t_norm and phi > wanted * beta_start:
            reach = beta_start * (1.0 + t_norm * norm(x) / r_norm)
            if phi * root <= 1e4 * unit * t_norm * reach:
                return _Run(Status.LEAST_SQUARES, steps, steps + 1, a_norm)
        if gamma <= 10.0 * unit * t_norm:
            return _Run(Status.LEAST_SQUARES, steps, steps + 1, a_norm)
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
        if system.wants_stop(niter0 + steps, x, phi / beta_start * r_norm):
            return _Run(Status.STOPPED_BY_CALLBACK, steps, steps, a_norm)
        if phi <= max(wanted, 0.1 * unit) * beta_start or beta <= unit * t_norm:
            break
        v = z
    return _Run(None, steps, steps, a_norm)


def _bad_square(square: float) -> Status:
    if math.isfinite(square):
        return Status.INDEFINITE_PRECONDITIONER
    return Status.NOT_FINITE
