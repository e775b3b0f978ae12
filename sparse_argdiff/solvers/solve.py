"""Solve the lower-level problem, by a method that its constraints determine.

    y = argmin_y f(x, y)   s.t.   the constraints of the problem

``solve`` checks the arguments, calls the method and reports its status; each method has
a file of its own.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

from ..arrays import (
    Array,
    as_count,
    as_tolerance,
    as_vector,
    check_callable,
    check_finite,
    check_on_failure,
    copied_vector,
    epsilon,
    namespace,
    zeros,
)
from ..preconditioners import Choice
from ..problem.bounds import crossing
from ..problem.optimality import is_as_left
from ..problem.problem import Problem, Solution
from ..problem.quadratic import QuadraticObjective
from ..problem.stationarity_check import check_conditions
from ..status import NoSolutionError, OnFailure, Status, raise_or_warn, warn_poor
from .active_set import active_set
from .box import is_box
from .engines import ENGINES, engine_for
from .interior_point.barrier import barrier
from .newton_by_parts import newton_by_parts, parts_of
from .newton_cg import newton_cg
from .newton_kkt import newton_kkt
from .projected_newton import projected_newton
from .proximal_newton import proximal_newton
from .stopping import Callback, NewtonIterate

LowerSolver = Callable[[Problem, Array, Array, float], Solution]


def solve(
    problem: Problem,
    x: Any,
    y0: Any = None,
    *,
    method: str | LowerSolver | None = None,
    tol: float = 1e-8,
    maxiter: int | None = None,
    callback: Callable[[NewtonIterate], Any] | None = None,
    M: Any = "auto",
    on_failure: OnFailure = "raise",
) -> Solution:
    """Solve min_y f(x, y), or max_y, where the constraints hold.

    Parameters
    ----------
    problem : Problem
    x : array (m,)
        Parameters.
    y0 : array (n,) or Solution, optional
        Start; zeros where the objective knows its ``n``.  It is not modified.  Of a quadratic
        program a Solution at a neighbouring x is tried with its multipliers, active set and
        factor: where the set is the same no matrix is factorised.
    method : str or callable, optional
        "newton_cg" without constraints (the default there): a minimum or maximum.
        "newton_kkt" with equalities alone (the default there), by Newton on the
        optimality conditions; without constraints, any nondegenerate stationary point
        near y0, which is followed along a path of x and whose end is said.
        "active_set" with inequalities or bounds (the default there): a point where the
        active ones hold exactly.  "barrier": the path of the logarithmic barrier, to
        within the gap.  Both are meant for convex problems: of others they find a local
        minimum or say that f is not convex.  Where Hessian and Jacobians are explicit
        they factorise on the host.  "projected_newton" for a large convex f in a box with at
        most one linear equality (the default for a ``SupportVector``): Newton on the
        variables that no bound holds.  "proximal_newton" with a penalty that has kinks (the
        default there).
        A callable is called as ``method(problem, x, y0, tol)`` and returns a
        ``Solution``; without a status it is checked to ``tol`` here.
    tol : float
        Relative error of y that is asked for, in the metric of the Hessian: stop when
        the Newton step that is left is ≤ tol · min(‖y‖, ρ), with the length ρ over
        which the Hessian is constant.  Neither the units of f and y nor the start change
        its meaning; violations of constraints are lengths in the same metric.
    maxiter : int, optional
        Iterations.
    callback : callable, optional
        Called with the iterate, 0 included; a true value or ``StopIteration`` stops.
    M : operator, "auto", function or None
        Preconditioner of the steps of "newton_cg", see :class:`preconditioners.Auto`; a function
        takes f_YY and returns M ≈ f_YY⁻¹.
    on_failure : {"raise", "warn", "ignore"}
        What to do when the tolerance is not met.

    Returns
    -------
    Solution

    Raises
    ------
    ConvergenceError
        With the best point so far in its ``result``: ``INFEASIBLE`` names the constraints
        that contradict each other, ``UNBOUNDED`` says that f falls forever, and so on.
    ValueError, TypeError
        For wrong arguments, and for a start outside the domain of a ``LogBarrier``.
    """
    check_on_failure(on_failure)
    if not isinstance(problem, Problem):
        raise TypeError(f"problem must be a Problem, found {type(problem).__name__}")
    x = copied_vector("x", x)
    start = y0 if isinstance(y0, Solution) else None
    y0 = _start(problem, x, y0 if start is None else start.y)
    tol = as_tolerance("tol", tol)
    check_callable(callback=callback)
    if maxiter is not None:
        maxiter = as_count("maxiter", maxiter)
    if callback is not None and not callable(callback):
        raise TypeError(
            f"callback must be callable or None, found {type(callback).__name__}"
        )
    check_parameters = getattr(problem.objective, "check_parameters", None)
    if callable(check_parameters):
        check_parameters(x)
    refused = _without_room(problem, x, y0)
    if refused is not None:
        solution = refused
    elif callable(method):
        solution = _by_callable(method, problem, x, y0, tol)
    else:
        options: dict[str, Any] = {"maxiter": maxiter, "callback": callback}
        if method is None:
            method = _default(problem)
        elif method in ENGINES:
            options["pivoting"] = False
        if start is not None and method in {"active_set", *ENGINES}:
            options["start"] = start
        if method in {"newton_cg", "proximal_newton"}:
            options["M"] = M
        solution = _by_name(method, problem, x, y0, tol, options)
        if not solution.method:
            solution = dataclasses.replace(solution, method=method)
    solution = _with_finite_value(solution)
    _report(problem, solution, on_failure)
    return solution


def _with_finite_value(solution: Solution) -> Solution:
    """Return a solution whose value is finite, or not for one."""
    value, status = solution.value, solution.status
    if value is None or math.isfinite(value) or not (status and status.acceptable):
        return solution
    note = f"objective.value is {value} at the solution"
    notes = (*solution.warnings, note)
    return dataclasses.replace(solution, status=Status.NOT_FINITE, warnings=notes)


def _without_room(problem: Problem, x: Array, y0: Array) -> Solution | None:
    """Return what failed where bounds that depend on x are NaN or cross there."""
    if not problem.bounds_move:
        return None
    lower, upper = problem.bounds(x, y0)
    crossed = crossing(lower, upper)
    if not crossed:
        return None
    xp = namespace(y0)
    finite = not bool(xp.any(xp.isnan(lower) | xp.isnan(upper)))
    status = Status.INFEASIBLE if finite else Status.NOT_FINITE
    return Solution(y=y0, x=x, status=status, warnings=(crossed,))


def _by_callable(
    method: LowerSolver, problem: Problem, x: Array, y0: Array, tol: float
) -> Solution:
    """Return what the caller's method returns, with a status."""
    solution = method(problem, x, y0, tol)
    if not isinstance(solution, Solution):
        raise TypeError(
            f"method must return a Solution, found {type(solution).__name__}"
        )
    same = solution.x.shape == x.shape and bool(
        namespace(x, solution.x).all((solution.x == x) | namespace(x).isnan(x))
    )
    if not same:
        raise ValueError("method must return a Solution of the x that it was given")
    status = solution.status
    failed = status is not None and not status.acceptable
    known = failed or (status is not None and is_as_left(problem, solution))
    return solution if known else _judged(problem, solution, tol)


