"""What users of other packages reported: a row for each situation.

Names of trackers are those of the threads: sk = scikit-learn.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import DataConversionWarning
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, StratifiedKFold, TimeSeriesSplit
from test_estimators import classes, regression

from sparse_argdiff.estimators import LinearClassifierCV, LinearRegressorCV
from sparse_argdiff.estimators.folds import draw_folds
from sparse_argdiff.status import ConvergenceWarning

SINGLE = {"penalties": "single"}
TWO = list(KFold(2).split(np.zeros(60)))


def squared(X, y, **options):
    return LinearRegressorCV(**(SINGLE | options)).fit(X, y)


# 0, 1: scale, centring, units ------------------------------------------------------------


@pytest.mark.parametrize("mean", [0.0, 10.0, 100.0, 1000.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_loss_that_is_told_is_the_loss(mean, seed):
    """Found here: a minimiser that was wrong by 58 times, and said success."""
    X, y = regression(seed)
    X = X + mean
    model = squared(X, y, cv=TWO)
    alpha = 30 * model.single_penalty_
    rest = [
        y[test] - Ridge(alpha=alpha, solver="svd").fit(X[a], y[a]).predict(X[test])
        for a, test in TWO
    ]
    assert model.cv_loss_ == pytest.approx(0.5 * np.mean(np.concatenate(rest) ** 2))
    assert model.cv_loss_ > 0.0


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array, sparse.csc_array])
def test_a_shift_of_the_columns_changes_nothing_but_the_intercept(kind):
    """sk#15556, sk#27777, celer#225: a year as a column."""
    X, y = regression()
    one, other = (LinearRegressorCV(tol=1e-6).fit(kind(Z), y) for Z in (X, X + 1000.0))
    assert np.allclose(one.coef_, other.coef_, rtol=1e-4, atol=1e-6)
    assert np.allclose(one.predict(kind(X)), other.predict(kind(X + 1000.0)), atol=1e-4)


def test_two_rows_for_one_and_weights_of_1e11_change_nothing():
    """sk#32042, sk#26848: the penalty stands on the mean loss."""
    X, y = regression()
    model = squared(X, y, cv=TWO)
    weighted = LinearRegressorCV(cv=TWO, **SINGLE).fit(X, y, np.full(60, 1e11))
    assert np.allclose(weighted.coef_, model.coef_, rtol=1e-9)
    twice = [(np.r_[a, a + 60], np.r_[b, b + 60]) for a, b in TWO]
    again = squared(np.vstack([X, X]), np.r_[y, y], cv=twice)
    assert np.allclose(again.coef_, model.coef_, rtol=1e-6)
    assert again.single_penalty_ == pytest.approx(model.single_penalty_, rel=1e-5)


def test_two_classes_go_the_logistic_way():
    """sk#12193: two-class softmax has other coefficients under the same penalty."""
    X, y = classes()
    model = LinearClassifierCV(**SINGLE).fit(X, y)
    assert model.coef_.shape == (1, 5)
    assert model.decision_function(X).shape == (90,)


def test_coefficients_are_in_the_users_units():
    """glum#775: and the penalties too."""
    X, y = regression()
    units = np.array([1e-3, 1.0, 1e3, 1, 1, 1, 1, 1])
    model = LinearRegressorCV().fit(X * units, y)
    assert np.allclose(
        model.predict(X * units), (X * units) @ model.coef_ + model.intercept_
    )
    assert model.penalties_.shape == model.coef_.shape


def test_an_optimum_at_the_end_of_the_range_is_told():
    """sk#16398, sk#24877: converged is not the same as at a bound."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 5))
    noise = squared(X, rng.standard_normal(60), cv=TWO)
    if noise.at_bound_:
        assert noise.at_bound_ == ("single penalty at the strong end of its range",)
        assert "at a bound" in noise.summary()
    exact = squared(X, X @ np.arange(5.0), cv=TWO)
    assert exact.at_bound_ == ("single penalty at the weak end of its range",)
    assert exact.converged_


# 2: folds ------------------------------------------------------------------------------


def test_folds_of_unlike_size_are_pooled():
    """sk#28575: a fold of one row does not count as a third."""
    X, y = regression()
    rows = np.arange(60)
    folds = [(rows[1:], rows[:1]), (rows[:30], rows[30:]), (rows[30:], rows[1:30])]
    model = squared(X, y, cv=folds)
    sizes = [1, 30, 29]
    pooled = np.average(model.cv_loss_per_fold_, weights=sizes)
    assert model.cv_loss_ == pytest.approx(pooled)


