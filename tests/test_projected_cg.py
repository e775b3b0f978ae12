"""Projected CG: against dense algebra, and where the textbook's loop goes wrong."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_argdiff import (
    LinearOperator,
    Status,
    aslinearoperator,
    minres,
    projected_cg,
)
from sparse_argdiff.krylov.null_space import null_space
from sparse_argdiff.preconditioners import constraint, jacobi


def random_problem(n, p, seed, *, spread=1.0):
    """Return H, C, b, c and the answer (y, ν) by dense algebra."""
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((n, n))
    D = np.diag(10.0 ** rng.uniform(-spread, spread, n))
    H = D @ (root @ root.T / n + 0.5 * np.eye(n)) @ D
    C = rng.standard_normal((p, n))
    b, c = rng.standard_normal(n), rng.standard_normal(p)
    return H, C, b, c, dense_answer(H, C, b, c)


def dense_answer(H, C, b, c):
    F = scipy.linalg.null_space(C) if C.shape[0] else np.eye(H.shape[0])
    y = np.linalg.lstsq(C, c)[0] if C.shape[0] else np.zeros(H.shape[0])
    y = y + F @ np.linalg.solve(F.T @ H @ F, F.T @ (b - H @ y))
    return y, np.linalg.lstsq(C.T, b - H @ y)[0] if C.shape[0] else np.zeros(0)


def check(result, H, C, b, c, rtol=1e-8):
    """Verify by hand what the docstring promises."""
    assert result.converged
    assert result.status is Status.CONVERGED
    residual = b - H @ result.x - C.T @ result.multipliers
    np.testing.assert_allclose(result.residual, residual, rtol=0, atol=1e-12)
    least = np.linalg.pinv(C) @ c
    scale = np.linalg.norm(null_space(C).reduce(b - H @ least))
    assert result.residual_norm == pytest.approx(np.linalg.norm(result.residual))
    assert result.residual_norm <= rtol * scale * 1.01
    assert np.linalg.norm(C @ result.x - c) <= 1e-11 * (1 + np.linalg.norm(c))


@pytest.mark.parametrize("M", [None, "jacobi", "constraint"])
@pytest.mark.parametrize("given_c", [False, True])
def test_agrees_with_dense_algebra(M, given_c):
    H, C, b, c, (y, nu) = random_problem(40, 9, 1)
    if not given_c:
        c = 0.0 * c
        y, nu = dense_answer(H, C, b, c)
    M = {
        None: None,
        "jacobi": jacobi(np.diag(H)),
        "constraint": constraint(np.diag(H), C),
    }[M]
    result = projected_cg(H, C, b, c if given_c else None, rtol=1e-11, M=M)
    np.testing.assert_allclose(result.x, y, rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.multipliers, nu, rtol=0, atol=1e-7)
    assert result.n_matvec == result.niter + 1 + given_c
    assert result.energy_error is None
    if M is None:
        check(result, H, C, b, c, 1e-11)


@given(st.integers(1, 200), st.floats(0.0, 1.0), st.integers(0, 2**31), st.booleans())
@settings(max_examples=40, deadline=None)
def test_random_problems(n, share, seed, metric):
    p = round(share * n)
    H, C, b, c, (y, _) = random_problem(n, p, seed, spread=0.5)
    M = constraint(np.diag(H), C) if metric else None
    result = projected_cg(H, C, b, c, rtol=1e-12, M=M)
    assert result.status.acceptable
    # A square C may be badly conditioned: dense algebra is then no better than this.
    loss = 1e-9 * max(1.0, 1e-6 * np.linalg.cond(C)) if p else 1e-9
    np.testing.assert_allclose(
        result.x, y, rtol=0, atol=loss * max(np.linalg.norm(y), 1.0)
    )


@pytest.mark.parametrize("seed", range(5))
def test_H_indefinite_outside_the_null_space(seed):
    rng = np.random.default_rng(seed)
    n, p = 30, 7
    C = rng.standard_normal((p, n))
    F = scipy.linalg.null_space(C)
    H = F @ np.diag(rng.uniform(1, 20, n - p)) @ F.T - 50.0 * (np.eye(n) - F @ F.T)
    coupling = rng.standard_normal((n, n))
    H = H + 0.1 * (coupling + coupling.T)
    assert np.linalg.eigvalsh(H)[p - 1] < 0 < np.linalg.eigvalsh(F.T @ H @ F)[0]
    b, c = rng.standard_normal(n), rng.standard_normal(p)
    result = projected_cg(H, C, b, c, rtol=1e-11)
    check(result, H, C, b, c, 1e-11)
    np.testing.assert_allclose(result.x, dense_answer(H, C, b, c)[0], atol=1e-9)


def test_negative_curvature_on_the_null_space_comes_with_its_direction():
    rng = np.random.default_rng(0)
    C = rng.standard_normal((3, 12))
    H = np.diag(np.r_[np.ones(11), -40.0])
    result = projected_cg(H, C, rng.standard_normal(12), np.ones(3))
    assert result.status is Status.NEGATIVE_CURVATURE
    assert not result.converged
    p = result.direction
    assert p @ H @ p < 0
    assert np.linalg.norm(C @ p) <= 1e-12 * np.linalg.norm(p)
    assert np.linalg.norm(C @ result.x - 1.0) <= 1e-12


def test_zero_curvature_on_the_null_space():
    C = np.array([[1.0, 1.0, 0.0, 0.0]])
    H = np.diag([1.0, 1.0, 1.0, 0.0])
    result = projected_cg(H, C, np.array([0.0, 1.0, 1.0, 1.0]))
    assert result.status is Status.SINGULAR
    assert abs(result.direction[3]) > 0


def test_zero_curvature_of_an_indefinite_H():
    C = np.array([[1.0, 1.0, 0.0, 0.0]])
    H = np.diag([1.0, 1.0, 1.0, -1.0])
    result = projected_cg(H, C, np.array([0.0, 0.0, 1.0, 1.0]))
    assert result.status is Status.NEGATIVE_CURVATURE
    # With b in the null space of the projected H, though H p is not zero: singular.
    H[:2, :2] = [[1.0, 2.0], [2.0, 3.0]]
    b = np.array([1.0, -1.0, 0.0, 0.0])
    assert np.any(H @ b != 0.0)
    assert projected_cg(H, C, b).status is Status.SINGULAR


def test_a_singular_H_that_is_definite_on_the_null_space():
    C = np.array([[0.0, 0.0, 0.0, 1.0]])
    H = np.diag([1.0, 2.0, 3.0, 0.0])
    result = projected_cg(H, C, np.ones(4), np.array([5.0]))
    np.testing.assert_allclose(result.x, [1.0, 0.5, 1 / 3, 5.0], atol=1e-10)
    np.testing.assert_allclose(result.multipliers, [1.0], atol=1e-10)


# what the textbook forgets ------------------------------------------------------------


def hard_problem():
    """Return rows of sizes from 1e-3 to 1e3, and forces of 1e7 on them; n = 600."""
    rng = np.random.default_rng(7)
    n, p = 600, 120
    C = sp.csr_array(sp.random(p, n, 0.02, random_state=rng))
    C = C + sp.csr_array((np.ones(p), (np.arange(p), np.arange(p))), (p, n))
    C = sp.csr_array(sp.diags_array(10.0 ** rng.uniform(-3, 3, p)) @ C)
    d = 10.0 ** rng.uniform(-2, 2, n)
    off = -0.4 * np.sqrt(d[1:] * d[:-1])
    H = sp.diags_array([off, d, off], offsets=[-1, 0, 1]).tocsr()
    sizes = np.sqrt(C.power(2).sum(axis=1))
    b = rng.standard_normal(n) + C.T @ (1e7 * rng.standard_normal(p) / sizes)
    return H, C, b, sizes


def textbook(H, C, b, niter, *, update, refine):
    """Run Gould, Hribar and Nocedal's algorithm 6.2 with or without its two remedies."""
    factors = scipy.sparse.linalg.splu(sp.csc_array(C @ C.T))

    def project(r):
        z = r
        for _ in range(3 if refine else 1):
            z = z - C.T @ factors.solve(C @ z)
        return z

    y, r = np.zeros_like(b), -b
    z = project(r)
    r = z if update else r
    p, rho = -z, r @ z
    for _ in range(niter):
        q = H @ p
        alpha = rho / (p @ q)
        y, r = y + alpha * p, r + alpha * q
        z = project(r)
        r = z if update else r
        rho, beta = r @ z, (r @ z) / rho
        p = beta * p - z
    return y


