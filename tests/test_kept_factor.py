"""The factor of the last Newton matrix serves adjoint, tangent and the next x."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

import sparse_argdiff as sad
from sparse_argdiff.krylov import kkt_matrix
from sparse_argdiff.krylov.graded_factor import graded_factor


def counted(monkeypatch):
    """Return a list that grows with each factorisation of a KKT matrix."""
    done = []
    for kind in (kkt_matrix.DenseKKT, kkt_matrix.SparseKKT):

        def factorise(self, *given, _of=kind.factorise, **options):
            done.append(self.size)
            return _of(self, *given, **options)

        monkeypatch.setattr(kind, "factorise", factorise)
    return done


def program(n, seed=0):
    rng = np.random.default_rng(seed)
    P = sparse.diags_array(1.0 + rng.random(n)) + 0.1 * sparse.eye_array(n, k=1)
    P = sparse.csr_array(P + 0.1 * sparse.eye_array(n, k=-1))
    A = sparse.random_array((n // 4, n), density=4.0 / n, rng=rng)
    G = sparse.random_array((n // 3, n), density=4.0 / n, rng=rng)
    y = rng.standard_normal(n)
    A = sparse.csr_array(A) + sparse.eye_array(n // 4, n, format="csr")
    return sad.QuadraticProgram(
        P,
        3.0 * rng.standard_normal(n),
        A,
        A @ y,
        sparse.csr_array(G),
        G @ y + rng.exponential(0.3, n // 3),
        lower=y - rng.exponential(0.5, n),
        parameters=("q", "b", "lower"),
    )


@pytest.mark.parametrize("n", [12, 300])
@pytest.mark.parametrize("method", [None, "active_set"])
def test_derivatives_and_the_next_x_factorise_nothing(monkeypatch, n, method):
    problem, rng = program(n), np.random.default_rng(1)
    x = problem.pack()
    found = sad.solve(problem, x, method=method)
    assert found.factor is not None
    done = counted(monkeypatch)
    sad.vjp(problem, found, rng.standard_normal(n))
    sad.jvp(problem, found, rng.standard_normal(x.size))
    sad.derivative(problem, found) @ rng.standard_normal((x.size, 3))
    assert done == []
    near = x + 1e-6 * rng.standard_normal(x.size)
    after = sad.solve(problem, near, found, method=method)
    sad.vjp(problem, after, rng.standard_normal(n))
    assert done == []
    fresh = sad.solve(problem, near, method=method)
    assert done
    np.testing.assert_allclose(after.y, fresh.y, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(after.multipliers, fresh.multipliers, atol=1e-9)
    np.testing.assert_array_equal(after.active.fixed, fresh.active.fixed)


def test_another_active_set_is_found_anew():
    problem, rng = program(30), np.random.default_rng(2)
    x = problem.pack()
    found = sad.solve(problem, x)
    far = x + 2.0 * rng.standard_normal(x.size) * (np.arange(x.size) < 30)
    after, fresh = sad.solve(problem, far, found), sad.solve(problem, far)
    assert not np.array_equal(found.active.fixed, fresh.active.fixed)
    np.testing.assert_allclose(after.y, fresh.y, rtol=1e-9, atol=1e-11)


def test_the_factor_of_another_problem_is_no_answer():
    problem, other = program(30), program(30, seed=5)
    found = sad.solve(problem, problem.pack())
    after = sad.solve(other, other.pack(), found)
    fresh = sad.solve(other, other.pack())
    np.testing.assert_allclose(after.y, fresh.y, rtol=1e-9, atol=1e-11)


# unknowns in unlike units -------------------------------------------------------------


def _graded(seed, decades):
    """A regular K of few curvatures, its plain form, and powers of ten for its units."""
    rng = np.random.default_rng(seed)
    n, p = 9, 5
    H = np.diag(np.where(np.arange(n) < 5, rng.uniform(0.5, 2.0, n), 0.0))
    C = rng.standard_normal((p, n))
    K = np.block([[H, C.T], [C, np.zeros((p, p))]])
    units = 10.0 ** rng.uniform(-decades, decades, n + p)
    return n, K, units, rng


@pytest.mark.parametrize("decades", [0.0, 4.0, 8.0])
@pytest.mark.parametrize("seed", range(5))
def test_each_unknown_has_its_digits(seed, decades):
    n, K, units, rng = _graded(seed, decades)
    posed = units[:, None] * K * units
    factor = graded_factor(posed[:n, :n], posed[n:, :n])
    assert factor is not None
    assert factor.regular
    B = rng.standard_normal((K.shape[0], 3))
    exact = np.linalg.solve(K, B)
    found = units[:, None] * factor.solve(units[:, None] * B)
    np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-12)
    one = units * factor.solve(units * B[:, 0])
    np.testing.assert_allclose(one, exact[:, 0], rtol=1e-9, atol=1e-12)


def test_a_graded_factor_refuses_what_it_cannot_solve():
    n, K, units, rng = _graded(0, 4.0)
    posed = units[:, None] * K * units
    H, C = posed[:n, :n], posed[n:, :n]
    assert graded_factor(-H - np.eye(n), C) is None  # not semidefinite
    twice = graded_factor(H, np.concatenate([C, C[:1] + C[1:2]]))
    assert twice is None or twice.solve(rng.standard_normal(n + 6)) is None
    flat = graded_factor(0.0 * H, C)  # more unknowns than rows, and no curvature
    assert flat is None or not flat.regular
