"""The search over the parameters x of a table: log-penalties o + Z x, from the best start."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import numpy as np

from ..bilevel.prior import Sum
from ..bilevel.prior import prior as normal_prior
from ..status import ConvergenceError
from .criterion import Criterion
from .penalty_table import PenaltyTable
from .search import LOOSE, Search, descend, flat, some_folds, spread
from .task import Task

FACTOR = math.log(10.0)  # between the single penalties of standardised columns,
COUNT = 8  # of which so many span their range
RISES = 2  # of their losses in a row, after which no weaker ones are tried


def search_table(
    task: Task, table: PenaltyTable, single: Search, options: dict[str, Any]
) -> Search:
    """Return the log-penalties that the table allows, starting from the single one."""
    start = time.perf_counter()
    criterion = Criterion(task, table.scaled, table.offset)
    low, high = box(task, table)
    prior = options.pop("prior", None)
    first = options.pop("start", None)
    upper: Any = criterion.upper
    if prior is not None and table.deviations and np.isfinite(prior):
        upper = with_prior(task, table, criterion.upper, single, prior)
    y, products = None, 0
    if first is not None and first.shape == low.shape:
        u = first
    else:
        u, y, products = _start_of(task, table, single, low, high)
    if y is None and single.y.size == criterion.y0.size:
        y = single.y
    found = descend(criterion, u, low, high, y0=y, upper=upper, **options)
    return dataclasses.replace(
        found,
        seconds=time.perf_counter() - start,
        products=found.products + products,
    )


def box(task: Task, table: PenaltyTable) -> tuple[np.ndarray, np.ndarray]:
    """Return bounds of u that keep log-penalties in the range of the data."""
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
        if k >= table.k:
            bounds[:, k:] = bounds[:, [k]]
            break
    several = np.ones(task.several)
    return bounds[0][:, None] * several, bounds[1][:, None] * several


def _start_of(
    task: Task, table: PenaltyTable, single: Search, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Return the best of the starts: single penalties of the columns, and of standardised ones.

    The latter are tried where the table can express them, from strong to weak; a table around
    standardised columns starts there alone, whatever the units.  Some of the folds compare
    them.
    """
    rows = table.offset.size
    level = np.column_stack([table.project(np.full(rows, a)) for a in single.u[0]])
    level = np.clip(level, low, high)
    standardised = [np.clip(u, low, high) for u in _standardised(task, table, single)]
    if not standardised:
        return level, None, 0
    few = some_folds(task)
    criterion = Criterion(few, table.scaled, table.offset)
    F = criterion.function(LOOSE)
    chosen, y = standardised[0], None
    least = np.full(task.several, np.inf)
    starts = standardised if table.offset.any() else [level, *standardised]
    lowest, rises = least, 0  # of those of standardised columns
    for start in starts:
        try:
            x = flat(start)
            found = np.asarray(F.solve(x).y)
        except ConvergenceError:
            continue
        loss = criterion.judge(x, found).mean
        better = loss < least
        chosen, least = np.where(better, start, chosen), np.minimum(loss, least)
        y = found if better.any() else y
        if start is level:
            continue
        rises = rises + 1 if (loss > lowest).all() else 0
        lowest = np.minimum(loss, lowest)
        if rises >= RISES and np.isfinite(lowest).all():
            break
    count = 1 if few.pairs is None else len(few.pairs)
    return chosen, None if y is None else spread(task, y, count), F.n_hvp


def _standardised(task: Task, table: PenaltyTable, single: Search) -> list[np.ndarray]:
    """Return u of single penalties of standardised columns, none where Z lacks them.

    They go from strong to weak.  Of a ridge, the second gives the predictor the prior variance
    Σ_j v_j e^{−η_j} that the best single one gives it.  The norms with kinks have those of the
    whole range, and so have tables around standardised columns: the best single penalty of
    columns in other units says nothing of these.
    """
    sizes = task.sizes
    known = sizes > 0.0
    logs = np.log(np.where(known, sizes, 1.0))
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
        same = math.log(known.sum()) - math.log(sizes.sum())
        levels = [single.u[0] + same + k * FACTOR for k in range(1, -COUNT, -1)]
    return [
        np.column_stack([table.project(a + rows) for a in level]) for level in levels
    ]


def with_prior(
    task: Task, table: PenaltyTable, upper: Any, single: Search, deviation: float
) -> Sum:
    """Return the upper objective plus a Gaussian prior of the single columns' deviations.

    In units of the loss: noise Σ d² / (2 s² Σ w), with noise the variance of the held-out
    residuals for squared loss and 1 for a negative log-likelihood.
    """
    rows = float(task.weights[task.judged].sum())
    squared = type(task.loss).__name__ in {"Squared", "Huber"}
    noise = 2.0 * single.judged.mean if squared else np.ones(task.several)
    with np.errstate(divide="ignore"):
        each = deviation / np.sqrt(noise)
    deviations = np.tile(each, (table.m, 1))
    deviations[: table.k] = np.inf
    return Sum(upper, normal_prior(0.0, flat(deviations), rows=rows))
