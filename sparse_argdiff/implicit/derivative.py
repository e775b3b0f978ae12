"""The derivative of an argmin, as products: g'(x) = − select' K⁻¹ B.

    forward   g'(x) u   = − y-part of K⁻¹ (B u)        one solve, ``jvp``
    adjoint   g'(x)ᵀ v  = − Bᵀ λ,   K λ = (v, 0)       one solve, ``vjp``

K and B come from ``kkt.linearize``, with constraints or without; the solution may come
from any solver.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Unpack

from ..arrays import Array, described
from ..krylov import KrylovResult
from ..operators.linear_operator import LinearOperator
from ..operators.structure import Structure
from ..problem.problem import Problem, Solution
from ..status import ConvergenceWarning
from .checked_solve import LinearizedSolve, SolveOptions
from .one_sided import one_sided_tangent


@dataclasses.dataclass(frozen=True, eq=False)
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

    __repr__ = described


@dataclasses.dataclass(frozen=True, eq=False)
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

    __repr__ = described


def derivative(
    problem: Problem, solution: Solution, **options: Unpack[SolveOptions]
) -> LinearOperator:
    """Return g'(x) as an operator (n, m); the problem is linearised once.

    Parameters
    ----------
    problem : Problem
    solution : Solution
        From ``solve``, or ``Solution(y=..., x=...)`` from anywhere.
    **options
        Keyword arguments, the same for :func:`vjp` and :func:`jvp`:

        method : {"cg", "projected_cg", "minres", "diagonal"} or solver function, optional
            Of the linear solves: by default "cg" without active rows, for which K must be
            positive definite, "projected_cg" with a matrix of them, "minres" with an
            operator until that has cost as many products as forming its rows, where they
            fit.  "diagonal" replaces K by its diagonal (the paper's section 6).
        M : operator, "auto" (the default), function or None
            Preconditioner M ≈ K⁻¹, or a function of K that returns one.  "auto" is
            :class:`preconditioners.Auto`, of which a sequence of problems should share
            one instance; with active rows :func:`preconditioners.constraint` of diag(H).
        rtol : float, 1e-8 by default
            Of each linear solve, relative to its right-hand side.
        maxiter : int, optional
            Of each linear solve.
        stationarity : float, 1e-3 by default
            Most that the Newton step that is left, and violations of the constraints, may
            be of the size of y, in the metric of the Hessian's diagonal.  Asked of a
            solution without a status, and of one whose conditions are no longer what
            its ``residual`` and ``active`` say: one gradient tells.
        on_failure : {"raise", "warn", "ignore"}
            What to do when the solution is not stationary or a linear solve fails; to
            raise by default.

    Returns
    -------
    LinearOperator (n, m)
        ``J @ dx`` (forward), ``J.T @ v`` (adjoint), ``J @ DX`` (several right-hand
        sides), each a linear solve.  ``J.note`` has its caveats.

    Warns
    -----
    ConvergenceWarning
        Where some constraints are weakly active, the derivative is then one-sided; and
        where y from elsewhere is off by more than 1e-6 of its size.

    Raises
    ------
    ConvergenceError
        For a point that is not stationary, an indefinite, singular or non-symmetric
        Hessian, or a solve that did not converge.
    """
    # What is written into the solution's arrays later is not to change g'(x).
    solve = LinearizedSolve(problem, solution, own_arrays=True, **options)
    system, note = solve.system, "; ".join(solve.warnings)
    for caveat in solve.derivative_caveats if solve.on_failure != "ignore" else ():
        warnings.warn(caveat, ConvergenceWarning, stacklevel=2)

    def forward(u: Array) -> Array:
        u = solve.vector("u", u, system.B.shape[1], block=True)
        return system.tangent(solve.push_forward(u).x, u)[: system.n, ...]

    def adjoint(v: Array) -> Array:
        v = solve.vector("v", v, system.n, block=True)
        return solve.pull_back(solve.solve_adjoint(v).x, v)

    return LinearOperator(
        (system.n, system.B.shape[1]),
        forward,
        adjoint,
        matmat=forward,
        rmatmat=adjoint,
        dtype=solve.like.dtype,
        structure=Structure(accuracy=options.get("rtol", 1e-8), note=note),
    )


def vjp(
    problem: Problem,
    solution: Solution,
    v: Array,
    *,
    multipliers: Array | None = None,
    adjoint0: Array | None = None,
    **options: Unpack[SolveOptions],
) -> Adjoint:
    """Return g'(x)ᵀ v with the adjoint and the record of its solve.

    Parameters
    ----------
    v : array (n,)
        For a hypergradient, ∇_y f^U.
    multipliers : array (p + q,), optional
        Seeds of the multipliers ν, as they stand in the solution: the result is then
        (∂y/∂x)ᵀ v + (∂ν/∂x)ᵀ ``multipliers``.  Those of rows that do not act stay zero.
    adjoint0 : array (N,) or (N, k), optional
        Start of the linear solve, such as the adjoint of a neighbouring problem.  Of
        several the best combination is taken, for k products.

    Notes
    -----
    Costs one gradient and niter + 3 Hessian products at most, and 7 more where the diagonal of the Hessian
    is not known and the units of y differ.  The other arguments, and what is raised, are
    those of :func:`derivative`.
    """
    solve = LinearizedSolve(problem, solution, **options)
    system, start = solve.system, None
    v = solve.vector("v", v, system.n)
    if adjoint0 is not None:
        adjoint0 = solve.vector("adjoint0", adjoint0, system.size, block=True)
        start = system.restrict(adjoint0)
    if multipliers is not None:
        if system.size == system.n:
            raise ValueError("multipliers: the problem has no rows, and no multipliers")
        multipliers = solve.vector("multipliers", multipliers, system.size - system.n)
    found = solve.solve_adjoint(v, start, multipliers)
    x, adjoint = solve.pull_back(found.x, v), system.expand(found.x)
    return Adjoint(x, adjoint, found, solve.n_hvp, solve.warnings)


def jvp(
    problem: Problem,
    solution: Solution,
    u: Array,
    *,
    one_sided: bool = False,
    tangent0: Array | None = None,
    **options: Unpack[SolveOptions],
) -> Tangent:
    """Return g'(x) u with the record of its solve; the arguments are those of vjp.

    Parameters
    ----------
    u : array (m,)
        A direction in the parameters.
    one_sided : bool
        Whether constraints that are weakly active take the side that u leads to: the result is
        the limit of (g(x + t u) − g(x)) / t for t → 0, t > 0, which is not linear in u.
        Refused where the rows that push leave a flat direction, as it is then not unique.
    tangent0 : array (N,), optional
        Start of the linear solve.

    Notes
    -----
    A Hessian that neither claims to be definite nor is small and explicit is tested by a
    loose solve for a random right-hand side: where it is singular y is not isolated, and
    B u may not show it.  With ``derivative`` this is done once.
    """
    if one_sided:
        found_side = one_sided_tangent(problem, solution, u, dict(options))
        if found_side is not None:
            n = solution.y.shape[0]
            return Tangent(found_side.tangent[:n], *found_side)
    solve = LinearizedSolve(problem, solution, **options)
    system, start = solve.system, None
    u = solve.vector("u", u, system.B.shape[1])
    if tangent0 is not None:
        start = -system.restrict(solve.vector("tangent0", tangent0, system.size))
    found = solve.push_forward(u, start)
    tangent = system.tangent(found.x, u)
    return Tangent(tangent[: system.n], tangent, found, solve.n_hvp, solve.warnings)
