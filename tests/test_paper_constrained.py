"""The paper's section 4 but the soft-max: capabilities C12 to C15 and C24.

Both lemmas of 4.1, the log-barrier of 4.2 and its example 4.3, against dense algebra,
closed forms and differences of solutions found by another Newton method.
"""

from __future__ import annotations

import warnings

import numpy as np
import paper_reference as ref
import pytest
import scipy.linalg
import scipy.sparse
from _scalar import Mean, barrier_mean
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

import sparse_argdiff as sad
from sparse_argdiff import Inequality, LinearEquality, Problem, Solution, Status

TIGHT = {"rtol": 1e-13}


class Convex:
    """f = ½ y'Qy + ¼ Σ y⁴ − y'Bx: smooth, with a Q of the user's choice."""

    def __init__(self, Q, B, quartic=1.0):
        self.Q, self.B, self.quartic, self.n = Q, B, quartic, Q.shape[0]

    def value(self, x, y):
        quartic = 0.25 * self.quartic * float(np.sum(y**4))
        return float(0.5 * y @ self.Q @ y) + quartic - float(y @ (self.B @ x))

    def grad(self, x, y):
        return self.Q @ y + self.quartic * y**3 - self.B @ x

    def hess(self, x, y):
        return self.Q + np.diag(3.0 * self.quartic * y**2)

    def cross(self, x, y):
        return -self.B


def random_problem(n, p, m, seed, kind="definite"):
    """Return f, A, b and x; H is definite, singular or indefinite, and so on null(A)."""
    rng = np.random.default_rng(seed)
    A, b = rng.standard_normal((p, n)), rng.standard_normal(p)
    root = rng.standard_normal((n, n))
    Q = root @ root.T / n + 0.3 * np.eye(n)
    quartic = 0.5
    if kind != "definite":
        F = scipy.linalg.null_space(A)
        outside = np.eye(n) - F @ F.T
        Q = F @ (F.T @ Q @ F) @ F.T  # zero on the rows of A
        quartic = 0.0
        if kind == "indefinite":
            Q = Q - 3.0 * outside
    f = Convex(Q, rng.standard_normal((n, m)), quartic)
    return f, A, b, rng.standard_normal(m)


def reference(f, A, b, x):
    return ref.kkt_newton(
        lambda y: f.grad(x, y),
        lambda y: f.hess(x, y),
        lambda y: A,
        lambda y: A @ y - b,
        np.zeros(f.n),
    )


# 4.1: linear equalities -------------------------------------------------------------------


@settings(max_examples=25, deadline=None, database=None, derandomize=True)
@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 10**6), st.data())
def test_lemmas_4_1_and_4_2_agree(n, m, seed, data):
    """C12, C13: null space, Schur complement and (56): one J, A J = 0, multipliers too."""
    p = data.draw(st.integers(1, n - 1))
    f, A, b, x = random_problem(n, p, m, seed)
    y, nu = reference(f, A, b, x)
    problem = Problem(f, equality=LinearEquality(A, b))
    solution = sad.solve(problem, x, tol=1e-13)
    size = max(1.0, np.linalg.norm(y), np.linalg.norm(nu))
    assert np.linalg.norm(solution.y - y) <= 1e-9 * size
    H, B = f.hess(x, y), f.cross(x, y)
    null, schur = ref.lemma_4_1(H, A, B), ref.lemma_4_2(H, A, B)
    by_y, by_nu = ref.equation_56(H, A, B)
    condition = np.linalg.cond(A) ** 2 * np.linalg.cond(H)
    if condition > 1e5:
        return  # the dense formulas lose their digits themselves
    assert ref.worst(null, schur) <= 1e-10
    assert ref.worst(null, by_y) <= 1e-10
    for method in ("projected_cg", "minres"):
        J = sad.derivative(problem, solution, method=method, **TIGHT).todense()
        assert ref.worst(J, null) <= 1e-9
        if method == "projected_cg":
            assert (
                np.abs(A @ J).max()
                <= 1e-12 * max(1.0, np.abs(J).max()) * np.abs(A).max()
            )
    u = np.random.default_rng(seed).standard_normal(m)
    tangent = sad.jvp(problem, solution, u, **TIGHT).tangent
    assert ref.worst(tangent[:n], by_y @ u) <= 1e-9
    assert ref.worst(tangent[n:], by_nu @ u) <= 1e-8


