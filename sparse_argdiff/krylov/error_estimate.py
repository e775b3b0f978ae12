"""The energy norm of the error of CG, from the scalars of its steps alone.

    ‖x_l − x*‖²_A = Σ_{l ≤ j < k} α_j ρ_j + ‖x_k − x*‖²_A

(Hestenes & Stiefel 1952, theorem 6:1).  The decrease over the steps after l is known, the
error after the last one is not.  :meth:`EnergyError.delayed` gives the error of the last
iterate l whose unknown part is negligible; :meth:`EnergyError.bound` bounds the unknown
part by a lower bound on the eigenvalues.
"""

from __future__ import annotations

import math
from array import array

import numpy as np


class EnergyError:
    """A listener to the steps of one solve.

    Parameters
    ----------
    smallest_eigenvalue : float, optional
        A lower bound on the eigenvalues of A, or of M A.
    """

    def __init__(self, smallest_eigenvalue: float | None) -> None:
        self._floor = smallest_eigenvalue
        self._decreases = array("d")  # α_j ρ_j of all steps
        self._rho = self._radau = math.nan

    def start(self, rho: float) -> None:
        """Note the square r'M r of the residual from which the recurrence starts."""
        self._rho = rho
        if self._floor is not None:
            self._radau = 1.0 / self._floor

    def add(self, alpha: float, decrease: float, rho: float) -> None:
        """Note a step: α, α ρ, and the next ρ = r'M r."""
        if self._floor is not None:
            rest = self._radau - alpha
            below = self._floor * rest + rho / self._rho
            if rest > 0.0 and below > 0.0:
                self._radau = rest / below
            else:
                # The floor exceeds a Ritz value: within rounding of it the plain bound
                # ρ / floor is left, else the floor is no lower bound.
                close = rest > -1e-6 * alpha
                self._radau = 1.0 / self._floor if close else math.nan
        self._decreases.append(decrease)
        self._rho = rho

    def delayed(self) -> float:
        """Estimate ‖x_l − x*‖_A at the last iterate l that is certain, else NaN.

        By the criterion of Meurant, Papež & Tichý (2021), which rests on how fast the
        error fell before, the square is between 1/1.25 and 1 of the truth.
        """
        decreases = np.asarray(self._decreases)
        if decreases.size < 2 or not np.all(decreases > 0.0):
            return math.nan
        remaining = np.cumsum(decreases[::-1])[::-1]
        slowest = np.maximum.accumulate((remaining / decreases)[-2::-1])[::-1]
        candidates = remaining[: slowest.size]
        # The decrease is looked at from where the error was a hundred times larger.
        older = np.searchsorted(-remaining, -1e4 * candidates, side="right") - 1
        left = slowest[np.maximum(older, 0)] * decreases[-1]
        certain = np.nonzero(left <= 0.25 * (candidates - decreases[-1]))[0]
        return math.sqrt(candidates[certain[-1]]) if certain.size else math.nan

    @property
    def has_bound(self) -> bool:
        """Whether a lower bound on the eigenvalues was given."""
        return self._floor is not None

    def bound(self, drift: float) -> float:
        """Bound ‖x − x*‖_A at the last iterate from above (Gauss-Radau quadrature).

        ``drift`` is the distance of its true residual from that of the recurrence, in
        the metric of M.
        """
        square = self._radau * self._rho
        if self._floor is None or not square >= 0.0:
            return math.nan
        return math.sqrt(square) + drift / math.sqrt(self._floor)
