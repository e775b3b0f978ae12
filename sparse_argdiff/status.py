"""The status of a computation, a sentence of advice, and the errors made of it.

A kernel never raises for numerical trouble: it returns a :class:`Status`.  The public
functions pass it to :func:`raise_or_warn`, which raises :class:`ConvergenceError` unless
``on_failure`` says otherwise.
"""

from __future__ import annotations

import enum
import logging
import warnings
from typing import Any, Literal

OnFailure = Literal["raise", "warn", "ignore"]

logger = logging.getLogger("sparse_argdiff")


class Status(enum.Enum):
    """How a computation ended; ``status.value`` is a sentence of advice.

    ``status.acceptable``: the answer meets the tolerance, or is as good as rounding allows.
    """

    CONVERGED = "The recomputed residual meets the tolerance."
    ROUNDING_LIMIT = (
        "The residual is as small as the floating point allows, which is above the "
        "tolerance asked for. Loosen the tolerance or use a wider dtype."
    )
    ITERATION_LIMIT = (
        "The iteration limit was reached before the tolerance was met. Increase "
        "maxiter, loosen the tolerance or give a better preconditioner M."
    )
    STAGNATED = (
        "The residual stopped falling well above the rounding level. The operator is "
        "not linear or not symmetric, its products are inexact, or it is very "
        "ill-conditioned: run check_derivatives, or give a preconditioner M."
    )
    NEGATIVE_CURVATURE = (
        "The operator is indefinite, it has directions of negative curvature, so the "
        "point is not a strict local minimum. Solve the lower-level problem again from "
        "another start; for a maximum use Problem(..., maximize=True), and for a "
        "saddle point method='minres'."
    )
    SINGULAR = (
        "A direction of zero curvature was met: the operator is singular to working "
        "precision, so the minimiser is not isolated and has no derivative. Add "
        "curvature (a penalty) or remove the redundant variables."
    )
    LEAST_SQUARES = (
        "The system is singular and inconsistent: x minimises the residual, but it "
        "does not solve the system. The right-hand side has a part in the null space."
    )
    INCONSISTENT = (
        "The constraints contradict each other, to working precision: rows that depend "
        "on others ask for something else than they do, and no y satisfies C y = c. "
        "Remove or repair the dependent rows."
    )
    UNBOUNDED = (
        "The objective falls without bound, or for ever towards a limit, along the "
        "search direction: the problem has no minimum for this x. Add a penalty or "
        "bound the parameters."
    )
    INFEASIBLE = (
        "The constraints cannot hold all at once: for this x no y meets them, or, where "
        "they are nonlinear, none near the start. Check their right-hand sides and "
        "signs (h <= 0), relax the rows that are named, or start elsewhere."
    )
    BRANCH_ENDS = (
        "The Hessian became singular on the way: the branch of stationary points of y0 "
        "ends before this x (a fold), or y0 is too flat a start. Take a smaller "
        "step in x, or start from another branch; no derivative exists at the fold."
    )
    NOT_SYMMETRIC = (
        "The operator (or the preconditioner) is not symmetric: u'Av differs from "
        "v'Au. Check the Hessian product, for instance with check_derivatives."
    )
    INDEFINITE_PRECONDITIONER = (
        "The preconditioner M is not positive definite: r'Mr <= 0 for a residual r. "
        "M must approximate the inverse of A and be symmetric positive definite."
    )
    NOT_FINITE = (
        "NaN or infinity turned up in a product or in a function value. Check the "
        "user's functions at this x and y; x may be outside their domain."
    )
    NOT_STATIONARY = (
        "The point is not stationary for this x, so the implicit function theorem "
        "does not apply. Polish it: solve(problem, x, y0=solution.y)."
    )
    LINE_SEARCH_FAILED = (
        "No step along a descent direction lowered the objective. The gradient does "
        "not belong to the value (run check_derivatives), the function is not smooth, "
        "or it is computed too inexactly to fall further: tighten the inner tolerances."
    )
    APPROXIMATE = (
        "The solve was cut short as asked, by the diagonal of the Hessian or once a "
        "descent was shown: the result is a direction, not the derivative. Its residual "
        "says how far off it is."
    )
    STOPPED_BY_CALLBACK = "The callback asked to stop."

    def __init__(self, advice: str) -> None:
        del advice  # the value
        self.acceptable = self.name in {"CONVERGED", "ROUNDING_LIMIT", "APPROXIMATE"}


class ConvergenceError(RuntimeError):
    """A computation failed; the partial answer is in ``result``.

    Attributes
    ----------
    status : Status
        How the computation ended.
    result : object
        The record of the failed computation (``KrylovResult``, ``Solution``, ...).
    n_hvp : int
        Hessian products spent on the computation.
    """

    def __init__(
        self, message: str, status: Status, result: Any, n_hvp: int = 0
    ) -> None:
        super().__init__(message)
        self.status = status
        self.result = result
        self.n_hvp = n_hvp


class NoSolutionError(ConvergenceError, ValueError):
    """At this x the problem cannot be solved, by what is given: another x may do.

    A wrong argument where x is the caller's own, and a refused trial of a search.
    """


class ConvergenceWarning(UserWarning):
    """The message of :class:`ConvergenceError`, under ``on_failure="warn"``."""


def raise_or_warn(
    status: Status,
    result: Any,
    what: str,
    detail: str,
    on_failure: OnFailure,
    n_hvp: int = 0,
) -> None:
    """Raise, warn or do nothing about a failed computation, by ``on_failure``."""
    if status.acceptable or on_failure == "ignore":
        return
    message = f"{what} failed ({status.name}): {detail} {status.value}"
    if on_failure == "warn":
        warnings.warn(message, ConvergenceWarning, stacklevel=3)
        logger.warning(message)
    else:
        raise ConvergenceError(message, status, result, n_hvp)


def warn_poor(message: str, on_failure: OnFailure) -> None:
    """Warn about a poor answer that is as good as rounding allows."""
    if on_failure != "ignore":
        warnings.warn(message, ConvergenceWarning, stacklevel=4)
        logger.warning(message)
