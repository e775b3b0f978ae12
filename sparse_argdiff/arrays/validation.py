"""Checks of public arguments and of what a user's functions return.

Each function names the argument, what was found and what was expected.  The products of a
linear map are functions of the user too: their shapes are checked before and after a call.
"""

from __future__ import annotations

import contextlib
import math
import numbers
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from .namespace import (
    Array,
    advice_on,
    copied,
    is_array,
    is_sparse,
    kind_of,
    namespace,
    zeros,
)

FLOATING = frozenset({np.dtype(np.float32), np.dtype(np.float64)})
_AXES = ("row", "column")

Product = Callable[[Array], Array]
Products = tuple[Product | None, Product | None]  # with a vector, with a block


def check_shape(
    name: str, value: Any, shape: tuple[int, ...], what: str = "an array"
) -> None:
    """Refuse the result of a user's function that does not have that shape."""
    found = getattr(value, "shape", None)
    if found is None or tuple(found) != shape:
        found = type(value).__name__ if found is None else tuple(found)
        raise ValueError(f"{name} must return {what} of shape {shape}, found {found}")


def check_callable(**functions: Any) -> None:
    """Refuse what cannot be called and is not None, by its name."""
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise TypeError(f"{name} must be callable, found {type(function).__name__}")


def check_on_failure(on_failure: str) -> None:
    """Refuse anything but "raise", "warn" and "ignore"."""
    if on_failure not in {"raise", "warn", "ignore"}:
        raise ValueError(
            f"on_failure must be 'raise', 'warn' or 'ignore', found {on_failure!r}"
        )


def check_methods(name: str, value: Any, *needed: str) -> None:
    """Refuse an object that lacks one of the methods."""
    lacks = [method for method in needed if not callable(getattr(value, method, None))]
    if lacks:
        raise TypeError(
            f"{name} must have the methods {', '.join(needed)}; "
            f"{type(value).__name__} lacks {', '.join(lacks)}"
        )


def as_array(name: str, value: Any) -> Array:
    """Return an array as it is, and lists, tuples and numbers as NumPy arrays.

    Refused are masked arrays, whose hidden entries would be used, ``np.matrix``, and the
    arrays and tables of libraries that the package does not know.
    """
    if type(value) is np.ndarray:
        return value
    if isinstance(value, list | tuple | float):
        try:
            return np.asarray(value)
        except ValueError as error:
            raise ValueError(f"{name} must be an array: {error}") from None
    if not is_array(value):
        found = f"{type(value).__name__}{advice_on(value)}"
        raise TypeError(f"{name} must be an array, found {found}")
    return value


def as_data(name: str, value: Any, dtype: Any = None, *, finite: bool = True) -> Array:
    """Return real numbers of any kind as a floating array.

    Single and double precision stay what they are, unless there is a ``dtype``.
    """
    array = as_array(name, value)
    xp = namespace(array)
    if kind_of(array) == "other":
        raise TypeError(
            f"{name} must be real, found dtype {array.dtype}; convert it first"
        )
    if dtype is None:
        kept = array.dtype in (xp.float32, xp.float64)
        dtype = array.dtype if kept else xp.float64
    array = xp.asarray(array, dtype=dtype)
    if finite:
        check_finite(name, array)
    return array


def check_finite(name: str, array: Any) -> None:
    """Refuse NaN and infinity in an array or a sparse matrix; name the place of the first."""
    entries = array.data if is_sparse(array) else array
    xp = namespace(entries)
    with np.errstate(all="ignore"):
        # A sum allocates nothing; only where it is not finite the entries are looked at.
        if math.isfinite(float(xp.sum(entries))):
            return
    (wrong, *_) = xp.nonzero(~xp.isfinite(xp.reshape(entries, (-1,))))
    if wrong.shape[0]:
        k = int(wrong[0])
        if is_sparse(array):
            array = array.tocoo()
            at = [int(array.row[k]), int(array.col[k])]
        else:
            at = [int(i) for i in np.unravel_index(k, entries.shape)]
        where = ", ".join(f"{axis} {i}" for axis, i in zip(_AXES, at, strict=False))
        found = float(xp.reshape(entries, (-1,))[k])
        raise ValueError(f"{name} must be finite, found {found} in {where}")


def as_floating(name: str, value: Any, *, ndim: tuple[int, ...] = (1,)) -> Array:
    """Return ``value`` as a real floating array of one of the dimensions ``ndim``.

    Lists and tuples become NumPy arrays; arrays are returned as they are (no copy).
    """
    array = as_array(name, value)
    xp = namespace(array)
    if array.dtype not in (xp.float32, xp.float64):
        raise TypeError(
            f"{name} must be a real floating array, float32 or float64, found dtype "
            f"{array.dtype}; convert it first, for instance with .astype(float)"
        )
    if array.ndim not in ndim:
        expected = " or ".join(f"{d}-D" for d in ndim)
        raise ValueError(f"{name} must be {expected}, found shape {array.shape}")
    return array


def as_dtype(dtype: Any) -> Any:
    """Return a NumPy dtype, or a foreign one as it is."""
    try:
        return None if dtype is None else np.dtype(dtype)
    except TypeError:
        return dtype


def as_vector(name: str, value: Any, size: int | None = None) -> Array:
    """Return ``value`` as a 1-D floating array, of ``size`` entries where given."""
    plain = type(value) is np.ndarray and value.ndim == 1 and value.dtype in FLOATING
    vector = value if plain else as_floating(name, value)
    if size is not None and vector.shape[0] != size:
        raise ValueError(
            f"{name} must have shape ({size},), found shape {tuple(vector.shape)}"
        )
    return vector


def returned_vector(name: str, value: Any, size: int) -> Array:
    """Return what a user's function returned as a floating array (size,)."""
    if type(value) is np.ndarray and value.shape == (size,) and value.dtype in FLOATING:
        return value
    check_shape(name, value, (size,))
    return as_vector(f"{name}'s result", value)


def copied_vector(name: str, value: Any) -> Array:
    """Return a copy of a vector, into which its owner may write the next one."""
    return copied(as_vector(name, value))


def as_number(name: str, value: Any) -> float:
    """Return what a user's function returned as a float: a number or a 0-D array."""
    shape, dtype = getattr(value, "shape", ()), getattr(value, "dtype", None)
    doubtful = isinstance(value, str | bytes | bool | np.ma.MaskedArray)
    if not (shape or doubtful or getattr(dtype, "kind", "f") in "bcOSU"):
        with contextlib.suppress(TypeError, ValueError):
            return float(value)
    what = f"shape {tuple(shape)}" if shape else type(value).__name__
    raise TypeError(f"{name} must return a number, found {what}")


def as_tolerance(name: str, value: Any) -> float:
    """Return a finite number >= 0 of any kind as a float."""
    real = type(value) is float or isinstance(value, numbers.Real)
    if real and 0.0 <= float(value) < math.inf:
        return float(value)
    raise ValueError(f"{name} must be a finite number >= 0, found {value!r}")


def as_count(name: str, value: Any) -> int:
    """Return a whole number >= 0 of any kind as an int."""
    whole = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if whole and 0.0 <= float(value) < math.inf and int(value) == value:
        return int(value)
    raise ValueError(f"{name} must be a whole number >= 0, found {value!r}")


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


# products of a linear map ---------------------------------------------------------------


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
