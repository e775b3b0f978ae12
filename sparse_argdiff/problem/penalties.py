"""Penalties Ω(x, y) with kinks, of which a derivative exists on the support.

    L1          Σ_j w_j |y_j|                    off the support  |f_Y,j| ≤ w_j
    ElasticNet  Σ_j w_j |y_j| + ½ v_j y_j²       the same
    GroupL1     Σ_g w_g ‖y_g‖₂                   off the support  ‖f_Y,g‖₂ ≤ w_g

The weights w(x) may be zero, for what is free, and infinite, for what is excluded.  On the
support Ω is smooth: its gradient, curvature and derivative by x add to those of f.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

from ..arrays import Array, brief, namespace
from ..operators.diagonal_blocks import diagonal
from ..operators.linear_operator import LinearOperator
from .penalty_weights import (
    Product,
    Weights,
    checked_smoothing,
    ratio,
    soft_threshold,
    weighted_sum,
)


class Penalty(Protocol):
    """A function Ω(x, y), smooth on its support, zero and not smooth off it.

    The minimised function is f + Ω.  Optional: ``separable``, whether coordinates do not
    meet in Ω, which bounds on y need; ``blocks``, int labels (n,) of the coordinates that
    leave the support together, which get one common step; ``smooth``, true where the support
    is everything and f + Ω is a smooth function; ``convex``; ``ridge(x, y)``, the v of
    Ω = ½ Σ v_j y_j² + a sum of norms of the blocks, whose dual norms ``activity`` has, with
    which the duality gap is known; ``grad_x(x, y)``, Ω_X, for ``value_gradient``.
    """

    def value(self, x: Array, y: Array) -> float:
        """Return Ω(x, y)."""

    def prox(self, x: Array, v: Array, steps: Array) -> Array:
        """Return argmin_y Ω(x, y) + Σ_j (y_j − v_j)² / (2 steps_j), zeros exact."""

    def support(self, x: Array, y: Array) -> Array:
        """Return the mask (n,) of the coordinates along which Ω is smooth at y."""

    def grad(self, x: Array, y: Array) -> Array:
        """Return ∇_y Ω on the support, zero off it, shape (n,)."""

    def hess(self, x: Array, y: Array) -> Any:
        """Return the curvature of Ω on the support, an operator (n, n)."""

    def cross(self, x: Array, y: Array) -> Any:
        """Return ∂/∂x of ``grad``, an operator (n, m)."""

    def activity(self, x: Array, y: Array, force: Array) -> Array:
        """Return, off the support, how far the force −f_Y is used up, shape (n,).

        At most 1 at a solution, and 1 where a coordinate is about to enter.
        """


class L1:
    """The penalty Σ_j w_j |y_j|.

    Parameters
    ----------
    weights : None, float, array (n,) or callable
        Fixed weights; or a function ``weights(x)`` of shape (n,); or by default e^x, with x
        of one entry for all coefficients or of one each.  Zero: the coefficient is free;
        infinite: it is zero and has derivative zero.  They are used as given.
    weights_jvp, weights_vjp : callable, optional
        ``weights_jvp(x, u)`` returns w'(x) u (n,), ``weights_vjp(x, v)`` returns w'(x)ᵀ v
        (m,); attributes ``jvp`` and ``vjp`` of a callable ``weights`` serve as well.
    smoothing : float, optional
        A length ε: the smooth penalty Σ_j w_j ((y_j² + ε²)^½ − ε) instead, whose
        coefficients are never exactly zero.

    Attributes
    ----------
    smooth : bool
        Whether ``smoothing`` was given.

    Raises
    ------
    ValueError
        For negative weights or NaN.

    References
    ----------
    R. Tibshirani, J. R. Statist. Soc. B 58 (1996) 267-288.
    Q. Bertrand et al., "Implicit differentiation for fast hyperparameter selection in
    non-smooth convex learning", J. Mach. Learn. Res. 23 (2022) 149.

    Examples
    --------
    >>> import numpy as np
    >>> import sparse_argdiff as sad
    >>> glm = np.array([2.0, 0.3])
    >>> f = sad.FunctionObjective(
    ...     grad=lambda x, y: y - glm, value=lambda x, y: 0.5 * ((y - glm) ** 2).sum(),
    ...     hvp=lambda x, y, v: v, cross_vjp=lambda x, y, w: 0.0 * x,
    ...     cross_jvp=lambda x, y, u: 0.0 * y, n=2,
    ... )
    >>> problem = sad.Problem(f, penalty=sad.L1())
    >>> x = np.log([0.5])
    >>> solution = sad.solve(problem, x)
    >>> solution.y
    array([1.5, 0. ])
    >>> sad.jvp(problem, solution, np.ones(1)).y
    array([-0.5,  0. ])
    """

    separable = convex = True
    blocks: Any = None

    def __init__(
        self,
        weights: Any = None,
        *,
        weights_jvp: Product | None = None,
        weights_vjp: Product | None = None,
        smoothing: float | None = None,
    ) -> None:
        self._weights = Weights("weights", weights, weights_jvp, weights_vjp)
        self._smoothing = checked_smoothing(smoothing)
        self.smooth = smoothing is not None

    def __repr__(self) -> str:
        return brief(type(self).__name__, {"weights": self._weights._given})

    def weights(self, x: Array, y: Array) -> Array:
        """Return w(x), shape (n,)."""
        return self._weights(x, y, y.shape[0])

    def ridge(self, x: Array, y: Array) -> Array:
        """Return the weights v of ½ v_j y_j², zero here."""
        return namespace(y).zeros_like(y)

    def value(self, x: Array, y: Array) -> float:
        """Return Σ w_j |y_j|."""
        return weighted_sum(self.weights(x, y), self._sizes(y))

    def _sizes(self, y: Array) -> Array:
        xp, eps = namespace(y), self._smoothing
        return xp.abs(y) if eps == 0.0 else xp.hypot(y, eps + 0.0 * y) - eps

    def _slopes(self, y: Array) -> Array:
        """Return the derivative of each size."""
        xp, eps = namespace(y), self._smoothing
        return xp.sign(y) if eps == 0.0 else y / xp.hypot(y, eps + 0.0 * y)

    def prox(self, x: Array, v: Array, steps: Array) -> Array:
        """Return the soft threshold of v at steps · w."""
        return soft_threshold(v, self.weights(x, v) * steps)

    def support(self, x: Array, y: Array) -> Array:
        """Return y_j ≠ 0, or w_j = 0, and w_j finite."""
        w = self.weights(x, y)
        if self.smooth:
            return w != math.inf
        return ((y != 0.0) | (w == 0.0)) & (w != math.inf)

    def grad_x(self, x: Array, y: Array) -> Array:
        """Return Ω_X, Σ_j |y_j| ∂w_j/∂x, shape (m,)."""
        return self._weights.vjp(x, self._sizes(y), y, y.shape[0])

    def _acting(self, x: Array, y: Array) -> Array:
        """Return the weights on the support, zero off it."""
        w = self.weights(x, y)
        return namespace(y).where(self.support(x, y), w, namespace(y).zeros_like(w))

    def grad(self, x: Array, y: Array) -> Array:
        """Return w_j sign(y_j)."""
        return self._acting(x, y) * self._slopes(y)

    def hess(self, x: Array, y: Array) -> LinearOperator:
        """Return zero, or the curvature of the smooth penalty, a diagonal."""
        if not self.smooth:
            return diagonal(namespace(y).zeros_like(y))
        r = namespace(y).hypot(y, self._smoothing + 0.0 * y)
        bend = (self._smoothing / r) ** 2 / r  # (1 − u²) / r without cancellation
        return diagonal(self._acting(x, y) * bend)

    def cross(self, x: Array, y: Array) -> LinearOperator:
        """Return diag(sign y) w'(x) on the support."""
        xp, n, slopes = namespace(y), y.shape[0], self._slopes(y)
        slopes = xp.where(self.support(x, y), slopes, xp.zeros_like(y))
        return LinearOperator(
            (n, x.shape[0]),
            lambda u: slopes * self._weights.jvp(x, u, y, n),
            lambda v: self._weights.vjp(x, slopes * v, y, n),
            dtype=y.dtype,
        )

    def activity(self, x: Array, y: Array, force: Array) -> Array:
        """Return |force_j| / w_j, zero for free and for excluded coefficients."""
        return ratio(namespace(y).abs(force), self.weights(x, y))


