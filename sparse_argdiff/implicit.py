"""The derivative of an argmin, as products: g'(x) = − select' K⁻¹ B.

    forward   g'(x) u   = − y-part of K⁻¹ (B u)        one solve, ``jvp``
    adjoint   g'(x)ᵀ v  = − Bᵀ λ,   K λ = (v, 0)       one solve, ``vjp``

K and B come from ``kkt.linearize``.  Nothing here knows how the solution was found.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from . import krylov
from .arrays import Array, as_vector, dot, epsilon, namespace, norm
from .kkt import KKTSystem, linearize, residual_scale
from .krylov import KrylovResult
from .linear_operator import LinearOperator, aslinearoperator
from .preconditioners import jacobi
from .problem import Problem, Solution
from .status import OnFailure, Status, caution, check_on_failure, settle

LinearSolver = Callable[..., KrylovResult]

_METHODS: dict[str, LinearSolver] = {
    "cg": krylov.cg,
    "minres": krylov.minres,
    "diagonal": krylov.diagonal,
}


@dataclasses.dataclass(frozen=True)
class Adjoint:
    """The outcome of :func:`vjp`.

    Attributes
    ----------
    x : array (m,)
        g'(x)ᵀ v.
    adjoint : array (N,)
        λ with K λ = (v, 0): the start for a neighbouring problem.
    krylov : KrylovResult
        The linear solve behind it.
    n_hvp : int
        Hessian products spent, tests included.
    warnings : tuple of str
        Caveats.
    """

    x: Array
    adjoint: Array
    krylov: KrylovResult
    n_hvp: int
    warnings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Tangent:
    """The outcome of :func:`jvp`: ``y`` = g'(x) u (n,), ``tangent`` with multipliers."""

    y: Array
    tangent: Array
    krylov: KrylovResult
    n_hvp: int
    warnings: tuple[str, ...] = ()


def derivative(
    problem: Problem,
    solution: Solution,
    *,
    method: str | LinearSolver | None = None,
    M: Any = "auto",
    rtol: float = 1e-8,
    maxiter: int | None = None,
    stationarity: float = 1e-3,
    on_failure: OnFailure = "raise",
) -> LinearOperator:
    """Return g'(x) as an operator (n, m); the problem is linearised once.

    Parameters
    ----------
    problem : Problem
    solution : Solution
        From ``solve``, or ``Solution(y=..., x=...)`` from anywhere.
    method : {"cg", "minres", "diagonal"} or solver function, optional
        How K is solved; "cg" by default, for which K must be positive definite.
        "diagonal" replaces K by its diagonal (the paper's section 6).
    M : operator, "auto" or None
        Preconditioner M ≈ K⁻¹; "auto" is the exact diagonal where K knows it.
    rtol : float
        Of each linear solve, relative to its right-hand side.
    maxiter : int, optional
        Of each linear solve.
    stationarity : float
        A solution without a status must have ‖f_Y(x, y)‖ ≤ stationarity · scale, with
        the scale of :func:`sparse_argdiff.kkt.residual_scale`.
    on_failure : {"raise", "warn", "ignore"}
        What to do when the solution is not stationary or a linear solve fails.

    Returns
    -------
    LinearOperator (n, m)
        ``J @ dx`` (forward), ``J.T @ v`` (adjoint), ``J @ DX`` (several right-hand
        sides), each a linear solve.

    Raises
    ------
    ConvergenceError
        For a point that is not stationary, an indefinite, singular or non-symmetric
        Hessian, or a solve that did not converge.
    """
    solver = _Inverse(
        problem, solution, method, M, rtol, maxiter, stationarity, on_failure
    )
    system = solver.system

    def forward(u: Array) -> Array:
        return -solver(system.B @ u).x[: system.n]

    def adjoint(v: Array) -> Array:
        return -(system.B.T @ solver(v).x)

    return LinearOperator(
        (system.n, system.B.shape[1]),
        forward,
        adjoint,
        matmat=forward,
        rmatmat=adjoint,
        dtype=getattr(solution.y, "dtype", None),
        accuracy=rtol,
        note=system.K.note,
    )


