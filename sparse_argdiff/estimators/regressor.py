"""Regression with learned penalties: means, log-linear means, medians and quantiles."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import d2_pinball_score, d2_tweedie_score, r2_score
from sklearn.utils.validation import column_or_1d

from ..linear_model.loss import Loss
from ..linear_model.losses import Gamma, Huber, Poisson, Quantile, Squared, Tweedie
from .linear_model_cv import Coded, LinearModelCV
from .parameters import described
from .task import Task

LOSSES = ("squared", "huber", "quantile", "poisson", "gamma", "tweedie")
LOG_LINK = ("poisson", "gamma", "tweedie")  # mean e^z, targets >= 0


@described
class LinearRegressorCV(RegressorMixin, LinearModelCV):  # type: ignore[misc]
    """Linear regression whose penalties are learned by cross-validation.

    Minimises Σ_i w_i ℓ(z_i, t_i) / Σ_i w_i + ½ Σ_j e^{η_j} c_j², z = F c + b, for ℓ =
    ½ (z − t)², Huber's, a smoothed quantile's, or half the deviance of a Poisson, gamma or
    Tweedie model with mean e^z.  With one penalty e^η that is ``Ridge(alpha=N e^η)``, and
    ``PoissonRegressor``, ``GammaRegressor`` or ``TweedieRegressor(alpha=e^η)``.

    Parameters
    ----------
    loss : {"squared", "huber", "quantile", "poisson", "gamma", "tweedie"}
        "squared" takes several targets, each with penalties of its own.  Amounts with an
        exposure v, mean v e^z: fit y / v with ``sample_weight = v ** (2 - power)``, where
        counts have the power 1 and "gamma" has 2.
    penalties :
    cv : int, splitter, iterable of (train, test), mask, or "loo"
        A number shuffles the rows by ``random_state``, and keeps groups of rows
        together where they are given.  A mask (N,) is true for
        validation rows.
    keep :
    delta : float
        Where Huber's loss becomes linear, in units of ``scale_``.
    quantile : float
        Of "quantile", in (0, 1).
    smoothing : float
        Width over which the corner of its loss is rounded, in units of ``scale_``.
    power : float
        Of "tweedie", from 1 to 2: the variance is in proportion to the mean to this power.
        It is not learned: losses of different powers do not compare.
    tol :

    Attributes
    ----------
    coef_, intercept_ : array (p,) and float, or (t, p) and (t,) for several targets
    penalties_, log_penalties_ : array (p,) or (t, p)
    cv_loss_ :
    scale_ : float
        Of "huber" and "quantile": 1.4826 times the median distance of the targets to
        their median.

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
        quantile: float = 0.5,
        smoothing: float = 0.05,
        power: float = 1.5,
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
        self.quantile = quantile
        self.smoothing = smoothing
        self.power = power
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
        if self.loss in LOG_LINK:
            self._check_amounts(y)
        return X, y

    def _check_amounts(self, y: np.ndarray) -> None:
        wrong, sign = y < 0.0, ">="
        if self._power() == 2.0:
            wrong, sign = y <= 0.0, ">"
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ValueError(
                f"y must be {sign} 0 for loss={self.loss!r}, found {y[row]} in row {row}"
            )
        if not y.any():
            raise ValueError(f"y must not be all zeros for loss={self.loss!r}")

    def _check_parameters(self) -> None:
        super()._check_parameters()
        one = math.nextafter(1.0, 0.0)
        for name, low, high, where in (
            ("quantile", math.ulp(0.0), one, "in (0, 1)"),
            ("smoothing", math.ulp(0.0), math.inf, "> 0"),
            ("delta", math.ulp(0.0), math.inf, "> 0"),
            ("power", 1.0, 2.0, "from 1 to 2"),
        ):
            value = getattr(self, name)
            number = isinstance(value, numbers.Real)
            if not (number and low <= float(value) <= high):
                raise ValueError(f"{name} must be a number {where}, found {value!r}")

    def _power(self) -> float:
        """Return the power of the mean to which the variance is proportional."""
        return {"poisson": 1.0, "gamma": 2.0}.get(self.loss, float(self.power))

    def _coded(self, y: np.ndarray, weights: np.ndarray) -> Coded:
        mean = np.atleast_1d(np.average(y, axis=0, weights=weights))
        if self.loss in LOG_LINK:
            made: dict[str, Loss] = {"poisson": Poisson(), "gamma": Gamma()}
            loss = made.get(self.loss, Tweedie(float(self.power)))
            return Coded(loss, y, np.log(mean))
        if self.loss in {"huber", "quantile"}:
            centre = np.median(y)
            spread = 1.4826 * float(np.median(np.abs(y - centre)))
            spread = spread or float(np.std(y)) or 1.0
            self.scale_ = spread
            if self.loss == "huber":
                return Coded(Huber(self.delta * spread), y, np.array([centre]))
            level = float(self.quantile)
            loss = Quantile(level, self.smoothing * spread)
            return Coded(loss, y, np.array([np.quantile(y, level)]))
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
        """Return the predicted mean, or quantile, of each row, (N,) or (N, t)."""
        z = self._predictor(X)
        return np.exp(z) if self.loss in LOG_LINK else z

    def deviance_explained(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return D², the share of the loss of a constant that the model explains.

        R² for squared and Huber's loss, the exact quantile's for "quantile"; ``score`` is R²
        for every loss, as in scikit-learn.
        """
        data: Any = y, self.predict(X)
        if self.loss in LOG_LINK:
            options: dict[str, Any] = {"power": self._power()}
            return float(
                d2_tweedie_score(*data, sample_weight=sample_weight, **options)
            )
        if self.loss == "quantile":
            options = {"alpha": float(self.quantile)}
            return float(
                d2_pinball_score(*data, sample_weight=sample_weight, **options)
            )
        return float(r2_score(*data, sample_weight=sample_weight))

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = self.loss == "squared"
        tags.target_tags.positive_only = self.loss in LOG_LINK
        return tags
