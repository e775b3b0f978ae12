"""Kinks under linear equalities: solutions, multipliers and derivatives on the support."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import sparse
from test_penalties import Data, cone_solver, draw

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm

KINDS = ["dense", "products"]
each_kind = pytest.mark.parametrize("kind", KINDS)


def exact(A, t, C, b, weight, y):
    """Return the same to the last digits: dense algebra on the support that Clarabel found."""
    (S,), p = np.nonzero(np.abs(y) > 1e-6 * np.abs(y).max()), len(b)
    H, part = A[:, S].T @ A[:, S] / len(t), C[:, S]
    K = np.block([[H, part.T], [part, np.zeros((p, p))]])
    right = np.concatenate([A[:, S].T @ t / len(t) - weight * np.sign(y[S]), b])
    z = np.linalg.lstsq(K, right, rcond=1e-14)[0]
    assert (np.sign(z[: len(S)]) == np.sign(y[S])).all()
    whole = np.zeros(len(y))
    whole[S] = z[: len(S)]
    return whole


class Scaled:
    """c f(x, D z) as a function of z."""

    convex = True

    def __init__(self, data, D, c):
        self.data, self.D, self.c, self.n, self.dtype = data, D, c, data.n, data.dtype

    def value(self, x, z):
        return self.c * self.data.value(x, self.D * z)

    def grad(self, x, z):
        return self.c * self.D * self.data.grad(x, self.D * z)

    def hess(self, x, z):
        H, D = self.data.hess(x, self.D * z), self.D
        if self.data.kind == "dense":
            return self.c * D[:, None] * H * D
        return sad.LinearOperator(
            H.shape, lambda v: self.c * D * (H @ (D * v)), symmetric=True
        )

    def cross(self, x, z):
        return np.zeros((self.n, x.shape[0]))


def drawn_rows(seed):
    """Return a drawn design, rows that some sparse y meets, and a weight."""
    rng = np.random.default_rng(seed)
    N, n, p = (int(rng.integers(*ends)) for ends in ((8, 40), (6, 30), (1, 4)))
    A, t = draw(seed, N, n)
    C = rng.standard_normal((p, n))
    C[0] = 1.0
    b = C @ (rng.standard_normal(n) * (rng.random(n) < 0.4))
    return A, t, C, b, 10.0 ** rng.uniform(-1.5, 0.0), rng


def scaled_weights(D):
    """Return weights e^x D with their products."""
    return sad.L1(
        lambda x: np.exp(x) * D,
        weights_jvp=lambda x, u: np.exp(x) * D * u,
        weights_vjp=lambda x, v: np.array([np.exp(x[0]) * (D @ v)]),
    )


def central(problem, x, u, step=1e-5):
    """Return the difference quotient of (y, ν) along u."""
    ends = [sad.solve(problem, x + s * step * u, tol=1e-12) for s in (1.0, -1.0)]
    return tuple(
        (getattr(ends[0], name) - getattr(ends[1], name)) / (2.0 * step)
        for name in ("y", "multipliers")
    )


# solutions against another solver ------------------------------------------------------


@each_kind
@pytest.mark.parametrize("seed", range(100, 110))
def test_the_solution_is_that_of_a_cone_solver(seed, kind):
    A, t, C, b, weight, _ = drawn_rows(seed)
    n = A.shape[1]
    y, nu = cone_solver(A, t, np.arange(n), np.full(n, weight), C, b)
    rows = sad.LinearEquality(C, b)
    problem = sad.Problem(Data(A, t, kind), penalty=sad.L1(), equality=rows)
    found = sad.solve(problem, np.log([weight]))
    assert found.status is sad.Status.CONVERGED
    size = np.abs(y).max()
    y = exact(A, t, C, b, weight, y)
    np.testing.assert_allclose(found.y, y, atol=1e-7 * size)
    np.testing.assert_allclose(C @ found.y, b, atol=1e-9 * size)
    total = A.T @ (A @ found.y - t) / len(t) + C.T @ found.multipliers
    on = found.y != 0.0
    np.testing.assert_allclose(total[on], -weight * np.sign(found.y[on]), atol=1e-7)
    assert (np.abs(total) <= weight * (1.0 + 1e-7)).all()
    if np.linalg.matrix_rank(C[:, on]) == len(b):
        np.testing.assert_allclose(found.multipliers, nu, atol=1e-5)


@each_kind
@pytest.mark.parametrize("seed", range(120, 126))
def test_groups_are_those_of_a_cone_solver(seed, kind):
    A, t, C, b, weight, _ = drawn_rows(seed)
    labels = np.arange(A.shape[1]) // 3
    weights = np.full(labels.max() + 1, weight)
    y, _ = cone_solver(A, t, labels, weights, C, b)
    penalty = sad.GroupL1(labels, weights=weights)
    rows = sad.LinearEquality(C, b)
    problem = sad.Problem(Data(A, t, kind), penalty=penalty, equality=rows)
    found = sad.solve(problem, np.zeros(1))
    np.testing.assert_allclose(found.y, y, atol=1e-4 * np.abs(y).max())
    total = A.T @ (A @ found.y - t) / len(t) + C.T @ found.multipliers
    for g in range(len(weights)):
        inside, pull = found.y[labels == g], total[labels == g]
        if inside.any():
            unit = inside / np.linalg.norm(inside)
            np.testing.assert_allclose(pull, -weight * unit, atol=1e-6)
        else:
            assert np.linalg.norm(pull) <= weight * (1.0 + 1e-7)


@each_kind
@pytest.mark.parametrize("seed", range(130, 138))
def test_other_units_are_the_same_problem(seed, kind):
    """y → y / D with weights D, f → c f, rows scaled: solution, multipliers, derivative."""
    A, t, C, b, weight, rng = drawn_rows(seed)
    n, p = A.shape[1], len(b)
    D, c = 10.0 ** rng.uniform(-4, 4, n), 10.0 ** rng.uniform(-6, 6)
    r = 10.0 ** rng.uniform(-6, 6, p)
    plain = sad.Problem(
        Data(A, t, kind), penalty=sad.L1(), equality=sad.LinearEquality(C, b)
    )
    other = sad.Problem(
        Scaled(Data(A, t, kind), D, c),
        penalty=scaled_weights(c * D),
        equality=sad.LinearEquality(r[:, None] * C * D, r * b),
    )
    x, v = np.log([weight]), rng.standard_normal(n)
    one, two = sad.solve(plain, x), sad.solve(other, x)
    assert one.status is two.status is sad.Status.CONVERGED
    size = np.abs(one.y).max()
    np.testing.assert_allclose(D * two.y, one.y, atol=1e-6 * size)
    on = one.y != 0.0
    np.testing.assert_array_equal(two.y != 0.0, on)
    if np.linalg.matrix_rank(C[:, on]) == p:
        back = r / c * two.multipliers
        np.testing.assert_allclose(back, one.multipliers, atol=1e-6)
    slope = sad.vjp(plain, one, v).x
    moved = sad.vjp(other, two, D * v).x
    np.testing.assert_allclose(moved, slope, rtol=1e-5, atol=1e-6 * np.abs(v).sum())


# derivatives ---------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("loss", ["squared", "logistic", "poisson"])
@pytest.mark.parametrize("penalty", ["l1", "elastic-net", "groups"])
def test_the_derivative_against_differences(loss, penalty, kind):
    """By log-weights and by the right-hand side, of y and of the multipliers."""
    A, t = draw(11, 60, 12, loss)
    C = np.vstack([np.ones(12), np.arange(12) - 4.0])
    size = 6 if penalty == "groups" else 12
    kwargs = {
        "weights_jvp": lambda x, u: np.exp(x[0]) * u[0] * np.ones(size),
        "weights_vjp": lambda x, w: np.array([np.exp(x[0]) * w.sum(), 0.0, 0.0]),
    }
    penalties = {
        "l1": lambda: sad.L1(lambda x: np.exp(x[0]) * np.ones(12), **kwargs),
        "elastic-net": lambda: sad.ElasticNet(
            lambda x: np.exp(x[0]) * np.ones(12), ridge=np.full(12, 0.02), **kwargs
        ),
        "groups": lambda: sad.GroupL1(
            np.arange(12) // 2, weights=lambda x: np.exp(x[0]) * np.ones(6), **kwargs
        ),
    }
    rows = sad.LinearEquality(
        C,
        lambda x: x[1:],
        b_jvp=lambda x, u: u[1:],
        b_vjp=lambda x, w: np.concatenate([[0.0], w]),
    )
    problem = sad.Problem(
        Data(A, t, kind, loss), penalty=penalties[penalty](), equality=rows
    )
    x = np.array([np.log(0.03), 0.3, -0.5])
    found = sad.solve(problem, x, tol=1e-12)
    assert (found.y != 0.0).sum() > 2
    assert not found.active.degenerate
    rng = np.random.default_rng(0)
    u, v, w = rng.standard_normal(3), rng.standard_normal(12), rng.standard_normal(2)
    y, nu = central(problem, x, u)
    tangent = sad.jvp(problem, found, u).tangent
    np.testing.assert_allclose(tangent[:12], y, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(tangent[12:], nu, rtol=1e-6, atol=1e-7)
    adjoint = sad.vjp(problem, found, v, multipliers=w)
    assert adjoint.x @ u == pytest.approx(v @ y + w @ nu, rel=1e-5, abs=1e-7)
    J = sad.derivative(problem, found)
    assert sad.dot_test(J)


@pytest.mark.parametrize("seed", range(140, 146))
def test_the_derivative_is_that_of_dense_algebra(seed):
    A, t, C, b, weight, _ = drawn_rows(seed)
    n, p = A.shape[1], len(b)
    rows = sad.LinearEquality(C, b)
    problem = sad.Problem(Data(A, t), penalty=sad.L1(), equality=rows)
    x = np.full(n, np.log(weight))
    found = sad.solve(problem, x)
    (S,) = np.nonzero(found.y)
    K = np.block(
        [[(A.T @ A / len(t))[np.ix_(S, S)], C[:, S].T], [C[:, S], np.zeros((p, p))]]
    )
    B = np.zeros((len(S) + p, n))
    B[np.arange(len(S)), S] = weight * np.sign(found.y[S])
    expected = np.zeros((n, n))
    expected[S] = -(np.linalg.pinv(K) @ B)[: len(S)]
    J = sad.derivative(problem, found) @ np.eye(n)
    np.testing.assert_allclose(J, expected, atol=1e-7 * np.abs(expected).max() + 1e-12)


class Shifted:
    """½ y'P y − (q + x)'y."""

    convex = True

    def __init__(self, P, q):
        self.P, self.q, self.n = P, q, len(q)

    def value(self, x, y):
        return float(0.5 * y @ self.P @ y - (self.q + x) @ y)

    def grad(self, x, y):
        return self.P @ y - self.q - x

    def hess(self, x, y):
        return self.P

    def cross(self, x, y):
        return -np.eye(self.n)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("grouped", [False, True])
def test_both_sides_of_a_weak_coefficient(seed, grouped):
    """Two coefficients, or groups, are about to enter, and rows tie all of them."""
    rng = np.random.default_rng(seed)
    n, width = 10, 2 if grouped else 1
    M = rng.standard_normal((n, n))
    P, C = M @ M.T / n + np.eye(n), rng.standard_normal((2, n))
    labels = np.arange(n) // width
    G = n // width
    y, pull = np.zeros(n), 0.3 * rng.uniform(-1, 1, n) / width
    for g in range(G):
        z = rng.standard_normal(width)
        if g < G // 2:
            y[labels == g] = z + np.sign(z)
            z = y[labels == g]
        if g < G // 2 + 2:  # the last two are weak
            pull[labels == g] = z / np.linalg.norm(z)
    nu = rng.standard_normal(2)
    q = P @ y + C.T @ nu + pull
    penalty = sad.GroupL1(labels, weights=np.ones(G)) if grouped else sad.L1(np.ones(n))
    rows = sad.LinearEquality(C, C @ y)
    problem = sad.Problem(Shifted(P, q), penalty=penalty, equality=rows)
    x = np.zeros(n)
    found = sad.solve(problem, x, tol=1e-12)
    np.testing.assert_allclose(found.y, y, atol=1e-7)
    assert found.support == "not settled"
    assert found.active.weak_fixed.sum() == 2 * width
    exact = sad.Solution(y=y, x=x, multipliers=nu)
    u, step = rng.standard_normal(n), 1e-6
    sides = []
    for sign in (1.0, -1.0):
        near = sad.solve(problem, x + sign * step * u, y, tol=1e-13)
        tangent = sad.jvp(problem, exact, sign * u, one_sided=True)
        np.testing.assert_allclose(tangent.y, (near.y - y) / step, atol=1e-4)
        moved = (near.multipliers - nu) / step
        np.testing.assert_allclose(tangent.tangent[n:], moved, atol=1e-4)
        sides.append(tangent.y)
    assert np.abs(sides[0] + sides[1]).max() > 1e-3


def test_the_gradient_of_the_value():
    A, t = draw(5, 30, 10)
    rows = sad.LinearEquality(
        np.ones((1, 10)),
        lambda x: x[:1],
        b_jvp=lambda x, u: u[:1],
        b_vjp=lambda x, w: np.concatenate([w, np.zeros(10)]),
    )
    penalty = sad.L1(
        lambda x: np.exp(x[1:]),
        weights_jvp=lambda x, u: np.exp(x[1:]) * u[1:],
        weights_vjp=lambda x, w: np.concatenate([[0.0], np.exp(x[1:]) * w]),
    )
    problem = sad.Problem(Data(A, t), penalty=penalty, equality=rows)
    x = np.concatenate([[0.7], np.full(10, -2.5)])
    found = sad.value_gradient(problem, sad.solve(problem, x, tol=1e-12))
    for j in (0, 1, 2):
        u = np.eye(11)[j] * 1e-5
        ends = [sad.solve(problem, x + s * u, tol=1e-12) for s in (1.0, -1.0)]
        slope = (ends[0].value - ends[1].value) / 2e-5
        assert found[j] == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_penalties_of_contrasts_are_learned():
    """Log-contrast regression: Σ y = 0, weights by a held-out loss, in a linear model."""
    rng = np.random.default_rng(2)
    Z = np.log(rng.dirichlet(np.ones(15), 90))
    truth = np.zeros(15)
    truth[:4] = 1.0, -1.0, 0.5, -0.5
    t = Z @ truth + 0.3 * rng.standard_normal(90)
    glm = Glm(
        Z[:60], t[:60], loss="squared", norm="l1", penalty="scalar", intercept=False
    )
    problem = sad.Problem(
        glm, equality=sad.LinearEquality(np.ones((1, 15)), np.zeros(1))
    )
    held = glm.held_out(Z[60:], t[60:])
    F = sad.Hypergradient(problem, held, tol=1e-11)
    assert sad.check_hypergradient(F, np.array([-2.5]))
    result = F.evaluate(np.array([-2.5]))
    assert abs(result.solution.y.sum()) < 1e-10
    assert result.certificate.gradient_error <= 1e-6 * abs(result.gradient[0])
    found = sad.minimize(problem, held, np.array([-1.0]), bounds=(-8, 0))
    grid = [F(np.array([p]))[0] for p in np.linspace(-8, 0, 81)]
    assert found.fun <= min(grid) * 1.001


# bounds, kinds of arrays, maxima --------------------------------------------------------


def test_a_portfolio_that_pays_for_trades():
    """min ½ y'Vy − m'y + cost ‖y‖₁, Σ y = 1, −0.2 <= y <= 0.5, beside SciPy's SLSQP."""
    from scipy.optimize import minimize

    rng = np.random.default_rng(7)
    M = rng.standard_normal((8, 8))
    V, m, cost = M @ M.T / 8 + 0.1 * np.eye(8), rng.standard_normal(8), 0.8
    rows = sad.LinearEquality(np.ones((1, 8)), np.ones(1))
    problem = sad.Problem(
        Shifted(V, m), penalty=sad.L1(cost), equality=rows, lower=-0.2, upper=0.5
    )
    found = sad.solve(problem, np.zeros(8))
    W, c = np.block([[V, -V], [-V, V]]), np.concatenate([cost - m, cost + m])
    split = minimize(
        lambda z: 0.5 * z @ W @ z + c @ z,
        np.full(16, 1 / 16),
        jac=lambda z: W @ z + c,
        bounds=[(0, 0.5)] * 8 + [(0, 0.2)] * 8,
        constraints={
            "type": "eq",
            "fun": lambda z: z[:8].sum() - z[8:].sum() - 1.0,
            "jac": lambda z: np.r_[np.ones(8), -np.ones(8)],
        },
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    np.testing.assert_allclose(found.y, split.x[:8] - split.x[8:], atol=1e-6)
    assert found.active.fixed.sum() > (found.y == 0.0).sum() > 0
    u = rng.standard_normal(8)
    slope, _ = central(problem, found.x, u, 1e-6)
    np.testing.assert_allclose(sad.jvp(problem, found, u).y, slope, atol=1e-7)


def test_rows_by_products_and_a_maximum_without_values():
    A, t, C, b, weight, _ = drawn_rows(150)
    n, x = A.shape[1], np.log([weight])
    data, v = Data(A, t), np.arange(A.shape[1] * 1.0)
    first = sad.Problem(data, penalty=sad.L1(), equality=sad.LinearEquality(C, b))
    expected = sad.solve(first, x)
    by_products = sad.LinearOperator(C.shape, lambda y: C @ y, lambda w: C.T @ w)
    negated = sad.FunctionObjective(
        grad=lambda x, y: -data.grad(x, y),
        hvp=lambda x, y, w: -(data.hess(x, y) @ w),
        cross_jvp=lambda x, y, u: 0.0 * y,
        cross_vjp=lambda x, y, w: 0.0 * x,
        n=n,
    )
    for objective, rows, options in (
        (data, by_products, {}),
        (negated, C, {"maximize": True}),
        (data, sparse.csr_array(C), {}),
    ):
        problem = sad.Problem(
            objective,
            penalty=sad.L1(),
            equality=sad.LinearEquality(rows, b),
            **options,
        )
        found = sad.solve(problem, x)
        np.testing.assert_allclose(found.y, expected.y, atol=1e-7)
        np.testing.assert_allclose(found.multipliers, expected.multipliers, atol=1e-6)
        slope = sad.vjp(problem, found, v).x
        assert slope == pytest.approx(sad.vjp(first, expected, v).x, rel=1e-5)


def test_single_precision():
    A, t, C, b, weight, _ = drawn_rows(151)
    wide = sad.Problem(Data(A, t), penalty=sad.L1(), equality=sad.LinearEquality(C, b))
    A, t, C, b = (part.astype(np.float32) for part in (A, t, C, b))
    narrow = sad.Problem(
        Data(A, t), penalty=sad.L1(), equality=sad.LinearEquality(C, b)
    )
    x = np.log([weight])
    expected = sad.solve(wide, x).y
    found = sad.solve(narrow, x.astype(np.float32), tol=1e-4)
    assert found.y.dtype == np.float32
    np.testing.assert_allclose(found.y, expected, atol=1e-4 * np.abs(expected).max())


def test_a_start_near_the_solution_is_a_short_way():
    A, t, C, b, weight, _ = drawn_rows(152)
    problem = sad.Problem(
        Data(A, t), penalty=sad.L1(), equality=sad.LinearEquality(C, b)
    )
    x = np.log([weight])
    cold = sad.solve(problem, x)
    again = sad.solve(problem, x, cold.y)
    assert again.niter <= 3 < cold.niter
    near = sad.solve(problem, x + 1e-3, cold.y)
    assert near.niter <= 5


# what is degenerate, and what has no solution ------------------------------------------


def test_nothing_is_on_the_support():
    """Σ y = 0 and heavy weights: y = 0, whose multiplier is not unique."""
    A, t = draw(3, 40, 12)
    rows = sad.LinearEquality(np.ones((1, 12)), np.zeros(1))
    problem = sad.Problem(Data(A, t), penalty=sad.L1(), equality=rows)
    found = sad.solve(problem, np.log([10.0]))
    assert found.status is sad.Status.CONVERGED
    assert (found.y == 0.0).all()
    assert (sad.vjp(problem, found, np.ones(12)).x == 0.0).all()
    assert (sad.jvp(problem, found, np.ones(1)).y == 0.0).all()
    moving = sad.LinearEquality(
        np.ones((1, 12)), lambda x: x, b_jvp=lambda x, u: u, b_vjp=lambda x, w: w
    )
    problem = sad.Problem(Data(A, t), penalty=sad.L1(10.0), equality=moving)
    found = sad.solve(problem, np.zeros(1))
    # g jumps to another vertex for each x: no derivative on this support.
    with pytest.raises(sad.ConvergenceError, match="INCONSISTENT"):
        sad.vjp(problem, found, np.ones(12))
    with pytest.raises(sad.ConvergenceError, match="INCONSISTENT"):
        sad.jvp(problem, found, np.ones(1))


def test_rows_that_depend_on_each_other():
    A, t = draw(3, 40, 12)
    one = sad.LinearEquality(np.ones((1, 12)), np.ones(1))
    twice = sad.LinearEquality(2.0 * np.ones((1, 12)), 2.0 * np.ones(1))
    x, v = np.log([0.1]), np.arange(12.0)
    slopes = []
    for rows in ([one], [one, twice]):
        problem = sad.Problem(Data(A, t), penalty=sad.L1(), equality=rows)
        found = sad.solve(problem, x)
        assert found.y.sum() == pytest.approx(1.0)
        slopes.append(sad.vjp(problem, found, v).x[0])
    assert slopes[0] == pytest.approx(slopes[1])


@pytest.mark.parametrize(
    ("rows", "b", "options"),
    [
        (np.ones((2, 12)), [1.0, 2.0], {}),
        (np.ones((1, 12)), [1.0], {"lower": -0.05, "upper": 0.05}),
        (np.eye(1, 12), [1.0], {"penalty": sad.L1(np.r_[math.inf, np.ones(11)])}),
        (np.zeros((1, 12)), [1.0], {}),
    ],
)
def test_rows_that_no_y_meets(rows, b, options):
    A, t = draw(3, 40, 12)
    options = {"penalty": sad.L1(0.1), **options}
    problem = sad.Problem(
        Data(A, t), equality=sad.LinearEquality(rows, np.array(b)), **options
    )
    with pytest.raises(sad.ConvergenceError, match="INFEASIBLE"):
        sad.solve(problem, np.zeros(1))


def test_the_only_point_that_is_feasible():
    A, t = draw(3, 40, 12)
    rows = sad.LinearEquality(np.ones((1, 12)), np.array([0.6]))
    box = {"lower": -0.05, "upper": 0.05}
    problem = sad.Problem(Data(A, t), penalty=sad.L1(0.1), equality=rows, **box)
    found = sad.solve(problem, np.zeros(1), tol=1e-12)
    assert found.status is sad.Status.CONVERGED
    np.testing.assert_allclose(found.y, 0.05, atol=1e-15)


def test_solutions_from_elsewhere():
    A, t, C, b, weight, _ = drawn_rows(153)
    problem = sad.Problem(
        Data(A, t), penalty=sad.L1(), equality=sad.LinearEquality(C, b)
    )
    x, v = np.log([weight]), np.ones(A.shape[1])
    here = sad.solve(problem, x)
    expected = sad.vjp(problem, here, v).x
    brought = sad.Solution(y=here.y, x=x)
    assert sad.vjp(problem, brought, v).x == pytest.approx(expected)
    brought = sad.Solution(y=here.y, x=x, multipliers=here.multipliers)
    assert sad.vjp(problem, brought, v).x == pytest.approx(expected)
    wrong = sad.Solution(y=here.y, x=x, multipliers=here.multipliers + 1.0)
    with pytest.raises(sad.ConvergenceError, match="NOT_STATIONARY"):
        sad.vjp(problem, wrong, v)
    with pytest.raises(sad.ConvergenceError, match="NOT_STATIONARY"):
        sad.vjp(problem, sad.Solution(y=1.01 * here.y, x=x), v)
    assert sad.report(problem, brought).stationarity is sad.Status.CONVERGED


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_told(value):
    A, t, C, b, _, _ = drawn_rows(154)
    rows = sad.LinearEquality(C, lambda x: value * b)
    problem = sad.Problem(Data(A, t), penalty=sad.L1(0.1), equality=rows)
    with pytest.raises(sad.ConvergenceError, match="NOT_FINITE"):
        sad.solve(problem, np.zeros(1))
    rows = sad.LinearEquality(C, b)
    problem = sad.Problem(Data(A, t), penalty=sad.L1(), equality=rows)
    with pytest.raises(sad.ConvergenceError, match="NOT_FINITE"):
        sad.solve(problem, np.array([math.nan]))


def test_nothing_but_linear_equalities_goes_with_kinks():
    A, t = draw(3, 40, 12)
    circle = sad.Equality(lambda x, y: y[:1] ** 2 - 1.0, lambda x, y: np.eye(1, 12))
    with pytest.raises(ValueError, match="LinearEquality alone"):
        sad.Problem(Data(A, t), penalty=sad.L1(), equality=circle)
    half = sad.Inequality(lambda x, y: y[:1] - 1.0, lambda x, y: np.eye(1, 12))
    with pytest.raises(ValueError, match="LinearEquality alone"):
        sad.Problem(Data(A, t), penalty=sad.L1(), inequality=half)
