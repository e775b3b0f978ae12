"""Small strictly convex programs by principal pivoting: exact, certified or left alone."""

from __future__ import annotations

import numpy as np
import pytest

import sparse_argdiff as sad
from sparse_argdiff.krylov.convex_program import ConvexProgram
from sparse_argdiff.solvers.principal_pivoting import pivoted


def drawn(seed, n=12, p=3, k=10, bounds=True, condition=10.0):
    """Return the data of a feasible program with a definite P."""
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    inside = rng.standard_normal(n)
    A, G = rng.standard_normal((p, n)), rng.standard_normal((k, n))
    data = {
        "P": Q @ np.diag(np.geomspace(1.0, condition, n)) @ Q.T,
        "q": 5.0 * rng.standard_normal(n),
        "A": A,
        "b": A @ inside,
        "G": G,
        "h": G @ inside + rng.exponential(0.5, k),
    }
    data["P"] = 0.5 * (data["P"] + data["P"].T)
    if bounds:
        data["lower"] = inside - rng.exponential(0.5, n)
        data["upper"] = np.where(rng.random(n) < 0.5, inside + 0.7, np.inf)
    return data


def program(data):
    n = data["q"].size
    unbounded = {"lower": np.full(n, -np.inf), "upper": np.full(n, np.inf)}
    return ConvexProgram(**(unbounded | data))


@pytest.mark.parametrize("bounds", [False, True])
@pytest.mark.parametrize(("condition", "least"), [(10.0, 38), (1e8, 8)])
def test_agrees_with_the_interior_point(bounds, condition, least):
    tried = 0
    for seed in range(40):
        data = drawn(seed, bounds=bounds, condition=condition)
        problem = sad.QuadraticProgram(**data)
        found = sad.solve(problem, problem.pack())
        if found.method != "pivoting":
            continue
        tried += 1
        # With a callback the iterates of the interior point are asked for.
        other = sad.solve(
            problem, problem.pack(), method="active_set", callback=lambda _: None
        )
        assert other.method == "active_set"
        np.testing.assert_allclose(found.y, other.y, atol=1e-8, rtol=1e-8)
        np.testing.assert_allclose(
            found.multipliers, other.multipliers, atol=1e-6, rtol=1e-6
        )
        np.testing.assert_array_equal(found.active.strong, other.active.strong)
        np.testing.assert_array_equal(found.active.fixed, other.active.fixed)
        v = np.random.default_rng(seed).standard_normal(found.y.size)
        adjoints = [sad.vjp(problem, s, v) for s in (found, other)]
        np.testing.assert_allclose(*(a.x for a in adjoints), atol=1e-8, rtol=1e-6)
        if condition < 1e6:
            assert adjoints[0].krylov.niter == 1  # by the factor of the last set
    assert tried >= least


def test_units_change_nothing():
    for seed in range(20):
        data, rng = drawn(seed), np.random.default_rng(seed)
        D = 10.0 ** rng.uniform(-6.0, 6.0, data["q"].size)
        rows = 10.0 ** rng.uniform(-6.0, 6.0, data["h"].size)
        other = dict(
            data,
            P=1e7 * data["P"] / np.outer(D, D),
            q=1e7 * data["q"] / D,
            A=data["A"] / D,
            G=rows[:, None] * data["G"] / D,
            h=rows * data["h"],
            lower=data["lower"] * D,
            upper=data["upper"] * D,
        )
        found, scaled = pivoted(program(data)), pivoted(program(other))
        assert (found is None) == (scaled is None)
        if found is None:
            continue
        np.testing.assert_allclose(scaled.point.y / D, found.point.y, atol=1e-10)
        assert scaled.niter == found.niter
        np.testing.assert_array_equal(scaled.rows, found.rows)


