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


# at a solution, in any units ------------------------------------------------------

CURVES = {
    "quadratic": (
        lambda z: 0.0,
        lambda z: 0.0 * z,
        lambda z: 0.0 * z,
    ),
    "quartic": (
        lambda z: 0.25 * float(np.sum(z**4)),
        lambda z: z**3,
        lambda z: 3.0 * z**2,
    ),
    "exponential": (
        lambda z: float(np.sum(np.exp(z))),
        np.exp,
        np.exp,
    ),
}


def in_units(curve, D, c, seed, wrong=None):
    """Return c (½ z'Qz + Σ curve − z'Bx), z = y / D, with its solution at x."""
    rng = np.random.default_rng(seed)
    n, m = 6, 3
    A, B, x = (rng.standard_normal(s) for s in ((n, n), (n, m), m))
    Q, (value, slope, second) = A @ A.T / n + np.eye(n), CURVES[curve]
    D = D * np.ones(n)
    z = np.zeros(n)
    for _ in range(50):
        z -= np.linalg.solve(Q + np.diag(second(z)), Q @ z + slope(z) - B @ x)
    off = {name: 1.01 if name == wrong else 1.0 for name in ("grad", "hvp", "jvp")}
    f = sad.FunctionObjective(
        value=lambda x, y: (
            c * (0.5 * y / D @ Q @ (y / D) + value(y / D) - y / D @ B @ x)
        ),
        grad=lambda x, y: off["grad"] * c * (Q @ (y / D) + slope(y / D) - B @ x) / D,
        hvp=lambda x, y, v: off["hvp"] * c * (Q @ (v / D) + second(y / D) * v / D) / D,
        cross_jvp=lambda x, y, u: -off["jvp"] * c * (B @ u) / D,
        cross_vjp=lambda x, y, w: -c * B.T @ (w / D),
        n=n,
    )
    return f, x, D * z


UNITS = {
    "one": 1.0,
    "small": 1e-8,
    "large": 1e8,
    "mixed": 10.0 ** np.array([-4, 3, 0, -2, 1, 4]),
}


