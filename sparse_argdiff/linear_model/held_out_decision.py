"""The loss of the decisions of a support vector machine on held-out data.

    z = K_held β + b(x, a),    b = Σ_i ω_i r_i,    r = −s ∘ f_Y

with ω of the samples inside their bounds, which move b with x and a.
"""

from __future__ import annotations

from typing import Any

from ..arrays import Array, as_array, copied, dot, namespace, zeros
from ..operators.linear_operator import aslinearoperator
from .intercept import tell
from .kernel import Kernel, as_kernel
from .loss import Loss
from .sample_costs import sample_weights


class HeldOutDecision:
    """The mean loss of the decisions on held-out data as an :class:`UpperObjective`.

    z = K_held β + b(x, a), where b is a function of (x, a) through the samples inside their
    bounds.  Made by :meth:`SupportVector.held_out`.
    """

    def __init__(
        self,
        model: Any,
        kernel: Any,
        targets: Any,
        loss: Loss,
        sample_weight: Any,
    ) -> None:
        self.model, self.loss = model, loss
        self.kernel = rows_of(kernel, model)
        rows = self.kernel.shape[0]
        self.targets = loss.prepare(as_array("targets", targets), model.dtype)
        if self.targets.shape != (rows,):
            raise ValueError(
                f"targets must have shape ({rows},) like the rows of kernel, found "
                f"{tuple(self.targets.shape)}"
            )
        weights = sample_weights(sample_weight, self.targets)
        self.weights = weights / float(namespace(weights).sum(weights))
        self._last: tuple[Array, Array, Any] | None = None

    def __repr__(self) -> str:
        return f"HeldOutDecision({self.targets.shape[0]} samples, loss={self.loss})"

    def _decision(self, x: Array, y: Array) -> tuple[Array, Array, Array]:
        """Return z, the coefficients β and the weights of the intercept."""
        last, xp = self._last, namespace(y)
        if last is not None and bool(xp.all(last[0] == x) & xp.all(last[1] == y)):
            found: tuple[Array, Array, Array] = last[2]
            return found
        model = self.model
        beta = model.coefficients(y)
        z = aslinearoperator(self.kernel.matrix(model.theta(x))) @ beta
        weights = 0.0 * y
        if model.intercept_:
            b, weights = model.intercept_at(x, y)
            tell(b)
            z = z + b.value
        self._last = copied(x), copied(y), (z, beta, weights)
        return z, beta, weights

    def value(self, x: Array, y: Array) -> float:
        """Return the mean loss at (x, a)."""
        z, _, _ = self._decision(x, y)
        return dot(self.weights, self.loss.value(z, self.targets))

    def _slope(self, z: Array) -> Array:
        return self.weights * self.loss.slope(z, self.targets)

    def grad_y(self, x: Array, y: Array) -> Array:
        """Return the gradient by a, shape (n,)."""
        model, (z, _, weights) = self.model, self._decision(x, y)
        slope = self._slope(z)
        K = aslinearoperator(self.kernel.matrix(model.theta(x)))
        grad = model.signs * model.unfold(K.T @ slope)
        if not model.intercept_:
            return grad
        total = float(namespace(y).sum(slope))
        return grad - total * (model.hess(x, y) @ (model.signs * weights))

    def grad_x(self, x: Array, y: Array) -> Array | None:
        """Return the gradient by x alone, (m,), by the kernel and the intercept."""
        model, (z, beta, weights) = self.model, self._decision(x, y)
        xp, slope, theta = namespace(y), self._slope(z), model.theta(x)
        grad = zeros((model.m,), y)
        if self.kernel.m:
            own = self.kernel.vjp(theta, beta, slope)
            grad = xp.concat([grad[: model.m - own.shape[0]], own])
        if model.intercept_:
            total = float(xp.sum(slope))
            grad = grad - total * (model.cross(x, y).T @ (model.signs * weights))
        return grad


def rows_of(kernel: Any, model: Any, *, at_one_point: bool = False) -> Kernel:
    """Return the kernel of other samples with those of a model, checked.

    At one point it may be a matrix, which no parameter moves.
    """
    found = as_kernel("kernel", kernel)
    columns = model.targets.shape[0]
    if len(found.shape) != 2 or found.shape[1] != columns:
        raise ValueError(
            f"kernel must have {columns} columns, one for each sample of the model, found "
            f"shape {tuple(found.shape)}"
        )
    if found.m != model.kernel.m and not (at_one_point and found.m == 0):
        raise ValueError(
            f"kernel must have the {model.kernel.m} parameters of that of the model, "
            f"found {found.m}"
        )
    return found
