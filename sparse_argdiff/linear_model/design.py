"""The design of a linear model: z = F c + intercept, its transpose, its squares.

    forward(y) = F c + 1 b',    backward(s) = (F' s, 1' s),    y = (c, b)

``c`` is (p,) or (p, K) in C order, followed by the intercept (1 or K entries).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from scipy import sparse

from ..arrays import (
    Array,
    as_array,
    as_data,
    check_finite,
    is_sparse,
    kind_of,
    namespace,
)
from ..operators.block_matrices import take_rows
from ..operators.linear_operator import LinearOperator, as_operator

_SELDOM = 8  # one coefficient in so many: a product of those columns alone is faster


class Design:
    """Features (N, p) of ``as_features``, with an optional intercept, for K outputs a sample."""

    def __init__(self, features: Any, intercept: bool, outputs: int) -> None:
        self.features = features
        self.transposed = _transposed(self.features)
        self.n_samples, self.n_features = self.features.shape
        self.intercept = intercept
        self.outputs = outputs
        self.n_coefficients = self.n_features * outputs
        self.n = self.n_coefficients + (outputs if intercept else 0)
        self.dtype = model_dtype(self.features)
        self._squares_of: tuple[Array, Array] | None = None

    def forward(self, y: Array) -> Array:
        """Return the predictors, (N,) or (N, K); of a block (n, k) (N, k) or (N, K, k)."""
        c = y[: self.n_coefficients, ...]
        if self.outputs > 1:
            k = 1 if y.ndim == 1 else y.shape[1]
            c = c.reshape((self.n_features, self.outputs * k))
        z = self._own(self._product(c))
        if y.ndim == 2 and self.outputs > 1:
            z = z.reshape((self.n_samples, self.outputs, y.shape[1]))
        if self.intercept:
            z += y[self.n_coefficients :, ...]
        return z

    def _product(self, c: Array) -> Array:
        """Return F c, from the columns alone that c has, where they lie side by side."""
        if c.ndim == 1 and self._is_by_columns:
            (index,) = namespace(c).nonzero(c)
            if index.shape[0] * _SELDOM < c.shape[0]:
                return self.features[:, index] @ c[index]
        return self.features @ c

    @functools.cached_property
    def _is_by_columns(self) -> bool:
        """Whether the features are on the host and columns are taken without a search."""
        if isinstance(self.features, np.ndarray):
            return bool(self.features.flags.f_contiguous)
        return sparse.issparse(self.features) and self.features.format == "csc"

    def _own(self, product: Array) -> Array:
        """Copy what an operator returned: it may be its operand, or a buffer it keeps."""
        if isinstance(self.features, LinearOperator):
            return namespace(product).asarray(product, copy=True)
        return product

    def backward(self, s: Array) -> Array:
        """Return the transpose's product with s, fresh: (n,), or of a block (n, k)."""
        k = s.shape[2:] if self.outputs > 1 else s.shape[1:]
        flat = s.reshape((s.shape[0], s.shape[1] * s.shape[2])) if s.ndim == 3 else s
        c = (self.transposed @ flat).reshape((self.n_coefficients, *k))
        if not self.intercept:
            return self._own(c)
        xp = namespace(s)
        ones = xp.ones(s.shape[0], dtype=s.dtype)  # faster than sums of short rows
        total = xp.sum(s, axis=0) if s.ndim == 1 else ones @ flat
        total = total.reshape((self.outputs, *k))
        return xp.concatenate([c, total])

    @property
    def has_squares(self) -> bool:
        """Whether :meth:`squares` is available: not for features that are operators."""
        return not isinstance(self.features, LinearOperator)

    @functools.cached_property
    def by_columns(self) -> Any:
        """Sparse features of the host in CSC, a copy where they are not, made once."""
        return sparse.csc_array(self.features)

    @functools.cached_property
    def by_rows(self) -> Any:
        """Sparse features of the host in CSR without duplicates, made once."""
        rows = sparse.csr_array(self.features)
        if not rows.has_canonical_format:
            rows = rows.copy() if rows.data is self.features.data else rows
            rows.sum_duplicates()
        return rows

    @functools.cached_property
    def _squared(self) -> Any:
        return _squares(self.features) if is_sparse(self.features) else None

    def squares(self, d: Array) -> Array:
        """Return diag(F' diag(d) F) with the intercept's entry, shape (n,).

        Rows where d is zero do not count, however large they are.  Those of the last d, the
        same array, are remembered: the curvature of the squared loss.
        """
        memo = self._squares_of
        if memo is None or memo[0] is not d:
            self._squares_of = memo = (d, self.fresh_squares(d))
        return namespace(d).asarray(memo[1], copy=True)

    def fresh_squares(self, d: Array) -> Array:
        """Return the same of a d that will not come again; of (N, k) all k, row by row."""
        xp, features, squared, weights = namespace(d), self.features, self._squared, d
        with np.errstate(over="ignore", invalid="ignore"):
            c = _column_squares(features, squared, weights)
            if not bool(xp.all(xp.isfinite(c))):
                (rows,) = xp.nonzero(d if d.ndim == 1 else xp.any(d != 0.0, axis=1))
                features, weights = take_rows(features, rows), xp.take(d, rows, axis=0)
                squared = None if squared is None else _squares(features)
                c = _column_squares(features, squared, weights)
        if not self.intercept:
            return c
        return xp.concatenate([c, xp.sum(d, axis=0).reshape(-1)])

    def row_squares(self, d: Array) -> Array:
        """Return Σ_j d_j a_ij² for each row of the design, shape (N,); d like y, >= 0.

        For several outputs the largest of theirs.
        """
        head = d[: self.n_coefficients]
        if self.outputs > 1:
            head = head.reshape((self.n_features, self.outputs))
        sparse_features = is_sparse(self.features)
        with np.errstate(over="ignore"):
            rows = (self._squared if sparse_features else self.features**2) @ head
        if self.intercept:
            rows = rows + d[self.n_coefficients :]
        return rows if rows.ndim == 1 else namespace(d).max(rows, axis=1)


