"""∇²F(x) u: against dense algebra, differences, and in SciPy's second-order methods."""

import numpy as np
import pytest
import scipy.optimize
from problems import BY_NAME, PROBLEMS, counted

import sparse_argdiff as sad
from sparse_argdiff.hypergradient.hessian_product import differentiate
from sparse_argdiff.linear_model import Glm, Multinomial

RNG = np.random.default_rng(5)
# Rows whose f_YY is definite at the solution.
SMOOTH = [row for row in PROBLEMS if row.method == "cg" and row.y0.dtype == np.float64]
every_row = pytest.mark.parametrize("row", SMOOTH, ids=str)


class Upper:
    """½ ‖y − t‖² + ¼ ‖y‖⁴ + x'A y + ¼ ‖x‖⁴: all second derivatives are there."""

    def __init__(self, m, n, seed=0):
        rng = np.random.default_rng(seed)
        self.t, self.A = rng.standard_normal(n), rng.standard_normal((m, n)) / n

    def value(self, x, y):
        r = y - self.t
        fourth = (y @ y) ** 2 + (x @ x) ** 2
        return float(0.5 * r @ r + 0.25 * fourth + x @ self.A @ y)

    def grad_y(self, x, y):
        return y - self.t + (y @ y) * y + self.A.T @ x

    def grad_x(self, x, y):
        return self.A @ y + (x @ x) * x


def differences(gradient, x, h=1e-3):
    """Return the Hessian, a column for each central difference of order four."""
    columns = []
    for e in np.eye(x.shape[0]):
        near = gradient(x + h * e) - gradient(x - h * e)
        far = gradient(x + 2 * h * e) - gradient(x - 2 * h * e)
        columns.append((8.0 * near - far) / (12.0 * h))
    return np.stack(columns, axis=1)


def dense_gradient(row, upper):
    def gradient(x):
        y = row.solution(x)
        J = -np.linalg.solve(row.dense_hess(x, y), row.dense_cross(x, y))
        return upper.grad_x(x, y) + J.T @ upper.grad_y(x, y)

    return gradient


def columns(F, x):
    return np.stack([F.hessp(x, e) for e in np.eye(x.shape[0])], axis=1)


def close(a, b, rtol=1e-6):
    return np.linalg.norm(a - b) <= rtol * max(np.linalg.norm(b), 1e-6)


@every_row
def test_agrees_with_dense_algebra(row):
    upper = Upper(row.m, row.n)
    F = sad.Hypergradient(row.problem, upper, y0=row.y0, tol=1e-11)
    H = columns(F, row.x)
    # A longer step where x is: the rows differ in size by many orders.
    step = 1e-3 * min(1.0, np.abs(row.x).max() or 1.0)
    expected = differences(dense_gradient(row, upper), row.x, step)
    assert close(H, expected, 2e-5)
    assert close(H, H.T, 1e-6)


@every_row
def test_the_error_is_covered_by_its_estimate(row):
    """By that and what the solves leave, against products that are made of other steps."""
    upper = Upper(row.m, row.n)
    F = sad.Hypergradient(row.problem, upper, y0=row.y0, tol=1e-12)
    u = np.random.default_rng(1).standard_normal(row.m)
    found = F.hessian_product(row.x, u)
    other = F.hessian_product(row.x, 0.37 * u)
    apart = np.linalg.norm(found.product - other.product / 0.37)
    allowed = found.error + other.error / 0.37
    assert apart <= allowed + 1e-9 * np.linalg.norm(found.product)
    assert found.error <= 1e-6 * np.linalg.norm(found.product)


# linear models ------------------------------------------------------------------------


