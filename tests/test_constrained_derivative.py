"""g'(x) under constraints: against dense algebra, differences and the paper's lemmas.

Solutions come from a dense Newton method written here: differentiating asks for a
solution, not for a solver.
"""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

import sparse_argdiff as sad
from sparse_argdiff import Equality, Inequality, LinearEquality, Problem, Solution


class Quartic:
    """f = ½ y'Qy + ¼ e^{x_0} Σ y⁴ − (B x)'y: convex where Q is, x enters twice."""

    def __init__(self, Q, B, quartic=1.0):
        self.Q, self.B, self.n, self.quartic = Q, B, Q.shape[0], quartic

    def value(self, x, y):
        quartic = 0.25 * self.quartic * np.exp(x[0]) * np.sum(y**4)
        return float(0.5 * y @ self.Q @ y + quartic - y @ (self.B @ x))

    def grad(self, x, y):
        return self.Q @ y + self.quartic * np.exp(x[0]) * y**3 - self.B @ x

    def hess(self, x, y):
        return self.Q + np.diag(3.0 * self.quartic * np.exp(x[0]) * y**2)

    def cross(self, x, y):
        cross = -self.B.copy()
        cross[:, 0] += self.quartic * np.exp(x[0]) * y**3
        return cross


@dataclasses.dataclass(frozen=True)
class Row:
    """A problem, a point x, and the rows and variables that are active there."""

    problem: Problem
    x: np.ndarray
    active: tuple = ()  # of the inequality rows
    fixed: tuple = ()  # (variable, value)


def newton(row, x, y):
    """Solve the KKT equations of the active rows by dense Newton; return y, multipliers."""
    problem, n = row.problem, y.size
    p = 0 if problem.equalities is None else problem.equalities.value(x, y).size
    q = 0 if problem.inequalities is None else problem.inequalities.value(x, y).size
    held = [j for j, _ in row.fixed]
    free = np.setdiff1d(np.arange(n), held)
    keep = np.r_[np.arange(p), p + np.array(row.active, dtype=int)]
    y, nu = y.copy(), np.zeros(p + q)
    for j, value in row.fixed:
        y[j] = value
    for _ in range(60):
        H = problem.hess(x, y).todense()
        jac, h = np.zeros((0, n)), np.zeros(0)
        for stack, part in (
            (problem.equalities, nu[:p]),
            (problem.inequalities, nu[p:]),
        ):
            if stack is not None:
                J = stack.jac(x, y)
                J = J.toarray() if scipy.sparse.issparse(J) else J
                J = J if isinstance(J, np.ndarray) else J.todense()
                jac, h = np.vstack([jac, J]), np.r_[h, stack.value(x, y)]
                bend = stack.hess(x, y, part)
                H = H if bend is None else H + bend.todense()
        C = jac[keep][:, free]
        k = len(keep)
        K = np.block([[H[np.ix_(free, free)], C.T], [C, np.zeros((k, k))]])
        grad = problem.grad(x, y) + jac.T @ nu
        step = np.linalg.lstsq(K, -np.r_[grad[free], h[keep]], rcond=1e-13)[0]
        y[free] += step[: free.size]
        nu[keep] += step[free.size :]
        if np.linalg.norm(step) <= 1e-15 * (1.0 + np.linalg.norm(y)):
            break
    return y, nu


def differences(row, y, h=1e-4):
    """Fourth-order central differences of the solution map, (n, m)."""
    columns = []
    for e in np.eye(row.x.size):
        ys = [newton(row, row.x + s * h * e, y)[0] for s in (-2, -1, 1, 2)]
        columns.append((ys[0] - 8 * ys[1] + 8 * ys[2] - ys[3]) / (12 * h))
    return np.column_stack(columns)


RNG = np.random.default_rng(5)
N, M = 6, 3
ROOT = RNG.standard_normal((N, N))
Q = ROOT @ ROOT.T / N + 0.2 * np.eye(N)
B = RNG.standard_normal((N, M))
A = RNG.standard_normal((2, N))
X = np.array([0.3, -0.4, 0.7])
DB = RNG.standard_normal((2, M))
NULL = scipy.linalg.null_space(A)
# Definite on null(A) alone: -5 on its complement.
INDEFINITE = NULL @ NULL.T - 5.0 * (np.eye(N) - NULL @ NULL.T)


def sphere(radius):
    return Equality(
        lambda x, y: np.array([y @ y - radius(x)]),
        lambda x, y: 2.0 * y[None, :],
        hess=lambda x, y, nu: 2.0 * nu[0] * np.eye(y.size),
        jac_x=lambda x, y: np.array([[0.0, -1.0, 0.0]]),
    )


# Its cross term is not parallel to the gradient of the row, so that g'(x) depends on it.
def moving_sphere(C):
    return Equality(
        lambda x, y: np.array([(y - C @ x) @ (y - C @ x) - 2.0]),
        lambda x, y: 2.0 * (y - C @ x)[None, :],
        hess=lambda x, y, nu: 2.0 * nu[0] * np.eye(y.size),
        cross=lambda x, y, nu: -2.0 * nu[0] * C,
        jac_x=lambda x, y: -2.0 * (y - C @ x)[None, :] @ C,
    )


