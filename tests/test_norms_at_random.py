"""Norms on random small problems: the conditions of a minimum by dense algebra.

No solver is trusted here: a point is a minimum where a proximal step leaves it.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm, Huber, Quantile
from sparse_argdiff.problem.penalty_weights import soft_threshold
from sparse_argdiff.solvers import on_supports

LOSSES = {
    "squared": "squared", "huber": Huber(0.7), "quantile": Quantile(0.3, 0.2),
    "logistic": "logistic", "poisson": "poisson",
}  # fmt: skip


def draw(rng, loss, columns="plain"):
    """Return features and targets."""
    N, p = int(rng.integers(20, 50)), int(rng.integers(3, 12))
    F = rng.standard_normal((N, p))
    if columns == "correlated":
        F = 0.4 * F + rng.standard_normal((N, 1))
    elif columns == "units":
        F = F * 10.0 ** rng.integers(-3, 4, p)
    z = F @ (rng.standard_normal(p) * (rng.random(p) < 0.6) / np.abs(F).max(axis=0))
    if loss == "poisson":
        return F, np.append(1.0, rng.poisson(np.exp(z))[1:])
    t = z + 0.5 * rng.standard_normal(N)
    return F, np.append([0.0, 1.0], t[2:] > 0.0) if loss == "logistic" else t


def operator(F):
    return sad.LinearOperator(F.shape, lambda v: F @ v, lambda v: F.T @ v, dtype=float)


def missed(problem, x, y):
    """Return the length of a proximal step of single coefficients, relative to y."""
    f, penalty = problem.objective, problem.penalty
    g, D = f.grad(x, y), np.asarray(f.hess(x, y).diagonal())
    D = np.where(1e-12 * D.max() < D, D, D.max())
    w, v = penalty.weights(x, y), penalty.ridge(x, y)
    u = y - g / D
    new = np.sign(u) * np.maximum(np.abs(u) - w / D, 0.0) / (1.0 + v / D)
    step = np.sqrt(D) * (np.clip(new, *problem.bounds(x, y)) - y)
    return np.linalg.norm(step) / np.linalg.norm([np.sqrt(D) * y, g / np.sqrt(D)])


@pytest.mark.parametrize("loss", list(LOSSES))
@pytest.mark.parametrize("seed", range(12))
def test_in_a_box(loss, seed):
    """A bound that holds in the quadratic model may hold no more in f."""
    rng = np.random.default_rng([7, seed])
    F, t = draw(rng, loss, "correlated")
    glm = Glm(F, t, loss=LOSSES[loss], norm="l1", penalty="scalar", intercept=False)
    ends = rng.uniform(0.02, 0.3, glm.n)
    problem = sad.Problem(glm, lower=-ends, upper=1.5 * ends)
    x = np.log([10.0 ** rng.uniform(-3.0, -1.0)])
    solution = sad.solve(problem, x, tol=1e-10)
    assert missed(problem, x, solution.y) <= 1e-8


def test_a_column_without_curvature_is_no_flat_loss():
    F, t = draw(np.random.default_rng(0), "quantile")
    F[:, 1] = 0.0
    glm = Glm(
        F, t, loss=Quantile(0.5, 0.1), norm="elastic-net", l1_ratio=0.0,
        penalty="scalar", intercept=False,
    )  # fmt: skip
    problem, x = sad.Problem(glm, lower=-0.2, upper=0.3), np.log([0.3])
    solution = sad.solve(problem, x, tol=1e-10)
    assert solution.niter < 30
    assert missed(problem, x, solution.y) <= 1e-8
    assert solution.y[1] == 0.0


@pytest.mark.parametrize("loss", list(LOSSES))
def test_an_infinite_ridge_excludes_from_the_gap(loss):
    F, t = draw(np.random.default_rng(1), loss)
    p, share = F.shape[1], 0.01
    glm = Glm(F, t, loss=LOSSES[loss], norm="elastic-net", intercept=False)
    x = np.log(np.full(2 * p, share))
    j = int(np.argmax(np.abs(glm.grad(x, np.zeros(p)))))
    x[p + j] = math.inf
    solution = sad.solve(sad.Problem(glm), x, tol=1e-10)
    own = Glm(
        np.delete(F, j, axis=1),
        t,
        loss=LOSSES[loss],
        norm="elastic-net",
        intercept=False,
    )
    without = sad.solve(sad.Problem(own), np.log(np.full(2 * p - 2, share)), tol=1e-10)
    assert abs(glm.grad(x, solution.y)[j]) > share
    np.testing.assert_allclose(solution.y, np.insert(without.y, j, 0.0), atol=1e-9)
    assert solution.gap == pytest.approx(without.gap, abs=1e-10)


def test_nothing_is_left_of_zero_by_an_infinite_threshold():
    """Without 0 · ∞, of which the result knows nothing but NumPy warns."""
    found = soft_threshold(
        np.array([0.0, -2.0, 3.0]), np.array([math.inf, 1.0, math.inf])
    )
    assert found.tolist() == [0.0, -1.0, 0.0]


@pytest.mark.parametrize("seed", [14, 30, 33, 81, 87, 118])
def test_products_close_the_gap_that_was_asked_for(seed):
    """Where the solution on the support was short of it, by a tighter one."""
    F, t = draw(np.random.default_rng([8, seed]), "poisson")
    glm = Glm(
        operator(F), t, loss="poisson", norm="l1", penalty="scalar", intercept=False
    )
    problem, x = sad.Problem(glm), np.log([0.02])
    solution = sad.solve(problem, x, tol=1e-12)
    assert solution.status is sad.Status.CONVERGED


def test_an_end_at_rounding_is_believed_where_a_proximal_step_is_short(monkeypatch):
    F, t = draw(np.random.default_rng(3), "squared")
    glm = Glm(
        operator(F),
        t,
        loss="squared",
        norm="group-l1",
        groups=np.zeros(F.shape[1], int),
    )
    problem, x = sad.Problem(glm), np.log([0.01])
    right, calls = sad.solve(problem, x, tol=1e-10), []
    newton_cg = on_supports.newton_cg

    def poor(problem, x, y0, **options):
        """Return the start as an end at rounding, twice."""
        found = newton_cg(problem, x, y0, **options)
        calls.append(found)
        if len(calls) > 2:
            return found
        return sad.Solution(
            y=1.01 * y0, x=x, status=sad.Status.ROUNDING_LIMIT, relative_error=1e-8,
            niter=1, n_hvp=0, n_grad=0,
        )  # fmt: skip

    monkeypatch.setattr(on_supports, "newton_cg", poor)
    found = sad.solve(problem, x, tol=1e-10)
    assert len(calls) > 2
    np.testing.assert_allclose(found.y, right.y, rtol=1e-7)


@pytest.mark.parametrize("seed", range(20))
def test_single_precision(seed):
    """The models keep double precision, in which they have a minimum."""
    rng = np.random.default_rng([10, seed])
    N, p = int(rng.integers(8, 40)), int(rng.integers(6, 17))
    F = rng.standard_normal((N, p)).astype(np.float32)
    t = (F[:, 0] + 0.4 * rng.standard_normal(N)).astype(np.float32)
    values = []
    for kind in (np.float32, float):
        glm = Glm(
            F.astype(kind), t.astype(kind), loss=Huber(0.7), norm="l1",
            penalty="scalar", intercept=False,
        )  # fmt: skip
        found = sad.solve(sad.Problem(glm), np.full(1, -5.0, kind), on_failure="ignore")
        assert found.status.acceptable
        values.append(found.value)
    assert values[0] == pytest.approx(values[1], rel=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_single_precision_with_an_intercept_of_zero(seed):
    """The rounding of its force is that of single precision, too."""
    rng = np.random.default_rng(seed)
    F = rng.standard_normal((26, 5)).astype(np.float32)
    t = rng.permutation(np.tile([0.0, 1.0], 13))
    glm = Glm(F, t, loss="squared-hinge", norm="l1", penalty="scalar")
    solution = sad.solve(sad.Problem(glm), np.full(1, 2.0, np.float32))
    assert solution.niter < 5
    assert not solution.y[:5].any()
    assert abs(solution.y[5]) < 1e-6


def test_a_loss_without_curvature_ends_at_a_bound():
    """There is no gap in a box: the end is where no step moves y."""
    F = np.ones((9, 1))
    glm = Glm(
        F,
        np.full(9, -5.0),
        loss=Huber(0.1),
        norm="l1",
        penalty="scalar",
        intercept=False,
    )
    solution = sad.solve(sad.Problem(glm, lower=-0.2, upper=0.3), np.log([0.01]))
    assert solution.y.tolist() == [-0.2]
    assert solution.niter < 5


def at_a_kink(seed, norm, m, loss):
    """Return a problem, of which up to three blocks are weakly active at x = 0, and x."""
    rng = np.random.default_rng([9, seed, m])
    F, t = draw(rng, loss, rng.choice(["plain", "correlated", "units"]))
    p = F.shape[1]
    groups = np.arange(p) // 2 if norm == "group-l1" else np.arange(p)
    G = groups[-1] + 1
    halves = norm == "elastic-net" and m > 1
    Z = rng.standard_normal((G, m // 2 if halves else m))
    options = {"groups": groups} if norm == "group-l1" else {}
    part = 0.6 if norm == "elastic-net" and m == 1 else 1.0
    if part < 1.0:
        options["l1_ratio"] = part

    def model(offset):
        return Glm(
            F, t, loss=LOSSES[loss], norm=norm, penalty=Z, log_offset=offset, **options
        )

    x = np.zeros(Z.shape[1] * (2 if halves else 1))
    at_zero = model(np.zeros(G)).grad(x, np.zeros(p + 1))[:p] / F.std(axis=0)
    sizes = np.sqrt(np.bincount(groups, F.var(axis=0)))
    offset = np.log(0.3 * np.abs(at_zero).max() * sizes)
    glm = model(offset)
    y = sad.solve(sad.Problem(glm), x, tol=1e-13, on_failure="ignore").y
    force = np.sqrt(np.bincount(groups, glm.grad(x, y)[:p] ** 2))
    (out,) = np.nonzero(np.bincount(groups, y[:p] != 0.0) == 0)
    weak = out[:3]
    root = np.sqrt(np.bincount(groups)) if norm == "group-l1" else np.ones(G)
    offset[weak] = np.log(force[weak] / root[weak] / part)
    return sad.Problem(model(offset)), x, weak.shape[0]


@pytest.mark.parametrize("norm", ["l1", "elastic-net", "group-l1"])
@pytest.mark.parametrize("m", [1, 3, 6])
@pytest.mark.parametrize("loss", ["squared", "logistic", "huber"])
def test_both_sides_of_a_kink(norm, m, loss):
    """Also where the ridge moves with x, and with coefficients of unlike units."""
    if norm == "elastic-net" and m == 3:
        m = 4
    checked = 0
    for seed in range(3):
        problem, x, weak = at_a_kink(seed, norm, m, loss)
        if not weak:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sad.ConvergenceWarning)
            at = sad.solve(problem, x, tol=1e-13)
        assert at.active.degenerate
        root = np.sqrt(np.asarray(problem.hess(x, at.y).diagonal()))
        u = np.random.default_rng(seed).standard_normal(x.shape)
        for side in (u, -u):
            found = sad.jvp(problem, at, side, one_sided=True).y
            misses = []
            for h in (1e-4, 1e-5):
                ends = [
                    sad.solve(
                        problem,
                        x + s * h * side,
                        y0=at.y,
                        tol=1e-14,
                        on_failure="ignore",
                    ).y
                    for s in (1.0, 0.5)
                ]
                slope = (4.0 * ends[1] - ends[0] - 3.0 * at.y) / h
                size = np.linalg.norm(root * found) + 1e-2 * np.linalg.norm(root * at.y)
                misses.append(np.linalg.norm(root * (slope - found)) / size)
            assert min(misses) <= 2e-4
            checked += 1
    assert checked


def in_a_weak_box(seed, free):
    """Return a lasso in a box whose ends two coefficients touch without a force, and x.

    One of them is not penalised where ``free``.
    """
    rng = np.random.default_rng([11, seed])
    F = rng.standard_normal((40, 7))
    t = F @ np.array([1.0, -1.0, 0.5, 0.5, 0.0, 0.0, 0.0])
    t += 0.5 * rng.standard_normal(40)
    offset = np.append(-np.inf if free else -3.0, np.full(6, -3.0))
    glm = Glm(
        F, t, loss="squared", norm="l1", penalty=rng.standard_normal((7, 2)),
        log_offset=offset, intercept=False,
    )  # fmt: skip
    x = np.zeros(2)
    y = sad.solve(sad.Problem(glm), x, tol=1e-13, on_failure="ignore").y
    assert (y[:2] != 0.0).all()
    lower, upper = np.full(7, -np.inf), np.full(7, np.inf)
    for j in (0, 1):
        (upper if y[j] > 0.0 else lower)[j] = y[j]
    return sad.Problem(glm, lower=lower, upper=upper), x


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_both_sides_of_a_bound_that_only_just_holds(seed, free):
    """What may leave it goes inward, whatever the sign of the coefficient is."""
    problem, x = in_a_weak_box(seed, free)
    at = sad.solve(problem, x, tol=1e-13, on_failure="ignore")
    assert at.active.weak_fixed.sum() == 2
    for u in np.vstack([np.eye(2), -np.eye(2)]):
        found, h = sad.jvp(problem, at, u, one_sided=True).y, 1e-5
        ends = [
            sad.solve(problem, x + s * h * u, y0=at.y, tol=1e-14, on_failure="ignore").y
            for s in (1.0, 0.5)
        ]
        slope = (4.0 * ends[1] - ends[0] - 3.0 * at.y) / h
        np.testing.assert_allclose(found, slope, atol=2e-6)
