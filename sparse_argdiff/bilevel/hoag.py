"""Hyperparameter optimisation with approximate gradient (HOAG, Pedregosa 2016).

    x₊ = P(x − z / L),    lower-level and adjoint tolerances ε_k with Σ ε_k < ∞

L is a local estimate of the Lipschitz constant of ∇F: it decreases by 5 % where F fell as
expected, and doubles where F rose.  A published baseline; its code subtracts the step twice
on accepted iterations, which is not reproduced.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..arrays import Array, norm
from ..status import ConvergenceError, Status
from .result import BilevelResult
from .run import Run

_C = 0.25
_FIRST = 1e-3
SCHEDULES: dict[str, Callable[[int], float]] = {
    "exponential": lambda k: 0.9**k,
    "quadratic": lambda k: 1.0 / (k + 1) ** 2,
}


def hoag(run: Run, x0: Array, *, schedule: str = "exponential") -> BilevelResult:
    """Run the method from x0, with the tolerances 1e-3 · 0.9^k or 1e-3 / k².

    References
    ----------
    F. Pedregosa, "Hyperparameter optimization with approximate gradient", ICML 2016.
    """
    found, memory = run.begin(
        x0, lambda x: run.F.evaluate(x, tol=_FIRST, certify=False)
    )
    size = norm(found.gradient)
    L = size / math.sqrt(max(x0.shape[0], 1)) if size > 0.0 else 1.0
    L, tolerance = memory.get("L", L), memory.get("tolerance", _FIRST)
    halved = memory.get("halved", 1.0)  # factor of the rejected steps
    k, failures, reason = memory.get("k", 0), 0, ""
    while run.ended is None:
        if failures > 60:
            return run.result(Status.LINE_SEARCH_FAILED, reason)
        k += 1
        previous, tolerance = tolerance, _FIRST * SCHEDULES[schedule](k) * halved
        x = found.solution.x
        point = run.project(x - found.gradient / L)
        moved = norm(point - x)
        try:
            trial = run.F.evaluate(point, tol=max(tolerance, run.F.tol), certify=False)
            trial = run.confirmed(trial)
        except ConvergenceError as error:
            L, failures, reason = 2.0 * L, failures + 1, str(error)
            continue
        slack = _C * tolerance + previous * (_C + 1.0) * moved - L * moved**2
        if trial.value <= found.value + slack:
            L *= 0.95
        elif trial.value >= found.value + 0.2 * abs(found.value):
            L, halved, failures = 2.0 * L, 0.5 * halved, failures + 1
            continue
        failures, found = 0, trial
        memory = {"L": L, "tolerance": tolerance, "halved": halved, "k": k}
        run.accept(found, memory)
    return run.result(run.ended)
