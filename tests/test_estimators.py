"""The estimators: what they find, what they keep, and how they fit into scikit-learn."""

from __future__ import annotations

import doctest
import pickle

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
from problems import counting_operator
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    LogisticRegression,
    PoissonRegressor,
    QuantileRegressor,
    Ridge,
    RidgeCV,
    TweedieRegressor,
)
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    PredefinedSplit,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler

from sparse_argdiff.estimators import (
    LinearClassifierCV,
    LinearRegressorCV,
    classifier,
    regressor,
    search,
)
from sparse_argdiff.estimators.fold_factors import FoldFactors
from sparse_argdiff.estimators.penalty_table import group_labels, penalty_table
from sparse_argdiff.estimators.single_search import search_single
from sparse_argdiff.estimators.table_search import _standardised
from sparse_argdiff.linear_model import Glm


def regression(seed=0, n=60, p=8, noise=0.5, mean=10.0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    y = mean + X[:, :3] @ [1.0, -2.0, 0.5] + noise * rng.standard_normal(n)
    return X, y


def classes(seed=0, n=90, p=5, count=2):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    z = X[:, :count] + 0.8 * rng.standard_normal((n, count))
    return X, (z[:, 0] > 0).astype(int) if count == 2 else z.argmax(axis=1)


TWO = KFold(2)

# what is fitted -----------------------------------------------------------------------


def test_coefficients_are_those_of_ridge_at_the_penalties():
    X, y = regression()
    model = LinearRegressorCV().fit(X, y)
    scale = np.sqrt(model.penalties_ * len(y))
    ridge = Ridge(alpha=1.0, solver="svd", tol=1e-12).fit((X - X.mean(0)) / scale, y)
    assert np.allclose(model.coef_, ridge.coef_ / scale, rtol=1e-6, atol=1e-9)
    assert model.intercept_ == pytest.approx(y.mean() - X.mean(0) @ model.coef_)


def test_a_single_penalty_is_alpha_over_the_rows_and_as_good_as_a_fine_grid():
    X, y = regression(n=40, p=30, noise=2.0)
    folds = list(KFold(5, shuffle=True, random_state=3).split(X))
    model = LinearRegressorCV(penalties="single", cv=folds, tol=1e-6).fit(X, y)
    ridge = Ridge(alpha=len(y) * model.single_penalty_, solver="svd").fit(X, y)
    assert np.allclose(model.coef_, ridge.coef_, rtol=1e-6)

    def loss(level):
        rest = [
            y[test]
            - Ridge(alpha=len(train) * np.exp(level), solver="svd")
            .fit(X[train], y[train])
            .predict(X[test])
            for train, test in folds
        ]
        return 0.5 * np.mean(np.concatenate(rest) ** 2)

    level = np.log(model.single_penalty_)
    assert model.cv_loss_ == pytest.approx(loss(level), rel=1e-6)
    assert model.cv_loss_ <= min(loss(a) for a in level + np.linspace(-1, 1, 9)) + 1e-9


@pytest.mark.parametrize("count", [2, 3])
def test_the_classifier_is_logistic_regression_at_the_penalty(count):
    X, y = classes(count=count)
    model = LinearClassifierCV(penalties="single").fit(X, y)
    C = 1.0 / (len(y) * model.single_penalty_)
    peer = LogisticRegression(C=C, tol=1e-10, max_iter=5000).fit(X, y)
    assert np.allclose(model.predict_proba(X), peer.predict_proba(X), atol=1e-5)
    assert model.coef_.shape == peer.coef_.shape
    assert model.intercept_.shape == peer.intercept_.shape
    log = model.predict_log_proba(X)
    assert np.allclose(np.exp(log), model.predict_proba(X))


def test_poisson_is_poisson_regression_at_the_penalty():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((80, 4))
    y = rng.poisson(np.exp(1.0 + 0.5 * X[:, 0])).astype(float)
    model = LinearRegressorCV("poisson", penalties="single").fit(X, y)
    peer = PoissonRegressor(alpha=model.single_penalty_, tol=1e-10, max_iter=1000)
    assert np.allclose(model.predict(X), peer.fit(X, y).predict(X), rtol=1e-4)
    assert model.deviance_explained(X, y) == pytest.approx(peer.score(X, y), abs=1e-4)


@pytest.mark.parametrize(("loss", "power"), [("gamma", 2.0), ("tweedie", 1.3)])
def test_amounts_are_tweedie_regression_at_the_penalty(loss, power):
    rng = np.random.default_rng(4)
    X = rng.standard_normal((80, 4))
    y = rng.gamma(2.0, 0.5, 80) * np.exp(1.0 + 0.5 * X[:, 0])
    if loss == "tweedie":
        y *= rng.random(80) < 0.8
    model = LinearRegressorCV(loss, power=1.3, penalties="single").fit(X, y)
    peer = TweedieRegressor(
        power=power, link="log", alpha=model.single_penalty_, tol=1e-10, max_iter=1000
    ).fit(X, y)
    assert np.allclose(model.predict(X), peer.predict(X), rtol=1e-4)
    assert model.deviance_explained(X, y) == pytest.approx(peer.score(X, y), abs=1e-4)
    others = LinearRegressorCV(loss, power=1.3).fit(X * [1.0, 9.0, 0.1, 1.0], 100.0 * y)
    assert others.deviance_explained(X * [1.0, 9.0, 0.1, 1.0], 100.0 * y) > 0.1


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_quantiles_are_those_of_the_rows_in_any_unit(level):
    rng = np.random.default_rng(6)
    X = rng.standard_normal((300, 3))
    y = 10.0 + X[:, 0] + (1.0 + 0.5 * np.abs(X[:, 1])) * rng.standard_normal(300)
    model = LinearRegressorCV("quantile", quantile=level).fit(X, y)
    below = np.mean(y <= model.predict(X))
    assert abs(below - level) < 0.05
    small = LinearRegressorCV("quantile", quantile=level).fit(X, 1e-3 * y)
    assert np.allclose(small.coef_, 1e-3 * model.coef_, rtol=5e-2, atol=1e-5)
    peer = QuantileRegressor(quantile=level, alpha=0.0).fit(X, y)
    D2 = [one.deviance_explained(X, y) for one in (model, _with_score(peer, model))]
    assert D2[1] - 0.03 <= D2[0] <= D2[1] + 1e-9


def _with_score(peer, model):
    """Return a copy of the model with the peer's coefficients."""
    found = clone(model)
    found.__dict__ |= model.__dict__
    found.coef_, found.intercept_ = peer.coef_, peer.intercept_
    return found


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"quantile": 1.0}, r"quantile must be a number in \(0, 1\), found 1.0"),
        ({"quantile": "half"}, r"quantile must be a number in"),
        ({"smoothing": 0.0}, r"smoothing must be a number > 0, found 0.0"),
        ({"power": 3.0}, r"power must be a number from 1 to 2, found 3.0"),
        ({"delta": np.nan}, r"delta must be a number > 0, found nan"),
    ],
)
def test_parameters_of_losses_are_checked(wrong, word):
    X, y = regression()
    with pytest.raises(ValueError, match=word):
        LinearRegressorCV(**wrong).fit(X, y)


