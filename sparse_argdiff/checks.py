"""Checks of hand-written derivatives and operators against independent arithmetic.

⟨A u, v⟩ = ⟨u, Aᵀ v⟩,        f_Y ≈ (f(y + h d) − f(y − h d)) / 2h,   and so on.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from .arrays import Array, as_vector, asarray, dot, epsilon, namespace, norm
from .operators.checked_products import transpose_error
from .operators.linear_operator import aslinearoperator
from .problem.objective import Objective, central_difference
from .problem.problem import Problem


class CheckError(AssertionError):
    """A check failed; the errors are in ``report``."""

    def __init__(self, report: CheckReport) -> None:
        super().__init__(str(report))
        self.report = report


@dataclasses.dataclass(frozen=True)
class CheckReport:
    """Relative errors and tolerances by name; true when all errors are allowed."""

    errors: dict[str, float]
    rtol: dict[str, float]

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that failed; NaN fails."""
        return tuple(
            name for name, e in self.errors.items() if not e <= self.rtol[name]
        )

    def __bool__(self) -> bool:
        return not self.failed

    def __str__(self) -> str:
        lines = [
            f"{'FAILED' if name in self.failed else 'ok':6s} {name}: relative error "
            f"{error:.1e}, allowed {self.rtol[name]:.1e}"
            for name, error in self.errors.items()
        ]
        return "\n".join(lines)


def _report(
    errors: dict[str, float], rtol: dict[str, float], raise_on_failure: bool
) -> CheckReport:
    report = CheckReport(errors, rtol)
    if raise_on_failure and not report:
        raise CheckError(report)
    return report


def dot_test(
    A: Any,
    *,
    rtol: float | None = None,
    rng: np.random.Generator | int | None = None,
    like: Array | None = None,
    raise_on_failure: bool = True,
) -> CheckReport:
    """Check that ``A.T`` is the transpose of ``A``: u'(A v) = v'(Aᵀ u).

    Parameters
    ----------
    A : operator (p, q)
    rtol : float, optional
        Allowed |u'Av − v'Aᵀu| / (‖u‖‖Av‖ + ‖v‖‖Aᵀu‖): by default 10⁴ units of
        roundoff, or ten times the accuracy that the operator states.
    rng : Generator, int or None
        Generates u and v.
    like : array, optional
        Gives u and v their namespace and dtype; NumPy, float64 by default.
    raise_on_failure : bool
        Raise :class:`CheckError` rather than return a false report.
    """
    A = aslinearoperator(A)
    if like is None:
        like = np.zeros(0, dtype=A.dtype or np.float64)
    rng = np.random.default_rng(0 if rng is None else rng)
    v = _random(rng, A.shape[1], like)
    u = _random(rng, A.shape[0], like)
    error = transpose_error(u, A @ v, v, A.T @ u)
    allowed = max(1e4 * epsilon(like), 10.0 * (A.accuracy or 0.0))
    name = "dot test"
    return _report(
        {name: error}, {name: allowed if rtol is None else rtol}, raise_on_failure
    )


