"""Saddle point systems by every method, against dense algebra."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import sparse_argdiff as sad
from sparse_argdiff.krylov.saddle_point import (
    NullSpace,
    ProductNullSpace,
    SaddlePoint,
    null_space_of,
)
from sparse_argdiff.preconditioners import constraint_of
from sparse_argdiff.status import Status

N, P = 60, 12


def saddle(seed=0, shift=0.0):
    """H of condition 10³ (indefinite with a shift), C, and the matrix of both."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((N, N))
    H = A @ A.T / N + np.diag(np.logspace(0, 3, N)) - shift * np.eye(N)
    C = rng.standard_normal((P, N))
    K = np.block([[H, C.T], [C, np.zeros((P, P))]])
    return H, C, K


def by_products(C):
    return sad.LinearOperator(C.shape, lambda v: C @ v, lambda w: C.T @ w)


# How C is given, the method asked for, the one that is chosen.
CASES = {
    "dense": (lambda C: C, None, "projected_cg"),
    "sparse": (sp.csr_array, None, "projected_cg"),
    "factorised": (null_space_of, None, "projected_cg"),
    "dense, minres": (lambda C: C, "minres", "minres"),
    "products": (by_products, None, "minres"),
    "null space of products": (
        lambda C: null_space_of(by_products(C)),
        "projected_cg",
        "projected_cg",
    ),
}


@pytest.mark.parametrize("columns", [(), (3,)], ids=["vector", "block"])
@pytest.mark.parametrize("case", CASES)
def test_the_solution_is_that_of_dense_algebra(case, columns):
    H, C, K = saddle()
    given, method, chosen = CASES[case]
    given = given(C)
    M = None
    if not isinstance(given, NullSpace | ProductNullSpace):
        M = constraint_of(sad.aslinearoperator(H), given)
    system = SaddlePoint(H, given, M, method=method)
    rhs = np.random.default_rng(1).standard_normal((N + P, *columns))
    found = system.solve(rhs, rtol=1e-11)
    assert system.method == chosen
    assert np.all(found.converged)
    np.testing.assert_allclose(found.x, np.linalg.solve(K, rhs), atol=1e-8)
    np.testing.assert_array_equal(found.multipliers, found.x[N:])
    np.testing.assert_allclose(rhs - K @ found.x, found.residual, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_the_probe_tells_negative_curvature_on_the_null_space(case):
    given, method, _ = CASES[case]
    for shift, curved in ((0.0, False), (500.0, True)):
        H, C, _ = saddle(shift=shift)
        found = SaddlePoint(H, given(C), method=method).probe(np.ones(N))
        assert (found.status is Status.NEGATIVE_CURVATURE) == curved
        if curved:
            p = found.direction / np.linalg.norm(found.direction)
            assert p @ H @ p < 0.0
            assert np.linalg.norm(C @ p) <= 1e-9 * np.linalg.norm(C)


def test_without_rows_it_is_cg():
    H, _, _ = saddle()
    b = np.ones(N)
    H_operator = sad.aslinearoperator(H)
    M = constraint_of(H_operator, None)
    found = SaddlePoint(H_operator, M=M).solve(b, rtol=1e-10)
    plain = sad.cg(H, b, rtol=1e-10, M=M)
    assert found.niter == plain.niter
    np.testing.assert_array_equal(found.x, plain.x)
    assert SaddlePoint(-H).probe(b).status is Status.NEGATIVE_CURVATURE


def test_a_start_saves_iterations():
    H, C, K = saddle()
    rhs = np.random.default_rng(2).standard_normal(N + P)
    z = np.linalg.solve(K, rhs)
    for given in (C, by_products(C)):
        system = SaddlePoint(H, given)
        cold, warm = system.solve(rhs), system.solve(rhs, z * (1.0 + 1e-6))
        assert warm.niter < cold.niter


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_projections_by_products_are_those_of_the_factorisation(scale):
    """In any units: the two blocks of the MINRES solve are brought to one scale."""
    _, C, _ = saddle()
    C = scale * C
    dense, products = null_space_of(C), null_space_of(by_products(C))
    rng = np.random.default_rng(3)
    r, c = rng.standard_normal(N), scale * rng.standard_normal(P)
    np.testing.assert_allclose(products.project(r), dense.project(r), atol=1e-11)
    np.testing.assert_allclose(products.particular(c), dense.particular(c), atol=1e-11)
    np.testing.assert_allclose(
        scale * products.multipliers(r), scale * dense.multipliers(r), atol=1e-11
    )
    y = products.particular(c)
    assert products.mismatch(c, y) <= 1e-12
    assert products.mismatch(c, y + 1.0) >= 1e-3


def test_projections_of_rows_that_vanish_leave_everything():
    rows = null_space_of(by_products(np.zeros((P, N))))
    r = np.random.default_rng(4).standard_normal(N)
    np.testing.assert_allclose(rows.project(r), r, atol=1e-14)
    np.testing.assert_array_equal(rows.multipliers(r), np.zeros(P))
    np.testing.assert_array_equal(rows.particular(np.ones(P)), np.zeros(N))


def test_an_operator_is_not_factorised_for_projected_cg():
    H, C, _ = saddle()
    with pytest.raises(TypeError, match="only method='minres'"):
        SaddlePoint(H, by_products(C), method="projected_cg")
