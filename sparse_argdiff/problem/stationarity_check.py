"""Whether a point of which nothing is known meets the optimality conditions.

It is judged by the length of the Newton step that is left, and by violations of rows and
of signs, as lengths in the metric of the Hessian's diagonal: ‖error‖ ≤ tolerance · ‖y‖.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

from ..arrays import Array, full, namespace, norm, zeros
from ..krylov.saddle_point import SaddlePoint
from ..operators.block_matrices import (
    diagonal_operator,
    principal,
    take_columns,
    take_rows,
    vstack,
)
from ..operators.linear_operator import LinearOperator, aslinearoperator
from ..status import Status
from .active_constraints import classify_in, forces_and_slacks, largest
from .metric import Metric, metric_of
from .multipliers import recovered_multipliers
from .optimality import (
    Conditions,
    check_masks,
    check_size,
    conditions,
    lagrangian_hess,
    residual_of,
)
from .problem import ActiveSet, Problem, Solution

_STEPS = 50  # of the loose linear solve that judges a point


class StationarityCheck(NamedTuple):
    """How well a point meets the optimality conditions."""

    solution: Solution  # with multipliers, active set and relative error
    status: Status  # CONVERGED, NOT_STATIONARY or NOT_FINITE
    detail: str
    residual_norm: float
    n_hvp: int


def check_conditions(
    problem: Problem, solution: Solution, tolerance: float, name: str
) -> StationarityCheck:
    """Check the optimality conditions at a solution of which nothing is known.

    Costs two gradients and the products of a loose linear solve.  The Newton step,
    violations and forces of the wrong sign, as lengths, are compared with ``tolerance``,
    called ``name``, times ‖y‖.
    """
    x, y, multipliers = solution.x, solution.y, solution.multipliers
    check_size(problem, y)
    if multipliers is None and problem.constrained:
        multipliers = recovered_multipliers(problem, x, y)
    found = conditions(problem, x, y, multipliers)
    if multipliers is None:
        multipliers = zeros((0,), y)
    check_masks(solution.active, y.shape, found.inequality.shape)
    _refuse_fixed_without_bounds(problem, solution.active)
    H = lagrangian_hess(problem, x, y, multipliers, found.multipliers_of)
    metric, n_hvp = metric_of(H, y, found.grad)
    active = None
    if problem.one_sided:
        active = classify_in(problem, x, y, found, multipliers, metric)
        if solution.active is not None:
            active = _with_weak(solution.active, active)
    if problem.constrained:
        solution = dataclasses.replace(solution, multipliers=multipliers, active=active)
    free = residual_of(found, active)[: y.shape[0]]
    size = norm(free)
    if not math.isfinite(size + norm(found.equality) + norm(found.inequality)):
        detail = "f_Y or a constraint is not finite."
        return StationarityCheck(solution, Status.NOT_FINITE, detail, size, n_hvp)
    step, products = _newton_step(H, found, free, active, metric)
    length = metric.length(y)
    lengths = {"the Newton step that is left": step}
    if problem.constrained:
        lengths |= _violations(problem, x, y, found, multipliers, active, metric)
    n_hvp += products
    if math.isnan(sum(lengths.values())) or not math.isfinite(length):
        detail = "f_YY or the Jacobian of a constraint is not finite."
        return StationarityCheck(solution, Status.NOT_FINITE, detail, size, n_hvp)
    wrong = [
        f"{label} is {error / length if length else math.inf:.1e} of the size of y, above "
        f"{name} = {tolerance:.0e}."
        for label, error in lengths.items()
        if error > tolerance * length
    ]
    status = Status.NOT_STATIONARY if wrong else Status.CONVERGED
    relative = max(lengths.values()) / length if length else 0.0
    if status is Status.CONVERGED:
        solution = dataclasses.replace(solution, relative_error=relative)
    return StationarityCheck(solution, status, " ".join(wrong), size, n_hvp)


def _refuse_fixed_without_bounds(problem: Problem, active: ActiveSet | None) -> None:
    """Refuse variables that an active set fixes where nothing can hold them."""
    if active is None or problem.bounded or problem.penalty is not None:
        return
    count = int(namespace(active.fixed).sum(active.fixed))
    if count:
        raise ValueError(
            f"solution.active.fixed marks {count} variables, and the problem has neither "
            "bounds nor a penalty that could hold them"
        )


def _with_weak(given: ActiveSet, found: ActiveSet) -> ActiveSet:
    """Return a given active set, with what was found to be weak marked so."""
    return dataclasses.replace(
        given,
        weak=given.weak | found.weak,
        weak_fixed=given.weak_fixed | found.weak_fixed,
    )


def _violations(
    problem: Problem,
    x: Array,
    y: Array,
    found: Conditions,
    multipliers: Array,
    active: ActiveSet | None,
    metric: Metric,
) -> dict[str, float]:
    """Return by how much constraints and signs of forces are violated, as lengths."""
    xp, violation, mismatch = namespace(y), 0.0, 0.0
    if found.equality.shape[0]:
        sizes = metric.row_norms(found.jacobians[0])
        violation = largest(xp.abs(found.equality) / sizes)
    sides = forces_and_slacks(problem, x, y, found, multipliers, metric)
    for force, slack in sides:
        violation = max(violation, largest(-slack))
        mismatch = max(mismatch, largest(xp.minimum(force, slack)))
    if active is not None and found.inequality.shape[0]:
        force, slack = sides.pop(0)
        mismatch = max(mismatch, largest(-force))  # at a bound the other may pull
        mismatch = max(mismatch, largest(xp.where(active.strong, slack, force)))
    on_bounds = None if active is None else active.fixed
    if found.kinks is not None and on_bounds is not None:
        mismatch = max(mismatch, norm(found.kinks.excess(metric)))
        on_bounds = on_bounds & ~found.kinks.held
    if on_bounds is not None and problem.bounded:
        apart = full(y.shape, math.inf, y)
        for side in sides:
            apart = xp.minimum(apart, side.slack)
        mismatch = max(mismatch, largest(apart[on_bounds]))
    return {
        "the violation of a constraint": violation,
        "the violation of complementarity": mismatch,
    }


def _newton_step(
    H: Any, found: Conditions, free: Array, active: ActiveSet | None, metric: Metric
) -> tuple[float, int]:
    """Return the length of the Newton step with the active set held, and its products.

    Without a step, for a singular matrix, it is that of the diagonal.
    """
    plain = norm(metric.forces(free))
    if plain == 0.0:
        return 0.0, 0
    xp, inverse = namespace(free), 1.0 / metric.root
    rows, values = [], []
    E, J = found.jacobians
    if E is not None:
        rows.append(E)
        values.append(found.equality)
    if J is not None and active is not None:
        (index,) = xp.nonzero(active.strong)
        rows.append(take_rows(J, index))
        values.append(xp.take(found.inequality, index))
    (index,) = (
        xp.nonzero(~active.fixed) if active is not None else xp.nonzero(inverse > 0.0)
    )
    scale = diagonal_operator(xp.take(inverse, index))
    reduced = scale @ principal(aslinearoperator(H), index) @ scale
    reduced = LinearOperator(
        reduced.shape, reduced.matvec, reduced.matvec, dtype=free.dtype, symmetric=True
    )
    C = None
    if rows:
        C = take_columns(metric.covariant(vstack(rows)), index)
    force = -xp.take(metric.forces(free), index)
    system = SaddlePoint(reduced, C)
    step = system.solve(
        xp.concat([force, *(-value for value in values)]), rtol=0.1, maxiter=_STEPS
    )
    size = norm(step.x[: force.shape[0]])
    return (max(plain, size) if math.isfinite(size) else plain), step.n_matvec
