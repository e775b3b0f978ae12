"""L-BFGS-B from SciPy on F, with its bounds (Byrd, Lu, Nocedal & Zhu 1995).

    q(p) = F + ∇F'p + ½ β ‖p‖²,    β = −∇F'p / (θ ‖p‖²)        at a trial x + p that fails

For a failed trial SciPy receives value and gradient of the quadratic q, which interpolates
F and its slope at the iterate x and has its minimum at θp, so that the line search backtracks
to about θp.  As q(p) > F(x) such a trial is never accepted.

The memory of SciPy's method is not accessible.  A resumed run therefore replays the recorded
values and gradients in order: SciPy takes the same path, and no solve is repeated.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import optimize

from ..arrays import Array, namespace
from ..hypergradient.result import HypergradientResult
from ..status import ConvergenceError, Status
from .checkpoint import digest
from .result import BilevelResult
from .run import Run

_LEAST = 0.1  # θ


class _Stop(Exception):
    """Ends SciPy's loop; its arguments are those of ``Run.result``."""


def lbfgs(run: Run, x0: Array) -> BilevelResult:
    """Run the method from x0, with the stopping test of ``run``.

    Notes
    -----
    A checkpoint holds the gradient of every evaluation so far: m numbers each, 44 MB
    after 100 evaluations with 54,877 parameters, and q where a trial failed.  Failed
    trials are never iterates, and are not in the history.  A run that ends because of
    them has the status of the last failure.
    """
    if not isinstance(x0, np.ndarray):
        raise TypeError(
            "method='lbfgs' is SciPy's and needs NumPy arrays, found "
            f"{namespace(x0).__name__}; 'maid' runs where x0 lives"
        )
    found, memory = run.begin(x0, lambda x: run.F.evaluate(x, certify=False))
    if run.ended is not None:
        return run.result(run.ended)
    first = digest(found.solution.x), found.value, found.gradient
    path, maxiter = _Path(run, memory.get("log", [first])), run.maxiter
    try:
        ended: Any = optimize.minimize(
            path.fun,
            x0,
            jac=True,
            method="L-BFGS-B",
            bounds=None if run.lower is None else optimize.Bounds(run.lower, run.upper),
            callback=path.accept,
            options={"maxiter": maxiter, "maxfun": 20 * maxiter, "ftol": 0, "gtol": 0},
        )
    except _Stop as stop:
        return run.result(*stop.args)
    # SciPy's line search fails where the values are too inexact.
    out_of_budget = ended.nit >= maxiter or ended.nfev >= 20 * maxiter
    failure = path.failed or path.failure
    if failure is not None and not out_of_budget:
        return run.result(failure.status, str(failure))
    if out_of_budget:
        return run.result(Status.ITERATION_LIMIT)
    return run.result(Status.LINE_SEARCH_FAILED, f"(SciPy: {ended.message})")


class _Path:
    """The objective function for SciPy: recorded evaluations first, then new ones."""

    def __init__(self, run: Run, log: list[tuple[str, float, Array]]) -> None:
        assert run.last is not None
        self.run, self.log = run, log
        self.dtype = run.last.solution.x.dtype
        self.evaluations = self.iterates = 0
        self.latest: tuple[str, HypergradientResult] = ("", run.last)
        self.base: tuple[Array, float, Array] | None = None
        # Of a trial since the last iterate, and of one between the two before.
        self.failed: ConvergenceError | None = None
        self.failure: ConvergenceError | None = None

    def fun(self, x: Array) -> tuple[float, Array]:
        x = x.astype(self.dtype)
        if self.evaluations == len(self.log):
            self.log.append((digest(x), *self._trial(x)))
        key, value, gradient = self.log[self.evaluations]
        if key != digest(x):
            raise ValueError(
                "the checkpoint cannot be followed: SciPy's L-BFGS-B takes other "
                "points than in that run. Use the version of SciPy that wrote it"
            )
        self.evaluations += 1
        if self.base is None:
            self.base = x, value, gradient
        return value, gradient

    def accept(self, x: Array) -> None:
        self.iterates += 1
        self.failed, self.failure = None, self.failed
        x = x.astype(self.dtype)
        # The line search ends at a point that it has evaluated.
        for key, value, gradient in reversed(self.log[: self.evaluations]):
            if key == digest(x):
                self.base = x, value, gradient
                break
        if self.iterates < len(self.run.history):
            return  # recorded before
        key, found = self.latest
        if key != digest(x):
            try:
                found = self._evaluate(x)
            except ConvergenceError as error:
                raise _Stop(error.status, str(error)) from error
        self.run.accept(found, memory={"log": self.log})
        if self.run.status is not None:
            raise _Stop(self.run.status)

    def _evaluate(self, x: Array) -> HypergradientResult:
        found = self.run.F.evaluate(x, certify=False)
        self.latest = (digest(x), found)
        return found

    def _trial(self, x: Array) -> tuple[float, Array]:
        """Return value and gradient at x, of q where they cannot be had."""
        try:
            found = self._evaluate(x)
        except ConvergenceError as error:
            assert self.base is not None
            start, value, gradient = self.base
            way = x - start
            slope, square = float(gradient @ way), float(way @ way)
            if not (slope < 0.0 and square > 0.0):
                raise _Stop(error.status, str(error)) from error
            self.failed = error
            beta = -slope / (_LEAST * square)
            return value + slope + 0.5 * beta * square, gradient + beta * way
        return found.value, found.gradient
