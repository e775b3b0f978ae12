"""Estimators with norms that select columns, beside scikit-learn at the penalty found."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import sparse

pytest.importorskip("sklearn")

from sklearn.linear_model import ElasticNet, Lasso, LassoCV
from sklearn.model_selection import KFold

from sparse_argdiff.estimators import LinearClassifierCV, LinearRegressorCV


def data(seed=0, n=120, p=30, informative=4):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    z = X[:, :informative] @ np.arange(1.0, informative + 1.0)
    return X, z + rng.standard_normal(n), rng


def test_lasso_is_that_of_scikit_learn_at_the_same_penalty():
    X, y, _ = data()
    model = LinearRegressorCV(norm="l1", penalties="single").fit(X, y)
    other = Lasso(alpha=model.single_penalty_, tol=1e-12).fit(X, y)
    assert_allclose(model.coef_, other.coef_, atol=1e-7)
    assert_allclose(model.intercept_, other.intercept_, atol=1e-7)
    assert ((model.coef_ == 0.0) == (other.coef_ == 0.0)).all()
    assert 0 < np.count_nonzero(model.coef_) < 30


def test_the_penalty_is_as_good_as_the_best_of_a_grid():
    X, y, _ = data(1)
    folds = list(KFold(5, shuffle=True, random_state=3).split(X))
    model = LinearRegressorCV(norm="l1", penalties="single", cv=folds).fit(X, y)
    grid = LassoCV(cv=folds, alphas=100, tol=1e-10).fit(X, y)
    assert 2.0 * model.cv_loss_ <= grid.mse_path_.mean(axis=1).min() * (1 + 1e-6)


def test_elastic_net_is_that_of_scikit_learn():
    X, y, _ = data(2)
    model = LinearRegressorCV(norm="elastic-net", l1_ratio=0.7, penalties="single")
    model.fit(X, y)
    other = ElasticNet(alpha=model.single_penalty_, l1_ratio=0.7, tol=1e-12).fit(X, y)
    assert_allclose(model.coef_, other.coef_, atol=1e-7)


def test_groups_of_columns_have_weights_of_their_own():
    X, y, _ = data(3, p=40)
    groups = ["signal"] * 4 + ["noise"] * 36
    model = LinearRegressorCV(norm="l1", groups=groups, keep="learned").fit(X, y)
    weak, strong = np.unique(model.penalties_)
    assert (model.penalties_[:4] == weak).all()
    assert strong > 3.0 * weak
    assert model.learned_cv_loss_ < model.single_cv_loss_


def test_units_of_the_columns_do_not_matter():
    """With "moments" the penalty finds the units of the columns."""
    X, y, rng = data(4)
    units = 10.0 ** rng.integers(-3, 4, X.shape[1])
    one, other = (
        LinearRegressorCV(norm="l1", keep="learned").fit(A, y) for A in (X, X * units)
    )
    assert other.learned_cv_loss_ <= 1.05 * one.learned_cv_loss_
    assert other.learned_cv_loss_ < 0.1 * other.single_cv_loss_
    assert other.x_[1] == pytest.approx(1.0, abs=0.1)


def test_a_single_ridge_that_predicts_nothing_does_not_hold_up_the_others():
    """It is at the strong end of its range: levels ten times weaker are tried until F rises."""
    X, y, rng = data(11)
    X *= 10.0 ** rng.integers(-3, 4, X.shape[1])
    model = LinearRegressorCV(penalties="moments", keep="learned").fit(X, y)
    assert model.learned_cv_loss_ < 0.1 * model.single_cv_loss_


@pytest.mark.parametrize("classes", [2, 3])
def test_classifiers_satisfy_their_conditions(classes):
    """|∂ loss / ∂c| = e^η on the support, and is no larger elsewhere; sparse as dense."""
    X, z, _ = data(5, n=90, p=10)
    y = np.digitize(z, np.quantile(z, np.arange(1, classes) / classes))
    model = LinearClassifierCV(norm="l1", penalties="single").fit(X, y)
    rest = model.predict_proba(X) - (y[:, None] == np.arange(classes))
    rest = rest[:, 1:] if classes == 2 else rest
    force = rest.T @ X / X.shape[0]
    coef, weight = np.atleast_2d(model.coef_), model.penalties_
    on = coef != 0.0
    assert 0 < np.count_nonzero(on) < on.size
    assert_allclose((force + weight * np.sign(coef))[on], 0.0, atol=1e-7)
    assert (np.abs(force)[~on] <= np.broadcast_to(weight, on.shape)[~on] + 1e-8).all()
    same = LinearClassifierCV(norm="l1", penalties="single").fit(sparse.csr_array(X), y)
    assert_allclose(same.coef_, model.coef_, atol=1e-5)


def test_several_targets_each_have_a_support():
    X, y, _ = data(6)
    model = LinearRegressorCV(norm="l1", penalties="single").fit(X, np.c_[y, X[:, 9]])
    assert model.coef_.shape == (2, 30)
    assert np.count_nonzero(model.coef_[1]) <= 3
    assert model.coef_[1, 9] == pytest.approx(1.0, abs=0.05)


def test_wrong_parameters():
    X, y, _ = data(7, n=20, p=5)
    for wrong, said in (
        ({"norm": "l0"}, "norm must be one of"),
        ({"norm": "l1", "cv": "loo"}, "needs norm='l2'"),
        ({"norm": "elastic-net", "l1_ratio": 0.0}, "l1_ratio must be in"),
    ):
        with pytest.raises(ValueError, match=said):
            LinearRegressorCV(**wrong).fit(X, y)


def test_constant_targets_and_columns():
    X, _, _ = data(8, n=30, p=4)
    X[:, 2] = 3.0
    model = LinearRegressorCV(norm="l1").fit(X, np.full(30, 2.5))
    assert (model.coef_ == 0.0).all()
    assert model.predict(X) == pytest.approx(2.5)
