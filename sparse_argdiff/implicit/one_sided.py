"""The directional derivative where constraints are weakly active, by a small program.

    min ½ d'H d + d'(B u)    s.t.   C_i d  = −h_i,X u     rows that push
                                    W_i d <= −h_i,X u     rows at zero that do not

d is the limit of (g(x + t u) − g(x)) / t for t → 0, t > 0.  With d₀ of the rows that push
alone, K their matrix, and c = W d₀ + h_X u, it is

    d = d₀ − K⁻¹W' μ,     0 <= μ ⟂ S μ − c >= 0,     S = W K⁻¹ W'

Where rows depend on each other ν is first chosen among all multipliers as one that maximises
ν'(h_X u), a linear program.

References
----------
D. Ralph, S. Dempe, "Directional derivatives of the solution of a parametric nonlinear
program", Math. Program. 70, 1995.  C. L. Lawson, R. J. Hanson, *Solving Least Squares
Problems*, 1974, chapter 23, least distance programming.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, sparse

from ..arrays import Array, HostArray, as_vector, asarray, namespace, norm, zeros
from ..arrays.transfer import to_host
from ..krylov import KrylovResult
from ..operators.block_matrices import is_explicit
from ..operators.linear_operator import aslinearoperator
from ..problem.active_constraints import Touching, touching
from ..problem.metric import metric_of
from ..problem.optimality import conditions
from ..problem.problem import ActiveSet, Problem, Solution
from ..status import Status, raise_or_warn
from .checked_solve import LinearizedSolve, checked_solution
from .one_sided_kinks import tangent_at_kinks

MOST = 1000  # weakly active rows and bounds of one problem
_IMMOBILE = 1e-9  # S_ii, of what it is without the rows that push, that is none
_UNBOUNDED = 3  # of scipy.optimize.linprog
_NO_Y = "no y meets the constraints for x + t u with a small t > 0."
_MEETS = 1e-8  # by how much, relatively, the small program may miss its conditions


class OneSided(NamedTuple):
    """The directional derivative of y and all multipliers, (N,), and what it took."""

    tangent: Array
    krylov: KrylovResult
    n_hvp: int
    warnings: tuple[str, ...]


def one_sided_tangent(
    problem: Problem, solution: Solution, u: Any, options: dict[str, Any]
) -> OneSided | None:
    """Return the directional derivative along u, None where nothing is weakly active.

    ``options`` are those of the linear solves.
    """
    solution, n_hvp, _ = checked_solution(
        problem,
        solution,
        options.get("stationarity", 1e-3),
        options.get("on_failure", "raise"),
    )
    if solution.active is None:
        return None
    if problem.nonsmooth:
        entering = tangent_at_kinks(problem, solution, u, options)
        if entering is None:
            return None
        return OneSided(*entering[:2], entering.n_hvp + n_hvp, entering.warnings)
    given = touching(problem, solution)
    u = as_vector("u", u, solution.x.shape[0])
    motion = _motion(problem, solution, u)
    solution, at, lost = _with_moving_multipliers(problem, solution, given, motion)
    if lost:
        detail, on_failure = _NO_Y, options.get("on_failure", "raise")
        what = "the one-sided derivative"
        raise_or_warn(Status.INFEASIBLE, solution, what, detail, on_failure)
    if at is given and not at.weak:
        return None
    weak = sum(int(namespace(m).count_nonzero(m)) for m in at[3:])
    if weak > MOST:
        raise ValueError(
            f"one_sided: {weak} rows and bounds are weakly active, at most {MOST} are "
            "treated; LogBarrier gives the average of both sides"
        )
    found = _along(problem, solution, at, u, motion, options)
    return found._replace(n_hvp=found.n_hvp + n_hvp)


class _Motion(NamedTuple):
    """By how much h and the bounds change along u: (p,), (q,), (n,), (n,)."""

    equality: Array
    rows: Array
    low: Array
    high: Array


def _motion(problem: Problem, solution: Solution, u: Array) -> _Motion:
    x, y, none = solution.x, solution.y, zeros((0,), solution.y)
    moved = []
    for rows in (problem.equalities, problem.inequalities):
        if rows is None:
            moved.append(none)
            continue
        jac_x = rows.jac_x(x, y)
        moved.append(0.0 * rows.value(x, y) if jac_x is None else jac_x @ u)
    bounds = problem.bound_derivatives(x, y) if problem.bounded else (None, None)
    return _Motion(*moved, *(0.0 * y if b is None else b @ u for b in bounds))


def _along(
    problem: Problem,
    solution: Solution,
    at: Touching,
    u: Array,
    motion: _Motion,
    options: dict[str, Any],
) -> OneSided:
    """Return the derivative along u for known multipliers."""
    y = solution.y
    pushing = ActiveSet(at.rows, at.rows & False, at.low | at.high, at.low & False)
    held = dataclasses.replace(solution, active=pushing).judged_for(problem)
    solve = LinearizedSolve(problem, held, **options)
    system = solve.system
    u = solve.vector("u", u, solution.x.shape[0])
    first = solve.push_forward(u)
    tangent = system.tangent(first.x, u)
    notes = tuple(w for w in solve.warnings if w not in solve.derivative_caveats)
    if not at.weak:
        return OneSided(tangent, first, solve.n_hvp, notes)
    W, limits, places = _weak_rows(problem, solution, at, motion)
    xp, d = namespace(y), tangent[: system.n]
    c, terms = W.T @ d - limits, xp.abs(W).T @ xp.abs(d) + xp.abs(limits)
    unknowns = system.right_hand_side(W)
    Z = system.expand(solve(unknowns).x)
    S = W.T @ Z[: system.n, :]
    lengths = metric_of(
        system.H if system.index is None else problem.hess(solution.x, y), y, d
    )
    reach = xp.sum((W / lengths[0].root[:, None]) ** 2, axis=0)
    mu, wrong = _complementary(*(np.asarray(to_host(v)) for v in (S, c, terms, reach)))
    if wrong is not None:
        detail = (
            _NO_Y
            if wrong is Status.INFEASIBLE
            else "the program of the weakly active rows was not solved."
        )
        raise_or_warn(
            wrong, tangent, "the one-sided derivative", detail, solve.on_failure
        )
        mu = np.full(mu.shape, np.nan)
    pushes = asarray(mu, y)
    tangent = tangent - Z @ pushes
    own = zeros((tangent.shape[0],), y)
    for j, place in enumerate(places):
        if place is not None:
            own[place] = own[place] + pushes[j]
    return OneSided(tangent + own, first, solve.n_hvp, notes)


def _weak_rows(
    problem: Problem, solution: Solution, at: Touching, motion: _Motion
) -> tuple[Array, Array, list[int | None]]:
    """Return W' (n, w), the limits of W d, and each row's place among (y, multipliers)."""
    xp, x, y = namespace(solution.y), solution.x, solution.y
    n, columns, limits = y.shape[0], [], []
    places: list[int | None] = []
    p = motion.equality.shape[0]
    (rows,) = xp.nonzero(at.weak_rows)
    if rows.shape[0]:
        assert problem.inequalities is not None
        jac = aslinearoperator(problem.inequalities.jac(x, y))
        for i in rows:
            unit = zeros((jac.shape[0],), y)
            unit[i] = 1.0
            columns.append(jac.T @ unit)
            places.append(n + p + int(i))
        limits.append(-motion.rows[rows])
    for mask, sign, moved in (
        (at.weak_low, -1.0, motion.low),
        (at.weak_high, 1.0, motion.high),
    ):
        (index,) = xp.nonzero(mask)
        for i in index:
            unit = zeros((n,), y)
            unit[i] = sign
            columns.append(unit)
            places.append(None)
        limits.append(sign * moved[index])
    return xp.stack(columns, axis=1), xp.concat(limits), places


def _complementary(
    S: HostArray, c: HostArray, terms: HostArray, reach: HostArray
) -> tuple[HostArray, Status | None]:
    """Solve 0 <= μ ⟂ S μ − c >= 0 for a symmetric positive semidefinite S.

    ``terms``: what cancels in c; ``reach``: S_ii without the rows that push.  μ is that of the
    least e with −F e >= c, S = F F': a problem of nonnegative least squares.
    """
    S, mu = 0.5 * (S + S.T), np.zeros(c.shape)
    if not (np.isfinite(S).all() and np.isfinite(c).all()):
        return mu, Status.NOT_FINITE
    unit = np.sqrt(np.finfo(S.dtype).eps)
    # Rows in the unit of the motion that they can make; what none can is left to c alone.
    diagonal = np.sqrt(np.maximum(np.diag(S), 0.0))
    mobile = diagonal > np.sqrt(_IMMOBILE * reach)
    if (c[~mobile] > unit * terms[~mobile]).any():
        return mu, Status.INFEASIBLE
    scale = diagonal[mobile]
    reduced, target = (
        S[np.ix_(mobile, mobile)] / np.outer(scale, scale),
        c[mobile] / scale,
    )
    largest = target.max(initial=0.0)
    if largest <= 0.0:
        return mu, None
    target = target / largest
    values, vectors = np.linalg.eigh(reduced)
    kept = values > 1e-12 * values.max()
    F = vectors[:, kept] * np.sqrt(values[kept])
    E = np.vstack([-F.T, target])
    last = np.zeros(E.shape[0])
    last[-1] = 1.0
    weights, left = optimize.nnls(E, last, maxiter=100 * E.shape[1])
    if left <= unit:
        return mu, Status.INFEASIBLE
    acting = weights > 0.0
    found = np.zeros(target.shape)
    found[acting] = np.linalg.lstsq(reduced[np.ix_(acting, acting)], target[acting])[0]
    slack = reduced @ found - target
    worst = max(-found.min(initial=0.0), -slack.min(initial=0.0))
    worst = max(worst, np.abs(slack[acting]).max(initial=0.0))
    if worst > _MEETS * max(1.0, found.max(initial=0.0)):
        return mu, Status.STAGNATED
    mu[mobile] = np.maximum(found, 0.0) * largest / scale
    return mu, None


def _with_moving_multipliers(
    problem: Problem, solution: Solution, at: Touching, motion: _Motion
) -> tuple[Solution, Touching, bool]:
    """Return the solution with multipliers that maximise ν'(h_X u), where there is a choice.

    There is none where the rows at zero are independent, and none is needed where they
    do not move: the program is then the same for all.  Also whether no y is left along u.
    """
    moves = any(
        norm(part) > 0.0
        for part in (
            motion.equality,
            motion.rows[at.rows | at.weak_rows],
            motion.low[at.low | at.weak_low],
            motion.high[at.high | at.weak_high],
        )
    )
    x, y = solution.x, solution.y
    found = conditions(problem, x, y, solution.multipliers)
    E, J = found.jacobians
    if not moves or not all(is_explicit(C) for C in (E, J) if C is not None):
        return solution, at, False
    metric, _ = metric_of(problem.hess(x, y), y, found.grad)
    inverse = 1.0 / np.asarray(to_host(metric.root))
    n, p = y.shape[0], motion.equality.shape[0]
    masks = [np.asarray(to_host(m)) for m in at]
    rows = np.flatnonzero(masks[0] | masks[3])
    low, high = (np.flatnonzero(masks[j] | masks[j + 3]) for j in (1, 2))
    eye = sparse.eye_array(n, format="csr")
    parts = [] if E is None else [sparse.csr_array(to_host(E))]
    parts += [] if J is None else [sparse.csr_array(to_host(J))[rows]]
    stacked = sparse.vstack([*parts, -eye[low], eye[high]], format="csr")
    C = (stacked @ sparse.diags_array(inverse)).toarray()
    sizes = np.linalg.norm(C, axis=1)
    sizes[sizes == 0.0] = 1.0
    C = C / sizes[:, None]
    if np.linalg.matrix_rank(C, tol=1e-10) == C.shape[0]:
        return solution, at, False
    speed = np.concatenate(
        [
            np.asarray(to_host(motion.equality)),
            np.asarray(to_host(motion.rows))[rows],
            np.asarray(to_host(motion.low))[low],
            -np.asarray(to_host(motion.high))[high],
        ]
    )
    force = -np.asarray(to_host(found.grad)) * inverse
    return _chosen(solution, at, C, sizes, speed, force, (p, rows, low, high))


def _chosen(
    solution: Solution,
    at: Touching,
    C: HostArray,
    sizes: HostArray,
    speed: HostArray,
    force: HostArray,
    places: tuple[int, HostArray, HostArray, HostArray],
) -> tuple[Solution, Touching, bool]:
    """Solve max ν'(h_X u) over C'ν = −f_Y, ν >= 0 of inequalities; keep ν where it fails."""
    p, rows, low, high = places
    size = np.abs(force).max(initial=0.0) or 1.0
    bounds = [(None, None)] * p + [(0.0, None)] * (C.shape[0] - p)
    # The rows of C' that are no combination of others, so that rounding makes no contradiction.
    basis = np.linalg.svd(C.T, full_matrices=False)[0]
    kept = basis[:, : np.linalg.matrix_rank(C, tol=1e-10)]
    found = optimize.linprog(
        -speed / sizes, A_eq=kept.T @ C.T, b_eq=kept.T @ force / size, bounds=bounds
    )
    if found.status != 0:
        return solution, at, found.status == _UNBOUNDED
    nu = found.x * size / sizes
    positive = found.x > 1e-9
    y, multipliers = solution.y, np.array(to_host(solution.multipliers))
    multipliers[:p] = nu[:p]
    q = multipliers.shape[0] - p
    multipliers[p:] = 0.0
    multipliers[p + rows] = nu[p : p + rows.size]
    first = p + rows.size
    parts = (
        (rows, q, positive[p:first]),
        (low, y.shape[0], positive[first : first + low.size]),
    )
    parts += ((high, y.shape[0], positive[first + low.size :]),)  # type: ignore[assignment]
    pushes, weak = [], []
    for index, length, on in parts:
        push, rest = np.zeros(length, dtype=bool), np.zeros(length, dtype=bool)
        push[index], rest[index] = on, ~on
        pushes.append(push)
        weak.append(rest)
    xp = namespace(y)
    masks = [asarray(mask, y, xp.bool) for mask in (*pushes, *weak)]
    new = Touching(*masks)
    chosen = dataclasses.replace(solution, multipliers=asarray(multipliers, y))
    return chosen, new, False
