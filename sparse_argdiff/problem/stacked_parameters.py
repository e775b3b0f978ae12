"""From rows of x to stacked data of a quadratic program, and derivatives back to x.

    x_i = (the data named as parameters, one after another)

Data that are not parameters have a leading axis of one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array, asarray, full, is_array, is_sparse, namespace
from ..arrays.transfer import to_host
from .batch_solution import named
from .problem import Problem
from .quadratic import QuadraticObjective
from .stacked_quadratic import StackedQuadratic

# Variables and rows together up to which programs are solved as dense ones.
LARGEST = {"dense": 1000, "sparse": 300}
_MATRICES = ("P", "A", "G")
_NAMES = ("P", "q", "A", "b", "G", "h", "h_lower", "lower", "upper")


class StackedParameters:
    """The map between rows of x and stacked data.

    Parameters
    ----------
    problem : Problem
        Made by ``QuadraticProgram`` of dense or sparse data.
    """

    def __init__(self, problem: Problem) -> None:
        objective: Any = problem.objective
        self.named = objective.data
        self.sign = -1.0 if problem.maximize else 1.0
        self.constant = self.named.constant
        self.n = int(self.constant.q.shape[0])
        # Sides of G for each of which the problem has a row.
        self.sides = [
            s for s in ("h", "h_lower") if getattr(self.constant, s) is not None
        ]

    @property
    def rows_stay(self) -> bool:
        """Whether x moves neither rows nor bounds."""
        return set(self.named.parts) <= {"P", "q"}

    @property
    def shape(self) -> tuple[int, int, int]:
        """Variables, equality rows, rows of G."""
        A, G = self.constant.A, self.constant.G
        p, r = (0 if M is None else int(M.shape[0]) for M in (A, G))
        return self.n, p, r

    @property
    def rows(self) -> tuple[int, int]:
        """Equality and inequality rows of the problem."""
        _, p, r = self.shape
        return p, r * len(self.sides)

    def undefined(self, X: Array) -> list[str]:
        """Say which data of which members are NaN, or infinite where no side is."""
        xp, found = namespace(X), []
        for name, (place, _) in self.named.parts.items():
            sided = name in {"h", "h_lower", "lower", "upper"}
            part = X[:, place]
            wrong = xp.any(xp.isnan(part) if sided else ~xp.isfinite(part), axis=1)
            index = [int(i) for i in np.flatnonzero(to_host(wrong))]
            if index:
                kind = "NaN" if sided else "NaN or infinite entries"
                found.append(f"{name} of {named(index)} has {kind}")
        return found

    def stacked(self, X: Array) -> StackedQuadratic:
        """Return the data of the program that is minimised for each row of X."""
        parts: dict[str, Any] = {}
        for name in _NAMES:
            parts[name] = self._datum(name, X)
        P = parts["P"]
        parts["P"] = (self.sign * 0.5) * (P + namespace(P).permute_dims(P, (0, 2, 1)))
        parts["q"] = self.sign * parts["q"]
        return StackedQuadratic(**parts)

    def _datum(self, name: str, X: Array) -> Array:
        xp, given = namespace(X), getattr(self.constant, name)
        if name in self.named.parts:
            place, part = self.named.parts[name]
            return self._wide(name, X[:, place], part)
        rows = {"A": "b", "G": "h", "b": "A", "h": "G", "h_lower": "G"}
        if given is None and name in {"A", "G"}:
            return full((1, 0, self.n), 0.0, X, xp.float64)
        if given is None:
            matrix = getattr(self.constant, rows.get(name, ""), None)
            size = self.n if name in {"lower", "upper"} else 0
            size = int(matrix.shape[0]) if matrix is not None else size
            none = {"h": np.inf, "upper": np.inf, "h_lower": -np.inf, "lower": -np.inf}
            return full((1, size), none.get(name, 0.0), X, xp.float64)
        if is_sparse(given):
            given = asarray(given.toarray(), X)
        return xp.astype(given, xp.float64)[None, ...]

    def _wide(self, name: str, entries: Array, part: Any) -> Array:
        """Return the datum of each row of entries as a dense array."""
        xp, k = namespace(entries), entries.shape[0]
        entries = xp.astype(entries, xp.float64)
        if name not in _MATRICES:
            return entries
        if not hasattr(part, "rows"):
            return xp.reshape(entries, (k, *part.shape))
        dense: Any = np.zeros((k, *part.shape))
        member = np.arange(k)[:, None]
        np.add.at(
            dense,
            (member, part.rows[None, :], part.columns[None, :]),
            np.asarray(entries),
        )
        return dense

    def change(self, U: Array) -> StackedQuadratic:
        """Return the directions in all data along rows of U, zero where a datum stays."""
        xp = namespace(U)
        parts: dict[str, Any] = {}
        for name in _NAMES:
            if name in self.named.parts:
                place, part = self.named.parts[name]
                value = self._wide(name, U[:, place], part)
            else:
                value = xp.zeros_like(self._datum(name, U[:1]))
            parts[name] = value
        P = parts["P"]
        parts["P"] = (self.sign * 0.5) * (P + namespace(P).permute_dims(P, (0, 2, 1)))
        parts["q"] = self.sign * parts["q"]
        return StackedQuadratic(**parts)

    def pulled(self, at: Any, found: Any, like: Array) -> Array:
        """Return derivatives by x, (k, m), from a point and its data cotangent.

        ``at`` has y, multipliers and which sides are upper ones; ``found`` has the adjoints.
        """
        xp = namespace(like)
        columns = []
        rows, bounds = found.rows, found.bounds
        simple = {
            "q": -self.sign * found.u,
            "b": found.nu,
            "h": xp.where(at.upper_rows, rows, xp.zeros_like(rows)),
            "h_lower": xp.where(at.upper_rows, xp.zeros_like(rows), rows),
            "upper": xp.where(at.upper_bounds, bounds, xp.zeros_like(bounds)),
            "lower": xp.where(at.upper_bounds, xp.zeros_like(bounds), bounds),
        }
        pairs = {
            "P": [(-0.5 * self.sign, found.u, at.y), (-0.5 * self.sign, at.y, found.u)],
            "A": [(-1.0, at.nu, found.u), (-1.0, found.nu, at.y)],
            "G": [(-1.0, at.rows, found.u), (-1.0, found.rows, at.y)],
        }
        for name, (_, part) in self.named.parts.items():
            if name in simple:
                columns.append(simple[name])
            else:
                total: Any = 0.0
                for factor, w, y in pairs[name]:
                    total = total + factor * _outer(part, w, y)
                columns.append(total)
        if not columns:
            return xp.zeros((at.y.shape[0], 0), dtype=like.dtype)
        return xp.astype(xp.concat(columns, axis=1), like.dtype)


def _outer(part: Any, w: Array, y: Array) -> Array:
    """Return the entries of w_i y_i' of each member, at the stored places of a sparse datum."""
    if hasattr(part, "rows"):
        return w[:, part.rows] * y[:, part.columns]
    product = w[:, :, None] * y[:, None, :]
    return namespace(w).reshape(product, (w.shape[0], -1))


def stacked_parameters(problem: Problem) -> StackedParameters | None:
    """Return the map for a small explicit quadratic program, None for other problems."""
    objective = problem.objective
    if not isinstance(objective, QuadraticObjective) or problem.penalty is not None:
        return None
    named = ("equality", "inequality", "lower", "upper")
    own = objective.constraints
    if any(getattr(problem, name) is not own.get(name) for name in named):
        return None
    constant = objective.data.constant
    matrices = [getattr(constant, name) for name in _MATRICES]
    matrices = [matrix for matrix in matrices if matrix is not None]
    if not all(is_array(matrix) or is_sparse(matrix) for matrix in matrices):
        return None
    kind = "dense" if any(map(is_array, matrices)) else "sparse"
    size = sum(int(matrix.shape[0]) for matrix in matrices)
    return StackedParameters(problem) if size <= LARGEST[kind] else None
