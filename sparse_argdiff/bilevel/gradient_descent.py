"""Projected gradient descent on F with spectral steps (the paper's equation 4), and MAID.

    d = P(x − α z) − x,     accept x₊ = x + λ d  when  V₊ + e₊ ≤ V − e + c λ z'd

z is the hypergradient and V the corrected value, at the current tolerances; e, the error of
a value, is zero at the finest ones and else a tenth of the correction λ'f_Y.  α is the
spectral (Barzilai-Borwein) step s's / s'(z₊ − z) of the last move, λ backtracks from 1.  A
trial whose lower-level solve fails counts as a failure.

With looser tolerances (MAID, as accurate as each step needs) an adjoint solve ends once −z is
shown to be a descent direction.  Where no step is accepted, value and gradient are computed
again with tolerances ten times smaller; where the gradient meets ``tol``, at the finest ones.
"""

from __future__ import annotations

from collections.abc import Callable

from ..arrays import Array, dot, namespace
from ..hypergradient.result import HypergradientResult
from ..status import ConvergenceError, Status
from .result import BilevelResult
from .run import Run

_DECREASE = 1e-4
_TIGHTEN, _LOOSEN = 0.1, 2.0
_ADJOINT = 0.1  # tolerance of an adjoint that does not descend, over that of y
_TRIALS = 3
_LEFT = 0.1  # share of a correction that is its error


def gradient_descent(run: Run, x0: Array, *, loosest: float = 0.0) -> BilevelResult:
    """Run the method from x0 with tolerances from ``loosest`` to those of ``run.F``.

    References
    ----------
    E. G. Birgin, J. M. Martínez, M. Raydan, SIAM J. Optim. 10 (2000) 1196-1211; their
    search compares with the highest of the last ten values, this one with the last value.
    M. S. Salehi, S. Mukherjee, L. Roberts, M. J. Ehrhardt, "An adaptively inexact
    first-order method for bilevel optimization with application to hyperparameter
    learning", SIAM J. Math. Data Sci. 7 (2025), arXiv:2308.10098.
    """
    F = run.F
    tol = coarse = max(loosest, F.tol)

    def evaluate(x: Array) -> HypergradientResult:
        if tol <= F.tol:
            return F.evaluate(x, certify=False)
        adjoint_tol = max(tol * _ADJOINT, F.adjoint_tol)
        return F.evaluate(
            x, tol=tol, adjoint_tol=adjoint_tol, until="descent", certify=False
        )

    found, memory = run.begin(x0, evaluate, last_is_best=loosest > 0.0)
    step = memory.get("step", first_step(found))
    tol = memory.get("tolerance", tol)
    while run.ended is None:
        bar, most = (0.0, 10 * _TRIALS) if tol <= F.tol else (_LEFT, _TRIALS)
        trial, reason = line_search(
            run, found, step, evaluate, tol=tol, bar=bar, most=most
        )
        if trial is None and tol <= F.tol:
            return run.result(Status.LINE_SEARCH_FAILED, reason)
        if trial is None:
            tol = max(tol * _TIGHTEN, F.tol)
            found = run.confirmed(evaluate(found.solution.x))
            run.replace(found, memory={"step": step, "tolerance": tol})
            continue
        # A trial with finer tolerances seemed to converge, and did not.
        refuted = trial.tol < tol
        tol = max(tol * _TIGHTEN, F.tol) if refuted else min(tol * _LOOSEN, coarse)
        moved = trial.solution.x - found.solution.x
        change = dot(moved, trial.gradient - found.gradient)
        # Where F is concave along the move the step is free to grow.
        step = dot(moved, moved) / change if change > 0.0 else 4.0 * step
        found = trial
        run.accept(found, memory={"step": step, "tolerance": tol})
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
    run: Run,
    found: HypergradientResult,
    step: float,
    evaluate: Callable[[Array], HypergradientResult],
    *,
    tol: float | None = None,
    bar: float = 0.0,
    most: int = 30,
) -> tuple[HypergradientResult | None, str]:
    """Backtrack from P(x − step ∇F) until F falls beyond its error; say why it never did.

    ``evaluate`` gives value and gradient; a trial, of ``most``, is judged by its value
    alone, to ``tol``, which the last adjoint corrects, and evaluated where it is accepted.
    ``bar`` is the share of each correction that a value may be wrong by.
    """
    # The target itself: x + (target − x) may miss a bound by rounding.
    x = found.solution.x
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
                sharper = run.confirmed(trial)
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
