"""A problem with all its constraints as two vectors of functions, in units of their own.

    min f(y) / unit    where    e(y) = 0,    G(y) + w = 0,    w >= 0

e stacks the equality rows and the variables with lower = upper; G the inequality rows, the
lower and the upper bounds.  Rows are divided by the norms of their gradients at the start:
slacks are distances in y and multipliers forces, relative to the unit of f_Y.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from scipy import sparse

from ...arrays import Array, namespace
from ...operators.block_matrices import is_explicit, scatter, take_rows, vstack
from ...operators.linear_operator import LinearOperator, aslinearoperator
from ...problem.optimality import row_norms
from ...problem.problem import Problem


@dataclasses.dataclass(frozen=True)
class StandardForm:
    """The constraints of a problem at x, scaled.

    Attributes
    ----------
    fixed, at_lower, at_upper : int array
        Variables with lower = upper, and those with a finite bound.
    e_scale, g_scale : array
        What the rows of e and the inequality rows are divided by.
    p : int
        The problem's own equality rows, the first of e.
    q : int
        The inequality rows, the first of G.
    """

    problem: Problem
    x: Array
    lower: Array
    upper: Array
    fixed: Array
    at_lower: Array
    at_upper: Array
    e_scale: Array
    g_scale: Array
    p: int
    q: int
    unit: float

    def equalities(self, y: Array) -> Array:
        """Return e(y)."""
        xp, parts = namespace(y), []
        if self.problem.equalities is not None:
            parts.append(self.problem.equalities.value(self.x, y))
        parts.append(y[self.fixed] - self.lower[self.fixed])
        return xp.concat(parts) / self.e_scale

    def equality_jac(self, y: Array) -> Any:
        """Return the Jacobian of e, None without rows."""
        parts: list[Any] = []
        if self.problem.equalities is not None:
            parts.append(self.problem.equalities.jac(self.x, y))
        if self.fixed.shape[0]:
            parts.append(take_rows(_identity(y), self.fixed))
        return scale_rows(vstack(parts), self.e_scale) if parts else None

    def sides(self, y: Array) -> Array:
        """Return G(y): feasible where <= 0."""
        xp, parts = namespace(y), []
        if self.problem.inequalities is not None:
            rows = self.problem.inequalities.value(self.x, y)
            parts.append(rows / self.g_scale)
        low, high = self.at_lower, self.at_upper
        return xp.concat([*parts, self.lower[low] - y[low], y[high] - self.upper[high]])

    def row_jac(self, y: Array) -> Any:
        """Return the Jacobian of the inequality rows, None without any."""
        if self.problem.inequalities is None:
            return None
        return scale_rows(self.problem.inequalities.jac(self.x, y), self.g_scale)

    def along(self, J: Any, v: Array) -> Array:
        """Return G_Y v for the J of :meth:`row_jac`."""
        rows = [] if J is None else [aslinearoperator(J) @ v]
        return namespace(v).concat([*rows, -v[self.at_lower], v[self.at_upper]])

    def back(self, J: Any, z: Array) -> Array:
        """Return G_Y' z."""
        rows, low, high = self.split(z)
        n = self.lower.shape[0]
        total = scatter(n, self.at_upper)(high) - scatter(n, self.at_lower)(low)
        return total if J is None else total + aslinearoperator(J).T @ rows

    def split(self, z: Array) -> tuple[Array, Array, Array]:
        """Return the parts of the inequality rows, the lower and the upper bounds."""
        middle = self.q + self.at_lower.shape[0]
        return z[: self.q], z[self.q : middle], z[middle:]

    def bound_diagonal(self, z: Array) -> Array:
        """Return Σ z over the bounds of each variable, (n,)."""
        _, low, high = self.split(z)
        n = self.lower.shape[0]
        return scatter(n, self.at_upper)(high) + scatter(n, self.at_lower)(low)

    def multipliers(self, nu: Array, z: Array) -> Array:
        """Return the multipliers (p + q,) of the problem's rows in its own units."""
        own = (nu / self.e_scale)[: self.p], z[: self.q] / self.g_scale
        return self.unit * namespace(nu).concat(own)


def standard_form(problem: Problem, x: Array, y: Array, unit: float) -> StandardForm:
    """Return the scaled constraints, their scales taken at y."""
    xp = namespace(y)
    lower, upper = problem.bounds(y)
    (fixed,) = xp.nonzero(lower == upper)
    (low,) = xp.nonzero((lower > -xp.inf) & (lower < upper))
    (high,) = xp.nonzero((upper < xp.inf) & (lower < upper))
    ones = xp.ones_like
    e_parts, g_scale = [], ones(y[:0])
    if problem.equalities is not None:
        norms = row_norms(problem.equalities.jac(x, y), y)
        e_parts.append(xp.asarray(norms, dtype=y.dtype))
    p = int(e_parts[0].shape[0]) if e_parts else 0
    if problem.inequalities is not None:
        norms = row_norms(problem.inequalities.jac(x, y), y)
        g_scale = xp.asarray(norms, dtype=y.dtype)
    e_scale = xp.concat([*e_parts, ones(y[fixed])])
    return StandardForm(
        problem=problem,
        x=x,
        lower=lower,
        upper=upper,
        fixed=fixed,
        at_lower=low,
        at_upper=high,
        e_scale=e_scale,
        g_scale=g_scale,
        p=p,
        q=int(g_scale.shape[0]),
        unit=unit,
    )


def scale_rows(matrix: Any, scale: Array) -> Any:
    """Return diag(1 / scale) times a matrix or operator."""
    if sparse.issparse(matrix):
        return sparse.csr_array(sparse.diags_array(1.0 / scale) @ matrix)
    if is_explicit(matrix):
        return matrix / scale[:, None]
    operator = aslinearoperator(matrix)

    def forward(v: Array) -> Array:
        return (operator @ v) / (scale if v.ndim == 1 else scale[:, None])

    def backward(w: Array) -> Array:
        return operator.T @ (w / (scale if w.ndim == 1 else scale[:, None]))

    return LinearOperator(
        operator.shape, forward, backward, matmat=forward, rmatmat=backward
    )


def _identity(y: Array) -> Any:
    n = y.shape[0]
    if isinstance(y, np.ndarray):
        return sparse.csr_array(sparse.eye_array(n, dtype=y.dtype))
    return LinearOperator((n, n), lambda v: v, matmat=lambda v: v, symmetric=True)
