"""A problem and a solution: the frozen records that solvers and derivatives share.

    g(x) = argmin_y f(x, y)   s.t.   h(x, y) = 0,   h(x, y) <= 0,   lower <= y <= upper

(argmax with maximize=True; the paper's Lemma 3.3.)
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ..arrays import (
    Array,
    as_number,
    as_vector,
    check_shape,
    copied,
    copied_vector,
    described,
    locked,
    namespace,
    returned_vector,
)
from ..operators.linear_operator import LinearOperator, as_operator
from ..status import Status
from .arguments import check_bounds, check_penalty, completed, named_data
from .bounds import bound_arrays, bound_derivatives
from .constraints import Stack
from .objective import Objective
from .penalised import with_penalty


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """The minimum, or maximum, of f(x, y) over y, subject to constraints.

    Parameters
    ----------
    objective : Objective
        f itself, also where f is maximised.
    equality : LinearEquality, Equality or a sequence of them, optional
        h(x, y) = 0.
    inequality : Inequality or a sequence of them, optional
        h(x, y) <= 0.
    lower, upper : float, array (n,) or callable, optional
        Bounds on y; infinities for none.  A function ``lower(x)`` returns a number or (n,).
    lower_jvp, lower_vjp, upper_jvp, upper_vjp : callable, optional
        ``lower_jvp(x, u)`` returns lower_X u (n,), ``lower_vjp(x, w)`` returns
        lower_Xᵀ w (m,).  A bound that is a function and holds variables needs one for each
        mode of differentiation that is used.
    penalty : Penalty, optional
        Ω(x, y), with kinks, that is added to the function that is minimised (and taken from
        one that is maximised): :class:`L1`, :class:`ElasticNet`, :class:`GroupL1` or your
        own.  By default the objective's own attribute ``penalty``, which a linear model
        with a norm has.  With bounds a separable one; beside rows with LinearEquality alone.
    maximize : bool
        Whether y maximises f.

    Attributes
    ----------
    equalities, inequalities : Stack or None
        The constraints as rows.

    Notes
    -----
    The methods evaluate the function that is *minimised*, −f for a maximum, and check
    what the user's functions return; without the penalty, unless that is smooth.  The Lagrangian is this function + multipliers' h;
    the multipliers of inequalities are >= 0.
    """

    objective: Objective
    _: dataclasses.KW_ONLY
    equality: Any = None
    inequality: Any = None
    lower: Any = None
    upper: Any = None
    penalty: Any = None
    lower_jvp: Any = None
    lower_vjp: Any = None
    upper_jvp: Any = None
    upper_vjp: Any = None
    maximize: bool = False
    equalities: Stack | None = dataclasses.field(init=False, repr=False)
    inequalities: Stack | None = dataclasses.field(init=False, repr=False)

    __repr__ = described

    def __post_init__(self) -> None:
        for name, value in completed(self).items():
            object.__setattr__(self, name, value)
        check_bounds(self)
        if self.penalty is not None:
            check_penalty(self)

    @property
    def nonsmooth(self) -> bool:
        """Whether there is a penalty with kinks: y then has a support."""
        return self.penalty is not None and not getattr(self.penalty, "smooth", False)

    @property
    def one_sided(self) -> bool:
        """Whether solutions have an active set: of inequalities, bounds or kinks."""
        return self.inequalities is not None or self.bounded or self.nonsmooth

    @property
    def bounded(self) -> bool:
        """Whether y has bounds."""
        return self.lower is not None or self.upper is not None

    @property
    def constrained(self) -> bool:
        """Whether there is any constraint, bounds and kinks of a penalty included."""
        return self.equalities is not None or self.one_sided

    @property
    def bounds_move(self) -> bool:
        """Whether a bound is a function of x."""
        return callable(self.lower) or callable(self.upper)

    def bounds(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Return the lower and upper bounds, (n,) each, infinite where there are none."""
        return bound_arrays(self.lower, self.upper, x, y)

    def bound_derivatives(
        self, x: Array, y: Array
    ) -> tuple[LinearOperator | None, LinearOperator | None]:
        """Return the derivatives (n, m) of both bounds by x, None for constants."""
        return bound_derivatives(self, x, y.shape[0])

    @property
    def has_value(self) -> bool:
        """Whether the objective has a value beside its derivatives."""
        return callable(getattr(self.objective, "value", None))

    def pack(self, **data: Any) -> Array:
        """Return x for the data of a :func:`QuadraticProgram`, by their names.

        Data that are left out are those that the problem was built with.
        """
        return named_data(self, "pack").pack(data)

    def unpack(self, x: Array) -> dict[str, Any]:
        """Return the data in x, or in a gradient by x, by their names."""
        return named_data(self, "unpack").unpack(x)

    def value(self, x: Array, y: Array) -> float:
        """Return the function that is minimised, at (x, y)."""
        value = as_number("objective.value", self.given("value", x, y))
        return -value if self.maximize else value

    @property
    def _smooth_penalty(self) -> Any:
        return None if self.nonsmooth else self.penalty

    def total(self, x: Array, y: Array) -> float:
        """Return the function that is minimised with its penalty."""
        value = self.value(x, y)
        if self.nonsmooth:
            value += as_number("penalty.value", self.penalty.value(x, y))
        return value

    def grad(self, x: Array, y: Array) -> Array:
        """Return the gradient by y of the function that is minimised, shape (n,)."""
        grad = returned_vector("objective.grad", self.given("grad", x, y), y.shape[0])
        namespace(grad, y)
        # A copy: the user's function may write into the same buffer again.
        return -grad if self.maximize else copied(grad)

    def hess(self, x: Array, y: Array) -> LinearOperator:
        """Return the Hessian by y of the function that is minimised, an operator (n, n)."""
        return self._operator("hess", x, y, y.shape[0])

    def cross(self, x: Array, y: Array) -> LinearOperator:
        """Return the derivative of that gradient by x, an operator (n, m)."""
        return self._operator("cross", x, y, x.shape[0])

    def fixed(self, x: Array) -> Array | None:
        """Return a mask (n,) of the entries of y that x fixes at 0, None without any.

        That of an objective with a method ``fixed(x)``: a linear model with infinite
        weights.
        """
        fixed = getattr(self.objective, "fixed", None)
        found: Array | None = fixed(copied(x)) if callable(fixed) else None
        return found

    def has_minimiser(self, x: Array) -> bool:
        """Tell whether f(x, ·) is known to have a minimiser.

        By an objective's method ``has_minimiser(x)``: a linear model with a ridge.
        """
        known = getattr(self.objective, "has_minimiser", None)
        return callable(known) and not self.maximize and bool(known(copied(x)))

    def _operator(self, name: str, x: Array, y: Array, columns: int) -> LinearOperator:
        given = self.given(name, x, y)
        operator = as_operator(f"objective.{name}'s result", given, square=False)
        check_shape(f"objective.{name}", operator, (y.shape[0], columns), "an operator")
        return -operator if self.maximize else operator

    def given(self, name: str, x: Array, y: Array) -> Any:
        """Return what a user's function gives for copies of x and y, with a smooth penalty.

        The function may write into what it is given, and an operator may keep it: its
        products may not write there, the next one would be of another point.
        """
        own_x, own_y = copied(x), copied(y)
        found = getattr(self.objective, name)(own_x, own_y)
        locked(own_x, own_y)
        smooth = self._smooth_penalty
        if smooth is None or name not in {"value", "grad", "hess", "cross"}:
            return found
        return with_penalty(name, found, getattr(smooth, name)(x, y), self.maximize)


