"""``M="auto"`` against no preconditioner and the diagonal, on designs drawn at random.

    python benchmarks/auto_report.py --seed 1 --designs 200 [--seconds]
    python benchmarks/auto_report.py --prices

Each design is one solve with the Hessian of a linear model: text-like, sparse, one-hot
groups, dense and correlated, uncentred, features of different units; a third tall, a
third square, a third with n > 5 N, where most are text-like or sparse; squared and
logistic loss; a ridge for each feature of 1e-6 to 1, 3 % of them constant; rtol of 1e-2 to
1e-8.  Reported is the ratio to the better of M=None and M=Jacobi, in products (what
``vjp`` counts, the setup included) and in seconds (``--seconds``: medians of nine
interleaved runs, processor time): share within 1.1, largest, geometric mean.  Designs
that neither of the two solves in 3,000 iterations are left out.  ``--prices`` measures
what ``preconditioners/auto.py`` states.
"""

from __future__ import annotations

import argparse
import collections
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from scipy import sparse

import sparse_argdiff as sad
from sparse_argdiff import preconditioners as pc
from sparse_argdiff.linear_model import Glm
from sparse_argdiff.preconditioners.amg.price import (
    AMG,
    AMG_A_DIGIT,
    laplacian_iterations,
)
from sparse_argdiff.preconditioners.auto import factor_price

sys.path.insert(0, str(Path(__file__).parent))
from benchmarks.designs import laplacian

KINDS = ("text", "sparse", "one-hot", "units", "uncentred", "correlated")
SHARES = {
    "wide": (0.5, 0.2, 0.1, 0.1, 0.05, 0.05),
    "": (0.2, 0.2, 0.2, 0.25, 0.1, 0.05),
}
FACTORS = {"tall": (2, 20), "square": (0.5, 2), "wide": (5, 30)}
MAXITER = 3000


