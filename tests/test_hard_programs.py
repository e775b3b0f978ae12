"""Quadratic programs on which a method of the package once failed, each named by its trap."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

import sparse_argdiff as sad
from sparse_argdiff.solvers.quadratic_program import judged_by_program


def test_long_control_whose_equations_refinement_leaves_inexact():
    # UBH1: the state is determined by the force through a double sum of many steps.
    steps, h = 1500, 1000.0 / 1500
    at = np.arange(3 * (steps + 1)).reshape(steps + 1, 3)  # position, velocity, force
    n = at.size
    blocks = []
    for y, slope in ((0, 1), (1, 2)):
        k = np.arange(steps)
        entries = [(at[1:, y], 1.0), (at[:-1, y], -1.0)]
        entries += [(at[1:, slope], -h / 2.0), (at[:-1, slope], -h / 2.0)]
        blocks.append(
            sum(
                sparse.csr_array((np.full(steps, v), (k, j)), shape=(steps, n))
                for j, v in entries
            )
        )
    A = sparse.csr_array(sparse.vstack(blocks))
    lower, upper = np.full(n, -np.inf), np.full(n, np.inf)
    lower[at[:, 2]], upper[at[:, 2]] = -0.01, 0.01
    lower[at[0, :2]] = upper[at[0, :2]] = 1200.0, 1.0
    lower[at[-1, :2]] = upper[at[-1, :2]] = 0.0
    weights = np.zeros(n)
    weights[at[:, 2]] = h
    problem = sad.QuadraticProgram(
        sparse.diags_array(weights),
        np.zeros(n),
        A,
        np.zeros(2 * steps),
        lower=lower,
        upper=upper,
    )
    for method in (None, "active_set"):
        found = sad.solve(problem, problem.pack(), method=method)
        assert not found.warnings
        assert found.relative_error <= 1e-9
        force = found.y[at[:, 2]]
        assert 50 < np.sum(np.abs(force) == 0.01) < steps
        left = weights * found.y + A.T @ found.multipliers
        free = ~found.active.fixed
        pulls = abs(A).T @ np.abs(found.multipliers)
        assert np.max(np.abs(left[free])) <= 1e-12 * pulls.max()


def test_semi_infinite_rows_that_are_nearly_alike():
    # KSIP with a finer grid: changing all wrong rows at once goes round in circles.
    n, rows = 20, 3001
    t, j = np.arange(rows) / (rows - 1.0), np.arange(1, n + 1)
    G = -(t[:, None] ** (j - 1))
    problem = sad.QuadraticProgram(np.diag(1.0 / j), 1.0 / j, G=G, h=-np.tan(0.9 * t))
    found = sad.solve(problem, problem.pack())
    assert found.method == "pivoting"
    slack = -np.tan(0.9 * t) - G @ found.y
    assert slack.min() >= -1e-12
    assert found.multipliers.min() >= 0.0
    np.testing.assert_allclose(
        (found.y + 1.0) / j + G.T @ found.multipliers, 0.0, atol=1e-11
    )


@pytest.mark.parametrize("method", [None, "active_set"])
def test_columns_that_all_rows_have_and_no_interior_end_soon(method):
    # BOYD2: row exchanges in an ordering of their own fill all of such a matrix.
    rng, n = np.random.default_rng(0), 3000
    chain = sparse.eye_array(n - 1, n + 1, format="csr")
    chain = chain - sparse.csr_array(
        (np.ones(n - 1), (np.arange(n - 1), np.arange(1, n))), shape=chain.shape
    )
    wide = sparse.csr_array(
        (rng.choice([-1.0, 1.0], n - 1), (np.arange(n - 1), np.full(n - 1, n))),
        shape=chain.shape,
    )
    G = sparse.csr_array(sparse.vstack([chain + wide, wide - chain]))
    y = rng.random(n + 1)
    h = G @ y + rng.exponential(0.1, G.shape[0]) * (rng.random(G.shape[0]) < 0.5)
    P = sparse.csr_array(([1.0], ([n], [n])), shape=(n + 1, n + 1))
    q = rng.exponential(1.0, n + 1)
    problem = sad.QuadraticProgram(P, q, G=G, h=h, lower=-1.0)
    found = sad.solve(problem, problem.pack(), method=method, on_failure="ignore")
    if found.status is sad.Status.CONVERGED:
        assert np.max(G @ found.y - h) <= 1e-8
    else:
        assert found.status in {sad.Status.STAGNATED, sad.Status.ITERATION_LIMIT}


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "dia", "lil", "dok", "bsr"])
def test_formats_of_sparse_data(kind):
    n = 4
    P, rows = sparse.diags_array(np.arange(1.0, n + 1)), sparse.eye_array(2, n)
    data = [M.asformat(kind) for M in (P, rows)]
    problem = sad.QuadraticProgram(data[0], -np.ones(n), G=data[1], h=np.full(2, 0.25))
    found = sad.solve(problem, problem.pack())
    np.testing.assert_allclose(found.y, [0.25, 0.25, 1.0 / 3.0, 0.25], atol=1e-14)


def _judged(problem, y, **found):
    x = problem.pack()
    solution = sad.Solution(y=y, x=x, status=sad.Status.CONVERGED, **found)
    return judged_by_program(problem, x, solution, 1e-8)


def test_what_another_method_calls_converged_is_judged_by_the_rows():
    n = 4
    P, q = np.diag([1.0, 2.0, 0.0, 4.0]), np.array([-1.0, -2.0, 0.0, 4.0])
    problem = sad.QuadraticProgram(
        P, q, lower=np.array([-np.inf, -np.inf, -np.inf, 0.0])
    )
    y = np.array([1.0, 1.0, 0.0, 0.0])
    fixed = np.array([False, False, False, True])
    none = np.zeros(0, dtype=bool)
    active = sad.ActiveSet(none, none, fixed, np.zeros(n, dtype=bool))
    right = _judged(problem, y, active=active)
    assert right.status is sad.Status.CONVERGED
    assert right.relative_error <= 1e-12
    # The bound's force was counted as none: what is held with a force is not free.
    loose = sad.ActiveSet(none, none, np.zeros(n, dtype=bool), fixed)
    assert _judged(problem, y, active=loose).status is sad.Status.STAGNATED
    # Far along the flat direction the others' error is no smaller.
    far = np.array([1.0 + 1e-3, 1.0, 1e12, 0.0])
    assert _judged(problem, far, active=active).status is sad.Status.STAGNATED
    assert (
        _judged(problem, far - [1e-3, 0, 0, 0], active=active).status
        is sad.Status.CONVERGED
    )
    near = np.array([1.0 + 3e-7, 1.0, 1e12, 0.0])
    assert _judged(problem, near, active=active).status is sad.Status.STAGNATED


def test_a_far_point_without_a_fall_is_no_end_at_infinity():
    problem = sad.QuadraticProgram(np.diag([1.0, 0.0]), np.array([-1.0, 0.0]))
    x = problem.pack()
    y = np.array([1.0, 1e13])
    claimed = sad.Solution(y=y, x=x, status=sad.Status.UNBOUNDED)
    assert judged_by_program(problem, x, claimed, 1e-8).status is sad.Status.CONVERGED
    assert (
        judged_by_program(
            sad.Problem(sad.FunctionObjective(grad=lambda x, y: y, n=2)),
            x,
            claimed,
            1e-8,
        )
        is claimed
    )


BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def drawn(monkeypatch, module, draw):
    """Return a program of a benchmark's generator."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return draw(importlib.import_module(module))


