"""Units in which the entries of a quadratic program are of size one.

    P̂ = γ D P D,   q̂ = γ D q,   Â = E A D,   Ĝ = F G D,   ŷ = D⁻¹ y

by three rounds of Ruiz' scaling: each variable and each row is divided by the root of its largest entry.

References
----------
D. Ruiz, A scaling algorithm to equilibrate both rows and columns norms in matrices,
RAL-TR-2001-034, 2001.
"""

from __future__ import annotations

import dataclasses

from ..arrays import Array, namespace
from .stacked_quadratic import StackedQuadratic

_ROUNDS = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Equilibrated:
    """A stack of programs in equilibrated units, and those units.

    Attributes
    ----------
    data : StackedQuadratic
        Scaled.
    D : array (·, n)
        y = D ŷ.
    E, F : arrays (·, p), (·, r)
        Factors of the rows.
    gamma : array (·, 1)
        Factor of the objective.
    """

    data: StackedQuadratic
    D: Array
    E: Array
    F: Array
    gamma: Array

    def take(self, index: Array) -> Equilibrated:
        """Return the programs of an index."""

        def part(v: Array) -> Array:
            return v if v.shape[0] == 1 else v[index, ...]

        D, E, F, gamma = (part(v) for v in (self.D, self.E, self.F, self.gamma))
        return Equilibrated(self.data.take(index), D, E, F, gamma)


def _largest(M: Array, axis: int) -> Array:
    """Return the largest |entries| along an axis of a stack, zero of none."""
    xp = namespace(M)
    if M.shape[axis] == 0:
        shape = (M.shape[0], M.shape[3 - axis])
        return xp.zeros(shape, dtype=M.dtype)
    return xp.max(xp.abs(M), axis=axis)


def _inverse_root(v: Array) -> Array:
    xp = namespace(v)
    return 1.0 / xp.sqrt(xp.where(v > 0.0, v, xp.ones_like(v)))


def equilibrate(data: StackedQuadratic) -> Equilibrated:
    """Return the programs in equilibrated units."""
    xp = namespace(data.q)
    P, A, G = data.P, data.A, data.G
    D = xp.ones_like(P[:, 0, :]) if data.n else xp.zeros((1, 0), dtype=P.dtype)
    E = F = None
    for _ in range(_ROUNDS):
        # The unit of the objective is free: the largest curvature counts as one.
        curved = _largest(P, 1)
        top = xp.max(curved, axis=1, keepdims=True) if data.n else curved
        curved = curved / xp.where(top > 0.0, top, xp.ones_like(top))
        size = xp.maximum(curved, xp.maximum(_largest(A, 1), _largest(G, 1)))
        d = _inverse_root(size)
        e, f = _inverse_root(_largest(A, 2)), _inverse_root(_largest(G, 2))
        P = d[:, :, None] * P * d[:, None, :]
        A, G = e[:, :, None] * A * d[:, None, :], f[:, :, None] * G * d[:, None, :]
        D, E, F = D * d, e if E is None else E * e, f if F is None else F * f
    assert E is not None
    assert F is not None
    q = data.q * D
    size = xp.max(xp.abs(P), axis=(1, 2))[:, None] if data.n else 0.0 * q[:, :1]
    if bool(xp.any(size == 0.0)) and data.n:  # a linear program
        size = xp.where(size > 0.0, size, xp.max(xp.abs(q), axis=1, keepdims=True))
    gamma = 1.0 / xp.where(size > 0.0, size, xp.ones_like(size))
    scaled = StackedQuadratic(
        P=P * gamma[:, :, None],
        q=q * gamma,
        A=A,
        b=data.b * E,
        G=G,
        h=data.h * F,
        h_lower=data.h_lower * F,
        lower=data.lower / D,
        upper=data.upper / D,
    )
    return Equilibrated(scaled, D, E, F, gamma)
