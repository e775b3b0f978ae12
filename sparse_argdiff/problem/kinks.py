"""Where the kinks of a penalty hold y, and how strongly: activities off the support.

    y_j = 0 is held while  a_j = |f_Y,j| / w_j ≤ 1        (of groups ‖f_Y,g‖ / w_g)

A block is a coordinate, or a group of those that leave the support together.  It is weakly
active where a is 1 within the error of y, or where it left zero by no more than that: the
derivative is one-sided there.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from ..arrays import Array, asarray, epsilon, namespace
from .metric import Metric
from .problem import Problem


@dataclasses.dataclass(frozen=True)
class Kinks:
    """The penalty's part of the optimality conditions at a point.

    Attributes
    ----------
    held : bool array (n,)
        Off the support.
    free : bool array (n,)
        What the penalty never holds.
    activity : array (n,)
        How far the force is used up, 0 on the support; > 1 where the point is no solution.
    force : array (n,)
        −f_Y off the support, without what bounds take up; zero on the support.
    grad : array (n,)
        ∇_y Ω on the support.
    blocks : array (n,) or None
        Labels of the blocks.
    """

    held: Array
    free: Array
    activity: Array
    force: Array
    grad: Array
    blocks: Any

    def excess(self, metric: Metric) -> Array:
        """Return the lengths by which forces exceed what the kinks hold, zero where none."""
        size, a, xp = self._force_lengths(metric), self.activity, namespace(metric.root)
        one = xp.ones_like(a)
        inside = a <= 1.0  # NaN is not taken for what holds
        share = 1.0 - one / xp.where(inside, one, a)
        return xp.where(inside, 0.0 * one, size * share)

    def weak(self, metric: Metric, y: Array) -> Array:
        """Return the mask of what is undecided to half the digits of y."""
        xp, a = namespace(y), self.activity
        size = self._force_lengths(metric)
        length = metric.length(y)
        some = a > 0.0
        safe = xp.where(some, a, xp.ones_like(a))
        least = math.sqrt(epsilon(y)) * (length + size)
        entering = self.held & some & (size * xp.abs(1.0 - a) / safe <= least)
        lengths = block_norms(metric.root * y, self.blocks)
        pull = block_norms(metric.forces(self.grad), self.blocks)
        near = lengths <= math.sqrt(epsilon(y)) * (length + pull)
        leaving = ~self.held & ~self.free & near
        return entering | leaving

    def rounding_of_zero(self, metric: Metric, y: Array) -> Array:
        """Return the mask of coefficients that are shorter than rounding of their forces.

        They are as good as zero, and zeros are exact.
        """
        lengths = block_norms(metric.root * y, self.blocks)
        pulls = block_norms(metric.forces(self.grad), self.blocks)
        return ~self.held & ~self.free & (lengths <= 16.0 * epsilon(y) * pulls)

    def _force_lengths(self, metric: Metric) -> Array:
        return block_norms(metric.forces(self.force), self.blocks)


def kinks(problem: Problem, x: Array, y: Array, grad: Array) -> Kinks | None:
    """Return the kinks at a point whose gradient f_Y is known; None without a penalty."""
    if not problem.nonsmooth:
        return None
    penalty, xp = problem.penalty, namespace(y)
    held = ~penalty.support(x, y)
    zero = xp.zeros_like(y)
    force = -grad
    if problem.bounded:
        lower, upper = problem.bounds(x, y)
        force = xp.where((lower >= 0.0) & (force < 0.0), zero, force)
        force = xp.where((upper <= 0.0) & (force > 0.0), zero, force)
    force = xp.where(held, force, zero)
    # Of a coefficient that is excluded no force matters.
    force = xp.where(penalty.support(x, zero + 1.0), force, zero)
    activity = xp.where(held, penalty.activity(x, y, force), zero)
    return Kinks(
        held,
        penalty.support(x, zero),
        activity,
        force,
        penalty.grad(x, y),
        getattr(penalty, "blocks", None),
    )


def block_norms(v: Array, blocks: Any) -> Array:
    """Return ‖v‖ of the block of each coordinate, shape (n,)."""
    xp = namespace(v)
    return xp.abs(v) if blocks is None else xp.sqrt(block_sums(v * v, blocks))


def block_sums(v: Array, blocks: Any) -> Array:
    """Return the sum over the block of each coordinate, shape (n,)."""
    if blocks is None:
        return v
    xp, host = namespace(v), np.asarray(blocks)
    if hasattr(xp, "bincount"):
        labels = asarray(host, v, xp.int64)
        return xp.take(xp.bincount(labels, weights=v).astype(v.dtype), labels)
    same = asarray(host[:, None] == host[None, :], v)
    return same @ v


def block_means(v: Array, blocks: Any) -> Array:
    """Return the mean over the block of each coordinate, shape (n,)."""
    if blocks is None:
        return v
    return block_sums(v, blocks) / block_sums(namespace(v).ones_like(v), blocks)
