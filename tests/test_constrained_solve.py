"""Solving under constraints: re-solved differences, dense algebra, known optima, errors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from scipy import special
from scipy.optimize import isotonic_regression, linprog

import sparse_argdiff as sad
from sparse_argdiff import (
    ConvergenceError,
    Equality,
    FunctionObjective,
    Inequality,
    LinearEquality,
    Problem,
    Status,
)
from sparse_argdiff.krylov import null_space


class Smooth:
    """f = ½ y'Qy + ¼ e^{x_0} Σ y⁴ − (B x)'y, or its negative."""

    def __init__(self, Q, B, quartic=1.0, sign=1.0):
        self.Q, self.B, self.n, self.c, self.sign = Q, B, Q.shape[0], quartic, sign

    def value(self, x, y):
        quartic = 0.25 * self.c * np.exp(x[0]) * np.sum(y**4)
        return self.sign * float(0.5 * y @ (self.Q @ y) + quartic - y @ (self.B @ x))

    def grad(self, x, y):
        quartic = self.c * np.exp(x[0]) * y**3
        return self.sign * (self.Q @ y + quartic - self.B @ x)

    def hess(self, x, y):
        return self.sign * (self.Q + np.diag(3.0 * self.c * np.exp(x[0]) * y**2))

    def cross(self, x, y):
        cross = -self.B.copy()
        cross[:, 0] += self.c * np.exp(x[0]) * y**3
        return self.sign * cross


def moving(A, D):
    """A y = D x + 1."""
    return LinearEquality(
        A, lambda x: D @ x + 1.0, b_jvp=lambda x, u: D @ u, b_vjp=lambda x, w: D.T @ w
    )


def half_spaces(G, D, h):
    """G y <= h + D x."""
    return Inequality(
        lambda x, y: G @ y - h - D @ x, lambda x, y: G, jac_x=lambda x, y: -D
    )


def ball(radius):
    """½ y'y <= ½ radius² e^{x_1}."""
    return Inequality(
        lambda x, y: np.array([0.5 * (y @ y - radius**2 * np.exp(x[1]))]),
        lambda x, y: y[None, :].copy(),
        hess=lambda x, y, nu: nu[0] * np.eye(y.size),
        jac_x=lambda x, y: np.array(
            [[0.0, -0.5 * radius**2 * np.exp(x[1])] + [0.0] * (x.size - 2)]
        ),
    )


def sphere(radius):
    rows = ball(radius).rows
    return Equality(rows.fun, rows.jac, hess=rows.hess, jac_x=rows.jac_x)


KINDS = [
    "none",
    "linear",
    "sphere",
    "both equalities",
    "half-spaces",
    "ball",
    "bounds",
    "mixed",
    "argmax",
]


def make(kind, n, seed):
    """Return a random problem of a kind, and x."""
    rng = np.random.default_rng(seed)
    m, p, q = 3, max(n // 4, 1) if n > 1 else 0, max(n // 2, 1)
    root = rng.standard_normal((n, n))
    Q = root @ root.T / n + 0.3 * np.eye(n)
    B = 2.0 * rng.standard_normal((n, m))
    x = 0.5 * rng.standard_normal(m)
    A = rng.standard_normal((p, n)) / np.sqrt(n)
    G = rng.standard_normal((q, n)) / np.sqrt(n)
    D = 0.3 * rng.standard_normal((p, m))
    E = 0.1 * rng.standard_normal((q, m))
    objective = Smooth(Q, B, 0.1, sign=-1.0 if kind == "argmax" else 1.0)
    linear = {"equality": moving(A, 0.3 * D)} if p else {}
    sides = half_spaces(G, E, 0.2 + rng.random(q))
    radius = 0.7 * np.sqrt(n)
    constraints = {
        "none": {},
        "linear": linear,
        "sphere": {"equality": sphere(radius)},
        "both equalities": {"equality": [*linear.values(), sphere(1.5 * radius)]},
        "half-spaces": {"inequality": sides},
        "ball": {"inequality": [ball(radius)]},
        "bounds": {"lower": -0.5 + 0.1 * rng.random(n), "upper": 0.6},
        "mixed": {**linear, "inequality": sides, "lower": -0.8, "upper": 2.0},
        "argmax": {**linear, "inequality": sides, "maximize": True},
    }[kind]
    return Problem(objective, **constraints), x


def solved(problem, x, y0=None, method=None, tol=1e-11):
    n = problem.objective.n
    y0 = 0.1 * np.ones(n) if y0 is None else y0
    return sad.solve(problem, x, y0, method=method, tol=tol)


def dense(matrix, shape):
    if matrix is None:
        return np.zeros(shape)
    if hasattr(matrix, "todense"):
        return np.asarray(matrix.todense())
    return np.asarray(matrix)


def dense_jacobian(problem, sol):
    """Solve the KKT system of the active rows with dense algebra, written here."""
    x, y, n, m = sol.x, sol.y, sol.y.size, sol.x.size
    sign = -1.0 if problem.maximize else 1.0
    H, cross = sign * problem.objective.hess(x, y), sign * problem.objective.cross(x, y)
    C, M, start = np.zeros((0, n)), np.zeros((0, m)), 0
    free = np.arange(n)
    for stack, kind in ((problem.equalities, "e"), (problem.inequalities, "i")):
        if stack is None:
            continue
        size = stack.value(x, y).size
        nu = sol.multipliers[start : start + size]
        start += size
        keep = np.arange(size) if kind == "e" else np.flatnonzero(sol.active.strong)
        C = np.vstack([C, dense(stack.jac(x, y), (size, n))[keep]])
        M = np.vstack([M, dense(stack.jac_x(x, y), (size, m))[keep]])
        H = H + dense(stack.hess(x, y, nu), (n, n))
        cross = cross + dense(stack.cross(x, y, nu), (n, m))
    if sol.active is not None:
        free = np.flatnonzero(~sol.active.fixed)
    C, k = C[:, free], C.shape[0]
    K = np.block([[H[np.ix_(free, free)], C.T], [C, np.zeros((k, k))]])
    J = np.zeros((n, m))
    J[free] = -np.linalg.solve(K, np.vstack([cross[free], M]))[: free.size]
    return J


def differences(problem, sol, u, h=1e-4, **options):
    """Fourth-order central differences of the re-solved problem along u."""
    ys = [
        solved(problem, sol.x + s * h * u, sol.y, **options).y for s in (-2, -1, 1, 2)
    ]
    return (ys[0] - 8.0 * ys[1] + 8.0 * ys[2] - ys[3]) / (12.0 * h)


def clear(sol):
    """Whether every side is well on one side, so that differences make sense."""
    return sol.active is None or not sol.active.degenerate


@pytest.mark.parametrize("n", [1, 2, 7, 60])
@pytest.mark.parametrize("kind", KINDS)
def test_derivative_after_solve(kind, n):
    if kind == "both equalities" and n < 3:
        pytest.skip("no freedom is left")
    problem, x = make(kind, n, seed=n)
    sol = solved(problem, x)
    assert sol.status is Status.CONVERGED
    assert clear(sol)
    J = sad.derivative(problem, sol, rtol=1e-12)
    expected = dense_jacobian(problem, sol)
    size = np.abs(expected).max()
    np.testing.assert_allclose(J @ np.eye(3), expected, rtol=0, atol=1e-9 * (size + 1))
    u = np.array([0.6, -0.5, 0.3])
    np.testing.assert_allclose(
        J @ u, differences(problem, sol, u), rtol=0, atol=1e-6 * (size + 1)
    )
    v = np.linspace(-1.0, 1.0, n)
    np.testing.assert_allclose(
        J.T @ v, expected.T @ v, rtol=0, atol=1e-8 * n * (size + 1)
    )


def has_no_feasible_point(problem, x, n):
    """Tell by HiGHS; the rows are affine."""
    zero = np.zeros(n)
    rows = {}
    for name, part in (("eq", problem.equalities), ("ub", problem.inequalities)):
        if part is not None:
            rows[f"A_{name}"] = dense(part.jac(x, zero), (-1, n))
            rows[f"b_{name}"] = -part.value(x, zero)
    box = np.stack(problem.bounds(x, zero), axis=1)
    return linprog(zero, bounds=box, **rows).status == 2


@given(st.sampled_from(KINDS), st.integers(1, 200), st.integers(0, 2**31))
@example("mixed", 9, 319412)
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.filter_too_much]
)
def test_random_problems(kind, n, seed):
    assume(not (kind == "both equalities" and n < 3))
    problem, x = make(kind, n, seed)
    if kind in {"sphere", "both equalities"}:  # not convex: any local minimum will do
        sol = sad.solve(problem, x, 0.1 * np.ones(n), tol=1e-11, on_failure="ignore")
        assume(sol.status is Status.CONVERGED)
    else:
        sol = sad.solve(problem, x, 0.1 * np.ones(n), tol=1e-11, on_failure="ignore")
        if sol.status is Status.INFEASIBLE:  # a seed may draw such rows
            assert has_no_feasible_point(problem, x, n)
            return
        assert sol.status.acceptable
    assume(clear(sol))
    expected = dense_jacobian(problem, sol)
    size = np.abs(expected).max() + 1.0
    assume(size < 1e4)
    u = np.array([0.6, -0.5, 0.3])
    tangent = sad.jvp(problem, sol, u, rtol=1e-12).y
    np.testing.assert_allclose(tangent, expected @ u, rtol=0, atol=1e-9 * size)


