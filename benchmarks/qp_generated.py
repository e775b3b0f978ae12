"""Random convex QPs with the traits of those that interior-point methods fail on.

    python benchmarks/qp_generated.py [--seed 0] [--count 200] [--method active_set]

Each has a known solution: y, multipliers with signs and sides are drawn, then q, b, h such that
the conditions hold.  Traits are drawn independently:

    units        y of size 1e-2 … 1e5, each coordinate within a factor of 100 of that
    flat         few curvatures, none at all (a linear program) or all
    vertex       as many active sides as variables, or more (degenerate)
    weak         some active sides without a force
    dependent    equality rows that others span, and inequality rows twice
    free         directions along which nothing changes: the solutions are a set
    endless      sides of 1e19, 1e20 and infinity
    far          multipliers of size 1 … 1e4, rows in units of their own

A solve is right where primal, dual and gap errors are ≤ 1e-7, relative, and the objective is the
known one to 1e-7; a derivative where it is that of dense algebra on the active set that was
drawn, or is refused where that is singular.
"""

from __future__ import annotations

import argparse
import collections
import time
import warnings
from typing import NamedTuple

import numpy as np
from scipy import sparse

import sparse_argdiff as sad


class Drawn(NamedTuple):
    """A program, its solution and the traits that it has."""

    data: dict
    y: np.ndarray
    traits: tuple[str, ...]

    def problem(self):
        return sad.QuadraticProgram(**self.data)

    def value(self, y):
        return float(0.5 * y @ (self.data["P"] @ y) + self.data["q"] @ y)


def matrix(rng, rows, columns, density):
    """Return a sparse matrix without empty rows."""
    found = sparse.random_array(
        (rows, columns), density=density, rng=rng, data_sampler=rng.standard_normal
    ).tolil()
    for i in range(rows):
        found[i, rng.integers(columns)] = rng.standard_normal()
    return found.tocsr()


