"""What an AMG hierarchy costs, and how many iterations a matrix takes without it.

Costs are in iterations of CG, timed on one thread: ``benchmarks/auto_report.py --prices``
prints them beside new measurements.
"""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import numpy as np

AMG = 160.0  # the setup of a hierarchy

AMG_A_DIGIT = 9.0  # its cycles for a digit


def laplacian_iterations(matrix: Any) -> float | None:
    """Estimate the iterations a digit of CG for an M-matrix; None of others.

    The row sums s over the diagonal d are a ridge, the median, which bounds λ(D⁻¹A) from
    below, or the boundary of a grid: of side L in any dimension their mean is 1 / L, and
    λ_min = π² / (2 L²).  With λ_max = 2 CG takes ½ √κ ln(10) iterations a digit, in
    practice half of the bound.  None, too, where the cycles take as long.
    """
    diagonal = matrix.diagonal()
    if not (diagonal > 0.0).all():
        return None
    sums = np.asarray(matrix.sum(axis=1), dtype=float).ravel()
    slack = np.maximum(sums / diagonal, 0.0)
    least = max(float(np.median(slack)), 0.5 * (math.pi * float(np.mean(slack))) ** 2)
    iterations = 0.25 * math.log(10.0) * math.sqrt(2.0 / max(least, 1e-16))
    if iterations <= AMG_A_DIGIT or importlib.util.find_spec("pyamg") is None:
        return None
    # No positive entry beside the diagonal: the sums of the absolute values agree.
    rows = np.asarray(abs(matrix).sum(axis=1)).ravel() - diagonal
    return iterations if (diagonal - sums >= 0.99 * rows).all() else None