@pytest.mark.parametrize("kind", ["half-spaces", "ball", "bounds", "mixed", "argmax"])
def test_both_ways_agree(kind):
    problem, x = make(kind, 12, seed=3)
    exact, path = solved(problem, x), solved(problem, x, method="barrier", tol=1e-9)
    np.testing.assert_allclose(path.y, exact.y, atol=1e-6)
    np.testing.assert_allclose(path.multipliers, exact.multipliers, atol=1e-5)
    assert path.value == pytest.approx(exact.value, rel=1e-7)
    np.testing.assert_array_equal(path.active.strong, exact.active.strong)
    np.testing.assert_array_equal(path.active.fixed, exact.active.fixed)
    u = np.array([0.6, -0.5, 0.3])
    # The path's y is a gap away from the solution: so is its derivative.
    np.testing.assert_allclose(
        sad.jvp(problem, path, u).y, sad.jvp(problem, exact, u).y, atol=1e-4
    )


def test_active_sides_hold_exactly():
    problem, x = make("mixed", 30, seed=5)
    sol = solved(problem, x, tol=1e-8)
    lower, upper = problem.bounds(x, sol.y)
    at = sol.y[sol.active.fixed]
    assert sol.active.fixed.any()
    assert np.all((at == lower[sol.active.fixed]) | (at == upper[sol.active.fixed]))
    rows = problem.inequalities.value(x, sol.y)
    assert sol.active.strong.any()
    assert np.abs(rows[sol.active.strong]).max() <= 1e-13
    multipliers = sol.multipliers[-rows.size :]
    assert np.all(multipliers[~sol.active.strong & ~sol.active.weak] == 0.0)
    assert np.all(multipliers >= 0.0)


def test_method_by_default():
    for kind, method in (
        ("none", "newton_cg"),
        ("linear", "newton_kkt"),
        ("bounds", "active_set"),
    ):
        problem, x = make(kind, 5, seed=1)
        chosen, named = solved(problem, x), solved(problem, x, method=method)
        np.testing.assert_array_equal(chosen.y, named.y)


# Newton on the conditions ----------------------------------------------------------------


def test_convergence_is_quadratic():
    """Distances of the last iterates to the solution: each the square of the last."""
    problem, x = make("sphere", 8, seed=2)
    sol = solved(problem, x, tol=1e-13)
    seen = []
    sad.solve(
        problem,
        x,
        sol.y + 0.05 * np.cos(np.arange(8.0)),
        method="newton_kkt",
        tol=1e-13,
        callback=lambda it: seen.append(np.linalg.norm(it.y - sol.y)),
    )
    assert len(seen) >= 3
    for before, after in itertools.pairwise(seen):
        assert after <= 10.0 * before**2
    assert seen[-1] <= 1e-5


