"""What a Krylov solver takes and what it returns, the same for every method.

All of them stop when the *recomputed* residual satisfies

    ‖b − A x‖₂ ≤ max(rtol ‖b‖₂, atol),

whatever the start x0 and whatever the preconditioner.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from ..arrays import (
    Array,
    as_count,
    as_floating,
    as_tolerance,
    epsilon,
    namespace,
    norm,
)
from ..linear_operator import LinearOperator, aslinearoperator
from ..status import Status


@dataclasses.dataclass(frozen=True)
class KrylovResult:
    """The outcome of a linear solve A x = b.

    Attributes
    ----------
    x : array (n,) or (n, k)
        The last good iterate.
    status : Status
        Why it ended; for several right-hand sides, the first that is not converged.
    converged : bool, or bool array (k,)
        Whether the recomputed residual meets the tolerance.
    niter : int, or int array (k,)
        Iterations.
    n_matvec : int
        Products with A, all columns together, the check of the residual included.
    residual_norm : float, or array (k,)
        ‖b − A x‖₂, recomputed.
    residual : array (n,) or (n, k)
        b − A x, recomputed.
    energy_error : float, array (k,) or None
        Estimate of ‖x − x*‖_A (``cg`` only).
    direction : array (n,) or None
        Where A has curvature ≤ 0, when such a direction was met.
    multipliers : array or None
        Of the constraints (constrained solvers only).
    """

    x: Array
    status: Status
    converged: Any
    niter: Any
    n_matvec: int
    residual_norm: Any
    residual: Array
    energy_error: Any = None
    direction: Array | None = None
    multipliers: Array | None = None


@dataclasses.dataclass(frozen=True)
class Iterate:
    """What a ``callback`` sees, iteration 0 included; ``x`` is live: copy to keep."""

    niter: int
    x: Array
    residual_norm: float


Callback = Callable[[Iterate], Any]


@dataclasses.dataclass(frozen=True)
class System:
    """One checked linear system with a single right-hand side."""

    A: LinearOperator
    b: Array
    x0: Array | None
    target: float
    b_norm: float
    maxiter: int
    M: LinearOperator | None
    callback: Callback | None

    def start(self) -> tuple[Array, Array, int]:
        """Return x, r = b − A x as fresh arrays, and the products spent.

        A start that is worse than zero is not used: it would cost digits.
        """
        xp = namespace(self.b)
        n_matvec = 0
        if self.x0 is not None:
            x = xp.asarray(self.x0, dtype=self.b.dtype, copy=True)
            r = self.residual(x)
            n_matvec = 1
            if norm(r) <= self.b_norm:
                return x, r, n_matvec
        return xp.zeros_like(self.b), xp.asarray(self.b, copy=True), n_matvec

    def residual(self, x: Array) -> Array:
        """Return b − A x, recomputed (one product)."""
        return self.b - self.A.matvec(x)

    def rounding_level(self, x: Array, a_norm: float) -> float:
        """Return the residual norm that rounding alone explains at ``x``."""
        unit = max(epsilon(self.b), self.A.accuracy or 0.0)
        return 32.0 * unit * (a_norm * norm(x) + self.b_norm)

    def wants_stop(self, niter: int, x: Array, residual_norm: float) -> bool:
        """Tell the callback where we are; True when it asks to stop."""
        if self.callback is None:
            return False
        try:
            return bool(self.callback(Iterate(niter, x, residual_norm)))
        except StopIteration:
            return True


def solve_columns(
    method: Callable[[System], KrylovResult],
    A: Any,
    b: Any,
    x0: Any,
    *,
    rtol: float,
    atol: float,
    maxiter: int | None,
    M: Any,
    callback: Callback | None,
) -> KrylovResult:
    """Check the arguments of a solver and run ``method`` on each right-hand side.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what was found and what was expected.
    """
    A = aslinearoperator(A)
    n = A.shape[0]
    if A.shape[1] != n:
        raise ValueError(f"A must be square, found shape {A.shape}")
    b = as_floating("b", b, ndim=(1, 2))
    if b.shape[0] != n:
        raise ValueError(f"b must have {n} rows like A, found shape {tuple(b.shape)}")
    if x0 is not None:
        x0 = as_floating("x0", x0, ndim=(b.ndim,))
        if x0.shape != b.shape:
            raise ValueError(
                f"x0 must have the shape of b, {tuple(b.shape)}, found "
                f"{tuple(x0.shape)}"
            )
        namespace(x0, b)
    if M is not None:
        M = aslinearoperator(M)
        if M.shape != A.shape:
            raise ValueError(f"M must have shape {A.shape} like A, found {M.shape}")
    rtol, atol = as_tolerance("rtol", rtol), as_tolerance("atol", atol)
    limit = max(10 * n, 20) if maxiter is None else as_count("maxiter", maxiter)

    def solve_one(column: Array, start: Array | None) -> KrylovResult:
        scale = norm(column)
        target = max(rtol * scale, atol)
        system = System(A, column, start, target, scale, limit, M, callback)
        return _without_iterating(system) or method(system)

    if b.ndim == 1:
        return solve_one(b, x0)
    return _stack(
        [
            solve_one(b[:, j], None if x0 is None else x0[:, j])
            for j in range(b.shape[1])
        ],
        b,
    )


def _without_iterating(system: System) -> KrylovResult | None:
    """Answer what needs no product: b = 0, an empty system, b not finite."""
    b = system.b
    xp = namespace(b)
    zero = xp.zeros_like(b)
    if system.b_norm == 0.0:
        return KrylovResult(zero, Status.CONVERGED, True, 0, 0, 0.0, zero, 0.0)
    if not math.isfinite(system.b_norm):
        return KrylovResult(
            zero, Status.NOT_FINITE, False, 0, 0, system.b_norm, b + zero, math.inf
        )
    return None


def _stack(results: list[KrylovResult], b: Array) -> KrylovResult:
    xp = namespace(b)
    failed = [r.status for r in results if not r.converged]
    if not results:
        empty = xp.zeros_like(b)
        none = xp.zeros((0,), dtype=b.dtype)
        return KrylovResult(
            empty, Status.CONVERGED, none > 0, none, 0, none, empty, none
        )
    # A rounding limit in one column must not hide a failure in another.
    failed.sort(key=lambda status: status.acceptable)
    energies = [r.energy_error for r in results]
    return KrylovResult(
        x=xp.stack([r.x for r in results], axis=1),
        status=failed[0] if failed else Status.CONVERGED,
        converged=xp.asarray([r.converged for r in results]),
        niter=xp.asarray([r.niter for r in results]),
        n_matvec=sum(r.n_matvec for r in results),
        residual_norm=xp.asarray([r.residual_norm for r in results]),
        residual=xp.stack([r.residual for r in results], axis=1),
        energy_error=None if None in energies else xp.asarray(energies),
        direction=next((r.direction for r in results if r.direction is not None), None),
    )


def operator_norm_estimate(v: Array, Av: Array) -> float:
    """Return ‖A v‖ / ‖v‖, a lower estimate of ‖A‖₂."""
    size = norm(v)
    return norm(Av) / size if size > 0 else 0.0
