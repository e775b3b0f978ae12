"""What a factor or a hierarchy of an explicit matrix costs, in iterations without it.

    a factor      (n³/9 + 60 n²) / (nnz + 1.4·10⁵)         a hierarchy      250

An iteration reads the nnz entries, and has a cost of its own, that of 1.4·10⁵ entries.  The
figures were fitted to clocks (dense, grid and graph matrices, n from 300 to 9·10⁴); within a
factor of two they hold on other machines, where all of this is memory and arithmetic too.
"""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import numpy as np

AMG = 250.0  # the hierarchy's setup
CYCLES = 12.0  # what its cycles take for a digit
_ITERATION = 1.4e5  # entries whose reading takes as long as the rest of an iteration


def factor_price(matrix: Any) -> float:
    """Return the iterations that a Cholesky factor of the entries takes as long as."""
    n = matrix.shape[0]
    return float(n**3 / 9.0 + 60.0 * n**2) / _iteration(matrix)


def factor_pays(matrix: Any) -> float:
    """Return the iterations a digit above which solves with the factor are shorter.

    A solve takes two products with the factor, of 2 n² entries each, for some four digits.
    """
    return float(matrix.shape[0] ** 2 / _iteration(matrix))


def _iteration(matrix: Any) -> float:
    entries = getattr(matrix, "nnz", None)
    entries = matrix.shape[0] ** 2 if entries is None else entries
    return float(entries) + _ITERATION


def amg_pays(condition: float, digits: float, solves: float) -> bool:
    """Tell whether ``solves`` with that condition number are shorter with the hierarchy."""
    iterations = 0.6 * digits * math.sqrt(condition)
    return solves * (iterations - CYCLES * digits) > AMG


def laplacian_condition(matrix: Any) -> float | None:
    """Estimate the condition of D⁻¹A for an A like a Laplacian; None of others.

    None below a thousand, too, where a hierarchy hardly pays, and without PyAMG.  Like a
    Laplacian: positive diagonal, hardly a positive entry beside it, rows that sum to
    something small.  What all rows have in common, their median, is a ridge, and bounds
    the spectrum from below; what few of them have is a boundary, whose distance counts
    squared.  Costs one product where the sums alone decide.
    """
    diagonal = matrix.diagonal()
    if not (diagonal > 0.0).all():
        return None
    sums = np.asarray(matrix.sum(axis=1), dtype=float).ravel()
    slack = np.maximum(sums / diagonal, 0.0)
    least = max(0.5 * float(np.median(slack)), 2.5 * float(np.mean(slack)) ** 2)
    if least > 1e-3 or importlib.util.find_spec("pyamg") is None:
        return None
    rows = np.asarray(abs(matrix).sum(axis=1)).ravel() - diagonal  # off the diagonal
    signed = diagonal - sums  # the same where no entry there is positive
    return 1.0 / max(least, 1e-16) if (signed >= 0.99 * rows).all() else None
