"""The optimality conditions of stacked quadratic programs whose active set is held.

    [ P  C' ] [ dy ]       [ P y + q + C'μ ]
    [ C  0  ] [ dμ ]  =  − [ C y − c       ]      on the variables that no bound holds

C has the equality rows and the inequality rows that act.  The steps are proximal ones, with
δ on the diagonal, which dependent rows and flat directions need and which changes only how fast
the residual falls.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np

from ..arrays import Array, namespace
from ..krylov.stacked import STACKED, StackedFactor, apply, apply_transposed
from .stacked_quadratic import StackedQuadratic

_DELTA = 1e-11  # of the proximal steps, in equilibrated units
FIXED = 2  # of a variable between two equal bounds


@dataclasses.dataclass(frozen=True, eq=False)
class HeldSet:
    """Which sides act: rows (k, r) and bounds (k, n), 1 above, −1 below, 0 for none.

    ``FIXED`` is a variable or row with equal sides, whose multiplier has either sign.
    """

    rows: Array
    bounds: Array

    def take(self, index: Any) -> HeldSet:
        """Return the members of an index."""
        return HeldSet(self.rows[index, ...], self.bounds[index, ...])


class HeldSystem:
    """The Newton matrix of a stack with its active set held, factorised.

    Parameters
    ----------
    data : StackedQuadratic
        In equilibrated units.
    held : HeldSet

    Attributes
    ----------
    free : bool array (k, n)
        Variables that no bound holds.
    rows : int array (k, j)
        Inequality rows that act, then others, up to the largest number of any member.
    acting : bool array (k, j)
        Which of them act.
    """

    def __init__(self, data: StackedQuadratic, held: HeldSet) -> None:
        xp = namespace(held.bounds)
        self.data, self.held = data, held
        self.free = held.bounds == 0
        acting = held.rows != 0
        counts = xp.sum(xp.astype(acting, xp.int64), axis=1)
        j, r = 0, acting.shape[1]
        if data.n + data.A.shape[1] + r <= STACKED:
            j = r  # whatever the neighbours have
        elif counts.shape[0]:
            j = int(xp.max(counts))
        places = xp.arange(r)[None, :]
        order = xp.argsort(xp.where(acting, places, r + places), axis=1)
        self.rows = order[:, :j]
        self.acting = xp.take_along_axis(acting, self.rows, axis=1)
        self._counts = counts

    @cached_property
    def whole_rows(self) -> Array:
        """Rows that hold with equality, (k or 1, p + j, n); zero where none acts."""
        xp, data, j = namespace(self.rows), self.data, self.rows.shape[1]
        if j == 0:
            return data.A
        k, n, p = self.rows.shape[0], data.n, data.A.shape[1]
        C = xp.empty((k, p + j, n), dtype=data.q.dtype)
        C[:, :p, :] = data.A
        G = xp.broadcast_to(data.G, (k, *data.G.shape[1:]))
        C[:, p:, :] = G[xp.arange(k)[:, None], self.rows, :]
        C[:, p:, :] *= self.acting[:, :, None]
        return C

    @cached_property
    def C(self) -> Array:
        """The same on the free variables, zero on others."""
        if bool(namespace(self.free).all(self.free)):
            return self.whole_rows
        return self.whole_rows * self.free[:, None, :]

    @cached_property
    def P(self) -> Array:
        """P on the free variables, zero on others, (k or 1, n, n)."""
        if bool(namespace(self.free).all(self.free)):
            return self.data.P
        return self.data.P * self.free[:, None, :] * self.free[:, :, None]

    @cached_property
    def _factor(self) -> StackedFactor:
        xp = namespace(self.free)
        (k, n), p, j = self.free.shape, self.data.A.shape[1], self.rows.shape[1]
        shared = self.P.shape[0] == 1 and bool(xp.all(self.free))
        H = xp.zeros((1 if shared else k, n, n), dtype=self.data.q.dtype)
        H += self.P
        diagonal = xp.arange(n)
        H[:, diagonal, diagonal] += (
            _DELTA if shared else xp.where(self.free, _DELTA, 1.0)
        )
        delta = xp.full((k, p + j), _DELTA, dtype=H.dtype)
        if j:
            delta[:, p:] = xp.where(self.acting, _DELTA, 1.0)
        C = xp.broadcast_to(self.C, (k, p + j, n))
        whole = n + p + self.held.rows.shape[1] <= STACKED or xp is not np
        return StackedFactor(H, C, delta, None if whole else p + self._counts)

    def step(self, dual: Array, primal: Array) -> tuple[Array, Array]:
        """Return dy and dμ against residuals (k, n) and (k, p + j); dy is zero where held."""
        xp, n = namespace(dual), self.data.n
        z = self._factor.solve(-xp.concat([dual * self.free, primal], axis=1))
        return z[:, :n], z[:, n:]

    def product(self, y: Array, mu: Array) -> tuple[Array, Array]:
        """Return P y + C'μ and C y, on the free variables."""
        return apply(self.P, y) + apply_transposed(self.C, mu), apply(self.C, y)

    def scattered(self, mu: Array) -> tuple[Array, Array]:
        """Return ν (k, p) and the multipliers of all inequality rows (k, r)."""
        xp, p = namespace(mu), self.data.A.shape[1]
        rows = xp.zeros(self.held.rows.shape, dtype=mu.dtype)
        if self.rows.shape[1]:
            part = xp.where(self.acting, mu[:, p:], 0.0 * mu[:, p:])
            rows[xp.arange(mu.shape[0])[:, None], self.rows] = part
        return mu[:, :p], rows

    def gathered(self, nu: Array, rows: Array) -> Array:
        """Return μ from ν (k, p) and multipliers of all inequality rows (k, r)."""
        xp = namespace(nu)
        part = xp.take_along_axis(rows, self.rows, axis=1)
        return xp.concat([nu, xp.where(self.acting, part, xp.zeros_like(part))], axis=1)
