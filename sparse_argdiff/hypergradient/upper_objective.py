"""The upper objective f^U(x, y); value and gradient of F from a solution and its adjoint.

    F(x) ≈ f^U(x, y) − λ' f_Y(x, y),        ∇F(x) = ∂f^U/∂x + g'(x)' ∂f^U/∂y

The second term corrects the value for an inexact y: the error of the sum is of second order
in the error of y, that of f^U(x, y) alone of first order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from ..arrays import (
    Array,
    as_number,
    brief,
    check_callable,
    copied,
    dot,
    is_finite,
    namespace,
    returned_vector,
)
from ..implicit.derivative import Adjoint
from ..problem.problem import Solution
from ..status import OnFailure, Status, raise_or_warn

_WHAT = "evaluating the upper level"


class UpperObjective(Protocol):
    """The upper objective f^U(x, y)."""

    def value(self, x: Array, y: Array) -> float:
        """Return f^U(x, y)."""

    def grad_y(self, x: Array, y: Array) -> Array:
        """Return ∂f^U/∂y, shape (n,)."""

    def grad_x(self, x: Array, y: Array) -> Array | None:
        """Return ∂f^U/∂x, shape (m,), or None when x does not enter directly."""


class FunctionUpper:
    """An upper objective from functions.

    Parameters
    ----------
    value : callable
        ``value(x, y)`` returns f^U, a number.
    grad_y : callable
        ``grad_y(x, y)`` returns ∂f^U/∂y, shape (n,).
    grad_x : callable, optional
        ``grad_x(x, y)`` returns ∂f^U/∂x, shape (m,); None where x does not enter directly.
    """

    def __init__(
        self,
        value: Callable[[Array, Array], float],
        grad_y: Callable[[Array, Array], Array],
        grad_x: Callable[[Array, Array], Array] | None = None,
    ) -> None:
        for name, function in (("value", value), ("grad_y", grad_y)):
            if function is None:
                raise TypeError(f"{name} must be callable, found NoneType")
        check_callable(value=value, grad_y=grad_y, grad_x=grad_x)
        self.value = value
        self.grad_y = grad_y
        self._grad_x = grad_x

    def __repr__(self) -> str:
        given = {name.lstrip("_"): part for name, part in vars(self).items()}
        return brief("FunctionUpper", given)

    def grad_x(self, x: Array, y: Array) -> Array | None:
        """Return ∂f^U/∂x, or None."""
        return None if self._grad_x is None else self._grad_x(x, y)


def gradient_y(upper: UpperObjective, solution: Solution) -> Array:
    """Return ∂f^U/∂y, checked."""
    x, y = copied(solution.x), copied(solution.y)
    return returned_vector("upper.grad_y", upper.grad_y(x, y), y.shape[0])


def gradient_x(upper: UpperObjective, solution: Solution) -> Array | None:
    """Return ∂f^U/∂x, checked; None where x does not enter directly."""
    x, y = copied(solution.x), copied(solution.y)
    direct = upper.grad_x(x, y)
    # A copy: the user's function may write into the same buffer again.
    return (
        None
        if direct is None
        else copied(returned_vector("upper.grad_x", direct, x.shape[0]))
    )


def corrected_value(
    upper: UpperObjective,
    solution: Solution,
    adjoint: Array | None,
    on_failure: OnFailure = "ignore",
) -> tuple[float, float]:
    """Return f^U(x, y) − λ' f_Y and its second term, zero without an adjoint."""
    found = upper.value(copied(solution.x), copied(solution.y))
    value, correction = as_number("upper.value", found), 0.0
    if adjoint is not None:
        assert solution.residual is not None
        correction = -dot(adjoint, solution.residual)
        value += correction
    if not math.isfinite(value):
        detail = f"upper.value returned {value}."
        raise_or_warn(Status.NOT_FINITE, solution, _WHAT, detail, on_failure)
    return value, correction


def value_and_gradient(
    upper: UpperObjective,
    solution: Solution,
    adjoint: Adjoint,
    direct: Array | None,
    on_failure: OnFailure,
) -> tuple[float, float, Array]:
    """Return the corrected value, its correction, and ∂f^U/∂x − f_XYᵀ λ like x."""
    gradient = adjoint.x if direct is None else adjoint.x + direct
    if not is_finite(gradient):
        detail = "∂f^U/∂x or f_XYᵀ λ is not finite."
        raise_or_warn(Status.NOT_FINITE, adjoint, _WHAT, detail, on_failure)
    gradient = namespace(gradient).asarray(gradient, dtype=solution.x.dtype)
    return *corrected_value(upper, solution, adjoint.adjoint, on_failure), gradient


def remainder(
    upper: UpperObjective, solution: Solution, adjoint: Adjoint, adjoint_error: float
) -> float:
    """Guess the error of second order that a corrected value keeps; no products.

    With the errors e of y and δ of λ it is δ' f_YY e − ½ e' f^U_YY e.  The first term is at
    most the product of their lengths in the metric of f_YY.  The second is taken for that of
    a step as long as e along λ, to which f^U is most sensitive: one value of f^U beside it.

    Zero where the solver does not tell ‖e‖, as with constraints; infinite where f^U is not
    finite beside y.
    """
    error, z, left = solution.error, adjoint.adjoint, adjoint.krylov.residual
    if not error or z.shape != solution.y.shape or left.shape != z.shape:
        return 0.0
    v = gradient_y(upper, solution)
    size = math.sqrt(max(dot(z, v - left), 0.0))
    if not 0.0 < size < math.inf:
        return 0.0
    x, y, step = solution.x, solution.y, error / size
    here = as_number("upper.value", upper.value(copied(x), copied(y)))
    there = as_number("upper.value", upper.value(copied(x), y + step * z))
    bent = abs(there - here - step * dot(v, z))
    known = 0.0 if math.isnan(adjoint_error) else adjoint_error
    return known * size * error + bent if math.isfinite(bent) else math.inf
