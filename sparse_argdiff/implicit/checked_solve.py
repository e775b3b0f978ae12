"""Linear solves with K at a checked solution: K z = rhs, the outcome checked as well.

    u'K v = v'K u           K is symmetric, tested where it is not known
    K z = random            has a solution: the minimiser is isolated
    C'w = 0  ⇒  h_X'w = 0   rows that depend on each other move together

CG without constraints, otherwise what ``krylov.saddle_point`` chooses; a small explicit K
is factorised.  Errors and warnings are raised here, so that ``derivative.py`` contains the
formula alone.
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
    as_tolerance,
    asarray,
    check_on_failure,
    dot,
    epsilon,
    is_finite,
    namespace,
    norm,
    zeros,
)
from ..krylov import KrylovResult
from ..krylov.direct import LARGEST as LARGEST_FACTOR
from ..krylov.direct import (
    KeptSolve,
    ReducedFactor,
    ReducedNullSpace,
    reduced_factor,
)
from ..krylov.graded_factor import GradedFactor, graded_factor
from ..krylov.saddle_point import SaddlePoint
from ..operators.block_matrices import is_explicit, is_factorable
from ..operators.linear_operator import LinearOperator, aslinearoperator
from ..operators.probes import Probe
from ..preconditioners import Auto, Choice, constraint_of, galerkin_start
from ..preconditioners.auto import preconditioned_solve, relative_residual
from ..preconditioners.jacobi import jacobi_where_definite
from ..problem.multipliers import complete
from ..problem.optimality import is_as_left
from ..problem.problem import Problem, Solution
from ..problem.stationarity_check import check_conditions
from ..status import OnFailure, Status, raise_or_warn, warn_poor
from .caveats import inaccuracy, moved, moved_apart, one_sided
from .dependent_rows import motion_of_dependent_rows
from .kkt import KKTSystem, linearize
from .nearest_solution import nearest_solution
from .support_system import linearize_on_support

LinearSolver = Callable[..., KrylovResult]

FEW = 32  # unknowns up to which a Hessian known by products alone is formed
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
    warnings : tuple of str
        Caveats of the solution and of K.
    derivative_caveats : tuple of str
        Those that make the derivative another one: weakly active constraints, and the
        error of a y from elsewhere.
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
        own_arrays: bool = False,
    ) -> None:
        check_on_failure(on_failure)
        if stationarity != math.inf:
            stationarity = as_tolerance("stationarity", stationarity)
        solution, self._n_hvp, inaccurate = checked_solution(
            problem, solution, stationarity, on_failure
        )
        solution = _with_own_arrays(solution) if own_arrays else solution
        linearized = linearize_on_support if problem.nonsmooth else linearize
        self.system: KKTSystem = linearized(problem, solution)
        self.on_failure: OnFailure = on_failure
        self.like = solution.y
        # What a functools.partial fixes is not overridden.
        self._fixed = getattr(method, "keywords", {})
        rtol = as_tolerance("rtol", rtol)
        self.rtol = self._fixed.get("rtol", rtol)
        options: dict[str, Any] = {"rtol": rtol, "maxiter": maxiter}
        self.options = {k: o for k, o in options.items() if k not in self._fixed}
        self._probe = Probe(self.system.H, self.like)
        exact = not callable(method) and method != "diagonal"
        self._definite = method != "minres"
        self._isolated = not exact or self.system.H.positive_definite
        self.choice: Choice | None = None
        self._fallback: LinearOperator | None = None
        self._in_metric = isinstance(M, str | Auto)
        self._asked = method, M
        self._factor: ReducedFactor | None = None
        by_default = method is None and isinstance(M, str) and M == "auto"
        self._kept = _kept_solve(self.system, solution) if by_default else None
        self._graded = None
        if by_default:
            self._graded, n_hvp = _graded_of_small(self.system, self._kept, self.like)
            self._n_hvp += n_hvp
        if self._kept is None:
            self._set_up(exact)
        else:
            self.null_space: Any = self._kept
            self._isolated = self._isolated or self._kept.factor.isolated
        caveats: tuple[str, ...] = (inaccurate,)
        if solution.active is not None:
            caveats += one_sided(solution), moved_apart(problem, solution)
        self.derivative_caveats = tuple(note for note in caveats if note)
        notes = (*solution.warnings, self.system.K.note, *self.derivative_caveats)
        self.warnings = tuple(dict.fromkeys(note for note in notes if note))

    def _set_up(self, exact: bool) -> None:
        """Choose the solver, where no factor is kept or it does not solve."""
        self._kept = None
        self._factor = _factor_of_small(self.system, self._probe) if exact else None
        self.solver, self.null_space = self._solver_for(*self._asked)

    @property
    def n_hvp(self) -> int:
        """Products with K so far, those of checks included."""
        return self._n_hvp + self._probe.n_matvec

    def _solver_for(self, method: Any, M: Any) -> tuple[LinearSolver, Any]:
        """Return the solver, and the projections on C where it has them."""
        by_default = self._in_metric
        if isinstance(M, str) and M != "auto":
            raise ValueError(f"M must be an operator, 'auto' or None, found {M!r}")
        if self.system.C is not None and method in (None, "projected_cg", "minres"):
            saddle, n_setup = _saddle_point(
                self.system, M, method, self._factor, self._probe
            )
            self._n_hvp += n_setup
            return _solver_of(saddle), saddle.null_space
        if "M" in self._fixed or method == "diagonal":
            return linear_solver(method), None
        if by_default and self.system.C is not None:
            M = None
        elif by_default and self._factor is not None and self._factor.status is None:
            M = self._factor.operator()
        elif by_default and not self.system.H.has_diagonal:
            scale = self._probe.scale
            self._fallback = None if scale is None else jacobi_where_definite(scale)
        self.choice = Choice(M)
        return linear_solver(method), None

    def __call__(
        self, rhs: Array, start: Array | None = None, *, loosely: float = 0.0
    ) -> KrylovResult:
        """Solve K z = rhs, (N,) or (N, k); of several starts the best combination.

        ``loosely``: a relative tolerance that is enough, if it is the larger one.
        """
        K = self.system.K
        solved: Any = (
            None if self._graded is None else self._graded.solve(np.asarray(rhs))
        )
        if solved is not None:
            self._n_hvp += rhs.size // rhs.shape[0]
            return _exact_result(K, rhs, solved, self.like.shape[0])
        if self._kept is not None:
            found = self._kept(K, rhs, max(self.rtol, loosely))
            if found is not None:
                self._n_hvp += found.n_matvec
                return found
            if self._kept.factor.singular:
                detail = "H is singular on the null space of the active rows."
                self._fail(Status.SINGULAR, None, "the linear solve K x = b", detail)
            self._set_up(exact=True)
        if start is not None and start.ndim > rhs.ndim:
            if self.system.C is None:
                start, n_matvec = galerkin_start(K, rhs, start)
                self._n_hvp += n_matvec
            else:
                start = start[:, 0]
        options = dict(self.options)
        if loosely > self.rtol and "rtol" in options:
            options["rtol"] = loosely
        result, n_matvec = preconditioned_solve(
            self.solver, self.choice, K, rhs, start, fallback=self._fallback, **options
        )
        self._n_hvp += n_matvec + result.n_matvec
        result = self._checked_result(rhs, result)
        if result.status is not Status.CONVERGED:
            self._report(rhs, result)
        return result if result.status.acceptable else _without_zeros(rhs, result)

    def _checked_result(self, rhs: Array, result: KrylovResult) -> KrylovResult:
        """Return the result with the status that K deserves."""
        status, factor = result.status, self._factor
        if 0 in result.x.shape or status is Status.NOT_FINITE:
            return result
        # In each solve: K may be symmetric along one solution by chance.
        known = self.system.K.symmetric or (factor is not None and factor.symmetric)
        if not (known or self._is_symmetric_along(rhs, result)):
            status = Status.NOT_SYMMETRIC
        elif self._definite and status.acceptable and factor is not None:
            indefinite = factor.status is Status.NEGATIVE_CURVATURE
            status = Status.NEGATIVE_CURVATURE if indefinite else status
        if status is result.status:
            return result
        direction = result.direction if factor is None else factor.direction
        return dataclasses.replace(
            result,
            status=status,
            converged=result.converged & False,
            direction=direction,
        )

    def _is_symmetric_along(self, rhs: Array, result: KrylovResult) -> bool:
        """Test u'H z = z'H u for the solution u, whose product is known; NaN fails.

        (H − H') u is a residual of the transposed system.  Along a random z, in units that
        make all rows count alike, ten times as much is allowed as the solve may leave,
        and what rounding makes of the two sums.
        """
        xp, (z, Hz) = namespace(self.like), self._probe.pair
        n, C, d = z.shape[0], self.system.C, self._probe.scale
        u, whole, b = result.x, rhs - result.residual, rhs
        if u.ndim == 2:
            # A random combination of the columns, each scaled to size one.
            sizes = [norm(rhs[:, j]) or 1.0 for j in range(rhs.shape[1])]
            random = np.random.default_rng(1).standard_normal(u.shape[1]) / sizes
            u, whole, b = (v @ asarray(random, v) for v in (u, whole, rhs))
        Hu = whole[:n] if C is None else whole[:n] - aslinearoperator(C).T @ u[n:]
        skew = abs(dot(u[:n], Hz) - dot(z, Hu))
        unit = max(epsilon(u), self.system.K.accuracy or 0.0)
        terms = dot(xp.abs(u[:n]), xp.abs(Hz)) + dot(xp.abs(z), xp.abs(Hu))
        root = 1.0 if d is None else xp.sqrt(d)
        size = norm(b[:n] / root) + norm(Hu / root)
        return skew <= 10.0 * self.rtol * size + 32.0 * unit * terms

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

    def _right_hand_side(
        self, name: str, given: Array, product: Callable[[Array], Array]
    ) -> Array:
        """Return the product with a seed, or with columns; NaN where one is not finite."""
        if is_finite(given):
            return product(given)
        detail = f"{name} has NaN or infinity."
        self._fail(Status.NOT_FINITE, given, "the product with the derivative", detail)
        xp = namespace(given)
        sound = xp.isfinite(given)
        rhs = product(xp.where(sound, given, 0.0 * self.like[0]))
        lost = xp.full_like(rhs, math.nan)
        return xp.where(xp.all(sound, axis=0), rhs, lost)

    def solve_adjoint(
        self, v: Array, start: Array | None = None, multipliers: Array | None = None
    ) -> KrylovResult:
        """Solve K λ = (v, 0), or (v, multipliers)."""

        def rhs(v: Array) -> Array:
            return self.system.right_hand_side(v, multipliers)

        return self(self._right_hand_side("v", v, rhs), start)

    def push_forward(self, u: Array, start: Array | None = None) -> KrylovResult:
        """Solve K z = B u, where the minimiser is isolated."""
        self._count_motion(u)
        rhs = self._right_hand_side("u", u, lambda u: self.system.B @ u)
        if not (self._isolated or _vanishes(u)):
            self._isolated = self._check_isolated()
        return self(rhs, start)

    def _count_motion(self, of: Array) -> None:
        """Count the products with H that variables held at moving bounds take."""
        if self.system.motion is not None:
            self._n_hvp += 1 if of.ndim == 1 else int(of.shape[1])

    def _check_isolated(self) -> bool:
        """Refuse a singular K: B u may be in its range, and z is then not unique.

        A random right-hand side is not: but for one case in a hundred its part in the null
        space is a hundredth of 1 / √n of it, which a loose solve does not reach.
        """
        n, (k, _) = self.system.H.shape[0], self.system.B.shape
        if n == 0 or (self._graded is not None and self._graded.regular):
            return True
        if self._factor is not None:
            status = self._factor.status
            if status is Status.SINGULAR:
                what = "differentiating the solution"
                detail = "the Hessian is singular on the null space of the active rows."
                self._fail(status, self._factor.direction, what, detail)
            return status is None
        xp = namespace(self.like)
        random = asarray(np.random.default_rng(0).standard_normal(n), self.like)
        scale = self._probe.scale if self._in_metric else None
        if scale is not None:
            random = random * xp.sqrt(scale)
        rhs = xp.concat([random, zeros((k - n,), self.like)])
        return self(rhs, loosely=0.01 / math.sqrt(n)).status.acceptable

    def pull_back(self, adjoint: Array, v: Array) -> Array:
        """Return g'(x)ᵀ v = − Bᵀ adjoint + motionᵀ v, checked."""
        moved = 0.0 if self.system.C is None else self._motion_of_dependent_rows
        if moved > math.sqrt(epsilon(adjoint)):
            self._fail(
                Status.INCONSISTENT,
                None,
                "differentiating the constraints",
                f"their right-hand side moves with x, {moved:.1e} of it against "
                "the rows that depend on others.",
            )
        self._count_motion(adjoint)
        product = self.system.pull_back(adjoint, v)
        if is_finite(adjoint) and not is_finite(product):
            what = "the product with the cross derivative"
            self._fail(Status.NOT_FINITE, product, what, "f_XYᵀ λ is not finite.")
        return product

    @cached_property
    def _motion_of_dependent_rows(self) -> float:
        system = self.system
        return motion_of_dependent_rows(system.C, self.null_space, system.B, self.like)

    def vector(self, name: str, value: Any, size: int, *, block: bool = False) -> Array:
        """Return a checked vector of the solution's array type; or several as columns."""
        value = as_floating(name, value, ndim=(1, 2) if block else (1,))
        namespace(value, self.like)
        if value.shape[0] != size:
            expected = f"{size} rows" if value.ndim == 2 else f"shape ({size},)"
            found = tuple(value.shape)
            raise ValueError(f"{name} must have {expected}, found shape {found}")
        if name in {"u", "v"} and not is_finite(value):
            # A bound may hold the variable: its entry would leave the system unseen.
            detail = f"{name} has NaN or infinite entries."
            self._fail(
                Status.NOT_FINITE, value, "the product with the derivative", detail
            )
            value = math.nan * value
        return value


def _with_own_arrays(solution: Solution) -> Solution:
    """Return the solution with arrays of its own."""
    arrays = {}
    for name in ("y", "x", "multipliers", "residual"):
        value = getattr(solution, name)
        if value is not None:
            arrays[name] = namespace(value).asarray(value, copy=True)
    return dataclasses.replace(solution, **arrays)


def checked_solution(
    problem: Problem, solution: Solution, tolerance: float, on_failure: OnFailure
) -> tuple[Solution, int, str]:
    """Return the completed solution, the Hessian products spent, and what it lacks.

    Other points are refused.
    """
    if not isinstance(solution, Solution):
        raise TypeError(
            f"solution must be a Solution, found {type(solution).__name__}; wrap "
            "arrays as Solution(y=..., x=...)"
        )
    status, detail, n_hvp = solution.status, "the lower-level solve failed.", 0
    inaccurate = ""
    if status is not None and (
        not status.acceptable
        or solution.is_judged_for(problem)
        or is_as_left(problem, solution)
    ):
        solution = complete(problem, solution) if problem.constrained else solution
    else:
        if status is not None:  # less accurate than asked for is no other solution
            tolerance = max(tolerance, 2.0 * (solution.relative_error or 0.0))
        check = check_conditions(problem, solution, tolerance, "stationarity")
        given, (solution, status, detail, _, n_hvp) = solution, check
        # From 1 on any point is accepted, on the caller's own account.
        if tolerance < 1.0:
            inaccurate = inaccuracy(solution)
            unclear = inaccurate or _is_degenerate(solution)
            if given.active is None and (unclear or status is Status.NOT_STATIONARY):
                nearest = nearest_solution(problem, solution, tolerance)
                if nearest is not None:
                    solution, inaccurate = nearest.solution, moved(nearest.distance)
                    status = Status.CONVERGED
    if status is not Status.CONVERGED:
        what = "differentiating the solution"
        raise_or_warn(status, solution, what, detail, on_failure)
    return solution, n_hvp, inaccurate


def _is_degenerate(solution: Solution) -> bool:
    return solution.active is not None and solution.active.degenerate


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


def _kept_solve(system: KKTSystem, solution: Solution) -> KeptSolve | None:
    """Return the solves by the factor that a solver kept for this very system."""
    factor, n = solution.factor, system.H.shape[0]
    if factor is None or not factor.is_of(solution.y, solution.x, system.index):
        return None
    C = np.zeros((0, n)) if system.C is None else system.C
    return KeptSolve(factor, C) if is_explicit(C) else None


def _factor_of_small(system: KKTSystem, probe: Probe) -> ReducedFactor | None:
    """Return the factor of a small K whose entries are known, else None."""
    H, C = system.H, system.C
    rows = 0 if C is None else C.shape[0]
    k = H.shape[0]
    if k == 0 or k + rows > LARGEST_FACTOR or not H.has_diagonal:
        return None
    explicit = () if C is None else (C,)
    if not (is_factorable(probe.like, *explicit) and is_explicit(H.matrix)):
        return None
    scale = probe.scale
    return None if scale is None else reduced_factor(H.matrix, C, scale)


def _graded_of_small(
    system: KKTSystem, kept: KeptSolve | None, like: Array
) -> tuple[GradedFactor | None, int]:
    """Return the factor of a small K some of whose unknowns have no curvature, else None.

    Its entries are those that a solver kept, or take a product for each unknown.
    """
    H, C = system.H, system.C
    if C is None or H.shape[0] + C.shape[0] > LARGEST_FACTOR:
        return None, 0
    if kept is not None:
        return kept.factor.graded(), 0
    k = H.shape[0]
    if k == 0 or not is_factorable(like, C) or (not H.has_diagonal and k > FEW):
        return None, 0
    if H.has_diagonal and bool(np.all(np.asarray(H.diagonal()) > 0.0)):
        return None, 0
    entries = np.asarray(H @ np.eye(k, dtype=H.dtype))
    skew, size = np.abs(entries - entries.T), np.abs(entries) + np.abs(entries.T)
    unit = 1e2 * float(np.finfo(entries.dtype).eps)
    symmetric = bool(np.all(skew <= unit * np.maximum(1e4 * size, size.max())))
    if not symmetric or bool(np.all(entries.diagonal() > 0.0)):
        return None, k
    return graded_factor(0.5 * (entries + entries.T), C), k


def _exact_result(K: LinearOperator, rhs: Array, x: Array, n: int) -> KrylovResult:
    """Return what a factor has found as the result of a solve, one product a column."""
    residual = rhs - K @ x
    sizes = np.sqrt(np.sum(residual * residual, axis=0))
    columns = 1 if rhs.ndim == 1 else rhs.shape[1]
    return KrylovResult(
        x=x,
        status=Status.CONVERGED,
        converged=True if rhs.ndim == 1 else np.ones(columns, dtype=bool),
        niter=1 if rhs.ndim == 1 else np.ones(columns, dtype=int),
        n_matvec=columns,
        residual_norm=float(sizes) if rhs.ndim == 1 else sizes,
        residual=residual,
        multipliers=x[n:, ...],
    )


def _saddle_point(
    system: KKTSystem,
    M: Any,
    method: Any,
    factor: ReducedFactor | None,
    probe: Probe,
) -> tuple[SaddlePoint, int]:
    """Return the solver of constrained conditions, and the products that M cost."""
    H, C = system.H, system.C
    if isinstance(M, str | Auto):
        if factor is not None and factor.status is None and method != "minres":
            return SaddlePoint(H, ReducedNullSpace(factor), method="projected_cg"), 0
        scale = probe.scale
        if scale is None and (method == "minres" or not is_explicit(C)):
            z, Hz = probe.pair  # one number, of the order of H, for the rows to meet
            scale = namespace(z).full_like(z, norm(Hz) / norm(z) or 1.0)
        return SaddlePoint(H, C, constraint_of(H, C, scale), method=method), 0
    n_matvec = 0
    if callable(M) and not hasattr(M, "shape"):
        M = M(system.K)
        n_matvec = getattr(M, "n_matvec", 0)
    return SaddlePoint(H, C, M, method=method), n_matvec


def _solver_of(saddle: SaddlePoint) -> LinearSolver:
    def solver(_: Any, rhs: Array, x0: Any = None, **options: Any) -> KrylovResult:
        return saddle.solve(rhs, x0, **options)

    return solver


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
