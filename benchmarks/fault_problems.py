"""Small problems as dense mathematics, and their solutions by dense linear algebra.

    min_y f(x, y)   s.t.   h(x, y) = 0,   g(x, y) <= 0,   lower <= y <= upper

Nothing here calls sparse_argdiff.  A definition gives every derivative as a matrix;
``truth`` is an interior-point method and then Newton on the active conditions, accepted
only where first order, signs and second order hold.  ``Definition.moved`` states the same
problem in other units; its truth is that of the original.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
from scipy.special import expit, logsumexp, softmax

Array = Any


# functions ------------------------------------------------------------------------


class Polynomial:
    """½ y'Hy + ¼ a Σ y⁴ + ½ Σ e^{(E x)_i} y_i² − y'(B x + c)."""

    def __init__(self, H, B, c, a=0.0, E=None):
        self.H, self.B, self.c, self.a = H, B, c, a
        self.E = np.zeros_like(B) if E is None else E
        self.spread = E is not None

    def _weights(self, x):
        return np.exp(self.E @ x) if self.spread else np.zeros(self.c.shape[0])

    def value(self, x, y):
        total = 0.5 * y @ (self.H @ y) + 0.25 * self.a * np.sum(y**4)
        return total + 0.5 * self._weights(x) @ y**2 - y @ (self.B @ x + self.c)

    def grad(self, x, y):
        return self.H @ y + self.a * y**3 + self._weights(x) * y - self.B @ x - self.c

    def hess(self, x, y):
        return self.H + np.diag(3.0 * self.a * y**2 + self._weights(x))

    def cross(self, x, y):
        return (self._weights(x) * y)[:, None] * self.E - self.B


class LogSumExp:
    """log Σ exp(A y + C x) + ½ r ‖y‖² − d'y."""

    def __init__(self, A, C, d, ridge):
        self.A, self.C, self.d, self.ridge = A, C, d, ridge

    def _spread(self, x, y):
        p = softmax(self.A @ y + self.C @ x)
        return np.diag(p) - np.outer(p, p)

    def value(self, x, y):
        total = logsumexp(self.A @ y + self.C @ x) + 0.5 * self.ridge * (y @ y)
        return total - self.d @ y

    def grad(self, x, y):
        p = softmax(self.A @ y + self.C @ x)
        return self.A.T @ p + self.ridge * y - self.d

    def hess(self, x, y):
        return self.A.T @ self._spread(x, y) @ self.A + self.ridge * np.eye(y.size)

    def cross(self, x, y):
        return self.A.T @ self._spread(x, y) @ self.C


class Exponential:
    """Σ exp((A y)_i − 1) + ½ r ‖y‖² − y'(B x + c)."""

    def __init__(self, A, B, c, ridge):
        self.A, self.B, self.c, self.ridge = A, B, c, ridge

    def value(self, x, y):
        total = np.sum(np.exp(self.A @ y - 1.0)) + 0.5 * self.ridge * (y @ y)
        return total - y @ (self.B @ x + self.c)

    def grad(self, x, y):
        e = np.exp(self.A @ y - 1.0)
        return self.A.T @ e + self.ridge * y - self.B @ x - self.c

    def hess(self, x, y):
        e = np.exp(self.A @ y - 1.0)
        return (self.A.T * e) @ self.A + self.ridge * np.eye(y.size)

    def cross(self, x, y):
        return -self.B


class MeanLoss:
    """The objective of a generalised linear model: Σ w ℓ / Σ w + ½ Σ e^{x_j} c_j²."""

    DELTA = 1.35

    def __init__(self, loss, features, targets, weights, intercept, scalar):
        self.loss, self.features, self.targets = loss, features, targets
        self.K = int(targets.max()) + 1 if loss == "multinomial" else 1
        self.weights = weights / weights.sum()
        self.intercept, self.scalar = intercept, scalar
        p = features.shape[1]
        ones = [np.ones((features.shape[0], 1))] if intercept else []
        self.A = np.hstack([features, *ones])
        self.p, self.n = p * self.K, self.A.shape[1] * self.K
        self.m = 1 if scalar else p
        spread = np.ones((p, 1)) if scalar else np.eye(p)
        self.Z = np.repeat(spread, self.K, axis=0)

    def _z(self, y):
        return self.A @ y.reshape(-1, self.K)

    def _pointwise(self, z):
        t, loss = self.targets, self.loss
        if loss == "multinomial":
            at = z[np.arange(t.size), t.astype(int)]
            one = np.eye(self.K)[t.astype(int)]
            return logsumexp(z, axis=1) - at, softmax(z, axis=1) - one
        z = z[:, 0]
        if loss == "squared":
            return 0.5 * (z - t) ** 2, (z - t)[:, None]
        if loss == "logistic":
            return np.logaddexp(0.0, z) - t * z, (expit(z) - t)[:, None]
        if loss == "poisson":
            return np.exp(z) - t * z, (np.exp(z) - t)[:, None]
        r = np.clip(z - t, -self.DELTA, self.DELTA)
        return r * (z - t - 0.5 * r), r[:, None]

    def _ridge(self, x):
        weights = np.zeros(self.n)
        weights[: self.p] = np.exp(self.Z @ x)
        return weights

    def _shift(self):
        """Return the direction of the term that makes intercepts sum to zero."""
        d = np.zeros(self.n)
        if self.K > 1 and self.intercept:
            d[self.p :] = 1.0 / self.K
        return d

    def value(self, x, y):
        data = self.weights @ self._pointwise(self._z(y))[0]
        return data + 0.5 * self._ridge(x) @ y**2 + 0.5 * (self._shift() @ y) ** 2

    def grad(self, x, y):
        slope = self._pointwise(self._z(y))[1] * self.weights[:, None]
        d = self._shift()
        return (self.A.T @ slope).ravel() + self._ridge(x) * y + d * (d @ y)

    def hess(self, x, y):
        z, d = self._z(y), self._shift()
        H = np.diag(self._ridge(x)) + np.outer(d, d)
        if self.loss == "multinomial":
            p = softmax(z, axis=1)
            for w, a, q in zip(self.weights, self.A, p, strict=True):
                H += w * np.kron(np.outer(a, a), np.diag(q) - np.outer(q, q))
            return H
        z = z[:, 0]
        second = {
            "squared": lambda: np.ones_like(z),
            "logistic": lambda: expit(z) * expit(-z),
            "poisson": lambda: np.exp(z),
            "huber": lambda: 1.0 * (np.abs(z - self.targets) <= self.DELTA),
        }[self.loss]()
        return H + (self.A.T * (self.weights * second)) @ self.A

    def cross(self, x, y):
        full = np.zeros((self.n, self.m))
        full[: self.p] = (self._ridge(x) * y)[: self.p, None] * self.Z
        return full


