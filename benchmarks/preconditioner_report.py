"""What the preconditioners save, in products and, for multigrid, in seconds.

    python benchmarks/preconditioner_report.py grids|nystrom|auto|direct [size ...]

grids      AMG on the 5-point Laplacian: iterations, setup, solve and total beside PyAMG's
nystrom    adjoints over 20 upper steps on correlated features, each way to precondition
auto       lower solves and adjoints over 20 upper steps: "auto" against the fixed choices
direct     the direct path against conjugate gradients: the same derivative
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np
from pyamg import ruge_stuben_solver

import sparse_argdiff as sad
from sparse_argdiff import preconditioners as pc
from sparse_argdiff.linear_model import Glm

sys.path.insert(0, str(Path(__file__).parent))
from benchmarks.designs import correlated, correlated_problem, laplacian, text_problem


class Kept:
    """One kind of preconditioner, built once and updated ever after."""

    def __init__(self, build):
        self.build, self.M = build, None

    def __call__(self, K):
        self.M = self.build(K) if self.M is None else self.M.update(K)
        return self.M


def shifted(K):
    """Return the split's diagonal with the mean of the core's."""
    core, d = K.split
    return pc.jacobi(d + core.diagonal().mean())


FIXED = {
    "none": lambda: None,
    "jacobi": lambda: pc.jacobi_of,
    "shifted": lambda: shifted,
    "nystrom 50": lambda: Kept(lambda K: pc.nystrom(K, rank=50)),
    "nystrom 100": lambda: Kept(lambda K: pc.nystrom(K, rank=100)),
    "cholesky": lambda: Kept(pc.cholesky),
    "auto, a solve": lambda: "auto",
    "auto": pc.Auto,
}


def cpu_seconds(function):
    """Return the processor seconds of one call, and its value."""
    start = time.process_time()
    value = function()
    return time.process_time() - start, value


def grids(sides):
    """Report iterations and microseconds a point on square grids, PyAMG's own beside.

    Medians of interleaved runs.  PyAMG solves by its CG with its own cycle (symmetric
    Gauss-Seidel), on the same hierarchy and to the same residual.
    """
    pc.amg(laplacian(256)) @ np.zeros(256**2)  # imports, and compiles
    print(
        "us a point:    setup (PyAMG's)   solve (PyAMG's)   total (PyAMG's)   "
        "iterations   solve / A@x"
    )
    totals = []
    for side in sides:
        A = laplacian(side)
        n = side * side
        b = np.random.default_rng(0).standard_normal(n)
        names = ("setup", "their setup", "solve", "their solve", "product")
        spent = {name: [] for name in names}

        def clocked(name, function, spent=spent, n=n):
            seconds, value = cpu_seconds(function)
            spent[name].append(1e6 * seconds / n)
            return value

        for _ in range(max(3, 2**20 // n)):
            M = clocked("setup", lambda A=A: pc.amg(A))
            hierarchy = clocked("their setup", lambda A=A: ruge_stuben_solver(A))
            found = clocked("solve", lambda A=A, b=b, M=M: sad.cg(A, b, M=M))
            clocked(
                "their solve",
                lambda H=hierarchy, b=b: H.solve(b, tol=1e-8, accel="cg"),
            )
            clocked("product", lambda A=A, b=b: A @ b)
        assert found.converged
        setup, their_setup, solve, their_solve, product = (
            statistics.median(times) for times in spent.values()
        )
        totals.append(setup + solve)
        print(
            f"{side:6d}²        {setup:5.2f} ({their_setup:5.2f})     {solve:5.3f} "
            f"({their_solve:5.3f})     {totals[-1]:5.2f} ({their_setup + their_solve:5.2f})"
            f"     {found.niter:6d}       {solve / product:6.1f}",
            flush=True,
        )
    print(f"largest total over smallest: {max(totals) / min(totals):.2f}")


def steps(problem, x, count=20, length=0.3):
    """Yield a random walk of the parameters."""
    rng = np.random.default_rng(1)
    for _ in range(count):
        yield x
        p = rng.standard_normal(x.size)
        x = x + length * p / np.linalg.norm(p)


def nystrom(decays):
    """Report the iterations of 20 adjoints to 1e-6 at exact lower solutions."""
    ways = {
        "none": lambda: lambda K: None,
        "jacobi": lambda: pc.jacobi_of,
        "nystrom 20": lambda: Kept(lambda K: pc.nystrom(K, rank=20)),
        "nystrom 50": lambda: Kept(lambda K: pc.nystrom(K, rank=50)),
        "nystrom 100": lambda: Kept(lambda K: pc.nystrom(K, rank=100)),
    }
    for decay in decays:
        problem, upper, x0 = correlated_problem(decay=decay)
        systems, y = [], None
        for x in steps(problem, x0):
            solution = sad.solve(problem, x, y)
            y = solution.y
            systems.append((problem.hess(x, y), upper.grad_y(x, y)))
        print(f"features whose eigenvalues fall like j^-{2 * decay:g}")
        for name, way in ways.items():
            choose, built = way(), 0
            cold = warm = galerkin = 0
            recent, last = pc.RecentSolutions(3), None
            for H, b in systems:
                M = choose(H)
                built += 0 if M is None else M.n_matvec
                cold += sad.cg(H, b, rtol=1e-6, M=M).niter
                found = sad.cg(H, b, last, rtol=1e-6, M=M)
                warm, last = warm + found.niter, found.x
                start = recent.start()
                if start is not None and start.ndim == 2:
                    start, products = pc.galerkin_start(H, b, start)
                    galerkin += products
                found = sad.cg(H, b, start, rtol=1e-6, M=M)
                galerkin += found.niter
                recent.keep(found.x, found.niter)
            print(
                f"  {name:12s} built {built:4d}   cold {cold:5d}   warm {warm:5d}   "
                f"last three {galerkin:5d}",
                flush=True,
            )


def sequence(problem, upper, x0, M, tol=1e-6):
    """Return the products of 20 lower solves and adjoints, warm, building included."""
    y, adjoint, spent = np.zeros(problem.objective.n), None, 0
    for x in steps(problem, x0):
        solution = sad.solve(problem, x, y, tol=tol, M=M)
        y = solution.y
        v = upper.grad_y(x, y)
        found = sad.vjp(problem, solution, v, adjoint0=adjoint, rtol=tol, M=M)
        adjoint = found.adjoint
        spent += solution.n_hvp + found.n_hvp
    return spent


def glm_problem(features, labels, penalty=1e-3):
    half = features.shape[0] // 2
    glm = Glm(features[:half], labels[:half])
    upper = glm.held_out(features[half:], labels[half:])
    return sad.Problem(glm), upper, np.full(glm.m, np.log(penalty))


def unscaled(n=100, seed=0):
    """Independent features in units from 1e-3 to 1e3."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((2000, n)) * np.geomspace(1e-3, 1e3, n)
    t = (X @ (rng.standard_normal(n) / np.geomspace(1e-3, 1e3, n)) > 0).astype(float)
    return glm_problem(X, t, 1e-6)


