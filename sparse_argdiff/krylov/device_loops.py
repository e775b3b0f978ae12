"""CG and MINRES on the device: iterations are launched, the host looks every few of them.

    launch q = A p, α, r, β, x, p      check_every times, then read the record once

An iteration beyond the end of a solve changes nothing (α = 0), so that x is the iterate at
which it ended.  The steps are handed out one by one: what follows is as on the host.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from ..arrays import Array, epsilon, namespace, norm
from ..kernels.device import ENDED, LINE, Device, Record
from ..operators.linear_operator import LinearOperator
from ..status import Status
from .error_estimate import Step
from .linear_system import System, flat_status
from .requests import Asking, Request

_STATUS = {
    "NEGATIVE": Status.NEGATIVE_CURVATURE,
    "SINGULAR": Status.SINGULAR,
    "NOT_FINITE": Status.NOT_FINITE,
    "BAD_METRIC": Status.INDEFINITE_PRECONDITIONER,
    "LEAST_SQUARES": Status.LEAST_SQUARES,
}


class DeviceRecurrence:
    """CG from x with residual r, as :class:`cg.Recurrence`, by the record on the device."""

    def __init__(
        self,
        A: LinearOperator,
        x: Array,
        r: Array,
        M: LinearOperator | None,
        kernels: Device,
        scratch: list[Array],
    ) -> None:
        self.A, self.M, self.x, self.r = A, M, x, r
        self.p, self.q = scratch[0], scratch[1]
        self.z = r if M is None else scratch[2]
        self._kernels = kernels
        self._record = Record(r, kernels.check_every)
        self._unit = max(epsilon(r), A.accuracy or 0.0)
        self._ready: deque[Step] = deque()
        self._steps = 0
        self._a_norm = 0.0
        self._limit = math.inf
        self._batch = kernels.check_every

    def begin(self, target: float = 0.0, limit: float = math.inf) -> Asking[float]:
        """Set the first direction; return ρ = r'M r.

        The device stops by itself where ‖r‖ ≤ ``target``, or after ``limit`` steps.
        """
        if self.M is not None:
            self.z = (yield Request(self.M, self.r, self.z)).y
        rho = self._kernels.dot(self.r, self.z)
        self.p[...] = self.z
        self._limit = limit
        self._record.write(
            ACTIVE=1.0, TARGET=target, ROUNDOFF=self._unit, RHO=rho, P_SQUARE=rho
        )
        return rho

    def end(self) -> Asking[None]:
        """Do nothing: x and r are where they were given."""
        yield from ()

    def resume(self, target: float) -> None:
        """Go on beyond the end, to ‖r‖ <= ``target``, one step at a time."""
        slots, _ = self._record.read()
        self._record.write(**{**slots, "ACTIVE": 1.0, "STATUS": 0.0, "TARGET": target})
        self._batch, self._limit = 1, math.inf

    def step(self) -> Asking[Step]:
        """Return the next step; launch the next iterations when there is none."""
        if not self._ready:
            yield from self._iterate()
        return self._ready.popleft()

    def _iterate(self) -> Asking[None]:
        record, first = self._record, self._steps == 0
        count = max(1, int(min(float(self._batch), self._limit - self._steps)))
        for _ in range(count):
            q = (yield Request(self.A, self.p, self.q)).y
            if first:
                size = norm(self.p)
                self._a_norm = norm(q) / size if size > 0.0 else 0.0
                first = False
            record.cg_curvature(self.p, q)
            record.cg_residual(self.r, q, self.M is not None)
            if self.M is not None:
                self.z = (yield Request(self.M, self.r, self.z)).y
                record.cg_metric(self.r, self.z)
            record.cg_advance(self.x, self.p, self.z)
        slots, lines = record.read()
        taken = int(slots["NITER"]) - self._steps
        if self.M is None:
            self._a_norm = max(self._a_norm, slots["LARGEST"])
        for i in range(self._steps, self._steps + taken):
            line = lines[i % record.length]
            rho, square = line[LINE["H_RHO"]], line[LINE["H_P_SQUARE"]]
            self._ready.append(
                Step(
                    status=None,
                    residual_norm=float(line[LINE["H_RESIDUAL"]]),
                    alpha=float(line[LINE["H_ALPHA"]]),
                    decrease=float(line[LINE["H_DECREASE"]]),
                    rho=float(rho),
                    least=float(rho * (rho / square)) if rho > 0.0 else 0.0,
                    direction=None,
                    a_norm=self._a_norm,
                )
            )
        self._steps += taken
        if self._ready:  # what was launched beyond the end was paid for
            extra = count - len(self._ready)
            self._ready[-1] = self._ready[-1]._replace(products=1 + extra)
        status = _STATUS.get(ENDED[int(slots["STATUS"])])
        if status is None:
            return
        direction = None
        if status in {Status.NEGATIVE_CURVATURE, Status.SINGULAR}:
            direction = namespace(self.p).asarray(self.p, copy=True)
            if status is Status.SINGULAR:  # q is still A p
                status = flat_status(self.p, q, self._a_norm, self._unit)
        size, rho = norm(self.r), slots["RHO"]
        left = count if not taken else 0
        self._ready.append(
            Step(status, size, 0.0, 0.0, rho, 0.0, direction, self._a_norm, left)
        )


class LanczosRun(NamedTuple):
    """How a run of MINRES ended."""

    status: Status | None  # None: reduced as wanted, or out of iterations
    steps: int
    products: int
    a_norm: float  # lower estimate of ‖A‖


class LanczosVectors(NamedTuple):
    """What a run of MINRES works on; ``x`` is updated, the others are scratch."""

    x: Array
    older: Array
    newer: Array  # r on entry
    buffer: Array
    w: Array
    w_old: Array
    of_M: Array | None = None


def lanczos(
    system: System,
    vectors: LanczosVectors,
    kernels: Device,
    r_norm: float,
    wanted: float,
    niter0: int,
    scale_of: Callable[[float], float],
) -> Asking[LanczosRun]:
    """Add to x until ‖r‖_M fell by ``wanted``, as :func:`minres._lanczos` does.

    The least-squares point is looked for at each look of the host, ‖x‖ being known then.
    """
    A, M, unit = system.A, system.M, system.unit_roundoff
    x, older, newer, buffer, w, w_old, of_M = vectors
    v = newer
    if M is not None:
        v = yield from _own(M, newer, of_M)
    square = kernels.dot(newer, v)
    if not 0.0 < square < math.inf:
        finite = math.isfinite(square)
        status = Status.INDEFINITE_PRECONDITIONER if finite else Status.NOT_FINITE
        return LanczosRun(status, 0, 0, 0.0)
    start = math.sqrt(square)
    record = Record(x, kernels.check_every)
    steps = products = 0
    a_norm = 0.0
    while True:
        for _ in range(min(record.length, system.maxiter - niter0 - steps)):
            y = (yield Request(A, v, buffer)).y
            if products == 0:
                size = norm(v)
                a_norm = norm(y) / size
                record.write(
                    ACTIVE=1.0,
                    TARGET=max(wanted, 0.1 * unit) * start,
                    ROUNDOFF=unit,
                    SIZE=start,
                    SIZE_OLD=1.0,
                    SCALE=scale_of(a_norm * (size / start) ** 2),
                    PHI=start,
                    COSINE=-1.0,
                    A_NORM=a_norm,
                )
            products += 1
            record.minres_alpha(v, y)
            record.lanczos(older, newer, y, M is not None)
            older, newer = newer, older
            z = newer
            if M is not None:
                z = yield from _own(M, newer, buffer)
                record.minres_metric(newer, z)
            record.minres_advance(x, w_old, w, v)
            w_old, w = w, w_old
            v, buffer = (z, v) if M is not None else (newer, buffer)
        slots, _ = record.read()
        steps, ended = int(slots["NITER"]), _STATUS.get(ENDED[int(slots["STATUS"])])
        a_norm, phi, t_norm = slots["A_NORM"], slots["PHI"], slots["T_NORM"]
        if ended is not None:
            return LanczosRun(ended, steps, products, a_norm)
        # ‖A r‖ = φ root: zero while φ is not, the least-squares point is reached.
        if slots["ROOT"] <= math.sqrt(unit) * t_norm and phi > wanted * start:
            reach = start * (1.0 + t_norm * norm(x) / r_norm)
            if phi * slots["ROOT"] <= 1e4 * unit * t_norm * reach:
                return LanczosRun(Status.LEAST_SQUARES, steps, products, a_norm)
        if system.wants_stop(niter0 + steps, x, phi / start * r_norm):
            return LanczosRun(Status.STOPPED_BY_CALLBACK, steps, products, a_norm)
        if slots["ACTIVE"] == 0.0 or niter0 + steps >= system.maxiter:
            return LanczosRun(None, steps, products, a_norm)


def _own(M: LinearOperator, r: Array, out: Array | None) -> Asking[Array]:
    """Return M r in ``out`` itself: it must outlive the next product with M."""
    assert out is not None
    z = (yield Request(M, r, out)).y
    if z is not out:
        out[...] = z
    return out
