"""Products with the Hessian of a linear model: the interface, and the reference in two passes.

H v = F' W F v + λ ∘ v,        W: the curvature of the loss,   λ: the ridge's weights
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ...arrays import Array, namespace
from ...operators.structure import Forming
from ..design import Design
from ..loss import Curvature


class Products(NamedTuple):
    """The products of one Hessian, as :class:`LinearOperator` takes them."""

    matvec: Callable[[Array], Array]
    matmat: Callable[[Array], Array] | None
    into: Callable[[Array, Array], Any] | None = None
    into_blocks: bool = False
    forming: Forming | None = None


class TwoPasses:
    """F, then W, then F': as :class:`Design` and the loss write them."""

    def __init__(self, design: Design) -> None:
        self.design = design

    def products(self, curvature: Curvature, weights: Array, shift: float) -> Products:
        """Return the products; a block only where a sample has one output."""
        design, count = self.design, self.design.n_coefficients

        def matvec(v: Array) -> Array:
            result = design.backward(curvature.product(design.forward(v)))
            result[:count] += weights * v[:count]
            if shift:
                result[count:] += shift * namespace(v).sum(v[count:])
            return result

        def matmat(V: Array) -> Array:
            result = design.backward(curvature.product(design.forward(V)))
            result[:count] += weights[:, None] * V[:count]
            return result

        return Products(matvec, matmat if design.outputs == 1 else None)
