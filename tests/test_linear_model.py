"""Generalised linear models: against plain NumPy, against scikit-learn, and their cost.

The reference in this file writes every model as a dense (N, K, n) array D = ∂z/∂y and
shares no line with the package.
"""

from __future__ import annotations

import dataclasses
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, sparse

import sparse_argdiff as sad
from sparse_argdiff.linear_model import (
    Glm,
    HeldOutLoss,
    Huber,
    Logistic,
    Multinomial,
    Poisson,
    Quantile,
    Squared,
    Tweedie,
)
from sparse_argdiff.linear_model.loss_at import LossAt

# the models, once more, in dense algebra ----------------------------------------------


def soft_max(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def pointwise(loss, z, t, delta=1.35):
    """Return ℓ (N,), ℓ' (N, K) and ℓ'' (N, K, K) at predictors z (N, K)."""
    if loss == "multinomial":
        hot = np.eye(z.shape[1])[t]
        p = soft_max(z)
        top = z.max(axis=1)
        value = np.log(np.exp(z - top[:, None]).sum(axis=1)) + top - (hot * z).sum(1)
        second = p[:, :, None] * (np.eye(z.shape[1]) - p[:, None, :])
        return value, p - hot, second
    z = z[:, 0]
    if loss == "logistic":
        t = (t + 1) / 2 if set(t) == {-1.0, 1.0} else t
        p = np.where(
            z >= 0, 1 / (1 + np.exp(-np.abs(z))), 1 - 1 / (1 + np.exp(-abs(z)))
        )
        value, first, second = np.logaddexp(0, z) - t * z, p - t, p * (1 - p)
    elif loss == "squared":
        value, first, second = (z - t) ** 2 / 2, z - t, np.ones_like(z)
    elif loss == "poisson":
        value, first, second = np.exp(z) - t * z, np.exp(z) - t, np.exp(z)
    elif loss == "gamma":
        r = t * np.exp(-z)
        value, first, second = r - 1 + z - np.log(t), 1 - r, r
    elif loss == "tweedie":  # p = 3/2
        m, r = np.exp(z / 2), t * np.exp(-z / 2)
        value, first = 2 * (m + r) - 4 * np.sqrt(t), m - r
        second = (m + r) / 2
    elif loss == "quantile":  # of level 1/2
        e = np.exp(-np.abs(z - t) / 0.1)
        value = np.abs(z - t) / 2 + 0.1 * np.log1p(e)
        first = np.sign(z - t) * (1 - e) / (1 + e) / 2
        second = e / (1 + e) ** 2 / 0.1
    else:
        r = z - t
        inside = np.abs(r) <= delta
        value = np.where(inside, r * r / 2, delta * np.abs(r) - delta**2 / 2)
        first = np.where(inside, r, delta * np.sign(r))
        second = inside.astype(float)
    return value, first[:, None], second[:, None, None]


@dataclasses.dataclass
class Reference:
    """f, f_Y, f_YY and f_XY as numbers and arrays, and the predictors' loss alone."""

    value: float
    grad: np.ndarray
    hess: np.ndarray
    cross: np.ndarray


def map_of_weights(penalty, p, K, groups):
    """Return the 0/1 matrix (p K, m) of which log-penalty weighs which coefficient."""
    feature = np.repeat(np.arange(p), K)
    index = {
        "scalar": 0 * feature,
        "per-feature": feature,
        "per-coefficient": np.arange(p * K),
        "per-group": feature if groups is None else np.asarray(groups)[feature],
    }[penalty]
    return np.eye(index.max() + 1)[index]


def jacobian(F, K, intercept):
    N, p = F.shape
    D = np.einsum("ij,kl->ikjl", F, np.eye(K)).reshape(N, K, p * K)
    if intercept:
        D = np.concatenate([D, np.broadcast_to(np.eye(K), (N, K, K))], axis=2)
    return D


def reference(
    F, t, x, y, *, loss, penalty, K=1, groups=None, intercept=True, w=None, delta=1.35
):
    N, p = F.shape
    D = jacobian(F, K, intercept)
    w = np.full(N, 1 / N) if w is None else w / np.sum(w)
    value, first, second = pointwise(loss, D @ y, t, delta)
    P = map_of_weights(penalty, p, K, groups)
    weights = P @ np.exp(x)
    c = y[: p * K]
    value = w @ value + weights @ c**2 / 2
    grad = np.einsum("ikn,ik,i->n", D, first, w)
    half = (w[:, None, None] * second) @ D
    n = y.shape[0]
    hess = D.reshape(N * K, n).T @ half.reshape(N * K, n)
    grad[: p * K] += weights * c
    hess[range(p * K), range(p * K)] += weights
    cross = np.zeros((n, P.shape[1]))
    cross[: p * K] = c[:, None] * P * np.exp(x)
    if K > 1 and intercept:
        b = y[p * K :]
        value += b.mean() ** 2 / 2
        grad[p * K :] += b.mean() / K
        hess[p * K :, p * K :] += 1 / K**2
    return Reference(float(value), grad, hess, cross)


def targets_for(loss, rng, N, K=3):
    if loss == "logistic":
        return rng.integers(0, 2, N).astype(float)
    if loss == "poisson":
        return rng.poisson(1.0, N).astype(float)
    if loss in {"gamma", "tweedie"}:
        amounts = rng.gamma(2.0, 0.5, N)
        return amounts * (rng.random(N) < 0.7) if loss == "tweedie" else amounts
    if loss == "multinomial":
        t = rng.integers(0, K, N)
        t[:K] = np.arange(K)[:N]
        return t
    return 2.0 * rng.standard_normal(N)


def sparse_features(rng, N, p, density=0.1):
    data = sparse.random_array((N, p), density=density, rng=rng, format="csr")
    data.data = rng.standard_normal(data.nnz)
    return data


# features of every kind ---------------------------------------------------------------


def frozen(A):
    for part in [A] if isinstance(A, np.ndarray) else [A.data, A.indices, A.indptr]:
        part.flags.writeable = False
    return A


def strided(F):
    wide = np.full((2 * F.shape[0], 3 * F.shape[1]), np.nan)
    wide[::2, 1::3] = F
    return wide[::2, 1::3]


def operator_of(F, **options):
    return sad.LinearOperator(F.shape, lambda v: F @ v, lambda w: F.T @ w, **options)


def duplicated(F):
    """Store each entry as two halves in one cell: SciPy permits it in CSR and CSC."""
    A = sparse.csr_array(F)
    data, indices = np.repeat(A.data / 2, 2), np.repeat(A.indices, 2)
    return sparse.csr_array((data, indices, 2 * A.indptr), shape=F.shape)


SPARSE_KINDS = {
    "csr": sparse.csr_array,
    "csc": sparse.csc_array,
    "coo": sparse.coo_array,
    "csr_matrix": sparse.csr_matrix,
    "csc_matrix": sparse.csc_matrix,
    "coo_matrix": sparse.coo_matrix,
    "csr int": lambda F: sparse.csr_array(np.rint(3 * F).astype(int)),
    "csc bool": lambda F: sparse.csc_array(F > 0),
    "csr float32": lambda F: sparse.csr_array(F.astype(np.float32)),
    "csr read-only": lambda F: frozen(sparse.csr_array(F)),
    "csr duplicates": duplicated,
}
DENSE_KINDS = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "int": lambda F: np.rint(3 * F).astype(int),
    "bool": lambda F: F > 0,
    "float32": lambda F: F.astype(np.float32),
    "read-only": lambda F: frozen(F.copy()),
    "strided": strided,
}
OPERATOR_KINDS = {
    "operator": operator_of,
    "operator float32": lambda F: operator_of(F.astype(np.float32), dtype=np.float32),
    "scipy operator": sparse.linalg.aslinearoperator,
}
KINDS = {**SPARSE_KINDS, **DENSE_KINDS, **OPERATOR_KINDS}
LOSSES = ["logistic", "squared", "poisson", "huber", "multinomial"]
LOSSES += ["gamma", "tweedie", "quantile"]
PENALTIES = ["per-feature", "per-group", "per-coefficient", "scalar"]


