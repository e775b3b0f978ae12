"""Solve one problem for many x: together where they are small quadratic programs.

    y_i = argmin_y f(x_i, y)   s.t.   the constraints,    i = 1 … k

Programs of dense data advance in one interior point method, ``batched/``; what it does not
finish, and every other problem, is solved one after another.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from ..arrays import (
    Array,
    as_count,
    as_floating,
    as_tolerance,
    asarray,
    check_on_failure,
    copied,
    full,
    namespace,
    zeros,
)
from ..problem.batch_solution import BatchSolution, named
from ..problem.optimality import conditions
from ..problem.problem import ActiveSet, Problem, Solution
from ..problem.stacked_active import FIXED
from ..problem.stacked_parameters import StackedParameters, stacked_parameters
from ..problem.stacked_point import (
    masks_of_rows,
    multipliers_of_rows,
    point_of,
    residuals_of,
)
from ..problem.stacked_quadratic import stack_size
from ..status import OnFailure, Status, raise_or_warn
from .batched.solve_stack import solve_stack
from .solve import LowerSolver, solve

_BATCHED = "batched"
_NOTES = 3  # that a warning repeats


def solve_many(
    problem: Problem,
    X: Any,
    Y0: Any = None,
    *,
    method: str | LowerSolver | None = None,
    tol: float = 1e-8,
    maxiter: int | None = None,
    on_failure: OnFailure = "warn",
) -> BatchSolution:
    """Solve min_y f(x, y), or max_y, for each row x of X.

    Parameters
    ----------
    problem : Problem
    X : array (k, m)
        Parameters, a row for each member; k may be 0.
    Y0 : array (k, n) or (n,), or BatchSolution, optional
        Starts, or one for all: solutions for neighbouring x.  A quadratic program whose active
        set is that of its start (of a BatchSolution the one that it has, else the sides
        that y0 is on) needs no iteration, which is proven as always.
    method : str or callable, optional
        "batched": a quadratic program (``QuadraticProgram``) of explicit data, all members in one
        primal-dual interior point method, each polished to its exact active set and certified to
        1e-12; the default up to 1000 variables and rows (300 of sparse data).  Any method
        of :func:`solve`: one after another, the default for other problems.
    tol, maxiter
        As for :func:`solve`, of members that are solved one after another.
    on_failure : {"raise", "warn", "ignore"}
        What to do when members fail: a warning names them.  Their rows are NaN and the
        others are what they are without them.

    Returns
    -------
    BatchSolution
        Member i is ``solutions[i]``; see :func:`vjp_many` and :func:`jvp_many`.

    Raises
    ------
    ConvergenceError
        With ``on_failure="raise"``; its ``result`` is the BatchSolution.
    ValueError, TypeError
        For wrong arguments.

    Notes
    -----
    A member does not depend on its neighbours, nor on their order.  Memory is that of X, of the
    solutions and of some 10⁸ bytes, however large k is.

    Examples
    --------
    >>> import numpy as np
    >>> import sparse_argdiff as sad
    >>> problem = sad.QuadraticProgram(np.eye(2), np.zeros(2), lower=0.0)
    >>> solutions = sad.solve_many(problem, np.array([[-1.0, 2.0], [-3.0, -4.0]]))
    >>> solutions.y
    array([[1., 0.],
           [3., 4.]])
    """
    check_on_failure(on_failure)
    if not isinstance(problem, Problem):
        raise TypeError(f"problem must be a Problem, found {type(problem).__name__}")
    X = _rows("X", X)
    tol = as_tolerance("tol", tol)
    maxiter = None if maxiter is None else as_count("maxiter", maxiter)
    starts = _starts(problem, X, Y0)
    parameters = stacked_parameters(problem) if method in (None, _BATCHED) else None
    if method == _BATCHED and parameters is None:
        raise ValueError(
            "method 'batched' is for quadratic programs of explicit data, made by "
            "QuadraticProgram, with at most 1000 variables and rows (300 of sparse data)"
        )
    options = {"method": method, "tol": tol, "maxiter": maxiter}
    if parameters is not None:
        options["method"] = None
        before = Y0 if isinstance(Y0, BatchSolution) else None
        found = _together(problem, parameters, X, starts, before, options)
    else:
        alone = _one_by_one(problem, X, starts, range(X.shape[0]), options)
        found = _collected(problem, X, alone, method)
    _report(found, on_failure)
    return found


def _rows(name: str, given: Any) -> Array:
    """Return a checked array of rows, of floating numbers."""
    ndim = getattr(given, "ndim", None)
    if ndim == 1:
        raise ValueError(
            f"{name} must have shape (k, m), a row for each member, found shape "
            f"{tuple(given.shape)}; pass {name}[None, :] for one"
        )
    return copied(as_floating(name, given, ndim=(2,)))


def _starts(problem: Problem, X: Array, Y0: Any) -> Array | None:
    """Return the starts (k, n), or None for zeros."""
    if Y0 is None:
        return None
    Y0 = Y0.y if isinstance(Y0, BatchSolution) else Y0
    Y0 = as_floating("Y0", Y0, ndim=(1, 2))
    xp, k, n = namespace(X, Y0), X.shape[0], getattr(problem.objective, "n", None)
    if (Y0.ndim == 2 and Y0.shape[0] != k) or (n is not None and Y0.shape[-1] != n):
        size = "n" if n is None else n
        raise ValueError(
            f"Y0 must have shape ({k}, {size}) or ({size},), found {tuple(Y0.shape)}"
        )
    return xp.broadcast_to(Y0, (k, Y0.shape[-1]))


def _report(found: BatchSolution, on_failure: OnFailure) -> None:
    """Raise or warn about failed members, all by name."""
    by_status: dict[Status, list[int]] = {}
    for i, status in enumerate(found.status):
        if not status.acceptable:
            by_status.setdefault(status, []).append(i)
    if not by_status:
        return
    status, index = max(by_status.items(), key=lambda item: len(item[1]))
    detail = "; ".join(f"{s.name}: {named(i)}" for s, i in by_status.items())
    if found.warnings:
        rest = len(found.warnings) - _NOTES
        shown = [
            *found.warnings[:_NOTES],
            *([f"{rest} more notes"] if rest > 0 else []),
        ]
        detail = f"{detail}. {'; '.join(shown)}"
    raise_or_warn(
        status,
        found,
        f"solving {named(index)} of {len(found)}",
        f"{detail}.",
        on_failure,
    )


def _together(
    problem: Problem,
    parameters: StackedParameters,
    X: Array,
    starts: Array | None,
    before: BatchSolution | None,
    options: dict[str, Any],
) -> BatchSolution:
    """Solve quadratic programs in stacks, and what is left one by one."""
    k, m = X.shape
    parameters.named.check_x(X[0, :] if k else zeros((m,), X))
    found = _blank(problem, X, parameters.n, parameters.rows)
    status: list[Status | None] = []
    size = stack_size(*parameters.shape)
    for first in range(0, k, size):
        rows = slice(first, min(first + size, k))
        status += _solve_stack_of(parameters, X, rows, found, starts, before)
    left = [i for i, one in enumerate(status) if one is None]
    method = [_BATCHED] * k
    notes = parameters.undefined(X)
    for i, one in zip(
        left, _one_by_one(problem, X, starts, left, options), strict=True
    ):
        status[i] = _fill(problem, found, i, one)
        method[i] = getattr(one, "method", "") or "one by one"
        notes += [f"member {i}: {note}" for note in _notes(one)]
    return _finished(found, status, method, notes)


def _solve_stack_of(
    parameters: StackedParameters,
    X: Array,
    rows: slice,
    into: BatchSolution,
    starts: Array | None,
    before: BatchSolution | None,
) -> list[Status | None]:
    """Solve a stack and write it into its rows of the record; return how each ended."""
    xp, X = namespace(X), X[rows, :]
    data = parameters.stacked(X).widened(X.shape[0])
    y0 = held = None
    if starts is not None:
        y0 = xp.astype(starts[rows, :], xp.float64)
    if before is not None:
        held = point_of(parameters, data, before, rows).held
    found = solve_stack(data, y0, held)
    sides = parameters.sides
    terms = found.y * (data.gradient(found.y) + data.q)
    into.value[rows] = 0.5 * parameters.sign * xp.sum(terms, axis=1)
    into.y[rows, :] = xp.astype(found.y, into.y.dtype)
    into.error[rows], into.niter[rows] = found.error, found.niter
    if into.multipliers is not None:
        into.multipliers[rows, :] = xp.astype(
            multipliers_of_rows(sides, found.nu, found.rows), into.y.dtype
        )
    if into.bound_multipliers is not None:
        into.bound_multipliers[rows, :] = -xp.astype(found.bounds, into.y.dtype)
    acting = xp.where(
        found.held.rows == FIXED,
        1 - 2 * xp.astype(found.rows < 0.0, xp.int8),
        found.held.rows,
    )
    active = ActiveSet(
        strong=masks_of_rows(sides, acting),
        weak=masks_of_rows(sides, found.weak_rows),
        fixed=found.held.bounds != 0,
        weak_fixed=found.weak_bounds != 0,
    )
    if into.active is not None:
        for mask in ("strong", "weak", "fixed", "weak_fixed"):
            getattr(into.active, mask)[rows, :] = getattr(active, mask)
    into.residual[rows, :] = xp.astype(
        residuals_of(sides, data, (found.y, found.nu, found.rows), active),
        into.y.dtype,
    )
    return found.status


def _blank(
    problem: Problem, X: Array, n: int, rows: tuple[int, int], dtype: Any = None
) -> BatchSolution:
    """Return the record of k members to be filled in: NaN for failed ones.

    ``rows``: the equality and the inequality rows.
    """
    xp, k, (p, q) = namespace(X), X.shape[0], rows
    dtype = dtype or getattr(problem.objective, "dtype", None) or X.dtype
    like = zeros((0,), X, dtype)

    def nan(*shape: int) -> Array:
        return full(shape, math.nan, like)

    def mask(size: int) -> Array:
        return full((k, size), False, like, xp.bool)

    sided = problem.one_sided
    return BatchSolution(
        y=nan(k, n),
        x=X,
        value=nan(k),
        multipliers=nan(k, p + q) if problem.constrained else None,
        bound_multipliers=nan(k, n) if problem.bounded else None,
        active=ActiveSet(mask(q), mask(q), mask(n), mask(n)) if sided else None,
        status=(),
        converged=full((k,), False, like, xp.bool),
        error=nan(k),
        niter=full((k,), 0, like, xp.int64),
        residual=nan(k, n + p + q),
    )


def _finished(
    found: BatchSolution, status: list[Any], method: list[str], notes: list[str]
) -> BatchSolution:
    """Return the record with how its members ended."""
    if status:
        good = asarray(
            [one.acceptable for one in status], found.y, found.converged.dtype
        )
        found.converged[...] = good
    return dataclasses.replace(
        found, status=tuple(status), method=tuple(method), warnings=tuple(notes)
    )


def _fill(
    problem: Problem, found: BatchSolution, i: int, one: Solution | str
) -> Status:
    """Write a member's solution into its row, unless it failed; return how it ended."""
    if isinstance(one, str) or one.status is None:
        return Status.NOT_FINITE
    found.niter[i] = one.niter
    if not one.status.acceptable:
        return one.status
    found.y[i, :] = one.y
    found.value[i] = math.nan if one.value is None else one.value
    found.error[i] = math.nan if one.relative_error is None else one.relative_error
    if found.multipliers is not None and one.multipliers is not None:
        found.multipliers[i, :] = one.multipliers
    if one.residual is not None:
        found.residual[i, :] = one.residual
    active = found.active
    if active is not None and one.active is not None:
        for name in ("strong", "weak", "fixed", "weak_fixed"):
            getattr(active, name)[i, :] = getattr(one.active, name)
        if found.bound_multipliers is not None:
            force = one.bound_multipliers
            if force is None:
                force = conditions(
                    problem, one.x, one.y, one.multipliers
                ).lagrangian_grad
            xp, held = namespace(force), one.active.fixed
            found.bound_multipliers[i, :] = xp.where(held, force, xp.zeros_like(force))
    return one.status


