"""The same problem in other units: small problems, changes of units, and a judge.

    f'(x', y') = c f(x, y),   y' = T y + s,   x' = E x + e,   rows' = R rows

A problem in its plain units has a minimiser and a Jacobian from dense linear algebra in
float64.  Most are built backwards: the minimiser, the active constraints and their
multipliers are drawn, and the linear term of f is chosen so that they are optimal.
Posed in other units, it is solved and differentiated by the package, and the answers are
taken back to the plain units, where every number is of order one.

``pose(name, change, seed)`` makes one case, ``judge`` says how it went: "right",
"limited" (a shift: y is right to the tolerance times the shift only), "refused" (an error
or a warning raised on purpose), "wrong" (silently) or "foreign" (another exception).
"""

from __future__ import annotations

import dataclasses
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy import sparse
from scipy.special import expit, softmax

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm

TOL = 1e-8  # the default of ``solve``
NEEDED = {np.float64: max(1e-5, 100.0 * TOL), np.float32: 1e-3}
"""Relative errors that count as right; rounding in float32 leaves ε κ, 1e-4 here."""


# a case and its judge -------------------------------------------------------------


@dataclasses.dataclass
class Posed:
    """A problem in other units, and what is right in the plain ones.

    ``truth`` returns y, J and f of the minimiser near a found y; J is None where there is
    no derivative, and products are to be refused.
    """

    problem: sad.Problem
    x: np.ndarray
    y0: np.ndarray
    forth: Callable[[np.ndarray], np.ndarray]  # y -> y'
    back: Callable[[np.ndarray], np.ndarray]  # y' -> y
    tangent: Callable[[np.ndarray], np.ndarray]  # dy' -> dy
    cotangent: Callable[[np.ndarray], np.ndarray]  # v -> v'
    slope: np.ndarray  # dx' / dx
    truth: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None, float]]
    value: Callable[[float], float]  # the posed value -> the plain one
    metric: np.ndarray  # H (n, n), positive semidefinite
    known_diagonal: bool
    units: str  # what was drawn, for a report
    shift: float = 0.0  # |s| in the units of y, for quadratics; 0 for others
    quadratic: bool = False
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    dtype: Any = np.float64


@dataclasses.dataclass
class Verdict:
    """How a case went; errors are relative, NaN where nothing was computed."""

    word: str
    status: str
    y: float = np.nan
    value: float = np.nan
    forward: float = np.nan
    adjoint: float = np.nan
    note: str = ""
    n_hvp: int = 0


class _Tally:
    """The parts of a case: what each gave, or how it was refused."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.notes: list[str] = []
        self.n_hvp = 0

    def run(self, what: str, call: Callable[[], Any]) -> Any:
        """Return the call's result; None where it raised."""
        try:
            return call()
        except sad.ConvergenceError as error:
            self.words.append("refused")
            self.notes.append(f"{what}: {error.status.name}")
            self.n_hvp += error.n_hvp
        except Exception as error:  # noqa: BLE001 - what else may come is the question
            self.words.append("foreign")
            text = str(error).splitlines() or [""]
            self.notes.append(f"{what}: {type(error).__name__} {text[0][:90]}")
        return None

    def judged(self, what: str, error: float, needed: float) -> float:
        """Record whether an error is small enough, and return it."""
        right = error <= needed
        self.words.append("right" if right else "wrong")
        if not right:
            self.notes.append(f"{what} off by {error:.1e}")
        return error


WORST = ("wrong", "foreign", "refused", "limited", "right")


def judge(case: Posed, rng: np.random.Generator) -> Verdict:
    """Solve and differentiate; compare with the truth in the plain units."""
    tally, warned = _Tally(), []
    with warnings.catch_warnings(record=True) as caught, np.errstate(all="ignore"):
        warnings.simplefilter("always")
        verdict = _compare(case, rng, tally)
        warned = [w for w in caught if issubclass(w.category, sad.ConvergenceWarning)]
    verdict.word = next(word for word in WORST if word in tally.words)
    if verdict.word == "wrong" and warned:
        verdict.word = "refused"
        tally.notes.append("warned")
    verdict.note, verdict.n_hvp = "; ".join(tally.notes), tally.n_hvp
    return verdict


def _compare(case: Posed, rng: np.random.Generator, tally: _Tally) -> Verdict:
    found = tally.run(
        "solve", lambda: sad.solve(case.problem, case.x, case.y0, tol=TOL)
    )
    if found is None:
        return Verdict("", "-")
    tally.n_hvp += found.n_hvp
    tally.notes += [f"[{note[:60]}]" for note in found.warnings]
    verdict, needed = Verdict("", found.status.name), NEEDED[case.dtype]
    y, J, value = case.truth(case.back(found.y))
    scale = abs(value) + 0.5 * abs(y @ case.metric @ y) + 1e-300
    error = case.back(found.y) - y
    verdict.y = relative(error, y, case.metric)
    allowed = needed
    if case.quadratic and verdict.y > needed:
        length = np.abs(y).max() + case.shift
        if np.abs(error).max() <= 2.0 * (TOL + 1e-15) * length:
            tally.words.append("limited")
            allowed = np.inf
    tally.judged("y", verdict.y, allowed)
    verdict.value = abs(case.value(found.value) - value) / scale
    tally.judged("value", verdict.value, allowed)
    _compare_derivatives(case, rng, tally, verdict, found, J)
    return verdict


