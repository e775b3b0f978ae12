"""``M="auto"``: the diagonal at once, anything that has to be set up by an online rule.

    set up what costs c iterations    once the solves have taken  patience · c
    set it up anew                    once its degradation has cost  c

The online (ski rental) rule: the price of a setup never exceeds a multiple of what was
spent without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from scipy import sparse

from ...arrays import as_count, as_tolerance, is_array, is_sparse
from ...operators.linear_operator import LinearOperator, aslinearoperator
from ..amg.amg import amg
from ..cholesky import cholesky
from ..nystrom import FIRST_RANK, nystrom
from .cost_model import AMG, AMG_A_DIGIT, factor_cost, laplacian_iterations
from .scaled_diagonals import ScaledDiagonal

Candidate = tuple[str, float, int, Callable[[LinearOperator], LinearOperator]]

_SMALL = 2000  # unknowns up to which n² entries are held
_AT_ONCE = 25.0  # iterations that a factor may cost before any solve: n = 200
_ENTRIES = 2**21  # of a sketch: 16 MB, which a product with it reads four times
_SLOW, _VERY_SLOW = 4.0, 10.0  # iterations a digit below which a setup cannot pay


class Auto:
    """A preconditioner chosen for a sequence of systems: ``M = auto(K)``.

    The first row that applies.  With a split, K = core + diag(r); N: the rank of the core.

    ======================================  ==========================================
    K                                       M
    ======================================  ==========================================
    matrix, n <= 2000                       ``cholesky``: at once up to n = 200 or so,
                                            else by the rule, price ``factor_cost``
    sparse M-matrix, n > 2000, PyAMG there  ``amg``: at once where ``rtol`` and the row
                                            sums promise a solve longer than the setup,
                                            else by the rule, price 250 iterations
    split, n > ``max_rank``, sketch <= 2²¹  ``nystrom``, by the rule, price ``max_rank``,
    entries, > 10 iterations a digit,       at rank 20 first, which must save a quarter
    ``patience`` < 1
    n <= 2000, > 4 iterations a digit       ``cholesky``, by the rule, price n + n²/1000
                                            (n up to ``max_rank``)
    split, n > 8 N, r constant              None; the diagonal is never read
    split, n > 2 N, deviation of log r      r + the mean of the core's diagonal
    below 0.35
    split, n <= 2 N, features correlated,   the same; one product shows it, for rtol up
    log diag(K) deviates by 0.15 to 1.3     to 1e-4
    split                                   κ diag(core) + r, κ <= 1 by N, √κ for rtol
                                            above 1e-3 (``scaled_diagonals``)
    diagonal known, largest entry > 1.2 x   Jacobi
    the smallest
    otherwise                               None
    ======================================  ==========================================

    What the diagonals need of r and the core is computed once for each r.

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

    Notes
    -----
    ``solve``, ``vjp`` and ``derivative`` report each solve to it (``observe``).  A setup
    serves the systems that follow, updated where that takes no products; it is repeated
    once its iterations exceed those of the first solve with it by one half, and the
    excess has cost as much as the setup.  A builder that raised ``ValueError`` is tried
    again when the iterations of all solves have doubled.
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

    def reset(self) -> None:
        """Discard the setup and all records but ``n_matvec``."""
        self.name = "none"
        self.offer: float | None = None
        self._diagonal = ScaledDiagonal()
        self._built: LinearOperator | None = None
        self._trial = True  # the next sketch is the first, small one
        self._retry: dict[str, int] = {}  # the total at which to try a builder again
        self._total = self._spent = 0  # iterations: of all solves, since the last setup
        self._rates = {False: (0.0, 0.0), True: (0.0, 0.0)}  # built: iterations, digits
        self._start_setup(0.0)

    def _start_setup(self, price: float) -> None:
        self._price, self._spent = price, 0
        self._first_rate, self._excess, self._degraded = math.nan, 0.0, False
        self._rates[True] = (0.0, 0.0)

    def __call__(self, K: Any, rtol: float = 1e-8) -> LinearOperator | None:
        """Return M ≈ K⁻¹ or None, see :meth:`choose`."""
        return self.choose(K, rtol)[0]

    def choose(
        self, K: Any, rtol: float = 1e-8, *, now: bool = False
    ) -> tuple[LinearOperator | None, int]:
        """Return M ≈ K⁻¹ or None, and the products that this call took.

        ``rtol``: of the solve that follows.  ``now``: set up what was deferred.
        """
        K, spent = aslinearoperator(K), 0
        if K.shape[0] != K.shape[1]:
            raise ValueError(f"K must be square, found shape {K.shape}")
        self.offer = None
        if K.shape[0] == 0:
            return None, 0
        if self._built is not None and self._built.shape != K.shape:
            self._built = None
        kept = None if self._degraded else self._updated(K)
        if kept is not None:
            return kept, 0
        repeat = self.name if self._built is not None and self._degraded else ""
        for name, price, products, build in self._candidates(K, rtol, now, repeat):
            if self._total < self._retry.get(name, 0):
                continue
            try:
                self._built = build(K)
            except ValueError:
                self._retry[name] = 2 * self._total + 100
                spent += products
                continue
            spent += self._built.n_matvec
            self.name = name
            self.n_matvec += spent
            self._start_setup(price)
            return self._built, spent
        self._built, self._degraded = None, False
        M, products = self._diagonal(K, rtol)
        spent += products
        self.n_matvec += spent
        self.name = self._diagonal.name
        return M, spent

    def observe(self, niter: int, digits: float) -> None:
        """Record a solve with the last M: iterations, and log₁₀ of the reduction."""
        if niter <= 0 or not digits > 0.0:
            return
        self._spent += niter
        self._total += niter
        built = self._built is not None
        before = self._rates[built]  # older solves weigh less
        self._rates[built] = 0.5 * before[0] + niter, 0.5 * before[1] + digits
        if not built:
            return
        rate = niter / digits
        if math.isnan(self._first_rate):
            self._first_rate = rate
        self._excess += max(niter - self._first_rate * digits, 0.0)
        slower = rate > 1.5 * self._first_rate
        self._degraded = slower and self._excess >= self._price
        # Loose solves say little of the rate, which grows with the digits.
        if self.name == "nystrom" and self._trial and self._rates[True][1] > 3.0:
            if self._rate(True) > 0.75 * self._rate(False):
                self._retry["nystrom"] = 2 * self._total + 100
                self._built = None
            elif self._spent >= self.patience * self.max_rank:
                self._trial, self._degraded = False, True

    def _rate(self, built: bool) -> float:
        """Return iterations a digit, 0 before any solve."""
        niter, digits = self._rates[built]
        return niter / digits if digits else 0.0

    def _updated(self, K: LinearOperator) -> LinearOperator | None:
        """Return the present setup for the diagonal that K has now; no products."""
        built = self._built
        if built is not None and K.split is not None and built.update is not None:
            try:
                self._built = built.update(K)
            except ValueError:
                return None
        return self._built

    def _candidates(
        self, K: LinearOperator, rtol: float, now: bool, repeat: str
    ) -> list[Candidate]:
        """Return name, price, products lost where it raises, and builder."""
        n, matrix = K.shape[0], K.matrix
        if is_array(matrix) or is_sparse(matrix):
            return self._of_entries(matrix, rtol, now, repeat)
        rate, budget = self._rate(False), self._spent / self.patience
        found: list[Candidate] = []
        sketch = K.split is not None and self.max_rank < n <= _ENTRIES // FIRST_RANK
        # Each use reads 4 n l entries, often more than a product: for many systems only.
        sketch = sketch and self.patience < 1.0
        paid = rate > _VERY_SLOW and budget >= self.max_rank
        if repeat == "nystrom" or (sketch and paid):
            price = float(FIRST_RANK if self._trial else self.max_rank)
            found.append(("nystrom", price, FIRST_RANK, self._nystrom))
        price = float(n if n <= self.max_rank else n + n * n / 1000)
        paid = rate > _SLOW and self._total >= price and budget >= price
        if n <= _SMALL and (paid or repeat == "cholesky"):
            found.append(("cholesky", price, n, cholesky))
        return found

    def _of_entries(
        self, matrix: Any, rtol: float, now: bool, repeat: str
    ) -> list[Candidate]:
        """Return the candidate for an explicit matrix; one deferred is the ``offer``."""
        if matrix.shape[0] <= _SMALL:
            name, build = "cholesky", cholesky
            price, a_digit = factor_cost(matrix)
            at_once = price <= _AT_ONCE
        else:
            laplacian = sparse.issparse(matrix)
            iterations = laplacian_iterations(matrix) if laplacian else None
            if iterations is None:
                return []
            name, price, a_digit, build = "amg", AMG, AMG_A_DIGIT, amg
            digits = -math.log10(min(max(rtol, 1e-16), 0.1))
            saved = digits * (iterations - AMG_A_DIGIT)  # by a solve with it
            at_once = saved * max(1.0, 1.0 / self.patience) > AMG
        paid = self._spent >= self.patience * price and self._rate(False) > a_digit
        if at_once or paid or now or repeat == name:
            return [(name, price, 0, build)]
        if self._total >= self._retry.get(name, 0):
            self.offer = price
        return []

    def _nystrom(self, K: LinearOperator) -> LinearOperator:
        if self._trial:
            return nystrom(K, rank=FIRST_RANK, least_fall=10.0)
        return nystrom(K, max_rank=min(self.max_rank, _ENTRIES // K.shape[0]))
