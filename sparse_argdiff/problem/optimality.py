"""Residuals of the optimality conditions at a point, and the active constraints.

    f_Y + h_Y' ν + J' λ − z = 0,   h = 0,   g <= 0,   λ >= 0,   λ_i g_i = 0

with ν of the equality rows h, λ of the inequality rows g (Jacobian J) and z of the bounds.
Slacks and forces are measured in the metric of the Hessian's diagonal (``metric.py``), in
which both are lengths; a point is judged by the Newton step that is left.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, sparse
from scipy.sparse import linalg

from ..arrays import (
    Array,
    asarray,
    check_shape,
    epsilon,
    full,
    is_array,
    namespace,
    norm,
    zeros,
)
from ..krylov.null_space import null_space_of
from ..krylov.saddle_point import SaddlePoint
from ..operators.block_matrices import (
    diagonal_operator,
    is_explicit,
    is_factorable,
    principal,
    scatter,
    take_columns,
    take_rows,
    transposed_product,
    vstack,
)
from ..operators.linear_operator import LinearOperator, aslinearoperator
from ..status import Status
from .kinks import Kinks, kinks
from .metric import Metric, metric_of
from .problem import ActiveSet, Problem, Solution
from .signed_multipliers import signed_multipliers

ACTIVE_TOL = 1e-6
_EXACT = 1e-7  # ten times the default error of a solve
_STEPS = 50  # of the loose linear solve that judges a point


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


class _Sides(NamedTuple):
    """What pulls at inequalities and how far they are, as lengths."""

    force: Array
    slack: Array


def _sides(
    problem: Problem,
    x: Array,
    y: Array,
    found: Conditions,
    multipliers: Array,
    metric: Metric,
) -> list[_Sides]:
    """Return force and slack of the rows, the lower and the upper bounds."""
    sides = []
    if found.inequality.shape[0]:
        sizes = metric.row_norms(found.jacobians[1])
        part = multipliers[found.multipliers_of :]
        sides.append(_Sides(part * sizes, -found.inequality / sizes))
    if problem.bounded:
        lower, upper = problem.bounds(x, y)
        pull = metric.forces(found.lagrangian_grad)
        below, above = metric.root * (y - lower), metric.root * (upper - y)
        if found.kinks is not None:  # what a kink holds pulls at no bound
            xp, held = namespace(y), found.kinks.held
            pull = xp.where(held, xp.zeros_like(pull), pull)
            below, above = (
                xp.where(held, math.inf + 0.0 * y, s) for s in (below, above)
            )
        sides.append(_Sides(pull, below))
        sides.append(_Sides(-pull, above))
    return sides


def classify(problem: Problem, x: Array, y: Array, multipliers: Array) -> ActiveSet:
    """Return which inequality rows and bounds are strongly, weakly or not active.

    A row is strongly active where its force, the step that it prevents, exceeds its slack;
    where both are rounding or ``ACTIVE_TOL`` of the forces around, it is weakly active.
    """
    found = conditions(problem, x, y, multipliers)
    H = lagrangian_hess(problem, x, y, multipliers, found.multipliers_of)
    metric, _ = metric_of(H, y, found.grad)
    return classify_in(problem, x, y, found, multipliers, metric)


def classify_in(
    problem: Problem,
    x: Array,
    y: Array,
    found: Conditions,
    multipliers: Array,
    metric: Metric,
) -> ActiveSet:
    """Classify in a metric that is known, see :func:`classify`.

    What is undecided to half the digits of y is told as weak, too, and keeps its place:
    y is hardly known better.
    """
    xp = namespace(y)
    sides = _sides(problem, x, y, found, multipliers, metric)
    # Forces do not change with the origin; y counts by its rounding alone.
    force = max([norm(metric.forces(found.grad)), *(_largest(s.force) for s in sides)])
    length = metric.length(y)
    # Rows that depend on each other may pull far more than anything moves.
    rounding = 64.0 * epsilon(y) * max(force, length)
    usual = max(length, norm(metric.forces(found.grad)))
    least = max(ACTIVE_TOL * min(force, usual), rounding)
    wide = max(least, math.sqrt(epsilon(y)) * length)
    # A solve may leave slacks larger; the farthest side is a length that has no origin.
    farthest = max(map(_farthest, sides), default=0.0)
    near = max(wide, _EXACT * min(length, farthest))
    strong = weak = zeros((0,), y, xp.bool)
    fixed = weak_fixed = zeros(y.shape, y, xp.bool)
    if found.inequality.shape[0]:
        strong, weak = _activity(sides.pop(0), least, wide, near)
        strong, weak = _with_pairs(metric, found.jacobians[1], strong, weak)
    if problem.bounded:
        lower, upper = problem.bounds(x, y)
        (low, weak_low), (high, weak_high) = (
            _activity(side, least, wide, near) for side in sides
        )
        fixed = low | high | (lower == upper)
        weak_fixed = (weak_low | weak_high) & (lower < upper)
    if found.kinks is not None:
        fixed = fixed | found.kinks.held
        weak_fixed = weak_fixed | found.kinks.weak(metric, y)
    return ActiveSet(strong, weak, fixed, weak_fixed)


class Touching(NamedTuple):
    """Inequalities at zero, by whether they push: masks of rows (q,) and bounds (n,)."""

    rows: Array  # that push
    low: Array  # bounds that push
    high: Array
    weak_rows: Array  # at zero without a force, to half the digits of y
    weak_low: Array
    weak_high: Array

    @property
    def weak(self) -> bool:
        """Whether anything at zero has no force."""
        weak = self.weak_rows, self.weak_low, self.weak_high
        return any(bool(namespace(mask).any(mask)) for mask in weak)


def touching(problem: Problem, solution: Solution) -> Touching:
    """Return which inequalities are at zero, and which of them push.

    Unlike :func:`classify`, without a word on pairs of rows that make an equality.
    """
    x, y, multipliers = solution.x, solution.y, solution.multipliers
    assert multipliers is not None
    found = conditions(problem, x, y, multipliers)
    H = lagrangian_hess(problem, x, y, multipliers, found.multipliers_of)
    metric, _ = metric_of(H, y, found.grad)
    xp, sides = namespace(y), _sides(problem, x, y, found, multipliers, metric)
    length = metric.length(y)
    force = max([norm(metric.forces(found.grad)), *(_largest(s.force) for s in sides)])
    wide = math.sqrt(epsilon(y)) * max(length, force)
    none = zeros((0,), y, xp.bool), zeros(y.shape, y, xp.bool)
    masks = [none[0], none[1], none[1], none[0], none[1], none[1]]
    for j in range(3):
        if (j == 0 and not found.inequality.shape[0]) or (
            j > 0 and not problem.bounded
        ):
            continue
        side = sides.pop(0)
        at_zero = side.slack <= wide
        masks[j] = (side.force > wide) & (side.force > side.slack)
        masks[j + 3] = at_zero & ~masks[j]
    # A variable that one of two equal bounds pushes at is not held by the other.
    masks[4], masks[5] = masks[4] & ~masks[2], masks[5] & ~masks[1]
    return Touching(*masks)


def _activity(
    side: _Sides, least: float, wide: float, near: float
) -> tuple[Array, Array]:
    """Return where an inequality is strongly, and where it may be weakly active."""
    force, slack = side
    undecided = (namespace(force).abs(force) <= wide) & (slack <= near)
    return (force > least) & (force > slack), undecided


def _with_pairs(
    metric: Metric, jac: Any, strong: Array, weak: Array
) -> tuple[Array, Array]:
    """Let one row of l(x) <= a(y) <= l(x) act, in place of both: it is an equality.

    A row that may be weak is left out where an opposite one acts.
    """
    xp = namespace(weak)
    (index,) = xp.nonzero(strong | weak)
    if not (is_explicit(jac) and index.shape[0] > 1 and bool(xp.any(weak))):
        return strong, weak
    rows = take_rows(jac, index)
    random = np.random.default_rng(0).standard_normal((jac.shape[1], 3))
    seen = metric.covariant(rows) @ asarray(random, metric.root)
    seen = seen / metric.row_norms(rows)[:, None]
    rounding = 64.0 * epsilon(seen) * float(xp.max(xp.abs(seen)))
    for k in range(index.shape[0]):
        apart = xp.max(xp.abs(seen + seen[k, :]), axis=1)
        others = index[(apart <= rounding) & (xp.max(xp.abs(seen), axis=1) > rounding)]
        if bool(weak[index[k]]) and others.shape[0]:
            strong[index[k]] = strong[index[k]] | ~xp.any(strong[others])
            weak[index[k]] = False
    return strong, weak


def _farthest(side: _Sides) -> float:
    """Return the largest finite slack."""
    xp = namespace(side.slack)
    return _largest(xp.where(xp.isfinite(side.slack), side.slack, 0.0 * side.force))


def _largest(values: Array) -> float:
    """Return the largest value, 0 where none is positive; NaN where there is one."""
    return max(float(namespace(values).max(values)), 0.0) if values.shape[0] else 0.0


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
    return residual_of(found, solution.active), 1


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


def complete(problem: Problem, solution: Solution) -> Solution:
    """Return the solution with multipliers, fitted by least squares, and active set."""
    if not problem.constrained:
        return solution
    x, y, multipliers = solution.x, solution.y, solution.multipliers
    if multipliers is None:
        multipliers = _recover(problem, x, y)
    active = solution.active
    if active is None and problem.one_sided:
        active = classify(problem, x, y, multipliers)
    return dataclasses.replace(solution, multipliers=multipliers, active=active)


def _recover(problem: Problem, x: Array, y: Array) -> Array:
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


class StationarityCheck(NamedTuple):
    """How well a point meets the optimality conditions."""

    solution: Solution  # with multipliers, active set and relative error
    status: Status  # CONVERGED, NOT_STATIONARY or NOT_FINITE
    detail: str
    residual_norm: float
    n_hvp: int


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
        multipliers = _recover(problem, x, y)
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
    """Return a given active set, in which what was found to be weak is told."""
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
        violation = _largest(xp.abs(found.equality) / sizes)
    sides = _sides(problem, x, y, found, multipliers, metric)
    for force, slack in sides:
        violation = max(violation, _largest(-slack))
        mismatch = max(mismatch, _largest(xp.minimum(force, slack)))
    if active is not None and found.inequality.shape[0]:
        force, slack = sides.pop(0)
        mismatch = max(mismatch, _largest(-force))  # at a bound the other may pull
        mismatch = max(mismatch, _largest(xp.where(active.strong, slack, force)))
    on_bounds = None if active is None else active.fixed
    if found.kinks is not None and on_bounds is not None:
        mismatch = max(mismatch, norm(found.kinks.excess(metric)))
        on_bounds = on_bounds & ~found.kinks.held
    if on_bounds is not None and problem.bounded:
        apart = full(y.shape, math.inf, y)
        for side in sides:
            apart = xp.minimum(apart, side.slack)
        mismatch = max(mismatch, _largest(apart[on_bounds]))
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
