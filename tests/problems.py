"""Small problems with known answers: one row per problem class.

    f(x, y),    y = g(x),    J = g'(x) = − f_YY⁻¹ f_XY

``dense_hess`` and ``dense_cross`` are written down a second time, as matrices, and
``Row.solution`` is a closed form or a dense Newton method: nothing here calls the code
that is tested.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
from scipy.special import logsumexp, softmax

import sparse_argdiff as sad

Function = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """One problem; ``y`` and ``jacobian`` are closed forms, where one exists."""

    name: str
    problem: sad.Problem
    x: np.ndarray
    y0: np.ndarray
    dense_hess: Function  # of the user's f, also where it is maximised
    dense_cross: Function
    y: Function | None = None  # x -> y
    jacobian: Function | None = None  # x, y -> J
    method: str = "cg"  # for the adjoint
    quadratic: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def objective(self) -> Any:
        return self.problem.objective

    @property
    def n(self) -> int:
        return self.y0.shape[0]

    @property
    def m(self) -> int:
        return self.x.shape[0]

    def solution(self, x: np.ndarray | None = None) -> np.ndarray:
        """Return y at x, to rounding: the closed form, or damped dense Newton."""
        x = self.x if x is None else x
        if self.y is not None:
            return self.y(x)
        y, grad = self.y0, self.objective.grad
        for _ in range(200):
            g = grad(x, y)
            step, t = np.linalg.solve(self.dense_hess(x, y), g), 1.0
            while t > 1e-3 and np.linalg.norm(grad(x, y - t * step)) > np.linalg.norm(
                g
            ):
                t *= 0.5
            y = y - t * step
            if np.linalg.norm(step) <= 1e-15 * np.linalg.norm(y):
                break
        return y

    def dense_jacobian(self) -> np.ndarray:
        """Return J at ``x`` by dense linear algebra."""
        y = self.solution()
        return -np.linalg.solve(self.dense_hess(self.x, y), self.dense_cross(self.x, y))

    def at_solution(self, **fields: Any) -> sad.Solution:
        """Return the solution as one that came from elsewhere."""
        return sad.Solution(y=self.solution(), x=self.x, **fields)


# wrappers -------------------------------------------------------------------------


class Counting:
    """An objective that counts what it is asked for, in ``counts``."""

    def __init__(self, objective: Any) -> None:
        self.objective = objective
        self.counts: Counter[str] = Counter()
        self.n = getattr(objective, "n", None)
        self.value = None if objective.value is None else self._value

    def _value(self, x, y):
        self.counts["value"] += 1
        return self.objective.value(x, y)

    def grad(self, x, y):
        self.counts["grad"] += 1
        return self.objective.grad(x, y)

    def hess(self, x, y):
        self.counts["hess"] += 1
        inner = sad.aslinearoperator(self.objective.hess(x, y))

        def product(v):
            self.counts["hvp"] += 1
            return inner.matvec(v)

        return sad.LinearOperator(
            inner.shape,
            product,
            product,
            diagonal=inner.diagonal if inner.has_diagonal else None,
            structure=sad.Structure(accuracy=inner.accuracy, note=inner.note),
        )

    def cross(self, x, y):
        self.counts["cross"] += 1
        return self.objective.cross(x, y)


def counted(problem: sad.Problem) -> tuple[sad.Problem, Counter[str]]:
    """Return the problem with a counting objective, and the counts."""
    objective = Counting(problem.objective)
    return sad.Problem(objective, maximize=problem.maximize), objective.counts


class Scaled:
    """An objective in other units."""

    def __init__(self, objective: Any, factor: float) -> None:
        self.objective = objective
        self.factor = factor
        self.n = getattr(objective, "n", None)

    def value(self, x, y):
        return self.factor * self.objective.value(x, y)

    def grad(self, x, y):
        return self.factor * self.objective.grad(x, y)

    def hess(self, x, y):
        return self.factor * sad.aslinearoperator(self.objective.hess(x, y))

    def cross(self, x, y):
        return self.factor * sad.aslinearoperator(self.objective.cross(x, y))


def scaled(problem: sad.Problem, factor: float) -> sad.Problem:
    """Return the problem in other units of f."""
    return sad.Problem(Scaled(problem.objective, factor), maximize=problem.maximize)


def without(problem: sad.Problem, *missing: str) -> sad.Problem:
    """Return the problem with some of its functions left out."""
    f = problem.objective
    as_operator = sad.aslinearoperator
    functions = {
        "value": f.value,
        "grad": f.grad,
        "hvp": lambda x, y, v: as_operator(f.hess(x, y)) @ v,
        "cross_jvp": lambda x, y, u: as_operator(f.cross(x, y)) @ u,
        "cross_vjp": lambda x, y, w: as_operator(f.cross(x, y)).T @ w,
    }
    for name in missing:
        del functions[name]
    objective = sad.FunctionObjective(**functions, n=getattr(f, "n", None))
    return sad.Problem(objective, maximize=problem.maximize)


# the rows -------------------------------------------------------------------------


def random_spd(rng: np.random.Generator, n: int, condition: float = 30.0) -> np.ndarray:
    """Return a symmetric positive definite matrix with eigenvalues in [1, condition]."""
    q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    H = (q * np.geomspace(1.0, condition, n)) @ q.T
    return 0.5 * (H + H.T)


def spectral(eigenvalues: Any, seed: int = 0) -> np.ndarray:
    """Build a symmetric matrix with these eigenvalues and random eigenvectors."""
    lam = np.asarray(eigenvalues, dtype=float)
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((lam.size, lam.size)))[0]
    A = (Q * lam) @ Q.T
    return (A + A.T) / 2.0


def quadratic_objective(
    H: np.ndarray, B: np.ndarray, c: np.ndarray | None = None, *, diag: bool = False
) -> sad.FunctionObjective:
    """Return ½ y'Hy − y'(B x + c); the dtype is that of H."""
    c = np.zeros(H.shape[0], dtype=H.dtype) if c is None else c
    return sad.FunctionObjective(
        value=lambda x, y: 0.5 * y @ (H @ y) - y @ (B @ x + c),
        grad=lambda x, y: H @ y - B @ x - c,
        hvp=lambda x, y, v: H @ v,
        cross_jvp=lambda x, y, u: -(B @ u),
        cross_vjp=lambda x, y, w: -(B.T @ w),
        hess_diag=(lambda x, y: np.diagonal(H)) if diag else None,
        n=H.shape[0],
    )


def _quadratic(name, H, B, c, x, *, method="cg", diag=False) -> Row:
    return Row(
        name,
        sad.Problem(quadratic_objective(H, B, c, diag=diag)),
        x,
        y0=np.zeros(H.shape[0]),
        dense_hess=lambda x, y: H,
        dense_cross=lambda x, y: -B,
        y=lambda x: np.linalg.solve(H, B @ x + c),
        jacobian=lambda x, y: np.linalg.solve(H, B),
        method=method,
        quadratic=True,
    )


def _random_quadratic(name: str, n: int, m: int, seed: int) -> Row:
    rng = np.random.default_rng(seed)
    return _quadratic(
        name,
        random_spd(rng, n),
        rng.standard_normal((n, m)),
        rng.standard_normal(n),
        rng.standard_normal(m),
    )


def _badly_scaled() -> Row:
    """Return a quadratic whose diagonal spans four decades, and is known."""
    rng = np.random.default_rng(5)
    n, m = 25, 3
    d = np.geomspace(1.0, 1e2, n)
    H = d[:, None] * random_spd(rng, n, 3.0) * d
    B, c = d[:, None] * rng.standard_normal((n, m)), d * rng.standard_normal(n)
    return _quadratic("badly_scaled", H, B, c, rng.standard_normal(m), diag=True)


def _saddle() -> Row:
    rng = np.random.default_rng(6)
    H = random_spd(rng, 7)
    values, vectors = np.linalg.eigh(H)
    H = (vectors * (values * [1, -1, 1, 1, -1, 1, 1])) @ vectors.T
    H = 0.5 * (H + H.T)
    B = rng.standard_normal((7, 4))
    c, x = rng.standard_normal(7), rng.standard_normal(4)
    return _quadratic("saddle", H, B, c, x, method="minres")


def _scalar() -> Row:
    """Return ½ eˣ y² − y: y = e⁻ˣ."""
    objective = sad.FunctionObjective(
        value=lambda x, y: float(0.5 * np.exp(x[0]) * y[0] ** 2 - y[0]),
        grad=lambda x, y: np.exp(x) * y - 1.0,
        hvp=lambda x, y, v: np.exp(x) * v,
        cross_jvp=lambda x, y, u: np.exp(x) * y * u,
        cross_vjp=lambda x, y, w: np.exp(x) * y * w,
        n=1,
    )
    return Row(
        "scalar",
        sad.Problem(objective),
        np.array([0.7]),
        y0=np.zeros(1),
        dense_hess=lambda x, y: np.exp(x)[:, None],
        dense_cross=lambda x, y: (np.exp(x) * y)[:, None],
        y=lambda x: np.exp(-x),
        jacobian=lambda x, y: -np.exp(-x)[:, None],
        quadratic=True,
    )


def log_sum_exp_objective(
    A: np.ndarray, C: np.ndarray, d: np.ndarray, ridge: float
) -> sad.FunctionObjective:
    """Return log Σ exp(A y + C x) + ½ ridge ‖y‖² − d'y."""

    def spread(x, y, t):
        p = softmax(A @ y + C @ x)
        return p * (t - p @ t)

    return sad.FunctionObjective(
        value=lambda x, y: float(
            logsumexp(A @ y + C @ x) + 0.5 * ridge * (y @ y) - d @ y
        ),
        grad=lambda x, y: A.T @ softmax(A @ y + C @ x) + ridge * y - d,
        hvp=lambda x, y, v: A.T @ spread(x, y, A @ v) + ridge * v,
        cross_jvp=lambda x, y, u: A.T @ spread(x, y, C @ u),
        cross_vjp=lambda x, y, w: C.T @ spread(x, y, A @ w),
        n=A.shape[1],
    )


