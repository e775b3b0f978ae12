"""The mean loss of a linear model on held-out data: an upper objective.

f^U(y) = Σ_i w_i ℓ(z_i, t_i) / Σ_i w_i,        z = F c + b
"""

from __future__ import annotations

from typing import Any

from ..arrays import (
    Array,
    array_module,
    as_vector,
    namespace,
    to_namespace,
)
from .lipschitz_constants import lipschitz_of
from .loss import Loss
from .loss_at import quiet
from .losses import as_loss
from .mean_loss import DataTerm, several_targets, terms_of
from .third_derivative import observations, second_of_loss


class HeldOutLoss:
    """The mean loss on held-out data as an :class:`UpperObjective` of y.

    Parameters
    ----------
    features, targets, loss, intercept, sample_weight
        As for :class:`Glm`; :meth:`Glm.held_out` fills in what the model knows.
    outputs : int, optional
        Classes of the multinomial loss, where the held-out targets may lack some.
    """

    def __init__(
        self,
        features: Any,
        targets: Any,
        *,
        loss: str | Loss = "logistic",
        intercept: bool = True,
        sample_weight: Any = None,
        outputs: int | None = None,
    ) -> None:
        loss = as_loss(loss)
        self._targets = several_targets(targets, loss)
        first = targets if self._targets is None else self._targets[:, 0]
        self._data = DataTerm(features, first, loss, intercept, sample_weight, outputs)
        self._terms = terms_of(self._data, self._targets)

    def __repr__(self) -> str:
        rows, columns = self._data.design.features.shape
        return f"HeldOutLoss({rows} x {columns}, loss={self._data.loss})"

    def to(self, backend: str) -> HeldOutLoss:
        """Return the same loss with its data in "cupy" or "numpy" arrays."""
        outputs, xp = self._data.design.outputs, array_module(backend)
        arguments = self._data.arguments(xp)
        if self._targets is not None:
            arguments["targets"] = to_namespace(self._targets, xp)
        return HeldOutLoss(**arguments, outputs=outputs if outputs > 1 else None)

    def _blocks(self, y: Array) -> Any:
        """Return y of several targets, one row each."""
        count, n = len(self._terms), self._data.design.n
        return as_vector("y", y, count * n).reshape(count, n)

    def value(self, x: Array, y: Array) -> float:
        """Return the mean loss at y, summed over targets; x does not enter."""
        if len(self._terms) == 1:
            return self._data.value(y)
        pairs = zip(self._terms, self._predictors(y), strict=True)
        return sum(term.at(z).value for term, z in pairs)

    def grad_y(self, x: Array, y: Array) -> Array:
        """Return its gradient, shape (n,)."""
        if len(self._terms) == 1:
            return self._data.grad(y)
        pairs = zip(self._terms, self._predictors(y), strict=True)
        xp = namespace(y)
        slopes = xp.stack([term.at(z).slope for term, z in pairs], axis=1)
        return xp.ascontiguousarray(self._data.design.backward(slopes).T).reshape(-1)

    def _predictors(self, y: Array) -> Any:
        """Return the predictors of each target, (t, N), by one product."""
        block = namespace(y).ascontiguousarray(self._blocks(y).T)
        with quiet():
            return self._data.counted(self._data.design.forward(block)).T

    def grad_x(self, x: Array, y: Array) -> None:
        """Return None: x does not enter directly."""

    def hess_product(self, x: Array, y: Array, dx: Array, dy: Array) -> Any:
        """Return the derivatives of (∂f^U/∂x, ∂f^U/∂y) along (dx, dy), None for zero."""
        pairs = zip(self._terms, self._blocks(y), self._blocks(dy), strict=True)
        found = [second_of_loss(term, term.predictor(b), d) for term, b, d in pairs]
        return None, namespace(y).concatenate(found)

    @property
    def n_observations(self) -> int:
        """Numbers that the loss compares: samples of positive weight, times outputs."""
        return observations(self._terms)

    def lipschitz(self, metric: Array) -> float:
        """Return a Lipschitz constant of ``grad_y`` in a metric, see ``Constants``."""
        pairs = zip(self._terms, self._blocks(metric), strict=True)
        return max(lipschitz_of(term, own) for term, own in pairs)
