"""The criterion by which upper-level iterations end, for optimisers of other libraries.

    ‖∇F‖_free ≤ tol · max(|F(x)|, 10⁻³ (F(x0) − F(x)))

with the entries of ∇F that do not push x against a bound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..arrays import Array, namespace, norm
from .result import HypergradientResult


def is_stationary(
    found: HypergradientResult, first: float, tol: float, low: Any, high: Any
) -> bool:
    """Tell whether an evaluation meets the criterion; ``first`` is F(x0)."""
    x, g, xp = found.solution.x, found.gradient, namespace(found.gradient)
    pushed = xp.zeros(g.shape, dtype=bool)
    pushed = pushed if low is None else pushed | ((x <= low) & (g > 0.0))
    pushed = pushed if high is None else pushed | ((x >= high) & (g < 0.0))
    scale = max(abs(found.value), 1e-3 * (first - found.value))
    return norm(xp.where(pushed, 0.0 * g, g)) <= tol * scale


def stopping_callback(
    evaluated: Callable[[Array], HypergradientResult | None],
    first: Callable[[], float | None],
    tol: float,
    low: Any,
    high: Any,
) -> Callable[[Any], None]:
    """Return a callback for SciPy that stops at the criterion.

    ``evaluated(x)`` returns the evaluation at an iterate, if it is known; ``first()`` F(x0).
    """

    def callback(intermediate_result: Any) -> None:
        found, start = evaluated(intermediate_result.x), first()
        if found is None or start is None:
            return
        if is_stationary(found, start, tol, low, high):
            raise StopIteration

    return callback