def _log_sum_exp() -> Row:
    rng = np.random.default_rng(7)
    A, C = rng.standard_normal((9, 6)), rng.standard_normal((9, 4))
    d, ridge = rng.standard_normal(6), 0.1

    def covariance(x, y):
        p = softmax(A @ y + C @ x)
        return np.diag(p) - np.outer(p, p)

    return Row(
        "log_sum_exp",
        sad.Problem(log_sum_exp_objective(A, C, d, ridge)),
        rng.standard_normal(4),
        y0=np.zeros(6),
        dense_hess=lambda x, y: A.T @ covariance(x, y) @ A + ridge * np.eye(6),
        dense_cross=lambda x, y: A.T @ covariance(x, y) @ C,
    )


def _argmax() -> Row:
    """Return argmax Σ x_i y_i − exp(y_i): y = log x."""
    objective = sad.FunctionObjective(
        value=lambda x, y: float(x @ y - np.exp(y).sum()),
        grad=lambda x, y: x - np.exp(y),
        hvp=lambda x, y, v: -np.exp(y) * v,
        cross_jvp=lambda x, y, u: 1.0 * u,
        cross_vjp=lambda x, y, w: 1.0 * w,
        n=5,
    )
    return Row(
        "argmax",
        sad.Problem(objective, maximize=True),
        np.array([0.4, 0.8, 1.5, 2.0, 5.0]),
        y0=np.zeros(5),
        dense_hess=lambda x, y: -np.diag(np.exp(y)),
        dense_cross=lambda x, y: np.eye(5),
        y=np.log,
        jacobian=lambda x, y: np.diag(1.0 / x),
    )


