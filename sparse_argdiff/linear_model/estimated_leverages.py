"""Leverages by random right-hand sides, where H is too large to be factorised.

    h_i ≈ (√w_i / q_i) mean_r R_ir a_i'X_r,        X = H⁻¹ A' (√w q R)

for random signs R (N, k) and any sizes q > 0.  The error is what other rows put in: with
S = I − D^½ A H⁻¹ A' D^½, D = diag(w c), and q = (c Δ)^½ a variance Σ_{j≠i} S_ij² Δ_j / Δ_i / k
of c_i h_i = 1 − S_ii, which is small where S Δ has a diagonal near one:

    Δ_i = 1 + w_i c_i Σ_j a_ij² / H_jj,            c at least a quarter of its mean, Huber's zeros

(H. Avron, S. Toledo, J. ACM 58 (2011); C. Bekas, E. Kokiopoulou, Y. Saad, Appl. Numer. Math. 57
(2007), for the estimate of a diagonal).  The estimates are kept in 0 ≤ c_i h_i ≤ 1 − 1 / (4 Δ_i).
A function of them has a bias of the order 1/k: 2 F(all) − ½ F(first half of the right-hand
sides) − ½ F(second half) is without (the jackknife).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, asarray, namespace
from ..krylov import cg
from ..operators.linear_operator import LinearOperator
from ..preconditioners import Choice
from ..status import raise_or_warn
from .design import Design
from .leverages import Curved, Slopes

_LEAST = 0.25  # of the mean of c: below, a row is still given a probe of its own
_CAP = 0.25  # c h stays below 1 − _CAP / Δ
_UNKNOWN = 10.0  # Δ where the squares of the features are not known


class Sizes:
    """The sizes q of the rows, the caps of h, and the derivative of a function of both."""

    def __init__(self, design: Design, H: LinearOperator, hold: Any, curved: Curved):
        self.design, self.w, self.c = design, curved.weights, curved.second
        xp = self._xp = namespace(self.c)
        least = _LEAST * float(xp.sum(self.w * self.c))
        self.lifted = self.c < least
        self.bent = xp.where(self.lifted, xp.full_like(self.c, least or 1.0), self.c)
        self.known = design.has_squares and H.has_diagonal
        if self.known:
            diagonal = H.diagonal()
            positive = diagonal > 0.0
            inverse = xp.where(positive, 1.0 / xp.where(positive, diagonal, 1.0), 0.0)
            self.inverse = hold(xp.asarray(inverse, dtype=design.dtype)[:, None])[:, 0]
            self.t = design.row_squares(self.inverse)
            self.delta = 1.0 + self.w * self.bent * self.t
        else:
            self.delta = xp.full_like(self.c, _UNKNOWN)
        self.q = xp.sqrt(self.bent * self.delta)
        positive = self.c > 0.0
        self._c = xp.where(positive, self.c, xp.ones_like(self.c))
        cap = (1.0 - _CAP / self.delta) / self._c
        self.cap = xp.where(positive, cap, xp.full_like(self.c, math.inf))

    def derivative(self, by_q: Array, by_cap: Array) -> tuple[Array, Array]:
        """Return the derivatives of a function of q and the caps by c and by λ."""
        xp, w = self._xp, self.w
        by_bent = by_q * self.delta / (2.0 * self.q)
        by_delta = by_q * self.bent / (2.0 * self.q)
        by_delta = by_delta + by_cap * _CAP / (self.delta**2 * self._c)
        cap = xp.where(by_cap != 0.0, self.cap, 0.0 * by_cap)  # some are infinite
        by_c = -by_cap * cap / self._c
        by_ridge = xp.zeros(self.design.n, dtype=self.design.dtype)
        if self.known:
            by_bent = by_bent + by_delta * w * self.t
            by_t = by_delta * w * self.bent
            by_ridge = -self.design.squares(by_t) * self.inverse**2
            by_c = by_c + w * self.design.row_squares(by_ridge)
        zero = 0.0 * by_bent
        by_mean = xp.sum(xp.where(self.lifted, by_bent, zero))
        by_c = by_c + xp.where(self.lifted, zero, by_bent) + _LEAST * w * by_mean
        return by_c, by_ridge


class _Part(NamedTuple):
    """An estimate by some of the probes: its share in a function, and whether it is capped."""

    share: float
    probes: slice
    raw: Array
    h: Array


class EstimatedLeverages:
    """Leverages by k random right-hand sides, of one output.

    Parameters
    ----------
    design, H, ridge, hold
        As of :class:`~sparse_argdiff.linear_model.leverages.ExactLeverages`.
    curved : Curved
    probes : int
        k.
    rng : int or Generator
    rtol : float
        Of the linear solves.

    Attributes
    ----------
    n_matvec : int
        Products with H.
    standard_error : float or None
        Of Σ_i β_i h_i, of the last :meth:`slopes`.
    """

    def __init__(
        self,
        design: Design,
        H: LinearOperator,
        ridge: Array,
        hold: Any,
        curved: Curved,
        probes: int,
        rng: Any,
        rtol: float,
    ) -> None:
        self.design, self.H, self.ridge, self.hold = design, H, ridge, hold
        self.rtol, self.n_matvec = rtol, 0
        random = np.random.default_rng(rng)
        signs = random.choice([-1.0, 1.0], (design.n_samples, probes))
        self.R = asarray(signs, ridge)
        xp = self._xp = namespace(ridge)
        self._M, n_setup = Choice("auto")(H)
        self.n_matvec += n_setup
        self.sizes = Sizes(design, H, hold, curved)
        self._root = xp.sqrt(curved.weights)
        self._push = (self._root * self.sizes.q)[:, None]
        self.X = self._solve(hold(design.backward(self._push * self.R)))
        self.Z = design.forward(self.X)  # a_i'X_r
        half = probes // 2
        self._parts = [
            self._part(2.0, slice(0, probes)),
            self._part(-0.5, slice(0, half)),
            self._part(-0.5, slice(half, 2 * half)),
        ]
        self.standard_error: float | None = None

    def _part(self, share: float, probes: slice) -> _Part:
        xp = self._xp
        raw = xp.mean(self.R[:, probes] * self.Z[:, probes], axis=1)
        raw = raw * self._root / self.sizes.q
        h = xp.where(raw > 0.0, raw, 0.0 * raw)
        h = xp.where(h < self.sizes.cap, h, self.sizes.cap)
        return _Part(share, probes, raw, h)

    @property
    def capped(self) -> int:
        """Number of samples whose estimate was too large to be believed."""
        whole = self._parts[0]
        return int(self._xp.sum(whole.raw > self.sizes.cap))

    def _solve(self, B: Array) -> Array:
        found = cg(self.H, B, rtol=self.rtol, M=self._M)
        self.n_matvec += found.n_matvec
        if not found.status.acceptable:
            what, detail = "the solve for leverages", "H is the Hessian of the model."
            raise_or_warn(found.status, found, what, detail, "raise", self.n_matvec)
        return found.x

    def leverages(self, curved: Curved) -> list[tuple[float, Array]]:
        """Return the estimates of h, (N,), and the share that each has in a function."""
        return [(part.share, part.h) for part in self._parts]

    def slopes(self, betas: list[Array], curved: Curved) -> Slopes:
        """Return the derivative of Σ β_i ĥ_i, of all estimates; k solves."""
        xp, w, sizes, root = self._xp, curved.weights, self.sizes, self._root
        pull, each = xp.zeros_like(self.Z), xp.zeros(self.Z.shape[1], dtype=w.dtype)
        by_q = xp.zeros_like(w)
        by_cap = xp.zeros_like(w)
        for beta, (_, probes, raw, _) in zip(betas, self._parts, strict=True):
            capped = raw > sizes.cap
            by_raw = xp.where((raw > 0.0) & ~capped, beta, 0.0 * beta)
            by_cap = by_cap + xp.where(capped, beta, 0.0 * beta)
            by_q = by_q - by_raw * raw / sizes.q
            scaled = by_raw * root / sizes.q / (probes.stop - probes.start)
            pull[:, probes] += scaled[:, None] * self.R[:, probes]
            each[probes] += scaled @ (self.R[:, probes] * self.Z[:, probes])
        count = each.shape[0]
        self.standard_error = float(xp.std(each)) * count / math.sqrt(count - 1.0)
        Y = self._solve(self.hold(self.design.backward(pull)))
        AY = self.design.forward(Y)
        by_q = by_q + root * xp.sum(AY * self.R, axis=1)
        by_c, by_ridge = sizes.derivative(by_q, by_cap)
        # Of H: the curvature of each row, and the ridge.
        by_c = by_c - w * xp.sum(AY * self.Z, axis=1)
        by_ridge = by_ridge - xp.sum(Y * self.X, axis=1)
        return Slopes(curved.move(by_c), self.ridge * by_ridge)