def dense_of(features):
    if sparse.issparse(features):
        return features.toarray().astype(float)
    if isinstance(features, np.ndarray):
        return features.astype(float)
    eye = np.eye(features.shape[1], dtype=features.dtype or float)
    return np.asarray(features @ eye, dtype=float)


def small_case(loss, penalty, features, intercept=True, **options):
    """Return (glm, x, y, reference) at a random point."""
    F = dense_of(features)
    N, p = F.shape
    rng = np.random.default_rng(5)
    t = targets_for(loss, rng, N)
    K = 3 if loss == "multinomial" else 1
    groups = np.arange(p) % 2 if penalty == "per-group" else None
    glm = Glm(
        features,
        t,
        loss=loss,
        penalty=penalty,
        groups=groups,
        intercept=intercept,
        **options,
    )
    x = (rng.standard_normal(glm.m) - 1.0).astype(glm.dtype)
    y = (0.5 * rng.standard_normal(glm.n)).astype(glm.dtype)
    known = reference(
        F,
        t,
        x.astype(float),
        y.astype(float),
        loss=loss,
        penalty=penalty,
        K=K,
        groups=groups,
        intercept=intercept,
    )
    return glm, x, y, known


def assert_is_reference(glm, x, y, known):
    rtol = 2e-4 if glm.dtype == np.float32 else 1e-11
    atol = rtol * max(1.0, np.abs(known.hess).max())
    hess, cross = sad.aslinearoperator(glm.hess(x, y)), glm.cross(x, y)
    dense = hess.todense()
    assert glm.value(x, y) == pytest.approx(known.value, rel=rtol)
    np.testing.assert_allclose(glm.grad(x, y), known.grad, rtol, atol)
    np.testing.assert_allclose(dense, known.hess, rtol, atol)
    np.testing.assert_allclose(dense, dense.T, rtol, atol)
    np.testing.assert_allclose(cross.todense(), known.cross, rtol, atol)
    np.testing.assert_allclose(
        cross.T.todense(), known.cross.T, rtol, atol, err_msg="cross transposed"
    )
    if hess.has_diagonal:
        np.testing.assert_allclose(hess.diagonal(), np.diag(known.hess), rtol, atol)
    assert hess.has_diagonal == (not isinstance(glm_features(glm), sad.LinearOperator))
    V = np.random.default_rng(1).standard_normal((glm.n, 3)).astype(glm.dtype)
    columns = np.stack([hess @ V[:, j] for j in range(3)], axis=1)
    np.testing.assert_allclose(hess @ V, columns, rtol, atol)
    assert (hess @ V[:, :0]).shape == (glm.n, 0)


def glm_features(glm):
    return glm._data.design.features


