"""The penalty of groups of coefficients, which enter and leave the support together.

    Σ_g w_g ‖y_g‖₂,    off the support  ‖f_Y,g‖₂ ≤ w_g

The norm of a group of one is |y_j| to the last bit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..arrays import Array, asarray, namespace
from ..operators.linear_operator import LinearOperator
from .penalty_weights import (
    Product,
    Weights,
    checked_smoothing,
    ratio,
    soft_threshold,
    weighted_sum,
)


class GroupL1:
    """The penalty Σ_g w_g ‖y_g‖₂ of groups of coefficients that enter together.

    Parameters
    ----------
    groups : array (n,) or sequence of index arrays
        The label of each coefficient, whole numbers of any values in any order, whose weights
        are in ascending order of the labels; or the members of each group.
    weights : None, float, array (G,) or callable
        As for :class:`L1`, one for each group, used as given: without a factor for its size.
    weights_jvp, weights_vjp, smoothing
        As for :class:`L1`.
    rest : {"refuse", "free"}
        What coefficients in no group are: refused by default, or not penalised.
    n : int, optional
        Size of y, where ``groups`` are members and the last coefficients are free.

    Attributes
    ----------
    n_groups : int
        G.

    Raises
    ------
    ValueError
        For groups that overlap, named, and for coefficients in no group.

    References
    ----------
    M. Yuan, Y. Lin, J. R. Statist. Soc. B 68 (2006) 49-67.
    """

    separable, convex = False, True

    def __init__(
        self,
        groups: Any,
        weights: Any = None,
        *,
        weights_jvp: Product | None = None,
        weights_vjp: Product | None = None,
        smoothing: float | None = None,
        rest: str = "refuse",
        n: int | None = None,
    ) -> None:
        if rest not in {"refuse", "free"}:
            raise ValueError(f"rest must be 'refuse' or 'free', found {rest!r}")
        self._smoothing = checked_smoothing(smoothing)
        self.smooth = smoothing is not None
        own = Weights("weights", weights, weights_jvp, weights_vjp)
        self._set(*_labels_of(groups, rest == "free", n), own)

    @classmethod
    def of_labels(cls, labels: Any, n_groups: int, weights: Any) -> GroupL1:
        """Return the penalty of groups 0 ... G − 1, with label G for what is free."""
        found = object.__new__(cls)
        found._smoothing, found.smooth = 0.0, False
        found._set(labels, n_groups, Weights("weights", weights))
        return found

    def _set(self, labels: Any, n_groups: int, weights: Weights) -> None:
        self.n_groups, self._weights = n_groups, weights
        self._labels, self._sums = labels, _Sums(labels, self.n_groups)
        # Free coefficients are a block each: they have steps of their own.
        free = labels == self.n_groups
        blocks = labels.copy()
        blocks[free] += np.arange(int(free.sum()))
        self.blocks = blocks

    def __repr__(self) -> str:
        return (
            f"GroupL1({self.n_groups} groups of {self._labels.shape[0]} coefficients)"
        )

    def group_weights(self, x: Array, y: Array) -> Array:
        """Return w(x), shape (G,)."""
        if y.shape[0] != self._labels.shape[0]:
            raise ValueError(
                f"groups must label the {y.shape[0]} coefficients of y, found "
                f"{self._labels.shape[0]}"
            )
        return self._weights(x, y, self.n_groups)

    def norms(self, y: Array) -> Array:
        """Return ‖y_g‖₂, or its smooth version (‖y_g‖² + ε²)^½, shape (G,)."""
        return self._sums.norms(y, self._smoothing)

    def value(self, x: Array, y: Array) -> float:
        """Return Σ w_g ‖y_g‖."""
        sizes = self.norms(y) - self._smoothing
        return weighted_sum(self.group_weights(x, y), sizes)

    def prox(self, x: Array, v: Array, steps: Array) -> Array:
        """Return each group shrunk by steps · w_g, zero where it is shorter."""
        xp, w = namespace(v), self.group_weights(x, v)
        sizes = self._sums.norms(v, 0.0)
        least = w * self._sums.largest(steps)
        one = xp.where(sizes > 0.0, sizes, xp.ones_like(sizes))
        factor = xp.where(sizes > least, (sizes - least) / one, xp.zeros_like(sizes))
        shrunk = self._sums.spread(factor, 1.0) * v
        # Of a group of one entry this is the soft threshold, to the last bit.
        single = self._sums.spread(self._sums.single(v), 0.0) > 0.0
        return xp.where(
            single, soft_threshold(v, self._sums.spread(least, 0.0)), shrunk
        )

    def support(self, x: Array, y: Array) -> Array:
        """Return the members of groups that are not zero, or free."""
        xp, w = namespace(y), self.group_weights(x, y)
        there = (self._sums.norms(y, 0.0) > 0.0) | (w == 0.0)
        there = (there | self.smooth) & (w != math.inf)
        return self._sums.spread(xp.astype(there, y.dtype), 1.0) > 0.0

    def grad_x(self, x: Array, y: Array) -> Array:
        """Return Ω_X, Σ_g ‖y_g‖ ∂w_g/∂x, shape (m,)."""
        sizes = self.norms(y) - self._smoothing
        return self._weights.vjp(x, sizes, y, self.n_groups)

    def _acting(self, x: Array, y: Array) -> tuple[Array, Array, Array]:
        """Return weights and norms per group, zero and one off the support, and u = y/‖y‖."""
        xp, w, r = namespace(y), self.group_weights(x, y), self.norms(y)
        there = (r > 0.0) & (w != math.inf)
        w = xp.where(there, w, xp.zeros_like(w))
        r = xp.where(there, r, xp.ones_like(r))
        inside = self._sums.spread(xp.astype(there, y.dtype), 0.0)
        return w, r, inside * y / self._sums.spread(r, 1.0)

    def grad(self, x: Array, y: Array) -> Array:
        """Return w_g y_j / ‖y_g‖."""
        w, _, u = self._acting(x, y)
        return self._sums.spread(w, 0.0) * u

    def hess(self, x: Array, y: Array) -> LinearOperator:
        """Return w_g (I − u u') / ‖y_g‖ of each group; zero for one of a single entry."""
        xp, (w, r, u), n = namespace(y), self._acting(x, y), y.shape[0]
        bend = self._sums.spread(
            w / r * (1.0 if self.smooth else 1.0 - self._sums.single(y)), 0.0
        )

        def product(v: Array) -> Array:
            if v.ndim == 2:
                return xp.stack([product(v[:, k]) for k in range(v.shape[1])], axis=1)
            along = self._sums.spread(self._sums(u * v), 0.0)
            return bend * (v - u * along)

        return LinearOperator(
            (n, n),
            product,
            matmat=product,
            dtype=y.dtype,
            symmetric=True,
            diagonal=bend * (1.0 - u * u),
        )

    def cross(self, x: Array, y: Array) -> LinearOperator:
        """Return ∂/∂x of w_g(x) u."""
        (_, _, u), G = self._acting(x, y), self.n_groups
        return LinearOperator(
            (y.shape[0], x.shape[0]),
            lambda v: u * self._sums.spread(self._weights.jvp(x, v, y, G), 0.0),
            lambda w: self._weights.vjp(x, self._sums(u * w), y, G),
            dtype=y.dtype,
        )

    def activity(self, x: Array, y: Array, force: Array) -> Array:
        """Return ‖force_g‖ / w_g per coefficient, zero for free and excluded groups."""
        used = ratio(self._sums.norms(force, 0.0), self.group_weights(x, force))
        return self._sums.spread(used, 0.0)

    def ridge(self, x: Array, y: Array) -> Array:
        """Return the weights v of ½ v_j y_j², zero here."""
        return namespace(y).zeros_like(y)


class _Sums:
    """Sums over the groups of their members, and one number a group back to the members."""

    def __init__(self, labels: Any, count: int) -> None:
        self._labels, self._count = labels, count
        self._sizes = np.bincount(labels, minlength=count + 1)[:count]
        self._memo: dict[Any, tuple[Any, Any]] = {}

    def _own(self, like: Array) -> tuple[Any, Any]:
        """Return labels, and a matrix of ones that sums where there is no bincount."""
        xp = namespace(like)
        if xp not in self._memo:
            host = self._labels
            labels = asarray(host, like, xp.int64)
            ones = None
            if not hasattr(xp, "bincount"):
                ones = asarray(host[None, :] == np.arange(self._count)[:, None], like)
            self._memo[xp] = labels, ones
        return self._memo[xp]

    def __call__(self, values: Array) -> Array:
        """Return the sums, (n,) → (G,)."""
        (labels, ones), xp = self._own(values), namespace(values)
        if ones is not None:
            return ones @ values
        sums = xp.bincount(labels, weights=values, minlength=self._count + 1)
        return sums[: self._count].astype(values.dtype)

    def spread(self, values: Array, rest: float) -> Array:
        """Return (G,) → (n,), with ``rest`` for what is in no group."""
        xp = namespace(values)
        last = asarray([rest], values)
        return xp.take(xp.concat([values, last]), self._own(values)[0])

    def single(self, like: Array) -> Array:
        """Return 1 for the groups of one member, 0 for others."""
        return asarray(self._sizes == 1, like)

    def norms(self, y: Array, smoothing: float) -> Array:
        """Return (‖y_g‖² + smoothing²)^½, of single members |y_j| to the last bit."""
        xp = namespace(y)
        largest = float(xp.max(xp.abs(y))) if y.shape[0] else 0.0
        if not 0.0 < largest < math.inf:
            largest = 1.0
        scaled = y / largest  # squares neither overflow nor underflow as a whole
        found = largest * xp.sqrt(self(scaled * scaled))
        if smoothing:
            return xp.hypot(found, smoothing + 0.0 * found)
        return xp.where(self.single(y) > 0.0, self(xp.abs(y)), found)

    def largest(self, steps: Array) -> Array:
        """Return the step of each group, whose members have one in common: their mean."""
        sizes = asarray(np.maximum(self._sizes, 1), steps)
        return self(steps) / sizes


def _labels_of(groups: Any, rest_is_free: bool, n: int | None) -> tuple[Any, int]:
    """Return the number of the group of each coefficient, G for none, and G."""
    members = isinstance(groups, list | tuple) and any(np.ndim(g) == 1 for g in groups)
    if not members:
        labels = np.asarray(groups)
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise ValueError(
                "groups must be whole numbers of shape (n,), or a sequence of the members "
                f"of each group, found dtype {labels.dtype} and shape {labels.shape}"
            )
        values, numbered = np.unique(labels, return_inverse=True)
        return numbered.astype(np.int64), int(values.shape[0])
    lists = [np.asarray(g) for g in groups]
    for number, g in enumerate(lists):
        if g.ndim != 1 or g.dtype.kind not in "iu" or (g.size and g.min() < 0):
            raise ValueError(
                f"groups[{number}] must be whole numbers >= 0, the members of a group"
            )
    least = max((int(g.max(initial=-1)) + 1 for g in lists), default=0)
    size = least if n is None else n
    if size < least:
        raise ValueError(f"groups have members up to {least - 1}, and n is {n}")
    labels = np.full(size, -1, np.int64)
    for number, g in enumerate(lists):
        taken = g[labels[g] >= 0]
        if taken.size or np.unique(g).size < g.size:
            other = int(labels[taken[0]]) if taken.size else number
            raise ValueError(
                f"groups must not overlap, found a coefficient in groups[{other}] and "
                f"groups[{number}]; copy its column, one for each group"
            )
        labels[g] = number
    missing = labels < 0
    if missing.any() and not rest_is_free:
        raise ValueError(
            f"coefficient {int(np.flatnonzero(missing)[0])} is in no group; rest='free' "
            "leaves such coefficients without a penalty"
        )
    labels[missing] = len(lists)
    return labels, len(lists)
