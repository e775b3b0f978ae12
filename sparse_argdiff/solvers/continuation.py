"""Weights that fall step by step to those asked for, each solution the start of the next.

    w_k = max(κ^-k a, 1) w,        a = max_j |f_Y,j| / w_j  at the start

Where the start is a solution for weights a times as large, the support grows with the
solution; at once it would be chosen by forces that the solution has nothing of, and a loss
that is flat far out would be met there.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from ..arrays import epsilon
from ..problem.group_penalty import GroupL1
from ..problem.kinks import kinks
from ..problem.penalties import ElasticNet
from ..problem.problem import Problem
from ..status import Status
from .stopping import MAXITER, Callback, NewtonIterate, StoppingTest
from .working_set import PathEnd, WorkingSetNewton, majoriser_of

_RATIO = 10.0  # κ; 4 takes as long
_LOOSE = 0.1  # tolerance of all but the last solution


def on_columns(
    problem: Problem,
    x: Any,
    y: Any,
    tol: float,
    maxiter: int | None,
    callback: Callback | None,
) -> PathEnd | None:
    """Minimise on working sets, from y; None where they outgrow what is formed."""
    most, start, grad = MAXITER if maxiter is None else maxiter, y, problem.grad(x, y)
    ended = PathEnd(y, Status.CONVERGED, n_grad=1)
    for share in shares(problem, x, y, grad):
        stage = problem if share == 1.0 else heavier(problem, x, start, share)
        test = StoppingTest(
            tol if share == 1.0 else max(tol, _LOOSE),
            most - ended.niter,
            _told(callback, problem, x, ended),
        )
        own = grad if ended.y is start else None
        found = WorkingSetNewton(stage, x, test).run(ended.y, own)
        if found is None:
            return None
        ended = dataclasses.replace(
            found,
            niter=ended.niter + found.niter,
            n_hvp=ended.n_hvp + found.n_hvp,
            n_grad=ended.n_grad + found.n_grad,
        )
        if found.status in {Status.STOPPED_BY_CALLBACK, Status.ITERATION_LIMIT}:
            break
    return ended


def shares(problem: Problem, x: Any, y: Any, grad: Any) -> list[float]:
    """Return the multiples of the weights, from the largest down to 1.

    One alone where parabolas above f take turns with f_YY, which need no other weights.
    What rounding of its force hides of a weight is as good as free, and counts for nothing.
    """
    if majoriser_of(problem) is not None:
        return [1.0]
    found = kinks(problem, x, y, grad)
    assert found is not None
    a = np.asarray(found.activity)
    most = max(a[a * epsilon(y) < 1.0].tolist(), default=1.0)
    count = int(math.log(max(most, 1.0)) / math.log(_RATIO) - 1e-9)
    return [most / _RATIO ** (k + 1) for k in range(count)] + [1.0]


def heavier(problem: Problem, x: Any, y: Any, share: float) -> Problem:
    """Return the problem with its weights times a number."""
    penalty = problem.penalty
    if isinstance(penalty, GroupL1):
        weights = share * penalty.group_weights(x, y)
        own: Any = GroupL1.of_labels(
            np.minimum(penalty.blocks, penalty.n_groups), penalty.n_groups, weights
        )
    else:
        own = ElasticNet(share * penalty.weights(x, y), penalty.ridge(x, y))
    return dataclasses.replace(problem, penalty=own)


def _told(
    callback: Callback | None, problem: Problem, x: Any, before: PathEnd
) -> Callback | None:
    """Return the callback for iterates of one of the problems."""
    if callback is None:
        return None

    def told(iterate: NewtonIterate) -> Any:
        return callback(
            dataclasses.replace(
                iterate,
                niter=before.niter + iterate.niter,
                value=problem.total(x, iterate.y),
                n_hvp=before.n_hvp + iterate.n_hvp,
            )
        )

    return told
