"""The lower-level solver: the known minimisers, its stop, its failures, its cost."""

import functools
import time

import numpy as np
import pytest
from problems import (
    BY_NAME,
    PROBLEMS,
    counted,
    paper_objective,
    quadratic_objective,
    scaled,
    without,
)

import sparse_argdiff as sad

every_row = pytest.mark.parametrize("row", PROBLEMS, ids=str)
OK = {sad.Status.CONVERGED, sad.Status.ROUNDING_LIMIT}


def distance(a, b):
    return np.linalg.norm(a - b) / max(np.linalg.norm(b), 1.0)


def objective(**functions):
    """Return an objective whose cross derivative is of no interest."""
    return sad.Problem(sad.FunctionObjective(**functions))


# the answer -----------------------------------------------------------------------


@every_row
def test_finds_the_known_solution(row):
    solution = sad.solve(row.problem, row.x, row.y0, tol=1e-11)
    f_Y = row.objective.grad(row.x, solution.y)
    assert solution.status in OK
    assert distance(solution.y, row.solution()) <= 1e-8
    assert solution.x is not row.x  # which its owner may rewrite
    np.testing.assert_array_equal(solution.x, row.x)
    assert solution.residual_norm == pytest.approx(np.linalg.norm(f_Y), abs=1e-12)
    # The value is the user's own f, also of a maximum.
    assert solution.value == pytest.approx(row.objective.value(row.x, solution.y))
    assert solution.warnings == ()


@every_row
@pytest.mark.parametrize("tol", [1e-3, 1e-8])
def test_stops_on_the_true_gradient(row, tol):
    solution = sad.solve(row.problem, row.x, row.y0, tol=tol)
    at_zero = np.linalg.norm(row.objective.grad(row.x, 0.0 * row.y0))
    f_Y = np.linalg.norm(row.objective.grad(row.x, solution.y))
    assert solution.status is sad.Status.CONVERGED
    assert solution.residual_norm == pytest.approx(f_Y)
    if at_zero > 0.0:
        assert f_Y <= tol * at_zero


@pytest.mark.parametrize("factor", [1e-8, 1e8])
@every_row
def test_the_units_of_f_change_nothing(row, factor):
    plain = sad.solve(row.problem, row.x, row.y0, tol=1e-8)
    other = sad.solve(scaled(row.problem, factor), row.x, row.y0, tol=1e-8)
    assert other.status is sad.Status.CONVERGED
    assert distance(other.y, plain.y) <= 1e-6
    assert other.n_hvp <= plain.n_hvp + 5


@pytest.mark.parametrize("start", [1e-9, 1e-3, 1.0, 1e3])
@pytest.mark.parametrize("name", ["quadratic", "log_sum_exp", "sparse_chain"])
def test_tol_means_the_same_from_every_start(name, start):
    row = BY_NAME[name]
    noise = np.random.default_rng(0).standard_normal(row.n)
    solution = sad.solve(row.problem, row.x, row.solution() + start * noise, tol=1e-6)
    scale = np.linalg.norm(row.objective.grad(row.x, 0.0 * noise))
    assert solution.status is sad.Status.CONVERGED
    assert solution.residual_norm <= 1e-6 * scale
    if start == 1e-9:
        assert solution.niter == 1


@pytest.mark.parametrize("branch", ["plus", "minus", "zero"])
@pytest.mark.parametrize("x", [0.5, 1.0, 3.0])
def test_branches_of_the_papers_quartic(branch, x):
    """Section 3.2: for x > 0 two minima, and a maximum (not a minimum) at y = 0."""
    row = BY_NAME[f"paper_{branch}"]
    x = np.array([x])
    start = row.y(x) + 0.05
    solution = sad.solve(row.problem, x, start, tol=1e-12)
    assert solution.y == pytest.approx(row.y(x), abs=1e-9)
    J = sad.derivative(row.problem, solution)
    assert J.todense() == pytest.approx(row.jacobian(x, row.y(x)), abs=1e-8)


def test_y0_may_be_left_out_where_n_is_known():
    row = BY_NAME["quadratic"]
    left_out = sad.solve(row.problem, row.x)
    zeros = sad.solve(row.problem, row.x, np.zeros(row.n))
    assert np.array_equal(left_out.y, zeros.y)


# curvature ------------------------------------------------------------------------


