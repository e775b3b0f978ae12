"""What a Krylov solver takes and what it returns, the same for every method.

All of them stop when the *recomputed* residual satisfies

    ‖b − A x‖₂ ≤ max(rtol ‖b‖₂, atol),

whatever the start x0 and whatever the preconditioner.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from ..arrays import Array, asarray, is_finite, namespace
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
        Estimate of ‖x − x*‖_A, a guess (``cg`` only).
    energy_error_earlier : float, array (k,) or None
        Reliable estimate of the error of the last iterate whose error the steps since
        determine (``cg`` only): never above the truth there, and at most 11 % below.  The
        error of x is not larger.  NaN where no iterate is that certain.
    energy_error_bound : float, array (k,) or None
        Upper bound on ‖x − x*‖_A (``cg`` with ``smallest_eigenvalue`` only).
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
    energy_error_bound: Any = None
    energy_error_earlier: Any = None


@dataclasses.dataclass(frozen=True)
class Iterate:
    """What a ``callback`` sees, iteration 0 included; ``x`` is live: copy to keep.

    ``column`` says of which right-hand side it is.
    """

    niter: int
    x: Array
    residual_norm: float
    column: int = 0


Callback = Callable[[Iterate], Any]


def assemble(
    columns: Sequence[Any], parts: Sequence[tuple[Array, Array]], b: Array
) -> KrylovResult:
    """Return the result of all columns, in the units of b.

    Parameters
    ----------
    columns : sequence of Column
        What has become of each right-hand side.
    parts : sequence of (x, residual)
        Of consecutive columns: vectors, or blocks with zero columns at their end.
    b : array (n,) or (n, k)
    """
    xp, count = namespace(b), len(columns)
    x, residual = (_joined([part[i] for part in parts], count, b) for i in range(2))
    for c, column in enumerate(columns):
        if column.unit != 1.0:
            x, residual = _in_units(x, residual, c, column)
    if b.ndim == 1:
        (column,) = columns
        return KrylovResult(
            x=x,
            status=column.status,
            converged=column.status is Status.CONVERGED,
            niter=column.niter,
            n_matvec=column.n_matvec,
            residual_norm=column.residual_norm,
            residual=residual,
            energy_error=column.energy_error,
            direction=column.direction,
            energy_error_bound=column.energy_error_bound,
            energy_error_earlier=column.energy_error_earlier,
        )

    def row(values: list[Any], dtype: Any) -> Array:
        return asarray(values, b, dtype)

    def energies(name: str) -> Array | None:
        values = [getattr(column, name) for column in columns]
        return None if None in values or not values else row(values, xp.float64)

    # A rounding limit in one column must not hide a failure in another.
    failed = [c.status for c in columns if c.status is not Status.CONVERGED]
    failed.sort(key=lambda status: status.acceptable)
    met = [c.status is Status.CONVERGED for c in columns]
    return KrylovResult(
        x=x,
        status=failed[0] if failed else Status.CONVERGED,
        converged=row(met, xp.bool),
        niter=row([c.niter for c in columns], xp.int64),
        n_matvec=sum(c.n_matvec for c in columns),
        residual_norm=row([c.residual_norm for c in columns], xp.float64),
        residual=residual,
        energy_error=energies("energy_error"),
        direction=next((c.direction for c in columns if c.direction is not None), None),
        energy_error_bound=energies("energy_error_bound"),
        energy_error_earlier=energies("energy_error_earlier"),
    )


def _joined(parts: list[Array], count: int, b: Array) -> Array:
    """Return the columns of all parts side by side, without those that only fill up."""
    xp = namespace(b)
    if b.ndim == 1:
        return parts[0]
    if not parts:
        return xp.zeros_like(b)
    if parts[0].ndim == 1:
        return xp.stack(parts, axis=1)
    whole = parts[0] if len(parts) == 1 else xp.concat(parts, axis=1)
    return whole if whole.shape[1] == count else xp.asarray(whole[:, :count], copy=True)


def _in_units(x: Array, residual: Array, c: int, column: Any) -> tuple[Array, Array]:
    """Scale a column back; an answer that leaves the floating range is none."""
    unit = column.unit
    if x.ndim == 1:
        found, now = x, unit * x
        x, residual = now, unit * residual
    else:
        found, now = x[:, c], unit * x[:, c]
        x[:, c], residual[:, c] = now, unit * residual[:, c]
    if is_finite(found) and not is_finite(now):
        column.status = Status.NOT_FINITE
    for name in (
        "residual_norm",
        "energy_error",
        "energy_error_bound",
        "energy_error_earlier",
    ):
        value = getattr(column, name)
        setattr(column, name, None if value is None else unit * value)
    return x, residual
