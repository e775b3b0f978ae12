"""Why conjugate gradients have no next step along p, by ρ = r'M r and the curvature p'A p.

ρ <= 0            M is indefinite
p'A p < 0         so is A, and p is a direction of negative curvature
p'A p = 0         A is singular, ‖A p‖ = 0, or indefinite
"""

from __future__ import annotations

import math

from ..arrays import Array, namespace
from ..operators.linear_operator import LinearOperator
from ..status import Status


def breakdown(
    p: Array,
    q: Array,
    rho: float,
    p_square: float,
    largest: float,
    unit: float,
    M: LinearOperator | None,
) -> tuple[Status, Array | None, int]:
    """Return the cause, p if it is the reason, and the products with A that were lost.

    Parameters
    ----------
    p, q : array (n,)
        The direction and A p.
    rho : float
        r'M r.
    p_square : float
        ‖p‖² in the metric of M⁻¹.
    largest : float
        The largest quotient p'A p / ‖p‖² so far.
    unit : float
        Relative accuracy of a product.
    M : operator (n, n), optional
        The preconditioner.
    """
    if not 0.0 < rho < math.inf:
        finite = math.isfinite(rho)
        status = Status.INDEFINITE_PRECONDITIONER if finite else Status.NOT_FINITE
        return status, None, 0
    quotient = float(p @ q) / p_square
    if not math.isfinite(quotient):
        return Status.NOT_FINITE, None, 1
    flat = 10.0 * unit * largest
    if quotient > flat:  # a step so short that it is none
        return Status.STAGNATED, None, 1
    status = Status.NEGATIVE_CURVATURE
    if quotient >= -flat:
        image = q if M is None else M @ q
        square = max(float(q @ image), 0.0)  # ‖A p‖² in the metric of M
        largest = max(largest, math.sqrt(square / p_square))
        status = flat_status(square, float(p @ q), p_square, largest, unit)
    return status, namespace(p).asarray(p, copy=True), 1


def flat_status(
    image_square: float, curvature: float, p_square: float, a_norm: float, unit: float
) -> Status:
    """Say what p'A p = 0 means: a definite A has ‖A p‖² ≤ ‖A‖ p'A p, to rounding.

    So A is singular where A p vanishes too, and indefinite where it does not.  With M
    these are ‖A p‖_M, ‖p‖ in the metric of M⁻¹ and the norm of A in both.
    """
    noise = abs(curvature) + unit * a_norm * p_square
    definite = image_square <= 1e3 * a_norm * noise
    return Status.SINGULAR if definite else Status.NEGATIVE_CURVATURE
