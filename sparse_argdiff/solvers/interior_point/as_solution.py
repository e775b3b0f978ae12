"""The end of a run as a solution: in the problem's units, its sides told apart.

active    (z_i / force) / (w_i / length) > 100,     inactive    < 1 / 100
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

from ...arrays import Array, namespace, norm
from ...operators.block_matrices import mask_of
from ...problem.problem import ActiveSet, Problem, Solution
from ...status import Status
from .iterate import Residuals
from .standard_form import StandardForm

_UNDECIDED = 1e2  # a side is active or not when z / w is this far from 1
_NOT_CONVEX = (
    "negative curvature was met where the constraints leave room: the problem is not "
    "convex; start nearer to the minimum that is meant, or add curvature"
)


class Run(Protocol):
    """What is read of a run."""

    problem: Problem
    form: StandardForm
    best: Residuals
    x: Array
    scale: float
    bent: bool
    note: str
    niter: int
    n_hvp: int
    n_grad: int

    def error(self, now: Residuals) -> float:
        """Return the residual of the conditions."""

    def units(self, grad: Array, y: Array) -> tuple[float, float]:
        """Return the force and the length that others are compared with."""


def solution(run: Run, status: Status) -> Solution:
    """Return the best point as a solution."""
    now = run.best
    multipliers = run.form.multipliers(now.point.nu, now.point.z)
    found = record(run, now, multipliers, active(run), status)
    # Of all the conditions, slacks and products w z included, as a force.
    size = run.error(now) * max(run.scale, norm(now.grad))
    return dataclasses.replace(found, residual_norm=size)


def record(
    run: Run,
    now: Residuals,
    multipliers: Array,
    active: ActiveSet,
    status: Status,
) -> Solution:
    """Return a point in the problem's own units."""
    form, problem, xp = run.form, run.problem, namespace(multipliers)
    value = now.value
    if value is not None and problem.maximize:
        value = -value
    left = form.unit * now.r_d
    rows = form.split(now.sides)[0] * form.g_scale
    parts = [
        xp.where(active.fixed, 0.0 * left, left),
        (now.r_e * form.e_scale)[: form.p],
        xp.where(active.strong, rows, 0.0 * rows),
    ]
    residual = xp.concat(parts)
    notes = [run.note]
    if run.bent and not status.acceptable:
        notes.append(_NOT_CONVEX)
    sided = problem.inequalities is not None or problem.bounded
    return Solution(
        y=now.point.y,
        x=run.x,
        value=value,
        multipliers=multipliers,
        active=active if sided else None,
        status=status,
        residual_norm=norm(residual),
        residual=residual,
        niter=run.niter,
        n_hvp=run.n_hvp,
        n_grad=run.n_grad,
        warnings=tuple(note for note in notes if note),
    )


def strength(run: Run) -> Array:
    """Return z / w of all sides, each relative to its unit: > 1 where active."""
    point = run.best.point
    force, length = run.units(run.best.grad, point.y)
    return (point.z / force) / (point.w / length)


def active(run: Run, undecided: float = _UNDECIDED) -> ActiveSet:
    """Classify the sides by z / w, relative to the units of both."""
    form, n = run.form, run.best.point.y.shape[0]
    force = strength(run)
    strong = force > undecided
    weak = ~strong & (force >= 1.0 / undecided)
    at_bound = []
    for marks in (strong, weak):
        _, low, high = form.split(marks)
        lower = mask_of(n, form.at_lower[low])
        at_bound.append(lower | mask_of(n, form.at_upper[high]))
    fixed, weak_fixed = at_bound[0] | mask_of(n, form.fixed), at_bound[1]
    strong, weak = strong[: form.q], weak[: form.q]
    return ActiveSet(strong, weak, ~(strong | weak), fixed, weak_fixed & ~fixed)
