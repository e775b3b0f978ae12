"""Readers of tables: svmlight (.gz, .bz2), CSV and Parquet through pandas, .npz.

Every trouble with a file is a :class:`DataError` of one sentence, with the line of the file
where it has lines.
"""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import itertools
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
_SVMLIGHT = {".svm", ".libsvm", ".svmlight", ".txt", ".dat", ""}
_PACKED = {".gz", ".bz2"}


class DataError(Exception):
    """Something about the input that one sentence can tell."""


@dataclasses.dataclass(frozen=True)
class Table:
    """Features, a frame or a sparse matrix, and targets; None where there are none."""

    name: str
    features: Any
    targets: np.ndarray | None

    @property
    def names(self) -> list[str] | None:
        """Names of the columns of a frame."""
        columns = getattr(self.features, "columns", None)
        return None if columns is None else [str(column) for column in columns]


def read_table(
    path: Path,
    *,
    target: str | None = None,
    n_features: int | None = None,
    needs_target: bool = True,
) -> Table:
    """Read a table.

    Parameters
    ----------
    path : Path
        By its ending: .csv, .tsv, .parquet, .npz, otherwise svmlight; .gz and .bz2 are
        unpacked.
    target : str, optional
        Column of a frame, the last one by default; for .npz the name of the array, or a
        .npy file beside it.
    n_features : int, optional
        Of an svmlight file.
    needs_target : bool
        Whether a frame without the target column is an error.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    packed = path.suffix in _PACKED
    ending = (path.with_suffix("") if packed else path).suffix.lower()
    if ending in {".csv", ".tsv", ".parquet", ".pq"}:
        return _frame(path, ending, target, needs_target)
    if ending == ".npz":
        return _npz(path, target, needs_target)
    features, targets = _svmlight(path, n_features)
    return Table(path.name.split(".")[0], features, targets)


def _frame(path: Path, ending: str, target: str | None, needs: bool) -> Table:
    try:
        import pandas as pd  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise DataError(f"{path} needs pandas: pip install pandas") from error
    try:
        if ending in {".parquet", ".pq"}:
            frame = pd.read_parquet(path)
        else:
            frame = pd.read_csv(path, sep="\t" if ending == ".tsv" else ",")
    except ImportError as error:
        raise DataError(f"{path} needs pyarrow: pip install pyarrow") from error
    except (*_UNREADABLE, UnicodeError) as error:
        # pandas names the line of a row with too many fields.
        raise DataError(f"{path} cannot be read: {str(error).strip()}") from error
    if frame.shape[0] == 0:
        raise DataError(f"{path} has no rows")
    name = str(frame.columns[-1]) if target is None else target
    if name not in frame.columns:
        if needs:
            known = ", ".join(map(str, frame.columns[:8]))
            raise DataError(f"{path} has no column {name!r}; it has {known} ...")
        return Table(path.stem, _numeric(path, frame, ending), None)
    if target is None and not needs:
        return Table(path.stem, _numeric(path, frame, ending), None)
    column = frame[name]
    missing = np.flatnonzero(column.isna().to_numpy())
    if missing.size:
        raise DataError(f"{_line(path, ending, missing[0])}: no value of {name!r}")
    features = _numeric(path, frame.drop(columns=[name]), ending)
    return Table(path.stem, features, column.to_numpy())


def _numeric(path: Path, frame: Any, ending: str) -> Any:
    """Return a frame of numbers: words become one-hot columns, a missing value is told."""
    import pandas as pd  # noqa: PLC0415  (an extra, there by now)

    words = [
        column
        for column in frame.columns
        if not pd.api.types.is_numeric_dtype(frame[column])
    ]
    for column in words:
        if frame[column].nunique() > max(50, frame.shape[0] // 2):
            raise DataError(
                f"column {column!r} of {path} has {frame[column].nunique()} different "
                f"words, such as {frame[column].iloc[0]!r} in "
                f"{_line(path, ending, 0)}: drop it, or make numbers of it"
            )
    frame = pd.get_dummies(frame, columns=words, prefix_sep="__", dtype=float)
    entries = frame.to_numpy(dtype=float)
    bad = np.argwhere(~np.isfinite(entries))
    if bad.size:
        row, column = bad[0]
        raise DataError(
            f"{_line(path, ending, row)}: no number in column "
            f"{str(frame.columns[column])!r}; impute missing values first"
        )
    return frame.astype(float)


def _line(path: Path, ending: str, row: int) -> str:
    """Return where row ``row`` is: CSV has a line of names before the first."""
    return (
        f"{path}, line {row + 2}"
        if ending in {".csv", ".tsv"}
        else f"{path}, row {row}"
    )


def _npz(path: Path, target: str | None, needs: bool) -> Table:
    """Read a sparse matrix of scipy.sparse.save_npz, or arrays X and y."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = set(archive.files)
            if {"format", "data", "shape"} <= names:
                features: Any = sparse.csr_array(
                    sparse.load_npz(path), dtype=np.float64
                )
                targets = None
            elif "X" in names:
                features = np.asarray(archive["X"], dtype=np.float64)
                targets = archive[target or "y"] if (target or "y") in names else None
            else:
                raise DataError(
                    f"{path} must hold a sparse matrix or arrays X and y, found "
                    f"{', '.join(sorted(names))}"
                )
    except _UNREADABLE as error:
        raise DataError(f"{path} cannot be read as .npz: {error}") from error
    if targets is None and target is not None and target.endswith(".npy"):
        targets = read_array(Path(target))
    if targets is None and needs:
        raise DataError(f"{path} needs its targets: pass --target FILE.npy")
    if targets is not None and targets.shape[0] != features.shape[0]:
        raise DataError(
            f"{path} has {features.shape[0]} rows of features but {targets.shape[0]} "
            "targets"
        )
    return Table(path.stem, features, targets)