def check_derivatives(
    objective: Objective,
    x: Any,
    y: Any,
    *,
    rtol: float | None = None,
    rng: np.random.Generator | int | None = None,
    raise_on_failure: bool = True,
) -> CheckReport:
    """Check an objective's ``grad``, ``hess`` and ``cross`` at (x, y).

    ``grad`` against differences of ``value``, ``hess`` and ``cross`` against those of
    ``grad`` along random directions, the symmetry of ``hess`` and the transpose of
    ``cross``; what the objective lacks is left out.

    Parameters
    ----------
    rtol : float, optional
        Allowed relative error against differences, 10⁴ ε^(2/3) by default.
    """
    x, y = as_vector("x", x), as_vector("y", y)
    problem = Problem(objective)
    rng = np.random.default_rng(0 if rng is None else rng)
    d, w = _random(rng, y.shape[0], y), _random(rng, y.shape[0], y)
    u = _random(rng, x.shape[0], x)
    unit = epsilon(y)
    allowed = 1e4 * unit ** (2 / 3) if rtol is None else rtol
    hess, cross = problem.hess(x, y), problem.cross(x, y)
    errors: dict[str, float] = {}
    if problem.has_value:
        slope = _difference(lambda h: problem.value(x, y + h * d), y, d)
        grad, value = problem.grad(x, y), problem.value(x, y)
        errors["grad against differences of value"] = _slope_error(
            slope, grad, value, y, d
        )
    change = _difference(lambda h: problem.grad(x, y + h * d), y, d)
    # A copy: the user's product may write into the same buffer again.
    Hd = namespace(y).asarray(hess @ d, copy=True)
    errors["hess against differences of grad"] = _ratio(
        norm(change - Hd), norm(Hd) + norm(change)
    )
    errors["hess is symmetric"] = transpose_error(w, Hd, d, hess @ w)
    if hess.has_diagonal:
        errors["diagonal of hess"] = _diagonal_error(hess, y)
    by_x = _difference(lambda h: problem.grad(x + h * u, y), x, u)
    with contextlib.suppress(NotImplementedError):
        forward = cross @ u
        errors["cross against differences of grad"] = _ratio(
            norm(by_x - forward), norm(by_x) + norm(forward)
        )
    with contextlib.suppress(NotImplementedError):
        name = "cross transposed against differences of grad"
        errors[name] = transpose_error(w, by_x, u, cross.T @ w)
    return _report(errors, dict.fromkeys(errors, allowed), raise_on_failure)


def check_hypergradient(
    F: Callable[[Any], tuple[float, Array]],
    x: Any,
    *,
    directions: int = 3,
    rtol: float = 1e-5,
    rng: np.random.Generator | int | None = None,
    raise_on_failure: bool = True,
) -> CheckReport:
    """Check ``F``'s gradient against central differences of its value.

    Parameters
    ----------
    F : Hypergradient, or any callable returning (value, gradient)
        The tolerance of F limits the accuracy of differences; use 1e-10 or less.  The
        differences are those of ``F.value``, where F has this method.
    x : array (m,)
    directions : int
        Random directions tried; each costs two lower-level solves.
    rtol : float
        Allowed error relative to ‖gradient‖ ‖direction‖.
    """
    x = as_vector("x", x)
    rng = np.random.default_rng(0 if rng is None else rng)
    value: Callable[[Array], float] = getattr(F, "value", lambda z: F(z)[0])
    at_x, gradient = F(x)
    errors = {}
    for k in range(directions):
        d = _random(rng, x.shape[0], x)

        def along(h: float, d: Array = d) -> float:
            return value(x + h * d)

        slope = _difference(along, x, d)
        errors[f"direction {k}"] = _slope_error(slope, gradient, at_x, x, d)
    return _report(errors, dict.fromkeys(errors, rtol), raise_on_failure)


def _random(rng: np.random.Generator, size: int, like: Array) -> Array:
    return asarray(rng.standard_normal(size), like)


def _ratio(error: float, size: float) -> float:
    return 0.0 if error == 0.0 else error / size if size > 0.0 else float("inf")


def _slope_error(slope: float, grad: Array, value: float, at: Array, d: Array) -> float:
    """Return the relative error of grad'd, less what rounding of the value explains."""
    noise = epsilon(at) ** (2 / 3) * abs(value) * norm(d) / (1.0 + norm(at))
    error = max(abs(slope - dot(grad, d)) - noise, 0.0)
    return _ratio(float(error), norm(grad) * norm(d))


def _difference(along: Callable[[float], Any], at: Array, d: Array) -> Any:
    """Return the central difference along d; zero for d = 0, an empty one for instance."""
    return central_difference(along, at, d) if norm(d) else along(0.0) * 0.0


def _diagonal_error(hess: Any, y: Array, most: int = 5) -> float:
    """Compare a few diagonal entries with products by unit vectors."""
    diag, errors = hess.diagonal(), [0.0]
    for j in range(0, y.shape[0], max(1, y.shape[0] // most)):
        unit_vector = 0.0 * y
        unit_vector[j] = 1.0
        entry, claimed = float((hess @ unit_vector)[j]), float(diag[j])
        errors.append(_ratio(abs(entry - claimed), max(abs(entry), abs(claimed))))
    return max(errors)
