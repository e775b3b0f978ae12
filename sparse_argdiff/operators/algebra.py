"""Sums A + B, products A @ B and multiples 2 * A of operators, by their products."""

from __future__ import annotations

import numbers
from typing import Any, Self

from .matrix_products import arguments_of
from .structure import common


class Algebra:
    """What operators have of numbers: +, − and multiples."""

    def __add__(self, other: Any) -> Self:
        return add(self, self._operand(other))

    __radd__ = __add__

    def __sub__(self, other: Any) -> Self:
        return self + -self._operand(other)

    def __rsub__(self, other: Any) -> Self:
        return self._operand(other) + -self

    def __mul__(self, factor: Any) -> Self:
        if not isinstance(factor, numbers.Real):
            return NotImplemented
        return scale(self, float(factor))

    __rmul__ = __mul__

    def __neg__(self) -> Self:
        return scale(self, -1.0)

    def _operand(self, other: Any) -> Self:
        """Return a matrix or operator as an operator of this class."""
        make = type(self)
        return other if isinstance(other, make) else make(**arguments_of(other))


def compose(a: Any, b: Any) -> Any:
    """Return the product of two operators."""
    if a.shape[1] != b.shape[0]:
        raise ValueError(f"shapes {a.shape} and {b.shape} do not chain")
    return type(a)(
        (a.shape[0], b.shape[1]),
        lambda x: a.matvec(b.matvec(x)),
        lambda y: b.rmatvec(a.rmatvec(y)),
        matmat=lambda x: a.matmat(b.matmat(x)),
        rmatmat=lambda y: b.rmatmat(a.rmatmat(y)),
        dtype=a.dtype if a.dtype == b.dtype else None,
        structure=common(a.structure, b.structure),
    )


def add(a: Any, b: Any) -> Any:
    """Return the sum of two operators."""
    if a.shape != b.shape:
        raise ValueError(f"shapes {a.shape} and {b.shape} do not add")
    known = a.has_diagonal and b.has_diagonal
    return type(a)(
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


def scale(a: Any, factor: float) -> Any:
    """Return a multiple of an operator."""
    return type(a)(
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
