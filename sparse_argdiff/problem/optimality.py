"""Residuals of the optimality conditions at a point, and the active constraints.

    f_Y + h_Y' ν + J' λ − z = 0,   h = 0,   g <= 0,   λ >= 0,   λ_i g_i = 0

with ν of the equality rows h, λ of the inequality rows g (Jacobian J) and z of the bounds.
The measures do not depend on units: a slack is a distance in y relative to the size of y,
a multiplier a force relative to ‖f_Y‖.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, sparse
from scipy.sparse import linalg

from ..arrays import Array, full, is_array, is_sparse, namespace, norm, zeros
from ..krylov.null_space import null_space_of
from ..operators.block_matrices import (
    is_factorable,
    scatter,
    squares,
    take_columns,
    take_rows,
    vstack,
)
from ..operators.linear_operator import aslinearoperator
from ..status import Status
from .problem import ActiveSet, Problem, Solution

ACTIVE_TOL = 1e-6


@dataclasses.dataclass(frozen=True)
class Conditions:
    """The optimality conditions at a point, for given multipliers.

    Attributes
    ----------
    grad : array (n,)
        The gradient f_Y of the function that is minimised.
    lagrangian_grad : array (n,)
        f_Y + h_Y' ν + J' λ, zero on free variables, a force at a bound.
    equality, inequality : array (p,), (q,)
        Values of the rows.
    stationarity : float
        ‖lagrangian_grad‖ over the variables that no bound holds.
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
    none = zeros((0,), y)
    h = none if problem.equalities is None else problem.equalities.value(x, y)
    g = none if problem.inequalities is None else problem.inequalities.value(x, y)
    return h, g


def row_norms(jac: Any, like: Array) -> Array:
    """Return ‖∇h_i‖ of each row of a matrix; 1 for zero rows, and for an operator."""
    xp = namespace(like)
    if is_sparse(jac):
        lengths = squares(jac) @ full((jac.shape[1],), 1.0, like)
    elif is_array(jac):
        lengths = xp.sum(squares(jac), axis=1)
    else:
        return full((jac.shape[0],), 1.0, like)
    return xp.where(lengths > 0.0, xp.sqrt(lengths), 1.0)


def size_of(y: Array) -> float:
    """Return the largest |y_i|, or 1: the length that slacks are compared with."""
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
    p, rows = h.shape[0], h.shape[0] + g.shape[0]
    if multipliers is not None and multipliers.shape[0] != rows:
        raise ValueError(
            f"multipliers must have shape ({rows},), of the equality rows and then of "
            f"the inequality rows, found shape {tuple(multipliers.shape)}"
        )
    total, violation, mismatch = grad, 0.0, 0.0
    if p:
        assert problem.equalities is not None
        jac = problem.equalities.jac(x, y)
        violation = _largest(xp.abs(h) / row_norms(jac, y))
        if multipliers is not None:
            total = total + aslinearoperator(jac).T @ multipliers[:p]
    if g.shape[0]:
        assert problem.inequalities is not None
        jac = problem.inequalities.jac(x, y)
        sizes = row_norms(jac, y)
        slack = -g / sizes
        violation = _worst(violation, _largest(-slack))
        if multipliers is not None:
            force = multipliers[p:] * sizes
            total = total + aslinearoperator(jac).T @ multipliers[p:]
            wrong = _largest(-force)
            mismatch = _worst(
                wrong, _largest(xp.abs(force) * xp.maximum(slack, 0.0)) / size_of(y)
            )
    free = total
    if problem.bounded:
        lower, upper = problem.bounds(y)
        violation = _worst(violation, _largest(lower - y), _largest(y - upper))
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


