"""Independent rows A that span those of D C G^{-1/2}, and (A A')⁻¹, in one of four ways.

    disjoint    no column in two rows: A A' = I, O(nnz), without a factorisation
    dense       A from the singular value decomposition, A A' = I; also of small sparse C
    normal      sparse C: A A' is factorised (SuperLU, on the host); dependent rows have
                zero pivots and leave A, nearly dependent rows become a border of it
    augmented   sparse C whose A A' would fill in: [I A'; A −δI] is factorised; the rank
                is not known

D scales the rows to unit length, the diagonal G is a metric.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.linalg import qr, solve_triangular
from scipy.sparse import linalg

from ..arrays import Array, HostArray, epsilon, full, namespace, norm, zeros

_DENSE = 2**16  # entries up to which a sparse C is cheaper as a dense one
_FILL = 20.0  # entries of A A' per entry of A from which on it is not formed
_PIVOT = 1e-14  # added to the diagonal of A A', so that a zero pivot stays a number
_SUSPECT = 1e-8  # pivots that may belong to dependent rows
_NEAR = 1e-12  # squared distance to the span of the others; unit rows
_ROUNDINGS = 16.0  # a row this many roundings of its terms from the span is dependent
_CHUNK = 32  # rows that are tested one by one; more are tested in combination first
_SWEEPS = 8  # of refinement at most; one or two as a rule
_SHIFT = 1e-10  # δ: the augmented matrix is quasi-definite, factorised without pivoting


class Rows(NamedTuple):
    """Independent rows A; multipliers of C = expansion @ w, right-hand side its transpose."""

    A: Any
    expansion: Any
    factor: Callable[[Array], Array] | None  # (A A')⁻¹; None for the identity
    rank: int | None
    dependent: Array | None

    def solve(self, t: Array) -> Array:
        """Return (A A')⁻¹ t."""
        return t if self.factor is None else self.factor(t)

    def split(self, rest: Array) -> tuple[Array, Array]:
        """Return r − A'w, refined, and w = (A A')⁻¹ A r, for r (n,) or (n, k)."""
        total = self.solve(self.A @ rest)
        rest = rest - self.A.T @ total
        for _ in range(_SWEEPS):
            missed = self.A @ rest
            if _is_small(missed, rest):
                break
            w = self.solve(missed)
            total, rest = total + w, rest - self.A.T @ w
        return rest, total

    def minimum_norm_solution(self, target: Array) -> Array:
        """Return the y with A y = target that A' spans, refined."""
        y = self.A.T @ self.solve(target)
        for _ in range(_SWEEPS):
            rest = target - self.A @ y
            if _is_small(rest, y):
                break
            y = y + self.A.T @ self.solve(rest)
        return y


def factorise(C: Any, root: Array | None, kind: str | None) -> tuple[str, Rows, Array]:
    """Return the kind, the rows A, and the lengths of the rows of C G^{-1/2}.

    ``root`` is G^{1/2}; C a dense floating array, or a CSR array without stored zeros.
    """
    A = C if root is None else _columns_over(C, root)
    sizes = row_lengths(A)
    A = _rows_over(A, sizes)
    if kind is None:
        kind = _kind_of(A)
    if kind not in _WAYS:
        known = ", ".join(repr(name) for name in _WAYS)
        raise ValueError(f"kind must be one of {known}, found {kind!r}")
    if kind != "dense" and not sparse.issparse(A):
        raise ValueError(f"kind={kind!r} is for a sparse C, found an array")
    return kind, _WAYS[kind](A, sizes), sizes


def _kind_of(A: Any) -> str:
    if not sparse.issparse(A):
        return "dense"
    per_column = np.bincount(A.indices, minlength=A.shape[1])
    if per_column.size == 0 or per_column.max() <= 1:
        return "disjoint"
    if math.prod(A.shape) <= _DENSE:
        return "dense"
    fill = min(float(np.sum(per_column.astype(float) ** 2)), float(A.shape[0]) ** 2)
    return "normal" if fill <= _FILL * A.nnz else "augmented"


def _disjoint(A: Any, sizes: Array) -> Rows:
    if _kind_of(A) != "disjoint":
        raise ValueError("kind='disjoint' needs a C with one entry per column at most")
    keep = np.flatnonzero(np.diff(A.indptr))
    dependent = np.flatnonzero(np.diff(A.indptr) == 0)
    return Rows(A[keep], _expansion(keep, sizes), None, keep.size, dependent)


def _dense(A: Any, sizes: Array) -> Rows:
    A = A.toarray() if sparse.issparse(A) else A
    xp, (p, n) = namespace(A), A.shape
    if p == 0 or n == 0:
        return Rows(zeros((0, n), A), zeros((p, 0), A), None, 0, None)
    left, values, right = xp.linalg.svd(A, full_matrices=False)
    largest = float(values[0])
    rank = int(xp.count_nonzero(values > max(p, n) * epsilon(A) * largest))
    expansion = left[:, :rank] / values[None, :rank] / sizes[:, None]
    return Rows(right[:rank, :], expansion, None, rank, None)


def _normal(A: Any, sizes: HostArray) -> Rows:
    """Remove the rows with a zero pivot, and factorise the others.

    With a shift δ a pivot is the squared distance of a row to the span of those before
    it, plus δ (1 + ‖coefficients‖²).  A second shift separates the two terms.
    """
    unit, A = epsilon(A.data), A.astype(float)
    keep = every = np.arange(A.shape[0])
    if keep.size == 0:
        return Rows(A, _expansion(keep, sizes), None, 0, keep)
    pivots: Any
    pivots, solve = _pivots(A, _PIVOT)
    if np.any(pivots <= _SUSPECT):
        growth = _pivots(A, 2.0 * _PIVOT)[0] - pivots
        keep = np.flatnonzero(pivots - growth > growth + _NEAR)
        if keep.size < A.shape[0]:
            solve = _pivots(A[keep], _PIVOT)[1] if keep.size else None
    rows = Rows(A[keep], _expansion(keep, sizes), solve, keep.size, None)
    close = _apart(A, np.setdiff1d(every, keep), rows, unit)
    if close.size:
        rows, close = _bordered(A, close, rows, unit)
        keep = np.concatenate([keep, close])
        rows = rows._replace(expansion=_expansion(keep, sizes) @ rows.expansion)
    return rows._replace(dependent=np.setdiff1d(every, keep))


def _apart(A: Any, index: HostArray, rows: Rows, unit: float) -> HostArray:
    """Return those of some rows of A that the others do not span, to rounding.

    A random combination shows where there is none; otherwise each half is searched.
    """
    if index.size == 0:
        return index
    weights = np.random.default_rng(0).standard_normal(index.size)
    rest: Any
    w: Any
    rest, w = rows.split(A[index].T @ weights)
    if norm(rest) <= _ROUNDINGS * unit * (norm(weights) + np.sum(np.abs(w))):
        return index[:0]
    if index.size > _CHUNK:
        halves = np.array_split(index, 2)
        return np.concatenate([_apart(A, half, rows, unit) for half in halves])
    rest, w = rows.split(A[index].T.toarray())
    return index[np.linalg.norm(rest, axis=0) > _rounding(w, unit)]


def _rounding(w: HostArray, unit: float) -> HostArray:
    """Return what rounding leaves of rows a = A'w of unit length, w by columns."""
    return _ROUNDINGS * unit * (1.0 + np.sum(np.abs(w), axis=0))


def _bordered(
    A: Any, close: HostArray, rows: Rows, unit: float
) -> tuple[Rows, HostArray]:
    """Extend the span by the rows B that are close to it; return also which were added.

    B = W'A + R'Q',   Q'Q = I,   A Q = 0:      [A; Q'] has the Gram matrix diag(A A', I)

    and [A; B] = [I 0; W' R'] [A; Q'], the transposed inverse of which goes into ``expansion``.
    """
    rest: Any
    W: Any
    rest, W = rows.split(A[close].T.toarray())
    Q, R, order = qr(rest, mode="economic", pivoting=True)
    # Of two rows that leave the span in one direction, one is enough.
    rank = int(np.sum(np.abs(np.diag(R)) > np.max(_rounding(W, unit))))
    close, W, R = close[order[:rank]], W[:, order[:rank]], R[:rank, :rank]
    inverse = solve_triangular(R, np.eye(rank))
    p = rows.A.shape[0]
    expansion = sparse.block_array(
        [[sparse.eye_array(p), -W @ inverse], [None, inverse]], format="csr"
    )

    def bordered(t: Array) -> Array:
        return np.concatenate([rows.solve(t[:p]), t[p:]])

    both = sparse.vstack([rows.A, sparse.csr_array(Q[:, :rank].T)], format="csr")
    return Rows(both, expansion, bordered, p + rank, None), close


def _pivots(A: Any, shift: float) -> tuple[Array, Any]:
    """Factorise A A' + shift on its diagonal; return the pivots by row, and the solve."""
    gram = A @ A.T + shift * sparse.eye_array(A.shape[0])
    factors = _symmetric_factors(gram)
    return factors.U.diagonal()[factors.perm_c], factors.solve


def _augmented(A: Any, sizes: Array) -> Rows:
    A = A.astype(float)
    p, n = A.shape
    eye = sparse.eye_array
    K = sparse.block_array([[eye(n), A.T], [A, -_SHIFT * eye(p)]], format="csc")
    factors = _symmetric_factors(K)

    def solve(t: Array) -> Array:
        return -factors.solve(np.concatenate([np.zeros((n, *t.shape[1:])), t]))[n:]

    return Rows(A, _expansion(np.arange(p), sizes), solve, None, None)


def _symmetric_factors(matrix: Any) -> Any:
    """Return SuperLU's factors with the pivots on the diagonal."""
    return linalg.splu(
        sparse.csc_array(matrix),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )


_WAYS: dict[str, Callable[[Any, Any], Rows]] = {
    "disjoint": _disjoint,
    "dense": _dense,
    "normal": _normal,
    "augmented": _augmented,
}


def _expansion(keep: Array, sizes: Array) -> Any:
    shape = (sizes.shape[0], keep.size)
    return sparse.csr_array((1.0 / sizes[keep], (keep, np.arange(keep.size))), shape)


def row_lengths(A: Any) -> Array:
    """Return ‖a_i‖, 1 for a zero row; without overflow on the way."""
    if sparse.issparse(A):
        peak = (
            abs(A).max(axis=1).toarray().ravel() if A.shape[1] else np.zeros(A.shape[0])
        )
        peak[peak == 0.0] = 1.0
        scaled = sparse.diags_array(1.0 / peak) @ A
        squares: Any = scaled.power(2).sum(axis=1)
        sizes = peak * np.sqrt(squares)
        return np.where(sizes > 0.0, sizes, 1.0).astype(A.dtype)
    xp = namespace(A)
    if A.shape[1] == 0:
        return full((A.shape[0],), 1.0, A)
    peak = xp.max(xp.abs(A), axis=1)
    peak = xp.where(peak > 0.0, peak, xp.ones_like(peak))
    sizes = peak * xp.sqrt(xp.sum((A / peak[:, None]) ** 2, axis=1))
    return xp.where(sizes > 0.0, sizes, xp.ones_like(sizes))


def column_lengths(v: Array) -> list[float]:
    """Return the norms of the columns."""
    if v.ndim == 1:
        return [norm(v)]
    return [norm(v[:, j]) for j in range(v.shape[1])]


def _is_small(t: Array, z: Array) -> bool:
    """Gould, Hribar and Nocedal's test that z is in the null space; rows have length 1."""
    small = 64.0 * epsilon(z)
    pairs = zip(column_lengths(t), column_lengths(z), strict=True)
    return all(missed <= small * size for missed, size in pairs)


def _rows_over(A: Any, sizes: Array) -> Any:
    if sparse.issparse(A):
        return sparse.csr_array(sparse.diags_array(1.0 / sizes) @ A)
    return A / sizes[:, None]


def _columns_over(A: Any, sizes: Array) -> Any:
    if sparse.issparse(A):
        return sparse.csr_array(A @ sparse.diags_array(1.0 / sizes))
    return A / sizes[None, :]
