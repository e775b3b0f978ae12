"""Steps of sequential minimal optimisation with a dense kernel matrix, as a compiled loop.

    z_i ← z_i + τ,  z_j ← z_j − τ,   τ = (r_i − r_j) / η_ij,   η_ij = H_ii + H_jj − 2 K_ij

i has the largest r of those that can grow, and j gains most with it.  Variable k has row
k mod N of K (N, N).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .jit import compile_loop


@functools.cache
def _compile_partner() -> Any:
    @compile_loop()
    def partner(
        row: Any, z: Any, r: Any, low: Any, diagonal: Any, i: int, least: float
    ) -> Any:
        """Return the j of the largest gain, −1 for none, and the largest r_i − r_j."""
        size, j, best, widest = row.shape[0], -1, 0.0, -np.inf
        for start in range(0, z.shape[0], size):
            for q in range(size):
                k = start + q
                if z[k] > low[k]:
                    apart = r[i] - r[k]
                    widest = max(widest, apart)
                    if apart > 0.0 and k != i:
                        bent = max(diagonal[k] + diagonal[i] - 2.0 * row[q], least)
                        if apart * apart > best * bent:
                            j, best = k, apart * apart / bent
        return j, widest

    return partner


@functools.cache
def compile_pairs() -> Any:
    """Return ``pairs(K, z, r, low, high, diagonal, own, least, tol, most)``: the steps made.

    z and r change, see :class:`linear_model.pairwise_descent.PairwiseDescent`.
    """
    partner = _compile_partner()

    @compile_loop()
    def pairs(
        K: Any, z: Any, r: Any, low: Any, high: Any, diagonal: Any, own: Any,
        least: float, tol: float, most: int,
    ) -> int:  # fmt: skip
        size = K.shape[0]
        for step in range(most):
            i = -1
            for k in range(z.shape[0]):
                if z[k] < high[k] and (i < 0 or r[k] > r[i]):
                    i = k
            if i < 0:
                return step
            row = K[i % size]
            j, widest = partner(row, z, r, low, diagonal, i, least)
            if j < 0 or not widest > tol:
                return step
            other = K[j % size]
            bent = max(diagonal[j] + diagonal[i] - 2.0 * row[j % size], least)
            tau = min((r[i] - r[j]) / bent, high[i] - z[i], z[j] - low[j])
            if not tau > 0.0:
                return step
            for start in range(0, z.shape[0], size):
                for q in range(size):
                    r[start + q] -= tau * (row[q] - other[q])
            r[i] -= tau * own[i]
            r[j] += tau * own[j]
            z[i] = min(max(z[i] + tau, low[i]), high[i])
            z[j] = min(max(z[j] - tau, low[j]), high[j])
        return most

    return pairs