@pytest.mark.parametrize("kind", ["singular", "indefinite"])
@pytest.mark.parametrize("n", [3, 12, 60])
def test_hessian_regular_on_the_null_space_alone(kind, n):
    """C12, C13: Lemma 4.1 and (56) hold; Lemma 4.2 asks for H^-1, which may not exist."""
    f, A, b, x = random_problem(n, 2, 3, n, kind)
    y, _ = reference(f, A, b, x)
    problem = Problem(f, equality=LinearEquality(A, b))
    solution = sad.solve(problem, x, np.zeros(n), tol=1e-12)
    assert ref.worst(solution.y, y) <= 1e-9
    J = sad.derivative(problem, solution, **TIGHT).todense()
    assert ref.worst(J, ref.lemma_4_1(f.Q, A, -f.B)) <= 1e-9
    assert np.abs(A @ J).max() <= 1e-12 * np.abs(A).max() * np.abs(J).max()
    slopes = ref.differences(lambda x: reference(f, A, b, x)[0], x)
    assert ref.worst(J, slopes) <= 1e-6
    if kind == "singular":
        assert np.linalg.matrix_rank(f.Q) == n - 2  # no H^-1 for (59)
    with pytest.raises(sad.ConvergenceError):  # CG on all of R^n is not the way
        sad.derivative(Problem(f), Solution(y=y, x=x), stationarity=1e9).todense()


def test_a_dependent_row_is_harmless_and_a_contradiction_is_named():
    """C12, C13: rank(A) = m is not needed, only that the rows agree."""
    f, A, b, x = random_problem(8, 2, 3, 5)
    y, _ = reference(f, A, b, x)
    twice, right = np.vstack([A, A[0] - 2.0 * A[1]]), np.r_[b, b[0] - 2.0 * b[1]]
    problem = Problem(f, equality=LinearEquality(twice, right))
    solution = sad.solve(problem, x, tol=1e-12)
    J = sad.derivative(problem, solution, **TIGHT).todense()
    assert ref.worst(solution.y, y) <= 1e-9
    assert ref.worst(J, ref.lemma_4_1(f.hess(x, y), A, -f.B)) <= 1e-9
    wrong = Problem(f, equality=LinearEquality(twice, right + np.array([0, 0, 1.0])))
    with pytest.raises(sad.ConvergenceError) as caught:
        sad.solve(wrong, x, tol=1e-10)
    assert caught.value.status is Status.INFEASIBLE


def test_no_rows_at_all_is_lemma_3_2():
    """After Lemma 4.2 the paper says "A = 0": it means none (X10); F = I in Lemma 4.1."""
    f, _, _, x = random_problem(6, 1, 2, 3)
    empty = LinearEquality(np.zeros((0, 6)), np.zeros(0))
    plain = sad.solve(Problem(f), x, tol=1e-13)
    solution = sad.solve(Problem(f, equality=empty), x, np.zeros(6), tol=1e-13)
    J = sad.derivative(Problem(f, equality=empty), solution, **TIGHT).todense()
    lemma = ref.lemma_3_2(f.hess(x, plain.y), -f.B)
    assert ref.worst(J, lemma) <= 1e-10
    A = np.zeros((1, 6))  # and with A = 0 there is no (A H^-1 A')^-1
    with pytest.raises(np.linalg.LinAlgError):
        ref.lemma_4_2(f.hess(x, plain.y), A, -f.B)


# 4.2: the log-barrier ----------------------------------------------------------------------


