"""Descent along two dual variables at a time: sequential minimal optimisation.

    z = s ∘ a,   r = −s ∘ ∂f/∂a,    z_i ← z_i + τ,  z_j ← z_j − τ,   τ = (r_i − r_j) / η_ij

with η_ij = H_ii + H_jj − 2 H_ij: s'a keeps its value.  i has the largest r of those that can
grow, and j gains most with it.  Without s'a = 0 it is one variable, τ = r_i / H_ii.  A step
takes a column of the kernel and no product, so that it leads a cold start to the
neighbourhood of the solution; the last digits are those of Newton's method.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from ..arrays import HostArray
from ..kernels.coordinate_descent import compiled_pairs, is_worth_compiling

_ROUND = 500  # steps before compiling is thought of again


@dataclasses.dataclass
class PairwiseDescent:
    """The state of the descent; it writes into its own arrays.

    Attributes
    ----------
    z, r : array (n,)
        Variables and forces.
    low, high : array (n,)
        The bounds of z.
    diagonal : array (n,)
        Of H.
    column : callable
        ``column(i)`` returns H[:, i] without the own term of variable i, (n,).
    own : array (n,)
        The own terms, which only the diagonal of H has.
    entries : array (N, N) or None
        The kernel matrix, whose row k mod N is that of variable k; with it steps are compiled
        where that is worth it.
    """

    z: HostArray
    r: HostArray
    low: HostArray
    high: HostArray
    diagonal: HostArray
    column: Callable[[int], HostArray]
    own: HostArray
    entries: HostArray | None = None

    def __post_init__(self) -> None:
        # Infinite where a variable can not grow, or not fall.
        self._grows = np.where(self.z < self.high, 0.0, -np.inf)
        self._falls = np.where(self.z > self.low, 0.0, np.inf)
        self._least = np.finfo(self.r.dtype).eps * max(
            float(self.diagonal.max()), 1e-300
        )

    def pairs(self, tol: float, maxiter: int) -> int:
        """Move pairs until no two forces differ by more than tol; return the steps."""
        done, n = 0, self.z.shape[0]
        while done < maxiter:
            most = maxiter - done
            if self.entries is not None and is_worth_compiling(float(done) * n):
                state = self.z, self.r, self.low, self.high, self.diagonal, self.own
                pairs = compiled_pairs()
                return done + int(pairs(self.entries, *state, self._least, tol, most))
            taken = self._pairs_by_columns(tol, min(_ROUND, most))
            done += taken
            if taken < min(_ROUND, most):
                break
        return done

    def _pairs_by_columns(self, tol: float, maxiter: int) -> int:
        r, high, low, z = self.r, self.high, self.low, self.z
        for step in range(maxiter):
            i = int(np.argmax(r + self._grows))
            apart = r[i] - (r + self._falls)
            if not float(apart.max()) > tol:
                return step
            column = self.column(i)
            bent = self.diagonal + self.diagonal[i] - 2.0 * column
            np.maximum(bent, self._least, out=bent)
            gain = np.where(apart > 0.0, apart * apart / bent, 0.0)
            gain[i] = 0.0
            j = int(np.argmax(gain))
            tau = min(apart[j] / bent[j], high[i] - z[i], z[j] - low[j])
            if not tau > 0.0:
                return step
            r -= tau * (column - self.column(j))
            self._move(i, tau)
            self._move(j, -tau)
        return maxiter

    def singles(self, tol: float, maxiter: int) -> int:
        """Move one variable at a time until no force is above tol; return the steps."""
        diagonal = np.maximum(self.diagonal, self._least)
        for step in range(maxiter):
            force = np.where(self.r > 0.0, self.r + self._grows, self.r + self._falls)
            force = np.where(np.isfinite(force), force, 0.0)
            i = int(np.argmax(force * force / diagonal))
            if not float(np.max(np.abs(force))) > tol:
                return step
            aim = np.clip(self.z[i] + force[i] / diagonal[i], self.low[i], self.high[i])
            tau = float(aim - self.z[i])
            if tau == 0.0:
                return step
            self.r -= tau * self.column(i)
            self._move(i, tau)
        return maxiter

    def _move(self, i: int, tau: float) -> None:
        """Move a variable, onto its bound where it reaches it."""
        self.r[i] -= tau * self.own[i]
        moved = self.z[i] + tau
        self.z[i] = moved = min(max(moved, self.low[i]), self.high[i])
        self._grows[i] = 0.0 if moved < self.high[i] else -np.inf
        self._falls[i] = 0.0 if moved > self.low[i] else np.inf
