"""MINRES for a symmetric A, definite or not (Paige & Saunders 1975).

Lanczos builds A V_k = V_{k+1} T_k in the metric of M, Givens rotations reduce T_k, and

    x_k = argmin ‖b − A x‖_M  over the Krylov space,   φ_k = ‖b − A x_k‖_M.

Storage: 8 n (x and its last verified value, r, two residual vectors, the product, two
directions), + n with M; all but x and r lie in the workspace.  Columns that march in
lanes (``together.py``) have seven, or eight, of them there once more.  Each step moves 12 n
beside the product and M: the Lanczos vectors are never normalised, their lengths are
folded into the coefficients.
"""

from __future__ import annotations

import math
from typing import Any

from ..arrays import Array, norm
from ..kernels import Device, Kernels, Scalars
from ..kernels.workspace import Workspace
from ..status import Status
from .device_loops import LanczosRun, LanczosVectors, lanczos
from .linear_system import System, operator_norm_estimate, solve_columns
from .requests import PASSES, Answer, Asking, Join, Leave, Passes, Request, dot
from .result import Callback, KrylovResult

_RESTARTS = 3


def minres(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    rtol: float = 1e-8,
    atol: float = 0.0,
    maxiter: int | None = None,
    M: Any = None,
    callback: Callback | None = None,
    kernels: str | Device | None = None,
    workspace: Workspace | None = None,
) -> KrylovResult:
    """Solve A x = b for a symmetric A that may be indefinite.

    The arguments, the stopping rule and the result are those of :func:`cg`; M must be
    symmetric positive definite even where A is not.

    Returns
    -------
    KrylovResult
        A singular, inconsistent system ends with status ``LEAST_SQUARES``: x then
        minimises the residual, which is not success.  ``energy_error`` is None.

    Notes
    -----
    The recurrence measures the residual in the metric of M; the 2-norm is recomputed
    before convergence is said (one product), and the iteration restarts from there
    with a tighter target when the two disagree.

    References
    ----------
    C. C. Paige, M. A. Saunders, "Solution of sparse indefinite systems of linear
    equations", SIAM J. Numer. Anal. 12 (1975) 617-629.
    """

    def method(system: System) -> Asking[KrylovResult]:
        with system.workspace.lend(system.b, 6 + (system.M is not None)) as scratch:
            return (yield from _solve(system, scratch))

    return solve_columns(
        method,
        A,
        b,
        x0,
        rtol=rtol,
        atol=atol,
        maxiter=maxiter,
        M=M,
        callback=callback,
        kernels=kernels,
        workspace=workspace,
        moving=lambda M, *_: 6 + (M is not None),
    )


# Where x (of the scratch, x when it was last verified) and the vectors of Lanczos are.
X, OLDER, NEWER, Y, W, W_OLD, V = range(7)


class _Vectors:
    """x and the vectors of one run of Lanczos, wherever they lie."""

    period = 2  # older and newer, w_old and w change places with each step

    def __init__(self, own: tuple[Array, ...], kernels: Kernels) -> None:
        self._make, self.own = kernels, own
        self.carried = len(own)
        self.use(own)

    def use(self, vectors: tuple[Array, ...]) -> None:
        """Go on in these arrays."""
        self.at = vectors
        self.kernels: Kernels | Passes
        self.kernels = self._make if vectors is self.own else PASSES


def _solve(system: System, scratch: list[Array]) -> Asking[KrylovResult]:
    kept, fresh = scratch[X], scratch[Y]
    x, r, true_norm, n_matvec, status = yield from system.start(fresh)
    niter, restarts, a_norm, reduction = 0, 0, 0.0, 1.0
    while status is None and niter < system.maxiter:
        kept[...], before = x, true_norm
        wanted = reduction * system.target / true_norm
        run = yield from _lanczos(system, scratch, x, r, true_norm, wanted, niter)
        niter, a_norm, stop = niter + run.steps, max(a_norm, run.a_norm), run.status
        yield from system.residual(x, fresh, fresh)
        n_matvec += run.products + 1
        true_norm = norm(fresh)
        worse = true_norm > before
        if system.M is not None and (worse or restarts):
            # The M-norm must fall, the 2-norm need not at first.
            old = yield from system.metric_norm(r, scratch[NEWER])
            new = yield from system.metric_norm(fresh, scratch[NEWER])
            worse = new > old or (worse and restarts > _RESTARTS)
        if worse and stop is not Status.NOT_FINITE:
            x[...], true_norm = kept, before
            at_rounding = true_norm <= system.rounding_level(x, a_norm)
            status = Status.ROUNDING_LIMIT if at_rounding else Status.STAGNATED
            break
        r[...] = fresh
        if stop is Status.LEAST_SQUARES and true_norm > system.target:
            solved, products = yield from _solves_least_squares(
                system, scratch, x, r, a_norm, stagnated=False
            )
            n_matvec += products
            if not solved:
                stop = None  # a small eigenvalue, not a zero one: go on from here
        if not math.isfinite(true_norm):
            status = Status.NOT_FINITE
        elif true_norm <= system.target:
            status = Status.CONVERGED
        elif true_norm <= system.rounding_level(x, a_norm) and (
            stop is not None or true_norm > 0.5 * before
        ):
            status = Status.ROUNDING_LIMIT
        elif stop is not None:
            status = stop
        elif niter < system.maxiter:
            restarts += 1
            reduction *= min(1.0, system.target / true_norm)
            if true_norm > 0.9 * before and restarts > _RESTARTS:
                at_rounding = true_norm <= system.rounding_level(x, a_norm)
                status = Status.ROUNDING_LIMIT if at_rounding else Status.STAGNATED
    status = status or Status.ITERATION_LIMIT
    if status is Status.STAGNATED:
        solved, products = yield from _solves_least_squares(
            system, scratch, x, r, a_norm, stagnated=True
        )
        n_matvec += products
        status = Status.LEAST_SQUARES if solved else status
    status, products = yield from system.reconsider(status, x, r, fresh)
    return KrylovResult(
        x=x,
        status=status,
        converged=status is Status.CONVERGED,
        niter=niter,
        n_matvec=n_matvec + products,
        residual_norm=true_norm,
        residual=r,
    )