def auto(names):
    """Report the products of each choice, and "auto" relative to the best fixed one."""
    problems = {
        "correlated, steep": lambda: correlated_problem(decay=1.25),
        "correlated": lambda: correlated_problem(decay=1.0),
        "correlated, flat": lambda: correlated_problem(decay=0.5),
        "correlated, n = 60": lambda: correlated_problem(decay=1.0, n_features=60),
        "units differ": unscaled,
        "independent": lambda: glm_problem(*correlated(decay=0.0, n_features=300)),
        "text-like": lambda: text_problem(n_features=10_000),
        "text-like, few samples": lambda: text_problem(n_samples=400),
    }
    print(f"{'':24s}" + "".join(f"{name:>15s}" for name in FIXED) + "   auto / best")
    for label, make in problems.items():
        if names and label not in names:
            continue
        problem, upper, x = make()
        spent = {}
        for name, M in FIXED.items():
            if name == "cholesky" and problem.objective.n > 2000:
                continue
            try:
                spent[name] = sequence(problem, upper, x, M())
            except sad.ConvergenceError:
                spent[name] = "fails"
        fixed = [spent[name] for name in spent if not name.startswith("auto")]
        best = min(value for value in fixed if value != "fails")
        row = "".join(f"{spent.get(name, '-'):>15}" for name in FIXED)
        print(f"{label:24s}{row}   {spent['auto'] / best:.2f}", flush=True)


def direct(sizes):
    """Compare the derivative by a factor with the one by conjugate gradients."""
    for n in sizes:
        problem, upper, x = correlated_problem(decay=1.0, n_features=n)
        found, seconds = {}, {}
        solution = sad.solve(problem, x, tol=1e-9, M=pc.Auto())
        v = upper.grad_y(x, solution.y)
        for name, M in (("cholesky", pc.cholesky), ("cg", pc.jacobi_of)):
            start = time.process_time()
            found[name] = sad.vjp(problem, solution, v, rtol=1e-10, M=M)
            seconds[name] = time.process_time() - start
        gap = found["cholesky"].x - found["cg"].x
        print(
            f"n = {n:5d}: adjoint in {found['cholesky'].krylov.niter} and "
            f"{found['cg'].krylov.niter} iterations, the hypergradients differ by "
            f"{np.linalg.norm(gap) / np.linalg.norm(found['cg'].x):.1e}; the factor and "
            f"its solve take {seconds['cholesky'] / seconds['cg']:.2f} of the time",
            flush=True,
        )


def main():
    what, *rest = sys.argv[1:] or ["auto"]
    if what == "grids":
        grids([int(side) for side in rest] or [256, 512, 1024])
    elif what == "nystrom":
        nystrom([float(decay) for decay in rest] or [1.0, 1.25])
    elif what == "direct":
        direct([int(n) for n in rest] or [50, 300, 1000])
    else:
        auto(rest)


if __name__ == "__main__":
    main()