BASE = np.where(
    np.random.default_rng(3).random((9, 5)) < 0.6,
    np.random.default_rng(4).standard_normal((9, 5)),
    0.0,
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", LOSSES)
def test_derivatives_and_dense_algebra(loss, kind):
    """Every penalty, with and without intercept, for one loss and kind of features."""
    features = KINDS[kind](BASE)
    for penalty in PENALTIES:
        for intercept in (True, False):
            glm, x, y, known = small_case(loss, penalty, features, intercept)
            before = y.copy(), x.copy()
            y.flags.writeable = x.flags.writeable = False
            assert sad.check_derivatives(glm, x, y)
            assert_is_reference(glm, x, y, known)
            np.testing.assert_array_equal(y, before[0])
            np.testing.assert_array_equal(x, before[1])
            assert glm.grad(x, y).dtype == glm.dtype


@pytest.mark.parametrize(
    ("N", "p", "zero_rows", "zero_columns"),
    [
        (1, 1, False, False),
        (1, 4, False, False),
        (3, 40, False, False),
        (60, 2, False, False),
        (60, 1, True, False),
        (8, 5, True, True),
        (4, 3, True, True),
        (5, 0, False, False),
    ],
)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("as_kind", ["csr", "csc", "C"])
def test_shapes_at_the_edge(loss, N, p, zero_rows, zero_columns, as_kind):
    F = np.random.default_rng(N + p).standard_normal((N, p))
    F[: N // 2] *= not zero_rows
    F[:, : (p + 1) // 2] *= not zero_columns
    for penalty in ("per-feature", "scalar"):
        for intercept in (True, False):
            if p == 0 and not (intercept and penalty == "per-feature"):
                continue
            t = targets_for(loss, np.random.default_rng(5), N, K=min(N, 2))
            K = 2 if loss == "multinomial" else 1
            if N == 1 and (K == 2 or (loss == "logistic" and intercept)):
                with pytest.raises(ValueError, match="targets"):  # one class alone
                    Glm(KINDS[as_kind](F), t, loss=loss, intercept=intercept)
                continue
            glm = Glm(
                KINDS[as_kind](F), t, loss=loss, penalty=penalty, intercept=intercept
            )
            assert glm.n == p * K + K * intercept
            assert glm.m == (1 if penalty == "scalar" else p)
            x, y = np.full(glm.m, -1.0), 0.3 * np.ones(glm.n)
            if p:
                known = reference(
                    F, t, x, y, loss=loss, penalty=penalty, K=K, intercept=intercept
                )
                assert_is_reference(glm, x, y, known)
                if loss != "huber":  # without an inlier its intercept is not isolated
                    check_solution_and_dot_test(glm, x)
            else:
                assert sad.check_derivatives(glm, x, y)


def check_solution_and_dot_test(glm, x):
    problem = sad.Problem(glm)
    solution = sad.solve(problem, x, tol=1e-10)
    J = sad.derivative(problem, solution, rtol=1e-12)
    u, v = np.ones(glm.m), np.ones(glm.n)
    forward, adjoint = v @ (J @ u), u @ (J.T @ v)
    size = np.linalg.norm(J @ u) * np.linalg.norm(v)
    size += np.linalg.norm(J.T @ v) * np.linalg.norm(u)
    assert abs(forward - adjoint) <= 1e-8 * size


# the hypergradient, densely -----------------------------------------------------------


@pytest.mark.parametrize("penalty", ["per-feature", "per-group", "scalar"])
@pytest.mark.parametrize("loss", LOSSES)
def test_hypergradient_is_the_dense_one(loss, penalty):
    """On a 200-feature sparse slice: −Bᵀ H⁻¹ ∇_y f^U, to 1e-8 of its norm."""
    rng = np.random.default_rng(11)
    A, V = sparse_features(rng, 250, 200, 0.05), sparse_features(rng, 80, 200, 0.05)
    t, s = targets_for(loss, rng, 250), targets_for(loss, rng, 80)
    K = 3 if loss == "multinomial" else 1
    groups = np.arange(200) % 7 if penalty == "per-group" else None
    glm = Glm(A, t, loss=loss, penalty=penalty, groups=groups)
    x = rng.uniform(-4, -2, glm.m)
    F = sad.Hypergradient(sad.Problem(glm), glm.held_out(V, s), tol=1e-12)
    found = F.evaluate(x)
    y = found.solution.y
    known = reference(
        A.toarray(), t, x, y, loss=loss, penalty=penalty, K=K, groups=groups
    )
    assert np.linalg.norm(known.grad) <= 1e-10
    D = jacobian(V.toarray(), K, True)
    value, first, _ = pointwise(loss, D @ y, s)
    grad_y = np.einsum("ikn,ik->n", D, first) / 80
    dense = -known.cross.T @ np.linalg.solve(known.hess, grad_y)
    assert found.value == pytest.approx(value.mean(), rel=1e-12)
    error = np.linalg.norm(found.gradient - dense)
    assert error <= 1e-8 * np.linalg.norm(dense)


def test_hypergradient_against_differences():
    rng = np.random.default_rng(2)
    glm = Glm(sparse_features(rng, 60, 15, 0.3), targets_for("logistic", rng, 60))
    held = glm.held_out(sparse_features(rng, 40, 15), targets_for("logistic", rng, 40))
    F = sad.Hypergradient(sad.Problem(glm), held, tol=1e-12)
    assert sad.check_hypergradient(F, np.full(glm.m, -3.0))


# against scikit-learn and scipy.optimize ----------------------------------------------

N_PEER, P_PEER, LAMBDA = 120, 7, 0.03


def peer_data(loss):
    rng = np.random.default_rng(17)
    F = rng.standard_normal((N_PEER, P_PEER))
    return F, targets_for(loss, rng, N_PEER)


def sklearn_logistic(F, t, solver):
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        C=1 / (len(t) * LAMBDA), solver=solver, tol=1e-10, max_iter=10_000
    ).fit(F, t)
    # Coefficients are (K, p) there and (p, K) here.
    return np.concatenate([model.coef_.T.ravel(), model.intercept_])


def sklearn_ridge(F, t):
    from sklearn.linear_model import Ridge

    model = Ridge(alpha=len(t) * LAMBDA, solver="cholesky").fit(F, t)
    return np.append(model.coef_, model.intercept_)


def sklearn_poisson(F, t):
    from sklearn.linear_model import PoissonRegressor

    model = PoissonRegressor(
        alpha=LAMBDA, tol=1e-10, max_iter=10_000, solver="newton-cholesky"
    ).fit(F, t)
    return np.append(model.coef_, model.intercept_)


def sklearn_tweedie(power):
    def fit(F, t):
        from sklearn.linear_model import TweedieRegressor

        model = TweedieRegressor(
            power=power,
            link="log",
            alpha=LAMBDA,
            tol=1e-10,
            max_iter=10_000,
            solver="newton-cholesky",
        ).fit(F, t)
        return np.append(model.coef_, model.intercept_)

    return fit


def scipy_huber(F, t):
    def f(y):
        known = reference(
            F, t, np.log([LAMBDA]), y, loss="huber", penalty="scalar", delta=1.0
        )
        return known.value, known.grad

    y0 = np.zeros(F.shape[1] + 1)
    found = optimize.minimize(
        f, y0, jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 1000}
    )
    assert np.linalg.norm(f(found.x)[1]) <= 1e-8
    return found.x


PEERS = {
    "logistic, lbfgs": ("logistic", lambda F, t: sklearn_logistic(F, t, "lbfgs")),
    "logistic, newton-cholesky": (
        "logistic",
        lambda F, t: sklearn_logistic(F, t, "newton-cholesky"),
    ),
    "logistic, newton-cg": (
        "logistic",
        lambda F, t: sklearn_logistic(F, t, "newton-cg"),
    ),
    "squared": ("squared", sklearn_ridge),
    "poisson": ("poisson", sklearn_poisson),
    "multinomial": ("multinomial", lambda F, t: sklearn_logistic(F, t, "lbfgs")),
    "gamma": ("gamma", sklearn_tweedie(2.0)),
    "tweedie 1": (Tweedie(1.0), sklearn_tweedie(1.0)),
    "tweedie 1.2": (Tweedie(1.2), sklearn_tweedie(1.2)),
    "tweedie": ("tweedie", sklearn_tweedie(1.5)),
    "tweedie 1.9": (Tweedie(1.9), sklearn_tweedie(1.9)),
    "huber": (Huber(delta=1.0), scipy_huber),
}


@pytest.mark.parametrize("peer", PEERS)
def test_minimiser_agrees_with_peers(peer):
    """The minimiser is the peer's, and the peer's point enters the derivative as it is."""
    loss, fit = PEERS[peer]
    names = {Huber: "squared", Tweedie: "tweedie"}
    F, t = peer_data(names.get(type(loss), loss))
    theirs = fit(F, t)
    glm = Glm(F, t, loss=loss, penalty="scalar")
    problem, x = sad.Problem(glm), np.log([LAMBDA])
    ours = sad.solve(problem, x, tol=1e-12)
    np.testing.assert_allclose(ours.y, theirs, rtol=0, atol=2e-6)

    v = np.random.default_rng(0).standard_normal(glm.n)
    brought = sad.Solution(y=theirs, x=x)
    np.testing.assert_allclose(
        sad.vjp(problem, brought, v).x, sad.vjp(problem, ours, v).x, rtol=1e-4
    )


@pytest.mark.parametrize("level", [0.1, 0.5, 0.8])
def test_quantile_is_near_the_exact_one(level):
    """The smoothed loss is at most δ log 2 above the exact one, so are its minimisers."""
    from sklearn.linear_model import QuantileRegressor

    F, t = peer_data("squared")
    width = 0.03
    exact = QuantileRegressor(quantile=level, alpha=0.02).fit(F, t)
    loss = Quantile(level, width)
    glm = Glm(F, t, loss=loss, penalty="scalar", norm="l1")
    y = sad.solve(sad.Problem(glm), np.log([0.02]), tol=1e-8).y

    def value(c, b):
        r = t - F @ c - b
        return np.mean(np.maximum(level * r, (level - 1) * r)) + 0.02 * np.abs(c).sum()

    best = value(exact.coef_, exact.intercept_)
    assert best - 1e-9 <= value(y[:-1], y[-1]) <= best + width * np.log(2.0)


@pytest.mark.parametrize("power", [1.0, 1.3, 1.5, 2.0])
def test_exposure_is_a_weight_of_rates(power):
    """Mean v e^z of amounts t: targets t / v, weights v^(2 − p)."""
    rng = np.random.default_rng(3)
    F = rng.standard_normal((60, 3))
    v, amounts = rng.uniform(0.2, 5.0, 60), rng.gamma(2.0, 1.0, 60)
    weights = v ** (2.0 - power)
    glm = Glm(
        F, amounts / v, loss=Tweedie(power), penalty="scalar", sample_weight=weights
    )
    x = np.array([-2.0])
    y = sad.solve(sad.Problem(glm), x, tol=1e-11).y
    z = F @ y[:-1] + y[-1] + np.log(v)
    # The gradient of the amounts' loss at mean v e^z, with the same penalty per weight.
    slope = np.exp((2 - power) * z) - amounts * np.exp((1 - power) * z)
    grad = np.append(F.T @ slope, slope.sum()) / weights.sum()
    grad[:-1] += np.exp(x) * y[:-1]
    np.testing.assert_allclose(grad, 0.0, atol=1e-9)


@settings(max_examples=100, deadline=None)
@given(
    power=st.floats(1.0, 2.0),
    z=st.floats(-12.0, 12.0),
    t=st.floats(1e-3, 1e3),
    level=st.floats(0.01, 0.99),
)
def test_losses_by_differences(power, z, t, level):
    """Value, slope, curvature and third of the losses with parameters agree."""
    for loss in (Tweedie(power), Quantile(level, 0.5)):
        h = 1e-4
        at = np.array([z - h, z, z + h])
        targets, ones = np.full(3, t), np.ones(3)
        value, slope = loss.value(at, targets), loss.slope(at, targets)
        second = loss.curvature(at, targets, ones).diagonal
        third = loss.third(at, targets, ones, ones, ones)
        size = 1.0 + np.abs(value).max() + np.abs(slope).max()
        assert abs((value[2] - value[0]) / (2 * h) - slope[1]) <= 1e-6 * size
        assert abs((slope[2] - slope[0]) / (2 * h) - second[1]) <= 1e-6 * size
        assert abs((second[2] - second[0]) / (2 * h) - third[1]) <= 1e-6 * size
        assert (second >= 0.0).all()
        assert (value >= -1e-12 * size).all()


def test_losses_refuse_wrong_parameters_and_targets():
    for wrong in (0.5, 2.1, np.nan):
        with pytest.raises(ValueError, match=r"power must be from 1 to 2"):
            Tweedie(wrong)
    for wrong in (0.0, 1.0, np.nan):
        with pytest.raises(ValueError, match=r"level must be in \(0, 1\)"):
            Quantile(wrong)
    for wrong in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match=r"width must be > 0"):
            Quantile(0.5, wrong)
    F = np.ones((3, 1))
    with pytest.raises(ValueError, match=r"Gamma loss must be > 0, found 0"):
        Glm(F, [1.0, 0.0, 2.0], loss="gamma")
    with pytest.raises(ValueError, match=r"Tweedie loss must be >= 0, found -1"):
        Glm(F, [1.0, -1.0, 2.0], loss="tweedie")


