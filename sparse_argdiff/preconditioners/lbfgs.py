"""L-BFGS preconditioner from curvature pairs, by the two-loop recursion.

    M₊ = (I − ρ s y') M (I − ρ y s') + ρ s s',    ρ = 1 / s'y,    so that M₊ y = s

s: a step, y: the change of the gradient along it, or A s itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..arrays import Array, as_vector, dot, epsilon, is_finite, namespace, norm
from ..operators.linear_operator import LinearOperator, as_operator


def lbfgs(pairs: Iterable[tuple[Array, Array]], *, M: Any = None) -> LinearOperator:
    """Return M ≈ A⁻¹ from pairs (s, y) with y ≈ A s.

    Parameters
    ----------
    pairs : sequence of (array (n,), array (n,))
        Oldest first.  Those of non-positive curvature s'y are dropped.
    M : operator (n, n), optional
        The initial approximation, symmetric positive definite; by default the multiple of the
        identity that suits the last pair, (s'y / y'y) I.

    Returns
    -------
    LinearOperator (n, n)
        Symmetric positive definite.  A product costs 4 k n operations for k pairs;
        ``update(pairs)`` takes other pairs.

    Raises
    ------
    ValueError
        When no pair of positive curvature is left.

    References
    ----------
    J. Nocedal, Math. Comp. 35 (1980) 773-782; J. L. Morales, J. Nocedal, "Automatic
    preconditioning by limited memory quasi-Newton updating", SIAM J. Optim. 10 (2000)
    1079-1096.
    """
    kept: list[tuple[Array, Array]] = []
    for step, change in _checked(pairs):
        s = as_vector("s", step)
        y = as_vector("y", change, s.shape[0])
        namespace(s, y)
        if not (is_finite(s) and is_finite(y)):
            raise ValueError("pairs must be finite, found NaN or infinity")
        size_s, size_y = norm(s), norm(y)
        if size_s == 0.0 or size_y == 0.0:
            continue
        # M y = s holds for y of length 1 too.
        cosine = dot(s / size_s, y / size_y)
        if cosine > 10.0 * epsilon(s):
            kept.append((s / size_y, y / size_y))
    if not kept:
        raise ValueError("pairs must have one with s'y > 0, found none")
    n = kept[0][0].shape[0]
    if any(s.shape[0] != n for s, _ in kept):
        raise ValueError("pairs must all have one size")
    last_s, last_y = kept[-1]
    first = None if M is None else as_operator("M", M, (n, n))
    gamma = dot(last_s, last_y)  # y has length 1
    rhos = [1.0 / dot(s, y) for s, y in kept]

    def product(r: Array) -> Array:
        q = namespace(last_s, r).asarray(r, copy=True)
        coefficients = []
        for (s, y), rho in zip(reversed(kept), reversed(rhos), strict=True):
            alpha = rho * (s @ q)
            coefficients.append(alpha)
            q -= _along(y, alpha)
        z = gamma * q if first is None else first @ q
        for (s, y), rho in zip(kept, rhos, strict=True):
            z = z + _along(s, coefficients.pop() - rho * (y @ z))
        return z

    inverse = LinearOperator(
        (n, n), product, matmat=product, dtype=last_s.dtype, positive_definite=True
    )
    return inverse.with_setup(update=lambda other: lbfgs(other, M=M))


def _checked(pairs: Any) -> list[tuple[Array, Array]]:
    try:
        found = [tuple(pair) for pair in pairs]
    except TypeError:
        found = None
    if found is None or any(len(pair) != 2 for pair in found):
        raise TypeError("pairs must be a sequence of pairs (s, y) of arrays")
    return found


def _along(v: Array, coefficient: Array) -> Array:
    return coefficient * v if coefficient.ndim == 0 else v[:, None] * coefficient
