"""One search: log-penalties found, how the folds judge them, and what it took."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..bilevel.minimize import minimize
from .criterion import Criterion, Judged, gathered
from .task import Task

LOOSE = 1e-2  # tolerance of solves that only compare starts
FINEST, ADJOINT = 1e-4, 1e-3  # tolerances of the last point, where tol is not small
SHARE = 0.1  # of tol, of the former where it is
ROWS = 200  # held out at least, where some of the folds compare starts
EACH = 1e-7, 1e-5  # of targets of different sizes
RESOLVED = 1e-5  # of F: a gradient below is as good as zero
SETTLED = 0.03  # of tol and F: the search ends when two steps fall by less,
GAINED = 0.02  # or by less of what F has fallen below that of the best single penalty,
FEW = 10  # with so many parameters or less
# So many parameters are searched by Newton's method: its ∇²F at x0 is of use where a
# quadratic holds.  Eight groups of examples/gene_groups.py took 20,417 products for 3,118.
NEWTON = 2
# What two steps lowered F by, over what the next ones will; less ends with gradients of
# more than 1e-3 F at tol=1e-6.
LEFT = 50.0


@dataclasses.dataclass(frozen=True)
class Search:
    """Log-penalties found, how the folds judge them, and what the search took."""

    u: np.ndarray  # (m, t)
    judged: Judged
    y: np.ndarray  # of the folds, (K, n)
    seconds: float
    products: int
    n_iter: int = 0
    converged: bool = True
    message: str = ""
    history: tuple[Any, ...] = ()
    gradient_norm: float = math.nan
    gradient_error: float = math.nan
    descent: str = "not shown"
    at_bound: np.ndarray | None = None  # -1, 0, 1 for each entry of u
    crossed: np.ndarray | None = None  # losses by parameters of the other folds
    notes: tuple[str, ...] = ()  # caveats at the last point


def descend(
    criterion: Criterion,
    u: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    *,
    tol: float,
    y0: Any = None,
    upper: Any = None,
    maxiter: int = 100,
    beside: Judged | None = None,
    callback: Callable[..., Any] | None = None,
    progress: bool = False,
) -> Search:
    """Minimise F from u within its box, by the default driver of ``minimize``.

    ``beside``: what the folds lose with the best single penalty.  Steps that change the
    difference by a small part of it decide nothing.
    """
    start = time.perf_counter()
    upper = criterion.upper if upper is None else upper
    ends = flat(low), flat(high)
    accuracy, adjoint = min(FINEST, SHARE * tol), min(ADJOINT, tol)
    if criterion.task.several > 1:
        accuracy, adjoint = min(accuracy, EACH[0]), min(adjoint, EACH[1])
    settled = _Settled(callback, criterion, SETTLED * tol)
    if beside is not None and len(u) <= FEW and criterion.task.several == 1:
        settled.beside = beside
    result = minimize(
        criterion.problem,
        upper,
        np.clip(flat(u), *ends),
        y0=criterion.y0 if y0 is None else y0,
        method="newton" if _few(criterion, upper, len(u)) else None,
        bounds=np.column_stack(ends),
        tol=tol,
        maxiter=maxiter,
        callback=settled,
        progress=progress,
        lower_tol=accuracy,
        adjoint_tol=adjoint,
        M=criterion.M,
    )
    x, y = np.asarray(result.x), np.asarray(result.y)
    judged, said = gathered(criterion.judge, x, y)
    certificate = result.certificate
    norm = float(result.history[-1].gradient_norm)
    # The end of F's own resolution is no failure.
    done = settled.ended or result.success or norm <= RESOLVED * abs(float(result.fun))
    return Search(
        unflat(x, u),
        judged,
        y,
        time.perf_counter() - start,
        result.n_hvp,
        result.nit,
        bool(done),
        result.message,
        tuple(result.history),
        norm,
        math.nan if certificate is None else float(certificate.gradient_error),
        "not shown" if certificate is None else certificate.descent,
        unflat(_sides(x, ends), u),
        notes=tuple(said),
    )


def _few(criterion: Criterion, upper: Any, m: int) -> bool:
    """Tell whether F has a level and a slope at most, and exact second derivatives."""
    task = criterion.task
    exact = callable(getattr(upper, "hess_product", None))
    return m <= NEWTON and task.several == 1 and task.smooth and exact


def _sides(x: np.ndarray, ends: Any) -> np.ndarray:
    """Return −1 at the weak end of the range, 1 at the strong one, 0 between."""
    span = 1e-6 * (ends[1] - ends[0])
    return np.where(x <= ends[0] + span, -1, np.where(x >= ends[1] - span, 1, 0))


class _Settled:
    """A callback that ends a search whose last two steps changed F by next to nothing.

    By Newton's method: where its model expects further ones to change it by less.
    """

    def __init__(
        self, callback: Callable[..., Any] | None, criterion: Criterion, share: float
    ) -> None:
        self.callback, self.criterion, self.share = callback, criterion, share
        self.beside: Judged | None = None
        self.ended, self.values = False, list[float]()

    def __call__(self, state: Any) -> bool:
        stop = bool(self.callback(state)) if self.callback is not None else False
        self.values.append(float(state.fun))
        last = self.values[-3:]
        fell = last[0] - last[2] if len(last) == 3 else math.inf
        # Newton's model knows what two such steps only promise: about a fiftieth is left.
        left = fell if math.isinf(state.fall) else LEFT * state.fall
        self.ended = self.ended or left <= self._least(state)
        return stop or self.ended

    def _least(self, state: Any) -> float:
        """Return the decrease below which nothing is decided."""
        size = abs(float(state.fun))
        if self.beside is None:
            return self.share * size
        mean = self.criterion.judge(state.x, state.y).mean
        # Next to interpolation F falls by decades, after all of the gain.
        gain = min(float(self.beside.mean[0] - mean[0]), size)
        return max(self.share * size, GAINED * gain)


def some_folds(task: Task) -> Task:
    """Return the task with the first folds that hold out enough rows to compare starts."""
    if task.pairs is None:
        return task
    rows = np.cumsum([test.size for _, test in task.pairs])
    count = int(np.searchsorted(rows, ROWS)) + 1
    if count >= len(task.pairs):
        return task
    return dataclasses.replace(task, pairs=task.pairs[:count])


def spread(task: Task, y: np.ndarray, folds: int) -> np.ndarray:
    """Return a start of all folds from the solutions y of the first few."""
    if task.pairs is None or folds == len(task.pairs):
        return y
    first = y.reshape(folds, -1)
    rest = len(task.pairs) - folds
    return np.concatenate([y, np.tile(first.mean(axis=0), rest)])


def flat(u: np.ndarray) -> np.ndarray:
    """Return (m, t) as the vector that ``Glm`` takes: one target after the other."""
    return np.ascontiguousarray(u.T).ravel()


def unflat(x: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Return the vector as (m, t)."""
    return x.reshape(like.shape[1], like.shape[0]).T
