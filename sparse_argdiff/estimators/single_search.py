"""The best single penalty by the folds, of each target.

    levels       from strong to weak, a factor ten apart, until the loss has risen twice
    then         u₊ = u − F'(u) / F''  between the neighbours of the best,  F'' by differences

The refinement ends where F' is small, or ½ F'² / F'', what is left to gain.  The levels are
compared on some of the folds, each solve starting from the last.  Where these gain nothing, or
all folds lose another amount at their best level, by more than chance, it climbs to the
neighbour that loses less.  F' and F of the refinement are of all.  The targets have F of their
own, and go on side by side.
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import NamedTuple

import numpy as np

from ..hypergradient.hypergradient import Hypergradient
from ..status import ConvergenceError
from .criterion import Criterion
from .search import EACH, LOOSE, SETTLED, Search, descend, some_folds, spread
from .task import Task

STEP, RISES = math.log(10.0), 2
KINKED_STEP = 0.5 * STEP  # where the range is a factor of a thousand
REFINEMENTS = 12
CHANCE = (
    3.0  # standard errors by which the loss of all folds may differ from that of some
)
TOL, ADJOINT = 0.1, 10.0  # of the refinement, over that of the search


class _Levels(NamedTuple):
    """The best level of each target, its loss, the lowest point of a parabola, F'' there."""

    level: np.ndarray
    loss: np.ndarray
    error: np.ndarray  # standard error of the loss
    gain: np.ndarray  # the loss at the strongest level minus the loss
    where: np.ndarray
    curvature: np.ndarray
    step: float
    y: np.ndarray
    products: int
    of_all: bool = True  # the folds


def search_single(task: Task, tol: float, *, certify: bool = False) -> Search:
    """Return the best single penalty by the folds; with a certificate of F' where asked."""
    start, table = time.perf_counter(), np.ones((task.moments.size, 1))
    offset = np.zeros(task.moments.size)
    few = some_folds(task)
    some = Criterion(few, table, offset)
    whole = Criterion(task, table, offset)
    range_ = task.range()
    levels = _levels(few, some, *range_)
    count = 1 if few.pairs is None else len(few.pairs)
    y0 = spread(task, levels.y, count)
    if few is not task:
        levels = _climbed(whole, levels, y0, range_)
        y0 = levels.y
    found = _refined(whole, levels, y0, range_, tol)
    products = levels.products + found.products
    if certify:
        low, high = (np.full_like(found.u, end) for end in range_)
        found = descend(whole, found.u, low, high, tol=tol, y0=found.y)
        products += found.products
    seconds = time.perf_counter() - start
    return dataclasses.replace(found, seconds=seconds, products=products)


def _levels(task: Task, criterion: Criterion, low: float, high: float) -> _Levels:
    """Return the best of the levels between the ends."""
    F, floor = criterion.function(LOOSE), task.floor()
    step = STEP if task.smooth else KINKED_STEP
    tried: list[float] = []
    losses: list[np.ndarray] = []
    best, least, rises = None, np.full(task.several, np.inf), 0
    error = np.zeros(task.several)
    for level in np.arange(high, low, -step):
        try:
            x = np.full(task.several, level)
            y = np.asarray(F.solve(x).y)
        except ConvergenceError:
            if best is None:
                continue
            break  # weaker penalties are harder still
        judged = criterion.judge(x, y)
        loss = judged.mean
        tried.append(float(level))
        losses.append(loss)
        better = loss < least
        least = np.minimum(loss, least)
        error = np.where(better, judged.error, error)
        best = y if better.any() or best is None else best
        rises = 0 if better.any() else rises + 1
        if rises >= RISES or least.max() <= floor:
            break
    if best is None:  # raises, and says why
        best = np.asarray(F.solve(np.full(task.several, high)).y)
        tried, losses = [high], [np.zeros(task.several)]
    index = np.argmin(np.array(losses), axis=0)
    around = [
        np.array([row[t] for row in losses[max(k - 1, 0) : k + 2]])
        for t, k in enumerate(index)
    ]
    level = np.array(tried)[index]
    where, curvature = _parabola(level, around, step)
    gain = losses[0] - least
    return _Levels(level, least, error, gain, where, curvature, step, best, F.n_hvp)


def _climbed(
    criterion: Criterion, levels: _Levels, y0: np.ndarray, ends: tuple[float, float]
) -> _Levels:
    """Return the level of each target from which no step lowers the loss of all folds.

    That of some of the folds is believed where they show that the features predict, and all
    lose what these do.
    """
    F, step, level = criterion.function(LOOSE, y0), levels.step, levels.level

    def loss(at: np.ndarray) -> np.ndarray:
        outside = (at < ends[0]) | (at > ends[1])
        try:
            y = np.asarray(F.solve(np.clip(at, *ends)).y)
        except ConvergenceError:
            return np.full(at.size, np.inf)
        return np.where(outside, np.inf, criterion.judge(at, y).mean)

    here = loss(level)
    products = levels.products + F.n_hvp
    start = levels._replace(y=np.asarray(F.y), products=products, of_all=False)
    chance = CHANCE * levels.error
    if ((np.abs(here - levels.loss) <= chance) & (levels.gain > chance)).all():
        return start
    above, below = loss(level + step), loss(level - step)
    while True:
        up = (above < here) & (above <= below)
        moves = np.where(up, step, np.where(below < here, -step, 0.0))
        if not moves.any():
            break
        level, last = level + moves, here
        here = np.where(moves > 0.0, above, np.where(moves < 0.0, below, here))
        beyond = loss(level + moves)
        above = np.where(moves > 0.0, beyond, np.where(moves < 0.0, last, above))
        below = np.where(moves < 0.0, beyond, np.where(moves > 0.0, last, below))
    around = [np.array(three) for three in zip(above, here, below, strict=True)]
    where, curvature = _parabola(level, around, step)
    return start._replace(
        level=level,
        where=where,
        curvature=curvature,
        y=np.asarray(F.y),
        products=levels.products + F.n_hvp,
    )


