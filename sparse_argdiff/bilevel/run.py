"""A run of an upper-level method: what it records, tells, saves and takes up again."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Callable
from typing import Any

from scipy.optimize import OptimizeResult

from ..arrays import Array, epsilon, namespace, norm
from ..hypergradient.error_estimate import Certificate
from ..hypergradient.hypergradient import Hypergradient, HypergradientResult
from ..hypergradient.upper_objective import value_of
from ..problem.optimality import residual, residual_scale
from ..status import Status
from .checkpoint import Store
from .result import BilevelResult, HistoryRecord

__all__ = ["BilevelResult", "Run"]  # what a method needs

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
_COLUMNS = tuple(field.name for field in dataclasses.fields(HistoryRecord))


@dataclasses.dataclass
class Run:
    """One run of an upper-level method: its history, its best point, its callback.

    Every method starts with :meth:`begin`, reports each accepted iterate through
    :meth:`accept`, goes on while ``status`` is None and ends with :meth:`result`:

        x, found, memory = run.begin(x0, evaluate)
        step = memory.get("step", first)
        while run.status is None:
            ...
            run.accept(x, found, memory={"step": step})
        return run.result(run.status)

    ``memory`` is what the method carries from an iterate to the next besides x and what
    was found there: numbers, words, arrays, lists and dicts of them.  With it a run that
    was killed goes on from its checkpoint as if it had never stopped.
    """

    F: Hypergradient
    lower: Array | None
    upper: Array | None
    tol: float
    callback: Callable[[OptimizeResult], Any] | None
    store: Store | None = None
    bar: Any = None
    history: list[HistoryRecord] = dataclasses.field(default_factory=list)
    best: HypergradientResult | None = None
    last_x: Array | None = None
    last: HypergradientResult | None = None
    memory: dict[str, Any] = dataclasses.field(default_factory=dict)
    status: Status | None = None
    certificate: Certificate | None = None

    def __post_init__(self) -> None:
        self._start = time.perf_counter()

    def begin(
        self, x0: Array, evaluate: Callable[[Array], HypergradientResult]
    ) -> tuple[Array, HypergradientResult, dict[str, Any]]:
        """Return where to go on: x0, evaluated and accepted, or the checkpoint's iterate.

        The memory is empty at x0.
        """
        if self.last is None:
            self.accept(x0, evaluate(x0))
        assert self.last is not None
        return self.last_x, self.last, self.memory

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

    def accept(
        self,
        x: Array,
        found: HypergradientResult,
        *,
        memory: dict[str, Any] | None = None,
    ) -> Status | None:
        """Record an accepted iterate and tell of it; return why to stop, or None."""
        self.memory = memory or {}
        ended = self._record(x, found)
        record = self.history[-1]
        if self.bar is not None:
            self.bar.set_postfix_str(
                f"F={record.value:.5g} |grad|={record.gradient_norm:.1e} "
                f"products={record.n_hvp}"
            )
            self.bar.update(record.nit > 0)
        asked = self._ask(x, found)
        self.status = ended or asked
        if self.store is not None and record.nit % self.store.every == 0:
            self._save(self.store)
        return self.status

    def replace(
        self,
        x: Array,
        found: HypergradientResult,
        *,
        memory: dict[str, Any] | None = None,
    ) -> Status | None:
        """Record a sharper evaluation of the last accepted iterate."""
        self.memory = memory or {}
        old = self.history.pop()
        if self.best is self.last:
            self.best = None
        self.status = self._record(x, found)
        self.history[-1] = dataclasses.replace(
            self.history[-1], step_norm=old.step_norm
        )
        return self.status

    def _record(self, x: Array, found: HypergradientResult) -> Status | None:
        """Append to the history; say how it ends where the tolerance is met.

        A gradient that is small because a solve failed (``on_failure``) is no convergence.
        """
        xp = namespace(x)
        slope = self.projected_gradient(x, found.gradient)
        size = float(xp.sqrt(xp.sum(slope * slope)))
        moved = 0.0 if self.last_x is None else x - self.last_x
        record = HistoryRecord(
            nit=len(self.history),
            value=found.value,
            gradient_norm=size,
            step_norm=float(xp.sqrt(xp.sum(moved * moved))) if self.history else 0.0,
            lower_tol=found.tol,
            adjoint_tol=found.adjoint_tol,
            n_hvp=self.F.n_hvp,
            n_grad=self.F.n_grad,
            n_evaluations=self.F.n_evaluations,
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
        if not size <= self.tol * self.history[0].gradient_norm:
            return None
        solves = found.solution.status, found.adjoint.krylov.status
        failed = [s for s in solves if s is not None and not s.acceptable]
        return failed[0] if failed else Status.CONVERGED

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
        if self.store is not None:
            self._save(self.store, ended=(status, detail))
        message = f"{_MESSAGES.get(status, status.value)} {detail}".strip()
        if status not in {Status.CONVERGED, Status.STOPPED_BY_CALLBACK}:
            logger.warning(
                "minimize ended after %d: %s", len(self.history) - 1, message
            )
        best = self.best
        assert best is not None
        return BilevelResult(
            x=best.solution.x,
            fun=best.value,
            jac=best.gradient,
            y=best.solution.y,
            success=status is Status.CONVERGED,
            status=status,
            message=message,
            nit=len(self.history) - 1,
            nfev=self.F.n_evaluations,
            n_hvp=self.F.n_hvp,
            n_grad=self.F.n_grad,
            history=self.history,
            certificate=self.certificate,
        )

    def restore(self, x0: Array, maxiter: int) -> BilevelResult | None:
        """Take up the checkpoint where there is one; return the result of a run that ended.

        One that ended by its callback or a smaller ``maxiter`` goes on.
        """
        saved = None if self.store is None else self.store.load(x0)
        if saved is None:
            return None
        self.F.state = saved["state"]
        self.last_x, self.last = saved["x"], saved["found"]
        self.best = saved["best"] or self.last
        self.memory, self.certificate = saved["memory"], saved["certificate"]
        rows = zip(*(saved["history"][name] for name in _COLUMNS), strict=True)
        self.history = [HistoryRecord(*row) for row in rows]
        self._check_data(self.last)
        self._start = time.perf_counter() - saved["seconds"]
        status, ended = saved["status"], saved["ended"]
        self.status = None if status is Status.STOPPED_BY_CALLBACK else status
        goes_on = (
            ended is None
            or ended[0] is Status.STOPPED_BY_CALLBACK
            or (ended[0] is Status.ITERATION_LIMIT and len(self.history) <= maxiter)
        )
        if goes_on:
            return None
        self.store = None
        return self.result(*ended)

    def _check_data(self, found: HypergradientResult) -> None:
        """Refuse to go on with other data than those of the checkpoint."""
        F, there = self.F, found.solution
        value = value_of(F.upper, there.x, there.y) + found.correction
        wrong = abs(value - found.value) / (abs(value) + abs(found.correction) or 1.0)
        if there.residual is not None:
            left, _ = residual(F.problem, dataclasses.replace(there, residual=None))
            scale, _ = residual_scale(F.problem, there.x, there.y)
            wrong = max(wrong, norm(left - there.residual) / (scale or 1.0))
        if not wrong <= math.sqrt(epsilon(there.y)):
            raise ValueError(
                "the checkpoint is of other data, or of other functions: at its x and y "
                f"f^U or f_Y differ by {wrong:.1e} from what they were"
            )

    def _save(self, store: Store, ended: tuple[Status, str] | None = None) -> None:
        store.save(
            {
                "state": self.F.state,
                "x": self.last_x,
                "found": self.last,
                "best": None if self.best is self.last else self.best,
                "memory": self.memory,
                "certificate": self.certificate,
                "history": {
                    name: [getattr(record, name) for record in self.history]
                    for name in _COLUMNS
                },
                "seconds": time.perf_counter() - self._start,
                "status": self.status,
                "ended": ended,
            }
        )
