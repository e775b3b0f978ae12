"""What is known of a matrix beside its products, and what sums and multiples keep of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..arrays import Array, brief


class Forming(NamedTuple):
    """How the entries of an operator are had for less than n products.

    Attributes
    ----------
    price : float
        What that takes, in products.
    nonzeros : int
        Entries that a product reads.
    entries : callable
        Returns them, an array (n, n).
    """

    price: float
    nonzeros: int
    entries: Callable[[], Any]


class Structure(NamedTuple):
    """What is known of an operator beside its products and its diagonal.

    Records with arrays compare by identity.

    Attributes
    ----------
    is_diagonal : bool
        Whether all entries off the diagonal are zero.
    matrix : array, sparse matrix, callable or None
        The entries, where the operator was made from them, or a function that gives them.
    split : (LinearOperator, array) or None
        A = core + diag(d), of which d alone depends on the parameters x.  The core is
        positive semidefinite: where d ≥ 0, proofs rest on A ≥ diag(d).
    rank : int or None
        A bound on the rank, where one is known: the number of samples.
    accuracy : float or None
        Relative accuracy of a product where it is worse than rounding (finite
        differences).
    note : str
        A caveat that results built on this operator repeat in their ``warnings``.
    blocks : DiagonalBlocks or None
        The diagonal blocks that are all of the operator: solvers take it apart.
    columns : callable or None
        Of an operator on blocks (n, k) whose columns have matrices of their own: the
        operator of some of them.
    own : array (n, k) or None
        Of such an operator where each matrix is a diagonal: these diagonals.
    forming : Forming or None
        How the entries can be had, where that takes less than n products.
    outputs : int
        K of a core that adds nothing to a shift of all K outputs (softmax), whose unknowns
        come K at a time: what shifts no mean stays so under an M of level diagonal blocks.
    """

    is_diagonal: bool = False
    matrix: Any = None
    split: tuple[Any, Array] | None = None
    rank: int | None = None
    accuracy: float | None = None
    note: str = ""
    blocks: Any = None
    columns: Any = None
    own: Any = None
    forming: Forming | None = None
    outputs: int = 1

    def __repr__(self) -> str:
        return brief("Structure", self._asdict())

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    def __hash__(self) -> int:
        return id(self)

    def scaled(self, factor: float) -> Structure:
        """Return what is known of a multiple of the operator."""
        if self is UNKNOWN:
            return self
        matrix, split = self.matrix, self.split
        entries = matrix() if callable(matrix) else matrix
        return self._replace(
            matrix=None if entries is None else lambda: factor * entries,
            split=split and (factor * split[0], factor * split[1]),
            blocks=None,
            columns=None,
            own=None,
            forming=None,
        )


UNKNOWN = Structure()


def common(*parts: Structure) -> Structure:
    """Return the accuracy and the notes of what is made of operators."""
    if all(part is UNKNOWN for part in parts):
        return UNKNOWN
    notes = [note for part in parts for note in part.note.split("; ") if note]
    accuracy = max(part.accuracy or 0.0 for part in parts) or None
    return Structure(accuracy=accuracy, note="; ".join(dict.fromkeys(notes)))
