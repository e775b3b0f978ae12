"""Recycling: a deflation preconditioner and a Galerkin start from earlier solutions.

    M = Q' M₀ Q + W (W'AW)⁻¹ W',   Q = I − A W (W'AW)⁻¹ W',       x₀ = W (W'AW)⁻¹ W'b

M is exact on the span of W, M A W = W, and M₀ preconditions its complement.  W holds Ritz
vectors of the smallest eigenvalues, or the last solutions of a sequence of systems.
"""

from __future__ import annotations

from typing import Any

from ..arrays import Array, as_floating, epsilon, is_finite, namespace, norm
from ..operators.linear_operator import LinearOperator, as_operator


def deflation(W: Any, AW: Any, *, M: Any = None) -> LinearOperator:
    """Return a preconditioner that is exact on the span of W.

    Parameters
    ----------
    W : array (n, k)
        Independent columns.
    AW : array (n, k)
        A W, k products.
    M : operator (n, n), optional
        M₀ for the rest, symmetric positive definite; by default the identity in the units
        of A⁻¹.

    Returns
    -------
    LinearOperator (n, n)
        Symmetric positive definite.  ``update(A)`` applies A to W again, which costs k
        products.

    Raises
    ------
    ValueError
        When W'AW is not positive definite.

    References
    ----------
    S. Gratton, A. Sartenaer, J. Tshimanga, "On a class of limited memory
    preconditioners for large scale linear systems with multiple right-hand sides",
    SIAM J. Optim. 21 (2011) 912-935.
    """
    W, AW = as_floating("W", W, ndim=(2,)), as_floating("AW", AW, ndim=(2,))
    if W.shape != AW.shape:
        raise ValueError(f"AW must have shape {W.shape} like W, found {AW.shape}")
    (n, k), xp = W.shape, namespace(W, AW)
    first = None if M is None else as_operator("M", M, (n, n))
    found = _conjugate(W, AW)
    if found is None or found[0].shape[1] < k:
        raise ValueError("W'AW must be positive definite and finite")
    V, AV = found
    # V is A-orthonormal, so that trace(V'V) is the sum of the Ritz values of A⁻¹.
    unit = float(xp.sum(V * V)) / k if k else 1.0

    def product(r: Array) -> Array:
        inner = V.T @ r
        rest = r - AV @ inner
        z = unit * rest if first is None else first @ rest
        return z - V @ (AV.T @ z) + V @ inner

    def update(other: Any) -> LinearOperator:
        other = as_operator("A", other, (n, n))
        return deflation(W, other.matmat(W), M=M).with_setup(n_matvec=k)

    deflated = LinearOperator(
        (n, n), product, matmat=product, dtype=V.dtype, positive_definite=True
    )
    return deflated.with_setup(update=update)


def galerkin_start(A: Any, b: Array, W: Array) -> tuple[Array | None, int]:
    """Return the best start of A x = b in the span of W, and the products it cost.

    Parameters
    ----------
    A : operator (n, n)
        Symmetric positive definite.
    b : array (n,)
        Right-hand side.
    W : array (n, k)
        Earlier solutions, the last one first; dependent ones do no harm.

    Returns
    -------
    x0 : array (n,) or None
        The point nearest to the solution in the norm of A; None where the span has no
        direction of positive curvature.
    n_matvec : int
        k, in one block.
    """
    A, W = as_operator("A", A), as_floating("W", W, ndim=(2,))
    found = _conjugate(W, A.matmat(W))
    if found is None or found[0].shape[1] == 0:
        return None, W.shape[1]
    V, _ = found
    return V @ (V.T @ b), W.shape[1]


def _conjugate(W: Array, AW: Array) -> tuple[Array, Array] | None:
    """Return V with span W and V'AV = I, and A V; dependent columns are left out."""
    xp = namespace(W, AW)
    if not (is_finite(W) and is_finite(AW)):
        return None
    sizes = [norm(W[:, j]) for j in range(W.shape[1])]
    kept = [j for j, size in enumerate(sizes) if size > 0.0]
    if not kept:
        return W[:, :0], AW[:, :0]
    W = xp.stack([W[:, j] / sizes[j] for j in kept], axis=1)
    AW = xp.stack([AW[:, j] / sizes[j] for j in kept], axis=1)
    gram = W.T @ AW
    values, rotation = xp.linalg.eigh(0.5 * (gram + gram.T))
    if not float(values[-1]) > 0.0:
        return W[:, :0], AW[:, :0]
    # Half the digits: what is smaller is rounding, or negative curvature.
    good = [
        j
        for j in range(len(kept))
        if float(values[j]) > epsilon(W) ** 0.75 * float(values[-1])
    ]
    turn = xp.stack([rotation[:, j] / values[j] ** 0.5 for j in good], axis=1)
    return W @ turn, AW @ turn
