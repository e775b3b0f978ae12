"""K-fold cross-validation as one lower level: K models stacked, one read of the data.

    f(x, Y) = Σ_k f_k(x, y_k)            f_k: the mean over the training samples of fold k
    f^U(Y) = Σ_k s_k · (mean loss of y_k on the held-out samples of fold k)

s_k is the share of the held-out weights that fold k has: f^U is the mean loss of all
held-out predictions, each by the model that has not seen its sample.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from ..arrays import Array, as_array, as_count, asarray, namespace
from ..problem.constants import Constants
from ..problem.problem import Problem
from .lipschitz_constants import lipschitz_of
from .mean_loss import DataTerm
from .rows import Rows
from .stacked_models import StackedModels
from .third_derivative import observations, second_of_loss


@dataclasses.dataclass(frozen=True, eq=False)
class Fold:
    """How often each sample is in one fold.

    Attributes
    ----------
    train, test : array (N,)
        Counts, zero where the sample is not there.
    """

    train: Array
    test: Array


def list_folds(folds: Any, data: DataTerm, rng: Any = 0) -> list[Fold]:
    """Return the folds of a number or of (train, test) pairs, which are read once.

    Raises
    ------
    ValueError, TypeError
        For fewer than two folds of a number, more than samples, indices outside the
        samples, samples that a fold both learns from and holds out, and folds without
        either.
    """
    n_samples = data.design.n_samples
    if hasattr(folds, "__index__"):
        count = as_count("folds", folds)
        if not 2 <= count <= n_samples:
            raise ValueError(
                f"folds must be from 2 to the number of samples, {n_samples}, found "
                f"{count}"
            )
        held = _numbered(count, data, rng)
        pairs: Any = [(held != k, held == k) for k in range(count)]
    else:
        if isinstance(folds, str) or not hasattr(folds, "__iter__"):
            raise TypeError(
                "folds must be a number or (train, test) pairs of indices, such as "
                f"list(splitter.split(X, y)), found {type(folds).__name__}"
            )
        pairs = list(folds)
        if not pairs:
            raise ValueError(
                "folds must be at least one (train, test) pair, found none"
            )
    return [_fold(k, pair, data) for k, pair in enumerate(pairs)]


def _numbered(count: int, data: DataTerm, rng: Any) -> Any:
    """Return the fold that holds each sample out: shuffled, classes spread evenly."""
    targets = namespace(data.targets).asarray(data.targets)
    host = _host(targets)
    random = np.random.default_rng(rng).random(host.shape[0])
    kind = np.zeros(host.shape[0])
    if getattr(data.loss, "mean_range", (0.0, math.inf))[1] == 1.0:
        kind = host if host.ndim == 1 else np.argmax(host, axis=1)
    fold = np.empty(host.shape[0], dtype=np.int64)
    fold[np.lexsort((random, kind))] = np.arange(host.shape[0]) % count
    return fold


def _fold(k: int, pair: Any, data: DataTerm) -> Fold:
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise ValueError(
            f"folds must be (train, test) pairs, found {type(pair).__name__} as fold {k}"
        )
    train, test = (
        _counted(f"the {name} samples of fold {k}", part, data)
        for name, part in zip(("training", "held-out"), pair, strict=True)
    )
    both = np.nonzero((train > 0) & (test > 0))[0]
    if both.size:
        raise ValueError(
            f"fold {k} must not hold out what it learns from, found {both.size} samples "
            f"in both, the first of them {both[0]}"
        )
    like = data.weights
    return Fold(asarray(train, like), asarray(test, like))


def _counted(name: str, part: Any, data: DataTerm) -> Any:
    """Return how often each sample is among indices, or where a mask is true."""
    n = data.design.n_samples
    array = as_array(name, part)
    index = _host(array)
    if index.ndim != 1:
        raise ValueError(f"{name} must be 1-D, found shape {index.shape}")
    if index.dtype == bool:
        if index.shape != (n,):
            raise ValueError(f"{name} must be a mask ({n},), found {index.shape}")
        return index.astype(np.float64)
    if index.size and index.dtype.kind not in "iu":
        raise TypeError(f"{name} must be indices or a mask, found dtype {index.dtype}")
    index = index.astype(np.int64)
    if index.size and not (index.min() >= 0 and index.max() < n):
        raise ValueError(
            f"{name} must be indices from 0 to {n - 1}, found {index.min()} to "
            f"{index.max()}"
        )
    return np.bincount(index, minlength=n).astype(np.float64)


def training_terms(data: DataTerm, folds: list[Fold]) -> list[DataTerm]:
    """Return the data term of each fold: the mean over its training samples.

    Raises
    ------
    ValueError
        Naming the fold without training samples, or the fold and the class that it lacks.
    """
    given, found = data.given_weights(), []
    for k, fold in enumerate(folds):
        weights = given * fold.train
        if not float(namespace(weights).sum(weights)) > 0.0:
            raise ValueError(
                f"fold {k} must have training samples of a weight, found none"
            )
        term = data.like(weights=weights)
        lacks = term.lacking()
        if lacks is not None:
            raise ValueError(
                f"fold {k} lacks class {lacks} among its training samples; give folds "
                "that have each class in each training part, such as stratified ones"
            )
        if data.design.intercept:
            try:
                term.refuse_extreme_targets()
            except ValueError as error:
                raise ValueError(f"fold {k}: {error}") from None
        found.append(term)
    return found


class FoldedGlm:
    """The lower levels of all folds of a ``Glm``, an :class:`Objective` of stacked y.

    ``Glm.cross_validation`` makes it.

    Attributes
    ----------
    n, m : int
        Sizes of y, K times that of the ``Glm``, and of x.
    n_folds : int
        K.
    penalty : Penalty or None
        The norm of all folds as a penalty of y; None of a ridge.
    dtype : dtype
        Of y.
    """

    convex = True

    def __init__(self, glm: Any, folds: list[Fold], models: StackedModels) -> None:
        self.glm, self._folds, self.models = glm, folds, models
        self.n, self.m, self.dtype = models.n, models.m, models.dtype
        self.n_folds = len(folds)
        self.penalty = glm.penalty_of(models)

    @property
    def parts(self) -> StackedModels:
        """The folds, which solvers minimise each by itself."""
        return self.models

    def __repr__(self) -> str:
        return f"FoldedGlm({self.n_folds} folds of {self.glm!r}, n={self.n})"

    def to(self, backend: str) -> FoldedGlm:
        """Return the same folds with the data in "cupy" or "numpy" arrays."""
        moved = self.glm.to(backend)
        like = moved.given_weights()
        folds = [
            Fold(*(asarray(_host(part), like) for part in (fold.train, fold.test)))
            for fold in self._folds
        ]
        return FoldedGlm(moved, folds, moved.fold_models(folds))

    def value(self, x: Array, y: Array) -> float:
        """Return Σ_k f_k(x, y_k)."""
        return self.models.value(x, y)

    def grad(self, x: Array, y: Array) -> Array:
        """Return f_Y, shape (K n,)."""
        return self.models.grad(x, y)

    def hess(self, x: Array, y: Array) -> Any:
        """Return f_YY, an operator (K n, K n) of K diagonal blocks."""
        return self.models.hess(x, y)

    def cross(self, x: Array, y: Array) -> Any:
        """Return f_XY, an operator (K n, m)."""
        return self.models.cross(x, y)

    def fixed(self, x: Array) -> Array | None:
        """Return a mask (K n,) of what x fixes at 0, None where nothing is."""
        return self.models.fixed(x)

    def has_minimiser(self, x: Array) -> bool:
        """Tell whether minimisers surely exist: every coefficient has a ridge > 0."""
        return self.models.has_minimiser(x)

    def third_product(
        self, x: Array, y: Array, w: Array, dx: Array, dy: Array
    ) -> tuple[Array, Array]:
        """Return the derivatives of (f_XYᵀ w, f_YY w) along (dx, dy), (m,) and (K n,)."""
        return self.models.third_product(x, y, w, dx, dy)

    def weight_slopes(self, x: Array, y: Array, v: Array) -> Array:
        """Return v' ∂f_Y/∂w_i for each sample weight w_i, shape (N,)."""
        return self.models.weight_slopes(x, y, v)

    def scale(self, x: Array) -> float:
        """Return ‖f_Y(x, 0)‖, which does not depend on x."""
        return self.models.scale(x)

    def constants(self, x: Array, y: Array) -> Constants | None:
        """Return bounds that prove errors at (x, y), or None where there are none."""
        return self.models.constants(x, y)

    def separate(self) -> list[tuple[Problem, slice, slice]]:
        """Return each model as a problem of its own, with its part of x and of y."""
        return self.glm.separate_models(self.models)

    def hess_block(self, x: Array, y: Array, index: Array) -> Any:
        """Return f_YY on an index of y, None where it is not explicit."""
        return self.models.hess_block(x, y, index)

    def dual_point(self, x: Array, y: Array, free: Array) -> Any:
        """Return the dual point of the losses of all folds, None where none is known."""
        return self.models.dual_point(x, y, free)

    def held_out(self) -> HeldOutFolds:
        """Return the pooled loss of the held-out samples: the upper objective."""
        return HeldOutFolds(self, self._folds)