def test_h_need_only_be_definite_on_the_null_space():
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((2, 6)), rng.standard_normal((6, 3))
    P = np.eye(6) - np.linalg.pinv(A) @ A
    problem = Problem(
        Smooth(P - 5.0 * (np.eye(6) - P), B, 0.0), equality=moving(A, np.ones((2, 3)))
    )
    x = np.array([0.3, -0.4, 0.7])
    sol = solved(problem, x)
    expected = dense_jacobian(problem, sol)
    J = sad.derivative(problem, sol, rtol=1e-12) @ np.eye(3)
    np.testing.assert_allclose(J, expected, atol=1e-10)
    np.testing.assert_allclose(A @ sol.y, np.ones((2, 3)) @ x + 1.0, atol=1e-12)


@pytest.mark.parametrize("form", ["dense", "sparse", "operator"])
def test_redundant_rows(form):
    problem, x = make("linear", 8, seed=4)
    rows = problem.equality.rows
    A, b = problem.equality.A, -rows.fun(x, np.zeros(8))
    weights = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, -1.0]])
    wrap = {
        "dense": np.asarray,
        "sparse": scipy.sparse.csr_array,
        "operator": lambda a: sad.aslinearoperator(a) * 1.0,
    }[form]
    expected = solved(Problem(problem.objective, equality=LinearEquality(A, b)), x)
    found = solved(
        Problem(
            problem.objective, equality=LinearEquality(wrap(weights @ A), weights @ b)
        ),
        x,
    )
    np.testing.assert_allclose(found.y, expected.y, atol=1e-9)
    wrong = Problem(
        problem.objective,
        equality=LinearEquality(wrap(weights @ A), weights @ b + [0, 0, 0.1]),
    )
    with pytest.raises(ConvergenceError, match=r"INFEASIBLE.*row \d stays off by") as e:
        solved(wrong, x)
    assert e.value.status is Status.INFEASIBLE


@pytest.mark.parametrize("condition", [1e4, 1e6, 1e8, 1e12])
@pytest.mark.parametrize("form", ["dense", "operator"])
def test_consistent_rows_are_never_called_contradictory(form, condition):
    """The trap: MINRES on [I C'; C 0] gave up, and that was taken for a proof."""
    n, p = 60, 20
    for seed in range(4):
        rng = np.random.default_rng(seed)
        left = np.linalg.qr(rng.standard_normal((p, p)))[0]
        right = np.linalg.qr(rng.standard_normal((n, p)))[0]
        A = (left * np.geomspace(1.0, 1.0 / condition, p)) @ right.T
        Q, g = np.diag(np.linspace(1.0, 3.0, n)), rng.standard_normal(n)
        b = A @ rng.standard_normal(n)
        rows = A if form == "dense" else sad.aslinearoperator(A) * 1.0
        problem = Problem(quadratic(Q, 0.0 * g), equality=LinearEquality(rows, b))
        sol = sad.solve(problem, g, on_failure="ignore")
        assert sol.status is not Status.INFEASIBLE
        if form == "dense" and condition <= 1e8:
            assert sol.status.acceptable
        if sol.status is Status.STAGNATED:
            assert any("ill-conditioned" in note for note in sol.warnings)


def test_maximum_minimum_and_saddle_are_stationary_points():
    """f = ½ y'Dy − x'y + Σ y⁴/40 around each of its kinds: f_YY is not definite."""
    for diagonal in ([1.0, 2.0], [-1.0, -2.0], [-2.0, 1.5]):
        D = np.array(diagonal)
        objective = FunctionObjective(
            value=lambda x, y, D=D: float(
                0.5 * y @ (D * y) - x @ y + np.sum(y**4) / 40
            ),
            grad=lambda x, y, D=D: D * y - x + y**3 / 10,
            hvp=lambda x, y, v, D=D: (D + 0.3 * y**2) * v,
            cross_jvp=lambda x, y, u: -u,
            cross_vjp=lambda x, y, w: -w,
            n=2,
        )
        problem, x = Problem(objective), np.array([0.2, -0.1])
        sol = sad.solve(problem, x, np.zeros(2), method="newton_kkt", tol=1e-13)
        assert np.linalg.norm(objective.grad(x, sol.y)) <= 1e-13
        J = sad.derivative(problem, sol, method="minres", rtol=1e-13) @ np.eye(2)
        np.testing.assert_allclose(J, np.diag(1.0 / (D + 0.3 * sol.y**2)), atol=1e-11)


def three_branches():
    """The paper's section 3.2: f = x y⁴ + 2 x² y³ − 12 y²."""
    return Problem(
        FunctionObjective(
            value=lambda x, y: float(
                x[0] * y[0] ** 4 + 2 * x[0] ** 2 * y[0] ** 3 - 12 * y[0] ** 2
            ),
            grad=lambda x, y: 4 * x * y**3 + 6 * x**2 * y**2 - 24 * y,
            hvp=lambda x, y, v: (12 * x * y**2 + 12 * x**2 * y - 24) * v,
            cross_jvp=lambda x, y, u: (4 * y**3 + 12 * x * y**2) * u,
            cross_vjp=lambda x, y, w: (4 * y**3 + 12 * x * y**2) * w,
            n=1,
        )
    )


def branches(x):
    root = np.sqrt(9 * x**4 + 96 * x)
    return [0.0, (-3 * x**2 + root) / (4 * x), (-3 * x**2 - root) / (4 * x)]


@pytest.mark.parametrize("branch", [0, 1, 2])
@pytest.mark.parametrize("steps", [1, 4, 16])
def test_a_branch_is_not_left(branch, steps):
    problem, y = three_branches(), np.array([branches(0.25)[branch]])
    for x in np.linspace(0.25, 4.0, steps + 1)[1:]:
        y = sad.solve(problem, np.array([x]), y, method="newton_kkt", tol=1e-13).y
        assert y[0] == pytest.approx(branches(x)[branch], abs=1e-10)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_end_of_a_branch_is_said(sign):
    """The fold is at x = −2 (4/3)^⅓ = −2.2013: beyond it y = 0 alone is stationary."""
    problem, x, status = three_branches(), -3.0, Status.CONVERGED
    y = np.array([(-3 * x**2 + sign * np.sqrt(9 * x**4 + 96 * x)) / (4 * x)])
    while status is Status.CONVERGED and x < -1.0:
        x += 0.025
        sol = sad.solve(
            problem,
            np.array([x]),
            y,
            method="newton_kkt",
            tol=1e-12,
            on_failure="ignore",
        )
        y, status = sol.y, sol.status
    assert status is Status.BRANCH_ENDS
    assert "fold" in status.value
    assert -2.2013 <= x <= -2.17


