"""Support vector machines: against scikit-learn, differences, and the primal."""

from __future__ import annotations

import dataclasses
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.svm import SVC, SVR, LinearSVC

import sparse_argdiff as sad
from sparse_argdiff.kernels.coordinate_descent import compiled_pairs
from sparse_argdiff.linear_model import (
    GaussianKernel,
    Glm,
    SupportVector,
    linear_kernel,
    pairwise_descent,
)
from sparse_argdiff.linear_model.pairwise_descent import PairwiseDescent

GAMMA = 0.15


def data(n=60, held=40, seed=0, p=4):
    rng = np.random.default_rng([n, seed])
    F = rng.standard_normal((n + held, p))
    score = F[:, 0] + 0.5 * F[:, 1] ** 2 - 0.5 + 0.7 * rng.standard_normal(n + held)
    labels = np.where(score > 0.0, 1.0, -1.0)
    return (F[:n], labels[:n], score[:n]), (F[n:], labels[n:], score[n:])


def gaussian(F, G=None):
    return GaussianKernel(F, G).matrix(np.log([GAMMA]))


def model(loss="hinge", seed=0, n=60, learned=False, **options):
    """Return a model, its upper objective, x and the data."""
    train, held = data(n, seed=seed)
    real = loss == "epsilon"
    kernels = GaussianKernel(train[0]), GaussianKernel(train[0], held[0])
    if not learned:
        kernels = tuple(k.matrix(np.log([GAMMA])) for k in kernels)
    svm = SupportVector(kernels[0], train[1 + real], loss=loss, **options)
    upper = svm.held_out(kernels[1], held[1 + real])
    parts = [np.log([0.7] * (svm.m - learned))]
    if real:
        parts[0][-1] = np.log(0.2)
    x = np.concatenate([*parts, np.log([GAMMA])[: int(learned)]])
    return svm, upper, x, train, held


def solved(svm, x, **options):
    return sad.solve(svm.problem, x, **options)


# Against scikit-learn.


@pytest.mark.parametrize("C", [1e-3, 0.3, 30.0])
@pytest.mark.parametrize("seed", range(2))
def test_hinge_is_that_of_svc(C, seed):
    (F, t, _), (G, _, _) = data(seed=seed)
    weights = np.random.default_rng(seed).uniform(0.2, 2.0, t.size)
    svm = SupportVector(gaussian(F), t, cost="per-class", sample_weight=weights)
    sol = solved(svm, np.log([C, 2.0 * C]))
    other = SVC(C=1.0, kernel="precomputed", tol=1e-10, class_weight={-1: C, 1: 2 * C})
    other.fit(gaussian(F), t, sample_weight=weights)
    with warnings.catch_warnings():  # with all samples at C the intercept is free
        warnings.simplefilter("ignore", sad.ConvergenceWarning)
        z = svm.decision(sol, gaussian(F, G))
    np.testing.assert_allclose(z, other.decision_function(gaussian(F, G)), atol=2e-5)
    beta = np.zeros(t.size)
    beta[other.support_] = other.dual_coef_[0]
    np.testing.assert_allclose(svm.coefficients(sol.y), beta, atol=1e-4 * C)
    gap = svm.duality_gap(sol)
    assert -1e-12 * abs(sol.value) <= gap <= 1e-8 * abs(sol.value)


@pytest.mark.parametrize("C", [0.1, 5.0])
def test_epsilon_is_that_of_svr(C):
    (F, _, t), (G, _, _) = data()
    svm = SupportVector(gaussian(F), t, loss="epsilon")
    sol = solved(svm, np.log([C, 0.2]))
    other = SVR(C=C, epsilon=0.2, kernel="precomputed", tol=1e-10).fit(gaussian(F), t)
    z = svm.decision(sol, gaussian(F, G))
    np.testing.assert_allclose(z, other.predict(gaussian(F, G)), atol=2e-5)
    np.testing.assert_array_equal(sol.y[:60] * sol.y[60:], 0.0)
    assert abs(svm.duality_gap(sol)) <= 1e-8 * abs(sol.value)
    fixed = SupportVector(gaussian(F), t, loss="epsilon", epsilon=0.2)
    np.testing.assert_allclose(solved(fixed, np.log([C])).y, sol.y, atol=1e-9)


