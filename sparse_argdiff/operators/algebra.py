"""Sums A + B, products A @ B and multiples 2 * A of operators, by their products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from .structure import common

Operator = TypeVar("Operator")


def compose(make: Callable[..., Operator], a: Any, b: Any) -> Operator:
    """Return the product of two operators, made by their class."""
    if a.shape[1] != b.shape[0]:
        raise ValueError(f"shapes {a.shape} and {b.shape} do not chain")
    return make(
        (a.shape[0], b.shape[1]),
        lambda x: a.matvec(b.matvec(x)),
        lambda y: b.rmatvec(a.rmatvec(y)),
        matmat=lambda x: a.matmat(b.matmat(x)),
        rmatmat=lambda y: b.rmatmat(a.rmatmat(y)),
        dtype=a.dtype if a.dtype == b.dtype else None,
        structure=common(a.structure, b.structure),
    )


def add(make: Callable[..., Operator], a: Any, b: Any) -> Operator:
    """Return the sum of two operators, made by their class."""
    if a.shape != b.shape:
        raise ValueError(f"shapes {a.shape} and {b.shape} do not add")
    known = a.has_diagonal and b.has_diagonal
    return make(
        a.shape,
        lambda x: a.matvec(x) + b.matvec(x),
        lambda y: a.rmatvec(y) + b.rmatvec(y),
        matmat=lambda x: a.matmat(x) + b.matmat(x),
        rmatmat=lambda y: a.rmatmat(y) + b.rmatmat(y),
        dtype=a.dtype if a.dtype == b.dtype else None,
        symmetric=a.symmetric and b.symmetric,
        positive_definite=a.positive_definite and b.positive_definite,
        diagonal=(lambda: a.diagonal() + b.diagonal()) if known else None,
        structure=common(a.structure, b.structure),
    )


def scale(make: Callable[..., Operator], a: Any, factor: float) -> Operator:
    """Return a multiple of an operator, made by its class."""
    return make(
        a.shape,
        lambda x: factor * a.matvec(x),
        lambda y: factor * a.rmatvec(y),
        matmat=lambda x: factor * a.matmat(x),
        rmatmat=lambda y: factor * a.rmatmat(y),
        dtype=a.dtype,
        symmetric=a.symmetric,
        positive_definite=a.positive_definite and factor > 0,
        diagonal=(lambda: factor * a.diagonal()) if a.has_diagonal else None,
        structure=a.structure.scaled(factor),
    )
