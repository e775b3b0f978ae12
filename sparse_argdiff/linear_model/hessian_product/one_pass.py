"""The Hessian product of a linear model, by two passes over the features or by one.

    H v = F' W F v + λ ∘ v,        v'H v = z'W z + λ'v²,   z = F v

W is the curvature of the loss at a point, λ the ridge's weights.  :class:`TwoPasses` is
the reference, for features of any kind; :class:`OnePass` has compiled loops for sparse
rows on the host, threads, and v'H v for nothing.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import itertools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from ...arrays import LINE, Array, as_count, empty, is_sparse
from ...kernels.blocks import block_loops
from ..design import Design
from ..losses import Curvature
from .device import DeviceGram
from .two_pass import Gram, Products, TwoPasses

KERNELS = (None, "reference", "compiled", "deterministic")
WORTHWHILE = 100_000  # nonzeros from which compiled loops are the default
CACHE = 2**20  # bytes of a product up to which it stays near the core: one pass
WIDTHS = (32, 64, 128)  # bytes of a row of a tile: up to two cache lines
WIDEST = WIDTHS[-1]


def gram_of(design: Design, kernels: str | None, threads: int) -> Gram:
    """Return the Gram of a design that the arguments, and what is there, permit."""
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
        return DeviceGram(design, deterministic=kernels == "deterministic")
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

    The product reads the matrix once where it fits in cache, twice where not.  Threads
    split the rows by nonzeros; each adds to its own copy of the product, and the copies
    are summed in order: results repeat bit by bit for one number of threads, and agree
    to rounding among others.  A thread is started for each product (some 50 µs): no pool
    outlives a call, and nothing breaks when a process forks.

    Raises
    ------
    ValueError
        For indices outside the matrix: the loops do not look.
    """

    def __init__(self, design: Design, threads: int) -> None:
        features = sparse.csr_array(design.features)
        features.check_format(full_check=True)
        data = np.ascontiguousarray(features.data)
        self.values = None if bool(np.all(data == 1.0)) else _frozen(data)
        self.indices = _unsigned(features.indices)
        self.indptr = _unsigned(features.indptr)
        self.design = design
        self.reference = TwoPasses(design)
        nonzeros = np.linspace(0, features.indptr[-1], threads + 1)
        cuts = np.searchsorted(features.indptr, nonzeros[1:-1]).tolist()
        bounds = [0, *cuts, design.n_samples]
        self.chunks = list(itertools.pairwise(bounds))
        self.cache = CACHE

    def products(self, curvature: Curvature, weights: Array, shift: float) -> Products:
        """Return the products; they share buffers, which are checked out for each."""
        two = self.reference.products(curvature, weights, shift)
        outputs, count = self.design.outputs, self.design.n_coefficients
        dtype, soft_max = self.design.dtype, curvature.soft_max
        weights = _frozen(np.ascontiguousarray(weights, dtype=dtype))
        scratch = _Scratch(dtype)
        if outputs > 1 and (soft_max is None or outputs * dtype.itemsize > WIDEST):
            return two
        if soft_max is None:
            d, p = _frozen(np.ascontiguousarray(curvature.diagonal, dtype)), None
        else:
            p, d = (_frozen(np.ascontiguousarray(part, dtype)) for part in soft_max)

        def ours(v: Any) -> bool:
            return isinstance(v, np.ndarray) and v.dtype == dtype

        def into(v: Array, out: Array) -> Any:
            if v.ndim == 2:
                return into_block(v, out)
            if not ours(v) or not ours(out):
                out[...] = two.matvec(v)
                return None
            v = _frozen(np.ascontiguousarray(v))
            target = out if out.flags.c_contiguous else np.empty(out.shape, dtype)
            if np.may_share_memory(v, target):
                v = _frozen(v.copy())
            if outputs == 1:
                square = self._vector(d, weights, v, target, scratch)
            else:
                square = self._tiles(d, p, weights, v, (outputs, 1), target, scratch)
            if shift:
                total = v[count:].sum()
                target[count:] += shift * total
                square += shift * float(total) ** 2
            if target is not out:
                out[...] = target
            return square

        def matvec(v: Array) -> Array:
            if not ours(v):
                return two.matvec(v)
            out = np.empty(v.shape, dtype)
            into(v, out)
            return out

        def matmat(V: Array) -> Array:
            if not ours(V) or V.shape[1] == 1:
                assert two.matmat is not None
                return two.matmat(V)
            # A solver stores its columns one after the other; they stay so.
            if V.flags.f_contiguous:
                out = np.empty(V.shape, dtype, order="F")
                flat, product, strides = V.T.reshape(-1), out.T, (1, V.shape[0])
            else:
                out = np.empty(V.shape, dtype)
                flat = np.ascontiguousarray(V).reshape(-1)
                product, strides = out, (V.shape[1], 1)
            self._tiles(
                d, None, weights, _frozen(flat), strides, product.reshape(-1), scratch
            )
            return out

        def into_block(V: Array, out: Array) -> Array | None:
            width = V.shape[1] * dtype.itemsize
            rows = all(
                ours(B) and B.flags.c_contiguous and B.ctypes.data % LINE == 0
                for B in (V, out)
            )
            if not rows or width not in WIDTHS or np.may_share_memory(V, out):
                out[...] = matmat(V)
                return None
            tile, result = V.reshape(-1), out.reshape(-1)
            lanes = (0,) * V.shape[1]
            squares = block_loops().scale(weights, tile, result, lanes)
            return squares + self._add_tile(d, None, tile, lanes, result, scratch)

        if outputs > 1:
            return Products(matvec, None, into)
        return Products(matvec, matmat, into, into_blocks=True)

    def _vector(
        self, d: Array, weights: Array, v: Array, out: Array, scratch: _Scratch
    ) -> float:
        """Write the product with a vector; return its curvature."""
        loops = _kernels()
        square = loops.start(weights, v, out)
        size = d.shape[0] if out.nbytes > self.cache else 0
        staged = scratch.take(size) if size else None

        def add(first: int, last: int, target: Array) -> float:
            return float(
                loops.add_gram(
                    self.values,
                    self.indices,
                    self.indptr,
                    first,
                    last,
                    d,
                    v,
                    self.design.intercept,
                    staged,
                    target,
                )
            )

        square += self._by_chunks(add, out, scratch)
        scratch.give(staged)
        return float(square)

    def _add_tile(
        self,
        d: Array,
        p: Array | None,
        tile: Array,
        width: tuple[int, ...],
        result: Array,
        scratch: _Scratch,
    ) -> Array:
        """Add F' W F times a tile to ``result``; return the curvature of each column."""

        def add(first: int, last: int, target: Array) -> Array:
            return _kernels().add_tile(
                self.values,
                self.indices,
                self.indptr,
                first,
                last,
                d,
                p,
                tile,
                width,
                self.design.intercept,
                target,
            )

        return self._by_chunks(add, result, scratch)

    def _tiles(
        self,
        d: Array,
        p: Array | None,
        weights: Array,
        v: Array,
        strides: tuple[int, int],
        out: Array,
        scratch: _Scratch,
    ) -> float:
        """Write the product with several columns; entry j of column c lies at (j, c) strides."""
        loops, rows = _kernels(), self.design.n // self.design.outputs
        columns = v.shape[0] // rows
        lanes = _lanes(columns, out.dtype.itemsize)
        width = (0,) * lanes
        # One allocation: huge pages, where the system has them, need a large one.
        pair = scratch.take(2 * rows * lanes)
        tile, result = pair[: rows * lanes], pair[rows * lanes :]
        # λ lies like v for several outputs, and is one number a row for a block.
        step, across = (1, 0) if p is None else (columns, 1)
        square = 0.0
        for first in range(0, columns, lanes):
            count = min(lanes, columns - first)
            square += loops.start_tile(
                weights, step, across, v, *strides, first, count, width, tile, result
            )
            square += self._add_tile(d, p, tile, width, result, scratch).sum()
            loops.finish_tile(result, width, *strides, first, count, out)
        scratch.give(pair)
        return float(square)

    def _by_chunks(
        self, add: Callable[[int, int, Array], Any], out: Array, scratch: _Scratch
    ) -> Any:
        """Run ``add(first, last, target)`` on all chunks of rows; sum what they return."""
        extra = self.chunks[1:]
        copies = [scratch.take(out.shape[0]) for _ in extra]
        squares: dict[int, Any] = {}

        def work(t: int) -> None:
            copies[t - 1][...] = 0
            squares[t] = add(*self.chunks[t], copies[t - 1])

        workers = [
            threading.Thread(target=work, args=(t,)) for t in range(1, len(self.chunks))
        ]
        for worker in workers:
            worker.start()
        squares[0] = add(*self.chunks[0], out)
        for worker, copy in zip(workers, copies, strict=True):
            worker.join()
            out += copy
            scratch.give(copy)
        if len(squares) < len(self.chunks):
            raise RuntimeError("a thread of the product failed: its rows are missing")
        return sum(squares[t] for t in range(len(self.chunks)))


