"""scikit-learn's own checks of an estimator, on both, with no expected failure.

The default estimators are marked slow: each check fits them several times.
"""

from __future__ import annotations

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator

from sparse_argdiff.estimators import LinearClassifierCV, LinearRegressorCV
from sparse_argdiff.estimators.regressor import LOSSES

EXPECTED_FAILURES: dict[str, str] = {}


def checks(*estimators):
    for estimator in estimators:
        for checked, check in estimator_checks_generator(
            estimator, expected_failed_checks=EXPECTED_FAILURES, mark="xfail"
        ):
            name = getattr(check, "func", check).__name__
            yield pytest.param(checked, check, id=f"{estimator!r}-{name}")


QUICK = (
    LinearRegressorCV(penalties="single", cv=2),
    LinearClassifierCV(penalties="single", cv=2),
)
FULL = (
    LinearRegressorCV(),
    LinearClassifierCV(),
    *(LinearRegressorCV(loss) for loss in LOSSES if loss != "squared"),
)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("estimator", "check"), [*checks(*QUICK)])
def test_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("estimator", "check"), [*checks(*FULL)])
def test_checks_of_the_defaults(estimator, check):
    check(estimator)
