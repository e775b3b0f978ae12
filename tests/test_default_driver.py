"""The default method of ``minimize``: decisions, bars, limits, failures, starts, cost."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
from scipy import optimize, sparse
from scipy.special import expit

import sparse_argdiff as sad
from sparse_argdiff.bilevel.inexact_lbfgs import contradicted, unseen
from sparse_argdiff.linear_model import Glm

# models -------------------------------------------------------------------------------


def ridge(seed, loss="squared", penalty="scalar", mean=0.0, rows=60, columns=5):
    """Return a small model whose columns and targets have means, and its held-out loss."""
    rng = np.random.default_rng(seed)
    X, V = (mean + rng.standard_normal((k, columns)) for k in (rows, 40))
    w = rng.standard_normal(columns)

    def targets(features, noise):
        z = (features - mean) @ w + 0.5 * noise
        if loss == "logistic":
            return (z > 0.0).astype(float)
        if loss == "poisson":
            return np.floor(np.exp(1.0 + 0.3 * z))
        return 10.0 + z

    t = targets(X, rng.standard_normal(rows))
    glm = Glm(X, t, loss=loss, penalty=penalty)
    held = glm.held_out(V, targets(V, rng.standard_normal(40)))
    return sad.Problem(glm), held


def plain_logistic(seed, n=24, rows=160):
    """Return logistic regression as plain functions of (log-penalties, y)."""
    rng = np.random.default_rng(seed)
    A, B = (
        sparse.csr_array(sparse.random(k, n, 0.2, rng=rng, format="csr"))
        for k in (rows, rows)
    )
    w = rng.standard_normal(n)
    a, b = (np.sign(M @ w + 0.3 * rng.standard_normal(rows)) for M in (A, B))

    def slope(X, t, y):
        return X.T @ (-t * expit(-t * (X @ y))) / rows

    def hvp(x, y, v):
        z = A @ y
        return A.T @ (expit(z) * expit(-z) / rows * (A @ v)) + np.exp(x) * v

    objective = sad.FunctionObjective(
        n=n,
        value=lambda x, y: (
            np.logaddexp(0, -a * (A @ y)).mean() + 0.5 * np.exp(x) @ y**2
        ),
        grad=lambda x, y: slope(A, a, y) + np.exp(x) * y,
        hvp=hvp,
        cross_vjp=lambda x, y, q: np.exp(x) * y * q,
    )
    upper = sad.FunctionUpper(
        lambda x, y: float(np.logaddexp(0, -b * (B @ y)).mean()),
        lambda x, y: slope(B, b, y),
    )
    x0 = -5.0 + 0.5 * rng.standard_normal(n)
    return sad.Problem(objective), upper, x0


def exact(problem, upper, x):
    """Return F and its gradient by solves to rounding."""
    return sad.Hypergradient(problem, upper, tol=1e-11)(x)


def dense_value(problem, held, found):
    """Return F by Newton's method with dense Hessians."""
    y, glm = found.y.copy(), problem.objective
    for _ in range(60):
        H = glm.hess(found.x, y).todense()
        D = 1.0 / np.sqrt(np.diag(H))
        step = D * np.linalg.solve(D[:, None] * H * D, D * glm.grad(found.x, y))
        t = 1.0
        while t > 1e-6 and not (
            glm.value(found.x, y - t * step) <= glm.value(found.x, y) + 1e-14
        ):
            t *= 0.5
        y = y - t * step
    return held.value(found.x, y)


def assert_certified(found, problem, upper):
    """Assert that value and gradient are within the errors that the result states."""
    value, gradient = exact(problem, upper, found.x)
    certificate = found.certificate
    assert certificate is not None
    assert abs(found.fun - value) <= certificate.value_error + 1e-9 * abs(value)
    error = np.linalg.norm(found.jac - gradient)
    slack = 1e-9 * max(np.linalg.norm(gradient), abs(value))
    assert error <= certificate.gradient_error + slack
    record = [r for r in found.history if r.value == found.fun][-1]
    assert record.value_error == certificate.value_error
    assert record.gradient_error == certificate.gradient_error
    assert found.fun == min(r.value for r in found.history) or found.success


