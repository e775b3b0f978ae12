"""Penalties Ω(x, y) with kinks, of which a derivative exists on the support.

    L1          Σ_j w_j |y_j|                    off the support  |f_Y,j| ≤ w_j
    ElasticNet  Σ_j w_j |y_j| + ½ v_j y_j²       the same
    GroupL1     Σ_g w_g ‖y_g‖₂                   off the support  ‖f_Y,g‖₂ ≤ w_g

The weights w(x) may be zero, for what is free, and infinite, for what is excluded.  On the
support Ω is smooth: its gradient, curvature and derivative by x add to those of f.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from ..arrays import (
    Array,
    as_data,
    as_tolerance,
    asarray,
    brief,
    check_callable,
    copied,
    dot,
    namespace,
    returned_vector,
    zeros,
)
from ..operators.linear_operator import LinearOperator
from ..operators.structure import Structure

Product = Callable[[Array, Array], Array]


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


class Weights:
    """Weights w(x) >= 0 of ``count`` entries, with derivatives; infinite ones have none.

    From None, e^x with x of that many entries or of one; from an array; or from a function
    with ``jvp(x, u)`` and ``vjp(x, w)``, given apart or as its attributes.
    """

    def __init__(self, name: str, given: Any, jvp: Any = None, vjp: Any = None) -> None:
        self.name, self._given = name, given
        self._function = given if callable(given) else None
        if self._function is None and not (jvp is None and vjp is None):
            raise TypeError(f"{name}_jvp and {name}_vjp go with a function of x")
        self._jvp = getattr(given, "jvp", None) if jvp is None else jvp
        self._vjp = getattr(given, "vjp", None) if vjp is None else vjp
        if self._function is not None:
            check_callable(**{f"{name}_jvp": self._jvp, f"{name}_vjp": self._vjp})
        elif given is not None:
            given = as_data(name, given, finite=False) if np.ndim(given) else given
            values = np.asarray(given) if np.ndim(given) == 0 else given
            if not bool(namespace(values).all(values >= 0.0)):
                raise ValueError(f"{name} must be >= 0, without NaN")
            self._given = given
        self._memo: tuple[Array, int, Array] | None = None

    def __repr__(self) -> str:
        return brief("Weights", {self.name: self._given})

    def __call__(self, x: Array, like: Array, count: int) -> Array:
        """Return w(x), shape (count,), of the dtype of ``like``; not to be written to."""
        memo, xp = self._memo, namespace(like)
        if memo is not None and (memo[1], memo[2].dtype) == (count, like.dtype):
            same = memo[0].shape == x.shape and bool(xp.all(memo[0] == x))
            if same:
                return memo[2]
        found = self._values(x, like, count)
        self._memo = (copied(x), count, found)
        return found

    def _values(self, x: Array, like: Array, count: int) -> Array:
        xp = namespace(like)
        if self._function is not None:
            found = returned_vector(self.name, self._function(copied(x)), count)
            found = xp.astype(found, like.dtype)
        elif self._given is None:
            if x.shape[0] not in {1, count}:
                raise ValueError(
                    f"x must have shape ({count},) or (1,): without {self.name} the "
                    f"weights are exp(x); found shape {tuple(x.shape)}"
                )
            with np.errstate(over="ignore"):
                found = xp.exp(xp.astype(x, like.dtype)) + zeros(count, like)
        else:
            given = self._given
            if np.ndim(given) and given.shape != (count,):
                raise ValueError(
                    f"{self.name} must be a number or have shape ({count},), found "
                    f"shape {tuple(given.shape)}"
                )
            own = asarray(given, like) if np.ndim(given) == 0 else given
            found = xp.astype(own, like.dtype) + zeros(count, like)
        if bool(xp.any(found < 0.0)):
            raise ValueError(f"{self.name} must be >= 0, found negative ones at this x")
        return found

    def jvp(self, x: Array, u: Array, like: Array, count: int) -> Array:
        """Return w'(x) u, (count,), zero for infinite weights."""
        xp, w = namespace(like), self(x, like, count)
        if self._function is not None:
            product = returned_vector(
                f"{self.name}_jvp", self._need("jvp")(x, u), count
            )
            return xp.where(xp.isfinite(w), product, xp.zeros_like(w))
        if self._given is not None:
            return xp.zeros_like(w)
        return xp.where(xp.isfinite(w), w, xp.zeros_like(w)) * xp.astype(u, like.dtype)

    def vjp(self, x: Array, v: Array, like: Array, count: int) -> Array:
        """Return w'(x)ᵀ v, (m,)."""
        xp, w = namespace(like), self(x, like, count)
        v = xp.where(xp.isfinite(w), v, xp.zeros_like(w))
        if self._function is not None:
            return returned_vector(
                f"{self.name}_vjp", self._need("vjp")(x, v), x.shape[0]
            )
        if self._given is not None:
            return zeros(x.shape, like)
        product = xp.where(xp.isfinite(w), w, xp.zeros_like(w)) * v
        if x.shape[0] == count:
            return product
        return xp.sum(product) + zeros(1, like)

    def _need(self, mode: str) -> Product:
        product: Product | None = getattr(self, f"_{mode}")
        if product is None:
            raise NotImplementedError(
                f"{self.name} depends on x: this product needs {self.name}_{mode}, "
                "which the penalty was built without"
            )
        return product


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
        self._smoothing = _checked_smoothing(smoothing)
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
        return _weighted_sum(self.weights(x, y), self._sizes(y))

    def _sizes(self, y: Array) -> Array:
        xp, eps = namespace(y), self._smoothing
        return xp.abs(y) if eps == 0.0 else xp.hypot(y, eps + 0.0 * y) - eps

    def _slopes(self, y: Array) -> Array:
        """Return the derivative of each size."""
        xp, eps = namespace(y), self._smoothing
        return xp.sign(y) if eps == 0.0 else y / xp.hypot(y, eps + 0.0 * y)

    def prox(self, x: Array, v: Array, steps: Array) -> Array:
        """Return the soft threshold of v at steps · w."""
        return _soft(v, self.weights(x, v) * steps)

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
            return _diagonal(namespace(y).zeros_like(y))
        r = namespace(y).hypot(y, self._smoothing + 0.0 * y)
        bend = (self._smoothing / r) ** 2 / r  # (1 − u²) / r without cancellation
        return _diagonal(self._acting(x, y) * bend)

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
        return _ratio(namespace(y).abs(force), self.weights(x, y))


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
        self._smoothing = _checked_smoothing(smoothing)
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
        return super().value(x, y) + 0.5 * _weighted_sum(self.ridge(x, y), y * y)

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
        return _diagonal(super().hess(x, y).diagonal() + self._ridge_acting(x, y))

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


