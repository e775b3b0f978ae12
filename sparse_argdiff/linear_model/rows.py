"""The samples that count in one of several models of one design, and their losses.

A fold gives the samples that it holds out the weight zero: their losses are not computed,
but where one compiled pass over all samples costs less than choosing those that count.
"""

from __future__ import annotations

import math

from ..arrays import Array, namespace, zeros
from .loss import Curvature, kink_note
from .loss_at import LossAt, is_compiled
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
        count = self.term.weights.shape[0]
        if part.shape[0] == count:
            return part
        result = zeros((count, *part.shape[1:]), part)
        result[self.index] = part
        return result

    def _at(self, z: Array) -> LossAt:
        """Return the losses at predictors of all samples; the last ones are remembered."""
        if self._last is None or self._last[0] is not z:
            found = self._of_all(z)
            if found is None:
                part = self.part(z)
                found = LossAt(self.term.loss, part, self.targets, self.weights)
            self._last = z, found
        return self._last[1]

    def _of_all(self, z: Array) -> LossAt | None:
        """Return the losses of all samples by a compiled pass, None where that is no gain.

        Samples that do not count have finite losses: 0 ∞ would be no number.
        """
        few = self.index is None or 2 * self.index.shape[0] < z.shape[0]
        if few or not is_compiled(self.term.loss, z):
            return None
        found = LossAt(self.term.loss, z, self.term.targets, self.term.weights)
        return found if math.isfinite(found.value) else None

    def value(self, z: Array) -> float:
        """Return the weighted loss at predictors of all samples."""
        return self._at(z).value

    def slope(self, z: Array) -> Array:
        """Return the weighted slopes of all samples, not to be written to."""
        return self.whole(self._at(z).slope)

    def curvature(self, z: Array) -> Curvature:
        """Return the weighted curvature of the samples that count, or of all."""
        return self._at(z).curvature

    def kinks(self, z: Array) -> str:
        """Say how many samples are at a kink."""
        return kink_note(self.term.loss, self._at(z).z, self.targets, self.weights)
