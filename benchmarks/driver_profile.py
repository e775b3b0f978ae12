"""Performance profiles of the bi-level methods on problems drawn from seeds.

    python benchmarks/driver_profile.py --seeds 1 2 [--methods default lbfgs ...]
        [--problems text tall ...] [--data DIR] [--budget 20000] [--steps 100] [--keep FOLDER]

Every problem of ``driver_problems.py`` whose name contains one of the given words is drawn
from each seed, and every method runs until ``--steps`` steps, ``--budget`` products or its
own convergence.  A product is a Hessian product or a gradient of the lower level; seconds are
of processor time.  Values are recomputed by exact solves beside the run, and not charged.

The gain is F(x0) − best, the best of all methods and of a long exact run from there.  Three
levels: 90 % of the gain, 99 % of it, and within 1 % of the best value.  Printed for each:
the share of problems where a method is within 1, 2, 4 and 8 times of the cheapest, and where
it never arrives; then final values, failures, and seconds against SciPy's L-BFGS-B on F.
``--keep FOLDER`` stores the curves of a problem after each method, in a file of its own: a
call that is killed loses one run, a later one runs only what is missing, and several share
the problems out by ``--problems``.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import pathlib
import pickle
import sys
import time
import warnings
from typing import Any

import numpy as np
from scipy import optimize

import sparse_argdiff as sad

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from driver_problems import PROBLEMS, Case, real_problems

METHODS: dict[str, dict[str, Any]] = {
    "default": {},
    "maid": {"method": "maid"},
    "hoag": {"method": "hoag"},
    "cold": {"method": "gradient_descent", "warm_start": False},
    "warm": {"method": "gradient_descent"},
    "lbfgs": {"method": "lbfgs"},
}
LEVELS = ("90 % of the gain", "99 % of the gain", "1 % of the value")
TOL = 1e-7  # of all methods of ``minimize``: the budget ends most runs
FACTORS = (1.0, 2.0, 4.0, 8.0)
PEER = "scipy"
EXACT = {"lbfgs", "cold", "warm", PEER}


@dataclasses.dataclass
class Curve:
    """Cost and exact value of each accepted step, and how the run ended."""

    products: np.ndarray
    seconds: np.ndarray
    values: np.ndarray
    ending: str
    x: np.ndarray
    bars: np.ndarray  # of the values that the run reported, and these
    reported: np.ndarray

    def reach(self, level: float, cost: str = "products") -> float:
        """Return the cost of getting below a level; infinite if it never did."""
        below = np.flatnonzero(self.values <= level)
        return float(getattr(self, cost)[below[0]]) if len(below) else math.inf


def is_right(case: Case, points, values: np.ndarray) -> bool:
    """Tell whether the lowest value that a method reported is F there, by a cold solve."""
    best = int(np.nanargmin(values))
    (value,) = exact_values(case, [points[best]])
    return bool(abs(value - values[best]) <= 1e-4 * abs(values[best]))


class _Enough(Exception):
    """Ends SciPy's loop at the budget."""


class Watch:
    """A callback that records a path and stops at the budget; its own time is not charged."""

    def __init__(self, budget: int, limit: float) -> None:
        self.budget, self.limit = budget, limit
        self.start, self.spent = time.process_time(), 0.0
        self.path: list[tuple[int, float, np.ndarray, float, float]] = []

    def add(self, products: int, x, value: float, bar: float) -> bool:
        """Record a point; tell whether the budget is spent."""
        seconds = time.process_time() - self.start
        self.path.append((products, seconds, np.array(x), value, bar))
        return products >= self.budget or seconds >= self.limit

    def __call__(self, state) -> bool:
        """Record an accepted step of ``minimize``."""
        record = state.record
        return self.add(
            record.n_hvp + record.n_grad, state.x, record.value, record.value_error
        )


def run_ours(case: Case, watch: Watch, steps: int, options: dict) -> str:
    """Run ``minimize``; return how it ended."""
    try:
        found = sad.minimize(
            case.problem,
            case.upper,
            case.x0,
            bounds=case.bounds,
            maxiter=steps,
            tol=TOL,
            callback=watch,
            on_failure="raise",
            **options,
        )
    except Exception as error:  # noqa: BLE001  (every failure is counted)
        return f"raised {type(error).__name__}: {str(error)[:60]}"
    return found.status.name