class GroupL1:
    """The penalty Σ_g w_g ‖y_g‖₂ of groups of coefficients that enter together.

    Parameters
    ----------
    groups : array (n,) or sequence of index arrays
        The label of each coefficient, whole numbers of any values in any order, whose weights
        are in ascending order of the labels; or the members of each group.
    weights : None, float, array (G,) or callable
        As for :class:`L1`, one for each group, used as given: without a factor for its size.
    weights_jvp, weights_vjp, smoothing
        As for :class:`L1`.
    rest : {"refuse", "free"}
        What coefficients in no group are: refused by default, or not penalised.
    n : int, optional
        Size of y, where ``groups`` are members and the last coefficients are free.

    Attributes
    ----------
    n_groups : int
        G.

    Raises
    ------
    ValueError
        For groups that overlap, named, and for coefficients in no group.

    References
    ----------
    M. Yuan, Y. Lin, J. R. Statist. Soc. B 68 (2006) 49-67.
    """

    separable, convex = False, True

    def __init__(
        self,
        groups: Any,
        weights: Any = None,
        *,
        weights_jvp: Product | None = None,
        weights_vjp: Product | None = None,
        smoothing: float | None = None,
        rest: str = "refuse",
        n: int | None = None,
    ) -> None:
        if rest not in {"refuse", "free"}:
            raise ValueError(f"rest must be 'refuse' or 'free', found {rest!r}")
        self._smoothing = _checked_smoothing(smoothing)
        self.smooth = smoothing is not None
        own = Weights("weights", weights, weights_jvp, weights_vjp)
        self._set(*_labels_of(groups, rest == "free", n), own)

    @classmethod
    def of_labels(cls, labels: Any, n_groups: int, weights: Any) -> GroupL1:
        """Return the penalty of groups 0 ... G − 1, with label G for what is free."""
        found = object.__new__(cls)
        found._smoothing, found.smooth = 0.0, False
        found._set(labels, n_groups, Weights("weights", weights))
        return found

    def _set(self, labels: Any, n_groups: int, weights: Weights) -> None:
        self.n_groups, self._weights = n_groups, weights
        self._labels, self._sums = labels, _Sums(labels, self.n_groups)
        # Free coefficients are a block each: they have steps of their own.
        free = labels == self.n_groups
        blocks = labels.copy()
        blocks[free] += np.arange(int(free.sum()))
        self.blocks = blocks

    def __repr__(self) -> str:
        return (
            f"GroupL1({self.n_groups} groups of {self._labels.shape[0]} coefficients)"
        )

    def group_weights(self, x: Array, y: Array) -> Array:
        """Return w(x), shape (G,)."""
        if y.shape[0] != self._labels.shape[0]:
            raise ValueError(
                f"groups must label the {y.shape[0]} coefficients of y, found "
                f"{self._labels.shape[0]}"
            )
        return self._weights(x, y, self.n_groups)

    def norms(self, y: Array) -> Array:
        """Return ‖y_g‖₂, or its smooth version (‖y_g‖² + ε²)^½, shape (G,)."""
        return self._sums.norms(y, self._smoothing)

    def value(self, x: Array, y: Array) -> float:
        """Return Σ w_g ‖y_g‖."""
        sizes = self.norms(y) - self._smoothing
        return _weighted_sum(self.group_weights(x, y), sizes)

    def prox(self, x: Array, v: Array, steps: Array) -> Array:
        """Return each group shrunk by steps · w_g, zero where it is shorter."""
        xp, w = namespace(v), self.group_weights(x, v)
        sizes = self._sums.norms(v, 0.0)
        least = w * self._sums.largest(steps)
        one = xp.where(sizes > 0.0, sizes, xp.ones_like(sizes))
        factor = xp.where(sizes > least, (sizes - least) / one, xp.zeros_like(sizes))
        shrunk = self._sums.spread(factor, 1.0) * v
        # Of a group of one entry this is the soft threshold, to the last bit.
        single = self._sums.spread(self._sums.single(v), 0.0) > 0.0
        return xp.where(single, _soft(v, self._sums.spread(least, 0.0)), shrunk)

    def support(self, x: Array, y: Array) -> Array:
        """Return the members of groups that are not zero, or free."""
        xp, w = namespace(y), self.group_weights(x, y)
        there = (self._sums.norms(y, 0.0) > 0.0) | (w == 0.0)
        there = (there | self.smooth) & (w != math.inf)
        return self._sums.spread(xp.astype(there, y.dtype), 1.0) > 0.0

    def grad_x(self, x: Array, y: Array) -> Array:
        """Return Ω_X, Σ_g ‖y_g‖ ∂w_g/∂x, shape (m,)."""
        sizes = self.norms(y) - self._smoothing
        return self._weights.vjp(x, sizes, y, self.n_groups)

    def _acting(self, x: Array, y: Array) -> tuple[Array, Array, Array]:
        """Return weights and norms per group, zero and one off the support, and u = y/‖y‖."""
        xp, w, r = namespace(y), self.group_weights(x, y), self.norms(y)
        there = (r > 0.0) & (w != math.inf)
        w = xp.where(there, w, xp.zeros_like(w))
        r = xp.where(there, r, xp.ones_like(r))
        inside = self._sums.spread(xp.astype(there, y.dtype), 0.0)
        return w, r, inside * y / self._sums.spread(r, 1.0)

    def grad(self, x: Array, y: Array) -> Array:
        """Return w_g y_j / ‖y_g‖."""
        w, _, u = self._acting(x, y)
        return self._sums.spread(w, 0.0) * u

    def hess(self, x: Array, y: Array) -> LinearOperator:
        """Return w_g (I − u u') / ‖y_g‖ of each group; zero for one of a single entry."""
        xp, (w, r, u), n = namespace(y), self._acting(x, y), y.shape[0]
        bend = self._sums.spread(
            w / r * (1.0 if self.smooth else 1.0 - self._sums.single(y)), 0.0
        )

        def product(v: Array) -> Array:
            if v.ndim == 2:
                return xp.stack([product(v[:, k]) for k in range(v.shape[1])], axis=1)
            along = self._sums.spread(self._sums(u * v), 0.0)
            return bend * (v - u * along)

        return LinearOperator(
            (n, n),
            product,
            matmat=product,
            dtype=y.dtype,
            symmetric=True,
            diagonal=bend * (1.0 - u * u),
        )

    def cross(self, x: Array, y: Array) -> LinearOperator:
        """Return ∂/∂x of w_g(x) u."""
        (_, _, u), G = self._acting(x, y), self.n_groups
        return LinearOperator(
            (y.shape[0], x.shape[0]),
            lambda v: u * self._sums.spread(self._weights.jvp(x, v, y, G), 0.0),
            lambda w: self._weights.vjp(x, self._sums(u * w), y, G),
            dtype=y.dtype,
        )

    def activity(self, x: Array, y: Array, force: Array) -> Array:
        """Return ‖force_g‖ / w_g per coefficient, zero for free and excluded groups."""
        used = _ratio(self._sums.norms(force, 0.0), self.group_weights(x, force))
        return self._sums.spread(used, 0.0)

    def ridge(self, x: Array, y: Array) -> Array:
        """Return the weights v of ½ v_j y_j², zero here."""
        return namespace(y).zeros_like(y)