def test_squared_hinge_is_that_of_linear_svc():
    (F, t, _), _ = data()
    svm = SupportVector(linear_kernel(F), t, loss="squared-hinge", intercept=False)
    sol = solved(svm, np.log([0.5]))
    other = LinearSVC(C=0.5, fit_intercept=False, tol=1e-12, max_iter=10**6).fit(F, t)
    np.testing.assert_allclose(F.T @ svm.coefficients(sol.y), other.coef_[0], atol=1e-6)
    assert abs(svm.duality_gap(sol)) <= 1e-8 * abs(sol.value)


def differences(of, x, h=1e-3):
    """Return a fourth-order difference: libsvm keeps kernels in single precision."""
    found = []
    for unit in np.eye(x.size):
        a, b = ((of(x + s * unit) - of(x - s * unit)) / (2 * s) for s in (h, 2 * h))
        found.append((4 * a - b) / 3)
    return np.array(found)


@pytest.mark.parametrize("seed", range(3))
def test_the_hypergradient_of_C_is_that_of_svc(seed):
    svm, upper, x, (F, t, _), (G, u, _) = model(cost="per-class", seed=seed)

    def loss(x):
        weights = dict(zip((-1, 1), np.exp(x), strict=True))
        other = SVC(C=1.0, kernel="precomputed", tol=1e-10, class_weight=weights)
        z = other.fit(gaussian(F), t).decision_function(gaussian(F, G))
        return np.mean(np.maximum(1.0 - u * z, 0.0) ** 2)

    F_ = sad.Hypergradient(svm.problem, upper, tol=1e-10)
    value, gradient = F_(x)
    assert value == pytest.approx(loss(x), rel=1e-5)
    np.testing.assert_allclose(gradient, differences(loss, x), atol=3e-5)


def test_the_hypergradient_of_C_and_epsilon_is_that_of_svr():
    svm, upper, x, (F, _, t), (G, _, u) = model("epsilon")

    def loss(x):
        C, epsilon = np.exp(x)
        other = SVR(C=C, epsilon=epsilon, kernel="precomputed", tol=1e-10)
        z = other.fit(gaussian(F), t).predict(gaussian(F, G))
        return 0.5 * np.mean((z - u) ** 2)

    value, gradient = sad.Hypergradient(svm.problem, upper, tol=1e-10)(x)
    assert value == pytest.approx(loss(x), rel=1e-5)
    np.testing.assert_allclose(gradient, differences(loss, x), atol=3e-5)


