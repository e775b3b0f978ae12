"""An operator with K diagonal blocks of one size, and its products column by column.

    A = diag(A_1, ..., A_K),        A Y = [A_1 y_1, ..., A_K y_K] for the columns of Y (n, K)

A solver takes the stacked vector (K n,) for the columns of a block: each has an α of its
own, and one that has ended leaves.  ``columns(places, width)`` gives the operator of some
of the columns; ``operator.for_columns`` selects among those again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from ..arrays import Array, namespace
from .linear_operator import LinearOperator
from .structure import Structure

Columns = Callable[[Sequence[int], int], LinearOperator]


@dataclasses.dataclass(frozen=True, eq=False)
class DiagonalBlocks:
    """The blocks of an operator (K n, K n).

    Attributes
    ----------
    count, size : int
        K and n.
    columns : callable
        ``columns(places, width)`` returns an operator (n, n) for blocks (n, width), of
        which column c is multiplied by A_k, k = places[c]; those beyond only fill up.
        Width 0: the single block of ``places``, for vectors.
    """

    count: int
    size: int
    columns: Columns

    def block(self, k: int) -> LinearOperator:
        """Return A_k."""
        return self.columns((k,), 0)

    def unstacked(self, v: Array) -> Array:
        """Return v (K n,) or (K n, j) as the columns (n, K) or (n, K j) of a block."""
        xp, j = namespace(v), 1 if v.ndim == 1 else v.shape[1]
        rows = v.reshape((self.count, self.size, j))
        return xp.moveaxis(rows, 0, 1).reshape((self.size, self.count * j))

    def stacked(self, V: Array, like: Array) -> Array:
        """Return the columns of a block as a vector or block of the shape of ``like``."""
        xp, j = namespace(V), 1 if like.ndim == 1 else like.shape[1]
        rows = xp.moveaxis(V.reshape((self.size, self.count, j)), 1, 0)
        return xp.ascontiguousarray(rows).reshape(like.shape)


def side_by_side(operators: Sequence[LinearOperator | None], n: int) -> Columns:
    """Return the columns of operators (n, n), each by itself; None for the identity."""

    def columns(places: Sequence[int], width: int) -> LinearOperator:
        chosen = [operators[k] for k in places]
        first = chosen[0]
        if width == 0:
            return _identity(n) if first is None else first
        if first is not None and all(operator is first for operator in chosen):
            return first
        diagonal = _diagonals(chosen, width)

        def product(V: Array) -> Array:
            namespace(V)
            if diagonal is not None:
                return diagonal * V
            out = namespace(V).zeros_like(V)
            for c, operator in enumerate(chosen):
                column = namespace(V).asarray(V[:, c], copy=True)
                out[:, c] = column if operator is None else operator @ column
            return out

        return LinearOperator(
            (n, n),
            None,
            matmat=product,
            symmetric=all(
                operator is None or operator.symmetric for operator in chosen
            ),
            structure=Structure(columns=reselected(columns, places), own=diagonal),
        )

    return columns


def columns_of(M: LinearOperator, n: int) -> Columns:
    """Return the columns (n, K) of a diagonal operator (K n, K n)."""
    rows: Any = M.diagonal().reshape(-1, n)
    return side_by_side([diagonal(row) for row in rows], n)


def diagonal(entries: Array) -> LinearOperator:
    """Return diag(entries), known to be diagonal."""

    def product(v: Array) -> Array:
        return (entries if v.ndim == 1 else entries[:, None]) * v

    n = entries.shape[0]
    return LinearOperator(
        (n, n),
        product,
        matmat=product,
        dtype=entries.dtype,
        symmetric=True,
        diagonal=entries,
        structure=Structure(is_diagonal=True),
    )


def reselected(columns: Columns, places: Sequence[int]) -> Columns:
    """Return the columns of a selection, by their places in it."""
    return lambda chosen, width: columns([places[c] for c in chosen], width)


def _identity(n: int) -> LinearOperator:
    def product(v: Array) -> Array:
        return namespace(v).asarray(v, copy=True)

    return LinearOperator((n, n), product, matmat=product, positive_definite=True)


def _diagonals(chosen: Sequence[LinearOperator | None], width: int) -> Array | None:
    """Return the diagonals of diagonal operators side by side, zeros that fill up."""
    known = next((M for M in chosen if M is not None), None)
    if known is None or not all(M is None or M.is_diagonal for M in chosen):
        return None
    like = known.diagonal()
    xp = namespace(like)
    rows = xp.zeros((width, like.shape[0]), dtype=like.dtype)
    for c, M in enumerate(chosen):
        rows[c] = 1.0 if M is None else M.diagonal()
    return rows.T


def block_diagonal(
    columns: Columns, count: int, size: int, **known: Any
) -> LinearOperator:
    """Return the operator (K n, K n) of its columns."""
    structure = known.pop("structure", Structure())
    blocks = DiagonalBlocks(count, size, columns)

    def product(v: Array) -> Array:
        V = blocks.unstacked(v)
        j = V.shape[1] // count
        places = [k for k in range(count) for _ in range(j)]
        return blocks.stacked(columns(places, V.shape[1]) @ V, v)

    return LinearOperator(
        (count * size, count * size),
        product,
        matmat=product,
        symmetric=True,
        structure=structure._replace(blocks=blocks),
        **known,
    )
