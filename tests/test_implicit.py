"""The derivative of an argmin: dense algebra, finite differences, the dot test, cost."""

import dataclasses
import functools

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import BY_NAME, STATIONARY, counted, quadratic_objective, random_spd

import sparse_argdiff as sad

TIGHT = 1e-13

every_row = pytest.mark.parametrize("row", STATIONARY, ids=str)


def difference(a, b):
    """Return ‖a − b‖ relative to ‖b‖, or absolute where b is zero."""
    return np.linalg.norm(a - b) / (np.linalg.norm(b) or 1.0)


def derivative(row, **options):
    options = {"method": row.method, "rtol": TIGHT} | options
    return sad.derivative(row.problem, row.at_solution(), **options)


# the answer -----------------------------------------------------------------------


@every_row
def test_products_agree_with_dense_algebra(row):
    rng = np.random.default_rng(0)
    expected = row.dense_jacobian()
    J = derivative(row)
    u, U = rng.standard_normal(row.m), rng.standard_normal((row.m, 3))
    v, V = rng.standard_normal(row.n), rng.standard_normal((row.n, 3))
    assert J.shape == (row.n, row.m)
    assert J.T.shape == (row.m, row.n)
    for found, wanted in [
        (J @ u, expected @ u),
        (J.T @ v, expected.T @ v),
        (v @ J, v @ expected),
        (J @ U, expected @ U),
        (J.T @ V, expected.T @ V),
        (J.todense(), expected),
        (J.T.todense(), expected.T),
    ]:
        assert found.shape == wanted.shape
        assert difference(found, wanted) <= 1e-9


@pytest.mark.parametrize(
    "row", [row for row in STATIONARY if row.jacobian is not None], ids=str
)
def test_agrees_with_the_closed_form(row):
    expected = row.jacobian(row.x, row.solution())
    assert difference(derivative(row).todense(), expected) <= 1e-9


@every_row
def test_vjp_and_jvp_agree_with_dense_algebra(row):
    rng = np.random.default_rng(1)
    expected = row.dense_jacobian()
    u, v = rng.standard_normal(row.m), rng.standard_normal(row.n)
    options = {"method": row.method, "rtol": TIGHT}
    adjoint = sad.vjp(row.problem, row.at_solution(), v, **options)
    tangent = sad.jvp(row.problem, row.at_solution(), u, **options)
    sign = -1.0 if row.problem.maximize else 1.0
    H = sign * row.dense_hess(row.x, row.solution())
    assert difference(adjoint.x, expected.T @ v) <= 1e-9
    assert difference(tangent.y, expected @ u) <= 1e-9
    assert difference(H @ adjoint.adjoint, v) <= 1e-9
    assert difference(tangent.tangent, tangent.y) == 0.0
    assert adjoint.krylov.status.acceptable
    assert tangent.krylov.status.acceptable
    assert adjoint.warnings == tangent.warnings == ()


@every_row
def test_agrees_with_differences_of_the_solution(row):
    rng = np.random.default_rng(2)
    u = rng.standard_normal(row.m)
    h = 1e-5
    ahead, behind = row.solution(row.x + h * u), row.solution(row.x - h * u)
    found = sad.jvp(row.problem, row.at_solution(), u, method=row.method, rtol=TIGHT).y
    assert difference(found, (ahead - behind) / (2 * h)) <= 1e-6


@every_row
def test_dot_test(row):
    sad.dot_test(derivative(row), rtol=1e-10)


@settings(deadline=None, max_examples=40, database=None, derandomize=True)
@given(
    n=st.integers(1, 30),
    m=st.integers(1, 30),
    seed=st.integers(0, 2**31),
    condition=st.floats(1.0, 1e4),
    diag=st.booleans(),
)
def test_random_quadratics(n, m, seed, condition, diag):
    rng = np.random.default_rng(seed)
    H, B = random_spd(rng, n, condition), rng.standard_normal((n, m))
    x, v = rng.standard_normal(m), rng.standard_normal(n)
    problem = sad.Problem(quadratic_objective(H, B, diag=diag))
    solution = sad.solve(problem, x, tol=1e-10)
    expected = np.linalg.solve(H, B)
    assert difference(solution.y, expected @ x) <= 1e-9 * condition
    J = sad.derivative(problem, solution, rtol=TIGHT)
    assert difference(J @ x, expected @ x) <= 1e-9
    assert difference(J.T @ v, expected.T @ v) <= 1e-9


