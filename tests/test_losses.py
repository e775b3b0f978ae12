"""The losses to all digits where they saturate, against decimal arithmetic."""

import decimal
from decimal import Decimal

import numpy as np
import pytest
from decimal_reference import newton_step
from scipy import sparse

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm
from sparse_argdiff.linear_model.loss_at import LossAt
from sparse_argdiff.linear_model.losses import Logistic
from sparse_argdiff.linear_model.multinomial import Multinomial

DIGITS = decimal.Context(prec=400, Emin=-100_000, Emax=100_000)

PREDICTORS = [-700.0, -60.0, -37.5, -20.0, -1.0, 0.0, 0.3, 5.0, 36.8, 38.0, 60.0, 700.0]
MARGINS = [0.0, 1e-3, 1.0, 20.0, 36.8, 38.0, 60.0, 300.0]


def close(found, wanted, rtol=2e-14):
    """Whether each number is right relative to itself."""
    wanted = np.array([float(v) for v in wanted])
    np.testing.assert_allclose(np.ravel(found), wanted, rtol=rtol, atol=0.0)


@pytest.fixture(autouse=True)
def digits():
    with decimal.localcontext(DIGITS):
        yield


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_a_saturated_logistic_loss(target):
    z, t = np.array(PREDICTORS), np.full(len(PREDICTORS), target)
    p = [1 / (1 + (-Decimal(v)).exp()) for v in PREDICTORS]
    q = [1 / (1 + Decimal(v).exp()) for v in PREDICTORS]
    slope = p if target == 0.0 else [-v for v in q]
    second = [a * b for a, b in zip(p, q, strict=True)]
    lost = q if target == 0.0 else p
    loss, ones = Logistic(), np.ones_like(z)
    close(loss.slope(z, t), slope)
    close(loss.curvature(z, t, ones).diagonal, second)
    close(loss.third(z, t, ones, ones, ones), third_of(p, q))
    close(loss.value(z, t), [-v.ln() for v in lost])
    close(loss.probability(z), p)
    value, first, curvature = loss.together(z, t)
    close(value, [-v.ln() for v in lost])
    close(first, slope)
    close(curvature, second)


def third_of(p, q):
    return [a * b * (b - a) for a, b in zip(p, q, strict=True)]


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("margin", MARGINS)
def test_a_saturated_multinomial_loss(classes, margin):
    z = np.array([[margin, *np.linspace(0.0, -1.0, classes - 1)]])
    e = [Decimal(v).exp() for v in z[0]]
    p = [v / sum(e) for v in e]
    others = [(sum(e) - v) / sum(e) for v in e]
    loss, ones = Multinomial(), np.ones(1)
    for k in range(classes):
        t = np.eye(classes)[[k]]
        close(loss.value(z, t), [-p[k].ln()])
        close(
            loss.slope(z, t), [-others[j] if j == k else p[j] for j in range(classes)]
        )
        curvature = loss.curvature(z, t, ones)
        close(curvature.diagonal, [a * b for a, b in zip(p, others, strict=True)])
    v = np.random.default_rng(classes).standard_normal((1, classes))
    d = [Decimal(x) for x in v[0]]
    product = [
        p[k] * sum(p[j] * (d[k] - d[j]) for j in range(classes)) for k in range(classes)
    ]
    close(curvature.product(v.copy()), product, rtol=1e-12)


@pytest.mark.parametrize("kernels", ["reference", "compiled"])
def test_the_product_of_a_saturated_soft_max(kernels):
    """F' (diag p − p p') F at a margin of 40, where p is one to rounding."""
    if kernels == "compiled":
        pytest.importorskip("numba")
    A = sparse.csr_array(np.eye(4, 3) + 0.25)
    glm = Glm(A, np.array([0, 1, 2, 2]), loss="multinomial", kernels=kernels)
    rng = np.random.default_rng(0)
    y = rng.standard_normal(glm.n)
    y[:9] += 40.0 * np.eye(3).ravel()  # the coefficients; the intercepts follow
    x = np.full(glm.m, -200.0)
    h = 1e-3
    v = rng.standard_normal(glm.n)
    along = (glm.grad(x, y + h * v) - glm.grad(x, y - h * v)) / (2.0 * h)
    product = sad.Problem(glm).hess(x, y).matvec(v)
    np.testing.assert_allclose(product, along, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("power", [-20.0, -35.0, -60.0, -100.0])
@pytest.mark.parametrize("warm", [False, True])
def test_separable_labels_under_a_vanishing_ridge(power, warm):
    """The minimiser is found, and is as near as is said.

    While p − 1 was rounding an error of 16 % was called 3e-8.
    """
    A, labels = separable(0)
    problem = sad.Problem(Glm(A, labels))
    m = problem.objective.m
    start = sad.solve(problem, np.zeros(m)).y if warm else None
    found = sad.solve(problem, np.full(m, power), start, tol=1e-6)
    with decimal.localcontext(prec=60):
        step = newton_step(np.c_[A, np.ones(25)], labels, power, found.y)
    assert step <= found.relative_error <= 1e-6


def separable(seed):
    """More features than rows."""
    rng = np.random.default_rng(seed)
    A, w = rng.standard_normal((25, 40)), rng.standard_normal(40)
    return A, np.where(A @ w > 0, 1.0, -1.0)


def test_the_folds_under_a_vanishing_ridge():
    A, labels = separable(1)
    kept, left = np.arange(15), np.arange(10, 25)
    pairs = [(kept, np.arange(15, 25)), (left, np.arange(10))]
    problem, _ = Glm(A, labels, penalty="scalar").cross_validation(pairs)
    x = np.array([-60.0])
    found = sad.solve(problem, x, tol=1e-6)
    for y, train in zip(np.split(found.y, 2), (kept, left), strict=True):
        with decimal.localcontext(prec=60):
            assert (
                newton_step(np.c_[A, np.ones(25)][train], labels[train], -60.0, y)
                <= 1e-6
            )


@pytest.mark.parametrize("ends", [1.0, 40.0, 800.0])
def test_the_compiled_logistic_pass_has_the_digits_of_the_loss(ends):
    """Also next to a label, where slope and curvature are those of e^-|z| alone."""
    pytest.importorskip("numba")
    rng, loss, n = np.random.default_rng(3), Logistic(), 3001
    z = rng.uniform(-ends, ends, n)
    targets = np.where(rng.random(n) < 0.8, rng.random(n) < 0.5, rng.random(n))
    weights = rng.uniform(0.1, 1.0, n)
    at = LossAt(loss, z, targets, weights)
    value, slope, second = loss.together(z, targets)
    assert at.value == pytest.approx(weights @ value, rel=1e-14)
    np.testing.assert_allclose(at.slopes, slope, rtol=1e-14)
    np.testing.assert_allclose(at.curvature.diagonal, weights * second, rtol=1e-14)
    near = LossAt(loss, -np.abs(z), 0.0 * targets, weights)  # the small losses alone
    small = weights @ np.log1p(np.exp(-np.abs(z)))
    assert near.value == pytest.approx(small, rel=1e-14)


def test_the_compiled_logistic_pass_is_not_a_subclass_s():
    class Doubled(Logistic):
        def value(self, z, targets):
            return 2.0 * super().value(z, targets)

    z, targets, weights = np.zeros(3000), np.ones(3000), np.ones(3000) / 3000
    found = LossAt(Doubled(), z, targets, weights).value
    assert found == pytest.approx(2.0 * np.log(2.0))
