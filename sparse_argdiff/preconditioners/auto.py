"""``M="auto"``: which preconditioner, decided by what the solves so far have cost.

    build one that costs c products     once the solves have spent  patience · c
    build it anew                       once its wear has cost      c

Both are the rule of who rents skis: whatever comes, the price of building never exceeds a
multiple of what was spent without it.  ``Auto`` is the state, explicit and the caller's:
an instance handed to a sequence of solves keeps its factor, sketch or hierarchy.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from typing import Any

from scipy import sparse

from ..arrays import Array, full, is_array, is_sparse, namespace
from ..linear_operator import LinearOperator, aslinearoperator
from .amg import amg
from .cholesky import cholesky
from .jacobi import jacobi, jacobi_of, jacobi_where_definite
from .nystrom import FIRST_RANK, example, nystrom

Builder = Callable[[LinearOperator], LinearOperator]

_SMALL = 2000  # unknowns that a direct factorisation is meant for
_ENTRIES = 2**21  # of a sketch; more of them take longer than most sparse products
_LARGE = _ENTRIES // FIRST_RANK
_SLOW = 4.0  # iterations a digit; below, nothing that costs products pays
_VERY_SLOW = 10.0  # the same for a sketch, whose own product costs like several with K
_MULTIPLE = 10.0  # of the ridge; above, the data's diagonal speaks for its spectrum
_EVEN = 10.0  # largest over smallest entry of a ridge that counts as constant


class Auto:
    """A preconditioner chosen for a sequence of systems: ``M = auto(K)``.

    The first of these that applies and does not refuse:

    1. ``cholesky`` of an explicit matrix with up to 2000 unknowns;
    2. ``amg`` of a larger sparse matrix with off-diagonal entries <= 0 that hardly
       dominates by its diagonal (the condition is large then), where PyAMG is installed;
    3. where a digit takes more than four iterations, and once the solves have spent
       ``patience`` times the price in products: ``cholesky`` (price n) where n is no more
       than ``max_rank``; where a digit takes more than ten, ``nystrom`` (price
       ``max_rank``) of an operator with a split, in even units, with eigenvalues that
       fall more than tenfold over the first 20; ``cholesky`` for n up to 2000 at its full
       price.  A sketch of 20 columns comes first and must save a quarter of the
       iterations; the whole one, of at most 2²¹ entries, follows by the same rule;
    4. the diagonal where it is known: the whole, or the split's with something of the
       rest, or none, in the order of ``_diagonals``.  With ``patience`` below 1 the second
       is tried too, where the first is slow or the last solve asked for less than a digit;
       the faster one stays.

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

    Notes
    -----
    ``solve``, ``vjp`` and ``derivative`` tell it how each solve went (``observe``).  What
    was built is kept for other systems, refreshed where that costs no products, and built
    anew when it has worn: when its iterations exceed one and a half times those right
    after the build, and the excess has cost as much as building.  A builder that refused is
    asked again when the products of all solves have doubled.
    """

    def __init__(self, *, patience: float = 0.4, max_rank: int = 100) -> None:
        self.patience = patience
        self.max_rank = max_rank
        self.n_matvec = 0
        self.reset()

    def reset(self) -> None:
        """Forget what was built and learnt; ``n_matvec`` goes on."""
        self.name = "none"
        self._built: LinearOperator | None = None
        self._price = 0
        self._spent = 0  # products of solves without a build, or since the trial sketch
        self._wear = 0.0  # iterations beyond those right after the build
        self._fresh = math.nan  # iterations a digit, right after the build
        self._worn = False
        self._trial = True  # the next sketch is the first, small one
        self._total = 0  # products of all solves
        self._retry: dict[str, int] = {}  # the total at which to ask a builder again
        self._tally: dict[str, tuple[float, float]] = {}  # iterations, digits
        self._loose = True  # whether the last solve asked for less than a digit

    def __call__(self, K: Any) -> LinearOperator | None:
        """Return M ≈ K⁻¹ or None; ``n_matvec`` of M is what this call has cost."""
        K = aslinearoperator(K)
        if K.shape[0] == 0:
            return None
        built = self._built
        if built is not None and built.shape != K.shape:
            built, self._built, self._worn = None, None, False
        if built is not None and not self._worn:
            refreshed = self._refreshed(K, built)
            if refreshed is not None:
                return refreshed
        lost = 0  # products of builders that refused
        for name, price, build in self._candidates(K):
            try:
                built = build(K)
            except ValueError:
                self._refuse(name)
                lost += price
                continue
            self._price = built.n_matvec
            built.n_matvec += lost
            self.n_matvec += built.n_matvec
            self.name, self._built = name, built
            self._wear, self._fresh, self._worn, self._spent = 0.0, math.nan, False, 0
            self._tally.pop(name, None)
            return built
        self._built = None
        self.n_matvec += lost
        found = self._diagonal(K)
        if lost and found is None:
            found = jacobi(full((K.shape[0],), 1.0, example(K)))
        if found is not None:
            found.n_matvec = lost
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
        self._built = built
        built.n_matvec = 0
        return built

    def _candidates(self, K: LinearOperator) -> list[tuple[str, int, Builder]]:
        """Return name, products lost where it refuses, and builder, the best first."""
        n, matrix = K.shape[0], K.matrix
        found: list[tuple[str, int, Builder]] = []
        if n <= _SMALL and (is_array(matrix) or is_sparse(matrix)):
            found.append(("cholesky", 0, cholesky))
        elif sparse.issparse(matrix) and self._built is None and _suits_amg(matrix):
            found.append(("amg", 0, amg))
        budget = self._spent / self.patience if self._slow() else 0.0
        worn = self.name if self._worn else ""  # it has paid for its successor
        if n <= self.max_rank:
            if n <= budget or worn == "cholesky":
                found.append(("cholesky", n, cholesky))
        else:
            # A constant for what the sketch misses does not repair units.
            wanted = self.max_rank <= budget and self._slow(_VERY_SLOW) and n <= _LARGE
            diagonals = set(_diagonals(K)) if wanted else set()
            tried = self.patience >= 1.0 or diagonals <= set(self._tally)
            even = wanted and tried and diagonals != {"jacobi"}
            if K.split is not None and (even or worn == "nystrom"):
                found.append(("nystrom", FIRST_RANK, self._nystrom))
            if n <= _SMALL and (n <= min(budget, self._spent) or worn == "cholesky"):
                found.append(("cholesky", n, cholesky))
        return [entry for entry in found if self._total >= self._retry.get(entry[0], 0)]

    def _slow(self, limit: float = _SLOW) -> bool:
        """Whether the best so far takes more iterations a digit than that."""
        return min((self._rate(name) for name in self._tally), default=0.0) > limit

    def _nystrom(self, K: LinearOperator) -> LinearOperator:
        if self._trial:
            return nystrom(K, rank=FIRST_RANK, least_fall=10.0)
        return nystrom(K, max_rank=min(self.max_rank, _ENTRIES // K.shape[0]))

    def _diagonal(self, K: LinearOperator) -> LinearOperator | None:
        """Return the better diagonal, or the one that has not been tried yet."""
        known = _diagonals(K)
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


def _diagonals(K: LinearOperator) -> dict[str, LinearOperator | None]:
    """Return the candidates that need no products; the first is what one solve gets.

    K is the data's part plus the ridge, a diagonal.  The whole diagonal repairs units that
    differ by orders of magnitude, and it is right where the data determines most
    coordinates.  With fewer samples than coordinates it does harm: of rank N, the data
    leaves n − N eigenvalues at the ridge (Weyl), whatever its diagonal says, and dividing
    by that diagonal spreads them over as many decades as it spans itself.  Its sign, for N
    is not known here: a typical entry of the data's diagonal below ten times that of the
    ridge (geometric means).  Then the ridge alone gathers the bulk, and a constant added to
    an even ridge does no harm.  To an uneven one the geometric mean of the two parts is
    added: half the repair, half the spread.
    """
    if K.split is None or not K.split[0].has_diagonal:
        whole = jacobi_of(K)
        return {} if whole is None else {"jacobi": whole, "none": None}
    core, ridge = K.split
    data, xp = core.diagonal(), namespace(ridge)
    whole = jacobi_where_definite(data + ridge)
    if whole is None:
        return {}
    mean = float(xp.mean(data))
    if not 0.0 < mean < math.inf or not float(xp.min(ridge)) >= 0.0:
        return {"jacobi": whole}
    typical = _typical(data)
    if typical > _MULTIPLE * _typical(ridge):
        if mean > 100.0 * typical:
            return {"jacobi": whole}  # units that differ this much: not worth a trial
        return {"jacobi": whole, "shifted": jacobi(ridge + mean)}
    least, most = _span(ridge)
    if most <= _EVEN * least:
        return {"shifted": jacobi(ridge + mean), "jacobi": whole}
    root = xp.sqrt(xp.where(data > 0.0, data, xp.zeros_like(data)))
    between = xp.where(ridge > 0.0, ridge + xp.sqrt(ridge) * root, data)
    return {"between": jacobi(between), "jacobi": whole}


def _typical(diagonal: Array) -> float:
    """Return the geometric mean of the positive entries, 0 where there are none."""
    positive = diagonal[diagonal > 0.0]
    if positive.shape[0] == 0:
        return 0.0
    xp = namespace(diagonal)
    return math.exp(float(xp.mean(xp.log(positive))))


def _span(diagonal: Array) -> tuple[float, float]:
    """Return the least and the largest of the positive entries, of which there are some."""
    xp, positive = namespace(diagonal), diagonal[diagonal > 0.0]
    return float(xp.min(positive)), float(xp.max(positive))


def _suits_amg(matrix: Any) -> bool:
    """Tell whether PyAMG is there, and the matrix is like a Laplacian: O(nnz)."""
    if importlib.util.find_spec("pyamg") is None:
        return False
    diagonal = matrix.diagonal()
    if not (diagonal > 0.0).all():
        return False
    rows = abs(matrix).sum(axis=1) - diagonal  # of the off-diagonal sizes
    signed = diagonal - matrix.sum(axis=1)  # the same where none is positive
    if not (signed >= 0.99 * rows).all():
        return False
    # Gershgorin: D⁻¹A has its spectrum within 1 ± this; below 0.9 the condition is < 20.
    return float((rows / diagonal).max()) > 0.9
