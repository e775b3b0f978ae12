"""Constraints on y, h(x, y) = 0 or h(x, y) <= 0, row by row, with their derivatives.

    Lagrangian = f + multipliers' h,    h_Y = jac (p, n),    h_X = jac_x (p, m)

Rows of several constraints are stacked in the order in which they were given.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import Array, as_vector, asarray, check_callable, check_shape, namespace
from ..operators.block_matrices import vstack, zero
from ..operators.checked_products import missing_product
from ..operators.linear_operator import LinearOperator, aslinearoperator


@dataclasses.dataclass(frozen=True)
class Rows:
    """Functions of p rows h(x, y); None stands for zero.

    Attributes
    ----------
    fun : callable
        ``fun(x, y)`` returns h, shape (p,).
    jac : callable
        ``jac(x, y)`` returns h_Y, (p, n): array, sparse matrix or operator.
    hess : callable or None
        ``hess(x, y, multipliers)`` returns Σ multipliers_i ∇²_yy h_i, (n, n).
    cross : callable or None
        ``cross(x, y, multipliers)`` returns ∂/∂x of jacᵀ multipliers, (n, m).
    jac_x : callable or None
        ``jac_x(x, y)`` returns h_X, (p, m).
    affine : bool
        Whether jac does not depend on y.
    p : int or None
        The number of rows where it is known without an evaluation.
    """

    fun: Callable[[Array, Array], Array]
    jac: Callable[[Array, Array], Any]
    hess: Callable[[Array, Array, Array], Any] | None = None
    cross: Callable[[Array, Array, Array], Any] | None = None
    jac_x: Callable[[Array, Array], Any] | None = None
    affine: bool = False
    p: int | None = None


class LinearEquality:
    """The constraint A y = b of the paper's section 4.1.

    Parameters
    ----------
    A : array, sparse matrix or operator (p, n)
        Constant.
    b : array (p,) or callable
        The right-hand side, or a function ``b(x)`` with derivatives.
    b_jvp, b_vjp : callable, optional
        ``b_jvp(x, u)`` returns b_X u (p,), ``b_vjp(x, w)`` returns b_Xᵀ w (m,).  A
        callable b needs one for each mode of differentiation that is used.
    """

    def __init__(
        self,
        A: Any,
        b: Any,
        *,
        b_jvp: Callable[[Array, Array], Array] | None = None,
        b_vjp: Callable[[Array, Array], Array] | None = None,
    ) -> None:
        if isinstance(A, list | tuple | np.matrix):
            A = np.asarray(A)
        operator = aslinearoperator(A)
        p = operator.shape[0]
        for name, function in (("b_jvp", b_jvp), ("b_vjp", b_vjp)):
            if function is not None and not (callable(b) and callable(function)):
                raise TypeError(f"{name} must be a function, and b a function of x too")
        if not callable(b):
            b = as_vector("b", b, p)
        self.A, self.b = A, b

        def fun(x: Array, y: Array) -> Array:
            return operator @ y - (b(x) if callable(b) else b)

        def jac_x(x: Array, _: Array) -> LinearOperator:
            return -LinearOperator(
                (p, x.shape[0]),
                _missing("b_jvp") if b_jvp is None else lambda u: b_jvp(x, u),
                _missing("b_vjp") if b_vjp is None else lambda w: b_vjp(x, w),
            )

        self.rows = Rows(
            fun, lambda *_: A, jac_x=jac_x if callable(b) else None, affine=True, p=p
        )


def _missing(name: str) -> Callable[[Array], Array]:
    return missing_product(
        f"b depends on x: this product needs {name}, which LinearEquality was built "
        f"without; pass {name}=..."
    )


class _FromFunctions:
    def __init__(
        self,
        fun: Callable[[Array, Array], Array],
        jac: Callable[[Array, Array], Any],
        *,
        hess: Callable[[Array, Array, Array], Any] | None = None,
        cross: Callable[[Array, Array, Array], Any] | None = None,
        jac_x: Callable[[Array, Array], Any] | None = None,
    ) -> None:
        for name, function in (("fun", fun), ("jac", jac)):
            if function is None:
                raise TypeError(f"{name} must be callable, found NoneType")
        check_callable(fun=fun, jac=jac, hess=hess, cross=cross, jac_x=jac_x)
        self.rows = Rows(fun, jac, hess, cross, jac_x)


class Equality(_FromFunctions):
    """The constraint h(x, y) = 0; the arguments are those of :class:`Rows`."""


class Inequality(_FromFunctions):
    """The constraint h(x, y) <= 0; the arguments are those of :class:`Rows`."""


class Stack:
    """The rows of several constraints as one h(x, y); ``name`` is for messages."""

    def __init__(self, name: str, parts: list[Rows]) -> None:
        self.name = name
        self.parts = parts
        self.affine = all(part.affine for part in parts)

    def value(self, x: Array, y: Array) -> Array:
        """Return h(x, y), shape (p,)."""
        values = [self._rows(i, x, y) for i in range(len(self.parts))]
        xp = namespace(y, *values)
        # A copy: the user's function may write into the same buffer again.
        return xp.concat(values) if len(values) > 1 else xp.asarray(*values, copy=True)

    def jac(self, x: Array, y: Array) -> Any:
        """Return h_Y, (p, n), explicit where all parts are, else an operator."""
        return vstack(
            [
                self._matrix(i, "jac", part.jac(x, y), self._size(i, x, y), y.shape[0])
                for i, part in enumerate(self.parts)
            ]
        )

    def jac_x(self, x: Array, y: Array) -> LinearOperator | None:
        """Return h_X, an operator (p, m), or None where x does not enter."""
        if all(part.jac_x is None for part in self.parts):
            return None
        m = x.shape[0]
        blocks: list[Any] = [
            zero((self._size(i, x, y), m), y)
            if part.jac_x is None
            else self._matrix(i, "jac_x", part.jac_x(x, y), self._size(i, x, y), m)
            for i, part in enumerate(self.parts)
        ]
        return aslinearoperator(vstack(blocks))

    def hess(self, x: Array, y: Array, multipliers: Array) -> LinearOperator | None:
        """Return Σ multipliers_i ∇²_yy h_i, (n, n), or None for affine rows."""
        return self._sum("hess", x, y, multipliers, y.shape[0])

    def cross(self, x: Array, y: Array, multipliers: Array) -> LinearOperator | None:
        """Return ∂/∂x of jacᵀ multipliers, (n, m), or None where x does not enter it."""
        return self._sum("cross", x, y, multipliers, x.shape[0])

    def _sum(
        self, name: str, x: Array, y: Array, multipliers: Array, columns: int
    ) -> LinearOperator | None:
        total: LinearOperator | None = None
        for given in self.terms(name, x, y, multipliers, columns):
            term = aslinearoperator(given)
            total = term if total is None else total + term
        return total

    def terms(
        self, name: str, x: Array, y: Array, multipliers: Array, columns: int
    ) -> list[Any]:
        """Return the terms of ``hess`` or ``cross`` as the constraints gave them."""
        terms, start = [], 0
        for i, part in enumerate(self.parts):
            function = getattr(part, name)
            alone = len(self.parts) == 1
            size = multipliers.shape[0] if alone else self._size(i, x, y)
            if function is not None:
                given = function(x, y, multipliers[start : start + size])
                terms.append(self._matrix(i, name, given, y.shape[0], columns))
            start += size
        return terms

    def _rows(self, i: int, x: Array, y: Array) -> Array:
        return as_vector(f"{self.name}[{i}].fun's result", self.parts[i].fun(x, y))

    def _matrix(self, i: int, name: str, given: Any, rows: int, columns: int) -> Any:
        """Return the matrix that a user's function gave, of that shape."""
        if isinstance(given, np.matrix):  # its `*` is a product of matrices
            given = np.asarray(given)
        check_shape(f"{self.name}[{i}].{name}", given, (rows, columns), "a matrix")
        return given

    def _size(self, i: int, x: Array, y: Array) -> int:
        """Return the number of rows of a part, which may depend on x."""
        known = self.parts[i].p
        return int(self._rows(i, x, y).shape[0]) if known is None else known


