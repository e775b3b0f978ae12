"""The hypergradient: x → value and gradient of F(x) = f^U(x, g(x)), warm-started.

    ∇F(x) = ∂f^U/∂x − f_XYᵀ λ,    f_YY λ = ∂f^U/∂y        (the paper's equation 4)

Each evaluation says how wrong it may be (``error_estimate.py``) and leaves (y, λ) for the next.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

from ..arrays import Array, copied_vector, dot, is_finite, namespace
from ..implicit.checked_solve import LinearSolver
from ..implicit.derivative import Adjoint, vjp
from ..preconditioners.deflation import start_from
from ..problem.objective import Constants
from ..problem.optimality import residual
from ..problem.problem import Problem, Solution
from ..solvers import LowerSolver, solve
from ..status import ConvergenceError, OnFailure, Status, raise_or_warn
from . import error_estimate as certificates
from .descent_stopping import Refinement
from .error_bound import Bound
from .error_estimate import Certificate, Point
from .result import HypergradientResult, WarmState
from .upper_objective import UpperObjective, gradient_y, total_gradient, value_of

Until = Literal["tolerance", "descent"]

_WHAT = "evaluating the upper level"


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
        Of the adjoint solves, see :func:`derivative`.  An M that is a function, such as
        one ``preconditioners.Auto()`` for the whole sequence, serves the lower-level
        solves, too; it is not part of ``state``, nor of a checkpoint.
    constants : Constants or callable, optional
        True bounds, or a function (x, y) → bounds: what is proven rests on them.  By
        default the objective's own ``constants(x, y)`` with ``upper.lipschitz(metric)``,
        which linear models have.
    maxiter, adjoint_maxiter : int, optional
        Limits of the lower-level and of the adjoint solves.
    on_failure : {"raise", "warn", "ignore"}
        What to do when a solve fails.

    Attributes
    ----------
    n_hvp, n_grad, n_evaluations : int
        Totals so far.
    y, adjoint, older, adjoint_niter
        The warm start, see :class:`WarmState`.
    state : WarmState
        All of these as one record, to be saved and set again.

    Notes
    -----
    ``scipy.optimize.minimize(F, x0, jac=True)`` works as it is.  An instance is not to
    be shared between threads.

    The start is the last y, not y + g'(x) dx: on the data of ``benchmarks/driver_report.py
    predictor`` that tangent never cost less than it saved.
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
        constants: Constants | Callable[[Array, Array], Constants | None] | None = None,
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
        self._constants = constants
        self._solve_options: dict[str, Any] = {"method": solver, "maxiter": maxiter}
        if callable(M):
            self._solve_options["M"] = M
        self._vjp_options: dict[str, Any] = {
            "method": method,
            "M": M,
            "maxiter": adjoint_maxiter,
        }
        self._y0 = y0
        self.y: Array | None = None
        self.adjoint: Array | None = None
        self.older: tuple[Array, ...] = ()
        self.adjoint_niter = 0
        self._paid: tuple[Solution, float] | None = None
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

    def _solved(self, x: Array, tol: float) -> Solution:
        """Solve, unless the value at this very x has just been asked for."""
        paid, self._paid = self._paid, None
        if paid is None or paid[1] != tol or not bool(namespace(x).all(paid[0].x == x)):
            return self.solve(x, tol=tol)
        return paid[0]

    def value(self, x: Array, *, tol: float | None = None) -> float:
        """Return F(x) alone, which saves the adjoint solve; the last adjoint corrects it."""
        return self.corrected_value(x, tol=tol)[0]

    def corrected_value(
        self, x: Array, *, tol: float | None = None
    ) -> tuple[float, float]:
        """Return F(x) alone and the correction in it, a measure of its error."""
        x = copied_vector("x", x)
        tol = self.tol if tol is None else tol
        solution = self.solve(x, tol=tol)
        self._paid = (dataclasses.replace(solution, n_hvp=0, n_grad=0), tol)
        return self._value(x, solution, self.adjoint)

    def evaluate(
        self,
        x: Array,
        *,
        tol: float | None = None,
        adjoint_tol: float | None = None,
        adjoint0: Any = None,
        until: Until = "tolerance",
        certify: bool = True,
    ) -> HypergradientResult:
        """Return F(x), ∇F(x), what is known of their errors, and the records of the solves.

        Parameters
        ----------
        x : array (m,)
        tol, adjoint_tol : float, optional
            For this evaluation alone; looser ones cost less.
        adjoint0 : array (n,), or function of K, optional
            Start of the adjoint solve instead of the warm one: an array, or a function
            that takes K and returns M ≈ K⁻¹, for M ∂f^U/∂y, such as the builders in
            ``preconditioners``.
        until : {"tolerance", "descent"}
            With "descent" the adjoint solve ends once −gradient is shown to descend, as
            far as the linear solve goes: one product certifies the start, which is
            refined from where it stands only if that fails.
        certify : bool
            Estimate the errors, for a Newton step's worth of products; the next
            evaluation starts from where that step led.

        Raises
        ------
        ConvergenceError
            When a solve fails, f^U or a gradient is not finite.
        """
        if until not in {"tolerance", "descent"}:
            raise ValueError(f"until must be 'tolerance' or 'descent', found {until!r}")
        x = copied_vector("x", x)
        if adjoint_tol is None:
            adjoint_tol = self.adjoint_tol if tol is None else tol
        tol = self.tol if tol is None else tol
        solution = self._solved(x, tol)
        left, n_grad = residual(self.problem, solution)
        solution = dataclasses.replace(solution, residual=left)
        self.n_grad += n_grad
        grad_y = gradient_y(self.upper, x, solution.y)
        direct = self.upper.grad_x(x, solution.y)
        builder = adjoint0 if callable(adjoint0) else None
        if builder is not None and self.problem.constrained:
            raise ValueError(
                "adjoint0 must be an array for a problem with constraints, found a "
                "function: it would have to be an inverse of the whole KKT matrix"
            )
        start = self._start() if adjoint0 is None else adjoint0
        options = dict(self._vjp_options)
        # With constraints the solve is as cheap as projections make it, and is not cut.
        descent = until == "descent" and not self.problem.constrained
        if descent or builder is not None:
            options["method"] = Refinement(
                options["method"],
                builder,
                self.problem.cross(x, solution.y),
                direct,
                descent,
            )
        with self._counting_failures():
            adjoint = vjp(
                self.problem,
                solution,
                grad_y,
                adjoint0=None if builder is not None else start,
                rtol=adjoint_tol,
                on_failure=self.on_failure,
                **options,
            )
        gradient = total_gradient(self.upper, x, solution.y, adjoint.x)
        if not is_finite(gradient):
            detail = "∂f^U/∂x or f_XYᵀ λ is not finite."
            raise_or_warn(Status.NOT_FINITE, adjoint, _WHAT, detail, self.on_failure)
        gradient = namespace(x).asarray(gradient, dtype=x.dtype)
        value, correction = self._value(x, solution, adjoint.adjoint)
        self._keep(adjoint)
        self.n_hvp += adjoint.n_hvp
        self.n_evaluations += 1
        found = HypergradientResult(
            value=value,
            correction=correction,
            gradient=gradient,
            solution=solution,
            adjoint=adjoint,
            certificate=None,
            n_hvp=solution.n_hvp + adjoint.n_hvp,
            n_grad=solution.n_grad + n_grad,
            tol=tol,
            adjoint_tol=adjoint_tol,
            warnings=adjoint.warnings,
        )
        if not certify:
            return found
        certificate = self.certify(found)
        return dataclasses.replace(
            found,
            certificate=certificate,
            n_hvp=found.n_hvp + certificate.n_hvp,
            n_grad=found.n_grad + certificate.n_grad,
        )

    def certify(self, found: HypergradientResult) -> Certificate:
        """Say what is proven and estimated of an evaluation that was made without."""
        parts = self.problem, self.upper, self._point(found), self.prove(found)
        certificate = certificates.certify(*parts, **self._vjp_options)
        self.y = certificate.refined.solution.y
        self.adjoint = certificate.refined.adjoint
        self.n_hvp += certificate.n_hvp
        self.n_grad += certificate.n_grad
        return certificate

    def prove(self, found: HypergradientResult) -> Bound:
        """Return what constants prove about an evaluation; no products."""
        point = self._point(found)
        return certificates.prove(self.problem, self.upper, point, self._constants)

    @staticmethod
    def _point(found: HypergradientResult) -> Point:
        return Point(
            found.solution,
            found.adjoint.adjoint,
            found.value,
            found.gradient,
            found.adjoint.krylov.residual,
        )

    def _start(self) -> Array | None:
        """Return the last adjoint, or the last three where the last solve was long."""
        if not self.warm_start or self.adjoint is None:
            return None
        return start_from([self.adjoint, *self.older], self.adjoint_niter)

    def _keep(self, adjoint: Adjoint) -> None:
        if self.adjoint is not None and self.adjoint.shape == adjoint.adjoint.shape:
            self.older = (self.adjoint, *self.older)[:2]
        self.adjoint = adjoint.adjoint
        self.adjoint_niter = int(adjoint.krylov.niter)

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
    ) -> tuple[float, float]:
        """Return the value, corrected where there is an adjoint, and by what."""
        value, correction = value_of(self.upper, x, solution.y), 0.0
        if adjoint is not None:
            left, n_grad = residual(self.problem, solution)
            self.n_grad += n_grad
            correction = -dot(adjoint, left)
            value += correction
        if not math.isfinite(value):
            detail = f"upper.value returned {value}."
            raise_or_warn(Status.NOT_FINITE, solution, _WHAT, detail, self.on_failure)
        return value, correction


__all__ = ["Hypergradient", "HypergradientResult", "WarmState"]
