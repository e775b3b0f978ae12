"""Support vector machines: accuracy and time against scikit-learn, and random models.

    OPENBLAS_NUM_THREADS=1 python support_vector_report.py --set times hypergradients random

``times``: seconds of the processor for one solve and its adjoint, LIBSVM in the same run with
its own tolerance and with 1e-10, the relative duality gap.  ``hypergradients``: the slope of
the held-out loss by log C against differences of LIBSVM's (tol=1e-10), which keeps kernels in
single precision.  ``random``: models of random kind, cost and data, duplicates among them; how
many are solved to a relative gap of 1e-8, and how far the hypergradient is from fourth-order
differences where these agree with themselves.
"""

from __future__ import annotations

import argparse
import collections
import time
import warnings

import numpy as np
from sklearn.datasets import make_classification
from sklearn.svm import SVC, SVR

import sparse_argdiff as sad
from sparse_argdiff.linear_model import GaussianKernel, SupportVector, linear_kernel


def seconds(call, repeats=3):
    """Return the least processor time of a few calls, and the last result."""
    took = []
    for _ in range(repeats):
        start = time.process_time()
        found = call()
        took.append(time.process_time() - start)
    return min(took), found


def times(sizes):
    print(f"{'':26s}{'solve':>8s}{'adjoint':>8s}{'SVC':>8s}{'1e-10':>8s}  gap   margin")
    for n in sizes:
        features, labels = make_classification(
            n, 10, n_informative=6, flip_y=0.1, class_sep=0.8, random_state=0
        )
        t = 2.0 * labels - 1.0
        K = GaussianKernel(features).matrix(np.log([0.05]))
        target = features[:, 0] + 0.3 * np.random.default_rng(0).standard_normal(n)
        for loss, C in (("hinge", 1.0), ("hinge", 100.0), ("epsilon", 1.0)):
            real = loss == "epsilon"
            model = SupportVector(K, target if real else t, loss=loss)
            x = np.log([C, 0.1][: model.m])
            mine, solution = seconds(lambda m=model, x=x: sad.solve(m.problem, x))
            v = np.ones(model.n)
            adjoint, _ = seconds(
                lambda m=model, s=solution, v=v: sad.vjp(m.problem, s, v)
            )
            peers = []
            for tol in (1e-3, 1e-10):
                options = {"C": C, "kernel": "precomputed", "tol": tol}
                peer = SVR(epsilon=0.1, **options) if real else SVC(**options)
                took, _ = seconds(lambda p=peer, m=model, K=K: p.fit(K, m.targets))
                peers.append(took)
            gap = model.duality_gap(solution) / abs(solution.value)
            print(
                f"{loss:8s} n = {n:5d}, C = {C:5g}{mine:8.3f}{adjoint:8.3f}"
                f"{peers[0]:8.3f}{peers[1]:8.3f}  {gap:.0e} "
                f"{len(model.support(solution).margin):6d}"
            )


def hypergradients(seeds):
    """Print the largest difference of the slopes by log C₋ and log C₊."""
    worst, largest = 0.0, 0.0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        F = rng.standard_normal((160, 4))
        t = np.sign(F[:, 0] + 0.5 * F[:, 1] ** 2 - 0.5 + 0.7 * rng.standard_normal(160))
        kernel = GaussianKernel(F[:100]).matrix(np.log([0.15]))
        rows = GaussianKernel(F[:100], F[100:]).matrix(np.log([0.15]))
        model = SupportVector(kernel, t[:100], cost="per-class")
        upper = model.held_out(rows, t[100:])

        def loss(x, K=kernel, rows=rows, t=t):
            weight = dict(zip((-1, 1), np.exp(x), strict=True))
            machine = SVC(kernel="precomputed", tol=1e-10, class_weight=weight)
            z = machine.fit(K, t[:100]).decision_function(rows)
            return np.mean(np.maximum(1.0 - t[100:] * z, 0.0) ** 2)

        x, h = rng.uniform(-1.0, 1.0, 2), 1e-3
        found = sad.Hypergradient(model.problem, upper, tol=1e-10).evaluate(x)
        slopes = [
            [(loss(x + s * u) - loss(x - s * u)) / (2.0 * s) for u in np.eye(2)]
            for s in (h, 2.0 * h)
        ]
        if np.abs(np.subtract(*slopes)).max() > 1e-3 * np.abs(slopes).max():
            continue  # a kink between
        slope = (4.0 * np.array(slopes[0]) - slopes[1]) / 3.0
        worst = max(worst, float(np.abs(found.gradient - slope).max()))
        largest = max(largest, float(np.abs(slope).max()))
    print(f"slopes up to {largest:.2e}; differences of LIBSVM are off by {worst:.1e}")


