"""The soft-max classifier of sections 3.3 and 4.4: capabilities C10, C16, C17 and C18.

References: the dense Newton method of ``paper_reference`` for the solutions, (31) and (32)
entry by entry for the cross derivative, and the paper's closed forms.
"""

from __future__ import annotations

import numpy as np
import paper_reference as ref
import pytest
from _ball import maximum_in_ball
from _circle import ball, hypergradient, start
from _softmax import (
    Softmax,
    ball_inverse,
    barrier_inverse,
    closed_form,
    draw_parameters,
    has_maximum,
    plane_inverse,
    softmax_at,
    unpack,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import sparse_argdiff as sad

TIGHT = {"rtol": 1e-13}
SIZES = [(10, 2, 2016), (5, 2, 3), (8, 3, 1), (30, 6, 4), (3, 1, 0), (40, 12, 2)]


def interior_classes(theta, n):
    a, _ = unpack(theta, n)
    return [i for i in range(a.shape[0]) if has_maximum(a, i)]


def with_maximum(m, n, seed):
    """Return theta whose class 0 has a maximum: a_0 is pulled inside the hull."""
    theta = draw_parameters(m, n, seed)
    weights = np.random.default_rng(seed + 1).dirichlet(np.ones(m - 1))
    a, _ = unpack(theta, n)
    a[0] = weights @ a[1:]  # a view of theta
    return theta


def jacobian(problem, solution):
    return sad.derivative(problem, solution, **TIGHT).todense()


# the objective ------------------------------------------------------------------------


@settings(max_examples=25, deadline=None, database=None, derandomize=True)
@given(st.integers(2, 12), st.integers(1, 6), st.integers(0, 10**6), st.data())
def test_softmax_derivatives(m, n, seed, data):
    """(25) to (32): gradient, Hessian and cross derivative at any size and classes."""
    classes = data.draw(st.lists(st.integers(0, m - 1), min_size=1, max_size=4))
    problem, theta = Softmax(m, n, classes), draw_parameters(m, n, seed)
    y = np.random.default_rng(seed).standard_normal(problem.n)
    assert sad.check_derivatives(problem, theta, y)
    a, b = unpack(theta, n)
    H, cross = problem.hess(theta, y), problem.cross(theta, y).todense()
    blocks = [ref.softmax(a, b, row)[2] for row in y.reshape(-1, n)]
    for k, (i, block) in enumerate(zip(classes, blocks, strict=True)):
        rows = slice(k * n, (k + 1) * n)
        assert ref.worst(H.todense()[rows, rows], block) <= 1e-13
        dense = ref.softmax_cross(a, b, y[rows], i)
        assert ref.worst(cross[rows], dense) <= 1e-13
    assert ref.worst(H.diagonal(), np.diag(H.todense())) <= 1e-13
    sad.dot_test(problem.cross(theta, y))


def test_hessian_product_stores_no_matrix():
    """C25: abar(abar'v) − A'(ell (A v)) at 500 classes in 2,000 dimensions."""
    m, n = 500, 2_000
    problem, theta = Softmax(m, n, 7), draw_parameters(m, n, 0)
    rng = np.random.default_rng(1)
    y, v = rng.standard_normal(n) / n, rng.standard_normal(n)
    a, b = unpack(theta, n)
    s = a @ y + b
    ell = np.exp(s - s.max()) / np.exp(s - s.max()).sum()
    expected = (ell @ a) * (ell @ a @ v) - a.T @ (ell * (a @ v))
    assert ref.worst(problem.hess(theta, y) @ v, expected) <= 1e-11


# 3.3: without constraints ---------------------------------------------------------------


@pytest.mark.parametrize(("m", "n", "seed"), SIZES)
def test_closed_form_33_and_34(m, n, seed):
    """C10: the maximum and dg/d(a, b) to 1e-9; moving all classes alike moves nothing."""
    theta = with_maximum(m, n, seed)
    problem = Softmax(m, n, 0).free()
    solution = sad.solve(problem, theta, tol=1e-13)
    y = ref.likeliest(theta, 0, n)
    assert ref.worst(solution.y, y) <= 1e-9
    J = jacobian(problem, solution)
    H = softmax_at(theta, y)[2]
    assert ref.worst(J, closed_form(theta, y, 0, np.linalg.inv(H))) <= 1e-9
    by_a, by_b = J[:, : m * n].reshape(n, m, n), J[:, m * n :]
    size = np.abs(J).max()
    assert np.abs(by_a.sum(axis=1)).max() <= 1e-10 * size
    assert np.abs(by_b.sum(axis=1)).max() <= 1e-10 * size
    assert np.abs(by_b[:, 0]).max() <= 1e-9 * size  # i = j in (34)


@pytest.mark.parametrize("i", [3, 5, 6, 9])
def test_closed_form_33_of_figure_2(i):
    theta = draw_parameters(10, 2, 2016)
    problem = Softmax(10, 2, i).free()
    solution = sad.solve(problem, theta, tol=1e-13)
    J = jacobian(problem, solution)
    slopes = ref.differences(lambda theta: ref.likeliest(theta, i, 2), theta, 1e-4)
    assert ref.worst(J, slopes) <= 1e-6
    H = softmax_at(theta, solution.y)[2]
    assert ref.worst(J, closed_form(theta, solution.y, i, np.linalg.inv(H))) <= 1e-9


def test_a_hull_vertex_has_no_maximum():
    """C10, X14: concave, and yet only 4 of 10 classes have a maximum; others are refused."""
    theta = draw_parameters(10, 2, 2016)
    assert interior_classes(theta, 2) == [3, 5, 6, 9]
    for i in (0, 1, 2, 4, 7, 8):
        for method in ("newton_cg", "newton_kkt"):
            with pytest.raises(sad.ConvergenceError):
                sad.solve(Softmax(10, 2, i).free(), theta, method=method)


def test_figure_2_step():
    """Fig. 2: the derivative predicts the step, to first order."""
    theta, problem = draw_parameters(10, 2, 2016), Softmax(10, 2, 3).free()
    before = sad.solve(problem, theta, tol=1e-13)
    gradient = sad.vjp(problem, before, np.array([1.0, 0.0]), **TIGHT).x
    errors = []
    for eta in (1e-2, 1e-3, 1e-4):
        moved = sad.solve(problem, theta - eta * gradient, tol=1e-13)
        change, predicted = moved.y[0] - before.y[0], -eta * (gradient @ gradient)
        errors.append(abs(change / predicted - 1.0))
        assert change < 0.0
    assert errors[2] <= 2e-4
    assert errors[1] / errors[2] == pytest.approx(10.0, rel=0.1)


# 4.4: 1'x = 1 ----------------------------------------------------------------------------


@pytest.mark.parametrize(("m", "n", "seed"), [s for s in SIZES if s[1] > 1])
def test_closed_form_74_and_75(m, n, seed):
    """C16: to 1e-9, and 1'J = 0."""
    theta = with_maximum(m, n, seed)
    problem = Softmax(m, n, 0).sum_to_one()
    solution = sad.solve(problem, theta, tol=1e-13)
    a, b = unpack(theta, n)
    ones = np.ones((1, n))
    y, nu = ref.kkt_newton(
        lambda y: ref.softmax(a, b, y)[1] - a[0],
        lambda y: -ref.softmax(a, b, y)[2],
        lambda y: ones,
        lambda y: ones @ y - 1.0,
        solution.y + 1e-3,
    )
    assert ref.worst(solution.y, y) <= 1e-9
    assert solution.multipliers[0] == pytest.approx(nu[0], abs=1e-9)
    J = jacobian(problem, solution)
    formula = closed_form(theta, y, 0, plane_inverse(softmax_at(theta, y)[2]))
    assert ref.worst(J, formula) <= 1e-9
    assert np.abs(J.sum(axis=0)).max() <= 1e-12 * np.abs(J).max()


def test_why_75_is_zero_for_the_own_class():
    """H† 1 = 0 and a_i − abar = ν 1, not a_i = abar: ν = −0.20 here."""
    theta = draw_parameters(10, 2, 2016)
    problem = Softmax(10, 2, 3).sum_to_one()
    solution = sad.solve(problem, theta, tol=1e-13)
    a, _ = unpack(theta, 2)
    _, mean, H = softmax_at(theta, solution.y)
    assert np.abs(plane_inverse(H) @ np.ones(2)).max() <= 1e-13
    pull = a[3] - mean
    assert np.ptp(pull) <= 1e-10
    assert pull[0] == pytest.approx(-0.2036, abs=1e-4)
    assert pull[0] == pytest.approx(solution.multipliers[0], abs=1e-10)


@pytest.mark.parametrize("i", range(10))
def test_figure_4_lies_on_the_line(i):
    """Fig. 4: also for classes without a maximum in the plane, where the line has one."""
    theta = draw_parameters(10, 2, 2016)
    a, _ = unpack(theta, 2)
    along = a @ np.array([1.0, -1.0])
    if not along.min() < along[i] < along.max():
        pytest.skip("no maximum on the line either")
    problem = Softmax(10, 2, i).sum_to_one()
    solution = sad.solve(problem, theta, tol=1e-12)
    assert solution.y.sum() == pytest.approx(1.0, abs=1e-13)
    gradient = sad.vjp(problem, solution, np.array([1.0, 0.0]), **TIGHT).x
    moved = sad.solve(problem, theta - 1e-4 * gradient, tol=1e-12)
    assert moved.y.sum() == pytest.approx(1.0, abs=1e-13)
    predicted = -1e-4 * (gradient @ gradient)
    assert moved.y[0] - solution.y[0] == pytest.approx(predicted, rel=2e-2)


# 4.4: the unit ball ----------------------------------------------------------------------


@pytest.mark.parametrize("t", [1.0, 10.0, 1e3, 1e6])
@pytest.mark.parametrize(
    ("m", "n", "seed", "i"), [(10, 2, 2016, 0), (10, 2, 2016, 3), (8, 3, 1, 2)]
)
def test_closed_form_78c_79c_80c(m, n, seed, i, t):
    """C17: the barrier's J to 1e-8 of the corrected formulas; dg_i/db_i is not zero."""
    theta = draw_parameters(m, n, seed)
    problem = Softmax(m, n, i).unit_ball()
    near = sad.LogBarrier(problem, t)
    y = np.zeros(n)
    for weight in np.geomspace(1.0, t, 1 + 2 * int(np.log10(t))):
        y = sad.solve(sad.LogBarrier(problem, weight), theta, y, tol=1e-12).y
    solution = sad.solve(near, theta, y, tol=1e-13, on_failure="warn")
    assert ref.worst(solution.y, ref.likeliest(theta, i, n, t=t)) <= 1e-8
    J = jacobian(near, solution)
    inverse = barrier_inverse(theta, solution.y, t)
    corrected = closed_form(theta, solution.y, i, inverse, stationary=False)
    assert ref.worst(J, corrected) <= 1e-8
    by_a, by_b = J[:, : m * n].reshape(n, m, n), J[:, m * n :]
    assert np.abs(by_b.sum(axis=1)).max() <= 1e-8
    assert np.abs(by_a.sum(axis=1)).max() <= 1e-8
    if t == 1.0:
        assert np.abs(by_b[:, i]).max() > 1e-3  # (79) says 0


IN_THE_BALL = [  # active and inactive classes
    (m, n, seed, i)
    for m, n, seed in ((10, 2, 2016), (5, 2, 3), (8, 3, 1), (12, 5, 9))
    for i in range(min(m, 6))
]


@pytest.mark.parametrize(("m", "n", "seed", "i"), IN_THE_BALL)
def test_unit_ball_exactly(m, n, seed, i):
    """C18: active and inactive, to 1e-9; y'J = 0 on the sphere."""
    theta = draw_parameters(m, n, seed)
    problem = Softmax(m, n, i).unit_ball()
    solution = sad.solve(problem, theta, method="active_set", tol=1e-12)
    y, nu = ref.likeliest_in_ball(theta, i, n)
    assert ref.worst(solution.y, y) <= 1e-9
    assert solution.multipliers[0] == pytest.approx(nu, abs=1e-8)
    assert bool(solution.active.strong[0]) == (nu > 0.0)
    J = jacobian(problem, solution)
    assert ref.worst(J, closed_form(theta, y, i, ball_inverse(theta, y, i))) <= 1e-9
    if nu > 0.0:
        assert np.abs(y @ J).max() <= 1e-12 * np.abs(J).max()


@pytest.mark.parametrize(("m", "n", "seed", "i"), IN_THE_BALL)
def test_a_solver_of_ones_own(m, n, seed, i):
    """``_ball`` as a ``method`` of solve: point and multiplier to 1e-12."""
    theta = draw_parameters(m, n, seed)
    problem = Softmax(m, n, i).unit_ball()
    solution = sad.solve(problem, theta, method=maximum_in_ball, tol=1e-9)
    y, nu = ref.likeliest_in_ball(theta, i, n)
    assert ref.worst(solution.y, y) <= 1e-12
    assert solution.multipliers[0] == pytest.approx(nu, rel=1e-11, abs=1e-15)
    J = jacobian(problem, solution)
    assert ref.worst(J, closed_form(theta, y, i, ball_inverse(theta, y, i))) <= 1e-9


def test_the_ball_against_differences_and_a_singular_hessian():
    """C18: W = H − 2νI is definite also where H is not (two classes in three dimensions)."""
    for m, n, seed, i in ((5, 2, 3, 0), (2, 3, 5, 0)):
        theta = draw_parameters(m, n, seed)
        problem = Softmax(m, n, i).unit_ball()
        solution = sad.solve(problem, theta, method="active_set", tol=1e-12)
        J = jacobian(problem, solution)
        slopes = ref.differences(
            lambda theta, i=i, n=n: ref.likeliest_in_ball(theta, i, n)[0], theta, 1e-3
        )
        assert ref.worst(J, slopes) <= 1e-6
    H = softmax_at(theta, solution.y)[2]
    assert np.linalg.matrix_rank(H) == 1


def test_all_classes_at_once():
    """One problem of all classes has the solutions and derivatives of each."""
    theta, m, n = draw_parameters(6, 3, 8), 6, 3
    together = Softmax(m, n).unit_ball()
    solution = sad.solve(together, theta, method="active_set", tol=1e-12)
    J = jacobian(together, solution)
    for i in range(m):
        y, _ = ref.likeliest_in_ball(theta, i, n)
        rows = slice(i * n, (i + 1) * n)
        assert ref.worst(solution.y[rows], y) <= 1e-9
        formula = closed_form(theta, y, i, ball_inverse(theta, y, i))
        assert ref.worst(J[rows], formula) <= 1e-9


def test_barrier_tends_to_the_exact_ball():
    """(61), (64): the gap in f is at most 1/t, the error of J falls as 1/t."""
    theta = draw_parameters(10, 2, 2016)
    problem = Softmax(10, 2, 0).unit_ball()
    y, _ = ref.likeliest_in_ball(theta, 0, 2)
    exact = closed_form(theta, y, 0, ball_inverse(theta, y, 0))
    best, start, errors = problem.objective.value(theta, y), np.zeros(2), []
    for t in (1e2, 1e3, 1e4, 1e5):
        near = sad.LogBarrier(problem, t)
        solution = sad.solve(near, theta, start, tol=1e-12)
        start = solution.y
        gap = best - problem.objective.value(theta, solution.y)
        assert 0.0 < gap <= 1.0 / t
        errors.append(np.abs(jacobian(near, solution) - exact).max())
    ratios = np.array(errors[:-1]) / np.array(errors[1:])
    assert ratios[1:] == pytest.approx(10.0, rel=0.1)


@pytest.mark.parametrize("seed", [1004, 1009])
def test_large_weights_by_the_active_set(seed):
    """One step of Figure 6 away from N(0, 1): multipliers 3e-4 beside 0.03 and 0.5."""
    theta = start(seed)
    found = hypergradient().evaluate(theta, certify=False)
    theta = theta - 5.0 * found.gradient
    exact = sad.solve(ball(), theta, found.solution.y, method=maximum_in_ball)
    ours = sad.solve(ball(), theta, found.solution.y, method="active_set", tol=1e-10)
    assert ref.worst(ours.y, exact.y) <= 1e-6
