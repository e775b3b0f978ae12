"""What CG says about its error; failures explained; columns solved together."""

from __future__ import annotations

import math
import pathlib

import numpy as np
import pytest
import scipy.io
import scipy.linalg
import scipy.sparse
from problems import spectral

from sparse_argdiff import LinearOperator, Status, aslinearoperator, cg, minres
from sparse_argdiff.krylov import Workspace
from sparse_argdiff.preconditioners import jacobi
from sparse_argdiff.solvers.newton_cg import cg_steps

both = pytest.mark.parametrize("solver", [cg, minres], ids=["cg", "minres"])
SHARED = pathlib.Path(__file__).parents[2] / "shared" / "data"


def true_error(A, b, x):
    """Return √(r'A⁻¹r) of a residual in extended precision."""
    r = (b - A.astype(np.longdouble) @ x).astype(float)
    return math.sqrt(r @ np.linalg.solve(A, r))


def random_system(i):
    rng = np.random.default_rng(i)
    n, c = int(rng.integers(10, 80)), 10.0 ** rng.uniform(1.0, 6.0)
    A = spectral((c ** rng.uniform(0.0, 1.0, n), np.geomspace(1.0, c, n))[i % 2], i)
    if i % 4 < 2:
        return A, rng.standard_normal(n), None
    scale = 10.0 ** rng.uniform(-1.0, 1.0, n)
    A = scale[:, None] * A * scale
    return A, rng.standard_normal(n), jacobi(np.diag(A))


# the energy norm ----------------------------------------------------------------------


def solved(i, **options):
    """Return the result of the i-th random system, the truth at x, and A, b, M."""
    A, b, M = random_system(i)
    rtol = 10.0 ** -(1 + i % 8)
    result = cg(A, b, M=M, rtol=rtol, maxiter=100 * b.size, **options)
    assert result.converged
    return result, true_error(A, b, result.x), (A, b, M)


def in_band(ratios):
    ratios = np.asarray(ratios)
    return np.mean((ratios >= 0.5) & (ratios <= 1.05))


def test_the_error_of_an_earlier_iterate_is_known_at_no_product():
    # The truth there: the squares differ by the decrease over the steps between.
    ratios, ahead = [], []
    for i in range(200):
        result, true, (A, b, M) = solved(i)
        if math.isnan(result.energy_error_earlier):
            continue
        decreases = []
        for step in cg_steps(aslinearoperator(A), 0.0 * b, b.copy(), M):
            decreases.append(step.decrease)
            if len(decreases) == result.niter:
                break
        errors = np.sqrt(true**2 + np.cumsum(decreases[::-1])[::-1])
        ratios.append(np.min(np.abs(result.energy_error_earlier / errors - 1.0)))
        ahead.append(result.energy_error_earlier / true)
    assert len(ratios) >= 180
    assert np.mean(np.array(ratios) <= 0.11) >= 0.95
    assert np.mean(np.array(ahead) >= 1.0) >= 0.98  # an upper one for x


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
def test_the_estimate_is_above_the_error_of_x_on_shared_systems():
    ratios = []
    for path in sorted((SHARED / "spd_harwell_boeing").glob("*.mtx.gz")):
        A = scipy.sparse.csr_array(scipy.io.mmread(path))
        b = np.random.default_rng(2).standard_normal(A.shape[0])
        for rtol in (1e-2, 1e-6):
            result = cg(A, b, M=jacobi(A.diagonal()), rtol=rtol)
            assert result.converged
            ratios.append(
                result.energy_error_earlier / true_error(A.toarray(), b, result.x)
            )
    assert min(ratios) >= 1.0


def test_the_error_is_not_known_where_there_is_no_energy_norm():
    for A in (np.diag([1.0, -2.0]), np.diag([1.0, 0.0]), np.full((2, 2), np.nan)):
        result = cg(A, np.ones(2), smallest_eigenvalue=1.0)
        assert not result.converged
        assert math.isnan(result.energy_error)
        assert math.isnan(result.energy_error_bound)