def _compare_derivatives(case, rng, tally, verdict, found, J) -> None:
    """Compare J u and J'v, by the operator and by ``jvp`` and ``vjp``."""
    needed, problem, options = NEEDED[case.dtype], case.problem, case.options
    before = len(tally.words)
    u, v = rng.standard_normal(case.x.size), rng.standard_normal(case.y0.size)
    u_posed = (case.slope * u).astype(case.x.dtype)
    v_posed = case.cotangent(v).astype(case.y0.dtype)
    operator = tally.run("J", lambda: sad.derivative(problem, found, **options))
    forward = [tally.run("jvp", lambda: sad.jvp(problem, found, u_posed, **options))]
    adjoint = [tally.run("vjp", lambda: sad.vjp(problem, found, v_posed, **options))]
    for result in (*forward, *adjoint):
        tally.n_hvp += 0 if result is None else result.n_hvp
        cautions = () if result is None else result.warnings
        new = [f"[{note[:60]}]" for note in cautions]
        tally.notes += [note for note in new if note not in tally.notes]
    if operator is not None:
        forward.append(tally.run("J @ u", lambda: operator @ u_posed))
        adjoint.append(tally.run("J.T @ v", lambda: operator.T @ v_posed))
    if J is None:  # to refuse is right
        answers = sum(result is not None for result in (*forward, *adjoint))
        after = [word for word in tally.words[before:] if word == "foreign"]
        tally.words[before:] = [*after, *["wrong"] * answers]
        tally.notes += [f"{answers} products of no derivative"] * bool(answers)
        return
    size = max(1e-3 * np.abs(J).max(), 1e-9)  # J is rounding where all y are fixed
    for result in forward:
        if result is not None:
            Ju = case.tangent(np.asarray(getattr(result, "y", result), float))
            error = relative(Ju - J @ u, J @ u, case.metric, size)
            verdict.forward = tally.judged("J u", error, needed)
    for result in adjoint:
        if result is not None:
            pulled = np.asarray(getattr(result, "x", result), float) * case.slope
            most = max(np.abs(J.T @ v).max(), size)
            error = np.abs(pulled - J.T @ v).max() / most
            verdict.adjoint = tally.judged("J'v", float(error), needed)


def relative(error, exact, metric, least: float = 0.0) -> float:
    """Return the larger relative error of two: by components, and in the metric."""
    by_component = np.abs(error).max() / max(np.abs(exact).max(), least, 1e-300)
    size = exact @ metric @ exact
    if not size > 1e-6 * np.abs(metric).max() * max(np.abs(exact).max(), least) ** 2:
        return float(by_component)
    return float(max(by_component, np.sqrt(max(error @ metric @ error, 0.0) / size)))


# functions of y with rows, in plain units -----------------------------------------


@dataclasses.dataclass
class Rows:
    """Rows A y + ½ y'W_i y − b − G x, p of them; W is (p, n, n), zero for linear rows."""

    A: np.ndarray
    W: np.ndarray
    b: np.ndarray
    G: np.ndarray

    @property
    def linear(self) -> bool:
        return not self.W.any()

    def value(self, x, y):
        return self.A @ y + 0.5 * (self.W @ y) @ y - self.b - self.G @ x

    def jac(self, y):
        return self.A + self.W @ y


def no_rows(n: int, m: int) -> Rows:
    """Return rows of a problem that has none."""
    return Rows(np.zeros((0, n)), np.zeros((0, n, n)), np.zeros(0), np.zeros((0, m)))


@dataclasses.dataclass
class Smooth:
    """½ y'Q y − y'(B x + c) + Σ w φ(A y + D x), convex; φ by its name."""

    Q: np.ndarray
    B: np.ndarray
    c: np.ndarray
    kind: str
    w: np.ndarray
    A: np.ndarray
    D: np.ndarray

    def _phi(self, z):
        """Return φ and its first two derivatives."""
        if self.kind == "quadratic":
            return 0.0 * z, 0.0 * z, 0.0 * z
        if self.kind == "quartic":
            return z**4 / 4.0, z**3, 3.0 * z**2
        if self.kind == "softplus":
            return np.logaddexp(0.0, z), expit(z), expit(z) * expit(-z)
        root = np.sqrt(1.0 + z**2)
        return root, z / root, root**-3

    def value(self, x, y):
        phi = self._phi(self.A @ y + self.D @ x)[0]
        return 0.5 * y @ (self.Q @ y) - y @ (self.B @ x + self.c) + self.w @ phi

    def grad(self, x, y):
        slope = self._phi(self.A @ y + self.D @ x)[1]
        return self.Q @ y - self.B @ x - self.c + self.A.T @ (self.w * slope)

    def hess(self, x, y):
        return self.Q + self.A.T @ (self._curvature(x, y)[:, None] * self.A)

    def cross(self, x, y):
        return -self.B + self.A.T @ (self._curvature(x, y)[:, None] * self.D)

    def _curvature(self, x, y):
        return self.w * self._phi(self.A @ y + self.D @ x)[2]


@dataclasses.dataclass
class Separable:
    """Σ f_i(y_i) of one parameter each, steep or flat: (f, f', f'', f'_x) by its name."""

    kind: str

    def parts(self, x, y):
        e = 1e-8
        if self.kind == "log":
            parts = (
                -x * np.log(y + e) + y * y / 2.0,
                -x / (y + e) + y,
                x / (y + e) ** 2 + 1.0,
                -1.0 / (y + e),
            )
        elif self.kind == "reciprocal":
            z = y + 1e-5
            parts = (x / z + y, 1.0 - x / z**2, 2.0 * x / z**3, -1.0 / z**2)
        elif self.kind == "exponential":
            d = np.exp(-50.0 * (y - 1.0))
            parts = (
                x * d + y * y / 2.0,
                -50.0 * x * d + y,
                2500.0 * x * d + 1.0,
                -50.0 * d,
            )
        else:  # separable classes under a ridge e^x
            r = np.exp(x)
            parts = (
                np.logaddexp(0.0, -y) + 0.5 * r * y * y,
                -expit(-y) + r * y,
                expit(y) * expit(-y) + r,
                r * y,
            )
        return parts

    def value(self, x, y):
        return float(self.parts(x, y)[0].sum())

    def grad(self, x, y):
        return self.parts(x, y)[1]

    def hess(self, x, y):
        return np.diag(self.parts(x, y)[2])

    def cross(self, x, y):
        return np.diag(self.parts(x, y)[3])


