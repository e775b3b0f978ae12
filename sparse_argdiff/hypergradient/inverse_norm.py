"""An upper bound of |v| = (v' K⁻¹ v)^½, the energy norm of the error that a residual v leaves.

    |v|² ≤ v_P' K_PP⁻¹ v_P + Σ w_j² / d_j,      w = v − K_·P K_PP⁻¹ v_P,      K ≥ diag(d)

The steps of CG give no such bound: a part δ of a right-hand side along an eigenvector is not
seen before the residual has fallen to δ, and moves the solution by δ over its eigenvalue.
A bound K ≥ diag(d) is known where K = core + diag(d) says its parts, and from constants.
Entries P with d = 0, such as an intercept, are eliminated: the Schur complement of a
semidefinite core is semidefinite.
"""

from __future__ import annotations

import functools
import math

from ..arrays import Array, arange, dot, is_finite, namespace
from ..operators.linear_operator import LinearOperator
from ..problem.constants import Constants


class InverseNorm:
    """The bound for a K ≥ diag(d), d ≥ 0; the columns at d = 0 take a product each.

    Attributes
    ----------
    n_matvec : int
        Products so far.
    """

    def __init__(self, K: LinearOperator, d: Array) -> None:
        xp = namespace(d)
        self.K, self.n_matvec = K, 0
        self._known = d > 0.0
        self._root = xp.sqrt(xp.where(self._known, d, xp.ones_like(d)))
        (self._free,) = xp.nonzero(~self._known)

    def __call__(self, v: Array, *, whole: bool = True) -> float:
        """Return the bound; with ``whole`` false that of the part at d > 0, no product."""
        xp, square = namespace(v), 0.0
        if whole and self._free.shape[0]:
            K_P, K_PP = self._columns
            v_P = xp.take(v, self._free)
            t = xp.linalg.solve(K_PP, v_P)
            square, v = max(dot(v_P, t), 0.0), v - K_P @ t
        w = xp.where(self._known, v, xp.zeros_like(v)) / self._root
        return math.sqrt(square + dot(w, w))

    @property
    def price(self) -> int:
        """Products that the whole bound still costs."""
        return int(self._free.shape[0]) - self.n_matvec

    @functools.cached_property
    def _columns(self) -> tuple[Array, Array]:
        """K_·P and K_PP."""
        xp, root = namespace(self._root), self._root
        unit = arange(root.shape[0], root)[:, None] == self._free[None, :]
        K_P = self.K @ xp.where(unit, xp.ones_like(root[:, None]), 0.0 * root[:, None])
        self.n_matvec += int(self._free.shape[0])
        return K_P, xp.take(K_P, self._free, axis=0)


def inverse_norm(
    K: LinearOperator, like: Array, constants: Constants | None = None
) -> InverseNorm | ByBlocks | None:
    """Return the bound for K, which multiplies arrays like this; None without a d."""
    if K.split is not None:
        d = K.split[1]
    elif constants is not None and constants.convexity > 0.0:
        W = constants.metric
        d = constants.convexity * (namespace(like).ones_like(like) if W is None else W)
    else:
        return None
    if not is_finite(d) or bool(namespace(d).any(d < 0.0)):
        return None
    return InverseNorm(K, d) if K.blocks is None else ByBlocks(K, d)


class ByBlocks:
    """The bound for diagonal blocks: the root of the squares of theirs."""

    def __init__(self, K: LinearOperator, d: Array) -> None:
        self.K, count, self._size = K, K.blocks.count, K.blocks.size
        parts = (self._part(d, k) for k in range(count))
        self._each = [
            InverseNorm(K.blocks.block(k), part) for k, part in enumerate(parts)
        ]

    def _part(self, v: Array, k: int) -> Array:
        return v[k * self._size : (k + 1) * self._size]

    def __call__(self, v: Array, *, whole: bool = True) -> float:
        """Return the bound; with ``whole`` false that of the part at d > 0, no product."""
        found = [one(self._part(v, k), whole=whole) for k, one in enumerate(self._each)]
        return math.hypot(*found)

    @property
    def n_matvec(self) -> int:
        """Products so far, of all blocks."""
        return sum(one.n_matvec for one in self._each)

    @property
    def price(self) -> int:
        """Products that the whole bound still costs."""
        return sum(one.price for one in self._each)
