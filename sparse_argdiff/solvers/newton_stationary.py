"""Newton's method for a stationary point near y0: a minimum, a maximum or a saddle point.

    f_YY d = − f_Y  by MINRES,   y += α d,   ‖d̄ − (1 − α) d‖ ≤ ½ α ‖d‖,   f_YY d̄ = − f_Y(y + α d)

The test of the simplified step d̄ (Deuflhard's affine invariant damping) keeps the iterates
close to the Newton flow f_Y(y(s)) = (1 − s) f_Y(y0), which cannot cross a point where f_YY is
singular: from a neighbouring solution the iterates stay on its branch, and where the branch
ends the status says so.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from ..arrays import Array, epsilon, namespace, norm
from ..krylov import minres
from ..operators.linear_operator import LinearOperator
from ..problem.optimality import residual_scale
from ..problem.problem import Problem, Solution
from ..status import Status
from .line_search import Travel
from .newton_cg import NewtonIterate, asks_to_stop

logger = logging.getLogger(__name__)

_SHORTEST = 1e-8


def newton_stationary(
    problem: Problem,
    x: Array,
    y0: Array,
    *,
    tol: float = 1e-8,
    maxiter: int | None = None,
    callback: Callable[[NewtonIterate], Any] | None = None,
) -> Solution:
    """Solve f_Y(x, y) = 0 from y0 by damped Newton steps; no constraints.

    Parameters
    ----------
    tol : float
        Stop when ‖f_Y(x, y)‖₂ ≤ tol · scale, see
        :func:`sparse_argdiff.problem.optimality.residual_scale`.
    maxiter : int, optional
        Newton steps, 200 by default.

    Returns
    -------
    Solution
        With status ``BRANCH_ENDS`` where f_YY becomes singular on the way.

    References
    ----------
    P. Deuflhard, "Newton Methods for Nonlinear Problems", 2004, section 3.3 (NLEQ-RES,
    NLEQ-ERR: the natural monotonicity test and the prediction of α).
    """
    maxiter = 200 if maxiter is None else maxiter
    y = namespace(y0).asarray(y0, copy=True)
    grad = problem.grad(x, y)
    size, scale, n_hvp = norm(grad), math.nan, 0
    if math.isfinite(size):
        scale, n_hvp = residual_scale(problem, x, y)
        scale = scale or size
    niter, n_grad, alpha, a_norm = 0, 2, 1.0, 0.0
    notes: tuple[str, ...] = ()
    travel, status = Travel(), None
    while status is None:
        logger.debug("newton_stationary %d: |grad| %.3e, step %.1e", niter, size, alpha)
        now = NewtonIterate(niter, y, None, size, n_hvp)
        status = _stop(now, tol, scale, travel, callback, maxiter)
        if status is not None:
            break
        hess = problem.hess(x, y)
        notes = (hess.note,) if hess.note else ()
        rtol = max(min(1e-3, size / scale), 0.1 * tol * scale / size, epsilon(y))
        step = minres(hess, -grad, rtol=rtol)
        n_hvp, length = n_hvp + step.n_matvec, norm(step.x)
        a_norm = max(a_norm, size / length if length else 0.0)
        status = _broken(step.status, length)
        if status is not None:
            break
        rounding = 32.0 * epsilon(y) * (a_norm * norm(y) + scale)
        found = _damped(problem, x, y, hess, step.x, alpha, rounding)
        n_hvp, n_grad, alpha = n_hvp + found.n_hvp, n_grad + found.n_grad, found.alpha
        if found.y is None:
            status = _no_step(size, rounding, 1e-2 * a_norm * length)
            break
        niter += 1
        travel.step(norm(found.y - y))
        y, grad, before, size = found.y, found.grad, size, norm(found.grad)
        if max(size, before) <= rounding and size > 0.5 * before:
            status = Status.ROUNDING_LIMIT
    return Solution(
        y=y,
        x=x,
        value=float(problem.objective.value(x, y)) if problem.has_value else None,
        status=status,
        residual_norm=size,
        residual=grad,
        niter=niter,
        n_hvp=n_hvp,
        n_grad=n_grad,
        warnings=notes,
    )


def _stop(
    now: NewtonIterate,
    tol: float,
    scale: float,
    travel: Travel,
    callback: Callable[[NewtonIterate], Any] | None,
    maxiter: int,
) -> Status | None:
    """Return the status of an iterate at which the iteration ends, else None."""
    size = now.gradient_norm
    if not math.isfinite(size):
        return Status.NOT_FINITE
    if size <= tol * scale:
        endless = travel.is_endless(size / scale if scale else 0.0, now.y)
        return Status.UNBOUNDED if endless else Status.CONVERGED
    if asks_to_stop(callback, now):
        return Status.STOPPED_BY_CALLBACK
    return Status.ITERATION_LIMIT if now.niter >= maxiter else None


def _broken(status: Status, length: float) -> Status | None:
    """Return why a Newton step is of no use, None where it is."""
    if status in {Status.LEAST_SQUARES, Status.SINGULAR} or length == 0.0:
        return Status.BRANCH_ENDS
    return status if status is Status.NOT_FINITE else None


def _no_step(size: float, rounding: float, flat: float) -> Status:
    """Return why the damping found no step: rounding, a singular f_YY, or neither."""
    if size <= rounding:
        return Status.ROUNDING_LIMIT
    return Status.BRANCH_ENDS if size <= flat else Status.LINE_SEARCH_FAILED


class _Damped(NamedTuple):
    y: Any  # None where no step was accepted
    grad: Any
    alpha: float  # to try next
    n_hvp: int
    n_grad: int


def _damped(
    problem: Problem,
    x: Array,
    y: Array,
    hess: LinearOperator,
    d: Array,
    alpha: float,
    rounding: float,
) -> _Damped:
    """Shorten the step from α d on until the simplified step agrees with it."""
    length, n_hvp, n_grad = norm(d), 0, 0
    while alpha >= _SHORTEST:
        point = y + alpha * d
        grad = problem.grad(x, point)
        size, n_grad = norm(grad), n_grad + 1
        if not math.isfinite(size):
            alpha *= 0.1
            continue
        if size <= rounding:
            return _Damped(point, grad, 1.0, n_hvp, n_grad)
        simplified = minres(hess, -grad, rtol=1e-3)
        n_hvp += simplified.n_matvec
        change = norm(simplified.x - (1.0 - alpha) * d)
        # The α at which the flow has turned by as much as the step is long.
        best = 0.5 * alpha**2 * length / change if change > 0.0 else 1.0
        if change <= 0.5 * alpha * length:
            alpha = best if best < 0.5 else 1.0
            return _Damped(point, grad, alpha, n_hvp, n_grad)
        alpha = min(0.5 * alpha, best)
    return _Damped(None, None, alpha, n_hvp, n_grad)
