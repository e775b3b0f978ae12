"""Third derivatives of a linear model as products: what the Hessian of F needs of it.

    d/dt f_YY w    = F' (ℓ'''(z) ∘ F ẏ ∘ F w) + e^x ∘ ẋ ∘ w
    d/dt f_XYᵀ w   = Σ_group e^x ∘ (ẋ ∘ c + ċ) ∘ w                along (ẋ, ẏ), y = (c, b)

Two products with the features for F ẏ and F w, and one with their transpose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..arrays import Array, namespace
from .mean_loss import DataTerm


def third_of_loss(term: DataTerm, z: Array, w: Array, dy: Array) -> Array:
    """Return the derivative of a term's Hessian product with w along dy, shape (n,).

    ``z`` are the predictors.  NotImplementedError where the loss has no ``third``.
    """
    third = getattr(term.loss, "third", None)
    if not callable(third):
        raise NotImplementedError(f"{term.loss!r} has no method third")
    a, b = (term.counted(term.design.forward(v)) for v in (w, dy))
    return term.design.backward(third(z, term.targets, term.weights, a, b))


def third_of_ridge(
    penalty: Any, x: Array, at: tuple[Array, ...], along: Array
) -> Array:
    """Add the ridge's part to that of the loss; return that of f_XYᵀ w per coefficient.

    ``at`` is (y, w, ẋ, ẏ).
    """
    (y, w, dx, dy), count = at, penalty.n_coefficients
    weights = penalty.slopes(x, y.dtype)
    moved = weights * penalty.spread(namespace(y).asarray(dx, dtype=y.dtype))
    along[:count] += moved * w[:count]
    return (moved * y[:count] + weights * dy[:count]) * w[:count]


def second_of_loss(term: DataTerm, z: Array, dy: Array) -> Array:
    """Return a term's Hessian product with dy, shape (n,), at the predictors z."""
    curvature = term.loss.curvature(z, term.targets, term.weights)
    along: Any = term.counted(term.design.forward(dy))
    # The product may overwrite its operand.
    return term.design.backward(
        curvature.product(namespace(dy).asarray(along, copy=True))
    )


def observations(terms: Sequence[DataTerm]) -> int:
    """Return how many numbers losses compare: samples of positive weight, times outputs.

    The probabilities of K classes are K − 1 numbers.
    """
    counts = [int(namespace(t.weights).sum(t.weights > 0.0)) for t in terms]
    return sum(counts) * max(terms[0].design.outputs - 1, 1) if counts else 0