class Sum:
    """Several functions, added."""

    def __init__(self, *terms):
        self.terms = terms

    def value(self, x, y):
        return sum(f.value(x, y) for f in self.terms)

    def grad(self, x, y):
        return sum(f.grad(x, y) for f in self.terms)

    def hess(self, x, y):
        return sum(f.hess(x, y) for f in self.terms)

    def cross(self, x, y):
        return sum(f.cross(x, y) for f in self.terms)


class BarrierOf:
    """t f − Σ log(−g): the function that LogBarrier minimises."""

    def __init__(self, f, rows, t):
        self.f, self.rows, self.t = f, rows, t

    def _slack(self, x, y):
        return -self.rows.fun(x, y)

    def value(self, x, y):
        slack = self._slack(x, y)
        inside = np.all(slack > 0.0)
        return self.t * self.f.value(x, y) - (np.log(slack).sum() if inside else np.nan)

    def grad(self, x, y):
        w = 1.0 / self._slack(x, y)
        return self.t * self.f.grad(x, y) + self.rows.jac(x, y).T @ w

    def hess(self, x, y):
        w, J = 1.0 / self._slack(x, y), self.rows.jac(x, y)
        return self.t * self.f.hess(x, y) + (J.T * w**2) @ J + self.rows.hess(x, y, w)

    def cross(self, x, y):
        w, J = 1.0 / self._slack(x, y), self.rows.jac(x, y)
        total = self.t * self.f.cross(x, y) + self.rows.cross(x, y, w)
        return total + (J.T * w**2) @ self.rows.jac_x(x, y)


# rows -----------------------------------------------------------------------------


@dataclasses.dataclass
class Linear:
    """A y − b0 − D x."""

    A: Array
    b0: Array
    D: Array
    affine = True

    def fun(self, x, y):
        return self.A @ y - self.b0 - self.D @ x

    def jac(self, x, y):
        return self.A

    def hess(self, x, y, w):
        return np.zeros((y.size, y.size))

    def cross(self, x, y, w):
        return np.zeros((y.size, x.size))

    def jac_x(self, x, y):
        return -self.D


@dataclasses.dataclass
class Quadratic:
    """½ y'Q_i y + a_i'y − b0_i − d_i'x + y'E_i x, for each row i."""

    Q: Array  # (p, n, n)
    A: Array
    b0: Array
    D: Array
    E: Array  # (p, n, m)
    affine = False

    def fun(self, x, y):
        curved = 0.5 * np.einsum("pij,i,j->p", self.Q, y, y)
        mixed = np.einsum("pij,i,j->p", self.E, y, x)
        return curved + mixed + self.A @ y - self.b0 - self.D @ x

    def jac(self, x, y):
        return self.Q @ y + self.E @ x + self.A

    def hess(self, x, y, w):
        return np.einsum("p,pij->ij", w, self.Q)

    def cross(self, x, y, w):
        return np.einsum("p,pij->ij", w, self.E)

    def jac_x(self, x, y):
        return np.einsum("pij,i->pj", self.E, y) - self.D


@dataclasses.dataclass
class Stacked:
    """Rows of several blocks."""

    parts: list

    def fun(self, x, y):
        return np.concatenate([np.zeros(0), *(r.fun(x, y) for r in self.parts)])

    def jac(self, x, y):
        return np.vstack([np.zeros((0, y.size)), *(r.jac(x, y) for r in self.parts)])

    def jac_x(self, x, y):
        return np.vstack([np.zeros((0, x.size)), *(r.jac_x(x, y) for r in self.parts)])

    def _weighted(self, name, x, y, w, shape):
        total, start = np.zeros(shape), 0
        for r in self.parts:
            size = r.fun(x, y).size
            total = total + getattr(r, name)(x, y, w[start : start + size])
            start += size
        return total

    def hess(self, x, y, w):
        return self._weighted("hess", x, y, w, (y.size, y.size))

    def cross(self, x, y, w):
        return self._weighted("cross", x, y, w, (y.size, x.size))


