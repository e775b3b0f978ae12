"""Products are asked for, not done: whoever runs several solves may do them together.

A solver is a generator.  It yields a :class:`Request`, is sent the product, and returns
its result:

    y, square = yield Request(A, p, out)          # y = A p, in ``out`` or elsewhere

so that one algorithm serves one right-hand side and many, each with its own status, and
a column that has ended asks for nothing more.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import NamedTuple, TypeVar

from ..arrays import Array
from ..linear_operator import LinearOperator
from .kernels import Make
from .workspace import Workspace

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


Asking = Generator[Request, Answer, T]


def answer(request: Request, kernels: Make) -> Answer:
    """Do one product: into the buffer where A can, else where A puts it."""
    A, x, out = request
    if A.has_into:
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


def run_together(
    solves: Iterable[Asking[T]],
    kernels: Make,
    workspace: Workspace,
    width: int,
    blocked: list[LinearOperator],
) -> list[T]:
    """Run several solves, up to ``width`` at a time, the ``blocked`` products in blocks.

    A solve that ends makes room for the next: the block holds no finished column.
    """
    waiting = enumerate(solves)
    running: dict[int, tuple[Asking[T], Request]] = {}
    results: dict[int, T] = {}

    def resume(j: int, solve: Asking[T], product: Answer | None) -> None:
        try:
            request = next(solve) if product is None else solve.send(product)
        except StopIteration as end:
            results[j] = end.value
            running.pop(j, None)
        else:
            running[j] = solve, request

    while True:
        while len(running) < width and (first := next(waiting, None)) is not None:
            resume(*first, None)
        if not running:
            return [results[j] for j in sorted(results)]
        turns = list(running.items())
        requests = [request for _, (_, request) in turns]
        products = _in_blocks(requests, kernels, workspace, width, blocked)
        for (j, (solve, _)), product in zip(turns, products, strict=True):
            resume(j, solve, product)


def _own(product: Answer, request: Request) -> Answer:
    """Return the product in the request's buffer: the user's may serve the next column."""
    if product.y is not request.out:
        request.out[...] = product.y
    return Answer(request.out, product.square)


def _in_blocks(
    requests: list[Request],
    kernels: Make,
    workspace: Workspace,
    width: int,
    blocked: list[LinearOperator],
) -> list[Answer]:
    """Do the products, those with one operator of ``blocked`` as one block."""
    products: dict[int, Answer] = {}
    groups: dict[int, list[int]] = {}
    for j, request in enumerate(requests):
        groups.setdefault(id(request.A), []).append(j)
    for members in groups.values():
        A = requests[members[0]].A
        if len(members) == 1 or not any(A is operator for operator in blocked):
            products |= {
                j: _own(answer(requests[j], kernels), requests[j]) for j in members
            }
            continue
        x = requests[members[0]].x
        with workspace.lend(x, 1, (width, x.shape[0])) as (block,):
            for row, j in enumerate(members):
                block[row, :] = requests[j].x
            Y = A.matmat(block[: len(members), :].T)
            for column, j in enumerate(members):
                y = kernels.accept(Y[:, column], requests[j].out)
                products[j] = Answer(y, None)
    return [products[j] for j in range(len(requests))]