class _Sums:
    """Sums over the groups of their members, and one number a group back to the members."""

    def __init__(self, labels: Any, count: int) -> None:
        self._labels, self._count = labels, count
        self._sizes = np.bincount(labels, minlength=count + 1)[:count]
        self._memo: dict[Any, tuple[Any, Any]] = {}

    def _own(self, like: Array) -> tuple[Any, Any]:
        """Return labels, and a matrix of ones that sums where there is no bincount."""
        xp = namespace(like)
        if xp not in self._memo:
            host = self._labels
            labels = asarray(host, like, xp.int64)
            ones = None
            if not hasattr(xp, "bincount"):
                ones = asarray(host[None, :] == np.arange(self._count)[:, None], like)
            self._memo[xp] = labels, ones
        return self._memo[xp]

    def __call__(self, values: Array) -> Array:
        """Return the sums, (n,) → (G,)."""
        (labels, ones), xp = self._own(values), namespace(values)
        if ones is not None:
            return ones @ values
        sums = xp.bincount(labels, weights=values, minlength=self._count + 1)
        return sums[: self._count].astype(values.dtype)

    def spread(self, values: Array, rest: float) -> Array:
        """Return (G,) → (n,), with ``rest`` for what is in no group."""
        xp = namespace(values)
        last = asarray([rest], values)
        return xp.take(xp.concat([values, last]), self._own(values)[0])

    def single(self, like: Array) -> Array:
        """Return 1 for the groups of one member, 0 for others."""
        return asarray(self._sizes == 1, like)

    def norms(self, y: Array, smoothing: float) -> Array:
        """Return (‖y_g‖² + smoothing²)^½, of single members |y_j| to the last bit."""
        xp = namespace(y)
        largest = float(xp.max(xp.abs(y))) if y.shape[0] else 0.0
        if not 0.0 < largest < math.inf:
            largest = 1.0
        scaled = y / largest  # squares neither overflow nor underflow as a whole
        found = largest * xp.sqrt(self(scaled * scaled))
        if smoothing:
            return xp.hypot(found, smoothing + 0.0 * found)
        return xp.where(self.single(y) > 0.0, self(xp.abs(y)), found)

    def largest(self, steps: Array) -> Array:
        """Return the step of each group, whose members have one in common: their mean."""
        sizes = asarray(np.maximum(self._sizes, 1), steps)
        return self(steps) / sizes


