"""Data for the examples: readers, target codings, splits that keep duplicates together.

Every trouble with a file is a :class:`DataError` of one sentence.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import zipfile
import zlib
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.special import xlogy

INSTALL = "pip install 'sparse_argdiff[examples]'"
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


class DataError(Exception):
    """Something about the input that one sentence can tell."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Sparse features (N, p) and raw targets (N,), as read.

    ``pixels`` (p, 2) names the two pixels of each feature where there are pixels.
    """

    name: str
    features: sparse.csr_array
    targets: np.ndarray
    pixels: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Targets:
    """Targets as the loss wants them, and what turns predictions back.

    A predictor z stands for ``shift + scale * z`` in the units of the raw targets
    (losses of a number), or for the entries of ``classes`` (losses of a class).
    """

    values: np.ndarray
    shift: float = 0.0
    scale: float = 1.0
    classes: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Part:
    """Some rows: features, coded targets, and the label that duplicates share."""

    features: sparse.csr_array
    targets: np.ndarray
    labels: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Part:
        return Part(self.features[rows], self.targets[rows], self.labels[rows])

    def folds(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return the fold of each row; duplicates share theirs."""
        return deal(self.labels, [1.0] * count, rng)


def load(path: Path | None, targets: Path | None, n_features: int | None, loss: str):
    """Return the data set at ``path``, or the digits."""
    return digits(loss) if path is None else read(path, targets, n_features)


