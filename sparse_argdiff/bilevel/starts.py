"""Several starts: one common shift of x0, as a user tries one common penalty on a grid.

    x0 + c,    c = 0, −ln 10, ln 10, −2 ln 10, 2 ln 10, ...        the lowest F(x0 + c) wins

F is not convex, and the local minimum that a run ends at depends on its start.  A value takes
one loose solve from the y of the last one, far less than a run.
"""

from __future__ import annotations

import math
from typing import Any

from ..arrays import Array, as_count, namespace
from ..status import ConvergenceError
from .run import Run

_TOL = 1e-3


def as_starts(starts: Any) -> int:
    """Return a number of starts >= 1."""
    number = as_count("starts", starts)
    if number == 0:
        raise ValueError("starts must be >= 1, found 0: x0 itself is the first")
    return number


def lowest_start(run: Run, x0: Array, starts: int) -> Array:
    """Return the point of the lowest value among x0 and its common shifts, within the bounds.

    Shifts whose lower-level solve fails are left out; x0 where all fail.
    """
    xp, seen, values = namespace(x0), [run.project(x0)], []
    for k in range(1, starts):
        shift = math.log(10.0) * ((k + 1) // 2) * (-1.0 if k % 2 else 1.0)
        point = run.project(x0 + shift)
        if not any(bool(xp.all(point == other)) for other in seen):
            seen.append(point)
    if len(seen) == 1:
        return seen[0]
    # Neighbours one after the other: the y of one is near that of the next.
    seen.sort(key=lambda x: float(xp.sum(x)), reverse=True)
    for x in seen:
        try:
            values.append((run.F.value(x, tol=max(_TOL, run.F.tol)), x))
        except ConvergenceError:
            continue
    return min(values, key=lambda pair: pair[0])[1] if values else run.project(x0)
