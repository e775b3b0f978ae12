"""The Gram product v ↦ F'(d ∘ (F v)): SciPy, one pass, two passes, one thread and two.

    python benchmarks/gram_report.py [--data DIR] [--nonzeros 1e7]

Designs of the same number of nonzeros, whose product fits in a core's cache or does not;
and with DIR (X_raw.npz, y_raw.npy) thirty-two right-hand sides, in a block and one by one.
Medians and minima of interleaved runs in ms.  "parallel" is the time of one thread over
that of the slower of two, each thread's own CPU time, which says what two idle cores would
do; "wall" is what they did.  Set OPENBLAS_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import time

import numpy as np
from scipy import sparse

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm, gram

DESIGNS = {  # rows' length, columns, exponent of the columns' skewness
    "long rows, 50,000 columns, skewed": (100, 50_000, 3),
    "short rows, 50,000 columns, skewed": (10, 50_000, 3),
    "short rows, 200,000 columns": (20, 200_000, 1),
    "short rows, 2,000,000 columns": (20, 2_000_000, 1),
}


def design(nonzeros, row, columns, skew):
    """Return random rows in CSR; column densities follow u^skew."""
    rng = np.random.default_rng(0)
    rows = nonzeros // row
    indices = (columns * rng.random(rows * row) ** skew).astype(np.int32)
    pointers = np.arange(0, rows * row + 1, row, dtype=np.int32)
    values = rng.standard_normal(rows * row)
    return sparse.csr_array((values, indices, pointers), shape=(rows, columns))


def interleaved(cases, rounds):
    """Return {name: (median, minimum)} in ms; each case is run once before."""
    times = {name: [] for name in cases}
    for case in cases.values():
        case()
    for _ in range(rounds):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: (statistics.median(t), min(t)) for name, t in times.items()}


class Clocked(gram.OnePass):
    """The compiled product, with the CPU time of the slowest chunk of rows, each time."""

    def __init__(self, design, threads):
        super().__init__(design, threads)
        self.slowest = []

    def _by_chunks(self, add, out, scratch):
        spent = []

        def clocked(first, last, target):
            start = time.thread_time()
            square = add(first, last, target)
            spent.append(time.thread_time() - start)
            return square

        square = super()._by_chunks(clocked, out, scratch)
        self.slowest.append(max(spent))
        return square


def hessian(features, threads, passes):
    """Return the Hessian at zero of a squared loss, and its Gram with a clock."""
    labels = np.ones(features.shape[0])
    glm = Glm(features, labels, loss="squared", intercept=False, kernels="reference")
    glm._gram = Clocked(glm._data.design, threads)
    glm._gram.cache = 0 if passes == 2 else 2**60
    return glm.hess(np.zeros(glm.m), np.zeros(glm.n)), glm._gram


def products(name, features, rounds):
    """Print one row of the table of products."""
    v = np.random.default_rng(1).standard_normal(features.shape[1])
    out, d, F, Ft = np.empty_like(v), np.ones(features.shape[0]), features, features.T
    cases, grams = {"SciPy": lambda: Ft @ (d * (F @ v)) + v}, {}
    for passes in (1, 2):
        for threads in (1, 2):
            hess, grams[passes, threads] = hessian(features, threads, passes)
            cases[f"{passes} pass x{threads}"] = lambda H=hess: H.apply(v, out)
    found = interleaved(cases, rounds)
    print(
        name,
        *(f"{case} {a:.1f} ({b:.1f})" for case, (a, b) in found.items()),
        sep="\n  ",
    )
    for passes in (1, 2):
        wall = [
            found[f"{passes} pass x1"][k] / found[f"{passes} pass x2"][k]
            for k in (0, 1)
        ]
        one, two = (statistics.median(grams[passes, t].slowest) for t in (1, 2))
        print(
            f"  two threads, {passes} pass: wall {wall[0]:.2f} ({wall[1]:.2f}), "
            f"parallel {one / two:.2f}",
            flush=True,
        )


def block(data, rounds):
    """Print 32 right-hand sides: products, and solves to 1e-2."""
    features = sparse.csr_array(sparse.load_npz(data / "X_raw.npz"))
    glm = Glm(features, np.load(data / "y_raw.npy"), kernels="compiled")
    H = glm.hess(np.full(glm.m, np.log(1e-4)), np.zeros(glm.n))
    rng = np.random.default_rng(0)
    V = np.asfortranarray(rng.standard_normal((glm.n, 32)))
    out = np.empty(glm.n)

    def singles():
        for j in range(32):
            H.apply(V[:, j], out)

    def solves():
        for j in range(32):
            sad.cg(H, V[:, j], rtol=1e-1)

    F, Ft = features, features.T
    cases = {
        "32 products, one by one": singles,
        "32 products, a block": lambda: H @ V,
        "SciPy, a block": lambda: Ft @ (F @ np.ascontiguousarray(V[:-1])),
        "32 solves to 1e-1, one by one": solves,
        "32 solves to 1e-1, a block": lambda: sad.cg(H, V, rtol=1e-1),
    }
    print(f"text_farm_ads {features.shape}")
    for name, (middle, least) in interleaved(cases, rounds).items():
        print(f"  {name} {middle:.1f} ({least:.1f})", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--nonzeros", type=float, default=1e7)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--design", choices=range(len(DESIGNS)), type=int)
    args = parser.parse_args()
    for number, (name, shape) in enumerate(DESIGNS.items()):
        if args.design in {None, number}:
            products(name, design(int(args.nonzeros), *shape), args.rounds)
    if args.data is not None:
        block(args.data, args.rounds)


if __name__ == "__main__":
    main()