def double_well(n):
    """Return Σ ¼ y⁴ − ½ y² : a maximum at 0, minima at all (±1, ..., ±1)."""
    return objective(
        value=lambda x, y: float((0.25 * y**4 - 0.5 * y**2).sum()),
        grad=lambda x, y: y**3 - y,
        hvp=lambda x, y, v: (3.0 * y**2 - 1.0) * v,
        n=n,
    )


@pytest.mark.parametrize("missing", [(), ("value",)], ids=["value", "no value"])
@pytest.mark.parametrize("start", [1e-6, 1e-2])
def test_leaves_the_neighbourhood_of_a_maximum(start, missing):
    problem = double_well(6)
    f = problem.objective
    if missing:
        problem = objective(grad=f.grad, hvp=f._hvp, n=6)
    y0 = start * np.random.default_rng(1).standard_normal(6)
    solution = sad.solve(problem, np.zeros(1), y0, tol=1e-6)
    assert solution.status in OK
    assert np.abs(solution.y) == pytest.approx(1.0, abs=1e-3)


def test_leaves_the_neighbourhood_of_a_saddle():
    problem = objective(
        value=lambda x, y: float(0.25 * y[0] ** 4 - 0.5 * y[0] ** 2 + 0.5 * y[1] ** 2),
        grad=lambda x, y: np.array([y[0] ** 3 - y[0], y[1]]),
        hvp=lambda x, y, v: np.array([(3 * y[0] ** 2 - 1) * v[0], v[1]]),
        n=2,
    )
    solution = sad.solve(problem, np.zeros(1), np.array([1e-8, 1.0]))
    assert solution.y == pytest.approx([1.0, 0.0], abs=1e-6)


@pytest.mark.parametrize("factor", [1e-8, 1e8])
def test_negative_curvature_does_not_depend_on_the_units_of_f(factor):
    """A step of the length of the gradient has the units of f: it finds another well."""
    problem = objective(
        value=lambda x, y: float(np.cos(y).sum()),
        grad=lambda x, y: -np.sin(y),
        hvp=lambda x, y, v: -np.cos(y) * v,
        n=1,
    )
    x, y0 = np.zeros(1), np.array([0.1])
    plain = sad.solve(problem, x, y0)
    assert np.cos(plain.y) == pytest.approx(-1.0)
    other = sad.solve(scaled(problem, factor), x, y0)
    assert other.y == pytest.approx(plain.y, abs=1e-6)


def test_a_start_without_a_scale_is_not_a_division_by_zero():
    """f_Y(x, 0) = 0, and f_YY y = 0 at this start: neither can serve as the scale."""
    y0 = np.array([1.0])
    problem = sad.Problem(paper_objective())
    solution = sad.solve(problem, np.array([1.0]), y0)
    assert solution.status in OK
    assert solution.y == pytest.approx([(-3 + np.sqrt(105)) / 4], abs=1e-6)


@pytest.mark.parametrize("missing", [(), ("value",)], ids=["value", "no value"])
@pytest.mark.parametrize(
    ("value", "grad", "hvp"),
    [
        (lambda x, y: -y.sum(), lambda x, y: -np.ones(2), lambda x, y, v: 0.0 * v),
        (lambda x, y: -0.5 * y @ y, lambda x, y: -y, lambda x, y, v: -v),
    ],
    ids=["linear", "concave"],
)
def test_unbounded_objective(value, grad, hvp, missing):
    functions = {"grad": grad, "hvp": hvp, "n": 2}
    if not missing:
        functions["value"] = lambda x, y: float(value(x, y))
    with pytest.raises(sad.ConvergenceError, match="no minimum") as caught:
        sad.solve(objective(**functions), np.zeros(1), np.ones(2))
    assert caught.value.status is sad.Status.UNBOUNDED


def test_the_papers_quartic_has_no_minimum_for_negative_x():
    with pytest.raises(sad.ConvergenceError) as caught:
        sad.solve(sad.Problem(paper_objective()), np.array([-1.0]), np.array([4.0]))
    assert caught.value.status is sad.Status.UNBOUNDED


# missing functions ----------------------------------------------------------------


@every_row
def test_works_without_value(row):
    solution = sad.solve(without(row.problem, "value"), row.x, row.y0, tol=1e-10)
    assert solution.value is None
    assert solution.status in OK
    assert distance(solution.y, row.solution()) <= 1e-7


