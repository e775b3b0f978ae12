"""A problem and a solution: frozen data that solvers and derivatives share.

    g(x) = argmin_y f(x, y)   s.t.   h(x, y) = 0,   h(x, y) <= 0,   lower <= y <= upper

(argmax with maximize=True; the paper's Lemma 3.3.)
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from ..arrays import Array, as_number, as_vector, asarray, namespace
from ..operators.linear_operator import LinearOperator, aslinearoperator
from ..status import Status
from .constraints import Equality, Inequality, LinearEquality, Stack, stack
from .objective import Objective


@dataclasses.dataclass(frozen=True)
class Problem:
    """min_y f(x, y), or the maximum, where the constraints hold.

    Parameters
    ----------
    objective : Objective
        f itself, also where it is maximised.
    equality : LinearEquality, Equality or a sequence of them, optional
        h(x, y) = 0.
    inequality : Inequality or a sequence of them, optional
        h(x, y) <= 0.
    lower, upper : float or array (n,), optional
        Bounds on y; infinities for none.
    maximize : bool
        Whether y maximises f.

    Attributes
    ----------
    equalities, inequalities : Stack or None
        The constraints as rows.

    Notes
    -----
    The methods are those of the function that is *minimised*, −f for a maximum, with
    the shapes of what the user's functions return checked.  Multipliers belong to it
    too: Lagrangian = (±f) + multipliers' h, those of inequalities are >= 0.
    """

    objective: Objective
    equality: Any = dataclasses.field(default=None, kw_only=True)
    inequality: Any = dataclasses.field(default=None, kw_only=True)
    lower: Any = dataclasses.field(default=None, kw_only=True)
    upper: Any = dataclasses.field(default=None, kw_only=True)
    maximize: bool = dataclasses.field(default=False, kw_only=True)
    equalities: Stack | None = dataclasses.field(init=False, repr=False)
    inequalities: Stack | None = dataclasses.field(init=False, repr=False)

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
        equalities = stack("equality", self.equality, (LinearEquality, Equality))
        inequalities = stack("inequality", self.inequality, (Inequality,))
        object.__setattr__(self, "equalities", equalities)
        object.__setattr__(self, "inequalities", inequalities)

    @property
    def bounded(self) -> bool:
        """Whether y has bounds."""
        return self.lower is not None or self.upper is not None

    @property
    def constrained(self) -> bool:
        """Whether there is any constraint, bounds included."""
        rows = self.equalities is not None or self.inequalities is not None
        return rows or self.bounded

    def bounds(self, y: Array) -> tuple[Array, Array]:
        """Return the lower and upper bounds like y, infinite where there are none."""
        xp = namespace(y)
        sides = []
        for name, given, infinity in (
            ("lower", self.lower, -math.inf),
            ("upper", self.upper, math.inf),
        ):
            side = asarray(infinity if given is None else given, y)
            if side.ndim != 0 and side.shape != y.shape:
                raise ValueError(
                    f"{name} must be a number or have shape {tuple(y.shape)} like y, "
                    f"found shape {tuple(side.shape)}"
                )
            sides.append(side + xp.zeros_like(y))
        if not bool(xp.all(sides[0] <= sides[1])):
            raise ValueError("lower must be <= upper everywhere, without NaN")
        return sides[0], sides[1]

    @property
    def has_value(self) -> bool:
        """Whether the objective's value is known, not its derivatives alone."""
        return callable(getattr(self.objective, "value", None))

    def value(self, x: Array, y: Array) -> float:
        """Return the function that is minimised, at (x, y)."""
        value = as_number("objective.value", self.objective.value(x, y))
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
class ActiveSet:
    """Which constraints hold with equality at a solution, as masks.

    Attributes
    ----------
    strong : bool array (q,)
        Inequality rows at zero with a positive multiplier: they act as equalities.
    weak : bool array (q,)
        Rows at zero without one: the derivative is one-sided there.
    inactive : bool array (q,)
        The others.
    fixed : bool array (n,)
        Variables held at a bound by a positive multiplier.
    weak_fixed : bool array (n,)
        Variables that only happen to be at a bound.
    """

    strong: Array
    weak: Array
    inactive: Array
    fixed: Array
    weak_fixed: Array

    @property
    def degenerate(self) -> bool:
        """Whether anything is weakly active."""
        return any(bool(namespace(m).any(m)) for m in (self.weak, self.weak_fixed))


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
    multipliers : array (p + q,) or None
        Of the p equality rows, then of the q inequality rows.
    active : ActiveSet or None
        Which inequality rows and bounds hold with equality.
    status : Status or None
        How the solve ended; None for a solution from elsewhere.
    residual_norm : float or None
        ‖f_Y(x, y)‖₂; with constraints that of the KKT conditions.
    residual : array (n + p + q,) or None
        What :func:`sparse_argdiff.optimality.residual` returns, where the solver knows.
    niter, n_hvp, n_grad : int
        Iterations, Hessian products and gradients spent.
    warnings : tuple of str
        Caveats, such as products by differences.
    """

    y: Array
    x: Array
    value: float | None = None
    multipliers: Array | None = None
    active: ActiveSet | None = None
    status: Status | None = None
    residual_norm: float | None = None
    residual: Array | None = dataclasses.field(default=None, repr=False)
    niter: int = 0
    n_hvp: int = 0
    n_grad: int = 0
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("y", "x"):
            object.__setattr__(self, name, as_vector(name, getattr(self, name)))
        if self.multipliers is not None:
            multipliers = as_vector("multipliers", self.multipliers)
            object.__setattr__(self, "multipliers", multipliers)
        namespace(self.y, self.x)
