"""The learned penalties beside the best single one: losses of the rows, and their error."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from .criterion import Criterion
from .penalty_table import PenaltyTable
from .search import LOOSE, Search, flat
from .table_search import search_table
from .task import Task


def crossed_losses(
    task: Task, table: PenaltyTable, single: Search, options: dict[str, Any]
) -> tuple[np.ndarray, int]:
    """Return losses of the held-out rows by parameters learned on the other folds.

    x is learned on the held-out rows of every second fold and judged by those of the
    others, and the other way round: with many parameters the folds' own loss flatters.
    """
    assert task.pairs is not None
    losses = np.empty_like(single.judged.losses)
    products = 0
    for learns, judges in ((0, 1), (1, 0)):
        part = dataclasses.replace(task, pairs=task.pairs[learns::2])
        start = dataclasses.replace(single, y=np.zeros(0))
        found = search_table(part, table, start, dict(options))
        other = dataclasses.replace(task, pairs=task.pairs[judges::2])
        F = Criterion(other, table.scaled, table.offset)
        there = F.function(LOOSE)
        x = flat(found.u)
        y = there.solve(x).y
        losses[single.judged.fold % 2 == judges] = F.judge(x, y).losses
        products += found.products + there.n_hvp
    return losses, products
