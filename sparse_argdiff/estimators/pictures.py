"""Pictures of a fit: the search, the penalties of the columns, the loss of each fold."""

from __future__ import annotations

from typing import Any

import numpy as np

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "0.45"


def draw_fit(estimator: Any, axes: Any = None) -> Any:
    """Draw the three pictures on three axes, new ones by default; return the figure."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise ImportError(
            "plot needs matplotlib: pip install 'sparse_argdiff[plot]'"
        ) from error
    if axes is None:
        figure = Figure(figsize=(12.0, 3.6), layout="constrained")
        grid = figure.subplots(1, 3)
    else:
        grid = np.asarray(axes, dtype=object).ravel()
        if grid.size != 3:
            raise ValueError(f"axes must be three matplotlib axes, found {grid.size}")
        figure = grid[0].figure
    for ax in grid:
        ax.spines[["top", "right"]].set_visible(False)
    draw_search(estimator, grid[0])
    draw_penalties(estimator, grid[1])
    draw_folds(estimator, grid[2])
    return figure


def draw_search(estimator: Any, ax: Any) -> None:
    """Draw the folds' loss of the search against its products."""
    history = estimator.history_
    cost = [record.n_hvp + record.n_grad for record in history]
    single = float(np.mean(estimator.single_cv_loss_))
    values = np.array([record.value for record in history])
    # Several targets: F is their sum.
    values = values * (np.mean(estimator.learned_cv_loss_) / values[-1])
    ax.plot(cost, values, "o-", color=BLUE, ms=3.5, label="learned")
    ax.axhline(single, color=GREY, ls="--", lw=1, label="best single penalty")
    ax.set(xlabel="products", ylabel="loss of the folds", title="search")
    ax.legend(frameon=False, fontsize=8)


def draw_penalties(estimator: Any, ax: Any) -> None:
    """Draw the log-penalties of the columns, by group where there are groups."""
    logs = np.atleast_2d(estimator.log_penalties_).mean(axis=0) / np.log(10.0)
    of = getattr(estimator, "column_groups_", None)
    single = np.log10(np.mean(estimator.single_penalty_))
    if of is not None and len(set(of)) <= 40:
        labels = list(dict.fromkeys(of))
        index = np.array([labels.index(label) for label in of])
        index = np.repeat(index, logs.size // index.size)
        mean = np.bincount(index, logs) / np.bincount(index)
        places = np.arange(len(labels))
        ax.barh(places, mean - single, left=single, color=BLUE, height=0.6)
        ax.set_yticks(places, [str(label) for label in labels])
        ax.invert_yaxis()
    else:
        spread = np.ptp(logs)
        ax.hist(logs, bins=40 if spread > 1e-6 else 1, color=BLUE)
        ax.set_ylabel("columns")
    ax.axvline(single, color=GREY, ls="--", lw=1)
    ax.set(xlabel="log10 of the penalty", title="penalties (dashed: best single)")


def draw_folds(estimator: Any, ax: Any) -> None:
    """Draw the loss of each fold under the single penalty and as learned."""
    before, after = estimator.single_cv_loss_per_fold_, estimator.learned_per_fold_
    before, after = (np.atleast_2d(part.T).mean(axis=0) for part in (before, after))
    places = np.arange(before.size)
    for k in places:
        ax.plot([k, k], [before[k], after[k]], color="0.8", lw=2, zorder=0)
    ax.plot(places, before, "o", color=GREY, label="best single penalty")
    ax.plot(places, after, "o", color=BLUE, label="learned")
    ax.set(xlabel="fold", ylabel="held-out loss", title="folds")
    if before.size <= 20:
        ax.set_xticks(places, [str(k + 1) for k in places])
    ax.legend(frameon=False, fontsize=8)
