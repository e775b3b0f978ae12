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
    copied,
    full,
    namespace,
    zeros,
)
from ..problem.batch_solution import BatchSolution, named
from ..problem.optimality import conditions
from ..problem.problem import ActiveSet, Problem, Solution
from ..problem.stacked_parameters import StackedParameters, stacked_parameters
from ..status import OnFailure, Status, check_on_failure, raise_or_warn
from .batched.solve_stack import StackedSolutions, solve_stack, stack_size
from .solve import LowerSolver, solve

_BATCHED = "batched"


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
    Y0 : array (k, n) or (n,), optional
        Starts, or one for all; those of members that are solved one after another.
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
    if parameters is not None:
        found = _together(problem, parameters, X, starts, tol, maxiter)
    else:
        one_by_one = _one_by_one(
            problem, X, starts, range(X.shape[0]), method=method, tol=tol, maxiter=maxiter
        )
        found = _collected(problem, X, one_by_one)
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
    raise_or_warn(
        status, found, f"solving {named(index)} of {len(found)}", f"{detail}.", on_failure
    )


def _together(
    problem: Problem,
    parameters: StackedParameters,
    X: Array,
    starts: Array | None,
    tol: float,
    maxiter: int | None,
) -> BatchSolution:
    """Solve quadratic programs in stacks, and what is left one by one."""
    parameters.named.check_x(X[0, :] if X.shape[0] else zeros((X.shape[1],), X))
    k, parts = X.shape[0], []
    size = stack_size(parameters.stacked(X[:1, :])) if k else 1
    for first in range(0, k, size):
        rows = X[first : first + size, :]
        data = parameters.stacked(rows)
        parts.append(_of_stack(parameters, data.widened(rows.shape[0]), rows))
    if not parts:
        return _empty(problem, parameters, X)
    found = parts[0] if len(parts) == 1 else _concatenated(parts)
    left = [i for i, status in enumerate(found.status) if status is None]
    if left:
        alone = _one_by_one(problem, X, starts, left, method=None, tol=tol, maxiter=maxiter)
        found = _with_members(problem, found, left, alone)
    return found


def _of_stack(parameters: StackedParameters, data: Any, X: Array) -> BatchSolution:
    """Return one stack's solutions as the record of the problem."""
    xp, found = namespace(X), solve_stack(data)
    multipliers, strong, weak = _in_rows_of_problem(parameters, found)
    Py = data.gradient(found.y) + data.q
    value = parameters.sign * 0.5 * xp.sum(found.y * Py, axis=1)
    y = xp.astype(found.y, parameters.named.constant.q.dtype)
    good = xp.asarray([status is Status.CONVERGED for status in found.status])
    return BatchSolution(
        y=y,
        x=X,
        value=value,
        multipliers=multipliers,
        bound_multipliers=found.bounds if parameters.bounded else None,
        active=ActiveSet(strong, weak, found.held.bounds != 0, found.weak_bounds),
        status=tuple(found.status),  # type: ignore[arg-type]
        converged=good,
        error=found.error,
        niter=found.niter,
        method=(_BATCHED,) * X.shape[0],
    )
