"""The records of a hypergradient: value, gradient, their errors, and the next warm start."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from ..arrays import Array, described
from ..implicit.derivative import Adjoint
from ..problem.problem import Solution
from ..status import Status

Descent = Literal["proven", "estimated", "not shown"]


@dataclasses.dataclass(frozen=True, eq=False)
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
    is not included, but has a ``state`` of its own: without it the next evaluation meets
    the same tolerances, but not bit for bit.
    """

    y: Array | None = None
    adjoints: tuple[Array, ...] = ()
    adjoint_niter: int = 0
    n_hvp: int = 0
    n_grad: int = 0
    n_evaluations: int = 0

    __repr__ = described


@dataclasses.dataclass(frozen=True)
class Bound:
    """Bounds on the errors of a value and a gradient, infinite where there are none."""

    value_error: float = math.inf
    gradient_error: float = math.inf


@dataclasses.dataclass(frozen=True, eq=False)
class Point:
    """A lower solution and an adjoint, with the value and the hypergradient they give."""

    solution: Solution
    adjoint: Array
    value: float
    gradient: Array

    __repr__ = described


@dataclasses.dataclass(frozen=True, eq=False)
class Certificate:
    """Bounds and estimates of the errors of a hypergradient.

    Attributes
    ----------
    value_error : float
        Estimate of |value − F(x)|, or its bound where that is smaller.
    gradient_error : float
        Estimate of ‖gradient − ∇F(x)‖₂, or its bound where that is smaller; infinite
        where nothing could be estimated, as where an inequality may become active, or
        idle, within the error of y.
    bound : Bound
        Proven bounds of both errors, infinite where nothing is proven.
    descent : {"proven", "estimated", "not shown"}
        Whether −gradient is a direction of descent: its error is below its norm.
    refined : Point
        The pair (y, λ) after the corrections: a better start for what follows.
    n_hvp, n_grad : int
        Cost of the certificate.
    """

    value_error: float
    gradient_error: float
    bound: Bound
    descent: Descent
    refined: Point = dataclasses.field(repr=False)
    n_hvp: int
    n_grad: int

    __repr__ = described

    @property
    def support(self) -> str | None:
        """What is known of the support of a penalty, see ``Solution``; None without one."""
        return self.refined.solution.support


@dataclasses.dataclass(frozen=True, eq=False)
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
    adjoint_error : float
        Guess of the error of λ relative to λ, both in the metric of f_YY, as CG has it
        without a product; NaN where it has none.
    certificate : Certificate or None
        Bounds and estimates of the errors of value and gradient.
    n_hvp, n_grad : int
        Hessian products and lower-level gradients spent in this evaluation.
    warnings : tuple of str
        Caveats; ``F(x)`` and ``minimize`` show them.
    """

    value: float
    correction: float
    gradient: Array
    solution: Solution
    adjoint: Adjoint
    tol: float
    adjoint_tol: float
    adjoint_error: float = math.nan
    certificate: Certificate | None = None

    __repr__ = described

    @property
    def n_hvp(self) -> int:
        """Hessian products of both solves and of the certificate."""
        certified = 0 if self.certificate is None else self.certificate.n_hvp
        return self.solution.n_hvp + self.adjoint.n_hvp + certified

    @property
    def n_grad(self) -> int:
        """Lower-level gradients of the solution and of the certificate."""
        certified = 0 if self.certificate is None else self.certificate.n_grad
        return self.solution.n_grad + certified

    @property
    def warnings(self) -> tuple[str, ...]:
        """Caveats of the solution and of the linear solve, and what either left undone.

        That is said where fewer than half the digits asked for are there.
        """
        notes = list(self.adjoint.warnings)
        left = self.solution.relative_error
        if left is not None and left > math.sqrt(self.tol):
            notes.append(
                f"the lower-level solve left a Newton step of about {left:.0e} of y, where "
                f"tol = {self.tol:.0e} was asked for: value and gradient may be as wrong"
            )
        # Of other statuses it is known that they are not accurate.
        meant = self.adjoint.krylov.status in {Status.CONVERGED, Status.ROUNDING_LIMIT}
        if meant and self.adjoint_error > math.sqrt(self.adjoint_tol):
            notes.append(
                f"the adjoint is wrong by about {self.adjoint_error:.0e} of itself, where "
                f"adjoint_tol = {self.adjoint_tol:.0e} was asked for: the gradient may be "
                "as wrong; give a preconditioner M, or a smaller adjoint_tol"
            )
        return tuple(notes)
