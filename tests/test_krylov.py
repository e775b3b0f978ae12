"""krylov/: cg and minres, and what they say about what they did.

The word "converged" is checked against a residual that the test computes itself.
"""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from problems import spectral

from sparse_argdiff import KrylovResult, LinearOperator, Status, Structure, cg, minres
from sparse_argdiff.preconditioners import jacobi

SOLVERS = [cg, minres]
both = pytest.mark.parametrize("solver", SOLVERS, ids=["cg", "minres"])


# the problems -----------------------------------------------------------------------


def spd(n, cond=100.0, seed=0):
    return spectral(np.geomspace(1.0, cond, n), seed)


def indefinite(n, cond=100.0, seed=0):
    signs = np.where(np.arange(n) % 3 == 0, -1.0, 1.0)
    return spectral(signs * np.geomspace(1.0, cond, n), seed)


def vector(n, seed=1):
    return np.random.default_rng(seed).standard_normal(n)


def path_laplacian(n):
    """Build the singular Laplacian of a path graph; its null space is the ones."""
    A = 2.0 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    A[0, 0] = A[-1, -1] = 1.0
    return A


def five_point(k, dtype=np.float64):
    """Build the 5-point Laplacian on a k by k grid."""
    line = scipy.sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(k, k))
    grid = scipy.sparse.kronsum(line, line)
    return scipy.sparse.csr_array(grid).astype(dtype)


class Counted:
    """A matrix, or a function of a vector, that counts its products."""

    def __init__(self, A, n=None):
        self.product = A if callable(A) else lambda x: A @ x
        self.shape = A.shape if n is None else (n, n)
        self.calls = 0

    def matvec(self, x):
        self.calls += 1
        return self.product(x)


def rounding(A, x, b):
    """Return the size of what rounding may hide in a residual."""
    eps = np.finfo(np.result_type(b.dtype)).eps
    A = A.toarray() if scipy.sparse.issparse(A) else A
    return eps * b.size * (np.linalg.norm(A) * np.linalg.norm(x) + np.linalg.norm(b))


def check_honest(result, A, b, rtol=1e-8, atol=0.0):
    """Recompute the residual and compare it with all that the result claims."""
    assert isinstance(result, KrylovResult)
    assert result.x.shape == result.residual.shape == b.shape
    residual = b - A @ result.x
    size = float(np.linalg.norm(residual))
    slack = rounding(A, result.x, b)
    np.testing.assert_allclose(result.residual, residual, rtol=0, atol=slack)
    assert result.residual_norm == pytest.approx(size, rel=1e-6, abs=slack)
    target = max(rtol * float(np.linalg.norm(b)), atol)
    assert result.converged is (result.status is Status.CONVERGED)
    assert result.converged is (result.residual_norm <= target)
    if result.converged:
        assert size <= target * (1.0 + 1e-6) + min(slack, 0.1 * target)
    return size


# agreement --------------------------------------------------------------------------

CONDITIONS = [
    # condition number, rtol that floating point can attain there
    (1.0, 1e-12),
    (1e2, 1e-10),
    (1e4, 1e-8),
    (1e6, 1e-7),
    (1e8, 1e-5),
]


@both
@pytest.mark.parametrize(("cond", "rtol"), CONDITIONS)
@pytest.mark.parametrize("n", [1, 2, 3, 10, 60])
@pytest.mark.parametrize("kind", [spd, indefinite])
def test_agrees_with_dense_algebra(solver, kind, n, cond, rtol):
    if kind is indefinite and solver is cg:
        pytest.skip("cg is for definite systems")
    A, b = kind(n, cond), vector(n)
    result = solver(A, b, rtol=rtol, maxiter=200 * n)
    assert result.status is Status.CONVERGED
    size = check_honest(result, A, b, rtol)
    # ‖x − x*‖ ≤ ‖A⁻¹‖ ‖r‖, and the smallest eigenvalue is 1.
    expected = np.linalg.solve(A, b)
    rounded = 1e-14 * cond * np.linalg.norm(expected)
    assert np.linalg.norm(result.x - expected) <= 1.01 * size + rounded


@both
@pytest.mark.parametrize("n", [1, 10, 60])
@pytest.mark.parametrize("cond", [1.0, 1e2, 1e4])
def test_agrees_with_scipy(solver, n, cond):
    A, b = spd(n, cond), vector(n)
    reference = getattr(scipy.sparse.linalg, solver.__name__)
    expected, info = reference(A, b, rtol=1e-13, maxiter=200 * n)
    assert info == 0
    result = solver(A, b, rtol=1e-10, maxiter=200 * n)
    assert result.converged
    np.testing.assert_allclose(
        result.x, expected, rtol=0, atol=1e-8 * np.linalg.norm(expected)
    )


@pytest.mark.parametrize("n", [2, 10, 60])
def test_minres_agrees_with_scipy_on_indefinite_systems(n):
    A, b = indefinite(n, 1e3), vector(n)
    expected, info = scipy.sparse.linalg.minres(A, b, rtol=1e-13, maxiter=200 * n)
    assert info == 0
    result = minres(A, b, rtol=1e-10, maxiter=200 * n)
    assert result.converged
    np.testing.assert_allclose(
        result.x, expected, rtol=0, atol=1e-8 * np.linalg.norm(expected)
    )


def test_minres_needs_no_more_iterations_than_scipy():
    A, b = five_point(15), vector(225)
    steps = []
    scipy.sparse.linalg.minres(A, b, rtol=1e-9, callback=lambda x: steps.append(1))
    assert minres(A, b, rtol=1e-6).niter <= len(steps)


def test_cg_needs_no_more_iterations_than_scipy():
    A, b = five_point(15), vector(225)
    steps = []
    scipy.sparse.linalg.cg(A, b, rtol=1e-8, callback=lambda x: steps.append(1))
    assert cg(A, b, rtol=1e-8).niter <= len(steps) + 1


@both
def test_each_iterate_is_the_best_of_its_krylov_space(solver):
    # Against the optimum over the Krylov space, by dense least squares.
    A, b = spd(30, 1e3), vector(30)
    basis = np.linalg.qr(
        np.stack([np.linalg.matrix_power(A, j) @ b for j in range(5)], 1)
    )[0]
    result = solver(A, b, rtol=0.0, maxiter=5)
    assert result.niter == 5
    if solver is minres:
        best = basis @ np.linalg.lstsq(A @ basis, b)[0]
    else:
        best = basis @ np.linalg.solve(basis.T @ A @ basis, basis.T @ b)
    np.testing.assert_allclose(result.x, best, rtol=0, atol=1e-9 * np.linalg.norm(best))


OPERATORS = {
    "ndarray": lambda A: A,
    "Fortran": np.asfortranarray,
    "csr_array": scipy.sparse.csr_array,
    "csc_matrix": scipy.sparse.csc_matrix,
    "coo_array": scipy.sparse.coo_array,
    "SciPy operator": scipy.sparse.linalg.aslinearoperator,
    "ours": lambda A: LinearOperator(A.shape, lambda x: A @ x, symmetric=True),
    "matvec only": Counted,
}


@both
@pytest.mark.parametrize("kind", OPERATORS.values(), ids=OPERATORS.keys())
def test_anything_that_is_an_operator_may_be_A_or_M(solver, kind):
    A, b = spd(20), vector(20)
    M = np.linalg.inv(A + 0.1 * np.eye(20))
    M = (M + M.T) / 2.0
    result = solver(kind(A), b, M=kind(M), rtol=1e-10)
    check_honest(result, A, b, 1e-10)
    assert result.converged
    assert result.niter < 10


@both
def test_an_integer_matrix_solves_a_floating_system(solver):
    A = np.array([[4, 1, 0], [1, 3, 1], [0, 1, 5]])
    b = np.array([1.0, 2.0, 3.0])
    assert check_honest(solver(A, b), A.astype(float), b) <= 1e-8 * np.linalg.norm(b)


# honesty ----------------------------------------------------------------------------


def _unsymmetric(n, seed):
    return spd(n, 10.0, seed) + 0.5 * np.random.default_rng(seed).standard_normal(
        (n, n)
    )


