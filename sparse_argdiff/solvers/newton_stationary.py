"""Any nondegenerate stationary point near y0: a minimum, a maximum or a saddle point.

    f_YY d = − f_Y  by MINRES,   y += α d,   ‖d̄ − (1 − α) d‖ ≤ ½ α ‖d‖,   f_YY d̄ = − f_Y(y + α d)

The test of the simplified step d̄ (Deuflhard's affine invariant damping) keeps the iterates
close to the Newton flow f_Y(y(s)) = (1 − s) f_Y(y0), which cannot cross a point where f_YY is
singular: from a neighbouring solution the branch is not left, and its end is noticed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

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
    size = norm(grad)
    scale, n_hvp = math.nan, 0
    if math.isfinite(size):
        scale, n_hvp = residual_scale(problem, x, y)
        scale = scale or size
    status: Status | None = None
    niter, n_grad, alpha, a_norm = 0, 2, 1.0, 0.0
    notes: tuple[str, ...] = ()
    travel = Travel()
    while status is None:
        logger.debug("newton_stationary %d: |grad| %.3e, step %.1e", niter, size, alpha)
        if not math.isfinite(size):
            status = Status.NOT_FINITE
        elif size <= tol * scale:
            endless = travel.is_endless(size / scale if scale else 0.0, y)
            status = Status.UNBOUNDED if endless else Status.CONVERGED
        elif asks_to_stop(callback, NewtonIterate(niter, y, None, size, n_hvp)):
            status = Status.STOPPED_BY_CALLBACK
        elif niter >= maxiter:
            status = Status.ITERATION_LIMIT
        if status is not None:
            break
        hess = problem.hess(x, y)
        notes = (hess.note,) if hess.note else ()
        rtol = max(min(1e-3, size / scale), 0.1 * tol * scale / size, epsilon(y))
        step = minres(hess, -grad, rtol=rtol)
        n_hvp += step.n_matvec
        d, length = step.x, norm(step.x)
        a_norm = max(a_norm, size / length if length else 0.0)
        if step.status in {Status.LEAST_SQUARES, Status.SINGULAR} or length == 0.0:
            status = Status.BRANCH_ENDS
            break
        if step.status is Status.NOT_FINITE:
            status = step.status
            break
        rounding = 32.0 * epsilon(y) * (a_norm * norm(y) + scale)
        found = None
        while found is None and alpha >= _SHORTEST:
            found, alpha, spent = _trial(problem, x, y, hess, d, alpha, rounding)
            n_hvp, n_grad = n_hvp + spent, n_grad + 1
        if found is None:
            if size <= rounding:
                status = Status.ROUNDING_LIMIT
            else:
                flat = size <= 1e-2 * a_norm * length
                status = Status.BRANCH_ENDS if flat else Status.LINE_SEARCH_FAILED
            break
        niter += 1
        travel.step(norm(found[0] - y))
        before, size = size, norm(found[1])
        y, grad = found
        if max(size, before) <= rounding and size > 0.5 * before:
            status = Status.ROUNDING_LIMIT
    value = None
    if problem.has_value:
        value = float(problem.objective.value(x, y))
    return Solution(
        y=y,
        x=x,
        value=value,
        status=status,
        residual_norm=size,
        residual=grad,
        niter=niter,
        n_hvp=n_hvp,
        n_grad=n_grad,
        warnings=notes,
    )


def _trial(
    problem: Problem,
    x: Array,
    y: Array,
    hess: LinearOperator,
    d: Array,
    alpha: float,
    rounding: float,
) -> tuple[tuple[Array, Array] | None, float, int]:
    """Return the point and its gradient where accepted, the next α, and the products."""
    point = y + alpha * d
    grad = problem.grad(x, point)
    size = norm(grad)
    if not math.isfinite(size):
        return None, 0.1 * alpha, 0
    if size <= rounding:
        return (point, grad), 1.0, 0
    again = minres(hess, -grad, rtol=1e-3)
    bend = norm(again.x - (1.0 - alpha) * d)
    # The α at which the bend of the flow is as long as the step itself.
    best = 0.5 * alpha**2 * norm(d) / bend if bend > 0.0 else 1.0
    if bend <= 0.5 * alpha * norm(d):
        return (point, grad), min(1.0, best if best < 0.5 else 1.0), again.n_matvec
    return None, min(0.5 * alpha, best), again.n_matvec
