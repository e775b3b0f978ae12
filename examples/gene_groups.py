"""Genes in groups: a penalty for each pathway, from more genes than samples.

    log-odds of the disease = sum over pathways of  X_g c_g,    c_g ~ N(0, s_g^2)

Eight pathways of 20 to 300 genes, which share a factor within each; two of them matter.  With
200 samples and 1200 genes a single penalty has to hold the six others down, and holds down the
two as well.  Eight penalties are learned by five folds, and judged by 2000 further samples,
beside the best single penalty by the same folds (scikit-learn's LogisticRegressionCV), over
several draws.

    python examples/gene_groups.py [--draws 5]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from _single_or_learned import compare, over_draws, write

try:
    from matplotlib.figure import Figure
except ImportError as error:
    sys.exit(f"error: {error}; pip install 'sparse_argdiff[examples]'")

LEARN, JUDGE = 200, 2000
GENES = {
    "repair": 30,
    "cycle": 20,
    "signal": 50,
    "growth": 100,
    "transport": 200,
    "immune": 200,
    "fat": 300,
    "other": 300,
}
ACTIVE = {
    "repair": 2.0,
    "signal": 2.0,
}  # standard deviation of their part of the log-odds
PATHWAY = np.repeat(list(GENES), list(GENES.values()))


def samples(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the expression of each gene, and who has the disease."""
    rng = np.random.default_rng(seed)
    rows, parts = LEARN + JUDGE, []
    odds = np.zeros(rows)
    for name, count in GENES.items():
        shared, own = rng.standard_normal((rows, 1)), rng.standard_normal((rows, count))
        part = np.sqrt(0.2) * shared + np.sqrt(0.8) * own
        if name in ACTIVE:
            signal = part @ rng.standard_normal(count)
            odds += ACTIVE[name] * signal / signal.std()
        parts.append(part)
    return np.hstack(parts), (rng.random(rows) < 1.0 / (1.0 + np.exp(-odds))).astype(
        int
    )


def compared(seed: int):
    """Return the log losses of both on the rows that judge, and the learned model."""
    X, y = samples(seed)
    return compare(X, y, LEARN, np.logspace(-6, 2, 20), seed, groups=PATHWAY)


def draw(models, path: Path) -> None:
    """Draw the log-penalty of each pathway, a dot for each draw."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for k, name in enumerate(GENES):
        first = int(np.argmax(name == PATHWAY))
        levels = [model.log_penalties_[first] / np.log(10.0) for model in models]
        colour = "C3" if name in ACTIVE else "C0"
        axes.plot(levels, np.full(len(levels), k), "o", color=colour, alpha=0.7)
    axes.set_yticks(range(len(GENES)), [f"{n} ({c} genes)" for n, c in GENES.items()])
    axes.set_xlabel("log10 of the penalty, a dot for each draw (red: it matters)")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each draw, and the mean change; draw the penalties."""
    models = over_draws(__doc__, arguments, compared, lambda model: f"({model.kept_})")
    write(draw, models, "gene_groups.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
