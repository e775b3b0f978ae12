"""An exact penalty as the line search sees a problem: f + μ ‖h‖.

∇ (f + μ ‖h‖) = f_Y + μ h_Y' h / ‖h‖,    exact for μ > ‖ν‖
"""

from __future__ import annotations

import dataclasses

from ..arrays import Array, norm
from ..operators.linear_operator import aslinearoperator
from ..problem.constraints import Stack
from ..problem.problem import Problem


@dataclasses.dataclass(frozen=True)
class Merit:
    """f + μ ‖h‖ in the 2-norm, which is smooth where h is not zero."""

    problem: Problem
    constraints: Stack
    mu: float

    def value(self, x: Array, y: Array) -> float:
        """Return f + μ ‖h‖."""
        return self.problem.value(x, y) + self.mu * norm(self.constraints.value(x, y))

    def grad(self, x: Array, y: Array) -> Array:
        """Return its gradient; that of f alone where h = 0."""
        grad, h = self.problem.grad(x, y), self.constraints.value(x, y)
        size = norm(h)
        if size == 0.0:
            return grad
        jac = aslinearoperator(self.constraints.jac(x, y))
        return grad + (self.mu / size) * (jac.T @ h)
