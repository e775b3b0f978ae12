"""Multipliers of a point from elsewhere, with the signs of all that holds it.

    min ½ ‖d‖² + g'd   s.t.   E d = 0,   G d <= 0,   d_j >= 0 at a lower, <= 0 at an upper bound

Its multipliers are the fit of − g by the rows at zero and the bounds, each with its sign,
and d = 0 where the fit is exact.  The interior-point method finds those that are positive
together: strictly complementary ones, where there are any.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from ..arrays import HostArray
from ..krylov.convex_program import ConvexProgram, errors
from ..krylov.convex_quadratic import ConvexQuadraticPath, follow

_FIT = 1e-10  # of the largest force: d that is left
_STEPS = 60


def signed_multipliers(
    rows: Any, signed: HostArray, grad: HostArray, low: HostArray, high: HostArray
) -> HostArray:
    """Return the multipliers of the rows.

    Parameters
    ----------
    rows : array or sparse matrix (p, n)
        Those at zero, in coordinates in which forces are alike.
    signed : bool array (p,)
        Inequalities, whose multipliers are >= 0.
    grad : array (n,)
    low, high : bool arrays (n,)
        Variables at a lower, at an upper bound.

    Returns
    -------
    array (p,)
    """
    n = grad.shape[0]
    if sparse.issparse(rows):
        rows = sparse.csr_array(rows, dtype=float)
        identity: Any = sparse.eye_array(n, format="csr")
    else:
        rows, identity = np.asarray(rows, dtype=float), np.eye(n)
    equal, unequal = np.flatnonzero(~signed), np.flatnonzero(signed)
    program = ConvexProgram(
        P=identity,
        q=np.asarray(grad, dtype=float),
        A=rows[equal],
        b=np.zeros(equal.size),
        G=rows[unequal],
        h=np.zeros(unequal.size),
        lower=np.where(low, 0.0, -np.inf),
        upper=np.where(high, 0.0, np.inf),
    )
    path = ConvexQuadraticPath(program)
    size = float(np.max(np.abs(grad), initial=0.0))

    def close_enough(_: int, d: HostArray) -> bool:
        now = path.now
        if now is None or float(np.max(np.abs(d), initial=0.0)) > _FIT * size:
            return False
        at = path.scaling.scaled(path.as_point(now))
        return errors(path.program, at).dual <= _FIT

    ended = follow(program, 0.1 * _FIT, _STEPS, close_enough, path)
    point = ended.point
    if ended.stopped and path.now is not None:
        point = path.as_point(path.now)
    found = np.zeros(signed.shape[0])
    found[equal], found[unequal] = point.nu, point.z
    return found
