"""One hypergradient of 50,000 penalties, and a run of twenty steps."""

from __future__ import annotations

import numpy as np

import sparse_argdiff as sad

from .designs import text_problem


class Adjoint:
    """The adjoint at a solution, beside SciPy's CG with the same operator."""

    params = ["sparse_argdiff", "scipy"]
    param_names = ["package"]

    def setup(self, package):
        from scipy.sparse.linalg import LinearOperator

        self.problem, upper, x = text_problem()
        self.solution = sad.solve(self.problem, x)
        self.v = upper.grad_y(x, self.solution.y)
        hess = self.problem.hess(x, self.solution.y)
        self.hess = LinearOperator(hess.shape, matvec=hess.matvec, dtype=hess.dtype)
        self.M = LinearOperator(
            hess.shape,
            matvec=sad.preconditioners.jacobi(hess.diagonal()).matvec,
            dtype=hess.dtype,
        )

    def time_adjoint(self, package):
        from scipy.sparse.linalg import cg

        if package == "sparse_argdiff":
            sad.vjp(self.problem, self.solution, self.v)
        else:
            cg(self.hess, self.v, rtol=1e-8, M=self.M)


class Costs:
    """Products of a hypergradient and of a run; all deterministic."""

    timeout = 300

    def setup(self):
        self.problem, self.upper, self.x = text_problem(n_features=10_000)

    def _run(self, warm_start):
        return sad.minimize(
            self.problem,
            self.upper,
            self.x,
            method="gradient_descent",
            maxiter=20,
            bounds=(-12.0, 2.0),
            warm_start=warm_start,
            lower_tol=1e-6,
        )

    def track_products_of_a_solve(self):
        return sad.solve(self.problem, self.x).n_hvp

    def track_products_of_an_adjoint(self):
        solution = sad.solve(self.problem, self.x)
        v = self.upper.grad_y(self.x, solution.y)
        return sad.vjp(self.problem, solution, v).n_hvp

    def track_products_of_20_steps_warm(self):
        return self._run(True).n_hvp

    def track_products_of_20_steps_cold(self):
        return self._run(False).n_hvp

    def track_loss_after_20_steps(self):
        return self._run(True).fun

    def peakmem_hypergradient(self):
        sad.Hypergradient(self.problem, self.upper)(self.x)


class Accuracy:
    """The hypergradient against central differences along one direction."""

    def setup(self):
        self.problem, self.upper, self.x = text_problem(n_features=2000)

    def track_relative_error(self):
        F = sad.Hypergradient(self.problem, self.upper, tol=1e-11)
        report = sad.check_hypergradient(F, self.x, directions=1)
        return max(report.errors.values())


def timeraw_import():
    """Time ``import sparse_argdiff`` in a fresh interpreter."""
    return "import sparse_argdiff"


class Solve:
    """The lower-level solve from zero, beside SciPy's trust-ncg and L-BFGS."""

    params = ["newton_cg", "scipy trust-ncg", "scipy L-BFGS-B"]
    param_names = ["solver"]

    def setup(self, solver):
        self.problem, _, self.x = text_problem(n_features=10_000)

    def time_solve(self, solver):
        from scipy import optimize

        if solver == "newton_cg":
            sad.solve(self.problem, self.x, tol=1e-6)
            return
        problem, x = self.problem, self.x
        scale = problem.objective.scale(x)
        optimize.minimize(
            lambda y: problem.value(x, y),
            np.zeros(problem.objective.n),
            jac=lambda y: problem.grad(x, y),
            hessp=None if "L-BFGS" in solver else (lambda y, v: problem.hess(x, y) @ v),
            method=solver.removeprefix("scipy "),
            options={"gtol": 1e-6 * scale},
        )