class _Scratch:
    """Buffers that are taken and given back: none is allocated twice, none is shared."""

    def __init__(self, dtype: Any) -> None:
        self.like = np.empty(0, dtype)
        self.free: dict[int, list[Array]] = {}

    def take(self, size: int) -> Array:
        """Return ``size`` entries, not cleared."""
        try:
            return self.free[size].pop()
        except (KeyError, IndexError):
            return empty(size, self.like)

    def give(self, buffer: Array | None) -> None:
        """Keep a buffer for the next ``take`` of its size."""
        if buffer is not None:
            self.free.setdefault(buffer.shape[0], []).append(buffer)


@functools.cache
def _kernels() -> Any:
    """Import numba where it is first needed: half a second."""
    return importlib.import_module(".loops", __package__)


def _lanes(columns: int, itemsize: int) -> int:
    """Return the width of a tile: a power of two, of 32 to 128 bytes."""
    width = 32
    while width < min(WIDEST, columns * itemsize):
        width *= 2
    return width // itemsize


def _frozen(array: Array) -> Array:
    """Return a read-only view: users' arrays may be, and each type is compiled anew."""
    view = array.view()
    view.flags.writeable = False
    return view


def _unsigned(indices: Array) -> Array:
    indices = np.ascontiguousarray(indices)
    return _frozen(indices.view(np.uint32 if indices.itemsize == 4 else np.uint64))