def _by_name(
    method: str,
    problem: Problem,
    x: Array,
    y0: Array,
    tol: float,
    options: dict[str, Any],
) -> Solution:
    if method not in _METHODS:
        known = ", ".join(repr(name) for name in _METHODS)
        raise ValueError(
            f"method must be one of {known} or a callable, found {method!r}"
        )
    if (method == "proximal_newton") is not problem.nonsmooth:
        raise ValueError(
            "method 'proximal_newton' is for a penalty with kinks, which this problem "
            f"{'has' if problem.nonsmooth else 'lacks'}, and the only one for it; use "
            f"{_default(problem)!r}, found {method!r}"
        )
    if method == "newton_cg" and problem.constrained:
        raise ValueError(
            "method 'newton_cg' knows no constraints, and this problem has some; "
            f"use {_default(problem)!r}"
        )
    return _METHODS[method](problem, x, y0, tol=tol, **options)


def _report(problem: Problem, solution: Solution, on_failure: OnFailure) -> None:
    """Raise or warn where the solution's status asks for it."""
    if solution.status is None or solution.status is Status.CONVERGED:
        return
    size = solution.residual_norm
    what = "the residual of the conditions" if problem.constrained else "‖f_Y‖"
    detail = (
        f"after {solution.niter} iterations and {solution.n_hvp} Hessian products"
        + ("." if size is None else f" {what} is {size:.2e}.")
        + "".join(f" {note[0].upper()}{note[1:]}." for note in solution.warnings)
    )
    raise_or_warn(
        solution.status,
        solution,
        "the lower-level solve",
        detail,
        on_failure,
        solution.n_hvp,
    )
    error = solution.relative_error
    half = math.sqrt(epsilon(solution.y))
    if solution.status is Status.ROUNDING_LIMIT and not (error or 0.0) <= half:
        warn_poor(
            f"the lower-level solve ended at the rounding limit {detail} The error of y "
            f"that is left is {error:.1e} of its size. {solution.status.value}",
            on_failure,
        )


