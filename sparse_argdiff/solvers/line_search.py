"""A step along a descent direction: sufficient decrease, by value or by slope.

    f(y + α d) ≤ f(y) + δ α slope                        (Armijo), or where the values
    slope(α) ≤ (2δ − 1) slope,  f(y + α d) ≤ f(y) + ε|f(y)|     differ by rounding only

The second test (Hager & Zhang 2005) is exact for a quadratic, needs no value at all,
and is what makes the last digits of a Newton method attainable.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Protocol

from ..arrays import Array, dot, epsilon, norm
from ..status import Status

_DELTA = 1e-4
_SLOPE_DELTA = 0.1
_TRIALS = 50


class Function(Protocol):
    """What is searched: a Problem, or a merit function of one."""

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


class Travel:
    """Tell Newton steps that go on at one length from those that arrive.

    Towards a limit that is not reached, as in exp(−y) or in the log-likelihood of
    separable classes, each full step is as long as the last while the gradient falls
    by 1/e: it is soon below any tolerance, and y is nowhere.
    """

    def __init__(self) -> None:
        self._length, self._steps = 0.0, 0

    def step(self, length: float) -> None:
        """Take note of an accepted step."""
        self._steps = self._steps + 1 if length >= 0.95 * self._length else 0
        self._length = length

    def is_endless(self, relative_gradient: float, y: Array) -> bool:
        """Tell whether the gradient has gone to rounding while the steps have not."""
        return self._steps >= 5 and relative_gradient <= math.sqrt(epsilon(y))


def search(
    problem: Function,
    x: Array,
    y: Array,
    d: Array,
    value: float | None,
    slope: float,
    expand: bool,
) -> Step:
    """Search along d from y, first at α = 1; ``expand`` when the length of d is a guess.

    Parameters
    ----------
    value : float or None
        f(x, y); None when the problem has none.
    slope : float
        f_Y(x, y)'d, which must be negative.
    """

    def at(alpha: float) -> _Trial:
        point = y + alpha * d
        grad = problem.grad(x, point)
        new = problem.value(x, point) if value is not None else None
        return _Trial(alpha, point, grad, new, dot(grad, d))

    def accepts(trial: _Trial) -> bool:
        if not trial.finite:
            return False
        flat = trial.slope <= (1.0 - 2.0 * _SLOPE_DELTA) * -slope
        if value is None or trial.value is None:
            return flat
        if trial.value <= value + _DELTA * trial.alpha * slope:
            return True
        noise = epsilon(y) ** (2 / 3) * abs(value)
        # Not a step too short to change the slope.
        return flat and trial.slope >= 0.9 * slope and trial.value <= value + noise

    def done(trial: _Trial, n_grad: int) -> Step:
        return Step(trial.y, trial.grad, trial.value, trial.alpha, n_grad, None)

    def failed(status: Status, n_grad: int) -> Step:
        return Step(y, d, value, 0.0, n_grad, status)

    if not slope < 0.0:
        return failed(
            Status.NOT_FINITE if math.isnan(slope) else Status.LINE_SEARCH_FAILED, 0
        )
    trial = at(1.0)
    n_grad = 1
    if expand and accepts(trial):
        while trial.slope < 0.0:
            further = at(4.0 * trial.alpha)
            n_grad += 1
            falls = further.value is None or (
                trial.value is not None and further.value < trial.value
            )
            if further.value == -math.inf or norm(further.y) > 1.0 / epsilon(y) ** 2:
                return failed(Status.UNBOUNDED, n_grad)
            if not (further.finite and accepts(further) and falls):
                break
            trial = further
        return done(trial, n_grad)
    shortest = epsilon(y) * norm(y) / norm(d)
    while not accepts(trial):
        alpha = trial.alpha * _shrink(trial, value, slope)
        if n_grad >= _TRIALS or alpha <= shortest:
            bad = Status.LINE_SEARCH_FAILED if trial.finite else Status.NOT_FINITE
            return failed(bad, n_grad)
        trial = at(alpha)
        n_grad += 1
    return done(trial, n_grad)


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