@pytest.mark.parametrize(
    ("loss", "y", "word"),
    [
        ("gamma", [1.0, 0.0, 2.0, 1.0], r"> 0 for loss='gamma', found 0.0 in row 1"),
        ("tweedie", [1.0, 1.0, -2.0, 1.0], r">= 0 for loss='tweedie', found -2.0"),
        ("tweedie", [0.0] * 4, r"not be all zeros for loss='tweedie'"),
    ],
)
def test_amounts_are_checked(loss, y, word):
    with pytest.raises(ValueError, match=word):
        LinearRegressorCV(loss).fit(np.ones((4, 1)), y)


def test_counts_with_an_exposure_are_rates_with_weights():
    """Σ e_i (e^z − (t_i/e_i) z) = Σ (e^(z + log e_i) − t_i z)."""
    rng = np.random.default_rng(1)
    X, exposure = rng.standard_normal((80, 3)), rng.uniform(0.5, 4.0, 80)
    y = rng.poisson(exposure * np.exp(0.5 * X[:, 0])).astype(float)
    model = LinearRegressorCV("poisson", penalties="single")
    model.fit(X, y / exposure, sample_weight=exposure)
    score = exposure * (model.predict(X) - y / exposure)
    slope = X.T @ score / exposure.sum() + model.single_penalty_ * model.coef_
    assert np.abs(slope).max() < 1e-6


