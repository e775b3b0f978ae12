"""LogBarrier: the paper's (61) and (64), with the signs that its (62) to (64) need."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparse_argdiff as sad
from sparse_argdiff import (
    FunctionObjective,
    Inequality,
    LinearEquality,
    LogBarrier,
    Problem,
)


def mean_above_zero(m):
    """The paper's section 4.3: argmin Σ (y − x_i)², y >= 0."""
    return Problem(
        FunctionObjective(
            value=lambda x, y: float(np.sum((y[0] - x) ** 2)),
            grad=lambda x, y: np.array([2.0 * np.sum(y[0] - x)]),
            hvp=lambda x, y, v: 2.0 * m * v,
            cross_jvp=lambda x, y, u: np.array([-2.0 * np.sum(u)]),
            cross_vjp=lambda x, y, w: -2.0 * w[0] * np.ones(m),
            n=1,
        ),
        lower=0.0,
    )


@pytest.mark.parametrize("t", [0.1, 1.0, 10.0, 1e2, 1e3, 1e4, 1e6])
@pytest.mark.parametrize("mean", [-1.0, -0.3, -1e-3, 0.0, 1e-3, 0.2, 1.0])
def test_closed_form(mean, t):
    """g_t = (h + s)/2, g_t' = (1 + h/s)/2, s² = h² + 2/(t m); at h = 0 the mean, 1/2."""
    m = 5
    x = mean + np.array([-0.5, 0.25, 0.0, 0.5, -0.25])
    root = np.sqrt(x.mean() ** 2 + 2.0 / (t * m))
    y = (1.0 / (t * m)) / (root - x.mean()) if x.mean() < 0 else (x.mean() + root) / 2
    problem = LogBarrier(mean_above_zero(m), t)
    start = mean_above_zero(m)
    start = sad.solve(start, x, np.ones(1), method="barrier", tol=min(1e-3, 0.1 / t)).y
    sol = sad.solve(problem, x, start, tol=1e-12)
    assert sol.y[0] == pytest.approx(y, rel=1e-9)
    slope = (1.0 + x.mean() / root) / 2.0 if x.mean() > 0 else y / root
    J = sad.derivative(problem, sol, rtol=1e-13).todense()
    np.testing.assert_allclose(J, np.full((1, m), slope / m), rtol=1e-8)


@pytest.mark.parametrize("method", ["barrier", "active_set"])
@pytest.mark.parametrize("far", [10.0, 100.0])
@pytest.mark.parametrize("tol", [1e-2, 1e-3, 1e-9])
def test_a_solution_at_zero_without_a_force_is_no_stagnation(method, far, tol):
    """y = 0 exactly, weakly active: the force there is rounding, and no length."""
    x = np.random.default_rng(27).standard_normal(20)
    problem = mean_above_zero(20)
    sol = sad.solve(problem, x - x.mean(), np.array([far]), method=method, tol=tol)
    assert sol.status.acceptable
    assert abs(sol.y[0]) <= max(tol, 1e-8) * far


class Softmax:
    """log of the softmax probability of class i, x = (a flattened, b): section 3.3."""

    def __init__(self, classes, n, i):
        self.k, self.n, self.i = classes, n, i

    def parts(self, x, y):
        a, b = x[: self.k * self.n].reshape(self.k, self.n), x[self.k * self.n :]
        score = a @ y + b
        ell = np.exp(score - score.max())
        ell /= ell.sum()
        return a, ell, ell @ a

    def value(self, x, y):
        return float(np.log(self.parts(x, y)[1][self.i]))

    def grad(self, x, y):
        a, _, mean = self.parts(x, y)
        return a[self.i] - mean

    def hess(self, x, y):
        a, ell, mean = self.parts(x, y)
        return np.outer(mean, mean) - (a.T * ell) @ a

    def cross(self, x, y):
        a, ell, mean = self.parts(x, y)
        by_a = np.zeros((self.n, self.k, self.n))
        for j in range(self.k):
            by_a[:, j] = -ell[j] * (np.outer(a[j] - mean, y) + np.eye(self.n))
        by_a[:, self.i] += np.eye(self.n)
        by_b = -(a - mean).T * ell
        return np.hstack([by_a.reshape(self.n, -1), by_b])


UNIT_BALL = Inequality(
    lambda x, y: np.array([y @ y - 1.0]),
    lambda x, y: 2.0 * y[None, :],
    hess=lambda x, y, nu: 2.0 * nu[0] * np.eye(y.size),
)


