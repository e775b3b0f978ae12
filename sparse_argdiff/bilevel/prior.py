"""A normal prior of the parameters, sums of upper objectives, and advice against overfitting.

    f^U(x, y) = loss of N held-out rows + noise Σ_j ((x_j − c_j) / s_j)² / (2 N)

The mean loss of N rows and −log p(x) / N weigh as they do in the posterior: ``noise`` is 1
for a loss that is a negative log-likelihood, and the held-out variance for ½ (z − t)², which
is that many times one.
"""

from __future__ import annotations

import math
from typing import Any

from ..arrays import (
    Array,
    as_array,
    as_data,
    as_number,
    as_vector,
    brief,
    check_methods,
    copied,
    dot,
    namespace,
    zeros,
)
from ..hypergradient.upper_objective import UpperObjective

_MOST = 0.5  # parameters per held-out observation, see ``overfitting_note``


class Prior:
    """A normal prior of the parameters as an upper objective, see :func:`prior`.

    Attributes
    ----------
    centre, deviation : array () or (m,)
    weight : float
        noise / rows.
    """

    direct_lipschitz = 0.0  # y does not enter

    def __init__(
        self, centre: Any, deviation: Any, *, rows: float = 1.0, noise: float = 1.0
    ) -> None:
        self.centre = _parameters("centre", centre, finite=True)
        self.deviation = _parameters("deviation", deviation, finite=False)
        xp = namespace(self.deviation)
        if not bool(xp.all(self.deviation > 0.0)):
            raise ValueError(f"deviation must be > 0, found {deviation!r}")
        shapes = {p.shape for p in (self.centre, self.deviation) if p.ndim}
        if len(shapes) > 1:
            raise ValueError(
                "centre and deviation must have the same shape, found "
                f"{tuple(self.centre.shape)} and {tuple(self.deviation.shape)}"
            )
        rows, noise = as_number("rows", rows), as_number("noise", noise)
        if not 0.0 < rows < math.inf:
            raise ValueError(f"rows must be finite and > 0, found {rows!r}")
        if not 0.0 <= noise < math.inf:
            raise ValueError(f"noise must be finite and >= 0, found {noise!r}")
        self.weight = noise / rows

    def __repr__(self) -> str:
        return brief("Prior", vars(self))

    def _distance(self, x: Array) -> tuple[Array, Any]:
        """Return (x − c) / s and s, both like x."""
        x = as_vector("x", x)
        c, s = (_like(name, getattr(self, name), x) for name in ("centre", "deviation"))
        return (x - c) / s, s

    def value(self, x: Array, y: Array) -> float:
        """Return the value at x."""
        t, _ = self._distance(x)
        return 0.5 * self.weight * dot(t, t)

    def grad_y(self, x: Array, y: Array) -> Array:
        """Return zeros: y does not enter."""
        return zeros(y.shape[0], y)

    def grad_x(self, x: Array, y: Array) -> Array:
        """Return noise (x − c) / (rows s²), shape (m,)."""
        t, s = self._distance(x)
        return self.weight * t / s

    def curvature_scale(self, x: Array) -> Array:
        """Return the diagonal of ∂²f^U/∂x², shape (m,)."""
        t, s = self._distance(x)
        return self.weight / s**2 + 0.0 * t

    def hess_product(self, x: Array, y: Array, dx: Array, dy: Array) -> Any:
        """Return the derivatives of ``grad_x`` and ``grad_y`` along (dx, dy)."""
        _, s = self._distance(x)
        return self.weight * dx / s**2, None

    def lipschitz(self, metric: Array) -> float:
        """Return 0, a Lipschitz constant of ``grad_y``, see ``Constants``."""
        return 0.0

    def determined(self, m: int) -> int:
        """Return how many of m parameters have a prior."""
        if self.weight == 0.0:
            return 0
        s = self.deviation
        finite = namespace(s).isfinite(s)
        return m if s.ndim == 0 and bool(finite) else int(namespace(s).sum(finite))


def prior(
    centre: Any, deviation: Any, *, rows: float = 1.0, noise: float = 1.0
) -> Prior:
    """Return noise Σ_j ((x_j − c_j) / s_j)² / (2 rows), an :class:`UpperObjective` of x.

    Parameters
    ----------
    centre : float or array (m,)
        c: where x is without data, such as the log of the best single penalty.
    deviation : float or array (m,)
        s > 0: standard deviation around c, in the units of x; infinite for no prior of x_j.
    rows : float
        Sum of the weights of the held-out rows, N without weights: the loss that it is
        added to is their mean.
    noise : float
        1 for a loss that is a negative log-likelihood, such as the logistic and Poisson
        ones; for the squared loss ½ (z − t)² the variance of the held-out residuals.

    Returns
    -------
    Prior
        To be added to a loss: ``sad.Sum(upper, sad.prior(...))``.

    Raises
    ------
    TypeError, ValueError
        For what is no array of real numbers, a deviation or rows not > 0, a noise < 0, and
        shapes that do not agree.

    References
    ----------
    D. J. C. MacKay, "Bayesian interpolation", Neural Computation 4 (1992) 415-447, of
    penalties as parameters with a prior.

    Examples
    --------
    >>> import numpy as np
    >>> import sparse_argdiff as sad
    >>> term = sad.prior(0.0, 2.0, rows=10.0)
    >>> term.value(np.array([2.0, -4.0]), np.zeros(3))
    0.25
    """
    return Prior(centre, deviation, rows=rows, noise=noise)


