"""The arguments of a ``Problem``: what its objective brings, and what they allow."""

from __future__ import annotations

import math
import numbers
from typing import Any

from ..arrays import as_data, check_methods, is_array, namespace
from .constraints import Equality, Inequality, LinearEquality, stack

_PENALTY = ("value", "prox", "support", "grad", "hess", "cross", "activity")
_NONE = {"lower": -math.inf, "upper": math.inf}


def completed(problem: Any) -> dict[str, Any]:
    """Return the fields that the objective gives, and the rows of the constraints.

    An objective that means nothing without them has ``constraints``, taken where the
    problem has none of its own, or a ``penalty``.
    """
    objective = problem.objective
    check_methods("objective", objective, "grad", "hess", "cross")
    names = ("equality", "inequality", "lower", "upper")
    found = {name: getattr(problem, name) for name in (*names, "penalty")}
    own = getattr(objective, "constraints", None)
    if isinstance(own, dict) and all(found[name] is None for name in names):
        found |= own
    if found["penalty"] is None:
        penalty = getattr(objective, "penalty", None)
        found["penalty"] = penalty if callable(getattr(penalty, "prox", None)) else None
    rows = LinearEquality, Equality
    found["equalities"] = stack("equality", found["equality"], rows)
    found["inequalities"] = stack("inequality", found["inequality"], (Inequality,))
    return found


def check_bounds(problem: Any) -> None:
    """Refuse bounds that no y has, and derivatives of a bound that is no function of x."""
    n = getattr(problem.objective, "n", None)
    _check_order(problem.lower, problem.upper, n)
    for name in ("lower", "upper"):
        jvp, vjp = (getattr(problem, f"{name}_{kind}") for kind in ("jvp", "vjp"))
        _check_bound_products(getattr(problem, name), name, jvp, vjp)


def _check_order(lower: Any, upper: Any, n: int | None) -> None:
    """Refuse bounds on y of n entries, where n is known, that no y has."""
    pair = []
    for name, given in (("lower", lower), ("upper", upper)):
        bound = _NONE[name] if given is None or callable(given) else given
        if not isinstance(bound, numbers.Real):
            bound = as_data(name, given, finite=False)
            if bound.ndim not in {0, 1} or (bound.ndim and n not in {None, bound.size}):
                size = "(n,)" if n is None else f"({n},)"
                raise ValueError(
                    f"{name} must be a number or have shape {size} like y, found shape "
                    f"{tuple(bound.shape)}"
                )
        pair.append(bound)
    arrays = [bound for bound in pair if is_array(bound)]
    ordered = pair[0] <= pair[1]
    if not (bool(namespace(*arrays).all(ordered)) if arrays else ordered):
        raise ValueError("lower must be <= upper everywhere, without NaN")


def _check_bound_products(bound: Any, name: str, jvp: Any, vjp: Any) -> None:
    """Refuse products with the derivative of a bound that is no function of x."""
    for product, function in ((f"{name}_jvp", jvp), (f"{name}_vjp", vjp)):
        if function is not None and not (callable(bound) and callable(function)):
            raise TypeError(
                f"{product} must be a function, and {name} a function of x too"
            )


def check_penalty(problem: Any) -> None:
    """Refuse a penalty without the methods, or one that its problem does not allow."""
    penalty = problem.penalty
    check_methods("penalty", penalty, *_PENALTY)
    if not problem.nonsmooth:
        return
    rows = problem.equalities
    if problem.inequalities is not None or not (rows is None or rows.affine):
        raise ValueError(
            "a penalty with kinks goes with bounds and LinearEquality alone, not with "
            "inequality or Equality: give its smooth version (smoothing=), or split "
            "y = p - q with p, q >= 0"
        )
    if problem.bounded and not getattr(penalty, "separable", False):
        raise ValueError(
            "bounds go with a penalty whose coordinates do not meet (L1, ElasticNet), "
            f"found {type(penalty).__name__}"
        )
    if problem.bounds_move:
        raise ValueError("with a penalty that has kinks bounds must not depend on x")


def named_data(problem: Any, method: str) -> Any:
    """Return the data of a ``QuadraticProgram``, whose x consists of arrays with names."""
    data = getattr(problem.objective, "data", None)
    if not callable(getattr(data, method, None)):
        raise TypeError(
            f"{method} is there for a QuadraticProgram, whose x consists of data with "
            f"names; found a problem of {type(problem.objective).__name__}"
        )
    return data