def _softmax_likelihood() -> Row:
    """Return the feature vector of maximal likelihood of class 0 (section 3.3).

    x holds the classifier's rows a_j, then its offsets b_j.  The maximum exists where
    a_0 lies inside the hull of the others.  The Jacobian is the paper's (33), (34).
    """
    k, n = 5, 2
    corners = np.array([[2.0, 0.3], [-0.2, 1.7], [-1.9, -0.4], [0.4, -1.6]])
    a = np.vstack([[0.15, -0.1], corners])
    b = np.array([0.3, -0.2, 0.1, 0.4, -0.5])

    def split(x):
        return x[: k * n].reshape(k, n), x[k * n :]

    def probabilities(x, y):
        a, b = split(x)
        return softmax(a @ y + b)

    def grad(x, y):
        a, _ = split(x)
        return a[0] - a.T @ probabilities(x, y)

    def hvp(x, y, v):
        a, _ = split(x)
        p = probabilities(x, y)
        t = a @ v
        return -(a.T @ (p * (t - p @ t)))

    def cross_jvp(x, y, u):
        (a, _), (da, db) = split(x), split(u)
        p = probabilities(x, y)
        t = da @ y + db
        return da[0] - da.T @ p - a.T @ (p * (t - p @ t))

    def cross_vjp(x, y, w):
        a, _ = split(x)
        p = probabilities(x, y)
        t = a @ w
        s = p * (t - p @ t)
        by_a = -np.outer(p, w) - np.outer(s, y)
        by_a[0] += w
        return np.concatenate([by_a.ravel(), -s])

    def value(x, y):
        a, b = split(x)
        scores = a @ y + b
        return float(scores[0] - logsumexp(scores))

    def dense_hess(x, y):
        a, _ = split(x)
        p = probabilities(x, y)
        return a.T @ (np.outer(p, p) - np.diag(p)) @ a

    def dense_cross(x, y):
        a, _ = split(x)
        p = probabilities(x, y)
        mean = a.T @ p
        blocks = [
            (float(j == 0) - p[j]) * np.eye(n) - p[j] * np.outer(a[j] - mean, y)
            for j in range(k)
        ]
        return np.hstack([*blocks, (-p[:, None] * (a - mean)).T])

    def jacobian(x, y):
        a, _ = split(x)
        p = probabilities(x, y)
        mean = a.T @ p
        columns = []
        for j in range(k):
            for i in range(n):
                e = np.eye(n)[i]
                by_mean = y[i] * (a[j] - mean)
                columns.append(p[j] * (by_mean + e) - (e if j == 0 else 0.0))
        columns += [p[j] * (a[j] - mean) for j in range(k)]
        return np.linalg.solve(dense_hess(x, y), np.array(columns).T)

    objective = sad.FunctionObjective(
        value=value,
        grad=grad,
        hvp=hvp,
        cross_jvp=cross_jvp,
        cross_vjp=cross_vjp,
        n=n,
    )
    return Row(
        "softmax_likelihood",
        sad.Problem(objective, maximize=True),
        np.concatenate([a.ravel(), b]),
        y0=np.zeros(n),
        dense_hess=dense_hess,
        dense_cross=dense_cross,
        jacobian=jacobian,
    )


