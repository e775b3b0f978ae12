"""Explicit factors: of a small H on the null space of C, and of a KKT matrix that is kept.

    Z'H Z = L L',    C Z = 0,    Z'G Z = I          P = Z (Z'H Z)⁻¹ Z'

in the metric G = |diag H|, so that the units of y do not matter.  As a preconditioner P ends
CG after one or two steps, whose residual is recomputed; of a Z'H Z that is not definite
the eigenvalues tell whether it is singular or indefinite.  The matrix of a solver's last
Newton step, K = [H C'; C 0] of the active rows, serves the derivatives at its solution.
"""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property
from typing import Any

import numpy as np
from scipy import linalg, sparse

from ..arrays import Array, HostArray, drawn
from ..operators.block_matrices import squares
from ..operators.linear_operator import LinearOperator, aslinearoperator
from ..status import Status
from .graded_factor import GradedFactor, graded_part
from .kkt_matrix import DenseKKT, SparseKKT, refined
from .null_space import NullSpace, null_space
from .result import KrylovResult

LARGEST = 200  # unknowns and rows up to which a factor costs no more than a solve


@dataclasses.dataclass(frozen=True)
class ReducedFactor:
    """P, or why there is none.

    Attributes
    ----------
    status : Status or None
        ``NEGATIVE_CURVATURE`` or ``SINGULAR``; None where Z'H Z is definite.
    direction : array (n,) or None
        Of no positive curvature.
    constraints : NullSpace or None
        Of C in the metric G.
    symmetric : bool
        Whether H is, to rounding.
    """

    status: Status | None
    direction: Array | None
    constraints: NullSpace | None
    symmetric: bool
    _basis: HostArray | None  # Ẑ = G^½ Z; None for the identity
    _root: HostArray  # G^½
    _cholesky: HostArray  # of Z'H Z, where there is no status

    def apply(self, r: Array) -> Array:
        """Return P r, (n,) or (n, k)."""
        scale = self._root if r.ndim == 1 else self._root[:, None]
        reduced = r / scale
        if self._basis is not None:
            reduced = self._basis.T @ reduced
        if reduced.shape[0]:
            (solve,) = linalg.get_lapack_funcs(("potrs",), (self._cholesky, reduced))
            reduced, _ = solve(self._cholesky, reduced, lower=True)
        if self._basis is not None:
            reduced = self._basis @ reduced
        return (reduced / scale).astype(r.dtype, copy=False)

    def operator(self) -> LinearOperator:
        """Return P as an operator."""
        n = self._root.shape[0]
        return LinearOperator(
            (n, n),
            self.apply,
            matmat=self.apply,
            dtype=self._root.dtype,
            positive_definite=True,
        )


class ReducedNullSpace(NullSpace):
    """The null space of C with P in place of G⁻¹, for ``projected_cg``."""

    has_metric = True

    def __init__(self, factor: ReducedFactor) -> None:
        assert factor.constraints is not None
        vars(self).update(vars(factor.constraints) | {"has_metric": True})
        self._inverse = factor

    def unmetric(self, r: Array) -> Array:
        """Return P r."""
        return self._inverse.apply(r)


def reduced_factor(H: Any, C: Any, scale: Array) -> ReducedFactor:
    """Factorise H (n, n) on the null space of C (p, n), or of none.

    Parameters
    ----------
    H, C : arrays or SciPy sparse matrices; C may be None
    scale : array (n,)
        G, positive.
    """
    root: HostArray = np.sqrt(np.asarray(scale))
    entries = H.toarray() if sparse.issparse(H) else np.asarray(H)
    entries = entries.astype(np.result_type(entries, root), copy=False)
    W: Any = entries / root / root[:, None]
    unit = float(np.finfo(W.dtype).eps)
    skew = float(np.abs(W - W.T).max())
    constraints, basis = None, None
    if C is not None:
        constraints = null_space(C, scale)
        basis = constraints.basis()
        W = basis.T @ W @ basis
    whole = ReducedFactor(None, None, constraints, skew <= 32.0 * unit, basis, root, W)
    if W.shape[0] == 0:
        return whole
    if not np.isfinite(W).all():
        return dataclasses.replace(whole, status=Status.NOT_FINITE)
    W = 0.5 * (W + W.T)
    factor: Any
    factor, failed = linalg.get_lapack_funcs(("potrf",), (W,))[0](W, lower=True)
    if failed == 0:
        size = float(np.abs(W).sum(axis=0).max())
        condition = linalg.get_lapack_funcs(("pocon",), (W,))[0]
        reciprocal, _ = condition(factor, size, uplo="L")
        if reciprocal > 10.0 * unit:
            return dataclasses.replace(whole, _cholesky=factor)
    values, vectors = linalg.eigh(W, check_finite=False)
    flat = 10.0 * W.shape[0] * unit * float(np.abs(values).max())
    least = vectors[:, 0]
    direction = (least if basis is None else basis @ least) / root
    status = Status.NEGATIVE_CURVATURE if values[0] < -flat else Status.SINGULAR
    return dataclasses.replace(whole, status=status, direction=direction)


