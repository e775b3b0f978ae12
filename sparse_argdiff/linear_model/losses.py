"""Pointwise losses ℓ(z, t) of a linear predictor z and a target t.

Each gives ℓ, ∂ℓ/∂z and the curvature ∂²ℓ/∂z² as a product, all convex in z:

    Squared      ½ (z − t)²                     Huber     ½ r² inside δ, δ|r| − ½ δ² outside
    Logistic     log(1 + e^z) − t z             Poisson   e^z − t z
    Multinomial  log Σ_k e^{z_k} − z_t          (K predictors a sample)
    SquaredHinge max(0, 1 − t z)²           Gamma     t e^−z − 1 + z − log t
    Tweedie      half the deviance of variance ~ mean^p, mean e^z, p from 1 (Poisson) to 2
    Quantile     τ r + δ log(1 + e^{−r/δ}),  r = t − z
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np

from ..arrays import Array, namespace
from .loss import Loss, ScalarLoss, numeric_targets
from .multinomial import Multinomial


@dataclasses.dataclass(frozen=True)
class Squared(ScalarLoss):
    """½ (z − t)², for real targets."""

    curvature_bound: ClassVar[float] = 1.0
    third_bound: ClassVar[float] = 0.0

    def value(self, z: Array, targets: Array) -> Array:
        """Return ℓ per sample."""
        return 0.5 * (z - targets) ** 2

    def slope(self, z: Array, targets: Array) -> Array:
        """Return z − t."""
        return z - targets

    def _second(self, z: Array, targets: Array, weights: Array) -> Array:
        return weights


@dataclasses.dataclass(frozen=True)
class Logistic(ScalarLoss):
    """log(1 + e^z) − t z, for targets in [0, 1]; labels −1 and +1 become 0 and 1."""

    curvature_bound: ClassVar[float] = 0.25
    third_bound: ClassVar[float] = 1.0 / (6.0 * math.sqrt(3.0))
    mean_range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def prepare(self, targets: Array, dtype: Any, outputs: int | None = None) -> Array:
        """Return targets in [0, 1]."""
        targets = numeric_targets(targets, dtype)
        xp = namespace(targets)
        if targets.shape[0] and bool(xp.all((targets == -1.0) | (targets == 1.0))):
            return 0.5 * (targets + 1.0)
        if not bool(xp.all((targets >= 0.0) & (targets <= 1.0))):
            raise ValueError(
                "targets of the logistic loss must be labels -1/+1 or lie in [0, 1], "
                f"found values from {float(xp.min(targets))} to {float(xp.max(targets))}"
            )
        return targets

    def value(self, z: Array, targets: Array) -> Array:
        """Return ℓ per sample."""
        return self._value(z, targets, self._tails(z)[0])

    def together(self, z: Array, targets: Array) -> tuple[Array, Array, Array]:
        """Return ℓ, p − t and p (1 − p), which share e^−|z|."""
        e, q = self._tails(z)
        value, slope = self._value(z, targets, e), self._slope(z, targets, e, q)
        q *= q
        q *= e
        return value, slope, q

    def slope(self, z: Array, targets: Array) -> Array:
        """Return the probability minus the target."""
        return self._slope(z, targets, *self._tails(z))

    @staticmethod
    def _tails(z: Array) -> tuple[Array, Array]:
        """Return e = e^−|z| and q = 1 / (1 + e): p and 1 − p are q and e q, or e q and q."""
        e = namespace(z).abs(z)
        e *= -1.0
        e = namespace(z).exp(e)
        return e, 1.0 / (1.0 + e)

    @staticmethod
    def _value(z: Array, targets: Array, e: Array) -> Array:
        """Return (max(z, 0) − t z) + log(1 + e), whose terms are not negative."""
        xp = namespace(z)
        value = z + xp.abs(z)
        value *= 0.5
        value -= targets * z
        value += xp.log1p(e)
        return value

    @staticmethod
    def _slope(z: Array, targets: Array, e: Array, q: Array) -> Array:
        """Return (1 − t) p − t (1 − p): a label's slope has no digits that cancel."""
        positive = z >= 0.0
        others = 1.0 - targets
        slope = namespace(z).where(positive, others, others * e)
        slope -= namespace(z).where(positive, targets * e, targets)
        slope *= q
        return slope

    def _second(self, z: Array, targets: Array, weights: Array) -> Array:
        e, q = self._tails(z)
        e *= q
        e *= q
        e *= weights
        return e

    def _third(self, z: Array, targets: Array, weights: Array) -> Array:
        return -namespace(z).tanh(0.5 * z) * self._second(z, targets, weights)

    @classmethod
    def probability(cls, z: Array) -> Array:
        """Return 1 / (1 + e^-z), small ones to all digits."""
        e, q = cls._tails(z)
        q *= namespace(z).where(z >= 0.0, namespace(z).ones_like(e), e)
        return q


