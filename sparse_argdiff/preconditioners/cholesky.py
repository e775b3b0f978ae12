"""Cholesky factorisation for small n: the exact inverse of an explicit A.

    S A S = R'R  with S = diag(A)^-½,    M = S R⁻¹ R'⁻¹ S

CG with this M ends after one or two iterations, with a verified residual; for a nearby
matrix M remains a good preconditioner.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from scipy import linalg, sparse

from ..arrays import Array, asarray, kind_of, namespace, to_namespace
from ..operators.linear_operator import LinearOperator, as_operator
from .nystrom import example

_COLUMNS = 64  # of the identity in one block product, which bounds its memory


@dataclasses.dataclass(frozen=True, eq=False)
class CorePlusDiagonal:
    """What the inverse of an operator with a split is built of.

    Attributes
    ----------
    core : array (n, n)
    diagonal : array (n,)
    """

    core: Array
    diagonal: Array

    def built(self) -> LinearOperator:
        """Return the inverse, by the same factorisation."""
        return _with_core(to_namespace(self.core, np), self.diagonal, 0)


@dataclasses.dataclass(frozen=True, eq=False)
class Factor:
    """R' and S of S A S = R'R.

    Attributes
    ----------
    scale : array (n,)
    factor : array (n, n)
        Lower triangular.
    like : array (n,)
        Of the arrays that the inverse acts on.
    """

    scale: Array
    factor: Array
    like: Array

    def built(self) -> LinearOperator:
        """Return the inverse."""
        scale, factor = to_namespace(self.scale, np), to_namespace(self.factor, np)

        def update(other: Any) -> LinearOperator:
            return cholesky(as_operator("A", other, factor.shape))

        M = _inverse(scale, factor, self.like)
        return M.with_setup(update=update, setup=self)


def cholesky(A: Any) -> LinearOperator:
    """Return A⁻¹ by a Cholesky factor of all entries, made on the host.

    Parameters
    ----------
    A : operator (n, n)
        Symmetric positive definite.  An explicit matrix is used as it is; of other
        operators the entries cost n products, in blocks, or what forming them takes
        (``Structure.forming``).  Of arrays elsewhere the
        entries come to the host once, and the inverse goes back once.

    Returns
    -------
    LinearOperator (n, n)
        Symmetric positive definite, exact to rounding.  ``update`` of an operator with a
        ``split`` factorises for another diagonal without products.  Storage: n² entries,
        2 n² with a split.

    Raises
    ------
    ValueError
        When A is not symmetric positive definite to working precision.
    """
    A = as_operator("A", A)
    if A.matrix is None and A.split is not None:
        core, d = A.split
        forming = core.structure.forming
        cost = A.shape[0] if forming is None else math.ceil(forming.price)
        return _with_core(_entries(core, d), d, cost)
    cost = 0 if A.matrix is not None else A.shape[0]
    like = example(A)
    scale, factor = _factor(_entries(A, like))
    return Factor(scale, factor, like).built().with_setup(n_matvec=cost)


def _with_core(core: np.ndarray, d: Array, n_matvec: int) -> LinearOperator:
    def update(other: Any) -> LinearOperator:
        other = as_operator("A", other, (core.shape[0], core.shape[0]))
        if other.split is not None and _same(other.split[1], d):
            return M
        if other.split is None:
            return cholesky(other)
        return _with_core(core, other.split[1], 0)

    entries = core.copy()
    np.fill_diagonal(entries, core.diagonal() + to_namespace(d, np))
    scale, factor = _factor(entries)
    M = _inverse(scale, factor, d).with_setup(
        update=update, n_matvec=n_matvec, setup=CorePlusDiagonal(core, d)
    )
    return M


def _same(a: Array, b: Array) -> bool:
    return a is b or not bool(namespace(a, b).any(a != b))


def _entries(A: LinearOperator, like: Array) -> np.ndarray:
    """Return a fresh array (n, n) on the host."""
    if A.matrix is not None:
        matrix = to_namespace(A.matrix, np)
        matrix = matrix.toarray() if sparse.issparse(matrix) else matrix
        whole = kind_of(matrix) == "whole"
        return np.array(matrix, dtype=np.float64 if whole else matrix.dtype)
    if A.structure.forming is not None:
        return np.array(to_namespace(A.structure.forming.entries(), np))
    n = A.shape[0]
    entries = np.empty((n, n), dtype=to_namespace(like, np).dtype)
    for start in range(0, n, _COLUMNS):
        block = np.zeros((n, min(_COLUMNS, n - start)), dtype=entries.dtype)
        np.fill_diagonal(block[start:], 1.0)
        columns = A.matmat(asarray(block, like))
        entries[:, start : start + block.shape[1]] = to_namespace(columns, np)
    return entries


def _factor(entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return S and R', in the place of the entries."""
    n = entries.shape[0]
    unit = float(np.finfo(entries.dtype).eps)
    diagonal = entries.diagonal().copy()
    if not np.isfinite(entries).all():
        raise ValueError("A must be finite, found NaN or infinity among its entries")
    if not (diagonal > 0.0).all():
        raise ValueError(
            f"A must be positive definite, its smallest diagonal entry is "
            f"{diagonal.min()}"
        )
    scale = 1.0 / np.sqrt(diagonal)
    entries *= scale
    entries *= scale[:, None]
    # Of products with rounding, or by differences: half the digits must agree.
    skew = float(np.abs(entries - entries.T).max(initial=0.0))
    if not skew <= math.sqrt(unit):
        raise ValueError(
            f"A must be symmetric, two of its entries differ by {skew:.1e} relative to "
            "the diagonal"
        )
    size = float(np.abs(entries).sum(axis=0).max(initial=0.0))
    try:
        factor = linalg.cholesky(
            entries, lower=True, overwrite_a=True, check_finite=False
        )
    except linalg.LinAlgError:
        raise ValueError(
            "A must be positive definite, its Cholesky factor fails"
        ) from (None)
    if n:
        (condition,) = linalg.get_lapack_funcs(("pocon",), (factor,))
        reciprocal, _ = condition(factor, size, uplo="L")
        if not reciprocal > 10.0 * unit:
            raise ValueError(
                "A must be positive definite to working precision, its reciprocal "
                f"condition number is {reciprocal:.1e}"
            )
    return scale, factor


def _inverse(scale: np.ndarray, factor: np.ndarray, like: Array) -> LinearOperator:
    """Return M; of arrays elsewhere, its entries."""
    n = factor.shape[0]

    def product(r: Array) -> Array:
        s = scale if r.ndim == 1 else scale[:, None]
        return s * linalg.cho_solve((factor, True), s * r, check_finite=False)

    if not isinstance(like, np.ndarray):
        inverse = asarray(product(np.eye(n, dtype=factor.dtype)), like)

        def product(r: Array) -> Array:
            return inverse @ r

    return LinearOperator(
        (n, n), product, matmat=product, dtype=factor.dtype, positive_definite=True
    )
