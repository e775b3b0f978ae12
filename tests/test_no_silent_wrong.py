"""No silent wrong answer: every failure of a solve is an error, never a number.

Most of these are defects that were found in other libraries that differentiate
optimisation problems; each test is named after its trap.
"""

import dataclasses
import itertools
import types
import warnings

import numpy as np
import pytest
import scipy.sparse
from problems import BY_NAME, STATIONARY, quadratic_objective, scaled

import sparse_argdiff as sad
from sparse_argdiff.operators.block_matrices import gram
from sparse_argdiff.problem.optimality import row_norms

S = sad.Status
ROW = BY_NAME["quadratic"]
V, U = np.linspace(1.0, 2.0, ROW.n), np.linspace(-1.0, 1.0, ROW.m)


def relative(a, b):
    """Return ‖a − b‖ / ‖b‖ without squaring numbers near the limits of a float."""
    size = np.abs(b).max()
    return np.abs(a - b).max() / size


def quadratic(H, B=None):
    """Return ½ y'Hy − y'Bx with its exact solution at x = 1, as solved, for any square H."""
    H = np.asarray(H, dtype=float)
    n = H.shape[0]
    B = np.eye(n) if B is None else B
    x = np.ones(B.shape[1])
    y = np.linalg.lstsq(H, B @ x, rcond=None)[0]
    problem = sad.Problem(quadratic_objective(H, B))
    return problem, as_left(problem, y, x)


def as_left(problem, y, x):
    """Return a solution as ``solve`` leaves it, which is not judged again."""
    return sad.Solution(y=y, x=x, status=S.CONVERGED, residual=problem.grad(x, y))


def spoilt(**functions):
    """Return the quadratic row's objective with some of its functions replaced."""
    f = ROW.objective
    given = {
        "value": f.value,
        "grad": f.grad,
        "hvp": f._hvp,
        "cross_jvp": f._cross_jvp,
        "cross_vjp": f._cross_vjp,
        "n": f.n,
    }
    return sad.Problem(sad.FunctionObjective(**(given | functions)))


class Matrices:
    """The quadratic row's objective with matrices of the caller's."""

    n = ROW.n
    value = staticmethod(ROW.objective.value)
    grad = staticmethod(ROW.objective.grad)

    def __init__(self, **replaced):
        matrices = {"hess": ROW.dense_hess(0, 0), "cross": ROW.dense_cross(0, 0)}
        self.matrices = matrices | replaced

    def hess(self, x, y):
        return self.matrices["hess"]

    def cross(self, x, y):
        return self.matrices["cross"]


def products(problem, solution, **options):
    """Return every way to a product with the derivative, by name."""
    n, m = solution.y.shape[0], solution.x.shape[0]
    v, u = np.linspace(1.0, 2.0, n), np.linspace(1.0, 3.0, m)

    def derivative():
        return sad.derivative(problem, solution, **options)

    return {
        "vjp": lambda: sad.vjp(problem, solution, v, **options),
        "jvp": lambda: sad.jvp(problem, solution, u, **options),
        "J @ u": lambda: derivative() @ u,
        "J.T @ v": lambda: derivative().T @ v,
        "J @ U": lambda: derivative() @ np.stack([u, -u], axis=1),
        "J.T @ V": lambda: derivative().T @ np.stack([v, -v], axis=1),
    }


WAYS = ("vjp", "jvp", "J @ u", "J.T @ v", "J @ U", "J.T @ V")
every_way = pytest.mark.parametrize("way", WAYS)


# the solution ---------------------------------------------------------------------


@every_way
def test_a_point_that_is_not_stationary_raises(way):
    solution = sad.Solution(y=ROW.solution() + 0.1, x=ROW.x)
    with pytest.raises(sad.ConvergenceError, match="not stationary") as caught:
        products(ROW.problem, solution)[way]()
    assert caught.value.status is S.NOT_STATIONARY
    assert caught.value.result is solution


@pytest.mark.parametrize("row", STATIONARY, ids=str)
def test_a_solution_of_other_parameters_raises(row):
    other = sad.Solution(y=row.solution(), x=1.5 * row.x)
    if row.name == "paper_zero":
        pytest.skip("y = 0 is stationary for every x")
    with pytest.raises(sad.ConvergenceError) as caught:
        sad.derivative(row.problem, other, method=row.method)
    assert caught.value.status is S.NOT_STATIONARY


@pytest.mark.parametrize("factor", [1e-12, 1.0, 1e12])
def test_stationarity_is_relative(factor):
    H, B = factor * ROW.dense_hess(0, 0), -factor * ROW.dense_cross(0, 0)
    problem = sad.Problem(quadratic_objective(H, B))
    y = np.linalg.solve(H, B @ ROW.x)
    sad.derivative(problem, sad.Solution(y=y * (1.0 + 1e-6), x=ROW.x))
    with pytest.raises(sad.ConvergenceError):
        sad.derivative(problem, sad.Solution(y=y + 0.1, x=ROW.x))


def test_stationarity_is_the_callers_choice():
    solution = sad.Solution(y=1.01 * ROW.solution(), x=ROW.x)
    with pytest.warns(sad.ConvergenceWarning, match="away from the solution"):
        sad.derivative(ROW.problem, solution, stationarity=0.1)
    sad.derivative(ROW.problem, solution, on_failure="ignore")
    with pytest.warns(sad.ConvergenceWarning, match="NOT_STATIONARY"):
        sad.derivative(ROW.problem, solution, on_failure="warn")


@pytest.mark.parametrize("status", [s for s in S if not s.acceptable], ids=str)
def test_status_of_a_failed_solve_is_not_ignored(status):
    solution = sad.Solution(y=ROW.solution(), x=ROW.x, status=status)
    for way, product in products(ROW.problem, solution).items():
        with pytest.raises(sad.ConvergenceError, match=status.name) as caught:
            product()
        assert caught.value.status is status, way


def test_nan_in_the_solution_raises():
    y = ROW.solution()
    y[3] = np.nan
    with pytest.raises(sad.ConvergenceError) as caught:
        sad.vjp(ROW.problem, sad.Solution(y=y, x=ROW.x), V)
    assert caught.value.status is S.NOT_FINITE


# the linear solve -----------------------------------------------------------------


@every_way
@pytest.mark.parametrize("method", ["cg", "minres"])
def test_iteration_limit_raises_and_carries_the_partial_answer(way, method):
    product = products(ROW.problem, ROW.at_solution(), method=method, maxiter=2)[way]
    with pytest.raises(sad.ConvergenceError, match="maxiter") as caught:
        product()
    error = caught.value
    assert error.status is S.ITERATION_LIMIT
    assert isinstance(error.result, sad.KrylovResult)
    assert error.result.x.any()
    assert not np.any(error.result.converged)