def vjp(
    problem: Problem,
    solution: Solution,
    v: Array,
    *,
    adjoint0: Array | None = None,
    method: str | LinearSolver | None = None,
    M: Any = "auto",
    rtol: float = 1e-8,
    maxiter: int | None = None,
    stationarity: float = 1e-3,
    on_failure: OnFailure = "raise",
) -> Adjoint:
    """Return g'(x)ᵀ v with the adjoint and the record of its solve.

    Parameters
    ----------
    v : array (n,)
        For a hypergradient, ∇_y f^U.
    adjoint0 : array (N,), optional
        Start of the linear solve, such as the adjoint of a neighbouring problem.

    Notes
    -----
    Costs niter + 3 Hessian products at most.  The other arguments, and what is raised,
    are those of :func:`derivative`.
    """
    solver = _Inverse(
        problem, solution, method, M, rtol, maxiter, stationarity, on_failure
    )
    v = as_vector("v", v, solver.system.n)
    result = solver(v, adjoint0)
    return Adjoint(
        x=-(solver.system.B.T @ result.x),
        adjoint=result.x,
        krylov=result,
        n_hvp=result.n_matvec + solver.n_tests,
        warnings=solver.warnings,
    )


def jvp(
    problem: Problem,
    solution: Solution,
    u: Array,
    *,
    tangent0: Array | None = None,
    method: str | LinearSolver | None = None,
    M: Any = "auto",
    rtol: float = 1e-8,
    maxiter: int | None = None,
    stationarity: float = 1e-3,
    on_failure: OnFailure = "raise",
) -> Tangent:
    """Return g'(x) u with the record of its solve; the arguments are those of vjp.

    Parameters
    ----------
    u : array (m,)
        A direction in the parameters.
    tangent0 : array (N,), optional
        Start of the linear solve.
    """
    solver = _Inverse(
        problem, solution, method, M, rtol, maxiter, stationarity, on_failure
    )
    u = as_vector("u", u, solver.system.B.shape[1])
    start = None if tangent0 is None else -as_vector("tangent0", tangent0)
    result = solver(solver.system.B @ u, start)
    return Tangent(
        y=-result.x[: solver.system.n],
        tangent=-result.x,
        krylov=result,
        n_hvp=result.n_matvec + solver.n_tests,
        warnings=solver.warnings,
    )


class _Inverse:
    """K⁻¹ at a checked solution: a call is a checked linear solve."""

    def __init__(
        self,
        problem: Problem,
        solution: Solution,
        method: str | LinearSolver | None,
        M: Any,
        rtol: float,
        maxiter: int | None,
        stationarity: float,
        on_failure: OnFailure,
    ) -> None:
        check_on_failure(on_failure)
        _check_stationary(problem, solution, stationarity, on_failure)
        self.system: KKTSystem = linearize(problem, solution)
        self.on_failure: OnFailure = on_failure
        self.options = {"rtol": rtol, "maxiter": maxiter}
        self.solve = _solver(method, self.system)
        self.M = _preconditioner(M, self.system.K)
        self.n_tests = 0
        self.untested = not self.system.K.symmetric
        notes = (*solution.warnings, self.system.K.note)
        self.warnings = tuple(dict.fromkeys(note for note in notes if note))

    def __call__(self, rhs: Array, start: Array | None = None) -> KrylovResult:
        K = self.system.K
        result = self.solve(K, rhs, start, M=self.M, **self.options)
        status = result.status
        if self.untested and result.x.shape[0] and status is not Status.NOT_FINITE:
            self.n_tests += 1
            if not _symmetric_along(K, rhs, result):
                status = Status.NOT_SYMMETRIC
            self.untested = status is Status.NOT_SYMMETRIC
        attained = _relative_residual(rhs, result)
        detail = (
            f"after {result.niter} iterations and {result.n_matvec} products the "
            f"relative residual is {attained:.1e}."
        )
        settle(
            status,
            result,
            "the linear solve K x = b",
            detail,
            self.on_failure,
            result.n_matvec + self.n_tests,
        )
        half_the_digits = math.sqrt(epsilon(rhs))
        if status is Status.ROUNDING_LIMIT and attained > half_the_digits:
            caution(
                "the linear solve ended at the rounding limit with a relative residual "
                f"of {attained:.1e}. {status.value}",
                self.on_failure,
            )
        return result


