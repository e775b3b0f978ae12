"""Convex QPs solved, differentiated and checked: Maros-Meszaros and OR-Library portfolios.

    python benchmarks/qp_report.py --data ../shared/data/qp_maros_meszaros \
        [--portfolio ../shared/data/portfolio_orlib] [--only HS21 HS35 ...]

Each QP is min ½ y'Py + q'y + r, l <= Ay <= u: rows with l = u are equalities, rows of one
entry bounds.  The errors are recomputed from P, q, A, l, u alone, seconds are those of the processor:

    primal          max violation    / max(1, ‖Ay‖∞)
    dual            ‖Py + q + A'z‖∞  / max(‖|P||y|‖∞, ‖q‖∞, ‖A'z‖∞)
    gap             |z|'slack        / max(1, |y'Py|, |q'y|)

The adjoint of y by q along a random v is compared with a sparse direct solve of the KKT
matrix of the active set, and a forward derivative with differences of Clarabel's solutions
where no side is nearly degenerate.  A derivative that is refused shows its reason.
"""

from __future__ import annotations

import argparse
import gzip
import pathlib
import time
from typing import NamedTuple

import numpy as np
import scipy.io
from scipy import sparse
from scipy.sparse.linalg import splu

import sparse_argdiff as sad


class Data:
    """One QP as it is in its file, and as a Problem."""

    def __init__(self, path):
        raw = scipy.io.loadmat(path)
        self.name = path.stem
        self.P = sparse.csr_array(raw["P"]).astype(float)
        self.A = sparse.csr_array(raw["A"]).astype(float)
        self.A.eliminate_zeros()
        self.q, l, u = (raw[k].ravel().astype(float) for k in "qlu")
        self.r = float(np.ravel(raw["r"])[0])
        # Some infinite sides of the files are 1e20 minus an offset.
        self.l = np.where(l <= -1e19, -np.inf, l)
        self.u = np.where(u >= 1e19, np.inf, u)
        count = np.diff(self.A.indptr)
        single = count == 1
        self.single = np.flatnonzero(single)
        self.equal = np.flatnonzero((self.l == self.u) & ~single)
        side = ~single & (self.l < self.u)
        self.above = np.flatnonzero(side & np.isfinite(self.u))
        self.below = np.flatnonzero(side & np.isfinite(self.l))

    def problem(self):
        """Return the QuadraticProgram; the parameters are its linear term."""
        n, A = self.P.shape[0], self.A
        lower, upper = np.full(n, -np.inf), np.full(n, np.inf)
        for i in self.single:
            j, a = A.indices[A.indptr[i]], A.data[A.indptr[i]]
            ends = sorted([self.l[i] / a, self.u[i] / a])
            lower[j], upper[j] = max(lower[j], ends[0]), min(upper[j], ends[1])
        given = {}
        if self.equal.size:
            given |= {"A": A[self.equal], "b": self.l[self.equal]}
        if self.above.size + self.below.size:
            given["G"] = sparse.vstack([A[self.above], -A[self.below]], format="csr")
            given["h"] = np.r_[self.u[self.above], -self.l[self.below]]
        return sad.QuadraticProgram(self.P, self.q, lower=lower, upper=upper, **given)

    def duals(self, sol):
        """Return z of all rows: multipliers, and what bounds must carry."""
        z, p, k = np.zeros(self.A.shape[0]), self.equal.size, self.above.size
        nu = np.zeros(0) if sol.multipliers is None else sol.multipliers
        z[self.equal] = nu[:p]
        z[self.above] += nu[p : p + k]
        z[self.below] -= nu[p + k :]
        left = self.P @ sol.y + self.q + self.A.T @ z
        done = set()
        for i in self.single:
            j, a = self.A.indices[self.A.indptr[i]], self.A.data[self.A.indptr[i]]
            at = self.l[i] if -left[j] / a < 0.0 else self.u[i]
            near = abs(a * sol.y[j] - at) <= 1e-6 * max(1.0, abs(at))
            if j not in done and np.isfinite(at) and near:
                z[i] = -left[j] / a
                done.add(j)
        return z

    def residual(self, sol):
        """Return the largest of the three errors."""
        return max(self.errors(sol))

    def errors(self, sol):
        """Return the primal, the dual and the complementary error."""
        y, z = sol.y, self.duals(sol)
        Py, Ay, Az = self.P @ y, self.A @ y, self.A.T @ z

        def most(*vectors):
            return max(np.abs(v).max(initial=0.0) for v in vectors)

        terms = abs(self.P) @ np.abs(y)  # what may cancel in Py
        dual = most(Py + self.q + Az) / (most(terms, self.q, Az) or 1.0)
        off = np.maximum(0.0, np.maximum(self.l - Ay, Ay - self.u))
        primal = most(off) / max(1.0, most(Ay))
        slack = np.where(z > 0.0, self.u - Ay, Ay - self.l)
        gap = float(np.abs(z[z != 0.0]) @ np.abs(slack[z != 0.0]))
        return primal, dual, gap / max(1.0, abs(y @ Py), abs(self.q @ y))

    def clarabel(self, q, tol=1e-11):
        """Return Clarabel's solution for another linear term, or None."""
        import clarabel

        A, eq = self.A, np.flatnonzero(self.l == self.u)
        up = np.flatnonzero((self.l < self.u) & np.isfinite(self.u))
        dn = np.flatnonzero((self.l < self.u) & np.isfinite(self.l))
        rows = sparse.vstack([A[eq], A[up], -A[dn]], format="csc")
        b = np.r_[self.l[eq], self.u[up], -self.l[dn]]
        cones = [
            clarabel.ZeroConeT(eq.size),
            clarabel.NonnegativeConeT(up.size + dn.size),
        ]
        options = clarabel.DefaultSettings()
        options.verbose = False
        options.tol_gap_abs = options.tol_gap_rel = options.tol_feas = tol
        P = sparse.csc_matrix(sparse.triu(self.P))
        found = clarabel.DefaultSolver(
            P, q, sparse.csc_matrix(rows), b, cones, options
        ).solve()
        return found if str(found.status) == "Solved" else None


