"""preconditioners/: an approximate inverse, symmetric positive definite by construction."""

from __future__ import annotations

import numpy as np
import pytest

from sparse_argdiff import cg, minres
from sparse_argdiff.preconditioners import jacobi

DIAGONALS = {
    "positive": [1.0, 2.0, 4.0],
    "one entry": [3.0],
    "widely spread": [1e-6, 1.0, 1e5],
    "tiny": [1e-200, 3e-200],
    "huge": [1e200, 3e200],
}


def same_device(array, like):
    return getattr(array, "device", None) == getattr(like, "device", None)


@pytest.mark.parametrize("entries", DIAGONALS.values(), ids=DIAGONALS.keys())
def test_jacobi_is_the_inverse_of_a_positive_diagonal(xp_array, entries):
    to, back = xp_array
    d = np.array(entries)
    diag = to(d)
    M = jacobi(diag)
    assert M.shape == (d.size, d.size)
    assert M.symmetric
    assert M.positive_definite
    assert M.T is M
    np.testing.assert_allclose(back(M @ diag), 1.0)
    block = to(np.stack([d, -2.0 * d], axis=1))
    np.testing.assert_allclose(back(M @ block), [[1.0, -2.0]] * d.size)
    np.testing.assert_allclose(back(M.diagonal()), 1.0 / d)
    np.testing.assert_array_equal(back(diag), d)
    assert same_device(M @ diag, diag)
    assert same_device(M.diagonal(), diag)


@pytest.mark.parametrize(
    ("entries", "raised"),
    [
        ([4.0, 0.0], [4.0, 4e-3]),
        ([4.0, -1.0], [4.0, 4e-3]),
        ([4.0, 1e-3], [4.0, 4e-3]),
        ([4.0, 5e-3], [4.0, 5e-3]),
        ([-0.0, 1e-200], [1e-203, 1e-200]),
        ([0.0, 1e200], [1e197, 1e200]),
    ],
)
def test_jacobi_raises_small_entries_to_a_floor_relative_to_the_largest(
    xp_array, entries, raised
):
    to, back = xp_array
    M = jacobi(to(np.array(entries)), floor=1e-3)
    assert M.positive_definite
    np.testing.assert_allclose(back(M.diagonal()), 1.0 / np.array(raised))


def test_jacobi_of_a_feature_that_never_occurs_does_not_divide_by_zero(xp_array):
    to, back = xp_array
    M = jacobi(to(np.array([2.0, 0.0, 1.0])))
    result = back(M @ to(np.ones(3)))
    assert np.isfinite(result).all()
    np.testing.assert_allclose(result[[0, 2]], [0.5, 1.0])
    assert result[1] == pytest.approx(1e12 / 2.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_jacobi_keeps_the_dtype(xp_array, dtype):
    to, back = xp_array
    diag = to(np.array([1, 2, 0], dtype))
    M = jacobi(diag)
    for operand in (diag, to(np.ones((3, 2), dtype))):
        assert back(M @ operand).dtype == dtype
    assert back(M.diagonal()).dtype == dtype
    assert M.dtype == diag.dtype


def test_jacobi_of_an_empty_diagonal_is_empty(xp_array):
    to, _ = xp_array
    M = jacobi(to(np.zeros(0)))
    assert M.shape == (0, 0)
    assert (M @ to(np.zeros(0))).shape == (0,)


def test_jacobi_does_not_follow_later_changes_of_its_argument():
    d = np.array([1.0, 2.0])
    M = jacobi(d)
    d[:] = 100.0
    np.testing.assert_allclose(M @ np.ones(2), [1.0, 0.5])


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([1.0, np.nan], r"diag must be finite"),
        ([1.0, np.inf], r"diag must be finite"),
        ([-np.inf, 1.0], r"diag must be finite"),
        ([0.0, 0.0], r"diag must have a positive entry.*0\.0"),
        ([-1.0, -2.0], r"diag must have a positive entry.*-1\.0"),
        ([[1.0, 2.0]], r"diag must be 1-D, found shape \(1, 2\)"),
    ],
)
def test_jacobi_refuses_what_cannot_help(xp_array, entries, message):
    with pytest.raises(ValueError, match=message):
        jacobi(xp_array.to(np.array(entries)))


@pytest.mark.parametrize(
    "diag", [np.arange(3), [1, 2], np.ones(2, complex), None, "diag"]
)
def test_jacobi_refuses_what_is_no_floating_array(diag):
    with pytest.raises(TypeError, match=r"\bdiag\b"):
        jacobi(diag)


@pytest.mark.parametrize("floor", [-1.0, float("nan"), "small"])
def test_jacobi_refuses_a_floor_that_is_none(floor):
    # A negative floor would let a non-positive entry through: M would be indefinite.
    with pytest.raises((ValueError, TypeError), match=r"\bfloor\b"):
        jacobi(np.array([1.0, -0.5]), floor=floor)


@pytest.mark.parametrize("solver", [cg, minres])
def test_jacobi_undoes_a_bad_scaling(xp_array, solver):
    to, back = xp_array
    rng = np.random.default_rng(3)
    n = 40
    J = rng.standard_normal((n, n))
    scales = np.geomspace(1e-4, 1e4, n)
    A = scales[:, None] * (J @ J.T / n + 5.0 * np.eye(n)) * scales
    b = A @ (rng.standard_normal(n) / scales)
    S = to(A)
    M = jacobi(to(np.diag(A)))
    with_M = solver(S, to(b), rtol=1e-10, M=M, maxiter=100 * n)
    assert with_M.converged
    assert with_M.niter <= 2 * n
    residual = np.linalg.norm(b - A @ back(with_M.x))
    assert residual <= 1.01e-10 * np.linalg.norm(b)
    without = solver(S, to(b), rtol=1e-10, maxiter=with_M.niter)
    assert not without.converged
