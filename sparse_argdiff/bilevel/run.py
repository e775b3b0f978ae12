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
from .result import BilevelResult, HistoryRecord

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
_SAVED = ("last", "best", "best_nit", "memory", "history", "status")


@dataclasses.dataclass
class Run:
    """The state of one run of an upper-level method: history, best point, status.

    Every method starts with :meth:`begin`, reports each accepted iterate through
    :meth:`accept`, goes on while ``ended`` is None and returns :meth:`result`:

        found, memory = run.begin(x0, evaluate)
        step = memory.get("step", first)
        while run.ended is None:
            ...
            run.accept(found, memory={"step": step})
        return run.result(run.ended)

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
    maxiter: int = 100
    store: Store | None = None
    last_is_best: bool = False  # values differ by less than their errors
    bar: Any = None
    history: list[HistoryRecord] = dataclasses.field(default_factory=list)
    best: HypergradientResult | None = None
    best_nit: int = 0
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
    ) -> tuple[HypergradientResult, Memory]:
        """Return the first iterate: that at x0, without memory, or the checkpoint's.

        With ``last_is_best`` the result is the last iterate, otherwise the one with the
        lowest value.
        """
        self.last_is_best = last_is_best
        if self.last is None:
            self.accept(self.confirmed(evaluate(x0)), {})
        assert self.last is not None
        return self.last, self.memory

    @property
    def ended(self) -> Status | None:
        """Why the run ends, the limit on iterations included; None while it goes on."""
        if self.status is None and len(self.history) > self.maxiter:
            return Status.ITERATION_LIMIT
        return self.status

    def project(self, x: Array) -> Array:
        """Return the nearest point within the bounds."""
        if self.lower is None:
            return x
        xp = namespace(x)
        return xp.minimum(xp.maximum(x, self.lower), self.upper)

    def _size(self, found: HypergradientResult) -> float:
        """Return ‖x − P(x − ∇F)‖: zero exactly at a stationary point of the box."""
        if self.lower is None:
            return norm(found.gradient)
        x = found.solution.x
        return norm(x - self.project(x - found.gradient))

    def confirmed(self, found: HypergradientResult) -> HypergradientResult:
        """Return an evaluation at the finest tolerances where a looser one converges."""
        if self._is_finest(found) or not self._is_small(self._size(found)):
            return found
        return self.F.evaluate(found.solution.x, certify=False)

    def _is_small(self, size: float) -> bool:
        first = self.history[0].gradient_norm if self.history else size
        return size <= self.tol * first

    def _is_finest(self, found: HypergradientResult) -> bool:
        return found.tol <= self.F.tol and found.adjoint_tol <= self.F.adjoint_tol

    def accept(self, found: HypergradientResult, memory: Memory) -> None:
        """Record an accepted iterate, report it, and set the status that ends the run."""
        ended = self._record(found, memory)
        record = self.history[-1]
        if self.bar is not None:
            self.bar.set_postfix_str(
                f"F={record.value:.5g} |grad|={record.gradient_norm:.1e} "
                f"products={record.n_hvp}"
            )
            self.bar.update(record.nit > 0)
        stopped = self._call_back(found)
        self.status = ended or stopped
        if self.store is not None and record.nit % self.store.every == 0:
            self._save(self.store, self.F.state)

    def replace(self, found: HypergradientResult, memory: Memory) -> None:
        """Record a sharper evaluation of the last accepted iterate."""
        step_norm = self.history.pop().step_norm
        if self.best_nit == len(self.history):
            self.best = None
        self.status = self._record(found, memory)
        self.history[-1] = dataclasses.replace(self.history[-1], step_norm=step_norm)

    def _record(self, found: HypergradientResult, memory: Memory) -> Status | None:
        """Append to the history; return the status where the tolerance is met."""
        last, nit = self.last or found, len(self.history)
        record = HistoryRecord(
            nit=nit,
            step_norm=norm(found.solution.x - last.solution.x),
            seconds=time.perf_counter() - self._start,
            **self._measures(found),
            **_totals(self.F),
        )
        self.history.append(record)
        self.last, self.memory = found, memory
        if self.best is None or self.last_is_best or found.value <= self.best.value:
            self.best, self.best_nit = found, nit
        logger.info(
            "upper %d: value %.6e, gradient %.2e, %d products",
            *(nit, found.value, record.gradient_norm, self.F.n_hvp),
        )
        if not (self._is_small(record.gradient_norm) and self._is_finest(found)):
            return None
        # A gradient that is small because a solve failed (on_failure) is no convergence.
        return _failure(found) or Status.CONVERGED

    def _measures(self, found: HypergradientResult) -> dict[str, Any]:
        """Return the fields of a record that an evaluation determines."""
        return {
            "value": found.value,
            "value_error": 3.0 * abs(found.correction),
            "gradient_norm": self._size(found),
            "lower_tol": found.tol,
            "adjoint_tol": found.adjoint_tol,
        }

    def _call_back(self, found: HypergradientResult) -> Status | None:
        if self.callback is None:
            return None
        state = OptimizeResult(_point(found), record=self.history[-1])
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
            logger.warning("minimize ended after %d: %s", ending.nit, ending.message)
        return ending

    def _end(self, status: Status, detail: str) -> BilevelResult:
        """Evaluate the returned point at the finest tolerances, and certify it.

        Nothing is spent where the method has solved no more loosely all along.
        """
        history, F, certificate = self.history.copy(), self.F, None
        last = len(history) - 1
        assert self.best is not None
        assert self.last is not None
        found, nit = self.best, self.best_nit
        if status is Status.CONVERGED:  # the last iterate did, whatever its value
            found, nit = self.last, last
        if any(r.lower_tol > F.tol for r in history):
            try:
                found = self._sharpened(found, nit, history)
                if nit < last and status is not Status.CONVERGED:
                    # The values that chose the best were not equally accurate.
                    other = self._sharpened(self.last, last, history)
                    if other.value < found.value:
                        found, nit = other, last
                certificate = F.certify(found)
            except ConvergenceError as error:
                detail += (
                    f" Value and gradient are of tolerance {found.tol:.1e}; their "
                    f"evaluation at {F.tol:.1e} failed: {error}"
                )
        failed = _failure(found)
        if failed is not None and failed is not status:
            detail += f" The last evaluation failed: {failed.value}"
        return BilevelResult(
            _point(found),
            success=status is Status.CONVERGED,
            status=status,
            message=f"{_MESSAGES.get(status, status.value)} {detail}".strip(),
            nit=len(history) - 1,
            nfev=F.n_evaluations,
            n_hvp=F.n_hvp,
            n_grad=F.n_grad,
            history=history,
            certificate=certificate,
            warnings=found.warnings,
        )

    def _sharpened(
        self, found: HypergradientResult, nit: int, history: list[HistoryRecord]
    ) -> HypergradientResult:
        """Evaluate an iterate at the finest tolerances, in its record, too."""
        if self._is_finest(found):
            return found
        found = self.F.evaluate(found.solution.x, certify=False)
        # Totals must grow along the history.
        spent = self.F if nit == len(history) - 1 else history[nit]
        changes = {**self._measures(found), **_totals(spent)}
        history[nit] = dataclasses.replace(history[nit], **changes)
        return found

    def restore(self, x0: Array) -> BilevelResult | None:
        """Read the checkpoint where there is one; return the result of a run that ended.

        A run that ended by its callback or a smaller ``maxiter`` goes on.
        """
        saved = None if self.store is None else self.store.load(x0)
        if saved is None:
            return None
        self.F.state = saved["state"]
        for name in _SAVED:
            setattr(self, name, saved[name])
        assert self.last is not None
        self._check_data(self.last)
        self._start = time.perf_counter() - saved["seconds"]
        if self.status is Status.STOPPED_BY_CALLBACK:
            self.status = None
        if saved["ending"] is None:
            return None
        ending = BilevelResult(saved["ending"])
        stopped = ending.status is Status.STOPPED_BY_CALLBACK
        goes_on = ending.status is Status.ITERATION_LIMIT and self.ended is None
        return None if stopped or goes_on else ending

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
        self, store: Store, state: WarmStart, ending: BilevelResult | None = None
    ) -> None:
        tree = {name: getattr(self, name) for name in _SAVED}
        seconds = time.perf_counter() - self._start
        store.save({**tree, "state": state, "seconds": seconds, "ending": ending})


def _point(found: HypergradientResult) -> dict[str, Any]:
    """Return x, F, its gradient and y by the names of SciPy."""
    there = found.solution
    return {"x": there.x, "fun": found.value, "jac": found.gradient, "y": there.y}


def _totals(spent: Hypergradient | HistoryRecord) -> dict[str, Any]:
    return {k: getattr(spent, k) for k in ("n_hvp", "n_grad", "n_evaluations")}


def _failure(found: HypergradientResult) -> Status | None:
    """Return the status of the solve that failed, where failures do not raise."""
    for status in (found.solution.status, found.adjoint.krylov.status):
        if status is not None and not status.acceptable:
            return status
    return None
