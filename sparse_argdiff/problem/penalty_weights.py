"""The weights w(x) of a penalty, and what all penalties do with theirs.

Weights may be zero, for what is free, and infinite, for what is excluded: 0 · ∞ is 0 here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import (
    Array,
    as_data,
    as_tolerance,
    asarray,
    brief,
    check_callable,
    copied,
    dot,
    namespace,
    returned_vector,
    zeros,
)

Product = Callable[[Array, Array], Array]


class Weights:
    """Weights w(x) >= 0 of ``count`` entries, with derivatives; infinite ones have none.

    From None, e^x with x of that many entries or of one; from an array; or from a function
    with ``jvp(x, u)`` and ``vjp(x, w)``, given apart or as its attributes.
    """

    def __init__(self, name: str, given: Any, jvp: Any = None, vjp: Any = None) -> None:
        self.name, self._given = name, given
        self._function = given if callable(given) else None
        if self._function is None and not (jvp is None and vjp is None):
            raise TypeError(f"{name}_jvp and {name}_vjp go with a function of x")
        self._jvp = getattr(given, "jvp", None) if jvp is None else jvp
        self._vjp = getattr(given, "vjp", None) if vjp is None else vjp
        if self._function is not None:
            check_callable(**{f"{name}_jvp": self._jvp, f"{name}_vjp": self._vjp})
        elif given is not None:
            given = as_data(name, given, finite=False) if np.ndim(given) else given
            values = np.asarray(given) if np.ndim(given) == 0 else given
            if not bool(namespace(values).all(values >= 0.0)):
                raise ValueError(f"{name} must be >= 0, without NaN")
            self._given = given
        self._memo: tuple[Array, int, Array] | None = None

    def __repr__(self) -> str:
        return brief("Weights", {self.name: self._given})

    def __call__(self, x: Array, like: Array, count: int) -> Array:
        """Return w(x), shape (count,), of the dtype of ``like``; not to be written to."""
        memo, xp = self._memo, namespace(like)
        if memo is not None and (memo[1], memo[2].dtype) == (count, like.dtype):
            same = memo[0].shape == x.shape and bool(xp.all(memo[0] == x))
            if same:
                return memo[2]
        found = self._values(x, like, count)
        self._memo = (copied(x), count, found)
        return found

    def _values(self, x: Array, like: Array, count: int) -> Array:
        xp = namespace(like)
        if self._function is not None:
            found = returned_vector(self.name, self._function(copied(x)), count)
            found = xp.astype(found, like.dtype)
        elif self._given is None:
            if x.shape[0] not in {1, count}:
                raise ValueError(
                    f"x must have shape ({count},) or (1,): without {self.name} the "
                    f"weights are exp(x); found shape {tuple(x.shape)}"
                )
            with np.errstate(over="ignore"):
                found = xp.exp(xp.astype(x, like.dtype)) + zeros(count, like)
        else:
            given = self._given
            if np.ndim(given) and given.shape != (count,):
                raise ValueError(
                    f"{self.name} must be a number or have shape ({count},), found "
                    f"shape {tuple(given.shape)}"
                )
            own = asarray(given, like) if np.ndim(given) == 0 else given
            found = xp.astype(own, like.dtype) + zeros(count, like)
        if bool(xp.any(found < 0.0)):
            raise ValueError(f"{self.name} must be >= 0, found negative ones at this x")
        return found

    def jvp(self, x: Array, u: Array, like: Array, count: int) -> Array:
        """Return w'(x) u, (count,), zero for infinite weights."""
        xp, w = namespace(like), self(x, like, count)
        if self._function is not None:
            product = returned_vector(
                f"{self.name}_jvp", self._need("jvp")(x, u), count
            )
            return xp.where(xp.isfinite(w), product, xp.zeros_like(w))
        if self._given is not None:
            return xp.zeros_like(w)
        return xp.where(xp.isfinite(w), w, xp.zeros_like(w)) * xp.astype(u, like.dtype)

    def vjp(self, x: Array, v: Array, like: Array, count: int) -> Array:
        """Return w'(x)ᵀ v, (m,)."""
        xp, w = namespace(like), self(x, like, count)
        v = xp.where(xp.isfinite(w), v, xp.zeros_like(w))
        if self._function is not None:
            return returned_vector(
                f"{self.name}_vjp", self._need("vjp")(x, v), x.shape[0]
            )
        if self._given is not None:
            return zeros(x.shape, like)
        product = xp.where(xp.isfinite(w), w, xp.zeros_like(w)) * v
        if x.shape[0] == count:
            return product
        return xp.sum(product) + zeros(1, like)

    def _need(self, mode: str) -> Product:
        product: Product | None = getattr(self, f"_{mode}")
        if product is None:
            raise NotImplementedError(
                f"{self.name} depends on x: this product needs {self.name}_{mode}, "
                "which the penalty was built without"
            )
        return product


def soft_threshold(v: Array, least: Array) -> Array:
    """Return sign(v) max(|v| − least, 0)."""
    xp = namespace(v)
    zero, beyond = xp.zeros_like(v), xp.abs(v) - least
    some = beyond > 0.0
    return xp.where(some, xp.sign(v) * xp.where(some, beyond, zero), zero)


def ratio(sizes: Array, weights: Array) -> Array:
    """Return sizes / weights, zero where a weight is zero or infinite."""
    xp = namespace(sizes)
    some = (weights != 0.0) & (weights != math.inf)
    with np.errstate(over="ignore"):
        found = sizes / xp.where(some, weights, xp.ones_like(weights))
    return xp.where(some, found, xp.zeros_like(found))


def weighted_sum(weights: Array, sizes: Array) -> float:
    """Return Σ w s, with 0 for an infinite weight of a size that is zero."""
    xp = namespace(sizes)
    terms = xp.where(sizes == 0.0, xp.zeros_like(sizes), weights)
    return dot(terms, sizes)


def checked_smoothing(smoothing: float | None) -> float:
    """Return the length of a penalty's ``smoothing``, 0 without one."""
    if smoothing is None:
        return 0.0
    return as_tolerance("smoothing", smoothing)
