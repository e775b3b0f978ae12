"""What the two estimators share: check, split, learn, compare, fit on all rows.

    coef_, intercept_ = argmin  Σ_i w_i ℓ(z_i, t_i) / Σ_i w_i + ½ Σ_j e^{η_j} c_j²,    η = o + Z x̂

The penalty stands on the mean loss: it means the same in each fold and on all rows.
"""

from __future__ import annotations

import dataclasses
import numbers
import warnings
from typing import Any

import numpy as np
from scipy import sparse
from sklearn import get_config
from sklearn.base import BaseEstimator
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    process_routing,
)
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)

from .. import status
from ..linear_model.loss import Loss
from .columns import Columns, prepare_columns
from .comparison import crossed_losses
from .criterion import gathered, refit
from .folds import Folds, check_classes, draw_folds, without
from .influence import influence_at
from .penalty_table import PenaltyTable, penalty_table
from .pictures import draw_fit
from .search import Search
from .single_search import search_single
from .summary import write_summary
from .table_search import search_table
from .task import Task, parts

FEW = 2  # parameters that the folds may judge by themselves
MEANT = 1e-5  # of the loss: a change below is the search's own accuracy


@dataclasses.dataclass(frozen=True)
class Coded:
    """Targets as the loss wants them."""

    loss: Loss
    targets: np.ndarray
    start: np.ndarray  # intercepts of the model without features
    several: int = 1
    outputs: int = 1


NORMS = ("l2", "l1", "elastic-net")


