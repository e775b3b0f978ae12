"""Proximal Newton for f + Ω: Newton's method on the support, found by proximal steps.

    y⁺ = prox(y − t D⁻¹ f_Y),   D = diag f_YY              the support S of y⁺
    (f_YY + Ω_YY)_SS d = − (f_Y + Ω_Y)_S                   Newton-CG there

By products (``on_supports.py``); where columns are explicit and the penalty is one of norms,
quadratic models on a working set take the place of both (``working_set.py``).  A proximal step
lowers f + Ω, and so does each Newton step; near a solution that is not degenerate the support
stands, and the iteration is Newton's.  Linear equalities: ``augmented_lagrangian.py``.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from typing import Any

from ..arrays import Array, copied, epsilon, namespace, norm, zeros
from ..problem.active_constraints import classify_in
from ..problem.metric import Metric, metric_of
from ..problem.optimality import conditions
from ..problem.problem import Problem, Solution
from ..status import Status
from .augmented_lagrangian import AugmentedLagrangian
from .continuation import on_columns
from .duality import Gap, duality_gap
from .on_supports import OnSupports, within
from .stopping import Callback, StoppingTest
from .working_set import PathEnd, has_columns

logger = logging.getLogger(__name__)


def proximal_newton(
    problem: Problem,
    x: Array,
    y0: Array,
    *,
    tol: float = 1e-8,
    maxiter: int | None = None,
    callback: Callback | None = None,
    M: Any = "auto",
) -> Solution:
    """Minimise f(x, ·) + Ω(x, ·) from y0, within bounds and where A y = b.

    Parameters
    ----------
    tol : float
        Stop when the Newton step on the support that is left, and the forces off it that
        exceed what the kinks hold, are ≤ tol of the length of y in the metric of f_YY, and
        the duality gap, where the dual is known, is ≤ tol of f + Ω.
    maxiter : int, optional
        Iterations, 200 by default.
    M : operator, "auto", function or None
        Preconditioner of Newton-CG on the support; a function is given f_YY + Ω_YY there.

    Returns
    -------
    Solution
        Its ``support`` says what is known of the zeros in y, its ``active`` which of them are
        about to enter; nothing is raised for numerical trouble.

    References
    ----------
    J. D. Lee, Y. Sun, M. A. Saunders, SIAM J. Optim. 24 (2014) 1420-1443.
    F. E. Curtis, D. P. Robinson, IMA J. Numer. Anal. 39 (2019) 1170-1200 (reduced space).
    E. Ndiaye, O. Fercoq, A. Gramfort, J. Salmon, J. Mach. Learn. Res. 18 (2017) 128 (what
    the gap proves).
    """
    y = start_of(problem, x, y0)
    ended = _separately(problem, x, y, tol, maxiter, callback)
    if math.isnan(problem.penalty.value(x, namespace(y).ones_like(y))):
        rows = problem.equalities
        none = None if rows is None else math.nan * rows.value(x, y)
        ended = PathEnd(y, Status.NOT_FINITE, multipliers=none)
        return as_solution(problem, x, ended, tol)
    test = StoppingTest(tol, maxiter, callback)
    if ended is None and problem.equalities is not None:
        ended = AugmentedLagrangian(problem, x, test, M).run(y)
    if ended is None and has_columns(problem, x, y):
        ended = on_columns(problem, x, y, tol, maxiter, callback)
    if ended is None:
        ended = OnSupports(problem, x, tol, maxiter, callback, M).run(y)
    return as_solution(problem, x, ended, tol)


def _separately(
    problem: Problem,
    x: Array,
    y: Array,
    tol: float,
    maxiter: int | None,
    callback: Callback | None,
) -> PathEnd | None:
    """Return the end of several problems that do not meet, such as folds; None of one."""
    objective: Any = problem.objective
    separate = getattr(objective, "separate", None)
    if not callable(separate) or problem.bounded or problem.equalities is not None:
        return None
    parts = separate() if problem.penalty is objective.penalty else []
    if not parts or not has_columns(parts[0][0], x[parts[0][1]], y[parts[0][2]]):
        return None
    y, ended = copied(y), None
    for part, of_x, of_y in parts:
        start = start_of(part, x[of_x], y[of_y])
        found = on_columns(part, x[of_x], start, tol, maxiter, callback)
        if found is None:
            return None
        y[of_y] = found.y
        ended = found if ended is None else ended.with_another(found)
    assert ended is not None
    return dataclasses.replace(ended, y=y)


def start_of(problem: Problem, x: Array, y0: Array) -> Array:
    """Return a start within the bounds, zero where the penalty excludes a coefficient."""
    xp = namespace(y0)
    y0 = within(problem, x, y0)
    return xp.where(problem.penalty.support(x, y0), y0, xp.zeros_like(y0))


def as_solution(problem: Problem, x: Array, ended: PathEnd, tol: float) -> Solution:
    """Return the record of a point, with what is known of its support."""
    y, status = ended.y, ended.status
    n_grad, multipliers = ended.n_grad + 1, ended.multipliers
    if multipliers is None:
        multipliers = zeros((0,), y)
    found = conditions(problem, x, y, multipliers)
    finite = math.isfinite(norm(found.grad))
    n_hvp = ended.n_hvp
    metric = Metric(namespace(y).ones_like(y))
    if finite:
        metric, products = metric_of(problem.hess(x, y), y, found.grad)
        n_hvp += products
        assert found.kinks is not None
        tiny = found.kinks.rounding_of_zero(metric, y)
        if bool(namespace(y).any(tiny)):
            y, n_grad = namespace(y).where(tiny, 0.0 * y, y), n_grad + 1
            ended = dataclasses.replace(ended, gap=None)
            found = conditions(problem, x, y, multipliers)
    total = None
    notes = (*ended.notes, *excluded(problem, x, y))
    active, label, gap = None, "not settled", None
    xp = namespace(y)
    if finite:
        active = classify_in(problem, x, y, found, multipliers, metric)
        label = "not settled" if active.degenerate else "estimated"
        dual = ended.gap or duality_gap(problem, x, y)
        if dual is not None:
            gap = dual.gap
            proven = bool(xp.all(dual.zero | ~active.fixed)) and dual.unique
            label = "proven" if proven and not active.degenerate else label
            status = status_by_gap(status, dual, tol, math.sqrt(epsilon(y)))
    if ended.singular or not status.acceptable:
        label = "not settled"
    if problem.has_value:
        total = problem.total(x, y)
        total = -total if problem.maximize else total
    fixed = ~problem.penalty.support(x, y) if active is None else active.fixed
    free = xp.where(fixed, xp.zeros_like(y), found.lagrangian_grad)
    residual = xp.concat([free, found.equality])
    assert found.kinks is not None
    over = norm(found.kinks.excess(Metric(xp.ones_like(y))))
    return Solution(
        y=y,
        x=x,
        value=total,
        multipliers=multipliers,
        active=active,
        status=status,
        residual_norm=math.hypot(norm(residual), over),
        relative_error=ended.relative_error,
        residual=residual,
        niter=ended.niter,
        n_hvp=n_hvp,
        n_grad=n_grad,
        warnings=notes,
        gap=gap,
        support=label,
    )


def status_by_gap(status: Status, dual: Gap, tol: float, most: float) -> Status:
    """Return the status that a duality gap leaves, of rounding ``most`` of f + Ω."""
    if status is Status.CONVERGED and not dual.closes(tol):
        return Status.ROUNDING_LIMIT if dual.is_rounding else Status.STAGNATED
    if status is Status.ROUNDING_LIMIT and not dual.closes(most):
        return Status.STAGNATED
    return status


def excluded(problem: Problem, x: Array, y: Array) -> tuple[str, ...]:
    """Return a note that names the coefficients of infinite weight."""
    xp = namespace(y)
    out = ~problem.penalty.support(x, xp.ones_like(y))
    if not bool(xp.any(out)):
        return ()
    if bool(xp.all(out)):
        return ("all coefficients have infinite weights: y = 0, with derivative zero",)
    (index,) = xp.nonzero(out)
    names = ", ".join(str(int(index[k])) for k in range(min(5, index.shape[0])))
    more = ", ..." if index.shape[0] > 5 else ""
    return (
        f"coefficients of infinite weight are zero, with derivative zero: {names}{more}",
    )
