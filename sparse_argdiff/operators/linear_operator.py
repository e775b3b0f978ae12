"""A matrix known by its products: ``A @ x``, ``A.T @ x``, ``A + B``, ``A @ B``, ``2 * A``.

Hessians, cross derivatives, preconditioners and the derivative of an argmin are operators
of this kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from ..arrays import (
    Array,
    Product,
    Products,
    as_dtype,
    as_shape,
    block_product,
    check_callable,
    check_products,
    check_shape,
    vector_product,
)
from .algebra import Algebra, compose
from .matrix_products import arguments_of
from .structure import UNKNOWN, Structure, common

Into = Callable[[Array, Array], Any]


def _of_structure(name: str, description: str) -> Any:
    """Return the property of an operator that is a field of its structure."""
    return property(attrgetter(f"structure.{name}"), doc=description)


class LinearOperator(Algebra):
    """A linear map given by functions.  It is immutable.

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
    dtype : dtype, optional
        Of the entries, when it is known.
    symmetric, positive_definite : bool
        What is known by construction.  An operator that does not claim to be
        symmetric is tested before it is differentiated through.
    diagonal : array or callable, optional
        The exact diagonal, or a function that computes it when it is needed.
    structure : Structure, optional
        What else is known: explicit entries, a split, a rank, the accuracy of products.

    Attributes
    ----------
    into, into_blocks
        The product in place, if any, and whether it takes blocks: :meth:`with_product`.
    update, n_matvec, setup
        How a preconditioner is renewed, what building it cost, and what it can be built of
        anew: :meth:`with_setup`.
    matrix, is_diagonal, split, rank, accuracy, note
        Those of ``structure``.

    Raises
    ------
    NotImplementedError
        On a product for which no function was given.
    ValueError
        On operands, or results of the functions, of the wrong shape.
    """

    # NumPy leaves `2.0 * A` and `x @ A` to the methods below.
    __array_ufunc__ = None

    shape: tuple[int, int]
    ndim: int = 2
    dtype: Any
    symmetric: bool
    positive_definite: bool
    structure: Structure
    into: Into | None = None
    into_blocks: bool = False
    update: Callable[[Any], LinearOperator] | None = None
    n_matvec: int = 0
    setup: Any = None
    _forward: Products
    _backward: Products
    _diagonal: Array | Callable[[], Array] | None

    def __init__(
        self,
        shape: tuple[int, int],
        matvec: Product | None,
        rmatvec: Product | None = None,
        *,
        matmat: Product | None = None,
        rmatmat: Product | None = None,
        dtype: Any = None,
        symmetric: bool = False,
        positive_definite: bool = False,
        diagonal: Array | Callable[[], Array] | None = None,
        structure: Structure = UNKNOWN,
    ) -> None:
        rows, columns = as_shape(shape)
        check_products(matvec, rmatvec, matmat, rmatmat)
        symmetric = symmetric or positive_definite
        if symmetric:
            if rows != columns:
                raise ValueError(f"a symmetric operator is square, found shape {shape}")
            rmatvec, rmatmat = rmatvec or matvec, rmatmat or matmat
        vars(self).update(
            shape=(rows, columns),
            dtype=as_dtype(dtype),
            symmetric=symmetric,
            positive_definite=positive_definite,
            structure=structure,
            _forward=(matvec, matmat),
            _backward=(rmatvec, rmatmat),
            _diagonal=diagonal,
        )

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"an operator is immutable, {name} cannot be set")

    def _with(self, **changes: Any) -> LinearOperator:
        changed = object.__new__(LinearOperator)
        object.__setattr__(changed, "__dict__", vars(self) | changes)
        return changed

    def with_product(
        self, into: Into | None, *, blocks: bool = False
    ) -> LinearOperator:
        """Return the same operator with a product in place, or without one.

        Parameters
        ----------
        into : callable or None
            ``into(x, out)`` writes A x into ``out`` and allocates nothing; it returns
            x'Ax where the product yields it at no cost, otherwise None.
        blocks : bool
            Whether ``into`` takes C-ordered blocks (columns, k) too, and returns k
            values x'Ax.
        """
        check_callable(into=into)
        return self._with(into=into, into_blocks=blocks)

    def with_structure(self, structure: Structure) -> LinearOperator:
        """Return the same operator of which something else is known."""
        return self._with(structure=structure)

    def with_setup(
        self,
        *,
        update: Callable[[Any], LinearOperator] | None = None,
        n_matvec: int | None = None,
        setup: Any = None,
    ) -> LinearOperator:
        """Return the same preconditioner with other records of its setup, where given.

        Parameters
        ----------
        update : callable, optional
            ``update(A)`` returns the preconditioner of a nearby matrix A.
        n_matvec : int, optional
            Products with A that building this preconditioner cost.
        setup : object, optional
            The arrays that it was built of: ``setup.built()`` returns the same operator,
            without products.
        """
        check_callable(update=update)
        given = {"update": update, "n_matvec": n_matvec, "setup": setup}
        return self._with(**{k: v for k, v in given.items() if v is not None})

    def __repr__(self) -> str:
        kind = "symmetric " if self.symmetric else ""
        kind = "positive definite " if self.positive_definite else kind
        return f"<{kind}LinearOperator {self.shape[0]} x {self.shape[1]}>"

    # products ---------------------------------------------------------------------

    @property
    def has_matvec(self) -> bool:
        """Whether there is a product A x, or one of A with blocks."""
        return self._forward != (None, None)

    @property
    def has_matmat(self) -> bool:
        """Whether a block of columns is multiplied as a whole."""
        return self._forward[1] is not None

    def matvec(self, x: Array) -> Array:
        """Return A x for x of shape (columns,)."""
        return vector_product(self._forward[0], "matvec", x, self.shape)

    def rmatvec(self, y: Array) -> Array:
        """Return Aᵀ y for y of shape (rows,)."""
        return vector_product(self._backward[0], "rmatvec", y, self.shape[::-1])

    def matmat(self, x: Array) -> Array:
        """Return A X for X of shape (columns, k)."""
        return block_product(self._forward, "mat", x, self.shape)

    def rmatmat(self, y: Array) -> Array:
        """Return Aᵀ Y for Y of shape (rows, k)."""
        return block_product(self._backward, "rmat", y, self.shape[::-1])

    def apply(self, x: Array, out: Array) -> Any:
        """Write A x, or A X, into ``out``; return x'Ax of each, or None, as ``into``."""
        if self.into is not None and (x.ndim == 1 or self.into_blocks):
            return self.into(x, out)
        out[...] = self @ x
        return None

    def __matmul__(self, other: Any) -> Any:
        if isinstance(other, LinearOperator):
            composed: LinearOperator = compose(self, other)
            return composed
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
        known = self.structure
        (matvec, matmat), (rmatvec, rmatmat) = self._forward, self._backward
        return LinearOperator(
            self.shape[::-1],
            rmatvec,
            matvec,
            matmat=rmatmat,
            rmatmat=matmat,
            dtype=self.dtype,
            diagonal=self._diagonal,
            structure=known if known is UNKNOWN else common(known),
        )

    def for_columns(self, places: Sequence[int], width: int) -> LinearOperator:
        """Return the operator of some columns of a block; itself where all have the same."""
        own = self.structure.columns
        return self if own is None else own(places, width)

    # entries and structure --------------------------------------------------------

    @property
    def has_diagonal(self) -> bool:
        """Whether :meth:`diagonal` is available without products."""
        return self._diagonal is not None

    def diagonal(self) -> Array:
        """Return the exact diagonal, shape (rows,)."""
        if self._diagonal is None:
            raise NotImplementedError(
                "the diagonal of this operator is not known; give diagonal="
            )
        diagonal = self._diagonal() if callable(self._diagonal) else self._diagonal
        check_shape("diagonal", diagonal, self.shape[:1])
        return diagonal

    @property
    def matrix(self) -> Any:
        """The explicit entries, or None."""
        entries = self.structure.matrix
        return entries() if callable(entries) else entries

    is_diagonal = _of_structure(
        "is_diagonal", "Whether all entries off the diagonal are zero."
    )
    split = _of_structure(
        "split", "The parts (core, d) of A = core + diag(d), or None."
    )
    rank = _of_structure("rank", "A bound on the rank, or None.")
    accuracy = _of_structure("accuracy", "Relative accuracy of a product, if inexact.")
    blocks = _of_structure("blocks", "The diagonal blocks that are all of it, or None.")
    note = _of_structure("note", "A caveat that results repeat in their ``warnings``.")

    def todense(self, xp: Any = np) -> Array:
        """Return all entries, shape (rows, columns), by a product with each unit vector.

        For the derivative of an argmin each column is a linear solve.
        """
        return self.matmat(xp.eye(self.shape[1], dtype=self.dtype or xp.float64))

    def toarray(self) -> Array:
        """Return all entries as a NumPy array: :meth:`todense`, as SciPy calls both."""
        return self.todense()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("copy=False is not possible: the entries are computed")
        return np.asarray(self.toarray(), dtype=dtype)


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
    return LinearOperator(**arguments_of(A))


def as_operator(
    name: str,
    value: Any,
    shape: tuple[int, int] | None = None,
    *,
    square: bool = True,
) -> LinearOperator:
    """Return an operator of that shape, or a square one; errors call it ``name``."""
    try:
        operator = aslinearoperator(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None
    if square and operator.shape != (shape or operator.shape[:1] * 2):
        expected = f"have shape {shape}" if shape else "be square"
        raise ValueError(f"{name} must {expected}, found shape {operator.shape}")
    return operator
