"""The data of a quadratic program by name, and which of them are parts of x.

    x = (P.data, q, b, …)  in the order of ``parameters``,       ∂(A y)_i / ∂A_ij = y_j

A dense array enters x in C order, a sparse matrix by its stored entries as they stand, so
that no matrix of n² entries is made for a derivative by a sparse one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from ..arrays import (
    Array,
    as_array,
    as_data,
    asarray,
    check_finite,
    copied,
    is_array,
    is_sparse,
    kind_of,
    namespace,
    zeros,
)
from ..operators.linear_operator import LinearOperator, as_operator

ENDLESS = 1e19  # a side from this size on is none
NAMES = ("P", "q", "A", "b", "G", "h", "h_lower", "lower", "upper")
_MATRICES = ("P", "A", "G")
_FORMATS = ("csr", "csc", "coo")


class Vector:
    """A datum that is a vector, or a number that stands for all entries alike."""

    def __init__(self, name: str, value: Array) -> None:
        self.name, self.value = name, value
        self.shape: tuple[int, ...] = tuple(value.shape)
        self.size = int(value.size)

    def entries(self, value: Any) -> Array:
        """Return the entries of a value of this datum, (size,)."""
        given = as_data(self.name, value, self.value.dtype, finite=False)
        if given.ndim == 0:
            given = given + zeros(self.shape, self.value)
        if tuple(given.shape) != self.shape:
            raise ValueError(
                f"{self.name} must have shape {self.shape}, found {tuple(given.shape)}"
            )
        return namespace(given).reshape(given, (-1,))

    def made_of(self, part: Array) -> Any:
        """Return the datum with these entries."""
        return part


class Dense(Vector):
    """A datum that is an array (p, n)."""

    def made_of(self, part: Array) -> Any:
        """Return the array with these entries, in C order."""
        return namespace(part).reshape(part, self.shape)

    def product(self, u: Array, y: Array) -> Array:
        """Return M y for the matrix M of the entries u."""
        return self.made_of(u) @ y

    def transposed_product(self, u: Array, w: Array) -> Array:
        """Return M'w for the matrix M of the entries u."""
        return self.made_of(u).T @ w

    def outer(self, w: Array, y: Array) -> Array:
        """Return the entries of w y'."""
        return namespace(w).reshape(w[:, None] * y[None, :], (-1,))


class Stored:
    """A datum that is a sparse matrix, by its stored entries (CSR, CSC or COO).

    ``rows`` and ``columns`` are their places.
    """

    def __init__(self, name: str, value: Any) -> None:
        if value.format not in _FORMATS:
            raise TypeError(
                f"{name} must be CSR, CSC or COO to be one of the parameters, found "
                f"{value.format.upper()}; convert it with .tocsr()"
            )
        self.name, self.value = name, value.copy()
        self.shape: tuple[int, ...] = tuple(value.shape)
        self.size = int(value.data.shape[0])
        places = self.value.tocoo()
        # Not the canonical form: duplicates and their order stay.
        self.rows, self.columns = (np.array(i, dtype=np.intp) for i in places.coords)

    def _with(self, entries: Array) -> Any:
        value = self.value
        if value.format == "coo":
            return type(value)((entries, value.coords), shape=value.shape)
        parts = entries, value.indices.copy(), value.indptr.copy()
        return type(value)(parts, shape=value.shape)

    def entries(self, value: Any) -> Array:
        """Return the stored entries of a matrix of the same pattern, (size,)."""
        if is_sparse(value):
            if value.format != self.value.format or not self._same_places(value):
                raise ValueError(
                    f"{self.name} must be {self.value.format.upper()} with the stored "
                    "places of the matrix that the problem was built with"
                )
            value = value.data
        given = as_data(self.name, value, self.value.dtype, finite=False)
        if tuple(given.shape) != (self.size,):
            raise ValueError(
                f"{self.name} must be that sparse matrix or its {self.size} stored "
                f"entries, found shape {tuple(given.shape)}"
            )
        return given

    def _same_places(self, value: Any) -> bool:
        if tuple(value.shape) != self.shape or value.data.shape[0] != self.size:
            return False
        rows, columns = value.tocoo().coords
        return bool(np.all(rows == self.rows) and np.all(columns == self.columns))

    def made_of(self, part: Array) -> Any:
        """Return the matrix with these stored entries."""
        return self._with(part)

    def product(self, u: Any, y: Any) -> Any:
        """Return M y for the matrix M of the entries u."""
        terms = u * y[self.columns]
        return np.bincount(self.rows, terms, self.shape[0]).astype(y.dtype)

    def transposed_product(self, u: Any, w: Any) -> Any:
        """Return M'w for the matrix M of the entries u."""
        terms = u * w[self.rows]
        return np.bincount(self.columns, terms, self.shape[1]).astype(w.dtype)

    def outer(self, w: Array, y: Array) -> Array:
        """Return the stored entries of w y'."""
        return w[self.rows] * y[self.columns]