@every_row
def test_works_without_hvp_and_says_so(row):
    problem = without(row.problem, "hvp")
    solution = sad.solve(problem, row.x, row.y0, tol=1e-8)
    assert any("central differences" in warning for warning in solution.warnings)
    assert distance(solution.y, row.solution()) <= 1e-6
    adjoint = sad.vjp(problem, solution, np.ones(row.n))
    assert any("central differences" in warning for warning in adjoint.warnings)
    expected = row.dense_jacobian().T @ np.ones(row.n)
    assert np.linalg.norm(adjoint.x - expected) <= 1e-5 * max(
        np.linalg.norm(expected), 1.0
    )


def test_says_so_even_where_no_step_was_needed():
    row = BY_NAME["quadratic"]
    problem = without(row.problem, "hvp")
    first = sad.solve(problem, row.x, tol=1e-8)
    again = sad.solve(problem, row.x, first.y, tol=1e-7)
    assert again.niter <= 1
    adjoint = sad.vjp(problem, again, np.ones(row.n))
    assert any("central differences" in warning for warning in adjoint.warnings)


# arrays ---------------------------------------------------------------------------


def test_start_is_not_modified_and_may_be_read_only():
    row = BY_NAME["log_sum_exp"]
    x, y0 = row.x.copy(), np.ones(row.n)
    x.flags.writeable = y0.flags.writeable = False
    solution = sad.solve(row.problem, x, y0)
    assert distance(solution.y, row.solution()) <= 1e-6
    assert np.array_equal(y0, np.ones(row.n))


def test_solution_does_not_share_memory_with_the_start():
    row = BY_NAME["quadratic"]
    y0 = sad.solve(row.problem, row.x, tol=1e-10).y
    solution = sad.solve(row.problem, row.x, y0, tol=1e-8)
    assert solution.niter <= 1
    assert not np.shares_memory(solution.y, y0)


def test_start_may_be_non_contiguous():
    row = BY_NAME["sparse_chain"]
    y0 = np.ones(2 * row.n)[::2]
    x = np.repeat(row.x, 3)[::3]
    solution = sad.solve(row.problem, x, y0)
    assert distance(solution.y, row.solution()) <= 1e-6


def test_float32_in_float32_out():
    row = BY_NAME["quadratic"]
    H, B = (np.float32(a) for a in (row.dense_hess(0, 0), -row.dense_cross(0, 0)))
    problem = sad.Problem(quadratic_objective(H, B))
    x = np.float32(row.x)
    for y0 in (None, np.zeros(row.n, np.float32)):
        solution = sad.solve(problem, x, y0, tol=1e-4)
        assert solution.y.dtype == np.float32
        assert solution.status is sad.Status.CONVERGED
        assert distance(solution.y, np.linalg.solve(H, B @ x)) <= 1e-3


def test_float32_below_its_rounding_says_so():
    row = BY_NAME["quadratic"]
    H, B = (np.float32(a) for a in (row.dense_hess(0, 0), -row.dense_cross(0, 0)))
    solution = sad.solve(
        sad.Problem(quadratic_objective(H, B)), np.float32(row.x), tol=1e-12
    )
    assert solution.status is sad.Status.ROUNDING_LIMIT
    assert solution.y.dtype == np.float32
    assert distance(solution.y, np.linalg.solve(H, B @ np.float32(row.x))) <= 1e-5


def test_a_gradient_that_reuses_its_buffer():
    """Each call overwrites what the last one returned: the solver must not hold it."""
    row, out = BY_NAME["log_sum_exp"], np.empty(6)
    f, wells, slope = row.objective, double_well(6).objective, np.empty(6)

    def grad(x, y):
        out[:] = f.grad(x, y)
        return out

    def wells_grad(x, y):
        slope[:] = wells.grad(x, y)
        return slope

    problem = objective(value=f.value, grad=grad, hvp=f._hvp, n=6)
    solution = sad.solve(problem, row.x, 0.5 * np.ones(6), tol=1e-10)
    assert distance(solution.y, row.solution()) <= 1e-8
    problem = objective(value=wells.value, grad=wells_grad, hvp=wells._hvp, n=6)
    solution = sad.solve(problem, row.x, 0.01 * np.arange(1.0, 7.0))
    assert solution.residual_norm == pytest.approx(
        np.linalg.norm(wells.grad(None, solution.y)), abs=1e-12
    )
    assert np.abs(solution.y) == pytest.approx(1.0, abs=1e-6)


# callback, limits, failures -------------------------------------------------------


