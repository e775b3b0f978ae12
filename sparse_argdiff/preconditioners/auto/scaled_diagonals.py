"""The diagonals that precondition K = data + diag(r) without a product of their own.

    M⁻¹ = κ diag(data) + r,      κ = 1 − (1/N) Σ κ d / (κ d + r)

Of N samples, no more than N coordinates can be determined, though the diagonal d of the
data's part may promise more.  This κ in (0, 1] keeps the promise: M is the mean of K⁻¹ over
random features of these sizes.  With many samples it is the whole diagonal; with few, it
is the ridge r and a small share of the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ...arrays import Array, asarray, dot, namespace
from ...operators.linear_operator import LinearOperator
from ..jacobi import jacobi, jacobi_of, jacobi_where_definite

_LEVEL = 1.2  # largest over smallest entry of a diagonal that is not worth a pass
_EVEN = 0.66  # deviation of log r up to which a ridge counts as constant
_ALIKE, _SPREAD = 0.15, 1.0  # deviation of log diag(K): no matter below, plain above
_TOO_MUCH = 1.25  # times what the samples determine, which the diagonal may promise
_CORRELATED = 0.25  # of those expected: with fewer independent coordinates it misleads

Diagonals = dict[str, "LinearOperator | None"]


def diagonals(K: LinearOperator, independent: Callable[[], float]) -> Diagonals:
    """Return the candidates, the one for a single solve first.

    Parameters
    ----------
    K : operator (n, n)
        With a ``split`` into the data's part and a ridge; of others the diagonal is taken
        where it is known.
    independent : callable
        Returns :func:`independent_share` of the data's part, for a product; asked for
        where the answer decides.

    Notes
    -----
    An uneven ridge takes the formula above, or where few samples are correlated the
    geometric mean of the two parts beside it.  Under an even one, what the data does not
    determine is one eigenvalue of high multiplicity, which CG meets in one step: a constant
    keeps it, any other diagonal spreads it.  There the formula is right where the
    samples determine what it promises and the coordinates are independent, or differ so
    much in size that this decides.

    References
    ----------
    W. Hachem, P. Loubaton, J. Najim, "Deterministic equivalents for certain functionals
    of large random matrices", Ann. Appl. Probab. 17 (2007) 875-930.
    """
    if K.split is None or not K.split[0].has_diagonal:
        whole = jacobi_of(K)
        if whole is None:
            return {}
        both: Diagonals = {"jacobi": whole, "none": None}
        inverse = whole.diagonal()
        xp = namespace(inverse)
        level = float(xp.max(inverse)) <= _LEVEL * float(xp.min(inverse))
        return dict(reversed(both.items())) if level else both
    core, ridge = K.split
    data, xp = core.diagonal(), namespace(ridge)
    whole = jacobi_where_definite(data + ridge)
    if whole is None:
        return {}
    mean, penalised = float(xp.mean(data)), ridge > 0.0
    r, d = ridge[penalised], data[penalised]
    sound = 0.0 < mean < math.inf and float(xp.min(ridge)) >= 0.0
    if not sound or r.shape[0] == 0 or not float(xp.min(data)) >= 0.0:
        return {"jacobi": whole}
    name, share, samples = "jacobi", 1.0, math.inf
    if core.rank is not None:
        free = ridge.shape[0] - r.shape[0]
        samples = max(core.rank - free, 1)
        name, share = "damped", data_share(d, r, samples)
    damped = jacobi(xp.where(penalised, share * data + ridge, data))
    expected = 1.0 / (1.0 + r.shape[0] / samples)
    wide = r.shape[0] > 2.0 * samples
    if float(xp.std(xp.log(r))) > _EVEN:
        between = xp.where(penalised, ridge + xp.sqrt(ridge) * xp.sqrt(data), data)
        uneven: Diagonals = {name: damped, "between": jacobi(between)}
        correlated = wide and independent() < _CORRELATED * expected
        return dict(reversed(uneven.items())) if correlated else uneven
    promised, spread = float(xp.sum(d / (d + r))), float(xp.std(xp.log(d + r)))
    few = promised > _TOO_MUCH * samples or (wide and spread <= 2.0 * _ALIKE)
    if not few and spread > _ALIKE and (core.rank is None or spread < _SPREAD):
        few = independent() < _CORRELATED * expected
    both = {name: damped, "shifted": jacobi(ridge + mean)}
    return dict(reversed(both.items())) if few else both


def data_share(data: Array, ridge: Array, samples: int) -> float:
    """Return the root κ in (0, 1] of κ + Σ κ d / (κ d + r) / samples = 1.

    The left side rises with κ, and exceeds 1 at κ = 1: thirty bisections of log κ.
    """
    xp = namespace(data)
    most = float(xp.sum(data / ridge)) / samples
    low, high = -math.log(min(1.0 + most, 1e100)), 0.0
    for _ in range(30):
        middle = 0.5 * (low + high)
        share = math.exp(middle)
        promised = float(xp.sum(share * data / (share * data + ridge)))
        if share + promised / samples > 1.0:
            high = middle
        else:
            low = middle
    return math.exp(high)


def independent_share(core: LinearOperator, like: Array) -> float:
    """Estimate n / ‖R‖²_F, with R the core in the units of its diagonal; one product.

    It is 1 for independent coordinates and many samples, N / (n + N) for N of them, and
    1 / n where all coordinates move together.
    """
    data, xp = core.diagonal(), namespace(like)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=core.shape[0])
    one = xp.ones_like(data)
    root = xp.where(data > 0.0, 1.0 / xp.sqrt(xp.where(data > 0.0, data, one)), one)
    image = root * core.matvec(root * asarray(signs, like))
    square = dot(image, image)
    return core.shape[0] / square if square > 0.0 else 1.0