class LinearModelCV(BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """Linear models whose penalties are learned by cross-validation."""

    _classes = False

    # fitting ---------------------------------------------------------------------------

    def fit(self, X: Any, y: Any, sample_weight: Any = None, **params: Any) -> Any:
        """Learn the penalties by the folds, and the coefficients on all rows.

        Parameters
        ----------
        X : array, CSR or CSC matrix, pandas or polars frame (N, p)
        y : array (N,), or (N, t) for several targets of a squared loss
        sample_weight : array (N,), optional
            Used in training, in the held-out losses and in the final fit.  A row of weight
            zero is a row that is not there.
        **params
            ``groups``, an array (N,) of labels of the *rows*: they go to the splitter, and
            rows with the same label stay together where ``cv`` is a number.  With metadata
            routing enabled, whatever the splitter asks for.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            For wrong parameters or data.
        """
        self._check_parameters()
        X, y = self._validated(X, y)
        found, caught = gathered(self._learn, X, y, sample_weight, params)
        for text in dict.fromkeys(caught):  # of points on the way
            status.logger.debug("%s: %s", type(self).__name__, text)
        self._set(*found)
        self._say()
        return self

    def _check_parameters(self) -> None:
        if self.norm not in NORMS:
            known = ", ".join(map(repr, NORMS))
            raise ValueError(f"norm must be one of {known}, found {self.norm!r}")
        if self.norm != "l2" and isinstance(self.cv, str):
            raise ValueError(
                f"cv='loo' needs norm='l2', found {self.norm!r}: give a number of folds"
            )
        ratio = self.l1_ratio
        if not (isinstance(ratio, numbers.Real) and 0.0 < float(ratio) <= 1.0):
            raise ValueError(f"l1_ratio must be in (0, 1], found {ratio!r}")
        if self.keep not in {"best", "learned"}:
            raise ValueError(f"keep must be 'best' or 'learned', found {self.keep!r}")
        for name, least in (("tol", 0), ("max_iter", 0), ("prior", 0)):
            value = getattr(self, name)
            number = isinstance(value, numbers.Real) and float(value) > least
            if not (number or (name == "prior" and value is None)):
                raise ValueError(f"{name} must be a number > {least}, found {value!r}")
        if self.n_jobs is not None and not isinstance(self.n_jobs, numbers.Integral):
            raise ValueError(f"n_jobs must be a whole number, found {self.n_jobs!r}")

    def _validated(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Return checked X, and y as an array; NaN is named by row and column."""
        options = self._y_options()
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse=["csr", "csc"],
            dtype=np.float64,
            ensure_all_finite=False,
            **options,
        )
        _check_entries(X, getattr(self, "feature_names_in_", None))
        return X, y

    def _y_options(self) -> dict[str, Any]:
        return {}

    def _coded(self, y: np.ndarray, weights: np.ndarray) -> Coded:
        raise NotImplementedError

    def _learn(
        self, X: Any, y: Any, sample_weight: Any, params: dict[str, Any]
    ) -> tuple[Any, ...]:
        weights = self._weights(X, y, sample_weight)
        routed = self._routed(sample_weight, params)
        kept = weights > 0.0
        coded = self._coded(y[kept], weights[kept])
        folds = self._folds(X, y, kept, routed)
        task, columns = self._task(X, weights, coded, folds.pairs)
        table = self._table(task)
        single, learned = self._search(task, table)
        return task, columns, table, single, learned, folds, kept

    def _weights(self, X: Any, y: Any, sample_weight: Any) -> np.ndarray:
        """Return weights of mean one."""
        weights = _check_sample_weight(
            sample_weight, X, dtype=np.float64, ensure_non_negative=True
        )
        weights = self._class_weighted(y, weights)
        if not weights.sum() > 0.0:
            raise ValueError("sample_weight must not be all zeros")
        # First by the largest: sums of weights near the largest float overflow.
        weights = weights / weights.max()
        return np.asarray(weights / weights.mean())

    def _task(
        self, X: Any, weights: np.ndarray, coded: Coded, pairs: Any
    ) -> tuple[Task, Columns]:
        """Return the data of the rows that count, with their columns prepared."""
        kept = weights > 0.0
        rows = X if kept.all() else X[np.flatnonzero(kept)]
        if sparse.issparse(rows):
            kind = sparse.csr_array if rows.format == "csr" else sparse.csc_array
            rows = kind(rows)
        columns = prepare_columns(rows, weights[kept], self.fit_intercept)
        task = Task(
            columns.features,
            coded.targets,
            weights[kept],
            coded.loss,
            self.fit_intercept,
            columns.moments,
            pairs,
            coded.several,
            coded.outputs,
            1 if self.n_jobs is None else max(int(self.n_jobs), 1),
            self._start(coded, columns),
            self.norm,
            float(self.l1_ratio),
        )
        return task, columns

    def _start(self, coded: Coded, columns: Columns) -> np.ndarray:
        """Return y of the model without features."""
        count = columns.moments.size * coded.outputs
        if coded.several > 1:  # one target after the other
            each = np.zeros((coded.several, count + bool(self.fit_intercept)))
            if self.fit_intercept:
                each[:, count] = coded.start
            return each.ravel()
        rest = coded.start if self.fit_intercept else np.zeros(0)
        return np.concatenate([np.zeros(count), rest])

    def _table(self, task: Task) -> PenaltyTable:
        return penalty_table(
            self.penalties,
            task.sizes,
            groups=self.groups,
            descriptors=self.descriptors,
            deviations=self.prior is not None,
            names=getattr(self, "feature_names_in_", None),
            outputs=task.outputs,
        )

    def _search(self, task: Task, table: PenaltyTable) -> tuple[Search, Search]:
        if table.single:
            found = search_single(task, self.tol, certify=True)
            return found, found
        single = search_single(task, self.tol)
        if single.judged.mean.max() <= task.floor() and self.keep == "best":
            # The held-out rows are predicted without error: nothing is left to learn.
            u = [table.project(np.full(table.offset.size, a)) for a in single.u[0]]
            found = dataclasses.replace(single, u=np.column_stack(u), products=0)
            return single, dataclasses.replace(found, seconds=0.0)
        before = getattr(self, "_u", None) if self.warm_start else None
        options = {
            "tol": self.tol,
            "maxiter": int(self.max_iter),
            "progress": bool(self.progress),
            "callback": self._reporter(),
            "prior": 1.0 if self.prior is None else float(self.prior),
            "start": before,
        }
        learned = search_table(task, table, single, dict(options))
        enough = task.pairs is not None and len(task.pairs) > 1
        if self.keep == "best" and table.m > FEW and enough:
            quiet = options | {"progress": False, "callback": None, "start": None}
            losses, products = crossed_losses(task, table, single, quiet)
            learned = dataclasses.replace(
                learned, crossed=losses, products=learned.products + products
            )
        return single, learned

    def _reporter(self) -> Any:
        if not self.verbose:
            return None

        def report(state: Any) -> None:
            record = state.record
            status.logger.info(
                "%s step %d: folds' loss %.6g, gradient %.1e, %d products",
                type(self).__name__,
                *(record.nit, record.value, record.gradient_norm, record.n_hvp),
            )

        return report

    def _class_weighted(self, y: Any, weights: np.ndarray) -> np.ndarray:
        return weights

    def _routed(self, sample_weight: Any, params: dict[str, Any]) -> dict[str, Any]:
        """Return what goes to ``split``: ``groups`` alone without metadata routing."""
        given = {name: value for name, value in params.items() if value is not None}
        if get_config()["enable_metadata_routing"]:
            routed = process_routing(self, "fit", sample_weight=sample_weight, **given)
            return dict(routed.splitter.split)
        unknown = sorted(given.keys() - {"groups"})
        if unknown:
            raise TypeError(
                f"fit has no parameter {unknown[0]!r}; it has X, y, sample_weight and "
                "groups (labels of the rows)"
            )
        return given

    def _folds(
        self, X: Any, y: np.ndarray, kept: np.ndarray, routed: dict[str, Any]
    ) -> Folds:
        n_samples = y.shape[0]
        for name, value in routed.items():
            size = np.shape(value)[:1]
            if name == "groups" and size != (n_samples,):
                where = " (groups of columns are a parameter of the estimator)"
                raise ValueError(
                    f"groups in fit are labels of the {n_samples} rows, found shape "
                    f"{np.shape(value)}{where}"
                )
        cv = self.cv
        fixed = not (isinstance(cv, str | numbers.Integral) or hasattr(cv, "split"))
        labels = y if y.ndim == 1 else y[:, 0]
        options = {"classes": self._classes, "random_state": self.random_state}
        if fixed or kept.all():
            found = draw_folds(cv, X, labels, **options, **_split_options(routed))
            if fixed and not kept.all() and found.pairs is not None:
                pairs = without(found.pairs, kept)
                pairs = tuple(p for p in pairs if p[0].size and p[1].size)
                found = Folds(pairs, found.notes)
        else:
            which = np.flatnonzero(kept)
            cut = {name: np.asarray(value)[which] for name, value in routed.items()}
            rows = X[which]
            found = draw_folds(
                cv, rows, labels[which], **options, **_split_options(cut)
            )
        if self._classes and found.pairs is not None:
            index = np.searchsorted(self.classes_, labels[kept])
            check_classes(found.pairs, index, self.classes_)
        return found

    # what is kept ----------------------------------------------------------------------

    def _set(
        self,
        task: Task,
        columns: Columns,
        table: PenaltyTable,
        single: Search,
        learned: Search,
        folds: Folds,
        kept: np.ndarray,
    ) -> None:
        """Set the fitted attributes from what was found."""
        own = learned.judged.losses
        change, error = single.judged.change(
            own if learned.crossed is None else learned.crossed
        )
        least = MEANT * np.abs(single.judged.mean)
        take = (change < -error - least) | (self.keep == "learned") | table.single
        rows = table.offset.size
        flat = np.column_stack(
            [table.project(np.full(rows, level)) for level in single.u[0]]
        )
        eta = table.log_penalties(learned.u)
        ones = np.broadcast_to(single.u, eta.shape)
        eta = np.where(take, eta, ones)
        near = np.where(
            take[:, None], _mean_fold(task, learned), _mean_fold(task, single)
        )
        glm_y = self._refit(task, eta, near)
        coefficients, intercept = parts(task, glm_y)
        intercept = (
            intercept - columns.shift @ coefficients if task.intercept else intercept
        )
        self._set_coefficients(task, coefficients, intercept)
        one = task.several == 1
        self.log_penalties_ = eta[:, 0] if one else eta.T
        self.penalties_ = np.exp(self.log_penalties_)
        x = table.to_user(np.where(take, learned.u, flat))
        self.x_ = x[:, 0] if one else x.T
        self.kept_ = _or_scalar(np.where(take, "learned", "single"), one)
        self._u = learned.u
        judged = np.where(take, learned.judged.losses, single.judged.losses)
        final = dataclasses.replace(learned.judged, losses=judged)
        self.cv_loss_ = _or_scalar(final.mean, one)
        for name, found in (
            ("cv_loss_per_fold_", final),
            ("learned_per_fold_", learned.judged),
            ("single_cv_loss_per_fold_", single.judged),
        ):
            per_fold = found.per_fold()
            setattr(self, name, per_fold[:, 0] if one else per_fold)
        self._set_verdict(task, table, single, learned, take, change, error)
        self.notes_ = self._notes(folds, learned, learned if take.any() else single)
        self.oof_prediction_ = self._out_of_fold(task, single, learned, take, kept)
        self._folds_used, self._rows = folds.pairs, task.weights.size
        self.column_groups_ = table.column_labels
        self._summary = None
        self._summary = write_summary(self, task, table, single, learned, change, error)

    def _refit(self, task: Task, eta: np.ndarray, near: np.ndarray) -> np.ndarray:
        """Return coefficients on all rows from starts (t, n), each target by itself."""
        if task.several == 1:
            return refit(task, eta[:, 0], near[0])
        start = task.start.reshape(task.several, -1)
        each = [
            dataclasses.replace(
                task, targets=task.targets[:, k], several=1, start=start[k]
            )
            for k in range(task.several)
        ]
        triples = zip(each, eta.T, near, strict=True)
        return np.concatenate([refit(*triple) for triple in triples])

    def _set_coefficients(
        self, task: Task, coefficients: np.ndarray, intercept: np.ndarray
    ) -> None:
        raise NotImplementedError

    def _set_verdict(
        self,
        task: Task,
        table: PenaltyTable,
        single: Search,
        learned: Search,
        take: np.ndarray,
        change: np.ndarray,
        error: np.ndarray,
    ) -> None:
        one = task.several == 1
        self.single_penalty_ = _or_scalar(np.exp(single.u[0]), one)
        self.single_cv_loss_ = _or_scalar(single.judged.mean, one)
        self.learned_cv_loss_ = _or_scalar(learned.judged.mean, one)
        self.cv_loss_change_ = _or_scalar(change, one)
        self.cv_loss_change_error_ = _or_scalar(error, one)
        self.gradient_norm_ = learned.gradient_norm
        self.gradient_error_ = learned.gradient_error
        self.descent_ = learned.descent
        self.history_ = list(learned.history)
        self.n_iter_ = max(learned.n_iter, 1)
        self.converged_ = bool(learned.converged)
        self.penalty_names_ = table.names
        self.dropped_ = table.dropped
        self.groups_ = table.labels
        asked = bool(take.any()) and not table.single
        side = learned.at_bound if asked else single.at_bound
        assert side is not None
        self.at_bound_ = _bounds_said(side, table if asked else None)
        self.n_products_ = single.products + learned.products

    def _notes(self, folds: Folds, learned: Search, kept: Search) -> tuple[str, ...]:
        notes = [*folds.notes, *kept.notes]
        if not learned.converged:
            notes.append(f"the search ended early: {learned.message}")
        return tuple(dict.fromkeys(notes))

    def _out_of_fold(
        self,
        task: Task,
        single: Search,
        learned: Search,
        take: np.ndarray,
        kept: np.ndarray,
    ) -> np.ndarray:
        """Return predictors of the rows by models that did not see them; NaN for none."""
        z = np.where(
            take if task.several > 1 else take[0],
            learned.judged.predictors,
            single.judged.predictors,
        )
        found = np.zeros((kept.size, *z.shape[1:]))
        count = np.zeros((kept.size, *np.ones(z.ndim - 1, dtype=int)))
        rows = np.flatnonzero(kept)[task.judged]
        np.add.at(found, rows, z)
        np.add.at(count, rows, 1.0)
        with np.errstate(invalid="ignore"):
            return np.where(count > 0, found / count, np.nan)

    def _say(self) -> None:
        """Warn once, of the first thing that a user should know."""
        said = self.notes_
        if said:
            more = f" (and {len(said) - 1} more in notes_)" if len(said) > 1 else ""
            warnings.warn(
                f"{type(self).__name__}: {said[0]}{more}",
                status.ConvergenceWarning,
                stacklevel=3,
            )

    # what a fitted model tells -----------------------------------------------------------

    def _predictor(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(
            self,
            X,
            accept_sparse=["csr", "csc"],
            dtype=np.float64,
            reset=False,
            ensure_all_finite=False,
        )
        _check_entries(X, getattr(self, "feature_names_in_", None))
        return np.asarray(X @ self.coef_.T) + self.intercept_

    def summary(self) -> str:
        """Return a table: the best single penalty by the same folds, and the learned ones."""
        check_is_fitted(self)
        return str(self._summary)

    def influence(self, X: Any, y: Any, sample_weight: Any = None) -> np.ndarray:
        """Return the effect of each training row on the folds' loss, shape (N,).

        Parameters
        ----------
        X, y, sample_weight
            The training data, as they were given to ``fit``.

        Returns
        -------
        array (N,)
            Derivative of the pooled held-out loss by the row's training weight in the folds
            that learn from it.  A positive entry does harm: without the row the loss of the
            others falls by about its weight times the entry over the number of rows.

        Raises
        ------
        ValueError
            When X has other rows than those of ``fit``.
        """
        check_is_fitted(self)
        X, y = self._validated(X, y)
        weights = self._weights(X, y, sample_weight)
        kept = weights > 0.0
        if kept.sum() != self._rows:
            raise ValueError(
                f"X must have the {self._rows} rows of fit, found {int(kept.sum())}"
            )
        coded = self._coded(y[kept], weights[kept])
        if coded.several > 1:
            raise ValueError("influence needs one target; fit each by itself")
        task, _ = self._task(X, weights, coded, self._folds_used)
        found = np.zeros(kept.size)
        found[kept] = influence_at(task, self.log_penalties_)
        return found

    def plot(self, axes: Any = None) -> Any:
        """Draw the search, the penalties by group, and the folds; return the figure.

        Needs matplotlib, of the extra ``plot``.
        """
        check_is_fitted(self)
        return draw_fit(self, axes)

    def get_metadata_routing(self) -> Any:
        """Return where metadata go: what the splitter asks for, from ``fit``."""
        return (
            MetadataRouter(owner=self)
            .add_self_request(self)
            .add(
                splitter=self.cv,
                method_mapping=MethodMapping().add(caller="fit", callee="split"),
            )
        )

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _mean_fold(task: Task, found: Search) -> np.ndarray:
    """Return the mean of the folds' solutions of each target, (t, n)."""
    return found.y.reshape(-1, task.several, task.start.size // task.several).mean(
        axis=0
    )


def _split_options(routed: dict[str, Any]) -> dict[str, Any]:
    options = dict(routed)
    return {"groups": options.pop("groups", None), "params": options}


def _or_scalar(found: np.ndarray, one: bool) -> Any:
    return found[0].item() if one else found


def _bounds_said(side: np.ndarray, table: PenaltyTable | None) -> tuple[str, ...]:
    """Return a sentence for each parameter that ended at a bound."""
    said = []
    for k, row in enumerate(np.atleast_2d(side)):
        name = (
            "single penalty"
            if table is None
            else table.names[min(k, len(table.names) - 1)]
        )
        for value, text in ((-1, "weak end"), (1, "strong end")):
            if (row == value).any():
                said.append(f"{name} at the {text} of its range")
    return tuple(said)


def _check_entries(X: Any, names: np.ndarray | None) -> None:
    """Refuse NaN and infinity, naming the first row and column."""
    entries = X.data if sparse.issparse(X) else X
    if np.isfinite(entries.sum()) or np.isfinite(entries).all():
        return
    if sparse.issparse(X):
        place = X.tocoo()
        first = int(np.argmin(np.isfinite(place.data)))
        row, column, value = place.row[first], place.col[first], place.data[first]
    else:
        row, column = np.unravel_index(int(np.argmin(np.isfinite(X))), X.shape)
        value = X[row, column]
    name = column if names is None else repr(str(names[column]))
    what = "NaN" if np.isnan(value) else "infinity"
    raise ValueError(
        f"Input X contains {what}, first in row {row}, column {name}. Impute missing "
        "values first, for instance with sklearn.impute.SimpleImputer in a Pipeline"
    )
