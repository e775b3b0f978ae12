"""What the folds lose: the criterion F of a table, and the losses of the rows held out.

F(x) = Σ_k Σ_{i in fold k} w_i ℓ(z_i^(k), t_i) / Σ w_i,    z^(k) of the model without fold k
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from ..hypergradient.hypergradient import Hypergradient
from ..preconditioners import Auto
from ..problem.problem import Problem
from ..solvers.solve import solve
from ..status import ConvergenceError
from .fold_factors import FoldFactors
from .task import Task, predictor

EXACT = 1e-9  # tolerance of the coefficients on all rows


@dataclasses.dataclass(frozen=True)
class Judged:
    """Losses of the rows that a model held out, (rows, t), with weights and fold."""

    losses: np.ndarray
    weights: np.ndarray
    fold: np.ndarray
    predictors: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Pooled loss of each target, Σ w ℓ / Σ w."""
        return np.asarray(self.weights @ self.losses / self.weights.sum())

    @property
    def error(self) -> np.ndarray:
        """Standard error of the pooled loss of each target, over the rows."""
        share = self.weights / self.weights.sum()
        return np.asarray(np.sqrt(share**2 @ (self.losses - self.mean) ** 2))

    def change(self, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return how other losses of the rows differ, Σ w Δ / Σ w, and its standard error."""
        changes, share = losses - self.losses, self.weights / self.weights.sum()
        mean = share @ changes
        return mean, np.sqrt(share**2 @ (changes - mean) ** 2)

    def per_fold(self) -> np.ndarray:
        """Return the weighted mean loss of each fold and target, (K, t)."""
        count = int(self.fold.max()) + 1
        total = np.bincount(self.fold, self.weights, minlength=count)
        sums = [
            np.bincount(self.fold, self.weights * column, minlength=count)
            for column in self.losses.T
        ]
        return np.stack(sums, axis=1) / total[:, None]


class Criterion:
    """F of one table: the stacked folds, their solutions, and what the rows lose."""

    def __init__(self, task: Task, table: Any, offset: np.ndarray) -> None:
        self.task = task
        self.glm = task.glm(table, offset)
        self.upper: Any
        if task.pairs is None:
            self.problem, self.upper = self.glm.leave_one_out()
        else:
            self.problem, self.upper = self.glm.cross_validation(task.pairs)
        count = 1 if task.pairs is None else len(task.pairs)
        self.y0 = np.tile(task.start, count)
        models = count * task.several
        self.M = _preconditioner(task, models, self.y0.size // models)

    def function(self, tol: float, y0: Any = None, upper: Any = None) -> Hypergradient:
        """Return F with its gradient, solved to ``tol``."""
        start = self.y0 if y0 is None else y0
        upper = self.upper if upper is None else upper
        return Hypergradient(self.problem, upper, y0=start, tol=tol, M=self.M)

    def judge(self, x: Any, y: Any) -> Judged:
        """Return what the held-out rows lose at x and the solutions y of the folds."""
        task = self.task
        if task.pairs is None:
            z = np.asarray(self.upper.predictors(x, y))
            numbers = np.zeros(task.weights.size, dtype=int)
        else:
            folds = np.asarray(self.glm.split(y))
            parts_of = zip(task.pairs, folds, strict=True)
            z = np.concatenate(
                [
                    predictor(task, task.features[test], own)
                    for (_, test), own in parts_of
                ]
            )
            sizes = [test.size for _, test in task.pairs]
            numbers = np.repeat(np.arange(len(sizes)), sizes)
        rows = task.judged
        with np.errstate(over="ignore"):
            losses = np.asarray(task.loss.value(z, task.targets[rows]))
        losses = losses if losses.ndim == 2 else losses[:, None]
        return Judged(losses, task.weights[rows], numbers, z)


def refit(task: Task, eta: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Return the solution on all rows at log-penalties η (r,), starting from ``near``."""
    problem, x = Problem(task.glm(np.zeros((eta.size, 1)), eta)), np.zeros(1)
    M = _preconditioner(task, 1, task.start.size)
    tol = EXACT
    while True:
        try:
            return np.asarray(solve(problem, x, near, tol=tol, M=M).y)
        except ConvergenceError:
            tol *= 100.0
            if tol > 1e-3:
                raise


def _preconditioner(task: Task, models: int, size: int) -> Any:
    """Return factors of the folds' Hessians where they are small, dense and smooth.

    The systems of several targets are solved as columns of one block; those of classes are
    so ill-conditioned where all are predicted that rounding of a factor counts.  Of sparse
    features the n products of a setup cost more than the steps of CG that they save; a
    sketch of K, of ``max_rank`` vectors, costs more where a product reads less than a use of
    it does, 2 entries of F against 4 of these.
    """
    if sparse.issparse(task.features):
        learned = Auto()
        entries = task.features.nnz / max(task.features.shape[1], 1)
        thin = 2.0 * entries < 4.0 * learned.max_rank
        return Auto(patience=1.0) if thin else learned
    known = task.smooth and task.several == task.outputs == 1
    return (FoldFactors.where_small(models, size) if known else None) or Auto()


def gathered(
    function: Callable[..., Any], *data: Any, **options: Any
) -> tuple[Any, list[str]]:
    """Return what the function returns, and the texts of its warnings."""
    with warnings.catch_warnings(record=True, action="always") as caught:
        found = function(*data, **options)
    return found, [str(warning.message) for warning in caught]
