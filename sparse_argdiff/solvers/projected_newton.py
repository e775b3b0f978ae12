"""Newton's method on faces of a box, with at most one linear equality row.

    min f(y)   where   lower <= y <= upper,   c'y = b

Projected gradient steps look for the variables that their bounds hold, and a Newton step
on the others, projected back, finds the minimum of the face:

    [ H_FF  c_F ] [d]     [g_F]          F = variables inside, or pushed off their bound
    [ c_F'   0  ] [ν] = − [ 0 ]

All projections are in the metric of diag(H), so that the units of y do not matter.  For
large convex problems: a step costs products with H and a factor of the size of F, where an
interior point needs one of the size of y.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
from scipy import sparse

from ..arrays import Array, HostArray, epsilon, norm
from ..krylov.direct import KKTFactor
from ..krylov.kkt_matrix import DenseKKT
from ..krylov.saddle_point import SaddlePoint
from ..operators.block_matrices import is_explicit, principal
from ..operators.linear_operator import LinearOperator, aslinearoperator
from ..preconditioners import constraint_of
from ..problem.optimality import conditions, residual_of
from ..problem.problem import Problem, Solution
from ..problem.stationarity_check import check_conditions
from ..status import Status
from .active_set import active_set
from .box import Box, box_of, is_box
from .stopping import NewtonIterate, asks_to_stop

logger = logging.getLogger(__name__)

MAXITER = 500
_GRADIENT_STEPS = 10  # in a row, while they change the face
_TRIALS = 5  # of a Newton step, each a quarter of the last
_DIAGONAL = 1e-14  # what is added to a unit diagonal before it is factorised
_SPARSE = 500  # the same of a sparse matrix
_KEPT = 2000  # unknowns up to which the factor of the last face is kept
_LARGEST = 4000  # unknowns up to which a dense factor is taken


@dataclasses.dataclass
class _Run:
    """The point, its gradient and what was spent."""

    problem: Problem
    x: Array
    box: Box
    tol: float
    y: HostArray
    g: HostArray
    value: float
    n_grad: int = 1
    n_hvp: int = 0
    niter: int = 0
    alpha: float = 0.0
    curved: bool = False  # whether a face was found to have a minimum

    def grad(self, y: HostArray) -> Any:
        self.n_grad += 1
        return self.problem.grad(self.x, y)

    def value_at(self, y: HostArray) -> float:
        return self.problem.value(self.x, y) if self.problem.has_value else math.nan

    def move(self, y: HostArray, g: HostArray) -> None:
        self.y, self.g, self.value = y, g, self.value_at(y)

    def sides(self) -> tuple[HostArray, HostArray]:
        """Return which variables are at their lower and at their upper bound."""
        return self.y <= self.box.lower, self.y >= self.box.upper

    def forces(self) -> HostArray:
        """Return the forces g + ν c, with ν fitted to the variables inside.

        Without any, ν is what leaves the least force of the wrong sign.
        """
        low, high = self.sides()
        inside = ~(low | high)
        if self.box.row is None:
            return self.g
        c = self.box.row
        if np.any(inside & (c != 0.0)):
            return self.g + self.box.multiplier(self.g, inside) * c
        # −g_j / c_j bounds ν from one side, by the bound and the sign of c_j.
        moving = (c != 0.0) & (self.box.lower < self.box.upper)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = -self.g / c
        from_below = moving & (low == (c > 0.0))
        from_above = moving & (low != (c > 0.0))
        least = float(np.max(ratio[from_below], initial=-math.inf))
        most = float(np.min(ratio[from_above], initial=math.inf))
        ends = [end for end in (least, most) if math.isfinite(end)]
        return self.g + (sum(ends) / len(ends) if ends else 0.0) * c

    def misfit(self, r: HostArray) -> HostArray:
        """Return what forces there are that no bound holds."""
        low, high = self.sides()
        r = np.where(low, np.minimum(r, 0.0), r)
        r = np.where(high, np.maximum(r, 0.0), r)
        return np.where(self.box.lower == self.box.upper, 0.0, r)

    def gradient_step(self) -> bool:
        """Take the best step towards the projection of y − α g / D; False for none."""
        if not self.alpha > 0.0:
            d = self.g / self.box.D
            Hd: Any = self.problem.hess(self.x, self.y).matvec(d)
            bent = float(d @ Hd)
            self.n_hvp += 1
            self.alpha = float(self.g @ d) / bent if bent > 0.0 else 1.0
        q = self.box.project(self.y - self.alpha * self.g / self.box.D)
        assert q is not None
        p, r = q - self.y, self.forces()
        slope = float(r @ p)  # g'p, as c'p = 0, of terms that cancel less
        if not slope < 0.0:
            return False
        g = self.grad(q)
        end = float((g + (r - self.g)) @ p)
        bent = end - slope
        if bent > 0.0:
            self.alpha = float(p @ (self.box.D * p)) / bent
        if end > 0.0:
            q = self.y - slope / bent * p
            g = self.grad(q)
        self.move(q, g)
        return True

    def newton_step(self) -> tuple[bool, float]:
        """Take a projected Newton step; return whether it was whole, and its length.

        A length of infinity stands for no step.  Where the projection goes nowhere down, as
        along a direction without curvature, the variable that meets its bound first is
        left there, and the step is that of the others.
        """
        r = self.forces()
        low, high = self.sides()
        face = ~(low & (r >= 0.0)) & ~(high & (r <= 0.0))
        face &= self.box.lower < self.box.upper
        while True:
            (index,) = np.nonzero(face)
            if index.size == 0:
                self.curved = True
                return True, 0.0
            found = self.solve_face(index)
            self.curved = found is not None
            if found is None:
                return False, math.inf
            d = np.zeros_like(self.y)
            d[index] = found
            outcome = self.search(d, face)
            if outcome is not None:
                return outcome
            if not self.to_first_bound(d, face):
                return False, math.inf
            low, high = self.sides()
            face &= ~(low | high)

    def search(self, d: HostArray, face: HostArray) -> tuple[bool, float] | None:
        """Go along the projection of y + t d on a face, t = 1, ¼, …; None for no step."""
        share, box, r = 1.0, self.box.on_face(self.y, face), self.forces()
        for _ in range(_TRIALS):
            aim = self.y + share * d
            q = box.project(aim)
            assert q is not None
            p = q - self.y
            slope = float(r @ p)
            if slope < 0.0:
                g = self.grad(q)
                end = float((g + (r - self.g)) @ p)
                value = self.value_at(q)
                lower = value <= self.value + 0.1 * slope
                if end <= 0.0 or lower or (math.isnan(value) and end <= -0.5 * slope):
                    whole = share == 1.0 and bool(np.all((q == aim) | ~face))
                    whole = whole or (share == 1.0 and norm(q - aim) <= 1e-10 * norm(d))
                    self.move(q, g)
                    return whole, norm(np.sqrt(self.box.D) * p)
            share *= 0.25
        return None

    def to_first_bound(self, d: HostArray, face: HostArray) -> bool:
        """Go along d until a variable of the face meets its bound; False for none."""
        r = self.forces()
        if not float(r @ d) < 0.0:
            return False
        side = np.where(d > 0.0, self.box.upper, self.box.lower)
        with np.errstate(divide="ignore", invalid="ignore"):
            room = np.where(face & (d != 0.0), (side - self.y) / d, math.inf)
        first = int(np.argmin(room))
        if not (0.0 <= room[first] < 1.0):
            return False
        q = np.clip(self.y + float(room[first]) * d, self.box.lower, self.box.upper)
        q[first] = side[first]
        g = self.grad(q)
        if float((g + (r - self.g)) @ d) > 0.0:
            return False
        self.move(q, g)
        return True

    def solve_face(self, index: HostArray) -> HostArray | None:
        """Return the Newton step of the variables of an index; None for no descent."""
        row = None if self.box.row is None else self.box.row[index]
        g, scale = self.g[index], np.sqrt(self.box.D[index])
        entries = self.entries(index)
        if entries is not None:
            return _by_factor(entries, row, g, scale)
        H = principal(aslinearoperator(self.problem.hess(self.x, self.y)), index)
        H = LinearOperator(
            H.shape,
            H.matvec,
            H.matvec,
            dtype=g.dtype,
            symmetric=True,
            diagonal=self.box.D[index],
        )
        C = None if row is None or not np.any(row) else row[None, :]
        system = SaddlePoint(H, C, M=constraint_of(H, C))
        rhs = -g if C is None else np.append(-g, 0.0)
        found = system.solve(rhs, rtol=max(0.1 * self.tol, 10.0 * epsilon(g)))
        self.n_hvp += found.n_matvec
        failed = {Status.NOT_FINITE, Status.NEGATIVE_CURVATURE}
        step: Any = found.x[: index.size]
        return None if found.status in failed else step

    def entries(self, index: HostArray) -> HostArray | None:
        """Return H_FF where its entries are known and few enough, else None."""
        if index.size > _LARGEST:
            return None
        entries = getattr(self.problem.objective, "hess_entries", None)
        if callable(entries):
            found = entries(self.x, self.y, index)
            sign = -1.0 if self.problem.maximize else 1.0
            return None if found is None else sign * found
        H = self.problem.given("hess", self.x, self.y)
        if not is_explicit(H):
            return None
        sign = -1.0 if self.problem.maximize else 1.0
        if sparse.issparse(H):
            if index.size > _SPARSE:
                return None
            return sign * sparse.csr_array(H)[index][:, index].toarray()
        return sign * H[np.ix_(index, index)]


def _by_factor(
    H: HostArray, row: HostArray | None, g: HostArray, scale: HostArray
) -> HostArray | None:
    """Return argmin ½ d'Hd + g'd where c'd = 0, by a Cholesky factor; None for no minimum.

    H is scaled to a unit diagonal.  A reflection turns c into a multiple of the first unit
    vector, whose coordinate is then 0: H alone may be singular.
    """
    S, b = H / scale[:, None] / scale[None, :], -g / scale
    reflect = None
    if row is not None and np.any(row):
        reflect = row / scale
        reflect[0] += math.copysign(norm(reflect), float(reflect[0]))
        reflect /= norm(reflect)
        half = S @ reflect
        half -= float(reflect @ half) * reflect
        S -= 2.0 * (np.outer(reflect, half) + np.outer(half, reflect))
        b = b - 2.0 * float(reflect @ b) * reflect
        S, b = S[1:, 1:], b[1:]
    d = _definite_solve(S, b)
    if d is None:
        return None
    if reflect is not None:
        d = np.concatenate([np.zeros(1, d.dtype), d])
        d = d - 2.0 * float(reflect @ d) * reflect
    return d / scale if np.all(np.isfinite(d)) else None


def _definite_solve(S: HostArray, b: HostArray) -> HostArray | None:
    """Solve S d = b with what has to be added to a diagonal of about one for a factor."""
    if b.size == 0:
        return b
    added, plain = _DIAGONAL * b.size, S.diagonal().copy()
    while added <= 1e-3:
        S[np.diag_indices_from(S)] = plain + added
        with contextlib.suppress(np.linalg.LinAlgError):
            factor = scipy.linalg.cho_factor(S, lower=True, check_finite=False)
            found: HostArray = scipy.linalg.cho_solve(factor, b, check_finite=False)
            return found
        added *= 100.0
    return None


def projected_newton(
    problem: Problem,
    x: Array,
    y0: Array,
    *,
    tol: float = 1e-8,
    maxiter: int | None = None,
    callback: Callable[[NewtonIterate], Any] | None = None,
) -> Solution:
    """Minimise a convex f(x, ·) over a box, with at most one linear equality row.

    Parameters
    ----------
    tol : float
        Of the Newton step that is left, relative to y in the metric of the Hessian.
    maxiter : int, optional
        Newton steps; 500 by default.

    Returns
    -------
    Solution
        With the multiplier and the active set.  Where the steps stagnate it is that of
        ``active_set`` from there, and so for arrays of other libraries.

    References
    ----------
    J. J. Moré, G. Toraldo, "On the solution of large quadratic programming problems with
    bound constraints", SIAM J. Optim. 1 (1991) 93-113.  D. P. Bertsekas, "Projected Newton
    methods for optimization problems with simple constraints", SIAM J. Control Optim. 20
    (1982) 221-246.
    """
    if not is_box(problem):
        raise ValueError(
            "method 'projected_newton' is for bounds and at most one LinearEquality of "
            "one row; use 'active_set' or 'barrier'"
        )
    if not isinstance(y0, np.ndarray):
        options: dict[str, Any] = {"maxiter": maxiter, "callback": callback}
        return active_set(problem, x, y0, tol=tol, **options)
    box, n_hvp = box_of(problem, x, y0)
    y = box.project(y0)
    if y is None:
        apart = "no y within the bounds meets the equality row"
        return Solution(
            y=y0, x=x, status=Status.INFEASIBLE, n_hvp=n_hvp, warnings=(apart,)
        )
    approach = getattr(problem.objective, "approach", None)
    if callable(approach):
        y = box.project(approach(x, y))
        assert y is not None
    g: Any = problem.grad(x, y)
    run = _Run(problem, x, box, tol, y, g, math.nan, n_hvp=n_hvp)
    run.value = run.value_at(y)
    status = _iterate(run, MAXITER if maxiter is None else maxiter, callback)
    found = _finished(run, status)
    if found.status is not Status.STAGNATED:
        return found
    logger.debug("projected_newton: left to active_set")
    other = active_set(problem, x, run.y, tol=tol, maxiter=maxiter, callback=callback)
    return dataclasses.replace(
        other,
        niter=found.niter + other.niter,
        n_hvp=found.n_hvp + other.n_hvp,
        n_grad=found.n_grad + other.n_grad,
    )


def _iterate(run: _Run, maxiter: int, callback: Any) -> Status:
    """Alternate projected gradient steps and Newton steps; return how it ended."""
    root = np.sqrt(run.box.D)
    best = math.inf
    stalls = 0
    while True:
        r = run.forces()
        error = norm(run.misfit(r) / root)
        if not math.isfinite(error):
            return Status.NOT_FINITE
        # Forces and lengths have one unit; at a minimum inside the box g itself vanishes.
        size = max(norm(run.g / root), norm(root * run.y))
        iterate = NewtonIterate(
            run.niter,
            run.y,
            None if math.isnan(run.value) else run.value,
            error,
            run.n_hvp,
        )
        logger.debug("projected_newton: %d error %.2e", run.niter, error)
        if asks_to_stop(callback, iterate):
            return Status.STOPPED_BY_CALLBACK
        if error <= 4.0 * epsilon(run.y) * size:
            return Status.CONVERGED
        if run.niter >= maxiter:
            return Status.ITERATION_LIMIT
        stalls = 0 if error < 0.5 * best else stalls + 1
        best = min(best, error)
        small = error <= max(run.tol, 1e-7) * size
        if not small:
            _search_face(run)
        run.niter += 1
        whole, length = run.newton_step()
        if whole and length <= run.tol * norm(root * run.y) and small:
            return Status.CONVERGED
        if math.isinf(length) and small:
            return Status.CONVERGED  # nothing is left but rounding; it is judged
        if stalls > 100:
            return Status.STAGNATED


def _search_face(run: _Run) -> None:
    """Take projected gradient steps while they change the variables at bounds."""
    before = None
    for _ in range(_GRADIENT_STEPS):
        low, high = run.sides()
        if before is not None and np.array_equal(before, low | high):
            return
        before = low | high
        if not run.gradient_step():
            return


def _finished(run: _Run, status: Status) -> Solution:
    """Return the point as a solution, its conditions judged."""
    problem, y = run.problem, run.y
    nu = run.forces()
    multipliers = y[:0]
    if run.box.row is not None:
        c = run.box.row
        k = int(np.argmax(np.abs(c)))
        multipliers = np.array(
            [(nu[k] - run.g[k]) / c[k]] if np.any(c) else [0.0], y.dtype
        )
    found = Solution(
        y=y,
        x=run.x,
        value=None if math.isnan(run.value) else problem_value(problem, run.value),
        multipliers=multipliers,
        status=status,
        niter=run.niter,
        n_hvp=run.n_hvp,
        n_grad=run.n_grad,
    )
    if status is not Status.CONVERGED:
        return found
    least = max(run.tol, 1e3 * epsilon(y))
    judged = check_conditions(problem, found, least, "tol")
    solution = judged.solution
    at = conditions(problem, run.x, y, solution.multipliers)
    left = residual_of(at, solution.active)
    known = run.curved or getattr(problem.objective, "convex", False)
    wrong = judged.status is not Status.CONVERGED or not known
    return dataclasses.replace(
        solution,
        factor=None if wrong else _kept_factor(run, solution),
        status=Status.STAGNATED if wrong else Status.CONVERGED,
        residual=left,
        residual_norm=norm(left),
        n_hvp=run.n_hvp + judged.n_hvp,
        n_grad=run.n_grad + 3,
    )


def _kept_factor(run: _Run, solution: Solution) -> KKTFactor | None:
    """Return the factor of the face at the solution for its derivatives, None without one.

    The entries are those of the Newton step, in units that make the diagonal one.
    """
    active, n = solution.active, run.y.size
    assert active is not None
    fixed: Any = active.fixed
    (index,) = np.nonzero(~fixed)
    if not 0 < index.size <= _KEPT:
        return None
    entries = run.entries(index)
    if entries is None:
        return None
    scale = 1.0 / np.sqrt(run.box.D[index])
    S = (entries * scale[:, None] * scale[None, :]).astype(float)
    shift = _DIAGONAL * index.size
    S[np.diag_indices_from(S)] += shift
    _, not_definite = scipy.linalg.lapack.dpotrf(S, lower=1)
    if not_definite:
        return None
    S[np.diag_indices_from(S)] -= shift
    rows = np.zeros((0, index.size))
    if run.box.row is not None:
        rows = run.box.row[None, index] * scale
    p = rows.shape[0]
    matrix = DenseKKT(S, rows)
    shifts = np.concatenate([np.full(index.size, shift), np.full(p, -shift)])
    if not matrix.factorise(0.0 * shifts, shifts):
        return None
    units = np.concatenate([scale, np.ones(p)])
    return KKTFactor(
        matrix=matrix,
        left=units,
        right=units,
        kept=np.ones(units.size, bool),
        index=np.concatenate([index, n + np.arange(p)]),
        size=n + p,
        y=solution.y,
        x=solution.x,
        active=active,
    )


def problem_value(problem: Problem, value: float) -> float:
    """Return the user's own f from the function that is minimised."""
    return -value if problem.maximize else value
