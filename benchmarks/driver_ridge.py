"""One penalty from any start: does ``minimize`` ever report a value that is not F?

    python benchmarks/driver_ridge.py [--runs 1000] [--seed 1]

Small models with one penalty, of every loss, columns of mean 0, 100 and 1000, starts drawn
from −8 … 8.  F has plateaus at both ends, where the gradient vanishes whatever y is.  Wrong: a
run with success whose ``fun`` is further from F(x) than the error bar of its certificate; F
is evaluated by Newton's method with dense factors, beside the run.
"""

from __future__ import annotations

import argparse
import collections
import warnings

import numpy as np

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm

LOSSES = (
    "squared",
    "logistic",
    "poisson",
    "huber",
    "multinomial",
    "squared-hinge",
)
MEANS = (0.0, 100.0, 1000.0)
ROUNDING = 1e-8  # of a value, relative


def draw(rng, loss: str, mean: float):
    """Return a model with one penalty, and its held-out loss."""
    rows, columns = int(rng.integers(30, 90)), int(rng.integers(1, 8))
    w, scale = rng.standard_normal(columns), 0.5 * rng.random()

    def targets(features):
        z = (features - mean) @ w + scale * rng.standard_normal(len(features))
        if loss in {"logistic", "squared-hinge"}:
            return (z > 0.0).astype(float)
        if loss == "multinomial":
            return np.searchsorted([-0.7, 0.7], z)
        if loss == "poisson":
            return rng.poisson(np.exp(1.0 + 0.3 * z)).astype(float)
        return 10.0 + z

    A, V = (mean + rng.standard_normal((k, columns)) for k in (rows, 40))
    glm = Glm(A, targets(A), loss=loss, penalty="scalar")
    return glm, glm.held_out(V, targets(V))


def dense_value(glm, held, x, y) -> float:
    """Return F(x) by damped Newton steps from y with dense, scaled Hessians."""
    for _ in range(60):
        H, g = np.asarray(glm.hess(x, y).todense()), glm.grad(x, y)
        D = 1.0 / np.sqrt(np.maximum(np.diag(H), np.finfo(float).tiny))
        step = D * np.linalg.lstsq(D[:, None] * H * D, D * g, rcond=1e-15)[0]
        t, value = 1.0, glm.value(x, y)
        while t > 1e-6 and not glm.value(x, y - t * step) <= value + 1e-14 * abs(value):
            t *= 0.5
        y = y - t * step
    return float(held.value(x, y))


def run(rng, loss: str, mean: float) -> str:
    """Return how a run ended: "right", "wrong by ... bars", or its status."""
    try:
        glm, held = draw(rng, loss, mean)
    except ValueError:  # one class
        return "not a model"
    x0 = np.array([rng.uniform(-8.0, 8.0)])
    try:
        found = sad.minimize(sad.Problem(glm), held, x0, bounds=(-16, 8))
    except sad.ConvergenceError as error:
        return f"refused: {error.status.name}"
    if not found.success:
        return f"told: {found.status.name}"
    value = dense_value(glm, held, found.x, found.y)
    off, bar = abs(found.fun - value), found.certificate.value_error
    if off <= bar + ROUNDING * abs(value):
        return "right"
    return f"WRONG: {found.fun:.6g} for {value:.6g}, bar {bar:.1e}"


def main() -> None:
    """Parse the command line, run, and print the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    counts: dict[tuple[str, float], collections.Counter] = {}
    for k in range(args.runs):
        loss, mean = LOSSES[k % len(LOSSES)], MEANS[k // len(LOSSES) % len(MEANS)]
        ending = run(np.random.default_rng([args.seed, k]), loss, mean)
        counts.setdefault((loss, mean), collections.Counter())[ending] += 1
    for (loss, mean), endings in counts.items():
        print(f"{loss:12s} mean {mean:6.0f}", dict(endings))
    wrong = sum(
        number
        for endings in counts.values()
        for ending, number in endings.items()
        if ending.startswith("WRONG")
    )
    print(f"wrong: {wrong} of {args.runs}")


if __name__ == "__main__":
    main()
