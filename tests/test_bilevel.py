"""``minimize``: known optima, bounds, stops, failures, costs, and the record of a run."""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys

import numpy as np
import pytest
from scipy import optimize, sparse

import sparse_argdiff as sad
from sparse_argdiff.bilevel import HistoryRecord
from sparse_argdiff.linear_model import Glm

METHODS = ["inexact_lbfgs", "newton", "maid", "lbfgs", "gradient_descent"]
INEXACT = {"inexact_lbfgs", "newton", "maid"}
each_method = pytest.mark.parametrize("method", METHODS)

# problems with known answers ----------------------------------------------------------


class Quadratic:
    """min_x ½‖y − t‖² + ½ ρ‖x‖²  with  y = argmin ½ y'Ay − y'(Bx + c) = A⁻¹(Bx + c)."""

    def __init__(self, n=8, m=3, dtype=np.float64):
        rng = np.random.default_rng(0)
        G = rng.standard_normal((n, n))
        self.A = (G @ G.T / n + np.eye(n)).astype(dtype)
        self.B = rng.standard_normal((n, m)).astype(dtype)
        self.c = rng.standard_normal(n).astype(dtype)
        self.t = rng.standard_normal(n).astype(dtype)
        self.rho = 0.1
        self.m, self.dtype = m, dtype
        self.products = 0
        A, B, c, t = self.A, self.B, self.c, self.t

        def hvp(x, y, v):
            self.products += 1
            return A @ v

        self.problem = sad.Problem(
            sad.FunctionObjective(
                value=lambda x, y: 0.5 * y @ (A @ y) - y @ (B @ x + c),
                grad=lambda x, y: A @ y - B @ x - c,
                hvp=hvp,
                cross_vjp=lambda x, y, w: -(B.T @ w),
                cross_jvp=lambda x, y, u: -(B @ u),
                n=n,
            )
        )
        rho = dtype(self.rho)
        self.upper = sad.FunctionUpper(
            value=lambda x, y: 0.5 * (y - t) @ (y - t) + 0.5 * rho * (x @ x),
            grad_y=lambda x, y: y - t,
            grad_x=lambda x, y: rho * x,
        )
        self.x0 = np.full(m, 2.0, dtype=dtype)

    def value(self, x):
        y = np.linalg.solve(self.A, self.B @ x + self.c)
        return 0.5 * (y - self.t) @ (y - self.t) + 0.5 * self.rho * (x @ x)

    def optimum(self):
        S, y0 = np.linalg.solve(self.A, self.B), np.linalg.solve(self.A, self.c)
        return np.linalg.solve(S.T @ S + self.rho * np.eye(self.m), S.T @ (self.t - y0))

    def optimum_within(self, low, high):
        found = optimize.minimize(
            self.value,
            np.clip(self.x0, low, high),
            bounds=optimize.Bounds(low, high),
            method="L-BFGS-B",
            options={"ftol": 1e-15, "gtol": 1e-9},
        )
        return found.x

    def minimize(self, method="lbfgs", **options):
        x0 = options.pop("x0", self.x0)
        options = {"tol": 1e-6, "maxiter": 500, "lower_tol": 1e-13} | options
        return sad.minimize(self.problem, self.upper, x0, method=method, **options)


class Pole:
    """f = ½ (1 − x) y² − y, bounded below for x < 1 only, where y = 1/(1 − x)."""

    def __init__(self, target):
        self.problem = sad.Problem(
            sad.FunctionObjective(
                value=lambda x, y: 0.5 * (1 - x[0]) * (y @ y) - np.sum(y),
                grad=lambda x, y: (1 - x[0]) * y - 1.0,
                hvp=lambda x, y, v: (1 - x[0]) * v,
                cross_vjp=lambda x, y, w: np.array([-(y @ w)]),
                n=1,
            )
        )
        # Far from the pole F is nearly flat, so that the steps grow long on the way.
        self.upper = sad.FunctionUpper(
            value=lambda x, y: float(0.5 * (y - target) @ (y - target)),
            grad_y=lambda x, y: y - target,
        )
        self.optimum = 1.0 - 1.0 / target


@each_method
def test_known_optimum_of_a_quadratic(method):
    known = Quadratic()
    found = known.minimize(method)
    best = known.optimum()
    assert found.success
    assert found.status is sad.Status.CONVERGED
    np.testing.assert_allclose(found.x, best, atol=1e-4)
    assert found.fun == pytest.approx(known.value(best), rel=1e-8)
    np.testing.assert_allclose(
        found.y, np.linalg.solve(known.A, known.B @ found.x + known.c), atol=1e-7
    )


def ridge_data():
    rng = np.random.default_rng(1)
    F, V = rng.standard_normal((40, 6)), rng.standard_normal((30, 6))
    c = np.array([2.0, -1.0, 0.5, 0.0, 0.0, 0.0])
    t = F @ c + 0.7 * rng.standard_normal(40)
    s = V @ c + 0.7 * rng.standard_normal(30)
    return F, t, V, s


def ridge_closed_form(x):
    """Return F(x) and ∇F(x) of ridge regression with a penalty per feature."""
    F, t, V, s = ridge_data()
    H = F.T @ F / 40 + np.diag(np.exp(x))
    c = np.linalg.solve(H, F.T @ t / 40)
    r = V @ c - s
    adjoint = np.linalg.solve(H, V.T @ r / 30)
    return r @ r / 60, -np.exp(x) * c * adjoint


@pytest.mark.parametrize(
    ("method", "tol", "atol"), [("lbfgs", 1e-6, 1e-8), ("gradient_descent", 1e-4, 5e-5)]
)
def test_ridge_per_feature_against_scipy(method, tol, atol):
    F, t, V, s = ridge_data()
    glm = Glm(sparse.csr_array(F), t, loss="squared", intercept=False)
    x0 = np.full(6, -1.0)
    box = optimize.Bounds(-6.0, 3.0)
    scipy = optimize.minimize(
        ridge_closed_form,
        x0,
        jac=True,
        method="L-BFGS-B",
        bounds=box,
        options={"ftol": 1e-15, "gtol": 1e-10},
    )
    ours = sad.minimize(
        sad.Problem(glm),
        glm.held_out(V, s),
        x0,
        method=method,
        bounds=box,
        tol=tol,
        maxiter=500,
        lower_tol=1e-12,
    )
    value, gradient = ridge_closed_form(ours.x)
    assert ours.success
    assert ours.fun == pytest.approx(value, rel=1e-10)
    np.testing.assert_allclose(ours.jac, gradient, atol=1e-10)
    assert scipy.fun - 1e-10 <= ours.fun <= scipy.fun + atol
    if method == "lbfgs":
        np.testing.assert_allclose(ours.x, scipy.x, atol=1e-3)
        at_a_bound = (scipy.x == -6.0) | (scipy.x == 3.0)
        assert at_a_bound.any()
        np.testing.assert_array_equal(ours.x[at_a_bound], scipy.x[at_a_bound])


# bounds -------------------------------------------------------------------------------

