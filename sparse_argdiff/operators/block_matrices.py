"""Rows, columns and stacks of matrices and operators.

A part of a dense or sparse matrix is again one, so that it can be factorised; a part of
an operator is an operator.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from ..arrays import Array, arange, full, is_array, is_sparse, namespace, zeros
from .linear_operator import LinearOperator, as_operator, aslinearoperator
from .structure import common


def is_explicit(matrix: Any) -> bool:
    """Tell whether the entries are known: an array or a sparse matrix."""
    return is_array(matrix) or sparse.issparse(matrix)


def widened(matrix: Any, like: Array) -> Any:
    """Return a matrix, its entries in double precision where those of ``like`` are.

    Factors of single precision meet C y = c to that alone.
    """
    dtype = getattr(matrix, "dtype", None)
    if isinstance(dtype, np.dtype) and dtype == np.float64:
        return matrix
    if not (is_array(matrix) or is_sparse(matrix)):
        return matrix
    xp = namespace(like)
    single, like_single = (str(v.dtype).endswith("float32") for v in (matrix, like))
    if not single or like_single:
        return matrix
    return (
        xp.astype(matrix, like.dtype) if is_array(matrix) else matrix.astype(like.dtype)
    )


def is_factorable(like: Array, *matrices: Any) -> bool:
    """Tell whether all entries are there and on the host, where SciPy can factorise."""
    return isinstance(like, np.ndarray) and all(map(is_explicit, matrices))


def zero(shape: tuple[int, int], like: Array) -> LinearOperator:
    """Return the zero operator on arrays like ``like``."""

    def product(rows: int) -> Any:
        return lambda u: zeros((rows, *u.shape[1:]), like)

    return _of_products(shape, product(shape[0]), product(shape[1]))


def _of_products(
    shape: tuple[int, int], forward: Any, backward: Any, **known: Any
) -> LinearOperator:
    """Return the operator of two functions that take vectors and blocks."""
    return LinearOperator(
        shape, forward, backward, matmat=forward, rmatmat=backward, **known
    )


def _symmetric(n: int, product: Any, **known: Any) -> LinearOperator:
    return _of_products((n, n), product, product, symmetric=True, **known)


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

    return _of_products((int(ends[-1]), operators[0].shape[1]), forward, backward)


def saddle_operator(H: LinearOperator, C: Any) -> LinearOperator:
    """Return [H C'; C 0] (n + p, n + p), as symmetric as H is."""
    rows, n = aslinearoperator(C), H.shape[0]

    def product(z: Array) -> Array:
        y = z[:n, ...]
        return namespace(z).concat([H @ y + rows.T @ z[n:, ...], rows @ y])

    size = n + rows.shape[0]
    return _of_products(
        (size, size),
        product,
        product,
        dtype=H.dtype,
        symmetric=H.symmetric,
        structure=common(H.structure),
    )


def take_rows(matrix: Any, index: Array) -> Any:
    """Return the rows of an ascending index; for all rows the matrix itself."""
    if index.shape[0] == matrix.shape[0]:
        return matrix
    if is_array(matrix):
        return namespace(matrix).take(matrix, index, axis=0)
    if sparse.issparse(matrix):
        return sparse.csr_array(matrix)[index]
    operator = aslinearoperator(matrix)
    spread = scatter(operator.shape[0], index)

    def forward(u: Array) -> Array:
        return namespace(u).take(operator @ u, index, axis=0)

    def backward(w: Array) -> Array:
        return operator.T @ spread(w)

    return _of_products((index.shape[0], operator.shape[1]), forward, backward)


def take_columns(matrix: Any, index: Array) -> Any:
    """Return the columns of an ascending index."""
    if index.shape[0] == matrix.shape[1]:
        return matrix
    if is_array(matrix):
        return namespace(matrix).take(matrix, index, axis=1)
    if sparse.issparse(matrix):
        return sparse.csc_array(matrix)[:, index].tocsr()
    return take_rows(aslinearoperator(matrix).T, index).T


def principal(operator: LinearOperator, index: Array) -> LinearOperator:
    """Return the principal submatrix of a square operator, with the structure kept."""
    spread = scatter(operator.shape[0], index)
    k = index.shape[0]

    def product(u: Array) -> Array:
        return namespace(u).take(operator @ spread(u), index, axis=0)

    split = operator.split
    return _of_products(
        (k, k),
        product,
        product,
        dtype=operator.dtype,
        symmetric=operator.symmetric,
        positive_definite=operator.positive_definite,
        diagonal=(lambda: operator.diagonal()[index])
        if operator.has_diagonal
        else None,
        structure=operator.structure._replace(
            matrix=None,
            split=split and (principal(split[0], index), split[1][index]),
            forming=None,  # of all entries
            outputs=1,  # not all K of them are left
        ),
    )


def scatter(size: int, index: Array) -> Any:
    """Return u ↦ the vector of that size with u at an ascending index, zero elsewhere."""
    xp = namespace(index)
    if xp.__name__ not in {"numpy", "cupy"}:
        return _gathering(size, index)

    def spread(u: Array) -> Array:
        result = zeros((size, *u.shape[1:]), u)
        result[index] = u
        return result

    return spread


def mask_of(size: int, index: Array) -> Array:
    """Return the mask (size,) that is true at an ascending index."""
    return scatter(size, index)(full(index.shape, True, index, namespace(index).bool))


def _gathering(size: int, index: Array) -> Any:
    """Return the same for arrays without assignment by index (the array API standard)."""
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
    """Return J' diag(weights) J, with a diagonal where the entries of J are known."""
    J, W = aslinearoperator(matrix), diagonal_operator(weights)

    def diagonal() -> Array:
        return squares(matrix).T @ weights

    return _symmetric(
        matrix.shape[1],
        lambda v: J.T @ (W @ (J @ v)),
        dtype=weights.dtype,
        diagonal=diagonal if is_explicit(matrix) else None,
    )


def transposed_product(matrix: Any, w: Array) -> Array:
    """Return Aᵀ w, (n,), of a matrix or an operator (p, n)."""
    if type(matrix) is np.ndarray and type(w) is np.ndarray:
        return matrix.T @ w
    return aslinearoperator(matrix).T @ w


def squares(matrix: Any) -> Any:
    """Return the squared entries of an array or a sparse matrix, which is not changed."""
    if is_array(matrix):
        return matrix * matrix
    if not getattr(matrix, "has_canonical_format", True):
        matrix = matrix.copy()  # SciPy sums duplicates in place
    return matrix.power(2)


def diagonal_operator(entries: Array) -> LinearOperator:
    """Return diag(entries) as an operator."""

    def product(v: Array) -> Array:
        return entries * v if v.ndim == 1 else entries[:, None] * v

    return _symmetric(entries.shape[0], product, dtype=entries.dtype, diagonal=entries)


def as_diagonal(name: str, value: Any, n: int) -> Array:
    """Return the diagonal of a square operator (n, n) that has one."""
    operator = as_operator(name, value, (n, n))
    if not operator.has_diagonal:
        raise ValueError(f"{name} must know its diagonal, found an operator without")
    return operator.diagonal()
