"""The diagonal of K = core + diag(r), damped where N samples cannot determine all of it.

    M = (κ diag(core) + r)⁻¹,      κ + (1/N) Σ_j κ d_j / (κ d_j + r_j) = 1,   d = diag(core)

The core has rank N, while its diagonal alone suggests Σ d / (d + r) determined
coordinates, which may be many more; κ in (0, 1] makes the two agree.  M is then the mean
of K⁻¹ over independent features of these sizes (Hachem, Loubaton and Najim, Ann. Appl.
Probab. 17 (2007) 875-930, a deterministic equivalent).
"""

from __future__ import annotations

from ..arrays import Array, namespace


def share_of(data: Array, ridge: Array, rank: int, rtol: float) -> float:
    """Return κ, and 1 for n <= N/2, where κ >= 1 − n/N."""
    xp, (count, samples) = namespace(ridge), _samples(ridge, rank)
    if 2 * count <= samples or float(xp.min(ridge)) < 0.0:
        return 1.0
    if not float(xp.min(data)) >= 0.0:
        return 1.0
    if count < ridge.shape[0]:
        data, ridge = data[ridge > 0.0], ridge[ridge > 0.0]
    return data_share(data, ridge + rtol * data, samples)


def data_share(data: Array, ridge: Array, samples: float) -> float:
    """Return κ to 20 % for d >= 0 and r > 0:  κ + (1/N) Σ_j κ d_j / (κ d_j + r_j) = 1.

    A solve to ``rtol`` is blind to what is below rtol · d, as to a ridge: r + rtol · d is
    passed.

    The left side rises with κ and is concave: Newton's method from below rises to the
    root.  It starts where κ d / (κ d + r) <= κ d / r, the sum, is exact.
    """
    xp = namespace(data)
    share = 1.0 / (1.0 + float(xp.sum(data / ridge)) / samples)
    for _ in range(50):
        part = share * data / (share * data + ridge)
        value = share + float(xp.sum(part)) / samples - 1.0
        slope = 1.0 + float(xp.sum(part * (1.0 - part))) / (samples * share)
        share -= value / slope
        if abs(value) <= 0.2 * share * slope:
            break
    return min(max(share, 1e-12), 1.0)


def _samples(ridge: Array, rank: int) -> tuple[int, int]:
    """Return the number of penalised unknowns, and the rank that the others leave."""
    count = int(namespace(ridge).count_nonzero(ridge))
    return count, max(rank - (ridge.shape[0] - count), 1)


def is_an_eigenvalue(ridge: Array, rank: int) -> bool:
    """Tell whether the ridge is one number, of n − N eigenvectors."""
    count, samples = _samples(ridge, rank)
    return count > samples and is_level(ridge[ridge != 0.0], 2.0)


def is_level(diagonal: Array, most: float = 1.2) -> bool:
    """Tell whether the entries differ by a factor of ``most`` at most.

    Jacobi then changes a condition number by 1.2, the iterations by 1.1; a ridge up to 2
    is one cluster of eigenvalues, 1.6 iterations a digit, which a diagonal would spread.
    """
    xp = namespace(diagonal)
    return float(xp.max(diagonal)) <= most * float(xp.min(diagonal))


def level_outputs(diagonal: Array, outputs: int) -> Array:
    """Return the diagonal, its entries of each K outputs replaced by their mean.

    K maps what has no mean over the outputs to what has none, and so does M then: CG
    never enters the shifts of all outputs, whose small eigenvalues, those of the ridge
    beside a column that is nearly constant, it would be late to see.
    """
    if outputs == 1:
        return diagonal
    xp = namespace(diagonal)
    rows = diagonal.reshape(-1, outputs)
    mean = xp.mean(rows, axis=1)[:, None]
    return xp.broadcast_to(mean, rows.shape).reshape(-1)
