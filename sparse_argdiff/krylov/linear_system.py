"""A checked linear system and the door through which all Krylov solvers are entered.

    ‖b − A x‖₂ ≤ max(rtol ‖b‖₂, atol)

of a residual that is recomputed, whatever the start and whatever the preconditioner.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..arrays import (
    Array,
    as_count,
    as_floating,
    as_tolerance,
    asarray,
    dot,
    epsilon,
    namespace,
    norm,
)
from ..kernels import Compiled, Device, Make, choose
from ..kernels.blocks import lanes_for
from ..kernels.workspace import Workspace
from ..operators.linear_operator import LinearOperator, as_operator
from ..status import Status
from .requests import Asking, Request, run
from .result import Callback, Iterate, KrylovResult, in_units, stack
from .several_columns import Apart, Lanes, run_together

# A block of columns is multiplied at once from so many entries a row on; below, the
# copies into and out of the block cost more than reading the matrix once saves.
_ROW_WORTH_A_BLOCK = 15
_WIDTH = 32  # columns whose products are formed together
_FEWEST_IN_LANES, _FEWEST_COPIED = 3, 8  # columns that are cheaper together

_QUESTIONABLE = {
    Status.ITERATION_LIMIT,
    Status.STAGNATED,
    Status.NEGATIVE_CURVATURE,
    Status.SINGULAR,
    Status.LEAST_SQUARES,
    Status.INDEFINITE_PRECONDITIONER,
}


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
    kernels: Make
    workspace: Workspace
    unit: float = 1.0
    column: int = 0

    def start(self, scratch: Array) -> Asking[Start]:
        """Return x and b − A x as fresh arrays; the callback has seen them.

        A start that is worse than zero is not used: it would cost digits.
        """
        xp = namespace(self.b)
        x, r = xp.zeros_like(self.b), xp.asarray(self.b, copy=True)
        size, n_matvec = self.b_norm, 0
        if self.x0 is not None and 0.0 < self.b_norm < math.inf:
            warm = xp.asarray(self.x0, dtype=self.b.dtype, copy=True)
            yield from self.residual(warm, r, scratch)
            n_matvec = 1
            size = norm(r)
            if size <= self.b_norm:
                x = warm
            else:
                r[...] = self.b
                size = self.b_norm
        asked = self.wants_stop(0, x, size)
        status = None
        if not math.isfinite(size):
            status = Status.NOT_FINITE
        elif size <= self.target:
            status = Status.CONVERGED
        elif asked:
            status = Status.STOPPED_BY_CALLBACK
        return Start(x, r, size, n_matvec, status)

    def residual(self, x: Array, out: Array, scratch: Array) -> Asking[None]:
        """Write b − A x, recomputed (one product), into ``out``."""
        product = yield Request(self.A, x, scratch)
        self.kernels.subtract(self.b, product.y, out)

    def metric_norm(self, v: Array, scratch: Array) -> Asking[float]:
        """Return ‖v‖ in the metric of M."""
        if self.M is None:
            return norm(v)
        z, square = yield Request(self.M, v, scratch)
        return math.sqrt(max(dot(v, z) if square is None else square, 0.0))

    @property
    def unit_roundoff(self) -> float:
        """Relative accuracy of a product: of the dtype, or what A states."""
        return max(epsilon(self.b), self.A.accuracy or 0.0)

    def rounding_level(self, x: Array, a_norm: float) -> float:
        """Return the residual norm that rounding alone explains at ``x``.

        Never more than a tenth of ‖b‖: an x so large that rounding would excuse anything
        is no answer.
        """
        level = 32.0 * self.unit_roundoff * (a_norm * norm(x) + self.b_norm)
        return min(level, 0.1 * self.b_norm)

    def wants_stop(self, niter: int, x: Array, residual_norm: float) -> bool:
        """Tell the callback where we are; True when it asks to stop."""
        if self.callback is None:
            return False
        try:
            if self.unit != 1.0:
                x, residual_norm = self.unit * x, self.unit * residual_norm
            return bool(self.callback(Iterate(niter, x, residual_norm, self.column)))
        except StopIteration:
            return True

    def reconsider(
        self, status: Status, x: Array, r: Array, scratch: Array
    ) -> Asking[tuple[Status, int]]:
        """Return the status, or NOT_SYMMETRIC where that explains it; and products used.

        u'A v = v'A u is tested after a failure only, and where A does not claim it, for
        a random v and u = x, whose product is known: one product (two where x is zero).
        """
        if status not in _QUESTIONABLE:
            return status, 0
        symmetric, n_matvec = True, 0
        for operator, known in ((self.A, True), (self.M, False)):
            if operator is None or operator.symmetric or not symmetric:
                continue
            u, Au = x, self.b - r
            if not known or norm(x) == 0.0:
                u = self.b
                product = yield Request(operator, u, scratch)
                Au = namespace(u).asarray(product.y, copy=True)
                n_matvec += known
            rng = np.random.default_rng(0)
            v = asarray(rng.standard_normal(u.shape[0]), u)
            product = yield Request(operator, v, scratch)
            n_matvec += known
            size = norm(u) * norm(product.y) + norm(v) * norm(Au)
            unit = max(epsilon(u), operator.accuracy or 0.0)
            gap = abs(dot(u, product.y) - dot(v, Au))
            # What is not finite tells nothing.
            symmetric = not gap > unit**0.4 * size
        if symmetric and status is Status.STAGNATED and self.M is not None:
            # The steps of a good M show nothing of the largest eigenvalues; noise does.
            product = yield Request(self.A, r, scratch)
            n_matvec += 1
            a_norm = operator_norm_estimate(r, product.y)
            if norm(r) <= self.rounding_level(x, a_norm):
                status = Status.ROUNDING_LIMIT
        return status if symmetric else Status.NOT_SYMMETRIC, n_matvec


Method = Callable[[System], Asking[KrylovResult]]
Moving = Callable[[LinearOperator | None, Array, Make], int]


def solve_columns(
    method: Method,
    A: Any,
    b: Any,
    x0: Any,
    *,
    rtol: float,
    atol: float,
    maxiter: int | None,
    M: Any,
    callback: Callback | None,
    kernels: str | Device | None = None,
    workspace: Workspace | None = None,
    moving: Moving | None = None,
) -> KrylovResult:
    """Check the arguments of a solver and run ``method`` on each right-hand side.

    ``moving(M, b, kernels)`` is how many vectors go with a solve that joins others; None:
    it never does.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what was found and what was expected.
    """
    A = as_operator("A", A)
    n = A.shape[0]
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
        M = as_operator("M", M, A.shape)
    rtol, atol = as_tolerance("rtol", rtol), as_tolerance("atol", atol)
    limit = max(10 * n, 20) if maxiter is None else as_count("maxiter", maxiter)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be a function, found {type(callback).__name__}")
    if not isinstance(workspace, Workspace | None):
        raise TypeError(
            f"workspace must be a Workspace, found {type(workspace).__name__}"
        )
    make = choose(kernels, b)
    pool = Workspace() if workspace is None else workspace
    A = make.operator(A)
    M = None if M is None else make.operator(M)

    def solve(j: int, column: Array, start: Array | None) -> Asking[KrylovResult]:
        size = norm(column)
        target = max(rtol * size, atol)
        unit = _unit(size, column)
        if unit != 1.0:
            # Squares in the recurrences would leave the floating range.
            start = None if start is None else start / unit
            target, size, column = target / unit, size / unit, column / unit
        result = yield from method(
            System(
                A=A,
                b=column,
                x0=start,
                target=target,
                b_norm=size,
                maxiter=limit,
                M=M,
                callback=callback,
                kernels=make,
                workspace=pool,
                unit=unit,
                column=j,
            )
        )
        return result if unit == 1.0 else in_units(result, unit)

    if b.ndim == 1:
        return run(solve(0, b, x0), make)
    xp, k = namespace(b), b.shape[1]

    def column(of: Array, j: int) -> Array:
        return xp.asarray(of[:, j], copy=True)

    solves = (
        solve(j, column(b, j), None if x0 is None else column(x0, j)) for j in range(k)
    )
    vectors = 0
    blocks_in_place = isinstance(make, Compiled) and A.into_blocks
    if moving is not None and blocks_in_place and (M is None or M.has_matmat):
        vectors = moving(M, b, make)
    fewest = _FEWEST_IN_LANES if vectors else _FEWEST_COPIED
    if k < fewest or not _gains_by_blocks(A):
        return stack([run(one, make) for one in solves], b)
    if vectors:
        width = lanes_for(k, b)
        # One array for all: huge pages, where the system has them, need a large one.
        with pool.lend(b, 1, (vectors, n, width)) as (room,):
            blocks = [room[i, :, :] for i in range(vectors)]
            lanes = Lanes(A, blocks, Apart(make, pool))
            return stack(run_together(solves, min(width, k), lanes), b)
    # One that is its diagonal shares nothing between columns.
    shares = M is not None and _gains_by_blocks(M) and not M.is_diagonal
    width = min(_WIDTH, k)
    apart = Apart(make, pool, width, [A, M] if shares else [A])
    return stack(run_together(solves, width, apart), b)


def _gains_by_blocks(A: LinearOperator) -> bool:
    """Whether a product with several columns costs less than those with each."""
    entries = getattr(A.matrix, "nnz", None)
    if entries is not None and entries < _ROW_WORTH_A_BLOCK * A.shape[0]:
        return False
    return A.has_matmat


def _unit(size: float, like: Array) -> float:
    """Return 1, or the power of two below a size whose square is no sound float."""
    if size == 0.0 or not math.isfinite(size):
        return 1.0
    smallest = float(namespace(like).finfo(like.dtype).smallest_normal)
    if smallest**0.25 < size < smallest**-0.25:
        return 1.0
    most = math.frexp(float(namespace(like).finfo(like.dtype).max))[1] - 1
    return math.ldexp(1.0, min(math.frexp(size)[1] - 1, most))


def operator_norm_estimate(v: Array, Av: Array) -> float:
    """Return ‖A v‖ / ‖v‖, a lower estimate of ‖A‖₂."""
    size = norm(v)
    return norm(Av) / size if size > 0 else 0.0


def flat_status(p: Array, Ap: Array, a_norm: float, unit: float) -> Status:
    """Say what p'A p = 0 means: a definite A has ‖A p‖² ≤ ‖A‖ p'A p, to rounding.

    So A is singular where A p vanishes too, and indefinite where it does not.
    """
    size, image = norm(p), norm(Ap)
    noise = abs(dot(p, Ap)) + unit * a_norm * size * size
    definite = image * image <= 1e3 * a_norm * noise
    return Status.SINGULAR if definite else Status.NEGATIVE_CURVATURE
