"""One Newton step on the perturbed optimality conditions of a standard form.

    [ H + Σ_b   Eᵀ   Jᵀ   ] [dy ]            Σ_b = diag(z / w) of the bounds
    [ E         0    0    ] [dν ] = rhs
    [ J         0   −w/z  ] [dz_J]

factorised where H, E and J are explicit; otherwise dz_J is eliminated, which leaves
H + Σ_b + Jᵀ (z/w) J for CG, or CG in the null space of E.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from ...arrays import Array, namespace
from ...krylov import KrylovResult
from ...krylov.saddle_point import SaddlePoint, null_space_of
from ...operators.block_matrices import diagonal_operator, gram
from ...operators.linear_operator import aslinearoperator
from ...preconditioners import jacobi_of
from ...problem.lagrangian import explicit
from ...status import Status
from .ldl_factor import Factor
from .standard_form import StandardForm


class Direction(NamedTuple):
    """A step in y, the multipliers ν and z, and the slacks w."""

    y: Array
    nu: Array
    z: Array
    w: Array


class NewtonSystem:
    """The matrix above at one point: set up once, solved for several right-hand sides.

    Parameters
    ----------
    H : sparse matrix or LinearOperator
        Hessian of the Lagrangian in the units of the form.
    E, J : matrix, operator or None
        Jacobians of the equalities and of the inequality rows.
    w, z : array
        Slacks and multipliers of all sides, positive.
    shift : float
        Added to the diagonal of H, against negative curvature.
    rows : object, optional
        The projections on E, where they are known already.
    """

    def __init__(
        self,
        form: StandardForm,
        H: Any,
        E: Any,
        J: Any,
        w: Array,
        z: Array,
        shift: float,
        rtol: float,
        rows: Any = None,
    ) -> None:
        self.form, self.E, self.J, self.w, self.z = form, E, J, w, z
        self.rtol, self.n_hvp = rtol, 0
        self.bends_down = False  # whether negative curvature was met
        self.knows = E is not None  # that it is in the null space of E which counts
        self.direction: Array | None = None  # of it, where CG met it
        self.ratio = z / w
        sigma = form.bound_diagonal(self.ratio) + shift
        self.operator = aslinearoperator(H) + diagonal_operator(sigma)
        if J is not None:
            self.operator = self.operator + gram(J, self.ratio[: form.q])
        self.factor = None
        parts = [part for part in (E, J) if part is not None]
        if explicit(w, H, *parts):
            top = sparse.csr_array(H) + sparse.diags_array(sigma)
            C = (
                sparse.vstack([sparse.csr_array(part) for part in parts], format="csr")
                if parts
                else sparse.csr_array((0, H.shape[0]))
            )
            D = np.r_[
                np.zeros(0 if E is None else E.shape[0]), 1.0 / self.ratio[: form.q]
            ]
            self.factor = Factor(top, C, D)
            self.knows = self.factor.shows_inertia
            self.bends_down = self.factor.bends_down()
        elif E is None:
            self.saddle = SaddlePoint(self.operator, M=jacobi_of(self.operator))
        else:
            # CG in the null space also where E is known by products: MINRES on the
            # whole system loses the digits of a large z / w.
            rows = null_space_of(E) if rows is None else rows
            self.saddle = SaddlePoint(self.operator, rows, method="projected_cg")

    def solve(self, r_d: Array, r_e: Array, r_g: Array, c: Array) -> Direction:
        """Return the step with w dz + z dw = c that cancels the residuals."""
        form, q = self.form, self.form.q
        push = c / self.w + self.ratio * r_g
        bounds_only = namespace(push).concat([0.0 * push[:q], push[q:]])
        if self.factor is not None:
            rhs = [
                -r_d - form.back(self.J, bounds_only),
                -r_e,
                -(push / self.ratio)[:q],
            ]
            found = self.factor.solve(np.concatenate(rhs))
            found = found.astype(r_d.dtype, copy=False)
            n, p = r_d.shape[0], r_e.shape[0]
            dy, dnu = found[:n], found[n : n + p]
        else:
            dy, dnu = self._iterate(-r_d - form.back(self.J, push), -r_e)
        along = form.along(self.J, dy)
        dz = push + self.ratio * along
        if self.factor is not None and q:
            # The factorisation's own, which do not cancel where w is tiny.
            dz[:q] = found[n + p :]
        return Direction(dy, dnu, dz, -r_g - along)

    def _iterate(self, force: Array, c: Array) -> tuple[Array, Array]:
        rhs = force if self.E is None else namespace(force).concat([force, c])
        result = self.saddle.solve(rhs, rtol=self.rtol)
        self._observe(result)
        n = force.shape[0]
        return result.x[:n], c if self.E is None else result.x[n:]

    def probe(self) -> None:
        """Look for negative curvature by a few products, where nothing is factorised."""
        self._observe(self.saddle.probe(self.w))

    def _observe(self, result: KrylovResult) -> None:
        self.n_hvp += result.n_matvec
        if result.status is Status.NEGATIVE_CURVATURE:
            self.bends_down, self.direction = True, result.direction

    def inverse(self, p: Array) -> Array:
        """Return the part in y of the inverse times (p, 0), where it is factorised."""
        assert self.factor is not None
        rest = self.factor.size - p.shape[0]
        found = self.factor.solve(np.concatenate([p, np.zeros(rest)]))
        return found[: p.shape[0]].astype(p.dtype, copy=False)

    def curvature(self, dy: Array) -> float:
        """Return dy' (H + Σ + J' (z/w) J) dy."""
        self.n_hvp += 1
        return float(dy @ self.operator.matvec(dy))
