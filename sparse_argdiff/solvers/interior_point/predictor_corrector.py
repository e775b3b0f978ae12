"""Mehrotra's predictor-corrector direction with Gondzio's centrality correctors.

    w dz + z dw = (μ_aff / μ)³ μ − w z − dw_aff dz_aff

The predictor and all correctors share one factorisation.
"""

from __future__ import annotations

import math

from ...arrays import dot, epsilon, namespace, norm
from .iterate import (
    Direction,
    PrimalDualIterate,
    Residuals,
    common_step_length,
    evaluate,
    max_step_to_boundary,
)
from .newton_system import NewtonSystem

_CORRECTORS = 4


def mehrotra_step(system: NewtonSystem, affine: Direction, least: float) -> Direction:
    """Return the direction to a smaller μ, at least ``least``; ``affine`` aims at μ = 0.

    References
    ----------
    S. Mehrotra, SIAM J. Optim. 2 (1992) 575-601.
    J. Gondzio, Comput. Optim. Appl. 6 (1996) 137-156.
    """
    now, point = system.now, system.now.point
    if point.w.shape[0] == 0:
        return affine
    alpha = common_step_length(point, affine)
    w, z = point.w + alpha * affine.w, point.z + alpha * affine.z
    ratio = max(dot(w, z), 0.0) / dot(point.w, point.z)
    mu = max(ratio**3 * now.mu, least)
    c = mu - point.w * point.z - affine.w * affine.z
    direction = system.solve(c)
    n_hvp = direction.n_hvp
    alpha, xp = common_step_length(point, direction), namespace(c)
    for _ in range(_CORRECTORS if system.factor is not None else 0):
        # At a longer step, w z should lie within [0.1, 10] of the target.
        longer = min(1.0, alpha + 0.3)
        product = (point.w + longer * direction.w) * (point.z + longer * direction.z)
        change = xp.clip(product, 0.1 * mu, 10.0 * mu) - product
        corrected = system.solve(c + xp.maximum(change, -10.0 * mu))
        n_hvp += corrected.n_hvp
        length = common_step_length(point, corrected)
        if not length >= alpha + 0.03:
            break
        c = c + xp.maximum(change, -10.0 * mu)
        direction, alpha = corrected, length
    return direction._replace(n_hvp=n_hvp)


def take_step(now: Residuals, step: Direction) -> tuple[Residuals | None, int]:
    """Step along a direction, w and z positive, so far that the residuals fall.

    The first trial has lengths of its own for (y, w) and (ν, z), all others a common one.
    Returns the new point, None where there is none, and the number of evaluations.
    """
    point, keep = now.point, min(max(0.99, 1.0 - now.mu), 0.9999)
    primal = min(1.0, keep * max_step_to_boundary(point.w, step.w))
    dual = min(1.0, keep * max_step_to_boundary(point.z, step.z))
    rounding = 1e2 * epsilon(point.y) * (1.0 + norm(point.y) + norm(point.z))
    shortest, n_grad = 1e-3 * epsilon(point.y) ** 0.5, 0
    while primal >= shortest:
        trial = PrimalDualIterate(
            y=point.y + primal * step.y,
            nu=point.nu + dual * step.nu,
            z=point.z + dual * step.z,
            w=point.w + primal * step.w,
        )
        new, n_grad = evaluate(now.form, trial), n_grad + 1
        alpha = min(primal, dual)
        allowed = max((1.0 - 0.01 * alpha) * now.size, 0.1 * new.mu, rounding)
        if new.finite and math.isfinite(new.value or 0.0) and new.size <= allowed:
            return new, n_grad
        primal = dual = alpha if primal != dual else 0.5 * alpha
    return None, n_grad
