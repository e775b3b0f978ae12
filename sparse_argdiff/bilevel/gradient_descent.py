"""Projected gradient descent on F with spectral steps (the paper's equation 4).

    d = P(x − α ∇F) − x,    x₊ = x + λ d,    F(x₊) ≤ F(x) + c λ ∇F'd

α is the spectral (Barzilai-Borwein) step s's / s'y of the last move, λ backtracks from 1.
A trial whose lower-level solve fails counts as a failure.
"""

from __future__ import annotations

from collections.abc import Callable

from ..arrays import Array, dot, namespace
from ..hypergradient.result import HypergradientResult
from ..status import ConvergenceError, Status
from .run import BilevelResult, Run

_DECREASE = 1e-4


def gradient_descent(run: Run, x0: Array, maxiter: int) -> BilevelResult:
    """Run the method from x0.

    References
    ----------
    E. G. Birgin, J. M. Martínez, M. Raydan, SIAM J. Optim. 10 (2000) 1196-1211.
    """

    def evaluate(x: Array) -> HypergradientResult:
        return run.F.evaluate(x, certify=False)

    x, found, memory = run.begin(x0, evaluate)
    first = first_step(x, found.gradient)
    step = memory.get("step", first)
    while run.status is None:
        if len(run.history) > maxiter:
            return run.result(Status.ITERATION_LIMIT)
        trial, reason = line_search(run, x, found, step, evaluate)
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
    """Return the step with ‖step · gradient‖_∞ = 0.1 max(1, ‖x‖_∞).

    The maximum norm does not grow with the number of flat directions.
    """
    xp = namespace(x)
    if x.shape[0] == 0:
        return 1.0
    size, steepest = (float(xp.max(xp.abs(v))) for v in (x, gradient))
    return 0.1 * max(1.0, size) / steepest if steepest > 0.0 else 1.0


def line_search(
    run: Run,
    x: Array,
    found: HypergradientResult,
    step: float,
    evaluate: Callable[[Array], HypergradientResult],
    *,
    tol: float | None = None,
    bar: float = 0.0,
    most: int = 30,
) -> tuple[HypergradientResult | None, str]:
    """Backtrack from P(x − step ∇F) until F falls beyond its error; say why it never did.

    Parameters
    ----------
    evaluate : function of a point
        Value and gradient.  A trial is judged by its value alone, which the last adjoint
        corrects, and evaluated where it is accepted.
    tol : float, optional
        Of the lower-level solves of the trials.
    bar : float
        The share of each correction that a value may be wrong by.
    most : int
        Trials.
    """
    # The target itself: x + (target − x) may miss a bound by rounding.
    point = run.project(x - step * found.gradient)
    direction = point - x
    slope, length, reason = dot(found.gradient, direction), 1.0, ""
    for _ in range(most):
        fitted = 0.0
        try:
            value, correction = run.F.corrected_value(point, tol=tol)
            limit = found.value + _DECREASE * length * slope
            limit -= bar * abs(found.correction)
            if value <= limit - bar * abs(correction):
                trial = evaluate(point)
                sharper = run.confirmed(point, trial)
                if sharper is trial or sharper.value <= limit:
                    return sharper, ""
                value = sharper.value
            # The minimum of the parabola through both values and the slope.
            rise = value - found.value - length * slope
            fitted = -0.5 * slope * length**2 / rise if rise > 0.0 else 0.5 * length
        except ConvergenceError as error:
            reason = str(error)
        length = min(max(fitted, 0.1 * length), 0.5 * length)
        point = run.project(x + length * direction)
    return None, reason
