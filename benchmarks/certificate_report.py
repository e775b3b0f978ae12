"""What certificates say of the errors of value and gradient, against the errors themselves.

    python benchmarks/certificate_report.py [--seed S] [--pairs N] [--only CLASS ...]

A pair is a random problem of a class and a tolerance from 1e-1 to 1e-6 (float32: to 1e-4),
from a cold or a warm start.  The truth is dense algebra in float64: Newton's method on the
optimality conditions with the active set of a tight solution, accepted only if conditions,
signs and second order hold; the gradient by the dense KKT matrix.  Problems in bad units are
made of good ones, whose truth is theirs.

Columns: pairs; skipped (no regular truth, or a failed solve that said so); the share in which
the estimate of the gradient's error is not below it, the same of the value; the share of
infinite estimates; the median of estimate / error of the finite ones; the share of proven
bounds that hold; of shown descents that are true.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm
from sparse_argdiff.problem.constants import Constants

LOSSES = ("squared", "logistic", "poisson", "huber", "multinomial")
DELTA = 1.35  # of Huber's loss


@dataclasses.dataclass
class Dense:
    """A problem by dense functions, rows h(y) = 0 and g(y) <= 0, bounds, and f^U."""

    n: int
    m: int
    grad: Callable[..., Any]
    hess: Callable[..., Any]
    cross: Callable[..., Any]
    upper: Any
    equality: Any = None  # y -> values, jacobian, hessians (p, n, n)
    inequality: Any = None
    lower: Any = None
    upper_bound: Any = None
    value: Callable[..., Any] | None = None

    def rows(self, y, active):
        """Return values, jacobian and hessians of the equalities and the active rows."""
        values, jacobian = np.zeros(0), np.zeros((0, self.n))
        hessians = np.zeros((0, self.n, self.n))
        for part, index in (
            (self.equality, slice(None)),
            (self.inequality, None if active is None else active.strong),
        ):
            if part is not None and index is not None:
                v, J, H = part(y)
                values = np.r_[values, v[index]]
                jacobian = np.r_[jacobian, J[index]]
                hessians = np.concatenate([hessians, H[index]])
        return values, jacobian, hessians

    def truth(self, x, y, active, multipliers):
        """Return value and gradient of F, or None where there is no regular solution."""
        x, y = np.array(x, np.longdouble), np.array(y, np.longdouble)
        fixed = np.zeros(self.n, bool) if active is None else np.array(active.fixed)
        if fixed.any():
            y[fixed] = self._bound_values(y)[fixed]
        free = ~fixed
        count = self.rows(y, active)[0].shape[0]
        nu = np.zeros(count)
        if count:
            J = self.rows(y, active)[1][:, free]
            force = self.grad(x, y)[free].astype(float)
            nu = np.linalg.lstsq(J.T.astype(float), -force, rcond=None)[0]
        K = None
        for _ in range(30):
            h, J, _ = self.rows(y, active)
            k = int(free.sum())
            K = self._matrix(x, y, nu, active, free).astype(float)
            wrong = np.r_[(self.grad(x, y) + J.T @ nu)[free], h]
            try:
                step = np.linalg.solve(K, wrong.astype(float))
            except np.linalg.LinAlgError:
                return None
            size = np.abs(step[:k]).max(initial=0.0)
            y[free] -= step[:k]
            nu = nu - step[k:]
            if size <= 1e-17 * max(np.abs(y).max(initial=0.0), 1e-300):
                break
            if not np.isfinite(size):
                return None
        if not size <= 1e-9 * max(np.abs(y).max(initial=0.0), 1e-300):
            return None
        if not self._regular(x, y, nu, active, free, K):
            return None
        return self._differentiated(x, y, nu, active, free, K)

    def _matrix(self, x, y, nu, active, free):
        """Return the KKT matrix."""
        _, J, C = self.rows(y, active)
        H = self.hess(x, y) + np.tensordot(nu, C, 1)
        k, count = int(free.sum()), len(nu)
        K = np.zeros((k + count, k + count), H.dtype)
        K[:k, :k] = H[np.ix_(free, free)]
        K[:k, k:], K[k:, :k] = J[:, free].T, J[:, free]
        return K

    def _bound_values(self, y):
        low = np.full(self.n, -np.inf) if self.lower is None else self.lower
        high = np.full(self.n, np.inf) if self.upper_bound is None else self.upper_bound
        return np.where(y - low <= high - y, low, high)

    def _regular(self, x, y, nu, active, free, K):
        """Tell whether signs, feasibility and second order hold, with a margin."""
        k, size = int(free.sum()), max(np.abs(y).max(initial=0.0), 1e-300)
        w = np.linalg.eigvalsh(K)
        if np.abs(w).min() <= 1e-13 * np.abs(w).max() or (w < 0).sum() != len(nu):
            return False
        force = self.grad(x, y) + self.rows(y, active)[1].T @ nu
        scale = np.abs(self.grad(x, y)).max() + 1e-300
        low = np.full(self.n, -np.inf) if self.lower is None else self.lower
        high = np.full(self.n, np.inf) if self.upper_bound is None else self.upper_bound
        gaps = np.r_[(y - low)[free], (high - y)[free]]
        signs = np.where(y == low, force, -force)[~free]
        if self.inequality is not None:
            idle = ~np.array(active.strong)
            gaps = np.r_[gaps, -self.inequality(y)[0][idle]]
            signs = np.r_[signs, nu[len(nu) - int(active.strong.sum()) :]]
        far = gaps.min(initial=math.inf) > 1e-9 * size
        return far and signs.min(initial=math.inf) > 1e-9 * scale and k >= 0

    def _differentiated(self, x, y, nu, active, free, K):
        value, by_y, direct = self.upper(x, y)
        k, exact = int(free.sum()), self._matrix(x, y, nu, active, free)
        wanted = np.r_[by_y[free], np.zeros(len(nu))]
        adjoint = np.zeros(len(wanted), np.longdouble)
        for _ in range(4):  # refinement: the residual in higher precision
            left = wanted - exact @ adjoint
            adjoint = adjoint + np.linalg.solve(K, left.astype(float))
        gradient = direct - self.cross(x, y)[free].T @ adjoint[:k]
        return float(value), gradient.astype(float)


@dataclasses.dataclass
class Case:
    """A problem for the package, its truth, and where both meet."""

    problem: sad.Problem
    upper: Any
    x: np.ndarray
    true: Callable[[Any], Any]  # of a tight solution: (value, gradient) or None
    y0: Any = None
    constants: Any = None


# functions ------------------------------------------------------------------------------


def _quadratic(rng, n, kappa):
    turn = np.linalg.qr(rng.standard_normal((n, n)))[0]
    Q = (turn * np.geomspace(1.0, 1.0 / kappa, n)) @ turn.T
    return 0.5 * (Q + Q.T)


def function_case(rng, kind):
    """Return f = ½ y'Qy + ½ Σ e^x y² + ¼ s Σ y⁴ − p'y under the constraints of a kind."""
    n, m = int(rng.integers(6, 40)), int(rng.integers(1, 6))
    kappa = 10.0 ** (rng.uniform(5, 8) if kind == "function-ill" else rng.uniform(1, 4))
    Q, s = _quadratic(rng, n, kappa), 10.0 ** rng.uniform(-3, 0) / kappa
    goal = rng.standard_normal(n)
    p = Q @ rng.standard_normal(n) + 0.3 * rng.standard_normal(n) / kappa**0.5
    spread = np.zeros((n, m))
    spread[np.arange(n), rng.integers(0, m, n)] = 1.0
    sign = -1.0 if kind == "argmax" else 1.0

    def weights(x):
        return spread @ np.exp(x)

    base = Dense(
        n,
        m,
        lambda x, y: Q @ y + weights(x) * y + s * y**3 - p,
        lambda x, y: Q + np.diag(weights(x) + 3.0 * s * y**2),
        lambda x, y: (spread * np.exp(x)) * y[:, None],
        lambda x, y: (
            0.5 * (y - goal) @ (y - goal) + 5e-4 * x @ x,
            y - goal,
            1e-3 * x,
        ),
        value=lambda x, y: (
            0.5 * y @ Q @ y + 0.5 * weights(x) @ y**2 + 0.25 * s * (y**4).sum() - p @ y
        ),
    )
    unit = np.ones(n)
    if kind.startswith("scaled"):
        unit = 10.0 ** rng.uniform(-8.0, 8.0, n)
    dtype = np.float32 if kind.startswith("float32") else np.float64
    x = (rng.uniform(-2.0, 0.0, m) - math.log(kappa) / 2).astype(dtype)
    constraints = _constrain(rng, base, kind, unit, x.astype(float))
    objective = _in_units(base, unit, sign, dtype, Q, p, s, spread)
    problem = sad.Problem(objective, maximize=kind == "argmax", **constraints)
    y0 = np.zeros(n, dtype)
    if kind == "nleq":  # the rows have no slope at zero
        y0 = np.linalg.solve(Q + np.diag(weights(x)), p)
    if kind == "barrier":
        problem, y0 = _barrier(rng, base, problem)
    upper = sad.FunctionUpper(
        lambda x, y: float(base.upper(x, unit * y)[0]),
        lambda x, y: (unit * base.upper(x, unit * y)[1]).astype(dtype),
        lambda x, y: base.upper(x, unit * y)[2].astype(dtype),
    )

    def true(tight):
        y = unit * np.asarray(tight.y, float)
        active = None if kind == "barrier" else tight.active
        return base.truth(x.astype(float), y, active, tight.multipliers)

    constants = None
    if kind == "function-const":
        constants = _constants(base, Q, s, spread, weights)
    return Case(problem, upper, x, true, y0, constants)


def _in_units(base, unit, sign, dtype, Q, p, s, spread):
    """Return the objective of u with y = D u, in a dtype, of a sign."""
    Qs, ps, sp = Q.astype(dtype), p.astype(dtype), spread.astype(dtype)
    s, unit = dtype(s), unit.astype(dtype)

    def grad(x, u):
        y = unit * u
        return sign * unit * (Qs @ y + (sp @ np.exp(x)) * y + s * y**3 - ps)

    def hvp(x, u, v):
        y, w = unit * u, unit * v
        return sign * unit * (Qs @ w + (sp @ np.exp(x) + 3 * s * y**2) * w)

    def diagonal(x, u):
        y = unit * u
        return sign * unit**2 * (np.diag(Qs) + sp @ np.exp(x) + 3 * s * y**2)

    return sad.FunctionObjective(
        value=lambda x, u: (
            sign * float(base.value(x.astype(float), (unit * u).astype(float)))
        ),
        grad=grad,
        hvp=hvp,
        cross_vjp=lambda x, u, w: sign * np.exp(x) * (sp.T @ (unit**2 * u * w)),
        cross_jvp=lambda x, u, v: sign * unit**2 * u * (sp @ (np.exp(x) * v)),
        hess_diag=diagonal,
        n=base.n,
    )


def _constants(base, Q, s, spread, weights):
    """Return true bounds within a ball that holds all y of these problems."""
    radius = 1e3

    def of(x, y):
        least = np.linalg.eigvalsh(Q)[0] + weights(x).min()
        reach = np.linalg.norm(base.cross(x, y), 2)
        return Constants(
            max(least, 1e-300),
            6.0 * s * radius,
            reach,
            float(np.exp(x).max()) * math.sqrt(base.n),
            upper_lipschitz=1.0,
            direct_lipschitz=0.0,
        )

    return of


def _linear(A, b):
    zero = np.zeros((A.shape[0], A.shape[1], A.shape[1]))
    return lambda y: (A @ y - b, A, zero)


def _constrain(rng, base, kind, unit, x):
    """Set the dense constraints of a kind; return those of the package, in its units."""
    n, found = base.n, {}
    free = np.linalg.solve(base.hess(x, np.zeros(n)), -base.grad(x, np.zeros(n)))
    spread = np.abs(free).mean()
    rows = 10.0 ** rng.uniform(-6, 6, n) if kind == "scaled-lineq" else np.ones(n)
    if kind in {"lineq", "mixed", "scaled-lineq"}:
        k = int(rng.integers(1, max(2, n // 4)))
        A = rng.standard_normal((k, n))
        b = A @ free + spread * rng.standard_normal(k)
        base.equality = _linear(A, b)
        r = rows[:k]
        found["equality"] = sad.LinearEquality(r[:, None] * A * unit, r * b)
    if kind == "nleq":
        r2 = float(free @ free) * rng.uniform(0.5, 0.9)
        base.equality = lambda y: (
            np.array([0.5 * (y @ y - r2)]),
            y[None, :],
            np.eye(n)[None, :, :],
        )
        found["equality"] = sad.Equality(
            lambda x, y: np.array([0.5 * (y @ y - r2)]),
            lambda x, y: y[None, :],
            hess=lambda x, y, nu: nu[0] * np.eye(n),
        )
    if kind in {"ineq", "mixed", "scaled-ineq"}:
        k = int(rng.integers(1, n))
        G = rng.standard_normal((k, n))
        limit = G @ free + spread * rng.standard_normal(k)
        if kind == "mixed":
            limit = np.abs(limit) + spread * 5
        base.inequality = _linear(G, limit)
        found["inequality"] = sad.Inequality(
            lambda x, y: G @ (unit * y) - limit, lambda x, y: G * unit
        )
    if kind in {"bounds", "mixed", "scaled-bounds", "barrier"}:
        wide = 3.0 if kind == "mixed" else 1.0
        low = -spread * wide * rng.uniform(0.2, 2.0, n)
        high = spread * wide * rng.uniform(0.2, 2.0, n)
        base.lower, base.upper_bound = low, high
        found |= {"lower": low / unit, "upper": high / unit}
    return found


def _barrier(rng, base, problem):
    """Return the barrier problem and a start; the dense functions become its own."""
    t = 10.0 ** rng.uniform(0.0, 3.0) * base.n
    low, high, grad, hess, cross = (
        base.lower,
        base.upper_bound,
        base.grad,
        base.hess,
        base.cross,
    )
    base.lower = base.upper_bound = None
    base.grad = lambda x, y: t * grad(x, y) - 1.0 / (y - low) + 1.0 / (high - y)
    base.hess = lambda x, y: (
        t * hess(x, y) + np.diag(1.0 / (y - low) ** 2 + 1.0 / (high - y) ** 2)
    )
    base.cross = lambda x, y: t * cross(x, y)
    return sad.LogBarrier(problem, t), 0.5 * (low + high)


# linear models --------------------------------------------------------------------------


def _loss(name, z, t):
    """Return slope and curvature of each sample."""
    if name == "squared":
        return z - t, np.ones_like(z)
    if name == "logistic":
        p = 0.5 * (1.0 + np.tanh(0.5 * z))
        return p - t, p * (1.0 - p)
    if name == "poisson":
        return np.exp(z) - t, np.exp(z)
    r = z - t
    return np.clip(r, -DELTA, DELTA), (np.abs(r) <= DELTA) * 1.0


def _losses(name, z, t):
    if name == "squared":
        return 0.5 * (z - t) ** 2
    if name == "logistic":
        return np.logaddexp(0.0, z) - t * z
    if name == "poisson":
        return np.exp(z) - t * z
    r = np.abs(z - t)
    return np.where(r <= DELTA, 0.5 * r * r, DELTA * (r - 0.5 * DELTA))


def _scalar_model(name, A, t, Z):
    """Return value, gradient and Hessian of the mean loss of A y, dense."""

    def value(y):
        return np.mean(_losses(name, A @ y, t))

    def grad(y):
        return A.T @ _loss(name, A @ y, t)[0] / len(t)

    def hess(y):
        return (A.T * _loss(name, A @ y, t)[1]) @ A / len(t)

    return value, grad, hess


def _multinomial(A, labels, count):
    onehot = np.eye(count)[labels]

    def probabilities(y):
        z = A @ y.reshape(A.shape[1], count)
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return z, e / e.sum(axis=1, keepdims=True)

    def value(y):
        z, _ = probabilities(y)
        top = z.max(axis=1)
        total = np.log(np.exp(z - top[:, None]).sum(axis=1)) + top
        return np.mean(total - (z * onehot).sum(axis=1))

    def grad(y):
        _, p = probabilities(y)
        return (A.T @ (p - onehot) / len(labels)).ravel()

    def hess(y):
        _, p = probabilities(y)
        n = A.shape[1]
        H = np.zeros((n, count, n, count), y.dtype)
        for j in range(count):
            for k in range(count):
                w = p[:, j] * ((j == k) - p[:, k])
                H[:, j, :, k] = (A.T * w) @ A / len(labels)
        return H.reshape(n * count, n * count)

    return value, grad, hess


def glm_case(rng, kind):
    """Return a linear model, in good units or not, with bounds or not."""
    name = {"float32-glm": "logistic"}.get(kind, kind)
    if kind in {"glm-bounds", "scaled-glm", "unix-time", "float32-glm"}:
        name = LOSSES[rng.integers(5 if kind == "scaled-glm" else 4)]
    rows, p = int(rng.integers(20, 120)), int(rng.integers(2, 12))
    if kind in {"scaled-glm", "unix-time"}:
        rows = max(rows, 5 * p)
    kappa = 10.0 ** rng.uniform(0, 6)
    spread = np.geomspace(1.0, kappa**-0.5, p)
    turn = np.linalg.qr(rng.standard_normal((p, p)))[0]
    count = 3 if name == "multinomial" else 1
    data = []
    truth = rng.standard_normal((p, count)) * (0.3 if name == "poisson" else 1.0)
    for _ in range(2):
        A = (rng.standard_normal((rows, p)) * spread) @ turn.T
        z = A @ truth
        if name == "multinomial":
            t = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
            t[:3] = [0, 1, 2]
        elif name == "logistic":
            t = (z[:, 0] + rng.logistic(size=rows) > 0) * 1.0
            t[:2] = [0.0, 1.0]
        elif name == "poisson":
            t = rng.poisson(np.exp(np.clip(z[:, 0], -5, 5))) * 1.0
        else:
            t = z[:, 0] + rng.standard_normal(rows)
        data.append((A, t))
    x = rng.normal(-math.log(kappa) / 2 - 2.0, 1.0, p)
    unit = np.ones(p)
    if kind == "scaled-glm":
        unit = 10.0 ** rng.uniform(-10.0, 10.0, p)
    if kind == "unix-time":
        return _unix_time(rng, name, data, x, count)
    return _glm(rng, kind, name, data, x, count, unit, intercept=False)


def _glm(rng, kind, name, data, x, count, unit, *, intercept, shift=0.0):
    (A, t), (B, held) = data
    p, dtype = A.shape[1], np.float32 if kind == "float32-glm" else np.float64
    if dtype is np.float32:
        A, B, x = A.astype(dtype), B.astype(dtype), x.astype(dtype)
        t, held = (
            np.asarray(v).astype(v.dtype if count > 1 else dtype) for v in (t, held)
        )
    n = p * count
    dense = [np.asarray(M, float) for M in (A, B)]
    if count > 1:
        parts = [
            _multinomial(M, s, count) for M, s in zip(dense, (t, held), strict=True)
        ]
    else:
        parts = [
            _scalar_model(name, M, np.asarray(s, float), None)
            for M, s in zip(dense, (t, held), strict=True)
        ]
    (_, grad, hess), (value, upper_grad, _) = parts

    def ridge(x):
        return np.repeat(np.exp(x), count)

    def cross(x, y):
        out = np.zeros((n, p), y.dtype)
        out[np.arange(n), np.arange(n) // count] = ridge(x) * y
        return out

    base = Dense(
        n,
        p,
        lambda x, y: grad(y) + ridge(x) * y,
        lambda x, y: hess(y) + np.diag(ridge(x)),
        cross,
        lambda x, y: (value(y), upper_grad(y), np.zeros(p)),
    )
    options = {}
    if kind == "glm-bounds":
        size = float(
            np.abs(
                np.linalg.lstsq(dense[0], np.asarray(t, float), rcond=None)[0]
            ).mean()
        )
        base.lower = -size * rng.uniform(0.1, 1.5, n)
        base.upper_bound = size * rng.uniform(0.1, 1.5, n)
        options = {"lower": base.lower, "upper": base.upper_bound}
    glm = Glm(A * unit.astype(dtype), t, loss=name, intercept=intercept)
    upper = glm.held_out(B * unit.astype(dtype), held)
    there = (x + 2.0 * np.log(unit)).astype(dtype)
    units = np.repeat(unit, count)

    def true(tight):
        y = units * np.asarray(tight.y, float)
        return base.truth(x.astype(float), y, tight.active, tight.multipliers)

    return Case(sad.Problem(glm, **options), upper, there, true, np.zeros(n, dtype))


def _unix_time(rng, name, data, x, count):
    """A column of seconds since 1970 beside an intercept; the truth is of it centred.

    A column c + s u beside an intercept spans what u does; its coefficient is that of u
    over s, and is penalised by e^x s² there.
    """
    (A, t), (B, held) = data
    s, centre = 10.0 ** rng.uniform(3.0, 6.0), 1.6e9
    rows = len(A)

    def with_time(M):
        M = M.copy()
        M[:, 0] = centre + s * M[:, 0]
        return M

    ones = np.ones((rows, 1))
    dense = [np.hstack([M, ones]) for M in (A, B)]
    p = A.shape[1]
    parts = [
        _scalar_model(name, M, np.asarray(v, float), None)
        for M, v in zip(dense, (t, held), strict=True)
    ]
    (_, grad, hess), (value, upper_grad, _) = parts

    def ridge(x):
        return np.r_[np.exp(x), 0.0]

    def cross(x, y):
        return np.vstack([np.diag(np.exp(x) * y[:p]), np.zeros((1, p))])

    base = Dense(
        p + 1,
        p,
        lambda x, y: grad(y) + ridge(x) * y,
        lambda x, y: hess(y) + np.diag(ridge(x)),
        cross,
        lambda x, y: (value(y), upper_grad(y), np.zeros(p)),
    )
    glm = Glm(with_time(A), t, loss=name)
    upper = glm.held_out(with_time(B), held)
    there = x.copy()
    there[0] += 2.0 * math.log(s)

    def true(tight):
        y = np.array(tight.y)
        y[-1] += centre * y[0]
        y[0] *= s
        return base.truth(x, y, None, None)

    return Case(sad.Problem(glm), upper, there, true, np.zeros(p + 1))


# the table ------------------------------------------------------------------------------

FUNCTIONS = (
    "function",
    "function-ill",
    "function-const",
    "argmax",
    "lineq",
    "nleq",
    "ineq",
    "bounds",
    "mixed",
    "barrier",
    "float32-function",
    "scaled-function",
    "scaled-lineq",
    "scaled-ineq",
    "scaled-bounds",
)
MODELS = (*LOSSES, "glm-bounds", "float32-glm", "scaled-glm", "unix-time")
CLASSES = (*MODELS, *FUNCTIONS)


def draw(kind, seed):
    """Return a random case of a class."""
    rng = np.random.default_rng([CLASSES.index(kind), seed])
    return (glm_case if kind in MODELS else function_case)(rng, kind), rng


def pairs(kind, seed):
    """Yield (true, result) of a problem at four tolerances; None for what is skipped."""
    case, rng = draw(kind, seed)
    loosest, finest = (-1.0, -4.0) if kind.startswith("float32") else (-1.0, -6.0)
    options = {"y0": case.y0, "constants": case.constants, "on_failure": "ignore"}
    tight = sad.solve(case.problem, case.x, case.y0, tol=1e-12, on_failure="ignore")
    true = case.true(tight)
    for k in range(4):
        tol = 10.0 ** rng.uniform(finest, loosest)
        F = sad.Hypergradient(case.problem, case.upper, tol=tol, **options)
        if k % 2:  # warm
            F.evaluate(
                case.x + (0.1 * rng.standard_normal(case.x.shape)).astype(case.x.dtype)
            )
        found = F.evaluate(case.x)
        fine = (
            found.solution.status.acceptable and found.adjoint.krylov.status.acceptable
        )
        yield (true, found) if true is not None and fine else None


FIELDS = (
    "error",
    "estimate",
    "value_error",
    "value_estimate",
    "bound",
    "value_bound",
    "shown",
    "descends",
    "norm",
    "seed",
)


def study(kind, count, seed):
    """Return a record array of so many pairs, and how many were skipped."""
    rows, skipped = [], collections.Counter()
    number = 0
    while len(rows) < count and number < 20 * count:
        number += 1
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                results = list(pairs(kind, 100_000 * seed + number))
        except (sad.ConvergenceError, ValueError) as error:
            skipped[type(error).__name__ + str(error)[:60]] += 4
            continue
        for pair in results:
            if pair is None:
                skipped["no truth, or a status"] += 1
                continue
            (value, gradient), found = pair
            certificate, z = found.certificate, np.asarray(found.gradient, float)
            rows.append(
                (
                    np.linalg.norm(z - gradient),
                    certificate.gradient_error,
                    abs(found.value - value),
                    certificate.value_error,
                    certificate.bound.gradient_error,
                    certificate.bound.value_error,
                    certificate.descent != "not shown",
                    z @ gradient > 0.0,
                    np.linalg.norm(gradient),
                    100_000 * seed + number,
                )
            )
    return np.rec.fromrecords(rows, names=FIELDS), skipped


def line(kind, rows, skipped):
    """Return a row of the table."""
    finite = np.isfinite(rows.estimate) & (rows.error > 0.0)
    ratio = (
        np.median(rows.estimate[finite] / rows.error[finite])
        if finite.any()
        else math.nan
    )
    bounded = np.isfinite(rows.bound)
    held = (
        np.mean(rows.bound[bounded] >= rows.error[bounded])
        if bounded.any()
        else math.nan
    )
    right = np.mean(rows.descends[rows.shown]) if rows.shown.any() else math.nan
    return (
        f"{kind:17s}{len(rows):6d}{sum(skipped.values()):8d}"
        f"{np.mean(rows.estimate >= rows.error):9.4f}"
        f"{np.mean(rows.value_estimate >= rows.value_error):9.4f}"
        f"{np.mean(np.isinf(rows.estimate)):9.3f}{ratio:9.1f}{held:9.3f}"
        f"{np.mean(rows.shown):8.2f}{right:9.4f}"
    )


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seed", type=int, default=0)
    add("--pairs", type=int, default=500)
    add("--only", nargs="*", choices=CLASSES)
    add("--misses", action="store_true", help="print each pair that is not covered")
    args = parser.parse_args()
    print(
        f"{'class':17s}{'pairs':>6s}{'skipped':>8s}{'est>=err':>9s}{'value':>9s}"
        f"{'infinite':>9s}{'est/err':>9s}{'bound':>9s}{'shown':>8s}{'true':>9s}"
    )
    for kind in args.only or CLASSES:
        rows, skipped = study(kind, args.pairs, args.seed)
        print(line(kind, rows, skipped), flush=True)
        if args.misses:
            print("   ", dict(skipped))
            for r in rows[~(rows.estimate >= rows.error)]:
                print(
                    f"    seed {r.seed}: error {r.error:.1e}, estimate {r.estimate:.1e}, "
                    f"gradient {r.norm:.1e}"
                )
            for r in rows[~(rows.value_estimate >= rows.value_error)]:
                print(
                    f"    seed {r.seed}: error of the value {r.value_error:.1e}, "
                    f"estimate {r.value_estimate:.1e}"
                )


if __name__ == "__main__":
    main()
