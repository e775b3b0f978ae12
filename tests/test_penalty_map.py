"""Log-weights η = o + Z x: names and tables agree, infinite weights leave the solve."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.linalg import LinearOperator as ScipyOperator

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm

RNG = np.random.default_rng(7)
N, P, K = 30, 5, 3
F = RNG.standard_normal((N, P)) * 10.0 ** RNG.integers(-2, 3, P)
REAL = RNG.standard_normal(N)
CLASSES = np.r_[np.arange(K), RNG.integers(0, K, N - K)]
GROUPS = np.array([1, 0, 1, 3, 0])


def targets(loss):
    return {"squared": REAL, "multinomial": CLASSES}[loss]


def one_hot(index):
    return np.eye(int(index.max()) + 1)[index]


NAMED = {
    "scalar": (np.ones((P, 1)), {}),
    "per-feature": (np.eye(P), {}),
    "per-group": (one_hot(GROUPS), {"groups": GROUPS}),
    "per-coefficient": (None, {}),
}
AS = {
    "array": lambda Z: Z,
    "fortran": np.asfortranarray,
    "integers": lambda Z: Z.astype(int),
    "csr": sparse.csr_array,
    "coo": sparse.coo_matrix,
    "operator": sad.aslinearoperator,
}


@pytest.mark.parametrize("form", AS)
@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("loss", ["squared", "multinomial"])
@pytest.mark.parametrize("offset", [None, np.linspace(-1.0, 1.0, P)])
def test_a_name_is_its_table(name, loss, form, offset):
    Z, options = NAMED[name]
    size = P * (K if loss == "multinomial" else 1)
    Z = np.eye(size) if Z is None else Z
    given = {"loss": loss, "log_offset": offset}
    named = Glm(F, targets(loss), penalty=name, **given, **options)
    table = Glm(F, targets(loss), penalty=AS[form](Z), **given)
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal(named.m), rng.standard_normal(named.n)
    assert table.m == named.m
    assert table.value(x, y) == named.value(x, y)
    np.testing.assert_array_equal(table.grad(x, y), named.grad(x, y))
    u, w = rng.standard_normal(named.m), rng.standard_normal(named.n)
    one, other = named.cross(x, y), table.cross(x, y)
    np.testing.assert_allclose(other @ u, one @ u, 1e-13, 1e-13)
    np.testing.assert_allclose(other.T @ w, one.T @ w, 1e-12, 1e-12)


@pytest.mark.parametrize("rows", ["features", "coefficients"])
@pytest.mark.parametrize("form", AS)
def test_the_derivative_is_the_transpose_of_the_one_per_coefficient(form, rows):
    """Rank-deficient Z, x with a null space, too."""
    size = P if rows == "features" else P * K
    rng = np.random.default_rng(2)
    Z = rng.integers(-1, 2, (size, 2)).astype(float) @ rng.integers(-1, 2, (2, 4))
    glm = Glm(F, CLASSES, loss="multinomial", penalty=AS[form](Z))
    per = Glm(F, CLASSES, loss="multinomial", penalty="per-coefficient")
    each = Z if rows == "coefficients" else np.repeat(Z, K, axis=0)
    x, w = 0.3 * rng.standard_normal(4), rng.standard_normal(glm.n)
    y = rng.standard_normal(glm.n)
    assert glm.value(x, y) == pytest.approx(per.value(each @ x, y), rel=1e-14)
    expected = each.T @ (per.cross(each @ x, y).T @ w)
    np.testing.assert_allclose(glm.cross(x, y).T @ w, expected, 1e-11, 1e-11)
    assert sad.check_derivatives(glm, x, y)


def moments():
    return np.stack([np.ones(P), np.log(np.mean(F**2, axis=0))], axis=1)


@pytest.mark.parametrize("form", AS)
def test_hypergradients_of_a_table_against_differences(form):
    Z = np.round(moments()) if form == "integers" else moments()
    glm = Glm(F, REAL, loss="squared", penalty=AS[form](Z))
    held = glm.held_out(F[::2] + 0.1, REAL[::2])
    H = sad.Hypergradient(sad.Problem(glm), held, tol=1e-12)
    x = np.array([-1.0, 0.7])
    assert sad.check_hypergradient(H, x)
    certificate = H.evaluate(x).certificate
    proven = certificate.descent == "proven"
    assert proven == (form != "operator")
    assert certificate.descent in {"proven", "estimated"}


def test_bounds_that_a_table_proves_are_above_the_truth():
    glm = Glm(F / np.abs(F).max(axis=0), REAL, loss="squared", penalty=moments() / 9)
    problem, held = sad.Problem(glm), glm.held_out(F[::2] / 7, REAL[::2])
    x = np.array([-1.0, 0.7])
    exact = sad.Hypergradient(problem, held, tol=1e-13).evaluate(x)
    loose = sad.Hypergradient(problem, held, tol=1e-3).evaluate(x)
    error = np.linalg.norm(loose.gradient - exact.gradient)
    assert error <= loose.certificate.gradient_error
    assert loose.certificate.bound.gradient_error < 1e3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_single_precision_stays(dtype):
    glm = Glm(F.astype(dtype), REAL, loss="squared", penalty=moments())
    x = np.array([0.1, 0.2])
    assert glm.grad(x, np.ones(glm.n, dtype)).dtype == dtype
    cross = glm.cross(x, np.ones(glm.n, dtype))
    assert (cross.T @ np.ones(glm.n, dtype)).dtype == dtype
    assert (cross @ np.ones(2)).dtype == dtype


def test_units():
    """Features × D with the moments of the new ones: the same predictions."""
    D = 10.0 ** np.array([-3.0, 8.0, 0.0, -8.0, 2.0])
    second = np.mean((F * D) ** 2, axis=0)
    x = np.array([-0.5, 1.0])
    found = []
    for features, m in ((F, np.mean(F**2, axis=0)), (F * D, second)):
        Z = np.stack([np.ones(P), np.log(m)], axis=1)
        glm = Glm(features, REAL, loss="squared", penalty=Z)
        y = sad.solve(sad.Problem(glm), x, tol=1e-12).y
        found.append(glm.predictor(features, y))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-8)


# infinite weights ---------------------------------------------------------------------


FREE_AND_FIXED = np.array([0.0, -np.inf, np.inf, 0.0, 0.0])


@pytest.mark.parametrize("kernels", ["reference", "compiled"])
@pytest.mark.parametrize("loss", ["squared", "multinomial"])
def test_infinite_offsets(loss, kernels):
    """Fixed: the model without the column.  Free: no penalty.  y keeps its size."""
    if kernels == "compiled":
        pytest.importorskip("numba")
    options = {"loss": loss, "kernels": kernels}
    features = sparse.csr_array(F)
    whole = Glm(features, targets(loss), log_offset=FREE_AND_FIXED, **options)
    x = np.array([-1.0, 3.0, -2.0, 0.5, 0.0])
    start = np.ones(whole.n)
    found = sad.solve(sad.Problem(whole), x, start, tol=1e-12)
    k = whole.n // (P + 1)
    kept = np.delete(np.arange(whole.n).reshape(P + 1, k), 2, axis=0).reshape(-1)
    without = Glm(
        sparse.csr_array(np.delete(F, 2, axis=1)),
        targets(loss),
        log_offset=np.delete(FREE_AND_FIXED, 2),
        **options,
    )
    start = start[kept]
    small = sad.solve(sad.Problem(without), np.delete(x, 2), start, tol=1e-12)
    assert np.all(found.y[2 * k : 3 * k] == 0.0)
    one, other = found.y[kept].reshape(P, k), small.y.reshape(P, k)
    # What is common to all classes of a free feature is not determined.
    common = one.mean(axis=1) - other.mean(axis=1) if k > 1 else np.zeros(P)
    assert set(np.nonzero(np.abs(common) > 1e-9)[0]) <= {1}
    np.testing.assert_allclose(one - common[:, None], other, 1e-8, 1e-10)
    fixed = ", ".join(map(str, range(2 * k, 3 * k)))
    (note,) = found.warnings
    assert f"{fixed} of infinite weight: fixed at 0" in note
    assert "of weight 0: not penalised" in note
    assert k > 1 or found.n_hvp <= small.n_hvp + 2


@pytest.mark.parametrize("loss", ["squared", "multinomial"])
def test_derivatives_by_infinite_log_weights_are_zero(loss):
    F2 = F / np.abs(F).max(axis=0)
    glm = Glm(F2, targets(loss), loss=loss)
    x = np.array([-1.0, -np.inf, np.inf, 800.0, -2.0])  # e^800 overflows
    held = glm.held_out(F2[::-1] + 0.1, targets(loss))
    H = sad.Hypergradient(sad.Problem(glm), held, tol=1e-12)
    found = H.evaluate(x)
    assert np.all(found.gradient[1:4] == 0.0)
    step = 1e-5 * np.eye(P)
    for j in (0, 4):
        change = H.value(x + step[j]) - H.value(x - step[j])
        assert found.gradient[j] == pytest.approx(change / 2e-5, rel=1e-5)
    k = glm.n // (P + 1)
    assert np.all(found.adjoint.adjoint[2 * k : 4 * k] == 0.0)
    assert any("fixed at 0" in note for note in found.warnings)


def test_infinite_weights_of_all_coefficients():
    glm = Glm(F, REAL, loss="squared", intercept=False, penalty="scalar")
    found = sad.solve(sad.Problem(glm), np.array([np.inf]), np.ones(P))
    assert np.all(found.y == 0.0)
    assert "and 0 more" not in found.warnings[0]
    assert "0, 1, 2, 3, 4 of infinite weight" in found.warnings[0]
    free = sad.solve(sad.Problem(glm), np.array([-np.inf]))
    least = np.linalg.lstsq(F, REAL)[0]
    np.testing.assert_allclose(free.y, least, rtol=1e-6)


def test_a_point_off_the_fixed_coefficients_is_no_solution():
    glm = Glm(F, REAL, loss="squared", log_offset=FREE_AND_FIXED)
    found = sad.solve(sad.Problem(glm), np.zeros(P))
    y = found.y.copy()
    y[2] = 1.0
    wrong = sad.Solution(y=y, x=np.zeros(P))
    with pytest.raises(sad.ConvergenceError):
        sad.vjp(sad.Problem(glm), wrong, np.ones(glm.n))


def test_constraints_may_contradict_what_is_fixed():
    glm = Glm(F, REAL, loss="squared", log_offset=FREE_AND_FIXED)
    problem = sad.Problem(glm, lower=0.0)
    with pytest.raises(ValueError, match="infinite weight"):
        sad.solve(problem, np.zeros(P))


def test_a_weight_that_overflows_on_a_search_is_a_point_without_a_solution():
    """At the caller's own x it is a wrong argument; a trial there is refused."""
    glm = Glm(F, REAL, loss="squared")
    problem = sad.Problem(glm, lower=0.0)
    at = sad.Hypergradient(problem, glm.held_out(F, REAL), failed_value="barrier")
    with pytest.raises(ValueError, match="infinite weight"):
        at(np.full(glm.m, 800.0))
    value, _ = at(np.zeros(glm.m))
    with pytest.warns(sad.ConvergenceWarning, match="infinite weight"):
        beyond, gradient = at(np.full(glm.m, 800.0))
    assert value < beyond < np.inf
    assert np.all(gradient > 0.0)
    assert at.failures.causes[sad.Status.INFEASIBLE] == 1
    with pytest.raises(ValueError, match="x must"):  # of another kind: no trial
        at(np.zeros((glm.m, 1)))