def run_scipy(case: Case, watch: Watch, steps: int) -> str:
    """Run SciPy's L-BFGS-B on F with a warm start; return how it ended."""
    F = sad.Hypergradient(case.problem, case.upper)

    def fun(x):
        value, gradient = F(x)
        if watch.add(F.n_hvp + F.n_grad, x, value, 0.0):
            raise _Enough
        return value, gradient

    bounds = None if case.bounds is None else optimize.Bounds(*case.bounds)
    try:
        found = optimize.minimize(
            fun,
            case.x0,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": steps, "gtol": 1e-9, "ftol": 1e-12},
        )
    except _Enough:
        return "STOPPED_BY_CALLBACK"
    except Exception as error:  # noqa: BLE001
        return f"raised {type(error).__name__}: {str(error)[:60]}"
    return "CONVERGED" if found.success else f"SciPy: {found.message}"


def follow(case: Case, method: str, steps: int, budget: int, limit: float) -> Curve:
    """Run a method and evaluate F exactly at its points, beside the run."""
    watch = Watch(budget, limit)
    if method == PEER:
        ending = run_scipy(case, watch, steps)
    else:
        ending = run_ours(case, watch, steps, METHODS[method])
    products, seconds, points, reported, bars = (
        zip(*watch.path, strict=True)
        if (watch.path)
        else ((0,), (0.0,), (case.x0,), (math.nan,), (math.inf,))
    )
    values = np.array(reported)
    if method not in EXACT or not is_right(case, points, values):
        values = exact_values(case, points)
    return Curve(
        np.array(products),
        np.array(seconds),
        values,
        ending,
        points[int(np.nanargmin(values))],
        np.array(bars),
        np.array(reported),
    )


def exact_values(case: Case, points) -> np.ndarray:
    """Return F at each point by solves to 1e-8, without adjoints; NaN where one fails."""
    F = sad.Hypergradient(case.problem, case.upper, M=sad.preconditioners.Auto())
    values = []
    for x in points:
        try:
            values.append(F.value(x))
        except sad.ConvergenceError:
            values.append(math.nan)
    return np.array(values)


def long_run(case: Case, x: np.ndarray, budget: int, limit: float) -> float:
    """Return the value that a long exact run from the best point reaches."""
    watch = Watch(budget, limit)
    run_scipy(dataclasses.replace(case, x0=x), watch, 500)
    if not watch.path:
        return math.inf
    points, values = zip(*((x, value) for _, _, x, value, _ in watch.path), strict=True)
    right = is_right(case, points, np.array(values))
    return min(values) if right else math.inf


def kept_at(folder: pathlib.Path | None, name: str, seed: int) -> pathlib.Path | None:
    """Return the file of the curves of a problem, None where none are kept."""
    if folder is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    word = "".join(c if c.isalnum() else "_" for c in name)
    return folder / f"{word}.{seed}.pickle"


def load(path: pathlib.Path | None) -> dict[str, Any]:
    """Return the curves in a file; none where there is no file."""
    return pickle.loads(path.read_bytes()) if path and path.exists() else {}


def store(path: pathlib.Path | None, curves: dict[str, Any]) -> None:
    """Replace a file of curves at once, so that a call killed meanwhile leaves the last."""
    if path is not None:
        part = path.with_suffix(".part")
        part.write_bytes(pickle.dumps(curves))
        part.replace(path)


def fill(args, case: Case, methods, path: pathlib.Path | None) -> dict[str, Any]:
    """Run what the kept curves of a problem lack; return all of them."""
    curves = load(path)
    missing = [m for m in methods if m not in curves or m in args.again]
    if missing:  # compiled loops are loaded before the clock starts
        exact_values(case, [case.x0])
    for method in missing:
        curves[method] = follow(case, method, args.steps, args.budget, args.limit)
        store(path, curves)
    if missing or "long" not in curves:
        runs = [c for m, c in curves.items() if m != "long"]
        best = min(runs, key=lambda c: np.nanmin(c.values))
        lowest = float(np.nanmin(best.values))
        begun_at, reached = curves.get("long", (math.inf, math.inf))
        if lowest < begun_at:
            value = long_run(case, best.x, args.budget, args.limit)
            curves["long"] = (lowest, min(value, reached))
            store(path, curves)
    return curves