class Sum:
    """A sum of upper objectives, such as a held-out loss and a :func:`prior`.

    Parameters
    ----------
    *parts : UpperObjective
        One or more; the parts of a ``Sum`` among them are taken one by one.

    Attributes
    ----------
    parts : tuple of UpperObjective

    Notes
    -----
    What is proven about a hypergradient of the sum rests on the constants of each part: one
    that has no ``lipschitz`` proves nothing.

    Examples
    --------
    >>> import numpy as np
    >>> import sparse_argdiff as sad
    >>> upper = sad.Sum(sad.prior(0.0, 1.0), sad.prior(1.0, 1.0))
    >>> upper.grad_x(np.array([0.5]), np.zeros(2))
    array([0.])
    """

    def __init__(self, *parts: UpperObjective) -> None:
        if not parts:
            raise TypeError("Sum needs one or more upper objectives, found none")
        for i, part in enumerate(parts):
            check_methods(f"part {i} of Sum", part, "value", "grad_y", "grad_x")
        groups = (p.parts if isinstance(p, Sum) else (p,) for p in parts)
        # Each is given copies of its own, which it may write into.
        self.parts: tuple[UpperObjective, ...] = tuple(p for g in groups for p in g)

    def __repr__(self) -> str:
        return f"Sum({', '.join(map(repr, self.parts))})"

    def value(self, x: Array, y: Array) -> float:
        """Return Σ f^U(x, y)."""
        return sum(
            as_number("value", part.value(copied(x), copied(y))) for part in self.parts
        )

    def grad_y(self, x: Array, y: Array) -> Array:
        """Return Σ ∂f^U/∂y, shape (n,)."""
        return _total([part.grad_y(copied(x), copied(y)) for part in self.parts])

    def grad_x(self, x: Array, y: Array) -> Array | None:
        """Return Σ ∂f^U/∂x, shape (m,), or None where x enters no part directly."""
        return _total([part.grad_x(copied(x), copied(y)) for part in self.parts])

    def curvature_scale(self, x: Array) -> Array | None:
        """Return the diagonal of ∂²f^U/∂x² of the parts that know theirs."""
        known = (getattr(part, "curvature_scale", None) for part in self.parts)
        return _total([scale(copied(x)) for scale in known if callable(scale)])

    def lipschitz(self, metric: Array) -> float:
        """Return a Lipschitz constant of ``grad_y`` in a metric, see ``Constants``."""
        known = (getattr(part, "lipschitz", None) for part in self.parts)
        return sum(f(copied(metric)) if callable(f) else math.inf for f in known)


def overfitting_note(upper: UpperObjective, m: int) -> str:
    """Return a caveat where m parameters are more than the held-out rows determine, or "".

    Each parameter that is fitted to a mean loss of N observations lowers it by noise / (2 N)
    in the mean, and raises that of new rows by as much: an optimism of m / N noise, where the
    loss itself is noise / 2.  From m = N / 2 on it is as large as the loss, and the minimum
    tells nothing about new rows.  Parameters with a prior are not counted, and objectives
    that do not know their ``n_observations`` are not judged.

    References
    ----------
    H. Akaike, "A new look at the statistical model identification", IEEE Trans. Automat.
    Contr. 19 (1974) 716-723.
    """
    parts = getattr(upper, "parts", (upper,))
    known = [getattr(part, "n_observations", None) for part in parts]
    free = m - max((p.determined(m) for p in parts if isinstance(p, Prior)), default=0)
    if any(
        n is None for n, p in zip(known, parts, strict=True) if not isinstance(p, Prior)
    ):
        return ""
    rows = sum(n for n in known if n is not None)
    if free <= _MOST * rows or not rows:
        return ""
    return (
        f"{free} parameters without a prior are more than {rows} held-out observations "
        "determine: at the minimum the loss of these is far below that of new ones. Add a "
        "prior, upper=sad.Sum(upper, sad.prior(centre, deviation, rows=...)), or learn "
        "fewer parameters, such as penalties with log-weights = Z x (penalty=Z, "
        "'per-group' or 'scalar')"
    )


def _parameters(name: str, value: Any, *, finite: bool) -> Array:
    """Return a number or a vector as a floating array () or (m,)."""
    value = float(value) if isinstance(value, int) else value
    array = as_data(name, as_array(name, value), finite=False)
    xp = namespace(array)
    if array.ndim > 1:
        raise ValueError(f"{name} must be a number or 1-D, found shape {array.shape}")
    if finite and not bool(xp.all(xp.isfinite(array))):
        raise ValueError(f"{name} must be finite, found {value!r}")
    return xp.asarray(array, copy=True)


def _like(name: str, value: Array, x: Array) -> Any:
    """Return a number, or a vector of the shape, namespace and dtype of x."""
    if value.ndim == 0:
        return float(value)
    xp = namespace(x, value)
    if value.shape != x.shape:
        raise ValueError(
            f"{name} of the prior has shape {tuple(value.shape)}, and x {tuple(x.shape)}"
        )
    return xp.asarray(value, dtype=x.dtype)


def _total(terms: list[Any]) -> Any:
    """Return the sum of the terms that are not None, None without any."""
    there = [term for term in terms if term is not None]
    total = None
    for term in there:
        total = term if total is None else total + term
    return total
