"""From the step to μ = 0 to one that keeps room: Mehrotra's corrector, then Gondzio's.

    w dz + z dw = (μ_aff / μ)³ μ − w z − dw_aff dz_aff

All of them share one factorisation.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ...arrays import dot, epsilon, namespace, norm
from .iterate import Central, Residuals, common, reach
from .newton_system import Direction, NewtonSystem

_CORRECTORS = 4


def corrected(
    now: Residuals, system: NewtonSystem, affine: Direction, least: float
) -> Direction:
    """Return the step to a smaller μ: centred, and corrected for the curvature of w z.

    References
    ----------
    S. Mehrotra, SIAM J. Optim. 2 (1992) 575-601.
    J. Gondzio, Comput. Optim. Appl. 6 (1996) 137-156.
    """
    point = now.point
    if point.w.shape[0] == 0:
        return affine
    alpha = common(point, affine)
    w, z = point.w + alpha * affine.w, point.z + alpha * affine.z
    ratio = max(dot(w, z), 0.0) / dot(point.w, point.z)
    target = max(ratio**3 * now.mu, least)
    c = target - point.w * point.z - affine.w * affine.z
    direction = system.solve(now.r_d, now.r_e, now.r_g, c)
    alpha = common(point, direction)
    xp = namespace(c)
    for _ in range(_CORRECTORS if system.factor is not None else 0):
        # Further on, w z should lie within [0.1, 10] of the target (Gondzio 1996).
        ahead = min(1.0, alpha + 0.3)
        product = (point.w + ahead * direction.w) * (point.z + ahead * direction.z)
        change = xp.clip(product, 0.1 * target, 10.0 * target) - product
        again = c + xp.maximum(change, -10.0 * target)
        other = system.solve(now.r_d, now.r_e, now.r_g, again)
        further = common(point, other)
        if not further >= alpha + 0.03:
            break
        c, direction, alpha = again, other, further
    return direction


def walk(
    now: Residuals, step: Direction, at: Callable[[Central], Residuals]
) -> Residuals | None:
    """Go along a direction: inside, and as far as the residuals fall.

    At first with lengths of their own for (y, w) and (ν, z), then with a common one.
    """
    point, keep = now.point, min(max(0.99, 1.0 - now.mu), 0.9999)
    primal = min(1.0, keep * reach(point.w, step.w))
    dual = min(1.0, keep * reach(point.z, step.z))
    rounding = 1e2 * epsilon(point.y) * (1.0 + norm(point.y) + norm(point.z))
    shortest = 1e-3 * epsilon(point.y) ** 0.5
    while primal >= shortest:
        new = at(
            Central(
                y=point.y + primal * step.y,
                nu=point.nu + dual * step.nu,
                z=point.z + dual * step.z,
                w=point.w + primal * step.w,
            )
        )
        sound = math.isfinite(new.size) and (
            new.value is None or math.isfinite(new.value)
        )
        alpha = min(primal, dual)
        allowed = max((1.0 - 0.01 * alpha) * now.size, 0.1 * new.mu, rounding)
        if sound and new.size <= allowed:
            return new
        primal = dual = alpha if primal != dual else 0.5 * alpha
    return None