def test_residual_update_and_refinement_are_both_needed():
    """The trap: the plain loop leaves the constraints, and finds another point."""
    H, C, b, sizes = hard_problem()
    result = projected_cg(H, C, b, rtol=1e-7)
    metric = projected_cg(H, C, b, rtol=1e-7, M=constraint(H.diagonal(), C))
    rows = sp.diags_array(1.0 / sizes) @ C
    K = sp.block_array([[H, rows.T], [rows, None]], format="csc")
    y = scipy.sparse.linalg.splu(K).solve(np.r_[b, np.zeros(C.shape[0])])[: b.size]

    def errors(x):
        feasibility = np.linalg.norm(rows @ x) / np.linalg.norm(x)
        return np.linalg.norm(x - y) / np.linalg.norm(y), feasibility

    for ours in (result, metric):
        assert ours.converged
        error, feasibility = errors(ours.x)
        assert error <= 1e-6
        assert feasibility <= 1e-14
    assert metric.niter <= 40
    assert result.niter >= 500

    def without(**remedies):
        return errors(textbook(H, C, b, result.niter, **remedies))

    error, feasibility = errors(result.x)
    assert without(update=False, refine=False)[0] > 0.1
    assert without(update=False, refine=True)[0] > 2.0 * error
    assert without(update=True, refine=False)[1] > 1e6 * feasibility


