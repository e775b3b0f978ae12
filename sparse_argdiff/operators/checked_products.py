"""Products of a linear map with vectors and blocks, their shapes checked on both sides.

The functions are the user's; a wrong shape is named where it enters, not where it hurts.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from ..arrays import (
    Array,
    asarray,
    dot,
    epsilon,
    is_array,
    kind_of,
    namespace,
    norm,
    zeros,
)

Product = Callable[[Array], Array]


def as_shape(shape: Any) -> tuple[int, int]:
    """Return two whole numbers >= 0."""
    try:
        rows, columns = (operator.index(side) for side in shape)
    except (TypeError, ValueError):
        raise ValueError(f"shape must be two whole numbers, found {shape!r}") from None
    if rows < 0 or columns < 0:
        raise ValueError(f"shape must not be negative, found {shape!r}")
    return rows, columns


def matrix_type(A: Any) -> tuple[tuple[int, int], Any]:
    """Return the shape of a matrix or operator, and its dtype where it is floating."""
    shape = getattr(A, "shape", None)
    if shape is None or not (hasattr(A, "matvec") or hasattr(A, "__matmul__")):
        raise TypeError(
            "expected a matrix or an operator (something with shape and @ or matvec), "
            f"found {type(A).__name__}"
        )
    if len(shape) != 2:
        raise ValueError(f"an operator has two dimensions, found shape {tuple(shape)}")
    dtype = getattr(A, "dtype", None)
    kind = "floating" if dtype is None else kind_of(A)
    if kind == "other":
        raise TypeError(f"operators are real, found dtype {dtype}")
    # An integer matrix times a floating vector is a floating vector: no dtype of its own.
    return shape, None if kind == "whole" else dtype


def matrix_product(A: Any) -> Product:
    """Return ``x ↦ A @ x``, which refuses arrays of another namespace."""
    if not is_array(A):
        return lambda x: A @ x

    def product(x: Array) -> Array:
        namespace(A, x)  # a mix is refused by name
        return A @ x

    return product


def diagonal_of(A: Any) -> Callable[[], Array] | None:
    """Return the function that gives the diagonal of a square matrix, where it has one."""
    square = A.shape[0] == A.shape[1]
    if square and hasattr(A, "diagonal"):
        return cast("Callable[[], Array]", A.diagonal)
    if square and hasattr(A, "__array_namespace__"):
        return lambda: namespace(A).linalg.diagonal(A)
    return None


def as_product(name: str, function: Any) -> Any:
    """Return a function as it is; refuse what cannot be called."""
    if function is not None and not callable(function):
        raise TypeError(f"{name} must be a function, found {type(function).__name__}")
    return function


def vector_product(
    function: Product | None, name: str, x: Array, shape: tuple[int, int]
) -> Array:
    """Return ``function(x)``, a vector for a vector; a column for a column (n, 1)."""
    if function is None:
        raise NotImplementedError(f"this operator was built without {name}")
    if x.shape == (shape[1], 1):  # SciPy's block products hand over columns
        return vector_product(function, name, x[:, 0], shape)[:, None]
    if x.shape != (shape[1],):
        raise ValueError(
            f"{name} of a {shape[0]} x {shape[1]} map needs an operand of shape "
            f"({shape[1]},), found {tuple(x.shape)}"
        )
    return _of_shape(function(x), name, (shape[0],))


def block_product(
    function: Product | None,
    single: Product,
    name: str,
    x: Array,
    shape: tuple[int, int],
) -> Array:
    """Return ``function(x)`` for a block of columns; column by column without one."""
    if x.ndim != 2 or x.shape[0] != shape[1]:
        raise ValueError(
            f"{name} of a {shape[0]} x {shape[1]} map needs an operand of shape "
            f"({shape[1]}, k), found {tuple(x.shape)}"
        )
    xp = namespace(x)
    if x.shape[1] == 0:
        return zeros((shape[0], 0), x)
    if function is not None:
        return _of_shape(function(x), name, (shape[0], x.shape[1]))
    # Copies: the user's product may write into the same buffer again.
    columns = [xp.asarray(single(x[:, j]), copy=True) for j in range(x.shape[1])]
    return xp.stack(columns, axis=1)


def _of_shape(result: Array, name: str, shape: tuple[int, ...]) -> Array:
    found = getattr(result, "shape", None)
    if found != shape:
        what = type(result).__name__ if found is None else tuple(found)
        raise ValueError(f"{name} must return an array of shape {shape}, found {what}")
    if kind_of(result) == "other":
        raise TypeError(f"{name} must return real numbers, found dtype {result.dtype}")
    return result


def asymmetry(
    A: Any, u: Array, Atu: Array, rng: np.random.Generator | int = 0
) -> float:
    """Return |u'Av − v'Aᵀu| / (‖u‖‖Av‖ + ‖v‖‖Aᵀu‖) for a random v; one product, A v.

    ``u`` and ``Atu`` = Aᵀ u are vectors; for a symmetric A the latter is A u.  NaN where
    a product is not finite.
    """
    v = asarray(np.random.default_rng(rng).standard_normal(Atu.shape[0]), u)
    Av = A @ v
    size = norm(u) * norm(Av) + norm(v) * norm(Atu)
    gap = abs(dot(u, Av) - dot(v, Atu))
    return gap / size if size != 0.0 else gap


def symmetry_tolerance(A: Any, like: Array) -> float:
    """Return the largest asymmetry that the accuracy of the products of A explains."""
    return float(max(epsilon(like), A.accuracy or 0.0) ** 0.4)