# the range ----------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["squared", "multinomial"])
def test_beyond_the_range_nothing_changes(loss):
    features = F / np.abs(F).max(axis=0)
    glm = Glm(features, targets(loss), loss=loss, penalty="scalar")
    low, high = glm.log_weight_range()
    size = P * (K if loss == "multinomial" else 1)
    assert low.shape == high.shape == (size,)
    assert np.all(low < high)
    for end, beyond in ((low.min(), -50.0), (high.max(), 50.0)):
        here, there = (
            sad.solve(sad.Problem(glm), np.array([eta]), tol=1e-13).y
            for eta in (end, end + beyond)
        )
        scale = np.abs(here).max()
        assert np.abs(here - there).max() <= 1e-8 * scale


def test_the_range_has_the_units_of_the_features():
    D = 10.0 ** np.array([-3.0, 8.0, 0.0, -8.0, 2.0])
    low, high = Glm(F, REAL, loss="squared").log_weight_range()
    scaled = Glm(F * D, REAL, loss="squared").log_weight_range()
    np.testing.assert_allclose(scaled[0] - low, 2 * np.log(D), atol=1e-9)
    np.testing.assert_allclose(scaled[1] - high, 2 * np.log(D), atol=1e-9)


def test_the_range_of_an_empty_column_and_of_an_operator():
    features = F.copy()
    features[:, 1] = 0.0
    low, high = Glm(features, REAL, loss="squared").log_weight_range()
    assert low[1] == -np.inf
    assert high[1] == np.inf
    level = np.ones((N, P)) * np.where(RNG.random((N, P)) < 0.5, -1.0, 1.0)
    products = sad.LinearOperator(
        level.shape, lambda v: level @ v, lambda v: level.T @ v
    )
    by_products = Glm(products, REAL, loss="squared").log_weight_range()
    exact = Glm(level, REAL, loss="squared").log_weight_range()
    np.testing.assert_allclose(by_products[0], exact[0], atol=1.0)


