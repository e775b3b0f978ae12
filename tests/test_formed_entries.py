"""Hessians of few columns over sparse rows: entries formed in one pass, and their factor."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm, Logistic
from sparse_argdiff.linear_model.loss_at import LossAt
from sparse_argdiff.preconditioners import Auto, cholesky

N, P = 2_000, 20


def model(kernels, *, binary=False, offset=None, seed=1):
    """Return a logistic model whose columns differ by four decades."""
    rng = np.random.default_rng(seed)
    F = sparse.random_array((N, P), density=0.3, rng=rng, format="csr")
    if binary:
        F.data[:] = 1.0
    else:
        F = sparse.csr_array(F * np.geomspace(1e-2, 1e2, P))
    t = (F @ rng.standard_normal(P) > 0.0).astype(float)
    return Glm(F, t, penalty="scalar", kernels=kernels, log_offset=offset)


@pytest.fixture(autouse=True)
def _numba():
    pytest.importorskip("numba")


@pytest.mark.parametrize("binary", [True, False])
def test_the_entries_are_those_of_the_products(binary):
    glm = model("compiled", binary=binary)
    y = np.random.default_rng(2).standard_normal(glm.n)
    core, ridge = glm.hess(np.array([-3.0]), y).split
    forming = core.structure.forming
    assert forming.price < 10.0  # products; n would be 21
    assert forming.nonzeros == glm._data.design.features.nnz
    want = core.todense()
    np.testing.assert_allclose(forming.entries(), want, rtol=1e-12, atol=1e-14)
    M = cholesky(glm.hess(np.array([-3.0]), y))
    np.testing.assert_allclose(
        M.todense() @ (want + np.diag(ridge)), np.eye(glm.n), atol=1e-8
    )
    assert M.n_matvec < 10


def test_a_factor_of_the_same_ridge_is_kept_and_of_another_made_again():
    glm = model("compiled")
    y = np.zeros(glm.n)
    M = cholesky(glm.hess(np.array([-3.0]), y))
    same = glm.hess(np.array([-3.0]), y + 0.1)
    assert M.update(same) is M
    other = M.update(glm.hess(np.array([-5.0]), y))
    exact = glm.hess(np.array([-5.0]), y).todense()
    np.testing.assert_allclose(other.todense() @ exact, np.eye(glm.n), atol=1e-7)
    assert other.n_matvec == 0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_auto_takes_fewer_products_with_the_factor(seed):
    x = np.array([-8.0])
    products = {}
    for kernels in ("compiled", "reference"):
        problem = sad.Problem(model(kernels, seed=seed))
        found = sad.solve(problem, x, tol=1e-8)
        adjoint = sad.vjp(problem, found, np.ones(found.y.shape[0]))
        products[kernels] = found.n_hvp + adjoint.krylov.n_matvec, found.y, adjoint.x
    assert 2 * products["compiled"][0] < products["reference"][0]
    np.testing.assert_allclose(*(products[k][1] for k in products), rtol=1e-5)
    np.testing.assert_allclose(*(products[k][2] for k in products), rtol=1e-5)


def test_the_folds_share_one_factor():
    glm = model("compiled")
    problem, upper = glm.cross_validation(4)
    x = np.array([-8.0])
    auto = Auto(patience=2.0)
    found = sad.Hypergradient(problem, upper, M=auto).evaluate(x)
    assert auto.name == "cholesky"
    plain = sad.Hypergradient(problem, upper, M=None).evaluate(x)
    assert found.n_hvp < 0.6 * plain.n_hvp
    assert found.value == pytest.approx(plain.value, rel=1e-7)
    np.testing.assert_allclose(found.gradient, plain.gradient, rtol=1e-4)


def test_coefficients_held_at_zero_are_no_part_of_the_entries():
    """The entries of the whole Hessian would couple them to the others."""
    offset = np.zeros(P)
    offset[3] = np.inf
    x = np.array([-4.0])
    found = [
        sad.solve(sad.Problem(model(kernels, offset=offset)), x).y
        for kernels in ("compiled", "reference")
    ]
    assert found[0][3] == 0.0
    np.testing.assert_allclose(*found, rtol=1e-6, atol=1e-9)
    hess = model("compiled", offset=offset).hess(x, found[0])
    core = hess.split[0]
    entries, n = core.structure.forming.entries(), core.shape[0]
    products = np.stack([core @ e for e in np.eye(n)], axis=1)
    np.testing.assert_allclose(entries, products, rtol=1e-10, atol=1e-14)
    assert not entries[3].any()
    assert not entries[:, 3].any()


def test_the_parts_of_a_loss_together_are_those_apart():
    """Value, slope and curvature of the logistic loss, far out too."""
    z = np.concatenate([np.linspace(-40.0, 40.0, 401), [-750.0, 750.0, -1e4, 1e4]])
    t = np.where(np.arange(z.size) % 3 == 0, 1.0, np.where(z > 1.0, 0.25, 0.0))
    weights, loss = np.linspace(0.1, 2.0, z.size), Logistic()
    at = LossAt(loss, z, t, weights)
    apart = weights @ loss.value(z, t)
    assert at.value == pytest.approx(apart, rel=1e-14)
    np.testing.assert_allclose(
        at.slope, weights * loss.slope(z, t), rtol=1e-12, atol=1e-15
    )
    apart = loss.curvature(z, t, weights).diagonal  # p (1 − p), where p is rounded
    np.testing.assert_allclose(at.curvature.diagonal, apart, atol=1e-15)
    exact = np.exp(-np.abs(z)) / (1.0 + np.exp(-np.abs(z))) ** 2
    np.testing.assert_allclose(at.curvature.diagonal, weights * exact, rtol=1e-12)


class Counted(Logistic):
    """Counts its evaluations."""

    calls = 0

    def together(self, z, targets):
        type(self).calls += 1
        return super().together(z, targets)


@pytest.mark.parametrize("folds", [None, 3])
def test_one_evaluation_of_the_loss_serves_a_point(folds):
    Counted.calls = 0
    glm = model("reference")
    counting = Glm(glm._data.design.features, glm._data.targets, loss=Counted())
    objective = counting if folds is None else counting.cross_validation(folds)[0]
    objective = getattr(objective, "objective", objective)
    x = np.zeros(objective.m)
    y = np.random.default_rng(0).standard_normal(objective.n)
    objective.value(x, y), objective.grad(x, y), objective.hess(x, y)
    assert Counted.calls == (folds or 1)
