"""A matrix known by its products: ``A @ x``, ``A.T @ x``, ``A + B``, ``A @ B``, ``2 * A``.

Everything that acts on a vector in this package is one of these: Hessians, cross
derivatives, preconditioners, and the derivative of an argmin itself.
"""

from __future__ import annotations

import copy
import dataclasses
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Structure:
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
    dtype : dtype, optional
        Of the entries, when it is known.
    symmetric, positive_definite : bool
        What is known by construction.  An operator that does not claim to be
        symmetric is tested before it is differentiated through.
    diagonal : array or callable, optional
        The exact diagonal, or a function that computes it when it is asked for.
    structure : Structure, optional
        What else is known: explicit entries, a split, a rank, the accuracy of products.

    Attributes
    ----------
    into, into_blocks
        The product in place, of :meth:`with_product`; None without one.
    update, n_matvec
        How a preconditioner is renewed, and what building it cost (:meth:`with_setup`).
    is_diagonal, split, rank, accuracy, note, matrix
        Those of the structure.

    Raises
    ------
    NotImplementedError
        On a product for which no function was given.
    ValueError
        On operands, or results of the functions, of the wrong shape.

    Notes
    -----
    An operator is immutable; ``with_product`` and ``with_setup`` return another one.
    """

    shape: tuple[int, int]
    ndim: int
    dtype: Any
    symmetric: bool
    positive_definite: bool
    structure: Structure
    into: Into | None
    into_blocks: bool
    update: Callable[[Any], LinearOperator] | None
    n_matvec: int
    _matvec: Product | None
    _rmatvec: Product | None
    _matmat: Product | None
    _rmatmat: Product | None
    _diagonal: Array | Callable[[], Array] | None

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
        forward, backward = as_product("matvec", matvec), as_product("rmatvec", rmatvec)
        columns_forward = as_product("matmat", matmat)
        columns_backward = as_product("rmatmat", rmatmat)
        if symmetric:
            backward = backward or forward
            columns_backward = columns_backward or columns_forward
        vars(self).update(
            shape=(rows, columns),
            ndim=2,
            dtype=as_dtype(dtype),
            symmetric=symmetric,
            positive_definite=positive_definite,
            structure=structure,
            into=None,
            into_blocks=False,
            update=None,
            n_matvec=0,
            _matvec=forward,
            _rmatvec=backward,
            _matmat=columns_forward,
            _rmatmat=columns_backward,
            _diagonal=diagonal,
        )

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(
            f"an operator is immutable, {name} cannot be set; with_product and "
            "with_setup return another operator"
        )

    def _changed(self, **changes: Any) -> LinearOperator:
        twin = copy.copy(self)
        vars(twin).update(changes)
        return twin

    def with_product(
        self, into: Into | None, *, blocks: bool = False
    ) -> LinearOperator:
        """Return this operator with a product in place, or without one.

        Parameters
        ----------
        into : callable or None
            ``into(x, out)`` writes A x into ``out`` and allocates nothing; it returns
            x'Ax where the product yields it at no cost, otherwise None.
        blocks : bool
            Whether ``into`` takes C-ordered blocks (columns, k) too, and returns k
            values x'Ax.
        """
        return self._changed(into=as_product("into", into), into_blocks=blocks)

    def with_setup(
        self,
        *,
        update: Callable[[Any], LinearOperator] | None = None,
        n_matvec: int | None = None,
    ) -> LinearOperator:
        """Return this preconditioner with a record of its setup; None leaves a part as is.

        Parameters
        ----------
        update : callable, optional
            ``update(A)`` returns the preconditioner of a nearby matrix A.
        n_matvec : int, optional
            Products with A that building this preconditioner cost.
        """
        return self._changed(
            update=self.update if update is None else as_product("update", update),
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
            structure=Structure(accuracy=self.accuracy, note=self.note),
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
        structure=dataclasses.replace(
            a.structure,
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
    if shape is not None and operator.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, found {operator.shape}")
    if operator.shape[0] != operator.shape[1]:
        raise ValueError(f"{name} must be square, found shape {operator.shape}")
    return operator


def as_diagonal(name: str, value: Any, n: int) -> Array:
    """Return the diagonal of a square operator (n, n) that has one."""
    operator = as_operator(name, value, (n, n))
    if not operator.has_diagonal:
        raise ValueError(f"{name} must know its diagonal, found an operator without")
    return operator.diagonal()