# methods --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        None,
        "cg",
        "minres",
        sad.cg,
        sad.minres,
        functools.partial(sad.cg, atol=0.0),
        lambda A, b, x0=None, **options: sad.minres(A, b, x0, **options),
    ],
    ids=["None", "cg", "minres", "sad.cg", "sad.minres", "partial", "own function"],
)
@pytest.mark.parametrize(
    "row",
    [row for row in STATIONARY if row.method == "cg"],
    ids=str,
)
def test_every_method_gives_the_derivative_of_a_minimum(row, method):
    assert difference(
        derivative(row, method=method).todense(), row.dense_jacobian()
    ) <= (1e-9)


@pytest.mark.parametrize("name", ["saddle", "undeclared_maximum"])
def test_minres_differentiates_saddles_and_maxima_and_cg_refuses(name):
    row = BY_NAME[name]
    v = np.ones(row.n)
    with pytest.raises(sad.ConvergenceError, match=r"maximize=True.*minres") as caught:
        sad.vjp(row.problem, row.at_solution(), v)
    assert caught.value.status is sad.Status.NEGATIVE_CURVATURE
    assert difference(derivative(row).todense(), row.dense_jacobian()) <= 1e-9


def test_own_solver_is_given_the_system_and_the_options():
    row = BY_NAME["badly_scaled"]
    seen = []

    def solver(A, b, x0=None, *, rtol, maxiter, M):
        seen.append((A.shape, b, x0, rtol, maxiter, M))
        return sad.cg(A, b, x0, rtol=rtol, maxiter=maxiter, M=M)

    v, start = np.ones(row.n), np.full(row.n, 0.5)
    sad.vjp(
        row.problem,
        row.at_solution(),
        v,
        adjoint0=start,
        method=solver,
        rtol=1e-6,
        maxiter=77,
    )
    ((shape, b, x0, rtol, maxiter, M),) = seen
    assert shape == (row.n, row.n)
    assert b is v
    assert x0 is start
    assert (rtol, maxiter) == (1e-6, 77)
    assert M.shape == shape


@pytest.mark.parametrize("options", [{"maxiter": 1}, {"rtol": 1e-2}], ids=str)
def test_options_bound_by_partial_are_not_overridden(options):
    row = BY_NAME["quadratic"]
    seen = []

    def solver(A, b, x0=None, **given):
        seen.append(given)
        return sad.cg(A, b, x0, **given)

    method = functools.partial(solver, **options)
    sad.vjp(
        row.problem,
        row.at_solution(),
        np.ones(row.n),
        method=method,
        on_failure="ignore",
    )
    (name, value) = next(iter(options.items()))
    assert seen[0][name] == value


def test_a_solver_that_returns_something_else_is_named():
    # SciPy's cg takes the same arguments and returns a tuple.
    row = BY_NAME["quadratic"]

    def scipy_like(A, b, x0=None, **options):
        return np.ones_like(b), 0

    with pytest.raises(TypeError, match=r"KrylovResult.*tuple"):
        sad.vjp(row.problem, row.at_solution(), np.ones(row.n), method=scipy_like)


def test_diagonal_is_exact_for_a_diagonal_hessian():
    d, B = np.array([1.0, 4.0, 9.0]), np.arange(6.0).reshape(3, 2)
    problem = sad.Problem(quadratic_objective(np.diag(d), B, diag=True))
    x, v = np.array([1.0, -1.0]), np.array([1.0, 2.0, 3.0])
    solution = sad.Solution(y=B @ x / d, x=x)
    adjoint = sad.vjp(problem, solution, v, method="diagonal")
    assert difference(adjoint.x, B.T @ (v / d)) <= 1e-14
    assert adjoint.krylov.status is sad.Status.CONVERGED


def test_diagonal_says_that_it_is_approximate_and_how_far_off():
    row = BY_NAME["badly_scaled"]
    H = row.dense_hess(None, None)
    B = -row.dense_cross(None, None)
    v = np.ones(row.n)
    adjoint = sad.vjp(row.problem, row.at_solution(), v, method="diagonal")
    wanted = v / np.diagonal(H)
    assert adjoint.krylov.status is sad.Status.APPROXIMATE
    assert not adjoint.krylov.converged
    assert difference(adjoint.adjoint, wanted) <= 1e-14
    assert difference(adjoint.x, B.T @ wanted) <= 1e-14
    residual = np.linalg.norm(v - H @ wanted)
    assert adjoint.krylov.residual_norm == pytest.approx(residual)


