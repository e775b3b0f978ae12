"""Operators that come in as arguments: what is wrong with one is said by its name."""

from __future__ import annotations

from typing import Any

from .linear_operator import LinearOperator, aslinearoperator


def as_operator(
    name: str, value: Any, shape: tuple[int, int] | None = None
) -> LinearOperator:
    """Return a square operator, of ``shape`` where one is given.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was found and what was expected.
    """
    try:
        operator = aslinearoperator(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None
    if shape is not None and operator.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, found {operator.shape}")
    if operator.shape[0] != operator.shape[1]:
        raise ValueError(f"{name} must be square, found shape {operator.shape}")
    return operator


def as_diagonal(name: str, value: Any, n: int) -> Any:
    """Return the diagonal of a square operator (n, n) that knows it, by its name."""
    operator = as_operator(name, value, (n, n))
    if not operator.has_diagonal:
        raise ValueError(f"{name} must know its diagonal, found an operator without")
    return operator.diagonal()
