"""The optimality conditions linearised at a solution.

    K = [ H  C' ]      H = f_YY + Σ ν_i ∇²h_i      on the free variables
        [ C  0  ]      C = h_Y                     equalities and strongly active rows

    B = [ f_XY + Σ ν_i ∂/∂x ∇h_i ;  h_X ],         g'(x) = − select' K⁻¹ B

Without constraints this is − f_YY⁻¹ f_XY (the paper's Lemma 3.2); with linear equalities it
is its equation (56), of which Lemmas 4.1 and 4.2 are two ways to solve.  Variables held at
a bound and rows that are not strongly active leave the system; so do coefficients off the
support of a penalty (``support_system.py``).  Where the bound moves with x, so do they,
y_F = bound(x), and B has [H; C] bound_X, with the columns of the held variables, in addition.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

from ..arrays import Array, arange, namespace, zeros
from ..operators.block_matrices import (
    principal,
    saddle_operator,
    scatter,
    take_columns,
    take_rows,
    vstack,
    zero,
)
from ..operators.linear_operator import LinearOperator, aslinearoperator
from ..problem.constraints import Stack
from ..problem.problem import Problem, Solution
from .moving_bounds import motion_of_fixed, symmetric_product


@dataclasses.dataclass(frozen=True)
class KKTSystem:
    """The linearised conditions: K z = rhs with z = (free y, multipliers of C).

    Attributes
    ----------
    H : LinearOperator (k, k)
        Hessian of the Lagrangian on the k free variables.
    C : array, sparse matrix or operator (p, k), or None
        Jacobian of the rows that hold with equality; None without any.
    B : LinearOperator (k + p, m)
        Derivative of the conditions by x.
    n : int
        Size of y.
    size : int
        Of y and all multipliers together.
    index : int array (k + p,) or None
        The unknowns of K among those; None for all.
    motion : LinearOperator (n, m) or None
        The derivative by x of the variables held at bounds that move; None without any.
    fixed : bool array (n,) or None
        What x fixes at 0, which K does not couple to the rest; without constraints only.
    """

    H: LinearOperator
    C: Any
    B: LinearOperator
    n: int
    size: int
    index: Array | None = None
    motion: LinearOperator | None = None
    fixed: Array | None = None

    @cached_property
    def K(self) -> LinearOperator:
        """The symmetric operator (k + p, k + p); positive definite only without rows."""
        return self.H if self.C is None else saddle_operator(self.H, self.C)

    def right_hand_side(self, v: Array, multipliers: Array | None = None) -> Array:
        """Return (v, 0) on the unknowns of K, for v (n,) or (n, j); seeds of multipliers for 0."""
        if self.size > self.n:
            rest = multipliers
            if rest is None:
                rest = zeros((self.size - self.n, *v.shape[1:]), v)
            v = namespace(v).concat([v, rest])
        if self.fixed is not None:
            mask = self.fixed if v.ndim == 1 else self.fixed[:, None]
            v = namespace(v).where(mask, namespace(v).zeros_like(v), v)
        return self.restrict(v)

    def restrict(self, full: Array) -> Array:
        """Return the unknowns of K from (y, all multipliers)."""
        if self.index is None:
            return full
        return namespace(full).take(full, self.index, axis=0)

    def expand(self, z: Array) -> Array:
        """Return (y, all multipliers), zero where K has no unknown."""
        return z if self.index is None else scatter(self.size, self.index)(z)

    def tangent(self, z: Array, u: Array) -> Array:
        """Return the derivative along u of (y, all multipliers), for K z = B u."""
        whole = -self.expand(z)
        if self.motion is None:
            return whole
        y = whole[: self.n, ...] + self.motion @ u
        return namespace(z).concat([y, whole[self.n :, ...]])

    def pull_back(self, z: Array, v: Array) -> Array:
        """Return g'(x)ᵀ v, for K z = (v, 0)."""
        product = -(self.B.T @ z)
        return product if self.motion is None else product + self.motion.T @ v


def linearize(problem: Problem, solution: Solution) -> KKTSystem:
    """Linearise the conditions of ``problem`` at ``solution``, once.

    Where the problem is constrained the solution has its multipliers and its active set:
    see :func:`sparse_argdiff.problem.multipliers.complete`.
    """
    x, y = solution.x, solution.y
    H, cross = problem.hess(x, y), problem.cross(x, y)
    if not problem.constrained:
        n = y.shape[0]
        return KKTSystem(H=H, C=None, B=cross, n=n, size=n, fixed=problem.fixed(x))
    assert solution.multipliers is not None
    xp, n = namespace(y), y.shape[0]
    size = n + solution.multipliers.shape[0]
    motion = motion_of_fixed(problem, solution)
    jacobians: list[Any] = []
    moves: list[Any] = []
    rows: list[Array] = []
    for start, constraints, multipliers, index in _active_rows(problem, solution):
        constraints.refuse_forgotten(x, y, multipliers, index)
        curvature = constraints.hess(x, y, multipliers)
        H = H if curvature is None else H + curvature
        mixed = constraints.cross(x, y, multipliers)
        cross = cross if mixed is None else cross + mixed
        if index.shape[0]:
            moved = constraints.jac_x(x, y)
            jacobian = take_rows(constraints.jac(x, y), index)
            jacobians.append(jacobian)
            shape = (index.shape[0], x.shape[0])
            move = zero(shape, y) if moved is None else take_rows(moved, index)
            if motion is not None:
                move = aslinearoperator(move) + aslinearoperator(jacobian) @ motion
            moves.append(move)
            rows.append(n + start + index)
    if motion is not None:
        cross = cross + symmetric_product(H, motion)
    free = arange(n, y)
    fixed = None if solution.active is None else solution.active.fixed
    if fixed is not None and bool(xp.any(fixed)):
        (free,) = xp.nonzero(~fixed)
        H, cross = principal(H, free), take_rows(cross, free)
        jacobians = [take_columns(jacobian, free) for jacobian in jacobians]
    index = xp.concat([free, *rows])
    return KKTSystem(
        H=H,
        C=vstack(jacobians) if jacobians else None,
        B=vstack([cross, *moves]),
        n=n,
        size=size,
        index=None if index.shape[0] == size else index,
        motion=motion,
    )


def _active_rows(
    problem: Problem, solution: Solution
) -> list[tuple[int, Stack, Array, Array]]:
    """Return (first multiplier, constraints, their multipliers, active rows) by kind."""
    multipliers, active = solution.multipliers, solution.active
    assert multipliers is not None
    p = multipliers.shape[0] - (0 if active is None else active.strong.shape[0])
    found = []
    if problem.equalities is not None:
        every = arange(p, multipliers)
        found.append((0, problem.equalities, multipliers[:p], every))
    if problem.inequalities is not None and active is not None:
        xp, others = namespace(multipliers), multipliers[p:]
        (index,) = xp.nonzero(active.strong)
        acting = xp.where(active.strong, others, 0.0 * others)
        found.append((p, problem.inequalities, acting, index))
    return found