MOVING = LinearEquality(
    A, lambda x: DB @ x + 1.0, b_jvp=lambda x, u: DB @ u, b_vjp=lambda x, w: DB.T @ w
)


# Curvature and x enter through the constraint: exp(x_2) y'y <= most and a half-space.
def curved(most):
    return Inequality(
        lambda x, y: np.array([np.exp(x[2]) * (y @ y) - most, y[0] - 50.0]),
        lambda x, y: np.vstack([2.0 * np.exp(x[2]) * y, np.eye(y.size)[0]]),
        hess=lambda x, y, nu: 2.0 * np.exp(x[2]) * nu[0] * np.eye(y.size),
        cross=lambda x, y, nu: np.outer(2.0 * np.exp(x[2]) * nu[0] * y, [0, 0, 1.0]),
        jac_x=lambda x, y: np.array([[0, 0, np.exp(x[2]) * (y @ y)], [0, 0, 0.0]]),
    )


SMOOTH = Quartic(Q, B)
ROWS = {
    "linear": Row(Problem(SMOOTH, equality=LinearEquality(A, np.ones(2))), X),
    "sparse rows": Row(
        Problem(SMOOTH, equality=LinearEquality(scipy.sparse.csr_array(A), np.ones(2))),
        X,
    ),
    "operator rows": Row(
        Problem(
            SMOOTH, equality=LinearEquality(sad.aslinearoperator(A) * 1.0, np.ones(2))
        ),
        X,
    ),
    "b of x": Row(Problem(SMOOTH, equality=MOVING), X),
    "indefinite outside null(A)": Row(
        Problem(Quartic(INDEFINITE, B, 0.0), equality=MOVING), X
    ),
    "singular": Row(
        Problem(Quartic(NULL @ NULL.T, B, 0.0), equality=MOVING),
        X,
    ),
    "sphere": Row(Problem(SMOOTH, equality=sphere(lambda x: 2.0 + x[1])), X),
    "sphere with a moving centre": Row(
        Problem(SMOOTH, equality=moving_sphere(0.3 * B)), X
    ),
    "two kinds of rows": Row(
        Problem(
            SMOOTH,
            equality=[LinearEquality(A[:1], np.ones(1)), sphere(lambda x: 2.0 + x[1])],
        ),
        X,
    ),
    "maximize": Row(
        Problem(Quartic(-Q, B, -1.0), equality=MOVING, maximize=True),
        X,
    ),
    "inequality": Row(Problem(SMOOTH, inequality=curved(0.6)), X, active=(0,)),
    "equality and inequality": Row(
        Problem(SMOOTH, equality=MOVING, inequality=curved(2.6)), X, active=(0,)
    ),
    "bounds": Row(Problem(SMOOTH, lower=-0.5, upper=0.6), X, fixed=((0, None),)),
}


def solved(row):
    """Return the row (bounds filled in) and its solution."""
    y0 = np.random.default_rng(1).standard_normal(N)
    if row.fixed:
        problem = row.problem
        y = np.zeros(N)
        for _ in range(20_000):  # projected gradient: slow, certain
            y = np.clip(y - 0.1 * problem.grad(row.x, y), -0.5, 0.6)
        fixed = tuple((j, y[j]) for j in range(N) if y[j] in {-0.5, 0.6})
        assert 0 < len(fixed) < N
        row = dataclasses.replace(row, fixed=fixed)
        y0 = y
    y, nu = newton(row, row.x, y0)
    return row, y, nu


@pytest.mark.parametrize("method", [None, "minres"])
@pytest.mark.parametrize("name", ROWS)
def test_agrees_with_differences_of_the_solution(name, method):
    row, y, nu = solved(ROWS[name])
    J = sad.derivative(
        row.problem, Solution(y=y, x=row.x, multipliers=nu), method=method, rtol=1e-12
    )
    expected = differences(row, y)
    np.testing.assert_allclose(J @ np.eye(M), expected, rtol=1e-7, atol=1e-8)
    sad.dot_test(J, rtol=1e-9)