# known optima, at scale, peers -----------------------------------------------------------


def quadratic(P, q):
    """½ y'Py + x'y, as matrices: x is the linear term."""
    P = scipy.sparse.csr_array(P)
    objective = FunctionObjective(
        value=lambda x, y: float(0.5 * y @ (P @ y) + x @ y),
        grad=lambda x, y: P @ y + x,
        hvp=lambda x, y, v: P @ v,
        cross_jvp=lambda x, y, u: u,
        cross_vjp=lambda x, y, w: w,
        n=len(q),
    )
    objective.hess = lambda x, y: P
    return objective


def polyhedron(G, h):
    return Inequality(lambda x, y: G @ y - h, lambda x, y: G)


def hock_schittkowski():
    """Small QPs of the Maros-Meszaros set: P, q, what restricts y, the optimal value."""
    inf = np.inf
    return {
        "HS21": (
            np.diag([0.02, 2.0]),
            np.zeros(2),
            {
                "inequality": polyhedron(np.array([[-10.0, 1.0]]), np.array([-10.0])),
                "lower": np.array([2.0, -50.0]),
                "upper": 50.0,
            },
            0.04,
        ),
        "HS35": (
            np.array([[4.0, 2, 2], [2, 4, 0], [2, 0, 2]]),
            np.array([-8.0, -6, -4]),
            {
                "inequality": polyhedron(np.array([[1.0, 1, 2]]), np.array([3.0])),
                "lower": 0.0,
            },
            1.0 / 9.0 - 9.0,
        ),
        "HS76": (
            np.array([[2.0, 0, -1, 0], [0, 1, 0, 0], [-1, 0, 2, 1], [0, 0, 1, 1]]),
            np.array([-1.0, -3, 1, -1]),
            {
                "inequality": polyhedron(
                    np.array([[1.0, 2, 1, 1], [3, 1, 2, -1], [0, -1, -4, 0]]),
                    np.array([5.0, 4, -1.5]),
                ),
                "lower": 0.0,
            },
            -4.681818181818,
        ),
        "HS52": (
            np.array(
                [
                    [32.0, -8, 0, 0, 0],
                    [-8, 4, 2, 0, 0],
                    [0, 2, 2, 0, 0],
                    [0, 0, 0, 2, 0],
                    [0, 0, 0, 0, 2],
                ]
            ),
            np.array([0.0, -4, -4, -2, -2]),
            {
                "equality": LinearEquality(
                    np.array([[1.0, 3, 0, 0, 0], [0, 0, 1, 1, -2], [0, 1, 0, 0, -1]]),
                    np.zeros(3),
                )
            },
            5.326647564 - 6.0,
        ),
        "HS53": (
            np.array(
                [
                    [2.0, -2, 0, 0, 0],
                    [-2, 4, 2, 0, 0],
                    [0, 2, 2, 0, 0],
                    [0, 0, 0, 2, 0],
                    [0, 0, 0, 0, 2],
                ]
            ),
            np.array([0.0, -4, -4, -2, -2]),
            {
                "equality": LinearEquality(
                    np.array([[1.0, 3, 0, 0, 0], [0, 0, 1, 1, -2], [0, 1, 0, 0, -1]]),
                    np.zeros(3),
                ),
                "lower": -10.0,
                "upper": np.array([10.0, 10, 10, 10, inf]),
            },
            4.093023256 - 6.0,
        ),
        "ZECEVIC2": (
            np.diag([0.0, 4.0]),
            np.array([-2.0, -3.0]),
            {
                "inequality": polyhedron(
                    np.array([[1.0, 1.0], [1.0, 4.0]]), np.array([2.0, 4.0])
                ),
                "lower": 0.0,
                "upper": 10.0,
            },
            -4.125,
        ),
    }


@pytest.mark.parametrize("method", [None, "barrier"])
@pytest.mark.parametrize("name", sorted(hock_schittkowski()))
def test_known_optima(name, method):
    P, q, constraints, optimum = hock_schittkowski()[name]
    sol = sad.solve(Problem(quadratic(P, q), **constraints), q, method=method)
    assert sol.value == pytest.approx(optimum, rel=2e-8)


def convex_qp(n, q, seed, sparse=True):
    rng = np.random.default_rng(seed)
    root = scipy.sparse.random_array((n, n), density=4.0 / n, rng=rng)
    P = root @ root.T + 0.1 * scipy.sparse.eye_array(n)
    G = scipy.sparse.random_array((q, n), density=5.0 / n, rng=rng, format="csr")
    G = scipy.sparse.csr_array(
        G + scipy.sparse.random_array((q, n), density=1 / n, rng=rng)
    )
    return P, G, 0.1 + rng.random(q), 3.0 * rng.standard_normal(n)


def test_thousands_of_rows():
    """The conditions of a convex QP, recomputed here, and no dense matrix on the way."""
    n, q = 500, 4000
    P, G, h, c = convex_qp(n, q, seed=0)
    problem = Problem(
        quadratic(P, c), inequality=polyhedron(G, h), lower=-1.0, upper=2.0
    )
    sol = sad.solve(problem, c, tol=1e-9)
    force = P @ sol.y + c + G.T @ sol.multipliers
    free = ~sol.active.fixed
    assert np.linalg.norm(force[free]) <= 1e-9 * np.linalg.norm(c)
    assert np.all(force[sol.y == -1.0] >= -1e-9 * np.linalg.norm(c))
    assert np.all(force[sol.y == 2.0] <= 1e-9 * np.linalg.norm(c))
    assert (G @ sol.y - h).max() <= 1e-10
    assert sol.multipliers.min() >= 0.0
    assert np.abs(sol.multipliers * (G @ sol.y - h)).max() <= 1e-12
    assert sol.active.strong.sum() > 50
    assert sol.niter <= 40


