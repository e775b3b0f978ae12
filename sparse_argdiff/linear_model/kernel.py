"""Kernel matrices of support vector machines, constant or with parameters θ.

    linear     K = F F'                 as an operator of two passes over the features
    Gaussian   K = exp(−e^θ ‖f_i − f_j‖²)

A kernel of your own is a class with the four members of :class:`Kernel`.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np

from ..arrays import (
    Array,
    as_array,
    asarray,
    is_array,
    is_finite,
    is_sparse,
    namespace,
    norm,
)
from ..operators.block_matrices import is_explicit
from ..operators.linear_operator import LinearOperator, as_operator, aslinearoperator
from ..status import ConvergenceError, Status
from .design import as_features, model_dtype

_LANCZOS = 40  # products with an operator that look for a negative eigenvalue


class Kernel(Protocol):
    """A kernel matrix (rows, N) as a function of parameters θ, with derivatives.

    N samples give the columns; the rows are the same ones, or those of other data.

    Attributes
    ----------
    shape : tuple of int
    m : int
        Number of parameters.
    """

    shape: tuple[int, int]
    m: int

    def matrix(self, theta: Array) -> Any:
        """Return K(θ): array, sparse matrix or operator."""

    def jvp(self, theta: Array, beta: Array, u: Array) -> Array:
        """Return (∂K/∂θ u) β, shape (rows,)."""

    def vjp(self, theta: Array, beta: Array, w: Array) -> Array:
        """Return the gradient by θ of w'K(θ) β, shape (m,)."""


class ConstantKernel:
    """A kernel matrix without parameters."""

    m = 0

    def __init__(self, matrix: Any) -> None:
        self._matrix = matrix
        self.shape: tuple[int, int] = tuple(matrix.shape)

    def matrix(self, theta: Array) -> Any:
        """Return K."""
        return self._matrix

    def jvp(self, theta: Array, beta: Array, u: Array) -> Array:
        """Return zeros (rows,)."""
        return asarray(np.zeros(self.shape[0]), beta)

    def vjp(self, theta: Array, beta: Array, w: Array) -> Array:
        """Return an empty vector."""
        return theta[:0]


class GaussianKernel:
    """K = exp(−γ ‖f_i − f_j‖²) with γ = e^θ learned, θ of one entry.

    Parameters
    ----------
    features : array (N, p)
        Of the samples that give the columns.
    others : array (rows, p), optional
        Of those that give the rows; by default the same ones.

    Notes
    -----
    Keeps the N · rows squared distances and the last matrix.
    """

    m = 1

    def __init__(self, features: Any, others: Any = None) -> None:
        features = _dense("features", features)
        same = others is None
        others = features if same else _dense("others", others)
        if features.shape[1] != others.shape[1]:
            raise ValueError(
                f"others must have {features.shape[1]} columns like features, found "
                f"{others.shape[1]}"
            )
        xp = namespace(features, others)
        squares = [xp.sum(F * F, axis=1) for F in (others, features)]
        distances = squares[0][:, None] + squares[1][None, :]
        distances = distances - 2.0 * (others @ features.T)
        distances = xp.maximum(distances, 0.0 * distances)
        if same:  # exactly symmetric, and zero where a sample meets itself
            distances = 0.5 * (distances + distances.T)
            xp_diagonal = xp.eye(features.shape[0], dtype=xp.bool)
            distances = xp.where(xp_diagonal, 0.0 * distances, distances)
        self._distances = distances
        self.shape: tuple[int, int] = (others.shape[0], features.shape[0])
        self._memo: tuple[float, Array] | None = None

    def matrix(self, theta: Array) -> Array:
        """Return K(θ), an array (rows, N)."""
        key = float(theta[0])
        if self._memo is None or self._memo[0] != key:
            with np.errstate(over="ignore"):
                gamma = float(np.exp(np.float64(key)))
            K = namespace(self._distances).exp(-gamma * self._distances)
            self._memo = key, K
        return self._memo[1]

    def _slope(self, theta: Array) -> Array:
        gamma = math.exp(float(theta[0]))
        return -gamma * self._distances * self.matrix(theta)

    def jvp(self, theta: Array, beta: Array, u: Array) -> Array:
        """Return (∂K/∂θ u) β, shape (rows,)."""
        return (self._slope(theta) @ beta) * u[0]

    def vjp(self, theta: Array, beta: Array, w: Array) -> Array:
        """Return the gradient by θ of w'K(θ) β, shape (1,)."""
        total = w @ (self._slope(theta) @ beta)
        return namespace(beta).reshape(total, (1,))


def linear_kernel(features: Any, others: Any = None) -> LinearOperator:
    """Return F F', or G F' for other features G, as an operator of two passes.

    Parameters
    ----------
    features : array, sparse matrix or operator (N, p)
    others : array, sparse matrix or operator (rows, p), optional
    """
    F = as_features(features)
    dtype, columns = model_dtype(F), aslinearoperator(F)
    if others is not None:
        rows = aslinearoperator(as_features(others))
        if rows.shape[1] != columns.shape[1]:
            raise ValueError(
                f"others must have {columns.shape[1]} columns like features, found "
                f"{rows.shape[1]}"
            )
        return rows @ columns.T

    def diagonal() -> Array:
        if is_sparse(F):
            return namespace(F.data).asarray(F.multiply(F).sum(axis=1)).reshape(-1)
        return namespace(F).sum(F * F, axis=1)

    def product(v: Array) -> Array:
        return columns @ (columns.T @ v)

    n = columns.shape[0]
    return LinearOperator(
        (n, n),
        product,
        product,
        matmat=product,
        rmatmat=product,
        dtype=dtype,
        symmetric=True,
        diagonal=diagonal if is_explicit(F) else None,
    )


