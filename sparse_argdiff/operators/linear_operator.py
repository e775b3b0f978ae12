"""A matrix known by its products: ``A @ x``, ``A.T @ x``, ``A + B``, ``A @ B``, ``2 * A``.

Everything that acts on a vector in this package is one of these: Hessians, cross
derivatives, preconditioners, and the derivative of an argmin itself.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import Array, as_dtype
from .checked_products import (
    Product,
    as_product,
    as_shape,
    block_product,
    diagonal_of,
    matrix_product,
    matrix_type,
    vector_product,
)

Into = Callable[[Array, Array], Any]


class LinearOperator:
    """A linear map given by functions.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns.
    matvec : callable or None
        ``matvec(x)`` returns A x, shape (rows,), for x of shape (columns,).
    rmatvec : callable, optional
        ``rmatvec(y)`` returns Aᵀ y.  A symmetric operator needs none.
    matmat, rmatmat : callable, optional
        The same for blocks of columns; by default column by column.
    into : callable, optional
        ``into(x, out)`` writes A x into ``out`` and allocates nothing; it returns x'Ax
        where the product yields it at no cost, otherwise None.
    into_blocks : bool
        Whether ``into`` takes C-ordered blocks (columns, k) too, and gives k curvatures.
    dtype : dtype, optional
        Of the entries, when it is known.
    symmetric, positive_definite : bool
        What is known by construction.  An operator that does not claim to be
        symmetric is tested before it is differentiated through.
    diagonal : array or callable, optional
        The exact diagonal, or a function that computes it when it is asked for.
    is_diagonal : bool
        Whether the diagonal is all there is.
    accuracy : float, optional
        Relative accuracy of a product where it is worse than rounding (finite
        differences).
    note : str
        A caveat that results built on this operator repeat in their ``warnings``.
    matrix : array, sparse matrix or callable, optional
        The entries, where the operator was made from them.
    split : (LinearOperator, array), optional
        A = core + diag(d), of which d alone depends on the parameters x.
    rank : int, optional
        A bound on the rank, where one is known: the number of samples.
    update : callable, optional
        ``update(A)`` returns this preconditioner for a nearby matrix A.
    n_matvec : int
        Products with A that building this preconditioner cost.

    Raises
    ------
    NotImplementedError
        On a product for which no function was given.
    ValueError
        On operands, or results of the functions, of the wrong shape.
    """

    # NumPy must not try to broadcast over an operator: `2.0 * A`, `x @ A` come to us.
    __array_ufunc__ = None

    def __init__(
        self,
        shape: tuple[int, int],
        matvec: Product | None,
        rmatvec: Product | None = None,
        *,
        matmat: Product | None = None,
        rmatmat: Product | None = None,
        into: Into | None = None,
        into_blocks: bool = False,
        dtype: Any = None,
        symmetric: bool = False,
        positive_definite: bool = False,
        diagonal: Array | Callable[[], Array] | None = None,
        is_diagonal: bool = False,
        accuracy: float | None = None,
        note: str = "",
        matrix: Any = None,
        split: tuple[LinearOperator, Array] | None = None,
        rank: int | None = None,
        update: Callable[[Any], LinearOperator] | None = None,
        n_matvec: int = 0,
    ) -> None:
        rows, columns = as_shape(shape)
        symmetric = symmetric or positive_definite
        if symmetric and rows != columns:
            raise ValueError(f"a symmetric operator is square, found shape {shape}")
        self.shape = (rows, columns)
        self.ndim = 2
        self.dtype = as_dtype(dtype)
        self.symmetric = symmetric
        self.positive_definite = positive_definite
        self.accuracy = accuracy
        self.note = note
        self._matrix = matrix
        self.split = split
        self.rank = rank
        self.update = update
        self.n_matvec = n_matvec
        self._matvec = as_product("matvec", matvec)
        self._rmatvec = as_product("rmatvec", rmatvec)
        self._matmat = as_product("matmat", matmat)
        self._rmatmat = as_product("rmatmat", rmatmat)
        if symmetric:
            self._rmatvec = self._rmatvec or self._matvec
            self._rmatmat = self._rmatmat or self._matmat
        self.into: Into | None = as_product("into", into)
        self.into_blocks = into_blocks
        self._diagonal = diagonal
        self.is_diagonal = is_diagonal

    def __repr__(self) -> str:
        kind = "symmetric " if self.symmetric else ""
        kind = "positive definite " if self.positive_definite else kind
        return f"<{kind}LinearOperator {self.shape[0]} x {self.shape[1]}>"

    # products ---------------------------------------------------------------------

    @property
    def has_matmat(self) -> bool:
        """Whether a block of columns is multiplied as a whole."""
        return self._matmat is not None

    def matvec(self, x: Array) -> Array:
        """Return A x for x of shape (columns,)."""
        return vector_product(self._matvec, "matvec", x, self.shape)

    def rmatvec(self, y: Array) -> Array:
        """Return Aᵀ y for y of shape (rows,)."""
        return vector_product(self._rmatvec, "rmatvec", y, self.shape[::-1])

    def matmat(self, x: Array) -> Array:
        """Return A X for X of shape (columns, k)."""
        return block_product(self._matmat, self.matvec, "matmat", x, self.shape)

    def rmatmat(self, y: Array) -> Array:
        """Return Aᵀ Y for Y of shape (rows, k)."""
        return block_product(
            self._rmatmat, self.rmatvec, "rmatmat", y, self.shape[::-1]
        )

    def apply(self, x: Array, out: Array) -> Any:
        """Write A x, or A X, into ``out``; return x'Ax of each, or None, as ``into``."""
        if self.into is not None and (x.ndim == 1 or self.into_blocks):
            return self.into(x, out)
        out[...] = self @ x
        return None

    def __matmul__(self, other: Any) -> Any:
        if isinstance(other, LinearOperator):
            return _compose(self, other)
        if getattr(other, "ndim", None) == 1:
            return self.matvec(other)
        if getattr(other, "ndim", None) == 2:
            return self.matmat(other)
        raise TypeError(
            "an operator multiplies 1-D and 2-D arrays and operators, found "
            f"{type(other).__name__}"
        )

    def __rmatmul__(self, other: Array) -> Array:
        vector = getattr(other, "ndim", None) == 1
        return self.rmatvec(other) if vector else self.rmatmat(other.T).T

    # algebra ----------------------------------------------------------------------

    @property
    def T(self) -> LinearOperator:
        """The transpose."""
        if self.symmetric:
            return self
        return LinearOperator(
            self.shape[::-1],
            self._rmatvec,
            self._matvec,
            matmat=self._rmatmat,
            rmatmat=self._matmat,
            dtype=self.dtype,
            diagonal=self._diagonal,
            accuracy=self.accuracy,
            note=self.note,
        )

    def __add__(self, other: Any) -> LinearOperator:
        return _add(self, aslinearoperator(other))

    __radd__ = __add__

    def __sub__(self, other: Any) -> LinearOperator:
        return _add(self, -aslinearoperator(other))

    def __rsub__(self, other: Any) -> LinearOperator:
        return _add(aslinearoperator(other), -self)

    def __mul__(self, factor: Any) -> LinearOperator:
        if not isinstance(factor, numbers.Real):
            return NotImplemented
        return _scale(self, float(factor))

    __rmul__ = __mul__

    def __neg__(self) -> LinearOperator:
        return _scale(self, -1.0)

    # entries ----------------------------------------------------------------------

    @property
    def has_diagonal(self) -> bool:
        """Whether :meth:`diagonal` is available without products."""
        return self._diagonal is not None

    @property
    def matrix(self) -> Any:
        """The explicit entries behind the operator, or None."""
        return self._matrix() if callable(self._matrix) else self._matrix

    def diagonal(self) -> Array:
        """Return the exact diagonal, shape (rows,)."""
        if self._diagonal is None:
            raise NotImplementedError(
                "the diagonal of this operator is not known; give diagonal="
            )
        diagonal = self._diagonal() if callable(self._diagonal) else self._diagonal
        if getattr(diagonal, "shape", None) != (self.shape[0],):
            raise ValueError(
                f"the diagonal must be an array of shape ({self.shape[0]},), found "
                f"{getattr(diagonal, 'shape', type(diagonal).__name__)}"
            )
        return diagonal

    def todense(self, xp: Any = np) -> Array:
        """Return all entries, shape (rows, columns): for small operators and tests."""
        return self.matmat(xp.eye(self.shape[1], dtype=self.dtype or xp.float64))


