"""Truncated Newton: line-search Newton-CG (Nocedal & Wright, algorithm 7.1).

    f_YY d = − f_Y  by conjugate gradients until ‖error of d‖_H ≤ η ‖d‖_H,   y += α d

η = ‖d‖ / ρ, what the quadratic model will miss by the last one's error (after Eisenstat &
Walker), makes the convergence quadratic; η is never below what the final tolerance needs.  A direction of curvature ≤ 0 is followed
downhill.  Norms are those of f_YY and, of gradients, of M ≈ f_YY⁻¹ (``stopping.py``).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, empty, norm
from ..kernels import choose
from ..krylov.cg import ConjugateGradients, vectors_of_scratch
from ..operators.linear_operator import LinearOperator
from ..preconditioners import Choice
from ..problem.problem import Problem, Solution
from ..status import Status
from .line_search import Evaluate, next_request
from .newton_by_parts import newton_by_parts, parts_of
from .newton_steps import Ended, Linearize, Multiply, NewtonCG, Outcome, Solve
from .stopping import Callback, StoppingTest


def newton_cg(
    problem: Problem,
    x: Array,
    y0: Array,
    *,
    tol: float = 1e-8,
    maxiter: int | None = None,
    callback: Callback | None = None,
    M: Any = "auto",
) -> Solution:
    """Minimise f(x, ·) from y0; stops on the length of the Newton step.

    Parameters
    ----------
    tol : float
        Stop when the error of y, in the metric of f_YY, is ≤ tol times the least of ‖y‖
        and the length over which f_YY is constant
        (:class:`sparse_argdiff.solvers.stopping.StoppingTest`).
    maxiter : int, optional
        Newton steps, 200 by default.
    M : operator, "auto", function or None
        Preconditioner M ≈ f_YY⁻¹; a function takes f_YY and returns it, such as a builder
        of ``preconditioners`` or an ``Auto`` that several solves share.

    Returns
    -------
    Solution
        Its status says how it ended; nothing is raised for numerical trouble.

    References
    ----------
    J. Nocedal, S. J. Wright, "Numerical Optimization", 2nd ed., 2006, section 7.1.
    S. C. Eisenstat, H. F. Walker, SIAM J. Sci. Comput. 17 (1996) 16-32 (forcing terms).
    W. W. Hager, H. Zhang, SIAM J. Optim. 16 (2005) 170-192 (the line search's stop).
    """
    if hasattr(problem.objective, "parts"):
        parts = parts_of(problem, M, callback)
        if parts is not None:
            return newton_by_parts(problem, parts, x, y0, tol, maxiter, Choice(M))
    bounded = functools.partial(problem.has_minimiser, x)
    test = StoppingTest(tol, maxiter, callback, bounded=bounded)
    convex = bool(getattr(problem.objective, "convex", False)) and not problem.maximize
    run = NewtonCG(test, Choice(M), convex=convex).run(y0)
    served, wanted = _Served(problem, x), next_request(run, None)
    while not isinstance(wanted, Outcome):
        wanted = next_request(run, served(wanted))
    return _solution(problem, x, wanted)


def _solution(problem: Problem, x: Array, found: Outcome) -> Solution:
    value, note = found.value, found.note
    if not note and found.niter == 0 and problem.fixed(x) is not None:
        note = problem.hess(x, found.y).note  # names what is fixed
    return Solution(
        y=found.y,
        x=x,
        value=-value if value is not None and problem.maximize else value,
        status=found.status,
        residual_norm=found.size,
        relative_error=found.relative_error,
        error=found.error,
        residual=found.grad,
        niter=found.niter,
        n_hvp=found.n_hvp,
        n_grad=found.n_grad,
        warnings=(note,) if note else (),
    )


class _Served:
    """The answers to the requests of a run on the whole problem."""

    def __init__(self, problem: Problem, x: Array) -> None:
        self.problem, self.x = problem, x
        self.hess: LinearOperator | None = None

    def __call__(self, wanted: Any) -> Any:
        problem, x = self.problem, self.x
        if isinstance(wanted, Evaluate):
            with np.errstate(all="ignore") if wanted.far else nullcontext():
                grad = problem.grad(x, wanted.y)
                return grad, problem.value(x, wanted.y) if problem.has_value else None
        if isinstance(wanted, Linearize):
            self.hess = problem.hess(x, wanted.y)
            return self.hess
        assert self.hess is not None
        if isinstance(wanted, Multiply):
            return self.hess.matvec(wanted.v)
        return self._solve(self.hess, wanted)

    def _solve(self, hess: LinearOperator, wanted: Solve) -> Ended:
        run = wanted.steps
        for step in cg_steps(hess, wanted.d, wanted.r, wanted.M):
            run.n_hvp += step.products
            if step.status is not None or step.direction is not None:
                return Ended(step.status, step.direction)
            run.add(step.alpha, step.decrease, step.rho)
            if run.enough:
                break
        return Ended()


class _Step(NamedTuple):
    """One step of the recurrence on a vector, or why there is none."""

    status: Status | None  # None: x and r have moved
    residual_norm: float  # of the recurrence
    alpha: float
    decrease: float  # α ρ = ‖x₊ − x‖²_A
    rho: float  # ‖r‖²_M after the step
    direction: Array | None  # p, when its curvature is not positive
    products: int = 1  # with A


def cg_steps(
    A: LinearOperator,
    x: Array,
    r: Array,
    M: LinearOperator | None = None,
    target: float = 0.0,
) -> Iterator[_Step]:
    """Yield the steps from x with residual r, both vectors updated in place.

    The last step has a status, or ‖r‖ ≤ ``target``.
    """
    kernels = choose(None, r)
    M = None if M is None else kernels.operator(M)
    scratch = [empty(r.shape, r) for _ in range(vectors_of_scratch(M, r, kernels))]
    cg = ConjugateGradients(kernels.operator(A), M, x, r, kernels, scratch, [target])
    size, counted = norm(r), 0
    while cg.scalars.values(cg.active)[0]:
        for (line,) in cg.advance(kernels.check_every if kernels.on_device else 1):
            alpha, decrease, rho, size, _ = line
            if alpha > 0.0:
                counted += 1
                yield _Step(None, size, alpha, decrease, rho, None)
    if not size <= target:
        status, direction, _ = cg.breakdown(0)
        lost = cg.products - counted
        yield _Step(status, size, 0.0, 0.0, 0.0, direction, lost)
