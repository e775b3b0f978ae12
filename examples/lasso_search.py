"""Tune a lasso by its hypergradient, beside scikit-learn's LassoCV on the same folds.

    minimise over x   F(x) = mean held-out loss of 5 folds
    g(x) = argmin_c   mean training loss + sum_j exp((Z x)_j) |c_j|

Friedman's function of ten variables, all monomials up to degree 3: 285 features.  Three
tables Z: one weight for all; the weight by degree; by degree and by variable, 13 parameters.
The test rows are for the last column alone.  The picture has the path of coefficients
with the weights that were found, and the support, proven or not.

    python examples/lasso_search.py                       # prints a table
    python examples/lasso_search.py --picture lasso.png   # needs matplotlib
"""

from __future__ import annotations

import argparse
import itertools
import time
import warnings

import numpy as np
from sklearn.datasets import make_friedman1
from sklearn.linear_model import LassoCV

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm

DEGREE, VARIABLES, FOLDS = 3, 10, 5


def monomials(values):
    """Return all monomials up to the degree, standardised later, and their exponents."""
    exponents = np.array(
        [
            np.bincount(which, minlength=VARIABLES)
            for degree in range(1, DEGREE + 1)
            for which in itertools.combinations_with_replacement(
                range(VARIABLES), degree
            )
        ]
    )
    columns = [np.prod((2.0 * values - 1.0) ** row, axis=1) for row in exponents]
    return np.stack(columns, axis=1), exponents


def tables(exponents):
    """Return the three tables Z."""
    degree = exponents.sum(axis=1)
    by_degree = (degree[:, None] == np.arange(1, DEGREE + 1)[None, :]) * 1.0
    return {
        "one weight": np.ones((len(degree), 1)),
        "by degree": by_degree,
        "by degree and variable": np.hstack([by_degree, (exponents > 0) * 1.0]),
    }


def r_squared(predicted, targets):
    """Return the share of the variance that is explained."""
    return 1.0 - ((predicted - targets) ** 2).mean() / targets.var()


def search(Z, train, test, pairs):
    """Return the table's row of one Z: held-out loss, test R², support, seconds; and the model."""
    (F, t), (G, s) = train, test
    start = time.process_time()
    glm = Glm(F, t, loss="squared", norm="l1", penalty=Z)
    problem, upper = glm.cross_validation(pairs)
    top = np.abs(F.T @ (t - t.mean())).max() / len(t)
    x0 = np.linalg.lstsq(Z, np.full(len(Z), np.log(0.02 * top)))[0]
    with warnings.catch_warnings():  # the least loss is often at a kink, which is told
        warnings.simplefilter("ignore", sad.ConvergenceWarning)
        found = sad.minimize(problem, upper, x0, maxiter=60)
    solution = sad.solve(sad.Problem(glm), found.x)
    seconds = time.process_time() - start
    row = (
        found.fun,
        r_squared(glm.predictor(G, solution.y), s),
        int((solution.y[:-1] != 0.0).sum()),
        solution.support,
        seconds,
    )
    return row, glm, found.x, solution


def picture(path, glm, x, solution):
    """Save the path of coefficients along a common factor of the weights."""
    from matplotlib.figure import Figure

    shifts, y, lines = np.linspace(4.0, -2.0, 60), None, []
    direction = np.linalg.lstsq(glm.penalty_table, np.ones(len(glm.penalty_table)))[0]
    for shift in shifts:
        y = sad.solve(sad.Problem(glm.model), x + shift * direction, y0=y).y
        lines.append(y[:-1])
    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    axes.plot(shifts, lines, lw=1)
    axes.axvline(0.0, color="k", ls=":")
    axes.invert_xaxis()
    axes.set_xlabel("logarithm of a factor of all weights (0: as learned)")
    axes.set_ylabel("coefficients")
    count = int((solution.y[:-1] != 0.0).sum())
    axes.set_title(f"{count} of {len(solution.y) - 1} coefficients, {solution.support}")
    figure.tight_layout()
    figure.savefig(path)


class Learned:
    """A model with its table, for the picture."""

    def __init__(self, model, table):
        self.model, self.penalty_table = model, table


def run(rows, seed):
    """Draw data, learn, print; return the test R² of all, and the last model."""
    values, targets = make_friedman1(
        rows + 2000, VARIABLES, noise=1.0, random_state=seed
    )
    features, exponents = monomials(values)
    parts = slice(None, rows), slice(rows, None)
    mean, scale = features[parts[0]].mean(axis=0), features[parts[0]].std(axis=0)
    features = (features - mean) / scale
    train, test = ((features[r], targets[r]) for r in parts)
    held = np.random.default_rng(seed).permutation(rows) % FOLDS
    pairs = [
        (np.flatnonzero(held != k), np.flatnonzero(held == k)) for k in range(FOLDS)
    ]
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = LassoCV(alphas=100, cv=pairs, tol=1e-6, max_iter=100_000).fit(*train)
    seconds = time.process_time() - start
    loss = 0.5 * peer.mse_path_.mean(axis=1).min()
    scores = {"LassoCV": r_squared(peer.predict(test[0]), test[1])}
    print(f"{'':24s} held-out loss  test R2  coefficients  support   CPU s")
    used = int((peer.coef_ != 0).sum())
    print(
        f"{'LassoCV, 100 weights':24s} {loss:13.4f} {scores['LassoCV']:8.4f} {used:13d}  {'-':8s} {seconds:6.2f}"
    )
    for name, Z in tables(exponents).items():
        row, glm, x, solution = search(Z, train, test, pairs)
        loss, scores[name], used, support, seconds = row
        print(
            f"{name:24s} {loss:13.4f} {scores[name]:8.4f} {used:13d}  {support:8s} {seconds:6.2f}"
        )
    return scores, Learned(glm, Z), x, solution


def main():
    """Read the arguments, run the draws, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--draws", type=int, default=1, help="with seeds seed, seed+1, ..."
    )
    parser.add_argument("--picture")
    arguments = parser.parse_args()
    scores = []
    for seed in range(arguments.seed, arguments.seed + arguments.draws):
        of_all, *last = run(arguments.rows, seed)
        scores.append(of_all)
    if arguments.draws > 1:
        print(f"test R2 minus that of LassoCV, {arguments.draws} draws, standard error")
        for name in list(scores[0])[1:]:
            gain = np.array([of_all[name] - of_all["LassoCV"] for of_all in scores])
            error = gain.std(ddof=1) / np.sqrt(len(gain))
            print(f"{name:24s} {gain.mean():+.4f} ± {error:.4f}")
    if arguments.picture:
        picture(arguments.picture, *last)


if __name__ == "__main__":
    main()
