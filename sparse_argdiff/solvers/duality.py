"""The duality gap of f + Ω for a penalty of norms, and the zeros that it proves.

    P − D,   D = − f*(κ u) − ½ κ² Σ v_j y_j² − Σ_{w_j = 0} (κ f_j)² / 2 v_j
    y_j = 0 at every solution where  a_j(κ force) + a_j(‖x_j‖) (2 L gap)^½ < 1

The force of a coefficient with a ridge is that without it: the ridge is a row of the data.
The gap is no better known than to rounding of its terms: max(gap, 4 N ε P) is under the root.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Protocol

from ..arrays import Array, dot, epsilon, namespace
from ..problem.problem import Problem


class DualPoint(Protocol):
    """A feasible direction of the dual of a loss, from ``objective.dual_point(x, y, free)``.

    Attributes
    ----------
    force : array (n,)
        −F'u, zero on what is free.
    lengths : array (n,) or None
        ‖x_j‖ in the metric in which f* is strongly convex with constant one; None where
        it is not.
    terms : int
        N, the number of terms of the sums.
    rounding : array (n,) or None, optional
        By how much rounding may change each force.
    """

    force: Array
    lengths: Array | None
    terms: int

    def conjugate(self, scale: float) -> float:
        """Return f*(scale · u), at most."""


@dataclasses.dataclass(frozen=True)
class Gap:
    """A duality gap.

    Attributes
    ----------
    gap : float
        P − D, at least 0.
    floor : float
        What rounding may hide of it.
    primal : float
        |P| with its terms.
    zero : bool array (n,)
        Coefficients that are zero at every solution.
    unique : bool
        Whether what the gap proves is to the point: it is finite.
    """

    gap: float
    floor: float
    primal: float
    zero: Array
    unique: bool

    def closes(self, tol: float) -> bool:
        """Tell whether the gap is ≤ tol of P, or rounding."""
        return self.gap <= max(tol * self.primal, self.floor)

    @property
    def is_rounding(self) -> bool:
        """Whether the gap is of the size of rounding of its terms, many times over."""
        return self.gap <= 1e3 * self.floor


def duality_gap(problem: Problem, x: Array, y: Array) -> Gap | None:
    """Return the gap at y, None where the dual is not known."""
    penalty = problem.penalty
    dual_point = getattr(problem.objective, "dual_point", None)
    ridge = getattr(penalty, "ridge", None)
    if not (callable(dual_point) and callable(ridge)):
        return None
    if problem.bounded or problem.equalities is not None or problem.maximize:
        return None
    xp, zero = namespace(y), namespace(y).zeros_like(y)
    v = ridge(x, y)
    v = xp.where(xp.isfinite(v), v, zero)
    excluded = ~penalty.support(x, xp.ones_like(y))
    never_held = penalty.support(x, zero)  # of weight zero
    shrunk = never_held & (v > 0.0)
    free = never_held & ~shrunk
    point = dual_point(x, y, free)
    if point is None:
        return None
    unbound = never_held | excluded
    found = _gap_at(problem, x, y, point, v, shrunk, unbound)
    light = _light(penalty, x, y, point) & ~unbound & ~(v > 0.0)
    if not bool(xp.any(light)):
        return found
    point = dual_point(x, y, free | light)
    other = point and _gap_at(problem, x, y, point, v, shrunk, unbound)
    known = [gap for gap in (found, other) if gap is not None]
    if not known:
        return None
    least = min(known, key=lambda gap: gap.gap)
    floor = max(least.floor, 1e-3 * math.sqrt(epsilon(y)) * least.primal)
    return dataclasses.replace(least, floor=floor)


def _gap_at(
    problem: Problem,
    x: Array,
    y: Array,
    point: Any,
    v: Array,
    shrunk: Array,
    unbound: Array,
) -> Gap | None:
    """Return the gap at a dual point, scaled until it is feasible.

    ``unbound``: what no weight bounds the force of, free or excluded.
    """
    penalty, xp, zero = problem.penalty, namespace(y), namespace(y).zeros_like(y)
    force = xp.where(unbound, zero, point.force - v * y)
    used = float(xp.max(penalty.activity(x, zero, force))) if y.shape[0] else 0.0
    scale = 1.0 / max(used, 1.0)
    primal = problem.total(x, y)
    own = xp.where(unbound, zero, v * y)
    of_ridge = 0.5 * scale**2 * dot(own, y)
    pulled = xp.where(shrunk, point.force, zero)
    safe = xp.where(shrunk, v, xp.ones_like(v))
    of_ridge += 0.5 * scale**2 * dot(pulled, pulled / safe)
    conjugate = point.conjugate(scale)
    gap = primal + conjugate + of_ridge
    size = abs(primal) + abs(conjugate)
    floor = 4.0 * point.terms * epsilon(y) * size
    if not math.isfinite(gap):
        return None
    return Gap(
        max(gap, 0.0),
        floor,
        size,
        _zeros(penalty, x, y, scale * force, point.lengths, v, max(gap, floor)),
        point.lengths is not None,
    )


def _light(penalty: Any, x: Array, y: Array, point: Any) -> Array:
    """Return what is held by a weight that rounding of its force hides to half the digits.

    No scale of the dual point meets such a weight; where the force is zero it is met, and
    the gap is larger by the weight times |y_j|.
    """
    zero = namespace(y).zeros_like(y)
    rounding = getattr(point, "rounding", None)
    if rounding is None:
        return zero > 0.0
    return penalty.activity(x, zero, rounding) > math.sqrt(epsilon(y))


def _zeros(
    penalty: Any, x: Array, y: Array, force: Array, lengths: Any, v: Array, gap: float
) -> Array:
    """Return what the sphere around the dual point leaves at zero."""
    xp, zero = namespace(y), namespace(y).zeros_like(y)
    excluded = ~penalty.support(x, xp.ones_like(y))
    if lengths is None:
        return excluded
    radius = math.sqrt(2.0 * gap)
    reach = radius * xp.sqrt(lengths * lengths + v)
    free = penalty.support(x, zero)
    bound = penalty.activity(x, zero, force) + penalty.activity(x, zero, reach)
    return ((bound < 1.0) & ~free) | excluded