def _caveats(a: LinearOperator, b: LinearOperator) -> dict[str, Any]:
    notes = [note for op in (a, b) for note in op.note.split("; ") if note]
    accuracy = max(a.accuracy or 0.0, b.accuracy or 0.0)
    return {"accuracy": accuracy or None, "note": "; ".join(dict.fromkeys(notes))}


def _compose(a: LinearOperator, b: LinearOperator) -> LinearOperator:
    if a.shape[1] != b.shape[0]:
        raise ValueError(f"shapes {a.shape} and {b.shape} do not chain")
    return LinearOperator(
        (a.shape[0], b.shape[1]),
        lambda x: a.matvec(b.matvec(x)),
        lambda y: b.rmatvec(a.rmatvec(y)),
        matmat=lambda x: a.matmat(b.matmat(x)),
        rmatmat=lambda y: b.rmatmat(a.rmatmat(y)),
        dtype=a.dtype if a.dtype == b.dtype else None,
        **_caveats(a, b),
    )


def _add(a: LinearOperator, b: LinearOperator) -> LinearOperator:
    if a.shape != b.shape:
        raise ValueError(f"shapes {a.shape} and {b.shape} do not add")
    known = a.has_diagonal and b.has_diagonal
    return LinearOperator(
        a.shape,
        lambda x: a.matvec(x) + b.matvec(x),
        lambda y: a.rmatvec(y) + b.rmatvec(y),
        matmat=lambda x: a.matmat(x) + b.matmat(x),
        rmatmat=lambda y: a.rmatmat(y) + b.rmatmat(y),
        dtype=a.dtype if a.dtype == b.dtype else None,
        symmetric=a.symmetric and b.symmetric,
        positive_definite=a.positive_definite and b.positive_definite,
        diagonal=(lambda: a.diagonal() + b.diagonal()) if known else None,
        **_caveats(a, b),
    )