@pytest.mark.parametrize("mean", [1.0, np.exp(7), np.exp(12)])
def test_counts_of_any_size(mean):
    rng = np.random.default_rng(2)
    X = rng.standard_normal((80, 4))
    y = rng.poisson(mean * np.exp(0.5 * X[:, 0])).astype(float)
    model = LinearRegressorCV("poisson").fit(X, y)
    assert model.deviance_explained(X, y) > 0.2
    assert abs(model.coef_[0] - 0.5) < 0.2


def test_huber_forgets_outliers_in_any_unit():
    X, y = regression(n=80)
    wild = y.copy()
    wild[::10] += 50.0
    model = LinearRegressorCV("huber").fit(X, wild)
    assert np.abs(model.coef_[:3] - [1.0, -2.0, 0.5]).max() < 0.4
    other = LinearRegressorCV("huber").fit(X, 1e3 * wild)
    assert np.allclose(other.coef_, 1e3 * model.coef_, rtol=1e-2, atol=10.0)


def test_several_targets_are_each_by_itself():
    X, y = regression(p=6)
    Y = np.column_stack([y, X[:, 3] + 0.1 * y, np.random.default_rng(0).random(60)])
    model = LinearRegressorCV(tol=1e-6, groups=[0, 0, 0, 1, 1, 1]).fit(X, Y)
    assert model.coef_.shape == (3, 6)
    assert model.predict(X).shape == Y.shape
    assert model.penalties_.shape == (3, 6)
    for k in range(3):
        one = LinearRegressorCV(tol=1e-6, groups=[0, 0, 0, 1, 1, 1]).fit(X, Y[:, k])
        assert model.kept_[k] == one.kept_
        assert model.cv_loss_[k] == pytest.approx(one.cv_loss_, rel=2e-3)
        assert np.allclose(model.predict(X)[:, k], one.predict(X), atol=0.05)
    assert "3 targets" in model.summary()


# what is learned ----------------------------------------------------------------------


def test_degrees_as_groups_lower_the_test_loss_on_diabetes():
    """The gain of research: R² from 0.440 to 0.465 over eight splits; here two."""
    X, y = load_diabetes(return_X_y=True)
    powers = PolynomialFeatures(2, include_bias=False).fit(X)
    degree, gain = powers.powers_.sum(axis=1), []
    for seed in (1, 3):
        rows = np.random.default_rng(seed).permutation(len(y))
        scaler = StandardScaler().fit(powers.transform(X[rows[:221]]))
        Z = scaler.transform(powers.transform(X))
        learn, judge = rows[:221], rows[221:]
        model = LinearRegressorCV(groups=degree).fit(Z[learn], y[learn])
        ridge = RidgeCV(np.logspace(-2, 4, 20)).fit(Z[learn], y[learn])
        gain.append(model.score(Z[judge], y[judge]) - ridge.score(Z[judge], y[judge]))
    assert np.mean(gain) > 0.005


