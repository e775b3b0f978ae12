"""The energy norm of the error of CG, from the scalars of its steps alone.

    ‖x_l − x*‖²_A = Σ_{l ≤ j < k} α_j ρ_j + ‖x_k − x*‖²_A

(Hestenes & Stiefel 1952, theorem 6:1).  The decrease over the steps after l is known, the
error after the last one is not: :meth:`EnergyError.extrapolated` guesses it from the fall
of the residual, :meth:`EnergyError.bound` bounds it by a lower bound on the eigenvalues,
and :meth:`EnergyError.delayed` gives the error of the last iterate l for which it is
negligible.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

import numpy as np

from ..arrays import Array
from ..kernels import Line
from ..operators.linear_operator import LinearOperator
from ..status import Status
from .linear_system import Column

# Where the energy norm is none, or the recurrence not the one that the bound is of.
_NO_ENERGY = {
    Status.NEGATIVE_CURVATURE,
    Status.SINGULAR,
    Status.NOT_SYMMETRIC,
    Status.INDEFINITE_PRECONDITIONER,
    Status.NOT_FINITE,
}


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
        self._rho = array("d")  # r'M r since the last start, which comes first
        self._radau = math.nan
        self._error = self._earlier = self._upper = math.nan

    def start(self, rho: float) -> None:
        """Note the square r'M r of the residual from which the recurrence starts."""
        self._rho = array("d", [rho])
        if self._floor is not None:
            self._radau = 1.0 / self._floor

    def add(self, alpha: float, decrease: float, rho: float) -> None:
        """Note a step: α, α ρ, and the next ρ = r'M r."""
        if self._floor is not None:
            rest = self._radau - alpha
            below = self._floor * rest + rho / self._rho[-1]
            if rest > 0.0 and below > 0.0:
                self._radau = rest / below
            else:
                # The floor exceeds a Ritz value: within rounding of it the plain bound
                # ρ / floor is left, else the floor is no lower bound.
                close = rest > -1e-6 * alpha
                self._radau = 1.0 / self._floor if close else math.nan
        self._decreases.append(decrease)
        self._rho.append(rho)

    def extrapolated(self) -> float:
        """Guess ‖x − x*‖_A at the last iterate, else NaN.

        The least ‖r‖²_M over the Krylov space, 1 / Σ_j 1/ρ_j, is smooth.  Over the last
        steps in which it fell by a factor F >= 4, the square of the error is taken to
        have fallen by F as well: what is left is the decrease over them by F − 1.
        """
        steps = len(self._rho) - 1
        rho = np.asarray(self._rho)
        if steps < 1 or not np.all(rho[:-1] > 0.0):
            return math.nan
        if rho[-1] == 0.0:
            return 0.0
        least = rho[0] / np.cumsum(rho[0] / rho)
        fall = least / least[-1]
        first = max(int(np.count_nonzero(fall >= 4.0)) - 1, 0)
        decrease = sum(self._decreases[len(self._decreases) - steps + first :])
        square = decrease / (fall[first] - 1.0) if fall[first] > 1.0 else decrease
        return math.sqrt(square) if 0.0 <= square < math.inf else math.nan

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

    def conclude_round(self, growth: float, drift: float) -> None:
        """Estimate at the last iterate, whose residual is ``growth`` times as recurred."""
        self._error = growth * self.extrapolated()
        self._earlier = growth * self.delayed()
        self._upper = self.bound(drift)
        self._error = min(self._error, self._upper)

    @property
    def needs_start(self) -> bool:
        """Whether a bound is wanted and no round has begun."""
        return self.has_bound and not self._rho

    def result(
        self, status: Status | None, residual_norm: float
    ) -> tuple[float, float, float | None]:
        """Return the estimate for x, the delayed one, and the bound if there is one."""
        error, earlier, upper = self._error, self._earlier, self._upper
        if self.has_bound and math.isnan(upper) and not self._decreases:
            upper = self.bound(0.0)  # nothing was iterated
        if status in _NO_ENERGY:
            error = earlier = upper = math.nan
        if residual_norm == 0.0:
            error = 0.0
        return error, earlier, upper if self.has_bound else None

    @property
    def has_bound(self) -> bool:
        """Whether a lower bound on the eigenvalues was given."""
        return self._floor is not None

    def bound(self, drift: float) -> float:
        """Bound ‖x − x*‖_A at the last iterate from above (Gauss-Radau quadrature).

        ``drift`` is the distance of its true residual from that of the recurrence, in
        the metric of M.
        """
        square = self._radau * self._rho[-1]
        if self._floor is None or not square >= 0.0:
            return math.nan
        return math.sqrt(square) + drift / math.sqrt(self._floor)


class EnergyErrors:
    """The estimates of all right-hand sides that are solved together.

    Parameters
    ----------
    columns : sequence of Column
    smallest_eigenvalue : float, optional
        Of :class:`EnergyError`.
    """

    def __init__(
        self, columns: Sequence[Column], smallest_eigenvalue: float | None
    ) -> None:
        self._of = {c.index: EnergyError(smallest_eigenvalue) for c in columns}
        self.bounded = smallest_eigenvalue is not None

    def start(self, columns: Sequence[Column], squares: Sequence[float]) -> None:
        """Note r'M r of the residuals from which the recurrence starts."""
        for column, square in zip(columns, squares, strict=False):
            self._of[column.index].start(square)

    def listen(self, column: Column, line: Line) -> float:
        """Note a step of a column, by its scalars; return ‖r‖ after it."""
        alpha, decrease, rho, size, _ = line
        self._of[column.index].add(alpha, decrease, rho)
        return size

    def conclude_round(self, column: Column, growth: float, drift: float) -> None:
        """Estimate at the last iterate of a column, see :class:`EnergyError`."""
        self._of[column.index].conclude_round(growth, drift)

    def conclude(self, column: Column, r: Array, M: LinearOperator | None) -> None:
        """Complete a column that has ended with residual r."""
        found = self._of[column.index]
        if found.needs_start:
            z = r if M is None else M @ r
            found.start(max(float(r @ z), 0.0))
        column.energy_error, column.energy_error_earlier, column.energy_error_bound = (
            found.result(column.status, column.residual_norm)
        )
