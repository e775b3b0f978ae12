"""Linear solves with K at a checked solution: K z = rhs, the outcome checked as well.

    K symmetric: u'Kv = v'Ku is tested where it is not known

CG without constraints, otherwise what ``krylov.saddle_point`` chooses.  Errors and
warnings are raised here, so that ``derivative.py`` contains the formula alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypedDict

import numpy as np

from .. import krylov
from ..arrays import (
    Array,
    as_floating,
    asarray,
    epsilon,
    is_finite,
    namespace,
    norm,
    zeros,
)
from ..krylov import KrylovResult
from ..krylov.saddle_point import SaddlePoint
from ..operators.checked_products import asymmetry, symmetry_tolerance
from ..operators.linear_operator import LinearOperator
from ..preconditioners import Auto, Choice, constraint_of, galerkin_start
from ..preconditioners.auto.choice import preconditioned_solve, relative_residual
from ..problem.optimality import check_conditions, complete
from ..problem.problem import Problem, Solution
from ..status import OnFailure, Status, check_on_failure, raise_or_warn, warn_poor
from .kkt import KKTSystem, linearize

LinearSolver = Callable[..., KrylovResult]

_METHODS: dict[str, LinearSolver] = {
    "cg": krylov.cg,
    "minres": krylov.minres,
    "diagonal": krylov.diagonal,
    "projected_cg": krylov.cg,  # without constraints
}


class SolveOptions(TypedDict, total=False):
    """Options of the linear solves, described at :func:`sparse_argdiff.derivative`."""

    method: str | LinearSolver | None
    M: Any
    rtol: float
    maxiter: int | None
    stationarity: float
    on_failure: OnFailure


class LinearizedSolve:
    """The conditions linearised at a checked solution; a call solves K z = rhs.

    Attributes
    ----------
    system : KKTSystem
    n_hvp : int
        Products with K so far, those of checks included.
    warnings : tuple of str
        Caveats of the solution and of K.
    """

    def __init__(
        self,
        problem: Problem,
        solution: Solution,
        *,
        method: str | LinearSolver | None = None,
        M: Any = "auto",
        rtol: float = 1e-8,
        maxiter: int | None = None,
        stationarity: float = 1e-3,
        on_failure: OnFailure = "raise",
    ) -> None:
        if on_failure != "raise":
            check_on_failure(on_failure)
        solution, self.n_hvp = _checked(problem, solution, stationarity, on_failure)
        self.system: KKTSystem = linearize(problem, solution)
        self.on_failure: OnFailure = on_failure
        self.like = solution.y
        # What a functools.partial fixes is not overridden.
        fixed = getattr(method, "keywords", {})
        options: dict[str, Any] = {"rtol": rtol, "maxiter": maxiter}
        self.options = {k: option for k, option in options.items() if k not in fixed}
        constrained = self.system.C is not None
        self.choice: Choice | None = None
        self.null_space: Any = None
        if constrained and method in (None, "projected_cg", "minres"):
            self.solver, self.null_space, n_setup = _saddle_point(
                self.system, M, method
            )
            self.n_hvp += n_setup
        else:
            self.solver = linear_solver(method)
            if "M" not in fixed and method != "diagonal":
                by_default = constrained and isinstance(M, str | Auto)
                self.choice = Choice(None if by_default else M)
        notes = (*solution.warnings, self.system.K.note, _one_sided(solution))
        self.warnings = tuple(dict.fromkeys(note for note in notes if note))

    def __call__(self, rhs: Array, start: Array | None = None) -> KrylovResult:
        """Solve K z = rhs, (N,) or (N, k); of several starts the best combination."""
        K = self.system.K
        if start is not None and start.ndim > rhs.ndim:
            if self.system.C is None:
                start, n_matvec = galerkin_start(K, rhs, start)
                self.n_hvp += n_matvec
            else:
                start = start[:, 0]
        result, n_matvec = preconditioned_solve(
            self.solver, self.choice, K, rhs, start, **self.options
        )
        self.n_hvp += n_matvec + result.n_matvec
        # In each solve: K may be symmetric along one solution by chance.
        testable = 0 not in result.x.shape and result.status is not Status.NOT_FINITE
        if testable and not K.symmetric:
            self.n_hvp += 1
            if not _is_symmetric_along(K, rhs, result):
                result = dataclasses.replace(
                    result,
                    status=Status.NOT_SYMMETRIC,
                    converged=result.converged & False,
                )
        if result.status is Status.CONVERGED:
            return result
        self._report(rhs, result)
        return result if result.status.acceptable else _without_zeros(rhs, result)

    def _report(self, rhs: Array, result: KrylovResult) -> None:
        """Raise or warn, as the caller chose, where the status asks for it."""
        status, attained = result.status, relative_residual(rhs, result)
        detail = (
            f"after {result.niter} iterations and {result.n_matvec} products the "
            f"relative residual is {attained:.1e}."
        )
        if status is Status.INCONSISTENT:
            detail = _violation(self.system, rhs, result)
        elif status is Status.STAGNATED and self.system.C is not None:
            missed = _violation(self.system, rhs, result)
            detail = f"{detail} {missed} The rows are too close to dependent."
        self._fail(status, result, "the linear solve K x = b", detail)
        half_the_digits = math.sqrt(epsilon(rhs))
        if status is Status.ROUNDING_LIMIT and attained > half_the_digits:
            warn_poor(
                "the linear solve ended at the rounding limit with a relative residual "
                f"of {attained:.1e}. {status.value}",
                self.on_failure,
            )

    def _fail(self, status: Status, result: Any, what: str, detail: str) -> None:
        raise_or_warn(status, result, what, detail, self.on_failure, self.n_hvp)

    def push_forward(self, u: Array, start: Array | None = None) -> KrylovResult:
        """Solve K z = B u; where B u = 0 any K gives 0, so that K is tested otherwise."""
        rhs = self.system.B @ u
        if 0 not in rhs.shape and _vanishes(rhs) and not _vanishes(u):
            rng = np.random.default_rng(0)
            self(asarray(rng.standard_normal(rhs.shape[0]), rhs))
        return self(rhs, start)

    def pull_back(self, adjoint: Array) -> Array:
        """Return − Bᵀ adjoint, checked."""
        moved = self._motion_of_dependent_rows
        if moved > math.sqrt(epsilon(adjoint)):
            self._fail(
                Status.INCONSISTENT,
                None,
                "differentiating the constraints",
                f"their right-hand side moves with x, {moved:.1e} of it against "
                "the rows that depend on others.",
            )
        product = -(self.system.B.T @ adjoint)
        if is_finite(adjoint) and not is_finite(product):
            what = "the product with the cross derivative"
            self._fail(Status.NOT_FINITE, product, what, "f_XYᵀ λ is not finite.")
        return product

    @cached_property
    def _motion_of_dependent_rows(self) -> float:
        """How far x moves rows of C apart that depend on each other, relatively.

        An adjoint solve, whose right-hand side is zero on them, does not fail: instead
        (0, w) with C'w = 0 must be orthogonal to the columns of B.
        """
        rows = self.null_space
        if rows is None or rows.rank in {None, rows.shape[0]}:
            return 0.0
        B, xp, (p, k) = self.system.B, namespace(self.like), rows.shape
        w = rows.redundancy(
            asarray(np.random.default_rng(0).standard_normal(p), self.like)
        )
        none = zeros((k,), self.like)
        moved = norm(B.T @ xp.concat([none, w]))
        size = norm(B.T @ xp.concat([none, xp.abs(w)]))
        return moved / size if size > 0.0 else moved

    def vector(self, name: str, value: Any, size: int, *, block: bool = False) -> Array:
        """Return a checked vector of the solution's array type; or several as columns."""
        value = as_floating(name, value, ndim=(1, 2) if block else (1,))
        namespace(value, self.like)
        if value.shape[0] != size:
            expected = f"{size} rows" if value.ndim == 2 else f"shape ({size},)"
            found = tuple(value.shape)
            raise ValueError(f"{name} must have {expected}, found shape {found}")
        return value