def _solves_least_squares(
    system: System,
    scratch: list[Array],
    x: Array,
    r: Array,
    a_norm: float,
    *,
    stagnated: bool,
) -> Asking[tuple[bool, int]]:
    """Test ‖A M r‖_M ≪ ‖A‖_M ‖r‖_M, the recurrence only guessed; and products used.

    It must be within what the rounding of x excuses, and by half the digits; of a
    residual that has ``stagnated`` the latter, nearly, is enough.
    """
    unit, products = system.unit_roundoff, 1
    excused = 1e3 * unit * (1.0 + norm(x) * a_norm / norm(r))
    most = unit**0.45 if stagnated else min(excused, math.sqrt(unit))
    pull, size = yield from _pull(system, scratch, r)
    if system.M is not None:  # what is known of ‖A‖ is not in this metric
        of_b, b_norm = yield from _pull(system, scratch, system.b)
        a_norm, products = of_b / b_norm if b_norm else 0.0, 2
    return pull <= most * a_norm * size, products


def _pull(
    system: System, scratch: list[Array], v: Array
) -> Asking[tuple[float, float]]:
    """Return ‖A M v‖ and ‖v‖, in the metric of M where there is one."""
    z, size = v, norm(v)
    if system.M is not None:
        z = (yield Request(system.M, v, scratch[NEWER])).y
        size = math.sqrt(max(system.kernels.dot(v, z), 0.0))
    y = (yield Request(system.A, z, scratch[Y])).y
    return (yield from system.metric_norm(y, scratch[W])), size


def _lanczos(
    system: System,
    scratch: list[Array],
    x: Array,
    r: Array,
    r_norm: float,
    wanted: float,
    niter0: int,
) -> Asking[LanczosRun]:
    """Add to x (in place) until ‖r‖_M fell by ``wanted``; r is not changed."""
    make = system.kernels
    own = (x, *scratch[1:])
    for which in (OLDER, W, W_OLD):
        own[which][...] = 0.0
    own[NEWER][...] = r
    if isinstance(make, Device):
        there = LanczosVectors(*own)
        return (
            yield from lanczos(
                system, there, make, r_norm, wanted, niter0, _inverse_power_of_two
            )
        )
    vectors = _Vectors(own, make)
    run = yield from _steps(system, vectors, r_norm, wanted, niter0)
    yield Leave(vectors)
    return run