@pytest.mark.parametrize("how", ["true", "StopIteration"])
@pytest.mark.parametrize("when", [0, 2])
def test_callback_sees_iterate_zero_and_stops(how, when):
    row = BY_NAME["log_sum_exp"]
    seen = []

    def callback(iterate):
        seen.append((iterate.niter, iterate.y.copy(), iterate.gradient_norm))
        if iterate.niter < when:
            return False
        if how == "StopIteration":
            raise StopIteration
        return True

    solution = sad.solve(
        row.problem, row.x, row.y0, callback=callback, on_failure="ignore"
    )
    assert [niter for niter, _, _ in seen] == list(range(when + 1))
    assert np.array_equal(seen[0][1], row.y0)
    assert solution.status is sad.Status.STOPPED_BY_CALLBACK
    assert solution.niter == when
    assert np.array_equal(solution.y, seen[-1][1])
    for _, y, size in seen:
        assert size == pytest.approx(np.linalg.norm(row.objective.grad(row.x, y)))


def test_maxiter():
    row = BY_NAME["sparse_chain"]
    with pytest.raises(sad.ConvergenceError, match="maxiter") as caught:
        sad.solve(row.problem, row.x, row.y0, maxiter=1)
    error = caught.value
    assert error.status is error.result.status is sad.Status.ITERATION_LIMIT
    assert isinstance(error.result, sad.Solution)
    assert error.result.niter == 1
    assert error.result.residual_norm < np.linalg.norm(
        row.objective.grad(row.x, row.y0)
    )


@pytest.mark.parametrize("maxiter", [-1, 2.5, True])
def test_maxiter_is_a_whole_number(maxiter):
    row = BY_NAME["quadratic"]
    with pytest.raises((ValueError, TypeError), match="maxiter"):
        sad.solve(row.problem, row.x, maxiter=maxiter)


@pytest.mark.parametrize("missing", [(), ("value",)], ids=["value", "no value"])
@every_row
def test_below_the_attainable_ends_at_the_rounding_limit(row, missing):
    problem = without(row.problem, *missing)
    start = time.perf_counter()
    solution = sad.solve(problem, row.x, row.y0, tol=0.0)
    assert time.perf_counter() - start < 5.0
    # A lucky gradient is exactly zero.
    assert solution.status in OK
    assert solution.status is sad.Status.ROUNDING_LIMIT or solution.residual_norm == 0.0
    assert distance(solution.y, row.solution()) <= 1e-10


def nan_after(function, calls):
    """Return ``function``, but NaN from call number ``calls`` on."""
    seen = []

    @functools.wraps(function)
    def wrapped(*arguments):
        seen.append(None)
        result = function(*arguments)
        return result if len(seen) <= calls else np.nan * result

    return wrapped


@pytest.mark.parametrize("calls", [0, 2])
@pytest.mark.parametrize("name", ["value", "grad", "hvp"])
def test_nan_is_found(name, calls):
    row = BY_NAME["sparse_chain"]
    f = row.objective
    functions = {
        "value": f.value,
        "grad": f.grad,
        "hvp": lambda x, y, v: f.hess(x, y) @ v,
    }
    functions[name] = nan_after(functions[name], calls)
    with pytest.raises(sad.ConvergenceError, match="NaN") as caught:
        sad.solve(objective(**functions, n=row.n), row.x)
    assert caught.value.status is sad.Status.NOT_FINITE
    # The point that the error carries is the last good one.
    assert np.isfinite(caught.value.result.y).all()


def test_a_domain_is_respected():
    """x log: NaN beyond the domain shortens the step, and is no failure."""

    @np.errstate(invalid="ignore")
    def value(x, y):
        return float((y - x * np.log(y)).sum())

    @np.errstate(invalid="ignore", divide="ignore")
    def grad(x, y):
        return np.where(y > 0, 1.0 - x / y, np.nan)

    problem = objective(value=value, grad=grad, hvp=lambda x, y, v: x / y**2 * v, n=2)
    x = np.array([1.0, 2.0])
    solution = sad.solve(problem, x, np.array([4.0, 30.0]), tol=1e-10)
    assert solution.y == pytest.approx(x, abs=1e-7)


def test_a_gradient_of_another_function_is_a_line_search_failure():
    problem = objective(
        value=lambda x, y: float(0.5 * y @ y),
        grad=lambda x, y: 1.0 - y,
        hvp=lambda x, y, v: v,
        n=3,
    )
    with pytest.raises(sad.ConvergenceError, match="check_derivatives") as caught:
        sad.solve(problem, np.zeros(1), 3.0 * np.ones(3))
    assert caught.value.status is sad.Status.LINE_SEARCH_FAILED