# what is picked, and what the tolerance means -----------------------------------------


def test_the_result_says_what_was_picked():
    problem, held = ridge(0)
    found = sad.minimize(problem, held, np.zeros(1), bounds=(-16, 8))
    assert found.method == "inexact_lbfgs"
    named = sad.minimize(problem, held, np.zeros(1), bounds=(-16, 8), method="lbfgs")
    assert named.method == "lbfgs"
    assert found.fun == pytest.approx(named.fun, rel=1e-4)


@pytest.mark.parametrize("start", ["lbfgs", "scipy", "itself"])
def test_a_run_from_anothers_solution_ends_within_three_steps(start):
    problem, upper, x0 = plain_logistic(1)
    box = (-12.0, 3.0)
    if start == "scipy":
        F = sad.Hypergradient(problem, upper)
        there = optimize.minimize(
            F,
            x0,
            jac=True,
            method="L-BFGS-B",
            bounds=optimize.Bounds(*box),
            options={"gtol": 1e-6, "ftol": 0.0, "maxiter": 2000},
        ).x
    else:
        method = None if start == "itself" else start
        there = sad.minimize(
            problem, upper, x0, bounds=box, method=method, maxiter=2000
        ).x
    found = sad.minimize(problem, upper, there, bounds=box)
    assert found.status is sad.Status.CONVERGED
    assert found.nit <= 3


def test_a_start_is_evaluated_as_well_as_its_promise_asks_for():
    """Loosely where the first step promises much of F, else ten times finer."""
    problem, upper, x0 = plain_logistic(3)
    solved = sad.minimize(problem, upper, x0, bounds=(-12, 3))
    tolerances = []
    for start in (x0, solved.x):
        found = sad.minimize(problem, upper, start, bounds=(-12, 3), maxiter=1)
        tolerances.append(found.history[0].lower_tol)
    assert tolerances[0] == 0.03
    assert tolerances[1] <= 0.003


def test_the_criterion_holds_for_the_exact_gradient():
    for seed in range(3):
        problem, upper, x0 = plain_logistic(seed)
        found = sad.minimize(problem, upper, x0, bounds=(-12, 3), maxiter=400)
        assert found.success
        value, gradient = exact(problem, upper, found.x)
        size = np.linalg.norm(found.x - np.clip(found.x - gradient, -12, 3))
        scale = max(abs(value), 1e-3 * (found.history[0].value - value))
        assert size <= 1.001e-4 * scale


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_units_of_the_upper_level_change_nothing(unit):
    problem, held = ridge(3, "logistic", "per-feature")
    upper = sad.FunctionUpper(
        lambda x, y: unit * held.value(x, y), lambda x, y: unit * held.grad_y(x, y)
    )
    one = sad.minimize(problem, held, np.zeros(5), bounds=(-9, 5))
    other = sad.minimize(problem, upper, np.zeros(5), bounds=(-9, 5))
    assert other.status is one.status
    assert other.nit == one.nit
    np.testing.assert_allclose(other.x, one.x, rtol=1e-5, atol=1e-5)


# never fooled -------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::sparse_argdiff.ConvergenceWarning")  # it is told
@pytest.mark.parametrize("loss", ["squared", "logistic", "poisson"])
@pytest.mark.parametrize("mean", [0.0, 100.0, 1000.0])
def test_one_penalty_from_any_start(loss, mean):
    """Columns with a mean, targets with a mean, plateaus at both ends."""
    for seed, start in enumerate((-8.0, 0.0, 8.0)):
        problem, held = ridge(seed, loss, mean=mean)
        x0 = np.array([start])
        try:
            found = sad.minimize(problem, held, x0, bounds=(-16, 8), on_failure="raise")
        except sad.ConvergenceError:
            continue  # the very first solve: told, with a status
        value = dense_value(problem, held, found)
        bar = found.certificate.value_error
        assert abs(found.fun - value) <= bar + 1e-7 * abs(value)