HONESTY = {
    "definite": lambda n, seed: spd(n, 1e3, seed),
    "ill-conditioned": lambda n, seed: spd(n, 1e12, seed),
    "beyond double": lambda n, seed: spd(n, 1e18, seed),
    "indefinite": lambda n, seed: indefinite(n, 1e3, seed),
    "negative definite": lambda n, seed: -spd(n, 1e3, seed),
    "unsymmetric": _unsymmetric,
    "skew": lambda n, seed: _unsymmetric(n, seed) - _unsymmetric(n, seed).T,
    "singular": lambda n, seed: spectral(np.maximum(np.arange(n) - n // 3, 0), seed),
    "rank one": lambda n, seed: np.outer(vector(n, seed), vector(n, seed)),
    "zero": lambda n, seed: np.zeros((n, n)),
    "clustered": lambda n, seed: spectral(np.where(np.arange(n) < 2, 1e-9, 1.0), seed),
    "scaled down": lambda n, seed: 1e-30 * spd(n, 1e3, seed),
    "scaled up": lambda n, seed: 1e30 * indefinite(n, 1e3, seed),
}
HONEST_OPTIONS = {
    "plain": {},
    "tight": {"rtol": 1e-14},
    "loose": {"rtol": 0.5},
    "absolute": {"rtol": 0.0, "atol": 1e-3},
    "short": {"maxiter": 3},
    "warm": {"x0": True},
    "jacobi": {"M": True},
    "warm, jacobi": {"x0": True, "M": True, "rtol": 1e-13},
}


@both
@pytest.mark.parametrize("matrix", HONESTY.values(), ids=HONESTY.keys())
@pytest.mark.parametrize("options", HONEST_OPTIONS.values(), ids=HONEST_OPTIONS.keys())
def test_converged_is_said_of_the_recomputed_residual_only(solver, matrix, options):
    # SciPy's minres and cg report success with true residuals far above rtol.
    for seed, n in enumerate([1, 2, 7, 30]):
        A, b = matrix(n, seed), vector(n, seed + 100)
        given = dict(options)
        if "x0" in given:
            given["x0"] = vector(n, seed + 200)
        if "M" in given:
            given["M"] = jacobi(np.abs(np.diag(A)) + 1e-3 * (1.0 + np.abs(A).max()))
        counted = Counted(A)
        result = solver(counted, b, **given)
        check_honest(result, A, b, given.get("rtol", 1e-8), given.get("atol", 0.0))
        assert result.n_matvec == counted.calls
        assert np.isfinite(result.x).all()
        norm_A = np.linalg.norm(A, 2)
        if result.status is Status.ROUNDING_LIMIT:
            size = norm_A * np.linalg.norm(result.x) + np.linalg.norm(b)
            assert result.residual_norm <= 64.0 * np.finfo(float).eps * size
        if solver is minres and np.array_equal(A, A.T) and "M" not in given:
            r = result.residual
            if result.status is Status.LEAST_SQUARES:
                assert np.linalg.norm(A @ r) <= 1e-6 * norm_A * np.linalg.norm(r)
            # It minimises the residual, so that it is never worse than no solve.
            assert np.linalg.norm(r) <= (1.0 + 1e-6) * np.linalg.norm(b)
        if result.status in {Status.NEGATIVE_CURVATURE, Status.SINGULAR}:
            p = result.direction
            assert p @ A @ p <= 1e-12 * norm_A * (p @ p)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_minres_preconditioned_meets_the_tolerance_in_the_2_norm(scale):
    # The recurrence measures ‖r‖ in the metric of M, which says nothing about ‖r‖₂.
    n, rtol = 60, 1e-9
    A, b = indefinite(n, 1e2), vector(n)
    M = jacobi(scale * np.geomspace(1e-4, 1e4, n))
    result = minres(A, b, M=M, rtol=rtol, maxiter=100 * n)
    assert result.status is Status.CONVERGED
    check_honest(result, A, b, rtol)
    residual = result.residual
    natural = math.sqrt(residual @ (M @ residual)) / math.sqrt(b @ (M @ b))
    assert natural != pytest.approx(result.residual_norm / np.linalg.norm(b), rel=0.1)


@both
@pytest.mark.parametrize("order", ["plain", "jacobi"])
@pytest.mark.parametrize(
    ("k", "rtol"), [(8, 1e-4), (8, 1e-6), (100, 1e-4), (100, 1e-6)]
)
def test_float32_stays_float32_and_is_honest(solver, k, rtol, order):
    # SciPy's cg: info 0 at rtol 1e-6 where the true residual is 1e-3.
    A, n = five_point(k, np.float32), k * k
    b = np.ones(n, np.float32)
    M = None if order == "plain" else jacobi(A.diagonal())
    result = solver(A, b, rtol=rtol, M=M)
    assert result.x.dtype == np.float32
    assert result.residual.dtype == np.float32
    exact = np.linalg.norm(b - A.astype(float) @ result.x.astype(float))
    # The residual in float32 is itself no better than this.
    noise = 8.0 * float(np.finfo(np.float32).eps * np.linalg.norm(result.x))
    assert result.residual_norm == pytest.approx(exact, rel=0.1, abs=noise)
    if result.converged:
        assert result.residual_norm <= rtol * np.linalg.norm(b)
        assert exact <= 2.0 * rtol * np.linalg.norm(b)
    else:
        assert result.status in {Status.ROUNDING_LIMIT, Status.STAGNATED}
        assert exact + noise > rtol * np.linalg.norm(b)
    if k == 8 and rtol == 1e-4:
        assert result.converged


@both
def test_float32_unattainable_tolerance_is_the_rounding_limit(solver):
    A, b = spd(50, 1e4).astype(np.float32), vector(50).astype(np.float32)
    result = solver(A, b, rtol=1e-9, maxiter=5000)
    assert result.status is Status.ROUNDING_LIMIT
    assert not result.converged
    level = np.linalg.norm(A, 2) * np.linalg.norm(result.x) + np.linalg.norm(b)
    assert result.residual_norm <= 64.0 * np.finfo(np.float32).eps * level


@both
@pytest.mark.parametrize("dtypes", [("f4", "f8"), ("f8", "f4")], ids=["A f4", "b f4"])
def test_the_solution_has_the_dtype_of_b(solver, dtypes):
    A, b = spd(20).astype(dtypes[0]), vector(20).astype(dtypes[1])
    result = solver(A, b, rtol=1e-4)
    assert result.converged
    assert result.x.dtype == b.dtype
    x0 = vector(20).astype("f8")
    assert solver(A, b, x0, rtol=1e-4).x.dtype == b.dtype


UNATTAINABLE = {
    "n = 1": lambda: (np.array([[3.0]]), np.array([1.0])),
    "well-conditioned": lambda: (spd(50, 1e2), vector(50)),
    "ill-conditioned": lambda: (spd(50, 1e8), vector(50)),
    "Laplacian": lambda: (five_point(20), np.ones(400)),
    "diagonal": lambda: (np.diag(np.arange(1.0, 40.0)), vector(39)),
    "singular": lambda: (path_laplacian(40), path_laplacian(40) @ vector(40)),
}


@both
@pytest.mark.parametrize("rtol", [0.0, 1e-16, 1e-18, 1e-300])
@pytest.mark.parametrize("problem", UNATTAINABLE.values(), ids=UNATTAINABLE.keys())
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_an_unattainable_tolerance_ends_at_the_rounding_limit(
    solver, problem, rtol, warm
):
    A, b = problem()
    x0 = vector(b.size, 5) if warm else None
    result = solver(A, b, x0, rtol=rtol, maxiter=20_000)
    check_honest(result, A, b, rtol)
    # An exactly representable solution may well be found.
    assert result.status in {Status.ROUNDING_LIMIT, Status.CONVERGED}
    if rtol < 1e-16:
        assert result.status is Status.ROUNDING_LIMIT or result.residual_norm == 0.0
    assert result.niter <= 100 * b.size
    norm_A = np.linalg.norm(A.toarray() if scipy.sparse.issparse(A) else A, 2)
    level = norm_A * np.linalg.norm(result.x) + np.linalg.norm(b)
    assert result.residual_norm <= 64.0 * np.finfo(float).eps * level


def test_an_indefinite_system_at_rtol_zero_ends_at_the_rounding_limit():
    A, b = indefinite(50, 1e4), vector(50)
    result = minres(A, b, rtol=0.0, maxiter=20_000)
    assert result.status is Status.ROUNDING_LIMIT
    assert result.niter <= 5000


@both
def test_an_operator_of_known_poor_accuracy_ends_at_its_own_limit(solver):
    # A finite-difference Hessian: more iterations cannot get below its noise.
    n, rng = 40, np.random.default_rng(0)
    S, b = spd(n, 100.0), vector(n)

    def noisy(x):
        return S @ x + 1e-7 * np.linalg.norm(S @ x) * rng.standard_normal(n) / n**0.5

    accuracy = Structure(accuracy=1e-7)
    A = LinearOperator((n, n), noisy, positive_definite=True, structure=accuracy)
    result = solver(A, b, rtol=1e-13, maxiter=10**5)
    assert result.status is Status.ROUNDING_LIMIT
    assert result.niter <= 100 * n
    assert np.linalg.norm(b - S @ result.x) <= 1e-3 * np.linalg.norm(b)


# the start --------------------------------------------------------------------------


@both
@pytest.mark.parametrize("distance", [1e-6, 1e-3, 1.0, 1e3, 1e8])
def test_warm_start_does_not_change_the_meaning_of_the_tolerance(solver, distance):
    # SciPy's minres ignored x0 for years, and others stop at rtol ‖b − A x0‖.
    n, rtol = 40, 1e-6
    A, b = spd(n, 1e2), vector(n)
    x0 = np.linalg.solve(A, b) + distance * vector(n, 9)
    result = solver(A, b, x0, rtol=rtol, maxiter=100 * n)
    assert result.status is Status.CONVERGED
    check_honest(result, A, b, rtol)
    cold = solver(A, b, rtol=rtol)
    if distance <= 1e-3:
        assert result.niter < cold.niter
        # Nor is it solved more than was asked for: that is what warm starts save.
        assert result.residual_norm > 1e-3 * rtol * np.linalg.norm(b)


@both
@pytest.mark.parametrize("closeness", [0.0, 0.5, 0.99])
def test_a_start_that_meets_the_tolerance_costs_no_iteration(solver, closeness):
    n, rtol = 20, 1e-6
    A, b = spd(n), vector(n)
    error = np.linalg.solve(A, vector(n, 3))
    error *= closeness * rtol * np.linalg.norm(b) / np.linalg.norm(A @ error)
    x0 = np.linalg.solve(A, b) + error
    A = Counted(A)
    result = solver(A, b, x0, rtol=rtol)
    assert result.status is Status.CONVERGED
    assert result.niter == 0
    assert result.n_matvec == A.calls == 1
    np.testing.assert_array_equal(result.x, x0)
    assert not np.shares_memory(result.x, x0)


@both
@pytest.mark.parametrize("M", [None, 1.0], ids=["plain", "preconditioned"])
def test_an_exact_start_does_not_divide_by_zero(solver, M):
    A, x0 = np.diag([1.0, 2.0, 4.0]), np.array([1.0, -1.0, 2.0])
    M = None if M is None else np.eye(3)
    for rtol in (1e-8, 0.0):
        result = solver(A, A @ x0, x0, rtol=rtol, M=M)
        assert result.status is Status.CONVERGED
        assert result.niter == 0
        assert result.residual_norm == 0.0


@both
@pytest.mark.parametrize("atol", [1e-3, 1e-1, 1e3])
def test_atol_is_the_larger_of_the_two(solver, atol):
    A, b = spd(30), vector(30)
    result = solver(A, b, rtol=1e-10, atol=atol)
    check_honest(result, A, b, 1e-10, atol)
    assert result.converged
    assert result.niter < solver(A, b, rtol=1e-10).niter
    assert result.residual_norm > 1e-3 * min(atol, np.linalg.norm(b))


# zero, nothing, and one -------------------------------------------------------------


@both
@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 3)])
@pytest.mark.parametrize("start", [None, 1.0], ids=["cold", "warm"])
@pytest.mark.parametrize("rtol", [1e-8, 0.0])
def test_a_zero_right_hand_side_gives_fresh_zeros(solver, shape, start, rtol):
    # SciPy returns the caller's own b as x.
    A, b = Counted(spd(5)), np.zeros(shape)
    x0 = None if start is None else np.full(shape, start)
    result = solver(A, b, x0, rtol=rtol)
    assert result.status is Status.CONVERGED
    assert np.all(result.converged)
    assert np.all(np.asarray(result.niter) == 0)
    assert result.n_matvec == A.calls
    np.testing.assert_array_equal(result.x, 0.0)
    np.testing.assert_array_equal(result.residual, 0.0)
    np.testing.assert_array_equal(result.residual_norm, 0.0)
    assert result.x is not b
    for a, c in ((result.x, b), (result.residual, b), (result.x, result.residual)):
        assert not np.shares_memory(a, c)


