"""Objectives and problems: what they ask for, what they refuse, what they pass on."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from problems import BY_NAME, STATIONARY, random_spd

import sparse_argdiff as sad

every_row = pytest.mark.parametrize("row", STATIONARY, ids=str)


def pieces(row):
    rng = np.random.default_rng(0)
    y = row.solution() + 0.1 * rng.standard_normal(row.n)
    return row.x, y, rng.standard_normal(row.n), rng.standard_normal(row.m)


@every_row
def test_products_are_those_of_the_dense_matrices(row):
    x, y, v, u = pieces(row)
    sign = -1.0 if row.problem.maximize else 1.0
    H, C = sign * row.dense_hess(x, y), sign * row.dense_cross(x, y)
    hess, cross = row.problem.hess(x, y), row.problem.cross(x, y)
    assert hess.shape == (row.n, row.n)
    assert cross.shape == (row.n, row.m)
    assert hess @ v == pytest.approx(H @ v)
    assert hess.T @ v == pytest.approx(H @ v)
    assert cross @ u == pytest.approx(C @ u)
    assert cross.T @ v == pytest.approx(C.T @ v)
    if hess.has_diagonal:
        assert hess.diagonal() == pytest.approx(np.diagonal(H))


@every_row
def test_the_rows_themselves_are_right(row):
    x, y, _, _ = pieces(row)
    assert sad.check_derivatives(row.objective, x, y)
    f_Y = row.objective.grad(x, row.solution())
    assert np.linalg.norm(f_Y) <= 1e-12 * max(1.0, np.linalg.norm(row.dense_hess(x, y)))


def test_maximize_turns_everything_round():
    row = BY_NAME["argmax"]
    x, y, v, u = pieces(row)
    up, down = row.problem, sad.Problem(row.objective)
    assert up.value(x, y) == -down.value(x, y)
    assert np.array_equal(up.grad(x, y), -down.grad(x, y))
    assert np.array_equal(up.hess(x, y) @ v, -(down.hess(x, y) @ v))
    assert np.array_equal(up.cross(x, y) @ u, -(down.cross(x, y) @ u))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_central_differences_of_the_gradient(dtype, size):
    row = BY_NAME["log_sum_exp"]
    x, y, v, _ = pieces(row)
    exact = row.dense_hess(x, y) @ v

    def grad(x, y):
        return row.objective.grad(x.astype(dtype), y).astype(dtype)

    x, y, v = x.astype(dtype), y.astype(dtype), (size * v).astype(dtype)
    hess = sad.FunctionObjective(grad=grad).hess(x, y)
    assert "central differences" in hess.note
    product = hess @ v
    assert product.dtype == dtype
    error = np.linalg.norm(product / size - exact) / np.linalg.norm(exact)
    assert error <= hess.accuracy <= 1e-2
    assert not (hess @ (0.0 * v)).any()


def test_central_differences_of_a_quadratic_are_exact_to_rounding_at_any_scale():
    H = random_spd(np.random.default_rng(1), 5)
    v = np.arange(1.0, 6.0)
    for scale in (1e-10, 1.0, 1e10):
        y = scale * np.ones(5)
        f = sad.FunctionObjective(grad=lambda x, y: H @ y)
        assert f.hess(np.zeros(1), y) @ v == pytest.approx(H @ v, rel=1e-5)


def test_hvp_given_is_not_an_approximation():
    hess = BY_NAME["quadratic"].objective.hess(np.zeros(5), np.zeros(8))
    assert hess.note == ""
    assert hess.accuracy is None
    # The functions are the user's: their symmetry is tested, never assumed.
    assert not hess.symmetric


@pytest.mark.parametrize(
    "wrap",
    [
        np.asarray,
        scipy.sparse.csr_array,
        scipy.sparse.csc_matrix,
        scipy.sparse.linalg.aslinearoperator,
        sad.aslinearoperator,
    ],
    ids=["ndarray", "csr_array", "csc_matrix", "scipy operator", "operator"],
)
def test_hess_and_cross_may_be_any_matrix(wrap):
    row = BY_NAME["quadratic"]
    H, C = row.dense_hess(None, None), row.dense_cross(None, None)

    class Wrapped:
        n = row.n
        value = staticmethod(row.objective.value)
        grad = staticmethod(row.objective.grad)

        def hess(self, x, y):
            return wrap(H)

        def cross(self, x, y):
            return wrap(C)

    problem = sad.Problem(Wrapped())
    solution = sad.solve(problem, row.x, tol=1e-11)
    assert solution.y == pytest.approx(row.solution())
    J = sad.derivative(problem, solution, rtol=1e-13)
    assert J.todense() == pytest.approx(row.dense_jacobian(), rel=1e-9, abs=1e-9)
    assert J.T.todense() == pytest.approx(row.dense_jacobian().T, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    "name", ["value", "grad", "hvp", "cross_jvp", "cross_vjp", "hess_diag"]
)
def test_functions_must_be_callable(name):
    functions = {"grad": lambda x, y: y, name: np.eye(2)}
    with pytest.raises(TypeError, match=rf"{name} must be callable.*ndarray"):
        sad.FunctionObjective(**functions)


def test_grad_is_needed():
    with pytest.raises(TypeError, match="grad"):
        sad.FunctionObjective()
    with pytest.raises(TypeError, match="grad"):
        sad.FunctionObjective(grad=None)
    with pytest.raises(TypeError, match="positional"):
        sad.FunctionObjective(lambda x, y: y)


def test_missing_cross_jvp_is_named_and_the_adjoint_works():
    row = BY_NAME["quadratic"]
    f = row.objective
    objective = sad.FunctionObjective(
        grad=f.grad, hvp=f._hvp, cross_vjp=f._cross_vjp, n=f.n
    )
    problem, solution = sad.Problem(objective), row.at_solution()
    v = np.ones(row.n)
    adjoint = sad.vjp(problem, solution, v, rtol=1e-12)
    assert adjoint.x == pytest.approx(row.dense_jacobian().T @ v)
    J = sad.derivative(problem, solution, rtol=1e-12)
    assert J.T @ v == pytest.approx(row.dense_jacobian().T @ v)
    for forward in (
        lambda: sad.jvp(problem, solution, np.ones(row.m)),
        lambda: J @ np.ones(row.m),
        J.todense,
    ):
        with pytest.raises(NotImplementedError, match=r"forward.*cross_jvp"):
            forward()


def test_missing_cross_vjp_is_named_and_the_tangent_works():
    row = BY_NAME["quadratic"]
    f = row.objective
    objective = sad.FunctionObjective(
        grad=f.grad, hvp=f._hvp, cross_jvp=f._cross_jvp, n=f.n
    )
    problem, solution = sad.Problem(objective), row.at_solution()
    u = np.ones(row.m)
    tangent = sad.jvp(problem, solution, u, rtol=1e-12)
    assert tangent.y == pytest.approx(row.dense_jacobian() @ u)
    with pytest.raises(NotImplementedError, match=r"adjoint.*cross_vjp"):
        sad.vjp(problem, solution, np.ones(row.n))


@pytest.mark.parametrize("missing", ["grad", "hess", "cross"])
def test_a_problem_names_the_methods_that_are_missing(missing):
    methods = {
        name: lambda self, x, y: None
        for name in ("value", "grad", "hess", "cross")
        if name != missing
    }
    with pytest.raises(TypeError, match=f"Half lacks {missing}"):
        sad.Problem(type("Half", (), methods)())


def test_an_objective_without_the_method_value_is_one_without_values():
    row = BY_NAME["quadratic"]

    class NoValue:
        grad = staticmethod(row.objective.grad)
        hess = staticmethod(row.objective.hess)
        cross = staticmethod(row.objective.cross)

    problem = sad.Problem(NoValue())
    assert not problem.has_value
    solution = sad.solve(problem, row.x, row.y0, tol=1e-10)
    assert solution.value is None
    assert solution.y == pytest.approx(row.solution())


def test_problem_is_frozen_and_maximize_is_a_keyword():
    problem = BY_NAME["quadratic"].problem
    with pytest.raises(dataclasses.FrozenInstanceError):
        problem.maximize = True
    with pytest.raises(TypeError, match="positional"):
        sad.Problem(problem.objective, True)


def test_dtype_of_an_objective_is_that_of_the_default_start():
    row = BY_NAME["quadratic"]
    H, B = (np.float32(a) for a in (row.dense_hess(0, 0), -row.dense_cross(0, 0)))

    class Single:
        n, dtype = row.n, np.float32

        def value(self, x, y):
            return 0.5 * y @ (H @ y) - y @ (B @ np.float32(x))

        def grad(self, x, y):
            return H @ y - B @ np.float32(x)

        def hess(self, x, y):
            return H

        def cross(self, x, y):
            return -B

    solution = sad.solve(sad.Problem(Single()), row.x, tol=1e-4)
    assert solution.y.dtype == np.float32
    assert solution.y == pytest.approx(np.linalg.solve(H, B @ row.x), abs=1e-3)