@pytest.mark.parametrize("ending", ["maxiter", "callback", "converged"])
def test_every_exit_is_certified_at_the_returned_point(ending):
    options = {
        "maxiter": {"maxiter": 5},
        "callback": {"callback": lambda state: state.record.nit == 4},
        "converged": {},
    }[ending]
    for seed in range(3):
        problem, upper, x0 = plain_logistic(seed)
        found = sad.minimize(problem, upper, x0, bounds=(-12, 3), **options)
        assert found.success == (ending == "converged")
        assert_certified(found, problem, upper)


def test_bars_of_the_way_hold_and_are_shown_where_values_are():
    problem, upper, x0 = plain_logistic(5)
    seen = []
    found = sad.minimize(
        problem,
        upper,
        x0,
        bounds=(-12, 3),
        callback=lambda state: seen.append((state.x.copy(), state.jac, state.record)),
    )
    assert found.history[0].value_error > 0.0
    held_value, held_slope = [], []
    for x, jac, record in seen:
        value, gradient = exact(problem, upper, x)
        held_value.append(abs(record.value - value) <= record.value_error + 1e-9)
        error = np.linalg.norm(jac - gradient)
        held_slope.append(error <= record.gradient_error + 1e-9)
    assert np.mean(held_value) >= 0.95
    assert np.mean(held_slope) >= 0.9  # a guess


def test_accepted_steps_go_down_by_more_than_their_errors():
    """The exact values fall, though those of the run are inexact."""
    for seed in range(3):
        problem, upper, x0 = plain_logistic(seed)
        path = []
        sad.minimize(
            problem,
            upper,
            x0,
            bounds=(-12, 3),
            maxiter=30,
            callback=lambda state, path=path: path.append(state.x.copy()) and None,
        )
        values = [exact(problem, upper, x)[0] for x in path]
        assert all(b < a for a, b in itertools.pairwise(values))


def test_one_class_is_refused_or_unbounded():
    X = np.random.default_rng(0).standard_normal((60, 4))
    with pytest.raises(ValueError, match="targets must not all be 1"):
        Glm(X[:40], np.ones(40))
    # Separable rows without a penalty on the direction that separates them.
    a = np.sign(X[:, 0])

    def slope(y):
        return X.T @ (-a * expit(-a * (X @ y))) / 60

    objective = sad.FunctionObjective(
        n=4,
        value=lambda x, y: float(np.logaddexp(0, -a * (X @ y)).mean()),
        grad=lambda x, y: slope(y),
        hvp=lambda x, y, v: X.T @ (expit(X @ y) * expit(-(X @ y)) * (X @ v)) / 60,
        cross_vjp=lambda x, y, w: 0.0 * x,
    )
    upper = sad.FunctionUpper(lambda x, y: float(y @ y), lambda x, y: 2.0 * y)
    with pytest.raises(sad.ConvergenceError) as caught:
        sad.minimize(sad.Problem(objective), upper, np.zeros(2))
    assert caught.value.status is sad.Status.UNBOUNDED


# accuracy -----------------------------------------------------------------------------


def tall(seed, rows=300, columns=30):
    """Return logistic regression of many rows with a penalty for each column."""
    rng = np.random.default_rng(seed)
    X, V = rng.standard_normal((2, rows, columns))
    w = rng.standard_normal(columns) * (rng.random(columns) < 0.3)
    t, s = (2.0 * M @ w + rng.standard_normal(rows) > 0 for M in (X, V))
    glm = Glm(X, t.astype(float))
    return sad.Problem(glm), glm.held_out(V, s.astype(float))


