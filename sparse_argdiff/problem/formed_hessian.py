"""The Hessian of a small problem that is known by products: n products give its entries.

The steps towards active inequalities are systems of unlike rows, on which CG takes more than
n products each.  One product tells whether the entries at another point are the same: those
of a quadratic f are formed once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import Array, HostArray, drawn, epsilon
from ..operators.block_matrices import is_explicit
from ..operators.linear_operator import LinearOperator, aslinearoperator
from .constraints import Rows
from .problem import Problem

SMALL = 64  # variables up to which matrices are formed


def formed(matrix: Any) -> Any:
    """Return the entries of an operator, of fewest products; a matrix as it is."""
    if is_explicit(matrix):
        return matrix
    operator = aslinearoperator(matrix)
    rows, columns = operator.shape
    if rows < columns:
        return operator.rmatmat(np.eye(rows, dtype=operator.dtype)).T
    return operator.matmat(np.eye(columns, dtype=operator.dtype))


class FormedHessian:
    """An objective with the entries of its Hessian; ``n_hvp`` counts the products."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.objective, self.n_hvp = problem, problem.objective, 0
        self.convex = getattr(self.objective, "convex", False)
        self.grad, self.cross = self.objective.grad, self.objective.cross
        if problem.has_value:
            self.value = self.objective.value
        self.note = ""  # a caveat of the products
        self._last: HostArray | None = None

    def has_minimiser(self, x: Array) -> bool:
        """Tell whether f(x, ·) is known to have a minimiser."""
        return self.problem.has_minimiser(x)

    def hess(self, x: Array, y: Array) -> Any:
        """Return f_YY at (x, y), as a matrix."""
        given = self.objective.hess(x, y)
        if is_explicit(given):
            return given
        operator, n = aslinearoperator(given), y.shape[0]
        self.note = operator.note
        if self._last is not None and self._are_entries(self._last, operator):
            return self._last
        H: Any = operator.matmat(np.eye(n, dtype=y.dtype))
        self.n_hvp += n
        self._last = 0.5 * (H + H.T)
        return self._last

    def _are_entries(self, H: HostArray, operator: LinearOperator) -> bool:
        """Tell by a product, in which each entry counts, whether the operator is H."""
        D = np.abs(H.diagonal())
        v: Any = drawn("normal", D.shape[0])
        v = (v / np.sqrt(np.where(D > 0.0, D, 1.0))).astype(H.dtype)
        self.n_hvp += 1
        noise = max(16.0 * epsilon(H), operator.accuracy or 0.0)
        product: Any = operator.matvec(v)
        change = np.abs(product - H @ v)
        return bool(np.all(change <= noise * (np.abs(H) @ np.abs(v))))


def with_formed_matrices(problem: Problem) -> tuple[Problem, FormedHessian]:
    """Return the problem with matrices in place of operators, and its objective."""
    objective = FormedHessian(problem)
    made = dataclasses.replace(problem, objective=objective)
    for stack in (made.equalities, made.inequalities):
        if stack is not None:
            stack.parts = [_formed_rows(part) for part in stack.parts]
    return made, objective


def _formed_rows(rows: Rows) -> Rows:
    hess = None if rows.hess is None else _of(rows.hess)
    return dataclasses.replace(rows, jac=_of(rows.jac), hess=hess)


def _of(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: formed(function(*args))
