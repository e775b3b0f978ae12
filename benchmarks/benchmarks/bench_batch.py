"""Batches of small quadratic programs: iterations, what is certified, what is handed on.

All deterministic.  ``benchmarks/peers/qp_batch.py`` has times and errors beside other
libraries.
"""

from __future__ import annotations

import numpy as np

import sparse_argdiff as sad

SIZES = {
    "n = 10": (10, 0, 10, 1000),
    "n = 20": (20, 5, 20, 128),
    "n = 60": (60, 10, 60, 32),
}


class Batch:
    """k programs with shared matrices and linear terms of their own."""

    params = list(SIZES)
    param_names = ["size"]

    def setup(self, size):
        n, p, r, k = SIZES[size]
        rng = np.random.default_rng(0)
        rows = {"A": rng.standard_normal((p, n)), "b": np.zeros(p)} if p else {}
        problem = sad.QuadraticProgram(
            2.0 * np.eye(n),
            np.zeros(n),
            G=rng.standard_normal((r, n)),
            h=np.full(r, 0.3),
            **rows,
        )
        self.found = sad.solve_many(problem, 3.0 * rng.standard_normal((k, n)))

    def track_iterations(self, size):
        return float(self.found.niter.mean())

    def track_members_handed_on(self, size):
        return sum(method != "batched" for method in self.found.method)

    def track_largest_error(self, size):
        return float(self.found.error.max())
