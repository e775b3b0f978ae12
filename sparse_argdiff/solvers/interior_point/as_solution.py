"""The conversion of an interior-point iterate to a Solution, and its active set.

active    (z_i / force) / (w_i / length) > 100,     inactive    < 1 / 100
"""

from __future__ import annotations

from ...arrays import Array, namespace, norm
from ...operators.block_matrices import mask_of
from ...problem.problem import ActiveSet, Solution
from ...status import Status
from .iterate import Residuals

_UNDECIDED = (
    1e2  # a row is active or not when its complementarity ratio is this far from 1
)


def to_solution(
    now: Residuals,
    status: Status,
    active: ActiveSet | None = None,
    multipliers: Array | None = None,
) -> Solution:
    """Return an iterate as a solution.

    By default with the multipliers of the iterate, the active set by the complementarity
    ratios, and the error of all conditions, slacks and products w z included.
    """
    form, problem = now.form, now.form.problem
    size = None
    if active is None or multipliers is None:
        multipliers = form.multipliers(now.point.nu, now.point.z)
        active = active_set_of(now)
        size = now.error * now.scales[0] * form.unit
    xp = namespace(multipliers)
    force = now.form.unit * now.r_d
    rows = form.split(now.inequality_values)[0] * form.g_scale
    residual = xp.concat(
        [
            xp.where(active.fixed, 0.0 * force, force),
            (now.r_e * form.e_scale)[: form.p],
            xp.where(active.strong, rows, 0.0 * rows),
        ]
    )
    with_inequalities = problem.inequalities is not None or problem.bounded
    return Solution(
        y=now.point.y,
        x=form.x,
        value=now.value,
        multipliers=multipliers,
        active=active if with_inequalities else None,
        status=status,
        residual_norm=norm(residual) if size is None else size,
        residual=residual,
    )


def complementarity_ratio(now: Residuals) -> Array:
    """Return z / w of all inequalities, each relative to its unit: > 1 where active."""
    force, length = now.scales
    return (now.point.z / force) / (now.point.w / length)


def strong_and_weak(now: Residuals) -> tuple[Array, Array]:
    """Return which inequalities are strongly, and which are weakly active."""
    ratio = complementarity_ratio(now)
    strong = ratio > _UNDECIDED
    return strong, ~strong & (ratio >= 1.0 / _UNDECIDED)


def active_set_of(now: Residuals) -> ActiveSet:
    """Classify the inequalities by their complementarity ratios."""
    form, n = now.form, now.point.y.shape[0]
    strong, weak = strong_and_weak(now)
    at_bound = []
    for marks in (strong, weak):
        _, low, high = form.split(marks)
        lower = mask_of(n, form.at_lower[low])
        at_bound.append(lower | mask_of(n, form.at_upper[high]))
    fixed, weak_fixed = at_bound[0] | mask_of(n, form.fixed), at_bound[1]
    strong, weak = strong[: form.q], weak[: form.q]
    return ActiveSet(strong, weak, fixed, weak_fixed & ~fixed)