@pytest.mark.parametrize("c", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("curve", CURVES)
def test_right_functions_pass_at_a_solution(curve, units, c):
    """The slope of the value is zero there but for rounding: no relative error of it is."""
    for seed in range(3):
        f, x, y = in_units(curve, UNITS[units], c, seed)
        for at in (y, 1.001 * y, 2.0 * y, 0.0 * y):
            assert sad.check_derivatives(f, x, at)


@pytest.mark.parametrize("wrong", ["grad", "hvp", "jvp"])
@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("curve", CURVES)
def test_one_per_cent_is_found_at_a_solution(curve, units, wrong):
    for seed in range(3):
        f, x, y = in_units(curve, UNITS[units], 1.0, seed, wrong)
        assert not sad.check_derivatives(f, x, y, raise_on_failure=False)


def test_a_solution_near_the_end_of_a_domain():
    """Log barriers: steps of the usual length would leave the domain."""
    f, x, _ = in_units("quadratic", 1.0, 1.0, 0)
    problem = sad.Problem(f, lower=0.0, upper=1.0)
    for t in (1.0, 1e3, 1e6):
        barrier = sad.LogBarrier(problem, t)
        y = sad.solve(barrier, x, np.full(6, 0.5)).y
        assert sad.check_derivatives(barrier, x, y)


def test_a_maximum():
    row = BY_NAME["argmax"]
    assert sad.check_derivatives(row.problem, row.x, row.solution())


# constraints ----------------------------------------------------------------------


def constraint():
    """Return two rows, x₀ y'y + sin x₁ y₀ − 1 and e^{y₁} − x₁, all derivatives right."""
    return {
        "fun": lambda x, y: np.array(
            [x[0] * (y @ y) + np.sin(x[1]) * y[0] - 1.0, np.exp(y[1]) - x[1]]
        ),
        "jac": lambda x, y: np.array(
            [2.0 * x[0] * y + np.sin(x[1]) * np.eye(6)[0], np.exp(y[1]) * np.eye(6)[1]]
        ),
        "hess": lambda x, y, w: (
            2.0 * x[0] * w[0] * np.eye(6)
            + w[1] * np.exp(y[1]) * np.outer(np.eye(6)[1], np.eye(6)[1])
        ),
        "cross": lambda x, y, w: (
            w[0] * np.stack([2.0 * y, np.cos(x[1]) * np.eye(6)[0], 0.0 * y], axis=1)
        ),
        "jac_x": lambda x, y: np.array(
            [[y @ y, np.cos(x[1]) * y[0], 0.0], [0.0, -1.0, 0.0]]
        ),
    }


def checked_rows(given, *, unit=(1.0, 1.0), kind=sad.Equality):
    """Check the rows in other units at a point where they are zero but for rounding."""
    unit = np.array(unit)
    scaled = {
        name: (lambda *at, f=f: unit[:, None] * f(*at))
        if name in {"jac", "jac_x"}
        else (lambda *at, f=f: unit * f(*at))
        if name == "fun"
        else (lambda x, y, w, f=f: f(x, y, unit * w))
        for name, f in given.items()
        if f is not None
    }
    f, x, y = in_units("quartic", 1.0, 1.0, 0)
    x[1] = 1.3
    y[1] = np.log(x[1])
    x[0] = (1.0 - np.sin(x[1]) * y[0]) / (y @ y)
    rows = {kind.__name__.lower(): [sad.LinearEquality(np.eye(6)[:2], [0.0, 1.0])]}
    if kind is sad.Inequality:
        rows = {"inequality": []}
    rows[kind.__name__.lower()].append(kind(**scaled))
    problem = sad.Problem(f, **rows)
    return sad.check_derivatives(problem, x, y, raise_on_failure=False)


ROWS = [(1.0, 1.0), (1e6, 1e-6), (1e-9, 1e9)]


@pytest.mark.parametrize("kind", [sad.Equality, sad.Inequality])
@pytest.mark.parametrize("unit", ROWS)
def test_right_constraints_pass(unit, kind):
    report = checked_rows(constraint(), unit=unit, kind=kind)
    assert report, str(report)
    label = f"{kind.__name__.lower()}[{int(kind is sad.Equality)}]"
    for name in ("jac", "jac_x", "hess", "cross"):
        assert any(check.startswith(f"{label}.{name} ") for check in report.errors)


@pytest.mark.parametrize("unit", ROWS)
@pytest.mark.parametrize("name", ["jac", "jac_x", "hess", "cross"])
@pytest.mark.parametrize("error", ["sign", "one per cent", "NaN", "forgotten"])
def test_each_planted_error_of_a_constraint_is_named(name, error, unit):
    given = constraint()
    right = given[name]
    if error == "forgotten" and name == "jac":
        return
    factor = {"sign": -1.0, "one per cent": 1.01, "NaN": np.nan, "forgotten": 0.0}[
        error
    ]
    given[name] = None if error == "forgotten" else lambda *at: factor * right(*at)
    report = checked_rows(given, unit=unit)
    label = f"equality[1].{name}{' (None)' if error == 'forgotten' else ''} "
    assert any(check.startswith(label) for check in report.failed)
    # jac is what others are compared with, too.
    others = ("jac",) if name != "jac" else ()
    assert not [c for c in report.failed if c.split(".")[1].split()[0] in others]


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("unit", ROWS)
def test_an_error_in_one_row_is_not_hidden_by_the_units_of_the_other(row, unit):
    given = constraint()
    jac = given["jac"]
    off = np.where(np.arange(2) == row, 1.01, 1.0)[:, None]
    given["jac"] = lambda x, y: off * jac(x, y)
    failed = checked_rows(given, unit=unit).failed
    assert "equality[1].jac against differences of fun" in failed


def test_products_of_a_right_hand_side():
    f, x, y = in_units("quadratic", 1.0, 1.0, 0)
    G = np.arange(6.0).reshape(2, 3)

    def report(**given):
        rows = sad.LinearEquality(np.eye(6)[:2], lambda x: G @ x**2, **given)
        problem = sad.Problem(f, equality=rows)
        return sad.check_derivatives(problem, x, y, raise_on_failure=False)

    right = {
        "b_jvp": lambda x, u: 2.0 * G @ (x * u),
        "b_vjp": lambda x, w: 2.0 * x * (G.T @ w),
    }
    assert report(**right)
    assert report(b_vjp=right["b_vjp"])
    assert not report(b_jvp=lambda x, u: G @ u)
    assert not report(**(right | {"b_vjp": lambda x, w: x * (G.T @ w)}))


def test_sizes_that_do_not_fit_are_named():
    f, x, y = in_units("quadratic", 1.0, 1.0, 0)
    with pytest.raises(ValueError, match=r"y must have shape \(6,\)"):
        sad.check_derivatives(f, x, y[:-1])


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
