"""Several right-hand sides: the columns of a block advance together."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from problems import spectral

import sparse_argdiff as sad
from sparse_argdiff import LinearOperator, Status, cg, minres
from sparse_argdiff.kernels.blocks import BLOCKS, width_for
from sparse_argdiff.kernels.compiled import compiled
from sparse_argdiff.krylov import Workspace
from sparse_argdiff.linear_model import Glm
from sparse_argdiff.preconditioners import jacobi

pytest.importorskip("numba")

both = pytest.mark.parametrize("solver", [cg, minres], ids=["cg", "minres"])


def columns(n, k, dtype=float, seed=1):
    return np.random.default_rng(seed).standard_normal((n, k)).astype(dtype)


class Written:
    """A dense operator that writes vectors and blocks in place, and counts both."""

    def __init__(self, A, *, curvature=True):
        self.blocks, self.singles, self.live = 0, 0, []

        def into(x, out):
            np.matmul(A, x, out=out)
            if x.ndim == 1:
                self.singles += 1
                return float(x @ out) if curvature else None
            assert x.flags.c_contiguous
            assert out.flags.c_contiguous
            self.blocks += 1
            self.live.append(int(np.count_nonzero(np.any(x != 0.0, axis=0))))
            return np.sum(x * out, axis=0) if curvature else None

        def matvec(x):
            self.singles += 1
            return A @ x

        operator = LinearOperator(
            A.shape, matvec, matmat=lambda X: A @ X, positive_definite=True
        )
        self.operator = operator.with_product(into, blocks=True)


def preconditioner(name, A):
    if name == "none":
        return None
    if name == "jacobi":
        return jacobi(A.diagonal())
    M = np.linalg.inv(np.asarray(A) + 0.1 * np.eye(len(A)))
    return (M + M.T) / 2.0


def assert_same(together, alone, j):
    """Assert that column j went the way of the solve alone, to rounding."""
    assert together.converged[j] == alone.converged
    assert abs(together.niter[j] - alone.niter) <= 1
    if together.niter[j] == alone.niter:
        size = np.linalg.norm(alone.x)
        np.testing.assert_allclose(together.x[:, j], alone.x, rtol=0, atol=1e-4 * size)


# the same as one by one ---------------------------------------------------------------


@both
@pytest.mark.parametrize("k", [3, 4, 5, 8, 9, 21])
@pytest.mark.parametrize("M", ["none", "jacobi", "dense"])
@pytest.mark.parametrize("curvature", [True, False])
def test_columns_together_do_what_single_solves_do(solver, k, M, curvature):
    n = 70
    A = spectral(np.geomspace(1.0, 15.0, n))
    written = Written(A, curvature=curvature)
    B, M = columns(n, k), preconditioner(M, A)
    result = solver(written.operator, B, M=M, rtol=1e-7, kernels="compiled")
    assert result.status is Status.CONVERGED
    assert written.blocks > 0
    assert written.blocks + written.singles <= result.n_matvec
    for j in range(k):
        assert_same(result, solver(A, B[:, j], M=M, rtol=1e-7, kernels="compiled"), j)
        gap = np.linalg.norm(B[:, j] - A @ result.x[:, j])
        assert gap <= 1.001e-7 * np.linalg.norm(B[:, j])
        assert gap == pytest.approx(result.residual_norm[j], rel=1e-6)
    np.testing.assert_allclose(result.residual, B - A @ result.x, rtol=0, atol=1e-12)


@both
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("A_dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [3, 11, 17])
def test_sparse_rows_are_read_once_for_all_columns(solver, dtype, A_dtype, k):
    n = 300
    rng = np.random.default_rng(0)
    A = scipy.sparse.random_array((n, n), density=0.1, rng=rng).toarray()
    A = scipy.sparse.csr_array(A @ A.T + n / 10.0 * np.eye(n)).astype(A_dtype)
    B, M = columns(n, k, dtype), jacobi(A.diagonal())
    result = solver(A, B, M=M, rtol=1e-4, kernels="compiled")
    assert result.status is Status.CONVERGED
    assert result.x.dtype == dtype
    for j in range(k):
        assert_same(result, solver(A, B[:, j], M=M, rtol=1e-4, kernels="compiled"), j)


@both
def test_warm_starts_keep_their_columns(solver):
    A, B, X0 = (
        spectral(np.geomspace(1.0, 15.0, 40)),
        columns(40, 6),
        columns(40, 6, seed=2),
    )
    X0[:, 2] = np.linalg.solve(A, B[:, 2])  # an exact start
    result = solver(Written(A).operator, B, X0, kernels="compiled", rtol=1e-9)
    assert result.converged.all()
    assert result.niter[2] == 0
    for j in range(6):
        alone = solver(A, B[:, j], X0[:, j], kernels="compiled", rtol=1e-9)
        assert_same(result, alone, j)


def test_energy_estimates_are_those_of_single_solves():
    A, B = spectral(np.geomspace(1.0, 15.0, 60)), columns(60, 5)
    options = {
        "kernels": "compiled",
        "rtol": 1e-5,
        "smallest_eigenvalue": 0.9,
    }
    result = cg(Written(A).operator, B, **options)
    for j in range(5):
        alone = cg(A, B[:, j], **options)
        r = B[:, j] - A @ result.x[:, j]
        true = np.sqrt(r @ np.linalg.solve(A, r))
        expected = pytest.approx(alone.energy_error, rel=1e-3, nan_ok=True)
        assert result.energy_error[j] == expected
        assert result.energy_error_bound[j] >= true * (1.0 - 1e-9)


def test_the_derivative_times_a_block_goes_by_blocks():
    rng = np.random.default_rng(3)
    F = scipy.sparse.random_array((400, 60), density=0.2, rng=rng).tocsr()
    glm = Glm(F, rng.choice([-1.0, 1.0], 400), kernels="compiled")
    x = np.full(glm.m, -2.0)
    problem = sad.Problem(glm)
    solution = sad.solve(problem, x, tol=1e-10)
    DX = columns(glm.m, 7)
    J = sad.derivative(problem, solution, rtol=1e-10)
    want = np.stack([J @ DX[:, j] for j in range(7)], axis=1)
    np.testing.assert_allclose(J @ DX, want, rtol=0, atol=1e-8)
    hess = glm.hess(x, solution.y)
    X, out = (sad.arrays.empty((glm.n, 8), DX) for _ in range(2))
    X[...] = 0.0
    X[:, :7] = columns(glm.n, 7)
    squares = hess.apply(X, out)
    np.testing.assert_allclose(out, hess.todense() @ X, rtol=0, atol=1e-12)
    np.testing.assert_allclose(squares, np.sum(X * out, axis=0), rtol=1e-12)
    # Rows that straddle cache lines are copied: the product is the same.
    odd = sad.arrays.empty((glm.n * 8 + 1,), DX)[1:].reshape(glm.n, 8)
    odd[...] = X
    want = out.copy()
    assert hess.apply(odd, out) is None
    np.testing.assert_allclose(out, want, rtol=0, atol=1e-12)


# each column its own fate -------------------------------------------------------------


def test_each_column_has_its_own_end():
    A = np.zeros((14, 14))
    A[:10, :10] = spectral(np.geomspace(1.0, 1e5, 10))
    A[10, 10] = -1.0
    A[12, 12] = 2.0
    B = np.zeros((14, 8))
    B[:10, 0] = 1.0  # converges, last of all
    B[10, 1] = 1.0  # negative curvature
    B[0, 2] = np.nan
    B[11, 3] = 1.0  # a zero eigenvalue
    B[12, 4] = 3.0  # one step
    B[:10, 6] = 1e-200  # the squares leave the range
    B[:10, 7] = 1e200
    written = Written(A)
    result = cg(written.operator, B, kernels="compiled", rtol=1e-9)
    fates = [cg(A, B[:, j], kernels="compiled", rtol=1e-9) for j in range(8)]
    for j, alone in enumerate(fates):
        assert result.converged[j] == alone.converged, j
        assert abs(result.niter[j] - alone.niter) <= 1, j
    assert result.converged.tolist() == [True, False, False, False] + [True] * 4
    for j in (0, 4, 6, 7):
        gap = np.linalg.norm((B[:, j] - A @ result.x[:, j]) / np.abs(B[:, j]).max())
        assert gap <= 1e-8
    assert result.status in {alone.status for alone in fates if not alone.converged}
    assert result.direction is not None


def test_a_column_that_is_not_finite_is_not_shown_to_the_preconditioner():
    A = spectral(np.geomspace(1.0, 1e4, 30))
    A[0] = A[:, 0] = 0.0
    A[0, 0] = 1.0
    B = columns(30, 7)
    B[:, 1] = 0.0
    B[0, 1] = np.inf

    def matmat(X):
        assert np.isfinite(X).all()
        return X / np.diag(A)[:, None]

    def matvec(x):
        return x / np.diag(A)

    M = LinearOperator((30, 30), matvec, matmat=matmat, positive_definite=True)
    result = cg(Written(A).operator, B, M=M, kernels="compiled", maxiter=200)
    assert np.delete(result.converged, 1).all()
    assert not result.converged[1]


@both
def test_a_callback_sees_the_column_and_stops_it_alone(solver):
    A, B = spectral(np.geomspace(1.0, 1e4, 30)), columns(30, 5)
    seen = {}

    def callback(it):
        gap = np.linalg.norm(B[:, it.column] - A @ it.x)
        assert gap == pytest.approx(it.residual_norm, rel=1e-6)
        seen.setdefault(it.column, []).append(it.niter)
        return it.column == 1 and it.niter == 4

    result = solver(
        Written(A).operator, B, callback=callback, kernels="compiled", rtol=1e-5
    )
    assert result.converged.tolist() == [True, False, True, True, True]
    assert result.niter[1] == 4
    gap = np.linalg.norm(B[:, 1] - A @ result.x[:, 1])
    assert gap == pytest.approx(result.residual_norm[1])
    for j in range(5):
        assert seen[j] == list(range(int(result.niter[j]) + 1))


@both
def test_an_error_in_a_product_reaches_the_caller_and_frees_the_blocks(solver):
    A, B, workspace = spectral(np.geomspace(1.0, 1e4, 30)), columns(30, 8), Workspace()
    written = Written(A)
    into, left = written.operator.into, [5]

    def failing(x, out):
        left[0] -= 1
        if left[0] == 0:
            raise RuntimeError("no more products")
        return into(x, out)

    bad = written.operator.with_product(failing, blocks=True)
    with pytest.raises(RuntimeError, match="no more products"):
        solver(bad, B, kernels="compiled", workspace=workspace)
    before = workspace.nbytes
    assert solver(
        written.operator, B, kernels="compiled", workspace=workspace
    ).converged.all()
    assert workspace.nbytes == before


@both
@pytest.mark.parametrize("maxiter", [0, 1, 3])
def test_the_limit_holds_for_each_column(solver, maxiter):
    A, B = spectral(np.geomspace(1.0, 1e4, 30)), columns(30, 5)
    result = solver(Written(A).operator, B, kernels="compiled", maxiter=maxiter)
    assert result.status is Status.ITERATION_LIMIT
    assert result.niter.tolist() == [maxiter] * 5
    for j in range(5):
        alone = solver(A, B[:, j], kernels="compiled", maxiter=maxiter)
        np.testing.assert_allclose(result.x[:, j], alone.x, rtol=1e-10)


@both
def test_drifting_columns_restart(solver):
    A, B = spectral(np.geomspace(1.0, 1e9, 50)), columns(50, 6)
    result = solver(Written(A).operator, B, kernels="compiled", rtol=1e-8, maxiter=5000)
    gaps = np.linalg.norm(B - A @ result.x, axis=0)
    for j, gap in enumerate(gaps):
        rounding = 1e-15 * 1e9 * np.linalg.norm(result.x[:, j])
        assert gap == pytest.approx(result.residual_norm[j], rel=1e-4, abs=rounding)
        assert not result.converged[j] or gap <= 1.01e-8 * np.linalg.norm(B[:, j])


# counts -------------------------------------------------------------------------------


def test_a_block_narrows_when_half_of_it_has_ended():
    A = np.diag(np.geomspace(1.0, 1e4, 50))
    B = np.zeros((50, 8))
    B[:, 0] = 1.0  # the others end after one step
    B[np.arange(1, 8) * 5, np.arange(1, 8)] = 1.0
    written = Written(A)
    result = cg(written.operator, B, kernels="compiled", rtol=1e-6)
    assert result.converged.all()
    assert written.live == [8, 8]  # the first step, and the check of all
    assert written.singles == result.niter[0] - 1  # the last one goes on as a vector


@both
@pytest.mark.parametrize("kernels", ["reference", "compiled"])
def test_columns_that_end_apart_end_as_alone(solver, kernels):
    n, k = 120, 12
    A = np.diag(np.geomspace(1.0, 10.0, n))
    B = np.zeros((n, k))
    for j in range(k):  # as many steps as entries
        B[:: n // (4 * j + 1), j] = 1.0 + j
    written = Written(A)
    result = solver(written.operator, B, kernels=kernels, rtol=1e-8)
    assert result.converged.all()
    for j in range(k):
        assert_same(result, solver(A, B[:, j], kernels=kernels, rtol=1e-8), j)
        np.testing.assert_allclose(A @ result.x[:, j], B[:, j], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("dtype", "lanes"), [(np.float64, 8), (np.float32, 16)])
def test_storage_is_a_block_for_each_vector_and_nothing_twice(dtype, lanes):
    n = 100
    A = scipy.sparse.csr_array(spectral(np.geomspace(1.0, 30.0, n))).astype(dtype)
    B, workspace = columns(n, 40, dtype), Workspace()
    options = {"M": jacobi(A.diagonal()), "rtol": 1e-4, "kernels": "compiled"}
    cg(A, B, workspace=workspace, **options)
    first = workspace.nbytes
    # p and A p of a block; M r is nowhere, x and r are the result.
    assert first == 2 * lanes * n * np.dtype(dtype).itemsize
    cg(A, B, workspace=workspace, **options)
    assert workspace.nbytes == first


@pytest.mark.parametrize(("k", "blocks"), [(1, False), (2, False), (3, True)])
def test_two_columns_are_cheaper_one_by_one(k, blocks):
    A = spectral(np.geomspace(1.0, 30.0, 20))
    written = Written(A)
    assert cg(written.operator, columns(20, k), kernels="compiled").converged.all()
    assert (written.blocks > 0) is blocks


def test_few_columns_go_one_by_one_with_reference_passes():
    A = spectral(np.geomspace(1.0, 30.0, 20))
    written = Written(A)
    result = cg(written.operator, columns(20, 5), kernels="reference")
    assert result.converged.all()
    assert written.blocks == 0


# the passes ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("n", [1, 31, 64, 1000])
@pytest.mark.parametrize("scaled", [False, True])
def test_passes_on_blocks_are_passes_on_columns(dtype, lanes, n, scaled):
    one, rng = compiled(threaded=False), np.random.default_rng(n)
    X, R, P, Q = (rng.standard_normal((n, lanes)).astype(dtype) for _ in range(4))
    mine = [[V[:, c].copy() for V in (X, R, P, Q)] for c in range(lanes)]
    alpha, beta = 0.1 * np.arange(lanes), -0.3 + 0.05 * np.arange(lanes)
    d = rng.random(n).astype(dtype) if scaled else None
    close = {"rtol": 1e-5 if dtype == np.float32 else 1e-12, "atol": 1e-5}
    dots = BLOCKS.dot(R, Q)
    squares, scaled_squares = BLOCKS.cg_residual(R, Q, alpha, d)
    BLOCKS.cg_advance(X, P, R, alpha, beta, d)
    for c in range(lanes):
        x, r, p, q = mine[c]
        np.testing.assert_allclose(dots[c], one.dot(r, q), **close)
        found = one.cg_residual(r, q, alpha[c], d)
        assert squares[c] == pytest.approx(found[0], rel=1e-5)
        assert scaled_squares[c] == pytest.approx(found[1], rel=1e-5)
        if alpha[c]:  # else the column has ended and stands still
            one.cg_advance(x, p, r, alpha[c], beta[c], d)
        for V, v in zip((X, R, P), (x, r, p), strict=True):
            np.testing.assert_allclose(V[:, c], v, **close)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("lanes", [4, 16])
def test_products_with_blocks_are_products_with_columns(dtype, lanes):
    n = 123
    rng = np.random.default_rng(0)
    A = scipy.sparse.random_array((n, n), density=0.05, rng=rng).tocsr().astype(dtype)
    A.data[5] = np.nan
    nan_row = int(np.searchsorted(A.indptr, 5, side="right")) - 1
    X = rng.standard_normal((n, lanes)).astype(dtype)
    make, out = compiled(threaded=False), np.empty((n, lanes), dtype)
    squares = make.operator(sad.aslinearoperator(A)).apply(X, out)
    want = A @ X
    np.testing.assert_allclose(out, want, rtol=1e-4, atol=1e-5)
    assert np.isnan(out[nan_row]).all()
    assert np.isnan(squares).all()
    d = rng.random(n - 2).astype(np.float64)
    squares = BLOCKS.scale(d, X, out)
    want = np.concatenate([d[:, None] * X[:-2], np.zeros((2, lanes))])
    np.testing.assert_allclose(out, want, rtol=1e-6)
    np.testing.assert_allclose(squares, np.sum(want * X, axis=0), rtol=1e-4, atol=1e-6)


def test_a_row_of_a_block_is_half_a_cache_line_or_one():
    f32, f64 = np.zeros(1, np.float32), np.zeros(1)
    assert [width_for(k, f64, in_place=True) for k in (3, 4, 5, 8, 100)] == [
        4,
        4,
        8,
        8,
        8,
    ]
    assert [width_for(k, f32, in_place=True) for k in (3, 8, 9, 16, 100)] == [
        8,
        8,
        16,
        16,
        16,
    ]
    large = np.zeros(20_000)  # rows of a line each exceed the cache
    widths = [width_for(k, large, in_place=True, own=True) for k in (3, 5, 8)]
    assert widths == [4, 4, 4]
    block = sad.arrays.empty((10, 8), f64)
    assert block.ctypes.data % 64 == 0
    assert block.shape == (10, 8)


def indefinite(n, seed=0):
    half = np.geomspace(1.0, 4.0, n // 2)
    return spectral(np.concatenate([-half, half]), seed)


@pytest.mark.parametrize("M", ["none", "dense"])
@pytest.mark.parametrize("k", [3, 8, 20])
def test_indefinite_columns_advance_together(k, M):
    n = 50
    A, B = indefinite(n), columns(n, k)
    M = None if M == "none" else np.linalg.inv(spectral(np.geomspace(1.0, 3.0, n), 4))
    M = None if M is None else (M + M.T) / 2.0
    written = Written(A)
    result = minres(written.operator, B, M=M, rtol=1e-5, kernels="compiled")
    assert result.status is Status.CONVERGED
    assert written.blocks > 0
    for j in range(k):
        gap = np.linalg.norm(B[:, j] - A @ result.x[:, j])
        assert gap <= 1.001e-5 * np.linalg.norm(B[:, j])
        alone = minres(A, B[:, j], M=M, rtol=1e-5, kernels="compiled")
        assert abs(result.niter[j] - alone.niter) <= 2


def test_least_squares_columns_end_by_themselves():
    A = indefinite(40)
    A[0] = A[:, 0] = 0.0
    B = columns(40, 6)
    B[0, [0, 2, 3, 5]] = 0.0  # consistent
    result = minres(Written(A).operator, B, kernels="compiled", rtol=1e-8)
    assert result.converged.tolist() == [True, False, True, True, False, True]
    assert result.status is Status.LEAST_SQUARES
    for j in (1, 4):
        assert result.residual_norm[j] == pytest.approx(abs(B[0, j]), rel=1e-6)


def test_a_list_is_a_right_hand_side_beside_a_diagonal_preconditioner():
    A = np.diag([1.0, 2.0, 4.0])
    found = cg(A, [1.0, 2.0, 4.0], M=jacobi(np.diag(A)), kernels="compiled")
    np.testing.assert_allclose(found.x, np.ones(3), rtol=1e-7)


def test_a_column_that_is_left_over_is_a_vector():
    """Not a block that is filled up with zeros, whose product costs like four."""
    rng = np.random.default_rng(4)
    A, seen = np.diag(np.arange(1.0, 31.0)), []

    def block(V):
        seen.append(V.shape[1])
        return A @ V

    def vector(v):
        seen.append(1)
        return A @ v

    operator = LinearOperator((30, 30), vector, matmat=block, symmetric=True)
    B = rng.standard_normal((30, 33))
    found = cg(operator, B)  # 32 columns and one
    np.testing.assert_allclose(found.x, np.linalg.solve(A, B), atol=1e-6)
    assert found.converged.all()
    assert set(seen) >= {1, 32}
    assert seen[-1] == 1
