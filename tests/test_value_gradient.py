"""The gradient of the optimal value against differences of it, and reports on solutions."""

from __future__ import annotations

import numpy as np
import pytest

import sparse_argdiff as sad
from sparse_argdiff import linear_model


def slope_of_value(problem, x, step=1e-5):
    """Return the gradient of x -> f(x, g(x)) by central differences of solves."""
    found = []
    for j in range(x.shape[0]):
        h = np.zeros(x.shape)
        h[j] = step
        ahead, behind = (
            sad.solve(problem, x + s * h, tol=1e-11).value for s in (1, -1)
        )
        found.append((ahead - behind) / (2 * step))
    return np.array(found)


def quadratic(parameters, maximize=False, seed=3):
    rng = np.random.default_rng(seed)
    n = 5
    M = rng.standard_normal((n, n))
    A, G, y = rng.standard_normal((1, n)), rng.standard_normal((3, n)), 0.1 * np.ones(n)
    sign = -1.0 if maximize else 1.0
    return sad.QuadraticProgram(
        sign * (M @ M.T + np.eye(n)),
        4.0 * rng.standard_normal(n),
        A,
        A @ y,
        G,
        G @ y + 0.3,
        h_lower=G @ y - 0.2,
        lower=np.full(n, -0.1),
        upper=np.full(n, 0.3),
        maximize=maximize,
        parameters=parameters,
    )


@pytest.mark.parametrize("maximize", [False, True])
def test_every_datum_of_a_program(maximize):
    names = ("q", "b", "h", "h_lower", "lower", "upper", "A", "G")
    problem = quadratic(names, maximize)
    x = problem.pack()
    solution = sad.solve(problem, x)
    assert solution.active.strong.any()
    assert solution.active.fixed.any()
    found = sad.value_gradient(problem, solution)
    np.testing.assert_allclose(found, slope_of_value(problem, x), rtol=1e-5, atol=1e-5)


def smooth(**options):
    return sad.FunctionObjective(
        value=lambda x, y: float(np.sum(np.cosh(y - x[:2])) + x[2] * y[0] + x[2] ** 3),
        grad=lambda x, y: np.sinh(y - x[:2]) + np.array([x[2], 0.0]),
        hvp=lambda x, y, v: np.cosh(y - x[:2]) * v,
        cross_jvp=lambda x, y, u: -np.cosh(y - x[:2]) * u[:2] + np.array([u[2], 0.0]),
        cross_vjp=lambda x, y, w: np.append(-np.cosh(y - x[:2]) * w, w[0]),
        n=2,
        **options,
    )


def f_x(x, y):
    return np.append(-np.sinh(y - x[:2]), y[0] + 3.0 * x[2] ** 2)


@pytest.mark.parametrize("options", [{}, {"grad_x": f_x}])
@pytest.mark.parametrize("bounds", [{}, {"lower": 0.5}])
def test_functions_with_and_without_grad_x(options, bounds):
    problem = sad.Problem(smooth(**options), **bounds)
    x = np.array([0.3, 1.2, 0.4])
    solution = sad.solve(problem, x, tol=1e-12)
    np.testing.assert_allclose(
        sad.value_gradient(problem, solution), f_x(x, solution.y), rtol=1e-9, atol=1e-10
    )


def test_rows_that_move():
    """min ½‖y‖² on y_1 + y_2 = x: the value is x² / 4."""
    f = sad.FunctionObjective(
        value=lambda x, y: 0.5 * float(y @ y),
        grad=lambda x, y: y,
        hvp=lambda x, y, v: v,
        cross_jvp=lambda x, y, u: 0.0 * y,
        cross_vjp=lambda x, y, w: np.zeros(1),
        n=2,
    )
    row = sad.LinearEquality(
        np.ones((1, 2)), lambda x: x, b_jvp=lambda x, u: u, b_vjp=lambda x, w: w
    )
    problem = sad.Problem(f, equality=row)
    solution = sad.Solution(y=np.array([1.5, 1.5]), x=np.array([3.0]))
    np.testing.assert_allclose(sad.value_gradient(problem, solution), [1.5])


