"""The energy norm of the error of CG, from the scalars of the recurrence alone.

    ‖x − x_l‖²_A = Σ_{l ≤ j < k} α_j ρ_j + ‖x − x_k‖²_A

(Hestenes & Stiefel 1952, theorem 6:1).  What the steps after l took off is known; what is
left after the last one is not.  Three answers: :meth:`EnergyError.estimate` models the rest
and says how far to trust the model, :meth:`earlier` speaks of a step whose rest is
negligible, :meth:`bound` takes the rest from a lower bound on the eigenvalues.
"""

from __future__ import annotations

import math
from array import array
from typing import NamedTuple

import numpy as np

from ..arrays import Array
from ..status import Status

_WINDOW = 500  # steps that the model of the rest is fitted to, at most
_FAR = math.log(1e4)  # as the residual of these steps was larger
_QUARTER = math.log(4.0)  # the fall that the first guess of the rest is taken from

# Where the energy norm is none, or the recurrence not the one that the bound is of.
NO_BOUND = {
    Status.NEGATIVE_CURVATURE,
    Status.SINGULAR,
    Status.NOT_SYMMETRIC,
    Status.INDEFINITE_PRECONDITIONER,
    Status.NOT_FINITE,
}


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
    products: int = 1  # with A


class Estimate(NamedTuple):
    """What is thought of ‖x − x*‖_A."""

    error: float
    uncertainty: float  # standard deviation of its logarithm


class EnergyError:
    """Scalars of the steps of one solve, and what they say about the error.

    Parameters
    ----------
    smallest_eigenvalue : float, optional
        A lower bound on the eigenvalues of A, or of M A.
    """

    def __init__(self, smallest_eigenvalue: float | None) -> None:
        self._floor = smallest_eigenvalue
        self._decreases = array("d")  # α_j ρ_j of all steps
        self._rho = array("d")  # since the last start, which comes first
        self._least = array("d")  # likewise, 1 / Σ_{i ≤ j} 1/ρ_i
        self._radau = math.nan

    def __len__(self) -> int:
        return len(self._decreases)

    def start(self, rho: float) -> None:
        """Note the square r'M r of the residual from which the recurrence starts."""
        self._rho, self._least = array("d", [rho]), array("d", [rho])
        if self._floor is not None:
            self._radau = 1.0 / self._floor

    def add(self, step: Step) -> None:
        """Note a step."""
        if self._floor is not None:
            rest = self._radau - step.alpha
            below = self._floor * rest + step.rho / self._rho[-1]
            if rest > 0.0 and below > 0.0:
                self._radau = rest / below
            else:
                # The floor exceeds a Ritz value: within rounding of it the plain bound
                # ρ / floor is left, else the floor is no lower bound.
                close = rest > -1e-6 * step.alpha
                self._radau = 1.0 / self._floor if close else math.nan
        self._decreases.append(step.decrease)
        self._rho.append(step.rho)
        self._least.append(step.least)

    def estimate(self, mark: int) -> Estimate:
        """Estimate ‖x − x*‖_A after ``mark`` steps, from below.

        The square is what the steps since took off, and half of what the model puts the
        rest at: only then is the estimate seldom more than the truth.
        """
        if len(self._rho) < 2:
            return Estimate(math.nan, math.inf)  # an exact start, or no step at all
        known = sum(self._decreases[mark:])
        rest, deviation = self._rest()
        square = known + 0.5 * rest
        if not 0.0 <= square < math.inf:
            return Estimate(math.nan, math.inf)
        share = rest / (known + rest) if rest > 0.0 else 0.0
        return Estimate(math.sqrt(square), deviation * share)

    def _rest(self) -> tuple[float, float]:
        """Model ‖x − x_k‖²_A at the last iterate; and the deviation of its logarithm.

        The least ‖r‖²_M over the Krylov space is known for all j and smooth, unlike ‖r_j‖.
        Of the steps before,

            log(‖x − x_j‖²_A / least_j) = a + b log(ρ_j / least_j) + scatter,

        a, b by least squares; the left side contains the rest itself, which is found by
        iteration from that proportional to ``least``.  Where the error stagnates while
        the residual falls, or falls in jumps, the scatter is large.
        """
        last, rho = self._least[-1], self._rho[-1]
        steps = min(len(self._least) - 1, _WINDOW)
        taken = np.cumsum(self._decreases[: -steps - 1 : -1])[::-1]  # since step j
        unit = float(taken[-1])
        if last == 0.0:
            return 0.0, 0.0
        if not (unit > 0.0 and taken[0] < 1e300 * unit):
            return math.nan, math.inf
        fall = np.log(self._least[-steps - 1 : -1]) - math.log(last)
        taken /= unit
        first = max(int(np.count_nonzero(fall >= _QUARTER)) - 1, 0)
        fell = math.expm1(fall[first])
        rest = float(taken[first]) / (fell if fell > 0.0 else 1.0)
        # Steps from which the residual has fallen far say little about the last one.
        start = max(min(int(np.count_nonzero(fall > _FAR)), steps - 4), 0)
        taken, fall = taken[start:], fall[start:]
        level = np.log(self._rho[start - steps - 1 : -1]) - (math.log(last) + fall)
        # The younger, the better; but what is left of the last ones is the rest itself.
        weight = taken / ((taken + rest) * np.exp(0.25 * fall))
        weight /= np.add.reduce(weight)
        centre = float(weight @ level)
        level -= centre
        slope = weight * level
        spread = float(slope @ level) + 0.1
        share = weight + slope * ((math.log(rho / last) - centre) / spread)
        for _ in range(3):
            ratio = np.log(taken + rest) - fall
            rest = math.exp(min(float(share @ ratio), 600.0))
        scatter = (
            ratio - level * (float(slope @ ratio) / spread) - float(weight @ ratio)
        )
        few = float(weight @ weight)  # 1 / the number of steps that count
        # A restart, for drift, forgets where the error stagnates.
        restarted = len(self._decreases) >= len(self._rho)
        variance = float(weight @ (scatter * scatter)) + 0.25 * few**2 + restarted
        return unit * rest, math.sqrt(variance)

    def earlier(self, mark: int) -> tuple[float, int]:
        """Estimate ‖x − x*‖_A at the last iterate up to ``mark`` that is certain; and which.

        It is a lower estimate: by the criterion of Meurant, Papež & Tichý (2021), which
        rests on how fast the error fell before, the square is at least 1/1.25 of the truth.
        """
        decreases = np.asarray(self._decreases)
        if decreases.size < 2 or not np.all(decreases > 0.0):
            return math.nan, 0
        remaining = np.cumsum(decreases[::-1])[::-1]
        slowest = np.maximum.accumulate((remaining / decreases)[-2::-1])[::-1]
        candidates = remaining[: min(mark + 1, slowest.size)]
        # The fall is looked at from where the error was a hundred times larger.
        older = np.searchsorted(-remaining, -1e4 * candidates, side="right") - 1
        left = slowest[np.maximum(older, 0)] * decreases[-1]
        certain = np.nonzero(left <= 0.25 * (candidates - decreases[-1]))[0]
        if not certain.size:
            return math.nan, 0
        return math.sqrt(candidates[certain[-1]]), int(certain[-1])

    def bound(self) -> float:
        """Bound ‖x − x*‖_A at the last iterate from above (Gauss-Radau quadrature)."""
        square = self._radau * self._rho[-1]
        return math.sqrt(square) if square >= 0.0 else math.nan
