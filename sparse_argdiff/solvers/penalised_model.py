"""The quadratic model of f with a penalty of norms, in few unknowns with explicit entries.

    min_b  c'b + ½ b'G b + Σ_g w_g ‖b_g‖ + ½ Σ_j v_j b_j²,        lower ≤ b ≤ upper

Sweeps of block coordinate descent find the support; Newton's method on the support, of
which a quadratic with ‖·‖ = |·| takes one step, ends it (after the feature-sign search of
Lee, Battle, Raina & Ng, NIPS 2006).  Every step lowers the model.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np
from scipy.linalg import lapack

from ..arrays import HostArray
from ..kernels.coordinate_descent import compiled_sweep, is_worth_compiling

_ROUNDS = 200
_SWEEPS = 20  # between two Newton runs, fewer where no sign changes
_CALM, _COMPILED = 10, 200  # of compiled sweeps, which cost less than a factor
_NEWTON_STEPS = 30
_HALVINGS = 20  # of a Newton step
_NEWTON_WORK = 2e4  # entries of sweeps in the time of one Newton step
_FLAT = 1e-12  # least eigenvalues of a unit diagonal that count as none


@dataclasses.dataclass(frozen=True)
class Blocks:
    """The penalty on the unknowns of a model, which are sorted by block.

    Attributes
    ----------
    starts : int array (B + 1,)
        Where each block begins.
    weights : array (B,)
        w, zero for what is free.
    ridge, lower, upper : array (k,)
    """

    starts: HostArray
    weights: HostArray
    ridge: HostArray
    lower: HostArray
    upper: HostArray

    @functools.cached_property
    def bounded(self) -> bool:
        """Whether any bound is finite."""
        return bool(np.isfinite(self.lower).any() or np.isfinite(self.upper).any())

    @functools.cached_property
    def scalar(self) -> bool:
        """Whether each block is one coordinate."""
        return self.starts.shape[0] == self.ridge.shape[0] + 1

    @functools.cached_property
    def labels(self) -> HostArray:
        """The block of each unknown, (k,)."""
        return np.repeat(np.arange(self.weights.shape[0]), np.diff(self.starts))

    def spread(self, values: HostArray) -> HostArray:
        """Return a number of each block per coordinate."""
        return values if self.scalar else values[self.labels]

    def norms(self, b: HostArray) -> HostArray:
        """Return ‖b_g‖ of each block."""
        if self.scalar:
            return np.abs(b)
        return np.sqrt(np.add.reduceat(b * b, self.starts[:-1]))

    def value(self, b: HostArray) -> float:
        """Return the penalty."""
        return float(self.weights @ self.norms(b) + 0.5 * (self.ridge * b) @ b)

    def prox(self, v: HostArray, steps: HostArray) -> HostArray:
        """Return the proximal point, for steps (B,) of the blocks."""
        if self.scalar:
            least = self.weights * steps
            shrunk = np.sign(v) * np.maximum(np.abs(v) - least, 0.0)
        else:
            sizes = self.norms(v)
            least = self.weights * steps
            factor = np.where(
                sizes > least, 1.0 - least / np.where(sizes > 0.0, sizes, 1.0), 0.0
            )
            shrunk = self.spread(factor) * v
        shrunk = shrunk / (1.0 + self.spread(steps) * self.ridge)
        return np.clip(shrunk, self.lower, self.upper)

    def slopes(self, b: HostArray) -> tuple[HostArray, HostArray]:
        """Return the gradient of the norms on the support, and the unit vectors b/‖b‖."""
        if self.scalar:
            unit = np.sign(b)
        else:
            sizes = self.norms(b)
            unit = b / self.spread(np.where(sizes > 0.0, sizes, 1.0))
        return self.spread(self.weights) * unit, unit


@dataclasses.dataclass(frozen=True)
class ModelSolution:
    """The minimiser of a model.

    Attributes
    ----------
    b : array (k,)
    free : bool array (k,)
        On the support and at no bound.
    factor : array or None
        Cholesky factor of the curvature there; None where it is singular.
    error : float
        Length of the proximal step that is left, in the metric of diag(G).
    sweeps : int
    """

    b: HostArray
    free: HostArray
    factor: HostArray | None
    error: float
    sweeps: int


class PenalisedModel:
    """A model that is minimised from a start."""

    def __init__(
        self, G: HostArray, c: HostArray, blocks: Blocks, work: float = 0.0
    ) -> None:
        self.G, self.c, self.blocks = np.ascontiguousarray(G), c, blocks
        self.work = work  # entries of G that were passed over, in earlier models too
        diagonal = np.diagonal(G).copy()
        self.root = np.sqrt(np.where(diagonal > 0.0, diagonal, 1.0))
        self.curvatures = self._curvatures(diagonal)

    def _curvatures(self, diagonal: HostArray) -> HostArray:
        """Return a bound of the curvature within each block."""
        if self.blocks.scalar:
            return diagonal
        starts, sizes = self.blocks.starts[:-1], np.diff(self.blocks.starts)
        found = diagonal[starts]
        for size in np.unique(sizes[sizes > 1]):
            (of_size,) = np.nonzero(sizes == size)
            rows = starts[of_size, None] + np.arange(size)
            own = self.G[rows[:, :, None], rows[:, None, :]]
            found[of_size] = np.linalg.eigvalsh(own)[:, -1]
        return found

    def minimise(self, b: HostArray, tol: float) -> ModelSolution:
        """Minimise from b until the step that is left is ≤ tol of the length of b."""
        b = np.array(b)
        r = self.G @ b + self.c
        error, sweeps, most = math.inf, 0, 3
        factor: HostArray | None = None
        free = self.free(b, r)
        for round_ in range(_ROUNDS):
            sweeps += self.sweep(b, r, most)
            most = _SWEEPS
            b, r, factor, free, settled = self.newton(b, r)
            error = self.left(b, r)
            if settled and error <= tol * self.length(b, r):
                break
            if round_ % 20 == 19:
                r = self.G @ b + self.c
        return ModelSolution(b, free, factor, error, sweeps)

    def length(self, b: HostArray, r: HostArray) -> float:
        """Return ‖b‖ in the metric of G, for r = G b + c."""
        return math.sqrt(max(float(b @ (r - self.c)), 0.0))

    def left(self, b: HostArray, r: HostArray) -> float:
        """Return the length of a proximal step of all coordinates at once."""
        steps = 1.0 / np.where(self.curvatures > 0.0, self.curvatures, 1.0)
        moved = self.blocks.prox(b - self.blocks.spread(steps) * r, steps) - b
        return float(np.linalg.norm(self.root * moved))

    def sweep(self, b: HostArray, r: HostArray, most: int) -> int:
        """Minimise along each block in turn until no sign changes, ``most`` times at most.

        b and r = G b + c change in place; returns the number of sweeps.
        """
        blocks = self.blocks
        if blocks.scalar and is_worth_compiling(self.work):
            return int(
                compiled_sweep()(
                    self.G,
                    blocks.weights,
                    blocks.ridge,
                    blocks.lower,
                    blocks.upper,
                    b,
                    r,
                    _CALM,
                    _COMPILED,
                )
            )
        once = self._sweep_scalars if blocks.scalar else self._sweep_blocks
        for count in range(most):
            if not once(b, r):
                return count + 1
        return most

    def _sweep_scalars(self, b: HostArray, r: HostArray) -> bool:
        G, blocks, L = self.G, self.blocks, self.curvatures
        w, v, lower, upper = blocks.weights, blocks.ridge, blocks.lower, blocks.upper
        # Those that stay at zero are most, and need no look one by one; a force that
        # changes on the way is seen in the next sweep.
        (index,) = np.nonzero((b != 0.0) | (np.abs(r) > w))
        self.work += index.shape[0] * b.shape[0]
        changed = False
        for j in index.tolist():
            bend = L[j] + v[j]
            old = b[j]
            if bend <= 0.0:
                continue
            target = L[j] * old - r[j]
            beyond = abs(target) - w[j]
            new = math.copysign(beyond, target) / bend if beyond > 0.0 else 0.0
            new = min(max(new, lower[j]), upper[j])
            if new != old:
                r += (new - old) * G[j]
                b[j] = new
                changed = changed or new * old <= 0.0
        return changed

    def _sweep_blocks(self, b: HostArray, r: HostArray) -> bool:
        G, blocks, L = self.G, self.blocks, self.curvatures
        starts, w, v = blocks.starts, blocks.weights, blocks.ridge
        (index,) = np.nonzero((blocks.norms(b) > 0.0) | (blocks.norms(r) > w))
        changed = False
        for g in index.tolist():
            a, z = int(starts[g]), int(starts[g + 1])
            if L[g] <= 0.0:
                continue
            old = b[a:z]
            target = L[g] * old - r[a:z]
            size = math.sqrt(float(target @ target)) if z - a > 1 else abs(target[0])
            if size <= w[g]:
                new = np.zeros(z - a)
            else:
                new = target * (1.0 - w[g] / size) / (L[g] + v[a:z])
            moved = new - old
            if moved.any():
                r += moved @ G[a:z]
                changed = changed or not (new.any() and old.any())
                b[a:z] = new
        return changed

    def free(self, b: HostArray, r: HostArray) -> HostArray:
        """Return which unknowns are on the support and at no bound that holds them."""
        blocks = self.blocks
        there = (blocks.norms(b) > 0.0) | (blocks.weights == 0.0)
        free = blocks.spread(there) if not blocks.scalar else there
        pull = r + blocks.slopes(b)[0] + blocks.ridge * b
        held = (b <= blocks.lower) & (pull >= 0.0)
        held |= (b >= blocks.upper) & (pull <= 0.0)
        return free & ~held

    def newton(
        self, b: HostArray, r: HostArray
    ) -> tuple[HostArray, HostArray, HostArray | None, HostArray, bool]:
        """Take Newton steps on the support while they lower the model.

        The last result tells whether no further one would.
        """
        factor, free = None, self.free(b, r)
        for _ in range(_NEWTON_STEPS):
            free = self.free(b, r)
            (S,) = np.nonzero(free)
            self.work += _NEWTON_WORK
            if S.shape[0] == 0:
                return b, r, factor, free, True
            slope, unit = self.blocks.slopes(b)
            pull = (r + slope + self.blocks.ridge * b)[S]
            K = self.bent(S, b, unit)
            factor = self.factor(K)
            if factor is None:
                step, lower = self.by_eigenvectors(b, r, S, K, unit[S], pull)
                if lower is not None:
                    b, r = lower
                    continue
            else:
                step, _ = lapack.dpotrs(factor, -pull, lower=1)
            found = self.lower(b, r, S, step, float(pull @ step))
            if found is None:
                return b, r, factor, free, True
            new, moved, whole, small = found
            b, r = new, r + moved
            if whole and (self.blocks.scalar or small):
                return b, r, factor, free, True
        return b, r, factor, free, False

    def change(
        self, b: HostArray, new: HostArray, r: HostArray
    ) -> tuple[float, HostArray]:
        """Return by how much the model changes from b to a new point, and r."""
        d = new - b
        moved = self.moved(d)
        change = float((r + 0.5 * moved) @ d)
        return change + self.blocks.value(new) - self.blocks.value(b), moved

    def by_eigenvectors(
        self,
        b: HostArray,
        r: HostArray,
        S: HostArray,
        K: HostArray,
        unit: HostArray,
        pull: HostArray,
    ) -> tuple[HostArray, tuple[HostArray, HostArray] | None]:
        """Return the Newton step of a singular curvature K, and a lower point without it.

        More blocks than the data have rank are no minimum: along directions without
        curvature, which make each block longer or shorter, only the penalty changes, until
        a block is zero.
        """
        root = np.sqrt(np.where(np.diagonal(K) > 0.0, np.diagonal(K), 1.0))
        values, vectors = np.linalg.eigh(K / np.outer(root, root))
        vectors /= root[:, None]
        count = int(np.sum(values <= _FLAT * values[-1]))
        curved = vectors[:, count:]
        step = -(curved @ ((curved.T @ pull) / values[count:]))
        blocks = self.blocks
        rays, own = np.unique(blocks.labels[S], return_inverse=True)
        unit = np.where(unit == 0.0, 1.0, unit)
        U = np.zeros((S.shape[0], rays.shape[0]))
        U[np.arange(S.shape[0]), own] = unit
        t = U.T @ b[S]
        lower, upper = np.full_like(t, -np.inf), np.full_like(t, np.inf)
        if blocks.bounded:  # of single unknowns
            ends = unit * blocks.lower[S], unit * blocks.upper[S]
            lower, upper = np.minimum(*ends), np.maximum(*ends)
        flat = U.T @ vectors[:, :count]
        end = moved_along(t, U.T @ pull, blocks.weights[rays], flat, lower, upper)
        new = b.copy()
        new[S] = np.where((end != t)[own], end[own] * unit, b[S])
        change, moved = self.change(b, new, r)
        return step, (new, r + moved) if change < 0.0 else None

    def moved(self, d: HostArray) -> HostArray:
        """Return G d, of the entries that are not zero."""
        (some,) = np.nonzero(d)
        if 2 * some.shape[0] > d.shape[0]:
            return self.G @ d
        return d[some] @ self.G[some]

    def on_the_way(
        self, b: HostArray, r: HostArray, S: HostArray, step: HostArray
    ) -> HostArray:
        """Return the minimum of the model on the segment from b to b + step on S."""
        blocks = self.blocks
        d = np.zeros_like(b)
        d[S] = step
        w = blocks.weights[S]
        slope = float((r + blocks.ridge * b) @ d) + float((w * np.sign(b[S])) @ step)
        bend = float(d @ self.moved(d)) + float((blocks.ridge * d) @ d)
        crossing = (b[S] * step < 0.0) & (w > 0.0)
        places = -b[S][crossing] / step[crossing]
        order = np.argsort(places)
        kinks, jumps = places[order], (2.0 * w * np.abs(step))[crossing][order]
        # The slope before each kink, and after it.
        after = slope + bend * kinks + np.cumsum(jumps)
        before = after - jumps
        ends = np.flatnonzero(after >= 0.0)
        first = int(ends[0]) if ends.shape[0] else kinks.shape[0]
        new = b.copy()
        if first < kinks.shape[0] and before[first] <= 0.0:
            alpha = float(kinks[first])
            new[S] += alpha * step
            new[S[np.flatnonzero(crossing)[order[first]]]] = 0.0
            return new
        passed = float(np.sum(jumps[:first]))
        alpha = min(-(slope + passed) / bend if bend > 0.0 else 1.0, 1.0)
        new[S] += alpha * step
        return new

    def lower(
        self, b: HostArray, r: HostArray, S: HostArray, step: HostArray, slope: float
    ) -> tuple[HostArray, HostArray, bool, bool] | None:
        """Return a lower point along a step on S, the change of r, and two facts.

        Whether it is the whole step, and whether that is short; None for none.
        """
        blocks, alpha = self.blocks, 1.0
        small = math.sqrt(max(-slope, 0.0)) <= 1e-6 * self.length(b, r)
        for _ in range(_HALVINGS):
            new = self.trial(b, S, alpha * step)
            whole = alpha == 1.0 and bool(np.all(new[S] == b[S] + step))
            change, moved = self.change(b, new, r)
            if not whole and blocks.scalar and not blocks.bounded:
                # The exact minimum on the way, which ends at a kink or before.
                there = self.on_the_way(b, r, S, step)
                fall, way = self.change(b, there, r)
                if fall < change:
                    new, moved, change = there, way, fall
            if change < 0.0 or (whole and small):
                return new, moved, whole, small
            if blocks.scalar:
                return None
            alpha *= 0.5
        return None

    def trial(self, b: HostArray, S: HostArray, step: HostArray) -> HostArray:
        """Return b + step on S, zero where a coefficient would change its sign."""
        new, blocks = b.copy(), self.blocks
        new[S] += step
        if blocks.scalar:
            new[(np.sign(new) * b < 0.0) & (blocks.weights > 0.0)] = 0.0
        else:
            along = np.add.reduceat(new * b, blocks.starts[:-1])
            gone = blocks.spread((along < 0.0) & (blocks.weights > 0.0))
            new[gone] = 0.0
        return np.clip(new, blocks.lower, blocks.upper)

    def bent(self, S: HostArray, b: HostArray, unit: HostArray) -> HostArray:
        """Return the curvature on S: G + ridge + w (I − u u') / ‖b‖ of each block."""
        whole = S.shape[0] == b.shape[0]
        K = np.array(self.G if whole else self.G[np.ix_(S, S)], order="F")
        K[np.diag_indices_from(K)] += self.blocks.ridge[S]
        if self.blocks.scalar:
            return K
        sizes, labels, u = self.blocks.norms(b), self.blocks.labels[S], unit[S]
        starts = np.flatnonzero(np.diff(labels, prepend=-1))
        for a, z in zip(starts, np.append(starts[1:], S.shape[0]), strict=True):
            g = labels[a]
            if z - a > 1 and sizes[g] > 0.0:
                bend = np.eye(z - a) - np.outer(u[a:z], u[a:z])
                K[a:z, a:z] += self.blocks.weights[g] / sizes[g] * bend
        return K

    def factor(self, K: HostArray) -> HostArray | None:
        """Return the Cholesky factor of a curvature, None where it is singular."""
        before = np.diagonal(K).copy()
        factor, info = lapack.dpotrf(K, lower=1, clean=0)
        if info != 0:
            return None
        pivots = np.diagonal(factor) ** 2
        unit_roundoff = np.finfo(np.float64).eps
        if not bool(np.all(pivots > 8.0 * K.shape[0] * unit_roundoff * before)):
            return None
        return factor


def metric_norm(factor: HostArray | None, root: HostArray, force: Any) -> float:
    """Return the length of the Newton step of a force; without a factor of its diagonal."""
    if force.shape[0] == 0:
        return 0.0
    if factor is None:
        return float(np.linalg.norm(force / root))
    half, _ = lapack.dtrtrs(factor, force, lower=1)
    return float(np.linalg.norm(half))


def moved_along(
    t: HostArray,
    pull: HostArray,
    w: HostArray,
    flat: HostArray,
    lower: HostArray,
    upper: HostArray,
) -> HostArray:
    """Return the end of descent on Σ w |t| along a space in which nothing else changes.

    The columns of ``flat`` (k, d) span it, and ``pull`` is the slope at t.  Each step ends
    where an entry is zero or at a bound, and stays there.
    """
    t, pull = t.copy(), pull.copy()
    level = math.sqrt(np.finfo(np.float64).eps) * float(np.max(w, initial=0.0))
    level *= float(np.max(np.abs(flat), initial=0.0))
    while flat.shape[1]:
        down = flat.T @ pull
        slope = float(np.linalg.norm(down))
        if slope <= level:
            break
        step = -(flat @ down) / slope
        with np.errstate(divide="ignore", invalid="ignore"):
            to_zero = np.where((t * step < 0.0) & (w > 0.0), -t / step, np.inf)
            to_end = np.where(step > 0.0, upper - t, lower - t) / step
        to_end = np.where(step != 0.0, to_end, np.inf)
        places = np.concatenate([to_zero, to_end])
        jumps = np.concatenate([2.0 * w * np.abs(step), np.full_like(t, np.inf)])
        order = np.argsort(places)
        place = places[order[np.argmax(np.cumsum(jumps[order]) >= slope)]]
        if not place < np.inf:
            break
        t += place * step
        pull += np.where(to_zero < place, 2.0 * w * np.sign(step), 0.0)
        t[to_zero == place] = 0.0
        at_end = to_end == place
        t[at_end] = np.where(step > 0.0, upper, lower)[at_end]
        for j in np.flatnonzero((to_zero == place) | at_end):
            flat = without(flat, int(j))
    return t


def without(basis: HostArray, j: int) -> HostArray:
    """Return a basis of the vectors of a space whose entry j is zero, turned by a reflection."""
    v = basis[j].copy()
    size = float(np.linalg.norm(v))
    if size == 0.0:
        return basis
    v[0] += math.copysign(size, v[0])
    found: HostArray = basis - np.outer(basis @ v, 2.0 / (v @ v) * v)
    found[j] = 0.0
    return found[:, 1:]
