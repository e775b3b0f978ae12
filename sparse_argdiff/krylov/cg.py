"""Conjugate gradients for a symmetric positive definite A (Hestenes & Stiefel 1952).

    α = ρ / p'Ap,   x += α p,   r −= α Ap,   β = ρ₊ / ρ,   p = M r + β p,   ρ = r'M r

The recurrence stands once, in ``recurrence.py``; here is the verified stop.
Storage: 4 n (x, r, p, Ap), 5 n with a preconditioner (that compiled kernels cannot take
on, a diagonal), of which p, Ap and M r lie in the workspace; + 2 n with ``energy_rtol``.
Each step moves 10 n beside the product and M.  Columns that march in lanes
(``together.py``) have x, r, p, Ap and M r there once more.
"""

from __future__ import annotations

import math
from typing import Any

from ..arrays import Array, as_tolerance, epsilon, norm
from ..kernels import Device
from ..kernels.workspace import Workspace
from ..status import Status
from .device_loops import DeviceRecurrence
from .error_estimate import NO_BOUND, EnergyError, Estimate
from .linear_system import System, operator_norm_estimate, solve_columns
from .recurrence import Recurrence, recurrence, scratch_of
from .requests import Asking, Request
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
    energy_rtol: float | None = None,
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
        a block of products costs less than its columns: side by side with compiled
        kernels, so that A is read once for 8 of them (16 in float32).
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
        stops the solve (of that column).
    smallest_eigenvalue : float, optional
        A positive lower bound on the eigenvalues of A, of M A with a preconditioner: for
        a ridge, its weight.  ``energy_error_bound`` is then an upper bound.
    energy_rtol : float, optional
        Iterate on after the stop until ``energy_error_uncertainty`` is at most this; 0.1 is
        a good value.  What is returned is the iterate of the stop, which ``energy_error``
        speaks of; the steps beyond, if any, count in ``niter`` and ``n_matvec``.
    kernels : {None, "reference", "compiled", "threaded", "device"} or Device, optional
        The make of the vector passes.  None: "device" for CuPy arrays; compiled by numba
        where it is installed, the arrays are NumPy's and large.  "threaded" uses numba's
        threads; ``krylov.Device(check_every=10)`` says how often the host looks.
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
    from the recomputed one.  After a failure one or two more tell whether an A that
    does not claim it is symmetric.

    ``energy_error`` costs no product and no vector: 24 bytes a step, and 0.1 ms at the
    end.  It models the square of what is left by what the steps before took off, reports
    half of it, to err on the low side, and says how well the model held: the truth lies
    within exp(± 2 ``energy_error_uncertainty``) of the model for nine solves in ten.
    ``energy_error_earlier`` is the estimate of Meurant et al. for the last iterate whose
    rest has become negligible.  The upper bound is that of
    exact arithmetic, made true for the returned x by the drift of the recurrence; it is
    NaN where the iteration refutes ``smallest_eigenvalue``, which should lie a little
    below the truth.  Where A or M is found not to be definite, all of them are NaN.

    References
    ----------
    M. R. Hestenes, E. Stiefel, "Methods of conjugate gradients for solving linear
    systems", J. Res. NBS 49 (1952) 409-436.
    G. Meurant, J. Papež, P. Tichý, "Accurate error estimation in CG", Numer. Algorithms
    88 (2021) 1337-1359.
    G. Meurant, P. Tichý, "On computing quadrature-based bounds for the A-norm of the
    error in conjugate gradients", Numer. Algorithms 62 (2013) 163-191.
    """
    mu, tau = smallest_eigenvalue, energy_rtol
    for name, value in (("smallest_eigenvalue", mu), ("energy_rtol", tau)):
        if value is not None and as_tolerance(name, value) == 0.0:
            raise ValueError(f"{name} must be positive, found {value!r}")

    def method(system: System) -> Asking[KrylovResult]:
        vectors = scratch_of(system.M, system.b, system.kernels)
        vectors += 2 * (tau is not None)
        with system.workspace.lend(system.b, vectors) as scratch:
            return (yield from _solve(system, scratch, mu, tau))

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
        moving=lambda *args: 2 + scratch_of(*args),  # with x and r
    )


def _solve(
    system: System, scratch: list[Array], mu: float | None, tau: float | None
) -> Asking[KrylovResult]:
    q = scratch[1]
    x, r, true_norm, n_matvec, status = yield from system.start(q)
    energy = EnergyError(mu)
    niter, a_norm, earlier, bound = 0, 0.0, math.nan, None
    found = Estimate(math.nan, math.inf)
    direction: Array | None = None
    # Below this the recurrence has nothing left to say about the residual.
    floor = 0.1 * epsilon(system.b) * max(system.b_norm, true_norm)
    while status is None and niter < system.maxiter:
        before = last = true_norm
        stop: Status | None = None
        cg = recurrence(system.A, x, r, system.M, system.kernels, scratch)
        aim = max(system.target, floor)
        energy.start((yield from cg.begin(aim, system.maxiter - niter)))
        while stop is None and niter < system.maxiter:
            step = yield from cg.step()
            n_matvec += step.products
            a_norm = max(a_norm, step.a_norm)
            if step.status is not None:
                stop, direction = step.status, step.direction
                break
            niter += 1
            last = step.residual_norm
            energy.add(step)
            if system.wants_stop(niter, cg.x, last):
                stop = Status.STOPPED_BY_CALLBACK
            elif last <= aim:
                break
        yield from cg.end()
        yield from system.residual(x, q, q)
        n_matvec += 1
        true_norm = norm(q)
        mark = len(energy)
        found = energy.estimate(mark)
        if mu is not None:
            drift = r if tau is None else scratch[-1]
            system.kernels.subtract(q, r, drift)
            spare = cg.p if tau is None else scratch[-2]
            size = yield from system.metric_norm(drift, spare)
            bound = energy.bound() + size / math.sqrt(mu)
        if (
            tau is not None
            and found.uncertainty > tau
            and true_norm <= system.target
            and stop is None
        ):
            kept, residual = scratch[-2:]
            kept[...], residual[...] = x, q
            found, steps, products = yield from _wait(
                system, cg, energy, tau, niter, floor
            )
            niter, n_matvec = niter + steps, n_matvec + products
            x[...], q[...] = kept, residual
        growth = max(1.0, true_norm / last if last else 1.0)
        found = Estimate(growth * found.error, found.uncertainty + math.log(growth))
        if bound is not None and found.error > bound:
            found = found._replace(error=bound)
        earlier = growth * energy.earlier(mark)[0]
        r[...] = q
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
    if status is Status.STAGNATED:
        # One product with what is left, which has a share of the largest eigenvalues
        # that b may lack: a better estimate of ‖A‖, and of what rounding explains.
        product = yield Request(system.A, r, q)
        n_matvec += 1
        a_norm = max(a_norm, operator_norm_estimate(r, product.y))
        if true_norm <= system.rounding_level(x, a_norm):
            status = Status.ROUNDING_LIMIT
    if mu is not None and bound is None:
        size = yield from system.metric_norm(r, q)
        bound = size / math.sqrt(mu)
    status, products = yield from system.reconsider(status, x, r, q)
    if true_norm == 0.0:
        found = Estimate(0.0, 0.0)
    elif status in NO_BOUND:
        found, earlier = Estimate(math.nan, math.inf), math.nan
        bound = None if bound is None else math.nan
    return KrylovResult(
        x=x,
        status=status,
        converged=status is Status.CONVERGED,
        niter=niter,
        n_matvec=n_matvec + products,
        residual_norm=true_norm,
        residual=r,
        energy_error=found.error,
        direction=direction,
        energy_error_bound=bound,
        energy_error_uncertainty=found.uncertainty,
        energy_error_earlier=earlier,
    )


def _wait(
    system: System,
    cg: Recurrence | DeviceRecurrence,
    energy: EnergyError,
    tau: float,
    niter: int,
    floor: float,
) -> Asking[tuple[Estimate, int, int]]:
    """Iterate on until the error before it is known well; steps and products used."""
    mark, steps, products = len(energy), 0, 0
    found = energy.estimate(mark)
    cg.resume(floor)
    while found.uncertainty > tau and niter + steps < system.maxiter:
        step = yield from cg.step()
        products += step.products
        if step.status is not None:
            break
        steps += 1
        energy.add(step)
        found = energy.estimate(mark)
        asked = system.wants_stop(niter + steps, cg.x, step.residual_norm)
        if asked or step.residual_norm <= floor:
            break
    return found, steps, products
