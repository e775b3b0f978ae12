"""Before and after in one table: the best single penalty and the learned ones.

Both are judged by the same folds; the standard error is that of the difference of the
losses of the held-out rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .penalty_table import PenaltyTable
from .search import Search
from .task import Task

_SHOWN = 12  # parameters written out
_HEAD = f"{'':22s}{'loss':>11s}{'penalties':>11s}{'steps':>7s}{'products':>10s}{'seconds':>9s}"


def write_summary(
    estimator: Any,
    task: Task,
    table: PenaltyTable,
    single: Search,
    learned: Search,
    change: np.ndarray,
    error: np.ndarray,
) -> str:
    """Return the text of ``summary()``."""
    rows, columns = task.features.shape
    folds = "leave-one-out" if task.pairs is None else f"{len(task.pairs)} folds"
    several = f", {task.several} targets" if task.several > 1 else ""
    lines = [
        f"{type(estimator).__name__}: {rows} rows, {columns} columns{several}",
        f"{folds}, {type(task.loss).__name__.lower()} loss",
        "",
        _HEAD,
        _row("best single penalty", single, 1, task),
        _row("learned", learned, table.m, task),
        "",
        f"learned - single: {change.mean():+.5f} +- {_joint(error):.5f} ({_judges(learned)})",
        _kept(estimator, task, table.single),
    ]
    lines += _parameters(estimator, task, table)
    if table.dropped:
        lines.append(f"dropped, they depend on others: {', '.join(table.dropped)}")
    empty = int((task.moments == 0.0).sum())
    if empty:
        lines.append(f"columns without spread, coefficient zero: {empty}")
    lines += [f"at a bound: {said}" for said in estimator.at_bound_]
    lines += [f"note: {said}" for said in estimator.notes_]
    return "\n".join(lines)


def _judges(learned: Search) -> str:
    if learned.crossed is None:
        return "rows, paired"
    return "rows, paired; x learned on the other folds"


def _row(name: str, found: Search, count: int, task: Task) -> str:
    return (
        f"{name:22s}{found.judged.mean.mean():11.5f}{count * task.several:11d}"
        f"{found.n_iter:7d}{found.products:10d}{found.seconds:9.2f}"
    )


def _joint(error: np.ndarray) -> float:
    """Return the standard error of the mean over targets, taken as independent."""
    return float(np.sqrt((error**2).sum()) / error.size)


def _kept(estimator: Any, task: Task, single: bool) -> str:
    if task.several > 1:
        share = int((estimator.kept_ == "learned").sum())
        return f"kept: learned penalties for {share} of {task.several} targets"
    if single:
        return "kept: the single penalty, the only one asked for"
    if estimator.kept_ == "learned":
        return "kept: the learned penalties"
    return "kept: the single penalty; learning is not better by its standard error"


def _parameters(estimator: Any, task: Task, table: PenaltyTable) -> list[str]:
    if task.several > 1:
        return []
    x = estimator.x_[: table.k]
    lines = [
        f"  {name:28s} {value:+.3f}"
        for name, value in zip(table.names, x, strict=False)
    ]
    more = len(lines) - _SHOWN
    lines = lines[:_SHOWN] + ([f"  ... and {more} more"] if more > 0 else [])
    if table.deviations:
        lines.append(f"  and {table.deviations} deviations of single columns")
    return ["log-penalties = o + Z x, x:", *lines]