# Against differences of our own solutions.


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize(
    ("loss", "cost"),
    [
        ("hinge", "scalar"),
        ("hinge", "per-sample"),
        ("hinge", "per-group"),
        ("squared-hinge", "per-class"),
        ("squared-hinge", "per-sample"),
        ("epsilon", "scalar"),
        ("epsilon", "per-group"),
    ],
)
def test_hypergradients_against_differences(loss, cost, intercept):
    options = {"groups": np.arange(40) % 3} if cost == "per-group" else {}
    svm, upper, x, _, _ = model(
        loss, n=40, cost=cost, intercept=intercept, learned=True, **options
    )
    F = sad.Hypergradient(svm.problem, upper, tol=1e-12)
    assert sad.check_hypergradient(F, x)
    found = F.evaluate(x)
    assert found.certificate.descent == "estimated"
    slope = sad.value_gradient(svm.problem, found.solution)
    for k, unit in enumerate(np.eye(svm.m)[:4]):
        ahead, back = (solved(svm, x + s * 1e-5 * unit).value for s in (1, -1))
        assert slope[k] == pytest.approx((ahead - back) / 2e-5, rel=1e-5, abs=1e-8)
    rng = np.random.default_rng(0)
    assert sad.check_derivatives(svm.problem, x, rng.uniform(0.0, 0.7, svm.n))
    y = F.evaluate(x).solution.y
    u, h = rng.standard_normal(svm.m), 1e-6
    direct = (upper.value(x + h * u, y) - upper.value(x - h * u, y)) / (2 * h)
    inside = y > 0.0 if loss == "squared-hinge" else np.zeros(svm.n, bool)
    if inside.any():  # where moving costs leave the free samples what they are
        assert upper.grad_x(x, y) @ u == pytest.approx(direct, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("intercept", [True, False])
def test_the_dual_of_the_squared_hinge_and_the_primal_agree(intercept):
    """C N = e^−η: the derivatives by the log-penalty η of Glm and by log C are opposite."""
    (F, t, _), (G, u, _) = data()
    svm = SupportVector(F @ F.T, t, loss="squared-hinge", intercept=intercept)
    glm = Glm(F, t, loss="squared-hinge", penalty="scalar", intercept=intercept)
    x = np.log([0.05])
    eta = -x - np.log(2.0 * 0.5 * t.size)
    dual = sad.Hypergradient(svm.problem, svm.held_out(G @ F.T, u), tol=1e-11)
    primal = sad.Hypergradient(sad.Problem(glm), glm.held_out(G, u), tol=1e-11)
    (value, gradient), (other, opposite) = dual(x), primal(eta)
    assert value == pytest.approx(other, rel=1e-9)
    np.testing.assert_allclose(gradient, -opposite, rtol=1e-6)


def test_kinks_of_the_squared_hinge_are_told():
    F, t = np.array([[1.0], [-1.0]]), np.array([1.0, -1.0])
    glm = Glm(F, t, loss="squared-hinge", penalty="scalar", intercept=False)
    problem = sad.Problem(glm)
    # Mean 2 · max(0, 1 − y)² + ½ e^x y²: beyond y = 1 there is no minimum, so none at a
    # kink; a third sample puts one on it.
    sol = sad.solve(problem, np.zeros(1))
    assert not sad.vjp(problem, sol, np.ones(1)).warnings
    y = float(sol.y[0])
    third = Glm(
        np.array([[1.0], [-1.0], [1.0 / y]]),
        np.array([1.0, -1.0, 1.0]),
        loss="squared-hinge",
        penalty="scalar",
        intercept=False,
        sample_weight=np.array([0.5, 0.5, 1e-300]),
    )
    sol = sad.solve(sad.Problem(third), np.zeros(1))
    found = sad.vjp(sad.Problem(third), sol, np.ones(1))
    assert any("kink" in note for note in found.warnings)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 10**6), st.floats(-3.0, 3.0), st.sampled_from(["hinge", "epsilon"])
)
def test_random_models_against_the_interior_point(seed, log_cost, loss):
    svm, _, x, _, _ = model(loss, n=14, seed=seed)
    x[0] = log_cost
    mine = solved(svm, x, tol=1e-10)
    other = solved(svm, x, tol=1e-10, method="active_set")
    assert mine.value == pytest.approx(other.value, rel=1e-9)
    np.testing.assert_allclose(mine.y, other.y, atol=1e-6 * np.exp(log_cost))
    assert abs(svm.duality_gap(mine)) <= 1e-8 * abs(mine.value)


def test_units_of_the_kernel():
    """(c K, C / c) gives a / c and the same decisions, in as many steps."""
    (F, t, _), (G, _, _) = data()
    found = []
    for c in (1.0, 2.0**-26, 2.0**26):
        svm = SupportVector(c * gaussian(F), t)
        sol = solved(svm, np.log([0.7 / c]))
        z = svm.decision(sol, c * gaussian(F, G))
        found.append((c * sol.y, z, sol.niter, sol.n_grad))
    for other in found[1:]:
        np.testing.assert_allclose(other[0], found[0][0], atol=1e-9)
        np.testing.assert_allclose(other[1], found[0][1], atol=1e-9)
        assert other[2:] == found[0][2:]


