"""The null space of a matrix C (p, n), as a projection that never forms a basis of it.

    [ G  C' ] [ z ]   [ r ]         w = (C G⁻¹ C')⁺ C G⁻¹ r         multipliers
    [ C  0  ] [ w ] = [ 0 ],        z = G⁻¹ (r − C' w)              projection

in the metric of a positive diagonal G, the identity by default.  Everything happens with
independent rows A of one length that span those of C G^{-1/2} (``independent_rows.py``), and is
refined: after r̂ −= A' (A A')⁻¹ A r̂ the same again while A r̂ is not small.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import sparse

from ..arrays import (
    Array,
    as_vector,
    epsilon,
    is_array,
    is_finite,
    kind_of,
    namespace,
    norm,
)
from ..operators.linear_operator import LinearOperator, as_operator, aslinearoperator
from .independent_rows import (
    Rows,
    column_lengths,
    factorise,
    row_lengths,
    shortest,
    solved,
    split,
)
from .minres import minres


class NullSpace:
    """The null space of C in a metric; made by :func:`null_space`.

    Attributes
    ----------
    C : LinearOperator (p, n)
    shape : (int, int)
        Of C.
    kind : {"disjoint", "dense", "normal", "augmented"}
    rank : int or None
        Rows that are independent to working precision; None where it is not known
        ("augmented").
    row_lengths : array (p,)
        ‖c_i‖₂, 1 for a zero row.
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

    def __repr__(self) -> str:
        p, n = self.shape
        rank = "unknown" if self.rank is None else self.rank
        return f"<NullSpace of a {self.kind} {p} x {n} matrix of rank {rank}>"

    def project(self, r: Array) -> Array:
        """Return z = G⁻¹ (r − C' w), (n,) or (n, k): in the null space, refined."""
        return self.unmetric(self.reduce(r))

    def reduce(self, r: Array) -> Array:
        """Return r − C' w: with G = I the projection of r itself."""
        reduced, _ = self._split(r)
        return _like(_times(reduced, self._root), r)

    def multipliers(self, r: Array) -> Array:
        """Return w, (p,) or (p, k): argmin ‖r − C' w‖ in the norm of G⁻¹.

        Where rows depend on others this is one of several.
        """
        _, w = self._split(r)
        return _like(self._rows.lift @ w, r)

    def unmetric(self, r: Array) -> Array:
        """Return G⁻¹ r."""
        return _like(_over(_over(r, self._root), self._root), r)

    def particular(self, c: Array) -> Array:
        """Return y with C y = c of least norm in the metric, (n,) or (n, k).

        Where the rows contradict each other C y is only near c: see :meth:`mismatch`.
        """
        namespace(self._sizes, c)
        y = shortest(self._rows, self._rows.lift.T @ c)
        return _like(_over(y, self._root), c)

    def gram_inverse(self, c: Array, floor: float = 0.0) -> Array:
        """Return (C G⁻¹ C')⁺ c, (p,) or (p, k); on the independent rows.

        Where there are others, floor D² c is added, which makes a definite operator.
        """
        lift = self._rows.lift
        w = lift @ solved(self._rows, lift.T @ c)
        if floor and self.rank != self.shape[0]:
            w = w + floor * _over(_over(c, self._sizes), self._sizes)
        return _like(w, c)

    def redundancy(self, probe: Array) -> Array:
        """Return a w with C'w = 0, (p,), from a random one: what says which rows depend.

        A right-hand side c of consistent rows has w'c = 0.
        """
        probe = _over(probe, self._sizes)
        return probe - self.multipliers(self.C.rmatvec(probe))

    def mismatch(self, c: Array, y: Array) -> float:
        """Return the largest of ‖D (c − C y)‖ / (‖D c‖ + ‖y‖) over the columns.

        D makes the rows of C one unit long in the metric, the norm of y is that of G: the
        figure has no units.
        """
        rest = _over(c - self.C @ y, self._sizes)
        whole, scaled = _over(c, self._sizes), _times(y, self._root)
        shares = [0.0]
        for missed, right, left in zip(
            column_lengths(rest),
            column_lengths(whole),
            column_lengths(scaled),
            strict=True,
        ):
            size = right + left
            shares.append(missed / size if size > 0.0 else missed)
        return max(shares, key=lambda share: math.inf if math.isnan(share) else share)

    def _split(self, r: Array) -> tuple[Array, Array]:
        """Return the rest of G^{-1/2} r and the coordinates of what A' took from it."""
        namespace(self._sizes, r)  # a mix is refused by name
        return split(self._rows, _over(r, self._root))