@pytest.mark.parametrize("name", ROWS)
def test_multipliers_are_found_for_a_solution_without_them(name):
    row, y, nu = solved(ROWS[name])
    given, bare = Solution(y=y, x=row.x, multipliers=nu), Solution(y=y, x=row.x)
    u = np.array([1.0, -2.0, 0.5])
    with_them = sad.jvp(row.problem, given, u, rtol=1e-12)
    without = sad.jvp(row.problem, bare, u, rtol=1e-12)
    np.testing.assert_allclose(without.y, with_them.y, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(without.tangent, with_them.tangent, rtol=1e-6, atol=1e-7)


def test_multipliers_have_derivatives():
    row, y, nu = solved(ROWS["b of x"])
    u, h = np.array([1.0, -2.0, 0.5]), 1e-5
    tangent = sad.jvp(row.problem, Solution(y=y, x=X, multipliers=nu), u, rtol=1e-12)
    ahead, behind = (newton(row, X + s * h * u, y)[1] for s in (1, -1))
    np.testing.assert_allclose(
        tangent.tangent[N:], (ahead - behind) / (2 * h), rtol=1e-6
    )


def test_lemmas_4_1_and_4_2_and_the_kkt_form_agree():
    row, y, _ = solved(ROWS["linear"])
    H, f_xy = SMOOTH.hess(X, y), SMOOTH.cross(X, y)
    F = scipy.linalg.null_space(A)
    by_null_space = -F @ np.linalg.solve(F.T @ H @ F, F.T @ f_xy)
    Hi = np.linalg.inv(H)
    by_schur = (Hi @ A.T @ np.linalg.solve(A @ Hi @ A.T, A @ Hi) - Hi) @ f_xy
    J = sad.derivative(row.problem, Solution(y=y, x=X), rtol=1e-13)
    np.testing.assert_allclose(by_null_space, by_schur, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(J @ np.eye(M), by_null_space, rtol=1e-9, atol=1e-11)
    assert np.linalg.norm(A @ (J @ np.eye(M))) <= 1e-12 * np.linalg.norm(by_schur)


def test_redundant_rows_change_nothing():
    twice = LinearEquality(np.vstack([A, A[0] - A[1]]), np.array([1.0, 1.0, 0.0]))
    row, y, _ = solved(ROWS["linear"])
    expected = sad.derivative(row.problem, Solution(y=y, x=X), rtol=1e-12)
    J = sad.derivative(Problem(SMOOTH, equality=twice), Solution(y=y, x=X), rtol=1e-12)
    np.testing.assert_allclose(J @ np.eye(M), expected @ np.eye(M), atol=1e-9)


def test_a_variable_at_its_bound_does_not_move():
    row, y, _ = solved(ROWS["bounds"])
    J = sad.derivative(row.problem, Solution(y=y, x=X))
    held = [j for j, _ in row.fixed]
    assert np.all((J @ np.eye(M))[held] == 0.0)
    weight = np.zeros(N)
    weight[held] = 1.0
    assert np.all(J.T @ weight == 0.0)


def test_an_inactive_row_leaves():
    far = Inequality(
        lambda x, y: np.array([y[0] - 1e3]), lambda x, y: np.eye(y.size)[:1]
    )
    free, y, _ = solved(Row(Problem(SMOOTH), X))
    expected = sad.derivative(free.problem, Solution(y=y, x=X)) @ np.eye(M)
    J = sad.derivative(Problem(SMOOTH, inequality=far), Solution(y=y, x=X))
    np.testing.assert_allclose(J @ np.eye(M), expected, rtol=1e-6)


def test_a_weakly_active_row_is_reported():
    _, y, _ = solved(Row(Problem(SMOOTH), X))
    touching = Inequality(
        lambda x, z: np.array([z[0] - y[0]]), lambda x, z: np.eye(z.size)[:1]
    )
    found = sad.vjp(
        Problem(SMOOTH, inequality=touching), Solution(y=y, x=X), np.ones(N)
    )
    assert any("one-sided" in warning for warning in found.warnings)


@pytest.mark.parametrize("spoil", ["stationarity", "feasibility", "sign", "slackness"])
def test_a_point_that_is_no_solution_is_refused(spoil):
    row, y, nu = solved(ROWS["equality and inequality"])
    problem = row.problem
    if spoil == "stationarity":
        y = y + 0.1 * scipy.linalg.null_space(A)[:, 0]
    elif spoil == "feasibility":
        problem = Problem(SMOOTH, equality=LinearEquality(A, A @ y + 0.5))
        nu = nu[:2]
    elif spoil == "sign":
        problem = Problem(SMOOTH, equality=MOVING, inequality=_minus(curved(2.6)))
    else:
        nu = nu + np.array([0.0, 0.0, 0.0, 5.0])
    with pytest.raises(sad.ConvergenceError, match="NOT_STATIONARY"):
        sad.vjp(problem, Solution(y=y, x=X, multipliers=nu), np.ones(N))


def _minus(constraint):
    rows = constraint.rows
    return Inequality(
        lambda x, y: -rows.fun(x, y),
        lambda x, y: -rows.jac(x, y),
        hess=lambda x, y, nu: -rows.hess(x, y, nu),
        cross=lambda x, y, nu: -rows.cross(x, y, nu),
        jac_x=lambda x, y: -rows.jac_x(x, y),
    )


@pytest.mark.parametrize("method", [None, "minres"])
@pytest.mark.parametrize("wrap", [np.asarray, scipy.sparse.csr_array])
def test_no_rows_at_all_is_lemma_3_2(wrap, method):
    """The paper's remark for A = 0 asks for m = 0 rows: Lemma 4.2 would invert a zero."""
    free, y, _ = solved(Row(Problem(SMOOTH), X))
    none = LinearEquality(wrap(np.zeros((0, N))), np.zeros(0))
    expected = sad.derivative(free.problem, Solution(y=y, x=X), rtol=1e-12)
    J = sad.derivative(
        Problem(SMOOTH, equality=none), Solution(y=y, x=X), method=method, rtol=1e-12
    )
    np.testing.assert_allclose(J @ np.eye(M), expected @ np.eye(M), atol=1e-10)


def test_a_row_whose_variables_are_all_held_by_bounds():
    rows = LinearEquality(np.array([[1.0, 0, 0], [0, 1, 1]]), np.array([1.0, 0.0]))
    side = np.array([1.0, np.inf, np.inf])
    problem = Problem(
        Quartic(np.eye(3), np.eye(3), 0.0),
        equality=rows,
        lower=np.array([1.0, -np.inf, -np.inf]),
        upper=side,
    )
    J = sad.derivative(problem, Solution(y=np.array([1.0, 0, 0]), x=np.zeros(3)))
    expected = [[0, 0, 0], [0, 0.5, -0.5], [0, -0.5, 0.5]]
    np.testing.assert_allclose(J @ np.eye(3), expected, atol=1e-12)
    np.testing.assert_allclose(J.T @ np.eye(3), expected, atol=1e-12)


@pytest.mark.parametrize("kind", ["array", "sparse", "operator"])
def test_multipliers_of_inequalities_are_not_negative(kind):
    """Two rows at zero, of which the force needs one: the other is weakly active."""
    rows = np.array([[1.0, 0.0, 0.0], [1.0, 0.2, 0.0]])
    wrap = {
        "array": lambda C: C,
        "sparse": scipy.sparse.csr_array,
        "operator": lambda C: sad.aslinearoperator(C) * 1.0,
    }[kind]
    touching = Inequality(lambda x, y: rows @ y, lambda x, y: wrap(rows))
    # f = ½‖y − x‖² at x = (2, -0.1, 1): the unsigned fit of both rows is (3, -0.5).
    problem = Problem(Quartic(np.eye(3), np.eye(3), 0.0), inequality=touching)
    x = np.array([2.0, -0.1, 1.0])
    y = np.array([0.0, -0.1, 1.0])
    both = Problem(
        Quartic(np.eye(3), np.eye(3), 0.0),
        inequality=Inequality(
            lambda x, y: rows @ (y - np.array([0.0, -0.1, 0.0])),
            lambda x, y: wrap(rows),
        ),
    )
    for case, weak in ((problem, False), (both, True)):
        expected = pytest.warns(sad.ConvergenceWarning, match="weakly active")
        with expected if weak else nullcontext():
            J = sad.derivative(case, Solution(y=y, x=x))
        assert ("weakly active" in J.note) is weak
        np.testing.assert_allclose(J @ np.eye(3), np.diag([0, 1.0, 1.0]), atol=1e-6)


def test_strict_arrays_stay_what_they_are(strict_array):
    to, back = strict_array
    Qs, Bs, As, Ds = to(Q), to(B), to(A), to(DB)
    lower = sad.FunctionObjective(
        grad=lambda x, y: Qs @ y - Bs @ x,
        hvp=lambda x, y, v: Qs @ v,
        cross_jvp=lambda x, y, u: -(Bs @ u),
        cross_vjp=lambda x, y, w: -(Bs.T @ w),
        n=N,
    )
    rows = LinearEquality(
        As, lambda x: Ds @ x, b_jvp=lambda x, u: Ds @ u, b_vjp=lambda x, w: Ds.T @ w
    )
    K = np.block([[Q, A.T], [A, np.zeros((2, 2))]])
    J = np.linalg.solve(K, np.vstack([B, DB]))[:N]
    problem, solution = Problem(lower, equality=rows), Solution(y=to(J @ X), x=to(X))
    for method in (None, "minres"):
        found = sad.derivative(problem, solution, method=method, rtol=1e-11)
        np.testing.assert_allclose(back(found @ to(X)), J @ X, atol=1e-9)
        np.testing.assert_allclose(back(found.T @ to(J @ X)), J.T @ (J @ X), atol=1e-8)


def test_a_contradiction_is_an_error_that_says_by_how_much():
    """Redundant rows whose right-hand side x moves apart, forward and adjoint."""
    row, y, _ = solved(ROWS["linear"])
    third = np.zeros((3, M))
    third[2] = [0.0, 0.25, 0.0]
    twice = LinearEquality(
        np.vstack([A, A[0] - A[1]]),
        lambda x: np.array([1.0, 1.0, 0.0]) + third @ (x - X),
        b_jvp=lambda x, u: third @ u,
        b_vjp=lambda x, w: third.T @ w,
    )
    problem, solution = Problem(SMOOTH, equality=twice), Solution(y=y, x=X)
    J = sad.derivative(problem, solution, rtol=1e-12)
    by_minres = sad.derivative(problem, solution, method="minres", rtol=1e-9)
    with pytest.raises(sad.ConvergenceError, match="LEAST_SQUARES"):
        by_minres @ np.array([0.0, 1.0, 0.0])
    with pytest.raises(sad.ConvergenceError, match=r"INCONSISTENT.*moves with x"):
        by_minres.T @ y
    with pytest.raises(sad.ConvergenceError, match=r"INCONSISTENT.*C y misses c by"):
        J @ np.array([0.0, 1.0, 0.0])
    with pytest.raises(sad.ConvergenceError, match=r"INCONSISTENT.*moves with x"):
        J.T @ y
    # where x moves no row apart the derivative is there
    still = sad.derivative(row.problem, Solution(y=y, x=X), rtol=1e-12)
    u = np.array([1.0, 0.0, -1.0])
    np.testing.assert_allclose(J @ u, still @ u, atol=1e-9)


def test_redundant_rows_that_move_together():
    mix = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, -1.0]])
    moving = LinearEquality(
        mix @ A,
        lambda x: mix @ (DB @ x + 1.0),
        b_jvp=lambda x, u: mix @ (DB @ u),
        b_vjp=lambda x, w: DB.T @ (mix.T @ w),
    )
    row, y, _ = solved(ROWS["b of x"])
    expected = sad.derivative(row.problem, Solution(y=y, x=X), rtol=1e-12)
    J = sad.derivative(Problem(SMOOTH, equality=moving), Solution(y=y, x=X), rtol=1e-12)
    np.testing.assert_allclose(J @ np.eye(M), expected @ np.eye(M), atol=1e-9)
    np.testing.assert_allclose(J.T @ np.eye(N), expected.T @ np.eye(N), atol=1e-9)


