"""A run of an upper-level method: its history, callback, checkpoints and final verdict.

    ‖x − P(x − ∇F)‖ ≤ tol · (its value at x0)

Convergence is claimed, and a result returned, at the finest tolerances only: an iterate
from looser solves that seems to converge is evaluated again, and so is the point that a
run ends at.
"""

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
from ..hypergradient.hypergradient import Hypergradient
from ..hypergradient.result import HypergradientResult, WarmStart
from ..hypergradient.upper_objective import corrected_value
from ..problem.optimality import residual, residual_scale
from ..status import ConvergenceError, Status
from .checkpoint import Store
from .result import BilevelResult, Ending, HistoryRecord

__all__ = ["BilevelResult", "Run"]  # what a method needs

logger = logging.getLogger(__name__)

Memory = dict[str, Any]

# The sentences of Status are about solves; these are about F.
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


@dataclasses.dataclass
class Run:
    """The state of one run of an upper-level method: history, best point, status.

    Every method starts with :meth:`begin`, reports each accepted iterate through
    :meth:`accept`, goes on while ``status`` is None and ends with :meth:`result`:

        x, found, memory = run.begin(x0, evaluate)
        step = memory.get("step", first)
        while run.status is None:
            ...
            run.accept(x, found, memory={"step": step})
        return run.result(run.status)

    A method with looser tolerances than those of F passes what it found through
    :meth:`confirmed` before it is accepted.

    ``memory`` holds all else that a method carries from one iterate to the next: numbers,
    strings, arrays, lists and dicts of them.  A run that was killed goes on from its
    checkpoint with the same iterates.
    """

    F: Hypergradient
    lower: Array | None  # bounds, both or neither
    upper: Array | None
    tol: float
    callback: Callable[[OptimizeResult], Any] | None
    store: Store | None = None
    last_is_best: bool = False  # values differ by less than their errors
    bar: Any = None
    history: list[HistoryRecord] = dataclasses.field(default_factory=list)
    best: HypergradientResult | None = None
    best_nit: int = 0
    last_x: Array | None = None
    last: HypergradientResult | None = None
    memory: Memory = dataclasses.field(default_factory=dict)
    status: Status | None = None

    def __post_init__(self) -> None:
        self._start = time.perf_counter()

    def begin(
        self,
        x0: Array,
        evaluate: Callable[[Array], HypergradientResult],
        *,
        last_is_best: bool = False,
    ) -> tuple[Array, HypergradientResult, Memory]:
        """Return the first iterate: x0, evaluated, or that of the checkpoint.

        The memory is empty at x0.  With ``last_is_best`` the result is the last iterate,
        otherwise the one with the lowest value.
        """
        self.last_is_best = last_is_best
        if self.last is None:
            self.accept(x0, self.confirmed(x0, evaluate(x0)), {})
        assert self.last is not None
        return self.last_x, self.last, self.memory

    def project(self, x: Array) -> Array:
        """Return the nearest point within the bounds."""
        if self.lower is None:
            return x
        xp = namespace(x)
        return xp.minimum(xp.maximum(x, self.lower), self.upper)

    def _size(self, x: Array, found: HypergradientResult) -> float:
        """Return ‖x − P(x − ∇F)‖: zero exactly at a stationary point of the box."""
        if self.lower is None:
            return norm(found.gradient)
        return norm(x - self.project(x - found.gradient))

    def confirmed(self, x: Array, found: HypergradientResult) -> HypergradientResult:
        """Return an evaluation at the finest tolerances where a looser one converges."""
        if self._is_finest(found) or not self._is_small(self._size(x, found)):
            return found
        return self.F.evaluate(x, certify=False)

    def _is_small(self, size: float) -> bool:
        first = self.history[0].gradient_norm if self.history else size
        return size <= self.tol * first

    def _is_finest(self, found: HypergradientResult) -> bool:
        return found.tol <= self.F.tol and found.adjoint_tol <= self.F.adjoint_tol

    def accept(
        self, x: Array, found: HypergradientResult, memory: Memory
    ) -> Status | None:
        """Record an accepted iterate and report it; return a status that ends the run."""
        self.memory = memory
        ended = self._record(x, found)
        record = self.history[-1]
        if self.bar is not None:
            self.bar.set_postfix_str(
                f"F={record.value:.5g} |grad|={record.gradient_norm:.1e} "
                f"products={record.n_hvp}"
            )
            self.bar.update(record.nit > 0)
        stopped = self._call_back(x, found)
        self.status = ended or stopped
        if self.store is not None and record.nit % self.store.every == 0:
            self._save(self.store, self.F.state)
        return self.status

    def replace(self, x: Array, found: HypergradientResult, memory: Memory) -> None:
        """Record a sharper evaluation of the last accepted iterate."""
        self.memory = memory
        step_norm = self.history.pop().step_norm
        if self.best_nit == len(self.history):
            self.best = None
        self.status = self._record(x, found)
        self.history[-1] = dataclasses.replace(self.history[-1], step_norm=step_norm)

    def _record(self, x: Array, found: HypergradientResult) -> Status | None:
        """Append to the history; return the status where the tolerance is met."""
        size, nit = self._size(x, found), len(self.history)
        record = HistoryRecord(
            nit=nit,
            value=found.value,
            gradient_norm=size,
            step_norm=0.0 if self.last_x is None else norm(x - self.last_x),
            lower_tol=found.tol,
            adjoint_tol=found.adjoint_tol,
            n_hvp=self.F.n_hvp,
            n_grad=self.F.n_grad,
            n_evaluations=self.F.n_evaluations,
            seconds=time.perf_counter() - self._start,
        )
        self.history.append(record)
        self.last, self.last_x = found, namespace(x).asarray(x, copy=True)
        if self.best is None or self.last_is_best or found.value <= self.best.value:
            self.best, self.best_nit = found, nit
        logger.info(
            "upper %d: value %.6e, gradient %.2e, %d products",
            *(nit, found.value, size, self.F.n_hvp),
        )
        if not (self._is_small(size) and self._is_finest(found)):
            return None
        # A gradient that is small because a solve failed (on_failure) is no convergence.
        return _failure(found) or Status.CONVERGED

    def _call_back(self, x: Array, found: HypergradientResult) -> Status | None:
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
        """Return the result: the best point, evaluated at the finest tolerances.

        That evaluation is no part of the run: a checkpoint goes on from before it.
        """
        state = self.F.state
        ending = self._end(status, detail)
        if self.store is not None:
            self._save(self.store, state, ending)
        if status not in {Status.CONVERGED, Status.STOPPED_BY_CALLBACK}:
            nit = len(self.history) - 1
            logger.warning("minimize ended after %d: %s", nit, ending.message)
        return self._result_at(ending)

    def _end(self, status: Status, detail: str) -> Ending:
        """Evaluate the returned point at the finest tolerances, and certify it.

        Nothing is spent where the method has solved no more loosely all along.
        """
        found, nit, certificate = self.best, self.best_nit, None
        if status is Status.CONVERGED:  # the last iterate did, whatever its value
            found, nit = self.last, len(self.history) - 1
        assert found is not None
        record, F = self.history[nit], self.F
        if any(r.lower_tol > F.tol for r in self.history):
            try:
                if not self._is_finest(found):
                    found = F.evaluate(found.solution.x, certify=False)
                    record = self._sharper(record, found)
                certificate = F.certify(found)
            except ConvergenceError as error:
                detail += (
                    f" Value and gradient are of tolerance {found.tol:.1e}; their "
                    f"evaluation at {F.tol:.1e} failed: {error}"
                )
        failed = _failure(found)
        if failed is not None and failed is not status:
            detail += f" The last evaluation failed: {failed.value}"
        message = f"{_MESSAGES.get(status, status.value)} {detail}".strip()
        totals = F.n_hvp, F.n_grad, F.n_evaluations
        return Ending(status, message, found, record, certificate, *totals)

    def _sharper(
        self, record: HistoryRecord, found: HypergradientResult
    ) -> HistoryRecord:
        """Return the record of an iterate with the numbers of another evaluation."""
        # Totals must grow along the history.
        spent = self.F if record is self.history[-1] else record
        return dataclasses.replace(
            record,
            value=found.value,
            gradient_norm=self._size(found.solution.x, found),
            lower_tol=found.tol,
            adjoint_tol=found.adjoint_tol,
            n_hvp=spent.n_hvp,
            n_grad=spent.n_grad,
            n_evaluations=spent.n_evaluations,
        )

    def _result_at(self, ending: Ending) -> BilevelResult:
        found, nit = ending.found, ending.record.nit
        return BilevelResult(
            x=found.solution.x,
            fun=found.value,
            jac=found.gradient,
            y=found.solution.y,
            success=ending.status is Status.CONVERGED,
            status=ending.status,
            message=ending.message,
            nit=len(self.history) - 1,
            nfev=ending.n_evaluations,
            n_hvp=ending.n_hvp,
            n_grad=ending.n_grad,
            history=[*self.history[:nit], ending.record, *self.history[nit + 1 :]],
            certificate=ending.certificate,
        )

    def restore(self, x0: Array, maxiter: int) -> BilevelResult | None:
        """Read the checkpoint where there is one; return the result of a run that ended.

        A run that ended by its callback or a smaller ``maxiter`` goes on.
        """
        saved = None if self.store is None else self.store.load(x0)
        if saved is None:
            return None
        self.F.state = saved["state"]
        self.last_x, self.last = saved["x"], saved["found"]
        self.best, self.best_nit = saved["best"], saved["best_nit"]
        self.memory = saved["memory"]
        self.history = saved["history"]
        self._check_data(self.last)
        self._start = time.perf_counter() - saved["seconds"]
        status, ending = saved["status"], saved["ending"]
        self.status = None if status is Status.STOPPED_BY_CALLBACK else status
        goes_on = (
            ending is None
            or ending.status is Status.STOPPED_BY_CALLBACK
            or (
                ending.status is Status.ITERATION_LIMIT and len(self.history) <= maxiter
            )
        )
        return None if goes_on else self._result_at(ending)

    def _check_data(self, found: HypergradientResult) -> None:
        """Refuse to go on with other data than those of the checkpoint."""
        F, there = self.F, found.solution
        value = corrected_value(F.upper, there, None)[0] + found.correction
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

    def _save(
        self, store: Store, state: WarmStart, ending: Ending | None = None
    ) -> None:
        store.save(
            {
                "state": state,
                "x": self.last_x,
                "found": self.last,
                "best": self.best,
                "best_nit": self.best_nit,
                "memory": self.memory,
                "history": self.history,
                "seconds": time.perf_counter() - self._start,
                "status": self.status,
                "ending": ending,
            }
        )


def _failure(found: HypergradientResult) -> Status | None:
    """Return the status of the solve that failed, where failures do not raise."""
    for status in (found.solution.status, found.adjoint.krylov.status):
        if status is not None and not status.acceptable:
            return status
    return None