def direct_adjoint(data, problem, sol, v):
    """Solve K λ = (v, 0) of the active set by SuperLU with refinement; − λ is g'ᵀ v."""
    n = sol.y.size
    free = np.arange(n)
    C = [] if problem.equalities is None else [problem.equalities.jac(data.q, sol.y)]
    if sol.active is not None:
        free = np.flatnonzero(~sol.active.fixed)
        if problem.inequalities is not None:
            strong = np.flatnonzero(sol.active.strong)
            C.append(problem.inequalities.jac(data.q, sol.y)[strong])
    C = (
        sparse.vstack(C, format="csr")[:, free]
        if C
        else sparse.csr_array((0, free.size))
    )
    K = sparse.csc_array(sparse.block_array([[data.P[free][:, free], C.T], [C, None]]))
    rhs = np.r_[v[free], np.zeros(C.shape[0])]
    try:
        lu = splu(K)
    except RuntimeError:
        # Dependent rows leave K singular, and y as it is: refinement removes the shift.
        shift = np.r_[np.zeros(free.size), np.full(C.shape[0], -1e-9)]
        try:
            lu = splu(K + sparse.diags_array(shift, format="csc"))
        except RuntimeError:
            return None, "singular on the null space of C"
    z = lu.solve(rhs)
    for _ in range(10):
        z = z + lu.solve(rhs - K @ z)
    residual = np.linalg.norm(rhs - K @ z) / np.linalg.norm(rhs)
    if not residual <= 1e-8 or not np.abs(z).max() < 1e12:
        return None, f"direct residual {residual:.0e}"
    found = np.zeros(n)
    found[free] = -z[: free.size]
    return found, ""


