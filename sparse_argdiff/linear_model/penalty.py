"""Ridge penalties ½ Σ_j e^{x_g(j)} y_j², whose log-weights x are learned.

Kinds: one weight per feature, per group of features, per coefficient (feature and
output), or one for all.  Intercepts are not penalised.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array, as_array, as_vector, asarray, copied, namespace, zeros

KINDS = ("per-feature", "per-group", "per-coefficient", "scalar")


class RidgePenalty:
    """The map from the m entries of x to the coefficients (p, K), in C order.

    ``groups`` numbers the group of each feature, 0 … G−1, for "per-group"; ``like`` is an
    array of the model, whose namespace and device the weights get.
    """

    def __init__(
        self, kind: str, n_features: int, outputs: int, like: Array, groups: Any = None
    ) -> None:
        if kind not in KINDS:
            known = ", ".join(map(repr, KINDS))
            raise ValueError(f"penalty must be one of {known}, found {kind!r}")
        if (groups is not None) != (kind == "per-group"):
            raise ValueError("groups goes with penalty='per-group', and only with it")
        self.outputs = outputs
        self.n_coefficients = n_features * outputs
        self.kind, self.groups = kind, groups
        index: Any = None  # of the weight of each coefficient; None: its own
        if kind == "scalar":
            self.m = 1
        elif kind == "per-coefficient" or (kind == "per-feature" and outputs == 1):
            self.m = self.n_coefficients
        elif kind == "per-feature":
            self.m = n_features
            index = np.repeat(np.arange(n_features), outputs)
        else:
            labels = _check_groups(groups, n_features)
            self.m = int(labels.max(initial=-1)) + 1
            index = np.repeat(labels, outputs)
        self.index = None if index is None else asarray(index, like, np.int64)
        self._memo: tuple[Array, Array] | None = None

    def weights(self, x: Array, dtype: Any) -> Array:
        """Return e^x per coefficient, shape (p K,); not to be written to."""
        x = as_vector("x", x)
        if x.shape != (self.m,):
            raise ValueError(
                f"x must have shape ({self.m},) for penalty={self.kind!r}, found shape "
                f"{tuple(x.shape)}"
            )
        xp = namespace(x)
        memo = self._memo
        if memo is not None and bool(xp.all(memo[0] == x)):
            return memo[1]
        with np.errstate(over="ignore"):
            weights = self.spread(xp.exp(xp.asarray(x, dtype=dtype)))
        self._memo = (copied(x), weights)
        return weights

    def spread(self, u: Array) -> Array:
        """Return u per coefficient: (m,) → (p K,)."""
        if self.kind == "scalar":
            return u + zeros(self.n_coefficients, u)
        return u if self.index is None else u[self.index]

    def gather(self, c: Array) -> Array:
        """Return the sums of c over each weight's coefficients: (p K,) → (m,)."""
        xp = namespace(c)
        if self.kind == "scalar":
            return xp.sum(c).reshape(1)
        if self.index is None:
            return c
        sums = xp.bincount(self.index, weights=c, minlength=self.m)
        return sums.astype(c.dtype)


def _check_groups(groups: Any, n_features: int) -> Any:
    labels = np.asarray(as_array("groups", groups))
    if labels.shape != (n_features,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"groups must be whole numbers of shape ({n_features},), found dtype "
            f"{labels.dtype} and shape {labels.shape}"
        )
    if labels.size and labels.min() < 0:
        raise ValueError(f"groups must be >= 0, found {labels.min()}")
    return labels
