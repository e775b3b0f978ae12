"""F in the optimisers of SciPy, nlopt and Optuna, whose trial points may have no solution."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize

import sparse_argdiff as sad
from sparse_argdiff.hypergradient.failed_points import FailedPoints
from sparse_argdiff.linear_model import Glm


def separable(m=40, rows=25, seed=0):
    """More features than rows: without a penalty the lower level has no minimum."""
    rng = np.random.default_rng(seed)
    A, V = rng.standard_normal((2, rows, m))
    w = 5.0 * rng.standard_normal(m) * (rng.random(m) < 0.2)
    glm = Glm(A, (A @ w > 0) * 1.0)
    return sad.Problem(glm), glm.held_out(V, (V @ w > 0) * 1.0)


def hypergradient(failed_value="barrier", **options):
    """From zero log-penalties far below −25 take more than the steps that are allowed."""
    return sad.Hypergradient(
        *separable(), tol=1e-6, maxiter=25, failed_value=failed_value, **options
    )


M = 40
quiet = pytest.mark.filterwarnings("ignore")
scipys = pytest.mark.parametrize(
    "method", ["L-BFGS-B", "TNC", "trust-constr", "Newton-CG", "BFGS", "SLSQP"]
)


def scipy_run(F, method, maxiter=15):
    second = method in {"trust-constr", "Newton-CG"}
    limit = "maxfun" if method == "TNC" else "maxiter"
    return scipy.optimize.minimize(
        F,
        np.zeros(M),
        jac=True,
        method=method,
        hessp=F.hessp if second else None,
        options={limit: 2 * maxiter if method == "TNC" else maxiter},
    )


@quiet
@scipys
def test_scipy_goes_on(method):
    F = hypergradient()
    first, _ = F(np.zeros(M))
    found = scipy_run(F, method)
    value, gradient = hypergradient(None)(found.x)  # the point has a solution
    assert found.fun == pytest.approx(value, rel=1e-3, abs=1e-6)
    assert value < 0.5 * first
    assert np.isfinite(gradient).all()


@quiet
def test_without_the_option_the_run_is_lost():
    with pytest.raises(sad.ConvergenceError):
        scipy_run(hypergradient(None), "L-BFGS-B", 60)


@quiet
def test_with_it_the_run_goes_far():
    """L-BFGS-B meets some points without a solution, and goes on; infinity ends it."""
    F = hypergradient()
    found = scipy_run(F, "L-BFGS-B", 43)
    # How many is a matter of rounding next to the limit of what can be solved.
    assert len(F.failures) >= 1
    assert found.fun < 1e-3
    assert scipy_run(hypergradient(math.inf), "L-BFGS-B", 43).fun > 10.0 * found.fun
    told = str(F.failures)
    assert f"failed at {len(F.failures)} point" in told
    assert "bounds on x" in told
    assert sum(F.failures.causes.values()) == F.failures.count
    assert (F.failures.lowest <= F.failures.highest).all()


def test_one_warning_says_where_to_look():
    F = hypergradient()
    F(np.zeros(M))
    far = np.full(M, -60.0)
    with pytest.warns(sad.ConvergenceWarning, match=r"F\.failures says at the end"):
        F(far)
    F(1.1 * far)  # a second one is silent
    assert len(F.failures) == 2
    assert repr(F.failures).startswith("Failures(count=2")
    assert isinstance(F.failures.last, sad.ConvergenceError)


def test_before_any_success_f_raises():
    with pytest.raises(sad.ConvergenceError):
        hypergradient()(np.full(M, -60.0))
    with pytest.raises(sad.ConvergenceError):
        hypergradient().value(np.full(M, -60.0))


@quiet
def test_a_number_stands_for_the_value_and_the_gradient_leads_back():
    F = hypergradient(math.inf)
    assert F.value(np.full(M, -60.0)) == math.inf
    F(np.zeros(M))
    way = np.full(M, -60.0)
    value, gradient = F(way)
    assert value == math.inf
    assert np.isfinite(gradient).all()
    assert gradient @ way > 0.0


@quiet
def test_hessp_where_a_value_stands_in():
    F = hypergradient()
    F(np.zeros(M))
    way = np.full(M, -60.0)
    _, _gradient = F(way)
    u = np.random.default_rng(0).standard_normal(M)
    product = F.hessp(way, u)
    assert product == pytest.approx((product @ u) / (u @ u) * u)
    assert product @ u > 0.0


@pytest.mark.parametrize("wrong", ["inf", None.__class__, [1.0]])
def test_wrong_failed_value(wrong):
    with pytest.raises(ValueError, match="failed_value must be 'barrier', a number"):
        hypergradient(wrong)


def test_errors_of_users_functions_are_not_caught():
    problem, upper = separable()
    own = sad.FunctionUpper(upper.value, lambda x, y: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sad.Hypergradient(problem, own, failed_value="barrier")(np.zeros(M))


@pytest.mark.parametrize("slope", [-3.0, 0.0, 2.0])
def test_the_barrier_interpolates_and_is_above(slope):
    """q has the value and the slope of F at the best point, and is above it at p."""
    points = FailedPoints("barrier")
    gradient = np.array([slope, 1.0])
    points.keep(np.array([1.0, 1.0]), 5.0, gradient)
    points.keep(np.array([0.0, 7.0]), 6.0, np.ones(2))  # a worse one
    p = np.array([2.0, 0.0])
    failed = sad.ConvergenceError("no", sad.Status.UNBOUNDED, None)
    with pytest.warns(sad.ConvergenceWarning):
        value, found = points.instead(np.array([1.0, 1.0]) + p, failed)
    assert value > 5.0
    assert found @ p > 0.0
    beta = points.curvature(np.array([1.0, 1.0]) + p)
    assert value == pytest.approx(5.0 + gradient @ p + 0.5 * beta * p @ p)
    assert found == pytest.approx(gradient + beta * p)
    if slope < 0.0:  # least at a tenth of the way
        assert -slope * 2.0 / (beta * p @ p) == pytest.approx(0.1)


# the end of a run -------------------------------------------------------------------------


def with_prior(scale=1.0):
    """A problem with a minimum, f^U in units of its own."""
    problem, upper = separable(m=8, rows=30)
    total = sad.Sum(upper, sad.prior(-2.0, 1.0, rows=30.0))
    scaled = sad.FunctionUpper(
        lambda x, y: scale * total.value(x, y),
        lambda x, y: scale * total.grad_y(x, y),
        lambda x, y: scale * total.grad_x(x, y),
    )
    return sad.Hypergradient(problem, scaled, tol=1e-10)


@pytest.mark.parametrize("method", ["L-BFGS-B", "BFGS", "CG", "trust-constr"])
def test_stopping_ends_a_run_by_a_criterion_without_units(method):
    steps = []
    for scale in (1.0, 2.0**-20, 2.0**20):
        F = with_prior(scale)
        options = {"L-BFGS-B": {"ftol": 0, "gtol": 0}, "trust-constr": {"gtol": 0}}
        options = options.get(method, {"gtol": 0})
        stop = F.stopping(1e-3)
        if method == "trust-constr" and scale != 1.0:
            continue  # its first radius has a unit
        run = scipy.optimize.minimize(
            F, np.zeros(8), jac=True, method=method, callback=stop, options=options
        )
        value, gradient = F(run.x)
        assert np.linalg.norm(gradient) <= 1e-3 * value
        assert "StopIteration" in run.message or run.status in {99, 3}
        steps.append(run.nit)
    assert max(steps) < 150  # the first matrix of BFGS has a unit
    # At another's solution the next run ends at once.
    again = scipy.optimize.minimize(
        F, run.x, jac=True, method=method, callback=stop, options=options
    )
    assert again.nit <= 3


def test_stopping_knows_the_bounds():
    F = with_prior()
    low = np.full(8, -0.5)
    bounds = scipy.optimize.Bounds(low, np.inf)
    run = scipy.optimize.minimize(
        F,
        np.zeros(8),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        callback=F.stopping(1e-3, low=low),
        options={"ftol": 0, "gtol": 0},
    )
    value, gradient = F(run.x)
    assert (run.x == low).any()
    assert np.linalg.norm(gradient) > 1e-3 * value
    assert np.linalg.norm(gradient[run.x > low]) <= 1e-3 * value


@quiet
@pytest.mark.parametrize("method", ["LD_LBFGS", "LD_SLSQP"])
def test_nlopt_goes_on(method):
    nlopt = pytest.importorskip("nlopt")
    F = hypergradient()
    first, _ = F(np.zeros(M))

    def function(x, slot):
        value, gradient = F(x)
        if slot.size:
            slot[:] = gradient
        return float(value)

    search = nlopt.opt(getattr(nlopt, method), M)
    search.set_min_objective(function)
    search.set_maxeval(40)
    x = search.optimize(np.zeros(M))
    assert search.last_optimum_value() < 0.3 * first
    assert hypergradient(None)(x)[0] == pytest.approx(
        search.last_optimum_value(), rel=1e-3, abs=1e-6
    )


@quiet
def test_optuna_goes_on():
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    F = hypergradient(math.inf)
    first = F.value(np.zeros(M))

    def trial_value(trial):
        # One log-penalty for all: far below −30 the classes are separated.
        return F.value(np.full(M, trial.suggest_float("x", -60.0, 10.0)))

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(trial_value, n_trials=15)
    assert len(F.failures) >= 1
    assert study.best_value <= first + 0.2
    assert math.isfinite(study.best_value)


def test_the_page_runs(capsys):
    """docs/upper_level.md, its blocks one after another, with what they print."""
    page = Path(__file__).parents[1] / "docs" / "upper_level.md"
    text = page.read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
    names = {}
    for block in blocks:
        exec(compile(block, str(page), "exec"), names)  # noqa: S102
    printed = capsys.readouterr().out.split()
    promised = re.findall(r"print\(.*\)  # (\S+)", text)
    assert printed == promised
