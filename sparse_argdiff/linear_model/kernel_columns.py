"""Columns and the diagonal of a kernel matrix, of an operator by products that are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import HostArray
from ..operators.linear_operator import aslinearoperator

_CACHED = 2**24  # entries of the columns of an operator that are kept


def columns_of(K: Any, size: int, dtype: Any) -> Callable[[int], HostArray]:
    """Return the function i ↦ K[:, i], (size,)."""
    if isinstance(K, np.ndarray):
        return lambda i: K[i]
    operator, most = aslinearoperator(K), _CACHED // size
    known: dict[int, Any] = {}

    def column(i: int) -> Any:
        if i in known:
            return known[i]
        unit = np.zeros(size, dtype)
        unit[i] = 1.0
        found = operator @ unit
        if len(known) < most:
            known[i] = found
        return found

    return column


def diagonal_of(K: Any, size: int) -> HostArray:
    """Return the diagonal of K, by products where it is not known."""
    operator = aslinearoperator(K)
    if operator.has_diagonal:
        return np.asarray(operator.diagonal())
    units = np.eye(size)
    return np.array([float((operator @ unit)[i]) for i, unit in enumerate(units)])