def margin(data, problem, sol):
    """Return how far the nearest side is from changing: of multipliers and slacks."""
    if sol.active is None:
        return np.inf
    scale, length = np.abs(data.q).max() or 1.0, np.abs(sol.y).max() or 1.0
    found = [np.inf]
    if problem.inequalities is not None:
        g = -problem.inequalities.value(data.q, sol.y)
        nu = sol.multipliers[data.equal.size :]
        found += [*(nu[sol.active.strong] / scale), *(g[~sol.active.strong] / length)]
    if problem.bounded:
        lower, upper = problem.bounds(sol.x, sol.y)
        left = np.abs(data.P @ sol.y + data.q + data.A.T @ (z := data.duals(sol)))
        left = np.abs(
            data.A.T @ np.where(np.isin(np.arange(z.size), data.single), z, 0)
        )
        slack = np.minimum(sol.y - lower, upper - sol.y)
        movable = lower < upper
        found += [*(left[sol.active.fixed & movable] / scale)]
        found += [*(slack[~sol.active.fixed] / length)]
    return min(found)


def report(data, method=None):
    """Return one row of the table."""
    problem = data.problem()
    start = time.process_time()
    sol = sad.solve(problem, data.q, method=method, tol=1e-9, on_failure="ignore")
    row = {
        "name": data.name,
        "n": data.q.size,
        "eq": data.equal.size,
        "ineq": data.above.size + data.below.size,
        "bounds": data.single.size,
        "status": sol.status.name,
        "method": sol.method,
        "steps": sol.niter,
        "s": f"{time.process_time() - start:.3f}",
    }
    for name, error in zip(("primal", "dual", "gap"), data.errors(sol), strict=True):
        row[name] = f"{error:.0e}"
    start = time.process_time()
    peer = data.clarabel(data.q, 1e-8)
    row["Clarabel s"] = f"{time.process_time() - start:.3f}"
    peer = data.clarabel(data.q) or peer
    if peer is not None:
        apart = abs(peer.obj_val - sol.value) / max(1.0, abs(sol.value))
        row["value"] = f"{apart:.0e}"
    rng = np.random.default_rng(0)
    v = rng.standard_normal(data.q.size)
    v /= np.linalg.norm(v)
    weak = sol.active is not None and sol.active.degenerate
    expected, reason = direct_adjoint(data, problem, sol, v)
    try:
        adjoint = sad.vjp(problem, sol, v, rtol=1e-10, maxiter=50_000)
    except sad.ConvergenceError as error:
        row["adjoint"], row["note"] = "refused", error.status.name
    else:
        row["products"] = adjoint.n_hvp
        if expected is None:
            row["adjoint"], row["note"] = "-", "ours given"
        else:
            size = np.linalg.norm(expected) or 1.0
            row["adjoint"] = f"{np.linalg.norm(adjoint.x - expected) / size:.0e}"
    notes = [row.get("note", ""), reason, "weakly active sides" if weak else ""]
    row["note"] = "; ".join(note for note in notes if note)
    room = margin(data, problem, sol)
    if row["adjoint"] not in {"refused", "-"} and not weak and peer is not None:
        noise = np.linalg.norm(np.array(peer.x) - sol.y)
        row["differences"] = differences(data, problem, sol, v, room, noise)
    return row


def differences(data, problem, sol, u, room, noise):
    """Compare J u with central differences of Clarabel's solutions."""
    tangent = sad.jvp(problem, sol, u, rtol=1e-10, maxiter=50_000).y
    scale, length = np.abs(data.q).max() or 1.0, np.abs(sol.y).max() or 1.0
    reach = 0.05 * room * min(scale, length / (np.linalg.norm(tangent) or 1.0))
    h = min(reach, 1e-3 * scale)
    if h < 1e-6 * scale:
        return f"- (margin {room:.0e})"
    ahead, behind = (data.clarabel(data.q + s * h * u, 1e-12) for s in (1, -1))
    if ahead is None or behind is None:
        return "- (peer failed)"
    found = (np.array(ahead.x) - np.array(behind.x)) / (2.0 * h)
    size = np.linalg.norm(tangent)
    if size <= 1e-10 * length / scale:
        return "0 (a vertex)"
    error, doubt = np.linalg.norm(found - tangent) / size, noise / h / size
    return f"{error:.0e}" + (f" (peer's noise {doubt:.0e})" if doubt > 1e-3 else "")


class Frontier(NamedTuple):
    """How a frontier of the file was reproduced, relative errors."""

    n: int
    points: int
    steps: int
    worst: float
    median: float
    slope_error: float  # at the points around which the active set does not change
    smooth: int  # their number
    refused: int


