"""The history of a run, a record for each accepted iterate, and its result."""

from __future__ import annotations

import dataclasses
from typing import Any

from scipy.optimize import OptimizeResult

from ..arrays import brief, described
from .plot import plot_history


@dataclasses.dataclass(frozen=True)
class HistoryRecord:
    """One accepted upper-level iterate; costs are totals since the start.

    Attributes
    ----------
    nit : int
        Upper-level iteration, 0 for the start.
    value : float
        F(x).
    value_error : float
        Three times the correction of this value by the adjoint, and ten times a guess of
        the second order that it leaves: where a solve was loose, how far off the value may
        be.  Of the returned point: that of its certificate.
    gradient_norm : float
        Norm of the projected gradient: the entries of ∇F that do not push x against a
        bound.
    gradient_error : float
        A guess of how far off the gradient may be, ten times the errors of y and of the
        adjoint relative to themselves; of the returned point that of its certificate.
    step_norm : float
        ‖x − x_previous‖.
    lower_tol, adjoint_tol : float
        Tolerances of the two solves.
    n_hvp, n_grad, n_evaluations : int
        Hessian products, lower-level gradients, hypergradients.
    seconds : float
        Since the start.
    """

    nit: int
    value: float
    value_error: float
    gradient_norm: float
    gradient_error: float
    step_norm: float
    lower_tol: float
    adjoint_tol: float
    n_hvp: int
    n_grad: int
    n_evaluations: int
    seconds: float

    __repr__ = described


class BilevelResult(OptimizeResult):  # type: ignore[misc]  # SciPy is untyped
    """The outcome of :func:`minimize`, an ``OptimizeResult``.

    Attributes
    ----------
    x, fun, jac, y : the best point, its value, gradient and lower-level solution,
        computed at the finest tolerances, as is the record of this point in ``history``.
    method : str
        What ran: the method that was asked for, or picked.
    success : bool
        Whether the projected gradient met the tolerance, or the gradients on the sides of
        kinks of F: ``message`` says which.
    status : Status
        Why it ended; ``message`` is its sentence.
    nit, nfev, n_hvp, n_grad : int
        Iterations, hypergradients, Hessian products, lower-level gradients.
    history : list of HistoryRecord
    certificate : Certificate or None
        What is known about the errors of ``fun`` and ``jac``, however the run ended; None
        where it could not be computed.
    warnings : tuple of str
        Caveats of the evaluation of this point, such as a one-sided derivative, and
        ``limits``.
    limits : tuple of str
        What is to be said of parameters that went so far that F no longer depends on them,
        such as penalties that want to be zero or infinite.
    """

    # Identity, as of all records with arrays: those of two dicts cannot be compared.
    __eq__, __ne__, __hash__ = object.__eq__, object.__ne__, object.__hash__

    def __repr__(self) -> str:
        verdict = {name: self[name] for name in ("status", "success") if name in self}
        counts = {name: part for name, part in self.items() if name != "message"}
        return brief("BilevelResult", verdict | counts | {"message": self.message})

    def plot(self, axes: Any = None, *, label: str | None = None) -> Any:
        """Plot value and gradient norm against products and seconds; return the figure.

        Parameters
        ----------
        axes : array of four matplotlib axes, optional
            In the order of a 2 x 2 grid.  ``other.plot(figure.axes)`` adds another run
            to the figure of the first.
        label : str, optional
            Of the run, for the legend.

        Raises
        ------
        ImportError
            Without matplotlib: it comes with the extra ``plot``.
        ValueError
            When there are not four axes.
        """
        return plot_history(self.history, axes, label)