def followed(seed, steps):
    """Return the records of a run, with the cosines of its gradients and the exact ones."""
    (problem, held), cosines = tall(seed), []
    F = sad.Hypergradient(problem, held, tol=1e-10)

    def watch(state):
        z, g = state.jac, F(state.x)[1]
        held_there = ((state.x <= -12) & (z > 0)) | ((state.x >= 5) & (z < 0))
        z, g = z[~held_there], g[~held_there]
        cosines.append(float(z @ g / np.linalg.norm(z) / np.linalg.norm(g)))

    found = sad.minimize(
        problem,
        held,
        np.full(30, -4.0),
        bounds=(-12, 5),
        maxiter=steps,
        tol=1e-7,
        callback=watch,
    )
    return found.history, np.array(cosines)


def test_gradients_are_as_accurate_as_they_are_small():
    """The adjoint is relative to ∂f^U/∂y, which does not fall as the gradient does."""
    products = 0
    for seed in (1, 2, 3):
        history, cosines = followed(seed, 60)
        norms = [record.gradient_norm for record in history]
        assert min(norms) < 0.02 * max(norms)
        assert cosines.min() > 0.3
        assert np.mean(cosines > 0.9) >= 0.95
        products += history[-1].n_hvp + history[-1].n_grad
    # Searches that values do not contradict backtrack, and refine nothing.
    assert products <= 2500


@pytest.mark.parametrize(
    ("slopes", "expected"),
    [
        ([], False),
        ([(1.0, 3.0)], False),
        ([(1.0, 3.0), (0.5, 1.0)], False),  # −1 at zero
        ([(1.0, 3.0), (0.5, 2.0)], True),  # 1
        ([(1.0, 3.0), (0.5, -2.0)], False),
        ([(0.2, 1e-9), (0.1, 1e-9)], True),
    ],
)
def test_values_that_contradict_a_slope(slopes, expected):
    assert contradicted(slopes) is expected


# limits -------------------------------------------------------------------------------


def test_the_level_of_curvature_is_no_more_than_moves_show():
    """All of it without a move, in general and of a coordinate; else the secant's."""
    assert unseen(2.0, [], []) == 2.0
    moves = [np.array([1.0, 1.0, 0.0, 2.0]), np.array([1.0, 1.0, 0.0, 1.0])]
    changes = [np.array([9.0, 0.5, 3.0, 0.0]), np.array([0.1, 0.2, 3.0, 0.0])]
    level = unseen(2.0, moves, changes)
    np.testing.assert_allclose(level, [2.0, 0.5, 2.0, 2.0 * 2.0**-26])


@pytest.mark.parametrize("seed", [4, 5, 6])
def test_plateaus_do_not_shorten_the_steps_of_other_penalties(seed):
    """Pairs from before sent what is on them far, and the cap then cut all others."""
    rng = np.random.default_rng(seed)
    w = 3.0 * rng.standard_normal(400) * (rng.random(400) < 0.02)
    X, V = (rng.standard_normal((100, 400)) for _ in range(2))
    glm = Glm(X, np.sign(X @ w), loss="logistic", intercept=False)
    held = glm.held_out(V, np.sign(V @ w))
    x0 = np.full(400, -5.0)
    found = sad.minimize(sad.Problem(glm), held, x0, maxiter=25, on_failure="ignore")
    assert found.fun <= 5e-6  # 3e-5 or more


def test_penalties_that_go_to_a_limit_are_named():
    """Features of noise want infinite penalties, a strong signal wants none."""
    rng = np.random.default_rng(2)
    X, V = rng.standard_normal((2, 80, 6))
    w = np.array([3.0, -2.0, 0.0, 0.0, 0.0, 0.0])
    t, s = (M @ w + 0.5 * rng.standard_normal(80) for M in (X, V))
    glm = Glm(X, t, loss="squared")
    held = glm.held_out(V, s)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = sad.minimize(
            sad.Problem(glm), held, np.full(6, -1.0), maxiter=300, tol=1e-6
        )
    assert np.all(np.isfinite(found.x))
    assert np.all(np.isfinite(found.jac))
    assert found.limits
    assert set(found.limits) <= set(found.warnings)
    assert any("want to be" in note for note in found.limits)
    assert all("of 6 penalties" in note for note in found.limits)
    assert_certified(found, sad.Problem(glm), held)


