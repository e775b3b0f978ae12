"""Moments of the columns, and columns moved to mean zero where their mean is large.

    v_j = Σ_i w_i (F_ij − μ_j)² / Σ_i w_i,        z = F c + b = (F − 1 μ') c + (b + μ' c)

With an intercept a shift of a column changes nothing but the intercept; it is done because
a mean much larger than the spread makes the Hessian ill-conditioned.  A sparse column with
μ² > 4 v has at least four fifths of its entries (Cauchy-Schwarz): writing it in full makes the
matrix at most a quarter larger, and sparse columns with smaller means stay as they are.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from scipy import sparse

FAR = 4.0  # μ² / v from which a sparse column is moved


@dataclasses.dataclass(frozen=True)
class Columns:
    """Features to learn from, and what was done to their columns.

    Attributes
    ----------
    features : array or sparse matrix (N, p)
        With columns moved by ``shift``.
    shift : array (p,)
        Subtracted from each column, zero for those left as they are.
    moments : array (p,)
        v_j, around the mean with an intercept and around zero without.
    constant : bool array (p,)
        Columns without any spread, to rounding.
    """

    features: Any
    shift: np.ndarray
    moments: np.ndarray
    constant: np.ndarray


def prepare_columns(features: Any, weights: np.ndarray, intercept: bool) -> Columns:
    """Return the features with far columns centred, and the moments of all columns."""
    share = weights / weights.sum()
    if sparse.issparse(features):
        mean = np.asarray(features.T @ share).ravel()
        square = np.asarray(features.multiply(features).T @ share).ravel()
        if not intercept:
            return Columns(features, np.zeros_like(mean), square, square == 0.0)
        moments = _spread(features, mean, square, share)
        far = mean**2 > FAR * moments
        shift = np.where(far, mean, 0.0)
        constant = _constant(moments, mean)
        if far.any():
            features = _moved(features, shift, np.flatnonzero(far), constant[far])
    else:
        mean = share @ features
        if not intercept:
            square = share @ features**2
            return Columns(features, np.zeros_like(mean), square, square == 0.0)
        shift = mean
        features = features - mean
        # A second pass takes away what rounding left in the first.
        rest = share @ features
        features -= rest
        shift = mean + rest
        moments = share @ features**2
        constant = _constant(moments, mean)
        features[:, constant] = 0.0
    return Columns(features, shift, np.where(constant, 0.0, moments), constant)


def _constant(moments: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return which columns have no spread beyond the rounding of their mean."""
    return moments <= (64.0 * np.finfo(np.float64).eps * np.abs(mean)) ** 2


def _spread(
    features: Any, mean: np.ndarray, square: np.ndarray, share: np.ndarray
) -> np.ndarray:
    """Return the variance of each sparse column, by stored entries, not by a difference."""
    entries = features.tocsc()
    held = np.repeat(np.arange(entries.shape[1]), np.diff(entries.indptr))
    weight = share[entries.indices]
    around = weight * (entries.data - mean[held]) ** 2
    spread = np.bincount(held, around, minlength=mean.size)
    absent = 1.0 - np.bincount(held, weight, minlength=mean.size)
    found = spread + np.maximum(absent, 0.0) * mean**2
    return np.minimum(found, square)


def _moved(
    features: Any, shift: np.ndarray, which: np.ndarray, constant: np.ndarray
) -> Any:
    """Return sparse features, the named columns in full with their shift taken off."""
    kind = features.format
    entries = features.tocsc(copy=True)
    entries.sum_duplicates()
    dense = entries[:, which].toarray() - shift[which]
    dense[:, constant] = 0.0
    keep = np.ones(entries.shape[1])
    keep[which] = 0.0
    entries = sparse.csc_array(entries @ sparse.diags_array(keep))
    entries.eliminate_zeros()
    place = sparse.csc_array(
        (np.ones(which.size), (np.arange(which.size), which)),
        shape=(which.size, entries.shape[1]),
    )
    return (entries + sparse.csc_array(dense) @ place).asformat(kind)
