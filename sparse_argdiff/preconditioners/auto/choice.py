"""The argument ``M`` of a solver: an operator, a function of K, "auto" or None.

    M, n_matvec = choice(K, rtol)             before a solve with K
    choice.record(niter, reduction)           after it

``preconditioned_solve`` is both, about one solve; CG may set up M late:

    first     2 c  iterations, where a setup that costs c iterations is deferred
    then      the setup, if the rest at the pace so far takes more than  c

The solve then takes at most a constant times the better of the two: never to set up, or
to set up at once (the online rule of :class:`Auto`, within one solve).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from ...arrays import Array, as_count, norm
from ...krylov import KrylovResult, cg
from ...operators.diagonal_blocks import block_diagonal, side_by_side
from ...operators.linear_operator import LinearOperator, aslinearoperator
from ...status import Status
from .auto import Auto


class Choice:
    """The preconditioner that the argument ``M`` gives for each operator K.

    Parameters
    ----------
    M : operator, "auto", function or None
        A function takes the operator and returns M ≈ K⁻¹ or None: a builder of
        ``preconditioners``, or an ``Auto`` that a sequence of solves shares.
    """

    def __init__(self, M: Any) -> None:
        if isinstance(M, str):
            if M != "auto":
                raise ValueError(f"M must be an operator, 'auto' or None, found {M!r}")
            M = Auto(patience=2.0)
        # SciPy's operators can be called too, and have a shape.
        builds = callable(M) and not hasattr(M, "shape")
        self.auto = M if isinstance(M, Auto) else None
        self._build: Any = M if builds else None
        self._fixed = None if M is None or builds else aslinearoperator(M)

    def __repr__(self) -> str:
        return f"Choice({self._build or self._fixed!r})"

    def __call__(
        self, K: LinearOperator, rtol: float = 1e-8
    ) -> tuple[LinearOperator | None, int]:
        """Return M for K and the products that its setup took.

        ``rtol``: of the solve that follows; an ``Auto`` decides by it what pays.
        """
        if K.blocks is not None:
            return self._of_blocks(K, rtol)
        if self.auto is not None:
            return self.auto.choose(K, rtol)
        if self._build is None:
            return self._fixed, 0
        built = self._build(K)
        if built is None:
            return None, 0
        M = aslinearoperator(built)
        if M.shape != K.shape:
            raise ValueError(f"M must have shape {K.shape} like A, found {M.shape}")
        return M, M.n_matvec

    def now(self, K: LinearOperator) -> tuple[LinearOperator | None, int]:
        """Return M for K with what ``Auto`` deferred set up."""
        assert self.auto is not None
        if K.blocks is None:
            return self.auto.choose(K, now=True)
        _, products = self.auto.choose(K.blocks.block(0), now=True)
        M, more = self._of_blocks(K, 1e-8)
        return M, products + more

    def _of_blocks(
        self, K: LinearOperator, rtol: float
    ) -> tuple[LinearOperator | None, int]:
        """Return M of diagonal blocks: one for each, of which a setup serves all."""
        blocks, fixed = K.blocks, self._fixed
        if fixed is not None and fixed.shape == K.shape:
            return fixed, 0
        chosen: list[LinearOperator | None] = [fixed] * blocks.count
        products = 0
        if fixed is None:
            for k in range(blocks.count):
                chosen[k], spent = self(blocks.block(k), rtol)
                products += spent
        if all(M is None for M in chosen):
            return None, products
        columns = side_by_side(chosen, blocks.size)
        return block_diagonal(columns, blocks.count, blocks.size), products

    def record(self, niter: int, reduction: float) -> None:
        """Pass the iterations and ‖residual‖ / ‖right-hand side‖ of a solve to ``Auto``."""
        if self.auto is not None and 0.0 <= reduction < 1.0:
            self.auto.observe(niter, -math.log10(max(reduction, 1e-16)))


def preconditioned_solve(
    solver: Callable[..., KrylovResult],
    choice: Choice | None,
    K: LinearOperator,
    b: Array,
    x0: Array | None,
    *,
    fallback: LinearOperator | None = None,
    **options: Any,
) -> tuple[KrylovResult, int]:
    """Solve K x = b by ``solver`` with the M of ``choice``; None: without passing M.

    ``fallback`` takes the place of an M that the choice leaves out.

    Returns
    -------
    result : KrylovResult
    n_matvec : int
        Products that setting up M took, beside those of the result.
    """
    if choice is None:
        return _checked(solver(K, b, x0, **options)), 0
    wanted, maxiter = options.get("rtol", 1e-8), options.get("maxiter")
    chosen, n_setup = choice(K, wanted)
    options["M"] = fallback if chosen is None else chosen
    auto, first = choice.auto, math.inf
    parts = 1 if K.blocks is None else K.blocks.count
    price = None if auto is None else auto.offer
    most = max(10 * K.shape[0], 20) if maxiter is None else as_count("maxiter", maxiter)
    if solver is cg and price is not None and b.ndim == 1:
        first = math.ceil(2.0 * price)
    if auto is None or price is None or not most > first:
        return _recorded(choice, b, solver(K, b, x0, **options), parts), n_setup
    found = _recorded(choice, b, cg(K, b, x0, **(options | {"maxiter": first})), parts)
    if found.status not in {Status.ITERATION_LIMIT, Status.STAGNATED}:
        return found, n_setup
    attained = relative_residual(b, found)
    pace = max(-math.log10(attained), 0.0) / found.niter if attained > 0.0 else 0.0
    left = math.log10(attained / wanted) if wanted > 0.0 else math.inf
    if found.status is Status.STAGNATED or not left <= pace * price:
        chosen, n_late = choice.now(K)
        options["M"] = fallback if chosen is None else chosen
        n_setup += n_late
    last = cg(K, b, found.x, **(options | {"maxiter": most - found.niter}))
    last = dataclasses.replace(
        _recorded(choice, b, last, parts),
        niter=found.niter + last.niter,
        n_matvec=found.n_matvec + last.n_matvec,
    )
    return last, n_setup


def _recorded(choice: Choice, b: Array, found: Any, parts: int) -> KrylovResult:
    result = _checked(found)
    columns = (b.shape[1] if b.ndim == 2 else 1) * parts
    choice.record(result.n_matvec // max(columns, 1), relative_residual(b, result))
    return result


def _checked(result: Any) -> KrylovResult:
    if not isinstance(result, KrylovResult):
        raise TypeError(
            f"method must return a KrylovResult, found {type(result).__name__}"
        )
    return result


def relative_residual(rhs: Array, result: KrylovResult) -> float:
    """Return ‖residual‖ / ‖right-hand side‖, the largest over the columns."""
    if rhs.ndim == 1:
        size = norm(rhs)
        return float(result.residual_norm) / size if size else 0.0
    sizes = [norm(rhs[:, j]) for j in range(rhs.shape[1])]
    found = [float(result.residual_norm[j]) / s for j, s in enumerate(sizes) if s]
    return math.nan if any(map(math.isnan, found)) else max(found, default=0.0)