def test_the_order_of_the_samples_does_not_matter():
    (F, t, _), _ = data()
    order = np.random.default_rng(1).permutation(t.size)
    one = solved(SupportVector(gaussian(F), t), np.zeros(1))
    other = solved(SupportVector(gaussian(F[order]), t[order]), np.zeros(1))
    assert one.value == pytest.approx(other.value, rel=1e-12)
    np.testing.assert_allclose(other.y, one.y[order], atol=1e-9)


@pytest.mark.parametrize("form", ["array", "sparse", "operator", "linear"])
def test_kernels_of_all_kinds(form):
    (F, t, _), (G, u, _) = data(p=3)
    F, G = np.tanh(F), np.tanh(G)
    K, rows = F @ F.T, G @ F.T
    given = {
        "array": lambda: (K, rows),
        "sparse": lambda: tuple(scipy.sparse.csr_array(A) for A in (K, rows)),
        "operator": lambda: (
            sad.LinearOperator(K.shape, lambda v: K @ v, symmetric=True),
            sad.LinearOperator(rows.shape, lambda v: rows @ v, lambda w: rows.T @ w),
        ),
        "linear": lambda: (linear_kernel(F), linear_kernel(F, G)),
    }[form]()
    svm = SupportVector(given[0], t)
    value, gradient = sad.Hypergradient(svm.problem, svm.held_out(given[1], u))(
        np.log([0.4])
    )
    plain = SupportVector(K, t)
    expected = sad.Hypergradient(plain.problem, plain.held_out(rows, u))(np.log([0.4]))
    assert value == pytest.approx(expected[0], rel=1e-7)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-5)


def test_linear_kernel_is_the_matrix():
    F = np.random.default_rng(0).standard_normal((7, 3))
    for features in (F, scipy.sparse.csr_array(F), F.astype(np.float32)):
        K = linear_kernel(features)
        assert K.dtype == features.dtype
        np.testing.assert_allclose(K @ np.eye(7), F @ F.T, atol=1e-6)
        np.testing.assert_allclose(K.diagonal(), np.sum(F**2, axis=1), rtol=1e-5)
        assert sad.dot_test(linear_kernel(features, features[:2]))
    with pytest.raises(ValueError, match="3 columns"):
        linear_kernel(F, F[:, :2])


def test_single_precision():
    (F, t, _), (G, u, _) = data()
    K, rows = gaussian(F), gaussian(F, G)
    svm = SupportVector(K.astype(np.float32), t)
    upper = svm.held_out(rows.astype(np.float32), u)
    found = sad.Hypergradient(svm.problem, upper, tol=1e-5).evaluate(
        np.log([0.7]).astype(np.float32)
    )
    plain = SupportVector(K, t)
    exact = sad.Hypergradient(plain.problem, plain.held_out(rows, u))(np.log([0.7]))
    assert found.solution.y.dtype == np.float32
    assert found.value == pytest.approx(exact[0], rel=1e-4)
    np.testing.assert_allclose(found.gradient, exact[1], rtol=5e-3)


# Traps.


def two_points(C):
    """F = ±1, t = ±1: a = min(C, ½), w = 2 a."""
    svm = SupportVector(np.array([[1.0, -1.0], [-1.0, 1.0]]), np.array([1.0, -1.0]))
    return svm, solved(svm, np.log([C]))


@pytest.mark.parametrize("C", [0.2, 0.7])
def test_two_points(C):
    svm, sol = two_points(C)
    if C < 0.5:
        np.testing.assert_allclose(sol.y, C)
        b = svm.intercept(sol)
        np.testing.assert_allclose(b, [0.0, 2 * C - 1, 1 - 2 * C], atol=1e-12)
        with pytest.warns(sad.ConvergenceWarning, match="intercept is not unique"):
            z = svm.decision(sol)
        np.testing.assert_allclose(z, [2 * C, -2 * C])
        found = sad.vjp(svm.problem, sol, np.ones(2))
        np.testing.assert_allclose(found.x, 2 * C)
        assert svm.support(sol).cost.tolist() == [0, 1]
    else:
        np.testing.assert_allclose(sol.y, 0.5)
        np.testing.assert_allclose(svm.decision(sol), [1.0, -1.0])
        assert svm.support(sol).margin.tolist() == [0, 1]


