"""Derivatives of solutions that other solvers bring, beside those of solved ones.

    python benchmarks/qp_brought_report.py [--data DIR] [--seed 0] [--count 40]

Programs of qp_generated.py, and with ``--data`` the Maros-Meszaros ones, are solved by the package
and by PIQP, Clarabel and OSQP through qpsolvers (HiGHS comes to no end on some).  Their tuples are brought with and
without multipliers, and the adjoint by q compared with that of the solved one: alike to 1e-5,
refused (told apart where the engine's y is off by more than 1e-3), or other, silently or with
a warning.  The adjoint by q and the right-hand sides of the
solved one is compared with central differences where both ends have the same active set.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import sys
import time
import warnings

import numpy as np
import qpsolvers
from qp_generated import draw
from qp_report import Data
from scipy import sparse

import sparse_argdiff as sad

ENGINES = ("piqp", "clarabel", "osqp")


def programs(options):
    """Return the name, the problem and the data of each program."""
    for i in range(options.count):
        drawn = draw([options.seed, i])
        yield f"drawn-{i}", dict(drawn.data)
    if options.data:
        for path in sorted(pathlib.Path(options.data).glob("*.mat")):
            data = Data(path)
            if data.P.shape[0] > options.largest:
                continue
            p = data.problem().objective.data.constant
            yield (
                data.name,
                {
                    k: getattr(p, k)
                    for k in ("P", "q", "A", "b", "G", "h", "lower", "upper")
                },
            )


def adjoint(problem, solution, v):
    """Return the adjoint or the name of the status, and whether anything was told."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = sad.vjp(problem, solution, v)
        except sad.ConvergenceError as error:
            return error.status.name, False
    return found.x, bool(found.warnings)


def alike(found, expected, v, told):
    if isinstance(found, str):
        return found
    size = np.linalg.norm(expected)
    if np.linalg.norm(found - expected) <= 1e-5 * max(size, 1e-9 * np.linalg.norm(v)):
        return "right"
    return "other, told" if told else "OTHER, SILENT"


def far(y, solved):
    """Tell whether the engine's y is no solution to the accuracy that is asked of one."""
    return np.linalg.norm(y - solved) > 1e-3 * np.linalg.norm(solved)


def brought(data, engine):
    """Return what an engine finds, None without."""
    low, high = (
        np.where(np.abs(data[k]) >= 1e19, s * np.inf, data[k])
        if data[k] is not None
        else None
        for k, s in (("lower", -1), ("upper", 1))
    )
    A, b, G, h = (data[k] for k in ("A", "b", "G", "h"))
    lists = [sparse.csc_matrix(data["P"]), data["q"]]
    none = lambda M: M is None or M.shape[0] == 0
    if not none(G):
        h = np.where(h >= 1e19, np.inf, h)
    asked = qpsolvers.Problem(
        *lists,
        None if none(G) else sparse.csc_matrix(G),
        None if none(G) else h,
        None if none(A) else sparse.csc_matrix(A),
        None if none(A) else b,
        low,
        high,
    )
    options = {
        "osqp": {"eps_abs": 1e-9, "eps_rel": 1e-9, "max_iter": 20000, "time_limit": 1.0}
    }.get(engine, {})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = qpsolvers.solve_problem(asked, solver=engine, **options)
    except (ValueError, RuntimeError, qpsolvers.exceptions.QPError):
        return None
    return found if found.found and np.isfinite(found.x).all() else None


def differences(problem, x, solution, v, rng):
    """Compare v'g'(x) u with central differences; what it cannot judge is told apart."""
    J = adjoint(problem, solution, v)[0]
    if isinstance(J, str):
        return J
    u = rng.standard_normal(x.size) * np.maximum(
        np.abs(x), np.median(np.abs(x[x != 0.0])) if x.any() else 1.0
    )
    u[np.abs(x) >= 1e19] = 0.0
    ends, error = [], 1e-15
    for t in (1e-7, -1e-7):
        end = sad.solve(problem, x + t * u, on_failure="ignore")
        if end.status is not sad.Status.CONVERGED:
            return "no difference"
        a, b = end.active, solution.active
        if a is not None and not (
            np.array_equal(a.strong, b.strong) and np.array_equal(a.fixed, b.fixed)
        ):
            return "another set"
        ends.append(end.y)
        error = max(error, end.relative_error or 0.0)
    wide = v @ (ends[0] - ends[1]) / 2e-7
    size = np.linalg.norm(v) * np.linalg.norm(ends[0] - ends[1]) / 2e-7
    noise = error * np.linalg.norm(v) * np.linalg.norm(solution.y) / 1e-7
    return (
        "right"
        if abs(J @ u - wide) <= 1e-4 * size + 1e2 * noise
        else f"WRONG {J @ u:.6e} {wide:.6e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--largest", type=int, default=20000)
    options = parser.parse_args()
    counts = collections.defaultdict(collections.Counter)
    for name, data in programs(options):
        given = {k: v for k, v in data.items() if v is not None}
        problem = sad.QuadraticProgram(**given)
        x, rng = problem.pack(), np.random.default_rng(0)
        solution = sad.solve(problem, x, on_failure="ignore")
        v = rng.standard_normal(x.size) / np.maximum(
            np.abs(solution.y), 1e-3 * np.abs(solution.y).max() + 1e-300
        )
        expected, told = adjoint(problem, solution, v)
        counts["solved"]["right" if not isinstance(expected, str) else expected] += 1
        sides = tuple(
            k for k in ("q", "b", "h") if given.get(k) is not None and len(given[k])
        )
        moving = sad.QuadraticProgram(**given, parameters=sides)
        X = moving.pack()
        outcome = differences(
            moving, X, sad.solve(moving, X, on_failure="ignore"), v, rng
        )
        counts["by q and sides"][
            outcome.split(" ")[0] if outcome.startswith("WRONG") else outcome
        ] += 1
        line = [outcome] if outcome.startswith("WRONG") else []
        for engine in ENGINES:
            found = brought(data, engine)
            if found is None:
                counts[engine]["engine failed"] += 1
                continue
            rows = np.concatenate(
                [np.ravel(part) for part in (found.y, found.z) if part is not None]
            )
            with_all = (
                {"multipliers": rows} if rows.size and "h_lower" not in given else {}
            )
            if found.z_box is not None and found.z_box.size:
                with_all["bound_multipliers"] = -found.z_box
            if "h_lower" in given and rows.size:
                with_all = {}
            for kind, extra in (("", {}), (" with multipliers", with_all)):
                got, told = adjoint(problem, sad.Solution(y=found.x, x=x, **extra), v)
                if isinstance(expected, str):
                    end = (
                        "refused as solved"
                        if isinstance(got, str)
                        else "answered, solved refused" + (", told" if told else "")
                    )
                else:
                    end = alike(got, expected, v, told)
                    if end == "NOT_STATIONARY" and far(found.x, solution.y):
                        end = "refused: y is off by more than 1e-3"
                counts[engine + kind][end] += 1
                if "SILENT" in end:
                    line.append(engine + kind + " " + end)
        if line:
            print(name, *line, flush=True)
    for kind, ends in counts.items():
        print(kind, dict(ends))


if __name__ == "__main__":
    start = time.process_time()
    main()
    print(f"{time.process_time() - start:.0f} s of the processor", file=sys.stderr)
