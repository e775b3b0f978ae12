"""Generalised linear models with learnable ridge penalties, as an objective.

    f(x, y) = Σ_i w_i ℓ(z_i, t_i) / Σ_i w_i + ½ Σ_j e^{x_g(j)} c_j²,    z = F c + b

y = (c, b): coefficients, then intercepts.  x: log-penalties.
"""

from __future__ import annotations

from typing import Any

from ..arrays import Array, array_module, as_vector, dot, namespace, norm, zeros
from ..operators.linear_operator import LinearOperator
from ..operators.structure import Structure
from ..problem.constants import Constants
from .design import Design, as_features
from .hessian_product.one_pass import products_of
from .lipschitz_constants import constants_of, lipschitz_of
from .losses import Curvature, Loss, as_loss
from .mean_loss import DataTerm
from .penalty import RidgePenalty


class Glm:
    """A generalised linear model: an :class:`Objective` in (log-penalties, coefficients).

    Parameters
    ----------
    features : array, sparse matrix or operator (N, p)
        SciPy CSR or CSC is used as it is.
    targets : array (N,)
        Real numbers, labels 0/1 or −1/+1, counts, or classes, by the loss.
    loss : {"logistic", "squared", "poisson", "huber", "multinomial"} or Loss
    penalty : {"per-feature", "per-group", "per-coefficient", "scalar"}
        The coefficients that one entry of x weighs; "per-coefficient" differs from "per-feature" for
        several outputs.
    groups : int array (p,), optional
        Group of each feature for "per-group".
    intercept : bool
        Whether the model has a constant b; it is not penalised.
    sample_weight : array (N,), optional
    kernels : {"compiled", "reference"}, optional
        How Hessian products are formed.  "compiled" (numba, the extra ``fast``): one pass
        over sparse rows, with v'Hv at no cost; CSC is copied to CSR.  "reference": two
        passes, for features of any kind.  By default "compiled" where numba is installed
        and features are CSR of at least 10⁵ nonzeros, which repay its import.
        Both agree to rounding.  The first product of all compiles for some seconds; the
        code is kept on disk.
    threads : int
        Of compiled products.  Worth it from about 10⁶ nonzeros.

    Attributes
    ----------
    n, m : int
        Sizes of y and x.
    dtype : dtype
        Of y: that of the features.

    Notes
    -----
    A Hessian product costs two passes over the features, a compiled one usually one; where
    (n, n) has no more entries than the features have nonzeros, compiled products form the
    Hessian once that has paid.  Its diagonal is exact (one pass).  The loss determines multinomial intercepts only up to a common shift; the
    term ½ (mean b)², zero at the solution, makes them sum to zero and f_YY definite.
    """

    convex = True  # the losses and the penalty are

    def __init__(
        self,
        features: Any,
        targets: Any,
        *,
        loss: str | Loss = "logistic",
        penalty: str = "per-feature",
        groups: Any = None,
        intercept: bool = True,
        sample_weight: Any = None,
        kernels: str | None = None,
        threads: int = 1,
    ) -> None:
        self._data = DataTerm(
            features, targets, as_loss(loss), intercept, sample_weight
        )
        design = self._data.design
        if intercept:
            self._data.refuse_extreme_targets()
        self._penalty = RidgePenalty(
            penalty, design.n_features, design.outputs, self._data.weights, groups
        )
        self.loss = self._data.loss
        self.n = design.n
        self.m = self._penalty.m
        self.dtype = design.dtype
        self._scale: float | None = None
        self._kernels, self._threads = kernels, threads
        self._products = products_of(design, kernels, threads)
        shifts = design.outputs > 1 and intercept
        self._shift = 1.0 / design.outputs**2 if shifts else 0.0
        self._rank = design.features.shape[0] * design.outputs + bool(shifts)

    def __repr__(self) -> str:
        rows, columns = self._data.design.features.shape
        return (
            f"Glm({rows} x {columns}, loss={self.loss}, "
            f"penalty={self._penalty.kind!r}, n={self.n}, m={self.m})"
        )

    def to(self, backend: str) -> Glm:
        """Return the same model with its data in "cupy" or "numpy" arrays."""
        return Glm(
            **self._data.arguments(array_module(backend)),
            penalty=self._penalty.kind,
            groups=self._penalty.groups,
            kernels=self._kernels,
            threads=self._threads,
        )

    def value(self, x: Array, y: Array) -> float:
        """Return f(x, y)."""
        y = as_vector("y", y, self.n)
        c = y[: self._penalty.n_coefficients]
        weights = self._penalty.weights(x, self.dtype)
        value = self._data.value(y) + 0.5 * dot(weights * c, c)
        if self._shift:
            total = float(namespace(y).sum(y[c.shape[0] :]))
            value += 0.5 * self._shift * total**2
        return value

    def grad(self, x: Array, y: Array) -> Array:
        """Return f_Y, shape (n,)."""
        y = as_vector("y", y, self.n)
        grad, count = self._data.grad(y), self._penalty.n_coefficients
        grad[:count] += self._penalty.weights(x, self.dtype) * y[:count]
        if self._shift:
            grad[count:] += self._shift * namespace(y).sum(y[count:])
        return grad

    def hess(self, x: Array, y: Array) -> LinearOperator:
        """Return f_YY, an operator (n, n); it knows its part that x does not enter."""
        y = as_vector("y", y, self.n)
        data, xp = self._data, namespace(y)
        weights = self._penalty.weights(x, self.dtype)
        curvature = data.loss.curvature(data.predictor(y), data.targets, data.weights)
        core = self._hess(curvature, xp.zeros_like(weights))
        rest = xp.zeros(self.n - weights.shape[0], dtype=self.dtype)
        return self._hess(curvature, weights, (core, xp.concatenate([weights, rest])))

    def _hess(
        self, curvature: Curvature, weights: Array, split: Any = None
    ) -> LinearOperator:
        design, count = self._data.design, self._penalty.n_coefficients
        products = self._products.products(curvature, weights, self._shift)

        def diagonal() -> Array:
            result = design.squares(curvature.diagonal)
            result[:count] += weights
            result[count:] += self._shift
            return result

        operator = LinearOperator(
            (self.n, self.n),
            products.matvec,
            matmat=products.matmat,
            dtype=self.dtype,
            symmetric=True,
            diagonal=diagonal if design.has_squares else None,
            structure=Structure(split=split, rank=None if split else self._rank),
        )
        return operator.with_product(products.into, blocks=products.into_blocks)

    def cross(self, x: Array, y: Array) -> LinearOperator:
        """Return f_XY, an operator (n, m)."""
        y = as_vector("y", y, self.n)
        penalty, count = self._penalty, self._penalty.n_coefficients
        slope = penalty.weights(x, self.dtype) * y[:count]
        xp = namespace(y)
        rest = self.n - count

        def forward(u: Array) -> Array:
            head = slope * penalty.spread(xp.asarray(u, dtype=self.dtype))
            return xp.concatenate([head, xp.zeros(rest, dtype=self.dtype)])

        return LinearOperator(
            (self.n, self.m),
            forward,
            lambda w: penalty.gather(slope * w[:count]),
            dtype=self.dtype,
        )

    def curvature_scale(self, x: Array, gradient: Array) -> Array:
        """Return the diagonal curvature, about, of an F whose gradient by x is given.

        F is nearly linear in e^x: d²F/dx² ≈ |dF/dx| on the diagonal.
        """
        return namespace(gradient).abs(gradient)

    def weight_slopes(self, x: Array, y: Array, v: Array) -> Array:
        """Return v' ∂f_Y/∂w_i for each sample weight w_i, shape (N,).

        One product with the features.  The weights are those given as ``sample_weight``,
        ones without it; f divides them by their sum, so that w' of the result is zero.
        """
        return self._data.weight_slopes(y, v)

    def scale(self, x: Array) -> float:
        """Return ‖f_Y(x, 0)‖, which does not depend on x; computed once."""
        if self._scale is None:
            zero = zeros(self.n, self._data.weights, self.dtype)
            self._scale = norm(self._data.grad(zero))
        return self._scale

    def constants(self, x: Array, y: Array) -> Constants | None:
        """Return bounds that prove errors at (x, y), or None where there are none."""
        weights = self._penalty.weights(x, self.dtype)
        return constants_of(self._data, self._penalty, weights, y)

    def predictor(self, features: Any, y: Array) -> Array:
        """Return z = F c + b for other features, shape (N,) or (N, K)."""
        design, features = self._data.design, as_features(features)
        self._check_columns(features)
        like = Design(features, design.intercept, design.outputs)
        return like.forward(as_vector("y", y, self.n))

    def _check_columns(self, features: Any) -> None:
        expected = self._data.design.n_features
        if features.shape[1] != expected:
            raise ValueError(
                f"features must have {expected} columns like those of the model, found "
                f"shape {tuple(features.shape)}"
            )

    def held_out(
        self, features: Any, targets: Any, *, sample_weight: Any = None
    ) -> HeldOutLoss:
        """Return the same loss on other data: an upper objective."""
        design = self._data.design
        found = HeldOutLoss(
            features,
            targets,
            loss=self.loss,
            intercept=design.intercept,
            sample_weight=sample_weight,
            outputs=design.outputs,
        )
        self._check_columns(found._data.design.features)
        return found


