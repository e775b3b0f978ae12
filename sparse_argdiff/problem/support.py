"""The Hessian of f + Ω on the support of a penalty, explicit where the columns are.

    K = f_YY,SS + Ω_YY,SS

An objective whose entries are cheap to form has ``hess_block(x, y, index)``, (k, k).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array, HostArray, is_array
from ..operators.block_matrices import principal
from ..operators.linear_operator import LinearOperator, as_operator, aslinearoperator
from ..operators.structure import Structure
from .problem import Problem

LARGEST_BLOCK = 4000  # unknowns up to which a dense block is formed


def hess_block(problem: Problem, x: Array, y: Array, index: Array) -> HostArray | None:
    """Return f_YY of the function that is minimised on an index, or None: not explicit."""
    if not isinstance(y, np.ndarray) or index.shape[0] > LARGEST_BLOCK:
        return None
    block = getattr(problem.objective, "hess_block", None)
    if callable(block):
        found = block(x, y, index)
        if found is None:
            return None
        return -found if problem.maximize else found
    entries = aslinearoperator(problem.given("hess", x, y)).matrix
    entries = entries() if callable(entries) else entries
    if entries is None:
        return None
    if is_array(entries):
        found = np.asarray(entries)[np.ix_(index, index)]
    else:
        found = entries.tocsr()[index][:, index].toarray()
    return -found if problem.maximize else found


def on_support(problem: Problem, x: Array, y: Array, index: Array) -> LinearOperator:
    """Return the Hessian of f + Ω on an index inside the support, (k, k)."""
    curvature = as_operator("penalty.hess's result", problem.penalty.hess(x, y))
    block = hess_block(problem, x, y, index)
    if block is None:
        return principal(problem.hess(x, y) + curvature, index)
    block = np.array(block) + dense_curvature(curvature, index)

    def product(v: Any) -> Any:
        return block @ v

    return LinearOperator(
        block.shape,
        product,
        matmat=product,
        dtype=y.dtype,
        symmetric=True,
        diagonal=np.diagonal(block).copy(),
        structure=Structure(matrix=block),
    )


def dense_curvature(curvature: LinearOperator, index: Any) -> HostArray:
    """Return the entries of a curvature on an index."""
    if curvature.is_diagonal:
        return np.diag(np.asarray(curvature.diagonal()[index]))
    k, n = index.shape[0], curvature.shape[0]
    columns = np.zeros((n, k), dtype=curvature.dtype)
    columns[index, np.arange(k)] = 1.0
    return np.asarray((curvature @ columns)[index])
