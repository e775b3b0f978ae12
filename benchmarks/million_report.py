"""One run with a million unknowns: minimum, adjoint and ten upper-level steps.

    python benchmarks/million_report.py [--n 1000000] [--seed S] [--loss logistic|squared]

The lower level is a generalised linear model with a penalty for each of n features, on
3 n nonzeros (less some that fall together) of generated text; the upper level is the loss of
a quarter as many held-out rows.  The log-penalties stay within 5 of their start: without
bounds so many of them learn the held-out rows by heart.

For each phase: CPU seconds of this process, products, and the peak of its memory so far, in
megabytes and, from just before the data are made, as the bytes of the data and so many
vectors of n doubles.  A rehearsal with n / 20 has by then loaded the compiled code; for n
below 10⁶ it may be too small to use any, and the vectors then include that.  Set
OPENBLAS_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import pathlib
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

sys.path.append(str(pathlib.Path(__file__).resolve().parent))
from benchmarks.designs import text_like

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm

ROW = 50  # nonzeros of a row


def peak_bytes() -> int:
    """Return the largest resident memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Report:
    """Prints a row for each phase: seconds, products and peak memory.

    Parameters
    ----------
    n : int
        Size of the vectors in which memory is given.
    silent : bool
        Whether nothing is printed.

    Attributes
    ----------
    data : int
        Bytes of the data, which are not counted as vectors.
    """

    def __init__(self, n: int, silent: bool = False) -> None:
        self.n, self.silent, self.data = n, silent, 0
        self.start = peak_bytes()
        self.say(
            f"{'':18s}{'seconds':>9s}{'peak before':>20s}{'peak after':>20s}{'MB':>7s}"
        )

    def say(self, text: str) -> None:
        """Print a line now."""
        if not self.silent:
            print(text, flush=True)

    def vectors(self) -> str:
        """Return the peak beyond the start as data and vectors of n doubles."""
        beyond = peak_bytes() - self.start - self.data
        return f"data + {beyond / (8 * self.n):.1f} n"

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[dict[str, Any]]:
        """Measure what is done inside; what is entered in the record is printed, too."""
        facts: dict[str, Any] = {}
        before, start = self.vectors(), time.process_time()
        yield facts
        seconds = time.process_time() - start
        known = "  ".join(f"{key} {value}" for key, value in facts.items())
        after = self.vectors()
        megabytes = round(peak_bytes() / 1e6)
        self.say(
            f"{name:18s}{seconds:9.2f}{before:>20s}{after:>20s}{megabytes:7d}  {known}"
        )


def designs(n: int, seed: int, loss: str):
    """Return training and held-out features and targets, 3 n and ¾ n nonzeros."""
    train = 3 * n // ROW
    features, targets = text_like(train + train // 4, n, ROW, seed)
    if loss == "squared":
        noise = np.random.default_rng(seed + 1).standard_normal(len(targets))
        targets = 2.0 * targets - 1.0 + 0.1 * noise
    return (features[:train], targets[:train]), (features[train:], targets[train:])


def bytes_of(*matrices) -> int:
    """Return the bytes of sparse matrices."""
    arrays = [(A.data, A.indices, A.indptr) for A in matrices]
    return sum(array.nbytes for three in arrays for array in three)


def run(n: int, seed: int, loss: str, steps: int, silent: bool = False) -> None:
    """Build the problem, and solve, differentiate and tune it."""
    report = Report(n, silent)
    with report.phase("data") as facts:
        (features, targets), held = designs(n, seed, loss)
        report.data = bytes_of(features, held[0])
        glm = Glm(features, targets, loss=loss)
        upper = glm.held_out(*held)
        problem = sad.Problem(glm)
        rows = features.shape[0]
        x = np.full(glm.m, math.log(10.0 / rows))
        facts["nonzeros"] = f"{features.nnz} + {held[0].nnz}"
        facts["bytes"] = report.data
    with report.phase("solve") as facts:
        solution = sad.solve(problem, x)
        facts |= {"n_hvp": solution.n_hvp, "n_grad": solution.n_grad}
        facts |= {"niter": solution.niter, "status": solution.status.name}
        facts["loss"] = f"{upper.value(x, solution.y):.6f}"
    with report.phase("vjp") as facts:
        adjoint = sad.vjp(problem, solution, upper.grad_y(x, solution.y))
        facts |= {"n_hvp": adjoint.n_hvp, "niter": adjoint.krylov.niter}
        size = float(np.linalg.norm(adjoint.x))
        facts |= {"status": adjoint.krylov.status.name, "norm": f"{size:.6e}"}
    with report.phase(f"minimize, {steps} steps") as facts:
        found = sad.minimize(
            problem, upper, x, bounds=(x[0] - 5.0, x[0] + 5.0), maxiter=steps
        )
        facts |= {"n_hvp": found.n_hvp, "n_grad": found.n_grad, "nit": found.nit}
        facts |= {"status": found.status.name, "loss": f"{found.fun:.6f}"}
    report.say(f"\n{glm}, 8 n = {8 * n} bytes")


def main() -> None:
    """Rehearse, then print the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--n", type=int, default=1_000_000, help="features")
    add("--seed", type=int, default=0)
    add("--loss", choices=["logistic", "squared"], default="logistic")
    add("--steps", type=int, default=10, help="upper-level steps")
    args = parser.parse_args()
    if args.n < 20_000:
        parser.error("--n must be at least 20000")
    run(args.n // 20, args.seed, args.loss, steps=1, silent=True)
    run(args.n, args.seed, args.loss, args.steps)


if __name__ == "__main__":
    main()