def collect(args, builders) -> dict[tuple[str, int], dict[str, Any]]:
    """Run what the kept files lack; return the curves of each (problem, seed)."""
    methods = with_peer(args.methods)
    begun, found = time.time(), {}
    for seed in args.seeds:
        for number, name in enumerate(builders):
            if args.problems and not any(word in name for word in args.problems):
                continue
            case = builders[name](np.random.default_rng([seed, number]))
            curves = fill(args, case, methods, kept_at(args.keep, name, seed))
            found[name, seed] = {m: curves[m] for m in [*methods, "long"]}
            if args.verbose:
                print(line(name, seed, curves, methods), flush=True)
    print(f"{time.time() - begun:.0f} s", file=sys.stderr)
    return found


def with_peer(methods) -> list[str]:
    """Return the methods, SciPy's among them."""
    return [*methods] if PEER in methods else [*methods, PEER]


def levels(curves: dict[str, Any]) -> tuple[float, float, float, float]:
    """Return the best value and the three levels."""
    runs = [c for m, c in curves.items() if m != "long"]
    best = min(*(float(np.nanmin(c.values)) for c in runs), *curves["long"])
    start = max(float(c.values[0]) for c in runs)
    gain = start - best
    return best, best + 0.1 * gain, best + 0.01 * gain, best + 0.01 * abs(best)


def line(name: str, seed: int, curves: dict[str, Any], methods) -> str:
    """Return products to each level of each method, in one line."""
    best, *marks = levels(curves)
    cells = []
    for method in methods:
        curve = curves[method]
        costs = "/".join(
            "-" if math.isinf(c) else f"{c:.0f}" for c in map(curve.reach, marks)
        )
        cells.append(
            f"{method} {costs} {np.nanmin(curve.values):.4g} {curve.ending[:11]}"
        )
    return f"{name[:26]:26s} {seed} best {best:.5g} | " + " | ".join(cells)


def profile(found, methods, cost: str) -> None:
    """Print the shares within factors of the cheapest, for each level."""
    print(
        f"\n{cost}, {len(found)} problems: within 1, 2, 4, 8 times of the cheapest, never"
    )
    for number, level in enumerate(LEVELS, 1):
        print(f"  {level}")
        for method in methods:
            ratios = []
            for curves in found.values():
                mark = levels(curves)[number]
                costs = {m: curves[m].reach(mark, cost) for m in methods}
                least = min(costs.values())
                mine = costs[method]
                ratios.append(
                    math.inf if math.isinf(mine) else (mine + 1e-9) / (least + 1e-9)
                )
            shares = [np.mean(np.array(ratios) <= f) for f in FACTORS]
            never = np.mean(np.isinf(ratios))
            cells = "".join(f"{s:7.0%}" for s in shares)
            print(f"    {method:10s}{cells}{never:9.0%}")


