"""Several solves at once: their products in blocks, their vectors side by side.

    P (n, k) = (p_1, ..., p_k):    Q = A P,   (p_c'A p_c)_c     one reading of A for k solves

Where A writes such blocks in place, solves that have joined march in step: each pass and
each product is done once, on the lanes of a block (:class:`Lanes`).  Elsewhere the vectors
stay where they are, and are copied into a block for the product (:class:`Apart`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from ..arrays import Array
from ..kernels import Make
from ..kernels.blocks import BLOCKS
from ..kernels.workspace import Workspace
from ..operators.linear_operator import LinearOperator
from .requests import Answer, Asking, Join, Leave, Movable, Pass, Request, answer

T = TypeVar("T")
Asked = dict[int, Any]  # what each solve asks for, by its number


def run_together(
    solves: Iterable[Asking[T]], width: int, place: Apart | Lanes
) -> list[T]:
    """Run several solves, up to ``width`` at a time.

    A solve that ends makes room for the next: no column waits for a finished one.
    """
    waiting = enumerate(solves)
    running: dict[int, tuple[Asking[T], Any]] = {}
    results: dict[int, T] = {}

    def resume(j: int, solve: Asking[T], found: Any) -> None:
        try:
            request = solve.send(found)
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
        asked = {j: request for j, (_, request) in running.items()}
        for j, found in place.answer(asked, full=len(running) == width).items():
            resume(j, running[j][0], found)


class Apart:
    """Vectors that stay where they are, their products done one by one.

    Those with an operator of ``blocked`` are done ``width`` at a time, by copies, when
    nothing else is asked for.
    """

    def __init__(
        self,
        kernels: Make,
        workspace: Workspace,
        width: int = 1,
        blocked: Sequence[LinearOperator] = (),
    ) -> None:
        self._kernels, self._workspace = kernels, workspace
        self._width, self._blocked = width, blocked

    def answer(self, asked: Asked, *, full: bool = True) -> Asked:
        """Do what is asked for, or first what need not wait for other products."""
        del full
        passes = {j: one for j, one in asked.items() if not isinstance(one, Request)}
        if passes:
            return {j: answer(one, self._kernels) for j, one in passes.items()}
        answers: Asked = {}
        groups: dict[int, Asked] = {}
        for j, request in asked.items():
            if any(request.A is operator for operator in self._blocked):
                groups.setdefault(id(request.A), {})[j] = request
            else:
                answers[j] = self._alone(request)
        for group in groups.values():
            answers |= self._block(group)
        return answers

    def _alone(self, request: Request) -> Answer:
        """Do one product; the user's buffer may serve the next column: copy out of it."""
        product = answer(request, self._kernels)
        if product.y is not request.out:
            request.out[...] = product.y
        return Answer(request.out, product.square)

    def _block(self, asked: Asked) -> Asked:
        """Do several products with one operator."""
        first = next(iter(asked.values()))
        if len(asked) == 1:
            return {j: self._alone(one) for j, one in asked.items()}
        shape = (self._width, first.x.shape[0])
        with self._workspace.lend(first.x, 1, shape) as (block,):
            for row, one in enumerate(asked.values()):
                block[row, :] = one.x
            Y = first.A.matmat(block[: len(asked), :].T)
            return {
                j: Answer(self._kernels.accept(Y[:, column], one.out), None)
                for column, (j, one) in enumerate(asked.items())
            }


