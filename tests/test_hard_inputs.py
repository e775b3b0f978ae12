"""Small inputs that were once answered wrongly or refused for a wrong reason, each a kind."""

import decimal
import itertools
import math

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.special
from decimal_reference import newton_step
from sklearn.datasets import load_iris

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm
from sparse_argdiff.solvers.stopping import NewtonStep, StoppingTest


def error_of(found, right):
    return np.linalg.norm(found - right) / np.linalg.norm(right)


class Quadratic:
    """½ y'P y − b'y (+ x'y)."""

    def __init__(self, P, b, moves=False):
        self.P, self.b, self.n, self.moves = P, b, b.shape[0], moves

    def value(self, x, y):
        return float(0.5 * y @ (self.P @ y) - self.b @ y + (x @ y if self.moves else 0))

    def grad(self, x, y):
        return self.P @ y - self.b + (x if self.moves else 0.0)

    def hess(self, x, y):
        return self.P

    def cross(self, x, y):
        return np.eye(self.n) if self.moves else np.zeros((self.n, x.shape[0]))


# the units of a QP ----------------------------------------------------------------------


def qp_in_units(seed, scale, n=30, m=12):
    """A sparse A y = b, y >= 0 with few curvatures and a strictly complementary solution."""
    rng = np.random.default_rng(seed)
    A = sp.csr_array(sp.random_array((m, n), density=0.25, rng=rng, format="csr"))
    y = np.where(rng.random(n) < 0.4, rng.random(n) * scale, 0.0)
    nu = rng.standard_normal(m)
    z = np.where(y > 0, 0.0, rng.random(n))
    diagonal = np.where(rng.random(n) < 0.2, 1.0 / scale, 0.0)
    P = sp.csr_array(sp.diags_array(diagonal))
    q = -(P @ y) - A.T @ nu + z
    rows = sad.LinearEquality(A, A @ y)
    return sad.Problem(Quadratic(P, -q, moves=True), equality=rows, lower=0.0)


@pytest.mark.parametrize("seed", range(4))
def test_units_of_a_qp_do_not_change_its_iterations(seed):
    found = {}
    for scale, start in ((1e-4, 0.0), (1.0, 0.0), (1e4, 0.0), (1e4, 1e4)):
        y0 = np.full(30, start)
        found[scale, start] = sad.solve(qp_in_units(seed, scale), np.zeros(30), y0)
    counts = {s.niter for (_, start), s in found.items() if start == 0.0}
    assert max(counts) - min(counts) <= 4  # starts are not in the unit
    assert {s.status for s in found.values()} == {sad.Status.CONVERGED}
    # P and b are in units of their own, the objective value shows the agreement.
    values = [s.value / scale for (scale, _), s in found.items()]
    assert values == pytest.approx([values[0]] * 4, rel=1e-6)


# rows ------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1e-4, 1e-6, 1e-8, 1e-10, 1e-12])
def test_rows_that_nearly_depend(d):
    """Right to what the distance of the rows leaves of the digits; once LINE_SEARCH_FAILED."""
    rng = np.random.default_rng(0)
    n, p = 20, 6
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    H = (Q * np.geomspace(1, 50, n)) @ Q.T
    H, C = (H + H.T) / 2, rng.standard_normal((p, n))
    b = rng.standard_normal(n)
    A = np.vstack([C, C[0] + d * rng.standard_normal(n)])
    c = A @ rng.standard_normal(n)
    # The same rows, their difference without rounding.
    E, e = np.vstack([C, (A[-1] - C[0]) / d]), np.r_[c[:-1], (c[-1] - c[0]) / d]
    K = np.block([[H, E.T], [E, np.zeros((p + 1, p + 1))]])
    y = np.linalg.solve(K, np.r_[b, e])[:n]
    direct = sad.projected_cg(H, A, b, c)
    try:
        problem = sad.Problem(Quadratic(H, b), equality=sad.LinearEquality(A, c))
        solved = sad.solve(problem, np.zeros(1))
    except (sad.ConvergenceError, sad.ConvergenceWarning):
        assert d <= 1e-10  # refused, or told
        return
    allowed = 1e-6 + 1e2 * 2.2e-16 / d
    assert error_of(direct.x, y) <= allowed
    assert error_of(solved.y, y) <= allowed
    if d <= 1e-10:
        assert solved.status is sad.Status.ROUNDING_LIMIT


