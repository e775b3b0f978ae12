"""Truncated Newton: line-search Newton-CG (Nocedal & Wright, algorithm 7.1).

    f_YY d = − f_Y  by conjugate gradients until ‖residual‖ ≤ η ‖f_Y‖,   y += α d

with η → 0 so that the end-game is superlinear, and never below what the final
tolerance needs: the smaller of ‖f_Y‖^½ (relative) and the misfit of the last quadratic
model, which is zero for a quadratic.  A direction of curvature ≤ 0 is followed downhill.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable
from typing import Any

from ..arrays import Array, dot, epsilon, namespace, norm
from ..krylov.recurrence import iterates
from ..operators.linear_operator import LinearOperator
from ..preconditioners import Choice
from ..problem.optimality import residual_scale
from ..problem.problem import Problem, Solution
from ..status import Status
from .line_search import Travel, search

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class NewtonIterate:
    """What a ``callback`` of ``solve`` sees, iteration 0 included; y is live."""

    niter: int
    y: Array
    value: float | None
    gradient_norm: float
    n_hvp: int


@dataclasses.dataclass(frozen=True)
class _Direction:
    d: Array
    n_hvp: int
    a_norm: float
    unbounded_model: bool  # curvature <= 0 was met: the length of d means nothing
    predicted: float  # ‖f_Y + f_YY d‖
    status: Status | None


def newton_cg(
    problem: Problem,
    x: Array,
    y0: Array,
    *,
    tol: float = 1e-8,
    maxiter: int | None = None,
    callback: Callable[[NewtonIterate], Any] | None = None,
    M: Any = "auto",
) -> Solution:
    """Minimise f(x, ·) from y0; stops on the true gradient norm.

    Parameters
    ----------
    tol : float
        Stop when ‖f_Y(x, y)‖₂ ≤ tol · scale, see
        :func:`sparse_argdiff.problem.optimality.residual_scale`.
    maxiter : int, optional
        Newton steps, 200 by default.
    M : operator, "auto", function or None
        Preconditioner M ≈ f_YY⁻¹; a function takes f_YY and returns it, such as a builder
        of ``preconditioners`` or an ``Auto`` that several solves share.

    Returns
    -------
    Solution
        Its status says how it ended; nothing is raised for numerical trouble.

    References
    ----------
    J. Nocedal, S. J. Wright, "Numerical Optimization", 2nd ed., 2006, section 7.1.
    S. C. Eisenstat, H. F. Walker, SIAM J. Sci. Comput. 17 (1996) 16-32 (the misfit).
    W. W. Hager, H. Zhang, SIAM J. Optim. 16 (2005) 170-192 (the line search's stop).
    """
    maxiter = 200 if maxiter is None else maxiter
    y = namespace(y0).asarray(y0, copy=True)
    grad = problem.grad(x, y)
    value = problem.value(x, y) if problem.has_value else None
    size = norm(grad)
    scale, n_hvp = (math.nan, 0)
    if math.isfinite(size):
        scale, n_hvp = residual_scale(problem, x, y)
        scale = scale or size
    status: Status | None = None
    niter = 0
    own_scale = callable(getattr(problem.objective, "scale", None))
    n_grad = 1 if own_scale else 2  # at y = 0
    a_norm, misfit = 0.0, 1.0
    notes: tuple[str, ...] = ()
    travel, choice = Travel(), Choice(M)
    while status is None:
        logger.debug("newton_cg %d: |grad| %.3e, %d products", niter, size, n_hvp)
        if not math.isfinite(size) or (value is not None and math.isnan(value)):
            status = Status.NOT_FINITE
        elif size <= tol * scale:
            endless = travel.is_endless(size / scale if scale else 0.0, y)
            status = Status.UNBOUNDED if endless else Status.CONVERGED
        elif asks_to_stop(callback, NewtonIterate(niter, y, value, size, n_hvp)):
            status = Status.STOPPED_BY_CALLBACK
        elif niter >= maxiter:
            status = Status.ITERATION_LIMIT
        if status is not None:
            break
        hess = problem.hess(x, y)
        notes = (hess.note,) if hess.note else ()
        # Beyond what the final tolerance needs, accuracy is wasted.
        forcing = min(0.25, math.sqrt(size / scale), misfit)
        forcing = min(max(forcing, 0.3 * tol * scale / size, epsilon(y)), 0.5)
        step = _direction(hess, y, grad, size, forcing, choice)
        n_hvp += step.n_hvp
        a_norm = max(a_norm, step.a_norm)
        if step.status is not None:
            status = step.status
            break
        found = search(
            problem, x, y, step.d, value, dot(grad, step.d), step.unbounded_model
        )
        n_grad += found.n_grad
        rounding = 32.0 * epsilon(y) * (a_norm * norm(y) + scale)
        if found.status is not None:
            at_limit = size <= rounding and found.status is Status.LINE_SEARCH_FAILED
            status = Status.ROUNDING_LIMIT if at_limit else found.status
            break
        niter += 1
        travel.step(found.alpha * norm(step.d))
        before, size = size, norm(found.grad)
        misfit = abs(size - step.predicted) / before if found.alpha == 1.0 else 1.0
        if size > 0.5 * before and max(size, before) <= rounding:
            status = Status.ROUNDING_LIMIT
        if status is None or size < before:
            y, grad, value = found.y, found.grad, found.value
        else:
            size = before
    if value is not None and problem.maximize:
        value = -value
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


def asks_to_stop(
    callback: Callable[[NewtonIterate], Any] | None, iterate: NewtonIterate
) -> bool:
    """Show the callback where we are; True when it asks to stop."""
    if callback is None:
        return False
    try:
        return bool(callback(iterate))
    except StopIteration:
        return True


def _direction(
    hess: LinearOperator,
    y: Array,
    grad: Array,
    size: float,
    forcing: float,
    choice: Choice,
) -> _Direction:
    """Solve f_YY d = −f_Y roughly; on curvature ≤ 0 add that direction, downhill."""
    xp = namespace(grad)
    d, r = xp.zeros_like(grad), -grad
    M, n_hvp = choice(hess)
    a_norm, predicted = 0.0, size
    limit = max(10 * grad.shape[0], 20)
    aim = forcing * size
    for niter, step in enumerate(iterates(hess, d, r, M, target=aim), 1):
        n_hvp += step.products
        a_norm = max(a_norm, step.a_norm)
        if step.status in {Status.NEGATIVE_CURVATURE, Status.SINGULAR}:
            p = step.direction
            assert p is not None
            # In the units of y, which a gradient has not; the search finds the length.
            reach = norm(d) or (size / a_norm if a_norm else max(norm(y), 1.0))
            d += (reach / norm(p)) * p
            return _Direction(d, n_hvp, a_norm, True, size, None)
        if step.status is not None:
            return _Direction(d, n_hvp, a_norm, False, size, step.status)
        predicted = step.residual_norm
        if predicted <= aim or niter >= limit:
            choice.record(niter, predicted / size)
            break
    return _Direction(d, n_hvp, a_norm, False, predicted, None)
