"""Newton-CG on a sum of independent functions, whose evaluations share their data.

    f(x, y) = Σ_k f_k(x, y_k),        y = (y_1, ..., y_K)

Each part is minimised by steps of its own (``newton_cg.py``): line search, accuracy of
the linear solves and end are those of the part alone.  The runs go on side by side, and
what several of them ask for is computed at once: the linear solves are the columns of one
block, of which a column that has ended leaves.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, Protocol

from ..arrays import Array, namespace, norm
from ..kernels import Line, Workspace, choose
from ..krylov.cg import ConjugateGradients, vectors_of_scratch
from ..krylov.linear_system import Column, LinearSystem, column_of, drive
from ..operators.diagonal_blocks import DiagonalBlocks, side_by_side
from ..operators.linear_operator import LinearOperator
from ..preconditioners import Choice
from ..problem.problem import Problem, Solution
from ..status import Status
from .line_search import Evaluate, next_request
from .newton_cg import Ended, Linearize, Multiply, NewtonCG, Outcome, Solve
from .stopping import Callback, StoppingTest


class Parts(Protocol):
    """The parts of an objective that is a sum of independent functions.

    Attributes
    ----------
    count, size : int
        K, and the size n of each y_k.
    """

    count: int
    size: int

    def evaluate(
        self, x: Array, places: Sequence[int], ys: Sequence[Array]
    ) -> list[tuple[Array, float]]:
        """Return gradient and value of some parts, each at a y of its own."""

    def linearize(
        self, x: Array, places: Sequence[int], ys: Sequence[Array]
    ) -> DiagonalBlocks:
        """Return the Hessians of some parts, the first one at place 0."""


def parts_of(problem: Problem, M: Any, callback: Callback | None) -> Any:
    """Return the parts of a problem that can be minimised each by itself, or None.

    A callback sees the whole y, and so does a preconditioner of its size.
    """
    parts = getattr(problem.objective, "parts", None)
    whole = problem.maximize or problem.constrained or callback is not None
    if parts is None or whole or problem.penalty is not None:
        return None
    shape = getattr(M, "shape", None)
    return parts if shape is None or shape[0] == parts.size else None


def newton_by_parts(
    problem: Problem,
    parts: Parts,
    x: Array,
    y0: Array,
    *,
    tol: float,
    maxiter: int | None,
    choice: Choice,
) -> Solution:
    """Minimise each part from its part of y0; the arguments are those of ``newton_cg``.

    Counts are summed over the parts, but for iterations and gradients: the most of one.
    """
    convex = bool(getattr(problem.objective, "convex", False))
    n, rows = parts.size, range(parts.count)
    starts = [y0[k * n : (k + 1) * n] for k in rows]
    bounded = functools.partial(problem.has_minimiser, x)
    tests = [StoppingTest(tol, maxiter, None, bounded=bounded) for _ in rows]
    runs = [
        NewtonCG(test, choice, convex=convex).run(start)
        for test, start in zip(tests, starts, strict=True)
    ]
    wanted = [next_request(run, None) for run in runs]
    bundle = _Bundle(parts, x)
    while True:
        asking = [k for k in rows if not isinstance(wanted[k], Outcome)]
        if not asking:
            break
        # The cheapest first: all who want a linear solve wait for each other.
        kind = min((type(wanted[k]) for k in asking), key=_ORDER.index)
        places = [k for k in asking if isinstance(wanted[k], kind)]
        answers = bundle.answer(kind, places, [wanted[k] for k in places])
        for k, answer in zip(places, answers, strict=True):
            wanted[k] = next_request(runs[k], answer)
    return _whole(problem, x, wanted)


_ORDER = [Evaluate, Multiply, Linearize, Solve]


def _whole(problem: Problem, x: Array, ends: Sequence[Outcome]) -> Solution:
    """Return the parts' ends as the end of the whole."""
    xp = namespace(x)
    worst = max(range(len(ends)), key=lambda k: _badness(ends[k].status))
    status = ends[worst].status
    notes = dict.fromkeys(end.note for end in ends if end.note)
    if not notes and problem.fixed(x) is not None:
        y = xp.concatenate([end.y for end in ends])
        notes = {problem.hess(x, y).note: None}
    if status is not Status.CONVERGED:
        notes[f"part {worst} of {len(ends)} (from 0) ended so"] = None
    errors = [end.relative_error for end in ends if end.relative_error is not None]
    lengths = [end.error for end in ends if end.error is not None]
    values = [end.value for end in ends if end.value is not None]
    grad = xp.concatenate([end.grad for end in ends])
    return Solution(
        y=xp.concatenate([end.y for end in ends]),
        x=x,
        value=math.fsum(values) if len(values) == len(ends) else None,
        status=status,
        residual_norm=norm(grad),
        relative_error=max(errors) if errors else None,
        error=math.hypot(*lengths) if lengths else None,
        residual=grad,
        niter=max(end.niter for end in ends),
        n_hvp=sum(end.n_hvp for end in ends),
        n_grad=max(end.n_grad for end in ends),
        warnings=tuple(notes),
    )