def stack(name: str, given: Any, kinds: tuple[type, ...]) -> Stack | None:
    """Return one constraint or a sequence of them as a :class:`Stack`; None for none."""
    if given is None:
        return None
    members = list(given) if isinstance(given, list | tuple) else [given]
    for member in members:
        if not isinstance(member, kinds):
            known = " or ".join(kind.__name__ for kind in kinds)
            raise TypeError(
                f"{name} must be a {known} or a sequence of them, found "
                f"{type(member).__name__}"
            )
    return Stack(name, [member.rows for member in members]) if members else None


def bound_arrays(lower: Any, upper: Any, y: Array) -> tuple[Array, Array]:
    """Return bounds on y as arrays (n,), infinite where there are none."""
    found = []
    for name, given, none in (("lower", lower, -math.inf), ("upper", upper, math.inf)):
        bound = asarray(none if given is None else given, y)
        if bound.ndim != 0 and bound.shape != y.shape:
            raise ValueError(
                f"{name} must be a number or have shape {tuple(y.shape)} like y, "
                f"found shape {tuple(bound.shape)}"
            )
        found.append(bound + namespace(y).zeros_like(y))
    if not bool(namespace(y).all(found[0] <= found[1])):
        raise ValueError("lower must be <= upper everywhere, without NaN")
    return found[0], found[1]
