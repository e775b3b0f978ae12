"""Projected Newton in a box with at most one row: against active_set and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

import sparse_argdiff as sad


class Quartic:
    """½ y'P y + ¼ q Σ y⁴ − x'y, with the entries of P known or not."""

    def __init__(self, P, quartic=0.0, form="dense", value=True):
        self.P, self.quartic, self.form, self.n = P, quartic, form, P.shape[0]
        if value:
            self.value = lambda x, y: float(
                0.5 * y @ P @ y + 0.25 * quartic * np.sum(y**4) - x @ y
            )

    def grad(self, x, y):
        return self.P @ y + self.quartic * y**3 - x

    def hess(self, x, y):
        H = self.P + np.diag(3.0 * self.quartic * y**2)
        if self.form == "sparse":
            return scipy.sparse.csr_array(H)
        if self.form == "operator":
            return sad.LinearOperator(H.shape, lambda v: H @ v, symmetric=True)
        return H

    def cross(self, x, y):
        return -np.eye(self.n)


def case(n, seed, form="dense", quartic=0.0, row=True, value=True, decades=0.0):
    rng = np.random.default_rng([n, seed])
    R = rng.standard_normal((n, n))
    D = 10.0 ** rng.uniform(-decades, decades, n)
    P = (R @ R.T / n + 0.05 * np.eye(n)) / np.outer(D, D)
    lower, upper = -rng.uniform(0.1, 1.0, n), rng.uniform(0.1, 1.0, n)
    lower[rng.random(n) < 0.2] = -np.inf
    upper[rng.random(n) < 0.2] = np.inf
    equal = rng.random(n) < 0.1
    upper[equal] = np.where(np.isfinite(lower), lower, upper)[equal]
    x, others = 3.0 * rng.standard_normal(n) / D, {}
    if row:
        c = rng.choice([-2.0, -1.0, 0.0, 1.0, 0.5], n)
        c[0] = 1.0
        inside = np.clip(0.3 * rng.standard_normal(n), lower, upper)
        others["equality"] = sad.LinearEquality(
            (c / D)[None, :], np.array([c @ inside])
        )
    problem = sad.Problem(
        Quartic(P, quartic, form, value), lower=D * lower, upper=D * upper, **others
    )
    return problem, x, D


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 25),
    st.integers(0, 10**6),
    st.sampled_from(["dense", "sparse", "operator"]),
    st.booleans(),
    st.sampled_from([0.0, 1.0]),
    st.booleans(),
)
def test_agrees_with_active_set(n, seed, form, row, quartic, value):
    problem, x, _ = case(n, seed, form, quartic, row, value)
    found = sad.solve(problem, x, method="projected_newton", tol=1e-10)
    other = sad.solve(problem, x, method="active_set", tol=1e-10)
    np.testing.assert_allclose(found.y, other.y, atol=1e-7)
    free = ~found.active.fixed
    unique = row and bool(np.any(problem.equality.A[0, free]))
    if unique and not (found.active.degenerate or other.active.degenerate):
        np.testing.assert_allclose(found.multipliers, other.multipliers, atol=1e-6)
    lower, upper = problem.bounds(x, found.y)
    fixed = found.active.fixed
    assert ((found.y == lower) | (found.y == upper))[fixed].all()
    assert (found.y >= lower).all()
    assert (found.y <= upper).all()
    if not found.active.degenerate:
        v = np.random.default_rng(seed).standard_normal(n)
        np.testing.assert_allclose(
            sad.vjp(problem, found, v).x, sad.vjp(problem, other, v).x, atol=1e-5
        )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("row", [False, True])
def test_units_of_y_do_not_matter(seed, row):
    steps = []
    for decades in (0.0, 6.0):
        problem, x, D = case(30, seed, row=row)
        lower, upper = problem.lower, problem.upper
        rng = np.random.default_rng(seed)
        D = 2.0 ** np.round(decades / np.log10(2.0) * rng.uniform(-1, 1, 30))
        P, rows = problem.objective.P / np.outer(D, D), problem.equality
        rows = rows and sad.LinearEquality(rows.A / D, rows.b)
        scaled = sad.Problem(
            Quartic(P), lower=D * lower, upper=D * upper, equality=rows
        )
        sol = sad.solve(scaled, x / D, method="projected_newton")
        steps.append((sol.y / D, sol.niter, sol.n_grad))
    np.testing.assert_allclose(steps[0][0], steps[1][0], atol=1e-9)
    assert steps[0][1:] == steps[1][1:]


def test_nonnegative_least_squares():
    rng = np.random.default_rng(0)
    F = rng.standard_normal((80, 50))
    t = F @ np.maximum(rng.standard_normal(50), 0.0) + rng.standard_normal(80)
    expected, _ = scipy.optimize.nnls(F, t)
    problem = sad.Problem(Quartic(F.T @ F), lower=0.0)
    sol = sad.solve(problem, F.T @ t, method="projected_newton")
    np.testing.assert_allclose(sol.y, expected, atol=1e-10)
    assert sol.niter <= 12


@pytest.mark.parametrize("start", [-50.0, 50.0, np.nan])
def test_a_start_outside_the_box(start):
    problem, x, _ = case(12, 5)
    y0 = np.full(12, start)
    if np.isnan(start):
        with pytest.raises(ValueError, match="y0 must be finite"):
            sad.solve(problem, x, y0, method="projected_newton")
        return
    there = sad.solve(problem, x, y0, method="projected_newton")
    np.testing.assert_allclose(there.y, sad.solve(problem, x).y, atol=1e-7)


def test_a_row_that_the_box_cannot_meet():
    problem = sad.Problem(
        Quartic(np.eye(3)),
        lower=0.0,
        upper=1.0,
        equality=sad.LinearEquality(np.ones((1, 3)), np.array([4.0])),
    )
    with pytest.raises(sad.ConvergenceError, match="equality row") as e:
        sad.solve(problem, np.zeros(3), method="projected_newton")
    assert e.value.status is sad.Status.INFEASIBLE
    edge = sad.LinearEquality(np.ones((1, 3)), np.array([3.0]))  # one point is left
    problem = sad.Problem(Quartic(np.eye(3)), lower=0.0, upper=1.0, equality=edge)
    sol = sad.solve(problem, np.zeros(3), method="projected_newton")
    np.testing.assert_array_equal(sol.y, np.ones(3))


def test_other_constraints_are_refused():
    row = sad.Inequality(lambda x, y: y[:1], lambda x, y: np.eye(1, 2))
    for others in ({"inequality": row}, {}):
        with pytest.raises(ValueError, match="projected_newton"):
            sad.solve(
                sad.Problem(Quartic(np.eye(2)), **others),
                np.ones(2),
                method="projected_newton",
            )


def test_a_maximum_and_single_precision():
    problem, x, _ = case(10, 3)
    upside = sad.Problem(
        Quartic(-problem.objective.P),
        maximize=True,
        lower=problem.lower,
        upper=problem.upper,
        equality=problem.equality,
    )
    one = sad.solve(problem, x, method="projected_newton")
    other = sad.solve(upside, -x, method="projected_newton")
    np.testing.assert_allclose(one.y, other.y, atol=1e-10)
    assert one.value == pytest.approx(-other.value)
    single = sad.Problem(
        Quartic(problem.objective.P.astype(np.float32)),
        lower=problem.lower,
        upper=problem.upper,
        equality=problem.equality,
    )
    y0 = np.zeros(10, np.float32)
    found = sad.solve(
        single, x.astype(np.float32), y0, method="projected_newton", tol=1e-5
    )
    assert found.y.dtype == np.float32
    np.testing.assert_allclose(found.y, one.y, atol=1e-4)


def test_the_callback_and_the_limit():
    problem, x, _ = case(25, 9, quartic=1.0)
    seen = []
    found = sad.solve(
        problem,
        x,
        method="projected_newton",
        callback=lambda it: seen.append(it.niter) or len(seen) > 1,
        on_failure="ignore",
    )
    assert found.status is sad.Status.STOPPED_BY_CALLBACK
    assert seen == [0, 1]
    found = sad.solve(
        problem, x, method="projected_newton", maxiter=1, on_failure="ignore"
    )
    assert found.status is sad.Status.ITERATION_LIMIT


def test_a_singular_hessian_ends_at_the_bounds():
    """f = ½ (Σ y)² − x'y: only bounds hold what the row of ones leaves free."""
    n = 12
    problem = sad.Problem(Quartic(np.ones((n, n))), lower=0.0, upper=1.0)
    x = np.linspace(-1.0, 8.0, n)
    found = sad.solve(problem, x, method="projected_newton")
    other = sad.solve(problem, x, method="active_set")
    np.testing.assert_allclose(found.y, other.y, atol=1e-8)


