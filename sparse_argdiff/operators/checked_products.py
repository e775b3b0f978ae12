"""Products of a linear map with vectors and blocks, with the shapes checked.

The functions are the user's: a wrong shape is named before and after each call.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import (
    FLOATING,
    Array,
    asarray,
    check_callable,
    check_shape,
    dot,
    epsilon,
    kind_of,
    namespace,
    norm,
    zeros,
)

Product = Callable[[Array], Array]
Products = tuple[Product | None, Product | None]  # with a vector, with a block


def check_products(*given: Any) -> None:
    """Refuse a product, of matvec, rmatvec, matmat and rmatmat, that is no function."""
    for function in given:
        if not (function is None or callable(function)):
            names = ("matvec", "rmatvec", "matmat", "rmatmat")
            check_callable(**dict(zip(names, given, strict=True)))


def missing_product(message: str) -> Product:
    """Return a product that raises NotImplementedError with that message."""

    def product(_: Array) -> Array:
        raise NotImplementedError(message)

    return product


def as_shape(shape: Any) -> tuple[int, int]:
    """Return two whole numbers >= 0."""
    try:
        rows, columns = shape
        rows, columns = operator.index(rows), operator.index(columns)
    except (TypeError, ValueError):
        raise ValueError(f"shape must be two whole numbers, found {shape!r}") from None
    if rows < 0 or columns < 0:
        raise ValueError(f"shape must not be negative, found {shape!r}")
    return rows, columns


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
    return _checked(function(x), name, (shape[0],), x)


def block_product(
    products: Products, name: str, x: Array, shape: tuple[int, int]
) -> Array:
    """Return the product with a block of columns; column by column without its own."""
    single, function = products
    if x.ndim != 2 or x.shape[0] != shape[1]:
        raise ValueError(
            f"{name}mat of a {shape[0]} x {shape[1]} map needs an operand of shape "
            f"({shape[1]}, k), found {tuple(x.shape)}"
        )
    xp = namespace(x)
    if x.shape[1] == 0:
        return zeros((shape[0], 0), x)
    if function is not None:
        return _checked(function(x), f"{name}mat", (shape[0], x.shape[1]), x)
    columns = (
        vector_product(single, f"{name}vec", x[:, j], shape) for j in range(x.shape[1])
    )
    # Copies: the user's product may write into the same buffer again.
    return xp.stack([xp.asarray(column, copy=True) for column in columns], axis=1)


def _checked(result: Array, name: str, shape: tuple[int, ...], x: Array) -> Array:
    """Return the result of a user's product with x, of that shape and real like x."""
    if (
        type(result) is np.ndarray
        and result.shape == shape
        and result.dtype in FLOATING
    ):
        return result
    check_shape(name, result, shape)
    namespace(result, x)
    kind = kind_of(result)
    if kind == "other" or (kind == "whole" and kind_of(x) == "floating"):
        raise TypeError(
            f"{name} must return real numbers, float32 or float64, found dtype "
            f"{result.dtype}"
        )
    return result


def transpose_error(u: Array, Av: Array, v: Array, Atu: Array) -> float:
    """Return |u'Av − v'Aᵀu| relative to ‖u‖ ‖Av‖ + ‖v‖ ‖Aᵀu‖; NaN where one is."""
    size = norm(u) * norm(Av) + norm(v) * norm(Atu)
    error = abs(dot(u, Av) - dot(v, Atu))
    return 0.0 if error == 0.0 else error / size if size != 0.0 else math.inf


def asymmetry(A: Any, u: Array, Au: Array) -> float:
    """Return the error of u'Av = v'Au for a random v; one product, A v."""
    v = asarray(np.random.default_rng(0).standard_normal(u.shape[0]), u)
    return transpose_error(u, A @ v, v, Au)


def symmetry_tolerance(A: Any, like: Array) -> float:
    """Return the largest asymmetry that the accuracy of the products of A explains."""
    return float(max(epsilon(like), A.accuracy or 0.0) ** 0.4)
