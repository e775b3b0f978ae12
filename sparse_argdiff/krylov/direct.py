"""The inverse of a small explicit H on the null space of C, and its definiteness, exactly.

    Z'H Z = L L',    C Z = 0,    Z'G Z = I          P = Z (Z'H Z)⁻¹ Z'

in the metric G = |diag H|, so that the units of y do not matter.  As a preconditioner P ends
CG after one or two steps, whose residual is recomputed; of a Z'H Z that is not definite
the eigenvalues tell whether it is singular or indefinite.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from scipy import linalg, sparse

from ..arrays import Array, HostArray
from ..operators.linear_operator import LinearOperator
from ..status import Status
from .null_space import NullSpace, null_space

LARGEST = 200  # unknowns and rows up to which a factor costs no more than a solve


@dataclasses.dataclass(frozen=True)
class ReducedFactor:
    """P, or why there is none.

    Attributes
    ----------
    status : Status or None
        ``NEGATIVE_CURVATURE`` or ``SINGULAR``; None where Z'H Z is definite.
    direction : array (n,) or None
        Of no positive curvature.
    constraints : NullSpace or None
        Of C in the metric G.
    symmetric : bool
        Whether H is, to rounding.
    """

    status: Status | None
    direction: Array | None
    constraints: NullSpace | None
    symmetric: bool
    _basis: HostArray | None  # Ẑ = G^½ Z; None for the identity
    _root: HostArray  # G^½
    _cholesky: HostArray  # of Z'H Z, where there is no status

    def apply(self, r: Array) -> Array:
        """Return P r, (n,) or (n, k)."""
        scale = self._root if r.ndim == 1 else self._root[:, None]
        reduced = r / scale
        if self._basis is not None:
            reduced = self._basis.T @ reduced
        if reduced.shape[0]:
            (solve,) = linalg.get_lapack_funcs(("potrs",), (self._cholesky, reduced))
            reduced, _ = solve(self._cholesky, reduced, lower=True)
        if self._basis is not None:
            reduced = self._basis @ reduced
        return (reduced / scale).astype(r.dtype, copy=False)

    def operator(self) -> LinearOperator:
        """Return P as an operator."""
        n = self._root.shape[0]
        return LinearOperator(
            (n, n),
            self.apply,
            matmat=self.apply,
            dtype=self._root.dtype,
            positive_definite=True,
        )


class ReducedNullSpace(NullSpace):
    """The null space of C with P in place of G⁻¹, for ``projected_cg``."""

    has_metric = True

    def __init__(self, factor: ReducedFactor) -> None:
        assert factor.constraints is not None
        vars(self).update(vars(factor.constraints) | {"has_metric": True})
        self._inverse = factor

    def unmetric(self, r: Array) -> Array:
        """Return P r."""
        return self._inverse.apply(r)


def reduced_factor(H: Any, C: Any, scale: Array) -> ReducedFactor:
    """Factorise H (n, n) on the null space of C (p, n), or of none.

    Parameters
    ----------
    H, C : arrays or SciPy sparse matrices; C may be None
    scale : array (n,)
        G, positive.
    """
    root: HostArray = np.sqrt(np.asarray(scale))
    entries = H.toarray() if sparse.issparse(H) else np.asarray(H)
    entries = entries.astype(np.result_type(entries, root), copy=False)
    W: Any = entries / root / root[:, None]
    unit = float(np.finfo(W.dtype).eps)
    skew = float(np.abs(W - W.T).max())
    constraints, basis = None, None
    if C is not None:
        constraints = null_space(C, scale)
        basis = constraints.basis()
        W = basis.T @ W @ basis
    whole = ReducedFactor(None, None, constraints, skew <= 32.0 * unit, basis, root, W)
    if W.shape[0] == 0:
        return whole
    if not np.isfinite(W).all():
        return dataclasses.replace(whole, status=Status.NOT_FINITE)
    W = 0.5 * (W + W.T)
    factor: Any
    factor, failed = linalg.get_lapack_funcs(("potrf",), (W,))[0](W, lower=True)
    if failed == 0:
        size = float(np.abs(W).sum(axis=0).max())
        condition = linalg.get_lapack_funcs(("pocon",), (W,))[0]
        reciprocal, _ = condition(factor, size, uplo="L")
        if reciprocal > 10.0 * unit:
            return dataclasses.replace(whole, _cholesky=factor)
    values, vectors = linalg.eigh(W, check_finite=False)
    flat = 10.0 * W.shape[0] * unit * float(np.abs(values).max())
    least = vectors[:, 0]
    direction = (least if basis is None else basis @ least) / root
    status = Status.NEGATIVE_CURVATURE if values[0] < -flat else Status.SINGULAR
    return dataclasses.replace(whole, status=status, direction=direction)
