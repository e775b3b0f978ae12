"""The products of arrays, sparse matrices and the operators of other libraries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from ..arrays import (
    Array,
    Product,
    advice_on,
    is_array,
    is_sparse,
    kind_of,
    namespace,
)
from .structure import Structure


def arguments_of(A: Any) -> dict[str, Any]:
    """Return the arguments of ``LinearOperator`` for a matrix or an operator."""
    shape, dtype = _matrix_type(A)
    if hasattr(A, "matvec"):
        names = ("rmatvec", "matmat", "rmatmat")
        others = {name: getattr(A, name, None) for name in names}
        return {"shape": shape, "dtype": dtype, "matvec": A.matvec, **others}
    forward = _matrix_product(A)
    backward = _matrix_product(A.T) if hasattr(A, "T") else None
    return {
        "shape": shape,
        "dtype": dtype,
        "matvec": forward,
        "rmatvec": backward,
        "matmat": forward,
        "rmatmat": backward,
        "diagonal": _diagonal_of(A),
        "structure": Structure(matrix=A),
    }


def _matrix_type(A: Any) -> tuple[tuple[int, int], Any]:
    """Return the shape of a matrix or operator, and its dtype where it is floating."""
    shape = getattr(A, "shape", None)
    known = hasattr(A, "matvec") or is_array(A) or is_sparse(A)
    advice = "" if known else advice_on(A)
    if advice or shape is None or not (known or hasattr(A, "__matmul__")):
        raise TypeError(
            "expected a matrix or an operator (something with shape and @ or matvec), "
            f"found {type(A).__name__}{advice}"
        )
    if len(shape) != 2:
        raise ValueError(f"an operator has two dimensions, found shape {tuple(shape)}")
    dtype = getattr(A, "dtype", None)
    kind = "floating" if dtype is None else kind_of(A)
    if kind == "other":
        raise TypeError(f"operators are real, float32 or float64, found dtype {dtype}")
    # An integer matrix times a floating vector is a floating vector: no dtype of its own.
    return shape, None if kind == "whole" else dtype


def _matrix_product(A: Any) -> Product:
    """Return ``x ↦ A @ x``, which refuses arrays of another namespace."""
    if not is_array(A):
        return lambda x: A @ x

    def product(x: Array) -> Array:
        namespace(A, x)  # a mix is refused by name
        return A @ x

    return product


def _diagonal_of(A: Any) -> Callable[[], Array] | None:
    """Return the function that gives the diagonal of a square matrix, where it has one."""
    square = A.shape[0] == A.shape[1]
    if square and hasattr(A, "diagonal"):
        return cast("Callable[[], Array]", A.diagonal)
    if square and hasattr(A, "__array_namespace__"):
        return lambda: namespace(A).linalg.diagonal(A)
    return None
