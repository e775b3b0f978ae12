"""The projection onto the null space of C (p, n), without a basis of it.

    [ G  C' ] [ z ]   [ r ]         w = (C G⁻¹ C')⁺ C G⁻¹ r         multipliers
    [ C  0  ] [ w ] = [ 0 ],        z = G⁻¹ (r − C' w)              projection

in the metric of a positive diagonal G, the identity by default.  A matrix C is replaced by
independent rows A of unit length that span those of C G^{-1/2} (``independent_rows.py``);
the step r̂ −= A' (A A')⁻¹ A r̂ is repeated while A r̂ is not small.  For an operator C the
system above, with G = I, is solved by MINRES, until that has taken as many products as
the p rows of C do: they are then formed and factorised, where they fit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import linalg, sparse

from ..arrays import (
    Array,
    HostArray,
    as_vector,
    epsilon,
    is_array,
    is_finite,
    kind_of,
    namespace,
    zeros,
)
from ..operators.block_matrices import (
    diagonal_operator,
    is_explicit,
    saddle_operator,
)
from ..operators.linear_operator import LinearOperator, as_operator, aslinearoperator
from ..operators.probes import random_signs
from ..status import Status
from .independent_rows import Rows, column_lengths, factorise, row_lengths
from .minres import minres

_ENTRIES = 2**21  # of rows that are formed by products, 16 MB
_BLOCK = 64  # rows that are formed at once
_SAMPLES = 16  # products that estimate the lengths of the rows of an operator


class NullSpace:
    """The null space of a matrix C in a metric; made by :func:`null_space`.

    Attributes
    ----------
    C : LinearOperator (p, n)
    shape : (int, int)
        Of C.
    kind : {"disjoint", "dense", "normal", "augmented"}
    rank : int or None
        Rows that are independent to working precision; None where it is not known
        ("augmented").
    row_lengths, metric_row_lengths : array (p,)
        ‖c_i‖₂ and ‖c_i‖ in the norm of G⁻¹, 1 for a zero row.
    has_metric : bool
        Whether G is not the identity.
    dependent : int array or None
        Rows that others span ("disjoint" and "normal" only).
    """

    def __init__(
        self,
        C: Any,
        lengths: Array,
        root: Array | None,
        kind: str,
        rows: Rows,
        sizes: Array,
    ) -> None:
        self.C: LinearOperator = aslinearoperator(C)
        self.shape: tuple[int, int] = self.C.shape
        self.kind, self.rank, self.dependent = kind, rows.rank, rows.dependent
        self.row_lengths = lengths
        self._rows, self._sizes, self._root = rows, sizes, root
        self.metric_row_lengths, self.has_metric = sizes, root is not None

    def __repr__(self) -> str:
        p, n = self.shape
        rank = "unknown" if self.rank is None else self.rank
        return f"<NullSpace of a {self.kind} {p} x {n} matrix of rank {rank}>"

    def project(self, r: Array) -> Array:
        """Return z = G⁻¹ (r − C' w), (n,) or (n, k): in the null space, refined."""
        return self.unmetric(self.reduce(r))

    def reduce(self, r: Array) -> Array:
        """Return r − C' w, which is the projection of r where G = I."""
        reduced, _ = self._split(r)
        return _like(_times(reduced, self._root), r)

    def multipliers(self, r: Array) -> Array:
        """Return a w = argmin ‖r − C' w‖ in the norm of G⁻¹, (p,) or (p, k)."""
        _, w = self._split(r)
        return _like(self._rows.expansion @ w, r)

    def unmetric(self, r: Array) -> Array:
        """Return G⁻¹ r."""
        return _like(_over(_over(r, self._root), self._root), r)

    def particular(self, c: Array) -> Array:
        """Return y with C y = c of least norm in the metric; see :meth:`mismatch`."""
        namespace(self._sizes, c)
        y = self._rows.minimum_norm_solution(self._rows.expansion.T @ c)
        return _like(_over(y, self._root), c)

    def gram_inverse(self, c: Array, floor: float = 0.0) -> Array:
        """Return (C G⁻¹ C')⁺ c; with dependent rows floor D² c is added: definite."""
        expansion = self._rows.expansion
        w = expansion @ self._rows.solve(expansion.T @ c)
        if floor and self.rank != self.shape[0]:
            w = w + floor * _over(_over(c, self._sizes), self._sizes)
        return _like(w, c)

    def basis(self) -> HostArray:
        """Return an orthonormal basis of the null space of C G^{-1/2}, on the host."""
        A: Any = self._rows.A
        A = A.toarray() if sparse.issparse(A) else np.asarray(A)
        if A.shape[0] == 0:
            return np.eye(A.shape[1], dtype=A.dtype)
        return np.asarray(linalg.qr(A.T)[0])[:, A.shape[0] :]

    def redundancy(self, probe: Array) -> Array:
        """Return a w with C'w = 0, (p,), from a random vector; w'c = 0 if consistent."""
        probe = _over(probe, self._sizes)
        return probe - self.multipliers(self.C.rmatvec(probe))

    def mismatch(self, c: Array, y: Array) -> float:
        """Return the largest of ‖D (c − C y)‖ / (‖D c‖ + ‖y‖) over the columns.

        D scales the rows of C to unit length in the metric, in which y is measured.
        """
        scaled = _times(y, self._root)
        rest = _over(c - self.C @ y, self._sizes)
        return _largest_share(rest, _over(c, self._sizes), scaled)

    def _split(self, r: Array) -> tuple[Array, Array]:
        """Return the rest of G^{-1/2} r and the coordinates of the part removed."""
        namespace(self._sizes, r)  # a mix is refused by name
        return self._rows.split(_over(r, self._root))


class ProductNullSpace:
    """The null space of an operator C (p, n) known by products; the metric is I.

    Each projection is a MINRES solve with [I C'; C 0], its rows in units of their lengths
    (estimated), which does not square the condition of C.  The methods are those of
    :class:`NullSpace`.

    Attributes
    ----------
    spent : int
        Products with C' so far, those of others included who solve with C.
    too_many : bool
        Whether the entries of the rows do not fit.
    """

    rank = None
    has_metric = False

    def __init__(self, C: Any) -> None:
        self.C: LinearOperator = aslinearoperator(C)
        self.shape: tuple[int, int] = self.C.shape
        self.spent = 0
        self._scaled: tuple[LinearOperator, Array] | None = None
        self._formed: NullSpace | None = None
        self.too_many = False

    def by_entries(self, like: Array, metric: Array | None = None) -> NullSpace | None:
        """Return the null space of the rows themselves, once p products are spent.

        None before, and where the rows do not fit.  To wait for as many products as the
        rows take costs at most twice the cheaper of the two.  In a ``metric`` (n,) of its
        own for a solve with another H.
        """
        if self._formed is None and not self.too_many and self.patience == 0:
            rows = formed_rows(self.C, like)
            self.too_many = rows is None
            self._formed = None if rows is None else null_space(rows)
        if self._formed is None or metric is None:
            return self._formed
        return null_space(self._formed.C.matrix, metric)

    def _saddle(self, like: Array) -> tuple[LinearOperator, Array]:
        """Return the matrix with scaled rows and their lengths, estimated once."""
        if self._scaled is None:
            n = self.shape[1]
            lengths = estimated_row_lengths(self.C, 1.0 + 0.0 * like[:n])
            rows = diagonal_operator(1.0 / lengths) @ self.C
            identity = LinearOperator(
                (n, n), lambda u: u, matmat=lambda u: u, symmetric=True
            )
            self._scaled = saddle_operator(identity, rows), lengths
        return self._scaled

    @property
    def row_lengths(self) -> Any:
        """‖c_i‖₂, estimated once a product has shown the type of array, or formed."""
        if self._formed is not None:
            return self._formed.row_lengths
        return 1.0 if self._scaled is None else self._scaled[1]

    metric_row_lengths = row_lengths

    def _lengths(self, like: Array) -> Array:
        lengths: Array = self.row_lengths
        return lengths if self._formed is not None else self._saddle(like)[1]

    @property
    def patience(self) -> float:
        """The products that may be spent before the rows are formed."""
        return math.inf if self.too_many else max(self.shape[0] - self.spent, 0)

    def _solve(self, r: Array, c: Array) -> tuple[Array, Array] | NullSpace:
        """Solve [I C'; C 0] (z; w) = (r; c), or return what solves it faster."""
        like, n = (r[:, 0] if r.ndim == 2 else r), self.shape[1]
        rows = self.by_entries(like)
        if rows is not None:
            return rows
        K, lengths = self._saddle(like)
        rhs = namespace(r).concat([r, _over(c, lengths)])
        limit = max(10 * rhs.shape[0], 20)
        first = int(min(limit, self.patience + 1))
        found = minres(K, rhs, rtol=10.0 * epsilon(rhs), maxiter=first)
        self.spent += found.n_matvec
        rows = self.by_entries(like) if first < limit else None
        if rows is not None and found.status is Status.ITERATION_LIMIT:
            return rows
        if found.status is Status.ITERATION_LIMIT and first < limit:
            rest = limit - first
            found = minres(K, rhs, found.x, rtol=10.0 * epsilon(rhs), maxiter=rest)
        z = found.x
        return z[:n, ...], _over(z[n:, ...], lengths)

    def project(self, r: Array) -> Array:
        """Return r − C' w, (n,) or (n, k): in the null space."""
        found = self._solve(r, zeros((self.shape[0], *r.shape[1:]), r))
        return found.project(r) if isinstance(found, NullSpace) else found[0]

    reduce = project

    def unmetric(self, r: Array) -> Array:
        """Return r."""
        return r

    def multipliers(self, r: Array) -> Array:
        """Return argmin ‖r − C' w‖, (p,) or (p, k)."""
        found = self._solve(r, zeros((self.shape[0], *r.shape[1:]), r))
        return found.multipliers(r) if isinstance(found, NullSpace) else found[1]

    def particular(self, c: Array) -> Array:
        """Return y of least norm with C y = c, in the least-squares sense."""
        found = self._solve(zeros((self.shape[1], *c.shape[1:]), c), c)
        return found.particular(c) if isinstance(found, NullSpace) else found[0]

    def redundancy(self, probe: Array) -> Array:
        """Return a w with C'w = 0, (p,), from a random vector; w'c = 0 if consistent."""
        probe = probe / self._lengths(self.C.rmatvec(probe))
        return probe - self.multipliers(self.C.rmatvec(probe))

    def mismatch(self, c: Array, y: Array) -> float:
        """Return the largest of ‖D (c − C y)‖ / (‖D c‖ + ‖y‖) over the columns.

        D scales the rows of C to unit length.
        """
        lengths = self._lengths(y[:, 0] if y.ndim == 2 else y)
        rest = _over(c - self.C @ y, lengths)
        return _largest_share(rest, _over(c, lengths), y)


def estimated_row_lengths(C: LinearOperator, root: Array) -> Array:
    """Return ‖c_i‖ of the rows of C diag(root), each to 1 / √8; 1 for zero rows.

    16 products with random vectors: E (C z)_i² = ‖c_i‖².
    """
    total: Any = 0.0
    for seed in range(_SAMPLES):
        total = total + (C.matvec(root * random_signs(root.shape[0], root, seed))) ** 2
    xp = namespace(root)
    sizes = xp.sqrt(total / (13.0 / 12.0 * _SAMPLES))
    return xp.where(sizes > 0.0, sizes, xp.ones_like(sizes))


def formed_rows(C: LinearOperator, like: Array) -> Any:
    """Return the entries of C (p, n), by p products with C'; None of more than 2²¹.

    On the host a sparse matrix where it is one.
    """
    p, n = C.shape
    if not isinstance(like, np.ndarray):
        if p * n > _ENTRIES:
            return None
        rows: Any = C.rmatmat(namespace(like).eye(p, dtype=like.dtype)).T
        return rows if is_finite(rows) else None
    blocks, count = [], 0
    for first in range(0, p, _BLOCK):
        units = np.eye(p, min(_BLOCK, p - first), -first, dtype=like.dtype)
        rows = C.rmatmat(units).T
        count += int(np.count_nonzero(rows))
        if count > _ENTRIES or not is_finite(rows):
            return None
        blocks.append(sparse.csr_array(rows))
    found = sparse.csr_array(sparse.vstack(blocks))
    return found.toarray() if 2 * count > p * n else found


def null_space(C: Any, metric: Any = None, *, kind: str | None = None) -> NullSpace:
    """Factorise a matrix C for the projections onto its null space.

    Parameters
    ----------
    C : array or SciPy sparse matrix (p, n), or NullSpace
        Rows may be dependent, zero and of any scale.  A ``NullSpace`` is returned as it is.
    metric : array (n,), optional
        The positive diagonal G; the identity by default.
    kind : {"disjoint", "dense", "normal", "augmented"}, optional
        By default chosen by the entries of C.

    Raises
    ------
    TypeError, ValueError
        For an operator; for a C or a metric that is not finite, or not positive.

    Notes
    -----
    A row of unit length is dependent when it is the sum of others to rounding ("normal"),
    or when a singular value is max(p, n) roundings of the largest ("dense").  Storage: the
    entries of C once more, and the factors; with "normal" n + p more for each row within
    1e-6 of the span of the others.
    """
    if isinstance(C, NullSpace):
        return C
    as_operator("C", C, square=False)  # refuses what is no real matrix
    if sparse.issparse(C):
        floating = C.dtype in (np.float32, np.float64)
        C = sparse.csr_array(C)  # of all formats the one with sound products
        A = sparse.csr_array(C, dtype=C.dtype if floating else float, copy=True)
        A.sum_duplicates()
        A.eliminate_zeros()
        entries, xp = A.data, np
    elif is_array(C):
        xp = namespace(C)
        A = entries = C if kind_of(C) == "floating" else xp.astype(C, xp.float64)
    else:
        raise TypeError(
            f"C must be an array or a sparse matrix, found {type(C).__name__}; only "
            "method='minres' can do with the products of an operator"
        )
    if not is_finite(entries):
        raise ValueError("C must be finite, found NaN or infinity")
    if metric is not None:
        metric = _as_metric(metric, A.shape[1], entries)
    root = None if metric is None else xp.sqrt(metric)
    return NullSpace(C, row_lengths(A), root, *factorise(A, root, kind))


def null_space_for(C: Any, M: Any, n: int) -> NullSpace | ProductNullSpace:
    """Return the null space of C in the metric of M: see ``projected_cg``."""
    found: NullSpace | ProductNullSpace
    if isinstance(getattr(M, "null_space", None), NullSpace):
        found = M.null_space
    elif M is None:
        found = C if isinstance(C, ProductNullSpace) else null_space(C)
    elif isinstance(C, NullSpace | ProductNullSpace):
        raise TypeError(
            "M must be None for a C that is factorised, in a metric of its own; build it "
            "as null_space(C, metric)"
        )
    else:
        found = null_space(C, 1.0 / _diagonal_of(M, n))
    if found.shape != tuple(C.shape) or C.shape[1] != n:
        raise ValueError(
            f"C must have {n} columns like H and be the C of M, found shape "
            f"{tuple(C.shape)} and {found.shape}"
        )
    return found


def _diagonal_of(M: Any, n: int) -> Array:
    """Return the diagonal of an operator (n, n) without other entries."""
    M = as_operator("M", M)
    if M.has_diagonal and M.shape == (n, n):
        diagonal = M.diagonal()
        xp = namespace(diagonal)
        if bool(xp.all(M.matvec(xp.ones_like(diagonal)) == diagonal)):
            return diagonal
    raise ValueError(
        "M must be preconditioners.constraint(...) or a diagonal operator of "
        f"shape ({n}, {n}): the projection needs its inverse as a metric"
    )


def null_space_of(C: Any) -> NullSpace | ProductNullSpace:
    """Return the null space of any C: factorised where its entries are known."""
    if isinstance(C, NullSpace | ProductNullSpace):
        return C
    return null_space(C) if is_explicit(C) else ProductNullSpace(C)


def _largest_share(rest: Array, right: Array, left: Array) -> float:
    """Return the largest ‖rest‖ / (‖right‖ + ‖left‖) of the columns; NaN counts most."""
    shares = [0.0]
    sizes = zip(*map(column_lengths, (rest, right, left)), strict=True)
    for missed, *whole in sizes:
        size = sum(whole)
        shares.append(missed / size if size > 0.0 else missed)
    return max(shares, key=lambda share: math.inf if math.isnan(share) else share)


def _as_metric(metric: Any, n: int, like: Array) -> Array:
    metric = as_vector("metric", metric, n)
    xp = namespace(metric, like)
    if not bool(xp.all((metric > 0.0) & xp.isfinite(metric))):
        raise ValueError("metric must be finite and positive")
    return metric


def _over(v: Array, sizes: Array | None) -> Array:
    """Return v with its rows divided, or v itself."""
    if sizes is None:
        return v
    return v / (sizes if v.ndim == 1 else sizes[:, None])


def _times(v: Array, sizes: Array | None) -> Array:
    """Return v with its rows multiplied, or v itself."""
    if sizes is None:
        return v
    return v * (sizes if v.ndim == 1 else sizes[:, None])


def _like(v: Array, r: Array) -> Array:
    """Return v in the precision of r; the factors may have more."""
    return v if v.dtype == r.dtype else namespace(v, r).astype(v, r.dtype)