def test_amounts_of_zero_cost_nothing_far_down():
    z = np.array([-800.0, -1e4])
    with np.errstate(all="raise", under="ignore"):
        for p in (1.0, 1.5, 1.9):
            loss, none = Tweedie(p), np.zeros(2)
            assert (loss.value(z, none) >= 0.0).all()
            assert np.isfinite(loss.slope(z, none)).all()
            assert np.isfinite(loss.curvature(z, none, none + 1.0).diagonal).all()


def test_a_peers_solution_for_another_penalty_is_refused():
    F, t = peer_data("logistic")
    problem = sad.Problem(Glm(F, t, penalty="scalar"))
    brought = sad.Solution(
        y=sklearn_logistic(F, t, "newton-cholesky"), x=np.log([10 * LAMBDA])
    )
    with pytest.raises(sad.ConvergenceError) as caught:
        sad.vjp(problem, brought, brought.y)
    assert caught.value.status is sad.Status.NOT_STATIONARY


# weights and labels -------------------------------------------------------------------

WEIGHTS = {
    "float array": lambda w: w.astype(float),
    "float32 array": lambda w: w.astype(np.float32),
    "int array": lambda w: w,
    "list": lambda w: [float(v) for v in w],
    "int list": lambda w: [int(v) for v in w],
}


@pytest.mark.parametrize("form", WEIGHTS)
@pytest.mark.parametrize("loss", LOSSES)
def test_weights_repeat_and_remove_rows(loss, form):
    rng = np.random.default_rng(8)
    F, t = rng.standard_normal((12, 4)), targets_for(loss, rng, 12)
    counts = np.array([0, 1, 2, 3] * 3)
    rows = np.repeat(np.arange(12), counts)
    weighted = Glm(F, t, loss=loss, sample_weight=WEIGHTS[form](counts))
    repeated = Glm(F[rows], t[rows], loss=loss)
    assert_same_model(weighted, repeated)
    held = weighted.held_out(F, t, sample_weight=WEIGHTS[form](counts))
    same = weighted.held_out(F[rows], t[rows])
    y = rng.standard_normal(weighted.n)
    assert held.value(None, y) == pytest.approx(same.value(None, y), rel=1e-12)
    np.testing.assert_allclose(held.grad_y(None, y), same.grad_y(None, y), 1e-10, 1e-14)


def assert_same_model(one, other):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(one.m), rng.standard_normal(one.n)
    assert one.value(x, y) == pytest.approx(other.value(x, y), rel=1e-12)
    np.testing.assert_allclose(one.grad(x, y), other.grad(x, y), 1e-10, 1e-13)
    np.testing.assert_allclose(
        one.hess(x, y).todense(), other.hess(x, y).todense(), 1e-10, 1e-13
    )
    np.testing.assert_allclose(
        one.hess(x, y).diagonal(), other.hess(x, y).diagonal(), 1e-10, 1e-13
    )


