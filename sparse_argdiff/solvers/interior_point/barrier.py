"""The path of barrier problems, followed by a primal-dual interior-point method.

    f_Y + Eᵀ ν + G_Yᵀ z = 0,    e = 0,    G + w = 0,    w_i z_i = μ = 1 / t,    w, z > 0

For each μ this is the solution of the paper's (61) with t = 1/μ, and μ → 0.  A step solves the
linearised conditions for a smaller μ (Mehrotra's predictor and corrector where they are
factorised), as long as w and z stay positive and the residuals fall.  Slacks w give every
start a place inside: no first phase is needed, and multipliers that grow into a proof of
infeasibility are recognised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...arrays import Array
from ...problem.problem import Problem, Solution
from ..newton_cg import NewtonIterate
from .primal_dual import InteriorPoint


def barrier(
    problem: Problem,
    x: Array,
    y0: Array,
    *,
    tol: float = 1e-8,
    maxiter: int | None = None,
    callback: Callable[[NewtonIterate], Any] | None = None,
) -> Solution:
    """Minimise f(x, ·) under constraints along the barrier path.

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
        With multipliers and the active set; sides that the last μ leaves undecided are
        weak.

    Notes
    -----
    Where Hessian and Jacobians are arrays or sparse matrices the steps are factorised on
    the host (SciPy's SuperLU); otherwise they come from CG or projected CG.

    References
    ----------
    S. Mehrotra, SIAM J. Optim. 2 (1992) 575-601.
    S. Boyd, L. Vandenberghe, "Convex Optimization", 2004, section 11.7.
    N.-Y. Chiang, V. M. Zavala, Comput. Optim. Appl. 64 (2016) 327-354 (the test of
    curvature that stands for the inertia).
    """
    run = InteriorPoint(problem, x, y0, tol, maxiter, callback)
    return run.solution(run.follow())