def _diagonal(entries: Array) -> LinearOperator:
    """Return diag(entries), known to be diagonal."""

    def product(v: Array) -> Array:
        return entries * v if v.ndim == 1 else entries[:, None] * v

    return LinearOperator(
        (entries.shape[0], entries.shape[0]),
        product,
        matmat=product,
        dtype=entries.dtype,
        symmetric=True,
        diagonal=entries,
        structure=Structure(is_diagonal=True),
    )


def _checked_smoothing(smoothing: float | None) -> float:
    if smoothing is None:
        return 0.0
    return as_tolerance("smoothing", smoothing)


def _soft(v: Array, least: Array) -> Array:
    """Return sign(v) max(|v| − least, 0)."""
    xp = namespace(v)
    beyond = xp.abs(v) - least
    return xp.where(beyond > 0.0, xp.sign(v) * beyond, xp.zeros_like(v))


def _ratio(sizes: Array, weights: Array) -> Array:
    """Return sizes / weights, zero where a weight is zero or infinite."""
    xp = namespace(sizes)
    some = (weights != 0.0) & (weights != math.inf)
    with np.errstate(over="ignore"):
        found = sizes / xp.where(some, weights, xp.ones_like(weights))
    return xp.where(some, found, xp.zeros_like(found))


def _scaled(factor: float, weights: Array) -> Array:
    """Return the multiple; an infinite weight stays infinite, for a factor of 0 too."""
    if factor == 1.0:
        return weights
    xp = namespace(weights)
    finite = xp.isfinite(weights)
    return xp.where(
        finite, factor * xp.where(finite, weights, xp.zeros_like(weights)), weights
    )


