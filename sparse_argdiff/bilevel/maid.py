"""Descent on inexact values and gradients, as exact as the next step needs (MAID).

    d = P(x − β z) − x,     accept x + α d  when  V₊ + e₊ ≤ V − e + c α z'd

with z the hypergradient and V the corrected value at the current tolerances, and e what
is left of the correction λ'f_Y: a tenth of it.  An adjoint is refined until −z is shown to
descend, no further.  When no step is accepted both are computed again, ten times tighter;
when the tolerance is met the certificate decides whether the gradient is as small as it
looks.  β is the spectral step of the last move.
"""

from __future__ import annotations

from ..arrays import Array, dot
from ..hypergradient.hypergradient import HypergradientResult
from ..status import ConvergenceError, Status
from .gradient_descent import first_step
from .run import BilevelResult, Run

_DECREASE = 1e-4
_FIRST = 0.1  # the loosest tolerance
_TIGHTEN, _LOOSEN = 0.1, 2.0
_ADJOINT = 0.1  # times the tolerance of y: where an adjoint ends that does not descend
_HALVINGS = 3
_LEFT = 0.1  # of a correction: what it may be wrong by


def maid(run: Run, x0: Array, maxiter: int) -> BilevelResult:
    """Run the method from x0 with tolerances between 0.1 and those of ``run.F``.

    References
    ----------
    M. S. Salehi, S. Mukherjee, L. Roberts, M. J. Ehrhardt, "An adaptively inexact
    first-order method for bilevel optimization with application to hyperparameter
    learning", SIAM J. Math. Data Sci. 7 (2025), arXiv:2308.10098.
    """
    tolerance = _Tolerance(max(_FIRST, run.F.tol), run.F.tol)
    x, found, memory = run.begin(x0, lambda x: _evaluate(run, x, tolerance))
    step = first_step(x, found.gradient)
    step = memory.get("step", step)
    tolerance.now = memory.get("tolerance", tolerance.now)
    while run.status is None or run.status is Status.CONVERGED:
        if run.status is Status.CONVERGED:
            if tolerance.finest or _is_sharp(run, found):
                return run.result(run.status)
            tolerance.tighten()
            found = _evaluate(run, x, tolerance)
            run.replace(x, found, memory={"step": step, "tolerance": tolerance.now})
            continue
        if len(run.history) > maxiter:
            return run.result(Status.ITERATION_LIMIT)
        trial, reason = _search(run, x, found, step, tolerance)
        if trial is None:
            if tolerance.finest:
                return run.result(Status.LINE_SEARCH_FAILED, reason)
            tolerance.tighten()
            found = _evaluate(run, x, tolerance)
            run.replace(x, found, memory={"step": step, "tolerance": tolerance.now})
            continue
        tolerance.loosen()
        moved = trial.solution.x - x
        change = dot(moved, trial.gradient - found.gradient)
        step = dot(moved, moved) / change if change > 0.0 else 4.0 * step
        x, found = trial.solution.x, trial
        run.best = None  # the last is the best: values are no closer than their bars
        run.accept(x, found, memory={"step": step, "tolerance": tolerance.now})
    return run.result(run.status)


class _Tolerance:
    """The tolerance of the lower-level and the adjoint solves, between two ends."""

    def __init__(self, loosest: float, finest: float) -> None:
        self.now = self._loosest = loosest
        self._finest = finest

    @property
    def adjoint(self) -> float:
        return max(self.now * _ADJOINT, self._finest)

    @property
    def finest(self) -> bool:
        return self.now <= self._finest

    def tighten(self) -> None:
        self.now = max(self.now * _TIGHTEN, self._finest)

    def loosen(self) -> None:
        self.now = min(self.now * _LOOSEN, self._loosest)


def _evaluate(run: Run, x: Array, tolerance: _Tolerance) -> HypergradientResult:
    return run.F.evaluate(
        x,
        tol=tolerance.now,
        adjoint_tol=tolerance.adjoint,
        until="descent" if not tolerance.finest else "tolerance",
        certify=False,
    )


def _is_sharp(run: Run, found: HypergradientResult) -> bool:
    """Tell whether the gradient's error is below the tolerance that it met."""
    run.certificate = certificate = run.F.certify(found)
    return certificate.gradient_error <= run.tol * run.history[0].gradient_norm


def _search(
    run: Run, x: Array, found: HypergradientResult, step: float, tolerance: _Tolerance
) -> tuple[HypergradientResult | None, str]:
    """Shorten the way until F falls beyond its error bars; say why it never did.

    A trial is judged by its value, which the last adjoint corrects; only an accepted one
    is given an adjoint of its own.
    """
    target = run.project(x - step * found.gradient)
    direction = target - x
    slope, reason = dot(found.gradient, direction), ""
    length, point = 1.0, target
    for _ in range(_HALVINGS if not tolerance.finest else 10 * _HALVINGS):
        try:
            value, correction = run.F.corrected_value(point, tol=tolerance.now)
            left = abs(found.correction) + abs(correction)
            bar = 0.0 if tolerance.finest else _LEFT * left
            if value <= found.value + _DECREASE * length * slope - bar:
                return _evaluate(run, point, tolerance), ""
            # The minimum of the parabola through the values, within reason.
            rise = value - found.value - length * slope
            fitted = -0.5 * slope * length**2 / rise if rise > 0.0 else 0.5 * length
        except ConvergenceError as error:
            reason, fitted = str(error), 0.0
        length = min(max(fitted, 0.1 * length), 0.5 * length)
        point = run.project(x + length * direction)
    return None, reason