def test_against_clarabel():
    clarabel = pytest.importorskip("clarabel")
    n, q = 60, 200
    P, G, h, c = convex_qp(n, q, seed=1)
    settings_ = clarabel.DefaultSettings()
    settings_.verbose = False
    settings_.tol_gap_abs = settings_.tol_gap_rel = settings_.tol_feas = 1e-11
    peer = clarabel.DefaultSolver(
        scipy.sparse.triu(P).tocsc(),
        c,
        scipy.sparse.csc_matrix(G),
        h,
        [clarabel.NonnegativeConeT(q)],
        settings_,
    ).solve()
    for method in ("active_set", "barrier"):
        sol = sad.solve(
            Problem(quadratic(P, c), inequality=polyhedron(G, h)), c, method=method
        )
        np.testing.assert_allclose(sol.y, peer.x, atol=1e-6)
        assert sol.value == pytest.approx(peer.obj_val, rel=1e-7)


@pytest.mark.parametrize("method", ["active_set", "barrier"])
def test_matrix_free(method):
    """Operators for the Hessian and all Jacobians: the same solution by CG and MINRES."""
    n, q = 30, 40
    P, G, h, c = convex_qp(n, q, seed=2)
    A = np.ones((1, n))
    explicit = Problem(
        quadratic(P, c),
        inequality=polyhedron(G, h),
        equality=LinearEquality(A, np.ones(1)),
        lower=-1.0,
    )
    expected = sad.solve(explicit, c, tol=1e-10)
    products = quadratic(P, c)
    products.hess = lambda x, y: sad.aslinearoperator(P) * 1.0
    rows = sad.aslinearoperator(G) * 1.0
    free = Problem(
        products,
        inequality=polyhedron(rows, h),
        equality=LinearEquality(sad.aslinearoperator(A) * 1.0, np.ones(1)),
        lower=-1.0,
    )
    tol = 1e-8 if method == "active_set" else 1e-5
    found = sad.solve(free, c, method=method, tol=tol)
    np.testing.assert_allclose(found.y, expected.y, atol=1e3 * tol)


def test_a_warm_start_costs_little():
    problem, x = make("mixed", 40, seed=6)
    sol = solved(problem, x, tol=1e-8)
    again = solved(problem, x * (1.0 + 1e-4), sol.y, tol=1e-8)
    assert again.niter <= 4 < sol.niter


@pytest.mark.parametrize("kind", ["linear", "half-spaces", "bounds"])
def test_float32_stays(kind):
    problem, x = make(kind, 10, seed=7)
    objective = problem.objective
    objective.Q, objective.B = objective.Q.astype("f"), objective.B.astype("f")
    reference = solved(problem, x)
    sol = sad.solve(problem, x.astype("f"), np.zeros(10, "f"), tol=1e-4)
    assert sol.y.dtype == np.float32 or kind != "bounds"
    np.testing.assert_allclose(sol.y, reference.y, atol=1e-3)


def test_weakly_active_sides_are_reported():
    """min ½ (y − x)² with y <= 0: at x = 0 the row is active without a force."""
    row = Inequality(lambda x, y: y - 0.0, lambda x, y: np.eye(1))
    objective = quadratic(np.eye(1), np.zeros(1))
    for constraints, mask in (
        ({"inequality": row}, "weak"),
        ({"upper": 0.0}, "weak_fixed"),
    ):
        sol = sad.solve(Problem(objective, **constraints), np.zeros(1))
        assert getattr(sol.active, mask).all()
        assert sol.active.degenerate


# errors ---------------------------------------------------------------------------------


def simple(n=4):
    return quadratic(np.eye(n), np.zeros(n))


@pytest.mark.parametrize("method", ["active_set", "barrier"])
def test_infeasible_sides(method):
    rows = polyhedron(np.array([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]]), np.array([0.0, -1]))
    with pytest.raises(ConvergenceError, match=r"INFEASIBLE.*inequality row 0"):
        sad.solve(Problem(simple(), inequality=rows), np.ones(4), method=method)
    sums = LinearEquality(np.ones((1, 4)), np.array([9.0]))
    with pytest.raises(ConvergenceError, match=r"INFEASIBLE.*equality row 0.*upper"):
        sad.solve(
            Problem(simple(), equality=sums, upper=1.0), np.ones(4), method=method
        )
    apart = Inequality(
        lambda x, y: np.array([y @ y - 1.0, (y - 3.0) @ (y - 3.0) - 1.0]),
        lambda x, y: np.vstack([2 * y, 2 * (y - 3.0)]),
        hess=lambda x, y, nu: 2 * nu.sum() * np.eye(4),
    )
    with pytest.raises(ConvergenceError, match="INFEASIBLE"):
        sad.solve(Problem(simple(), inequality=apart), np.ones(4), method=method)


@pytest.mark.parametrize("method", ["active_set", "barrier"])
def test_the_verdict_on_feasibility_is_that_of_a_linear_program(method):
    n, verdicts = 6, set()
    for seed in range(25):
        problem, x = make("mixed", n, seed)
        A, G = problem.equality.A, problem.inequality.rows.jac(x, np.zeros(n))
        peer = linprog(
            np.zeros(n),
            A_ub=G,
            b_ub=-problem.inequality.rows.fun(x, np.zeros(n)),
            A_eq=A,
            b_eq=-problem.equality.rows.fun(x, np.zeros(n)),
            bounds=[(-0.8, 2.0)] * n,
        )
        sol = sad.solve(problem, x, np.zeros(n), method=method, on_failure="ignore")
        expected = {0: Status.CONVERGED, 2: Status.INFEASIBLE}[peer.status]
        assert sol.status is expected, seed
        verdicts.add(expected)
    assert len(verdicts) == 2


@pytest.mark.parametrize("method", ["active_set", "barrier"])
def test_small_and_empty(method):
    """No rows, rows of zeros, copies of a row, all variables fixed, strange units."""

    def y_of(problem, x):
        return sad.solve(problem, x, method=method, tol=1e-9).y

    x = -np.ones(3)
    none = Inequality(lambda x, y: np.zeros(0), lambda x, y: np.zeros((0, 3)))
    zero = polyhedron(np.zeros((1, 3)), np.ones(1))
    same = polyhedron(np.ones((4, 3)), np.ones(4))
    for constraints, expected in (
        ({"inequality": none}, 1.0),
        ({"inequality": zero}, 1.0),
        ({"inequality": same}, 1.0 / 3.0),
        ({"lower": 0.3, "upper": 0.3}, 0.3),
        ({"lower": -np.inf, "upper": np.inf}, 1.0),
    ):
        y = y_of(Problem(simple(3), **constraints), x)
        np.testing.assert_allclose(y, expected, rtol=1e-6)
    for unit in (1e-30, 1e30):
        problem = Problem(quadratic(unit * np.eye(3), np.zeros(3)), upper=0.5)
        np.testing.assert_allclose(y_of(problem, unit * x), 0.5, rtol=1e-6)


