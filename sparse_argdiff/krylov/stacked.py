"""Many small dense systems at once, factorised: K_i z_i = r_i, i = 1 … k.

    K_i = [ H_i   C_i' ]
          [ C_i   −δ_i ]

Up to ``STACKED`` unknowns, and on a device, one call solves the stack; above that NumPy calls
LAPACK once for each system, which keeps the factor and no longer notices the overhead of a
call.  Nothing that is computed for one system depends on
the others, not even by rounding.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import linalg

from ..arrays import Array, namespace

STACKED = 16  # unknowns up to which one call for all is faster, measured
# Variables up to which one LU costs less than the calls of two roots, measured.
BY_ROOTS = 32


def apply(M: Array, v: Array) -> Array:
    """Return M_i v_i for M (k or 1, p, n) and v (k, n), shape (k, p)."""
    return (M @ v[..., None])[..., 0]


def apply_transposed(M: Array, v: Array) -> Array:
    """Return M_i' v_i for M (k or 1, p, n) and v (k, p), shape (k, n)."""
    return (v[..., None, :] @ M)[..., 0, :]


def transposed(M: Array) -> Array:
    """Return M_i' of a stack, a view."""
    return namespace(M).permute_dims(M, (0, 2, 1))


def solve_each(K: Array, r: Array) -> Array:
    """Return K_i⁻¹ r_i for r (k, N); NaN where a K_i is exactly singular."""
    xp = namespace(K)
    if 0 in r.shape:
        return r
    try:
        return xp.linalg.solve(K, r[..., None])[..., 0]
    except np.linalg.LinAlgError:
        if K.shape[0] == 1:
            return xp.full_like(r, math.nan)
        half = K.shape[0] // 2
        return xp.concat(
            [solve_each(K[:half], r[:half]), solve_each(K[half:], r[half:])]
        )


class StackedFactor:
    """The stack of [H C'; C −δ] with H symmetric, factorised.

    Parameters
    ----------
    H : array (k or 1, n, n)
    C : array (k, p, n)
    delta : array (k, p)
    sizes : int array (k,) on the host, optional
        Rows of C that count, the first ones; the others are zero.  With them each system is
        factorised by itself, without them all are solved in one call.

    Notes
    -----
    Large ones on the host: where H is definite and well conditioned by H = L L' and the Schur
    complement of C, else by LU of the whole.
    """

    def __init__(self, H: Array, C: Array, delta: Array, sizes: Any = None) -> None:
        xp, (k, _, n) = namespace(C), C.shape
        self._n = n
        self._stack: Array | None = None
        self._factors: list[Any] = []
        small = n <= BY_ROOTS
        if xp is not np or sizes is None or small:
            K = saddle_stack(xp.broadcast_to(H, (k, n, n)), C, delta)
            if xp is not np or sizes is None:
                self._stack = K
                return
        roots = [None if small else _well_conditioned_root(M) for M in np.asarray(H)]
        getrf, trtrs, potrf = linalg.get_lapack_funcs(("getrf", "trtrs", "potrf"), (C,))
        for i in range(k):
            j = int(sizes[i])
            one = 0 if H.shape[0] == 1 else i
            L = roots[one]
            if L is None:
                if small:
                    K_i = K[i, : n + j, : n + j]
                else:
                    own = slice(i, i + 1)
                    K_i = saddle_stack(H[one : one + 1], C[own, :j], delta[own, :j])[0]
                # A row-major matrix is its transpose to LAPACK, and K is symmetric.
                lu, pivots, _ = getrf(K_i.T)
                self._factors.append((lu, pivots))
                continue
            V = S = None
            if j:
                V, _ = trtrs(L, C[i, :j].T, lower=True)
                S = V.T @ V
                S[np.arange(j), np.arange(j)] += delta[i, :j]
                S, _ = potrf(S, lower=True, clean=False)
            self._factors.append((L, V, S))

    def solve(self, r: Array) -> Array:
        """Return the solutions for r (k, n + p)."""
        if self._stack is not None:
            return solve_each(self._stack, r)
        z, n = np.zeros_like(r), self._n
        getrs, *roots = linalg.get_lapack_funcs(("getrs", "trtrs", "potrs"), (r,))
        for i, factor in enumerate(self._factors):
            if len(factor) == 2:
                j = factor[0].shape[0]
                z[i, :j], _ = getrs(*factor, r[i, :j])
            else:
                j = n + (0 if factor[1] is None else factor[1].shape[1])
                z[i, :j] = _by_roots(factor, r[i, :j], *roots)
        return z


