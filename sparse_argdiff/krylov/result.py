"""What a Krylov solver takes and what it returns, the same for every method.

All of them stop when the *recomputed* residual satisfies

    ‖b − A x‖₂ ≤ max(rtol ‖b‖₂, atol),

whatever the start x0 and whatever the preconditioner.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from ..arrays import Array, asarray, described, namespace
from ..status import Status


@dataclasses.dataclass(frozen=True, eq=False)
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

    __repr__ = described


@dataclasses.dataclass(frozen=True, eq=False)
class Iterate:
    """What a ``callback`` sees, iteration 0 included; ``x`` is live: copy to keep.

    ``column`` says of which right-hand side it is.
    """

    niter: int
    x: Array
    residual_norm: float
    column: int = 0

    __repr__ = described


Callback = Callable[[Iterate], Any]


def block_result(
    columns: Sequence[Any],
    ended: Sequence[Status],
    x: Array,
    residual: Array,
    b: Array,
) -> KrylovResult:
    """Return the result of several right-hand sides, from what became of each."""
    xp = namespace(b)

    def row(values: list[Any], dtype: Any) -> Array:
        return asarray(values, b, dtype)

    def energies(name: str) -> Array | None:
        values = [getattr(column, name) for column in columns]
        return None if None in values or not values else row(values, xp.float64)

    # A rounding limit in one column must not hide a failure in another.
    failed = [status for status in ended if status is not Status.CONVERGED]
    failed.sort(key=lambda status: status.acceptable)
    met = [status is Status.CONVERGED for status in ended]
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
