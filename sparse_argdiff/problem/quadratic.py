"""A quadratic program from its matrices, of which any may depend on x.

    min ½ y'Py + q'y    s.t.   A y = b,   h_lower <= G y <= h,   lower <= y <= upper

Its rows in the order of the multipliers: A y − b = 0, then G y − h <= 0, then, where there is
an ``h_lower``, h_lower − G y <= 0.  A side that is infinite, or 1e19 and more, leaves a row
of zeros that never acts, so that shapes are kept.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import Array, brief, is_array, is_sparse, namespace
from ..krylov.ldl_factor import is_semidefinite
from ..operators.block_matrices import is_explicit, vstack
from ..operators.linear_operator import LinearOperator, aslinearoperator
from .constraints import Equality, Inequality
from .problem import Problem
from .quadratic_data import (
    ENDLESS,
    NAMES,
    NamedData,
    QuadraticData,
    checked_matrix,
    checked_vector,
    common_dtype,
    refuse_asymmetric,
)


def QuadraticProgram(
    P: Any,
    q: Any,
    A: Any = None,
    b: Any = None,
    G: Any = None,
    h: Any = None,
    lower: Any = None,
    upper: Any = None,
    *,
    h_lower: Any = None,
    maximize: bool = False,
    parameters: Sequence[str] = ("q",),
) -> Problem:
    """Return min ½ y'Py + q'y, A y = b, h_lower <= G y <= h, lower <= y <= upper.

    Parameters
    ----------
    P : array, sparse matrix or operator (n, n)
        Symmetric, both triangles; positive semidefinite for the methods that need a convex
        problem.  None for zero.
    q : array (n,)
    A : array, sparse matrix or operator (p, n), optional
    b : array (p,), optional
    G : array, sparse matrix or operator (k, n), optional
    h, h_lower : array (k,), optional
        Sides of the rows of G; infinite, or 1e19 and more, for none.
    lower, upper : float or array (n,), optional
        Bounds on y; infinite for none.
    maximize : bool
        Whether y maximises ½ y'Py + q'y.
    parameters : sequence of str
        The names of the data that x consists of, one after another: an array in C order, a
        sparse matrix by its ``.data`` as it stands.

    Returns
    -------
    Problem
        With ``pack(q=..., b=...) -> x``, in which data left out are those given here, and
        ``unpack(x) -> dict``, also of a gradient by x.  Multipliers are those of A, then of G
        at h, then of G at h_lower where that is given.

    Raises
    ------
    ValueError, TypeError
        For wrong shapes and types, NaN, a P that is a triangle or not symmetric, and sides
        that leave no y, such as lower > upper, by name and entry.

    Notes
    -----
    ½ y'Py is that of (P + P')/2, so that a derivative by P counts an off-diagonal pair once
    each: ∂(½ y'Py)/∂P_ij = ½ y_i y_j.

    References
    ----------
    B. Amos, J. Z. Kolter, "OptNet: differentiable optimization as a layer in neural
    networks", ICML 2017, arXiv:1703.00443, equation (8).

    Examples
    --------
    >>> import numpy as np
    >>> import sparse_argdiff as sad
    >>> problem = sad.QuadraticProgram(np.eye(2), -np.ones(2), lower=0.0)
    >>> solution = sad.solve(problem, problem.pack(q=np.array([-1.0, 2.0])))
    >>> sad.vjp(problem, solution, np.ones(2)).x
    array([-1., -0.])
    """
    given: dict[str, Any] = {
        "P": P,
        "q": q,
        "A": A,
        "b": b,
        "G": G,
        "h": h,
        "h_lower": h_lower,
        "lower": lower,
        "upper": upper,
    }
    checked = _checked(given)
    data = NamedData(checked, parameters)
    objective = QuadraticObjective(data)
    constraints: dict[str, Any] = {}
    if checked["A"] is not None:
        constraints["equality"] = _equality(data)
    if checked["G"] is not None:
        constraints["inequality"] = _inequality(data)
    constraints |= _bounds(data)
    objective.constraints = constraints
    return Problem(objective, maximize=maximize, **constraints)


def _checked(given: dict[str, Any]) -> dict[str, Any]:
    """Return the data with types and shapes that go together."""
    if given["q"] is None:
        raise TypeError("q must be an array (n,), found NoneType")
    for matrix, sides in (("A", ("b",)), ("G", ("h", "h_lower"))):
        rows = [name for name in sides if given[name] is not None]
        if given[matrix] is None and rows:
            raise ValueError(f"{rows[0]} is given without {matrix}")
        if given[matrix] is not None and not rows:
            raise ValueError(f"{matrix} is given without {' or '.join(sides)}")
    dtype = common_dtype(given)
    found: dict[str, Any] = dict.fromkeys(NAMES)
    q = found["q"] = checked_vector("q", given["q"], None, dtype)
    n = int(q.shape[0])
    for name in ("P", "A", "G"):
        if given[name] is not None:
            found[name] = checked_matrix(name, given[name], n, dtype)
    if found["P"] is None:
        found["P"] = _zero_matrix(q)
    if tuple(found["P"].shape) != (n, n):
        raise ValueError(
            f"P must have shape ({n}, {n}), found {tuple(found['P'].shape)}"
        )
    refuse_asymmetric(found["P"])
    for name, matrix in (("b", "A"), ("h", "G"), ("h_lower", "G")):
        if given[name] is not None:
            size = int(found[matrix].shape[0])
            found[name] = checked_vector(name, given[name], size, dtype)
    for name in ("lower", "upper"):
        if given[name] is not None:
            found[name] = checked_vector(name, given[name], n, dtype)
    refuse_crossed(QuadraticData(**found))
    return found


def _zero_matrix(q: Array) -> Any:
    from scipy import sparse  # noqa: PLC0415

    n = q.shape[0]
    if isinstance(q, np.ndarray):
        return sparse.csr_array((n, n), dtype=q.dtype)
    return namespace(q).zeros((n, n), dtype=q.dtype)


def refuse_crossed(data: QuadraticData) -> None:
    """Refuse sides that leave no y, by name and entry."""
    for below, above in (("lower", "upper"), ("h_lower", "h")):
        low, high = getattr(data, below), getattr(data, above)
        if low is None or high is None:
            continue
        xp = namespace(low, high)
        if bool(xp.any(low > high)):
            i = int(xp.nonzero(low > high)[0][0])
            raise ValueError(
                f"{below} must be <= {above}, found {float(low[i])} > {float(high[i])} "
                f"in entry {i}"
            )


class QuadraticObjective:
    """½ y'Py + q'y with P and q constant or parts of x.

    Attributes
    ----------
    data : NamedData
    n : int
        Size of y.
    dtype : dtype
        That of the data, and of y.
    """

    def __init__(self, data: NamedData) -> None:
        self.data = data
        # Those that the data are of: a Problem may have the objective with others.
        self.constraints: dict[str, Any] = {}
        q = data.constant.q
        self.n, self.dtype = int(q.shape[0]), q.dtype
        self._P = None if "P" in data.parts else symmetric_part(data.constant.P)

    def __repr__(self) -> str:
        return brief("QuadraticObjective", vars(self.data.constant))

    @functools.cached_property
    def convex(self) -> bool:
        """Whether P is constant and positive semidefinite, by a factorisation."""
        return is_explicit(self._P) and is_semidefinite(self._P)

    def check_parameters(self, x: Array) -> None:
        """Refuse NaN and sides on the wrong end in x, by the name of the datum."""
        self.data.check_values(x)

    def matrix(self, x: Array) -> Any:
        """Return (P + P')/2 at x, as explicit as P."""
        return symmetric_part(self.data.get("P", x)) if self._P is None else self._P

    def value(self, x: Array, y: Array) -> float:
        """Return ½ y'Py + q'y."""
        Py = aslinearoperator(self.matrix(x)) @ y
        return float(0.5 * (y @ Py) + self.data.get("q", x) @ y)

    def grad(self, x: Array, y: Array) -> Array:
        """Return P y + q."""
        return aslinearoperator(self.matrix(x)) @ y + self.data.get("q", x)

    def grad_x(self, x: Array, y: Array) -> Array:
        """Return the derivative by x at fixed y, (m,)."""
        total = self.cross(x, y).T @ y
        if "P" in self.data.parts:  # of which f has half
            place, _ = self.data.parts["P"]
            total[place] = 0.5 * total[place]
        return total

    def hess(self, x: Array, y: Array) -> Any:
        """Return P."""
        return self.matrix(x)

    def cross(self, x: Array, y: Array) -> LinearOperator:
        """Return the derivative of P y + q by x, an operator (n, m)."""
        forward: dict[str, Any] = {}
        backward: dict[str, Any] = {}
        if "P" in self.data.parts:
            forward["P"] = lambda part, u: (
                0.5 * (part.product(u, y) + part.transposed_product(u, y))
            )
            backward["P"] = lambda part, w: 0.5 * (part.outer(w, y) + part.outer(y, w))
        if "q" in self.data.parts:
            forward["q"] = backward["q"] = lambda _, u: u
        return self.data.derivative(self.n, x, forward, backward)


def symmetric_part(P: Any) -> Any:
    """Return (P + P')/2, a sparse matrix in CSR; an operator as it is."""
    if is_sparse(P):
        return ((P + P.T) * 0.5).tocsr()
    return 0.5 * (P + P.T) if is_array(P) else P


def _equality(data: NamedData) -> Equality:
    """Return the rows A y − b."""

    def fun(x: Array, y: Array) -> Array:
        return aslinearoperator(data.get("A", x)) @ y - data.get("b", x)

    def jac_x(x: Array, y: Array) -> LinearOperator:
        forward: dict[str, Any] = {}
        backward: dict[str, Any] = {}
        if "A" in data.parts:
            forward["A"] = lambda part, u: part.product(u, y)
            backward["A"] = lambda part, w: part.outer(w, y)
        if "b" in data.parts:
            forward["b"] = backward["b"] = lambda _, u: -u
        return data.derivative(data.constant.A.shape[0], x, forward, backward)

    def cross(x: Array, y: Array, multipliers: Array) -> LinearOperator:
        return data.derivative(
            y.shape[0],
            x,
            {"A": lambda part, u: part.transposed_product(u, multipliers)},
            {"A": lambda part, w: part.outer(multipliers, w)},
        )

    made = Equality(
        fun,
        lambda x, _: data.get("A", x),
        cross=cross if "A" in data.parts else None,
        jac_x=jac_x if {"A", "b"} & set(data.parts) else None,
    )
    p = int(data.constant.A.shape[0])
    made.rows = dataclasses.replace(made.rows, affine=True, p=p)
    return made


class Sides:
    """The rows G y − h and h_lower − G y; those without a finite side are rows of zeros."""

    def __init__(self, data: NamedData) -> None:
        self.data = data
        present = [("h", 1.0), ("h_lower", -1.0)]
        self.sides = [s for s in present if getattr(data.constant, s[0]) is not None]
        self.k = int(data.constant.G.shape[0])
        self.rows = self.k * len(self.sides)

    def masks(self, x: Array) -> list[Array]:
        """Return where each side is finite, (k,) of 0 and 1."""
        found = []
        for name, _ in self.sides:
            side = self.data.get(name, x)
            xp = namespace(side)
            found.append(xp.astype(xp.abs(side) < ENDLESS, side.dtype))
        return found

    def fun(self, x: Array, y: Array) -> Array:
        """Return the values of the rows, −1e19 without a side."""
        Gy, values = aslinearoperator(self.data.get("G", x)) @ y, []
        xp = namespace(Gy)
        for name, sign in self.sides:
            side = self.data.get(name, x)
            finite = xp.abs(side) < ENDLESS
            there = sign * (Gy - xp.where(finite, side, xp.zeros_like(side)))
            values.append(xp.where(finite, there, xp.full_like(there, -ENDLESS)))
        return xp.concat(values) if len(values) > 1 else values[0]

    def jac(self, x: Array, y: Array) -> Any:
        """Return the rows ± G."""
        G, blocks = self.data.get("G", x), []
        for (_, sign), mask in zip(self.sides, self.masks(x), strict=True):
            xp = namespace(mask)
            whole = bool(xp.all(mask == 1.0))
            blocks.append(G if whole and sign > 0.0 else _rescaled(G, sign * mask))
        return vstack(blocks)

    def _joined(self, x: Array, w: Array) -> Array:
        """Return w of G's rows, (k,), from w of all rows: what pulls at G."""
        k: int = self.k
        total: Any = 0.0
        for i, ((_, sign), mask) in enumerate(
            zip(self.sides, self.masks(x), strict=True)
        ):
            total = total + sign * mask * w[i * k : (i + 1) * k]
        return total

    def jac_x(self, x: Array, y: Array) -> LinearOperator:
        """Return the derivative of the rows by x."""
        forward: dict[str, Any] = {}
        backward: dict[str, Any] = {}
        masks, k = self.masks(x), self.k
        xp = namespace(y)

        def spread(change: Array) -> Array:
            pairs = zip(self.sides, masks, strict=True)
            return xp.concat([sign * mask * change for (_, sign), mask in pairs])

        if "G" in self.data.parts:
            forward["G"] = lambda part, u: spread(part.product(u, y))
            backward["G"] = lambda part, w: part.outer(self._joined(x, w), y)
        for i, (name, sign) in enumerate(self.sides):
            if name not in self.data.parts:
                continue

            def move(_: Any, u: Array, i: int = i, sign: float = sign) -> Array:
                blocks = [xp.zeros_like(mask) for mask in masks]
                blocks[i] = -sign * masks[i] * u
                return xp.concat(blocks)

            def pull(_: Any, w: Array, i: int = i, sign: float = sign) -> Array:
                return -sign * masks[i] * w[i * k : (i + 1) * k]

            forward[name], backward[name] = move, pull
        return self.data.derivative(self.rows, x, forward, backward)

    def cross(self, x: Array, y: Array, multipliers: Array) -> LinearOperator:
        """Return the derivative of (± G)' multipliers by x."""
        pull = self._joined(x, multipliers)
        return self.data.derivative(
            y.shape[0],
            x,
            {"G": lambda part, u: part.transposed_product(u, pull)},
            {"G": lambda part, w: part.outer(pull, w)},
        )


def _inequality(data: NamedData) -> Inequality:
    sides, names = Sides(data), set(data.parts)
    made = Inequality(
        sides.fun,
        sides.jac,
        cross=sides.cross if "G" in names else None,
        jac_x=sides.jac_x if {"G", "h", "h_lower"} & names else None,
    )
    made.rows = dataclasses.replace(made.rows, affine=True, p=sides.rows)
    return made


def _rescaled(G: Any, factors: Array) -> Any:
    """Return diag(factors) G, as explicit as G."""
    if is_array(G):
        return factors[:, None] * G
    if is_sparse(G):
        from scipy import sparse  # noqa: PLC0415

        return (sparse.diags_array(factors) @ G).tocsr()
    operator = aslinearoperator(G)
    return LinearOperator(
        operator.shape,
        lambda v: factors * (operator @ v),
        lambda w: operator.T @ (factors * w),
    )


def _bounds(data: NamedData) -> dict[str, Any]:
    """Return the bounds as a Problem takes them, infinite from 1e19 on."""
    found: dict[str, Any] = {}
    for name in ("lower", "upper"):
        value = getattr(data.constant, name)
        if value is None:
            continue
        if name in data.parts:
            found |= _moving_bound(data, name)
        else:
            found[name] = _endless(value)
    return found


def _endless(value: Array) -> Array:
    """Return a bound with infinities for what is as large as none."""
    xp = namespace(value)
    endless = xp.abs(value) >= ENDLESS
    return xp.where(endless, xp.copysign(xp.full_like(value, xp.inf), value), value)


def _moving_bound(data: NamedData, name: str) -> dict[str, Any]:
    """Return a bound that is part of x, with its derivatives."""
    place, _ = data.parts[name]

    def vjp(_: Array, w: Array) -> Array:
        xp = namespace(w)
        before = xp.zeros((place.start,), dtype=w.dtype)
        after = xp.zeros((data.m - place.stop,), dtype=w.dtype)
        return xp.concat([before, w, after])

    return {
        name: lambda x: _endless(data.get(name, x)),
        f"{name}_jvp": lambda _, u: u[place],
        f"{name}_vjp": vjp,
    }
