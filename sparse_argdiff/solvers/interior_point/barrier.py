"""The barrier method: the central path followed to its end, a solution within the gap.

    f_Y + Eᵀ ν + G_Yᵀ z = 0,    e = 0,    G + w = 0,    w_i z_i = μ = 1 / t,    w, z > 0

For each μ this is the solution of the paper's (61) with t = 1/μ, and μ → 0.  Slacks w give
every start a strictly feasible point: no first phase is needed, and multipliers that grow
into a proof of infeasibility are recognised.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from ...arrays import Array
from ...problem.problem import Problem, Solution
from ..scaled_problem import solve_scaled
from ..stopping import NewtonIterate
from .primal_dual import MAXITER, follow_path, start


def barrier(
    problem: Problem,
    x: Array,
    y0: Array,
    *,
    tol: float = 1e-8,
    maxiter: int | None = None,
    callback: Callable[[NewtonIterate], Any] | None = None,
) -> Solution:
    """Minimise f(x, ·) under constraints by a primal-dual interior-point method.

    Parameters
    ----------
    tol : float
        Stop when the gradient of the Lagrangian, relative to its scale, the violations,
        relative to max |y|, and the products w_i z_i, relative to both, are ≤ tol.
    maxiter : int, optional
        Newton steps, 300 by default.

    Returns
    -------
    Solution
        With multipliers and the active set; inequalities that the last μ leaves undecided
        are weak.

    Notes
    -----
    The method is meant for convex problems.  Of others it finds a local minimum, or ends
    with a status that is not acceptable and the advice to bring a solution.  Where Hessian
    and Jacobians are arrays or sparse matrices the steps are factorised on the host
    (SciPy's SuperLU); otherwise they come from CG or projected CG.

    References
    ----------
    S. Mehrotra, SIAM J. Optim. 2 (1992) 575-601.
    S. Boyd, L. Vandenberghe, "Convex Optimization", 2004, section 11.7.
    J. Nocedal, A. Wächter, R. A. Waltz, SIAM J. Optim. 19 (2009) 1674-1693 (the two modes).
    N.-Y. Chiang, V. M. Zavala, Comput. Optim. Appl. 64 (2016) 327-354 (the test of
    curvature that stands for the inertia).
    """
    maxiter = MAXITER if maxiter is None else maxiter
    return solve_scaled(
        _follow, problem, x, y0, tol=tol, maxiter=maxiter, callback=callback
    )


def _follow(
    problem: Problem,
    x: Array,
    y0: Array,
    tol: float,
    maxiter: int,
    callback: Callable[[NewtonIterate], Any] | None,
) -> Solution:
    state = dataclasses.replace(start(problem, x, y0, tol), closes_gap=True)
    status, state = follow_path(state, tol, maxiter, callback)
    return state.solution(status)