def test_equal_bounds_have_no_interior(monkeypatch):
    """Their two slacks went to zero together, and took 60 iterations to do so."""

    def control(kinds):
        data = kinds.ubh1(np.random.default_rng([4242, 0, 22]))
        assert np.sum(data["lower"] == data["upper"]) == 12
        return sad.QuadraticProgram(**data)

    problem = drawn(monkeypatch, "qp_collection_like", control)
    solution = sad.solve(problem, problem.pack(), method="active_set")
    assert solution.niter <= 20
    assert solution.active.fixed.sum() >= 12


def test_equal_bounds_that_contradict_rows_are_named():
    A = np.array([[1.0, 1.0, 0.0]])
    problem = sad.QuadraticProgram(
        np.eye(3), np.zeros(3), A, [5.0], lower=[1.0, 0.0, 0.0], upper=[1.0, 2.0, 1.0]
    )
    with pytest.raises(sad.ConvergenceError, match="equal bounds 0") as error:
        sad.solve(problem, problem.pack(), method="active_set")
    assert error.value.status is sad.Status.INFEASIBLE


def test_far_bounds_do_not_lift_the_forces_of_the_start(monkeypatch):
    """Bounds at 1e5 where rows are about 1: the first forces were 5e6, and never fell."""

    def chains(kinds):
        return sad.QuadraticProgram(**kinds.boyd2(np.random.default_rng([4242, 0, 3])))

    problem = drawn(monkeypatch, "qp_collection_like", chains)
    solution = sad.solve(problem, problem.pack(), method="active_set")
    assert solution.niter <= 30


@pytest.mark.parametrize("seed", [(7403, 142), (7402, 111), (90317, 73), (90317, 2)])
def test_rounding_does_not_move_a_point_along_a_face(monkeypatch, seed):
    """By rounding over the shift of the factor, until it met other rows than those that act."""
    problem = drawn(
        monkeypatch, "qp_generated", lambda module: module.draw(list(seed)).problem()
    )
    solution = sad.solve(problem, problem.pack(), method="active_set")
    assert not solution.warnings


@pytest.mark.parametrize("seed", [23, 27, 77, 79])
def test_a_curvature_below_the_shift_of_the_factor_is_solved_with(seed):
    """The rest of a refinement that is too slow was 1e-10 of the forces, and most of y."""
    rng = np.random.default_rng(seed)
    n, N = 7, int(rng.integers(3, 12))
    A, b = rng.standard_normal((N, n)), 3.0 * rng.standard_normal(N)
    ridge = np.exp(-24.0)
    P, q = A.T @ A / N + ridge * np.eye(n), -A.T @ b / N
    problem = sad.QuadraticProgram(P, q, G=-np.eye(n), h=np.full(n, 0.1))
    found = sad.solve(problem, problem.pack(q=q))
    force = P @ found.y + q
    free = found.y > -0.1 + 1e-9
    assert (force[~free] >= -1e-11 * np.abs(q).max()).all()
    step = np.linalg.solve(P[np.ix_(free, free)], force[free])
    energy = np.sqrt(step @ P[np.ix_(free, free)] @ step)
    assert energy <= 1e-7 * np.sqrt(found.y @ P @ found.y)
