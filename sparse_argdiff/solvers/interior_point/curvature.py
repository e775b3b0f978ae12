"""Whether a point of the optimality conditions is a minimum, by the curvature around it.

    d'H d < 0,    E d = 0,    J_s d = 0,    J_w d <= 0        leads down: no minimum

with J_s the strongly active inequalities, which no d leaves, and J_w the weakly active ones,
which some d leave on their inactive side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import linalg, sparse

from ...arrays import Array, dot, epsilon, namespace, norm
from ...krylov.ldl_factor import LDLFactor
from ...krylov.saddle_point import SaddlePoint
from ...operators.block_matrices import (
    is_explicit,
    is_factorable,
    mask_of,
    principal,
    scatter,
    take_columns,
    take_rows,
    vstack,
)
from ...operators.linear_operator import aslinearoperator
from ...preconditioners import constraint_of
from ...problem.optimality import lagrangian_hess, row_norms
from ...problem.problem import Problem
from ...status import Status
from .iterate import Residuals
from .standard_form import StandardForm, scale_rows

_DENSE = 128  # variables up to which the eigenvalues of the reduced Hessian are found


def hessian(now: Residuals) -> tuple[Any, str]:
    """Return the Hessian of the Lagrangian in the units of the form, and its caveat."""
    form, point = now.form, now.point
    multipliers = form.multipliers(point.nu, point.z)
    H = lagrangian_hess(form.problem, form.x, point.y, multipliers, form.p)
    return H * (1.0 / form.unit), getattr(H, "note", "")


def free_variables(form: StandardForm, active: Array) -> Array:
    """Return the index of the variables at no active bound."""
    xp, n = namespace(form.y0), form.y0.shape[0]
    _, low, high = form.split(active)
    held = mask_of(n, form.at_lower[low]) | mask_of(n, form.at_upper[high])
    (free,) = xp.nonzero(~held)
    return free


def reduced_system(
    now: Residuals, active: Array, H: Any = None
) -> tuple[Any, Any, Array, Array]:
    """Return H and the active equations C on the free variables, these and the rows."""
    xp, free = namespace(active), free_variables(now.form, active)
    (rows,) = xp.nonzero(active[: now.form.q])
    H = hessian(now)[0] if H is None else H
    parts = [] if now.E is None else [now.E]
    if rows.shape[0]:
        parts.append(take_rows(now.J, rows))
    C = take_columns(vstack(parts), free) if parts else None
    H = H[free][:, free] if is_explicit(H) else principal(H, free)
    return H, C, free, rows


def leads_down(now: Residuals, strong: Array, weak: Array) -> tuple[Status | None, int]:
    """Tell whether a direction of negative curvature leaves the point, by its status.

    ``NOT_FINITE`` where the curvature is not known; the products with H are returned, too.
    """
    H, C, free, _ = reduced_system(now, strong)
    form, like = now.form, now.point.y
    if not free.shape[0]:
        return None, 0
    convex = is_convex(form.problem)
    found, status, n_hvp = negative_direction(H, C, like[free], convex)
    if found is None:
        return status, n_hvp
    H, d, xp = aslinearoperator(H), scatter(like.shape[0], free)(found), namespace(like)
    down = False
    for side in (_kept_inside(form, weak, d), _kept_inside(form, weak, -d)):
        left = form.inequality_jvp(now.J, side)[weak]
        inside = bool(xp.all(left <= epsilon(like) ** 0.5 * norm(side)))
        if inside and norm(side) > 0.0:
            part = side[free]
            down = down or dot(part, H.matvec(part)) < 0.0
    return Status.NEGATIVE_CURVATURE if down else None, n_hvp + 2 if n_hvp else 0


def is_convex(problem: Problem) -> bool:
    """Tell whether the Lagrangian is convex by the word of the objective."""
    stacks = problem.equalities, problem.inequalities
    curved = any(part.hess for stack in stacks if stack for part in stack.parts)
    return bool(getattr(problem.objective, "convex", False)) and not curved


def negative_direction(
    H: Any, C: Any, like: Array, convex: bool = False, rows: Any = None
) -> tuple[Array | None, Status | None, int]:
    """Look for a direction d with C d = 0 and d'H d < 0.

    Returns d, None where none is found; ``NEGATIVE_CURVATURE`` where there is one, though
    a factor alone may show it, ``NOT_FINITE`` where H is; and the products: none where H is
    said to be definite or matrices tell, else at most ten.
    ``rows`` are the projections on C, where they are known.
    """
    if convex or getattr(H, "positive_definite", False):
        return None, None, 0
    counts = not is_factorable(like, H, *([] if C is None else [C]))
    if not counts:
        least = epsilon(like) ** 0.5
        C = None if C is None else scale_rows(C, row_norms(C, like))
        if like.shape[0] <= _DENSE:
            return *_lowest(H, C, least), 0
        if not _shows_negative(H, C, least):
            return None, None, 0
    H = aslinearoperator(H)
    M = constraint_of(H, C) if rows is None else None
    found = SaddlePoint(H, C if rows is None else rows, M=M).probe(like)
    status: Status | None = None
    if found.direction is not None or not counts:
        status = Status.NEGATIVE_CURVATURE
    elif found.status is Status.NOT_FINITE:
        status = Status.NOT_FINITE
    return found.direction, status, counts * found.n_matvec


def _lowest(H: Any, C: Any, least: float) -> tuple[Array | None, Status | None]:
    """Return the direction of the lowest curvature where that is negative, and a status."""
    dense = H.toarray() if sparse.issparse(H) else np.asarray(H)
    C = np.zeros((0, len(dense))) if C is None else C
    Z = linalg.null_space(C.toarray() if sparse.issparse(C) else np.asarray(C))
    if not np.isfinite(dense).all():
        return None, Status.NOT_FINITE
    if not Z.shape[1]:
        return None, None
    curvatures, vectors = np.linalg.eigh(Z.T @ dense @ Z)
    if curvatures[0] < -least * np.abs(curvatures).max():
        return (Z @ vectors[:, 0]).astype(dense.dtype), Status.NEGATIVE_CURVATURE
    return None, None


def _shows_negative(H: Any, C: Any, least: float) -> bool:
    """Tell by the inertia whether H curves down by more than rounding where C d = 0."""
    n = H.shape[0]
    C = sparse.csr_array((0, n)) if C is None else sparse.csr_array(C)
    shift = least * sparse.eye_array(n, format="csr")
    factor = LDLFactor(sparse.csr_array(H) + shift, C, np.zeros(C.shape[0]))
    return factor.negative_curvature


def _kept_inside(form: StandardForm, weak: Array, d: Array) -> Array:
    """Return d without what leaves through weakly active bounds."""
    xp, n = namespace(d), d.shape[0]
    _, low, high = form.split(weak)
    d = xp.where(mask_of(n, form.at_lower[low]), xp.maximum(d, 0.0 * d), d)
    return xp.where(mask_of(n, form.at_upper[high]), xp.minimum(d, 0.0 * d), d)
