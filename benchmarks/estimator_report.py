"""Test losses of learned penalties beside the best single one, in one table with seconds.

    python benchmarks/estimator_report.py [--data NAME ...] [--splits 8] [--folder DATA]

For each set and split s: half of the rows learn, half judge
(``train_test_split(test_size=0.5, random_state=s)``; Friedman: 200 rows of
``make_friedman1(1200, 10, noise=1, random_state=s)`` learn).  The single penalty is
scikit-learn's RidgeCV or LogisticRegressionCV on a grid of 20 points, by the same folds;
"learned" is this package's default for the set.  ``--also single``: this package's best
single penalty by the same folds; ``--also converged``: the grid of LogisticRegressionCV at
tol=1e-8, where its default of 1e-4 stops early, which is a penalty of its own (on digits it
lowers the test loss); ``--also himalaya``: banded ridge (random search, and its
hypergradient) beside the groups.  Columns: mean test
loss (half squared error over the variance of the targets, or log loss), learned minus
grid with the standard error over splits, processor seconds.

Sets that are not in scikit-learn are read below --folder (or SPARSE_ARGDIFF_DATA):
text_farm_ads, libsvm_a9a, libsvm_w8a, gene_small_n.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import io, sparse
from sklearn.base import clone
from sklearn.datasets import (
    load_diabetes,
    load_digits,
    load_svmlight_file,
    make_friedman1,
)
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    StratifiedKFold,
    train_test_split,
)
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from sparse_argdiff.estimators import LinearClassifierCV, LinearRegressorCV


@dataclasses.dataclass(frozen=True)
class Split:
    """Rows to learn and to judge, options of the estimator, labels of duplicate rows."""

    learn: tuple[Any, Any]
    judge: tuple[Any, Any]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    duplicates: np.ndarray | None = None
    groups: np.ndarray | None = None


def halves(X, y, seed: int, options=None, groups=None, duplicates=None) -> Split:
    """Return a split in half; duplicates stay on one side."""
    if duplicates is None:
        rows = train_test_split(np.arange(len(y)), test_size=0.5, random_state=seed)
        return Split(
            *((X[r], y[r]) for r in rows), options=options or {}, groups=groups
        )
    labels = np.unique(duplicates)
    first, _ = train_test_split(labels, test_size=0.5, random_state=seed)
    learn = np.isin(duplicates, first)
    return Split(
        (X[learn], y[learn]),
        (X[~learn], y[~learn]),
        options or {},
        duplicates[learn],
        groups,
    )


def scaled(split: Split) -> Split:
    """Return the split with columns standardised by the rows that learn."""
    scaler = StandardScaler().fit(split.learn[0])
    both = ((scaler.transform(X), y) for X, y in (split.learn, split.judge))
    learn, judge = both
    return dataclasses.replace(split, learn=learn, judge=judge)


def diabetes(seed: int, folder: Path) -> Split:
    X, y = load_diabetes(return_X_y=True)
    products = PolynomialFeatures(2, include_bias=False).fit(X)
    degree = products.powers_.sum(axis=1)
    return scaled(
        halves(products.transform(X), y, seed, {"groups": degree}, degree - 1)
    )


def friedman(seed: int, folder: Path) -> Split:
    X, y = make_friedman1(1200, 10, noise=1, random_state=seed)
    products = PolynomialFeatures(3, include_bias=False).fit(X)
    powers, X = products.powers_, products.transform(X)
    degree = powers.sum(axis=1)
    known = np.column_stack([np.eye(3)[degree - 1], powers > 0]).astype(float)
    learn, judge = (X[:200], y[:200]), (X[200:], y[200:])
    return scaled(Split(learn, judge, {"descriptors": known}, groups=degree - 1))


def digits(seed: int, folder: Path) -> Split:
    X, y = load_digits(return_X_y=True)
    return halves(X, y, seed)


def districts(seed: int, folder: Path) -> Split:
    """Generated after the California housing data: skewed columns, ratios, a place."""
    rng = np.random.default_rng(1000 + seed)
    n = 2000
    place = rng.uniform([32.0, -124.0], [42.0, -114.0], (n, 2))
    income, age = rng.gamma(4.0, 1.0, n), rng.uniform(1.0, 52.0, n)
    rooms, people = rng.lognormal(1.6, 0.4, n), rng.lognormal(7.0, 0.8, n)
    X = np.column_stack([income, age, rooms, people, place])
    coast = -np.abs(place[:, 1] + 120.0 - 0.5 * (37.0 - place[:, 0]))
    y = 0.45 * income + 0.008 * age + 0.25 * coast + 0.1 * np.log(people)
    y += 0.6 * rng.standard_normal(n)
    products = PolynomialFeatures(3, include_bias=False).fit(X)
    degree = products.powers_.sum(axis=1)
    return scaled(
        halves(products.transform(X), y, seed, {"groups": degree}, degree - 1)
    )


def svmlight(name: str, n_features: int, rows: int | None = None):
    def read(seed: int, folder: Path) -> Split:
        (file,) = sorted((folder / name.partition("/")[0]).glob(name.partition("/")[2]))
        X, y = load_svmlight_file(str(file), n_features=n_features)
        X = sparse.csr_array(X)
        if rows is not None:
            which = np.random.default_rng(0).permutation(len(y))[:rows]
            X, y = X[which], y[which]
        return halves(X, y, seed)

    return read


def text(seed: int, folder: Path) -> Split:
    X = sparse.csr_array(
        sparse.load_npz(folder / "text_farm_ads" / "X_raw.npz"), dtype=float
    )
    y = np.load(folder / "text_farm_ads" / "y_raw.npy")
    X.sort_indices()
    seen: dict[bytes, int] = {}
    labels = [
        seen.setdefault(X.indices[a:b].tobytes(), len(seen))
        for a, b in zip(X.indptr[:-1], X.indptr[1:], strict=True)
    ]
    return halves(X, y, seed, duplicates=np.array(labels))


def genes(seed: int, folder: Path) -> Split:
    (file,) = sorted((folder / "gene_small_n").glob("*eukemia*.mat"))
    found = io.loadmat(file)
    X, y = np.asarray(found["X"], dtype=float), np.asarray(found["Y"]).ravel()
    return halves(X, y, seed)


SETS: dict[str, Callable[[int, Path], Split]] = {
    "diabetes": diabetes,
    "friedman": friedman,
    "digits": digits,
    "districts": districts,
    "leukemia": genes,
    "a1a": svmlight("libsvm_a9a/a1a*", 123),
    "a9a": svmlight("libsvm_a9a/a9a*", 123),
    "w8a": svmlight("libsvm_w8a/w8a*", 300),
    "text": text,
}


def folds_of(split: Split, seed: int, classes: bool):
    """Return five folds of the rows that learn; duplicates share theirs."""
    X, y = split.learn
    if split.duplicates is not None:
        splitter: Any = GroupKFold(5, shuffle=True, random_state=seed)
        return list(splitter.split(X, y, split.duplicates))
    kind = StratifiedKFold if classes else KFold
    return list(kind(5, shuffle=True, random_state=seed).split(np.zeros(len(y)), y))


def test_loss(model, split: Split) -> float:
    X, y = split.judge
    if not hasattr(model, "classes_"):
        return 0.5 * float(np.mean((y - model.predict(X)) ** 2) / np.var(y))
    index = np.searchsorted(model.classes_, y)
    probability = model.predict_proba(X)[np.arange(len(y)), index]
    return float(-np.log(np.maximum(probability, 1e-300)).mean())


def timed(model, split: Split) -> tuple[float, float]:
    """Return the test loss and processor seconds of a fit."""
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(*split.learn)
    seconds = time.process_time() - start
    return test_loss(model, split), seconds


def himalaya(split: Split, folds, method: str) -> tuple[float, float]:
    """Return test loss and seconds of banded ridge on the groups of columns."""
    from himalaya.kernel_ridge import MultipleKernelRidgeCV

    assert split.groups is not None
    (A, a), (B, b) = split.learn, split.judge
    shift = a.mean()
    bands = range(int(split.groups.max()) + 1)

    def kernels(X):
        parts = [split.groups == k for k in bands]
        return np.stack([X[:, k] @ A[:, k].T for k in parts])

    params = (
        {"n_iter": 100, "alphas": np.logspace(-3, 5, 20), "progress_bar": False}
        if method == "random_search"
        else {"max_iter": 100, "progress_bar": False}
    )
    start = time.process_time()
    model = MultipleKernelRidgeCV(
        kernels="precomputed",
        solver=method,
        solver_params=params,
        cv=folds,
        random_state=0,
    ).fit(kernels(A), a - shift)
    seconds = time.process_time() - start
    rest = b - shift - np.asarray(model.predict(kernels(B)))
    return 0.5 * float(np.mean(rest**2) / np.var(b)), seconds


def report(name: str, splits: range, folder: Path, also: set[str]) -> str:
    """Return the lines of a set."""
    losses: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    kept = 0

    def add(label: str, found: tuple[float, float]) -> None:
        losses.setdefault(label, []).append(found[0])
        seconds.setdefault(label, []).append(found[1])

    for seed in splits:
        split = SETS[name](seed, folder)
        y = split.learn[1]
        classes = len(np.unique(y)) <= 20
        folds = folds_of(split, seed, classes)
        kind: Any = LinearClassifierCV if classes else LinearRegressorCV
        if classes:
            grid: Any = LogisticRegressionCV(
                Cs=20,
                cv=folds,
                scoring="neg_log_loss",
                max_iter=1000,
                l1_ratios=(0.0,),
                use_legacy_attributes=False,
            )
        else:
            grid = RidgeCV(np.logspace(-4, 5, 20), cv=folds)
        add("grid", timed(grid, split))
        if "single" in also:
            add("single", timed(kind(penalties="single", cv=folds), split))
        if "converged" in also and classes:
            exact = clone(grid).set_params(tol=1e-8, max_iter=100_000)
            add("grid, converged", timed(exact, split))
        learned = kind(cv=folds, **split.options)
        add("learned", timed(learned, split))
        kept += learned.kept_ == "learned"
        if "himalaya" in also and split.groups is not None:
            for method in ("random_search", "hyper_gradient"):
                add(f"himalaya {method}", himalaya(split, folds, method))
    count = len(splits)
    lines = [f"{name} ({count} splits, learned kept in {kept})"]
    for label, values in losses.items():
        change = np.array(values) - losses["grid"]
        error = change.std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
        lines.append(
            f"  {label:24s}{np.mean(values):10.5f}  {change.mean():+.5f} +- {error:.5f}"
            f"{np.mean(seconds[label]):9.2f} s"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--splits", type=int, default=8)
    parser.add_argument(
        "--first", type=int, default=0, help="number of the first split"
    )
    where = os.environ.get("SPARSE_ARGDIFF_DATA", "data")
    parser.add_argument("--folder", type=Path, default=Path(where))
    parser.add_argument(
        "--also", nargs="+", choices=["single", "converged", "himalaya"], default=[]
    )
    args = parser.parse_args()
    print(f"{'':26s}{'test loss':>10s}  minus grid{'':12s}{'CPU':>8s}")
    splits = range(args.first, args.first + args.splits)
    for name in args.data:
        print(report(name, splits, args.folder, set(args.also)), flush=True)


if __name__ == "__main__":
    main()
