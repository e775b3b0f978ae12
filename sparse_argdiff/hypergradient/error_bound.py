"""Bounds on the error of an inexact hypergradient, from constants that are true bounds.

With ‖·‖ in a diagonal metric W, f_YY ≥ μ W, and r = ∂f^U/∂y − f_YY λ at the point (y, λ):

    e = ‖f_Y‖ / μ                               ≥ ‖y − g(x)‖
    a = (‖r‖ + L_YY e ‖λ‖ + L_U e) / μ          ≥ ‖λ − λ*‖
    ‖z − ∇F‖₂ ≤ ‖f_XY‖ a + L_XY e (‖λ‖ + a) + L_X e

Split z − ∇F by (λ − λ*), (f_XY − f_XY*) and the direct term; f_YY* (λ − λ*) is
(f_YY* − f_YY) λ − r + (∂f^U/∂y − ∂f^U/∂y*), and ‖v‖ ≤ ‖f_YY* v‖ / μ.  Forces (f_Y, r) are
measured in W⁻¹.  No additional product with the Hessian is needed.
"""

from __future__ import annotations

import math

from ..arrays import Array, dot, epsilon, namespace, norm
from ..problem.constants import Constants
from .result import Bound, HypergradientResult

_ROUNDING = 100.0  # error of a computed residual, in units of rounding


def bound(
    constants: Constants,
    found: HypergradientResult,
    right_hand_side: Array,
    scale: float,
) -> Bound:
    """Return the bounds that ``constants`` prove for a value and a gradient.

    ``right_hand_side`` is ∂f^U/∂y, and ``scale`` the size of the terms that cancel in
    f_Y: rounding is relative to it.

    References
    ----------
    M. J. Ehrhardt, L. Roberts, "Analyzing inexact hypergradients for bilevel learning",
    IMA J. Appl. Math. 89 (2024) 254-278, here in a metric, with all terms.
    """
    c, adjoint = constants, found.adjoint.adjoint
    W, xp = c.metric, namespace(adjoint)
    least = 1.0 if W is None else float(xp.min(W)) if W.shape[0] else 1.0
    if not (c.convexity > 0.0 and least > 0.0):
        return Bound()
    unit = _ROUNDING * epsilon(adjoint)

    def force(v: Array) -> float:
        return math.sqrt(dot(v, v if W is None else v / W))

    size = math.sqrt(dot(adjoint, adjoint if W is None else W * adjoint))
    assert found.solution.residual is not None
    e = force(found.solution.residual) + unit * scale / math.sqrt(least)
    e /= c.convexity
    r = force(found.adjoint.krylov.residual) + unit * force(right_hand_side)
    curved = _times(c.upper_lipschitz, e) + _times(c.hess_lipschitz, e * size)
    a = (r + curved) / c.convexity
    error = (
        _times(c.cross, a)
        + _times(c.cross_lipschitz, e * (size + a))
        + _times(c.direct_lipschitz, e)
        + unit * (norm(found.adjoint.x) + norm(found.gradient - found.adjoint.x))
    )
    value_error = r * e + 0.5 * curved * e + unit * abs(found.value)
    known = math.isfinite(error) and math.isfinite(value_error)
    return Bound(value_error, error) if known else Bound()


def _times(constant: float, size: float) -> float:
    """Return the product, zero for an unknown constant times zero."""
    return constant * size if size > 0.0 else 0.0