@pytest.mark.parametrize("seed", [575, 697, 597, 2603])
def test_the_same_row_as_equality_and_inequality(seed):
    """Multipliers of ±1e17 once cancelled, and a residual of 0.0 was rounding."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 9))
    U = np.linalg.qr(rng.standard_normal((n, n)))[0]
    k = 10 ** rng.uniform(0, 2.5)
    Q = (U * np.geomspace(1, 1 / k, n)) @ U.T
    Q, c, a = 0.5 * (Q + Q.T), rng.standard_normal(n), rng.standard_normal((1, n))
    s4 = rng.random(n) * (rng.random() < 0.7)
    f = sad.FunctionObjective(
        value=lambda x, y: float(0.5 * y @ Q @ y + 0.25 * s4 @ y**4 - c @ y),
        grad=lambda x, y: Q @ y + s4 * y**3 - c,
        hvp=lambda x, y, v: Q @ v + 3 * s4 * y**2 * v,
        cross_jvp=lambda x, y, u: 0 * y,
        cross_vjp=lambda x, y, w: 0 * w[:1],
        n=n,
    )
    row = sad.LinearEquality(a, lambda x: x, b_jvp=lambda x, u: u, b_vjp=lambda x, w: w)
    same = sad.Inequality(
        lambda x, y: a @ y - x, lambda x, y: a, jac_x=lambda x, y: -np.eye(1)
    )
    x = np.array([float((a @ np.linalg.solve(Q, c)).sum() * 0.5 - 0.1)])
    alone = sad.Problem(f, equality=row)
    both = sad.Problem(f, equality=row, inequality=same)
    right = sad.solve(alone, x, tol=1e-12)  # the inequality adds nothing
    J = sad.jvp(alone, right, np.ones(1)).y
    try:
        found = sad.solve(both, x)
        tangent = sad.jvp(both, found, np.ones(1))
    except sad.ConvergenceError:
        return
    assert error_of(found.y, right.y) <= 1e-6
    assert error_of(tangent.y, J) <= 1e-6
    assert np.abs(found.multipliers).max() < 1e8


@pytest.mark.parametrize("kind", ["array", "CSR", "float16"])
def test_single_precision_rows_beside_double(kind):
    """They are independent: "no y satisfies C y = c" was false."""
    rng = np.random.default_rng(0)
    n, p = 20, 6
    H, b = np.diag(np.arange(1.0, n + 1)), rng.standard_normal(n)
    c, C = rng.standard_normal(p), rng.standard_normal((p, n)).astype(np.float32)
    rows = {"array": C, "CSR": sp.csr_array(C), "float16": C.astype(np.float16)}[kind]
    if kind == "float16":
        with pytest.raises(TypeError, match="float16"):
            sad.projected_cg(H, rows, b, c)
        with pytest.raises(TypeError, match="float16"):
            sad.LinearEquality(rows, c)
        return
    wide = C.astype(float)
    K = np.block([[H, wide.T], [wide, np.zeros((p, p))]])
    right = np.linalg.solve(K, np.r_[b, c])[:n]
    direct = sad.projected_cg(H, rows, b, c)
    problem = sad.Problem(Quadratic(H, b), equality=sad.LinearEquality(rows, c))
    assert direct.status is sad.Status.CONVERGED
    assert error_of(direct.x, right) <= 1e-7
    assert error_of(sad.solve(problem, np.zeros(1)).y, right) <= 1e-7


# a convex f with an indefinite product ----------------------------------------------------


@pytest.mark.parametrize("n", [10, 20])
def test_an_indefinite_product_is_told_at_little_cost(n):
    """It once took tens of thousands of products."""
    rng = np.random.default_rng(n)
    U = np.linalg.qr(rng.standard_normal((n, n)))[0]
    Q = (U * np.geomspace(1, 0.01, n)) @ U.T
    Q, c = 0.5 * (Q + Q.T), rng.standard_normal(n)
    u = rng.standard_normal(n)
    u /= np.linalg.norm(u)
    G, inside = rng.standard_normal((n // 2, n)), 0.3 * rng.standard_normal(n)
    calls = 0

    def hvp(x, y, v):
        nonlocal calls
        calls += 1
        return Q @ v - 1.5 * u * (u @ v)

    f = sad.FunctionObjective(
        value=lambda x, y: float(0.5 * y @ Q @ y - c @ y),
        grad=lambda x, y: Q @ y - c,
        hvp=hvp,
        n=n,
    )
    rows = sad.Inequality(lambda x, y: G @ (y - inside) - 0.1, lambda x, y: G)
    problem = sad.Problem(f, inequality=rows, lower=inside - 1, upper=inside + 1)
    with pytest.raises(sad.ConvergenceError, match="NEGATIVE_CURVATURE"):
        sad.solve(problem, np.zeros(1))
    assert calls <= 20 * n


# steep at zero ----------------------------------------------------------------------------

E = 1e-8
STEEP = {
    "log": (
        lambda x, y: -x * np.log(y + E) + y * y / 2,
        lambda x, y: -x / (y + E) + y,
        lambda x, y: x / (y + E) ** 2 + 1,
        lambda y: -1 / (y + E),
        2.0,
        0.25,
    ),
    "reciprocal": (
        lambda x, y: x / (y + 1e-5) + y,
        lambda x, y: 1 - x / (y + 1e-5) ** 2,
        lambda x, y: 2 * x / (y + 1e-5) ** 3,
        lambda y: -1 / (y + 1e-5) ** 2,
        2.0 - 1e-5,
        0.25,
    ),
    "exponential": (
        lambda x, y: x * np.exp(-50 * (y - 1)) + y * y / 2,
        lambda x, y: -50 * x * np.exp(-50 * (y - 1)) + y,
        lambda x, y: 2500 * x * np.exp(-50 * (y - 1)) + 1,
        lambda y: -50 * np.exp(-50 * (y - 1)),
        1.1039877697508729,
        1.1039877697508729 / (4 * (50 * 1.1039877697508729 + 1)),
    ),
}


def steep(name):
    v, d1, d2, dx, y, J = STEEP[name]
    f = sad.FunctionObjective(
        value=lambda x, y: float(np.sum(v(x[0], y))),
        grad=lambda x, y: d1(x[0], y),
        hvp=lambda x, y, p: d2(x[0], y) * p,
        cross_jvp=lambda x, y, u: dx(y) * u[0],
        cross_vjp=lambda x, y, w: np.array([dx(y) @ w]),
        n=1,
    )
    return f, y, J


@pytest.mark.parametrize("name", STEEP)
@pytest.mark.parametrize("y0", [1.5, 3.0, 10.0])
def test_steep_at_zero(name, y0):
    """‖f_Y(x, 0)‖ says nothing of the solution; each start was once "CONVERGED"."""
    f, y, J = steep(name)
    problem, x = sad.Problem(f), np.array([4.0])
    with np.errstate(all="ignore"):
        found = sad.solve(problem, x, np.array([y0]))
        assert found.y[0] == pytest.approx(y, rel=1e-6)
        assert sad.jvp(problem, found, np.ones(1)).y[0] == pytest.approx(J, rel=1e-5)
        with pytest.raises(sad.ConvergenceError, match="NOT_STATIONARY"):
            sad.jvp(problem, sad.Solution(y=np.array([50.0]), x=x), np.ones(1))


def test_steep_at_zero_within_a_bound():
    problem = sad.Problem(steep("log")[0], upper=1.0)
    found = sad.solve(problem, np.array([4.0]), np.array([0.5]))
    tangent = sad.jvp(problem, found, np.ones(1))
    assert found.y == pytest.approx([1.0])
    assert found.active.fixed.all()
    assert not found.active.degenerate
    assert tangent.y[0] == 0.0


# single precision, tiny y -----------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 1e-10, 1e-15, 1e-20, 1e-30, 1e10])
def test_single_precision_in_any_unit_of_y(scale):
    """Squares of 1e-20 underflow; the minimiser is scale · b by construction."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((20, 8))
    H = (A.T @ A / 20 + np.eye(8)).astype(np.float32)
    b = rng.standard_normal(8)
    rhs = (H.astype(float) @ b * scale).astype(np.float32)
    f = sad.FunctionObjective(
        value=lambda x, y: float(0.5 * y @ (H @ y) - rhs @ y),
        grad=lambda x, y: H @ y - rhs,
        hvp=lambda x, y, v: H @ v,
        cross_vjp=lambda x, y, w: np.zeros(1, np.float32),
        hess_diag=lambda x, y: H.diagonal().copy(),
        n=8,
    )
    f.dtype = np.float32
    found = sad.solve(sad.Problem(f), np.zeros(1, np.float32))
    assert error_of(found.y / scale, b) <= 1e-5


