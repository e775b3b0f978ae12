"""Polynomial features by degree: a penalty for each degree, on scikit-learn's diabetes.

    R^2 on the rows that judge, over several splits in half, and the gain's standard error

With products of all pairs of ten variables (65 columns, 221 rows) a single penalty has to be
strong enough for the products, and is then too strong for the variables themselves.

    python examples/polynomial_degrees.py [--splits 8]
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

try:
    from sklearn.datasets import load_diabetes
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import KFold, train_test_split
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    from sparse_argdiff.estimators import LinearRegressorCV
except ImportError as error:
    sys.exit(f"error: {error}; pip install 'sparse_argdiff[examples]'")


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each split, and the mean gain."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--splits", type=int, default=8)
    args = parser.parse_args(arguments)
    X, y = load_diabetes(return_X_y=True)
    products = PolynomialFeatures(2, include_bias=False).fit(X)
    degree, X = products.powers_.sum(axis=1), products.transform(X)
    print(f"{'split':>6s}{'single':>9s}{'degrees':>9s}   log10 penalty of degree 1, 2")
    scores = []
    for seed in range(args.splits):
        A, B, a, b = train_test_split(X, y, test_size=0.5, random_state=seed)
        scaler = StandardScaler().fit(A)
        A, B = scaler.transform(A), scaler.transform(B)
        folds = list(KFold(5, shuffle=True, random_state=seed).split(A))
        single = RidgeCV(np.logspace(-2, 4, 20), cv=folds).fit(A, a)
        learned = LinearRegressorCV(groups=degree, cv=folds).fit(A, a)
        scores.append((single.score(B, b), learned.score(B, b)))
        # log-penalties of the first column of each degree
        levels = learned.log_penalties_[[0, 10]] / np.log(10.0)
        print(
            f"{seed:6d}{scores[-1][0]:9.4f}{scores[-1][1]:9.4f}   "
            f"{levels[0]:+.2f}, {levels[1]:+.2f} ({learned.kept_})"
        )
    single_mean, learned_mean = np.mean(scores, axis=0)
    gains = np.diff(scores, axis=1)[:, 0]
    error = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else np.nan
    print(
        f"\nR^2 {single_mean:.4f} and {learned_mean:.4f}, "
        f"gain {gains.mean():+.4f} +- {error:.4f} over {len(gains)} splits"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
