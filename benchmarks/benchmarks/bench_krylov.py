"""CG and MINRES beside SciPy's, on the 5-point Laplacian."""

from __future__ import annotations

import numpy as np
from scipy.sparse import linalg

import sparse_argdiff as sad

from .designs import laplacian

OURS = {"cg": sad.cg, "minres": sad.minres}


class FixedIterations:
    """Seconds for a hundred iterations that never meet their tolerance."""

    params = (["cg", "minres"], ["sparse_argdiff", "scipy"], [100, 500])
    param_names = ["method", "package", "side"]
    repeat = (3, 10, 10.0)

    def setup(self, method, package, side):
        self.A = laplacian(side)
        self.b = np.random.default_rng(0).standard_normal(side * side)

    def time_100_iterations(self, method, package, side):
        if package == "sparse_argdiff":
            OURS[method](self.A, self.b, rtol=0.0, maxiter=100)
        else:
            getattr(linalg, method)(self.A, self.b, rtol=0.0, maxiter=100)


class Counts:
    """What a solve to 1e-8 costs and how true its residual is; all deterministic."""

    params = (["cg", "minres"], [20, 100])
    param_names = ["method", "side"]

    def setup(self, method, side):
        self.A = laplacian(side)
        self.b = np.random.default_rng(0).standard_normal(side * side)
        self.result = OURS[method](self.A, self.b)

    def track_iterations(self, method, side):
        return self.result.niter

    def track_products(self, method, side):
        return self.result.n_matvec

    def track_true_relative_residual(self, method, side):
        residual = self.b - self.A @ self.result.x
        return float(np.linalg.norm(residual) / np.linalg.norm(self.b))
