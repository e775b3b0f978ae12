"""What the last Newton step tells of the next one: whether there is anything left to do.

    λ_{k+1} = λ_k ‖r_{k+1}‖ / ‖r_k‖,        ρ = λ_k² / λ_{k+1}

A residual does not say how far the solution is where the curvature is weak; λ_{k+1}, the
length of the next step, does.  ρ is the length over which the Hessian is constant: a
derivative needs λ_{k+1} to be small against it as well.
"""

from __future__ import annotations

import dataclasses
import math

LONG = 5  # steps in a row that are not shorter: towards a limit that is not attained


@dataclasses.dataclass(frozen=True)
class LastStep:
    """A Newton step: its length, the residuals before and after, and what it left undone.

    Attributes
    ----------
    length : float
        λ_k; infinite where no step was taken.
    before, after : float
        Residual norms.
    inner : float
        The residual that the linear solve left: none of the Hessian's change.
    not_shorter : int
        Steps in a row that were about as long as the one before.
    """

    length: float = math.inf
    before: float = 0.0
    after: float = 0.0
    inner: float = 0.0
    not_shorter: int = 0

    def followed_by(
        self, length: float, before: float, after: float, inner: float = 0.0
    ) -> LastStep:
        """Return the record of the next step."""
        shorter = length < 0.95 * self.length
        count = 0 if shorter else self.not_shorter + 1
        return LastStep(length, before, after, inner, count)

    @property
    def radius(self) -> float:
        """ρ; infinite before two steps, and where the linear solve left all of λ_{k+1}."""
        curved = max(self.after - 1.1 * self.inner, 0.0)
        if not (math.isfinite(self.length) and curved > 0.0 and self.before > 0.0):
            return math.inf
        return self.length * self.before / curved

    @property
    def ahead(self) -> float:
        """λ_{k+1}."""
        if self.after == 0.0:
            return 0.0
        return self.length * self.after / self.before if self.before else math.inf

    def is_last(self, length: float, tol: float, rounding: float) -> bool:
        """Tell whether the next step is below ``tol`` times a length and ρ.

        ``rounding`` is the residual at which nothing more is known of ρ.
        """
        if not self.ahead <= tol * length:
            return False
        curved = max(self.after - 1.1 * self.inner, 0.0)
        return self.after <= rounding or curved**2 <= tol * self.before**2
