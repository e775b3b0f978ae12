"""A problem in coordinates in which a force and a displacement have the same unit.

    y = S z,    f = unit φ,    S = unit^½ D^(-½),    D = |diag f_YY|

Any units of f and of y give the same φ(z) up to powers of two, so that whatever norms a
solver uses, its decisions do not depend on units.  A component of S f_Y / unit is the Newton
step of that coordinate, |h_i| / ‖∇h_i S‖ the least correction of a row; the unit is chosen such
that both are about 1 at the start.  S and the unit are powers of two: the change is exact.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from ..arrays import (
    Array,
    asarray,
    check_shape,
    epsilon,
    full,
    is_array,
    namespace,
    norm,
)
from ..operators.block_matrices import diagonal_operator, is_explicit, squares
from ..operators.linear_operator import LinearOperator, aslinearoperator
from ..operators.probes import diagonal_scale, random_signs
from ..operators.structure import common
from ..problem.constraints import Equality, Inequality, Stack
from ..problem.formed_hessian import SMALL, FormedHessian, with_formed_matrices
from ..problem.optimality import lagrangian_hess, row_norms
from ..problem.problem import Problem, Solution
from ..status import Status
from .stopping import NewtonIterate

DRIFT = 2.0**8  # of the curvature along a coordinate: then the coordinates are renewed
_RENEWALS = 8  # of the coordinates: e^-36 each to rounding, more steps than a run has
_CURVED = 32  # rows whose curvature is looked at
_PASSES = 8  # over the rows, from coordinates of known length to those that they touch


_UNITS_MAY_HELP = {Status.STAGNATED, Status.LINE_SEARCH_FAILED}


def _sizes(A: Any, like: Array) -> tuple[Array, int]:
    """Return |diag A| or what products tell of it, ≥ 0, and the products that it took."""
    A = aslinearoperator(A)
    if A.has_diagonal:
        return namespace(like).abs(asarray(A.diagonal(), like)), 0
    sizes, products = diagonal_scale(A, like)
    if sizes is not None:
        return sizes, products
    v = random_signs(like.shape[0], like, 0)
    return full(like.shape, norm(A.matvec(v)) / norm(v), like), products + 1


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """y = scale z and f = unit φ, with powers of two."""

    scale: Array
    unit: float

    def matrix(self, given: Any) -> Any:
        """Return S H S, as explicit as H."""
        if not is_explicit(given):
            return self._operator(aslinearoperator(given))
        return _scaled(given, self.scale, self.scale)

    def columns(self, given: Any) -> Any:
        """Return C S, as explicit as C."""
        if is_explicit(given):
            return _scaled(given, None, self.scale)
        return aslinearoperator(given) @ diagonal_operator(self.scale)

    def _operator(self, H: LinearOperator) -> LinearOperator:
        S = self.scale

        def product(v: Array) -> Array:
            scale = S if v.ndim == 1 else S[:, None]
            return scale * (H @ (scale * v))

        return LinearOperator(
            H.shape,
            product,
            product,
            matmat=product,
            dtype=H.dtype,
            symmetric=H.symmetric,
            positive_definite=H.positive_definite,
            diagonal=(lambda: S * H.diagonal() * S) if H.has_diagonal else None,
            structure=common(H.structure),
        )


def _scaled(matrix: Any, left: Array | None, right: Array) -> Any:
    """Return diag(left) A diag(right) of an array or a sparse matrix."""
    if is_array(matrix):
        matrix = matrix * right[None, :]
        return matrix if left is None else left[:, None] * matrix
    matrix = sparse.csr_array(matrix)
    data: Any = matrix.data * right[matrix.indices]
    if left is not None:
        sizes: Any = np.diff(matrix.indptr)
        data = np.repeat(np.asarray(left), sizes) * data
    return sparse.csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)


class _Objective:
    """φ(z): what is minimised, in the coordinates."""

    def __init__(self, problem: Problem, at: Coordinates, dtype: Any) -> None:
        self.problem, self.at = problem, at
        self.n, self.dtype = at.scale.shape[0], dtype
        self.convex = getattr(problem.objective, "convex", False)
        if problem.has_value:
            self.value = self._value

    def has_minimiser(self, x: Array) -> bool:
        return self.problem.has_minimiser(x)

    def _value(self, x: Array, z: Array) -> float:
        return self.problem.value(x, self.at.scale * z) / self.at.unit

    def grad(self, x: Array, z: Array) -> Array:
        S, unit = self.at.scale, self.at.unit
        return S * self.problem.grad(x, S * z) * (1.0 / unit)

    def hess(self, x: Array, z: Array) -> Any:
        given = self.problem.given("hess", x, self.at.scale * z)
        if not is_explicit(given):
            given = aslinearoperator(given)
        check_shape("objective.hess", given, (self.n, self.n), "an operator")
        sign = -1.0 if self.problem.maximize else 1.0
        return self.at.matrix(given) * (sign / self.at.unit)

    def cross(self, x: Array, z: Array) -> Any:
        cross = self.problem.cross(x, self.at.scale * z)
        return diagonal_operator(self.at.scale) @ cross * (1.0 / self.at.unit)


def _rows(stack: Stack | None, at: Coordinates, kind: type) -> Any:
    """Return the rows of a stack as one constraint on z."""
    if stack is None:
        return None
    S = at.scale

    def hess(x: Array, z: Array, multipliers: Array) -> Any:
        terms = stack.terms("hess", x, S * z, multipliers, S.shape[0])
        total = at.matrix(terms[0])
        for term in map(at.matrix, terms[1:]):
            both = is_explicit(total) and is_explicit(term)
            total = total + term if both else aslinearoperator(total) + term
        return total

    made = kind(
        lambda x, z: stack.value(x, S * z),
        lambda x, z: at.columns(stack.jac(x, S * z)),
        hess=hess if any(part.hess for part in stack.parts) else None,
    )
    sizes = [part.p for part in stack.parts]
    p = None if None in sizes else sum(size or 0 for size in sizes)
    made.rows = dataclasses.replace(made.rows, affine=stack.affine, p=p)
    return made


def scaled(problem: Problem, at: Coordinates, x: Array, like: Array) -> Problem:
    """Return the minimisation of φ(z), with the bounds at x."""
    lower = upper = None
    if problem.bounded:
        lower, upper = (bound / at.scale for bound in problem.bounds(x, like))
    return Problem(
        _Objective(problem, at, like.dtype),
        equality=_rows(problem.equalities, at, Equality),
        inequality=_rows(problem.inequalities, at, Inequality),
        lower=lower,
        upper=upper,
    )


def unscaled(solution: Solution, problem: Problem, at: Coordinates) -> Solution:
    """Return a solution z as y, in the problem's units."""
    xp, n = namespace(solution.y), solution.y.shape[0]
    value, residual = solution.value, solution.residual
    if value is not None:
        value = -at.unit * value if problem.maximize else at.unit * value
    if residual is not None:
        residual = xp.concat([residual[:n] * at.unit / at.scale, residual[n:]])
    multipliers = solution.multipliers
    return dataclasses.replace(
        solution,
        y=at.scale * solution.y,
        value=value,
        multipliers=None if multipliers is None else at.unit * multipliers,
        residual=residual,
        residual_norm=solution.residual_norm if residual is None else norm(residual),
    )