@dataclasses.dataclass(frozen=True)
class Poisson(ScalarLoss):
    """e^z − t z, for counts t ≥ 0."""

    mean_range: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def prepare(self, targets: Array, dtype: Any, outputs: int | None = None) -> Array:
        """Return targets ≥ 0."""
        targets = numeric_targets(targets, dtype)
        if bool(namespace(targets).any(targets < 0.0)):
            raise ValueError("targets of the Poisson loss must be >= 0")
        return targets

    def value(self, z: Array, targets: Array) -> Array:
        """Return ℓ per sample."""
        return self.mean(z) - targets * z

    def slope(self, z: Array, targets: Array) -> Array:
        """Return the mean minus the target."""
        return self.mean(z) - targets

    def _second(self, z: Array, targets: Array, weights: Array) -> Array:
        return weights * self.mean(z)

    def _third(self, z: Array, targets: Array, weights: Array) -> Array:
        return weights * self.mean(z)

    @staticmethod
    def mean(z: Array) -> Array:
        """Return e^z; a trial step that overflows is for the line search to refuse."""
        with np.errstate(over="ignore"):
            return namespace(z).exp(z)


@dataclasses.dataclass(frozen=True)
class Tweedie(ScalarLoss):
    """e^{(2−p) z} / (2 − p) + t e^{(1−p) z} / (p − 1) + const: half the deviance, mean e^z.

    The constant makes it zero at z = log t.  For amounts t ≥ 0 that are zero with a positive
    probability.  An exposure v, mean v e^z, is fitted by targets t / v with weights v^{2−p}.

    Parameters
    ----------
    power : float
        p from 1 (the Poisson loss) to 2 (the gamma loss): the variance is in proportion to
        the mean to the power p.

    References
    ----------
    B. Jorgensen, "Exponential dispersion models", J. Royal Statistical Society B 49 (1987)
    127-162.
    """

    power: float = 1.5
    mean_range: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def __post_init__(self) -> None:
        if not 1.0 <= self.power <= 2.0:
            raise ValueError(
                f"power must be from 1 to 2, where the loss is convex, found {self.power!r}"
            )

    def prepare(self, targets: Array, dtype: Any, outputs: int | None = None) -> Array:
        """Return targets ≥ 0, > 0 for p = 2."""
        targets = numeric_targets(targets, dtype)
        xp, sign = namespace(targets), ">" if self.power == 2.0 else ">="
        wrong = targets <= 0.0 if self.power == 2.0 else targets < 0.0
        if bool(xp.any(wrong)):
            raise ValueError(
                f"targets of the {type(self).__name__} loss must be {sign} 0, found "
                f"{float(xp.min(targets))}"
            )
        return targets

    def value(self, z: Array, targets: Array) -> Array:
        """Return ℓ per sample: t^{2−p} φ(z − log t), φ ≥ 0, and e^{(2−p) z} / (2 − p) at 0."""
        xp, p = namespace(z), self.power
        none = targets == 0.0
        ones = xp.ones_like(targets)
        logs = xp.log(xp.where(none, ones, targets))
        far = z - logs
        with np.errstate(over="ignore"):  # a trial step, for the line search to refuse
            rise = far if p == 2.0 else xp.expm1((2.0 - p) * far) / (2.0 - p)
            fall = -far if p == 1.0 else xp.expm1((1.0 - p) * far) / (p - 1.0)
            value = xp.exp((2.0 - p) * logs) * (rise + fall)
            if p == 2.0:
                return value
            return xp.where(none, xp.exp((2.0 - p) * z) / (2.0 - p), value)

    def slope(self, z: Array, targets: Array) -> Array:
        """Return e^{(2−p) z} − t e^{(1−p) z}."""
        rise, fall = self._terms(z, targets)
        return rise - fall

    def _terms(self, z: Array, targets: Array) -> tuple[Array, Array]:
        xp, p = namespace(z), self.power
        with np.errstate(over="ignore"):  # a trial step, for the line search to refuse
            rise = xp.exp((2.0 - p) * z)
            fall = _times(targets, xp.exp((1.0 - p) * z))
        return rise, fall

    def _second(self, z: Array, targets: Array, weights: Array) -> Array:
        (rise, fall), p = self._terms(z, targets), self.power
        return weights * ((2.0 - p) * rise + (p - 1.0) * fall)

    def _third(self, z: Array, targets: Array, weights: Array) -> Array:
        (rise, fall), p = self._terms(z, targets), self.power
        return weights * ((2.0 - p) ** 2 * rise - (p - 1.0) ** 2 * fall)