def read_array(path: Path) -> np.ndarray:
    """Read a .npy file."""
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    try:
        found = np.load(path, allow_pickle=False)
    except _UNREADABLE as error:
        raise DataError(f"{path} cannot be read as a .npy array: {error}") from error
    if not isinstance(found, np.ndarray):
        raise DataError(f"{path} must hold one array")
    return found


def _svmlight(path: Path, n_features: int | None) -> tuple[Any, np.ndarray]:
    from sklearn.datasets import load_svmlight_file  # noqa: PLC0415  (slow to import)

    try:
        features, targets = load_svmlight_file(str(path), n_features=n_features)
    except _UNREADABLE as error:
        where = _faulty_line(path, n_features)
        raise DataError(
            where or f"{path} cannot be read as svmlight: {error}"
        ) from error
    if features.shape[0] == 0:
        raise DataError(f"{path} has no rows")
    return sparse.csr_array(features), targets


def _faulty_line(path: Path, n_features: int | None) -> str | None:
    """Return the first line of an svmlight file that cannot be read, and why."""
    opened: Any = {".gz": gzip.open, ".bz2": bz2.open}.get(path.suffix, open)
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                why = _fault(line.partition("#")[0].split(), n_features)
                if why is not None:
                    return f"{path}, line {number}: {why}"
    except (OSError, EOFError, zlib.error, UnicodeError) as error:
        return f"{path} cannot be unpacked: {error}"
    return None


def _fault(fields: list[str], n_features: int | None) -> str | None:
    if not fields:
        return None
    try:
        float(fields[0])
    except ValueError:
        return f"the target must be a number, found {fields[0]!r}"
    indices = []
    for field in fields[1:]:
        index, _, value = field.partition(":")
        if index == "qid":
            continue
        try:
            indices.append(int(index))
            float(value)
        except ValueError:
            return f"expected index:value, found {field!r}"
    if any(second <= first for first, second in itertools.pairwise(indices)):
        return "indices must increase along a line"
    if n_features is not None and any(index > n_features for index in indices):
        return f"index {max(indices)} is beyond --n-features {n_features}"
    return None


def write_columns(path: Path, header: str, columns: Iterable[np.ndarray]) -> None:
    """Write columns of text or numbers as CSV."""
    rows = zip(*columns, strict=True)
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
