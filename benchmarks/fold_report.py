"""What K folds cost beside one: time, products and memory of a hypergradient.

    OPENBLAS_NUM_THREADS=1 python benchmarks/fold_report.py --data DIR [--rounds 9]

    F(x) = mean held-out loss of the K models with one penalty e^x,   K = 5

on text_farm_ads and libsvm_a9a (folders of DIR): F and its gradient from a cold start, of
all folds by ``Glm.cross_validation`` and of each fold as a model of its own.  Processor
time, interleaved; the ratio is all folds over the mean of the folds alone, the median of
the rounds.  Products: Hessian products of a fold.  Memory: the
peak above the data (``tracemalloc``), in K vectors of y, of the solve with its adjoint and
with the certificate.
"""

from __future__ import annotations

import argparse
import gc
import math
import statistics
import time
import tracemalloc
from pathlib import Path

import numpy as np
from solve_report import read

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm

DATA = ("text_farm_ads", "libsvm_a9a")


class Folds:
    """One data set, its folds stacked and each alone."""

    def __init__(self, features, targets, penalty, count, kernels, seed):
        self.x, self.kernels, self.count = np.array([math.log(penalty)]), kernels, count
        held = np.random.default_rng(seed).permutation(targets.size) % count
        pairs = [
            (np.flatnonzero(held != k), np.flatnonzero(held == k)) for k in range(count)
        ]
        self.data, self.pairs = (features, targets), pairs
        self.parts = [
            ((features[train], targets[train]), (features[test], targets[test]))
            for train, test in pairs
        ]

    def model(self, features, targets):
        return Glm(features, targets, penalty="scalar", kernels=self.kernels)

    def stacked(self):
        """Return problem and upper objective of all folds, nothing computed yet."""
        return self.model(*self.data).cross_validation(self.pairs)

    def alone(self, k):
        """Return those of one fold."""
        train, test = self.parts[k]
        glm = self.model(*train)
        return sad.Problem(glm), glm.held_out(*test)

    def seconds(self, made):
        """Return the processor time of F and its gradient, and the result."""
        start = time.process_time()
        found = sad.Hypergradient(*made).evaluate(self.x, certify=False)
        return time.process_time() - start, found

    def memory(self, call):
        """Return the peak of a call above what is there before, in K vectors."""
        problem, upper = self.stacked()
        unit = problem.objective.n * np.dtype(float).itemsize
        gc.collect()
        tracemalloc.start(1)
        try:
            call(problem, upper)
            return tracemalloc.get_traced_memory()[1] / unit
        finally:
            tracemalloc.stop()

    def derivative(self, problem, upper):
        """Solve, and multiply by the adjoint, without a certificate."""
        found = sad.solve(problem, self.x)
        sad.vjp(problem, found, upper.grad_y(self.x, found.y))

    def certified(self, problem, upper):
        """Evaluate F, its gradient and the certificate."""
        sad.Hypergradient(problem, upper).evaluate(self.x)


def report(name, folds, penalty, rounds):
    """Print one row."""
    ratios, times = [], []
    for r in range(rounds + 1):  # the first compiles
        every, found = folds.seconds(folds.stacked())
        each = [folds.seconds(folds.alone(k)) for k in range(folds.count)]
        mean = statistics.mean(spent for spent, _ in each)
        if r:
            ratios.append(every / mean)
            times.append((1e3 * every, 1e3 * mean))
    alone = statistics.mean(one.n_hvp for _, one in each)
    whole, one = (statistics.median(column) for column in zip(*times, strict=True))
    memory = [folds.memory(call) for call in (folds.derivative, folds.certified)]
    kernels = folds.kernels or "default"
    print(
        f"{name:14s} {penalty:.0e} {kernels:9s} {whole:9.1f} {one:8.1f} "
        f"{statistics.median(ratios):6.2f} {found.n_hvp / folds.count:7.1f} {alone:7.1f} "
        f"{memory[0]:7.1f} {memory[1]:7.1f}",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--penalty", type=float, default=1e-4)
    parser.add_argument("--only", choices=DATA)
    parser.add_argument("--kernels", choices=("reference", "compiled"))
    args = parser.parse_args()
    print(
        "data           p     kernels      all ms   one ms  ratio  products of a fold"
        "   vectors\n"
        "                                                           stacked   alone"
        "   plain  certified"
    )
    for name in DATA:
        if args.only in {None, name}:
            data = read(args.data, name)
            options = args.penalty, args.folds, args.kernels, args.seed
            report(name, Folds(*data, *options), args.penalty, args.rounds)


if __name__ == "__main__":
    main()