@dataclasses.dataclass
class Plain:
    """A problem in plain units with its minimiser; ``t`` > 0 for a logarithmic barrier."""

    f: Smooth | Separable
    x: np.ndarray
    y: np.ndarray
    equality: Rows
    inequality: Rows
    lower: np.ndarray
    upper: np.ndarray
    multipliers: np.ndarray  # of equality rows, then of inequality rows
    active: np.ndarray  # bool (q,)
    fixed: np.ndarray  # bool (n,)
    maximize: bool = False
    t: float = 0.0
    far: float = 1e6  # how far a start may be
    start: np.ndarray | None = None  # a strictly feasible one, where one is needed
    convex: bool = True

    @property
    def quadratic(self) -> bool:
        smooth = isinstance(self.f, Smooth) and self.f.kind == "quadratic"
        return smooth and self.equality.linear and self.inequality.linear and not self.t

    def kkt(self, y, multipliers):
        """Return the KKT matrix and its right-hand sides −(f_XY; h_X)."""
        n, p = y.shape[0], self.equality.b.shape[0]
        L, X = self.f.hess(self.x, y), self.f.cross(self.x, y)
        if self.t:
            L, X = self.t * L, self.t * X
            g, J = self.inequality.value(self.x, y), self.inequality.jac(y)
            L = (
                L
                + J.T @ (J / g[:, None] ** 2)
                - np.tensordot(1.0 / g, self.inequality.W, 1)
            )
            L = L + np.diag((y - self.lower) ** -2.0 + (self.upper - y) ** -2.0)
            X = X - J.T @ (self.inequality.G / g[:, None] ** 2)
            act, fixed = np.zeros(g.shape, bool), np.zeros(n, bool)
        else:
            L = L + np.tensordot(multipliers[p:], self.inequality.W, 1)
            act, fixed = self.active, self.fixed
        L = L + np.tensordot(multipliers[:p], self.equality.W, 1)
        C = np.vstack(
            [self.equality.jac(y), self.inequality.jac(y)[act], np.eye(n)[fixed]]
        )
        C_x = np.vstack(
            [
                -self.equality.G,
                -self.inequality.G[act],
                np.zeros((int(fixed.sum()), self.x.shape[0])),
            ]
        )
        K = np.block([[L, C.T], [C, np.zeros((C.shape[0], C.shape[0]))]])
        return K, -np.vstack([X, C_x]), L, C

    def jacobian(self, y, multipliers):
        """Return g'(x) by the KKT matrix, or None where that is not regular."""
        K, right, L, C = self.kkt(y, multipliers)
        n = y.shape[0]
        scale = 1.0 / np.sqrt(np.maximum(np.abs(K).max(axis=1), 1e-300))
        K_scaled = scale[:, None] * K * scale
        if np.linalg.cond(K_scaled) > 1e7:
            return None
        Z = np.linalg.svd(C)[2][C.shape[0] :].T if C.size else np.eye(n)
        if Z.size and np.linalg.eigvalsh(Z.T @ L @ Z)[0] <= 0.0:
            return None
        return (scale[:, None] * np.linalg.solve(K_scaled, scale[:, None] * right))[:n]

    def value(self, y) -> float:
        value = float(self.f.value(self.x, y))
        if self.t:
            value *= self.t
            value -= np.log(-self.inequality.value(self.x, y)).sum()
            for slack in (y - self.lower, self.upper - y):
                value -= np.log(slack[np.isfinite(slack)]).sum()
        return value

    def nearest(self, y):
        """Return the local minimiser near y of a problem with several, and its J, value."""
        best, p = self.y, self.equality.b.shape[0]
        if not self.convex and np.isfinite(y).all():
            best = y
            C = self.equality.jac(y)
            nu = -np.linalg.lstsq(C.T, self.f.grad(self.x, y), rcond=None)[0]
            for _ in range(30):
                K = self.kkt(best, nu)[0]
                C = self.equality.jac(best)
                r = np.r_[
                    self.f.grad(self.x, best) + C.T @ nu,
                    self.equality.value(self.x, best),
                ]
                step = np.linalg.lstsq(K, -r, rcond=None)[0]
                best, nu = best + step[:-p], nu + step[-p:]
            J = self.jacobian(best, nu)
            if J is not None and np.abs(best - y).max() < 1e-2:
                return best, J, self.value(best)
        J = self.jacobian(self.y, self.multipliers)
        return self.y, J, self.value(self.y)


# in other units -------------------------------------------------------------------


@dataclasses.dataclass
class Units:
    """c, D, s (in the units of y: y' = D (y + s)), E, and factors of the rows."""

    c: float
    D: np.ndarray
    s: np.ndarray
    E: np.ndarray
    equality: np.ndarray
    inequality: np.ndarray
    near: float = 1.0  # the start's distance from the minimiser; NaN: y' = 0
    dtype: Any = np.float64

    def __str__(self) -> str:
        parts = []
        if self.c != 1.0:
            parts.append(f"c {self.c:.0e}")
        for name, array in (("D", self.D), ("E", self.E)):
            if (array != 1.0).any():
                parts.append(f"{name} {array.min():.0e}..{array.max():.0e}")
        if self.s.any():
            parts.append(f"s {np.abs(self.s).max():.0e}")
        rows = np.r_[self.equality, self.inequality]
        if (rows != 1.0).any():
            parts.append(f"rows {rows.min():.0e}..{rows.max():.0e}")
        parts.append("y0 0" if np.isnan(self.near) else f"y0 {self.near:.0e} off")
        return ", ".join(parts)


