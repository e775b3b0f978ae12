"""Vectors that outlive a solve, so that the next one of the same size allocates none.

A pool: a solve borrows what it needs and gives it back when it ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..arrays import Array, empty, namespace


class Workspace:
    """A pool of scratch arrays, by shape, dtype and device.

    Pass one to several solves, ``cg(A, b, workspace=workspace)``.  What is borrowed is
    out of the pool: a solve inside a product of another one, or in another thread, gets
    arrays of its own.  Nothing that a solver returns lies in a workspace.

    Examples
    --------
    >>> import numpy as np
    >>> from sparse_argdiff.krylov import Workspace, cg
    >>> workspace = Workspace()
    >>> A, b = np.diag([1.0, 2.0]), np.ones(2)
    >>> cg(A, b, workspace=workspace).x
    array([1. , 0.5])
    >>> workspace.nbytes  # p and A p, of two entries each
    32
    """

    def __init__(self) -> None:
        self._free: dict[tuple[object, ...], list[Array]] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays that lie in the pool."""
        return sum(
            array.size * namespace(array).finfo(array.dtype).bits // 8
            for free in self._free.values()
            for array in free
        )

    @contextmanager
    def lend(
        self, like: Array, count: int, shape: tuple[int, ...] | None = None
    ) -> Iterator[list[Array]]:
        """Lend ``count`` arrays with undefined entries, of the shape of ``like``."""
        xp = namespace(like)
        shape = tuple(like.shape) if shape is None else shape
        place = getattr(like, "device", None)
        free = self._free.setdefault((xp.__name__, shape, like.dtype, str(place)), [])
        lent: list[Array] = []
        while len(lent) < count:
            try:
                lent.append(free.pop())
            except IndexError:
                lent.append(empty(shape, like))
        try:
            yield lent
        finally:
            free.extend(lent)

    def clear(self) -> None:
        """Forget what is not borrowed at the moment."""
        self._free.clear()