@both
@pytest.mark.parametrize("shape", [(0,), (0, 1), (0, 2), (0, 0)])
def test_an_empty_system_is_solved(solver, xp_array, shape):
    to, back = xp_array
    result = solver(to(np.zeros((0, 0))), to(np.zeros(shape)))
    assert result.status is Status.CONVERGED
    assert back(result.x).shape == shape
    assert result.n_matvec == 0


@both
@pytest.mark.parametrize("a", [2.0, 1e-200, 1e200])
def test_one_equation_takes_one_iteration(solver, a):
    result = solver(np.array([[a]]), np.array([3.0]))
    assert result.status is Status.CONVERGED
    assert result.niter == 1
    np.testing.assert_allclose(result.x, 3.0 / a)


def test_energy_error_is_none_for_minres_and_zero_for_a_zero_right_hand_side():
    A = spd(5)
    for b in (np.zeros(5), vector(5), np.zeros((5, 2)), np.full((5, 2), np.nan)):
        assert minres(A, b).energy_error is None
    assert cg(A, np.zeros(5)).energy_error == 0.0


# scale ------------------------------------------------------------------------------

SCALES = [1e-300, 1e-200, 1e-160, 1e-40, 1e40, 1e160, 1e200, 1e300]


@both
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("with_M", [False, True], ids=["plain", "jacobi"])
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_tiny_and_huge_right_hand_sides_are_solved_alike(solver, scale, with_M, warm):
    # r'r underflows at 1e-162 and overflows at 1e154: neither is the user's fault.
    A, b = spd(20), vector(20)
    M = jacobi(np.diag(A)) if with_M else None
    x0 = vector(20, 2) if warm else None
    unit = solver(A, b, x0, M=M)
    result = solver(A, scale * b, None if x0 is None else scale * x0, M=M)
    assert result.status is Status.CONVERGED
    assert abs(result.niter - unit.niter) <= 1
    np.testing.assert_allclose(result.x / scale, unit.x, rtol=1e-6)
    assert result.residual_norm <= 1e-8 * np.linalg.norm(b) * scale
    np.testing.assert_allclose(
        np.linalg.norm((scale * b - A @ result.x) / scale),
        result.residual_norm / scale,
        rtol=1e-2,
        atol=1e-13,
    )
    if solver is cg and result.niter == unit.niter:
        # Beside its residual: at the last step rounding alone moves both by a factor.
        of_residual = result.energy_error / result.residual_norm
        assert 1 / 3 < of_residual / (unit.energy_error / unit.residual_norm) < 3


@both
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("with_M", [False, True], ids=["plain", "jacobi"])
def test_tiny_and_huge_matrices_are_solved_alike(solver, scale, with_M):
    # An absolute "is it zero" threshold freezes small-scaled systems.
    A, b = spd(20), vector(20)
    if solver is minres:
        A = A @ np.diag(np.ones(20)) - 30.0 * np.outer(b, b) / (b @ b)
    unit = solver(A, b, M=jacobi(np.abs(np.diag(A))) if with_M else None)
    M = jacobi(scale * np.abs(np.diag(A))) if with_M else None
    result = solver(scale * A, b, M=M)
    assert result.status is Status.CONVERGED
    assert abs(result.niter - unit.niter) <= 1
    np.testing.assert_allclose(result.x * scale, unit.x, rtol=1e-5, atol=1e-7)


@both
@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200, 1e300])
def test_a_system_in_other_units_is_solved_alike(solver, scale):
    A, b = spd(20), vector(20)
    unit = solver(A, b)
    result = solver(scale * A, scale * b)
    assert result.status is Status.CONVERGED
    assert abs(result.niter - unit.niter) <= 1
    np.testing.assert_allclose(result.x, unit.x, rtol=1e-6)


@both
@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e22, 1e30])
def test_tiny_and_huge_float32_right_hand_sides_are_solved_alike(solver, scale):
    A, b = spd(20, 10.0).astype(np.float32), vector(20).astype(np.float32)
    unit = solver(A, b, rtol=1e-4)
    result = solver(A, np.float32(scale) * b, rtol=1e-4)
    assert result.status is Status.CONVERGED
    assert abs(result.niter - unit.niter) <= 1
    np.testing.assert_allclose(result.x / np.float32(scale), unit.x, atol=1e-3)


@both
@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_the_callback_sees_the_callers_units(solver, scale):
    A, b = spd(10), vector(10)
    seen, unit = [], []
    solver(A, b, callback=lambda it: unit.append((it.residual_norm, it.x.copy())))
    solver(
        A, scale * b, callback=lambda it: seen.append((it.residual_norm, it.x.copy()))
    )
    for (norm_seen, x_seen), (norm_unit, x_unit) in zip(
        seen[:4], unit[:4], strict=True
    ):
        assert norm_seen / scale == pytest.approx(norm_unit, rel=1e-6)
        np.testing.assert_allclose(x_seen / scale, x_unit, rtol=1e-6)


# curvature --------------------------------------------------------------------------