class InUnits:
    """The functions of a plain problem in other units, and in a dtype."""

    def __init__(self, plain: Plain, units: Units) -> None:
        self.plain, self.units, self.n = plain, units, plain.y.shape[0]
        self.dtype = units.dtype
        self.c = -units.c if plain.maximize else units.c

    def at(self, x, y):
        u = self.units
        return np.asarray(x, float) / u.E, np.asarray(y, float) / u.D - u.s

    def value(self, x, y):
        return float(self.c * self.plain.f.value(*self.at(x, y)))

    def grad(self, x, y):
        grad = self.plain.f.grad(*self.at(x, y))
        return (self.c * grad / self.units.D).astype(self.dtype)

    def dense_hess(self, x, y):
        D = self.units.D
        H = self.c * self.plain.f.hess(*self.at(x, y))
        return (H / D[:, None] / D).astype(self.dtype)

    def dense_cross(self, x, y):
        X = self.c * self.plain.f.cross(*self.at(x, y))
        return (X / self.units.D[:, None] / self.units.E).astype(self.dtype)


class Explicit(InUnits):
    """The same as an objective with matrices, dense or sparse."""

    def __init__(self, plain: Plain, units: Units, wrap: Callable[[Any], Any]) -> None:
        super().__init__(plain, units)
        self.wrap = wrap

    def hess(self, x, y):
        return self.wrap(self.dense_hess(x, y))

    def cross(self, x, y):
        return self.wrap(self.dense_cross(x, y))


FORMS = ("dense", "csr", "diag", "hvp")


def objective(plain: Plain, units: Units, form: str) -> Any:
    """Return the objective as matrices, or as functions with or without a diagonal."""
    if form in {"dense", "csr"}:
        wrap = np.asarray if form == "dense" else sparse.csr_array
        return Explicit(plain, units, wrap)
    f = InUnits(plain, units)
    found = sad.FunctionObjective(
        value=f.value,
        grad=f.grad,
        hvp=lambda x, y, v: f.dense_hess(x, y) @ v,
        cross_jvp=lambda x, y, u: f.dense_cross(x, y) @ u,
        cross_vjp=lambda x, y, w: f.dense_cross(x, y).T @ w,
        hess_diag=(lambda x, y: np.diagonal(f.dense_hess(x, y)).copy())
        if form == "diag"
        else None,
        n=f.n,
    )
    found.dtype = f.dtype
    return found


def constraint(rows: Rows, factors, plain: Plain, units: Units, kind: Any, wrap: Any):
    """Return rows in other units as a constraint; None for none."""
    if not rows.b.shape[0]:
        return None
    f, D, dtype = InUnits(plain, units), units.D, units.dtype
    if kind is sad.LinearEquality:
        G = -(factors[:, None] * rows.G / units.E).astype(dtype)
        b = rows.b + rows.A @ units.s
        return kind(
            wrap((factors[:, None] * rows.A / D).astype(dtype)),
            lambda x: (factors * b).astype(dtype) - G @ x,
            b_jvp=lambda x, u: -(G @ u),
            b_vjp=lambda x, w: -(G.T @ w),
        )

    def hess(x, y, multipliers):
        W = np.tensordot(factors * multipliers, rows.W, 1)
        return (W / D[:, None] / D).astype(dtype)

    return kind(
        lambda x, y: (factors * rows.value(*f.at(x, y))).astype(dtype),
        lambda x, y: wrap(
            (factors[:, None] * rows.jac(f.at(x, y)[1]) / D).astype(dtype)
        ),
        hess=None if rows.linear else hess,
        jac_x=lambda x, y: -(factors[:, None] * rows.G / units.E).astype(dtype),
    )


def pose_plain(plain: Plain, units: Units, form: str, rng: Any, options: Any) -> Posed:
    """Return a plain problem in other units, its objective in that form."""
    D, s, E, dtype = units.D, units.s, units.E, units.dtype
    wrap = np.asarray if form != "csr" else sparse.csr_array
    eq = plain.equality
    kind = sad.LinearEquality if eq.linear else sad.Equality
    bounds = {
        name: ((bound + s) * D).astype(dtype)
        for name, bound in (("lower", plain.lower), ("upper", plain.upper))
        if np.isfinite(bound).any()
    }
    problem = sad.Problem(
        objective(plain, units, form),
        equality=constraint(eq, units.equality, plain, units, kind, wrap),
        inequality=constraint(
            plain.inequality, units.inequality, plain, units, sad.Inequality, wrap
        ),
        maximize=plain.maximize,
        **bounds,
    )
    weight, offset = (-units.c if plain.maximize else units.c), 0.0
    if plain.t:
        problem, weight = sad.LogBarrier(problem, plain.t / units.c), 1.0
        finite = np.isfinite(plain.lower) * 1.0 + np.isfinite(plain.upper)
        offset = -np.log(units.inequality).sum() - finite @ np.log(D)
    forth = lambda y: (y + s) * D
    start = 0.0 * D if np.isnan(units.near) else forth(start_of(plain, units, rng))
    return Posed(
        problem,
        (E * plain.x).astype(dtype),
        start.astype(dtype),
        forth=forth,
        back=lambda y: np.asarray(y, float) / D - s,
        tangent=lambda dy: dy / D,
        cotangent=lambda v: v / D,
        slope=E,
        truth=plain.nearest,
        value=lambda value: (value - offset) / weight,
        metric=metric_of(plain),
        known_diagonal=form != "hvp",
        units=f"{form}, {units}",
        shift=float(np.abs(s).max()),
        quadratic=plain.quadratic,
        options=options,
        dtype=dtype,
    )


def metric_of(plain: Plain) -> np.ndarray:
    """Return the Hessian in whose norm an error of y is measured."""
    H = plain.f.hess(plain.x, plain.y)
    return plain.t * H if plain.t else H


