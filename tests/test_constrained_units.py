"""Constrained solves whose answer must not depend on units, origin or start."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparse_argdiff as sad

METHODS = ["active_set", "barrier"]


def smooth(value, grad, curvature, n=1):
    """A separable f(x, y) without x in its gradient, known by products."""
    return sad.FunctionObjective(
        value=lambda x, y: float(np.sum(value(y))),
        grad=lambda x, y: grad(y),
        hvp=lambda x, y, v: curvature(y) * v,
        cross_jvp=lambda x, y, u: 0.0 * y,
        cross_vjp=lambda x, y, w: np.zeros(1),
        n=n,
    )


def quadratic(H, explicit):
    f = sad.FunctionObjective(
        value=lambda x, y: 0.5 * y @ (H @ y) + x @ y,
        grad=lambda x, y: H @ y + x,
        hvp=lambda x, y, v: H @ v,
        cross_jvp=lambda x, y, u: u,
        cross_vjp=lambda x, y, w: w,
        n=len(H),
    )
    if explicit:
        f.hess = lambda x, y: H
    return f


ENDLESS = {
    "log": (lambda y: -np.log(y), lambda y: -1.0 / y, lambda y: y**-2.0),
    "exp": (lambda y: np.exp(-y), lambda y: -np.exp(-y), lambda y: np.exp(-y)),
    "softplus": (
        lambda y: np.logaddexp(0.0, -y),
        lambda y: -1.0 / (1.0 + np.exp(y)),
        lambda y: 1.0 / (2.0 + np.exp(y) + np.exp(-y)),
    ),
}


@pytest.mark.parametrize("name", ENDLESS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("behind", ["bound", "row"])
@pytest.mark.parametrize("y0", [1.0, 2.0, 30.0])
def test_an_infimum_at_infinity_is_unbounded(name, method, behind, y0):
    row = sad.Inequality(lambda x, y: 1.0 - y, lambda x, y: -np.eye(1))
    room = {"lower": 1.0} if behind == "bound" else {"inequality": row}
    problem = sad.Problem(smooth(*ENDLESS[name]), **room)
    with pytest.raises(sad.ConvergenceError) as caught, np.errstate(all="ignore"):
        sad.solve(problem, np.ones(1), np.array([y0]), method=method)
    assert caught.value.result.status is sad.Status.UNBOUNDED
    assert caught.value.result.niter <= 60


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("behind", ["bound", "row", "two bounds"])
def test_weak_activity_hides_no_way_down(explicit, method, behind):
    """The start meets all first-order conditions, at a maximum."""
    n = 2 if behind == "two bounds" else 1
    room = {"lower": 0.0, "upper": 1.0}
    if behind == "row":
        row = sad.Inequality(lambda x, y: -y, lambda x, y: -np.eye(1))
        room = {"inequality": row, "upper": 1.0}
    problem = sad.Problem(quadratic(-2.0 * np.eye(n), explicit), **room)
    solution = sad.solve(problem, np.zeros(n), np.zeros(n), method=method)
    np.testing.assert_allclose(solution.y, 1.0, atol=1e-6)


def test_a_direction_that_no_sign_allows_is_no_way_down():
    """y_0 y_1 has its minimum over y >= 0 at 0, though it is indefinite."""
    problem = sad.Problem(
        quadratic(np.array([[0.0, 1.0], [1.0, 0.0]]), True), lower=0.0, upper=1.0
    )
    solution = sad.solve(problem, np.zeros(2), np.zeros(2))
    np.testing.assert_allclose(solution.y, 0.0, atol=1e-12)


@pytest.mark.parametrize("explicit", [True, False])
def test_a_symmetric_saddle_behind_rows_is_not_a_minimum(explicit):
    """No step has a part along the one negative direction of many."""
    n = 150
    H = np.eye(n)
    H[-1, -1] = -1.0
    row = sad.LinearEquality(np.eye(n)[:1], np.zeros(1))
    problem = sad.Problem(quadratic(H, explicit), equality=row)
    x = np.r_[-np.ones(n - 1), 0.0]
    with pytest.raises(sad.ConvergenceError) as caught:
        sad.solve(problem, x, np.zeros(n))
    wanted = sad.Status.NEGATIVE_CURVATURE, sad.Status.UNBOUNDED
    assert caught.value.result.status in wanted


def test_a_convex_objective_is_not_probed():
    n = 100
    row = sad.LinearEquality(np.eye(n)[:1], np.zeros(1))
    f = quadratic(np.diag(np.linspace(1.0, 2.0, n)), False)
    asked = sad.solve(sad.Problem(f, equality=row), np.ones(n), np.zeros(n))
    f.convex = True
    told = sad.solve(sad.Problem(f, equality=row), np.ones(n), np.zeros(n))
    assert asked.n_hvp - 11 <= told.n_hvp < asked.n_hvp


@pytest.mark.parametrize("outside", [np.inf, np.nan])
@pytest.mark.parametrize("t", [1e-2, 1e-4])
def test_an_idle_row_changes_nothing_in_a_small_domain(t, outside):
    """The curvature grows by 1 / t² on the way to the solution."""

    def value(x, y):
        inside = abs(y[0]) < 1.0
        return -y[0] - t * np.log1p(-y[0] * y[0]) if inside else outside

    f = sad.FunctionObjective(
        value=value,
        grad=lambda x, y: -1.0 + t * (1 / (1 - y) - 1 / (1 + y)),
        hvp=lambda x, y, v: t * (1 / (1 - y) ** 2 + 1 / (1 + y) ** 2) * v,
        cross_jvp=lambda x, y, u: 0.0 * y,
        cross_vjp=lambda x, y, w: np.zeros(1),
        n=1,
    )
    row = sad.Inequality(lambda x, y: y - 10.0, lambda x, y: np.eye(1))
    with np.errstate(all="ignore"):
        y = sad.solve(sad.Problem(f, inequality=row), np.ones(1)).y
    np.testing.assert_allclose(y, np.sqrt(t * t + 1.0) - t, rtol=1e-8)


@pytest.mark.parametrize("shift", [1e-3, 0.05, 0.3])
def test_a_start_with_the_right_active_set_takes_two_steps(shift):
    """The parameter moves y, no bound changes side: one Newton step is exact."""
    rng, n = np.random.default_rng(0), 40
    B = rng.standard_normal((n, n))
    H = B @ B.T / n + np.eye(n)
    problem = sad.Problem(quadratic(H, True), lower=-1.0, upper=1.0)
    x = 3.0 * rng.standard_normal(n)
    there = sad.solve(problem, x)
    toward = shift * there.active.fixed * np.sign(x)  # keeps what is held
    again = sad.solve(problem, x + toward, there.y)
    assert (again.active.fixed == there.active.fixed).all()
    assert again.niter <= 2


@pytest.mark.parametrize("far", [0.0, 1e4, 1e8, 1e12])
def test_the_start_does_not_change_what_is_asked_of_y(far):
    rng = np.random.default_rng(1)
    row = sad.LinearEquality(rng.standard_normal((2, 6)), np.ones(2))
    problem = sad.Problem(quadratic(np.diag(np.arange(1.0, 7.0)), True), equality=row)
    x = rng.standard_normal(6)
    wanted = sad.solve(problem, x, np.zeros(6)).y
    found = sad.solve(problem, x, far * rng.standard_normal(6)).y
    np.testing.assert_allclose(found, wanted, rtol=1e-7)


@pytest.mark.parametrize("size", [1e-12, 1e-6, 1.0, 1e6])
@pytest.mark.parametrize("bounded", [False, True])
def test_small_right_hand_sides_are_not_zero(size, bounded):
    room = {"lower": -10.0 * size} if bounded else {}
    row = sad.LinearEquality(np.array([[1.0, 1.0]]), np.array([size]))
    problem = sad.Problem(quadratic(np.eye(2), True), equality=row, **room)
    y = sad.solve(problem, np.zeros(2), np.zeros(2)).y
    np.testing.assert_allclose(y, 0.5 * size, rtol=1e-7)


def test_a_callback_is_a_function_that_answers():
    problem = sad.Problem(quadratic(np.eye(2), True), lower=0.0)
    with pytest.raises(TypeError, match="callback must be callable"):
        sad.solve(problem, -np.ones(2), callback=3)
    with pytest.raises(TypeError, match="found an array of shape"):
        sad.solve(problem, -np.ones(2), method="barrier", callback=lambda it: it.y)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([60.0, 220.0]))
def test_a_long_way_from_the_start_hides_nothing_of_y(seed, spread):
    """Weights that a driver moved by e^±440: the last y is 1e80 lengths of the new f away."""
    rng, n = np.random.default_rng(seed), 6
    targets, row = rng.standard_normal(n), np.ones((1, n))
    model = sad.linear_model.Glm(np.eye(n), targets, loss="squared", intercept=False)
    problem = sad.Problem(model, equality=sad.LinearEquality(row, np.ones(1)))

    def exact(x):
        curved, pull = 1.0 / n + np.exp(x), targets / n
        force = (np.sum(pull / curved) - 1.0) / np.sum(1.0 / curved)
        return (pull - force) / curved

    before, x = rng.uniform(-spread, spread, (2, n))
    found = sad.solve(problem, x, exact(before))
    np.testing.assert_allclose(found.y, exact(x), atol=1e-7 * np.abs(exact(x)).max())


@pytest.mark.parametrize("far", [0.0, 1e2, 1e4, 1e6])
def test_a_far_start_is_no_scale_of_forces_within_bounds(far):
    """y²/2 + y⁴/4 − x y: the force at the start is far³, that at y = 1 tells nothing."""
    f = sad.FunctionObjective(
        value=lambda x, y: float(0.5 * y @ y + 0.25 * np.sum(y**4) - x @ y),
        grad=lambda x, y: y + y**3 - x,
        hvp=lambda x, y, v: (1.0 + 3.0 * y**2) * v,
        cross_jvp=lambda x, y, u: -u,
        cross_vjp=lambda x, y, w: -w,
        n=1,
    )
    problem, x = sad.Problem(f, lower=0.0), np.array([2.0])
    found = sad.solve(problem, x, np.array([far]))
    np.testing.assert_allclose(found.y, 1.0, rtol=1e-8)
    np.testing.assert_allclose(sad.derivative(problem, found) @ np.ones(1), 0.25)


# f_Y and f_YY by (x, y), −f_XY, and the minimiser of x and its slope: f_Y is infinite, or
# zero, at y = 0, so that no force there is a scale.
IDLE = {
    "log": (
        lambda x, y: y - x / y,
        lambda x, y: 1.0 + x / y**2,
        lambda y: 1.0 / y,
        (4.0, 2.0, 0.25),
    ),
    "reciprocal": (
        lambda x, y: 1.0 - x / y**2,
        lambda x, y: 2.0 * x / y**3,
        lambda y: 1.0 / y**2,
        (4.0, 2.0, 0.25),
    ),
    "entropy": (
        lambda x, y: np.log(y) + 1.0 - x,
        lambda x, y: 1.0 / y,
        lambda y: 1.0 + 0.0 * y,
        (1.7, np.exp(0.7), np.exp(0.7)),
    ),
    "quartic": (
        lambda x, y: (y * y - x) * y,
        lambda x, y: 3.0 * y * y - x,
        lambda y: y,
        (4.0, 2.0, 0.25),
    ),
}


@pytest.mark.parametrize("name", IDLE)
@pytest.mark.parametrize("n", [1, 4])
def test_a_bound_is_not_active_by_rounding(name, n):
    grad, curvature, cross, (x, y, slope) = IDLE[name]
    f = sad.FunctionObjective(
        grad=lambda x, y: grad(x[0], y),
        hvp=lambda x, y, v: curvature(x[0], y) * v,
        cross_jvp=lambda x, y, u: -cross(y) * u[0],
        cross_vjp=lambda x, y, w: np.array([-cross(y) @ w]),
    )
    problem = sad.Problem(f, lower=0.5, upper=3.0)
    with np.errstate(all="ignore"):
        found = sad.solve(problem, np.array([x]), np.linspace(1.9, 2.2, n))
        tangent = sad.jvp(problem, found, np.ones(1)).y
    assert not found.active.fixed.any()
    np.testing.assert_allclose(found.y, y, rtol=1e-7)
    np.testing.assert_allclose(tangent, slope, rtol=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_the_barrier_leaves_no_gap_at_rows_that_are_weak(seed):
    """Some bounds are active or idle by 1e-6 of y only: a gap of tol in f was 5e-5 in y."""
    rng, n = np.random.default_rng([7, seed]), 6
    centre = 2.0 * 10.0 ** rng.uniform(-6.0, 0.0, n) * rng.standard_normal(n)
    problem = sad.Problem(quadratic(np.eye(n), True), lower=0.0)
    y = sad.solve(problem, -centre, method="barrier").y
    wanted = np.maximum(centre, 0.0)
    np.testing.assert_allclose(y, wanted, atol=1e-7 * np.abs(wanted).max())
