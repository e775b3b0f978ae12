"""The optimality conditions at a point: their terms, and what is left of them.

    f_Y + h_Y' ν + J' λ − z = 0,   h = 0,   g <= 0,   λ >= 0,   λ_i g_i = 0

with ν of the equality rows h, λ of the inequality rows g (Jacobian J) and z of the bounds.
``is_as_left`` tells whether they are still what a solution says of them.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from scipy import sparse

from ..arrays import (
    Array,
    check_shape,
    epsilon,
    full,
    is_array,
    namespace,
    norm,
    zeros,
)
from ..operators.block_matrices import (
    is_explicit,
    is_factorable,
    transposed_product,
)
from ..operators.linear_operator import aslinearoperator
from .kinks import Kinks, kinks
from .metric import Metric
from .problem import ActiveSet, Problem, Solution

ACTIVE_TOL = 1e-6


@dataclasses.dataclass(frozen=True)
class Conditions:
    """The terms of the optimality conditions at a point, for given multipliers.

    Attributes
    ----------
    grad : array (n,)
        The gradient f_Y of the function that is minimised.
    lagrangian_grad : array (n,)
        f_Y + h_Y' ν + J' λ, zero on free variables, a force at a bound.
    equality, inequality : array (p,), (q,)
        Values of the rows.
    jacobians : tuple
        h_Y and J, None without rows.
    kinks : Kinks or None
        Of a penalty, whose gradient on the support is part of ``lagrangian_grad``.
    """

    grad: Array
    lagrangian_grad: Array
    equality: Array
    inequality: Array
    jacobians: tuple[Any, Any]
    kinks: Kinks | None = None

    @property
    def multipliers_of(self) -> int:
        """p, the equality rows, whose multipliers come first."""
        return int(self.equality.shape[0])


def split(problem: Problem, x: Array, y: Array) -> tuple[Array, Array]:
    """Return the values of the equality rows (p,) and the inequality rows (q,)."""
    none = zeros((0,), y)
    h = none if problem.equalities is None else problem.equalities.value(x, y)
    g = none if problem.inequalities is None else problem.inequalities.value(x, y)
    return h, g


def row_norms(jac: Any, like: Array) -> Array:
    """Return ‖∇h_i‖₂ of each row; 1 for zero rows, of an operator an estimate."""
    return Metric(full(jac.shape[1:], 1.0, like)).row_norms(jac)


def size_of(y: Array) -> float:
    """Return the largest |y_i|, or 1: the length that slacks are compared with."""
    xp = namespace(y)
    largest = float(xp.max(xp.abs(y))) if y.shape[0] else 0.0
    return largest if largest > 0.0 else 1.0


def conditions(
    problem: Problem, x: Array, y: Array, multipliers: Array | None
) -> Conditions:
    """Evaluate the optimality conditions at (x, y); costs one gradient."""
    total = grad = problem.grad(x, y)
    h, g = split(problem, x, y)
    p, rows = h.shape[0], h.shape[0] + g.shape[0]
    if multipliers is not None and multipliers.shape[0] != rows:
        raise ValueError(
            f"multipliers must have shape ({rows},), of the equality rows and then of "
            f"the inequality rows, found shape {tuple(multipliers.shape)}"
        )
    jacobians = []
    for stack, part in (
        (problem.equalities, slice(p)),
        (problem.inequalities, slice(p, None)),
    ):
        jac = None if stack is None else stack.jac(x, y)
        jacobians.append(jac)
        if jac is not None and multipliers is not None:
            total = total + transposed_product(jac, multipliers[part])
    bends = kinks(problem, x, y, total) if problem.nonsmooth else None
    total = total if bends is None else total + bends.grad
    return Conditions(grad, total, h, g, (jacobians[0], jacobians[1]), bends)


def scale_of(problem: Problem, x: Array, y: Array) -> float:
    """Return the objective's own ``scale(x)``, or ‖f_Y(x, 0)‖."""
    scale = getattr(problem.objective, "scale", None)
    return float(scale(x)) if callable(scale) else norm(problem.grad(x, 0.0 * y))


def residual_of(found: Conditions, active: ActiveSet | None) -> Array:
    """Return the conditions that hold with equality, (n + p + q,)."""
    xp, rows = namespace(found.grad), found.inequality
    free = found.lagrangian_grad
    if active is not None:
        free = xp.where(active.fixed, 0.0 * free, free)
        rows = xp.where(active.strong, rows, 0.0 * rows)
    return xp.concat([free, found.equality, rows])


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


def _csr(matrix: Any) -> Any:
    """Return a matrix in CSR, in the byte order that SciPy knows."""
    return sparse.csr_array(matrix, dtype=matrix.dtype.newbyteorder("="))


