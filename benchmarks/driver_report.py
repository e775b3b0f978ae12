"""What bi-level drivers spend until the validation loss is good: a table and a picture.

    python benchmarks/driver_report.py drivers  [--data DIR] [--out FOLDER]
    python benchmarks/driver_report.py cleaning [--data DIR] [--out FOLDER]
    python benchmarks/driver_report.py predictor [--data DIR]

``drivers``: one log-penalty per feature of logistic models, all from the best single
penalty c, on  F(x) = validation loss + ‖x − c‖² / (2 N),  N validation rows (a standard
deviation of 1 around c, without which tens of thousands of penalties learn the validation
rows by heart).  Data sets: text_farm_ads and libsvm_a9a in DIR, generated text without
them, and a correlated dense design.  Cost: Hessian products + lower-level gradients, up to
where F, evaluated exactly beside the run and not charged for, is within 1 % of the best
value that any method found, and within 1 % of what there is to gain.

``cleaning``: see ``cleaning.py``.

``predictor``: along the path of a run, lower-level solves from the last y and from
y + g'(x) dx: what the tangent costs, and what it saves.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import pathlib
import sys

import numpy as np

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm
from sparse_argdiff.preconditioners import Auto

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "examples")]

METHODS = {
    "maid": {"method": "maid"},
    "maid, M=Auto()": {"method": "maid", "M": Auto},
    "cold descent, 1e-8": {"method": "gradient_descent", "warm_start": False},
    "warm descent, 1e-8": {"method": "gradient_descent"},
    "hoag, exponential": {"method": "hoag"},
    "hoag, quadratic": {"method": "hoag_quadratic"},
    "lbfgs, 1e-8": {"method": "lbfgs"},
}


@dataclasses.dataclass
class Curve:
    """Products so far and exact F(x), one entry an accepted step."""

    products: np.ndarray
    values: np.ndarray
    status: str

    def reach(self, level: float) -> tuple[int, int] | None:
        """Return products and steps until F is below a level."""
        below = np.flatnonzero(self.values <= level)
        return (int(self.products[below[0]]), int(below[0])) if len(below) else None


class Prior:
    """A held-out loss and a Gaussian prior around log-penalties c."""

    def __init__(self, loss, centre: np.ndarray, rows: int) -> None:
        self.loss, self.centre, self.weight = loss, centre, 1.0 / rows
        self.grad_y, self.lipschitz = loss.grad_y, loss.lipschitz
        self.direct_lipschitz = 0.0  # ∂f^U/∂x does not depend on y

    def value(self, x, y):
        """Return the loss plus half the weighted square of x − c."""
        move = x - self.centre
        return self.loss.value(x, y) + 0.5 * self.weight * float(move @ move)

    def grad_x(self, x, y):
        """Return the prior's part."""
        return self.weight * (x - self.centre)


