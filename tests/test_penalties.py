"""Penalties with kinks: solutions and derivatives on the support, and what is told of it.

Rows "trap k" are those of public trackers: situations that other libraries got wrong.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.special import expit

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm

KINDS = ["dense", "products"]
each_kind = pytest.mark.parametrize("kind", KINDS)


class Data:
    """The mean loss of a linear model, scaled, with an explicit Hessian or by products."""

    convex = True

    def __init__(self, A, t, kind="dense", loss="squared", scale=1.0):
        self.A, self.t, self.kind, self.loss, self.scale_of = A, t, kind, loss, scale
        self.n, self.dtype = A.shape[1], A.dtype

    def value(self, x, y):
        z, t = self.A @ y, self.t
        if self.loss == "squared":
            each = 0.5 * (z - t) ** 2
        elif self.loss == "logistic":
            each = np.logaddexp(0.0, z) - t * z
        else:
            each = np.exp(z) - t * z
        return self.scale_of * float(each.mean())

    def grad(self, x, y):
        z = self.A @ y
        mean = {"squared": lambda z: z, "logistic": expit, "poisson": np.exp}
        slope = mean[self.loss](z) - self.t
        return (self.scale_of / len(z)) * (self.A.T @ slope).astype(self.dtype)

    def hess(self, x, y):
        z, A = self.A @ y, self.A
        second = {
            "squared": np.ones_like,
            "logistic": lambda z: expit(z) * expit(-z),
            "poisson": np.exp,
        }[self.loss](z)
        d = (self.scale_of / len(z) * second).astype(self.dtype)
        if self.kind == "dense":
            return (A.T * d) @ A
        return sad.LinearOperator(
            (self.n, self.n),
            lambda v: A.T @ (d * (A @ v)),
            dtype=A.dtype,
            symmetric=True,
        )

    def cross(self, x, y):
        return np.zeros((self.n, x.shape[0]), self.dtype)


def draw(seed, N, n, loss="squared", common=0.5):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((N, n)) + common * rng.standard_normal((N, 1))
    z = A[:, : min(4, n)] @ np.array([1.0, -1.0, 0.5, 0.7])[: min(4, n)]
    if loss == "logistic":
        t = (rng.random(N) < expit(z)) * 1.0
        t[:2] = 0.0, 1.0
    elif loss == "poisson":
        t = rng.poisson(np.exp(np.clip(0.5 * z, -3, 2))) * 1.0
    else:
        t = z + 0.3 * rng.standard_normal(N)
    return A, t


A0, T0 = draw(3, 40, 12)


def problem_of(penalty, kind="dense", A=A0, t=T0, **options):
    return sad.Problem(Data(A, t, kind), penalty=penalty, **options)


def log(*weights):
    return np.log(np.array(weights))


def largest(A=A0, t=T0):
    """Return the least weight for which all coefficients are zero."""
    return np.abs(A.T @ t).max() / len(t)


def lasso(A, t, weights, ridge=0.0, **options):
    """Return scikit-learn's solution for one weight a coefficient."""
    from sklearn.linear_model import ElasticNet

    w = np.broadcast_to(np.asarray(weights, float), A.shape[1:])
    scaled = A / w
    assert ridge == 0.0
    model = ElasticNet(
        alpha=1.0,
        l1_ratio=1.0,
        fit_intercept=False,
        tol=1e-14,
        max_iter=10**6,
        **options,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(scaled, t).coef_ / w


def cone_solver(A, t, labels, weights, C=None, b=()):
    """Return y and ν of Clarabel's min ‖A y − t‖² / 2N + Σ w_g ‖y_g‖ with C y = b."""
    import clarabel

    (N, n), G, p = A.shape, len(weights), len(b)
    P = sparse.block_diag([A.T @ A / N, sparse.csc_array((G, G))], format="csc")
    q = np.concatenate([-A.T @ t / N, weights])
    rows, cones = [], []
    if p:
        rows.append(sparse.csc_array(np.hstack([C, np.zeros((p, G))])))
        cones.append(clarabel.ZeroConeT(p))
    for g in range(G):
        members = np.flatnonzero(labels == g)
        block = sparse.lil_array((members.size + 1, n + G))
        block[0, n + g] = -1.0
        for i, j in enumerate(members):
            block[i + 1, j] = -1.0
        rows.append(block)
        cones.append(clarabel.SecondOrderConeT(members.size + 1))
    stacked = sparse.vstack(rows, format="csc")
    right = np.concatenate([b, np.zeros(stacked.shape[0] - p)])
    options = clarabel.DefaultSettings()
    options.verbose = False
    options.tol_gap_abs = options.tol_gap_rel = options.tol_feas = 1e-13
    found = clarabel.DefaultSolver(
        sparse.triu(P, format="csc"), q, stacked, right, cones, options
    ).solve()
    return np.array(found.x)[:n], np.array(found.z)[:p]


def exact_groups(A, t, labels, weights):
    """Return the same to the last digits: Newton's method on the groups that Clarabel found.

    The forces of the other groups show that these are the right ones.
    """
    (y, _), N = cone_solver(A, t, labels, weights), len(t)
    G, c = A.T @ A / N, A.T @ t / N
    members = [np.flatnonzero(labels == g) for g in range(len(weights))]
    kept = [np.linalg.norm(y[own]) > 1e-5 for own in members]
    y[[not kept[g] for g in labels]] = 0.0
    (S,) = np.nonzero(y)
    for _ in range(12):
        pull, K = G @ y - c, G.copy()
        for own, weight, there in zip(members, weights, kept, strict=True):
            if there:
                size = np.linalg.norm(y[own])
                unit = y[own] / size
                pull[own] += weight * unit
                bend = weight / size * (np.eye(len(own)) - np.outer(unit, unit))
                K[np.ix_(own, own)] += bend
        y[S] -= np.linalg.solve(K[np.ix_(S, S)], pull[S])
    assert np.abs(pull[S]).max() <= 1e-13
    for own, weight, there in zip(members, weights, kept, strict=True):
        assert there or np.linalg.norm(pull[own]) <= weight
    return y


def difference(solve, x, u, v, h=1e-4):
    """Return d/dε v'y(x + ε u), extrapolated: the error is of order h⁴."""

    def along(h):
        return (v @ solve(x + h * u) - v @ solve(x - h * u)) / (2.0 * h)

    return (4.0 * along(h / 2) - along(h)) / 3.0


# solutions and derivatives against other solvers -------------------------------------


@each_kind
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    shape=st.sampled_from([(60, 8), (25, 60), (30, 1), (1, 5)]),
    share=st.floats(0.05, 0.8),
    common=st.floats(0.0, 2.0),
)
def test_lasso_and_its_derivative_by_differences_of_another_solver(
    kind, seed, shape, share, common
):
    A, t = draw(seed, *shape, common=common)
    n, rng = A.shape[1], np.random.default_rng(seed)
    x = np.log(share * largest(A, t)) + 0.2 * rng.standard_normal(n)
    problem = problem_of(sad.L1(), kind, A, t)
    solution = sad.solve(problem, x, tol=1e-10)
    expected = lasso(A, t, np.exp(x))
    size = np.abs(expected).max() or 1.0
    assert np.abs(solution.y - expected).max() <= 1e-6 * size
    u, v = rng.standard_normal(n), rng.standard_normal(n)
    around = [lasso(A, t, np.exp(x + s * u)) for s in (-1e-4, 1e-4)]
    kept = all(((y != 0.0) == (solution.y != 0.0)).all() for y in around)
    if not kept or solution.active.degenerate:
        return  # a kink in between
    found = sad.jvp(problem, solution, u).y @ v
    expected = difference(lambda x: lasso(A, t, np.exp(x)), x, u, v)
    scale = max(abs(expected), np.abs(solution.y).max(), 1e-12)
    assert abs(found - expected) <= 1e-6 * scale
    assert abs(sad.vjp(problem, solution, v).x @ u - found) <= 1e-7 * scale


