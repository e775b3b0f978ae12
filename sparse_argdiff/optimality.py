"""How far a point is from optimal, and which of its constraints are active.

    f_Y + h_Y' ν + J' λ − z = 0,   h = 0,   g <= 0,   λ >= 0,   λ_i g_i = 0

with ν of the equality rows h, λ of the inequality rows g (Jacobian J) and z of the bounds.
Everything is measured in the problem's own units: a slack as a distance in y relative to
the size of y, a multiplier as a force relative to ‖f_Y‖.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from scipy import sparse

from .arrays import Array, is_array, namespace, norm
from .linear_operator import aslinearoperator
from .problem import ActiveSet, Problem

ACTIVE_TOL = 1e-6


@dataclasses.dataclass(frozen=True)
class Conditions:
    """The optimality conditions at a point, for given multipliers.

    Attributes
    ----------
    grad : array (n,)
        f_Y of the function that is minimised.
    lagrangian_grad : array (n,)
        f_Y + h_Y' ν + J' λ: zero on free variables, a force at a bound.
    equality, inequality : array (p,), (q,)
        Values of the rows.
    stationarity : float
        ‖lagrangian_grad‖ over the variables that no bound holds in its direction.
    infeasibility : float
        Largest violation of a row or a bound, as a distance in y: |h_i| / ‖∇h_i‖.
    complementarity : float
        Largest force λ_i ‖∇g_i‖ of the wrong sign, or force times slack over ‖y‖.
    """

    grad: Array
    lagrangian_grad: Array
    equality: Array
    inequality: Array
    stationarity: float
    infeasibility: float
    complementarity: float


def split(problem: Problem, x: Array, y: Array) -> tuple[Array, Array]:
    """Return the values of the equality rows (p,) and the inequality rows (q,)."""
    xp = namespace(y)
    none = xp.zeros((0,), dtype=y.dtype, device=y.device)
    h = none if problem.equalities is None else problem.equalities.value(x, y)
    g = none if problem.inequalities is None else problem.inequalities.value(x, y)
    return h, g


def row_norms(jac: Any) -> Array:
    """Return ‖∇h_i‖ of each row of a matrix; 1 for an operator, whose rows are unknown.

    A zero row has norm 1: its value is then measured as it is.
    """
    if sparse.issparse(jac):
        squares = sparse.csr_array(jac).power(2).sum(axis=1)
        xp: Any = namespace(squares)
    elif is_array(jac):
        xp = namespace(jac)
        squares = xp.sum(jac * jac, axis=1)
    else:
        return np.ones(jac.shape[0])
    return xp.where(squares > 0.0, xp.sqrt(squares), 1.0)


def size_of(y: Array) -> float:
    """Return the length that slacks are compared with: the largest |y_i|, or 1."""
    xp = namespace(y)
    largest = float(xp.max(xp.abs(y))) if y.shape[0] else 0.0
    return largest if largest > 0.0 else 1.0


def conditions(
    problem: Problem, x: Array, y: Array, multipliers: Array | None
) -> Conditions:
    """Evaluate the optimality conditions at (x, y); costs one gradient."""
    xp = namespace(y)
    grad = problem.grad(x, y)
    h, g = split(problem, x, y)
    p = h.shape[0]
    total, violation, mismatch = grad, 0.0, 0.0
    if p:
        assert problem.equalities is not None
        jac = problem.equalities.jac(x, y)
        violation = _largest(xp.abs(h) / row_norms(jac))
        if multipliers is not None:
            total = total + aslinearoperator(jac).T @ multipliers[:p]
    if g.shape[0]:
        assert problem.inequalities is not None
        jac = problem.inequalities.jac(x, y)
        sizes = row_norms(jac)
        slack = -g / sizes
        violation = max(violation, _largest(-slack))
        if multipliers is not None:
            force = multipliers[p:] * sizes
            total = total + aslinearoperator(jac).T @ multipliers[p:]
            wrong = _largest(-force)
            mismatch = max(
                wrong, _largest(xp.abs(force) * xp.maximum(slack, 0.0)) / size_of(y)
            )
    free = total
    if problem.bounded:
        lower, upper = problem.bounds(y)
        violation = max(violation, _largest(lower - y), _largest(y - upper))
        near = ACTIVE_TOL * size_of(y)
        held = ((y - lower <= near) & (total > 0.0)) | (
            (upper - y <= near) & (total < 0.0)
        )
        free = xp.where(held, xp.zeros_like(total), total)
    return Conditions(
        grad=grad,
        lagrangian_grad=total,
        equality=h,
        inequality=g,
        stationarity=norm(free),
        infeasibility=violation,
        complementarity=mismatch,
    )


def classify(
    problem: Problem,
    x: Array,
    y: Array,
    multipliers: Array,
    *,
    tol: float = ACTIVE_TOL,
) -> ActiveSet:
    """Return which inequality rows and bounds are strongly, weakly or not active.

    A row is active where its force, relative to the largest, exceeds its slack, relative
    to the size of y; where both are below ``tol`` it is weakly active.
    """
    xp = namespace(y)
    found = conditions(problem, x, y, multipliers)
    p, length = found.equality.shape[0], size_of(y)
    scale = max(norm(found.grad), math.ulp(0.0))
    none = xp.zeros((0,), dtype=y.dtype, device=y.device)
    force, slack = none, none
    if found.inequality.shape[0]:
        assert problem.inequalities is not None
        sizes = row_norms(problem.inequalities.jac(x, y))
        force = multipliers[p:] * sizes / scale
        slack = -found.inequality / sizes / length
    strong, weak = _strong(force, slack, tol), _weak(force, slack, tol)
    fixed = weak_fixed = xp.zeros(y.shape, dtype=xp.bool, device=y.device)
    if problem.bounded:
        lower, upper = problem.bounds(y)
        pull = found.lagrangian_grad / scale
        for side, sign in (((y - lower) / length, 1.0), ((upper - y) / length, -1.0)):
            fixed = fixed | _strong(sign * pull, side, tol)
            weak_fixed = weak_fixed | _weak(sign * pull, side, tol)
        fixed = fixed | (lower == upper)
        weak_fixed = weak_fixed & ~fixed
    return ActiveSet(strong, weak, ~(strong | weak), fixed, weak_fixed)


def _strong(force: Array, slack: Array, tol: float) -> Array:
    return (force > tol) & (force > slack)


def _weak(force: Array, slack: Array, tol: float) -> Array:
    return (force <= tol) & (slack <= tol)


def _largest(values: Array) -> float:
    """Return the largest value, 0 where none is positive; NaN where there is one."""
    if values.shape[0] == 0:
        return 0.0
    largest = float(namespace(values).max(values))
    return max(largest, 0.0)
