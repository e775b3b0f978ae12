"""Third derivatives of a linear model as products: what the Hessian of F needs of it.

    d/dt f_YY w    = F' (ℓ'''(z) ∘ F ẏ ∘ F w) + e^x ∘ ẋ ∘ w
    d/dt f_XYᵀ w   = Σ_group e^x ∘ (ẋ ∘ c + ċ) ∘ w                along (ẋ, ẏ), y = (c, b)

Two products with the features for F ẏ and F w, and one with their transpose.
"""

from __future__ import annotations

from typing import Any

from ..arrays import Array, namespace
from .mean_loss import DataTerm


def third_of_loss(data: DataTerm, y: Array, w: Array, dy: Array) -> Array:
    """Return the derivative of the data's Hessian product with w along dy, shape (n,).

    NotImplementedError where the loss has no ``third``.
    """
    third = getattr(data.loss, "third", None)
    if not callable(third):
        raise NotImplementedError(f"{data.loss!r} has no method third")
    z, design = data.predictor(y), data.design
    a, b = (data.counted(design.forward(v)) for v in (w, dy))
    return design.backward(third(z, data.targets, data.weights, a, b))


def second_of_loss(data: DataTerm, y: Array, dy: Array) -> Array:
    """Return the data's Hessian product with dy, shape (n,)."""
    curvature = data.loss.curvature(data.predictor(y), data.targets, data.weights)
    along: Any = data.counted(data.design.forward(dy))
    # The product may overwrite its operand.
    return data.design.backward(
        curvature.product(namespace(dy).asarray(along, copy=True))
    )