class ElasticNet(L1):
    """The penalty Σ_j w_j |y_j| + ½ v_j y_j².

    Parameters
    ----------
    weights, ridge : None, float, array (n,) or callable
        w and v as for :class:`L1`.  By default x = (x₁, x₂) of two equal parts, w = e^x₁ and
        v = e^x₂, each of one entry or of n.
    l1_ratio : float, optional
        Between 0 and 1, instead of ``ridge``: the weights are those of the sum, w = ρ weights
        and v = (1 − ρ) weights, of the whole x.
    weights_jvp, weights_vjp, ridge_jvp, ridge_vjp : callable, optional
        Derivatives of what is a function of x.
    smoothing : float, optional
        As for :class:`L1`.

    References
    ----------
    H. Zou, T. Hastie, J. R. Statist. Soc. B 67 (2005) 301-320.
    """

    def __init__(
        self,
        weights: Any = None,
        ridge: Any = None,
        *,
        l1_ratio: float | None = None,
        weights_jvp: Product | None = None,
        weights_vjp: Product | None = None,
        ridge_jvp: Product | None = None,
        ridge_vjp: Product | None = None,
        smoothing: float | None = None,
    ) -> None:
        self._smoothing = checked_smoothing(smoothing)
        self.smooth = smoothing is not None
        self._halves = weights is None and ridge is None and l1_ratio is None
        parts = 1.0, 1.0
        if l1_ratio is not None:
            if not 0.0 <= l1_ratio <= 1.0:
                raise ValueError(
                    f"l1_ratio must lie between 0 and 1, found {l1_ratio!r}"
                )
            if ridge is not None:
                raise ValueError("l1_ratio stands in place of ridge: give one of them")
            parts = float(l1_ratio), 1.0 - float(l1_ratio)
            ridge, ridge_jvp, ridge_vjp = weights, weights_jvp, weights_vjp
        elif not self._halves and (weights is None or ridge is None):
            raise ValueError("give both of weights and ridge, or neither, or l1_ratio")
        self._parts = parts
        self._weights = Weights("weights", weights, weights_jvp, weights_vjp)
        self._ridge = Weights("ridge", ridge, ridge_jvp, ridge_vjp)

    def _of(self, x: Array) -> tuple[Array, Array]:
        """Return the parts of x that weights and ridge depend on."""
        if not self._halves:
            return x, x
        if x.shape[0] % 2 or x.shape[0] == 0:
            raise ValueError(
                "x must have two equal parts, log-weights of |y| and of ½ y², found "
                f"shape {tuple(x.shape)}; l1_ratio= makes it one"
            )
        half = x.shape[0] // 2
        return x[:half], x[half:]

    def weights(self, x: Array, y: Array) -> Array:
        """Return w(x), shape (n,)."""
        return _scaled(self._parts[0], self._weights(self._of(x)[0], y, y.shape[0]))

    def ridge(self, x: Array, y: Array) -> Array:
        """Return v(x), shape (n,); zero where w is infinite."""
        return _scaled(self._parts[1], self._ridge(self._of(x)[1], y, y.shape[0]))

    def value(self, x: Array, y: Array) -> float:
        """Return Σ w_j |y_j| + ½ v_j y_j²."""
        return super().value(x, y) + 0.5 * weighted_sum(self.ridge(x, y), y * y)

    def prox(self, x: Array, v: Array, steps: Array) -> Array:
        """Return the soft threshold of v, shrunk."""
        return super().prox(x, v, steps) / (1.0 + steps * self.ridge(x, v))

    def support(self, x: Array, y: Array) -> Array:
        """Return y_j ≠ 0, or w_j = 0, with finite weights."""
        return super().support(x, y) & (self.ridge(x, y) != math.inf)

    def grad_x(self, x: Array, y: Array) -> Array:
        """Return Ω_X, shape (m,)."""
        n, (of_w, of_v) = y.shape[0], self._of(x)
        first = self._weights.vjp(of_w, self._parts[0] * self._sizes(y), y, n)
        second = self._ridge.vjp(of_v, 0.5 * self._parts[1] * y * y, y, n)
        return namespace(y).concat([first, second]) if self._halves else first + second

    def _ridge_acting(self, x: Array, y: Array) -> Array:
        xp, v = namespace(y), self.ridge(x, y)
        return xp.where(self.support(x, y), v, xp.zeros_like(v))

    def grad(self, x: Array, y: Array) -> Array:
        """Return w_j sign(y_j) + v_j y_j."""
        return super().grad(x, y) + self._ridge_acting(x, y) * y

    def hess(self, x: Array, y: Array) -> LinearOperator:
        """Return diag(v), with the curvature of a smooth penalty."""
        return diagonal(super().hess(x, y).diagonal() + self._ridge_acting(x, y))

    def cross(self, x: Array, y: Array) -> LinearOperator:
        """Return diag(sign y) w'(x) + diag(y) v'(x) on the support."""
        xp, n = namespace(y), y.shape[0]
        inside, zero = self.support(x, y), xp.zeros_like(y)
        slopes = self._parts[0] * xp.where(inside, self._slopes(y), zero)
        lengths = self._parts[1] * xp.where(inside, y, zero)
        of_w, of_v = self._of(x)
        halves, half = self._halves, of_w.shape[0]

        def forward(u: Array) -> Array:
            first, second = (u[:half], u[half:]) if halves else (u, u)
            along = slopes * self._weights.jvp(of_w, first, y, n)
            return along + lengths * self._ridge.jvp(of_v, second, y, n)

        def adjoint(v: Array) -> Array:
            first = self._weights.vjp(of_w, slopes * v, y, n)
            second = self._ridge.vjp(of_v, lengths * v, y, n)
            return xp.concat([first, second]) if halves else first + second

        return LinearOperator((n, x.shape[0]), forward, adjoint, dtype=y.dtype)


def _scaled(factor: float, weights: Array) -> Array:
    """Return the multiple; an infinite weight stays infinite, for a factor of 0 too."""
    if factor == 1.0:
        return weights
    xp = namespace(weights)
    finite = xp.isfinite(weights)
    return xp.where(
        finite, factor * xp.where(finite, weights, xp.zeros_like(weights)), weights
    )
