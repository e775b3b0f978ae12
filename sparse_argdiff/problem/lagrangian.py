"""The Hessian of the Lagrangian, as explicit as its parts are.

H = f_YY + Σ ν_i ∇²h_i + Σ λ_i ∇²g_i        for the function that is minimised
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from ..arrays import Array
from ..operators.block_matrices import is_explicit
from ..operators.linear_operator import LinearOperator, aslinearoperator
from .problem import Problem


def lagrangian_hess(
    problem: Problem, x: Array, y: Array, multipliers: Array, p: int
) -> Any:
    """Return H at y, a sparse matrix on the host where all parts are explicit.

    Parameters
    ----------
    multipliers : array (p + q,)
        Of the p equality rows, then of the inequality rows.
    """
    given = problem.objective.hess(x, y)
    terms: list[Any] = []
    for stack, part in (
        (problem.equalities, multipliers[:p]),
        (problem.inequalities, multipliers[p:]),
    ):
        if stack is not None:
            terms += stack.curvatures(x, y, part)
    if explicit(y, given, *terms):
        first = sparse.csr_array(given)
        total = sum(
            (sparse.csr_array(term) for term in terms),
            start=sparse.csr_array(first.shape),
        )
        return total - first if problem.maximize else total + first
    H: LinearOperator = aslinearoperator(given)
    H = -H if problem.maximize else H
    for term in terms:
        H = H + aslinearoperator(term)
    return H


def explicit(y: Array, *matrices: Any) -> bool:
    """Tell whether all matrices have entries on the host, where they can be factorised."""
    return isinstance(y, np.ndarray) and all(is_explicit(matrix) for matrix in matrices)
