"""K⁻¹ at a checked solution, as a checked linear solve.

    K z = rhs,    K symmetric: u'Kv = v'Ku is tested where it is not known

by CG where K is definite, by projected CG or MINRES where there are constraints.

What is wrong with the solution, with K or with the solve is said here, for
``implicit.py`` to be nothing but the formula.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import krylov
from ..arrays import (
    Array,
    as_floating,
    as_vector,
    asarray,
    dot,
    epsilon,
    is_finite,
    namespace,
    norm,
    zeros,
)
from ..krylov import KrylovResult
from ..krylov.null_space import null_space_for
from ..operators.block_matrices import is_explicit
from ..operators.linear_operator import LinearOperator
from ..preconditioners import Auto, Choice, constraint_of, galerkin_start, jacobi_of
from ..preconditioners.auto.late_setup_cg import (
    observe,
    relative_residual,
    switching_cg,
)
from ..problem.check_solution import check_stationary
from ..problem.problem import Problem, Solution
from ..status import OnFailure, Status, check_on_failure, raise_or_warn, warn_poor
from .kkt import KKTSystem, linearize

LinearSolver = Callable[..., KrylovResult]

_METHODS: dict[str, LinearSolver] = {
    "cg": krylov.cg,
    "minres": krylov.minres,
    "diagonal": krylov.diagonal,
}
_KNOWN = (*_METHODS, "projected_cg")


class Inverse:
    """K⁻¹ at a checked solution: a call is a checked linear solve.

    Attributes
    ----------
    system : KKTSystem
    n_hvp : int
        Products with K so far, those of checks too.
    warnings : tuple of str
        Caveats of the solution and of K.
    """

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
        solution, n_hvp = check_stationary(problem, solution, stationarity, on_failure)
        self.system: KKTSystem = linearize(problem, solution)
        self.on_failure: OnFailure = on_failure
        if self.system.C is not None and isinstance(M, Auto):
            M = "auto"  # which is for definite systems; these have a metric of their own
        self.solve = _solver(method, self.system, M)
        options: dict[str, Any] = {"rtol": rtol, "maxiter": maxiter}
        bound = getattr(method, "keywords", {})  # a functools.partial has the last word
        self.options = {k: option for k, option in options.items() if k not in bound}
        needless = "M" in bound or method == "diagonal"
        self.choice = None if needless else _preconditioner(M, self.system)
        self.like = solution.y
        self.n_hvp = n_hvp  # all products so far, those of checks too
        notes = (*solution.warnings, self.system.K.note, _one_sided(solution))
        self.warnings = tuple(dict.fromkeys(note for note in notes if note))

    def __call__(self, rhs: Array, start: Array | None = None) -> KrylovResult:
        """Solve K z = rhs, (N,) or (N, k), or say what is wrong."""
        K = self.system.K
        options: dict[str, Any] = dict(self.options)
        if self.choice is not None:
            before = self.choice.n_matvec
            options["M"] = self.choice(K, self.options.get("rtol", 1e-2))
            self.n_hvp += self.choice.n_matvec - before
        if start is not None and start.ndim > rhs.ndim:
            if self.system.C is None:
                start, n_matvec = galerkin_start(K, rhs, start)
                self.n_hvp += n_matvec
            else:
                start = start[:, 0]
        if self.choice is not None and self.solve is krylov.cg:
            before = self.choice.n_matvec
            result = switching_cg(self.choice, K, rhs, start, **options)
            self.n_hvp += self.choice.n_matvec - before
        else:
            result = self.solve(K, rhs, start, **options)
            if not isinstance(result, KrylovResult):
                raise TypeError(
                    f"method must return a KrylovResult, found {type(result).__name__}"
                )
            if self.choice is not None:
                observe(self.choice, rhs, result)
        self.n_hvp += result.n_matvec
        # Each solve anew: a solution may lie where K happens to be symmetric.
        testable = 0 not in result.x.shape and result.status is not Status.NOT_FINITE
        if testable and not K.symmetric:
            self.n_hvp += 1
            if not _symmetric_along(K, rhs, result):
                result = dataclasses.replace(
                    result,
                    status=Status.NOT_SYMMETRIC,
                    converged=result.converged & False,
                )
        status = result.status
        attained = relative_residual(rhs, result)
        detail = (
            f"after {result.niter} iterations and {result.n_matvec} products the "
            f"relative residual is {attained:.1e}."
        )
        if status is Status.INCONSISTENT:
            detail = _contradiction(self.system, rhs, result)
        elif status is Status.STAGNATED and self.system.C is not None:
            missed = _contradiction(self.system, rhs, result)
            detail = f"{detail} {missed} The rows are too close to dependent."
        raise_or_warn(
            status,
            result,
            "the linear solve K x = b",
            detail,
            self.on_failure,
            self.n_hvp,
        )
        half_the_digits = math.sqrt(epsilon(rhs))
        if status is Status.ROUNDING_LIMIT and attained > half_the_digits:
            warn_poor(
                "the linear solve ended at the rounding limit with a relative residual "
                f"of {attained:.1e}. {status.value}",
                self.on_failure,
            )
        return result if status.acceptable else _without_zeros(rhs, result)

    def push_forward(self, u: Array, start: Array | None = None) -> KrylovResult:
        """Solve K z = B u; where B u = 0 the answer 0 says nothing of K, which is tested."""
        rhs = self.system.B @ u
        if 0 not in rhs.shape and _vanishes(rhs) and not _vanishes(u):
            rng = np.random.default_rng(0)
            self(asarray(rng.standard_normal(rhs.shape[0]), rhs))
        return self(rhs, start)

    def pull_back(self, adjoint: Array) -> Array:
        """Return − Bᵀ adjoint, checked."""
        self._check_redundant_rows(adjoint)
        product = -(self.system.B.T @ adjoint)
        if is_finite(adjoint) and not is_finite(product):
            raise_or_warn(
                Status.NOT_FINITE,
                product,
                "the product with the cross derivative",
                "f_XYᵀ λ is not finite.",
                self.on_failure,
                self.n_hvp,
            )
        return product

    def start(self, name: str, value: Any, size: int) -> Array:
        """Return a checked vector, or several as columns."""
        if getattr(value, "ndim", 1) != 2:
            return self.vector(name, value, size)
        value = as_floating(name, value, ndim=(2,))
        if value.shape[0] != size:
            raise ValueError(
                f"{name} must have {size} rows, found shape {tuple(value.shape)}"
            )
        namespace(value, self.like)
        return value

    def _check_redundant_rows(self, like: Array) -> None:
        """Refuse to differentiate rows that x moves apart, though one spans the other.

        The forward solve meets the contradiction itself.  The adjoint does not, for its
        rows are zero; there (0, w) with C'w = 0 must be orthogonal to the columns of B.
        """
        constraints = getattr(self.solve, "null_space", None)
        if constraints is None or constraints.rank in {None, constraints.shape[0]}:
            return
        xp, (p, k) = namespace(like), constraints.shape
        probe = np.random.default_rng(0).standard_normal(p)
        probe = asarray(probe, like)
        w = constraints.redundancy(probe)
        none = zeros((k,), like)
        moved = norm(self.system.B.T @ xp.concat([none, w]))
        size = norm(self.system.B.T @ xp.concat([none, xp.abs(w)]))
        if moved > math.sqrt(epsilon(like)) * size:
            raise_or_warn(
                Status.INCONSISTENT,
                None,
                "differentiating the constraints",
                f"their right-hand side moves with x, {moved / size:.1e} of it against "
                "the rows that depend on others.",
                self.on_failure,
                self.n_hvp,
            )

    def vector(self, name: str, value: Any, size: int) -> Array:
        """Return a checked vector of the solution's namespace."""
        value = as_vector(name, value, size)
        namespace(value, self.like)
        return value


