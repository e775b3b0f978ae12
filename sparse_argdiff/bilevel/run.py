"""A run of an upper-level method: its history, callback, checkpoints and final verdict.

    ‖∇F‖_free ≤ tol · max(|F(x)|, 10⁻³ (F(x0) − F(x)))

with the entries of ∇F that do not push x against a bound, the projected gradient.  A step of length one would lower F by no more than tol of itself, or, where F tends to zero, of
a thousandth of what the run has gained.  Convergence is claimed, and a result returned, at the finest tolerances only: an
iterate from looser solves that seems to converge is evaluated again, and the point that a run
ends at, however it ends, is evaluated again and certified.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Callable
from typing import Any, Self

from scipy.optimize import OptimizeResult

from ..arrays import Array, copied, epsilon, namespace, norm
from ..hypergradient.error_estimate import residual
from ..hypergradient.hypergradient import Hypergradient
from ..hypergradient.result import HypergradientResult, WarmStart
from ..hypergradient.upper_objective import UpperObjective, corrected_value, remainder
from ..preconditioners.auto import Auto, Learned
from ..problem.optimality import residual_scale
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
_SAVED = ("start", "last", "before", "best", "best_nit", "memory", "history", "status")
_BAR = 3.0  # corrections that a value may be off by,
_REMAINDERS = 10.0  # and guesses of what they leave, where they cancel
_GRADIENT_BAR = 10.0  # relative errors of y and λ that a gradient may be off by
_OF_THE_GAIN = 1e-3
_FAR = 5.0  # a move of a log-penalty by a factor of 150
_SHOWN = 10  # indices in a message


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
    auto: Auto | None = None  # the preconditioner that learns, where there is one
    last_is_best: bool = False  # values differ by less than their errors
    bar: Any = None
    history: list[HistoryRecord] = dataclasses.field(default_factory=list)
    best: HypergradientResult | None = None
    best_nit: int = 0
    last: HypergradientResult | None = None
    before: HypergradientResult | None = None  # the iterate before the last
    memory: Memory = dataclasses.field(default_factory=dict)
    status: Status | None = None
    start: Array | None = None
    fall: float = math.inf  # of F, that the method expects of further steps

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
        self.last_is_best, self.start = last_is_best, x0
        if self.last is None:
            self.accept(self.confirmed(evaluate(x0)), {})
        assert self.last is not None
        return self.last, self.memory

    @property
    def state(self) -> tuple[WarmStart, Learned | None]:
        """What the next evaluation starts from, and what the preconditioner has learned."""
        return self.F.state, None if self.auto is None else self.auto.state

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
        """Return the norm of the projected gradient, zero at a stationary point of the box.

        It is in the units of ∇F, unlike x − P(x − ∇F), which is no longer than the box.
        """
        return norm(self.free_gradient(found.solution.x, found.gradient))

    def free_gradient(self, x: Array, z: Array) -> Array:
        """Return z without the entries that push x against a bound."""
        if self.lower is None:
            return z
        held = ((x <= self.lower) & (z > 0.0)) | ((x >= self.upper) & (z < 0.0))
        return namespace(x).where(held, 0.0 * z, z)

    def scale(self, value: float) -> float:
        """Return the size of F by which the projected gradient is judged."""
        gained = self.history[0].value - value if self.history else 0.0
        return max(abs(value), _OF_THE_GAIN * gained)

    def confirmed(self, found: HypergradientResult) -> HypergradientResult:
        """Return an evaluation at the finest tolerances where a looser one converges."""
        if self._is_finest(found) or not self._is_small(found):
            return found
        return self.F.evaluate(found.solution.x, certify=False)

    def _is_small(self, found: HypergradientResult) -> bool:
        return self._size(found) <= self.tol * self.scale(found.value)

    def _is_finest(self, found: HypergradientResult) -> bool:
        return found.tol <= self.F.tol and found.adjoint_tol <= self.F.adjoint_tol

    def accept(self, found: HypergradientResult, memory: Memory) -> None:
        """Record an accepted iterate, report it, and set the status that ends the run."""
        ended = self._record(found, memory)
        record = self.history[-1]
        if self.bar is not None:
            self.bar.set_postfix_str(
                f"F={record.value:.5g}±{record.value_error:.0e} "
                f"|grad|={record.gradient_norm:.1e}±{record.gradient_error:.0e} "
                f"products={record.n_hvp}"
            )
            self.bar.update(record.nit > 0)
        stopped = self._call_back(found)
        self.status = ended or stopped
        if self.store is not None and record.nit % self.store.every == 0:
            self._save(self.store, self.state)

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
        if last.solution.x is not found.solution.x:
            self.before = last
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
        if not (self._is_small(found) and self._is_finest(found)):
            return None
        # A gradient that is small because a solve failed (on_failure) is no convergence.
        return _failure(found) or Status.CONVERGED

    def _measures(self, found: HypergradientResult) -> dict[str, Any]:
        """Return the fields of a record that an evaluation determines."""
        return {
            "value": found.value,
            "value_error": _value_error(self.F.upper, found),
            "gradient_norm": self._size(found),
            "gradient_error": _gradient_error(found),
            "lower_tol": found.tol,
            "adjoint_tol": found.adjoint_tol,
        }

    def _call_back(self, found: HypergradientResult) -> Status | None:
        if self.callback is None:
            return None
        state = OptimizeResult(_point(found), record=self.history[-1], fall=self.fall)
        for name in ("x", "jac", "y"):  # what a user writes into is the user's own
            state[name] = copied(state[name])
        stop = True
        with contextlib.suppress(StopIteration):
            stop = bool(self.callback(state))
        return Status.STOPPED_BY_CALLBACK if stop else None

    def result(
        self, status: Status, detail: str = "", *, message: str = ""
    ) -> BilevelResult:
        """Return the result: the best point, evaluated at the finest tolerances.

        ``detail`` follows the sentence of the status, ``message`` stands in its place.
        That evaluation is no part of the run: a checkpoint goes on from before it.
        """
        state = self.state
        ending = self._end(
            status, detail, message or _MESSAGES.get(status, status.value)
        )
        if self.store is not None:
            self._save(self.store, state, ending)
        if status not in {Status.CONVERGED, Status.STOPPED_BY_CALLBACK}:
            logger.warning("minimize ended after %d: %s", ending.nit, ending.message)
        return ending

    def _end(self, status: Status, detail: str, message: str) -> BilevelResult:
        """Evaluate the returned point at the finest tolerances, and certify it."""
        history, F = self.history.copy(), self.F
        found, failed = self._certified(status, history)
        if failed is not None:
            detail += (
                f" Value and gradient are of tolerance {found.tol:.1e}; their "
                f"evaluation at {F.tol:.1e} failed: {failed}"
            )
        wrong = _failure(found)
        if wrong is not None and wrong is not status:
            detail += f" The last evaluation failed: {wrong.value}"
        notes = self._limits(found)
        return BilevelResult(
            _point(found),
            success=status is Status.CONVERGED,
            status=status,
            message=f"{message} {detail}".strip(),
            nit=len(history) - 1,
            nfev=F.n_evaluations,
            n_hvp=F.n_hvp,
            n_grad=F.n_grad,
            history=history,
            certificate=found.certificate,
            warnings=(*found.warnings, *notes),
            limits=notes,
        )

    def _certified(
        self, status: Status, history: list[HistoryRecord]
    ) -> tuple[HypergradientResult, ConvergenceError | None]:
        """Return the best point with its certificate, and what failed.

        The last iterate where it converged or each step was an improvement by more than
        its error; else the lower of it and the one of the lowest value, both evaluated at
        the finest tolerances; the one before, too, where those evaluations fail or are not
        lower than it seemed.
        """
        last = len(history) - 1
        assert self.best is not None
        assert self.last is not None
        candidates = [(self.best, self.best_nit), (self.last, last)]
        if status is Status.CONVERGED or self.best_nit == last:
            candidates = candidates[1:]
        loose = any(record.lower_tol > self.F.tol for record in history)
        candidates = candidates if loose else candidates[:1]
        sharp, failed = [], None
        for found, nit in candidates:
            try:
                sharp.append((self._sharpened(found, nit, history), nit))
            except ConvergenceError as error:
                failed = error
        before, nit = self.before, last - 1
        if before is not None and nit >= 0 and status is not Status.CONVERGED:
            lowest = min((pair[0].value for pair in sharp), default=math.inf)
            if not lowest <= before.value:
                with contextlib.suppress(ConvergenceError):
                    sharp.append((self._sharpened(before, nit, history), nit))
        found, nit = min(sharp or candidates, key=lambda pair: pair[0].value)
        with contextlib.suppress(ConvergenceError):
            certificate = self.F.certify(found)
            found = dataclasses.replace(found, certificate=certificate)
            history[nit] = dataclasses.replace(
                history[nit],
                value_error=certificate.value_error,
                gradient_error=certificate.gradient_error,
            )
        return found, None if sharp else failed

    def _limits(self, found: HypergradientResult) -> tuple[str, ...]:
        """Say which parameters went so far that F no longer depends on them.

        Each has moved by 5 or more, a factor of 150 of a log-penalty; there its slope is
        what the tolerance asks for, and one unit back no more than ten times as much.
        """
        x, F = found.solution.x, self.F
        assert self.start is not None
        xp, moved = namespace(x), x - self.start
        far = xp.abs(moved) >= _FAR
        if self.lower is not None:  # a bound is the caller's own limit
            far = far & (x > self.lower) & (x < self.upper)
        small = self.tol * self.scale(found.value) / math.sqrt(x.shape[0] or 1)
        far = far & (xp.abs(found.gradient) <= small)
        if not bool(xp.any(far)):
            return ()
        back = self.project(x - xp.where(far, xp.sign(moved), 0.0 * x))
        try:
            slopes = F.evaluate(back, tol=max(F.tol, 1e-6), certify=False).gradient
        except ConvergenceError:
            return ()
        flat = far & (xp.abs(slopes) <= 10.0 * small)
        logs = callable(getattr(F.problem.objective, "curvature_scale", None))
        notes = []
        for up in (True, False):
            (which,) = xp.nonzero(flat & ((moved > 0.0) == up))
            if which.shape[0]:
                notes.append(_limit_note(which, x.shape[0], up, logs))
        return tuple(notes)

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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: object, error: BaseException | None, trace: object
    ) -> None:
        """Leave the best point and the checkpoint in an exception that ends the run."""
        if self.best is None or error is None:
            return
        record = self.history[self.best_nit]
        best = OptimizeResult(
            _point(self.best), record=record, history=self.history.copy()
        )
        path = None if self.store is None else self.store.path
        with contextlib.suppress(AttributeError, TypeError):
            error.best, error.checkpoint = best, path  # type: ignore[attr-defined]
            error.add_note(
                f"minimize had taken {self.history[-1].nit} steps; the best point so far, "
                f"F = {record.value:.6g} with an error of about "
                f"{record.value_error:.0e}, is in the attribute 'best' of this exception"
                + ("" if path is None else f", and the checkpoint is {path}")
            )

    def restore(self, x0: Array) -> BilevelResult | None:
        """Read the checkpoint where there is one; return the result of a run that ended.

        A run that ended by its callback or a smaller ``maxiter`` goes on.
        """
        saved = None if self.store is None else self.store.load(x0)
        if saved is None:
            return None
        self.F.state, learned = saved["state"]
        if self.auto is not None:
            self.auto.state = learned
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
        self,
        store: Store,
        state: tuple[WarmStart, Learned | None],
        ending: BilevelResult | None = None,
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


def _value_error(upper: UpperObjective, found: HypergradientResult) -> float:
    """Guess the error of a value from its correction, and from what that leaves."""
    left = remainder(upper, found.solution, found.adjoint, found.adjoint_error)
    return _BAR * abs(found.correction) + _REMAINDERS * left


def _gradient_error(found: HypergradientResult) -> float:
    """Guess the error of a gradient from those of y and λ, which it multiplies."""
    errors = (found.adjoint_error, found.solution.relative_error)
    known = (0.0 if e is None or math.isnan(e) else e for e in errors)
    bounds = zip(known, (found.adjoint_tol, found.tol), strict=True)
    return _GRADIENT_BAR * sum(map(max, bounds)) * norm(found.adjoint.x)


def _limit_note(which: Array, m: int, up: bool, logs: bool) -> str:
    """Return the sentence about parameters that went to a limit."""
    count = int(which.shape[0])
    first = ", ".join(str(int(which[k])) for k in range(min(count, _SHOWN)))
    names = first + (", ..." if count > _SHOWN else "")
    if not logs:
        end = "+infinity" if up else "-infinity"
        return (
            f"{count} of {m} parameters ({names}) went far towards {end}, and F no longer "
            "depends on them there: bound them, or hold them fixed"
        )
    end, left = ("infinite", "zero") if up else ("zero", "not penalised")
    return (
        f"{count} of {m} penalties ({names}) want to be {end}: their coefficients are "
        f"{left}, and F no longer depends on them"
    )
