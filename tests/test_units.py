"""Right-hand sides near the ends of the floating range: answers that fit, and that do not."""

from __future__ import annotations

import numpy as np
import pytest

import sparse_argdiff as sad
from sparse_argdiff.operators.probes import diagonal_scale
from sparse_argdiff.preconditioners import constraint, jacobi

SOLVERS = [sad.cg, sad.minres]


def spd(n=30, condition=100.0):
    rng = np.random.default_rng(0)
    Q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    A = (Q * np.geomspace(1.0, 1.0 / condition, n)) @ Q.T
    return 0.5 * (A + A.T)


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("solve", SOLVERS)
@pytest.mark.parametrize(("dtype", "size"), [("f4", 2e37), ("f8", 1e307)])
def test_an_answer_beyond_the_floating_range_is_no_success(solve, dtype, size):
    A = spd().astype(dtype)
    b = np.ones(30, dtype=dtype) * np.asarray(size, dtype=dtype)
    exact = np.abs(np.linalg.solve(spd(), np.ones(30))).max()
    assert exact * (size / np.finfo(dtype).max) > 1.0
    found = solve(A, b, rtol=1e-4)
    assert found.status is sad.Status.NOT_FINITE
    assert not found.converged
    together = solve(
        A, np.stack([b, b / np.asarray(size, dtype=dtype)], axis=1), rtol=1e-4
    )
    assert together.status is sad.Status.NOT_FINITE
    assert together.converged.tolist() == [False, True]


@pytest.mark.parametrize("solve", SOLVERS)
@pytest.mark.parametrize(
    ("dtype", "size"), [("f4", 1e35), ("f4", 1e-35), ("f8", 1e300), ("f8", 1e-300)]
)
def test_an_answer_within_it_is_that_of_any_unit(solve, dtype, size):
    A, b = spd().astype(dtype), np.ones(30, dtype=dtype)
    unit = np.asarray(size, dtype=dtype)
    plain, found = solve(A, b, rtol=1e-4), solve(A, unit * b, rtol=1e-4)
    assert found.converged
    assert found.x.dtype == dtype
    np.testing.assert_allclose(found.x / unit, plain.x, rtol=1e-2)


@pytest.mark.parametrize("solve", SOLVERS)
def test_a_norm_beyond_the_range_of_the_dtype_has_a_unit_within_it(solve):
    A = np.diag(np.linspace(1e3, 2e3, 50)).astype("f4")
    b = np.full(50, 1e38, dtype="f4")
    assert np.linalg.norm(b.astype(float)) > np.finfo("f4").max
    found = solve(A, b, rtol=1e-4)
    assert found.converged
    np.testing.assert_allclose(found.x, b / np.diag(A), rtol=1e-3)


# y -> D y: the metric of M ---------------------------------------------------------------


def changed(decades, n=30, seed=0):
    """Return D A D, D b and D⁻¹ x for entries of D between 10^-decades and 10^decades."""
    rng = np.random.default_rng(seed)
    A, b = spd(n, 300.0), rng.standard_normal(n)
    D = np.exp2(np.round(rng.uniform(-decades, decades, n) * np.log2(10.0)))
    return D[:, None] * A * D, D * b, np.linalg.solve(A, b) / D, D


def saddle(A, D, p=4, seed=1):
    C = np.random.default_rng(seed).standard_normal((p, len(A))) * D
    return C, constraint(np.diag(A), C)


@pytest.mark.parametrize("rtol", [1e-6, 1e-10, 0.0])
@pytest.mark.parametrize("decades", [2, 5, 8])
@pytest.mark.parametrize("solve", SOLVERS)
def test_a_change_of_units_changes_nothing_with_the_diagonal(solve, decades, rtol):
    A, b, x, _ = changed(decades)
    plain, plain_b, _plain_x, _ = changed(0)
    one = solve(plain, plain_b, M=jacobi(np.diag(plain)), rtol=rtol)
    found = solve(A, b, M=jacobi(np.diag(A), floor=0.0), rtol=rtol)
    assert found.status.acceptable
    assert one.status.acceptable
    # The 2-norm, which is asked for as well, may take some more iterations.
    if rtol > 0.0:  # without a tolerance rounding ends it
        assert one.niter <= found.niter <= one.niter + 12
    error = np.abs(found.x / x - 1.0).max()
    assert error <= max(1e3 * rtol, 1e-11)
    if found.status is sad.Status.CONVERGED:
        r = b - A @ found.x
        assert np.sqrt(r @ (r / np.diag(A))) <= 1.001 * rtol * np.sqrt(
            b @ (b / np.diag(A))
        )


