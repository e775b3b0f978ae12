"""Test of symmetry along one direction: u'Av = v'Au for a random v."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array, asarray, dot, epsilon, norm


def asymmetry(A: Any, u: Array, Au: Array, seed: int = 0) -> float:
    """Return |u'Av − v'Au| / (‖u‖‖Av‖ + ‖v‖‖Au‖) for a random v; one product, A v.

    ``u`` and ``Au`` are vectors; NaN where a product is not finite.
    """
    v = asarray(np.random.default_rng(seed).standard_normal(u.shape[0]), u)
    Av = A @ v
    size = norm(u) * norm(Av) + norm(v) * norm(Au)
    gap = abs(dot(u, Av) - dot(v, Au))
    return gap / size if size != 0.0 else gap


def symmetry_tolerance(A: Any, like: Array) -> float:
    """Return the asymmetry that the accuracy of the products of A explains."""
    return float(max(epsilon(like), getattr(A, "accuracy", None) or 0.0) ** 0.4)
