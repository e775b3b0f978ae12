"""Learn what the penalties of a linear model depend on, and what that gains on new rows.

    log-penalty of column j = sum_k Z_jk x_k      x by the loss of five folds

Without arguments: Friedman's function of ten variables, five of which do nothing; 200 rows
to learn from, 1000 to judge by, and all 285 monomials up to degree 3 as columns.  Z says of
each monomial its degree and its variables: thirteen numbers instead of one.  The best
single penalty by the same folds (scikit-learn's RidgeCV) is the other line of the table.

    python examples/tune_penalties.py
    python examples/tune_penalties.py --data rents.csv --target rent
    python examples/tune_penalties.py --data a9a.gz --n-features 123
    python examples/tune_penalties.py --data text.npz --target text.npy

Files: whatever the command ``sparse-argdiff`` reads; half of the rows judge, and the
penalties depend on the moments of the columns.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

try:
    import pandas as pd
    from matplotlib.figure import Figure
    from sklearn.datasets import make_friedman1
    from sklearn.linear_model import LogisticRegressionCV, RidgeCV
    from sklearn.model_selection import KFold, StratifiedKFold, train_test_split
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    from sparse_argdiff.estimators import LinearClassifierCV, LinearRegressorCV
    from sparse_argdiff.estimators.files import DataError, read_table
except ImportError as error:
    sys.exit(f"error: {error}; pip install 'sparse_argdiff[examples]'")

BLUE, GREY = "#0072B2", "0.55"


def friedman(seed: int):
    """Return monomials of Friedman's variables, targets, and what is known of each column."""
    X, y = make_friedman1(1200, 10, noise=1.0, random_state=seed)
    monomials = PolynomialFeatures(3, include_bias=False).fit(X)
    powers = monomials.powers_
    known = {f"degree {d}": powers.sum(axis=1) == d for d in (1, 2, 3)}
    known |= {f"has v{j}": powers[:, j] > 0 for j in range(10)}
    columns = StandardScaler().fit(monomials.transform(X[:200]))
    Z = pd.DataFrame(known, dtype=float)
    return columns.transform(monomials.transform(X)), y, Z


def row_losses(model, X, y) -> np.ndarray:
    """Return the loss of each row: log loss of classes, half the squared error."""
    if not hasattr(model, "classes_"):
        return 0.5 * (y - model.predict(X)) ** 2
    probability = model.predict_proba(X)
    index = np.searchsorted(model.classes_, y)
    return -np.log(np.maximum(probability[np.arange(len(y)), index], 1e-300))


def compare(models: dict, learn, judge) -> dict[str, np.ndarray]:
    """Fit the models, print a line for each, and return the losses of the judging rows."""
    print(f"{'':24s}{'test loss':>11s}{'score':>9s}{'seconds':>9s}")
    found = {}
    for name, model in models.items():
        start = time.perf_counter()
        model.fit(*learn)
        seconds = time.perf_counter() - start
        found[name] = row_losses(model, *judge)
        print(
            f"{name:24s}{found[name].mean():11.5f}{model.score(*judge):9.4f}{seconds:9.1f}"
        )
    first, last = list(found.values())
    change = last - first
    error = change.std() / np.sqrt(len(change))
    print(
        f"\ntest loss, learned - single: {change.mean():+.5f} +- {error:.5f} (paired)"
    )
    return found


def peer(regression: bool, folds):
    """Return scikit-learn's search of a single penalty on 20 points, by the same folds."""
    if regression:
        return RidgeCV(np.logspace(-3, 4, 20), cv=folds)
    return LogisticRegressionCV(
        Cs=20, cv=folds, scoring="neg_log_loss", max_iter=2000, l1_ratios=(0.0,)
    )


def draw(path: Path, model, Z) -> None:
    """Draw the search, what each descriptor does to the penalty, and the folds."""
    figure = Figure(figsize=(12.0, 3.8), layout="constrained")
    axes = figure.subplots(1, 3)
    model.plot(axes)
    if Z is not None and model.kept_ == "learned":
        # Means over the columns that have a descriptor: x itself has a free level.
        levels = model.log_penalties_ / np.log(10.0)
        means = [levels[Z[name] > 0].mean() for name in Z]
        axes[1].clear()
        places = np.arange(len(means))
        single = np.log10(model.single_penalty_)
        axes[1].barh(places, np.array(means) - single, left=single, color=BLUE)
        axes[1].axvline(single, color=GREY, ls="--", lw=1)
        axes[1].set_yticks(places, list(Z), fontsize=8)
        axes[1].invert_yaxis()
        axes[1].spines[["top", "right"]].set_visible(False)
        axes[1].set(title="mean penalty (dashed: best single)", xlabel="log10")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    print(f"picture {path}")


def main(arguments: list[str] | None = None) -> int:
    """Run the example; return its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="file; default: Friedman's function")
    parser.add_argument("--target", help="column of a frame, or .npy of a .npz")
    parser.add_argument("--n-features", type=int, help="of an svmlight file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("output"))
    args = parser.parse_args(arguments)
    if args.data is None:
        X, y, Z = friedman(args.seed)
        learn, judge = (X[:200], y[:200]), (X[200:], y[200:])
        name, regression = "friedman", True
    else:
        try:
            options = {"target": args.target, "n_features": args.n_features}
            table = read_table(args.data, **options)
        except DataError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        halves = train_test_split(
            table.features, table.targets, test_size=0.5, random_state=args.seed
        )
        learn, judge, Z = (halves[0], halves[2]), (halves[1], halves[3]), None
        name = table.name
        few = len(np.unique(table.targets)) <= 20
        regression = not few and np.asarray(table.targets).dtype.kind in "fiu"
    estimator = LinearRegressorCV if regression else LinearClassifierCV
    splitter = (KFold if regression else StratifiedKFold)(
        5, shuffle=True, random_state=args.seed
    )
    folds = list(splitter.split(*learn))
    learned = estimator(descriptors=Z, cv=folds, progress=True)
    print(f"{name}: {learn[0].shape[0]} rows to learn, {judge[0].shape[0]} to judge")
    single = peer(regression, folds)
    compare({"single, scikit-learn": single, "learned": learned}, learn, judge)
    print(f"\n{learned.summary()}")
    draw(args.out / f"tune_penalties_{name}.png", learned, Z)
    return 0


if __name__ == "__main__":
    sys.exit(main())
