"""CG and MINRES beside SciPy's, on the 5-point Laplacian; what they cost, in counts."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
from scipy import sparse
from scipy.sparse import linalg

import sparse_argdiff as sad
from sparse_argdiff.kernels import KernelSet, choose
from sparse_argdiff.krylov import Workspace
from sparse_argdiff.operators.linear_operator import aslinearoperator

from .designs import laplacian

OURS = {"cg": sad.cg, "minres": sad.minres}


class FixedIterations:
    """Seconds for a hundred iterations that never meet their tolerance."""

    params = (
        ["cg", "minres"],
        ["compiled", "reference", "scipy"],
        ["float64", "float32"],
        [100, 500],
    )
    param_names = ["method", "kernels", "dtype", "side"]
    repeat = (3, 10, 10.0)

    def setup(self, method, kernels, dtype, side):
        self.A = laplacian(side).astype(dtype)
        self.b = np.random.default_rng(0).standard_normal(side * side).astype(dtype)
        self.workspace = Workspace()
        if kernels == "compiled":  # numba's first call is not an iteration
            self.time_100_iterations(method, kernels, dtype, side)

    def time_100_iterations(self, method, kernels, dtype, side):
        if kernels == "scipy":
            getattr(linalg, method)(self.A, self.b, rtol=0.0, maxiter=100)
        else:
            OURS[method](
                self.A,
                self.b,
                rtol=0.0,
                maxiter=100,
                kernels=kernels,
                workspace=self.workspace,
            )


class ManyColumns:
    """Seconds for 32 right-hand sides, together and one by one."""

    params = (
        ["cg", "minres"],
        ["together", "one by one", "scipy"],
        ["dense", "sparse rows"],
    )
    param_names = ["method", "how", "matrix"]

    def setup(self, method, how, matrix):
        rng = np.random.default_rng(0)
        if matrix == "dense":
            J = rng.standard_normal((1500, 1000))
            self.A = J.T @ J / 1500 + 0.1 * np.eye(1000)
        else:
            links = sparse.random_array((20_000, 20_000), density=7.5e-4, rng=rng)
            links = sparse.csr_array(links + links.T)
            degree = sparse.diags_array(links.sum(axis=0) + 0.1)
            self.A = sparse.csr_array(degree - links)
        self.B = rng.standard_normal((self.A.shape[0], 32))
        if how != "scipy":  # compilation, or its cache, is not a solve
            self.time_solve(method, how, matrix)

    def time_solve(self, method, how, matrix):
        if how == "together":
            OURS[method](self.A, self.B)
        else:
            solve = getattr(linalg, method) if how == "scipy" else OURS[method]
            for j in range(self.B.shape[1]):
                solve(self.A, self.B[:, j], rtol=1e-8)


class Passes:
    """Kernels that count the vectors each pass reads and writes, when fused."""

    VECTORS = {
        "dot": 2,
        "subtract": 3,
        "cg_residual": 3,
        "cg_advance": 5,
        "lanczos": 4,
        "minres_advance": 6,
    }

    def __init__(self, kernels: KernelSet) -> None:
        self.kernels, self.vectors = kernels, 0

    def product(self, A, x, out):  # its dot counts, too
        return KernelSet.product(self, A, x, out)

    def __getattr__(self, name):
        method = getattr(self.kernels, name)
        if name not in self.VECTORS:
            return method

        def counted(*arguments):
            self.vectors += self.VECTORS[name]
            return method(*arguments)

        return counted


class Counts:
    """What a solve to 1e-8 costs and how true its residual is; all deterministic."""

    params = (["cg", "minres"], [20, 100], ["reference", "compiled"])
    param_names = ["method", "side", "kernels"]

    def setup(self, method, side, kernels):
        self.A = laplacian(side)
        self.b = np.random.default_rng(0).standard_normal(side * side)
        self.workspace = Workspace()
        self.solve = lambda **options: OURS[method](
            self.A, self.b, kernels=kernels, workspace=self.workspace, **options
        )
        self.result = self.solve()

    def track_iterations(self, method, side, kernels):
        return self.result.niter

    def track_products(self, method, side, kernels):
        return self.result.n_matvec

    def track_true_relative_residual(self, method, side, kernels):
        residual = self.b - self.A @ self.result.x
        return float(np.linalg.norm(residual) / np.linalg.norm(self.b))

    def track_workspace_vectors(self, method, side, kernels):
        return self.workspace.nbytes / self.b.nbytes

    def track_allocated_vectors_of_a_repeated_solve(self, method, side, kernels):
        """Peak beyond what was there, in vectors: x, the residual, and A's products.

        The least of three solves: what the interpreter keeps for itself is not the solver's.
        """
        peaks = []
        for _ in range(3):
            gc.collect()
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            self.solve()
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
            tracemalloc.stop()
        return round(min(peaks) / self.b.nbytes, 1)

    def track_vector_passes_per_iteration(self, method, side, kernels):
        """Vectors that fused passes move beside the product, whose two are counted."""
        counted = Passes(choose(kernels, self.b))
        A = counted.kernels.operator(aslinearoperator(self.A))
        with _MadeOf(counted):
            result = OURS[method](A, self.b, rtol=0.0, maxiter=40)
            start = counted.vectors
            result = OURS[method](A, self.b, rtol=0.0, maxiter=80)
        assert result.niter == 80
        return (counted.vectors - 2 * start) / 40 + 2


class _MadeOf:
    """Let the solvers use these kernels, inside the block."""

    def __init__(self, kernels):
        self.kernels = kernels

    def __enter__(self):
        from sparse_argdiff.krylov import linear_system as system

        self.system, self.choose = system, system.choose
        system.choose = lambda *_: self.kernels

    def __exit__(self, *_):
        self.system.choose = self.choose
