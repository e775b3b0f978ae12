"""Solutions of other solvers: multipliers with the signs of all that holds the point."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

import sparse_argdiff as sad
from sparse_argdiff.problem.optimality import is_as_left

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "qp_generated.py"


@pytest.fixture(scope="module")
def generated():
    spec = importlib.util.spec_from_file_location("qp_generated", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def vertex(n=6, seed=0, kind=np.asarray):
    """Return a QP with more active sides than variables, and its solution."""
    rng = np.random.default_rng(seed)
    y = np.where(rng.random(n) < 0.5, 0.0, rng.random(n))
    G = rng.standard_normal((n, n))
    G = np.concatenate([G, G[:2] + G[2:4]])
    z = np.where(np.arange(len(G)) < 4, rng.random(len(G)) + 0.1, 0.0)
    z[n:] = rng.random(2) + 0.1
    h = G @ y + (z == 0.0)
    s = np.where(y == 0.0, rng.random(n) + 0.1, 0.0)
    q = -y - G.T @ z + s
    problem = sad.QuadraticProgram(
        kind(np.eye(n)), q, None, None, kind(G), h, 0.0, parameters=("q",)
    )
    return problem, y


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("seed", range(5))
def test_multipliers_that_are_not_unique(seed, kind):
    """A fit without the signs of bounds leaves a pull the wrong way: no solution."""
    problem, y = vertex(seed=seed, kind=kind)
    x, v = problem.pack(), np.random.default_rng(1).standard_normal(y.size)
    solved = sad.solve(problem, x)
    np.testing.assert_allclose(solved.y, y, atol=1e-10)
    brought = sad.Solution(y=y, x=x)
    expected = sad.vjp(problem, solved, v)
    found = sad.vjp(problem, brought, v)
    np.testing.assert_allclose(found.x, expected.x, atol=1e-8)
    assert not found.warnings


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_units_of_y_do_not_matter(scale):
    problem, y = vertex(seed=1)
    data = problem.objective.data.constant
    other = sad.QuadraticProgram(
        data.P / scale**2, data.q / scale, None, None, data.G / scale, data.h, 0.0
    )
    brought = sad.Solution(y=scale * y, x=other.pack())
    one = sad.vjp(problem, sad.Solution(y=y, x=problem.pack()), np.ones(y.size)).x
    found = sad.vjp(other, brought, np.ones(y.size) / scale).x
    np.testing.assert_allclose(found / scale, one, atol=1e-7)


def test_a_point_that_is_no_solution():
    problem, y = vertex(seed=2)
    off = y + np.where(y > 0.0, 0.1, 0.0)
    with pytest.raises(sad.ConvergenceError, match="NOT_STATIONARY"):
        sad.vjp(problem, sad.Solution(y=off, x=problem.pack()), np.ones(y.size))


def close_rows(count=400, n=6):
    """Return rows of which the ones beside each active one are 1e-8 from being active."""
    rng = np.random.default_rng(4)
    t = np.linspace(0.0, 1.0, count)
    G = -np.stack([t**j for j in range(n)], axis=1)
    h = -(np.sin(4.0 * t) ** 2)
    return sad.QuadraticProgram(np.diag(rng.uniform(1.0, 3.0, n)), np.ones(n), G=G, h=h)


def noisy(solution, size):
    """Return the point as a solver leaves it that stops at a relative error."""
    rng = np.random.default_rng(7)
    off = size * np.linalg.norm(solution.y) * rng.standard_normal(solution.y.size)
    return sad.Solution(y=solution.y + off / np.sqrt(off.size), x=solution.x)


@pytest.mark.parametrize("size", [1e-8, 1e-6, 1e-5])
@pytest.mark.parametrize("make", [close_rows, lambda: vertex(n=12, seed=5)[0]])
def test_the_active_set_is_that_of_the_exact_solution(make, size):
    """Slacks and forces of the size of a solver's tolerance do not tell what acts."""
    problem = make()
    solved = sad.solve(problem, problem.pack())
    v = np.random.default_rng(1).standard_normal(solved.y.size)
    expected = sad.vjp(problem, solved, v)
    found = sad.vjp(problem, noisy(solved, size), v)
    scale = np.linalg.norm(v) / 10.0
    np.testing.assert_allclose(found.x, expected.x, atol=1e-7 * scale)
    assert bool(found.warnings) is (size > 2e-6), found.warnings
    for note in found.warnings:
        assert "exact solution" in note


def test_a_row_with_a_slack_has_no_force(generated):
    """The largest y may hide a slack that counts: the path of the program tells it."""
    problem = generated.draw([88101, 41]).problem()
    solved = sad.solve(problem, problem.pack())
    v = 1.0 / np.maximum(np.abs(solved.y), 1e-3 * np.abs(solved.y).max())
    found = sad.vjp(problem, noisy(solved, 1e-13), v)
    expected = sad.vjp(problem, solved, v).x
    assert np.linalg.norm(found.x - expected) <= 1e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize("size", [0.003, 0.1])
def test_a_point_that_is_off_is_refused(size):
    problem = close_rows()
    solved = sad.solve(problem, problem.pack())
    with pytest.raises(sad.ConvergenceError, match="NOT_STATIONARY"):
        sad.vjp(problem, noisy(solved, size), np.ones(solved.y.size))


