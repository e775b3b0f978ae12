"""Log-penalties learned by the folds: the best single one first, then what Z x adds.

    F(x) = Σ_k Σ_{i in fold k} w_i ℓ(z_i^(k), t_i) / Σ w_i,    z^(k) of the model without fold k

Single penalties are tried from strong to weak, a factor √10 apart, each solve starting from
the last, until the loss has risen three times; the best one is refined by its derivative.
The search over x starts there, and stays in the range in which penalties do anything.
"""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from ..bilevel.minimize import minimize
from ..bilevel.prior import Sum
from ..bilevel.prior import prior as normal_prior
from ..hypergradient.hypergradient import Hypergradient
from ..linear_model import Glm
from ..linear_model.losses import Loss
from ..problem.problem import Problem
from ..solvers.solve import solve
from ..status import ConvergenceError
from .fold_factors import FoldFactors
from .folds import Pair
from .penalty_table import PenaltyTable

STEP = 0.5 * math.log(10.0)  # between single penalties tried
RISES = 3  # in a row, after which weaker penalties are not tried
REACH = 4.0  # of a log-penalty, from where the search starts
SETTLED = 1e-5  # of F: the search ends when two steps fall by less
FEWEST = (
    1e-3  # least weight of a norm with kinks over that of no support, as ``LassoCV``
)
WEAK, STRONG = 1e-6, 1e3  # of a typical and of the total curvature: ends of the range
GRID_TOL, LOWER_TOL, FINEST = 1e-4, 1e-7, 1e-9


@dataclasses.dataclass(frozen=True)
class Task:
    """Data, loss and folds of one fit.

    Attributes
    ----------
    pairs : tuple or None
        (train, test) indices; None means leave-one-out.
    several, outputs : int
        Targets with penalties of their own; classes of a multinomial model.
    start : array (n,)
        y of the model without features.
    """

    features: Any
    targets: np.ndarray  # (N,), (N, t), or (N, K) class indicators
    weights: np.ndarray
    loss: Loss
    intercept: bool
    moments: np.ndarray
    pairs: tuple[Pair, ...] | None
    several: int = 1
    outputs: int = 1
    threads: int = 1
    start: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    norm: str = "l2"
    l1_ratio: float = 0.5

    @property
    def smooth(self) -> bool:
        """Whether the penalty is a ridge, without kinks."""
        return self.norm == "l2"

    @property
    def sizes(self) -> np.ndarray:
        """Return what the weight of each column is in proportion to, where units change.

        A ridge weighs squares, v_j; the others lengths, v_j^½.
        """
        return self.moments if self.smooth else np.sqrt(self.moments)

    @property
    def judged(self) -> np.ndarray:
        """Rows that are held out, one after another by folds."""
        if self.pairs is None:
            return np.arange(self.weights.size)
        return np.concatenate([test for _, test in self.pairs])

    def glm(self, table: Any, offset: np.ndarray) -> Glm:
        """Return the model of all rows with log-penalties o + Z x."""
        return Glm(
            self.features,
            self.targets,
            loss=self.loss,
            penalty=table,
            log_offset=offset,
            intercept=self.intercept,
            sample_weight=self.weights,
            threads=self.threads,
            norm=self.norm,
            l1_ratio=self.l1_ratio if self.norm == "elastic-net" else None,
        )

    def forces(self) -> np.ndarray:
        """Return the largest |∂ loss / ∂c_j| of each column at the model without features."""
        z = np.tile(parts(self, self.start)[1], (self.weights.size, 1))
        z = z if self.targets.ndim == 2 else z[:, 0]
        slope: Any = self.loss.slope(z, self.targets)
        share = self.weights / self.weights.sum()
        pull = self.features.T @ (share * slope.T).T
        return np.asarray(np.abs(pull.reshape(self.moments.size, -1)).max(axis=1))

    def curvature(self) -> float:
        """Return a typical ∂²ℓ/∂z², at the model without features."""
        name = type(self.loss).__name__
        if name == "Poisson":
            return float(np.average(self.targets, weights=self.weights)) or 1.0
        return {"Logistic": 0.25, "Multinomial": 0.25}.get(name, 1.0)

    def floor(self) -> float:
        """Return the loss below which the held-out rows are predicted without error.

        Relative to the model without features: 1e-3 for classes, 1e-12 for numbers.
        """
        name = type(self.loss).__name__
        if name == "Poisson":
            return -math.inf  # its least value is not zero
        z = np.tile(parts(self, self.start)[1], (self.weights.size, 1))
        z = z if self.targets.ndim == 2 else z[:, 0]
        losses: Any = self.loss.value(z, self.targets)
        share = self.weights / self.weights.sum()
        null = float(np.sum(share @ np.asarray(losses))) / self.several
        return null * (1e-3 if name in {"Logistic", "Multinomial"} else 1e-12)

    def emptying(self, sizes: np.ndarray) -> float:
        """Return log of twice the a at which weights a sizes leave the support empty."""
        known = sizes > 0.0
        most = float((self.forces()[known] / sizes[known]).max(initial=0.0))
        ratio = self.l1_ratio if self.norm == "elastic-net" else 1.0
        return math.log(2.0 * most / ratio) if most > 0.0 else 0.0

    def levels(self) -> tuple[float, float]:
        """Return the range of a level of log-penalties o + Z x, o of any units."""
        sizes = self.sizes[self.sizes > 0.0]
        if self.smooth or sizes.size == 0:
            return self.range()
        high, logs = self.emptying(self.sizes), np.log(sizes)
        return high + math.log(FEWEST) + float(logs.min()), high + float(logs.max())

    def range(self) -> tuple[float, float]:
        """Return the log-penalties below and above which nothing changes any more."""
        moments = self.moments[self.moments > 0.0]
        if moments.size == 0:
            return -1.0, 1.0
        if not self.smooth:
            high = self.emptying(np.ones_like(self.moments))
            return high + math.log(FEWEST), high
        bend = math.log(self.curvature())
        low = bend + math.log(WEAK) + float(np.log(moments).mean())
        return low, bend + math.log(STRONG) + float(np.log(moments.sum()))


