"""The bi-level problem of section 5: a classifier whose likeliest points are given.

    minimise over theta  1/2 sum_i ||g_i(theta) − t_i||^2,
    g_i(theta) = argmax_{||y||^2 <= 1} log ell_i(y),   t_i evenly spaced on the circle

Three classes in the plane, nine parameters; (82) is its gradient step.
"""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
from _ball import maximum_in_ball
from _softmax import Softmax, draw_parameters
from scipy.special import lambertw

import sparse_argdiff as sad

ANGLES = 2.0 * np.pi * np.arange(3) / 3.0
TARGETS = np.column_stack([np.cos(ANGLES), np.sin(ANGLES)])
UPPER = sad.FunctionUpper(
    lambda _, y: 0.5 * float(np.sum((y - TARGETS.ravel()) ** 2)),
    lambda _, y: y - TARGETS.ravel(),
)
GOAL = 1e-9  # above the optimal value: what the paper reaches "in under 100 iterations"
POOR = sad.ConvergenceWarning
SMALL = 1e-3  # a multiplier below which the ball hardly holds its class
LARGE = 5.0  # times its first size: a classifier that ran away


@dataclasses.dataclass(frozen=True)
class Descent:
    """A run: values, least multipliers and sizes of theta; the parameters at the end."""

    values: np.ndarray
    multipliers: np.ndarray
    sizes: np.ndarray
    theta: np.ndarray
    y: np.ndarray
    failure: str = ""  # of a lower-level or an adjoint solve, which ended the run

    def reached(self, optimum: float = 0.0, within: int = 99) -> int | None:
        """Return the first iteration whose value is within GOAL of the optimal value."""
        hits = np.flatnonzero(self.values[: within + 1] - optimum < GOAL)
        return int(hits[0]) if hits.size else None

    @property
    def remark(self) -> str:
        """Say what is wrong with a run whose ball lost its hold; empty where nothing is."""
        found = [self.failure] if self.failure else []
        if self.multipliers.min() < SMALL:
            k = int(np.argmax(self.multipliers < SMALL))
            found.append(
                f"a multiplier fell to {self.multipliers.min():.0e} (iteration {k}): "
                "the ball hardly holds that class, and its gradient fades"
            )
        if self.sizes.max() > LARGE * self.sizes[0]:
            found.append(
                f"the weights grew from {self.sizes[0]:.1f} to {self.sizes.max():.1f}"
            )
        return "; ".join(found)


def start(seed: int) -> np.ndarray:
    """Return nine N(0, 1) parameters."""
    return draw_parameters(3, 2, seed)


def ball() -> sad.Problem:
    """Return the lower level, all three classes together."""
    return Softmax(3, 2).unit_ball()


def hypergradient(t: float | None = None, **options) -> sad.Hypergradient:
    """Return F: with the exact ball, or with the log-barrier of weight t."""
    options = {"tol": 1e-10, **options}
    if t is not None:
        return sad.Hypergradient(sad.LogBarrier(ball(), t), UPPER, **options)
    return sad.Hypergradient(ball(), UPPER, **{"solver": maximum_in_ball, **options})


def descend(
    F: sad.Hypergradient, theta, step: float, maxiter: int = 99, optimum: float = 0.0
) -> Descent:
    """Run (82), gradient descent with a fixed step, until the goal or ``maxiter``.

    A solve that fails, or that ends at the rounding limit with a poor answer, ends it.
    """
    values, multipliers, sizes, failure = [], [], [], ""
    for k in range(maxiter + 1):
        try:
            with warnings.catch_warnings(action="error", category=POOR):
                found = F.evaluate(theta, certify=False)
        except (sad.ConvergenceError, POOR) as error:
            if not values:
                raise
            status = getattr(error, "status", sad.Status.ROUNDING_LIMIT)
            failure = f"iteration {k} failed ({status.name})"
            break
        solution = found.solution
        values.append(found.value)
        held = solution.multipliers
        multipliers.append(np.inf if held is None else float(held.min()))
        sizes.append(float(np.linalg.norm(theta)))
        if found.value - optimum < GOAL or k == maxiter:
            break
        theta = theta - step * found.gradient
    arrays = np.array(values), np.array(multipliers), np.array(sizes)
    return Descent(*arrays, solution.x, solution.y, failure)


def learn(
    theta, method: str, maxiter: int = 99, **options
) -> tuple[list[float], object]:
    """Minimise with a line search until the goal; return the values and the result."""
    values: list[float] = []

    def watch(state) -> bool:
        values.append(float(state.fun))
        return state.fun < GOAL

    settings = {"method": method, "maxiter": maxiter, "callback": watch}
    lower = {"lower_tol": 1e-10, "solver": maximum_in_ball, **options}
    with warnings.catch_warnings(action="ignore", category=POOR):  # F decides
        result = sad.minimize(ball(), UPPER, theta, tol=0.0, **settings, **lower)
    return values, result


def barrier_optimum(t: float) -> float:
    """Return f*_t, the least value under the barrier, for three-fold symmetric weights.

    The likeliest points then lie at the targets' angles with radius
    r = sqrt(ct / (2 + ct)), c = W(2/e): f*_t = 3/2 (1 − r)^2 is positive for every t.
    """
    ct = float(lambertw(2.0 / np.e).real) * t
    return 1.5 * (1.0 - np.sqrt(ct / (2.0 + ct))) ** 2