def test_what_is_in_doubt_is_left_alone():
    # A weakly active bound, dependent equality rows, no curvature, equal bounds.
    eye, two = np.eye(2), np.ones(2)
    none = {"A": np.zeros((0, 2)), "b": np.zeros(0)}
    none |= {"G": np.zeros((0, 2)), "h": np.zeros(0)}
    plain = {"P": eye, "q": -two} | none
    for change in (
        {"q": np.array([0.0, -1.0]), "lower": np.zeros(2)},
        {"A": np.ones((2, 2)), "b": two},
        {"P": np.diag([1.0, 0.0])},
        {"lower": two, "upper": two},
        {"A": np.ones((3, 2)), "b": np.ones(3)},
        {"q": np.array([np.nan, 0.0])},
    ):
        assert pivoted(program(plain | change)) is None
    assert pivoted(program(plain)) is not None


def test_infeasible_and_weak_programs_end_as_before():
    weak = sad.QuadraticProgram(np.eye(2), np.array([0.0, -1.0]), lower=0.0)
    found = sad.solve(weak, weak.pack())
    assert found.method != "pivoting"
    np.testing.assert_array_equal(found.active.weak_fixed, [True, False])
    G, h = np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([-1.0, -1.0])
    empty = sad.QuadraticProgram(np.eye(2), np.ones(2), G=G, h=h)
    with pytest.raises(sad.ConvergenceError) as caught:
        sad.solve(empty, empty.pack())
    assert caught.value.status is sad.Status.INFEASIBLE


def test_a_function_costs_its_hessian_once():
    rng = np.random.default_rng(0)
    n, p, k = 20, 5, 10
    A, G = rng.standard_normal((p, n)), rng.standard_normal((k, n))
    count = 0

    def hvp(x, y, v):
        nonlocal count
        count += 1
        return 2.0 * v

    f = sad.FunctionObjective(
        grad=lambda x, y: 2.0 * y + x,
        hvp=hvp,
        cross_jvp=lambda x, y, u: u,
        cross_vjp=lambda x, y, w: w,
        n=n,
    )
    problem = sad.Problem(
        f,
        equality=sad.LinearEquality(A, np.zeros(p)),
        inequality=sad.Inequality(lambda x, y: G @ y - 1.0, lambda x, y: G),
    )
    for _ in range(5):
        x, count = 3.0 * rng.standard_normal(n), 0
        solution = sad.solve(problem, x)
        adjoint = sad.vjp(problem, solution, 2.0 * solution.y)
        assert solution.method == "pivoting"
        assert count <= 2 * n
        K = np.block(
            [
                [2.0 * np.eye(n), A.T, G[solution.active.strong].T],
                [
                    np.vstack([A, G[solution.active.strong]]),
                    np.zeros((p + int(solution.active.strong.sum()),) * 2),
                ],
            ]
        )
        rhs = np.concatenate([2.0 * solution.y, np.zeros(K.shape[0] - n)])
        np.testing.assert_allclose(adjoint.x, -np.linalg.solve(K, rhs)[:n], atol=1e-10)


def test_a_function_that_only_seems_quadratic_is_not_believed():
    # f is quadratic at the start and the second point, and bends where the solution is.
    def bend(t):
        return np.where(t > 1.0, (t - 1.0) ** 3, 0.0)

    f = sad.FunctionObjective(
        value=lambda x, y: (
            0.5 * y @ y - 4.0 * y.sum() + 0.25 * np.sum(np.maximum(y - 1.0, 0.0) ** 4)
        ),
        grad=lambda x, y: y - 4.0 + bend(y),
        hvp=lambda x, y, v: (1.0 + 3.0 * np.maximum(y - 1.0, 0.0) ** 2) * v,
        cross_jvp=lambda x, y, u: 0.0 * y,
        cross_vjp=lambda x, y, w: 0.0 * x,
        n=3,
    )
    problem = sad.Problem(f, lower=-1.0)
    found = sad.solve(problem, np.zeros(1))
    assert found.method != "pivoting"
    np.testing.assert_allclose(found.y - 4.0 + bend(found.y), 0.0, atol=1e-7)


def test_all_variables_at_bounds():
    problem = sad.QuadraticProgram(
        np.eye(3), np.array([1.0, -3.0, 2.0]), lower=0.0, upper=1.0
    )
    found = sad.solve(problem, problem.pack())
    assert found.method == "pivoting"
    np.testing.assert_array_equal(found.y, [0.0, 1.0, 0.0])
    np.testing.assert_array_equal(sad.vjp(problem, found, np.ones(3)).x, np.zeros(3))
