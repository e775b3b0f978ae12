"""The data's part of the objective of a linear model, a function of the coefficients.

    value(y) = Σ_i w_i ℓ(z_i, t_i) / Σ_i w_i,        z = F c + b,   y = (c, b)

Value, gradient and curvature at one y share the predictor z.  Samples of weight zero do
not count, whatever their loss is: 0 · ∞ is no number.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np

from ..arrays import (
    Array,
    as_array,
    as_data,
    as_vector,
    copied,
    is_array,
    is_sparse,
    namespace,
    to_namespace,
)
from .design import Design, as_features, model_dtype
from .loss import Loss
from .loss_at import LossAt, quiet
from .losses import Squared


class DataTerm:
    """The weighted mean loss Σ w_i ℓ(z_i, t_i) / Σ w_i as a function of y."""

    def __init__(
        self,
        features: Any,
        targets: Any,
        loss: Loss,
        intercept: bool,
        weights: Any,
        outputs: int | None = None,
    ) -> None:
        features = as_features(features)
        n_samples = features.shape[0]
        if n_samples == 0:
            raise ValueError("features must have at least one row")
        dtype = model_dtype(features)
        self.loss = loss
        self.targets = loss.prepare(as_array("targets", targets), dtype, outputs)
        self.design = Design(features, intercept, loss.outputs(self.targets))
        explicit = features.data if is_sparse(features) else features
        xp = namespace(self.targets, *([explicit] if is_array(explicit) else []))
        if self.targets.shape[0] != n_samples:
            raise ValueError(
                f"targets must have {n_samples} entries like the rows of features, "
                f"found {self.targets.shape[0]}"
            )
        self.weighted = weights is not None
        if weights is None:  # a sum of 1/N in single precision, too
            weights = xp.ones(n_samples, dtype=dtype)
        weights = as_data("sample_weight", weights, dtype)
        self._weigh(as_vector("sample_weight", weights, n_samples))

    def _weigh(self, weights: Array) -> None:
        """Take these weights, scaled to a sum of one."""
        xp, dtype = namespace(weights), self.design.dtype
        self.total = float(xp.sum(weights))
        if not (bool(xp.all(weights >= 0.0)) and 0.0 < self.total < np.inf):
            raise ValueError("sample_weight must be finite, >= 0 and not all 0")
        self.weights = xp.asarray(weights / self.total, dtype=dtype)
        idle = self.weights == 0.0
        self._idle: Array | None = idle if bool(xp.any(idle)) else None
        self._memo: tuple[Array, Array] | None = None
        self._grad_memo: tuple[Array, Array] | None = None
        self._loss_at: LossAt | None = None

    def given_weights(self) -> Array:
        """Return the weights as they were given, ones without any."""
        return self.weights * self.total

    def like(
        self,
        *,
        weights: Array | None = None,
        targets: Any = None,
        prepared: Array | None = None,
    ) -> DataTerm:
        """Return a term of the same design with other weights, or other targets.

        ``prepared``: targets of another term.
        """
        term = copy.copy(self)
        term._memo = term._grad_memo = term._loss_at = None
        if weights is not None:
            term._weigh(weights)
        if targets is not None:
            prepared = self.loss.prepare(targets, self.design.dtype)
        if prepared is not None:
            term.targets = prepared
        return term

    def lacking(self) -> int | None:
        """Return the class, 0 or 1 of one output, that no sample with a weight has."""
        xp, loss = namespace(self.targets), self.loss
        low, high = getattr(loss, "mean_range", (-math.inf, math.inf))
        if not (math.isfinite(low) and math.isfinite(high)):
            return None
        ends = [(high, self.targets > low)]  # a class of several outputs, and class 1
        if self.targets.ndim == 1:
            ends.append((low, self.targets < high))
        for end, present in ends:
            missing = ~xp.any(self.counted(present, False), axis=0)
            if bool(xp.any(missing)):
                several = self.targets.ndim > 1
                return (
                    int(xp.argmax(xp.astype(missing, xp.int64)))
                    if several
                    else int(end)
                )
        return None

    def refuse_extreme_targets(self) -> None:
        """Refuse targets for which the intercept, not penalised, has no finite minimum."""
        xp, loss = namespace(self.targets), self.loss
        low, high = getattr(loss, "mean_range", (-math.inf, math.inf))
        for end, within in ((low, self.targets > low), (high, self.targets < high)):
            missing = ~xp.any(self.counted(within, False), axis=0)
            if bool(xp.any(missing)):
                several = f" for class {int(xp.argmax(xp.astype(missing, xp.int64)))}"
                raise ValueError(
                    f"targets must not all be {end:g}{several if missing.ndim else ''} "
                    "where sample_weight > 0: the intercept, which is not penalised, "
                    "has no finite minimum; give samples of each class, or "
                    "intercept=False"
                )

    def counted(self, per_sample: Array, otherwise: float = 0.0) -> Array:
        """Return what each sample has, zero where its weight is zero."""
        if self._idle is None:
            return per_sample
        idle = self._idle if per_sample.ndim == 1 else self._idle[:, None]
        xp = namespace(per_sample)
        return xp.where(idle, xp.full_like(per_sample, otherwise), per_sample)

    def predictor(self, y: Array) -> Array:
        """Return z at y; value, gradient and curvature at one y share it."""
        y = as_vector("y", y, self.design.n)
        memo = self._memo
        if memo is not None and bool(namespace(y).all(memo[0] == y)):
            return memo[1]
        with quiet():
            z = self.counted(self.design.forward(y))
        self._memo = (copied(y), z)
        return z

    def value(self, y: Array) -> float:
        """Return the weighted mean loss at y."""
        return self.at(self.predictor(y)).value

    def at(self, z: Array) -> LossAt:
        """Return the weighted losses at predictors z; the last ones are remembered."""
        if self._loss_at is None or self._loss_at.z is not z:
            counted = None if self._idle is None else self.counted
            self._loss_at = LossAt(self.loss, z, self.targets, self.weights, counted)
        return self._loss_at

    def slopes(self, z: Array) -> Array:
        """Return the slopes of the loss at z without weights, not to be written to."""
        return self.at(z).slopes

    def grad(self, y: Array) -> Array:
        """Return its gradient, shape (n,), a fresh array; the last one is remembered."""
        z, memo = self.predictor(y), self._grad_memo
        if memo is not None and memo[0] is z:
            return copied(memo[1])
        with quiet():
            grad = self.design.backward(self.at(z).slope)
        self._grad_memo = (z, grad)
        return copied(grad)

    def weight_slopes(self, y: Array, v: Array) -> Array:
        """Return v' ∂(gradient)/∂w_i for the weights w as they were given."""
        z = self.predictor(y) if self._idle is None else self.design.forward(y)
        return self.slopes_along(z, self.design.forward(v))

    def slopes_along(self, z: Array, z_v: Array) -> Array:
        """Return the same from the predictors of y and of v."""
        along = self.loss.slope(z, self.targets) * z_v
        along = along if along.ndim == 1 else namespace(z).sum(along, axis=1)
        return (along - self.weights @ self.counted(along)) / self.total

    def arguments(self, xp: Any) -> dict[str, Any]:
        """Return what made this term, its weights as given, in the namespace ``xp``."""
        weights = self.given_weights() if self.weighted else None
        return {
            "features": to_namespace(self.design.features, xp),
            "targets": to_namespace(self.targets, xp),
            "loss": self.loss,
            "intercept": self.design.intercept,
            "sample_weight": None if weights is None else to_namespace(weights, xp),
        }


def several_targets(targets: Any, loss: Loss) -> Array | None:
    """Return targets of two dimensions, of the loss that takes several; else None."""
    array = as_array("targets", targets)
    if array.ndim != 2 or not isinstance(loss, Squared):
        return None
    if not array.shape[1]:
        raise ValueError(f"targets must have a column, found shape {array.shape}")
    return array


def terms_of(data: DataTerm, several: Array | None) -> list[DataTerm]:
    """Return the term of each target; ``data`` is that of the first."""
    if several is None:
        return [data]
    rest = range(1, several.shape[1])
    return [data, *(data.like(targets=several[:, k]) for k in rest)]
