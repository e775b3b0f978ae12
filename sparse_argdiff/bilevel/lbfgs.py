"""L-BFGS-B from SciPy on F, with its bounds (Byrd, Lu, Nocedal & Zhu 1995)."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import optimize

from ..arrays import Array
from ..hypergradient import HypergradientResult
from ..status import ConvergenceError, Status
from .record import BilevelResult, Run


class _Stop(Exception):
    def __init__(self, status: Status, detail: str = "") -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def lbfgs(run: Run, x0: Array, maxiter: int) -> BilevelResult:
    """Run the method from x0; stops on the tolerance of ``run``, as all methods do."""
    last: list[tuple[Array, HypergradientResult]] = []

    def evaluate(x: Array) -> HypergradientResult:
        if last and np.array_equal(last[0][0], x):
            return last[0][1]
        try:
            found = run.F.evaluate(x.copy(), certify=False)
        except ConvergenceError as error:
            if run.best is None:
                raise
            raise _Stop(error.status, str(error)) from error
        last[:] = [(x.copy(), found)]
        return found

    def fun(x: Array) -> tuple[float, Array]:
        found = evaluate(x.astype(x0.dtype, copy=False))
        return found.value, found.gradient

    def accept(x: Array) -> None:
        x = x.astype(x0.dtype)
        status = run.accept(x, evaluate(x))
        if status is not None:
            raise _Stop(status)

    try:
        accept(x0)
        if maxiter == 0:
            return run.result(Status.ITERATION_LIMIT)
        found: Any = optimize.minimize(
            fun,
            x0,
            jac=True,
            method="L-BFGS-B",
            bounds=None
            if run.lower is None and run.upper is None
            else optimize.Bounds(
                -np.inf if run.lower is None else run.lower,
                np.inf if run.upper is None else run.upper,
            ),
            callback=accept,
            options={"maxiter": maxiter, "maxfun": 20 * maxiter, "ftol": 0, "gtol": 0},
        )
    except _Stop as stop:
        return run.result(stop.status, stop.detail)
    # SciPy's own words where its line search gave up: the values are too inexact.
    out_of_budget = found.nit >= maxiter or found.nfev >= 20 * maxiter
    status = Status.ITERATION_LIMIT if out_of_budget else Status.LINE_SEARCH_FAILED
    return run.result(status, f"(SciPy: {found.message})")
