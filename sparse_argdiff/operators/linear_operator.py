"""A matrix known by its products: ``A @ x``, ``A.T @ x``, ``A + B``, ``A @ B``, ``2 * A``.

Hessians, cross derivatives, preconditioners and the derivative of an argmin are operators
of this kind.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, as_dtype, check_callable, check_shape
from .checked_products import (
    FourProducts,
    Product,
    as_products,
    as_shape,
    block_product,
    diagonal_of,
    matrix_product,
    matrix_type,
    vector_product,
)

Into = Callable[[Array, Array], Any]


class Structure(NamedTuple):
    """What is known of an operator beside its products and its diagonal.

    Attributes
    ----------
    is_diagonal : bool
        Whether all entries off the diagonal are zero.
    matrix : array, sparse matrix, callable or None
        The entries, where the operator was made from them, or a function that gives them.
    split : (LinearOperator, array) or None
        A = core + diag(d), of which d alone depends on the parameters x.
    rank : int or None
        A bound on the rank, where one is known: the number of samples.
    accuracy : float or None
        Relative accuracy of a product where it is worse than rounding (finite
        differences).
    note : str
        A caveat that results built on this operator repeat in their ``warnings``.
    """

    is_diagonal: bool = False
    matrix: Any = None
    split: tuple[LinearOperator, Array] | None = None
    rank: int | None = None
    accuracy: float | None = None
    note: str = ""


_UNKNOWN = Structure()


class LinearOperator:
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
        The product in place, where :meth:`with_product` gave one, and whether it takes
        blocks.
    update, n_matvec
        How a preconditioner is renewed, and what building it cost: :meth:`with_setup`.
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
    _products: FourProducts
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
        structure: Structure = _UNKNOWN,
    ) -> None:
        rows, columns = as_shape(shape)
        symmetric = symmetric or positive_definite
        if symmetric and rows != columns:
            raise ValueError(f"a symmetric operator is square, found shape {shape}")
        products = FourProducts(matvec, rmatvec, matmat, rmatmat)
        vars(self).update(
            shape=(rows, columns),
            dtype=as_dtype(dtype),
            symmetric=symmetric,
            positive_definite=positive_definite,
            structure=structure,
            _products=as_products(products, symmetric=symmetric),
            _diagonal=diagonal,
        )

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"an operator is immutable, {name} cannot be set")

    def _with(self, **changes: Any) -> LinearOperator:
        changed = object.__new__(LinearOperator)
        vars(changed).update(vars(self), **changes)
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

    def with_setup(
        self,
        *,
        update: Callable[[Any], LinearOperator] | None = None,
        n_matvec: int | None = None,
    ) -> LinearOperator:
        """Return the same preconditioner with other records of its setup, where given.

        Parameters
        ----------
        update : callable, optional
            ``update(A)`` returns the preconditioner of a nearby matrix A.
        n_matvec : int, optional
            Products with A that building this preconditioner cost.
        """
        check_callable(update=update)
        return self._with(
            update=self.update if update is None else update,
            n_matvec=self.n_matvec if n_matvec is None else n_matvec,
        )

    def __repr__(self) -> str:
        kind = "symmetric " if self.symmetric else ""
        kind = "positive definite " if self.positive_definite else kind
        return f"<{kind}LinearOperator {self.shape[0]} x {self.shape[1]}>"

    # products ---------------------------------------------------------------------

    @property
    def has_matmat(self) -> bool:
        """Whether a block of columns is multiplied as a whole."""
        return self._products.matmat is not None

    def matvec(self, x: Array) -> Array:
        """Return A x for x of shape (columns,)."""
        return vector_product(self._products.matvec, "matvec", x, self.shape)

    def rmatvec(self, y: Array) -> Array:
        """Return Aᵀ y for y of shape (rows,)."""
        return vector_product(self._products.rmatvec, "rmatvec", y, self.shape[::-1])

    def matmat(self, x: Array) -> Array:
        """Return A X for X of shape (columns, k)."""
        function, shape = self._products.matmat, self.shape
        return block_product(function, self.matvec, "matmat", x, shape)

    def rmatmat(self, y: Array) -> Array:
        """Return Aᵀ Y for Y of shape (rows, k)."""
        function, shape = self._products.rmatmat, self.shape[::-1]
        return block_product(function, self.rmatvec, "rmatmat", y, shape)

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
        matvec, rmatvec, matmat, rmatmat = self._products
        return self._with(
            shape=self.shape[::-1],
            structure=Structure(accuracy=self.accuracy, note=self.note),
            into=None,
            _products=FourProducts(rmatvec, matvec, rmatmat, matmat),
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
        """The explicit entries behind the operator, or None."""
        matrix = self.structure.matrix
        return matrix() if callable(matrix) else matrix

    @property
    def is_diagonal(self) -> bool:
        """Whether all entries off the diagonal are zero."""
        return self.structure.is_diagonal

    @property
    def split(self) -> tuple[LinearOperator, Array] | None:
        """The parts (core, d) of A = core + diag(d), or None."""
        return self.structure.split

    @property
    def rank(self) -> int | None:
        """A bound on the rank, or None."""
        return self.structure.rank

    @property
    def accuracy(self) -> float | None:
        """Relative accuracy of a product where it is worse than rounding."""
        return self.structure.accuracy

    @property
    def note(self) -> str:
        """A caveat that results repeat in their ``warnings``."""
        return self.structure.note

    def todense(self, xp: Any = np) -> Array:
        """Return all entries, shape (rows, columns): for small operators and tests."""
        return self.matmat(xp.eye(self.shape[1], dtype=self.dtype or xp.float64))


def _caveats(a: LinearOperator, b: LinearOperator) -> Structure:
    """Return the accuracy and the notes of what is made of both."""
    notes = [note for op in (a, b) for note in op.note.split("; ") if note]
    accuracy = max(a.accuracy or 0.0, b.accuracy or 0.0) or None
    return Structure(accuracy=accuracy, note="; ".join(dict.fromkeys(notes)))


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
        structure=_caveats(a, b),
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
        structure=_caveats(a, b),
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
        structure=a.structure._replace(
            matrix=None if a.matrix is None else lambda: factor * a.matrix,
            split=a.split and (factor * a.split[0], factor * a.split[1]),
        ),
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
    if isinstance(A, np.matrix):  # its products with vectors are rows
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
        structure=Structure(matrix=A),
    )


def as_operator(
    name: str, value: Any, shape: tuple[int, int] | None = None
) -> LinearOperator:
    """Return a square operator, of ``shape`` where one is given.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was found and what was expected.
    """
    try:
        operator = aslinearoperator(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None
    if operator.shape != (shape or operator.shape[:1] * 2):
        expected = f"have shape {shape}" if shape else "be square"
        raise ValueError(f"{name} must {expected}, found shape {operator.shape}")
    return operator


def as_diagonal(name: str, value: Any, n: int) -> Array:
    """Return the diagonal of a square operator (n, n) that has one."""
    operator = as_operator(name, value, (n, n))
    if not operator.has_diagonal:
        raise ValueError(f"{name} must know its diagonal, found an operator without")
    return operator.diagonal()
