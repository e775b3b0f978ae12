"""Weights of a lasso by cross-validation: sparse_argdiff, sparho, LassoCV, ElasticNetCV.

    python -m venv peers && peers/bin/pip install -r benchmarks/peers/requirements.txt
    PYTHONPATH=$PWD peers/bin/python benchmarks/peers/sparse_search.py search --data DIR --seed S
    PYTHONPATH=$PWD peers/bin/python benchmarks/peers/sparse_search.py weights --data DIR --seed S

The data are standardised and centred, and no model has an intercept.  All contestants have
the same folds, drawn from the seed.  The loss that is printed is one function for all: the
mean of ½ residual² over all held-out samples, of lassos solved to 1e-10 at the weights that
a contestant returned.  CPU seconds of this process.

    search    one weight, by one split (a fifth is held out) and by 5 folds: ``minimize``;
              sparho's ``grad_search`` and ``hoag_search`` with their defaults, from a tenth
              of the least weight with an empty support, as ours; ``LassoCV`` with 100
              weights; ``ElasticNetCV`` with 100 weights and three ratios, whose loss is that
              of its own best entry
    weights   one weight per feature, by 5 folds, from the best single weight for both
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from pathlib import Path

import numpy as np
from scipy import io

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm


def standardised(X, t):
    """Return columns of mean zero and deviation one, and centred targets."""
    X = X - X.mean(axis=0)
    scale = X.std(axis=0)
    return np.asfortranarray(X[:, scale > 0.0] / scale[scale > 0.0]), t - t.mean()


def genes(data, name):
    """Return a set of ``gene_small_n``."""
    entries = io.loadmat(data / "gene_small_n" / f"{name}.mat")
    return standardised(
        np.asarray(entries["X"], float), entries["Y"].ravel().astype(float)
    )


def correlated(rng, n=200, p=1000, share=0.6):
    """Return columns of correlation 0.6 with their neighbours, twenty of them in use."""
    X = rng.standard_normal((n, p))
    for j in range(1, p):
        X[:, j] = share * X[:, j - 1] + math.sqrt(1.0 - share**2) * X[:, j]
    t = X[:, :: p // 20] @ rng.standard_normal(20)
    return standardised(X, t + 0.5 * t.std() * rng.standard_normal(n))


def folds(size, count, rng):
    """Return pairs of training and held-out rows."""
    parts = np.array_split(rng.permutation(size), count)
    return [(np.sort(np.setdiff1d(np.arange(size), p)), np.sort(p)) for p in parts]


class Case:
    """A set with its folds."""

    def __init__(self, X, t, pairs, weights):
        self.X, self.t, self.pairs = X, t, pairs
        self.glm = Glm(
            X, t, loss="squared", norm="l1", penalty=weights, intercept=False
        )
        self.problem, self.upper = self.glm.cross_validation(pairs)
        self.top = np.abs(X.T @ t).max() / len(t)

    def loss(self, x):
        """Return the mean of ½ residual² over what is held out."""
        x = np.atleast_1d(x)
        y = sad.solve(self.problem, x, tol=1e-10, on_failure="warn").y
        return float(self.upper.value(x, y))

    def ours(self, x0, maxiter):
        """Return log-weights by ``minimize``."""
        found = sad.minimize(
            self.problem, self.upper, np.atleast_1d(x0), maxiter=maxiter
        )
        return found.x

    def sparho(self, x0, name, iterations):
        """Return log-weights by a search of sparho."""
        import sparho

        scalar = np.ndim(x0) == 0
        penalty = sparho.L1() if scalar else sparho.WeightedL1()
        kind = sparho.adapters.sklearn
        solver = kind.SklearnLasso() if scalar else kind.SklearnWeightedLasso()
        problem = sparho.Problem(sparho.SquaredLoss(), penalty, self.X, self.t)
        pairs = tuple(tuple(np.int32(v) for v in pair) for pair in self.pairs)
        if len(pairs) == 1:
            criterion = sparho.HeldOutMSE(*pairs[0])
        else:
            criterion = sparho.CrossVal(pairs, warm_start=True)
        search = getattr(sparho, name)
        found = search(
            problem,
            float(np.exp(x0)) if scalar else np.exp(x0),
            solver=solver,
            criterion=criterion,
            n_iter=iterations,
        )
        return np.log(found.best_hyperparam)

    def lasso_cv(self):
        """Return the log-weight of scikit-learn's grid."""
        from sklearn.linear_model import LassoCV

        model = LassoCV(cv=self.pairs, fit_intercept=False, max_iter=10_000)
        return np.log(model.fit(self.X, self.t).alpha_)

    def elastic_net_cv(self):
        """Return the loss of scikit-learn's grid of weights and ratios."""
        from sklearn.linear_model import ElasticNetCV

        model = ElasticNetCV(
            cv=self.pairs,
            fit_intercept=False,
            l1_ratio=[0.1, 0.5, 0.9],
            max_iter=10_000,
        )
        model.fit(self.X, self.t)
        # The grid weighs folds alike, ours the samples: the sizes differ by one at most.
        return 0.5 * float(model.mse_path_.mean(axis=-1).min())


def measured(label, call, loss, *arguments):
    """Print seconds and the loss of what a contestant returns; return that."""
    start = time.process_time()
    try:
        found = call(*arguments)
    except (ValueError, RuntimeError, sad.ConvergenceError) as error:
        print(f"  {label:22s} {type(error).__name__}: {str(error)[:60]}", flush=True)
        return None
    seconds = time.process_time() - start
    print(f"  {label:22s} {loss(found):.6f}  {seconds:8.2f} s", flush=True)
    return found


def search(name, X, t, rng):
    """Compare searches of one weight."""
    for label in ("one split", "5 folds"):
        pairs = folds(len(t), 5, rng)
        case = Case(X, t, pairs[:1] if label == "one split" else pairs, "scalar")
        x0 = np.log(0.1 * case.top)
        print(f"{name} {X.shape}, {label}; held-out loss, CPU time")
        measured("sparse_argdiff", case.ours, case.loss, x0, 60)
        for kind in ("grad_search", "hoag_search"):
            measured(f"sparho {kind}", case.sparho, case.loss, x0, kind, 50)
        measured("LassoCV", case.lasso_cv, case.loss)
        measured("ElasticNetCV", case.elastic_net_cv, float)


def weights(name, X, t, rng, iterations):
    """Compare searches of one weight per feature."""
    pairs = folds(len(t), 5, rng)
    single = Case(X, t, pairs, "scalar")
    print(f"{name} {X.shape}, weights per feature, 5 folds; held-out loss, CPU time")
    start = measured("LassoCV, one weight", single.lasso_cv, single.loss)
    case = Case(X, t, pairs, "per-feature")
    x0 = np.full(X.shape[1], start)
    measured("sparse_argdiff", case.ours, case.loss, x0, iterations)
    for kind in ("grad_search", "hoag_search"):
        measured(f"sparho {kind}", case.sparho, case.loss, x0, kind, iterations)


def main():
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["search", "weights"])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--iterations", type=int, default=30)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    known = ["leukemia", "arcene"] + ["correlated"] * (arguments.what == "search")
    for name in arguments.names or known:
        rng = np.random.default_rng(arguments.seed)
        X, t = correlated(rng) if name == "correlated" else genes(arguments.data, name)
        if arguments.what == "search":
            search(name, X, t, rng)
        else:
            weights(name, X, t, rng, arguments.iterations)


if __name__ == "__main__":
    main()