def test_a_number_of_folds_shuffles_by_random_state():
    """sk#7303: sorted targets; the same seed gives the same bits."""
    X, y = regression()
    order = np.argsort(y)
    one, same, other = (squared(X[order], y[order], random_state=s) for s in (0, 0, 1))
    assert np.array_equal(one.coef_, same.coef_)
    assert one.cv_loss_ != other.cv_loss_
    _, test = one._folds_used[0]
    assert not np.array_equal(test, np.arange(12))


def test_splits_are_listed_once_and_see_the_targets():
    """sk#7660, sk#8426."""
    calls = []

    class Once:
        def split(self, X, y=None, groups=None):
            calls.append(y.copy())
            yield from StratifiedKFold(3).split(X, y)

    X, y = classes()
    LinearClassifierCV(cv=Once(), **SINGLE).fit(X, y)
    assert len(calls) == 1
    assert np.array_equal(calls[0], y)


def test_growing_training_sets_and_rows_that_are_never_held_out():
    """sk#7834."""
    X, y = regression()
    model = squared(X, y, cv=TimeSeriesSplit(4))
    assert np.isnan(model.oof_prediction_[:12]).all()
    assert np.isfinite(model.oof_prediction_[12:]).all()


def test_wrong_folds():
    X, y = regression()
    rows = np.arange(60)
    for cv, message in (
        ([(rows, rows[:2])], "both train and test"),
        ([(rows[:0], rows)], "no train rows"),
        ([(rows, rows[:0])], "no test rows"),
        ([(rows[:30], [99])], "names row 99"),
        (1, "at least 2"),
        ("loocv", "'loo'"),
        (np.ones(5, dtype=bool), "mask of 5 rows"),
    ):
        with pytest.raises(ValueError, match=message):
            squared(X, y, cv=cv)
    with pytest.raises(TypeError, match="cv must be"):
        squared(X, y, cv=None)


# 3: weights and scores -------------------------------------------------------------------


@pytest.mark.parametrize("kind", [LinearRegressorCV, LinearClassifierCV])
def test_weights_are_repeats_and_zero_is_absence(kind):
    """sk#29248, sk#16298: for penalties, fold losses and coefficients."""
    X, y = classes(n=40)
    weights = np.random.default_rng(0).integers(0, 4, 40)
    index = np.repeat(np.arange(40), weights)
    held = np.arange(40) < 20
    folds = [(np.flatnonzero(held == k), np.flatnonzero(held != k)) for k in (0, 1)]
    copies = held[index]
    copied = [
        (np.flatnonzero(copies == k), np.flatnonzero(copies != k)) for k in (0, 1)
    ]
    one = kind(cv=folds, tol=1e-6).fit(X, y, weights)
    other = kind(cv=copied, tol=1e-6).fit(X[index], y[index])
    assert np.allclose(one.coef_, other.coef_, rtol=1e-4, atol=1e-7)
    assert np.allclose(one.cv_loss_per_fold_, other.cv_loss_per_fold_, rtol=1e-5)


def test_rows_of_weight_zero_may_be_drawn_into_any_fold():
    X, y = regression(n=70)
    weights = np.r_[np.ones(60), np.zeros(10)]
    one = LinearRegressorCV().fit(X, y, weights)
    other = LinearRegressorCV().fit(X[:60], y[:60])
    assert np.allclose(one.coef_, other.coef_, rtol=1e-9)
    assert np.isnan(one.oof_prediction_[60:]).all()
    with pytest.raises(ValueError, match=r"at least one non-zero|all zeros"):
        LinearRegressorCV().fit(X, y, np.zeros(70))


def test_scores_are_those_of_scikit_learn():
    """sk#10998, sk#8720: R² and accuracy; the folds' loss is that of predict_proba."""
    X, y = classes(count=3)
    model = LinearClassifierCV(**SINGLE).fit(X, y)
    assert model.score(X, y) == np.mean(model.predict(X) == y)
    z = model.oof_prediction_
    log = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    assert model.cv_loss_ == pytest.approx(-np.mean(log[np.arange(90), y]))


# 4: classes ------------------------------------------------------------------------------


