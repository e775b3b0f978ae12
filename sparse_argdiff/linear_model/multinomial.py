"""The multinomial loss log Σ_k e^{z_k} − z_t of K predictors a sample."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np

from ..arrays import Array, as_data, copied, namespace
from .loss import Curvature, numeric_targets


@dataclasses.dataclass(frozen=True)
class Multinomial:
    """log Σ_k e^{z_k} − z_t for classes t = 0 … K−1, or (N, K) class probabilities."""

    # Of diag(p) - p p' and of the third cumulant, as forms in the norm of z.
    curvature_bound: ClassVar[float] = 0.5
    third_bound: ClassVar[float] = math.sqrt(0.5)
    mean_range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def prepare(self, targets: Array, dtype: Any, outputs: int | None = None) -> Array:
        """Return class probabilities, shape (N, K)."""
        xp = namespace(targets)
        if targets.ndim == 2:
            if targets.shape[1] < 2:
                raise ValueError(
                    "2-D targets must have a column for each of two or more classes, "
                    f"found shape {tuple(targets.shape)}"
                )
            targets = as_data("targets", targets, dtype)
            sums = xp.sum(targets, axis=1)
            if not bool(xp.all(targets >= 0) & xp.all(xp.abs(sums - 1) < 1e-4)):
                raise ValueError("rows of 2-D targets must be class probabilities")
            if outputs not in {None, int(targets.shape[1])}:
                raise ValueError(
                    f"targets must have {outputs} columns, found {targets.shape[1]}"
                )
            return targets
        classes = numeric_targets(targets, np.float64)
        whole = xp.asarray(classes, dtype=xp.int64)
        valid = (whole == classes) & (classes >= 0)
        if classes.shape[0] == 0 or not bool(xp.all(valid)):
            raise ValueError(
                "targets of the multinomial loss must be classes 0 ... K-1"
            )
        count = _count_of(whole) if outputs is None else outputs
        found = int(xp.max(whole))
        if found >= count:
            raise ValueError(
                f"targets must be classes 0 ... {count - 1}, found {found}"
            )
        return xp.asarray(whole[:, None] == xp.arange(count)[None, :], dtype=dtype)

    def outputs(self, targets: Array) -> int:
        """Return the number of classes."""
        return int(targets.shape[1])

    def value(self, z: Array, targets: Array) -> Array:
        """Return ℓ per sample."""
        xp = namespace(z)
        top = xp.max(z, axis=1, keepdims=True)
        _, rest = self._tails(z, top)
        shares = 1.0 - xp.sum(targets, axis=1)  # zero but for the rounding of targets
        below = xp.sum(targets * (top - z), axis=1)
        return xp.log1p(rest[:, 0]) + below + shares * top[:, 0]

    def slope(self, z: Array, targets: Array) -> Array:
        """Return probabilities minus targets."""
        p, others = self._probabilities(z)
        return namespace(z).where(p > 0.5, (1.0 - targets) - others, p - targets)

    def curvature(self, z: Array, targets: Array, weights: Array) -> Curvature:
        """Return diag(p) − p p' per sample, weighted."""
        p, others = self._probabilities(z)
        weighted, top = weights[:, None] * p, _largest(p)

        def product(dz: Array) -> Array:
            dz = _centred(p, top, dz)
            dz *= weighted
            return dz

        return Curvature(weighted * others, product, (p, weights))

    def third(
        self, z: Array, targets: Array, weights: Array, a: Array, b: Array
    ) -> Array:
        """Return the derivative of (diag(p) − p p') a along b per sample, weighted."""
        p = self.probability(z)
        top = _largest(p)
        product = _centred(p, top, copied(a)) * _centred(p, top, copied(b))
        return weights[:, None] * p * _centred(p, top, product)

    @classmethod
    def probability(cls, z: Array) -> Array:
        """Return the soft-max of each row."""
        return cls._probabilities(z)[0]

    @classmethod
    def _probabilities(cls, z: Array) -> tuple[Array, Array]:
        """Return p and 1 − p, of which neither has digits that cancel."""
        xp = namespace(z)
        top = xp.max(z, axis=1, keepdims=True)
        e, rest = cls._tails(z, top)
        e /= 1.0 + rest
        return e, xp.where(z == top, rest / (1.0 + rest), 1.0 - e)

    @staticmethod
    def _tails(z: Array, top: Array) -> tuple[Array, Array]:
        """Return e^{z − top} and its sum without one of the largest entries, (N, 1)."""
        xp = namespace(z)
        e, largest = xp.exp(z - top), z == top
        below = xp.sum(xp.where(largest, xp.zeros_like(e), e), axis=1, keepdims=True)
        ties = xp.sum(xp.asarray(largest, dtype=z.dtype), axis=1, keepdims=True) - 1.0
        return e, below + ties


def _largest(p: Array) -> Array:
    """Return the place of the largest entry of each row, (N, 1)."""
    return namespace(p).argmax(p, axis=1)[:, None]


def _centred(p: Array, top: Array, v: Array) -> Array:
    """Return v minus its mean p'v per row, in place.

    The mean is that of the distances to the entry of the largest p, so that nothing
    cancels where a p is next to one.
    """
    xp = namespace(v)
    v -= xp.take_along_axis(v, top, axis=1)
    v -= xp.sum(p * v, axis=1, keepdims=True)
    return v


def _count_of(classes: Array) -> int:
    """Return K for classes 0 ... K-1, at least two, each with a sample."""
    xp = namespace(classes)
    count = max(int(xp.max(classes)) + 1, 2)
    for k in range(count):
        if not bool(xp.any(classes == k)):
            raise ValueError(
                "targets of the multinomial loss must be classes 0 ... K-1, each with a "
                f"sample, found none of class {k} and {count - 1} as the last; number "
                "them by numpy.unique(labels, return_inverse=True)[1]"
            )
    return count
