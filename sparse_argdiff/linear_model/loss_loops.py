"""The logistic loss of all samples, its slopes and its curvature in one compiled pass (numba).

    ℓ = (max(z, 0) − t z) + log(1 + e),    ℓ' = (1 − t) p − t (1 − p),    ℓ'' = p (1 − p)

with e = e^−|z| and q = 1 / (1 + e): p and 1 − p are q and e q, or e q and q.  The logarithm
is that of a ratio whose series has only positive terms, to rounding for all e in [0, 1]:

    log(1 + e) = 2 (s + s³/3 + s⁵/5 + ...),    s = e / (2 + e) ≤ 1/3
"""

# mypy: allow-untyped-defs, allow-untyped-calls, disable-error-code="call-arg,unreachable"

from __future__ import annotations

import math

import numpy as np

from ..kernels.jit import compile_loop

STRETCH = 256  # samples whose exponentials are computed before the rest


@compile_loop(fastmath={"contract", "nsz"}, error_model="numpy")
def _log1p(e):
    """Return log(1 + e) for e in [0, 1]: what is left out is below 9^−17 / 35."""
    s = e / (2.0 + e)
    x = s * s
    total = 1.0 / 33.0
    total = total * x + 1.0 / 31.0
    total = total * x + 1.0 / 29.0
    total = total * x + 1.0 / 27.0
    total = total * x + 1.0 / 25.0
    total = total * x + 1.0 / 23.0
    total = total * x + 1.0 / 21.0
    total = total * x + 1.0 / 19.0
    total = total * x + 1.0 / 17.0
    total = total * x + 1.0 / 15.0
    total = total * x + 1.0 / 13.0
    total = total * x + 1.0 / 11.0
    total = total * x + 1.0 / 9.0
    total = total * x + 1.0 / 7.0
    total = total * x + 1.0 / 5.0
    total = total * x + 1.0 / 3.0
    return 2.0 * (s + s * (x * total))


@compile_loop(fastmath={"contract", "nsz"}, error_model="numpy")
def logistic(z, targets, weights, slopes, curvature):
    """Write ℓ' and w ℓ''; return Σ w ℓ.

    The order of the terms is fixed: were it free, (1 − t) − t e would lose the digits of e
    beside a label.
    """
    sums, e = np.zeros(STRETCH), np.empty(STRETCH)
    for b in range(0, z.size, STRETCH):
        own, t, w = (
            z[b : b + STRETCH],
            targets[b : b + STRETCH],
            weights[b : b + STRETCH],
        )
        slope, second = slopes[b : b + STRETCH], curvature[b : b + STRETCH]
        for k in range(own.size):
            e[k] = math.exp(-abs(own[k]))
        for k in range(own.size):
            q = 1.0 / (1.0 + e[k])
            loss = 0.5 * (own[k] + abs(own[k])) - t[k] * own[k]
            sums[k] += w[k] * (loss + _log1p(e[k]))
            above, below = (1.0 - t[k]) - t[k] * e[k], (1.0 - t[k]) * e[k] - t[k]
            slope[k] = q * (above if own[k] >= 0.0 else below)
            second[k] = w[k] * (e[k] * (q * q))
    return sums.sum()
