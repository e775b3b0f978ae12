"""Where f is not convex: how much to shift its Hessian, and a way on from a saddle point.

    K + δ of the right inertia, δ as small as trials find;   p ← (K + δ)⁻¹ p,   p'Hp < 0

A step of the shifted system descends, but may end at a point where only the conditions of
first order hold.  There p is followed downhill until a side is half-way reached.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...arrays import Array, asarray, dot, namespace, norm
from ...operators.block_matrices import is_explicit
from .iterate import Central, Residuals, reach
from .newton_system import Direction, NewtonSystem
from .standard_form import StandardForm

_SHIFTS = 16  # at most
_LEAST = 1e-4  # first shift, relative to H
_ITERATIONS = 6  # of the inverse iteration
_HALVINGS = 20


class Convex(NamedTuple):
    """A Newton step whose system was shifted until it curved up."""

    system: NewtonSystem
    plain: NewtonSystem  # without a shift
    step: Direction
    bend: float  # along the step
    n_hvp: int
    shift: float
    bent: bool  # whether the plain one curves down
    done: bool  # whether the shifted one does not


def convexified(
    build: Callable[[float], NewtonSystem],
    solve: Callable[[NewtonSystem], Direction],
    H: Any,
    before: float,
    trials: int = _SHIFTS,
) -> Convex:
    """Raise the shift until the system curves up; ``before`` is what the last needed."""
    shift, bent, n_hvp = 0.0, False, 0
    plain = system = build(shift)
    for trial in range(trials):
        step = solve(system)
        bend = system.curvature(step.y)
        n_hvp += system.n_hvp
        # A step that must leave the null space of E may bend down in a convex system.
        down = system.bends_down or (bend < 0.0 and not system.knows)
        bent = bent or down
        # A shift that makes the matrix singular leaves no step at all.
        singular = system.factor is not None and system.factor.residual >= 1.0
        done = not down and (shift == 0.0 or not singular)
        if done or not math.isfinite(bend) or trial == trials - 1:
            break
        shift = next_shift(shift, before, hessian_size(H, step.y) or 1.0)
        system = build(shift)
    return Convex(system, plain, step, bend, n_hvp, shift, bent, done)


def next_shift(shift: float, before: float, size: float) -> float:
    """Return the shift to try after this one; ``before`` is what the last step needed.

    References
    ----------
    A. Wächter, L. T. Biegler, Math. Program. 106 (2006) 25-57, algorithm IC.
    """
    if shift == 0.0:
        return max(before / 3.0, _LEAST * size)
    return shift * (8.0 if before > 0.0 else 20.0)


def hessian_size(H: Any, d: Array) -> float:
    """Return a size of H: its largest row sum, or its action on d."""
    if is_explicit(H):
        return float(abs(H).sum(axis=1).max()) if H.shape[0] else 0.0
    return norm(H @ d) / norm(d) if norm(d) > 0.0 else 0.0


def downward(
    build: Callable[[float], NewtonSystem], plain: NewtonSystem, H: Any, before: float
) -> tuple[Array | None, float]:
    """Return a unit direction p of negative curvature in a plain system, and p'Hp."""
    p = plain.direction
    if p is None and plain.factor is not None:
        system, shift, n = plain, 0.0, plain.operator.shape[0]
        p = asarray(np.random.default_rng(0).standard_normal(n), plain.w)
        for _ in range(_SHIFTS):
            if not system.bends_down:
                break
            shift = next_shift(shift, before, hessian_size(H, p) or 1.0)
            system = build(shift)
        for _ in range(_ITERATIONS):
            p = system.inverse(p / (norm(p) or 1.0))
    size = 0.0 if p is None else norm(p)
    if p is None or not 0.0 < size < math.inf:
        return None, 0.0
    p = p / size
    bend = plain.curvature(p)
    return (p, bend) if bend < 0.0 else (None, 0.0)


def leave(
    now: Residuals,
    form: StandardForm,
    p: Array,
    bend: float,
    length: float,
    at: Callable[[Central], Residuals],
) -> tuple[Residuals, float] | None:
    """Go along ±p until the Lagrangian falls as it should; return what it fell by, too."""
    if dot(now.grad, p) > 0.0:
        p = -p
    for side in (p, -p):
        far = reach(now.point.w, -form.along(now.J, side))
        t = 0.5 * far if far < math.inf else length
        for _ in range(_HALVINGS):
            new = at(now.point._replace(y=now.point.y + t * side))
            fall = _lagrangian(now, form) - _lagrangian(new, form)
            if fall >= 0.1 * -bend * t * t:
                return new, fall
            t *= 0.5
    return None


def _lagrangian(now: Residuals, form: StandardForm) -> float:
    point = now.point
    assert now.value is not None
    xp = namespace(point.y)
    sides = xp.where(point.z > 0.0, now.sides, 0.0 * now.sides)
    return now.value / form.unit + dot(point.nu, now.r_e) + dot(point.z, sides)
