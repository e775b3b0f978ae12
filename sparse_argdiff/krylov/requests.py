"""Work is asked for, not done: whoever runs several solves may do theirs together.

A solver is a generator.  It yields a :class:`Request`, is sent the product, and returns
its result:

    y, square = yield Request(A, p, out)          # y = A p, in ``out`` or elsewhere

so that one algorithm serves one right-hand side and many, each with its own status, and
a column that has ended asks for nothing more.  Between :class:`Join` and :class:`Leave`
its vectors may lie beside those of others, and its passes are asked for too.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple, Protocol, TypeVar

from ..arrays import Array
from ..kernels import Kernels, Make, Scalars
from ..operators.linear_operator import LinearOperator

T = TypeVar("T")


class Request(NamedTuple):
    """A product A x that is wanted, and where it may be written."""

    A: LinearOperator
    x: Array
    out: Array


class Answer(NamedTuple):
    """The product, to be read before the next one is asked for."""

    y: Array
    square: float | None  # x'A x, where it came at no cost


class Pass(NamedTuple):
    """A pass over vectors, one of the primitives of :class:`Kernels`."""

    name: str
    vectors: tuple[Array, ...]
    s: Scalars | None = None  # what the primitive reads and writes, but for a dot
    d: Array | None = None  # the diagonal of M, which is the same for all


class Passes:
    """The primitives for vectors beside others: they are asked for, not done."""

    def dot(self, x: Array, y: Array) -> Pass:
        """Ask for x'y."""
        return Pass("dot", (x, y))

    def cg_residual(
        self, r: Array, q: Array, s: Scalars, d: Array | None = None
    ) -> Pass:
        """Ask for the step of the residual."""
        return Pass("cg_residual", (r, q), s, d)

    def cg_advance(
        self, x: Array, p: Array, z: Array, s: Scalars, d: Array | None = None
    ) -> Pass:
        """Ask for the step along p and the next direction."""
        return Pass("cg_advance", (x, p, z), s, d)

    def lanczos(self, older: Array, newer: Array, y: Array, s: Scalars) -> Pass:
        """Ask for the combination of three residual vectors."""
        return Pass("lanczos", (older, newer, y), s)

    def minres_advance(
        self, x: Array, w_old: Array, w: Array, v: Array, s: Scalars
    ) -> Pass:
        """Ask for the next direction and the step along it."""
        return Pass("minres_advance", (x, w_old, w, v), s)


PASSES = Passes()


def dot(kernels: Kernels | Passes, x: Array, y: Array) -> Asking[float]:
    """Return x'y, wherever the vectors lie."""
    found = kernels.dot(x, y)
    return (yield found) if isinstance(found, Pass) else found


class Movable(Protocol):
    """What has vectors that may be moved."""

    own: tuple[Array, ...]  # where they are by themselves
    carried: int  # so many of them, the first, have to be copied
    period: int  # in steps, after which they have their places again

    def use(self, vectors: tuple[Array, ...]) -> None:
        """Take these for its vectors from now on."""


class Join(NamedTuple):
    """From here on the vectors may be moved beside those of others."""

    who: Movable


class Leave(NamedTuple):
    """From here on the vectors must be its own again."""

    who: Movable


Asking = Generator[Request | Pass | Join | Leave, Any, T]


def answer(request: Request | Pass | Join | Leave, kernels: Make) -> Any:
    """Do one product: into the buffer where A can, else where A puts it."""
    if not isinstance(request, Request):
        return None  # there is nobody to join, to leave or to march with
    A, x, out = request
    if A.into is not None:
        return Answer(out, A.apply(x, out))
    return Answer(kernels.accept(A.matvec(x), out), None)


def run(asking: Asking[T], kernels: Make) -> T:
    """Run one solve."""
    try:
        request = next(asking)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    while True:
        product = answer(request, kernels)
        try:
            request = asking.send(product)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