def _badness(status: Status) -> int:
    return 0 if status is Status.CONVERGED else 1 if status.acceptable else 2


class _Bundle:
    """The answers to the requests that several runs have at a time."""

    def __init__(self, parts: Parts, x: Array) -> None:
        self.parts, self.x = parts, x
        self.blocks: dict[int, tuple[DiagonalBlocks, int]] = {}  # and the place in them
        self.workspace = Workspace()

    def answer(self, kind: Any, places: list[int], asked: Sequence[Any]) -> list[Any]:
        """Return an answer to each request, all of one kind."""
        if kind is Evaluate:
            return self.parts.evaluate(self.x, places, [want.y for want in asked])
        if kind is Linearize:
            found = self.parts.linearize(self.x, places, [want.y for want in asked])
            for c, k in enumerate(places):
                self.blocks[k] = found, c
            return [found.block(c) for c in range(len(places))]
        answers: list[Any] = [None] * len(places)
        for blocks, chosen in self._of_one(places):
            own = [self.blocks[places[c]][1] for c in chosen]
            serve = self._multiply if kind is Multiply else self._solve
            answered = serve(blocks, own, [asked[c] for c in chosen])
            for c, answer in zip(chosen, answered, strict=True):
                answers[c] = answer
        return answers

    def _of_one(self, places: list[int]) -> list[tuple[DiagonalBlocks, list[int]]]:
        """Return those of the places whose Hessians were computed together."""
        groups: dict[int, tuple[DiagonalBlocks, list[int]]] = {}
        for c, k in enumerate(places):
            blocks = self.blocks[k][0]
            groups.setdefault(id(blocks), (blocks, []))[1].append(c)
        return list(groups.values())

    def _multiply(
        self, blocks: DiagonalBlocks, own: list[int], asked: Sequence[Multiply]
    ) -> list[Array]:
        if len(own) == 1:
            return [blocks.block(own[0]).matvec(asked[0].v)]
        xp = namespace(asked[0].v)
        product = blocks.columns(own, len(own)) @ xp.stack(
            [want.v for want in asked], axis=1
        )
        return [xp.asarray(product[:, c], copy=True) for c in range(len(own))]

    def _solve(
        self, blocks: DiagonalBlocks, own: list[int], asked: Sequence[Solve]
    ) -> list[Ended]:
        """Solve the systems of several runs as the columns of blocks."""
        kernels = choose(None, asked[0].r)
        A: LinearOperator = blocks.columns(own, len(own))
        most = max(kernels.block_width(len(own), A, asked[0].r), 1)
        ended: list[Ended] = []
        for first in range(0, len(own), most):
            part, want = own[first : first + most], asked[first : first + most]
            ended += _Columns(blocks, part, want, kernels, self.workspace).solve()
        return ended


class _Columns:
    """One block of linear solves, each column with its own test of what is enough."""

    def __init__(
        self,
        blocks: DiagonalBlocks,
        own: list[int],
        asked: Sequence[Solve],
        kernels: Any,
        workspace: Workspace,
    ) -> None:
        self.asked, n = asked, blocks.size
        several = len(own) > 1
        A: LinearOperator = blocks.columns(own, 0)
        if several:
            A = blocks.columns(own, len(own))
            width = kernels.block_width(len(own), A, asked[0].r)
            A = blocks.columns(own, width)
        M = None
        if any(want.M is not None for want in asked):
            columns = side_by_side([want.M for want in asked], n)
            M = columns(range(len(own)), width if several else 0)
        r = asked[0].r
        if several:
            r = kernels.zeros((n, width), r, A)
            for c, want in enumerate(asked):
                r[:, c] = want.r
        self.system = LinearSystem(
            A=kernels.operator(A),
            b=r,
            x0=None,
            maxiter=max(want.steps.limit for want in asked),
            M=None if M is None else kernels.operator(M),
            callback=lambda at: asked[at.column].steps.enough,
            kernels=kernels,
            workspace=workspace,
            columns=[Column(c, norm(want.r), 0.0) for c, want in enumerate(asked)],
        )

    def solve(self) -> list[Ended]:
        """Run CG until each column has enough; write d and r where they were asked for."""
        system, asked = self.system, self.asked
        x, r = namespace(system.b).zeros_like(system.b), system.b
        count = vectors_of_scratch(system.M, r, system.kernels)
        with system.scratch(count) as scratch:
            recurrence = ConjugateGradients(
                system.A, system.M, x, r, system.kernels, scratch, [0.0] * len(asked)
            )
            stops = drive(system, recurrence, x, r, self._listen)
        ended = []
        for c, (want, stop) in enumerate(zip(asked, stops, strict=True)):
            column = system.columns[c]
            want.d[...], want.r[...] = column_of(x, c), column_of(r, c)
            want.steps.n_hvp += column.n_matvec
            enough = stop in {None, Status.STOPPED_BY_CALLBACK}
            ended.append(Ended() if enough else Ended(stop, column.direction))
        return ended

    def _listen(self, column: Column, line: Line) -> float:
        alpha, decrease, rho, size, _ = line
        self.asked[column.index].steps.add(alpha, decrease, rho)
        return size
