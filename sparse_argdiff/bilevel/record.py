"""What an upper-level method records as it runs, and what it returns."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Any

from scipy.optimize import OptimizeResult

from ..arrays import Array, namespace
from ..certificate import Certificate
from ..hypergradient import Hypergradient, HypergradientResult
from ..status import Status

logger = logging.getLogger(__name__)

# The sentences of Status speak of solves; these speak of F.
_MESSAGES = {
    Status.CONVERGED: "The projected gradient of F meets the tolerance.",
    Status.ITERATION_LIMIT: (
        "The limit on upper-level iterations was reached before the tolerance was met. "
        "Increase maxiter or loosen tol."
    ),
    Status.LINE_SEARCH_FAILED: (
        "No step along a descent direction lowered F. Its values differ by less than "
        "the lower-level solves resolve (tighten lower_tol), or its gradient does not "
        "belong to it (run check_hypergradient)."
    ),
}


@dataclasses.dataclass(frozen=True)
class HistoryRecord:
    """One accepted upper-level iterate; costs are totals since the start.

    Attributes
    ----------
    nit : int
        Upper-level iteration, 0 for the start.
    value : float
        F(x).
    gradient_norm : float
        Norm of the projected gradient x − P(x − ∇F), ‖∇F‖ without bounds.
    step_norm : float
        ‖x − x_previous‖.
    n_hvp, n_grad, n_evaluations : int
        Hessian products, lower-level gradients, hypergradients.
    seconds : float
        Since the start.
    """

    nit: int
    value: float
    gradient_norm: float
    step_norm: float
    n_hvp: int
    n_grad: int
    n_evaluations: int
    seconds: float


class BilevelResult(OptimizeResult):  # type: ignore[misc]  # SciPy is untyped
    """The outcome of :func:`minimize`, an ``OptimizeResult``.

    Attributes
    ----------
    x, fun, jac, y : the best point, its value, gradient and lower-level solution.
    success : bool
        Whether the projected gradient met the tolerance.
    status : Status
        Why it ended; ``message`` is its sentence.
    nit, nfev, n_hvp, n_grad : int
        Iterations, hypergradients, Hessian products, lower-level gradients.
    history : list of HistoryRecord
    certificate : Certificate or None
        What is known of the error of the last gradient ("maid").
    """


@dataclasses.dataclass
class Run:
    """One run of an upper-level method: its history, its best point, its callback.

    Every method reports each accepted iterate through :meth:`accept` and ends with
    :meth:`result`.
    """

    F: Hypergradient
    lower: Array | None
    upper: Array | None
    tol: float
    callback: Callable[[OptimizeResult], Any] | None
    bar: Any = None
    history: list[HistoryRecord] = dataclasses.field(default_factory=list)
    best: HypergradientResult | None = None
    last_x: Array | None = None
    last: HypergradientResult | None = None
    certificate: Certificate | None = None

    def __post_init__(self) -> None:
        self._start = time.perf_counter()
        self._hvp0, self._grad0 = self.F.n_hvp, self.F.n_grad
        self._evaluations0 = self.F.n_evaluations

    def project(self, x: Array) -> Array:
        """Return the nearest point within the bounds."""
        xp = namespace(x)
        if self.lower is not None:
            x = xp.maximum(x, self.lower)
        if self.upper is not None:
            x = xp.minimum(x, self.upper)
        return x

    def projected_gradient(self, x: Array, gradient: Array) -> Array:
        """Return x − P(x − ∇F): zero exactly at a stationary point of the box."""
        if self.lower is None and self.upper is None:
            return gradient
        return x - self.project(x - gradient)

    def accept(self, x: Array, found: HypergradientResult) -> Status | None:
        """Record an accepted iterate and tell of it; return why to stop, or None."""
        met = self._record(x, found)
        record = self.history[-1]
        if self.bar is not None:
            self.bar.set_postfix_str(
                f"F={record.value:.5g} |grad|={record.gradient_norm:.1e} "
                f"products={record.n_hvp}"
            )
            self.bar.update(record.nit > 0)
        asked = self._ask(x, found)
        return Status.CONVERGED if met else asked

    def replace(self, x: Array, found: HypergradientResult) -> Status | None:
        """Record a sharper evaluation of the last accepted iterate."""
        old = self.history.pop()
        if self.best is self.last:
            self.best = None
        met = self._record(x, found)
        self.history[-1] = dataclasses.replace(
            self.history[-1], step_norm=old.step_norm
        )
        return Status.CONVERGED if met else None

    def _record(self, x: Array, found: HypergradientResult) -> bool:
        """Append to the history; tell whether the tolerance is met."""
        xp = namespace(x)
        slope = self.projected_gradient(x, found.gradient)
        size = float(xp.sqrt(xp.sum(slope * slope)))
        moved = 0.0 if self.last_x is None else x - self.last_x
        record = HistoryRecord(
            nit=len(self.history),
            value=found.value,
            gradient_norm=size,
            step_norm=float(xp.sqrt(xp.sum(moved * moved))) if self.history else 0.0,
            n_hvp=self.F.n_hvp - self._hvp0,
            n_grad=self.F.n_grad - self._grad0,
            n_evaluations=self.F.n_evaluations - self._evaluations0,
            seconds=time.perf_counter() - self._start,
        )
        self.history.append(record)
        self.last, self.last_x = found, xp.asarray(x, copy=True)
        if self.best is None or found.value <= self.best.value:
            self.best = found
        logger.info(
            "upper %d: value %.6e, gradient %.2e, %d products",
            record.nit,
            record.value,
            size,
            record.n_hvp,
        )
        return size <= self.tol * self.history[0].gradient_norm

    def _ask(self, x: Array, found: HypergradientResult) -> Status | None:
        if self.callback is None:
            return None
        state = OptimizeResult(
            x=x,
            fun=found.value,
            jac=found.gradient,
            y=found.solution.y,
            record=self.history[-1],
        )
        stop = True
        with contextlib.suppress(StopIteration):
            stop = bool(self.callback(state))
        return Status.STOPPED_BY_CALLBACK if stop else None

    def result(self, status: Status, detail: str = "") -> BilevelResult:
        """Return the record of the run, at its best point."""
        if self.bar is not None:
            self.bar.close()
        best = self.best
        assert best is not None
        message = f"{_MESSAGES.get(status, status.value)} {detail}".strip()
        if status not in {Status.CONVERGED, Status.STOPPED_BY_CALLBACK}:
            logger.warning(
                "minimize ended after %d: %s", len(self.history) - 1, message
            )
        return BilevelResult(
            x=best.solution.x,
            fun=best.value,
            jac=best.gradient,
            y=best.solution.y,
            success=status is Status.CONVERGED,
            status=status,
            message=message,
            nit=len(self.history) - 1,
            nfev=self.F.n_evaluations - self._evaluations0,
            n_hvp=self.F.n_hvp - self._hvp0,
            n_grad=self.F.n_grad - self._grad0,
            history=self.history,
            certificate=self.certificate,
        )
