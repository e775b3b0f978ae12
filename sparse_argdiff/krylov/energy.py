"""The energy norm of the error of CG, from the scalars of the recurrence alone.

    ‖x − x_l‖²_A = Σ_{j ≥ l} α_j ρ_j          (Hestenes & Stiefel 1952, theorem 6:1)

What later steps took off is known; what is left after the last one is not.  Three answers:
:meth:`EnergyError.extrapolated` for the last iterate at no cost, :meth:`since` for an
earlier one after a delay, :meth:`bound` from a lower bound on the eigenvalues.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..arrays import Array
from ..status import Status

_FALL = 0.25  # of the smallest residual, over the window that calibrates it


class Step(NamedTuple):
    """One step of the recurrence, or why there is none."""

    status: Status | None  # None: x and r have moved
    residual_norm: float  # of the recurrence
    alpha: float
    decrease: float  # α ρ = ‖x₊ − x‖²_A
    rho: float  # r'M r
    least: float  # the least r'M r over the Krylov space
    direction: Array | None  # p, when its curvature is not positive
    a_norm: float  # lower estimate of ‖A‖
    product: bool = True  # whether A was applied


class EnergyError:
    """Scalars of the steps of one solve, and what they say about the error.

    Parameters
    ----------
    smallest_eigenvalue : float, optional
        A lower bound on the eigenvalues of A, or of M A.
    """

    def __init__(self, smallest_eigenvalue: float | None) -> None:
        self._floor = smallest_eigenvalue
        self._decreases: list[float] = []  # α_j ρ_j of all steps
        self._least: list[float] = []  # 1 / Σ_{i ≤ j} 1/ρ_i since the last start
        self._rho = self._radau = math.nan

    def __len__(self) -> int:
        return len(self._decreases)

    def start(self, rho: float) -> None:
        """Note the square r'M r of the residual from which the recurrence starts."""
        self._rho, self._least = rho, [rho]
        if self._floor is not None:
            self._radau = 1.0 / self._floor

    def add(self, step: Step) -> None:
        """Note a step."""
        self._decreases.append(step.decrease)
        self._least.append(step.least)
        if self._floor is not None:
            rest = self._radau - step.alpha
            # Below α the floor exceeds a Ritz value: it is no lower bound.
            below = self._floor * rest + step.rho / self._rho
            self._radau = rest / below if rest > 0.0 and below > 0.0 else math.nan
        self._rho = step.rho

    def extrapolated(self) -> float:
        """Estimate ‖x − x*‖_A at the last iterate.

        ‖x − x_j‖²_A is taken to be proportional to the least ‖r‖²_M over the Krylov
        space, which is known for all j and, unlike ‖r_j‖, smooth; the factor comes from
        what the last steps, over which it fell to a quarter, took off the energy.
        """
        steps = len(self._least) - 1
        if steps < 1:
            return math.nan  # nothing was measured: an exact start, or no step at all
        last, first = self._least[-1], steps - 1
        while first > 0 and last > _FALL * self._least[first]:
            first -= 1
        taken = sum(self._decreases[len(self._decreases) - steps + first :])
        fall = self._least[first] - last
        if not fall > 0.0:
            return math.sqrt(max(taken, 0.0))
        return math.sqrt(max(taken * (last / fall), 0.0))

    def since(self, mark: int, tau: float) -> float | None:
        """Estimate ‖x − x*‖_A after ``mark`` steps, from below; None: too early to say.

        The square is at least 1 − ``tau`` of the true one, by the criterion of Meurant,
        Papež & Tichý (2021), which rests on how fast the error fell before.
        """
        decreases = np.asarray(self._decreases)
        if len(decreases) < mark + 2:
            return None
        remaining = np.cumsum(decreases[::-1])[::-1]
        older = np.nonzero(remaining[mark] <= 1e-4 * remaining)[0]
        first = int(older[-1]) if older.size else 0
        slowest = float(np.max(remaining[first:-1] / decreases[first:-1]))
        last, taken = float(decreases[-1]), float(np.sum(decreases[mark:-1]))
        if not slowest * last <= tau * taken:
            return None
        return math.sqrt(taken + last)

    def bound(self) -> float:
        """Bound ‖x − x*‖_A at the last iterate from above (Gauss-Radau quadrature)."""
        square = self._radau * self._rho
        return math.sqrt(square) if square >= 0.0 else math.nan

    def taken(self, mark: int) -> float:
        """Return what the steps after ``mark`` took off: ‖x − x*‖_A if none is left."""
        return math.sqrt(max(sum(self._decreases[mark:]), 0.0))
