"""Inexact projected L-BFGS: each lower solve is as accurate as the decision it serves.

    d = − H z  on the free variables,    accept x₊ = P(x + t d)  when  V₊ + e₊ ≤ V − e + c z'(x₊ − x)

A trial is accepted or refused once the errors of both values, e, cannot change the verdict,
and is solved more accurately only until then; the adjoint is solved until its error leaves nine
tenths of z.  H starts from the scale of the coordinates, 1 / (|z_j| + δ max |z|) in
log-penalties, where the gradient of F is the diagonal of its curvature, with less than
δ max |z| where the last moves have shown less.

V is the value that the adjoint corrects, e half its correction.  The tolerances of y and of
the adjoint live apart.  That of y follows the decrease, so that e is a tenth of it.  That of
the adjoint follows ‖z‖: the error of z is the tolerance times a length that refined gradients
measure, the largest ‖z‖ so far where none was.  A search ends where the values contradict the
slope z'd, and both are refined tenfold; else it backtracks.  Where y has a support or an
active set, F has kinks: one parameter's search narrows its bracket once two trials were refused,
that of several, where nothing else is left, and goes on by the gradients on all sides (``bundle``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..arrays import Array, copied, dot, epsilon, namespace, norm
from ..hypergradient.result import HypergradientResult
from ..hypergradient.upper_objective import corrected_value
from ..problem.problem import Solution
from ..status import ConvergenceError, Status
from .bundle import Descent, descend
from .kink import Bracket, bracket_kink
from .result import BilevelResult
from .run import Memory, Run

_DECREASE = 1e-4  # c
_BAR = 0.5  # share of a correction that is the error of the corrected value
_LOOSEST = 0.03  # tolerance of y,
_LOOSEST_ADJOINT = 0.1  # and of the adjoint
_FIRST = 0.1  # share of both at x0, where they do not tell the gradient from its error
_LOOSEST_ACTIVE = 1e-4  # of y with an active set, which loose solves do not settle
_PAIRS = 20
_LEVEL = 0.1  # δ
_PLATEAU = 0.2  # of δ max |z|: a coordinate that shows less is on a plateau
_SHOWING = 3  # moves that show where less than δ max |z| is to be added
_CAP = 1.0  # of the largest coordinate of the first steps
_CAPPED = 2  # full steps of that length, after which it doubles
_SHARPER = 0.01  # tolerance of a trial over that of the step, before it is refused
_DECIDED = 0.3  # bar that a sharper solve aims at, over the distance to the limit
_MARGIN = 0.1  # bar that the next solve aims at, over the last decrease
_LOOSER = 10.0  # tolerance of a solve over that of the last one
_SHRUNK = 3.0  # fall of ‖z‖ in one step after which the adjoint is solved again
_TRIALS = 20  # of a search
_ROUNDS = 30  # of searches from one iterate
_CURVED = 1e-3  # least cosine of a move and the change of the gradient
_FLATTER = 0.9  # slope after a step over that before, where values do not tell
_CRAWLING = 10  # steps that lower F by no more than the tolerance each
_REFUSED = 2  # trials before a kink of F is looked for
_FAILURES = 3  # of evaluations at an iterate that has been evaluated before


def inexact_lbfgs(run: Run, x0: Array) -> BilevelResult:
    """Run the method from x0.

    References
    ----------
    D. C. Liu, J. Nocedal, "On the limited memory BFGS method for large scale optimization",
    Math. Programming 45 (1989) 503-528; the two-loop recursion.
    M. S. Salehi, S. Mukherjee, L. Roberts, M. J. Ehrhardt, "An adaptively inexact
    first-order method for bilevel optimization", SIAM J. Math. Data Sci. 7 (2025); accuracy
    as needed.
    """
    search = _Search(run)
    found, memory = run.begin(x0, search.first, last_is_best=True)
    search.restore(memory, found)
    while run.ended is None:
        trial = search.step(found)
        if trial is None:
            break
        found = trial
        run.accept(found, memory=search.memory())
        if search.is_at_minimum:
            break
    if run.ended is not None:
        return run.result(run.ended)
    return search.verdict()


class _Search:
    """What a run learns: moves and changes of z, two tolerances, the cap of a step."""

    def __init__(self, run: Run) -> None:
        self.run, self.F = run, run.F
        problem = run.F.problem
        active = problem.bounded or problem.inequalities is not None
        self.loosest = max(_LOOSEST_ACTIVE if active else _LOOSEST, self.F.tol)
        self.tol = self.loosest
        self.adjoint_tol = max(_LOOSEST_ADJOINT, self.F.adjoint_tol)
        self.moves: list[Array] = []
        self.changes: list[Array] = []
        self.cap, self.capped = _CAP, 0
        self.unit = 0.0  # error of z over the tolerance of the adjoint
        self.reason = ""
        self.kink: Bracket | None = None  # of the last search,
        self.refused: Array | None = None  # and a trial to which F rises
        self.descent: Descent | None = None  # past kinks, of the last step

    @property
    def is_at_minimum(self) -> bool:
        """Whether F has a kink here and can fall in no direction."""
        if self.descent is not None:
            return self.descent.is_stationary
        return self.kink is not None and self.kink.lower.found.solution.x.shape[0] == 1

    def verdict(self) -> BilevelResult:
        """Return the result where no step lowers F."""
        kink, run = self.kink, self.run
        if self.descent is not None:
            base = self.descent.found
            shown = self.descent.combination.describe(run.scale(base.value))
            if self.is_at_minimum:
                message = f"The tolerance is met at a kink of F: {shown}."
                return run.result(Status.CONVERGED, message=message)
            message = f"F has kinks here, and no step past them lowers F: {shown}."
            return run.result(Status.LINE_SEARCH_FAILED, message=message)
        if kink is None:
            return run.result(Status.LINE_SEARCH_FAILED, self.reason)
        assert run.last is not None
        past = max(run.last.value - kink.lower.value, 0.0)
        message = (
            f"A minimum at a kink of F: {kink.describe()} Relative to what F is judged by, "
            f"it can still fall by {(kink.fall + past) / run.scale(run.last.value):.1e}, "
            "which meets the tolerance (a bound where F is convex near the kink, else an "
            "estimate)."
        )
        return run.result(Status.CONVERGED, message=message)

    def memory(self) -> Memory:
        """Return all that the next step depends on, beside the iterate."""
        names = "tol", "adjoint_tol", "cap", "capped", "unit"
        pairs = {"moves": [*self.moves], "changes": [*self.changes]}
        return {name: getattr(self, name) for name in names} | pairs

    def restore(self, memory: Memory, found: HypergradientResult) -> None:
        """Set what :meth:`memory` returned; at x0, what its evaluation tells."""
        for name, value in memory.items():
            setattr(self, name, value)
        if not memory:
            self.unit = 0.0
            self.adjoint_tol = self.wanted(found)

    # a step ---------------------------------------------------------------------------

    def step(self, found: HypergradientResult) -> HypergradientResult | None:
        """Return the next iterate; None where no trial is accepted, or none is needed.

        A direction that fails is refined; where it fails again the learned pairs are
        dropped, and the scaled gradient alone is searched along.
        """
        self.descent = None
        if self.crawls(found):
            found = self.at_finest(found) or found
            trial = self.past_kinks([found], self.run.history[-1].step_norm)
            if trial is not None or self.is_at_minimum:
                return trial
            self.descent = None
        for failed in range(_ROUNDS):
            direction, is_capped = self.direction(found)
            trial, refusals, found = self.search(found, direction)
            finest = self.is_finest(found)
            if trial is None and finest and not self.moves and not self.is_at_minimum:
                trial, found = self.narrowed(found)
                if trial is None and self.has_several_kinks(found):
                    trial = self.past_refused(found)
            if trial is not None:
                self.learn(found, trial, is_capped, refusals)
                return trial
            if self.run.ended is not None or self.is_at_minimum:
                return None
            if self.moves and (finest or failed % 2 == 1):
                self.moves, self.changes = [], []
            elif finest:
                return None
            else:
                sharper = self.refined(found)
                if sharper is None or self.run.ended is not None:
                    return None
                found = sharper
        return None

    def direction(self, found: HypergradientResult) -> tuple[Array, bool]:
        """Return −H z on the free variables, and whether it is cut to the cap.

        A coordinate on a plateau goes by its own slope and curvature: pairs from before
        are of another curvature there, and would send it many units away.
        """
        x, z = found.solution.x, found.gradient
        xp, g = namespace(x), self.run.free_gradient(x, z)
        free = xp.where((g == 0.0) & (z != 0.0), 0.0 * x, 1.0 + 0.0 * x)
        scale, on_plateau = self.scale(found, g)
        alone = xp.where(on_plateau, free, 0.0 * free)
        coupled = free - alone
        d = -coupled * two_loop(g, self.moves, self.changes, coupled, scale)
        d = d - alone * g / scale
        if not dot(g, d) < -1e-8 * norm(g) * norm(d):
            self.moves, self.changes = [], []
            d = -g / self.scale(found, g)[0]
        largest = float(xp.max(xp.abs(d))) if x.shape[0] else 0.0
        if largest <= self.cap:
            return d, False
        return (self.cap / largest) * d, True

    def scale(self, found: HypergradientResult, g: Array) -> tuple[Array, Array]:
        """Return the curvature that the diagonal of H⁻¹ starts from, > 0.

        That of the objective for the gradient through y, and that of f^U in x itself; |g|
        where neither is known, as of parameters for which a step of one is a natural one.
        Also the mask of plateaus: the coordinates that have shown next to no more.
        """
        F, x, xp = self.F, found.solution.x, namespace(g)
        through = getattr(F.problem.objective, "curvature_scale", None)
        itself = getattr(F.upper, "curvature_scale", None)
        direct = itself(copied(x)) if callable(itself) else None
        implicit = g if direct is None else xp.where(g == 0.0, g, found.adjoint.x)
        size = through(copied(x), implicit) if callable(through) else xp.abs(implicit)
        size = size if direct is None else size + direct
        most = float(xp.max(size)) if g.shape[0] else 0.0
        level = _LEVEL * most or 1.0
        more = unseen(level, self.moves, self.changes) + 0.0 * g
        return size + more, more < _PLATEAU * level

    def search(
        self, found: HypergradientResult, direction: Array
    ) -> tuple[HypergradientResult | None, int, HypergradientResult]:
        """Backtrack along P(x + t d).

        Returns
        -------
        trial : the accepted point, None where the values contradict the slope.
        refusals : int
        found : the iterate, whose value a close decision has sharpened.
        """
        run, x, length = self.run, found.solution.x, 1.0
        self.kink = self.refused = None
        refused: tuple[float, Array | None] | None = None
        finest, slopes = self.is_finest(found), list[tuple[float, float]]()
        for refusals in range(_TRIALS):
            if refusals == _REFUSED and x.shape[0] == 1:
                trial, found = self.narrowed(found)
                if trial is not None or self.kink is not None:
                    return trial, refusals, found
            if not finest and contradicted(slopes):
                break
            point = run.project(x + length * direction)
            slope = dot(found.gradient, point - x)
            if not slope < 0.0:
                break
            self.start(found, length, refused)
            fitted = 0.1 * length
            try:
                verdict, value, tol, found = self.judge(found, point, slope)
                refused = length, self.F.y
                if verdict:
                    trial = self.evaluate(point, tol)
                    if self.descends(found, trial, slope):
                        return trial, refusals, found
                    value = trial.value
                if self.refused is None or x.shape[0] == 1:
                    self.refused = point
                slopes = [*slopes[-1:], (length, (value - found.value) / length)]
                rise = value - found.value - slope
                fitted = -0.5 * slope * length / rise if rise > 0.0 else 0.5 * length
            except ConvergenceError as error:
                self.reason = str(error)
            if run.ended is not None:
                break
            length = min(max(fitted, 0.1 * length), 0.5 * length)
        return None, 0, found

    def narrowed(
        self, found: HypergradientResult
    ) -> tuple[HypergradientResult | None, HypergradientResult]:
        """Narrow the bracket between the iterate and a refused trial, at the finest.

        Returns
        -------
        trial : the lower end, None where that is not lower: with several
            parameters and a kink, not by more than the tolerance leaves.
        found : the iterate, evaluated at the finest tolerances.
        """
        F, run, point = self.F, self.run, self.refused
        if point is None or run.ended is not None or not F.problem.one_sided:
            return None, found
        finest = self.at_finest(found)
        if finest is None or run.ended is not None:
            return None, finest or found
        found = finest

        try:
            bracket = bracket_kink(found, point, self.finest_at, self.small)
        except ConvergenceError as error:
            self.reason = str(error)
            return None, found
        if bracket is None:
            return None, found
        self.kink = bracket if bracket.is_kink else None
        least = self.noise(found)
        if bracket.is_kink and not self.is_at_minimum:
            least = self.small(found.value)
        fell = found.value - bracket.lower.value
        return (bracket.lower.found if fell > least else None), found

    def has_several_kinks(self, found: HypergradientResult) -> bool:
        """Tell whether F may have kinks, and has several parameters."""
        return self.F.problem.one_sided and found.solution.x.shape[0] > 1

    def past_refused(self, found: HypergradientResult) -> HypergradientResult | None:
        """Return a lower point where a trial was refused, by the sides that it has shown."""
        if self.refused is None or self.run.ended is not None:
            return None
        kink = self.kink
        ends = () if kink is None else (kink.left.found, kink.right.found)
        radius = norm(self.refused - found.solution.x)
        return self.past_kinks([found, *ends], radius)

    def crawls(self, found: HypergradientResult) -> bool:
        """Tell whether steps from kink to kink have lowered F by next to nothing.

        Asked once in that many steps.
        """
        history = self.run.history
        if not self.has_several_kinks(found):
            return False
        if (len(history) - 1) % _CRAWLING or len(history) <= _CRAWLING:
            return False
        fell = history[-1 - _CRAWLING].value - history[-1].value
        return fell <= _CRAWLING * self.small(found.value)

    def past_kinks(
        self, sides: Sequence[HypergradientResult], radius: float
    ) -> HypergradientResult | None:
        """Return a lower point by the gradients on all sides; None where none is found."""
        run = self.run
        bounds = run.lower, run.upper
        self.descent = descend(
            sides, radius, self.finest_at, self.small, run.project, bounds
        )
        lowest = self.descent.found
        return lowest if lowest.value < sides[0].value else None

    def at_finest(self, found: HypergradientResult) -> HypergradientResult | None:
        """Return the iterate evaluated at the finest tolerances, None where that fails."""
        if self.is_finest(found):
            return found
        return self.again(found, self.F.tol, self.F.adjoint_tol)

    def finest_at(self, x: Array) -> HypergradientResult:
        """Evaluate F at its own tolerances."""
        there = self.F.evaluate(x, certify=False)
        refuse_unsolved(there.solution, self.F.tol)
        return there

    def small(self, value: float) -> float:
        """Return what a value of F may still fall by, and its slope be, at the end."""
        return self.run.tol * self.run.scale(value)

    def start(
        self,
        found: HypergradientResult,
        length: float,
        refused: tuple[float, Array | None] | None,
    ) -> None:
        """Start the solve at a trial from y, or between it and that of a refused trial."""
        self.F.recall(found.solution, found.tol)
        if refused is not None and refused[1] is not None:
            longer, y = refused
            self.F.y = found.solution.y + (length / longer) * (y - found.solution.y)

    def judge(
        self, found: HypergradientResult, point: Array, slope: float
    ) -> tuple[bool, float, float, HypergradientResult]:
        """Solve at a trial until its error bar, and the iterate's, do not reach the limit.

        Returns
        -------
        verdict : bool
        value : float
            The corrected value of the trial.
        tol : float
            Of its solve.
        found : the iterate, which may be sharper than before.
        """
        F, tol, finest = self.F, self.tol, max(_SHARPER * self.tol, self.F.tol)
        while True:
            solution = F.solve(point, tol=tol)
            refuse_unsolved(solution, tol)
            value, correction = corrected_value(
                F.upper, solution, found.adjoint.adjoint
            )
            if not math.isfinite(value):
                raise ConvergenceError(
                    "F is not finite at a trial", Status.NOT_FINITE, solution
                )
            limit = found.value + _DECREASE * slope
            of_trial, of_iterate = abs(correction), abs(found.correction)
            bar = _BAR * (of_trial + of_iterate)
            if abs(value - limit) >= bar:
                return value <= limit + self.noise(found), value, tol, found
            if of_iterate > of_trial and found.tol > F.tol:
                found = self.sharpened(found)
                F.y = solution.y
            elif tol > finest:
                decisive = _DECIDED * abs(value - limit) / bar
                tol = max(tol * min(decisive, 0.1), finest)
            elif tol > F.tol:
                self.tol = max(0.1 * self.tol, F.tol)
                raise ConvergenceError(
                    f"F cannot be told from its limit at tol = {tol:.0e}",
                    Status.APPROXIMATE,
                    solution,
                )
            else:
                return value <= limit + self.noise(found), value, tol, found

    def noise(self, found: HypergradientResult) -> float:
        """Return the rounding error of a value, where all else is at its finest."""
        unit = epsilon(found.solution.y)
        return 10.0 * unit * abs(found.value) if self.is_finest(found) else 0.0

    def descends(
        self, found: HypergradientResult, trial: HypergradientResult, slope: float
    ) -> bool:
        """Tell whether a trial is accepted, now that its own adjoint corrects its value.

        Where the decrease is below rounding, the slope along the move decides.
        """
        limit = found.value + _DECREASE * slope
        if trial.value <= limit + _BAR * abs(trial.correction):
            return True
        moved = trial.solution.x - found.solution.x
        level = trial.value <= limit + self.noise(found)
        return level and abs(dot(trial.gradient, moved)) <= -_FLATTER * slope

    # accuracy -------------------------------------------------------------------------

    def is_finest(self, found: HypergradientResult) -> bool:
        """Tell whether neither tolerance can be smaller."""
        F = self.F
        return found.tol <= F.tol and found.adjoint_tol <= F.adjoint_tol

    def first(self, x: Array) -> HypergradientResult:
        """Evaluate x0, ten times finer where a step promises less of F than y is known to.

        There, as at another method's solution, the gradient may be all error: that of F
        is of the order of the tolerance of y.
        """
        found = self.evaluate(x, self.tol)
        g = self.run.free_gradient(x, found.gradient)
        promised = dot(g, g / self.scale(found, g)[0])
        if promised > _LOOSEST * self.run.scale(found.value) or self.is_finest(found):
            return found
        self.adjoint_tol = max(_FIRST * self.adjoint_tol, self.F.adjoint_tol)
        return self.evaluate(x, max(_FIRST * self.tol, self.F.tol))

    def evaluate(self, x: Array, tol: float) -> HypergradientResult:
        """Return value and gradient; at the finest tolerances where that converges."""
        found = self.F.evaluate(x, tol=tol, adjoint_tol=self.adjoint_tol, certify=False)
        refuse_unsolved(found.solution, tol)
        found = self.told(found)
        sharper = self.run.confirmed(found)
        if sharper is not found and self.run.history:
            # It seemed to converge; if it did not, the gradient is needed to this size.
            self.tighten(found)
        return sharper

    def told(self, found: HypergradientResult) -> HypergradientResult:
        """Return an evaluation whose gradient is larger than its error."""
        wanted = self.wanted(found)
        if found.adjoint_tol > _SHRUNK * wanted:
            x, tol = found.solution.x, found.tol
            finer = self.F.evaluate(x, tol=tol, adjoint_tol=wanted, certify=False)
            self.measure(found, finer)
            found, wanted = finer, self.wanted(finer)
        self.adjoint_tol = wanted
        return found

    def wanted(self, found: HypergradientResult) -> float:
        """Return the tolerance of an adjoint whose error leaves nine tenths of z."""
        size = norm(self.run.free_gradient(found.solution.x, found.gradient))
        self.unit = max(size, self.unit)
        tol = _LOOSEST_ADJOINT * (size / self.unit if self.unit > 0.0 else 1.0)
        return max(tol, self.F.adjoint_tol)

    def measure(self, found: HypergradientResult, finer: HypergradientResult) -> None:
        """Learn the error of a gradient from a finer one at the same point."""
        error = norm(finer.gradient - found.gradient)
        self.unit = max(self.unit, error / found.adjoint_tol)

    def refined(self, found: HypergradientResult) -> HypergradientResult | None:
        """Evaluate the iterate with a finer adjoint; None where that fails again."""
        self.tighten(found)
        finer = self.again(found, min(self.tol, found.tol), self.adjoint_tol)
        if finer is not None:
            self.measure(found, finer)
        return finer

    def tighten(self, found: HypergradientResult) -> None:
        """Sharpen the adjoint tenfold, and y so that it is no looser than the adjoint."""
        F = self.F
        self.adjoint_tol = max(0.1 * found.adjoint_tol, F.adjoint_tol)
        if found.tol > self.adjoint_tol or found.adjoint_tol <= F.adjoint_tol:
            self.tol = max(0.1 * min(found.tol, self.tol), F.tol)

    def sharpened(self, found: HypergradientResult) -> HypergradientResult:
        """Return the iterate with a value of a ten times finer y."""
        sharper = self.again(found, max(0.1 * found.tol, self.F.tol), found.adjoint_tol)
        if sharper is None:
            raise ConvergenceError(self.reason, Status.STAGNATED, found)
        return sharper

    def again(
        self, found: HypergradientResult, tol: float, adjoint_tol: float
    ) -> HypergradientResult | None:
        """Evaluate the iterate again, and replace its record."""
        for _ in range(_FAILURES):
            self.F.recall(found.solution, found.tol)
            try:
                sharper = self.F.evaluate(
                    found.solution.x, tol=tol, adjoint_tol=adjoint_tol, certify=False
                )
                refuse_unsolved(sharper.solution, tol)
                sharper = self.run.confirmed(sharper)
            except ConvergenceError as error:
                self.reason = str(error)
                continue
            self.run.replace(sharper, self.memory())
            return sharper
        return None

    # what is learned ------------------------------------------------------------------

    def learn(
        self,
        found: HypergradientResult,
        trial: HypergradientResult,
        is_capped: bool,
        refusals: int,
    ) -> None:
        """Keep the pair of a step, and set cap and tolerances for the next one."""
        s = trial.solution.x - found.solution.x
        y = trial.gradient - found.gradient
        if dot(s, y) > _CURVED * norm(s) * norm(y):
            self.moves = [*self.moves, s][-_PAIRS:]
            self.changes = [*self.changes, y][-_PAIRS:]
        elif refusals > 0:
            self.moves, self.changes = [], []
        self.capped = self.capped + 1 if is_capped and refusals == 0 else 0
        if self.capped >= _CAPPED:
            self.cap, self.capped = 2.0 * self.cap, 0
        bar = _BAR * abs(trial.correction)
        fell = found.value - trial.value
        looser = _MARGIN * fell / bar if bar > 0.0 else _LOOSER
        tol = min(max(looser, 0.1), _LOOSER) * trial.tol
        self.tol = max(min(tol, self.loosest), self.F.tol)


def contradicted(slopes: Sequence[tuple[float, float]]) -> bool:
    """Tell whether the mean slopes up to two lengths tend to one that is ≥ 0 at zero.

    As of a parabola through the iterate and both trials, whatever z says.
    """
    if len(slopes) < 2:
        return False
    (longer, far), (shorter, near) = slopes
    return near * longer >= far * shorter


def refuse_unsolved(solution: Solution, tol: float) -> None:
    """Raise where rounding ended a solve far above its tolerance: y is not g(x)."""
    error = solution.relative_error
    if solution.status is not Status.ROUNDING_LIMIT or error is None:
        return
    if error > max(tol, epsilon(solution.y) ** (1.0 / 3.0)):
        message = f"the lower-level solve left a Newton step of {error:.0e} of y"
        raise ConvergenceError(message, solution.status, solution)


def unseen(
    level: float, moves: Sequence[Array], changes: Sequence[Array]
) -> Array | float:
    """Return curvature that the scale of the coordinates does not know: a level.

    No more of it than the last moves have shown in a coordinate, |Δz_j| / |Δx_j|: on the
    plateau of a penalty that is almost infinite, z_j and its changes fade alike, and the
    level would leave it there.  Half the digits of it where they show nothing.
    """
    if not moves:
        return level
    last = moves[-1]
    xp, most = namespace(last), math.sqrt(epsilon(last)) * level + 0.0 * last
    pairs = zip(moves[-_SHOWING:], changes[-_SHOWING:], strict=True)
    for move, change in pairs:
        s, y = xp.abs(move), xp.abs(change)
        shown = xp.where(s > 0.0, y / xp.where(s > 0.0, s, 1.0 + s), level + s)
        most = xp.maximum(most, shown)
    return xp.minimum(most, level + 0.0 * last)


def two_loop(
    g: Array,
    moves: Sequence[Array],
    changes: Sequence[Array],
    free: Array,
    scale: Array,
) -> Array:
    """Return H g by the two-loop recursion on the free variables, H₀ = γ / scale."""
    q, used = g, []
    for move, change in zip(reversed(moves), reversed(changes), strict=True):
        s, y = free * move, free * change
        curvature = dot(s, y)
        if curvature > epsilon(g) * norm(s) * norm(y):
            alpha = dot(s, q) / curvature
            q = q - alpha * y
            used.append((s, y, curvature, alpha))
    gamma = 1.0
    if used:
        _, y, curvature, _ = used[0]
        gamma = curvature / dot(y, y / scale)
    r = gamma * q / scale
    for s, y, curvature, alpha in reversed(used):
        r = r + (alpha - dot(y, r) / curvature) * s
    return r