@pytest.mark.parametrize("scale", [1.0, 1e-10, 1e-16, 1e10])
def test_single_precision_targets_in_any_unit(scale):
    rng = np.random.default_rng(0)
    A = rng.standard_normal((20, 8)).astype(np.float32)
    t = rng.standard_normal(20).astype(np.float32)

    def solve(features, targets, x):
        glm = Glm(features, targets, loss="squared")
        return sad.solve(sad.Problem(glm), x).y

    right = solve(A.astype(float), t.astype(float), np.zeros(8))
    found = solve(A, (scale * t).astype(np.float32), np.zeros(8, np.float32))
    assert error_of(found / scale, right) <= 1e-5


# starts and functions that are not what they say ------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_start_that_is_not_finite_is_refused_by_name(bad):
    problem = sad.Problem(Quadratic(np.eye(3), np.ones(3)))
    with pytest.raises(ValueError, match="y0 must be finite"):
        sad.solve(problem, np.zeros(1), np.array([0.0, bad, 1.0]))
    upper = sad.FunctionUpper(lambda x, y: float(y @ y), lambda x, y: 2 * y)
    with pytest.raises(ValueError, match="y0 must be finite"):
        sad.Hypergradient(problem, upper, y0=np.array([0.0, bad, 1.0]))(np.zeros(1))