def _newton_cg(
    problem: Problem,
    x: Array,
    y0: Array,
    *,
    callback: Callback | None,
    M: Any,
    **options: Any,
) -> Solution:
    """Minimise the whole, or each part of a sum of independent functions by itself."""
    if hasattr(problem.objective, "parts"):
        parts = parts_of(problem, M, callback)
        if parts is not None:
            return newton_by_parts(problem, parts, x, y0, choice=Choice(M), **options)
    return newton_cg(problem, x, y0, callback=callback, M=M, **options)


_METHODS: dict[str, Callable[..., Solution]] = {
    "newton_cg": _newton_cg,
    "newton_kkt": newton_kkt,
    "barrier": barrier,
    "active_set": active_set,
    "proximal_newton": proximal_newton,
    **{engine: functools.partial(active_set, engine=engine) for engine in ENGINES},
    "projected_newton": projected_newton,
}


def _default(problem: Problem) -> str:
    if problem.nonsmooth:
        return "proximal_newton"
    quadratic = isinstance(problem.objective, QuadraticObjective)
    engine = engine_for(problem) if quadratic else None
    if engine is not None:
        return engine
    if problem.inequalities is not None or problem.bounded:
        known = callable(getattr(problem.objective, "hess_entries", None))
        return "projected_newton" if known and is_box(problem) else "active_set"
    return "newton_cg" if problem.equalities is None else "newton_kkt"


def _judged(problem: Problem, solution: Solution, tol: float) -> Solution:
    """Return the solution of a method that does not say how it ended, with a status."""
    least = 1e2 * epsilon(solution.y)  # what rounding leaves of a gradient
    found = check_conditions(problem, solution, max(tol, least), "tol")
    notes = (found.detail.rstrip("."),) if found.detail else ()
    return dataclasses.replace(
        found.solution,
        status=found.status,
        residual_norm=found.residual_norm,
        n_hvp=solution.n_hvp + found.n_hvp,
        n_grad=solution.n_grad + 2,
        warnings=(*solution.warnings, *notes),
    )


def _start(problem: Problem, x: Array, y0: Any) -> Array:
    n = getattr(problem.objective, "n", None)
    if y0 is not None:
        y0 = as_vector("y0", y0, n)
        namespace(x, y0)
        check_finite("y0", y0)
        return _without_fixed(problem, x, _inside(problem, x, y0))
    if n is None:
        raise ValueError(
            "y0 is needed: the objective does not know n, the size of y; pass y0=..., "
            "or give the objective an attribute n"
        )
    dtype = getattr(problem.objective, "dtype", None) or x.dtype
    start = _inside(problem, x, zeros(n, x, dtype))
    return _without_fixed(problem, x, start)


def _without_fixed(problem: Problem, x: Array, y0: Array) -> Array:
    """Return the start with zeros where an objective has entries of y that x fixes at 0.

    Its ``fixed(x)`` is the mask.  Gradient and Hessian do not couple them to the others:
    they stay zero in each step.
    """
    fixed = problem.fixed(x)
    if fixed is None:
        return y0
    if problem.constrained:
        raise NoSolutionError(
            "coefficients of infinite weight are fixed at 0, which constraints may "
            "contradict; leave these features out, or bound x",
            Status.INFEASIBLE,
            None,
        )
    return namespace(y0).where(fixed, namespace(y0).zeros_like(y0), y0)


def _inside(problem: Problem, x: Array, y0: Array) -> Array:
    """Refuse a start outside the domain, where the objective can name what is violated."""
    outside = getattr(problem.objective, "outside", None)
    complaint = outside(x, y0) if callable(outside) else ""
    if complaint:
        raise ValueError(
            f"y0 must be strictly feasible, found one where {complaint}; "
            "solve(problem, x, method='barrier') of the original problem finds a start"
        )
    return y0