def _checked(
    problem: Problem, solution: Solution, tolerance: float, on_failure: OnFailure
) -> tuple[Solution, int]:
    """Return the completed solution and the Hessian products spent; refuse other points."""
    if not isinstance(solution, Solution):
        raise TypeError(
            f"solution must be a Solution, found {type(solution).__name__}; wrap "
            "arrays as Solution(y=..., x=...)"
        )
    status, detail, n_hvp = solution.status, "the lower-level solve failed.", 0
    if status is None:
        check = check_conditions(problem, solution, tolerance, "stationarity")
        solution, status, detail, _, n_hvp = check
    elif problem.constrained:
        solution = complete(problem, solution)
    if status is not Status.CONVERGED:
        what = "differentiating the solution"
        raise_or_warn(status, solution, what, detail, on_failure)
    return solution, n_hvp


def linear_solver(method: str | LinearSolver | None) -> LinearSolver:
    """Return the solver of that name, or the given function; CG by default."""
    if method is None or callable(method):
        return method or krylov.cg
    if method not in _METHODS:
        known = ", ".join(repr(name) for name in _METHODS)
        raise ValueError(
            f"method must be one of {known} or a solver function, found {method!r}"
        )
    return _METHODS[method]


def _saddle_point(
    system: KKTSystem, M: Any, method: Any
) -> tuple[LinearSolver, Any, int]:
    """Return the solver of constrained conditions, its null space, and the cost of M."""
    H, C, n_matvec = system.H, system.C, 0
    if isinstance(M, str) and M != "auto":
        raise ValueError(f"M must be an operator, 'auto' or None, found {M!r}")
    if isinstance(M, str | Auto):
        M = constraint_of(H, C)
    elif callable(M) and not hasattr(M, "shape"):
        M = M(system.K)
        n_matvec = getattr(M, "n_matvec", 0)
    saddle = SaddlePoint(H, C, M, method=method)

    def solver(_: Any, rhs: Array, x0: Any = None, **options: Any) -> KrylovResult:
        return saddle.solve(rhs, x0, **options)

    return solver, saddle.null_space, n_matvec


