"""A problem at x as a convex program with its entries, where it is one.

    P = f_YY,   q = f_Y(y₀) − P y₀,   b = A y₀ − e(y₀),   h = G y₀ − g(y₀)

Whether an f or a row that is known by functions is quadratic or affine is tried at a second
point; the conditions of the problem itself are evaluated at what is found in any case.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from scipy import sparse

from ..arrays import HostArray, drawn, epsilon
from ..krylov.convex_program import ConvexProgram
from ..krylov.kkt_matrix import LARGEST_DENSE
from ..krylov.ldl_factor import is_semidefinite
from ..krylov.polish import PolishedPoint
from ..operators.block_matrices import is_explicit
from .constraints import Stack
from .formed_hessian import FormedHessian, with_formed_matrices
from .problem import ActiveSet, Problem
from .quadratic import QuadraticObjective
from .quadratic_data import ENDLESS

FORMED = 256  # variables up to which matrices known by products are formed


@dataclasses.dataclass(frozen=True, eq=False)
class ExplicitProgram:
    """A problem at x, as a program whose rows are some of the problem's.

    Attributes
    ----------
    problem : Problem
        With matrices in place of operators where they were formed.
    program : ConvexProgram
    convex : bool
        Whether P is positive semidefinite.
    equal, rows : int arrays
        The equality and the inequality rows of the program, among the problem's; the others
        are zero, or without a side.
    p, k : int
        Rows of the problem.
    formed : FormedHessian or None
        What counts the products.
    known : bool
        Whether the problem says that it is quadratic.
    n_grad : int
        Gradients spent.
    """

    problem: Problem
    program: ConvexProgram
    convex: bool
    equal: HostArray
    rows: HostArray
    p: int
    k: int
    formed: FormedHessian | None
    known: bool
    n_grad: int

    @property
    def n_hvp(self) -> int:
        """Hessian products spent."""
        return 0 if self.formed is None else self.formed.n_hvp

    @property
    def unknowns(self) -> HostArray:
        """The places of (y, ν, z) among y and all the problem's multipliers."""
        n = self.program.n
        rows = n + self.equal, n + self.p + self.rows
        return np.concatenate([np.arange(n), *rows])

    def multipliers(self, nu: HostArray, z: HostArray) -> HostArray:
        """Return the multipliers of all the problem's rows."""
        found = np.zeros(self.p + self.k)
        found[self.equal] = nu
        found[self.p + self.rows] = z
        return found

    def mask(self, of_rows: HostArray) -> HostArray:
        """Return the mask (k,) of all the problem's inequality rows."""
        found = np.zeros(self.k, dtype=bool)
        found[self.rows] = of_rows
        return found

    def active_set(self, found: PolishedPoint) -> ActiveSet:
        """Return the active set of the problem's own rows and variables."""
        strong, weak = self.mask(found.strong), self.mask(found.weak)
        return ActiveSet(strong, weak, found.fixed, found.weak_fixed)


def explicit_program(problem: Problem, x: Any, y0: Any) -> ExplicitProgram | None:
    """Return the program that a problem is at x, None where it is none.

    That is, where entries are not at hand, f is not quadratic, or a row not affine.
    """
    known = isinstance(problem.objective, QuadraticObjective)
    if not isinstance(y0, np.ndarray) or not isinstance(x, np.ndarray):
        return None
    stacks = [problem.equalities, problem.inequalities]
    if any(part.hess for stack in stacks if stack for part in stack.parts):
        return None
    formed = None
    if not known and y0.shape[0] <= FORMED:
        problem, formed = with_formed_matrices(problem)
    base = np.zeros_like(y0) if known else _inside(problem, x, y0)
    H = _hessian(problem, x, base)
    if H is None:
        return None
    with np.errstate(all="ignore"):
        grad = problem.grad(x, base)
        stacks = [problem.equalities, problem.inequalities]
        rows = [_affine_rows(stack, x, base) for stack in stacks]
        if None in rows:
            return None
        if not known and not _is_quadratic(problem, x, base, grad, H, rows):
            return None
    (A, b, p), (G, h, k) = rows
    equal, A, b = _without_zero_rows(A, b, b == 0.0)
    finite = np.abs(h) < ENDLESS
    kept, G, h = _without_zero_rows(G, h, (h >= 0.0) | ~finite, finite)
    lower, upper = (np.asarray(v, dtype=float) for v in problem.bounds(x, base))
    size = y0.shape[0] + b.size + h.size
    P, A, G = (_of_size(size, matrix) for matrix in (H.astype(float), A, G))
    program = ConvexProgram(
        P=P,
        q=np.asarray(grad, dtype=float) - P @ np.asarray(base, dtype=float),
        A=A,
        b=b,
        G=G,
        h=h,
        lower=np.where(lower <= -ENDLESS, -np.inf, lower),
        upper=np.where(upper >= ENDLESS, np.inf, upper),
    )
    vectors = program.q, program.b, program.h
    entries = (m if isinstance(m, np.ndarray) else m.data for m in (P, A, G))
    if not all(np.isfinite(v).all() for v in (*vectors, *entries)):
        return None
    convex = bool(getattr(problem.objective, "convex", False))
    return ExplicitProgram(
        problem=problem,
        program=program,
        convex=convex or is_semidefinite(P),
        equal=equal,
        rows=kept,
        p=p,
        k=k,
        formed=formed,
        known=known,
        n_grad=1 if known else 2,
    )


