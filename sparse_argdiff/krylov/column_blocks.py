"""Right-hand sides as the columns of a block: when it pays, and how columns enter and leave.

A product with a block reads the matrix once for all of its columns.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import Array, namespace
from ..kernels import REFERENCE, KernelSet, Line
from ..operators.linear_operator import LinearOperator
from ..status import Status

# A block of columns is multiplied at once from so many entries a row on; below, reading
# the matrix once saves less than the block costs.
_ROW_WORTH_A_BLOCK = 15
_FEWEST_IN_PLACE, _FEWEST_COPIED = 3, 8  # columns that are cheaper together


def block_width(
    kernels: KernelSet, A: LinearOperator, M: LinearOperator | None, b: Array
) -> int:
    """Return how many columns are solved together, those that fill up included."""
    if b.ndim == 1 or not _gains_by_blocks(A):
        return 1
    in_place = A.into_blocks and (M is None or M.has_matmat)
    in_place = in_place and kernels is not REFERENCE
    fewest = _FEWEST_IN_PLACE if in_place else _FEWEST_COPIED
    fewest = 2 if A.structure.columns is not None else fewest
    return 1 if b.shape[1] < fewest else kernels.block_width(b.shape[1], A, b)


def _gains_by_blocks(A: LinearOperator) -> bool:
    """Whether a product with several columns costs less than those with each."""
    entries = getattr(A.matrix, "nnz", None)
    if entries is not None and entries < _ROW_WORTH_A_BLOCK * A.shape[0]:
        return False
    return A.has_matmat


def take(
    block: Array,
    columns: list[int],
    width: int,
    kernels: KernelSet,
    A: LinearOperator,
) -> Array:
    """Return these columns in a block of ``width``, zero beyond; width 0: a vector.

    It is stored as the passes of ``kernels``, and A, like it.
    """
    if width == 0:
        return namespace(block).asarray(block[:, columns[0]], copy=True)
    found = kernels.zeros((block.shape[0], width), block, A)
    for i, c in enumerate(columns):
        found[:, i] = block[:, c]
    return found


def by_columns(block: Array) -> bool:
    """Tell whether the columns of a NumPy block are contiguous, and its rows are not."""
    if not isinstance(block, np.ndarray):
        return False
    return block.flags.f_contiguous and not block.flags.c_contiguous


def joined(
    parts: Sequence[tuple[Array, Array]], count: int, b: Array
) -> tuple[Array, Array]:
    """Return solutions and residuals side by side, ``count`` columns without fillers."""
    xp = namespace(b)
    if not parts:
        return xp.zeros_like(b), xp.zeros_like(b)
    blocks = []
    for given in zip(*parts, strict=True):
        columns = [part[:, None] if part.ndim == 1 else part for part in given]
        whole = columns[0] if len(columns) == 1 else xp.concat(columns, axis=1)
        filled = whole.shape[1] != count
        blocks.append(xp.asarray(whole[:, :count], copy=True) if filled else whole)
    return blocks[0], blocks[1]


def operators_of(
    A: LinearOperator,
    M: LinearOperator | None,
    places: list[int],
    width: int,
    kernels: KernelSet,
) -> tuple[LinearOperator, LinearOperator | None]:
    """Return A and M for some columns; themselves where all columns have the same."""
    A_of = A.for_columns(places, width)
    M_of = None if M is None else M.for_columns(places, width)
    A_of = A if A_of is A else kernels.operator(A_of)
    if M is None or M_of is None or M_of is M:
        return A_of, M
    return A_of, kernels.operator(M_of)


class Recurrence(abc.ABC):
    """The loop of a method over the columns of a block, which those that have ended leave."""

    A: LinearOperator
    M: LinearOperator | None
    kernels: KernelSet
    x: Array
    r: Array
    active: Any  # which columns have not ended; one scalar of each
    scalars: Any
    products: int

    @abc.abstractmethod
    def advance(self, most: int) -> list[list[Line]]:
        """Take the steps until the host looks; the scalars of each, by columns."""

    @abc.abstractmethod
    def breakdown(self, c: int) -> tuple[Status | None, Array | None, int]:
        """Return why a column ended, a direction of no curvature, the products lost.

        None where its residual is as small as wanted.
        """

    @abc.abstractmethod
    def a_norm(self, c: int) -> float:
        """Return a lower estimate of ‖A‖."""

    @abc.abstractmethod
    def keep(self, columns: list[int], width: int) -> None:
        """Go on with these columns alone, in a narrower block; width 0: in a vector."""

    def _keep(
        self,
        columns: list[int],
        width: int,
        vectors: Sequence[str],
        scalars: Sequence[str],
    ) -> None:
        """Go on with these columns of what is named, in a narrower block."""
        before = self.kernels.scalars(self.x)
        for name in vectors:
            vector = getattr(self, name)
            setattr(self, name, take(vector, columns, width, self.kernels, self.A))
        self.A, self.M = operators_of(self.A, self.M, columns, width, self.kernels)
        self.scalars = self.kernels.scalars(self.x)
        for name in scalars:
            setattr(self, name, before.take(getattr(self, name), columns, width))