def _without_zeros(rhs: Array, failed: KrylovResult) -> KrylovResult:
    """Return NaN where a failed solve never left zero: a zero would pass for an answer."""
    xp = namespace(rhs)
    void = xp.all(failed.x == 0.0, axis=0) & xp.any(rhs != 0.0, axis=0)
    x = xp.where(void, xp.full_like(failed.x, math.nan), failed.x)
    return dataclasses.replace(failed, x=x)


def _vanishes(values: Array) -> bool:
    return not bool(namespace(values).any(values != 0.0))


def _solver(
    method: str | LinearSolver | None, system: KKTSystem, M: Any
) -> LinearSolver:
    if method is None:
        method = "minres"
        if system.C is None:
            method = "cg"
        elif is_explicit(system.C):
            method = "projected_cg"
    if callable(method):
        return method
    if method not in _KNOWN:
        known = ", ".join(repr(name) for name in _KNOWN)
        raise ValueError(
            f"method must be one of {known} or a solver function, found {method!r}"
        )
    if system.C is not None and method == "projected_cg":
        return _Projected(system, M)
    if system.C is not None and method == "minres" and isinstance(M, str):
        return _PreconditionedMinres(system)
    return _METHODS["cg" if method == "projected_cg" else method]


class _Projected:
    """The solver of K z = rhs that stays in the null space of C, factorised once."""

    def __init__(self, system: KKTSystem, M: Any) -> None:
        H, C = system.H, system.C
        if callable(M):
            M = M(system.K)
        M = jacobi_of(H) if isinstance(M, str) else M
        self.H, self.null_space = H, null_space_for(C, M, H.shape[0])

    def __call__(
        self, _: LinearOperator, rhs: Array, x0: Any = None, **options: Any
    ) -> KrylovResult:
        k, C, xp = self.H.shape[0], self.null_space.C, namespace(rhs)
        b, c = rhs[:k, ...], rhs[k:, ...]
        start = None if x0 is None else x0[:k, ...]
        options["M"] = None  # it is the metric of the null space
        found = krylov.projected_cg(self.H, self.null_space, b, c, start, **options)
        z = xp.concat([found.x, found.multipliers])
        residual = xp.concat([found.residual, c - C @ found.x])
        return dataclasses.replace(found, x=z, residual=residual)