def _parabola(
    levels: np.ndarray, around: list[np.ndarray], step: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest point of each target by the losses around its level, and F''.

    The losses are those of the level above, the level itself and the one below.
    """
    where, curvature = levels.copy(), np.zeros(levels.size)
    for t, losses in enumerate(around):
        if losses.size < 3 or not np.isfinite(losses).all():
            continue
        above, here, below = losses
        curvature[t] = (above - 2.0 * here + below) / step**2
        if curvature[t] > 0.0:
            slope = (above - below) / (2.0 * step)
            where[t] -= np.clip(slope / curvature[t], -0.5 * step, 0.5 * step)
    return where, curvature


class _Refinement:
    """The iterates u of each target: brackets of the minimum, the best so far, F''."""

    def __init__(self, levels: _Levels, ends: tuple[float, float]) -> None:
        self.u = np.clip(levels.where, *ends)
        self.reach = 1.5 * levels.step
        # Levels of all folds have a minimum between them, those of some need not.
        far = self.reach if levels.of_all else math.inf
        self.low = np.maximum(self.u - far, ends[0])
        self.high = np.minimum(self.u + far, ends[1])
        self.curvature = levels.curvature
        self.secant = np.zeros(self.u.size, dtype=bool)  # where F'' is one
        self.last: tuple[np.ndarray, np.ndarray] | None = None

    def fall(self, slope: np.ndarray) -> np.ndarray:
        """Return ½ F'² / F'', how far F can still fall by the secants; ∞ without one."""
        known = self.secant & (self.curvature > 0.0)
        bend = np.where(known, self.curvature, 1.0)
        return np.where(known, 0.5 * slope**2 / bend, np.inf)

    def next(self, slope: np.ndarray) -> np.ndarray:
        """Return where the derivative is expected to be zero, within the brackets."""
        u = self.u
        if self.last is not None:
            moved, changed = u - self.last[0], slope - self.last[1]
            known = (moved != 0.0) & (changed * moved > 0.0)
            ratio = changed / np.where(known, moved, 1.0)
            self.curvature = np.where(known, ratio, self.curvature)
            self.secant |= known
        self.last = u, slope
        self.high = np.where(slope > 0.0, u, self.high)
        self.low = np.where(slope < 0.0, u, self.low)
        bent = self.curvature > 0.0
        newton = u - slope / np.where(bent, self.curvature, 1.0)
        inside = bent & (newton > self.low) & (newton < self.high)
        ends = np.where(slope > 0.0, self.low, self.high)
        moves = np.where(inside, newton - u, 0.5 * (ends - u))
        return u + np.clip(moves, -self.reach, self.reach)


def _refined(
    criterion: Criterion,
    levels: _Levels,
    y0: np.ndarray,
    ends: tuple[float, float],
    tol: float,
) -> Search:
    """Return the zero of F' near the best levels, on all folds."""
    start = time.perf_counter()
    accuracy, adjoint = TOL * tol, min(ADJOINT * tol, 0.1)
    if levels.where.size > 1:
        accuracy, adjoint = EACH
    F: Hypergradient = criterion.function(accuracy, y0)
    state, best, least = _Refinement(levels, ends), None, math.inf
    sizes: np.ndarray | float = 1.0
    for nit in range(1, REFINEMENTS + 1):
        u = state.u
        try:
            there = F.evaluate(u, adjoint_tol=adjoint, certify=False)
        except ConvergenceError:
            if best is None:
                raise
            break
        slope, y = np.asarray(there.gradient), np.asarray(there.solution.y)
        outwards = ((u <= ends[0]) & (slope > 0.0)) | ((u >= ends[1]) & (slope < 0.0))
        free = np.where(outwards, 0.0, slope)
        judged = criterion.judge(u, y)
        if best is None:
            sizes = np.maximum(judged.mean, np.finfo(float).tiny)
        share = float((judged.mean / sizes).sum())
        if share < least or best is None:
            least = share
            norm = float(np.linalg.norm(free))
            best = Search(u[None, :], judged, y, 0.0, 0, nit, gradient_norm=norm)
        after = np.clip(state.next(free), *ends)
        settled = np.abs(free) <= tol * np.abs(judged.mean)
        settled |= state.fall(free) <= SETTLED * tol * np.abs(judged.mean)
        if settled.all():
            break
        state.u = np.where(settled, u, after)
    assert best is not None
    u = best.u
    side = np.where(u <= ends[0] + 1e-6, -1, np.where(u >= ends[1] - 1e-6, 1, 0))
    seconds = time.perf_counter() - start
    return dataclasses.replace(best, at_bound=side, seconds=seconds, products=F.n_hvp)