def _scale(a: LinearOperator, factor: float) -> LinearOperator:
    return LinearOperator(
        a.shape,
        lambda x: factor * a.matvec(x),
        lambda y: factor * a.rmatvec(y),
        matmat=lambda x: factor * a.matmat(x),
        rmatmat=lambda y: factor * a.rmatmat(y),
        dtype=a.dtype,
        symmetric=a.symmetric,
        positive_definite=a.positive_definite and factor > 0,
        diagonal=(lambda: factor * a.diagonal()) if a.has_diagonal else None,
        accuracy=a.accuracy,
        note=a.note,
        matrix=None if a.matrix is None else lambda: factor * a.matrix,
        split=a.split and (factor * a.split[0], factor * a.split[1]),
        rank=a.rank,
    )


def aslinearoperator(A: Any) -> LinearOperator:
    """Return ``A`` as a :class:`LinearOperator`.

    Parameters
    ----------
    A : ndarray, SciPy or CuPy sparse matrix, SciPy or CuPy LinearOperator, or any
        object with ``shape`` and ``@`` or ``matvec``.

    Raises
    ------
    TypeError
        For anything else, and for complex or object entries.
    ValueError
        When ``A`` is not two-dimensional.
    """
    if isinstance(A, LinearOperator):
        return A
    if isinstance(A, np.matrix):  # whose products of vectors are rows
        A = np.asarray(A)
    shape, dtype = matrix_type(A)
    if hasattr(A, "matvec"):
        return LinearOperator(
            shape,
            A.matvec,
            getattr(A, "rmatvec", None),
            matmat=getattr(A, "matmat", None),
            rmatmat=getattr(A, "rmatmat", None),
            dtype=dtype,
        )
    forward = matrix_product(A)
    backward = matrix_product(A.T) if hasattr(A, "T") else None
    return LinearOperator(
        shape,
        forward,
        backward,
        matmat=forward,
        rmatmat=backward,
        dtype=dtype,
        diagonal=diagonal_of(A),
        matrix=A,
    )
