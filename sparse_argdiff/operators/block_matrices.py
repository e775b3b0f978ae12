"""Rows, columns and stacks of matrices and operators, each kept as explicit as it is.

A dense or sparse matrix stays one, so that it can be factorised; an operator gives an
operator.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from ..arrays import Array, arange, full, is_array, namespace, zeros
from .linear_operator import LinearOperator, Structure, aslinearoperator


def is_explicit(matrix: Any) -> bool:
    """Tell whether the entries are there: an array or a sparse matrix."""
    return is_array(matrix) or sparse.issparse(matrix)


def zero(shape: tuple[int, int], like: Array) -> LinearOperator:
    """Return the zero operator on arrays like ``like``."""

    def into(rows: int) -> Any:
        return lambda u: zeros((rows, *u.shape[1:]), like)

    forward, backward = into(shape[0]), into(shape[1])
    return LinearOperator(shape, forward, backward, matmat=forward, rmatmat=backward)


def vstack(blocks: list[Any]) -> Any:
    """Stack matrices and operators of one width."""
    if len(blocks) == 1:
        return blocks[0]
    if all(is_array(block) for block in blocks):
        return namespace(*blocks).concat(blocks, axis=0)
    if all(sparse.issparse(b) or isinstance(b, np.ndarray) for b in blocks):
        return sparse.vstack([sparse.csr_array(b) for b in blocks], format="csr")
    operators = [aslinearoperator(block) for block in blocks]
    ends = np.cumsum([0, *(operator.shape[0] for operator in operators)])
    parts = list(zip(operators, ends[:-1], ends[1:], strict=True))

    def forward(u: Array) -> Array:
        return namespace(u).concat([operator @ u for operator in operators])

    def backward(w: Array) -> Array:
        return sum(operator.T @ w[a:b] for operator, a, b in parts)

    shape = (int(ends[-1]), operators[0].shape[1])
    return LinearOperator(shape, forward, backward, matmat=forward, rmatmat=backward)


def take_rows(matrix: Any, index: Array) -> Any:
    """Return the rows of that index, which ascends: the matrix itself for all of them."""
    if index.shape[0] == matrix.shape[0]:
        return matrix
    if is_array(matrix):
        return namespace(matrix).take(matrix, index, axis=0)
    if sparse.issparse(matrix):
        return sparse.csr_array(matrix)[index]
    operator = aslinearoperator(matrix)
    spread = scatter(operator.shape[0], index)
    shape = (index.shape[0], operator.shape[1])

    def forward(u: Array) -> Array:
        return namespace(u).take(operator @ u, index, axis=0)

    def backward(w: Array) -> Array:
        return operator.T @ spread(w)

    return LinearOperator(shape, forward, backward, matmat=forward, rmatmat=backward)


def take_columns(matrix: Any, index: Array) -> Any:
    """Return the columns of that index, which ascends."""
    if index.shape[0] == matrix.shape[1]:
        return matrix
    if is_array(matrix):
        return namespace(matrix).take(matrix, index, axis=1)
    if sparse.issparse(matrix):
        return sparse.csc_array(matrix)[:, index].tocsr()
    return take_rows(aslinearoperator(matrix).T, index).T


def principal(operator: LinearOperator, index: Array) -> LinearOperator:
    """Return the principal submatrix of a square operator, with what is known of it."""
    spread = scatter(operator.shape[0], index)
    k = index.shape[0]

    def product(u: Array) -> Array:
        return namespace(u).take(operator @ spread(u), index, axis=0)

    split = operator.split
    return LinearOperator(
        (k, k),
        product,
        product,
        matmat=product,
        rmatmat=product,
        dtype=operator.dtype,
        symmetric=operator.symmetric,
        positive_definite=operator.positive_definite,
        diagonal=(lambda: operator.diagonal()[index])
        if operator.has_diagonal
        else None,
        structure=Structure(
            accuracy=operator.accuracy,
            note=operator.note,
            split=split and (principal(split[0], index), split[1][index]),
            rank=operator.rank,
        ),
    )


def scatter(size: int, index: Array) -> Any:
    """Return the function u ↦ the vector of that size with u at the index, zero elsewhere.

    The index ascends.
    """
    xp = namespace(index)
    if xp.__name__ not in {"numpy", "cupy"}:
        return _gathering(size, index)

    def spread(u: Array) -> Array:
        result = zeros((size, *u.shape[1:]), u)
        result[index] = u
        return result

    return spread


def mask_of(size: int, index: Array) -> Array:
    """Return the mask (size,) that is true at the index, which ascends."""
    return scatter(size, index)(full(index.shape, True, index, namespace(index).bool))


def _gathering(size: int, index: Array) -> Any:
    """Do the same where the standard's arrays cannot be assigned to by index."""
    xp, count = namespace(index), index.shape[0]
    places = arange(size, index)
    if count == 0:
        return lambda u: zeros((size, *u.shape[1:]), u)
    source = xp.searchsorted(index, places)
    source = xp.where(source < count, source, count - 1)
    hit = xp.take(index, source) == places

    def spread(u: Array) -> Array:
        taken = xp.take(u, source, axis=0)
        mask = hit if u.ndim == 1 else hit[:, None]
        return xp.where(mask, taken, xp.zeros_like(taken))

    return spread


def gram(matrix: Any, weights: Array) -> LinearOperator:
    """Return J' diag(weights) J, with its diagonal where the entries of J are there."""
    J, n = aslinearoperator(matrix), matrix.shape[1]

    def product(v: Array) -> Array:
        return J.T @ ((weights if v.ndim == 1 else weights[:, None]) * (J @ v))

    diagonal = None
    if is_explicit(matrix):

        def diagonal() -> Array:
            return squares(matrix).T @ weights

    return LinearOperator(
        (n, n),
        product,
        product,
        matmat=product,
        dtype=weights.dtype,
        symmetric=True,
        diagonal=diagonal,
    )


def squares(matrix: Any) -> Any:
    """Return the entries squared, of an array or a sparse matrix, which stays as it is."""
    if is_array(matrix):
        return matrix * matrix
    if not getattr(matrix, "has_canonical_format", True):
        matrix = matrix.copy()  # SciPy adds up duplicates where they lie
    return matrix.power(2)


def diagonal_operator(entries: Array) -> LinearOperator:
    """Return diag(entries) as an operator."""
    n = entries.shape[0]

    def product(v: Array) -> Array:
        return entries * v if v.ndim == 1 else entries[:, None] * v

    return LinearOperator(
        (n, n),
        product,
        product,
        matmat=product,
        dtype=entries.dtype,
        symmetric=True,
        diagonal=entries,
    )
