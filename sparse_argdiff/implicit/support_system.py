"""The conditions linearised with a penalty that has kinks: on its support alone.

On the support f + Ω is smooth, and K z = B u is that of ``kkt.py`` with the curvature of
Ω and its derivative by x beside those of f; off it the solution stays at zero.
"""

from __future__ import annotations

from typing import Any

from ..arrays import arange, namespace
from ..operators.block_matrices import take_columns, take_rows, vstack, zero
from ..operators.linear_operator import as_operator
from ..problem.problem import Problem, Solution
from ..problem.support import on_support
from .kkt import KKTSystem


def linearize_on_support(problem: Problem, solution: Solution) -> KKTSystem:
    """Linearise the conditions of f + Ω on the coefficients that no kink or bound holds."""
    x, y, active = solution.x, solution.y, solution.active
    assert active is not None
    n = y.shape[0]
    xp, rows, C = namespace(y), problem.equalities, None
    (free,) = xp.nonzero(~active.fixed)
    moved = problem.penalty.cross(x, y)
    cross = as_operator("penalty.cross's result", moved, square=False)
    B: list[Any] = [take_rows(problem.cross(x, y) + cross, free)]
    index, size = free, n
    if rows is not None:
        C = take_columns(rows.jac(x, y), free)
        p, jac_x = C.shape[0], rows.jac_x(x, y)
        B.append(zero((p, x.shape[0]), y) if jac_x is None else jac_x)
        index, size = xp.concat([free, n + arange(p, y)]), n + p
    return KKTSystem(
        H=on_support(problem, x, y, free),
        C=C,
        B=vstack(B),
        n=n,
        size=size,
        index=None if index.shape[0] == size else index,
    )