def _steps(
    system: System, vectors: _Vectors, r_norm: float, wanted: float, niter0: int
) -> Asking[LanczosRun]:
    """Take steps on the host.

    The vectors of Lanczos are kept with a length: ``newer`` is ``size`` times a vector
    of length one in the metric of M, ``size`` = ``scale`` β.  The scale, a power of two
    near 1/‖A‖, keeps squares in the floating range.
    """
    A, M, unit = system.A, system.M, system.unit_roundoff
    s, at = Scalars(), vectors.at
    older, newer, buffer, w_old, w = OLDER, NEWER, Y, W_OLD, W
    v, square = newer, None
    if M is not None:
        v = V
        square = yield from _own(M, at[newer], at[v])
    if square is None:
        square = yield from dot(vectors.kernels, at[newer], at[v])
    if not 0.0 < square < math.inf:
        return LanczosRun(_bad_square(square), 0, 0, 0.0)
    size = beta = beta_start = phi = math.sqrt(square)
    size_old, scale, a_norm = 1.0, 1.0, 0.0
    beta_old = delta_next = epsilon_next = 0.0
    cosine, sine = -1.0, 0.0
    t_norm = 0.0  # ‖T‖_F, for what counts as zero
    least_root = phi_there = math.inf
    steps = 0
    yield Join(vectors)
    while niter0 + steps < system.maxiter:
        at = vectors.at
        y, square = yield Request(A, at[v], at[buffer])
        at, kernels = vectors.at, vectors.kernels  # who waited may have been moved
        if square is None:
            square = yield from dot(kernels, at[v], y)
        alpha = square / size / size
        if not math.isfinite(alpha):
            return LanczosRun(Status.NOT_FINITE, steps, steps + 1, a_norm)
        if steps == 0:
            a_norm = operator_norm_estimate(at[v], y)
            scale = _inverse_power_of_two(a_norm * (norm(at[v]) / size) ** 2)
        s.of_y = scale / size
        s.of_newer = -(alpha * scale) / size
        s.of_older = -(beta * scale) / size_old if steps else 0.0
        asked = kernels.lanczos(at[older], at[newer], y, s)
        if asked is not None:
            yield asked
        older, newer = newer, older
        square = s.square
        if M is not None:
            quadratic = yield from _own(M, at[newer], at[buffer])
            if quadratic is None:
                quadratic = yield from dot(kernels, at[newer], at[buffer])
            square = quadratic
        size_old, beta_old = size, beta
        if M is None and not square > 1e-30:
            size = norm(at[newer])  # without the square, which may leave the range
        else:
            size = math.sqrt(max(square, 0.0)) if square < math.inf else square
        beta = size / scale
        t_norm = math.hypot(t_norm, alpha, beta_old * (steps > 0), beta)
        if M is None:
            a_norm = max(a_norm, math.hypot(alpha, beta_old * (steps > 0), beta))
        if square < -unit * (t_norm * scale) ** 2 or not math.isfinite(size):
            return LanczosRun(_bad_square(square), steps, steps + 1, a_norm)
        # The previous rotation, then the new one.
        epsilon_now, delta = epsilon_next, cosine * delta_next + sine * alpha
        gamma_bar = sine * delta_next - cosine * alpha
        epsilon_next, delta_next = sine * beta, -cosine * beta
        root = math.hypot(gamma_bar, delta_next)
        gamma = math.hypot(gamma_bar, beta)
        # ‖A r‖ = φ root: zero while φ is not, the least-squares point is reached.
        if root < least_root:
            least_root, phi_there = root, phi
        # Once ‖A r‖ rises again while ‖r‖ stands, x runs off along the null space.
        away = root > 4.0 * least_root and phi > (1.0 - 1e-6) * phi_there
        if away and least_root <= math.sqrt(unit) * t_norm:
            return LanczosRun(Status.LEAST_SQUARES, steps, steps + 1, a_norm)
        if root <= math.sqrt(unit) * t_norm and phi > wanted * beta_start:
            reach = beta_start * (1.0 + t_norm * norm(at[X]) / r_norm)
            if phi * root <= 1e4 * unit * t_norm * reach:
                return LanczosRun(Status.LEAST_SQUARES, steps, steps + 1, a_norm)
        if gamma <= 10.0 * unit * t_norm:
            return LanczosRun(Status.LEAST_SQUARES, steps, steps + 1, a_norm)
        cosine, sine = gamma_bar / gamma, beta / gamma
        s.step, phi = cosine * phi, sine * phi
        # w = (v / size − ε w_old − δ w) / γ, in the buffer of the one before the last.
        s.of_w_old, s.of_w = -epsilon_now / gamma, -delta / gamma
        s.of_v = 1.0 / gamma / size_old
        asked = kernels.minres_advance(at[X], at[w_old], at[w], at[v], s)
        if asked is not None:
            yield asked
        w_old, w = w, w_old
        steps += 1
        if system.wants_stop(niter0 + steps, at[X], phi / beta_start * r_norm):
            return LanczosRun(Status.STOPPED_BY_CALLBACK, steps, steps, a_norm)
        if phi <= max(wanted, 0.1 * unit) * beta_start or beta <= unit * t_norm:
            break
        if M is not None:
            v, buffer = buffer, v
        else:
            v = newer
    return LanczosRun(None, steps, steps, a_norm)


def _own(M: Any, r: Array, out: Array) -> Asking[float | None]:
    """Write M r into ``out`` itself: it must outlive the next product with M."""
    product: Answer = yield Request(M, r, out)
    if product.y is not out:
        out[...] = product.y
    return product.square


def _inverse_power_of_two(size: float) -> float:
    if not 0.0 < size < math.inf:
        return 1.0
    return math.ldexp(1.0, min(max(-math.frexp(size)[1], -1000), 1000))


def _bad_square(square: float) -> Status:
    if math.isfinite(square):
        return Status.INDEFINITE_PRECONDITIONER
    return Status.NOT_FINITE