_LEAST = 1e-9  # reciprocal condition of H from which on its root is used


def _well_conditioned_root(H: Any) -> Any:
    """Return L with H = L L', None where H is not definite or ill-conditioned."""
    potrf, pocon = linalg.get_lapack_funcs(("potrf", "pocon"), (H,))
    L, failed = potrf(H.T, lower=True, clean=False)
    if failed:
        return None
    reciprocal, _ = pocon(L, np.abs(H).sum(axis=0).max(), uplo="L")
    return L if reciprocal > _LEAST else None


def _by_roots(factor: Any, r: Any, trtrs: Any, potrs: Any) -> Any:
    """Solve [L L' C'; C −δ] z = r by the roots of H and of C H⁻¹ C' + δ."""
    L, V, S = factor
    n = L.shape[0]
    z = np.empty_like(r)
    u, _ = trtrs(L, r[:n], lower=True)
    if S is not None:
        w, _ = potrs(S, V.T @ u - r[n:], lower=True)
        u = u - V @ w
        z[n:] = w
    z[:n], _ = trtrs(L, u, lower=True, trans=1)
    return z


class StackedRegularFactor:
    """The stack of [H C'; C −δ] with H positive definite, whatever its condition.

    A factorisation that rounding makes fail is repeated with a larger diagonal: the result serves
    the steps of an iteration.
    """

    def __init__(self, H: Array, C: Array, delta: float) -> None:
        xp, (k, n, _), p = namespace(H), H.shape, C.shape[1]
        self._stack: Array | None = None
        self._factors: list[Any] = []
        if xp is not np or n + p <= STACKED:
            self._stack = saddle_stack(H, C, delta)
            return
        by_roots = n > BY_ROOTS
        K = None if by_roots else saddle_stack(H, C, delta)
        (getrf,) = linalg.get_lapack_funcs(("getrf",), (H,))
        for i in range(k):
            if K is None:
                rows = C[i if C.shape[0] > 1 else 0]
                self._factors.append(_roots(H[i], rows, delta))
            else:
                self._factors.append(getrf(K[i].T)[:2])

    def solve(self, r: Array) -> Array:
        """Return the solutions for r (k, n + p); NaN where a factorisation failed.

        A stack of one is the matrix of all.
        """
        if self._stack is not None:
            K, xp = self._stack, namespace(r)
            return solve_each(xp.broadcast_to(K, (r.shape[0], *K.shape[1:])), r)
        z = np.full_like(r, np.nan)
        getrs, *roots = linalg.get_lapack_funcs(("getrs", "trtrs", "potrs"), (r,))
        shared = len(self._factors) == 1
        for i in range(r.shape[0]):
            factor = self._factors[0 if shared else i]
            if factor is not None and len(factor) == 2:
                z[i], _ = getrs(*factor, r[i])
            elif factor is not None:
                z[i] = _by_roots(factor, r[i], *roots)
        return z


def _roots(H: Any, C: Any, delta: float) -> Any:
    """Return the roots of H and of C H⁻¹ C' + δ, None where there are none."""
    potrf, trtrs = linalg.get_lapack_funcs(("potrf", "trtrs"), (H,))
    (n, _), p = H.shape, C.shape[0]
    L, failed = potrf(H.T, lower=True, clean=False)
    if failed:
        shift = 1e3 * np.finfo(H.dtype).eps * np.abs(H).max()
        L, failed = potrf(H + shift * np.eye(n), lower=True)
    if failed or p == 0:
        return None if failed else (L, None, None)
    V, _ = trtrs(L, C.T, lower=True)
    S, failed = potrf(V.T @ V + delta * np.eye(p), lower=True, clean=False)
    return None if failed else (L, V, S)


def saddle_stack(H: Array, C: Array, delta: Any) -> Array:
    """Return the stack of [H C'; C −δ], δ a number or (k, p)."""
    xp = namespace(H, C)
    k, n, _ = H.shape
    p = C.shape[1]
    if p == 0:
        return H
    K = xp.zeros((k, n + p, n + p), dtype=H.dtype)
    K[:, :n, :n] = H
    K[:, n:, :n] = C
    K[:, :n, n:] = transposed(C)
    rows = xp.arange(n, n + p)
    K[:, rows, rows] = -delta if isinstance(delta, float) else -1.0 * delta
    return K