def _host(array: Any) -> Any:
    return array.get() if hasattr(array, "get") else np.asarray(array)


class HeldOutFolds:
    """The mean loss of all held-out predictions, an :class:`UpperObjective` of stacked y.

    ``Glm.cross_validation`` makes it.  It shares the predictors with the lower level: at
    the y of the last gradient it costs no product with the features.

    Attributes
    ----------
    total : float
        The sum of the held-out weights, ``rows`` of :func:`sparse_argdiff.prior`.
    shares : array (K,)
        The part of it that each fold has.
    """

    def __init__(self, lower: FoldedGlm, folds: list[Fold]) -> None:
        self._lower, self._models = lower, lower.models
        models = lower.models
        self._each = models.count // len(folds)  # models of one fold
        held = [lower.glm.given_weights() * fold.test for fold in folds]
        sums = [float(namespace(w).sum(w)) for w in held]
        self.total = math.fsum(sums)
        if not self.total > 0.0:
            raise ValueError("folds must hold out samples of a weight, found none")
        self.shares = np.asarray(sums) / self.total
        # A fold that holds nothing out has no loss.
        self._rows = [
            Rows(term.like(weights=held[q // self._each]))
            if sums[q // self._each]
            else None
            for q, term in enumerate(models.terms)
        ]

    def __repr__(self) -> str:
        return f"HeldOutFolds({len(self.shares)} folds, total={self.total:g})"

    def to(self, backend: str) -> HeldOutFolds:
        """Return the same loss with its data in "cupy" or "numpy" arrays."""
        return self._lower.to(backend).held_out()

    def _shares(self) -> list[float]:
        """Return the share of each model."""
        return [float(share) for share in self.shares for _ in range(self._each)]

    def fold_losses(self, y: Array) -> Any:
        """Return the mean held-out loss of each fold, (K,), NaN where nothing is held out."""
        z = self._models.predictors(y)
        found = np.zeros(len(self.shares))
        for q, rows in enumerate(self._rows):
            found[q // self._each] += math.nan if rows is None else rows.value(z[q])
        return found

    def value(self, x: Array, y: Array) -> float:
        """Return the mean loss at y; x does not enter."""
        losses = self.fold_losses(y)
        return math.fsum((self.shares * losses)[self.shares > 0.0])

    def grad_y(self, x: Array, y: Array) -> Array:
        """Return its gradient, shape (K n,)."""
        z, slopes = self._models.predictors(y), []
        for q, (rows, share) in enumerate(zip(self._rows, self._shares(), strict=True)):
            slopes.append(0.0 * z[q] if rows is None else share * rows.slope(z[q]))
        return self._models.backward(slopes)

    def grad_x(self, x: Array, y: Array) -> None:
        """Return None: x does not enter directly."""

    def hess_product(self, x: Array, y: Array, dx: Array, dy: Array) -> Any:
        """Return the derivatives of (∂f^U/∂x, ∂f^U/∂y) along (dx, dy), None for zero."""
        z, models, found = self._models.predictors(y), self._models, []
        pairs = zip(self._rows, self._shares(), models.blocks(dy), strict=True)
        for q, (rows, share, d) in enumerate(pairs):
            own = 0.0 * d if rows is None else second_of_loss(rows.term, z[q], d)
            found.append(share * own)
        return None, namespace(y).concatenate(found)

    @property
    def n_observations(self) -> int:
        """Numbers that the loss compares: samples of positive weight, times outputs."""
        return observations([rows.term for rows in self._rows if rows is not None])

    def lipschitz(self, metric: Array) -> float:
        """Return a Lipschitz constant of ``grad_y`` in a metric, see ``Constants``."""
        metrics: Any = metric.reshape(len(self._rows), -1)
        found = [
            share * lipschitz_of(rows.term, W)
            for rows, share, W in zip(self._rows, self._shares(), metrics, strict=True)
            if rows is not None
        ]
        return max(found)
