"""Derivatives under many linear constraints, beside a direct solve of the KKT matrix.

    python benchmarks/constraint_report.py [--n 1000000] [--p 10000] [--limit 170]

H is tridiagonal or the 5-point Laplacian on a square grid, plus a diagonal of four
decades; p rows are disjoint or banded (each meets its neighbours).  One forward and one
adjoint product, at rtol 1e-8, against ``scipy.sparse.linalg.splu`` of the same matrix.
Each line is a process of its own: "peak" is that process's largest resident size, of
which "inputs" was there before the first product.  Set OPENBLAS_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time

import numpy as np
from scipy import sparse
from scipy.sparse import linalg

import sparse_argdiff as sad


def hessian(kind: str, n: int):
    """Return the sparse SPD H."""
    rng = np.random.default_rng(0)
    diag = 10.0 ** rng.uniform(-2.0, 2.0, n)
    if kind == "tridiagonal":
        off = np.full(n - 1, -1.0)
        return sparse.diags_array([off, 2.0 + diag, off], offsets=[-1, 0, 1]).tocsr()
    side = math.isqrt(n)
    one = sparse.diags_array(
        [np.full(side - 1, -1.0), np.full(side, 2.0), np.full(side - 1, -1.0)],
        offsets=[-1, 0, 1],
    )
    eye = sparse.eye_array(side)
    grid = sparse.kron(one, eye) + sparse.kron(eye, one)
    return sparse.csr_array(grid + sparse.diags_array(diag))


def constraints(kind: str, p: int, n: int):
    """Return p rows of n // p entries, disjoint or half as long again."""
    width = n // p
    reach = width if kind == "disjoint" else width + width // 2
    rows = np.repeat(np.arange(p), reach)
    columns = rows * width + np.tile(np.arange(reach), p)
    values = np.random.default_rng(1).uniform(0.5, 1.5, rows.size)
    inside = columns < n
    return sparse.csr_array((values[inside], (rows[inside], columns[inside])), (p, n))


class Quadratic:
    """f = ½ y'Hy − (S x)'y, with m = 3 parameters."""

    def __init__(self, H, S):
        self.H, self.S, self.n = H, S, H.shape[0]

    def value(self, x, y):
        return float(0.5 * y @ (self.H @ y) - y @ (self.S @ x))

    def grad(self, x, y):
        return self.H @ y - self.S @ x

    def hess(self, x, y):
        return self.H

    def cross(self, x, y):
        return -self.S


def child(who: str, H_kind: str, C_kind: str, n: int, p: int) -> dict:
    """Run one solver in this process and return its figures."""
    H, C = hessian(H_kind, n), constraints(C_kind, p, n)
    n = H.shape[0]
    rng = np.random.default_rng(2)
    S, D = rng.standard_normal((n, 3)), rng.standard_normal((p, 3))
    u, v = rng.standard_normal(3), rng.standard_normal(n)
    inputs = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    if who == "sparse_argdiff":
        rows = sad.LinearEquality(
            C,
            lambda x: D @ x,
            b_jvp=lambda x, u: D @ u,
            b_vjp=lambda x, w: D.T @ w,
        )
        problem = sad.Problem(Quadratic(H, S), equality=rows)
        # At x = 0 the solution is y = 0, without multipliers: nothing is given away.
        solution = sad.Solution(y=np.zeros(n), x=np.zeros(3), multipliers=np.zeros(p))
        forward = sad.jvp(problem, solution, u)
        middle = time.perf_counter()
        adjoint = sad.vjp(problem, solution, v)
        end = time.perf_counter()
        tangent, pulled = forward.y, adjoint.x
        counts = [int(forward.krylov.niter), int(adjoint.krylov.niter)]
    else:
        K = sparse.block_array([[H, C.T], [C, None]], format="csc")
        factors = linalg.splu(K)
        z = -factors.solve(np.r_[-(S @ u), -(D @ u)])
        tangent = z[:n]
        middle = time.perf_counter()
        z = factors.solve(np.r_[v, np.zeros(p)], trans="T")
        pulled = S.T @ z[:n] + D.T @ z[n:]
        end = time.perf_counter()
        counts = [1, 1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": [middle - start, end - middle],
        "iterations": counts,
        "peak": peak / 2**20,
        "inputs": inputs / 2**20,
        "tangent": float(np.linalg.norm(tangent)),
        "probe": float(tangent @ v),
        "pulled": float(pulled @ u),
        "infeasible": float(np.abs(C @ tangent - D @ u).max() / np.abs(D @ u).max()),
    }


def main() -> None:
    """Run every line in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--p", type=int, default=10_000)
    parser.add_argument("--limit", type=float, default=170.0, help="seconds per line")
    parser.add_argument("--only", nargs="*", default=["tridiagonal", "grid"])
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(child(*args.child, args.n, args.p)))
        return
    print(f"n = {args.n}, p = {args.p}")
    print(
        f"{'H':>12} {'C':>9} {'solver':>15} {'its':>9} {'forward s':>10} "
        f"{'adjoint s':>10} {'peak GB':>8} {'inputs':>7} {'C g-b':>8}  g'(x)u·v"
    )
    for H_kind in args.only:
        for C_kind in ("disjoint", "banded"):
            for who in ("sparse_argdiff", "splu"):
                command = [sys.executable, __file__, "--child", who, H_kind, C_kind]
                command += ["--n", str(args.n), "--p", str(args.p)]
                head = f"{H_kind:>12} {C_kind:>9} {who:>15}"
                try:
                    done = subprocess.run(
                        command,
                        capture_output=True,
                        text=True,
                        check=True,
                        timeout=args.limit,
                    )
                except subprocess.TimeoutExpired:
                    print(f"{head}  not done after {args.limit:.0f} s")
                    continue
                except subprocess.CalledProcessError as error:
                    last = (error.stderr.strip().splitlines() or ["killed"])[-1]
                    print(f"{head}  failed ({error.returncode}): {last}")
                    continue
                row = json.loads(done.stdout)
                its = "/".join(str(count) for count in row["iterations"])
                forward, adjoint = row["seconds"]
                print(
                    f"{head} {its:>9} {forward:10.2f} {adjoint:10.2f} "
                    f"{row['peak']:8.2f} {row['inputs']:7.2f} "
                    f"{row['infeasible']:8.1e}  {row['probe']:.9e} {row['pulled']:.9e}"
                )


if __name__ == "__main__":
    main()