@pytest.mark.parametrize("solve", SOLVERS)
def test_a_small_row_is_solved_for_as_well_as_a_large_one(solve):
    # In the 2-norm the first row is all that counts.
    A, b = np.diag([1e18, 1.0, 2.0]), np.array([1e9, 1.0, 3.0])
    A[1, 2] = A[2, 1] = 1.0
    found = solve(A, b, M=jacobi(np.diag(A), floor=0.0))
    assert found.converged
    np.testing.assert_allclose(found.x, np.linalg.solve(A, b), rtol=1e-8)
    found = solve(A, b, found.x * [1.0, 1.3, 0.7], M=jacobi(np.diag(A), floor=0.0))
    np.testing.assert_allclose(found.x, np.linalg.solve(A, b), rtol=1e-8)


@pytest.mark.parametrize("solve", SOLVERS)
def test_an_absolute_tolerance_asks_for_the_norm_alone(solve):
    A, b = np.diag([1e18, 1.0, 2.0]), np.array([1e9, 1.0, 1.0])
    found = solve(A, b, M=jacobi(np.diag(A), floor=0.0), rtol=0.0, atol=10.0)
    assert found.converged
    assert found.niter <= 1


@pytest.mark.parametrize("decades", [2, 5, 8])
def test_a_change_of_units_changes_nothing_in_a_null_space(decades):
    A, b, _, D = changed(decades)
    C, M = saddle(A, D)
    plain, plain_b, *_ = changed(0)
    plain_C, plain_M = saddle(plain, np.ones(30))
    c = np.arange(1.0, 5.0)
    exact = sad.projected_cg(plain, plain_C, plain_b, c, M=plain_M, rtol=1e-13).x
    one = sad.projected_cg(plain, plain_C, plain_b, c, M=plain_M)
    found = sad.projected_cg(A, C, b, c, M=M)
    assert found.converged
    assert abs(found.niter - one.niter) <= 12
    np.testing.assert_allclose(D * found.x, exact, rtol=0, atol=1e-7)


@pytest.mark.parametrize("solve", SOLVERS)
def test_what_rounding_leaves_is_told_in_the_metric(solve):
    # A product that is off by more than rounding in the rows of small units stagnates.
    A, b, *_ = changed(6)
    M = jacobi(np.diag(A), floor=0.0)
    assert solve(A, b, M=M, rtol=0.0).status is sad.Status.ROUNDING_LIMIT
    small = np.argmin(np.diag(A))
    noise = np.random.default_rng(0)

    def product(v):
        out = A @ v
        out[small] *= 1.0 + 1e-6 * noise.standard_normal()
        return out

    inexact = sad.LinearOperator(A.shape, product, symmetric=True)
    found = solve(inexact, b, M=M, rtol=1e-12)
    assert not found.status.acceptable


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
def test_sizes_that_products_tell_are_those_of_the_diagonal(unit):
    """To a small factor, and not to one that depends on the spread of the units."""
    rng, n = np.random.default_rng(0), 30
    A = rng.standard_normal((n, n))
    D = 10.0 ** rng.uniform(-4.0, 4.0, n)
    H = unit * D[:, None] * (A @ A.T / n + np.eye(n)) * D
    known = sad.LinearOperator(H.shape, lambda v: H @ v, symmetric=True, dtype=float)
    sizes, products = diagonal_scale(known, np.ones(n))
    quotient = sizes / H.diagonal()
    assert products == 8
    assert quotient.min() > 0.1
    assert quotient.max() < 10.0
