"""The dual of a linear model's loss: conjugates and the point that the slopes give.

    Σ_i w_i ℓ_i(z_i) = max_u Σ_i w_i (u_i z_i − ℓ_i*(u_i)),     force = − F'(w u)

    squared   ½ u² + t u                     huber        the same for |u| ≤ δ
    logistic  p log p + (1−p) log(1−p)       multinomial  Σ_k p_k log p_k       p = u + t
    poisson   m log m − m,  m = u + t            gamma    u (1 + log t) + (1−u) log(1−u)
    quantile  t u + δ (p log p + (1−p) log(1−p)),  p = u + τ

What is free of a penalty needs a force of exactly zero: u is projected.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from ..arrays import Array, dot, epsilon, namespace
from .losses import Gamma, Huber, Logistic, Poisson, Quantile, Squared
from .mean_loss import DataTerm
from .multinomial import Multinomial

_KNOWN = Squared | Logistic | Poisson | Gamma | Huber | Quantile | Multinomial


@dataclasses.dataclass(frozen=True)
class LossDualPoint:
    """A direction u of the dual, feasible where the penalty leaves coefficients free.

    Attributes
    ----------
    force : array (n,)
        − F'(w u), zero where free.
    lengths : array (n,) or None
        (L Σ_i w_i x_ij²)^½ with L the bound of ℓ''; None where there is none.
    terms : int
        The number of samples.
    """

    data: DataTerm
    slopes: Array
    force: Array
    lengths: Array | None
    terms: int

    @property
    def rounding(self) -> Array | None:
        """By how much rounding may change each force: 4 ε ‖x_j‖ (Σ w u²)^½."""
        if self.lengths is None:
            return None
        squares = self.slopes**2
        total = (
            squares if squares.ndim == 1 else namespace(squares).sum(squares, axis=1)
        )
        size = math.sqrt(dot(self.data.weights, total))
        return 4.0 * epsilon(self.lengths) * size * self.lengths

    def conjugate(self, scale: float) -> float:
        """Return Σ w_i ℓ_i*(scale · u_i), infinite outside the domain."""
        data = self.data
        found = _conjugates(data.loss, scale * self.slopes, data.targets)
        return dot(data.weights, data.counted(found))


def dual_point(data: DataTerm, y: Array, free: Array) -> LossDualPoint | None:
    """Return the dual point of the slopes at y; None where none is known.

    ``free`` (n,) marks what the penalty does not hold.
    """
    loss = data.loss
    if not isinstance(loss, _KNOWN):
        return None
    xp, design = namespace(y), data.design
    slopes: Any = data.slopes(data.predictor(y))
    zero = xp.zeros_like(y)
    others = free[: design.n_coefficients]
    if design.intercept and design.outputs == 1 and not bool(xp.any(others)):
        slopes = data.counted(slopes - dot(data.weights, slopes))
    elif bool(xp.any(free)):
        slopes = _projected(data, slopes, free)
        if slopes is None:
            return None
    if slopes is data.slopes(data.predictor(y)):
        force = -data.grad(y)
    else:
        weights = data.weights if slopes.ndim == 1 else data.weights[:, None]
        force = -design.backward(slopes * weights)
    force = xp.where(free, zero, force)
    bound = getattr(loss, "curvature_bound", 1.0 if isinstance(loss, Huber) else None)
    lengths = None
    if bound is not None and design.has_squares:
        lengths = xp.sqrt(bound * _squares(data))
    return LossDualPoint(data, slopes, force, lengths, design.n_samples)


def _projected(data: DataTerm, slopes: Any, free: Any) -> Any:
    """Return u with F_S'(w u) = 0 for the free columns, the least change of it."""
    if not isinstance(slopes, np.ndarray) or not data.design.has_squares:
        return None
    design = data.design
    (index,) = np.nonzero(free)
    if index.shape[0] > design.n_samples:
        return None
    found = slopes.copy()
    K, count = design.outputs, design.n_coefficients
    root = np.sqrt(np.asarray(data.weights))
    for k in range(K):
        chosen = index[np.where(index < count, index % K, index - count) == k]
        columns = np.where(chosen < count, chosen // K, design.n_features)
        F = _dense_columns(design, columns) * root[:, None]
        own = found if found.ndim == 1 else found[:, k]
        part, *_ = np.linalg.lstsq(F, root * own, rcond=None)
        with np.errstate(divide="ignore", invalid="ignore"):
            own -= np.where(root > 0.0, (F @ part) / root, 0.0)
    if K > 1:  # a shift of all classes is no shift of the probabilities
        found -= found.mean(axis=1, keepdims=True)
    return found


def _dense_columns(design: Any, columns: Any) -> Any:
    features = design.features
    kept = columns[columns < design.n_features]
    found = features[:, kept]
    found = found.toarray() if hasattr(found, "toarray") else np.asarray(found)
    if kept.shape[0] < columns.shape[0]:
        found = np.hstack([found, np.ones((found.shape[0], 1))])
    return found


def _squares(data: DataTerm) -> Array:
    """Return Σ_i w_i (x_ij − x̄_j)² per coefficient, centred where there is an intercept."""
    memo: Array | None = getattr(data, "_column_squares", None)
    if memo is not None:
        return memo
    design, xp = data.design, namespace(data.weights)
    weights = data.weights
    if design.outputs > 1:
        weights = weights[:, None] + xp.zeros_like(data.targets)
    found = design.squares(weights)
    if design.intercept:
        means = design.backward(weights)
        found = found - means * means
        found = xp.where(found > 0.0, found, xp.zeros_like(found))
    data._column_squares = found  # type: ignore[attr-defined]
    return found


def _conjugates(loss: Any, u: Array, targets: Array) -> Array:
    """Return ℓ* per sample."""
    xp = namespace(u)
    if isinstance(loss, Squared):
        return u * (0.5 * u + targets)
    if isinstance(loss, Huber):
        beyond = xp.abs(u) > loss.delta * (1.0 + 1e-12)
        return xp.where(beyond, xp.full_like(u, math.inf), u * (0.5 * u + targets))
    if isinstance(loss, Gamma):
        return u * (1.0 + xp.log(targets)) + _entropy(1.0 - u)
    if isinstance(loss, Quantile):
        p = u + loss.level
        return targets * u + loss.width * (_entropy(p) + _entropy(1.0 - p))
    p = u + targets
    if isinstance(loss, Poisson):
        return _entropy(p) - p
    if isinstance(loss, Multinomial):
        return xp.sum(_entropy(p), axis=1)
    return _entropy(p) + _entropy(1.0 - p)


def _entropy(p: Array) -> Array:
    """Return p log p, 0 at 0, infinite below but for rounding."""
    xp = namespace(p)
    positive = p > 0.0
    found = p * xp.log(xp.where(positive, p, xp.ones_like(p)))
    below = p < -1e-12 if p.dtype == np.float64 else p < -1e-5
    return xp.where(below, xp.full_like(p, math.inf), found)
