"""Classification with learned penalties: logistic regression, binary and multinomial."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from ..linear_model.losses import Logistic
from ..linear_model.multinomial import Multinomial
from .linear_model_cv import Coded, LinearModelCV
from .parameters import described
from .task import Task


@described
class LinearClassifierCV(ClassifierMixin, LinearModelCV):  # type: ignore[misc]
    """Logistic regression whose penalties are learned by cross-validation.

    Minimises Σ_i w_i ℓ(z_i, t_i) / Σ_i w_i + ½ Σ_j e^{η_j} |c_j|², z = F c + b, for the
    logistic loss of two classes and the multinomial loss of more.  With one penalty e^η
    that is ``LogisticRegression(C=e^−η / N)``.

    Parameters
    ----------
    loss : {"logistic"}
        Two classes always go the binary way.
    penalties :
    cv : int, splitter, iterable of (train, test), mask, or "loo"
        A number shuffles the rows by ``random_state``, keeps the shares of
        the classes, and groups of rows together where they are given.  A mask (N,) is true for
        validation rows.
    keep :
    class_weight : dict, "balanced" or None
        Times ``sample_weight``; "balanced" is computed once, from all rows.
    tol :

    Attributes
    ----------
    classes_ : array (K,)
        Sorted labels, of any type.
    coef_, intercept_ : array (1, p) and (1,) for two classes, (K, p) and (K,) for more
    penalties_, log_penalties_ : array (p,), (p K,) for "per-coefficient"
    cv_loss_ :

    Notes
    -----
    The search minimises the log loss; accuracy is what ``score`` reports.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sparse_argdiff.estimators import LinearClassifierCV
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = LinearClassifierCV().fit(X, y)  # columns in units of their own
    >>> model.kept_, model.penalty_names_
    ('learned', ('level', 'log moment'))
    """

    _classes = True

    def __init__(
        self,
        loss: str = "logistic",
        *,
        norm: str = "l2",
        l1_ratio: float = 0.5,
        penalties: Any = None,
        groups: Any = None,
        descriptors: Any = None,
        prior: float | None = None,
        cv: Any = 5,
        keep: str = "best",
        fit_intercept: bool = True,
        class_weight: Any = None,
        tol: float = 1e-3,
        max_iter: int = 100,
        warm_start: bool = False,
        random_state: Any = 0,
        n_jobs: int | None = None,
        verbose: int = 0,
        progress: bool = False,
    ) -> None:
        self.loss = loss
        self.norm = norm
        self.l1_ratio = l1_ratio
        self.penalties = penalties
        self.groups = groups
        self.descriptors = descriptors
        self.prior = prior
        self.cv = cv
        self.keep = keep
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.progress = progress

    def _validated(self, X: Any, y: Any) -> tuple[Any, Any]:
        if self.loss != "logistic":
            raise ValueError(f"loss must be 'logistic', found {self.loss!r}")
        X, y = super()._validated(X, y)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        return X, y

    def _class_weighted(self, y: Any, weights: np.ndarray) -> np.ndarray:
        if self.class_weight is None:
            return weights
        if self.class_weight != "balanced":
            return weights * compute_sample_weight(self.class_weight, y)
        _, index = np.unique(y, return_inverse=True)
        share = np.bincount(index, weights) / weights.sum()
        return weights / (share.size * share[index])

    def _coded(self, y: np.ndarray, weights: np.ndarray) -> Coded:
        self.classes_, index = np.unique(y, return_inverse=True)
        count = self.classes_.size
        if count < 2:
            raise ValueError(
                "y must have two or more classes where sample_weight > 0, found one "
                f"class: {self.classes_[0]!r}"
            )
        share = np.bincount(index, weights) / weights.sum()
        if count == 2:
            odds = np.array([np.log(share[1] / share[0])])
            return Coded(Logistic(), index.astype(np.float64), odds)
        logs = np.log(share)
        targets = np.eye(count)[index]
        return Coded(Multinomial(), targets, logs - logs.mean(), outputs=count)

    def _set_coefficients(
        self, task: Task, coefficients: np.ndarray, intercept: np.ndarray
    ) -> None:
        self.coef_ = np.ascontiguousarray(coefficients.T)
        self.intercept_ = np.asarray(intercept)

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the linear predictor, (N,) for two classes, (N, K) for more."""
        z = self._predictor(X)
        return z[:, 0] if z.shape[1] == 1 else z

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row."""
        z = self.decision_function(X)
        index = (z > 0.0).astype(int) if z.ndim == 1 else z.argmax(axis=1)
        return np.asarray(self.classes_[index])

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class, (N, K); the held-out loss uses the same."""
        z = self.decision_function(X)
        if z.ndim == 2:
            return np.asarray(Multinomial.probability(z))
        return np.asarray(Logistic.probability(np.column_stack([-z, z])))

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithm of the probabilities, without underflow."""
        z = self.decision_function(X)
        if z.ndim == 1:
            both = np.column_stack([np.asarray(z), -np.asarray(z)])
            return np.asarray(-np.logaddexp(0.0, both))
        top = z.max(axis=1, keepdims=True)
        rest = np.log(np.exp(z - top).sum(axis=1, keepdims=True))
        return np.asarray(z - top - rest)
