"""What is settled of a stack of programs before the first iteration.

Members with NaN or with sides that exclude each other are told apart and replaced by harmless
ones, P is tested for convexity on the equality rows, variables between equal bounds leave.

    P_ρ = P + ρ A'A,   q_ρ = q − ρ A'b       the same problem, convex where Z'P Z is, A Z = 0
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from scipy import linalg

from ...arrays import Array, epsilon, namespace
from ...krylov.stacked import apply
from ...problem.stacked_quadratic import ROWS, StackedQuadratic
from ...status import Status


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """A stack without obstacles, and the members that have one.

    Attributes
    ----------
    data : StackedQuadratic
        Harmless where ``wrong`` is.
    wrong : dict of Status to bool array (k,)
    """

    data: StackedQuadratic
    wrong: dict[Status, Array]


def prepare(data: StackedQuadratic) -> Prepared:
    """Tell apart the members that have no solution by their data alone."""
    xp, k = namespace(data.q), data.count
    undefined = xp.zeros((k,), dtype=xp.bool)
    empty = xp.zeros((k,), dtype=xp.bool)
    parts: dict[str, Any] = {}
    for name in ("P", "q", "A", "b", "G"):
        value = getattr(data, name)
        bad = ~xp.isfinite(value)
        undefined = undefined | _any(bad)
        parts[name] = xp.where(bad, xp.zeros_like(value), value)
    for below, above in (("h_lower", "h"), ("lower", "upper")):
        low, high = getattr(data, below), getattr(data, above)
        undefined = undefined | _any(xp.isnan(low)) | _any(xp.isnan(high))
        wrong = (low > high) | (low >= ROWS) | (high <= -ROWS)
        empty = empty | _any(wrong)
        parts[below] = xp.where((low < high) | (low == high), low, -xp.inf)
        parts[below] = xp.where(wrong | (low <= -ROWS), -xp.inf, parts[below])
        parts[above] = xp.where((low < high) | (low == high), high, xp.inf)
        parts[above] = xp.where(wrong | (high >= ROWS), xp.inf, parts[above])
    return Prepared(
        StackedQuadratic(**parts),
        {Status.NOT_FINITE: undefined, Status.INFEASIBLE: empty & ~undefined},
    )


def _any(mask: Array) -> Array:
    xp = namespace(mask)
    return xp.any(mask, axis=tuple(range(1, mask.ndim)))


def indefinite(P: Array) -> Array:
    """Return which P_i have an eigenvalue below rounding, bool (k or 1,)."""
    xp, n = namespace(P), P.shape[-1]
    if n == 0:
        return xp.zeros((P.shape[0],), dtype=xp.bool)
    shift = 64.0 * n * epsilon(P) * xp.max(xp.abs(P), axis=(1, 2))
    if xp is not np:
        least = xp.min(xp.linalg.eigvalsh(P), axis=1)
        return least < -shift
    (factorise,) = linalg.get_lapack_funcs(("potrf",), (P,))
    found = np.zeros(P.shape[0], dtype=bool)
    diagonal = np.arange(n)
    for i in range(P.shape[0]):
        shifted = np.array(P[i])
        shifted[diagonal, diagonal] += shift[i] + np.finfo(P.dtype).tiny
        _, failed = factorise(shifted, lower=True, clean=False, overwrite_a=True)
        found[i] = failed != 0
    return found


def convexified(data: StackedQuadratic, at: Array) -> tuple[StackedQuadratic, Array]:
    """Return P_ρ and q_ρ for the members ``at``, and which of them are not convex at all.

    Parameters
    ----------
    data : StackedQuadratic
        In equilibrated units, without variables between equal bounds.
    at : bool array (k,)
        Where P is indefinite.
    """
    xp, k = namespace(data.q), data.count
    P = xp.broadcast_to(data.P, (k, *data.P.shape[1:])) + 0.0
    q = xp.broadcast_to(data.q, (k, data.n)) + 0.0
    failed = at & False
    (index,) = xp.nonzero(at)
    if data.A.shape[1] == 0:
        return data, at
    A, b = (xp.broadcast_to(v, (k, *v.shape[1:]))[index, ...] for v in (data.A, data.b))
    _, s, V = xp.linalg.svd(A, full_matrices=True)
    rank = s > 1e-10 * xp.max(s, axis=1, keepdims=True)
    for j, i in enumerate(xp.nonzero(at)[0]):
        r = int(xp.sum(xp.astype(rank[j], xp.int64)))
        Z, R = V[j, r:, :], V[j, :r, :]
        Pi = P[i]
        size = xp.sqrt(xp.sum(Pi * Pi))
        least = (
            float(xp.min(xp.linalg.eigvalsh(Z @ Pi @ Z.T)))
            if Z.shape[0]
            else float(size)
        )
        if least <= 1e-12 * float(size):
            failed[i] = True
            continue
        mixed = float(xp.sum((Z @ Pi @ R.T) ** 2)) / least if Z.shape[0] else 0.0
        rho = 2.0 * (float(size) + mixed) / float(s[j, r - 1]) ** 2 if r else 0.0
        P[i] = Pi + rho * (A[j].T @ A[j])
        q[i] = q[i] - rho * (A[j].T @ b[j])
    return dataclasses.replace(data, P=P, q=q), failed


def without_fixed(data: StackedQuadratic) -> tuple[StackedQuadratic, Array, Array]:
    """Return the programs without the variables that equal bounds fix, kept as zeros.

    Also which they are, (k or 1, n), and their values, zero elsewhere.
    """
    xp = namespace(data.q)
    fixed = data.lower == data.upper
    value = xp.where(fixed, data.lower, xp.zeros_like(data.lower))
    if not bool(xp.any(fixed)):
        return data, fixed, value
    free = ~fixed
    eye = xp.eye(data.n, dtype=data.q.dtype)[None, :, :]
    Gv = apply(data.G, value)
    return (
        StackedQuadratic(
            P=xp.where(free[:, :, None] & free[:, None, :], data.P, eye + 0.0 * data.P),
            q=(data.q + apply(data.P, value)) * free,
            A=data.A * free[:, None, :],
            b=data.b - apply(data.A, value),
            G=data.G * free[:, None, :],
            h=data.h - Gv,
            h_lower=data.h_lower - Gv,
            lower=xp.where(fixed, -xp.inf, data.lower),
            upper=xp.where(fixed, xp.inf, data.upper),
        ),
        fixed,
        value,
    )