def test_dependent_rows_and_the_diagonal_as_metric():
    """n = 3000, 600 rows and 60 that depend on them: a direct solve finds K singular."""
    rng = np.random.default_rng(0)
    n, p = 3000, 600
    columns = np.c_[rng.permutation(n)[:p], rng.integers(0, n, (p, 3))].ravel()
    C = sp.csr_array(
        (rng.standard_normal(4 * p), (np.repeat(np.arange(p), 4), columns)), (p, n)
    )
    both = sp.csr_array(sp.vstack([C, C[:60] + C[60:120]]))
    d = 10.0 ** rng.uniform(-2, 2, n)
    off = -0.3 * np.sqrt(d[1:] * d[:-1])
    H = sp.diags_array([off, d, off], offsets=[-1, 0, 1]).tocsr()
    b, c = rng.standard_normal(n), both @ rng.standard_normal(n)
    K = sp.block_array([[H, C.T], [C, None]], format="csc")
    y = scipy.sparse.linalg.splu(K).solve(np.r_[b, c[:p]])[:n]
    M = constraint(d, both)
    result = projected_cg(H, both, b, c, rtol=1e-11, M=M)
    assert result.converged
    assert result.niter <= 35
    assert np.linalg.norm(result.x - y) <= 1e-10 * np.linalg.norm(y)
    KK = sp.block_array([[H, both.T], [both, None]], format="csr")
    by_minres = minres(KK, np.r_[b, c], rtol=1e-9, M=M)
    assert by_minres.converged
    assert by_minres.niter <= 80
    assert np.linalg.norm(by_minres.x[:n] - y) <= 1e-7 * np.linalg.norm(y)


# the rest of the contract -------------------------------------------------------------


def test_rows_that_contradict_each_other():
    H, C, b, c, _ = random_problem(20, 4, 3)
    C, c = np.vstack([C, C[0] + C[1]]), np.r_[c, c[0] + c[1]]
    assert projected_cg(H, C, b, c).converged
    result = projected_cg(H, C, b, c + np.array([0, 0, 0, 0, 1e-3]))
    assert result.status is Status.INCONSISTENT
    assert not result.converged
    assert np.linalg.norm(C @ result.x - c) > 1e-4


def second_differences(p):
    ones = np.ones(p)
    return sp.diags_array([-ones, 2 * ones, -ones], offsets=[0, 1, 2], shape=(p, p + 2))


STARTS = pytest.mark.parametrize("given", [False, True], ids=["cold", "warm"])


