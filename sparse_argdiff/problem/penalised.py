"""f + Ω for a smooth penalty Ω: values, gradients and operators, explicit where both are."""

from __future__ import annotations

from typing import Any

from scipy import sparse

from ..arrays import is_array, namespace
from ..operators.block_matrices import is_explicit
from ..operators.linear_operator import as_operator


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
