"""Hessian products of a linear model by compiled loops over sparse rows (numba).

    H v = F' W F v + λ ∘ v,        v'H v = z'W z + λ'v²,   z = F v

F is read once where the product stays in cache, and v'H v comes with it.  Where H has no
more entries than F, and products have taken as long as its entries would, the entries are
formed: each further product is one with a small dense matrix.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import itertools
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from ...arrays import LINE, Array, as_count, is_sparse
from ...kernels import Workspace
from ...kernels.blocks import block_loops, width_for
from ...kernels.compiled import read_only
from ...operators.structure import Forming
from ..design import Design
from ..loss import Curvature
from .device import DeviceProducts
from .two_pass import Products, TwoPasses

KERNELS = (None, "reference", "compiled", "deterministic")
WORTHWHILE = 100_000  # nonzeros from which compiled loops are the default
CACHE = 2**20  # bytes of a product up to which it stays near the core: one pass
WIDTHS = (32, 64, 128)  # bytes of a row of a tile: up to two cache lines
WIDEST = WIDTHS[-1]
Host = Any  # a NumPy array


def products_of(
    design: Design, kernels: str | None, threads: int
) -> OnePass | TwoPasses | DeviceProducts:
    """Return the compiled products of a design, or the reference, by the arguments."""
    if kernels not in KERNELS:
        known = ", ".join(repr(name) for name in KERNELS)
        raise ValueError(f"kernels must be one of {known}, found {kernels!r}")
    threads = as_count("threads", threads)
    if threads < 1:
        raise ValueError(f"threads must be at least 1, found {threads}")
    features = design.features
    if is_sparse(features) and not sparse.issparse(features):
        if kernels == "reference" or design.outputs > 1:
            return TwoPasses(design)
        return DeviceProducts(design, deterministic=kernels == "deterministic")
    if kernels in {"compiled", "deterministic"}:
        if not sparse.issparse(features):
            raise ValueError(
                "kernels='compiled' needs a SciPy sparse matrix as features, found "
                f"{type(features).__name__}"
            )
        if importlib.util.find_spec("numba") is None:
            raise ImportError(
                "kernels='compiled' needs numba: pip install 'sparse_argdiff[fast]'"
            )
        return OnePass(design, threads)
    csr = sparse.issparse(features) and features.format == "csr"
    pays = kernels is None and csr and features.nnz >= WORTHWHILE
    if pays and importlib.util.find_spec("numba") is not None:
        return OnePass(design, threads)
    return TwoPasses(design)


class OnePass:
    """Compiled loops over the rows of a CSR matrix; CSC is converted, once.

    Threads split the rows by nonzeros; each adds to its own copy of the product, and the
    copies are summed in order: results repeat bit by bit for one number of threads, and
    agree to rounding among others.  A thread is started for each product (some 50 µs): no
    pool outlives a call, and nothing breaks when a process forks.  Indices outside the
    matrix raise a ValueError: the loops do not test them.
    """

    def __init__(self, design: Design, threads: int) -> None:
        features = sparse.csr_array(design.features)
        features.check_format(full_check=True)
        data = np.ascontiguousarray(features.data)
        self.values = None if bool(np.all(data == 1.0)) else read_only(data)
        self.indices = _unsigned(features.indices)
        self.indptr = _unsigned(features.indptr)
        self.design = design
        self.reference = TwoPasses(design)
        nonzeros = np.linspace(0, features.indptr[-1], threads + 1)
        cuts = np.searchsorted(features.indptr, nonzeros[1:-1]).tolist()
        bounds = [0, *cuts, design.n_samples]
        self.chunks = list(itertools.pairwise(bounds))
        self.cache, self.pool = CACHE, Workspace()
        self.price = math.inf  # of the entries of H, in products
        self.nonzeros = int(features.nnz)
        if design.outputs == 1 and design.n**2 <= features.nnz:
            lengths = np.diff(features.indptr).astype(np.float64)
            # Additions to entries, over the two a nonzero that a product takes.
            self.price = float(lengths @ (lengths + 1.0)) / (4.0 * features.nnz)

    def products(self, curvature: Curvature, weights: Array, shift: float) -> Products:
        """Return the products of one Hessian."""
        two = self.reference.products(curvature, weights, shift)
        outputs, soft_max = self.design.outputs, curvature.soft_max
        wide = outputs * self.design.dtype.itemsize > WIDEST
        if outputs > 1 and (soft_max is None or wide):
            return two
        own = _Hessian(self, curvature, weights, shift, two)
        if outputs > 1:
            return Products(own.matvec, None, own.into)
        forming = None
        if self.price < math.inf:
            forming = Forming(self.price, self.nonzeros, own.formed)
        return Products(own.matvec, own.matmat, own.into, True, forming)

    def add_columns(
        self, curvature: Host, tile: Host, width: tuple[int, ...], out: Host
    ) -> Host:
        """Add F' (w_c ∘ (F v_c)) of each column to ``out``; return v'F'WFv.

        In two passes over the rows: one reads from the tile alone, one writes to ``out``
        alone, which are beyond the cache more often than F is slow to read again.
        """
        loops, intercept = compiled_loops(), self.design.intercept
        shape = (self.design.n_samples * len(width),)
        with self.pool.lend(tile, 1, shape) as (z,):

            def add(first: int, last: int, target: Host) -> Any:
                rows = self.values, self.indices, self.indptr, first, last
                squares = loops.gather_tile(*rows, curvature, tile, width, intercept, z)
                loops.scatter_tile(*rows, z, width, intercept, target)
                return squares

            return self.by_chunks(add, out, self.pool)

    def forward(self, ys: Sequence[Host]) -> list[Host]:
        """Return F y of several y, each contiguous."""
        return self._by_tiles(self._gathered, ys)

    def backward(self, slopes: Sequence[Host]) -> list[Host]:
        """Return F' s of several s, each contiguous."""
        return self._by_tiles(self._scattered, slopes)

    def _by_tiles(self, product: Any, columns: Sequence[Host]) -> list[Host]:
        """Return the columns of the products with tiles of these, a cache line a row."""
        most, found = LINE // columns[0].itemsize, []
        for first in range(0, len(columns), most):
            part = columns[first : first + most]
            lanes = width_for(len(part), part[0], in_place=True)
            tile = np.zeros((part[0].shape[0], lanes), part[0].dtype)
            for c, column in enumerate(part):
                tile[:, c] = column
            result = product(tile.reshape(-1), (0,) * lanes).reshape(-1, lanes)
            found += [np.ascontiguousarray(result[:, c]) for c in range(len(part))]
        return found

    def _gathered(self, tile: Host, width: tuple[int, ...]) -> Host:
        z = np.empty(self.design.n_samples * len(width), tile.dtype)

        def add(first: int, last: int, _: Host) -> float:
            rows = self.values, self.indices, self.indptr, first, last
            fixed = None, tile, width, self.design.intercept
            compiled_loops().gather_tile(*rows, *fixed, z)
            return 0.0

        self.by_chunks(add, tile[:0], self.pool)
        return z

    def _scattered(self, tile: Host, width: tuple[int, ...]) -> Host:
        out = np.zeros(self.design.n * len(width), tile.dtype)

        def add(first: int, last: int, target: Host) -> float:
            rows = self.values, self.indices, self.indptr, first, last
            fixed = tile, width, self.design.intercept
            compiled_loops().scatter_tile(*rows, *fixed, target)
            return 0.0

        self.by_chunks(add, out, self.pool)
        return out

    def by_chunks(
        self, add: Callable[[int, int, Array], Any], out: Array, pool: Workspace
    ) -> Any:
        """Run ``add(first, last, target)`` on all chunks of rows; sum what they return."""
        if len(self.chunks) == 1:
            return add(*self.chunks[0], out)
        squares: dict[int, Any] = {}

        def work(t: int, target: Array) -> None:
            target[...] = 0
            squares[t] = add(*self.chunks[t], target)

        with pool.lend(out, len(self.chunks) - 1) as copies:
            pairs = enumerate(copies, 1)
            workers = [threading.Thread(target=work, args=pair) for pair in pairs]
            for worker in workers:
                worker.start()
            squares[0] = add(*self.chunks[0], out)
            for worker, copy in zip(workers, copies, strict=True):
                worker.join()
                out += copy
        if len(squares) < len(self.chunks):
            raise RuntimeError("a thread of the product failed: its rows are missing")
        return sum(squares[t] for t in range(len(self.chunks)))