def start_of(plain: Plain, units: Units, rng: np.random.Generator) -> np.ndarray:
    """Return a start in plain units, as far from the minimiser as the units say."""
    if plain.start is not None and units.near >= 1.0:
        return plain.start
    direction = rng.standard_normal(plain.y.shape[0])
    near = min(units.near, plain.far)
    if not plain.t:
        y0 = plain.y + near * direction
        return np.abs(y0) if isinstance(plain.f, Separable) else y0
    for _ in range(60):  # strictly inside
        y0 = plain.y + near * direction
        slacks = [-plain.inequality.value(plain.x, y0), y0 - plain.lower]
        if all((slack > 0.0).all() for slack in (*slacks, plain.upper - y0)):
            break
        near *= 0.7
    return y0


# problems, drawn at random --------------------------------------------------------


def _spd(rng, n: int, condition: float) -> np.ndarray:
    q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    H = (q * np.geomspace(1.0, condition, n)) @ q.T
    return 0.5 * (H + H.T)


def _rows(rng, p: int, n: int, m: int, curved: bool) -> Rows:
    """Return rows that are convex functions of y; b is not yet set."""
    W = np.zeros((p, n, n))
    if curved:
        W = np.array([0.3 * _spd(rng, n, 5.0) for _ in range(p)]).reshape(p, n, n)
    A, G = rng.standard_normal((p, n)), rng.standard_normal((p, m))
    return Rows(A, W, np.zeros(p), G)


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a class of smooth problems has."""

    phi: tuple[str, ...] = ("quadratic", "quartic", "softplus", "root")
    equalities: int = 0
    curved: bool = False  # the equality rows
    inequalities: int = 0
    curved_inequalities: bool = False
    bounds: bool = False
    barrier: bool = False
    maximize: bool = False
    redundant: bool = False  # a third equality row that is the sum of two others
    apart: bool = False  # which x moves away from that sum
    flat: bool = False  # a quadratic program of few curvatures
    forms: tuple[str, ...] = FORMS


def draw_smooth(kind: Kind, rng: np.random.Generator, single: bool) -> Plain:
    """Draw a problem of that kind until its minimiser is regular."""
    while True:
        plain = _draw_smooth(kind, rng, single)
        J = plain.jacobian(plain.y, plain.multipliers)
        if J is not None and np.abs(J).max() < 1e3:
            break
    if kind.redundant:
        answer = plain.y, None if kind.apart else J, plain.value(plain.y)
        plain.nearest = lambda _: answer
        plain.equality = _summed(plain.equality)
        if kind.apart:
            G = rng.standard_normal(plain.x.size)
            plain.equality.G[2] += G
            plain.equality.b[2] -= G @ plain.x
    return plain


def _summed(rows: Rows) -> Rows:
    """Return the rows with the sum of the first two as another one."""
    parts = (getattr(rows, field.name) for field in dataclasses.fields(rows))
    return Rows(*(np.concatenate([part, part[:1] + part[1:2]]) for part in parts))


def _draw_smooth(kind: Kind, rng: np.random.Generator, single: bool) -> Plain:
    n, m = int(rng.integers(4, 8)), int(rng.integers(2, 4))
    condition = 10.0 ** rng.uniform(0.5, 1.5 if single else 3.0)
    Q = _spd(rng, n, condition) / np.sqrt(condition)
    p, q = kind.equalities, kind.inequalities
    if kind.flat:
        n, p = 12, 5
        Q = np.diag(np.where(rng.random(n) < 0.3, 1.0, 0.0))
    k = int(rng.integers(1, 6))
    f = Smooth(
        Q,
        rng.standard_normal((n, m)),
        np.zeros(n),
        str(rng.choice(kind.phi)),
        rng.uniform(0.2, 2.0, k),
        rng.standard_normal((k, n)),
        rng.standard_normal((k, m)),
    )
    x, y = rng.standard_normal(m), rng.uniform(0.3, 2.0, n) * rng.choice([-1, 1], n)
    lower, upper = np.full(n, -np.inf), np.full(n, np.inf)
    fixed, pull = np.zeros(n, bool), np.zeros(n)
    if kind.bounds:
        lower, upper, fixed, pull = _draw_bounds(kind, rng, y)
    equality = _rows(rng, p, n, m, kind.curved)
    equality.b = equality.value(x, y)
    inequality = _rows(rng, q, n, m, kind.curved_inequalities)
    active = (rng.random(q) < 0.5) & (not kind.barrier)
    inequality.b = inequality.value(x, y) + np.where(active, 0, rng.uniform(0.3, 2, q))
    multipliers = np.r_[
        rng.standard_normal(p), np.where(active, rng.uniform(0.3, 3.0, q), 0.0)
    ]
    plain = Plain(
        f, x, y, equality, inequality, lower, upper, multipliers, active, fixed
    )
    plain.maximize, plain.convex = kind.maximize, not kind.curved
    plain.t = float(10.0 ** rng.uniform(0.0, 3.0)) if kind.barrier else 0.0
    force = f.grad(x, y) - pull + equality.jac(y).T @ multipliers[:p]
    if kind.barrier:
        g = inequality.value(x, y)
        force = force - inequality.jac(y).T @ (1.0 / g) / plain.t
        force = force - (1.0 / (y - lower) - 1.0 / (upper - y)) / plain.t
    else:
        force = force + inequality.jac(y).T @ multipliers[p:]
    f.c = force
    return plain


def _draw_bounds(kind: Kind, rng: np.random.Generator, y: np.ndarray):
    """Return bounds around y, which of them are active, and their forces."""
    n = y.shape[0]
    lower, upper = y - rng.uniform(0.3, 2.0, n), y + rng.uniform(0.3, 2.0, n)
    fixed = (rng.random(n) < 0.4) & (not kind.barrier)
    if kind.flat:
        y[:] = np.where(rng.random(n) < 0.5, np.abs(y), 0.0)
        fixed, below, lower, upper = y == 0.0, y == 0.0, 0.0 * y, np.inf + y
    else:
        below = fixed & (rng.random(n) < 0.5)
        lower[below], upper[fixed & ~below] = y[below], y[fixed & ~below]
        lower[rng.random(n) < 0.2] = -np.inf
        fixed &= (lower == y) | (upper == y)
        below = fixed & (lower == y)
    pull = np.where(fixed, rng.uniform(0.3, 3.0, n), 0.0)
    return lower, upper, fixed, np.where(below, pull, -pull)


KINDS = {
    "free-dense": Kind(forms=("dense",)),
    "free-csr": Kind(forms=("csr",)),
    "free-diag": Kind(forms=("diag",)),
    "free-hvp": Kind(forms=("hvp",)),
    "argmax": Kind(maximize=True),
    "linear-equality": Kind(equalities=2),
    "redundant-equality": Kind(equalities=2, redundant=True),
    "rows-apart": Kind(equalities=2, redundant=True, apart=True),
    "curved-equality": Kind(equalities=2, curved=True),
    "inequality": Kind(inequalities=4),
    "curved-inequality": Kind(inequalities=3, curved_inequalities=True),
    "bounds": Kind(bounds=True),
    "mixed": Kind(equalities=1, inequalities=2, bounds=True),
    "flat-program": Kind(phi=("quadratic",), equalities=5, bounds=True, flat=True),
    "barrier": Kind(inequalities=3, bounds=True, barrier=True),
    "barrier-equality": Kind(inequalities=3, equalities=1, barrier=True),
}
SEPARABLE = ("log", "reciprocal", "exponential", "ridge")


def draw_separable(kind: str, rng: np.random.Generator) -> Plain:
    """Draw a sum of functions that are steep at 0, or flat around their minimisers."""
    n = int(rng.integers(1, 4))
    x, f = rng.uniform(1.0, 9.0, n), Separable(kind)
    start = np.full(n, float(rng.choice([1.5, 3.0, 10.0])))
    if kind == "log":
        y = 0.5 * (-1e-8 + np.sqrt(1e-16 + 4.0 * x))
    elif kind == "reciprocal":
        y = np.sqrt(x) - 1e-5
    else:
        if kind == "ridge":
            x, start = rng.uniform(-25.0, -4.0, n), np.zeros(n)
        low, high = np.zeros(n), np.full(n, 50.0)
        for _ in range(200):
            y = 0.5 * (low + high)
            above = f.grad(x, y) > 0.0
            low, high = np.where(above, low, y), np.where(above, y, high)
    none, free = no_rows(n, n), np.full(n, np.inf)
    nothing = np.zeros(0)
    return Plain(
        f, x, y, none, none, -free, free, nothing, nothing > 0, free < 0, start=start
    )


# changes of units -----------------------------------------------------------------


def _decades(rng, most: float, n: int) -> np.ndarray:
    return 10.0 ** rng.uniform(-most, most, n)


def _sign(rng) -> float:
    return float(rng.choice([-1.0, 1.0]))


def change_f(u: Units, rng) -> None:
    u.c = float(10.0 ** (rng.choice([-12.0, -6.0, 6.0, 12.0])))


def change_y4(u: Units, rng) -> None:
    u.D = _decades(rng, 4.0, u.D.size)


def change_y8(u: Units, rng) -> None:
    u.D = _decades(rng, 8.0, u.D.size)


def change_all_y(u: Units, rng) -> None:
    u.D = np.full(u.D.size, 10.0 ** (_sign(rng) * rng.uniform(6.0, 12.0)))
    u.near = float(rng.choice([1.0, np.nan]))


def shift(u: Units, rng) -> None:
    u.s = 10.0 ** rng.uniform(2.0, 6.0) * rng.standard_normal(u.s.size)
    u.near = float(rng.choice([1.0, np.nan, 1e-6]))


def change_rows(u: Units, rng) -> None:
    u.equality = _decades(rng, 6.0, u.equality.size)
    u.inequality = _decades(rng, 6.0, u.inequality.size)


def change_x(u: Units, rng) -> None:
    u.E = _decades(rng, 6.0, u.E.size)


def start_elsewhere(u: Units, rng) -> None:
    u.near = float(rng.choice([1e6, 1e4, 1e-6]))


def single(u: Units, rng) -> None:
    u.dtype = np.float32


def _combined(*changes):
    def change(u: Units, rng) -> None:
        for one in changes:
            one(u, rng)

    return change


def plain_units(u: Units, rng) -> None:
    u.near = float(rng.choice([1.0, np.nan]))


CHANGES: dict[str, Callable[[Units, Any], None]] = {
    "none": plain_units,
    "f": change_f,
    "y4": change_y4,
    "y8": change_y8,
    "all-y": change_all_y,
    "shift": shift,
    "rows": change_rows,
    "x": change_x,
    "start": start_elsewhere,
    "float32": single,
    "float32-tiny": _combined(single, change_all_y),
    "y8+f+x": _combined(change_y8, change_f, change_x),
    "y8+rows+start": _combined(change_y8, change_rows, start_elsewhere),
    "y4+shift+f": _combined(change_y4, shift, change_f),
}
FLAT_CHANGES = ("none", "f", "y4", "y8", "all-y", "x", "y8+f+x")


def pose_smooth(name: str, change: str, rng: np.random.Generator) -> Posed:
    """Draw a problem of functions, and pose it in other units."""
    is_single = change.startswith("float32")
    if name in KINDS:
        kind = KINDS[name]
        plain = draw_smooth(kind, rng, is_single)
    else:
        kind = Kind()
        plain = draw_separable(name, rng)
    n, m = plain.y.size, plain.x.size
    sizes = plain.equality.b.size, plain.inequality.b.size
    units = Units(
        1.0, np.ones(n), np.zeros(n), np.ones(m), *(np.ones(size) for size in sizes)
    )
    CHANGES[change](units, rng)
    if name not in KINDS:
        units.near = 1.0  # the others are outside the domain, or known to be far
    if plain.t and np.isnan(units.near):
        units.near = 1.0
    if is_single and change != "float32":
        units.D = np.full(n, 10.0 ** rng.uniform(-15.0, -8.0))
    form = str(rng.choice(kind.forms))
    options: dict[str, Any] = {}
    constrained = sum(sizes) or np.isfinite(plain.lower).any()
    if rng.random() < 0.1 and not constrained:
        options = {"method": "minres"}
    return pose_plain(plain, units, form, rng, options)


# linear models --------------------------------------------------------------------


@dataclasses.dataclass
class PlainGlm:
    """A ridge model of standard columns, solved by dense Newton; ``weight`` of e^x."""

    features: np.ndarray  # (N, p)
    targets: np.ndarray  # (N,) or (N, K), as the loss's formula takes them
    loss: str
    x: np.ndarray
    outputs: int

    def slope(self, Z):
        """Return ℓ, its slopes (N, K) and curvatures (N, K, K)."""
        T, one = self.targets, np.ones((Z.shape[0], 1, 1))
        if self.loss == "squared":
            return 0.5 * (Z - T) ** 2, Z - T, one
        if self.loss == "logistic":
            return (
                np.logaddexp(0.0, Z) - T * Z,
                expit(Z) - T,
                (expit(Z) * expit(-Z))[:, :, None],
            )
        if self.loss == "poisson":
            mean = np.exp(np.minimum(Z, 300.0))
            return mean - T * Z, mean - T, mean[:, :, None]
        if self.loss == "huber":
            r = Z - T
            inner = np.clip(r, -1.35, 1.35)
            return (
                inner * (r - 0.5 * inner),
                inner,
                one * (np.abs(r) <= 1.35)[:, :, None],
            )
        P = softmax(Z, axis=1)
        top = Z.max(axis=1, keepdims=True)
        value = np.log(np.exp(Z - top).sum(axis=1, keepdims=True)) + top
        value = value - (T * Z).sum(axis=1, keepdims=True)
        return (
            value,
            P - T,
            P[:, :, None] * np.eye(Z.shape[1]) - P[:, :, None] * P[:, None],
        )

    def model(self, y):
        """Return f, f_Y and f_YY at y = (c, b)."""
        N, p = self.features.shape
        K = self.outputs
        A = np.hstack([self.features, np.ones((N, 1))])
        value, slope, curvature = self.slope(A @ y.reshape(p + 1, K))
        weights = np.r_[np.repeat(np.exp(self.x), K), np.zeros(K)]
        grad = (A.T @ slope / N).ravel() + weights * y
        H = np.einsum("ni,nkl,nj->ikjl", A, curvature, A).reshape(y.size, y.size) / N
        H += np.diag(weights)
        f = value.sum() / N + 0.5 * weights @ y**2
        if K > 1:
            f += 0.5 * (y[-K:].sum() / K) ** 2
            grad[-K:] += y[-K:].sum() / K**2
            H[-K:, -K:] += 1.0 / K**2
        return f, grad, H

    def minimum(self):
        """Return y, J, f and f_YY; None where f_YY is nearly singular."""
        y = np.zeros((self.features.shape[1] + 1) * self.outputs)
        for _ in range(300):
            f, grad, H = self.model(y)
            step, t = np.linalg.solve(H + 1e-13 * np.eye(y.size), grad), 1.0
            while t > 1e-8 and not self.model(y - t * step)[0] <= f + 1e-14 * abs(f):
                t *= 0.5
            y = y - t * step
            if np.abs(t * step).max() <= 1e-15 * np.abs(y).max():
                break
        f, grad, H = self.model(y)
        if np.abs(np.linalg.solve(H, grad)).max() > 1e-11 or np.linalg.cond(H) > 1e8:
            return None
        m, K = self.x.size, self.outputs
        cross = np.zeros((y.size, m))
        weights = np.repeat(np.exp(self.x), K) * y[: m * K]
        cross[np.arange(m * K), np.repeat(np.arange(m), K)] = weights
        return y, -np.linalg.solve(H, cross), f, H


class Times:
    """An objective times a number."""

    def __init__(self, f: Any, c: float) -> None:
        self.f, self.c, self.n, self.dtype = f, c, f.n, f.dtype

    def value(self, x, y):
        return self.c * self.f.value(x, y)

    def grad(self, x, y):
        return self.f.grad(x, y) * np.asarray(self.c, self.dtype)

    def hess(self, x, y):
        return self.c * sad.aslinearoperator(self.f.hess(x, y))

    def cross(self, x, y):
        return self.c * sad.aslinearoperator(self.f.cross(x, y))


LOSSES = ("squared", "logistic", "huber", "poisson", "multinomial")
GLM_CHANGES = (
    "none",
    "f",
    "columns4",
    "columns8",
    "one-column",
    "all-columns",
    "time",
    "start",
    "targets",
    "float32",
    "columns8+f+start",
    "time+columns8",
)


def _draw_glm(loss: str, rng: np.random.Generator) -> PlainGlm:
    N, p = int(rng.integers(30, 70)), int(rng.integers(3, 7))
    K = 3 if loss == "multinomial" else 1
    features = rng.standard_normal((N, p))
    features[rng.random((N, p)) < 0.4] = 0.0
    Z = features @ rng.standard_normal((p, K)) + 0.5 * rng.standard_normal((N, K))
    if loss == "logistic":
        targets = 1.0 * (rng.random((N, 1)) < expit(Z))
    elif loss == "poisson":
        targets = 1.0 * rng.poisson(np.exp(np.clip(0.5 * Z, -2.0, 2.0)))
    elif loss == "multinomial":
        targets = np.eye(3)[np.argmax(Z + rng.gumbel(size=Z.shape), axis=1)]
    else:
        targets = Z + (rng.standard_t(2, (N, K)) if loss == "huber" else 0.0)
    return PlainGlm(features, targets, loss, rng.uniform(-6.0, 0.0, p), K)


@dataclasses.dataclass
class ModelUnits:
    """Columns' factors, a time's mean over its spread, c, the targets' factor, the start."""

    columns: np.ndarray
    times: tuple[float, float] | None = None  # mean and spread of column 0
    c: float = 1.0
    targets: float = 1.0
    near: float = np.nan
    dtype: Any = np.float64

    def __str__(self) -> str:
        low, high = self.columns.min(), self.columns.max()
        start = "0" if np.isnan(self.near) else f"{self.near:.0e} off"
        time = (
            "" if self.times is None else ", time {:.1e} ± {:.1e}".format(*self.times)
        )
        return (
            f"c {self.c:.0e}, columns {low:.0e}..{high:.0e}{time}, "
            f"targets {self.targets:.0e}, y0 {start}"
        )


