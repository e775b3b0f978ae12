"""The recurrence of conjugate gradients, in its one place (Hestenes & Stiefel 1952).

    α = ρ / p'Ap,   x += α p,   r −= α Ap,   β = ρ₊ / ρ,   p = M r + β p,   ρ = r'M r

:func:`cg` adds the verified stop, the truncated Newton method its own, earlier one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..arrays import Array, epsilon, namespace, norm
from ..kernels import Device, Kernels, Make, Scalars, choose
from ..kernels.workspace import Workspace
from ..operators.linear_operator import LinearOperator
from ..status import Status
from .device_loops import DeviceRecurrence
from .error_estimate import Step
from .linear_system import flat_status, operator_norm_estimate
from .requests import PASSES, Asking, Join, Leave, Request, dot, run


class Recurrence:
    """CG from x with residual r, both updated in place.

    Curvature counts as zero when it is below rounding relative to the largest
    Rayleigh quotient met so far, whatever the scale of A.
    """

    period, carried = 1, 3  # x, r and p; the others are written before they are read

    def __init__(
        self,
        A: LinearOperator,
        x: Array,
        r: Array,
        M: LinearOperator | None,
        kernels: Kernels,
        scratch: list[Array],
    ) -> None:
        self.A, self.M, self._make = A, M, kernels
        self._diagonal = kernels.fused(M, r)
        self.own = (x, r, *scratch[: scratch_of(M, r, kernels)])
        self.use(self.own)
        self._unit = max(epsilon(r), A.accuracy or 0.0)
        self._scalars = Scalars()
        self._largest = self._a_norm = 0.0
        self.rho = math.nan
        self._p_square = math.nan  # ‖p‖² in the metric of M⁻¹, by its own recurrence

    def use(self, vectors: tuple[Array, ...]) -> None:
        """Go on with x, r, p, q, and z where M r needs one, in these arrays."""
        self._kernels = self._make if vectors is self.own else PASSES
        self.x, self.r, self.p, self.q, *rest = vectors
        self.z = rest[0] if rest else self.r

    def begin(self, target: float = 0.0, limit: float = math.inf) -> Asking[float]:
        """Set the first direction; return ρ = r'M r.

        Where steps are taken in advance they end at ‖r‖ <= ``target``, or after ``limit``.
        """
        del target, limit  # here none is
        z, rho = self.r, None
        if self.M is not None:
            z, rho = yield Request(self.M, self.r, self.p)
        if rho is None:
            rho = yield from dot(self._kernels, self.r, z)
        if z is not self.p:
            self.p[...] = z
        self.rho = self._p_square = rho
        yield Join(self)
        return rho

    def end(self) -> Asking[None]:
        """Leave x and r where they were given."""
        yield Leave(self)

    def resume(self, target: float) -> None:
        """Go on beyond the end, to ‖r‖ <= ``target``, one step at a time."""
        del target  # here every step is taken when it is asked for

    def step(self) -> Asking[Step]:
        """Take one step, with one product."""
        rho, s = self.rho, self._scalars
        if not 0.0 < rho < math.inf:
            finite = math.isfinite(rho)
            status = Status.INDEFINITE_PRECONDITIONER if finite else Status.NOT_FINITE
            return self._refused(status, products=0)
        q, curvature = yield Request(self.A, self.p, self.q)
        if curvature is None:
            curvature = yield from dot(self._kernels, self.p, q)
        quotient = curvature / self._p_square
        if not math.isfinite(curvature):
            return self._refused(Status.NOT_FINITE)
        self._largest = max(self._largest, abs(quotient))
        if self._a_norm == 0.0:
            self._a_norm = operator_norm_estimate(self.p, q)
        if quotient <= 10.0 * self._unit * self._largest:
            status = Status.NEGATIVE_CURVATURE
            if quotient >= -10.0 * self._unit * self._largest:
                status = flat_status(self.p, q, self._a_norm, self._unit)
            return self._refused(status, self.p)
        s.alpha = rho / curvature
        diagonal = self._diagonal
        asked = self._kernels.cg_residual(self.r, q, s, diagonal)
        if asked is not None:
            yield asked
        z, square = self.r, s.square
        if self.M is None:
            self.rho = square
        elif diagonal is not None:
            self.rho = s.rho
        else:
            z, found = yield Request(self.M, self.r, self.z)
            if found is None:
                found = yield from dot(self._kernels, self.r, z)
            self.rho = found
        s.beta = self.rho / rho
        asked = self._kernels.cg_advance(self.x, self.p, z, s, diagonal)
        if asked is not None:
            yield asked
        self._p_square = self.rho + s.beta * s.beta * self._p_square
        if self.M is None:
            # Rayleigh quotients bound ‖A‖ from below in the plain metric only.
            self._a_norm = max(self._a_norm, self._largest)
        return Step(
            status=None,
            residual_norm=math.sqrt(square) if square > 1e-30 else norm(self.r),
            alpha=s.alpha,
            decrease=s.alpha * rho,
            rho=self.rho,
            least=self.rho * (self.rho / self._p_square) if self.rho > 0.0 else 0.0,
            direction=None,
            a_norm=self._a_norm,
        )

    def _refused(
        self, status: Status, direction: Array | None = None, *, products: int = 1
    ) -> Step:
        if direction is not None:
            direction = namespace(direction).asarray(direction, copy=True)
        size, a_norm = norm(self.r), self._a_norm
        return Step(status, size, 0.0, 0.0, self.rho, 0.0, direction, a_norm, products)


def scratch_of(M: LinearOperator | None, like: Array, kernels: Make) -> int:
    """Return how many vectors a recurrence needs beside x and r: p, A p, and M r."""
    return 2 + (M is not None and kernels.fused(M, like) is None)


def recurrence(
    A: LinearOperator,
    x: Array,
    r: Array,
    M: LinearOperator | None,
    kernels: Make,
    scratch: list[Array],
) -> Recurrence | DeviceRecurrence:
    """Return the recurrence that goes with the kernels."""
    if isinstance(kernels, Device):
        return DeviceRecurrence(A, x, r, M, kernels, scratch)
    return Recurrence(A, x, r, M, kernels, scratch)


def iterates(
    A: LinearOperator,
    x: Array,
    r: Array,
    M: LinearOperator | None = None,
    workspace: Workspace | None = None,
    target: float = 0.0,
) -> Iterator[Step]:
    """Run the recurrence from x with residual r, both updated in place; one product each.

    It ends after a step with a status, or with no residual.
    """
    kernels = choose(None, r)
    pool = Workspace() if workspace is None else workspace
    M = None if M is None else kernels.operator(M)
    with pool.lend(r, scratch_of(M, r, kernels)) as scratch:
        steps = recurrence(kernels.operator(A), x, r, M, kernels, scratch)
        run(steps.begin(target), kernels)
        while True:
            step = run(steps.step(), kernels)
            yield step
            if step.status is not None or step.residual_norm == 0.0:
                return
