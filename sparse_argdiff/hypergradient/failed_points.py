"""What F(x) returns where a solve fails, so that another library's search goes on.

    q(p) = F + ∇F'p + ½ β ‖p‖²,    β = |∇F'p| / (θ ‖p‖²)        at x + p, F and ∇F those at x

x is the point of the lowest value so far.  q interpolates F and its slope there, has its
minimum at θ p where ∇F'p < 0, and is above F at p: a line search refuses the point, and its
interpolation goes back to about θ p, within the range where the solves succeed.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections import Counter
from typing import Literal

from ..arrays import Array, brief, copied, dot, namespace, norm
from ..status import ConvergenceError, ConvergenceWarning

FailedValue = float | Literal["barrier"]

_LEAST = 0.1  # θ


@dataclasses.dataclass(frozen=True, eq=False)
class Failures:
    """The points at which F had no value, see ``failed_value`` of :class:`Hypergradient`.

    Attributes
    ----------
    count : int
        Of these points; ``len(failures)``.
    causes : dict
        How many failed with each ``Status``.
    lowest, highest : array (m,) or None
        The least and the largest entries of x among them.
    last : ConvergenceError or None
        The last error.
    """

    count: int = 0
    causes: Counter = dataclasses.field(default_factory=Counter)  # type: ignore[type-arg]
    lowest: Array | None = None
    highest: Array | None = None
    last: ConvergenceError | None = None

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        names = {status.name: k for status, k in self.causes.items()}
        return brief("Failures", {"count": self.count, **names})

    def __str__(self) -> str:
        if not self.count or self.lowest is None or self.highest is None:
            return "no solve failed"
        xp = namespace(self.lowest)
        causes = ", ".join(f"{s.name} at {k}" for s, k in self.causes.most_common())
        points = "1 point" if self.count == 1 else f"{self.count} points"
        least, most = float(xp.min(self.lowest)), float(xp.max(self.highest))
        return (
            f"a solve failed at {points} ({causes}), whose entries of x reach "
            f"from {least:.3g} to {most:.3g}; bounds on x would keep the search from them. "
            f"The last said: {self.last}"
        )


class FailedPoints:
    """The best point so far, and what stands for the value where a solve fails.

    Of the value None the error itself does: it is raised.

    Attributes
    ----------
    failures : Failures
        So far.
    """

    def __init__(self, value: FailedValue | None) -> None:
        barrier = isinstance(value, str) and value == "barrier"
        if not (barrier or value is None or isinstance(value, int | float)):
            raise ValueError(
                f"failed_value must be 'barrier', a number or None, found {value!r}"
            )
        self._value = value
        self._best: tuple[float, Array, Array] | None = None
        self._last: Array | None = None
        self.failures = Failures()

    def keep(self, x: Array, value: float, gradient: Array) -> None:
        """Note a value that was had, and its gradient."""
        if self._value is not None and (self._best is None or value < self._best[0]):
            self._best = value, copied(x), copied(gradient)

    def instead(self, x: Array, error: ConvergenceError) -> tuple[float, Array]:
        """Return value and gradient for a point at which F has none; raise before any."""
        if self._best is None:
            raise error
        self._note(x, error)
        lowest, best, gradient = self._best
        way, beta = x - best, self.curvature(x)
        if self._value is None or isinstance(self._value, str):
            value = lowest + dot(gradient, way) + 0.5 * beta * dot(way, way)
        else:
            value = float(self._value)
        return value, gradient + beta * way

    def value_instead(self, x: Array, error: ConvergenceError) -> float:
        """Return the value alone; a number needs no earlier one."""
        if self._value is None or isinstance(self._value, str):
            return self.instead(x, error)[0]
        self._note(x, error)
        return float(self._value)

    def curvature(self, x: Array) -> float:
        """Return β at a point x that failed."""
        assert self._best is not None
        lowest, best, gradient = self._best
        way = x - best
        square, slope = dot(way, way), abs(dot(gradient, way))
        if not slope > 0.0:  # across the gradient, or at a stationary point
            slope = norm(gradient) * math.sqrt(square) or abs(lowest) or 1.0
        return slope / (_LEAST * square) if square > 0.0 else 0.0

    def has(self, x: Array) -> bool:
        """Tell whether x is the last point that failed."""
        last = self._last
        return last is not None and bool(namespace(x, last).all(x == last))

    def _note(self, x: Array, error: ConvergenceError) -> None:
        old, xp = self.failures, namespace(x)
        low = x if old.lowest is None else xp.minimum(old.lowest, x)
        high = x if old.highest is None else xp.maximum(old.highest, x)
        self._last = copied(x)
        self.failures = Failures(
            old.count + 1,
            old.causes + Counter([error.status]),
            copied(low),
            copied(high),
            error,
        )
        if not old.count:
            warnings.warn(
                "F(x) has no value at a point that was tried, and the search goes on with "
                f"failed_value={self._value!r} there; F.failures says at the end how many "
                f"there were, and why. This one: {error}",
                ConvergenceWarning,
                stacklevel=4,
            )
