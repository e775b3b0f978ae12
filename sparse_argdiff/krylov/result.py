"""What a Krylov solver takes and what it returns, the same for every method.

All of them stop when the *recomputed* residual satisfies

    ‖b − A x‖₂ ≤ max(rtol ‖b‖₂, atol),

whatever the start x0 and whatever the preconditioner.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
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
        Estimate of ‖x − x*‖_A, leaning low (``cg`` only).
    energy_error_uncertainty : float, array (k,) or None
        Standard deviation of the logarithm of ``energy_error``: below 0.2 it can be relied
        on, above 0.5 it is a guess (``cg`` only).
    energy_error_earlier : float, array (k,) or None
        Reliable lower estimate of the error of the last iterate that has one, x or one
        before it (``cg`` only).  As the error never grows, that of x is at most √1.25
        times this.  NaN where no iterate has one.
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
    energy_error_uncertainty: Any = None
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


def in_units(result: KrylovResult, unit: float) -> KrylovResult:
    """Return the result of A x = b from that of A x = b / unit.

    An answer that leaves the floating range on the way is none.
    """

    def scaled(value: Any) -> Any:
        return None if value is None else unit * value

    x, status = unit * result.x, result.status
    if is_finite(result.x) and not is_finite(x):
        status = Status.NOT_FINITE
    return dataclasses.replace(
        result,
        x=x,
        status=status,
        converged=status is Status.CONVERGED,
        residual=unit * result.residual,
        residual_norm=unit * result.residual_norm,
        energy_error=scaled(result.energy_error),
        energy_error_bound=scaled(result.energy_error_bound),
        energy_error_earlier=scaled(result.energy_error_earlier),
    )


def stack(results: list[KrylovResult], b: Array) -> KrylovResult:
    """Return one result of the results of all columns of b."""
    xp = namespace(b)

    def row(values: list[Any], dtype: Any) -> Array:
        return asarray(values, b, dtype)

    def energies(name: str) -> Array | None:
        values = [getattr(r, name) for r in results]
        return None if None in values else row(values, xp.float64)

    failed = [r.status for r in results if not r.converged]
    # A rounding limit in one column must not hide a failure in another.
    failed.sort(key=lambda status: status.acceptable)
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
        energy_error=energies("energy_error"),
        direction=next((r.direction for r in results if r.direction is not None), None),
        energy_error_bound=energies("energy_error_bound") if results else None,
        energy_error_uncertainty=energies("energy_error_uncertainty"),
        energy_error_earlier=energies("energy_error_earlier"),
    )