def test_on_failure():
    row = BY_NAME["sparse_chain"]
    options = {"tol": 1e-10, "maxiter": 1}
    with pytest.raises(sad.ConvergenceError):
        sad.solve(row.problem, row.x, **options)
    with pytest.raises(sad.ConvergenceError):
        sad.solve(row.problem, row.x, **options, on_failure="raise")
    with pytest.warns(sad.ConvergenceWarning, match="ITERATION_LIMIT"):
        warned = sad.solve(row.problem, row.x, **options, on_failure="warn")
    ignored = sad.solve(row.problem, row.x, **options, on_failure="ignore")
    assert warned.status is ignored.status is sad.Status.ITERATION_LIMIT
    assert np.array_equal(warned.y, ignored.y)
    with pytest.raises(ValueError, match="on_failure"):
        sad.solve(row.problem, row.x, on_failure="silent")


# cost -----------------------------------------------------------------------------


@every_row
def test_work_is_counted(row):
    problem, counts = counted(row.problem)
    solution = sad.solve(problem, row.x, row.y0)
    assert solution.n_hvp == counts["hvp"]
    assert solution.n_grad == counts["grad"]


@pytest.mark.parametrize("tol", [1e-4, 1e-8])
@pytest.mark.parametrize(
    "row", [row for row in PROBLEMS if row.quadratic and row.n > 1], ids=str
)
def test_a_quadratic_costs_about_one_linear_solve(row, tol):
    H = row.dense_hess(row.x, None)
    rhs = -row.objective.grad(row.x, np.zeros(row.n))
    M = sad.preconditioners.jacobi(np.diagonal(H).copy())
    given = M if row.name == "badly_scaled" else None
    linear = sad.cg(H, rhs, rtol=tol, M=given)
    solution = sad.solve(row.problem, row.x, tol=tol)
    verified, probe = 2, min(10, row.n)  # and the sizes of the unknowns
    assert solution.n_hvp <= 1.5 * linear.niter + 3 + verified + probe
    assert solution.niter <= 4


def test_looser_costs_less():
    row = BY_NAME["sparse_chain"]
    cost = [sad.solve(row.problem, row.x, tol=tol).n_hvp for tol in (1e-1, 1e-4, 1e-12)]
    assert cost[0] < cost[1] < cost[2]


def test_warm_start_costs_less():
    row = BY_NAME["log_sum_exp"]
    cold = sad.solve(row.problem, row.x)
    warm = sad.solve(row.problem, row.x + 1e-4, cold.y)
    again = sad.solve(row.problem, row.x + 1e-4)
    assert warm.n_hvp < again.n_hvp
    assert distance(warm.y, again.y) <= 1e-6


# arguments ------------------------------------------------------------------------


def test_own_method():
    row = BY_NAME["quadratic"]
    seen = []

    def method(problem, x, y0, tol):
        seen.append((problem, x, y0, tol))
        return sad.Solution(y=row.solution(x), x=x, status=sad.Status.CONVERGED)

    solution = sad.solve(row.problem, row.x, row.y0, method=method, tol=1e-5)
    ((problem, x, y0, tol),) = seen
    assert (problem, y0, tol) == (row.problem, row.y0, 1e-5)
    np.testing.assert_array_equal(x, row.x)
    assert distance(solution.y, row.solution()) <= 1e-14


def test_own_method_that_failed_is_not_trusted():
    row = BY_NAME["quadratic"]

    def method(problem, x, y0, tol):
        return sad.Solution(y=y0, x=x, status=sad.Status.ITERATION_LIMIT, niter=3)

    with pytest.raises(sad.ConvergenceError, match="ITERATION_LIMIT"):
        sad.solve(row.problem, row.x, row.y0, method=method)


def test_own_method_without_a_status_is_held_to_the_tolerance():
    """The trap: 1e-3 was enough, whatever was asked for."""
    row = BY_NAME["quadratic"]
    exact = row.solution()

    def off_by(size):
        def method(problem, x, y0, tol):
            return sad.Solution(y=exact * (1.0 + size), x=x, n_grad=5, n_hvp=7)

        return method

    sol = sad.solve(row.problem, row.x, row.y0, method=off_by(0.0), tol=1e-10)
    assert sol.status is sad.Status.CONVERGED
    assert sol.residual_norm <= 1e-12
    assert sol.n_grad == 7
    assert 7 <= sol.n_hvp <= 7 + row.n + 2
    sad.solve(row.problem, row.x, row.y0, method=off_by(1e-5), tol=1e-3)
    for tol in (1e-8, 1e-10, 0.0):
        with pytest.raises(
            sad.ConvergenceError,
            match=r"NOT_STATIONARY.*of the size of y, above tol = ",
        ) as caught:
            sad.solve(row.problem, row.x, row.y0, method=off_by(1e-5), tol=tol)
        assert caught.value.result.n_grad == 7
    kept = sad.solve(
        row.problem, row.x, row.y0, method=off_by(1e-5), on_failure="ignore"
    )
    assert kept.status is sad.Status.NOT_STATIONARY
    nowhere = off_by(np.nan)
    with pytest.raises(sad.ConvergenceError, match="NOT_FINITE"):
        sad.solve(row.problem, row.x, row.y0, method=nowhere)


