"""Norms of the coefficients in place of a ridge, with the same log-weights η = o + Z x.

    l1           Σ_j e^{η_j} |c_j|
    group-l1     Σ_g e^{η_g} √p_g ‖c_g‖₂,          p_g coefficients in group g, Z (G, m)
    elastic-net  Σ_j e^{η_j(x₁)} |c_j| + ½ e^{η_j(x₂)} c_j²,  x = (x₁, x₂), or one x and l1_ratio

The penalty is a :class:`sparse_argdiff.Penalty` of all of y; intercepts are free in it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ..arrays import Array, as_array, namespace, zeros
from ..problem.group_penalty import GroupL1
from ..problem.penalties import L1, ElasticNet, Penalty
from .design import Design
from .log_weights import LogWeights
from .penalty import Weights

NORMS = ("l2", "l1", "elastic-net", "group-l1")


@dataclasses.dataclass(frozen=True, eq=False)
class Norm:
    """Which norm a model has, and the map of its log-weights.

    Attributes
    ----------
    kind : {"l2", "l1", "elastic-net", "group-l1"}
    log_weights : LogWeights
        Of the coefficients, or of the groups.
    l1_ratio : float or None
    labels : int array (p K,) or None
        The group of each coefficient.
    """

    kind: str
    log_weights: LogWeights
    l1_ratio: float | None = None
    labels: Any = None

    @property
    def m(self) -> int:
        """The size of x for one model."""
        halves = self.kind == "elastic-net" and self.l1_ratio is None
        return self.log_weights.m * (2 if halves else 1)

    def penalty(self, design: Design, part_of: list[int], parts: int) -> Penalty:
        """Return the penalty of models of one design, of which each has a part of x."""
        grouped = self.kind == "group-l1"
        factors = None
        if grouped:
            factors = np.sqrt(np.bincount(self.labels, minlength=self.log_weights.size))
        rest = 0 if grouped else design.n - design.n_coefficients
        weights = StackedWeights(
            self.log_weights, tuple(part_of), parts, rest, factors, design.dtype
        )
        if self.kind == "l1":
            return L1(weights)
        if self.kind == "elastic-net":
            if self.l1_ratio is not None:
                return ElasticNet(weights, l1_ratio=self.l1_ratio)
            first, second = (dataclasses.replace(weights, half=half) for half in (0, 1))
            return ElasticNet(first, second)
        size, G = design.n, self.log_weights.size
        labels = np.full((len(part_of), size), G * len(part_of))
        own = np.arange(len(part_of))[:, None] * G + self.labels[None, :]
        labels[:, : design.n_coefficients] = own
        return GroupL1.of_labels(labels.reshape(-1), G * len(part_of), weights)


@dataclasses.dataclass(frozen=True, eq=False)
class StackedWeights:
    """The weights e^η of stacked models as a function of x, with ``jvp`` and ``vjp``.

    Each model has its part of x, and ``rest`` weights of zero at its end.  ``half``: 0 and 1
    are the halves of each part, None the whole.
    """

    log_weights: LogWeights
    part_of: tuple[int, ...]
    parts: int
    rest: int
    factors: Any
    dtype: Any
    half: int | None = None

    def _own(self, x: Array) -> list[Array]:
        """Return the entries of x that each part has."""
        size = x.shape[0] // self.parts
        found = [x[k * size : (k + 1) * size] for k in range(self.parts)]
        if self.half is None:
            return found
        middle = size // 2
        first = self.half == 0
        return [v[:middle] if first else v[middle:] for v in found]

    def _each(self, found: list[Array], like: Array) -> Array:
        """Return what each model has of its part, with zeros for the rest."""
        xp, none = namespace(like), zeros((self.rest,), found[0])
        return xp.concat([v for k in self.part_of for v in (found[k], none)])

    def _weights(self, x: Array) -> list[Array]:
        """Return e^η of each part."""
        found = []
        for own in self._own(x):
            with np.errstate(over="ignore"):
                w = namespace(x).exp(self.log_weights(own, self.dtype))
            found.append(w if self.factors is None else w * self._factors(w))
        return found

    def _factors(self, like: Array) -> Array:
        return namespace(like).asarray(self.factors, dtype=like.dtype)

    def __call__(self, x: Array) -> Array:
        """Return the weights of all models."""
        return self._each(self._weights(x), x)

    def jvp(self, x: Array, u: Array) -> Array:
        """Return the derivative of the weights along u."""
        xp = namespace(x)
        found = []
        for w, own in zip(self._weights(x), self._own(u), strict=True):
            finite = xp.where(xp.isfinite(w), w, xp.zeros_like(w))
            found.append(
                finite * self.log_weights.spread(xp.asarray(own, dtype=w.dtype))
            )
        return self._each(found, x)

    def vjp(self, x: Array, v: Array) -> Array:
        """Return the transpose's product with v, (m,)."""
        xp, size = namespace(x), self.log_weights.size
        sums: list[Any] = [0.0] * self.parts
        for q, k in enumerate(self.part_of):
            start = q * (size + self.rest)
            sums[k] = sums[k] + v[start : start + size]
        found = []
        for w, total in zip(self._weights(x), sums, strict=True):
            finite = xp.where(xp.isfinite(w), w, xp.zeros_like(w))
            own = self.log_weights.gather(finite * total)
            if self.half is not None:
                none = xp.zeros_like(own)
                own = xp.concat([own, none] if self.half == 0 else [none, own])
            found.append(own)
        return xp.concat(found)


