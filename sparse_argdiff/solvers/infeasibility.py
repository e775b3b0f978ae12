"""Rays that prove that a problem has no solution.

    infeasible   Eᵀ ν + G_Yᵀ z = 0,  z >= 0,   ν'e(y) + z'G(y) > 0           (Farkas)
    unbounded    f_Y'd < 0,  H d = 0,  E d = 0,  G_Y d <= 0

A sum of constraints that is affine and positive has no solution anywhere; where its
gradient is small but not zero, none within the distance that is tested.
"""

from __future__ import annotations

from typing import Any, Protocol

from ..arrays import Array, dot, namespace, norm
from ..operators.linear_operator import LinearOperator, aslinearoperator
from ..problem.optimality import row_norms
from .interior_point.standard_form import StandardForm

UNSOLVED = (
    "the linearised equality rows were not solved, nor shown to contradict each other: "
    "for products alone they are too ill-conditioned; give their Jacobian as an array or "
    "a sparse matrix, or combine the rows to better ones"
)


class Linearisation(Protocol):
    """What is known at a point: values of the rows, Jacobians and the gradient."""

    @property
    def grad(self) -> Array:
        """f_Y."""

    @property
    def E(self) -> Any:
        """Jacobian of the equalities, or None."""

    @property
    def J(self) -> Any:
        """Jacobian of the inequality rows, or None."""

    @property
    def r_e(self) -> Array:
        """The equalities."""

    @property
    def sides(self) -> Array:
        """All sides, feasible where <= 0."""


def contradiction(
    form: StandardForm, nu: Array, z: Array, at: Linearisation, reach: float
) -> str:
    """Name the constraints that these multipliers prove to contradict each other.

    The proof holds within the distance ``reach``; it is empty where there is none.
    """
    pull = form.back(at.J, z)
    if at.E is not None:
        pull = pull + aslinearoperator(at.E).T @ nu
    proof = dot(nu, at.r_e) + dot(z, at.sides)
    if not proof > reach * norm(pull):
        return ""
    xp = namespace(z)
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
        (where,) = xp.nonzero(forces > 1e-3 * most)
        where = where if index is None else index[where]
        named += [f"{what} {int(i)}" for i in where]
    some = ", ".join(named[:6]) + (", ..." if len(named) > 6 else "")
    size = proof / most
    return f"no y meets {some} at once: a weighted sum of them is off by {size:.2e}"


def contradict(left: Array, jac: Any, length: float, far: float = 1e6) -> bool:
    """Tell whether the least-squares rest of equality rows proves a contradiction.

    With the weights u = left / ‖rows‖², u'(left + J v) > 0 for all ‖v‖ < u'left / ‖J'u‖,
    which must be ``far`` times ``length``.
    """
    u = left / row_norms(jac, left) ** 2
    return dot(u, left) > far * length * norm(aslinearoperator(jac).T @ u)


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


def falls_forever(
    form: StandardForm, H: LinearOperator, y: Array, at: Linearisation
) -> bool:
    """Tell whether f falls along y itself, without curvature and without leaving."""
    d = y / norm(y)
    stays = bool(namespace(y).all(form.along(at.J, d) <= 1e-5))
    if at.E is not None:
        stays = stays and norm(aslinearoperator(at.E) @ d) <= 1e-5
    bend = abs(dot(d, H.matvec(d))) * norm(y)
    return stays and dot(at.grad, d) < 0.0 and bend <= 1e-3 * norm(at.grad)


def largest(values: Array) -> float:
    """Return the largest magnitude, 0 of nothing."""
    xp = namespace(values)
    return float(xp.max(xp.abs(values))) if values.shape[0] else 0.0