def _of_size(size: int, matrix: Any) -> Any:
    """Return a matrix of a program of that many unknowns and rows: an array of a small one."""
    if isinstance(matrix, np.ndarray):
        return matrix
    return matrix.toarray() if size <= LARGEST_DENSE else sparse.csr_array(matrix)


def _inside(problem: Problem, x: Any, y0: Any) -> Any:
    if not problem.bounded:
        return y0
    lower: Any
    upper: Any
    lower, upper = problem.bounds(x, y0)
    return np.clip(y0, lower, upper)


def _hessian(problem: Problem, x: Any, y: Any) -> Any:
    """Return the entries of the Hessian of what is minimised, None without."""
    H = problem.given("hess", x, y)
    if not is_explicit(H) or not (isinstance(H, np.ndarray) or sparse.issparse(H)):
        return None
    if tuple(H.shape) != (y.shape[0], y.shape[0]) or H.dtype.kind not in "fiu":
        return None
    apart = abs(H - H.T).max() if y.shape[0] else 0.0
    size = abs(H).max() if y.shape[0] else 0.0
    if not float(apart) <= 1e2 * math.sqrt(epsilon(y)) * float(size):
        return None
    H = 0.5 * (H + H.T)
    return -H if problem.maximize else H


def _affine_rows(stack: Stack | None, x: Any, y: Any) -> Any:
    """Return (C, right-hand sides, rows) of C y = c or C y <= c; None where not explicit."""
    n = y.shape[0]
    if stack is None:
        return np.zeros((0, n)), np.zeros(0), 0
    C, value = stack.jac(x, y), stack.value(x, y)
    if not (isinstance(C, np.ndarray) or sparse.issparse(C)):
        return None
    if sparse.issparse(C):
        C = sparse.csr_array(C, dtype=float)
    else:
        C = np.asarray(C, dtype=float)
    if value.shape != (C.shape[0],):
        return None
    sides = C @ np.asarray(y, dtype=float) - np.asarray(value, dtype=float)
    return C, sides, int(C.shape[0])


def _is_quadratic(
    problem: Problem, x: Any, y: Any, grad: Any, H: Any, rows: list[Any]
) -> bool:
    """Tell by a second point whether f is quadratic and all rows are affine."""
    size = float(np.max(np.abs(y), initial=0.0)) or 1.0
    other = y + (0.01 * size * drawn("length", y.shape[0])).astype(y.dtype)
    other = _inside(problem, x, other).astype(y.dtype)
    d = other - y
    noise = 1e3 * math.sqrt(epsilon(y))
    terms = abs(H) @ np.abs(d) + noise * (np.abs(grad) + abs(H) @ np.abs(y))
    change = problem.grad(x, other) - grad - H @ d
    if not bool(np.all(np.abs(change) <= noise * terms)):
        return False
    stacks = problem.equalities, problem.inequalities
    for stack, (C, sides, _) in zip(stacks, rows, strict=True):
        if stack is None or stack.affine:
            continue
        J, value = stack.jac(x, other), stack.value(x, other)
        same = J.shape == C.shape and (abs(J - C).max() if C.size else 0.0) == 0.0
        if not same:
            return False
        reach = abs(C) @ np.abs(other) + np.abs(sides)
        if not bool(np.all(np.abs(C @ other - sides - value) <= noise * reach)):
            return False
    return True


def _without_zero_rows(
    C: Any, sides: HostArray, holds: HostArray, finite: HostArray | None = None
) -> tuple[HostArray, Any, HostArray]:
    """Return the index, rows and sides without rows of zeros that hold, or without side."""
    if not sides.size:
        return np.arange(0), C, sides
    entries = np.asarray(abs(C).sum(axis=1)).ravel()
    kept = (entries > 0.0) | ~holds
    if finite is not None:
        kept &= finite
    index = np.flatnonzero(kept)
    if index.size == sides.size:
        return index, C, sides
    return index, C[index], sides[index]
