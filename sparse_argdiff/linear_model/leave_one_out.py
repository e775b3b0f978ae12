"""Approximate leave-one-out: the loss of each sample by the model without it.

    z̃_i = z_i + h_i (I − c_i h_i)⁻¹ d_i,     d = ℓ',  c = ℓ'',  h_i = w_i a_i' H⁻¹ a_i

is the predictor after one Newton step from the solution without the term of sample i, whose
weight the others keep; H is the Hessian of all samples.  For the squared loss it is exact.
The upper objective Σ_i w_i ℓ(z̃_i, t_i) depends on y, and through H on x.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, as_count, as_tolerance, copied, dot, epsilon, namespace
from ..status import ConvergenceWarning, Status, raise_or_warn
from .estimated_leverages import EstimatedLeverages
from .leverages import SMALL, Curved, ExactLeverages
from .losses import Squared
from .mean_loss import DataTerm
from .penalty import without
from .ridge_model import RidgeModel

PROBES = 16
LARGEST = 0.5  # c h up to which one Newton step is known to be enough
LOST = 1e-3  # n ε / (1 − c h), the relative error of 1 − c h, from which z̃ is refused


class _Estimate(NamedTuple):
    """What one estimate of the leverages gives, and its share in the value."""

    share: float
    left_out: Array  # z̃, (N,) or (N, K)
    h: Array
    inverse: Array  # (1 − c h)⁻¹ or (I − c h)⁻¹


class _Found(NamedTuple):
    """What one (x, y) gives; the first estimate is the one by all probes."""

    z: Array  # (N,) or (N, K)
    slope: Array  # d
    estimates: list[_Estimate]
    curved: Curved
    leverages: Any


class LeaveOneOut:
    """The approximate leave-one-out loss of a ``Glm``, an :class:`UpperObjective`.

    ``Glm.leave_one_out`` makes it.

    Attributes
    ----------
    total : float
        The sum of the weights, ``rows`` of :func:`sparse_argdiff.prior`.
    exact : bool
        Whether the leverages are computed, or estimated by random right-hand sides.
    """

    def __init__(
        self,
        model: RidgeModel,
        *,
        probes: int | None = None,
        rng: Any = 0,
        rtol: float = 1e-3,
    ) -> None:
        self._model, self._data = model, model.data
        n, outputs = model.n, model.data.design.outputs
        if probes is not None and as_count("probes", probes) < 4:
            raise ValueError(f"probes must be at least 4, found {probes}")
        self.exact = probes is None and n <= SMALL
        if outputs > 1 and not self.exact:
            raise ValueError(
                f"leverages of {outputs} outputs are computed for n up to {SMALL} "
                f"without probes, found n = {n}"
            )
        self._probes = PROBES if probes is None else probes
        self._rng, self._rtol = rng, as_tolerance("rtol", rtol)
        self.total = self._data.total
        self._memo: Any = None
        self._told = False

    def __repr__(self) -> str:
        how = "exact leverages" if self.exact else f"{self._probes} probes"
        rows, columns = self._data.design.features.shape
        return f"LeaveOneOut({rows} x {columns}, {how})"

    # the predictors -----------------------------------------------------------------

    def predictors(self, x: Array, y: Array) -> Array:
        """Return z̃, (N,) or (N, K): of each sample by the model without it."""
        return copied(self._at(x, y).estimates[0].left_out)

    def leverages(self, x: Array, y: Array) -> Array:
        """Return c_i h_i in [0, 1), (N,), of K outputs the largest eigenvalue."""
        found = self._at(x, y)
        c, h = found.curved.second, found.estimates[0].h
        xp = namespace(h)
        if h.ndim == 1:
            return c * h
        # The eigenvalues of c h are those of r h r, c = r r.
        values, vectors = xp.linalg.eigh(c)
        sizes = xp.sqrt(xp.where(values > 0.0, values, 0.0 * values))
        root = (vectors * sizes[:, None, :]) @ xp.moveaxis(vectors, 1, 2)
        return xp.linalg.eigvalsh(root @ h @ root)[:, -1]

    def losses(self, x: Array, y: Array) -> Array:
        """Return the loss of each sample by the model without it, (N,)."""
        data, total = self._data, 0.0 * self._data.weights
        for one in self._at(x, y).estimates:
            own = data.counted(data.loss.value(one.left_out, data.targets))
            total = total + one.share * own
        return total

    def standard_error(self, x: Array, y: Array) -> float:
        """Return that of the value, of the random right-hand sides; 0 for exact leverages.

        Of the spread over them, and of the bias that was taken out.
        """
        if self.exact:
            return 0.0
        self.grad_y(x, y)
        found, data = self._at(x, y), self._data
        one = found.estimates[0].left_out
        plain = data.counted(data.loss.value(one, data.targets))
        bias = dot(data.weights, plain - self.losses(x, y))
        return math.hypot(found.leverages.standard_error, bias)

    def _at(self, x: Array, y: Array) -> _Found:
        memo = self._memo
        if memo is not None:
            xp = namespace(x, y)
            same = memo[0].shape == x.shape and bool(xp.all(memo[0] == x))
            if same and bool(xp.all(memo[1] == y)):
                found: _Found = memo[2]
                return found
        found = self._computed(x, y)
        self._memo = (copied(x), copied(y), found, None)
        self._warn(found, x, y)
        return found

    def _computed(self, x: Array, y: Array) -> _Found:
        model, data, xp = self._model, self._data, namespace(y)
        fixed, H = model.fixed(x), model.hess(x, y)
        z = data.predictor(without(fixed, y))
        curved = _curved(data, z)
        rest = xp.zeros(model.n - model.penalty.n_coefficients, dtype=model.dtype)
        ridge = xp.concatenate([model.penalty.slopes(x, model.dtype), rest])
        given = data.design, H, ridge, lambda block: without(fixed, block)
        leverages: Any
        if self.exact:
            leverages = ExactLeverages(*given)
        else:
            leverages = EstimatedLeverages(
                *given, curved, self._probes, self._rng, self._rtol
            )
        slope = data.counted(data.loss.slope(z, data.targets))
        pairs = leverages.leverages(curved)
        estimates = [_estimate(share, h, curved.second, z, slope) for share, h in pairs]
        if self.exact:
            _refuse_rounding(estimates[0].inverse, model.n)
        return _Found(z, slope, estimates, curved, leverages)

    def _warn(self, found: _Found, x: Array, y: Array) -> None:
        """Tell once where one Newton step, or the probes, may not be enough."""
        if self._told:
            return
        capped = found.leverages.capped
        if capped:
            self._told = True
            warnings.warn(
                f"approximate leave-one-out: the leverages of {capped} samples are too "
                f"near one for an estimate by {self._probes} probes, and are set to the "
                "largest that is believed; give more probes",
                ConvergenceWarning,
                stacklevel=4,
            )
        if isinstance(self._data.loss, Squared):
            return
        sizes = self.leverages(x, y)
        count = int(namespace(sizes).sum(sizes > LARGEST))
        if count:
            self._told = True
            largest = float(namespace(sizes).max(sizes))
            warnings.warn(
                f"approximate leave-one-out: {count} samples have a leverage above "
                f"{LARGEST}, the largest is {largest:.2f}; without them the model is "
                "another one than a Newton step finds, and folds tell more",
                ConvergenceWarning,
                stacklevel=4,
            )

    # the upper objective --------------------------------------------------------------

    def value(self, x: Array, y: Array) -> float:
        """Return Σ_i w_i ℓ(z̃_i, t_i), the weights with a sum of one."""
        return dot(self._data.weights, self.losses(x, y))

    def grad_y(self, x: Array, y: Array) -> Array:
        """Return its derivative by y, (n,): of z, and of H through the curvature."""
        return copied(self._gradients(x, y)[0])

    def grad_x(self, x: Array, y: Array) -> Array:
        """Return its derivative by x at fixed y, (m,): of H through the weights."""
        return copied(self._gradients(x, y)[1])

    def _gradients(self, x: Array, y: Array) -> tuple[Array, Array]:
        found = self._at(x, y)
        if self._memo[3] is None:
            self._memo = (*self._memo[:3], self._derived(x, found))
        gradients: tuple[Array, Array] = self._memo[3]
        return gradients

    def _derived(self, x: Array, found: _Found) -> tuple[Array, Array]:
        data, penalty = self._data, self._model.penalty
        by_z, betas = 0.0 * found.z, []
        for one in found.estimates:
            slope = data.counted(data.loss.slope(one.left_out, data.targets))
            pull = one.share * _weighted(data, slope)
            own, beta = _by_predictor_and_leverage(one, found.curved, found.slope, pull)
            by_z = by_z + own
            betas.append(beta)
        slopes = found.leverages.slopes(betas, found.curved)
        grad = data.design.backward(by_z + slopes.samples)
        grad = without(self._model.fixed(x), grad)
        weights = slopes.weights[: penalty.n_coefficients]
        return grad, penalty.gather(weights)


def _refuse_rounding(inverse: Array, n: int) -> None:
    """Refuse 1 − c h that is rounding: the sample alone determines what it is predicted."""
    xp = namespace(inverse)
    sizes = xp.abs(inverse.reshape(inverse.shape[0], -1))
    lost = n * epsilon(inverse) * xp.max(sizes, axis=1)
    told = lost <= LOST  # false of NaN
    if bool(xp.all(told)):
        return
    first = int(xp.argmax(xp.astype(~told, xp.int64)))
    count = int(xp.count_nonzero(~told))
    raise_or_warn(
        Status.SINGULAR,
        None,
        "leave-one-out",
        f"the model without sample {first} is not determined, nor that without "
        f"{count - 1} others: 1 − c h is {n} units of rounding, or few times more.",
        "raise",
    )


def _weighted(data: DataTerm, values: Array) -> Array:
    return values * (data.weights if values.ndim == 1 else data.weights[:, None])


def _curved(data: DataTerm, z: Array) -> Curved:
    """Return c of each sample, and the derivative by z of what is summed with it."""
    xp, loss, ones = namespace(z), data.loss, namespace(z).ones_like(data.weights)
    if z.ndim == 1:
        second = data.counted(loss.curvature(z, data.targets, ones).diagonal)

        def move(b: Array) -> Array:
            third: Any = getattr(loss, "third", None)
            if third is None:
                raise NotImplementedError(
                    f"{loss!r} has no method third: the derivative of leverages by y "
                    "needs the third derivative of the loss"
                )
            return b * data.counted(third(z, data.targets, ones, ones, ones))

        return Curved(data.weights, second, move)
    soft_max = loss.curvature(z, data.targets, ones).soft_max
    if soft_max is None:
        raise NotImplementedError(f"{loss!r} is no soft-max: its c is not known")
    p: Any = soft_max[0]
    second = -p[:, :, None] * p[:, None, :]
    places = range(p.shape[1])
    second[:, places, places] += p

    def moved(B: Array) -> Array:
        diagonal = xp.linalg.diagonal(B)
        v = diagonal - 2.0 * (B @ p[..., None])[..., 0]
        return p * (v - xp.sum(p * v, axis=1, keepdims=True))

    return Curved(data.weights, second, moved)


def _estimate(share: float, h: Array, c: Array, z: Array, d: Array) -> _Estimate:
    """Return z̃ for leverages h."""
    xp = namespace(h)
    if h.ndim == 1:
        with np.errstate(divide="ignore", invalid="ignore"):  # refused afterwards
            inverse = 1.0 / (1.0 - c * h)
            return _Estimate(share, z + h * inverse * d, h, inverse)
    inverse = xp.linalg.inv(xp.eye(c.shape[1], dtype=c.dtype) - c @ h)
    left_out = z + (h @ inverse @ d[..., None])[..., 0]
    return _Estimate(share, left_out, h, inverse)


def _by_predictor_and_leverage(
    found: _Estimate, curved: Curved, d: Array, g: Array
) -> tuple[Array, Array]:
    """Return the derivatives of Σ_i g_i'z̃_i by z at fixed h, and by h.

    With u = (I − c h)⁻¹ d, v = (I − c h)⁻¹ g, q = h v and e = h u:
    g'ż̃ = g'ż + q'(c ż + ċ e) + v'ḣ u.
    """
    c, h, inverse = curved.second, found.h, found.inverse
    if h.ndim == 1:
        u, v = inverse * d, inverse * g
        q, e = h * v, h * u
        return g + c * q + curved.move(q * e), v * u
    u, v = ((inverse @ b[..., None])[..., 0] for b in (d, g))
    q, e = ((h @ b[..., None])[..., 0] for b in (v, u))
    B = 0.5 * (q[:, :, None] * e[:, None, :] + e[:, :, None] * q[:, None, :])
    beta = 0.5 * (v[:, :, None] * u[:, None, :] + u[:, :, None] * v[:, None, :])
    cq = (c @ q[..., None])[..., 0]
    return g + cq + curved.move(B), beta


class LeaveOneOuts:
    """The sum of the leave-one-out losses of several targets, an :class:`UpperObjective`."""

    def __init__(self, each: list[LeaveOneOut]) -> None:
        self._each, self.total = each, each[0].total
        self.exact = all(one.exact for one in each)

    def __repr__(self) -> str:
        return f"LeaveOneOuts({len(self._each)} x {self._each[0]!r})"

    def _parts(self, x: Array, y: Array) -> Any:
        count = len(self._each)
        xs: Any = x.reshape(count, -1)
        ys: Any = y.reshape(count, -1)
        return zip(self._each, xs, ys, strict=True)

    def predictors(self, x: Array, y: Array) -> Array:
        """Return the predictors of each sample by the model without it, (N, t)."""
        found = [one.predictors(x_k, y_k) for one, x_k, y_k in self._parts(x, y)]
        return namespace(y).stack(found, axis=1)

    def standard_error(self, x: Array, y: Array) -> float:
        """Return that of the value, 0 for exact leverages."""
        found = [one.standard_error(x_k, y_k) for one, x_k, y_k in self._parts(x, y)]
        return math.hypot(*found)

    def value(self, x: Array, y: Array) -> float:
        """Return the sum over the targets."""
        return math.fsum(one.value(x_k, y_k) for one, x_k, y_k in self._parts(x, y))

    def grad_y(self, x: Array, y: Array) -> Array:
        """Return its derivative by y, (n t,)."""
        found = [one.grad_y(x_k, y_k) for one, x_k, y_k in self._parts(x, y)]
        return namespace(y).concatenate(found)

    def grad_x(self, x: Array, y: Array) -> Array:
        """Return its derivative by x at fixed y, (m t,)."""
        found = [one.grad_x(x_k, y_k) for one, x_k, y_k in self._parts(x, y)]
        return namespace(y).concatenate(found)
