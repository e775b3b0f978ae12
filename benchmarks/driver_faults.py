"""Random bi-level problems with injected failures: is a run ever lost, or fooled?

    python benchmarks/driver_faults.py [--runs 200] [--seed 1]

Kinds, in turn: NaN at random calls of the lower gradient, its products and f^U; products that
are random at random calls, on which solves stagnate; a lower level without a minimum beyond a
random plane of x; and a process that is killed by SIGKILL at a random step and started again.
Counted: exceptions that are no ``ConvergenceError`` of the first evaluation, values further
from the exact F(x) than the error bar of the result, and convergence that the exact projected
gradient does not confirm.
"""

from __future__ import annotations

import argparse
import collections
import math
import multiprocessing
import os
import pathlib
import signal
import tempfile
import warnings

import numpy as np

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm

KINDS = ("nan", "stagnation", "unbounded", "killed")
BOX = (-12.0, 4.0)
TOL = 1e-4


def draw(rng):
    """Return a random small model, its held-out loss and a start."""
    loss = str(rng.choice(["squared", "logistic", "poisson"]))
    rows, columns = int(rng.integers(40, 120)), int(rng.integers(2, 15))
    A, V = rng.standard_normal((2, rows, columns))
    w = rng.standard_normal(columns) * (rng.random(columns) < 0.6)

    def targets(M):
        z = M @ w / max(np.linalg.norm(w), 1.0) + 0.5 * rng.standard_normal(rows)
        return {
            "squared": z,
            "logistic": (z > 0.0).astype(float),
            "poisson": rng.poisson(np.exp(0.5 * z)).astype(float),
        }[loss]

    glm = Glm(A, targets(A), loss=loss, intercept=False)
    x0 = np.full(glm.m, rng.uniform(-8.0, 3.0))
    return glm, glm.held_out(V, targets(V)), x0


def injected(glm, held, rng, kind):
    """Return the problem and the upper objective with failures of a kind."""
    calls, share, quiet = (
        [0],
        10.0 ** rng.uniform(-3.5, -1.7),
        int(rng.integers(50, 400)),
    )
    normal, level = rng.standard_normal(glm.m), rng.uniform(1.0, 6.0)

    def spoil(found):
        calls[0] += 1
        if calls[0] > quiet and rng.random() < share:
            if kind == "nan":
                return found * math.nan
            return found + np.linalg.norm(found) * rng.standard_normal(found.shape)
        return found

    def curvature(x):
        beyond = kind == "unbounded" and normal @ x > level * np.linalg.norm(normal)
        return 1e6 if beyond else 0.0

    nan = kind == "nan"
    objective = sad.FunctionObjective(
        n=glm.n,
        value=lambda x, y: glm.value(x, y) - 0.5 * curvature(x) * float(y @ y),
        grad=lambda x, y: (
            spoil(glm.grad(x, y)) if nan else glm.grad(x, y) - curvature(x) * y
        ),
        hvp=lambda x, y, v: (
            glm.hess(x, y) @ v - curvature(x) * v
            if kind == "unbounded"
            else spoil(glm.hess(x, y) @ v)
        ),
        cross_vjp=lambda x, y, v: glm.cross(x, y).T @ v,
    )
    upper = sad.FunctionUpper(
        lambda x, y: spoil(held.value(x, y)) if nan else held.value(x, y), held.grad_y
    )
    return sad.Problem(objective), upper


def killed(seed, path, step):
    """Run in this process and kill it at a step."""
    glm, held, x0 = draw(np.random.default_rng(seed))

    def watch(state):
        if state.record.nit == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sad.minimize(
        sad.Problem(glm),
        held,
        x0,
        bounds=BOX,
        checkpoint=path,
        callback=watch,
        maxiter=30,
    )


def run(seed: int, kind: str) -> str:
    """Return how a run ended: "right", or what is wrong with it."""
    rng = np.random.default_rng(seed)
    glm, held, x0 = draw(rng)
    problem, upper, options = sad.Problem(glm), held, {}
    with tempfile.TemporaryDirectory() as folder:
        if kind == "killed":
            path = pathlib.Path(folder) / "run"
            child = multiprocessing.get_context("fork").Process(
                target=killed, args=(seed, path, int(rng.integers(0, 12)))
            )
            child.start()
            child.join()
            options = {"checkpoint": path}
        else:
            problem, upper = injected(glm, held, rng, kind)
        try:
            found = sad.minimize(
                problem, upper, x0, bounds=BOX, tol=TOL, maxiter=30, **options
            )
            if kind == "killed":
                other = pathlib.Path(folder) / "other"
                whole = sad.minimize(
                    problem,
                    upper,
                    x0,
                    bounds=BOX,
                    tol=TOL,
                    maxiter=30,
                    checkpoint=other,
                )
                if not np.array_equal(whole.x, found.x):
                    return "other iterates"
        except sad.ConvergenceError as error:
            return (
                "right" if not hasattr(error, "best") else f"lost: {error.status.name}"
            )
    # Beyond the plane the Poisson loss has minima of its own: F is that of the problem run.
    of_run = problem if kind == "unbounded" else sad.Problem(glm)
    F = sad.Hypergradient(of_run, held, tol=1e-11, y0=found.y)
    value, gradient = F(found.x)
    record = [r for r in found.history if r.value == found.fun][-1]
    if abs(found.fun - value) > record.value_error + 1e-8 * abs(value):
        return f"value off by {abs(found.fun - value) / record.value_error:.1g} bars"
    free = ~(
        ((found.x <= BOX[0]) & (gradient > 0)) | ((found.x >= BOX[1]) & (gradient < 0))
    )
    scale = max(abs(value), 1e-3 * (found.history[0].value - value))
    if found.success and np.linalg.norm(gradient[free]) > 1.01 * TOL * scale:
        return "false convergence"
    return "right"


def main() -> None:
    """Parse the command line, run, and print the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    counts: dict[str, collections.Counter] = {k: collections.Counter() for k in KINDS}
    for k in range(args.runs):
        kind = KINDS[k % len(KINDS)]
        seed = 1000 * args.seed + k
        try:
            counts[kind][run(seed, kind)] += 1
        except Exception as error:  # noqa: BLE001  (every failure is counted)
            counts[kind][f"raised {type(error).__name__} (seed {seed})"] += 1
    for kind in KINDS:
        print(f"{kind:12s}", dict(counts[kind]))


if __name__ == "__main__":
    main()
