"""Bi-level drivers on generated text: products until F is good, and what certificates cost.

All deterministic.  ``benchmarks/driver_report.py`` has the table on real data.
"""

from __future__ import annotations

import numpy as np

import sparse_argdiff as sad

from .designs import text_problem

DRIVERS = {
    "maid": {"method": "maid"},
    "cold descent": {"method": "gradient_descent", "warm_start": False},
    "hoag": {"method": "hoag"},
    "lbfgs": {"method": "lbfgs"},
}


class Driver:
    """One log-penalty per feature, with a prior around the start that F is convex near."""

    params = list(DRIVERS)
    param_names = ["driver"]
    timeout = 300

    def setup(self, driver):
        self.problem, loss, self.x = text_problem(n_features=5000)
        x0, weight = self.x, 1.0 / loss_rows(loss)
        self.upper = sad.FunctionUpper(
            lambda x, y: loss.value(x, y) + 0.5 * weight * float((x - x0) @ (x - x0)),
            loss.grad_y,
            lambda x, y: weight * (x - x0),
        )
        self.path = []
        self.result = sad.minimize(
            self.problem,
            self.upper,
            self.x,
            tol=1e-2,
            maxiter=30,
            callback=lambda state: self.path.append(
                (state.record.n_hvp + state.record.n_grad, state.x.copy())
            ),
            **DRIVERS[driver],
        )

    def track_products_to_nine_tenths_of_the_gain(self, driver):
        exact = sad.Hypergradient(self.problem, self.upper, tol=1e-8)
        best = sad.minimize(
            self.problem, self.upper, self.x, method="lbfgs", tol=1e-3
        ).fun
        start = exact.value(self.x)
        for products, x in self.path:
            if exact.value(x) <= best + 0.1 * (start - best):
                return products
        return np.nan

    def track_products_a_step(self, driver):
        return (self.result.n_hvp + self.result.n_grad) / max(self.result.nit, 1)


def loss_rows(loss) -> int:
    """Return the number of held-out rows."""
    return int(loss._data.design.n_samples)


class Certificates:
    """An evaluation with and without its certificate; a diagonal, certified."""

    params = [1e-1, 1e-3, 1e-6]
    param_names = ["tol"]

    def setup(self, tol):
        self.problem, self.upper, self.x = text_problem(n_features=5000)

    def _spent(self, tol, **options):
        F = sad.Hypergradient(self.problem, self.upper, tol=tol)
        found = F.evaluate(self.x, **options)
        return found.n_hvp + found.n_grad

    def track_products_with_a_certificate(self, tol):
        return self._spent(tol)

    def track_products_without(self, tol):
        return self._spent(tol, certify=False)

    def track_products_until_descent(self, tol):
        return self._spent(tol, until="descent", certify=False)
