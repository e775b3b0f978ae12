"""The scalar examples of the paper: three stationary points, the mean, positivity.

f(x, y) = x y^4 + 2 x^2 y^3 − 12 y^2                     (19)
f(x, y) = sum_i (h_i(x) − y)^2,    g(x) = mean h(x)      (15) to (18), (65) to (71)
"""

from __future__ import annotations

import math

import numpy as np

import sparse_argdiff as sad

FOLD = -2.0 * (4.0 / 3.0) ** (
    1.0 / 3.0
)  # two stationary points meet there, at y = 1.651


class Quartic:
    """(19): y = 0 is a local maximum for x > 0, the other two are local minima."""

    n = 1

    def value(self, x, y):
        return float(x[0] * y[0] ** 4 + 2.0 * x[0] ** 2 * y[0] ** 3 - 12.0 * y[0] ** 2)

    def grad(self, x, y):
        return 4.0 * x * y**3 + 6.0 * x**2 * y**2 - 24.0 * y

    def hess(self, x, y):
        return (12.0 * x * y**2 + 12.0 * x**2 * y - 24.0)[None, :]

    def cross(self, x, y):
        return (4.0 * y**3 + 12.0 * x * y**2)[None, :]


def stationary_points(x: float) -> list[float]:
    """Return the stationary points (24) in the order 0, plus, minus; those that exist."""
    under = 9.0 * x**4 + 96.0 * x
    if x == 0.0 or under < 0.0:
        return [0.0]
    root = math.sqrt(under)
    return [0.0, (-3.0 * x**2 + root) / (4.0 * x), (-3.0 * x**2 - root) / (4.0 * x)]


def slope(x, y):
    """Return (23), the derivative of a branch through (x, y)."""
    return -(y**3 + 3.0 * x * y**2) / (3.0 * x * y**2 + 3.0 * x**2 * y - 6.0)


class Mean:
    """(15) to (17) for functions h_i of one number x.

    Parameters
    ----------
    h, dh : callable
        ``h(x)`` and its derivative, arrays (m,).
    """

    n = 1

    def __init__(self, h, dh) -> None:
        self.h, self.dh = h, dh

    def scale(self, x):
        return 2.0 * float(np.sum(np.abs(self.h(x[0]))))

    def value(self, x, y):
        return float(np.sum((self.h(x[0]) - y[0]) ** 2))

    def grad(self, x, y):
        return np.array([-2.0 * np.sum(self.h(x[0]) - y[0])])

    def hess(self, x, y):
        return np.array([[2.0 * self.h(x[0]).size]])

    def cross(self, x, y):
        return np.array([[-2.0 * np.sum(self.dh(x[0]))]])

    def free(self) -> sad.Problem:
        return sad.Problem(self)

    def positive(self) -> sad.Problem:
        """Return the problem with y >= 0, (65)."""
        return sad.Problem(self, lower=0.0)


def barrier_mean(mean, slope, m, t):
    """Return g_t and g_t' of (67) in closed form, the exercise after (71).

    g_t is the positive root of 2 t m (y − mean) = 1 / y; with a negative mean the root
    is written without cancellation.
    """
    s = np.sqrt(mean**2 + 2.0 / (t * m))
    above = 0.5 * (mean + s)
    below = 1.0 / (t * m * np.where(mean < 0.0, s - mean, 1.0))
    return np.where(mean < 0.0, below, above), 0.5 * slope * (1.0 + mean / s)