def test_iteration_limit_under_warn_and_ignore():
    options = {"maxiter": 2}
    with pytest.warns(sad.ConvergenceWarning, match="ITERATION_LIMIT"):
        warned = sad.vjp(
            ROW.problem, ROW.at_solution(), V, on_failure="warn", **options
        )
    ignored = sad.vjp(ROW.problem, ROW.at_solution(), V, on_failure="ignore", **options)
    assert np.array_equal(warned.x, ignored.x)
    assert ignored.krylov.status is S.ITERATION_LIMIT
    assert not ignored.krylov.converged
    with pytest.raises(ValueError, match="on_failure"):
        sad.vjp(ROW.problem, ROW.at_solution(), V, on_failure="quiet")


@every_way
def test_an_indefinite_hessian_raises(way):
    problem, solution = quadratic(np.diag([2.0, -1.0, 3.0]))
    with pytest.raises(sad.ConvergenceError, match="negative curvature") as caught:
        products(problem, solution)[way]()
    assert caught.value.status is S.NEGATIVE_CURVATURE
    assert caught.value.result.direction is not None


@pytest.mark.parametrize("scale", [1e-150, 1e-12, 1.0, 1e12, 1e150])
@pytest.mark.parametrize("method", ["cg", "minres"])
def test_a_singular_hessian_raises(method, scale):
    # The right-hand sides have a part in the null space.
    problem, solution = quadratic(scale * np.diag([2.0, 0.0, 3.0]))
    with pytest.raises(sad.ConvergenceError) as caught:
        sad.vjp(problem, solution, np.ones(3), method=method)
    assert caught.value.status in {S.SINGULAR, S.LEAST_SQUARES, S.STAGNATED}


@pytest.mark.parametrize("method", ["cg", "minres"])
def test_a_dense_singular_hessian_raises(method):
    rng = np.random.default_rng(0)
    q = rng.standard_normal((6, 4))
    problem, solution = quadratic(q @ q.T)
    with pytest.raises(sad.ConvergenceError):
        sad.vjp(problem, solution, np.ones(6), method=method)


@pytest.mark.parametrize("method", ["cg", "minres", "diagonal"])
def test_a_zero_hessian_raises(method):
    """The 0 / 0 that becomes zero."""
    problem = sad.Problem(quadratic_objective(np.zeros((2, 2)), np.eye(2), diag=True))
    solution = as_left(problem, np.ones(2), np.ones(2))
    with pytest.raises(sad.ConvergenceError):
        sad.vjp(problem, solution, np.ones(2), method=method)


def test_an_inflection_point_raises():
    """f = y³/3 − x y at x = 0: stationary, and f_YY = 0."""
    objective = sad.FunctionObjective(
        grad=lambda x, y: y**2 - x,
        hvp=lambda x, y, v: 2.0 * y * v,
        cross_jvp=lambda x, y, u: -u,
        cross_vjp=lambda x, y, w: -w,
    )
    solution = sad.Solution(y=np.zeros(1), x=np.zeros(1))
    with pytest.raises(sad.ConvergenceError) as caught:
        sad.vjp(sad.Problem(objective), solution, np.ones(1))
    assert caught.value.status is S.SINGULAR


