"""Lengths and forces at a point in one unit, √f, whatever the units of y and of rows.

    ‖d‖² = Σ D_i d_i²,    ‖g‖² = Σ g_i² / D_i,    D = |diag (f_YY + Σ ν_i ∇²h_i)|

A component of g is the Newton step of its coordinate; a row at h_i is |h_i| / ‖∇h_i‖ away,
the least correction of y, and pulls with the force |ν_i| ‖∇h_i‖.  All of them are unchanged by
y → D y + s and by a scaling of rows, and scale alike with f.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from scipy import sparse

from ..arrays import Array, asarray, is_array, is_sparse, namespace, norm
from ..operators.block_matrices import diagonal_operator, squares
from ..operators.linear_operator import aslinearoperator
from ..operators.probes import diagonal_scale, random_signs

_SAMPLES = 4  # products that estimate the sizes of the rows of an operator


@dataclasses.dataclass(frozen=True)
class Metric:
    """The metric of D; ``root`` is D^½, (n,), positive."""

    root: Array

    def length(self, d: Array) -> float:
        """Return ‖d‖."""
        return norm(self.root * d)

    def forces(self, g: Array) -> Array:
        """Return g_i / D_i^½, (n,)."""
        return g / self.root

    def covariant(self, jac: Any) -> Any:
        """Return the rows in coordinates of this metric, jac D^-½, as explicit as jac."""
        inverse = 1.0 / self.root
        if is_array(jac):
            return jac * inverse[None, :]
        if sparse.issparse(jac):
            return sparse.csr_array(jac @ sparse.diags_array(inverse))
        return aslinearoperator(jac) @ diagonal_operator(inverse)

    def row_norms(self, jac: Any) -> Array:
        """Return ‖∇h_i‖, (p,), and 1 for zero rows; of an operator an estimate."""
        xp, inverse = namespace(self.root), 1.0 / self.root
        square: Any
        if is_sparse(jac) or is_array(jac):
            square = squares(jac) @ (inverse * inverse)
        else:
            rng, operator = np.random.default_rng(0), aslinearoperator(jac)
            square = 0.0
            for _ in range(_SAMPLES):
                signs = asarray(rng.choice([-1.0, 1.0], self.root.shape[0]), inverse)
                image = operator @ (signs * inverse)
                square = square + image * image / _SAMPLES
        return xp.where(square > 0.0, xp.sqrt(square), xp.ones_like(square))


def metric_of(H: Any, y: Array, grad: Array) -> tuple[Metric, int]:
    """Return the metric of a Hessian's diagonal at y, and the products that it took.

    Where f has no curvature along a coordinate its force takes the place: a length y_i
    then counts as the part g_i y_i of f.  Without a diagonal it is one number, the
    curvature along a random direction.
    """
    H, xp = aslinearoperator(H), namespace(y)
    if not H.has_diagonal:
        sizes, products = diagonal_scale(H, y)
        if sizes is not None:
            return Metric(xp.sqrt(sizes)), products
        v = random_signs(y.shape[0], y, 0)
        curvature = norm(H.matvec(v)) / (norm(v) or 1.0)
        return Metric(xp.full_like(y, curvature**0.5 or 1.0)), products + 1
    D = xp.abs(asarray(H.diagonal(), y))
    flat = ~(D > 0.0)
    if bool(xp.any(flat)):
        force, size = xp.abs(grad), xp.abs(y)
        found = force / xp.where(size > 0.0, size, xp.ones_like(size))
        rest = _mean(D, ~flat) or _mean(found, found > 0.0) or 1.0
        D = xp.where(flat, xp.where(found > 0.0, found, rest + 0.0 * D), D)
    return Metric(xp.sqrt(D)), 0


def _mean(values: Array, where: Array) -> float:
    """Return the geometric mean of some values, 0 of none."""
    xp, some = namespace(values), values[where]
    return float(xp.exp(xp.mean(xp.log(some)))) if some.shape[0] else 0.0