class Moving:
    """min ½‖y − p(x)‖² in the ball ‖y − c(x)‖² <= 1 and the half-space y_0 <= x_2.

    The constraints move with x: φ_XY is not zero.
    """

    n = 2

    def __init__(self):
        self.rows = Inequality(
            self.h,
            lambda x, y: np.vstack([2.0 * (y - self.centre(x)), [1.0, 0.0]]),
            hess=lambda x, y, nu: 2.0 * nu[0] * np.eye(2),
            cross=lambda x, y, nu: -2.0 * nu[0] * self.dcentre(x),
            jac_x=lambda x, y: np.vstack(
                [-2.0 * (y - self.centre(x)) @ self.dcentre(x), [0.0, 0.0, -1.0]]
            ),
        )

    def centre(self, x):
        return np.array([0.3 * x[0], 0.2 * x[0] * x[1]])

    def dcentre(self, x):
        return np.array([[0.3, 0.0, 0.0], [0.2 * x[1], 0.2 * x[0], 0.0]])

    def h(self, x, y):
        d = y - self.centre(x)
        return np.array([d @ d - 1.0, y[0] - x[2]])

    def pull(self, x):
        return np.array([2.0 * np.cos(x[0]), 1.5 + x[1]])

    def value(self, x, y):
        return 0.5 * float(np.sum((y - self.pull(x)) ** 2))

    def grad(self, x, y):
        return y - self.pull(x)

    def hess(self, x, y):
        return np.eye(2)

    def cross(self, x, y):
        return np.array([[2.0 * np.sin(x[0]), 0.0, 0.0], [0.0, -1.0, 0.0]])

    def barrier_point(self, x, t, y):
        """Return g_t(x) by Newton on (61), written out."""

        def grad(y):
            h, jac = self.h(x, y), self.rows.rows.jac(x, y)
            if not np.all(h < 0.0):
                return np.full(2, np.nan)
            return t * self.grad(x, y) - jac.T @ (1.0 / h)

        def hess(y):
            h, jac = self.h(x, y), self.rows.rows.jac(x, y)
            return t * np.eye(2) + (jac.T / h**2) @ jac - 2.0 / h[0] * np.eye(2)

        return ref.newton(grad, hess, y)

    def path(self, x, t):
        """Return g_t(x), followed from t = 1."""
        y = self.centre(x) - np.array([0.5, 0.0])
        for weight in np.geomspace(1.0, t, 1 + int(4 * np.log10(t))):
            y = self.barrier_point(x, weight, y)
        return y


MOVING = Moving()
MOVING_PROBLEM = Problem(MOVING, inequality=MOVING.rows)
MOVING_X = np.array([0.4, 0.3, 0.25])


def barrier_path(problem, x, y, weights):
    """Return the solution for the last weight, each from the one before."""
    for t in weights:
        near = sad.LogBarrier(problem, t)
        solution = sad.solve(near, x, y, tol=1e-12, on_failure="ignore")
        y = solution.y
    return near, solution


@pytest.mark.parametrize("t", [1.0, 10.0, 1e3, 1e5])
def test_barrier_derivative(t):
    """(60) to (64), C14: J_t to 1e-8, with constraints that depend on x."""
    start = MOVING.centre(MOVING_X) - np.array([0.5, 0.0])
    weights = np.geomspace(1.0, t, 1 + int(4 * np.log10(t)))
    near, solution = barrier_path(MOVING_PROBLEM, MOVING_X, start, weights)
    y = MOVING.path(MOVING_X, t)
    assert ref.worst(solution.y, y) <= 1e-9
    J = sad.derivative(near, solution, **TIGHT).todense()
    # (64) from its pieces, signs of the corrected (62) and (63).
    h, jac = MOVING.h(MOVING_X, y), MOVING.rows.rows.jac(MOVING_X, y)
    phi_yy = -(jac.T / h**2) @ jac + 2.0 / h[0] * np.eye(2)
    jac_x = MOVING.rows.rows.jac_x(MOVING_X, y)
    phi_xy = -(jac.T / h**2) @ jac_x - 2.0 / h[0] * MOVING.dcentre(MOVING_X)
    f_yy, f_xy = np.eye(2), MOVING.cross(MOVING_X, y)
    assert ref.worst(J, -np.linalg.solve(t * f_yy - phi_yy, t * f_xy - phi_xy)) <= 1e-8
    slopes = ref.differences(lambda x: MOVING.path(x, t), MOVING_X, 1e-4)
    assert ref.worst(J, slopes) <= 1e-6
    dropped = -np.linalg.solve(t * f_yy - phi_yy, t * f_xy)
    assert np.abs(J - dropped).max() > 0.1  # φ_XY may not be left out here


