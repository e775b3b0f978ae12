"""Time two checkouts of the package against each other, in turn and in the same run.

    python benchmarks/compare_commits.py --before OLD --after NEW [--rounds 21]
        [--data DIR] [--grid 2000] [--only cg-small vjp-small ...]

OLD and NEW are folders that hold ``sparse_argdiff``.  Each is imported in a process of its
own, which builds the problems by public names alone.  In each round both take one
measurement, one after the other and in an order that alternates: CPU seconds of their own
process with one thread, repeated within it until 20 ms.  Printed are quartiles and median
of the ratios after / before of all rounds, the median seconds of each, and the products and
iterations of each; ``!`` marks counts that differ, for which the ratio compares unlike work.
"fastest" is the ratio of the shortest measurements: other programs that fill the memory bus
lengthen CPU seconds, too, and where quartiles lie far apart it is the better witness.
Where memory happens to lie makes two processes of one and the same checkout differ by some
per cent: ``--pairs 5`` starts five pairs of them and pools their rounds.

DIR holds ``text_farm_ads``; without it generated text of its size takes its place.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy import sparse

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE))
from _timing import ONE_THREAD, Interleaved, cpu_seconds, enough_repeats, interleave

COUNTS = ("n_matvec", "niter", "n_hvp")


@dataclasses.dataclass(frozen=True)
class Case:
    """What is timed.

    Attributes
    ----------
    call : callable
        Does the work and returns a record, or a list of records, with its counts.
    size : str
        Of the problem, to be printed.
    steps : int
        Seconds are given for one of so many equal parts of the call.
    """

    call: Callable[[], Any]
    size: str
    steps: int = 1


CASES: dict[str, Callable[[argparse.Namespace], Case]] = {}


def case(build: Callable[[argparse.Namespace], Case]):
    """Enter a builder in the table under its own name."""
    CASES[build.__name__.replace("_", "-")] = build
    return build


def krylov_case(name: str, method: str, side: str, steps: int, **options: Any) -> None:
    """Enter a Krylov method that takes a fixed number of steps on the Laplacian.

    Start and verification count as a share of each step.
    """

    def build(args: argparse.Namespace) -> Case:
        from benchmarks.designs import laplacian

        import sparse_argdiff as sad
        from sparse_argdiff.krylov import Workspace

        A = laplacian(getattr(args, side))
        n = A.shape[0]
        b = np.random.default_rng(args.seed).standard_normal(n)
        given = {"rtol": 0.0, "maxiter": steps, "workspace": Workspace()} | options
        if given.get("M") == "jacobi":
            given["M"] = sad.preconditioners.jacobi(A.diagonal())
        solver = getattr(sad, method)
        return Case(lambda: solver(A, b, **given), f"n = {n:.1e}, a step", steps)

    build.__name__ = name
    case(build)


for method in ("cg", "minres"):
    krylov_case(f"{method}-large", method, "grid", 10)
    krylov_case(f"{method}-small", method, "small_grid", 60)
    krylov_case(
        f"{method}-small-reference", method, "small_grid", 60, kernels="reference"
    )
    krylov_case(f"{method}-small-jacobi", method, "small_grid", 60, M="jacobi")
    krylov_case(f"{method}-small-one-step", method, "small_grid", 1)


def text(args: argparse.Namespace) -> tuple[Any, np.ndarray]:
    """Return features and labels of text_farm_ads, or generated ones of their size."""
    if args.data is None:
        from benchmarks.designs import text_like

        return text_like(4000, 55_000, 200, seed=args.seed)
    folder = args.data / "text_farm_ads"
    features = sparse.load_npz(folder / "X_raw.npz").tocsr()
    return features, np.load(folder / "y_raw.npy")


def text_solution(args: argparse.Namespace):
    """Return a logistic model of all rows with a penalty per feature, and its minimum."""
    import sparse_argdiff as sad
    from sparse_argdiff.linear_model import Glm

    glm = Glm(*text(args))
    problem = sad.Problem(glm)
    x = np.full(glm.m, math.log(1e-4))
    return glm, problem, sad.solve(problem, x, tol=1e-6)


@case
def cg_32_columns(args: argparse.Namespace) -> Case:
    """Solve with 32 right-hand sides and the Hessian of a logistic model."""
    import sparse_argdiff as sad
    from sparse_argdiff.krylov import Workspace

    glm, _, solution = text_solution(args)
    hess = glm.hess(solution.x, solution.y)
    B = np.random.default_rng(args.seed).standard_normal((glm.n, 32))
    M = sad.preconditioners.jacobi(hess.diagonal())
    options = {"M": M, "rtol": 1e-6, "workspace": Workspace()}
    return Case(lambda: sad.cg(hess, B, **options), f"n = {glm.n}, 32 columns")


def derivative_case(columns: int) -> None:
    """Enter products of the derivative with several directions at once."""

    def build(args: argparse.Namespace) -> Case:
        import sparse_argdiff as sad

        glm, problem, solution = text_solution(args)
        rng = np.random.default_rng(args.seed)
        DX = rng.standard_normal((glm.m, columns))
        solves = []

        def recorded(*system: Any, **options: Any):
            solves.append(sad.cg(*system, **options))
            return solves[-1]

        # The products of CG, counted once; what is timed is the default method.
        sad.derivative(problem, solution, rtol=1e-6, method=recorded) @ DX
        counts = counts_of(solves)
        J = sad.derivative(problem, solution, rtol=1e-6)

        def call():
            J @ DX
            return counts

        return Case(call, f"n = {glm.n}, {columns} columns")

    build.__name__ = f"derivative-{columns}-columns"
    case(build)


derivative_case(16)
derivative_case(32)


def small_model(args: argparse.Namespace):
    """Return problem, held-out loss and x of a dense logistic model with n = 50."""
    import sparse_argdiff as sad
    from sparse_argdiff.linear_model import Glm

    rng = np.random.default_rng(args.seed)
    features = rng.standard_normal((400, 50))
    margin = features @ rng.standard_normal(50) / 3.0
    labels = (margin + rng.standard_normal(400) > 0.0).astype(float)
    glm = Glm(features[:200], labels[:200], intercept=False)
    upper = glm.held_out(features[200:], labels[200:])
    return sad.Problem(glm), upper, np.full(glm.m, math.log(1e-2))


def text_model(args: argparse.Namespace):
    """Return problem, held-out loss and x of a logistic model of half of the text."""
    import sparse_argdiff as sad
    from sparse_argdiff.linear_model import Glm

    features, labels = text(args)
    half = features.shape[0] // 2
    glm = Glm(features[:half], labels[:half], intercept=False)
    upper = glm.held_out(features[half:], labels[half:])
    return sad.Problem(glm), upper, np.full(glm.m, math.log(1e-4))


def hypergradient_cases(size: str, model: Callable[[argparse.Namespace], Any]) -> None:
    """Enter the first evaluation of F, and a later one at an x near the one before."""

    def cold(args: argparse.Namespace) -> Case:
        import sparse_argdiff as sad

        problem, upper, x = model(args)

        def call():
            return sad.Hypergradient(problem, upper).evaluate(x)

        return Case(call, f"n = {problem.objective.n}, evaluate")

    def warm(args: argparse.Namespace) -> Case:
        import sparse_argdiff as sad

        problem, upper, x = model(args)
        move = 0.01 * np.random.default_rng(args.seed).standard_normal(x.shape[0])
        F = sad.Hypergradient(problem, upper)
        F(x)
        start = F.state

        def call():
            F.state = start
            F(x + move)
            return {"n_hvp": F.n_hvp - start.n_hvp}

        return Case(call, f"n = {problem.objective.n}, F(x)")

    for kind in (cold, warm):
        kind.__name__ = f"hypergradient-{kind.__name__}-{size}"
        case(kind)


hypergradient_cases("small", small_model)
hypergradient_cases("text", text_model)


def vjp_case(size: str, model: Callable[[argparse.Namespace], Any]) -> None:
    """Enter one adjoint at a known minimum."""

    def build(args: argparse.Namespace) -> Case:
        import sparse_argdiff as sad

        problem, upper, x = model(args)
        solution = sad.solve(problem, x)
        v = upper.grad_y(x, solution.y)
        return Case(
            lambda: sad.vjp(problem, solution, v), f"n = {problem.objective.n}, vjp"
        )

    build.__name__ = f"vjp-{size}"
    case(build)


vjp_case("small", small_model)
vjp_case("text", text_model)


@case
def solve_small(args: argparse.Namespace) -> Case:
    """Find the minimum from zero."""
    import sparse_argdiff as sad

    problem, _, x = small_model(args)
    return Case(lambda: sad.solve(problem, x), "n = 50, solve")


class Quartic:
    """The convex objective  ½ y'Py − x'y + ¼ q Σ y⁴,  with dense derivatives."""

    def __init__(self, P: np.ndarray, q: float) -> None:
        self.P, self.q, self.n = P, q, len(P)

    def value(self, x, y):
        quartic = 0.25 * self.q * float(np.sum(y**4))
        return 0.5 * float(y @ self.P @ y) - float(x @ y) + quartic

    def grad(self, x, y):
        return self.P @ y - x + self.q * y**3

    def hess(self, x, y):
        return self.P + 3.0 * self.q * np.diag(y**2)

    def cross(self, x, y):
        return -np.eye(self.n)


def constrained_case(name: str, method: str, q: float, rows: str) -> None:
    """Enter a solve with constraints and one adjoint at its solution."""

    def build(args: argparse.Namespace) -> Case:
        import sparse_argdiff as sad

        rng = np.random.default_rng(args.seed)
        root = rng.standard_normal((50, 50))
        objective = Quartic(root @ root.T / 50.0 + 0.1 * np.eye(50), q)
        C = rng.standard_normal((10, 50))
        given: dict[str, Any] = {"equality": sad.LinearEquality(C, np.ones(10))}
        if rows == "inequality":
            h = np.full(10, 0.5)
            inequality = sad.Inequality(lambda x, y: C @ y - h, lambda x, y: C)
            given = {"inequality": inequality, "lower": -0.5, "upper": 0.5}
        problem = sad.Problem(objective, **given)
        x, v = rng.standard_normal((2, 50))

        def call():
            solution = sad.solve(problem, x, method=method)
            return [solution, sad.vjp(problem, solution, v)]

        return Case(call, "n = 50, 10 rows, solve + vjp")

    build.__name__ = name
    case(build)


constrained_case("newton-kkt", "newton_kkt", 1.0, "equality")
constrained_case("active-set", "active_set", 0.0, "inequality")
constrained_case("barrier", "barrier", 1.0, "inequality")


def counts_of(found: Any) -> dict[str, int]:
    """Return the products and iterations in a record, or the sums over several."""
    if isinstance(found, dict):
        return found
    totals: dict[str, int] = {}
    for record in found if isinstance(found, list) else [found]:
        for name in COUNTS:
            count = getattr(record, name, None)
            if count is not None:
                totals[name] = totals.get(name, 0) + int(np.sum(count))
    return totals


def work(args: argparse.Namespace) -> None:
    """Answer requests, one JSON document a line, until there are no more.

    What the package prints goes to the error stream: the output carries answers alone.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import sparse_argdiff as sad

    def answer(**what: Any) -> None:
        print(json.dumps(what), file=answers, flush=True)

    answer(package=str(pathlib.Path(sad.__file__).resolve()))
    current: Case | None = None
    for line in sys.stdin:
        request = json.loads(line)
        if "build" in request:
            current = None  # the memory of the last case is free before the next
            try:
                current = CASES[request["build"]](args)
                counts = counts_of(current.call())  # compiles, fills caches
                repeats = enough_repeats(current.call)
            except Exception as error:  # noqa: BLE001  # of a package of any age
                answer(refused=f"{type(error).__name__}: {error}")
                continue
            answer(counts=counts, repeats=repeats, size=current.size)
        else:
            seconds = cpu_seconds(current.call, request["repeats"])
            answer(seconds=seconds / current.steps)