def classify(problem: Problem, x: Array, y: Array, multipliers: Array) -> ActiveSet:
    """Return which inequality rows and bounds are strongly, weakly or not active.

    A row is strongly active where the force, relative to the largest, exceeds the slack,
    relative to the size of y; a row with both below ``ACTIVE_TOL`` is weakly active.
    """
    xp = namespace(y)
    found = conditions(problem, x, y, multipliers)
    p, length = found.equality.shape[0], size_of(y)
    far = scale_of(problem, x, y)
    scale = max(norm(found.grad), far if math.isfinite(far) else 0.0) or 1.0
    force = slack = zeros((0,), y)
    if found.inequality.shape[0]:
        assert problem.inequalities is not None
        sizes = row_norms(problem.inequalities.jac(x, y), y)
        force = multipliers[p:] * sizes / scale
        slack = -found.inequality / sizes / length
    strong, weak = _strong(force, slack), _weak(force, slack)
    fixed = weak_fixed = zeros(y.shape, y, xp.bool)
    if problem.bounded:
        lower, upper = problem.bounds(y)
        pull = found.lagrangian_grad / scale
        for gap, sign in (((y - lower) / length, 1.0), ((upper - y) / length, -1.0)):
            fixed = fixed | _strong(sign * pull, gap)
            weak_fixed = weak_fixed | _weak(sign * pull, gap)
        fixed = fixed | (lower == upper)
        weak_fixed = weak_fixed & ~fixed
    return ActiveSet(strong, weak, fixed, weak_fixed)


def _strong(force: Array, slack: Array) -> Array:
    return (force > ACTIVE_TOL) & (force > slack)


def _weak(force: Array, slack: Array) -> Array:
    return (force <= ACTIVE_TOL) & (slack <= ACTIVE_TOL)


def _largest(values: Array) -> float:
    """Return the largest value, 0 where none is positive; NaN where there is one."""
    return max(float(namespace(values).max(values)), 0.0) if values.shape[0] else 0.0


def _worst(*sizes: float) -> float:
    """Return the largest; NaN where there is one, which ``max`` may lose."""
    return math.nan if any(map(math.isnan, sizes)) else max(sizes)


def scale_of(problem: Problem, x: Array, y: Array) -> float:
    """Return the objective's own ``scale(x)``, or ‖f_Y(x, 0)‖."""
    scale = getattr(problem.objective, "scale", None)
    return float(scale(x)) if callable(scale) else norm(problem.grad(x, 0.0 * y))


def residual(problem: Problem, solution: Solution) -> tuple[Array, int]:
    """Return the residual of the conditions, (n + p + q,), and the gradients spent.

    That is the gradient of the Lagrangian, zero where a bound holds, then the rows, zero
    where inactive.  K⁻¹ residual is the error to first order.
    """
    if solution.residual is not None:
        return solution.residual, 0
    if not problem.constrained:
        return problem.grad(solution.x, solution.y), 1
    solution = complete(problem, solution)
    found = conditions(problem, solution.x, solution.y, solution.multipliers)
    xp = namespace(solution.y)
    parts, rows = [found.lagrangian_grad, found.equality], found.inequality
    if solution.active is not None:
        parts[0] = xp.where(solution.active.fixed, 0.0 * parts[0], parts[0])
        rows = xp.where(solution.active.strong, rows, 0.0 * rows)
    return xp.concat([*parts, rows]), 1


def residual_scale(problem: Problem, x: Array, y: Array) -> tuple[float, int]:
    """Return the size of the terms that cancel at a solution, and the products spent.

    Tolerances of a lower-level solve are relative to this scale, which has the units of f:
    ‖f_Y(x, 0)‖, or the objective's own ``scale(x)``.  Where that is zero or not finite
    (y = 0 is stationary, or outside the domain), ‖f_YY y‖, for one Hessian product.
    """
    scale = scale_of(problem, x, y)
    if scale > 0.0 and math.isfinite(scale):
        return scale, 0
    return norm(problem.hess(x, y).matvec(y)), 1


def lagrangian_hess(
    problem: Problem, x: Array, y: Array, multipliers: Array, p: int
) -> Any:
    """Return f_YY + Σ ν_i ∇²h_i of the function that is minimised, as explicit as its parts.

    A sparse matrix where all parts are matrices on the host, else an operator; the first
    p multipliers are those of the equality rows.
    """
    given = problem.objective.hess(x, y)
    terms: list[Any] = []
    for rows, part in (
        (problem.equalities, multipliers[:p]),
        (problem.inequalities, multipliers[p:]),
    ):
        if rows is not None:
            terms += rows.terms("hess", x, y, part, y.shape[0])
    if is_factorable(y, given, *terms):
        total = sparse.csr_array(given) * (-1.0 if problem.maximize else 1.0)
        for term in terms:
            total = total + sparse.csr_array(term)
        return total
    H = aslinearoperator(given)
    H = -H if problem.maximize else H
    for term in terms:
        H = H + aslinearoperator(term)
    return H


