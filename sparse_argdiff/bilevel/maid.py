"""Descent with inexact values and gradients, as accurate as each step needs (MAID).

    d = P(x − β z) − x,     accept x + α d  when  V₊ + e₊ ≤ V − e + c α z'd

with z the hypergradient and V the corrected value at the current tolerances; e, the error
of a value, is a tenth of its correction λ'f_Y.  An adjoint solve ends once −z is shown to
be a descent direction.  Where no step is accepted, value and gradient are computed again
with tolerances ten times smaller; where the gradient meets ``tol``, at the finest ones.
β is the spectral step of the last move.
"""

from __future__ import annotations

from ..arrays import Array, dot
from ..hypergradient.result import HypergradientResult
from ..status import Status
from .gradient_descent import first_step, line_search
from .run import BilevelResult, Run

_LOOSEST = 0.1
_TIGHTEN, _LOOSEN = 0.1, 2.0
_ADJOINT = 0.1  # tolerance of an adjoint that does not descend, over that of y
_TRIALS = 3
_LEFT = 0.1  # share of a correction that is its error


def maid(run: Run, x0: Array, maxiter: int) -> BilevelResult:
    """Run the method from x0 with tolerances between 0.1 and those of ``run.F``.

    References
    ----------
    M. S. Salehi, S. Mukherjee, L. Roberts, M. J. Ehrhardt, "An adaptively inexact
    first-order method for bilevel optimization with application to hyperparameter
    learning", SIAM J. Math. Data Sci. 7 (2025), arXiv:2308.10098.
    """
    F = run.F
    tol = loosest = max(_LOOSEST, F.tol)

    def evaluate(x: Array) -> HypergradientResult:
        if tol <= F.tol:
            return F.evaluate(x, certify=False)
        return F.evaluate(
            x,
            tol=tol,
            adjoint_tol=max(tol * _ADJOINT, F.adjoint_tol),
            until="descent",
            certify=False,
        )

    x, found, memory = run.begin(x0, evaluate, last_is_best=True)
    step = memory.get("step", first_step(x, found.gradient))
    tol = memory.get("tolerance", tol)
    while run.status is None:
        if len(run.history) > maxiter:
            return run.result(Status.ITERATION_LIMIT)
        bar, most = (0.0, 10 * _TRIALS) if tol <= F.tol else (_LEFT, _TRIALS)
        trial, reason = line_search(
            run, x, found, step, evaluate, tol=tol, bar=bar, most=most
        )
        if trial is None and tol <= F.tol:
            return run.result(Status.LINE_SEARCH_FAILED, reason)
        if trial is None:
            tol = max(tol * _TIGHTEN, F.tol)
            found = run.confirmed(x, evaluate(x))
            run.replace(x, found, memory={"step": step, "tolerance": tol})
            continue
        # A trial with finer tolerances seemed to converge, and did not.
        refuted = trial.tol < tol
        tol = max(tol * _TIGHTEN, F.tol) if refuted else min(tol * _LOOSEN, loosest)
        moved = trial.solution.x - x
        change = dot(moved, trial.gradient - found.gradient)
        step = dot(moved, moved) / change if change > 0.0 else 4.0 * step
        x, found = trial.solution.x, trial
        run.accept(x, found, memory={"step": step, "tolerance": tol})
    return run.result(run.status)