def coordinates(problem: Problem, x: Array, y: Array, D: Array) -> Coordinates:
    """Return the coordinates for a start y within the bounds, with curvatures D there."""
    xp = namespace(y)
    force = xp.abs(problem.grad(x, y))
    stacks = [s for s in (problem.equalities, problem.inequalities) if s is not None]
    jacobians = [stack.jac(x, y) for stack in stacks]
    rows = _of_curved_rows(stacks, jacobians, x, y, force)
    D = xp.where(D > 0.0, xp.sqrt(D) * xp.sqrt(D + rows), rows)
    known = (D > 0.0) & xp.isfinite(D)
    S = xp.where(known, 1.0 / xp.sqrt(xp.where(known, D, xp.ones_like(D))), 0.0 * D)
    if not bool(xp.all(known)):
        S = _completed(S, force, jacobians, _reach(problem, x, y))
    off = 0.0
    for stack, jac in zip(stacks, jacobians, strict=True):
        h = stack.value(x, y)
        h = xp.abs(h) if stack is problem.equalities else xp.maximum(h, 0.0 * h)
        sizes = row_norms(Coordinates(S, 1.0).columns(jac), y)
        off = max(off, _largest(h / sizes))
    length = max(off, _largest(S * force))
    size = _largest(xp.abs(y / S))
    if not 0.0 < length < math.inf:
        length = size or 1.0
    # Next to a solution the force is rounding, and no length.
    length = max(length, epsilon(y) ** 0.5 * size)
    exponent = round(math.log2(length)) if 0.0 < length < math.inf else 0
    return Coordinates(_power_of_two(S * 2.0**exponent), 4.0**exponent)


