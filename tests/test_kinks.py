"""Weakly active constraints: one-sided derivatives against differences, and how far x may move."""

from __future__ import annotations

import numpy as np
import pytest

import sparse_argdiff as sad


def degenerate_program(seed, n=6):
    """Return a program with two rows that push, two rows and a bound that just touch."""
    rng = np.random.default_rng(seed)
    M = rng.standard_normal((n, n))
    P, A, G = (
        M @ M.T + np.eye(n),
        rng.standard_normal((1, n)),
        rng.standard_normal((6, n)),
    )
    y = rng.standard_normal(n)
    pushes = np.where(np.arange(6) < 2, rng.random(6) + 0.1, 0.0)
    slack = np.where(np.arange(6) < 4, 0.0, rng.random(6) + 0.1)
    q = -(P @ y + G.T @ pushes + A.T @ rng.standard_normal(1))
    problem = sad.QuadraticProgram(
        P,
        q,
        A,
        A @ y,
        G,
        G @ y + slack,
        lower=np.where(np.arange(n) < 1, y, y - 1.0),
        parameters=("q", "b", "G", "h", "lower"),
    )
    return problem, problem.pack(), y, rng


@pytest.mark.parametrize("seed", range(8))
def test_both_sides_of_a_kink(seed):
    """y and the multipliers, along u and along −u, against differences to one side."""
    problem, x, y, rng = degenerate_program(seed)
    solution = sad.solve(problem, x)
    assert solution.active.weak.sum() == 2
    u, step = rng.standard_normal(x.shape), 1e-6
    near = sad.solve_many(problem, np.stack([x + step * u, x - step * u, x]))
    assert near.converged.all()
    sides = []
    for i, sign in enumerate((1.0, -1.0)):
        found = sad.jvp(problem, solution, sign * u, one_sided=True)
        slope = (near.y[i] - y) / step
        np.testing.assert_allclose(found.y, slope, rtol=1e-4, atol=1e-4)
        push = (near.multipliers[i] - near.multipliers[2]) / step
        np.testing.assert_allclose(found.tangent[6:], push, rtol=1e-3, atol=1e-3)
        sides.append(found.y)
    assert np.abs(sides[0] + sides[1]).max() > 1e-6


def test_max_at_its_kink():
    problem = sad.QuadraticProgram(np.eye(2), np.zeros(2), lower=0.0)
    solution = sad.solve(problem, np.array([-1.0, 0.0]))
    for u, expected in (([1.0, 1.0], [-1.0, 0.0]), ([1.0, -1.0], [-1.0, 1.0])):
        found = sad.jvp(problem, solution, np.array(u), one_sided=True)
        np.testing.assert_allclose(found.y, expected, atol=1e-12)
        assert not [w for w in found.warnings if "one-sided" in w]


def opposing_rows(q):
    problem = sad.QuadraticProgram(
        np.eye(2),
        np.zeros(2),
        G=np.array([[1.0, 1.0], [-1.0, -1.0]]),
        h=np.zeros(2),
        parameters=("q", "h"),
    )
    x = problem.pack(q=np.array(q, float))
    return problem, sad.solve(problem, x)


@pytest.mark.parametrize("q", [[0.0, 0.0], [1.0, 2.0]])
@pytest.mark.parametrize(
    ("u", "expected"),
    [
        ([1.0, 0.0, 0.0, 0.0], [-0.5, 0.5]),
        ([0.0, 0.0, 1.0, -1.0], [0.5, 0.5]),
        ([0.0, 0.0, -1.0, 1.0], [-0.5, -0.5]),
        ([1.0, 0.0, 2.0, 0.0], [-0.5, 0.5]),
    ],
)
def test_an_equality_of_two_rows(q, u, expected):
    """discopt#1007: only the difference of the multipliers is determined, or none pushes."""
    problem, solution = opposing_rows(q)
    found = sad.jvp(problem, solution, np.array(u), one_sided=True)
    np.testing.assert_allclose(found.y, expected, atol=1e-7)


def test_a_direction_without_feasible_y_is_refused():
    for q in ([0.0, 0.0], [1.0, 2.0]):
        problem, solution = opposing_rows(q)
        u = np.array([0.0, 0.0, -1.0, 0.0])
        with pytest.raises(sad.ConvergenceError, match="INFEASIBLE"):
            sad.jvp(problem, solution, u, one_sided=True)


