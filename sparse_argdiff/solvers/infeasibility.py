"""Certificates that a problem has no solution: Farkas multipliers, and a ray of descent.

    infeasible   Eᵀ ν + G_Yᵀ z = 0,  z >= 0,   ν'e(y) + z'G(y) > 0           (Farkas)
    unbounded    f_Y'd < 0,  H d = 0,  E d = 0,  G_Y d <= 0

A sum of constraints that is affine and positive has no solution anywhere; where its
gradient is small but not zero, none within the distance that is tested.
"""

from __future__ import annotations

import math
from typing import Any

from ..arrays import Array, dot, epsilon, namespace, norm
from ..operators.linear_operator import LinearOperator, aslinearoperator
from ..problem.optimality import row_norms, size_of
from ..status import Status
from .interior_point.iterate import Residuals, largest

UNSOLVED = (
    "the linearised equality rows were not solved, nor shown to contradict each other: "
    "for products alone they are too ill-conditioned; give their Jacobian as an array or "
    "a sparse matrix, or combine the rows to better ones"
)


def detect_infeasible_or_unbounded(
    now: Residuals, tol: float, far: float = 1e6
) -> tuple[Status | None, str, int]:
    """Return INFEASIBLE, UNBOUNDED or None, the proof in words and the products it took.

    The multipliers of the iterate must prove a contradiction within ``far`` times the
    largest length around.
    """
    form, length = now.form, size_of(now.point.y)
    if now.violation > tol * length:
        worst = max(largest(now.r_e), largest(now.inequality_values), length)
        proof = contradiction(now, far * max(worst, 1.0))
        if proof:
            return Status.INFEASIBLE, proof, 0
    if largest(now.point.y - form.y0) > 1e6 and now.error > tol:
        H = form.problem.hess(form.x, now.point.y)
        return (Status.UNBOUNDED if falls_forever(H, now) else None), "", 1
    return None, "", 0


def contradiction(now: Residuals, radius: float) -> str:
    """Name the constraints that the multipliers prove to contradict each other.

    The proof holds within a distance; it is empty where there is none.
    """
    form, nu, z = now.form, now.point.nu, now.point.z
    pull = form.inequality_vjp(now.J, z)
    if now.E is not None:
        pull = pull + aslinearoperator(now.E).T @ nu
    xp, values = namespace(z), now.inequality_values
    proof = dot(nu, now.r_e) + dot(z, values)
    # Of rows of length one, whose terms are as large as y and the values.
    reach = max(largest(now.point.y), largest(now.r_e), largest(values))
    weight = float(xp.sum(xp.abs(nu)) + xp.sum(xp.abs(z)))
    rounding = 32.0 * epsilon(z) * weight * reach
    if not proof > radius * norm(pull) + rounding:
        return ""
    rows, low, high = form.split(z)
    most = max(largest(nu), largest(z))
    named = []
    for what, forces, index in (
        ("equality row", xp.abs(nu[: form.p]), None),
        ("variable with lower = upper", xp.abs(nu[form.p :]), form.fixed),
        ("inequality row", rows, None),
        ("lower bound", low, form.at_lower),
        ("upper bound", high, form.at_upper),
    ):
        where: Any
        (where,) = xp.nonzero(forces > 1e-3 * most)
        where = where if index is None else index[where]
        named += [f"{what} {int(i)}" for i in where]
    some = ", ".join(named[:6]) + (", ..." if len(named) > 6 else "")
    size = proof / most
    return f"no y meets {some} at once: a weighted sum of them is off by {size:.2e}"


def contradict(left: Array, rows: Any, length: float, far: float = 1e6) -> bool:
    """Tell whether the least-squares rest of equality rows proves a contradiction.

    With the weights u = left / ‖rows‖², u'(left + J v) > 0 for all ‖v‖ < u'left / ‖J'u‖,
    which must be ``far`` times ``length``; ``rows`` are the projections on J.
    """
    u = left / rows.row_lengths**2
    return dot(u, left) > far * length * norm(rows.C.T @ u)


def name_row(left: Array, jac: Any, affine: bool) -> str:
    """Say which equality row cannot be met, and by how much."""
    xp = namespace(left)
    worst = int(xp.argmax(xp.abs(left) / row_norms(jac, left)))
    off = f"row {worst} stays off by {float(left[worst]):.2e}"
    if affine:
        return (
            f"the equality rows contradict each other: in the least-squares sense {off}"
        )
    return f"the equality rows cannot be met near this point: {off}"


def falls_forever(H: LinearOperator, now: Residuals) -> bool:
    """Tell whether f falls along y itself, without curvature and without leaving."""
    if now.form.problem.has_minimiser(now.form.x):
        return False
    y = now.point.y
    d = y / norm(y)
    stays = bool(namespace(y).all(now.form.inequality_jvp(now.J, d) <= 1e-5))
    if now.E is not None:
        stays = stays and norm(aslinearoperator(now.E) @ d) <= 1e-5
    curvature = abs(dot(d, H.matvec(d))) * norm(y)
    falls = dot(now.grad, d) < -math.sqrt(epsilon(y)) * norm(now.grad)
    return stays and falls and curvature <= 1e-3 * norm(now.grad)