def test_samples_on_the_margin_by_chance_are_told():
    svm, sol = two_points(0.5)
    assert sol.active.weak_fixed.any()
    assert svm.support(sol).undecided.size
    with pytest.warns(sad.ConvergenceWarning, match="weakly active"):
        sad.derivative(svm.problem, sol)


def test_samples_of_weight_zero_do_not_count():
    (F, t, _), (G, _, _) = data(30)
    weights = np.ones(30)
    weights[::3] = 0.0
    some = weights > 0.0
    for loss in ("hinge", "squared-hinge", "epsilon"):
        target = F[:, 0] if loss == "epsilon" else t
        whole = SupportVector(gaussian(F), target, loss=loss, sample_weight=weights)
        less = SupportVector(gaussian(F[some]), target[some], loss=loss)
        x = np.log([0.7, 0.1][: whole.m])
        one, other = solved(whole, x), solved(less, x)
        np.testing.assert_allclose(
            whole.decision(one, gaussian(F, G)),
            less.decision(other, gaussian(F[some], G)),
            atol=1e-8,
        )
        assert (whole.coefficients(one.y)[~some] == 0.0).all()
        v = np.random.default_rng(0).standard_normal(whole.n)
        kept = np.tile(some, whole.n // 30)
        np.testing.assert_allclose(
            sad.vjp(whole.problem, one, v).x,
            sad.vjp(less.problem, other, v[kept]).x,
            rtol=1e-6,
        )


def test_a_tube_that_holds_all_samples_has_no_intercept_of_its_own():
    t = np.array([0.04, 0.04, 0.10, 0.16])
    svm = SupportVector(np.eye(4), t, loss="epsilon", epsilon=0.1)
    sol = solved(svm, np.zeros(1))
    assert (sol.y == 0.0).all()
    np.testing.assert_allclose(svm.intercept(sol), [0.10, 0.06, 0.14])
    with pytest.warns(sad.ConvergenceWarning, match="intercept is not unique"):
        np.testing.assert_allclose(svm.decision(sol), 0.10)


@pytest.mark.parametrize("cost", [-50.0, 800.0])
def test_costs_that_vanish_or_overflow(cost):
    (F, t, _), _ = data(20)
    svm = SupportVector(gaussian(F) + 0.1 * np.eye(20), t)
    sol = solved(svm, np.array([cost]))
    gradient = sad.vjp(svm.problem, sol, np.ones(20)).x
    assert np.isfinite(gradient).all()
    if cost > 0.0:  # a hard margin: C does not matter
        assert svm.support(sol).cost.size == 0
        assert gradient == 0.0
    else:
        np.testing.assert_allclose(gradient, sol.y.sum())


def test_a_kernel_with_a_negative_eigenvalue():
    K = np.array([[0.0, 1.0], [1.0, 0.0]])
    t = np.array([1.0, -1.0])
    forms = (
        K,
        scipy.sparse.csr_array(K),
        sad.LinearOperator((2, 2), lambda v: K @ v, symmetric=True),
    )
    for kernel in forms:
        with pytest.raises(
            sad.ConvergenceError, match=r"eigenvalue is -1\.000e\+00"
        ) as e:
            SupportVector(kernel, t)
        assert e.value.status is sad.Status.NEGATIVE_CURVATURE


class Sigmoid:
    """tanh(θ F F' − 1): a kernel of one's own, not semidefinite for every θ."""

    m = 1

    def __init__(self, F, G=None):
        self.products = (F if G is None else G) @ F.T
        self.shape = self.products.shape

    def matrix(self, theta):
        return np.tanh(theta[0] * self.products - 1.0)

    def _slope(self, theta):
        return self.products * (1.0 - self.matrix(theta) ** 2)

    def jvp(self, theta, beta, u):
        return u[0] * (self._slope(theta) @ beta)

    def vjp(self, theta, beta, w):
        return np.array([w @ self._slope(theta) @ beta])


def test_a_kernel_of_ones_own_fails_where_it_is_not_semidefinite():
    (F, t, _), _ = data(20)
    svm = SupportVector(Sigmoid(F), t)
    with pytest.raises(sad.ConvergenceError, match="not positive semidefinite"):
        solved(svm, np.array([0.0, 1.0]))


class Polynomial(Sigmoid):
    """(1 + e^θ F F')²."""

    def matrix(self, theta):
        return (1.0 + np.exp(theta[0]) * self.products) ** 2

    def _slope(self, theta):
        scaled = np.exp(theta[0]) * self.products
        return 2.0 * (1.0 + scaled) * scaled


def test_a_kernel_of_ones_own():
    (F, t, _), (G, u, _) = data(25)
    svm = SupportVector(Polynomial(F), t)
    upper = svm.held_out(Polynomial(F, G), u, loss="logistic")
    x = np.array([-1.0, -1.5])
    assert sad.check_hypergradient(sad.Hypergradient(svm.problem, upper, tol=1e-12), x)


def test_duplicate_samples_share_a_decision():
    (F, t, _), (G, _, _) = data(20)
    svm = SupportVector(gaussian(np.vstack([F, F])), np.append(t, t))
    sol = solved(svm, np.log([0.35]))
    single = SupportVector(gaussian(F), t)
    other = solved(single, np.log([0.7]))
    np.testing.assert_allclose(
        svm.decision(sol, gaussian(np.vstack([F, F]), G)),
        single.decision(other, gaussian(F, G)),
        atol=1e-6,
    )
    free = svm.support(sol).margin
    if free.size > 1 and np.isin(free + 20, free).any():  # only the sums are determined
        with pytest.raises(sad.ConvergenceError) as e:
            sad.vjp(svm.problem, sol, np.arange(40.0))
        assert e.value.status is sad.Status.SINGULAR


def test_one_sample_and_one_class():
    svm = SupportVector(np.array([[2.0]]), np.array([1.0]), intercept=False)
    sol = solved(svm, np.log([0.3]))
    np.testing.assert_allclose(sol.y, 0.3)
    np.testing.assert_allclose(sad.vjp(svm.problem, sol, np.ones(1)).x, 0.3)
    with pytest.raises(ValueError, match="both labels, found none of -1"):
        SupportVector(np.eye(2), np.ones(2))
    with pytest.raises(ValueError, match=r"class \+1"):
        SupportVector(
            np.eye(2), np.array([-1.0, 1.0]), sample_weight=np.array([1.0, 0.0])
        )


def test_a_problem_takes_the_constraints_of_its_objective():
    svm, _, x, _, _ = model()
    problem = sad.Problem(svm)
    assert problem.bounds_move
    assert problem.equalities is not None
    np.testing.assert_array_equal(sad.solve(problem, x).y, solved(svm, x).y)
    assert sad.Problem(svm, lower=-1.0).upper is None  # those that are given, alone


def test_read_only_and_strided_arrays():
    (F, t, _), _ = data(20)
    K = gaussian(F)
    wide = np.zeros((40, 40))
    wide[::2, ::2] = K
    strided = wide[::2, ::2]
    strided.setflags(write=False)
    one = solved(SupportVector(K, t), np.zeros(1))
    for other in (strided, np.asfortranarray(K)):
        found = solved(SupportVector(other, t), np.zeros(1))
        np.testing.assert_allclose(found.y, one.y, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"kernel": np.array([[1.0, 0.5], [0.2, 1.0]])}, ValueError, "symmetric"),
        ({"kernel": np.full((2, 2), np.nan)}, sad.ConvergenceError, "NaN"),
        ({"kernel": np.eye(3)}, ValueError, r"shape \(2, 2\)"),
        ({"targets": np.array([0.0, 2.0])}, ValueError, "labels"),
        ({"targets": np.array([])}, ValueError, "at least one"),
        ({"loss": "hinges"}, ValueError, "loss must be one of"),
        ({"cost": "none"}, ValueError, "cost must be one of"),
        ({"cost": "per-group"}, ValueError, "groups goes with"),
        ({"cost": "per-group", "groups": [0, 2]}, ValueError, "numbered 0"),
        ({"cost": "per-group", "groups": [0.0, 1.0]}, ValueError, "whole numbers"),
        ({"cost": "per-class", "loss": "epsilon"}, ValueError, "needs labels"),
        ({"epsilon": 0.1}, ValueError, "epsilon goes with"),
        ({"epsilon": -0.1, "loss": "epsilon"}, ValueError, ">= 0"),
        ({"sample_weight": np.array([1.0, -1.0])}, ValueError, "for sample 1"),
        ({"sample_weight": np.zeros(2), "intercept": False}, ValueError, "all samples"),
    ],
)
def test_wrong_arguments(change, error, match):
    arguments = {"kernel": np.eye(2), "targets": np.array([-1.0, 1.0])} | change
    with pytest.raises(error, match=match):
        SupportVector(**arguments)


