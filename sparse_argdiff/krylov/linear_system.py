"""Checked linear systems, and what all Krylov solvers do before and after they iterate.

    ‖b − A x‖₂ ≤ max(rtol ‖b‖₂, atol)    and, with M,    ‖b − A x‖_M ≤ rtol ‖b‖_M

of a residual that is recomputed, whatever the start; ‖r‖²_M = r'M r.  With M = diag(A)⁻¹
the second means the same in all units of x.  Where atol is the larger of the two it is
what was asked for, and the first alone counts.  A right-hand side is a vector (n,), or several of them are the columns of a block (n, k).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from ..arrays import (
    Array,
    as_count,
    as_floating,
    as_tolerance,
    check_callable,
    dot,
    empty,
    epsilon,
    is_finite,
    namespace,
    norm,
)
from ..kernels import (
    Device,
    KernelSet,
    Line,
    Workspace,
    choose,
)
from ..operators.linear_operator import LinearOperator, as_operator
from ..operators.probes import asymmetry, random_signs, symmetry_tolerance
from ..status import Status
from .column_blocks import (
    Recurrence,
    block_width,
    by_columns,
    joined,
    operators_of,
    take,
)
from .diagonal_block_systems import as_blocks, as_columns, blocks_of
from .result import Callback, Iterate, KrylovResult, block_result

_QUESTIONABLE = {
    Status.ITERATION_LIMIT,
    Status.STAGNATED,
    Status.NEGATIVE_CURVATURE,
    Status.SINGULAR,
    Status.LEAST_SQUARES,
    Status.INDEFINITE_PRECONDITIONER,
}


@dataclasses.dataclass
class Column:
    """One right-hand side and what has become of it, in units of ``unit``."""

    index: int
    b_norm: float
    target: float
    unit: float = 1.0
    residual_norm: float = math.nan
    share: float = math.inf  # of ‖b‖_M that the M-norm of the residual may be
    b_metric: float = 0.0  # ‖b‖_M, once it is known
    metric_norm: float = 0.0  # ‖b − A x‖_M, recomputed where it counts
    niter: int = 0
    n_matvec: int = 0
    a_norm: float = 0.0  # lower estimate of ‖A‖
    status: Status | None = None
    direction: Array | None = None
    energy_error: float | None = None
    energy_error_earlier: float | None = None
    energy_error_bound: float | None = None

    @property
    def metric_target(self) -> float:
        """The M-norm that the residual may have."""
        return self.share if self.share == math.inf else self.share * self.b_metric

    @property
    def is_finite(self) -> bool:
        """Whether all norms are numbers."""
        return math.isfinite(self.residual_norm + self.metric_norm + self.b_metric)

    @property
    def met(self) -> bool:
        """Whether the recomputed residual is within the tolerance, in both norms."""
        within = self.metric_norm <= self.metric_target
        return self.residual_norm <= self.target and within

    def is_slow(self, before: float, metric_before: float) -> bool:
        """Tell whether neither norm of the residual has halved since."""
        fell = self.share < math.inf and self.metric_norm <= 0.5 * metric_before
        return self.residual_norm > 0.5 * before and not fell


@dataclasses.dataclass(frozen=True)
class LinearSystem:
    """A checked system whose right-hand sides are solved together.

    ``b`` is (n,), or (n, width) with one column for each of ``columns`` and zeros beyond.
    """

    A: LinearOperator
    b: Array
    x0: Array | None
    maxiter: int
    M: LinearOperator | None
    callback: Callback | None
    kernels: KernelSet
    workspace: Workspace | None
    columns: list[Column]

    def start(self, scratch: Array) -> tuple[Array, Array]:
        """Return x and b − A x as fresh arrays; the callback has seen them.

        A start that is worse than zero is not used: it would cost digits.
        """
        xp = namespace(self.b)
        x, r = xp.zeros_like(self.b), xp.asarray(self.b, copy=True)
        usable = [c for c in self.columns if 0.0 < c.b_norm < math.inf]
        for column in self.columns:
            column.residual_norm = column.b_norm
        if self.x0 is not None and usable:
            x[...] = self.x0
            self.residual(x, r, scratch)
            for c, column in enumerate(self.columns):
                column.n_matvec += column in usable
                size = norm(column_of(r, c))
                if column in usable and size <= column.b_norm:
                    column.residual_norm = size
                else:
                    column_of(x, c)[...] = 0.0
                    column_of(r, c)[...] = column_of(self.b, c)
            self.measure(self.b, scratch, "b_metric")
            self.measure(r, scratch, "metric_norm")
        for c, column in enumerate(self.columns):
            size = column.residual_norm
            asked = self.wants_stop(column, column_of(x, c), size)
            if not column.is_finite:
                column.status = Status.NOT_FINITE
            elif column.met:
                column.status = Status.CONVERGED
            elif asked:
                column.status = Status.STOPPED_BY_CALLBACK
        return x, r

    @contextmanager
    def scratch(self, count: int) -> Iterator[list[Array]]:
        """Lend arrays like b; blocks in one piece: huge pages need a large one."""
        if self.b.ndim == 1:
            with self._lent(count, tuple(self.b.shape)) as lent:
                yield lent
        elif by_columns(self.b):
            with self._lent(1, (count, *self.b.shape[::-1])) as (whole,):
                yield [whole[i, :, :].T for i in range(count)]
        else:
            with self._lent(1, (count, *self.b.shape)) as (whole,):
                yield [whole[i, :, :] for i in range(count)]

    def _lent(
        self, count: int, shape: tuple[int, ...]
    ) -> AbstractContextManager[list[Array]]:
        if self.workspace is None:
            return nullcontext([empty(shape, self.b) for _ in range(count)])
        return self.workspace.lend(self.b, count, shape)

    def unfinished(self) -> list[int]:
        """Return the places of the columns that have no status and iterations left."""
        return [
            c
            for c, column in enumerate(self.columns)
            if column.status is None and column.niter < self.maxiter
        ]

    def part(self, places: list[int]) -> LinearSystem:
        """Return the system of some of the columns."""
        width = 0
        if len(places) > 1:
            width = self.kernels.block_width(len(places), self.A, self.b)
        return dataclasses.replace(
            self.of(places, width),
            b=take(self.b, places, width, self.kernels, self.A),
            x0=None,
            columns=[self.columns[c] for c in places],
        )

    def of(self, places: list[int], width: int) -> LinearSystem:
        """Return the system with the operators of some of its columns."""
        of_M = None if self.M is None else self.M.structure.columns
        if self.A.structure.columns is None and of_M is None:
            return self
        A, M = operators_of(self.A, self.M, places, width, self.kernels)
        return dataclasses.replace(self, A=A, M=M)

    def residual(self, x: Array, out: Array, scratch: Array) -> None:
        """Write b − A x, recomputed (one product), into ``out``."""
        y, _ = self.kernels.multiply(self.A, x, scratch)
        self.kernels.subtract(self.b, y, out)

    def metric_norms(self, v: Array, scratch: Array) -> list[float]:
        """Return the norms of the columns of v in the metric of M."""
        if self.M is None:
            return [norm(column_of(v, c)) for c in range(len(self.columns))]
        squares = self.kernels.scalars(v).values(
            self.kernels.product(self.M, v, scratch)[1]
        )
        sound = [s if math.isfinite(s) else math.nan for s in map(float, squares)]
        return [math.sqrt(max(square, 0.0)) for square in sound]

    def measure(self, v: Array, scratch: Array, name: str = "metric_norm") -> None:
        """Note the norms of v in the metric of M where these count."""
        if self.M is None or all(column.share == math.inf for column in self.columns):
            return
        sizes = self.metric_norms(v, scratch)
        for column, size in zip(self.columns, sizes, strict=False):
            setattr(column, name, size)

    def at_rounding(self, column: Column, x: Array) -> bool:
        """Tell whether rounding alone explains the residual at x, in both norms."""
        if not column.residual_norm <= self.rounding_level(column, x):
            return False
        if column.metric_norm <= column.metric_target:
            return True
        return column.metric_norm <= self._metric_rounding_level(column, x)

    def _metric_rounding_level(self, column: Column, x: Array) -> float:
        """Return the M-norm of the residual that rounding explains; one product.

        Each entry of x and b is off by its own rounding: A (g ∘ x), for g of random signs,
        is what this makes of the residual, in all units.  Never more than ‖b‖_M / 10.
        """
        assert self.M is not None
        A, M = self.single(column)
        moved = A @ (random_signs(x.shape[0], x, 0) * x)
        column.n_matvec += 1
        size = math.sqrt(max(dot(moved, M @ moved), 0.0)) + column.b_metric
        return min(32.0 * self.unit_roundoff * size, 0.1 * column.b_metric)

    def single(self, column: Column) -> tuple[Any, Any]:
        """Return A and M for one column, as operators on vectors."""
        place = [self.columns.index(column)]
        M = None if self.M is None else self.M.for_columns(place, 0)
        return self.A.for_columns(place, 0), M

    @property
    def unit_roundoff(self) -> float:
        """Relative accuracy of a product: of the dtype, or what A states."""
        return max(epsilon(self.b), self.A.accuracy or 0.0)

    def rounding_level(self, column: Column, x: Array) -> float:
        """Return the residual norm that rounding alone explains at ``x``.

        Never more than a tenth of ‖b‖: an x so large that rounding would excuse anything
        is no answer.
        """
        size = column.a_norm * norm(x) + column.b_norm
        return min(32.0 * self.unit_roundoff * size, 0.1 * column.b_norm)

    def wants_stop(self, column: Column, x: Array, residual_norm: float) -> bool:
        """Show the iterate to the callback; return whether it asks to stop."""
        if self.callback is None:
            return False
        try:
            if column.unit != 1.0:
                x, residual_norm = column.unit * x, column.unit * residual_norm
            iterate = Iterate(column.niter, x, residual_norm, column.index)
            return bool(self.callback(iterate))
        except StopIteration:
            return True

    def diagnose(self, column: Column, x: Array, r: Array) -> None:
        """Look for the cause of a failure: rounding, or an A or M that is not symmetric.

        What has stagnated is multiplied by A: the residual has a share of the largest
        eigenvalues that b may lack, hence a better estimate of ‖A‖.  u'A v = v'A u is
        tested where A does not claim it, for a random v and u = x, whose product is known.
        """
        column.status = column.status or Status.ITERATION_LIMIT
        A, M = self.single(column)
        if column.status is Status.STAGNATED:
            column.a_norm = max(column.a_norm, *operator_norm_estimates(r, A @ r))
            column.n_matvec += 1
            if self.at_rounding(column, x):
                column.status = Status.ROUNDING_LIMIT
        if column.status not in _QUESTIONABLE:
            return
        symmetric = True
        b = contiguous(self.b, self.columns.index(column))
        for operator, known in ((A, True), (M, False)):
            if operator is None or operator.symmetric or not symmetric:
                continue
            u, Au = x, b - r
            if not known or norm(x) == 0.0:
                u, Au = b, operator @ b
                column.n_matvec += known
            column.n_matvec += known
            # What is not finite tells nothing.
            symmetric = not asymmetry(operator, u, Au) > symmetry_tolerance(operator, u)
        if not symmetric:
            column.status = Status.NOT_SYMMETRIC


Method = Callable[[LinearSystem], tuple[Array, Array]]


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
) -> KrylovResult:
    """Check the arguments of a solver and run ``method`` on the right-hand sides.

    ``method(system)`` returns x and b − A x, recomputed, and completes the columns.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what was found and what was expected.
    """
    A, b, x0, M = _checked_operands(A, b, x0, M)
    given, blocks = b, None
    if A.blocks is not None and callback is None:
        blocks = blocks_of(A, M)
    if blocks is not None:
        A, b, x0, M = as_columns(blocks, b, x0, M)
    rtol, atol = as_tolerance("rtol", rtol), as_tolerance("atol", atol)
    if blocks is not None:
        atol = atol / math.sqrt(blocks.count)
    if callback is not None:
        check_callable(callback=callback)
    if not isinstance(workspace, Workspace | None):
        raise TypeError(
            f"workspace must be a Workspace, found {type(workspace).__name__}"
        )
    kernel_set = choose(kernels, b)
    A, M = kernel_set.operator(A), None if M is None else kernel_set.operator(M)
    whole = LinearSystem(
        A=A,
        M=M,
        b=b,
        x0=x0,
        maxiter=max(10 * A.shape[0], 20)
        if maxiter is None
        else as_count("maxiter", maxiter),
        callback=callback,
        kernels=kernel_set,
        workspace=Workspace() if workspace is None and b.ndim == 2 else workspace,
        columns=_columns(b, rtol, atol, metric=M is not None),
    )
    width = 1 if b.ndim == 1 else block_width(kernel_set, A, M, b)
    parts = [
        method(_group(whole, whole.columns[first : first + width], width))
        for first in range(0, len(whole.columns), width)
    ]
    found = assemble(whole.columns, parts, b, A)
    del parts  # copied, where there are several
    if blocks is None:
        return found
    return as_blocks(blocks, found, whole.columns, given)


def _columns(b: Array, rtol: float, atol: float, *, metric: bool) -> list[Column]:
    """Return the right-hand sides in units in which their squares are sound floats."""
    columns = []
    for j in range(1 if b.ndim == 1 else b.shape[1]):
        size = norm(column_of(b, j))
        unit = _unit(size, b)
        column = Column(j, size / unit, max(rtol * size, atol) / unit, unit)
        if metric and atol <= rtol * size:
            column.share = rtol
        columns.append(column)
    return columns


def _group(system: LinearSystem, columns: list[Column], width: int) -> LinearSystem:
    """Return the system of some columns, in their units, in a block of this width.

    One column is a vector, which is not filled up.
    """
    width = 1 if len(columns) == 1 else width
    single = system.b.ndim == 1 or width == 1
    places = [column.index for column in columns]
    return dataclasses.replace(
        system.of(places, 0 if single else width),
        b=_block(system.b, columns, width, system),
        x0=None if system.x0 is None else _block(system.x0, columns, width, system),
        columns=columns,
    )


def _checked_operands(A: Any, b: Any, x0: Any, M: Any) -> tuple[Any, Any, Any, Any]:
    """Return A, b, x0 and M as operators and arrays that go together."""
    A = as_operator("A", A)
    b = as_floating("b", b, ndim=(1, 2))
    if b.shape[0] != A.shape[0]:
        raise ValueError(
            f"b must have {A.shape[0]} rows like A, found shape {tuple(b.shape)}"
        )
    if x0 is not None:
        x0 = as_floating("x0", x0, ndim=(b.ndim,))
        if x0.shape != b.shape:
            raise ValueError(
                f"x0 must have the shape of b, {tuple(b.shape)}, found "
                f"{tuple(x0.shape)}"
            )
        namespace(x0, b)
    return A, b, x0, None if M is None else as_operator("M", M, A.shape)


def drive(
    system: LinearSystem,
    recurrence: Recurrence,
    x: Array,
    r: Array,
    listen: Callable[[Column, Line], float],
) -> list[Status | None]:
    """Advance until every column has ended; return why, None where r is small enough.

    ``listen`` is given the scalars of each step of a column and returns ‖r‖; the first is
    zero where the column has not moved, the last where it has ended.  Columns that have
    ended stand still until half of a block has, then the others go on in a narrower one.
    """
    columns = system.columns
    stops: list[Status | None] = [None] * len(columns)
    place = list(range(len(columns)))  # the column of each place in the block
    live = list(place)  # places that have not ended
    spent = columns[0].n_matvec
    on_device, batch = system.kernels.on_device, system.kernels.check_every
    if not on_device and (x.ndim == 2 or system.callback is not None):
        batch = 1
    # What is not finite in one column is its own status, not a warning.
    quiet = on_device or x.ndim == 2
    while live:
        left = system.maxiter - max([columns[place[i]].niter for i in live])
        with np.errstate(all="ignore") if quiet else nullcontext():
            steps = recurrence.advance(min(left, batch))
        here = {i: columns[place[i]] for i in live}
        stopped = _record(system, recurrence, steps, here, listen)
        active = _still_active(recurrence, steps)
        ended = [
            i
            for i, column in here.items()
            if i in stopped or not active[i] or column.niter >= system.maxiter
        ]
        if not ended:
            continue
        for i in ended:
            column = here[i]
            if i in stopped:
                stops[place[i]] = Status.STOPPED_BY_CALLBACK
            elif not active[i]:
                stops[place[i]], column.direction, lost = recurrence.breakdown(i)
                column.n_matvec += lost
            column.a_norm = max(column.a_norm, recurrence.a_norm(i))
        live = [i for i in live if i not in ended]
        recurrence.active = recurrence.scalars.without(recurrence.active, ended)
        if x.ndim == 2 and 0 < 2 * len(live) <= len(place):
            _write_back(recurrence, place, x, r)
            narrow = system.kernels.block_width(len(live), system.A, system.b)
            width = 0 if len(live) == 1 else narrow
            if recurrence.x.ndim == 2 and width < recurrence.x.shape[1]:
                recurrence.keep(live, width)
                place = [place[i] for i in live]
                live = list(range(len(live)))
    _write_back(recurrence, place, x, r)
    if x.ndim == 1:  # launched beyond the end on a device, too
        columns[0].n_matvec = spent + recurrence.products
    return stops


def _record(
    system: LinearSystem,
    recurrence: Recurrence,
    steps: list[list[Line]],
    columns: dict[int, Column],
    listen: Callable[[Column, Line], float],
) -> set[int]:
    """Count the steps of the columns, by place; return where the callback asks to stop."""
    stopped: set[int] = set()
    for step in steps:
        for i, column in columns.items():
            if step[i][0] != 0.0 and i not in stopped:
                column.niter += 1
                column.n_matvec += 1
                column.residual_norm = size = listen(column, step[i])
                x = column_of(recurrence.x, i)
                if system.callback and system.wants_stop(column, x, size):
                    stopped.add(i)
    return stopped


def _still_active(recurrence: Recurrence, steps: list[list[Line]]) -> list[Any]:
    """Return which columns go on: the last scalar of their last step, if there is one."""
    if steps:
        return [line[-1] for line in steps[-1]]
    found: list[Any] = recurrence.scalars.values(recurrence.active)
    return found


def _write_back(recurrence: Recurrence, place: list[int], x: Array, r: Array) -> None:
    """Write the columns of the recurrence to their places in x and r."""
    if recurrence.x is not x:
        for i, c in enumerate(place):
            column_of(x, c)[...] = column_of(recurrence.x, i)
            column_of(r, c)[...] = column_of(recurrence.r, i)


Round = Callable[[LinearSystem, Array, Array, list[Array]], None]


def solve_in_rounds(
    system: LinearSystem, vectors: int, one_round: Round
) -> tuple[Array, Array]:
    """Start, then repeat rounds on the columns without a status; return x and b − A x.

    ``one_round(system, x, r, scratch)`` has ``vectors`` arrays of scratch.
    """
    with system.scratch(vectors) as scratch:
        x, r = system.start(scratch[1])
        while todo := system.unfinished():
            if len(todo) == len(system.columns):
                one_round(system, x, r, scratch)
                continue
            part = system.part(todo)
            width = 0 if part.b.ndim == 1 else part.b.shape[1]
            x_part, r_part = (
                take(v, todo, width, system.kernels, part.A) for v in (x, r)
            )
            with part.scratch(vectors) as own:
                one_round(part, x_part, r_part, own)
            for i, c in enumerate(todo):
                x[:, c], r[:, c] = column_of(x_part, i), column_of(r_part, i)
    return x, r


# columns and blocks -------------------------------------------------------------------


def column_of(block: Array, c: int) -> Array:
    """Return column c, a view; a vector is its only column."""
    return block if block.ndim == 1 else block[:, c]


def contiguous(block: Array, c: int) -> Array:
    """Return column c, contiguous; a vector as it is."""
    if block.ndim == 1:
        return block
    return namespace(block).asarray(block[:, c], copy=True)


def _block(b: Array, group: list[Column], width: int, of: LinearSystem) -> Array:
    """Return the columns of a group, in their units."""
    if b.ndim == 1 or width == 1:
        vector, unit = column_of(b, group[0].index), group[0].unit
        if unit != 1.0:
            return vector / unit
        return vector if b.ndim == 1 else namespace(b).asarray(vector, copy=True)
    places = [column.index for column in group]
    found = take(b, places, width, of.kernels, of.A)
    for c, column in enumerate(group):
        if column.unit != 1.0:
            found[:, c] = found[:, c] / column.unit
    return found


# results ------------------------------------------------------------------------------


def assemble(
    columns: list[Column],
    parts: list[tuple[Array, Array]],
    b: Array,
    A: LinearOperator | None = None,
) -> KrylovResult:
    """Return the result of all columns, in the units of b.

    Parameters
    ----------
    columns : sequence of Column
        What has become of each right-hand side.
    parts : sequence of (x, residual)
        Of consecutive columns: vectors, or blocks with zero columns at their end.
    b : array (n,) or (n, k)
    A : LinearOperator, optional
        For the residual of what the units of b round, where they were changed.
    """
    x, residual = parts[0] if b.ndim == 1 else joined(parts, len(columns), b)
    for c, column in enumerate(columns):
        if column.unit != 1.0 and A is not None:
            x, residual = _in_units(A, x, residual, c, column)
    ended = [column.status or Status.ITERATION_LIMIT for column in columns]
    if b.ndim == 1:
        (column,) = columns
        return KrylovResult(
            x=x,
            status=ended[0],
            converged=ended[0] is Status.CONVERGED,
            niter=column.niter,
            n_matvec=column.n_matvec,
            residual_norm=column.residual_norm,
            residual=residual,
            energy_error=column.energy_error,
            direction=column.direction,
            energy_error_bound=column.energy_error_bound,
            energy_error_earlier=column.energy_error_earlier,
        )
    return block_result(columns, ended, x, residual, b)


def _in_units(
    A: LinearOperator, x: Array, residual: Array, c: int, column: Column
) -> tuple[Array, Array]:
    """Scale a column back; an answer that leaves the floating range is none.

    Where the entries become subnormal their rounding counts in the residual.
    """
    xp, unit = namespace(x), column.unit
    exact, left = column_of(x, c), column_of(residual, c)
    back = unit * exact
    if is_finite(exact) and not is_finite(back):
        column.status = Status.NOT_FINITE
    elif bool(xp.any(back / unit != exact)):
        left = left + A.matvec(exact - back / unit)
        column.n_matvec, column.residual_norm = column.n_matvec + 1, norm(left)
        if column.status is Status.CONVERGED and not column.met:
            column.status = Status.ROUNDING_LIMIT
    if x.ndim == 1:
        x, residual = back, unit * left
    else:
        x[:, c], residual[:, c] = back, unit * left
    for name in (
        "residual_norm",
        "energy_error",
        "energy_error_bound",
        "energy_error_earlier",
    ):
        value = getattr(column, name)
        setattr(column, name, None if value is None else unit * value)
    return x, residual


# estimates ----------------------------------------------------------------------------


def _unit(size: float, like: Array) -> float:
    """Return 1, or the power of two below a size whose square is no sound float."""
    if size == 0.0 or not math.isfinite(size):
        return 1.0
    smallest = float(namespace(like).finfo(like.dtype).smallest_normal)
    if smallest**0.25 < size < smallest**-0.25:
        return 1.0
    most = math.frexp(float(namespace(like).finfo(like.dtype).max))[1] - 1
    return math.ldexp(1.0, min(math.frexp(size)[1] - 1, most))


def operator_norm_estimates(V: Array, AV: Array) -> list[float]:
    """Return ‖A v‖ / ‖v‖, a lower estimate of ‖A‖₂, of a vector or of each column."""
    count = 1 if V.ndim == 1 else V.shape[1]
    sizes = [(norm(column_of(V, c)), norm(column_of(AV, c))) for c in range(count)]
    return [image / size if size > 0.0 else 0.0 for size, image in sizes]