@every_way
@pytest.mark.parametrize("method", ["cg", "minres"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_in_hvp_raises(way, method, bad):
    def hvp(x, y, v):
        out = ROW.objective._hvp(x, y, v)
        out[0] = bad
        return out

    with pytest.raises(sad.ConvergenceError) as caught:
        products(spoilt(hvp=hvp), ROW.at_solution(), method=method)[way]()
    assert caught.value.status is S.NOT_FINITE


@every_way
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_in_cross_raises(way, bad):
    """The linear solve is sound, and the product after it is not."""

    def spoil(function):
        def spoilt_function(x, y, z):
            out = np.array(function(x, y, z))
            out[0] = bad
            return out

        return spoilt_function

    f = ROW.objective
    problem = spoilt(cross_jvp=spoil(f._cross_jvp), cross_vjp=spoil(f._cross_vjp))
    with pytest.raises(sad.ConvergenceError) as caught:
        products(problem, ROW.at_solution())[way]()
    assert caught.value.status is S.NOT_FINITE


def test_nan_in_the_seed_raises():
    v = V.copy()
    v[0] = np.nan
    with pytest.raises(sad.ConvergenceError) as caught:
        sad.vjp(ROW.problem, ROW.at_solution(), v)
    assert caught.value.status is S.NOT_FINITE


def test_nan_in_the_warm_start_is_no_answer():
    """Either it is not used, or nothing comes of it."""
    start = np.full(ROW.n, np.nan)
    adjoint = sad.vjp(
        ROW.problem, ROW.at_solution(), V, adjoint0=start, on_failure="ignore"
    )
    right = np.isfinite(adjoint.x).all() and (
        relative(adjoint.x, ROW.dense_jacobian().T @ V) <= 1e-6
    )
    assert right if adjoint.krylov.converged else adjoint.krylov.status is S.NOT_FINITE


# symmetry -------------------------------------------------------------------------

LUCKY = np.array([[2.0, 1.0], [0.0, 2.0]])


@pytest.mark.parametrize("method", ["cg", "minres", sad.cg])
def test_non_symmetric_hvp_where_cg_converges_in_one_step(method):
    """H λ = v is solved at once and exactly; Hᵀ λ = v, which was asked, is not."""
    problem, solution = quadratic(LUCKY)
    with pytest.raises(sad.ConvergenceError, match="not symmetric") as caught:
        sad.vjp(problem, solution, np.array([1.0, 0.0]), method=method)
    assert caught.value.status is S.NOT_SYMMETRIC


@every_way
@pytest.mark.parametrize("method", ["cg", "minres"])
@pytest.mark.parametrize("amount", [1e-3, 1.0])
@pytest.mark.parametrize("n", [2, 5, 40])
def test_non_symmetric_hvp_is_always_detected(way, method, amount, n):
    rng = np.random.default_rng(n)
    H = np.diag(np.linspace(1.0, 5.0, n)) + amount * np.triu(
        rng.standard_normal((n, n)), 1
    ) / np.sqrt(n)
    problem, solution = quadratic(H, rng.standard_normal((n, 3)))
    with pytest.raises(sad.ConvergenceError) as caught:
        products(problem, solution, method=method)[way]()
    assert caught.value.status in {S.NOT_SYMMETRIC, S.NEGATIVE_CURVATURE}


BLOCKS = np.zeros((4, 4))
BLOCKS[:2, :2], BLOCKS[2:, 2:] = np.diag([2.0, 3.0]), LUCKY
FIRST, LAST = np.eye(4)[0], np.eye(4)[2]


def test_symmetry_of_one_product_says_nothing_about_the_next():
    """The first seed lives where the Hessian is symmetric, the second where it is not."""
    J = sad.derivative(*quadratic(BLOCKS))
    product = J.T @ FIRST
    assert product == pytest.approx([0.5, 0.0, 0.0, 0.0])
    with pytest.raises(sad.ConvergenceError, match="not symmetric"):
        J.T @ LAST


def test_symmetry_of_one_column_says_nothing_about_the_others():
    J = sad.derivative(*quadratic(BLOCKS))
    with pytest.raises(sad.ConvergenceError, match="not symmetric"):
        J.T @ np.stack([FIRST, LAST], axis=1)


def test_symmetry_is_not_taken_as_tested_by_a_zero_seed():
    J = sad.derivative(*quadratic(BLOCKS))
    assert not (J.T @ np.zeros(4)).any()
    with pytest.raises(sad.ConvergenceError, match="not symmetric"):
        J.T @ LAST


@pytest.mark.parametrize(
    "wrap", [np.asarray, scipy.sparse.csr_array, sad.aslinearoperator]
)
def test_non_symmetric_matrix_from_hess_is_detected(wrap):
    H = ROW.dense_hess(0, 0) + np.triu(np.full((ROW.n, ROW.n), 0.1), 1)
    with pytest.raises(sad.ConvergenceError, match="not symmetric"):
        sad.vjp(sad.Problem(Matrices(hess=wrap(H))), ROW.at_solution(), V)


@pytest.mark.parametrize("amount", [1e-5, 1e-6, 1e-7, 1e-8])
@pytest.mark.parametrize("condition", [1e2, 1e4])
@pytest.mark.parametrize("decades", [0, 4])
def test_a_small_asymmetry_is_refused_where_it_shows(condition, amount, decades):
    """What is allowed follows from the tolerance: right, or refused, in all units."""
    n, B = 30, np.random.default_rng(0).standard_normal((30, 2))
    for seed in range(4):
        rng = np.random.default_rng(seed)
        U = np.linalg.qr(rng.standard_normal((n, n)))[0]
        Q = (U * np.geomspace(1.0, 1.0 / condition, n)) @ U.T
        R = rng.standard_normal((n, n))
        D = 10.0 ** rng.uniform(-decades, decades, n)
        H = D[:, None] * (Q + amount * (R - R.T) / np.linalg.norm(R - R.T, 2)) * D
        symmetric = D[:, None] * (0.5 * (Q + Q.T)) * D
        problem, solution = quadratic(H, D[:, None] * B)
        v = D * rng.standard_normal(n)
        right = (D[:, None] * B).T @ np.linalg.solve(symmetric, v)
        found = sad.vjp(problem, solution, v, on_failure="ignore")
        if found.krylov.status.acceptable:
            assert relative(found.x, right) <= 1e-5


def test_rounding_of_a_symmetric_product_is_not_called_asymmetry():
    for condition in (1e2, 1e6, 1e10):
        for seed in range(5):
            rng = np.random.default_rng(seed)
            F = rng.standard_normal((60, 30)) * np.geomspace(1.0, condition**-0.5, 30)
            F += 100.0 * (seed % 2)  # features far from zero, which cancel in F v
            problem, solution = quadratic(F.T @ F)
            problem = dataclasses.replace(problem, objective=_by_two_passes(F))
            v = rng.standard_normal(30)
            found = sad.vjp(problem, solution, v, on_failure="ignore")
            assert found.krylov.status is not S.NOT_SYMMETRIC


def _by_two_passes(F):
    return sad.FunctionObjective(
        grad=lambda x, y: F.T @ (F @ y) - x,
        hvp=lambda x, y, v: F.T @ (F @ v),
        cross_vjp=lambda x, y, w: -w,
    )


@pytest.mark.parametrize("on_failure", ["warn", "ignore"])
def test_the_record_of_a_solve_that_was_not_symmetric_does_not_say_converged(
    on_failure,
):
    problem, solution = quadratic(LUCKY)
    seed = np.array([1.0, 0.0])
    if on_failure == "warn":
        with pytest.warns(sad.ConvergenceWarning, match="NOT_SYMMETRIC"):
            adjoint = sad.vjp(problem, solution, seed, on_failure=on_failure)
    else:
        adjoint = sad.vjp(problem, solution, seed, on_failure=on_failure)
    assert adjoint.krylov.status is S.NOT_SYMMETRIC
    assert not adjoint.krylov.converged


def test_the_error_and_its_result_agree():
    problem, solution = quadratic(LUCKY)
    with pytest.raises(sad.ConvergenceError) as caught:
        sad.vjp(problem, solution, np.array([1.0, 0.0]))
    assert caught.value.result.status is caught.value.status


# seeds of any size ----------------------------------------------------------------


@pytest.mark.parametrize("method", ["cg", "minres"])
@pytest.mark.parametrize(
    "name", ["quadratic", "badly_scaled", "scalar", "sparse_chain"]
)
@pytest.mark.parametrize("size", [1e-290, 1e-200, 1e-20, 1e20, 1e200, 1e290])
def test_a_tiny_or_huge_seed_has_a_scaled_adjoint_not_zero(size, name, method):
    """Absolute thresholds, 1e-4 or 1e-8, below which a seed counts as zero."""
    row = BY_NAME[name]
    v, u = np.linspace(1.0, 2.0, row.n), np.linspace(1.0, 3.0, row.m)
    options = {"method": method, "rtol": 1e-10}
    J = row.dense_jacobian()
    adjoint = sad.vjp(row.problem, row.at_solution(), size * v, **options)
    assert relative(adjoint.x / size, J.T @ v) <= 1e-7
    tangent = sad.jvp(row.problem, row.at_solution(), size * u, **options)
    assert relative(tangent.y / size, J @ u) <= 1e-7


@pytest.mark.parametrize("method", ["cg", "minres"])
@pytest.mark.parametrize("size", [1e-30, 1e-18, 1e18, 1e30])
def test_a_tiny_or_huge_seed_in_float32(size, method):
    H, B = (np.float32(a) for a in (ROW.dense_hess(0, 0), -ROW.dense_cross(0, 0)))
    problem = sad.Problem(quadratic_objective(H, B))
    solution = as_left(problem, np.float32(ROW.solution()), np.float32(ROW.x))
    v = np.float32(size) * np.float32(V)
    adjoint = sad.vjp(problem, solution, v, method=method, rtol=1e-5)
    assert relative(adjoint.x / np.float32(size), ROW.dense_jacobian().T @ V) <= 1e-3


@pytest.mark.parametrize("method", ["cg", "minres"])
@pytest.mark.parametrize("factor", [1e-100, 1e-20, 1e20, 1e100])
def test_the_units_of_f_do_not_enter_the_derivative(factor, method):
    problem, solution = scaled(ROW.problem, factor), ROW.at_solution()
    J = ROW.dense_jacobian()
    adjoint = sad.vjp(problem, solution, V, method=method)
    assert relative(adjoint.x, J.T @ V) <= 1e-6


@pytest.mark.parametrize("name", ["scalar", "paper_plus", "paper_minus"])
@pytest.mark.parametrize("method", ["cg", "minres"])
def test_a_scalar_problem_iterates_once_and_not_never(name, method):
    """``maxiter = 10 * size`` of a 0-d array is no iteration, and the answer 0."""
    row = BY_NAME[name]
    adjoint = sad.vjp(row.problem, row.at_solution(), np.ones(1), method=method)
    assert adjoint.krylov.niter == 1
    assert adjoint.x == pytest.approx(row.dense_jacobian()[0])
    assert adjoint.x.any()


@pytest.mark.parametrize("rtol", [1e-3, 1e-6, 1e-9])
def test_the_iterate_returned_is_the_one_that_converged(rtol):
    """CG that returns the iterate before the last."""
    adjoint = sad.vjp(ROW.problem, ROW.at_solution(), V, rtol=rtol)
    residual = np.linalg.norm(V - ROW.dense_hess(0, 0) @ adjoint.adjoint)
    assert residual <= rtol * np.linalg.norm(V) * (1 + 1e-6)
    assert adjoint.krylov.residual_norm == pytest.approx(residual, rel=1e-6)


# shapes and dtypes ----------------------------------------------------------------


@pytest.mark.parametrize(
    "grad",
    [
        lambda x, y: np.ones(3),
        lambda x, y: np.ones((ROW.n, 1)),
        lambda x, y: 1.0,
        lambda x, y: [1.0] * ROW.n,
        lambda x, y: None,
    ],
)
def test_wrong_shape_from_grad(grad):
    with pytest.raises(ValueError, match=r"objective\.grad must return.*\(8,\)"):
        sad.solve(spoilt(grad=grad), ROW.x)


@pytest.mark.parametrize("dtype", [int, complex, object])
def test_wrong_dtype_from_grad(dtype):
    def grad(x, y):
        return np.ones(ROW.n).astype(dtype)

    with pytest.raises(TypeError, match="grad"):
        sad.solve(spoilt(grad=grad), ROW.x)


@pytest.mark.parametrize("name", ["hess", "cross"])
@pytest.mark.parametrize(
    ("matrix", "error"),
    [
        (np.ones((3, 3)), ValueError),
        (np.ones((ROW.n, ROW.n + 1)), ValueError),
        (np.ones((ROW.m, ROW.n)), ValueError),
        (np.ones(ROW.n), ValueError),
        (np.ones((ROW.n, ROW.n, 1)), ValueError),
        (2.0, TypeError),
        ([[1.0]], TypeError),
        (None, TypeError),
        (np.ones((ROW.n, ROW.n)) + 0j, TypeError),
        (np.full((ROW.n, ROW.n), None), TypeError),
    ],
    ids=str,
)
def test_wrong_matrices(name, matrix, error):
    problem = sad.Problem(Matrices(**{name: matrix}))
    with pytest.raises(error):
        sad.vjp(problem, ROW.at_solution(), V)


@pytest.mark.parametrize("name", ["hvp", "cross_vjp", "cross_jvp"])
@pytest.mark.parametrize(
    "result", [np.ones(3), np.ones((ROW.n, 1)), 1.0, None], ids=str
)
def test_wrong_shape_from_a_product(name, result):
    problem = spoilt(**{name: lambda x, y, z: result})
    product = products(problem, ROW.at_solution())[
        "jvp" if name == "cross_jvp" else "vjp"
    ]
    with pytest.raises(ValueError, match="must return an array of shape"):
        product()


def test_wrong_shape_from_hess_diag():
    problem = spoilt(hess_diag=lambda x, y: np.ones(3))
    with pytest.raises(ValueError, match="diag"):
        sad.vjp(problem, ROW.at_solution(), V)
    with pytest.raises(ValueError, match="diag"):
        sad.solve(problem, ROW.x)


BAD_DTYPES = {
    "integer": lambda a: np.arange(a.shape[0]),
    "boolean": lambda a: a > 0,
    "complex": lambda a: a + 0j,
    "object": lambda a: a.astype(object),
    "list of integers": lambda a: [1] * a.shape[0],
    "text": lambda a: "1.0",
    "None inside": lambda a: np.array([None] * a.shape[0]),
}


@pytest.mark.parametrize("bad", BAD_DTYPES)
def test_wrong_dtypes_are_refused_at_the_door(bad):
    spoil = BAD_DTYPES[bad]
    solution = ROW.at_solution()
    y, x = ROW.solution(), ROW.x
    for name, call in {
        "x": lambda: sad.solve(ROW.problem, spoil(x)),
        "y0": lambda: sad.solve(ROW.problem, x, spoil(ROW.y0)),
        "v": lambda: sad.vjp(ROW.problem, solution, spoil(V)),
        "u": lambda: sad.jvp(ROW.problem, solution, spoil(U)),
        "y": lambda: sad.Solution(y=spoil(y), x=x),
        "x ": lambda: sad.Solution(y=y, x=spoil(x)),
    }.items():
        with pytest.raises(TypeError, match=rf"^{name.strip()} must be"):
            call()


@pytest.mark.parametrize("bad", ["complex", "object"])
def test_wrong_dtypes_are_refused_by_the_operator(bad):
    spoil = BAD_DTYPES[bad]
    J = sad.derivative(ROW.problem, ROW.at_solution())
    with pytest.raises(TypeError):
        J @ spoil(U)
    with pytest.raises(TypeError):
        J.T @ spoil(V)


def test_integers_are_exact_or_refused_by_the_operator():
    J = sad.derivative(ROW.problem, ROW.at_solution(), rtol=1e-12)
    expected = ROW.dense_jacobian()
    for product, dense, size in ((J, expected, ROW.m), (J.T, expected.T, ROW.n)):
        whole = np.arange(size)
        try:
            found = product @ whole
        except TypeError:
            continue
        assert found == pytest.approx(dense @ whole)


def test_wrong_lengths_are_refused_at_the_door():
    solution, long = ROW.at_solution(), np.ones(ROW.n + 1)
    J = sad.derivative(ROW.problem, solution)
    for name, call in {
        "y0": lambda: sad.solve(ROW.problem, ROW.x, long),
        "v": lambda: sad.vjp(ROW.problem, solution, long),
        "u": lambda: sad.jvp(ROW.problem, solution, long),
        "y": lambda: sad.vjp(ROW.problem, sad.Solution(y=long, x=ROW.x), long),
        "operand": lambda: J @ long,
        "operand ": lambda: J.T @ long,
    }.items():
        with pytest.raises(ValueError, match=name.strip()):
            call()
    for matrix in (np.ones((3, 3, 3)), np.ones((ROW.n, ROW.n))):
        with pytest.raises(ValueError, match="v must be"):
            sad.vjp(ROW.problem, solution, matrix)


def test_a_start_of_the_wrong_length_where_n_is_not_known():
    f = ROW.objective
    problem = sad.Problem(sad.FunctionObjective(grad=f.grad, hvp=f._hvp))
    with pytest.raises(ValueError, match=r"matmul|shape|y0"):
        sad.solve(problem, ROW.x, np.ones(3))


def test_arrays_are_no_solution():
    with pytest.raises(TypeError, match=r"Solution\(y=\.\.\., x=\.\.\.\)"):
        sad.vjp(ROW.problem, ROW.solution(), V)


def test_mixed_namespaces_are_refused():
    strict = pytest.importorskip("array_api_strict")
    x, y = strict.asarray(ROW.x), strict.asarray(ROW.solution())
    solution = ROW.at_solution()

    def strict_grad(x, y):
        return strict.asarray(ROW.objective.grad(x, y))

    mixed = sad.FunctionUpper(lambda x, y: 0.0, lambda x, y: strict.asarray(V))
    for name, call in {
        "y0": lambda: sad.solve(ROW.problem, ROW.x, y),
        "x": lambda: sad.solve(ROW.problem, x, ROW.y0),
        "Solution": lambda: sad.Solution(y=y, x=ROW.x),
        "grad": lambda: sad.solve(spoilt(grad=strict_grad), ROW.x),
        "v": lambda: sad.vjp(ROW.problem, solution, strict.asarray(V)),
        "u": lambda: sad.jvp(ROW.problem, solution, strict.asarray(U)),
        "adjoint0": lambda: sad.vjp(
            ROW.problem, solution, V, adjoint0=strict.asarray(V)
        ),
        "upper.grad_y": lambda: sad.Hypergradient(ROW.problem, mixed)(ROW.x),
    }.items():
        with pytest.raises(TypeError) as caught:
            call()
        for namespace in ("numpy", "array_api_strict"):
            assert namespace in str(caught.value), name


# arrays that change hands -----------------------------------------------------------


def test_the_caller_writes_the_next_x_into_the_same_array():
    """Optimisers do.  A value kept for one x is not one of another."""
    upper = sad.FunctionUpper(lambda x, y: 0.5 * float(y @ y), lambda x, y: y)
    F = sad.Hypergradient(ROW.problem, upper, tol=1e-12)
    x = np.array(ROW.x, copy=True)
    F.value(x)
    x *= 3.0
    found = F.evaluate(x)
    expected = sad.Hypergradient(ROW.problem, upper, tol=1e-12).evaluate(x.copy())
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-9)
    np.testing.assert_allclose(found.gradient, expected.gradient, rtol=1e-8)
    x[:] = 0.0
    np.testing.assert_array_equal(found.solution.x, expected.solution.x)


def test_products_that_write_into_one_buffer():
    """A block of columns is not k times the last one."""
    f, forward, backward = ROW.objective, np.empty(ROW.n), np.empty(ROW.m)

    def jvp(x, y, u):
        np.copyto(forward, f._cross_jvp(x, y, u))
        return forward

    def vjp(x, y, w):
        np.copyto(backward, f._cross_vjp(x, y, w))
        return backward

    J = sad.derivative(spoilt(cross_jvp=jvp, cross_vjp=vjp), ROW.at_solution())
    exact = sad.derivative(ROW.problem, ROW.at_solution())
    np.testing.assert_allclose(J @ np.eye(ROW.m), exact @ np.eye(ROW.m), rtol=1e-7)
    np.testing.assert_allclose(J.T @ np.eye(ROW.n), exact.T @ np.eye(ROW.n), rtol=1e-7)


# on_failure -----------------------------------------------------------------------


SADDLE = np.diag([1.0, -1.0])  # and a right-hand side that CG refuses at its first step


@pytest.mark.parametrize(
    "v", [np.array([1.0, 2.0]), np.array([[0.0, 1.0], [0.0, 2.0]])]
)
def test_a_failed_solve_never_answers_zero(v):
    problem, solution = quadratic(SADDLE)
    J = sad.derivative(problem, solution, method="cg", on_failure="ignore")
    found = J.T @ v
    failed = v.any(axis=0)
    assert np.isnan(found[..., failed]).all()
    if v.ndim == 2:  # the other column is solved by zero
        np.testing.assert_array_equal(found[:, 0], 0.0)


@pytest.mark.parametrize("method", ["maid", "hoag", "gradient_descent", "lbfgs"])
@pytest.mark.parametrize("solver", [None, "newton_kkt"])
def test_failed_solves_are_no_stationary_point(method, solver):
    """The gradient of an adjoint that was never found must not end the search as zero."""
    problem, _ = quadratic(SADDLE)
    upper = sad.FunctionUpper(
        lambda x, y: float((y - 1) @ (y - 1)), lambda x, y: 2 * (y - 1)
    )
    result = sad.minimize(
        problem,
        upper,
        [1.0, 2.0],
        method=method,
        solver=solver,
        on_failure="ignore",
        maxiter=5,
    )
    assert not result.success
    assert not result.status.acceptable


@pytest.mark.parametrize("method", ["maid", "hoag", "gradient_descent", "lbfgs"])
def test_a_small_gradient_of_a_poor_solve_is_no_success(method):
    upper = sad.FunctionUpper(lambda x, y: 0.5 * float(y @ y), lambda x, y: y)
    result = sad.minimize(
        ROW.problem,
        upper,
        ROW.x,
        method=method,
        tol=1.0,
        adjoint_maxiter=1,
        M=None,
        lower_tol=1e-12,
        on_failure="ignore",
    )
    assert not result.status.acceptable
    assert not result.success


# what users' functions return ------------------------------------------------------


@pytest.mark.parametrize("bad", [0, 1])
def test_an_inequality_that_is_not_finite(bad):
    """Its row is not inactive: nothing is known of it."""
    h = np.array([-1.0, -1.0])
    h[bad] = np.nan
    rows = sad.Inequality(lambda x, y: h, lambda x, y: np.eye(ROW.n)[:2])
    problem = sad.Problem(ROW.objective, inequality=rows)
    with pytest.raises(sad.ConvergenceError) as caught:
        sad.vjp(problem, ROW.at_solution(), V)
    assert caught.value.status is S.NOT_FINITE


def test_a_constraint_that_writes_into_one_buffer():
    """The values at a trial point must not become those of the point before it."""
    C, values = np.eye(ROW.n)[:2], np.empty(2)
    plain = sad.Equality(
        lambda x, y: y[:2] ** 2 - 0.25, lambda x, y: 2.0 * C * y[:2, None]
    )

    def fun(x, y):
        return np.subtract(y[:2] ** 2, 0.25, out=values)

    shared = sad.Equality(fun, plain.rows.jac)
    problem = sad.Problem(ROW.objective, equality=shared)
    before = problem.equalities.value(ROW.x, np.ones(ROW.n))
    problem.equalities.value(ROW.x, np.zeros(ROW.n))
    np.testing.assert_array_equal(before, 0.75)


def test_multipliers_of_another_problem():
    C = np.eye(ROW.n)[:1]
    problem = sad.Problem(ROW.objective, equality=sad.LinearEquality(C, [0.0]))
    solution = dataclasses.replace(
        sad.solve(problem, ROW.x), status=None, residual=None
    )
    wrong = dataclasses.replace(solution, multipliers=np.ones(3))
    with pytest.raises(ValueError, match=r"multipliers must have shape \(1,\)"):
        sad.vjp(problem, wrong, V)


def test_duplicate_entries_stay_the_callers():
    """SciPy's ``power`` adds them up in place, and fails on read-only ones."""
    parts = np.array([1.0, 2.0, 5.0]), np.array([0, 0, 1]), np.array([0, 2, 3])
    jac = scipy.sparse.csr_array(parts, shape=(2, 3))
    for part in (jac.data, jac.indices, jac.indptr):
        part.flags.writeable = False
    np.testing.assert_array_equal(row_norms(jac, np.ones(3)), [3.0, 5.0])
    diagonal = gram(jac, np.array([1.0, 2.0])).diagonal()
    np.testing.assert_array_equal(diagonal, [9.0, 50.0, 0.0])
    assert jac.nnz == 3


@pytest.mark.parametrize("bad", [np.ones(1), [1.0], None, "one", 1j])
def test_values_that_are_no_numbers_are_named(bad):
    with pytest.raises(TypeError, match=r"upper\.value must return a number"):
        sad.Hypergradient(
            ROW.problem, sad.FunctionUpper(lambda x, y: bad, lambda x, y: y)
        )(ROW.x)
    with pytest.raises(TypeError, match=r"objective\.value must return a number"):
        sad.solve(spoilt(value=lambda x, y: bad), ROW.x)


# errors ---------------------------------------------------------------------------


def test_errors_carry_status_and_result():
    with pytest.raises(sad.ConvergenceError) as caught:
        sad.vjp(ROW.problem, ROW.at_solution(), V, maxiter=1)
    error = caught.value
    assert isinstance(error, RuntimeError)
    assert error.status.name in str(error)
    assert error.status.value in str(error)
    assert error.result.status is error.status


def test_every_status_is_a_sentence_of_advice():
    for status in S:
        assert status.value[0].isupper()
        assert status.value.endswith(".")
    assert {s for s in S if s.acceptable} == {
        S.CONVERGED,
        S.ROUNDING_LIMIT,
        S.APPROXIMATE,
    }


def test_a_rounding_limit_that_is_poor_is_said():
    """All that arithmetic allows, and yet few digits: allowed, with a warning."""
    n = 12
    H = 1.0 / (1.0 + np.arange(n)[:, None] + np.arange(n))
    _, solution = quadratic(H)
    single = sad.Problem(
        quadratic_objective(np.float32(H), np.eye(n, dtype=np.float32))
    )
    solution = dataclasses.replace(
        solution, y=np.float32(solution.y), x=np.float32(solution.x)
    )
    with pytest.raises((sad.ConvergenceError, sad.ConvergenceWarning)):
        sad.vjp(single, solution, np.ones(n, np.float32), rtol=1e-7)


# a minimiser that is not isolated ---------------------------------------------------


def flat_problem(form, rank, n, seed):
    """Return ½ ‖A y − x‖² with fewer data than unknowns: H = A'A is singular."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((rank, n)) * 10.0 ** rng.uniform(-1.0, 1.0, n)
    x = rng.standard_normal(rank)
    functions = {
        "grad": lambda x, y: A.T @ (A @ y - x),
        "cross_jvp": lambda x, y, u: -A.T @ u,
        "cross_vjp": lambda x, y, w: -A @ w,
        "hvp": lambda x, y, v: A.T @ (A @ v),
    }
    if form == "diagonal":
        functions["hess_diag"] = lambda x, y: np.sum(A * A, axis=0)
    objective = sad.FunctionObjective(**functions)
    if form == "matrix":
        objective.hess = lambda x, y: A.T @ A
    y = np.linalg.pinv(A) @ x
    problem = sad.Problem(objective)
    return A, problem, as_left(problem, y, x)


@pytest.mark.parametrize("form", ["matrix", "diagonal", "products"])
@pytest.mark.parametrize(("rank", "n"), [(1, 2), (3, 6), (39, 40)])
@pytest.mark.parametrize("M", ["auto", None])
def test_a_minimiser_that_is_not_isolated_has_no_derivative(form, rank, n, M):
    """H z = B u has solutions, as many as preconditioners; only A y is determined."""
    for seed in range(3):
        A, problem, solution = flat_problem(form, rank, n, seed)
        J = sad.derivative(problem, solution, M=M)
        calls = [
            lambda J=J: J @ np.ones(rank),
            lambda J=J: J @ np.eye(rank),
            lambda J=J: J.T @ np.ones(n),
        ]
        for call in calls:
            with pytest.raises(sad.ConvergenceError) as caught:
                call()
            assert caught.value.status in {
                S.SINGULAR,
                S.NEGATIVE_CURVATURE,
                S.STAGNATED,
            }
        # Of A y, which all minimisers share, the derivative is I.
        np.testing.assert_allclose(J.T @ A[0], np.eye(rank)[0], atol=1e-6)


def test_an_isolated_minimiser_costs_half_a_solve_more_in_the_forward_mode_once():
    problem, solution = quadratic(np.diag(np.geomspace(1.0, 1e3, 60)))
    counted = []
    H = problem.objective.hess(solution.x, solution.y)

    def product(v):
        counted.append(1)
        return H @ v

    problem.objective.hess = lambda x, y: sad.LinearOperator((60, 60), product, product)
    one = sad.jvp(problem, solution, np.ones(60), M=None)
    assert one.n_hvp == len(counted) <= 2 * one.krylov.niter
    J = sad.derivative(problem, solution, M=None)
    J @ np.ones(60)
    before = len(counted)
    J @ np.ones(60)
    assert len(counted) - before <= one.krylov.niter + 1


# seeds, and arrays that change -------------------------------------------------------


@every_way
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_counts_where_a_bound_holds_the_variable_too(way, bad):
    problem, _ = quadratic(np.diag([1.0, 2.0]))
    problem = dataclasses.replace(problem, lower=0.0)
    x = np.array([1.0, -1.0])
    solution = sad.Solution(y=np.array([1.0, 0.0]), x=x)
    for seed in ([bad, 1.0], [1.0, bad]):
        v = np.array(seed)
        calls = {
            "vjp": lambda v=v: sad.vjp(problem, solution, v),
            "jvp": lambda v=v: sad.jvp(problem, solution, v),
            "J @ u": lambda v=v: sad.derivative(problem, solution) @ v,
            "J.T @ v": lambda v=v: sad.derivative(problem, solution).T @ v,
            "J @ U": lambda v=v: sad.derivative(problem, solution) @ v[:, None],
            "J.T @ V": lambda v=v: sad.derivative(problem, solution).T @ v[:, None],
        }
        with pytest.raises(sad.ConvergenceError) as caught:
            calls[way]()
        assert caught.value.status is S.NOT_FINITE
        found = sad.vjp(problem, solution, np.array(seed), on_failure="ignore")
        assert np.isnan(found.x).any()


def test_the_derivative_keeps_no_array_that_others_write_to():
    y, x = ROW.solution().copy(), ROW.x.copy()
    J = sad.derivative(ROW.problem, sad.Solution(y=y, x=x))
    before = J.T @ V
    y *= 3.0
    x += 1.0
    np.testing.assert_array_equal(J.T @ V, before)


# what a record says of itself ------------------------------------------------------


def quartic_in(**constraints):
    """Return ½ y'Qy + ¼ Σ y⁴ − x'y under constraints."""
    Q = np.diag([1.0, 2.0])
    objective = sad.FunctionObjective(
        value=lambda x, y: float(0.5 * y @ Q @ y + 0.25 * np.sum(y**4) - x @ y),
        grad=lambda x, y: Q @ y + y**3 - x,
        hvp=lambda x, y, v: Q @ v + 3.0 * y**2 * v,
        cross_jvp=lambda x, y, u: -u,
        cross_vjp=lambda x, y, w: -w,
        n=2,
    )
    return sad.Problem(objective, **constraints)


def below(a, b):
    """Return the row a'y <= b."""
    a, b = np.asarray(a)[None, :], np.asarray([b])
    return sad.Inequality(lambda x, y: a @ y - b, lambda x, y: a)


def row_at(a, b):
    """Return the row a'y = b."""
    return sad.LinearEquality(np.asarray(a)[None, :], np.asarray([b]))


X = np.array([1.0, -2.0])
SETTINGS = {
    "free": {},
    "bounds": {"lower": -0.5},
    "rows": {"inequality": below([1.0, 0.5], 0.1)},
    "equality": {"equality": row_at([1.0, 1.0], 0.1)},
    "equality+bounds": {"equality": row_at([1.0, 1.0], 0.1), "lower": -0.2},
}
every_setting = pytest.mark.parametrize("setting", SETTINGS)


def ways_to_differentiate(problem, solution):
    """Return the three doors, each with what it says."""

    def built():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            note = sad.derivative(problem, solution).note
        assert caught or ("weakly" not in note and "away" not in note)
        return [note, *(str(w.message) for w in caught)]

    return {
        "derivative": built,
        "vjp": lambda: sad.vjp(problem, solution, np.ones(2)).warnings,
        "jvp": lambda: sad.jvp(problem, solution, np.ones(2)).warnings,
    }


def refused(problem, solution):
    for door in ways_to_differentiate(problem, solution).values():
        with pytest.raises((sad.ConvergenceError, ValueError)) as caught:
            door()
        if isinstance(caught.value, sad.ConvergenceError):
            assert caught.value.status is S.NOT_STATIONARY
        else:  # an active set that belongs to no such problem
            assert "that could hold them" in str(caught.value)


@every_setting
def test_a_solution_is_believed_of_its_own_x_alone(setting):
    problem = quartic_in(**SETTINGS[setting])
    solution = sad.solve(problem, X)
    sad.vjp(problem, solution, np.ones(2))
    refused(problem, dataclasses.replace(solution, x=3.0 * X))
    refused(problem, dataclasses.replace(solution, y=solution.y + 0.1))
    far = sad.Solution(y=solution.y + 0.1, x=X, status=S.CONVERGED)
    refused(problem, far)
    solution.y[...] += 0.1
    refused(problem, solution)


def test_a_solution_is_believed_of_its_own_problem_alone():
    free, bounded = quartic_in(), quartic_in(lower=0.0)
    of_free, of_bounded = sad.solve(free, X), sad.solve(bounded, X)
    barrier = sad.LogBarrier(bounded, 3.0)
    inside = sad.solve(barrier, X, np.full(2, 0.5))
    for problem, solution in (
        (bounded, of_free),
        (free, of_bounded),
        (bounded, inside),
        (quartic_in(lower=-0.1), of_bounded),
        (quartic_in(**SETTINGS["equality"]), of_free),
    ):
        refused(problem, solution)


@pytest.mark.parametrize("setting", ["bounds", "rows", "equality+bounds"])
@pytest.mark.parametrize("status", [None, S.CONVERGED])
def test_an_active_set_goes_with_the_signs(setting, status):
    problem = quartic_in(**SETTINGS[setting])
    right = sad.solve(problem, X, tol=1e-12)
    active = right.active
    assert active.strong.any() or active.fixed.any()
    for name in ("strong", "fixed"):
        mask = getattr(active, name)
        for i in range(mask.size):
            flipped = mask.copy()
            flipped[i] ^= True
            wrong = dataclasses.replace(active, **{name: flipped})
            given = dataclasses.replace(right, active=wrong, status=status)
            refused(problem, given)
    for bad in (active.fixed.astype(int), [True, False], None):
        wrong = dataclasses.replace(active, fixed=bad)
        with pytest.raises(TypeError, match=r"active\.fixed must be a bool array"):
            sad.vjp(problem, dataclasses.replace(right, active=wrong), np.ones(2))
    wrong = dataclasses.replace(active, fixed=active.fixed[:1])
    with pytest.raises(ValueError, match=r"active\.fixed must have shape"):
        sad.vjp(problem, dataclasses.replace(right, active=wrong), np.ones(2))


@every_setting
@pytest.mark.parametrize("off", [1e-5, 1e-4])
def test_an_error_of_a_solution_from_elsewhere_is_told(setting, off):
    problem = quartic_in(**SETTINGS[setting])
    right = sad.solve(problem, X, tol=1e-12)
    for y, told in ((right.y, False), (right.y + off * np.array([1.0, -1.0]), True)):
        solution = sad.Solution(y=y, x=X)
        for door in ways_to_differentiate(problem, solution).values():
            assert any("away from the solution" in text for text in door()) is told
    # Only accurate to a tolerance that was asked for: the caller knows.
    assert not sad.vjp(problem, sad.solve(problem, X, tol=1e-4), np.ones(2)).warnings


@pytest.mark.parametrize("off", [0.0, 1e-10])
@pytest.mark.parametrize("kind", ["bounds", "rows", "equality+bounds"])
def test_weak_activity_is_told_at_every_door(kind, off):
    """Constraints that touch the minimiser without force, or nearly so."""
    free = {"equality": row_at([1.0, 1.0], 0.1)} if kind == "equality+bounds" else {}
    y = sad.solve(quartic_in(**free), X, tol=1e-13).y
    touching = {"upper": np.array([y[0] + off, np.inf])}
    if kind == "rows":
        touching = {"inequality": below([1.0, 2.0], y[0] + 2.0 * y[1] + off)}
    problem = quartic_in(**free, **touching)
    brought, solved = sad.Solution(y=y, x=X), sad.solve(problem, X)
    for solution in (brought, solved):
        for door in ways_to_differentiate(problem, solution).values():
            assert any("weakly active" in text for text in door())
    upper = sad.FunctionUpper(lambda x, y: y @ y, lambda x, y: 2.0 * y)
    with pytest.warns(sad.ConvergenceWarning, match="weakly active"):
        sad.Hypergradient(problem, upper)(X)


def test_a_method_is_judged_whatever_status_it_gives():
    problem = quartic_in()

    def method(problem, x, y, tol):
        return sad.Solution(y=y + 1.0, x=x, status=S.CONVERGED)

    with pytest.raises(sad.ConvergenceError) as caught:
        sad.solve(problem, X, method=method)
    assert caught.value.status is S.NOT_STATIONARY


# a start far up a steep coordinate --------------------------------------------------


@pytest.mark.parametrize(
    ("method", "diagonal"),
    list(itertools.product(["newton_cg", "newton_kkt"], [True, False])),
)
@pytest.mark.parametrize("steep", [1e20, 1e60, 1e100, 1e145, 1e150])
def test_what_is_short_beside_a_steep_way_is_not_converged(steep, diagonal, method):
    """½ w a² + cosh(b − x) − 1: beside √w the error 1 of b was no length."""
    objective = sad.FunctionObjective(
        value=lambda x, y: float(0.5 * steep * y[0] ** 2 + np.cosh(y[1] - x[0]) - 1.0),
        grad=lambda x, y: np.array([steep * y[0], np.sinh(y[1] - x[0])]),
        hvp=lambda x, y, v: np.array([steep * v[0], np.cosh(y[1] - x[0]) * v[1]]),
        hess_diag=(lambda x, y: np.array([steep, np.cosh(y[1] - x[0])]))
        if diagonal
        else None,
        n=2,
    )
    problem = sad.Problem(objective)
    for start in ([1.0, 0.0], [0.0, 0.0], [1e-3, 5.0]):
        found = sad.solve(problem, np.ones(1), np.array(start), method=method)
        np.testing.assert_allclose(found.y, [0.0, 1.0], rtol=1e-6, atol=1e-12)


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("method", ["newton_cg", "newton_kkt"])
def test_a_length_that_overflows_is_no_measure(method):
    """w = 1e300: y'f_YY y of the start is infinite, beside which all would be short."""
    objective = sad.FunctionObjective(
        value=lambda x, y: float(0.5e300 * y[0] ** 2 + 0.5 * (y[1] - x[0]) ** 2),
        grad=lambda x, y: np.array([1e300 * y[0], y[1] - x[0]]),
        hvp=lambda x, y, v: np.array([1e300 * v[0], v[1]]),
        n=2,
    )
    for start in ([1.0, 0.0], [1e-3, 5.0], [1e6, 0.0]):
        found = sad.solve(
            sad.Problem(objective),
            np.ones(1),
            np.array(start),
            method=method,
            on_failure="ignore",
        )
        right = np.allclose(found.y, [0.0, 1.0], rtol=1e-8, atol=1e-12)
        assert right or not found.status.acceptable
        assert right or start[0] > 1.0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("far", [-836.0, -85.0, -37.0, 37.0, 85.0, 836.0])
def test_a_start_of_a_saturated_loss_hides_no_force(far, seed):
    """An intercept at which all probabilities round to 1: ‖f_Y‖ = 0.4, and no curvature."""
    rng = np.random.default_rng([88, seed])
    features = rng.standard_normal((40, 2))
    targets = (rng.standard_normal(40) > 0.3).astype(float)
    problem = sad.Problem(sad.linear_model.Glm(features, targets, loss="logistic"))
    x = np.array([600.0, -2400.0]) * rng.uniform(0.5, 1.5, 2)
    cold = sad.solve(problem, x)
    for others in (cold.y, np.array([1e-65, 1e10, 0.0])):
        start = others.copy()
        start[-1] = far
        try:
            warm = sad.solve(problem, x, start)
        except sad.ConvergenceError:
            continue
        np.testing.assert_allclose(warm.y, cold.y, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_one_hessian_that_is_far_too_large_is_no_solution(call):
    """In it any step is short; a barrier whose rows lie once in ``jac`` has one."""
    rng = np.random.default_rng(call)
    A, b = rng.standard_normal((6, 4)), rng.uniform(0.5, 1.5, 6)
    calls = []

    def hess(x, y):
        calls.append(1)
        H = np.eye(4) + (A.T / (b - A @ y) ** 2) @ A
        return 1e24 * H if len(calls) == call else H

    f = types.SimpleNamespace(
        value=lambda x, y: (
            float(0.5 * (y - x) @ (y - x) - np.sum(np.log(b - A @ y)))
            if np.all(A @ y < b)
            else np.inf
        ),
        grad=lambda x, y: y - x + A.T @ (1.0 / (b - A @ y)),
        hess=hess,
        cross=lambda x, y: -np.eye(4),
        n=4,
    )
    x = rng.standard_normal(4)
    y0 = 0.1 * rng.standard_normal(4)
    found = sad.solve(sad.Problem(f), x, y0, on_failure="ignore")
    assert len(calls) >= call or found.niter < call
    off = np.linalg.solve(hess(x, found.y), f.grad(x, found.y))
    assert not found.status.acceptable or np.abs(off).max() <= 1e-6


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_value_that_is_not_finite_at_the_solution_is_told(value):
    """The gradient alone leads to it where the last value is asked for the record."""
    asked = []

    def lying(x, y):
        asked.append(y)
        return value

    objective = sad.FunctionObjective(
        value=lying,
        grad=lambda x, y: y - x,
        hvp=lambda x, y, v: v,
        cross_vjp=lambda x, y, w: -w,
        n=2,
    )
    problem = sad.Problem(objective, lower=np.zeros(2))
    with pytest.raises(sad.ConvergenceError) as error:
        sad.solve(problem, np.ones(2))
    assert asked
    assert error.value.status is sad.Status.NOT_FINITE
