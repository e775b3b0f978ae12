"""How the pictures of the gallery look, and the command line that all six share."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

BLUE, RED, GREEN, GREY = "#0B5394", "#C1440E", "#2E7D5B", "#6B6B6B"
COLOURS = (BLUE, RED, GREEN)
STYLE = {
    "font.family": "serif",
    "font.serif": ["STIXGeneral", "DejaVu Serif"],
    "mathtext.fontset": "stix",
    "font.size": 10,
    "axes.linewidth": 0.6,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
}


def command_line(description: str) -> argparse.ArgumentParser:
    """Return a parser that knows ``--out DIR``."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out = {"type": Path, "default": Path("output"), "help": "folder of the picture"}
    parser.add_argument("--out", **out)
    return parser


def folder(description: str) -> Path:
    """Parse ``--out DIR`` and return the folder, made where it is missing."""
    out = command_line(description).parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    return out


def canvas(width: float, height: float) -> Figure:
    """Return an empty figure, in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: Path) -> None:
    """Write the picture and say where."""
    figure.savefig(path, dpi=200)
    print(f"picture {path}")


def surface(axes, function, limits, levels=None) -> object:
    """Draw a function of two variables that takes points (k, 2), as filled contours."""
    low, high = limits
    side = np.linspace(low, high, 241)
    grid = np.stack(np.meshgrid(side, side), axis=-1)
    values = function(grid.reshape(-1, 2)).reshape(side.size, side.size)
    levels = np.linspace(0.0, 1.0, 21) if levels is None else levels
    filled = axes.contourf(side, side, values, levels, cmap="Blues")
    filled.set_edgecolor("face")  # no hair lines between the bands
    axes.contour(side, side, values, levels[::2], colors="white", linewidths=0.4)
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    for side_name in ("top", "right"):
        axes.spines[side_name].set_visible(True)
    return filled
