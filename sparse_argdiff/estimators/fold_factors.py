"""A factor of the block-diagonal Hessian of the folds, where the blocks are small.

    K = blockdiag(H_1, …, H_Q),    K E = (H_1; …; H_Q),    E = (I; …; I)

n products with all folds at once give the blocks of n unknowns, dense; their Cholesky
factors precondition the solves at this K and at the nearby ones of the next Newton steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from ..operators.linear_operator import LinearOperator

MOST = 400  # unknowns of a block
ENTRIES = 2**22  # of all blocks, 32 MB


class FoldFactors:
    """The function K → M of one search, M ≈ K⁻¹ from the factors of the blocks."""

    def __init__(self, size: int) -> None:
        self.size = size

    @classmethod
    def where_small(cls, count: int, size: int) -> FoldFactors | None:
        """Return factors for ``count`` blocks of ``size``, None where they are large."""
        fits = size <= MOST and count * size**2 <= ENTRIES
        return cls(size) if fits else None

    def __call__(self, K: LinearOperator) -> LinearOperator | None:
        """Return M, or None where a block is not definite to rounding."""
        size = self.size
        count = K.shape[0] // size  # all folds, or one of them
        columns: Any = K @ np.tile(np.eye(size), (count, 1))
        blocks = columns.reshape(count, size, size)
        blocks = 0.5 * (blocks + np.swapaxes(blocks, 1, 2))
        # In units in which the diagonal is one.
        diagonal = np.einsum("qii->qi", blocks)
        if not (diagonal > 0.0).all() or not np.isfinite(blocks).all():
            return None
        units = 1.0 / np.sqrt(diagonal)
        try:
            factors = [
                cho_factor(block * np.outer(unit, unit))
                for block, unit in zip(blocks, units, strict=True)
            ]
        except np.linalg.LinAlgError:
            return None

        def solve(v: Any) -> Any:
            parts = v.reshape(count, size, -1)
            found = [
                unit[:, None] * cho_solve(factor, unit[:, None] * part)
                for factor, unit, part in zip(factors, units, parts, strict=True)
            ]
            return np.concatenate(found).reshape(v.shape)

        return LinearOperator(
            K.shape,
            solve,
            matmat=solve,
            dtype=K.dtype,
            symmetric=True,
            positive_definite=True,
        )
