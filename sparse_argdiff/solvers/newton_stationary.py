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

import numpy as np

from ..arrays import Array, as_number, dot, epsilon, namespace, norm
from ..krylov import minres
from ..operators.linear_operator import LinearOperator
from ..operators.probes import diagonal_scale
from ..preconditioners import jacobi
from ..problem.problem import Problem, Solution
from ..status import Status
from .stopping import FAR, Callback, NewtonIterate, NewtonStep, StoppingTest

logger = logging.getLogger(__name__)

_SHORTEST = 1e-8


def newton_stationary(
    problem: Problem,
    x: Array,
    y0: Array,
    *,
    tol: float = 1e-8,
    maxiter: int | None = None,
    callback: Callback | None = None,
) -> Solution:
    """Solve f_Y(x, y) = 0 from y0 by damped Newton steps; no constraints.

    Parameters
    ----------
    tol : float
        Stop when the Newton step that is left is ≤ tol · ‖y‖, both in the metric of the
        diagonal of f_YY where that is known
        (:class:`sparse_argdiff.solvers.stopping.StoppingTest`).
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
    size, test = norm(grad), StoppingTest(tol, maxiter, callback)
    n_grad, n_hvp, niter, alpha, left, a_norm = 1, 0, 0, 1.0, 1e-2, 0.0
    notes: tuple[str, ...] = ()
    sizes: Array | None = None  # of the unknowns, where no diagonal is known
    status = test.before(NewtonIterate(niter, y, None, size, n_hvp))
    while status is None:
        logger.debug("newton_stationary %d: |grad| %.3e, step %.1e", niter, size, alpha)
        hess = problem.hess(x, y)
        notes = (hess.note,) if hess.note else ()
        if niter == 0:
            sizes, n_hvp = diagonal_scale(hess, y)
        M, metric = _metric(hess, sizes)
        rtol = max(min(1e-3, 0.1 * left), 0.1 * tol, epsilon(y))
        step = minres(hess, -grad, rtol=rtol, M=M)
        n_hvp, length = n_hvp + step.n_matvec, norm(step.x)
        a_norm = max(a_norm, size / length if length else 0.0)
        status = _without_step(step.status, length)
        if status is not None:
            break
        rounding = 32.0 * epsilon(y) * a_norm * norm(y)
        found = _damped(problem, x, y, hess, M, step.x, alpha, rounding)
        n_hvp, n_grad = n_hvp + found.n_hvp, n_grad + found.n_grad
        if found.y is None:
            status = _no_step(size, rounding, 1e-2 * a_norm * length)
            break
        niter, full, alpha = niter + 1, found.full, found.alpha
        flatness = _flatness(grad, step.x, metric, a_norm if M is None else 1.0)
        y, grad, size = found.y, found.grad, norm(found.grad)
        test.square, lam, left = metric(y) ** 2, metric(step.x), metric(found.error)
        test.moved(y, length, lam)
        test.seen(norm(found.error), left)
        if full:
            status = test.after(NewtonStep(lam, 0.0, lam, left, left, 1.0, flatness))
            status = _unless_it_grows(status, problem, x, y, step.x, size)
        left = left / lam if full else 1.0
        status = status or test.before(NewtonIterate(niter, y, None, size, n_hvp))
    return Solution(
        y=y,
        x=x,
        value=_value(problem, x, y),
        status=status,
        residual_norm=size,
        relative_error=test.relative_error,
        residual=grad,
        niter=niter,
        n_hvp=n_hvp,
        n_grad=n_grad,
        warnings=notes,
    )


def _flatness(
    grad: Array, d: Array, metric: Callable[[Array], float], largest: float
) -> float:
    """Return |d'f_YY d| / d'D d, of D = |diag f_YY| or its largest entry."""
    square = largest * metric(d) ** 2
    return abs(dot(grad, d)) / square if square > 0.0 else 1.0


def _unless_it_grows(
    status: Status | None, problem: Problem, x: Array, y: Array, d: Array, size: float
) -> Status | None:
    """Return the status, but no UNBOUNDED where ‖f_Y‖ has grown ``FAR`` steps ahead."""
    if status is not Status.UNBOUNDED:
        return status
    with np.errstate(all="ignore"):  # functions may overflow there
        return status if norm(problem.grad(x, y + FAR * d)) <= FAR * size else None


def _value(problem: Problem, x: Array, y: Array) -> float | None:
    """Return f, in the user's sign, where it is known."""
    if not problem.has_value:
        return None
    return as_number("objective.value", problem.given("value", x, y))


def _without_step(status: Status, length: float) -> Status | None:
    """Return why MINRES found no step, None where it did."""
    singular = status in {Status.LEAST_SQUARES, Status.SINGULAR} or length == 0.0
    if status is Status.NOT_FINITE:
        return status
    return Status.BRANCH_ENDS if singular else None


def _no_step(size: float, rounding: float, flat: float) -> Status:
    """Return why the damping found no step: rounding, a singular f_YY, or neither."""
    if size <= rounding:
        return Status.ROUNDING_LIMIT
    return Status.BRANCH_ENDS if size <= flat else Status.LINE_SEARCH_FAILED


def _metric(
    hess: LinearOperator, sizes: Array | None
) -> tuple[LinearOperator | None, Callable[[Array], float]]:
    """Return M = |diag f_YY|⁻¹, of ``sizes`` where it is not known, and the norm of M⁻¹."""
    diagonal = hess.diagonal() if hess.has_diagonal else sizes
    if diagonal is not None:
        diagonal = namespace(diagonal).abs(diagonal)
    if diagonal is None or not bool(namespace(diagonal).all(diagonal > 0.0)):
        return None, norm
    return jacobi(diagonal, floor=0.0), lambda v: math.sqrt(dot(v, diagonal * v))


class _Damped(NamedTuple):
    y: Any  # None where no step was accepted
    grad: Any
    error: Any  # of y: the step from there with the same f_YY, and M times its residual
    full: bool
    alpha: float  # to try next
    n_hvp: int
    n_grad: int


def _damped(
    problem: Problem,
    x: Array,
    y: Array,
    hess: LinearOperator,
    M: LinearOperator | None,
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
        simplified = minres(hess, -grad, rtol=1e-3, M=M)
        n_hvp += simplified.n_matvec
        change = norm(simplified.x - (1.0 - alpha) * d)
        # The α at which the flow has turned by as much as the step is long.
        best = 0.5 * alpha**2 * length / change if change > 0.0 else 1.0
        if change <= 0.5 * alpha * length or size <= rounding:
            full, alpha = alpha == 1.0, best if best < 0.5 else 1.0
            error = simplified.x
            if M is not None:  # ‖r‖₂ may hide what the step lacks where f_YY is small
                error = error + M.matvec(simplified.residual)
            return _Damped(point, grad, error, full, alpha, n_hvp, n_grad)
        alpha = min(0.5 * alpha, best)
    return _Damped(None, None, None, False, alpha, n_hvp, n_grad)
