"""The search over the parameters x of a table: log-penalties o + Z x, from the best start."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import numpy as np
from scipy import sparse

from ..bilevel.prior import Sum
from ..bilevel.prior import prior as normal_prior
from ..status import ConvergenceError
from .criterion import Criterion
from .penalty_table import PenaltyTable, log_moments
from .search import LOOSE, Search, descend, flat, some_folds, spread
from .task import Task

FACTOR = math.log(10.0)  # between the single penalties of standardised columns,
COUNT = 8  # of which so many span their range
EVEN = 0.01  # share of the weights of log-penalties that all columns have alike
EXPONENTS = -1.0, 2.0  # of the moments: 0 columns as they are, 1 standardised
RISES = 2  # of their losses in a row, after which no weaker ones are tried


def search_table(
    task: Task, table: PenaltyTable, single: Search, options: dict[str, Any]
) -> Search:
    """Return the log-penalties that the table allows, starting from the single one."""
    start = time.perf_counter()
    prior = options.pop("prior", None)
    first = options.pop("start", None)
    low, high = box(task, table)
    eta = np.repeat(single.u, table.offset.size, axis=0)
    y, products = single.y, 0
    if first is not None and first.shape == low.shape:
        u = first
    else:
        u, found, products = _start_of(task, table, single, low, high)
        if found is not None:
            y, eta = found, table.log_penalties(u)
    known = y.size > 0
    near = table.in_metric(_energies(task, eta, y)) if known else table
    low, high = box(task, near)
    criterion = Criterion(task, near.scaled, near.offset)
    upper: Any = criterion.upper
    if prior is not None and table.deviations and np.isfinite(prior):
        upper = with_prior(task, table, criterion.upper, single, prior)
    u = near.from_user(table.to_user(u))
    y0 = y if known else None
    if single.y.size == criterion.y0.size:  # of the same folds
        options["beside"] = single.judged
    there = descend(criterion, u, low, high, y0=y0, upper=upper, **options)
    return dataclasses.replace(
        there,
        u=table.from_user(near.to_user(there.u)),
        seconds=time.perf_counter() - start,
        products=there.products + products,
    )


def _energies(task: Task, eta: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return Σ e^η c² by row of the table, over folds and targets, at solutions y of η (r, t).

    F depends on the log-penalty of a column about as much as its penalty weighs: in the
    metric of these weights the Hessian of F by few parameters is well-conditioned, where in
    that of equal columns the many rare ones count for all.  A hundredth is spread evenly.
    """
    rows = task.moments.size * task.outputs
    each = y.reshape(-1, task.several, task.start.size // task.several)
    squares = (each[..., :rows] ** 2).sum(axis=0).T  # (rows, t)
    if eta.shape[0] != rows:
        squares = squares.reshape(eta.shape[0], task.outputs, -1).sum(axis=1)
    # Relative to the largest: weak levels with far units overflow otherwise.
    energies = (np.exp(eta - eta.max()) * squares).sum(axis=1)
    total = energies.sum()
    if not 0.0 < total < np.inf:
        return np.ones_like(energies)
    return (1.0 - EVEN) * energies / total + EVEN / energies.size


def box(task: Task, table: PenaltyTable) -> tuple[np.ndarray, np.ndarray]:
    """Return bounds of u that keep log-penalties in the range of the data.

    The exponent of the columns' moments is held to ``EXPONENTS``: where the moments hardly
    differ, the folds do not tell it from its noise.
    """
    low, high = task.levels()
    shift_low, shift_high = float(table.offset.min()), float(table.offset.max())
    width = high - low
    bounds = np.empty((2, table.m))
    for k in range(table.m):
        column = table.scaled[:, [k]]
        entries = column.toarray() if hasattr(column, "toarray") else column
        positive = bool((entries >= 0.0).all()) and k < table.k
        if positive:  # a level
            bounds[:, k] = low - shift_high, high - shift_low
            if k >= table.k:
                break
        else:
            largest = float(np.abs(entries).max())
            bounds[:, k] = -width / largest, width / largest
            if _is_exponent(task, table, k):
                ends = np.sort(np.array(EXPONENTS) / table.back[k, k])
                bounds[:, k] = np.clip(bounds[:, k], *ends)
        if k >= table.k:
            bounds[:, k:] = bounds[:, [k]]
            break
    several = np.ones(task.several)
    return bounds[0][:, None] * several, bounds[1][:, None] * several


def _is_exponent(task: Task, table: PenaltyTable, k: int) -> bool:
    """Tell whether x_k = T_kk u_k is the exponent of the moments; T is upper triangular."""
    if sparse.issparse(table.table) or k != table.k - 1:
        return False
    logs = log_moments(task.sizes)
    rows = np.repeat(logs, table.offset.size // logs.size)
    return np.array_equal(table.table[:, k], rows)


def _start_of(
    task: Task, table: PenaltyTable, single: Search, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Return the best of the starts: single penalties of the columns, and of standardised ones.

    The latter are tried where the table can express them, from strong to weak, and then the
    middle between the best of both; a table around standardised columns starts there alone,
    whatever the units.  Some of the folds compare them.
    """
    rows = table.offset.size
    level = np.column_stack([table.project(np.full(rows, a)) for a in single.u[0]])
    level = np.clip(level, low, high)
    standardised = [np.clip(u, low, high) for u in _standardised(task, table, single)]
    if not standardised:
        return level, None, 0
    few = some_folds(task)
    criterion = Criterion(few, table.scaled, table.offset)
    known = single.y[: criterion.y0.size]
    tried = _Starts(criterion, standardised[0], known)
    lowest, rises, best = np.full(task.several, np.inf), 0, standardised[0]
    for start in standardised:
        loss = tried.loss(start)
        if loss is None:
            continue
        rises = rises + 1 if (loss > lowest).all() else 0
        best = np.where(loss < lowest, start, best)
        lowest = np.minimum(loss, lowest)
        if rises >= RISES and np.isfinite(lowest).all():
            break
    if not table.offset.any():
        missed = np.abs(table.log_penalties(level) - single.u).max()
        if known.size == criterion.y0.size and missed <= 1e-6:
            tried.judge(level, known)
            tried.F.y = known  # half-way from here is nearer than from the last one
        else:
            tried.loss(level)
        tried.loss(0.5 * (level + best))
    y = tried.y
    if y is not None and known.size == y.size:
        # The other folds start from their own solutions of the single penalty.
        y = np.concatenate([y, single.y[y.size :]])
    elif y is not None:
        y = spread(task, y, 1 if few.pairs is None else len(few.pairs))
    return tried.best, y, tried.F.n_hvp


class _Starts:
    """Starts that are compared by one loose solve each: the best of each target."""

    def __init__(self, criterion: Criterion, first: np.ndarray, y0: np.ndarray) -> None:
        near = y0 if y0.size == criterion.y0.size else None
        self.criterion, self.F = criterion, criterion.function(LOOSE, near)
        self.best, self.least = first, np.full(first.shape[1], np.inf)
        self.y: np.ndarray | None = None  # of the last that was the best of a target

    def loss(self, start: np.ndarray) -> np.ndarray | None:
        """Return what each target loses at a start, None where the solve fails."""
        x = flat(start)
        try:
            y = np.asarray(self.F.solve(x).y)
        except ConvergenceError:
            return None
        return self.judge(start, y)

    def judge(self, start: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return what each target loses at a start whose solutions are known."""
        loss = self.criterion.judge(flat(start), y).mean
        better = loss < self.least
        self.best = np.where(better, start, self.best)
        self.least = np.minimum(loss, self.least)
        self.y = y if better.any() else self.y
        return loss


def _standardised(task: Task, table: PenaltyTable, single: Search) -> list[np.ndarray]:
    """Return u of single penalties of standardised columns, none where Z lacks them.

    They go from strong to weak.  Of a ridge, the second gives the predictor the prior variance
    Σ_j v_j e^{−η_j} that the best single one gives it.  The norms with kinks have those of the
    whole range, and so have tables around standardised columns: the best single penalty of
    columns in other units says nothing of these.
    """
    sizes = task.sizes
    logs = log_moments(sizes)
    if np.ptp(logs) < 1e-6:
        return []
    rows = np.repeat(logs, table.offset.size // logs.size)
    missing = table.log_penalties(table.project(rows)[:, None])[:, 0] - rows
    if np.abs(missing).max() > 1e-6:
        return []
    if table.offset.any() or not task.smooth:
        top = math.log(task.curvature()) + math.log(10.0 * logs.size)
        top = top if task.smooth else task.emptying(sizes)
        levels = [np.full(task.several, top - k * FACTOR) for k in range(COUNT)]
    else:
        same = math.log(np.count_nonzero(sizes)) - math.log(sizes.sum())
        levels = [single.u[0] + same + k * FACTOR for k in range(1, -COUNT, -1)]
    return [
        np.column_stack([table.project(a + rows) for a in level]) for level in levels
    ]


def with_prior(
    task: Task, table: PenaltyTable, upper: Any, single: Search, deviation: float
) -> Sum:
    """Return the upper objective plus a Gaussian prior of the single columns' deviations.

    In units of the loss: noise Σ d² / (2 s² Σ w), with noise the dispersion by which the
    loss is divided in a negative log-likelihood: that of the held-out rows, the mean square
    or mean deviance, twice the loss, or the mean distance, the loss, to a quantile; 1 where
    the loss is a negative log-likelihood itself.
    """
    rows = float(task.weights[task.judged].sum())
    times = {
        "Squared": 2.0,
        "Huber": 2.0,
        "Gamma": 2.0,
        "Tweedie": 2.0,
        "Quantile": 1.0,
    }
    factor = times.get(type(task.loss).__name__)
    noise = np.ones(task.several) if factor is None else factor * single.judged.mean
    with np.errstate(divide="ignore"):
        each = deviation / np.sqrt(noise)
    deviations = np.tile(each, (table.m, 1))
    deviations[: table.k] = np.inf
    return Sum(upper, normal_prior(0.0, flat(deviations), rows=rows))