def test_a_minimum_far_from_the_start_is_no_limit():
    lower = sad.FunctionObjective(
        value=lambda x, y: 0.5 * (y - x) @ (y - x),
        grad=lambda x, y: y - x,
        hvp=lambda x, y, v: v,
        cross_vjp=lambda x, y, w: -w,
        n=2,
    )
    upper = sad.FunctionUpper(
        lambda x, y: 1.0 + 0.5 * float((y - 50.0) @ (y - 50.0)), lambda x, y: y - 50.0
    )
    found = sad.minimize(sad.Problem(lower), upper, np.zeros(2))
    assert found.success
    assert found.limits == ()
    np.testing.assert_allclose(found.x, 50.0, atol=1e-3)


def test_parameters_of_plain_functions_that_run_away_are_named():
    """F = (y − 1)², y = 1 − e^−x: it falls for ever towards x = ∞."""
    lower = sad.FunctionObjective(
        value=lambda x, y: 0.5 * float((y - 1 + np.exp(-x)) @ (y - 1 + np.exp(-x))),
        grad=lambda x, y: y - 1 + np.exp(-x),
        hvp=lambda x, y, v: v,
        cross_vjp=lambda x, y, w: -np.exp(-x) * w,
        n=1,
    )
    upper = sad.FunctionUpper(
        lambda x, y: 1.0 + float((y - 1.0) @ (y - 1.0)), lambda x, y: 2.0 * (y - 1.0)
    )
    found = sad.minimize(sad.Problem(lower), upper, np.zeros(1), tol=1e-6)
    assert found.success
    (note,) = found.limits
    assert note.startswith("1 of 1 parameters (0) went far towards +infinity")


# failures -----------------------------------------------------------------------------


def test_an_exception_of_the_user_carries_the_best_point_and_the_checkpoint(tmp_path):
    problem, upper, x0 = plain_logistic(2)
    calls, path = [], tmp_path / "run"

    def value(x, y):
        calls.append(x)
        if len(calls) > 12:
            raise ZeroDivisionError("mine")
        return upper.value(x, y)

    broken = sad.FunctionUpper(value, upper.grad_y)
    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        sad.minimize(problem, broken, x0, bounds=(-12, 3), checkpoint=path)
    best = caught.value.best
    assert caught.value.checkpoint == path
    assert path.exists()
    assert best.record.nit >= 1
    value_there = exact(problem, upper, best.x)[0]
    assert abs(best.fun - value_there) <= best.record.value_error + 1e-9
    assert any("best point so far" in note for note in caught.value.__notes__)


class Injected:
    """Functions of a problem that fail at random calls after the first ones."""

    def __init__(self, problem, upper, rng, share, kind):
        self.rng, self.share, self.kind, self.calls = rng, share, kind, 0
        f = problem.objective
        nan = kind == "nan"
        self.problem = sad.Problem(
            sad.FunctionObjective(
                n=f.n,
                value=f.value,
                grad=self.wrapped(f.grad) if nan else f.grad,
                hvp=self.wrapped(lambda x, y, v: f.hess(x, y) @ v),
                cross_vjp=lambda x, y, w: f.cross(x, y).T @ w,
            )
        )
        self.upper = sad.FunctionUpper(
            self.wrapped(upper.value) if nan else upper.value, upper.grad_y
        )

    def wrapped(self, function):
        def call(*args):
            self.calls += 1
            found = function(*args)
            if self.calls > 200 and self.rng.random() < self.share:
                if self.kind == "nan":
                    return found * math.nan
                noise = self.rng.standard_normal(np.shape(found))
                return found + 0.3 * np.linalg.norm(found) * noise
            return found

        return call


