"""Hessian products of a logistic model on sparse rows, beside two SciPy products."""

from __future__ import annotations

import tracemalloc

import numpy as np

from sparse_argdiff.linear_model import Glm

from .designs import text_like


def hessian(kernels: str, threads: int = 1):
    """Return f_YY at zero, a vector and a buffer for the product."""
    features, labels = text_like(4000, 50_000, 200)
    glm = Glm(features, labels, kernels=kernels, threads=threads)
    hess = glm.hess(np.full(glm.m, -9.0), np.zeros(glm.n))
    v = np.random.default_rng(0).standard_normal(glm.n)
    out = np.empty_like(v)
    hess.apply(v, out)  # compiles
    return hess, v, out


class Product:
    """One product; "reference" is SciPy's two passes."""

    params = ["compiled", "reference"]
    param_names = ["kernels"]

    def setup(self, kernels):
        self.hess, self.v, self.out = hessian(kernels)

    def time_product(self, kernels):
        self.hess.apply(self.v, self.out)


class Block:
    """Thirty-two products, together and one by one."""

    params = (["compiled", "reference"], ["block", "singles"])
    param_names = ["kernels", "form"]

    def setup(self, kernels, form):
        self.hess, self.v, self.out = hessian(kernels)
        rng = np.random.default_rng(1)
        self.V = np.asfortranarray(rng.standard_normal((self.v.shape[0], 32)))

    def time_32_products(self, kernels, form):
        if form == "block":
            self.hess.matmat(self.V)
        else:
            for j in range(32):
                self.hess.apply(self.V[:, j], self.out)


class Costs:
    """What is deterministic: memory, and the agreement with the reference."""

    def setup(self):
        self.hess, self.v, self.out = hessian("compiled")

    def track_bytes_allocated_by_a_product(self):
        tracemalloc.start()
        self.hess.apply(self.v, self.out)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    def track_difference_from_the_reference(self):
        known = hessian("reference")[0] @ self.v
        self.hess.apply(self.v, self.out)
        return float(np.linalg.norm(self.out - known) / np.linalg.norm(known))

    def track_difference_among_threads(self):
        hess, v, out = hessian("compiled", threads=4)
        hess.apply(v, out)
        self.hess.apply(self.v, self.out)
        return float(np.linalg.norm(self.out - out) / np.linalg.norm(out))