def bound_rows(lower, upper, m):
    """Return the finite bounds as linear rows."""
    n, eye = lower.size, np.eye(lower.size)
    lo, hi = np.isfinite(lower), np.isfinite(upper)
    A = np.vstack([-eye[lo], eye[hi]]).reshape(-1, n)
    b = np.concatenate([-lower[lo], upper[hi]])
    return Linear(A, b, np.zeros((b.size, m)))


# other units ----------------------------------------------------------------------


@dataclasses.dataclass
class Units:
    """y' = D y + s, x = E x' + o, f' = c f, h' = R h."""

    D: Array
    s: Array | float = 0.0
    E: Array | float = 1.0
    o: Array | float = 0.0
    c: float = 1.0
    R: float | Array = 1.0

    def back(self, x, y):
        return self.E * x + self.o, (y - self.s) / self.D


class MovedFunction:
    def __init__(self, f, units):
        self.f, self.u = f, units

    def value(self, x, y):
        return self.u.c * self.f.value(*self.u.back(x, y))

    def grad(self, x, y):
        return self.u.c * self.f.grad(*self.u.back(x, y)) / self.u.D

    def hess(self, x, y):
        D = self.u.D
        return self.u.c * self.f.hess(*self.u.back(x, y)) / D[:, None] / D

    def cross(self, x, y):
        u = self.u
        return u.c * self.f.cross(*u.back(x, y)) / u.D[:, None] * u.E


class MovedRows:
    def __init__(self, rows, units):
        self.rows, self.u, self.affine = rows, units, rows.affine

    def _R(self, x, y):
        p = self.rows.fun(*self.u.back(x, y)).size
        return (np.ones(p) * self.u.R)[:, None]

    def fun(self, x, y):
        return self._R(x, y)[:, 0] * self.rows.fun(*self.u.back(x, y))

    def jac(self, x, y):
        return self._R(x, y) * self.rows.jac(*self.u.back(x, y)) / self.u.D

    def hess(self, x, y, w):
        inner = self.rows.hess(*self.u.back(x, y), w * self._R(x, y)[:, 0])
        return inner / self.u.D[:, None] / self.u.D

    def cross(self, x, y, w):
        inner = self.rows.cross(*self.u.back(x, y), w * self._R(x, y)[:, 0])
        return inner / self.u.D[:, None] * self.u.E

    def jac_x(self, x, y):
        return self._R(x, y) * self.rows.jac_x(*self.u.back(x, y)) * self.u.E


# definitions ----------------------------------------------------------------------


class Along:
    """f(x, P y) + φ(z'y), with P the projection across the unit vector z.

    ``phi`` is one of: "zero" (flat), "falls" (−t), "exp" (e^−t, which falls for ever
    towards its limit), "slight" (½ ε (t − 1)²), "double" (¼ t⁴ − ½ t², a saddle at 0).
    """

    def __init__(self, f, z, phi, size=1e-7):
        self.f, self.z, self.phi, self.size = f, z, phi, size
        self.P = np.eye(z.size) - np.outer(z, z)

    def _phi(self, t):
        e = np.exp(-t) if self.phi == "exp" else 0.0
        k = self.size
        return {
            "zero": (0.0, 0.0, 0.0),
            "falls": (-t, -1.0, 0.0),
            "exp": (e, -e, e),
            "slight": (0.5 * k * (t - 1.0) ** 2, k * (t - 1.0), k),
            "double": (0.25 * t**4 - 0.5 * t**2, t**3 - t, 3.0 * t**2 - 1.0),
        }[self.phi]

    def value(self, x, y):
        return self.f.value(x, self.P @ y) + self._phi(self.z @ y)[0]

    def grad(self, x, y):
        return self.P @ self.f.grad(x, self.P @ y) + self._phi(self.z @ y)[1] * self.z

    def hess(self, x, y):
        second = self._phi(self.z @ y)[2] * np.outer(self.z, self.z)
        return self.P @ self.f.hess(x, self.P @ y) @ self.P + second

    def cross(self, x, y):
        return self.P @ self.f.cross(x, self.P @ y)


class LeastSquaresUpper:
    """½ ‖W y − t‖² / n + ½ r ‖x − x0‖²."""

    def __init__(self, W, t, r, x0):
        self.W, self.t, self.r, self.x0 = W, t, r, x0

    def value(self, x, y):
        left, off = self.W @ y - self.t, x - self.x0
        return 0.5 * (left @ left) / left.size + 0.5 * self.r * (off @ off)

    def grad_y(self, x, y):
        return self.W.T @ (self.W @ y - self.t) / self.t.size

    def grad_x(self, x, y):
        return self.r * (x - self.x0)


class HeldOut:
    """The mean loss of a linear model on other data."""

    def __init__(self, model, features, targets):
        self.features, self.targets = features, targets
        self.model = MeanLoss(
            model.loss, features, targets, np.ones(targets.size), model.intercept, True
        )
        self.model.K = model.K

    def value(self, x, y):
        return self.model.weights @ self.model._pointwise(self.model._z(y))[0]

    def grad_y(self, x, y):
        slope = self.model._pointwise(self.model._z(y))[1]
        return (self.model.A.T @ (slope * self.model.weights[:, None])).ravel()

    def grad_x(self, x, y):
        return np.zeros_like(x)


