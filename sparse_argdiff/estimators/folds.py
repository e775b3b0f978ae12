"""The splits of the rows: drawn once, checked, and kept for value, gradient and report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    check_cv,
)

Pair = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Folds:
    """The (train, test) pairs of indices, ``None`` for leave-one-out, and remarks."""

    pairs: tuple[Pair, ...] | None
    notes: tuple[str, ...] = ()


def draw_folds(
    cv: Any,
    X: Any,
    y: np.ndarray,
    *,
    classes: bool,
    random_state: Any,
    groups: Any = None,
    params: dict[str, Any] | None = None,
) -> Folds:
    """Return the splits for ``cv``, listed once.

    A whole number shuffles the rows by ``random_state``, keeps the shares of the classes,
    and keeps groups together where they are given.
    """
    n_samples = y.shape[0]
    if isinstance(cv, str):
        if cv != "loo":
            raise ValueError(f"cv must be a number, a splitter or 'loo', found {cv!r}")
        if n_samples < 2:
            raise ValueError(f"leave-one-out needs two rows, found {n_samples} sample")
        return Folds(None)
    if isinstance(cv, bool | np.bool_) or cv is None:
        raise TypeError(f"cv must be a number, a splitter or 'loo', found {cv!r}")
    if isinstance(cv, int | np.integer):
        return _shuffled(int(cv), X, y, classes, random_state, groups)
    mask = as_mask(cv)
    if mask is not None:
        if mask.size != n_samples:
            raise ValueError(
                f"cv is a mask of {mask.size} rows, X has {n_samples} samples"
            )
        return _checked([(np.flatnonzero(~mask), np.flatnonzero(mask))], n_samples)
    if hasattr(cv, "split"):
        options = dict(params or {})
        if groups is not None:
            options["groups"] = groups
        return _checked(cv.split(X, y, **options), n_samples)
    return _checked(check_cv(cv).split(X, y), n_samples)


def as_mask(cv: Any) -> np.ndarray | None:
    """Return a mask of validation rows as an array; None for what is no mask."""
    if hasattr(cv, "split"):
        return None
    if isinstance(cv, list | tuple):
        booleans = bool(cv) and all(isinstance(entry, bool | np.bool_) for entry in cv)
        return np.array(cv, dtype=bool) if booleans else None
    found = np.asarray(cv) if hasattr(cv, "__array__") else None
    one = found is not None and found.dtype == bool and found.ndim == 1
    return found if one else None


def _shuffled(
    count: int, X: Any, y: np.ndarray, classes: bool, random_state: Any, groups: Any
) -> Folds:
    n_samples = y.shape[0]
    if count < 2:
        raise ValueError(f"cv must be at least 2 folds, found {count}")
    if n_samples < 2:
        raise ValueError(
            f"folds need at least two rows, found n_samples={n_samples} sample"
        )
    notes: list[str] = []
    options = {"shuffle": True, "random_state": random_state}
    if groups is not None:
        several = len(set(np.asarray(groups).tolist()))
        if several < 2:
            raise ValueError("groups must name at least two groups of rows, found one")
        if several < count:
            notes.append(
                f"there are {several} groups of rows, fewer than {count} folds"
            )
        splitter = StratifiedGroupKFold if classes else GroupKFold
        found = splitter(min(count, several), **options).split(X, y, groups)
        return _checked(found, n_samples, notes)
    if not classes:
        if n_samples < count:
            notes.append(f"there are {n_samples} rows, fewer than {count} folds")
        return _checked(
            KFold(min(count, n_samples), **options).split(X), n_samples, notes
        )
    _, index, sizes = np.unique(y, return_inverse=True, return_counts=True)
    # A class with one row is learned from in every fold, and held out in none.
    shared = np.flatnonzero(sizes[index] > 1)
    if shared.size == 0:
        raise ValueError("each class has a single row: folds need one with two or more")
    if shared.size < n_samples:
        notes.append("classes with a single row are never held out")
    least = int(sizes[sizes > 1].min())
    if least < count:
        notes.append(
            f"the smallest class has {least} rows, fewer than {count} folds: "
            f"{least} folds are used"
        )
    found = StratifiedKFold(min(count, least), **options).split(
        np.zeros(shared.size), y[shared]
    )
    alone = np.flatnonzero(sizes[index] == 1)
    pairs = [
        (np.sort(np.concatenate([shared[train], alone])), shared[test])
        for train, test in found
    ]
    return _checked(pairs, n_samples, notes)


def _checked(pairs: Iterable[Any], n_samples: int, notes: Iterable[str] = ()) -> Folds:
    """Return pairs of index arrays; masks become indices, empty sides are refused."""
    found: list[Pair] = []
    for k, (train, test) in enumerate(pairs):
        both: list[np.ndarray] = []
        for name, part in (("train", train), ("test", test)):
            rows = np.asarray(part)
            if rows.dtype == bool:
                rows = np.flatnonzero(rows)
            if rows.size == 0:
                raise ValueError(f"fold {k} has no {name} rows")
            if rows.min() < -n_samples or rows.max() >= n_samples:
                raise ValueError(
                    f"fold {k} names row {rows.max()}, X has {n_samples} samples"
                )
            both.append(np.unique(rows % n_samples))
        if np.intersect1d(both[0], both[1]).size:
            raise ValueError(f"fold {k} has rows that are both train and test")
        found.append((both[0], both[1]))
    if not found:
        raise ValueError("cv gave no folds")
    return Folds(tuple(found), tuple(notes))


def check_classes(pairs: Iterable[Pair], index: np.ndarray, classes: Any) -> None:
    """Refuse a training part that lacks a class, naming both."""
    for k, (train, _) in enumerate(pairs):
        missing = np.setdiff1d(np.arange(len(classes)), index[train])
        if missing.size:
            raise ValueError(
                f"the training part of fold {k} has no row of class "
                f"{classes[missing[0]]!r}: give other folds (cv=), or more rows of it"
            )


def without(pairs: tuple[Pair, ...], kept: np.ndarray) -> tuple[Pair, ...]:
    """Return pairs of all rows as pairs of the rows ``kept``, renumbered."""
    place = np.cumsum(kept) - 1
    return tuple(
        (place[train[kept[train]]], place[test[kept[test]]]) for train, test in pairs
    )