def test_inputs_are_left_alone():
    problem, x = make("mixed", 6, seed=3)
    y0 = np.full(12, 0.1)[::2]
    y0.flags.writeable = x.flags.writeable = False
    for method in ("active_set", "barrier"):
        assert sad.solve(problem, x, y0, method=method).status is Status.CONVERGED


def test_infeasible_nonlinear_equality():
    never = Equality(
        lambda x, y: np.array([y @ y + 1.0]),
        lambda x, y: 2.0 * y[None, :],
        hess=lambda x, y, nu: 2.0 * nu[0] * np.eye(4),
    )
    with pytest.raises(ConvergenceError, match=r"INFEASIBLE.*row 0 stays off"):
        sad.solve(Problem(simple(), equality=never), np.ones(4), np.ones(4))


@pytest.mark.parametrize("method", ["active_set", "barrier"])
def test_unbounded(method):
    flat = quadratic(np.zeros((4, 4)), np.zeros(4))
    with pytest.raises(ConvergenceError, match="UNBOUNDED"):
        sad.solve(Problem(flat, lower=0.0), -np.ones(4), method=method)


def test_unbounded_under_equalities():
    flat = quadratic(np.zeros((4, 4)), np.zeros(4))
    sums = LinearEquality(np.ones((1, 4)), np.ones(1))
    with pytest.raises(ConvergenceError, match="UNBOUNDED"):
        sad.solve(Problem(flat, equality=sums), np.arange(4.0))


@pytest.mark.parametrize("kind", ["equality", "inequality"])
def test_nan_of_a_constraint(kind):
    make_ = Equality if kind == "equality" else Inequality
    rows = make_(lambda x, y: np.array([np.nan]), lambda x, y: np.ones((1, 4)))
    with pytest.raises(ConvergenceError, match="NOT_FINITE"):
        sad.solve(Problem(simple(), **{kind: rows}), np.ones(4))


def test_wrong_arguments():
    with pytest.raises(ValueError, match="lower must be <= upper"):
        sad.solve(Problem(simple(), lower=1.0, upper=0.0), np.ones(4))
    with pytest.raises(ValueError, match="'newton_kkt' is for equality"):
        sad.solve(Problem(simple(), lower=0.0), np.ones(4), method="newton_kkt")
    with pytest.raises(ValueError, match="'newton_cg' knows no constraints"):
        sad.solve(Problem(simple(), lower=0.0), np.ones(4), method="newton_cg")
    with pytest.raises(ValueError, match="method must be one of"):
        sad.solve(Problem(simple()), np.ones(4), method="simplex")


def test_singular_hessian_is_refused_by_the_derivative():
    """Two variables that only their sum pins down: solved, and not differentiable."""
    P = np.ones((2, 2))
    problem = Problem(quadratic(P, np.zeros(2)), lower=-5.0, upper=5.0)
    sol = sad.solve(problem, -np.ones(2))
    assert sol.y.sum() == pytest.approx(1.0, rel=1e-7)
    with pytest.raises(ConvergenceError, match="SINGULAR"):
        sad.jvp(problem, sol, np.array([1.0, -1.0]))


# by products ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["active_set", "barrier"])
@pytest.mark.parametrize("seed", [0, 2])
def test_matrix_free_to_full_accuracy(seed, method):
    """Rows known by products: CG in their null space keeps its digits to the end.

    MINRES on the saddle, which was here, stagnated at 1e-6 after 20,000 products.
    """
    n, q = 40, 60
    P, G, h, c = convex_qp(n, q, seed=seed)
    A = np.ones((1, n))

    def problem(objective, given):
        rows, equality = given(G), LinearEquality(given(A), np.ones(1))
        inequality = polyhedron(rows, h)
        return Problem(objective, inequality=inequality, equality=equality, lower=-1.0)

    expected = sad.solve(problem(quadratic(P, c), lambda M: M), c, tol=1e-11)
    products = quadratic(P, c)
    products.hess = lambda x, y: sad.aslinearoperator(P) * 1.0
    free = problem(products, lambda M: sad.aslinearoperator(M) * 1.0)
    sol = sad.solve(free, c, method=method, tol=1e-8)
    assert sol.status is Status.CONVERGED
    assert sol.n_hvp <= 8000
    np.testing.assert_allclose(sol.y, expected.y, atol=1e-5)


def test_a_product_that_is_not_finite_verifies_nothing():
    """Spoilt from any call on, the products of f_YY give no acceptable end."""
    n, d = 6, 10.0 ** np.linspace(-4.0, 4.0, 6)
    Q = d[:, None] * (2.0 * np.eye(n) + np.ones((n, n))) * d
    rng = np.random.default_rng(0)
    A, c, calls = rng.standard_normal((2, n)) * d, d * rng.standard_normal(n), []

    def solved(first):
        calls.clear()

        def hvp(x, y, v):
            calls.append(len(calls))
            return Q @ v if len(calls) < first else np.nan * v

        f = sad.FunctionObjective(
            value=lambda x, y: 0.5 * y @ Q @ y - c @ y,
            grad=lambda x, y: Q @ y - c,
            hvp=hvp,
            n=n,
        )
        problem = sad.Problem(f, equality=sad.LinearEquality(A, np.ones(2)))
        options = {"method": "newton_kkt", "on_failure": "ignore"}
        return sad.solve(problem, np.zeros(1), **options)

    assert solved(np.inf).status.acceptable
    for first in range(1, len(calls) + 1):
        assert not solved(first).status.acceptable, first


# problems known by products ---------------------------------------------------------------


def distance(n):
    """½ ‖y − x‖², by functions."""
    return sad.FunctionObjective(
        value=lambda x, y: 0.5 * float((y - x) @ (y - x)),
        grad=lambda x, y: y - x,
        hvp=lambda x, y, v: v,
        cross_vjp=lambda x, y, w: -w,
        n=n,
    )