def drawn(rng, held=20):
    """Return a random model, its upper objective and x."""
    n, p = int(rng.integers(6, 120)), int(rng.integers(1, 8))
    F = rng.standard_normal((n + held, p))
    if rng.random() < 0.2:
        F = np.round(2.0 * F)  # duplicates
    score = F[:, 0] + 0.5 * rng.standard_normal(n + held)
    loss = str(rng.choice(["hinge", "squared-hinge", "epsilon"]))
    target = score if loss == "epsilon" else np.where(score > 0.0, 1.0, -1.0)
    if loss != "epsilon" and abs(target[:n].sum()) == n:
        target[0] *= -1.0
    linear = rng.random() < 0.3
    kinds = (linear_kernel, linear_kernel) if linear else (GaussianKernel,) * 2
    kernel, rows = kinds[0](F[:n]), kinds[1](F[:n], F[n:])
    costs = ["scalar", "per-sample"] + (["per-class"] if loss != "epsilon" else [])
    options = {"cost": str(rng.choice(costs)), "intercept": bool(rng.random() < 0.7)}
    model = SupportVector(kernel, target[:n], loss=loss, **options)
    x = np.full(model.m, rng.uniform(-4.0, 6.0))
    if loss == "epsilon":
        x[model.m - 1 - (not linear)] = np.log(0.1 * np.std(target) + 1e-3)
    if not linear:
        x[-1] = rng.uniform(-3.0, 1.0)
    return model, model.held_out(rows, target[n:]), x


def random_models(seeds):
    gaps, errors, steps, refused = [], [], [], collections.Counter()
    for seed in seeds:
        rng = np.random.default_rng([1, seed])
        model, upper, x = drawn(rng)
        try:
            solution = sad.solve(model.problem, x)
            gaps.append(abs(model.duality_gap(solution)) / abs(solution.value))
            steps.append(solution.niter)
            F = sad.Hypergradient(model.problem, upper, tol=1e-11)
            found = F.evaluate(x)
        except sad.ConvergenceError as error:
            refused[error.status.name] += 1
            continue
        u = rng.standard_normal(model.m)
        u /= np.linalg.norm(u)
        value = [F.value(x + s * u) for s in (-2e-4, -1e-4, -5e-5, 5e-5, 1e-4, 2e-4)]
        coarse, fine = (value[4] - value[1]) / 2e-4, (value[3] - value[2]) / 1e-4
        size = max(np.linalg.norm(found.gradient), abs(found.value), 1e-8)
        if abs(coarse - fine) > 1e-6 * size:
            refused["kink or roughness"] += 1
            continue
        errors.append(abs((4.0 * fine - coarse) / 3.0 - found.gradient @ u) / size)
    print(
        f"{len(gaps)} solved, largest gap {max(gaps):.1e}, steps at most {max(steps)}"
    )
    share = ", ".join(f"{np.percentile(errors, q):.1e}" for q in (50, 90, 100))
    print(f"hypergradient in {len(errors)}: error {share} (half, 90 %, all)")
    print(f"not compared: {dict(refused)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = ("times", "hypergradients", "random")
    parser.add_argument("--set", nargs="+", choices=kinds, default=list(kinds))
    parser.add_argument("--sizes", nargs="+", type=int, default=[500, 1500, 3000])
    parser.add_argument("--seeds", nargs=2, type=int, default=[0, 100])
    args = parser.parse_args()
    warnings.simplefilter("ignore", sad.ConvergenceWarning)
    if "times" in args.set:
        times(args.sizes)
    if "hypergradients" in args.set:
        hypergradients(range(*args.seeds))
    if "random" in args.set:
        random_models(range(*args.seeds))


if __name__ == "__main__":
    main()
