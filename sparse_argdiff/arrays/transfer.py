"""Transfers between host and device; no other function of the package makes one.

    to_device(value)   NumPy → CuPy        to_host(value)   CuPy → NumPy

The value may be an array, a sparse matrix, a container of them, a record (``Solution``,
``Problem``, any dataclass) or an object with a method ``to(backend)``.
"""

from __future__ import annotations

import dataclasses
import enum
import numbers
from typing import Any

import numpy as np

from .namespace import Array, array_module, is_array, is_sparse, to_namespace

_CUDA = 2  # the device type of the DLPack standard; 1 is the host


def to_device(value: Any, backend: str = "cupy") -> Any:
    """Return the value with all its arrays on the device.

    Parameters
    ----------
    value : array, sparse matrix, list, tuple, dict, dataclass, or object with ``to``
        SciPy's sparse matrices become those of ``cupyx.scipy.sparse``.
    backend : {"cupy", "numpy"}

    Raises
    ------
    TypeError
        For an object that holds functions, whose arrays are not accessible.
    ImportError, RuntimeError
        When CuPy is not installed, or finds no device.

    Notes
    -----
    Arrays that are there already are returned without a copy.
    """
    return _moved(value, array_module(backend), backend, "value")


def to_host(value: Any) -> Any:
    """Return the value with all its arrays on the host: the inverse of ``to_device``."""
    return _moved(value, np, "numpy", "value")


def from_dlpack(tensor: Any) -> Array:
    """Return a tensor of another library as a NumPy or CuPy array, without a copy.

    Parameters
    ----------
    tensor : object with ``__dlpack__`` and ``__dlpack_device__``
        Of PyTorch, JAX, ...: on the host it becomes a NumPy array, on a CUDA device a
        CuPy array.  Both go back by the other library's own ``from_dlpack``.

    Raises
    ------
    TypeError
        For anything else, and for a device that is neither host nor CUDA.

    References
    ----------
    The array API standard, "Data interchange mechanisms" (DLPack).
    """
    if not hasattr(tensor, "__dlpack_device__"):
        raise TypeError(
            f"tensor must have __dlpack__ (PyTorch, JAX, ...), found "
            f"{type(tensor).__name__}"
        )
    kind = int(tensor.__dlpack_device__()[0])
    if kind not in {1, _CUDA}:
        raise TypeError(
            f"tensor must be on the host or on a CUDA device, found DLPack device "
            f"type {kind}"
        )
    return array_module("cupy" if kind == _CUDA else "numpy").from_dlpack(tensor)


def _moved(value: Any, xp: Any, backend: str, name: str) -> Any:
    if value is None or isinstance(value, numbers.Number | str | bool | enum.Enum):
        return value
    if is_array(value) or is_sparse(value):
        return to_namespace(value, xp)
    if callable(getattr(value, "to", None)):
        return value.to(backend)
    if isinstance(value, dict):
        return {k: _moved(v, xp, backend, f"{name}[{k!r}]") for k, v in value.items()}
    if isinstance(value, list | tuple):
        parts = [_moved(v, xp, backend, f"{name}[{i}]") for i, v in enumerate(value)]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if field.init]
        given = ((k, getattr(value, k), f"{name}.{k}") for k in names)
        return dataclasses.replace(
            value, **{k: _moved(v, xp, backend, label) for k, v, label in given}
        )
    raise TypeError(
        f"{name} is of type {type(value).__name__}, whose arrays cannot be seen; build "
        "it from arrays of the device, or give it a method to(backend)"
    )
