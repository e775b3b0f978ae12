"""A KKT matrix with a pattern that stays, factorised again and again for other diagonals.

    K = [ P + S   C' ]         S, D >= 0 diagonal
        [ C      −D  ]

Sparse: SuperLU without pivoting (LDLᵀ of a quasi-definite matrix), in the ordering of the
first factorisation; columns of very many entries come last.  Dense: Bunch and Kaufman's
LDLᵀ by LAPACK.  Rows and columns may be left out; they become those of the identity.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import linalg, sparse
from scipy.sparse.linalg import splu

from ..arrays import HostArray

LARGEST_DENSE = 400  # unknowns up to which dense matrices are factorised as such
_SMALL = 80  # unknowns up to which sparse ones are, too


def kkt_matrix(P: Any, C: Any) -> SparseKKT | DenseKKT:
    """Return the matrix of a symmetric P (n, n) and rows C (p, n), both explicit."""
    size = P.shape[0] + C.shape[0]
    both_sparse = sparse.issparse(P) and sparse.issparse(C)
    if size <= (_SMALL if both_sparse else LARGEST_DENSE):
        return DenseKKT(_entries(P), _entries(C))
    return SparseKKT(P, C)


def _entries(matrix: Any) -> HostArray:
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


class DenseKKT:
    """The matrix as an array."""

    wide = False  # no column fills a factor

    def __init__(self, P: HostArray, C: HostArray) -> None:
        n, p = P.shape[0], C.shape[0]
        self.n, self.size = n, n + p
        self._K = np.zeros((n + p, n + p), order="F")
        self._K[:n, :n], self._K[n:, :n], self._K[:n, n:] = P, C, C.T
        self._diagonal = self._K.diagonal().copy()
        self._matrix = self._K
        self._factor: Any = None

    def factorise(
        self,
        diagonal: HostArray,
        shift: HostArray,
        kept: HostArray | None = None,
        *,
        pivoting: bool = False,
    ) -> bool:
        """Factorise K with (S, −D) = diagonal, shifted; tell whether there is a factor."""
        K = self._K if kept is None else self._K * np.outer(kept, kept)
        K = K.copy(order="F")
        entries = self._diagonal + diagonal
        if kept is not None:
            entries = np.where(kept, entries, _unit(self.n, self.size))
        np.fill_diagonal(K, entries)
        self._matrix = K
        shifted = K.copy(order="F")
        np.fill_diagonal(shifted, entries + shift)
        ldu, pivots, failed = linalg.lapack.dsytrf(shifted, lower=1, overwrite_a=1)
        self._factor = (ldu, pivots) if failed == 0 else None
        return failed == 0

    def entries(self, kept: HostArray) -> HostArray | None:
        """Return the entries of the rows and columns that are kept."""
        return self._matrix[np.ix_(kept, kept)]

    def product(self, x: HostArray) -> HostArray:
        """Return K x, without the shift."""
        return self._matrix @ x

    def size_of_product(self, x: HostArray) -> HostArray:
        """Return |K| |x|."""
        return np.abs(self._matrix) @ np.abs(x)

    def apply(self, rhs: HostArray) -> HostArray:
        """Return (K + shift)⁻¹ rhs."""
        ldu, pivots = self._factor
        found, _ = linalg.lapack.dsytrs(ldu, pivots, rhs, lower=1)
        return found[:, 0] if rhs.ndim == 1 and found.ndim == 2 else found


class SparseKKT:
    """The matrix by its entries in CSC, permuted; ``wide`` with columns of very many."""

    def __init__(self, P: Any, C: Any) -> None:
        n, p = P.shape[0], C.shape[0]
        self.n, self.size = n, n + p
        P, C = sparse.csr_array(P), sparse.csr_array(C)
        blocks = [[P, C.T], [C, None]] if p else [[P]]
        K = sparse.csc_array(sparse.block_array(blocks), dtype=float)
        K.sum_duplicates()
        order, self.wide = _ordering(K)
        # Each diagonal entry has a place; a zero would be lost in a sum.
        K = K + sparse.diags_array(np.full(self.size, math.inf), format="csc")
        K = sparse.csc_array(K[order][:, order])
        K.sort_indices()
        self._order, self._K = order, K
        self._columns = np.repeat(np.arange(self.size), np.diff(K.indptr))
        self._at = np.flatnonzero(K.indices == self._columns)
        diagonal = np.zeros(self.size)
        diagonal[:n] = P.diagonal()
        self._diagonal = diagonal[order]
        self._K.data[self._at] = self._diagonal
        self._matrix = self._K
        self._factor: Any = None

    def factorise(
        self,
        diagonal: HostArray,
        shift: HostArray,
        kept: HostArray | None = None,
        *,
        pivoting: bool = False,
    ) -> bool:
        """Factorise K with (S, −D) = diagonal, shifted; tell whether there is a factor."""
        K, order = self._K, self._order
        data, entries = K.data.copy(), self._diagonal + diagonal[order]
        if kept is not None:
            stays = kept[order]
            data *= stays[K.indices] & stays[self._columns]
            entries = np.where(stays, entries, _unit(self.n, self.size)[order])
        data[self._at] = entries
        self._matrix = sparse.csc_array((data, K.indices, K.indptr), shape=K.shape)
        data = data.copy()
        data[self._at] = entries + shift[order]
        shifted = sparse.csc_array((data, K.indices, K.indptr), shape=K.shape)
        try:
            options: dict[str, Any] = {
                "permc_spec": "NATURAL",
                "diag_pivot_thresh": 0.0,
                "options": {"SymmetricMode": True},
            }
            # Row exchanges have an ordering of their own.  It does not put columns of very
            # many entries last, which would fill all: with these, few rows are exchanged.
            if pivoting and self.wide:
                options["diag_pivot_thresh"] = 0.01
            elif pivoting:
                options = {}
            self._factor = splu(shifted, **options)
        except RuntimeError:  # a pivot is zero
            self._factor = None
        return self._factor is not None

    def entries(self, kept: HostArray) -> HostArray | None:
        """Return None: too many to be copied."""
        return None

    def product(self, x: HostArray) -> HostArray:
        """Return K x, without the shift."""
        found = np.empty_like(x)
        found[self._order] = self._matrix @ x[self._order]
        return found

    def size_of_product(self, x: HostArray) -> HostArray:
        """Return |K| |x|."""
        found = np.empty_like(x)
        found[self._order] = abs(self._matrix) @ np.abs(x[self._order])
        return found

    def apply(self, rhs: HostArray) -> HostArray:
        """Return (K + shift)⁻¹ rhs."""
        found = np.empty_like(rhs)
        found[self._order] = self._factor.solve(rhs[self._order])
        return found


def _unit(n: int, size: int) -> HostArray:
    unit = np.ones(size)
    unit[n:] = -1.0
    return unit


def _ordering(K: Any) -> tuple[HostArray, bool]:
    """Return an order of little fill: minimum degree, columns of many entries last.

    Also whether there are any such columns.
    """
    counts = np.diff(K.indptr)
    many = counts > max(16.0, 10.0 * math.sqrt(K.shape[0]))
    few = np.flatnonzero(~many)
    part = K if few.size == K.shape[0] else sparse.csc_array(K[few][:, few])
    if few.size == 0:
        return np.arange(K.shape[0]), True
    pattern = sparse.csc_array(
        (np.full(part.data.shape, 1e-3), part.indices, part.indptr), shape=part.shape
    )
    dominant = 1.0 + np.asarray(pattern.sum(axis=0)).ravel()
    pattern = sparse.csc_array(pattern + sparse.diags_array(dominant))
    found = splu(
        pattern,
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    order = np.concatenate([few[np.argsort(found.perm_c)], np.flatnonzero(many)])
    return order, bool(many.any())


def refined(
    matrix: SparseKKT | DenseKKT, rhs: HostArray, rtol: float, sweeps: int
) -> tuple[HostArray, float]:
    """Return x with K x = rhs by iterative refinement, and its relative residual.

    The residual is the largest of the columns.  The shift of the factor is removed as by a
    proximal point method, which also solves consistent singular systems.
    """
    size = _lengths(rhs)
    unit = np.where(size > 0.0, size, 1.0)
    x = np.zeros_like(rhs)
    best, least, r, before = x, 1.0 if (size > 0.0).any() else 0.0, rhs, math.inf
    for sweep in range(sweeps):
        x = x + matrix.apply(r) if sweep else matrix.apply(r)
        r = rhs - matrix.product(x)
        now = float((_lengths(r) / unit).max())
        if not math.isfinite(now):
            break
        if now < least:
            best, least = x, now
        if now <= rtol or now > 0.5 * before:
            break
        before = now
    return best, least


def _lengths(r: HostArray) -> HostArray:
    """Return ‖r‖, or those of the columns."""
    if r.ndim == 1:
        return np.sqrt(r @ r)
    return np.sqrt(np.einsum("i...,i...->...", r, r))
