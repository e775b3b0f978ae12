"""Hessian products of several models of one design: a block of columns, one a model.

    (H V)_q = F' W_q F v_q + λ_q ∘ v_q,        one read of F for all columns

W_q and λ_q, the curvature of the loss and the ridge, belong to the column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...arrays import LINE, Array, copied, empty, namespace
from ...kernels.blocks import block_loops, width_for
from ...kernels.compiled import read_only
from ...operators.diagonal_blocks import reselected
from ...operators.linear_operator import LinearOperator
from ...operators.structure import Forming, Structure
from ..design import Design
from ..loss import Curvature
from .one_pass import OnePass


class ModelColumns:
    """The columns of Q models; :class:`DiagonalBlocks` calls it.

    Parameters
    ----------
    design : Design
    products : OnePass or other
        Of one model: compiled rows, or the reference.
    rows : sequence of Rows
        The samples that count in each model.
    curved : sequence of Curvature
        Of these samples.
    ridge : array (Q, n)
    shift : float
        Of the intercepts of several outputs.
    """

    def __init__(
        self,
        design: Design,
        products: Any,
        rows: Sequence[Any],
        curved: Sequence[Curvature],
        ridge: Array,
        shift: float,
    ) -> None:
        self.design, self.products, self.rows = design, products, rows
        self.curved, self.ridge, self.shift = curved, ridge, shift
        self.n = design.n
        self.core: ModelColumns | None = None  # the same without ridge
        self.cores: dict[Any, LinearOperator] = {}  # of rows with a constant curvature
        self.note = ""
        self.scalar = design.outputs == 1
        self.compiled = isinstance(products, OnePass) and self.scalar
        self._whole: Any = None
        self.level = bool(namespace(ridge).all(ridge == ridge[:1, :]))
        self.sums: Any = None  # the diagonals without ridge

    @property
    def curvature(self) -> Any:
        """The curvature of all samples, (N, Q), for one output."""
        if self._whole is None:
            each = [
                rows.whole(curvature.diagonal)
                for rows, curvature in zip(self.rows, self.curved, strict=True)
            ]
            self._whole = namespace(*each).stack(each, axis=1)
        return self._whole

    def __call__(self, places: Sequence[int], width: int) -> LinearOperator:
        """Return the operator of some models, see :class:`DiagonalBlocks`."""
        places = list(places)
        if width == 0:
            return self._single(places[0])
        chosen = _Chosen(self, places, width)
        operator = LinearOperator(
            (self.n, self.n),
            None,
            matmat=chosen.matmat,
            dtype=self.design.dtype,
            symmetric=True,
            structure=Structure(columns=reselected(self, places)),
        )
        if not self.compiled:
            return operator
        return operator.with_product(chosen.into, blocks=True)

    def _single(self, q: int) -> LinearOperator:
        """Return the Hessian of one model, for vectors and blocks."""
        rows, curvature, ridge = self.rows[q], self.curved[q], self.ridge[q, :]
        count = self.design.n_coefficients
        whole = Curvature(
            rows.whole(curvature.diagonal),
            lambda dz: rows.whole(curvature.product(copied(rows.part(dz)))),
            None
            if curvature.soft_max is None
            else tuple(rows.whole(part) for part in curvature.soft_max),
        )
        if self.scalar:
            whole = whole._replace(product=_times(whole.diagonal))
        own = self.products.products(whole, ridge[:count], self.shift)

        def diagonal() -> Array:
            return self.diagonal(q)

        operator = LinearOperator(
            (self.n, self.n),
            own.matvec,
            matmat=own.matmat,
            dtype=self.design.dtype,
            symmetric=True,
            diagonal=diagonal if self.design.has_squares else None,
            structure=self._known(q, own.forming),
        )
        if own.into is None:
            return operator
        return operator.with_product(own.into, blocks=own.into_blocks)

    def _known(self, q: int, forming: Forming | None) -> Structure:
        if self.core is not None:
            return Structure(split=(self._core(q), self.ridge[q, :]))
        samples = int(self.rows[q].weights.shape[0])
        rank = samples * self.design.outputs + bool(self.shift)
        return Structure(rank=rank, forming=forming, outputs=self.design.outputs)

    def _core(self, q: int) -> LinearOperator:
        """Return one Hessian without ridge, the same one where the curvature is constant."""
        assert self.core is not None
        rows = self.rows[q]
        if self.curved[q].diagonal is not rows.weights:
            return self.core((q,), 0)
        if rows not in self.cores:
            self.cores[rows] = self.core((q,), 0)
        return self.cores[rows]

    def diagonal(self, q: int) -> Array:
        """Return the diagonal of one model's Hessian."""
        count = self.design.n_coefficients
        if self.scalar:
            source = self if self.core is None else self.core
            return source._squares()[:, q] + self.ridge[q, :]
        found = self.design.squares(self.rows[q].whole(self.curved[q].diagonal))
        found[count:] += self.shift
        return found + self.ridge[q, :]

    def diagonals(self) -> Array:
        """Return the diagonals of all models, one after the other."""
        each = [self.diagonal(q) for q in range(len(self.rows))]
        return namespace(*each).concatenate(each)

    def _squares(self) -> Any:
        """Return diag(F' W_q F) of all models, (n, Q), by one pass over the features."""
        if self.sums is None:
            found = self.design.fresh_squares(self.curvature)
            self.sums = found.reshape((-1, len(self.rows)))
        return self.sums


