"""The primal-dual interior-point method: its main loop, along the central path.

    r_d = 0,    r_e = 0,    r_g = 0,    w_i z_i = μ → 0        by Newton's method

Two modes choose μ and the step length (Nocedal, Wächter & Waltz 2009).  The free mode takes
Mehrotra's predictor-corrector steps while the residuals fall.  Where they do not, or
f has negative curvature, the monotone mode lowers the barrier function for a μ that falls
in steps (``barrier_merit``), with Hessians that are shifted where they must be
(``inertia_correction``).
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from collections.abc import Callable
from typing import Any

from ...arrays import Array, epsilon, namespace, norm
from ...problem.problem import ActiveSet, Problem, Solution
from ...status import Status
from ..infeasibility import detect_infeasible_or_unbounded
from ..last_step import LONG, LastStep
from ..stopping import FAR, NewtonIterate, asks_to_stop, falls_beyond
from .as_solution import strong_and_weak, to_solution
from .barrier_merit import BarrierMerit, enter_monotone_mode
from .curvature import hessian, leads_down
from .inertia_correction import convex_step
from .iterate import Direction, PrimalDualIterate, Residuals, evaluate, largest
from .newton_system import NewtonSystem
from .predictor_corrector import mehrotra_step, take_step
from .standard_form import standard_form

logger = logging.getLogger(__name__)

MAXITER = 300
_PATIENCE = (
    25  # steps in which the error must fall by a tenth; 4 times in monotone mode
)
_SLOW = 8  # steps of the free mode in which it must halve, under curved rows
_REFUSALS = 3  # lengths of a step of the free mode, in two steps in a row
_SHIFTS = 16  # trials of a shift
_FORCE = 10.0  # of a row at the start, relative to f_Y: too small costs iterations
_FORCING = 1e-3  # residual of an iterative solve over the error
_BALANCE = 3e-3  # least target for μ, relative to the residuals as at the start
_NOT_CONVEX = (
    "negative curvature was met where the constraints leave freedom: the problem is not "
    "convex; bring a solution of another solver (SciPy's trust-constr, cyipopt) as "
    "Solution(y=..., x=...), start nearer to the minimum that is meant, or add curvature"
)


@dataclasses.dataclass(frozen=True)
class PathState:
    """A run along the central path: where it stands and what was spent.

    Attributes
    ----------
    now, best : Residuals
        The last iterate, and that of the smallest error.
    balance : float
        What μ is aimed at is at least this times the residuals.
    errors : tuple of float
        Of the iterates so far, in this mode.
    merit : BarrierMerit or None
        Of the monotone mode; None in the free mode.
    shift : float
        Of the Hessian, when one was needed last.
    nonconvex : bool
        Whether negative curvature was met.
    unverified : bool
        Whether the last step does not prove that the point is near a minimum.
    last : LastStep
        The step to the last iterate.
    moved : array (n,) or None
        Its change of y.
    steepest : float
        The largest ‖f_Y‖ so far.
    refused : int
        Steps in a row of which the residuals refused the first ``_REFUSALS`` lengths.
    closes_gap : bool
        Whether the end of the path is wanted to tol in y, not in f alone.
    note : str
        A caveat for the user.
    """

    now: Residuals
    best: Residuals
    balance: float
    errors: tuple[float, ...] = ()
    niter: int = 0
    n_hvp: int = 0
    n_grad: int = 0
    merit: BarrierMerit | None = None
    shift: float = 0.0
    nonconvex: bool = False
    unverified: bool = True
    last: LastStep = dataclasses.field(default_factory=LastStep)
    moved: Array | None = None
    steepest: float = 0.0
    refused: int = 0
    closes_gap: bool = False
    note: str = ""

    @property
    def may_change_mode(self) -> bool:
        """Whether the monotone mode can take over."""
        now = self.now
        inequalities = now.point.w.shape[0] > 0
        return self.merit is None and now.value is not None and inequalities

    def recorded(self) -> PathState:
        """Return the state with the error of the last iterate taken down."""
        now, best = self.now, self.best
        best = now if now.error < best.error else best
        return dataclasses.replace(self, best=best, errors=(*self.errors, now.error))

    def plus(self, niter: int = 0, n_hvp: int = 0, n_grad: int = 0) -> PathState:
        """Return the state with costs added."""
        return dataclasses.replace(
            self,
            niter=self.niter + niter,
            n_hvp=self.n_hvp + n_hvp,
            n_grad=self.n_grad + n_grad,
        )

    def after(
        self, new: Residuals | None, n_hvp: int, n_grad: int
    ) -> tuple[PathState, bool]:
        """Return the state at the next iterate, if there is one, with costs added."""
        if new is None:
            return self.plus(n_hvp=n_hvp, n_grad=n_grad), False
        state = self.plus(niter=1, n_hvp=n_hvp, n_grad=n_grad)
        moved = new.point.y - self.now.point.y
        last = self.last.followed_by(largest(moved), self.now.error, new.error)
        steepest = max(self.steepest, norm(self.now.grad))
        state = dataclasses.replace(state, now=new, last=last, moved=moved)
        return dataclasses.replace(state, steepest=steepest), True

    def solution(
        self,
        status: Status,
        active: ActiveSet | None = None,
        multipliers: Array | None = None,
    ) -> Solution:
        """Return the best iterate as a solution, with its own active set or another."""
        notes = [self.note] if self.note else []
        if self.nonconvex and not status.acceptable:
            notes.append(_NOT_CONVEX)
        found = to_solution(self.best, status, active, multipliers)
        return dataclasses.replace(
            found,
            niter=self.niter,
            n_hvp=self.n_hvp,
            n_grad=self.n_grad,
            warnings=tuple(notes),
        )


def is_endless(now: Residuals, last: LastStep, steepest: float, step: Array) -> bool:
    """Tell whether steps of no less length lead to where f_Y vanishes, as in exp(−y).

    With forces at bounds f_Y does not: then all conditions are met on the way.  Where f is
    known to have a minimiser its curvature is small, not none.
    """
    form, y = now.form, now.point.y
    half = math.sqrt(epsilon(y))
    if last.not_shorter < LONG or last.length <= half * largest(y):
        return False
    if norm(now.grad) > half * steepest and now.error > half:
        return False
    xp = namespace(y)
    ahead = xp.where(step < 0.0, form.lower - y, form.upper - y)
    sure = xp.abs(step) > half * largest(step)  # of what is rounding bounds cut the ray
    ratio = xp.where(sure, ahead / xp.where(sure, step, 1.0 + 0.0 * y), math.inf)
    t = min(FAR, float(xp.min(ratio)))
    far = xp.clip(y + t * step, form.lower, form.upper)
    falls = falls_beyond(lambda y: form.problem.grad(form.x, y), y, far, step)
    return falls and not form.problem.has_minimiser(form.x)


def start(problem: Problem, x: Array, y0: Array, tol: float) -> PathState:
    """Return a first iterate: within the bounds, slacks make up for the other rows."""
    xp = namespace(y0)
    y = xp.asarray(y0, copy=True)
    form = standard_form(problem, x, y, tol)
    width = form.upper - form.lower
    inside = xp.minimum(0.1 + xp.zeros_like(y), 0.25 * width)
    y = xp.clip(y, form.lower + inside, form.upper - inside)
    y = xp.where(form.lower == form.upper, form.lower, y)
    values = form.inequality_values(y)
    violation = float(xp.max(values)) if values.shape[0] else 0.0
    room = -float(xp.min(values)) if values.shape[0] else 1.0
    least = max(violation, 0.1 * math.sqrt(min(1.0, room)) if room > 0.0 else 0.1)
    rows, low, high = form.split(values)
    w = xp.concat([xp.where(-rows > least, -rows, least + 0.0 * rows), -low, -high])
    point = PrimalDualIterate(y, xp.zeros_like(form.e_scale), _FORCE * least / w, w)
    now = evaluate(form, point)
    balance = _BALANCE * now.mu / now.size if now.size else 0.0
    return PathState(now, now, balance, n_grad=2)


def follow_path(
    state: PathState,
    tol: float,
    maxiter: int,
    callback: Callable[[NewtonIterate], Any] | None,
) -> tuple[Status, PathState]:
    """Follow the central path from the best iterate so far, until its error is <= tol."""
    state = dataclasses.replace(state, now=state.best, errors=())
    while True:
        state = state.recorded()
        status, state = stop_test(state, tol, maxiter, callback)
        if status is None:
            status, state = advance(state, tol)
        if status is not None:
            return status, state


def advance(state: PathState, tol: float) -> tuple[Status | None, PathState]:
    """Take a Newton step, in the monotone mode where the free mode makes no progress."""
    if not is_stalling(state):
        state, moved = newton_step(state, tol)
        if moved:
            return None, state
    if state.best.error <= tol:  # what was met before the last steps still is
        return _verified(dataclasses.replace(state, now=state.best))
    if state.best.error <= 1e3 * epsilon(state.now.point.y):
        verified, state = _verified(dataclasses.replace(state, now=state.best))
        return (Status.ROUNDING_LIMIT if verified.acceptable else verified), state
    # The multipliers of a curved contradiction grow slowly: less will do.
    status, state = _without_solution(state, tol, far=30.0)
    if status is None and state.may_change_mode:
        state, moved = newton_step(_in_monotone_mode(state), tol)
        if moved:
            return None, state
    stalled = Status.NEGATIVE_CURVATURE if state.nonconvex else Status.STAGNATED
    return status or stalled, state


def newton_step(state: PathState, tol: float) -> tuple[PathState, bool]:
    """Return the state after a step, and whether the step makes progress."""
    now, merit = state.now, state.merit
    force, length = now.scales
    if merit is not None:
        least = tol * length * (min(force, tol * length) if state.closes_gap else force)
        merit = merit.reduced(now, 0.1 * least)
    mu = 0.0 if merit is None else merit.mu
    H, note = hessian(now)
    system, step, shift, convex = convex_step(
        lambda shift: NewtonSystem(now, H, _rtol(now, tol), shift),
        lambda system: system.solve(mu - now.point.w * now.point.z),
        H,
        state.shift,
        trials=1 if state.may_change_mode else _SHIFTS,
    )
    curved = shift > 0.0 or not convex
    state = dataclasses.replace(
        state,
        n_hvp=state.n_hvp + step.n_hvp,
        merit=merit,
        shift=shift or state.shift,
        nonconvex=state.nonconvex or curved,
        unverified=curved or system.factor is None,
        note=note,
    )
    if not math.isfinite(norm(step.y)):
        return state, False
    if not convex and state.may_change_mode:
        return newton_step(_in_monotone_mode(state), tol)
    if merit is None:
        return _free_step(state, system, step)
    return _monotone_step(state, merit, system, step)


def _free_step(
    state: PathState, system: NewtonSystem, affine: Direction
) -> tuple[PathState, bool]:
    """Take the predictor-corrector step, or the predictor alone."""
    direction = mehrotra_step(system, affine, state.balance * state.now.size)
    new, n_grad = take_step(state.now, direction)
    n_hvp = 0 if direction is affine else direction.n_hvp
    refused = state.refused + 1 if n_grad > _REFUSALS else 0
    if new is None and direction is not affine:
        new, more = take_step(state.now, affine)
        n_grad += more
    state = dataclasses.replace(state, refused=refused)
    return state.after(new, n_hvp, n_grad)


def _monotone_step(
    state: PathState, merit: BarrierMerit, system: NewtonSystem, step: Direction
) -> tuple[PathState, bool]:
    """Take the Newton step for the μ of the merit function, as far as that falls."""
    curvature, n_hvp = 0.0, 0
    if state.now.violation > 0.0:
        curvature, n_hvp = system.curvature(step.y), 1
    merit, slope = merit.descent(state.now, step, curvature)
    correction = None
    if state.now.form.curved:
        correction = functools.partial(system.second_order_correction, step)
    new, more, n_grad = merit.backtrack(state.now, step, slope, correction)
    return dataclasses.replace(state, merit=merit).after(new, n_hvp + more, n_grad)


def stop_test(
    state: PathState,
    tol: float,
    maxiter: int,
    callback: Callable[[NewtonIterate], Any] | None,
) -> tuple[Status | None, PathState]:
    """Say whether and how to stop before the next step."""
    now = state.now
    logger.debug("barrier %d: mu %.2e, error %.2e", state.niter, now.mu, now.error)
    if not now.finite:
        return Status.NOT_FINITE, state
    moved = state.moved
    if moved is not None and is_endless(now, state.last, state.steepest, moved):
        return Status.UNBOUNDED, dataclasses.replace(state, best=now)
    # A gap of tol leaves rows that are weakly active √tol away.
    met = now.error <= tol and state.last.ahead <= math.sqrt(tol) * now.scales[1]
    if met and not (_leaves_a_gap(state, tol) and state.niter < maxiter):
        return _verified(state)
    force, y = norm(now.r_d) * now.form.unit, now.point.y
    iterate = NewtonIterate(state.niter, y, now.value, force, state.n_hvp)
    if asks_to_stop(callback, iterate):
        return Status.STOPPED_BY_CALLBACK, state
    status, state = _without_solution(state, tol)
    if status is not None:
        return status, dataclasses.replace(state, best=now)
    return (Status.ITERATION_LIMIT if state.niter >= maxiter else None), state


def _leaves_a_gap(state: PathState, tol: float) -> bool:
    """Tell whether y may be off by more than tol of its length, and a step would mend it.

    A gap of w z in f is √(w z) in y, in coordinates of curvature 1.  Where every row is
    decided the errors fall faster than by any factor, where one is weak by less than ten.
    """
    now, errors = state.now, state.errors
    falls = state.closes_gap and len(errors) > 1 and errors[-1] <= 0.5 * errors[-2]
    gap = largest(now.point.w * now.point.z)
    length = tol * now.scales[1]
    return falls and gap > length * length


def _verified(state: PathState) -> tuple[Status, PathState]:
    """Tell a minimum from a stationary point that negative curvature leaves."""
    strong, weak = strong_and_weak(state.now)
    if not state.unverified and not bool(namespace(weak).any(weak)):
        return Status.CONVERGED, state
    status, n_hvp = leads_down(state.now, strong, weak)
    state = dataclasses.replace(
        state,
        n_hvp=state.n_hvp + n_hvp,
        nonconvex=state.nonconvex or status is Status.NEGATIVE_CURVATURE,
    )
    return status or Status.CONVERGED, state


def is_stalling(state: PathState) -> bool:
    """Tell whether the errors have not fallen as they should.

    Where a gradient is far from linear, as log y near 0, the residuals refuse steps that
    lead on and fall a little with each short one: a merit function allows longer ones.
    """
    errors = state.errors
    wait = _PATIENCE if state.merit is None else 4 * _PATIENCE
    if len(errors) > wait and min(errors) > 0.9 * min(errors[:-wait]):
        return True
    if state.refused > 1 and state.may_change_mode:
        return True
    now, values = state.now, state.now.inequality_values
    if not (now.form.curved and state.may_change_mode) or len(errors) <= _SLOW:
        return False
    above = values[values > 0.0]
    feasible = max(largest(now.r_e), largest(above)) <= 1e-2 * now.scales[1]
    return feasible and min(errors) > 0.5 * min(errors[:-_SLOW])


def _in_monotone_mode(state: PathState) -> PathState:
    merit, now = enter_monotone_mode(state.now)
    return dataclasses.replace(state, merit=merit, now=now, errors=())


def _without_solution(
    state: PathState, tol: float, far: float = 1e6
) -> tuple[Status | None, PathState]:
    """Recognise an infeasible or an unbounded problem, see ``infeasibility``."""
    status, note, n_hvp = detect_infeasible_or_unbounded(state.now, tol, far)
    note = note or state.note
    return status, dataclasses.replace(state, note=note, n_hvp=state.n_hvp + n_hvp)


def _rtol(now: Residuals, tol: float) -> float:
    """Return the tolerance of the iterative solves, proportional to the error.

    That keeps the convergence superlinear: S. C. Eisenstat, H. F. Walker, "Choosing the
    forcing terms in an inexact Newton method", SIAM J. Sci. Comput. 17 (1996) 16-32.
    """
    least = max(0.01 * tol, 100.0 * epsilon(now.point.y))
    return min(max(least, _FORCING * now.error), 1e-3)