@pytest.mark.parametrize("method", ["projected_cg", "minres"])
@pytest.mark.parametrize("M_", ["auto", None, "constraint", "function"])
def test_preconditioners_do_not_change_the_answer(method, M_):
    row, y, _ = solved(ROWS["b of x"])
    H = SMOOTH.hess(X, y)
    if M_ == "function":
        M_ = lambda K: sad.preconditioners.constraint(np.diag(H), A)
    elif M_ == "constraint":
        M_ = sad.preconditioners.constraint(np.diag(H), A)
    J = sad.derivative(row.problem, Solution(y=y, x=X), method=method, M=M_, rtol=1e-12)
    np.testing.assert_allclose(J @ np.eye(M), differences(row, y), atol=1e-8)
    assert J.T.matvec(y).shape == (M,)


def test_the_diagonal_of_H_is_the_metric_of_projected_cg():
    """Scales of 1e6 between the variables cost nothing."""
    rng = np.random.default_rng(0)
    n, p = 80, 10
    d = 10.0 ** rng.uniform(-3, 3, n)
    C, f_xy = rng.standard_normal((p, n)), rng.standard_normal((n, 2))
    problem = Problem(
        Quartic(np.diag(d), -f_xy, 0.0), equality=LinearEquality(C, np.zeros(p))
    )
    x = np.zeros(2)
    counts = [
        sad.vjp(problem, Solution(y=np.zeros(n), x=x), np.ones(n), M=M_).krylov.niter
        for M_ in ("auto", None)
    ]
    assert counts[0] <= 2
    assert counts[1] > 20


