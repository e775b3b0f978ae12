"""Block Jacobi preconditioner: M = blockdiag(A_11, A_22, …)⁻¹.

For unknowns that come in groups: the outputs of one feature, the components at one node.
Blocks of one size are kept as one array (blocks, s, s), smaller ones padded with the
identity, so that a product is one batched multiplication.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from ..arrays import (
    Array,
    asarray,
    epsilon,
    is_array,
    is_finite,
    is_sparse,
    kind_of,
    namespace,
    to_namespace,
    zeros,
)
from ..operators.linear_operator import LinearOperator, as_operator


def block_jacobi(A: Any, blocks: Any) -> LinearOperator:
    """Return the inverse of the diagonal blocks as an operator.

    Parameters
    ----------
    A : array, sparse matrix, or operator made from one, (n, n)
        The entries are needed: those of a block cannot be had from a few products.
    blocks : int or int array (n,)
        The size of consecutive blocks (the last one may be smaller), or the label of
        each unknown's block.

    Returns
    -------
    LinearOperator (n, n)
        Symmetric positive definite.  Storage: n s for blocks of size s at most.
        ``update(A)`` takes the blocks of another matrix.

    Raises
    ------
    TypeError
        When A has no entries.
    ValueError
        When a block is not symmetric positive definite.
    """
    A = as_operator("A", A)
    n, matrix = A.shape[0], A.matrix
    if not (is_sparse(matrix) or is_array(matrix)):
        raise TypeError(
            "A must be an array or a sparse matrix, found an operator without entries"
        )
    index = _index(blocks, n)  # (blocks, s); n where there is no unknown
    entries = _gather(matrix, index)
    like = entries
    xp = namespace(entries)
    if not is_finite(entries):
        raise ValueError("A must be finite, found NaN or infinity in a diagonal block")
    if entries.size:
        turned = xp.matrix_transpose(entries)
        skew = float(xp.max(xp.abs(entries - turned)))
        if skew > epsilon(entries) ** 0.5 * float(xp.max(xp.abs(entries))):
            raise ValueError(
                f"A must be symmetric, two entries of a block differ by {skew:.1e}"
            )
    try:
        xp.linalg.cholesky(entries)
    except (np.linalg.LinAlgError, ValueError):
        raise ValueError("the diagonal blocks of A must be positive definite") from None
    inverse = xp.linalg.inv(entries)
    inverse = 0.5 * (inverse + xp.matrix_transpose(inverse))
    if not bool(xp.all(xp.isfinite(inverse))):
        raise ValueError("the diagonal blocks of A must not be singular")
    where = asarray(index.reshape(-1), like, xp.int64)
    # The place of each unknown among the entries of the blocks.
    back = np.empty(n + 1, dtype=np.int64)
    back[index.reshape(-1)] = np.arange(index.size)
    place = asarray(back[:n], like, xp.int64)
    count, size = index.shape

    def product(r: Array) -> Array:
        columns = r[:, None] if r.ndim == 1 else r
        pad = zeros((1, columns.shape[1]), r)
        padded = xp.concat([columns, pad], axis=0)
        parts = xp.reshape(
            xp.take(padded, where, axis=0), (count, size, columns.shape[1])
        )
        flat = xp.reshape(inverse @ parts, (count * size, columns.shape[1]))
        found = xp.take(flat, place, axis=0)
        return found[:, 0] if r.ndim == 1 else found

    M = LinearOperator(
        (n, n), product, matmat=product, dtype=inverse.dtype, positive_definite=True
    )
    return M.with_setup(
        update=lambda other: block_jacobi(as_operator("A", other, (n, n)), blocks)
    )


def _index(blocks: Any, n: int) -> np.ndarray:
    """Return the unknowns of each block, padded with n."""
    if isinstance(blocks, int | np.integer):
        if blocks < 1:
            raise ValueError(f"blocks must be a size >= 1, found {blocks}")
        labels = np.arange(n) // int(blocks)
    else:
        labels = np.asarray(blocks)
        if labels.shape != (n,) or labels.dtype.kind not in "iu":
            raise ValueError(
                f"blocks must be a size, or whole numbers of shape ({n},), found shape "
                f"{labels.shape} and dtype {labels.dtype}"
            )
    _, labels, counts = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.argsort(labels, kind="stable")
    index = np.full((counts.size, int(counts.max(initial=1))), n)
    starts = np.cumsum(counts) - counts
    index[labels[order], np.arange(n) - starts[labels[order]]] = order
    return index


def _gather(matrix: Any, index: np.ndarray) -> Array:
    """Return the blocks' entries (blocks, s, s); the identity where there is no unknown."""
    n = matrix.shape[0]
    rows, columns = np.broadcast_arrays(index[:, :, None], index[:, None, :])
    real = (rows < n) & (columns < n)
    safe_rows, safe_columns = np.where(real, rows, 0), np.where(real, columns, 0)
    eye = np.eye(index.shape[1], dtype=bool)[None]
    if is_sparse(matrix):
        # The host takes the entries out and transfers them once.
        like, matrix = matrix.data, to_namespace(matrix, np)
        dtype = matrix.dtype if matrix.dtype.kind == "f" else np.float64
        entries = np.zeros(rows.shape, dtype=dtype)
        if n:
            picked = sparse.csr_array(matrix)[safe_rows.ravel(), safe_columns.ravel()]
            picked = picked.toarray() if sparse.issparse(picked) else np.asarray(picked)
            entries[...] = picked.reshape(rows.shape)
        return to_namespace(np.where(real, entries, eye.astype(dtype)), namespace(like))
    xp = namespace(matrix)
    if kind_of(matrix) == "whole":
        matrix = xp.astype(matrix, xp.float64)
    if n == 0:
        return zeros(rows.shape, matrix)

    flat = asarray((safe_rows * n + safe_columns).reshape(-1), matrix, xp.int64)
    entries = xp.reshape(xp.take(xp.reshape(matrix, (-1,)), flat), rows.shape)
    identity = asarray(np.broadcast_to(eye, rows.shape).astype(float), matrix)
    return xp.where(asarray(real, matrix, xp.bool), entries, identity)
