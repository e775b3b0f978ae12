"""Sweeps of coordinate descent on a penalised quadratic, as a compiled loop.

    b_j ← soft(G_jj b_j − r_j, w_j) / (G_jj + v_j),   r = G b + c kept up to date

A coordinate at zero whose force does not exceed its weight stays there and is passed over.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from .jit import compile_loop


@functools.cache
def compile_sweeps() -> Any:
    """Return ``sweep(G, w, v, lower, upper, b, r, most)``: the sweeps made, b and r changed.

    The sweeps end after ``most``, or once one of them has changed no sign.
    """

    @compile_loop(fastmath=True)
    def axpy(a: float, x: Any, y: Any) -> None:
        for i in range(y.shape[0]):
            y[i] += a * x[i]

    @compile_loop()
    def sweep(
        G: Any, w: Any, v: Any, lower: Any, upper: Any, b: Any, r: Any, most: int
    ) -> int:
        for count in range(most):
            changed = False
            for j in range(b.shape[0]):
                old, bend = b[j], G[j, j]
                if (old == 0.0 and abs(r[j]) <= w[j]) or bend + v[j] <= 0.0:
                    continue
                target = bend * old - r[j]
                beyond = abs(target) - w[j]
                new = 0.0
                if beyond > 0.0:
                    new = math.copysign(beyond, target) / (bend + v[j])
                new = min(max(new, lower[j]), upper[j])
                if new != old:
                    axpy(new - old, G[j], r)
                    b[j] = new
                    if new * old <= 0.0:
                        changed = True
            if not changed:
                return count + 1
        return most

    return sweep


@functools.cache
def compile_gram() -> Any:
    """Return ``gram(indptr, indices, data, d, k)``, F' diag(d) F for rows of F, (k, k)."""

    @compile_loop()
    def gram(indptr: Any, indices: Any, data: Any, d: Any, k: int) -> Any:
        G = np.zeros((k, k))
        for i in range(indptr.shape[0] - 1):
            for a in range(indptr[i], indptr[i + 1]):
                row, x = indices[a], d[i] * data[a]
                for b in range(indptr[i], a + 1):
                    G[row, indices[b]] += x * data[b]
        # Rows may be unsorted: each pair was met once, on either side of the diagonal.
        for a in range(k):
            for b in range(a):
                G[a, b] += G[b, a]
                G[b, a] = G[a, b]
        return G

    return gram