_SWEEPS = 12  # of iterative refinement
_SOLVED = 1e-8  # a relative residual above this shows a singular matrix
_NULL = 1e-2  # of 1 / √n, the part of a random vector in a null space of one dimension
_BACKWARD = 1e2  # roundings of the largest terms that a residual may be
_LOOSELY = 0.1  # a relative residual above this tells nothing of the error
_FORWARD = 1e-9  # of y, what rounding of the terms may change


@dataclasses.dataclass(frozen=True, eq=False)
class KKTFactor:
    """The factor of K at one point, with what of the unknowns it has.

    Attributes
    ----------
    matrix : SparseKKT or DenseKKT
        Of a scaled K̂ = diag(left) K diag(right), factorised.
    left, right : arrays (N,)
    kept : bool array (N,)
        The unknowns of K̂ that are free, or whose row acts.
    index : int array (N,)
        The unknowns of K̂ among y and all multipliers.
    size : int
        Of y and all multipliers.
    y, x : arrays
        The point.
    active : object
        Its active set.
    independent : bool
        Whether the acting rows are known to be so.
    """

    matrix: SparseKKT | DenseKKT
    left: HostArray
    right: HostArray
    kept: HostArray
    index: HostArray
    size: int
    y: Any
    x: Any
    active: Any
    independent: bool = False

    def is_of(self, y: Any, x: Any, index: Any) -> bool:
        """Tell whether this is the factor for y, x and the unknowns of that index."""
        if not all(isinstance(v, np.ndarray) for v in (y, x)):
            return False
        unknowns = self.index[self.kept]
        expected = np.arange(self.size) if index is None else index
        return (
            np.array_equal(unknowns, expected)
            and np.array_equal(self.y, y)
            and np.array_equal(self.x, x)
        )

    def graded(self) -> GradedFactor | None:
        """Return the factor by which unlike unknowns are found, where K has any; small ones."""
        left, right = self.left[self.kept], self.right[self.kept]
        return graded_part(self.matrix, self.kept, left, right)

    def solve(self, rhs: HostArray) -> HostArray:
        """Return K⁻¹ rhs for the unknowns that are kept, (M,) or (M, k)."""
        left, right = self.left[self.kept], self.right[self.kept]
        if rhs.ndim == 2:
            left, right = left[:, None], right[:, None]
        full = np.zeros((self.kept.size, *rhs.shape[1:]))
        full[self.kept] = left * rhs
        found, _ = refined(self.matrix, full, 1e-15, _SWEEPS)
        return right * found[self.kept]

    def checked_solve(self, rhs: HostArray) -> HostArray | None:
        """Return K⁻¹ rhs, None where rounding may have cost half its digits.

        The residual must be rounding of the largest terms, and a change of each term by
        its rounding, with random signs, must leave y as it is: rows that are nearly
        dependent meet the first test only where the second fails.
        """
        left, n = self.left[self.kept], self.matrix.n
        full = np.zeros((self.kept.size, *rhs.shape[1:]))
        full[self.kept] = (left if rhs.ndim == 1 else left[:, None]) * rhs
        found, _ = refined(self.matrix, full, 1e-15, _SWEEPS)
        terms = self.matrix.size_of_product(found) + np.abs(full)
        unit = float(np.finfo(float).eps)
        off = np.abs(full - self.matrix.product(found))
        if not bool(np.all(off <= _BACKWARD * unit * terms.max(axis=0))):
            return None
        signs = drawn("sign", full.size).reshape(full.shape)
        change = signs * np.maximum(off, unit * terms)
        changed, left_over = refined(self.matrix, change, 1e-2, _SWEEPS)
        if left_over > _LOOSELY:
            return None
        moved = np.sqrt(np.sum(changed[:n] ** 2, axis=0))
        size = np.sqrt(np.sum(found[:n] ** 2, axis=0))
        # At a vertex y does not move: what is found there is rounding.
        rounding = _BACKWARD * unit * np.sqrt(np.sum(full**2, axis=0))
        still = (size <= rounding) & (moved <= rounding)
        if not bool(np.all(still | (moved <= _FORWARD * size))):
            return None
        found[:n] = np.where(still, 0.0, found[:n])
        right = self.right[self.kept]
        return (right if rhs.ndim == 1 else right[:, None]) * found[self.kept]

    @property
    def isolated(self) -> bool:
        """Whether K y = (random, 0) has a solution: the minimiser is isolated."""
        return self._left_of_random <= _SOLVED

    @property
    def singular(self) -> bool:
        """Whether a part of a random right-hand side is left: there is a null space."""
        return self._left_of_random > _NULL / math.sqrt(self.matrix.n)

    @cached_property
    def _left_of_random(self) -> float:
        """The relative residual of K y = (random, 0)."""
        n = self.matrix.n
        rhs = np.zeros(self.kept.size)
        rhs[:n] = drawn("normal", n)
        rhs[~self.kept] = 0.0
        return refined(self.matrix, rhs, 1e-12, _SWEEPS)[1]