def summary(found, methods) -> None:
    """Print final values, bars and endings of each method; seconds against SciPy."""
    print(
        "\nfinal value / best: median, worst; within 1 % of lbfgs; bars kept; endings"
    )
    for method in methods:
        ratios, against, kept, endings = [], [], [], {}
        for curves in found.values():
            best, curve = levels(curves)[0], curves[method]
            last = float(np.nanmin(curve.values))
            ratios.append(last / best)
            other = float(np.nanmin(curves.get("lbfgs", curves[PEER]).values))
            against.append(last <= other + 0.01 * abs(other))
            off = np.abs(curve.reported - curve.values)
            if method != PEER and not curve.ending.startswith("raised"):
                kept.append(np.mean(off <= curve.bars + 1e-6 * np.abs(curve.values)))
            word = curve.ending.split(":")[0]
            endings[word] = endings.get(word, 0) + 1
        bars = f"{np.mean(kept):.1%}" if kept else "-"
        print(
            f"  {method:10s}{np.median(ratios):8.4f}{max(ratios):8.2f}"
            f"{np.mean(against):7.0%}{bars:>8s}  {endings}"
        )
    if "default" not in methods:
        return
    for cost in ("products", "seconds"):
        for number, level in enumerate(LEVELS, 1):
            ratios = {}
            for other in [m for m in methods if m != "default"]:
                pairs = [
                    (
                        c["default"].reach(levels(c)[number], cost),
                        c[other].reach(levels(c)[number], cost),
                    )
                    for c in found.values()
                ]
                ratios[other] = [
                    1.0 if math.isinf(a) and math.isinf(b) else (a + 1e-9) / (b + 1e-9)
                    for a, b in pairs
                ]
            cells = "  ".join(
                f"{m} <= 1.1: {np.mean(np.array(r) <= 1.1):.0%}, 1/2: {np.mean(np.array(r) <= 0.5):.0%}, "
                f"1/3: {np.mean(np.array(r) <= 1 / 3):.0%}"
                for m, r in ratios.items()
            )
            print(f"  {cost} to {level}, default against {cells}")


def targets(found) -> None:
    """Print what is asked of the default, and the share of the problems where it holds.

    A level that neither of two methods reaches is no success of either.
    """
    print("\nasked of the default: share of the problems, target")

    def line(words: str, holds, target: float) -> None:
        share = float(np.mean([holds(curves) for curves in found.values()]))
        print(f"  {words:66s}{share:6.0%}{target:6.0%}")

    def reach(curves, method: str, number: int, cost: str = "products") -> float:
        return curves[method].reach(levels(curves)[number], cost)

    def least(curves, number: int) -> float:
        return min(reach(curves, m, number) for m in curves if m != "long")

    for number, near, never in ((1, 0.95, 0.02), (2, 0.85, 0.12), (3, 0.75, 0.20)):
        words = f"within 2 times of the cheapest to {LEVELS[number - 1]}, >="
        line(
            words,
            lambda c, n=number: math.inf > reach(c, "default", n) <= 2.0 * least(c, n),
            near,
        )
        words = f"never reaches {LEVELS[number - 1]}, <="
        line(words, lambda c, n=number: math.isinf(reach(c, "default", n)), never)
    line(
        "99 % of the gain for 1/3 of cold's and 1/2 of hoag's products, >=",
        lambda c: (
            reach(c, "default", 2)
            <= min(reach(c, "cold", 2) / 3.0, reach(c, "hoag", 2) / 2.0, 1e99)
        ),
        0.80,
    )
    line(
        "final value no more than 1 % above that of lbfgs, >=",
        lambda c: (
            np.nanmin(c["default"].values)
            <= np.nanmin(c["lbfgs"].values) + 0.01 * abs(np.nanmin(c["lbfgs"].values))
        ),
        0.95,
    )
    for number in (1, 2, 3):
        line(
            f"1.1 times SciPy's seconds to {LEVELS[number - 1]}, >=",
            lambda c, n=number: (
                reach(c, "default", n, "seconds")
                <= min(1.1 * reach(c, PEER, n, "seconds"), 1e99)
            ),
            0.90,
        )


def main() -> None:
    """Parse the command line, run, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seeds", type=int, nargs="+", default=[1])
    add("--methods", nargs="+", default=list(METHODS), choices=[*METHODS, PEER])
    add("--problems", nargs="*", help="words of names")
    add("--data", type=pathlib.Path, help="a folder with real sets")
    add("--budget", type=int, default=20_000, help="products of a run")
    add("--steps", type=int, default=100)
    add("--limit", type=float, default=30.0, help="seconds of a run")
    add("--keep", type=pathlib.Path, help="a folder of curves, read and extended")
    add("--again", nargs="*", default=[], help="methods to run although they are kept")
    add("--verbose", action="store_true", help="a line for each problem")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    builders = {**PROBLEMS, **real_problems(args.data)}
    found = collect(args, builders)
    methods = with_peer(args.methods)
    for cost in ("products", "seconds"):
        profile(found, methods, cost)
    summary(found, methods)
    if set(METHODS) <= set(methods):
        targets(found)


if __name__ == "__main__":
    main()
