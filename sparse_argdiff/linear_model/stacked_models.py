"""The objective of several linear models of one design, stacked: folds, or targets.

    f(x, Y) = Σ_q [ Σ_i W_iq ℓ(z_iq, t_iq) + ½ Σ_j e^{η_jq} C_jq² ],     Z = F C + 1 b'

y (Q n,) holds the models one after the other.  The Hessian is block-diagonal; value,
gradient and Hessian product read F once for all models.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import Array, as_vector, copied, dot, namespace, norm, zeros
from ..operators.diagonal_blocks import DiagonalBlocks, block_diagonal
from ..operators.linear_operator import LinearOperator
from ..operators.structure import Structure
from ..problem.constants import Constants
from .design import Design
from .dual_point import LossDualPoint
from .hessian_product.columns import ModelColumns
from .hessian_product.one_pass import OnePass, products_of
from .lipschitz_constants import constants_of
from .loss_at import quiet
from .mean_loss import DataTerm
from .norms import NoRidge
from .penalty import RidgePenalty, Weights, held, held_blocks, without
from .ridge_model import RidgeModel, ridge_holds
from .rows import Rows
from .third_derivative import third_of_loss, third_of_ridge


class StackedModels:
    """f, f_Y, f_YY and f_XY of Q models of one design.

    Parameters
    ----------
    terms : sequence of DataTerm
        One a model; they share the design.
    penalties : sequence of RidgePenalty
        One for each part (m,) of x.
    part_of : sequence of int
        The part of x that weighs each model.
    counts : sequence of array (N,), optional
        How often each model has each sample; once by default.
    """

    def __init__(
        self,
        terms: Sequence[DataTerm],
        penalties: Sequence[RidgePenalty | NoRidge],
        part_of: Sequence[int],
        counts: Sequence[Array] | None = None,
        kernels: str | None = None,
        threads: int = 1,
    ) -> None:
        self.terms, self.penalties, self.part_of = terms, penalties, part_of
        self._counts = counts
        self.products = products_of(terms[0].design, kernels, threads)
        self._kernels, self._threads = kernels, threads
        self.rows = [Rows(term) for term in terms]
        self.design: Design = terms[0].design
        self.count, self.dtype = len(terms), self.design.dtype
        self.size = self.design.n  # of one model
        self.n = self.count * self.size
        self.m = sum(penalty.m for penalty in penalties)
        shifts = self.design.outputs > 1 and self.design.intercept
        self.shift = 1.0 / self.design.outputs**2 if shifts else 0.0
        self._loops: OnePass | None = None  # of several models of one output
        if self.count > 1 and self.design.outputs == 1:
            self._loops = self.products if isinstance(self.products, OnePass) else None
        # Of each model: y and its predictors, these and the gradient of the data.
        self._seen: list[Any] = [None] * self.count
        self._grads: list[Any] = [None] * self.count
        self._scale: float | None = None
        self._cores: dict[Any, LinearOperator] = {}  # see ``ModelColumns``

    def __getstate__(self) -> dict[str, Any]:
        """Leave operators out of a copy: they are made again."""
        return self.__dict__ | {"_cores": {}}

    # vectors of all models --------------------------------------------------------

    def columns(self, y: Array) -> Array:
        """Return y (Q n,) as the columns of a block (n, Q), its rows contiguous."""
        return namespace(y).ascontiguousarray(self.blocks(y).T)

    def blocks(self, y: Array) -> Any:
        """Return y (Q n,) as rows, a view (Q, n)."""
        return y.reshape(self.count, self.size)

    def stacked(self, block: Array) -> Array:
        """Return the columns of a block (n, Q), one after the other."""
        return namespace(block).ascontiguousarray(block.T).reshape(-1)

    def parts(self, x: Array) -> list[Array]:
        """Return the part of x of each model."""
        split = self._split(x)
        return [split[k] for k in self.part_of]

    def _split(self, x: Array) -> list[Array]:
        """Return the parts of x, or of what is like it."""
        m = self.m // len(self.penalties)
        return [x[k * m : (k + 1) * m] for k in range(len(self.penalties))]

    def _per_part(self, x: Array) -> list[Any]:
        """Return the weights of each part of x."""
        x = as_vector("x", x)
        if tuple(x.shape) != (self.m,):
            raise ValueError(
                f"x must have shape ({self.m},), found shape {tuple(x.shape)}"
            )
        pairs = zip(self.penalties, self._split(x), strict=True)
        return [penalty.at(part, self.dtype) for penalty, part in pairs]

    def fixed(self, x: Array) -> Array | None:
        """Return a mask (Q n,) of what x fixes at 0, None where nothing is."""
        return self._mask(self._weights(x))

    def has_minimiser(self, x: Array) -> bool:
        """Tell whether each model surely has a minimiser."""
        parts = zip(self.penalties, self._split(x), strict=True)
        return all(ridge_holds(penalty, part, self.terms) for penalty, part in parts)

    def predictors(self, y: Array) -> list[Array]:
        """Return the predictors of each model, (N,) or (N, K), by one product."""
        return self._predict(range(self.count), list(self.blocks(y)))

    def _predict(self, places: Sequence[int], ys: Sequence[Array]) -> list[Array]:
        """Return the predictors of some models; those of the last y are remembered."""
        fresh = [
            c
            for c, (q, y) in enumerate(zip(places, ys, strict=True))
            if self._seen[q] is None
            or not bool(namespace(y).all(self._seen[q][0] == y))
        ]
        if fresh:
            with quiet():
                found = self._forward([ys[c] for c in fresh])
            for c, z in zip(fresh, found, strict=True):
                self._seen[places[c]] = copied(ys[c]), z
        return [self._seen[q][1] for q in places]

    def _data_grads(self, places: Sequence[int], ys: Sequence[Array]) -> list[Array]:
        """Return the gradients of the data terms of some models, fresh arrays."""
        zs = self._predict(places, ys)
        fresh = [
            c
            for c, q in enumerate(places)
            if self._grads[q] is None or self._grads[q][0] is not zs[c]
        ]
        if fresh:
            slopes = [self.rows[places[c]].slope(zs[c]) for c in fresh]
            with quiet():
                found = self._backward(slopes)
            for c, grad in zip(fresh, found, strict=True):
                self._grads[places[c]] = zs[c], grad
        return [copied(self._grads[q][1]) for q in places]

    def backward(self, slopes: list[Array]) -> Array:
        """Return the transpose's products with what each model has, (Q n,)."""
        with quiet():
            return namespace(slopes[0]).concatenate(self._backward(slopes))

    def _forward(self, ys: Sequence[Array]) -> Sequence[Array]:
        """Return the predictors at several y, each contiguous."""
        if self._loops is not None and all(_is_plain(y, self.dtype) for y in ys):
            return self._loops.forward(ys)
        xp = namespace(ys[0])
        z = self.design.forward(xp.stack(ys, axis=1))
        return list(xp.ascontiguousarray(xp.moveaxis(z, -1, 0)))

    def _backward(self, slopes: Sequence[Array]) -> Sequence[Array]:
        """Return the transpose's products with what each model has, each contiguous."""
        if self._loops is not None and all(_is_plain(s, self.dtype) for s in slopes):
            return self._loops.backward(slopes)
        xp = namespace(*slopes)
        found = self.design.backward(xp.stack(slopes, axis=-1))
        return list(xp.ascontiguousarray(found.T))

    # the objective ----------------------------------------------------------------

    def value(self, x: Array, y: Array) -> float:
        """Return f(x, y)."""
        return sum(self._values(x, range(self.count), list(self.blocks(y))))

    def grad(self, x: Array, y: Array) -> Array:
        """Return f_Y, shape (Q n,)."""
        places = range(self.count)
        return namespace(y).concatenate(
            self._gradients(x, places, list(self.blocks(y)))
        )

    def evaluate(
        self, x: Array, places: Sequence[int], ys: Sequence[Array]
    ) -> list[tuple[Array, float]]:
        """Return gradient and value of some models, each at a y of its own."""
        grads = self._gradients(x, places, ys)
        return list(zip(grads, self._values(x, places, ys), strict=True))

    def _values(
        self, x: Array, places: Sequence[int], ys: Sequence[Array]
    ) -> list[float]:
        each, found, count = self._weights(x), [], self.design.n_coefficients
        ys = [without(each[q].fixed, y) for q, y in zip(places, ys, strict=True)]
        for q, y, z in zip(places, ys, self._predict(places, ys), strict=True):
            c, xp = y[:count], namespace(y)
            value = self.rows[q].value(z) + 0.5 * dot(each[q].values * c, c)
            if self.shift:
                value += 0.5 * self.shift * float(xp.sum(y[count:])) ** 2
            found.append(value)
        return found

    def _gradients(
        self, x: Array, places: Sequence[int], ys: Sequence[Array]
    ) -> list[Array]:
        each, count = self._weights(x), self.design.n_coefficients
        seen = [without(each[q].fixed, y) for q, y in zip(places, ys, strict=True)]
        found = []
        grads = self._data_grads(places, seen)
        for q, y, grad in zip(places, ys, grads, strict=True):
            own = without(each[q].fixed, grad)
            own[:count] += each[q].values * y[:count]
            if self.shift:
                own[count:] += self.shift * namespace(y).sum(y[count:])
            found.append(own)
        return found

    def _weights(self, x: Array) -> list[Weights]:
        """Return the weights of each model."""
        found = self._per_part(x)
        return [found[k] for k in self.part_of]

    def linearize(
        self, x: Array, places: Sequence[int], ys: Sequence[Array]
    ) -> DiagonalBlocks:
        """Return the Hessians of some models, the first one at place 0."""
        columns, each = self._columns(x, places, ys)
        blocks = DiagonalBlocks(len(places), self.size, columns)
        fixed = self._mask(each)
        if fixed is None:
            return blocks
        return held_blocks(blocks, fixed, columns.ridge.reshape(-1))

    def hess(self, x: Array, y: Array) -> LinearOperator:
        """Return f_YY, an operator (Q n, Q n) of Q diagonal blocks."""
        columns, each = self._columns(x, range(self.count), list(self.blocks(y)))
        whole, fixed = self._stacked_hess(columns), self._mask(each)
        if fixed is None:
            return whole
        return held(whole, fixed, columns.ridge.reshape(-1))

    def _columns(
        self, x: Array, places: Sequence[int], ys: Sequence[Array]
    ) -> tuple[ModelColumns, list[Weights]]:
        """Return the Hessians of some models as columns, and the weights at x."""
        each, xp = [self._weights(x)[q] for q in places], namespace(x)
        seen = [without(w.fixed, y) for w, y in zip(each, ys, strict=True)]
        zs, rows = self._predict(places, seen), [self.rows[q] for q in places]
        curved = [own.curvature(z) for own, z in zip(rows, zs, strict=True)]
        kinks = [own.kinks(z) for own, z in zip(rows, zs, strict=True)]
        notes = dict.fromkeys((*(w.note for w in each), *kinks))
        ridge = self._ridge(each)
        row = xp.zeros(self.size, dtype=self.dtype)
        none = xp.broadcast_to(row[None, :], ridge.shape)
        core, whole = (
            ModelColumns(self.design, self.products, rows, curved, weights, self.shift)
            for weights in (none, ridge)
        )
        whole.core, whole.cores = core, self._cores
        whole.note = "; ".join(note for note in notes if note)
        return whole, each

    def _ridge(self, each: Sequence[Weights]) -> Array:
        """Return the weights of the models as rows; one row where all have the same."""
        first, xp = each[0].values, namespace(each[0].values)
        rest = xp.zeros(self.size - self.design.n_coefficients, dtype=self.dtype)
        if all(w.values is first for w in each):
            row = xp.concatenate([first, rest])
            return xp.broadcast_to(row[None, :], (len(each), self.size))
        return xp.stack([xp.concatenate([w.values, rest]) for w in each])

    def _stacked_hess(self, whole: ModelColumns) -> LinearOperator:
        """Return the Hessians of all models as diagonal blocks of one operator."""
        design, core = self.design, whole.core
        assert core is not None
        rank = sum(own.weights.shape[0] * design.outputs for own in self.rows)
        rank += self.count * bool(self.shift)
        parts = [
            block_diagonal(
                columns,
                self.count,
                self.size,
                diagonal=columns.diagonals if design.has_squares else None,
                structure=Structure(rank=rank),
                dtype=self.dtype,
            )
            for columns in (core, whole)
        ]
        split = parts[0], whole.ridge.reshape(-1)
        structure = parts[1].structure
        return parts[1].with_structure(
            structure._replace(split=split, rank=None, note=whole.note)
        )

    @staticmethod
    def _mask(each: Sequence[Weights]) -> Array | None:
        """Return the masks of what is fixed, one after the other; None without any."""
        known = [w.fixed for w in each if w.fixed is not None]
        if not known:
            return None
        xp, none = namespace(known[0]), 0 * known[0] != 0
        return xp.concatenate([none if w.fixed is None else w.fixed for w in each])

    def cross(self, x: Array, y: Array) -> LinearOperator:
        """Return f_XY, an operator (Q n, m): (e^η ∘ c) Z for each model."""
        self._per_part(x)
        xp, count, parts = namespace(y), self.design.n_coefficients, self.part_of
        pieces = self.parts(x)
        shape = self.count, self.size
        slope = [
            self.penalties[k].slopes(pieces[q], self.dtype) * y_q[:count]
            for q, (k, y_q) in enumerate(zip(parts, self.blocks(y), strict=True))
        ]

        def forward(u: Array) -> Array:
            u = xp.asarray(u, dtype=self.dtype)
            result = xp.zeros(shape, dtype=self.dtype)
            pairs = zip(self.penalties, self._split(u), strict=True)
            spread = [penalty.spread(part) for penalty, part in pairs]
            for q, k in enumerate(parts):
                result[q, :count] = slope[q] * spread[k]
            return result.reshape(-1)

        def backward(w: Array) -> Array:
            sums: list[Any] = [0.0] * len(self.penalties)
            for q, (k, w_q) in enumerate(zip(parts, self.blocks(w), strict=True)):
                sums[k] = sums[k] + slope[q] * w_q[:count]
            gathered = [
                penalty.gather(total)
                for penalty, total in zip(self.penalties, sums, strict=True)
            ]
            return xp.concatenate(gathered)

        return LinearOperator((self.n, self.m), forward, backward, dtype=self.dtype)

    def third_product(
        self, x: Array, y: Array, w: Array, dx: Array, dy: Array
    ) -> tuple[Array, Array]:
        """Return the derivatives of (f_XYᵀ w, f_YY w) along (dx, dy), (m,) and (Q n,)."""
        fixed, xp = self.fixed(x), namespace(y)
        y, w, dy = (without(fixed, v) for v in (y, w, dy))
        z, found, sums = self.predictors(y), [], [0.0 * dx for dx in self._split(dx)]
        pieces, along_x = self._split(x), self._split(dx)
        blocks = zip(self.blocks(y), self.blocks(w), self.blocks(dy), strict=True)
        for q, (y_q, w_q, dy_q) in enumerate(blocks):
            k = self.part_of[q]
            along = third_of_loss(self.terms[q], z[q], w_q, dy_q)
            at = y_q, w_q, along_x[k], dy_q
            by_x = third_of_ridge(self.penalties[k], pieces[k], at, along)
            sums[k] = sums[k] + self.penalties[k].gather(by_x)
            found.append(along)
        return xp.concatenate(sums), without(fixed, xp.concatenate(found))

    # what else others ask for -------------------------------------------------------

    def weight_slopes(self, x: Array, y: Array, v: Array) -> Array:
        """Return v' ∂f_Y/∂w_i for each sample weight w_i as given, shape (N,)."""
        fixed = self.fixed(x)
        z = self.predictors(without(fixed, y))
        along = self.design.forward(self.columns(without(fixed, v)))
        total: Any = 0.0
        for q, rows in enumerate(self.rows):
            own = rows.term.slopes_along(z[q], along[..., q])
            total = total + (own if self._counts is None else self._counts[q] * own)
        return total

    def scale(self, x: Array) -> float:
        """Return ‖f_Y(x, 0)‖, which does not depend on x; computed once."""
        if self._scale is None:
            like = self.terms[0].weights
            zero = [zeros(self.size, like, self.dtype)] * self.count
            grads = self._data_grads(range(self.count), zero)
            self._scale = math.hypot(*(norm(grad) for grad in grads))
        return self._scale

    def constants(self, x: Array, y: Array) -> Constants | None:
        """Return bounds that prove errors at (x, y), or None where there are none."""
        if isinstance(self.penalties[0], NoRidge):
            return None
        weights = [own.values for own in self._weights(x)]
        found = []
        for term, k, w, y_q in zip(
            self.terms,
            self.part_of,
            weights,
            self.blocks(y),
            strict=True,
        ):
            known = constants_of(term, self.penalties[k], w, y_q)  # type: ignore[arg-type]
            if known is None:
                return None
            found.append(known)
        return Constants(
            convexity=min(c.convexity for c in found),
            hess_lipschitz=max(c.hess_lipschitz for c in found),
            cross=math.hypot(*(c.cross for c in found)),
            cross_lipschitz=max(c.cross_lipschitz for c in found),
            metric=namespace(y).concatenate([c.metric for c in found]),
        )

    # of norms -----------------------------------------------------------------------

    @functools.cached_property
    def singles(self) -> list[RidgeModel]:
        """The models one by one."""
        return [
            RidgeModel(term, self.penalties[k], self._kernels, self._threads)
            for term, k in zip(self.terms, self.part_of, strict=True)
        ]

    def hess_block(self, x: Array, y: Array, index: Array) -> Any:
        """Return f_YY on an ascending index, (k, k), block-diagonal; None if not explicit."""
        block = np.zeros((index.shape[0], index.shape[0]))
        blocks, parts = self.blocks(y), self.parts(x)
        for q, model in enumerate(self.singles):
            (own,) = np.nonzero(index // self.size == q)
            found = model.hess_block(parts[q], blocks[q], index[own] - q * self.size)
            if found is None:
                return None
            block[np.ix_(own, own)] = found
        return block

    def dual_point(self, x: Array, y: Array, free: Array) -> StackedDualPoint | None:
        """Return the dual points of all models as one, None where one is not known."""
        blocks, parts, frees = self.blocks(y), self.parts(x), self.blocks(free)
        points = [
            model.dual_point(parts[q], blocks[q], frees[q])
            for q, model in enumerate(self.singles)
        ]
        known = [point for point in points if point is not None]
        return StackedDualPoint(known) if len(known) == len(points) else None


def _is_plain(v: Any, dtype: Any) -> bool:
    return isinstance(v, np.ndarray) and v.dtype == dtype


class StackedDualPoint:
    """The dual points of several models, which do not meet."""

    def __init__(self, points: list[LossDualPoint]) -> None:
        self._points = points
        xp = namespace(points[0].force)
        self.force = xp.concat([point.force for point in points])
        lengths = [point.lengths for point in points if point.lengths is not None]
        self.lengths = xp.concat(lengths) if len(lengths) == len(points) else None
        self.terms = sum(point.terms for point in points)

    def conjugate(self, scale: float) -> float:
        """Return the sum of the conjugates."""
        return sum(point.conjugate(scale) for point in self._points)
