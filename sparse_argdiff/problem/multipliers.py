"""The multipliers and the active set of a solution that came without them.

    f_Y + C' ν = 0        C: the equality rows, and the inequality rows at zero, with ν >= 0

over the variables at no bound, by least squares in the metric of the Hessian's diagonal.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from scipy import optimize, sparse
from scipy.sparse import linalg

from ..arrays import Array, epsilon, full, is_array, namespace, norm, zeros
from ..krylov.null_space import null_space_of
from ..operators.block_matrices import (
    is_explicit,
    scatter,
    take_columns,
    take_rows,
    vstack,
)
from ..operators.linear_operator import aslinearoperator
from .active_constraints import classify
from .metric import metric_of
from .optimality import ACTIVE_TOL, row_norms, split
from .problem import Problem, Solution
from .signed_multipliers import signed_multipliers


def complete(problem: Problem, solution: Solution) -> Solution:
    """Return the solution with multipliers, fitted by least squares, and active set."""
    if not problem.constrained:
        return solution
    x, y, multipliers = solution.x, solution.y, solution.multipliers
    if multipliers is None:
        multipliers = recovered_multipliers(problem, x, y)
    active = solution.active
    if active is None and problem.one_sided:
        active = classify(problem, x, y, multipliers)
    return dataclasses.replace(solution, multipliers=multipliers, active=active)


def recovered_multipliers(problem: Problem, x: Array, y: Array) -> Array:
    """Fit f_Y + C' ν = 0 over the rows at zero and the variables at no bound."""
    if problem.equalities is None and problem.inequalities is None:
        return zeros((0,), y)
    xp, grad = namespace(y), problem.grad(x, y)
    if problem.nonsmooth:
        grad = grad + problem.penalty.grad(x, y)
    h, g = split(problem, x, y)
    metric, _ = metric_of(problem.hess(x, y), y, grad)
    near = ACTIVE_TOL * metric.length(y)
    at_zero = [full(h.shape, True, y, xp.bool)]
    jacobians: list[Any] = []
    if problem.equalities is not None:
        jacobians.append(problem.equalities.jac(x, y))
    if problem.inequalities is not None:
        jac = problem.inequalities.jac(x, y)
        jacobians.append(jac)
        at_zero.append(g / metric.row_norms(jac) >= -near)
    candidates = xp.concat(at_zero)
    (index,) = xp.nonzero(candidates)
    if index.shape[0] == 0:
        return xp.zeros_like(xp.concat([h, g]))
    C = metric.covariant(take_rows(vstack(jacobians), index))
    force = metric.forces(-grad)
    low = high = full(y.shape, False, y, xp.bool)
    if problem.bounded:
        lower, upper = problem.bounds(x, y)
        low = metric.root * (y - lower) <= near
        high = metric.root * (upper - y) <= near
    if problem.nonsmooth:  # off the support any force may be
        held = ~problem.penalty.support(x, y)
        low, high = low | held, high | held
    signed = index >= h.shape[0]
    # Rounding of a force that is zero has a sign, and is none.
    rounding = epsilon(y) ** (2 / 3) * metric.length(y)
    fitted = _fitted(C, force, signed, (low, high), rounding)
    fitted = xp.where(signed & (fitted < 0.0), 0.0 * fitted, fitted)
    if index.shape[0] == candidates.shape[0]:
        return fitted
    return scatter(candidates.shape[0], index)(fitted)


def _fitted(
    C: Any,
    force: Array,
    signed: Array,
    bounds: tuple[Array, Array],
    rounding: float,
) -> Array:
    """Return ν with C' ν = force but for the pulls of bounds, with all signs.

    By least squares over the variables at no bound, where that is the only one, or all of
    its forces are clear; else those that are positive together.
    """
    xp, (low, high) = namespace(force), bounds
    (free,) = xp.nonzero(~(low | high))
    part, pulled = take_columns(C, free), xp.take(force, free)
    rows = null_space_of(part)
    fitted = rows.multipliers(pulled)
    pulls = (fitted * row_norms(part, force[: part.shape[1]]))[signed]
    left = aslinearoperator(C).T @ fitted - force
    right = not bool(xp.any(pulls < -rounding))
    right = right and not bool(xp.any(low & ~high & (left < -rounding)))
    right = right and not bool(xp.any(high & ~low & (left > rounding)))
    only = rows.rank == rows.shape[0] or not bool(xp.any(signed))
    clear = not bool(xp.any(pulls <= rounding))
    if right and (only or clear or norm(force) <= rounding):
        return fitted
    if isinstance(force, np.ndarray) and is_explicit(C):
        found = signed_multipliers(
            C, np.asarray(signed), -force, np.asarray(low), np.asarray(high)
        )
        return found.astype(force.dtype)
    return fitted if right else _fit_signed(part, pulled, signed)


def _fit_signed(C: Any, force: Array, signed: Any) -> Array:
    """Return argmin ‖C' ν − force‖ with the signed ν >= 0, on the host."""
    bounds = np.where(signed, 0.0, -np.inf), np.full(signed.shape[0], np.inf)
    if sparse.issparse(C):
        transposed: Any = sparse.csr_array(C.T)
    elif is_array(C):
        transposed = np.asarray(C).T
    else:
        C = aslinearoperator(C)
        transposed = linalg.LinearOperator(
            C.shape[::-1], matvec=C.rmatvec, rmatvec=C.matvec, dtype=force.dtype
        )
    return optimize.lsq_linear(transposed, force, bounds, tol=1e-12).x