def test_the_scale_of_the_weights_does_not_matter():
    rng = np.random.default_rng(8)
    F, t, w = rng.standard_normal((9, 3)), targets_for("poisson", rng, 9), rng.random(9)
    assert_same_model(
        Glm(F, t, loss="poisson", sample_weight=w),
        Glm(F, t, loss="poisson", sample_weight=1e6 * w),
    )


@pytest.mark.parametrize(
    "labels",
    [
        lambda t: 2.0 * t - 1.0,
        lambda t: (2 * t - 1).astype(int),
        lambda t: t.astype(bool),
        lambda t: t.astype(int),
        lambda t: [int(v) for v in t],
        lambda t: t.astype(np.float32),
    ],
    ids=["-1/+1", "-1/+1 int", "bool", "int", "list", "float32"],
)
def test_labels_in_every_form(labels):
    rng = np.random.default_rng(8)
    F, t = rng.standard_normal((9, 3)), targets_for("logistic", rng, 9)
    assert_same_model(Glm(F, labels(t)), Glm(F, t))


def test_soft_labels():
    rng = np.random.default_rng(8)
    F, t = rng.standard_normal((9, 3)), rng.random(9)
    twice = Glm(
        np.concatenate([F, F]),
        np.repeat([1.0, 0.0], 9),
        sample_weight=np.concatenate([t, 1 - t]),
    )
    assert_same_model(Glm(F, t), twice)
    hot = np.stack([1 - t, t], axis=1)
    both = Glm(
        np.concatenate([F, F]),
        np.repeat([1, 0], 9),
        loss="multinomial",
        sample_weight=np.concatenate([t, 1 - t]),
    )
    assert_same_model(Glm(F, hot, loss="multinomial"), both)


# the multinomial model ----------------------------------------------------------------


@pytest.mark.parametrize("penalty", PENALTIES)
def test_multinomial_intercepts_sum_to_zero(penalty):
    rng = np.random.default_rng(21)
    F, t = rng.standard_normal((50, 4)), targets_for("multinomial", rng, 50)
    groups = [0, 0, 1, 1] if penalty == "per-group" else None
    glm = Glm(F, t, loss="multinomial", penalty=penalty, groups=groups)
    assert glm.m == {"per-feature": 4, "per-group": 2, "scalar": 1}.get(penalty, 12)
    problem, x = sad.Problem(glm), rng.uniform(-4, -2, glm.m)
    y0 = rng.standard_normal(glm.n) + np.repeat([0.0, 3.0], [12, 3])
    for start in (None, y0):
        solution = sad.solve(problem, x, start, tol=1e-11)
        assert abs(solution.y[12:].sum()) <= 1e-8
    J = sad.derivative(problem, solution, rtol=1e-12)
    assert sad.dot_test(J, rtol=1e-9)
    known = reference(
        F, t, x, solution.y, loss="multinomial", penalty=penalty, K=3, groups=groups
    )
    dense = -np.linalg.solve(known.hess, known.cross)
    error = np.abs(J.todense() - dense).max()
    assert error <= 1e-8 * np.abs(dense).max()
    assert np.abs(J.todense()[12:].sum(axis=0)).max() <= 1e-9


def test_two_classes_are_the_logistic_model():
    """Soft-max of (−z/2, z/2) at half the penalty each: the same predictions."""
    rng = np.random.default_rng(21)
    F, t = rng.standard_normal((50, 4)), targets_for("logistic", rng, 50)
    x = np.full(4, -3.0)
    one = sad.solve(sad.Problem(Glm(F, t)), x, tol=1e-12).y
    two = sad.solve(
        sad.Problem(Glm(F, t, loss="multinomial")), x + np.log(2.0), tol=1e-12
    ).y.reshape(5, 2)
    np.testing.assert_allclose(two[:, 1] - two[:, 0], one, atol=1e-9)


def test_held_out_targets_may_lack_classes():
    rng = np.random.default_rng(2)
    F, t = rng.standard_normal((30, 4)), targets_for("multinomial", rng, 30, K=4)
    glm = Glm(F, t, loss="multinomial")
    V = rng.standard_normal((6, 4))
    y = rng.standard_normal(glm.n)
    for classes in ([0] * 6, [1, 0, 1, 0, 1, 1], [3] * 6, [0, 1, 2, 3, 2, 1]):
        held = glm.held_out(V, np.array(classes))
        D = jacobian(V, 4, True)
        value, first, _ = pointwise("multinomial", D @ y, np.array(classes))
        grad = np.einsum("ikn,ik->n", D, first) / 6
        assert held.value(None, y) == pytest.approx(value.mean(), rel=1e-12)
        np.testing.assert_allclose(held.grad_y(None, y), grad, 1e-11, 1e-14)
    with pytest.raises(
        ValueError, match=r"targets must be classes 0 \.\.\. 3, found 4"
    ):
        glm.held_out(V, np.array([0, 1, 2, 3, 4, 0]))
    with pytest.raises(ValueError, match="4 columns, found 3"):
        glm.held_out(V, np.full((6, 3), 1 / 3))


@pytest.mark.parametrize("loss", LOSSES)
def test_held_out_loss(loss):
    rng = np.random.default_rng(2)
    F, t = rng.standard_normal((30, 4)), targets_for(loss, rng, 30)
    V, s = rng.standard_normal((20, 4)), targets_for(loss, rng, 20)
    K = 3 if loss == "multinomial" else 1
    for intercept in (True, False):
        glm = Glm(F, t, loss=loss, intercept=intercept)
        y = 0.5 * rng.standard_normal(glm.n)
        D = jacobian(V, K, intercept)
        value, first, _ = pointwise(loss, D @ y, s)
        grad = np.einsum("ikn,ik->n", D, first) / 20
        direct = HeldOutLoss(V, s, loss=loss, intercept=intercept)
        for held in (glm.held_out(V, s), direct, glm.held_out(sparse.csr_array(V), s)):
            assert held.value(None, y) == pytest.approx(value.mean(), rel=1e-12)
            np.testing.assert_allclose(held.grad_y(None, y), grad, 1e-11, 1e-14)
            assert held.grad_x(None, y) is None
        z = glm.predictor(V, y)
        np.testing.assert_allclose(z.reshape(20, K), D @ y, 1e-12, 1e-14)


