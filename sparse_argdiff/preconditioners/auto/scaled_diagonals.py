"""The diagonal preconditioner of K = core + diag(r), core = F'F of N samples.

    M⁻¹ = κ diag(core) + r,      κ + (1/N) Σ_j κ d_j / (κ d_j + r_j) = 1

The core has rank N, while its diagonal d alone suggests Σ d / (d + r) determined
coordinates, which may be many more; κ in (0, 1] makes the two agree.  M is then the mean
of K⁻¹ over independent features of these sizes (Hachem, Loubaton and Najim, Ann. Appl.
Probab. 17 (2007) 875-930, a deterministic equivalent).  For N large κ = 1, Jacobi.
"""

from __future__ import annotations

import math

import numpy as np

from ...arrays import Array, asarray, dot, namespace
from ...operators.linear_operator import LinearOperator
from ..jacobi import jacobi_of, jacobi_where_definite

# From `benchmarks/auto_report.py`.  A ridge is even while log r deviates by less than
# 0.35; with n > 2 N it is then the most frequent eigenvalue.  With n > 8 N and r constant
# the mean of the diagonal saves no more than the product that reading it costs.  The
# residual of a loose solve is that of the large eigenvalues, where Jacobi is as good: √κ.
_EVEN, _WIDE, _VERY_WIDE, _LOOSE = 0.35, 2.0, 8.0, 1e-3
# Correlated features, with a quarter of the independent coordinates that are expected, have
# a diagonal that misleads, unless log diag(K) deviates little or much.  The product that
# shows it pays in tight solves.
_CORRELATED, _ALIKE, _UNLIKE, _TIGHT = 0.25, 0.15, 1.3, 1e-4


class ScaledDiagonal:
    """The diagonal for operators that differ in the core: decided once for each ridge.

    Attributes
    ----------
    name : {"none", "jacobi", "scaled", "mean"}
    """

    def __init__(self) -> None:
        self.name = "none"
        self._ridge: Array | None = None
        self._share = self._shift = 0.0

    def __call__(
        self, K: LinearOperator, rtol: float
    ) -> tuple[LinearOperator | None, int]:
        """Return M, None where no diagonal is known or pays, and the products taken."""
        if K.split is None or not K.split[0].has_diagonal:
            M = jacobi_of(K)
            if M is not None and _is_level(M.diagonal()):
                M = None
            self.name = "none" if M is None else "jacobi"
            return M, 0
        core, ridge = K.split
        xp, last, n_matvec = namespace(ridge), self._ridge, 0
        if last is None or last.shape != ridge.shape or bool(xp.any(last != ridge)):
            n_matvec = self._decide(core, ridge, rtol)
            self._ridge = ridge
        if self.name == "none":
            return None, n_matvec
        if self.name == "mean":
            return jacobi_where_definite(ridge + self._shift), n_matvec
        share = self._share if rtol <= _LOOSE else math.sqrt(self._share)
        return jacobi_where_definite(share * core.diagonal() + ridge), n_matvec

    def _decide(self, core: LinearOperator, ridge: Array, rtol: float) -> int:
        """Choose by the ridge and the rank; the diagonal is read where they leave it open."""
        xp, n = namespace(ridge), ridge.shape[0]
        self.name, self._share = "jacobi", 1.0
        penalised = ridge > 0.0
        r = ridge[penalised]
        count = r.shape[0]
        samples = math.inf if core.rank is None else max(core.rank - (n - count), 1)
        if count == 0 or samples == math.inf or float(xp.min(ridge)) < 0.0:
            return 0
        wide = count > _WIDE * samples
        constant = float(xp.min(r)) == float(xp.max(r))
        if constant and count > _VERY_WIDE * samples:
            self.name = "none"
            return 0
        data = core.diagonal()
        if not float(xp.min(data)) >= 0.0:
            return 0
        self._shift = float(xp.mean(data))
        if wide and float(xp.std(xp.log(r))) < _EVEN:
            self.name = "mean"
            return 0
        self._share = data_share(data[penalised], r, samples)
        self.name = "scaled" if self._share < 0.99 else "jacobi"
        alike = _ALIKE < float(xp.std(xp.log(data + ridge))) < _UNLIKE
        if wide or not alike or rtol > _TIGHT:
            return 0
        expected = 1.0 / (1.0 + count / samples)
        if independent_share(core, ridge) < _CORRELATED * expected:
            self.name = "mean"
        return 1


def independent_share(core: LinearOperator, like: Array) -> float:
    """Estimate n / ‖R‖²_F, R the core scaled to unit diagonal; one product.

    For independent coordinates it is N / (n + N), and 1 / n where all are collinear.
    """
    data, xp = core.diagonal(), namespace(like)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=core.shape[0])
    one = xp.ones_like(data)
    root = xp.where(data > 0.0, 1.0 / xp.sqrt(xp.where(data > 0.0, data, one)), one)
    image = root * core.matvec(root * asarray(signs, like))
    square = dot(image, image)
    return core.shape[0] / square if square > 0.0 else 1.0


def _is_level(diagonal: Array) -> bool:
    """Tell whether Jacobi changes a condition number by 1.2 at most, the iterations by 1.1."""
    xp = namespace(diagonal)
    return float(xp.max(diagonal)) <= 1.2 * float(xp.min(diagonal))


def data_share(data: Array, ridge: Array, samples: float) -> float:
    """Return κ to 5 %, for d >= 0 and r > 0.

    The left side of the equation rises with κ and is concave: Newton's method from below
    rises to the root.  It starts where κ d / (κ d + r) <= κ d / r, the sum, is exact.
    """
    xp = namespace(data)
    share = 1.0 / (1.0 + float(xp.sum(data / ridge)) / samples)
    for _ in range(50):
        part = share * data / (share * data + ridge)
        value = share + float(xp.sum(part)) / samples - 1.0
        slope = 1.0 + float(xp.sum(part * (1.0 - part))) / (samples * share)
        share -= value / slope
        if abs(value) <= 0.05 * share * slope:
            break
    return min(max(share, 1e-12), 1.0)