@STARTS
def test_rows_close_to_dependent(given):
    """The trap: 10,000 second differences, of which one is 1e-5 from the others."""
    C = sp.csr_array(second_differences(10_000))
    n = C.shape[1]
    H, b = sp.eye_array(n), np.random.default_rng(0).standard_normal(n)
    result = projected_cg(H, C, b, x0=b if given else None, rtol=1e-10)
    assert result.status.acceptable  # the multipliers are 4e6, and rounding with them
    assert np.linalg.norm(C @ result.x) <= 1e-12 * np.linalg.norm(b)
    lines = np.stack([np.ones(n), np.linspace(-1.0, 1.0, n)], axis=1)
    fit = lines @ np.linalg.lstsq(lines, b)[0]
    np.testing.assert_allclose(result.x, fit, rtol=0, atol=1e-6)


@STARTS
def test_a_projection_that_is_not_exact_enough_is_no_contradiction(given):
    C = null_space(sp.csr_array(second_differences(10_000)), kind="augmented")
    n = C.shape[1]
    H, b = sp.eye_array(n), np.random.default_rng(0).standard_normal(n)
    result = projected_cg(H, C, b, x0=b if given else None, rtol=1e-10)
    assert result.status is Status.STAGNATED
    assert not result.converged
    assert np.linalg.norm(C.C @ result.x) > 1e-8 * np.linalg.norm(result.x)


def test_large_multipliers_do_not_loosen_the_tolerance():
    H, C, b, c, (y, nu) = random_problem(40, 9, 4)
    far = b + C.T @ (1e5 * np.ones(9))
    result = projected_cg(H, C, far, c, rtol=1e-9)
    assert result.converged
    np.testing.assert_allclose(result.x, y, rtol=0, atol=1e-7)
    np.testing.assert_allclose(result.multipliers, nu + 1e5, rtol=1e-9)


def test_a_right_hand_side_that_the_multipliers_balance():
    H, C, _, _, _ = random_problem(40, 9, 4)
    result = projected_cg(H, C, C.T @ np.arange(9.0))
    assert result.converged
    assert (result.niter, result.n_matvec) == (0, 0)
    np.testing.assert_array_equal(result.x, np.zeros(40))
    np.testing.assert_allclose(result.multipliers, np.arange(9.0), atol=1e-13)


def test_lists_and_sparse_matrices_of_any_kind():
    for C in (sp.csr_matrix([[1.0, 1, 1]]), sp.coo_array([[1.0, 1, 1]])):
        result = projected_cg(sp.csr_matrix(np.eye(3)), C, [1.0, 2.0, 3.0], [3.0])
        np.testing.assert_allclose(result.x, [0.0, 1.0, 2.0], atol=1e-14)
        np.testing.assert_allclose(result.multipliers, [1.0], atol=1e-14)


def test_zero_right_hand_sides():
    H, C, _, _, _ = random_problem(8, 3, 4)
    result = projected_cg(H, C, np.zeros(8), np.zeros(3))
    assert result.converged
    assert not result.x.any()
    assert result.residual_norm == 0.0


@pytest.mark.parametrize("n", [1, 5])
def test_a_square_C_leaves_nothing_to_minimise(n):
    H, C, b, c, _ = random_problem(n, n, 6)
    result = projected_cg(H, C, b, c)
    assert result.converged
    assert result.niter == 0
    np.testing.assert_allclose(result.x, np.linalg.solve(C, c), rtol=1e-10)
    np.testing.assert_allclose(
        result.multipliers, np.linalg.solve(C.T, b - H @ result.x), rtol=1e-8
    )


def test_no_rows_is_cg():
    H, C, b, _, _ = random_problem(15, 0, 7)
    result = projected_cg(H, C, b, rtol=1e-12)
    assert result.multipliers.shape == (0,)
    np.testing.assert_allclose(result.x, np.linalg.solve(H, b), rtol=1e-8)