def test_a_gradient_that_is_zero_once_is_asked_for_again():
    calls = []

    def grad(x, y):
        calls.append(1)
        return 0.0 * y if len(calls) == 1 else y - 1.0

    f = sad.FunctionObjective(
        grad=grad,
        hvp=lambda x, y, v: v,
        n=2,
    )
    found = sad.solve(sad.Problem(f), np.zeros(1))
    assert found.y == pytest.approx(np.ones(2))


@pytest.mark.parametrize("lies", [1, 2, 3])
def test_a_gradient_that_is_zero_once_does_not_end_under_equalities(lies):
    calls, target = [], np.array([1.0, 0.0])

    def grad(x, y):
        calls.append(1)
        return 0.0 * y if len(calls) == lies else y - target

    f = sad.FunctionObjective(grad=grad, hvp=lambda x, y, v: v, n=2)
    row = sad.LinearEquality(np.ones((1, 2)), np.zeros(1))
    found = sad.solve(sad.Problem(f, equality=row), np.zeros(1))
    assert found.y == pytest.approx(np.array([0.5, -0.5]))


def test_a_zero_gradient_costs_one_more():
    f = Quadratic(np.eye(2), np.zeros(2))
    assert sad.solve(sad.Problem(f), np.zeros(1)).n_grad == 2


def test_barrier_leaves_no_gap_far_from_the_origin():
    """f in units of its distance to the origin: w z within tol of that is √tol of y."""
    s = 24489.7
    Q = np.array([[0.33, -0.06, 0.0], [-0.06, 0.31, 0.01], [0.0, 0.01, 0.21]])
    t = s * np.array([-1.0, 1.0, 1.0]) + np.array([-0.9, -1.7, -2.6])
    problem = sad.Problem(
        Quadratic(Q, Q @ t),
        inequality=sad.Inequality(
            lambda x, y: np.array([y @ np.ones(3) - s - 3.0]),
            lambda x, y: np.ones((1, 3)),
        ),
    )
    found = sad.solve(problem, np.zeros(1), method="barrier")
    assert np.abs(found.y - t).max() <= 1e-7 * s
    assert not found.active.strong.any()