def correlated(rows: int = 600, columns: int = 400, seed: int = 0):
    """Return features (2 rows, columns) with a 1/k spectrum, turned, and labels."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((columns, columns)))[0]
    spread = np.sqrt(columns) / np.arange(1, columns + 1)
    features = (rng.standard_normal((2 * rows, columns)) * spread) @ turn.T
    truth = 2.0 * rng.standard_normal(columns) * (rng.random(columns) < 0.2)
    noise = rng.standard_normal(2 * rows)
    return features, (features @ truth + noise > 0).astype(float)


def designs(data: pathlib.Path):
    """Yield (name, Glm, held-out loss, validation rows)."""
    from _data import load, split
    from benchmarks.designs import text_like

    for name, columns in (("text_farm_ads", None), ("libsvm_a9a", 123)):
        if (data / name).is_dir():
            raw = load(data / name, None, columns, "logistic")
            rng = np.random.default_rng(0)
            (train, held, _), _ = split(raw, "logistic", rng)
            glm = Glm(train.features, train.targets)
            yield (
                name,
                glm,
                glm.held_out(held.features, held.targets),
                len(held.targets),
            )
    generated = [("correlated", *correlated())]
    if not (data / "text_farm_ads").is_dir():
        generated.append(("generated text", *text_like(2000, 20_000, 100)))
    for name, features, labels in generated:
        half = len(labels) // 2
        glm = Glm(features[:half], labels[:half])
        yield name, glm, glm.held_out(features[half:], labels[half:]), half


def best_single(glm, loss) -> np.ndarray:
    """Return the log of the best single penalty from 1e-1 to 1e-6, for every feature."""
    F = sad.Hypergradient(sad.Problem(glm), loss, tol=1e-5)
    logs = np.log(10.0) * np.arange(-1.0, -6.5, -0.5)
    values = [F.value(np.full(glm.m, log)) for log in logs]
    return np.full(glm.m, logs[int(np.argmin(values))])


def follow(problem, upper, x0, steps: int, **options) -> Curve:
    """Run a method; evaluate F exactly at each accepted x, beside the run."""
    path: list[tuple[int, np.ndarray]] = []

    def watch(state) -> bool:
        path.append((state.record.n_hvp + state.record.n_grad, state.x.copy()))
        return len(path) > steps

    found = sad.minimize(
        problem,
        upper,
        x0,
        bounds=(np.log(1e-8), np.log(1e3)),
        tol=1e-3,
        maxiter=steps,
        callback=watch,
        **options,
    )
    F = sad.Hypergradient(problem, upper, tol=1e-8)
    values = [F.value(x) for _, x in path]
    return Curve(
        np.array([p for p, _ in path]), np.array(values), found.status.name.lower()
    )


def called(options: dict) -> dict:
    """Return the options with a fresh preconditioner state, where one is asked for."""
    return options | ({"M": options["M"]()} if "M" in options else {})


def compare(name, glm, loss, rows: int, steps: int, only=None) -> dict[str, Curve]:
    """Run every method on one data set and print its rows of the table."""
    problem = sad.Problem(glm)
    x0 = best_single(glm, loss)
    upper = Prior(loss, x0, rows)
    curves = {
        label: follow(problem, upper, x0, steps, **called(options))
        for label, options in METHODS.items()
        if only is None or label.replace(",", "").split()[0] in only
    }
    best = min(curve.values.min() for curve in curves.values())
    start = next(iter(curves.values())).values[0]
    levels = 1.01 * best, best + 0.01 * (start - best)
    print(f"\n{name}: {glm.m} penalties, F {start:.5f} -> {best:.5f}")
    print(f"{'':20s}{'1 %':>14s}{'1 % of gain':>16s}{'a step':>8s}{'steps':>7s}  end")
    for label, curve in curves.items():
        cells = [
            "-" if r is None else f"{r[0]} ({r[1]})" for r in map(curve.reach, levels)
        ]
        steps_taken = len(curve.values) - 1
        each = curve.products[-1] / max(steps_taken, 1)
        print(
            f"{label:20s}{cells[0]:>14s}{cells[1]:>16s}{each:8.1f}{steps_taken:7d}"
            f"  {curve.status}",
            flush=True,
        )
    return curves


def draw(path: pathlib.Path, found: dict[str, dict[str, Curve]]) -> None:
    """Draw F − best against products, one panel a data set."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(found), 4.2), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(found)))
    colours = [
        "#D55E00",
        "#F0A030",
        "#999999",
        "#56B4E9",
        "#009E73",
        "#CC79A7",
        "#0072B2",
    ]
    for ax, (name, curves) in zip(axes, found.items(), strict=True):
        best = min(curve.values.min() for curve in curves.values())
        for colour, (label, curve) in zip(colours, curves.items(), strict=False):
            gap = np.maximum(curve.values - best, 1e-7 * abs(best))
            ax.plot(curve.products, gap, ".-", color=colour, ms=4, lw=1.2, label=label)
        ax.axhline(0.01 * best, color="k", ls=":", lw=1, label="1 % of the best")
        ax.set(xscale="log", yscale="log", title=name)
        ax.set_xlabel("Hessian products + gradients")
    axes[0].set_ylabel("F(x) - best")
    axes[-1].legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    print(f"picture {path}")


def predict(name, glm, loss, rows: int, steps: int) -> None:
    """Print what lower-level solves cost with and without the tangent predictor."""
    problem = sad.Problem(glm)
    x0 = best_single(glm, loss)
    path: list[np.ndarray] = []
    sad.minimize(
        problem,
        Prior(loss, x0, rows),
        x0,
        bounds=(np.log(1e-8), np.log(1e3)),
        maxiter=steps,
        callback=lambda state: path.append(state.x.copy()),
    )
    for tol in (1e-2, 1e-3, 1e-5):
        for rtol in (None, 0.3, 0.1):
            solution = sad.solve(problem, path[0], tol=tol)
            tangents = solves = 0
            for before, after in itertools.pairwise(path):
                start = solution.y
                if rtol is not None:
                    tangent = sad.jvp(problem, solution, after - before, rtol=rtol)
                    tangents, start = tangents + tangent.n_hvp, start + tangent.y
                solution = sad.solve(problem, after, start, tol=tol)
                solves += solution.n_hvp + solution.n_grad
            how = "from the last y " if rtol is None else f"tangent to {rtol:.1f} "
            print(
                f"{name:16} {len(path) - 1:3d} steps  tol {tol:.0e}  {how}  "
                f"{tangents:5d} + {solves:4d} = {tangents + solves:5d} products"
            )


def main() -> None:
    """Parse the command line and run a part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("part", choices=["drivers", "cleaning", "predictor"])
    add("--data", type=pathlib.Path, default=HERE.parent.parent / "shared" / "data")
    add("--out", type=pathlib.Path, default=pathlib.Path("output"))
    add("--steps", type=int, default=40)
    add("--only", nargs="*", help="first words of methods")
    add("--sets", nargs="*", help="names of data sets")
    add("--budget", type=int, default=20_000, help="of cleaning, in iterations")
    args = parser.parse_args()
    if args.part == "cleaning":
        from cleaning import report

        report(args.data, args.out, args.budget)
        return
    found = {}
    for name, *rest in designs(args.data):
        if args.part == "predictor":
            predict(name, *rest, min(args.steps, 15))
        elif args.sets is None or name in args.sets:
            found[name] = compare(name, *rest, args.steps, args.only)
    if found:
        draw(args.out / "driver_report.png", found)


if __name__ == "__main__":
    main()