def simplex_projection(x):
    """Return the nearest point with y >= 0, Σ y = 1: by sorting (Held et al. 1974)."""
    ordered = np.sort(x)[::-1]
    level = (np.cumsum(ordered) - 1.0) / np.arange(1, x.size + 1)
    return np.maximum(x - level[ordered > level][-1], 0.0)


@pytest.mark.parametrize("rows", ["array", "sparse", "operator"])
@pytest.mark.parametrize("n", [50, 3000])
def test_a_projection_by_products_takes_few_of_them(n, rows):
    """The barrier's diagonal is the metric of the null space: 10⁵ products without it."""
    ones = np.ones((1, n))
    kinds = {
        "array": ones,
        "sparse": scipy.sparse.csr_array(ones),
        "operator": sad.aslinearoperator(ones),
    }
    x = np.random.default_rng(n).standard_normal(n)
    equality = sad.LinearEquality(kinds[rows], np.ones(1))
    found = sad.solve(sad.Problem(distance(n), equality=equality, lower=0.0), x)
    np.testing.assert_allclose(found.y, simplex_projection(x), atol=1e-8)
    assert found.niter <= 20
    assert found.n_hvp <= 200


def test_rows_by_products_are_rows_of_a_matrix():
    """Nested projections by MINRES did not end within minutes."""
    rng = np.random.default_rng(3)
    n, p = 120, 20
    A = rng.standard_normal((n, n)) * np.exp(rng.uniform(-2.0, 2.0, n))
    C = scipy.sparse.random_array((p, n), density=0.1, rng=rng).tocsr()
    c = C @ rng.uniform(0.0, 1.0, n)
    objective = sad.FunctionObjective(
        value=lambda x, y: 0.5 * float((A @ y - x) @ (A @ y - x)),
        grad=lambda x, y: A.T @ (A @ y - x),
        hvp=lambda x, y, v: A.T @ (A @ v),
        n=n,
    )
    x = rng.standard_normal(n)
    found = [
        sad.solve(
            sad.Problem(objective, equality=sad.LinearEquality(rows, c), lower=0.0), x
        )
        for rows in (C, sad.aslinearoperator(C))
    ]
    np.testing.assert_allclose(found[0].y, found[1].y, atol=1e-6)
    assert found[1].n_hvp <= 3 * found[0].n_hvp


@pytest.mark.parametrize("n", [40, 2000])
def test_an_isotonic_regression_by_products_takes_few_of_them(n):
    """The rows of the inequalities are in the preconditioner."""
    D = scipy.sparse.diags_array(
        [np.ones(n), -np.ones(n - 1)], offsets=[0, 1], shape=(n - 1, n)
    ).tocsr()
    rng = np.random.default_rng(n)
    x = np.sort(rng.standard_normal(n)) + 0.3 * rng.standard_normal(n)
    rows = sad.Inequality(lambda x, y: D @ y, lambda x, y: D)
    found = sad.solve(sad.Problem(distance(n), inequality=rows), x)
    known = isotonic_regression(x).x
    np.testing.assert_allclose(found.y, known, atol=1e-7)
    assert found.n_hvp <= 300


def transport(costs, eps):
    """Return entropic transport between uniform marginals, x scaling the rows' costs."""
    n = costs.shape[0]
    eye, ones = scipy.sparse.eye_array(n), np.ones((1, n))
    rows = [scipy.sparse.kron(eye, ones), scipy.sparse.kron(ones, eye)]

    def value(x, y):
        if not np.all(y > 0.0):
            return np.inf
        return float(
            (costs * x[:, None]).ravel() @ y + eps * np.sum(y * (np.log(y) - 1))
        )

    def grad(x, y):
        with np.errstate(invalid="ignore", divide="ignore"):
            return (costs * x[:, None]).ravel() + eps * np.log(y)

    return Problem(
        FunctionObjective(
            value=value,
            grad=grad,
            hvp=lambda x, y, v: eps * v / y,
            hess_diag=lambda x, y: eps / y,
            cross_jvp=lambda x, y, u: (costs * u[:, None]).ravel(),
            cross_vjp=lambda x, y, w: np.sum(costs * w.reshape(n, n), axis=1),
            n=n * n,
        ),
        equality=LinearEquality(
            scipy.sparse.vstack(rows).tocsr(), np.full(2 * n, 1 / n)
        ),
    )


def sinkhorn(costs, eps):
    """Return the plan by Sinkhorn's alternate scaling, run until it repeats itself."""
    n = costs.shape[0]
    kernel = np.exp(-costs / eps)
    left = np.ones(n)
    for _ in range(5000):
        right = 1.0 / (n * (kernel.T @ left))
        left = 1.0 / (n * (kernel @ right))
    return (left[:, None] * kernel * right).ravel()


@pytest.mark.parametrize("seed", range(3))
def test_curvatures_that_grow_on_the_way_cost_few_products(seed):
    """y log y is not defined at y < 0, and its curvatures end a billion times apart."""
    n, eps = 12, 0.05
    rng = np.random.default_rng(seed)
    costs, x = rng.random((n, n)), np.ones(n)
    problem, start = transport(costs, eps), np.full(n * n, 1 / n**2)
    sol = sad.solve(problem, x, start)
    assert np.ptp(np.log(sol.y)) > np.log(1e6)
    np.testing.assert_allclose(sol.y, sinkhorn(costs, eps), atol=1e-8 * sol.y.max())
    assert sol.n_hvp <= 500
    assert sol.n_grad <= 150
    v, u, h = rng.standard_normal(n * n), rng.standard_normal(n), 1e-6
    plans = [sinkhorn(costs * (x + t * u)[:, None], eps) for t in (h, -h)]
    slope = v @ (plans[0] - plans[1]) / (2 * h)
    assert abs(sad.vjp(problem, sol, v).x @ u - slope) <= 1e-5 * abs(slope) + 1e-8


def softmax(n):
    """Return entropy on the simplex, with the bound y >= 0 that a user writes."""
    lower = sad.FunctionObjective(
        value=lambda x, y: float(special.xlogy(y, y).sum() - x @ y),
        grad=lambda x, y: np.log(y) + 1.0 - x,
        hvp=lambda x, y, v: v / y,
        cross_vjp=lambda x, y, w: -w,
        n=n,
    )
    rows = sad.LinearEquality(np.ones((1, n)), np.ones(1))
    return sad.Problem(lower, equality=rows, lower=0.0)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("start", ["uniform", "none"])
