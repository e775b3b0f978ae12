"""The hypergradient: x → value and gradient of F(x) = f^U(x, g(x)), warm-started.

    ∇F(x) = ∂f^U/∂x − f_XYᵀ λ,    f_YY λ = ∂f^U/∂y        (the paper's equation 4)

Each evaluation says how wrong it may be (``certificate.py``) and leaves (y, λ) for the next.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from . import certificate as certificates
from .arrays import Array, as_vector, dot, is_finite, namespace
from .certificate import Certificate, Point
from .implicit import Adjoint, vjp
from .inverse import LinearSolver
from .optimality import residual
from .problem import Problem, Solution
from .solvers import LowerSolver, solve
from .status import ConvergenceError, OnFailure, Status, settle
from .upper import UpperObjective, gradient_y, total_gradient

_WHAT = "evaluating the upper level"


@dataclasses.dataclass(frozen=True)
class WarmState:
    """All that a :class:`Hypergradient` remembers: set it, and it goes on from there.

    Attributes
    ----------
    y, adjoint : array or None
        What the next evaluation begins with.
    n_hvp, n_grad, n_evaluations : int
        Totals so far.
    """

    y: Array | None = None
    adjoint: Array | None = None
    n_hvp: int = 0
    n_grad: int = 0
    n_evaluations: int = 0


@dataclasses.dataclass(frozen=True)
class HypergradientResult:
    """The outcome of :meth:`Hypergradient.evaluate`.

    Attributes
    ----------
    value : float
        F(x), corrected: f^U(x, y) − λ' f_Y(x, y).
    correction : float
        The second term: the error of the plain value to first order.
    gradient : array (m,)
        ∇F(x), of the dtype of x.
    solution : Solution
        Of the lower-level problem.
    adjoint : Adjoint
        With the record of its linear solve.
    certificate : Certificate or None
        What is known about the errors of value and gradient.
    n_hvp, n_grad : int
        Hessian products and lower-level gradients spent in this evaluation.
    tol, adjoint_tol : float
        Tolerances of the two solves.
    warnings : tuple of str
        Caveats.
    """

    value: float
    correction: float
    gradient: Array
    solution: Solution
    adjoint: Adjoint
    certificate: Certificate | None
    n_hvp: int
    n_grad: int
    tol: float
    adjoint_tol: float
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
    state : WarmState
        All of these as one record, to be saved and set again.

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

    @property
    def state(self) -> WarmState:
        """All that the next evaluation depends on, and the totals so far."""
        return WarmState(
            **{f.name: getattr(self, f.name) for f in dataclasses.fields(WarmState)}
        )

    @state.setter
    def state(self, state: WarmState) -> None:
        for field in dataclasses.fields(state):
            setattr(self, field.name, getattr(state, field.name))

    def __call__(self, x: Array) -> tuple[float, Array]:
        """Return F(x) and ∇F(x)."""
        result = self.evaluate(x, certify=False)
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
        """Return F(x) alone, which saves the adjoint solve; the last adjoint corrects it."""
        x = as_vector("x", x)
        solution = self.solve(x, tol=tol)
        return self._value(x, solution, self.adjoint)[0]

    def evaluate(
        self,
        x: Array,
        *,
        tol: float | None = None,
        adjoint_tol: float | None = None,
        certify: bool = True,
    ) -> HypergradientResult:
        """Return F(x), ∇F(x), what is known of their errors, and the records of the solves.

        Parameters
        ----------
        x : array (m,)
        tol, adjoint_tol : float, optional
            For this evaluation alone; looser ones cost less.
        certify : bool
            Estimate the errors, for a Newton step's worth of products; the next
            evaluation starts from where that step led.

        Raises
        ------
        ConvergenceError
            When a solve fails, f^U or a gradient is not finite.
        """
        x = as_vector("x", x)
        if adjoint_tol is None:
            adjoint_tol = self.adjoint_tol if tol is None else tol
        tol = self.tol if tol is None else tol
        solution = self.solve(x, tol=tol)
        grad_y = gradient_y(self.upper, x, solution.y)
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
        gradient = total_gradient(self.upper, x, solution.y, adjoint.x)
        if not is_finite(gradient):
            detail = "∂f^U/∂x or f_XYᵀ λ is not finite."
            settle(Status.NOT_FINITE, adjoint, _WHAT, detail, self.on_failure)
        gradient = namespace(x).asarray(gradient, dtype=x.dtype)
        value, correction, n_grad = self._value(x, solution, adjoint.adjoint)
        self.adjoint = adjoint.adjoint
        self.n_hvp += adjoint.n_hvp
        self.n_evaluations += 1
        certificate, n_hvp = None, solution.n_hvp + adjoint.n_hvp
        if certify:
            point = Point(solution, adjoint.adjoint, value, gradient)
            certificate = self._certify(point)
            n_hvp += certificate.n_hvp
            n_grad += certificate.n_grad
        return HypergradientResult(
            value=value,
            correction=correction,
            gradient=gradient,
            solution=solution,
            adjoint=adjoint,
            certificate=certificate,
            n_hvp=n_hvp,
            n_grad=solution.n_grad + n_grad,
            tol=tol,
            adjoint_tol=adjoint_tol,
            warnings=adjoint.warnings,
        )

    def certify(self, found: HypergradientResult) -> Certificate:
        """Estimate the errors of an evaluation that was made without."""
        return self._certify(
            Point(found.solution, found.adjoint.adjoint, found.value, found.gradient)
        )

    def _certify(self, point: Point) -> Certificate:
        certificate = certificates.certify(
            self.problem, self.upper, point, **self._vjp_options
        )
        self.y = certificate.refined.solution.y
        self.adjoint = certificate.refined.adjoint
        self.n_hvp += certificate.n_hvp
        self.n_grad += certificate.n_grad
        return certificate

    @contextlib.contextmanager
    def _counting_failures(self) -> Iterator[None]:
        try:
            yield
        except ConvergenceError as error:
            self.n_hvp += error.n_hvp
            self.n_grad += getattr(error.result, "n_grad", 0)
            raise

    def _value(
        self, x: Array, solution: Solution, adjoint: Array | None
    ) -> tuple[float, float, int]:
        """Return the value, corrected where there is an adjoint; by what; the gradients."""
        value, correction, n_grad = float(self.upper.value(x, solution.y)), 0.0, 0
        if adjoint is not None:
            left, n_grad = residual(self.problem, solution)
            self.n_grad += n_grad
            correction = -dot(adjoint, left)
            value += correction
        if not math.isfinite(value):
            detail = f"upper.value returned {value}."
            settle(Status.NOT_FINITE, solution, _WHAT, detail, self.on_failure)
        return value, correction, n_grad