class MovedUpper:
    def __init__(self, upper, units):
        self.upper, self.u = upper, units

    def value(self, x, y):
        return self.upper.value(*self.u.back(x, y))

    def grad_y(self, x, y):
        return self.upper.grad_y(*self.u.back(x, y)) / self.u.D

    def grad_x(self, x, y):
        return self.upper.grad_x(*self.u.back(x, y)) * self.u.E


@dataclasses.dataclass
class Truth:
    """A verified solution: y, J = g'(x), multipliers, and F with its gradient."""

    y: Array
    J: Array
    multipliers: Array  # of equalities, then of inequality rows
    strong: Array  # of the inequality rows
    fixed: Array
    value: float
    F: float
    dF: Array
    terms: float = 1.0  # the size of what adds up, and may cancel, in dF
    weak: bool = False
    sides: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Definition:
    """A problem as mathematics; ``f`` is the user's own, also where it is maximised."""

    f: Any
    x: Array
    n: int
    upper: Any
    y0: Array | None = None
    equalities: list = dataclasses.field(default_factory=list)
    inequalities: list = dataclasses.field(default_factory=list)
    low: Array | None = None
    high: Array | None = None
    maximize: bool = False
    convex: bool = True
    stationary: bool = False  # any nondegenerate stationary point will do
    simpler: Definition | None = None  # the same solutions, with regular constraints
    units: Units | None = None  # this definition is ``simpler`` in these units
    barrier: float | None = None  # t; inequalities and bounds go into the objective
    model: Any = None  # MeanLoss behind f

    @property
    def bounds(self):
        none = np.full(self.n, np.inf)
        low = -none if self.low is None else np.broadcast_to(self.low, self.n)
        high = none if self.high is None else np.broadcast_to(self.high, self.n)
        return low, high

    def replace(self, **changes):
        return dataclasses.replace(self, **changes)

    def regular(self):
        """Return the definition whose conditions are solved: barrier terms moved into f."""
        if self.barrier is None:
            return self
        rows = Stacked([*self.inequalities, bound_rows(*self.bounds, self.x.size)])
        f = BarrierOf(Negative(self.f) if self.maximize else self.f, rows, self.barrier)
        f = Negative(f) if self.maximize else f
        return self.replace(f=f, inequalities=[], low=None, high=None, barrier=None)

    def moved(self, units):
        """Return the same problem in other units."""
        low, high = (
            None if b is None else units.D * b + units.s for b in (self.low, self.high)
        )
        return self.replace(
            f=MovedFunction(self.f, units),
            x=(self.x - units.o) / units.E,
            upper=MovedUpper(self.upper, units),
            y0=None if self.y0 is None else units.D * self.y0 + units.s,
            equalities=[MovedRows(r, units) for r in self.equalities],
            inequalities=[MovedRows(r, units) for r in self.inequalities],
            low=low,
            high=high,
            simpler=self,
            units=units,
            model=None,
        )


class Negative:
    def __init__(self, f):
        self.f = f

    def value(self, x, y):
        return -self.f.value(x, y)

    def grad(self, x, y):
        return -self.f.grad(x, y)

    def hess(self, x, y):
        return -self.f.hess(x, y)

    def cross(self, x, y):
        return -self.f.cross(x, y)


# truth ----------------------------------------------------------------------------


class NoTruth(Exception):
    """No solution could be verified."""


def interior_point(f, eq, rows, x, y, steps=200):
    """Return y, ν, λ, slack of the convex problem, a primal-dual path."""
    s = np.maximum(-rows.fun(x, y), 1.0)
    lam, nu = np.ones(s.size), np.zeros(eq.fun(x, y).size)
    n, p, q = y.size, nu.size, s.size

    def residual(y, nu, lam, s, mu):
        stationary = f.grad(x, y) + eq.jac(x, y).T @ nu + rows.jac(x, y).T @ lam
        return np.concatenate(
            [stationary, eq.fun(x, y), rows.fun(x, y) + s, lam * s - mu]
        )

    for _ in range(steps):
        mu = 0.1 * (lam @ s) / q if q else 0.0
        r = residual(y, nu, lam, s, mu)
        if np.linalg.norm(residual(y, nu, lam, s, 0.0)) < 1e-13:
            break
        J, G = eq.jac(x, y), rows.jac(x, y)
        H = f.hess(x, y) + eq.hess(x, y, nu) + rows.hess(x, y, lam)
        K = np.zeros((n + p + q, n + p + q))
        K[:n, :n], K[:n, n : n + p], K[:n, n + p :] = H, J.T, G.T
        K[n : n + p, :n], K[n + p :, :n] = J, G
        K[n + p :, n + p :] = -np.diag(s / lam)
        rhs = -np.concatenate([r[: n + p], r[n + p : n + p + q] - r[n + p + q :] / lam])
        try:
            step = np.linalg.solve(K, rhs)
        except np.linalg.LinAlgError:
            step = np.linalg.lstsq(K, rhs, rcond=None)[0]
        dy, dnu, dlam = step[:n], step[n : n + p], step[n + p :]
        ds = -(r[n + p + q :] + s * dlam) / lam
        t = 1.0
        for v, dv in ((s, ds), (lam, dlam)):
            if np.any(dv < 0.0):
                t = min(t, 0.99 * np.min(-v[dv < 0.0] / dv[dv < 0.0]))
        size = np.linalg.norm(r)
        with np.errstate(all="ignore"):
            while t > 1e-10:
                trial = y + t * dy, nu + t * dnu, lam + t * dlam, s + t * ds
                found = np.linalg.norm(residual(*trial, mu))
                if found <= (1.0 - 1e-4 * t) * size or size < 1e-10:
                    break
                t *= 0.5
        y, nu, lam, s = trial
    return y, nu, lam, s


