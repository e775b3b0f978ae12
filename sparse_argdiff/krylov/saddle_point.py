"""Saddle point systems: the one place that chooses how they are solved.

    [ H  C' ] [ y ]   [ b ]        H (n, n) symmetric, C (p, n)
    [ C  0  ] [ w ] = [ c ]

    no C             CG on H
    C a matrix       CG in the null space of C, which is factorised once
    C by products    MINRES on the whole system, until that has taken as many products
                     as the rows of C do: then CG in their null space, where they fit.
                     Where the conditioning costs too many digits, CG in the null space
                     with each projection by MINRES:
                     ``SaddlePoint(H, null_space_of(C), method="projected_cg")``

A system is set up once and solved for many right-hand sides::

    system = SaddlePoint(H, C, M=preconditioners.constraint_of(H, C))
    found = system.solve(xp.concat([b, c]), rtol=1e-8)        # a KrylovResult
    y, w = found.x[:n, ...], found.multipliers

``null_space_of(C)`` gives the projections on C (``project``, ``particular``,
``multipliers``); passed as C itself, its factors serve systems with other H.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np

from ..arrays import Array, as_count, asarray, namespace
from ..operators.block_matrices import is_explicit, saddle_operator
from ..operators.linear_operator import LinearOperator, aslinearoperator
from ..status import Status
from .cg import cg
from .minres import minres
from .null_space import NullSpace, ProductNullSpace, null_space_for, null_space_of
from .projected_cg import projected_cg
from .result import KrylovResult

__all__ = ["NullSpace", "ProductNullSpace", "SaddlePoint", "null_space_of"]

_PROBE = 10  # products that look for negative curvature


class SaddlePoint:
    """[H C'; C 0] at one point: set up once, solved for many right-hand sides.

    Parameters
    ----------
    H : operator (n, n)
        Symmetric; CG needs it positive definite on the null space of C, MINRES does not.
    C : matrix or operator (p, n), result of :func:`null_space_of`, or None
    M : operator or None
        Preconditioner: of H for CG; the metric of the null space for projected CG, a
        diagonal (n, n) ≈ H⁻¹ or ``preconditioners.constraint``, None for a C whose
        null space is given; of the whole system for MINRES, positive definite.
    method : {"cg", "projected_cg", "minres"}, optional
        By default what C suggests: see the module.

    Attributes
    ----------
    K : LinearOperator (n + p, n + p)
        The matrix; H itself without C.
    null_space : NullSpace, ProductNullSpace or None
        The projections on C, where the method or the preconditioner has them.
    """

    def __init__(
        self, H: Any, C: Any = None, M: Any = None, *, method: str | None = None
    ) -> None:
        self.H: LinearOperator = aslinearoperator(H)
        given = isinstance(C, NullSpace | ProductNullSpace)
        self.C: LinearOperator | None = (
            C.C if given else None if C is None else aslinearoperator(C)
        )
        if method is None and C is not None:
            explicit = is_explicit(C) or isinstance(C, NullSpace)
            method = "projected_cg" if explicit else "minres"
        self.M, self.method = M, method or "cg"
        self.null_space: Any = None
        if self.method == "projected_cg":
            self.null_space = null_space_for(C, M, self.H.shape[0])
        else:
            self.null_space = C if given else getattr(M, "null_space", None)
            if self.null_space is None and self.C is not None and not is_explicit(C):
                self.null_space = ProductNullSpace(self.C)

    @cached_property
    def K(self) -> LinearOperator:
        """[H C'; C 0], or H."""
        return self.H if self.C is None else saddle_operator(self.H, self.C)

    def solve(
        self, rhs: Array, x0: Array | None = None, **options: Any
    ) -> KrylovResult:
        """Solve for the right-hand side (b; c), (n + p,) or (n + p, k).

        Parameters
        ----------
        rhs : array
        x0 : array like rhs, optional
            Start; projected CG uses the part for y.
        **options
            ``rtol``, ``atol``, ``maxiter``, ``callback`` as for :func:`cg`.

        Returns
        -------
        KrylovResult
            ``x`` is (y; w), ``multipliers`` is w, None without C; ``direction`` of
            negative curvature where CG met one.
        """
        n = self.H.shape[0]
        if self.method == "cg":
            return cg(self.K, rhs, x0, M=self.M, **options)
        if self.method == "minres":
            if isinstance(self.null_space, ProductNullSpace):
                return self._by_products(self.null_space, rhs, x0, **options)
            found = minres(self.K, rhs, x0, M=self.M, **options)
            return dataclasses.replace(found, multipliers=found.x[n:, ...])
        return self._in_null_space(self.null_space, rhs, x0, **options)

    def _in_null_space(
        self, N: Any, rhs: Array, x0: Array | None, **options: Any
    ) -> KrylovResult:
        """Solve by CG in the null space of C."""
        n = self.H.shape[0]
        b, c, concat = rhs[:n, ...], rhs[n:, ...], namespace(rhs).concat
        start = None if x0 is None else x0[:n, ...]
        found = projected_cg(self.H, N, b, c, start, **options)
        return dataclasses.replace(
            found,
            x=concat([found.x, found.multipliers]),
            residual=concat([found.residual, c - N.C @ found.x]),
        )

    def _by_products(
        self, N: ProductNullSpace, rhs: Array, x0: Array | None, **options: Any
    ) -> KrylovResult:
        """Solve by MINRES, and where that takes as long as the rows of C do with them."""
        size, n = rhs.shape[0], self.H.shape[0]
        given = options.get("maxiter")
        most = max(10 * size, 20) if given is None else as_count("maxiter", given)
        first = int(min(most, N.patience))
        found = minres(self.K, rhs, x0, M=self.M, **(options | {"maxiter": first}))
        N.spent += found.n_matvec
        if found.status is Status.ITERATION_LIMIT and first < most:
            options["maxiter"] = most - int(np.max(found.niter))
            like = rhs[:, 0] if rhs.ndim == 2 else rhs
            rows, last = N.by_entries(like, self._metric), None
            if rows is not None:
                last = self._in_null_space(rows, rhs, found.x, **options)
            if last is None or not last.status.acceptable:
                last = minres(self.K, rhs, found.x, M=self.M, **options)
            found = dataclasses.replace(
                last,
                niter=found.niter + last.niter,
                n_matvec=found.n_matvec + last.n_matvec,
            )
        return dataclasses.replace(found, multipliers=found.x[n:, ...])

    @property
    def _metric(self) -> Array | None:
        """The diagonal of H that M has, if it is one."""
        M = None if self.M is None else aslinearoperator(self.M)
        if M is None or not M.has_diagonal:
            return None
        return 1.0 / M.diagonal()[: self.H.shape[0]]

    def probe(self, like: Array) -> KrylovResult:
        """Run a few steps of CG on the null space of C, for a random right-hand side.

        ``like`` gives its array type; only the status ``NEGATIVE_CURVATURE``, with its
        ``direction``, is a finding.
        """
        n = self.H.shape[0]
        b = asarray(np.random.default_rng(0).standard_normal(n), like)
        if self.C is None:
            return cg(self.H, b, M=self.M, maxiter=_PROBE)
        N = null_space_of(self.C) if self.null_space is None else self.null_space
        return projected_cg(self.H, N, b, maxiter=_PROBE)
