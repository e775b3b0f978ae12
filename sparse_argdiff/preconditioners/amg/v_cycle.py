"""The V-cycle of multigrid over four passes, in the array namespace or compiled.

    begin     x = c D⁻¹ r
    relax     x₊ = a x + b x₋ + c D⁻¹ (r − A x)       x₊ over x₋
    restrict  r_c = P' (r − A x)
    prolong   x += P e

Beside the matrices each level moves 20 n numbers when fused, and r_c and e of the next;
the four passes over A and the two over P are more.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...arrays import Array, namespace
from ...kernels.compiled import csr_rows
from ...kernels.workspace import Workspace

try:  # not public: without it products allocate
    from scipy.sparse import _sparsetools
except ImportError:
    _sparsetools = None


class Level(NamedTuple):
    """One level; all parts of one dtype, in one place."""

    A: Any
    P: Any  # from the next coarser level
    R: Any  # P', on the host the same memory
    inverse_diagonal: Array
    bound: float  # of the spectrum of D⁻¹A


def v_cycle(
    r: Array,
    x: Array,
    levels: Sequence[tuple[Level, Reference | Compiled]],
    coarsest: Callable[[Array], Array],
    pool: Workspace,
) -> None:
    """Write M r into x, both vectors or both blocks; r is not changed.

    The smoother is two Chebyshev steps for D⁻¹A on [λ/4, λ], λ the level's bound, by
    their three-term recurrence; the same before and after, or M were not symmetric.
    """
    if not levels:
        x[...] = coarsest(r)
        return
    (level, passes), coarser = levels[0], levels[1:]
    # The centre of the interval is 5/8 λ, half its width 3/8 λ, their ratio 3/5.
    first, ratio = 1.6 / level.bound, 1.0 / (2.0 / 0.6 - 0.6)
    momentum, again = 0.6 * ratio, 2.0 * ratio / (0.375 * level.bound)
    with (
        pool.lend(x, 1) as (other,),
        pool.lend(x, 2, (level.R.shape[0], *x.shape[1:])) as (coarse, correction),
    ):
        passes.begin(r, first, other)
        passes.relax(r, other, (1.0 + momentum, 0.0, again), x, pool)
        passes.restrict(r, x, coarse, pool)
        v_cycle(coarse, correction, coarser, coarsest, pool)
        passes.prolong(correction, x, pool)
        passes.relax(r, x, (1.0, 0.0, first), other, pool)
        passes.relax(r, other, (1.0 + momentum, -momentum, again), x, pool)


class Reference:
    """The passes in the array namespace: vectors and blocks, on the host or a device.

    No two vectors of a pass overlap.
    """

    def __init__(self, level: Level) -> None:
        self.level = level

    def begin(self, r: Array, c: float, out: Array) -> None:
        """Write c D⁻¹ r into ``out``."""
        namespace(r).multiply(self._inverse(r), r, out=out)
        out *= c

    def relax(
        self,
        r: Array,
        x: Array,
        by: tuple[float, float, float],
        out: Array,
        pool: Workspace,
    ) -> None:
        """Write a x + b ``out`` + c D⁻¹ (r − A x) into ``out``, (a, b, c) = ``by``."""
        a, b, c = by
        xp = namespace(r)
        with pool.lend(x, 1) as (residual,):
            self._residual(r, x, residual)
            xp.multiply(residual, self._inverse(r), out=residual)
            xp.multiply(residual, c, out=residual)
            if b == 0.0:
                out[...] = x
            else:
                out *= b / a
                out += x
            out *= a
            out += residual

    def restrict(self, r: Array, x: Array, coarse: Array, pool: Workspace) -> None:
        """Write P' (r − A x) into ``coarse``."""
        with pool.lend(x, 1) as (residual,):
            self._residual(r, x, residual)
            _multiply(self.level.R, residual, coarse)

    def prolong(self, e: Array, x: Array, pool: Workspace) -> None:
        """Add P e to x."""
        with pool.lend(x, 1) as (step,):
            _multiply(self.level.P, e, step)
            x += step

    def _residual(self, r: Array, x: Array, out: Array) -> None:
        _multiply(self.level.A, x, out)
        namespace(r).subtract(r, out, out=out)

    def _inverse(self, r: Array) -> Array:
        inverse = self.level.inverse_diagonal
        return inverse if r.ndim == 1 else inverse[:, None]


class Compiled:
    """The passes as loops: vectors of the level's dtype on the host."""

    def __init__(self, level: Level) -> None:
        self._loops = importlib.import_module(".loops", __package__)
        self._A, self._P = csr_rows(level.A), csr_rows(level.P)
        self._inverse, self._scalar = level.inverse_diagonal, level.A.dtype.type

    def begin(self, r: Array, c: float, out: Array) -> None:
        """Scale r by the diagonal."""
        self._loops.begin(self._inverse, r, self._scalar(c), out)

    def relax(
        self,
        r: Array,
        x: Array,
        by: tuple[float, float, float],
        out: Array,
        pool: Workspace,
    ) -> None:
        """Take one step."""
        del pool
        a, b, c = (self._scalar(factor) for factor in by)
        self._loops.relax(*self._A, self._inverse, r, x, a, b, c, out)

    def restrict(self, r: Array, x: Array, coarse: Array, pool: Workspace) -> None:
        """Restrict the residual."""
        del pool
        self._loops.restrict(*self._A, *self._P, r, x, coarse)

    def prolong(self, e: Array, x: Array, pool: Workspace) -> None:
        """Correct x."""
        del pool
        self._loops.prolong(*self._P, e, x)


def _multiply(A: Any, x: Array, out: Array) -> None:
    """Write A x into ``out`` by SciPy's loops, without allocating the product.

    The pages of a vector above 32 MB are mapped anew at each allocation, which costs as
    much as the product.
    """
    ours = isinstance(x, np.ndarray) and A.dtype == x.dtype
    if _sparsetools is None or not ours:
        out[...] = A @ x
        return
    out[...] = 0
    entries = A.indptr, A.indices, A.data
    if x.ndim == 1:
        loop = getattr(_sparsetools, f"{A.format}_matvec")
        loop(*A.shape, *entries, x, out)
    else:
        loop = getattr(_sparsetools, f"{A.format}_matvecs")
        loop(*A.shape, x.shape[1], *entries, x.reshape(-1), out.reshape(-1))
