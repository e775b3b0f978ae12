"""The objective of several linear models of one design, stacked: folds, or targets.

    f(x, Y) = Σ_q [ Σ_i W_iq ℓ(z_iq, t_iq) + ½ Σ_j e^{η_jq} C_jq² ],     Z = F C + 1 b'

y (Q n,) holds the models one after the other.  The Hessian is block-diagonal; value,
gradient and Hessian product read F once for all models.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import Array, as_vector, copied, dot, namespace, norm, zeros
from ..operators.diagonal_blocks import block_diagonal
from ..operators.linear_operator import LinearOperator
from ..operators.structure import Structure
from ..problem.constants import Constants
from .design import Design
from .dual_point import LossDualPoint
from .hessian_product.columns import ModelColumns
from .hessian_product.one_pass import products_of
from .lipschitz_constants import constants_of
from .losses import Curvature, Loss, kink_note
from .mean_loss import DataTerm, quiet
from .norms import NoRidge
from .penalty import RidgePenalty, held, without
from .ridge_model import RidgeModel
from .third_derivative import third_of_loss, third_of_ridge


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """The loss of one model, on the samples that have a weight.

    Attributes
    ----------
    term : DataTerm
        Its weights and targets, of all samples.
    index : int array or None
        Of the samples whose weight is not zero; None where that is all.
    """

    term: DataTerm
    index: Array | None
    targets: Array
    weights: Array

    @classmethod
    def of(cls, term: DataTerm) -> Rows:
        """Return the samples that count in a term."""
        xp = namespace(term.weights)
        (index,) = xp.nonzero(term.weights)
        if index.shape[0] == term.weights.shape[0]:
            return cls(term, None, term.targets, term.weights)
        targets = xp.take(term.targets, index, axis=0)
        return cls(term, index, targets, xp.take(term.weights, index, axis=0))

    @property
    def loss(self) -> Loss:
        """The loss."""
        return self.term.loss

    def part(self, z: Array) -> Array:
        """Return the predictors of the samples that count."""
        return z if self.index is None else namespace(z).take(z, self.index, axis=0)

    def whole(self, part: Array) -> Array:
        """Return an array of all samples, zero at those that do not count."""
        if self.index is None:
            return part
        shape = (self.term.weights.shape[0], *part.shape[1:])
        result = zeros(shape, part)
        result[self.index] = part
        return result

    def value(self, z: Array) -> float:
        """Return the weighted loss at predictors of all samples."""
        with quiet():
            return dot(self.weights, self.loss.value(self.part(z), self.targets))

    def slope(self, z: Array) -> Array:
        """Return the weighted slopes of all samples."""
        with quiet():
            slope = self.loss.slope(self.part(z), self.targets)
            weights = self.weights if slope.ndim == 1 else self.weights[:, None]
            return self.whole(slope * weights)

    def curvature(self, z: Array) -> Curvature:
        """Return the weighted curvature of the samples that count."""
        return self.loss.curvature(self.part(z), self.targets, self.weights)

    def kinks(self, z: Array) -> str:
        """Say how many samples are at a kink."""
        return kink_note(self.loss, self.part(z), self.targets, self.weights)


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
        self.rows = [Rows.of(term) for term in terms]
        self.design: Design = terms[0].design
        self.count, self.dtype = len(terms), self.design.dtype
        self.size = self.design.n  # of one model
        self.n = self.count * self.size
        self.m = sum(penalty.m for penalty in penalties)
        shifts = self.design.outputs > 1 and self.design.intercept
        self.shift = 1.0 / self.design.outputs**2 if shifts else 0.0
        self._memo: tuple[Array, Array] | None = None
        self._grad_memo: tuple[Array, Array] | None = None
        self._scale: float | None = None

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

    def weights(self, x: Array) -> tuple[list[Array], Array | None, str]:
        """Return the weights of each model (p K,), a mask (Q n,) of what is fixed, a note."""
        found = self._per_part(x)
        notes = dict.fromkeys(weights.note for weights in found if weights.note)
        each = [found[k] for k in self.part_of]
        fixed = None
        if any(weights.fixed is not None for weights in found):
            xp = namespace(x)
            none = xp.zeros(self.size, dtype=bool)
            masks = [none if w.fixed is None else w.fixed for w in each]
            fixed = xp.concatenate(masks)
        return [weights.values for weights in each], fixed, "; ".join(notes)

    def fixed(self, x: Array) -> Array | None:
        """Return a mask (Q n,) of what x fixes at 0, None where nothing is."""
        return self.weights(x)[1]

    def predictors(self, y: Array) -> Array:
        """Return the predictors of each model, (Q, N) or (Q, N, K), by one product."""
        memo = self._memo
        if memo is not None and bool(namespace(y).all(memo[0] == y)):
            return memo[1]
        with quiet():
            z = self.design.forward(self.columns(y))
        xp = namespace(z)
        z = xp.ascontiguousarray(xp.moveaxis(z, -1, 0))
        self._memo = (copied(y), z)
        return z

    def backward(self, slopes: list[Array]) -> Array:
        """Return the transpose's products with what each model has, (Q n,)."""
        with quiet():
            return self.stacked(
                self.design.backward(namespace(slopes[0]).stack(slopes, axis=-1))
            )

    # the objective ----------------------------------------------------------------

    def value(self, x: Array, y: Array) -> float:
        """Return f(x, y)."""
        weights, fixed, _ = self.weights(x)
        z = self.predictors(without(fixed, y))
        value = sum(rows.value(z[q]) for q, rows in enumerate(self.rows))
        count, xp = self.design.n_coefficients, namespace(y)
        for y_q, w in zip(self.blocks(y), weights, strict=True):
            value += 0.5 * dot(w * y_q[:count], y_q[:count])
            if self.shift:
                value += 0.5 * self.shift * float(xp.sum(y_q[count:])) ** 2
        return value

    def grad(self, x: Array, y: Array) -> Array:
        """Return f_Y, shape (Q n,)."""
        weights, fixed, _ = self.weights(x)
        grad = without(fixed, self._data_grad(without(fixed, y)))
        count, xp = self.design.n_coefficients, namespace(y)
        triples = zip(self.blocks(grad), self.blocks(y), weights, strict=True)
        for g, y_q, w in triples:
            g[:count] += w * y_q[:count]
            if self.shift:
                g[count:] += self.shift * xp.sum(y_q[count:])
        return grad

    def _data_grad(self, y: Array) -> Array:
        z, memo = self.predictors(y), self._grad_memo
        if memo is None or memo[0] is not z:
            slopes = [rows.slope(z[q]) for q, rows in enumerate(self.rows)]
            self._grad_memo = memo = (z, self.backward(slopes))
        return copied(memo[1])

    def hess(self, x: Array, y: Array) -> LinearOperator:
        """Return f_YY, an operator (Q n, Q n) of Q diagonal blocks."""
        weights, fixed, note = self.weights(x)
        z, xp = self.predictors(without(fixed, y)), namespace(y)
        curved = [rows.curvature(z[q]) for q, rows in enumerate(self.rows)]
        rest = xp.zeros(self.size - self.design.n_coefficients, dtype=self.dtype)
        ridge = xp.concatenate([part for w in weights for part in (w, rest)])
        none = xp.zeros_like(ridge)
        core = self._hess(curved, none)
        if fixed is not None:
            core = held(core, fixed, none)
        kinks = (rows.kinks(z[q]) for q, rows in enumerate(self.rows))
        note = "; ".join(dict.fromkeys(part for part in (note, *kinks) if part))
        whole = self._hess(curved, ridge, Structure(split=(core, ridge), note=note))
        return whole if fixed is None else held(whole, fixed, ridge)

    def _hess(
        self, curved: list[Curvature], ridge: Array, known: Structure | None = None
    ) -> LinearOperator:
        design = self.design
        columns = ModelColumns(
            design, self.products, self.rows, curved, self.blocks(ridge), self.shift
        )
        rank = self.count * (design.n_samples * design.outputs + bool(self.shift))
        return block_diagonal(
            columns,
            self.count,
            self.size,
            dtype=self.dtype,
            diagonal=columns.diagonals if design.has_squares else None,
            structure=Structure(rank=rank) if known is None else known,
        )

    def cross(self, x: Array, y: Array) -> LinearOperator:
        """Return f_XY, an operator (Q n, m): (e^η ∘ c) Z for each model."""
        self._per_part(x)
        xp, count, parts = namespace(y), self.design.n_coefficients, self.part_of
        m = self.m // len(self.penalties)
        pieces = self.parts(x)
        shape = self.count, self.size
        slope = [
            self.penalties[k].slopes(pieces[q], self.dtype) * y_q[:count]
            for q, (k, y_q) in enumerate(zip(parts, self.blocks(y), strict=True))
        ]

        def forward(u: Array) -> Array:
            u = xp.asarray(u, dtype=self.dtype)
            result = xp.zeros(shape, dtype=self.dtype)
            spread = [
                penalty.spread(u[k * m : (k + 1) * m])
                for k, penalty in enumerate(self.penalties)
            ]
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
            self._scale = norm(self._data_grad(zeros(self.n, like, self.dtype)))
        return self._scale

    def constants(self, x: Array, y: Array) -> Constants | None:
        """Return bounds that prove errors at (x, y), or None where there are none."""
        if isinstance(self.penalties[0], NoRidge):
            return None
        weights, _, _ = self.weights(x)
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
