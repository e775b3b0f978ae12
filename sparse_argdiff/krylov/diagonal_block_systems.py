"""A system whose matrix is diagonal blocks, solved as columns that advance together.

    [ A_1       ] [ x_1 ]   [ b_1 ]
    [     ⋱     ] [  ⋮  ] = [  ⋮  ]      →      A_k x_k = b_k,   k = 1, …, count
    [       A_K ] [ x_K ]   [ b_K ]

Each has the tolerance of its own right-hand side; atol is shared, atol / √K each.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ..arrays import Array, namespace, zeros
from ..operators.diagonal_blocks import columns_of
from ..operators.linear_operator import LinearOperator
from .result import KrylovResult


def blocks_of(A: LinearOperator, M: LinearOperator | None) -> Any:
    """Return the diagonal blocks of A, where M has them too; else None."""
    blocks = A.blocks
    if blocks is None or M is None or M.shape[0] == blocks.size:
        return blocks
    own = M.blocks
    same = own is not None and (own.count, own.size) == (blocks.count, blocks.size)
    return blocks if same or M.is_diagonal else None


def as_columns(blocks: Any, b: Any, x0: Any, M: Any) -> tuple[Any, ...]:
    """Return a system of diagonal blocks as one of columns."""
    j = 1 if b.ndim == 1 else b.shape[1]
    places = [k for k in range(blocks.count) for _ in range(j)]
    b, x0 = (None if v is None else blocks.unstacked(v) for v in (b, x0))
    if M is not None and M.shape[0] != blocks.size:
        columns = M.blocks.columns if M.blocks else columns_of(M, blocks.size)
        M = columns(places, len(places))
    return blocks.columns(places, len(places)), b, x0, M


def as_blocks(
    blocks: Any, found: KrylovResult, columns: list[Any], like: Array
) -> KrylovResult:
    """Return the result of the stacked system; counts are those of all columns."""
    xp, j = namespace(like), 1 if like.ndim == 1 else like.shape[1]

    def over(values: Any, combine: Any) -> Any:
        """Combine what the blocks of a column have."""
        if values is None:
            return None
        combined = combine(values.reshape((blocks.count, j)), axis=0)
        return combined if like.ndim == 2 else combined[0]

    def length(values: Any, axis: int) -> Any:
        return xp.sqrt(xp.sum(values * values, axis=axis))

    one = like.ndim == 1
    sizes = {
        name: over(getattr(found, name), length)
        for name in (
            "residual_norm",
            "energy_error",
            "energy_error_bound",
            "energy_error_earlier",
        )
    }
    if one:
        sizes = {k: None if v is None else float(v) for k, v in sizes.items()}
    met, niter = over(found.converged, xp.all), over(found.niter, xp.max)
    direction = None
    for column in columns:
        if direction is None and column.direction is not None:
            direction = zeros(blocks.count * blocks.size, column.direction)
            first = column.index // j * blocks.size
            direction[first : first + blocks.size] = column.direction
    return dataclasses.replace(
        found,
        x=blocks.stacked(found.x, like),
        residual=blocks.stacked(found.residual, like),
        converged=bool(met) if one else met,
        niter=int(niter) if one else niter,
        direction=direction,
        **sizes,
    )
