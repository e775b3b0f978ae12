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

import argparse
import sys
from pathlib import Path

import numpy as np

try:
    from matplotlib.figure import Figure
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedKFold

    from sparse_argdiff.estimators import LinearClassifierCV
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
    """Return the log losses of both on the samples that judge, and the learned model."""
    X, y = samples(seed)
    folds = list(
        StratifiedKFold(5, shuffle=True, random_state=seed).split(y[:LEARN], y[:LEARN])
    )
    single = LogisticRegressionCV(
        Cs=np.logspace(-6, 2, 20),
        cv=folds,
        scoring="neg_log_loss",
        max_iter=1000,
        l1_ratios=(0.0,),
        use_legacy_attributes=False,
    )
    learned = LinearClassifierCV(groups=PATHWAY, cv=folds)
    losses = []
    for model in (single, learned):
        model.fit(X[:LEARN], y[:LEARN])
        losses.append(log_loss(y[LEARN:], model.predict_proba(X[LEARN:])))
    return losses, learned


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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=5)
    args = parser.parse_args(arguments)
    print(f"{'draw':>5s}{'single':>9s}{'learned':>9s}")
    losses, models = [], []
    for seed in range(args.draws):
        found, model = compared(seed)
        losses.append(found)
        models.append(model)
        print(f"{seed:5d}{found[0]:9.4f}{found[1]:9.4f}   ({model.kept_})")
    print(f"\n{models[-1].summary()}")
    gains = np.diff(losses, axis=1)[:, 0]
    error = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else np.nan
    single, learned = np.mean(losses, axis=0)
    print(
        f"\nlog loss {single:.4f} and {learned:.4f}, change {gains.mean():+.4f} +- "
        f"{error:.4f} over {len(gains)} draws"
    )
    path = Path("output") / "gene_groups.png"
    path.parent.mkdir(exist_ok=True)
    draw(models, path)
    print(f"drawn in {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