class _PreconditionedMinres:
    """MINRES on K with what preconditioner can be had for it."""

    def __init__(self, system: KKTSystem) -> None:
        self.M = constraint_of(system.H, system.C)
        self.null_space = getattr(self.M, "null_space", None)

    def __call__(
        self, K: LinearOperator, rhs: Array, x0: Any = None, **options: Any
    ) -> KrylovResult:
        options["M"] = self.M if options.get("M") is None else options["M"]
        return krylov.minres(K, rhs, x0, **options)


def _one_sided(solution: Solution) -> str:
    active = solution.active
    if active is None or not active.degenerate:
        return ""
    return (
        "some constraints are weakly active: the derivative is one-sided there, and this "
        "is the one with them inactive; LogBarrier gives the average of both sides"
    )


def _preconditioner(M: Any, system: KKTSystem) -> Choice:
    """Return the choice of M; "auto" chooses for definite systems, without active rows."""
    return Choice(None if isinstance(M, str) and system.C is not None else M)


def _contradiction(system: KKTSystem, rhs: Array, result: KrylovResult) -> str:
    """Return by how much C y misses its right-hand side."""
    k, xp = system.H.shape[0], namespace(rhs)
    missed, whole = (float(xp.max(xp.abs(v[k:, ...]))) for v in (result.residual, rhs))
    return f"C y misses c by {missed:.1e} in a row, where |c| is {whole:.1e} at most."


def _symmetric_along(K: LinearOperator, rhs: Array, result: KrylovResult) -> bool:
    """Test u'Kv = v'Ku for the solution u, whose product is known, and a random v."""
    u, Ku = result.x, rhs - result.residual
    rng = np.random.default_rng(0)
    if u.ndim == 2:
        # A random mixture of the columns, at one size, misses none of them.
        sizes = [norm(rhs[:, j]) or 1.0 for j in range(rhs.shape[1])]
        mixture = rng.standard_normal(u.shape[1]) / sizes
        mixture = asarray(mixture, u)
        u, Ku = u @ mixture, Ku @ mixture
    v = rng.standard_normal(u.shape[0])
    v = asarray(v, u)
    Kv = K.matvec(v)
    unit = max(epsilon(u), K.accuracy or 0.0)
    size = norm(u) * norm(Kv) + norm(v) * norm(Ku)
    # Written so that NaN fails.
    return bool(abs(dot(u, Kv) - dot(v, Ku)) <= unit**0.4 * size)
