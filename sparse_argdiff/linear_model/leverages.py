"""The leverages of the samples of a linear model, and the derivative of a sum of them.

    h_i = w_i a_i' H⁻¹ a_i,        H = Σ_j w_j c_j a_j a_j' + diag(λ),        c = ℓ''

a_i: row i of the design, K rows for K outputs, of which h_i and c_i are (K, K) matrices.
For small n a factor of H gives them; for large n ``estimated_leverages``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, namespace
from ..operators.linear_operator import LinearOperator
from ..status import Status, raise_or_warn
from .design import Design

SMALL = 2000  # unknowns up to which H is factorised
_ENTRIES = 2**22  # of the products held at a time, 32 MB


class Slopes(NamedTuple):
    """The derivative of Σ_i ⟨β_i, h_i⟩ at fixed β, by what H depends on.

    ``samples``: by the predictors, (N,) or (N, K).  ``weights``: by the log-weights η, (n,).
    """

    samples: Array
    weights: Array


class Curved(NamedTuple):
    """What the leverages need of the loss at the predictors z, for each sample.

    ``move(B)`` is the derivative of ⟨c_i, B_i⟩ by z_i, of the shape of z.
    """

    weights: Array  # (N,)
    second: Array  # c (N,), or (N, K, K)
    move: Any


class ExactLeverages:
    """Leverages by the Cholesky factor of H, n products and N n² additions.

    Parameters
    ----------
    design : Design
    H : LinearOperator (n, n)
    ridge : array (n,)
        λ, zero where nothing is penalised or x does not enter.
    hold : callable
        Returns a block with zeros where a coefficient is fixed at 0.
    """

    capped = 0  # leverages that no estimate reaches

    def __init__(
        self, design: Design, H: LinearOperator, ridge: Array, hold: Any
    ) -> None:
        self.design, self.ridge = design, ridge
        xp = self._xp = namespace(ridge)
        entries = H.matmat(xp.eye(design.n, dtype=design.dtype))
        try:
            factor = xp.linalg.cholesky(0.5 * (entries + entries.T))
        except np.linalg.LinAlgError:
            what, detail = (
                "computing leverages",
                "the Hessian of the model is singular.",
            )
            raise_or_warn(Status.SINGULAR, None, what, detail, "raise")
            raise
        # H⁻¹ = G G'; of what is fixed no sample has a share.
        eye = xp.eye(design.n, dtype=design.dtype)
        self.G = hold(xp.linalg.solve(factor, eye).T)
        width = max(_ENTRIES // max(design.n_samples * design.outputs, 1), 1)
        starts = range(0, design.n, width)
        self._parts = [slice(first, first + width) for first in starts]
        self.standard_error: Any = None

    def leverages(self, curved: Curved) -> list[tuple[float, Array]]:
        """Return h, (N,) or (N, K, K), with a share of 1."""
        total: Any = 0.0
        for part in self._parts:
            z = self.design.forward(self.G[:, part])
            total = total + _outer(z, z)
        weights = curved.weights
        return [(1.0, total * (weights if total.ndim == 1 else weights[:, None, None]))]

    def slopes(self, betas: list[Array], curved: Curved) -> Slopes:
        """Return the derivative of Σ ⟨β_i, h_i⟩; β symmetric."""
        (beta,), weights = betas, curved.weights
        scaled = beta * (weights if beta.ndim == 1 else weights[:, None, None])
        columns = []
        for part in self._parts:
            z = self.design.forward(self.G[:, part])
            z = z * scaled[:, None] if scaled.ndim == 1 else scaled @ z
            columns.append(self.G.T @ self.design.backward(z))
        GC = self.G @ self._xp.concatenate(columns, axis=1)
        total: Any = 0.0
        for part in self._parts:
            one, other = (self.design.forward(B[:, part]) for B in (GC, self.G))
            total = total + _outer(one, other)
        samples = curved.move(-total)
        samples = samples * (weights if samples.ndim == 1 else weights[:, None])
        return Slopes(samples, -self.ridge * self._xp.sum(GC * self.G, axis=1))


def _outer(one: Array, other: Array) -> Array:
    """Return Σ_c of the products of columns: (N,), or (N, K, K) of (N, K, c)."""
    if one.ndim == 2:
        return namespace(one).sum(one * other, axis=1)
    return one @ namespace(one).moveaxis(other, 1, 2)
