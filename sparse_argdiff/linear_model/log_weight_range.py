"""Between which log-weights a penalty changes anything.

    log(ε d_j) ≤ η_j ≤ log(d_j / ε),        d_j = Σ_i w_i ℓ'' F_ij²

ε: the rounding unit.  d_j is the curvature of the loss along coefficient j, with the
largest ℓ'' there is, or that at z = 0 where it is not bounded.
"""

from __future__ import annotations

import math

import numpy as np

from ..arrays import Array, dot, epsilon, namespace, zeros
from ..operators.probes import random_signs
from .mean_loss import DataTerm


def log_weight_range(terms: list[DataTerm]) -> tuple[Array, Array]:
    """Return the least and the largest η of each coefficient, (p K,) each.

    Of several terms, which share features and weights, the first decides.
    """
    data = terms[0]
    curvature = _curvature(data)
    xp, unit = namespace(curvature), -math.log(epsilon(curvature))
    with np.errstate(divide="ignore"):
        level = xp.log(curvature)
    empty = curvature <= 0.0
    infinite = xp.full_like(level, math.inf)
    return (
        xp.where(empty, -infinite, level - unit),
        xp.where(empty, infinite, level + unit),
    )


def _curvature(data: DataTerm) -> Array:
    """Return d (p K,): exact where the squares of the features are known."""
    design, bound = data.design, getattr(data.loss, "curvature_bound", math.inf)
    zero = zeros(design.n, data.weights, design.dtype)
    if math.isfinite(bound):
        diagonal = bound * data.weights
        if design.outputs > 1:
            ones = namespace(zero).ones(design.outputs, dtype=design.dtype)
            diagonal = diagonal[:, None] * ones
    else:
        z = data.predictor(zero)
        diagonal = data.loss.curvature(z, data.targets, data.weights).diagonal
    count = design.n_coefficients
    if design.has_squares:
        return design.squares(diagonal)[:count]
    # v'H v / v'v is the mean of the diagonal, on average; the intercept is none of it.
    v = random_signs(design.n, zero, 0)
    v[count:] = 0.0
    product = design.backward(diagonal * design.forward(v))[:count]
    mean = abs(dot(v[:count], product)) / (dot(v, v) or 1.0)
    return namespace(zero).full_like(zero[:count], mean)