def _times(targets: Array, factor: Array) -> Array:
    """Return t f, zero where t is: f may have overflowed."""
    xp = namespace(factor)
    none = targets == 0.0
    return targets * xp.where(none, xp.zeros_like(factor), factor)


@dataclasses.dataclass(frozen=True)
class Gamma(Tweedie):
    """t e^−z − 1 + z − log t, for amounts t > 0: half the gamma deviance, with mean e^z."""

    power: float = dataclasses.field(default=2.0, init=False, repr=False)


@dataclasses.dataclass(frozen=True)
class Quantile(ScalarLoss):
    """τ r + δ log(1 + e^{−r/δ}), r = t − z: the smoothed loss of a quantile.

    It lies between the loss max(τ r, (τ − 1) r) and δ log 2 above it.

    Parameters
    ----------
    level : float
        τ in (0, 1): 0.5 for the median.
    width : float
        δ > 0, over which the corner is rounded, in the units of the targets.

    References
    ----------
    C. Chen, O. L. Mangasarian, "A class of smoothing functions for nonlinear and mixed
    complementarity problems", Computational Optimization and Applications 5 (1996) 97-138.
    """

    level: float = 0.5
    width: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 < self.level < 1.0:
            raise ValueError(f"level must be in (0, 1), found {self.level!r}")
        if not 0.0 < self.width < math.inf:
            raise ValueError(f"width must be > 0, found {self.width!r}")

    @property
    def curvature_bound(self) -> float:
        """Bound of ∂²ℓ/∂z²."""
        return Logistic.curvature_bound / self.width

    @property
    def third_bound(self) -> float:
        """Bound of ∂³ℓ/∂z³."""
        return Logistic.third_bound / self.width**2

    def value(self, z: Array, targets: Array) -> Array:
        """Return ℓ per sample."""
        r = targets - z
        bent = Logistic().value(-r / self.width, 0.0 * r)
        return self.level * r + self.width * bent

    def slope(self, z: Array, targets: Array) -> Array:
        """Return 1 / (1 + e^{r/δ}) − τ."""
        return Logistic.probability((z - targets) / self.width) - self.level

    def _second(self, z: Array, targets: Array, weights: Array) -> Array:
        p = Logistic.probability((z - targets) / self.width)
        return weights * p * (1.0 - p) / self.width

    def secant(self, z: Array, targets: Array, weights: Array) -> Array:
        """Return tanh(r/2δ) / 2r: the part of ℓ that is even in r, over its distance."""
        xp, u = namespace(z), namespace(z).abs(z - targets) / (2.0 * self.width)
        near = u < 1e-4
        ratio = xp.tanh(u) / xp.where(near, xp.ones_like(u), u)
        return weights * xp.where(near, xp.ones_like(u), ratio) / (4.0 * self.width)

    def _third(self, z: Array, targets: Array, weights: Array) -> Array:
        p = Logistic.probability((z - targets) / self.width)
        return weights * p * (1.0 - p) * (1.0 - 2.0 * p) / self.width**2


