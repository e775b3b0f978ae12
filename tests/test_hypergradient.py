"""F(x) = f^U(x, g(x)): its gradient, its tolerances, its warm start, its cost."""

import dataclasses

import numpy as np
import pytest
import scipy.optimize
from problems import BY_NAME, PROBLEMS, counted, quadratic_objective, without

import sparse_argdiff as sad
from sparse_argdiff import linear_model

every_row = pytest.mark.parametrize("row", PROBLEMS, ids=str)
direct = pytest.mark.parametrize("direct", [False, True], ids=["y alone", "x direct"])


def distance(a, b):
    return np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-3)


def upper_of(row, *, direct=True):
    """Return ½ ‖y − t‖² (+ ¼ ‖x‖⁴) for a target t that depends on the row's size."""
    target = np.cos(np.arange(row.n)).astype(row.y0.dtype)
    if not direct:
        return sad.FunctionUpper(
            lambda x, y: float(0.5 * (y - target) @ (y - target)),
            lambda x, y: y - target,
        )
    return sad.FunctionUpper(
        lambda x, y: float(0.5 * (y - target) @ (y - target) + 0.25 * (x @ x) ** 2),
        lambda x, y: y - target,
        lambda x, y: (x @ x) * x,
    )


def hypergradient(row, *, direct=True, problem=None, **options):
    options = {"y0": row.y0, "tol": 1e-11} | options
    return sad.Hypergradient(
        row.problem if problem is None else problem,
        upper_of(row, direct=direct),
        **options,
    )


# the answer -----------------------------------------------------------------------


@direct
@every_row
def test_agrees_with_dense_algebra(row, direct):
    upper = upper_of(row, direct=direct)
    value, gradient = hypergradient(row, direct=direct)(row.x)
    y = row.solution()
    expected = row.dense_jacobian().T @ upper.grad_y(row.x, y)
    if direct:
        expected = expected + upper.grad_x(row.x, y)
    assert isinstance(value, float)
    assert value == pytest.approx(upper.value(row.x, y), rel=1e-8)
    assert gradient.shape == row.x.shape
    assert distance(gradient, expected) <= 1e-7


@direct
@every_row
def test_agrees_with_differences(row, direct):
    assert sad.check_hypergradient(
        hypergradient(row, direct=direct), row.x, rtol=1e-5, directions=2
    )


@pytest.mark.parametrize(
    "name", ["quadratic", "log_sum_exp", "argmax", "softmax_likelihood"]
)
def test_agrees_with_differences_of_the_known_solution(name):
    row = BY_NAME[name]
    upper = upper_of(row)
    _, gradient = hypergradient(row)(row.x)
    d = np.random.default_rng(0).standard_normal(row.m)
    h = 1e-5
    ahead, behind = (
        upper.value(x, row.solution(x)) for x in (row.x + h * d, row.x - h * d)
    )
    assert gradient @ d == pytest.approx((ahead - behind) / (2 * h), rel=1e-6)


def test_works_in_scipy_minimize():
    """min ½ ‖y − t‖² s.t. H y = B x + c with B invertible: the target is reached."""
    rng = np.random.default_rng(1)
    B = np.eye(4) + 0.1 * rng.standard_normal((4, 4))
    target = np.array([1.0, -2.0, 0.5, 3.0])
    upper = sad.FunctionUpper(
        lambda x, y: 0.5 * float((y - target) @ (y - target)), lambda x, y: y - target
    )
    H = np.diag([1.0, 2.0, 3.0, 4.0])
    F = sad.Hypergradient(sad.Problem(quadratic_objective(H, B)), upper, tol=1e-10)
    found = scipy.optimize.minimize(F, np.zeros(4), jac=True, options={"gtol": 1e-9})
    assert found.success
    assert found.x == pytest.approx(np.linalg.solve(B, H @ target), abs=1e-6)
    assert F.n_evaluations == found.nfev


def test_value_alone_is_the_same_value_and_costs_no_adjoint():
    row = BY_NAME["log_sum_exp"]
    F = hypergradient(row, warm_start=False)
    result = F.evaluate(row.x)
    before = F.n_hvp
    assert F.value(row.x) == result.value
    assert F.n_hvp - before == result.solution.n_hvp


@pytest.mark.parametrize("method", ["cg", "minres", sad.cg])
def test_method_of_the_adjoint(method):
    row = BY_NAME["sparse_chain"]
    _, plain = hypergradient(row)(row.x)
    for M in (None, "auto", np.eye(row.n)):
        _, gradient = hypergradient(row, method=method, M=M)(row.x)
        assert distance(gradient, plain) <= 1e-8


