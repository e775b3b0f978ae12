"""The standard form: all constraints as equalities and inequalities with slacks, scaled.

    min f(y) / unit    where    e(y) = 0,    G(y) + w = 0,    w >= 0

e stacks the equality rows and the variables with lower = upper; G the inequality rows, the
lower and the upper bounds.  Rows are divided by the norms of their gradients at the start:
slacks are distances in y and multipliers forces, relative to that of the start.  The
problem is one of ``scaled_problem``: in its coordinates lengths are about 1 at the start.
"""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse

from ...arrays import Array, epsilon, namespace, norm
from ...krylov.null_space import formed_rows
from ...krylov.saddle_point import null_space_of
from ...operators.block_matrices import is_explicit, scatter, take_rows, vstack
from ...operators.linear_operator import LinearOperator, aslinearoperator
from ...problem.constraints import Stack
from ...problem.optimality import row_norms
from ...problem.problem import Problem

_FORMED = 2**21  # entries of a matrix that is known by products, 16 MB


@dataclasses.dataclass(frozen=True)
class StandardForm:
    """The constraints of a problem at x, scaled.

    Attributes
    ----------
    lower, upper : array (n,)
        The bounds, infinite where there are none.
    fixed, at_lower, at_upper : int array
        Variables with lower = upper, and those with a finite bound.
    e_scale, g_scale : array
        What the rows of e and the inequality rows are divided by.
    p : int
        The problem's own equality rows, the first of e.
    unit : float
        The force at the start, or 1, a length there: what f is divided by.
    resolution : float
        The least length to which the tolerance can be relative, as a share of the longest
        one: what rounding leaves of that is then within the tolerance.
    y0 : array (n,)
        The start.
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
    unit: float
    resolution: float
    y0: Array

    @property
    def q(self) -> int:
        """The inequality rows, the first of G."""
        return int(self.g_scale.shape[0])

    @cached_property
    def affine(self) -> bool:
        """Whether the Jacobians of all rows are known to be constant."""
        return all(stack.affine for stack in self._stacks)

    @cached_property
    def curved(self) -> bool:
        """Whether any row has a Hessian."""
        return any(part.hess for stack in self._stacks for part in stack.parts)

    @property
    def _stacks(self) -> list[Stack]:
        both = self.problem.equalities, self.problem.inequalities
        return [stack for stack in both if stack is not None]

    def equalities(self, y: Array) -> Array:
        """Return e(y)."""
        xp, parts = namespace(y), []
        if self.problem.equalities is not None:
            parts.append(self.problem.equalities.value(self.x, y))
        parts.append(y[self.fixed] - self.lower[self.fixed])
        return xp.concat(parts) / self.e_scale

    def inequality_values(self, y: Array) -> Array:
        """Return G(y): feasible where <= 0."""
        xp, parts = namespace(y), []
        if self.problem.inequalities is not None:
            rows = self.problem.inequalities.value(self.x, y)
            parts.append(rows / self.g_scale)
        low, high = self.at_lower, self.at_upper
        return xp.concat([*parts, self.lower[low] - y[low], y[high] - self.upper[high]])

    def jacobians(self, y: Array) -> tuple[Any, Any]:
        """Return the Jacobians of e and of the inequality rows, None without rows."""
        return self._constant_jacobians if self.affine else self._jacobians(y)

    @cached_property
    def _constant_jacobians(self) -> tuple[Any, Any]:
        return self._jacobians(self.y0)

    def _jacobians(self, y: Array) -> tuple[Any, Any]:
        equalities, inequalities = self.problem.equalities, self.problem.inequalities
        parts = [] if equalities is None else [equalities.jac(self.x, y)]
        if self.fixed.shape[0]:
            parts.append(take_rows(_identity(y), self.fixed))
        E = scale_rows(vstack(parts), self.e_scale) if parts else None
        if inequalities is None:
            return E, None
        return E, scale_rows(inequalities.jac(self.x, y), self.g_scale)

    def entries(self, E: Any) -> Any:
        """Return the matrix E, formed by products with E' where it is small; else None."""
        if is_explicit(E):
            return E
        if E.shape[0] * E.shape[1] > _FORMED:
            return None
        return (
            self._constant_entries
            if self.affine
            else formed_rows(aslinearoperator(E), self.y0)
        )

    @cached_property
    def _constant_entries(self) -> Any:
        return formed_rows(aslinearoperator(self._constant_jacobians[0]), self.y0)

    def null_space(self, E: Any) -> Any:
        """Return the projections on E, found once where E is constant."""
        return self._constant_null_space if self.affine else null_space_of(E)

    @cached_property
    def _constant_null_space(self) -> Any:
        return null_space_of(self._constant_jacobians[0])

    def inequality_jvp(self, J: Any, v: Array) -> Array:
        """Return G_Y v for the second of the :meth:`jacobians`."""
        rows = [] if J is None else [aslinearoperator(J) @ v]
        return namespace(v).concat([*rows, -v[self.at_lower], v[self.at_upper]])

    def inequality_vjp(self, J: Any, z: Array) -> Array:
        """Return G_Y' z."""
        rows, low, high = self.split(z)
        n = self.lower.shape[0]
        total = scatter(n, self.at_upper)(high) - scatter(n, self.at_lower)(low)
        return total if J is None else total + aslinearoperator(J).T @ rows

    def split(self, z: Array) -> tuple[Array, Array, Array]:
        """Return the parts of the inequality rows, the lower and the upper bounds."""
        middle = self.q + self.at_lower.shape[0]
        return z[: self.q], z[self.q : middle], z[middle:]

    def stacked(self, y: Array, rows: Array, at_bound: Array) -> Array:
        """Return the marks of all inequalities from those of rows and of variables."""
        low = y - self.lower <= self.upper - y
        below, above = (at_bound & low)[self.at_lower], (at_bound & ~low)[self.at_upper]
        return namespace(y).concat([rows, below, above])

    def bound_diagonal(self, z: Array) -> Array:
        """Return Σ z over the bounds of each variable, (n,)."""
        _, low, high = self.split(z)
        n = self.lower.shape[0]
        return scatter(n, self.at_upper)(high) + scatter(n, self.at_lower)(low)

    def multipliers(self, nu: Array, z: Array) -> Array:
        """Return the multipliers (p + q,) of the problem's rows in its own units."""
        own = (nu / self.e_scale)[: self.p], z[: self.q] / self.g_scale
        return self.unit * namespace(nu).concat(own)


def standard_form(problem: Problem, x: Array, y: Array, tol: float) -> StandardForm:
    """Return the standard form, its scales taken at y."""
    xp = namespace(y)
    lower, upper = problem.bounds(x, y)
    (fixed,) = xp.nonzero(lower == upper)
    (low,) = xp.nonzero((lower > -xp.inf) & (lower < upper))
    (high,) = xp.nonzero((upper < xp.inf) & (lower < upper))
    scales = []
    for stack in (problem.equalities, problem.inequalities):
        norms = y[:0] if stack is None else row_norms(stack.jac(x, y), y)
        scales.append(xp.asarray(norms, dtype=y.dtype))
    unit, least = norm(problem.grad(x, y)), epsilon(y) ** 0.5
    return StandardForm(
        problem=problem,
        x=x,
        lower=lower,
        upper=upper,
        fixed=fixed,
        at_lower=low,
        at_upper=high,
        e_scale=xp.concat([scales[0], xp.ones_like(y[fixed])]),
        g_scale=scales[1],
        p=int(scales[0].shape[0]),
        unit=max(unit, 1.0) if math.isfinite(unit) else 1.0,
        resolution=min(max(least, 64.0 * least**2 / tol), 1.0) if tol else 1.0,
        y0=y,
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