def lagrangian_hess(
    problem: Problem, x: Array, y: Array, multipliers: Array, p: int
) -> Any:
    """Return f_YY + Σ ν_i ∇²h_i of the function that is minimised, as explicit as its parts.

    A sparse matrix where all parts are matrices on the host, else an operator; the first
    p multipliers are those of the equality rows.
    """
    given = problem.given("hess", x, y)
    check_shape("objective.hess", aslinearoperator(given), 2 * y.shape, "an operator")
    terms: list[Any] = []
    for rows, part in (
        (problem.equalities, multipliers[:p]),
        (problem.inequalities, multipliers[p:]),
    ):
        if rows is not None:
            terms += rows.terms("hess", x, y, part, y.shape[0])
    if problem.nonsmooth:
        terms.append(problem.penalty.hess(x, y))
    if is_factorable(y, given, *terms):
        total = _csr(given) * (-1.0 if problem.maximize else 1.0)
        for term in terms:
            total = total + _csr(term)
        return total
    H = aslinearoperator(given)
    H = -H if problem.maximize else H
    for term in terms:
        H = H + aslinearoperator(term)
    return H


def is_as_left(problem: Problem, solution: Solution) -> bool:
    """Tell whether the conditions are still what the solution says of them.

    That is its ``residual``, to rounding of its terms, and for inequalities an active set
    that goes with the signs.  Costs one gradient.
    """
    stored, active, multipliers = (
        solution.residual,
        solution.active,
        solution.multipliers,
    )
    either_side = problem.one_sided
    if stored is None or either_side is (active is None):
        return False
    check_size(problem, solution.y)
    found = conditions(problem, solution.x, solution.y, multipliers)
    check_masks(active, solution.y.shape, found.inequality.shape)
    xp, now = namespace(solution.y), residual_of(found, active)
    if multipliers is None:
        multipliers = zeros((0,), now)
    rows = found.equality.shape[0] + found.inequality.shape[0]
    if now.shape != stored.shape or multipliers.shape[0] != rows:
        return False
    if not bool(xp.all(now == stored)):
        terms = _sizes_of_terms(found, multipliers)
        if not bool(xp.all(xp.abs(now - stored) <= 64.0 * epsilon(now) * terms)):
            return False
    if active is None:
        return True
    return _signs_agree(problem, solution, found, multipliers, active)


def _sizes_of_terms(found: Conditions, multipliers: Array | None) -> Array:
    """Return the sums of the absolute values of the terms of the conditions."""
    xp, p = namespace(found.grad), found.multipliers_of
    total = xp.abs(found.grad)
    if found.kinks is not None:
        total = total + xp.abs(found.kinks.grad)
    if multipliers is not None:
        for jac, part in zip(
            found.jacobians, (multipliers[:p], multipliers[p:]), strict=True
        ):
            if jac is not None and is_explicit(jac):
                total = total + abs(jac).T @ xp.abs(part)
            elif jac is not None:
                total = total + xp.abs(aslinearoperator(jac).T @ part)
    return xp.concat([total, xp.abs(found.equality), xp.abs(found.inequality)])


def _signs_agree(
    problem: Problem,
    solution: Solution,
    found: Conditions,
    multipliers: Array,
    active: ActiveSet,
) -> bool:
    """Tell whether forces act where, and only where, the active set has them."""
    x, y, values = solution.x, solution.y, found.inequality
    xp = namespace(y)
    part = multipliers[found.multipliers_of :]
    # Of a row that touches without a force rounding decides on which side it is.
    noise = xp.where(active.weak, _rounding_of_rows(found, y), 0.0 * values)
    agree = xp.where(active.strong, part > 0.0, (part == 0.0) & (values <= noise))
    if not bool(xp.all(agree)):
        return False
    lower, upper = problem.bounds(x, y)
    pull = found.lagrangian_grad
    held = (lower == upper) | ((y == lower) & (pull >= 0.0))
    held = held | ((y == upper) & (pull <= 0.0))
    if found.kinks is not None:
        off, used = found.kinks.held, found.kinks.activity
        if not bool(xp.all(~off | (active.fixed & (used <= 1.0 + ACTIVE_TOL)))):
            return False
        held = held | off
    return bool(xp.all(xp.where(active.fixed, held, (lower <= y) & (y <= upper))))


def _rounding_of_rows(found: Conditions, y: Array) -> Array:
    """Return what rounding of the terms may leave of the values of the inequality rows."""
    values, jac = found.inequality, found.jacobians[1]
    xp = namespace(values)
    terms = xp.abs(values)
    if jac is not None and is_explicit(jac):
        terms = terms + abs(jac) @ xp.abs(y)
    return epsilon(values) ** (2 / 3) * terms


def check_size(problem: Problem, y: Array) -> None:
    """Refuse a y of another size than the objective's."""
    n = getattr(problem.objective, "n", None)
    if n is not None and n != y.shape[0]:
        raise ValueError(f"solution.y must have shape ({n},), found {tuple(y.shape)}")


def check_masks(active: ActiveSet | None, n: Any, q: Any) -> None:
    """Refuse an active set that is no masks of the variables and inequality rows."""
    if active is None:
        return
    for name, shape in (("strong", q), ("weak", q), ("fixed", n), ("weak_fixed", n)):
        mask = getattr(active, name)
        found = tuple(getattr(mask, "shape", ())), getattr(mask, "dtype", type(mask))
        if not is_array(mask) or found[1] != namespace(mask).bool:
            raise TypeError(f"active.{name} must be a bool array, found {found[1]}")
        if found[0] != tuple(shape):
            raise ValueError(
                f"active.{name} must have shape {tuple(shape)}, found {found[0]}"
            )
