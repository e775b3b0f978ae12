"""The log-weights of a penalty as a function of its parameters: η = o + Z x.

    spread(u) = Z u,        gather(c) = Z' c,        Z (p, m) or, for K outputs, (p K, m)

"scalar", "per-group", "per-feature" and "per-coefficient" name ones, one-hot rows and two
identities, of which the places of the ones are kept instead of Z.  A row of a feature
weighs all its K coefficients.  Intercepts have no row.
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
    as_vector,
    asarray,
    check_finite,
    is_array,
    is_sparse,
    kind_of,
    namespace,
    to_namespace,
    zeros,
)
from ..operators.linear_operator import LinearOperator, as_operator

KINDS = ("per-feature", "per-group", "per-coefficient", "scalar")


class LogWeights:
    """The map from x (m,) to the log-weights of the coefficients (p, K), in C order.

    Parameters
    ----------
    penalty : str, array, sparse matrix or operator
        A name of ``KINDS``, or Z.
    n_features, outputs : int
        p and K.
    like : array
        Of the model: the log-weights live where it does and have its dtype.
    groups : int array (p,), optional
        Of "per-group", numbered 0 … G−1.
    offset : array (p,) or (p K,), optional
        o; infinite entries are weights of zero and coefficients that are fixed at 0.
    """

    def __init__(
        self,
        penalty: Any,
        n_features: int,
        outputs: int,
        like: Array,
        groups: Any = None,
        offset: Any = None,
    ) -> None:
        self.size, self.outputs = n_features * outputs, outputs
        self.given, self.groups, self.given_offset = penalty, groups, offset
        self.kind = penalty if isinstance(penalty, str) else "Z"
        if self.kind not in (*KINDS, "Z"):
            known = ", ".join(map(repr, KINDS))
            raise ValueError(f"penalty must be one of {known}, or Z, found {penalty!r}")
        if (groups is not None) != (self.kind == "per-group"):
            raise ValueError("groups goes with penalty='per-group', and only with it")
        self._index: Any = None  # of the row of each coefficient; None: its own
        self._matrix: Any = None  # Z, where it has no name
        if self.kind == "Z":
            self._matrix = as_map(penalty, n_features, outputs, like)
            rows, self.m = self._matrix.shape
            index = np.arange(rows)
        else:
            index = _places(self.kind, n_features, outputs, groups)
            self.m = 1 if self.kind == "scalar" else int(index.max(initial=-1)) + 1
        self._index = _repeated(index, self.size, like)
        self._transposed = None if self._matrix is None else self._matrix.T
        self.offset = _checked_offset(offset, n_features, outputs, like)

    def __repr__(self) -> str:
        if self.kind == "Z":
            return f"Z {self._matrix.shape[0]} x {self.m}"
        return repr(self.kind)

    def arguments(self, xp: Any) -> dict[str, Any]:
        """Return what made this map, in the namespace ``xp``, as ``Glm`` takes it."""
        Z, offset = self.given, self.given_offset
        movable = is_array(Z) or is_sparse(Z)
        return {
            "penalty": to_namespace(Z, xp) if movable else Z,
            "groups": self.groups,
            "log_offset": to_namespace(offset, xp) if is_array(offset) else offset,
        }

    def __call__(self, x: Any, dtype: Any) -> Array:
        """Return η, shape (p K,), a fresh array or x itself; not to be written to.

        Raises
        ------
        ValueError
            For another shape, and for infinite entries where Z has no name: 0 · ∞.
        """
        x = as_vector("x", x)
        if x.shape != (self.m,):
            raise ValueError(
                f"x must have shape ({self.m},) for penalty={self!r}, found shape "
                f"{tuple(x.shape)}"
            )
        xp = namespace(x)
        if self._matrix is not None and bool(xp.any(xp.isinf(x))):
            raise ValueError(
                "x must be finite for a penalty that is a table Z, found an infinite "
                "entry; log_offset takes infinite log-weights of single coefficients"
            )
        eta = self.spread(xp.asarray(x, dtype=dtype))
        if self.offset is None:
            return eta
        namespace(x, self.offset)
        fixed = xp.isinf(self.offset)
        return xp.where(fixed, self.offset, eta + xp.where(fixed, 0.0, self.offset))

    def spread(self, u: Array) -> Array:
        """Return Z u: (m,) → (p K,)."""
        rows = u if self._matrix is None else self._matrix @ u
        if self.kind == "scalar":
            return rows + zeros(self.size, rows)
        return rows if self._index is None else rows[self._index]

    def gather(self, c: Array) -> Array:
        """Return Z' c: (p K,) → (m,)."""
        xp, rows = namespace(c), c
        if self.kind == "scalar":
            return xp.sum(c).reshape(1)
        if self._index is not None:
            count = self.m if self._matrix is None else self._matrix.shape[0]
            rows = xp.bincount(self._index, weights=c, minlength=count).astype(c.dtype)
        if self._transposed is None:
            return rows
        return namespace(rows).asarray(self._transposed @ rows, dtype=c.dtype)

    @functools.cached_property
    def row_norms(self) -> Array | float | None:
        """Return ‖Z_j‖₂ of the rows of the coefficients; None where Z is an operator."""
        Z = self._matrix
        if Z is None:
            return 1.0
        if isinstance(Z, LinearOperator):
            return None
        squares = Z.multiply(Z) if is_sparse(Z) else Z * Z
        sums = squares.sum(axis=1)
        xp = namespace(Z.data if is_sparse(Z) else Z)
        found: Any = xp.sqrt(xp.asarray(sums).reshape(-1))
        return found if self._index is None else found[self._index]


