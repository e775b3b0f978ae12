"""Ridge penalties ½ Σ_j e^{η_j} c_j² with log-weights η = o + Z x (``log_weights.py``).

Where η_j = −∞ the coefficient is free.  Where e^{η_j} is infinite, or overflows, it is
fixed at 0: the data do not see it, and it keeps a finite weight of its own, so that
gradient and Hessian there are those of ½ w_j c_j² alone.  Neither depends on x.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, as_vector, copied, namespace
from ..operators.diagonal_blocks import reselected
from ..operators.linear_operator import LinearOperator
from ..operators.structure import Forming
from .log_weights import LogWeights

_NAMED = 5  # coefficients that a note lists


class Weights(NamedTuple):
    """The weights at one x, per coefficient, not to be written to.

    ``values`` are finite; where ``fixed`` is true they only keep the Hessian definite.
    """

    values: Array
    fixed: Array | None  # a mask (n,), None where no coefficient is fixed
    note: str  # names what is free and what is fixed


class RidgePenalty:
    """The weights e^η of the coefficients (p, K), in C order, of y (n,)."""

    def __init__(self, log_weights: LogWeights, n: int) -> None:
        self.log_weights, self.n = log_weights, n
        self.m, self.n_coefficients = log_weights.m, log_weights.size
        self._memo: tuple[Array, Weights] | None = None

    def at(self, x: Array, dtype: Any) -> Weights:
        """Return the weights at x; the last ones are remembered."""
        x, memo = as_vector("x", x), self._memo
        if memo is not None and _same(memo[0], x):
            return memo[1]
        eta = self.log_weights(x, dtype)
        xp = namespace(eta)
        with np.errstate(over="ignore"):
            values = xp.exp(eta)
        found = _checked(values, self.n)
        self._memo = (copied(x), found)
        return found

    def weights(self, x: Array, dtype: Any) -> Array:
        """Return the weights per coefficient, shape (p K,), finite."""
        return self.at(x, dtype).values

    def slopes(self, x: Array, dtype: Any) -> Array:
        """Return ∂(weights)/∂η, shape (p K,): e^η, zero where that is infinite."""
        values, fixed, _ = self.at(x, dtype)
        return without(None if fixed is None else fixed[: self.n_coefficients], values)

    def spread(self, u: Array) -> Array:
        """Return Z u per coefficient: (m,) → (p K,)."""
        return self.log_weights.spread(u)

    def gather(self, c: Array) -> Array:
        """Return Z' c: (p K,) → (m,)."""
        return self.log_weights.gather(c)


def _same(a: Array, b: Array) -> bool:
    return a.shape == b.shape and bool(namespace(a, b).all(a == b))


def _checked(values: Array, n: int) -> Weights:
    """Replace infinite weights by the largest finite one, and name them."""
    xp = namespace(values)
    total = float(xp.sum(values))
    least = float(xp.min(values)) if values.shape[0] else 1.0
    free = "" if least != 0.0 else _named(values == 0.0, "weight 0: not penalised")
    if total != math.inf:
        return Weights(values, None, free)
    fixed = xp.isinf(values)
    if not bool(xp.any(fixed)):
        return Weights(values, None, free)
    largest = float(xp.max(xp.where(fixed, xp.zeros_like(values), values)))
    values = xp.where(fixed, xp.full_like(values, largest or 1.0), values)
    notes = (free, _named(fixed, "infinite weight: fixed at 0"))
    rest = xp.zeros(n - fixed.shape[0], dtype=fixed.dtype)
    fixed = xp.concatenate([fixed, rest])
    return Weights(values, fixed, "; ".join(note for note in notes if note))


def _named(mask: Array, what: str) -> str:
    (places,) = namespace(mask).nonzero(mask)
    count = int(places.shape[0])
    listed = ", ".join(str(int(j)) for j in places[:_NAMED])
    more = f" and {count - _NAMED} more" if count > _NAMED else ""
    plural = "coefficients" if count > 1 else "coefficient"
    return f"{plural} {listed}{more} of {what}"


def without(fixed: Array | None, y: Array) -> Array:
    """Return y, (n,) or (n, k), with zeros where the mask, (n,) or like y, is true."""
    if fixed is None:
        return y
    mask = fixed if y.ndim == fixed.ndim else fixed[:, None]
    xp = namespace(y)
    return xp.where(mask, xp.zeros_like(y), y)


def held(operator: LinearOperator, fixed: Array, weights: Array) -> LinearOperator:
    """Return a Hessian that is diag(weights) alone where the mask is true.

    Both are (n,), or (n, k) for an operator whose columns have matrices of their own.
    """
    xp = namespace(weights)
    own = xp.where(fixed, weights, xp.zeros_like(weights))

    def pull(v: Array) -> Array:
        return (own if v.ndim == own.ndim else own[:, None]) * v

    def product(v: Array) -> Array:
        return without(fixed, operator @ without(fixed, v)) + pull(v)

    def into(v: Array, out: Array) -> Any:
        square = operator.apply(without(fixed, v), out)
        extra = pull(v)
        out[...] = without(fixed, out) + extra
        return None if square is None else square + xp.sum(extra * v, axis=0)

    diagonal = None
    if operator.has_diagonal:

        def diagonal() -> Array:
            return without(fixed, operator.diagonal()) + own

    structure = operator.structure
    split = structure.split
    if split is not None:
        core, ridge = split
        split = held(core, fixed, xp.zeros_like(weights)), ridge
    found = LinearOperator(
        operator.shape,
        product if operator.has_matvec else None,
        matmat=product if operator.has_matmat else None,
        dtype=operator.dtype,
        symmetric=True,
        diagonal=diagonal,
        structure=structure._replace(
            blocks=held_blocks(structure.blocks, fixed, own),
            columns=None,
            forming=_held_forming(structure.forming, fixed, own),
            split=split,
        ),
    )
    if operator.into is None:
        return found
    return found.with_product(into, blocks=operator.into_blocks)


def _held_forming(forming: Forming | None, fixed: Array, own: Array) -> Forming | None:
    """Return how the entries of a held operator are had, where those of it are."""
    if forming is None or own.ndim != 1:
        return None
    given = forming.entries

    def entries() -> Array:
        kept = without(fixed, without(fixed, given()).T).T
        return kept + namespace(own).diag(own)

    return forming._replace(entries=entries)


def held_blocks(blocks: Any, fixed: Array, own: Array) -> Any:
    """Return the same of the diagonal blocks of an operator."""
    if blocks is None:
        return None
    masks, weights = (v.reshape(blocks.count, blocks.size) for v in (fixed, own))

    def columns(places: Any, width: int) -> LinearOperator:
        operator, places = blocks.columns(places, width), list(places)
        if width == 0:
            return held(operator, masks[places[0], :], weights[places[0], :])
        xp = namespace(own)
        mask = xp.zeros((blocks.size, width), dtype=fixed.dtype)
        weight = xp.zeros((blocks.size, width), dtype=own.dtype)
        mask[:, : len(places)] = masks[places, :].T
        weight[:, : len(places)] = weights[places, :].T
        found = held(operator, mask, weight)
        again = found.structure._replace(columns=reselected(columns, places))
        return found.with_structure(again)

    return dataclasses.replace(blocks, columns=columns)
