"""Projected gradient descent on F with spectral steps (the paper's equation 4).

    d = P(x − α z) − x,     accept x₊ = x + λ d  when  V₊ ≤ V + c λ z'd

z is the hypergradient and V the corrected value.  α is the spectral (Barzilai-Borwein) step
s's / s'(z₊ − z) of the last move, λ backtracks from 1.  A trial whose lower-level solve fails
counts as a failure.
"""

from __future__ import annotations

from ..arrays import Array, dot, namespace
from ..hypergradient.result import HypergradientResult
from ..status import ConvergenceError, Status
from .result import BilevelResult
from .run import Run

_DECREASE = 1e-4
_TRIALS = 30


def gradient_descent(run: Run, x0: Array) -> BilevelResult:
    """Run the method from x0 at the tolerances of ``run.F``.

    References
    ----------
    E. G. Birgin, J. M. Martínez, M. Raydan, SIAM J. Optim. 10 (2000) 1196-1211; their
    search compares with the highest of the last ten values, this one with the last value.
    """
    found, memory = run.begin(x0, lambda x: run.F.evaluate(x, certify=False))
    step = memory.get("step", first_step(found))
    while run.ended is None:
        trial, reason = line_search(run, found, step)
        if trial is None:
            return run.result(Status.LINE_SEARCH_FAILED, reason)
        moved = trial.solution.x - found.solution.x
        change = dot(moved, trial.gradient - found.gradient)
        # Where F is concave along the move the step is free to grow.
        step = dot(moved, moved) / change if change > 0.0 else 4.0 * step
        found = trial
        run.accept(found, memory={"step": step})
    return run.result(run.ended)


def first_step(found: HypergradientResult) -> float:
    """Return the step with ‖step · gradient‖_∞ = 0.1 max(1, ‖x‖_∞).

    The maximum norm does not grow with the number of flat directions.
    """
    x, gradient = found.solution.x, found.gradient
    xp = namespace(x)
    if x.shape[0] == 0:
        return 1.0
    size, steepest = (float(xp.max(xp.abs(v))) for v in (x, gradient))
    return 0.1 * max(1.0, size) / steepest if steepest > 0.0 else 1.0


def line_search(
    run: Run, found: HypergradientResult, step: float
) -> tuple[HypergradientResult | None, str]:
    """Backtrack from P(x − step ∇F) until F falls; say why it never did.

    A trial is judged by its value alone, which the last adjoint corrects, and its gradient
    is evaluated where it is accepted.
    """
    # The target itself: x + (target − x) may miss a bound by rounding.
    x = found.solution.x
    point = run.project(x - step * found.gradient)
    direction = point - x
    slope, length, reason = dot(found.gradient, direction), 1.0, ""
    for _ in range(_TRIALS):
        fitted = 0.0
        try:
            value, _ = run.F.corrected_value(point)
            if value <= found.value + _DECREASE * length * slope:
                return run.F.evaluate(point, certify=False), ""
            # The minimum of the parabola through both values and the slope.
            rise = value - found.value - length * slope
            fitted = -0.5 * slope * length**2 / rise if rise > 0.0 else 0.5 * length
        except ConvergenceError as error:
            reason = str(error)
        length = min(max(fitted, 0.1 * length), 0.5 * length)
        point = run.project(x + length * direction)
    return None, reason