@dataclasses.dataclass(frozen=True)
class Judged:
    """Losses of the rows that a model held out, (rows, t), with weights and fold."""

    losses: np.ndarray
    weights: np.ndarray
    fold: np.ndarray
    predictors: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Pooled loss of each target, Σ w ℓ / Σ w."""
        return np.asarray(self.weights @ self.losses / self.weights.sum())

    def per_fold(self) -> np.ndarray:
        """Return the weighted mean loss of each fold and target, (K, t)."""
        count = int(self.fold.max()) + 1
        total = np.bincount(self.fold, self.weights, minlength=count)
        sums = [
            np.bincount(self.fold, self.weights * column, minlength=count)
            for column in self.losses.T
        ]
        return np.stack(sums, axis=1) / total[:, None]


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
    gradient: np.ndarray | None = None
    gradient_norm: float = math.nan
    gradient_error: float = math.nan
    descent: str = "not shown"
    at_bound: np.ndarray | None = None  # -1, 0, 1 for each entry of u
    crossed: np.ndarray | None = None  # losses by parameters of the other folds
    notes: tuple[str, ...] = ()  # caveats at the last point


class Criterion:
    """F of one table: the stacked folds, their solutions, and what the rows lose."""

    def __init__(self, task: Task, table: Any, offset: np.ndarray) -> None:
        self.task = task
        self.glm = task.glm(table, offset)
        self.upper: Any
        if task.pairs is None:
            self.problem, self.upper = self.glm.leave_one_out()
        else:
            self.problem, self.upper = self.glm.cross_validation(task.pairs)
        count = 1 if task.pairs is None else len(task.pairs)
        self.y0 = np.tile(task.start, count)
        models = count * task.several
        self.M = _preconditioner(task, models, self.y0.size // models)

    def function(self, tol: float, y0: Any = None, upper: Any = None) -> Hypergradient:
        """Return F with its gradient, solved to ``tol``."""
        start = self.y0 if y0 is None else y0
        upper = self.upper if upper is None else upper
        return Hypergradient(self.problem, upper, y0=start, tol=tol, M=self.M)

    def judge(self, x: Any, y: Any) -> Judged:
        """Return what the held-out rows lose at x and the solutions y of the folds."""
        task = self.task
        if task.pairs is None:
            z = np.asarray(self.upper.predictors(x, y))
            numbers = np.zeros(task.weights.size, dtype=int)
        else:
            folds = np.asarray(self.glm.split(y))
            parts_of = zip(task.pairs, folds, strict=True)
            z = np.concatenate(
                [
                    predictor(task, task.features[test], own)
                    for (_, test), own in parts_of
                ]
            )
            sizes = [test.size for _, test in task.pairs]
            numbers = np.repeat(np.arange(len(sizes)), sizes)
        rows = task.judged
        with np.errstate(over="ignore"):
            losses = np.asarray(task.loss.value(z, task.targets[rows]))
        losses = losses if losses.ndim == 2 else losses[:, None]
        return Judged(losses, task.weights[rows], numbers, z)


def predictor(task: Task, features: Any, y: np.ndarray) -> np.ndarray:
    """Return z = F c + b of other rows, (N,), or (N, K) for classes or targets."""
    columns = max(task.several, task.outputs)
    coefficients, intercept = parts(task, y)
    z = np.asarray(features @ coefficients) + intercept
    return z if columns > 1 else z[:, 0]


def parts(task: Task, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients (p, k) and intercepts (k,) of a solution y."""
    if task.several > 1:  # one target after the other
        each = y.reshape(task.several, -1).T
        p = task.moments.size
        return each[:p], each[p] if task.intercept else np.zeros(task.several)
    columns = task.outputs
    count = task.moments.size * columns
    intercept = y[count:] if task.intercept else np.zeros(columns)
    return y[:count].reshape(-1, columns), intercept


