"""The directional derivative where coefficients are about to enter the support, or to leave.

    min ½ d'K d + d'(B u)    over  d = d_S + Σ_g t_g e_g,   t_g >= 0

S is the support without what is weakly active, and e_g the direction in which a weak block
leaves zero, that of its force, −f_Y,g / ‖f_Y,g‖, or inward from a bound.  Across e_g a group
of a norm is infinitely stiff.  With d₀ that of S alone, and Z = K_SS⁻¹ K_SE,

    d = d₀ + (E − Z) t,     0 <= t ⟂ M t + E'(K d₀ + B u) >= 0,     M = E'K E − K_ES Z

Under linear equalities d has the change of their multipliers after that of y, K their rows
and columns, and E zeros there.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, HostArray, as_vector, asarray, epsilon, namespace, zeros
from ..arrays.transfer import to_host
from ..krylov import KrylovResult
from ..operators.linear_operator import aslinearoperator
from ..problem.kinks import block_norms
from ..problem.optimality import conditions
from ..problem.problem import Problem, Solution
from ..status import Status, raise_or_warn
from .checked_solve import LinearizedSolve

MOST = 1000  # weak blocks of one problem
_SINGULAR = 1e-10  # least eigenvalue of M, relative to what M is without the support
_WHAT = "the one-sided derivative"


class Entering(NamedTuple):
    """The tangent (N,) along u, the solve behind it, its products and caveats."""

    tangent: Array
    krylov: KrylovResult
    n_hvp: int
    warnings: tuple[str, ...]


def tangent_at_kinks(
    problem: Problem, solution: Solution, u: Any, options: dict[str, Any]
) -> Entering | None:
    """Return the directional derivative along u; None where no block is weak.

    ``solution`` is checked and has its active set; ``options`` are those of the solves.
    """
    active, x, y = solution.active, solution.x, solution.y
    assert active is not None
    if not active.degenerate:
        return None
    xp, u = namespace(y), as_vector("u", u, x.shape[0])
    E, n = _directions(problem, solution), y.shape[0]
    inside = ~active.fixed & ~active.weak_fixed
    none = zeros(y.shape, y, xp.bool)
    held = dataclasses.replace(active, fixed=~inside, weak_fixed=none)
    there = dataclasses.replace(solution, active=held).judged_for(problem)
    solve = LinearizedSolve(problem, there, **options)
    system = solve.system
    first = solve.push_forward(u)
    tangent = system.tangent(first.x, u)
    notes = tuple(w for w in solve.warnings if w not in solve.derivative_caveats)
    # Just off the kink, where what enters is on the support: for forces, which have a part
    # along y, next to it; a group's curvature across e_g has no limit there.
    sizes = float(xp.max(xp.abs(y))) if y.shape[0] else 1.0
    step = (sizes or 1.0) * xp.sum(E, axis=1)
    B = problem.cross(x, y) @ u
    next_to = y + epsilon(y) ** 2 * step
    B = B + aslinearoperator(problem.penalty.cross(x, next_to)) @ u
    H = problem.hess(x, y)
    bend = aslinearoperator(problem.penalty.hess(x, y + 1e-3 * step))
    KE = _product(H, E) + xp.sum(E * _product(bend, E), axis=0)[None, :] * E
    own, moved = E.T @ KE, H @ tangent[:n]
    if problem.equalities is not None:
        rows = aslinearoperator(problem.equalities.jac(x, y))
        KE = xp.concat([KE, _product(rows, E)])
        moved = moved + rows.T @ tangent[n:]
    slope = E.T @ (B + moved)
    terms = xp.abs(E).T @ (xp.abs(B) + xp.abs(moved))
    Z = system.expand(solve(system.restrict(KE)).x)
    M = own - KE.T @ Z
    t, status = _entering(*(np.asarray(to_host(v)) for v in (M, slope, terms, own)))
    if status is not None:
        detail = "what may enter the support has no curvature: it is not unique."
        raise_or_warn(status, tangent, _WHAT, detail, solve.on_failure)
    E = xp.concat([E, zeros((tangent.shape[0] - n, E.shape[1]), y)])
    tangent = tangent + (E - Z) @ asarray(t, y)
    return Entering(tangent, first, solve.n_hvp, notes)


def _directions(problem: Problem, solution: Solution) -> Array:
    """Return e_g as the columns (n, w) of the weak blocks, at a bound the way inward."""
    x, y = solution.x, solution.y
    xp, found = namespace(y), conditions(problem, x, y, solution.multipliers).kinks
    assert found is not None
    assert solution.active is not None
    towards = xp.where(found.held, found.force, y)
    if problem.bounded:
        lower, upper = problem.bounds(x, y)
        below, above = xp.abs(y - lower), xp.abs(upper - y)
        nearer = xp.where(below < above, below, above) < xp.abs(y)
        one, inward = xp.ones_like(y), ~found.held & (nearer | found.free)
        towards = xp.where(inward, xp.where(below <= above, one, -one), towards)
    lengths = block_norms(towards, found.blocks)
    unit = towards / xp.where(lengths > 0.0, lengths, xp.ones_like(lengths))
    weak = np.asarray(to_host(solution.active.weak_fixed))
    host = np.asarray(to_host(unit))
    labels = np.arange(weak.shape[0]) if found.blocks is None else found.blocks
    labels = np.asarray(labels)
    groups = np.unique(labels[weak])
    if groups.shape[0] > MOST:
        raise ValueError(
            f"one_sided: {groups.shape[0]} blocks of coefficients are weakly active, at "
            f"most {MOST} are treated"
        )
    E = np.where(labels[:, None] == groups[None, :], host[:, None], 0.0)
    return asarray(E, y)


def _product(operator: Any, block: Array) -> Array:
    """Return the operator's product with each column."""
    xp = namespace(block)
    columns = [operator @ block[:, k] for k in range(block.shape[1])]
    return xp.stack(columns, axis=1)


def _entering(
    M: HostArray, slope: HostArray, terms: HostArray, own: HostArray
) -> tuple[HostArray, Status | None]:
    """Solve 0 <= t ⟂ M t + slope >= 0 by principal pivoting (Murty's least index).

    A slope that is rounding of its terms is none: t stays zero there.
    """
    M, t = 0.5 * (M + M.T), np.zeros(slope.shape)
    if not (np.isfinite(M).all() and np.isfinite(slope).all()):
        return t, Status.NOT_FINITE
    slope = np.where(np.abs(slope) <= 64.0 * np.finfo(M.dtype).eps * terms, 0.0, slope)
    if not (slope < 0.0).any():
        return t, None
    scale = np.sqrt(np.maximum(np.diag(own), 0.0))
    if not (scale > 0.0).all():
        return t, Status.SINGULAR
    M, slope = M / np.outer(scale, scale), slope / scale
    if np.linalg.eigvalsh(M)[0] <= _SINGULAR:
        return t, Status.SINGULAR
    acting = np.zeros(slope.shape, dtype=bool)
    for _ in range(50 * slope.shape[0] + 50):
        t = np.zeros(slope.shape)
        t[acting] = np.linalg.solve(M[np.ix_(acting, acting)], -slope[acting])
        rest = M @ t + slope
        least = 1e-12 * (np.abs(M) @ np.abs(t) + np.abs(slope))
        (wrong,) = np.nonzero((acting & (t < 0.0)) | (~acting & (rest < -least)))
        if not wrong.shape[0]:
            return t / scale, None
        acting[wrong[0]] = ~acting[wrong[0]]
    return t, Status.STAGNATED