def test_wrong_arguments_of_held_out_data():
    svm = SupportVector(np.eye(2), np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="2 columns"):
        svm.held_out(np.eye(3), np.ones(3))
    with pytest.raises(ValueError, match="like the rows"):
        svm.held_out(np.eye(2), np.ones(3))
    with pytest.raises(ValueError, match="0 parameters"):
        svm.held_out(GaussianKernel(np.eye(2)), np.ones(2))
    with pytest.raises(ValueError, match=r"x must have shape \(1,\)"):
        solved(svm, np.zeros(2))


def test_a_search_lowers_the_held_out_loss():
    svm, upper, x, _, _ = model(cost="per-class", learned=True)
    start = sad.Hypergradient(svm.problem, upper).value(x)
    found = sad.minimize(svm.problem, upper, x, bounds=(-6.0, 4.0), maxiter=15)
    assert found.fun < start


def test_several_thousand_samples_take_few_steps():
    """Of Newton's method; each factorises the samples on the margin alone."""
    (F, t, _), _ = data(1200)
    svm = SupportVector(gaussian(F), t)
    sol = solved(svm, np.zeros(1))
    assert sol.niter <= 6
    assert abs(svm.duality_gap(sol)) <= 1e-8 * abs(sol.value)
    again = solved(svm, np.array([0.02]), y0=sol.y)
    assert again.niter <= 6