def glm_problem(loss, penalty="per-feature", intercept=True, weights=False, seed=3):
    rng = np.random.default_rng(seed)
    A, V = rng.standard_normal((40, 5)), rng.standard_normal((30, 5))
    z, v = A @ rng.standard_normal(5), V @ np.ones(5)
    if loss in {"squared", "huber", "quantile"}:
        t, s = z + rng.standard_normal(40), v
    elif loss in {"gamma", "tweedie"}:
        t, s = rng.gamma(2.0, 0.5, 40), rng.gamma(2.0, 0.5, 30)
    elif loss == "poisson":
        t, s = rng.poisson(2.0, 40).astype(float), rng.poisson(2.0, 30).astype(float)
    elif loss == "multinomial":
        t, s = rng.integers(0, 3, 40), rng.integers(0, 3, 30)
        t[:3] = 0, 1, 2
    else:
        t, s = (z > 0).astype(float), (v > 0).astype(float)
    groups = (
        np.array([0, 1, 1, 0, 2])
        if isinstance(penalty, str) and penalty == "per-group"
        else None
    )
    w = rng.random(40) * (rng.random(40) > 0.2) if weights else None
    glm = Glm(
        A,
        t,
        loss=loss,
        penalty=penalty,
        groups=groups,
        intercept=intercept,
        sample_weight=w,
    )
    return glm, glm.held_out(V, s), rng.uniform(-3.0, 0.0, glm.m)


LOSSES = ["logistic", "squared", "poisson", "multinomial", "huber"]
LOSSES += ["gamma", "tweedie", "quantile"]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("penalty", ["per-feature", "per-group", "scalar"])
def test_linear_models_are_exact(loss, penalty):
    glm, upper, x = glm_problem(loss, penalty, weights=penalty == "per-group")
    problem = sad.Problem(glm)
    upper = sad.Sum(upper, sad.prior(-1.0, 2.0, rows=30.0))
    F = sad.Hypergradient(problem, upper, tol=1e-11)
    H = columns(F, x)
    assert F.hessian_product(x, np.ones(glm.m)).error == 0.0
    step = 1e-5 if loss == "huber" else 1e-3  # within two of its kinks
    assert close(H, differences(lambda x: F(x)[1], x, step), 2e-6)
    assert close(H, H.T, 1e-8)


@pytest.mark.parametrize("loss", ["logistic", "multinomial"])
def test_folds_and_maps_of_few_parameters_are_exact(loss):
    glm, _, _ = glm_problem(loss, np.stack([np.ones(5), np.arange(5.0)], axis=1))
    problem, upper = glm.cross_validation(3)
    x = np.array([-1.0, -0.3])
    F = sad.Hypergradient(problem, upper, tol=1e-11)
    assert F.hessian_product(x, np.ones(2)).error == 0.0
    H = columns(F, x)
    assert close(H, differences(lambda x: F(x)[1], x), 2e-6)
    assert upper.n_observations == 40 * (2 if loss == "multinomial" else 1)


