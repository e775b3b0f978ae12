"""What products with random vectors tell of a square A: its units, and whether A = Aᵀ.

The size of each unknown in the metric of a symmetric A, from its diagonal or products:

    A → S A S,   S = diag(s),       s_i² Σ_j a_ij² s_j² = 1       the equilibrated matrix

where products with random vectors estimate the sums, E (A S z)_i² = Σ_j a_ij² s_j²
(A. M. Bradley, Algorithms for the equilibration of matrices, Stanford 2010).  A change of
units A → D A D changes s to s / D, so that s⁻² serves as the diagonal of A where that is
not known: within small factors, and in all units.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np

from ..arrays import Array, asarray, dot, epsilon, namespace, norm

# Each product halves the spread of the exponents, from 64 decades to 4; the last ones, of
# one scaling, are averaged, which leaves 2 and the noise of four samples.
_HALVINGS, _AVERAGED = 4, 4
_LEVEL = 100.0  # a row this much larger than the median is in other units
_DIAGONAL = 0.1  # difference of two estimates of the same entry


class Probe:
    """A symmetric A seen by a product with a random vector, made once and when asked for.

    Parameters
    ----------
    A : LinearOperator (n, n)
    like : array
        Of the type and the dtype of the vectors that A multiplies.

    Attributes
    ----------
    n_matvec : int
        Products so far.
    """

    def __init__(self, A: Any, like: Array) -> None:
        self.A, self.like, self.n_matvec = A, like, 0
        self._pair: tuple[Array, Array] | None = None

    @cached_property
    def scale(self) -> Array | None:
        """D > 0 (n,) of the size of the diagonal; None where all rows are of one size.

        |diag(A)| where it is known; else s⁻² of the equilibrated matrix, for 8 products,
        unless the first one, A z, has rows of one size.  An entry of zero takes the
        smallest other one.  None, too, of what is not finite.
        """
        if self.A.has_diagonal:
            return _positive(namespace(self.like).abs(self.A.diagonal()))
        first = self._product(self._signs(0))
        return None if is_level(first) else self._row_sizes(first)

    @cached_property
    def diagonal(self) -> Array | None:
        """D >= 0 (n,) of the size of the diagonal; None of what is not finite.

        |diag(A)| where it is known, and for two products where A has no other entries:
        (A z)_i / z_i is then the same for both z.  Else s⁻² of the equilibrated matrix,
        for 9 products in all.
        """
        xp = namespace(self.like)
        if self.A.has_diagonal:
            return xp.abs(self.A.diagonal())
        z, v = self._signs(0), self._signs(1)
        Az = self._product(z)
        first, second = Az / z, self._product(v) / v
        if not bool(xp.all(xp.isfinite(first + second))):
            return None
        if bool(xp.all(xp.abs(first - second) <= _DIAGONAL * xp.abs(first))):
            return xp.abs(first)
        return self._row_sizes(Az)

    def _row_sizes(self, Az: Array) -> Array | None:
        """Return s⁻², by 7 products beside the first, A z."""
        xp = namespace(Az)
        s, total = xp.ones_like(Az), xp.zeros_like(Az)
        unit: Any = None
        for count in range(_HALVINGS + _AVERAGED):
            if count:
                Az = self._product(s * self._signs(count))
            sizes = _positive(s * xp.abs(Az))
            if sizes is None:
                return None
            if count < _HALVINGS:
                s = s / xp.sqrt(sizes / xp.max(sizes))
                continue
            unit = xp.max(sizes) if count == _HALVINGS else unit
            total = total + (sizes / unit) ** 2 / _AVERAGED
        return xp.sqrt(total) * unit / (s * s)

    @property
    def pair(self) -> tuple[Array, Array]:
        """Z and A z, where z_i is random and of the size d_i^(−½)."""
        d = self.scale
        if self._pair is None:
            z = self._signs(0)
            self._product(z if d is None else z / namespace(d).sqrt(d))
        assert self._pair is not None
        return self._pair

    def _signs(self, seed: int) -> Array:
        return random_signs(self.A.shape[0], self.like, seed)

    def _product(self, z: Array) -> Array:
        self.n_matvec += 1
        self._pair = z, self.A @ z
        return self._pair[1]


def diagonal_scale(A: Any, like: Array) -> tuple[Array | None, int]:
    """Return :attr:`Probe.scale` of A and the products spent: 0, 1 or 8."""
    probe = Probe(A, like)
    return probe.scale, probe.n_matvec


def diagonal_estimate(A: Any, like: Array) -> tuple[Array | None, int]:
    """Return :attr:`Probe.diagonal` of A and the products spent: 0, 2 or 9."""
    probe = Probe(A, like)
    return probe.diagonal, probe.n_matvec


def random_signs(n: int, like: Array, seed: int) -> Array:
    """Return entries of random sign and a size in [½, 1½): no sum of a few vanishes."""
    values = np.random.default_rng(seed).uniform(-1.0, 1.0, n)
    return asarray(values + np.copysign(0.5, values), like)


def is_level(Az: Array) -> bool:
    """Tell whether a product with a random vector shows rows of one size.

    Of n entries of a level A the smallest is 1 / n of the median by chance.  Zero rows
    say nothing; a product that is not finite is for the solver to report.
    """
    xp, n = namespace(Az), Az.shape[0]
    rows = xp.abs(Az)
    positive = rows[rows > 0.0]
    count = positive.shape[0]
    if count < 2 or not bool(xp.all(xp.isfinite(rows))):
        return True
    ordered = xp.sort(positive)
    middle = float(ordered[count // 2])
    largest, least = float(ordered[-1]), float(ordered[0])
    return largest <= _LEVEL * middle and middle <= _LEVEL * n * least


def _positive(values: Array) -> Array | None:
    """Return the values, the smallest positive one in place of zeros; None of no others."""
    xp = namespace(values)
    if not bool(xp.all(xp.isfinite(values))):
        return None
    if values.shape[0] and not float(xp.min(values)) > 0.0:
        positive = values[values > 0.0]
        if positive.shape[0] == 0:
            return None
        values = xp.where(values > 0.0, values, xp.min(positive))
    return values


def transpose_error(u: Array, Av: Array, v: Array, Atu: Array) -> float:
    """Return |u'Av − v'Aᵀu| relative to ‖u‖ ‖Av‖ + ‖v‖ ‖Aᵀu‖; NaN where one is."""
    size = norm(u) * norm(Av) + norm(v) * norm(Atu)
    error = abs(dot(u, Av) - dot(v, Atu))
    return 0.0 if error == 0.0 else error / size if size != 0.0 else math.inf


def asymmetry(A: Any, u: Array, Au: Array) -> float:
    """Return the error of u'Av = v'Au for a random v; one product, A v."""
    v = asarray(np.random.default_rng(0).standard_normal(u.shape[0]), u)
    return transpose_error(u, A @ v, v, Au)


def symmetry_tolerance(A: Any, like: Array) -> float:
    """Return the largest asymmetry that the accuracy of the products of A explains."""
    return float(max(epsilon(like), A.accuracy or 0.0) ** 0.4)
