"""The hypergradient: value and gradient of F(x) = f^U(x, g(x)), with a warm start.

    ∇F(x) = ∂f^U/∂x − f_XYᵀ λ,    f_YY λ = ∂f^U/∂y        (the paper's equation 4)

Each evaluation estimates its own errors (``error_estimate.py``), and its solution y and
adjoint λ are the start of the next one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any, Literal

from ..arrays import (
    Array,
    as_data,
    as_tolerance,
    as_vector,
    brief,
    check_methods,
    epsilon,
    namespace,
)
from ..implicit.checked_solve import LinearSolver
from ..implicit.derivative import Adjoint, vjp
from ..preconditioners.auto import RecentSolutions
from ..problem.constants import Constants
from ..problem.problem import Problem, Solution
from ..solvers import LowerSolver, solve
from ..status import ConvergenceError, ConvergenceWarning, OnFailure
from . import upper_objective as level
from .descent_stopping import stopped_at_descent
from .error_estimate import certify, constants_at, prove, relative_error, residual
from .failed_points import FailedPoints, FailedValue, Failures
from .hessian_product import HessianProduct, HessianProducts, differenced_product
from .onto_active_set import onto_active_set
from .result import Bound, Certificate, HypergradientResult, WarmStart
from .stationarity import stopping_callback


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
        solves, too; it is not part of ``state``.
    constants : Constants or callable, optional
        True bounds, or a function (x, y) → bounds: what is proven rests on them.  By
        default the objective's own ``constants(x, y)`` with ``upper.lipschitz(metric)``,
        which linear models have.
    maxiter, adjoint_maxiter : int, optional
        Limits of the lower-level and of the adjoint solves.
    on_failure : {"raise", "warn", "ignore"}
        What to do when a solve fails.  Unless it is "ignore", ``F(x)`` warns where the
        derivative is one-sided, or a solve left more than its tolerance promises: what
        ``evaluate(x).warnings`` says.
    failed_value : "barrier" or float, optional
        For the optimisers of other libraries, whose trial points may have no lower solution:
        what ``F(x)`` and ``F.value(x)`` return there instead of raising.  "barrier": a
        finite value above the lowest so far, with a gradient that leads back, which line
        searches need; a number such as ``math.inf`` for searches that compare values.
        ``failures`` says where, how often and why; the first failure warns.  Before the
        first success ``F(x)`` raises.

    Attributes
    ----------
    n_hvp, n_grad, n_evaluations : int
        Totals so far.
    y, adjoint : array or None
        The last solution and adjoint: where the next evaluation starts.
    state : WarmStart
        All that the next evaluation depends on, and the totals, to be saved and set again.
    failures : Failures
        The points at which ``failed_value`` stood for F.

    Notes
    -----
    ``scipy.optimize.minimize(F, x0, jac=True)`` works as it is, with ``hessp=F.hessp`` for
    its methods "trust-constr" and "Newton-CG", too.  An instance is not to be shared
    between threads.

    The start is the last y, not y + g'(x) dx: on the data of ``benchmarks/driver_report.py
    predictor`` that tangent never cost less than it saved.
    """

    def __init__(
        self,
        problem: Problem,
        upper: level.UpperObjective,
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
        failed_value: FailedValue | None = None,
    ) -> None:
        if not isinstance(problem, Problem):
            raise TypeError(
                f"problem must be a Problem, found {type(problem).__name__}"
            )
        check_methods("upper", upper, "value", "grad_y", "grad_x")
        self.problem, self.upper = problem, upper
        self._y0, self._constants = y0, constants
        self.tol, self.warm_start, self.on_failure = tol, warm_start, on_failure
        self.adjoint_tol = tol if adjoint_tol is None else adjoint_tol
        failing = {"on_failure": on_failure}
        self._lower = failing | {"method": solver, "maxiter": maxiter}
        self._linear = failing | {"method": method, "M": M, "maxiter": adjoint_maxiter}
        if callable(M):
            self._lower["M"] = M
        self._last: tuple[Solution, float] | None = None  # and its tolerance
        self._valued = False  # whether it was for a value alone
        self._failed = FailedPoints(failed_value)
        # The last two evaluations: a trust region goes back to the one before a trial.
        self._recent: list[HypergradientResult] = []
        self._first: float | None = None  # F at the first point
        self._products: HessianProducts | None = None
        self.state = WarmStart()

    def __repr__(self) -> str:
        given = {
            "problem": self.problem.objective,
            "upper": self.upper,
            "tol": self.tol,
        }
        return brief("Hypergradient", given | {"n_evaluations": self.n_evaluations})

    @property
    def state(self) -> WarmStart:
        """All that the next evaluation depends on, and the totals so far."""
        recent, totals = self._adjoints, (self.n_hvp, self.n_grad, self.n_evaluations)
        return WarmStart(self.y, tuple(recent.columns), recent.niter, *totals)

    @state.setter
    def state(self, state: WarmStart) -> None:
        self.y = state.y
        self._adjoints = RecentSolutions(3, state.adjoints, state.adjoint_niter)
        self.n_hvp, self.n_grad = state.n_hvp, state.n_grad
        self.n_evaluations = state.n_evaluations

    @property
    def adjoint(self) -> Array | None:
        """The last adjoint."""
        return self._adjoints.columns[0] if self._adjoints.columns else None

    def __call__(self, x: Array) -> tuple[float, Array]:
        """Return F(x) and ∇F(x); warn where either is not what was asked for."""
        try:
            result = self.evaluate(x, certify=False)
        except ConvergenceError as error:
            return self._failed.instead(as_vector("x", x), error)
        self._failed.keep(result.solution.x, result.value, result.gradient)
        show(result.warnings, self.on_failure)
        return result.value, result.gradient

    @property
    def failures(self) -> Failures:
        """The points at which F had no value, where ``failed_value`` stood for it."""
        return self._failed.failures

    def stopping(
        self, tol: float = 1e-4, *, low: Any = None, high: Any = None
    ) -> Callable[[Any], None]:
        """Return a ``callback`` for SciPy that ends a run by the criterion of ``minimize``.

            ‖∇F‖_free ≤ tol · max(|F(x)|, 10⁻³ (F(x0) − F(x)))

        with the entries of ∇F that do not push x against a bound: a step of length one would
        lower F by no more than tol of itself.  Neither the units of F nor the start change
        what it asks for, which SciPy's own absolute tolerances do.

        Parameters
        ----------
        tol : float
        low, high : float or array (m,), optional
            The bounds that the optimiser keeps.

        Returns
        -------
        callable
            ``scipy.optimize.minimize(F, x0, jac=True, callback=F.stopping(1e-4))``, for the
            methods that stop on ``StopIteration``, as all but TNC, SLSQP and COBYLA do.
        """
        tol = as_tolerance("tol", tol)
        return stopping_callback(self._evaluated, lambda: self._first, tol, low, high)

    def _evaluated(self, x: Array) -> HypergradientResult | None:
        """Return the evaluation at x, if it is one of the last two."""
        return next((f for f in self._recent if _same(f.solution.x, x)), None)

    def hessp(self, x: Array, u: Array) -> Array:
        """Return ∇²F(x) u, for ``scipy.optimize.minimize(F, x0, jac=True, hessp=F.hessp)``.

        See :meth:`hessian_product`.  Where ``failed_value`` stands for F, that of what does.
        """
        x = as_vector("x", x)
        if self._failed.has(x):
            return self._failed.curvature(x) * as_data("u", u, x.dtype)
        found = self.hessian_product(x, u)
        show(found.caveats(math.sqrt(self.tol)), self.on_failure)
        return found.product

    def hessian_product(self, x: Array, u: Array) -> HessianProduct:
        """Return ∇²F(x) u with an estimate of its error and its cost: two linear solves.

        The active set is held: where it changes ∇F has a kink, and this is the Hessian on
        the side of the solution.  At the x of one of the last two evaluations nothing is
        solved again, and all products at one x share what is linearised.

        The third derivatives of both levels are exact where they are offered, by
        ``objective.third_product(x, y, w, dx, dy)``, which returns the derivatives of
        (f_XYᵀ w, f_YY w) along (dx, dy), and ``upper.hess_product(x, y, dx, dy)``, those of
        (∂f^U/∂x, ∂f^U/∂y), None for zero: Glm, its held-out loss and ``prior`` have them.
        Others, and those of constraints, are differences of products at six points or more
        on a line, without a solve.  Where f_XY has no products with u (``cross_jvp``), and
        with a ``penalty`` or bounds that depend on x, the gradient itself is differenced, at
        six evaluations or more.

        Raises
        ------
        ConvergenceError
            As for :meth:`evaluate`.
        """
        x = as_vector("x", x)
        # SciPy asks with whole numbers, too.
        u = as_vector("u", as_data("u", u, x.dtype, finite=False), x.shape[0])
        if HessianProducts.know(self.problem):
            if self._products is None or not _same(self._products.x, x):
                found = self._evaluated(x) or self.evaluate(x, certify=False)
                data = self.problem, self.upper, found
                options: dict[str, Any] = {"rtol": self.adjoint_tol, **self._linear}
                self._products = HessianProducts(*data, **options)
            with contextlib.suppress(NotImplementedError):  # f_XY without products
                product: HessianProduct = self._counted(self._products.product, u)
                return product
        unit = max(self.tol, self.adjoint_tol, epsilon(x))  # of gradients
        return differenced_product(
            lambda x: self.evaluate(x, certify=False), x, u, unit
        )

    def solve(self, x: Array, *, tol: float | None = None) -> Solution:
        """Solve the lower-level problem at x, from the warm start."""
        start = self._start(as_vector("x", x))
        tol = self.tol if tol is None else tol
        options = {"tol": tol, **self._lower}
        found: Solution = self._counted(solve, self.problem, x, start, **options)
        if found.active is not None:
            found = onto_active_set(self.problem, found)
        left, n_grad = residual(self.problem, found)
        self.n_grad += n_grad
        found = dataclasses.replace(found, residual=left, n_grad=found.n_grad + n_grad)
        self._remember(found, tol)
        return found.judged_for(self.problem)

    def recall(self, solution: Solution, tol: float) -> None:
        """Let the next evaluation start from an earlier solution, found to ``tol``."""
        self._remember(solution, tol)
        self._valued = True

    def _remember(self, solution: Solution, tol: float) -> None:
        last = dataclasses.replace(solution, niter=0, n_hvp=0, n_grad=0)
        self.y, self._last = solution.y, (last.judged_for(self.problem), tol)

    def _start(self, x: Array) -> Any:
        """Return the last y, or y0 where that has left the domain of a ``LogBarrier``."""
        if not self.warm_start or self.y is None:
            return self._y0
        outside = getattr(self.problem.objective, "outside", None)
        return self._y0 if callable(outside) and outside(x, self.y) else self.y

    def _counted(self, compute: Callable[..., Any], *data: Any, **options: Any) -> Any:
        """Return what ``compute`` returns; its cost is added to the totals, if it fails, too."""
        try:
            found = compute(*data, **options)
        except ConvergenceError as error:
            self.n_hvp += error.n_hvp
            self.n_grad += getattr(error.result, "n_grad", 0)
            raise
        self.n_hvp += found.n_hvp
        self.n_grad += getattr(found, "n_grad", 0)
        return found

    def value(self, x: Array, *, tol: float | None = None) -> float:
        """Return F(x) alone, which saves the adjoint solve; the last adjoint corrects it."""
        try:
            return self.corrected_value(x, tol=tol)[0]
        except ConvergenceError as error:
            return self._failed.value_instead(as_vector("x", x), error)

    def corrected_value(
        self, x: Array, *, tol: float | None = None
    ) -> tuple[float, float]:
        """Return F(x) alone and the correction in it, a measure of its error."""
        tol = self.tol if tol is None else tol
        solution, self._valued = self.solve(x, tol=tol), True
        return level.corrected_value(
            self.upper, solution, self.adjoint, self.on_failure
        )

    def evaluate(
        self,
        x: Array,
        *,
        tol: float | None = None,
        adjoint_tol: float | None = None,
        adjoint0: Any = None,
        until: Literal["tolerance", "descent"] = "tolerance",
        certify: bool = True,
    ) -> HypergradientResult:
        """Return F(x), ∇F(x), estimates of their errors, and the records of the solves.

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
            With "descent" the adjoint solve ends, as APPROXIMATE, once −gradient is proven
            to descend, as far as the error of the linear solve is concerned.  The proof
            takes products with f_XY and a lower bound of f_YY: a ``split`` of the operator,
            which linear models have, or ``constants``.  Without them, and with
            constraints, the solve goes on to its tolerance.
        certify : bool
            Estimate the errors by a Newton step, which costs its products; the next
            evaluation starts from the corrected pair.

        Raises
        ------
        ConvergenceError
            When a solve fails, f^U or a gradient is not finite.
        """
        if until not in {"tolerance", "descent"}:
            raise ValueError(f"until must be 'tolerance' or 'descent', found {until!r}")
        if adjoint_tol is None:
            adjoint_tol = self.adjoint_tol if tol is None else tol
        tol = self.tol if tol is None else tol
        solution = self._solution(x, tol)
        direct = level.gradient_x(self.upper, solution)
        warm = adjoint0 is None and self.warm_start
        start = self._adjoints.start() if warm else adjoint0
        options = {"rtol": adjoint_tol, **self._linear}
        if until == "descent" or callable(start):
            start, options["method"] = stopped_at_descent(
                self.problem,
                solution,
                direct,
                options["method"],
                start,
                until,
                lambda: constants_at(self.problem, solution, self._constants),
            )
        v = level.gradient_y(self.upper, solution)
        data = self.problem, solution, v
        adjoint: Adjoint = self._counted(vjp, *data, adjoint0=start, **options)
        of_F = level.value_and_gradient(
            self.upper, solution, adjoint, direct, self.on_failure
        )
        self._adjoints.keep(adjoint.adjoint, int(adjoint.krylov.niter))
        self.n_evaluations += 1
        error = math.nan if self.problem.constrained else relative_error(adjoint, v)
        found = HypergradientResult(*of_F, solution, adjoint, tol, adjoint_tol, error)
        if until == "tolerance" and tol <= self.tol and adjoint_tol <= self.adjoint_tol:
            self._recent = [found, *self._recent[:1]]
        self._first = found.value if self._first is None else self._first
        if certify:
            found = dataclasses.replace(found, certificate=self.certify(found))
        return found

    def certify(self, found: HypergradientResult) -> Certificate:
        """Estimate the errors of an evaluation; the next one starts from the corrected pair."""
        data = self.problem, self.upper, found, self.prove(found)
        certificate: Certificate = self._counted(certify, *data, **self._linear)
        self.y = certificate.refined.solution.y
        self._adjoints.refine(certificate.refined.adjoint)
        return certificate

    def prove(self, found: HypergradientResult) -> Bound:
        """Return what the constants prove about an evaluation; no products."""
        return prove(self.problem, self.upper, found, self._constants)

    def _solution(self, x: Array, tol: float) -> Solution:
        """Solve, or take the last solution: of this x, no looser, where y is still its own."""
        again = self.warm_start or self._valued
        self._valued = False
        if self._last is not None and again:
            (last, last_tol), x = self._last, as_vector("x", x)
            if _same(last.x, x) and last_tol <= tol and self.y is last.y:
                return last
        return self.solve(x, tol=tol)


def _same(a: Array, b: Array) -> bool:
    return a.shape == b.shape and bool(namespace(a, b).all(a == b))


def show(notes: tuple[str, ...], on_failure: OnFailure) -> None:
    """Warn of the caveats of an evaluation, in the name of the caller's caller."""
    for note in notes if on_failure != "ignore" else ():
        warnings.warn(note, ConvergenceWarning, stacklevel=3)
