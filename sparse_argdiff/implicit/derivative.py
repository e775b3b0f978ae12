"""The derivative of an argmin, as products: g'(x) = − select' K⁻¹ B.

    forward   g'(x) u   = − y-part of K⁻¹ (B u)        one solve, ``jvp``
    adjoint   g'(x)ᵀ v  = − Bᵀ λ,   K λ = (v, 0)       one solve, ``vjp``

K and B come from ``kkt.linearize``, with constraints or without.  Nothing here knows how
the solution was found.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ..arrays import Array
from ..krylov import KrylovResult
from ..operators.linear_operator import LinearOperator, Structure
from ..problem.problem import Problem, Solution
from ..status import OnFailure
from .checked_solve import Inverse, LinearSolver


@dataclasses.dataclass(frozen=True)
class Adjoint:
    """The outcome of :func:`vjp`.

    Attributes
    ----------
    x : array (m,)
        g'(x)ᵀ v.
    adjoint : array (N,)
        λ with K λ = (v, 0), for y and all multipliers, zero for what is not active: the
        start for a neighbouring problem.
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
    """The outcome of :func:`jvp`.

    Attributes
    ----------
    y : array (n,)
        g'(x) u.
    tangent : array (N,)
        The same followed by the derivative of the multipliers along u.
    krylov, n_hvp, warnings
        As for :class:`Adjoint`.
    """

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
    method : {"cg", "projected_cg", "minres", "diagonal"} or solver function, optional
        How K is solved: by default "cg" without active rows, for which K must be
        positive definite, "projected_cg" with a matrix of them, "minres" with an
        operator.  "diagonal" replaces K by its diagonal (the paper's section 6).
    M : operator, "auto", function or None
        Preconditioner M ≈ K⁻¹.  "auto" is :class:`preconditioners.Auto`, for a sequence
        of problems better given as one instance; a function takes K and returns M.
        With active rows "auto" is :func:`preconditioners.constraint` of diag(H).
    rtol : float
        Of each linear solve, relative to its right-hand side.
    maxiter : int, optional
        Of each linear solve.
    stationarity : float
        A solution without a status must have ‖f_Y(x, y)‖ ≤ stationarity · scale, with
        the scale of :func:`sparse_argdiff.problem.optimality.residual_scale`.
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
    solver = Inverse(
        problem, solution, method, M, rtol, maxiter, stationarity, on_failure
    )
    system = solver.system

    def forward(u: Array) -> Array:
        return -system.expand(solver.push_forward(u).x)[: system.n, ...]

    def adjoint(v: Array) -> Array:
        return solver.pull_back(solver(system.right_hand_side(v)).x)

    return LinearOperator(
        (system.n, system.B.shape[1]),
        forward,
        adjoint,
        matmat=forward,
        rmatmat=adjoint,
        dtype=getattr(solution.y, "dtype", None),
        structure=Structure(accuracy=rtol, note=system.K.note),
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
    adjoint0 : array (N,) or (N, k), optional
        Start of the linear solve, such as the adjoint of a neighbouring problem.  Of
        several the best combination is taken, for k products.

    Notes
    -----
    Costs niter + 3 Hessian products at most.  The other arguments, and what is raised,
    are those of :func:`derivative`.
    """
    solver = Inverse(
        problem, solution, method, M, rtol, maxiter, stationarity, on_failure
    )
    system = solver.system
    v = solver.vector("v", v, system.n)
    start = None
    if adjoint0 is not None:
        start = system.restrict(solver.start("adjoint0", adjoint0, system.size))
    result = solver(system.right_hand_side(v), start)
    return Adjoint(
        x=solver.pull_back(result.x),
        adjoint=system.expand(result.x),
        krylov=result,
        n_hvp=solver.n_hvp,
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
    solver = Inverse(
        problem, solution, method, M, rtol, maxiter, stationarity, on_failure
    )
    system = solver.system
    u = solver.vector("u", u, system.B.shape[1])
    start = None
    if tangent0 is not None:
        start = -system.restrict(solver.vector("tangent0", tangent0, system.size))
    result = solver.push_forward(u, start)
    tangent = -system.expand(result.x)
    return Tangent(
        y=tangent[: system.n],
        tangent=tangent,
        krylov=result,
        n_hvp=solver.n_hvp,
        warnings=solver.warnings,
    )
