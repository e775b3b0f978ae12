"""The Hessian product v ↦ F'(d ∘ (F v)): SciPy, one pass, two passes, one thread and two.

    python benchmarks/gram_report.py [--data DIR] [--nonzeros 1e7]

Designs of the same number of nonzeros, whose product fits in a core's cache or does not;
and with DIR (X_raw.npz, y_raw.npy) thirty-two right-hand sides, in a block and one by one.
Beside them, what two threads of the machine are worth to loops that share nothing: in
registers, gathering from a core's caches, copying in memory.  No product gains more.

Medians and minima of interleaved runs in ms.  "parallel" is the time of one thread over
that of the slower of two, each thread's own CPU time, which says what two idle cores would
do; "wall" is what they did: compare it with what the loops did in the same minutes.
Set OPENBLAS_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import statistics
import threading
import time

import numba
import numpy as np
from scipy import sparse

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm
from sparse_argdiff.linear_model.hessian_product import one_pass

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


@numba.njit(nogil=True, fastmath=True)
def registers(count, data, out):
    """Multiply and add in registers."""
    a, b, c, d = 1.0, 2.0, 3.0, 4.0
    for _ in range(count):
        a, b = a * 0.999999 + 1.0, b * 0.999999 + 1.0
        c, d = c * 0.999999 + 1.0, d * 0.999999 + 1.0
    out[0] = a + b + c + d


@numba.njit(nogil=True)
def gather(count, data, out):
    """Add entries 32 kB apart or less, of an array that fits in a core's caches."""
    total, mask, j = 0.0, np.uint64(data.size - 1), np.uint64(1)
    for _ in range(count):
        j = (j * np.uint64(5) + np.uint64(1)) & mask
        total += data[j]
    out[0] = total


@numba.njit(nogil=True)
def stream(count, data, out):
    """Copy ``count`` entries."""
    for i in range(count):
        out[i] = data[i]


def ceiling():
    """Return, by name, loops for one thread and for two that do half of the work each."""
    large = np.ones(2 * 10**7)
    kinds = {  # loop, its count, entries that each thread reads, and writes
        "in registers": (registers, 2 * 10**7, np.ones(1), np.empty(16)),
        "gathers in 256 kB": (gather, 2 * 10**7, np.ones(2**15), np.empty(16)),
        "copies in memory": (stream, 2 * 10**7, large, np.empty_like(large)),
    }
    cases = {}
    for name, (loop, count, data, out) in kinds.items():
        halves = [(data[: data.size // 2], out[: out.size // 2])]
        halves.append((data[data.size // 2 :], out[out.size // 2 :]))
        if loop is not stream:
            halves = [(data.copy(), out.copy()) for _ in range(2)]

        def two(loop=loop, count=count, halves=halves):
            worker = threading.Thread(target=loop, args=(count // 2, *halves[1]))
            worker.start()
            loop(count // 2, *halves[0])
            worker.join()

        one = functools.partial(loop, count, data, out)
        cases[name] = {f"{name} x1": one, f"{name} x2": two}
    return cases


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


class Clocked(one_pass.OnePass):
    """The compiled product, with the CPU time of the slowest chunk of rows, each time."""

    def __init__(self, design, threads):
        super().__init__(design, threads)
        self.slowest = []

    def by_chunks(self, add, out, pool):
        spent = []

        def clocked(first, last, target):
            start = time.thread_time()
            square = add(first, last, target)
            spent.append(time.thread_time() - start)
            return square

        square = super().by_chunks(clocked, out, pool)
        self.slowest.append(max(spent))
        return square


def hessian(features, threads, passes):
    """Return the Hessian at zero of a squared loss, and its Gram with a clock."""
    labels = np.ones(features.shape[0])
    glm = Glm(features, labels, loss="squared", intercept=False, kernels="reference")
    glm._model.products = Clocked(glm._data.design, threads)
    glm._model.products.cache = 0 if passes == 2 else 2**60
    return glm.hess(np.zeros(glm.m), np.zeros(glm.n)), glm._model.products


def products(name, features, rounds):
    """Print one row of the table of products."""
    v = np.random.default_rng(1).standard_normal(features.shape[1])
    out, d, F, Ft = np.empty_like(v), np.ones(features.shape[0]), features, features.T
    cases, grams = {"SciPy": lambda: Ft @ (d * (F @ v)) + v}, {}
    for passes in (1, 2):
        for threads in (1, 2):
            hess, grams[passes, threads] = hessian(features, threads, passes)
            cases[f"{passes} pass x{threads}"] = lambda H=hess: H.apply(v, out)
    limits = ceiling()
    found = interleaved(
        cases | {k: v for pair in limits.values() for k, v in pair.items()}, rounds
    )
    print(
        name,
        *("{} {:.1f} ({:.1f})".format(case, *found[case]) for case in cases),
        sep="\n  ",
    )

    def gain(case):
        one, two = found[f"{case} x1"], found[f"{case} x2"]
        return f"wall {one[0] / two[0]:.2f} ({one[1] / two[1]:.2f})"

    for passes in (1, 2):
        one, two = (statistics.median(grams[passes, t].slowest) for t in (1, 2))
        case = f"{passes} pass"
        print(f"  two threads, {case}: {gain(case)}, parallel {one / two:.2f}")
    print("  loops that share nothing:")
    for case in limits:
        print(f"    {case}: {gain(case)}", flush=True)


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