@pytest.mark.parametrize("how", ["exact", "near", "infeasible", "absurd"])
def test_warm_start(how):
    H, C, b, c, (y, _) = random_problem(60, 12, 8)
    rng = np.random.default_rng(0)
    x0 = {
        "exact": y,
        "near": y + 1e-6 * rng.standard_normal(60),
        "infeasible": y + C.T @ np.ones(12),
        "absurd": 1e12 * rng.standard_normal(60),
    }[how]
    kept = x0.copy()
    x0.flags.writeable = False
    cold = projected_cg(H, C, b, c)
    warm = projected_cg(H, C, b, c, x0)
    np.testing.assert_array_equal(x0, kept)
    check(warm, H, C, b, c)
    np.testing.assert_allclose(warm.x, y, atol=1e-6)
    assert warm.niter <= cold.niter
    if how == "exact":
        assert warm.niter == 0
    if how == "near":
        assert warm.niter < cold.niter
    # c = 0: a feasible start costs one product more
    again = projected_cg(H, C, b, None, cold.x)
    assert again.n_matvec == again.niter + 2


def test_several_right_hand_sides():
    H, C, _, _, _ = random_problem(30, 6, 9)
    rng = np.random.default_rng(1)
    b, c = rng.standard_normal((30, 4)), rng.standard_normal((6, 4))
    b[:, 2] *= 1e-9
    c[:, 2] = 0.0
    b[:, 3] = 0.0
    c[:, 3] = 0.0
    space = null_space(C)
    block = projected_cg(H, space, b, c)
    assert block.converged.all()
    assert block.converged.shape == (4,)
    single = [projected_cg(H, space, b[:, j], c[:, j]) for j in range(4)]
    for j, one in enumerate(single):
        np.testing.assert_array_equal(block.x[:, j], one.x)
        np.testing.assert_array_equal(block.multipliers[:, j], one.multipliers)
        assert block.niter[j] == one.niter
    assert block.n_matvec == sum(one.n_matvec for one in single)
    none = projected_cg(H, C, b[:, :0], c[:, :0])
    assert none.x.shape == (30, 0)
    assert none.multipliers.shape == (6, 0)
    assert none.converged.shape == (0,)
    c[0, 1] = np.nan
    spoilt = projected_cg(H, space, b, c)
    assert spoilt.status is Status.NOT_FINITE
    assert list(spoilt.converged) == [True, False, True, True]


def test_float32():
    H, C, b, c, (y, _) = (
        np.asarray(part, dtype=np.float32) if not isinstance(part, tuple) else part
        for part in random_problem(40, 9, 10)
    )
    for rows in (C, sp.csr_array(C)):
        result = projected_cg(H, rows, b, c, rtol=1e-4)
        assert result.converged
        types = {part.dtype for part in (result.x, result.multipliers, result.residual)}
        assert types == {np.dtype(np.float32)}
        np.testing.assert_allclose(result.x, y, rtol=0, atol=2e-2)
    tight = projected_cg(H, C, b, c, rtol=1e-12)
    assert tight.status is Status.ROUNDING_LIMIT
    assert tight.residual_norm <= 1e-3


def test_strict_arrays(strict_array):
    to, back = strict_array
    H, C, b, c, (y, _) = random_problem(20, 4, 11)
    result = projected_cg(to(H), to(C), to(b), to(c), to(y + 0.1), rtol=1e-10)
    assert result.converged
    np.testing.assert_allclose(back(result.x), y, atol=1e-8)
    b2, c2 = np.stack([b, b], 1), np.stack([c, c], 1)
    block = projected_cg(
        to(H), to(C), to(b2), to(c2), M=constraint(to(np.diag(H)), to(C))
    )
    assert bool(block.converged[1])
    with pytest.raises(TypeError, match="mixed"):
        projected_cg(to(H), to(C), b)


@pytest.mark.parametrize(
    "units", [(1e-100, 1.0), (1e100, 1.0), (1.0, 1e-100), (1, 1e90)]
)
def test_units_of_H_and_of_C(units):
    H, C, b, c, (y, nu) = random_problem(20, 4, 12)
    of_f, of_c = units
    for M in (None, constraint(of_f * np.diag(H), of_c * C)):
        result = projected_cg(of_f * H, of_c * C, of_f * b, of_c * c, rtol=1e-10, M=M)
        assert result.converged
        np.testing.assert_allclose(result.x, y, atol=1e-8)
        np.testing.assert_allclose(result.multipliers * of_c / of_f, nu, atol=1e-6)