def frontier(folder, number):
    """Reproduce one frontier, 2000 portfolios, and its slope."""
    with gzip.open(folder / f"port{number}.txt.gz", "rt") as file:
        words = file.read().split()
    n = int(words[0])
    mean, deviation = np.array(words[1 : 1 + 2 * n], float).reshape(n, 2).T
    covariance = np.zeros((n, n))
    for i, j, c in np.array(words[1 + 2 * n :], float).reshape(-1, 3):
        a, b = int(i) - 1, int(j) - 1
        covariance[a, b] = covariance[b, a] = c * deviation[a] * deviation[b]
    with gzip.open(folder / f"portef{number}.txt.gz", "rt") as file:
        target, variance = np.array(file.read().split(), float).reshape(-1, 2).T
    A = np.vstack([np.ones(n), mean])
    unit = np.array([0.0, 1.0])
    objective = sad.FunctionObjective(
        value=lambda x, y: float(y @ (covariance @ y)),
        grad=lambda x, y: 2.0 * (covariance @ y),
        hvp=lambda x, y, v: 2.0 * (covariance @ v),
        cross_jvp=lambda x, y, u: 0.0 * y,
        cross_vjp=lambda x, y, w: 0.0 * x,
        n=n,
    )
    objective.hess = lambda x, y: 2.0 * covariance
    objective.scale = lambda x: float(np.abs(covariance).max())
    budget = sad.LinearEquality(
        A,
        lambda x: np.array([1.0, x[0]]),
        b_jvp=lambda x, u: u[0] * unit,
        b_vjp=lambda x, w: w[1:],
    )
    problem = sad.Problem(objective, equality=budget, lower=0.0)
    y, value, slope, steps = None, [], [], 0
    held = []
    for r in target:
        x = np.array([r])
        sol = sad.solve(
            problem, x, y, method="active_set", tol=1e-10, on_failure="ignore"
        )
        y, steps = sol.y, steps + sol.niter
        value.append(sol.value)
        held.append(tuple(np.flatnonzero(sol.active.fixed)))
        try:
            moved = sad.jvp(problem, sol, np.ones(1), rtol=1e-11).y
            slope.append(2.0 * sol.y @ (covariance @ moved))
        except sad.ConvergenceError:
            slope.append(np.nan)  # the end of the frontier: one asset, nothing moves
    value, slope, wide = np.array(value), np.array(slope), 10
    inner = np.array(
        [
            len(set(held[i - wide : i + wide + 1])) == 1
            for i in range(wide, target.size - wide)
        ]
    )
    expected = (variance[2 * wide :] - variance[: -2 * wide]) / (
        target[2 * wide :] - target[: -2 * wide]
    )
    found = slope[wide:-wide]
    error = np.abs(found - expected)[inner] / np.abs(expected[inner]).max()
    worst = np.abs(value - variance) / variance
    return Frontier(
        n=n,
        points=target.size,
        steps=steps,
        worst=float(worst.max()),
        median=float(np.median(worst)),
        slope_error=float(error.max()),
        smooth=int(inner.sum()),
        refused=int(np.isnan(slope).sum()),
    )


COLUMNS = [
    "name",
    "n",
    "eq",
    "ineq",
    "bounds",
    "status",
    "method",
    "steps",
    "s",
    "Clarabel s",
    "primal",
    "dual",
    "gap",
    "value",
    "adjoint",
    "products",
    "differences",
    "note",
]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--portfolio", type=pathlib.Path)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--method")
    options = parser.parse_args()
    if options.data is not None:
        print("| " + " | ".join(COLUMNS) + " |")
        print("|" + "---|" * len(COLUMNS))
        for path in sorted(options.data.glob("*.mat")):
            if options.only and path.stem not in options.only:
                continue
            row = report(Data(path), options.method)
            print(
                "| " + " | ".join(str(row.get(c, "")) for c in COLUMNS) + " |",
                flush=True,
            )
    if options.portfolio is not None:
        for number in (1, 2, 3):
            found = frontier(options.portfolio, number)._asdict()
            print(f"port{number}", *(f"{k}={v:.3g}" for k, v in found.items()))


if __name__ == "__main__":
    main()