INF = math.inf
# Name: (bounds as given, what they mean); the free optimum has entries either side.
BOUNDS = {
    "numbers": ((-0.1, 0.1), [-0.1] * 3, [0.1] * 3),
    "ints": ((0, 1), [0.0] * 3, [1.0] * 3),
    "no low": ((None, 0.1), [-INF] * 3, [0.1] * 3),
    "no high": ((-0.1, None), [-0.1] * 3, [INF] * 3),
    "infinite": ((-INF, INF), [-INF] * 3, [INF] * 3),
    "neither": ((None, None), [-INF] * 3, [INF] * 3),
    "arrays": (
        (np.array([-0.1, -0.2, -INF]), np.array([0.1, 0.05, 0.1])),
        [-0.1, -0.2, -INF],
        [0.1, 0.05, 0.1],
    ),
    "array and number": (
        (np.array([-0.1, -0.2, -0.3]), 0.1),
        [-0.1, -0.2, -0.3],
        [0.1] * 3,
    ),
    "array and None": (
        (np.array([-0.1, -0.2, 0.3]), None),
        [-0.1, -0.2, 0.3],
        [INF] * 3,
    ),
    "pairs": (
        [(-0.1, 0.1), (-0.2, 0.05), (0.0, 0.1)],
        [-0.1, -0.2, 0.0],
        [0.1, 0.05, 0.1],
    ),
    "lists of pairs": (
        [[-0.1, 0.1], [-0.2, 0.05], [0.0, 0.1]],
        [-0.1, -0.2, 0.0],
        [0.1, 0.05, 0.1],
    ),
    "tuple of pairs": (
        ((-0.1, 0.1), (-0.2, 0.05), (0.0, 0.1)),
        [-0.1, -0.2, 0.0],
        [0.1, 0.05, 0.1],
    ),
    "pairs with None": (
        [(None, 0.1), (-0.2, None), (None, None)],
        [-INF, -0.2, -INF],
        [0.1, INF, INF],
    ),
    "array of pairs": (
        np.array([[-0.1, 0.1], [-0.2, 0.05], [0.0, 0.1]]),
        [-0.1, -0.2, 0.0],
        [0.1, 0.05, 0.1],
    ),
    "zip": (
        zip([-0.1, -0.2, 0.0], [0.1, 0.05, 0.1], strict=True),
        [-0.1, -0.2, 0.0],
        [0.1, 0.05, 0.1],
    ),
    "Bounds of numbers": (optimize.Bounds(-0.1, 0.1), [-0.1] * 3, [0.1] * 3),
    "Bounds of arrays": (
        optimize.Bounds([-0.1, -INF, 0.0], [0.1, 0.05, INF]),
        [-0.1, -INF, 0.0],
        [0.1, 0.05, INF],
    ),
    "Bounds, low alone": (optimize.Bounds(lb=0.0), [0.0] * 3, [INF] * 3),
    "an entry fixed": (
        [(0.07, 0.07), (-1.0, 1.0), (None, None)],
        [0.07, -1.0, -INF],
        [0.07, 1.0, INF],
    ),
    "start outside": ((-9.0, -1.0), [-9.0] * 3, [-1.0] * 3),
}


@each_method
@pytest.mark.parametrize("form", BOUNDS)
def test_bounds(form, method):
    given, low, high = BOUNDS[form]
    if form == "zip":
        given = zip(low, high, strict=True)
    known, seen = Quadratic(), []
    found = known.minimize(
        method, bounds=given, callback=lambda state: seen.append(state.x.copy())
    )
    low, high = np.array(low), np.array(high)
    expected = known.optimum_within(low, high)
    assert found.success
    for x in seen:
        assert np.all((low <= x) & (x <= high))
    np.testing.assert_allclose(found.x, expected, atol=2e-4)
    active = (expected == low) | (expected == high)
    np.testing.assert_array_equal(found.x[active], expected[active])
    if form in {"numbers", "ints", "pairs", "arrays", "start outside"}:
        assert active.any()
    assert found.history[-1].gradient_norm <= 1e-6 * size_of(found)


def test_an_array_of_two_pairs_is_read_as_scipy_reads_it():
    """For m = 2 an (m, 2) array must not pass for (low, high) transposed."""
    known = Quadratic(m=2)
    pairs = np.array([[-0.3, -0.2], [5.0, 6.0]])
    found = known.minimize(bounds=pairs)
    assert np.all((pairs[:, 0] <= found.x) & (found.x <= pairs[:, 1]))


# the record of a run ------------------------------------------------------------------


@each_method
def test_history_and_result(method):
    known, states = Quadratic(), []
    found = known.minimize(method, callback=states.append)
    history = found.history
    assert isinstance(found, optimize.OptimizeResult)
    assert all(isinstance(record, HistoryRecord) for record in history)
    assert [record.nit for record in history] == list(range(found.nit + 1))
    assert found.nit >= 3
    for before, after in itertools.pairwise(history):
        assert after.value < before.value + (1e-3 if method in INEXACT else 0.0)
        assert after.n_hvp > before.n_hvp
        assert after.n_grad > before.n_grad
        assert after.n_evaluations > before.n_evaluations
        assert after.seconds >= before.seconds
        assert after.step_norm > 0.0
    assert history[0].step_norm == 0.0
    assert history[0].n_evaluations == 1
    assert history[0].n_hvp > 0
    assert history[0].seconds >= 0.0
    rough = 1e-2 if method in INEXACT else 1e-6
    assert history[0].value == pytest.approx(known.value(known.x0), rel=rough)

    assert found.fun == history[-1].value
    assert found.n_hvp == known.products
    spent = found.n_hvp - found.certificate.n_hvp
    assert (
        (spent >= history[-1].n_hvp)
        if method in INEXACT
        else (spent == history[-1].n_hvp)
    )
    assert found.n_grad >= history[-1].n_grad
    assert found.nfev == history[-1].n_evaluations
    assert found.message == "The projected gradient of F meets the tolerance."
    again = sad.Hypergradient(known.problem, known.upper, tol=1e-12).evaluate(found.x)
    assert found.fun == pytest.approx(again.value, rel=1e-8)
    np.testing.assert_allclose(found.jac, again.gradient, atol=1e-7)
    np.testing.assert_allclose(found.y, again.solution.y, atol=1e-8)
    assert np.linalg.norm(found.jac) == pytest.approx(history[-1].gradient_norm)

    assert [state.record.nit for state in states] == [r.nit for r in history]
    for state in states:
        assert state.fun == state.record.value
        assert state.fun == pytest.approx(
            known.value(state.x), rel=1e-2 if method in INEXACT else 1e-8
        )
        assert state.jac.shape == (3,)
        assert state.y.shape == (8,)
    np.testing.assert_array_equal(states[0].x, known.x0)
    np.testing.assert_array_equal(states[-1].x, found.x)
    steps = [np.linalg.norm(b.x - a.x) for a, b in itertools.pairwise(states)]
    np.testing.assert_allclose([r.step_norm for r in history[1:]], steps)
    assert "n_hvp" in repr(found)


@each_method
@pytest.mark.parametrize("kind", ["true", "numpy true", "StopIteration"])
@pytest.mark.parametrize("at", [0, 2])
def test_callback_stops(method, kind, at):
    def callback(state):
        if state.record.nit < at:
            return None
        if kind == "StopIteration":
            raise StopIteration
        return True if kind == "true" else np.True_

    found = Quadratic().minimize(method, callback=callback)
    assert found.nit == at
    assert len(found.history) == at + 1
    assert not found.success
    assert found.status is sad.Status.STOPPED_BY_CALLBACK
    assert found.fun == found.history[-1].value


@each_method
def test_an_error_in_the_callback_is_the_users(method):
    def callback(state):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        Quadratic().minimize(method, callback=callback)


@each_method
@pytest.mark.parametrize("maxiter", [0, 1, 3])
def test_maxiter(method, maxiter):
    known = Quadratic()
    found = known.minimize(method, maxiter=maxiter, tol=0.0)
    assert found.nit == maxiter
    assert len(found.history) == maxiter + 1
    assert not found.success
    assert found.status is sad.Status.ITERATION_LIMIT
    if maxiter == 0:
        np.testing.assert_array_equal(found.x, known.x0)
        rough = 1e-2 if method in INEXACT else 1e-6
        assert found.fun == pytest.approx(known.value(known.x0), rel=rough)
        assert found.nfev == (2 if method in INEXACT else 1)  # loosely, then finely


def size_of(found, value=None):
    """Return what ``tol`` is relative to: F, or a thousandth of the gain."""
    value = found.fun if value is None else value
    return max(abs(value), 1e-3 * (found.history[0].value - value))