@dataclasses.dataclass(frozen=True, eq=False)
class ActiveSet:
    """Which constraints hold with equality at a solution, as masks.

    Attributes
    ----------
    strong : bool array (q,)
        Inequality rows at zero with a positive multiplier, which act as equalities.
    weak : bool array (q,)
        Rows at zero whose multiplier is zero, both to half the digits of y; the
        derivative is one-sided there.  A row of both masks acts.
    fixed : bool array (n,)
        Variables at a bound with a positive multiplier, and off the support of a penalty.
    weak_fixed : bool array (n,)
        Variables at a bound whose multiplier is zero, likewise; coefficients that are about
        to enter the support, or to leave it.
    """

    strong: Array
    weak: Array
    fixed: Array
    weak_fixed: Array

    __repr__ = described

    @property
    def degenerate(self) -> bool:
        """Whether anything is weakly active."""
        return any(bool(namespace(m).any(m)) for m in (self.weak, self.weak_fixed))


@dataclasses.dataclass(frozen=True, eq=False)
class Solution:
    """A solution y of a problem at x, from ``solve`` or from elsewhere.

    ``Solution(y=y, x=x)`` is enough: without a status the optimality conditions are
    checked before differentiation, and the arrays are copied.  Records that hold arrays,
    as this one, compare by identity.

    Attributes
    ----------
    y : array (n,)
        The minimiser.
    x : array (m,)
        The parameters of the problem.
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
    relative_error : float or None
        The Newton step that is left, estimated, relative to the length of y, both in the
        metric of the Hessian: to first order the error of y.
    error : float or None
        That length itself, in the metric of the Hessian, without constraints.
    residual : array (n + p + q,) or None
        The residual of the optimality conditions, where the solver has it.
    bound_multipliers : array (n,) or None
        s = f_Y + h_Y' ν + J' λ, what bounds must carry: > 0 at lower, < 0 at upper bounds.
        Of a solution from elsewhere it helps to find the other multipliers.
    factor : object or None
        The factorised matrix of the last Newton step, which a derivative at these y, x and
        active set uses; made by the solver.
    method : str
        Which method or engine found it.
    niter, n_hvp, n_grad : int
        Iterations, Hessian products and gradients spent.
    warnings : tuple of str
        Caveats, such as products by differences.
    gap : float or None
        Duality gap f + Ω − dual, where the dual is known: the value is at most that far above
        the least one.
    support : {"proven", "estimated", "not settled"} or None
        Of a penalty with kinks, what is known of the coefficients that are zero here, which
        ``active.fixed`` marks: the gap proves that they are zero at every solution; their
        forces are below the weights by more than the error of y; or some coefficients are
        weakly active, the solution is not unique, or the solve failed.
    """

    y: Array
    x: Array
    value: float | None = None
    multipliers: Array | None = None
    active: ActiveSet | None = None
    status: Status | None = None
    residual_norm: float | None = None
    relative_error: float | None = None
    error: float | None = None
    residual: Array | None = dataclasses.field(default=None, repr=False)
    bound_multipliers: Array | None = None
    factor: Any = dataclasses.field(default=None, repr=False)
    method: str = ""
    niter: int = 0
    n_hvp: int = 0
    n_grad: int = 0
    warnings: tuple[str, ...] = ()
    gap: float | None = None
    support: str | None = None
    # Whose conditions were just evaluated here; ``dataclasses.replace`` drops it.
    _judged_for: Problem | None = dataclasses.field(
        init=False, default=None, repr=False
    )

    __repr__ = described

    def __post_init__(self) -> None:
        given = ("multipliers", "bound_multipliers")
        optional = [name for name in given if getattr(self, name) is not None]
        # A copy: whoever brings a solution may write the next one into its arrays.
        checked = copied_vector if self.status is None else as_vector
        for name in ("y", "x", *optional):
            object.__setattr__(self, name, checked(name, getattr(self, name)))
        namespace(self.y, self.x)

    def judged_for(self, problem: Problem) -> Solution:
        """Return a copy that ``derivative`` believes without a look, for that problem.

        For a caller who has evaluated the conditions at these arrays and does not write
        into them.
        """
        copy = dataclasses.replace(self)
        object.__setattr__(copy, "_judged_for", problem)
        return copy

    def is_judged_for(self, problem: Problem) -> bool:
        """Tell whether this very record was marked by :meth:`judged_for`."""
        return self._judged_for is problem
