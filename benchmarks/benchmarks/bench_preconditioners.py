"""Products and iterations that preconditioners save; multigrid beside SciPy's CG."""

from __future__ import annotations

import numpy as np
from scipy.sparse import linalg

import sparse_argdiff as sad
from sparse_argdiff import preconditioners as pc

from .designs import correlated_problem, laplacian, text_problem


class Multigrid:
    """A V-cycle on square grids: the iterations do not grow."""

    params = [64, 256, 512]
    param_names = ["side"]

    def setup(self, side):
        self.A = laplacian(side)
        self.b = np.random.default_rng(0).standard_normal(side * side)
        self.M = pc.amg(self.A)

    def track_iterations(self, side):
        return sad.cg(self.A, self.b, M=self.M).niter

    def time_solve(self, side):
        sad.cg(self.A, self.b, M=self.M)

    def time_scipy_without(self, side):
        linalg.cg(self.A, self.b, rtol=1e-8)

    def time_cycle(self, side):
        self.M @ self.b


class Sequence:
    """Products of twenty warm lower solves and adjoints along a walk of the parameters."""

    timeout = 300
    params = (["none", "jacobi", "nystrom", "auto"], ["correlated", "text-like"])
    param_names = ["M", "problem"]

    def setup(self, name, problem):
        make = correlated_problem if problem == "correlated" else text_problem
        self.problem, self.upper, self.x = make(n_features=1000)
        kept = []

        def nystrom(K):
            kept.append(kept[-1].update(K) if kept else pc.nystrom(K, rank=100))
            return kept[-1]

        choices = {"none": None, "jacobi": pc.jacobi_of, "nystrom": nystrom}
        self.M = choices.get(name) if name != "auto" else pc.Auto()

    def track_products(self, name, problem):
        x, rng = self.x, np.random.default_rng(1)
        y, adjoint, spent = np.zeros(self.problem.objective.n), None, 0
        for _ in range(20):
            solution = sad.solve(self.problem, x, y, tol=1e-6, M=self.M)
            y = solution.y
            v = self.upper.grad_y(x, y)
            found = sad.vjp(
                self.problem, solution, v, adjoint0=adjoint, rtol=1e-6, M=self.M
            )
            adjoint, spent = found.adjoint, spent + solution.n_hvp + found.n_hvp
            p = rng.standard_normal(x.size)
            x = x + 0.3 * p / np.linalg.norm(p)
        return spent


class Direct:
    """The direct path of a small model: one iteration, and n products."""

    def setup(self):
        self.problem, self.upper, self.x = correlated_problem(n_features=200)
        self.solution = sad.solve(self.problem, self.x)
        self.v = self.upper.grad_y(self.x, self.solution.y)

    def track_iterations(self):
        found = sad.vjp(self.problem, self.solution, self.v, M=pc.cholesky)
        return found.krylov.niter

    def time_factor_and_solve(self):
        sad.vjp(self.problem, self.solution, self.v, M=pc.cholesky)

    def time_conjugate_gradients(self):
        sad.vjp(self.problem, self.solution, self.v, M=pc.jacobi_of)
