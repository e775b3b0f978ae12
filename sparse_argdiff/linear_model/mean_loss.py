"""The data's part of the objective of a linear model, a function of the coefficients.

    value(y) = Σ_i w_i ℓ(z_i, t_i) / Σ_i w_i,        z = F c + b,   y = (c, b)

Value, gradient and curvature at one y share the predictor z.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array, as_vector, dot, is_array, is_sparse, namespace, to_namespace
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
        if features.shape[0] == 0:
            raise ValueError("features must have at least one row")
        dtype = model_dtype(features)
        targets = np.asarray(targets) if isinstance(targets, list | tuple) else targets
        self.loss = loss
        self.targets = loss.prepare(targets, dtype, outputs)
        self.design = Design(features, intercept, loss.outputs(self.targets))
        explicit = features.data if is_sparse(features) else features
        xp = namespace(self.targets, *([explicit] if is_array(explicit) else []))
        n_samples = self.design.n_samples
        if self.targets.shape[0] != n_samples:
            raise ValueError(
                f"targets must have {n_samples} entries like the rows of features, "
                f"found {self.targets.shape[0]}"
            )
        self.total, self.weighted = float(n_samples), weights is not None
        if weights is None:
            self.weights = xp.full(n_samples, 1.0 / n_samples, dtype=dtype)
        else:
            weights = xp.asarray(weights, dtype=dtype)
            weights = as_vector("sample_weight", weights, n_samples)
            total = float(xp.sum(weights))
            if not (bool(xp.all(weights >= 0.0)) and 0.0 < total < np.inf):
                raise ValueError("sample_weight must be finite, >= 0 and not all 0")
            self.weights = xp.asarray(weights / total, dtype=dtype)
            self.total = total
        self._memo: tuple[Array, Array] | None = None
        self._grad_memo: tuple[Array, Array] | None = None

    def predictor(self, y: Array) -> Array:
        """Return z at y; value, gradient and curvature at one y share it."""
        if y.shape != (self.design.n,):
            raise ValueError(
                f"y must have shape ({self.design.n},), found shape {tuple(y.shape)}"
            )
        memo = self._memo
        if memo is not None and bool(namespace(y).all(memo[0] == y)):
            return memo[1]
        z = self.design.forward(y)
        self._memo = (namespace(y).asarray(y, copy=True), z)
        return z

    def value(self, y: Array) -> float:
        """Return the weighted mean loss at y."""
        return dot(self.weights, self.loss.value(self.predictor(y), self.targets))

    def grad(self, y: Array) -> Array:
        """Return its gradient, shape (n,), a fresh array; the last one is remembered."""
        xp, z = namespace(y), self.predictor(y)
        memo = self._grad_memo
        if memo is not None and memo[0] is z:
            return xp.asarray(memo[1], copy=True)
        slope = self.loss.slope(z, self.targets)
        weights = self.weights if slope.ndim == 1 else self.weights[:, None]
        grad = self.design.backward(slope * weights)  # a user's slope may be z itself
        self._grad_memo = (z, grad)
        return xp.asarray(grad, copy=True)

    def weight_slopes(self, y: Array, v: Array) -> Array:
        """Return v' ∂(gradient)/∂w_i for the weights w as they were given."""
        xp = namespace(y)
        along = self.loss.slope(self.predictor(y), self.targets)
        along = along * self.design.forward(v)
        along = along if along.ndim == 1 else xp.sum(along, axis=1)
        return (along - self.weights @ along) / self.total

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
