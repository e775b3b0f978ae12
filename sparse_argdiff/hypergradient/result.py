"""What an evaluation of F(x) and ∇F(x) returns, and what it leaves for the next one."""

from __future__ import annotations

import dataclasses

from ..arrays import Array
from ..implicit.derivative import Adjoint
from ..problem.problem import Solution
from .error_estimate import Certificate


@dataclasses.dataclass(frozen=True)
class WarmState:
    """All that a :class:`Hypergradient` remembers: set it, and it goes on from there.

    Attributes
    ----------
    y, adjoint : array or None
        What the next evaluation begins with.
    older : tuple of arrays
        The two adjoints before: the start is the best combination of all three where the
        last solve was long enough for that to pay.
    adjoint_niter : int
        Iterations of the last adjoint solve.
    n_hvp, n_grad, n_evaluations : int
        Totals so far.

    Notes
    -----
    A preconditioner that learns, M = ``preconditioners.Auto()``, is the caller's state and
    not in here: without it the next evaluation meets the same tolerances by another way.
    """

    y: Array | None = None
    adjoint: Array | None = None
    older: tuple[Array, ...] = ()
    adjoint_niter: int = 0
    n_hvp: int = 0
    n_grad: int = 0
    n_evaluations: int = 0


@dataclasses.dataclass(frozen=True)
class HypergradientResult:
    """The outcome of :meth:`Hypergradient.evaluate`.

    Attributes
    ----------
    value : float
        F(x), corrected: f^U(x, y) − λ' f_Y(x, y).
    correction : float
        The second term: the error of the plain value to first order.
    gradient : array (m,)
        ∇F(x), of the dtype of x.
    solution : Solution
        Of the lower-level problem.
    adjoint : Adjoint
        With the record of its linear solve.
    certificate : Certificate or None
        What is known about the errors of value and gradient.
    n_hvp, n_grad : int
        Hessian products and lower-level gradients spent in this evaluation.
    tol, adjoint_tol : float
        Tolerances of the two solves.
    warnings : tuple of str
        Caveats.
    """

    value: float
    correction: float
    gradient: Array
    solution: Solution
    adjoint: Adjoint
    certificate: Certificate | None
    n_hvp: int
    n_grad: int
    tol: float
    adjoint_tol: float
    warnings: tuple[str, ...] = ()
