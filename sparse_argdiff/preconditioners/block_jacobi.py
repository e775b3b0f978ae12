"""The diagonal blocks as a preconditioner: M = blockdiag(A_11, A_22, …)⁻¹.

For unknowns that come in groups: the outputs of one feature, the components at one node.
Blocks of one size are kept as one array (blocks, s, s), smaller ones padded with the
identity, so that a product is one batched multiplication.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from ..arrays import Array, is_array, namespace
from ..linear_operator import LinearOperator, aslinearoperator


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
    A = aslinearoperator(A)
    n = A.shape[0]
    if A.shape[1] != n:
        raise ValueError(f"A must be square, found shape {A.shape}")
    matrix = A.matrix
    if not (sparse.issparse(matrix) or is_array(matrix)):
        raise TypeError(
            "A must be an array or a sparse matrix, found an operator without entries"
        )
    index = _index(blocks, n)  # (blocks, s); n where there is no unknown
    entries = _gather(matrix, index)
    like = entries[:, :, 0].reshape((-1,))
    xp = namespace(entries)
    try:
        xp.linalg.cholesky(entries)
    except (np.linalg.LinAlgError, ValueError):
        raise ValueError("the diagonal blocks of A must be positive definite") from None
    inverse = xp.linalg.inv(entries)
    inverse = 0.5 * (inverse + xp.matrix_transpose(inverse))
    if not bool(xp.all(xp.isfinite(inverse))):
        raise ValueError("the diagonal blocks of A must be finite and not singular")
    where = xp.asarray(index.reshape(-1), device=like.device)
    # The place of each unknown among the entries of the blocks.
    back = np.empty(n + 1, dtype=np.int64)
    back[index.reshape(-1)] = np.arange(index.size)
    back = xp.asarray(back[:n], device=like.device)
    count, size = index.shape

    def product(r: Array) -> Array:
        columns = r[:, None] if r.ndim == 1 else r
        pad = xp.zeros((1, columns.shape[1]), dtype=r.dtype, device=r.device)
        padded = xp.concat([columns, pad], axis=0)
        parts = padded[where, :].reshape((count, size, columns.shape[1]))
        found = (inverse @ parts).reshape((count * size, columns.shape[1]))[back, :]
        return found[:, 0] if r.ndim == 1 else found

    return LinearOperator(
        (n, n),
        product,
        matmat=product,
        dtype=inverse.dtype,
        positive_definite=True,
        update=lambda other: block_jacobi(other, blocks),
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
    if sparse.issparse(matrix):
        dtype = matrix.dtype if matrix.dtype.kind == "f" else np.float64
        entries = np.zeros(rows.shape, dtype=dtype)
        if n:
            flat = safe_rows.ravel(), safe_columns.ravel()
            picked = sparse.csr_array(matrix)[flat]
            picked = picked.toarray() if sparse.issparse(picked) else np.asarray(picked)
            entries[...] = picked.reshape(rows.shape)
        return np.where(real, entries, eye.astype(dtype))
    xp = namespace(matrix)
    if n == 0:
        return xp.zeros(rows.shape, dtype=matrix.dtype, device=matrix.device)

    def to(array: np.ndarray) -> Array:
        return xp.asarray(array, device=matrix.device)

    flat = to((safe_rows * n + safe_columns).reshape(-1))
    entries = xp.take(matrix.reshape((-1,)), flat).reshape(rows.shape)
    identity = xp.asarray(
        to(np.broadcast_to(eye, rows.shape).copy()), dtype=matrix.dtype
    )
    return xp.where(to(real), entries, identity)