class NoRidge:
    """The ridge of a model that has a norm instead: zero, with x of the norm's size."""

    def __init__(self, norm: Norm, n_coefficients: int) -> None:
        self.log_weights, self.m = norm.log_weights, norm.m
        self.n_coefficients = n_coefficients
        self._memo: dict[Any, Any] = {}

    def _zeros(self, xp: Any, dtype: Any) -> Any:
        if (xp, dtype) not in self._memo:
            self._memo[xp, dtype] = xp.zeros(self.n_coefficients, dtype=dtype)
        return self._memo[xp, dtype]

    def at(self, x: Array, dtype: Any) -> Weights:
        """Return weights of zero."""
        return Weights(self._zeros(namespace(x), dtype), None, "")

    def weights(self, x: Array, dtype: Any) -> Array:
        """Return zeros (p K,)."""
        return self._zeros(namespace(x), dtype)

    slopes = weights

    def spread(self, u: Array) -> Array:
        """Return zeros (p K,)."""
        return zeros((self.n_coefficients,), u)

    def gather(self, c: Array) -> Array:
        """Return zeros (m,)."""
        return zeros((self.m,), c)


def norm_of(
    kind: str,
    penalty: Any,
    design: Design,
    like: Array,
    groups: Any,
    offset: Any,
    l1_ratio: float | None,
) -> Norm:
    """Return the checked norm of a model.

    Raises
    ------
    ValueError, TypeError
        For another name, ``groups`` without use for them, and a penalty object.
    """
    if kind not in NORMS:
        known = ", ".join(map(repr, NORMS))
        raise ValueError(f"norm must be one of {known}, found {kind!r}")
    if callable(getattr(penalty, "prox", None)):
        raise TypeError(
            "penalty says how the weights depend on x, found a "
            f"{type(penalty).__name__}: for that penalty give norm='l1', 'elastic-net' or "
            "'group-l1', or Problem(objective, penalty=...)"
        )
    if l1_ratio is not None and kind != "elastic-net":
        raise ValueError("l1_ratio goes with norm='elastic-net', and only with it")
    p, K = design.n_features, design.outputs
    if kind != "group-l1":
        own = LogWeights(penalty, p, K, like, groups, offset)
        return Norm(kind, own, l1_ratio)
    if groups is None:
        labels, count = np.arange(p), p
    else:
        labels = np.asarray(as_array("groups", groups))
        if labels.shape != (p,) or labels.dtype.kind not in "iu":
            raise ValueError(
                f"groups must be whole numbers of shape ({p},), found dtype "
                f"{labels.dtype} and shape {labels.shape}"
            )
        values, labels = np.unique(labels, return_inverse=True)
        count = int(values.shape[0])
    if isinstance(penalty, str) and penalty in {"per-group", "per-feature"}:
        penalty = "per-feature"  # of what has a weight: the groups
    own = LogWeights(penalty, count, 1, like, None, offset)
    own.groups = groups
    return Norm(kind, own, None, np.repeat(labels, K))
