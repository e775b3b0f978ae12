"""What a Krylov solver takes and what it returns, the same for every method.

All of them stop when the *recomputed* residual satisfies

    ‖b − A x‖₂ ≤ max(rtol ‖b‖₂, atol),

whatever the start x0 and whatever the preconditioner.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

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


class Start(NamedTuple):
    """Where a method begins; with a status where there is nothing to iterate for."""

    x: Array
    r: Array  # b − A x
    residual_norm: float
    n_matvec: int
    status: Status | None


@dataclasses.dataclass(frozen=True)
class System:
    """One checked linear system with a single right-hand side, in units of ``unit``."""

    A: LinearOperator
    b: Array
    x0: Array | None
    target: float
    b_norm: float
    maxiter: int
    M: LinearOperator | None
    callback: Callback | None
    unit: float = 1.0

    def start(self) -> Start:
        """Return x and b − A x as fresh arrays; the callback has seen them.

        A start that is worse than zero is not used: it would cost digits.
        """
        xp = namespace(self.b)
        x, r, n_matvec = xp.zeros_like(self.b), None, 0
        if self.x0 is not None and 0.0 < self.b_norm < math.inf:
            warm = xp.asarray(self.x0, dtype=self.b.dtype, copy=True)
            r, n_matvec = self.residual(warm), 1
            if norm(r) <= self.b_norm:
                x = warm
            else:
                r = None
        if r is None:
            r = xp.asarray(self.b, copy=True)
        size = norm(r)
        asked = self.wants_stop(0, x, size)
        status = None
        if not math.isfinite(size):
            status = Status.NOT_FINITE
        elif size <= self.target:
            status = Status.CONVERGED
        elif asked:
            status = Status.STOPPED_BY_CALLBACK
        return Start(x, r, size, n_matvec, status)

    def residual(self, x: Array) -> Array:
        """Return b − A x, recomputed (one product)."""
        return self.b - self.A.matvec(x)

    @property
    def unit_roundoff(self) -> float:
        """Relative accuracy of a product: of the dtype, or what A states."""
        return max(epsilon(self.b), self.A.accuracy or 0.0)

    def rounding_level(self, x: Array, a_norm: float) -> float:
        """Return the residual norm that rounding alone explains at ``x``."""
        return 32.0 * self.unit_roundoff * (a_norm * norm(x) + self.b_norm)

    def wants_stop(self, niter: int, x: Array, residual_norm: float) -> bool:
        """Tell the callback where we are; True when it asks to stop."""
        if self.callback is None:
            return False
        try:
            if self.unit != 1.0:
                x, residual_norm = self.unit * x, self.unit * residual_norm
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
    A = _operator("A", A)
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
        M = _operator("M", M)
        if M.shape != A.shape:
            raise ValueError(f"M must have shape {A.shape} like A, found {M.shape}")
    rtol, atol = as_tolerance("rtol", rtol), as_tolerance("atol", atol)
    limit = max(10 * n, 20) if maxiter is None else as_count("maxiter", maxiter)

    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be a function, found {type(callback).__name__}")

    def solve_one(column: Array, start: Array | None) -> KrylovResult:
        size = norm(column)
        target = max(rtol * size, atol)
        unit = _unit(size, column)
        if unit == 1.0:
            return method(System(A, column, start, target, size, limit, M, callback))
        # Squares in the recurrences would leave the floating range: b / unit instead.
        start = None if start is None else start / unit
        target, size, column = target / unit, size / unit, column / unit
        result = method(
            System(A, column, start, target, size, limit, M, callback, unit)
        )
        return _in_units(result, unit)

    if b.ndim == 1:
        return solve_one(b, x0)
    return _stack(
        [
            solve_one(b[:, j], None if x0 is None else x0[:, j])
            for j in range(b.shape[1])
        ],
        b,
    )


def _operator(name: str, value: Any) -> LinearOperator:
    try:
        return aslinearoperator(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None


def _unit(size: float, like: Array) -> float:
    """Return 1, or the power of two below a size whose square is no sound float."""
    if size == 0.0 or not math.isfinite(size):
        return 1.0
    smallest = float(namespace(like).finfo(like.dtype).smallest_normal)
    if smallest**0.25 < size < smallest**-0.25:
        return 1.0
    return math.ldexp(1.0, math.frexp(size)[1] - 1)


def _in_units(result: KrylovResult, unit: float) -> KrylovResult:
    energy = result.energy_error
    return dataclasses.replace(
        result,
        x=unit * result.x,
        residual=unit * result.residual,
        residual_norm=unit * result.residual_norm,
        energy_error=None if energy is None else unit * energy,
    )


def _stack(results: list[KrylovResult], b: Array) -> KrylovResult:
    xp = namespace(b)

    def row(values: list[Any], dtype: Any) -> Array:
        return xp.asarray(values, dtype=dtype, device=b.device)

    failed = [r.status for r in results if not r.converged]
    # A rounding limit in one column must not hide a failure in another.
    failed.sort(key=lambda status: status.acceptable)
    energies = [r.energy_error for r in results]
    columns = [r.x for r in results], [r.residual for r in results]
    x, residual = (
        xp.stack(c, axis=1) if results else xp.zeros_like(b) for c in columns
    )
    return KrylovResult(
        x=x,
        status=failed[0] if failed else Status.CONVERGED,
        converged=row([r.converged for r in results], xp.bool),
        niter=row([r.niter for r in results], xp.int64),
        n_matvec=sum(r.n_matvec for r in results),
        residual_norm=row([r.residual_norm for r in results], xp.float64),
        residual=residual,
        energy_error=None if None in energies else row(energies, xp.float64),
        direction=next((r.direction for r in results if r.direction is not None), None),
    )


def operator_norm_estimate(v: Array, Av: Array) -> float:
    """Return ‖A v‖ / ‖v‖, a lower estimate of ‖A‖₂."""
    size = norm(v)
    return norm(Av) / size if size > 0 else 0.0
