"""The inertia correction: a multiple of I that makes the Newton system convex.

H + δ I positive definite where the constraints leave freedom, δ as small as trials find
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...arrays import norm
from ...operators.block_matrices import is_explicit
from .iterate import Direction
from .newton_system import NewtonSystem

_LEAST = 1e-4  # first shift, relative to H


def convex_step(
    build: Callable[[float], NewtonSystem],
    solve: Callable[[NewtonSystem], Direction],
    H: Any,
    last_shift: float,
    trials: int,
) -> tuple[NewtonSystem, Direction, float, bool]:
    """Return a system and its step, the shift δ and whether the system is convex.

    Parameters
    ----------
    build : callable
        Sets up the Newton system with a shift.
    solve : callable
        Returns its step.
    last_shift : float
        The shift that was needed last.

    References
    ----------
    A. Wächter, L. T. Biegler, Math. Program. 106 (2006) 25-57, algorithm IC.
    """
    shift, n_hvp = 0.0, 0
    for trial in range(trials):
        system = build(shift)
        step = solve(system)
        n_hvp += system.n_hvp + step.n_hvp
        curved = step.negative_curvature
        if system.factor is not None and not system.factor.shows_inertia:
            curved, n_hvp = system.curvature(step.y) < 0.0, n_hvp + 1
        # A shift that makes the matrix singular leaves no step at all.
        singular = system.factor is not None and system.factor.residual >= 1.0
        convex = not curved and (shift == 0.0 or not singular)
        if convex or trial == trials - 1:
            break
        if shift == 0.0:
            shift = max(last_shift / 3.0, _LEAST * (_row_sum(H, step) or 1.0))
        else:
            shift *= 8.0 if last_shift > 0.0 else 20.0
    return system, step._replace(n_hvp=n_hvp), shift, convex


def _row_sum(H: Any, step: Direction) -> float:
    """Return the largest row sum of H, or the size of its action on the step."""
    if is_explicit(H):
        return float(abs(H).sum(axis=1).max()) if H.shape[0] else 0.0
    size = norm(step.y)
    return norm(H @ step.y) / size if size > 0.0 else 0.0
