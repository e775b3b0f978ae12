"""Every builder: what it refuses, by the argument's name; sizes, scales and updates."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

import sparse_argdiff as sad
from sparse_argdiff import preconditioners as pc


def spd(n=24, seed=0):
    rng = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    A = (Q * np.geomspace(1.0, 1e3, n)) @ Q.T
    return 0.5 * (A + A.T)


def with_nan(A, value=np.nan):
    A = A.copy()
    A[3, 3] = value
    return A


BUILDERS = {
    "block_jacobi": lambda A: pc.block_jacobi(A, 4),
    "nystrom": lambda A: pc.nystrom(A, 24),
    "cholesky": pc.cholesky,
    "amg": lambda A: pc.amg(sparse.csr_array(A) if isinstance(A, np.ndarray) else A),
}
builders = pytest.mark.parametrize("name", BUILDERS)


@builders
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_entries_that_are_not_finite_are_refused_as_such(name, value):
    if name == "amg":
        pytest.importorskip("pyamg")
    with pytest.raises(ValueError, match=r"A must be finite"):
        BUILDERS[name](with_nan(spd(), value))


@builders
def test_a_matrix_that_is_not_symmetric_is_refused(name):
    if name == "amg":
        pytest.importorskip("pyamg")
    A = spd() + np.triu(np.ones((24, 24)), 1)
    with pytest.raises(ValueError, match=r"A must be symmetric|must be symmetric"):
        BUILDERS[name](A)


@builders
@pytest.mark.parametrize(
    "A", [None, "A", 1j * np.eye(24)], ids=["None", "str", "complex"]
)
def test_what_is_no_real_matrix_is_refused_by_name(name, A):
    if name == "amg":
        pytest.importorskip("pyamg")
    with pytest.raises(TypeError, match=r"^A: "):
        BUILDERS[name](A)


@builders
@pytest.mark.parametrize("dtype", [int, bool])
def test_whole_numbers_are_entries_like_others(name, dtype):
    if name == "amg":
        pytest.importorskip("pyamg")
    scale = 4 if dtype is int else 1
    M = BUILDERS[name]((scale * np.eye(24)).astype(dtype))
    np.testing.assert_allclose(M @ np.ones(24), np.ones(24) / scale)


@builders
@pytest.mark.parametrize(
    ("scale", "dtype"),
    [(1e200, "f8"), (1e-200, "f8"), (1e30, "f4"), (1e-30, "f4")],
)
def test_no_unit_is_too_large_or_too_small(name, scale, dtype):
    if name == "amg":
        pytest.importorskip("pyamg")
    A, b = (scale * spd()).astype(dtype), np.ones(24, dtype=dtype)
    M = BUILDERS[name](A)
    found = sad.cg(A, b, M=M, rtol=1e-3)
    assert found.converged
    plain = sad.cg(
        (spd()).astype(dtype), b, M=BUILDERS[name](spd().astype(dtype)), rtol=1e-3
    )
    assert abs(found.niter - plain.niter) <= 2  # r'M r nears the least float32


@builders
def test_an_update_to_another_size_is_refused(name):
    if name == "amg":
        pytest.importorskip("pyamg")
    other = np.eye(25) if name != "amg" else sparse.eye_array(25).tocsr()
    with pytest.raises(ValueError, match=r"A must have shape \(24, 24\)"):
        BUILDERS[name](spd()).update(other)


def test_jacobi_updates_to_the_diagonal_of_another_matrix():
    A, other = spd(seed=0), spd(seed=1)
    M = pc.jacobi(np.diag(A).copy())
    for given in (other, sparse.csr_array(other), np.diag(other).copy()):
        np.testing.assert_allclose(M.update(given).diagonal(), 1.0 / np.diag(other))
    with pytest.raises(ValueError, match=r"A must have shape \(24, 24\)"):
        M.update(np.eye(25))
    with pytest.raises(ValueError, match=r"diag must have shape \(24,\)"):
        M.update(np.ones(25))
    with pytest.raises(ValueError, match="A must know its diagonal"):
        M.update(sad.LinearOperator((24, 24), lambda v: v))
    assert pc.jacobi(np.ones(2), floor=0.5).update(np.r_[1.0, 4.0]).diagonal()[0] == 0.5


def test_jacobi_writes_into_the_buffer_it_is_given():
    d, r = np.geomspace(1.0, 9.0, 5), np.arange(5.0)
    M, out = pc.jacobi(d), np.empty(5)
    M.apply(r, out)
    np.testing.assert_array_equal(out, M @ r)


@pytest.mark.parametrize(
    "diag", [np.full(3, 1e-310), np.full(3, 1e-45, dtype=np.float32)]
)
def test_a_diagonal_without_an_inverse_is_refused(diag):
    with pytest.raises(ValueError, match="diag must have"):
        pc.jacobi(diag)
    assert pc.jacobi_of(sad.aslinearoperator(np.diag(diag))) is None


def test_a_zero_that_no_floor_raises_is_refused():
    with pytest.raises(ValueError, match="floor"):
        pc.jacobi(np.r_[0.0, 1.0], floor=0.0)


def test_jacobi_of_takes_any_matrix():
    A = spd()
    for given in (A, sparse.csr_array(A), sad.aslinearoperator(A)):
        np.testing.assert_allclose(pc.jacobi_of(given).diagonal(), 1.0 / np.diag(A))


@pytest.mark.parametrize("least_fall", [0.0, -1.0, np.nan, "a"])
def test_a_fall_that_is_no_factor_is_refused(least_fall):
    with pytest.raises(ValueError, match="least_fall must be"):
        pc.nystrom(spd(), 5, least_fall=least_fall)


@pytest.mark.parametrize(
    "options",
    [
        {"patience": 0.0},
        {"patience": -1.0},
        {"patience": "a"},
        {"max_rank": 0},
        {"max_rank": 2.5},
    ],
)
def test_auto_refuses_what_it_cannot_count_with(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        pc.Auto(**options)
    with pytest.raises(ValueError, match="K must be square"):
        pc.Auto()(np.ones((3, 2)))


def test_corrections_refuse_an_m_of_another_size():
    W = np.eye(24)[:, :2]
    with pytest.raises(ValueError, match=r"M must have shape \(24, 24\)"):
        pc.deflation(W, spd() @ W, M=np.eye(3))
    with pytest.raises(ValueError, match=r"M must have shape \(24, 24\)"):
        pc.lbfgs([(W[:, 0], spd() @ W[:, 0])], M=np.eye(3))


@pytest.mark.parametrize("pairs", [None, 3, [np.ones(3)], [(np.ones(3),)]])
def test_what_is_no_sequence_of_pairs_is_refused(pairs):
    with pytest.raises(TypeError, match="pairs must be"):
        pc.lbfgs(pairs)


def test_a_galerkin_start_needs_columns():
    with pytest.raises(ValueError, match="W must be 2-D"):
        pc.galerkin_start(spd(), np.ones(24), np.ones(24))


@pytest.mark.parametrize(
    "diag",
    [None, -np.ones(24), np.full(24, np.nan), np.ones(23), np.ones(24, dtype=int)],
)
def test_the_diagonal_of_a_constraint_preconditioner_is_named(diag):
    with pytest.raises((TypeError, ValueError), match="H_diag must"):
        pc.constraint(diag, np.ones((2, 24)))


def test_a_constraint_preconditioner_updates_to_another_hessian():
    C = np.random.default_rng(0).standard_normal((2, 24))
    M, other = pc.constraint(np.ones(24), C), spd()
    expected = pc.constraint(np.diag(other).copy(), C)
    z = np.arange(26.0)
    for given in (other, sparse.csr_array(other), np.diag(other).copy()):
        np.testing.assert_allclose(M.update(given) @ z, expected @ z)
    with pytest.raises(ValueError, match="H"):
        M.update(np.eye(25))
