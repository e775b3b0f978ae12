"""Bounds on x, in the forms that SciPy accepts."""

from __future__ import annotations

import math
import numbers
from typing import Any

from scipy.optimize import Bounds

from ..arrays import Array, as_data, asarray, namespace

_FORMS = (
    "(low, high), a sequence of m pairs, an (m, 2) array or a scipy.optimize.Bounds"
)


def as_bounds(bounds: Any, x0: Array) -> tuple[Array | None, Array | None]:
    """Return the lower and the upper bounds, of the shape of x0; None for none.

    A ValueError is raised for another form or size, NaN, and low > high.
    """
    if bounds is None:
        return None, None
    low, high = _low_high(bounds, x0.shape[0])
    low, high = (
        _as_bound("low", low, -math.inf, x0),
        _as_bound("high", high, math.inf, x0),
    )
    if not bool(namespace(x0).all(low <= high)):
        raise ValueError("bounds must have low <= high everywhere, and no NaN")
    return low, high


def _low_high(bounds: Any, m: int) -> tuple[Any, Any]:
    if isinstance(bounds, Bounds):
        return bounds.lb, bounds.ub
    pair = isinstance(bounds, tuple) and len(bounds) == 2
    if pair and not any(map(_is_pair, bounds)):
        return bounds[0], bounds[1]
    try:
        # The rows of an array are pairs, as SciPy reads them.
        pairs = bounds.tolist() if hasattr(bounds, "tolist") else list(bounds)
    except TypeError:
        pairs = []
    if len(pairs) == m and all(_is_pair(p) and len(p) == 2 for p in pairs):
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    raise ValueError(f"bounds must be {_FORMS}, for m = {m}; found {bounds!r}")


def _is_pair(entry: Any) -> bool:
    """Return whether an entry is the pair of one parameter; arrays are whole bounds."""
    return isinstance(entry, tuple | list)


def _as_bound(name: str, given: Any, infinite: float, x0: Array) -> Array:
    if isinstance(given, list):
        given = [infinite if entry is None else float(entry) for entry in given]
    if not (given is None or isinstance(given, numbers.Real)):
        given = as_data(f"bounds: {name}", given, finite=False)
    bound = asarray(infinite if given is None else given, x0)
    if bound.ndim > 1 or bound.size not in {1, x0.shape[0]}:
        raise ValueError(
            f"bounds: {name} must be a number or have {x0.shape[0]} entries, found "
            f"shape {tuple(bound.shape)}"
        )
    return bound + 0.0 * x0
