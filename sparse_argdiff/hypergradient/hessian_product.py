"""Products with the Hessian of F(x) = f^U(x, g(x)), by two linear solves.

    φ(x, z) = f^U − λ' R(x, z)          R the conditions at z = (y, multipliers), λ held
    ż = − K⁻¹ B u                       how z moves along u, one solve
    (p, q) = d/dt ∇φ(x + t u, z + t ż)  at t = 0
    ∇²F u = p − Bᵀ λ̇,   K λ̇ = q         how λ moves, one solve

∇φ is (∂f^U/∂x − Bᵀ λ, (∂f^U/∂y, 0) − K λ): its derivative along (u, ż) has the third derivatives of f.
It is exact where both levels offer theirs, and else a difference of these products at given
points, in which no solve takes part: its error is that of rounding.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import (
    Array,
    copied,
    described,
    epsilon,
    is_finite,
    namespace,
    norm,
    returned_vector,
)
from ..implicit.checked_solve import LinearizedSolve
from ..implicit.kkt import linearize
from ..problem.multipliers import complete
from ..problem.problem import Problem, Solution
from ..status import Status, raise_or_warn
from .result import HypergradientResult
from .upper_objective import UpperObjective, gradient_x, gradient_y

_SAFETY = 3.0
_LOOSE = 0.1  # relative tolerance of the solve for an error
_ROUNDS = 9  # of a step that is divided by 10
_WHAT = "the product with the Hessian of F"

Pair = tuple[Array, Array]


@dataclasses.dataclass(frozen=True, eq=False)
class HessianProduct:
    """The outcome of :meth:`Hypergradient.hessian_product`.

    Attributes
    ----------
    product : array (m,)
        ∇²F(x) u.
    error : float
        Estimate of the 2-norm of its error that differences make; 0 for exact third
        derivatives.  That of the solves is theirs, as asked for by ``tol``.
    tangent, adjoint_change : array (N,)
        How (y, multipliers) and the adjoint move along u; empty where gradients were
        differences.
    n_hvp, n_grad : int
        Products with the lower Hessian, and gradients.
    warnings : tuple of str
        Caveats.
    """

    product: Array
    error: float
    tangent: Array
    adjoint_change: Array
    n_hvp: int
    n_grad: int = 0
    warnings: tuple[str, ...] = ()

    __repr__ = described

    def caveats(self, tolerance: float) -> tuple[str, ...]:
        """Return the warnings, with an error above that share of the product."""
        size = norm(self.product)
        if self.error <= tolerance * size:
            return self.warnings
        note = (
            f"the product with the Hessian of F is wrong by about {self.error:.1e}, its "
            f"norm being {size:.1e}: the third derivatives are differences"
        )
        return *self.warnings, note


class HessianProducts:
    """Products with ∇²F at the point of an evaluation; it is linearised once.

    Attributes
    ----------
    x : array (m,)
        The point.
    """

    def __init__(
        self,
        problem: Problem,
        upper: UpperObjective,
        found: HypergradientResult,
        **options: Any,
    ) -> None:
        self.problem, self.upper = problem, upper
        self.at = complete(problem, found.solution.judged_for(problem))
        self.x = self.at.x
        self._solve = LinearizedSolve(
            problem, found.solution.judged_for(problem), **options
        )
        self._adjoint = self._solve.system.restrict(found.adjoint.adjoint)
        self._reported = 0  # products that earlier results have counted

    @staticmethod
    def know(problem: Problem) -> bool:
        """Whether the formula covers the problem: no bounds that move, no kinks in f."""
        return not problem.bounds_move and problem.penalty is None

    def product(self, u: Array) -> HessianProduct:
        """Return ∇²F u; NotImplementedError where f_XY has no forward products."""
        solve = self._solve
        system = solve.system
        if not system.B.has_matvec:
            raise NotImplementedError("f_XY has no forward products")
        u = solve.vector("u", u, self.x.shape[0])
        tangent = -system.expand(solve.push_forward(u).x)
        (p, q), (p_error, q_error), n_hvp = self._third(u, tangent)
        change = solve(q)
        product = p - system.B.T @ change.x
        error = 0.0
        if norm(p_error) or norm(q_error):
            # The error of λ̇ is K⁻¹ times that of q: of an ill-conditioned K it is larger.
            spread = solve(q_error, loosely=_LOOSE).x if norm(q_error) else 0.0 * q
            error = _SAFETY * norm(p_error - system.B.T @ spread)
        if not is_finite(product):
            raise_or_warn(
                Status.NOT_FINITE, product, _WHAT, "It is not finite.", solve.on_failure
            )
        product = namespace(product).asarray(product, dtype=self.x.dtype)
        change_of_adjoint = system.expand(change.x)
        # The first product pays for the linearisation.
        n_hvp += solve.n_hvp - self._reported
        self._reported = solve.n_hvp
        return HessianProduct(
            product, error, tangent, change_of_adjoint, n_hvp, 0, solve.warnings
        )

    def _third(self, u: Array, tangent: Array) -> tuple[Pair, Pair, int]:
        """Return (p, q), their errors, and the Hessian products spent."""
        pair, error, n_hvp = self._third_of_lower(u, tangent)
        along, along_error = self._second_of_upper(u, tangent[: self.at.y.shape[0]])
        return (
            (along[0] - pair[0], along[1] - pair[1]),
            (along_error[0] - error[0], along_error[1] - error[1]),
            n_hvp,
        )

    def _third_of_lower(self, u: Array, tangent: Array) -> tuple[Pair, Pair, int]:
        """Return the derivative of (Bᵀ λ, K λ) along (u, ż)."""
        problem, at, system = self.problem, self.at, self._solve.system
        exact = getattr(problem.objective, "third_product", None)
        if callable(exact) and not (problem.equalities or problem.inequalities):
            with contextlib.suppress(NotImplementedError):
                pair = self._exact_third(exact, u, tangent)
                return pair, (0.0 * pair[0], 0.0 * pair[1]), 0
        n, count = at.y.shape[0], 0

        def products(t: float) -> Pair:
            nonlocal count
            y, multipliers = at.y + t * tangent[:n], at.multipliers
            if multipliers is not None:
                multipliers = multipliers + t * tangent[n:]
            there = dataclasses.replace(
                at, x=at.x + t * u, y=y, multipliers=multipliers, residual=None
            )
            moved = linearize(problem, there)
            count += 1
            return moved.B.T @ self._adjoint, moved.K @ self._adjoint

        unit = max(epsilon(at.y), system.K.accuracy or 0.0)
        pair, error = differentiate(products, unit, _reach(at, u, tangent))
        return pair, error, count

    def _exact_third(
        self, exact: Callable[..., Pair], u: Array, tangent: Array
    ) -> Pair:
        at, system = self.at, self._solve.system
        sizes = at.x.shape[0], at.y.shape[0]
        adjoint = system.expand(self._adjoint)
        given = exact(*map(copied, (at.x, at.y, adjoint, u, tangent)))
        p, q = (
            returned_vector("objective.third_product", part, size)
            for part, size in zip(given, sizes, strict=True)
        )
        q = system.restrict(q)
        return (-p, -q) if self.problem.maximize else (p, q)

    def _second_of_upper(self, u: Array, dy: Array) -> tuple[Pair, Pair]:
        """Return the derivative of (∂f^U/∂x, ∂f^U/∂y) along (u, ẏ), y by the unknowns of K."""
        at, system = self.at, self._solve.system
        zero = 0.0 * at.x, 0.0 * at.y
        total, total_error = zero, zero
        for part in getattr(self.upper, "parts", (self.upper,)):
            exact = getattr(part, "hess_product", None)
            if callable(exact):
                found = exact(*map(copied, (at.x, at.y, u, dy)))
                pair = tuple(
                    none
                    if given is None
                    else returned_vector("upper.hess_product", given, none.shape[0])
                    for given, none in zip(found, zero, strict=True)
                )
                error = zero
            else:

                def gradients(t: float, part: Any = part) -> Pair:
                    there = dataclasses.replace(at, x=at.x + t * u, y=at.y + t * dy)
                    direct = gradient_x(part, there)
                    return (
                        zero[0] if direct is None else direct,
                        copied(gradient_y(part, there)),
                    )

                length = _reach(at, u, dy)
                pair, error = differentiate(gradients, epsilon(at.y), length)
            total = total[0] + pair[0], total[1] + pair[1]
            total_error = total_error[0] + error[0], total_error[1] + error[1]
        return (
            (total[0], system.right_hand_side(total[1])),
            (total_error[0], system.right_hand_side(total_error[1])),
        )


def differenced_product(
    evaluate: Callable[[Array], HypergradientResult], x: Array, u: Array, unit: float
) -> HessianProduct:
    """Return ∇²F u from gradients along u, which are known to ``unit``."""
    nothing, n_hvp, n_grad = 0.0 * x[:0], 0, 0

    def gradient(t: float) -> tuple[Array, Array]:
        nonlocal n_hvp, n_grad
        found = evaluate(x + t * u)
        n_hvp, n_grad = n_hvp + found.n_hvp, n_grad + found.n_grad
        return found.gradient, nothing

    size, xp = norm(u), namespace(x)
    if not size > 0.0:
        return HessianProduct(0.0 * u, 0.0, nothing, nothing, 0)
    reach = (1.0 + float(xp.max(xp.abs(x)))) / size
    (product, _), (error, _) = differentiate(gradient, unit, reach)
    note = "products with the Hessian of F are differences of its gradient"
    return HessianProduct(
        product, norm(error), nothing, nothing, n_hvp, n_grad, (note,)
    )


def differentiate(
    function: Callable[[float], Pair], unit: float, reach: float
) -> tuple[Pair, Pair]:
    """Return the derivative at 0 of two vectors, and an estimate of its error as vectors.

    D(h) = (f(h) − f(−h)) / 2h errs by h², E(h) = (4 D(h) − D(2h)) / 3 by h⁴ and, for values
    of a relative error ``unit``, by unit / h: the step h = unit^(1/5) times the reach
    balances both.  E(h) − E(2h) is taken for the error: of h⁴ it is 15 times as much, of
    rounding as much.  The step is divided by 10 while that is more than half the digits
    of ``unit`` and than rounding explains, as where values are not finite, or bend over a
    shorter length; of all steps the one with the least error is taken.
    """
    best: tuple[float, Pair, Pair] | None = None
    step, worse = unit**0.2 * reach, 0
    for _ in range(_ROUNDS):
        with np.errstate(all="ignore"):
            values = [function(k * step) for k in (1.0, -1.0, 2.0, -2.0, 4.0, -4.0)]
        if all(is_finite(part) for pair in values for part in pair):
            found, errors = _extrapolated(values, step)
            size, explained = sum(map(norm, errors)), True
            for error, part, value in zip(errors, found, values[0], strict=True):
                rounding = 10.0 * unit * norm(value) / step
                explained &= norm(error) <= max(unit**0.5 * norm(part), rounding)
            worse = worse + 1 if best is not None and size >= best[0] else 0
            if best is None or size < best[0]:
                best = size, found, errors
            if explained or worse == 2:
                break
        step /= 10.0
    if best is None:
        lost = math.nan * values[0][0], math.nan * values[0][1]
        return lost, lost
    return best[1], best[2]


def _extrapolated(values: list[Pair], step: float) -> tuple[Pair, Pair]:
    """Return E(h) and E(h) − E(2h) from the values at ±h, ±2h and ±4h."""
    found, errors = [], []
    for a, b, c, d, e, f in zip(*values, strict=True):
        near, wide, far = a - b, 0.5 * (c - d), 0.25 * (e - f)
        found.append((4.0 * near - wide) / (6.0 * step))
        errors.append((4.0 * near - 5.0 * wide + far) / (6.0 * step))
    return (found[0], found[1]), (errors[0], errors[1])


def _reach(at: Solution, u: Array, tangent: Array) -> float:
    """Return the t over which x + t u and z + t ż change by their own size."""
    xp, n = namespace(at.y), at.y.shape[0]
    whole = [(1.0 + float(xp.max(xp.abs(at.x))), u), (norm(at.y), tangent[:n])]
    if at.multipliers is not None and tangent.shape[0] > n:
        whole.append((norm(at.multipliers), tangent[n:]))
    lengths = [size / norm(way) for size, way in whole if size and norm(way)]
    return min(lengths, default=1.0)
