"""When Newton's method ends: the error against lengths that do not depend on units.

    ‖e‖_H = (e' f_YY e)^½,    λ = ‖d‖_H,  d = − f_YY⁻¹ f_Y,    λ₊ ≤ tol · min(‖y‖_H, ρ)

λ is the error of y to first order.  It is compared with the length of y and with
ρ = λ² / λ₊, the length over which f_YY is constant: a derivative depends on y through
second derivatives alone.  y → D y + s with its start, f → c f leave the quotients as they are;
the norm of the gradient, in which unlike coordinates are added, decides nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, dot, epsilon, norm
from ..status import Status

MAXITER = 200  # Newton steps
FAR = 1024.0  # steps: more than a run can take
_FALLS = 0.95  # of the gradient, in a step towards a limit that is not attained
FLAT = 8192.0  # units of rounding: products tell curvatures of this share to a percent


@dataclasses.dataclass(frozen=True)
class NewtonIterate:
    """What a ``callback`` of ``solve`` gets, iteration 0 included; y is not a copy."""

    niter: int
    y: Array
    value: float | None
    gradient_norm: float
    n_hvp: int


Callback = Callable[[NewtonIterate], Any]


def asks_to_stop(callback: Callback | None, iterate: NewtonIterate) -> bool:
    """Call the callback with the iterate; True when it asks to stop."""
    if callback is None:
        return False
    try:
        answer = callback(iterate)
    except StopIteration:
        return True
    if getattr(answer, "shape", ()) != ():
        raise TypeError(
            "callback must return a true or false value, or None, found an array of "
            f"shape {tuple(answer.shape)}"
        )
    return bool(answer)


def falls_beyond(
    grad: Callable[[Array], Array], y: Array, far: Array, step: Array
) -> bool:
    """Tell whether f has not risen ``FAR`` steps from y, at a point that bounds may cut.

    Where it has, its minimum may lie many steps ahead: cosh(20 y) from y = 1 is exp(20 y) for
    twenty of them.  A slope of ``FAR`` times the present one is that of a parabola, which
    the rounding of a step makes of other directions.
    """
    ray = far - y
    if not norm(ray) >= 0.5 * FAR * norm(step):
        return False
    with np.errstate(all="ignore"):  # what overflows there does not fall
        return dot(grad(far), ray) <= FAR * FAR * abs(dot(grad(y), step))


class NewtonStep(NamedTuple):
    """What a full step y₊ = y + d has shown, lengths in the metric of f_YY."""

    decrement: float  # λ = ‖d‖_H
    inner_error: float  # of d, which the linear solve left
    gradient: float  # ‖f_Y‖_M at y, in the metric of the preconditioner
    new_gradient: float  # at y₊
    model_error: float  # ‖f_Y(y₊) − f_Y − f_YY d‖_M
    largest: float  # lower estimate of the largest eigenvalue of M f_YY
    flatness: float = 1.0  # ‖d‖²_H over ‖d‖² in the metric of f_YY's diagonal


class StoppingTest:
    """The test of one run; its owner keeps ``square`` = y'f_YY y up to date.

    Towards a limit that is not attained, as in exp(−y) or in the log-likelihood of
    separable classes, each full step is as long as the last while the gradient falls by
    1/e.  Where f falls on far ahead, too (``falls_beyond``), it is unbounded or has no
    minimiser, unless it is known to have one (``bounded``); where the gradient does not
    fall they are rounding.
    """

    def __init__(
        self,
        tol: float,
        maxiter: int | None,
        callback: Callback | None,
        *,
        bounded: Callable[[], bool] = lambda: False,
    ) -> None:
        self.tol, self.bounded = tol, bounded
        self.maxiter = MAXITER if maxiter is None else maxiter
        self.callback = callback
        self.square, self._unit = 0.0, 2.0**-52
        self.radius = math.inf  # ρ
        self.relative_error: float | None = None  # of y, after a full step
        self.error: float | None = None  # its length in the metric of the Hessian
        self._path = self._way = self._largest_step = self._last = 0.0
        self._length, self._not_shorter, self._not_halved = 0.0, 0, 0
        self._least, self._no_least = math.inf, 0

    def before(self, iterate: NewtonIterate) -> Status | None:
        """Return how the iteration ends at this iterate, or None: a step is wanted."""
        size, value = iterate.gradient_norm, iterate.value
        if not math.isfinite(size) or (value is not None and math.isnan(value)):
            return Status.NOT_FINITE
        if size == 0.0:
            return Status.CONVERGED
        if asks_to_stop(self.callback, iterate):
            return Status.STOPPED_BY_CALLBACK
        if iterate.niter >= self.maxiter:
            return Status.ITERATION_LIMIT
        return None

    @property
    def length(self) -> float:
        """What errors are compared with: the least of ‖y‖_H and ρ.

        Of a solution at zero it is what rounding leaves of the way there.
        """
        return max(min(self.size, self.radius), 64.0 * self._unit * self._way)

    @property
    def endless(self) -> bool:
        """Whether steps may lead to a limit that is not attained: none is shorter."""
        return self._not_shorter >= 5

    @property
    def size(self) -> float:
        """‖y‖_H."""
        return math.sqrt(max(self.square, 0.0))

    def moved(self, y: Array, length: float, step: float) -> None:
        """Record a step with ‖d‖₂ = ``length`` and ‖d‖_H = ``step``."""
        self._unit = epsilon(y)
        self._path += length
        # In the metric of here: far away f_YY may have been many times larger.
        self._way = self._path * (step / length) if length > 0.0 else 0.0
        shorter = length < 0.95 * self._length
        self._length = length
        self._not_shorter = 0 if shorter else self._not_shorter + 1

    def seen(self, length: float, energy: float) -> None:
        """Record ‖e‖₂ and ‖e‖_H, in any unit, of what is taken for the error of y.

        The way counts no more than in the metric along e: coordinates of a curvature many
        orders larger than what is left are at zero, but hide nothing of what is left.
        """
        if length > 0.0:
            self._way = min(self._way, self._path * (energy / length))

    def restart(self) -> None:
        """Forget the steps: the next point lies elsewhere."""
        self.radius, self._last, self._length = math.inf, 0.0, 0.0
        self._not_shorter = self._not_halved = 0
        self._least, self._no_least = math.inf, 0

    def after(self, step: NewtonStep) -> Status | None:
        """Return how the iteration ends after a full step, None: another one is wanted."""
        lam, rate = step.decrement, step.decrement / step.gradient
        noise = 32.0 * self._unit * math.sqrt(step.largest) * self.size
        bent = rate * step.model_error
        # Next to rounding the change of f_Y tells nothing of the change of f_YY.
        significant = step.model_error > noise and lam > 512.0 * self._unit * self.size
        self.radius = lam * lam / bent if significant and bent > 0.0 else math.inf
        self.error = error = math.hypot(step.inner_error, bent)
        self.relative_error = error / self.length if self.length else 0.0
        self._largest_step = max(self._largest_step, lam)
        if not step.new_gradient <= _FALLS * step.gradient:
            self._not_shorter = 0
        endless = self.endless
        fallen = lam <= math.sqrt(self._unit) * self._largest_step
        # Beside other directions products lose the curvature along d before λ has fallen.
        fallen = fallen or step.flatness <= FLAT * self._unit
        if endless and fallen and not self.bounded():
            return Status.UNBOUNDED
        if not self.size < math.inf:  # overflow: nothing is known to be short
            return None
        if error <= self.tol * self.length:
            # Beside other directions a flight is short long before it has faded.
            lost = endless and not self.bounded()
            return Status.UNBOUNDED if lost else Status.CONVERGED
        least = max(step.new_gradient, step.gradient)
        at_noise = least <= noise and step.new_gradient > 0.5 * step.gradient
        if not (self._stand_still(lam) or at_noise):
            return None
        # What changes f_Y here is rounding, and no sign of a short ρ.
        self.radius = math.inf
        self.relative_error = error / self.size if self.size else 0.0
        met = error <= self.tol * self.size
        return Status.CONVERGED if met else Status.ROUNDING_LIMIT

    def _stand_still(self, lam: float) -> bool:
        """Tell whether steps this short are those of rounding.

        None of eight is the shortest so far, or, of tiny ones, the last of two that are not
        halved: a step that each time shortens by a percent is a hundredth of the error.
        """
        # Far from the origin a step that is short relative to y may be long in itself.
        short = lam <= 1e-6 * self.size
        self._not_halved = (
            self._not_halved + 1 if short and lam > 0.5 * self._last else 0
        )
        self._no_least = self._no_least + 1 if short and lam >= self._least else 0
        self._last, self._least = lam, min(lam, self._least)
        tiny = lam <= self._unit ** (2 / 3) * self.size
        again = tiny and self._not_halved >= 2
        return self._no_least >= (1 if again else 8)