@pytest.mark.parametrize("t", [1.0, 10.0, 100.0, 1e4])
@pytest.mark.parametrize("i", [0, 1])
def test_softmax_in_the_unit_ball(i, t):
    """(78c), (79c), (80c): with t, with the i = j terms, with − 4/(1−r²)² x x'."""
    rng = np.random.default_rng(1)
    lower = Softmax(5, 2, i)
    x = rng.standard_normal(15)
    problem = Problem(lower, inequality=UNIT_BALL, maximize=True)
    barrier = LogBarrier(problem, t)
    y = np.zeros(2)
    for weight in 10.0 ** np.arange(0.0, np.log10(t) + 0.5):
        y = sad.solve(LogBarrier(problem, weight), x, y, tol=1e-12).y
    sol = sad.solve(barrier, x, y, tol=1e-13)
    a, ell, mean = lower.parts(x, sol.y)
    slack = 1.0 - sol.y @ sol.y
    phi = -4.0 / slack**2 * np.outer(sol.y, sol.y) - 2.0 / slack * np.eye(2)
    W = np.linalg.inv(lower.hess(x, sol.y) + phi / t)
    by_b = W @ ((a - mean).T * ell)
    by_a = [
        W @ (ell[j] * (np.outer(a[j] - mean, sol.y) + np.eye(2)) - (j == i) * np.eye(2))
        for j in range(5)
    ]
    J = sad.derivative(barrier, sol, rtol=1e-13) @ np.eye(15)
    np.testing.assert_allclose(J, np.hstack([*by_a, by_b]), rtol=1e-8, atol=1e-10)
    assert np.abs(J[:, 10 + i]).max() > 1e-6  # (79) as printed is zero
    np.testing.assert_allclose(J[:, 10:].sum(axis=1), 0.0, atol=1e-9)  # shifts of b


def moving_disc():
    """Rows that move with x: (y − x)'(y − x) <= 1 and a half-space, under a linear f."""
    c = np.array([1.0, -2.0])
    return Problem(
        FunctionObjective(
            value=lambda x, y: float(c @ y + 0.05 * y @ y),
            grad=lambda x, y: c + 0.1 * y,
            hvp=lambda x, y, v: 0.1 * v,
            cross_jvp=lambda x, y, u: 0.0 * u,
            cross_vjp=lambda x, y, w: 0.0 * w,
            hess_diag=lambda x, y: 0.1 + 0.0 * y,
            n=2,
        ),
        inequality=Inequality(
            lambda x, y: np.array([(y - x) @ (y - x) - 1.0, y[0] * x[1] - 4.0]),
            lambda x, y: np.array([2.0 * (y - x), [x[1], 0.0]]),
            hess=lambda x, y, nu: 2.0 * nu[0] * np.eye(2),
            cross=lambda x, y, nu: np.array([[-2.0 * nu[0], nu[1]], [0, -2.0 * nu[0]]]),
            jac_x=lambda x, y: np.array([-2.0 * (y - x), [0.0, y[0]]]),
        ),
        upper=np.array([np.inf, 9.0]),
    )


X = np.array([0.4, 0.7])


def along_the_path(problem, x, t, y0=None):
    y = x.copy() if y0 is None else y0
    for weight in 10.0 ** np.arange(0.0, np.log10(t) + 0.1):
        sol = sad.solve(LogBarrier(problem, weight), x, y, tol=1e-12)
        y = sol.y
    return sol


@pytest.mark.parametrize("t", [1.0, 1e2, 1e4])
def test_x_in_the_constraints(t):
    """φ_XY is not zero; the derivative agrees with differences of the re-solved (61)."""
    problem = moving_disc()
    barrier, sol = LogBarrier(problem, t), along_the_path(problem, X, t)
    sad.check_derivatives(barrier.objective, X, X + np.array([0.2, -0.1]))
    J = sad.derivative(barrier, sol, rtol=1e-13) @ np.eye(2)
    h, columns = 1e-4 if t < 1e3 else 1e-6, []
    for e in np.eye(2):
        ys = [
            sad.solve(barrier, X + s * h * e, sol.y + s * h * J @ e, tol=1e-13).y
            for s in (-2, -1, 1, 2)
        ]
        columns.append((ys[0] - 8 * ys[1] + 8 * ys[2] - ys[3]) / (12 * h))
    np.testing.assert_allclose(J, np.column_stack(columns), atol=1e-6)


