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
from ..hypergradient.hypergradient import Hypergradient
from ..hypergradient.result import HypergradientResult
from ..status import Status
from .gradient_descent import first_step, line_search
from .run import BilevelResult, Run

_LOOSEST = 0.1  # tolerance
_TIGHTEN, _LOOSEN = 0.1, 2.0
_ADJOINT = 0.1  # times the tolerance of y: where an adjoint ends that does not descend
_TRIALS = 3
_LEFT = 0.1  # of a correction: what it may be wrong by


def maid(run: Run, x0: Array, maxiter: int) -> BilevelResult:
    """Run the method from x0 with tolerances between 0.1 and those of ``run.F``.

    References
    ----------
    M. S. Salehi, S. Mukherjee, L. Roberts, M. J. Ehrhardt, "An adaptively inexact
    first-order method for bilevel optimization with application to hyperparameter
    learning", SIAM J. Math. Data Sci. 7 (2025), arXiv:2308.10098.
    """
    F, tolerance = run.F, _Tolerance(run.F)

    def evaluate(x: Array) -> HypergradientResult:
        if tolerance.finest:
            return F.evaluate(x, certify=False)
        tols = {"tol": tolerance.now, "adjoint_tol": tolerance.adjoint}
        return F.evaluate(x, **tols, until="descent", certify=False)

    x, found, memory = run.begin(x0, evaluate, last_is_best=True)
    step = memory.get("step", first_step(x, found.gradient))
    tolerance.now = memory.get("tolerance", tolerance.now)
    while run.status is None:
        if len(run.history) > maxiter:
            return run.result(Status.ITERATION_LIMIT)
        bar, most = (0.0, 10 * _TRIALS) if tolerance.finest else (_LEFT, _TRIALS)
        trial, reason = line_search(
            run, x, found, step, evaluate, tol=tolerance.now, bar=bar, most=most
        )
        if trial is None:
            if tolerance.finest:
                return run.result(Status.LINE_SEARCH_FAILED, reason)
            tolerance.tighten()
            found = run.confirmed(x, evaluate(x))
            run.replace(x, found, memory={"step": step, "tolerance": tolerance.now})
            continue
        if trial.tol < tolerance.now:  # what looked like convergence was none
            tolerance.tighten()
        else:
            tolerance.loosen()
        moved = trial.solution.x - x
        change = dot(moved, trial.gradient - found.gradient)
        step = dot(moved, moved) / change if change > 0.0 else 4.0 * step
        x, found = trial.solution.x, trial
        run.accept(x, found, memory={"step": step, "tolerance": tolerance.now})
    return run.result(run.status)


class _Tolerance:
    """The tolerance of the lower-level and the adjoint solves, between two ends."""

    def __init__(self, F: Hypergradient) -> None:
        self._finest, self._finest_adjoint = F.tol, F.adjoint_tol
        self.now = self._loosest = max(_LOOSEST, F.tol)

    @property
    def adjoint(self) -> float:
        return max(self.now * _ADJOINT, self._finest_adjoint)

    @property
    def finest(self) -> bool:
        return self.now <= self._finest

    def tighten(self) -> None:
        self.now = max(self.now * _TIGHTEN, self._finest)

    def loosen(self) -> None:
        self.now = min(self.now * _LOOSEN, self._loosest)
