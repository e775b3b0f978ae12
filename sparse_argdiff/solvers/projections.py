"""Projections on the rows C of a linearised constraint, whatever C is.

    project r = argmin ‖z − r‖, C z = 0        particular c = argmin ‖z‖, C z = c
    multipliers r = argmin ‖Cᵀ ν − r‖

A matrix is factorised (``krylov.null_space``); for an operator each of the three is one
MINRES solve with [I Cᵀ; C 0].
"""

from __future__ import annotations

from typing import Any

from ..arrays import Array, epsilon, namespace, zeros
from ..krylov import minres
from ..krylov.null_space import null_space
from ..operators.block_matrices import is_explicit
from ..operators.linear_operator import LinearOperator, Structure, aslinearoperator


class OperatorRows:
    """The projections of an operator C (p, n) that has products only."""

    def __init__(self, C: Any) -> None:
        self.C = aslinearoperator(C)
        self.shape = self.C.shape
        n = self.shape[1]
        self._K = saddle(LinearOperator((n, n), lambda v: v, symmetric=True), self.C)

    def _solve(self, top: Array, bottom: Array) -> Array:
        rhs = namespace(top).concat([top, bottom])
        return minres(self._K, rhs, rtol=10.0 * epsilon(rhs)).x

    def project(self, r: Array) -> Array:
        """Return the part of r in the null space of C."""
        n = self.shape[1]
        return self._solve(r, _zeros(self.shape[0], r))[:n]

    def particular(self, c: Array) -> Array:
        """Return the shortest z with C z = c, in the least-squares sense."""
        n = self.shape[1]
        return self._solve(_zeros(n, c), c)[:n]

    def multipliers(self, r: Array) -> Array:
        """Return the ν that fit Cᵀ ν = r."""
        n = self.shape[1]
        return self._solve(r, _zeros(self.shape[0], r))[n:]


def saddle(H: LinearOperator, C: Any) -> LinearOperator:
    """Return [H Cᵀ; C 0], known by products."""
    rows, n = aslinearoperator(C), H.shape[0]

    def product(z: Array) -> Array:
        return namespace(z).concat(
            [H @ z[:n, ...] + rows.T @ z[n:, ...], rows @ z[:n, ...]]
        )

    size = n + rows.shape[0]
    accuracy = Structure(accuracy=H.accuracy)
    return LinearOperator((size, size), product, symmetric=True, structure=accuracy)


def _zeros(size: int, like: Array) -> Array:
    return zeros((size,), like)


def projections(C: Any) -> Any:
    """Return the projections on the rows C: a factorisation, or MINRES solves."""
    return null_space(C) if is_explicit(C) else OperatorRows(C)
