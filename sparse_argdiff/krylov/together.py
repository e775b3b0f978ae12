"""Several solves at once: their products in blocks, their vectors side by side.

    P (n, k) = (p_1, ..., p_k):    Q = A P,   (p_c'A p_c)_c     one reading of A for k solves

Where A writes such blocks in place, solves that have joined march in step: each pass and
each product is done once, on the lanes of a block.  Elsewhere the vectors stay where they
are, and are copied into a block for the product with A.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from ..arrays import Array
from ..linear_operator import LinearOperator
from .kernels import Make
from .kernels.blocks import BLOCKS
from .requests import Answer, Asking, Join, Leave, Movable, Pass, Request, answer
from .workspace import Workspace

T = TypeVar("T")
Asked = dict[int, Any]  # what each solve asks for, by its number


class Lanes:
    """A block for each vector of a solve, of which a lane belongs to one solve.

    Steps are taken in time: a product with A waits until all lanes ask for one, and who
    joins waits for that too.
    """

    def __init__(self, A: LinearOperator, blocks: list[Array]) -> None:
        self.A = A
        self.width = int(blocks[0].shape[1])
        self._views = [tuple(B[:, c] for B in blocks) for c in range(self.width)]
        self._block = {
            id(view): block
            for views in self._views
            for view, block in zip(views, blocks, strict=True)
        }
        self._lane: dict[int, int] = {}  # of each solve that has one
        self._who: dict[int, Movable] = {}

    def has(self, j: int) -> bool:
        """Whether the solve has a lane."""
        return j in self._lane

    def waits(self, j: int, request: Any) -> bool:
        """Whether the request must wait for the others."""
        if isinstance(request, Join):
            return True
        return self.has(j) and isinstance(request, Request) and request.A is self.A

    def admit(self, joining: dict[int, Movable]) -> None:
        """Give a lane to each solve that joins."""
        for j, who in joining.items():
            lane = next(c for c in range(self.width) if c not in self._lane.values())
            carried = zip(self._views[lane], who.own[: who.carried], strict=False)
            for view, own in carried:
                view[...] = own
            self._lane[j], self._who[j] = lane, who
            who.use(self._views[lane])

    def dismiss(self, j: int) -> None:
        """Give a solve its own vectors back."""
        lane, who = self._lane.pop(j), self._who.pop(j)
        for view, own in zip(self._views[lane], who.own[: who.carried], strict=False):
            own[...] = view
        who.use(who.own)

    def release(self, asked: Asked) -> Asked:
        """Dismiss those who wait for a product; return what they ask for now."""
        moved = {}
        for j, (A, x, out) in asked.items():
            views, own = self._views[self._lane[j]], self._who[j].own
            mine = {id(view): vector for view, vector in zip(views, own, strict=True)}
            self.dismiss(j)
            moved[j] = Request(A, mine[id(x)], mine[id(out)])
        return moved

    def too_few(self, taken: int) -> bool:
        """Whether so many solves are cheaper one by one than in lanes, most of them idle."""
        return 2 * taken < self.width

    def product(self, asked: Asked) -> Asked:
        """Do one product for all who ask, the same for all of them."""
        first = next(iter(asked.values()))
        X, out = self._block[id(first.x)], self._block[id(first.out)]
        squares = first.A.apply_block(X, out)
        found = [None] * self.width if squares is None else squares.tolist()
        return {j: Answer(one.out, found[self._lane[j]]) for j, one in asked.items()}

    def step(self, asked: Asked) -> Asked:
        """Do one pass for all who ask, the same for all of them."""
        first = next(iter(asked.values()))
        blocks = [self._block[id(vector)] for vector in first.vectors]
        if first.s is None:
            found = BLOCKS.dot(*blocks).tolist()
            return {j: found[self._lane[j]] for j in asked}
        scalars = {self._lane[j]: one.s for j, one in asked.items()}
        getattr(BLOCKS, first.name)(*blocks, scalars)
        return dict.fromkeys(asked)

    def answer(self, asked: Asked) -> Asked:
        """Do what those in lanes ask for and what need not wait."""
        answers: Asked = {}
        groups: dict[Any, Asked] = {}
        for j, request in asked.items():
            if isinstance(request, Leave):
                self.dismiss(j)
                answers[j] = None
            elif isinstance(request, Pass):
                groups.setdefault(request.name, {})[j] = request
            else:
                groups.setdefault(id(request.A), {})[j] = request
        for kind, group in groups.items():
            passes = isinstance(kind, str)
            answers |= self.step(group) if passes else self.product(group)
        return answers


def run_together(
    solves: Iterable[Asking[T]],
    kernels: Make,
    workspace: Workspace,
    width: int,
    blocked: list[LinearOperator],
    lanes: Lanes | None = None,
) -> list[T]:
    """Run several solves, up to ``width`` at a time; products of ``blocked`` in blocks.

    A solve that ends makes room for the next: no column waits for a finished one.
    """
    waiting = enumerate(solves)
    running: dict[int, tuple[Asking[T], Any]] = {}
    results: dict[int, T] = {}

    def resume(j: int, solve: Asking[T], product: Any) -> None:
        try:
            request = solve.send(product)
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
        asked: Asked = {j: request for j, (_, request) in running.items()}
        if lanes is None:
            answers = _in_blocks(asked, kernels, workspace, width, blocked)
        else:
            now = {j: one for j, one in asked.items() if not lanes.waits(j, one)}
            inside = {j: one for j, one in now.items() if lanes.has(j)}
            outside = {j: one for j, one in now.items() if j not in inside}
            joining = {j: one.who for j, one in asked.items() if isinstance(one, Join)}
            full = len(running) == width
            if now:
                answers = lanes.answer(inside)
                answers |= _in_blocks(outside, kernels, workspace, width, blocked)
            elif joining:
                if full or not lanes.too_few(len(running)):
                    lanes.admit(joining)
                answers = dict.fromkeys(joining)
            elif full or not lanes.too_few(len(running)):
                answers = lanes.product(asked)
            else:
                for j, request in lanes.release(asked).items():
                    running[j] = running[j][0], request
                continue
        for j, product in answers.items():
            resume(j, running[j][0], product)


def _own(product: Answer, request: Request) -> Answer:
    """Return the product in the request's buffer: the user's may serve the next column."""
    if product.y is not request.out:
        request.out[...] = product.y
    return Answer(request.out, product.square)


def _in_blocks(
    asked: Asked,
    kernels: Make,
    workspace: Workspace,
    width: int,
    blocked: list[LinearOperator],
) -> Asked:
    """Do what is asked for, products with one operator of ``blocked`` as one block."""
    answers: Asked = {}
    groups: dict[int, list[int]] = {}
    for j, request in asked.items():
        if not isinstance(request, Request):
            answers[j] = answer(request, kernels)
        elif any(request.A is operator for operator in blocked):
            groups.setdefault(id(request.A), []).append(j)
        else:
            answers[j] = _own(answer(request, kernels), request)
    for members in groups.values():
        A, x = asked[members[0]].A, asked[members[0]].x
        if len(members) == 1:
            j = members[0]
            answers[j] = _own(answer(asked[j], kernels), asked[j])
            continue
        with workspace.lend(x, 1, (width, x.shape[0])) as (block,):
            for row, j in enumerate(members):
                block[row, :] = asked[j].x
            Y = A.matmat(block[: len(members), :].T)
            for column, j in enumerate(members):
                y = kernels.accept(Y[:, column], asked[j].out)
                answers[j] = Answer(y, None)
    return answers
