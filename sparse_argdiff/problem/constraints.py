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

from ..arrays import (
    Array,
    as_array,
    as_vector,
    asarray,
    brief,
    check_callable,
    check_finite,
    check_shape,
    copied,
    drawn,
    epsilon,
    locked,
    missing_product,
    namespace,
    norm,
    returned_vector,
)
from ..operators.block_matrices import (
    is_explicit,
    mask_of,
    transposed_product,
    vstack,
    widened,
    zero,
)
from ..operators.linear_operator import LinearOperator, as_operator, aslinearoperator
from .objective import vector_of


@dataclasses.dataclass(frozen=True)
class Rows:
    """Functions of p rows h(x, y), those of :class:`Equality`; None stands for zero.

    ``affine``: whether jac does not depend on x and y.  ``p``: the number of rows where it
    is known without an evaluation.
    """

    fun: Callable[[Array, Array], Array]
    jac: Callable[[Array, Array], Any]
    hess: Callable[[Array, Array, Array], Any] | None = None
    cross: Callable[[Array, Array, Array], Any] | None = None
    jac_x: Callable[[Array, Array], Any] | None = None
    affine: bool = False
    p: int | None = None


_PARTS = ("fun", "jac", "hess", "cross", "jac_x")


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
        A = as_array("A", A) if isinstance(A, list | tuple) else A
        operator = as_operator("A", A, square=False)
        p = operator.shape[0]
        for name, function in (("b_jvp", b_jvp), ("b_vjp", b_vjp)):
            if function is not None and not (callable(b) and callable(function)):
                raise TypeError(f"{name} must be a function, and b a function of x too")
        if not callable(b):
            b = as_vector("b", b, p)
            check_finite("b", b)
        self.A, self.b = A, b

        def fun(x: Array, y: Array) -> Array:
            return operator @ y - (returned_vector("b", b(x), p) if callable(b) else b)

        def jac_x(x: Array, _: Array) -> LinearOperator:
            m, given = x.shape[0], (("b_jvp", p, b_jvp), ("b_vjp", x.shape[0], b_vjp))
            forward, adjoint = (
                _missing(name) if product is None else vector_of(name, n, product, x)
                for name, n, product in given
            )
            return -LinearOperator((p, m), forward, adjoint)

        self.rows = Rows(
            fun, lambda *_: A, jac_x=jac_x if callable(b) else None, affine=True, p=p
        )

    def __repr__(self) -> str:
        return brief("LinearEquality", {"A": self.A, "b": self.b})


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

    def __repr__(self) -> str:
        given = {name: getattr(self.rows, name) for name in _PARTS}
        return brief(type(self).__name__, given)


class Equality(_FromFunctions):
    """The constraint h(x, y) = 0 of p rows.

    Parameters
    ----------
    fun : callable
        ``fun(x, y)`` returns h, shape (p,).
    jac : callable
        ``jac(x, y)`` returns h_Y, (p, n): array, sparse matrix or operator.
    hess : callable, optional
        ``hess(x, y, multipliers)`` returns Σ multipliers_i ∇²_yy h_i, (n, n).
    cross : callable, optional
        ``cross(x, y, multipliers)`` returns ∂/∂x of jacᵀ multipliers, (n, m).
    jac_x : callable, optional
        ``jac_x(x, y)`` returns h_X, (p, m).

    Notes
    -----
    What is left out stands for zero: ``hess`` where jac does not depend on y, ``cross``
    where jac does not depend on x, ``jac_x`` where fun does not.  A derivative raises
    ValueError where they do; ``check_derivatives(problem, x, y)`` compares them.
    """