# wrong arguments ----------------------------------------------------------------------


def no_transpose():
    return ScipyOperator((P, 2), matvec=lambda u: np.ones(P), dtype=float)


WRONG = {
    "a row for the intercept": (np.ones((P + 1, 2)), ValueError, "intercepts have no"),
    "other rows": (np.ones((P - 2, 2)), ValueError, "one for each feature"),
    "one dimension": (np.ones(P), ValueError, "a table Z"),
    "NaN": (np.full((P, 1), np.nan), ValueError, "penalty must be finite"),
    "complex": (np.ones((P, 1)) + 0j, TypeError, "penalty must be real"),
    "sparse NaN": (sparse.csr_array(np.full((P, 1), np.nan)), ValueError, "finite"),
    "no rmatvec": (no_transpose(), TypeError, "matvec and rmatvec"),
    "a number": (3.0, TypeError, "penalty must be a name"),
    "an object": (object(), TypeError, "penalty must be a name"),
    "None": (None, TypeError, "penalty must be a name"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_tables(case):
    Z, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        Glm(F, REAL, loss="squared", penalty=Z)


@pytest.mark.parametrize(
    ("offset", "message"),
    [
        (np.zeros(P + 1), "log_offset must have shape"),
        (np.full(P, np.nan), "found NaN"),
    ],
)
def test_wrong_offsets(offset, message):
    with pytest.raises(ValueError, match=message):
        Glm(F, REAL, loss="squared", log_offset=offset)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_x_of_a_table_is_refused(value):
    glm = Glm(F, REAL, loss="squared", penalty=moments())
    with pytest.raises(ValueError, match="x must be finite"):
        glm.value(np.array([0.0, value]), np.zeros(glm.n))


def test_tables_are_not_written_to_and_may_be_anything_strided():
    Z = np.zeros((2 * P, 4))[::2, ::2]
    Z.flags.writeable = False
    glm = Glm(F, REAL, loss="squared", penalty=Z)
    x = np.zeros(4)[::2]
    x.flags.writeable = False
    assert sad.check_derivatives(glm, x, np.ones(glm.n))