def test_no_product_with_the_hessian():
    calls = []
    f = smooth(grad_x=f_x)
    hess = f.hess
    f.hess = lambda x, y: calls.append(1) or hess(x, y)
    problem = sad.Problem(f)
    x = np.array([0.3, 1.2, 0.4])
    solution = sad.solve(problem, x)
    calls.clear()
    sad.value_gradient(problem, solution)
    assert not calls


def test_what_is_refused():
    problem = sad.Problem(smooth())
    x = np.array([0.3, 1.2, 0.4])
    with pytest.raises(sad.ConvergenceError, match="NOT_STATIONARY"):
        sad.value_gradient(problem, sad.Solution(y=np.ones(2), x=x))
    bare = sad.FunctionObjective(
        grad=lambda x, y: y - x,
        hvp=lambda x, y, v: v,
        cross_jvp=lambda x, y, u: -u,
        n=2,
    )
    with pytest.raises(TypeError, match="grad_x"):
        sad.value_gradient(sad.Problem(bare), sad.Solution(y=np.ones(2), x=np.ones(2)))


def test_a_linear_model():
    rng = np.random.default_rng(5)
    glm = sad.linear_model.Glm(
        rng.standard_normal((30, 4)), rng.standard_normal(30), loss="squared"
    )
    problem, x = sad.Problem(glm), rng.standard_normal(glm.m)
    solution = sad.solve(problem, x, tol=1e-11)
    np.testing.assert_allclose(
        sad.value_gradient(problem, solution), slope_of_value(problem, x), rtol=1e-6
    )


def test_report_on_a_brought_solution():
    problem = quadratic(("q",))
    x = problem.pack()
    solution = sad.solve(problem, x)
    brought = sad.Solution(y=solution.y, x=x)
    v = np.arange(5.0)
    found = sad.report(problem, brought, v)
    assert found
    np.testing.assert_allclose(
        found.gradient, sad.vjp(problem, solution, v).x, atol=1e-8
    )
    assert found.adjoint_residual < 1e-8
    assert any("isolated local minimum" in line for line in found.proven)
    assert "stationarity: CONVERGED" in str(found)
    off = sad.report(problem, sad.Solution(y=solution.y + 0.1, x=x))
    assert not off
    assert off.stationarity is sad.Status.NOT_STATIONARY
    assert off.derivative is None


def test_report_tells_flat_weak_and_vertex():
    flat = sad.QuadraticProgram(np.diag([1.0, 0.0]), np.zeros(2))
    found = sad.report(flat, sad.Solution(y=np.zeros(2), x=np.zeros(2)), np.ones(2))
    assert found.stationarity is sad.Status.CONVERGED
    assert not found
    assert found.derivative is sad.Status.SINGULAR
    kink = sad.QuadraticProgram(np.eye(2), np.zeros(2), lower=0.0)
    found = sad.report(kink, sad.Solution(y=np.zeros(2), x=np.array([1.0, 0.0])))
    assert found
    assert "weak or undecided (1)" in str(found)
    assert any("one-sided" in line for line in found.caveats)
    corner = sad.QuadraticProgram(np.eye(2), np.zeros(2), lower=0.0)
    found = sad.report(corner, sad.Solution(y=np.zeros(2), x=np.ones(2)))
    assert any("a vertex" in line for line in found.proven)


def test_report_proves_nothing_of_a_support_that_may_grow():
    """A copy of a column: the minimum is not isolated, though H is definite on the support."""
    rng = np.random.default_rng(7)
    A = rng.standard_normal((30, 2))
    t = A @ np.array([2.0, -1.0])
    x, options = (
        np.array([-2.0]),
        {"loss": "squared", "norm": "l1", "penalty": "scalar"},
    )
    alone = sad.Problem(linear_model.Glm(A, t, **options))
    y = sad.solve(alone, x).y
    copied = sad.Problem(linear_model.Glm(np.c_[A, A[:, 0]], t, **options))
    y = np.concatenate([y[:2], [0.0], y[2:]])
    assert sad.report(alone, sad.solve(alone, x)).proven
    found = sad.report(copied, sad.Solution(y=y, x=x))
    assert found
    assert not found.proven
    assert any("may enter the support" in line for line in found.caveats)