def _check_stationary(
    problem: Problem, solution: Solution, tolerance: float, on_failure: OnFailure
) -> None:
    if not isinstance(solution, Solution):
        raise TypeError(
            f"solution must be a Solution, found {type(solution).__name__}; wrap "
            "arrays as Solution(y=..., x=...)"
        )
    what = "differentiating the solution"
    if solution.status is not None:
        settle(
            solution.status, solution, what, "the lower-level solve failed.", on_failure
        )
        return
    x, y = solution.x, solution.y
    n = getattr(problem.objective, "n", None)
    if n is not None and n != y.shape[0]:
        raise ValueError(f"solution.y must have shape ({n},), found {tuple(y.shape)}")
    size = norm(problem.grad(x, y))
    scale = residual_scale(problem, x, y)
    if not math.isfinite(size):
        settle(Status.NOT_FINITE, solution, what, "f_Y is not finite.", on_failure)
    elif size > tolerance * scale:
        detail = (
            f"‖f_Y(x, y)‖ = {size:.2e} is {size / scale if scale else math.inf:.1e} of "
            f"its scale, above stationarity = {tolerance:.0e}."
        )
        settle(Status.NOT_STATIONARY, solution, what, detail, on_failure)


def _solver(method: str | LinearSolver | None, system: KKTSystem) -> LinearSolver:
    if method is None:
        return _METHODS["cg" if system.definite else "minres"]
    if callable(method):
        return method
    if method not in _METHODS:
        known = ", ".join(repr(name) for name in _METHODS)
        raise ValueError(
            f"method must be one of {known} or a solver function, found {method!r}"
        )
    return _METHODS[method]


def _preconditioner(M: Any, K: LinearOperator) -> LinearOperator | None:
    if isinstance(M, str):
        if M != "auto":
            raise ValueError(f"M must be an operator, 'auto' or None, found {M!r}")
        if not K.has_diagonal:
            return None
        diag = K.diagonal()
        # Not all positive: K is not definite, which is for the solver to find and say.
        usable = diag.shape[0] > 0 and float(namespace(diag).min(diag)) > 0.0
        return jacobi(diag) if usable and math.isfinite(norm(diag)) else None
    return None if M is None else aslinearoperator(M)


def _symmetric_along(K: LinearOperator, rhs: Array, result: KrylovResult) -> bool:
    """Test u'Kv = v'Ku for the solution u, whose product is known, and a random v."""
    xp = namespace(rhs)
    u, Ku = result.x, rhs - result.residual
    if u.ndim == 2:
        u, Ku = u[:, 0], Ku[:, 0]
    v = np.random.default_rng(0).standard_normal(u.shape[0])
    v = xp.asarray(v, dtype=u.dtype)
    Kv = K.matvec(v)
    unit = max(epsilon(u), K.accuracy or 0.0)
    size = norm(u) * norm(Kv) + norm(v) * norm(Ku)
    # Written so that NaN fails.
    return bool(abs(dot(u, Kv) - dot(v, Ku)) <= unit**0.4 * size)


def _relative_residual(rhs: Array, result: KrylovResult) -> float:
    if rhs.ndim == 1:
        size = norm(rhs)
        return float(result.residual_norm) / size if size else 0.0
    sizes = [norm(rhs[:, j]) for j in range(rhs.shape[1])]
    return max(
        (float(result.residual_norm[j]) / s for j, s in enumerate(sizes) if s),
        default=0.0,
    )
