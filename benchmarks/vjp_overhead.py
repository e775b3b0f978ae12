"""What an adjoint costs beyond its Hessian products, beside SciPy's CG.

    python benchmarks/vjp_overhead.py [--data DIR]      (DIR with X_raw.npz, y_raw.npy)

Prints time ÷ (products × time of one product) for ``vjp`` and for
``scipy.sparse.linalg.cg`` with the same operator, preconditioner and tolerance: medians
of interleaved runs.  Set OPENBLAS_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import sys
import time

import numpy as np
from scipy import sparse
from scipy.sparse import linalg

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from benchmarks.designs import text_like


def seconds(function) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    if args.data is None:
        features, labels = text_like(4000, 55_000, 200)
    else:
        features = sparse.load_npz(args.data / "X_raw.npz").tocsr()
        labels = np.load(args.data / "y_raw.npy")
    half = features.shape[0] // 2
    glm = Glm(features[:half], labels[:half])
    upper = glm.held_out(features[half:], labels[half:])
    problem = sad.Problem(glm)
    print(f"{glm}")
    print(
        f"{'x':>6} {'rtol':>6} {'package':>15} {'products':>9} {'ms':>8} {'ratio':>6}"
    )
    for log_penalty, rtol in ((-4.0, 1e-2), (-4.0, 1e-6), (-9.2, 1e-2), (-9.2, 1e-6)):
        x = np.full(glm.m, log_penalty)
        solution = sad.solve(problem, x)
        v = upper.grad_y(x, solution.y)
        hess = problem.hess(x, solution.y)
        M = sad.preconditioners.jacobi(hess.diagonal())
        count = [0]

        def counted(u, count=count, hess=hess):
            count[0] += 1
            return hess.matvec(u)

        theirs = linalg.LinearOperator(hess.shape, matvec=counted, dtype=hess.dtype)
        theirs_M = linalg.LinearOperator(M.shape, matvec=M.matvec, dtype=hess.dtype)
        ours = sad.vjp(problem, solution, v, rtol=rtol)
        linalg.cg(theirs, v, rtol=rtol, M=theirs_M)
        products = {"sparse_argdiff": ours.n_hvp, "scipy": count[0]}
        times = {"product": [], "sparse_argdiff": [], "scipy": []}
        for _ in range(args.rounds):
            times["product"] += [seconds(lambda h=hess, u=v: h @ u) for _ in range(5)]
            times["sparse_argdiff"].append(
                seconds(lambda s=solution, u=v, t=rtol: sad.vjp(problem, s, u, rtol=t))
            )
            times["scipy"].append(
                seconds(
                    lambda A=theirs, u=v, t=rtol, P=theirs_M: linalg.cg(
                        A, u, rtol=t, M=P
                    )
                )
            )
        one = statistics.median(times["product"])
        for name in ("sparse_argdiff", "scipy"):
            middle = statistics.median(times[name])
            print(
                f"{log_penalty:6.1f} {rtol:6.0e} {name:>15} {products[name]:9d} "
                f"{1e3 * middle:8.2f} {middle / (products[name] * one):6.2f}"
            )


if __name__ == "__main__":
    main()