def _squares(features: Any) -> Any:
    """Return sparse features with squared entries; binary ones are their own squares."""
    if not features.has_canonical_format:  # duplicates add up before they are squared
        features = features.copy()
        features.sum_duplicates()
    data, structure = features.data, (features.indices, features.indptr)
    if bool(namespace(data).all((data == 0.0) | (data == 1.0))):
        return features
    with np.errstate(over="ignore"):
        return type(features)((data * data, *structure), shape=features.shape)


def _column_squares(features: Any, squared: Any, d: Array) -> Array:
    """Return Σ_i d_i F_ij² for each column, or each column and output, flat."""
    if squared is not None:
        return (squared.T @ d).reshape(-1)
    sums = "ij,ij,i->j" if d.ndim == 1 else "ij,ij,ik->jk"
    return namespace(d).einsum(sums, features, features, d).reshape(-1)


def model_dtype(features: Any) -> Any:
    """Return the dtype of y: that of floating features, float64 for others."""
    floating = features.dtype in (np.float32, np.float64)
    return np.dtype(features.dtype if floating else np.float64)


def as_features(features: Any) -> Any:
    """Return finite features as a floating CSR/CSC matrix, ndarray or operator.

    Integer and boolean features become float64; floating ones are kept, not copied.
    """
    by_products = hasattr(features, "matvec") or not hasattr(features, "ndim")
    if by_products and not isinstance(features, list | tuple):
        operator = as_operator("features", features, square=False)
        if operator.dtype is not None and kind_of(operator) == "other":
            raise TypeError(f"features must be real, found dtype {operator.dtype}")
        return operator
    entries = features if is_sparse(features) else as_array("features", features)
    if entries.ndim != 2:
        raise ValueError(f"features must be 2-D, found shape {tuple(entries.shape)}")
    if not is_sparse(entries):
        return as_data("features", entries)
    if kind_of(entries) == "other":
        raise TypeError(f"features must be real, found dtype {entries.dtype}")
    entries = _by_rows_or_columns(entries)
    check_finite("features", entries)
    return entries


def _by_rows_or_columns(features: Any) -> Any:
    if features.format not in {"csr", "csc"}:
        features = features.tocsr()
    if features.dtype not in (np.float32, np.float64):
        features = features.astype(np.float64)
    if not sparse.issparse(features):
        return features.tocsr()
    # Rows of column indices as SciPy stores them; `spmatrix` multiplies with `*`.
    return (sparse.csr_array if features.format == "csr" else sparse.csc_array)(
        features
    )


def _transposed(features: Any) -> Any:
    """Return F', on the device by rows too: a product by columns needs atomic sums."""
    on_device = is_sparse(features) and not sparse.issparse(features)
    return features.T.tocsr() if on_device else features.T