def null_space(C: Any, metric: Any = None, *, kind: str | None = None) -> NullSpace:
    """Factorise what the projection onto the null space of C needs.

    Parameters
    ----------
    C : array or SciPy sparse matrix (p, n), or NullSpace
        Rows may depend on each other, be zero and have any scale.  A ``NullSpace`` is
        returned as it is.
    metric : array (n,), optional
        The positive diagonal G; the identity by default.
    kind : {"disjoint", "dense", "normal", "augmented"}, optional
        By default what C is.

    Raises
    ------
    TypeError
        For an operator: its entries are not known.
    ValueError
        For a C or a metric that is not finite, or a metric that is not positive.

    Notes
    -----
    Rows count as dependent when, at unit length, one is the sum of others to rounding of
    its terms ("normal"), or when a singular value is max(p, n) roundings of the largest
    ("dense").  Storage: the entries of C once more, and the factors; with "normal" n + p
    more for each row within 1e-6 of the span of the others.

    References
    ----------
    N. I. M. Gould, M. E. Hribar, J. Nocedal, "On the solution of equality constrained
    quadratic programming problems arising in optimization", SIAM J. Sci. Comput. 23
    (2001) 1376-1395.
    """
    if isinstance(C, NullSpace):
        return C
    aslinearoperator(C)  # refuses what is no real matrix
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


def null_space_for(C: Any, M: Any, n: int) -> NullSpace:
    """Return the null space of C in the metric of M: see ``projected_cg``.

    Raises
    ------
    TypeError, ValueError
        For an M that gives no metric, or does not belong to C.
    """
    given = getattr(M, "null_space", None)
    if isinstance(given, NullSpace):
        constraints = given
    elif M is None:
        constraints = null_space(C)
    elif isinstance(C, NullSpace):
        raise TypeError(
            "M must be None for a C that is factorised, in a metric of its own; build it "
            "as null_space(C, metric)"
        )
    else:
        M = as_operator("M", M)
        diagonal = M.diagonal() if M.has_diagonal else None
        if diagonal is None or M.shape != (n, n) or not _is_diagonal(M, diagonal):
            raise ValueError(
                "M must be preconditioners.constraint(...) or a diagonal operator of "
                f"shape ({n}, {n}): the projection needs its inverse as a metric"
            )
        constraints = null_space(C, 1.0 / diagonal)
    if constraints.shape != tuple(C.shape) or C.shape[1] != n:
        raise ValueError(
            f"C must have {n} columns like H and be the C of M, found shape "
            f"{tuple(C.shape)} and {constraints.shape}"
        )
    return constraints


def _is_diagonal(M: LinearOperator, diagonal: Array) -> bool:
    xp = namespace(diagonal)
    return bool(xp.all(M.matvec(xp.ones_like(diagonal)) == diagonal))


def multipliers(C: Any, r: Array) -> Array:
    """Return argmin ‖r − C' w‖ for any C, (p,): by a NullSpace, or by products alone.

    An operator needs MINRES on [I C'; C 0], which does not square the condition of C;
    whether it did well is for the caller to see in r − C' w.
    """
    if is_array(C) or sparse.issparse(C) or isinstance(C, NullSpace):
        return null_space(C).multipliers(r)
    C, n = aslinearoperator(C), r.shape[0]
    xp, size = namespace(r), n + C.shape[0]
    seen = C.matvec(r)
    if norm(seen) == 0.0:
        return seen
    unit = norm(C.rmatvec(seen)) / norm(seen)  # of the order of ‖C‖

    def product(z: Array) -> Array:
        top = z[:n] + C.rmatvec(z[n:]) / unit
        return xp.concat([top, C.matvec(z[:n]) / unit])

    K = LinearOperator((size, size), product, symmetric=True)
    rhs = xp.concat([r, xp.zeros_like(seen)])
    return minres(K, rhs, rtol=10.0 * epsilon(r)).x[n:] / unit


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
