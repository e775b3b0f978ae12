"""Preconditioners and starts for a sequence of systems: the argument ``M`` of a solver.

    M, n_matvec = choice(K, rtol)             before a solve with K
    choice.record(niter, reduction)           after it

M is an operator, a function of K, "auto" or None.  "auto" takes the diagonal at once, and
anything that has to be set up by an online rule:

    set up what costs c iterations    once the solves have taken  patience · c
    set it up anew                    once its degradation has cost  c

The online (ski rental) rule: the price of a setup never exceeds a multiple of what was
spent without it.  ``preconditioned_solve`` applies it within one solve by CG:

    first     2 c  iterations, where a setup that costs c iterations is deferred
    then      the setup, if the rest at the pace so far takes more than  c

The solve then takes at most a constant times the better of the two: never to set up, or
to set up at once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from scipy import sparse

from ..arrays import (
    Array,
    as_count,
    as_tolerance,
    is_array,
    is_sparse,
    namespace,
    norm,
)
from ..krylov import KrylovResult, cg
from ..operators.diagonal_blocks import block_diagonal, side_by_side
from ..operators.linear_operator import LinearOperator, aslinearoperator
from ..operators.structure import Forming
from ..status import Status
from .amg.amg import amg
from .amg.price import AMG, AMG_A_DIGIT, laplacian_iterations
from .cholesky import cholesky
from .damped_diagonal import is_an_eigenvalue, is_level, level_outputs, share_of
from .jacobi import jacobi_of, jacobi_where_definite
from .nystrom import FIRST_RANK, nystrom

_SMALL = 2000  # unknowns up to which n² entries are held, 32 MB
_ENTRIES = 2**21  # of a sketch, 16 MB
_VERY_SLOW = 10.0  # for a sketch, each use of which costs like several products
_LONG = 10  # iterations per column of a start from which a block of products pays
_SLOW = 4.0  # iterations a digit, ½ √κ ln 10, of the condition number κ = 12


class Setup(NamedTuple):
    """A preconditioner that has to be set up; costs in iterations of CG without it."""

    name: str
    price: float
    n_matvec: int  # products lost where ``build`` raises ValueError
    expected: float  # iterations a digit without it, before any solve
    a_digit: float  # of solves with it
    build: Callable[[LinearOperator], LinearOperator]


@dataclasses.dataclass(frozen=True, eq=False)
class Learned:
    """The state of an :class:`Auto`: its records, and what its setup is built of.

    Attributes
    ----------
    records : dict
        Numbers, names and arrays.
    setup : record or None
        None without a setup, and for one that cannot be stored, an AMG hierarchy.
    """

    records: dict[str, Any]
    setup: Any = None


class Auto:
    """A preconditioner chosen for a sequence of systems: ``M = auto(K)``.

    The first row that applies.  With a split, K = core + diag(r); N: the rank of the core.

    ======================================  ==========================================
    K                                       M
    ======================================  ==========================================
    matrix, n <= 2000                       ``cholesky``, price ``factor_price``
    entries formed cheaply, n <= 2000       ``cholesky``, ``formed_factor_price``
    sparse M-matrix, n > 2000, PyAMG there  ``amg``, price 160 iterations
    split, ``max_rank`` < n <= 10⁵, and     ``nystrom``, price ``max_rank``
    ``patience`` < 1
    n <= 2000                               ``cholesky``, price n + ``factor_price``
    split, n > N, max r <= 2 min r          None: r is the eigenvalue of n − N vectors
    split, N known                          (κ diag(core) + r)⁻¹, κ <= 1 by N (``data_share``)
    diagonal known, not level               Jacobi
    otherwise                               None
    ======================================  ==========================================

    The first five wait until the solves have taken ``patience`` times the price, at more
    than four iterations a digit (``nystrom``: ten; a factor by n products: its price in
    full).  A matrix, and one whose entries are formed (``Structure.forming``), has them at
    once where one solve to ``rtol``, or 1 / ``patience``
    solves where that is more, is expected to take longer than the price: at four iterations a
    digit, or as the row sums of an M-matrix promise.  κ = 1 for n <= N/2.  Level: the
    largest entry is at most 1.2 times the smallest, which would change the iterations by
    1.1.  ``benchmarks/auto_report.py`` compares the choices and times the prices.

    Parameters
    ----------
    patience : float
        Of the online rule: below 1 where many systems are to come, above where few are.
    max_rank : int
        Of ``nystrom``.

    Attributes
    ----------
    name : str
        Of the present choice.
    n_matvec : int
        Products spent on setups so far.
    offer : float or None
        Price in iterations of a factor or hierarchy of K that the last call deferred; a
        long solve may ask for it, ``choose(K, now=True)``.
    state : Learned
        All that the next choice depends on, to be saved and set again; without the
        hierarchy of "amg", which is set up anew.

    Notes
    -----
    ``solve``, ``vjp`` and ``derivative`` report each solve to it (``observe``).  A setup
    serves the systems that follow, updated where that takes no products; it is repeated
    once its iterations exceed those of the first solve with it by one half, and the
    excess has cost as much as the setup.  One that saves less than a tenth of the
    iterations is discarded.  The first sketch has rank 20.  A builder that raised
    ``ValueError``, or was discarded, is tried again when the iterations of all solves have
    doubled.
    """

    def __init__(self, *, patience: float = 0.4, max_rank: int = 100) -> None:
        self.patience = as_tolerance("patience", patience)
        self.max_rank = as_count("max_rank", max_rank)
        if self.patience == 0.0 or self.max_rank == 0:
            raise ValueError(
                "patience and max_rank must be positive, found "
                f"{patience!r} and {max_rank!r}"
            )
        self.n_matvec = 0
        self.reset()

    def __repr__(self) -> str:
        return f"Auto(patience={self.patience}, max_rank={self.max_rank}): {self.name}"

    def reset(self) -> None:
        """Discard the setup and all records but ``n_matvec``."""
        self.offer: float | None = None
        self._ridge: Array | None = None  # of the share, and the tolerance
        self._rtol = math.nan
        self._share = 1.0
        self._retry: dict[str, int] = {}  # the total at which to try a builder again
        self._total = self._spent = 0  # iterations: of all solves, since the last setup
        self._rank = FIRST_RANK  # of the next sketch
        self._plain = (0.0, 0.0)  # iterations and digits without a setup
        self._keep(None, "none", 0.0)

    def _keep(self, built: LinearOperator | None, name: str, price: float) -> None:
        self._built, self.name, self._price = built, name, price
        self._first_rate, self._excess, self._degraded = math.nan, 0.0, False
        self._with = (0.0, 0.0)  # iterations and digits with this setup

    @property
    def state(self) -> Learned:
        """All that the next choice depends on."""
        setup = None if self._built is None else self._built.setup
        own = {"_built", "patience", "max_rank"}
        records = {k: v for k, v in vars(self).items() if k not in own}
        return Learned(records | {"_retry": self._retry.copy()}, setup)

    @state.setter
    def state(self, state: Learned) -> None:
        self.reset()
        vars(self).update(state.records, _retry=state.records["_retry"].copy())
        if state.setup is not None:
            self._built = state.setup.built()
        elif self.name not in {"none", "jacobi"}:
            self._keep(None, "none", 0.0)

    def __call__(self, K: Any, rtol: float = 1e-8) -> LinearOperator | None:
        """Return M ≈ K⁻¹ or None, see :meth:`choose`."""
        return self.choose(K, rtol)[0]

    def choose(
        self, K: Any, rtol: float = 1e-8, *, now: bool = False
    ) -> tuple[LinearOperator | None, int]:
        """Return M ≈ K⁻¹ or None, and the products that this call took.

        ``rtol``: of the solve that follows.  ``now``: set up what was deferred.
        """
        K, n_matvec = aslinearoperator(K), 0
        if K.shape[0] != K.shape[1]:
            raise ValueError(f"K must be square, found shape {K.shape}")
        self.offer = None
        if K.shape[0] == 0:
            return None, 0
        if self._built is not None and self._built.shape != K.shape:
            self._keep(None, "none", 0.0)
        if self._built is not None and not self._degraded and self._update(K):
            return self._built, 0
        for setup in self._setups(K):
            if self._total < self._retry.get(setup.name, 0):
                continue
            again = self._degraded and setup.name == self.name
            if not (now or again or self._pays(setup, rtol)):
                self.offer = None if K.matrix is None else setup.price
                continue
            try:
                built = setup.build(K)
            except ValueError:
                self._try_later(setup.name)
                n_matvec += setup.n_matvec
                continue
            n_matvec += built.n_matvec
            self.n_matvec += n_matvec
            self._spent = 0
            self._keep(built, setup.name, built.n_matvec or setup.price)
            return built, n_matvec
        self.n_matvec += n_matvec
        M = self._diagonal(K, rtol)
        self._keep(None, "none" if M is None else "jacobi", 0.0)
        return M, n_matvec

    def observe(self, niter: int, digits: float) -> None:
        """Record a solve with the last M: iterations, and log₁₀ of the reduction."""
        if niter <= 0 or not digits > 0.0:
            return
        self._spent += niter
        self._total += niter
        if self._built is None:
            self._plain = _halved(self._plain, niter, digits)
            return
        self._with = _halved(self._with, niter, digits)
        rate = niter / digits
        if math.isnan(self._first_rate):
            self._first_rate = rate
        self._excess += max(niter - self._first_rate * digits, 0.0)
        slower = rate > 1.5 * self._first_rate
        self._degraded = slower and self._excess >= self._price
        # Loose solves say little of the rate, which grows with the digits.
        if self._with[1] > 3.0 and _rate(self._with) > 0.9 * _rate(self._plain) > 0.0:
            self._try_later(self.name)
            self._keep(None, "none", 0.0)
        elif self.name == "nystrom" and self._with[1] > 3.0 and self._may_grow():
            self._rank, self._degraded = self.max_rank, True

    def _may_grow(self) -> bool:
        """Tell whether the first sketch is in use, and has served as the rule asks."""
        paid = self._spent >= self.patience * self.max_rank
        return self._rank < self.max_rank and paid

    def _try_later(self, name: str) -> None:
        self._retry[name] = 2 * self._total + 100

    def _update(self, K: LinearOperator) -> bool:
        """Take over the diagonal that K has now, without products; False where it fails."""
        built = self._built
        if built is not None and K.split is not None and built.update is not None:
            try:
                self._built = built.update(K)
            except ValueError:
                return False
        return True

    def _pays(self, setup: Setup, rtol: float) -> bool:
        """Apply the online rule, or expect one solve to take longer than the setup."""
        digits = -math.log10(min(max(rtol, 1e-16), 0.1)) * max(1.0, 1.0 / self.patience)
        if digits * (setup.expected - setup.a_digit) > setup.price:
            return True
        slow = _rate(self._plain) > max(_SLOW, setup.a_digit)
        # A factor of n products may save nothing: the price in full, once.
        first = self.patience if setup.n_matvec < setup.price / 2 else 1.0
        return slow and self._spent >= max(self.patience, first) * setup.price

    def _setups(self, K: LinearOperator) -> list[Setup]:
        n, matrix = K.shape[0], K.matrix
        if is_array(matrix) or is_sparse(matrix):
            if n <= _SMALL:
                entries = getattr(matrix, "nnz", n * n)
                price = factor_price(n, entries)
                return [Setup("cholesky", price, 0, _SLOW, 0.0, cholesky)]
            found = laplacian_iterations(matrix) if sparse.issparse(matrix) else None
            return (
                [] if found is None else [Setup("amg", AMG, 0, found, AMG_A_DIGIT, amg)]
            )
        forming = None if K.split is None else K.split[0].structure.forming
        if forming is not None and n <= _SMALL:
            price = formed_factor_price(n, forming)
            lost = math.ceil(forming.price)
            return [Setup("cholesky", price, lost, _SLOW, 0.0, cholesky)]
        setups: list[Setup] = []
        if not (self._degraded or _rate(self._plain) > _SLOW):
            return setups
        # Each use reads 4 n l entries, often more than a product: for many systems only.
        wide = self.max_rank < n <= _ENTRIES // FIRST_RANK and self.patience < 1.0
        if K.split is not None and wide:
            setups.append(
                Setup(
                    "nystrom", self.max_rank, FIRST_RANK, 0.0, _VERY_SLOW, self._nystrom
                )
            )
        if n <= _SMALL:
            price = n + factor_price(n, n * n)
            setups.append(Setup("cholesky", price, n, 0.0, 0.0, cholesky))
        return setups

    def _nystrom(self, K: LinearOperator) -> LinearOperator:
        most = min(self._rank, self.max_rank, _ENTRIES // K.shape[0])
        return nystrom(K, max_rank=most, least_fall=10.0)

    def _diagonal(self, K: LinearOperator, rtol: float) -> LinearOperator | None:
        """Return the diagonal preconditioner; what it needs of r once for each r."""
        rank = None if K.split is None else K.split[0].rank
        if K.split is None or rank is None or not K.split[0].has_diagonal:
            M = jacobi_of(K) if K.has_diagonal else None
            return None if M is None or is_level(M.diagonal()) else M
        (core, ridge), last = K.split, self._ridge
        known = last is not None and last.shape == ridge.shape and rtol == self._rtol
        if not known or bool(namespace(ridge).any(last != ridge)):
            self._ridge, self._rtol, self._share = ridge, rtol, math.nan
            if is_an_eigenvalue(ridge, rank):
                self._share = 0.0
        if self._share == 0.0:
            return None
        data = level_outputs(core.diagonal(), core.structure.outputs)
        if math.isnan(self._share):
            self._share = share_of(data, ridge, rank, rtol)
        return jacobi_where_definite(self._share * data + ridge)


def _halved(
    sums: tuple[float, float], niter: int, digits: float
) -> tuple[float, float]:
    """Add a solve to the sums; older solves weigh less."""
    return 0.5 * sums[0] + niter, 0.5 * sums[1] + digits


def _rate(sums: tuple[float, float]) -> float:
    """Return iterations a digit, 0 before any solve."""
    return sums[0] / sums[1] if sums[1] else 0.0


# the argument M -----------------------------------------------------------------------


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


class RecentSolutions:
    """The last solutions of a sequence of linear systems, the newest first.

    Parameters
    ----------
    size : int
        How many are kept.
    columns : sequence of arrays (n,)
        Solutions to begin with.
    niter : int
        Iterations that the first of them took.

    Notes
    -----
    ``start()`` is a value of ``adjoint0`` of :func:`sparse_argdiff.vjp`.  Three old
    adjoints save about a third of the iterations that remain with the last one alone, for
    three products: where a solve takes few iterations the last one alone is returned.
    """

    def __init__(
        self, size: int = 3, columns: Sequence[Array] = (), niter: int = 0
    ) -> None:
        self.size = as_count("size", size)
        self.columns: list[Array] = list(columns)
        self.niter = niter

    def __repr__(self) -> str:
        return f"RecentSolutions(size={self.size}): {len(self.columns)} kept"

    def keep(self, solution: Array, niter: int) -> None:
        """Add a solution (n,) and the number of iterations it took."""
        if self.columns and self.columns[0].shape != solution.shape:
            self.columns = []
        self.columns = [solution, *self.columns][: self.size]
        self.niter = niter

    def refine(self, solution: Array) -> None:
        """Replace the last solution by a more accurate one."""
        self.columns = [solution, *self.columns[1:]]

    def start(self) -> Array | None:
        """Return None, the last solution (n,), or the last few as columns (n, k)."""
        k = len(self.columns)
        if k < 2 or self.niter < _LONG * k:
            return self.columns[0] if k else None
        return namespace(*self.columns).stack(self.columns, axis=1)


# prices -------------------------------------------------------------------------------
#
# Setup and use of a factor or an AMG hierarchy, in units of one CG iteration with A, which
# reads nnz entries and has a cost of its own, that of 5·10⁴ entries.  The figures were
# timed, on one thread: ``benchmarks/auto_report.py --prices`` prints them beside new
# measurements, which differed by a factor of up to 2.5.

_OVERHEAD = 5e4


def factor_price(n: int, entries: float) -> float:
    """Return the price of a Cholesky factor of order n.

    n³/3 multiplications, ten in the time of one entry from memory, and 100 passes over
    n² entries for the copy, the scaling and the checks.
    """
    return (n**3 / 30.0 + 100.0 * n**2) / (entries + _OVERHEAD)


def formed_factor_price(n: int, forming: Forming) -> float:
    """Return the price of a factor whose entries are formed over sparse rows.

    A nonzero of such a product is read and added to at places apart: 2.5 ns, where one of
    consecutive entries takes 0.5 ns.
    """
    return forming.price + factor_price(n, 5.0 * forming.nonzeros)
