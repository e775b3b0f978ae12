"""The Newton system of the perturbed optimality conditions at one iterate.

    [ H + Σ_b   Eᵀ   Jᵀ   ] [dy ]            Σ_b = diag(z / w) of the bounds
    [ E         0    0    ] [dν ] = rhs
    [ J         0   −w/z  ] [dz_J]

is factorised where H, E and J are explicit; otherwise dz_J is eliminated, which leaves
the saddle point system of H + Σ_b + Jᵀ (z/w) J and E for ``krylov.saddle_point``.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from scipy import sparse

from ...arrays import Array, namespace, norm
from ...krylov.ldl_factor import LDLFactor
from ...krylov.saddle_point import SaddlePoint
from ...operators.block_matrices import (
    diagonal_operator,
    gram,
    is_factorable,
)
from ...operators.linear_operator import LinearOperator, aslinearoperator
from ...operators.probes import diagonal_estimate
from ...preconditioners.jacobi import jacobi_where_definite
from ...status import Status
from .iterate import Direction, Residuals, evaluate


class NewtonSystem:
    """The matrix above: set up once, solved for several right-hand sides.

    Parameters
    ----------
    now : Residuals
        Where the conditions are linearised.
    H : sparse matrix or LinearOperator
        Hessian of the Lagrangian in the units of the form.
    rtol : float
        Of the iterative solves.
    shift : float
        Added to the diagonal of H, against negative curvature.

    Attributes
    ----------
    factor : LDLFactor or None
    n_hvp : int
        Products that the set-up took.
    """

    def __init__(self, now: Residuals, H: Any, rtol: float, shift: float = 0.0) -> None:
        form, E, J = now.form, now.E, now.J
        self.now, self.rtol = now, rtol
        self.ratio = now.point.z / now.point.w
        sigma = form.bound_diagonal(self.ratio) + shift
        smooth: LinearOperator = aslinearoperator(H)
        if J is not None:
            smooth = smooth + gram(J, self.ratio[: form.q])
        self.operator: LinearOperator = smooth + diagonal_operator(sigma)
        self.factor: LDLFactor | None = None
        self.n_hvp = 0
        rows = [part for part in (E, J) if part is not None]
        if is_factorable(now.point.y, H, *rows):
            top = sparse.csr_array(H) + sparse.diags_array(sigma)
            empty = sparse.csr_array((0, top.shape[0]))
            C = sparse.vstack([empty, *map(sparse.csr_array, rows)], format="csr")
            D = np.r_[np.zeros(now.r_e.shape[0]), 1.0 / self.ratio[: form.q]]
            self.factor = LDLFactor(top, C, D)
        else:
            self.saddle = self._saddle_point(aslinearoperator(H), smooth, sigma)

    def _saddle_point(
        self, H: LinearOperator, smooth: LinearOperator, sigma: Array
    ) -> SaddlePoint:
        """Return the system by products, with H replaced by a diagonal as preconditioner.

        The preconditioner has the rows J as they are where it can be factorised, else
        their squares. Projected CG also where E is large and known by products: MINRES
        on the whole system loses the digits of a large z / w.
        """
        E, J, form = self.now.E, self.now.J, self.now.form
        with_rows = E is None and J is not None and is_factorable(sigma, J)
        d, self.n_hvp = diagonal_estimate(H if with_rows else smooth, sigma)
        M = None if d is None else jacobi_where_definite(d + sigma)
        if E is None:
            if M is not None and with_rows:
                M = factorised(M, J, self.ratio[: form.q])
            return SaddlePoint(self.operator, M=M)
        rows = None if M is None else form.entries(E)
        if rows is not None:
            return SaddlePoint(self.operator, rows, M, method="projected_cg")
        return SaddlePoint(self.operator, form.null_space(E), method="projected_cg")

    def solve(self, c: Array, now: Residuals | None = None) -> Direction:
        """Return the step with w dz + z dw = c that cancels the residuals, here or others."""
        now, form = now or self.now, self.now.form
        n, p, q = now.r_d.shape[0], now.r_e.shape[0], form.q
        push, n_hvp = c / self.now.point.w + self.ratio * now.r_g, 0
        if self.factor is None:
            force = -now.r_d - form.inequality_vjp(now.J, push)
            rhs = force if now.E is None else namespace(force).concat([force, -now.r_e])
            found = self.saddle.solve(rhs, rtol=self.rtol)
            solved, n_hvp = found.x, found.n_matvec
            indefinite = found.status is Status.NEGATIVE_CURVATURE
        else:
            of_bounds = namespace(push).concat([0.0 * push[:q], push[q:]])
            force = -now.r_d - form.inequality_vjp(now.J, of_bounds)
            rhs = np.concatenate([force, -now.r_e, -(push / self.ratio)[:q]])
            solved = self.factor.solve(rhs).astype(force.dtype, copy=False)
            indefinite = self.factor.negative_curvature
        # Without E the rows of -r_e are empty, and so is dν.
        dy, dnu = solved[:n], solved[n : n + p]
        along = form.inequality_jvp(now.J, dy)
        dz = push + self.ratio * along
        if self.factor is not None:
            # The factorisation's own dz_J is free of cancellation where w is tiny.
            dz[:q] = solved[n + p :]
        return Direction(dy, dnu, dz, -now.r_g - along, n_hvp, indefinite)

    def second_order_correction(self, step: Direction) -> Direction:
        """Return what brings the rows back to the values that the step promised.

        References
        ----------
        J. Nocedal, S. J. Wright, "Numerical Optimization", 2006, section 15.6.
        """
        point = self.now.point
        ahead = point._replace(y=point.y + step.y, w=point.w + step.w)
        there = evaluate(self.now.form, ahead)
        there = dataclasses.replace(there, r_d=0.0 * there.r_d, J=self.now.J)
        found = self.solve(0.0 * point.w, there)
        finite = math.isfinite(norm(found.y))
        return found if finite else found._replace(y=0.0 * step.y)

    def curvature(self, dy: Array) -> float:
        """Return dy' (H + Σ + J' (z/w) J) dy: one product."""
        return float(dy @ self.operator.matvec(dy))


def factorised(M: LinearOperator, J: Any, weights: Array) -> LinearOperator:
    """Return (M⁻¹ + J' diag(weights) J)⁻¹ of a diagonal M and a matrix J, on the host.

    M itself where there is no factor.
    """
    n, q = M.shape[0], J.shape[0]
    top = sparse.diags_array(1.0 / M.diagonal())
    factor = LDLFactor(top, sparse.csr_array(J), np.asarray(1.0 / weights))
    if factor.is_singular:
        return M

    def product(r: Array) -> Array:
        solved = factor.approximate(np.concatenate([r, np.zeros(q)]))
        return solved[:n].astype(r.dtype, copy=False)

    return LinearOperator((n, n), product, dtype=M.dtype, positive_definite=True)
