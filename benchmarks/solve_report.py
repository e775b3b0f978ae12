"""Logistic regression with a ridge: ``solve`` beside the solvers of scikit-learn.

    OPENBLAS_NUM_THREADS=1 python benchmarks/solve_report.py --data DIR [--rounds 9]

    mean of log(1 + e^z) − t z  +  p/2 ‖c‖²,      z = F c + b,      C = 1 / (N p) there

on text_farm_ads, libsvm_a9a and libsvm_w8a (folders of DIR) at p = 1e-2, 1e-4, 1e-6.
Every solver of scikit-learn that solves this problem runs with tol=1e-8; the fastest is
the peer.  ``solve`` then takes the largest tol at which its error ‖y − y*‖_H is not above
the peer's (H is the Hessian at the minimiser y*; found beforehand, not timed).  Both are
timed from the features to the coefficients, ``Glm(...)`` and ``fit``'s checks included;
"alone" is ``solve`` of a model that is there.  Processor time, interleaved: the ratio is
the median of the ratios of the rounds.  liblinear penalises the intercept, so that it
joins with --no-intercept only; sag and saga join with --slow, where they converge in
300 epochs (here they do not).
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from scipy import sparse
from sklearn.datasets import load_svmlight_file
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm

PENALTIES = (1e-2, 1e-4, 1e-6)
SOLVERS = {  # and their largest numbers of iterations
    "lbfgs": 10_000,
    "newton-cg": 1_000,
    "newton-cholesky": 1_000,
    "liblinear": 10_000,
    "sag": 300,
    "saga": 300,
}
MOST_DENSE = 1_000  # unknowns of newton-cholesky


def read(data: Path, name: str):
    """Return features and labels 0/1 of a data set."""
    if name == "text_farm_ads":
        features = sparse.load_npz(data / name / "X_raw.npz")
        targets = np.load(data / name / "y_raw.npy")
    else:
        file = data / name / f"{name.removeprefix('libsvm_')}.gz"
        features, targets = load_svmlight_file(str(file))
    features = sparse.csr_array(features, dtype=np.float64)
    features.indices = features.indices.astype(
        np.int32
    )  # which scikit-learn insists on
    features.indptr = features.indptr.astype(np.int32)
    return features, (targets > 0).astype(float)


DATA = ("text_farm_ads", "libsvm_a9a", "libsvm_w8a")


class Case:
    """One data set at one penalty: the minimiser, and how far others are from it."""

    def __init__(self, features, targets, penalty, intercept, options):
        self.features, self.targets = features, targets
        self.intercept, self.options = intercept, options
        self.C = 1.0 / (features.shape[0] * penalty)
        self.x = np.array([math.log(penalty)])
        self.glm = self.model()
        best = sad.solve(
            sad.Problem(self.glm), self.x, tol=1e-14, on_failure="ignore", M=None
        )
        self.best, self.hess = best.y, self.glm.hess(self.x, best.y)

    def model(self):
        return Glm(
            self.features, self.targets, penalty="scalar", intercept=self.intercept
        )

    def error(self, y):
        """Return ‖y − y*‖_H."""
        return math.sqrt((y - self.best) @ (self.hess @ (y - self.best)))

    def fit(self, solver):
        """Return what scikit-learn finds as our y, and whether it says it converged."""
        model = LogisticRegression(
            C=self.C,
            solver=solver,
            tol=1e-8,
            max_iter=SOLVERS[solver],
            fit_intercept=self.intercept,
            random_state=0,
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            model.fit(self.features, self.targets)
        converged = not any(w.category is ConvergenceWarning for w in caught)
        y = model.coef_.reshape(-1)
        return np.append(y, model.intercept_) if self.intercept else y, converged

    def solve(self, tol, glm=None):
        problem = sad.Problem(self.model() if glm is None else glm)
        return sad.solve(problem, self.x, tol=tol, **self.options)

    def tolerance(self, error):
        """Return the largest tol of a grid of quarter decades that attains the error."""
        for k in range(2, 60):
            tol = 10.0 ** (-k / 4)
            if self.error(self.solve(tol, self.glm).y) <= error:
                return tol
        raise RuntimeError(f"no tol attains the error {error:.1e}")


def seconds(function, *arguments):
    """Return the processor time of a call, and its result."""
    start = time.process_time()
    found = function(*arguments)
    return time.process_time() - start, found


def peer(case, slow):
    """Return the fastest solver of scikit-learn that converges, and its error."""
    n = case.best.shape[0]
    found = {}
    for solver in SOLVERS:
        if solver == "liblinear" and case.intercept:
            continue
        if solver in {"sag", "saga"} and not slow:
            continue
        if solver == "newton-cholesky" and n > MOST_DENSE:
            continue
        spent, (y, converged) = seconds(case.fit, solver)
        if spent < 1.0:  # one that is not hopeless is timed again, warm
            spent, _ = seconds(case.fit, solver)
        error = case.error(y)
        print(
            f"    {solver:15s} {1e3 * spent:9.1f} ms  error {error:.1e}"
            + ("" if converged else "  (has not converged)"),
            file=sys.stderr,
        )
        if converged:
            found[solver] = spent, error
    return min(found, key=lambda name: found[name][0]), found


def report(name, penalty, case, rounds, slow):
    """Print one row; return the ratio."""
    solver, found = peer(case, slow)
    error = found[solver][1]
    tol = case.tolerance(error)
    solution = case.solve(tol)
    times = []
    for _ in range(rounds):
        theirs, _ = seconds(case.fit, solver)
        ours, _ = seconds(case.solve, tol)
        alone, _ = seconds(case.solve, tol, case.glm)
        times.append((theirs, ours, alone))
    ratio, alone = (statistics.median(t[0] / t[k] for t in times) for k in (1, 2))
    middle = [1e3 * statistics.median(column) for column in zip(*times, strict=True)]
    print(
        f"{name:14s} {penalty:.0e} {solver:15s} {error:.1e} {tol:7.1e} "
        f"{solution.niter:5d} {solution.n_grad:5d} {solution.n_hvp:5d} "
        f"{middle[0]:9.1f} {middle[1]:7.1f} {middle[2]:7.1f} {ratio:6.2f} {alone:6.2f}",
        flush=True,
    )
    return ratio, alone


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", choices=DATA)
    parser.add_argument("--no-intercept", action="store_true")
    parser.add_argument("--slow", action="store_true")
    parser.add_argument("--M", choices=("auto", "none", "jacobi"), default="auto")
    args = parser.parse_args()
    M = {"auto": "auto", "none": None, "jacobi": sad.preconditioners.jacobi_of}[args.M]
    print(
        "data           p     peer            error   tol     steps grads prods "
        " peer ms    ms   alone  ratio  alone"
    )
    ratios = []
    for name in DATA:
        if args.only in {None, name}:
            features, targets = read(args.data, name)
            for penalty in PENALTIES:
                case = Case(features, targets, penalty, not args.no_intercept, {"M": M})
                ratios.append(report(name, penalty, case, args.rounds, args.slow))
    whole, alone = zip(*ratios, strict=True)
    for what, column in (("", whole), (" (solve alone)", alone)):
        mean = statistics.geometric_mean(column)
        print(f"geometric mean{what} {mean:.2f}, least {min(column):.2f}")


if __name__ == "__main__":
    main()
