"""A problem and a solution: frozen data that solvers and derivatives share.

g(x) = argmin_y f(x, y)        (argmax with maximize=True; the paper's Lemma 3.3)
"""

from __future__ import annotations

import dataclasses
from typing import Any

from .arrays import Array, as_vector, namespace
from .linear_operator import LinearOperator, aslinearoperator
from .objective import Objective
from .status import Status


@dataclasses.dataclass(frozen=True)
class Problem:
    """min_y f(x, y), or the maximum.

    Parameters
    ----------
    objective : Objective
        f itself, also where it is maximised.
    maximize : bool
        Whether y maximises f.

    Notes
    -----
    The methods are those of the function that is *minimised*, −f for a maximum, with
    the shapes of what the user's functions return checked.
    """

    objective: Objective
    maximize: bool = dataclasses.field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        missing = [
            name
            for name in ("grad", "hess", "cross")
            if not callable(getattr(self.objective, name, None))
        ]
        if missing:
            raise TypeError(
                f"objective must have the methods value, grad, hess and cross; "
                f"{type(self.objective).__name__} lacks {', '.join(missing)}"
            )

    @property
    def has_value(self) -> bool:
        """Whether the objective's value is known, not its derivatives alone."""
        return callable(getattr(self.objective, "value", None))

    def value(self, x: Array, y: Array) -> float:
        """Return the function that is minimised, at (x, y)."""
        value = float(self.objective.value(x, y))
        return -value if self.maximize else value

    def grad(self, x: Array, y: Array) -> Array:
        """Return its gradient with respect to y, shape (n,)."""
        grad = self.objective.grad(x, y)
        if getattr(grad, "shape", None) != y.shape:
            raise ValueError(
                f"objective.grad must return an array of shape {tuple(y.shape)} like "
                f"y, found {getattr(grad, 'shape', type(grad).__name__)}"
            )
        xp = namespace(as_vector("objective.grad's result", grad), y)
        # A copy: the user's function may write into the same buffer again.
        return -grad if self.maximize else xp.asarray(grad, copy=True)

    def hess(self, x: Array, y: Array) -> LinearOperator:
        """Return its Hessian with respect to y, an operator (n, n)."""
        n = y.shape[0]
        return self._operator("hess", self.objective.hess(x, y), (n, n))

    def cross(self, x: Array, y: Array) -> LinearOperator:
        """Return the derivative of its gradient by x, an operator (n, m)."""
        shape = (y.shape[0], x.shape[0])
        return self._operator("cross", self.objective.cross(x, y), shape)

    def _operator(
        self, name: str, given: Any, shape: tuple[int, int]
    ) -> LinearOperator:
        operator = aslinearoperator(given)
        if operator.shape != shape:
            raise ValueError(
                f"objective.{name} must return an operator of shape {shape}, found "
                f"{operator.shape}"
            )
        return -operator if self.maximize else operator


@dataclasses.dataclass(frozen=True)
class Solution:
    """A solution y of a problem at x, found by ``solve`` or brought from elsewhere.

    ``Solution(y=y, x=x)`` is enough: without a status its optimality is checked before
    it is differentiated.

    Attributes
    ----------
    y : array (n,)
        The minimiser.
    x : array (m,)
        The parameters it belongs to.
    value : float or None
        f(x, y), the user's own f.
    multipliers, active : None
        Of constraints.
    status : Status or None
        How the solve ended; None for a solution from elsewhere.
    residual_norm : float or None
        ‖f_Y(x, y)‖₂.
    niter, n_hvp, n_grad : int
        Iterations, Hessian products and gradients spent.
    warnings : tuple of str
        Caveats, such as products by differences.
    """

    y: Array
    x: Array
    value: float | None = None
    multipliers: Array | None = None
    active: Any = None
    status: Status | None = None
    residual_norm: float | None = None
    niter: int = 0
    n_hvp: int = 0
    n_grad: int = 0
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("y", "x"):
            object.__setattr__(self, name, as_vector(name, getattr(self, name)))
        namespace(self.y, self.x)