@pytest.mark.parametrize("kind", ["nan", "stagnation"])
def test_injected_failures_lose_no_run(kind):
    """NaN at random calls, products that are no products: told, refused, never believed."""
    for seed in range(4):
        problem, upper, x0 = plain_logistic(seed)
        rng = np.random.default_rng(seed)
        bad = Injected(problem, upper, rng, 0.004, kind)
        try:
            found = sad.minimize(
                bad.problem, bad.upper, x0, bounds=(-12, 3), maxiter=25
            )
        except sad.ConvergenceError:
            continue  # of the first evaluation
        value, gradient = exact(problem, upper, found.x)
        bar = [r for r in found.history if r.value == found.fun][-1].value_error
        assert abs(found.fun - value) <= bar + 1e-7 * abs(value)
        if found.success:
            size = np.linalg.norm(found.x - np.clip(found.x - gradient, -12, 3))
            assert size <= 1.01e-4 * abs(value)


def test_kill_and_resume_gives_the_same_iterates(tmp_path):
    problem, upper, x0 = plain_logistic(4)

    def run(path, stop=None):
        seen = []

        def watch(state):
            seen.append(state.x.copy())
            if stop is not None and state.record.nit == stop:
                raise KeyboardInterrupt

        try:
            found = sad.minimize(
                problem,
                upper,
                x0,
                bounds=(-12, 3),
                checkpoint=path,
                callback=watch,
                maxiter=25,
            )
        except KeyboardInterrupt:
            found = None
        return found, seen

    whole, iterates = run(tmp_path / "whole")
    for stop in (1, 6, 13):
        path = tmp_path / f"stop{stop}"
        run(path, stop)
        again, rest = run(path)
        np.testing.assert_array_equal(again.x, whole.x)
        assert [r.value for r in again.history] == [r.value for r in whole.history]
        np.testing.assert_array_equal(rest[-1], iterates[-1])
        spent, all_spent = ((r.n_hvp, r.n_grad, r.nfev) for r in (again, whole))
        assert spent == all_spent


# starts -------------------------------------------------------------------------------


def two_valleys(calls):
    """Return F = (y − 1)² (y + 3.6)² + y + 8, y = x: the lower valley is at −3.6."""
    lower = sad.FunctionObjective(
        value=lambda x, y: 0.5 * float((y - x) @ (y - x)),
        grad=lambda x, y: y - x,
        hvp=lambda x, y, v: v,
        cross_vjp=lambda x, y, w: -w,
        n=1,
    )

    def value(x, y):
        calls.append(float(x[0]))
        return float((y[0] - 1) ** 2 * (y[0] + 3.6) ** 2 + y[0] + 8)

    def slope(x, y):
        p, q = y - 1, y + 3.6
        return 2 * p * q * (p + q) + 1

    return sad.Problem(lower), sad.FunctionUpper(value, slope)


@pytest.mark.parametrize("method", [None, "lbfgs"])
def test_starts_find_the_lower_valley(method, tmp_path):
    calls = []
    problem, upper = two_valleys(calls)
    x0 = np.array([1.0])
    alone = sad.minimize(problem, upper, x0, method=method)
    assert alone.x[0] == pytest.approx(1.0, abs=0.1)
    calls.clear()
    path = tmp_path / "run"
    options = {"method": method, "starts": 5, "checkpoint": path}
    several = sad.minimize(problem, upper, x0, **options, maxiter=2)
    assert len(set(calls[:5])) == 5
    assert several.x[0] < -2.0
    again = sad.minimize(problem, upper, x0, **options)
    assert again.success
    assert again.x[0] == pytest.approx(-3.62, abs=0.05)
    whole = sad.minimize(problem, upper, x0, method=method, starts=5)
    assert whole.x[0] == pytest.approx(again.x[0], abs=1e-6)