def test_nothing_is_claimed_of_a_start_that_needs_no_step():
    A, b, _ = random_system(0)
    result = cg(A, b, np.linalg.solve(A, b), rtol=1e-3)
    assert result.converged
    assert result.niter == 0
    assert math.isnan(result.energy_error)


@pytest.mark.parametrize("slack", [0.999, 0.5, 1e-3])
def test_the_upper_bound_is_one(slack):
    for i in range(40):
        A, b, M = random_system(i)
        m = np.ones(b.size) if M is None else M.diagonal()
        smallest = scipy.linalg.eigh(A, np.diag(1.0 / m), eigvals_only=True)[0]
        for rtol in (0.3, 1e-4, 1e-8):
            result = cg(
                A,
                b,
                M=M,
                rtol=rtol,
                smallest_eigenvalue=slack * smallest,
                maxiter=100 * b.size,
            )
            true = true_error(A, b, result.x)
            assert result.energy_error_bound >= true * (1.0 - 1e-6)
            assert not result.energy_error > result.energy_error_bound
            if slack == 0.5 and M is None and rtol < 0.3:
                assert result.energy_error_bound <= 300.0 * true


def test_the_upper_bound_holds_where_nothing_was_iterated():
    A, b, M = random_system(2)
    x0 = np.linalg.solve(A, b) * (1.0 + 1e-9)
    m = M.diagonal()
    smallest = scipy.linalg.eigh(A, np.diag(1.0 / m), eigvals_only=True)[0]
    for options in ({"rtol": 1e-6}, {"rtol": 1e-14, "maxiter": 0}):
        result = cg(A, b, x0, M=M, smallest_eigenvalue=smallest, **options)
        assert result.niter == 0
        assert result.energy_error_bound >= true_error(A, b, result.x)


def test_a_refuted_lower_bound_on_the_spectrum_gives_nan():
    A = spectral(np.linspace(1.0, 10.0, 50), 0)
    b = np.ones(50)
    assert math.isnan(cg(A, b, smallest_eigenvalue=30.0).energy_error_bound)
    assert math.isnan(cg(-A, b, smallest_eigenvalue=1.0).energy_error_bound)
    assert cg(A, b).energy_error_bound is None


def test_bounds_are_in_the_callers_units_and_per_column():
    A, b = spectral(np.linspace(1.0, 10.0, 40), 0), np.ones(40)
    one = cg(A, b, smallest_eigenvalue=1.0, rtol=1e-6)
    scaled = cg(A, 2.0**600 * b, smallest_eigenvalue=1.0, rtol=1e-6)
    assert scaled.energy_error_bound == 2.0**600 * one.energy_error_bound
    expected = 2.0**600 * one.energy_error
    assert scaled.energy_error == pytest.approx(expected, rel=1e-12)
    many = cg(A, np.stack([b, b], 1), smallest_eigenvalue=1.0, rtol=1e-6)
    assert many.energy_error.shape == many.energy_error_bound.shape == (2,)
    np.testing.assert_allclose(
        many.energy_error_bound, one.energy_error_bound, rtol=0.1
    )


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, "small"])
def test_wrong_bounds_are_named(value):
    with pytest.raises(ValueError, match=rf"smallest_eigenvalue must be.*{value}"):
        cg(np.eye(2), np.ones(2), smallest_eigenvalue=value)


# what is not symmetric ----------------------------------------------------------------


@both
def test_an_operator_that_is_not_symmetric_is_named_after_a_failure(solver):
    rng = np.random.default_rng(0)
    A = rng.standard_normal((30, 30)) + np.eye(30)
    calls = []
    operator = LinearOperator(A.shape, lambda x: calls.append(1) or A @ x)
    result = solver(operator, np.ones(30), maxiter=60)
    assert result.status is Status.NOT_SYMMETRIC
    assert not result.converged
    assert result.n_matvec == len(calls)


@both
def test_a_preconditioner_that_is_not_symmetric_is_named_after_a_failure(solver):
    rng = np.random.default_rng(0)
    A = spectral(np.geomspace(1.0, 1e4, 30), 0)
    M = np.eye(30) + 0.5 * rng.standard_normal((30, 30))
    result = solver(A, np.ones(30), M=M, maxiter=60, rtol=1e-12)
    assert result.status is Status.NOT_SYMMETRIC


