"""The augmented Lagrangian of equality rows, as a problem without them.

f + ν'h + ½ ρ Σ_i (h_i / s_i)²,    h = A y − b
"""

from __future__ import annotations

from typing import Any

from ..arrays import Array, dot
from ..operators.block_matrices import (
    gram,
    is_explicit,
    take_columns,
    transposed_product,
)
from ..operators.linear_operator import LinearOperator, aslinearoperator
from ..problem.problem import Problem
from ..problem.support import hess_block


class _Augmented:
    """f + ν'h + ½ ρ ‖h / s‖² of the function that is minimised."""

    def __init__(
        self, problem: Problem, multipliers: Array, sizes: Array, rho: float
    ) -> None:
        self.problem, self.multipliers = problem, multipliers
        self.weights = rho / (sizes * sizes)
        self.convex = bool(
            getattr(problem.objective, "convex", False) and not problem.maximize
        )

    def has_minimiser(self, x: Array) -> bool:
        """Tell whether f(x, ·) is known to have a minimiser."""
        return self.problem.has_minimiser(x)

    def _rows(self, x: Array, y: Array) -> Array:
        assert self.problem.equalities is not None
        return self.problem.equalities.value(x, y)

    def _jac(self, x: Array, y: Array) -> Any:
        assert self.problem.equalities is not None
        return self.problem.equalities.jac(x, y)

    def value(self, x: Array, y: Array) -> float:
        """Return the value."""
        h = self._rows(x, y)
        force = self.multipliers + 0.5 * self.weights * h
        return self.problem.value(x, y) + dot(force, h)

    def grad(self, x: Array, y: Array) -> Array:
        """Return the gradient by y."""
        force = self.multipliers + self.weights * self._rows(x, y)
        return self.problem.grad(x, y) + transposed_product(self._jac(x, y), force)

    def hess(self, x: Array, y: Array) -> LinearOperator:
        """Return f_YY + ρ A' S⁻² A."""
        return self.problem.hess(x, y) + gram(self._jac(x, y), self.weights)

    def hess_block(self, x: Array, y: Array, index: Array) -> Array | None:
        """Return the same on an index, where the entries are cheap."""
        jac = self._jac(x, y)
        block = hess_block(self.problem, x, y, index) if is_explicit(jac) else None
        if block is None:
            return None
        part = aslinearoperator(take_columns(jac, index)).toarray()
        return block + part.T @ (self.weights[:, None] * part)

    def cross(self, x: Array, y: Array) -> LinearOperator:
        """Return nothing that a solver needs."""
        raise NotImplementedError("the augmented problem is not differentiated")


class _AugmentedByGradient(_Augmented):
    """The same of an f without values."""

    value: Any = None


def augmented(
    problem: Problem, multipliers: Array, sizes: Array, rho: float
) -> Problem:
    """Return the problem of the same penalty and bounds, without rows.

    ``sizes`` are the s (p,); with ρ = 0 the function is the Lagrangian of the rows.
    """
    kind = _Augmented if problem.has_value else _AugmentedByGradient
    return Problem(
        kind(problem, multipliers, sizes, rho),
        penalty=problem.penalty,
        lower=problem.lower,
        upper=problem.upper,
    )
