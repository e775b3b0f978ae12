"""Projected gradient descent on F with spectral steps (the paper's equation 4).

    d = P(x − α ∇F) − x,    x₊ = x + λ d,    F(x₊) ≤ F(x) + c λ ∇F'd

α is the spectral (Barzilai-Borwein) step s's / s'y of the last move, λ backtracks from 1.
A trial whose lower-level solve fails counts as a failure.
"""

from __future__ import annotations

from ..arrays import Array, dot, namespace
from ..hypergradient.hypergradient import HypergradientResult
from ..status import ConvergenceError, Status
from .run import BilevelResult, Run

_DECREASE = 1e-4
_HALVINGS = 30


def gradient_descent(run: Run, x0: Array, maxiter: int) -> BilevelResult:
    """Run the method from x0.

    References
    ----------
    E. G. Birgin, J. M. Martínez, M. Raydan, SIAM J. Optim. 10 (2000) 1196-1211.
    """
    x, found, memory = run.begin(x0, lambda x: run.F.evaluate(x, certify=False))
    first = first_step(x, found.gradient)
    step = memory.get("step", first)
    while run.status is None:
        if len(run.history) > maxiter:
            return run.result(Status.ITERATION_LIMIT)
        target = run.project(x - step * found.gradient)
        trial, reason = _search(run, x, found, target)
        if trial is None:
            return run.result(Status.LINE_SEARCH_FAILED, reason)
        moved = trial.solution.x - x
        change = dot(moved, trial.gradient - found.gradient)
        # Where F is concave along the move the step is free to grow.
        step = dot(moved, moved) / change if change > 0.0 else 4.0 * step
        x, found = trial.solution.x, trial
        run.accept(x, found, memory={"step": step})
    return run.result(run.status)


def first_step(x: Array, gradient: Array) -> float:
    """Return the step whose largest entry moves a tenth of the largest of x, or of 1.

    In this norm few steep entries among many are not taken for a long way.
    """
    xp = namespace(x)
    if x.shape[0] == 0:
        return 1.0
    size, steepest = (float(xp.max(xp.abs(v))) for v in (x, gradient))
    return 0.1 * max(1.0, size) / steepest if steepest > 0.0 else 1.0


def _search(
    run: Run, x: Array, found: HypergradientResult, target: Array
) -> tuple[HypergradientResult | None, str]:
    """Halve the way to the target until F falls enough; say why it never did."""
    direction = target - x
    slope = dot(found.gradient, direction)
    reason = ""
    # The target itself: x + (target − x) may miss a bound by rounding.
    length, point = 1.0, target
    for _ in range(_HALVINGS):
        try:
            if run.F.value(point) <= found.value + _DECREASE * length * slope:
                return run.F.evaluate(point, certify=False), ""
        except ConvergenceError as error:
            reason = str(error)
        length *= 0.5
        point = run.project(x + length * direction)
    return None, reason