def curvatures(
    problem: Problem, x: Array, y: Array, multipliers: Array | None = None
) -> tuple[Array, int]:
    """Return |diag| of the Hessian of f, or of the Lagrangian, and the products spent."""
    if multipliers is None:
        return _sizes(problem.given("hess", x, y), y)
    p = 0 if problem.equalities is None else problem.equalities.value(x, y).shape[0]
    return _sizes(lagrangian_hess(problem, x, y, multipliers, p), y)


def _of_curved_rows(
    stacks: list[Stack], jacobians: list[Any], x: Array, y: Array, force: Array
) -> Array:
    """Return the curvatures of rows with multipliers φ / s_i, zero where there are none.

    s_i = |h_i| + ½ Σ_j (∂_j h_i)² / |∂_j² h_i| is how much a row varies: ½ R² for a sphere of
    radius R, wherever y is.  Σ ∇²h_i / s_i are reciprocal squares of lengths, over the
    longest of which f falls by φ.
    """
    xp, D = namespace(y), 0.0 * y
    for stack, jac in zip(stacks, jacobians, strict=True):
        h = stack.value(x, y)
        p = h.shape[0]
        if not (is_explicit(jac) and any(part.hess for part in stack.parts) and p):
            continue
        for i in range(min(p, _CURVED)):
            unit = asarray([float(k == i) for k in range(p)], y)
            H = stack.hess(x, y, unit)
            if H is None or not H.has_diagonal:
                continue
            bent = xp.abs(H.diagonal())
            slope = squares(jac).T @ unit
            positive = xp.where(bent > 0.0, bent, xp.ones_like(bent))
            vary = xp.where(bent > 0.0, slope / positive, 0.0 * bent)
            size = abs(float(h[i])) + 0.5 * float(xp.sum(vary))
            D = D + bent / (size or 1.0)
    curved = D > 0.0
    lengths = xp.where(curved, 1.0 / xp.sqrt(xp.where(curved, D, 1.0 + D)), D)
    return _largest(force * lengths) * D


def _completed(S: Array, force: Array, jacobians: list[Any], reach: Array) -> Array:
    """Fill in the lengths of coordinates along which f has no curvature, S = 0.

    A step of that length changes no row by more than the others do; without such rows it
    changes f by as much as another's, or as the largest over ``reach``.
    """
    xp = namespace(S)
    entries = [squares(jac) for jac in jacobians if is_explicit(jac)]
    S = _spread(S, entries)
    free = (S == 0.0) & (force > 0.0)
    if bool(xp.any(free)):
        root = float(xp.max(force * S))
        root = root if root > 0.0 else math.sqrt(float(xp.max(force * reach)))
        root = root if 0.0 < root < math.inf else 1.0
        S = xp.where(free, root / xp.where(free, force, xp.ones_like(force)), S)
        S = _spread(S, entries)
    return xp.where(S > 0.0, S, xp.ones_like(S))


def _spread(S: Array, entries: list[Any]) -> Array:
    """Give lengths to coordinates that share a row with some of known length.

    ``entries`` are the squared entries of the rows; 1 / S_j² = Σ_i A_ij² / Σ_k A_ik² S_k².
    """
    xp = namespace(S)
    for _ in range(_PASSES):
        missing = S == 0.0
        if not entries or not bool(xp.any(missing)):
            break
        D = 0.0 * S
        for A in entries:
            sizes = A @ S**2
            with_some = xp.where(sizes > 0.0, sizes, xp.ones_like(sizes))
            D = D + A.T @ xp.where(sizes > 0.0, 1.0 / with_some, 0.0 * sizes)
        found = missing & (D > 0.0)
        if not bool(xp.any(found)):
            break
        S = xp.where(found, 1.0 / xp.sqrt(xp.where(found, D, xp.ones_like(D))), S)
    return S


def _reach(problem: Problem, x: Array, y: Array) -> Array:
    """Return how far each coordinate can go: between its bounds, or from 0."""
    xp = namespace(y)
    lower, upper = problem.bounds(x, y)
    width = upper - lower
    return xp.where(xp.isfinite(width), width, xp.abs(y))


def _power_of_two(S: Array) -> Array:
    xp = namespace(S)
    return xp.pow(asarray(2.0, S), xp.round(xp.log2(S)))