class Inequality(_FromFunctions):
    """The constraint h(x, y) <= 0 of p rows; the arguments are those of :class:`Equality`."""


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
        return xp.concat(values) if len(values) > 1 else copied(*values)

    def jac(self, x: Array, y: Array) -> Any:
        """Return h_Y, (p, n), explicit where all parts are, else an operator."""
        sizes = [self._size(i, x, y) for i in range(len(self.parts))]
        n = y.shape[0]
        return vstack(
            [self._matrix(i, "jac", (p, n), x, y) for i, p in enumerate(sizes)]
        )

    def jac_x(self, x: Array, y: Array) -> LinearOperator | None:
        """Return h_X, an operator (p, m), or None where x does not enter."""
        if all(part.jac_x is None for part in self.parts):
            return None
        shapes = [(self._size(i, x, y), x.shape[0]) for i in range(len(self.parts))]
        blocks: list[Any] = [
            zero(shape, y)
            if self.parts[i].jac_x is None
            else self._matrix(i, "jac_x", shape, x, y)
            for i, shape in enumerate(shapes)
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
            alone = len(self.parts) == 1
            size = multipliers.shape[0] if alone else self._size(i, x, y)
            if getattr(part, name) is not None:
                own = multipliers[start : start + size]
                shape = y.shape[0], columns
                terms.append(self._matrix(i, name, shape, x, y, own))
            start += size
        return terms

    def refuse_forgotten(
        self, x: Array, y: Array, multipliers: Array, index: Array
    ) -> None:
        """Refuse a derivative that is None, for zero, where the function does change.

        Only the active rows of ``index`` are asked, and the multipliers at hand.  A Jacobian
        may be that of differences: it changes where more than half its digits do, over a
        step that is longer than its own.
        """
        if self.affine:
            return
        start, active = 0, mask_of(multipliers.shape[0], index)
        step = epsilon(y) ** 0.25
        near = _nearby(x, step, 0), _nearby(y, step, 1)
        for i, part in enumerate(self.parts):
            p, first = self._size(i, x, y), start
            start += p
            if not part.affine:
                acting, own = active[first:start], multipliers[first:start]
                self._refuse_of_part(i, (x, y), near, acting, own)

    def _refuse_of_part(
        self,
        i: int,
        here: tuple[Array, Array],
        near: tuple[Array, Array],
        acting: Array,
        own: Array,
    ) -> None:
        """Compare a part's rows and their pull at (x, y) with those near by."""
        part, (x, y), (other_x, other_y) = self.parts[i], here, near
        xp, unit, shape = namespace(y), epsilon(y), (acting.shape[0], y.shape[0])
        J = self._matrix(i, "jac", shape, x, y)
        force = copied(transposed_product(J, own))
        if part.jac_x is None and bool(xp.any(acting)):
            reach = xp.abs(J @ y if is_explicit(J) else aslinearoperator(J) @ y)
            h, other = copied(self._rows(i, x, y)), self._rows(i, other_x, y)
            moved = xp.abs(other - h) > 1e3 * unit * (xp.abs(h) + reach)
            self._refuse(i, "jac_x", bool(xp.any(moved & acting)))
        size = norm(force)
        places = ("cross", (other_x, y)), ("hess", (x, other_y))
        missing = [at for at in places if getattr(part, at[0]) is None]

        def changes(*at: Array) -> bool:
            pull = transposed_product(self._matrix(i, "jac", shape, *at), own)
            return norm(pull - force) > 16.0 * math.sqrt(unit) * size

        # Where it is the same with another x and y at once, it is with each.
        if size == 0.0 or (len(missing) == 2 and not changes(*near)):
            return
        for name, at in missing:
            self._refuse(i, name, changes(*at))

    def _refuse(self, i: int, name: str, changes: bool) -> None:
        if changes:
            function = "fun" if name == "jac_x" else "jac"
            raise ValueError(
                f"{self.name}[{i}].{function} changes with {'y' if name == 'hess' else 'x'}"
                f", and its derivative {name} is None, which stands for zero: pass {name}="
            )

    def _rows(self, i: int, x: Array, y: Array) -> Array:
        fun = self.parts[i].fun
        return as_vector(f"{self.name}[{i}].fun's result", fun(copied(x), copied(y)))

    def _matrix(self, i: int, name: str, shape: tuple[int, int], *at: Array) -> Any:
        """Return the matrix that a user's function gives, of that shape."""
        given, label = getattr(self.parts[i], name), f"{self.name}[{i}].{name}"
        own = tuple(map(copied, at))
        found = given(*own)
        plain = type(found) is np.ndarray and found.dtype == np.float64
        if plain and found.shape == shape:
            return found
        locked(*own)
        check_shape(label, found, shape, "a matrix")
        as_operator(f"{label}'s result", found, square=False)  # refuses other types
        return widened(found, at[1])

    def _size(self, i: int, x: Array, y: Array) -> int:
        """Return the number of rows of a part, which may depend on x."""
        known = self.parts[i].p
        return int(self._rows(i, x, y).shape[0]) if known is None else known


def _nearby(v: Array, step: float, seed: int) -> Array:
    """Return v with each entry moved away from zero: a domain is not left so."""
    random = asarray(drawn("length", v.shape[0], seed), v)
    return v + step * random * namespace(v).where(v == 0.0, 0.0 * v + 1.0, v)


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
