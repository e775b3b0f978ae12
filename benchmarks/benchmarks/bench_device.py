"""CG, MINRES and the Gram product on the host and on a device; the latter where there is one."""

from __future__ import annotations

import numpy as np

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm

from .designs import laplacian, text_like


def on(backend, value):
    """Return the value on the backend; asv skips what raises NotImplementedError."""
    try:
        return sad.to_device(value, backend)
    except (ImportError, RuntimeError) as error:
        raise NotImplementedError(str(error)) from error


def wait(backend):
    """Let a device finish."""
    if backend == "cupy":
        import cupy

        cupy.cuda.Device().synchronize()


class Iterations:
    """Seconds for a hundred iterations."""

    params = (["numpy", "cupy"], ["cg", "minres"], [100, 1000])
    param_names = ["backend", "method", "side"]

    def setup(self, backend, method, side):
        self.A = on(backend, laplacian(side))
        b = np.random.default_rng(0).standard_normal(side * side)
        self.b = on(backend, b)
        self.time_100_iterations(backend, method, side)

    def time_100_iterations(self, backend, method, side):
        getattr(sad, method)(self.A, self.b, rtol=0.0, maxiter=100)
        wait(backend)


class GramProduct:
    """Seconds for a Hessian product of a sparse logistic regression."""

    params = (["numpy", "cupy"], [None, "deterministic"])
    param_names = ["backend", "kernels"]

    def setup(self, backend, kernels):
        if backend == "numpy" and kernels is not None:
            raise NotImplementedError("the host's products are deterministic")
        features, labels = text_like(n_features=10_000)
        glm = Glm(*on(backend, (features, labels)), kernels=kernels)
        x, y = on(backend, (np.full(glm.m, -4.0), np.zeros(glm.n)))
        self.hess = glm.hess(x, y)
        self.v = on(backend, np.random.default_rng(0).standard_normal(glm.n))
        self.time_product(backend, kernels)

    def time_product(self, backend, kernels):
        self.hess.matvec(self.v)
        wait(backend)