@pytest.mark.parametrize("row", [False, True])
def test_the_factor_of_the_last_face_serves_the_derivative(row):
    problem, x, _ = case(40, 2, row=row)
    sol = sad.solve(problem, x, method="projected_newton", tol=1e-10)
    assert sol.factor is not None
    v = np.random.default_rng(0).standard_normal(40)
    found = sad.vjp(problem, sol, v)
    assert found.krylov.niter == 1
    other = sad.solve(problem, x, method="active_set", tol=1e-10)
    np.testing.assert_allclose(found.x, sad.vjp(problem, other, v).x, atol=1e-8)


def test_no_factor_of_a_face_that_is_no_minimum():
    """H is indefinite, and y = 0 is stationary: active_set says so."""
    for form in ("dense", "operator"):
        objective = Quartic(np.diag([1.0, -1.0]), form=form)
        problem = sad.Problem(objective, lower=-1.0, upper=1.0)
        with pytest.raises(sad.ConvergenceError) as e:
            sad.solve(problem, np.zeros(2), method="projected_newton")
        assert e.value.status is sad.Status.NEGATIVE_CURVATURE


@pytest.mark.parametrize("rank", [1, 3])
def test_faces_without_curvature(rank):
    """Twenty unknowns and a row, H of low rank: bounds hold all but a few."""
    rng = np.random.default_rng(rank)
    R = rng.standard_normal((20, rank))
    row = sad.LinearEquality(rng.choice([-1.0, 1.0], (1, 20)), np.zeros(1))
    problem = sad.Problem(Quartic(R @ R.T), lower=0.0, upper=1.0, equality=row)
    x = rng.standard_normal(20) + 1.0
    sol = sad.solve(problem, x, method="projected_newton")
    other = sad.solve(problem, x, method="active_set")
    assert sol.value == pytest.approx(other.value, rel=1e-9)
    np.testing.assert_allclose(sol.y, other.y, atol=1e-6)
    assert (~sol.active.fixed).sum() <= rank + 1