def test_an_active_set_of_the_caller_is_kept():
    problem = close_rows()
    solved = sad.solve(problem, problem.pack())
    brought = dataclasses.replace(noisy(solved, 1e-5), active=solved.active)
    found = sad.vjp(problem, brought, np.ones(solved.y.size))
    assert any("no more accurate" in note for note in found.warnings)


def test_a_solution_whose_weak_rows_are_off_by_rounding(generated):
    """Rows that touch without a force are on either side of zero by rounding."""
    refused = 0
    for i in range(12):
        rng = np.random.default_rng([8, i])
        n, k = 20, 30
        G = rng.standard_normal((k, n)) * 10.0 ** rng.uniform(-2.0, 2.0, (k, 1))
        y = 1e3 * rng.standard_normal(n)
        z = np.where(rng.random(k) < 0.3, rng.uniform(0.5, 2.0, k), 0.0)
        weak = (z == 0.0) & (rng.random(k) < 0.3)
        h = G @ y + np.where((z > 0.0) | weak, 0.0, rng.uniform(1.0, 2.0, k))
        problem = sad.QuadraticProgram(np.eye(n), -y - G.T @ z, G=G, h=h)
        solution = sad.solve(problem, problem.pack())
        off = (G @ solution.y - h)[solution.active.weak]
        refused += bool(np.any(off > 0.0))
        assert is_as_left(problem, solution)
        moved = dataclasses.replace(solution, y=solution.y * (1.0 + 1e-9))
        assert not is_as_left(problem, moved)
    assert refused > 3


@pytest.mark.parametrize("P", [np.eye(3), np.diag([1.0, 1.0, 0.0])])
def test_a_solution_without_rows_is_as_left(P):
    problem = sad.QuadraticProgram(P, [1.0, -2.0, 1.0], lower=-1.0, upper=1.0)
    solution = sad.solve(problem, problem.pack(), method="active_set")
    assert is_as_left(problem, solution)
    assert not is_as_left(problem, dataclasses.replace(solution, x=1.1 * solution.x))


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # of OSQP
@pytest.mark.parametrize("engine", ["piqp", "clarabel", "osqp", "highs"])
def test_tuples_of_qpsolvers(engine):
    """P x + q + G'z + A'y + z_box = 0: the bounds' part has the other sign."""
    qpsolvers = pytest.importorskip("qpsolvers")
    if engine not in qpsolvers.available_solvers:
        pytest.skip(f"no {engine}")
    rng = np.random.default_rng(0)
    n, p, k = 8, 2, 5
    A, G = rng.standard_normal((p, n)), rng.standard_normal((k, n))
    q, h = 3.0 * rng.standard_normal(n), 0.5 * np.ones(k)
    data = (sparse.csc_matrix(np.eye(n)), q, sparse.csc_matrix(G), h)
    both = (sparse.csc_matrix(A), np.zeros(p))
    low, high = -0.5 * np.ones(n), 0.5 * np.ones(n)
    asked = qpsolvers.Problem(*data, *both, low, high)
    options = {"osqp": {"eps_abs": 1e-9, "eps_rel": 1e-9}}.get(engine, {})
    found = qpsolvers.solve_problem(asked, solver=engine, **options)
    problem = sad.QuadraticProgram(np.eye(n), q, A, np.zeros(p), G, h, low, high)
    v = rng.standard_normal(n)
    expected = sad.vjp(problem, sad.solve(problem, q), v).x
    multipliers = np.concatenate([found.y, found.z])
    for extra in (
        {},
        {"multipliers": multipliers, "bound_multipliers": -found.z_box},
    ):
        brought = sad.Solution(y=found.x, x=q, **extra)
        np.testing.assert_allclose(
            sad.vjp(problem, brought, v).x, expected, atol=1e-4 * np.linalg.norm(v)
        )


def test_the_kept_factor_is_used_where_it_is_that_of_the_solution():
    problem, y = vertex(seed=3)
    x, v = problem.pack(), np.ones(y.size)
    solution = sad.solve(problem, x)
    assert solution.factor is not None
    found = sad.vjp(problem, solution, v)
    assert found.krylov.niter == 1
    J = sad.derivative(problem, solution)
    np.testing.assert_allclose(J.T @ v, found.x, atol=1e-12)
    V = np.random.default_rng(0).standard_normal((y.size, 3))
    columns = np.stack([J @ V[:, j] for j in range(3)], axis=1)
    np.testing.assert_allclose(J @ V, columns, atol=1e-12)
    # At another x it is not that of the point.
    other = sad.solve(problem, 1.001 * x)
    mixed = dataclasses.replace(other, factor=solution.factor)
    np.testing.assert_allclose(
        sad.vjp(problem, mixed, v).x, sad.vjp(problem, other, v).x, atol=1e-8
    )


@pytest.mark.parametrize("method", ["active_set", None])
def test_drawn_programs(generated, method):
    """Of 30 that were drawn each is right or truthfully refused."""
    for i in range(30):
        drawn = generated.draw([5, i])
        solve, derivative, _ = generated.judged(drawn, method)
        assert solve == "right", (i, drawn.traits, solve)
        assert "WRONG" not in derivative, (i, drawn.traits, derivative)