def test_several_targets_are_exact():
    rng = np.random.default_rng(5)
    A, T = rng.standard_normal((30, 4)), rng.standard_normal((30, 3))
    glm = Glm(A[:20], T[:20], loss="squared", penalty="scalar")
    upper = glm.held_out(A[20:], T[20:])
    F, x = sad.Hypergradient(sad.Problem(glm), upper, tol=1e-11), rng.random(3)
    H = columns(F, x)
    assert F.hessian_product(x, np.ones(3)).error == 0.0
    assert close(H, differences(lambda x: F(x)[1], x), 2e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_third_product_is_the_derivative_of_products(loss):
    glm, _, x = glm_problem(loss, weights=True)
    rng = np.random.default_rng(0)
    y, w, dy = rng.standard_normal((3, glm.n))
    dx = rng.standard_normal(glm.m)

    def products(t):
        there = x + t * dx, y + t * dy
        return (
            sad.aslinearoperator(glm.cross(*there)).T @ w,
            sad.aslinearoperator(glm.hess(*there)) @ w,
        )

    # Between two kinks of Huber's loss the third derivative is zero.
    expected, _ = differentiate(products, 1e-16, 1e-3)
    for found, part in zip(glm.third_product(x, y, w, dx, dy), expected, strict=True):
        assert close(found, part, 1e-7)


def test_exact_and_differenced_third_derivatives_agree():
    glm, upper, x = glm_problem("logistic")
    plain = sad.FunctionObjective(
        value=glm.value,
        grad=glm.grad,
        hvp=lambda x, y, v: glm.hess(x, y) @ v,
        cross_jvp=lambda x, y, u: glm.cross(x, y) @ u,
        cross_vjp=lambda x, y, w: glm.cross(x, y).T @ w,
        n=glm.n,
    )
    u = np.random.default_rng(2).standard_normal(glm.m)
    exact = sad.Hypergradient(sad.Problem(glm), upper, tol=1e-12)
    other = sad.Hypergradient(
        sad.Problem(plain), sad.FunctionUpper(upper.value, upper.grad_y), tol=1e-12
    )
    a, b = exact.hessian_product(x, u), other.hessian_product(x, u)
    assert a.error == 0.0 < b.error
    assert np.linalg.norm(a.product - b.product) <= b.error + 1e-9
    assert b.error <= 1e-7 * np.linalg.norm(a.product)


def test_a_loss_without_a_third_derivative_is_differenced():
    class Own(Multinomial):
        third = None

    glm, upper, x = glm_problem("multinomial")
    own = Glm(*_data_of(glm), loss=Own())
    u = np.ones(glm.m)
    exact = sad.Hypergradient(sad.Problem(glm), upper, tol=1e-11).hessp(x, u)
    found = sad.Hypergradient(sad.Problem(own), upper, tol=1e-11).hessian_product(x, u)
    assert found.error > 0.0
    assert close(found.product, exact, 1e-7)


def _data_of(glm):
    return glm._data.design.features, glm._data.targets


# constraints --------------------------------------------------------------------------


def constrained(kind, maximize=False):
    """A strictly convex f with rows or bounds, some active."""
    rng = np.random.default_rng(11)
    n, m = 5, 3
    Q = rng.standard_normal((n, n))
    Q = Q @ Q.T + np.eye(n)
    B, c = rng.standard_normal((n, m)), rng.standard_normal(n)
    sign = -1.0 if maximize else 1.0

    def value(x, y):
        return sign * float(
            0.5 * y @ Q @ y + 0.25 * np.exp(x[0]) * np.sum(y**4) - (B @ x + c) @ y
        )

    f = sad.FunctionObjective(
        value=value,
        grad=lambda x, y: sign * (Q @ y + np.exp(x[0]) * y**3 - B @ x - c),
        hvp=lambda x, y, v: sign * (Q @ v + 3 * np.exp(x[0]) * y**2 * v),
        cross_jvp=lambda x, y, u: sign * (np.exp(x[0]) * u[0] * y**3 - B @ u),
        cross_vjp=lambda x, y, w: (
            sign * (np.r_[np.exp(x[0]) * (y**3 @ w), 0.0, 0.0] - B.T @ w)
        ),
        n=n,
    )
    A = rng.standard_normal((2, n))
    if kind == "linear equality":
        rows = sad.LinearEquality(
            A,
            lambda x: np.array([np.sin(x[1]), x[2] ** 2]),
            b_jvp=lambda x, u: np.array([np.cos(x[1]) * u[1], 2 * x[2] * u[2]]),
            b_vjp=lambda x, w: np.array([0.0, np.cos(x[1]) * w[0], 2 * x[2] * w[1]]),
        )
        return sad.Problem(f, equality=rows, maximize=maximize)
    if kind == "nonlinear":
        rows = sad.Inequality(
            lambda x, y: np.array([y @ y - 0.2 * np.exp(x[1]), y[0] - 5.0]),
            lambda x, y: np.stack([2 * y, np.eye(n)[0]]),
            hess=lambda x, y, nu: 2 * nu[0] * np.eye(n),
            jac_x=lambda x, y: np.array([[0, -0.2 * np.exp(x[1]), 0], [0, 0, 0]]),
        )
        return sad.Problem(f, inequality=rows, maximize=maximize)
    return sad.Problem(f, lower=-0.1, upper=0.15, maximize=maximize)


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("kind", ["linear equality", "nonlinear", "bounds"])
def test_with_constraints(kind, maximize):
    problem, x = constrained(kind, maximize), np.array([0.3, 0.5, -0.4])
    F = sad.Hypergradient(problem, Upper(3, 5), y0=np.full(5, 0.01), tol=1e-12)
    found = F.evaluate(x)
    if kind != "linear equality":
        active = found.solution.active
        assert (active.strong if kind == "nonlinear" else active.fixed).any()
    H = columns(F, x)
    expected = differences(lambda x: F.evaluate(x, certify=False).gradient, x, 1e-3)
    assert close(H, expected, 1e-5)
    assert close(H, H.T, 1e-7)


def test_barrier_agrees_with_its_own_differences():
    problem = sad.LogBarrier(constrained("bounds"), 1e2)
    F = sad.Hypergradient(problem, Upper(3, 5), y0=np.full(5, 0.01), tol=1e-11)
    x = np.array([0.3, 0.5, -0.4])
    expected = differences(lambda x: F(x)[1], x, 1e-3)
    assert close(columns(F, x), expected, 1e-5)


# costs and caches ---------------------------------------------------------------------


def test_costs_are_two_solves_and_returned():
    row = BY_NAME["log_sum_exp"]
    problem, counts = counted(row.problem)
    F = sad.Hypergradient(problem, Upper(row.m, row.n), y0=row.y0, tol=1e-10)
    F(row.x)
    before, spent = F.n_hvp, counts["hvp"]
    u = np.ones(row.m)
    first = F.hessian_product(row.x, u)
    assert F.n_hvp - before == first.n_hvp == counts["hvp"] - spent
    # Two solves of at most n steps with their checks, six products for the third derivative,
    # a loose solve for its error, the test that y is isolated.
    assert first.n_hvp <= 4 * (row.n + 4) + 6 + 8
    assert F.n_evaluations == 1
    second = F.hessian_product(row.x, u)
    assert second.n_hvp < first.n_hvp or first.n_hvp <= 2 * row.n + 12
    assert np.array_equal(second.product, first.product)


def test_the_point_before_a_refused_trial_is_not_solved_again():
    row = BY_NAME["log_sum_exp"]
    F = sad.Hypergradient(row.problem, Upper(row.m, row.n), y0=row.y0)
    F(row.x)
    F(1.1 * row.x)
    F.hessp(row.x, np.ones(row.m))
    assert F.n_evaluations == 2
    F.hessp(0.9 * row.x, np.ones(row.m))
    assert F.n_evaluations == 3


def test_zero_direction_and_wrong_arguments():
    row = BY_NAME["log_sum_exp"]
    F = sad.Hypergradient(row.problem, Upper(row.m, row.n), y0=row.y0)
    assert not F.hessp(row.x, np.zeros(row.m)).any()
    with pytest.raises(ValueError, match="u must have shape"):
        F.hessp(row.x, np.ones(row.m + 1))
    with pytest.raises(sad.ConvergenceError, match="NaN"):
        F.hessp(row.x, np.full(row.m, np.nan))


def test_without_forward_products_the_gradient_is_differenced():
    glm, upper, x = glm_problem("logistic")
    plain = sad.FunctionObjective(
        value=glm.value,
        grad=glm.grad,
        hvp=lambda x, y, v: glm.hess(x, y) @ v,
        cross_vjp=lambda x, y, w: glm.cross(x, y).T @ w,
        n=glm.n,
    )
    u = np.random.default_rng(2).standard_normal(glm.m)
    exact = sad.Hypergradient(sad.Problem(glm), upper, tol=1e-12).hessp(x, u)
    F = sad.Hypergradient(sad.Problem(plain), upper, tol=1e-10)
    found = F.hessian_product(x, u)
    assert "differences of its gradient" in found.warnings[0]
    assert np.linalg.norm(found.product - exact) <= found.error
    assert found.error <= 1e-3 * np.linalg.norm(exact)
    assert F.n_evaluations >= 7
    assert found.n_hvp > 0


@pytest.mark.parametrize("kind", ["penalty", "moving bounds"])
def test_where_the_formula_does_not_hold_gradients_are_differenced(kind):
    rng = np.random.default_rng(4)
    A, b = rng.standard_normal((20, 4)), rng.standard_normal(20)
    f = sad.FunctionObjective(
        value=lambda x, y: float(0.5 * np.sum((A @ y - b) ** 2)),
        grad=lambda x, y: A.T @ (A @ y - b),
        hvp=lambda x, y, v: A.T @ (A @ v),
        cross_jvp=lambda x, y, u: 0.0 * y,
        cross_vjp=lambda x, y, w: np.zeros(4),
        n=4,
    )
    if kind == "penalty":
        problem, x = sad.Problem(f, penalty=sad.L1()), np.array([0.5, -0.3, 1.0, 0.2])
    else:
        moving = {"upper_jvp": lambda x, u: u, "upper_vjp": lambda x, w: w}
        problem = sad.Problem(f, upper=lambda x: x, **moving)
        x = np.full(4, 0.05)
    F = sad.Hypergradient(problem, Upper(4, 4), tol=1e-11)
    u = np.array([1.0, 0.5, -0.2, 0.1])
    found = F.hessian_product(x, u)
    h = 1e-4
    expected = (F(x + h * u)[1] - F(x - h * u)[1]) / (2 * h)
    assert close(found.product, expected, 1e-5)
    assert found.error <= 1e-4 * np.linalg.norm(expected)


def test_float32():
    glm, upper, x = glm_problem("logistic")
    A, t = _data_of(glm)
    single = Glm(A.astype(np.float32), t)
    V, s = upper._data.design.features, upper._data.targets
    F = sad.Hypergradient(
        sad.Problem(single), single.held_out(V.astype(np.float32), s), tol=1e-5
    )
    x32, u = x.astype(np.float32), np.ones(glm.m, np.float32)
    found = F.hessp(x32, u)
    assert found.dtype == np.float32
    exact = sad.Hypergradient(sad.Problem(glm), upper, tol=1e-11).hessp(x, np.ones(5))
    assert close(found, exact, 1e-3)


@pytest.mark.parametrize("reach", [1e3, 1.0, 1e-4])
def test_differentiate_finds_the_length_of_a_function(reach):
    """Of exp(t / 1e-3), which overflows or bends far within the first step."""
    pair, error = differentiate(
        lambda t: (np.array([np.exp(t / 1e-3)]), np.array([t, -t])), 1e-16, reach
    )
    assert pair[0] == pytest.approx([1e3], rel=1e-8)
    assert abs(pair[0][0] - 1e3) <= 3 * abs(error[0][0]) + 1e-9
    assert pair[1] == pytest.approx([1.0, -1.0], rel=1e-9)


# SciPy --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["trust-constr", "Newton-CG", "trust-ncg"])
def test_second_order_methods_of_scipy(method):
    glm, upper, x = glm_problem("logistic")
    upper = sad.Sum(upper, sad.prior(-2.0, 1.0, rows=30.0))
    F = sad.Hypergradient(sad.Problem(glm), upper, tol=1e-10)
    gtol = {"xtol": 1e-12} if method == "Newton-CG" else {"gtol": 1e-8}
    found = scipy.optimize.minimize(
        F, x, jac=True, hessp=F.hessp, method=method, options=gtol
    )
    value, gradient = F(found.x)
    assert np.linalg.norm(gradient) <= 1e-6
    first = scipy.optimize.minimize(F, x, jac=True, method="BFGS", tol=1e-8)
    assert value <= first.fun + 1e-9
    # Quadratic convergence: a few Newton steps.
    assert found.nit <= 25
