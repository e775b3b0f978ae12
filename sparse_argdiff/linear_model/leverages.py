"""The leverages of the samples of a linear model, and the derivative of a sum of them.

    h_i = w_i a_i' H⁻¹ a_i,        H = Σ_j w_j c_j a_j a_j' + diag(λ),        c = ℓ''

a_i: row i of the design, K rows for K outputs, of which h_i and c_i are (K, K) matrices.
For small n a factor of H gives them; for large n X = H⁻¹ (A' D^½ R + Λ^½ S), D = diag(w c),
for random signs R (N, k) and S (n, k):

    s_i = w_i mean_r (a_i'X_r)²  ≈  h_i         h_i ≈ s_i / (1 − 2 m_i + 2 c_i s_i)
    m_i = mean_r R_ir √(w_i c_i) a_i'X_r        which keeps c_i h_i below 1

since c s and 1 − 2 m + c s are means of squares with the expectations c h and 1 − c h.
A function of the estimates has a bias of the order 1/k: 2 F(all) − ½ F(first half of the
right-hand sides) − ½ F(second half) is without (the jackknife).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, asarray, namespace
from ..krylov import cg
from ..operators.linear_operator import LinearOperator
from ..preconditioners import Choice
from ..status import Status, raise_or_warn
from .design import Design

SMALL = 2000  # unknowns up to which H is factorised
_ENTRIES = 2**22  # of the products held at a time, 32 MB


class Slopes(NamedTuple):
    """The derivative of Σ_i ⟨β_i, h_i⟩ at fixed β, by what H depends on.

    ``samples``: by the predictors, (N,) or (N, K).  ``weights``: by the log-weights η, (n,).
    """

    samples: Array
    weights: Array


class Curved(NamedTuple):
    """What the leverages need of the loss at the predictors z, for each sample.

    ``move(B)`` is the derivative of ⟨c_i, B_i⟩ by z_i, of the shape of z.
    """

    weights: Array  # (N,)
    second: Array  # c (N,), or (N, K, K)
    move: Any


class ExactLeverages:
    """Leverages by the Cholesky factor of H, n products and N n² additions.

    Parameters
    ----------
    design : Design
    H : LinearOperator (n, n)
    ridge : array (n,)
        λ, zero where nothing is penalised or x does not enter.
    hold : callable
        Returns a block with zeros where a coefficient is fixed at 0.
    """

    def __init__(
        self, design: Design, H: LinearOperator, ridge: Array, hold: Any
    ) -> None:
        self.design, self.ridge = design, ridge
        xp = self._xp = namespace(ridge)
        entries = H.matmat(xp.eye(design.n, dtype=design.dtype))
        try:
            factor = xp.linalg.cholesky(0.5 * (entries + entries.T))
        except np.linalg.LinAlgError:
            what, detail = (
                "computing leverages",
                "the Hessian of the model is singular.",
            )
            raise_or_warn(Status.SINGULAR, None, what, detail, "raise")
            raise
        # H⁻¹ = G G'; of what is fixed no sample has a share.
        eye = xp.eye(design.n, dtype=design.dtype)
        self.G = hold(xp.linalg.solve(factor, eye).T)
        width = max(_ENTRIES // max(design.n_samples * design.outputs, 1), 1)
        starts = range(0, design.n, width)
        self._parts = [slice(first, first + width) for first in starts]
        self.standard_error: Any = None

    def leverages(self, curved: Curved) -> list[tuple[float, Array]]:
        """Return h, (N,) or (N, K, K), with a share of 1."""
        total: Any = 0.0
        for part in self._parts:
            z = self.design.forward(self.G[:, part])
            total = total + _outer(z, z)
        weights = curved.weights
        return [(1.0, total * (weights if total.ndim == 1 else weights[:, None, None]))]

    def slopes(self, betas: list[Array], curved: Curved) -> Slopes:
        """Return the derivative of Σ ⟨β_i, h_i⟩; β symmetric."""
        (beta,), weights = betas, curved.weights
        scaled = beta * (weights if beta.ndim == 1 else weights[:, None, None])
        columns = []
        for part in self._parts:
            z = self.design.forward(self.G[:, part])
            z = z * scaled[:, None] if scaled.ndim == 1 else scaled @ z
            columns.append(self.G.T @ self.design.backward(z))
        GC = self.G @ self._xp.concatenate(columns, axis=1)
        total: Any = 0.0
        for part in self._parts:
            one, other = (self.design.forward(B[:, part]) for B in (GC, self.G))
            total = total + _outer(one, other)
        samples = curved.move(-total)
        samples = samples * (weights if samples.ndim == 1 else weights[:, None])
        return Slopes(samples, -self.ridge * self._xp.sum(GC * self.G, axis=1))


def _outer(one: Array, other: Array) -> Array:
    """Return Σ_c of the products of columns: (N,), or (N, K, K) of (N, K, c)."""
    if one.ndim == 2:
        return namespace(one).sum(one * other, axis=1)
    return one @ namespace(one).moveaxis(other, 1, 2)


class EstimatedLeverages:
    """Leverages by k random right-hand sides, of one output.

    Parameters
    ----------
    design, H, ridge, hold
        As of :class:`ExactLeverages`.
    curved : Curved
    probes : int
        k; the standard deviation of a leverage is at most √(2/k) of it.
    rng : int or Generator
    rtol : float
        Of the linear solves.

    Attributes
    ----------
    n_matvec : int
        Products with H.
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
        self.probes, self.rtol, self.n_matvec = probes, rtol, 0
        random = np.random.default_rng(rng)
        self.R, self.S = (
            asarray(random.choice([-1.0, 1.0], (size, probes)), ridge)
            for size in (design.n_samples, design.n)
        )
        xp = self._xp = namespace(ridge)
        self._M, n_setup = Choice("auto")(H)
        self.n_matvec += n_setup
        self._root = xp.sqrt(curved.weights * curved.second)
        self._force = xp.sqrt(ridge)[:, None] * self.S
        B = design.backward(self._root[:, None] * self.R) + self._force
        self.X = self._solve(hold(B))
        self.Z = design.forward(self.X)  # a_i'X_r
        half = probes // 2
        self._shares = [(2.0, slice(0, probes))]
        self._shares += [(-0.5, slice(0, half)), (-0.5, slice(half, 2 * half))]
        self._estimates = [self._estimate(curved, part) for _, part in self._shares]
        self.standard_error: Any = None

    def _estimate(self, curved: Curved, part: slice) -> tuple[Array, Array, Array]:
        """Return s, m and 1 − 2 m + 2 c s by some of the probes."""
        xp, Z, R = self._xp, self.Z[:, part], self.R[:, part]
        s = curved.weights * xp.mean(Z**2, axis=1)
        m = self._root * xp.mean(R * Z, axis=1)
        return s, m, 1.0 - 2.0 * m + 2.0 * curved.second * s

    def _solve(self, B: Array) -> Array:
        found = cg(self.H, B, rtol=self.rtol, M=self._M)
        self.n_matvec += found.n_matvec
        if not found.status.acceptable:
            what, detail = "the solve for leverages", "H is the Hessian of the model."
            raise_or_warn(found.status, found, what, detail, "raise", self.n_matvec)
        return found.x

    def leverages(self, curved: Curved) -> list[tuple[float, Array]]:
        """Return the estimates of h, (N,), and the share that each has in a function."""
        pairs = zip(self._shares, self._estimates, strict=True)
        return [(share, s / q) for (share, _), (s, _, q) in pairs]

    def slopes(self, betas: list[Array], curved: Curved) -> Slopes:
        """Return the derivative of Σ β_i ĥ_i, of all estimates; k solves."""
        xp, w, c = self._xp, curved.weights, curved.second
        inverse = xp.where(c > 0.0, 0.5 / xp.where(c > 0.0, c, 1.0), 0.0 * c)
        pull, each = xp.zeros_like(self.Z), xp.zeros(self.probes, dtype=self.Z.dtype)
        by_c: Any = 0.0
        # Of s and m by a_i'X_r, each with all probes of an estimate; c in them by itself.
        for beta, (_, part), (s, m, q) in zip(
            betas, self._shares, self._estimates, strict=True
        ):
            k, Z, R = part.stop - part.start, self.Z[:, part], self.R[:, part]
            by_s = beta * (1.0 / q - 2.0 * c * s / q**2) * w / k
            by_m = 2.0 * beta * s / q**2
            by_c = by_c - 2.0 * beta * s * s / q**2 + inverse * by_m * m
            by_m = by_m * self._root / k
            pull[:, part] += 2.0 * by_s[:, None] * Z + by_m[:, None] * R
            each[part] += by_s @ Z**2 + by_m @ (R * Z)
        spread = float(xp.std(each)) * math.sqrt(self.probes / (self.probes - 1.0))
        self.standard_error = spread * math.sqrt(self.probes)
        Y = self._solve(self.hold(self.design.backward(pull)))
        AY = self.design.forward(Y)
        # c by D^½ in the right-hand sides of X, and by H.
        by_c = by_c + inverse * self._root * xp.sum(AY * self.R, axis=1)
        by_c = by_c - w * xp.sum(AY * self.Z, axis=1)
        by_eta = 0.5 * xp.sum(Y * self._force, axis=1)
        by_eta = by_eta - self.ridge * xp.sum(Y * self.X, axis=1)
        return Slopes(curved.move(by_c), by_eta)