def as_kernel(name: str, kernel: Any) -> Kernel:
    """Return a matrix, an operator or a :class:`Kernel` as a kernel."""
    if callable(getattr(kernel, "matrix", None)) and hasattr(kernel, "vjp"):
        for part in ("shape", "m", "jvp"):
            if not hasattr(kernel, part):
                raise TypeError(
                    f"{name} must have shape, m, matrix, jvp and vjp; "
                    f"{type(kernel).__name__} lacks {part}"
                )
        found: Kernel = kernel
        return found
    if isinstance(kernel, list | tuple):
        kernel = as_array(name, kernel)
    operator = as_operator(name, kernel, square=False)
    return ConstantKernel(kernel if is_explicit(kernel) else operator)


def checked_matrix(name: str, K: Any, n: int) -> Any:
    """Return a kernel matrix (n, n) that is finite, symmetric and has no eigenvalue < 0.

    An operator is tested along random vectors, which may miss a fault.

    Raises
    ------
    ConvergenceError
        NEGATIVE_CURVATURE with the eigenvalue, or NOT_FINITE.
    """
    if tuple(K.shape) != (n, n):
        raise ValueError(
            f"{name} must have shape ({n}, {n}), found {tuple(K.shape)}: a row and a "
            "column for each target"
        )
    if not is_explicit(K):
        K = aslinearoperator(K)
    entries = K.data if is_sparse(K) else K
    if is_array(entries) and not is_finite(entries):
        _fail(Status.NOT_FINITE, f"{name} has NaN or infinite entries.")
    least, size = _asymmetry(K, n)
    if least > 1e3 * _unit(K) * size:
        raise ValueError(
            f"{name} must be symmetric, found entries or products of size {size:.2e} "
            f"that differ from those of its transpose by {least:.2e}; average them, "
            "0.5 * (K + K.T), if that is rounding"
        )
    eigenvalue, scale = _lowest(K, n)
    if eigenvalue < -100.0 * n * _unit(K) * scale:
        _fail(
            Status.NEGATIVE_CURVATURE,
            f"{name} is not positive semidefinite: an eigenvalue is {eigenvalue:.3e}, "
            f"the largest {scale:.3e}.  The dual problem is not convex; clip the "
            "eigenvalues, or add a multiple of the identity.",
        )
    return K


def _fail(status: Status, detail: str) -> None:
    raise ConvergenceError(f"the kernel failed ({status.name}): {detail}", status, None)


def _unit(K: Any) -> float:
    single = str(getattr(K, "dtype", None)).endswith("float32")
    return float(np.finfo(np.float32 if single else np.float64).eps)


def _asymmetry(K: Any, n: int) -> tuple[float, float]:
    """Return by how much K and its transpose differ, and the size of what was compared."""
    if is_array(K):
        xp = namespace(K)
        return float(xp.max(xp.abs(K - K.T))), float(xp.max(xp.abs(K)))
    if is_sparse(K):
        return float(abs(K - K.T).max()), float(abs(K).max())
    if K.symmetric:
        return 0.0, 1.0
    rng = np.random.default_rng(0)
    u, v = rng.standard_normal((2, n))
    Ku, Kv = K @ u, K @ v
    skew = abs(float(v @ Ku - u @ Kv))
    return skew, norm(u) * norm(Kv) + norm(v) * norm(Ku)


def _lowest(K: Any, n: int) -> tuple[float, float]:
    """Return the lowest eigenvalue, 0 where none is negative, and a largest size.

    A dense matrix with a Cholesky factor, shifted by its rounding, needs no eigenvalues.
    """
    if is_array(K) and not isinstance(K, np.ndarray):
        xp = namespace(K)
        found = xp.linalg.eigvalsh(K)
        return min(float(found[0]), 0.0), max(float(xp.max(xp.abs(found))), 0.0)
    if isinstance(K, np.ndarray):
        size = float(np.max(np.sum(np.abs(K), axis=1)))
        shifted = K + 50.0 * n * _unit(K) * size * np.eye(n, dtype=K.dtype)
        try:
            np.linalg.cholesky(shifted)
        except np.linalg.LinAlgError:
            found = np.linalg.eigvalsh(K)
            return min(float(found[0]), 0.0), float(np.max(np.abs(found)))
        return 0.0, size
    operator = aslinearoperator(K)
    if operator.positive_definite:
        return 0.0, 1.0
    return _lowest_of_products(operator, n)


def _lowest_of_products(K: LinearOperator, n: int) -> tuple[float, float]:
    """Return the lowest Ritz value of a few Lanczos steps, and the largest."""
    q = np.random.default_rng(0).standard_normal(n)
    Q, alpha, beta = [q / norm(q)], [], []
    for _ in range(min(_LANCZOS, n)):
        w = K @ Q[-1]
        alpha.append(float(Q[-1] @ w))
        for _ in range(2):  # orthogonal to rounding
            for v in Q:
                w = w - (v @ w) * v
        beta.append(norm(w))
        scale = max(map(abs, alpha))
        if beta[-1] <= 1e-12 * max(scale, 1e-300):
            break
        Q.append(w / beta[-1])
    T = np.diag(alpha) + np.diag(beta[: len(alpha) - 1], 1)
    found = np.linalg.eigvalsh(T, UPLO="U")
    return min(float(found[0]), 0.0), float(np.max(np.abs(found)))


def _dense(name: str, features: Any) -> Array:
    features = as_features(as_array(name, features))
    if not is_array(features):
        raise TypeError(
            f"{name} must be a dense array, found {type(features).__name__}"
        )
    return features