def polish(f, eq, act, x, y, z):
    """Newton on the conditions with the active rows as equalities."""
    both = Stacked([eq, act])
    n = y.size
    for _ in range(50):
        C = both.jac(x, y)
        H = f.hess(x, y) + both.hess(x, y, z)
        r = np.concatenate([f.grad(x, y) + C.T @ z, both.fun(x, y)])
        K = np.block([[H, C.T], [C, np.zeros((len(C), len(C)))]])
        try:
            step = -np.linalg.solve(K, r)
        except np.linalg.LinAlgError as error:
            raise NoTruth("singular conditions") from error
        y, z = y + step[:n], z + step[n:]
        if np.linalg.norm(step) <= 1e-14 * (1.0 + np.linalg.norm(y)):
            break
    return y, z


class Chosen:
    """Some rows of a block."""

    def __init__(self, rows, index):
        self.rows, self.index = rows, np.asarray(index, dtype=int)

    def fun(self, x, y):
        return self.rows.fun(x, y)[self.index]

    def jac(self, x, y):
        return self.rows.jac(x, y)[self.index]

    def jac_x(self, x, y):
        return self.rows.jac_x(x, y)[self.index]

    def _full(self, x, y, w):
        full = np.zeros(self.rows.fun(x, y).size)
        full[self.index] = w
        return full

    def hess(self, x, y, w):
        return self.rows.hess(x, y, self._full(x, y, w))

    def cross(self, x, y, w):
        return self.rows.cross(x, y, self._full(x, y, w))


def jacobian(f, both, x, y, z):
    """Return g'(x) by a direct solve of the KKT matrix."""
    C = both.jac(x, y)
    H = f.hess(x, y) + both.hess(x, y, z)
    K = np.block([[H, C.T], [C, np.zeros((len(C), len(C)))]])
    B = np.vstack([f.cross(x, y) + both.cross(x, y, z), both.jac_x(x, y)])
    return -np.linalg.solve(K, B)[: y.size]


def truth(d: Definition, near=None) -> Truth:
    """Return the verified solution; of a problem that is not convex the one at ``near``."""
    if d.simpler is not None:
        return _moved_truth(d, near)
    outer, d = d, d.regular()
    f = Negative(d.f) if d.maximize else d.f
    x, n = d.x, d.n
    eq = Stacked(d.equalities)
    limits = bound_rows(*d.bounds, x.size)
    rows = Stacked([*d.inequalities, limits])
    q = sum(r.fun(x, np.zeros(n)).size for r in d.inequalities)
    start = near if near is not None else d.y0 if d.y0 is not None else np.zeros(n)
    with np.errstate(all="ignore"):
        if not d.convex:
            y, z, active = _nearby(f, eq, rows, x, start)
        elif rows.fun(x, start).size == 0 and not d.equalities:
            y, z, active = _newton(f, x, start), np.zeros(0), np.zeros(0, dtype=int)
        else:
            y, nu, lam, s = interior_point(f, eq, rows, x, start)
            (active,) = np.nonzero((lam > s) & (lam > 1e-7))
            z = np.concatenate([nu, lam[active]])
        y, z = polish(f, eq, Chosen(rows, active), x, y, z)
    p = eq.fun(x, y).size
    lam = np.zeros(rows.fun(x, y).size)
    lam[active] = z[p:]
    _verify(f, eq, rows, x, y, z, active, d.stationary)
    if outer.barrier is not None:
        kept = Stacked([*outer.inequalities, bound_rows(*outer.bounds, x.size)])
        if not np.all(kept.fun(x, y) < 0.0):
            raise NoTruth("outside the domain of the barrier")
    slack = -rows.fun(x, y)
    weak = [i for i in range(lam.size) if slack[i] < 1e-6 and lam[i] < 1e-6]
    fixed = np.zeros(n, dtype=bool)
    for i in active[active >= q] - q:
        fixed |= limits.A[i] != 0.0
    J = jacobian(f, Stacked([eq, Chosen(rows, active)]), x, y, z)
    found = _complete(d, y, J)
    found.multipliers = np.concatenate([z[:p], lam[:q]])
    found.strong = np.isin(np.arange(q), active)
    found.fixed = fixed
    if weak:
        found.weak = True
        firm = [i for i in active if i not in weak]
        for k in range(len(weak) + 1):
            for more in itertools.combinations(weak, k):
                which = sorted([*firm, *more])
                both = Stacked([eq, Chosen(rows, which)])
                weights = np.concatenate([z[:p], lam[which]])
                try:
                    found.sides.append(jacobian(f, both, x, y, weights))
                except np.linalg.LinAlgError:
                    continue
    return found


def _newton(f, x, y):
    for _ in range(300):
        g = f.grad(x, y)
        step, t, at = np.linalg.solve(f.hess(x, y), g), 1.0, f.value(x, y)
        while t > 1e-12 and not f.value(x, y - t * step) <= at - 1e-4 * t * (g @ step):
            t *= 0.5
        if t <= 1e-12 or np.linalg.norm(step) <= 1e-12 * (1.0 + np.linalg.norm(y)):
            break
        y = y - t * step
    return y