def test_a_hessian_whose_diagonal_is_not_positive_needs_no_metric():
    C = np.array([[0.0, 0.0, 1.0]])
    H, f_xy = np.diag([1.0, 2.0, -5.0]), np.eye(3)
    problem = Problem(Quartic(H, -f_xy, 0.0), equality=LinearEquality(C, np.zeros(1)))
    J = sad.derivative(problem, Solution(y=np.zeros(3), x=np.zeros(3)))
    np.testing.assert_allclose(J @ np.eye(3), -np.diag([1.0, 0.5, 0.0]), atol=1e-12)


def test_a_saddle_on_the_null_space_is_refused():
    C = np.array([[0.0, 0.0, 1.0]])
    problem = Problem(
        Quartic(np.diag([1.0, -2.0, 5.0]), -np.eye(3), 0.0),
        equality=LinearEquality(C, np.zeros(1)),
    )
    solution = Solution(y=np.zeros(3), x=np.zeros(3))
    with pytest.raises(sad.ConvergenceError, match="NEGATIVE_CURVATURE"):
        sad.vjp(problem, solution, np.ones(3))
    found = sad.vjp(problem, solution, np.ones(3), method="minres")
    np.testing.assert_allclose(found.x, [-1.0, 0.5, 0.0], atol=1e-9)