def test_diagonal_asks_for_the_diagonal():
    row = BY_NAME["quadratic"]
    with pytest.raises(NotImplementedError, match="diagonal"):
        sad.vjp(row.problem, row.at_solution(), np.ones(row.n), method="diagonal")


@pytest.mark.parametrize("method", ["lu", "CG", 3])
def test_unknown_method(method):
    row = BY_NAME["quadratic"]
    with pytest.raises(ValueError, match=r"method.*'cg'.*'minres'.*'diagonal'"):
        sad.derivative(row.problem, row.at_solution(), method=method)


# preconditioners ------------------------------------------------------------------


@pytest.mark.parametrize("method", ["cg", "minres"])
def test_preconditioner_is_used_in_both_directions(method):
    """A preconditioner that is lost, or not transposed, in the adjoint."""
    row = BY_NAME["many_variables"]
    H = row.dense_hess(None, None)
    solution, expected = row.at_solution(), row.dense_jacobian()
    u, v = np.ones(row.m), np.ones(row.n)
    M = np.linalg.inv(H)
    options = {"method": method, "M": 0.5 * (M + M.T), "rtol": 1e-11}
    adjoint = sad.vjp(row.problem, solution, v, **options)
    tangent = sad.jvp(row.problem, solution, u, **options)
    plain = sad.vjp(row.problem, solution, v, **(options | {"M": None}))
    assert adjoint.krylov.niter <= 3
    assert tangent.krylov.niter <= 3
    assert plain.krylov.niter > 10
    assert difference(adjoint.x, expected.T @ v) <= 1e-9
    assert difference(tangent.y, expected @ u) <= 1e-9
    J = sad.derivative(row.problem, solution, **options)
    assert difference(J.todense(), expected) <= 1e-9


@pytest.mark.parametrize("method", ["cg", "minres"])
def test_auto_is_the_exact_diagonal_where_it_is_known(method):
    row = BY_NAME["badly_scaled"]
    jacobi = sad.preconditioners.jacobi(np.diagonal(row.dense_hess(None, None)).copy())
    v = np.random.default_rng(3).standard_normal(row.n)

    def niter(M):
        adjoint = sad.vjp(row.problem, row.at_solution(), v, method=method, M=M)
        return adjoint.krylov.niter

    assert niter("auto") == niter(jacobi) < niter(None)


@pytest.mark.parametrize("name", ["quadratic", "log_sum_exp", "sparse_chain"])
def test_the_answer_does_not_depend_on_the_preconditioner(name):
    row = BY_NAME[name]
    d = 1.0 + np.arange(row.n)
    found = [
        derivative(row, M=M).todense()
        for M in (None, "auto", np.diag(d), sad.preconditioners.jacobi(d))
    ]
    for J in found:
        assert difference(J, row.dense_jacobian()) <= 1e-9


def test_auto_without_a_diagonal_is_none():
    row = BY_NAME["quadratic"]
    v = np.ones(row.n)
    auto, none = (
        sad.vjp(row.problem, row.at_solution(), v, M=M) for M in ("auto", None)
    )
    assert np.array_equal(auto.x, none.x)


@pytest.mark.parametrize(
    ("M", "error"),
    [("jacobi", ValueError), (np.eye(3), ValueError), (3.0, TypeError)],
)
def test_wrong_preconditioners_are_refused(M, error):
    row = BY_NAME["quadratic"]
    with pytest.raises(error):
        sad.vjp(row.problem, row.at_solution(), np.ones(row.n), M=M)


def test_an_indefinite_preconditioner_is_found():
    row = BY_NAME["quadratic"]
    with pytest.raises(sad.ConvergenceError) as caught:
        sad.vjp(row.problem, row.at_solution(), np.ones(row.n), M=-np.eye(row.n))
    assert caught.value.status is sad.Status.INDEFINITE_PRECONDITIONER


# warm starts, cost ----------------------------------------------------------------