def search_single(task: Task, tol: float, *, certify: bool = False) -> Search:
    """Return the best single penalty by the folds."""
    start, table = time.perf_counter(), np.ones((task.moments.size, 1))
    criterion = Criterion(task, table, np.zeros(table.shape[0]))
    low, high = task.range()
    where, y, products = _grid(task, criterion, low, high)
    box_low, box_high = np.maximum(where - STEP, low), np.minimum(where + STEP, high)
    found = descend(
        criterion,
        where[None, :],
        box_low[None, :],
        box_high[None, :],
        tol=tol,
        y0=y,
        certify=certify,
    )
    # At the end of the range, not of the interval around the best of the grid.
    ends = np.where(found.u <= low + 1e-6, -1, np.where(found.u >= high - 1e-6, 1, 0))
    found = dataclasses.replace(found, at_bound=ends)
    seconds = time.perf_counter() - start
    return dataclasses.replace(
        found, seconds=seconds, products=products + found.products
    )


def _grid(
    task: Task, criterion: Criterion, low: float, high: float
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the best single log-penalty of each target, a solution near, and products."""
    F = criterion.function(GRID_TOL)
    where, least = np.full(task.several, high), np.full(task.several, np.inf)
    best, rises, floor = None, 0, task.floor()
    for level in np.arange(high, low, -STEP):
        try:
            x = np.full(task.several, level)
            y = np.asarray(F.solve(x).y)
        except ConvergenceError:
            if best is None:
                continue
            break  # weaker penalties are harder still
        loss = criterion.judge(x, y).mean
        better = loss < least
        where, least = np.where(better, level, where), np.minimum(loss, least)
        best = y if better.any() or best is None else best
        rises = 0 if better.any() else rises + 1
        if rises >= RISES or least.max() <= floor:
            break
    if best is None:
        best = np.asarray(
            F.solve(np.full(task.several, high)).y
        )  # raises, and says why
    return where, best, F.n_hvp


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
    callback: Callable[..., Any] | None = None,
    progress: bool = False,
    certify: bool = False,
) -> Search:
    """Minimise F from u within its box, by L-BFGS-B on exact solves.

    F is flat where a penalty is far too weak or too strong, and a long step into such a
    plain never returns.  The method therefore runs in boxes of ``REACH`` around its start,
    anew from where it has met a wall of such a box that is not one of ``low`` and ``high``.
    """
    start = time.perf_counter()
    upper = criterion.upper if upper is None else upper
    ends = flat(low), flat(high)
    x, y = np.clip(flat(u), *ends), criterion.y0 if y0 is None else y0
    history: list[Any] = []
    first = norm = math.inf
    products = steps = 0
    while True:
        settled = _Settled(callback)
        walls = np.maximum(x - REACH, ends[0]), np.minimum(x + REACH, ends[1])
        options: dict[str, Any] = {
            "tol": tol if not history else min(tol * first / norm, 0.5)
        }
        options |= {"maxiter": maxiter - steps, "callback": settled}
        result = _run(criterion, upper, x, y, walls, progress=progress, **options)
        x, y, steps = result.x, result.y, steps + result.nit
        if not history:
            first = result.history[0].gradient_norm
        history += _after(result.history, history)
        products += result.n_hvp
        norm = _projected(x, result.jac, ends)
        low_free = (x > walls[0]) | (x <= ends[0])
        inside = np.all(low_free & ((x < walls[1]) | (x >= ends[1])))
        if inside or norm <= tol * first or steps >= maxiter:
            break
    # The end of F's own resolution is no failure.
    done = bool(inside) and (settled.ended or result.success)
    done = done or norm <= max(tol * first, 1e-5 * abs(float(result.fun)))
    judged, said = gathered(criterion.judge, x, y)
    found = Search(
        unflat(x, u),
        judged,
        np.asarray(y),
        time.perf_counter() - start,
        products,
        steps,
        done,
        result.message,
        tuple(history),
        unflat(result.jac, u),
        norm,
        at_bound=unflat(_sides(x, ends), u),
        notes=tuple(said),
    )
    return _certified(criterion, upper, found) if certify else found


def _run(
    criterion: Criterion, upper: Any, x: Any, y: Any, walls: Any, **options: Any
) -> Any:
    """Run L-BFGS-B from x between walls, with the start y of the lower level."""
    return minimize(
        criterion.problem,
        upper,
        x,
        y0=y,
        method="lbfgs",
        bounds=np.column_stack(walls),
        lower_tol=LOWER_TOL,
        adjoint_tol=1e-5,
        M=criterion.M,
        **options,
    )


def _after(records: Sequence[Any], before: Sequence[Any]) -> list[Any]:
    """Return the records of a run, counted on from those of the runs before it."""
    if not before:
        return list(records)
    last = before[-1]
    return [
        dataclasses.replace(
            record,
            nit=last.nit + record.nit,
            n_hvp=last.n_hvp + record.n_hvp,
            n_grad=last.n_grad + record.n_grad,
            n_evaluations=last.n_evaluations + record.n_evaluations,
            seconds=last.seconds + record.seconds,
        )
        for record in records[1:]
    ]


def _projected(x: np.ndarray, gradient: Any, ends: Any) -> float:
    """Return ‖x − P(x − ∇F)‖."""
    return float(np.linalg.norm(x - np.clip(x - gradient, *ends)))


def _sides(x: np.ndarray, ends: Any) -> np.ndarray:
    """Return −1 at the weak end of the range, 1 at the strong one, 0 between."""
    span = 1e-6 * (ends[1] - ends[0])
    return np.where(x <= ends[0] + span, -1, np.where(x >= ends[1] - span, 1, 0))


def _certified(criterion: Criterion, upper: Any, found: Search) -> Search:
    """Return a search with what is known of the error of its last gradient."""
    F = criterion.function(FINEST, found.y, upper)
    try:
        there = F.evaluate(flat(found.u))
    except ConvergenceError as error:
        return dataclasses.replace(found, converged=False, message=str(error))
    assert there.certificate is not None
    found = dataclasses.replace(
        found,
        products=found.products + F.n_hvp,
        gradient_error=float(there.certificate.gradient_error),
        descent=there.certificate.descent,
    )
    last = float(found.history[-1].value)
    if abs(there.value - last) <= 1e-3 * abs(last):
        return found
    message = f"the loss of the folds is {there.value:.6g}, not {last:.6g}"
    return dataclasses.replace(found, converged=False, message=message)


class _Settled:
    """A callback that ends a search whose last two steps changed F by next to nothing."""

    def __init__(self, callback: Callable[..., Any] | None) -> None:
        self.callback, self.ended = callback, False
        self.values: list[float] = []

    def __call__(self, state: Any) -> bool:
        stop = bool(self.callback(state)) if self.callback is not None else False
        self.values.append(float(state.fun))
        last = self.values[-3:]
        if len(last) == 3 and last[0] - last[2] <= SETTLED * abs(last[2]):
            self.ended = True
        return stop or self.ended


def flat(u: np.ndarray) -> np.ndarray:
    """Return (m, t) as the vector that ``Glm`` takes: one target after the other."""
    return np.ascontiguousarray(u.T).ravel()


def unflat(x: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Return the vector as (m, t)."""
    return x.reshape(like.shape[1], like.shape[0]).T


def search_table(
    task: Task,
    table: PenaltyTable,
    single: Search,
    options: dict[str, Any],
    *,
    certify: bool = True,
) -> Search:
    """Return the log-penalties that the table allows, starting from the single one."""
    start = time.perf_counter()
    criterion = Criterion(task, table.scaled, table.offset)
    low, high = box(task, table)
    prior = options.pop("prior", None)
    first = options.pop("start", None)
    upper: Any = criterion.upper
    if prior is not None and table.deviations and np.isfinite(prior):
        upper = with_prior(task, table, criterion.upper, single, prior)
    u, y, products = _start_of(task, table, criterion, single, first, low, high)
    found = descend(
        criterion, u, low, high, y0=y, upper=upper, certify=certify, **options
    )
    return dataclasses.replace(
        found,
        seconds=time.perf_counter() - start,
        products=found.products + products,
    )


def box(task: Task, table: PenaltyTable) -> tuple[np.ndarray, np.ndarray]:
    """Return bounds of u that keep log-penalties in the range of the data."""
    low, high = task.levels()
    shift_low, shift_high = float(table.offset.min()), float(table.offset.max())
    width = high - low
    bounds = np.empty((2, table.m))
    for k in range(table.m):
        column = table.scaled[:, [k]]
        entries = column.toarray() if hasattr(column, "toarray") else column
        positive = bool((entries >= 0.0).all()) and k < table.k
        if positive:  # a level
            bounds[:, k] = low - shift_high, high - shift_low
            if k >= table.k:
                break
        else:
            largest = float(np.abs(entries).max())
            bounds[:, k] = -width / largest, width / largest
        if k >= table.k:
            bounds[:, k:] = bounds[:, [k]]
            break
    several = np.ones(task.several)
    return bounds[0][:, None] * several, bounds[1][:, None] * several


def _start_of(
    task: Task,
    table: PenaltyTable,
    criterion: Criterion,
    single: Search,
    first: np.ndarray | None,
    low: np.ndarray,
    high: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the best of the starts: single penalties of the columns, and of standardised ones.

    The latter, where the table can express them, are tried from strong to weak a factor
    ten apart; a table around standardised columns starts there alone, whatever the units.
    """
    rows, several = table.offset.size, np.ones(task.several)
    level = np.column_stack([table.project(np.full(rows, a)) for a in single.u[0]])
    starts = [] if table.offset.any() else [level]
    if first is not None and first.shape == level.shape:
        starts = [first]
    else:
        starts += [u[:, None] * several for u in _standardised(task, table)]
    same = single.y.size == criterion.y0.size
    F = criterion.function(GRID_TOL, single.y if same else None)
    y, least = None, np.full(task.several, np.inf)
    chosen = np.clip(starts[0] if starts else level, low, high)
    lowest, rises = least, 0  # of those of standardised columns
    for start in starts:
        within = np.clip(start, low, high)
        try:
            x = flat(within)
            found = np.asarray(F.solve(x).y)
        except ConvergenceError:
            continue
        loss = criterion.judge(x, found).mean
        better = loss < least
        chosen, least = np.where(better, within, chosen), np.minimum(loss, least)
        y = found if better.any() else y
        if start is not level:
            rises = 0 if (loss < lowest).any() else rises + 1
            lowest = np.minimum(loss, lowest)
        if rises >= RISES:
            break
    y = single.y if y is None and same else y
    return chosen, criterion.y0 if y is None else y, F.n_hvp


def _standardised(task: Task, table: PenaltyTable) -> list[np.ndarray]:
    """Return u of single penalties of standardised columns, none where Z lacks them."""
    logs = np.log(np.where(task.sizes > 0.0, task.sizes, 1.0))
    outputs = table.offset.size // logs.size
    rows = np.repeat(logs, outputs)
    if np.ptp(logs) < 1e-6:
        return []
    if task.smooth:
        top = math.log(task.curvature()) + math.log(10.0 * logs.size)
    else:
        top = task.emptying(task.sizes)
    found = [table.project(top + rows - 2.0 * STEP * k) for k in range(8)]
    missing = table.log_penalties(found[0][:, None])[:, 0] - (top + rows)
    return found if np.abs(missing).max() < 1e-6 else []


def with_prior(
    task: Task, table: PenaltyTable, upper: Any, single: Search, deviation: float
) -> Sum:
    """Return the upper objective plus a Gaussian prior of the single columns' deviations.

    In units of the loss: noise Σ d² / (2 s² Σ w), with noise the variance of the held-out
    residuals for squared loss and 1 for a negative log-likelihood.
    """
    rows = float(task.weights[task.judged].sum())
    squared = type(task.loss).__name__ in {"Squared", "Huber"}
    noise = 2.0 * single.judged.mean if squared else np.ones(task.several)
    with np.errstate(divide="ignore"):
        each = deviation / np.sqrt(noise)
    deviations = np.tile(each, (table.m, 1))
    deviations[: table.k] = np.inf
    return Sum(upper, normal_prior(0.0, flat(deviations), rows=rows))


def crossed_losses(
    task: Task, table: PenaltyTable, single: Search, options: dict[str, Any]
) -> tuple[np.ndarray, int]:
    """Return losses of the held-out rows by parameters learned on the other folds.

    x is learned on the held-out rows of every second fold and judged by those of the
    others, and the other way round: with many parameters the folds' own loss flatters.
    """
    assert task.pairs is not None
    losses = np.empty_like(single.judged.losses)
    products = 0
    for learns, judges in ((0, 1), (1, 0)):
        part = dataclasses.replace(task, pairs=task.pairs[learns::2])
        start = dataclasses.replace(single, y=np.zeros(0))
        found = search_table(part, table, start, dict(options), certify=False)
        other = dataclasses.replace(task, pairs=task.pairs[judges::2])
        F = Criterion(other, table.scaled, table.offset)
        there = F.function(GRID_TOL)
        x = flat(found.u)
        y = there.solve(x).y
        losses[single.judged.fold % 2 == judges] = F.judge(x, y).losses
        products += found.products + there.n_hvp
    return losses, products


def compare(single: Search, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the change of each target's pooled loss and its standard error over rows."""
    change = losses - single.judged.losses
    share = single.judged.weights / single.judged.weights.sum()
    mean = share @ change
    return mean, np.sqrt(share**2 @ (change - mean) ** 2)


def refit(task: Task, table: PenaltyTable, u: np.ndarray, y0: Any) -> np.ndarray:
    """Return the solution on all rows at these log-penalties."""
    problem = Problem(task.glm(table.scaled, table.offset))
    x = flat(u)
    M = _preconditioner(task, task.several, task.start.size // task.several)
    tol = FINEST
    while True:
        try:
            return np.asarray(solve(problem, x, y0, tol=tol, M=M).y)
        except ConvergenceError:
            tol *= 100.0
            if tol > 1e-3:
                raise


def _preconditioner(task: Task, models: int, size: int) -> Any:
    """Return factors of the folds' Hessians where they are small, dense and smooth.

    The systems of several targets are solved as columns of one block; those of classes are
    so ill-conditioned where all are predicted that rounding of a factor counts.  Of sparse
    features the n products of a setup cost more than the steps of CG that they save.
    """
    known = task.smooth and task.several == task.outputs == 1
    if not known or sparse.issparse(task.features):
        return "auto"
    return FoldFactors.where_small(models, size) or "auto"


def gathered(
    function: Callable[..., Any], *data: Any, **options: Any
) -> tuple[Any, list[str]]:
    """Return what the function returns, and the texts of its warnings."""
    with warnings.catch_warnings(record=True, action="always") as caught:
        found = function(*data, **options)
    return found, [str(warning.message) for warning in caught]
