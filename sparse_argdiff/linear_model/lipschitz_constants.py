"""Bounds on the derivatives of a linear model for all y: the constants of error bounds.

The data term is convex, so that f_YY ≥ W = diag(e^x), the metric, where all of y is
penalised.  With ‖a_i‖² = Σ_j a_ij² / W_j for the rows of the design and weights w_i,

    L_YY = max|ℓ'''| Σ w_i ‖a_i‖³,    L_U = max|ℓ''| Σ v_i ‖a_i‖²,    L_XY = 1

An intercept is not penalised.  For the squared loss, of curvature 1,
(u + b)² ≥ (1 − s) b² − (1/s − 1) u² bounds f_YY by ½ W and 1 / (1 + 2ρ), ρ = Σ w_i ‖a_i‖²;
for other losses nothing is proven then.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..arrays import Array, dot, namespace
from ..problem.constants import Constants
from .losses import Squared
from .penalty import RidgePenalty


def constants_of(
    data: Any, penalty: RidgePenalty, weights: Array, y: Array
) -> Constants | None:
    """Return the constants of a data term with ridge weights at y, or None."""
    design, loss = data.design, data.loss
    third = getattr(loss, "third_bound", math.inf)
    if not (math.isfinite(third) and design.has_squares and penalty.m):
        return None
    if not weights.shape[0] or penalty.log_weights.row_norms is None:
        return None
    if design.intercept and not isinstance(loss, Squared):
        return None
    xp, count = namespace(y), penalty.n_coefficients
    share = 0.5 if design.intercept else 1.0
    W = share * weights
    free = xp.ones(y.shape[0] - count, dtype=y.dtype)
    with np.errstate(divide="ignore", over="ignore"):
        if design.intercept:
            rows = design.row_squares(xp.concatenate([share / W, 0.0 * free]))
            free = free / (1.0 + 2.0 * dot(data.weights, data.counted(rows)))
        metric = xp.concatenate([W, free])
        rows = design.row_squares(1.0 / metric)
        rows = data.counted(rows**1.5)
        hess = third * dot(data.weights, rows) if third else 0.0
    reach, longest = _reach(penalty, W * y[:count] ** 2)
    return Constants(
        convexity=1.0,
        hess_lipschitz=hess,
        cross=math.sqrt(reach) / share,
        cross_lipschitz=longest / share,
        metric=metric,
    )


def _reach(penalty: RidgePenalty, squares: Array) -> tuple[float, float]:
    """Return bounds on ‖Z' diag(√s)‖₂² and on the norms of the rows of Z, s = squares.

    Rows with a single one are orthogonal or the same; of others the Frobenius norm is
    taken.
    """
    xp, norms = namespace(squares), penalty.log_weights.row_norms
    assert norms is not None
    if isinstance(norms, float):
        return float(xp.max(penalty.gather(squares))), norms
    return dot(squares, norms * norms), float(xp.max(norms))


def lipschitz_of(data: Any, metric: Array) -> float:
    """Return L_U of a mean loss, infinite where the curvature is not bounded."""
    curvature = getattr(data.loss, "curvature_bound", math.inf)
    if not (math.isfinite(curvature) and data.design.has_squares):
        return math.inf
    with np.errstate(divide="ignore", over="ignore"):
        rows = data.design.row_squares(1.0 / metric)
    return float(curvature * dot(data.weights, data.counted(rows)))
