"""Jacobi preconditioner: M = diag(A)⁻¹ with a floor.

m_i = 1 / max(d_i, floor · max d)
"""

from __future__ import annotations

import math
from typing import Any

from ..arrays import Array, as_tolerance, as_vector, is_array, namespace
from ..operators.block_matrices import as_diagonal
from ..operators.linear_operator import LinearOperator, as_operator
from ..operators.structure import Structure


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
        M ≈ A⁻¹, symmetric positive definite.  ``update(A)`` takes the diagonal of
        another matrix, an operator that knows it or the diagonal itself.

    Raises
    ------
    ValueError
        When the diagonal is not finite or has no positive entry: then A is not
        positive definite and a diagonal cannot help.  When its inverse overflows.
    """
    diag, floor = as_vector("diag", diag), as_tolerance("floor", floor)
    xp = namespace(diag)
    n = diag.shape[0]
    smallest, largest = _range(diag)
    if not math.isfinite(largest - smallest):
        raise ValueError("diag must be finite, found NaN or infinity")
    if largest <= 0.0:
        raise ValueError(f"diag must have a positive entry, its largest is {largest}")
    lowest = max(smallest, floor * largest)
    if not lowest * float(xp.finfo(diag.dtype).max) > 1.0:
        raise ValueError(
            "diag must have a finite inverse, found the entry "
            f"{lowest} above floor = {floor} times the largest"
        )
    if smallest < lowest:
        diag = xp.where(diag < lowest, lowest, diag)
    inverse = 1.0 / diag
    in_place = xp.__name__ in {"numpy", "cupy"}

    def product(r: Array) -> Array:
        namespace(inverse, r)  # a mix is refused by name
        return inverse * r if r.ndim == 1 else inverse[:, None] * r

    def into(r: Array, out: Array) -> None:
        namespace(inverse, r, out)
        if in_place and out.dtype == xp.result_type(inverse.dtype, r.dtype):
            xp.multiply(inverse, r, out=out)
        else:
            out[...] = inverse * r

    def update(other: Any) -> LinearOperator:
        flat = is_array(other) and other.ndim == 1
        other = as_vector("diag", other, n) if flat else as_diagonal("A", other, n)
        return jacobi(other, floor=floor)

    M = LinearOperator(
        (n, n),
        product,
        matmat=product,
        dtype=inverse.dtype,
        positive_definite=True,
        diagonal=inverse,
        structure=Structure(is_diagonal=True),
    )
    return M.with_product(into).with_setup(update=update)


def jacobi_of(A: Any) -> LinearOperator | None:
    """Return :func:`jacobi` of an operator that knows its diagonal, None of others.

    None too where the diagonal is not finite or has a negative entry: A is then not
    definite, which the solver detects and reports.
    """
    A = as_operator("A", A)
    if not A.has_diagonal or A.shape[0] == 0:
        return None
    return jacobi_where_definite(A.diagonal())


def jacobi_where_definite(diag: Array) -> LinearOperator | None:
    """Return :func:`jacobi` of a finite diagonal >= 0, None of others.

    A zero, of an unknown without curvature, takes the smallest other entry.
    """
    smallest, largest = _range(diag)
    if not (smallest >= 0.0 and largest > 0.0):
        return None
    if smallest == 0.0:
        xp = namespace(diag)
        diag = xp.where(diag > 0.0, diag, xp.min(diag[diag > 0.0]))
    try:
        return jacobi(diag, floor=0.0)
    except ValueError:
        return None


def _range(diag: Array) -> tuple[float, float]:
    """Return the smallest and the largest entry; NaN where there is one."""
    xp = namespace(diag)
    if diag.shape[0] == 0:
        return 1.0, 1.0
    return float(xp.min(diag)), float(xp.max(diag))