@pytest.mark.parametrize("seed", range(6))
def test_the_exponent_of_moments_that_hardly_differ_is_held(seed):
    """It went to 47: the moments of four standard normal columns say nothing."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((60, 4))
    y = X @ [1.0, -1.0, 0.5, 0.0] + rng.standard_normal(60)
    model = LinearRegressorCV(keep="learned", random_state=0).fit(X, y)
    exponent = float(model.x_[1])
    assert -1.0 - 1e-9 <= exponent <= 2.0 + 1e-9
    held = min(abs(exponent + 1.0), abs(exponent - 2.0)) <= 1e-6
    assert held == any("log moment" in said for said in model.at_bound_)


def test_moments_find_columns_in_units_of_their_own():
    X, y = regression(n=60, p=12, noise=1.0)
    units = 10.0 ** np.array([-4, 4, 0, 3, -3, 1, -1, 2, -2, 4, -4, 0.0])
    model = LinearRegressorCV().fit(X * units, y)
    plain = LinearRegressorCV(penalties="single").fit(X, y)
    assert model.kept_ == "learned"
    assert model.cv_loss_ < 1.05 * plain.cv_loss_
    assert model.x_[1] == pytest.approx(1.0, abs=0.1)


def test_noise_keeps_the_single_penalty_and_says_so():
    rng = np.random.default_rng(5)
    X, y = rng.standard_normal((50, 10)), rng.standard_normal(50)
    model = LinearRegressorCV(groups=[0, 1] * 5).fit(X, y)
    assert model.kept_ == "single"
    assert "not better by its standard error" in model.summary()
    assert np.ptp(model.log_penalties_) == 0.0


def test_many_penalties_are_judged_by_folds_that_did_not_teach_them():
    rng = np.random.default_rng(6)
    X, y = rng.standard_normal((40, 30)), rng.standard_normal(40)
    model = LinearRegressorCV(penalties="per-feature", prior=3.0).fit(X, y)
    assert model.learned_cv_loss_ < model.single_cv_loss_  # the folds are fitted
    assert model.kept_ == "single"
    assert "learned on the other folds" in model.summary()


@pytest.mark.parametrize("factor", [1e-4, 1e4])
def test_per_feature_penalties_do_not_depend_on_a_columns_unit(factor):
    X, y = regression(n=50, p=5)
    units = np.array([factor, 1.0, 1.0, 1.0, 1.0])
    options = {"penalties": "per-feature", "keep": "learned", "tol": 1e-5}
    one = LinearRegressorCV(**options).fit(X, y)
    other = LinearRegressorCV(**options).fit(X * units, y)
    assert other.cv_loss_ == pytest.approx(one.cv_loss_, rel=1e-3)
    assert np.allclose(other.predict(X * units), one.predict(X), atol=0.02)


def test_the_value_and_gradient_of_the_search_are_those_of_the_folds():
    X, y = regression(n=40)
    options = {"groups": [0, 0, 0, 0, 1, 1, 1, 1], "keep": "learned", "cv": TWO}
    model = LinearRegressorCV(tol=1e-6, **options).fit(X, y)
    assert model.history_[-1].value == pytest.approx(model.learned_cv_loss_, rel=1e-6)
    assert model.gradient_norm_ < 1e-3
    assert 0.0 <= model.gradient_error_ < 1e-3
    assert model.descent_ in {"proven", "estimated", "not shown"}
    sizes = [len(test) for _, test in model._folds_used]
    assert np.average(model.cv_loss_per_fold_, weights=sizes) == pytest.approx(
        model.cv_loss_
    )
    out = model.oof_prediction_
    assert 0.5 * np.mean((out - y) ** 2) == pytest.approx(model.cv_loss_)


@pytest.mark.parametrize("options", [{"penalties": "single"}, {"groups": [0, 1] * 2}])
def test_leave_one_out_is_exact_for_squared_loss(options):
    """The row is taken out, the others keep their weights w_j / N."""
    X, y = regression(n=25, p=4)
    model = LinearRegressorCV(cv="loo", **options).fit(X, y)
    scale = np.sqrt(25 * model.penalties_)
    rest = []
    for i in range(25):
        keep = np.arange(25) != i
        ridge = Ridge(alpha=1.0, solver="svd").fit(X[keep] / scale, y[keep])
        rest.append(y[i] - ridge.predict(X[[i]] / scale)[0])
    assert model.cv_loss_ == pytest.approx(0.5 * np.mean(np.square(rest)), rel=1e-6)
    assert np.allclose(model.oof_prediction_, y - rest, rtol=1e-5)
    assert "leave-one-out" in model.summary()
    both = LinearRegressorCV(cv="loo", **options).fit(X, np.column_stack([y, y]))
    assert np.allclose(both.cv_loss_, model.cv_loss_, rtol=1e-3)


def test_leave_one_out_of_classes_is_near_that_of_refits():
    X, y = classes(n=60, count=2)
    model = LinearClassifierCV(cv="loo").fit(X, y)
    folds = [(np.delete(np.arange(60), i), [i]) for i in range(60)]
    refits = LinearClassifierCV(cv=folds, penalties="single").fit(X, y)
    assert model.cv_loss_ == pytest.approx(refits.cv_loss_, rel=0.02)
    X, y = classes(n=60, count=3)
    assert LinearClassifierCV(cv="loo").fit(X, y).score(X, y) > 0.5


def test_influence_predicts_a_change_of_weight():
    X, y = regression(n=30, p=4)
    model = LinearRegressorCV(penalties="single", cv=TWO).fit(X, y)
    found = model.influence(X, y)
    assert found.sum() == pytest.approx(0.0, abs=1e-9)
    i, h = int(np.abs(found).argmax()), 1e-4

    def loss(weight):
        weights = np.ones(30)
        weights[i] = weight
        total = 0.0
        for train, test in TWO.split(X):
            alpha = weights[train].sum() * model.single_penalty_
            ridge = Ridge(alpha=alpha, solver="cholesky")
            ridge.fit(X[train], y[train], sample_weight=weights[train])
            total += 0.5 * np.sum((y[test] - ridge.predict(X[test])) ** 2) / 30
        return total

    slope = (loss(1.0 + h) - loss(1.0 - h)) / (2 * h)
    assert found[i] == pytest.approx(slope, rel=1e-4)
    with pytest.raises(ValueError, match="30 rows of fit"):
        model.influence(X[:20], y[:20])


def test_warm_start_begins_at_the_last_penalties():
    X, y = regression(n=50)
    model = LinearRegressorCV(groups=[0, 1] * 4, warm_start=True).fit(X, y)
    first = model.n_iter_
    x = model._u.copy()
    model.fit(X, y)
    assert model.n_iter_ <= first
    assert np.allclose(model._u, x, atol=0.2)
    cold = LinearRegressorCV(groups=[0, 1] * 4).fit(X, y)
    cold.fit(X, y)
    assert cold.n_iter_ == first


# the table of penalties ----------------------------------------------------------------


def test_tables_and_names_of_columns():
    moments = np.array([1.0, 4.0, 0.25])
    table = penalty_table(None, moments)
    assert table.names == ("level", "log moment")
    assert np.allclose(table.table, [[1, 0], [1, np.log(4)], [1, np.log(0.25)]])
    u = np.array([[0.3], [-0.7]])
    assert np.allclose(table.table @ table.to_user(u), table.log_penalties(u))
    assert penalty_table("moments", np.ones(3)).dropped == ("log moment",)
    empty = penalty_table(None, np.array([0.0, 4.0, 0.25]))
    assert empty.table[0, 1] == np.log(0.25)
    Z = penalty_table(None, moments, descriptors=[[1.0], [2.0], [3.0]])
    assert Z.names == ("level", "descriptors 0")
    frame = pd.DataFrame({"degree": [3.0, 1.0, 2.0]}, index=["c", "a", "b"])
    names = np.array(["a", "b", "c"])
    named = penalty_table(None, moments, descriptors=frame, names=names)
    assert np.allclose(named.table[:, 1], [1, 2, 3])
    both = penalty_table(["groups", "moments"], moments, groups=["x", "x", "y"])
    assert both.m == 3
    assert both.dropped == ("level",)
    per = penalty_table("per-feature", moments)
    assert (per.m, per.deviations) == (4, 3)
    assert np.allclose(per.offset, np.log(moments))
    wide = penalty_table("per-coefficient", moments, outputs=2)
    assert wide.table.shape == (6, 7)
    given = penalty_table(sparse.csr_array(np.eye(3)), moments)
    assert given.m == 3
    assert sparse.issparse(given.table)


def test_coordinates_of_a_metric_are_orthogonal_there():
    moments = np.array([1.0, 4.0, 0.25, 9.0])
    weights = np.array([0.1, 3.0, 0.2, 5.0])
    table = penalty_table("moments", moments)
    near = table.in_metric(weights)
    gram = near.scaled.T @ (weights[:, None] * near.scaled)
    assert np.allclose(gram, weights.sum() * np.eye(2))
    x = np.array([[0.3], [-0.7]])
    for one in (table, near):
        assert np.allclose(one.to_user(one.from_user(x)), x)
        assert np.allclose(one.log_penalties(one.from_user(x)), table.table @ x)
    for same in (
        penalty_table("groups", moments, groups=list("aabb")),
        penalty_table("per-feature", moments),
    ):
        assert same.in_metric(weights) is same


def test_empty_columns_leave_the_starts_of_standardised_ones():
    X, y = regression(n=80, p=6)
    X = X * np.array([1e-3, 1e-2, 1.0, 10.0, 1e2, 0.0])
    model = LinearRegressorCV()
    found = model._learn(X, y, None, {})
    task, table = found[0], found[2]
    starts = _standardised(task, table, search_single(task, 1e-3))
    assert starts
    known = task.moments > 0.0
    for u in starts:
        standard = table.log_penalties(u)[known, 0] - np.log(task.moments[known])
        assert np.ptp(standard) < 1e-9


def test_a_fold_unlike_the_others_does_not_choose_the_level():
    """The first folds alone compare levels; here they would choose the strongest."""
    rng = np.random.default_rng(2)
    X = rng.standard_normal((1000, 10))
    y = (X @ np.linspace(2.0, 0.0, 10) + rng.standard_normal(1000) > 0.0).astype(int)
    y[:200] = 1 - y[:200]
    rows = np.arange(1000).reshape(5, 200)
    cv = [(np.setdiff1d(np.arange(1000), test), test) for test in rows]
    model = LinearClassifierCV(penalties="single", cv=cv).fit(X, y)
    losses = []
    for level in np.linspace(-12.0, 4.0, 33):
        z = np.empty(1000)
        for train, test in cv:
            peer = LogisticRegression(C=np.exp(-level) / train.size, tol=1e-8)
            z[test] = peer.fit(X[train], y[train]).decision_function(X[test])
        losses.append(np.mean(np.logaddexp(0.0, z) - y * z))
    assert np.argmin(losses) not in {0, 32}
    assert model.cv_loss_ <= min(losses) * (1.0 + 1e-4)


def test_search_ends_where_steps_hardly_change_the_gain(monkeypatch):
    rng = np.random.default_rng(5)
    X = rng.standard_normal((300, 40)) * np.exp(rng.standard_normal(40))
    y = (X[:, :8].sum(axis=1) + 2.0 * rng.standard_normal(300) > 0.0).astype(int)
    early = LinearClassifierCV(keep="learned").fit(X, y)
    monkeypatch.setattr(search, "GAINED", 0.0)
    late = LinearClassifierCV(keep="learned", tol=1e-6).fit(X, y)
    assert early.converged_
    assert early.n_products_ < late.n_products_
    left = early.learned_cv_loss_ - late.learned_cv_loss_
    accuracy = (
        1e-5 * late.learned_cv_loss_
    )  # of the rows' losses at the end of a search
    assert -accuracy <= left <= 0.05 * abs(early.cv_loss_change_)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"penalties": "everything"}, "penalties must be one of"),
        ({"penalties": "groups"}, "needs the parameter groups"),
        ({"penalties": "moments", "groups": [0, 1, 0]}, "has no use for"),
        ({"groups": [0, 1]}, "a label for each of 3 columns"),
        ({"groups": {"a": [0, 1], "b": [1]}}, "in the groups 'a' and 'b'"),
        ({"groups": {"a": ["age"]}}, "X has no names"),
        ({"groups": {"a": [7]}}, "X has 3 columns"),
        ({"groups": "blocks"}, "need X with names"),
        ({"descriptors": np.ones((2, 1))}, "must be a table with 3 rows"),
        ({"descriptors": [[1.0], [np.nan], [2.0]]}, "must be finite"),
        ({"penalties": np.zeros((3, 1))}, "all zeros"),
    ],
)
def test_wrong_tables(options, message):
    penalties = options.pop("penalties", None)
    with pytest.raises(ValueError, match=message):
        penalty_table(penalties, np.ones(3), **options)


def test_groups_by_names():
    names = np.array(["num__age", "num__pay", "word__red", "word__blue"])
    assert group_labels("blocks", names, 4) == ["num", "num", "word", "word"]
    assert group_labels({"a": ["num__pay"]}, names, 4) == ["rest", "a", "rest", "rest"]
    assert group_labels([[0, 3], [1]], None, 4) == [0, 1, "rest", 0]
    assert group_labels({"a": slice(0, 2)}, None, 3) == ["a", "a", "rest"]
    lengths = group_labels(lambda given: [len(n) for n in given], names, 4)
    assert lengths == [8, 8, 9, 10]
    assert group_labels(np.array([0, 2, 0]), None, 3) == [0, 2, 0]


# scikit-learn --------------------------------------------------------------------------


def frame(n=80, seed=0):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "age": rng.uniform(20, 60, n),
            "pay": rng.lognormal(10, 1, n),
            "city": rng.choice(["Ulm", "Bonn", "Kiel"], n),
        }
    )
    X.loc[::7, "age"] = np.nan
    y = 0.1 * X["age"].fillna(40) + (X["city"] == "Ulm") + rng.standard_normal(n)
    return X, y.to_numpy()


def steps():
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    words = OneHotEncoder(sparse_output=False)
    return ColumnTransformer(
        [("number", numbers, ["age", "pay"]), ("word", words, ["city"])]
    ).set_output(transform="pandas")


def test_a_pipeline_from_a_frame_with_blocks_as_groups():
    X, y = frame()
    pipeline = make_pipeline(steps(), LinearRegressorCV(groups="blocks"))
    model = pipeline.fit(X, y)[-1]
    assert model.groups_ == ("number", "word")
    assert next(iter(model.feature_names_in_)) == "number__age"
    assert pipeline.score(X, y) > 0.2
    search = GridSearchCV(pipeline, {"linearregressorcv__keep": ["best", "learned"]})
    assert search.fit(X, y).best_score_ > 0.0
    assert len(cross_val_score(clone(pipeline), X, y, cv=3)) == 3


@pytest.mark.parametrize("estimator", [LinearRegressorCV(), LinearClassifierCV()])
def test_copies_and_files(estimator):
    X, y = classes(n=50)
    fitted = clone(estimator).fit(X, y)
    for again in (pickle.loads(pickle.dumps(fitted)), clone(fitted).fit(X, y)):
        assert np.array_equal(again.predict(X), fitted.predict(X))
        assert np.array_equal(again.coef_, fitted.coef_)
    found = joblib.Parallel(n_jobs=1)(
        joblib.delayed(clone(estimator).fit)(X, y) for _ in range(2)
    )
    assert np.array_equal(found[0].coef_, found[1].coef_)


def test_kinds_of_matrices_agree():
    X, y = regression(n=40, p=5)
    X[np.abs(X) < 0.5] = 0.0
    dense = LinearRegressorCV().fit(X, y)
    names = [f"c{j}" for j in range(5)]
    for other in (
        sparse.csr_matrix(X),
        sparse.csc_array(X),
        pd.DataFrame(X, columns=names),
        pl.DataFrame(X, schema=names),
        np.asfortranarray(X),
    ):
        found = LinearRegressorCV().fit(other, y)
        assert np.allclose(found.predict(other), dense.predict(X), atol=1e-4)
    assert list(found.coef_.shape) == [5]
    frame = LinearRegressorCV().fit(pd.DataFrame(X, columns=names), y)
    assert list(frame.feature_names_in_) == names
    with pytest.raises(ValueError, match="feature names"):
        frame.predict(pd.DataFrame(X, columns=names[::-1]))


def test_groups_of_rows_reach_the_splitter():
    X, y = regression(n=40)
    rows = np.repeat(np.arange(8), 5)
    model = LinearRegressorCV(cv=GroupKFold(4)).fit(X, y, groups=rows)
    for train, test in model._folds_used:
        assert not set(rows[train]) & set(rows[test])
    by_number = LinearRegressorCV(cv=4).fit(X, y, groups=rows)
    for train, test in by_number._folds_used:
        assert not set(rows[train]) & set(rows[test])
    with pytest.raises(ValueError, match="labels of the 40 rows"):
        LinearRegressorCV().fit(X, y, groups=[0, 1] * 4)
    with pytest.raises(TypeError, match="fit has no parameter 'group'"):
        LinearRegressorCV().fit(X, y, group=rows)


def test_metadata_reach_the_inner_splitter_from_outside():
    X, y = regression(n=60)
    rows = np.repeat(np.arange(12), 5)
    with config_context(enable_metadata_routing=True):
        inner = LinearRegressorCV(cv=GroupKFold(3))
        inner.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        found = cross_validate(
            inner,
            X,
            y,
            cv=GroupKFold(2),
            params={"groups": rows, "sample_weight": np.ones(60)},
            return_estimator=True,
        )
        outer = GroupKFold(2).split(X, y, rows)
        for (train, _), model in zip(outer, found["estimator"], strict=True):
            for learn, judge in model._folds_used:
                assert not set(rows[train][learn]) & set(rows[train][judge])


def test_splitters_masks_and_lists_are_the_same_folds():
    X, y = regression(n=30)
    held = np.arange(30) % 3 == 0
    given = [(np.flatnonzero(~held), np.flatnonzero(held))]
    by_list = LinearRegressorCV(cv=given).fit(X, y)
    by_mask = LinearRegressorCV(cv=held).fit(X, y)
    one_shot = LinearRegressorCV(cv=iter(given)).fit(X, y)
    predefined = LinearRegressorCV(cv=PredefinedSplit(np.where(held, 0, -1))).fit(X, y)
    for other in (by_mask, one_shot, predefined):
        assert np.array_equal(other.coef_, by_list.coef_)
    assert np.isnan(by_list.oof_prediction_[~held]).all()


def test_plot():
    pytest.importorskip("matplotlib")
    X, y = regression(n=40)
    figure = LinearRegressorCV(groups=["a"] * 4 + ["b"] * 4).fit(X, y).plot()
    assert next(ax.get_title() for ax in figure.axes) == "search"
    with pytest.raises(ValueError, match="three matplotlib axes"):
        LinearRegressorCV(cv=TWO).fit(X, y).plot([1, 2])


@pytest.mark.parametrize("module", [classifier, regressor])
def test_examples_of_the_docstrings(module):
    assert doctest.testmod(module).attempted > 0
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_factors_of_folds_read_a_constant_curvature_once(loss):
    """M is the inverse of each block at two x and two y; the squared loss is read once."""
    rng = np.random.default_rng(12)
    features, t = rng.standard_normal((30, 6)), (rng.random(30) > 0.5).astype(float)
    operator, reads = counting_operator(features)
    glm = Glm(operator, t, loss=loss, penalty="scalar")
    f = glm.cross_validation(3)[0].objective
    factors, counts = FoldFactors(f.n // 3), []
    for x, y in zip(
        rng.standard_normal((2, 1)), rng.standard_normal((2, f.n)), strict=True
    ):
        for k in range(3):
            K = f.hess(x, y).blocks.block(k)
            before = len(reads)
            M = factors(K)
            counts.append(len(reads) - before)
            eye = np.eye(f.n // 3)
            np.testing.assert_allclose(M @ (K @ eye), eye, atol=1e-10)
            assert factors(K) is M
    assert counts == ([2, 2, 2, 0, 0, 0] if loss == "squared" else [2] * 6)


def test_folds_are_pickled_without_their_operators():
    X, y = regression(n=20, p=3)
    f = Glm(X, y, loss="squared", penalty="scalar").cross_validation(2)[0].objective
    x, v = np.zeros(1), np.ones(f.n)
    want = f.hess(x, v).blocks.block(0).split[0] @ v[:4]
    again = pickle.loads(pickle.dumps(f))
    np.testing.assert_array_equal(
        again.hess(x, v).blocks.block(0).split[0] @ v[:4], want
    )
