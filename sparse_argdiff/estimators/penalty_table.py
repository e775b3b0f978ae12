"""What the log-penalties depend on: a table Z with a row for each column of the data.

    log-penalty of column j:   η_j = o_j + Σ_k Z_jk x_k

Z is all ones for a single penalty, [1, log v_j] for "moments" (x₂ = 0: the columns as they
are, x₂ = 1: standardised), a one-hot table for groups, any features × k table for
descriptors.  Deviations of single columns are the identity beside it, held by a prior.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse

NAMES = ("single", "moments", "groups", "descriptors", "per-feature", "per-coefficient")
_DEPENDENT = 1e-6  # what is left of a column of Z, over its size, when it depends
_MANY = 2000  # columns of Z from which dependence is not looked for


@dataclasses.dataclass(frozen=True)
class PenaltyTable:
    """The table Z in the units that are asked for, and in those of the search.

    Attributes
    ----------
    table : array or sparse matrix (r, m)
        Z; r is the number of columns of the data, or of coefficients.
    names : tuple of str
        Of the m columns of Z.
    offset : array (r,)
        o.
    scaled : array or sparse matrix (r, m)
        Z T: its dense columns are orthogonal, with entries of size one.
    back : array (k, k)
        T of the first k columns, the identity for the others.
    deviations : int
        How many of the last columns are deviations of single columns.
    dropped : tuple of str
        Columns that depended on those before them.
    labels, column_labels : tuple or None
        Of the groups, and of each column, where there are groups.
    """

    table: Any
    names: tuple[str, ...]
    offset: np.ndarray
    scaled: Any
    back: np.ndarray
    deviations: int
    dropped: tuple[str, ...]
    labels: tuple[Hashable, ...] | None = None
    column_labels: tuple[Hashable, ...] | None = None

    @property
    def m(self) -> int:
        """Number of parameters."""
        return int(self.scaled.shape[1])

    @property
    def k(self) -> int:
        """Number of parameters that are not deviations."""
        return self.m - self.deviations

    @property
    def single(self) -> bool:
        """Whether it is the table of a single penalty."""
        return (
            self.m == 1 and not self.offset.any() and float(np.ptp(self.scaled)) == 0.0
        )

    def to_user(self, u: np.ndarray) -> np.ndarray:
        """Return x = T u, shape (m, t)."""
        return np.concatenate([self.back @ u[: self.k], u[self.k :]])

    def from_user(self, x: np.ndarray) -> np.ndarray:
        """Return u = T⁻¹ x, shape (m, t)."""
        return np.concatenate([np.linalg.solve(self.back, x[: self.k]), x[self.k :]])

    def in_metric(self, weights: np.ndarray) -> PenaltyTable:
        """Return the same table in coordinates that are orthogonal by weights (r,) ≥ 0.

        (Z T)' diag(w) Z T = Σ w I: a step of one changes the log-penalties by one where the
        weights are, on average.  Sparse tables stay, and those of disjoint columns, which
        are orthogonal in each metric.
        """
        if sparse.issparse(self.table) or _disjoint(self.table):
            return self
        share = np.sqrt(weights / weights.mean())
        _, back = _orthogonal(share[:, None] * self.table)
        return dataclasses.replace(self, scaled=self.table @ back, back=back)

    def log_penalties(self, u: np.ndarray) -> np.ndarray:
        """Return o + Z T u, shape (r, t)."""
        return self.offset[:, None] + np.asarray(self.scaled @ u)

    def project(self, eta: np.ndarray) -> np.ndarray:
        """Return the u, without deviations, whose log-penalties are closest to η (r,)."""
        u = np.zeros(self.m)
        dense = _dense(self.scaled[:, : self.k])
        u[: self.k] = np.linalg.lstsq(dense, eta - self.offset, rcond=None)[0]
        return u


def penalty_table(
    penalties: Any,
    moments: np.ndarray,
    *,
    groups: Any = None,
    descriptors: Any = None,
    deviations: bool = False,
    names: np.ndarray | None = None,
    outputs: int = 1,
) -> PenaltyTable:
    """Return the table for the parameters of an estimator."""
    p = moments.size
    kinds = _kinds(penalties, groups, descriptors)
    named = [kind for kind in kinds if isinstance(kind, str)]
    each = [kind for kind in named if kind in {"per-feature", "per-coefficient"}]
    offset = log_moments(moments) if each else np.zeros(p)
    labels = tuple(group_labels(groups, names, p)) if "groups" in named else None
    parts: list[Any] = []
    titles: list[str] = []
    for kind in kinds:
        if not isinstance(kind, str):
            block, title = _given_table("penalties", kind, names, (p, p * outputs))
        elif kind == "groups":
            assert labels is not None
            block, title = _one_hot(labels)
        elif kind == "descriptors":
            block, title = _with_level(
                *_given_table("descriptors", descriptors, names, (p,))
            )
        elif kind == "moments":
            block = np.column_stack([np.ones(p), log_moments(moments)])
            title = ["level", "log moment"]
        else:
            block, title = np.ones((p, 1)), ["level"]
        parts.append(block)
        titles += title
    table, titles, dropped = _independent(_stack(parts), titles)
    if "per-coefficient" in each and outputs > 1 and table.shape[0] == p:
        table = _repeated(table, outputs)
    if table.shape[0] != p:
        offset = np.repeat(offset, outputs)
    scaled, back = _orthogonal(table)
    found = PenaltyTable(
        table,
        tuple(titles),
        offset,
        scaled,
        back,
        0,
        dropped,
        None if labels is None else tuple(dict.fromkeys(labels)),
        labels,
    )
    return _with_deviations(found) if each or deviations else found


def _with_deviations(found: PenaltyTable) -> PenaltyTable:
    """Return the table with the identity beside it."""
    rows = found.offset.size
    identity = sparse.identity(rows, format="csr")
    return dataclasses.replace(
        found,
        table=_stack([found.table, identity]),
        scaled=_stack([found.scaled, identity]),
        names=(*found.names, *(f"deviation {j}" for j in range(rows))),
        deviations=rows,
    )


def _with_level(table: Any, titles: list[str]) -> tuple[Any, list[str]]:
    """Return a table with ones before it, unless it spans them."""
    if _spans_ones(table):
        return table, titles
    return _stack([np.ones((table.shape[0], 1)), table]), ["level", *titles]


def _kinds(penalties: Any, groups: Any, descriptors: Any) -> list[Any]:
    """Return the parts of the table: names, or tables."""
    if penalties is None:
        kinds: list[Any] = []
        kinds += ["groups"] if groups is not None else []
        kinds += ["descriptors"] if descriptors is not None else []
        return kinds or ["moments"]
    if isinstance(penalties, str):
        kinds = [penalties]
    elif isinstance(penalties, list | tuple) and all(
        isinstance(part, str) for part in penalties
    ):
        kinds = list(penalties)
    else:
        return [penalties]
    for kind in kinds:
        if kind not in NAMES:
            known = ", ".join(map(repr, NAMES))
            raise ValueError(
                f"penalties must be one of {known}, several of them, or a table with a "
                f"row for each column of X, found {kind!r}"
            )
    for name, given in (("groups", groups), ("descriptors", descriptors)):
        if (name in kinds) != (given is not None):
            raise ValueError(
                f"penalties={penalties!r} {'needs' if name in kinds else 'has no use for'}"
                f" the parameter {name}"
            )
    if not kinds:
        raise ValueError("penalties must name at least one part, found none")
    return kinds


def log_moments(moments: np.ndarray) -> np.ndarray:
    """Return log v; empty columns take the smallest moment, equal ones are equal."""
    positive = moments[moments > 0.0]
    least = positive.min() if positive.size else 1.0
    logs = np.log(np.where(moments > 0.0, moments, least))
    # Behind a StandardScaler they are rounding around zero.
    return np.where(np.abs(logs) < _DEPENDENT, 0.0, logs)


def _given_table(
    name: str, given: Any, names: np.ndarray | None, rows: tuple[int, ...]
) -> tuple[Any, list[str]]:
    """Return a checked table and the names of its columns."""
    titles = None
    if hasattr(given, "columns"):
        titles = [str(title) for title in given.columns]
        index = getattr(given, "index", None)
        if names is not None and index is not None and set(index) == set(names):
            given = given.loc[list(names)]
        given = given.to_numpy() if hasattr(given, "to_numpy") else given
    if sparse.issparse(given):
        table: Any = sparse.csr_array(given, dtype=np.float64)
        entries = table.data
    else:
        table = np.asarray(given, dtype=np.float64)
        table = table[:, None] if table.ndim == 1 else table
        entries = table
    if table.ndim != 2 or table.shape[0] not in rows or table.shape[1] == 0:
        raise ValueError(
            f"{name} must be a table with {' or '.join(map(str, sorted(set(rows))))} rows, "
            f"one for each column of X, found shape {tuple(table.shape)}"
        )
    if not np.isfinite(entries).all():
        raise ValueError(f"{name} must be finite, found NaN or infinity")
    return table, titles or [f"{name} {k}" for k in range(table.shape[1])]


def _one_hot(labels: tuple[Hashable, ...]) -> tuple[Any, list[str]]:
    """Return the one-hot table of labels, in order of appearance, and its names."""
    place: dict[Hashable, int] = {}
    index = [place.setdefault(label, len(place)) for label in labels]
    p = len(labels)
    table = sparse.csr_array(
        (np.ones(p), (np.arange(p), index)), shape=(p, len(place)), dtype=np.float64
    )
    names = [f"group {label}" for label in place]
    return table if len(place) > 50 else table.toarray(), names


def group_labels(groups: Any, names: np.ndarray | None, p: int) -> list[Hashable]:
    """Return the group of each of p columns, of labels of any kind.

    ``groups`` is "blocks" (what stands before "__" in the name of each column, as a
    ``ColumnTransformer`` writes it), a label for each column, a mapping of labels to
    columns (names, indices, slices), a list of such lists, a function of the names of the
    columns, or a fitted ``ColumnTransformer``.
    """
    if hasattr(groups, "output_indices_"):
        groups = {
            block: columns
            for block, columns in groups.output_indices_.items()
            if columns.stop > columns.start
        }
    if isinstance(groups, str):
        if groups != "blocks":
            raise ValueError(f"groups must be 'blocks' or labels, found {groups!r}")
        return [str(name).partition("__")[0] for name in _needed(names)]
    if callable(groups):
        return _labels_of_function(groups, _needed(names), p)
    if isinstance(groups, Mapping):
        return _labels_of_blocks(dict(groups), names, p)
    labels = list(groups)
    if labels and all(
        isinstance(part, Sequence | np.ndarray) and not isinstance(part, str)
        for part in labels
    ):
        return _labels_of_blocks(dict(enumerate(labels)), names, p)
    if len(labels) != p:
        raise ValueError(
            f"groups must have a label for each of {p} columns of X, found {len(labels)}"
        )
    return [_plain(label) for label in labels]


def _plain(label: Any) -> Hashable:
    found = label.item() if isinstance(label, np.generic) else label
    try:
        hash(found)
    except TypeError:
        raise TypeError(
            f"groups must have hashable labels, found {type(found).__name__}"
        ) from None
    if isinstance(found, float) and np.isnan(found):
        raise ValueError("groups must not hold NaN")
    return found


def _needed(names: np.ndarray | None) -> np.ndarray:
    if names is None:
        raise ValueError(
            "groups by the names of columns need X with names: a frame, or "
            "set_output(transform='pandas') on the steps before"
        )
    return names


def _labels_of_function(
    function: Callable[[list[str]], Any], names: np.ndarray, p: int
) -> list[Hashable]:
    labels = list(function([str(name) for name in names]))
    if len(labels) != p:
        raise ValueError(
            f"groups(names) must return a label for each of {p} names, found "
            f"{len(labels)}"
        )
    return [_plain(label) for label in labels]


def _labels_of_blocks(
    blocks: dict[Any, Any], names: np.ndarray | None, p: int
) -> list[Hashable]:
    """Return the label of each column; the columns of no block are a group of their own."""
    found: list[Any] = [None] * p
    taken = np.zeros(p, dtype=bool)
    place = {} if names is None else {str(name): j for j, name in enumerate(names)}
    for label, columns in blocks.items():
        if isinstance(columns, slice):
            which: list[Any] = list(range(p))[columns]
        else:
            which = [columns] if isinstance(columns, str) else list(columns)
        for column in which:
            if isinstance(column, str):
                if column not in place:
                    raise ValueError(
                        f"group {label!r} names the column {column!r}, which X lacks"
                        + ("" if names is not None else ": X has no names")
                    )
                j = place[column]
            else:
                j = int(column)
                if not -p <= j < p:
                    raise ValueError(
                        f"group {label!r} has column {j}, X has {p} columns"
                    )
                j %= p
            if taken[j]:
                raise ValueError(
                    f"column {column!r} is in the groups {found[j]!r} and {label!r}: "
                    "each column has one; overlapping sets are descriptors"
                )
            found[j], taken[j] = _plain(label), True
    return [label if t else "rest" for label, t in zip(found, taken, strict=True)]


def _dense(table: Any) -> np.ndarray:
    return np.asarray(table.toarray() if sparse.issparse(table) else table)


def _stack(columns: list[Any]) -> Any:
    if len(columns) == 1:
        return columns[0]
    rows = {column.shape[0] for column in columns}
    if len(rows) > 1:
        raise ValueError(f"the parts of penalties have {sorted(rows)} rows")
    if any(sparse.issparse(column) for column in columns):
        return sparse.hstack([sparse.csr_array(c) for c in columns], format="csr")
    return np.hstack(columns)


def _spans_ones(table: Any) -> bool:
    if table.shape[1] > _MANY:
        return True
    dense, ones = _dense(table), np.ones(table.shape[0])
    fit = dense @ np.linalg.lstsq(dense, ones, rcond=None)[0]
    return bool(np.abs(fit - 1.0).max() < _DEPENDENT)


def _independent(
    table: Any, titles: list[str]
) -> tuple[Any, list[str], tuple[str, ...]]:
    """Return the table without columns that depend on those before them."""
    if table.shape[1] > _MANY:
        return table, titles, ()
    dense = _dense(table)
    kept: list[int] = []
    basis = np.empty((dense.shape[0], 0))
    for k in range(dense.shape[1]):
        column = dense[:, k]
        rest = column - basis @ (basis.T @ column)
        rest -= basis @ (basis.T @ rest)
        size, left = np.linalg.norm(column), np.linalg.norm(rest)
        if left > _DEPENDENT * size > 0.0:
            kept.append(k)
            basis = np.column_stack([basis, rest / left])
    dropped = tuple(titles[k] for k in range(len(titles)) if k not in set(kept))
    if not kept:
        raise ValueError("the table of penalties is all zeros")
    return table[:, kept], [titles[k] for k in kept], dropped


def _orthogonal(table: Any) -> tuple[Any, np.ndarray]:
    """Return Z T, orthogonal with entries of size one, and T; disjoint columns stay."""
    if sparse.issparse(table):
        return table, np.eye(table.shape[1])
    if _disjoint(table):
        size = np.abs(table).max(axis=0)
        return table / size, np.diag(1.0 / size)
    Q, R = np.linalg.qr(table)
    signs = np.where(np.diag(R) < 0.0, -1.0, 1.0)
    Q, R = Q * signs, signs[:, None] * R
    size = np.sqrt(table.shape[0])
    return Q * size, np.linalg.inv(R) * size


def _disjoint(table: np.ndarray) -> bool:
    """Tell whether each row has one entry at most."""
    return bool((np.count_nonzero(table, axis=1) <= 1).all())


def _repeated(table: Any, outputs: int) -> Any:
    """Return the table with each row once for each output."""
    if sparse.issparse(table):
        return sparse.csr_array(sparse.kron(table, np.ones((outputs, 1))))
    return np.repeat(table, outputs, axis=0)