def test_starts_stay_within_bounds_and_survive_failures():
    problem, upper = two_valleys([])

    def solver(problem, x, y0, tol):
        if x[0] < 0.0:
            raise sad.ConvergenceError("no", sad.Status.UNBOUNDED, None)
        return sad.solve(problem, x, y0, tol=tol)

    found = sad.minimize(
        problem, upper, np.array([1.0]), starts=7, bounds=(-2, 2), solver=solver
    )
    assert found.x[0] == pytest.approx(1.0, abs=0.1)
    with pytest.raises(ValueError, match="starts"):
        sad.minimize(problem, upper, np.array([1.0]), starts=-1)


# the picture --------------------------------------------------------------------------


def test_the_plot_shows_the_errors_as_a_band():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    problem, upper, x0 = plain_logistic(3)
    found = sad.minimize(problem, upper, x0, bounds=(-12, 3), maxiter=10)
    figure = found.plot()
    figure.canvas.draw()
    for row, (height, error) in enumerate(
        (("value", "value_error"), ("gradient_norm", "gradient_error"))
    ):
        for ax in figure.axes[2 * row : 2 * row + 2]:
            (band,) = ax.collections
            ends = band.get_paths()[0].vertices[:, 1]
            for record in found.history[:-1]:
                middle, half = getattr(record, height), getattr(record, error)
                assert np.abs(ends - (middle + half)).min() <= 1e-12 * middle
                low = middle - half
                if row:  # of a logarithmic axis
                    low = max(low, min(r.gradient_norm for r in found.history) / 3.0)
                assert np.abs(ends - low).min() <= 1e-12 * middle
    plt.close(figure)


# cost ---------------------------------------------------------------------------------


def test_three_penalties_converge_for_the_price_of_lbfgs():
    rng = np.random.default_rng(0)
    rows, T, sizes = 300, 6, (50, 100, 200)
    X = rng.standard_normal((rows, sum(sizes)))
    groups = np.repeat(np.arange(3), sizes)
    weights = rng.standard_normal((sum(sizes), T))
    Y = X @ (weights * np.array([1.0, 0.3, 0.0])[groups][:, None])
    Y = Y + Y.std() * rng.standard_normal((rows, T))
    X, Y = X - X.mean(0), (Y - Y.mean(0)) / Y.std(0)
    spent = {None: 0, "lbfgs": 0}
    for t in range(T):
        glm = Glm(
            X[:200],
            Y[:200, t],
            loss="squared",
            penalty="per-group",
            groups=groups,
            intercept=False,
        )
        held = glm.held_out(X[200:], Y[200:, t])
        for method in spent:
            found = sad.minimize(
                sad.Problem(glm), held, np.zeros(3), method=method, bounds=(-16, 6)
            )
            assert found.success
            spent[method] += found.n_hvp + found.n_grad
    assert spent[None] <= 1.1 * spent["lbfgs"], spent


def test_thirty_penalties_converge_for_the_price_of_lbfgs():
    datasets = pytest.importorskip("sklearn.datasets")
    X, t = datasets.load_breast_cancer(return_X_y=True)
    X = (X - X.mean(0)) / X.std(0)
    glm = Glm(X[:300], t[:300])
    problem, held = sad.Problem(glm), glm.held_out(X[300:], t[300:])
    found, peer = (
        sad.minimize(problem, held, np.full(30, -3.0), bounds=(-12, 4), method=method)
        for method in (None, "lbfgs")
    )
    assert found.success
    assert found.n_hvp <= peer.n_hvp
    assert found.fun <= 1.01 * peer.fun


def test_values_of_a_run_that_maxiter_ends_are_right():
    for seed in (77, 78):
        problem, upper, x0 = plain_logistic(seed, n=120, rows=400)
        for steps in (9, 17):
            found = sad.minimize(problem, upper, x0, maxiter=steps)
            assert_certified(found, problem, upper)
