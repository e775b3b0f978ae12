"""Projected gradient descent on F with a backtracking line search.

    x₊ = P(x − α ∇F),    F(x₊) ≤ F(x) − c ∇F'(x − x₊)        (the paper's equation 4)

The step doubles after a success at the first trial and halves after a failure.  A
trial whose lower-level solve fails counts as a failure.
"""

from __future__ import annotations

from ..arrays import Array, dot, norm
from ..status import ConvergenceError, Status
from .record import BilevelResult, Run

_DECREASE = 1e-4
_HALVINGS = 30


def gradient_descent(run: Run, x0: Array, maxiter: int) -> BilevelResult:
    """Run the method from x0; the first move is a tenth of max(1, ‖x0‖)."""
    F = run.F
    x = run.project(x0)
    found = F.evaluate(x)
    status = run.accept(x, found)
    size = norm(found.gradient)
    step = 0.1 * max(1.0, norm(x)) / size if size > 0.0 else 1.0
    reason = ""
    while status is None:
        if len(run.history) > maxiter:
            return run.result(Status.ITERATION_LIMIT)
        trial, halvings = None, 0
        while trial is None and halvings <= _HALVINGS:
            point = run.project(x - step * found.gradient)
            expected = dot(found.gradient, x - point)
            try:
                falls = F.value(point) <= found.value - _DECREASE * expected
                trial = F.evaluate(point) if falls else None
            except ConvergenceError as error:
                reason = str(error)
            if trial is None:
                step *= 0.5
                halvings += 1
        if trial is None:
            return run.result(Status.LINE_SEARCH_FAILED, reason)
        x, found = point, trial
        status = run.accept(x, found)
        if halvings == 0:
            step *= 2.0
    return run.result(status)