def _nearby(f, eq, rows, x, y):
    """Return least-squares multipliers and the active rows at a point."""
    (active,) = np.nonzero(rows.fun(x, y) > -1e-5)
    C = np.vstack([eq.jac(x, y), rows.jac(x, y)[active]])
    z = np.linalg.lstsq(C.T, -f.grad(x, y), rcond=None)[0] if len(C) else np.zeros(0)
    p = eq.fun(x, y).size
    keep = z[p:] > 1e-7
    return y, np.concatenate([z[:p], z[p:][keep]]), active[keep]


def _verify(f, eq, rows, x, y, z, active, stationary):
    """Refuse a point that breaks first order, signs, or second order."""
    both = Stacked([eq, Chosen(rows, active)])
    C, p = both.jac(x, y), eq.fun(x, y).size
    g = f.grad(x, y)
    r = g + C.T @ z
    scale = max(np.abs(g).max(), np.abs(f.hess(x, y) @ y).max(), 1e-12)
    if not np.abs(r).max() <= 1e-9 * scale:
        raise NoTruth(f"stationarity {np.abs(r).max():.1e} of {scale:.1e}")
    if both.fun(x, y).size and not np.abs(both.fun(x, y)).max() <= 1e-9:
        raise NoTruth("infeasible")
    if rows.fun(x, y).size and not rows.fun(x, y).max() <= 1e-8:
        raise NoTruth("an inequality is violated")
    if z[p:].size and not z[p:].min() >= -1e-9 * scale:
        raise NoTruth("a multiplier has the wrong sign")
    H = f.hess(x, y) + both.hess(x, y, z)
    if len(C):
        if np.linalg.svd(C, compute_uv=False)[-1] <= 1e-9 * np.linalg.norm(C):
            raise NoTruth("dependent rows")
        _, _, Vt = np.linalg.svd(C)
        H = Vt[len(C) :] @ H @ Vt[len(C) :].T
    if H.size:
        values = np.linalg.eigvalsh(0.5 * (H + H.T))
        small = np.abs(values).min() if stationary else values.min()
        if not small > 1e-12 * np.abs(values).max():
            raise NoTruth("second order")


def _complete(d, y, J):
    F, dF = upper_at(d, y, J)
    none = np.zeros(0)
    slope = np.abs(d.upper.grad_y(d.x, y))
    terms = np.abs(J.T) @ slope + np.abs(d.upper.grad_x(d.x, y)) + 1e-3 * slope.max()
    value = d.f.value(d.x, y)
    return Truth(y, J, none, none, none, value, F, dF, float(terms.max(initial=0.0)))


def upper_at(d, y, J):
    """Return F and its gradient from y and J."""
    gradient = d.upper.grad_x(d.x, y) + J.T @ d.upper.grad_y(d.x, y)
    return d.upper.value(d.x, y), gradient


def _moved_truth(d, near):
    """Return the truth of the simpler definition, in the units of this one."""
    u = d.units
    if u is None:
        inner = truth(d.simpler.replace(x=d.x), near)
        inner.F, inner.dF = upper_at(d, inner.y, inner.J)
        return inner
    inner_x, inner_y = d.x * u.E + u.o, None if near is None else (near - u.s) / u.D
    inner = truth(d.simpler.replace(x=inner_x), inner_y)
    J = u.D[:, None] * inner.J * u.E
    found = _complete(d, u.D * inner.y + u.s, J)
    found.value, found.weak = u.c * inner.value, inner.weak
    found.F = d.simpler.upper.value(inner_x, inner.y)
    found.dF, found.terms = u.E * inner.dF, inner.terms
    found.sides = [u.D[:, None] * side * u.E for side in inner.sides]
    found.strong, found.fixed = inner.strong, inner.fixed
    rows = np.ones(inner.multipliers.size) * u.R
    found.multipliers = inner.multipliers * u.c / rows
    return found


def verify_functions(d: Definition, rng) -> None:
    """Compare the derivatives of a definition with central differences; raise if wrong.

    Where those of 1e-5 are off, as next to the pole of a barrier, 1e-7 decides.
    """
    y = d.y0 + 0.0 if d.y0 is not None else 0.1 * rng.standard_normal(d.n)
    x = d.x
    f = d.regular().f
    dy, dx = rng.standard_normal(y.size), rng.standard_normal(x.size)
    draws = [
        rng.standard_normal(r.fun(x, y).size) for r in (*d.equalities, *d.inequalities)
    ]

    def pairs(h):
        return _pairs(d, f, (x, y, dx, dy), draws, h)

    for k, near in enumerate(pairs(1e-5)):
        if _agree(*near) or _agree(*pairs(1e-7)[k]):
            continue
        raise AssertionError(f"derivative {k} of a definition is wrong: {near}")


def _agree(exact, difference):
    error = np.abs(np.asarray(exact) - difference)
    return bool(np.all(error <= 1e-4 * (1.0 + np.abs(np.asarray(exact)))))