def test_own_method_without_a_status_under_constraints():
    row = BY_NAME["quadratic"]
    y = np.maximum(row.solution(), 0.0)
    problem = sad.Problem(row.objective, lower=row.solution() + 1.0)

    def method(problem, x, y0, tol, off=0.0):
        best = sad.solve(problem, x, y0, tol=1e-12).y
        return sad.Solution(y=best + off, x=x)

    sol = sad.solve(problem, row.x, y, method=method)
    assert sol.status is sad.Status.CONVERGED
    assert sol.active is not None
    for off in (-1e-5, 1e-5):
        with pytest.raises(sad.ConvergenceError, match="NOT_STATIONARY"):
            sad.solve(
                problem, row.x, y, method=lambda *args, off=off: method(*args, off=off)
            )


def test_own_method_must_return_a_solution():
    row = BY_NAME["quadratic"]
    with pytest.raises(TypeError, match=r"Solution.*ndarray"):
        sad.solve(row.problem, row.x, method=lambda problem, x, y0, tol: y0)


def test_wrong_arguments_are_named():
    row = BY_NAME["quadratic"]
    with pytest.raises(TypeError, match="problem"):
        sad.solve(row.objective, row.x)
    with pytest.raises(ValueError, match="method"):
        sad.solve(row.problem, row.x, method="bfgs")
    for tol in (-1.0, np.nan, np.inf, "tight", None):
        with pytest.raises(ValueError, match="tol"):
            sad.solve(row.problem, row.x, tol=tol)
    with pytest.raises(ValueError, match=r"y0.*n"):
        sad.solve(objective(grad=row.objective.grad), row.x)
    with pytest.raises(ValueError, match=r"y0.*\(8,\).*\(3,\)"):
        sad.solve(row.problem, row.x, np.zeros(3))


def test_tol_may_be_any_real_number():
    row = BY_NAME["quadratic"]
    for tol in (np.float32(1e-6), np.float64(1e-6)):
        assert sad.solve(row.problem, row.x, tol=tol).status is sad.Status.CONVERGED


def test_a_solution_of_another_x_is_refused():
    row = BY_NAME["sparse_chain"]

    def of_another(problem, x, y0, tol):
        return sad.Solution(y=row.solution(), x=x + 1.0)

    with pytest.raises(ValueError, match="of the x that it was given"):
        sad.solve(row.problem, row.x, row.y0, method=of_another)


def test_the_solution_keeps_its_x_when_the_owner_rewrites_it():
    row = BY_NAME["sparse_chain"]
    x = row.x.copy()
    solution = sad.solve(row.problem, x, row.y0)
    x *= 5.0
    np.testing.assert_array_equal(solution.x, row.x)


@pytest.mark.parametrize("seed", range(8))
def test_rows_without_an_interior_are_no_contradiction(seed):
    """Differences around a cycle whose bounds add up to zero: each holds with equality."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 9))
    c = rng.standard_normal(n)
    c -= c.mean()
    G = np.eye(n) - np.roll(np.eye(n), 1, axis=1)
    objective = sad.FunctionObjective(
        value=lambda x, y: 0.5 * float(y @ y),
        grad=lambda x, y: 1.0 * y,
        hvp=lambda x, y, v: 1.0 * v,
        cross_vjp=lambda x, y, w: 0.0 * x,
        hess_diag=lambda x, y: np.ones(n),
        n=n,
    )
    rows = sad.Inequality(lambda x, y: G @ y + c, lambda x, y: G)
    solution = sad.solve(sad.Problem(objective, inequality=rows), np.zeros(1))
    expected = np.r_[0.0, np.cumsum(c)[:-1]]
    assert solution.y == pytest.approx(expected - expected.mean(), abs=1e-7)