class Worker:
    """A process that has imported one checkout and measures when it is asked."""

    def __init__(self, tree: pathlib.Path, options: list[str]) -> None:
        self.tree = tree.resolve()
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker", *options],
            env=os.environ | ONE_THREAD | {"PYTHONPATH": str(self.tree)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        imported = pathlib.Path(self._answer()["package"])
        if imported != self.tree / "sparse_argdiff" / "__init__.py":
            raise SystemExit(f"{self.tree} was asked for, but {imported} was imported")

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise SystemExit(f"the process of {self.tree} ended with status {code}")
        return json.loads(line)

    def ask(self, **request: Any) -> dict[str, Any]:
        """Return the answer to a request."""
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()


@contextlib.contextmanager
def workers(args: argparse.Namespace) -> Iterator[tuple[Worker, Worker]]:
    """Start a process for each checkout, one after the other; end them afterwards."""
    options = [f"--{name.replace('_', '-')}={getattr(args, name)}" for name in SHARED]
    options += [f"--data={args.data.resolve()}"] if args.data else []
    started: list[Worker] = []
    try:
        started.append(Worker(args.before, options))
        started.append(Worker(args.after, options))
        yield started[0], started[1]
    finally:
        for worker in started:
            worker.close()


SHARED = ("grid", "small_grid", "seed")


def revision(tree: pathlib.Path) -> str:
    """Return the commit of a checkout, and whether files differ from it."""
    command = ["git", "-C", str(tree), "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "no git checkout"


def show_counts(before: dict[str, int], after: dict[str, int]) -> str:
    """Return the counts of both, marked where they differ."""
    texts = []
    for name in dict.fromkeys([*before, *after]):
        pair = before.get(name, "-"), after.get(name, "-")
        mark = " " if pair[0] == pair[1] else "!"
        texts.append(f"{name} {pair[0]} | {pair[1]}{mark}")
    return "  ".join(texts)


def compare(
    name: str, both: tuple[Worker, Worker], rounds: int, earlier: Interleaved
) -> Interleaved:
    """Measure one case in both processes; print its row with what is known from before."""
    built = [worker.ask(build=name) for worker in both]
    refused = False
    for which, found in zip(("before", "after"), built, strict=True):
        if "refused" in found:
            print(f"{name:27s} {which} cannot: {found['refused']}", flush=True)
            refused = True
    if refused:
        return earlier
    repeats = max(found["repeats"] for found in built)
    measures = [
        lambda worker=worker: worker.ask(repeats=repeats)["seconds"] for worker in both
    ]
    found = earlier + interleave(*measures, rounds)
    low, middle, high = found.ratios
    first, second = found.medians
    counts = show_counts(*(each["counts"] for each in built))
    print(
        f"{name:27s} {built[0]['size']:29s} {middle:6.3f}  [{low:.3f}, {high:.3f}] "
        f"{found.of_fastest:8.3f} "
        f"{first:10.3e} {second:10.3e}  {counts}",
        flush=True,
    )
    return found


def main() -> None:
    """Compare the checkouts, or measure for the process that does."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--before", type=pathlib.Path, help="folder that holds sparse_argdiff")
    add("--after", type=pathlib.Path, help="another one")
    add("--rounds", type=int, default=21)
    add("--pairs", type=int, default=1, help="of processes, started anew")
    add("--data", type=pathlib.Path, help="folder that holds text_farm_ads")
    add("--only", nargs="+", choices=list(CASES), metavar="NAME", help=", ".join(CASES))
    add("--grid", type=int, default=2000, help="side of the large Laplacian")
    add("--small-grid", type=int, default=45, help="side of the small one")
    add("--seed", type=int, default=0)
    add("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args)
        return
    if args.before is None or args.after is None:
        parser.error("--before and --after are needed")
    if args.rounds < 1 or args.pairs < 1:
        parser.error("--rounds and --pairs must be at least 1")
    for which in ("before", "after"):
        tree = getattr(args, which)
        print(f"{which:6s}  {tree}  {revision(tree)}")
    print(f"{args.rounds} rounds, CPU seconds with one thread")
    found: dict[str, Interleaved] = {}
    for pair in range(1, args.pairs + 1):
        known = "" if pair == 1 else f", all {pair} pairs of processes so far"
        print(
            f"\n{'':57s} {'ratio':>6s}  {'quartiles':14s} {'fastest':>8s} {'before s':>10s} "
            f"{'after s':>10s}  counts before | after{known}"
        )
        with workers(args) as both:
            for name in args.only or CASES:
                earlier = found.get(name, Interleaved())
                found[name] = compare(name, both, args.rounds, earlier)


if __name__ == "__main__":
    main()
