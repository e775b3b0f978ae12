"""Data, loss and folds of one fit, and the range in which its penalties do anything."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from ..linear_model import Glm
from ..linear_model.loss import Loss
from .folds import Pair

FEWEST = (
    1e-3  # least weight of a norm with kinks over that of no support, as ``LassoCV``
)
WEAK, STRONG = 1e-6, 1e3  # of a typical and of the total curvature: ends of the range


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
        known = {"Logistic": 0.25, "Multinomial": 0.25, "Squared": 1.0, "Huber": 1.0}
        name = type(self.loss).__name__
        if name in known:
            return known[name]
        z = np.full(self.weights.size, parts(self, self.start)[1][0])
        share = self.weights / self.weights.sum()
        found: Any = self.loss.curvature(z, self.targets, share).diagonal
        return float(np.sum(found)) or 1.0

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
