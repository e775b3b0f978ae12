"""Bounds on y, lower(x) <= y <= upper(x), constants or functions of x with derivatives.

    y_j = lower_j(x)   ⇒   ∂y_j/∂x = ∂lower_j/∂x

Infinite bounds stand for none.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import (
    Array,
    as_number,
    asarray,
    copied,
    epsilon,
    full,
    missing_product,
    namespace,
    norm,
    returned_vector,
)
from ..operators.block_matrices import diagonal_operator
from ..operators.linear_operator import LinearOperator
from .objective import vector_of

_NONE = {"lower": -math.inf, "upper": math.inf}


def bound_arrays(lower: Any, upper: Any, x: Array, y: Array) -> tuple[Array, Array]:
    """Return the bounds on y at x as arrays (n,), infinite where there are none.

    Those of a function may be NaN, or cross; constants were checked.
    """
    if lower is None and upper is None:
        return full(y.shape, -math.inf, y), full(y.shape, math.inf, y)
    found = []
    for name, given in (("lower", lower), ("upper", upper)):
        if callable(given):
            bound = _of_function(name, given(copied(x)), y)
        else:
            bound = asarray(_NONE[name] if given is None else given, y)
        if bound.ndim != 0 and bound.shape != y.shape:
            raise ValueError(
                f"{name} must be a number or have shape {tuple(y.shape)} like y, "
                f"found shape {tuple(bound.shape)}"
            )
        xp, wrong = namespace(y), -_NONE[name]  # an infinity on the wrong side
        if bool(xp.any(bound == wrong)):
            raise ValueError(f"{name} must not be {wrong}: no y would be allowed")
        found.append(bound + xp.zeros_like(y))
    return found[0], found[1]


def _of_function(name: str, value: Any, y: Array) -> Array:
    if getattr(value, "ndim", 0) == 0:
        return asarray(as_number(name, value), y)
    value = returned_vector(name, value, y.shape[0])
    namespace(value, y)
    return asarray(value, y)


def crossing(lower: Array, upper: Array) -> str:
    """Say which variable no value is left for; empty where there is none."""
    xp = namespace(lower)
    crossed = ~(lower <= upper)
    if not bool(xp.any(crossed)):
        return ""
    count = int(xp.count_nonzero(crossed))
    (index,) = xp.nonzero(crossed)
    j = int(index[0])
    more = f", and {count - 1} more" if count > 1 else ""
    return (
        f"lower(x) = {float(lower[j]):.3g} is not <= upper(x) = {float(upper[j]):.3g} "
        f"for variable {j}{more}"
    )


def bound_derivatives(
    problem: Any, x: Array, n: int
) -> tuple[LinearOperator | None, LinearOperator | None]:
    """Return the derivatives (n, m) of both bounds by x, None for constants."""
    lower, upper = (_derivative(problem, name, x, n) for name in ("lower", "upper"))
    return lower, upper


def _derivative(problem: Any, bound: str, x: Array, n: int) -> LinearOperator | None:
    if not callable(getattr(problem, bound)):
        return None
    products = []
    for name, size in ((f"{bound}_jvp", n), (f"{bound}_vjp", x.shape[0])):
        product = getattr(problem, name)
        if product is None:
            products.append(_missing(name, bound))
        else:
            products.append(vector_of(name, size, product, copied(x)))
    return LinearOperator((n, x.shape[0]), *products)


def _missing(product: str, name: str) -> Callable[[Array], Array]:
    return missing_product(
        f"{name} depends on x and holds variables: this product needs {product}, which "
        f"Problem was built without; pass {product}=..."
    )


def selected(
    low: LinearOperator | None,
    high: LinearOperator | None,
    at_low: Array,
    at_high: Array,
    like: Array,
) -> LinearOperator | None:
    """Return the rows of two derivatives (n, m) by masks, zero elsewhere.

    ``low`` and ``high`` are those of the lower and the upper bound; None is zero.
    """
    total: LinearOperator | None = None
    for derivative, mask in ((low, at_low), (high, at_high)):
        if derivative is None or not bool(namespace(mask).any(mask)):
            continue
        kept = namespace(like).astype(mask, like.dtype)
        term = diagonal_operator(kept) @ derivative
        total = term if total is None else total + term
    return total


def move_apart(
    low: LinearOperator | None,
    high: LinearOperator | None,
    ties: Array,
    x: Array,
    y: Array,
) -> bool:
    """Tell whether x moves bounds apart that are equal now, along a random direction.

    By the product that both have, forward or adjoint; False where they have none.
    """
    rng, xp = np.random.default_rng(0), namespace(y)
    u = asarray(rng.standard_normal(x.shape[0]), x)
    w = xp.where(ties, asarray(rng.standard_normal(y.shape[0]), y), 0.0 * y)
    pairs: tuple[Callable[[LinearOperator], Array], ...] = (
        lambda A: xp.where(ties, A @ u, 0.0 * y),
        lambda A: A.T @ w,
    )
    for product in pairs:
        with contextlib.suppress(NotImplementedError):
            found = [product(A) for A in (low, high) if A is not None]
            if len(found) < 2:
                return any(norm(part) > 0.0 for part in found)
            rounding = 64.0 * epsilon(y) * (norm(found[0]) + norm(found[1]))
            return norm(found[0] - found[1]) > rounding
    return False