def test_the_error_falls_like_one_over_t():
    """To the derivative of the exact solution, by 10 ± 10 % per decade."""
    problem = moving_disc()
    exact = sad.solve(problem, X, X.copy(), method="active_set", tol=1e-12)
    assert exact.active.strong.any()
    J = sad.derivative(problem, exact, rtol=1e-13) @ np.eye(2)
    errors = []
    y = None
    for t in (1e3, 1e4, 1e5, 1e6):
        sol = along_the_path(problem, X, t, y)
        found = sad.derivative(LogBarrier(problem, t), sol, rtol=1e-13) @ np.eye(2)
        errors.append(np.abs(found - J).max())
    ratios = np.array(errors[:-1]) / errors[1:]
    np.testing.assert_allclose(ratios, 10.0, rtol=0.1)


@pytest.mark.parametrize("t", [1e3, 1e4, 1e5])
def test_the_mean_of_both_sides_at_a_degenerate_point(t):
    """min ½ y'Qy − x'y, y_0 <= 0, where the free minimiser has y_0 = 0."""
    Q = np.array([[2.0, 0.5], [0.5, 1.0]])
    objective = FunctionObjective(
        value=lambda x, y: float(0.5 * y @ (Q @ y) - x @ y),
        grad=lambda x, y: Q @ y - x,
        hvp=lambda x, y, v: Q @ v,
        cross_jvp=lambda x, y, u: -u,
        cross_vjp=lambda x, y, w: -w,
        n=2,
    )
    problem = Problem(objective, upper=np.array([0.0, np.inf]))
    y = np.array([0.0, 1.3])
    x = Q @ y
    inactive = np.linalg.inv(Q)
    active = np.array([[0.0, 0.0], [0.0, 1.0]])
    sol = along_the_path(problem, x, t, np.array([-1.0, 0.0]))
    J = sad.derivative(LogBarrier(problem, t), sol, rtol=1e-13) @ np.eye(2)
    np.testing.assert_allclose(J, 0.5 * (active + inactive), atol=1e-6)
    exact = sad.solve(problem, x)
    assert exact.active.weak_fixed[0]
    warnings = sad.jvp(problem, exact, np.ones(2)).warnings
    assert any("one-sided" in warning for warning in warnings)


def test_equalities_are_kept():
    """(74), (75): 1'J = 0 under 1'y = 1 and y > 0, against dense algebra."""
    rng = np.random.default_rng(3)
    n, t = 6, 50.0
    root = rng.standard_normal((n, n))
    Q, c = root @ root.T, rng.standard_normal(n)
    objective = FunctionObjective(
        value=lambda x, y: float(0.5 * y @ (Q @ y) - x @ y),
        grad=lambda x, y: Q @ y - x,
        hvp=lambda x, y, v: Q @ v,
        cross_jvp=lambda x, y, u: -u,
        cross_vjp=lambda x, y, w: -w,
        n=n,
    )
    simplex = LinearEquality(np.ones((1, n)), np.ones(1))
    problem = Problem(objective, equality=simplex, lower=0.0)
    barrier = LogBarrier(problem, t)
    sol = sad.solve(barrier, c, np.full(n, 0.5), tol=1e-12)
    assert np.sum(sol.y) == pytest.approx(1.0, abs=1e-13)
    H = t * Q + np.diag(1.0 / sol.y**2)
    K = np.block([[H, np.ones((n, 1))], [np.ones((1, n)), np.zeros((1, 1))]])
    expected = np.linalg.solve(K, np.vstack([t * np.eye(n), np.zeros((1, n))]))[:n]
    J = sad.derivative(barrier, sol, rtol=1e-13) @ np.eye(n)
    np.testing.assert_allclose(J, expected, atol=1e-10)
    assert np.abs(J.sum(axis=0)).max() <= 1e-12


