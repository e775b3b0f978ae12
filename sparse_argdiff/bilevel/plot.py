"""A plot of the history of a run: F and its gradient against their cost.

Rows: value, gradient norm.  Columns: products (Hessian products + gradients), seconds.
A band shows how far off each may be, where its solves were loose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

_INK, _QUIET = "0.15", "0.87"
_COLUMNS = ("products", "seconds")
_ROWS = (r"$F(x)$", r"$\|\nabla F(x)\|$")


def plot_history(
    history: Sequence[Any], axes: Any = None, label: str | None = None
) -> Any:
    """Draw a history on four axes, new ones by default; return the figure."""
    try:
        import matplotlib.pyplot as plt  # noqa: PLC0415  (an extra)
        from matplotlib.ticker import MaxNLocator  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            "plot needs matplotlib: pip install 'sparse_argdiff[plot]'"
        ) from error
    if axes is None:
        figure, grid = plt.subplots(
            2, 2, sharex="col", sharey="row", figsize=(7.2, 4.8), layout="constrained"
        )
    else:
        grid = np.asarray(axes, dtype=object)
        if grid.size != 4:
            raise ValueError(f"axes must be four matplotlib axes, found {grid.size}")
        grid = grid.reshape(2, 2)
        figure = grid[0, 0].figure
    costs = (
        [record.n_hvp + record.n_grad for record in history],
        [record.seconds for record in history],
    )
    sizes = [record.gradient_norm for record in history]
    heights = ([record.value for record in history], sizes)
    errors = (
        [record.value_error for record in history],
        [record.gradient_error for record in history],
    )
    for row, name in enumerate(_ROWS):
        for column, cost in enumerate(costs):
            ax = grid[row, column]
            (line,) = ax.plot(
                cost, heights[row], linewidth=1.6, solid_joinstyle="round", label=label
            )
            color = line.get_color()
            _band(ax, cost, heights[row], errors[row], color, above=row == 1)
            ax.plot(cost, heights[row], ".", color=color, markersize=4.5, alpha=0.55)
            ax.plot(cost[-1:], heights[row][-1:], "o", color=color, markersize=6)
            ax.spines[["top", "right"]].set_visible(False)
            ax.spines[["left", "bottom"]].set_color("0.6")
            ax.tick_params(color="0.6", labelcolor=_INK)
            ax.grid(color=_QUIET, linewidth=0.7)
            ax.set_axisbelow(True)
            ax.margins(x=0.02)
            ax.set_xlim(left=0.0, auto=True)  # and free on the right for more runs
            if row == 1:
                ax.set_xlabel(_COLUMNS[column], color=_INK)
                ax.xaxis.set_major_locator(MaxNLocator(5, min_n_ticks=3))
                if any(size > 0.0 for size in sizes):
                    ax.set_yscale("log", nonpositive="mask")
            if column == 0:
                ax.set_ylabel(name, color=_INK)
    if label is not None:
        grid[0, 1].legend(frameon=False, labelcolor=_INK)
    return figure


def _band(
    ax: Any, cost: Any, heights: Any, errors: Any, color: Any, *, above: bool
) -> None:
    """Shade what each height may be, by its error; unknown errors have no band.

    ``above``: heights are on a logarithmic axis, the band ends at a third of the least.
    """
    middle, error = np.asarray(heights, dtype=float), np.asarray(errors, dtype=float)
    error = np.where(np.isfinite(error), error, np.nan)
    low, high = middle - error, middle + error
    if above and bool((middle > 0.0).any()):
        low = np.maximum(low, middle[middle > 0.0].min() / 3.0)
    ax.fill_between(cost, low, high, color=color, alpha=0.22, linewidth=0)