def _model_units(loss: str, change: str, p: int, rng: Any) -> ModelUnits:
    u = ModelUnits(np.ones(p))
    if "columns4" in change:
        u.columns = _decades(rng, 4.0, p)
    if "columns8" in change:
        u.columns = _decades(rng, 8.0, p)
    if change == "one-column":
        u.columns[int(rng.integers(p))] = 10.0 ** (_sign(rng) * rng.uniform(6.0, 10.0))
    if change == "all-columns":
        u.columns[:] = 10.0 ** (_sign(rng) * 8.0)
    if "time" in change:
        second = float(rng.choice([1.0 / 86400.0, 1.0, 1e3]))
        spread = 3e7 * 10.0 ** rng.uniform(-2.5, 0.0)
        u.times = (1.7e9 * second, spread * second)
    if change == "f" or "+f" in change:
        u.c = float(10.0 ** rng.choice([-12.0, -6.0, 6.0, 12.0]))
    if "start" in change:
        u.near = float(rng.choice([30.0 if loss == "poisson" else 1e6, 100.0, 1e-6]))
        if loss == "poisson":
            u.near = min(u.near, 30.0)
    if change == "targets":
        u.targets = 10.0 ** (_sign(rng) * rng.uniform(6.0, 12.0))
    if change == "float32":
        u.dtype = np.float32
    return u


