"""The costs of samples, C_i = w_i e^{x_g(i)}, and their derivatives by the log-costs."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import (
    Array,
    arange,
    as_data,
    as_vector,
    asarray,
    full,
    namespace,
)

COSTS = ("scalar", "per-class", "per-group", "per-sample")


class SampleCosts:
    """The costs C (N,) of samples as a function of the log-costs.

    Attributes
    ----------
    kind : str
        One of ``COSTS``.
    weights : array (N,)
        The factors w_i.
    count : int
        The number of log-costs.
    """

    def __init__(
        self, kind: str, groups: Any, weights: Array, targets: Array, regression: bool
    ) -> None:
        self.kind, self.weights = kind, weights
        self._groups, self.count = _groups(kind, groups, targets, regression)

    def at(self, log_costs: Array) -> Array:
        """Return C, infinite where the exponential overflows."""
        xp, w = namespace(log_costs), self.weights
        with np.errstate(over="ignore"):
            learned = xp.exp(xp.astype(log_costs, w.dtype))
        return xp.where(w > 0.0, w * self.spread(learned), 0.0 * w)

    def spread(self, u: Array) -> Array:
        """Return u_g(i), (N,), of numbers for each log-cost."""
        return namespace(u).take(u, self._groups)

    def gather(self, per_sample: Array) -> Array:
        """Return the transpose, the sums over the samples of each log-cost."""
        xp, count = namespace(per_sample), self.count
        if count == 1:
            return xp.reshape(xp.sum(per_sample), (1,))
        if count == per_sample.shape[0] and self.kind == "per-sample":
            return per_sample
        one_hot = self._groups[None, :] == arange(count, self._groups)[:, None]
        return xp.astype(one_hot, per_sample.dtype) @ per_sample


def sample_weights(given: Any, like: Array) -> Array:
    """Return sample weights, finite, >= 0 and not all 0; ones by default."""
    if given is None:
        return full(like.shape, 1.0, like)
    weights = as_vector(
        "sample_weight", as_data("sample_weight", given, like.dtype), like.shape[0]
    )
    xp = namespace(weights, like)
    if bool(xp.any(weights < 0.0)):
        worst = int(xp.argmin(weights))
        raise ValueError(
            f"sample_weight must be >= 0, found {float(weights[worst]):.3g} for sample "
            f"{worst}"
        )
    if not bool(xp.any(weights > 0.0)):
        raise ValueError("sample_weight must not be 0 for all samples")
    return weights


def _groups(
    kind: str, groups: Any, targets: Array, regression: bool
) -> tuple[Array, int]:
    """Return the log-cost of each sample, and their number."""
    size, xp = targets.shape[0], namespace(targets)
    if kind not in COSTS:
        known = ", ".join(map(repr, COSTS))
        raise ValueError(f"cost must be one of {known}, found {kind!r}")
    if (groups is not None) != (kind == "per-group"):
        raise ValueError("groups goes with cost='per-group', and only with it")
    if kind == "per-class" and regression:
        raise ValueError("cost='per-class' needs labels, and loss='epsilon' has none")
    if kind == "scalar":
        return 0 * arange(size, targets), 1
    if kind == "per-sample":
        return arange(size, targets), size
    if kind == "per-class":
        return xp.astype(targets > 0.0, xp.int64), 2
    labels = np.asarray(groups)
    if labels.shape != (size,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"groups must be whole numbers of shape ({size},), found shape "
            f"{labels.shape} and dtype {labels.dtype}"
        )
    count = int(labels.max()) + 1
    if labels.min() < 0 or len(np.unique(labels)) != count:
        raise ValueError("groups must be numbered 0 ... G-1, each with a sample")
    return asarray(labels, targets, xp.int64), count