def solve_scaled(
    method: Callable[..., Solution],
    problem: Problem,
    x: Array,
    y0: Array,
    *,
    tol: float,
    maxiter: int,
    callback: Callable[[NewtonIterate], Any] | None,
    form: bool = True,
    unsettled: str = "",
) -> Solution:
    """Return what a method finds in the coordinates of the start, then of its end.

    The method is called with the scaled problem and a start.  Where the curvatures changed
    on the way, what was met there has another meaning at the end, and the method goes on.
    With ``form`` the matrices of a small problem that are known by products are formed.
    The warning ``unsettled`` of a method says that shorter lengths may tell it more.
    """
    xp, (lower, upper) = namespace(y0), problem.bounds(x, y0)
    y = y0 = xp.clip(y0, lower, upper)
    entries: FormedHessian | None = None
    if form and isinstance(y, np.ndarray) and y.shape[0] <= SMALL:
        problem, entries = with_formed_matrices(problem)
    D, n_hvp = curvatures(problem, x, y)
    niter, n_grad = 0, 1
    at = coordinates(problem, x, y, D)
    for _ in range(_RENEWALS):
        start = y
        found = method(
            scaled(problem, at, x, y),
            x,
            start / at.scale,
            tol=tol,
            maxiter=maxiter - niter,
            callback=_told(callback, at, niter, n_hvp),
        )
        niter, n_hvp = niter + found.niter, n_hvp + found.n_hvp
        n_grad += found.n_grad + 1
        solution = unscaled(found, problem, at)
        y = solution.y
        status = found.status
        assert status is not None
        if not (status.acceptable or status in _UNITS_MAY_HELP):
            break
        D, products = curvatures(problem, x, y, solution.multipliers)
        n_hvp += products
        if bool(xp.any(xp.isnan(D))):  # nothing tells what the lengths were worth
            solution = dataclasses.replace(solution, status=Status.NOT_FINITE)
            break
        before, at = at, coordinates(problem, x, y, D)
        shorter = unsettled in found.warnings and _is_much_shorter(at, before)
        more = shorter or _is_hidden(at, y, y - start)
        if not (more or _have_drifted(before, at, D, y, y - y0)):
            break
    notes = dict.fromkeys(solution.warnings)
    if entries is not None:
        n_hvp += entries.n_hvp
        notes |= dict.fromkeys([entries.note] if entries.note else [])
    return dataclasses.replace(
        solution, niter=niter, n_hvp=n_hvp, n_grad=n_grad, warnings=tuple(notes)
    )


def _have_drifted(
    before: Coordinates, at: Coordinates, D: Array, y: Array, way: Array
) -> bool:
    """Tell whether coordinates of the end differ much from those of the start.

    Curvatures may, and the unit of length may have been a way that is much longer than
    anything there.  Next to a minimum that no row holds, forces tell no length: nor do
    they at zero, where what is left of the way from the start is rounding.
    """
    xp, known = namespace(y), (D > 0.0) & namespace(y).isfinite(D)
    drift = (D * before.scale**2 / before.unit)[known]
    if bool(xp.any((drift > DRIFT) | (drift < 1.0 / DRIFT))):
        return True
    size = max(_largest(xp.abs(y / at.scale)), _largest(xp.abs(way / at.scale)))
    told = size < 0.1 / epsilon(y) ** 0.5
    return told and _is_much_shorter(at, before)


def _is_much_shorter(at: Coordinates, before: Coordinates) -> bool:
    return at.unit * DRIFT**2 < before.unit


def _is_hidden(at: Coordinates, y: Array, way: Array) -> bool:
    """Tell whether y is shorter than what rounding left of the way of some coordinates.

    As far as a method can tell it is then at its end.  From there it can tell more, but
    where all coordinates came as far: then each is what rounding left of its own way.
    """
    size, way = namespace(y).abs(y / at.scale), namespace(y).abs(way / at.scale)
    rounding = 64.0 * epsilon(y) * _largest(way)
    return _largest(size) < rounding and bool(namespace(y).any(way < rounding))


def _told(
    callback: Callable[[NewtonIterate], Any] | None,
    at: Coordinates,
    niter: int,
    n_hvp: int,
) -> Callable[[NewtonIterate], Any] | None:
    """Return the callback for iterates in the coordinates."""
    if callback is None:
        return None

    def told(iterate: NewtonIterate) -> Any:
        value = iterate.value
        return callback(
            dataclasses.replace(
                iterate,
                niter=niter + iterate.niter,
                y=at.scale * iterate.y,
                value=None if value is None else at.unit * value,
                n_hvp=n_hvp + iterate.n_hvp,
            )
        )

    return told


def _largest(values: Array) -> float:
    return float(namespace(values).max(values)) if values.shape[0] else 0.0