SWAP = np.array([[0.0, 1.0], [1.0, 0.0]])
NOT_POSITIVE = {
    "negative definite": (-spd(10), vector(10), {Status.NEGATIVE_CURVATURE}),
    "indefinite": (indefinite(30), vector(30), {Status.NEGATIVE_CURVATURE}),
    "one negative": (
        np.diag([1.0, 2.0, 3.0, -1e-3]),
        np.ones(4),
        {Status.NEGATIVE_CURVATURE},
    ),
    "negative first": (np.diag([-1.0, 2.0]), np.eye(2)[0], {Status.NEGATIVE_CURVATURE}),
    "one by one": (np.array([[-2.0]]), np.ones(1), {Status.NEGATIVE_CURVATURE}),
    "tiny indefinite": (
        1e-30 * indefinite(10),
        vector(10),
        {Status.NEGATIVE_CURVATURE},
    ),
    "zero": (np.zeros((4, 4)), np.ones(4), {Status.SINGULAR}),
    "one by one zero": (np.zeros((1, 1)), np.ones(1), {Status.SINGULAR}),
    "singular": (np.diag([1.0, 2.0, 0.0]), np.ones(3), {Status.SINGULAR}),
    "in the null space": (np.diag([1.0, 0.0]), np.eye(2)[1], {Status.SINGULAR}),
    # p'Ap = 0 at once, although the matrix is indefinite and not singular.
    "zero curvature": (
        SWAP,
        np.array([1.0, 0.0]),
        {Status.NEGATIVE_CURVATURE},
    ),
    "zero curvature, other side": (SWAP, np.eye(2)[1], {Status.NEGATIVE_CURVATURE}),
    "two that cancel": (np.diag([1.0, -1.0]), np.ones(2), {Status.NEGATIVE_CURVATURE}),
    "two that cancel, and the third": (
        np.diag([1.0, -1.0, 0.0]),
        np.ones(3),
        {Status.NEGATIVE_CURVATURE},
    ),
}


@pytest.mark.parametrize(
    ("A", "b", "statuses"), NOT_POSITIVE.values(), ids=NOT_POSITIVE.keys()
)
@pytest.mark.parametrize("with_M", [False, True], ids=["plain", "preconditioned"])
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_cg_keeps_the_direction_of_non_positive_curvature(A, b, statuses, with_M, warm):
    # SciPy's cg: info 0 on an indefinite matrix, NaN on zero curvature.
    n = b.size
    M = jacobi(np.linspace(1.0, 1.5, n)) if with_M else None
    x0 = 1e-3 * b if warm else None
    counted = Counted(A)
    result = cg(counted, b, x0, M=M)
    check_honest(result, A, b)
    assert result.status in statuses
    assert not result.converged
    assert np.isfinite(result.x).all()
    p = result.direction
    assert p.shape == (n,)
    size = np.linalg.norm(A, 2) * (p @ p)
    assert p @ p > 0.0
    assert p @ A @ p <= 1e-13 * size
    if result.status is Status.NEGATIVE_CURVATURE:
        # Where p'Ap = 0 it is that of A p which tells.
        q = A @ p
        assert p @ q < 0.0 or q @ q > 1e-3 * np.linalg.norm(A, 2) ** 2 * (p @ p)
    assert not np.shares_memory(p, result.x)
    assert not np.shares_memory(p, b)
    assert result.n_matvec == counted.calls


def test_direction_is_none_when_all_curvature_was_positive():
    assert cg(spd(10), vector(10)).direction is None
    assert minres(indefinite(10), vector(10)).direction is None


def test_cg_keeps_the_iterate_before_the_bad_direction():
    # The good part is solved first; what it found must not be thrown away.
    A = np.diag([1.0, 1.0, -1.0])
    result = cg(A, np.array([1.0, 2.0, 1e-6]))
    assert result.status is Status.NEGATIVE_CURVATURE
    assert result.niter == 1
    np.testing.assert_allclose(result.x, [1.0, 2.0, 0.0], atol=1e-5)


@pytest.mark.parametrize("b", [[1.0, 0.0], [0.0, 1.0], [3.0, -2.0]])
def test_minres_solves_the_swap(b):
    result = minres(SWAP, np.array(b))
    assert result.status is Status.CONVERGED
    np.testing.assert_allclose(result.x, b[::-1], atol=1e-12)


def test_curvature_at_the_rounding_level_is_not_called_negative():
    # Semidefinite, with rounding of either sign on the null space.
    for seed in range(20):
        J = np.random.default_rng(seed).standard_normal((10, 30))
        A = J.T @ J
        b = A @ vector(30, seed)
        result = cg(A, b, rtol=1e-13, maxiter=1000)
        assert result.status is not Status.NEGATIVE_CURVATURE
        assert result.status.acceptable


# singular systems -------------------------------------------------------------------


def _low_rank(seed):
    J = np.random.default_rng(seed).standard_normal((8, 25))
    return J.T @ J


CONSISTENT = {
    "path graph": path_laplacian(30),
    "low rank": _low_rank(0),
    "zero rows": np.diag([0.0, 1.0, 0.0, 5.0, 2.0]),
    "rank one": np.outer(np.arange(1.0, 5.0), np.arange(1.0, 5.0)),
    "tiny": 1e-40 * path_laplacian(10),
}


@both
@pytest.mark.parametrize("A", CONSISTENT.values(), ids=CONSISTENT.keys())
@pytest.mark.parametrize("with_M", [False, True], ids=["plain", "jacobi"])
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_a_singular_consistent_system_is_solved(solver, A, with_M, warm):
    n = len(A)
    b = A @ vector(n)
    M = jacobi(np.diag(A) + np.diag(A).max()) if with_M else None
    result = solver(A, b, vector(n, 4) if warm else None, M=M)
    assert result.status is Status.CONVERGED
    check_honest(result, A, b)


def test_minres_solves_a_singular_indefinite_consistent_system():
    A = spectral([-3.0, -1.0, 0.0, 0.0, 1.0, 2.0, 10.0])
    b = A @ vector(7)
    result = minres(A, b)
    assert result.status is Status.CONVERGED
    # From zero, the solution of least norm.
    np.testing.assert_allclose(result.x, np.linalg.pinv(A) @ b, atol=1e-7)


INCONSISTENT = {
    "path graph": (path_laplacian(30), np.ones(30)),
    "low rank": (_low_rank(0), np.linalg.svd(_low_rank(0))[0][:, -1]),
    "zero rows": (np.diag([0.0, 1.0, 4.0, 5.0, 2.0]), np.eye(5)[0]),
    "indefinite": (np.diag([0.0, 1.0, -4.0, 5.0, -2.0]), np.eye(5)[0]),
    "zero": (np.zeros((3, 3)), np.ones(3)),
}


@both
@pytest.mark.parametrize("part", [1e3, 1.0, 1e-2, 1e-5])
@pytest.mark.parametrize(("A", "null"), INCONSISTENT.values(), ids=INCONSISTENT.keys())
def test_a_singular_inconsistent_system_never_converges(solver, A, null, part):
    # SciPy's minres maps the least-squares exit to success.
    n = len(A)
    null = part * null / np.linalg.norm(null)
    b = A @ vector(n) + null
    counted = Counted(A)
    result = solver(counted, b, rtol=1e-9)
    check_honest(result, A, b, 1e-9)
    assert not result.converged
    assert not result.status.acceptable
    assert result.n_matvec == counted.calls
    assert np.isfinite(result.x).all()
    if solver is minres and part <= 1.0:
        assert result.status is Status.LEAST_SQUARES
        assert result.residual_norm == pytest.approx(part, rel=1e-4)
        assert np.linalg.norm(result.x) <= 1e4
    elif solver is minres:
        # b is nearly all null vector: rounding may leave no more to be found.
        assert result.status in {Status.LEAST_SQUARES, Status.STAGNATED}
        assert result.residual_norm <= (1.0 + 1e-6) * np.linalg.norm(b)
    else:
        assert result.status in {
            Status.SINGULAR,
            Status.NEGATIVE_CURVATURE,
            Status.STAGNATED,
        }


# bad preconditioners and bad products -----------------------------------------------

BAD_M = {
    "minus identity": -np.eye(6),
    "zero": np.zeros((6, 6)),
    "one negative entry": np.diag([1.0, 1.0, -1.0, 1.0, 1.0, 1.0]),
    "mostly negative": np.diag([-1.0, -1.0, -1.0, 1.0, -1.0, -1.0]),
    "swap": np.kron(np.eye(3), SWAP),
    "tiny minus identity": -1e-200 * np.eye(6),
}


@both
@pytest.mark.parametrize("M", BAD_M.values(), ids=BAD_M.keys())
def test_an_indefinite_preconditioner_is_named(solver, M):
    # r'Mr < 0 is below every tolerance: test the sign before the size.
    A, b = np.diag(np.arange(1.0, 7.0)), np.array([1.0, -1.0, 3.0, 0.0, 0.5, -0.2])
    counted = Counted(A)
    result = solver(counted, b, M=M)
    check_honest(result, A, b)
    assert result.status is Status.INDEFINITE_PRECONDITIONER
    assert result.n_matvec == counted.calls