@each_kind
@pytest.mark.parametrize("seed", range(3))
def test_groups_and_their_derivative_by_differences_of_a_cone_solver(kind, seed):
    A, t = draw(seed, 40, 12)
    labels = np.random.default_rng(seed).permutation(np.arange(12) // 3)
    x = np.log(0.4 * largest(A, t)) + 0.1 * np.arange(4.0)
    problem = problem_of(sad.GroupL1(labels), kind, A, t)
    solution = sad.solve(problem, x, tol=1e-10)
    expected, _ = cone_solver(A, t, labels, np.exp(x))
    assert np.abs(solution.y - expected).max() < 1e-6
    assert (solution.y != 0.0).sum() > 0
    u, v = np.ones(4), np.random.default_rng(seed).standard_normal(12)
    found = sad.jvp(problem, solution, u).y @ v
    wanted = difference(lambda x: exact_groups(A, t, labels, np.exp(x)), x, u, v, 1e-3)
    assert found == pytest.approx(wanted, rel=1e-6, abs=1e-8)


PENALTIES = {
    "l1": (lambda n: sad.L1(), lambda n, x: np.array([x])),
    "l1 each": (lambda n: sad.L1(), lambda n, x: x + 0.1 * np.cos(np.arange(n))),
    "elastic net": (lambda n: sad.ElasticNet(), lambda n, x: np.array([x, x - 1.0])),
    "elastic net each": (
        lambda n: sad.ElasticNet(),
        lambda n, x: x + 0.1 * np.cos(np.arange(2.0 * n)),
    ),
    "ratio": (lambda n: sad.ElasticNet(l1_ratio=0.7), lambda n, x: np.array([x])),
    "groups": (
        lambda n: sad.GroupL1(np.arange(n) // 3),
        lambda n, x: x + 0.3 + 0.1 * np.cos(np.arange(-(-n // 3))),
    ),
    "smooth": (lambda n: sad.L1(smoothing=1e-2), lambda n, x: np.array([x])),
    "smooth groups": (
        lambda n: sad.GroupL1(np.arange(n) // 3, smoothing=1e-2),
        lambda n, x: np.array([x]),
    ),
}


@each_kind
@pytest.mark.parametrize("loss", ["squared", "logistic", "poisson"])
@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("shape", [(80, 20), (30, 45)])
def test_derivatives_by_differences_and_dense_algebra(kind, loss, name, shape):
    A, t = draw(1, *shape, loss)
    make, at = PENALTIES[name]
    n, penalty = shape[1], make(shape[1])
    level = np.abs(A.T @ (t - t.mean())).max() / shape[0]
    problem = sad.Problem(Data(A, t, kind, loss), penalty=penalty)
    x = at(n, np.log(0.2 * level))
    solution = sad.solve(problem, x, tol=1e-10)
    rng = np.random.default_rng(0)
    u, v = rng.standard_normal(x.shape[0]), rng.standard_normal(n)
    found = sad.jvp(problem, solution, u).y @ v
    assert sad.vjp(problem, solution, v).x @ u == pytest.approx(found, rel=1e-6)
    expected = difference(lambda x: sad.solve(problem, x, tol=1e-12).y, x, u, v)
    assert found == pytest.approx(expected, rel=2e-6, abs=1e-9)
    sad.dot_test(sad.derivative(problem, solution), rtol=1e-5)
    inside = penalty.support(x, solution.y)
    eye = np.eye(n)
    H = sad.aslinearoperator(problem.hess(x, solution.y)) @ eye
    B = sad.aslinearoperator(problem.cross(x, solution.y)) @ np.eye(x.shape[0])
    if not penalty.smooth:
        H = H + penalty.hess(x, solution.y) @ eye
        B = B + penalty.cross(x, solution.y) @ np.eye(x.shape[0])
    dense = -np.linalg.solve(H[np.ix_(inside, inside)], B[inside]) @ u
    assert dense @ v[inside] == pytest.approx(found, rel=1e-6, abs=1e-9)


def test_adjoint_and_tangent_are_solved_in_the_size_of_the_support():
    problem = problem_of(sad.L1())
    solution = sad.solve(problem, log(0.3))
    k = int((solution.y != 0.0).sum())
    assert 0 < k < 6
    assert sad.vjp(problem, solution, np.ones(12)).krylov.x.shape == (k,)
    assert sad.jvp(problem, solution, np.ones(1)).krylov.x.shape == (k,)


@each_kind
def test_a_solution_from_elsewhere_is_judged_on_its_support(kind):
    problem, x = problem_of(sad.L1(), kind), log(0.05)
    y = lasso(A0, T0, 0.05)
    here = sad.solve(problem, x)
    v = np.ones(12)
    expected = sad.vjp(problem, here, v).x
    assert sad.vjp(problem, sad.Solution(y=y, x=x), v).x == pytest.approx(expected)
    with pytest.raises(sad.ConvergenceError, match="NOT_STATIONARY"):
        sad.vjp(problem, sad.Solution(y=0.5 * y, x=x), v)
    with pytest.raises(sad.ConvergenceError, match="NOT_STATIONARY"):
        sad.vjp(problem, sad.Solution(y=0.0 * y, x=x), v)
    with pytest.raises(sad.ConvergenceError, match="NOT_FINITE"):
        sad.vjp(problem, sad.Solution(y=y, x=np.array([math.nan])), v)


# bounds, maxima, your own penalty ------------------------------------------------------


@each_kind
def test_non_negative_lasso(kind):
    problem, x = problem_of(sad.L1(), kind, lower=0.0), log(0.05)
    solution = sad.solve(problem, x)
    expected = lasso(A0, T0, 0.05, positive=True)
    assert np.abs(solution.y - expected).max() < 1e-7
    v = np.arange(12.0)
    wanted = difference(lambda x: sad.solve(problem, x, tol=1e-12).y, x, np.ones(1), v)
    assert sad.vjp(problem, solution, v).x[0] == pytest.approx(wanted, rel=1e-6)


@each_kind
def test_l1_in_a_box(kind):
    problem, x = problem_of(sad.L1(), kind, lower=-0.5, upper=0.5), log(0.05)
    solution = sad.solve(problem, x)
    assert solution.active.fixed[:3].all()
    assert (np.abs(solution.y[:3]) == 0.5).all()
    v = np.arange(12.0)
    wanted = difference(lambda x: sad.solve(problem, x, tol=1e-12).y, x, np.ones(1), v)
    assert sad.vjp(problem, solution, v).x[0] == pytest.approx(wanted, rel=1e-6)


def test_what_does_not_go_with_kinks_is_refused():
    rows = sad.LinearEquality(np.ones((1, 12)), np.zeros(1))
    half = sad.Inequality(lambda x, y: y[:1] - 1.0, lambda x, y: np.eye(1, 12))
    with pytest.raises(ValueError, match="inequality"):
        problem_of(sad.L1(), inequality=half)
    with pytest.raises(ValueError, match="do not meet"):
        problem_of(sad.GroupL1(np.arange(12) // 2), lower=0.0)
    with pytest.raises(ValueError, match="must not depend on x"):
        problem_of(sad.L1(), lower=lambda x: x)
    with pytest.raises(TypeError, match="lacks value, prox"):
        problem_of(object())
    for method in ("newton_cg", "active_set", "barrier"):
        with pytest.raises(ValueError, match="kinks"):
            sad.solve(problem_of(sad.L1()), log(0.1), method=method)
    with pytest.raises(ValueError, match="lacks"):
        sad.solve(sad.Problem(Data(A0, T0)), log(0.1), method="proximal_newton")
    smooth = problem_of(sad.L1(smoothing=0.1), equality=rows)
    assert abs(sad.solve(smooth, log(0.1)).y.sum()) < 1e-8


def test_a_maximum_with_a_penalty():
    f = sad.FunctionObjective(
        grad=lambda x, y: -(y - 1.0),
        value=lambda x, y: -0.5 * float(((y - 1.0) ** 2).sum()),
        hvp=lambda x, y, v: -v,
        cross_jvp=lambda x, y, u: 0.0 * y,
        n=3,
    )
    problem = sad.Problem(f, penalty=sad.L1(), maximize=True)
    solution = sad.solve(problem, log(0.2))
    assert solution.y == pytest.approx(0.8)
    assert solution.value == pytest.approx(-0.54)
    assert sad.jvp(problem, solution, np.ones(1)).y == pytest.approx(-0.2)


def test_without_values():
    f = sad.FunctionObjective(
        grad=lambda x, y: A0.T @ (A0 @ y - T0) / 40,
        hvp=lambda x, y, v: A0.T @ (A0 @ v) / 40,
        n=12,
    )
    solution = sad.solve(sad.Problem(f, penalty=sad.L1()), log(0.05))
    assert solution.y == pytest.approx(lasso(A0, T0, 0.05), abs=1e-7)


class Mcp:
    """The minimax concave penalty, w |y| − y² / 2γ up to γ w, constant beyond."""

    separable = True

    def __init__(self, gamma):
        self.gamma = gamma

    def value(self, x, y):
        a, w = np.abs(y), np.exp(x[0])
        inner = w * a - a * a / (2.0 * self.gamma)
        return float(
            np.where(a <= self.gamma * w, inner, 0.5 * self.gamma * w * w).sum()
        )

    def prox(self, x, v, steps):
        w, gamma = np.exp(x[0]), self.gamma
        shrunk = np.sign(v) * np.maximum(np.abs(v) - steps * w, 0.0)
        inner = shrunk / np.maximum(1.0 - steps / gamma, 1e-3)
        return np.where(np.abs(v) <= gamma * w, inner, v)

    def support(self, x, y):
        return y != 0.0

    def _bent(self, x, y):
        return (y != 0.0) & (np.abs(y) <= self.gamma * np.exp(x[0]))

    def grad(self, x, y):
        slope = np.exp(x[0]) * np.sign(y) - y / self.gamma
        return np.where(self._bent(x, y), slope, 0.0)

    def hess(self, x, y):
        return np.diag(-1.0 / self.gamma * self._bent(x, y))

    def cross(self, x, y):
        return (self._bent(x, y) * np.exp(x[0]) * np.sign(y))[:, None]

    def activity(self, x, y, force):
        return np.abs(force) / np.exp(x[0])


@each_kind
def test_your_own_penalty(kind):
    A = A0 / np.sqrt((A0**2).mean(axis=0))
    problem, x = problem_of(Mcp(4.0), kind, A), log(0.2)
    solution = sad.solve(problem, x)
    assert 0 < (solution.y != 0.0).sum() < 12
    assert solution.support == "estimated"
    v = np.ones(12)
    wanted = difference(
        lambda x: sad.solve(problem, x, y0=solution.y, tol=1e-12).y, x, np.ones(1), v
    )
    assert sad.vjp(problem, solution, v).x[0] == pytest.approx(wanted, rel=1e-5)


# the traps ---------------------------------------------------------------------------


@each_kind
def test_zero_weights_are_free(kind):
    """Trap 1: all weights zero is least squares."""
    exact = np.linalg.lstsq(A0, T0)[0]
    found = sad.solve(problem_of(sad.L1(0.0), kind), np.zeros(1), tol=1e-10)
    assert found.y == pytest.approx(exact, abs=1e-7)
    assert not found.active.fixed.any()
    w = np.full(12, 0.1)
    w[5] = 0.0
    found = sad.solve(problem_of(sad.L1(w), kind), np.zeros(1), tol=1e-10)
    r = A0 @ found.y - T0
    assert abs(A0[:, 5] @ r) < 1e-7
    assert not found.active.fixed[5]


@each_kind
def test_infinite_weights_are_out(kind):
    """Traps 2 and 5: as if the column were not there; derivative zero, not NaN."""
    keep = np.arange(12) != 1
    x = np.log(np.full(12, 0.1))
    x[1] = math.inf
    problem = problem_of(sad.L1(), kind)
    solution = sad.solve(problem, x, tol=1e-10)
    without = sad.solve(problem_of(sad.L1(), kind, A0[:, keep]), x[keep], tol=1e-10)
    assert solution.y[1] == 0.0
    assert solution.y[keep] == pytest.approx(without.y, abs=1e-8)
    assert math.isfinite(solution.value)
    gradient = sad.vjp(problem, solution, np.ones(12)).x
    assert gradient[1] == 0.0
    assert np.isfinite(gradient).all()
    assert any("infinite weight" in note and "1" in note for note in solution.warnings)
    out = sad.solve(problem, np.full(12, math.inf))
    assert not out.y.any()
    assert any("all coefficients" in note for note in out.warnings)
    far = sad.solve(problem, np.full(12, 800.0))  # e^800 overflows
    assert not far.y.any()
    group = problem_of(sad.GroupL1(np.arange(12) // 2, [math.inf] + [0.1] * 5), kind)
    assert not sad.solve(group, np.zeros(1)).y[:2].any()


@each_kind
def test_the_formula_of_the_derivative_by_log_weights(kind):
    """Trap 3: −(X_S'X_S/n + V_S)⁻¹ (w_S ∘ sign β_S), exactly zero off S."""
    x = np.log(np.full(12, 0.1)) + 0.1 * np.arange(12)
    problem = problem_of(sad.L1(), kind)
    solution = sad.solve(problem, x, tol=1e-10)
    S = solution.y != 0.0
    J = sad.derivative(problem, solution) @ np.eye(12)
    inside = A0[:, S].T @ A0[:, S] / 40
    expected = -np.linalg.solve(inside, np.diag(np.exp(x[S]) * np.sign(solution.y[S])))
    assert J[np.ix_(S, S)] == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert not J[~S].any()
    assert not J[:, ~S].any()


@each_kind
def test_weights_over_four_decades(kind):
    """Trap 4: one status, and no more steps than a few."""
    x = np.log(0.1 * 10.0 ** np.linspace(-4, 0, 12))
    solution = sad.solve(problem_of(sad.L1(), kind), x)
    assert solution.status is sad.Status.CONVERGED
    assert solution.niter <= 20
    small = sad.solve(problem_of(sad.L1(), kind), log(1e-4 * largest()))
    assert small.niter <= 20


@each_kind
def test_targets_of_zero(kind):
    """Trap 6: y = 0, gap 0, converged."""
    solution = sad.solve(problem_of(sad.L1(), kind, t=0.0 * T0), log(0.1))
    assert not solution.y.any()
    assert solution.status is sad.Status.CONVERGED
    glm = Glm(A0, 0.0 * T0 + 3.0, loss="squared", norm="l1", penalty="scalar")
    solution = sad.solve(sad.Problem(glm), log(0.1))
    assert not solution.y[:-1].any()
    assert solution.y[-1] == pytest.approx(3.0)
    assert solution.gap == pytest.approx(0.0, abs=1e-12)


@each_kind
@pytest.mark.parametrize("c", [1e-8, 1e-6, 1e6, 1e8])
def test_units(kind, c):
    """Traps 7 and 18: (c t, c w) has c y, the same support and the same steps."""
    one = sad.solve(problem_of(sad.L1(), kind), log(0.05))
    scaled = sad.solve(problem_of(sad.L1(), kind, t=c * T0), log(0.05 * c))
    assert scaled.y == pytest.approx(c * one.y, rel=1e-7)
    assert (scaled.niter, scaled.status) == (one.niter, one.status)
    of_f = sad.Problem(Data(A0, T0, kind, scale=c), penalty=sad.L1())
    scaled = sad.solve(of_f, log(0.05 * c))
    assert scaled.y == pytest.approx(one.y, rel=1e-7)
    assert (scaled.niter, scaled.status) == (one.niter, one.status)
    D = c ** np.linspace(-0.5, 0.5, 12)
    units = sad.solve(problem_of(sad.L1(), kind, A0 * D), np.log(0.05 * D))
    assert units.y * D == pytest.approx(one.y, rel=1e-6, abs=1e-9)
    assert (units.y != 0.0).tolist() == (one.y != 0.0).tolist()


@each_kind
def test_single_precision_ends_at_its_rounding(kind):
    """Trap 7: as ROUNDING_LIMIT, and the support is that of double precision."""
    problem = problem_of(sad.L1(), kind, A0.astype(np.float32), T0.astype(np.float32))
    x = log(0.05).astype(np.float32)
    solution = sad.solve(problem, x)
    assert solution.y.dtype == np.float32
    assert solution.status is sad.Status.ROUNDING_LIMIT
    double = sad.solve(problem_of(sad.L1(), kind), log(0.05))
    assert ((solution.y != 0) == (double.y != 0)).all()
    assert solution.y == pytest.approx(double.y, rel=1e-4, abs=1e-5)
    assert (
        sad.vjp(problem, solution, np.ones(12, np.float32), rtol=1e-5).x.dtype == "f4"
    )


@each_kind
def test_elastic_net_is_a_lasso_with_rows(kind):
    """Traps 8 and 9: the rows √(N v) e_j; without an L1 part it is ridge."""
    w, v = 0.05, 0.2
    rows = np.vstack([A0, math.sqrt(40 * v) * np.eye(12)])
    both = problem_of(sad.ElasticNet(w, v), kind)
    solution = sad.solve(both, np.zeros(1), tol=1e-10)
    # The mean is over 52 rows there.
    expected = lasso(rows, np.append(T0, np.zeros(12)), w * 40 / 52)
    assert solution.y == pytest.approx(expected, abs=1e-7)
    ridge = sad.solve(problem_of(sad.ElasticNet(0.0, v), kind), np.zeros(1), tol=1e-10)
    exact = np.linalg.solve(A0.T @ A0 / 40 + v * np.eye(12), A0.T @ T0 / 40)
    assert ridge.y == pytest.approx(exact, abs=1e-8)
    ratio = sad.ElasticNet(l1_ratio=0.0)
    assert sad.solve(problem_of(ratio, kind), log(v), tol=1e-10).y == pytest.approx(
        exact, abs=1e-8
    )


@each_kind
def test_a_cold_solve_equals_the_end_of_a_path(kind):
    """Traps 10 and 13."""
    problem, y = problem_of(sad.L1(), kind), None
    for share in np.geomspace(1.0, 1e-3, 15):
        path = sad.solve(problem, log(share * largest()), y0=y, tol=1e-10)
        y = path.y
    cold = sad.solve(problem, log(1e-3 * largest()), tol=1e-10)
    assert cold.y == pytest.approx(path.y, abs=1e-8)
    assert ((cold.y != 0) == (path.y != 0)).all()


@each_kind
def test_columns_of_zeros(kind):
    """Trap 11: zero with derivative zero; without any penalty not unique."""
    Z = A0.copy()
    Z[:, 3] = 0.0
    problem = problem_of(sad.L1(), kind, Z)
    solution = sad.solve(problem, log(0.05))
    assert solution.y[3] == 0.0
    assert sad.jvp(problem, solution, np.ones(1)).y[3] == 0.0
    w = np.full(12, 0.05)
    w[3] = 0.0
    problem = problem_of(sad.L1(w), kind, Z)
    solution = sad.solve(problem, np.zeros(1), on_failure="ignore")
    with pytest.raises(sad.ConvergenceError, match="SINGULAR"):
        sad.vjp(problem, solution, np.eye(12)[3])


@each_kind
def test_duplicated_columns(kind):
    """Trap 12: only the sum is determined, and that is said."""
    problem = problem_of(sad.L1(), kind, np.c_[A0, A0[:, 0]])
    solution = sad.solve(problem, log(0.05))
    one = sad.solve(problem_of(sad.L1(), kind), log(0.05))
    assert solution.y[0] + solution.y[12] == pytest.approx(one.y[0], rel=1e-6)
    if solution.y[0] != 0.0 and solution.y[12] != 0.0:
        with pytest.raises(sad.ConvergenceError, match="SINGULAR"):
            sad.vjp(problem, solution, np.eye(13)[0])
        with pytest.raises(sad.ConvergenceError, match="SINGULAR"):
            sad.jvp(problem, solution, np.ones(1))
    else:
        assert solution.support == "not settled"
    dear = np.full(13, 0.05)
    dear[12] = 0.06  # the cheaper copy takes all
    solution = sad.solve(problem_of(sad.L1(dear), kind, problem.objective.A), log(1.0))
    assert solution.y[12] == 0.0
    assert solution.y[0] == pytest.approx(one.y[0], rel=1e-6)
    even = problem_of(sad.ElasticNet(0.05, 0.1), kind, problem.objective.A)
    solution = sad.solve(even, np.zeros(1))
    assert solution.y[0] == pytest.approx(solution.y[12], rel=1e-6)


@each_kind
def test_at_the_largest_weight(kind):
    """Trap 15: zero and weakly active there, one coefficient just below."""
    problem, top = problem_of(sad.L1(), kind), largest()
    at = sad.solve(problem, log(top))
    assert not at.y.any()
    assert at.active.weak_fixed.sum() == 1
    assert at.support == "not settled"
    with pytest.warns(sad.ConvergenceWarning, match="one-sided"):
        sad.derivative(problem, at)
    assert (sad.solve(problem, log(0.999 * top)).y != 0.0).sum() == 1
    above = sad.solve(problem, log(1.001 * top))
    assert not above.y.any()
    assert not above.active.degenerate


def test_sparse_group_by_hand():
    """Trap 19: first soft with the feature weights, then shrink the group."""
    v = np.array([3.0, 1.0])
    soft = np.sign(v) * np.maximum(np.abs(v) - np.array([0.0, 0.5]), 0.0)
    group = sad.GroupL1(np.zeros(2, int), 1.0)
    found = group.prox(np.zeros(1), soft, np.ones(2))
    assert found == pytest.approx([2.013606, 0.335601], abs=1e-6)


@each_kind
def test_a_group_is_out_exactly(kind):
    """Trap 20: exact zeros; on the edge it is weakly active, and told."""
    labels = np.arange(12) // 4
    force = A0.T @ T0 / 40
    edge = max(np.linalg.norm(force[labels == g]) for g in range(3))
    problem = problem_of(sad.GroupL1(labels), kind)
    at = sad.solve(problem, log(edge))
    assert not at.y.any()
    assert at.active.weak_fixed.sum() == 4
    assert not sad.solve(problem, log(1.01 * edge)).active.degenerate
    below = sad.solve(problem, log(0.99 * edge))
    assert (below.y != 0.0).sum() == 4


@each_kind
def test_groups_of_one_are_the_lasso(kind):
    """Trap 21: to the last bit in the penalty, its curvature zero."""
    x, y = 0.1 * np.cos(np.arange(12.0)) - 2.0, np.linspace(-1, 1, 12)
    group, one = sad.GroupL1(np.arange(12)), sad.L1()
    steps = np.linspace(0.1, 1.0, 12)
    for name, extra in (("prox", (steps,)), ("support", ()), ("grad", ())):
        assert (
            getattr(group, name)(x, y, *extra) == getattr(one, name)(x, y, *extra)
        ).all()
    assert group.value(x, y) == one.value(x, y)
    assert not (group.hess(x, y) @ np.eye(12)).any()
    a, b = (sad.solve(problem_of(p, kind), x, tol=1e-10) for p in (group, one))
    assert a.y == pytest.approx(b.y, abs=1e-9)


@each_kind
def test_groups_in_any_order_and_numbering(kind):
    """Traps 22 and 23."""
    order = np.random.default_rng(0).permutation(12)
    labels, w = np.arange(12) // 3, np.array([0.1, 0.2, 0.15, 0.12])
    a = sad.solve(problem_of(sad.GroupL1(labels, w), kind), np.zeros(1), tol=1e-10)
    permuted = problem_of(sad.GroupL1(10 * labels[order] - 7, w), kind, A0[:, order])
    b = sad.solve(permuted, np.zeros(1), tol=1e-10)
    assert b.y == pytest.approx(a.y[order], abs=1e-8)
    members = [np.flatnonzero(labels == g) for g in range(4)]
    c = sad.solve(problem_of(sad.GroupL1(members, w), kind), np.zeros(1), tol=1e-10)
    assert c.y == pytest.approx(a.y, abs=1e-12)
    with pytest.raises(ValueError, match=r"groups\[0\] and groups\[1\]"):
        sad.GroupL1([[0, 1], [1, 2]])
    with pytest.raises(ValueError, match="coefficient 1 is in no group"):
        sad.GroupL1([[0], [2]])
    free = sad.GroupL1([[0], [2]], rest="free", n=4)
    assert free.support(np.zeros(1), np.zeros(4)).tolist() == [False, True, False, True]


@each_kind
@pytest.mark.parametrize("loss", ["squared", "logistic", "poisson"])
def test_hypergradient(kind, loss):
    """Trap 25: against differences."""
    A, t = draw(2, 60, 20, loss)
    B, s = draw(7, 60, 20, loss)
    held = Data(B, s, loss=loss)
    upper = sad.FunctionUpper(held.value, held.grad)
    problem = sad.Problem(Data(A, t, kind, loss), penalty=sad.L1())
    F = sad.Hypergradient(problem, upper, tol=1e-10)
    x = np.full(20, math.log(0.05)) + 0.1 * np.cos(np.arange(20))
    result = F.evaluate(x)
    u = np.sin(np.arange(20.0))
    wanted = (F(x + 1e-5 * u)[0] - F(x - 1e-5 * u)[0]) / 2e-5
    assert result.gradient @ u == pytest.approx(wanted, rel=1e-6, abs=1e-9)
    assert result.certificate.descent == "estimated"
    assert result.certificate.support == "estimated"


@each_kind
def test_minimize_lowers_the_held_out_loss(kind):
    A, t = draw(2, 60, 20)
    B, s = draw(7, 60, 20)
    held = Data(B, s)
    upper = sad.FunctionUpper(held.value, held.grad)
    problem = sad.Problem(Data(A, t, kind), penalty=sad.L1())
    with warnings.catch_warnings():  # the least loss may be at a kink of F
        warnings.simplefilter("ignore", sad.ConvergenceWarning)
        found = sad.minimize(problem, upper, log(0.3), tol=1e-6)
    grid = [
        held.value(None, sad.solve(problem, np.array([x])).y)
        for x in np.linspace(-7, 0, 60)
    ]
    assert found.fun <= min(grid) + 1e-6


def test_zeros_are_exact_and_do_not_flicker():
    """Trap 26: the support is decided by the dual, whatever the tolerance."""
    problem = problem_of(sad.L1())
    supports = {
        tuple(sad.solve(problem, log(0.05), tol=tol).y != 0.0)
        for tol in (1e-3, 1e-6, 1e-9, 1e-12)
    }
    assert len(supports) == 1


def test_memory_order_and_read_only_arrays():
    """Trap 33: the same solution for C, F, strided and read-only features."""
    x, found = log(0.05), []
    frozen = A0.copy()
    frozen.flags.writeable = False
    wide = np.zeros((40, 24))
    wide[:, ::2] = A0
    twice = sparse.csc_matrix(A0)
    doubled = sparse.csc_matrix(
        (
            np.concatenate([twice.data / 2, twice.data / 2]),
            (np.tile(twice.indices, 2), np.tile(np.repeat(np.arange(12), 40), 2)),
        ),
        shape=A0.shape,
    )
    for F in (
        A0,
        np.asfortranarray(A0),
        wide[:, ::2],
        frozen,
        doubled,
        sparse.csr_matrix(A0),
    ):
        glm = Glm(F, T0, loss="squared", norm="l1", penalty="scalar")
        found.append(sad.solve(sad.Problem(glm), x).y)
    assert all(y == pytest.approx(found[0], abs=1e-10) for y in found)


# what fails is told, and is no zero ---------------------------------------------------------


@each_kind
def test_nan_is_not_an_excluded_coefficient(kind):
    problem = problem_of(sad.L1(), kind)
    with pytest.raises(sad.ConvergenceError, match="NOT_FINITE"):
        sad.solve(problem, np.array([math.nan]))
    with pytest.raises(sad.ConvergenceError, match="NOT_FINITE"):
        sad.solve(problem_of(sad.L1(), kind, t=math.nan * T0), log(0.1))
    with pytest.raises(ValueError, match="weights must be >= 0"):
        sad.L1(np.array([0.1, math.nan]))
    with pytest.raises(ValueError, match="weights must be >= 0"):
        sad.L1(-1.0)


def test_a_separable_loss_without_enough_penalty_has_no_minimum():
    A = np.array([[1.0], [2.0], [-1.0]])
    problem = sad.Problem(
        Data(A, np.array([1.0, 1.0, 0.0]), "products", "logistic"), penalty=sad.L1(0.0)
    )
    with pytest.raises(sad.ConvergenceError):
        sad.solve(problem, np.zeros(1))


@each_kind
def test_a_failed_solve_has_no_gradient(kind):
    problem = problem_of(sad.L1(), kind)
    stopped = sad.solve(problem, log(0.05), maxiter=0, on_failure="ignore")
    assert stopped.support == "not settled"
    assert not stopped.status.acceptable
    with pytest.raises(sad.ConvergenceError):
        sad.vjp(problem, stopped, np.ones(12))


def test_an_empty_support_has_a_derivative_of_zero():
    problem = problem_of(sad.L1())
    solution = sad.solve(problem, log(10.0))
    assert solution.support == "estimated"
    assert not sad.vjp(problem, solution, np.ones(12)).x.any()
    assert not sad.jvp(problem, solution, np.ones(1)).y.any()


@pytest.mark.parametrize("kind", KINDS)
def test_functions_of_x(kind):
    Z = np.stack([np.ones(12), np.linspace(0, 1, 12)], axis=1)

    def weights(x):
        return np.exp(Z @ x)

    penalty = sad.L1(
        weights,
        weights_jvp=lambda x, u: weights(x) * (Z @ u),
        weights_vjp=lambda x, v: Z.T @ (weights(x) * v),
    )
    problem, x = problem_of(penalty, kind), np.array([-3.0, 0.5])
    solution = sad.solve(problem, x)
    u, v = np.array([1.0, -1.0]), np.ones(12)
    wanted = difference(lambda x: sad.solve(problem, x, tol=1e-12).y, x, u, v)
    assert sad.vjp(problem, solution, v).x @ u == pytest.approx(wanted, rel=1e-6)
    bare = problem_of(sad.L1(weights), kind)
    with pytest.raises(NotImplementedError, match="weights_vjp"):
        sad.vjp(bare, sad.solve(bare, x), v)


# at kinks ------------------------------------------------------------------------------


def sides(problem, x, u, h=1e-5):
    """Return the two one-sided differences of y along u."""
    y = sad.solve(problem, x, tol=1e-12).y
    return [
        (sad.solve(problem, x + s * h * u, tol=1e-12).y - y) / h for s in (1.0, -1.0)
    ]


@each_kind
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_both_sides_where_a_coefficient_enters(kind, ridge):
    """At x the force of one coefficient equals its weight."""
    w = np.full(12, 0.2)
    fixed = problem_of(sad.ElasticNet(w, ridge), kind)
    solution = sad.solve(fixed, np.zeros(1), tol=1e-13)
    force = -fixed.grad(np.zeros(1), solution.y)
    j = int(np.argmax(np.where(solution.y == 0.0, np.abs(force), 0.0)))
    w[j] = abs(force[j])
    problem = problem_of(
        sad.ElasticNet(
            np.exp, ridge, weights_jvp=lambda x, u: np.exp(x) * u,
            weights_vjp=lambda x, v: np.exp(x) * v,
        ),
        kind,
    )  # fmt: skip
    x = np.log(w)
    at = sad.solve(problem, x, tol=1e-13)
    assert at.active.weak_fixed[j]
    assert at.active.weak_fixed.sum() == 1
    assert at.support == "not settled"
    for u in (np.ones(12), np.eye(12)[j], np.cos(np.arange(12.0))):
        plus, minus = sides(problem, x, u)
        found = [sad.jvp(problem, at, s * u, one_sided=True).y for s in (1.0, -1.0)]
        assert found[0] == pytest.approx(plus, abs=2e-5)
        assert found[1] == pytest.approx(minus, abs=2e-5)
    assert np.abs(plus + minus).max() > 1e-3
    with pytest.warns(sad.ConvergenceWarning, match="one-sided"):
        sad.derivative(problem, at)


@each_kind
def test_both_sides_at_the_largest_weight(kind):
    problem, x = problem_of(sad.L1(), kind), log(largest())
    at = sad.solve(problem, x)
    plus, minus = sides(problem, x, np.ones(1))
    assert not sad.jvp(problem, at, np.ones(1), one_sided=True).y.any()
    found = sad.jvp(problem, at, -np.ones(1), one_sided=True).y
    assert found == pytest.approx(minus, rel=1e-4)
    assert np.abs(found).max() > 0.1
    assert not plus.any()


@each_kind
def test_both_sides_where_a_group_enters(kind):
    labels = np.arange(12) // 4
    force = A0.T @ T0 / 40
    edge = max(np.linalg.norm(force[labels == g]) for g in range(3))
    problem, x = problem_of(sad.GroupL1(labels), kind), log(edge)
    at = sad.solve(problem, x)
    _, minus = sides(problem, x, np.ones(1), 1e-6)
    assert not sad.jvp(problem, at, np.ones(1), one_sided=True).y.any()
    found = sad.jvp(problem, at, -np.ones(1), one_sided=True).y
    assert found == pytest.approx(minus, rel=1e-3, abs=1e-4)


@each_kind
def test_the_side_is_not_unique_where_copies_enter(kind):
    A = np.c_[A0, A0[:, int(np.argmax(np.abs(A0.T @ T0)))]]
    problem, x = problem_of(sad.L1(), kind, A), log(largest())
    at = sad.solve(problem, x)
    assert at.active.weak_fixed.sum() == 2
    with pytest.raises(sad.ConvergenceError, match="SINGULAR"):
        sad.jvp(problem, at, -np.ones(1), one_sided=True)


def test_value_gradient_has_the_part_of_the_penalty():
    for penalty, x in (
        (sad.L1(), log(0.1)),
        (sad.ElasticNet(), log(0.1, 0.3)),
        (sad.GroupL1(np.arange(12) // 3), log(0.1)),
        (sad.L1(smoothing=0.1), log(0.1)),
    ):
        problem = problem_of(penalty)
        solution = sad.solve(problem, x)
        found = sad.value_gradient(problem, solution)
        for i in range(x.shape[0]):
            e = 1e-5 * np.eye(x.shape[0])[i]
            up, down = (sad.solve(problem, x + s * e, tol=1e-12) for s in (1, -1))
            assert found[i] == pytest.approx((up.value - down.value) / 2e-5, rel=1e-6)


def test_what_knows_no_kinks_says_so():
    problem = problem_of(sad.L1())
    solution = sad.solve(problem, log(0.1))
    with pytest.raises(ValueError, match="kinks"):
        sad.active_range(problem, solution, np.ones(1))
    with pytest.raises(ValueError, match="kinks"):
        sad.LogBarrier(problem, 10.0)


def test_many_problems_at_once():
    problem = problem_of(sad.L1())
    X = np.log([[0.05], [0.1], [10.0]])
    found = sad.solve_many(problem, X)
    V = np.ones((3, 12))
    G = sad.vjp_many(problem, found, V)
    for k in range(3):
        one = sad.solve(problem, X[k])
        assert found.y[k] == pytest.approx(one.y, abs=1e-10)
        assert G[k] == pytest.approx(sad.vjp(problem, one, V[k]).x, abs=1e-8)


@pytest.mark.parametrize("name", ["l1", "non-negative", "ratio", "groups"])
def test_arrays_on_another_device(name):
    """By products alone: nothing comes to the host on the way."""
    xp = pytest.importorskip("array_api_strict")
    there = xp.Device("device1")
    A, t = (xp.asarray(v, device=there) for v in (A0, T0))
    f = sad.FunctionObjective(
        grad=lambda x, y: (A.T @ (A @ y - t)) / 40,
        value=lambda x, y: 0.5 * float(xp.sum((A @ y - t) ** 2)) / 40,
        hvp=lambda x, y, v: A.T @ (A @ v) / 40,
        cross_jvp=lambda x, y, u: 0.0 * y,
        cross_vjp=lambda x, y, w: 0.0 * x,
        n=12,
    )
    make, _ = PENALTIES.get(name, PENALTIES["l1"])
    bounds = {"lower": 0.0} if name == "non-negative" else {}
    host = problem_of(make(12), "products", **bounds)
    x = log(0.1) if name != "groups" else np.full(4, -2.0)
    expected = sad.solve(host, x, tol=1e-10)
    problem = sad.Problem(f, penalty=make(12), **bounds)
    found = sad.solve(problem, xp.asarray(x, device=there), tol=1e-10)
    assert found.y.device == there

    def back(array):
        return np.from_dlpack(array.to_device(xp.Device("CPU_DEVICE")))

    assert back(found.y) == pytest.approx(expected.y, abs=1e-9)
    v = np.cos(np.arange(12.0))
    product = sad.vjp(problem, found, xp.asarray(v, device=there)).x
    assert back(product) == pytest.approx(sad.vjp(host, expected, v).x, rel=1e-6)