class KeptSolve:
    """Linear solves with K by its kept factor; also what is asked of the rows of C.

    Attributes
    ----------
    shape : (int, int)
        Of C.
    rank : int or None
    metric_row_lengths : array (p,)
        ‖c_i‖, 1 for a zero row.
    """

    resolution = 1e-12  # ‖C'w‖ of a w that shows dependent rows, refined

    def __init__(self, factor: KKTFactor, C: Any) -> None:
        self.factor = factor
        self.C: LinearOperator = aslinearoperator(C)
        self.shape: tuple[int, int] = self.C.shape
        # A shift makes up for dependent rows: their number may not be known.
        self.rank = self.shape[0] if factor.independent else None
        self._entries = C

    @cached_property
    def metric_row_lengths(self) -> Any:
        """‖c_i‖, 1 for a zero row."""
        p, n = self.shape
        sizes = np.sqrt(np.asarray(squares(self._entries) @ np.ones(n)).reshape(p))
        return np.where(sizes > 0.0, sizes, 1.0)

    @property
    def row_lengths(self) -> Any:
        """The same lengths."""
        return self.metric_row_lengths

    def redundancy(self, probe: Any) -> Any:
        """Return a w with C'w = 0, (p,), from a random vector; w'c = 0 if consistent."""
        n = self.shape[1]
        probe = probe / self.metric_row_lengths
        rhs = np.concatenate([self.C.rmatvec(probe), np.zeros(self.shape[0])])
        return probe - self.factor.solve(rhs)[n:]

    def __call__(self, K: LinearOperator, rhs: Any, rtol: float) -> KrylovResult | None:
        """Return the solution of K x = rhs, None where its residual is above ``rtol``."""
        solved = self.factor.checked_solve(np.asarray(rhs, dtype=float))
        if solved is None:
            return None
        x = solved.astype(rhs.dtype)
        residual = rhs - K @ x
        sizes = np.sqrt(np.sum(residual * residual, axis=0))
        whole = np.sqrt(np.sum(rhs * rhs, axis=0))
        met = sizes <= rtol * whole
        if not bool(np.all(met)):
            return None
        columns = 1 if rhs.ndim == 1 else rhs.shape[1]
        return KrylovResult(
            x=x,
            status=Status.CONVERGED,
            converged=True if rhs.ndim == 1 else met,
            niter=1 if rhs.ndim == 1 else np.ones(columns, dtype=int),
            n_matvec=columns,
            residual_norm=float(sizes) if rhs.ndim == 1 else sizes,
            residual=residual,
            multipliers=x[self.shape[1] :, ...],
        )