@both
def test_an_indefinite_preconditioner_that_shows_late_is_named(solver):
    n = 30
    A, b = spd(n, 1e4), vector(n)
    values = np.ones(n)
    values[7] = -0.3
    result = solver(A, b, M=spectral(values, seed=8), rtol=1e-10)
    check_honest(result, A, b, 1e-10)
    assert result.niter > 0
    assert result.status in {
        Status.INDEFINITE_PRECONDITIONER,
        Status.NEGATIVE_CURVATURE,
    }


def spoiled(A, call, value):
    """Return A as a function whose product number ``call`` has a bad entry."""
    calls = []

    def product(x):
        calls.append(1)
        y = A @ x
        if len(calls) == call or call == 0:
            y[-1] = value
        return y

    return product


@both
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("call", [0, 1, 2, 5], ids=["always", "1st", "2nd", "5th"])
@pytest.mark.parametrize("where", ["A", "M"])
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_nan_or_infinity_in_a_product_is_named(solver, where, call, value, warm):
    n = 20
    A, b = spd(n, 1e3), vector(n)
    x0 = vector(n, 3) if warm else None
    counted = Counted(spoiled(A, call, value) if where == "A" else A, n)
    M = None
    if where == "M":
        M = LinearOperator((n, n), spoiled(np.eye(n), call, value), symmetric=True)
    with np.errstate(invalid="ignore"):
        result = solver(counted, b, x0, M=M)
    assert result.n_matvec == counted.calls
    if (warm, where, call) == (True, "A", 1) and result.status is Status.CONVERGED:
        # The residual of the start was not finite: the start may be dropped.
        check_honest(result, A, b)
        return
    assert result.status is Status.NOT_FINITE
    assert result.converged is False
    if call > 2:
        # The last good iterate is kept.
        assert np.isfinite(result.x).all()
        assert 0 < result.niter < 5


@both
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_nan_or_infinity_in_the_right_hand_side_is_named(solver, warm, value):
    A, b = spd(5), vector(5)
    b[2] = value
    counted = Counted(A)
    result = solver(counted, b, vector(5, 2) if warm else None)
    assert result.status is Status.NOT_FINITE
    assert result.converged is False
    assert result.n_matvec == counted.calls


@both
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_or_infinity_in_the_start_is_named_or_not_used(solver, value):
    A, b, x0 = spd(5), vector(5), vector(5, 2)
    x0[2] = value
    with np.errstate(invalid="ignore"):
        result = solver(A, b, x0)
    if result.status is not Status.NOT_FINITE:
        assert result.converged
        check_honest(result, A, b)


@both
def test_an_operator_that_is_not_linear_does_not_loop(solver):
    rng = np.random.default_rng(0)
    A = Counted(lambda x: x + rng.standard_normal(20), 20)
    result = solver(A, vector(20))
    assert not result.converged
    assert not result.status.acceptable
    assert result.n_matvec == A.calls <= 300


# limits -----------------------------------------------------------------------------


@both
@pytest.mark.parametrize("maxiter", [0, 1, 2, 7, np.int64(3), 4.0])
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_the_iteration_limit_keeps_the_partial_solution(solver, maxiter, warm):
    A, b = spd(40, 1e6), vector(40)
    x0 = np.linalg.solve(A, b) * 0.9 if warm else None
    counted = Counted(A)
    result = solver(counted, b, x0, rtol=1e-10, maxiter=maxiter)
    check_honest(result, A, b, 1e-10)
    assert result.status is Status.ITERATION_LIMIT
    assert result.niter == maxiter
    assert result.n_matvec == counted.calls
    start = np.zeros(40) if x0 is None else x0
    if maxiter == 0:
        np.testing.assert_array_equal(result.x, start)
    else:
        assert np.any(result.x != start)
    if solver is minres:
        before = np.linalg.norm(b - A @ start)
        assert result.residual_norm <= before * (1.0 + 1e-12)


@both
def test_maxiter_zero_still_sees_an_exact_start(solver):
    A, b = spd(5), vector(5)
    result = solver(A, b, np.linalg.solve(A, b), rtol=1e-8, maxiter=0)
    assert result.status is Status.CONVERGED


@both
@pytest.mark.parametrize("n", [2, 10, 40])
@pytest.mark.parametrize("with_M", [False, True], ids=["plain", "jacobi"])
def test_a_solve_costs_its_iterations_and_one_product_or_two(solver, n, with_M):
    S, b = spd(n, 50.0), vector(n)
    M = jacobi(np.diag(S)) if with_M else None
    A = Counted(S)
    result = solver(A, b, M=M, rtol=1e-6)
    assert result.converged
    if not (with_M and solver is minres):  # its 2-norm may ask for one more look
        assert A.calls == result.niter + 1
    assert result.n_matvec == A.calls
    A = Counted(S)
    result = solver(A, b, vector(n, 3), M=M, rtol=1e-6)
    assert result.converged
    if not (with_M and solver is minres):
        assert A.calls == result.niter + 2
    assert result.n_matvec == A.calls


@both
def test_a_preconditioner_is_applied_once_per_iteration(solver):
    S, b = spd(30, 50.0), vector(30)
    M = Counted(np.diag(1.0 / np.diag(S)))
    result = solver(S, b, M=M, rtol=1e-6)
    restarts = result.n_matvec - result.niter - 1
    assert M.calls <= result.niter + 2 + 2 * restarts  # the last ‖r‖_M is recomputed


@both
def test_an_exact_preconditioner_converges_at_once(solver):
    A, b = spd(30, 1e4), vector(30)
    M = np.linalg.inv(A)
    result = solver(A, b, M=(M + M.T) / 2.0, rtol=1e-9)
    assert result.converged
    assert result.niter <= 2


# the callback -----------------------------------------------------------------------


@both
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_the_callback_sees_every_iteration_from_zero(solver, warm):
    # SciPy's callbacks lose the first residual and the count.
    A, b = spd(20), vector(20)
    x0 = np.linalg.solve(A, b) + 1e-3 * vector(20, 3) if warm else None
    seen = []

    def callback(it):
        seen.append((it.niter, it.x.copy(), it.residual_norm))

    result = solver(A, b, x0, callback=callback)
    assert result.converged
    assert [niter for niter, _, _ in seen] == list(range(result.niter + 1))
    np.testing.assert_array_equal(seen[0][1], np.zeros(20) if x0 is None else x0)
    np.testing.assert_array_equal(seen[-1][1], result.x)
    for _, x, size in seen:
        assert size == pytest.approx(np.linalg.norm(b - A @ x), rel=1e-3)
    unobserved = solver(A, b, x0)
    np.testing.assert_array_equal(unobserved.x, result.x)


def _stop_by_true(it):
    return True


def _stop_by_exception(it):
    raise StopIteration


@both
@pytest.mark.parametrize("stop", [_stop_by_true, _stop_by_exception])
@pytest.mark.parametrize("when", [0, 1, 4])
def test_the_callback_can_stop(solver, stop, when):
    A, b = spd(30, 1e4), vector(30)
    seen = []

    def callback(it):
        seen.append(it.niter)
        return stop(it) if it.niter == when else None

    counted = Counted(A)
    result = solver(counted, b, callback=callback)
    assert result.status is Status.STOPPED_BY_CALLBACK
    assert seen == list(range(when + 1))
    assert result.niter == when
    assert result.n_matvec == counted.calls
    check_honest(result, A, b)
    assert np.any(result.x != 0.0) == (when > 0)


@both
@pytest.mark.parametrize("answer", [None, False, 0, np.False_])
def test_a_callback_that_says_no_does_not_stop(solver, answer):
    assert solver(spd(9), vector(9), callback=lambda it: answer).converged


@both
def test_an_error_of_the_callback_reaches_the_caller(solver):
    def callback(it):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        solver(spd(5), vector(5), callback=callback)


@both
def test_convergence_is_not_overruled_by_the_callback(solver):
    A, b = spd(5), vector(5)
    x0 = np.linalg.solve(A, b)
    assert solver(A, b, x0, callback=lambda it: True).status is Status.CONVERGED


@both
def test_the_callback_sees_iteration_zero_of_a_zero_right_hand_side(solver):
    seen = []
    solver(spd(3), np.zeros(3), callback=lambda it: seen.append(it.niter))
    assert seen == [0]


