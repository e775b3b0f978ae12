"""Mehrotra's predictor-corrector method for a stack of quadratic programs.

    P y + q + A'ν + J'z = 0,   A y = b,   J y + s = c,   s z = μ,   s, z > 0

    [ P + J'(z/s)J + δ   A' ] [ dy ]
    [ A                  −δ ] [ dν ]  =  − residuals

The members advance together; one that has ended keeps its point and leaves the stack once
half of them have.  δ is that of a proximal point: it changes the steps, not where they end.

References
----------
S. Mehrotra, On the implementation of a primal-dual interior point method, SIAM J. Optim. 2,
1992.  M. Friedlander, D. Orban, A primal-dual regularized interior-point method for convex
quadratic programs, Math. Program. Comput. 4, 2012.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ...arrays import Array, epsilon, namespace
from ...krylov.stacked import StackedRegularFactor, apply, apply_transposed, transposed
from ...problem.stacked_quadratic import StackedQuadratic

_DELTA = 1e-10  # of the proximal point, in equilibrated units
_TO_THE_BOUNDARY = 0.99
_FAR = 1e6  # sizes of y within which a contradiction excludes all y, or a ray falls
_STALE = 10  # iterations without a smaller error after which a member has ended


@dataclasses.dataclass(frozen=True, eq=False)
class Iterate:
    """The points of k members: y (k, n), ν (k, p), s and z (k, R)."""

    y: Array
    nu: Array
    s: Array
    z: Array

    def take(self, index: Any) -> Iterate:
        """Return the members of an index."""
        return Iterate(*(v[index, ...] for v in (self.y, self.nu, self.s, self.z)))

    def where(self, mask: Array, other: Iterate) -> Iterate:
        """Return these points where the mask holds, others elsewhere."""
        xp = namespace(self.y)
        pairs = zip(
            (self.y, self.nu, self.s, self.z),
            (other.y, other.nu, other.s, other.z),
            strict=True,
        )
        return Iterate(*(xp.where(mask[:, None], a, b) for a, b in pairs))


@dataclasses.dataclass(frozen=True, eq=False)
class _Residuals:
    dual: Array  # (k, n)
    primal: Array  # (k, p)
    side: Array  # (k, R), zero where there is no side
    mu: Array  # (k,)
    error: Array  # (k,) the largest of residuals and gap, relative to their terms
    infeasible: Array  # bool (k,)
    unbounded: Array  # bool (k,)


def largest(v: Array) -> Array:
    """Return max |v| of each row, zero of none."""
    xp = namespace(v)
    if v.shape[1] == 0:
        return xp.zeros((v.shape[0],), dtype=v.dtype)
    return xp.max(xp.abs(v), axis=1)


def _sum(v: Array) -> Array:
    return namespace(v).sum(v, axis=1)


def _where(mask: Array, v: Array) -> Array:
    return namespace(v).where(mask, v, namespace(v).zeros_like(v))


def relative(a: Array, size: Array) -> Array:
    """Return a / size, where 0 / 0 is 0, a / 0 is 1, and NaN stays."""
    xp = namespace(a)
    zero, one = xp.zeros_like(a), xp.ones_like(a)
    ratio = xp.where(size > 0.0, a / xp.where(size > 0.0, size, one), one + 0.0 * a)
    return xp.where(a == 0.0, zero, ratio)


def _residuals(data: StackedQuadratic, at: Iterate) -> _Residuals:
    xp, present = namespace(at.y), finite(data.limits)
    c = _where(present, data.limits)
    Py, Ay, Jy = apply(data.P, at.y), apply(data.A, at.y), data.sides(at.y)
    pull = data.pull(at.z) + apply_transposed(data.A, at.nu)
    dual, primal = Py + data.q + pull, Ay - data.b
    side = _where(present, Jy + at.s - c)
    count = xp.maximum(_sum(xp.astype(present, at.y.dtype)), xp.ones_like(dual[:, 0]))
    gap = _sum(_where(present, at.s * at.z))
    # Sizes of the terms that cancel.
    forces = xp.maximum(xp.maximum(largest(Py), largest(data.q)), largest(pull))
    lengths = xp.maximum(largest(at.y), largest(_where(present, at.s)))
    lengths = xp.maximum(lengths, largest(data.b))
    quadratic, linear = _sum(at.y * Py), _sum(data.q * at.y)
    proof = -(_sum(data.b * at.nu) + _sum(c * at.z))
    energy = xp.abs(quadratic) + xp.abs(linear) + xp.abs(proof)
    # A gap of an optimal value of zero is compared with forces times lengths.
    energy = xp.maximum(energy, 1e-3 * forces * lengths)
    error = xp.maximum(
        relative(largest(dual), forces),
        relative(xp.maximum(largest(primal), largest(side)), lengths),
    )
    error = xp.maximum(error, relative(gap, energy))
    # Farkas: no y within reach meets the rows.  Unbounded: y is a ray along which f falls.
    terms = _sum(xp.abs(data.b * at.nu)) + _sum(xp.abs(c * at.z))
    infeasible = (proof > _FAR * lengths * _sum(xp.abs(pull))) & (proof > 1e-9 * terms)
    # Of P stored with an error the curvature of a flat direction is that error.
    entries = xp.max(xp.abs(data.P), axis=(1, 2)) if data.n else 0.0 * gap
    rounding = 16.0 * epsilon(at.y) * entries * _sum(xp.abs(at.y)) ** 2
    rising = xp.maximum(largest(Ay), largest(_where(present & (Jy > 0.0), Jy)))
    curved = quadratic - rounding
    unbounded = (-linear > _FAR * curved) & (largest(at.y) > _FAR * rising)
    unbounded = unbounded & (-linear > 1e-9 * _sum(xp.abs(data.q * at.y)))
    return _Residuals(dual, primal, side, gap / count, error, infeasible, unbounded)


def finite(v: Array) -> Array:
    """Return where values are finite."""
    return namespace(v).isfinite(v)


class _Newton:
    """The Newton matrix at an iterate, factorised."""

    def __init__(self, data: StackedQuadratic, at: Iterate) -> None:
        xp = namespace(at.y)
        self.data, self.at = data, at
        self.present = finite(data.limits)
        self.weights = _where(self.present, at.z / at.s)
        rows, bounds = data.split(self.weights, signed=False)
        k, n = at.y.shape
        if rows is None:
            H = xp.zeros((k, n, n), dtype=at.y.dtype)
        else:
            half = xp.sqrt(rows)[:, :, None] * data.G
            H = transposed(half) @ half
        H += data.P
        diagonal = xp.arange(n)
        H[:, diagonal, diagonal] += _DELTA if bounds is None else bounds + _DELTA
        self._factor = StackedRegularFactor(H, data.A, _DELTA)

    def step(self, found: _Residuals, complementary: Array) -> Iterate:
        """Return the step that annuls the residuals and s z = −``complementary`` + ..."""
        at, xp = self.at, namespace(self.at.y)
        n = self.data.n
        inner = _where(self.present, (at.z * found.side - complementary) / at.s)
        rhs = xp.concat([-found.dual - self.data.pull(inner), -found.primal], axis=1)
        found_step = self._factor.solve(rhs)
        dy, dnu = found_step[:, :n], found_step[:, n:]
        ds = _where(self.present, -found.side - self.data.sides(dy))
        dz = _where(self.present, (-complementary - at.z * ds) / at.s)
        return Iterate(dy, dnu, ds, dz)


def _longest(v: Array, dv: Array) -> Array:
    """Return the largest step ≤ 1 that keeps v + α dv >= 0, (k,)."""
    xp = namespace(v)
    if v.shape[1] == 0:
        return xp.ones((v.shape[0],), dtype=v.dtype)
    falls = dv < 0.0
    ratio = xp.where(
        falls, -v / xp.where(falls, dv, -xp.ones_like(dv)), xp.ones_like(v)
    )
    return xp.minimum(xp.min(ratio, axis=1), xp.ones_like(ratio[:, 0]))


def _advance(data: StackedQuadratic, at: Iterate, found: _Residuals) -> Iterate:
    """Return the next iterate by a predictor and a corrector step."""
    newton, xp = _Newton(data, at), namespace(at.y)
    sz = at.s * at.z
    predictor = newton.step(found, sz)
    alpha = xp.minimum(_longest(at.s, predictor.s), _longest(at.z, predictor.z))[
        :, None
    ]
    after = (at.s + alpha * predictor.s) * (at.z + alpha * predictor.z)
    count = xp.maximum(
        _sum(xp.astype(newton.present, at.y.dtype)), xp.ones_like(found.mu)
    )
    mu = _sum(_where(newton.present, after)) / count
    ratio = relative(mu, found.mu)
    sigma = xp.minimum(ratio, xp.ones_like(ratio)) ** 3
    target = (sigma * found.mu)[:, None]
    step = newton.step(found, sz + predictor.s * predictor.z - target)
    alpha = xp.minimum(_longest(at.s, step.s), _longest(at.z, step.z))
    near = xp.maximum(1.0 - found.mu, _TO_THE_BOUNDARY + 0.0 * found.mu)
    alpha = xp.where(
        alpha < 1.0, alpha * xp.minimum(near, 1.0 - 1e-3 + 0.0 * near), alpha
    )
    alpha = alpha[:, None]
    return Iterate(
        at.y + alpha * step.y,
        at.nu + alpha * step.nu,
        at.s + alpha * step.s,
        at.z + alpha * step.z,
    )


def start(data: StackedQuadratic) -> Iterate:
    """Return Mehrotra's first point: min ½ y'Py + q'y + ½ ‖c − J y‖² on A y = b."""
    xp, k, n = namespace(data.q), data.count, data.n
    present = xp.broadcast_to(finite(data.limits), (k, data.limits.shape[1]))
    c = _where(present, xp.broadcast_to(data.limits, present.shape))
    one = xp.ones_like(c)
    q = xp.broadcast_to(data.q, (k, n))
    none = xp.zeros((k, data.shape[1]), dtype=q.dtype)
    origin = Iterate(0.0 * q, none, one, _where(present, one))
    shared = all(M.shape[0] == 1 for M in (data.P, data.A, data.G))
    if shared and k and bool(xp.all(present == present[:1, :])):
        first = slice(0, 1)  # one matrix for all members
        newton = _Newton(data.take(first), origin.take(first))
    else:
        newton = _Newton(data, origin)
    rhs = xp.concat(
        [-q + data.pull(c), xp.broadcast_to(data.b, (k, data.shape[1]))], axis=1
    )
    point = newton._factor.solve(rhs)
    y, nu = point[:, :n], point[:, n:]
    s = _where(present, c - data.sides(y))
    return Iterate(
        y,
        nu,
        xp.where(present, _shifted(s, present), one),
        _where(present, _shifted(-s, present)),
    )


