"""The size of each unknown in the metric of a symmetric A, from its diagonal or products.

    A → S A S,   S = diag(s),       s_i² Σ_j a_ij² s_j² = 1       the equilibrated matrix

where products with random vectors estimate the sums, E (A S z)_i² = Σ_j a_ij² s_j²
(A. M. Bradley, Algorithms for the equilibration of matrices, Stanford 2010).  A change of
units A → D A D changes s to s / D, so that s⁻² serves as the diagonal of A where that is
not known: within small factors, and in all units.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array, asarray, namespace

# Each product halves the spread of the exponents, from 64 decades to 4; the last ones, of
# one scaling, are averaged, which leaves 2 and the noise of four samples.
_HALVINGS, _AVERAGED = 4, 4
_LEVEL = 100.0  # a row this much larger than the median is in other units


def diagonal_scale(A: Any, like: Array) -> tuple[Array | None, int]:
    """Return a positive d (n,) of the size of the diagonal of A, and the products spent.

    Parameters
    ----------
    A : LinearOperator (n, n)
        Symmetric.
    like : array
        Of the type and the dtype of the vectors that A multiplies.

    Returns
    -------
    d : array (n,) or None
        |diag(A)| where A knows its diagonal; else s⁻² of the equilibrated matrix, or None
        where one product with a random vector shows rows of one size.  What is zero takes
        the smallest other entry.  None, too, of what is not finite.
    n_matvec : int
        0 with a diagonal, 1 with rows of one size, else 8.
    """
    if A.has_diagonal:
        return _positive(namespace(like).abs(A.diagonal())), 0
    Az = A @ random_signs(A.shape[0], like, 0)
    return scale_by_products(A, Az, like)


def scale_by_products(A: Any, Az: Array, like: Array) -> tuple[Array | None, int]:
    """Return d as :func:`diagonal_scale`, with A z for a random z at hand, counted."""
    xp, n = namespace(like), A.shape[0]
    if is_level(Az):
        return None, 1
    s, total = xp.ones_like(Az), xp.zeros_like(Az)
    for count in range(_HALVINGS + _AVERAGED):
        if count:
            Az = A @ (s * random_signs(n, like, count))
        rows = s * xp.abs(Az)
        sizes = _positive(rows)
        if sizes is None:
            return None, count + 1
        if count < _HALVINGS:
            s = s / xp.sqrt(sizes / xp.max(sizes))
        else:
            total = total + (sizes / xp.max(sizes)) ** 2
    s = s / total**0.25
    return 1.0 / (s * s), _HALVINGS + _AVERAGED


def random_signs(n: int, like: Array, seed: int) -> Array:
    """Return entries of random sign and a size in [½, 1½): no sum of a few vanishes."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(0.5, 1.5, n) * rng.choice([-1.0, 1.0], n)
    return asarray(values, like)


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
