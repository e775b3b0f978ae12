"""A report of a saved model: one page of HTML with its pictures inside, or a PNG.

The search, the penalties by group, the folds, the largest coefficients with their names,
and the training rows that do the folds' loss most harm.
"""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import Any

import numpy as np

from .files import DataError
from .pictures import BLUE, ORANGE, draw_folds, draw_penalties, draw_search
from .saved_model import SavedModel

_SHOWN = 15  # coefficients
_HARMFUL = 10  # rows


def draw_report(model: SavedModel) -> Any:
    """Return the figure of a report."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise DataError(
            "a report needs matplotlib: pip install 'sparse_argdiff[plot]'"
        ) from error
    figure = Figure(figsize=(12.0, 7.2), layout="constrained")
    axes = figure.subplots(2, 3)
    for ax in axes.ravel():
        ax.spines[["top", "right"]].set_visible(False)
    draw_search(model, axes[0, 0])
    draw_penalties(model, axes[0, 1])
    draw_folds(model, axes[0, 2])
    _draw_coefficients(model, axes[1, 0])
    _draw_influence(model, axes[1, 1], axes[1, 2])
    return figure


def largest_coefficients(
    model: SavedModel, count: int = _SHOWN
) -> list[tuple[str, float]]:
    """Return the names and values of the coefficients of largest size, over classes."""
    coefficients = np.atleast_2d(model.coef_)
    size = np.abs(coefficients).max(axis=0)
    order = np.argsort(-size, kind="stable")[:count]
    strongest = np.abs(coefficients).argmax(axis=0)
    return [(model.names[j], float(coefficients[strongest[j], j])) for j in order]


def harmful_rows(model: SavedModel, count: int = _HARMFUL) -> list[tuple[int, float]]:
    """Return the training rows, from 1, of greatest influence, and the influences."""
    found = model.arrays.get("influence")
    if found is None:
        return []
    order = np.argsort(-found, kind="stable")[:count]
    return [(int(i) + 1, float(found[i])) for i in order]


def _draw_coefficients(model: SavedModel, ax: Any) -> None:
    found = largest_coefficients(model)
    places = np.arange(len(found))
    values = [value for _, value in found]
    colours = [BLUE if value >= 0.0 else ORANGE for value in values]
    ax.barh(places, values, color=colours, height=0.7)
    ax.set_yticks(places, [name[:28] for name, _ in found], fontsize=7)
    ax.invert_yaxis()
    ax.axvline(0.0, color="0.5", lw=0.8)
    ax.set(title="largest coefficients", xlabel="coefficient")


def _draw_influence(model: SavedModel, left: Any, right: Any) -> None:
    influence, rows = model.arrays.get("influence"), harmful_rows(model)
    if influence is None:
        for ax in (left, right):
            ax.set_axis_off()
        return
    left.hist(influence, bins=60, color=BLUE, log=True)
    left.set(title="influence of the training rows", xlabel="dF / dw", ylabel="rows")
    places = np.arange(len(rows))
    right.barh(places, [value for _, value in rows], color=ORANGE, height=0.7)
    right.set_yticks(places, [f"row {row}" for row, _ in rows], fontsize=8)
    right.invert_yaxis()
    right.set(title="most harmful rows", xlabel="dF / dw")


def write_report(path: Path, model: SavedModel) -> None:
    """Write the report as .html or .png, by the ending of ``path``."""
    figure = draw_report(model)
    if path.suffix.lower() == ".png":
        figure.savefig(path, dpi=130)
        return
    if path.suffix.lower() not in {".html", ".htm"}:
        raise DataError(f"a report is .html or .png, found {path}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    picture = base64.b64encode(buffer.getvalue()).decode("ascii")
    path.write_text(_page(model, picture), encoding="utf-8")


def _page(model: SavedModel, picture: str) -> str:
    title = html.escape(f"{model.meta['kind']}: {model.meta.get('data', '')}")
    coefficients = _table(("column", "coefficient"), largest_coefficients(model, 30))
    rows = harmful_rows(model)
    harm = _table(("row", "dF / dw"), rows) if rows else ""
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        "<style>body{font:15px/1.45 sans-serif;max-width:74em;margin:2em auto;"
        "padding:0 1em}img{max-width:100%}pre{background:#f4f4f4;padding:1em;"
        "overflow:auto}td,th{padding:.1em .8em;text-align:left}.two{display:flex;"
        "gap:4em;flex-wrap:wrap}</style>"
        f"<h1>{title}</h1><pre>{html.escape(model.meta['summary'])}</pre>"
        f'<img alt="search, penalties, folds, coefficients and influence" '
        f'src="data:image/png;base64,{picture}"><div class=two>'
        f"<div><h2>Largest coefficients</h2>{coefficients}</div>"
        f"<div>{'<h2>Most harmful rows</h2>' if rows else ''}{harm}</div></div></html>"
    )


def _table(head: tuple[str, str], rows: list[Any]) -> str:
    cells = "".join(
        f"<tr><td>{html.escape(str(name))}<td>{value:.4g}" for name, value in rows
    )
    return f"<table><tr><th>{head[0]}<th>{head[1]}{cells}</table>"