class Lanes:
    """Vectors side by side: a block for each, of which a lane belongs to one solve.

    Steps are taken in time: a product with A waits until all lanes ask for one, and who
    joins waits for that too.  Who has no lane is ``apart``.
    """

    def __init__(self, A: LinearOperator, blocks: list[Array], apart: Apart) -> None:
        self._A, self._apart = A, apart
        self._width = int(blocks[0].shape[1])
        self._views = [tuple(B[:, c] for B in blocks) for c in range(self._width)]
        self._block = {
            id(view): block
            for views in self._views
            for view, block in zip(views, blocks, strict=True)
        }
        for block in blocks:
            block[...] = 0.0  # idle lanes are carried along, and must harm nobody
        self._lane: dict[int, int] = {}  # of each solve that has one
        self._who: dict[int, Movable] = {}
        self._products = 0  # since the lanes were all free

    def answer(self, asked: Asked, *, full: bool) -> Asked:
        """Do what need not wait, else let join who asks, else the product with A."""
        now = {j: one for j, one in asked.items() if not self._waits(j, one)}
        if now:
            inside = {j: one for j, one in now.items() if j in self._lane}
            outside = {j: one for j, one in now.items() if j not in inside}
            return self._march(inside) | self._apart.answer(outside)
        # With most lanes idle the solves are cheaper one by one.
        worth = full or 2 * len(asked) >= self._width
        joining = {j: one.who for j, one in asked.items() if isinstance(one, Join)}
        in_time = not self._lane or not any(
            self._products % who.period for who in joining.values()
        )
        if joining and (in_time or not worth):
            for j, who in joining.items() if worth else ():
                self._admit(j, who)
            return dict.fromkeys(joining)
        waiting = {j: one for j, one in asked.items() if j not in joining}
        if worth:
            self._products += 1
            return self._product(waiting)
        return self._apart.answer(
            {j: self._expel(j, one) for j, one in waiting.items()}
        )

    def _waits(self, j: int, request: Any) -> bool:
        if isinstance(request, Join):
            return True
        return j in self._lane and isinstance(request, Request) and request.A is self._A

    def _admit(self, j: int, who: Movable) -> None:
        """Give a solve a lane."""
        if not self._lane:
            self._products = 0
        lane = next(c for c in range(self._width) if c not in self._lane.values())
        for view, own in zip(self._views[lane], who.own[: who.carried], strict=False):
            view[...] = own
        self._lane[j], self._who[j] = lane, who
        who.use(self._views[lane])

    def _dismiss(self, j: int) -> None:
        """Give a solve its own vectors back."""
        lane, who = self._lane.pop(j), self._who.pop(j)
        for view, own in zip(self._views[lane], who.own[: who.carried], strict=False):
            own[...] = view
        for view in self._views[lane]:
            view[...] = 0.0
        who.use(who.own)

    def _expel(self, j: int, request: Request) -> Request:
        """Dismiss a solve that waits for a product; return what it asks for now."""
        views, own = self._views[self._lane[j]], self._who[j].own
        mine = {id(view): vector for view, vector in zip(views, own, strict=True)}
        self._dismiss(j)
        return Request(request.A, mine[id(request.x)], mine[id(request.out)])

    def _march(self, asked: Asked) -> Asked:
        """Do what those in lanes ask for, each thing for all at once."""
        answers: Asked = {}
        groups: dict[Any, Asked] = {}
        for j, request in asked.items():
            if isinstance(request, Leave):
                self._dismiss(j)
                answers[j] = None
            else:
                kind = request.name if isinstance(request, Pass) else id(request.A)
                groups.setdefault(kind, {})[j] = request
        for kind, group in groups.items():
            answers |= (self._pass if isinstance(kind, str) else self._product)(group)
        return answers

    def _product(self, asked: Asked) -> Asked:
        """Do one product for all who ask, the same for all of them."""
        first = next(iter(asked.values()))
        X, out = self._block[id(first.x)], self._block[id(first.out)]
        squares = first.A.apply(X, out)
        found = [None] * self._width if squares is None else squares.tolist()
        return {j: Answer(one.out, found[self._lane[j]]) for j, one in asked.items()}

    def _pass(self, asked: Asked) -> Asked:
        """Do one pass for all who ask, the same for all of them."""
        first = next(iter(asked.values()))
        blocks = [self._block[id(vector)] for vector in first.vectors]
        if first.s is None:
            found = BLOCKS.dot(*blocks).tolist()
            return {j: found[self._lane[j]] for j in asked}
        scalars = {self._lane[j]: one.s for j, one in asked.items()}
        diagonal = () if first.d is None else (first.d,)
        getattr(BLOCKS, first.name)(*blocks, scalars, *diagonal)
        return dict.fromkeys(asked)
