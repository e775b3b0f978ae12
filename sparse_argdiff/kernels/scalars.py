"""The record of scalars that the primitives read and write.

CG: α, β, ‖r‖², r'D r.  MINRES: the coefficients of its two three-term combinations, φ, ‖r‖².
"""

from __future__ import annotations


class Scalars:
    """Scalars between two passes, by name; host floats, kept in double precision."""

    __slots__ = (
        "alpha",
        "beta",
        "of_newer",
        "of_older",
        "of_v",
        "of_w",
        "of_w_old",
        "of_y",
        "rho",
        "square",
        "step",
    )

    def __init__(self) -> None:
        self.alpha = self.beta = self.square = self.rho = 0.0
        self.of_older = self.of_newer = self.of_y = 0.0
        self.of_w_old = self.of_w = self.of_v = self.step = 0.0
