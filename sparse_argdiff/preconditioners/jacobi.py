"""The diagonal as a preconditioner: M = diag(A)⁻¹, floored.

m_i = 1 / max(d_i, floor · max d)
"""

from __future__ import annotations

import math
from typing import Any

from ..arrays import Array, as_tolerance, as_vector, namespace
from ..linear_operator import LinearOperator


def jacobi(diag: Any, *, floor: float = 1e-12) -> LinearOperator:
    """Return the inverse of a diagonal as an operator.

    Parameters
    ----------
    diag : array (n,)
        The diagonal of A, or an approximation.
    floor : float
        Entries below ``floor`` times the largest are raised to it, so that a zero
        (a feature that never occurs) does not divide.

    Returns
    -------
    LinearOperator (n, n)
        M ≈ A⁻¹, symmetric positive definite; its ``update`` is calling this again.

    Raises
    ------
    ValueError
        When the diagonal is not finite or has no positive entry: then A is not
        positive definite and a diagonal cannot help.
    """
    diag, floor = as_vector("diag", diag), as_tolerance("floor", floor)
    xp = namespace(diag)
    n = diag.shape[0]
    smallest, largest = _range(diag)
    if not math.isfinite(largest - smallest):
        raise ValueError("diag must be finite, found NaN or infinity")
    if largest <= 0.0:
        raise ValueError(f"diag must have a positive entry, its largest is {largest}")
    if smallest < floor * largest:
        diag = xp.where(diag < floor * largest, floor * largest, diag)
    inverse = 1.0 / diag

    def product(r: Array) -> Array:
        namespace(inverse, r)  # a mix is refused by name
        return inverse * r if r.ndim == 1 else inverse[:, None] * r

    return LinearOperator(
        (n, n),
        product,
        matmat=product,
        dtype=inverse.dtype,
        positive_definite=True,
        diagonal=inverse,
        is_diagonal=True,
    )


def jacobi_of(A: LinearOperator) -> LinearOperator | None:
    """Return :func:`jacobi` of an operator that knows its diagonal, None of others.

    None too where the diagonal is not finite and positive: A is then not definite,
    which is for the solver to find and say.
    """
    if not A.has_diagonal or A.shape[0] == 0:
        return None
    return jacobi_where_definite(A.diagonal())


def jacobi_where_definite(diag: Array) -> LinearOperator | None:
    """Return :func:`jacobi` of a finite and positive diagonal, None of others."""
    smallest, largest = _range(diag)
    return jacobi(diag) if smallest > 0.0 and largest < math.inf else None


def _range(diag: Array) -> tuple[float, float]:
    """Return the smallest and the largest entry; NaN where there is one."""
    xp = namespace(diag)
    if diag.shape[0] == 0:
        return 1.0, 1.0
    return float(xp.min(diag)), float(xp.max(diag))
