"""The checks pass what is right, and name each single planted error."""

import numpy as np
import pytest
from problems import BY_NAME, STATIONARY, log_sum_exp_objective

import sparse_argdiff as sad


def right():
    """Return the functions of an objective, all correct, with a point."""
    rng = np.random.default_rng(0)
    A, C = rng.standard_normal((9, 6)), rng.standard_normal((9, 4))
    f = log_sum_exp_objective(A, C, rng.standard_normal(6), 0.1)
    functions = {
        "value": f.value,
        "grad": f.grad,
        "hvp": f._hvp,
        "cross_jvp": f._cross_jvp,
        "cross_vjp": f._cross_vjp,
        "hess_diag": lambda x, y: np.diagonal(f.hess(x, y).todense()).copy(),
    }
    return functions, rng.standard_normal(4), rng.standard_normal(6)


@pytest.mark.parametrize("row", STATIONARY, ids=str)
def test_correct_objectives_pass(row):
    y = row.solution() + 0.1
    report = sad.check_derivatives(row.objective, row.x, y)
    assert report
    assert report.failed == ()
    assert "FAILED" not in str(report)


def test_all_parts_are_checked():
    functions, x, y = right()
    report = sad.check_derivatives(sad.FunctionObjective(**functions), x, y)
    assert set(report.errors) == set(report.rtol)
    assert len(report.errors) == 6


SKEW = np.triu(np.ones((6, 6)), 1) - np.tril(np.ones((6, 6)), -1)

ERRORS = {
    # planted error: (function, how it is spoilt, words of the check that names it)
    "wrong sign in grad": ("grad", lambda f: lambda x, y: -f(x, y), "grad against"),
    "grad of another function": (
        "grad",
        lambda f: lambda x, y: f(x, y) + 0.1,
        "grad against",
    ),
    "hvp off by 1 %": (
        "hvp",
        lambda f: lambda x, y, v: 1.01 * f(x, y, v),
        "hess against",
    ),
    "non-symmetric hvp": (
        "hvp",
        lambda f: lambda x, y, v: f(x, y, v) + 0.01 * SKEW @ v,
        "symmetric",
    ),
    "cross_jvp off by 1 %": (
        "cross_jvp",
        lambda f: lambda x, y, u: 1.01 * f(x, y, u),
        "cross against",
    ),
    "wrong sign in cross_jvp": (
        "cross_jvp",
        lambda f: lambda x, y, u: -f(x, y, u),
        "cross against",
    ),
    "cross_vjp of another matrix": (
        "cross_vjp",
        lambda f: lambda x, y, w: f(x, y, w[::-1].copy()),
        "cross transposed",
    ),
    "cross_vjp off by 1 %": (
        "cross_vjp",
        lambda f: lambda x, y, w: 1.01 * f(x, y, w),
        "cross transposed",
    ),
    "hess_diag off by 1 %": (
        "hess_diag",
        lambda f: lambda x, y: 1.01 * f(x, y),
        "diagonal",
    ),
    "NaN in hvp": ("hvp", lambda f: lambda x, y, v: np.nan * v, "hess against"),
    "NaN in value": ("value", lambda f: lambda x, y: np.nan, "grad against"),
    "NaN in cross_vjp": (
        "cross_vjp",
        lambda f: lambda x, y, w: np.nan * f(x, y, w),
        "cross transposed",
    ),
}


@pytest.mark.parametrize("error", ERRORS)
def test_each_planted_error_is_caught_and_named(error):
    name, spoil, words = ERRORS[error]
    functions, x, y = right()
    functions[name] = spoil(functions[name])
    objective = sad.FunctionObjective(**functions)
    report = sad.check_derivatives(objective, x, y, raise_on_failure=False)
    assert not report
    assert any(words in check for check in report.failed)
    if name not in {"grad", "hvp"}:  # those two are also what others compare with
        assert len(report.failed) == 1
    with pytest.raises(sad.CheckError, match="FAILED") as caught:
        sad.check_derivatives(objective, x, y)
    assert caught.value.report.failed == report.failed
    assert str(caught.value) == str(report)
    assert isinstance(caught.value, AssertionError)


@pytest.mark.parametrize(
    "missing",
    [("value",), ("cross_jvp",), ("cross_vjp",), ("hess_diag",), ("hvp", "hess_diag")],
    ids=", ".join,
)
def test_missing_parts_are_left_out(missing):
    functions, x, y = right()
    for name in missing:
        del functions[name]
    report = sad.check_derivatives(sad.FunctionObjective(**functions), x, y)
    assert report
    assert len(report.errors) == 5


def test_a_gradient_that_reuses_its_buffer():
    """Two differences of one array with itself would be zero: a right grad, refused."""
    functions, x, y = right()
    grad, hvp = functions["grad"], functions["hvp"]
    buffers = {"grad": np.empty(6), "hvp": np.empty(6)}

    def buffered_grad(x, y):
        buffers["grad"][:] = grad(x, y)
        return buffers["grad"]

    def buffered_hvp(x, y, v):
        buffers["hvp"][:] = hvp(x, y, v)
        return buffers["hvp"]

    functions |= {"grad": buffered_grad, "hvp": buffered_hvp}
    assert sad.check_derivatives(sad.FunctionObjective(**functions), x, y)


