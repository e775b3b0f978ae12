"""Right-hand sides near the ends of the floating range: answers that fit, and that do not."""

from __future__ import annotations

import numpy as np
import pytest

import sparse_argdiff as sad

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