@pytest.mark.parametrize("method", ["cg", "minres"])
@pytest.mark.parametrize("name", ["many_variables", "log_sum_exp", "sparse_chain"])
def test_warm_start_saves_iterations_and_changes_nothing_else(name, method):
    row = BY_NAME[name]
    solution = row.at_solution()
    v = np.random.default_rng(4).standard_normal(row.n)
    # Without a preconditioner: the exact one leaves a single iteration to both.
    options = {"method": method, "rtol": 1e-8, "M": None}
    cold = sad.vjp(row.problem, solution, v, **options)
    near = v + 1e-5 * np.random.default_rng(5).standard_normal(row.n)
    start = sad.vjp(row.problem, solution, near, method=method, rtol=1e-12).adjoint
    kept = start.copy()
    warm = sad.vjp(row.problem, solution, v, adjoint0=start, **options)
    assert warm.krylov.niter < cold.krylov.niter
    assert difference(warm.x, cold.x) <= 1e-6
    assert np.array_equal(start, kept)
    # The tolerance means the same: relative to v, not to the first residual.
    assert warm.krylov.residual_norm <= 1e-8 * np.linalg.norm(v)


def test_exact_warm_start_takes_no_iteration():
    row = BY_NAME["quadratic"]
    v = np.ones(row.n)
    cold = sad.vjp(row.problem, row.at_solution(), v, rtol=1e-10)
    warm = sad.vjp(row.problem, row.at_solution(), v, adjoint0=cold.adjoint, rtol=1e-9)
    assert warm.krylov.niter == 0
    assert difference(warm.x, cold.x) <= 1e-12


def test_tangent_warm_start_has_the_sign_of_the_tangent():
    row = BY_NAME["quadratic"]
    u = np.ones(row.m)
    cold = sad.jvp(row.problem, row.at_solution(), u, rtol=1e-10)
    warm = sad.jvp(row.problem, row.at_solution(), u, tangent0=cold.tangent, rtol=1e-9)
    assert warm.krylov.niter == 0
    assert difference(warm.y, cold.y) <= 1e-12


@pytest.mark.parametrize(
    "adjoint0", [np.ones(3), np.ones(8, dtype=int), np.ones((3, 2))]
)
def test_wrong_warm_starts_are_refused(adjoint0):
    row = BY_NAME["quadratic"]
    with pytest.raises((ValueError, TypeError), match="adjoint0"):
        sad.vjp(row.problem, row.at_solution(), np.ones(row.n), adjoint0=adjoint0)


@pytest.mark.parametrize("method", ["cg", "minres"])
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@every_row
def test_an_adjoint_costs_its_iterations_and_three_products(row, method, warm):
    if row.method == "minres" and method == "cg":
        pytest.skip("not a minimum")
    problem, counts = counted(row.problem)
    left = row.problem.grad(row.x, row.solution())
    solution = row.at_solution(status=sad.Status.CONVERGED, residual=left)
    start = np.ones(row.n) if warm else None
    adjoint = sad.vjp(problem, solution, np.ones(row.n), adjoint0=start, method=method)
    # Preconditioned MINRES restarts where the metric of M misjudged the residual.
    restarts = 3 if method == "minres" and row.name == "badly_scaled" else 0
    assert adjoint.n_hvp == counts["hvp"] <= adjoint.krylov.niter + 3 + restarts
    assert counts["hess"] == counts["cross"] == 1
    assert (counts["grad"], counts["value"]) == (1, 0)  # to see that it is still so


@every_row
def test_products_that_check_a_solution_are_counted_too(row):
    problem, counts = counted(row.problem)
    v = np.ones(row.n)
    adjoint = sad.vjp(problem, row.at_solution(), v, method=row.method)
    judged = min(row.n, 50) + 3  # the Newton step that is left at this point
    assert adjoint.n_hvp == counts["hvp"] <= adjoint.krylov.niter + 4 + judged
    assert counts["grad"] <= 2


def test_many_products_linearise_once():
    row = BY_NAME["log_sum_exp"]
    problem, counts = counted(row.problem)
    J = sad.derivative(problem, row.at_solution())
    J.todense()
    J.T @ np.ones(row.n)
    assert counts["hess"] == 2  # one to judge a point from elsewhere
    assert counts["cross"] == 1


