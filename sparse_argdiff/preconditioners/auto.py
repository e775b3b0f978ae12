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

from ..arrays import Array, namespace
from ..linear_operator import LinearOperator, aslinearoperator
from .amg import amg
from .cholesky import cholesky
from .jacobi import jacobi, jacobi_of
from .nystrom import FIRST_RANK, nystrom

Builder = Callable[[LinearOperator], LinearOperator]

_SMALL = 2000  # unknowns that a direct factorisation is meant for
_LOOSE = 1.0  # digits; a solve that asked for fewer is cheap enough to experiment with


class Auto:
    """A preconditioner chosen for a sequence of systems: ``M = auto(K)``.

    In this order:

    1. an explicit matrix of up to 2000 unknowns: ``cholesky``, at once;
    2. a larger sparse matrix, symmetric with off-diagonal entries <= 0 and next to no
       diagonal dominance, and PyAMG installed: ``amg``, at once;
    3. once the solves have spent ``patience`` times its price: ``cholesky`` where n is no
       more than ``max_rank`` columns, ``nystrom`` of a split operator whose eigenvalues
       fall at least tenfold over the first 20, ``cholesky`` for n up to 2000;
    4. until then the diagonal, where it is known: all of it (``jacobi``), or that of the
       penalty with a constant for the rest.  Both are tried on solves that ask for less
       than a digit, and the faster one stays.

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
        Products spent on building, in total.

    Notes
    -----
    ``observe`` tells it how a solve went; ``solve``, ``vjp`` and ``derivative`` do.  A
    builder that refuses (no positive curvature) is not asked again, and the solver
    finds and says what is wrong.
    """

    def __init__(self, *, patience: float = 0.4, max_rank: int = 100) -> None:
        self.patience = patience
        self.max_rank = max_rank
        self.name = ""
        self.n_matvec = 0
        self._built: LinearOperator | None = None
        self._price = 0
        self._spent = 0.0  # products of solves with the diagonal alone
        self._wear = 0.0  # iterations beyond those right after the build
        self._fresh = math.nan  # iterations a digit, right after the build
        self._worn = False
        self._refused: set[str] = set()
        self._rates: dict[str, float] = {}  # iterations a digit
        self._loose = False

    def __call__(self, K: Any) -> LinearOperator | None:
        """Return M ≈ K⁻¹, or None; its ``n_matvec`` is what this call has cost."""
        K = aslinearoperator(K)
        if K.shape[0] == 0:
            return None
        return self._strong(K) or self._diagonal(K)

    def observe(self, niter: int, digits: float) -> None:
        """Take note of a solve with the last M: iterations, and log₁₀ of the reduction."""
        if not (niter > 0 and digits > 0.0):
            return
        self._loose = digits < _LOOSE
        rate = niter / max(digits, 0.3)
        if self._built is None:
            self._spent += niter
            self._rates[self.name] = rate
            return
        if math.isnan(self._fresh):
            self._fresh = rate
        self._wear += max(niter - self._fresh * digits, 0.0)
        self._worn = rate > 1.5 * self._fresh and self._wear >= self._price

    # what needs building --------------------------------------------------------------

    def _strong(self, K: LinearOperator) -> LinearOperator | None:
        if self._built is not None and self._built.shape == K.shape and not self._worn:
            return self._updated(K)
        for name, build in self._candidates(K):
            if name in self._refused:
                continue
            try:
                built = build(K)
            except ValueError:
                self._refused.add(name)
                continue
            return self._take(name, built)
        self._built = None
        return None

    def _updated(self, K: LinearOperator) -> LinearOperator | None:
        """Return what was built, refreshed where that costs no products."""
        assert self._built is not None
        if K.split is not None and self._built.update is not None:
            try:
                self._built = self._built.update(K)
            except ValueError:
                self._built = None
        return self._built

    def _candidates(self, K: LinearOperator) -> list[tuple[str, Builder]]:
        n, found = K.shape[0], []
        host = sparse.issparse(K.matrix) or isinstance(K.matrix, np.ndarray)
        if host and n <= _SMALL:
            found.append(("cholesky", cholesky))
        elif sparse.issparse(K.matrix) and _suits_amg(K.matrix):
            found.append(("amg", amg))
        return found

    def _take(self, name: str, built: LinearOperator) -> LinearOperator:
        self.name, self._built, self._price = name, built, built.n_matvec
        self.n_matvec += built.n_matvec
        self._wear, self._fresh, self._worn = 0.0, math.nan, False
        return built