class _Chosen:
    """The products with a block of some models."""

    def __init__(self, models: ModelColumns, places: list[int], width: int) -> None:
        self.models, self.places, self.width = models, places, width
        self._curvature: Any = None  # of a tile, with its ridge
        self._weights: Any = None  # the curvature for the reference, and its ridge
        self._ridge: Any = None

    def matmat(self, V: Array) -> Array:
        """Return H V; columns beyond those chosen are zero."""
        models, design, places = self.models, self.models.design, self.places
        xp = namespace(V)
        if models.compiled and self._ours(V):
            out = empty(V.shape, V)
            self._by_tiles(V, out)
            return out
        used = xp.ascontiguousarray(V[:, : len(places)])  # V itself where it can be
        z = design.forward(used)
        if self._ridge is None:
            self._ridge = xp.ascontiguousarray(models.ridge[places, :].T)
            if models.level:
                self._ridge = self._ridge[:, :1]
        if models.scalar:
            if self._weights is None:
                self._weights = models.curvature[:, places]
            z *= self._weights
        else:
            for c, q in enumerate(places):
                rows, curvature = models.rows[q], models.curved[q]
                own = curvature.product(copied(rows.part(z[..., c])))
                z[..., c] = rows.whole(own)
        product = design.backward(z)
        product += used * self._ridge
        if models.shift:
            count = design.n_coefficients
            total = models.shift * xp.sum(V[count:, : len(places)], axis=0)
            product[count:] += total
        if V.shape[1] == len(places):
            return product
        out = xp.zeros_like(V)
        out[:, : len(places)] = product
        return out

    def into(self, V: Any, out: Any) -> Any:
        """Write H V into ``out``; return the curvature of each column where it is known."""
        if not (self._ours(V) and self._ours(out)) or np.may_share_memory(V, out):
            out[...] = self.matmat(V)
            return None
        return self._by_tiles(V, out)

    def _ours(self, V: Any) -> bool:
        dtype = self.models.design.dtype
        return isinstance(V, np.ndarray) and V.dtype == dtype

    def _by_tiles(self, V: Any, out: Any) -> Any:
        """Write H V, tile by tile, in place where both are tiles themselves."""
        models, dtype = self.models, np.dtype(self.models.design.dtype)
        fits = V.shape[1] * dtype.itemsize <= LINE
        if fits and all(B.flags.c_contiguous for B in (V, out)):
            return self._tile(V, out, 0, V.shape[1])
        squares = np.zeros(V.shape[1])
        most = LINE // dtype.itemsize
        for first in range(0, V.shape[1], most):
            count = min(most, V.shape[1] - first)
            lanes = width_for(count, V, in_place=True)
            with models.products.pool.lend(V, 1, (2, V.shape[0], lanes)) as (pair,):
                pair[0, :, :count] = V[:, first : first + count]
                pair[0, :, count:] = 0.0
                found = self._tile(pair[0], pair[1], first, lanes)
                out[:, first : first + count] = pair[1, :, :count]
            squares[first : first + count] = found[:count]
        return squares

    def _tile(self, V: Any, out: Any, first: int, lanes: int) -> Any:
        """Write the product with one tile of columns into another."""
        models, width = self.models, (0,) * lanes
        curvature, ridge = self._of_tile(first, lanes)
        tile, result = V.reshape(-1), out.reshape(-1)
        if ridge.ndim == 1:
            squares = block_loops().scale(ridge, tile, result, width)
        else:
            np.multiply(ridge, V, out=out)
            squares = block_loops().dot(tile, result, width)
        return squares + models.products.add_columns(curvature, tile, width, result)

    def _of_tile(self, first: int, lanes: int) -> Any:
        """Return curvature and ridge of a tile; the last ones are kept."""
        known = self._curvature
        if known is None or known[0] != (first, lanes):
            models, dtype = self.models, self.models.design.dtype
            places = self.places[first : first + lanes]
            D = np.zeros((models.design.n_samples, lanes), dtype)
            for c, q in enumerate(places):
                D[:, c] = models.rows[q].whole(models.curved[q].diagonal)
            if models.level:
                ridge = read_only(models.ridge[0, : models.design.n_coefficients])
            else:
                ridge = np.zeros((models.n, lanes), dtype)
                ridge[:, : len(places)] = models.ridge[places, :].T
            known = (first, lanes), (read_only(D.reshape(-1)), ridge)
            self._curvature = known
        return known[1]


def _times(diagonal: Array) -> Any:
    def product(dz: Array) -> Array:
        dz *= diagonal if dz.ndim == 1 else diagonal[:, None]
        return dz

    return product