def test_looser_costs_less():
    row = BY_NAME["many_variables"]
    v = np.random.default_rng(6).standard_normal(row.n)
    cost = [
        sad.vjp(row.problem, row.at_solution(), v, rtol=rtol).n_hvp
        for rtol in (1e-2, 1e-5, 1e-10)
    ]
    assert cost[0] < cost[1] < cost[2]


# solutions from elsewhere, dtypes, edges ------------------------------------------


@pytest.mark.parametrize("name", ["log_sum_exp", "sparse_chain", "quadratic"])
def test_solution_of_another_solver(name):
    row = BY_NAME[name]
    f = row.objective
    other = scipy.optimize.minimize(
        lambda y: f.value(row.x, y),
        row.y0,
        jac=lambda y: f.grad(row.x, y),
        method="L-BFGS-B",
        options={"gtol": 1e-9, "ftol": 1e-15},
    )
    solution = sad.Solution(y=other.x, x=row.x)
    J = sad.derivative(row.problem, solution, rtol=1e-10)
    assert difference(J.todense(), row.dense_jacobian()) <= 1e-5


def test_solution_of_solve():
    row = BY_NAME["log_sum_exp"]
    solution = sad.solve(row.problem, row.x, tol=1e-12)
    J = sad.derivative(row.problem, solution, rtol=TIGHT)
    assert difference(J.todense(), row.dense_jacobian()) <= 1e-9


def test_float32_in_float32_out():
    row = BY_NAME["quadratic"]
    H, B = (np.float32(a) for a in (row.dense_hess(0, 0), -row.dense_cross(0, 0)))
    problem = sad.Problem(quadratic_objective(H, B))
    x = np.float32(row.x)
    solution = sad.solve(problem, x, tol=1e-5)
    u, v = np.ones(row.m, np.float32), np.ones(row.n, np.float32)
    adjoint = sad.vjp(problem, solution, v, rtol=1e-5)
    tangent = sad.jvp(problem, solution, u, rtol=1e-5)
    J = sad.derivative(problem, solution, rtol=1e-5)
    for array in (adjoint.x, adjoint.adjoint, tangent.y, J @ u, J.T @ v, J.todense()):
        assert array.dtype == np.float32
    assert J.dtype == np.float32
    assert difference(adjoint.x, row.dense_jacobian().T @ v) <= 1e-4


def test_float32_ends_at_its_own_rounding_limit():
    row = BY_NAME["quadratic"]
    H, B = (np.float32(a) for a in (row.dense_hess(0, 0), -row.dense_cross(0, 0)))
    problem = sad.Problem(quadratic_objective(H, B))
    solution = sad.Solution(
        y=np.float32(np.linalg.solve(H, B @ np.float32(row.x))), x=np.float32(row.x)
    )
    v = np.ones(row.n, np.float32)
    adjoint = sad.vjp(problem, solution, v, rtol=1e-12)
    assert adjoint.krylov.status is sad.Status.ROUNDING_LIMIT
    assert difference(adjoint.x, row.dense_jacobian().T @ v) <= 1e-4


def test_products_by_differences_say_so():
    row = BY_NAME["log_sum_exp"]
    f = row.objective
    objective = sad.FunctionObjective(
        grad=f.grad,
        cross_vjp=lambda x, y, w: f.cross(x, y).T @ w,
        n=f.n,
    )
    adjoint = sad.vjp(sad.Problem(objective), row.at_solution(), np.ones(row.n))
    assert any("central differences" in warning for warning in adjoint.warnings)
    expected = row.dense_jacobian().T @ np.ones(row.n)
    assert difference(adjoint.x, expected) <= 1e-7


def test_warnings_of_the_solution_are_repeated():
    row = BY_NAME["quadratic"]
    solution = dataclasses.replace(row.at_solution(), warnings=("from afar",))
    adjoint = sad.vjp(row.problem, solution, np.ones(row.n))
    tangent = sad.jvp(row.problem, solution, np.ones(row.m))
    assert adjoint.warnings == tangent.warnings == ("from afar",)


def test_a_zero_seed_has_a_zero_adjoint():
    row = BY_NAME["quadratic"]
    adjoint = sad.vjp(row.problem, row.at_solution(), np.zeros(row.n))
    assert not adjoint.x.any()
    assert adjoint.krylov.status is sad.Status.CONVERGED