@both
@pytest.mark.parametrize("size", [1e-6, 1e6])
def test_the_callback_residual_does_not_depend_on_the_size_of_M(solver, size):
    # Iteration 0 is the 2-norm; the metric of M must not show as a jump after it.
    A, b = spd(15), vector(15)
    seen, expected = [], []
    solver(A, b, callback=lambda it: expected.append(it.residual_norm))
    M = LinearOperator((15, 15), lambda r: size * r, positive_definite=True)
    solver(A, b, M=M, callback=lambda it: seen.append(it.residual_norm))
    np.testing.assert_allclose(seen[:5], expected[:5], rtol=1e-6)


# several right-hand sides -----------------------------------------------------------


@both
@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_several_right_hand_sides_are_solved_as_if_one_by_one(solver, k, warm):
    n = 20
    A, B = spd(n), vector((n, k))
    X0 = vector((n, k), 3) if warm else None
    counted = Counted(A)
    result = solver(counted, B, X0)
    assert result.status is Status.CONVERGED
    assert result.x.shape == result.residual.shape == (n, k)
    for name in ("converged", "niter", "residual_norm"):
        assert getattr(result, name).shape == (k,), name
    assert result.converged.dtype == bool
    assert result.converged.all()
    assert result.niter.dtype.kind == "i"
    assert result.n_matvec == counted.calls
    columns = [
        solver(A, B[:, j].copy(), None if X0 is None else X0[:, j].copy())
        for j in range(k)
    ]
    assert result.n_matvec == sum(one.n_matvec for one in columns)
    for j, one in enumerate(columns):
        assert result.niter[j] == one.niter
        np.testing.assert_allclose(result.x[:, j], one.x, rtol=1e-10, atol=1e-12)
        assert result.residual_norm[j] == pytest.approx(
            np.linalg.norm(B[:, j] - A @ result.x[:, j]), rel=1e-4, abs=1e-13
        )
    if solver is cg:
        assert result.energy_error.shape == (k,)
        np.testing.assert_allclose(
            result.energy_error, [one.energy_error for one in columns], rtol=1e-3
        )
    else:
        assert result.energy_error is None


@both
@pytest.mark.parametrize("n", [0, 4])
def test_no_right_hand_side_at_all_is_solved(solver, xp_array, n):
    to, back = xp_array
    result = solver(to(np.eye(n)), to(np.zeros((n, 0))))
    assert result.status is Status.CONVERGED
    assert back(result.x).shape == back(result.residual).shape == (n, 0)
    assert result.x is not result.residual
    assert result.n_matvec == 0
    for name, kind in (("converged", "b"), ("niter", "i"), ("residual_norm", "f")):
        value = back(getattr(result, name))
        assert value.shape == (0,)
        assert value.dtype.kind == kind, name


@both
@pytest.mark.parametrize("zeros", [[0], [1], [2], [0, 1], [0, 1, 2]])
def test_zero_columns_among_others_cost_nothing_and_stay_zero(solver, zeros):
    # A batched solver divides by the zero norm of such a column.
    A, B = spd(10), vector((10, 3))
    B[:, zeros] = 0.0
    counted = Counted(A)
    result = solver(counted, B)
    assert result.converged.all()
    np.testing.assert_array_equal(result.x[:, zeros], 0.0)
    assert (result.niter[zeros] == 0).all()
    others = [j for j in range(3) if j not in zeros]
    assert (result.niter[others] > 0).all()
    np.testing.assert_allclose(A @ result.x, B, atol=1e-6)
    assert result.n_matvec == counted.calls == sum(result.niter) + len(others)


@both
def test_each_column_has_its_own_tolerance(solver):
    # One tolerance for the whole block would leave the small column unsolved.
    A, B = spd(20), vector((20, 3)) * np.array([1.0, 1e-9, 1e9])
    result = solver(A, B, rtol=1e-8)
    assert result.converged.all()
    residual = np.linalg.norm(B - A @ result.x, axis=0)
    assert (residual <= 1.01e-8 * np.linalg.norm(B, axis=0)).all()


@both
def test_converged_is_told_per_column(solver):
    A = np.diag(np.geomspace(1.0, 1e6, 30))
    B = np.stack([vector(30), np.eye(30)[3], vector(30, 2)], axis=1)
    result = solver(A, B, maxiter=5)
    np.testing.assert_array_equal(result.converged, [False, True, False])
    assert result.status is Status.ITERATION_LIMIT
    np.testing.assert_array_equal(result.niter, [5, 1, 5])


def test_a_rounding_limit_does_not_hide_the_failure_of_another_column():
    A = np.zeros((11, 11))
    A[:10, :10], A[10, 10] = spd(10), -1.0
    B = np.zeros((11, 2))
    B[:10, 0] = vector(10)
    B[:, 1] = 1.0
    assert cg(A, B[:, 0], rtol=0.0).status is Status.ROUNDING_LIMIT
    for order in ([0, 1], [1, 0]):
        result = cg(A, B[:, order], rtol=0.0)
        assert result.status is Status.NEGATIVE_CURVATURE
        p = result.direction
        assert p.shape == (11,)
        assert p @ A @ p < 0.0


@both
def test_a_column_of_nan_does_not_spoil_the_others(solver):
    A, B = spd(6), vector((6, 3))
    B[0, 1] = np.nan
    result = solver(A, B)
    np.testing.assert_array_equal(result.converged, [True, False, True])
    assert result.status is Status.NOT_FINITE
    np.testing.assert_allclose((A @ result.x)[:, [0, 2]], B[:, [0, 2]], atol=1e-6)


# what is the caller's stays the caller's --------------------------------------------

LAYOUTS = {
    "read-only": lambda b: np.frombuffer(b.tobytes()).reshape(b.shape),
    "strided": lambda b: np.repeat(b, 2, axis=0)[::2],
    "reversed": lambda b: b[::-1].copy()[::-1],
    "Fortran": np.asfortranarray,
    "column of a matrix": lambda b: np.stack([b, b, b], axis=-1)[..., 1],
    "broadcast": lambda b: np.broadcast_to(np.float64(2.0), b.shape),
}


@both
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("shape", [(12,), (12, 2)])
def test_any_layout_is_read_and_none_is_written(solver, layout, shape):
    A = spd(12)
    b, x0 = layout(vector(shape)), layout(vector(shape, 4))
    b_before, x0_before = b.copy(), x0.copy()
    result = solver(A, b, x0, rtol=1e-10)
    np.testing.assert_allclose(A @ result.x, b, atol=1e-7)
    np.testing.assert_array_equal(b, b_before)
    np.testing.assert_array_equal(x0, x0_before)
    for array in (result.x, result.residual):
        assert not np.shares_memory(array, b)
        assert not np.shares_memory(array, x0)


@both
def test_lists_are_arrays_of_numpy(solver):
    result = solver(np.diag([2.0, 4.0]), [1.0, 2.0], [0.0, 0.0])
    np.testing.assert_allclose(result.x, [0.5, 0.5])


def _identity(n):
    return LinearOperator((n, n), lambda x: x, positive_definite=True)


@both
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_a_product_that_returns_its_own_operand_is_not_written(solver, shift):
    # lambda x: x is a fair identity; its result is the kernel's own vector.
    n, b = 10, vector(10)
    A = _identity(n) if shift == 0.0 else _identity(n) + spd(n)
    dense = np.eye(n) if shift == 0.0 else np.eye(n) + spd(n)
    for M in (None, _identity(n)):
        result = solver(A, b, M=M, rtol=1e-10)
        assert result.status is Status.CONVERGED
        np.testing.assert_allclose(dense @ result.x, b, atol=1e-8)


@both
@pytest.mark.parametrize("where", ["A", "M", "both"])
def test_a_product_into_a_reused_buffer_is_not_kept(solver, where):
    # Preallocated output is what one writes on a GPU; the next product overwrites it.
    n, b = 20, vector(20)
    S, T = spd(n), np.diag(1.0 / np.diag(spd(n)))
    buffers = np.empty(n), np.empty(n)
    A = LinearOperator((n, n), lambda x: np.matmul(S, x, out=buffers[0]))
    M = LinearOperator((n, n), lambda x: np.matmul(T, x, out=buffers[1]))
    A = A if where != "M" else S
    M = M if where != "A" else None
    result = solver(A, b, M=M, rtol=1e-10)
    assert result.status is Status.CONVERGED
    np.testing.assert_allclose(S @ result.x, b, atol=1e-8)
    assert result.niter <= 40


@both
def test_a_read_only_product_is_not_written(solver):
    n, b = 15, vector(15)
    S, written = spd(n), []

    def product(x):
        y = S @ x
        y.flags.writeable = False
        written.append((y, y.copy()))
        return y

    result = solver(LinearOperator((n, n), product), b)
    assert result.converged
    for y, before in written:
        np.testing.assert_array_equal(y, before)


@both
def test_a_result_is_not_changed_by_the_next_solve(solver):
    A = spd(10)
    first = solver(A, vector(10))
    x, residual = first.x.copy(), first.residual.copy()
    solver(A, vector(10, 2), first.x)
    np.testing.assert_array_equal(first.x, x)
    np.testing.assert_array_equal(first.residual, residual)
    with pytest.raises(AttributeError):
        first.x = x