def test_a_softmax_as_an_argmax_takes_few_steps(start):
    n = 1000
    rng = np.random.default_rng(71)
    x, v = 2.0 * rng.standard_normal(n), rng.standard_normal(n)
    problem = softmax(n)
    y0 = np.full(n, 1.0 / n) if start == "uniform" else None
    found = sad.solve(problem, x, y0)
    y = special.softmax(x)
    np.testing.assert_allclose(found.y, y, rtol=1e-8)
    assert found.niter <= 45
    assert found.n_grad <= 100
    adjoint = sad.vjp(problem, found, v)
    np.testing.assert_allclose(adjoint.x, y * (v - y @ v), rtol=1e-6, atol=1e-12)


def unbalanced(k, seed):
    """Return entropic transport whose marginals are penalised, y >= 0."""
    costs = np.random.default_rng(seed).random((k, k))
    b, eps = np.full(k, 1.0 / k), 0.05

    def value(x, y):
        T = y.reshape(k, k)
        entropy = eps * (special.xlogy(T, T) - T)
        rows, columns = T.sum(1) - np.exp(x), T.sum(0) - b
        return float(
            (costs * T + entropy).sum() + 0.5 * (rows @ rows + columns @ columns)
        )

    def grad(x, y):
        T = y.reshape(k, k)
        rows, columns = T.sum(1) - np.exp(x), T.sum(0) - b
        return (costs + eps * np.log(T) + rows[:, None] + columns).ravel()

    def hvp(x, y, v):
        V = v.reshape(k, k)
        return (eps * V / y.reshape(k, k) + V.sum(1)[:, None] + V.sum(0)).ravel()

    lower = sad.FunctionObjective(
        value=value,
        grad=grad,
        hvp=hvp,
        cross_vjp=lambda x, y, w: -np.exp(x) * w.reshape(k, k).sum(1),
        n=k * k,
    )
    return sad.Problem(lower, lower=0.0), np.full(k * k, 1.0 / k**2)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("k", "seed"), [(4, 3), (4, 45), (5, 2), (8, 3), (30, 1)])
def test_an_unbalanced_transport_takes_few_steps(k, seed):
    """Entries from 1e-9 to 1: steps that residuals refuse, values and forces that round."""
    problem, y0 = unbalanced(k, seed)
    x = np.log(np.full(k, 1.0 / k))
    found = sad.solve(problem, x, y0)
    force = problem.objective.grad(x, found.y)
    assert np.abs(found.y * force).max() <= 1e-12
    assert np.abs(force).max() <= 1e-6  # of log y: each entry to its own digits
    assert found.niter <= 110
    assert found.n_grad <= 250


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("k", [30, 100])
def test_unknowns_that_part_on_the_way_take_few_products(k):
    """y log y without bounds: level at the start, of sizes from 1e-9 to 1 at the end."""
    problem, y0 = unbalanced(k, 401)
    x = np.log(np.full(k, 1.0 / k))
    found = sad.solve(sad.Problem(problem.objective), x, y0)
    assert np.abs(problem.objective.grad(x, found.y)).max() <= 1e-6
    assert found.n_hvp <= 1500


class Control:
    """min ½ ‖u − d‖² + ½ e^x ‖q‖² where A u = q + f, on a grid; A known by its products."""

    def __init__(self, k):
        grid = (k + 1.0) ** 2
        T = scipy.sparse.diags_array(
            [-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(k, k)
        )
        eye = scipy.sparse.eye_array(k)
        A = grid * (scipy.sparse.kron(T, eye) + scipy.sparse.kron(eye, T))
        self.A = A.tocsr()
        self.n = n = k * k
        self.d = np.random.default_rng(k).standard_normal(n)
        self.products = 0
        rows = sad.LinearOperator((n, 2 * n), self.forward, self.backward)
        lower = sad.FunctionObjective(
            value=lambda x, y: (
                0.5 * float(self.off(y) @ (self.weights(x) * self.off(y)))
            ),
            grad=lambda x, y: self.weights(x) * self.off(y),
            hvp=lambda x, y, v: self.weights(x) * v,
            cross_vjp=lambda x, y, w: np.exp(x) * (w[n:] @ y[n:]),
            n=2 * n,
        )
        self.problem = sad.Problem(lower, equality=sad.LinearEquality(rows, np.ones(n)))

    def weights(self, x):
        return np.r_[np.ones(self.n), np.full(self.n, np.exp(x[0]))]

    def off(self, y):
        return np.r_[y[: self.n] - self.d, y[self.n :]]

    def forward(self, v):
        self.products += 1
        return self.A @ v[: self.n] - v[self.n :]

    def backward(self, w):
        self.products += 1
        return np.r_[self.A @ w, -w]

    def known(self, x):
        e, A, eye = np.exp(x), self.A, scipy.sparse.eye_array(self.n)
        right = self.d + e * (A.T @ np.ones(self.n))
        u = scipy.sparse.linalg.spsolve((eye + e * A.T @ A).tocsc(), right)
        return np.r_[u, A @ u - 1.0]


@pytest.mark.parametrize("too_many", [False, True])
def test_rows_by_products_are_formed_once_they_have_cost_as_much(monkeypatch, too_many):
    """MINRES took 187,000 products with the rows of a control problem of 900 states."""
    control, x, h = Control(16), -6.0, 1e-4
    if too_many:
        monkeypatch.setattr(null_space, "_ENTRIES", 10)
    found = sad.solve(control.problem, np.array([x]))
    known = control.known(x)
    np.testing.assert_allclose(found.y, known, atol=1e-7 * np.abs(known).max())
    p, products = control.n, control.products
    assert products > 20 * p if too_many else products <= 3 * p + 200
    v = np.r_[found.y[:p] - control.d, np.zeros(p)]
    control.products = 0
    slope = v @ (control.known(x + h) - control.known(x - h)) / (2 * h)
    adjoint = sad.vjp(control.problem, found, v)
    np.testing.assert_allclose(adjoint.x, slope, rtol=1e-5)
    assert too_many or control.products <= 4 * p + 200
