"""Regression with learned penalties: squared, Huber and Poisson losses."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import d2_tweedie_score, r2_score
from sklearn.utils.validation import column_or_1d

from ..linear_model.losses import Huber, Poisson, Squared
from .linear_model_cv import Coded, LinearModelCV
from .task import Task

LOSSES = ("squared", "huber", "poisson")


class LinearRegressorCV(RegressorMixin, LinearModelCV):  # type: ignore[misc]
    """Linear regression whose penalties are learned by cross-validation.

    Minimises Σ_i w_i ℓ(z_i, t_i) / Σ_i w_i + ½ Σ_j e^{η_j} c_j², z = F c + b, for ℓ =
    ½ (z − t)², Huber or e^z − t z.  With one penalty e^η that is ``Ridge(alpha=N e^η)``
    and ``PoissonRegressor(alpha=e^η)``.

    Parameters
    ----------
    loss : {"squared", "huber", "poisson"}
        "squared" takes several targets, each with penalties of its own.  Counts with an
        exposure: fit counts / exposure with ``sample_weight=exposure``.
    norm : {"l2", "l1", "elastic-net"}
        Of the penalty: ½ e^η c²; e^η |c|, which selects columns; or
        e^η (ρ |c| + ½ (1 − ρ) c²).  The latter two need folds, and "moments" is then
        [1, log v_j^½]: x₂ = 1 stands for standardised columns with every norm.
    l1_ratio : float
        ρ of the elastic net.
    penalties : str, list of str or table Z, optional
        What the log-penalties depend on: log-penalty of column j = Σ_k Z_jk x_k.

        - "moments", the default without groups and descriptors: Z = [1, log v_j], v_j the
          variance of the column.  x₂ = 0 penalises the columns as they are, x₂ = 1 as if
          they were standardised;
        - "single": one penalty for all columns;
        - "groups", "descriptors": see these parameters; the default where they are given;
        - "per-feature", "per-coefficient" (a column and a class): one each, around a single
          penalty of standardised columns, held by ``prior``;
        - several of these names, whose tables stand side by side;
        - a table Z itself, dense or sparse, with a row for each column of X.

        Columns of Z that depend on those before them are dropped, and named in
        ``summary()``.
    groups : labels, optional
        A penalty for each group of *columns* of X: a label for each column; a mapping of
        labels to names or indices of columns, or a list of such lists (the rest is a group
        of its own); a function of the names of the columns that returns their labels;
        "blocks", the part of each name before "__", which a ``ColumnTransformer`` with
        ``set_output(transform="pandas")`` writes; or a fitted ``ColumnTransformer``.
        Groups of *rows* are given to ``fit``.
    descriptors : array, sparse matrix or frame (p, k), optional
        What is known of each column of X, such as its degree or its document frequency; a
        level is added where no combination of them is constant.
    prior : float, optional
        Standard deviation of the log-penalties of single columns around Z x.  Where it is
        given the columns have deviations of their own; "per-feature" takes 1.
    cv : int, splitter, iterable of (train, test), mask, or "loo"
        A number shuffles the rows by ``random_state``, and keeps groups of rows
        together where they are given.  A mask (N,) is true for
        validation rows.
    keep : {"best", "learned"}
        "best" keeps the best single penalty by the same folds where the learned ones are
        not better by the standard error of the difference.
    fit_intercept : bool
        Whether there is a constant; it is not penalised.
    delta : float
        Where Huber's loss becomes linear, in units of ``scale_``.
    tol : float
        The search ends when a change of the log-penalties by one would lower the loss of
        the folds by no more than ``tol`` of itself, or two steps by 3 % of that, or, with
        up to ten parameters, by 5 % of the standard error of ``cv_loss_change_``.
    max_iter : int
        Steps of the search.
    warm_start : bool
        Start the search from the last penalties.
    random_state : int, RandomState or None
        Of the folds.
    n_jobs : int, optional
        Threads of compiled products with sparse matrices.
    verbose : int
        Log the steps of the search to the logger "sparse_argdiff".
    progress : bool
        Show a progress bar when tqdm is installed.

    Attributes
    ----------
    coef_, intercept_ : array (p,) and float, or (t, p) and (t,) for several targets
    penalties_, log_penalties_ : array (p,) or (t, p)
        e^η and η, in the units of the columns as given.
    x_ : array (m,)
        Parameters of the log-penalties, named by ``penalty_names_``.
    kept_ : str
        "learned" or "single".
    cv_loss_, single_cv_loss_, learned_cv_loss_ : float
        Pooled loss of the held-out rows: as kept, of the best single penalty
        (``single_penalty_``), as learned.
    cv_loss_change_, cv_loss_change_error_ : float
        Learned minus single, and its standard error over the rows.
    cv_loss_per_fold_ : array (K,)
        Also ``single_cv_loss_per_fold_`` and ``learned_per_fold_``.
    oof_prediction_ : array (N,)
        Linear predictor of each row by the model that did not see it.
    gradient_norm_, gradient_error_ : float
        Of the search's last point: its projected gradient, and an estimate of the error.
    descent_ : str
        What is known of that gradient: "proven", "estimated" or "not shown".
    history_, n_iter_, converged_, n_products_
        The search: a record of each step, their number, whether it met ``tol``, and
        Hessian products in all.
    at_bound_, notes_, dropped_ : tuple of str
        Parameters at an end of their range; caveats; columns of Z that were dropped.
    n_features_in_, feature_names_in_
        Of X.
    scale_ : float
        Of Huber's loss: 1.4826 times the median distance of the targets to their median.

    Notes
    -----
    ``score`` is R², as in scikit-learn; ``deviance_explained`` that of the loss.  With
    several targets the attributes of a loss are arrays (t,), x_ is (t, m).

    Examples
    --------
    >>> import numpy as np
    >>> from sparse_argdiff.estimators import LinearRegressorCV
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((80, 20))
    >>> y = 5.0 + X[:, :5].sum(axis=1) + 0.5 * rng.standard_normal(80)
    >>> model = LinearRegressorCV(groups=["signal"] * 5 + ["rest"] * 15).fit(X, y)
    >>> model.kept_
    'learned'
    >>> bool(model.penalties_[0] < model.penalties_[-1])
    True
    """

    def __init__(
        self,
        loss: str = "squared",
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
        delta: float = 1.35,
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
        self.delta = delta
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.progress = progress

    def _y_options(self) -> dict[str, Any]:
        return {"y_numeric": True, "multi_output": self.loss == "squared"}

    def _validated(self, X: Any, y: Any) -> tuple[Any, Any]:
        if self.loss not in LOSSES:
            known = ", ".join(map(repr, LOSSES))
            raise ValueError(f"loss must be one of {known}, found {self.loss!r}")
        X, y = super()._validated(X, y)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        y = np.asarray(y, dtype=np.float64)
        if self.loss == "poisson" and (y < 0.0).any():
            row = int(np.argmax(y < 0.0))
            raise ValueError(
                f"y must be >= 0 for loss='poisson', found {y[row]} in row {row}"
            )
        if self.loss == "poisson" and not y.any():
            raise ValueError("y must not be all zeros for loss='poisson'")
        return X, y

    def _coded(self, y: np.ndarray, weights: np.ndarray) -> Coded:
        mean = np.atleast_1d(np.average(y, axis=0, weights=weights))
        if self.loss == "poisson":
            return Coded(Poisson(), y, np.log(mean))
        if self.loss == "huber":
            centre = np.median(y)
            spread = 1.4826 * float(np.median(np.abs(y - centre)))
            spread = spread or float(np.std(y)) or 1.0
            self.scale_ = spread
            return Coded(Huber(self.delta * spread), y, np.array([centre]))
        several = y.shape[1] if y.ndim == 2 else 1
        return Coded(Squared(), y, mean, several)

    def _set_coefficients(
        self, task: Task, coefficients: np.ndarray, intercept: np.ndarray
    ) -> None:
        if task.targets.ndim == 1:
            self.coef_: np.ndarray = coefficients[:, 0]
            self.intercept_: Any = float(intercept[0])
        else:
            self.coef_ = np.ascontiguousarray(coefficients.T)
            self.intercept_ = intercept

    def predict(self, X: Any) -> np.ndarray:
        """Return the predicted mean of each row, (N,) or (N, t)."""
        z = self._predictor(X)
        return np.exp(z) if self.loss == "poisson" else z

    def deviance_explained(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return D², the share of the loss of the mean that the model explains.

        R² for squared loss; ``score`` is R² for every loss, as in scikit-learn.
        """
        if self.loss == "poisson":
            return float(
                d2_tweedie_score(
                    y, self.predict(X), sample_weight=sample_weight, power=1
                )
            )
        return float(r2_score(y, self.predict(X), sample_weight=sample_weight))

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = self.loss == "squared"
        tags.target_tags.positive_only = self.loss == "poisson"
        return tags