@given(
    st.integers(2, 200),
    st.floats(0.0, 1.0),
    st.integers(0, 2**31),
    st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_the_two_lemmas_agree_on_random_problems(n, share, seed, sparse):
    """Lemma 4.1 = Lemma 4.2 to 1e-10, C g' = 0 to 1e-12, both = ours to 1e-9."""
    rng = np.random.default_rng(seed)
    p = min(1 + round(share * 0.5 * n), n - 1)
    root = rng.standard_normal((n, n))
    H = root @ root.T / n + 0.1 * np.eye(n)
    C, f_xy = rng.standard_normal((p, n)), rng.standard_normal((n, 2))
    F = scipy.linalg.null_space(C)
    by_null_space = -F @ np.linalg.solve(F.T @ H @ F, F.T @ f_xy)
    Hi = np.linalg.inv(H)
    by_schur = (Hi @ C.T @ np.linalg.solve(C @ Hi @ C.T, C @ Hi) - Hi) @ f_xy
    size = np.abs(by_null_space).max()
    np.testing.assert_allclose(by_null_space, by_schur, rtol=0, atol=1e-10 * size)
    rows = scipy.sparse.csr_array(C) if sparse else C
    problem = Problem(
        Quartic(H, -f_xy, 0.0), equality=LinearEquality(rows, np.zeros(p))
    )
    J = sad.derivative(problem, Solution(y=np.zeros(n), x=np.zeros(2)), rtol=1e-12)
    ours = J @ np.eye(2)
    np.testing.assert_allclose(ours, by_null_space, rtol=0, atol=1e-9 * size)
    sizes = np.linalg.norm(C, axis=1)
    assert np.abs(C @ ours / sizes[:, None]).max() <= 1e-12 * np.linalg.norm(ours)


@given(st.integers(1, 40), st.integers(0, 2**31), st.booleans())
@settings(max_examples=12, deadline=None)
def test_random_problems_against_differences(n, seed, operator):
    """Not quadratic, b moves with x: differences of the solution to 1e-6."""
    rng = np.random.default_rng(seed)
    p = int(rng.integers(0, n)) if n > 1 else 0
    root = rng.standard_normal((n, n))
    C, DC = rng.standard_normal((p, n)), rng.standard_normal((p, M))
    rows = LinearEquality(
        sad.aslinearoperator(C) * 1.0 if operator else C,
        lambda x: DC @ x,
        b_jvp=lambda x, u: DC @ u,
        b_vjp=lambda x, w: DC.T @ w,
    )
    lower = Quartic(root @ root.T / n + 0.3 * np.eye(n), rng.standard_normal((n, M)))
    row = Row(Problem(lower, equality=rows if p else None), X)
    y, _ = newton(row, X, np.zeros(n))
    J = sad.derivative(row.problem, Solution(y=y, x=X), rtol=1e-9)
    expected = differences(row, y)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(J @ np.eye(M), expected, rtol=0, atol=1e-6 * scale)
    v = rng.standard_normal(n)
    np.testing.assert_allclose(J.T @ v, expected.T @ v, rtol=0, atol=1e-6 * scale * n)


@given(
    st.integers(1, 200),
    st.integers(1, 5),
    st.integers(0, 2**31),
    st.floats(-100.0, 100.0),
)
@settings(max_examples=40, deadline=None)
def test_random_problems(n, m, seed, exponent):
    """Dense algebra to 1e-9, whatever the units of f."""
    rng = np.random.default_rng(seed)
    p = int(rng.integers(0, n)) if n > 1 else 0
    unit = 10.0**exponent
    root = rng.standard_normal((n, n))
    H = unit * (root @ root.T / n + 0.1 * np.eye(n))
    f_xy = unit * rng.standard_normal((n, m))
    C, DC = rng.standard_normal((p, n)), rng.standard_normal((p, m))
    x = rng.standard_normal(m)
    lower = Quartic(H, -f_xy, 0.0)
    equality = LinearEquality(
        C, lambda x: DC @ x, b_jvp=lambda x, u: DC @ u, b_vjp=lambda x, w: DC.T @ w
    )
    problem = Problem(lower, equality=equality if p else None)
    K = np.block([[H, unit * C.T], [unit * C, np.zeros((p, p))]])
    J = -np.linalg.solve(K, np.vstack([f_xy, -unit * DC]))[:n]
    solution = Solution(y=J @ x, x=x)
    found = sad.derivative(problem, solution, rtol=1e-12)
    np.testing.assert_allclose(
        found @ np.eye(m), J, rtol=1e-8, atol=1e-9 * np.abs(J).max()
    )
    v = rng.standard_normal(n)
    np.testing.assert_allclose(
        found.T @ v, J.T @ v, rtol=1e-7, atol=1e-9 * np.abs(J).max() * n
    )


def test_constraints_keep_no_state():
    """The trap: the numbers of rows of the last evaluation, at an x of another length."""
    growing = Inequality(
        lambda x, y: x * y[0] ** 2,
        lambda x, y: np.outer(2.0 * x * y[0], np.eye(y.size)[0]),
        hess=lambda x, y, w: np.diag(np.eye(y.size)[0]) * (2.0 * x @ w),
    )
    fixed = Inequality(
        lambda x, y: y**2,
        lambda x, y: np.diag(2.0 * y),
        hess=lambda x, y, w: np.diag(2.0 * w),
    )
    problem = Problem(Quartic(Q, B), inequality=[growing, fixed])
    rows, before = problem.inequalities, dict(vars(problem.inequalities))
    y = np.ones(Q.shape[0])
    for m in (3, 1, 2):
        x = np.arange(1.0, m + 1.0)
        other = np.ones(5)
        rows.value(other, y)
        assert rows.jac(x, y).shape == (m + y.size, y.size)
        w = np.arange(1.0, m + y.size + 1.0)
        expected = np.diag(2.0 * w[m:])
        expected[0, 0] += 2.0 * x @ w[:m]
        found = rows.hess(x, y, w) @ np.eye(y.size)
        np.testing.assert_allclose(found, expected)
    assert vars(rows) == before


# dependent rows ----------------------------------------------------------------------

FORMS = {
    "dense": np.asarray,
    "sparse": scipy.sparse.csr_array,
    "operator": lambda A: sad.LinearOperator(
        A.shape, lambda v: A @ v, lambda w: A.T @ w
    ),
}


def dependent_rows(kind, seed, n=12):
    """Return rows A (p, n), moves D (p, m) with A y = D x solvable, and none of those."""
    rng = np.random.default_rng(seed)
    if kind == "incidence":  # all rows sum to zero: a null combination of one sign
        tail, head = rng.integers(0, 5, n), rng.integers(1, 5, n)
        A = np.zeros((5, n))
        A[tail, np.arange(n)] += 1.0
        A[(tail + head) % 5, np.arange(n)] -= 1.0
    elif kind == "zero row":
        A = rng.standard_normal((4, n))
        A[2] = 0.0
    elif kind == "twice":
        A = rng.standard_normal((4, n))
        A[3] = -2.0 * A[0]
    else:
        A = rng.standard_normal((5, 3)) @ rng.standard_normal((3, n))
    apart = rng.standard_normal((len(A), 3))
    return A, A @ rng.standard_normal((n, 3)), apart


def with_rows(A, D, form, factors):
    """Return min ½‖y‖² − y'1 where R A y = R D x, and its derivative."""
    R = np.diag(factors)
    objective = sad.FunctionObjective(
        grad=lambda x, y: y - 1.0,
        hvp=lambda x, y, v: 1.0 * v,
        cross_jvp=lambda x, y, u: 0.0 * y,
        cross_vjp=lambda x, y, w: np.zeros(3),
    )
    rows = LinearEquality(
        FORMS[form](R @ A),
        lambda x: R @ (D @ x),
        b_jvp=lambda x, u: R @ (D @ u),
        b_vjp=lambda x, w: D.T @ (R @ w),
    )
    pinv = np.linalg.pinv(A)
    y = np.ones(A.shape[1]) - pinv @ (A @ np.ones(A.shape[1]))
    solution = Solution(y=y, x=np.zeros(3), status=sad.Status.CONVERGED)
    return Problem(objective, equality=rows), solution, pinv @ D


@pytest.mark.parametrize("decades", [0, 6])
@pytest.mark.parametrize("method", [None, "minres"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["incidence", "zero row", "twice", "combination"])
def test_dependent_rows_are_right_or_refused_in_both_modes(kind, form, method, decades):
    for seed in range(3):
        A, together, apart = dependent_rows(kind, seed)
        factors = 10.0 ** np.random.default_rng(seed).uniform(-decades, decades, len(A))
        if form == "operator":  # the lengths of its rows are estimated
            factors = factors ** (1.0 if decades == 0 else 0.5)
        problem, solution, right = with_rows(A, together, form, factors)
        J = sad.derivative(problem, solution, method=method, rtol=1e-10)
        np.testing.assert_allclose(J @ np.eye(3), right, atol=1e-7)
        np.testing.assert_allclose(J.T @ np.eye(A.shape[1]), right.T, atol=1e-7)
        if kind == "zero row":
            apart = apart * (np.arange(len(A)) == 2)[:, None]
        problem, solution, _ = with_rows(A, apart, form, factors)
        J = sad.derivative(problem, solution, method=method)
        for call in (lambda J=J: J @ np.ones(3), lambda J=J: J.T @ np.ones(12)):
            with pytest.raises(sad.ConvergenceError) as caught:
                call()
            assert caught.value.status in {
                sad.Status.INCONSISTENT,
                sad.Status.LEAST_SQUARES,
                sad.Status.STAGNATED,
            }


def test_a_parameter_that_moves_nothing_moves_nothing_under_dependent_rows():
    A = np.ones((2, 3))
    objective = sad.FunctionObjective(
        grad=lambda x, y: y - x[0] * np.eye(3)[0],
        hvp=lambda x, y, v: 1.0 * v,
        cross_jvp=lambda x, y, u: -u[0] * np.eye(3)[0],
        cross_vjp=lambda x, y, w: np.array([-w[0], 0.0]),
    )
    problem = Problem(objective, equality=LinearEquality(A, np.ones(2)))
    y = np.array([1.0, 0.0, 0.0])
    J = sad.derivative(problem, Solution(y=y, x=np.ones(2)))
    np.testing.assert_allclose(
        J @ np.eye(2), np.array([[2.0, -1.0, -1.0], [0.0, 0.0, 0.0]]).T / 3.0
    )
    fixed = dataclasses.replace(problem, lower=y, upper=y)
    J = sad.derivative(fixed, Solution(y=y, x=np.ones(2)))
    assert not (J @ np.eye(2)).any()


@pytest.mark.parametrize("form", ["matrix", "operator"])
def test_no_curvature_behind_the_rows_is_singular_in_both_modes(form):
    """The rows fix all y that f curves along: |λ| = 1e27 was within rounding."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(4, 12))
        k = int(rng.integers(1, 3))
        m = int(rng.integers(k, n - 1))
        R = rng.standard_normal((m, n)) * (rng.random((m, n)) < 0.6)
        R[:k] = 0.0
        R[range(k), range(k)] = 1.0
        C = rng.standard_normal((m, m)) @ R
        P = np.diag(np.r_[50.0 * rng.random(k) + 1.0, np.zeros(n - k)])
        objective = Quartic(P, np.eye(n), 0.0)
        if form == "operator":
            H = sad.LinearOperator((n, n), lambda v, P=P: P @ v, lambda v, P=P: P @ v)
            objective.hess = lambda x, y, H=H: H
        problem = Problem(objective, equality=LinearEquality(C, np.zeros(m)))
        solution = Solution(y=np.zeros(n), x=np.zeros(n), status=sad.Status.CONVERGED)
        J = sad.derivative(problem, solution)
        v = rng.standard_normal(n)
        for call in (lambda J=J, v=v: J @ v, lambda J=J, v=v: J.T @ v):
            with pytest.raises(sad.ConvergenceError) as caught:
                call()
            assert not caught.value.status.acceptable


# units -------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("hessian", ["matrix", "diagonal", "products"])
@given(st.integers(0, 2**31), st.floats(0.0, 8.0), st.floats(-6.0, 6.0))
@settings(max_examples=8, deadline=None)
def test_a_change_of_units_changes_the_derivative_in_units_alone(
    rows, hessian, seed, decades, scale
):
    """y → D y, f → c f, rows by factors of 10^±6: right to 1e-6, or refused."""
    n, m, rng = 15, 3, np.random.default_rng(seed)
    Q = rng.standard_normal((2 * n, n))
    H, B = Q.T @ Q / n + 0.1 * np.eye(n), rng.standard_normal((n, m))
    A, G = rng.standard_normal((3, n)), rng.standard_normal((3, m))
    D, c = 10.0 ** rng.uniform(-decades, decades, n), 10.0 ** (2.0 * scale)
    R = 10.0 ** rng.uniform(-6.0, 6.0, 3)
    right = np.linalg.solve(H, B)
    if rows:
        K = np.block([[H, A.T], [A, np.zeros((3, 3))]])
        right = np.linalg.solve(K, np.vstack([B, G]))[:n]
    posed, cross = c * D[:, None] * H * D, c * D[:, None] * B
    objective = sad.FunctionObjective(
        grad=lambda x, y: posed @ y - cross @ x,
        hvp=lambda x, y, v: posed @ v,
        cross_jvp=lambda x, y, u: -(cross @ u),
        cross_vjp=lambda x, y, w: -(cross.T @ w),
        hess_diag=(lambda x, y: np.diag(posed)) if hessian == "diagonal" else None,
    )
    if hessian == "matrix":
        objective.hess = lambda x, y: posed
    equality = LinearEquality(
        R[:, None] * A * D,
        lambda x: R * (G @ x),
        b_jvp=lambda x, u: R * (G @ u),
        b_vjp=lambda x, w: G.T @ (R * w),
    )
    problem = Problem(objective, equality=equality if rows else None)
    solution = Solution(
        y=np.zeros(n),
        x=np.zeros(m),
        status=sad.Status.CONVERGED,
        multipliers=np.zeros(3) if rows else None,
    )
    J = sad.derivative(problem, solution)
    u, v = rng.standard_normal(m), rng.standard_normal(n)
    for call, expected in (
        (lambda: D * (J @ u), right @ u),
        (lambda: J.T @ (D * v), right.T @ v),
    ):
        try:
            found = call()
        except sad.ConvergenceError:
            assert hessian == "products"
            continue
        np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("form", ["dense", "sparse"])
@pytest.mark.parametrize("x", [2.0, 1e-3, 0.0, -1.0])
def test_two_opposite_rows_are_an_equality(x, form):
    """Without force none of them acts, but neither side of both may be left."""
    S = np.array([[1.0, 1.0]])
    pair = [
        Inequality(
            lambda x, y, s=s: s * (S @ y - x),
            lambda x, y, s=s: FORMS[form](s * S),
            jac_x=lambda x, y, s=s: -s * np.eye(1),
        )
        for s in (1.0, -3.0)
    ]
    objective = Quartic(np.eye(2), np.zeros((2, 1)), 0.0)
    problem = Problem(objective, inequality=pair)
    for solution in (
        sad.solve(problem, np.array([x])),
        Solution(y=np.full(2, 0.5 * x), x=np.array([x])),
    ):
        J = sad.derivative(problem, solution)  # without a warning
        np.testing.assert_allclose(J @ np.ones(1), [0.5, 0.5], atol=1e-8)
