"""The design of a linear model: z = F c + intercept, its transpose, its squares.

    forward(y) = F c + 1 b',    backward(s) = (F' s, 1' s),    y = (c, b)

``c`` is (p,) or (p, K) in C order, followed by the intercept (1 or K entries).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from scipy import sparse

from ..arrays import Array, is_sparse, kind_of, namespace
from ..operators.linear_operator import LinearOperator, aslinearoperator


class Design:
    """Features (N, p) of any kind, with an optional intercept, for K outputs a sample.

    Integer and boolean features become float64; floating ones are kept, not copied.
    """

    def __init__(self, features: Any, intercept: bool, outputs: int) -> None:
        self.features = as_features(features)
        self.transposed = _transposed(self.features)
        self.n_samples, self.n_features = self.features.shape
        self.intercept = intercept
        self.outputs = outputs
        self.n_coefficients = self.n_features * outputs
        self.n = self.n_coefficients + (outputs if intercept else 0)
        self.dtype = model_dtype(self.features)

    def forward(self, y: Array) -> Array:
        """Return the predictors, (N,) or (N, K); of a block (n, k), K = 1, (N, k)."""
        c = y[: self.n_coefficients, ...]
        if self.outputs > 1:
            c = c.reshape((self.n_features, self.outputs))
        z = self._own(self.features @ c)
        if self.intercept:
            z += y[self.n_coefficients :, ...]
        return z

    def _own(self, product: Array) -> Array:
        """Copy what an operator returned: it may be its operand, or a buffer it keeps."""
        if isinstance(self.features, LinearOperator):
            return namespace(product).asarray(product, copy=True)
        return product

    def backward(self, s: Array) -> Array:
        """Return the transpose's product with s, fresh: (n,), or of a block (n, k)."""
        c = self.transposed @ s
        c = c.reshape(-1) if self.outputs > 1 else c
        if not self.intercept:
            return self._own(c)
        xp = namespace(s)
        total = xp.sum(s, axis=0)
        total = total.reshape(-1) if self.outputs > 1 else total[None, ...]
        return xp.concatenate([c, total])

    @property
    def has_squares(self) -> bool:
        """Whether :meth:`squares` is available: not for features that are operators."""
        return not isinstance(self.features, LinearOperator)

    @functools.cached_property
    def _squared(self) -> Any:
        """Sparse features with squared entries; binary ones are their own squares."""
        features = self.features
        if (
            not features.has_canonical_format
        ):  # duplicates add up before they are squared
            features = features.copy()
            features.sum_duplicates()
        data, structure = features.data, (features.indices, features.indptr)
        if bool(namespace(data).all((data == 0.0) | (data == 1.0))):
            return features
        return type(features)((data * data, *structure), shape=features.shape)

    def squares(self, d: Array) -> Array:
        """Return diag(F' diag(d) F) with the intercept's entry, shape (n,)."""
        xp = namespace(d)
        if is_sparse(self.features):
            c = self._squared.T @ d
        elif d.ndim == 1:
            c = xp.einsum("ij,ij,i->j", self.features, self.features, d)
        else:
            c = xp.einsum("ij,ij,ik->jk", self.features, self.features, d)
        if not self.intercept:
            return c.reshape(-1)
        return xp.concatenate([c.reshape(-1), xp.sum(d, axis=0).reshape(-1)])

    def row_squares(self, d: Array) -> Array:
        """Return Σ_j d_j a_ij² for each row of the design, shape (N,); d like y, >= 0.

        For several outputs the largest of theirs.
        """
        head = d[: self.n_coefficients]
        if self.outputs > 1:
            head = head.reshape((self.n_features, self.outputs))
        sparse_features = is_sparse(self.features)
        rows = (self._squared if sparse_features else self.features**2) @ head
        if self.intercept:
            rows = rows + d[self.n_coefficients :]
        return rows if rows.ndim == 1 else namespace(d).max(rows, axis=1)


def model_dtype(features: Any) -> Any:
    """Return the dtype of y: that of floating features, float64 for others."""
    floating = features.dtype in (np.float32, np.float64)
    return np.dtype(features.dtype if floating else np.float64)


def as_features(features: Any) -> Any:
    """Return features as a floating CSR/CSC matrix, ndarray or operator."""
    if isinstance(features, list | tuple):
        features = np.asarray(features)
    entries = hasattr(features, "ndim") and not hasattr(features, "matvec")
    if not (is_sparse(features) or entries):
        operator = aslinearoperator(features)
        if operator.dtype is not None and kind_of(operator) == "other":
            raise TypeError(f"features must be real, found dtype {operator.dtype}")
        return operator
    if features.ndim != 2:
        raise ValueError(f"features must be 2-D, found shape {tuple(features.shape)}")
    if features.dtype.kind not in "fiub":
        raise TypeError(f"features must be real, found dtype {features.dtype}")
    if not is_sparse(features):
        xp = namespace(features)
        floating = features.dtype in (xp.float32, xp.float64)
        return features if floating else features.astype(xp.float64)
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