def test_an_undecided_sample_does_not_move_the_intercept():
    """It has a force of up to a millionth, by which its r_i differs from b."""
    (F, t, _), _ = data(30)
    svm = SupportVector(gaussian(F), t)
    sol = solved(svm, np.zeros(1))
    exact = svm.intercept(sol).value
    weak = np.zeros(30, bool)
    weak[np.flatnonzero(sol.y == 0.0)[0]] = True  # as if it had hardly a force
    active = dataclasses.replace(
        sol.active, fixed=sol.active.fixed & ~weak, weak_fixed=weak
    )
    told = dataclasses.replace(sol, active=active)
    assert svm.intercept(told).value == exact


def test_rounding_is_no_asymmetry_and_no_negative_eigenvalue():
    (F, t, _), _ = data(20)
    K = F @ F.T  # of rank four
    noise = np.triu(1e-15 * np.abs(K))
    SupportVector(K + noise, t)
    with pytest.raises(ValueError, match="symmetric"):
        SupportVector(K + 1e6 * noise, t)
    with pytest.raises(sad.ConvergenceError, match="not positive semidefinite"):
        SupportVector(K - 1e-9 * np.abs(K).max() * np.eye(20), t)


@pytest.mark.parametrize("loss", ["hinge", "squared-hinge", "epsilon"])
def test_strict_arrays_stay_what_they_are(loss, strict_array):
    """The objective, the bounds and the upper objective; solutions come from NumPy."""
    to, back = strict_array
    (F, t, s), (G, u, v) = data(12, 7)
    if loss == "epsilon":
        t, u = s, v
    K, rows = gaussian(F), gaussian(F, G)
    plain = SupportVector(K, t, loss=loss)
    strict = SupportVector(to(K), to(t), loss=loss)
    x = np.log([0.7, 0.2][: plain.m])
    sol = solved(plain, x)
    v = np.random.default_rng(0).standard_normal(plain.n)
    there = sad.Solution(y=to(sol.y), x=to(x))
    found = sad.vjp(strict.problem, there, to(v))
    np.testing.assert_allclose(
        back(found.x), sad.vjp(plain.problem, sol, v).x, rtol=1e-6
    )
    uppers = plain.held_out(rows, u), strict.held_out(to(rows), to(u))
    for name in ("value", "grad_y", "grad_x"):
        one = getattr(uppers[0], name)(x, sol.y)
        other = getattr(uppers[1], name)(to(x), to(sol.y))
        other = other if name == "value" else back(other)
        np.testing.assert_allclose(other, one, atol=1e-10)
    assert strict.intercept(there)[0] == pytest.approx(plain.intercept(sol)[0])


