"""Sparse logistic regression on text: what the weights of words depend on, learned.

    minimise over x   F(x) = mean held-out loss of 5 folds
    g(x) = argmin_c   mean logistic loss + sum_j exp((Z x)_j) |c_j|

Three tables Z: one weight for all words; weights by the logarithm of the number of documents
that a word is in, 2 parameters; a weight for each word, thousands of parameters, which learn the
held-out documents by heart: the test rows, used for the last columns alone, tell.  Documents
are drawn, with word frequencies as in language; or read: a folder with X_raw.npz (documents x
words, sparse) and y_raw.npy (two labels), or a file in svmlight format.  The picture has the
words by their frequency and coefficient, and the weights that were learned.

    python examples/sparse_text.py                       # drawn documents
    python examples/sparse_text.py --data FOLDER
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
from _data import Dataset, encode, load
from scipy import sparse

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm

FOLDS = 5


def drawn(documents, words, rng):
    """Return documents of two kinds: a tenth of the words lean to one of them."""
    frequency = 1.0 / np.arange(5, words + 5)
    lean = np.where(rng.random(words) < 0.1, 0.5 * rng.standard_normal(words), 0.0)
    labels = rng.random(documents) < 0.5
    rows, columns = [], []
    for i, label in enumerate(labels):
        share = frequency * np.exp(lean if label else -lean)
        share *= rng.gamma(1.0, 1.0, words)  # words come in bursts
        length = int(rng.lognormal(4.2, 0.5)) + 5
        found = np.unique(rng.choice(words, length, p=share / share.sum()))
        rows.append(np.full(len(found), i))
        columns.append(found)
    where = np.concatenate(rows), np.concatenate(columns)
    features = sparse.csr_array(
        (np.ones(len(where[0])), where), shape=(documents, words)
    )
    return Dataset("drawn", features, labels * 1.0)


def tables(count):
    """Return the three tables Z, for the number of documents of each word."""
    level = np.log(count)
    level = (level - level.mean()) / level.std()
    ones = np.ones(len(count))
    return {
        "one weight": ones[:, None],
        "by document frequency": np.column_stack([ones, level]),
        "one for each word": sparse.eye_array(len(count), format="csr"),
    }


def learn(Z, x0, train, test, pairs, maxiter):
    """Return the row of the table, the weights and the coefficients."""
    start = time.process_time()
    (F, t), (G, s) = train, test
    glm = Glm(F, t, loss="logistic", norm="l1", penalty=Z)
    problem, upper = glm.cross_validation(pairs)
    with warnings.catch_warnings():  # the least loss is often at a kink, which is told
        warnings.simplefilter("ignore")
        found = sad.minimize(problem, upper, x0, maxiter=maxiter, tol=1e-3)
        solution = sad.solve(sad.Problem(glm), found.x)
    seconds = time.process_time() - start
    z = glm.predictor(G, solution.y)
    loss = float(np.mean(np.logaddexp(0.0, z) - s * z))
    wrong = float(np.mean((z > 0.0) != (s > 0.5)))
    used = int((solution.y[:-1] != 0.0).sum())
    return (found.fun, loss, wrong, used, seconds), Z @ found.x, solution.y[:-1]


def picture(path, count, results):
    """Save coefficients and learned weights against the number of documents of a word."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5))
    left, right = figure.subplots(1, 2, sharex=True)
    for name, (_, log_weights, c) in results.items():
        on = c != 0.0
        left.scatter(count[on], c[on], s=8, alpha=0.6, label=name)
        order = np.argsort(count)
        style = {"lw": 2} if "each" not in name else {"ls": "", "marker": ".", "ms": 2}
        right.plot(count[order], np.exp(log_weights[order]), label=name, **style)
    for axes, label in ((left, "coefficient"), (right, "weight")):
        axes.set(xscale="log", xlabel="documents with the word", ylabel=label)
        axes.legend()
    right.set_yscale("log")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main():
    """Read or draw documents, learn, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--documents", type=int, default=1500)
    parser.add_argument("--words", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, default=Path("output/sparse_text.png"))
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    data = (
        drawn(arguments.documents, arguments.words, rng)
        if arguments.data is None
        else load(arguments.data, None, None, "logistic")
    )
    order = rng.permutation(len(data.targets))
    split = len(order) * 3 // 10
    rows = order[:split], order[split:]
    targets = encode(data.targets, "logistic", rows[0]).values
    present = (data.features != 0).astype(float).tocsr()
    count = np.asarray(present[rows[0]].sum(axis=0)).ravel()
    kept = count >= 3
    present, count = present[:, kept], count[kept]
    train, test = ((sparse.csr_array(present[r]), targets[r]) for r in rows)
    held = rng.permutation(split) % FOLDS
    pairs = [
        (np.flatnonzero(held != k), np.flatnonzero(held == k)) for k in range(FOLDS)
    ]
    slope = train[0].T @ (train[1] - train[1].mean()) / split
    level = np.log(0.2 * np.abs(slope).max())
    print(
        f"{data.name}: {split} documents to learn from, {kept.sum()} words, "
        f"{len(order) - split} documents to test"
    )
    print(f"{'':24s} held-out loss  test loss  test error  words  CPU s")
    results, best = {}, level
    for name, Z in tables(count).items():
        x0 = np.zeros(Z.shape[1])
        x0[: 1 if Z.shape[1] == 2 else None] = best
        results[name] = learn(Z, x0, train, test, pairs, 30)
        best = float(results["one weight"][1][0])
        loss, test_loss, wrong, used, seconds = results[name][0]
        print(
            f"{name:24s} {loss:13.4f} {test_loss:10.4f} {wrong:11.3f} {used:6d} {seconds:6.2f}"
        )
    picture(arguments.picture, count, results)
    print(f"wrote {arguments.picture}")


if __name__ == "__main__":
    main()