@dataclasses.dataclass(frozen=True, eq=False)
class QuadraticData:
    """P, q, A, b, G, h, h_lower, lower and upper at one x; None for what there is not."""

    P: Any
    q: Any
    A: Any = None
    b: Any = None
    G: Any = None
    h: Any = None
    h_lower: Any = None
    lower: Any = None
    upper: Any = None


class NamedData:
    """The data with their places in x.

    Parameters
    ----------
    given : mapping
        A checked value of each name; None for what there is not.
    parameters : sequence of str
        The data of which x consists.

    Attributes
    ----------
    parts : dict of str to (slice, Vector | Dense | Stored)
        The place of each parameter in x.
    m : int
        Size of x.
    """

    def __init__(self, given: Mapping[str, Any], parameters: Sequence[str]) -> None:
        if isinstance(parameters, str):
            raise TypeError(
                f"parameters must be a sequence of names, found the string {parameters!r}"
            )
        self.constant = QuadraticData(**given)
        self.parts: dict[str, tuple[slice, Any]] = {}
        self.m = 0
        for name in parameters:
            part = self._part(name, given)
            end = self.m + part.size
            self.parts[name], self.m = (slice(self.m, end), part), end

    def _part(self, name: str, given: Mapping[str, Any]) -> Any:
        if name not in NAMES or name in self.parts:
            what = "twice" if name in self.parts else "unknown"
            raise ValueError(
                f"parameters must be different names out of {', '.join(NAMES)}, found "
                f"{name!r} ({what})"
            )
        value = given[name]
        if value is None:
            raise ValueError(
                f"parameters names {name!r}, of which no value was given: pass "
                f"{name}= with the value that pack() takes where it is left out"
            )
        if is_sparse(value):
            return Stored(name, value)
        if not is_array(value):
            raise TypeError(
                f"{name} must be an array or a sparse matrix to be one of the "
                f"parameters, found {type(value).__name__}"
            )
        return Dense(name, value) if value.ndim == 2 else Vector(name, value)

    def check_x(self, x: Array) -> None:
        """Refuse an x of another size."""
        if x.shape[0] != self.m:
            sizes = ", ".join(f"{k} ({p.size})" for k, (_, p) in self.parts.items())
            raise ValueError(
                f"x must have shape ({self.m},), the parameters {sizes} one after "
                f"another, found shape {tuple(x.shape)}; .pack(...) makes it"
            )

    def check_values(self, x: Array) -> None:
        """Refuse NaN, and infinities that no side can have, by the name of the datum."""
        self.check_x(x)
        for name, (place, part) in self.parts.items():
            check_entries(name, part.made_of(x[place]))

    def get(self, name: str, x: Array) -> Any:
        """Return a datum at x."""
        if name not in self.parts:
            return getattr(self.constant, name)
        self.check_x(x)
        place, part = self.parts[name]
        return part.made_of(x[place])

    def at(self, x: Array) -> QuadraticData:
        """Return all data at x."""
        return QuadraticData(**{name: self.get(name, x) for name in NAMES})

    def pack(self, values: Mapping[str, Any]) -> Array:
        """Return x for these data; those left out are as the problem was built with."""
        unknown = [name for name in values if name not in self.parts]
        if unknown:
            raise ValueError(
                f"pack takes the parameters {', '.join(self.parts)}, found {unknown[0]!r}"
            )
        entries = [
            part.entries(values.get(name, getattr(self.constant, name)))
            for name, (_, part) in self.parts.items()
        ]
        if not entries:
            return zeros((0,), self.constant.q)
        return copied(namespace(*entries).concat(entries))

    def unpack(self, x: Array) -> dict[str, Any]:
        """Return the data in x, or in a gradient by x, by their names."""
        x = as_data("x", x, finite=False)
        self.check_x(x)
        return {k: p.made_of(copied(x[s])) for k, (s, p) in self.parts.items()}

    def derivative(
        self,
        rows: int,
        x: Array,
        forward: Mapping[str, Callable[[Any, Array], Array]],
        backward: Mapping[str, Callable[[Any, Array], Array]],
    ) -> LinearOperator:
        """Return the operator (rows, m) of the sum over the parameters in ``forward``.

        ``forward[name](part, u)`` is the change (rows,) by the entries u of that datum,
        ``backward[name](part, w)`` its transposed product with w (rows,).
        """

        def apply(u: Array) -> Array:
            total = zeros((rows,), u)
            for name, product in forward.items():
                place, part = self.parts[name]
                total = total + product(part, u[place])
            return total

        def apply_transposed(w: Array) -> Array:
            found = [
                backward[name](part, w) if name in backward else zeros((part.size,), w)
                for name, (_, part) in self.parts.items()
            ]
            return namespace(w).concat(found) if found else zeros((0,), w)

        return LinearOperator((rows, x.shape[0]), apply, apply_transposed)