def _notes(one: Solution | str) -> tuple[str, ...]:
    return (one,) if isinstance(one, str) else one.warnings


def _collected(
    problem: Problem, X: Array, solutions: list[Solution | str], method: Any
) -> BatchSolution:
    """Return the solutions of members that were solved one by one as one record."""
    n, rows, dtype = getattr(problem.objective, "n", None) or 0, (0, 0), None
    for one in solutions:
        if isinstance(one, Solution):
            n, dtype = one.y.shape[0], one.y.dtype
            q = 0 if one.active is None else one.active.strong.shape[0]
            total = 0 if one.multipliers is None else one.multipliers.shape[0]
            rows = (total - q, q)
            if one.status is not None and one.status.acceptable:
                break
    found = _blank(problem, X, n, rows, dtype)
    status = [_fill(problem, found, i, one) for i, one in enumerate(solutions)]
    notes = [
        f"member {i}: {note}" for i, one in enumerate(solutions) for note in _notes(one)
    ]
    given = method if isinstance(method, str) else "one by one"
    names = [
        one.method or given if isinstance(one, Solution) else given for one in solutions
    ]
    return _finished(found, status, names, notes)


def _one_by_one(
    problem: Problem,
    X: Array,
    starts: Array | None,
    members: Any,
    options: dict[str, Any],
) -> list[Solution | str]:
    """Return each member's solution, or why there is none.

    An error that every member raises is raised: it is not about one x.
    """
    xp, found = namespace(X), list[Solution | str]()
    errors: list[Exception] = []
    for i in members:
        if bool(xp.any(xp.isnan(X[i, :]))):
            found.append("x has NaN entries")
            continue
        y0 = None if starts is None else starts[i, :]
        if y0 is not None and bool(xp.any(xp.isnan(y0))):
            y0 = None  # of a member that failed before
        try:
            found.append(solve(problem, X[i, :], y0, on_failure="ignore", **options))
        except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
            errors.append(error)
            found.append(str(error))
    if errors and len(errors) == X.shape[0]:
        raise errors[0]
    return found