def as_map(Z: Any, n_features: int, outputs: int, like: Array) -> Any:
    """Return a checked Z: an ndarray, a CSR matrix or an operator in the model's dtype."""
    if hasattr(Z, "matvec") or not (hasattr(Z, "ndim") or isinstance(Z, list | tuple)):
        return _as_map_by_products(Z, n_features, outputs, like)
    if is_sparse(Z):
        if sparse.issparse(Z) != (namespace(like) is np):
            raise TypeError(
                "penalty must be a matrix where the features live, found "
                f"{type(Z).__module__.partition('.')[0]}'s"
            )
        if kind_of(Z) == "other":
            raise TypeError(f"penalty must be real, found dtype {Z.dtype}")
        _check_rows(Z.shape, n_features, outputs)
        check_finite("penalty", Z)
        Z = Z.tocsr().astype(like.dtype)
        return sparse.csr_array(Z) if sparse.issparse(Z) else Z
    Z = as_array("penalty", Z)
    namespace(Z, like)
    _check_rows(tuple(Z.shape), n_features, outputs)
    return as_data("penalty", Z, like.dtype)


def _as_map_by_products(Z: Any, n_features: int, outputs: int, like: Array) -> Any:
    if not (hasattr(Z, "shape") and (hasattr(Z, "matvec") or hasattr(Z, "__matmul__"))):
        raise TypeError(
            f"penalty must be a name, one of {', '.join(map(repr, KINDS))}, or Z: an "
            f"array, a sparse matrix or an operator, found {type(Z).__name__}"
        )
    operator = as_operator("penalty", Z, square=False)
    _check_rows(operator.shape, n_features, outputs)
    try:
        operator.rmatvec(zeros(operator.shape[0], like))
    except (NotImplementedError, AttributeError) as error:
        raise TypeError(
            "penalty must be an operator with matvec and rmatvec, found one without "
            f"rmatvec: {error}"
        ) from None
    return operator


def _check_rows(shape: tuple[int, ...], n_features: int, outputs: int) -> None:
    known = {n_features, n_features * outputs}
    if len(shape) == 2 and shape[0] in known:
        return
    rows = " or ".join(map(str, sorted(known)))
    hint = ""
    if len(shape) == 2 and shape[0] in {n_features + 1, (n_features + 1) * outputs}:
        hint = "; intercepts have no row: they are not penalised"
    raise ValueError(
        f"penalty must be a table Z (rows, m) of {rows} rows, one for each feature"
        f"{' or coefficient' if outputs > 1 else ''}, found shape {tuple(shape)}{hint}"
    )


def _places(kind: str, n_features: int, outputs: int, groups: Any) -> Any:
    """Return the place of the one in the row of each feature or coefficient."""
    if kind == "per-group":
        return _check_groups(groups, n_features)
    if kind == "per-coefficient":
        return np.arange(n_features * outputs)
    return np.arange(n_features) * (kind == "per-feature")


def _repeated(index: Any, size: int, like: Array) -> Array | None:
    """Return the row of each coefficient where ``like`` lives; None where it is its own."""
    if index.shape[0] != size:
        index = np.repeat(index, size // max(index.shape[0], 1))
    own = bool(np.array_equal(index, np.arange(size)))
    return None if own else asarray(index, like, np.int64)


def _checked_offset(
    offset: Any, n_features: int, outputs: int, like: Array
) -> Array | None:
    """Return o for each coefficient, or None."""
    if offset is None:
        return None
    found = as_data("log_offset", offset, like.dtype, finite=False)
    xp, size = namespace(found, like), n_features * outputs
    if found.shape not in {(n_features,), (size,)}:
        rows = " or ".join(f"({count},)" for count in sorted({n_features, size}))
        raise ValueError(
            f"log_offset must have shape {rows}, found shape {tuple(found.shape)}"
        )
    if bool(xp.any(xp.isnan(found))):
        raise ValueError("log_offset must be numbers or infinite, found NaN")
    return found if found.shape[0] == size else xp.repeat(found, outputs)


def _check_groups(groups: Any, n_features: int) -> Any:
    labels = np.asarray(as_array("groups", groups))
    if labels.shape != (n_features,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"groups must be whole numbers of shape ({n_features},), found dtype "
            f"{labels.dtype} and shape {labels.shape}"
        )
    if labels.size and labels.min() < 0:
        raise ValueError(f"groups must be >= 0, found {labels.min()}")
    return labels
