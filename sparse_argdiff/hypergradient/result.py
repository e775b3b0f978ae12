"""The result of an evaluation of F(x) and ∇F(x), and the warm start of the next one."""

from __future__ import annotations

import dataclasses

from ..arrays import Array
from ..implicit.derivative import Adjoint
from ..problem.problem import Solution
from .error_estimate import Certificate, Point


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """All that the next evaluation of a :class:`Hypergradient` depends on.

    Attributes
    ----------
    y : array or None
        Start of the lower-level solve.
    adjoints : tuple of arrays
        The last three adjoints, the newest first: the start of the adjoint solve is their
        best combination where the last solve took enough iterations to pay for it.
    adjoint_niter : int
        Iterations of the last adjoint solve.
    n_hvp, n_grad, n_evaluations : int
        Totals so far.

    Notes
    -----
    A preconditioner that learns, M = ``preconditioners.Auto()``, belongs to the caller and
    is not included: without it the next evaluation meets the same tolerances, but not bit
    for bit.
    """

    y: Array | None = None
    adjoints: tuple[Array, ...] = ()
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
    tol, adjoint_tol : float
        Tolerances of the two solves.
    certificate : Certificate or None
        Bounds and estimates of the errors of value and gradient.
    n_hvp, n_grad : int
        Hessian products and lower-level gradients spent in this evaluation.
    warnings : tuple of str
        Caveats.
    """

    value: float
    correction: float
    gradient: Array
    solution: Solution
    adjoint: Adjoint
    tol: float
    adjoint_tol: float
    certificate: Certificate | None = None

    @property
    def n_hvp(self) -> int:
        """Hessian products of both solves and of the certificate."""
        spent = self.solution.n_hvp + self.adjoint.n_hvp
        return spent if self.certificate is None else spent + self.certificate.n_hvp

    @property
    def n_grad(self) -> int:
        """Lower-level gradients of the solution and of the certificate."""
        spent = self.solution.n_grad
        return spent if self.certificate is None else spent + self.certificate.n_grad

    @property
    def warnings(self) -> tuple[str, ...]:
        """Caveats of the solution and of the linear solve."""
        return self.adjoint.warnings

    @property
    def point(self) -> Point:
        """The pair (y, λ) with its value and gradient."""
        return Point(
            self.solution,
            self.adjoint.adjoint,
            self.value,
            self.gradient,
            self.adjoint.krylov.residual,
        )
