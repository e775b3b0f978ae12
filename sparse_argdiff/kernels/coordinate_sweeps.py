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
    """Return ``sweep(G, w, v, lower, upper, b, r, calm, most)``: how many were made.

    b and r change.  The sweeps end after ``most``, or once ``calm`` in a row have changed
    no sign.
    """

    @compile_loop(fastmath=True)
    def axpy(a: float, x: Any, y: Any) -> None:
        for i in range(y.shape[0]):
            y[i] += a * x[i]

    @compile_loop()
    def sweep(
        G: Any, w: Any, v: Any, lower: Any, upper: Any, b: Any, r: Any,
        calm: int, most: int,
    ) -> int:  # fmt: skip
        quiet = 0
        for count in range(most):
            quiet += 1
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
                        quiet = 0
            if quiet >= calm:
                return count + 1
        return most

    return sweep


@functools.cache
def compile_gram() -> Any:
    """Return ``gram(indptr, indices, data, d, place, k)``, F_S' diag(d) F_S, (k, k).

    Column j of the rows, which have no entry twice, has the place ``place[j]`` in S, negative where it is not in S.
    The last entry of ``place`` is that of a column of ones.
    """

    @compile_loop()
    def gram(indptr: Any, indices: Any, data: Any, d: Any, place: Any, k: int) -> Any:
        # Unsigned places need no look for negative ones, which count from the end; and what
        # is not in S is written too, and overwritten: a branch for each costs more.
        G, one = np.zeros((k, k)), np.uintp(1)
        where = np.empty(place.shape[0] + 1, np.uintp)
        what = np.empty(place.shape[0] + 1)
        ones = place[place.shape[0] - 1]
        for i in range(indptr.shape[0] - 1):
            count = np.uintp(0)
            for a in range(indptr[i], indptr[i + 1]):
                at = place[np.uintp(indices[a])]
                where[count], what[count] = np.uintp(at), data[a]
                count += np.uintp(at >= 0)
            if ones >= 0:
                where[count], what[count] = np.uintp(ones), 1.0
                count += one
            for a in range(count):
                row, x = G[where[a]], d[i] * what[a]
                for b in range(a + 1):
                    row[where[b]] += x * what[b]
        # Rows may be unsorted: each pair was met once, on either side of the diagonal.
        for a in range(k):
            for b in range(a):
                G[a, b] += G[b, a]
                G[b, a] = G[a, b]
        return G

    return gram
