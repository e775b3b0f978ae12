"""Columns of the features of a working set: blocks of the Hessian of the loss.

    G = F_S' W F_S,    W = diag(w_i ℓ''(z_i)), of several outputs Σ_i w_i x_ia x_ib C_i,kl

Where the curvature does not depend on y, as that of the squared loss, G is kept and grows
with the working set.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from ..arrays import HostArray
from ..kernels.coordinate_descent import compiled_gram, is_worth_compiling
from .loss import Curvature
from .losses import Squared
from .mean_loss import DataTerm

_KEPT = 4000  # columns of which products are kept
_FEW = 4  # chosen columns with less than that part of the entries are copied
_DENSE = 50.0  # entries of a dense product in the time of one of a sparse product


class Columns:
    """Blocks of f_YY of a data term with explicit features on the host."""

    def __init__(self, data: DataTerm, shift: float = 0.0) -> None:
        self.data, self.shift = data, shift
        self.design = data.design
        self._kept: _KeptGram | None = None
        self._last: Any = None
        self._work = 0.0

    @property
    def known(self) -> bool:
        """Whether the entries of the features are there, on the host."""
        features = self.design.features
        return isinstance(features, np.ndarray) or sparse.issparse(features)

    def block(self, y: Any, index: Any) -> HostArray:
        """Return f_YY on an index of y, (k, k)."""
        data = self.data
        if self.design.outputs > 1:
            return self._of_outputs(data.at(data.predictor(y)).curvature, index)
        if isinstance(data.loss, Squared):
            if self._kept is None:
                self._kept = _KeptGram(self)
            return self._kept.block(index)
        curvature = data.at(data.predictor(y)).curvature
        return self._weighted(index, np.asarray(curvature.diagonal))

    def _weighted(self, index: HostArray, d: HostArray) -> HostArray:
        """Return F_S' diag(d) F_S; the columns of the last index are kept."""
        if sparse.issparse(self.design.features) and is_worth_compiling(self._work):
            return self._by_rows(index, d)
        last = self._last
        if last is None or not np.array_equal(last[0], index):
            F = self.take(index)
            work = 0.0
            if sparse.issparse(F):
                F = F.tocsr()
                row = np.diff(F.indptr).astype(float)
                work = float(row @ row)
            self._last = last = (index, F, work)
        _, F, work = last
        if not sparse.issparse(F):
            return self.product(F, d, F)
        self._work += work
        if F.shape[0] * F.shape[1] ** 2 < _DENSE * work:
            F = F.toarray()
        return self.product(F, d, F)

    def _by_rows(self, index: HostArray, d: HostArray) -> HostArray:
        """Return the same by one pass over the rows, of the chosen columns if they are few."""
        features, k, p = self.design.features, index.shape[0], self.design.n_features
        chosen = index[index < p]
        few = False
        if features.format == "csc":
            few = _FEW * np.diff(features.indptr)[chosen].sum() < features.nnz
        if few:
            if self._last is None or not np.array_equal(self._last[0], index):
                taken = sparse.csr_array(features[:, chosen])
                taken.sum_duplicates()
                self._last = index, taken
            place, F = np.full(chosen.shape[0] + 1, -1), self._last[1]
            place[: chosen.shape[0]] = np.flatnonzero(index < p)
            place[-1] = np.flatnonzero(index == p)[0] if chosen.shape[0] < k else -1
        else:
            place, F = np.full(p + 1, -1), self.design.by_rows
            place[index] = np.arange(k)  # the intercept is the last
        return np.asarray(compiled_gram()(F.indptr, F.indices, F.data, d, place, k))

    def take(self, index: HostArray) -> Any:
        """Return the columns of the design, that of the intercept included.

        In double precision: products rounded to single have negative eigenvalues, along
        which a model falls without end.
        """
        p = self.design.n_features
        features = index[index < p]
        if sparse.issparse(self.design.features):
            found = self.design.by_columns[:, features]
        else:
            found = self.design.features[:, features]
        found = found.astype(np.float64, copy=False)
        if features.shape[0] == index.shape[0]:
            return found
        ones = np.ones((found.shape[0], 1), found.dtype)
        if sparse.issparse(found):
            return sparse.hstack([found, sparse.csc_array(ones)], format="csc")
        return np.hstack([found, ones])

    @staticmethod
    def product(left: Any, d: HostArray, right: Any) -> HostArray:
        """Return left' diag(d) right, dense."""
        if sparse.issparse(left):
            scaled = sparse.csr_array(left.T.multiply(d[None, :]))
            return np.asarray((scaled @ right).toarray())
        return np.asarray((left * d[:, None]).T @ right)

    def _of_outputs(self, curvature: Curvature, index: HostArray) -> HostArray:
        """Return the block of several outputs, whose curvature is w (diag p − p p')."""
        K, count = self.design.outputs, self.design.n_coefficients
        assert curvature.soft_max is not None
        p, w = (np.asarray(v) for v in curvature.soft_max)
        of_features = index < count
        column = np.where(of_features, index // K, self.design.n_features)
        output = np.where(of_features, index % K, index - count)
        G = np.zeros((index.shape[0], index.shape[0]))
        for k in range(K):
            (a,) = np.nonzero(output == k)
            left = self.take(column[a])
            for j in range(k, K):
                (b,) = np.nonzero(output == j)
                d = w * (p[:, k] * ((k == j) - p[:, j]))
                part = self.product(left, d, self.take(column[b]))
                G[np.ix_(a, b)] = part
                G[np.ix_(b, a)] = part.T
        (rest,) = np.nonzero(~of_features)
        G[np.ix_(rest, rest)] += self.shift
        return G


class _KeptGram:
    """F' diag(w) F of the columns that were asked for so far."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self.place = np.full(columns.design.n, -1)
        self.members = np.zeros(0, np.int64)
        self.gram = np.zeros((0, 0))

    def block(self, index: HostArray) -> HostArray:
        """Return the block, after the products that are new."""
        new = index[self.place[index] < 0]
        if new.shape[0]:
            if self.members.shape[0] + new.shape[0] > _KEPT:
                self.place[:] = -1
                self.members, new = np.zeros(0, np.int64), index
                self.gram = np.zeros((0, 0))
            self._extend(np.sort(new))
        places = self.place[index]
        if places.shape[0] == self.members.shape[0] and bool(
            np.all(places == np.arange(places.shape[0]))
        ):
            return self.gram
        return self.gram[np.ix_(places, places)]

    def _extend(self, new: HostArray) -> None:
        columns, old = self.columns, self.members.shape[0]
        w = np.asarray(columns.data.weights)
        p = columns.design.n_features
        members = np.concatenate([self.members, new])
        size = members.shape[0]
        gram = np.empty((size, size))
        gram[:old, :old] = self.gram
        added = columns.take(new)
        if old:
            # The intercept is the last of those that ``take`` returns.
            order = np.argsort(self.members == p, kind="stable")
            cross = columns.product(columns.take(self.members[order]), w, added)
            gram[order, old:] = cross
            gram[old:, :old] = gram[:old, old:].T
        gram[old:, old:] = columns.product(added, w, added)
        self.place[new] = np.arange(old, size)
        self.members, self.gram = members, gram
