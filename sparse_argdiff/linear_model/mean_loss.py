"""The data's part of the objective of a linear model, a function of the coefficients.

    value(y) = Σ_i w_i ℓ(z_i, t_i) / Σ_i w_i,        z = F c + b,   y = (c, b)

Value, gradient and curvature at one y share the predictor z.  Samples of weight zero do
not count, whatever their loss is: 0 · ∞ is no number.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..arrays import (
    Array,
    as_array,
    as_data,
    as_vector,
    copied,
    dot,
    epsilon,
    is_array,
    is_sparse,
    namespace,
    to_namespace,
)
from .design import Design, as_features, model_dtype
from .losses import Loss


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
        self.total, self.weighted = float(n_samples), weights is not None
        if weights is None:
            self.weights = xp.full(n_samples, 1.0 / n_samples, dtype=dtype)
        else:
            weights = as_data("sample_weight", weights, dtype)
            weights = as_vector("sample_weight", weights, n_samples)
            self.total = float(xp.sum(weights))
            if not (bool(xp.all(weights >= 0.0)) and 0.0 < self.total < np.inf):
                raise ValueError("sample_weight must be finite, >= 0 and not all 0")
            self.weights = xp.asarray(weights / self.total, dtype=dtype)
        idle = self.weights == 0.0
        self._idle: Array | None = idle if bool(xp.any(idle)) else None
        self._memo: tuple[Array, Array] | None = None
        self._grad_memo: tuple[Array, Array] | None = None

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
        with _unbounded():
            z = self.counted(self.design.forward(y))
        self._memo = (copied(y), z)
        return z

    def value(self, y: Array) -> float:
        """Return the weighted mean loss at y."""
        with _unbounded():
            losses = self.counted(self.loss.value(self.predictor(y), self.targets))
            return dot(self.weights, losses)

    def grad(self, y: Array) -> Array:
        """Return its gradient, shape (n,), a fresh array; the last one is remembered."""
        z, memo = self.predictor(y), self._grad_memo
        if memo is not None and memo[0] is z:
            return copied(memo[1])
        with _unbounded():
            slope = self.counted(self.loss.slope(z, self.targets))
            weights = self.weights if slope.ndim == 1 else self.weights[:, None]
            # A fresh product: a user's slope may be z itself.
            grad = self.design.backward(slope * weights)
        self._grad_memo = (z, grad)
        return copied(grad)

    def kinks(self, y: Array) -> str:
        """Say how many samples are where the curvature of the loss jumps, to half the digits.

        Empty without any, and for losses that are twice differentiable.
        """
        distances = getattr(self.loss, "kinks", None)
        if distances is None:
            return ""
        z = self.predictor(y)
        near = distances(z, self.targets) <= math.sqrt(epsilon(z))
        count = int(namespace(z).count_nonzero(near & (self.weights > 0.0)))
        if count == 0:
            return ""
        return (
            f"{count} samples are at a kink of the slope of the loss, where its curvature "
            "jumps: the derivative is one-sided there"
        )

    def weight_slopes(self, y: Array, v: Array) -> Array:
        """Return v' ∂(gradient)/∂w_i for the weights w as they were given."""
        z = self.predictor(y) if self._idle is None else self.design.forward(y)
        along = self.loss.slope(z, self.targets) * self.design.forward(v)
        along = along if along.ndim == 1 else namespace(y).sum(along, axis=1)
        return (along - self.weights @ self.counted(along)) / self.total

    def arguments(self, xp: Any) -> dict[str, Any]:
        """Return what made this term, its weights as given, in the namespace ``xp``."""
        weights = self.weights * self.total if self.weighted else None
        return {
            "features": to_namespace(self.design.features, xp),
            "targets": to_namespace(self.targets, xp),
            "loss": self.loss,
            "intercept": self.design.intercept,
            "sample_weight": None if weights is None else to_namespace(weights, xp),
        }


def _unbounded() -> Any:
    """Let a trial point overflow without a warning: infinities are seen by the solver."""
    return np.errstate(over="ignore", invalid="ignore")
