"""What users of other packages reported: a row for each situation.

``ROWS`` names for each thread the tests that guard it.  Names of trackers are those of the
threads: sk = scikit-learn.
"""

from __future__ import annotations

import ast
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import DataConversionWarning
from sklearn.linear_model import Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    StratifiedKFold,
    TimeSeriesSplit,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from test_estimators import classes, regression

from sparse_argdiff.estimators import LinearClassifierCV, LinearRegressorCV
from sparse_argdiff.estimators.folds import draw_folds
from sparse_argdiff.status import ConvergenceWarning

HERE, FITS, CHECKS, FOLDS, LOO, MODELS = (
    f"test_{name}.py"
    for name in (
        "estimator_traps", "estimators", "estimator_checks", "cross_validation",
        "leave_one_out", "linear_model",
    )
)  # fmt: skip
ROWS = {
    # 0, 1: scale, centring, units
    "found here": {HERE: ["test_the_loss_that_is_told_is_the_loss"]},
    "sk#32042": {FITS: ["test_a_single_penalty_is_alpha_over_the_rows_and_as_good_as_a_fine_grid"], HERE: ["test_two_rows_for_one_and_weights_of_1e11_change_nothing"]},
    "statsmodels#9427": {FITS: ["test_coefficients_are_those_of_ridge_at_the_penalties", "test_poisson_is_poisson_regression_at_the_penalty", "test_amounts_are_tweedie_regression_at_the_penalty"]},
    "sk#12193": {HERE: ["test_two_classes_go_the_logistic_way"]},
    "sk#1389": {FITS: ["test_kinds_of_matrices_agree"]},
    "sk#15556": {HERE: ["test_a_shift_of_the_columns_changes_nothing_but_the_intercept"]},
    "celer#225": {CHECKS: ["test_checks"], HERE: ["test_a_shift_of_the_columns_changes_nothing_but_the_intercept"]},
    "glum#775": {HERE: ["test_coefficients_are_in_the_users_units"]},
    "sk#30951": {FITS: ["test_per_feature_penalties_do_not_depend_on_a_columns_unit"]},
    "sparse-ho#79": {FITS: ["test_moments_find_columns_in_units_of_their_own", "test_empty_columns_leave_the_starts_of_standardised_ones"]},
    "sk#16398": {HERE: ["test_an_optimum_at_the_end_of_the_range_is_told"]},
    "sk#24877": {FITS: ["test_the_value_and_gradient_of_the_search_are_those_of_the_folds"]},
    "sk#32459": {LOO: ["test_interpolating_models_are_right_or_refused"], HERE: ["test_two_rows_for_one_and_weights_of_1e11_change_nothing", "test_leave_one_out_next_to_interpolation"]},
    # 2: folds
    "sk#28575": {HERE: ["test_folds_of_unlike_size_are_pooled"], FOLDS: ["test_the_pooled_loss_is_no_mean_of_means"]},
    "sk#15900": {FITS: ["test_leave_one_out_is_exact_for_squared_loss"]},
    "sk#18079": {HERE: ["test_the_criterion_is_named"]},
    "gam#1077": {FITS: ["test_leave_one_out_of_classes_is_near_that_of_refits"], LOO: ["test_one_newton_step_is_enough_at_small_leverages", "test_high_leverages_are_told_once"]},
    "sk#7303": {HERE: ["test_a_number_of_folds_shuffles_by_random_state"]},
    "sk#7660": {HERE: ["test_splits_are_listed_once_and_see_the_targets"]},
    "sk#8426": {HERE: ["test_splits_are_listed_once_and_see_the_targets"]},
    "python-glmnet#21": {FITS: ["test_splitters_masks_and_lists_are_the_same_folds", "test_groups_of_rows_reach_the_splitter"]},
    "cca_zoo#149": {FITS: ["test_groups_of_rows_reach_the_splitter", "test_groups_by_names"]},
    "sk#20349": {FITS: ["test_metadata_reach_the_inner_splitter_from_outside"]},
    "statsmodels#3180": {FOLDS: ["test_features_are_read_once_for_all_folds", "test_rows_that_do_not_count_may_be_anything"], MODELS: ["test_weights_repeat_and_remove_rows"]},
    "sk#26359": {HERE: ["test_a_scaler_in_a_pipeline_inside_a_grid_search"]},
    "sk#7834": {HERE: ["test_growing_training_sets_and_rows_that_are_never_held_out"]},
    # 3: weights, offsets, scores
    "sk#29248": {HERE: ["test_weights_are_repeats_and_zero_is_absence"]},
    "sk#5364": {FITS: ["test_leave_one_out_is_exact_for_squared_loss"], HERE: ["test_predictions_out_of_fold_are_those_of_refits"]},
    "sk#4763": {HERE: ["test_weights_are_repeats_and_zero_is_absence", "test_scores_are_those_of_scikit_learn"]},
    "glum#933": {HERE: ["test_weights_are_repeats_and_zero_is_absence"], FOLDS: ["test_weights_repeat_and_remove_rows"]},
    "sk#5975": {FITS: ["test_counts_with_an_exposure_are_rates_with_weights"], MODELS: ["test_exposure_is_a_weight_of_rates"]},
    "sk#14300": {HERE: ["test_the_power_is_not_learned"]},
    "sk#33214": {HERE: ["test_the_loss_of_the_folds_is_that_of_predict_proba"]},
    "sk#8720": {HERE: ["test_the_loss_of_the_folds_is_that_of_predict_proba"]},
    "sk#10998": {HERE: ["test_scores_are_those_of_scikit_learn"]},
    "sk#22966": {HERE: ["test_predictions_out_of_fold_are_those_of_refits"]},
    "sk#27016": {FITS: ["test_counts_of_any_size"]},
    "sk#5291": {FITS: ["test_huber_forgets_outliers_in_any_unit", "test_quantiles_are_those_of_the_rows_in_any_unit"]},
    # 4: classes
    "sk#12845": {HERE: ["test_a_class_that_a_training_fold_lacks_is_named"]},
    "sk#31126": {HERE: ["test_rare_classes_warn_once"]},
    "python-glmnet#1": {HERE: ["test_a_single_class_is_refused"]},
    "sk#8737": {HERE: ["test_words_booleans_and_odd_numbers_are_labels"]},
    "sk#5450": {HERE: ["test_balanced_weights_come_from_all_rows"]},
    "sk#15583": {HERE: ["test_separable_classes_end_at_a_finite_penalty"]},
    # 5: degenerate input
    "sk#4224": {HERE: ["test_a_constant_target"]},
    "sk#4545": {HERE: ["test_a_column_without_spread_has_no_coefficient"]},
    "sk#26997": {HERE: ["test_no_number_is_named_by_row_and_column"]},
    "sk#32898": {HERE: ["test_a_target_in_a_column_is_ravelled_with_scikit_learns_warning"]},
    "glum#330": {HERE: ["test_columns_at_predict_are_those_of_fit"]},
    "sk#4597": {HERE: ["test_input_is_not_written_to"]},
    "sk#33020": {HERE: ["test_whole_numbers_and_single_precision"]},
    # 6: parameters, refit, search
    "group-lasso#27": {HERE: ["test_parameters_stay_as_given"], FITS: ["test_copies_and_files"]},
    "optuna-integration#118": {HERE: ["test_a_second_fit_starts_anew"]},
    "sk#32072": {FITS: ["test_coefficients_are_those_of_ridge_at_the_penalties"]},
    "sk#30396": {FITS: ["test_coefficients_are_those_of_ridge_at_the_penalties"]},
    "himalaya#23": {FITS: ["test_coefficients_are_those_of_ridge_at_the_penalties"]},
    "group-lasso#13": {HERE: ["test_groups_of_any_label_and_with_gaps"]},
    "sk#8475": {HERE: ["test_the_search_that_stops_early_warns_once"]},
    "sparse-lm#96": {FITS: ["test_noise_keeps_the_single_penalty_and_says_so"]},
}  # fmt: skip