def test_a_vertex_of_dependent_rows():
    """Multipliers are not unique: those that maximise ν'(h_X u) decide."""
    checked = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        G, pushes = rng.standard_normal((4, 2)), rng.random(4)
        problem = sad.QuadraticProgram(
            np.eye(2), -G.T @ pushes, G=G, h=np.zeros(4), parameters=("q", "h")
        )
        x, u = problem.pack(), rng.standard_normal(6)
        solution, step = sad.solve(problem, x), 1e-6
        near = sad.solve_many(problem, (x + step * u)[None, :], on_failure="ignore")
        if near.converged[0]:
            found = sad.jvp(problem, solution, u, one_sided=True)
            np.testing.assert_allclose(found.y, near.y[0] / step, rtol=1e-4, atol=1e-4)
            checked += 1
        else:
            with pytest.raises(sad.ConvergenceError, match="INFEASIBLE"):
                sad.jvp(problem, solution, u, one_sided=True)
    assert 0 < checked < 10


def test_a_flat_direction_is_refused():
    problem = sad.QuadraticProgram(np.diag([1.0, 0.0]), np.zeros(2), lower=0.0)
    solution = sad.Solution(y=np.zeros(2), x=np.zeros(2))
    with pytest.raises(sad.ConvergenceError):
        sad.jvp(problem, solution, np.array([1.0, 1.0]), one_sided=True)


def test_nothing_weak_is_the_derivative():
    problem, _, _, rng = degenerate_program(0)
    x = problem.pack() + 0.1 * rng.standard_normal(problem.pack().shape)
    solution = sad.solve(problem, x)
    assert not solution.active.degenerate
    u = rng.standard_normal(x.shape)
    both = [sad.jvp(problem, solution, u, one_sided=side).y for side in (True, False)]
    np.testing.assert_array_equal(*both)


def test_a_curved_constraint_that_touches():
    """min ½‖y − x‖² in the unit disc, x on the circle: along x inside 1, outside 0."""
    f = sad.FunctionObjective(
        value=lambda x, y: 0.5 * float((y - x) @ (y - x)),
        grad=lambda x, y: y - x,
        hvp=lambda x, y, v: 1.0 * v,
        cross_jvp=lambda x, y, u: -u,
        cross_vjp=lambda x, y, w: -w,
        n=2,
    )
    disc = sad.Inequality(
        lambda x, y: np.array([0.5 * (y @ y - 1.0)]),
        lambda x, y: y[None, :],
        hess=lambda x, y, multipliers: multipliers[0] * np.eye(2),
    )
    problem, x = sad.Problem(f, inequality=disc), np.array([0.6, 0.8])
    solution = sad.Solution(y=x, x=x)
    across = np.array([-0.8, 0.6])
    for u, expected in ((x, 0.0 * x), (-x, -x), (across, across), (x + across, across)):
        found = sad.jvp(problem, solution, u, one_sided=True)
        np.testing.assert_allclose(found.y, expected, atol=1e-7)


def test_active_range_of_a_program_is_exact():
    problem, _, _, rng = degenerate_program(1)
    x = problem.pack() + 0.1 * rng.standard_normal(problem.pack().shape)
    place = problem.objective.data.parts["q"][0]
    kinds = set()
    for _ in range(12):
        u = np.zeros(x.shape)
        u[place] = rng.standard_normal(6)
        solution = sad.solve(problem, x)
        found = sad.active_range(problem, solution, u)
        assert 0.0 < found.step < np.inf
        before, after = (
            sad.solve_many(problem, (x + part * found.step * u)[None, :])[0]
            for part in (0.999, 1.001)
        )
        now = solution.active
        assert (before.active.strong == now.strong).all()
        assert (before.active.fixed == now.fixed).all()
        mask = "strong" if found.kind == "row" else "fixed"
        there = getattr(after.active, mask)[found.index]
        assert there == (found.becomes == "active")
        assert there != getattr(now, mask)[found.index]
        kinds.add((found.kind, found.becomes))
    assert len(kinds) > 1


def test_active_range_without_an_end():
    problem = sad.QuadraticProgram(np.eye(2), np.zeros(2), lower=0.0)
    solution = sad.solve(problem, np.array([-1.0, 2.0]))
    up = sad.active_range(problem, solution, np.array([-1.0, 1.0]))
    assert up == sad.ActiveRange(np.inf)
    down = sad.active_range(problem, solution, np.array([4.0, 1.0]))
    assert (down.kind, down.index, down.becomes) == ("lower", 0, "active")
    assert down.step == pytest.approx(0.25)
    free = sad.QuadraticProgram(np.eye(1), np.zeros(1))
    assert (
        sad.active_range(free, sad.solve(free, np.ones(1)), np.ones(1)).step == np.inf
    )
    kink = sad.solve(problem, np.array([0.0, 1.0]))
    assert sad.active_range(problem, kink, np.array([1.0, 0.0])).step == pytest.approx(
        0.0
    )