# precision ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csr", "C", "operator"])
@pytest.mark.parametrize("loss", LOSSES)
def test_float32_stays_float32_and_agrees(loss, kind):
    rng = np.random.default_rng(6)
    F, t = rng.standard_normal((60, 8)), targets_for(loss, rng, 60)
    V, s = rng.standard_normal((30, 8)), targets_for(loss, rng, 30)
    found = {}
    for dtype in (np.float32, np.float64):
        options = {"dtype": dtype} if kind == "operator" else {}
        glm = Glm(KINDS[kind](F.astype(dtype), **options), t, loss=loss)
        assert glm.dtype == dtype
        held = glm.held_out(KINDS[kind](V.astype(dtype), **options), s)
        tol = 1e-4 if dtype == np.float32 else 1e-10
        G = sad.Hypergradient(sad.Problem(glm), held, tol=tol)
        found[dtype] = G.evaluate(np.full(glm.m, -2.0, dtype=dtype))
        assert found[dtype].solution.y.dtype == dtype
        assert found[dtype].gradient.dtype == dtype
    single, double = found[np.float32], found[np.float64]
    assert single.value == pytest.approx(double.value, rel=1e-3)
    error = np.linalg.norm(single.gradient - double.gradient)
    assert error <= 2e-3 * np.linalg.norm(double.gradient)
    error = np.linalg.norm(single.solution.y - double.solution.y)
    assert error <= 1e-3 * np.linalg.norm(double.solution.y)


@pytest.mark.parametrize("kind", ["csr", "C"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", LOSSES)
def test_extreme_predictors_stay_finite(loss, dtype, kind):
    F = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, -1.0]])
    t = np.array([0, 1, 1, 0])
    # e^1000 is beyond any float
    size = {"poisson": -1e3, "tweedie": 1e2}.get(loss, 1e3)
    K = 2 if loss == "multinomial" else 1
    glm = Glm(
        KINDS[kind](F.astype(dtype)), t + (loss == "gamma"), loss=loss, intercept=False
    )
    signs = np.array([[1.0, -1.0], [0.25, 2.0]])[:, :K].ravel()
    amounts = loss in {"poisson", "gamma", "tweedie"}
    y = (size * np.abs(signs) if amounts else size * signs).astype(dtype)
    x = np.full(2, -3.0, dtype=dtype)
    if amounts:
        F[3], t = 0.0, t + (loss == "gamma")
        glm = Glm(KINDS[kind](F.astype(dtype)), t, loss=loss, intercept=False)
    known = reference(
        F,
        t,
        x.astype(float),
        y.astype(float),
        loss=loss,
        penalty="per-feature",
        K=K,
        intercept=False,
    )
    rtol = 1e-5 if dtype == np.float32 else 1e-12
    assert glm.value(x, y) == pytest.approx(known.value, rel=rtol)
    np.testing.assert_allclose(glm.grad(x, y), known.grad, rtol, rtol)
    np.testing.assert_allclose(glm.hess(x, y).todense(), known.hess, rtol, rtol)


@pytest.mark.parametrize("z", [-1e3, -40.0, 40.0, 1e3])
@pytest.mark.parametrize("t", [0.0, 1.0])
def test_logistic_far_from_the_origin(z, t):
    """A well-classified sample keeps its loss: log1p(e^-40) is 4e-18, not 0."""
    at, targets = np.array([z]), np.array([t])
    value = Logistic().value(at, targets)[0]
    exact = np.log1p(np.exp(-abs(z))) + (max(z, 0.0) - t * z)
    assert value == pytest.approx(exact, rel=1e-14, abs=0)
    tail = np.exp(-abs(z)) / (1.0 + np.exp(-abs(z)))
    wrong = (z > 0.0) != (t > 0.0)  # p is on the other side of t
    slope = (1.0 - 2.0 * t) * (1.0 - tail if wrong else tail)
    assert Logistic().slope(at, targets)[0] == pytest.approx(slope, rel=1e-14, abs=0)
    curvature = Logistic().curvature(at, targets, np.ones(1)).diagonal[0]
    assert curvature == pytest.approx(tail * (1.0 - tail), rel=1e-14, abs=0)


@pytest.mark.parametrize("kind", ["csr", "C"])
def test_poisson_steps_that_overflow_are_refused_quietly(kind):
    """Counts of a million: the first Newton step from 0 lands at e^1000000."""
    rng = np.random.default_rng(3)
    F = np.abs(rng.standard_normal((30, 3)))
    counts = np.full(30, 1e6)
    glm = Glm(KINDS[kind](F), counts, loss="poisson", penalty="scalar")
    solution = sad.solve(sad.Problem(glm), np.array([0.0]), tol=1e-10)
    known = reference(
        F, counts, np.zeros(1), solution.y, loss="poisson", penalty="scalar"
    )
    assert np.linalg.norm(known.grad) <= 1e-9 * 1e6 * 10
    assert solution.y[-1] == pytest.approx(np.log(1e6), rel=1e-3)


# cost ---------------------------------------------------------------------------------


