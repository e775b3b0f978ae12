"""Rows of C that depend on each other, whose right-hand sides x must move together.

C'w = 0  ⇒  h_X'w = 0
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..arrays import Array, asarray, epsilon, namespace, norm, zeros
from ..krylov.saddle_point import null_space_of
from ..operators.linear_operator import LinearOperator


def motion_of_dependent_rows(
    C: Any, null_space: Any, B: LinearOperator, like: Array
) -> float:
    """How far x moves rows of C apart that depend on each other, relatively.

    An adjoint solve, whose right-hand side is zero on them, does not fail: instead
    (0, w) with C'w = 0 must be orthogonal to each column of B, relative to random w,
    of rows in the units of their lengths.
    """
    rows = null_space_of(C) if null_space is None else null_space
    if rows.rank == rows.shape[0]:
        return 0.0
    xp, (p, k), rng = namespace(like), rows.shape, np.random.default_rng(0)
    none = zeros((k,), like)

    def random() -> Array:
        return asarray(rng.standard_normal(p), like)

    w = rows.redundancy(random())
    lengths = rows.metric_row_lengths

    def moved(w: Array) -> Array:
        return B.T @ xp.concat([none, w / lengths])

    w = w * lengths
    size = norm(w)
    if not _is_redundant(rows, w / lengths, size):
        return 0.0
    apart = xp.abs(moved(w)) / size
    square = sum((moved(random()) ** 2 for _ in range(4)), 0.0 * apart)
    whole = xp.where(square > 0.0, xp.sqrt(square), xp.ones_like(square))
    return float(xp.max(apart / whole)) if apart.shape[0] else 0.0


def _is_redundant(rows: Any, w: Array, size: float) -> bool:
    """Tell whether C'w = 0 to half the digits, and w is no rounding of a random vector."""
    p = rows.shape[0]
    random = asarray(np.random.default_rng(1).standard_normal(p), w)
    left = norm(rows.C.T @ w)
    whole = norm(rows.C.T @ (random / rows.metric_row_lengths))
    least = getattr(rows, "resolution", math.sqrt(epsilon(w)))
    return size > 1e-3 and left <= least * max(whole, left) * size