def test_words_booleans_and_odd_numbers_are_labels():
    """sk#8737."""
    X, y = classes()
    for labels in (np.array(["no", "yes"]), np.array([False, True]), np.array([1, 2])):
        model = LinearClassifierCV(**SINGLE).fit(X, labels[y])
        assert np.array_equal(model.classes_, labels)
        assert model.predict(X).dtype == labels.dtype
        assert model.score(X, labels[y]) > 0.7
    X, y = classes(count=3)
    model = LinearClassifierCV(**SINGLE).fit(X, y + 1)
    assert model.coef_.shape == (3, 5)  # no empty class 0


def test_a_single_class_is_refused():
    """python-glmnet#1."""
    X, _ = classes()
    with pytest.raises(ValueError, match="found one class"):
        LinearClassifierCV().fit(X, np.ones(90, dtype=int))


def test_a_class_that_a_training_fold_lacks_is_named():
    """sk#12845."""
    X, y = classes(count=3)
    y = np.array(["ant", "bee", "fly"])[y]
    fly = np.flatnonzero(y == "fly")
    rest = np.flatnonzero(y != "fly")
    folds = [(rest[:20], rest[20:]), (np.r_[rest[20:], fly], rest[:20])]
    with pytest.raises(ValueError, match=r"fold 0 has no row of class .*fly"):
        LinearClassifierCV(cv=folds).fit(X, y)


def test_rare_classes_warn_once():
    """sk#31126, sk#29558: fewer members than folds."""
    X, y = classes(count=3)
    y[y == 2] = 0
    y[:3] = 2
    with pytest.warns(ConvergenceWarning, match="smallest class has 3 rows") as caught:
        LinearClassifierCV(**SINGLE).fit(X, y)
    assert len(caught) == 1
    y[1:3] = 0
    with pytest.warns(ConvergenceWarning, match="single row are never held out"):
        model = LinearClassifierCV(**SINGLE).fit(X, y)
    assert np.isnan(model.oof_prediction_[0]).all()


def test_balanced_weights_come_from_all_rows():
    """sk#5450."""
    X, y = classes()
    keep = np.r_[np.flatnonzero(y == 0), np.flatnonzero(y == 1)[:15]]
    X, y = X[keep], y[keep]
    share = np.bincount(y) / len(y)
    balanced = LinearClassifierCV(class_weight="balanced", **SINGLE).fit(X, y)
    by_hand = LinearClassifierCV(**SINGLE).fit(X, y, 1.0 / share[y])
    assert np.allclose(balanced.coef_, by_hand.coef_, rtol=1e-6)


def test_separable_classes_end_at_a_finite_penalty():
    """sk#15583."""
    X = np.linspace(-1, 1, 40)[:, None] + np.repeat([-1.0, 1.0], 20)[:, None]
    y = np.repeat([0, 1], 20)
    model = LinearClassifierCV().fit(X, y)
    assert np.isfinite(model.coef_).all()
    assert model.score(X, y) == 1.0


# 5: degenerate input -------------------------------------------------------------------------


def test_a_constant_target():
    """sk#4224."""
    X, _ = regression()
    model = LinearRegressorCV().fit(X, np.full(60, 7.0))
    assert np.allclose(model.predict(X), 7.0)
    assert np.abs(model.coef_).max() < 1e-6


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
def test_a_column_without_spread_has_no_coefficient(kind):
    """sk#4545."""
    X, y = regression()
    X[:, 3], X[:, 4] = 0.0, 5.0
    model = LinearRegressorCV().fit(kind(X), y)
    assert abs(model.coef_[3]) < 1e-9
    assert abs(model.coef_[4]) < 1e-9
    assert "without spread" in model.summary()


def test_no_number_is_named_by_row_and_column():
    """sk#26997."""
    X, y = regression()
    X[7, 2] = np.nan
    with pytest.raises(ValueError, match="NaN, first in row 7, column 2"):
        LinearRegressorCV().fit(X, y)
    frame = pd.DataFrame(X, columns=list("abcdefgh"))
    with pytest.raises(ValueError, match="row 7, column 'c'"):
        LinearRegressorCV().fit(frame, y)
    X[7, 2] = np.inf
    with pytest.raises(ValueError, match="infinity, first in row 7, column 2"):
        LinearRegressorCV().fit(sparse.csr_array(X), y)


