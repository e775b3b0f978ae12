"""Learn the costs and the kernel's width of a support vector machine, by gradient.

    minimise over x   F(x) = mean held-out loss of f + b at g(x),    x = (log C₋, log C₊, log γ)
    g(x) = argmin_a   ½ a'Qa − 1'a   where   0 ≤ a_i ≤ C(label i),   t'a = 0
    Q_ij = t_i t_j exp(−γ ‖f_i − f_j‖²)

The costs are the upper bounds of the dual: variables at them move with x.  The samples are
two interleaved half circles, one class four times as frequent as the other.  A grid search of
scikit-learn over the same held-out loss with one C and one γ is the comparison, and the start;
the test samples are for one column alone.

F of the hinge has a kink wherever a sample meets the margin or its cost, at which a search
ends early.  With the squared hinge, for which nothing is at a cost, F bends there instead, and
the same search converges.

The picture: two decision functions with the samples on the margin and beyond it, and the
held-out loss along each parameter with the slopes that the hypergradient gives.

    python examples/kernel_svm.py --out DIR
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import make_moons
from sklearn.svm import SVC

import sparse_argdiff as sad
from sparse_argdiff.linear_model import GaussianKernel, SupportVector

BLUE, RED, GREY = "#0B5394", "#C1440E", "#6B6B6B"
NAMES = ("log C₋", "log C₊", "log γ")
RANGE = (-6.0, 6.0)


def samples(count, seed):
    """Return count samples of one class and a quarter of it of the other."""
    features, labels = make_moons((count, count // 4), noise=0.25, random_state=seed)
    return features, 2.0 * labels - 1.0


def gaussian(features, others, gamma):
    """Return the kernel matrix (rows of others, rows of features)."""
    return GaussianKernel(features, others).matrix(np.log([gamma]))


def held_out_loss(z, labels):
    """Return mean max(0, 1 − t z)²."""
    return float(np.mean(np.maximum(1.0 - labels * z, 0.0) ** 2))


def grid_search(train, held, steps=11):
    """Return the held-out loss, C and γ of the best pair of a grid, and the seconds."""
    (F, t), (G, u), start, best = train, held, time.perf_counter(), None
    for gamma in np.exp(np.linspace(-3.0, 3.0, steps)):
        K, rows = gaussian(F, F, gamma), gaussian(F, G, gamma)
        for C in np.exp(np.linspace(-4.0, 6.0, steps)):
            machine = SVC(C=C, kernel="precomputed").fit(K, t)
            loss = held_out_loss(machine.decision_function(rows), u)
            if best is None or loss < best[0]:
                best = loss, C, gamma
    return best, time.perf_counter() - start


def slopes(F, x, width=1.0, count=9):
    """Return for each parameter the values along it, and the tangents there."""
    found = []
    for unit in np.eye(x.size):
        shifts = np.linspace(-width, width, count)
        pairs = [F(x + shift * unit) for shift in shifts]
        found.append((shifts, [(value, g @ unit) for value, g in pairs]))
    return found


def draw_machine(axes, model, solution, train, title):
    """Draw a decision function with its margin, and how the samples take part."""
    (features, labels), theta = train, model.theta(solution.x)
    sides = [np.linspace(*(v.min() - 0.3, v.max() + 0.3), 160) for v in features.T]
    grid = np.stack(np.meshgrid(*sides), axis=-1)
    rows = GaussianKernel(features, grid.reshape(-1, 2)).matrix(theta)
    z = model.decision(solution, rows).reshape(grid.shape[:2])
    limit = np.abs(z).max()
    shades = axes.contourf(
        *sides, z, 24, cmap="RdBu", vmin=-limit, vmax=limit, alpha=0.35
    )
    shades.set_edgecolor("face")
    styles = {"levels": [-1.0, 0.0, 1.0], "linestyles": ["--", "-", "--"]}
    axes.contour(*sides, z, colors="k", linewidths=0.8, **styles)
    parts = model.support(solution)
    for label, colour in ((-1.0, RED), (1.0, BLUE)):
        own = labels == label
        axes.plot(*features[own].T, "o", color=colour, ms=2.5, alpha=0.6, mew=0.0)
    axes.plot(*features[parts.margin].T, "o", mfc="none", mec="k", ms=6.0, mew=0.8)
    axes.plot(*features[parts.cost].T, "x", color=GREY, ms=4.0, mew=0.7)
    axes.set(title=title, xticks=[], yticks=[])


def draw(path, machines, train, curves, x):
    """Draw both machines above the losses along each parameter."""
    figure = Figure(figsize=(9.0, 6.2), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.5, 1.0))
    for axes, machine in zip(top.subplots(1, 2), machines, strict=True):
        draw_machine(axes, *machine[:2], train, machine[2])
    below = bottom.subplots(1, 3, sharey=True)
    for axes, name, (shifts, pairs), at in zip(below, NAMES, curves, x, strict=True):
        values = np.array([value for value, _ in pairs])
        axes.plot(at + shifts, values, "o", color=BLUE, ms=4.0)
        for shift, (value, slope) in zip(shifts, pairs, strict=True):
            h = 0.1 * np.array([-1.0, 1.0])
            axes.plot(at + shift + h, value + slope * h, color=RED, lw=1.6)
        axes.axvline(at, color=GREY, lw=0.6, ls=":")
        axes.set(xlabel=name)
        axes.spines[["top", "right"]].set_visible(False)
    below[0].set_ylabel("held-out loss")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    print(f"picture: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("output"))
    parser.add_argument("--count", type=int, default=400, help="of the larger class")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    train, held, test = (samples(args.count, 3 * args.seed + k) for k in range(3))
    kernel, rows = GaussianKernel(train[0]), GaussianKernel(train[0], held[0])
    (_, C, gamma), seconds = grid_search(train, held)
    start = np.log([C, C, gamma])
    runs = [("grid, hinge", "hinge", start, seconds)]
    for loss in ("hinge", "squared-hinge"):
        model = SupportVector(kernel, train[1], cost="per-class", loss=loss)
        problem, upper = model.problem, model.held_out(rows, held[1])
        before = time.perf_counter()
        with warnings.catch_warnings():  # a search may end at a kink
            warnings.simplefilter("ignore", sad.ConvergenceWarning)
            options = {"method": "lbfgs", "bounds": RANGE, "maxiter": 40}
            found = sad.minimize(problem, upper, start, **options)
        runs.append((f"gradient, {loss}", loss, found.x, time.perf_counter() - before))
    print(
        f"{'':24s} {'C₋':>7s} {'C₊':>7s} {'γ':>7s} {'held-out':>9s} {'test':>7s} {'s':>6s}"
        f" {'margin':>7s} {'at cost':>7s} {'gap':>8s}"
    )
    machines = []
    for name, loss, x, took in runs:
        model = SupportVector(kernel, train[1], cost="per-class", loss=loss)
        solution = sad.solve(model.problem, x)
        upper = model.held_out(rows, held[1])
        z = model.decision(solution, gaussian(train[0], test[0], np.exp(x[2])))
        value, parts = upper.value(x, solution.y), model.support(solution)
        gap = model.duality_gap(solution) / abs(solution.value)
        costs = "".join(f"{np.exp(entry):8.3f}" for entry in x)
        print(
            f"{name:24s}{costs} {value:9.4f} {held_out_loss(z, test[1]):7.4f} {took:6.2f}"
            f" {len(parts.margin):7d} {len(parts.cost):7d} {gap:8.1e}"
        )
        machines.append((model, solution, f"{name}: held-out loss {value:.4f}"))
    x = runs[-1][2]
    F = sad.Hypergradient(model.problem, upper, tol=1e-10)
    shown = machines[0], machines[-1]
    draw(args.out / "kernel_svm.png", shown, train, slopes(F, x), x)


if __name__ == "__main__":
    main()