class Counted:
    """Features as an operator that counts its products, a block as one pass."""

    def __init__(self, F):
        self.forward = self.transposed = 0

        def count_forward(v):
            self.forward += 1
            return F @ v

        def count_transposed(v):
            self.transposed += 1
            return F.T @ v

        self.operator = sad.LinearOperator(
            F.shape,
            count_forward,
            count_transposed,
            matmat=count_forward,
            rmatmat=count_transposed,
            dtype=F.dtype,
        )

    def spent(self):
        counts = self.forward, self.transposed
        self.forward = self.transposed = 0
        return counts


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
def test_passes_over_the_features(loss, intercept):
    rng = np.random.default_rng(4)
    F = rng.standard_normal((20, 6))
    counted = Counted(F)
    glm = Glm(
        counted.operator, targets_for(loss, rng, 20), loss=loss, intercept=intercept
    )
    x, y = np.full(glm.m, -1.0), 0.1 * rng.standard_normal(glm.n)
    assert counted.spent() == (0, 0)
    glm.value(x, y)
    glm.grad(x, y)
    hess = glm.hess(x, y)
    cross = glm.cross(x, y)
    assert counted.spent() == (1, 1), "value, grad and hess at one y share a product"
    for _ in range(3):
        hess @ y
    assert counted.spent() == (3, 3)
    if loss != "multinomial":
        hess @ rng.standard_normal((glm.n, 4))
        assert counted.spent() == (1, 1), "a block is one pass"
    cross @ x
    cross.T @ y
    glm.grad(x + 1.0, y)
    assert counted.spent() == (0, 0), "the penalty needs no pass"
    y += 1.0
    np.testing.assert_allclose(
        glm.grad(x, y),
        Glm(F, glm._data.targets, loss=loss, intercept=intercept).grad(x, y),
        err_msg="the shared product must follow a y that is changed in place",
    )
    assert counted.spent() == (1, 1)
    glm.scale(x)
    counted.spent()
    glm.scale(x + 1.0)
    assert counted.spent() == (0, 0)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("kind", ["csr", "csc", "C"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_hessian_product_allocates_few_vectors(loss, kind, intercept):
    rng = np.random.default_rng(4)
    N, p = (3000, 4000) if kind != "C" else (1500, 1000)
    A = sparse_features(rng, N, p, 0.002)
    K = 3 if loss == "multinomial" else 1
    glm = Glm(
        KINDS[kind](A.toarray()),
        targets_for(loss, rng, N),
        loss=loss,
        intercept=intercept,
    )
    hess = glm.hess(np.zeros(glm.m), np.zeros(glm.n))
    v = rng.standard_normal(glm.n)
    hess @ v
    tracemalloc.start()
    hess @ v
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= (2 * N * K + 4 * glm.n) * 8 + 20_000


def test_sparse_features_are_not_copied():
    A = sparse.random_array((500, 400), density=0.2, rng=np.random.default_rng(0))
    for kind in ("csr", "csc"):
        features = KINDS[kind](A)
        glm = Glm(features, np.ones(500), loss="squared")
        assert np.shares_memory(glm_features(glm).data, features.data)
    dense = A.toarray()
    assert glm_features(Glm(dense, np.ones(500), loss="squared")) is dense


# what the user hands over is the user's -----------------------------------------------


def test_an_operator_that_returns_its_operand():
    """The identity as features, written the obvious way, must not be written into."""
    t, y, v = np.array([0.5, 2.0, 1.0]), np.arange(1.0, 5.0), np.ones(4)
    eye = sad.LinearOperator((3, 3), lambda u: u, lambda u: u, dtype=np.float64)
    x = np.zeros(3)
    ours, plain = Glm(eye, t, loss="poisson"), Glm(np.eye(3), t, loss="poisson")
    results = [
        (glm.value(x, y), glm.grad(x, y), glm.hess(x, y) @ v) for glm in (ours, plain)
    ]
    np.testing.assert_array_equal(y, np.arange(1.0, 5.0))
    np.testing.assert_array_equal(v, np.ones(4))
    for mine, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(mine, theirs)


def test_an_integer_operator_is_not_rounded():
    """Weights 1/N are 0 in the features' own dtype when that is int64."""
    F = np.arange(12).reshape(4, 3) % 5
    t = np.array([0, 1, 1, 0])
    x, y = np.zeros(3), np.array([0.3, -0.2, 0.1, 0.7])
    ours, plain = Glm(operator_of(F, dtype=F.dtype), t), Glm(F, t)
    assert ours.dtype == np.float64
    assert ours.value(x, y) == pytest.approx(plain.value(x, y))
    np.testing.assert_allclose(ours.grad(x, y), plain.grad(x, y))


class OwnSquares:
    """½ z² − t z: a user's loss whose slope and curvature reuse what they are given."""

    def prepare(self, targets, dtype, outputs=None):
        return np.asarray(targets, dtype=dtype)

    def outputs(self, targets):
        return 1

    def value(self, z, targets):
        return 0.5 * z * z - targets * z

    def slope(self, z, targets):
        return z if not targets.any() else z - targets

    def curvature(self, z, targets, weights):
        return Squared().curvature(z, targets, weights)


def test_a_users_loss():
    F = np.arange(12.0).reshape(4, 3) % 5
    x, y = np.zeros(3), np.array([0.3, -0.2, 0.1, 0.7])
    for t in (np.zeros(4), np.ones(4)):
        ours, plain = Glm(F, t, loss=OwnSquares()), Glm(F, t, loss="squared")
        for _ in range(2):  # the second time from the shared predictor
            np.testing.assert_allclose(ours.grad(x, y), plain.grad(x, y))
            rest = 0.5 * np.mean(t * t)
            assert ours.value(x, y) + rest == pytest.approx(plain.value(x, y))


# wrong arguments ----------------------------------------------------------------------

F43 = np.arange(12.0).reshape(4, 3)
T4 = np.array([0.0, 1.0, 1.0, 0.0])
NAN = np.array([0.0, np.nan, 1.0, 0.0])
COMPLEX = F43 + 1j

WRONG = {
    "too few targets": (ValueError, "targets must have 4 entries", {"targets": T4[:3]}),
    "too many targets": (ValueError, "found 5", {"targets": np.append(T4, 1.0)}),
    "2-D targets": (ValueError, "targets must be 1-D", {"targets": T4[:, None]}),
    "NaN targets": (ValueError, "finite", {"targets": NAN}),
    "infinite targets": (ValueError, "finite", {"targets": np.inf * (T4 + 1)}),
    "NaN targets, squared": (ValueError, "finite", {"targets": NAN, "loss": "squared"}),
    "NaN targets, huber": (ValueError, "finite", {"targets": NAN, "loss": "huber"}),
    "NaN targets, poisson": (ValueError, "finite", {"targets": NAN, "loss": "poisson"}),
    "NaN targets, multinomial": (
        ValueError,
        "finite",
        {"targets": NAN, "loss": "multinomial"},
    ),
    "labels 0, 2": (ValueError, r"-1/\+1 or lie in", {"targets": 2 * T4}),
    "labels -1, 0": (ValueError, r"-1/\+1 or lie in", {"targets": -T4}),
    "negative counts": (ValueError, ">= 0", {"targets": -T4, "loss": "poisson"}),
    "half a class": (ValueError, "classes", {"targets": T4 / 2, "loss": "multinomial"}),
    "negative class": (ValueError, "classes", {"targets": -T4, "loss": "multinomial"}),
    "no probabilities": (
        ValueError,
        "probabilities",
        {"targets": np.ones((4, 3)), "loss": "multinomial"},
    ),
    "one class as 2-D": (
        ValueError,
        "targets",
        {"targets": np.ones((4, 1)), "loss": "multinomial"},
    ),
    "unknown loss": (ValueError, "loss must be one of 'squared'", {"loss": "hinge"}),
    "unknown penalty": (ValueError, "penalty must be one of", {"penalty": "l1"}),
    "groups without per-group": (ValueError, "per-group", {"groups": [0, 1, 1]}),
    "per-group without groups": (ValueError, "groups", {"penalty": "per-group"}),
    "negative groups": (
        ValueError,
        "groups must be >= 0, found -1",
        {"penalty": "per-group", "groups": [0, -1, 1]},
    ),
    "too few groups": (
        ValueError,
        "groups must be whole numbers",
        {"penalty": "per-group", "groups": [0, 1]},
    ),
    "fractional groups": (
        ValueError,
        "groups must be whole numbers",
        {"penalty": "per-group", "groups": [0.0, 1.0, 1.0]},
    ),
    "no rows": (ValueError, "at least one row", {"features": F43[:0], "targets": []}),
    "no rows, sparse": (
        ValueError,
        "at least one row",
        {"features": sparse.csr_array((0, 3)), "targets": np.zeros(0)},
    ),
    "no rows, multinomial": (
        ValueError,
        "at least one row",
        {"features": F43[:0], "targets": np.zeros(0), "loss": "multinomial"},
    ),
    "complex features": (TypeError, "features must be real", {"features": COMPLEX}),
    "complex sparse features": (
        TypeError,
        "features must be real",
        {"features": sparse.csr_array(COMPLEX)},
    ),
    "complex SciPy operator": (
        TypeError,
        "real",
        {"features": sparse.linalg.aslinearoperator(COMPLEX)},
    ),
    "complex operator": (
        TypeError,
        "real",
        {"features": operator_of(COMPLEX, dtype=complex)},
    ),
    "complex targets": (TypeError, "targets", {"targets": T4 + 1j}),
    "1-D features": (ValueError, "features must be 2-D", {"features": T4}),
    "1-D sparse features": (
        ValueError,
        "features must be 2-D",
        {"features": sparse.coo_array(T4)},
    ),
    "features of words": (TypeError, "features", {"features": np.full((4, 3), "a")}),
    "features as a number": (TypeError, "float", {"features": 1.0}),
    "negative weight": (ValueError, "sample_weight", {"sample_weight": T4 - 0.5}),
    "NaN weight": (ValueError, "sample_weight", {"sample_weight": NAN}),
    "weights all 0": (ValueError, "sample_weight", {"sample_weight": 0 * T4}),
    "infinite weight": (
        ValueError,
        "sample_weight",
        {"sample_weight": np.full(4, np.inf)},
    ),
    "too few weights": (ValueError, "sample_weight", {"sample_weight": T4[:3]}),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments(case):
    error, message, changes = WRONG[case]
    arguments = {"features": F43, "targets": T4, "loss": "logistic"} | changes
    features, targets = arguments.pop("features"), arguments.pop("targets")
    with pytest.raises(error, match=message):
        Glm(features, targets, **arguments)


@pytest.mark.parametrize("delta", [0.0, -1.0, np.nan])
def test_wrong_delta(delta):
    with pytest.raises(ValueError, match="delta must be > 0"):
        Huber(delta=delta)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("change", [-1, 1])
def test_wrong_size_of_x(penalty, change):
    groups = [0, 1, 1] if penalty == "per-group" else None
    glm = Glm(F43, T4, penalty=penalty, groups=groups)
    x = np.zeros(glm.m + change)
    with pytest.raises(ValueError, match=f"x must have shape \\({glm.m},\\)"):
        sad.solve(sad.Problem(glm), x)


@pytest.mark.parametrize("columns", [1, 2, 4, 5])
@pytest.mark.parametrize("kind", ["C", "csr", "operator"])
def test_other_features_have_the_columns_of_the_model(columns, kind):
    """With fewer columns, a coefficient would pass for the intercept."""
    glm, other = Glm(F43, T4), KINDS[kind](np.ones((4, columns)))
    with pytest.raises(ValueError, match=f"columns.*{columns}|{columns}.*columns"):
        glm.predictor(other, np.arange(4.0))
    with pytest.raises(ValueError, match=f"columns.*{columns}|{columns}.*columns"):
        glm.held_out(other, T4)


def test_held_out_loss_of_another_size_than_y():
    """What does not fit is refused by ``value`` too, which a line search calls alone."""
    y = np.arange(1.0, 5.0)
    with pytest.raises(ValueError, match=r"y must have shape \(3,\)"):
        HeldOutLoss(F43[:, :2], T4).value(None, y)
    with pytest.raises(ValueError, match=r"y must have shape \(3,\)"):
        HeldOutLoss(F43, T4, intercept=False).value(None, y)
    two = HeldOutLoss(F43, [0, 1, 1, 0], loss="multinomial")
    with pytest.raises(ValueError, match=r"y must have shape \(8,\)"):
        two.value(None, np.ones(12))  # of a model of three classes


def test_names_and_objects_are_the_same_losses():
    pairs = {
        "logistic": Logistic(),
        "squared": Squared(),
        "poisson": Poisson(),
        "huber": Huber(),
        "multinomial": Multinomial(),
    }
    for name, instance in pairs.items():
        t = targets_for(name, np.random.default_rng(0), 9)
        assert_same_model(Glm(BASE, t, loss=name), Glm(BASE, t, loss=instance))
        assert f"9 x 5, loss={instance}" in repr(Glm(BASE, t, loss=name))


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("intercept", [True, False])
def test_no_features_at_all(loss, intercept):
    """Then there are no penalties: F is a constant, its gradient is empty."""
    targets = np.array([0.0, 1.0, 1.0])
    glm = Glm(np.zeros((3, 0)), targets, loss=loss, intercept=intercept)
    held_out = glm.held_out(np.zeros((3, 0)), targets)
    found = sad.Hypergradient(sad.Problem(glm), held_out).evaluate(np.zeros(0))
    z = 0.0
    if intercept:
        z = targets.mean() if loss == "squared" else np.log(2.0)
    losses = {
        "squared": 0.5 * (z - targets) ** 2,
        "logistic": np.log1p(np.exp(z)) - targets * z,
    }
    np.testing.assert_allclose(found.value, losses[loss].mean(), rtol=1e-12)
    assert found.gradient.shape == (0,)


def test_features_as_lists():
    rows, targets = [[1.0, 2.0], [0.0, 1.0], [3.0, 1.0]], [0.0, 1.0, 1.0]
    x, y = np.zeros(2), np.ones(3)
    found = Glm(rows, targets).grad(x, y)
    np.testing.assert_array_equal(found, Glm(np.array(rows), targets).grad(x, y))


@pytest.mark.parametrize("part", ["value", "slope", "_second"])
def test_a_subclass_that_changes_one_part_of_a_loss_is_obeyed(part):
    """The parts that ``Logistic`` computes together are not those of a subclass."""

    def doubled(self, *arguments):
        return 2.0 * getattr(super(Doubled, self), part)(*arguments)

    Doubled = type("Doubled", (Logistic,), {part: doubled})
    rng = np.random.default_rng(3)
    X, t = rng.standard_normal((30, 4)), rng.choice([-1.0, 1.0], 30)
    x, y, v = np.zeros(1), rng.standard_normal(4), rng.standard_normal(4)
    glms = [
        Glm(X, t, loss=loss, penalty="scalar", intercept=False)
        for loss in (Logistic(), Doubled())
    ]
    parts = {
        "value": [glm.value(x, y) - 0.5 * y @ y for glm in glms],
        "slope": [glm.grad(x, y) - y for glm in glms],
        "_second": [glm.hess(x, y) @ v - v for glm in glms],
    }
    for name, (plain, changed) in parts.items():
        np.testing.assert_allclose(changed, plain * (2.0 if name == part else 1.0))


def test_a_copy_computes_its_parts_again():
    rng = np.random.default_rng(4)
    at = LossAt(Logistic(), rng.standard_normal(5), np.ones(5), np.ones(5))
    names = vars(at).keys()
    value = at.value  # the slopes and the curvature with it
    copied = pickle.loads(pickle.dumps(at))
    assert vars(copied).keys() == names
    assert copied._slopes is None
    assert copied.value == value
