"""The interior-point method with and without its safeguards, on four sets of problems.

    python benchmarks/interior_point_report.py [--set convex products nonconvex qp] \
        [--without gondzio] [--seeds 8] [--data ../shared/data/qp_maros_meszaros]

convex      16 families of random convex problems, most with curved inequality constraints
products    the same with Hessians and Jacobians known by products
nonconvex   quartic and concave functions on balls, boxes, and boxes with an equality row
qp          the Maros-Meszaros problems of --data

Each is solved by "active_set" and "barrier"; counts are deterministic.  ``solved`` has an
acceptable status; ``wrong`` has one although the optimality conditions, evaluated here, are
off by more than 10⁴ times the tolerance, or 10⁶ for "barrier", which ends within a gap.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

import sparse_argdiff as sad
from sparse_argdiff.krylov import ldl_factor
from sparse_argdiff.solvers.interior_point import (
    newton_system,
    predictor_corrector,
    primal_dual,
)


@dataclasses.dataclass(frozen=True)
class Smooth:
    """A function of y with its gradient and Hessian."""

    value: Callable[[Any], float]
    grad: Callable[[Any], Any]
    hess: Callable[[Any], Any]

    def minus(self, c):
        return dataclasses.replace(self, value=lambda y: self.value(y) - c)


class Tilted:
    """f(y) + x'y."""

    def __init__(self, f, n, wrap):
        self.f, self.n, self.wrap = f, n, wrap

    def value(self, x, y):
        return float(self.f.value(y) + x @ y)

    def grad(self, x, y):
        return self.f.grad(y) + x

    def hess(self, x, y):
        return self.wrap(self.f.hess(y))

    def cross(self, x, y):
        return np.eye(self.n)


def quadratic(P, c=0.0, unit=0.5):
    """½ (y − c)'P(y − c)."""
    return Smooth(
        lambda y: unit * (y - c) @ P @ (y - c),
        lambda y: 2.0 * unit * P @ (y - c),
        lambda y: 2.0 * unit * P,
    )


def separable(A, b, value, slope, curvature):
    """Σ φ(a_i'y − b_i)."""
    return Smooth(
        lambda y: value(A @ y - b).sum(),
        lambda y: A.T @ slope(A @ y - b),
        lambda y: (A.T * curvature(A @ y - b)) @ A,
    )


def log_sum_exp(A):
    def weights(y):
        e = np.exp(A @ y - (A @ y).max())
        return e / e.sum()

    def hess(y):
        mean = A.T @ weights(y)
        return (A.T * weights(y)) @ A - np.outer(mean, mean)

    return Smooth(
        lambda y: float(np.logaddexp.reduce(A @ y)), lambda y: A.T @ weights(y), hess
    )


def ellipsoid(rng, n, condition):
    """A function that is <= 0 in an ellipsoid around about 0, which is inside."""
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    E = (Q * np.geomspace(1.0, condition, n)) @ Q.T if n > 1 else np.eye(1)
    c = 0.2 * rng.standard_normal(n) / math.sqrt(n)
    return quadratic(E, c).minus(0.5 * (1.0 + rng.random()) * (1.0 + c @ E @ c))


def exponentials(A):
    return separable(A, 0.0, np.exp, np.exp, np.exp)


def power(A, b, k):
    return separable(
        A,
        b,
        lambda t: t**k,
        lambda t: k * t ** (k - 1),
        lambda t: k * (k - 1) * t ** (k - 2),
    )


def logistic(rng, A):
    """Of separable classes: the gradient fades far from 0, where the minimum is."""
    M = A * np.sign(A @ rng.standard_normal(A.shape[1]))[:, None] / len(A)
    k = float(len(A))

    def sigmoid(t):
        return 1.0 / (1.0 + np.exp(np.minimum(k * t, 700.0)))

    return separable(
        M,
        0.0,
        lambda t: np.logaddexp(0.0, -k * t) / k,
        lambda t: -sigmoid(t),
        lambda t: k * sigmoid(t) * (1.0 - sigmoid(t)),
    )


def entropy(n):
    def value(y):
        total = float(np.sum(y * np.log(y)))
        return total if math.isfinite(total) else math.inf

    def guarded(y):
        return np.maximum(y, 1e-300)

    return Smooth(
        value, lambda y: np.log(guarded(y)) + 1.0, lambda y: np.diag(1.0 / guarded(y))
    )