def paper_objective() -> sad.FunctionObjective:
    """Return the paper's section 3.2: f = x y⁴ + 2 x² y³ − 12 y²."""

    def cross(x, y):
        return 4 * y**3 + 12 * x * y**2

    return sad.FunctionObjective(
        value=lambda x, y: float((x * y**4 + 2 * x**2 * y**3 - 12 * y**2)[0]),
        grad=lambda x, y: 4 * x * y**3 + 6 * x**2 * y**2 - 24 * y,
        hvp=lambda x, y, v: (12 * x * y**2 + 12 * x**2 * y - 24) * v,
        cross_jvp=lambda x, y, u: cross(x, y) * u,
        cross_vjp=lambda x, y, w: cross(x, y) * w,
        n=1,
    )


def _paper(branch: str) -> Row:
    """Return a branch of section 3.2 for x > 0: two minima, and a maximum at y = 0."""
    sign = {"plus": 1.0, "minus": -1.0, "zero": 0.0}[branch]

    def y(x):
        root = np.sqrt(9 * x**4 + 96 * x)
        return 0.0 * x if sign == 0.0 else (-3 * x**2 + sign * root) / (4 * x)

    def jacobian(x, y):
        slope = -(y**3 + 3 * x * y**2) / (3 * x * y**2 + 3 * x**2 * y - 6)
        return slope[:, None]

    return Row(
        f"paper_{branch}",
        sad.Problem(paper_objective(), maximize=branch == "zero"),
        np.array([1.3]),
        y0=np.array({"plus": [2.5], "minus": [-3.0], "zero": [0.2]}[branch]),
        dense_hess=lambda x, y: (12 * x * y**2 + 12 * x**2 * y - 24)[:, None],
        dense_cross=lambda x, y: (4 * y**3 + 12 * x * y**2)[:, None],
        y=y,
        jacobian=jacobian,
    )