def digits(loss: str, thresholds: tuple[int, ...] = (4, 10)) -> Dataset:
    """Return scikit-learn's digits as conjunctions of pixel pairs: 1797 x thousands.

    A feature is 1 where both its pixels (of 8 x 8, ink 0 ... 16) reach their
    thresholds.  To predict: odd or even (logistic), the digit (other losses).
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError(f"the digits need scikit-learn: {INSTALL}") from None
    images, digit = load_digits(return_X_y=True)
    ink = np.hstack([images >= t for t in thresholds])
    pixel = np.tile(np.arange(images.shape[1]), len(thresholds))
    first, second = np.triu_indices(ink.shape[1])
    redundant = (pixel[first] == pixel[second]) & (first != second)
    frequency = (ink.T.astype(float) @ ink)[first, second] / len(ink)
    keep = ~redundant & (frequency > 0.02) & (frequency < 0.98)
    first, second = first[keep], second[keep]
    features = sparse.csr_array((ink[:, first] & ink[:, second]).astype(float))
    targets = digit % 2 if loss == "logistic" else digit
    pixels = np.column_stack([pixel[first], pixel[second]])
    return Dataset("digits", features, targets, pixels)


def read(path: Path, targets: Path | None, n_features: int | None) -> Dataset:
    """Read a folder (X_raw.npz, y_raw.npy), a sparse .npz with targets, or svmlight.

    A folder without X_raw.npz is read as the one svmlight file in it.
    """
    if path.is_dir() and not (path / "X_raw.npz").is_file():
        path = _only_svmlight(path)
    if path.is_dir():
        files = path / "X_raw.npz", targets or path / "y_raw.npy"
    elif path.suffix == ".npz":
        if targets is None:
            raise DataError(f"{path} needs its targets: pass --targets FILE.npy")
        files = path, targets
    else:
        return Dataset(
            path.name.split(".")[0], *_checked(path, *_svmlight(path, n_features))
        )
    for file in files:
        if not file.is_file():
            raise DataError(f"there is no file {file}")
    try:
        features = sparse.csr_array(sparse.load_npz(files[0]), dtype=np.float64)
    except _UNREADABLE as error:
        raise DataError(f"{files[0]} cannot be read as a sparse matrix") from error
    return Dataset(path.stem, *_checked(path, features, read_array(files[1])))


def _only_svmlight(folder: Path) -> Path:
    """Return the svmlight file of a folder: the only one, or the one it is named for."""
    kinds = {".gz", ".bz2", ".svm", ".libsvm", ".svmlight"}
    files = sorted(file for file in folder.iterdir() if file.suffix in kinds)
    named = [file for file in files if folder.name.endswith(file.name.split(".")[0])]
    if len(named or files) == 1:
        return (named or files)[0]
    found = ", ".join(file.name for file in files) or "none"
    raise DataError(
        f"{folder} must hold X_raw.npz and y_raw.npy or one svmlight file, found "
        f"{found}; pass --data FILE"
    )


def read_array(path: Path) -> np.ndarray:
    """Read a 1-D .npy file."""
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    try:
        array = np.load(path, allow_pickle=False)
    except _UNREADABLE as error:
        raise DataError(f"{path} cannot be read as a .npy array") from error
    if not isinstance(array, np.ndarray) or array.ndim != 1:
        raise DataError(f"{path} must hold one 1-D array")
    return array


def read_groups(path: Path | None, n_features: int) -> np.ndarray | None:
    """Read the group of each feature, numbered from 0."""
    if path is None:
        return None
    groups = read_array(path)
    if groups.dtype.kind not in "iu" or len(groups) != n_features:
        raise DataError(
            f"{path} must hold a whole number for each of {n_features} features, "
            f"found {len(groups)} of type {groups.dtype}"
        )
    return np.unique(groups, return_inverse=True)[1]


def _svmlight(
    path: Path, n_features: int | None
) -> tuple[sparse.csr_array, np.ndarray]:
    if not path.is_file():
        raise DataError(f"there is no file or folder {path}")
    try:
        from sklearn.datasets import load_svmlight_file
    except ImportError:
        raise DataError(f"svmlight files need scikit-learn: {INSTALL}") from None
    try:
        features, targets = load_svmlight_file(str(path), n_features=n_features)
    except _UNREADABLE as error:
        raise DataError(f"{path} cannot be read as svmlight: {error}") from error
    return sparse.csr_array(features), targets


def _checked(
    path: Path, features: sparse.csr_array, targets: np.ndarray
) -> tuple[sparse.csr_array, np.ndarray]:
    if len(targets) != features.shape[0]:
        raise DataError(
            f"{path} has {features.shape[0]} rows of features but {len(targets)} targets"
        )
    if targets.dtype.kind not in "fiub" or not np.isfinite(targets).all():
        raise DataError(f"the targets of {path} must be finite numbers")
    if not np.isfinite(features.data).all():
        raise DataError(f"the features of {path} must be finite, found NaN or infinity")
    return features, targets


def encode(targets: np.ndarray, loss: str, train: np.ndarray) -> Targets:
    """Code raw targets for a loss; what is estimated for it uses the training rows."""
    if len(np.unique(targets[train])) < 2:
        raise DataError("the targets of the training part are all the same")
    if loss in {"logistic", "multinomial"}:
        classes, index = np.unique(targets, return_inverse=True)
        if loss == "multinomial":
            if len(classes) > 200:
                raise DataError(
                    f"the targets have {len(classes)} distinct values: no classes"
                )
            return Targets(np.eye(len(classes))[index], classes=classes)
        if len(classes) != 2:
            raise DataError(
                f"the logistic loss needs two classes, found {len(classes)}: "
                "try --loss multinomial"
            )
        return Targets(index.astype(float), classes=classes)
    values = targets.astype(float)
    if loss == "poisson":
        if values.min() < 0:
            raise DataError("the Poisson loss needs targets >= 0")
        return Targets(values)
    shift, scale = float(values[train].mean()), float(values[train].std())
    return Targets((values - shift) / scale, shift, scale)


def split(
    data: Dataset, loss: str, rng: np.random.Generator
) -> tuple[list[Part], Targets]:
    """Return training (1/2), validation (1/4) and test (1/4) rows, and their coding."""
    labels = duplicate_groups(data.features)
    which = deal(labels, [0.5, 0.25, 0.25], rng)
    targets = encode(data.targets, loss, which == 0)
    rows = Part(data.features, targets.values, labels)
    return [rows[which == k] for k in range(3)], targets


def score(loss: str, z: np.ndarray, t: np.ndarray) -> float:
    """Return the accuracy, R^2, or explained deviance of predictors z."""
    if loss == "logistic":
        return float(np.mean((z > 0) == t))
    if loss == "multinomial":
        return float(np.mean(z.argmax(axis=1) == t.argmax(axis=1)))
    if loss == "poisson":
        deviance = np.mean(xlogy(t, t) - t * z - t + np.exp(z))
        return float(1 - deviance / np.mean(xlogy(t, t) - xlogy(t, t.mean())))
    return float(1 - np.mean((t - z) ** 2) / np.var(t))


def duplicate_groups(features: sparse.csr_array) -> np.ndarray:
    """Return a label per row; identical rows share theirs."""
    rows = features.copy()
    rows.sum_duplicates()
    rows.eliminate_zeros()
    seen: dict[bytes, int] = {}
    labels = np.empty(rows.shape[0], dtype=int)
    for i, (start, stop) in enumerate(itertools.pairwise(rows.indptr)):
        key = rows.indices[start:stop].tobytes() + rows.data[start:stop].tobytes()
        labels[i] = seen.setdefault(key, len(seen))
    return labels


def deal(groups: np.ndarray, shares: list[float], rng: np.random.Generator):
    """Return a part 0 ... len(shares) - 1 per row: whole groups, in random order."""
    _, groups, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = rng.permutation(len(sizes))
    middle = np.cumsum(sizes[order]) - 0.5 * sizes[order]
    ends = np.cumsum(shares) / np.sum(shares) * len(groups)
    part = np.empty(len(sizes), dtype=int)
    part[order] = np.searchsorted(ends[:-1], middle, side="right")
    return part[groups]


def save_model(path: Path, arrays: dict, targets: Targets, meta: dict) -> None:
    """Write a model: its arrays (x, y, centre, ...), and ``meta`` as JSON.

    To predict with p features and K outputs: z = F @ y[:p K].reshape(p, K) + y[p K:].
    """
    arrays = {name: array for name, array in arrays.items() if array is not None}
    if targets.classes is not None:
        arrays["classes"] = targets.classes
    meta = meta | {"shift": targets.shift, "scale": targets.scale}
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays, meta=np.array(json.dumps(meta)))


def read_model(path: Path, sizes: dict[str, int], meta: dict) -> dict:
    """Read a saved model; refuse one of other sizes, or saved with another ``meta``."""
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in sizes}
            found = json.loads(str(archive["meta"]))
        differs = [name for name, value in meta.items() if found[name] != value]
    except (*_UNREADABLE, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be read as a saved model") from error
    for name, size in sizes.items():
        if arrays[name].shape != (size,):
            raise DataError(
                f"{path} is of another size: {name} has shape {arrays[name].shape}, "
                f"this problem needs ({size},)"
            )
    if differs:
        raise DataError(f"{path} was saved with another {' and '.join(differs)}")
    return arrays | found
