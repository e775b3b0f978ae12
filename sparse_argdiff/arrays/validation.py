"""Checks of public arguments and of what a user's functions return.

Each function names the argument, what was found and what was expected.
"""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

from .namespace import Array, is_array, namespace

_FLOATING = frozenset({np.dtype(np.float32), np.dtype(np.float64)})


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


def check_methods(name: str, value: Any, *needed: str) -> None:
    """Refuse an object that lacks one of the methods."""
    lacks = [method for method in needed if not callable(getattr(value, method, None))]
    if lacks:
        raise TypeError(
            f"{name} must have the methods {', '.join(needed)}; "
            f"{type(value).__name__} lacks {', '.join(lacks)}"
        )


def as_floating(name: str, value: Any, *, ndim: tuple[int, ...] = (1,)) -> Array:
    """Return ``value`` as a real floating array of one of the dimensions ``ndim``.

    Lists and tuples become NumPy arrays; arrays are returned as they are (no copy).
    """
    foreign = isinstance(value, list | tuple | float | np.matrix)
    array = np.asarray(value) if foreign else value
    if not is_array(array):
        raise TypeError(f"{name} must be an array, found {type(value).__name__}")
    xp = namespace(array)
    if array.dtype not in (xp.float32, xp.float64):
        raise TypeError(
            f"{name} must be a real floating array, found dtype {array.dtype}; "
            "convert it first, for instance with .astype(float)"
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
    plain = type(value) is np.ndarray and value.ndim == 1 and value.dtype in _FLOATING
    vector = value if plain else as_floating(name, value)
    if size is not None and vector.shape[0] != size:
        raise ValueError(
            f"{name} must have shape ({size},), found shape {tuple(vector.shape)}"
        )
    return vector


def copied_vector(name: str, value: Any) -> Array:
    """Return a copy of a vector, into which an optimiser may write its next point."""
    vector = as_vector(name, value)
    return namespace(vector).asarray(vector, copy=True)


def as_number(name: str, value: Any) -> float:
    """Return what a user's function returned as a float: a number or a 0-D array."""
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        found = getattr(value, "shape", None)
        what = type(value).__name__ if found is None else f"shape {tuple(found)}"
        raise TypeError(f"{name} must return a number, found {what}") from error


def as_tolerance(name: str, value: Any) -> float:
    """Return a finite number >= 0 of any kind as a float."""
    if isinstance(value, numbers.Real) and 0.0 <= float(value) < math.inf:
        return float(value)
    raise ValueError(f"{name} must be a finite number >= 0, found {value!r}")


def as_count(name: str, value: Any) -> int:
    """Return a whole number >= 0 of any kind as an int."""
    whole = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if whole and 0.0 <= float(value) < math.inf and int(value) == value:
        return int(value)
    raise ValueError(f"{name} must be a whole number >= 0, found {value!r}")
