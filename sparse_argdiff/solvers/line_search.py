"""A step along a descent direction: sufficient decrease, by value or by slope.

    f(y + α d) ≤ f(y) + δ α slope                        (Armijo), or where the values
    slope(α) ≤ (2δ − 1) slope,  f(y + α d) ≤ f(y) + ε|f(y)|     differ by rounding only

The second test (Hager & Zhang 2005) is exact for a quadratic, needs no value at all,
and is what makes the last digits of a Newton method attainable.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..arrays import Array, dot, epsilon, norm
from ..status import Status

_DELTA = 1e-4
_SLOPE_DELTA = 0.1
_TRIALS = 50


class Function(Protocol):
    """The function that is decreased: of a Problem, or a merit function of one."""

    def value(self, x: Array, y: Array) -> float:
        """Return the value."""

    def grad(self, x: Array, y: Array) -> Array:
        """Return the gradient by y."""


@dataclasses.dataclass(frozen=True)
class Step:
    """The accepted point, or a status that says why there is none."""

    y: Array
    grad: Array
    value: float | None
    alpha: float
    n_grad: int
    status: Status | None


@dataclasses.dataclass(frozen=True)
class _Trial:
    alpha: float
    y: Array
    grad: Array
    value: float | None
    slope: float

    @property
    def finite(self) -> bool:
        value = 0.0 if self.value is None else self.value
        return math.isfinite(value) and math.isfinite(self.slope)


class Evaluate(NamedTuple):
    """A request of a search or a solver for (gradient, value) at y.

    ``far``: whether y is so far that functions may overflow.
    """

    y: Array
    far: bool = False


Searching = Generator[Evaluate, tuple[Array, float | None], Any]


@dataclasses.dataclass(frozen=True)
class _Line:
    """f along y + α d, and which α decreases f enough."""

    y: Array
    d: Array
    value: float | None
    slope: float
    convex: bool

    def at(self, alpha: float) -> Searching:
        y = self.y + alpha * self.d
        grad, value = yield Evaluate(y)
        with np.errstate(invalid="ignore"):  # a step too long overflows
            return _Trial(alpha, y, grad, value, dot(grad, self.d))

    def accepts(self, trial: _Trial) -> bool:
        if not trial.finite:
            return False
        flat = trial.slope <= (1.0 - 2.0 * _SLOPE_DELTA) * -self.slope
        if self.value is None or trial.value is None:
            return flat
        noise = epsilon(self.y) ** (2 / 3) * abs(self.value)
        if self.convex and trial.value < self.value + trial.alpha * self.slope - noise:
            return False  # below its tangent: beyond a pole, or where f is concave
        if trial.value <= self.value + _DELTA * trial.alpha * self.slope:
            return True
        # Not a step too short to change the slope.
        changed = trial.slope >= 0.9 * self.slope
        return flat and changed and trial.value <= self.value + noise

    def done(self, trial: _Trial, n_grad: int) -> Step:
        return Step(trial.y, trial.grad, trial.value, trial.alpha, n_grad, None)

    def failed(self, status: Status, n_grad: int) -> Step:
        return Step(self.y, self.d, self.value, 0.0, n_grad, status)


def search(
    problem: Function,
    x: Array,
    y: Array,
    d: Array,
    value: float | None,
    slope: float,
    expand: bool,
    *,
    convex: bool = False,
    double: bool = False,
) -> Step:
    """Search along d from y, first at α = 1; ``expand`` when the length of d is a guess.

    Parameters
    ----------
    value : float or None
        f(x, y); None when the problem has none.
    slope : float
        f_Y(x, y)'d, which must be negative.
    convex : bool
        Whether f is taken for convex along d: a value below the tangent is then beyond
        a pole, and the step too long.
    double : bool
        Whether a step that was cut to where f is finite is doubled again while f falls
        steeply.  It comes close to that end, where a barrier has no digits left.
    """
    trials = searching(y, d, value, slope, expand, convex=convex, double=double)
    wanted = next_request(trials, None)
    while isinstance(wanted, Evaluate):
        grad = problem.grad(x, wanted.y)
        has_value = value is not None
        found = grad, problem.value(x, wanted.y) if has_value else None
        wanted = next_request(trials, found)
    step: Step = wanted
    return step


def next_request(run: Any, answer: Any) -> Any:
    """Send an answer; return the next request, or the result of a run that has ended."""
    try:
        return run.send(answer)
    except StopIteration as end:
        return end.value


def searching(
    y: Array,
    d: Array,
    value: float | None,
    slope: float,
    expand: bool,
    *,
    convex: bool = False,
    double: bool = False,
) -> Searching:
    """Run :func:`search`, whose arguments these are; it asks for each value it needs."""
    line = _Line(y, d, value, slope, convex)
    if not slope < 0.0:
        nan = math.isnan(slope)
        return line.failed(Status.NOT_FINITE if nan else Status.LINE_SEARCH_FAILED, 0)
    trial = yield from line.at(1.0)
    if not line.accepts(trial):
        return (yield from _backtrack(line, trial, double))
    if expand:
        return (yield from _expand(line, trial))
    return line.done(trial, 1)


def _expand(line: _Line, trial: _Trial) -> Searching:
    """Lengthen an accepted step fourfold while f falls."""
    n_grad, longest = 1, 1.0 / epsilon(line.y) ** 2
    while trial.slope < 0.0:
        further = yield from line.at(4.0 * trial.alpha)
        n_grad += 1
        if further.value == -math.inf or norm(further.y) > longest:
            return line.failed(Status.UNBOUNDED, n_grad)
        falls = further.value is None or (
            trial.value is not None and further.value < trial.value
        )
        if not (falls and line.accepts(further)):
            break
        trial = further
    return line.done(trial, n_grad)


def _backtrack(line: _Line, trial: _Trial, double: bool) -> Searching:
    """Shorten a step that was not accepted until one is."""
    n_grad, shortest = 1, epsilon(line.y) * norm(line.y) / norm(line.d)
    outside = math.inf
    while not line.accepts(trial):
        outside = outside if trial.finite else trial.alpha
        alpha = trial.alpha * _shrink(trial, line.value, line.slope)
        if n_grad >= _TRIALS or alpha <= shortest:
            bad = Status.LINE_SEARCH_FAILED if trial.finite else Status.NOT_FINITE
            return line.failed(bad, n_grad)
        trial = yield from line.at(alpha)
        n_grad += 1
    if not double or outside == math.inf:
        return line.done(trial, n_grad)
    return (yield from _double(line, trial, outside, n_grad))


def _double(line: _Line, trial: _Trial, outside: float, n_grad: int) -> Searching:
    """Double an accepted step while f falls steeply, short of where it is not finite."""
    while 2.0 * trial.alpha < outside and trial.slope < 0.5 * line.slope:
        further = yield from line.at(2.0 * trial.alpha)
        n_grad += 1
        if not line.accepts(further):
            break
        trial = further
    return line.done(trial, n_grad)


def search_by_size(
    point: Any, d: Array, at: Callable[[Array], Any], size: Callable[[Any], float]
) -> Step:
    """Halve the step until the residual of the conditions falls, ``size(at(y))``."""
    y, before, alpha = point.y, size(point), 1.0
    while alpha >= epsilon(y):
        new = at(y + alpha * d)
        if size(new) <= (1.0 - 1e-4 * alpha) * before:
            return Step(new.y, new.grad, None, alpha, 1, None)
        alpha *= 0.5
    return Step(y, d, None, 0.0, 0, Status.LINE_SEARCH_FAILED)


def _shrink(trial: _Trial, value: float | None, slope: float) -> float:
    """Return the factor for the next trial: a quadratic's minimum, kept in [0.1, 0.5]."""
    if not trial.finite:
        return 0.1
    if value is not None and trial.value is not None:
        rise = trial.value - value - trial.alpha * slope
        guess = -0.5 * slope * trial.alpha / rise if rise > 0.0 else 0.5
    else:
        change = trial.slope - slope
        guess = -slope / change if change > 0.0 else 0.5
    return min(max(guess, 0.1), 0.5)
