"""A factor of the block-diagonal Hessian of the folds, where the blocks are small.

    K = blockdiag(H_1, …, H_Q),    K E = (H_1; …; H_Q),    E = (I; …; I)

n products with all folds at once give the blocks of n unknowns, dense; their Cholesky
factors precondition the solves at this K and at the nearby ones of the next Newton steps.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from ..operators.linear_operator import LinearOperator

MOST = 400  # unknowns of a block
ENTRIES = 2**22  # of all blocks, 32 MB


class FoldFactors:
    """The function K → M of one search, M ≈ K⁻¹ from the factors of the blocks.

    Of a block with a ``split`` the core's entries are kept as long as the core is, which is
    that of all penalties where the curvature of the loss is constant.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._cores: Any = weakref.WeakKeyDictionary()  # entries, last diagonal, its M

    @classmethod
    def where_small(cls, count: int, size: int) -> FoldFactors | None:
        """Return factors for ``count`` blocks of ``size``, None where they are large."""
        fits = size <= MOST and count * size**2 <= ENTRIES
        return cls(size) if fits else None

    def __call__(self, K: LinearOperator) -> LinearOperator | None:
        """Return M, or None where a block is not definite to rounding."""
        size = self.size
        if K.shape[0] == size and K.split is not None:
            core, diagonal = K.split
            entries, last, M = self._cores.get(core) or (
                core @ np.eye(size),
                None,
                None,
            )
            if last is None or not np.array_equal(last, diagonal):
                blocks = entries[None] + np.diag(diagonal)
                last, M = diagonal, _inverse(blocks, K)
            self._cores[core] = entries, last, M
            return M
        count = K.shape[0] // size  # all folds, or one of them
        columns: Any = K @ np.tile(np.eye(size), (count, 1))
        return _inverse(columns.reshape(count, size, size), K)


def _inverse(blocks: Any, K: LinearOperator) -> LinearOperator | None:
    """Return the inverse of the blocks of K, None where one is not definite to rounding."""
    count, size, _ = blocks.shape
    blocks = 0.5 * (blocks + np.swapaxes(blocks, 1, 2))
    # In units in which the diagonal is one.
    diagonal = np.einsum("qii->qi", blocks)
    if not (diagonal > 0.0).all() or not np.isfinite(blocks).all():
        return None
    units = 1.0 / np.sqrt(diagonal)
    blocks *= units[:, :, None]
    blocks *= units[:, None, :]
    try:
        factors = [cho_factor(block, check_finite=False) for block in blocks]
    except np.linalg.LinAlgError:
        return None

    def solve(v: Any) -> Any:
        parts = v.reshape(count, size, -1)
        found = [
            unit[:, None] * cho_solve(factor, unit[:, None] * part, check_finite=False)
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