def test_barrier_error_falls_as_one_over_t():
    """C14: ratio 10 within 10 % a decade from t = 10³; multipliers −1/(t h) likewise."""
    exact = sad.solve(MOVING_PROBLEM, MOVING_X, method="active_set", tol=1e-12)
    assert bool(exact.active.strong.all())  # both rows hold
    J = sad.derivative(MOVING_PROBLEM, exact, **TIGHT).todense()
    errors, gaps = [], []
    for t in (1e3, 1e4, 1e5, 1e6):
        y = MOVING.path(MOVING_X, t)
        near = sad.LogBarrier(MOVING_PROBLEM, t)
        solution = sad.solve(near, MOVING_X, y, tol=1e-12, on_failure="ignore")
        ours = sad.derivative(near, solution, on_failure="warn", **TIGHT).todense()
        errors.append(np.abs(ours - J).max())
        estimate = -1.0 / (t * MOVING.h(MOVING_X, solution.y))
        gaps.append(np.abs(estimate - exact.multipliers).max())
    for falls in (errors, gaps):
        ratios = np.array(falls[:-1]) / np.array(falls[1:])
        assert ratios == pytest.approx(10.0, rel=0.1)


def test_exact_inequalities_against_slsqp():
    """4.2 exactly: y, multipliers and J by the active set, y also by SciPy's SLSQP."""
    exact = sad.solve(MOVING_PROBLEM, MOVING_X, method="active_set", tol=1e-12)

    def solve(x):
        found = optimize.minimize(
            lambda y: MOVING.value(x, y),
            exact.y,
            jac=lambda y: MOVING.grad(x, y),
            constraints={
                "type": "ineq",
                "fun": lambda y: -MOVING.h(x, y),
                "jac": lambda y: -MOVING.rows.rows.jac(x, y),
            },
            method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 200},
        )
        return found.x

    assert ref.worst(exact.y, solve(MOVING_X)) <= 1e-7
    J = sad.derivative(MOVING_PROBLEM, exact, **TIGHT).todense()
    assert ref.worst(J, ref.differences(solve, MOVING_X, 1e-3)) <= 1e-4
    by_path = sad.solve(MOVING_PROBLEM, MOVING_X, method="barrier", tol=1e-8)
    assert ref.worst(by_path.y, exact.y) <= 1e-6


def test_duality_gap_of_the_barrier():
    """(61): t bounds the gap, f(g_t) − f(g) <= m / t with m rows."""
    exact = sad.solve(MOVING_PROBLEM, MOVING_X, method="active_set", tol=1e-12)
    best = MOVING.value(MOVING_X, exact.y)
    for t in (1.0, 1e2, 1e4):
        gap = MOVING.value(MOVING_X, MOVING.path(MOVING_X, t)) - best
        assert 0.0 < gap <= 2.0 / t


