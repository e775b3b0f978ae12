"""Learn one penalty per feature of a sparse linear model, by gradient.

    minimise over x   F(x) = validation loss of g(x) + ||x - x0||^2 / (2 sigma^2 N)
    g(x) = argmin_y   training loss of y + 1/2 sum_j exp(x_j) y_j^2

x holds a log-penalty per feature, thousands of them; x0 is the best single one and N
the number of validation rows.  N F is a negative log-posterior: each log-penalty has a
Gaussian prior around x0 with standard deviation sigma (exact for losses that are
negative log-likelihoods).  Without the prior so many penalties fit the validation rows
by heart.  sigma is chosen by cross-fitting inside the validation set: penalties are
learned on four fifths of it and judged on the last fifth.  sigma = 0, the single
penalty, takes part and wins ties.  The test rows are for the last columns alone.

    python examples/tune_penalties.py                     # scikit-learn's digits
    python examples/tune_penalties.py --data FOLDER       # X_raw.npz, y_raw.npy; svmlight
    python examples/tune_penalties.py --data a9a.gz --n-features 123
    python examples/tune_penalties.py --save m.npz --maxiter 5
    python examples/tune_penalties.py --resume m.npz      # same data, loss and seed
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import sys
import time
from pathlib import Path

import numpy as np
from _data import (
    INSTALL,
    DataError,
    Dataset,
    Part,
    load,
    read_groups,
    read_model,
    save_model,
    score,
    split,
)
from scipy import sparse

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a search took: Hessian products, lower-level gradients, seconds."""

    products: int = 0
    gradients: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.products + other.products,
            self.gradients + other.gradients,
            self.seconds + other.seconds,
        )

    @classmethod
    def of(cls, counted, start: float) -> Cost:
        """Read the counters of a Hypergradient or a BilevelResult."""
        return cls(counted.n_hvp, counted.n_grad, time.perf_counter() - start)


@dataclasses.dataclass(frozen=True)
class Fit:
    """A row of the table: log-penalties x, coefficients y, the cost of finding them."""

    name: str
    x: np.ndarray
    y: np.ndarray
    cost: Cost


@dataclasses.dataclass(frozen=True)
class Grid:
    """A model for each of several single penalties, and its loss per judged row."""

    penalties: np.ndarray
    models: list[np.ndarray]
    losses: np.ndarray
    cost: Cost

    def best(self, rows: np.ndarray | slice = slice(None)) -> int:
        """Return the index with the least mean loss on these rows."""
        return int(self.losses[:, rows].mean(axis=1).argmin())


def row_losses(glm: Glm, part: Part, y: np.ndarray) -> np.ndarray:
    """Return the loss of each row."""
    return glm.loss.value(glm.predictor(part.features, y), part.targets)


def search_grid(glm: Glm, judged: Part, count: int) -> Grid:
    """Fit a model for each of ``count`` penalties from 1 to 1e-6, each from the last."""
    start = time.perf_counter()
    upper = glm.held_out(judged.features, judged.targets)
    F = sad.Hypergradient(sad.Problem(glm), upper, tol=1e-6)
    penalties = np.logspace(0, -6, count)
    models = [F.solve(np.full(glm.m, np.log(penalty))).y for penalty in penalties]
    losses = np.array([row_losses(glm, judged, y) for y in models])
    return Grid(penalties, models, losses, Cost.of(F, start))


def cross_validate(glm: Glm, parts: list[Part], count: int, rng) -> Fit:
    """Search the single penalty by cross-validation, then fit the model at it."""
    features = sparse.vstack([part.features for part in parts], format="csr")
    targets = np.concatenate([part.targets for part in parts])
    rows = Part(features, targets, np.concatenate([part.labels for part in parts]))
    fold = rows.folds(5, rng)
    total, cost = np.zeros(count), Cost()
    for k in range(5):
        kept, out = rows[fold != k], rows[fold == k]
        part = Glm(kept.features, kept.targets, loss=glm.loss, penalty="scalar")
        grid = search_grid(part, out, count)
        total += grid.losses.sum(axis=1)
        cost += grid.cost
    start = time.perf_counter()
    x = np.full(glm.m, np.log(grid.penalties[total.argmin()]))
    fit = sad.solve(sad.Problem(glm), x, tol=1e-6)
    return Fit("single, 5-fold CV", x, fit.y, cost + Cost.of(fit, start))