def _pairs(d, f, point, draws, h):
    """Return each derivative along a direction, and its central difference."""
    x, y, dx, dy = point
    found = [
        (f.grad(x, y) @ dy, _slope(lambda t: f.value(x, y + t * dy), h)),
        (f.hess(x, y) @ dy, _slope(lambda t: f.grad(x, y + t * dy), h)),
        (f.cross(x, y) @ dx, _slope(lambda t: f.grad(x + t * dx, y), h)),
        (d.upper.grad_y(x, y) @ dy, _slope(lambda t: d.upper.value(x, y + t * dy), h)),
        (d.upper.grad_x(x, y) @ dx, _slope(lambda t: d.upper.value(x + t * dx, y), h)),
    ]
    for r, w in zip((*d.equalities, *d.inequalities), draws, strict=True):
        found += [
            (r.jac(x, y) @ dy, _slope(lambda t, r=r: r.fun(x, y + t * dy), h)),
            (r.jac_x(x, y) @ dx, _slope(lambda t, r=r: r.fun(x + t * dx, y), h)),
            (
                r.hess(x, y, w) @ dy,
                _slope(lambda t, r=r, w=w: r.jac(x, y + t * dy).T @ w, h),
            ),
            (
                r.cross(x, y, w) @ dx,
                _slope(lambda t, r=r, w=w: r.jac(x + t * dx, y).T @ w, h),
            ),
        ]
    return found


def _slope(along, h):
    return (np.asarray(along(h)) - np.asarray(along(-h))) / (2.0 * h)


# the classes ----------------------------------------------------------------------


def spd(rng, n, condition=20.0):
    """Return a symmetric matrix with eigenvalues in [1, condition]."""
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    H = (Q * np.geomspace(1.0, condition, n)) @ Q.T
    return 0.5 * (H + H.T)


def smooth(rng, n, m):
    """Return a strongly convex function of one of three families."""
    kind = rng.integers(3)
    B, c = rng.standard_normal((n, m)), rng.standard_normal(n)
    if kind == 0:
        E = 0.3 * rng.standard_normal((n, m)) if rng.random() < 0.5 else None
        return Polynomial(spd(rng, n), B, c, float(rng.random() < 0.6), E)
    A = rng.standard_normal((n + 3, n)) / np.sqrt(n)
    if kind == 1:
        C = rng.standard_normal((n + 3, m))
        return LogSumExp(A, C, rng.standard_normal(n), 0.2)
    return Exponential(A, B, c, 0.2)


def _upper(rng, n, m):
    rows = n + 1
    W = rng.standard_normal((rows, n)) / np.sqrt(n)
    return LeastSquaresUpper(W, rng.standard_normal(rows), 0.1, np.zeros(m))


def _plain(rng, low=3):
    n, m = int(rng.integers(low, 9)), int(rng.integers(1, 5))
    x = 0.7 * rng.standard_normal(m)
    return Definition(smooth(rng, n, m), x, n, _upper(rng, n, m))


def _equalities(rng, d, p):
    m = d.x.size
    A = rng.standard_normal((p, d.n))
    return Linear(A, rng.standard_normal(p), 0.5 * rng.standard_normal((p, m)))


def _inequalities(rng, d, q, start):
    """Return rows that hold strictly at ``start``: linear ones, or a ball."""
    m = d.x.size
    if rng.random() < 0.5:
        A, D = rng.standard_normal((q, d.n)), 0.5 * rng.standard_normal((q, m))
        slack = rng.uniform(0.05, 1.0, q)
        return Linear(A, A @ start - D @ d.x + slack, D)
    Q = np.repeat(np.eye(d.n)[None], q, axis=0)
    A, E = 0.3 * rng.standard_normal((q, d.n)), 0.2 * rng.standard_normal((q, d.n, m))
    D = 0.3 * rng.standard_normal((q, m))
    rows = Quadratic(Q, A, np.zeros(q), D, E)
    rows.b0 = rows.fun(d.x, start) + rng.uniform(0.02, 0.5, q)
    return rows


def unconstrained(rng):
    return _plain(rng)


def argmax(rng):
    d = _plain(rng)
    return d.replace(f=Negative(d.f), maximize=True)


def stationary(rng):
    """Return an indefinite quadratic with quartic terms, near a saddle point."""
    d = _plain(rng)
    n, m = d.n, d.x.size
    values, Q = np.linalg.eigh(spd(rng, n))
    signs = np.where(rng.random(n) < 0.5, -1.0, 1.0)
    signs[:2] = 1.0, -1.0
    H = (Q * (values * signs)) @ Q.T
    c = 0.3 * rng.standard_normal(n)
    B = 0.3 * rng.standard_normal((n, m))
    f = Polynomial(0.5 * (H + H.T), B, c, 0.02)
    y0 = np.linalg.solve(f.H, B @ d.x + c)
    return d.replace(f=f, y0=y0, convex=False, stationary=True)