@both
def test_what_claims_to_be_symmetric_is_not_tested(solver):
    A, calls = spectral(np.geomspace(1.0, 1e6, 30), 0), []
    for claim, extra in ((True, 0), (False, 1)):
        calls.clear()
        operator = LinearOperator(
            A.shape, lambda x: calls.append(1) or A @ x, symmetric=claim
        )
        result = solver(operator, np.ones(30), maxiter=4, rtol=1e-12)
        assert result.status is Status.ITERATION_LIMIT
        assert result.n_matvec == len(calls) == 5 + extra


def test_minres_calls_a_least_squares_point_by_its_name_on_a_neumann_problem():
    # Where rounding stops the fall of ‖A r‖ just above what it excuses.
    line = scipy.sparse.diags_array(
        [-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(14, 14)
    )
    line = line.tolil()
    line[0, 0] = line[-1, -1] = 1.0
    A = scipy.sparse.csr_array(scipy.sparse.kronsum(line, line))
    for seed in range(10):
        b = np.random.default_rng(seed).standard_normal(196)
        result = minres(A, b, rtol=1e-10)
        assert result.status is Status.LEAST_SQUARES
        assert result.residual_norm == pytest.approx(abs(b.sum()) / 14.0, rel=1e-8)


# many right-hand sides ----------------------------------------------------------------


class Blocks:
    """A dense operator that records the widths of its blocks and its single products."""

    def __init__(self, A, order="C"):
        self.widths, self.singles = [], 0

        def matvec(x):
            self.singles += 1
            return A @ x

        def matmat(X):
            self.widths.append(X.shape[1])
            return np.asarray(A @ X, order=order)

        self.operator = LinearOperator(
            A.shape, matvec, matmat=matmat, positive_definite=True
        )


@both
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kernels", ["reference", "compiled"])
@pytest.mark.parametrize("with_M", [False, True], ids=["plain", "preconditioned"])
def test_columns_together_are_columns_one_by_one(solver, order, kernels, with_M):
    n, k = 60, 9
    # Well conditioned: else rounding, which differs, moves the number of iterations.
    A = spectral(np.geomspace(1.0, 20.0, n), 0)
    B = np.random.default_rng(1).standard_normal((n, k))
    M = np.linalg.inv(A + np.eye(n)) if with_M else None
    M = None if M is None else (M + M.T) / 2.0
    blocks = Blocks(A, order)
    options = {"rtol": 1e-7, "kernels": kernels}
    result = solver(blocks.operator, B, M=M, **options)
    assert result.status is Status.CONVERGED
    assert blocks.widths[0] == k
    assert max(blocks.widths) == k
    for j in range(k):
        one = solver(A, B[:, j], M=M, **options)
        assert abs(result.niter[j] - one.niter) <= 1
        if result.niter[j] == one.niter:
            np.testing.assert_allclose(result.x[:, j], one.x, rtol=0, atol=1e-7)
        residual = np.linalg.norm(B[:, j] - A @ result.x[:, j])
        assert residual <= 1.001e-7 * np.linalg.norm(B[:, j])


@both
def test_a_block_holds_less_than_half_of_finished_columns(solver):
    A = np.diag(np.geomspace(1.0, 1e4, 50))
    B = np.zeros((50, 8))
    B[:, 0] = 1.0  # two others end after one step, the zero columns at once
    B[3, 1] = B[7, 2] = 1.0
    blocks = Blocks(A)
    result = solver(blocks.operator, B)
    assert result.converged.all()
    np.testing.assert_array_equal(result.niter[1:], [1, 1, 0, 0, 0, 0, 0])
    assert blocks.widths == [3, 3]  # a step, and the check of all three
    assert blocks.singles == result.niter[0] - 1


@both
def test_more_columns_than_fit_a_block_take_turns(solver):
    A = spectral(np.geomspace(1.0, 50.0, 40), 0)
    B = np.random.default_rng(0).standard_normal((40, 100))
    blocks, workspace = Blocks(A), Workspace()
    result = solver(blocks.operator, B, workspace=workspace)
    assert result.converged.all()
    assert max(blocks.widths) == 32
    # 32 sets of vectors whatever the number of columns, and those of the last four.
    vectors = 2 if solver is cg else 6
    assert workspace.nbytes <= (32 + 4) * vectors * 40 * 8
    np.testing.assert_allclose(A @ result.x, B, atol=1e-6)


@both
def test_each_column_of_a_block_has_its_own_fate(solver):
    A = np.zeros((12, 12))
    A[:10, :10] = spectral(np.geomspace(1.0, 10.0, 10), 0)
    A[10, 10] = -1.0
    B = np.zeros((12, 8))
    B[:10, [0, 4, 5, 6, 7]] = 1.0
    B[10, 1] = 1.0
    B[0, 2] = np.nan
    B[11, 3] = 1.0
    result = solver(A, B)
    assert result.converged.tolist() == [True, solver is minres, False, False] + 4 * [
        True
    ]
    np.testing.assert_allclose(A @ result.x[:, 0], B[:, 0], atol=1e-6)
    assert result.status is not Status.CONVERGED


@both
def test_a_callback_knows_its_column_and_stops_it_alone(solver):
    A = spectral(np.geomspace(1.0, 1e4, 30), 0)
    B = np.random.default_rng(0).standard_normal((30, 8))
    seen = {}

    def callback(it):
        seen.setdefault(it.column, []).append(it.niter)
        return it.column == 1 and it.niter == 4

    result = solver(A, B, callback=callback)
    assert result.converged.tolist() == [True, False] + 6 * [True]
    assert result.status is Status.STOPPED_BY_CALLBACK
    for j in range(8):
        assert seen[j] == list(range(int(result.niter[j]) + 1))


@both
@pytest.mark.parametrize(("row", "together"), [(3, False), (40, True)])
def test_short_sparse_rows_are_multiplied_column_by_column(solver, row, together):
    n = 60
    half = row // 2
    offsets = range(-half, half + 1)
    A = scipy.sparse.diags_array(
        [np.full(n - abs(o), 4.0 * n if o == 0 else -1.0) for o in offsets],
        offsets=list(offsets),
    ).tocsr()
    workspace = Workspace()
    B = np.random.default_rng(0).standard_normal((n, 8))
    result = solver(A, B, workspace=workspace)
    assert result.converged.all()
    sets = 8 if together else 1
    vectors = (2 if solver is cg else 6) * sets
    assert workspace.nbytes == vectors * n * 8


@both
def test_columns_together_stay_on_their_device(xp_array, solver):
    to, back = xp_array
    A = spectral(np.geomspace(1.0, 1e2, 20), 0)
    B = np.random.default_rng(0).standard_normal((20, 8))
    result = solver(to(A), to(B))
    assert type(result.x) is type(to(B))
    np.testing.assert_allclose(A @ back(result.x), B, atol=1e-6)


def test_least_squares_with_a_preconditioner_are_those_of_its_metric():
    # The 2-norm of the residual may rise on the way, its M-norm may not.
    ended = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        W = scipy.sparse.random_array((80, 80), density=0.05, rng=rng).toarray()
        W += W.T
        scale = 10.0 ** rng.uniform(-1.0, 1.0, 80)
        np.fill_diagonal(W, 0.0)
        A = scale[:, None] * (np.diag(W.sum(axis=0)) - W) * scale
        d = np.where(np.diag(A) > 0.0, np.diag(A), 1.0)
        b = rng.standard_normal(80)
        result = minres(A, b, M=jacobi(d), rtol=1e-10, kernels="reference")
        assert result.status in {Status.LEAST_SQUARES, Status.STAGNATED}
        root = np.sqrt(d)
        inside = A / root[:, None] / root
        y = np.linalg.lstsq(inside, b / root, rcond=1e-12)[0]
        best = np.linalg.norm(b / root - inside @ y)
        found = np.linalg.norm((b - A @ result.x) / root)
        if result.status is Status.LEAST_SQUARES:
            assert found <= (1.0 + 1e-6) * best
        ended.append(result.status)
    assert ended.count(Status.LEAST_SQUARES) >= 18