def learn(glm, rows: Part, centre, sigma: float, x, y, **options) -> sad.BilevelResult:
    """Minimise F from the log-penalties x, with the coefficients y to start from.

    The line search compares values of F that differ little: the lower level is solved
    to 1e-8.
    """
    loss = glm.held_out(rows.features, rows.targets)
    weight = 1.0 / (sigma**2 * len(rows.targets))
    upper = sad.FunctionUpper(
        lambda x, y: loss.value(x, y) + 0.5 * weight * np.sum((x - centre) ** 2),
        loss.grad_y,
        lambda x, _: weight * (x - centre),
    )
    limits = {"bounds": (np.log(1e-8), np.log(1e3)), "tol": 1e-2}
    tolerances = {"lower_tol": 1e-8, "adjoint_tol": 1e-5}
    return sad.minimize(
        sad.Problem(glm), upper, x, y0=y, **limits, **tolerances, **options
    )


def cross_fit(
    glm: Glm, rows: Part, grid: Grid, sigmas, maxiter: int, rng
) -> tuple[float, Cost]:
    """Return the prior deviation with the least out-of-fold loss, 0 for no move.

    The centre is chosen anew in each fold.  Deviations are tried in increasing order,
    each starting from the last result, until the loss stops falling.
    """
    fold, folds = rows.folds(5, rng), range(5)
    start = [grid.best(fold != k) for k in folds]
    centres = [np.full(glm.m, np.log(grid.penalties[i])) for i in start]
    points = [(c, grid.models[i]) for c, i in zip(centres, start, strict=True)]
    single = np.choose(fold, grid.losses[start])
    best, least, cost = 0.0, single.mean(), Cost()
    print(f"  prior deviation 0 (single penalty): out-of-fold loss {least:.5f}")
    for sigma in sigmas:
        out = np.empty_like(single)
        begin = time.perf_counter()
        for k in folds:
            kept = rows[fold != k]
            found = learn(glm, kept, centres[k], sigma, *points[k], maxiter=maxiter)
            points[k] = found.x, found.y
            out[fold == k] = row_losses(glm, rows[fold == k], found.y)
            cost += Cost(found.n_hvp, found.n_grad)
        cost += Cost(seconds=time.perf_counter() - begin)
        error = np.std(out - single) / np.sqrt(len(out))
        print(
            f"  prior deviation {sigma:.2f}: out-of-fold loss {out.mean():.5f}, "
            f"{out.mean() - single.mean():+.5f} +- {error:.5f}"
        )
        if not out.mean() < least:
            break
        best, least = sigma, out.mean()
    return best, cost


def check_gradient(glm: Glm, rows: Part, fit: Fit, rng) -> str:
    """Compare the hypergradient with a central difference along a random direction."""
    upper = glm.held_out(rows.features, rows.targets)
    problem = sad.Problem(glm)  # solved as well as the arithmetic can: error is shown
    F = sad.Hypergradient(problem, upper, y0=fit.y, tol=1e-13, on_failure="ignore")
    d, h = rng.choice([-1.0, 1.0], size=glm.m), 3e-4
    slope = float(F(fit.x)[1] @ d)
    difference = (F.value(fit.x + h * d) - F.value(fit.x - h * d)) / (2 * h)
    return (
        f"hypergradient {slope:+.9e}, central difference {difference:+.9e}, "
        f"relative error {abs(slope - difference) / abs(difference):.1e}"
    )


def print_table(loss: str, glm: Glm, fits: list[Fit], validation, test) -> None:
    """Print a line per fit; each cost is that of its whole search."""
    names = {"squared": "R^2", "huber": "R^2", "poisson": "D^2"}
    print(
        f"\n{'':24s}{'validation':>11s}{'test':>9s}{'test':>10s}"
        f"{'Hessian':>10s}{'grad-':>8s}\n{'':24s}{'loss':>11s}{'loss':>9s}"
        f"{names.get(loss, 'accuracy'):>10s}{'products':>10s}{'ients':>8s}{'seconds':>9s}"
    )
    for fit in fits:
        quality = score(loss, glm.predictor(test.features, fit.y), test.targets)
        print(
            f"{fit.name:24s}{row_losses(glm, validation, fit.y).mean():11.5f}"
            f"{row_losses(glm, test, fit.y).mean():9.5f}{quality:10.4f}"
            f"{fit.cost.products:10d}{fit.cost.gradients:8d}{fit.cost.seconds:9.1f}"
        )
    change = row_losses(glm, test, fits[-1].y) - row_losses(glm, test, fits[0].y)
    error = np.std(change) / np.sqrt(len(change))
    print(f"\ntest loss, learned - grid: {change.mean():+.5f} +- {error:.5f} (paired)")


