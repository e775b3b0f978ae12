"""Bounds on derivatives of the lower and upper objective, from which errors are bounded."""

from __future__ import annotations

import dataclasses
import math

from ..arrays import Array, described


@dataclasses.dataclass(frozen=True, eq=False)
class Constants:
    """Bounds that hold at x for all y between the computed one and the solution.

    A proof from wrong bounds is wrong: estimates must not be given here; infinity
    stands for an unknown bound.  Vectors (y, λ) are measured by ‖v‖² = Σ W_j v_j², forces by
    Σ v_j² / W_j.

    Attributes
    ----------
    convexity : float
        μ > 0 with v'f_YY v ≥ μ ‖v‖² for all v.
    hess_lipschitz : float
        L_YY: the force (f_YY(y) − f_YY(y')) v is at most L_YY ‖y − y'‖ ‖v‖.
    cross : float
        ‖f_XY(x, y)' v‖₂ ≤ cross ‖v‖ at the computed y.
    cross_lipschitz : float
        L_XY: ‖(f_XY(y) − f_XY(y'))' v‖₂ ≤ L_XY ‖y − y'‖ ‖v‖.
    upper_lipschitz : float
        L_U: the force ∂f^U/∂y(y) − ∂f^U/∂y(y') is at most L_U ‖y − y'‖.
    direct_lipschitz : float
        L_X: the same of ∂f^U/∂x, in the 2-norm; 0 where there is none.
    metric : array (n,) or None
        W > 0; None for 1, the Euclidean norm.
    """

    convexity: float
    hess_lipschitz: float
    cross: float
    cross_lipschitz: float
    upper_lipschitz: float = math.inf
    direct_lipschitz: float = math.inf
    metric: Array | None = None

    __repr__ = described