def glm(rng, loss):
    p = int(rng.integers(2, 5))
    N = int(rng.integers(15, 30))
    features = rng.standard_normal((N, p))
    if rng.random() < 0.5:
        features *= rng.random((N, p)) < 0.6
        features[0] = 1.0
    z = features @ rng.standard_normal(p) + 0.3
    targets = {
        "squared": lambda: z + 0.3 * rng.standard_normal(N),
        "huber": lambda: z + rng.standard_t(2, N),
        "logistic": lambda: 1.0 * (z + rng.logistic(size=N) > 0),
        "poisson": lambda: 1.0 * rng.poisson(np.exp(np.clip(z, -2, 2))),
        "multinomial": lambda: np.append(rng.integers(0, 3, N - 3), [0.0, 1.0, 2.0]),
    }[loss]()
    if loss == "logistic":
        targets[:2] = 0.0, 1.0
    intercept, scalar = bool(rng.random() < 0.7), bool(rng.random() < 0.3)
    weights = rng.uniform(0.5, 2.0, N) if rng.random() < 0.4 else np.ones(N)
    f = MeanLoss(loss, features, targets, weights, intercept, scalar)
    x = rng.uniform(-3.0, 0.5, f.m)
    upper: Any = _upper(rng, f.n, f.m)
    if rng.random() < 0.5:
        few = rng.permutation(N)[: N // 2]
        upper = HeldOut(f, rng.permuted(features, axis=0)[few], targets[few])
    return Definition(f, x, f.n, upper, model=f)


def _any_glm(rng):
    return glm(rng, rng.choice(["squared", "logistic", "poisson", "huber"]))


def _boxed(rng, d):
    """Return d with bounds of which about a third hold at the solution."""
    free = truth(d).y
    low, high = free - rng.uniform(0.2, 1.0, d.n), free + rng.uniform(0.2, 1.0, d.n)
    side = rng.integers(0, 6, d.n)
    cut = rng.uniform(0.05, 0.5, d.n)
    low = np.where(side == 0, free + cut, np.where(side == 2, -np.inf, low))
    high = np.where(side == 1, free - cut, np.where(side == 2, np.inf, high))
    high = np.where(side == 0, low + 1.0, high)
    low = np.where(side == 1, high - 1.0, low)
    return d.replace(low=low, high=high)


def glm_bounds(rng):
    return _boxed(rng, _any_glm(rng))


def glm_lineq(rng):
    d = _any_glm(rng)
    rows = _equalities(rng, d, 1)
    return d.replace(equalities=[rows])


def lineq(rng):
    d = _plain(rng)
    p = int(rng.integers(1, d.n - 1))
    if p > 1 and rng.random() < 0.3:
        return d.replace(
            equalities=[_equalities(rng, d, 1), _equalities(rng, d, p - 1)]
        )
    return d.replace(equalities=[_equalities(rng, d, p)])


def nleq(rng):
    """Return an ellipsoid, and perhaps a plane: not convex, any local minimum counts."""
    d = _plain(rng, low=4)
    n, m = d.n, d.x.size
    Q = spd(rng, n, 3.0)[None]
    start = rng.standard_normal(n)
    A, E = 0.1 * rng.standard_normal((1, n)), 0.1 * rng.standard_normal((1, n, m))
    rows = Quadratic(Q, A, np.zeros(1), 0.3 * rng.standard_normal((1, m)), E)
    rows.b0 = rows.fun(d.x, start)
    plane = []
    if rng.random() < 0.4:
        a = rng.standard_normal((1, n))
        D = 0.2 * rng.standard_normal((1, m))
        plane = [Linear(a, a @ start - D @ d.x, D)]
    return d.replace(equalities=[rows, *plane], y0=start, convex=False)


def ineq(rng):
    d = _plain(rng)
    inside = truth(d).y + 0.7 * rng.standard_normal(d.n)
    rows = [_inequalities(rng, d, int(rng.integers(1, 4)), inside)]
    if rng.random() < 0.3:
        rows.append(_inequalities(rng, d, 1, inside))
    return d.replace(inequalities=rows)


def bounds(rng):
    return _boxed(rng, _plain(rng))


def mixed(rng):
    d = _plain(rng, low=4)
    inside = truth(d).y + 0.5 * rng.standard_normal(d.n)
    rows = _equalities(rng, d, 1)
    rows.b0 = rows.A @ inside - rows.D @ d.x
    low = np.where(rng.random(d.n) < 0.6, inside - rng.uniform(0.05, 0.5, d.n), -np.inf)
    high = np.where(rng.random(d.n) < 0.3, inside + rng.uniform(0.05, 0.5, d.n), np.inf)
    curved = _inequalities(rng, d, int(rng.integers(1, 3)), inside)
    return d.replace(equalities=[rows], inequalities=[curved], low=low, high=high)


def barrier(rng):
    d = _plain(rng)
    inside = truth(d).y + 0.5 * rng.standard_normal(d.n)
    t = float(rng.choice([2.0, 10.0, 50.0]))
    d = d.replace(y0=inside, barrier=t)
    if rng.random() < 0.4:
        return d.replace(low=inside - 0.7, high=inside + 0.6)
    return d.replace(inequalities=[_inequalities(rng, d, 2, inside)])


CLASSES = {
    "explicit": unconstrained,
    "function": unconstrained,
    "argmax": argmax,
    "stationary": stationary,
    **{
        f"glm-{k}": lambda rng, k=k: glm(rng, k)
        for k in ("squared", "logistic", "poisson", "huber", "multinomial")
    },
    "glm-bounds": glm_bounds,
    "glm-lineq": glm_lineq,
    "lineq": lineq,
    "nleq": nleq,
    "ineq": ineq,
    "bounds": bounds,
    "mixed": mixed,
    "barrier": barrier,
}


def draw(name, rng):
    """Return a definition of a class whose functions and truth are verified."""
    for _ in range(20):
        d = CLASSES[name](rng)
        verify_functions(d, rng)
        try:
            found = truth(d, d.y0 if not d.convex else None)
        except (NoTruth, np.linalg.LinAlgError):
            continue
        if not found.weak:
            return d, found
    raise NoTruth(f"no regular problem of the class {name}")