@pytest.mark.parametrize("seed", range(6))
def test_a_preconditioner_that_is_not_symmetric_is_told(seed):
    """The metric of the stopping test is no metric then."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((30, 6))
    t = A @ rng.standard_normal(6) + rng.standard_normal(30)
    glm = Glm(A, t, loss="huber", intercept=False)
    M = np.eye(6) + np.triu(3.0 * rng.standard_normal((6, 6)), 1)
    problem, x = sad.Problem(glm), np.full(6, -2.0)
    right = sad.solve(problem, x).y
    try:
        found = sad.solve(problem, x, M=M)
    except sad.ConvergenceError:
        return
    assert error_of(found.y, right) <= 1e-6


def test_an_active_set_that_fixes_a_variable_without_bounds_is_refused():
    problem = sad.Problem(
        Quadratic(np.eye(3), np.ones(3), moves=True),
        inequality=sad.Inequality(lambda x, y: y[:1] - 5.0, lambda x, y: np.eye(3)[:1]),
    )
    none = np.zeros(1, bool), np.zeros(1, bool)
    fixed = np.array([False, True, False])
    active = sad.ActiveSet(*none, fixed, np.zeros(3, bool))
    found = sad.Solution(y=np.ones(3), x=np.zeros(3), active=active)
    with pytest.raises(ValueError, match="fixed marks 1 variables"):
        sad.jvp(problem, found, np.ones(3))


@pytest.mark.parametrize("method", ["barrier", "active_set"])
def test_an_infimum_at_infinity_beside_forces_at_bounds_is_unbounded(method):
    """f_Y does not vanish on the way: a bound is pushed against."""
    f = sad.FunctionObjective(
        value=lambda x, y: float(np.exp(-y[0]) + y[1] + 0.5 * (y[2] - 1.0) ** 2),
        grad=lambda x, y: np.array([-np.exp(-y[0]), 1.0, y[2] - 1.0]),
        hvp=lambda x, y, v: np.array([np.exp(-y[0]), 0.0, 1.0]) * v,
        n=3,
    )
    problem = sad.Problem(f, lower=np.array([-np.inf, 0.0, -np.inf]))
    with pytest.raises(sad.ConvergenceError, match="UNBOUNDED") as caught:
        sad.solve(problem, np.zeros(1), np.ones(3), method=method)
    assert caught.value.result.niter <= 40


def test_products_that_write_into_y_do_not_change_the_next():
    def cross_vjp(x, y, w):
        out = y * w
        y[...] = 0.5 * y - 0.1
        return out

    f = sad.FunctionObjective(
        grad=lambda x, y: (1.0 + x) * y - 1.0,
        hvp=lambda x, y, v: (1.0 + x) * v,
        cross_vjp=cross_vjp,
        n=3,
    )
    problem, x = sad.Problem(f), np.array([1.0, 2.0, 3.0])
    J = sad.derivative(problem, sad.solve(problem, x))
    first = J.T @ np.ones(3)
    assert np.array_equal(J.T @ np.ones(3), first)
    assert first == pytest.approx(-1.0 / (1.0 + x) ** 2)


# a minimiser that exists --------------------------------------------------------------


@pytest.mark.parametrize("log_penalty", [-18.0, -20.0, -22.0, -24.0])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("standardised", [True, False])
def test_steps_of_rounding_are_no_flight_to_infinity(
    standardised, intercept, log_penalty
):
    """Of four unlike pairs five noisy steps were not shorter each: UNBOUNDED."""
    features, classes = load_iris(return_X_y=True)
    if standardised:
        features = (features - features.mean(axis=0)) / features.std(axis=0)
    glm = Glm(
        features, classes, loss="multinomial", penalty="scalar", intercept=intercept
    )
    problem, x = sad.Problem(glm), np.array([log_penalty])
    found, again = (sad.solve(problem, x, M=M) for M in ("auto", None))
    assert found.status is again.status is sad.Status.CONVERGED
    assert found.niter <= 40
    assert error_of(found.y, again.y) <= 1e-6


def _separable_data():
    rng = np.random.default_rng(1)
    features = rng.standard_normal((40, 4))
    return features, (features @ rng.standard_normal(4) > 0) * 1.0


def _separable(log_penalty, loss="logistic", intercept=False):
    features, classes = _separable_data()
    glm = Glm(features, classes, loss=loss, penalty="scalar", intercept=intercept)
    return glm, np.array([log_penalty])


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("log_penalty", [-45.0, -60.0, -100.0])
def test_a_ridge_is_never_called_unbounded(intercept, log_penalty):
    """However small, it has a minimiser far away, which is found."""
    glm, x = _separable(log_penalty, intercept=intercept)
    assert glm.has_minimiser(x)
    found = sad.solve(sad.Problem(glm), x)
    features, classes = _separable_data()
    if intercept:
        features = np.c_[features, np.ones(40)]
    with decimal.localcontext(prec=80):
        step = newton_step(
            features, 2.0 * classes - 1.0, log_penalty, found.y, free=int(intercept)
        )
    assert step <= found.relative_error <= 1e-6


@pytest.mark.parametrize("intercept", [True, False])
def test_a_ridge_next_to_underflow_is_not_called_unbounded(intercept):
    glm, x = _separable(-600.0, intercept=intercept)
    assert glm.has_minimiser(x)
    found = sad.solve(sad.Problem(glm), x, on_failure="ignore")
    assert found.status is not sad.Status.UNBOUNDED
    assert not found.status.acceptable


def _cosh(a, n=1):
    return sad.FunctionObjective(
        value=lambda x, y: float(np.sum(np.cosh(a * y) - 1.0)),
        grad=lambda x, y: a * np.sinh(a * y),
        hvp=lambda x, y, v: a * a * np.cosh(a * y) * v,
        hess_diag=lambda x, y: a * a * np.cosh(a * y),
        n=n,
    )


@pytest.mark.parametrize(
    ("method", "lower"),
    [
        *itertools.product(("active_set", "barrier"), (0.0, -1e6)),
        ("newton_cg", None),
        ("newton_kkt", None),
    ],
)
@pytest.mark.parametrize("a", [20.0, 50.0])
def test_a_long_fall_is_no_flight_to_infinity(method, lower, a):
    """From y = 1 to 0 by a steps of 1/a, the gradient e times smaller each."""
    problem = sad.Problem(_cosh(a), lower=lower)
    found = sad.solve(problem, np.zeros(1), np.ones(1), method=method)
    assert abs(found.y[0]) <= 1e-8


def _flight_beside_curvature(seed, lower=None, *, diagonal=False, weak=0.0):
    """exp(−p'y), a parabola across p and ½ weak (p'y)²."""
    rng = np.random.default_rng(seed)
    p = rng.standard_normal(5)
    Q = rng.standard_normal((4, 5))
    Q = Q - np.outer(Q @ p, p) / (p @ p)
    Q, c = Q.T @ Q + weak * np.outer(p, p), Q.T @ rng.standard_normal(4)

    def hess_diag(x, y):
        return np.exp(-p @ y) * p * p + np.diag(Q)

    f = sad.FunctionObjective(
        value=lambda x, y: float(np.exp(-p @ y) + 0.5 * y @ Q @ y - c @ y),
        grad=lambda x, y: -np.exp(-p @ y) * p + Q @ y - c,
        hvp=lambda x, y, v: np.exp(-p @ y) * p * (p @ v) + Q @ v,
        hess_diag=hess_diag if diagonal else None,
        n=5,
    )
    return sad.Problem(f, lower=lower), p


@pytest.mark.parametrize("seed", [*range(6), 14, 25, 29, 31])
@pytest.mark.parametrize("method", ["active_set", "barrier", "newton_cg", "newton_kkt"])
@pytest.mark.parametrize("diagonal", [True, False])
def test_a_flight_beside_curvature_is_told(method, seed, diagonal):
    """The steps have rounding along the parabola, which hides what is left of exp(−p'y)."""
    lower = -1e3 if method in {"active_set", "barrier"} else None
    problem, _ = _flight_beside_curvature(seed, lower, diagonal=diagonal)
    found = sad.solve(
        problem, np.zeros(1), np.zeros(5), method=method, on_failure="ignore"
    )
    assert not found.status.acceptable


@pytest.mark.parametrize("a", [5.0, 20.0, 50.0, 100.0, 200.0])
@pytest.mark.parametrize("row", [[0.0, 1.0], [0.6, 0.8], [0.0, 1.7], [0.0, 1.3]])
@pytest.mark.parametrize("y0", [[1.0, 1.0], [1.0, 0.0], [0.1, 1.0]])
def test_a_force_that_a_row_holds_hides_none_that_is_free(a, row, y0):
    """cosh(a y₁) + cosh(a y₂) on a line: of y₂ = 1 the force is e^a / 2."""
    row = np.array(row)
    problem = sad.Problem(
        _cosh(a, 2), equality=sad.LinearEquality(row[None], np.ones(1))
    )
    found = sad.solve(
        problem, np.zeros(1), np.array(y0), method="newton_kkt", on_failure="ignore"
    )
    along = np.array([row[1], -row[0]])
    slope = along @ np.sinh(a * found.y)
    step = slope / (a * along**2 @ np.cosh(a * found.y))
    assert abs(step) <= 1e-7 or not found.status.acceptable
    # A line across may be refused, and a = 200 takes more steps than the limit.
    assert found.status.acceptable or row[0] > 0.0 or a > 100.0


@pytest.mark.parametrize("weak", [1e-3, 1e-6, 1e-8, 1e-10])
@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_a_flight_that_ends_in_a_weak_curvature_is_none(seed, diagonal, weak):
    """exp(−t) + ½ weak t²: steps of one length down to t exp(t) = 1 / weak."""
    problem, p = _flight_beside_curvature(seed, diagonal=diagonal, weak=weak)
    found = sad.solve(problem, np.zeros(1), np.zeros(5), method="newton_cg")
    exact = float(scipy.special.lambertw(1.0 / weak).real)
    assert p @ found.y == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("method", ["active_set", "barrier", "newton_cg", "newton_kkt"])
def test_a_flight_to_infinity_is_told(method):
    f = sad.FunctionObjective(
        value=lambda x, y: float(np.exp(-y).sum()),
        grad=lambda x, y: -np.exp(-y),
        hvp=lambda x, y, v: np.exp(-y) * v,
        hess_diag=lambda x, y: np.exp(-y),
        n=1,
    )
    bounds = {"lower": 0.0} if method in {"active_set", "barrier"} else {}
    problem = sad.Problem(f, **bounds)
    found = sad.solve(
        problem, np.zeros(1), np.ones(1), method=method, on_failure="ignore"
    )
    assert found.status is sad.Status.UNBOUNDED


def test_stationary_points_heed_the_limit_and_the_callback():
    problem, x, seen = sad.Problem(_cosh(1.0)), np.zeros(1), []
    options = {"method": "newton_kkt", "on_failure": "ignore"}
    found = sad.solve(problem, x, np.full(1, 3.0), maxiter=2, **options)
    assert found.status is sad.Status.ITERATION_LIMIT
    assert found.niter == 2

    def stop(iterate):
        seen.append(iterate.niter)
        return iterate.niter == 1

    found = sad.solve(problem, x, np.full(1, 3.0), callback=stop, **options)
    assert found.status is sad.Status.STOPPED_BY_CALLBACK
    assert seen == [0, 1]


@pytest.mark.parametrize("method", ["active_set", "barrier"])
@pytest.mark.parametrize("seed", [1, 5, 6, 9, 12, 20])
def test_a_ridge_in_a_wide_box_is_never_called_unbounded(seed, method):
    """The entries of the Hessian of so few variables are formed: who knows of the ridge?"""
    rng = np.random.default_rng(seed)
    features, classes = rng.standard_normal((5, 6)), np.sign(rng.standard_normal(5))
    glm = Glm(features, classes, loss="logistic", penalty="scalar", intercept=False)
    problem = sad.Problem(glm, lower=np.full(6, -1e3), upper=np.full(6, 1e3))
    x = np.array([-32.0])
    found = sad.solve(problem, x, method=method, on_failure="ignore")
    assert found.status in {sad.Status.CONVERGED, sad.Status.STAGNATED}
    if found.status.acceptable:
        assert error_of(found.y, sad.solve(sad.Problem(glm), x).y) <= 1e-6


@pytest.mark.parametrize("seed", [2, 3, 8, 9])
def test_the_parabola_at_the_start_proves_nothing_of_another_function(seed):
    """Its curvature is the ridge alone along what no residual within Huber's bend tells."""
    rng = np.random.default_rng(seed)
    features, targets = rng.standard_normal((4, 7)), rng.standard_normal(4)
    glm = Glm(features, targets, loss="huber", penalty="scalar", intercept=False)
    problem = sad.Problem(glm, lower=np.zeros(7))
    found = sad.solve(problem, np.array([-24.0]))
    pull = problem.grad(found.x, found.y)
    size = np.linalg.norm(problem.grad(found.x, 0.0 * found.y))
    assert np.abs(np.minimum(found.y, pull)).max() <= 1e-6 * size


@pytest.mark.parametrize("seed", range(5))
def test_a_gradient_that_lies_once_does_not_set_the_length(seed):
    """‖y‖ in the metric of f_YY was carried along by it, and met any tolerance."""
    rng, calls = np.random.default_rng(seed), []
    A, q = rng.standard_normal((20, 4)), rng.standard_normal(4)
    P = A.T @ A / 20

    def grad(x, y):
        calls.append(y)
        return (P @ y + x[0] * q) * (1e12 if len(calls) == 1 else 1.0)

    objective = sad.FunctionObjective(
        value=lambda x, y: 0.5 * y @ P @ y + x[0] * q @ y,
        grad=grad,
        hvp=lambda x, y, v: P @ v,
        cross_vjp=lambda x, y, w: q @ w,
        n=4,
    )
    found = sad.solve(sad.Problem(objective), np.ones(1), M=None, on_failure="ignore")
    if found.status.acceptable:
        assert error_of(found.y, np.linalg.solve(P, -q)) <= 1e-7


def test_the_folds_of_a_ridge_are_never_called_unbounded():
    glm, x = _separable(-100.0)
    problem, _ = glm.cross_validation(4)
    assert problem.has_minimiser(x)
    assert sad.solve(problem, x).status is sad.Status.CONVERGED


@pytest.mark.parametrize("intercept", [True, False])
def test_separable_classes_without_a_ridge_are_unbounded(intercept):
    glm, x = _separable(-800.0, intercept=intercept)  # e^−800 is 0
    assert not glm.has_minimiser(x)
    found = sad.solve(sad.Problem(glm), x, on_failure="ignore")
    assert found.status is sad.Status.UNBOUNDED


def test_a_maximum_and_an_offset_of_no_ridge_are_not_known_to_exist():
    glm, x = _separable(-1.0)
    assert sad.Problem(glm).has_minimiser(x)
    assert not sad.Problem(glm, maximize=True).has_minimiser(x)
    features = np.random.default_rng(0).standard_normal((20, 3))
    offset = np.array([0.0, -np.inf, 0.0])
    free = Glm(
        features, features[:, 0], loss="squared", penalty="scalar", log_offset=offset
    )
    assert not free.has_minimiser(np.zeros(1))


def test_noisy_steps_of_a_steady_gradient_are_no_flight_to_infinity():
    """The stopping test alone: six steps, none shorter, and a gradient that does not fall."""

    def ends(fall):
        test = StoppingTest(1e-16, None, None)
        test.square, gradient, y = 1.0, 1e-2, np.ones(2)
        statuses = []
        for lam in [1.0, *(1e-10 * fall**k for k in range(8))]:
            test.moved(y, 1.0, lam)
            new = fall * gradient
            shown = NewtonStep(lam, 0.0, gradient, new, 0.1 * gradient, 1.0)
            statuses.append(test.after(shown))
            gradient = new
        return statuses

    assert sad.Status.UNBOUNDED in ends(math.exp(-1.0))
    assert sad.Status.UNBOUNDED not in ends(1.0)


def _steps_that_fall(fall):
    """What the stopping test says of steps of 1e-6 |y| and less, fall(k) times the last."""
    test = StoppingTest(1e-8, None, None)
    test.square, lam = 1.0, 1e-6
    for k in range(300):
        new = lam * fall(k)
        status = test.after(NewtonStep(lam, 0.0, lam, new, new, 1.0))
        if status is not None:
            return status, test.error, new
        lam = new
    return None, test.error, lam


@pytest.mark.parametrize("rate", [0.99, 0.9, 0.6])
@pytest.mark.parametrize("ripple", [0.0, 0.3])
def test_steps_that_each_fall_by_a_percent_are_not_converged(rate, ripple):
    """They leave rate / (1 − rate) times their length."""
    shares = rate * np.exp(ripple * np.array([0.0, 1.0, 0.0, -1.0]))
    status, _, last = _steps_that_fall(lambda k: shares[k % 4])
    assert status is None or last * rate / (1.0 - rate) <= 1e-8


def test_steps_that_only_jitter_are_at_rounding():
    random = np.random.default_rng(0)
    status, error, _ = _steps_that_fall(lambda k: math.exp(random.uniform(-0.6, 0.6)))
    assert status is sad.Status.ROUNDING_LIMIT
    assert error > 1e-8


@pytest.mark.parametrize(("power", "ends"), [(4, "CONVERGED"), (10, "ITERATION_LIMIT")])
def test_a_minimum_without_curvature_is_approached_by_a_fixed_share(power, ends):
    """Newton's method leaves (p − 2) / (p − 1) of y − x for (y − x)^p each step."""
    f = sad.FunctionObjective(
        value=lambda x, y: float(np.sum((y - x) ** power)),
        grad=lambda x, y: power * (y - x) ** (power - 1),
        hvp=lambda x, y, v: power * (power - 1) * (y - x) ** (power - 2) * v,
        hess_diag=lambda x, y: power * (power - 1) * (y - x) ** (power - 2),
        n=2,
    )
    x = np.array([1.0, 2.0])
    found = sad.solve(sad.Problem(f), x, np.zeros(2), on_failure="ignore")
    assert found.status.name == ends
    assert ends != "CONVERGED" or np.abs(found.y - x).max() <= 1e-8