def draw(seed):
    """Return one program."""
    rng = np.random.default_rng(seed)
    n = int(rng.choice([5, 20, 60, 150]))
    p, k = int(rng.integers(0, n // 2 + 1)), int(rng.integers(0, n + 1))
    names = ("flat", "linear", "vertex", "weak", "dependent", "free", "endless", "far")
    traits = {name for name in names if rng.random() < 0.35}
    density = min(1.0, float(rng.choice([0.05, 0.2, 0.6])) + 2.0 / n)
    A, G = matrix(rng, p, n, density), matrix(rng, k, n, density)
    if "dependent" in traits and p > 1:
        A = sparse.vstack([A, A[:1] + 2.0 * A[1:2], A[:1]], format="csr")
    if "dependent" in traits and k > 1:
        G = sparse.vstack([G, G[:2]], format="csr")
    y = rng.standard_normal(n)
    lower, upper, low, high = bounds(rng, y, traits)
    acting = rng.random(G.shape[0]) < (0.8 if "vertex" in traits else 0.3)
    size = 10.0 ** rng.uniform(0.0, 4.0) if "far" in traits else 1.0
    nu = size * rng.standard_normal(A.shape[0])
    z = np.where(acting, size * rng.exponential(1.0, G.shape[0]), 0.0)
    s = size * rng.exponential(1.0, n) * (low.astype(float) - high)
    if "weak" in traits:
        z[rng.random(z.size) < 0.3] = 0.0
        s[rng.random(n) < 0.3] = 0.0
    P = curvature(rng, n, traits)
    if "free" in traits:  # two columns alike, without bounds: y_0 + y_1 alone counts
        mix = np.arange(n)
        mix[1] = 0
        S = sparse.csr_array((np.ones(n), (np.arange(n), mix)), shape=(n, n))
        S = sparse.csr_array(S @ S.T)
        P, A, G = S @ P @ S, A @ S, G @ S
        lower[:2], upper[:2], s[:2] = -np.inf, np.inf, 0.0
    h = G @ y + np.where(acting, 0.0, rng.exponential(1.0, G.shape[0]) + 0.01)
    q = -(P @ y) - A.T @ nu - G.T @ z + s
    data = {"P": P, "q": q, "A": A, "b": A @ y, "G": G, "h": h}
    data |= {"lower": lower, "upper": upper}
    if "endless" in traits and G.shape[0]:
        data |= endless(rng, data, density)
    return in_units(rng, data, y, traits)


def bounds(rng, y, traits):
    """Return bounds of which some hold y, and where the lower and the upper ones do."""
    kind = rng.random(y.size)
    share = 0.7 if "vertex" in traits else 0.3
    low, high = kind < share / 2, (kind >= share / 2) & (kind < share)
    idle = (kind >= share) & (kind < 0.9)
    lower, upper = np.full(y.size, -np.inf), np.full(y.size, np.inf)
    lower[low], upper[high] = y[low], y[high]
    lower[idle] = y[idle] - rng.exponential(1.0, idle.sum()) - 0.01
    return lower, upper, low, high


def curvature(rng, n, traits):
    """Return P."""
    if "linear" in traits:
        return sparse.csr_array((n, n))
    R = matrix(rng, n // 10 + 1 if "flat" in traits else n, n, min(1.0, 3.0 / n))
    P = sparse.csr_array(R.T @ R)
    if "flat" in traits:
        return P
    return P + sparse.diags_array(rng.exponential(1.0, n))


def endless(rng, data, density):
    """Return the data that change with rows and bounds that have no side."""
    n = data["q"].size
    h = np.concatenate([data["h"], rng.choice([1e19, 1e20 - 7.0, np.inf], 3)])
    return {
        "G": sparse.vstack([data["G"], matrix(rng, 3, n, density)], format="csr"),
        "h": h,
        "h_lower": np.full(h.size, -1e20),
        "upper": np.where(np.isinf(data["upper"]), 1e20, data["upper"]),
    }


def in_units(rng, data, y, traits):
    """Return the program in other units of y, of f and of the rows."""
    D = 10.0 ** (rng.uniform(-2.0, 5.0) + rng.uniform(-1.0, 1.0, y.size))
    unit = 10.0 ** rng.uniform(-4.0, 4.0)
    rows = [10.0 ** rng.uniform(-2.0, 2.0, data[m].shape[0]) for m in ("A", "G")]
    inverse = sparse.diags_array(1.0 / D)

    def side(values, scale):
        return np.where(np.abs(values) >= 1e19, values, scale * values)

    changed = {
        "P": sparse.csr_array(unit * (inverse @ data["P"] @ inverse)),
        "q": unit * data["q"] / D,
        "A": sparse.csr_array(sparse.diags_array(rows[0]) @ data["A"] @ inverse),
        "b": rows[0] * data["b"],
        "G": sparse.csr_array(sparse.diags_array(rows[1]) @ data["G"] @ inverse),
        "h": side(data["h"], rows[1]),
        "lower": side(data["lower"], D),
        "upper": side(data["upper"], D),
    }
    return Drawn(data | changed, D * y, tuple(sorted(traits)))


def errors(data, solution):
    """Return the primal, dual and gap errors of a solution, relative, by its rows."""
    y, p, k = solution.y, data["A"].shape[0], data["G"].shape[0]
    multipliers = (
        np.zeros(p + k) if solution.multipliers is None else solution.multipliers
    )
    nu, z = multipliers[:p], multipliers[p : p + k]
    z = z - (multipliers[p + k :] if "h_lower" in data else 0.0)
    s = solution.bound_multipliers
    left = data["P"] @ y + data["q"] + data["A"].T @ nu + data["G"].T @ z
    if s is None:
        s = np.where(solution.active.fixed, left, 0.0)
    force = abs(data["P"]) @ abs(y) + abs(data["q"]) + abs(data["A"]).T @ abs(nu)
    force = force + abs(data["G"]).T @ abs(z)
    h = np.where(np.abs(data["h"]) >= 1e19, np.inf, data["h"])
    upper = np.where(data["upper"] >= 1e19, np.inf, data["upper"])
    off = [0.0]
    for values, terms in (
        (abs(data["A"] @ y - data["b"]), abs(data["A"]) @ abs(y) + abs(data["b"])),
        (np.maximum(data["G"] @ y - h, 0.0), abs(data["G"]) @ abs(y)),
        (np.maximum(data["lower"] - y, 0.0), abs(y)),
        (np.maximum(y - upper, 0.0), abs(y)),
    ):
        off.append(
            np.max(values / (terms + 1e-300), initial=0.0) if values.size else 0.0
        )
    dual = np.max(abs(left - s) / (force + 1e-3 * force.max() + 1e-300))
    slack = np.minimum(y - data["lower"], upper - y)
    held = s != 0.0
    gap = abs(s[held]) @ abs(slack[held]) + abs(z[z != 0.0]) @ abs(
        (h - data["G"] @ y)[z != 0.0]
    )
    size = abs(y @ (data["P"] @ y)) + abs(data["q"]) @ abs(y)
    return max(off), dual, gap / size if size else gap


def judged(drawn, method):
    """Return how a solve and its adjoint ended, and the seconds."""
    problem = drawn.problem()
    start = time.process_time()
    try:
        solution = sad.solve(problem, problem.pack(), method=method)
    except sad.ConvergenceError as error:
        return f"refused {error.status.name}", "", time.process_time() - start
    seconds = time.process_time() - start
    wrong = max(errors(drawn.data, solution))
    expected = drawn.value(drawn.y)
    scale = abs(drawn.data["q"]) @ abs(drawn.y) + abs(expected)
    apart = abs(solution.value - expected) / scale if scale else abs(solution.value)
    end = "right" if max(wrong, apart) <= 1e-7 else f"WRONG {wrong:.0e} {apart:.0e}"
    return end, adjoint(drawn, problem, solution), seconds


def adjoint(drawn, problem, solution):
    """Return how the adjoint by q compares with dense algebra on the solution's set."""
    D = np.maximum(abs(drawn.y), 1e-300)
    n, rng = D.size, np.random.default_rng(0)
    v = rng.standard_normal(n) / D
    free = np.flatnonzero(~solution.active.fixed) if solution.active else np.arange(n)
    rows = [drawn.data["A"].toarray()]
    if problem.inequalities is not None:
        G = problem.inequalities.jac(solution.x, solution.y).toarray()
        rows.append(G[solution.active.strong])
    C = np.concatenate(rows)[:, free] * D[free]
    lengths = np.linalg.norm(C, axis=1)
    C = C / np.where(lengths > 0.0, lengths, 1.0)[:, None]
    P = drawn.data["P"].toarray()[np.ix_(free, free)] * np.outer(D[free], D[free])
    _, sizes, Vt = np.linalg.svd(C)
    rank = int(np.sum(sizes > 1e-10 * (sizes.max(initial=0.0) or 1.0)))
    Z = Vt[rank:].T
    H = Z.T @ P @ Z
    w = np.linalg.eigvalsh(H) if H.size else np.ones(1)
    # Units of y spread the curvatures: only what rounding leaves of them is none.
    unit = D.size * np.finfo(float).eps
    singular = w.min() <= unit * max(abs(P).max(initial=0.0), 1e-300)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = sad.vjp(problem, solution, v).x
    except sad.ConvergenceError as error:
        return f"refused {error.status.name}" + ("" if singular else " WRONGLY")
    if singular:
        return "answered, singular"
    expected = np.zeros(n)
    if H.size:
        expected[free] = -D[free] * (Z @ np.linalg.solve(H, Z.T @ (D * v)[free]))
    size = np.linalg.norm(expected / D)
    off = np.linalg.norm((found - expected) / D)
    if off <= 1e-6 * size:
        return "right"
    # A derivative that is 0 is one up to rounding of what it is a sum of.
    tiny = 1e-12 * np.linalg.norm(v * D) / max(abs(P).max(initial=0.0), 1e-300)
    return "right" if size == 0.0 and off <= tiny else f"WRONG {off:.0e} of {size:.0e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--method")
    options = parser.parse_args()
    solves, adjoints, spent = collections.Counter(), collections.Counter(), 0.0
    for i in range(options.count):
        drawn = draw([options.seed, i])
        solve, derivative, seconds = judged(drawn, options.method)
        spent += seconds
        solves[solve.split(" ", 1)[0] if solve.startswith("WRONG") else solve] += 1
        adjoints[
            " ".join(derivative.split()[: 1 if derivative.startswith("WRONG") else 3])
        ] += 1
        if solve != "right" or "WRONG" in derivative:
            n = drawn.y.size
            print(i, f"n={n}", *drawn.traits, "|", solve, "|", derivative, flush=True)
    print("solves", dict(solves))
    print("adjoints", dict(adjoints))
    print(f"{spent:.1f} s of the processor")


if __name__ == "__main__":
    main()