def objective(name, rng, n):
    """Return f and the size of its linear term."""
    A, b = rng.standard_normal((3 * n, n)), rng.standard_normal(3 * n)
    root = rng.standard_normal((n, n))
    return {
        "linear": lambda: (quadratic(np.zeros((n, n))), 1.0),
        "quadratic": lambda: (quadratic(root @ root.T / n + 0.05 * np.eye(n)), 5.0),
        "log-sum-exp": lambda: (log_sum_exp(A[:5] if n > 1 else A), 0.5),
        "logistic": lambda: (logistic(rng, A), 0.0),
        "pseudo-Huber": lambda: (
            separable(
                A,
                b,
                lambda t: np.sqrt(1.0 + t**2),
                lambda t: t / np.sqrt(1.0 + t**2),
                lambda t: (1.0 + t**2) ** -1.5,
            ),
            0.5,
        ),
        "log cosh": lambda: (
            separable(
                np.eye(n),
                8.0 * b[:n],
                lambda t: np.logaddexp(t, -t) + 1e-3 * t**2,
                lambda t: np.tanh(t) + 2e-3 * t,
                lambda t: 1.0 - np.tanh(t) ** 2 + 2e-3,
            ),
            0.1,
        ),
        "fourth power": lambda: (power(A, b, 4), 1.0),
        "entropy": lambda: (entropy(n), 1.0),
    }[name]()


def rows(name, rng, n):
    """Return functions that must be <= 0, and bounds or equality rows."""
    ball = quadratic(np.eye(n))
    simplex = {"equality": sad.LinearEquality(np.ones((1, n)), np.ones(1))}
    one_row = {
        "equality": sad.LinearEquality(rng.standard_normal((1, n)), 0.1 * np.ones(1))
    }
    return {
        "ellipsoids": lambda: ([ellipsoid(rng, n, 10.0) for _ in range(3)], {}),
        "narrow": lambda: ([ellipsoid(rng, n, 1e4) for _ in range(2)], {}),
        "ball": lambda: ([ball.minus(0.5)], {}),
        "large ball": lambda: ([ball.minus(200.0)], {}),
        "large box": lambda: ([], {"lower": -10.0, "upper": 20.0}),
        "fourth power": lambda: ([power(np.eye(n), 0.0, 4).minus(1.0)], {}),
        "exponentials": lambda: (
            [exponentials(rng.standard_normal((4, n))).minus(20.0) for _ in range(2)]
            + [ellipsoid(rng, n, 2.0).minus(10.0)],
            {},
        ),
        "mixed": lambda: (
            [log_sum_exp(rng.standard_normal((8, n))).minus(3.0)],
            {"lower": -1.0, "upper": 1.5} | (one_row if n > 1 else {}),
        ),
        "simplex and ball": lambda: (
            [ball.minus(0.3)],
            {"lower": 0.0} | (simplex if n > 1 else {}),
        ),
    }[name]()


CONVEX = [
    ("linear", "ellipsoids"),
    ("linear", "narrow"),
    ("linear", "exponentials"),
    ("quadratic", "ellipsoids"),
    ("quadratic", "fourth power"),
    ("quadratic", "exponentials"),
    ("quadratic", "mixed"),
    ("log-sum-exp", "ball"),
    ("log-sum-exp", "ellipsoids"),
    ("logistic", "large ball"),
    ("logistic", "large box"),
    ("logistic", "mixed"),
    ("pseudo-Huber", "exponentials"),
    ("log cosh", "ball"),
    ("fourth power", "exponentials"),
    ("entropy", "simplex and ball"),
]


def inequality(functions, wrap):
    if not functions:
        return {}
    return {
        "inequality": sad.Inequality(
            lambda x, y: np.array([g.value(y) for g in functions]),
            lambda x, y: wrap(np.array([g.grad(y) for g in functions])),
            hess=lambda x, y, nu: wrap(
                sum(m * g.hess(y) for m, g in zip(nu, functions, strict=True))
            ),
        )
    }


