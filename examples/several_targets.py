"""Several targets, each with a penalty for each band of columns, in one fit.

    Y = X W + noise,   W_jt ~ N(0, s_(band of j, t)^2)

Each target uses the three bands to another degree.  RidgeCV with one penalty a target
cannot tell them apart; LinearRegressorCV learns three for each target, reading the columns
once for all.

    python examples/several_targets.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

try:
    from matplotlib.figure import Figure
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import KFold

    from sparse_argdiff.estimators import LinearRegressorCV
except ImportError as error:
    sys.exit(f"error: {error}; pip install 'sparse_argdiff[examples]'")

BANDS = {"sound": 20, "shape": 40, "word": 60}


def data(rows: int, seed: int = 0, targets: int = 6):
    """Return columns, targets, the band of each column, and the bands' true sizes."""
    rng = np.random.default_rng(seed)
    band = np.repeat(list(BANDS), list(BANDS.values()))
    size = rng.choice([0.05, 0.3, 1.0], (3, targets))
    spread = np.repeat(size, list(BANDS.values()), axis=0)
    W = spread * rng.standard_normal((band.size, targets)) / np.sqrt(band.size)
    X = rng.standard_normal((rows, band.size))
    Y = X @ W
    Y /= Y.std(axis=0)
    return X, Y + rng.standard_normal(Y.shape), band, size


def main() -> int:
    """Fit, print a line for each target, draw."""
    X, Y, band, size = data(1150)
    learn, judge = slice(0, 150), slice(150, None)
    folds = list(KFold(5, shuffle=True, random_state=0).split(X[learn]))
    single = [
        RidgeCV(np.logspace(-1, 4, 20), cv=folds).fit(X[learn], y) for y in Y[learn].T
    ]
    learned = LinearRegressorCV(groups=band, cv=folds).fit(X[learn], Y[learn])
    print(learned.summary(), end="\n\n")
    one = np.column_stack([model.predict(X[judge]) for model in single])
    errors = [(Y[judge] - z) ** 2 for z in (one, learned.predict(X[judge]))]
    variance = Y[judge].var(axis=0)
    before, after = (1.0 - rest.mean(axis=0) / variance for rest in errors)
    print(f"{'target':>8s}{'single R2':>11s}{'learned R2':>12s}   kept")
    for t, kept in enumerate(learned.kept_):
        print(f"{t:8d}{before[t]:11.4f}{after[t]:12.4f}   {kept}")
    gain = (errors[1] - errors[0]).mean(axis=1)
    print(
        f"\nsquared error, learned - single: {gain.mean():+.4f} +- "
        f"{gain.std() / np.sqrt(gain.size):.4f} (rows, paired)"
    )
    figure = Figure(figsize=(8.0, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = list(BANDS)
    places = [list(band).index(name) for name in names]
    tables = (size, -0.5 * learned.log_penalties_[:, places].T / np.log(10.0))
    titles = ("size of the true coefficients", "log10 of 1 / root of the penalty")
    for ax, table, title in zip((left, right), tables, titles, strict=True):
        image = ax.imshow(table, aspect="auto", cmap="viridis")
        ax.set_yticks(range(3), names)
        ax.set(xlabel="target", title=title)
        figure.colorbar(image, ax=ax)
    path = Path("output") / "several_targets.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150)
    print(f"picture {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