def _one_sided(solution: Solution) -> str:
    active = solution.active
    if active is None or not active.degenerate:
        return ""
    return (
        "some constraints are weakly active: the derivative is one-sided there, and this "
        "is the one with them inactive; LogBarrier gives the average of both sides"
    )


def _without_zeros(rhs: Array, failed: KrylovResult) -> KrylovResult:
    """Return NaN where a failed solve is still at zero, which would pass for an answer."""
    xp = namespace(rhs)
    void = xp.all(failed.x == 0.0, axis=0) & xp.any(rhs != 0.0, axis=0)
    x = xp.where(void, xp.full_like(failed.x, math.nan), failed.x)
    return dataclasses.replace(failed, x=x)


def _vanishes(values: Array) -> bool:
    return not bool(namespace(values).any(values != 0.0))


def _violation(system: KKTSystem, rhs: Array, result: KrylovResult) -> str:
    """Return by how much C y misses its right-hand side, as a sentence."""
    k, xp = system.H.shape[0], namespace(rhs)
    missed, whole = (float(xp.max(xp.abs(v[k:, ...]))) for v in (result.residual, rhs))
    return f"C y misses c by {missed:.1e} in a row, where |c| is {whole:.1e} at most."


def _is_symmetric_along(K: LinearOperator, rhs: Array, result: KrylovResult) -> bool:
    """Test u'Kv = v'Ku for the solution u, whose product is known; NaN fails."""
    u, Ku = result.x, rhs - result.residual
    if u.ndim == 2:
        # A random combination of the columns, each scaled to size one.
        sizes = [norm(rhs[:, j]) or 1.0 for j in range(rhs.shape[1])]
        random = np.random.default_rng(1).standard_normal(u.shape[1]) / sizes
        weights = asarray(random, u)
        u, Ku = u @ weights, Ku @ weights
    return asymmetry(K, u, Ku) <= symmetry_tolerance(K, u)