def convex(family, seed, wrap):
    """Return a problem of 1 to 30 variables, x and a start, near, far or at 0."""
    rng, n = np.random.default_rng([seed, CONVEX.index(family)]), [1, 2, 3, 5, 10, 30]
    n = n[seed % 6]
    f, size = objective(family[0], rng, n)
    functions, others = rows(family[1], rng, n)
    problem = sad.Problem(Tilted(f, n, wrap), **others, **inequality(functions, wrap))
    y0 = [0.0, 0.1, 3.0, 0.1][seed // 6 % 4] * rng.standard_normal(n)
    y0 = np.abs(y0) + 0.01 if family[0] == "entropy" else y0
    return problem, size * rng.standard_normal(n), y0


def nonconvex(family, seed, wrap):
    """Return ½ y'Sy + c/4 Σ y⁴ + x'y with an indefinite or negative S where y is bounded."""
    kind, room = family
    rng, n = np.random.default_rng(seed), [1, 2, 3, 5, 8, 20][seed % 6]
    S = rng.standard_normal((n, n))
    S = -(S @ S.T) / n - 0.1 * np.eye(n) if kind == "concave" else 0.5 * (S + S.T)
    f, quartic = quadratic(S), power(np.eye(n), 0.0, 4)
    c = 0.0 if kind == "concave" else 0.025
    total = Smooth(
        lambda y: f.value(y) + c * quartic.value(y),
        lambda y: f.grad(y) + c * quartic.grad(y),
        lambda y: f.hess(y) + c * quartic.hess(y),
    )
    others = {"lower": -1.0, "upper": 1.5}
    if room == "ball":
        others = inequality([quadratic(np.eye(n)).minus(0.245 * n)], wrap)
    if room == "box and a row":
        A = rng.standard_normal((1, n))
        right = 0.1 * np.linalg.norm(A) * np.ones(1)
        others["equality"] = sad.LinearEquality(A, right)
    y0 = 0.3 * rng.standard_normal(n) if seed % 2 else np.zeros(n)
    return sad.Problem(Tilted(total, n, wrap), **others), rng.standard_normal(n), y0


def off(problem, x, sol):
    """Return by how much the optimality conditions are off, relative."""
    y, multipliers = sol.y, sol.multipliers
    grad, lower, upper = problem.grad(x, y), *problem.bounds(x, y)
    total, length = grad.copy(), np.abs(y).max() or 1.0
    violation = max((lower - y).max(), (y - upper).max(), 0.0)
    for stack in (problem.equalities, problem.inequalities):
        if stack is None:
            continue
        h, jac = stack.value(x, y), stack.jac(x, y)
        total += jac.T @ multipliers[: h.shape[0]]
        multipliers = multipliers[h.shape[0] :]
        sizes = np.linalg.norm(np.vstack([jac.T @ e for e in np.eye(len(h))]), axis=1)
        h = np.abs(h) if stack is problem.equalities else np.maximum(h, 0.0)
        violation = max(violation, (h / np.maximum(sizes, 1e-300)).max())
    near = 1e-6 * length
    held = ((y - lower <= near) & (total > 0)) | ((upper - y <= near) & (total < 0))
    force = max(map(np.linalg.norm, (grad, problem.grad(x, 0.0 * y + 1e-3)))) or 1.0
    return max(np.linalg.norm(total[~held]) / force, violation / length)


def draws(name, seeds, data):
    """Yield family, problem, x, y0 and the tolerance."""
    if name == "qp":
        import qp_report

        for path in sorted(data.glob("*.mat")):
            qp = qp_report.Data(path)
            yield path.stem, qp.problem(), qp.q, None, 1e-9
        return
    make = nonconvex if name == "nonconvex" else convex
    families = CONVEX
    if name == "nonconvex":
        where = "ball", "box", "box and a row"
        families = [
            (kind, room) for kind in ("indefinite", "concave") for room in where
        ]
    for family in families:
        for seed in range(seeds):
            if name == "products":
                wrap = by_products
                yield " / ".join(family), *make(family, seed, wrap), 1e-6
            else:
                yield " / ".join(family), *make(family, seed, np.asarray), 1e-8


def by_products(M):
    return sad.aslinearoperator(M) * 1.0


# Each removes one part: the module or class, what is replaced, by what.
NEVER = functools.partial(property, lambda self: False)
PARTS = {
    "gondzio": [(predictor_corrector, "_CORRECTORS", 0)],
    "balance": [(primal_dual, "_BALANCE", 0.0)],
    "monotone mode": [(primal_dual.PathState, "may_change_mode", NEVER())],
    "stall test": [(primal_dual, "_SLOW", 10**6)],
    "refused lengths": [(primal_dual, "_REFUSALS", 10**6)],
    "shift": [(primal_dual, "_SHIFTS", 1)],
    "second-order correction": [
        (
            newton_system.NewtonSystem,
            "second_order_correction",
            lambda self, step: step._replace(y=0.0 * step.y, n_hvp=0),
        )
    ],
    "regularisation": [(ldl_factor, "_REGULARISATION", 0.0)],
    "refinement": [(ldl_factor, "_SWEEPS", 1)],
    "pivoting": [(ldl_factor, "_POOR", math.inf)],
    "equilibration": [(ldl_factor, "_equilibrate", lambda K: np.ones(K.shape[0]))],
}


def main() -> None:
    """Print a line for each family, and the totals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", nargs="*", default=["convex", "nonconvex"])
    parser.add_argument("--without", choices=PARTS)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--data", type=pathlib.Path)
    options = parser.parse_args()
    for where, name, value in PARTS.get(options.without, []):
        setattr(where, name, value)
    print("| set | runs | solved | wrong | steps | products | gradients | others |")
    print("|---" * 8 + "|")
    for name in options.set:
        total = np.zeros(6, int)
        ends: dict[str, int] = {}
        for family, problem, x, y0, tol in draws(name, options.seeds, options.data):
            for method in ("active_set", "barrier"):
                with np.errstate(all="ignore"):
                    sol = sad.solve(
                        problem, x, y0, method=method, tol=tol, on_failure="ignore"
                    )
                    good = sol.status.acceptable
                    limit = (1e4 if method == "active_set" else 1e6) * tol
                    wrong = good and not off(problem, x, sol) <= limit
                total += [1, good, wrong, sol.niter, sol.n_hvp, sol.n_grad]
                if wrong or not good:
                    end = f"{family}: {'wrong' if wrong else sol.status.name}"
                    ends[end] = ends.get(end, 0) + 1
        others = "; ".join(f"{count} {end}" for end, count in ends.items())
        print(f"| {name} | " + " | ".join(map(str, total)) + f" | {others} |")


if __name__ == "__main__":
    main()