@pytest.mark.parametrize("kind", ["disjoint", "banded"])
def test_memory_is_proportional_to_n_and_the_entries(kind):
    """A dense p x p array would be 128 MB, a basis of the null space 5 GB."""
    n, p = 40_000, 4_000
    reach = 10 if kind == "disjoint" else 15
    rows = np.repeat(np.arange(p), reach)
    columns = np.minimum(rows * 10 + np.tile(np.arange(reach), p), n - 1)
    C = sp.csr_array((np.ones(rows.size), (rows, columns)), (p, n))
    off = -np.ones(n - 1)
    H = sp.diags_array([off, 2.0 + np.arange(n) % 7, off], offsets=[-1, 0, 1]).tocsr()
    rng = np.random.default_rng(0)
    b, c = rng.standard_normal(n), rng.standard_normal(p)
    projected_cg(H, C, b, maxiter=1)  # numba, where it is, is loaded once for all
    tracemalloc.start()
    space = null_space(C, H.diagonal())
    result = projected_cg(H, space, b, c)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert space.kind == {"disjoint": "disjoint", "banded": "normal"}[kind]
    assert result.converged
    entries = n + C.nnz + H.nnz
    assert peak <= 5 * 8 * entries
    K = sp.block_array([[H, C.T], [C, None]], format="csc")
    y = scipy.sparse.linalg.splu(K).solve(np.r_[b, c])[:n]
    assert np.linalg.norm(result.x - y) <= 1e-6 * np.linalg.norm(y)


def test_the_callback_is_told_the_column():
    H, C, b, _, _ = random_problem(30, 4, 5)
    seen = []
    projected_cg(H, C, np.c_[b, b[::-1], b**2], callback=seen.append)
    assert [it.column for it in seen if it.niter == 0] == [0, 1, 2]
    assert [it.column for it in seen] == sorted(it.column for it in seen)


def test_iteration_limit_and_callback():
    H, C, b, c, _ = random_problem(60, 12, 13)
    limited = projected_cg(H, C, b, c, maxiter=3)
    assert limited.status is Status.ITERATION_LIMIT
    assert limited.niter == 3
    assert np.linalg.norm(C @ limited.x - c) <= 1e-12
    none = projected_cg(H, C, b, c, maxiter=0)
    assert none.status is Status.ITERATION_LIMIT
    seen = []

    def stop_at_five(iterate):
        seen.append((iterate.niter, iterate.residual_norm, iterate.x.shape))
        return iterate.niter == 5

    stopped = projected_cg(H, C, b, c, callback=stop_at_five)
    assert stopped.status is Status.STOPPED_BY_CALLBACK
    assert [niter for niter, _, _ in seen] == list(range(6))
    assert stopped.residual_norm == pytest.approx(seen[-1][1], rel=1e-6)

    def by_exception(_):
        raise StopIteration

    at_once = projected_cg(H, C, b, c, callback=by_exception)
    assert at_once.status is Status.STOPPED_BY_CALLBACK
    assert at_once.niter == 0


def test_a_product_that_is_not_finite():
    _, C, b, c, _ = random_problem(20, 4, 14)
    H = LinearOperator((20, 20), lambda v: np.nan * v, symmetric=True)
    assert projected_cg(H, C, b, c).status is Status.NOT_FINITE
    assert projected_cg(H, C, b).status is Status.NOT_FINITE
    b[3] = np.inf
    assert projected_cg(np.eye(20), C, b).status is Status.NOT_FINITE


def test_a_tolerance_below_rounding_ends_at_the_rounding_limit():
    H, C, b, c, (y, _) = random_problem(60, 12, 15)
    result = projected_cg(H, C, b, c, rtol=0.0)
    assert result.status is Status.ROUNDING_LIMIT
    assert not result.converged
    np.testing.assert_allclose(result.x, y, atol=1e-10)