def _shifted(v: Array, present: Array) -> Array:
    """Return v made positive, by the size of its own entries."""
    xp = namespace(v)
    if v.shape[1] == 0:
        return v
    size = largest(v)
    size = xp.where(size > 0.0, size, xp.ones_like(size))
    low = xp.min(xp.where(present, v, size[:, None]), axis=1)
    shift = xp.where(low <= 1e-8 * size, size - low, xp.zeros_like(low))
    return v + shift[:, None]


def interior_point(
    data: StackedQuadratic, tol: float, at: Iterate | None = None, maxiter: int = 60
) -> tuple[Iterate, Array, Array, Array, Array]:
    """Follow the path of every member until its error is at most ``tol``.

    Parameters
    ----------
    data : StackedQuadratic
        In equilibrated units, every member with lower < upper.
    tol : float
        Of residuals and gap, relative to the terms that cancel.

    Returns
    -------
    iterate : Iterate
    error : array (k,)
    infeasible, unbounded : bool arrays (k,)
        Shown by a proof, a combination of rows or a ray.
    niter : int array (k,)
    """
    at = start(data) if at is None else at
    xp, k = namespace(at.y), at.y.shape[0]
    best = at
    error = xp.full((k,), xp.inf, dtype=at.y.dtype)
    infeasible = xp.zeros((k,), dtype=xp.bool)
    unbounded = xp.zeros((k,), dtype=xp.bool)
    niter = xp.zeros((k,), dtype=xp.int64)
    index, stale = xp.arange(k), xp.zeros((k,), dtype=xp.int64)
    part = data
    for iteration in range(maxiter + 1):
        found = _residuals(part, at)
        sound = finite(found.error)
        better = sound & (found.error < error[index])
        stale = xp.where(better, xp.zeros_like(stale), stale + 1)
        infeasible[index] = infeasible[index] | (sound & found.infeasible)
        unbounded[index] = unbounded[index] | (sound & found.unbounded)
        error[index] = xp.where(better, found.error, error[index])
        for whole, new in zip(
            (best.y, best.nu, best.s, best.z), (at.y, at.nu, at.s, at.z), strict=True
        ):
            whole[index, ...] = xp.where(better[:, None], new, whole[index, ...])
        ended = ~sound | (found.error <= tol) | (stale > _STALE)
        ended = ended | infeasible[index] | unbounded[index]
        niter[index] = iteration
        if iteration == maxiter or bool(xp.all(ended)):
            break
        (alive,) = xp.nonzero(~ended)
        if alive.shape[0] < index.shape[0]:
            index, at, part, stale = (
                index[alive],
                at.take(alive),
                part.take(alive),
                stale[alive],
            )
            found = _Residuals(
                *(getattr(found, f.name)[alive] for f in dataclasses.fields(found))
            )
        at = _advance(part, at, found)
    return best, error, infeasible, unbounded, niter
