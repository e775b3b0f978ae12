"""Randomised Nyström preconditioner: a low-rank sketch of the constant part of A.

    A = core + diag(d),   core ≈ U Λ U',   M = (diag(d) + t + U (Λ − t) U')⁻¹

by the Woodbury identity; t = Λ_l bounds what the sketch misses.  The sketch costs one
product for each of its l columns; a new d costs none.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from ..arrays import (
    Array,
    as_count,
    as_tolerance,
    asarray,
    epsilon,
    is_finite,
    kind_of,
    namespace,
    norm,
)
from ..operators.linear_operator import LinearOperator, as_operator

FIRST_RANK = 20


@dataclasses.dataclass(frozen=True)
class Sketch:
    """U Λ U' ≈ core, from the block product ``image`` = core · ``basis``.

    Attributes
    ----------
    basis, image : array (n, l)
        The orthonormal test matrix and its product with the core.
    vectors : array (n, l)
        U, orthonormal.
    values : array (l,)
        Λ >= 0, falling.
    """

    basis: Array
    image: Array
    vectors: Array
    values: Array

    @property
    def rank(self) -> int:
        """Columns, each of which cost one product."""
        return int(self.values.shape[0])


@dataclasses.dataclass(frozen=True, eq=False)
class Sketched:
    """What a preconditioner is built of: a sketch, and the diagonal, None without a split."""

    sketch: Sketch
    diagonal: Array | None

    def built(self) -> LinearOperator:
        """Return the preconditioner; no products."""
        return from_sketch(self.sketch, self.diagonal, 0)


def nystrom(
    A: Any,
    rank: int | None = None,
    *,
    max_rank: int = 100,
    least_fall: float = 1.0,
    rng: Any = None,
) -> LinearOperator:
    """Return a randomised Nyström preconditioner M ≈ A⁻¹.

    Parameters
    ----------
    A : operator (n, n)
        Symmetric positive definite.  Where it knows its ``split``, the core alone is
        sketched and ``M.update`` costs no products for other diagonals.
    rank : int, optional
        Columns of the sketch.  By default 20, doubled until the smallest eigenvalue
        found is no more than the typical entry of the diagonal that is added.
    max_rank : int
        Limit of the doubling.
    least_fall : float
        Refuse, at the price of the first columns alone, when Λ₁ / Λ_l is below this.
    rng : numpy Generator or seed, optional
        Of the test matrix; 0 by default, so that the result is reproducible.

    Returns
    -------
    LinearOperator (n, n)
        Symmetric positive definite; a product costs 4 n l operations, 8 n l where the core
        exceeds the diagonal by more than half the digits.  ``n_matvec`` is the number of
        products spent.

    Raises
    ------
    ValueError
        When the sketch finds negative curvature, no curvature, an asymmetry or NaN.

    Notes
    -----
    Worth its setup where the spectrum of the core decays: correlated features, few
    samples; not for a Laplacian.  An eigenvalue of M⁻¹A is at most about 1, and no less than
    d / (d + t).

    References
    ----------
    Z. Frangella, J. A. Tropp, M. Udell, "Randomized Nyström preconditioning",
    SIAM J. Matrix Anal. Appl. 44 (2023) 718-752.
    """
    A = as_operator("A", A)
    n = A.shape[0]
    if as_tolerance("least_fall", least_fall) == 0.0:
        raise ValueError("least_fall must be positive, found 0")
    core = A if A.split is None else A.split[0]
    if n == 0:
        return LinearOperator(
            (0, 0), _same, matmat=_same, dtype=A.dtype, positive_definite=True
        )
    limit = min(n, as_count("max_rank", max_rank))
    size = min(n, FIRST_RANK, limit) if rank is None else min(n, as_count("rank", rank))
    if size == 0:
        raise ValueError("rank and max_rank must be at least 1, found 0")
    rng = np.random.default_rng(0 if rng is None else rng)
    found = sketch(core, size, example(A), rng)
    fall = float(found.values[0]) / least_fall
    if size < n and float(found.values[-1]) > fall:
        raise ValueError(
            f"the {size} largest eigenvalues of A must fall by {least_fall}, found them "
            f"from {float(found.values[0]):.1e} to {float(found.values[-1]):.1e}"
        )
    while rank is None and found.rank < limit and wants_more(found, A):
        found = sketch(core, min(2 * found.rank, limit), example(A), rng, found)
    return from_sketch(found, None if A.split is None else A.split[1], found.rank)


def wants_more(found: Sketch, A: LinearOperator) -> bool:
    """Tell whether the eigenvalues that the sketch misses still dwarf the diagonal."""
    if A.split is None or found.rank == A.shape[0]:
        return False
    d = A.split[1]
    xp = namespace(d)
    d = d[d > 0.0]
    if d.shape[0] == 0:
        return True
    typical = math.exp(float(xp.mean(xp.log(d))))
    return float(found.values[-1]) > typical


def sketch(
    core: LinearOperator,
    rank: int,
    like: Array,
    rng: np.random.Generator,
    previous: Sketch | None = None,
) -> Sketch:
    """Sketch a symmetric positive semidefinite operator; costs the columns that are new.

    The pseudo-inverse of basis' core basis is taken by its eigenvalues, shifted by the
    rounding of the product: a Cholesky factor would need a guess and a retry.
    """
    xp, n = namespace(like), core.shape[0]
    done = 0 if previous is None else previous.rank
    omega = rng.standard_normal((n, rank - done))
    basis = asarray(omega, like)
    if previous is not None:
        for _ in range(2):  # twice is enough
            basis = basis - previous.basis @ (previous.basis.T @ basis)
            basis, _ = xp.linalg.qr(basis)
        basis_image = core.matmat(basis)
        image = xp.concat([previous.image, basis_image], axis=1)
        basis = xp.concat([previous.basis, basis], axis=1)
    else:
        basis, _ = xp.linalg.qr(basis)
        image = core.matmat(basis)
    if not is_finite(image):
        raise ValueError("A must be finite: a product has NaN or infinity")
    gram = basis.T @ image
    unit = max(epsilon(like), core.accuracy or 0.0)
    size = norm(xp.reshape(image, (-1,)))
    skew = float(xp.max(xp.abs(gram - gram.T)))
    if skew > math.sqrt(unit) * size:
        raise ValueError(f"A must be symmetric: u'Av differs from v'Au by {skew:.1e}")
    spectrum, rotation = xp.linalg.eigh(0.5 * (gram + gram.T))
    lowest = float(spectrum[0])
    shift = math.sqrt(n) * unit * size
    if lowest < -10.0 * shift:
        raise ValueError(
            f"A must be positive definite: the sketch has an eigenvalue {lowest:.1e}"
        )
    shift += max(-2.0 * lowest, 0.0)
    root = xp.sqrt(spectrum + (shift or 1.0))
    half = ((image + shift * basis) @ rotation) / root
    vectors, singular, _ = xp.linalg.svd(half, full_matrices=False)
    values = singular * singular - shift
    return Sketch(basis, image, vectors, xp.where(values > 0.0, values, 0.0 * values))


def from_sketch(found: Sketch, diagonal: Array | None, n_matvec: int) -> LinearOperator:
    """Return the preconditioner of a core that has that sketch, plus diag; no products."""
    U, values = found.vectors, found.values
    xp, n = namespace(U), U.shape[0]
    d = xp.zeros_like(U[:, 0]) if diagonal is None else diagonal
    top, tail = float(values[0]), float(values[-1])
    lowest, largest = float(xp.min(d)), float(xp.max(d))
    if not (math.isfinite(largest) and lowest >= 0.0):
        raise ValueError(
            "the diagonal in A.split must be finite and >= 0, found entries from "
            f"{lowest} to {largest}"
        )
    if max(largest, top) <= 0.0:
        raise ValueError("A must be positive definite: no positive curvature was found")
    # What is free, beside a sketch that misses nothing, has half the digits of the core:
    # a diagonal of a few roundings of it would leave M no digit of its least eigenvalues.
    floor = max(1e-12 * largest, epsilon(U) ** (2 / 3) * top)
    total, least = d + tail, max(floor, math.sqrt(epsilon(U)) * top)
    root = 1.0 / xp.sqrt(xp.where(total < floor, least + 0.0 * total, total))
    weights = xp.sqrt(xp.where(values > tail, values - tail, 0.0 * values))
    half = root[:, None] * U * weights  # H, and M = E^½ (I + H H')⁻¹ E^½
    squares, rotation = xp.linalg.eigh(half.T @ half)
    squares = xp.where(squares > 0.0, squares, 0.0 * squares)
    # The inverse cancels s/(1 + s) of a part 1, to rounding where s is beyond 1/ε.  Its
    # square root does so by s^½ alone, and M = E^½ F F E^½ is positive.
    passes = 1 if float(xp.max(squares)) <= 1.0 / math.sqrt(epsilon(U)) else 2
    roots = xp.sqrt(1.0 + squares)
    shares = 1.0 / (1.0 + squares) if passes == 1 else 1.0 / (roots * (1.0 + roots))
    turned = weights[:, None] * rotation
    small = (turned * shares) @ turned.T

    def product(r: Array) -> Array:
        scale = root if r.ndim == 1 else root[:, None]
        u = scale * r
        for _ in range(passes):
            u = u - scale * (U @ (small @ (U.T @ (scale * u))))
        return scale * u

    def update(other: Any) -> LinearOperator:
        other = as_operator("A", other, (n, n))
        if diagonal is None or other.split is None:
            return nystrom(other, rank=found.rank)
        return from_sketch(found, other.split[1], 0)

    M = LinearOperator(
        (n, n), product, matmat=product, dtype=U.dtype, positive_definite=True
    )
    setup = Sketched(found, diagonal)
    return M.with_setup(update=update, n_matvec=n_matvec, setup=setup)


def _same(r: Array) -> Array:
    return r


def example(A: LinearOperator) -> Array:
    """Return a vector of the arrays that A acts on."""
    if A.split is not None:
        return A.split[1]
    if A.has_diagonal:
        d = A.diagonal()
        return d if kind_of(d) == "floating" else namespace(d).astype(d, np.float64)
    return np.zeros(A.shape[0], dtype=A.dtype or np.float64)
