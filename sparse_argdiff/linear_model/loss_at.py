"""The weighted loss of samples at their predictors: value, slopes and curvature together.

    Σ_i w_i ℓ(z_i, t_i),        w_i ∂ℓ/∂z_i,        w_i ∂²ℓ/∂z_i²

A loss may compute them together (``Logistic``: one exponential serves all three).
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from ..arrays import Array, dot
from .loss import Curvature, Loss, curvature_of
from .losses import Logistic

WORTH_COMPILING = 2000  # samples: a pass saves 25 ns of each, and 50 µs of calls


class LossAt:
    """The loss of samples at predictors z; each part is computed once, when it is needed.

    Parameters
    ----------
    loss : Loss
    z : array (N,) or (N, K)
    targets, weights : array
        Of the same samples.
    counted : callable, optional
        Sets to zero what samples without a weight have.
    """

    def __init__(
        self,
        loss: Loss,
        z: Array,
        targets: Array,
        weights: Array,
        counted: Callable[[Array], Array] | None = None,
    ) -> None:
        self.z, self._loss, self._targets, self._weights = z, loss, targets, weights
        self._counted = counted
        self._value: float | None = None
        self._slopes: Array | None = None
        self._curvature: Curvature | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the parts out of a copy: they are computed again."""
        return self.__dict__ | {"_value": None, "_slopes": None, "_curvature": None}

    def _together(self) -> bool:
        """Compute all parts at once, where the loss can."""
        if not _speaks_for_all_parts(type(self._loss)):
            return False
        if self._counted is None and is_compiled(self._loss, self.z):
            slopes, second = np.empty_like(self.z), np.empty_like(self.z)
            samples = self.z, self._targets, self._weights
            self._value = float(_loops().logistic(*samples, slopes, second))
            self._slopes, self._curvature = slopes, curvature_of(second)
            return True
        together = cast("Any", self._loss).together
        value, slope, second = together(self.z, self._targets)
        second *= self._weights
        self._value = self._sum(value)
        self._slopes = self._count(slope)
        self._curvature = curvature_of(second)
        return True

    def _sum(self, value: Array) -> float:
        return dot(self._weights, self._count(value))

    def _count(self, of_samples: Array) -> Array:
        return of_samples if self._counted is None else self._counted(of_samples)

    @property
    def value(self) -> float:
        """The weighted sum of the losses."""
        with quiet():
            if self._value is None and not self._together():
                self._value = self._sum(self._loss.value(self.z, self._targets))
        assert self._value is not None
        return self._value

    @property
    def slopes(self) -> Array:
        """The slopes without weights, of the shape of z; not to be written to."""
        with quiet():
            if self._slopes is None and not self._together():
                self._slopes = self._count(self._loss.slope(self.z, self._targets))
        assert self._slopes is not None
        return self._slopes

    @property
    def slope(self) -> Array:
        """The weighted slopes, a fresh array: a user's slope may be z itself."""
        slopes = self.slopes
        with quiet():
            weights = self._weights if slopes.ndim == 1 else self._weights[:, None]
            return slopes * weights

    @property
    def curvature(self) -> Curvature:
        """The weighted curvature."""
        if self._curvature is None:
            with quiet():
                if not self._together():
                    self._curvature = self._loss.curvature(
                        self.z, self._targets, self._weights
                    )
        assert self._curvature is not None
        return self._curvature


def is_compiled(loss: Loss, z: Array) -> bool:
    """Tell whether the loss has a compiled pass that these samples repay."""
    plain = type(loss) is Logistic and isinstance(z, np.ndarray)
    many = z.shape[0] >= WORTH_COMPILING and z.dtype == np.float64
    return plain and many and importlib.util.find_spec("numba") is not None


@functools.cache
def _loops() -> Any:
    """Import numba where it is first needed: half a second."""
    return importlib.import_module(".loss_loops", __package__)


@functools.cache
def _speaks_for_all_parts(kind: type) -> bool:
    """Whether no subclass has changed a part since ``together`` was written."""

    def depth(name: str) -> int:
        return next(i for i, c in enumerate(kind.__mro__) if name in vars(c))

    parts = [p for p in ("value", "slope", "curvature", "_second") if hasattr(kind, p)]
    return hasattr(kind, "together") and depth("together") <= min(map(depth, parts))


def quiet() -> np.errstate:
    """Let a trial point overflow without a warning: infinities are seen by the solver."""
    return np.errstate(over="ignore", invalid="ignore")
