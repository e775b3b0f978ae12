"""L-BFGS-B from SciPy on F, with its bounds (Byrd, Lu, Nocedal & Zhu 1995).

SciPy keeps its memory to itself.  A resumed run therefore gives it the recorded values and
gradients again, in order: it takes the same path, and no solve is made twice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import optimize

from ..arrays import (
    Array,
    namespace,
)
from ..hypergradient import HypergradientResult
from ..status import ConvergenceError, Status
from .checkpoint import digest
from .record import BilevelResult, Run


class _Stop(Exception):
    def __init__(self, status: Status, detail: str = "") -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def lbfgs(run: Run, x0: Array, maxiter: int) -> BilevelResult:
    """Run the method from x0; stops on the tolerance of ``run``, as all methods do.

    Notes
    -----
    A checkpoint holds the gradient of every evaluation so far: m numbers each, 44 MB
    after 100 evaluations with 54,877 parameters.
    """
    if not isinstance(x0, np.ndarray):
        raise TypeError(
            "method='lbfgs' is SciPy's and needs NumPy arrays, found "
            f"{namespace(x0).__name__}; 'maid' runs where x0 lives"
        )
    x, found, memory = run.begin(x0, lambda x: run.F.evaluate(x, certify=False))
    if run.status is not None:
        return run.result(run.status)
    if len(run.history) > maxiter:
        return run.result(Status.ITERATION_LIMIT)
    path = _Path(run, memory.get("log", [(digest(x), found.value, found.gradient)]))
    try:
        ended: Any = optimize.minimize(
            path.fun,
            x0,
            jac=True,
            method="L-BFGS-B",
            bounds=None
            if run.lower is None and run.upper is None
            else optimize.Bounds(
                -np.inf if run.lower is None else run.lower,
                np.inf if run.upper is None else run.upper,
            ),
            callback=path.accept,
            options={"maxiter": maxiter, "maxfun": 20 * maxiter, "ftol": 0, "gtol": 0},
        )
    except _Stop as stop:
        return run.result(stop.status, stop.detail)
    # SciPy's own words where its line search gave up: the values are too inexact.
    out_of_budget = ended.nit >= maxiter or ended.nfev >= 20 * maxiter
    status = Status.ITERATION_LIMIT if out_of_budget else Status.LINE_SEARCH_FAILED
    return run.result(status, f"(SciPy: {ended.message})")


class _Path:
    """The evaluations that SciPy asks for: first the recorded ones, then new ones."""

    def __init__(self, run: Run, log: list[tuple[str, float, Array]]) -> None:
        assert run.last is not None
        self.run, self.log = run, log
        self.dtype = run.last.solution.x.dtype
        self.evaluations = self.iterates = 0
        self.latest: tuple[str, HypergradientResult] = ("", run.last)

    def fun(self, x: Array) -> tuple[float, Array]:
        x = x.astype(self.dtype)
        if self.evaluations == len(self.log):
            found = self._evaluate(x)
            self.log.append((digest(x), found.value, found.gradient))
        key, value, gradient = self.log[self.evaluations]
        if key != digest(x):
            raise ValueError(
                "the checkpoint cannot be followed: SciPy's L-BFGS-B asks for other "
                "points than it did then. Use the version of SciPy that wrote it"
            )
        self.evaluations += 1
        return value, gradient

    def accept(self, x: Array) -> None:
        self.iterates += 1
        if self.iterates < len(self.run.history):
            return  # recorded before
        x = x.astype(self.dtype)
        key, found = self.latest
        found = found if key == digest(x) else self._evaluate(x)
        status = self.run.accept(x, found, memory={"log": self.log})
        if status is not None:
            raise _Stop(status)

    def _evaluate(self, x: Array) -> HypergradientResult:
        try:
            found = self.run.F.evaluate(x, certify=False)
        except ConvergenceError as error:
            raise _Stop(error.status, str(error)) from error
        self.latest = (digest(x), found)
        return found