def test_a_nonlinear_product_stagnates():
    _, C, b, c, _ = random_problem(20, 4, 16)
    rng = np.random.default_rng(0)
    H = LinearOperator((20, 20), lambda v: v + 1e-3 * rng.standard_normal(20))
    result = projected_cg(H, C, b, c, rtol=1e-10)
    assert result.status in {Status.STAGNATED, Status.ITERATION_LIMIT}


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"H": np.ones((4, 3))}, ValueError, "H must be square"),
        ({"H": "H"}, TypeError, "H: "),
        ({"C": np.ones((1, 3))}, ValueError, "C must have 4 columns"),
        ({"C": aslinearoperator(np.ones((1, 4))) * 1.0}, TypeError, "minres"),
        ({"b": np.ones(3)}, ValueError, r"b must have shape \(4,\)"),
        ({"b": np.ones(4, dtype=int)}, TypeError, "b must be a real floating"),
        ({"c": np.ones(2)}, ValueError, r"c must have shape \(1,\)"),
        ({"c": np.ones((1, 1))}, ValueError, "c must be 1-D"),
        ({"x0": np.ones(3)}, ValueError, r"x0 must have shape \(4,\)"),
        ({"M": np.ones((4, 4))}, ValueError, "M must be preconditioners.constraint"),
        ({"M": np.eye(3)}, ValueError, "M must be preconditioners.constraint"),
        ({"M": -np.eye(4)}, ValueError, "metric must be finite and positive"),
        ({"M": constraint(np.ones(4), np.ones((2, 4)))}, ValueError, "C of M"),
        (
            {"C": null_space(np.ones((1, 4))), "M": np.eye(4)},
            TypeError,
            "C that is factorised",
        ),
        ({"rtol": -1.0}, ValueError, "rtol"),
        ({"atol": np.nan}, ValueError, "atol"),
        ({"maxiter": 1.5}, ValueError, "maxiter"),
        ({"callback": 3}, TypeError, "callback"),
    ],
)
def test_bad_input_is_named(change, error, match):
    arguments = {"H": np.eye(4), "C": np.ones((1, 4)), "b": np.ones(4)} | change
    with pytest.raises(error, match=match):
        projected_cg(**arguments)


# the preconditioner of saddle point systems -------------------------------------------


@pytest.mark.parametrize("dependent", [False, True])
def test_constraint_preconditioner(dependent):
    rng = np.random.default_rng(0)
    C = rng.standard_normal((6, 25))
    C = np.vstack([C, C[0] - C[1]]) if dependent else C
    d = 10.0 ** rng.uniform(-1, 1, 25)
    M = constraint(d, C)
    p = C.shape[0]
    K = np.block([[np.diag(d), C.T], [C, np.zeros((p, p))]])
    rhs = K @ rng.standard_normal(25 + p)
    np.testing.assert_allclose(K @ (M.inverse @ rhs), rhs, atol=1e-10)
    dense = M @ np.eye(25 + p)
    np.testing.assert_allclose(dense, dense.T, atol=1e-12)
    assert np.linalg.eigvalsh(dense)[0] > 0
    result = minres(K, rhs, rtol=1e-10, M=M)
    assert result.converged
    if not dependent:
        schur = np.linalg.inv(C @ np.diag(1 / d) @ C.T)
        np.testing.assert_allclose(dense[25:, 25:], schur, atol=1e-12)
        assert result.niter <= 4  # three eigenvalues


def test_the_callback_knows_the_column_and_stops_it_alone():
    rng = np.random.default_rng(0)
    H, C = np.diag(np.geomspace(1.0, 50.0, 20)), np.ones((1, 20))
    B, seen = rng.standard_normal((20, 3)), []

    def watch(iterate):
        seen.append((iterate.column, iterate.niter))
        return iterate.column == 1 and iterate.niter == 2

    found = projected_cg(H, C, B, callback=watch)
    assert found.converged.tolist() == [True, False, True]
    assert found.status is Status.STOPPED_BY_CALLBACK
    for j in range(3):
        steps = [niter for column, niter in seen if column == j]
        assert steps == list(range(int(found.niter[j]) + 1))


@pytest.mark.parametrize("M", ["auto", lambda r: r], ids=["str", "function"])
def test_an_m_that_is_no_operator_is_named(M):
    with pytest.raises(TypeError, match=r"^M: "):
        projected_cg(np.eye(3), np.ones((1, 3)), np.ones(3), M=M)