class HeldOutLoss:
    """The mean loss on held-out data as an :class:`UpperObjective` of y.

    Parameters
    ----------
    features, targets, loss, intercept, sample_weight
        As for :class:`Glm`; :meth:`Glm.held_out` fills in what the model knows.
    outputs : int, optional
        Classes of the multinomial loss, where the held-out targets may lack some.
    """

    def __init__(
        self,
        features: Any,
        targets: Any,
        *,
        loss: str | Loss = "logistic",
        intercept: bool = True,
        sample_weight: Any = None,
        outputs: int | None = None,
    ) -> None:
        self._data = DataTerm(
            features, targets, as_loss(loss), intercept, sample_weight, outputs
        )

    def __repr__(self) -> str:
        rows, columns = self._data.design.features.shape
        return f"HeldOutLoss({rows} x {columns}, loss={self._data.loss})"

    def to(self, backend: str) -> HeldOutLoss:
        """Return the same loss with its data in "cupy" or "numpy" arrays."""
        outputs = self._data.design.outputs
        return HeldOutLoss(
            **self._data.arguments(array_module(backend)),
            outputs=outputs if outputs > 1 else None,
        )

    def value(self, x: Array, y: Array) -> float:
        """Return the mean loss at y; x does not enter."""
        return self._data.value(y)

    def grad_y(self, x: Array, y: Array) -> Array:
        """Return its gradient, shape (n,)."""
        return self._data.grad(y)

    def grad_x(self, x: Array, y: Array) -> None:
        """Return None: x does not enter directly."""

    def lipschitz(self, metric: Array) -> float:
        """Return a Lipschitz constant of ``grad_y`` in a metric, see ``Constants``."""
        return lipschitz_of(self._data, metric)