def complete(problem: Problem, solution: Solution) -> Solution:
    """Return the solution with multipliers, fitted by least squares, and active set."""
    if not problem.constrained:
        return solution
    x, y, multipliers = solution.x, solution.y, solution.multipliers
    if multipliers is None:
        multipliers = _recover(problem, x, y)
    active = solution.active
    if active is None and (problem.inequalities is not None or problem.bounded):
        active = classify(problem, x, y, multipliers)
    return dataclasses.replace(solution, multipliers=multipliers, active=active)


def _recover(problem: Problem, x: Array, y: Array) -> Array:
    """Fit f_Y + C' ν = 0 over the rows at zero and the variables at no bound."""
    xp = namespace(y)
    h, g = split(problem, x, y)
    near = ACTIVE_TOL * size_of(y)
    at_zero = [full(h.shape, True, y, xp.bool)]
    jacobians: list[Any] = []
    if problem.equalities is not None:
        jacobians.append(problem.equalities.jac(x, y))
    if problem.inequalities is not None:
        jac = problem.inequalities.jac(x, y)
        jacobians.append(jac)
        at_zero.append(g / row_norms(jac, y) >= -near)
    candidates = xp.concat(at_zero)
    (index,) = xp.nonzero(candidates)
    if index.shape[0] == 0:
        return xp.zeros_like(xp.concat([h, g]))
    C, force = take_rows(vstack(jacobians), index), -problem.grad(x, y)
    if problem.bounded:
        lower, upper = problem.bounds(y)
        (free,) = xp.nonzero((y - lower > near) & (upper - y > near))
        C, force = take_columns(C, free), xp.take(force, free)
    fitted = null_space_of(C).multipliers(force)
    signed = index >= h.shape[0]
    if bool(xp.any(fitted[signed] < 0.0)):
        fitted = _fit_signed(C, force, signed)
    if index.shape[0] == candidates.shape[0]:
        return fitted
    return scatter(candidates.shape[0], index)(fitted)


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


class StationarityCheck(NamedTuple):
    """How well a point meets the optimality conditions."""

    solution: Solution  # with multipliers and active set
    status: Status  # CONVERGED, NOT_STATIONARY or NOT_FINITE
    detail: str
    residual_norm: float
    n_hvp: int


def check_conditions(
    problem: Problem, solution: Solution, tolerance: float, name: str
) -> StationarityCheck:
    """Check the optimality conditions at a solution without a status; two gradients.

    Each error is compared with ``tolerance``, called ``name``, times its scale.
    """
    x, y = solution.x, solution.y
    n = getattr(problem.objective, "n", None)
    if n is not None and n != y.shape[0]:
        raise ValueError(f"solution.y must have shape ({n},), found {tuple(y.shape)}")
    solution = complete(problem, solution)
    found = conditions(problem, x, y, solution.multipliers)
    scale, n_hvp = residual_scale(problem, x, y)
    what = "‖f_Y(x, y)‖"
    if problem.constrained:
        scale = max(scale, norm(found.grad))
        what = "the gradient of the Lagrangian"
    wrong = [
        f"{label} = {size:.2e} is {size / unit if unit else math.inf:.1e} of its scale, "
        f"above {name} = {tolerance:.0e}."
        for label, size, unit in (
            (what, found.stationarity, scale),
            ("the violation of a constraint", found.infeasibility, size_of(y)),
            ("the violation of complementarity", found.complementarity, scale),
        )
        if size > tolerance * unit
    ]
    status = Status.NOT_STATIONARY if wrong else Status.CONVERGED
    detail = " ".join(wrong)
    total = found.stationarity + found.infeasibility + found.complementarity
    if not math.isfinite(total):
        status, detail = Status.NOT_FINITE, "f_Y or a constraint is not finite."
    return StationarityCheck(solution, status, detail, found.stationarity, n_hvp)
