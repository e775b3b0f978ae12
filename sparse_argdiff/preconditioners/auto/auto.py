"""``M="auto"``: which preconditioner, decided by what the solves so far have cost.

    build one that costs c products     once the solves have spent  patience · c
    build it anew                       once its wear has cost      c

Both are the rule of who rents skis: whatever comes, the price of building never exceeds a
multiple of what was spent without it.  ``Auto`` is the state, explicit and the caller's:
an instance handed to a sequence of solves keeps its factor, sketch or hierarchy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from scipy import sparse

from ...arrays import as_count, as_tolerance, full, is_array, is_sparse
from ...operators.linear_operator import LinearOperator, aslinearoperator
from ..amg.amg import amg
from ..cholesky import cholesky
from ..jacobi import jacobi
from ..nystrom import FIRST_RANK, example, nystrom
from .cost_model import (
    AMG,
    CYCLES,
    amg_pays,
    factor_pays,
    factor_price,
    laplacian_condition,
)
from .scaled_diagonals import Diagonals, diagonals, independent_share

Builder = Callable[[LinearOperator], LinearOperator]

_SMALL = 2000  # unknowns that a direct factorisation is meant for
_DENSE = 1000.0  # unknowns whose factor costs like as many products again
_AT_ONCE = 25.0  # iterations that a factor may cost before any was taken: n = 200
_ENTRIES = 2**21  # of a sketch; more of them take longer than most sparse products
_LARGE = _ENTRIES // FIRST_RANK
_SLOW = 4.0  # iterations a digit; below, nothing that costs products pays
_VERY_SLOW = 10.0  # the same for a sketch, whose own product costs like several with K


class Auto:
    """A preconditioner chosen for a sequence of systems: ``M = auto(K)``.

    The first of these that applies and does not refuse:

    1. ``cholesky`` of an explicit matrix with up to 2000 unknowns: at once up to some 200,
       else once the solves have taken ``patience`` times as long as it (``prices``);
    2. ``amg`` of a larger sparse matrix like a Laplacian, where PyAMG is installed: at once
       where the condition, estimated from the row sums, promises that one solve (that
       1 / ``patience`` solves) to ``rtol`` takes longer without, else as a factor;
    3. where a digit takes more than four iterations, and once the solves have spent
       ``patience`` times the price in products: ``cholesky`` (price n) where n is no more
       than ``max_rank``; where a digit takes more than ten, ``nystrom`` (price
       ``max_rank``) of an operator with a split, in even units, with eigenvalues that
       fall more than tenfold over the first 20; ``cholesky`` for n up to 2000 at its full
       price, n + n²/1000.  A sketch of 20 columns comes first and must save a quarter of the
       iterations; the whole one, of at most 2²¹ entries, follows by the same rule;
    4. the diagonal where it is known: the whole, or of a split what the samples can
       determine of it, or a constant beside the ridge (``diagonals``; one product where
       correlation decides).  With ``patience`` below 1 the second is tried too, where the
       first is slow or the last solve asked for less than a digit; the faster one stays.

    Parameters
    ----------
    patience : float
        Small where many systems are to come, large where few are.
    max_rank : int
        Of ``nystrom``.

    Attributes
    ----------
    name : str
        Of the present choice.
    n_matvec : int
        Products spent on building so far.
    offer : float or None
        Iterations for which a factor or hierarchy could be had that the last call did not
        build: a solve that drags on may ask for it, ``auto(K, now=True)``.

    Notes
    -----
    ``solve``, ``vjp`` and ``derivative`` tell it how each solve went (``observe``).  What
    was built is kept for other systems, refreshed where that costs no products, and built
    anew when it has worn: when its iterations exceed one and a half times those right
    after the build, and the excess has cost as much as building.  A builder that refused is
    asked again when the products of all solves have doubled.
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
        self.offer: float | None = None
        self.reset()

    def reset(self) -> None:
        """Forget what was built and learnt; ``n_matvec`` goes on."""
        self.name = "none"
        self._built: LinearOperator | None = None
        self._price = 0.0  # of what was built, in iterations without it
        self._spent = 0  # products of solves without a build, or since the trial sketch
        self._wear = 0.0  # iterations beyond those right after the build
        self._fresh = math.nan  # iterations a digit, right after the build
        self._worn = False
        self._trial = True  # the next sketch is the first, small one
        self._total = 0  # products of all solves
        self._retry: dict[str, int] = {}  # the total at which to ask a builder again
        self._tally: dict[str, tuple[float, float]] = {}  # iterations, digits
        self._loose = True  # whether the last solve asked for less than a digit
        self._independent: float | None = (
            None  # share of the coordinates, once measured
        )

    def __call__(
        self, K: Any, rtol: float = 1e-2, *, now: bool = False
    ) -> LinearOperator | None:
        """Return M ≈ K⁻¹ or None; ``n_matvec`` of M is what this call has cost.

        ``rtol``: of the solve to come; it decides whether a hierarchy pays at once.
        ``now``: what was offered, whether the solves have paid for it or not.
        """
        K = aslinearoperator(K)
        if K.shape[0] != K.shape[1]:
            raise ValueError(f"K must be square, found shape {K.shape}")
        self.offer = None
        if K.shape[0] == 0:
            return None
        built = self._built
        if built is not None and built.shape != K.shape:
            built, self._built, self._worn = None, None, False
        if built is not None and not self._worn:
            refreshed = self._refreshed(K, built)
            if refreshed is not None:
                return refreshed
        lost, measured = 0, self._independent is not None  # products beside a build
        known = diagonals(K, lambda: self._independence(K))
        lost += self._independent is not None and not measured
        for name, price, products, build in self._candidates(K, known, rtol, now):
            try:
                built = build(K)
            except ValueError:
                self._refuse(name)
                lost += products
                continue
            self._price = built.n_matvec if price is None else price
            built = built.with_setup(n_matvec=built.n_matvec + lost)
            self.n_matvec += built.n_matvec
            self.name, self._built = name, built
            self._wear, self._fresh, self._worn, self._spent = 0.0, math.nan, False, 0
            self._tally.pop(name, None)
            return built
        self._built = None
        self.n_matvec += lost
        found = self._diagonal(known)
        if lost and found is None:
            found = jacobi(full((K.shape[0],), 1.0, example(K)))
        if found is not None:
            found = found.with_setup(n_matvec=lost)
        return found

    def observe(self, niter: int, digits: float) -> None:
        """Take note of a solve with the last M: iterations, and log₁₀ of the reduction."""
        if niter <= 0 or not digits > 0.0:
            return
        self._loose = digits < 1.0
        self._spent += niter
        self._total += niter
        before = self._tally.get(self.name, (0.0, 0.0))  # the older, the less it weighs
        self._tally[self.name] = (0.5 * before[0] + niter, 0.5 * before[1] + digits)
        if self._built is None:
            return
        rate = niter / digits
        if math.isnan(self._fresh):
            self._fresh = rate
        self._wear += max(niter - self._fresh * digits, 0.0)
        self._worn = rate > 1.5 * self._fresh and self._wear >= self._price
        if self.name == "nystrom" and self._trial and self._known("nystrom"):
            # Loose solves tell too little: iterations a digit grow with the digits.
            known = [name for name in self._tally if self._known(name)]
            others = [self._rate(name) for name in known if name != "nystrom"]
            if self._rate("nystrom") > 0.75 * min(others, default=math.inf):
                self._refuse(self.name)
                self._built = None
            elif self._spent >= self.patience * self.max_rank:
                self._trial, self._worn = False, True

    def _refuse(self, name: str) -> None:
        self._retry[name] = 2 * self._total + 100

    def _known(self, name: str) -> bool:
        """Whether solves of some accuracy were seen."""
        return self._tally[name][1] > 3.0

    def _rate(self, name: str) -> float:
        """Return iterations a digit."""
        niter, digits = self._tally[name]
        return niter / digits

    def _refreshed(
        self, K: LinearOperator, built: LinearOperator
    ) -> LinearOperator | None:
        """Return what was built, for the diagonal that K has now; no products."""
        if K.split is not None and built.update is not None:
            try:
                built = built.update(K)
            except ValueError:
                return None
        self._built = built.with_setup(n_matvec=0) if built.n_matvec else built
        return self._built

    def _candidates(
        self, K: LinearOperator, known: Diagonals, rtol: float, now: bool
    ) -> list[tuple[str, float | None, int, Builder]]:
        """Return name, price, products lost where it refuses, and builder, the best first.

        The price is in iterations; None: the products that it takes.
        """
        n, matrix = K.shape[0], K.matrix
        found: list[tuple[str, float | None, int, Builder]] = []
        worn = self.name if self._worn else ""  # it has paid for its successor
        if is_array(matrix) or is_sparse(matrix):
            found = self._of_entries(matrix, rtol, worn, now)
        else:
            budget = self._spent / self.patience if self._slow() else 0.0
            paid = n <= budget
            if n > self.max_rank:  # its arithmetic counts too
                paid = n + n * n / _DENSE <= min(budget, self._spent)
            if K.split is not None and n > self.max_rank:
                # A constant for what the sketch misses does not repair units.
                wanted = self.max_rank <= budget and self._slow(_VERY_SLOW)
                tried = self.patience >= 1.0 or set(known) <= set(self._tally)
                even = wanted and n <= _LARGE and tried and set(known) != {"jacobi"}
                if even or worn == "nystrom":
                    found.append(("nystrom", None, FIRST_RANK, self._nystrom))
            if n <= _SMALL and (paid or worn == "cholesky"):
                found.append(("cholesky", None, n, cholesky))
        return [entry for entry in found if self._total >= self._retry.get(entry[0], 0)]

    def _of_entries(
        self, matrix: Any, rtol: float, worn: str, now: bool
    ) -> list[tuple[str, float | None, int, Builder]]:
        """Return the candidates for an explicit matrix; what waits is the ``offer``."""
        if matrix.shape[0] <= _SMALL:
            name, price, build = "cholesky", factor_price(matrix), cholesky
            pays, at_once = factor_pays(matrix), price <= _AT_ONCE
        else:
            laplacian = sparse.issparse(matrix)
            condition = laplacian_condition(matrix) if laplacian else None
            if condition is None:
                return []
            name, price, build, pays = "amg", AMG, amg, CYCLES
            digits = -math.log10(min(max(rtol, 1e-16), 0.1))
            at_once = amg_pays(condition, digits, max(1.0, 1.0 / self.patience))
        paid = self._spent >= self.patience * price and self._slow(pays)
        if at_once or paid or now or worn == name:
            return [(name, price, 0, build)]
        if self._total >= self._retry.get(name, 0):
            self.offer = price
        return []

    def _independence(self, K: LinearOperator) -> float:
        """Return what :func:`independent_share` found, measured once."""
        if self._independent is None:
            core, ridge = K.split or (K, example(K))
            self._independent = independent_share(core, ridge)
        return self._independent

    def _slow(self, limit: float = _SLOW) -> bool:
        """Whether the best so far takes more iterations a digit than that."""
        return min((self._rate(name) for name in self._tally), default=0.0) > limit

    def _nystrom(self, K: LinearOperator) -> LinearOperator:
        if self._trial:
            return nystrom(K, rank=FIRST_RANK, least_fall=10.0)
        return nystrom(K, max_rank=min(self.max_rank, _ENTRIES // K.shape[0]))

    def _diagonal(self, known: Diagonals) -> LinearOperator | None:
        """Return the better diagonal, or the one that has not been tried yet."""
        if not known:
            self.name = "none"
            return None
        untried = [name for name in known if name not in self._tally]
        first = next(iter(known))
        if first in untried:
            self.name = first
        elif untried and self.patience < 1.0 and (self._loose or self._slow()):
            self.name = untried[0]
        else:
            tried = [name for name in known if name in self._tally]
            self.name = min(tried, key=self._rate)
        return known[self.name]