def features(kind, N, n, rng):
    """Return N rows of n features, dense or CSR."""
    if kind == "text":  # word frequencies by Zipf's law
        frequency = rng.uniform(0.2, 0.8) / np.arange(1, n + 1.0) ** rng.uniform(
            0.6, 1.2
        )
        frequency *= min(1.0, 60.0 / frequency.sum())
        counts = rng.poisson(N * frequency)
        columns = np.repeat(np.arange(n), counts)
        rows = rng.integers(N, size=columns.size)
        F = sparse.csr_array((np.ones(rows.size), (rows, columns)), shape=(N, n))
        F.data[:] = 1.0 if rng.random() < 0.5 else rng.exponential(size=F.nnz) + 0.1
        return F
    if kind == "sparse":
        density = min(1.0, rng.uniform(3.0, 30.0) / n)
        return sparse.random_array((N, n), density=density, rng=rng).tocsr()
    if kind == "one-hot":
        count = max(2, n // int(rng.integers(3, 30)))
        labels = np.sort(rng.integers(count, size=n))
        labels = np.unique(labels, return_inverse=True)[1]
        blocks = []
        for g in range(labels.max() + 1):
            size = int(np.sum(labels == g))
            share = rng.dirichlet(np.full(size, rng.uniform(0.3, 2.0)))
            picked = rng.choice(size, size=N, p=share)
            blocks.append(
                sparse.csr_array((np.ones(N), (np.arange(N), picked)), (N, size))
            )
        return sparse.csr_array(sparse.hstack(blocks))
    F = rng.standard_normal((N, n))
    if kind == "correlated":
        k = min(N, n)
        turn = np.linalg.qr(rng.standard_normal((n, k)))[0]
        fall = np.arange(1, k + 1.0) ** -rng.uniform(0.3, 1.5)
        F = (rng.standard_normal((N, k)) * fall * n**0.5) @ turn.T
        F += rng.choice([0.0, 0.1, 1.0]) * rng.standard_normal((N, n))
    if kind == "uncentred":
        F += rng.uniform(0.3, 5.0) * (
            rng.choice([0.0, 1.0]) * rng.standard_normal(n) + 1.0
        )
    return F * np.exp(rng.uniform(0.3, 1.5) * rng.standard_normal(n))


def design(rng):
    """Return a name, the problem, a point that stands for its solution, v and rtol."""
    shape = str(rng.choice(tuple(FACTORS)))
    kind = str(rng.choice(KINDS, p=SHARES.get(shape, SHARES[""])))
    size = np.exp(rng.uniform(np.log(60), np.log(250)))
    factor = np.exp(rng.uniform(*np.log(FACTORS[shape])))
    n = int(size * factor if shape == "wide" else size)
    N = int(size if shape == "wide" else size * factor)
    F = features(kind, N, n, rng)
    loss = str(rng.choice(("squared", "logistic")))
    t = (
        rng.standard_normal(N)
        if loss == "squared"
        else (rng.random(N) < 0.4).astype(float)
    )
    if loss == "logistic":
        t[:2] = 0.0, 1.0
    glm = Glm(F, t, loss=loss, intercept=bool(rng.random() < 0.7))
    ridge = rng.uniform(np.log(1e-6), 0.0)
    uneven = 0.0 if rng.random() < 0.03 else rng.uniform(1.0, 3.0)
    x = ridge + uneven * rng.standard_normal(glm.m)
    y = rng.uniform(0.0, 1.0) * rng.standard_normal(glm.n)
    z = np.std(F @ y[: F.shape[1]])
    y *= rng.uniform(0.1, 2.0) / (z or 1.0)
    v = rng.standard_normal(glm.n)
    if rng.random() < 0.3:  # a gradient on other data, as in a hypergradient
        v = glm.hess(x - 100.0, y) @ v + 1e-8 * v
    rtol = 10.0 ** -rng.uniform(2.0, 8.0)
    evenness = "uneven" if uneven else "even"
    name = f"{kind}, {shape}, {loss}, {evenness}, {N} x {glm.n}"
    solution = sad.Solution(y=y, x=x, status=sad.Status.CONVERGED)
    return name, sad.Problem(glm), solution, v, rtol


def solves(problem, solution, v, rtol, repeats):
    """Return the products of each choice, and the median seconds of interleaved runs."""
    choices = {"none": None, "jacobi": pc.jacobi_of, "auto": "auto"}
    products, seconds = {}, collections.defaultdict(list)
    for _ in range(max(repeats, 1)):
        for name, M in choices.items():
            start = time.process_time()
            found = sad.vjp(
                problem,
                solution,
                v,
                rtol=rtol,
                M=M,
                maxiter=MAXITER,
                on_failure="ignore",
            )
            seconds[name].append(time.process_time() - start)
            products[name] = found.n_hvp if found.krylov.status.acceptable else 10**6
    return products, {name: statistics.median(t) for name, t in seconds.items()}


def report(label, ratios):
    """Print the three figures of the acceptance."""
    ratios = np.array(ratios)
    print(
        f"{label:10s} within 1.1: {np.mean(ratios <= 1.1):6.1%}   largest {ratios.max():5.2f}"
        f"   geometric mean {np.exp(np.mean(np.log(ratios))):.3f}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--designs", type=int, default=200)
    parser.add_argument("--seconds", action="store_true")
    parser.add_argument("--worst", type=int, default=8, help="designs to be listed")
    parser.add_argument("--prices", action="store_true")
    given = parser.parse_args()
    if given.prices:
        prices()
        return
    rows = []
    for k in range(given.designs):
        name, *case = design(np.random.default_rng((given.seed, k)))
        products, seconds = solves(*case, 9 if given.seconds else 0)
        if min(products["none"], products["jacobi"]) > MAXITER + 100:
            continue
        rows.append((f"{k:3d} {name}, rtol {case[3]:.0e}", products, seconds))
    for label, which in (("products", 1), ("seconds", 2))[: 1 + given.seconds]:
        print(f"{len(rows)} designs")
        for name in ("none", "jacobi", "auto"):
            report(f"{label} {name}", [ratio(row[which], name) for row in rows])
        rows.sort(key=lambda row, which=which: ratio(row[which], "auto"))
        for row in rows[-given.worst :]:
            print(f"  {ratio(row[which], 'auto'):.2f}  {row[0]}: {row[which]}")


def prices():
    """Print setups in iterations of CG, measured and by the cost model."""
    for n in (100, 200, 500, 1000, 2000):
        A = np.diag(np.geomspace(1.0, 1e9, n)) + 1.0
        setup = clock(lambda A=A: pc.cholesky(A)) / iteration(A)
        print(
            f"factor, dense, n = {n}: {setup:.0f} iterations, "
            f"model {factor_price(n, n * n):.0f}"
        )
    for side in (60, 100, 200, 400):
        A, b = laplacian(side), np.random.default_rng(0).standard_normal(side**2)
        M, step = pc.amg(A), iteration(A)
        setup = clock(lambda A=A: pc.amg(A)) / step
        solve = clock(lambda A=A, b=b, M=M: sad.cg(A, b, M=M, rtol=1e-8)) / step
        print(
            f"hierarchy, grid {side}²: {setup:.0f} iterations, model {AMG:.0f}; a digit "
            f"{solve / 8:.1f}, model {AMG_A_DIGIT:.0f}; a digit without "
            f"{sad.cg(A, b, rtol=1e-8).niter / 8:.0f}, model {laplacian_iterations(A) or 0:.0f}"
        )


def iteration(A):
    """Return the seconds of an iteration of CG."""
    b = np.random.default_rng(0).standard_normal(A.shape[0])
    niter = sad.cg(A, b, rtol=0.0, maxiter=50).niter
    return clock(lambda: sad.cg(A, b, rtol=0.0, maxiter=50)) / niter


def clock(function):
    """Return the median processor seconds of eleven calls."""
    spent = []
    for _ in range(11):
        start = time.process_time()
        function()
        spent.append(time.process_time() - start)
    return statistics.median(spent)


def ratio(spent, name):
    """Return what a choice spent relative to the better of the two fixed ones."""
    return spent[name] / min(spent["none"], spent["jacobi"])


if __name__ == "__main__":
    main()