def test_no_columns():
    row = BY_NAME["quadratic"]
    J = sad.derivative(row.problem, row.at_solution())
    assert (J @ np.zeros((row.m, 0))).shape == (row.n, 0)
    assert (J.T @ np.zeros((row.n, 0))).shape == (row.m, 0)


def test_no_variables_and_no_parameters():
    problem = sad.Problem(quadratic_objective(np.eye(3), np.zeros((3, 0)), np.ones(3)))
    solution = sad.solve(problem, np.zeros(0))
    assert difference(solution.y, np.ones(3)) <= 1e-8
    assert (sad.derivative(problem, solution).T @ np.ones(3)).shape == (0,)
    problem = sad.Problem(quadratic_objective(np.eye(0), np.zeros((0, 2))))
    solution = sad.solve(problem, np.ones(2))
    assert np.array_equal(sad.vjp(problem, solution, np.zeros(0)).x, np.zeros(2))


def test_nothing_of_the_callers_is_modified():
    row = BY_NAME["sparse_chain"]
    arrays = [row.x.copy(), row.solution(), np.ones(row.n), np.ones(row.m), np.ones(30)]
    for array in arrays:
        array.flags.writeable = False
    x, y, v, u, start = arrays
    solution = sad.Solution(y=y, x=x)
    sad.vjp(row.problem, solution, v, adjoint0=start)
    sad.jvp(row.problem, solution, u, tangent0=start)
    J = sad.derivative(row.problem, solution)
    J.todense()


def test_non_contiguous_arrays():
    row = BY_NAME["quadratic"]
    v, u = np.ones(row.n), np.ones(row.m)
    spread = {name: np.zeros(2 * a.shape[0]) for name, a in (("v", v), ("u", u))}
    spread["v"][::2], spread["u"][::2] = v, u
    solution, expected = row.at_solution(), row.dense_jacobian()
    adjoint = sad.vjp(row.problem, solution, spread["v"][::2], rtol=TIGHT)
    tangent = sad.jvp(row.problem, solution, spread["u"][::-2][::-1], rtol=TIGHT)
    assert difference(adjoint.x, expected.T @ v) <= 1e-9
    assert tangent.y.shape == (row.n,)
    V = np.asfortranarray(np.ones((row.n, 4)))[:, ::2]
    J = sad.derivative(row.problem, solution, rtol=TIGHT)
    assert difference(J.T @ V, expected.T @ V) <= 1e-9


def test_an_identity_hessian_that_returns_its_operand():
    """The products p and A p are then one array, which must not be updated twice."""
    objective = sad.FunctionObjective(
        grad=lambda x, y: y - x,
        hvp=lambda x, y, v: v,
        cross_jvp=lambda x, y, u: -u,
        cross_vjp=lambda x, y, w: -w,
        n=4,
    )
    problem, x = sad.Problem(objective), np.arange(1.0, 5.0)
    solution = sad.solve(problem, x)
    v = np.array([3.0, 1.0, -1.0, 2.0])
    for method in ("cg", "minres"):
        for M in (None, sad.LinearOperator((4, 4), lambda r: r, symmetric=True)):
            adjoint = sad.vjp(problem, solution, v, method=method, M=M)
            assert difference(adjoint.x, v) <= 1e-12
    assert np.array_equal(v, [3.0, 1.0, -1.0, 2.0])
    assert np.array_equal(x, np.arange(1.0, 5.0))


def test_records_are_frozen():
    row = BY_NAME["quadratic"]
    adjoint = sad.vjp(row.problem, row.at_solution(), np.ones(row.n))
    tangent = sad.jvp(row.problem, row.at_solution(), np.ones(row.m))
    for record, name in ((adjoint, "x"), (tangent, "y"), (row.at_solution(), "y")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, name, None)


def test_one_bad_column_is_in_the_message():
    """The largest of several residuals is no number where one of them is none."""
    row = BY_NAME["badly_scaled"]
    J = sad.derivative(row.problem, row.at_solution())
    DX = np.ones((row.m, 2))
    DX[:, 1] = np.nan
    with pytest.raises(sad.ConvergenceError, match="u has NaN") as caught:
        J @ DX
    assert caught.value.status is sad.Status.NOT_FINITE
