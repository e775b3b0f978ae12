"""Proximal Newton on a working set of explicit columns.

    d = argmin f_Y'd + ½ d'f_YY d + Ω(y + d)   over the working set,     y += α d

The working set is the support with the blocks whose forces exceed their weights most, at
most as many again, until none is left outside.  f_YY is formed for its members alone, once an iteration
(for a quadratic f once), and each iteration costs one gradient of all coefficients.  Once
a step leaves a twentieth of itself the next ones keep f_YY, which is what costs most.
Where f is flat beyond a narrow bend, and a step by f_YY is too long, steps by parabolas
above f take turns with it (``objective.majoriser()``); their end needs a duality gap.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from typing import Any

import numpy as np

from ..arrays import epsilon, norm
from ..problem.group_penalty import GroupL1
from ..problem.kinks import Kinks, kinks
from ..problem.metric import metric_of
from ..problem.penalties import L1
from ..problem.problem import Problem
from ..problem.support import LARGEST_BLOCK, hess_block
from ..status import Status
from .duality import Gap, duality_gap
from .penalised_model import Blocks, ModelSolution, PenalisedModel, metric_norm
from .stopping import NewtonIterate, NewtonStep, StoppingTest

logger = logging.getLogger(__name__)

_FIRST = 64  # blocks that a working set starts with, beside the support
_SPARE = 1.2  # what the next set keeps of the last one, for each of the support
_HALVINGS = 40
_REFINED = 3  # models minimised to the last digits for the sake of the gap
_DELTA = 1e-4
_FLAT = 1e-12  # of the curvature of the majoriser: none but rounding
_LONGEST = 4  # steps with the majoriser between two with f_YY
_KEEPS = 0.05  # f_YY is kept after a step that left no more than that share of itself


@dataclasses.dataclass
class PathEnd:
    """Where a run ended, and what it cost."""

    y: Any
    status: Status
    niter: int = 0
    n_hvp: int = 0
    n_grad: int = 0
    relative_error: float | None = None
    notes: tuple[str, ...] = ()
    singular: bool = False  # the curvature on the support
    gap: Gap | None = None  # at y
    multipliers: Any = None  # of equality rows

    def with_another(self, other: PathEnd) -> PathEnd:
        """Return the record of two runs side by side: the worse status, all costs."""
        worse = other.status is not Status.CONVERGED
        if not self.status.acceptable:
            worse = False
        return PathEnd(
            other.y,
            other.status if worse else self.status,
            max(self.niter, other.niter),
            self.n_hvp + other.n_hvp,
            self.n_grad + other.n_grad,
            max(self.relative_error or 0.0, other.relative_error or 0.0),
            tuple(dict.fromkeys((*self.notes, *other.notes))),
            self.singular or other.singular,
        )


def _largest(values: Any, index: Any, most: int) -> Any:
    """Return the part of an index, ``most`` at most, whose values are largest."""
    if index.shape[0] <= most:
        return index
    return (
        index[np.argpartition(values[index], -most)[-most:]] if most > 0 else index[:0]
    )


class WorkingSet:
    """The blocks of a penalty of norms, and those of them that are in the working set."""

    def __init__(self, problem: Problem, x: Any, y: Any) -> None:
        penalty, n = problem.penalty, y.shape[0]
        if isinstance(penalty, GroupL1):
            labels = np.asarray(penalty.blocks)
            weights = np.zeros(int(labels.max(initial=-1)) + 1)
            weights[: penalty.n_groups] = penalty.group_weights(x, y)
            self.order = np.argsort(labels, kind="stable")
            self.labels: Any | None = labels
            self.scalar = weights.shape[0] == n
        else:
            labels, weights = (
                np.arange(n),
                np.asarray(penalty.weights(x, y), np.float64),
            )
            self.order, self.labels, self.scalar = labels, None, True
        self.ridge = np.asarray(penalty.ridge(x, y), np.float64)
        self.lower, self.upper = (
            np.asarray(v, np.float64) for v in problem.bounds(x, y)
        )
        self._labels, self.weights = labels, weights
        self.chosen = weights == 0.0
        self.excluded = ~np.isfinite(weights)
        self.target = self.spare = _FIRST

    def members(self) -> Any:
        """Return the coordinates of the working set, sorted by block."""
        if self.labels is None:
            return np.flatnonzero(self.chosen)
        found: Any = self.order[self.chosen[self._labels[self.order]]]
        return found

    def choose(self, y: Any, found: Kinks) -> int:
        """Choose the set for the next step; return how many blocks are new in it.

        These are the support, the blocks that exceed their weights most, and the most
        active of the last set.
        """
        before = self.chosen
        chosen = self.weights == 0.0
        chosen[self._labels[y != 0.0]] = True
        over = np.zeros(chosen.shape[0])
        np.maximum.at(over, self._labels, np.asarray(found.activity))
        over[chosen | self.excluded] = 0.0
        (outside,) = np.nonzero((over > 1.0) & ~before)
        outside = _largest(over, outside, max(self.target, int(before.sum())))
        chosen |= before & (over > 1.0)
        chosen[outside] = True
        (others,) = np.nonzero(before & ~chosen & ~self.excluded)
        chosen[_largest(over, others, self.spare - int(chosen.sum()))] = True
        self.chosen = chosen
        return int(outside.shape[0])

    def blocks(self, index: Any) -> Blocks:
        """Return the penalty on the members."""
        labels = self._labels[index]
        first = np.flatnonzero(np.diff(labels, prepend=-1))
        return Blocks(
            np.append(first, index.shape[0]),
            self.weights[labels[first]],
            self.ridge[index],
            self.lower[index],
            self.upper[index],
        )


def has_columns(problem: Problem, x: Any, y: Any) -> bool:
    """Tell whether the entries of f_YY can be formed, and the penalty is one of norms."""
    if not isinstance(y, np.ndarray) or not isinstance(problem.penalty, L1 | GroupL1):
        return False
    first = np.arange(min(1, y.shape[0]))
    return hess_block(problem, x, y, first) is not None


def majoriser_of(problem: Problem) -> Any:
    """Return f with curvatures of parabolas above it, None where none is known."""
    bound = getattr(problem.objective, "majoriser", None)
    return bound() if callable(bound) and not problem.maximize else None


class WorkingSetNewton:
    """One run; the counters are its state."""

    def __init__(self, problem: Problem, x: Any, test: StoppingTest) -> None:
        self.problem, self.x, self.test = problem, x, test
        self.niter = self.n_grad = self.n_hvp = 0
        self.singular = False
        self.excess = math.inf
        self.refined = 0
        self.gap: tuple[Any, Gap | None] = (None, None)  # the last y with its gap
        self.last: tuple[Any, Any] | None = None  # the last index with its f_YY
        self.rate = math.inf  # what the last step left, as a share of it
        self.work = 0.0  # of the sweeps
        self.kept = False  # whether the last step had the f_YY of one before
        self.still = False  # whether what is left after it is rounding
        self.majoriser = majoriser_of(problem)
        self.majorised = False  # whether the last step had its curvature
        self.pause, self.longer = 0, 1  # steps with it before f_YY is tried again

    def run(self, y: Any, grad: Any = None) -> PathEnd | None:
        """Minimise from y, of gradient f_Y if known.

        None where the working set outgrows what is formed.
        """
        problem, x = self.problem, self.x
        if grad is None:
            grad, value = self.at(y)
        else:
            value = problem.total(x, y)
        hess = (self.majoriser or problem).hess(x, y)
        self.metric, self.n_hvp = metric_of(hess, y, grad)
        working = WorkingSet(problem, x, y)
        found = self.kinks(y, grad)
        settled: Status | None = None
        while True:
            status = self.before(y, grad, value, found, settled)
            if status is not None:
                return self.end(y, status)
            grown = working.choose(y, found)
            if settled is not None and grown == 0 and not self.refined:
                return self.end(y, settled)
            index = working.members()
            if index.shape[0] > LARGEST_BLOCK:
                return None
            step = self.step(y, grad, value, working, index)
            if isinstance(step, Status):
                return self.end(y, step)
            y, grad, value, settled = step
            found = self.kinks(y, grad)
            support = int((y != 0.0).sum())
            working.target, working.spare = 2 * support, int(_SPARE * support)

    def at(self, y: Any) -> tuple[Any, float]:
        """Return f_Y and f + Ω."""
        self.n_grad += 1
        grad = self.problem.grad(self.x, y)
        return grad, self.problem.total(self.x, y)

    def kinks(self, y: Any, grad: Any) -> Kinks:
        """Return the kinks, and note by how much forces exceed them."""
        found = kinks(self.problem, self.x, y, grad)
        assert found is not None
        self.excess = norm(found.excess(self.metric))
        return found

    def before(
        self,
        y: Any,
        grad: Any,
        value: float,
        found: Kinks,
        settled: Status | None,
    ) -> Status | None:
        """Return how the iteration ends at this point, None: a step is wanted."""
        pull = np.where(np.asarray(found.held), 0.0, grad + found.grad)
        size = math.hypot(norm(pull), self.excess)
        if not math.isfinite(norm(grad)):
            size = math.nan
        iterate = NewtonIterate(self.niter, y, value, size, self.n_hvp)
        status = self.test.before(iterate)
        if status is None and settled is not None:
            # Forces of what is outside are lengths of steps as any other.
            unit = 64.0 * epsilon(y)
            least = max(self.test.tol, unit) * self.test.length
            rounding = unit * norm(self.metric.forces(grad))
            if self.excess <= max(least, rounding) and self.closes(y):
                return settled
        return status

    def closes(self, y: Any) -> bool:
        """Tell whether the duality gap is small enough, or will not get smaller.

        Otherwise the next model is minimised to the last digits.
        """
        gap = duality_gap(self.problem, self.x, y)
        self.gap = y, gap
        if gap is None or gap.closes(self.test.tol) or self.refined >= _REFINED:
            return True
        self.refined += 1
        return False

    def proves(self, y: Any) -> bool:
        """Tell whether the duality gap is small enough, or unknown where nothing moves y."""
        gap = duality_gap(self.problem, self.x, y)
        return self.still if gap is None else gap.closes(self.test.tol)

    def end(self, y: Any, status: Status) -> PathEnd:
        """Return the record."""
        notes = (
            ("columns of the support depend on each other: the solution is not unique",)
            if self.singular
            else ()
        )
        error = self.test.relative_error
        return PathEnd(
            y, status, self.niter, self.n_hvp, self.n_grad, error or 0.0, notes,
            self.singular, self.gap[1] if self.gap[0] is y else None,
        )  # fmt: skip

    def step(
        self,
        y: Any,
        grad: Any,
        value: float,
        working: WorkingSet,
        index: Any,
    ) -> tuple[Any, Any, float, Status | None] | Status:
        """Return the next point with gradient and value, and how Newton's test ended."""
        G = self.curvature(y, index)
        b = np.asarray(y[index], np.float64)
        blocks = working.blocks(index)
        if not (np.isfinite(G).all() and np.isfinite(grad[index]).all()):
            return Status.NOT_FINITE
        self.niter += 1
        model = PenalisedModel(G, grad[index] - G @ b, blocks, self.work)
        # No more digits than what is left outside, or changes f_YY, leaves to them.
        tol = max(0.1 * self.test.tol, epsilon(b))
        if self.test.size > 0.0 and not self.refined:
            tol = max(tol, min(0.1 * self.excess / self.test.size, 0.1))
        found = model.minimise(b, tol)
        self.work = model.work
        d = np.zeros_like(y)
        d[index] = found.b - b
        alpha, new, new_grad, new_value = self.search(y, grad, value, d)
        if alpha < 1.0 and self.takes_majoriser() and alpha == 0.0:
            return y, grad, value, None
        if alpha == 0.0:
            change = float(grad @ d) + self.problem.penalty.value(self.x, y + d)
            change -= self.problem.penalty.value(self.x, y)
            return self.without_step(model, found, b, abs(change) <= _noise(y, value))
        if alpha == 1.0:
            new[index] = found.b  # to the last bit, zeros too
        length = math.sqrt(max(float((found.b - b) @ (G @ (found.b - b))), 0.0))
        self.test.square = float(found.b @ (G @ found.b))
        self.test.moved(y, norm(d), alpha * length)
        logger.debug(
            "proximal_newton %d: working set %d, support %d, step %.1e, sweeps %d",
            self.niter, index.shape[0], (new != 0.0).sum(), length, found.sweeps,
        )  # fmt: skip
        if alpha < 1.0:
            self.rate = math.inf
            return new, new_grad, new_value, None
        settled = self.after(model, found, new_grad, index, length)
        if self.majorised and settled is not None and not self.proves(new):
            self.pause, settled = 0, None
        return new, new_grad, new_value, settled

    def curvature(self, y: Any, index: Any) -> Any:
        """Return f_YY on the index, that of the last step where it serves."""
        if self.bounds_curvature(y, index):
            assert self.majoriser is not None
            return self.majoriser.hess_block(self.x, y, index)
        near = self.rate <= _KEEPS and not self.refined
        self.kept = near and np.array_equal(self.last[0], index) if self.last else False
        if not self.kept:
            G = hess_block(self.problem, self.x, y, index)
            assert G is not None
            self.last = index, np.asarray(G, np.float64)
        assert self.last is not None
        return self.last[1]

    def takes_majoriser(self) -> bool:
        """Let the next steps have the curvature of the majoriser, and tell if they will."""
        if self.majoriser is None or self.majorised:
            return False
        self.pause, self.longer = self.longer, min(2 * self.longer, _LONGEST)
        return True

    def bounds_curvature(self, y: Any, index: Any) -> bool:
        """Tell whether a step takes the curvature of the majoriser.

        It does after steps that were too long, and where f has no other curvature: beyond
        the width of a loss that is linear there.
        """
        self.majorised = False
        if self.majoriser is None:
            return False
        own, above = (
            np.asarray(f.hess(self.x, y).diagonal())[index]
            for f in (self.problem, self.majoriser)
        )
        flat = bool(((own <= _FLAT * above) & (above > 0.0)).any())
        self.majorised = flat or self.pause > 0
        self.pause = max(self.pause - 1, 0)
        return self.majorised

    def after(
        self,
        model: PenalisedModel,
        found: ModelSolution,
        whole: Any,
        index: Any,
        length: float,
    ) -> Status | None:
        """Return what the test says of a full step."""
        b, grad = found.b, whole[index]
        pull = grad + model.blocks.slopes(b)[0] + model.blocks.ridge * b
        S = model.free(b, grad)  # by the forces of f: a bound may hold no more
        self.singular = found.factor is None and bool(found.free.any())
        factor = _of_size(found.factor, S) if np.array_equal(S, found.free) else None
        left = metric_norm(factor, model.root[S], np.asarray(pull[S], np.float64))
        self.rate = left / length if length > 0.0 else math.inf
        # The forces are no better known than to rounding of their terms.
        forces = norm(grad / model.root), norm(self.metric.forces(whole))
        noise = 16.0 * epsilon(whole) * max(forces)
        self.still = max(left, found.error) <= noise
        if self.still:
            self.test.relative_error = left / (self.test.size or 1.0)
            met = left <= self.test.tol * self.test.size or self.test.size <= noise
            return Status.CONVERGED if met else Status.ROUNDING_LIMIT
        if self.majorised:  # which converges as a geometric series
            rate, self.rate = min(self.rate, 1.0), math.inf
            self.test.restart()
            error = length * rate / (1.0 - rate) if rate < 1.0 else math.inf
            self.test.relative_error = error / (self.test.size or 1.0)
            met = error <= self.test.tol * self.test.size
            return Status.CONVERGED if met else None
        if self.kept:
            error = max(left, found.error)
            self.test.relative_error = error / (self.test.length or 1.0)
            met = error <= self.test.tol * self.test.length
            return Status.CONVERGED if met else None
        step = NewtonStep(
            decrement=max(length, left),
            inner_error=found.error,
            gradient=max(length, left),
            new_gradient=left,
            model_error=left,
            largest=1.0,
        )
        if step.gradient == 0.0:
            self.test.relative_error = 0.0
            return Status.CONVERGED
        return self.test.after(step)

    def search(
        self, y: Any, grad: Any, value: float, d: Any
    ) -> tuple[float, Any, Any, float]:
        """Return α, the point y + α d, its gradient and value; α = 0 where none is lower."""
        problem, x = self.problem, self.x
        penalty = problem.penalty
        before = penalty.value(x, y)
        change = float(grad @ d) + penalty.value(x, y + d) - before
        noise = _noise(y, value)
        alpha = 1.0
        for _ in range(_HALVINGS):
            new = y + d if alpha == 1.0 else y + alpha * d
            new_grad, new_value = self.at(new)
            lower = new_value <= value + _DELTA * alpha * change
            short = abs(change) <= noise and new_value <= value + noise
            if math.isfinite(new_value) and (lower or short):
                return alpha, new, new_grad, new_value
            alpha *= 0.5
        return 0.0, y, grad, value

    def without_step(
        self, model: PenalisedModel, found: ModelSolution, b: Any, level: bool
    ) -> Status:
        """Tell rounding, where the model falls by no more (``level``), from a failure."""
        size, length = (
            math.sqrt(max(float(v @ (model.G @ v)), 0.0)) for v in (b, found.b - b)
        )
        self.test.relative_error = length / (size or 1.0)
        if level and length <= 1e-6 * size:
            return Status.ROUNDING_LIMIT
        return Status.LINE_SEARCH_FAILED


def _noise(y: Any, value: float) -> float:
    """Return how far values may differ by rounding."""
    return epsilon(y) ** (2 / 3) * abs(value)


def _of_size(factor: Any | None, S: Any) -> Any | None:
    """Return the factor where it is that of the final support."""
    return factor if factor is not None and factor.shape[0] == int(S.sum()) else None
