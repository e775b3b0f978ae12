"""Adjoint solves that end at descent: is it one, and what does it save?

    python benchmarks/descent_report.py cases [--seed S] [--cases N]
    python benchmarks/descent_report.py data  [--data DIR]

``cases``: random adjoint systems K λ = b with K = core + diag(d), drawn as the table says;
the truth is dense algebra.  "wrong" counts results that end at descent and have
z'∇F <= 0, "below η" those with z'∇F < ‖z‖² / 4, what is promised, and "far" those with
‖z − ∇F‖ > ‖z‖.  What is known of K: its ``split``, the same with an unpenalised
coordinate, ``constants``, or nothing.

``data``: products of adjoint solves along the path of a run on text_farm_ads, libsvm_a9a
and a correlated design, each from zero and from the adjoint before, to descent and to 1e-2,
1e-4 and 1e-8.
"""

from __future__ import annotations

import argparse
import collections
import math
import pathlib
import sys

import numpy as np

import sparse_argdiff as sad
from sparse_argdiff.preconditioners import jacobi_of
from sparse_argdiff.problem.constants import Constants

SPECTRA = ("uniform", "geometric", "clustered", "outliers")
KNOWN = ("split", "intercept", "constants", "nothing")


class Case:
    """One adjoint system, as an objective whose solution is given."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = np.random.default_rng(seed)
        self.spectrum, self.known = rng.choice(SPECTRA), rng.choice(KNOWN)
        self.n, self.kappa = int(rng.integers(10, 200)), 10.0 ** rng.uniform(1, 8)
        self.y = rng.standard_normal(self.n)
        self._draw_matrix()
        self.B = self._cross()
        w, V = np.linalg.eigh(self.K)
        # Weight on small eigenvalues, none, or on large ones.
        self.power = rng.choice([-0.5, 0.0, 0.5])
        self.b = V @ (rng.standard_normal(self.n) * np.abs(w) ** self.power)
        self.exact = np.linalg.solve(self.K, self.b)
        plain = -(self.B.T @ self.exact)
        self.direct = np.zeros_like(plain)
        if rng.random() < 0.3:
            size = np.linalg.norm(plain) * 10.0 ** rng.uniform(-2, 1)
            self.direct = size * rng.standard_normal(len(plain)) / len(plain) ** 0.5
        self.truth = plain + self.direct

    def _draw_matrix(self) -> None:
        rng, n, least = self.rng, self.n, 1.0 / self.kappa
        if self.spectrum == "uniform":
            w = rng.uniform(least, 1.0, n)
        elif self.spectrum == "geometric":
            w = np.geomspace(least, 1.0, n)
        elif self.spectrum == "clustered":
            centres = 10.0 ** rng.uniform(math.log10(least), 0.0, 4)
            w = centres[rng.integers(0, 4, n)] * rng.uniform(0.999, 1.001, n)
        else:
            w = rng.uniform(0.1, 1.0, n)
            k = int(rng.integers(1, 5))
            w[:k] = 10.0 ** rng.uniform(math.log10(least), -1.0, k)
        w[0] = least
        Q = np.eye(n)
        if rng.random() < 0.7:
            Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
        self.core = (Q * np.maximum(w - least, 0.0)) @ Q.T
        self.d = np.full(n, least)
        if rng.random() < 0.5:
            self.d = least * self.kappa ** rng.uniform(0.0, 0.5, n)
        if rng.random() < 0.3:  # columns in other units
            units = 10.0 ** rng.uniform(-1.0, 1.0, n)
            self.core = self.core * units * units[:, None]
        if self.known == "intercept":
            self.core += 0.1 * np.outer(*2 * [np.r_[rng.uniform(0.1, 1.0, n - 1), 1.0]])
            self.d[-1] = 0.0
        self.core = 0.5 * (self.core + self.core.T)
        self.K = self.core + np.diag(self.d)

    def _cross(self) -> np.ndarray:
        kind = self.rng.choice(["ridge", "one", "few", "dense"])
        if kind == "ridge":
            return np.diag(self.d * self.y)
        if kind == "one":
            return (self.d * self.y)[:, None]
        return self.rng.standard_normal((self.n, 5 if kind == "few" else self.n))

    def hess(self, x, y):
        """Return K, and its parts where they are known."""
        structure = sad.Structure()
        if self.known in {"split", "intercept"}:
            structure = sad.Structure(split=(sad.aslinearoperator(self.core), self.d))
        return sad.LinearOperator(
            self.K.shape,
            lambda v: self.K @ v,
            symmetric=True,
            dtype=float,
            diagonal=np.diag(self.K),
            structure=structure,
        )

    def grad(self, x, y):
        """Return zero: y is given."""
        return np.zeros(self.n)

    def cross(self, x, y):
        """Return B."""
        return self.B

    def evaluate(self):
        """Return what ends at descent or at a random tolerance, from a random start."""
        rng, constants = self.rng, None
        if self.known == "constants":
            reach = np.linalg.norm(self.B / np.sqrt(self.d)[:, None], 2)
            constants = Constants(1.0, math.inf, reach, math.inf, metric=self.d)
        start = [None, jacobi_of, self.exact, self.exact][rng.integers(4)]
        if isinstance(start, np.ndarray):
            noise = 10.0 ** rng.uniform(-3, 0.5) * rng.standard_normal(self.n)
            start = start * (1.0 + noise)
        F = sad.Hypergradient(
            sad.Problem(self),
            sad.FunctionUpper(
                lambda x, y: 0.0, lambda x, y: self.b, lambda x, y: self.direct
            ),
            solver=lambda problem, x, y0, tol: sad.Solution(
                y=self.y, x=x, status=sad.Status.CONVERGED
            ),
            y0=self.y,
            M=None if rng.random() < 0.5 else jacobi_of,
            constants=constants,
            on_failure="ignore",
        )
        return F.evaluate(
            np.zeros(len(self.truth)),
            adjoint_tol=10.0 ** rng.uniform(-10, -2),
            adjoint0=start,
            until="descent",
            certify=False,
        )


def cases(seed: int, count: int) -> int:
    """Print one line for each spectrum and knowledge; return how many were wrong."""
    names = ("cases", "at descent", "wrong", "below η", "far")
    table: dict = collections.defaultdict(lambda: dict.fromkeys(names, 0))
    products: dict = collections.defaultdict(list)
    for case_seed in np.random.SeedSequence(seed).generate_state(count, np.uint64):
        case = Case(int(case_seed))
        found, key = case.evaluate(), (case.known, case.spectrum)
        z, line = found.gradient, table[key]
        ended = found.adjoint.krylov.status is sad.Status.APPROXIMATE
        line["cases"] += 1
        products[key].append(found.adjoint.n_hvp)
        if ended:
            line["at descent"] += 1
            line["wrong"] += z @ case.truth <= 0.0
            line["below η"] += z @ case.truth < 0.25 * (1.0 - 1e-6) * (z @ z)
            line["far"] += np.linalg.norm(z - case.truth) > np.linalg.norm(z)
    print(f"{'known':11s}{'spectrum':11s}" + "".join(f"{c:>12s}" for c in names))
    for key in sorted(table):
        cells = "".join(f"{table[key][c]:12d}" for c in names)
        print(
            f"{key[0]:11s}{key[1]:11s}{cells}  median products {np.median(products[key]):.0f}"
        )
    total = {c: sum(line[c] for line in table.values()) for c in names}
    print(f"{'all':22s}" + "".join(f"{total[c]:12d}" for c in names))
    return total["wrong"] + total["below η"]


def data(folder: pathlib.Path) -> None:
    """Print the products of the adjoint solves along a path."""
    here = pathlib.Path(__file__).parent
    sys.path[:0] = [str(here), str(here.parent / "examples")]
    from driver_report import Prior, best_single, designs

    print(
        f"{'':16s}{'M':6s}{'start':6s}{'descent':>9s}{'1e-2':>7s}{'1e-4':>7s}{'1e-8':>7s}"
    )
    for name, glm, loss, rows in designs(folder):
        problem, x0 = sad.Problem(glm), best_single(glm, loss)
        upper, path = Prior(loss, x0, rows), []
        sad.minimize(
            problem,
            upper,
            x0,
            method="gradient_descent",
            bounds=(math.log(1e-8), math.log(1e3)),
            maxiter=12,
            callback=lambda state, path=path: path.append(state.x.copy()),
        )
        for M in (None, "auto"):
            for warm in (False, True):
                spent = collections.Counter()
                exact = sad.Hypergradient(problem, upper, tol=1e-10)
                for x in path:
                    before = exact.adjoint if warm else None
                    y = exact.evaluate(x, certify=False).solution.y
                    if warm and before is None:
                        continue
                    for how in ("descent", 1e-2, 1e-4, 1e-8):
                        F = sad.Hypergradient(problem, upper, M=M, y0=y, tol=1e-8)
                        found = F.evaluate(
                            x,
                            adjoint0=before,
                            adjoint_tol=1e-8 if how == "descent" else how,
                            until="descent" if how == "descent" else "tolerance",
                            certify=False,
                        )
                        spent[how] += found.adjoint.n_hvp
                print(
                    f"{name:16s}{M or 'none':6s}{'warm' if warm else 'cold':6s}"
                    f"{spent['descent']:9d}"
                    + "".join(f"{spent[t]:7d}" for t in (1e-2, 1e-4, 1e-8)),
                    flush=True,
                )


def main() -> None:
    """Parse the command line and run a part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = pathlib.Path(__file__).parent
    add = parser.add_argument
    add("part", choices=["cases", "data"])
    add("--seed", type=int, default=0)
    add("--cases", type=int, default=2000)
    add("--data", type=pathlib.Path, default=here.parent.parent / "shared" / "data")
    args = parser.parse_args()
    if args.part == "data":
        data(args.data)
    elif cases(args.seed, args.cases):
        sys.exit("a result that ends at descent does not descend as promised")


if __name__ == "__main__":
    main()
