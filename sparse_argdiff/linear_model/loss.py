"""What a pointwise loss ℓ(z, t) offers: values, slopes and curvature; the base of those of one z.

The losses themselves are in ``losses.py`` and ``multinomial.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from ..arrays import Array, as_data, epsilon, namespace


class Curvature(NamedTuple):
    """The weighted second derivative: its diagonal, and its product."""

    diagonal: Array
    product: Callable[[Array], Array]  # may overwrite its operand
    soft_max: tuple[Array, Array] | None = None  # (p, w) where it is w (diag p − p p')


def curvature_of(diagonal: Array) -> Curvature:
    """Return the curvature of a loss of one predictor a sample."""

    def product(dz: Array) -> Array:
        dz *= diagonal if dz.ndim == 1 else diagonal[:, None]
        return dz

    return Curvature(diagonal, product)


class Loss(Protocol):
    """A convex loss, pointwise in the samples.

    Predictors z have shape (N,), or (N, K) for a loss of K outputs a sample.
    Optional attributes: ``curvature_bound`` and ``third_bound``, of the second and third
    derivatives by z for all z; without them nothing is proven about a hypergradient.
    ``kinks(z, targets)``, the relative distances to where the curvature jumps: samples
    there make a derivative one-sided, which is told.
    ``mean_range``, the open interval of the means that the model can predict: targets all
    at one end have no finite intercept.  ``third(z, targets, weights, a, b)``, the third
    derivative times the weights along a and b, of the shape of z: without it the Hessian
    of a hypergradient's F takes differences.  ``together(z, targets)``, ℓ, ∂ℓ/∂z and
    ∂²ℓ/∂z² of scalar predictors in fresh arrays, where they share their terms.
    """

    def prepare(self, targets: Array, dtype: Any, outputs: int | None = None) -> Array:
        """Return checked targets, in the form the other methods take.

        ``outputs`` is K where the model has fixed it, for held-out targets.
        """

    def outputs(self, targets: Array) -> int:
        """Return K, 1 for scalar predictors."""

    def value(self, z: Array, targets: Array) -> Array:
        """Return ℓ per sample, shape (N,)."""

    def slope(self, z: Array, targets: Array) -> Array:
        """Return ∂ℓ/∂z, of the shape of z."""

    def curvature(self, z: Array, targets: Array, weights: Array) -> Curvature:
        """Return ∂²ℓ/∂z² times the weights (N,)."""


def numeric_targets(targets: Array, dtype: Any) -> Array:
    """Return real targets, one a sample, checked."""
    if targets.ndim != 1:
        raise ValueError(f"targets must be 1-D, found shape {tuple(targets.shape)}")
    if getattr(targets.dtype, "kind", "") in set("OSUT"):
        raise TypeError(
            f"targets must be real, found dtype {targets.dtype}; number labels by "
            "numpy.unique(labels, return_inverse=True)[1]"
        )
    return as_data("targets", targets, dtype)


class ScalarLoss:
    """A loss of one predictor a sample, whose curvature is a diagonal."""

    def prepare(self, targets: Array, dtype: Any, outputs: int | None = None) -> Array:
        """Return the targets, checked."""
        return numeric_targets(targets, dtype)

    def outputs(self, targets: Array) -> int:
        """Return 1."""
        return 1

    def curvature(self, z: Array, targets: Array, weights: Array) -> Curvature:
        """Return ∂²ℓ/∂z² times the weights (N,)."""
        return curvature_of(self._second(z, targets, weights))

    def third(
        self, z: Array, targets: Array, weights: Array, a: Array, b: Array
    ) -> Array:
        """Return ∂³ℓ/∂z³ times the weights along a and b."""
        return self._third(z, targets, weights) * a * b

    def _second(self, z: Array, targets: Array, weights: Array) -> Array:
        raise NotImplementedError

    def _third(self, z: Array, targets: Array, weights: Array) -> Array:
        return 0.0 * weights


def kink_note(loss: Loss, z: Array, targets: Array, weights: Array) -> str:
    """Say how many samples are where the curvature of a loss jumps, to half the digits.

    Empty without any, and for losses that are twice differentiable.
    """
    distances = getattr(loss, "kinks", None)
    if distances is None:
        return ""
    near = (distances(z, targets) <= math.sqrt(epsilon(z))) & (weights > 0.0)
    count = int(namespace(z).count_nonzero(near))
    if count == 0:
        return ""
    return (
        f"{count} samples are at a kink of the slope of the loss, where its curvature "
        "jumps: the derivative is one-sided there"
    )