def functions(file):
    tree = ast.parse((Path(__file__).parent / file).read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_row_has_tests():
    assert len(ROWS) == 59
    for row, files in ROWS.items():
        for file, names in files.items():
            assert set(names) <= functions(file), f"row {row}"


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


def test_the_criterion_is_named():
    """sk#18079: leave-one-out is not called generalised cross-validation."""
    X, y = regression()
    said = squared(X, y, cv="loo").summary()
    assert "leave-one-out" in said
    assert "leave-one-out" not in squared(X, y, cv=3).summary()


def test_a_scaler_in_a_pipeline_inside_a_grid_search():
    """sk#26359: outer folds scale by their own training rows, and nothing else is needed."""
    X, y = regression(n=90)
    X = X * np.geomspace(0.01, 100.0, X.shape[1])
    pipeline = make_pipeline(StandardScaler(), LinearRegressorCV(cv=3))
    grid = {"linearregressorcv__penalties": ["single", "per-feature"]}
    outer = GridSearchCV(pipeline, grid, cv=3, error_score="raise").fit(X, y)
    for k, (train, test) in enumerate(KFold(3).split(X)):
        alone = clone(pipeline).set_params(linearregressorcv__penalties="single")
        score = alone.fit(X[train], y[train]).score(X[test], y[test])
        assert outer.cv_results_[f"split{k}_test_score"][0] == pytest.approx(score)
    moved = LinearRegressorCV(cv=3).fit(X, y)
    assert moved.score(X, y) >= outer.score(X, y) - 0.02


def test_leave_one_out_next_to_interpolation():
    """sk#32459: more columns than rows and hardly any noise."""
    rng = np.random.default_rng(1)
    X = rng.standard_normal((30, 60)) * np.geomspace(1.0, 1e-3, 60)
    y = X @ rng.standard_normal(60)
    model = squared(X, y, cv="loo")
    F = np.column_stack([X, np.ones(30)])
    ridge = np.diag(np.append(np.full(60, model.single_penalty_), 0.0))
    rest = []
    for i in range(30):  # the others keep their weights
        kept = np.arange(30) != i
        c = np.linalg.solve(F[kept].T @ F[kept] / 30 + ridge, F[kept].T @ y[kept] / 30)
        rest.append(y[i] - F[i] @ c)
    assert model.single_penalty_ < 1e-6
    assert model.cv_loss_ == pytest.approx(0.5 * np.mean(np.square(rest)), rel=1e-6)


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


def test_the_power_is_not_learned():
    """sk#14300: the loss depends on it, so that folds of two powers do not compare."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((80, 3))
    y = rng.gamma(2.0, np.exp(0.4 * X[:, 0])) * (rng.random(80) < 0.9)
    for power in (1.1, 1.9):
        model = LinearRegressorCV("tweedie", power=power).fit(X, y)
        assert model.power == power
        assert "power" not in " ".join(model.penalty_names_)


@pytest.mark.parametrize("count", [2, 3])
def test_the_loss_of_the_folds_is_that_of_predict_proba(count):
    """sk#33214, sk#8720: tuned by log loss, with the probabilities that are told."""
    X, y = classes(n=90, count=count)
    model = LinearClassifierCV(**SINGLE).fit(X, y)
    z = model.oof_prediction_
    z = np.column_stack([0.0 * z, z]) if count == 2 else z
    e = np.exp(z - z.max(axis=1, keepdims=True))
    probability = e / e.sum(axis=1, keepdims=True)
    assert model.cv_loss_ == pytest.approx(log_loss(y, probability), rel=1e-6)


def test_predictions_out_of_fold_are_those_of_refits():
    """sk#22966, sk#5364: in the users' units, whatever the weights."""
    X, y = regression()
    weights = np.random.default_rng(0).uniform(0.5, 2.0, 60)
    model = squared(X, y, cv=TWO)
    assert model.cv_loss_per_fold_.shape == (2,)
    heavy = LinearRegressorCV(**SINGLE, cv=TWO).fit(X, y, sample_weight=weights)
    for k, (train, test) in enumerate(TWO):
        for one, w in ((model, np.ones(60)), (heavy, weights)):
            alpha = one.single_penalty_ * w[train].sum()
            peer = Ridge(alpha=alpha).fit(X[train], y[train], sample_weight=w[train])
            z = peer.predict(X[test])
            assert one.oof_prediction_[test] == pytest.approx(z, abs=1e-3)
            loss = np.average(0.5 * (y[test] - z) ** 2, weights=w[test])
            assert one.cv_loss_per_fold_[k] == pytest.approx(loss, rel=1e-3)


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


def test_columns_at_predict_are_those_of_fit():
    """glum#330: another order, a missing or a new column of a frame is refused."""
    X, y = regression()
    frame = pd.DataFrame(X, columns=[f"c{j}" for j in range(X.shape[1])])
    model = LinearRegressorCV(**SINGLE).fit(frame, y)
    with pytest.raises(ValueError, match="same order"):
        model.predict(frame[list(frame.columns[::-1])])
    with pytest.raises(ValueError, match="missing:\n- c0"):
        model.predict(frame.drop(columns="c0"))
    with pytest.raises(ValueError, match="unseen at fit time:\n- new"):
        model.predict(frame.rename(columns={"c0": "new"}))
    towns = pd.DataFrame({"town": ["a", "b", "c"] * 20})
    pipeline = make_pipeline(
        OneHotEncoder(handle_unknown="ignore"), LinearRegressorCV(**SINGLE)
    ).fit(towns, y)
    unknown = pipeline.predict(pd.DataFrame({"town": ["d", "a"]}))
    assert unknown[0] == pytest.approx(pipeline[-1].intercept_)


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
