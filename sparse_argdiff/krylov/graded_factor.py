"""The factor of a small KKT matrix whose unknowns are in very unlike units.

    K = [ H  C' ]        |δx| <= ε |K⁻¹| (|K| |x| + |b|)        |x| <= |K⁻¹| |b|
        [ C  0  ]

Few curvatures beside rows of many sizes leave no scaling in which all of K is near 1, and a
norm of the residual says nothing of the small unknowns.  Gaussian elimination, refined until
each residual is rounding of its own terms, gives every unknown what digits it has (Skeel);
the bound above, componentwise, tells how many these are.

References
----------
R. D. Skeel, Math. Comp. 35 (1980) 817-832.
M. Arioli, J. W. Demmel, I. S. Duff, SIAM J. Matrix Anal. Appl. 10 (1989) 165-190.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from scipy import linalg, sparse

from ..arrays import HostArray, drawn
from .ldl_factor import is_semidefinite

LARGEST = 200  # unknowns: the inverse is formed
_SWEEPS = 4  # of refinement; the second is the last that the theory asks for
_TINY = 1e-3  # an entry, where those of whole rows are about 1
_DIGITS = 1e-8  # of an unknown, that rounding may cost


class GradedFactor:
    """P A Q = L U of the equilibrated K, and |K⁻¹|."""

    def __init__(
        self, K: HostArray, left: HostArray, right: HostArray, lu: Any, inverse: Any
    ) -> None:
        self._K, self._left, self._right, self._lu = K, left, right, lu
        self._size, self._inverse = np.abs(K), np.abs(inverse)

    @cached_property
    def regular(self) -> bool:
        """Whether K has an inverse, as far as its digits tell."""
        return self.solve(drawn("normal", self._left.size)) is not None

    def solve(self, rhs: HostArray) -> HostArray | None:
        """Return K⁻¹ rhs, (N,) or (N, k); None where an unknown has too few digits."""
        left, right = self._left, self._right
        if rhs.ndim == 2:
            left, right = left[:, None], right[:, None]
        b = left * rhs
        x = linalg.lu_solve(self._lu, b)
        for _ in range(_SWEEPS):
            x = x + linalg.lu_solve(self._lu, b - self._K @ x)
        off = np.abs(b - self._K @ x)
        unit = float(np.finfo(float).eps)
        off = np.maximum(off, unit * (self._size @ np.abs(x) + np.abs(b)))
        error, reach = self._inverse @ off, self._inverse @ np.abs(b)
        if not bool(np.all(error <= _DIGITS * reach)):
            return None
        return right * x


def graded_factor(
    H: Any, C: Any, left: Any = 1.0, right: Any = 1.0
) -> GradedFactor | None:
    """Return the factor of K = diag(left)⁻¹ [H C'; C 0] diag(right)⁻¹, both explicit.

    None where H is not positive semidefinite, or K singular to rounding.
    """
    H, C = (m.toarray() if sparse.issparse(m) else np.asarray(m) for m in (H, C))
    n, p = H.shape[0], C.shape[0]
    if not 0 < n + p <= LARGEST or H.dtype != np.float64:
        return None
    if not (np.array_equal(H, H.T) and is_semidefinite(H)):
        return None
    K = np.block([[H, C.T], [C, np.zeros((p, p))]])
    scale = _equilibrated(K)
    K = scale[:, None] * K * scale
    if not np.isfinite(K).all():
        return None
    lu, pivots, failed = linalg.lapack.dgetrf(K)
    if failed:
        return None
    inverse = linalg.lu_solve((lu, pivots), np.eye(n + p), check_finite=False)
    if not np.isfinite(inverse).all():
        return None
    return GradedFactor(K, scale * left, scale * right, (lu, pivots), inverse)


def graded_part(
    matrix: Any, kept: HostArray, left: Any = 1.0, right: Any = 1.0
) -> GradedFactor | None:
    """Return the factor of the kept part of a matrix that was factorised.

    None where each unknown that is kept has a curvature and each row an entry next to it
    (whole rows were near 1), and where there is no such factor.
    """
    if kept.sum() > LARGEST:
        return None
    entries, n = matrix.entries(kept), int(kept[: matrix.n].sum())
    if entries is None or n == 0:
        return None
    usual = bool(np.all(entries.diagonal()[:n] > 0.0))
    if usual and bool(np.all(np.abs(entries[n:, :n]).max(axis=1) > _TINY)):
        return None
    return graded_factor(entries[:n, :n], entries[n:, :n], left, right)


def _equilibrated(K: HostArray) -> HostArray:
    """Return powers of two e such that the largest entry of each row of e K e is about 1."""
    e, size = np.ones(K.shape[0]), np.abs(K)
    for _ in range(8):
        largest = (e[:, None] * size * e).max(axis=1)
        e = e / np.sqrt(np.where(largest > 0.0, largest, 1.0))
    return 2.0 ** np.round(np.log2(e))
