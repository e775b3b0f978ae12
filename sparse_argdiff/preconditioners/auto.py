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

import numpy as np
from scipy import sparse

from ..arrays import namespace
from ..linear_operator import LinearOperator, aslinearoperator
from .amg import amg
from .cholesky import cholesky
from .jacobi import jacobi, jacobi_of
from .nystrom import FIRST_RANK, nystrom

Builder = Callable[[LinearOperator], LinearOperator]

_SMALL = 2000  # unknowns that a direct factorisation is meant for


class Auto:
    """A preconditioner chosen for a sequence of systems: ``M = auto(K)``.

    The first of these that applies and does not refuse:

    1. ``cholesky`` of an explicit matrix with up to 2000 unknowns;
    2. ``amg`` of a larger sparse matrix with off-diagonal entries <= 0 that hardly
       dominates by its diagonal (the condition is large then), where PyAMG is installed;
    3. once the solves have spent ``patience`` times its price in products: ``cholesky``
       (price n) where n is no more than ``max_rank``; ``nystrom`` (price ``max_rank``) of
       an operator with a split whose core has eigenvalues that fall more than tenfold over
       the first 20; ``cholesky`` for n up to 2000;
    4. the diagonal where it is known: all of it (``jacobi``), or the split's with the mean
       of the rest.  Each is tried once, on solves that ask for less than a digit; the one
       with fewer iterations a digit stays.

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
    after the build, and the excess has cost as much as building.
    """

    def __init__(self, *, patience: float = 0.4, max_rank: int = 100) -> None:
        self.patience = patience
        self.max_rank = max_rank
        self.name = "none"
        self.n_matvec = 0
        self._built: LinearOperator | None = None
        self._price = 0
        self._spent = 0  # products of solves without a build
        self._wear = 0.0  # iterations beyond those right after the build
        self._fresh = math.nan  # iterations a digit, right after the build
        self._worn = False
        self._refused: set[str] = set()
        self._rates: dict[str, float] = {}  # iterations a digit
        self._loose = True  # whether the last solve asked for less than a digit

    def __call__(self, K: Any) -> LinearOperator | None:
        """Return M ≈ K⁻¹ or None; ``n_matvec`` of M is what this call has cost."""
        K = aslinearoperator(K)
        if K.shape[0] == 0:
            return None
        built = self._built
        if built is not None and built.shape == K.shape and not self._worn:
            refreshed = self._refreshed(K, built)
            if refreshed is not None:
                return refreshed
        lost = 0  # products of builders that refused
        for name, price, build in self._candidates(K):
            try:
                built = build(K)
            except ValueError:
                self._refused.add(name)
                lost += price
                continue
            self._price = built.n_matvec
            built.n_matvec += lost
            self.n_matvec += built.n_matvec
            self.name, self._built = name, built
            self._wear, self._fresh, self._worn = 0.0, math.nan, False
            return built
        self._built = None
        self.n_matvec += lost
        found = self._diagonal(K)
        if lost and found is None:
            found = jacobi(np.ones(K.shape[0]))
        if found is not None:
            found.n_matvec = lost
        return found

    def observe(self, niter: int, digits: float) -> None:
        """Take note of a solve with the last M: iterations, and log₁₀ of the reduction."""
        if niter <= 0 or not digits > 0.0:
            return
        self._loose = digits < 1.0
        rate = niter / max(digits, 0.3)
        if self._built is None:
            self._spent += niter
            self._rates[self.name] = rate
            return
        if math.isnan(self._fresh):
            self._fresh = rate
        self._wear += max(niter - self._fresh * digits, 0.0)
        self._worn = rate > 1.5 * self._fresh and self._wear >= self._price

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
        budget = self._spent / self.patience
        found: list[tuple[str, int, Builder]] = []
        if n <= _SMALL and (isinstance(matrix, np.ndarray) or sparse.issparse(matrix)):
            found.append(("cholesky", 0, cholesky))
        elif sparse.issparse(matrix) and self._built is None and _suits_amg(matrix):
            found.append(("amg", 0, amg))
        if n <= self.max_rank and n <= budget:
            found.append(("cholesky", n, cholesky))
        elif K.split is not None and self.max_rank <= budget:
            found.append(("nystrom", FIRST_RANK, self._nystrom))
        if self.max_rank < n <= min(_SMALL, budget):
            found.append(("cholesky", n, cholesky))
        return [entry for entry in found if entry[0] not in self._refused]

    def _nystrom(self, K: LinearOperator) -> LinearOperator:
        return nystrom(K, max_rank=self.max_rank, least_fall=10.0)

    def _diagonal(self, K: LinearOperator) -> LinearOperator | None:
        """Return the better diagonal, or the one that has not been tried yet."""
        known = {"jacobi": jacobi_of(K)}
        if known["jacobi"] is None:
            self.name = "none"
            return None
        known["shifted"] = _shifted(K)
        untried = [name for name in known if name not in self._rates]
        if untried and (self._loose or len(untried) == len(known)):
            self.name = untried[0]
        else:
            tried = [name for name in known if name in self._rates]
            self.name = min(tried, key=self._rates.__getitem__)
        return known[self.name]


class Choice:
    """What a caller gives as ``M``, as a function of the operator to be solved with.

    Parameters
    ----------
    M : operator, "auto", function or None
        A function takes the operator and returns M ≈ K⁻¹ or None: a builder of
        ``preconditioners``, or an ``Auto`` that a sequence of solves shares.

    Attributes
    ----------
    n_matvec : int
        Products that building took, so far.
    """

    def __init__(self, M: Any) -> None:
        if isinstance(M, str):
            if M != "auto":
                raise ValueError(f"M must be an operator, 'auto' or None, found {M!r}")
            M = Auto(patience=2.0)
        self._function = M if callable(M) else None
        self._fixed = (
            None if M is None or self._function is not None else aslinearoperator(M)
        )
        self.n_matvec = 0

    def __call__(self, K: LinearOperator) -> LinearOperator | None:
        """Return M for K."""
        if self._function is None:
            return self._fixed
        M = self._function(K)
        if M is None:
            return None
        M = aslinearoperator(M)
        if M.shape != K.shape:
            raise ValueError(f"M must have shape {K.shape} like A, found {M.shape}")
        self.n_matvec += M.n_matvec
        return M

    def observe(self, niter: int, reduction: float) -> None:
        """Tell an ``Auto`` how a solve went: ‖residual‖ / ‖right-hand side‖ at its end."""
        if isinstance(self._function, Auto) and 0.0 <= reduction < 1.0:
            self._function.observe(niter, -math.log10(max(reduction, 1e-16)))


def _shifted(K: LinearOperator) -> LinearOperator | None:
    """Return the diagonal of the split, with the mean of the core's for the rest."""
    if K.split is None:
        return None
    core, d = K.split
    if not core.has_diagonal:
        return None
    mean = float(namespace(d).mean(core.diagonal()))
    return jacobi(d + mean) if 0.0 < mean < math.inf else None


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