def test_own_solver_of_the_lower_level():
    row = BY_NAME["log_sum_exp"]
    calls = []

    def solver(problem, x, y0, tol):
        calls.append((y0, tol))
        return sad.Solution(y=row.solution(x), x=x)

    F = hypergradient(row, solver=solver)
    _, gradient = F(row.x)
    _, plain = hypergradient(row)(row.x)
    assert distance(gradient, plain) <= 1e-8
    F(row.x)
    assert len(calls) == 1  # of the same x
    F(1.0001 * row.x)
    assert calls[0][0] is row.y0
    assert np.array_equal(calls[1][0], row.solution())


def test_a_lower_level_without_hvp_says_so():
    row = BY_NAME["log_sum_exp"]
    F = hypergradient(row, problem=without(row.problem, "hvp"), tol=1e-8)
    result = F.evaluate(row.x)
    assert any("central differences" in warning for warning in result.warnings)
    _, plain = hypergradient(row)(row.x)
    assert distance(result.gradient, plain) <= 1e-5


# tolerances -----------------------------------------------------------------------


def test_looser_costs_less_and_is_less_exact():
    row = BY_NAME["many_variables"]
    F = hypergradient(row, warm_start=False)
    results = [F.evaluate(row.x, tol=tol) for tol in (1e-2, 1e-5, 1e-11)]
    costs = [result.n_hvp for result in results]
    errors = [distance(r.gradient, results[-1].gradient) for r in results[:-1]]
    assert costs[0] < costs[1] < costs[2]
    assert errors[0] <= 1.0
    assert errors[1] <= 1e-3
    assert errors[1] < errors[0]


def test_adjoint_tol_is_its_own():
    row = BY_NAME["many_variables"]
    F = hypergradient(row, tol=1e-10, adjoint_tol=1e-2, warm_start=False)
    result = F.evaluate(row.x)
    size = np.linalg.norm(upper_of(row).grad_y(row.x, result.solution.y))
    assert 1e-6 * size < result.adjoint.krylov.residual_norm <= 1e-2 * size
    tighter = F.evaluate(row.x, adjoint_tol=1e-9)
    assert tighter.adjoint.krylov.residual_norm <= 1e-9 * size
    assert tighter.solution.n_hvp == result.solution.n_hvp


def test_tol_of_one_evaluation_is_for_that_one_alone():
    row = BY_NAME["many_variables"]
    F = hypergradient(row, warm_start=False)
    first = F.evaluate(row.x)
    F.evaluate(row.x, tol=1e-2)
    assert F.evaluate(row.x).n_hvp == first.n_hvp


# the warm start -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["log_sum_exp", "sparse_chain", "many_variables"])
def test_warm_start_costs_less_along_a_path_and_agrees(name):
    row = BY_NAME[name]
    path = [row.x + 1e-3 * k for k in range(6)]
    warm, cold = (hypergradient(row, warm_start=w, tol=1e-9) for w in (True, False))
    for x in path:
        (warm_value, warm_gradient), (value, gradient) = warm(x), cold(x)
        assert warm_value == pytest.approx(value, rel=1e-7)
        assert distance(warm_gradient, gradient) <= 1e-6
    assert warm.n_hvp < 0.9 * cold.n_hvp
    assert warm.n_evaluations == cold.n_evaluations == len(path)


def test_the_same_point_again_costs_almost_nothing():
    row = BY_NAME["sparse_chain"]
    F = hypergradient(row, tol=1e-8)
    first = F.evaluate(row.x, certify=False)
    again = F.evaluate(row.x, certify=False)
    assert first.n_hvp > 5
    assert again.n_hvp <= 3
    assert again.value == first.value
    assert distance(again.gradient, first.gradient) <= 1e-7


def test_a_failed_evaluation_does_not_spoil_the_next():
    """The warm start is what the last good evaluation left, not NaN."""
    row = BY_NAME["log_sum_exp"]
    for on_failure in ("raise", "ignore"):
        F = hypergradient(row, tol=1e-8, on_failure=on_failure)
        _, expected = F(row.x)
        try:
            F(np.full(row.m, np.nan))
        except sad.ConvergenceError:
            assert on_failure == "raise"
        _, again = F(row.x)
        assert distance(again, expected) <= 1e-6