def test_large_offsets_of_the_value_are_no_error():
    functions, x, y = right()
    value = functions["value"]
    functions["value"] = lambda x, y: value(x, y) + 1e6
    assert sad.check_derivatives(sad.FunctionObjective(**functions), x, y)


@pytest.mark.parametrize("factor", [1e-10, 1e10])
def test_units_of_f_are_no_error_and_hide_none(factor):
    functions, x, y = right()
    for name, f in list(functions.items()):
        functions[name] = lambda *a, f=f: factor * f(*a)
    assert sad.check_derivatives(sad.FunctionObjective(**functions), x, y)
    hvp = functions["hvp"]
    functions["hvp"] = lambda x, y, v: 1.01 * hvp(x, y, v)
    objective = sad.FunctionObjective(**functions)
    assert not sad.check_derivatives(objective, x, y, raise_on_failure=False)


def test_float32():
    rng = np.random.default_rng(1)
    A, C = (np.float32(rng.standard_normal((9, k))) for k in (6, 4))
    f = log_sum_exp_objective(A, C, np.zeros(6, np.float32), np.float32(0.1))
    x, y = np.ones(4, np.float32), np.ones(6, np.float32)
    report = sad.check_derivatives(f, x, y)
    assert 1e-4 < next(iter(report.rtol.values())) < 1.0


def test_rtol_and_rng_are_the_callers():
    functions, x, y = right()
    objective = sad.FunctionObjective(**functions)
    strict = sad.check_derivatives(objective, x, y, rtol=1e-16, raise_on_failure=False)
    assert not strict
    runs = [
        sad.check_derivatives(objective, x, y, rng=seed).errors for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]
    assert sad.check_derivatives(objective, x, y, rng=np.random.default_rng(3))


@pytest.mark.parametrize("n", [1, 2])
def test_smallest_sizes(n):
    f = sad.FunctionObjective(
        value=lambda x, y: float(0.5 * y @ y - x[0] * y.sum()),
        grad=lambda x, y: y - x[0],
        hvp=lambda x, y, v: 1.0 * v,
        cross_jvp=lambda x, y, u: -u[0] * np.ones(n),
        cross_vjp=lambda x, y, w: np.array([-w.sum()]),
        hess_diag=lambda x, y: np.ones(n),
    )
    assert sad.check_derivatives(f, np.array([0.3]), np.arange(1.0, n + 1))


# the dot test ---------------------------------------------------------------------


def test_dot_test():
    A = np.random.default_rng(2).standard_normal((5, 3))
    assert sad.dot_test(A)
    wrong = sad.LinearOperator((5, 3), lambda x: A @ x, lambda y: 1.001 * (A.T @ y))
    report = sad.dot_test(wrong, raise_on_failure=False)
    assert not report
    assert report.failed == ("dot test",)
    with pytest.raises(sad.CheckError, match="FAILED dot test"):
        sad.dot_test(wrong)
    assert sad.dot_test(wrong, rtol=1e-2)


def test_dot_test_finds_an_operator_that_only_claims_symmetry():
    A = np.array([[2.0, 1.0], [0.0, 2.0]])
    claimed = sad.LinearOperator((2, 2), lambda x: A @ x, symmetric=True)
    assert not sad.dot_test(claimed, raise_on_failure=False)


def test_dot_test_with_a_dtype_and_nan():
    A = np.float32(np.random.default_rng(3).standard_normal((40, 30)))
    assert sad.dot_test(A)
    assert sad.dot_test(A, like=np.zeros(1, np.float32))
    assert not sad.dot_test(np.full((2, 2), np.nan), raise_on_failure=False)


def test_dot_test_of_a_derivative():
    row = BY_NAME["softmax_likelihood"]
    J = sad.derivative(row.problem, row.at_solution(), rtol=1e-12)
    assert sad.dot_test(J, rtol=1e-10)


# the hypergradient ----------------------------------------------------------------


def hypergradient(sign=1.0, **options):
    row = BY_NAME["log_sum_exp"]
    upper = sad.FunctionUpper(
        lambda x, y: float(0.5 * y @ y + 0.1 * x @ x),
        lambda x, y: sign * y,
        lambda x, y: 0.2 * x,
    )
    return sad.Hypergradient(row.problem, upper, tol=1e-11, **options), row.x


def test_check_hypergradient():
    F, x = hypergradient()
    report = sad.check_hypergradient(F, x, directions=4)
    assert report
    assert len(report.errors) == 4


@pytest.mark.parametrize("sign", [-1.0, 1.01])
def test_check_hypergradient_finds_a_wrong_upper_gradient(sign):
    F, x = hypergradient(sign)
    assert not sad.check_hypergradient(F, x, raise_on_failure=False)
    with pytest.raises(sad.CheckError, match="direction 0"):
        sad.check_hypergradient(F, x)


def test_check_hypergradient_takes_any_function_of_x():
    x = np.array([1.0, -2.0])
    assert sad.check_hypergradient(lambda x: (float(x @ x), 2 * x), x)
    assert not sad.check_hypergradient(
        lambda x: (float(x @ x), 3 * x), x, raise_on_failure=False
    )
