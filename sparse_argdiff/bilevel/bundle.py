"""Descent past kinks of F in several parameters, by the gradients on their sides.

    min_d  max_i (g_i'd − e_i) + ‖d‖² / (2 t)     over x + d within the bounds

with e_i = |F(x) − F_i − g_i'(x − x_i)| of points x_i around: a bundle method.  The dual is

    min_λ  ½ t ‖p‖² + Σ_i λ_i e_i,   p = Σ_i λ_i g_i + (normals),   λ >= 0,  Σ_i λ_i = 1,

and d = −t p.  A trial x + d that lowers F by a part of what the model does is the next x; else
it has shown another side, whose gradient joins the model.  Where ‖p‖ and ε = Σ_i λ_i e_i
are small, F(x') ≥ F(x) − ε − ‖p‖ ‖x' − x‖ for a convex F; both are judged at t = 1 / limit,
which weighs them alike, whatever the length of the steps is by then.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..arrays import Array, asarray, dot, namespace, norm
from ..arrays.transfer import to_host
from ..hypergradient.result import HypergradientResult
from ..problem.quadratic import QuadraticProgram
from ..solvers import solve
from ..status import ConvergenceError

_DECREASE = 0.1  # share of the predicted decrease that a step must attain
_LONGER = 2.0  # t after a step that attains half of it
_SHORTER = 0.3  # t after a trial whose plane tells nothing of x
_SHORTEST = 1e-8  # step over the radius
_SHIFT = 1e-13  # of the dual, a rounding of its terms
_EVALUATIONS = 100
_MOST = 40  # gradients that are kept


@dataclasses.dataclass(frozen=True)
class Combination:
    """The least convex combination p of gradients.

    Attributes
    ----------
    vector : array (m,)
        p.
    error : float
        ε.
    sides : int
        Gradients with a positive weight.
    radius : float
        The largest distance of their points from x.
    """

    vector: Array
    error: float
    sides: int
    radius: float

    @property
    def size(self) -> float:
        """‖p‖."""
        return norm(self.vector)

    def describe(self, scale: float) -> str:
        """Return what is shown, in words; ``scale`` is that of F."""
        return (
            f"a convex combination of {self.sides} gradients, at points within "
            f"{self.radius:.1e} of x, has norm {self.size:.1e}; relative to what F is "
            f"judged by, F can still fall by {self.error / scale:.1e} and by "
            f"{self.size / scale:.1e} per unit of x (a bound where F is convex, else an "
            "estimate); g' is one-sided here"
        )


@dataclasses.dataclass(frozen=True)
class Descent:
    """The lowest point of a run, and the combination there; ``is_stationary`` if small."""

    found: HypergradientResult
    combination: Combination
    is_stationary: bool


def descend(
    members: Sequence[HypergradientResult],
    radius: float,
    evaluate: Callable[[Array], HypergradientResult],
    small: Callable[[float], float],
    project: Callable[[Array], Array],
    bounds: tuple[Any, Any],
) -> Descent:
    """Lower F from the lowest of some points until the combination is small.

    Parameters
    ----------
    members : sequence of HypergradientResult
        Of one point at least.
    radius : float
        Length of the first trial.
    evaluate : callable
        Value and gradient of F; of points where it raises ``ConvergenceError`` the trial is
        shortened.
    small : callable
        Of a value of F, what ε and ‖p‖ may be at the end.
    project : callable
        Onto the bounds.
    bounds : tuple
        Lower and upper, arrays (m,) or None.

    References
    ----------
    K. C. Kiwiel, "Proximity control in bundle methods for convex nondifferentiable
    minimization", Math. Programming 46 (1990) 105-122.
    C. Lemaréchal, C. Sagastizábal, Math. Programming 76 (1997) 393-410.
    """
    members = list(members)
    base = min(members, key=lambda member: member.value)
    t = radius / (norm(base.gradient) or 1.0)
    for _ in range(_EVALUATIONS):
        limit = small(base.value)
        p = _combined(base, members, t, bounds)
        even = _combined(base, members, 1.0 / limit if limit > 0.0 else t, bounds)
        if max(even.size, even.error) <= limit:
            return Descent(base, even, True)
        x = base.solution.x
        point = project(x - t * p.vector)
        if norm(point - x) <= _SHORTEST * radius:
            break
        try:
            there = evaluate(point)
        except ConvergenceError:
            t *= 0.25
            continue
        members = [*members[1 - _MOST :], there]
        predicted = t * p.size**2 + p.error
        fell, error = base.value - there.value, _error(base, there)
        if fell >= _DECREASE * predicted:
            t *= _LONGER if fell >= 0.5 * predicted else 1.0
            base = there
        elif error > predicted:
            t *= _SHORTER
    return Descent(base, even, False)


def _error(base: HypergradientResult, other: HypergradientResult) -> float:
    """Return |F(x) − F_i − g_i'(x − x_i)|."""
    way = base.solution.x - other.solution.x
    return abs(base.value - other.value - dot(other.gradient, way))


def _combined(
    base: HypergradientResult,
    members: Sequence[HypergradientResult],
    t: float,
    bounds: tuple[Any, Any],
) -> Combination:
    """Return the combination of the gradients that solves the dual."""
    near = [base, *(m for m in members if m is not base)]
    x, xp = base.solution.x, namespace(base.gradient)
    G = np.stack([np.asarray(to_host(m.gradient), float) for m in near], axis=1)
    errors = np.array([_error(base, m) for m in near])
    lower, upper = (None if b is None else np.asarray(to_host(b)) for b in bounds)
    normals = bound_normals(np.asarray(to_host(x)), lower, upper)
    weights, vector = least_combination(G, errors / t, normals)
    acting = weights > 0.0
    apart = [norm(m.solution.x - x) for m, a in zip(near, acting, strict=True) if a]
    return Combination(
        xp.astype(asarray(vector, base.gradient), x.dtype),
        float(weights @ errors),
        int(acting.sum()),
        max(apart, default=0.0),
    )


def bound_normals(x: Any, lower: Any, upper: Any) -> Any:
    """Return the outer normals (m, b) of the bounds that hold x."""
    unit = np.eye(x.shape[0])
    low = unit[:, :0] if lower is None else -unit[:, x <= lower]
    high = unit[:, :0] if upper is None else unit[:, x >= upper]
    return np.concatenate([low, high], axis=1)


def least_combination(G: Any, errors: Any, normals: Any) -> tuple[Any, Any]:
    """Return argmin ½ ‖p‖² + errors'λ, p = G λ + normals μ, and p.

    λ >= 0 of sum 1, μ >= 0.  A strictly convex program for λ and μ, by a shift of
    rounding.
    """
    k, size = G.shape[1], float(np.abs(G).max()) or 1.0
    whole = np.concatenate([G / size, normals], axis=1)
    P = whole.T @ whole
    P[np.diag_indices_from(P)] += _SHIFT * (1.0 + np.trace(P))
    row = np.where(np.arange(P.shape[0]) < k, 1.0, 0.0)
    program = QuadraticProgram(
        P,
        row * np.resize(errors, P.shape[0]) / size**2,
        row[None, :],
        np.ones(1),
        lower=0.0,
    )
    z: Any = solve(program, program.pack(), method="active_set").y
    z = np.where(z > 0.0, z, 0.0)
    z[:k] /= z[:k].sum()
    return z[:k], size * (whole @ z)
