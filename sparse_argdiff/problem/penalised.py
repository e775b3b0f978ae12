"""A penalty as a part of a problem: what it goes with, and f + Ω where Ω is smooth."""

from __future__ import annotations

from typing import Any

from scipy import sparse

from ..arrays import check_methods, is_array, namespace
from ..operators.block_matrices import is_explicit
from ..operators.linear_operator import as_operator

_PENALTY = ("value", "prox", "support", "grad", "hess", "cross", "activity")


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


def with_penalty(name: str, found: Any, of_penalty: Any, maximize: bool) -> Any:
    """Return f + Ω, or f − Ω for a maximum; explicit where f and the penalty are."""
    if name in {"value", "grad"}:
        return found - of_penalty if maximize else found + of_penalty
    added = as_operator(f"penalty.{name}'s result", of_penalty, square=False)
    added = -added if maximize else added
    if is_explicit(found) and added.is_diagonal:
        diagonal = added.diagonal()
        if is_array(found):
            xp = namespace(found)
            return found + diagonal[:, None] * xp.eye(found.shape[0], dtype=found.dtype)
        return found + sparse.diags_array(diagonal)
    return as_operator(f"objective.{name}'s result", found, square=False) + added
