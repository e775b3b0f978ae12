"""Bounds that are functions of x: against dense algebra, differences and rows in their place."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparse_argdiff as sad

M = 3


class Quadratic:
    """½ y'P y − (B x)'y, as an operator where asked for."""

    def __init__(self, P, B, operator=False):
        self.P, self.B, self.n, self.operator = P, B, P.shape[0], operator

    def value(self, x, y):
        return float(0.5 * y @ self.P @ y - y @ (self.B @ x))

    def grad(self, x, y):
        return self.P @ y - self.B @ x

    def hess(self, x, y):
        if not self.operator:
            return self.P
        return sad.LinearOperator(self.P.shape, lambda v: self.P @ v, symmetric=True)

    def cross(self, x, y):
        return -self.B


@dataclasses.dataclass(frozen=True)
class Box:
    """lower = l + L x, upper = u + exp(U x), where ``sides`` has them."""

    l: np.ndarray
    u: np.ndarray
    L: np.ndarray
    U: np.ndarray

    def lower(self, x):
        return self.l + self.L @ x

    def upper(self, x):
        return self.u + np.exp(self.U @ x)

    def slopes(self, x):
        return self.L, np.exp(self.U @ x)[:, None] * self.U

    def options(self):
        return {
            "lower": self.lower,
            "upper": self.upper,
            "lower_jvp": lambda x, v: self.slopes(x)[0] @ v,
            "lower_vjp": lambda x, w: self.slopes(x)[0].T @ w,
            "upper_jvp": lambda x, v: self.slopes(x)[1] @ v,
            "upper_vjp": lambda x, w: self.slopes(x)[1].T @ w,
        }

    def rows(self):
        """Return the same bounds as rows of an inequality."""
        eye = np.eye(self.l.size)
        return sad.Inequality(
            lambda x, y: np.concatenate([self.lower(x) - y, y - self.upper(x)]),
            lambda x, y: np.concatenate([-eye, eye]),
            jac_x=lambda x, y: np.concatenate([self.slopes(x)[0], -self.slopes(x)[1]]),
        )


def case(n, seed, operator=False, equality=True):
    """Return a random convex QP whose bounds hold about half of its variables."""
    rng = np.random.default_rng([n, seed])
    R = rng.standard_normal((n, n)) / np.sqrt(n)
    B = 2.0 * rng.standard_normal((n, M))
    box = Box(
        -0.4 - rng.uniform(0, 0.5, n),
        -0.6 + rng.uniform(0, 0.3, n),
        0.2 * rng.standard_normal((n, M)),
        0.2 * rng.standard_normal((n, M)),
    )
    objective = Quadratic(R @ R.T + 0.1 * np.eye(n), B, operator)
    others = {}
    if equality and n > 2:
        a, slope = rng.standard_normal((1, n)), 0.05 * rng.standard_normal(M)
        others["equality"] = sad.LinearEquality(
            a,
            lambda x: np.array([slope @ x]),
            b_jvp=lambda x, v: np.array([slope @ v]),
            b_vjp=lambda x, w: slope * w[0],
        )
    problem = sad.Problem(objective, **others, **box.options())
    as_rows = sad.Problem(objective, **others, inequality=box.rows())
    return problem, as_rows, box, 0.5 * rng.standard_normal(M)


def dense_derivative(problem, box, solution):
    """Return dy/dx by the full KKT matrix, the held variables as rows."""
    x, y, fixed = solution.x, solution.y, solution.active.fixed
    n, lower, upper = y.size, box.lower(x), box.upper(x)
    slopes = np.where((y - lower <= upper - y)[:, None], *box.slopes(x))
    rows, moves = [np.eye(n)[fixed]], [slopes[fixed]]
    if problem.equalities is not None:
        rows.append(np.asarray(problem.equalities.jac(x, y)))
        jac_x = problem.equalities.jac_x(x, y)
        moves.append(-(jac_x @ np.eye(M)))
    C, moved = np.concatenate(rows), np.concatenate(moves)
    K = np.block([[problem.objective.P, C.T], [C, np.zeros((len(C), len(C)))]])
    right = np.concatenate([problem.objective.B, moved])
    return np.linalg.lstsq(K, right)[0][:n]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(0, 10**6), st.booleans())
def test_random_problems_against_dense_algebra_and_rows(n, seed, operator):
    problem, as_rows, box, x = case(n, seed, operator)
    try:
        sol = sad.solve(problem, x, tol=1e-10)
    except sad.ConvergenceError:  # too few variables for the row
        with pytest.raises(sad.ConvergenceError):
            sad.solve(as_rows, x, tol=1e-10)
        return
    other = sad.solve(as_rows, x, tol=1e-10)
    np.testing.assert_allclose(sol.y, other.y, atol=1e-8)
    if sol.active.degenerate or other.active.degenerate:
        return
    exact = dense_derivative(problem, box, sol)
    size = 1.0 + np.abs(exact).max()
    J = sad.derivative(problem, sol, rtol=1e-11)
    np.testing.assert_allclose(J @ np.eye(M), exact, atol=1e-7 * size)
    np.testing.assert_allclose(J.T @ np.eye(n), exact.T, atol=1e-7 * size)
    v, u = np.random.default_rng(seed).standard_normal((2, max(n, M)))
    back = sad.vjp(problem, sol, v[:n], rtol=1e-11)
    np.testing.assert_allclose(back.x, exact.T @ v[:n], atol=1e-6 * size)
    along = sad.jvp(problem, sol, u[:M], rtol=1e-11)
    np.testing.assert_allclose(along.y, exact @ u[:M], atol=1e-6 * size)
    np.testing.assert_allclose(
        back.x, sad.vjp(as_rows, other, v[:n], rtol=1e-11).x, atol=1e-6 * size
    )


@pytest.mark.parametrize("method", ["active_set", "barrier"])
@pytest.mark.parametrize("seed", range(3))
def test_differences_of_the_solution(method, seed):
    problem, _, _, x = case(10, seed)
    options = {"tol": 1e-11, "method": method}
    sol = sad.solve(problem, x, **options)
    assert sol.active.fixed.sum() >= 2
    J = sad.derivative(problem, sol) @ np.eye(M)
    h = 1e-5
    for k, unit in enumerate(np.eye(M)):
        ahead, back = (
            sad.solve(problem, x + s * h * unit, sol.y, **options) for s in (1, -1)
        )
        assert (ahead.active.fixed == back.active.fixed).all()
        slope = (ahead.y - back.y) / (2 * h)
        np.testing.assert_allclose(J[:, k], slope, atol=2e-6 * np.abs(J).max())


def test_the_multipliers_move_too():
    problem, _, _, x = case(8, 5)
    sol = sad.solve(problem, x, tol=1e-11)
    u, h = np.array([1.0, -0.5, 0.3]), 1e-5
    ahead, back = (sad.solve(problem, x + s * h * u, tol=1e-11) for s in (1, -1))
    found = sad.jvp(problem, sol, u, rtol=1e-11).tangent[8:]
    slope = (ahead.multipliers - back.multipliers) / (2 * h)
    np.testing.assert_allclose(found, slope, rtol=1e-5)


def diagonal(n, **bounds):
    """min ½ ‖y − x‖² between bounds, m = n."""
    objective = sad.FunctionObjective(
        value=lambda x, y: 0.5 * float((y - x) @ (y - x)),
        grad=lambda x, y: y - x,
        hvp=lambda x, y, v: v,
        cross_jvp=lambda x, y, u: -u,
        cross_vjp=lambda x, y, w: -w,
        n=n,
    )
    return sad.Problem(objective, **bounds)


def squares():
    return {
        "jvp": lambda x, u: 2.0 * x * u,
        "vjp": lambda x, w: 2.0 * x * w,
    }


def with_products(name, bound, products):
    return {name: bound, **{f"{name}_{kind}": p for kind, p in products.items()}}


def test_equal_bounds_that_move_together_fix_every_variable():
    bounds = with_products("lower", lambda x: x**2, squares())
    bounds |= with_products("upper", lambda x: x**2, squares())
    problem, x = diagonal(3, **bounds), np.array([0.5, 2.0, 1.0])  # one without force
    sol = sad.solve(problem, x)
    np.testing.assert_array_equal(sol.y, x**2)
    with_no_caveat = sad.vjp(problem, sol, np.ones(3))
    np.testing.assert_allclose(with_no_caveat.x, 2.0 * x)
    assert with_no_caveat.warnings == ()
    np.testing.assert_allclose(sad.jvp(problem, sol, np.ones(3)).y, 2.0 * x)


@pytest.mark.parametrize(("centre", "slope"), [(1.0, 2.0), (-1.0, 0.0)])
def test_equal_bounds_that_part_are_told(centre, slope):
    """0 <= y <= x₀², around x₀ = 0.5, moved so that they meet: y follows its force."""
    problem = diagonal(
        1,
        lower=0.25,
        **with_products("upper", lambda x: 0.0 * x + x[:1] ** 2, squares()),
    )
    object.__setattr__(
        problem.objective, "grad", lambda x, y: y - centre
    )  # f no longer has x
    problem.objective._cross_jvp = lambda x, y, u: 0.0 * u
    problem.objective._cross_vjp = lambda x, y, w: 0.0 * w
    sol = sad.Solution(y=np.array([0.25]), x=np.array([0.5]))
    with pytest.warns(sad.ConvergenceWarning, match="moves these bounds apart"):
        J = sad.derivative(problem, sol)
    # 2 x₀ where the force is towards the upper bound, 0 at the constant lower one.
    np.testing.assert_allclose(J @ np.ones(1), [slope * 0.5])
    np.testing.assert_allclose(J.T @ np.ones(1), [slope * 0.5])


def test_a_missing_product_is_named_where_it_is_needed():
    problem = diagonal(2, upper=lambda x: x - 1.0)
    sol = sad.solve(problem, np.ones(2))
    assert sol.active.fixed.all()
    with pytest.raises(NotImplementedError, match="upper_vjp"):
        sad.vjp(problem, sol, np.ones(2))
    with pytest.raises(NotImplementedError, match="upper_jvp"):
        sad.jvp(problem, sol, np.ones(2))
    free = diagonal(2, upper=lambda x: x + 1.0)  # holds nothing
    sol = sad.solve(free, np.ones(2))
    np.testing.assert_allclose(sad.vjp(free, sol, np.ones(2)).x, 1.0)


def test_products_without_a_function_are_refused():
    with pytest.raises(TypeError, match="lower_jvp must be a function, and lower"):
        diagonal(2, lower=0.0, lower_jvp=lambda x, u: u)
    with pytest.raises(TypeError, match="upper_vjp must be a function"):
        diagonal(2, upper=lambda x: x, upper_vjp=3.0)


@pytest.mark.parametrize(
    ("bound", "error", "match"),
    [
        (lambda x: np.ones(3), ValueError, "upper"),
        (lambda x: np.ones((2, 1)), ValueError, "upper"),
        (lambda x: "high", TypeError, "upper must return a number"),
        (lambda x: -np.inf, ValueError, "upper must not be -inf"),
        (lambda x: np.array([1j, 0.0]), TypeError, "upper"),
    ],
)
def test_what_a_bound_returns_is_checked(bound, error, match):
    with pytest.raises(error, match=match):
        sad.solve(diagonal(2, upper=bound), np.ones(2))


def test_bounds_that_cross_are_infeasible_and_nan_is_not_finite():
    problem = diagonal(3, lower=0.0, upper=lambda x: x)
    with pytest.raises(sad.ConvergenceError, match="for variable 1, and 1 more") as e:
        sad.solve(problem, np.array([1.0, -1.0, -2.0]))
    assert e.value.result.status is sad.Status.INFEASIBLE
    found = sad.solve(problem, -np.ones(3), on_failure="ignore", method="barrier")
    assert found.status is sad.Status.INFEASIBLE
    with pytest.raises(sad.ConvergenceError) as e:
        sad.solve(diagonal(3, upper=lambda x: np.nan * x), -np.ones(3))
    assert e.value.result.status is sad.Status.NOT_FINITE


def test_a_number_bounds_every_variable():
    problem = diagonal(
        3,
        upper=lambda x: float(x[0] ** 2),
        upper_jvp=lambda x, u: 2.0 * x[0] * u[0] * np.ones(3),
        upper_vjp=lambda x, w: np.array([2.0 * x[0] * w.sum(), 0.0, 0.0]),
    )
    sol = sad.solve(problem, np.array([0.5, 3.0, 0.0]))
    np.testing.assert_allclose(sol.y, [0.25, 0.25, 0.0])
    np.testing.assert_allclose(
        sad.vjp(problem, sol, np.array([1.0, 2.0, 4.0])).x, [3.0, 0.0, 4.0]
    )


def test_infinite_entries_stay_without_effect():
    problem = diagonal(
        2,
        **with_products(
            "upper",
            lambda x: np.array([np.inf, x[1] ** 2]),
            {
                "jvp": lambda x, u: np.array([0.0, 2.0 * x[1] * u[1]]),
                "vjp": lambda x, w: np.array([0.0, 2.0 * x[1] * w[1]]),
            },
        ),
    )
    sol = sad.solve(problem, np.array([5.0, 0.5]))
    np.testing.assert_allclose(sol.y, [5.0, 0.25])
    np.testing.assert_allclose(sad.vjp(problem, sol, np.ones(2)).x, [1.0, 1.0])
    assert sad.check_derivatives(problem, sol.x, sol.y)


@pytest.mark.parametrize("t", [1.0, 30.0])
def test_the_barrier_moves_with_its_bounds(t):
    problem, _, _, x = case(6, 3)
    inside = sad.solve(problem, x, method="barrier")
    box = problem.bounds(x, inside.y)
    y0 = np.clip(inside.y, box[0] + 0.05, box[1] - 0.05)
    barrier = sad.LogBarrier(problem, t)
    sol = sad.solve(barrier, x, y0, tol=1e-12)
    J = sad.derivative(barrier, sol, rtol=1e-11) @ np.eye(M)
    h = 1e-5
    for k, unit in enumerate(np.eye(M)):
        ahead, back = (
            sad.solve(barrier, x + s * h * unit, sol.y, tol=1e-12).y for s in (1, -1)
        )
        np.testing.assert_allclose(J[:, k], (ahead - back) / (2 * h), atol=1e-6)
    assert sad.check_derivatives(barrier, x, sol.y)


def test_check_derivatives_covers_the_bounds():
    problem, _, _, x = case(5, 1)
    y = np.zeros(5)
    report = sad.check_derivatives(problem, x, y)
    names = "".join(report.errors)
    assert report
    assert "lower_jvp transposed" in names
    assert "upper_jvp against" in names
    for name in ("lower_jvp", "upper_vjp"):
        right = getattr(problem, name)
        wrong = dataclasses.replace(
            problem, **{name: lambda x, v, right=right: 1.01 * right(x, v)}
        )
        report = sad.check_derivatives(wrong, x, y, raise_on_failure=False)
        assert len(report.failed) == 1
        assert name[:5] in report.failed[0]


def test_units_of_y_and_f_change_nothing_else():
    problem, _, box, x = case(9, 2)
    sol = sad.solve(problem, x, tol=1e-10)
    v = np.random.default_rng(0).standard_normal(9)
    plain = sad.vjp(problem, sol, v).x
    D, c = 10.0 ** np.linspace(-5, 5, 9), 1e7
    P, B = problem.objective.P, problem.objective.B
    A, row = problem.equality.A, problem.equality
    slopes = box.slopes
    scaled = sad.Problem(
        Quadratic(c * P / np.outer(D, D), c * B / D[:, None]),
        equality=sad.LinearEquality(
            A / D, row.b, b_vjp=lambda x, w: -(problem.equalities.jac_x(x, v).T @ w)
        ),
        lower=lambda x: D * box.lower(x),
        upper=lambda x: D * box.upper(x),
        lower_vjp=lambda x, w: slopes(x)[0].T @ (D * w),
        upper_vjp=lambda x, w: slopes(x)[1].T @ (D * w),
    )
    there = sad.solve(scaled, x, tol=1e-10)
    assert (there.active.fixed == sol.active.fixed).all()
    np.testing.assert_allclose(there.y / D, sol.y, atol=1e-8)
    np.testing.assert_allclose(sad.vjp(scaled, there, v / D).x, plain, rtol=1e-6)


def test_a_maximum_goes_with_its_bounds():
    problem, _, box, x = case(6, 4, equality=False)
    P, B = problem.objective.P, problem.objective.B
    upside = sad.Problem(Quadratic(-P, -B), maximize=True, **box.options())
    one, other = sad.solve(problem, x), sad.solve(upside, x)
    np.testing.assert_allclose(one.y, other.y, atol=1e-9)
    v = np.ones(6)
    np.testing.assert_allclose(
        sad.vjp(problem, one, v).x, sad.vjp(upside, other, v).x, rtol=1e-7
    )


def test_brought_solutions_are_judged_by_the_bounds_at_their_x():
    problem, _, _, x = case(8, 7)
    sol = sad.solve(problem, x, tol=1e-11)
    v = np.ones(8)
    brought = sad.vjp(problem, sad.Solution(y=sol.y, x=x), v)
    np.testing.assert_allclose(brought.x, sad.vjp(problem, sol, v).x, rtol=1e-6)
    elsewhere = sad.Solution(y=sol.y, x=x + 0.3)
    with pytest.raises(sad.ConvergenceError) as e:
        sad.vjp(problem, elsewhere, v)
    assert e.value.result.status is None  # the solution itself, which has no status
    moved = dataclasses.replace(sol, x=x + 0.3)  # claims to be one
    with pytest.raises(sad.ConvergenceError):
        sad.vjp(problem, moved, v)


@pytest.mark.parametrize("tol", [1e-10, 1e-4])
@pytest.mark.parametrize("method", ["active_set", "barrier"])
def test_hypergradients_and_their_certificates(method, tol):
    problem, _, _, x = case(10, 11)
    target = np.random.default_rng(3).standard_normal(10)
    upper = sad.FunctionUpper(
        lambda x, y: 0.5 * float((y - target) @ (y - target)), lambda x, y: y - target
    )
    F = sad.Hypergradient(problem, upper, tol=1e-12)
    assert sad.check_hypergradient(F, x)
    exact = F.evaluate(x)
    loose = sad.Hypergradient(
        problem,
        upper,
        tol=tol,
        solver=method,
    ).evaluate(x, tol=tol)
    bound = loose.certificate
    error = np.linalg.norm(loose.gradient - exact.gradient)
    assert error <= bound.gradient_error
    assert abs(loose.value - exact.value) <= bound.value_error
    assert bound.descent in {"estimated", "not shown"}
    if tol == 1e-10:
        assert bound.descent == "estimated"


def test_products_with_the_hessian_are_counted():
    P = np.diag([1.0, 2.0, 3.0])
    P[0, 1] = P[1, 0] = 0.5
    calls = []

    class Counted(Quadratic):
        def hess(self, x, y):
            def product(v):
                calls.append(1)
                return self.P @ v

            return sad.LinearOperator(
                self.P.shape,
                product,
                symmetric=True,
                positive_definite=True,
                diagonal=np.diagonal(self.P),
            )

    problem = sad.Problem(
        Counted(P, np.ones((3, 1))),
        upper=lambda x: np.array([x[0], 5.0, 5.0]),
        upper_vjp=lambda x, w: w[:1],
        upper_jvp=lambda x, u: np.array([u[0], 0.0, 0.0]),
    )
    sol = sad.solve(problem, np.array([0.1]))
    for product in (
        lambda: sad.vjp(problem, sol, np.ones(3)),
        lambda: sad.jvp(problem, sol, np.ones(1)),
    ):
        calls.clear()
        assert product().n_hvp == len(calls)


def test_single_precision_stays_single():
    problem, _, box, x = case(7, 8, equality=False)
    as_single = {
        name: (lambda *a, f=f: f(*a).astype(np.float32))
        for name, f in box.options().items()
    }
    single = sad.Problem(
        Quadratic(
            *(
                M_.astype(np.float32)
                for M_ in (problem.objective.P, problem.objective.B)
            )
        ),
        **as_single,
    )
    sol = sad.solve(single, x.astype(np.float32), tol=1e-5)
    found = sad.vjp(single, sol, np.ones(7, np.float32)).x
    exact = sad.vjp(problem, sad.solve(problem, x), np.ones(7)).x
    assert sol.y.dtype == found.dtype == np.float32
    np.testing.assert_allclose(found, exact, rtol=2e-4)


def test_strict_arrays_stay_what_they_are(strict_array):
    to, back = strict_array
    problem = diagonal(
        3,
        lower=-0.5,
        **with_products(
            "upper",
            lambda x: 0.5 * x * x,
            {"jvp": lambda x, u: x * u, "vjp": lambda x, w: x * w},
        ),
    )
    x, y = to(np.array([2.5, 0.5, -1.0])), to(np.array([2.5, 0.125, -0.5]))
    J = sad.derivative(problem, sad.Solution(y=y, x=x))
    for product in (J, J.T):
        found = product @ to(np.ones(3))
        np.testing.assert_allclose(back(found), [1.0, 0.5, 0.0])


def test_a_user_may_write_into_the_x_that_a_bound_is_given():
    def upper(x):
        value = x - 1.0
        x[:] = np.nan
        return value

    problem = diagonal(
        2, upper=upper, upper_vjp=lambda x, w: w.copy(), upper_jvp=lambda x, u: u
    )
    sol = sad.solve(problem, np.ones(2))
    np.testing.assert_allclose(sol.y, 0.0)
    np.testing.assert_allclose(sad.vjp(problem, sol, np.ones(2)).x, 1.0)
