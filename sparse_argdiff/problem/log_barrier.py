"""The logarithmic barrier of the paper's section 4.2: inequalities in the objective.

    t f(x, y) − Σ log(−h_i(x, y)) − Σ log(y − lower) − Σ log(upper − y)        (61)

The derivative, by the general formula, is the paper's (64):

    g_t'(x) = − (t f_YY − φ_YY)⁻¹ (t f_XY − φ_XY),      φ = Σ log(−h_i),  at y = g_t(x)

    − φ_YY = Σ ∇h_i ∇h_iᵀ / h_i² − Σ ∇²h_i / h_i        (the paper's (63) has this sign)
    − φ_XY = Σ ∇h_i (∂h_i/∂x)ᵀ / h_i² − Σ (∂/∂x ∇h_i) / h_i
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ..arrays import Array, arange, as_tolerance, brief, namespace, norm, zeros
from ..operators.block_matrices import diagonal_operator, gram
from ..operators.linear_operator import LinearOperator, aslinearoperator
from .problem import Problem


def LogBarrier(problem: Problem, t: float) -> Problem:
    """Return the problem with inequalities and bounds replaced by a barrier.

    Parameters
    ----------
    problem : Problem
        Equalities are kept; a problem that maximises f becomes one of t f + Σ log.
    t : float
        Positive.  For a convex problem with q inequality rows and bounds,
        f(g_t(x)) − f(g(x)) ≤ q / t.

    Returns
    -------
    Problem
        At a solution, −1 / (t h_i) estimates the multipliers of the inequalities.

    Raises
    ------
    ValueError, TypeError
        For wrong arguments.  ``solve`` refuses a start that is not strictly feasible.

    Notes
    -----
    From a cold start at a large t, Newton's method takes many short steps along the
    boundary; ``solve(problem, x, method="barrier")`` does not.  Where an active row has
    multiplier zero, g_t' tends to the mean of the one-sided derivatives of g.

    References
    ----------
    S. Gould et al., "On differentiating parameterized argmin and argmax problems with
    application to bi-level optimization", arXiv:1607.05447, 2016, section 4.2.
    """
    if not isinstance(problem, Problem):
        raise TypeError(f"problem must be a Problem, found {type(problem).__name__}")
    if problem.nonsmooth:
        raise ValueError(
            "problem must be smooth, found a penalty with kinks; smoothing= makes it so"
        )
    weight = as_tolerance("t", t)
    if weight == 0.0:
        raise ValueError(f"t must be > 0, found {t!r}")
    return Problem(
        BarrierObjective(problem, weight),
        equality=problem.equality,
        maximize=problem.maximize,
    )


class _Weights(NamedTuple):
    """The reciprocal slacks at a point."""

    rows: Array | None
    bounds: tuple[Array, Array] | None  # of lower and upper bounds


class BarrierObjective:
    """t f minus the logarithms of the slacks, where f is minimised; plus, where maximised."""

    def __init__(self, problem: Problem, t: float) -> None:
        self.problem, self.t = problem, t
        self._sign = -1.0 if problem.maximize else 1.0
        self._size: int | None = getattr(problem.objective, "n", None)
        if self._size is not None:
            self.n = self._size
        if getattr(problem.objective, "dtype", None) is not None:
            self.dtype = problem.objective.dtype  # type: ignore[attr-defined]
        if problem.has_value:
            self.value = self._value

    def __repr__(self) -> str:
        return brief("BarrierObjective", {"t": self.t, "of": self.problem.objective})

    def scale(self, x: Array) -> float:
        """Return t times the scale of f; the barrier's terms grow near a boundary."""
        inner = getattr(self.problem.objective, "scale", None)
        if callable(inner):
            return self.t * float(inner(x))
        if self._size is None:
            return math.nan
        zero = zeros(self._size, x, getattr(self, "dtype", x.dtype))
        return self.t * norm(self.problem.grad(x, zero))

    def outside(self, x: Array, y: Array) -> str:
        """Say which constraint is not strictly satisfied at y; empty inside the domain."""
        xp = namespace(y)
        for what, slack in self._slacks(x, y):
            if slack.shape[0] and not bool(xp.all(slack > 0.0)):
                worst = int(xp.argmin(xp.where(xp.isnan(slack), -math.inf, slack)))
                return f"{what} {worst} has slack {float(slack[worst]):.2e}"
        return ""

    def _slacks(self, x: Array, y: Array) -> list[tuple[str, Array]]:
        self._size = y.shape[0]
        problem, found = self.problem, []
        if problem.inequalities is not None:
            found.append(("inequality row", -problem.inequalities.value(x, y)))
        if problem.bounded:
            lower, upper = problem.bounds(x, y)
            found += [("lower bound", y - lower), ("upper bound", upper - y)]
        return found

    def _weights(self, x: Array, y: Array) -> _Weights | None:
        """Return 1 / slack of rows and bounds, None outside the domain."""
        xp = namespace(y)
        slacks = [slack for _, slack in self._slacks(x, y)]
        if not all(bool(xp.all(slack > 0.0)) for slack in slacks):
            return None
        inverses = [1.0 / slack for slack in slacks]
        rows = None if self.problem.inequalities is None else inverses.pop(0)
        return _Weights(rows, (inverses[0], inverses[1]) if inverses else None)

    def _value(self, x: Array, y: Array) -> float:
        """Return t f − Σ log(slacks); infinite outside the domain."""
        xp = namespace(y)
        total = 0.0
        for _, slack in self._slacks(x, y):
            if not bool(xp.all(slack > 0.0)):
                return self._sign * math.inf
            finite = xp.where(xp.isfinite(slack), slack, xp.ones_like(slack))
            total -= float(xp.sum(xp.log(finite)))
        return self._sign * (self.t * self.problem.value(x, y) + total)

    def grad(self, x: Array, y: Array) -> Array:
        """Return the gradient, (n,); NaN outside the domain."""
        weights = self._weights(x, y)
        if weights is None:
            return namespace(y).full_like(y, math.nan)
        total = self.t * self.problem.grad(x, y)
        if weights.rows is not None:
            total = total + aslinearoperator(self._jac(x, y)).T @ weights.rows
        if weights.bounds is not None:
            total = total - weights.bounds[0] + weights.bounds[1]
        return self._sign * total

    def hess(self, x: Array, y: Array) -> LinearOperator:
        """Return t f_YY − φ_YY, an operator (n, n)."""
        weights = self._inside(x, y)
        total = self.t * self.problem.hess(x, y)
        if weights.rows is not None:
            assert self.problem.inequalities is not None
            total = total + gram(self._jac(x, y), weights.rows**2)
            curvature = self.problem.inequalities.hess(x, y, weights.rows)
            total = total if curvature is None else total + curvature
        if weights.bounds is not None:
            lower, upper = weights.bounds
            total = total + diagonal_operator(lower**2 + upper**2)
        return self._sign * total

    def cross(self, x: Array, y: Array) -> LinearOperator:
        """Return t f_XY − φ_XY, an operator (n, m)."""
        weights = self._inside(x, y)
        total = self.t * self.problem.cross(x, y)
        if weights.rows is not None:
            inequalities, w = self.problem.inequalities, weights.rows
            assert inequalities is not None
            inequalities.refuse_forgotten(x, y, w, arange(w.shape[0], w))
            mixed = inequalities.cross(x, y, w)
            total = total if mixed is None else total + mixed
            by_x = inequalities.jac_x(x, y)
            if by_x is not None:
                jac = aslinearoperator(self._jac(x, y))
                total = total + jac.T @ (diagonal_operator(w**2) @ by_x)
        if weights.bounds is not None:
            moves = self.problem.bound_derivatives(x, y)
            for move, w in zip(moves, weights.bounds, strict=True):
                if move is not None:
                    total = total - diagonal_operator(w**2) @ move
        return self._sign * total

    def _jac(self, x: Array, y: Array) -> Any:
        assert self.problem.inequalities is not None
        return self.problem.inequalities.jac(x, y)

    def _inside(self, x: Array, y: Array) -> _Weights:
        weights = self._weights(x, y)
        if weights is None:
            raise ValueError(
                f"y is outside the domain of the barrier: {self.outside(x, y)}; the "
                "barrier has derivatives at strictly feasible points only"
            )
        return weights