@each_method
def test_tol_is_relative_to_F(method):
    known, previous = Quadratic(), 0
    for tol in (1e-1, 1e-2, 1e-4):
        found = known.minimize(method, tol=tol)
        assert found.success
        assert found.history[-1].gradient_norm <= tol * size_of(found)
        for record in found.history[:-1]:
            assert record.gradient_norm > 0.9 * tol * size_of(found, record.value)
        assert found.nit >= previous
        previous = found.nit


@each_method
def test_a_run_from_anothers_solution_converges_at_once(method):
    """The tolerance does not depend on the start."""
    known = Quadratic()
    first = known.minimize("lbfgs")
    again = known.minimize(method, x0=first.x)
    assert again.status is sad.Status.CONVERGED
    assert again.nit <= 3


@each_method
def test_a_stationary_start_converges_at_once(method):
    known = Quadratic()
    flat = sad.FunctionUpper(lambda x, y: 1.0, lambda x, y: 0.0 * y)
    found = sad.minimize(known.problem, flat, known.x0, method=method)
    assert found.success
    assert found.nit == 0


@each_method
def test_tol_zero_ends_where_rounding_ends_it(method):
    known = Quadratic()
    found = known.minimize(method, tol=0.0, maxiter=2000)
    assert found.status in {
        sad.Status.LINE_SEARCH_FAILED,
        sad.Status.ITERATION_LIMIT,
        sad.Status.CONVERGED,
    }
    np.testing.assert_allclose(found.x, known.optimum(), atol=1e-4)


@pytest.mark.parametrize("method", [*METHODS, "hoag", "hoag_quadratic"])
@pytest.mark.parametrize("bounds", [None, (-0.5, 0.3)])
def test_two_runs_are_identical(method, bounds):
    """The same bits, all of the record but its seconds."""
    one, two = (
        Quadratic().minimize(method, bounds=bounds, maxiter=40) for _ in range(2)
    )
    for name in ("x", "jac", "y"):
        np.testing.assert_array_equal(one[name], two[name])
    assert one.message == two.message
    for a, b in zip(one.history, two.history, strict=True):
        assert dataclasses.replace(a, seconds=0.0) == dataclasses.replace(
            b, seconds=0.0
        )


def test_two_runs_of_a_sparse_model_are_identical():
    for method in METHODS:
        one, two = (
            sad.minimize(*sparse_logistic(), method=method, maxiter=5) for _ in range(2)
        )
        np.testing.assert_array_equal(one.x, two.x)
        assert [r.value for r in one.history] == [r.value for r in two.history]


@each_method
def test_history_names_the_tolerances(method):
    found = Quadratic().minimize(method, lower_tol=1e-9, adjoint_tol=1e-7, maxiter=30)
    lower = [record.lower_tol for record in found.history]
    adjoint = [record.adjoint_tol for record in found.history]
    if method in INEXACT:
        assert max(lower) > 1e-9, "an adaptive method has a tolerance that moves"
        assert min(lower) >= 1e-9
    else:
        assert set(lower) == {1e-9}
        assert set(adjoint) == {1e-7}
    F = sad.Hypergradient(Quadratic().problem, Quadratic().upper, tol=1e-6)
    x = Quadratic().x0
    for options, expected in (
        ({}, (1e-6, 1e-6)),
        ({"tol": 1e-3}, (1e-3, 1e-3)),
        ({"adjoint_tol": 1e-2}, (1e-6, 1e-2)),
    ):
        found = F.evaluate(x, **options)
        assert (found.tol, found.adjoint_tol) == expected


def test_the_state_of_a_hypergradient_can_be_set_again():
    """An evaluation from a saved state is the evaluation that followed it, to the bit."""
    problem, held, x0 = sparse_logistic()
    F = sad.Hypergradient(problem, held, tol=1e-4)
    assert F.state.y is None
    F.evaluate(x0)
    state = F.state
    expected, after = F.evaluate(x0 + 0.3), F.state
    again = sad.Hypergradient(problem, held, tol=1e-4)
    again.state = state
    assert again.n_hvp == state.n_hvp > 0
    found = again.evaluate(x0 + 0.3)
    assert found.value == expected.value
    np.testing.assert_array_equal(found.gradient, expected.gradient)
    np.testing.assert_array_equal(again.state.y, after.y)
    np.testing.assert_array_equal(again.state.adjoints, after.adjoints)
    assert again.state.n_hvp == after.n_hvp
    cold = sad.Hypergradient(problem, held, tol=1e-4).evaluate(x0 + 0.3)
    assert cold.n_hvp > found.n_hvp


@each_method
def test_start_is_not_modified(method):
    known = Quadratic()
    x0 = known.x0.copy()
    x0.flags.writeable = False
    found = known.minimize(method, x0=x0, maxiter=3)
    np.testing.assert_array_equal(x0, known.x0)
    assert found.x.flags.writeable
    for maxiter in (0, 3):
        x0 = known.x0.copy()
        found = known.minimize(method, x0=x0, maxiter=maxiter)
        found.x += 1.0
        np.testing.assert_array_equal(x0, known.x0, err_msg="the result shares x0")
    assert known.minimize(method, x0=list(known.x0)).success


@each_method
def test_y0_starts_the_first_solve(method):
    known = Quadratic()
    y0 = np.linalg.solve(known.A, known.B @ known.x0 + known.c)
    y0.flags.writeable = False
    warm = known.minimize(method, y0=y0, maxiter=0)
    cold = known.minimize(method, maxiter=0)
    assert warm.n_hvp < cold.n_hvp


@each_method
@pytest.mark.parametrize("bounds", [None, (-1.0, 0.125)])
def test_float32(method, bounds):
    single, double = Quadratic(dtype=np.float32), Quadratic()
    found = single.minimize(method, tol=1e-2, lower_tol=1e-5, bounds=bounds)
    for array in (found.x, found.jac, found.y):
        assert array.dtype == np.float32
    assert found.success
    low, high = (-INF, INF) if bounds is None else bounds
    expected = double.optimum_within(np.full(3, low), np.full(3, high))
    np.testing.assert_allclose(found.x, expected, atol=0.05)