class _Hessian:
    """F' W F + diag(λ) + shift 1 1' on the intercepts, at one point.

    Operands that are not plain arrays of the model's dtype take the two passes.
    """

    def __init__(
        self,
        rows: OnePass,
        curvature: Curvature,
        weights: Host,
        shift: float,
        two: Products,
    ) -> None:
        self.rows, self.two, self.shift = rows, two, shift
        design = rows.design
        self.outputs, self.count = design.outputs, design.n_coefficients
        self.n, self.dtype, self.intercept = design.n, design.dtype, design.intercept
        self.matrix = rows.values, rows.indices, rows.indptr
        self.weights = self._plain(weights)
        soft_max = curvature.soft_max
        p, d = (None, curvature.diagonal) if soft_max is None else soft_max
        self.p, self.d = None if p is None else self._plain(p), self._plain(d)
        self.pool = Workspace()
        self.products_left = rows.price  # until the entries are formed
        self.entries: Host | None = None

    def _plain(self, array: Host) -> Host:
        return read_only(np.asarray(array, dtype=self.dtype))

    def _ours(self, v: Any) -> bool:
        return isinstance(v, np.ndarray) and v.dtype == self.dtype

    # the products -----------------------------------------------------------------

    def matvec(self, v: Host) -> Host:
        """Return H v."""
        if not self._ours(v):
            return self.two.matvec(v)
        out = np.empty(v.shape, self.dtype)
        self.into(v, out)
        return out

    def into(self, v: Host, out: Host) -> Any:
        """Write H v, or H V, into ``out``; return v'H v, None where it is not known."""
        if v.ndim == 2:
            return self._into_block(v, out)
        if not self._ours(v) or not self._ours(out):
            out[...] = self.two.matvec(v)
            return None
        v = read_only(v)
        target = out if out.flags.c_contiguous else np.empty(out.shape, self.dtype)
        if np.may_share_memory(v, target):
            v = read_only(v.copy())
        if self.outputs == 1:
            square = self._vector(v, target)
        else:
            square = self._tiles(v, (self.outputs, 1), target)
        if self.shift:
            total = v[self.count :].sum()
            target[self.count :] += self.shift * total
            square += self.shift * float(total) ** 2
        if target is not out:
            out[...] = target
        return square

    def matmat(self, V: Host) -> Host:
        """Return H V, stored as V is."""
        if not self._ours(V) or V.shape[1] == 1:
            assert self.two.matmat is not None
            return self.two.matmat(V)
        entries = self._explicit(V.shape[1])
        if entries is not None:
            return entries @ V
        # A solver stores its columns one after the other; they stay so.
        if V.flags.f_contiguous:
            out = np.empty(V.shape, self.dtype, order="F")
            flat, product, strides = V.T.reshape(-1), out.T, (1, V.shape[0])
        else:
            out = np.empty(V.shape, self.dtype)
            flat = np.ascontiguousarray(V).reshape(-1)
            product, strides = out, (V.shape[1], 1)
        self._tiles(read_only(flat), strides, product.reshape(-1))
        return out

    def _into_block(self, V: Host, out: Host) -> Host | None:
        """Write H V into ``out``, in place where both are tiles themselves."""
        tiles = V.shape[1] * self.dtype.itemsize in WIDTHS and all(
            self._ours(B) and B.flags.c_contiguous and B.ctypes.data % LINE == 0
            for B in (V, out)
        )
        if not tiles or self.entries is not None or np.may_share_memory(V, out):
            out[...] = self.matmat(V)
            return None
        tile, result = V.reshape(-1), out.reshape(-1)
        width = (0,) * V.shape[1]
        squares = block_loops().scale(self.weights, tile, result, width)
        return squares + self._add_tile(tile, width, result)

    # by the loops -----------------------------------------------------------------

    def _vector(self, v: Host, out: Host) -> float:
        """Write the product with a vector; return its curvature."""
        entries = self._explicit(1)
        if entries is not None:
            np.matmul(entries, v, out=out)
            return float(v @ out)
        loops = compiled_loops()
        square = loops.start(self.weights, v, out)
        add, fixed = loops.add_product, (self.d, v, self.intercept)
        if out.nbytes <= self.rows.cache:
            return float(square + self._over_rows(add, (*fixed, None), out))
        with self.pool.lend(self.d, 1) as (staged,):
            return float(square + self._over_rows(add, (*fixed, staged), out))

    def _over_rows(self, loop: Any, fixed: tuple[Any, ...], out: Host) -> Any:
        """Let a loop over rows add to ``out``; return the sum of what it returns."""

        def add(first: int, last: int, target: Host) -> Any:
            return loop(*self.matrix, first, last, *fixed, target)

        return self.rows.by_chunks(add, out, self.pool)

    def _add_tile(self, tile: Host, width: tuple[int, ...], out: Host) -> Host:
        """Add F' W F times a tile to ``out``; return the curvature of each column."""
        fixed = self.d, self.p, tile, width, self.intercept
        return self._over_rows(compiled_loops().add_tile, fixed, out)

    def _tiles(self, v: Host, strides: tuple[int, int], out: Host) -> float:
        """Write the product with columns; entry j of column c lies at (j, c) strides."""
        loops, rows = compiled_loops(), self.n // self.outputs
        columns = v.shape[0] // rows
        lanes = _lanes(columns, out.dtype.itemsize)
        width = (0,) * lanes
        # λ lies like v for several outputs, and is one number a row for a block.
        step, across = (1, 0) if self.p is None else (columns, 1)
        square = 0.0
        # One allocation: huge pages, where the system has them, need a large one.
        with self.pool.lend(out, 1, (2, rows * lanes)) as (pair,):
            tile, result = pair[0], pair[1]
            for first in range(0, columns, lanes):
                layout = *strides, first, min(lanes, columns - first)
                square += loops.start_tile(
                    self.weights, step, across, v, *layout, width, tile, result
                )
                square += self._add_tile(tile, width, result).sum()
                loops.finish_tile(result, width, *layout, out)
        return float(square)

    # by the entries ---------------------------------------------------------------

    def _explicit(self, columns: int) -> Host | None:
        """Return the entries of H once the products have taken as long as they take.

        Whatever number of products follows, the time is at most twice the least
        possible.  Formed twice where two threads ask at once: they are the same.
        """
        if self.entries is None:
            if self.products_left > 0.0:
                self.products_left -= columns
                return None
            self.entries = self.formed()
        return self.entries

    def formed(self) -> Host:
        """Return the entries of H, by one pass over the rows."""
        n = self.n
        sums = np.zeros(n * n + n, self.dtype)
        self._over_rows(compiled_loops().add_entries, (self.d, self.intercept, n), sums)
        half = sums[: n * n].reshape(n, n)
        entries = half + half.T
        diagonal = entries.reshape(-1)[:: n + 1]
        diagonal += sums[n * n :]
        diagonal[: self.count] += self.weights
        return entries


@functools.cache
def compiled_loops() -> Any:
    """Import numba where it is first needed: half a second."""
    return importlib.import_module(".loops", __package__)


def _lanes(columns: int, itemsize: int) -> int:
    """Return the width of a tile: a power of two, of 32 to 128 bytes."""
    width = 32
    while width < min(WIDEST, columns * itemsize):
        width *= 2
    return width // itemsize


def _unsigned(indices: Host) -> Host:
    return read_only(indices).view(np.uint32 if indices.itemsize == 4 else np.uint64)