@dataclasses.dataclass(frozen=True)
class Huber(ScalarLoss):
    """½ r² for |r| ≤ δ and δ|r| − ½ δ² beyond, r = z − t.

    Parameters
    ----------
    delta : float
        Where the loss becomes linear, in the units of the targets.
    """

    delta: float = 1.35

    def __post_init__(self) -> None:
        if not self.delta > 0.0:
            raise ValueError(f"delta must be > 0, found {self.delta!r}")

    def value(self, z: Array, targets: Array) -> Array:
        """Return ℓ per sample."""
        r = z - targets
        inner = self.slope(z, targets)
        return inner * (r - 0.5 * inner)

    def slope(self, z: Array, targets: Array) -> Array:
        """Return the residual, clipped to ±δ."""
        return namespace(z).clip(z - targets, -self.delta, self.delta)

    def _second(self, z: Array, targets: Array, weights: Array) -> Array:
        return weights * (namespace(z).abs(z - targets) <= self.delta)

    def secant(self, z: Array, targets: Array, weights: Array) -> Array:
        """Return min(1, δ / |r|)."""
        xp = namespace(z)
        size = xp.abs(z - targets)
        return weights * (
            self.delta / xp.where(size > self.delta, size, self.delta + 0.0 * size)
        )

    def kinks(self, z: Array, targets: Array) -> Array:
        """Return how far the predictors are from where the curvature jumps, relatively."""
        xp = namespace(z)
        return xp.abs(xp.abs(z - targets) / self.delta - 1.0)


class Majoriser(ScalarLoss):
    """A loss with the curvature of the parabola that touches it at z and lies above it.

    Of a loss that is even about its centre up to a linear part, and whose even part is
    concave in r²: the slope of that part over the distance, ``secant``.

    References
    ----------
    D. R. Hunter, K. Lange, "Quantile regression via an MM algorithm", J. Comput. Graph.
    Stat. 9 (2000) 60-77.
    """

    def __init__(self, loss: Huber | Quantile) -> None:
        self.value, self.slope = loss.value, loss.slope
        self._second = loss.secant  # type: ignore[method-assign]


@dataclasses.dataclass(frozen=True)
class SquaredHinge(ScalarLoss):
    """max(0, 1 − t z)² for labels −1/+1; 0/1 become −1/+1."""

    mean_range: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def prepare(self, targets: Array, dtype: Any, outputs: int | None = None) -> Array:
        """Return the labels −1/+1."""
        targets = numeric_targets(targets, dtype)
        xp = namespace(targets)
        if bool(xp.all((targets == 0.0) | (targets == 1.0))):
            return 2.0 * targets - 1.0
        if not bool(xp.all((targets == -1.0) | (targets == 1.0))):
            raise ValueError(
                "targets must be labels -1/+1 or 0/1, found values from "
                f"{float(xp.min(targets))} to {float(xp.max(targets))}"
            )
        return targets

    def value(self, z: Array, targets: Array) -> Array:
        """Return ℓ per sample."""
        return self._missing(z, targets) ** 2

    def slope(self, z: Array, targets: Array) -> Array:
        """Return −2 t max(0, 1 − t z)."""
        return -2.0 * targets * self._missing(z, targets)

    def _second(self, z: Array, targets: Array, weights: Array) -> Array:
        return 2.0 * weights * (targets * z < 1.0)

    def kinks(self, z: Array, targets: Array) -> Array:
        """Return how far the predictors are from where the curvature jumps, of their size."""
        return namespace(z).abs(1.0 - targets * z)

    @staticmethod
    def _missing(z: Array, targets: Array) -> Array:
        short = 1.0 - targets * z
        return namespace(z).maximum(short, 0.0 * short)


LOSSES: dict[str, type[Any]] = {
    loss.__name__.lower(): loss
    for loss in (
        Squared,
        Logistic,
        Poisson,
        Gamma,
        Tweedie,
        Huber,
        Quantile,
        Multinomial,
    )
} | {"squared-hinge": SquaredHinge}


def as_loss(loss: str | Loss) -> Loss:
    """Return the loss of that name, or the given one."""
    if not isinstance(loss, str):
        return loss
    if loss not in LOSSES:
        known = ", ".join(repr(name) for name in LOSSES)
        raise ValueError(f"loss must be one of {known} or a Loss, found {loss!r}")
    instance: Loss = LOSSES[loss]()
    return instance