def test_a_target_in_a_column_is_ravelled_with_scikit_learns_warning():
    """sk#32898."""
    X, y = regression()
    with pytest.warns(DataConversionWarning):
        model = LinearRegressorCV(**SINGLE).fit(X, y[:, None])
    assert model.predict(X).shape == (60,)


def test_input_is_not_written_to():
    """sk#4597: read-only maps in workers."""
    X, y = regression()
    X.flags.writeable = y.flags.writeable = False
    LinearRegressorCV().fit(X, y)
    S = sparse.csr_array(X + 100.0)
    before = S.data.copy()
    S.data.flags.writeable = False
    LinearRegressorCV().fit(S, y)
    assert np.array_equal(S.data, before)


def test_whole_numbers_and_single_precision():
    """sk#33020."""
    X, y = regression()
    whole = np.round(10 * X).astype(int)
    one, other = (squared(Z, y) for Z in (whole, whole.astype(float)))
    assert np.array_equal(one.coef_, other.coef_)
    short = squared(X.astype(np.float32), y)
    assert np.allclose(short.coef_, squared(X, y).coef_, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("n", "p"), [(2, 1), (3, 5), (5, 1)])
def test_very_few_rows(n, p):
    X, y = regression(n=n, p=max(p, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LinearRegressorCV().fit(X[:, :p], y)
    assert np.isfinite(model.coef_).all()
    with pytest.raises(ValueError, match="n_samples=1"):
        LinearRegressorCV().fit(X[:1, :p], y[:1])


# 6: parameters, fits, warnings -----------------------------------------------------------------


def test_parameters_stay_as_given():
    """group-lasso#27, optuna#4084."""
    groups, cv = ["a", "b"] * 4, KFold(3)
    model = LinearRegressorCV(groups=groups, cv=cv)
    X, y = regression()
    before = clone(model).get_params()
    model.fit(X, y)
    assert model.groups is groups
    assert model.cv is cv
    assert model.get_params().keys() == before.keys()
    assert model.groups_ == ("a", "b")


def test_a_second_fit_starts_anew():
    """optuna-integration#118."""
    X, y = regression()
    model = LinearRegressorCV(groups=[0, 1] * 4).fit(X, y)
    coefficients = model.coef_
    assert np.array_equal(model.fit(X, y).coef_, coefficients)


def test_groups_of_any_label_and_with_gaps():
    """group-lasso#13."""
    X, y = regression()
    one = LinearRegressorCV(groups=[0, 2] * 4).fit(X, y)
    other = LinearRegressorCV(groups=["zero", "two"] * 4).fit(X, y)
    assert len(one.x_) == 2
    assert np.array_equal(one.coef_, other.coef_)


def test_the_search_that_stops_early_warns_once():
    """sk#8475."""
    X, y = regression(p=8, noise=3.0)
    model = LinearRegressorCV(
        penalties="per-feature", max_iter=1, keep="learned", tol=1e-6
    )
    with pytest.warns(ConvergenceWarning, match="ended early") as caught:
        model.fit(X, y)
    assert len(caught) == 1
    assert not model.converged_
    assert model.notes_


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "hinge"}, "loss must be"),
        ({"norm": "l0"}, "norm must be"),
        ({"keep": "all"}, "keep must be"),
        ({"tol": 0.0}, "tol must be"),
        ({"max_iter": 0}, "max_iter must be"),
        ({"prior": -1.0}, "prior must be"),
        ({"n_jobs": 1.5}, "n_jobs must be"),
    ],
)
def test_wrong_parameters(options, message):
    X, y = classes()
    for kind in (LinearRegressorCV, LinearClassifierCV):
        with pytest.raises(ValueError, match=message):
            kind(**options).fit(X, y)


def test_wrong_targets_of_counts():
    X, y = regression()
    with pytest.raises(ValueError, match=r"y must be >= 0 .* in row"):
        LinearRegressorCV("poisson").fit(X, y - 20.0)
    with pytest.raises(ValueError, match="all zeros"):
        LinearRegressorCV("poisson").fit(X, 0.0 * y)


def test_folds_keep_groups_and_classes():
    y = np.repeat([0, 1], 20)
    found = draw_folds(4, np.zeros((40, 1)), y, classes=True, random_state=0)
    assert found.pairs is not None
    for _, test in found.pairs:
        assert y[test].mean() == 0.5