def test_a_cold_start_at_a_large_weight_is_not_believed():
    """Section 3 of the verification: it may end elsewhere, but then it says so."""
    rows = Inequality(
        lambda x, y: np.array([y @ y - 1.0]),
        lambda x, y: 2.0 * y[None],
        hess=lambda x, y, nu: 2.0 * nu[0] * np.eye(y.size),
    )
    f = Convex(np.eye(2), np.eye(2) * 30.0, 0.0)
    problem, x = Problem(f, inequality=rows), np.array([-0.6, 0.8])
    near = sad.LogBarrier(problem, 1e6)
    for start in (np.zeros(2), np.array([0.999, 0.0]), np.array([0.6, -0.79])):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                solution = sad.solve(near, x, start, tol=1e-9)
            except sad.ConvergenceError:
                continue
        assert said or ref.worst(solution.y, x) <= 1e-5


# 4.3: positivity ----------------------------------------------------------------------------

MEANS = [-3.0, -1.0, -0.1, -1e-3, 0.0, 1e-3, 0.05, 0.5, 2.0, 10.0]
WEIGHTS = [0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e6]


@pytest.mark.parametrize("m", [1, 4])
@pytest.mark.parametrize("t", WEIGHTS)
def test_positive_mean(m, t):
    """(65) to (71), C15: g_t and g_t' to 1e-10 relative over 10 means and 7 weights."""
    spread = np.arange(m) - 0.5 * (m - 1)
    mean = Mean(lambda x: x + spread, lambda x: 1.0 + 0.5 * spread)
    near = sad.LogBarrier(mean.positive(), t)
    for hbar in MEANS:
        x = np.array([hbar])
        g, slope = barrier_mean(hbar, 1.0, m, t)
        # From a start on the safe side: larger than g_t, where f_Y is convex in y.
        solution = sad.solve(near, x, np.array([1.5 * g]), tol=1e-14, on_failure="warn")
        assert solution.y[0] == pytest.approx(g, rel=1e-10)
        J = sad.derivative(near, solution, **TIGHT).todense()[0, 0]
        assert pytest.approx(slope, rel=1e-10) == J
        printed = 2.0 * t * np.sum(mean.dh(hbar)) / (2.0 * t * m + 1.0 / g**2)
        assert pytest.approx(printed, rel=1e-10) == J  # (71) at g_t, not at g (X4)
        assert 0.0 <= g - max(hbar, 0.0) <= np.sqrt(0.5 / (t * m)) * (1.0 + 1e-15)


def test_positive_mean_exactly():
    """(66) and (72): g and g' where the mean is not zero."""
    mean = Mean(lambda x: np.array([x - 1.0, 2.0 * x]), lambda x: np.array([1.0, 2.0]))
    for x, y, slope in ((1.0, 1.0, 1.5), (-1.0, 0.0, 0.0)):
        solution = sad.solve(mean.positive(), np.array([x]), np.ones(1), tol=1e-13)
        assert solution.y[0] == pytest.approx(y, abs=1e-12)
        J = sad.derivative(mean.positive(), solution, **TIGHT).todense()[0, 0]
        assert pytest.approx(slope, abs=1e-12) == J


@pytest.mark.parametrize("t", WEIGHTS)
def test_figure_3_at_zero(t):
    """C15, C24, X5: g_t'(0) = 1/2 for every t, the mean of the slopes 0 and 1."""
    mean = Mean(lambda x: np.array([x]), lambda x: np.ones(1))
    near = sad.LogBarrier(mean.positive(), t)
    solution = sad.solve(near, np.zeros(1), np.ones(1), tol=1e-14)
    J = sad.derivative(near, solution, **TIGHT).todense()[0, 0]
    assert pytest.approx(0.5, abs=1e-10) == J


# section 6: functions that are not smooth ---------------------------------------------------


def test_weak_activity_is_said_and_has_one_sided_derivatives():
    """C24: max(0, x) at 0; the solution is weakly active, and the derivative one-sided."""
    mean = Mean(lambda x: np.array([x]), lambda x: np.ones(1))
    problem, here = mean.positive(), Solution(y=np.zeros(1), x=np.zeros(1))
    tangent = sad.jvp(problem, here, np.ones(1))
    assert tangent.y[0] in {0.0, 1.0}
    assert any("one-sided" in note for note in tangent.warnings)


