"""Text: how far to standardise the counts of words, learned by the folds.

    log-penalty of a word = x_1 + x_2 log(variance of its count)

x_2 = 0 penalises the counts as they are, and the many rare words count for next to nothing;
x_2 = 1 standardises them, and they count for too much.  The documents are drawn: two kinds,
4000 words of Zipf frequencies, of which common ones say less of the kind than rare ones do,

    counts ~ Poisson(60 f_w e^(+- b_w)),    b_w ~ N(0, s^2 / sqrt(f_w / max f))

Two numbers are learned from 600 documents; 2000 judge, beside the best single penalty by the
same folds (scikit-learn's LogisticRegressionCV), over several draws.

    python examples/text_moments.py [--draws 5]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from _single_or_learned import compare, over_draws, write

try:
    from matplotlib.figure import Figure
    from scipy import sparse
except ImportError as error:
    sys.exit(f"error: {error}; pip install 'sparse_argdiff[examples]'")

LEARN, JUDGE, WORDS, LENGTH, SIZE = 600, 2000, 4000, 60, 0.06


def documents(seed: int) -> tuple[sparse.csr_array, np.ndarray]:
    """Return counts of words and the kind of each document."""
    rng = np.random.default_rng(seed)
    frequency = 1.0 / np.arange(1.0, WORDS + 1.0)
    effect = SIZE * frequency**-0.25 * rng.standard_normal(WORDS)
    frequency /= frequency.sum()
    kind = rng.integers(0, 2, LEARN + JUDGE)
    rates = LENGTH * frequency * np.exp(np.outer(2.0 * kind - 1.0, effect))
    return sparse.csr_array(rng.poisson(rates).astype(float)), kind


def compared(seed: int):
    """Return the log losses of both on the rows that judge, and the learned model."""
    X, y = documents(seed)
    return compare(X, y, LEARN, np.logspace(-5, 3, 20), seed)


def draw(models, path: Path) -> None:
    """Draw the learned penalties over the variance of the counts, a line for each draw."""
    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    axes = figure.subplots()
    for seed, model in enumerate(models):
        counts = documents(seed)[0][:LEARN].toarray()
        variance = counts.var(axis=0)
        order = np.argsort(variance)[np.count_nonzero(variance == 0.0) :]
        (line,) = axes.loglog(
            variance[order], model.penalties_[order], label=f"draw {seed}: learned"
        )
        axes.axhline(model.single_penalty_, color=line.get_color(), lw=0.8, ls=":")
    axes.plot([], [], color="0.3", lw=0.8, ls=":", label="best single penalty")
    axes.set(xlabel="variance of the count of a word", ylabel="its penalty")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each draw, and the mean change; draw the penalties."""
    models = over_draws(
        __doc__,
        arguments,
        compared,
        lambda model: f"standardised {model.x_[1]:+.2f} ({model.kept_})",
    )
    write(draw, models[:3], "text_moments.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
