"""Lasso and sparse logistic regression to a relative duality gap of 1e-8, beside peers.

    OPENBLAS_NUM_THREADS=1 python benchmarks/nonsmooth_report.py --data DIR [names ...]
    ... correlated --rows hundredth path --peers sklearn celer      # some rows, some peers

For each set one weight, a tenth and a hundredth of the least for which all coefficients are
zero, and a path of twenty between that and a hundredth, warm-started.  Each solver gets
the loosest tolerance of its own with which every solution has a gap ≤ 1e-8 P, measured here
by one function for all.  CPU seconds of this process, least of the rounds, solvers in turn,
after a first call that compiles, whose extra time is said.  "ratio": to the best peer.

celer and skglm: their drop-in estimators and paths; scikit-learn: coordinate descent for
the squared loss, liblinear (which has no path) for the logistic one.  No intercept.  A peer
whose first call takes more than ``--limit`` CPU seconds, in a process of its own, is left
out, and named.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import math
import multiprocessing
import resource
import time
import warnings
from pathlib import Path

import numpy as np
from scipy import io, sparse

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm
from sparse_argdiff.solvers.duality import duality_gap

GAP = 1e-8
TOLERANCES = 10.0 ** -np.arange(2.0, 15.0, 2.0)
WEIGHTS = {
    "tenth": ("one weight, a tenth", np.array([0.1])),
    "hundredth": ("one, a hundredth", np.array([0.01])),
    "path": ("path of 20", np.geomspace(1.0, 0.01, 20)),
}


def genes(data, name):
    """Return standardised expressions and centred labels."""
    entries = io.loadmat(data / "gene_small_n" / f"{name}.mat")
    X, t = np.asarray(entries["X"], float), entries["Y"].ravel().astype(float)
    X = X - X.mean(axis=0)
    scale = X.std(axis=0)
    return np.asfortranarray(X[:, scale > 0.0] / scale[scale > 0.0]), t - t.mean()


def correlated(n=500, p=5000, share=0.6, seed=0):
    """Return columns of correlation 0.6 with their neighbours, fifty of them in use."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    for j in range(1, p):
        X[:, j] = share * X[:, j - 1] + math.sqrt(1.0 - share**2) * X[:, j]
    b = np.zeros(p)
    b[:: p // 50] = rng.standard_normal(50)
    t = X @ b
    noise = rng.standard_normal(n)
    return np.asfortranarray(X), t + noise * np.linalg.norm(t) / 3.0 / math.sqrt(n)


def text(data):
    """Return words and labels 0/1."""
    X = sparse.load_npz(data / "text_farm_ads" / "X_raw.npz")
    t = np.load(data / "text_farm_ads" / "y_raw.npy")
    return columns_32(X), (t > 0) * 1.0


def w8a(data):
    """Return the set of LIBSVM, labels 0/1."""
    rows, targets = [], []
    with gzip.open(data / "libsvm_w8a" / "w8a.gz", "rt") as file:
        for line in file:
            label, *entries = line.split()
            targets.append(float(label) > 0)
            rows.append([entry.split(":") for entry in entries])
    i = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    j = np.array([int(a) - 1 for row in rows for a, _ in row])
    v = np.array([float(b) for row in rows for _, b in row])
    X = sparse.csc_matrix((v, (i, j)), shape=(len(rows), 300))
    return columns_32(X), np.array(targets) * 1.0


def columns_32(X):
    """Return CSC with the 32-bit indices that all of them take."""
    X = sparse.csc_matrix(X, dtype=float)
    X.indices, X.indptr = X.indices.astype(np.int32), X.indptr.astype(np.int32)
    return X


SETS = {
    "leukemia": (lambda data: genes(data, "leukemia"), "squared"),
    "arcene": (lambda data: genes(data, "arcene"), "squared"),
    "correlated": (lambda data: correlated(), "squared"),
    "text": (text, "logistic"),
    "w8a": (w8a, "logistic"),
}


class Set:
    """A problem and the solvers of it: functions of (weights, tolerance) → solutions."""

    def __init__(self, X, t, loss):
        self.X, self.t, self.loss = X, t, loss
        self.problem = self.fresh()
        zero = np.zeros(X.shape[1])
        self.top = np.abs(self.problem.grad(np.zeros(1), zero)).max()

    def fresh(self):
        """Return the problem without anything kept from earlier solves."""
        glm = Glm(
            self.X, self.t, loss=self.loss, norm="l1", penalty="scalar", intercept=False
        )
        return sad.Problem(glm)

    def ours(self, weights, tol):
        problem, y, found = self.fresh(), None, []
        for w in weights:
            y = sad.solve(problem, np.log([w]), y0=y, tol=tol, on_failure="ignore").y
            found.append(y)
        return found

    def celer(self, weights, tol):
        from celer import celer_path

        options = {"tol": tol, "max_iter": 1000}
        N = len(self.t)
        if self.loss == "squared":
            _, found, _ = celer_path(self.X, self.t, "lasso", alphas=weights, **options)
        else:
            t = 2.0 * self.t - 1.0
            _, found, _ = celer_path(self.X, t, "logreg", alphas=weights * N, **options)
        return list(found.T)

    def skglm(self, weights, tol):
        from skglm.datafits import Logistic, Quadratic
        from skglm.penalties import L1
        from skglm.solvers import AndersonCD, ProxNewton

        squared = self.loss == "squared"
        kind = AndersonCD if squared else ProxNewton
        # The estimators compile once for each class: the classes are kept.
        if not hasattr(self, "_datafit"):
            from skglm.utils.jit_compilation import compiled_clone

            datafit = Quadratic() if squared else Logistic()
            self._datafit = compiled_clone(datafit)
            self._penalty = compiled_clone(L1(1.0))
        t = self.t if squared else 2.0 * self.t - 1.0
        w, found = None, []
        solver = kind(tol=tol, fit_intercept=False, max_iter=200, warm_start=True)
        for alpha in weights:
            self._penalty.alpha = alpha
            w0 = np.zeros(self.X.shape[1]) if w is None else w.copy()
            w = solver.solve(self.X, t, self._datafit, self._penalty, w0, self.X @ w0)[
                0
            ]
            found.append(w)
        return found

    def sklearn(self, weights, tol):
        from sklearn.linear_model import LogisticRegression, lasso_path

        if self.loss == "squared":
            options = {"tol": tol, "max_iter": 100_000}
            _, found, _ = lasso_path(self.X, self.t, alphas=weights, **options)
            return list(found.T)
        found = []
        for w in weights:
            model = LogisticRegression(
                C=1.0 / (w * len(self.t)),
                l1_ratio=1.0,
                solver="liblinear",
                fit_intercept=False,
                tol=tol,
                max_iter=2000,
            )
            found.append(model.fit(self.X, self.t).coef_.ravel())
        return found

    def gap(self, weights, solutions):
        """Return the largest relative gap."""
        worst = 0.0
        for w, y in zip(weights, solutions, strict=True):
            x = np.log([w])
            gap = duality_gap(self.problem, x, np.asarray(y, float))
            worst = max(worst, gap.gap / self.problem.total(x, np.asarray(y, float)))
        return worst


SOLVERS = ("ours", "celer", "skglm", "sklearn")


def seconds(call):
    """Return CPU seconds of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def returns(case, name, weights, limit):
    """Tell whether a solver's first call ends in time, in a process of its own."""

    def call():
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit)))
        getattr(case, name)(weights, 1e-4)

    child = multiprocessing.get_context("fork").Process(target=call)
    child.start()
    child.join(20.0 * limit)
    if child.is_alive():
        child.kill()
        child.join()
    return child.exitcode == 0


