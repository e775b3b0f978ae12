"""The samples that count in one of several models of one design, and their losses.

A fold gives the samples that it holds out the weight zero: their losses are not computed.
"""

from __future__ import annotations

from ..arrays import Array, namespace, zeros
from .loss import Curvature, kink_note
from .loss_at import LossAt
from .mean_loss import DataTerm


class Rows:
    """The loss of one model, on the samples that have a weight.

    Attributes
    ----------
    term : DataTerm
        Its weights and targets, of all samples.
    index : int array or None
        Of the samples whose weight is not zero; None where that is all.
    targets, weights : array
        Of these samples.
    """

    def __init__(self, term: DataTerm) -> None:
        xp = namespace(term.weights)
        self.term, self.index = term, None
        self.targets, self.weights = term.targets, term.weights
        (index,) = xp.nonzero(term.weights)
        if index.shape[0] < term.weights.shape[0]:
            self.index = index
            self.targets = xp.take(term.targets, index, axis=0)
            self.weights = xp.take(term.weights, index, axis=0)
        self._last: tuple[Array, LossAt] | None = None

    def part(self, z: Array) -> Array:
        """Return the predictors of the samples that count."""
        return z if self.index is None else namespace(z).take(z, self.index, axis=0)

    def whole(self, part: Array) -> Array:
        """Return an array of all samples, zero at those that do not count."""
        if self.index is None:
            return part
        shape = (self.term.weights.shape[0], *part.shape[1:])
        result = zeros(shape, part)
        result[self.index] = part
        return result

    def _at(self, z: Array) -> LossAt:
        """Return the losses at predictors of all samples; the last ones are remembered."""
        if self._last is None or self._last[0] is not z:
            part = self.part(z)
            found = LossAt(self.term.loss, part, self.targets, self.weights)
            self._last = z, found
        return self._last[1]

    def value(self, z: Array) -> float:
        """Return the weighted loss at predictors of all samples."""
        return self._at(z).value

    def slope(self, z: Array) -> Array:
        """Return the weighted slopes of all samples, not to be written to."""
        return self.whole(self._at(z).slope)

    def curvature(self, z: Array) -> Curvature:
        """Return the weighted curvature of the samples that count."""
        return self._at(z).curvature

    def kinks(self, z: Array) -> str:
        """Say how many samples are at a kink."""
        return kink_note(self.term.loss, self._at(z).z, self.targets, self.weights)
