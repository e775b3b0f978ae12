"""The lower objective f(x, y), given by its value, gradient and two operators.

    f_Y = objective.grad(x, y)          (n,)
    f_YY = objective.hess(x, y)         operator (n, n), symmetric
    f_XY = objective.cross(x, y)        operator (n, m), ∂/∂x of f_Y

Quantities of the point alone are computed once, inside ``hess`` and ``cross``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol

from ..arrays import (
    Array,
    brief,
    check_callable,
    copied,
    epsilon,
    missing_product,
    returned_vector,
)
from ..operators.linear_operator import LinearOperator
from ..operators.structure import UNKNOWN, Structure
from .differences import gradient_difference


class Objective(Protocol):
    """A function f(x, y) of parameters x (m,) and variables y (n,), twice smooth in y.

    ``hess`` and ``cross`` may return an ndarray, a sparse matrix or any operator.
    Optional attributes: ``n``, the size of y, without which ``solve`` needs y0;
    ``dtype``, that of y; ``constraints``, arguments that ``Problem`` takes where it is given
    no constraint; ``convex``, true where f is convex in y for every x, which spares
    the products that look for negative curvature; ``has_minimiser(x)``, true where f(x, ·)
    surely grows in all directions: it is then not called ``UNBOUNDED``, nor under bounds
    and inequalities; ``scale(x)``, the size of the terms that cancel in f_Y at a solution, by
    default ‖f_Y(x, 0)‖, for the rounding in proven bounds; for "projected_newton", which
    then is the default in a box, ``hess_entries(x, y, index)``, the rows and columns of
    f_YY at an index or None, and ``approach(x, y)``, a feasible point nearer to the
    solution.
    """

    def value(self, x: Array, y: Array) -> float:
        """Return f(x, y)."""

    def grad(self, x: Array, y: Array) -> Array:
        """Return ∇_y f(x, y), shape (n,)."""

    def hess(self, x: Array, y: Array) -> Any:
        """Return ∇²_yy f(x, y), an operator (n, n)."""

    def cross(self, x: Array, y: Array) -> Any:
        """Return ∂/∂x ∇_y f(x, y), an operator (n, m)."""


class FunctionObjective:
    """An objective from functions, of which those that are needed must be given.

    Parameters
    ----------
    grad : callable
        ``grad(x, y)`` returns ∇_y f, shape (n,).
    value : callable, optional
        ``value(x, y)`` returns f.  Without a value, line searches use the gradient.
    hvp : callable, optional
        ``hvp(x, y, v)`` returns ∇²_yy f v, shape (n,).  Without ``hvp``, products are
        central differences of ``grad``, and every result says so in ``warnings``.
    cross_jvp, cross_vjp : callable, optional
        ``cross_jvp(x, y, u)`` returns f_XY u, shape (n,), for forward mode;
        ``cross_vjp(x, y, w)`` returns f_XYᵀ w, shape (m,), for adjoint mode.
    hess_diag : callable, optional
        ``hess_diag(x, y)`` returns the diagonal of ∇²_yy f, shape (n,), for
        preconditioners.
    grad_x : callable, optional
        ``grad_x(x, y)`` returns ∇_x f at fixed y, shape (m,), for ``value_gradient``.
    n : int, optional
        Size of y.

    Notes
    -----
    The central difference is (∇f(y + h v) − ∇f(y − h v)) / 2h with
    h = ε^(1/3) (1 + ‖y‖) / ‖v‖ and ε the unit roundoff: relative accuracy about
    ε^(2/3), two gradients a product.
    """

    def __init__(
        self,
        *,
        grad: Callable[[Array, Array], Array],
        value: Callable[[Array, Array], float] | None = None,
        hvp: Callable[[Array, Array, Array], Array] | None = None,
        cross_jvp: Callable[[Array, Array, Array], Array] | None = None,
        cross_vjp: Callable[[Array, Array, Array], Array] | None = None,
        hess_diag: Callable[[Array, Array], Array] | None = None,
        grad_x: Callable[[Array, Array], Array] | None = None,
        n: int | None = None,
    ) -> None:
        if grad is None:
            raise TypeError("grad must be callable, found NoneType")
        check_callable(grad=grad, value=value, hvp=hvp, hess_diag=hess_diag)
        check_callable(cross_jvp=cross_jvp, cross_vjp=cross_vjp, grad_x=grad_x)
        self.grad, self.value, self.n, self.grad_x = grad, value, n, grad_x
        self._hvp, self._hess_diag = hvp, hess_diag
        self._cross_jvp, self._cross_vjp = cross_jvp, cross_vjp

    def __repr__(self) -> str:
        given = {name.lstrip("_"): part for name, part in vars(self).items()}
        return brief("FunctionObjective", given)

    def hess(self, x: Array, y: Array) -> LinearOperator:
        """Return f_YY at (x, y) as an operator (n, n)."""
        hvp, diag, structure = self._hvp, self._hess_diag, UNKNOWN
        n = y.shape[0]
        if hvp is None:
            product: Any = functools.partial(gradient_difference, self.grad, x, y)
            structure = Structure(
                accuracy=20.0 * epsilon(y) ** (2 / 3),
                note="Hessian products are central differences of grad (no hvp was given)",
            )
        else:
            product = vector_of("hvp", n, hvp, x, y)
        # Symmetry is not claimed: the functions are the user's, and are tested.
        return LinearOperator(
            (n, n),
            product,
            product,
            dtype=y.dtype,
            diagonal=None if diag is None else vector_of("hess_diag", n, diag, x, y),
            structure=structure,
        )

    def cross(self, x: Array, y: Array) -> LinearOperator:
        """Return f_XY at (x, y) as an operator (n, m)."""
        shape = y.shape[0], x.shape[0]
        products = ("cross_jvp", "forward"), ("cross_vjp", "adjoint")
        forward, adjoint = (
            missing_product(
                f"{mode} mode needs {name}: this FunctionObjective was built without it"
            )
            if getattr(self, f"_{name}") is None
            else vector_of(name, size, getattr(self, f"_{name}"), x, y)
            for (name, mode), size in zip(products, shape, strict=True)
        )
        return LinearOperator(shape, forward, adjoint)


def vector_of(
    name: str, size: int, function: Callable[..., Any], *fixed: Any
) -> Callable[..., Array]:
    """Return the product v ↦ function(*fixed, v), which must be a vector of that size.

    The function may write into what it is given: each product has copies of its own.
    """
    return lambda *v: returned_vector(name, function(*map(copied, fixed), *v), size)