@given(st.integers(1, 12), st.integers(0, 6), st.floats(0.1, 1e4), st.integers(0, 9999))
@settings(max_examples=25, deadline=None)
def test_operators_and_their_diagonal(n, q, t, seed):
    """hess and cross against differences; the diagonal against the entries."""
    rng = np.random.default_rng(seed)
    G, D = rng.standard_normal((q, n)), rng.standard_normal((q, 2))
    w = rng.random(n) + 0.1
    objective = FunctionObjective(
        value=lambda x, y: float(0.5 * w @ y**2 * np.exp(x[0])),
        grad=lambda x, y: w * y * np.exp(x[0]),
        hvp=lambda x, y, v: w * v * np.exp(x[0]),
        cross_jvp=lambda x, y, u: w * y * np.exp(x[0]) * u[0],
        cross_vjp=lambda x, y, v: np.array([v @ (w * y) * np.exp(x[0]), 0.0]),
        hess_diag=lambda x, y: w * np.exp(x[0]),
    )
    rows = Inequality(
        lambda x, y: G @ y - 5.0 + D @ x, lambda x, y: G, jac_x=lambda x, y: D
    )
    problem = LogBarrier(Problem(objective, inequality=rows, lower=-2.0), t)
    x, y = 0.1 * rng.standard_normal(2), 0.2 * rng.standard_normal(n)
    sad.check_derivatives(problem.objective, x, y)
    hess = problem.hess(x, y)
    assert hess.has_diagonal
    np.testing.assert_allclose(hess.diagonal(), np.diag(hess.todense()), rtol=1e-12)
    sad.dot_test(problem.cross(x, y))


def test_outside_the_domain():
    problem = LogBarrier(moving_disc(), 10.0)
    far = X + 2.0
    assert problem.value(X, far) == np.inf
    assert np.isnan(problem.grad(X, far)).all()
    with pytest.raises(ValueError, match="inequality row 0 has slack"):
        problem.hess(X, far)
    with pytest.raises(ValueError, match=r"strictly feasible.*row 0.*method='barrier'"):
        sad.solve(problem, X, far)
    with pytest.raises(ValueError, match="lower bound 0"):
        sad.solve(
            LogBarrier(mean_above_zero(3), 1.0), np.ones(3)
        )  # zeros: on the bound
    fixed = Problem(mean_above_zero(3).objective, lower=1.0, upper=1.0)
    with pytest.raises(ValueError, match="slack 0"):
        sad.solve(LogBarrier(fixed, 1.0), np.ones(3), np.ones(1))


def test_a_maximum_keeps_its_sign():
    lower = Softmax(4, 2, 0)
    x = np.random.default_rng(0).standard_normal(12)
    problem = LogBarrier(Problem(lower, inequality=UNIT_BALL, maximize=True), 10.0)
    assert problem.maximize
    y = np.array([0.3, -0.2])
    expected = 10.0 * lower.value(x, y) + np.log(1.0 - y @ y)
    assert problem.objective.value(x, y) == pytest.approx(expected, rel=1e-14)
    assert problem.objective.value(x, 9.0 * y) == -np.inf
    sol = sad.solve(problem, x, np.zeros(2))
    assert sol.value >= expected


@pytest.mark.parametrize("t", [0.0, -1.0, np.inf, np.nan, "1"])
def test_wrong_t(t):
    with pytest.raises(ValueError, match="t must be"):
        LogBarrier(moving_disc(), t)


def test_wrong_problem():
    with pytest.raises(TypeError, match="problem must be a Problem"):
        LogBarrier(moving_disc().objective, 1.0)


def test_float32_stays():
    Q = np.eye(3, dtype="f")
    objective = FunctionObjective(
        value=lambda x, y: float(0.5 * y @ y - x @ y),
        grad=lambda x, y: y - x,
        hvp=lambda x, y, v: Q @ v,
        cross_jvp=lambda x, y, u: -u,
        cross_vjp=lambda x, y, w: -w,
    )
    rows = Inequality(lambda x, y: Q @ y - 1, lambda x, y: Q)
    barrier = LogBarrier(Problem(objective, inequality=rows, lower=-1.0), 10.0)
    x, y = np.array([0.5, -3.0, 3.0], "f"), np.zeros(3, "f")
    assert barrier.grad(x, y).dtype == np.float32
    assert (barrier.hess(x, y) @ y).dtype == np.float32
    assert (barrier.cross(x, y) @ x).dtype == np.float32
    sol = sad.solve(barrier, x, y, tol=1e-4)
    assert sol.y.dtype == np.float32
    J = sad.derivative(barrier, sol, rtol=1e-4)
    assert (J @ x).dtype == np.float32


def test_cold_newton_says_when_it_does_not_get_there():
    """At a large t the start matters; what is returned without an error is right."""
    problem = moving_disc()
    t = 1e6
    exact = along_the_path(problem, X, t)
    cold = sad.solve(
        LogBarrier(problem, t), X, X.copy(), tol=1e-10, on_failure="ignore"
    )
    assert not cold.status.acceptable or np.abs(cold.y - exact.y).max() <= 1e-6
