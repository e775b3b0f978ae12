"""The hypergradient: x → value and gradient of F(x) = f^U(x, g(x)), warm-started.

∇F(x) = ∂f^U/∂x − f_XYᵀ λ,    f_YY λ = ∂f^U/∂y        (the paper's equation 4)
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from .arrays import Array, as_vector, is_finite, namespace
from .implicit import Adjoint, vjp
from .inverse import LinearSolver
from .problem import Problem, Solution
from .solvers import LowerSolver, solve
from .status import ConvergenceError, OnFailure, Status, settle

_WHAT = "evaluating the upper level"


class UpperObjective(Protocol):
    """The upper objective f^U(x, y)."""

    def value(self, x: Array, y: Array) -> float:
        """Return f^U(x, y)."""

    def grad_y(self, x: Array, y: Array) -> Array:
        """Return ∂f^U/∂y, shape (n,)."""

    def grad_x(self, x: Array, y: Array) -> Array | None:
        """Return ∂f^U/∂x, shape (m,), or None when x does not enter directly."""


class FunctionUpper:
    """An upper objective from functions; ``grad_x=None`` where x does not enter."""

    def __init__(
        self,
        value: Callable[[Array, Array], float],
        grad_y: Callable[[Array, Array], Array],
        grad_x: Callable[[Array, Array], Array] | None = None,
    ) -> None:
        self.value = value
        self.grad_y = grad_y
        self._grad_x = grad_x

    def grad_x(self, x: Array, y: Array) -> Array | None:
        """Return ∂f^U/∂x, or None."""
        return None if self._grad_x is None else self._grad_x(x, y)


@dataclasses.dataclass(frozen=True)
class HypergradientResult:
    """The outcome of :meth:`Hypergradient.evaluate`.

    Attributes
    ----------
    value : float
        F(x) = f^U(x, y).
    gradient : array (m,)
        ∇F(x), of the dtype of x.
    solution : Solution
        Of the lower-level problem.
    adjoint : Adjoint
        With the record of its linear solve.
    n_hvp, n_grad : int
        Hessian products and lower-level gradients spent in this evaluation.
    warnings : tuple of str
        Caveats.
    """

    value: float
    gradient: Array
    solution: Solution
    adjoint: Adjoint
    n_hvp: int
    n_grad: int
    warnings: tuple[str, ...] = ()


class Hypergradient:
    """F(x) = f^U(x, g(x)) and its gradient; ``value, gradient = F(x)``.

    Parameters
    ----------
    problem : Problem
        The lower level.
    upper : UpperObjective
        f^U, such as a validation loss.
    y0 : array (n,), optional
        First start of the lower-level solves; zeros where the objective knows n.
    solver : str or callable, optional
        ``method`` of :func:`solve`.
    tol : float
        Of the lower-level solves, see :func:`solve`.
    adjoint_tol : float, optional
        Of the adjoint solves, relative to ∂f^U/∂y; ``tol`` by default.
    warm_start : bool
        Start each solve from the last y and the last adjoint.  The tolerances mean the
        same either way.
    method, M : optional
        Of the adjoint solves, see :func:`derivative`.
    maxiter, adjoint_maxiter : int, optional
        Limits of the lower-level and of the adjoint solves.
    on_failure : {"raise", "warn", "ignore"}
        What to do when a solve fails.

    Attributes
    ----------
    n_hvp, n_grad, n_evaluations : int
        Totals so far.
    y, adjoint : array or None
        The warm start: what the next evaluation begins with.

    Notes
    -----
    ``scipy.optimize.minimize(F, x0, jac=True)`` works as it is.  An instance is not to
    be shared between threads.
    """

    def __init__(
        self,
        problem: Problem,
        upper: UpperObjective,
        *,
        y0: Any = None,
        solver: str | LowerSolver | None = None,
        tol: float = 1e-8,
        adjoint_tol: float | None = None,
        warm_start: bool = True,
        method: str | LinearSolver | None = None,
        M: Any = "auto",
        maxiter: int | None = None,
        adjoint_maxiter: int | None = None,
        on_failure: OnFailure = "raise",
    ) -> None:
        for name in ("value", "grad_y", "grad_x"):
            if not callable(getattr(upper, name, None)):
                raise TypeError(
                    f"upper must have the methods value, grad_y and grad_x; "
                    f"{type(upper).__name__} lacks {name}"
                )
        self.problem = problem
        self.upper = upper
        self.warm_start = warm_start
        self.tol = tol
        self.adjoint_tol = tol if adjoint_tol is None else adjoint_tol
        self.on_failure: OnFailure = on_failure
        self._solve_options: dict[str, Any] = {"method": solver, "maxiter": maxiter}
        self._vjp_options: dict[str, Any] = {
            "method": method,
            "M": M,
            "maxiter": adjoint_maxiter,
        }
        self._y0 = y0
        self.y: Array | None = None
        self.adjoint: Array | None = None
        self.n_hvp = self.n_grad = self.n_evaluations = 0

    def __call__(self, x: Array) -> tuple[float, Array]:
        """Return F(x) and ∇F(x)."""
        result = self.evaluate(x)
        return result.value, result.gradient

    def solve(self, x: Array, *, tol: float | None = None) -> Solution:
        """Solve the lower-level problem at x, from the warm start."""
        warm = self.warm_start and self.y is not None
        with self._counting_failures():
            solution = solve(
                self.problem,
                x,
                self.y if warm else self._y0,
                tol=self.tol if tol is None else tol,
                on_failure=self.on_failure,
                **self._solve_options,
            )
        self.n_hvp += solution.n_hvp
        self.n_grad += solution.n_grad
        self.y = solution.y
        return solution

    def value(self, x: Array, *, tol: float | None = None) -> float:
        """Return F(x) alone, which saves the adjoint solve."""
        x = as_vector("x", x)
        return self._upper_value(x, self.solve(x, tol=tol))

    def evaluate(
        self, x: Array, *, tol: float | None = None, adjoint_tol: float | None = None
    ) -> HypergradientResult:
        """Return F(x), ∇F(x) and the records of both solves.

        Parameters
        ----------
        x : array (m,)
        tol, adjoint_tol : float, optional
            For this evaluation alone; looser ones cost less.

        Raises
        ------
        ConvergenceError
            When a solve fails, f^U or a gradient is not finite.
        """
        x = as_vector("x", x)
        solution = self.solve(x, tol=tol)
        value = self._upper_value(x, solution)
        grad_y = as_vector(
            "upper.grad_y", self.upper.grad_y(x, solution.y), solution.y.shape[0]
        )
        if adjoint_tol is None:
            adjoint_tol = self.adjoint_tol if tol is None else tol
        with self._counting_failures():
            adjoint = vjp(
                self.problem,
                solution,
                grad_y,
                adjoint0=self.adjoint if self.warm_start else None,
                rtol=adjoint_tol,
                on_failure=self.on_failure,
                **self._vjp_options,
            )
        gradient = adjoint.x
        direct = self.upper.grad_x(x, solution.y)
        if direct is not None:
            gradient = gradient + as_vector("upper.grad_x", direct, x.shape[0])
        if not is_finite(gradient):
            detail = "∂f^U/∂x or f_XYᵀ λ is not finite."
            settle(Status.NOT_FINITE, adjoint, _WHAT, detail, self.on_failure)
        self.adjoint = adjoint.adjoint
        self.n_hvp += adjoint.n_hvp
        self.n_evaluations += 1
        return HypergradientResult(
            value=value,
            gradient=namespace(x).asarray(gradient, dtype=x.dtype),
            solution=solution,
            adjoint=adjoint,
            n_hvp=solution.n_hvp + adjoint.n_hvp,
            n_grad=solution.n_grad,
            warnings=adjoint.warnings,
        )

    @contextlib.contextmanager
    def _counting_failures(self) -> Iterator[None]:
        try:
            yield
        except ConvergenceError as error:
            self.n_hvp += error.n_hvp
            self.n_grad += getattr(error.result, "n_grad", 0)
            raise

    def _upper_value(self, x: Array, solution: Solution) -> float:
        value = float(self.upper.value(x, solution.y))
        if not math.isfinite(value):
            detail = f"upper.value returned {value}."
            settle(Status.NOT_FINITE, solution, _WHAT, detail, self.on_failure)
        return value