def soft_threshold(x):
    return np.sign(x) * np.maximum(np.abs(x) - 1.0, 0.0)


def smoothed(width):
    """Return ½‖y − x‖² + Σ √(y² + width²): |y| made differentiable."""
    return sad.FunctionObjective(
        value=lambda x, y: float(np.sum(0.5 * (y - x) ** 2 + np.hypot(y, width))),
        grad=lambda x, y: y - x + y / np.hypot(y, width),
        hvp=lambda x, y, v: v + width**2 / np.hypot(y, width) ** 3 * v,
        hess_diag=lambda x, y: 1.0 + width**2 / np.hypot(y, width) ** 3,
        cross_jvp=lambda x, y, u: -u,
        cross_vjp=lambda x, y, w: -w,
        n=5,
    )


def test_not_smooth_by_smoothing():
    """C24: ½(y − x)² + |y| smoothed; y and g' of soft thresholding as the width falls."""
    x = np.array([-2.5, -0.4, 0.0, 0.7, 3.0])
    exact = np.where(np.abs(x) > 1.0, 1.0, 0.0)
    errors = []
    for width in (1e-1, 1e-2, 1e-3):
        problem = Problem(smoothed(width))
        solution = sad.solve(problem, x, tol=1e-11)
        J = sad.derivative(problem, solution, **TIGHT).todense()
        errors.append(
            (
                np.abs(solution.y - soft_threshold(x)).max(),
                np.abs(np.diag(J) - exact).max(),
            )
        )
        assert np.abs(J - np.diag(np.diag(J))).max() <= 1e-12
    errors = np.array(errors)
    assert np.all(errors[1:] < 0.2 * errors[:-1])
    assert errors[-1, 0] <= 1e-2 >= errors[-1, 1]
    kink = Problem(smoothed(1e-3))  # at the kink |x| = 1 it is between the two slopes
    there = sad.solve(kink, np.array([1.0, -1.0, 1.0, -1.0, 1.0]), tol=1e-11)
    middle = np.diag(sad.derivative(kink, there, **TIGHT).todense())
    assert np.all((middle > 0.0) & (middle < 1.0))


def test_not_smooth_by_a_nearby_differentiable_point():
    """C24: at a kink of g, x + δ has a derivative: that of its side."""
    split = Problem(  # y = p − q with p, q >= 0: |y| = p + q is linear
        sad.FunctionObjective(
            value=lambda x, z: float(
                0.5 * np.sum((z[:2] - z[2:] - x) ** 2) + np.sum(z) + 5e-10 * z @ z
            ),
            grad=lambda x, z: (
                np.r_[z[:2] - z[2:] - x, x - z[:2] + z[2:]] + 1.0 + 1e-9 * z
            ),
            hvp=lambda x, z, v: np.r_[v[:2] - v[2:], v[2:] - v[:2]] + 1e-9 * v,
            cross_jvp=lambda x, z, u: np.r_[-u, u],
            cross_vjp=lambda x, z, w: w[2:] - w[:2],
            n=4,
        ),
        lower=0.0,
    )
    pick = np.hstack([np.eye(2), -np.eye(2)])
    for delta, slope in ((1e-3, 1.0), (-1e-3, 0.0)):
        x = np.array([1.0, 2.0]) + delta
        z = np.r_[soft_threshold(x), 0.0, 0.0]
        J = pick @ sad.derivative(split, Solution(y=z, x=x), **TIGHT).todense()
        assert ref.worst(J, np.diag([slope, 1.0])) <= 1e-6
    at_kink = Solution(y=np.array([0.0, 1.0, 0.0, 0.0]), x=np.array([1.0, 2.0]))
    found = sad.jvp(split, at_kink, np.ones(2))
    assert any("one-sided" in note for note in found.warnings)