def test_the_page_of_the_docs_runs(capsys):
    page = Path(sad.__file__).parents[1] / "docs" / "support_vectors.md"
    if not page.exists():
        pytest.skip("the docs are not here")
    names = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
        exec(block, names)  # noqa: S102
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == ["[0.25 1.  ]", "[1. 0.]"]
    assert abs(float(printed[-1].split()[1])) < 1e-10


@pytest.mark.parametrize("halves", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_compiled_pairs_are_those_of_arrays(seed, halves):
    """The same steps, with a matrix that serves one half of the variables or both."""
    pytest.importorskip("numba")
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((30, 8))
    K, n = A @ A.T + 0.1 * np.eye(30), 30 * halves
    own, ends = 0.2 * rng.random(n), rng.random(n)
    r0 = rng.standard_normal(n)

    def state():
        return PairwiseDescent(
            z=np.zeros(n),
            r=r0.copy(),
            low=-ends * (np.arange(n) % 3 > 0),
            high=ends.copy(),
            diagonal=np.tile(np.diag(K), halves) + own,
            column=lambda i: np.tile(K[i % 30], halves),
            own=own,
        )

    by_arrays, compiled = state(), state()
    steps = by_arrays.pairs(1e-6, 4000)
    assert 20 < steps < 4000
    s = compiled
    found = compiled_pairs()(
        K, s.z, s.r, s.low, s.high, s.diagonal, own, s._least, 1e-6, 4000
    )
    assert found == steps
    np.testing.assert_allclose(s.z, by_arrays.z, atol=1e-10)
    np.testing.assert_allclose(s.r, by_arrays.r, atol=1e-9)
    H = np.tile(K, (halves, halves)) + np.diag(own)
    np.testing.assert_allclose(s.r, r0 - H @ s.z, atol=1e-9)


def test_pairs_are_compiled_once_that_is_repaid(monkeypatch):
    """``_ROUND``: the first steps are those of arrays, the rest of the loop."""
    pytest.importorskip("numba")
    monkeypatch.setattr(pairwise_descent, "_ROUND", 5)
    asked = []

    def worth(work):
        asked.append(work)
        return work >= 10.0 * 30

    monkeypatch.setattr(pairwise_descent, "is_worth_compiling", worth)
    rng = np.random.default_rng(0)
    A = rng.standard_normal((30, 8))
    t = np.where(rng.random(30) < 0.5, 1.0, -1.0)
    model = SupportVector(A @ A.T, t)
    found = model.approach(np.array([2.0]), np.zeros(30))
    assert asked == [0.0, 150.0, 300.0]
    monkeypatch.setattr(pairwise_descent, "is_worth_compiling", lambda _: False)
    np.testing.assert_allclose(
        found, model.approach(np.array([2.0]), np.zeros(30)), atol=1e-9
    )