class ChainObjective:
    """½ y'Ly + ¼ Σ y⁴ − y'Sx, with sparse matrices instead of functions."""

    def __init__(self, n: int, m: int) -> None:
        off = -np.ones(n - 1)
        diag = 2.5 * np.ones(n)
        self.L = scipy.sparse.diags_array([off, diag, off], offsets=[-1, 0, 1]).tocsr()
        rows = np.arange(n)
        S = np.zeros((n, m))
        S[rows, rows % m] = 1.0 + 0.1 * rows
        self.S = scipy.sparse.csr_array(S)
        self.n = n

    def value(self, x, y):
        return float(0.5 * y @ (self.L @ y) + 0.25 * (y**4).sum() - y @ (self.S @ x))

    def grad(self, x, y):
        return self.L @ y + y**3 - self.S @ x

    def hess(self, x, y):
        return self.L + scipy.sparse.diags_array(3.0 * y**2)

    def cross(self, x, y):
        return -self.S


def _chain() -> Row:
    objective = ChainObjective(30, 4)
    L, S = objective.L.toarray(), objective.S.toarray()
    return Row(
        "sparse_chain",
        sad.Problem(objective),
        np.array([0.5, -1.0, 0.3, 2.0]),
        y0=np.zeros(30),
        dense_hess=lambda x, y: L + np.diag(3.0 * y**2),
        dense_cross=lambda x, y: -S,
    )


def _undeclared_maximum() -> Row:
    return dataclasses.replace(
        _argmax(),
        name="undeclared_maximum",
        problem=sad.Problem(_argmax().objective),
        method="minres",
    )


PROBLEMS = (
    _random_quadratic("quadratic", 8, 5, seed=1),
    _scalar(),
    _random_quadratic("many_parameters", 3, 40, seed=2),
    _random_quadratic("many_variables", 40, 2, seed=3),
    _badly_scaled(),
    _log_sum_exp(),
    _argmax(),
    _softmax_likelihood(),
    _paper("plus"),
    _paper("minus"),
    _paper("zero"),
    _chain(),
)
"""Minima, and maxima declared as such: ``solve`` finds them from ``y0``."""

STATIONARY = (*PROBLEMS, _saddle(), _undeclared_maximum())
"""Also points that are stationary and no minimum, for ``method="minres"``."""

BY_NAME = {row.name: row for row in STATIONARY}


def counting_operator(matrix):
    """Return a matrix as an operator, and the list that each product with it extends."""
    reads = []

    def product(v, factor):
        reads.append(v.shape)
        return factor @ v

    operator = sad.LinearOperator(
        matrix.shape,
        lambda v: product(v, matrix),
        lambda v: product(v, matrix.T),
        matmat=lambda V: product(V, matrix),
        rmatmat=lambda V: product(V, matrix.T),
    )
    return operator, reads