@each_method
def test_progress(method, capsys):
    pytest.importorskip("tqdm")
    found = Quadratic().minimize(method, progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"{found.nit}/500" in captured.err
    assert "products=" in captured.err


@each_method
@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_progress_is_closed_whatever_happens(method, error, capsys):
    tqdm = pytest.importorskip("tqdm.auto").tqdm

    def callback(state):
        if state.record.nit == 2:
            raise error

    with pytest.raises(error):
        Quadratic().minimize(method, progress=True, callback=callback)
    assert not list(getattr(tqdm, "_instances", []))
    assert "2/500" in capsys.readouterr().err
    pole = Pole(target=4.0)
    with pytest.raises(sad.ConvergenceError):
        sad.minimize(pole.problem, pole.upper, [2.0], method=method, progress=True)
    assert not list(getattr(tqdm, "_instances", []))


def test_progress_goes_on_where_the_run_does(tmp_path, capsys):
    pytest.importorskip("tqdm")
    options = {"checkpoint": tmp_path / "run", "progress": True, "tol": 0.0}
    Quadratic().minimize("gradient_descent", maxiter=3, **options)
    assert "3/3" in capsys.readouterr().err
    Quadratic().minimize("gradient_descent", maxiter=5, **options)
    shown = capsys.readouterr().err
    assert "3/5" in shown
    assert "5/5" in shown
    assert "2/5" not in shown


@each_method
def test_progress_without_tqdm(method, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    assert Quadratic().minimize(method, progress=True).success
    assert capsys.readouterr().err == ""


@each_method
def test_silent_by_default(method, capsys):
    Quadratic().minimize(method)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


# the picture --------------------------------------------------------------------------


@pytest.fixture
def pyplot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    yield plt
    plt.close("all")


@each_method
def test_plot(method, pyplot):
    found = Quadratic().minimize(method)
    figure = found.plot()
    products = [record.n_hvp + record.n_grad for record in found.history]
    seconds = [record.seconds for record in found.history]
    values = [record.value for record in found.history]
    sizes = [record.gradient_norm for record in found.history]
    drawn = [(values, products), (values, seconds), (sizes, products), (sizes, seconds)]
    for ax, (heights, costs) in zip(figure.axes, drawn, strict=True):
        line = ax.lines[0]
        np.testing.assert_array_equal(line.get_xdata(), costs)
        np.testing.assert_array_equal(line.get_ydata(), heights)
    assert [ax.get_xlabel() for ax in figure.axes[2:]] == ["products", "seconds"]
    assert [ax.get_yscale() for ax in figure.axes] == ["linear"] * 2 + ["log"] * 2
    figure.canvas.draw()
    assert all(ax.get_legend() is None for ax in figure.axes)


def test_plot_of_two_runs_on_given_axes(pyplot):
    short, long = (Quadratic().minimize("maid", tol=tol) for tol in (1e-1, 1e-6))
    figure, axes = pyplot.subplots(2, 2)
    assert short.plot(axes, label="short") is figure
    assert long.plot(figure.axes, label="long") is figure
    assert len(figure.axes) == 4
    figure.canvas.draw()
    for ax, record in zip(figure.axes, 4 * [long.history[-1]], strict=True):
        last = ax.lines[-1].get_xdata()[-1]
        assert last in {record.n_hvp + record.n_grad, record.seconds}
        low, high = ax.get_xlim()
        assert low == 0.0
        assert high >= last, "the longer run is cut off"
    words = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert words == ["short", "long"]
    with pytest.raises(ValueError, match="axes must be four matplotlib axes, found 1"):
        short.plot(figure.axes[0])


def test_plot_of_a_run_without_a_step_or_a_slope(pyplot):
    known = Quadratic()
    known.minimize(maxiter=0).plot().canvas.draw()
    flat = sad.FunctionUpper(lambda x, y: 1.0, lambda x, y: 0.0 * y)
    figure = sad.minimize(known.problem, flat, known.x0).plot()
    figure.canvas.draw()
    assert figure.axes[2].get_yscale() == "linear"  # of zeros


def test_plot_without_matplotlib(monkeypatch):
    found = Quadratic().minimize(maxiter=1)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install 'sparse_argdiff\[plot\]'"):
        found.plot()


# failures on the way ------------------------------------------------------------------


def test_gradient_descent_backs_off_from_an_unbounded_lower_level():
    pole, tried = Pole(target=4.0), []
    value = pole.problem.objective.value
    pole.problem.objective.value = lambda x, y: tried.append(x[0]) or value(x, y)
    found = sad.minimize(
        pole.problem,
        pole.upper,
        [-9.0],
        method="gradient_descent",
        tol=1e-6,
        lower_tol=1e-12,
    )
    assert max(tried) >= 1.0, "the trap was not sprung"
    assert found.success
    assert found.x[0] == pytest.approx(pole.optimum, abs=1e-4)
    assert all(math.isfinite(record.value) for record in found.history)
    for before, after in itertools.pairwise(found.history):
        assert after.value < before.value


def test_lbfgs_steps_back_from_where_the_lower_level_is_unbounded():
    pole, points = Pole(target=50.0), []

    def solver(problem, x, y0, tol):
        points.append(float(x[0]))
        return sad.solve(problem, x, y0, tol=tol)

    options = {"method": "lbfgs", "tol": 1e-6, "lower_tol": 1e-12, "solver": solver}
    found = sad.minimize(pole.problem, pole.upper, [-3.0], **options)
    failed = [x for x in points if x >= 1.0]
    assert failed, "the trap was not sprung"
    assert found.success
    assert found.x[0] == pytest.approx(pole.optimum, abs=1e-8)
    assert found.y[0] == pytest.approx(50.0, rel=1e-6)
    # The next trial is at about a tenth of the way: where q is least.
    k = points.index(failed[0])
    before, beyond, after = points[k - 1 : k + 2]
    assert 0.05 < (after - before) / (beyond - before) < 0.15
    # The values told to SciPy in their place are nowhere in the record.
    for record in found.history:
        assert record.value <= found.history[0].value


def test_lbfgs_resumes_past_a_failed_trial(tmp_path):
    """Failed trials are in the log with the others: the same path, none solved twice."""
    pole, tried = Pole(target=50.0), []

    def solver(problem, x, y0, tol):
        tried.append(float(x[0]))
        return sad.solve(problem, x, y0, tol=tol)

    def run(**more):
        tried.clear()
        found = sad.minimize(
            pole.problem,
            pole.upper,
            [-3.0],
            method="lbfgs",
            tol=1e-6,
            lower_tol=1e-12,
            solver=solver,
            warm_start=False,
            **more,
        )
        return found, list(tried)

    whole, all_tried = run()
    path = tmp_path / "run"
    _, first = run(checkpoint=path, maxiter=3)
    assert any(x >= 1.0 for x in first), "no trial failed before the break"
    resumed, rest = run(checkpoint=path)
    assert resumed.success
    assert resumed.x[0] == whole.x[0]
    assert [r.value for r in resumed.history] == [r.value for r in whole.history]
    assert first + rest == all_tried


@each_method
def test_a_failing_start_raises(method):
    pole = Pole(target=4.0)
    with pytest.raises(sad.ConvergenceError) as caught:
        sad.minimize(pole.problem, pole.upper, [2.0], method=method)
    assert caught.value.status in {
        sad.Status.UNBOUNDED,
        sad.Status.NEGATIVE_CURVATURE,
    }
    bad = sad.FunctionUpper(lambda x, y: math.nan, lambda x, y: y)
    known = Quadratic()
    with pytest.raises(sad.ConvergenceError) as caught:
        sad.minimize(known.problem, bad, known.x0, method=method)
    assert caught.value.status is sad.Status.NOT_FINITE


# Both limits end these runs; by 60 steps they are at the edge to the last bit, where most
# of hundreds of trials fail.
up_to_the_edge = pytest.mark.parametrize(
    "maxiter", [20, pytest.param(60, marks=pytest.mark.slow)]
)


def spoiled(known, where, name, beyond, bad):
    """Return the upper objective, one function times ``bad`` where x[0] < beyond."""
    functions = {
        "value": known.upper.value,
        "grad_y": known.upper.grad_y,
        "grad_x": known.upper.grad_x,
    }
    sound = functions[name]

    def broken(x, y):
        where.append(x[0])
        return sound(x, y) * (bad if x[0] < beyond else 1.0)

    functions[name] = broken
    return sad.FunctionUpper(**functions)


@each_method
@pytest.mark.parametrize("name", ["value", "grad_y", "grad_x"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@up_to_the_edge
def test_an_upper_level_that_is_not_finite_at_a_trial(method, name, bad, maxiter):
    """The optimum is beyond where a function breaks: nothing NaN is ever accepted."""
    known, where = Quadratic(), []
    beyond = 0.5 * (known.x0[0] + known.optimum()[0])
    upper = spoiled(known, where, name, beyond, bad)
    found = sad.minimize(
        known.problem, upper, known.x0, method=method, tol=1e-8, maxiter=maxiter
    )
    assert min(where) < beyond, "the trap was not sprung"
    assert not found.success
    assert np.all(np.isfinite(found.x))
    assert np.all(np.isfinite(found.jac))
    assert math.isfinite(found.fun)
    assert found.x[0] >= beyond
    assert found.fun <= found.history[0].value
    for record in found.history:
        assert math.isfinite(record.value)
        assert math.isfinite(record.gradient_norm)
    if method == "lbfgs":
        assert found.status is sad.Status.NOT_FINITE
        assert "NaN or infinity" in found.message


def shifted(fails, spent):
    """Return a lower problem that is unbounded, or needs two iterations, for x > 1."""

    def curvature(x):
        if fails == "lower level":
            return 1.0 - x[0]
        return np.array([1.0, 1.0 if x[0] < 1.0 else 2.0])

    def hvp(x, y, v):
        spent.append(1)
        return curvature(x) * v

    def grad(x, y):
        return curvature(x) * y - 1.0

    return sad.Problem(
        sad.FunctionObjective(
            grad=grad, hvp=hvp, cross_vjp=lambda x, y, w: np.array([-(y @ w)]), n=2
        )
    )


@pytest.mark.parametrize(
    ("fails", "words"),
    [("lower level", "lower-level solve failed"), ("adjoint", "linear solve")],
)
def test_failed_solves_are_paid_for(fails, words):
    """``n_hvp`` counts what a failed solve has spent, too."""
    spent = []
    upper = sad.FunctionUpper(lambda x, y: 0.5 * y @ y, lambda x, y: y * [1.0, 3.0])
    F = sad.Hypergradient(shifted(fails, spent), upper, adjoint_maxiter=1)
    F.evaluate(np.array([0.0]))
    assert F.n_hvp == len(spent)
    with pytest.raises(sad.ConvergenceError, match=words):
        F.evaluate(np.array([3.0]))
    assert F.n_hvp == len(spent)


def test_the_product_that_measures_the_scale_is_counted():
    """Where y = 0 is stationary the tolerance is relative to a Hessian product."""
    spent = []
    problem = sad.Problem(
        sad.FunctionObjective(
            grad=lambda x, y: y,
            hvp=lambda x, y, v: spent.append(1) or v,
            cross_vjp=lambda x, y, w: 0.0 * x,
            n=2,
        )
    )
    solution = sad.solve(problem, np.zeros(1), np.ones(2))
    assert solution.n_hvp == len(spent)


class Cliff:
    """F(x) = ½ (y₁(x) − t)² with y₁ = x on the near side of x = 1; beyond it, trouble.

    ``beyond``: what the lower level becomes there.
    """

    def __init__(self, beyond, target):
        beyonds = {
            "unbounded": -np.eye(2),
            "indefinite": np.array([[1.0, 2.0], [2.0, 1.0]]),
            "not unique": np.diag([0.0, 1.0]),
            "nan": np.diag([math.nan, 1.0]),
        }

        def hess(x):
            return np.eye(2) if x[0] < 1.0 else beyonds.get(beyond, np.eye(2))

        self.tried = []

        def value(x, y):
            self.tried.append(float(x[0]))
            return float(0.5 * y @ hess(x) @ y - y[0] * x[0])

        objective = sad.FunctionObjective(
            value=value,
            grad=lambda x, y: hess(x) @ y - np.array([x[0], 0.0]),
            hvp=lambda x, y, v: hess(x) @ v,
            cross_vjp=lambda x, y, w: -w[:1],
            n=2,
        )
        equality = None
        if beyond == "fixed by its weight":

            def fixed(x):
                self.tried.append(float(x[0]))
                return np.array([False, True]) if x[0] >= 1.0 else None

            objective.fixed = fixed
            equality = sad.LinearEquality(np.array([[0.0, 1.0]]), np.zeros(1))
        self.problem = sad.Problem(objective, equality=equality)

        def upper_value(x, y):
            bad = beyond == "upper nan" and x[0] >= 1.0
            return math.nan if bad else float(0.5 * (y[0] - target) ** 2)

        self.upper = sad.FunctionUpper(
            upper_value, lambda x, y: np.array([y[0] - target, 0.0])
        )


TROUBLES = [
    *("unbounded", "indefinite", "not unique", "nan", "upper nan"),
    "fixed by its weight",
]


@pytest.mark.parametrize("method", [*METHODS, "hoag", "hoag_quadratic"])
@pytest.mark.parametrize("beyond", TROUBLES)
@up_to_the_edge
def test_trouble_on_the_way_ends_with_a_reason_and_the_best_so_far(
    beyond, method, maxiter
):
    """The minimum, x = 3, is beyond the cliff at x = 1: every method must meet it."""
    cliff = Cliff(beyond, target=3.0)
    found = sad.minimize(
        cliff.problem, cliff.upper, [-4.0], method=method, tol=1e-6, maxiter=maxiter
    )
    assert max(cliff.tried) >= 1.0, "the trap was not sprung"
    assert not found.success
    assert len(found.message) > 20
    assert found.x[0] < 1.0
    assert math.isfinite(found.fun)
    assert np.all(np.isfinite(found.jac))
    assert found.fun == pytest.approx(0.5 * (found.x[0] - 3.0) ** 2, rel=1e-3)
    if method in INEXACT:  # whose last point is the best: its values have error bars
        assert found.fun == found.history[-1].value
    else:
        least = min(record.value for record in found.history)
        # The values of "hoag" on the way are of looser solves than ``fun``.
        assert found.fun == (
            pytest.approx(least, rel=1e-12) if "hoag" in method else least
        )
    assert all(math.isfinite(record.value) for record in found.history)
    assert found.x[0] > 0.0  # backs off, up to the edge


@pytest.mark.parametrize("method", [*METHODS, "hoag"])
@pytest.mark.parametrize("beyond", TROUBLES)
def test_drivers_back_off_from_trouble_and_reach_a_minimum_before_it(beyond, method):
    cliff = Cliff(beyond, target=0.9)
    found = sad.minimize(
        cliff.problem, cliff.upper, [-40.0], method=method, tol=1e-4, maxiter=200
    )
    # "hoag" has no way to lengthen a step soon after it was refused.
    assert found.x[0] == pytest.approx(0.9, abs=0.5 if method == "hoag" else 1e-2)


# traps of others ----------------------------------------------------------------------


def half_square():
    """Return the levels of F = ½ ‖x‖² with y = x, of four parameters."""
    problem = sad.Problem(
        sad.FunctionObjective(
            value=lambda x, y: 0.5 * (y - x) @ (y - x),
            grad=lambda x, y: y - x,
            hvp=lambda x, y, v: v,
            cross_vjp=lambda x, y, w: -w,
            n=4,
        )
    )
    upper = sad.FunctionUpper(lambda x, y: 0.5 * float(y @ y), lambda x, y: y)
    return problem, upper


def test_hoag_takes_its_step_once():
    """The published code subtracts it twice where it is accepted.

    On F = ½ ‖x‖² a step of z / L with L = ‖z₀‖ / √m is known in closed form.
    """
    problem, upper = half_square()
    path, x0 = [], np.array([6.0, -2.0, 3.0, 1.0])
    sad.minimize(
        problem,
        upper,
        x0,
        method="hoag",
        maxiter=2,
        callback=lambda state: path.append(state.x.copy()),
    )
    L = np.linalg.norm(x0) / 2.0
    np.testing.assert_allclose(path[1], (1.0 - 1.0 / L) * x0, rtol=1e-2)
    np.testing.assert_allclose(path[2], (1.0 - 1.0 / L) * path[1], rtol=1e-2)


def test_maid_multiplies_its_step_as_published():
    """An accepted step by 10/9, a refused one by 0.9: F = ½ ‖x‖² accepts t <= 2 (1 − η)."""
    problem, upper = half_square()
    path, x0 = [], np.array([0.6, -0.2, 0.3, 0.1])
    sad.minimize(
        problem,
        upper,
        x0,
        method="maid",
        tol=0.0,
        maxiter=12,
        callback=lambda state: path.append(state.x),
    )
    step, taken = 2.0 / np.linalg.norm(x0), 0
    for x, after in itertools.pairwise(path):
        t = (x - after) @ x / (x @ x)  # of x₊ = (1 − t) x
        assert t <= 2.0
        power = np.log(t / step) / np.log(0.9)
        assert power == pytest.approx(round(power), abs=1e-5)
        assert power >= -1e-5
        step, taken = t * 10.0 / 9.0, taken + (round(power) > 0)
    assert len(path) > 5
    assert taken >= 1


def test_loose_solves_spend_a_fraction_of_the_cold_descent():
    """To the same F, with warm adjoints; MAID's published steps take more of them."""
    problem, held, x0 = sparse_logistic()
    paths = {}
    for name, options in (
        ("default", {}),
        ("maid", {"method": "maid"}),
        ("cold", {"method": "gradient_descent", "warm_start": False}),
    ):
        paths[name] = path = []
        sad.minimize(
            problem,
            held,
            x0,
            bounds=(-9.0, 3.0),
            maxiter=40,
            tol=1e-3,
            callback=lambda s, path=path: path.append(
                (s.record.n_hvp + s.record.n_grad, s.x.copy())
            ),
            **options,
        )
    exact = sad.Hypergradient(problem, held, tol=1e-10)
    values = {
        name: np.array([exact.value(x) for _, x in path])
        for name, path in paths.items()
    }
    start, best = values["cold"][0], min(v.min() for v in values.values())
    level = best + 0.1 * (start - best)
    spent = {
        name: path[int(np.flatnonzero(values[name] <= level)[0])][0]
        for name, path in paths.items()
    }
    assert spent["default"] <= spent["cold"] / 3.0, spent
    assert spent["maid"] <= spent["cold"] / 2.0, spent


def test_maid_takes_no_gradient_for_smaller_than_it_is():
    """Where the tolerance is met with inexact numbers the certificate has the say."""
    problem, held, x0 = sparse_logistic()
    found = sad.minimize(problem, held, x0, bounds=(-9.0, 3.0), tol=1e-2, maxiter=200)
    assert found.success
    exact = sad.Hypergradient(problem, held, tol=1e-11)

    def projected(x):
        return np.linalg.norm(x - np.clip(x - exact(x)[1], -9.0, 3.0))

    assert projected(found.x) <= 1.01e-2 * size_of(found)
    if found.certificate is not None:
        error = np.linalg.norm(found.jac - exact(found.x)[1])
        assert found.certificate.gradient_error >= error


PLAIN = {
    "squared": lambda z, noise: 10.0 + z + 0.5 * noise,
    "logistic": lambda z, noise: 1.0 * (z + noise > 0.0),
    "poisson": lambda z, noise: np.floor(np.exp(1.0 + 0.3 * z + 0.1 * noise)),
}


def plain_model(loss, seed, penalty="scalar"):
    """Return a small model with an intercept, its held-out loss and a start."""
    rng = np.random.default_rng(seed)
    X, V = rng.standard_normal((60, 5)), rng.standard_normal((40, 5))
    w, targets = rng.standard_normal(5), PLAIN[loss]
    t = targets(X @ w, rng.standard_normal(60))
    glm = Glm(X, t, loss=loss, penalty=penalty)
    held = glm.held_out(V, targets(V @ w, rng.standard_normal(40)))
    return sad.Problem(glm), held, np.full(glm.m, 5.0)


def assert_true_verdict(found, problem, held, tol=1e-4, bounds=(-16.0, 8.0)):
    """Assert that value, gradient and success are those of an exact evaluation."""
    value, gradient = sad.Hypergradient(problem, held, tol=1e-11)(found.x)
    assert found.fun == pytest.approx(value, rel=1e-6)
    first = found.history[0].gradient_norm
    np.testing.assert_allclose(found.jac, gradient, atol=1e-5 * first)
    size = np.linalg.norm(found.x - np.clip(found.x - gradient, *bounds))
    if found.success:
        assert size <= 1.01 * tol * size_of(found)
    returned = [r for r in found.history if r.value == found.fun]
    assert returned
    assert returned[-1].gradient_norm == pytest.approx(size, abs=1e-5 * first)
    assert abs(found.fun - value) <= found.certificate.value_error + 1e-10 * abs(value)
    error = np.linalg.norm(found.jac - gradient)
    assert error <= found.certificate.gradient_error + 1e-10 * first


@pytest.mark.parametrize("method", [*METHODS, "hoag", "hoag_quadratic"])
@pytest.mark.parametrize("loss", PLAIN)
@pytest.mark.parametrize("penalty", ["scalar", "per-feature"])
def test_the_verdict_is_of_the_point_that_is_returned(penalty, loss, method):
    """On a plateau the gradient of a poor y vanishes, and its corrected value lies."""
    for seed in range(3):
        problem, held, x0 = plain_model(loss, seed, penalty)
        found = sad.minimize(
            problem, held, x0, method=method, bounds=(-16.0, 8.0), maxiter=30
        )
        assert_true_verdict(found, problem, held)


@pytest.mark.parametrize("method", [*METHODS, "hoag"])
@pytest.mark.parametrize("end", ["maxiter", "callback", "line search"])
def test_the_verdict_is_of_the_point_however_the_run_ends(end, method):
    def stop(state):
        return state.record.nit == 3

    options = {
        "maxiter": {"maxiter": 3, "tol": 1e-10},
        "callback": {"callback": stop, "tol": 1e-10},
        "line search": {"tol": 0.0, "maxiter": 40},
    }[end]
    for seed in range(3):
        problem, held, x0 = plain_model("logistic", seed, "per-feature")
        found = sad.minimize(
            problem, held, x0, method=method, bounds=(-16.0, 8.0), **options
        )
        assert not found.success
        assert_true_verdict(found, problem, held)


@pytest.mark.parametrize("method", ["maid", "hoag"])
def test_a_final_evaluation_that_fails_is_told(method):
    """The numbers of the run are returned, and the message says of which tolerance."""
    known, calls = Quadratic(), []

    def solver(problem, x, y0, tol):
        calls.append(tol)
        if tol <= 1e-10:
            raise sad.ConvergenceError("no", sad.Status.STAGNATED, None)
        return sad.solve(problem, x, y0, tol=tol)

    found = known.minimize(method, solver=solver, lower_tol=1e-10, maxiter=2)
    assert calls[-1] == 1e-10
    assert not found.success
    value, certificate = known.value(found.x), found.certificate
    assert abs(found.fun - value) <= certificate.value_error
    assert "their evaluation at 1.0e-10 failed: no" in found.message
    assert found.fun == pytest.approx(known.value(found.x), rel=1e-2)


@each_method
def test_drivers_take_equality_constraints(method):
    """min ½ ‖y − t‖² over x, where y is the projection of x onto Σ y = 1."""
    n = 5
    lower = sad.FunctionObjective(
        value=lambda x, y: 0.5 * float((y - x) @ (y - x)),
        grad=lambda x, y: y - x,
        hvp=lambda x, y, v: v,
        cross_jvp=lambda x, y, u: -u,
        cross_vjp=lambda x, y, w: -w,
        n=n,
    )
    problem = sad.Problem(
        lower, equality=sad.LinearEquality(np.ones((1, n)), np.ones(1))
    )
    target = np.arange(n) / 10.0  # sums to one
    upper = sad.FunctionUpper(
        lambda x, y: 0.5 * float((y - target) @ (y - target)), lambda x, y: y - target
    )
    found = sad.minimize(problem, upper, np.zeros(n), method=method, tol=1e-6)
    # MAID's bars are those of its tolerances here, and end it near the minimum.
    assert found.success or method == "maid"
    np.testing.assert_allclose(found.y, target, atol=1e-4)


def test_a_restart_from_a_failure_begins_at_the_last_good_point():
    """A failed trial must not spoil the warm start."""
    pole = Pole(target=4.0)
    F = sad.Hypergradient(pole.problem, pole.upper)
    first = F.evaluate(np.array([0.0]))
    with pytest.raises(sad.ConvergenceError):
        F.evaluate(np.array([3.0]))
    np.testing.assert_allclose(F.y, first.solution.y, rtol=1e-12)
    again = F.evaluate(np.array([0.0]))
    assert again.value == pytest.approx(first.value, rel=1e-12)


# cost ---------------------------------------------------------------------------------


def sparse_logistic():
    """Return a sparse logistic model, its held-out loss and a start."""
    rng = np.random.default_rng(7)

    def data(N):
        A = sparse.random_array((N, 60), density=0.15, rng=rng, format="csr")
        A.data = rng.standard_normal(A.nnz)
        return A

    A, V = data(300), data(150)
    c = rng.standard_normal(60) * (rng.random(60) < 0.3) * 3.0

    def labels(F):
        return (F @ c + 0.5 * rng.standard_normal(F.shape[0]) > 0).astype(float)

    glm = Glm(A, labels(A))
    return sad.Problem(glm), glm.held_out(V, labels(V)), np.full(60, -4.0)


@pytest.mark.parametrize(
    ("method", "tol", "most"),
    [
        ("lbfgs", 1e-3, 0.65),
        ("lbfgs", 1e-8, 0.85),
        ("gradient_descent", 1e-3, 0.75),
        ("gradient_descent", 1e-8, 0.9),
    ],
)
def test_warm_starts_pay(method, tol, most):
    """40 steps of a method, evaluated warm and cold at the same points."""
    problem, held, x0 = sparse_logistic()
    path = []
    sad.minimize(
        problem,
        held,
        x0,
        method=method,
        bounds=(-9.0, 3.0),
        maxiter=40,
        tol=0.0,
        callback=lambda state: path.append(state.x.copy()),
    )
    assert len(path) == 41
    spent = {}
    for warm in (True, False):
        F = sad.Hypergradient(problem, held, tol=tol, warm_start=warm)
        found = [F.evaluate(x) for x in path]  # a certificate costs the same
        spent[warm] = sum(f.n_hvp - f.certificate.n_hvp for f in found)
    assert spent[True] < most * spent[False], spent


@each_method
def test_warm_start_is_an_option_of_minimize(method):
    problem, held, x0 = sparse_logistic()
    steps = 6
    warm, cold = (
        sad.minimize(problem, held, x0, method=method, maxiter=steps, warm_start=start)
        for start in (True, False)
    )
    assert warm.n_hvp < cold.n_hvp
    if method not in INEXACT:  # whose paths differ with what is inexact about them
        assert warm.fun == pytest.approx(cold.fun, rel=1e-4)


def test_gradient_descent_without_an_end_in_sight_stops():
    """A step too short to move x is a failed line search, not a success repeated."""
    pole = Pole(target=4.0)
    found = sad.minimize(
        pole.problem, pole.upper, [-9.0], method="gradient_descent", tol=0.0
    )
    assert all(record.step_norm > 0.0 for record in found.history[1:])
    exact = not found.jac.any()
    assert found.status is sad.Status.LINE_SEARCH_FAILED or exact


def test_gradient_descent_does_not_bounce_about_a_minimum():
    """A step of almost 2/L passes a lenient decrease test, and F hardly falls."""
    G = sad.FunctionObjective(
        value=lambda x, y: 0.5 * (y - x) @ (y - x),
        grad=lambda x, y: y - x,
        hvp=lambda x, y, v: v,
        cross_vjp=lambda x, y, w: -w,
        n=1,
    )
    upper = sad.FunctionUpper(
        value=lambda x, y: 0.5 * (y @ y), grad_y=lambda x, y: y, grad_x=None
    )
    iterations = {}
    for start in np.linspace(0.5, 1.0, 26):  # where the doubled steps land varies
        found = sad.minimize(
            sad.Problem(G), upper, [start], method="gradient_descent", tol=1e-6
        )
        iterations[round(float(start), 2)] = found.nit
        assert found.success, iterations
    assert max(iterations.values()) <= 40, iterations


def badly_scaled(decades):
    """Return a ridge problem, its held-out loss and x with e^x over many decades."""
    rng = np.random.default_rng(0)
    V = rng.standard_normal((25, 20))
    glm = Glm(rng.standard_normal((40, 20)), rng.standard_normal(40), loss="squared")
    held = glm.held_out(V, rng.standard_normal(25))
    return glm, held, np.log(10.0) * rng.uniform(0.0, decades, 20)


def test_a_poor_warm_start_is_no_excuse():
    """Where e^x rises by 10¹⁶ the last adjoint is far worse a start than zero.

    The tolerance of a solve is relative to its right-hand side, so the answer must be
    as good as from a cold start: "rounding limit" is not to be had from the start.
    """
    glm, held, far = badly_scaled(decades=16)
    found = {}
    for warm in (False, True):
        F = sad.Hypergradient(sad.Problem(glm), held, warm_start=warm)
        F.evaluate(np.full(20, -5.0))
        found[warm] = F.evaluate(far)
        assert found[warm].adjoint.krylov.converged
    error = np.linalg.norm(found[True].gradient - found[False].gradient)
    assert error <= 1e-6 * np.linalg.norm(found[False].gradient)


@pytest.mark.parametrize("decades", [10, 20, 30])
def test_a_solution_far_from_stationary_is_not_passed_off_as_one(decades):
    """In the metric of the Hessian y is right, or a word is said."""
    glm, _, far = badly_scaled(decades)
    for y0 in (None, np.ones(glm.n)):
        try:
            solution = sad.solve(sad.Problem(glm), far, y0)
        except (sad.ConvergenceError, sad.ConvergenceWarning):
            continue
        H, g = glm.hess(far, solution.y).todense(), glm.grad(far, 0.0 * solution.y)
        scale = 1.0 / np.sqrt(np.diag(H))
        exact = -scale * np.linalg.solve(scale[:, None] * H * scale, scale * g)
        error = solution.y - exact
        assert error @ H @ error <= 1e-12 * (exact @ H @ exact)


# wrong arguments ----------------------------------------------------------------------

WRONG = {
    "method": (
        ValueError,
        "method must be one of 'inexact_lbfgs', 'maid', 'hoag', 'hoag_quadratic'",
        {"method": "adam"},
    ),
    "negative maxiter": (ValueError, "maxiter", {"maxiter": -1}),
    "fractional maxiter": (ValueError, "maxiter", {"maxiter": 2.5}),
    "maxiter True": (ValueError, "maxiter", {"maxiter": True}),
    "maxiter None": ((ValueError, TypeError), "maxiter", {"maxiter": None}),
    "maxiter NaN": (ValueError, "maxiter", {"maxiter": math.nan}),
    "maxiter a word": ((ValueError, TypeError), "maxiter", {"maxiter": "many"}),
    "negative tol": (ValueError, "tol must be", {"tol": -1e-3}),
    "infinite tol": (ValueError, "tol must be", {"tol": INF}),
    "NaN tol": (ValueError, "tol must be", {"tol": math.nan}),
    "tol None": (ValueError, "tol must be", {"tol": None}),
    "negative lower_tol": (ValueError, "tol must be", {"lower_tol": -1.0}),
    "2-D x0": (ValueError, "x0 must be 1-D", {"x0": np.zeros((3, 1))}),
    "integer x0": (TypeError, "x0 must be a real floating", {"x0": np.zeros(3, int)}),
    "complex x0": (
        TypeError,
        "x0 must be a real floating",
        {"x0": np.zeros(3, complex)},
    ),
    "NaN in x0": (
        ValueError,
        "x0 must be finite, found nan in row 1",
        {"x0": np.array([0.0, math.nan, 0.0])},
    ),
    "infinite x0": (ValueError, "x0 must be finite", {"x0": np.full(3, INF)}),
    "a callback that is none": (
        TypeError,
        "callback must be callable, found int",
        {"callback": 3},
    ),
    "a checkpoint that is no path": (
        TypeError,
        "checkpoint must be a path, found int",
        {"checkpoint": 3},
    ),
    "no start": (ValueError, "starts must be >= 1", {"starts": 0}),
    "x0 None": (TypeError, "x0 must be an array", {"x0": None}),
    "y0 of the wrong size": (
        ValueError,
        r"y0 must have shape \(8,\)",
        {"y0": np.zeros(7)},
    ),
    "unknown option": (TypeError, "momentum", {"momentum": 0.9}),
    "low above high": (ValueError, "low <= high", {"bounds": (1.0, 0.0)}),
    "one pair crossed": (
        ValueError,
        "low <= high",
        {"bounds": [(0, 1), (1, 0), (0, 1)]},
    ),
    "two pairs for three": (ValueError, "bounds", {"bounds": [(0, 1), (0, 1)]}),
    "one pair for three": (ValueError, "bounds", {"bounds": [(0.0, 1.0)]}),
    "four pairs for three": (ValueError, "bounds", {"bounds": [(0, 1)] * 4}),
    "lists of all low, all high": (
        ValueError,
        "bounds must be",
        {"bounds": ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0])},
    ),
    "rows of all low, all high": (
        ValueError,
        "bounds must be",
        {"bounds": np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])},
    ),
    "triples": (ValueError, "bounds", {"bounds": [(0, 1, 2)] * 3}),
    "three numbers": (ValueError, "bounds", {"bounds": (0.0, 1.0, 2.0)}),
    "a number": ((ValueError, TypeError), "bounds", {"bounds": 5.0}),
    "a word": ((ValueError, TypeError), "bounds", {"bounds": "box"}),
    "NaN low": (ValueError, "bounds", {"bounds": (math.nan, 1.0)}),
    "NaN in a pair": (
        ValueError,
        "bounds",
        {"bounds": [(0, 1), (0, math.nan), (0, 1)]},
    ),
    "Bounds too long": (
        ValueError,
        "bounds",
        {"bounds": optimize.Bounds(np.zeros(4), np.ones(4))},
    ),
    "low of the wrong size": (ValueError, "bounds", {"bounds": (np.zeros(4), 1.0)}),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments(case):
    error, message, changes = WRONG[case]
    with pytest.raises(error, match=message):
        Quadratic().minimize(**changes)


def test_wrong_problem_and_upper():
    known = Quadratic()
    with pytest.raises(TypeError, match="problem must be a Problem"):
        sad.minimize(known.problem.objective, known.upper, known.x0)
    with pytest.raises(TypeError, match="upper must have the methods"):
        sad.minimize(known.problem, lambda x, y: 0.0, known.x0)
    known.problem.objective.n = None
    with pytest.raises(ValueError, match="y0 is needed"):
        known.minimize()


@pytest.mark.parametrize("method", METHODS)
def test_what_a_callback_writes_into_is_its_own(method):
    def callback(state):
        for array in (state.x, state.jac, state.y):
            array[:] = 0.0

    known = Quadratic()
    found, expected = known.minimize(method, callback=callback), known.minimize(method)
    np.testing.assert_array_equal(found.x, expected.x)
    assert found.fun == expected.fun


@pytest.mark.parametrize("tol", [1, 0, 1e-3, np.float64(1e-3), np.float32(1e-3)])
@pytest.mark.parametrize("maxiter", [2, 2.0, np.int64(2)])
def test_numbers_of_every_kind(tol, maxiter):
    assert Quadratic().minimize(tol=tol, maxiter=maxiter).nit <= 2


def test_an_unknown_option_is_named():
    with pytest.raises(TypeError, match=r"has no option 'gtol'; it has .*lower_tol"):
        sad.minimize(None, None, np.zeros(1), gtol=1e-3)


def test_values_on_the_way_have_error_bars():
    """A loose solve's value is off by up to a quarter; the record says by how much."""
    rng = np.random.default_rng(0)
    s, eps = 24, 0.02
    a, b = np.mgrid[:s, :s] / s
    clean = (0.3 + 0.4 * ((b - 0.4) ** 2 + (a - 0.5) ** 2 < 0.08)).ravel()
    noisy = clean + 0.1 * rng.standard_normal(s * s)

    def D(y):
        Y = y.reshape(s, s)
        across = np.pad(np.diff(Y), ((0, 0), (0, 1)))
        return np.stack([across, np.pad(np.diff(Y, axis=0), ((0, 1), (0, 0)))])

    def DT(p):
        out = np.zeros((s, s))
        out[:, :-1] -= p[0][:, :-1]
        out[:, 1:] += p[0][:, :-1]
        out[:-1] -= p[1][:-1]
        out[1:] += p[1][:-1]
        return out.ravel()

    def parts(x, y):
        p = D(y)
        return np.exp(x).reshape(s, s), p, np.sqrt((p * p).sum(axis=0) + eps**2)

    def value(x, y):
        w, _, m = parts(x, y)
        return 0.5 * ((y - noisy) ** 2).sum() + (w * m).sum()

    def grad(x, y):
        w, p, m = parts(x, y)
        return y - noisy + DT(w / m * p)

    def hvp(x, y, v):
        w, p, m = parts(x, y)
        q = D(v)
        return v + DT(w / m * (q - p * (p * q).sum(axis=0) / m**2))

    def cross_vjp(x, y, v):
        w, p, m = parts(x, y)
        return (w / m * (p * D(v)).sum(axis=0)).ravel()

    problem = sad.Problem(
        sad.FunctionObjective(
            value=value, grad=grad, hvp=hvp, cross_vjp=cross_vjp, n=s * s
        )
    )
    upper = sad.FunctionUpper(
        lambda x, y: 0.5 * np.mean((y - clean) ** 2), lambda x, y: (y - clean) / s**2
    )
    path = []
    sad.minimize(
        problem,
        upper,
        np.full(s * s, -2.3),
        bounds=(-8, 4),
        maxiter=15,
        callback=lambda state: path.append((state.x.copy(), state.record)),
    )
    F = sad.Hypergradient(problem, upper, tol=1e-9)
    errors = [abs(record.value - F(x)[0]) for x, record in path]
    bars = [record.value_error for _, record in path]
    assert (
        max(e / record.value for e, (_, record) in zip(errors, path, strict=True))
        > 0.02
    )
    covered = [e <= bar for e, bar in zip(errors, bars, strict=True)]
    assert np.mean(covered) >= 0.9  # three times the correction: an estimate


def test_hoag_returns_the_lower_of_best_and_last_by_values_of_one_accuracy():
    """The value of a rough solve, below every true one, chose the point to return."""
    lower = sad.FunctionObjective(
        value=lambda x, y: 0.5 * float((y - x) @ (y - x)),
        grad=lambda x, y: y - x,
        hvp=lambda x, y, v: v,
        cross_vjp=lambda x, y, w: -w,
        n=2,
    )
    asked = []

    def rough(problem, x, y0, tol):
        """Err at first, to the side of a lower value: 0.163 for F(1) = 0.25."""
        asked.append(tol)
        off = np.array([0.3, 0.0]) if len(asked) == 1 else np.zeros(2)
        done = sad.Status.CONVERGED
        return sad.Solution(y=x - off, x=x, status=done, residual=-off)

    upper = sad.FunctionUpper(
        lambda x, y: float(0.25 * y[0] ** 4 + 1e-4 * y[1]),
        lambda x, y: np.array([y[0] ** 3, 1e-4]),
    )
    found = sad.minimize(
        sad.Problem(lower),
        upper,
        np.array([1.0, 0.0]),
        method="hoag",
        solver=rough,
        on_failure="ignore",
        bounds=[(0.9, 2.0), (None, None)],
        maxiter=1,
        tol=1e-9,
    )
    assert found.status is sad.Status.ITERATION_LIMIT
    assert found.x[0] == pytest.approx(0.9)
    assert found.fun == pytest.approx(0.25 * 0.9**4 + 1e-4 * found.x[1], rel=1e-9)
    assert found.history[0].value == pytest.approx(0.25, rel=1e-9)  # evaluated anew
