"""The LDLᵀ factor of a sparse saddle point matrix, on the host, by SciPy's SuperLU.

    K = [ H  Cᵀ ]        E (K + diag(ε, −ε)) E = L U,    x ← x + E (L U)⁻¹ E (rhs − K x)
        [ C  −D ]

With H + CᵀD⁻¹C definite the regularised matrix is quasi-definite: it has a factor LDLᵀ
without pivoting in any symmetric order (Vanderbei 1995), and the refinement, a proximal
point method, removes ε again, on consistent singular systems too.  Where that fails the
matrix is factorised once more with partial pivoting.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import linalg, sparse
from scipy.sparse.linalg import splu

_REGULARISATION = 1e-9
_SWEEPS = 30  # of iterative refinement, at most
_POOR = 1e-8  # a relative residual above this calls for pivoting
_SHIFT = 2.0**-26  # √u: a curvature below is rounding


class LDLFactor:
    """K⁻¹ for explicit H and C.

    Parameters
    ----------
    H : sparse matrix (n, n)
        Symmetric.
    C : sparse matrix (p, n)
    D : array (p,)
        Non-negative.

    References
    ----------
    R. J. Vanderbei, "Symmetric quasidefinite matrices", SIAM J. Optim. 5 (1995) 100-113.
    D. Ruiz, "A scaling algorithm to equilibrate both rows and columns norms in
    matrices", RAL-TR-2001-034.
    """

    def __init__(self, H: Any, C: Any, D: np.ndarray) -> None:
        n, p = H.shape[0], C.shape[0]
        blocks = [[H, C.T], [C, -sparse.diags_array(D)]] if p else [[H]]
        self._K = sparse.csr_array(sparse.block_array(blocks).astype(np.float64))
        self._signs = np.r_[np.ones(n), -np.ones(p)]
        self._E = _equilibrate(self._K)
        self._pivoting = False
        self._lu = self._factorise()
        self.residual = 0.0  # of the last solve, relative

    def _factorise(self) -> Any:
        E = sparse.diags_array(self._E)
        epsilon = _REGULARISATION * (1e-3 if self._pivoting else 1.0)
        matrix = E @ self._K @ E + epsilon * sparse.diags_array(self._signs)
        options: dict[str, Any] = {
            "permc_spec": "MMD_AT_PLUS_A",
            "diag_pivot_thresh": 0.0,
            "options": {"SymmetricMode": True},
        }
        try:
            return splu(sparse.csc_array(matrix), **({} if self._pivoting else options))
        except RuntimeError:  # exactly singular: a pivot is zero
            return None

    @property
    def shows_inertia(self) -> bool:
        """Whether the pivots are those of L D Lᵀ, without row exchanges."""
        lu = self._lu
        return lu is not None and np.array_equal(lu.perm_r, lu.perm_c)

    @property
    def negative_curvature(self) -> bool:
        """Whether H is not positive on the null space of C (D = 0), by the inertia.

        Without row exchanges L U is L D Lᵀ, and the signs of its pivots are those of the
        eigenvalues (Sylvester).  False where the pivoting hides them.
        """
        if not self.shows_inertia:
            return False
        pivots = self._lu.U.diagonal()
        return int(np.sum(pivots < 0.0)) > int(np.sum(self._signs < 0.0))

    def solve(self, rhs: np.ndarray, rtol: float = 1e-12) -> np.ndarray:
        """Return K⁻¹ rhs; ``residual`` says how well it solves the system."""
        x, self.residual = self._refine(rhs, rtol)
        if self.residual > _POOR and not self._pivoting:
            self._pivoting = True
            static, self._lu = self._lu, self._factorise()
            again, residual = self._refine(rhs, rtol)
            if residual < self.residual:
                x, self.residual = again, residual
            else:
                self._lu = static
        return x

    def approximate(self, rhs: np.ndarray) -> np.ndarray:
        """Return (K + ε)⁻¹ rhs without refinement, symmetric: for preconditioners."""
        solved: np.ndarray = self._E * self._lu.solve(self._E * rhs)
        return solved

    @property
    def is_singular(self) -> bool:
        """Whether there is no factor: a pivot is zero."""
        return self._lu is None

    def _refine(self, rhs: np.ndarray, rtol: float) -> tuple[np.ndarray, float]:
        x, best, r = np.zeros_like(rhs), np.zeros_like(rhs), rhs
        size = float(np.linalg.norm(rhs))
        smallest = before = size
        if self._lu is None or size == 0.0:
            return x, 1.0 if size else 0.0
        for _ in range(_SWEEPS):
            x = x + self._E * self._lu.solve(self._E * r)
            r = rhs - self._K @ x
            now = float(np.linalg.norm(r))
            if now < smallest:
                smallest, best = now, x
            if not now > rtol * size or not now <= 0.7 * before:
                break
            before = now
        return best, smallest / size


def _equilibrate(K: Any, passes: int = 4) -> np.ndarray:
    """Return E such that the largest entries of the rows of E K E are about 1."""
    E = np.ones(K.shape[0])
    for _ in range(passes):
        scaled = abs(sparse.diags_array(E) @ K @ sparse.diags_array(E))
        largest = scaled.max(axis=1).toarray().ravel()
        E /= np.sqrt(np.where(largest > 0.0, largest, 1.0))
    return E


def is_semidefinite(H: Any) -> bool:
    """Tell by one factorisation whether a symmetric matrix is positive semidefinite.

    That is W + √u I definite, for W = H in the units of its diagonal.  A diagonal entry
    that is negative, or zero in a row that is not, tells without.
    """
    d = np.asarray(H.diagonal(), dtype=float)
    if d.size == 0:
        return True
    if not np.isfinite(d).all() or (d < 0.0).any():
        return False
    scale = np.where(d > 0.0, 1.0 / np.sqrt(np.where(d > 0.0, d, 1.0)), 0.0)
    if sparse.issparse(H):
        H = sparse.csr_array(H)
        flat: Any = np.repeat(d == 0.0, np.diff(H.indptr))
        if bool(np.any(H.data[flat] != 0.0)):
            return False
        if H.count_nonzero() == np.count_nonzero(d):
            return True
        kept = np.flatnonzero(d > 0.0)
        W = sparse.diags_array(scale[kept]) @ H[kept][:, kept]
        W = sparse.csr_array(W @ sparse.diags_array(scale[kept]))
        W = W + _SHIFT * sparse.eye_array(kept.size, format="csr")
        none = sparse.csr_array((0, kept.size))
        return not LDLFactor(W, none, np.zeros(0)).negative_curvature
    H = np.asarray(H, dtype=float)
    if bool(np.any(H[d == 0.0] != 0.0)):
        return False
    W = scale[:, None] * H * scale
    W[np.diag_indices_from(W)] += _SHIFT
    positive = d > 0.0
    W = W if positive.all() else W[np.ix_(positive, positive)]
    _, failed = linalg.lapack.dpotrf(W, lower=True)
    return bool(failed == 0)
