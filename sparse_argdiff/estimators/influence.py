"""The effect of each training row on the pooled loss of the folds, at fixed penalties.

    I_i = − Σ_k ω_k λ_k' ∂f_Y^(k)/∂w_i,    f_YY^(k) λ_k = ∂(held-out loss of fold k)/∂y

Each fold takes one adjoint solve and one product with its features.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..hypergradient.hypergradient import Hypergradient
from ..hypergradient.influence import influence
from ..linear_model import Glm
from ..problem.problem import Problem
from .task import Task


def influence_at(task: Task, eta: np.ndarray) -> np.ndarray:
    """Return dF/dw_i of the rows of a task at log-penalties η (r,), shape (N,)."""
    if task.pairs is None:
        n_samples = task.weights.size
        everything = np.arange(n_samples)
        pairs: Any = [(np.delete(everything, i), everything[[i]]) for i in everything]
    else:
        pairs = task.pairs
    total = np.zeros(task.weights.size)
    judged = sum(float(task.weights[test].sum()) for _, test in pairs)
    kind = "per-feature" if eta.size == task.moments.size else "per-coefficient"
    for train, test in pairs:
        glm = Glm(
            task.features[train],
            task.targets[train],
            loss=task.loss,
            penalty=kind,
            intercept=task.intercept,
            sample_weight=task.weights[train],
        )
        weights = task.weights[test]
        upper = glm.held_out(
            task.features[test], task.targets[test], sample_weight=weights
        )
        problem = Problem(glm)
        found = Hypergradient(problem, upper, y0=task.start).evaluate(
            eta, certify=False
        )
        total[train] += weights.sum() / judged * influence(problem, found)
    return total