def draw(path: Path, data: Dataset, groups, fits: list[Fit], curve, lines) -> None:
    """Draw the learning curve, the learned penalties, and what they mean.

    ``curve`` has columns products, validation loss, test loss; ``lines`` the two losses
    of the best single penalty.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    names, colours = ("validation", "test"), ("#0072B2", "#D55E00")
    for name, colour, losses, line in zip(
        names, colours, curve.T[1:], lines, strict=True
    ):
        left.plot(curve[:, 0], losses, "o-", color=colour, ms=4, label=name)
        left.axhline(line, color=colour, ls="--", lw=1)
    left.plot([], [], "k--", lw=1, label="best single penalty")
    left.set(xlabel="Hessian products of the last run", ylabel="mean loss")
    left.set_title(f"{data.name}: learning curve")
    left.legend(fontsize=8, ncol=3, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    centre = fits[0].x[0] / np.log(10)
    learned = fits[-1].x / np.log(10)
    middle.hist(learned, bins=60, color=colours[0], log=True)
    middle.axvline(centre, color="k", ls="--", lw=1, label="best single penalty")
    middle.set(xlabel="log10 of the penalty", ylabel="number of penalties")
    middle.set_title(f"{len(learned)} learned penalties")
    middle.legend(fontsize=8)
    change = (learned if groups is None else learned[groups]) - centre
    if data.pixels is not None:
        draw_pixels(right, data.pixels, change)
    else:
        counts = np.bincount(data.features.indices, minlength=len(change))
        share = 100 * counts[counts > 0] / data.features.shape[0]
        right.plot(share, change[counts > 0], ".", ms=4, alpha=0.4, color=colours[0])
        right.axhline(0, color="k", ls="--", lw=1)
        right.set(xscale="log", xlabel="rows that have the feature (%)")
        right.set_ylabel("change of log10 of the penalty")
        right.set_title("features: freed below 0, suppressed above")
    figure.savefig(path, dpi=150)


def draw_pixels(axes, pixels: np.ndarray, change: np.ndarray) -> None:
    """Draw the mean change of each pixel's penalties, and the most freed pairs."""
    total = np.bincount(pixels.ravel(), np.repeat(change, 2), minlength=64)
    count = np.bincount(pixels.ravel(), minlength=64)
    mean = (total / np.where(count > 0, count, np.nan)).reshape(8, 8)
    limit = np.nanmax(np.abs(mean)) or 1.0
    image = axes.imshow(mean, cmap="PuOr", vmin=-limit, vmax=limit)
    freed = np.argsort(change)[:12]
    for a, b in pixels[freed[change[freed] < 0]]:
        columns, rows = [a % 8, b % 8], [a // 8, b // 8]
        axes.plot(columns, rows, "o-", color="w", lw=3.5, ms=7)
        axes.plot(columns, rows, "o-", color="k", lw=1.5, ms=5)
    axes.set(xticks=[], yticks=[], facecolor="0.8", title="pixels, and pairs of pixels")
    axes.set_xlabel("black: 12 most freed; grey: not used")
    label = "mean change of log10 of the penalty\n(freed < 0 < suppressed)"
    axes.figure.colorbar(image, ax=axes, label=label)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, help="folder, sparse .npz, or svmlight (plain, .gz, .bz2)")
    add("--targets", type=Path, help="targets .npy of a sparse .npz")
    add("--n-features", type=int, help="number of features of an svmlight file")
    add("--groups", type=Path, help=".npy of whole numbers: the group of each feature")
    losses = ["logistic", "squared", "poisson", "huber", "multinomial"]
    add("--loss", choices=losses, default="logistic")
    add("--seed", type=int, default=0, help="of the split and the folds")
    add("--maxiter", type=int, default=30, help="steps of a run")
    add("--grid", type=int, default=20, help="single penalties tried")
    add("--out", type=Path, default=Path("output"), help="folder of the picture")
    add("--no-plot", action="store_true")
    add("--save", type=Path, help="file for the learned model (.npz)")
    add("--resume", type=Path, help="continue from a saved model")
    args = parser.parse_args(arguments)
    for name, least in (("seed", 0), ("maxiter", 0), ("grid", 2), ("n_features", 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            option = name.replace("_", "-")
            parser.exit(2, f"error: --{option} must be >= {least}, found {value}\n")
    return args


def run(args: argparse.Namespace) -> None:
    """Read, search in three ways, report."""
    if not args.no_plot and importlib.util.find_spec("matplotlib") is None:
        raise DataError(f"the picture needs matplotlib: {INSTALL} (or pass --no-plot)")
    for folder in (None if args.no_plot else args.out, args.save and args.save.parent):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    data = load(args.data, args.targets, args.n_features, args.loss)
    groups = read_groups(args.groups, data.features.shape[1])
    rng = np.random.default_rng(args.seed)
    (train, validation, test), targets = split(data, args.loss, rng)
    penalty = "per-feature" if groups is None else "per-group"
    options = {"loss": args.loss, "penalty": penalty, "groups": groups}
    glm = Glm(train.features, train.targets, **options)
    print(
        f"{data.name}: {data.features.shape[0]} rows, {data.features.nnz} entries\n{glm}; "
        f"validation {len(validation.targets)}, test {len(test.targets)} rows"
    )
    if targets.scale != 1.0:
        print(f"targets standardised: ({targets.shift:.6g} + {targets.scale:.6g} t)")
    meta = {"data": data.name, "loss": args.loss, "seed": args.seed}
    sizes = {"x": glm.m, "y": glm.n, "centre": glm.m}
    saved = None if args.resume is None else read_model(args.resume, sizes, meta)

    grid = search_grid(glm, validation, args.grid)
    i = grid.best()
    end = ", at the end of the grid" if i in {0, args.grid - 1} else ""
    print(f"  best single penalty {grid.penalties[i]:.3g} by the validation rows{end}")
    x = centre = np.full(glm.m, np.log(grid.penalties[i]))
    y = grid.models[i]
    fits = [Fit("single, validation grid", x, y, grid.cost)]
    fits.append(cross_validate(glm, [train, validation], args.grid, rng))
    print(f"  best single penalty {np.exp(fits[1].x[0]):.3g} by cross-validation")
    if saved is None:
        sigmas = 10.0 ** np.array([-0.5, -0.25, 0.0, 0.25])
        sigma, cost = cross_fit(glm, validation, grid, sigmas, args.maxiter, rng)
        cost += grid.cost
    else:
        x, y, centre = saved["x"], saved["y"], saved["centre"]
        sigma, cost = saved["sigma"], Cost(*saved["cost"])

    def losses(y: np.ndarray) -> list[float]:
        return [row_losses(glm, rows, y).mean() for rows in (validation, test)]

    curve = [(0, *losses(y))]
    message = "no move, the single penalty is kept"
    if sigma > 0:
        start = time.perf_counter()

        def watch(state) -> None:
            curve.append((state.record.n_hvp, *losses(state.y)))

        options = {"maxiter": args.maxiter, "callback": watch, "progress": True}
        result = learn(glm, validation, centre, sigma, x, y, **options)
        x, y, cost = result.x, result.y, cost + Cost.of(result, start)
        status = result.status.name.replace("_", " ").lower()
        message = f"{result.nit} steps, {status}"
    fits.append(Fit(f"learned, {penalty}", x, y, cost))
    print_table(args.loss, glm, fits, validation, test)
    print(f"penalties learned: {glm.m}; prior deviation: {sigma:.3g}; {message}")
    print(check_gradient(glm, validation, fits[-1], rng))
    if args.save is not None:
        arrays = {"x": x, "y": y, "centre": centre, "groups": groups}
        meta |= {"sigma": sigma, "cost": dataclasses.astuple(cost)}
        save_model(args.save, arrays, targets, meta | {"version": sad.__version__})
        print(f"saved {args.save}")
    if not args.no_plot:
        path = args.out / f"tune_penalties_{data.name}.png"
        draw(path, data, groups, fits, np.array(curve), losses(fits[0].y))
        print(f"picture {path}")


def main(arguments: list[str] | None = None) -> int:
    """Run the script; return its exit code."""
    args = parse(arguments)
    try:
        run(args)
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except sad.ConvergenceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
