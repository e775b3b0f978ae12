"""The solutions of one problem for many x, as arrays with a row for each.

y_i = argmin_y f(x_i, y),    i = 1 … k
"""

from __future__ import annotations

import dataclasses
from collections import Counter

from ..arrays import Array, namespace
from ..status import Status
from .problem import ActiveSet, Solution


@dataclasses.dataclass(frozen=True, eq=False)
class BatchSolution:
    """The outcome of :func:`sparse_argdiff.solve_many`; member i is row i of every array.

    Attributes
    ----------
    y : array (k, n)
        Minimisers; NaN where a member failed.
    x : array (k, m)
        Parameters.
    value : array (k,)
        f(x_i, y_i).
    multipliers : array (k, p + q) or None
        Of the equality rows, then of the inequality rows.
    bound_multipliers : array (k, n) or None
        f_Y + C' multipliers, what bounds must carry: > 0 at lower, < 0 at upper bounds.
    active : ActiveSet or None
        Masks with a row for each member.
    status : tuple of Status, k long
        How each member ended.
    converged : bool array (k,)
    error : array (k,)
        Of quadratic programs that were solved together, the largest residual of the optimality
        conditions relative to the terms that cancel in it; else the relative error of y.
    niter : int array (k,)
    residual : array (k, n + p + q)
        Of the optimality conditions, by which a member is known to be as it was left.
    method : tuple of str, k long
        What solved each member.
    warnings : tuple of str
        Caveats, with the members that they are about.
    """

    y: Array
    x: Array
    value: Array
    multipliers: Array | None
    bound_multipliers: Array | None
    active: ActiveSet | None
    status: tuple[Status, ...]
    converged: Array
    error: Array
    niter: Array
    residual: Array
    method: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.status)

    def __getitem__(self, i: int) -> Solution:
        """Return member i as a :class:`Solution`."""
        i = range(len(self))[i]
        xp = namespace(self.y)

        def row(v: Array) -> Array:
            return xp.asarray(v[i, ...], copy=True)

        active = self.active
        if active is not None:
            masks = (active.strong, active.weak, active.fixed, active.weak_fixed)
            active = ActiveSet(*map(row, masks))
        return Solution(
            y=row(self.y),
            x=row(self.x),
            value=float(self.value[i]),
            multipliers=None if self.multipliers is None else row(self.multipliers),
            bound_multipliers=None
            if self.bound_multipliers is None
            else row(self.bound_multipliers),
            active=active,
            method=self.method[i] if self.method else "",
            status=self.status[i],
            relative_error=float(self.error[i]),
            residual=row(self.residual),
            niter=int(self.niter[i]),
        )

    def __repr__(self) -> str:
        counts = Counter(status.name for status in self.status)
        ends = ", ".join(f"{count} {name}" for name, count in counts.most_common())
        k, n = self.y.shape
        return (
            f"BatchSolution(y ({k}, {n}), x ({k}, {self.x.shape[1]}): {ends or 'none'})"
        )


def named(index: list[int]) -> str:
    """Return members as words: the first few and how many more."""
    shown = ", ".join(map(str, index[:8]))
    more = f" and {len(index) - 8} more" if len(index) > 8 else ""
    return f"member{'s' if len(index) > 1 else ''} {shown}{more}"