def test_changing_the_gradient_returned_does_not_change_the_next():
    row = BY_NAME["log_sum_exp"]
    F = hypergradient(row)
    _, gradient = F(row.x)
    kept = gradient.copy()
    gradient[:] = np.nan
    _, again = F(row.x)
    assert distance(again, kept) <= 1e-8


@direct
def test_an_upper_gradient_that_is_a_constant_is_not_modified(direct):
    row = BY_NAME["quadratic"]
    constant = np.ones(row.n)
    by_x = np.ones(row.m)
    upper = sad.FunctionUpper(
        lambda x, y: float(y.sum() + x.sum() * direct),
        lambda x, y: constant,
        (lambda x, y: by_x) if direct else None,
    )
    F = sad.Hypergradient(row.problem, upper)
    F(row.x)
    F(row.x)
    assert np.array_equal(constant, np.ones(row.n))
    assert np.array_equal(by_x, np.ones(row.m))


def correlated(n=60, seed=0):
    """Return a ridge problem with a spectrum that CG feels, its held-out loss and x."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((n, n)))[0]
    spread = np.geomspace(1.0, 1e-2, n)
    train, held = ((rng.standard_normal((90, n)) * spread) @ turn.T for _ in range(2))
    truth = rng.standard_normal(n)
    noise = rng.standard_normal((2, 90))
    glm = linear_model.Glm(train, train @ truth + noise[0], loss="squared")
    upper = glm.held_out(held, held @ truth + noise[1])
    return sad.Problem(glm), upper, np.full(n, -6.0)


def test_state_is_all_that_the_next_evaluation_depends_on():
    """Three adjoints of a path, taken up by another instance: the same to the bit."""
    problem, upper, x = correlated()
    one = sad.Hypergradient(problem, upper, tol=1e-6)
    for k in range(3):
        one.evaluate(x + 0.2 * k, certify=False)
    state = one.state
    assert len(state.adjoints) == 3
    two = sad.Hypergradient(problem, upper, tol=1e-6)
    two.state = state
    results = [F.evaluate(x + 0.6, certify=False) for F in (one, two)]
    np.testing.assert_array_equal(results[0].gradient, results[1].gradient)
    assert results[0].n_hvp == results[1].n_hvp
    assert one.n_hvp == two.n_hvp


def test_three_adjoints_are_a_better_start_than_the_last():
    """Galerkin projection; a cold adjoint at every x is the trap it replaces."""
    problem, upper, x = correlated()
    spent = {}
    for kept in ("none", "last", "three"):
        F = sad.Hypergradient(problem, upper, tol=1e-9)
        spent[kept] = 0
        for k in range(8):
            if kept == "none":
                F.state = dataclasses.replace(F.state, adjoints=())
            if kept == "last":
                last = F.state.adjoints[:1]
                F.state = dataclasses.replace(F.state, adjoints=last)
            found = F.evaluate(x + 0.1 * k, certify=False)
            spent[kept] += found.adjoint.n_hvp if k >= 3 else 0
    assert spent["three"] < 0.95 * spent["last"] < 0.95 * spent["none"], spent


def test_one_preconditioner_serves_both_levels_and_survives():
    problem, upper, x = correlated()
    spent, gradients = {}, {}
    for name, M in (("auto", "auto"), ("kept", sad.preconditioners.Auto())):
        F = sad.Hypergradient(problem, upper, tol=1e-8, M=M)
        for k in range(8):
            _, gradients[name] = F(x + 0.3 * k)
        spent[name] = F.n_hvp
    assert distance(gradients["kept"], gradients["auto"]) <= 1e-5
    assert M.n_matvec > 0
    assert spent["kept"] < 0.7 * spent["auto"], spent


def test_a_value_and_then_a_gradient_pay_for_one_solve():
    problem, upper, x = correlated()
    F, G = (sad.Hypergradient(problem, upper, warm_start=False) for _ in range(2))
    whole = F.evaluate(x, certify=False)
    value = G.value(x)
    found = G.evaluate(x, certify=False)
    assert value == pytest.approx(found.value, rel=1e-6)
    assert G.n_hvp == F.n_hvp
    assert G.n_grad == F.n_grad
    np.testing.assert_array_equal(found.gradient, whole.gradient)
    again = G.evaluate(x, certify=False)  # that was for once
    assert again.n_hvp == whole.n_hvp


def test_an_adjoint_builder_is_not_for_constraints():
    n = 4
    problem = sad.Problem(
        quadratic_objective(np.eye(n), np.eye(n)),
        equality=sad.LinearEquality(np.ones((1, n)), np.ones(1)),
    )
    upper = sad.FunctionUpper(lambda x, y: 0.5 * float(y @ y), lambda x, y: y)
    F = sad.Hypergradient(problem, upper)
    with pytest.raises(ValueError, match="adjoint0 must be an array"):
        F.evaluate(np.ones(n), adjoint0=lambda K: K)
    whole = F.evaluate(np.ones(n), certify=False)
    cut = F.evaluate(np.ones(n), until="descent", certify=False)
    assert distance(cut.gradient, whole.gradient) <= 1e-8


# cost, dtype ----------------------------------------------------------------------


@pytest.mark.parametrize("warm_start", [True, False])
@every_row
def test_work_is_counted(row, warm_start):
    problem, counts = counted(row.problem)
    F = hypergradient(row, problem=problem, tol=1e-8, warm_start=warm_start)
    total_hvp = total_grad = 0
    for k in range(3):
        before = dict(counts)
        result = F.evaluate(row.x + 1e-3 * k)
        assert result.n_hvp == counts["hvp"] - before.get("hvp", 0)
        assert result.n_grad == counts["grad"] - before.get("grad", 0)
        parts = (result.solution, result.adjoint, result.certificate)
        assert result.n_hvp == sum(part.n_hvp for part in parts)
        total_hvp += result.n_hvp
        total_grad += result.n_grad
    assert F.n_hvp == total_hvp
    assert F.n_grad == total_grad
    assert F.n_evaluations == 3


def test_float32():
    row = BY_NAME["quadratic"]
    H, B = (np.float32(a) for a in (row.dense_hess(0, 0), -row.dense_cross(0, 0)))
    single = dataclasses.replace(row, x=np.float32(row.x), y0=np.float32(row.y0))
    F = hypergradient(
        single, problem=sad.Problem(quadratic_objective(H, B)), tol=1e-5, y0=None
    )
    value, gradient = F(single.x)
    assert isinstance(value, float)
    assert gradient.dtype == F.y.dtype == F.adjoint.dtype == np.float32
    J, y = np.linalg.solve(H, B), np.linalg.solve(H, B @ single.x)
    upper = upper_of(single)
    expected = J.T @ upper.grad_y(single.x, y) + upper.grad_x(single.x, y)
    assert distance(gradient, expected) <= 1e-4


# failures -------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_upper_value_raises(value):
    row = BY_NAME["quadratic"]
    upper = sad.FunctionUpper(lambda x, y: value, lambda x, y: y)
    F = sad.Hypergradient(row.problem, upper)
    with pytest.raises(sad.ConvergenceError, match=r"upper\.value returned") as caught:
        F(row.x)
    assert caught.value.status is sad.Status.NOT_FINITE
    with pytest.raises(sad.ConvergenceError):
        F.value(row.x)


@pytest.mark.parametrize("name", ["grad_y", "grad_x"])
def test_nan_upper_gradients_raise(name):
    row = BY_NAME["quadratic"]
    functions = {
        "value": lambda x, y: 0.0,
        "grad_y": lambda x, y: y,
        "grad_x": lambda x, y: x,
    }
    right = functions[name]
    functions[name] = lambda x, y: np.nan * right(x, y)
    F = sad.Hypergradient(row.problem, sad.FunctionUpper(**functions))
    with pytest.raises(sad.ConvergenceError) as caught:
        F(row.x)
    assert caught.value.status is sad.Status.NOT_FINITE


def test_a_lower_level_that_fails_raises():
    row = BY_NAME["sparse_chain"]
    with pytest.raises(
        sad.ConvergenceError, match=r"lower-level solve.*ITERATION_LIMIT"
    ):
        hypergradient(row, maxiter=1)(row.x)


def test_an_adjoint_that_fails_raises():
    row = BY_NAME["many_variables"]
    with pytest.raises(sad.ConvergenceError, match="linear solve") as caught:
        hypergradient(row, adjoint_maxiter=2)(row.x)
    assert caught.value.status is sad.Status.ITERATION_LIMIT
    assert isinstance(caught.value.result, sad.KrylovResult)


def test_on_failure():
    row = BY_NAME["many_variables"]
    with pytest.warns(sad.ConvergenceWarning, match="ITERATION_LIMIT"):
        hypergradient(row, adjoint_maxiter=2, on_failure="warn")(row.x)
    result = hypergradient(row, adjoint_maxiter=2, on_failure="ignore").evaluate(row.x)
    assert result.adjoint.krylov.status is sad.Status.ITERATION_LIMIT
    with pytest.raises(ValueError, match="on_failure"):
        hypergradient(row, on_failure="silent")(row.x)


def corner(on_failure="raise"):
    """Return F of y = max(0, x), whose bound is weakly active at x = 0."""
    problem = sad.Problem(quadratic_objective(np.eye(1), np.eye(1)), lower=0.0)
    upper = sad.FunctionUpper(
        lambda x, y: float(y @ y + y.sum()), lambda x, y: 2 * y + 1
    )
    return problem, upper, sad.Hypergradient(problem, upper, on_failure=on_failure)


def test_the_plain_call_says_that_a_derivative_is_one_sided():
    _, _, F = corner()
    with pytest.warns(sad.ConvergenceWarning, match="one-sided") as caught:
        F(np.zeros(1))
    assert caught[0].filename == __file__
    noted = F.evaluate(np.zeros(1), certify=False).warnings  # and no warning is shown
    assert noted == tuple(str(w.message) for w in caught)
    corner("ignore")[2](np.zeros(1))
    F(np.ones(1))


def test_minimize_says_that_a_derivative_is_one_sided():
    problem, upper, _ = corner()
    for method in ("maid", "hoag", "gradient_descent", "lbfgs"):
        options = {"method": method, "maxiter": 3}
        with pytest.warns(sad.ConvergenceWarning, match="one-sided") as caught:
            found = sad.minimize(problem, upper, np.zeros(1), **options)
        assert caught[-1].filename == __file__
        assert any("one-sided" in note for note in found.warnings)
        quiet = sad.minimize(
            problem, upper, np.zeros(1), on_failure="ignore", **options
        )
        assert quiet.warnings == found.warnings


@pytest.mark.parametrize(("error", "said"), [(2e-3, True), (5e-4, False)])
def test_the_plain_call_says_that_the_adjoint_is_poor(error, said):
    """Half the digits of adjoint_tol = 1e-6 are missing from 1e-3 on; λ = (1, 1)."""
    K = np.diag([1.0, 4.0])

    def solver(A, b, x0=None, **options):
        return dataclasses.replace(
            sad.cg(A, b, rtol=1e-12), energy_error=error * 5**0.5
        )

    problem = sad.Problem(quadratic_objective(K, np.eye(2)))
    upper = sad.FunctionUpper(lambda x, y: 0.0, lambda x, y: np.array([1.0, 4.0]))
    F = sad.Hypergradient(problem, upper, method=solver, adjoint_tol=1e-6)
    found = F.evaluate(np.ones(2), certify=False)
    assert found.adjoint_error == pytest.approx(error)
    assert any("the adjoint is wrong" in note for note in found.warnings) == said
    if said:
        with pytest.warns(
            sad.ConvergenceWarning, match="adjoint is wrong by about 2e-03"
        ):
            F(np.ones(2))
    else:
        F(np.ones(2))


@pytest.mark.parametrize(("error", "said"), [(2e-3, True), (5e-4, False)])
def test_the_plain_call_says_that_y_is_poor(error, said):
    """Half the digits of tol = 1e-6 are missing from 1e-3 on."""
    problem, upper, _ = corner()

    def solver(problem, x, y0, tol):
        stated = {"residual": problem.grad(x, x), "relative_error": error}
        return sad.Solution(y=x, x=x, status=sad.Status.CONVERGED, **stated)

    F = sad.Hypergradient(
        sad.Problem(problem.objective), upper, solver=solver, tol=1e-6
    )
    found = F.evaluate(np.ones(1), certify=False)
    assert any("Newton step of about" in note for note in found.warnings) == said
    if said:
        with pytest.warns(sad.ConvergenceWarning, match="Newton step of about 2e-03"):
            F(np.ones(1))
    else:
        F(np.ones(1))


@pytest.mark.parametrize("name", ["grad_y", "grad_x"])
def test_wrong_shapes_of_the_upper_level_are_named(name):
    row = BY_NAME["quadratic"]
    functions = {
        "value": lambda x, y: 0.0,
        "grad_y": lambda x, y: y,
        "grad_x": lambda x, y: x,
    }
    functions[name] = lambda x, y: np.ones(3)
    F = sad.Hypergradient(row.problem, sad.FunctionUpper(**functions))
    with pytest.raises(ValueError, match=rf"upper\.{name}.*\(3,\)"):
        F(row.x)


@pytest.mark.parametrize("missing", ["value", "grad_y", "grad_x"])
def test_missing_methods_of_the_upper_level_are_named(missing):
    methods = {
        name: lambda self, x, y: None
        for name in ("value", "grad_y", "grad_x")
        if name != missing
    }
    with pytest.raises(TypeError, match=f"Half lacks {missing}"):
        sad.Hypergradient(BY_NAME["quadratic"].problem, type("Half", (), methods)())


@pytest.mark.parametrize(
    "x", [np.arange(5), np.ones(5) + 0j, np.array([None] * 5), np.eye(5), 3]
)
def test_wrong_x_is_refused(x):
    F = hypergradient(BY_NAME["quadratic"])
    with pytest.raises((TypeError, ValueError), match="x must be"):
        F(x)
    with pytest.raises((TypeError, ValueError), match="x must be"):
        F.value(x)


@pytest.mark.parametrize("tol", [1e-3, 1e-4, 1e-5])
def test_the_corrected_value_is_closer_than_the_plain_one(tol):
    """By ten times and more in the median: second order against first."""
    gains = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        features = rng.standard_normal((60, 25)) * np.geomspace(1.0, 0.03, 25)
        targets = (rng.random(60) < 0.5).astype(float)
        glm = linear_model.Glm(features, targets)
        upper = glm.held_out(features[::-1], targets)
        x = rng.normal(-5.0, 1.0, glm.m)
        exact = sad.Hypergradient(sad.Problem(glm), upper, tol=1e-12).evaluate(x)
        found = sad.Hypergradient(sad.Problem(glm), upper, tol=tol).evaluate(x)
        plain = abs(upper.value(x, found.solution.y) - exact.value)
        gains.append(plain / max(abs(found.value - exact.value), 1e-15))
    assert np.median(gains) >= 10.0


# extreme x ------------------------------------------------------------------------


@pytest.mark.parametrize("steep", [100.0, 200.0, 500.0, 709.0])
@pytest.mark.parametrize("loss", ["squared", "logistic", "poisson", "huber"])
def test_a_start_of_a_coefficient_that_x_all_but_fixes_costs_no_digits(loss, steep):
    """Its ½ e^x c² of the start hid what the other coefficients were wrong by."""
    rng = np.random.default_rng(1)
    features, signal = rng.standard_normal((30, 3)), rng.standard_normal(30)
    targets = {"logistic": signal > 0.0, "poisson": np.round(np.exp(signal))}
    targets = np.asarray(targets.get(loss, signal), dtype=float)
    glm = linear_model.Glm(features[:20], targets[:20], loss=loss)
    problem, upper = sad.Problem(glm), glm.held_out(features[20:], targets[20:])
    x, start = np.array([steep, 0.0, 0.0]), np.array([0.2, 0.0, 0.0, 0.0])
    cold = sad.Hypergradient(problem, upper)(x)
    warm = sad.Hypergradient(problem, upper, y0=start)(x)
    assert warm[0] == pytest.approx(cold[0], rel=1e-8)
    np.testing.assert_allclose(warm[1], cold[1], rtol=1e-5, atol=1e-9)


@pytest.mark.filterwarnings("ignore::sparse_argdiff.ConvergenceWarning")
@pytest.mark.parametrize("loss", ["squared", "poisson", "huber"])
def test_a_path_of_extreme_x_has_the_values_of_cold_solves(loss):
    """x to 1e4: e^x is 0, infinite and all in between, at other coefficients each time."""
    for seed in range(4):
        rng = np.random.default_rng([7001, seed])
        features = rng.standard_normal((60, 8))
        signal = 0.7 * rng.standard_normal(60)
        counts = rng.poisson(np.exp(signal)).astype(float)
        targets = counts if loss == "poisson" else signal
        glm = linear_model.Glm(features[:40], targets[:40], loss=loss)
        problem, upper = sad.Problem(glm), glm.held_out(features[40:], targets[40:])
        path = sad.Hypergradient(problem, upper)
        for size in (100.0, 300.0, 1e3, 3e3, 1e4):
            x = size * rng.standard_normal(8)
            cold, warm = sad.Hypergradient(problem, upper)(x), path(x)
            assert warm[0] == pytest.approx(cold[0], rel=1e-7)
            np.testing.assert_allclose(warm[1], cold[1], rtol=1e-4, atol=1e-8)
