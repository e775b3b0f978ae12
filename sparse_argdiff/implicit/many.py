"""Products with the derivatives of many solutions of one problem.

    row i   g'(x_i)ᵀ v_i,   g'(x_i) u_i

Small quadratic programs whose active sets are strict and whose conditions are regular are differentiated
together (``stacked_derivative``); every other member by ``vjp`` and ``jvp``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Unpack

import numpy as np

from ..arrays import Array, as_floating, check_on_failure, epsilon, full, namespace
from ..arrays.transfer import to_host
from ..problem.batch_solution import BatchSolution, named
from ..problem.problem import Problem, Solution
from ..problem.stacked_parameters import StackedParameters, stacked_parameters
from ..problem.stacked_point import point_of, seeds_of_rows
from ..problem.stacked_quadratic import stack_size
from ..status import (
    ConvergenceError,
    ConvergenceWarning,
    OnFailure,
    Status,
)
from .checked_solve import SolveOptions
from .derivative import jvp, vjp
from .stacked_derivative import StackedDerivative

# Relative residual of the conditions up to which a point is a solution.
_ACCURATE = 1e-9


def vjp_many(
    problem: Problem,
    solutions: BatchSolution | Sequence[Solution],
    V: Any,
    *,
    multipliers: Any = None,
    **options: Unpack[SolveOptions],
) -> Array:
    """Return g'(x_i)ᵀ v_i for each member, with everything that is shared done once.

    Parameters
    ----------
    problem : Problem
    solutions : BatchSolution, or a sequence of Solution
        From :func:`solve_many`, or from anywhere.
    V : array (k, n)
        A row for each member, such as ∇_y of a loss of it.
    multipliers : array (k, p + q), optional
        Seeds for the multipliers, where a loss depends on them.
    **options
        Those of :func:`derivative`.  ``on_failure`` is "warn" by default: members without a
        solution or without a derivative are named in a warning.

    Returns
    -------
    array (k, m)
        Derivatives by the members' own x; the derivative by an x that all share is their sum.
        Rows of members that are named in the warning are NaN.

    Raises
    ------
    ConvergenceError
        With ``on_failure="raise"``.
    ValueError, TypeError
        For wrong arguments.
    """
    given = _checked(problem, solutions, options)
    V = _seeds("V", V, given.k, given.n)
    if multipliers is not None:
        multipliers = _seeds("multipliers", multipliers, given.k, None)
        given = given._replace(unique=True)

    def together(one: _Stack, rows: slice) -> Array:
        seed = None if multipliers is None else multipliers[rows, :]
        parts: tuple[Any, ...] = ()
        if seed is not None:
            parts = seeds_of_rows(one.parameters, one.point, one.clean(seed))
        found = one.derivative.adjoint(one.clean(V[rows, :]), *parts)
        return one.parameters.pulled(one.point, found, V)

    def alone(i: int, solution: Solution) -> Any:
        seed = None if multipliers is None else multipliers[i, :]
        return vjp(problem, solution, V[i, :], multipliers=seed, **given.options)

    return _by_members(given, V, given.m, together, lambda i, s: _x_of(alone(i, s)))


def jvp_many(
    problem: Problem,
    solutions: BatchSolution | Sequence[Solution],
    U: Any,
    **options: Unpack[SolveOptions],
) -> Array:
    """Return g'(x_i) u_i for each member.

    Parameters
    ----------
    problem, solutions, **options
        Those of :func:`vjp_many`.
    U : array (k, m)
        A direction in the parameters for each member.

    Returns
    -------
    array (k, n)
        Rows of members that are named in the warning are NaN.

    Raises
    ------
    ConvergenceError, ValueError, TypeError
        As for :func:`vjp_many`.
    """
    given = _checked(problem, solutions, options)
    U = _seeds("U", U, given.k, given.m)

    def together(one: _Stack, rows: slice) -> Array:
        change = one.parameters.change(one.clean(U[rows, :]))
        dy, *_ = one.derivative.tangent(change)
        return namespace(U).astype(dy, U.dtype)

    def alone(i: int, solution: Solution) -> Any:
        found = jvp(problem, solution, U[i, :], **given.options)
        return found.y, found.warnings

    return _by_members(given, U, given.n, together, alone)


def _x_of(found: Any) -> tuple[Array, tuple[str, ...]]:
    return found.x, found.warnings


class _Given(NamedTuple):
    """Checked arguments."""

    problem: Problem
    solutions: Any
    k: int
    n: int
    m: int
    on_failure: OnFailure
    options: dict[str, Any]  # of a member by itself, which raises
    unique: bool = False  # whether adjoints of multipliers must be


def _checked(problem: Any, solutions: Any, options: Any) -> _Given:
    if not isinstance(problem, Problem):
        raise TypeError(f"problem must be a Problem, found {type(problem).__name__}")
    on_failure = options.get("on_failure", "warn")
    check_on_failure(on_failure)
    alone = {**options, "on_failure": "raise"}
    if isinstance(solutions, BatchSolution):
        k, (n, m) = len(solutions), (solutions.y.shape[1], solutions.x.shape[1])
        return _Given(problem, solutions, k, n, m, on_failure, alone)
    members = list(solutions) if isinstance(solutions, list | tuple) else None
    if not members or not all(isinstance(one, Solution) for one in members):
        raise TypeError(
            "solutions must be a BatchSolution, or a list of Solution that is not empty, "
            f"found {type(solutions).__name__}"
        )
    n, m = members[0].y.shape[0], members[0].x.shape[0]
    return _Given(problem, members, len(members), n, m, on_failure, alone)


def _seeds(name: str, given: Any, k: int, size: int | None) -> Array:
    """Return a checked array with a row for each member."""
    given = as_floating(name, given, ndim=(2,))
    if given.shape[0] != k or size not in {None, given.shape[1]}:
        expected = f"({k}, {'p + q' if size is None else size})"
        raise ValueError(
            f"{name} must have shape {expected}, found {tuple(given.shape)}"
        )
    return given


class _Stack:
    """Members that are linearised together, and which of them may not be after all.

    ``unique``: whether the adjoints of rows that depend on each other must be unique.
    """

    def __init__(
        self,
        parameters: StackedParameters,
        solutions: BatchSolution,
        members: slice,
        *,
        unique: bool,
    ) -> None:
        X, active = solutions.x[members, :], solutions.active
        xp = namespace(X)
        data = parameters.stacked(X).widened(X.shape[0])
        self.parameters = parameters
        self.point = point_of(parameters, data, solutions, members)
        # What failed is linearised as well, and not looked at.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            self.derivative = StackedDerivative(data, self.point)
            least = max(_ACCURATE, 128.0 * epsilon(solutions.y))
            close = self.derivative.error() <= least
            moves = unique or not parameters.rows_stay
            regular = self.derivative.regular if moves else self.derivative.isolated
        sound = solutions.converged[members] & regular & close
        if active is not None:
            weak = xp.any(active.weak[members, :], axis=1)
            sound = sound & ~(weak | xp.any(active.weak_fixed[members, :], axis=1))
        self.sound = sound

    def clean(self, seeds: Array) -> Array:
        """Return seeds in double precision, zero where they are not finite."""
        xp = namespace(seeds)
        seeds = xp.astype(seeds, xp.float64)
        return xp.where(xp.isfinite(seeds), seeds, xp.zeros_like(seeds))


def _by_members(
    given: _Given,
    seeds: Array,
    size: int,
    together: Callable[[_Stack, slice], Array],
    alone: Callable[[int, Solution], tuple[Array, tuple[str, ...]]],
) -> Array:
    """Return a row for each member: from its stack where it is sound, else by itself."""
    xp, k = namespace(seeds), given.k
    found = full((k, size), math.nan, seeds)
    left = list(range(k))
    solutions, wrong = given.solutions, ~xp.all(xp.isfinite(seeds), axis=1)
    parameters = stacked_parameters(given.problem)
    plain = not set(given.options) - {"on_failure"}
    if plain and parameters is not None and isinstance(solutions, BatchSolution):
        left = []
        stack = stack_size(*parameters.shape)
        for first in range(0, k, stack):
            rows = slice(first, min(first + stack, k))
            one = _Stack(parameters, solutions, rows, unique=given.unique)
            sound = one.sound & ~wrong[rows]
            values = together(one, rows)
            nan = xp.full_like(values, xp.nan)
            found[rows, :] = xp.where(sound[:, None], values, nan)
            left += [first + int(i) for i in np.flatnonzero(to_host(~sound))]
    failed: dict[str, list[int]] = {}
    notes: dict[str, list[int]] = {}
    error: ConvergenceError | None = None
    for i in left:
        solution = solutions[i]
        if solution.status is not None and not solution.status.acceptable:
            failed.setdefault(f"has no solution ({solution.status.name})", []).append(i)
            continue
        try:
            row, caveats = alone(i, solution)
        except ConvergenceError as raised:
            error = error or raised
            failed.setdefault(f"has no derivative ({raised.status.name})", []).append(i)
            continue
        found[i, :] = row
        for note in caveats:
            notes.setdefault(note, []).append(i)
    _report(given, failed, notes, error)
    return found


def _report(
    given: _Given,
    failed: dict[str, list[int]],
    notes: dict[str, list[int]],
    error: ConvergenceError | None,
) -> None:
    """Raise or warn about members without a derivative, and pass on caveats."""
    if given.on_failure == "ignore":
        return
    if failed:
        detail = "; ".join(f"{named(index)} {why}" for why, index in failed.items())
        message = f"differentiating {given.k} members: {detail}; their rows are NaN"
        if given.on_failure == "raise":
            status = error.status if error else Status.NOT_STATIONARY
            raise ConvergenceError(message, status, given.solutions) from error
        warnings.warn(message, ConvergenceWarning, stacklevel=4)
    for note, index in notes.items():
        warnings.warn(f"{named(index)}: {note}", ConvergenceWarning, stacklevel=4)
