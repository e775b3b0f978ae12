"""Checks of hand-written derivatives and operators against independent arithmetic.

⟨A u, v⟩ = ⟨u, Aᵀ v⟩,        f_Y ≈ (f(y + h d) − f(y − h d)) / 2h,   and so on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .arrays import (
    Array,
    as_vector,
    asarray,
    brief,
    copied,
    dot,
    epsilon,
    is_array,
    namespace,
    norm,
    to_namespace,
)
from .operators.linear_operator import aslinearoperator
from .operators.probes import transpose_error
from .problem.constraints import Stack
from .problem.differences import central_difference
from .problem.objective import Objective
from .problem.problem import Problem


class CheckError(AssertionError):
    """A check failed; the errors are in ``report``."""

    def __init__(self, report: CheckReport) -> None:
        super().__init__(str(report))
        self.report = report


@dataclasses.dataclass(frozen=True, eq=False)
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

    def __repr__(self) -> str:
        counts = {"checks": len(self.errors), "failed": self.failed}
        return brief("CheckReport", counts)

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
    objective: Objective | Problem,
    x: Any,
    y: Any,
    *,
    rtol: float | None = None,
    rng: np.random.Generator | int | None = None,
    raise_on_failure: bool = True,
) -> CheckReport:
    """Check the derivatives of an objective, or of a problem with its constraints, at (x, y).

    ``grad`` against differences of ``value``, ``hess`` and ``cross`` against those of
    ``grad`` along random directions, the symmetry of ``hess`` and the transpose of
    ``cross``; what the objective lacks is left out.  Of each constraint ``jac`` and
    ``jac_x`` against differences of ``fun``, ``hess`` and ``cross`` against those of
    ``jac``; what a constraint lacks stands for zero, and is compared as such.  Of bounds
    that depend on x the products with the derivative.

    Parameters
    ----------
    objective : Objective or Problem
    x, y : array (m,), (n,)
        Any point of the domain, a solution or not.
    rtol : float, optional
        Allowed relative error against differences, 10⁴ ε^(2/3) by default.

    Notes
    -----
    At a solution the slope of the value is zero but for rounding.  ``grad`` is therefore
    integrated along a short way (Simpson's rule), and compared with the change of the
    value.  What differs along one step is tried again along shorter ones.
    """
    problem = objective if isinstance(objective, Problem) else Problem(objective)
    x = as_vector("x", x)
    y = as_vector("y", y, getattr(problem.objective, "n", None))
    rng = np.random.default_rng(0 if rng is None else rng)
    d, w = _random(rng, y.shape[0], y), _random(rng, y.shape[0], y)
    u = _random(rng, x.shape[0], x)
    allowed = 1e4 * epsilon(y) ** (2 / 3) if rtol is None else rtol
    at = _Differences(x, y, u, d, w, allowed)
    errors = _objective_errors(problem, at)
    for rows in (problem.equalities, problem.inequalities):
        for i, part in enumerate(() if rows is None else rows.parts):
            assert rows is not None
            found = _row_errors(Stack(rows.name, [part]), at, rng)
            errors |= {f"{rows.name}[{i}].{name}": e for name, e in found.items()}
    errors |= _bound_errors(problem, at, w)
    return _report(errors, dict.fromkeys(errors, allowed), raise_on_failure)


def _bound_errors(problem: Problem, at: _Differences, w: Array) -> dict[str, float]:
    """Check the derivatives of bounds that depend on x, each variable in its own units."""
    errors: dict[str, float] = {}
    for side, derivative in enumerate(problem.bound_derivatives(at.x, at.y)):
        if derivative is None:
            continue

        def bound(x: Array, y: Array, side: int = side) -> Array:
            value = problem.bounds(x, y)[side]
            return namespace(value).where(
                namespace(value).isfinite(value), value, 0 * y
            )

        name = ("lower", "upper")[side]
        size = namespace(at.y).abs(bound(at.x, at.y))
        errors |= at.operator_errors(
            (f"{name}_jvp", name), derivative, bound, "x", w, size, 0.0 * size
        )
    return errors


def _objective_errors(problem: Problem, at: _Differences) -> dict[str, float]:
    x, y, d, w = at.x, at.y, at.d, at.w
    hess, errors = problem.hess(x, y), {}
    if problem.has_value:
        errors["grad against differences of value"] = at.slope_error(problem)
    # A copy: the user's product may write into the same buffer again.
    Hd = copied(hess @ d)
    terms = norm(problem.grad(x, y)) + norm(hess @ y)
    errors["hess against differences of grad"] = at.error(
        lambda h: problem.grad(x, y + h * d), Hd, y, d, terms
    )
    errors["hess is symmetric"] = transpose_error(w, Hd, d, hess @ w)
    if hess.has_diagonal:
        errors["diagonal of hess"] = _diagonal_error(hess, y)
    cross = problem.cross(x, y)
    errors |= at.operator_errors(("cross", "grad"), cross, problem.grad, "x", w, terms)
    return errors


def _row_errors(
    rows: Stack, at: _Differences, rng: np.random.Generator
) -> dict[str, float]:
    """Check the rows of one constraint, each in its own units."""
    x, y = at.x, at.y
    part, jac = rows.parts[0], aslinearoperator(rows.jac(x, y))
    xp = namespace(y)
    size = xp.abs(jac @ at.d) + xp.abs(jac @ at.w)
    terms = xp.abs(rows.value(x, y)) + xp.abs(jac @ y)
    left = _random(rng, jac.shape[0], y) / xp.where(size > 0.0, size, 1.0 + size)
    force = norm(copied(jac.T @ left))

    def weighted(x: Array, y: Array) -> Array:
        return copied(aslinearoperator(rows.jac(x, y)).T @ left)

    def of(name: str, by: str) -> tuple[str, str]:
        given = getattr(part, name) is not None or part.affine
        return name if given else f"{name} (None)", by

    return (
        at.operator_errors(("jac", "fun"), jac, rows.value, "y", left, terms, size)
        | at.operator_errors(
            of("jac_x", "fun"), rows.jac_x(x, y), rows.value, "x", left, terms, 0 * size
        )
        | at.operator_errors(
            of("hess", "jac"), rows.hess(x, y, left), weighted, "y", at.w, force
        )
        | at.operator_errors(
            of("cross", "jac"), rows.cross(x, y, left), weighted, "x", at.w, force
        )
    )


@dataclasses.dataclass(frozen=True)
class _Differences:
    """Differences at (x, y) along u in x and d in y; w is another direction in y."""

    x: Array
    y: Array
    u: Array
    d: Array
    w: Array
    allowed: float

    def slope_error(self, problem: Problem) -> float:
        """Return the relative error of ∫ grad'd against the change of the value.

        With t = ε^(1/6), Simpson's rule errs by t⁴ and rounding by ε / t² of the slope,
        also where the slope is zero at y: both are far below what is allowed.
        """
        x, y, unit = self.x, self.y, epsilon(self.y)
        d, before = self.d / (norm(self.d) or 1.0), problem.value(x, y)

        def attempt(length: float) -> tuple[Any, Any, Any]:
            t = unit ** (1 / 6) * length
            slopes = [dot(problem.grad(x, y + s * d), d) for s in (0.0, 0.5 * t, t)]
            mean = (slopes[0] + 4.0 * slopes[1] + slopes[2]) / 6.0
            change = (problem.value(x, y + t * d) - before) / t
            noise = 4.0 * unit * abs(before) / t
            return abs(change - mean), noise, max(map(abs, slopes))

        return _least_error(attempt, y, self.allowed)

    def error(
        self,
        along: Callable[[float], Any],
        claimed: Any,
        at: Array,
        d: Array,
        terms: Any,
        size: Any = None,
    ) -> float:
        """Return how far a derivative along d is from differences, relatively.

        The measure is the norm, or the worst entry where there is a ``size`` of each;
        ``terms`` is the size of the terms whose rounding is in a difference.
        """

        def attempt(length: float) -> tuple[Any, Any, Any]:
            change = _difference(along, at, d, length)
            error, *sizes = (
                _host(abs(part) if size is not None else norm(part))
                for part in (change - claimed, change, claimed)
            )
            noise = _host(terms) * epsilon(at) ** (2 / 3) * norm(d) / length
            return error, noise, sum(sizes) + (0.0 if size is None else _host(size))

        return _least_error(attempt, at, self.allowed)

    def operator_errors(
        self,
        names: tuple[str, str],
        A: Any,
        function: Callable[[Array, Array], Array],
        by: str,
        left: Array,
        terms: Any,
        size: Any = None,
    ) -> dict[str, float]:
        """Return the errors of the derivative A of a function, and of Aᵀ; None is zero."""
        x, y, errors = self.x, self.y, {}
        at, d = (x, self.u) if by == "x" else (y, self.d)
        name, rest = names[0], f"against differences of {names[1]}"

        def along(h: float) -> Array:
            return function(x + h * d, y) if by == "x" else function(x, y + h * d)

        with contextlib.suppress(NotImplementedError):
            forward = 0.0 * along(0.0) if A is None else copied(A @ d)
            errors[f"{name} {rest}"] = self.error(along, forward, at, d, terms, size)
        with contextlib.suppress(NotImplementedError):
            if A is not None:
                back = copied(A.T @ left)
                errors[f"{name} transposed {rest}"] = self.error(
                    lambda h: dot(left, along(h)),
                    dot(d, back),
                    at,
                    d,
                    np.sum(np.abs(_host(left)) * _host(terms)),
                    norm(d) * norm(back),
                )
        return errors


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


def _difference(
    along: Callable[[float], Any], at: Array, d: Array, length: float | None = None
) -> Any:
    """Return the central difference along d; zero for d = 0, an empty one for instance."""
    return central_difference(along, at, d, length) if norm(d) else along(0.0) * 0.0


def _least_error(
    attempt: Callable[[float], tuple[Any, Any, Any]], at: Array, allowed: float
) -> float:
    """Return the least error of steps over which a function may bend, the longest first.

    ``attempt(length)`` returns the error, what rounding explains of it, and what it is
    relative to.  A domain may end before a step does: what is raised there, or not finite,
    tells nothing.  Rounding excuses in the first step alone: in short ones it excuses all.
    """
    longest, least = 1.0 + norm(at), math.nan
    own = [longest - 1.0] if 1.0 < longest < 2.0 else []
    for length in (longest, *own, *(longest * 10.0**-k for k in range(1, 9))):
        with (
            np.errstate(all="ignore"),
            contextlib.suppress(ArithmeticError, ValueError),
        ):
            error, noise, whole = attempt(length)
            noise = noise if length == longest else 0.0 * noise
            ratios = np.where(error <= noise, 0.0, (error - noise) / whole)
            least = float(np.fmin(least, np.max(ratios, initial=0.0)))
        if least <= allowed:
            break
    return least


def _host(value: Any) -> Any:
    return to_namespace(value, np) if is_array(value) else np.asarray(value)


def _diagonal_error(hess: Any, y: Array, most: int = 5) -> float:
    """Compare a few diagonal entries with products by unit vectors."""
    diag, errors = hess.diagonal(), [0.0]
    for j in range(0, y.shape[0], max(1, y.shape[0] // most)):
        unit_vector = 0.0 * y
        unit_vector[j] = 1.0
        entry, claimed = float((hess @ unit_vector)[j]), float(diag[j])
        errors.append(_ratio(abs(entry - claimed), max(abs(entry), abs(claimed))))
    return max(errors)