def tolerance(case, name, weights, limit):
    """Return the loosest tolerance that reaches the gap, and its gap; NaN where none does."""
    start = time.process_time()
    for tol in TOLERANCES:
        gap = case.gap(weights, getattr(case, name)(weights, tol))
        if gap <= GAP:
            return tol, gap
        if time.process_time() - start > limit:
            break
    return math.nan, gap


def compare(case, solvers, label, weights, rounds, limit):
    """Print the seconds of all solvers for some weights; return our ratios to peers."""
    chosen = {name: tolerance(case, name, weights, limit) for name in solvers}
    taken = {name: [] for name in solvers}
    for _ in range(rounds):
        for name, (tol, _) in chosen.items():
            if not math.isnan(tol):
                call = getattr(case, name)
                taken[name].append(seconds(lambda c=call, tol=tol: c(weights, tol)))
    least = {name: min(times, default=math.nan) for name, times in taken.items()}
    peers = [v for name, v in least.items() if name != "ours" and not math.isnan(v)]
    best, ours = min(peers, default=math.nan), least["ours"]
    row = "  ".join(
        f"{name} {least[name]:8.4f} ({chosen[name][0]:.0e}, {chosen[name][1]:.0e})"
        for name in solvers
    )
    of_sklearn = ours / least.get("sklearn", math.nan)
    print(f"{label:24s} {row}  ratio {ours / best:5.2f}  to sklearn {of_sklearn:5.2f}")
    return ours / best, of_sklearn


def main():
    """Read the arguments, run the sets, print the geometric means."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", nargs="*", choices=list(WEIGHTS))
    parser.add_argument("--peers", nargs="*", default=SOLVERS[1:], choices=SOLVERS[1:])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=60.0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    ratios: list[tuple[float, float]] = []
    for name in arguments.names or SETS:
        read, loss = SETS[name]
        case = Set(*read(arguments.data), loss)
        half = np.array([0.5 * case.top])
        asked = [s for s in SOLVERS if s == "ours" or s in arguments.peers]
        solvers = [s for s in asked if returns(case, s, half, arguments.limit)]
        first, again = (
            {
                s: seconds(functools.partial(getattr(case, s), half, 1e-4))
                for s in solvers
            }
            for _ in range(2)
        )
        extra = ", ".join(f"{s} {first[s] - again[s]:.1f}" for s in solvers)
        left_out = [s for s in asked if s not in solvers]
        print(f"{name} {case.X.shape} {loss}; the first call adds, in s: {extra}")
        if left_out:
            print("no return from the first call:", ", ".join(left_out))
        for row in arguments.rows or WEIGHTS:
            label, shares = WEIGHTS[row]
            weights, limits = case.top * shares, (arguments.rounds, arguments.limit)
            ratios.append(compare(case, solvers, label, weights, *limits))
    logs = np.log([r for r, _ in ratios if not math.isnan(r)])
    if not logs.shape[0]:
        print("no peer returned")
        return
    print(f"geometric mean of the ratios to the best peer: {np.exp(logs.mean()):.2f}")
    print(f"largest ratio to the best peer: {np.exp(logs.max()):.2f}")
    print(f"largest ratio to scikit-learn: {np.nanmax([r for _, r in ratios]):.2f}")


if __name__ == "__main__":
    main()