def _weighted_sum(weights: Array, sizes: Array) -> float:
    """Return Σ w s, with 0 for an infinite weight of a size that is zero."""
    xp = namespace(sizes)
    terms = xp.where(sizes == 0.0, xp.zeros_like(sizes), weights)
    return dot(terms, sizes)


def _labels_of(groups: Any, rest_is_free: bool, n: int | None) -> tuple[Any, int]:
    """Return the number of the group of each coefficient, G for none, and G."""
    members = isinstance(groups, list | tuple) and any(np.ndim(g) == 1 for g in groups)
    if not members:
        labels = np.asarray(groups)
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise ValueError(
                "groups must be whole numbers of shape (n,), or a sequence of the members "
                f"of each group, found dtype {labels.dtype} and shape {labels.shape}"
            )
        values, numbered = np.unique(labels, return_inverse=True)
        return numbered.astype(np.int64), int(values.shape[0])
    lists = [np.asarray(g) for g in groups]
    for number, g in enumerate(lists):
        if g.ndim != 1 or g.dtype.kind not in "iu" or (g.size and g.min() < 0):
            raise ValueError(
                f"groups[{number}] must be whole numbers >= 0, the members of a group"
            )
    least = max((int(g.max(initial=-1)) + 1 for g in lists), default=0)
    size = least if n is None else n
    if size < least:
        raise ValueError(f"groups have members up to {least - 1}, and n is {n}")
    labels = np.full(size, -1, np.int64)
    for number, g in enumerate(lists):
        taken = g[labels[g] >= 0]
        if taken.size or np.unique(g).size < g.size:
            other = int(labels[taken[0]]) if taken.size else number
            raise ValueError(
                f"groups must not overlap, found a coefficient in groups[{other}] and "
                f"groups[{number}]; copy its column, one for each group"
            )
        labels[g] = number
    missing = labels < 0
    if missing.any() and not rest_is_free:
        raise ValueError(
            f"coefficient {int(np.flatnonzero(missing)[0])} is in no group; rest='free' "
            "leaves such coefficients without a penalty"
        )
    labels[missing] = len(lists)
    return labels, len(lists)