@both
def test_a_solve_inside_a_product_is_allowed(solver):
    # A Schur complement D + Bᵀ C⁻¹ B by inner solves: nothing may be global.
    C, D, B = spd(15, 10.0, 1), spd(8, 10.0, 2), vector((15, 8))
    depth = []

    def product(x):
        inner = solver(C, B @ x, rtol=1e-13, callback=lambda it: depth.append(it.niter))
        assert inner.status.acceptable
        return D @ x + B.T @ inner.x

    b = vector(8)
    result = solver(LinearOperator((8, 8), product, symmetric=True), b, rtol=1e-9)
    dense = D + B.T @ np.linalg.solve(C, B)
    assert result.converged
    np.testing.assert_allclose(result.x, np.linalg.solve(dense, b), rtol=1e-6)
    assert len(depth) > result.niter


# other arrays -----------------------------------------------------------------------


def same_device(array, like):
    return getattr(array, "device", None) == getattr(like, "device", None)


@both
@pytest.mark.parametrize("shape", [(12,), (12, 1), (12, 3)])
@pytest.mark.parametrize("form", ["matrix", "closure"])
@pytest.mark.parametrize("with_M", [False, True], ids=["plain", "jacobi"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_leaves_the_device(xp_array, solver, shape, form, with_M, dtype):
    # np.asarray of an array on the strict backend's second device raises.
    to, back = xp_array
    A, b = spd(12).astype(dtype), vector(shape).astype(dtype)
    x0 = vector(shape, 3).astype(dtype)
    S, device_b = to(A), to(b)
    operator = S if form == "matrix" else LinearOperator((12, 12), lambda x: S @ x)
    M = jacobi(to(np.diag(A))) if with_M else None
    rtol = 1e-4 if dtype == np.float32 else 1e-9
    seen = []
    result = solver(operator, device_b, to(x0), rtol=rtol, M=M, callback=seen.append)
    assert result.status is Status.CONVERGED
    for name in ("x", "residual"):
        array = getattr(result, name)
        assert same_device(array, device_b), name
        assert type(array) is type(device_b)
        assert back(array).dtype == dtype, name
    residual = b - A @ back(result.x)
    target = rtol * np.linalg.norm(b, axis=0)
    assert (
        np.linalg.norm(residual, axis=0) <= 1.01 * target + 1e-6 * (rtol == 1e-4)
    ).all()
    assert all(same_device(it.x, device_b) for it in seen)
    if len(shape) == 2:
        for name in ("converged", "niter", "residual_norm", "energy_error"):
            array = getattr(result, name)
            if array is not None:
                assert same_device(array, device_b), name
                assert back(array).shape == shape[1:], name
    else:
        assert type(result.converged) is bool
        assert type(result.niter) is int
        assert type(result.residual_norm) is float
    np.testing.assert_array_equal(back(device_b), b)


FATES = {
    "zero b": (spd(6), np.zeros(6), {}, Status.CONVERGED, Status.CONVERGED),
    "limit": (
        spd(6),
        vector(6),
        {"maxiter": 2},
        Status.ITERATION_LIMIT,
        Status.ITERATION_LIMIT,
    ),
    "rounding": (
        spd(6),
        vector(6),
        {"rtol": 0.0},
        Status.ROUNDING_LIMIT,
        Status.ROUNDING_LIMIT,
    ),
    "indefinite": (
        indefinite(6),
        vector(6),
        {},
        Status.NEGATIVE_CURVATURE,
        Status.CONVERGED,
    ),
    "inconsistent": (
        np.diag([1.0, 0.0]),
        np.ones(2),
        {},
        Status.SINGULAR,
        Status.LEAST_SQUARES,
    ),
    "NaN": (
        np.full((2, 2), np.nan),
        np.ones(2),
        {},
        Status.NOT_FINITE,
        Status.NOT_FINITE,
    ),
    "NaN in b": (
        np.eye(2),
        np.array([np.nan, 1.0]),
        {},
        Status.NOT_FINITE,
        Status.NOT_FINITE,
    ),
    "tiny": (spd(6), 1e-200 * vector(6), {}, Status.CONVERGED, Status.CONVERGED),
    "huge": (spd(6), 1e200 * vector(6), {}, Status.CONVERGED, Status.CONVERGED),
}


@both
@pytest.mark.parametrize(
    ("A", "b", "options", "of_cg", "of_minres"), FATES.values(), ids=FATES.keys()
)
def test_every_status_is_reached_on_every_backend(
    xp_array, solver, A, b, options, of_cg, of_minres
):
    to, back = xp_array
    like = to(b)
    result = solver(to(A), like, **options)
    assert result.status is (of_cg if solver is cg else of_minres)
    for array in (result.x, result.residual, result.direction):
        assert array is None or same_device(array, like)
    assert back(result.x).shape == b.shape


@both
def test_a_mix_of_host_and_device_arrays_is_refused_by_name(solver, strict_array):
    to, _ = strict_array
    A, b, x0 = spd(4), vector(4), vector(4, 2)
    names = r"(?s)numpy.*array_api_strict|array_api_strict.*numpy"
    for arguments, options in (
        ((to(A), to(b), x0), {}),
        ((to(A), b), {}),
        ((A, to(b)), {}),
        ((to(A), to(b)), {"M": np.eye(4)}),
        ((to(A), to(b)), {"M": jacobi(np.ones(4))}),
    ):
        with pytest.raises(TypeError, match=names):
            solver(*arguments, **options)


# the energy norm --------------------------------------------------------------------

SPECTRA = {
    "geometric 1e2": lambda rng: np.geomspace(1.0, 1e2, 80),
    "geometric 1e4": lambda rng: np.geomspace(1.0, 1e4, 80),
    "linear": lambda rng: np.linspace(1.0, 100.0, 80),
    "random": lambda rng: rng.uniform(0.01, 1.0, 80),
    "ridge": lambda rng: 0.1 + rng.standard_normal(80) ** 4,
}


@pytest.mark.parametrize("rtol", [1e-1, 1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA.keys())
def test_energy_error_is_an_honest_estimate_on_the_median(spectrum, rtol):
    ratios = []
    for seed in range(15):
        rng = np.random.default_rng(seed)
        A = spectral(spectrum(rng), seed)
        exact = rng.standard_normal(80)
        result = cg(A, A @ exact, rtol=rtol, maxiter=8000)
        assert result.converged
        error = result.x - exact
        ratios.append(result.energy_error / math.sqrt(error @ A @ error))
    # It leans low; close to the end, where convergence is faster than linear, upwards.
    factor = 4.0 if rtol > 1e-4 else 5.0
    assert 1.0 / factor <= np.median(ratios) <= factor
    assert min(ratios) > 0.05
    assert max(ratios) < 50.0


@pytest.mark.parametrize("spread", [1e2, 1e5])
def test_energy_error_is_in_the_metric_of_A_under_a_preconditioner(spread):
    ratios = []
    for seed in range(15):
        rng = np.random.default_rng(seed)
        scales = np.geomspace(1.0, spread, 60)
        A = scales[:, None] * spd(60, 100.0, seed) * scales
        exact = rng.standard_normal(60) / scales
        result = cg(A, A @ exact, rtol=1e-3, M=jacobi(np.diag(A)), maxiter=6000)
        assert result.converged
        error = result.x - exact
        ratios.append(result.energy_error / math.sqrt(error @ A @ error))
    assert 1 / 3 <= np.median(ratios) <= 3


@pytest.mark.parametrize(
    ("A", "b"),
    [
        (np.array([[2.0]]), np.array([1.0])),
        (np.eye(5), np.arange(5.0)),
        (np.diag([4.0, 4.0]), np.array([1.0, 3.0])),
    ],
    ids=["n = 1", "identity", "scaled identity"],
)
def test_energy_error_of_an_exact_solution_is_zero(A, b):
    result = cg(A, b)
    assert result.residual_norm == 0.0
    assert result.energy_error == 0.0
    again = cg(A, b, result.x)
    assert again.niter == 0
    assert again.energy_error == 0.0


# wrong arguments --------------------------------------------------------------------

GOOD_A, GOOD_B = spd(4), vector(4)
WRONG = {
    "A not square": ({"A": np.ones((4, 3))}, ValueError, r"\bA\b.*square.*\(4, 3\)"),
    "A 1-D": ({"A": np.ones(4)}, ValueError, r"\bA\b.*\(4,\)"),
    "A None": ({"A": None}, TypeError, r"\bA\b.*NoneType"),
    "A a function": ({"A": lambda x: x}, TypeError, r"\bA\b.*function"),
    "A complex": ({"A": np.eye(4, dtype=complex)}, TypeError, r"\bA\b.*complex"),
    "b too long": ({"b": np.ones(5)}, ValueError, r"\bb\b.*4.*\(5,\)"),
    "b a row": ({"b": np.ones((1, 4))}, ValueError, r"\bb\b.*4.*\(1, 4\)"),
    "b 3-D": ({"b": np.ones((4, 1, 1))}, ValueError, r"\bb\b.*\(4, 1, 1\)"),
    "b 0-D": ({"b": np.ones(())}, ValueError, r"\bb\b.*\(\)"),
    "b integer": ({"b": np.arange(4)}, TypeError, r"\bb\b.*int64"),
    "b integers": ({"b": [1, 2, 3, 4]}, TypeError, r"\bb\b.*int64"),
    "b boolean": ({"b": np.ones(4, bool)}, TypeError, r"\bb\b.*bool"),
    "b complex": ({"b": np.ones(4, complex)}, TypeError, r"\bb\b.*complex128"),
    "b object": ({"b": np.ones(4, object)}, TypeError, r"\bb\b.*object"),
    "b None": ({"b": None}, TypeError, r"\bb\b.*NoneType"),
    "b sparse": ({"b": scipy.sparse.eye_array(4)}, TypeError, r"\bb\b.*array"),
    "x0 too long": ({"x0": np.ones(5)}, ValueError, r"\bx0\b.*\(4,\).*\(5,\)"),
    "x0 a column": ({"x0": np.ones((4, 1))}, ValueError, r"\bx0\b.*\(4, 1\)"),
    "x0 integer": ({"x0": np.arange(4)}, TypeError, r"\bx0\b.*int64"),
    "x0 complex": ({"x0": np.ones(4, complex)}, TypeError, r"\bx0\b.*complex128"),
    "x0 a number": ({"x0": 1.0}, ValueError, r"\bx0\b.*\(\)"),
    "M of another shape": ({"M": np.eye(5)}, ValueError, r"\bM\b.*\(4, 4\).*\(5, 5\)"),
    "M a string": ({"M": "jacobi"}, TypeError, r"\bM\b.*str"),
    "M a function": ({"M": lambda r: r}, TypeError, r"\bM\b.*function"),
    "M a diagonal": ({"M": np.ones(4)}, ValueError, r"\bM\b.*\(4,\)"),
    "M complex": ({"M": np.eye(4, dtype=complex)}, TypeError, r"\bM\b.*complex"),
    "rtol negative": ({"rtol": -1e-8}, ValueError, r"\brtol\b.*-1e-08"),
    "rtol NaN": ({"rtol": math.nan}, ValueError, r"\brtol\b.*nan"),
    "rtol infinite": ({"rtol": math.inf}, ValueError, r"\brtol\b.*inf"),
    "rtol None": ({"rtol": None}, (ValueError, TypeError), r"\brtol\b.*None"),
    "rtol a string": ({"rtol": "1e-8"}, (ValueError, TypeError), r"\brtol\b.*1e-8"),
    "rtol complex": ({"rtol": 1j}, (ValueError, TypeError), r"\brtol\b.*1j"),
    "atol negative": ({"atol": -1.0}, ValueError, r"\batol\b.*-1\.0"),
    "atol NaN": ({"atol": math.nan}, ValueError, r"\batol\b.*nan"),
    "atol None": ({"atol": None}, (ValueError, TypeError), r"\batol\b.*None"),
    "maxiter negative": ({"maxiter": -1}, ValueError, r"\bmaxiter\b.*-1"),
    "maxiter fractional": ({"maxiter": 2.5}, ValueError, r"\bmaxiter\b.*2\.5"),
    "maxiter a truth": ({"maxiter": True}, ValueError, r"\bmaxiter\b.*True"),
    "maxiter NaN": ({"maxiter": math.nan}, ValueError, r"\bmaxiter\b.*nan"),
    "maxiter infinite": ({"maxiter": math.inf}, ValueError, r"\bmaxiter\b.*inf"),
    "maxiter a word": (
        {"maxiter": "all"},
        (ValueError, TypeError),
        r"\bmaxiter\b.*all",
    ),
    "maxiter a list": ({"maxiter": [5]}, (ValueError, TypeError), r"\bmaxiter\b.*5"),
    "callback a number": ({"callback": 3}, TypeError, r"\bcallback\b.*int"),
}


@both
@pytest.mark.parametrize(("wrong", "error", "match"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_argument_is_named_with_what_was_found(solver, wrong, error, match):
    arguments = {"A": GOOD_A, "b": GOOD_B} | wrong
    with pytest.raises(error, match=match):
        solver(arguments.pop("A"), arguments.pop("b"), **arguments)


@both
def test_options_are_keyword_only(solver):
    with pytest.raises(TypeError, match="positional"):
        solver(GOOD_A, GOOD_B, None, 1e-8)


@both
@pytest.mark.parametrize("rtol", [np.float64(1e-6), np.float32(1e-6), 0, np.int64(0)])
def test_numbers_of_numpy_are_numbers(solver, rtol):
    # Half of a computed tolerance is a NumPy scalar.
    result = solver(
        GOOD_A, GOOD_B, rtol=rtol, atol=np.float32(1e-6), maxiter=np.int32(50)
    )
    assert result.converged


@both
def test_x0_of_another_shape_than_a_block_is_refused(solver):
    with pytest.raises(ValueError, match=r"x0.*2-D.*\(4,\)"):
        solver(GOOD_A, np.ones((4, 2)), GOOD_B)
    with pytest.raises(ValueError, match=r"x0.*\(4, 2\).*\(4, 3\)"):
        solver(GOOD_A, np.ones((4, 2)), np.ones((4, 3)))


@both
@pytest.mark.parametrize("result", [np.ones(5), np.ones((4, 1)), None, 1.0])
def test_a_product_of_the_wrong_shape_is_an_error_not_a_status(solver, result):
    with pytest.raises(ValueError, match=r"matvec must return .*\(4,\)"):
        solver(LinearOperator((4, 4), lambda x: result), GOOD_B)


@both
def test_an_error_inside_a_product_reaches_the_caller(solver):
    def product(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        solver(LinearOperator((4, 4), product), GOOD_B)


@both
def test_nothing_is_printed_or_warned(solver, capsys):
    solver(indefinite(20), vector(20), maxiter=5)
    solver(np.zeros((3, 3)), np.ones(3))
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


@both
@pytest.mark.slow
def test_a_large_laplacian_takes_as_long_as_scipy_at_most_twice(solver):
    A, b = five_point(400), np.ones(160_000)
    reference = getattr(scipy.sparse.linalg, solver.__name__)
    ours, theirs = [], []
    for _ in range(3):
        start = time.perf_counter()
        solver(A, b, rtol=0.0, maxiter=100)
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        reference(A, b, rtol=0.0, maxiter=100)
        theirs.append(time.perf_counter() - start)
    assert min(ours) <= 2.0 * min(theirs)


def test_a_residual_as_large_as_the_right_hand_side_is_no_rounding_limit():
    """MINRES with a preconditioner on a singular, inconsistent system: x runs away."""
    n = 60
    line = scipy.sparse.diags_array(
        [-np.ones(n - 1), np.r_[1.0, 2.0 * np.ones(n - 2), 1.0], -np.ones(n - 1)],
        offsets=[-1, 0, 1],
    ).tocsr()
    scale = np.geomspace(1.0, 1e3, n)
    A = scipy.sparse.diags_array(scale) @ line @ scipy.sparse.diags_array(scale)
    b = np.random.default_rng(0).standard_normal(n)
    M = jacobi(A.diagonal())
    for solver in (cg, minres):
        found = solver(A, b, rtol=1e-10, M=M)
        small = found.residual_norm <= 0.1 * np.linalg.norm(b)
        assert small or not found.status.acceptable


@pytest.mark.parametrize("method", [cg, minres])
@pytest.mark.parametrize("size", [1e-38, 1e-41, 1e-43, 1e-44])
def test_a_residual_is_that_of_the_returned_x_where_it_is_subnormal(method, size):
    A = np.float32(np.diag([1.0, 2.0, 3.0, 4.0]) + 0.1)
    b = np.float32(size) * np.float32([[1.0, -2.0, 3.0, 1.5], [3.0, 1.0, 0.0, 2.0]])
    for rhs in (b[0], b.T):
        found = method(A, rhs, rtol=1e-5)
        wide = (np.float64(part) for part in (rhs, A, found.x))
        left = next(wide) - next(wide) @ next(wide)
        size_left = np.linalg.norm(left, axis=0)
        within = size_left <= 1e-5 * np.linalg.norm(np.float64(rhs), axis=0)
        np.testing.assert_allclose(found.residual_norm, size_left, rtol=0.3, atol=3e-45)
        assert np.all(np.asarray(found.converged) <= within)