def check_entries(name: str, value: Any) -> None:
    """Refuse NaN, and an infinity that is no side of a row or bound, by name and place."""
    if value is None or not (is_array(value) or is_sparse(value)):
        return
    if name not in {"h", "h_lower", "lower", "upper"}:
        check_finite(name, value)
        return
    xp = namespace(value)
    allowed = math.inf if name in {"h", "upper"} else -math.inf
    wrong = xp.isnan(value) | (value * math.copysign(1.0, -allowed) >= ENDLESS)
    if bool(xp.any(wrong)):
        i = int(xp.nonzero(xp.reshape(wrong, (-1,)))[0][0])
        found = float(xp.reshape(value, (-1,))[i])
        raise ValueError(
            f"{name} must be numbers, or {allowed} for none, found {found} in entry {i}"
        )


def checked_matrix(name: str, value: Any, columns: int | None, dtype: Any) -> Any:
    """Return a matrix with floating entries of its own, or an operator as it is."""
    if isinstance(value, list | tuple):
        value = as_array(name, value)
    operator = as_operator(name, value, square=False)
    if columns is not None and operator.shape[1] != columns:
        raise ValueError(
            f"{name} must have {columns} columns, as many as q has entries, found shape "
            f"{tuple(operator.shape)}"
        )
    if is_array(value):
        value = as_data(name, value, dtype)
        return copied(value)
    if not is_sparse(value):
        return value
    if kind_of(value) == "other":
        raise TypeError(f"{name} must be real, found dtype {value.dtype}")
    if value.format in {"lil", "dok"}:  # whose entries are not in one array
        value = value.tocsr()
    value = value.astype(dtype, copy=True)
    check_finite(name, value)
    return value


def common_dtype(values: Mapping[str, Any]) -> Any:
    """Return the floating type of the data: double precision where any has it."""
    single = None
    for name in NAMES:
        value: Any = values.get(name)
        if not (is_array(value) or is_sparse(value)):
            continue
        if str(value.dtype).endswith("float32"):
            single = value.dtype
        else:
            xp = namespace(value) if is_array(value) else np
            return xp.float64
    return np.float64 if single is None else single


def refuse_asymmetric(P: Any) -> None:
    """Refuse a P that is a triangle or not symmetric; rounding of a symmetric one is not."""
    if is_sparse(P):
        # A copy, for SciPy sums duplicates in place; some formats know no abs or max.
        P = P.tocsr(copy=True)
        apart = abs(P - P.T)
        off = float(apart.max()) if apart.nnz else 0.0
        size = float(abs(P).max()) if P.nnz else 0.0
    elif is_array(P):
        xp = namespace(P)
        if not P.size:
            return
        off = float(xp.max(xp.abs(P - P.T)))
        size = float(xp.max(xp.abs(P)))
    else:
        return
    if off <= 1e-8 * size:
        return
    if _is_triangle(P):
        raise ValueError(
            "P must be the whole symmetric matrix, found a triangle of it: pass "
            "P + P.T - diag(P)"
        )
    raise ValueError(
        f"P must be symmetric, found entries that differ from P.T by {off:.1e}; "
        "½ y'Py is that of (P + P.T) / 2: pass this"
    )


def _is_triangle(P: Any) -> bool:
    if is_sparse(P):
        return not (
            sparse.triu(P, 1).count_nonzero() and sparse.tril(P, -1).count_nonzero()
        )
    xp = namespace(P)
    upper, lower = xp.triu(P, k=1), xp.tril(P, k=-1)
    return not (bool(xp.any(upper != 0.0)) and bool(xp.any(lower != 0.0)))


def checked_vector(name: str, value: Any, size: int | None, dtype: Any) -> Array:
    """Return a vector, or a number as a vector of that size, with entries of its own."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    vector = copied(as_data(name, value, dtype, finite=False))
    if vector.ndim == 0 and size is not None:
        vector = asarray(float(vector), vector) + zeros((size,), vector)
    if vector.ndim != 1 or size not in {None, vector.shape[0]}:
        expected = "(n,)" if size is None else f"({size},)"
        raise ValueError(
            f"{name} must have shape {expected}, found {tuple(vector.shape)}"
        )
    check_entries(name, vector)
    return vector
