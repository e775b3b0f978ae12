"""The objective of one linear model: its mean loss and a ridge whose weights are learned.

    f(x, y) = Σ_i w_i ℓ(z_i, t_i) + ½ Σ_j e^{η_j} c_j²,    z = F c + b,  η = o + Z x

The weights w sum to one.  The loss determines the intercepts of several outputs up to a
common shift; the term ½ (mean b)², zero at the solution, makes f_YY definite.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import Array, dot, namespace, norm, zeros
from ..operators.linear_operator import LinearOperator
from ..operators.structure import Structure
from ..problem.constants import Constants
from .columns import Columns
from .dual_point import LossDualPoint, dual_point
from .hessian_product.one_pass import products_of
from .lipschitz_constants import constants_of
from .loss import Curvature, kink_note
from .losses import Huber, Majoriser, Quantile, Squared
from .mean_loss import DataTerm
from .norms import NoRidge
from .penalty import RidgePenalty, held, without
from .third_derivative import third_of_loss, third_of_ridge


def ridge_holds(
    penalty: RidgePenalty | NoRidge, x: Array, terms: Sequence[DataTerm]
) -> bool:
    """Tell whether the loss grows along free intercepts, and weights > 0 hold the rest."""
    if isinstance(penalty, NoRidge) or not all(map(_holds_intercept, terms)):
        return False
    weights = penalty.weights(x, terms[0].design.dtype)
    return bool(namespace(weights).all(weights > 0.0))


def _holds_intercept(data: DataTerm) -> bool:
    """Tell whether the loss surely grows along an intercept, or there is none."""
    if not data.design.intercept or isinstance(data.loss, Squared | Huber):
        return True
    ends = getattr(data.loss, "mean_range", (-math.inf, math.inf))
    return all(map(math.isfinite, ends)) and data.lacking() is None


class RidgeModel:
    """f, f_Y, f_YY and f_XY of one model; ``Glm`` describes the arguments."""

    convex = True

    def __init__(
        self,
        data: DataTerm,
        penalty: RidgePenalty | NoRidge,
        kernels: str | None,
        threads: int,
    ) -> None:
        design = data.design
        self.data, self.penalty, self.dtype = data, penalty, design.dtype
        self.n, self.m = design.n, penalty.m
        self.products = products_of(design, kernels, threads)
        shifts = design.outputs > 1 and design.intercept
        self.shift = 1.0 / design.outputs**2 if shifts else 0.0
        self.rank = design.n_samples * design.outputs + bool(shifts)
        self._scale: float | None = None
        self._columns = Columns(data, self.shift)

    def fixed(self, x: Array) -> Array | None:
        """Return a mask (n,) of what x fixes at 0, None where nothing is."""
        return self.penalty.at(x, self.dtype).fixed

    def has_minimiser(self, x: Array) -> bool:
        """Tell whether a minimiser surely exists."""
        return ridge_holds(self.penalty, x, [self.data])

    def value(self, x: Array, y: Array) -> float:
        """Return f(x, y)."""
        weights, fixed, _ = self.penalty.at(x, self.dtype)
        c = y[: self.penalty.n_coefficients]
        value = self.data.value(without(fixed, y)) + 0.5 * dot(weights * c, c)
        if self.shift:
            total = float(namespace(y).sum(y[c.shape[0] :]))
            value += 0.5 * self.shift * total**2
        return value

    def grad(self, x: Array, y: Array) -> Array:
        """Return f_Y, shape (n,)."""
        weights, fixed, _ = self.penalty.at(x, self.dtype)
        count = self.penalty.n_coefficients
        grad = without(fixed, self.data.grad(without(fixed, y)))
        grad[:count] += weights * y[:count]
        if self.shift:
            grad[count:] += self.shift * namespace(y).sum(y[count:])
        return grad

    def hess(self, x: Array, y: Array) -> LinearOperator:
        """Return f_YY, an operator (n, n); it knows its part that x does not enter."""
        data, xp = self.data, namespace(y)
        weights, fixed, note = self.penalty.at(x, self.dtype)
        z = data.predictor(without(fixed, y))
        curvature = data.at(z).curvature
        kinks = kink_note(data.loss, z, data.targets, data.weights)
        core = self._hess(curvature, xp.zeros_like(weights))
        rest = xp.zeros(self.n - weights.shape[0], dtype=self.dtype)
        ridge = xp.concatenate([weights, rest])
        notes = "; ".join(part for part in (note, kinks) if part)
        whole = self._hess(curvature, weights, (core, ridge), notes)
        return whole if fixed is None else held(whole, fixed, ridge)

    def _hess(
        self, curvature: Curvature, weights: Array, split: Any = None, note: str = ""
    ) -> LinearOperator:
        design, count = self.data.design, self.penalty.n_coefficients
        products = self.products.products(curvature, weights, self.shift)

        def diagonal() -> Array:
            result = design.squares(curvature.diagonal)
            result[:count] += weights
            result[count:] += self.shift
            return result

        operator = LinearOperator(
            (self.n, self.n),
            products.matvec,
            matmat=products.matmat,
            dtype=self.dtype,
            symmetric=True,
            diagonal=diagonal if design.has_squares else None,
            structure=Structure(
                split=split,
                rank=None if split else self.rank,
                note=note,
                forming=None if split else products.forming,
                outputs=design.outputs,
            ),
        )
        return operator.with_product(products.into, blocks=products.into_blocks)

    def cross(self, x: Array, y: Array) -> LinearOperator:
        """Return f_XY, an operator (n, m): e^η ∘ c for each coefficient, times Z."""
        penalty, count = self.penalty, self.penalty.n_coefficients
        slope = penalty.slopes(x, self.dtype) * y[:count]
        xp, rest = namespace(y), self.n - count

        def forward(u: Array) -> Array:
            head = slope * penalty.spread(xp.asarray(u, dtype=self.dtype))
            return xp.concatenate([head, xp.zeros(rest, dtype=self.dtype)])

        return LinearOperator(
            (self.n, self.m),
            forward,
            lambda w: penalty.gather(slope * w[:count]),
            dtype=self.dtype,
        )

    def third_product(
        self, x: Array, y: Array, w: Array, dx: Array, dy: Array
    ) -> tuple[Array, Array]:
        """Return the derivatives of (f_XYᵀ w, f_YY w) along (dx, dy), (m,) and (n,)."""
        penalty, fixed = self.penalty, self.fixed(x)
        y, w, dy = (without(fixed, v) for v in (y, w, dy))
        along = third_of_loss(self.data, self.data.predictor(y), w, dy)
        by_x = third_of_ridge(penalty, x, (y, w, dx, dy), along)
        return penalty.gather(by_x), without(fixed, along)

    def weight_slopes(self, x: Array, y: Array, v: Array) -> Array:
        """Return v' ∂f_Y/∂w_i for each sample weight w_i as given, shape (N,)."""
        fixed = self.penalty.at(x, self.dtype).fixed
        return self.data.weight_slopes(without(fixed, y), without(fixed, v))

    def scale(self, x: Array) -> float:
        """Return ‖f_Y(x, 0)‖, which does not depend on x; computed once."""
        if self._scale is None:
            zero = zeros(self.n, self.data.weights, self.dtype)
            self._scale = norm(self.data.grad(zero))
        return self._scale

    def constants(self, x: Array, y: Array) -> Constants | None:
        """Return bounds that prove errors at (x, y), or None where there are none."""
        if isinstance(self.penalty, NoRidge):
            return None
        weights = self.penalty.weights(x, self.dtype)
        return constants_of(self.data, self.penalty, weights, y)

    def hess_block(self, x: Array, y: Array, index: Any) -> Any:
        """Return f_YY on an index, (k, k), or None: features are no array of the host."""
        weights, fixed, _ = self.penalty.at(x, self.dtype)
        if not self._columns.known or fixed is not None:
            return None
        block, count = self._columns.block(y, index), self.penalty.n_coefficients
        if isinstance(self.penalty, NoRidge):
            return block
        block, own = (
            block.copy(),
            np.append(np.asarray(weights), np.zeros(self.n - count)),
        )
        block[np.diag_indices_from(block)] += own[index]
        return block

    def majoriser(self) -> RidgeModel | None:
        """Return f with curvatures that bound it by parabolas; None where none is known."""
        if not isinstance(self.data.loss, Huber | Quantile):
            return None
        found = copy.copy(self)
        found.data = self.data.like()
        found.data.loss = Majoriser(self.data.loss)
        found._columns = Columns(found.data, self.shift)
        return found

    def dual_point(self, x: Array, y: Array, free: Array) -> LossDualPoint | None:
        """Return the dual point of the loss at y, None with a ridge."""
        return (
            dual_point(self.data, y, free)
            if isinstance(self.penalty, NoRidge)
            else None
        )
