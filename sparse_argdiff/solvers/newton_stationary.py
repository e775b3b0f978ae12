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
from ..problem.problem import Problem, Solution
from ..status import Status
from .newton_cg import NewtonIterate, stopping_test

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
    y = namespace(y0).asarray(y0, copy=True)
    grad = problem.grad(x, y)
    size = norm(grad)
    test, n_grad, n_hvp = stopping_test(problem, x, y, size, tol, maxiter, callback)
    n_grad, niter, alpha, a_norm = n_grad + 1, 0, 1.0, 0.0
    notes: tuple[str, ...] = ()
    while True:
        logger.debug("newton_stationary %d: |grad| %.3e, step %.1e", niter, size, alpha)
        status = test.status(NewtonIterate(niter, y, None, size, n_hvp))
        if status is not None:
            break
        hess = problem.hess(x, y)
        notes = (hess.note,) if hess.note else ()
        rtol = max(min(1e-3, size / test.scale), 0.1 * test.target / size, epsilon(y))
        step = minres(hess, -grad, rtol=rtol)
        n_hvp, length = n_hvp + step.n_matvec, norm(step.x)
        a_norm = max(a_norm, size / length if length else 0.0)
        if step.status in {Status.LEAST_SQUARES, Status.SINGULAR} or length == 0.0:
            status = Status.BRANCH_ENDS
            break
        if step.status is Status.NOT_FINITE:
            status = step.status
            break
        rounding = test.rounding_level(a_norm, y)
        found = _damped(problem, x, y, hess, step.x, alpha, rounding)
        n_hvp, n_grad, alpha = n_hvp + found.n_hvp, n_grad + found.n_grad, found.alpha
        if found.y is None:
            status = _no_step(size, rounding, 1e-2 * a_norm * length)
            break
        niter += 1
        test.record_step(norm(found.y - y))
        y, grad, before, size = found.y, found.grad, size, norm(found.grad)
        if max(size, before) <= rounding and size > 0.5 * before:
            status = Status.ROUNDING_LIMIT
            break
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