def pose_glm(name: str, change: str, rng: np.random.Generator) -> Posed:
    """Draw a linear model and pose it in other units."""
    loss = name.removeprefix("glm-")
    while True:
        plain = _draw_glm(loss, rng)
        N, p = plain.features.shape
        u = _model_units(loss, change, p, rng)
        posed_features = plain.features * u.columns
        mean, spread = np.zeros(p), u.columns.copy()
        if u.times is not None:
            column = np.round(u.times[0] + u.times[1] * rng.standard_normal(N), 3)
            posed_features[:, 0], mean[0], spread[0] = column, *u.times
            plain.features[:, 0] = (column - mean[0]) / spread[0]
        if u.dtype == np.float32:
            plain.features = plain.features.astype(np.float32).astype(float)
            posed_features = plain.features.astype(np.float32)
            plain.targets = plain.targets.astype(np.float32).astype(float)
            plain.x = plain.x.astype(np.float32).astype(float)
        found = plain.minimum()
        if found is not None:
            break
    y, J, value, H = found
    K, tau = plain.outputs, u.targets
    form = str(rng.choice(["dense", "csr"]))
    targets = plain.targets.argmax(axis=1) * 1.0 if K > 1 else plain.targets[:, 0] * tau
    scaled_loss = sad.linear_model.Huber(1.35 * tau) if loss == "huber" else loss
    glm = Glm(
        posed_features if form == "dense" else sparse.csr_array(posed_features),
        targets.astype(u.dtype),
        loss=scaled_loss,
    )

    def to(c, factors, move):  # along the columns; the intercept takes what is left
        c = np.array(c, float).reshape(p + 1, K)
        c[:p] *= factors[:, None]
        c[p] += move @ c[:p]
        return c.ravel()

    def forth(y):
        return tau * to(y, 1.0 / spread, -mean)

    def back(y):
        return to(np.asarray(y, float) / tau, spread, mean / spread)

    def cotangent(v):  # the transpose of ``back``
        v = np.array(v, float).reshape(p + 1, K)
        v[:p] = (v[:p] + (mean / spread)[:, None] * v[p]) * spread[:, None]
        return v.ravel() / tau

    y0 = (
        0.0 * y if np.isnan(u.near) else forth(y + u.near * rng.standard_normal(y.size))
    )
    weight = u.c * tau**2 if tau != 1.0 else u.c
    return Posed(
        sad.Problem(glm if u.c == 1.0 else Times(glm, u.c)),
        (plain.x + 2.0 * np.log(spread)).astype(u.dtype),
        y0.astype(u.dtype),
        forth=forth,
        back=back,
        tangent=back,
        cotangent=cotangent,
        slope=np.ones(p),
        truth=lambda _: (y, J, value),
        value=lambda found: found / weight,
        metric=H,
        known_diagonal=True,
        units=f"{form}, {u}",
        dtype=u.dtype,
    )


# all of them ----------------------------------------------------------------------


def pairs() -> Iterator[tuple[str, str]]:
    """Return every class with every change of units that it has."""
    for name, kind in KINDS.items():
        rows = kind.equalities or kind.inequalities
        for change in CHANGES:
            if change == "rows" and not rows:
                continue
            yield name, change
    for name in SEPARABLE:
        for change in FLAT_CHANGES:
            yield name, change
    for loss in LOSSES:
        for change in GLM_CHANGES:
            if change == "targets" and loss not in {"squared", "huber"}:
                continue
            yield f"glm-{loss}", change


def pose(name: str, change: str, *seed: int) -> tuple[Posed, np.random.Generator]:
    """Return the case of that class, change of units and seed, and its generator."""
    key = zlib.crc32(f"{name}/{change}".encode())
    rng = np.random.default_rng([*seed, key])
    make = pose_glm if name.startswith("glm-") else pose_smooth
    return make(name, change, rng), rng
