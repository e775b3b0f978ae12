"""A fitted estimator as a file of arrays, .npz without pickles, and back to predict.

z = F c + b,    prediction: z, e^z (Poisson, gamma, Tweedie), or the class of the largest probability
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from ..linear_model.losses import Logistic
from ..linear_model.multinomial import Multinomial
from .files import DataError, Table
from .regressor import LOG_LINK

_KEPT = (
    "coef_",
    "intercept_",
    "log_penalties_",
    "x_",
    "cv_loss_per_fold_",
    "learned_per_fold_",
    "single_cv_loss_per_fold_",
    "single_penalty_",
    "single_cv_loss_",
    "learned_cv_loss_",
    "_u",
)


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """What a file holds: the fitted arrays by their names, and what they mean."""

    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        """Return a fitted array as the estimator had it."""
        arrays = object.__getattribute__(self, "arrays")
        if name not in arrays:
            raise AttributeError(name)
        return arrays[name]

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        given = self.meta["names"]
        count = self.coef_.shape[-1]
        return given or [f"column {j + 1}" for j in range(count)]

    @property
    def history_(self) -> list[Any]:
        """Records of the search, with ``n_hvp``, ``n_grad`` and ``value``."""
        return [_Record(*row) for row in self.arrays["history"]]

    @property
    def column_groups_(self) -> list[str] | None:
        """Label of the group of each column."""
        return self.meta["groups"]

    def features(self, table: Table) -> Any:
        """Return the features of a table in the order of the columns of the model."""
        expected, features = self.meta["names"], table.features
        if expected is not None and table.names is not None:
            missing = [name for name in expected if name not in table.names]
            # A word that no row has is a one-hot column of zeros.
            absent = [name for name in missing if "__" not in name]
            if absent:
                raise DataError(f"{table.name} lacks the column {absent[0]!r}")
            features = features.reindex(columns=expected, fill_value=0.0)
        features = features if sparse.issparse(features) else np.asarray(features)
        count = self.coef_.shape[-1]
        if features.shape[1] != count:
            raise DataError(
                f"{table.name} has {features.shape[1]} columns, the model {count}"
            )
        return features

    def predict(self, features: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """Return predictions, and probabilities (N, K) of classes."""
        coefficients = np.atleast_2d(self.coef_)
        z = np.asarray(features @ coefficients.T) + self.intercept_
        classes = self.arrays.get("classes_")
        if classes is None:
            found = np.exp(z) if self.meta["loss"] in LOG_LINK else z
            return found[:, 0], None
        if z.shape[1] == 1:
            probability = np.asarray(Logistic.probability(np.hstack([-z, z])))
        else:
            probability = np.asarray(Multinomial.probability(z))
        return classes[probability.argmax(axis=1)], probability


@dataclasses.dataclass(frozen=True)
class _Record:
    n_hvp: float
    n_grad: float
    value: float


def save_model(
    path: Path, model: Any, meta: dict[str, Any], influence: np.ndarray | None = None
) -> None:
    """Write a fitted estimator; ``influence`` of the training rows goes with it."""
    arrays = {name: np.asarray(getattr(model, name)) for name in _KEPT}
    if hasattr(model, "classes_"):
        arrays["classes_"] = np.asarray(model.classes_)
        if arrays["classes_"].dtype == object:
            arrays["classes_"] = arrays["classes_"].astype(str)
    arrays["history"] = np.array(
        [(r.n_hvp, r.n_grad, r.value) for r in model.history_], dtype=float
    ).reshape(-1, 3)
    if influence is not None:
        arrays["influence"] = influence
    names = getattr(model, "feature_names_in_", None)
    groups = model.column_groups_
    meta = meta | {
        "loss": model.loss,
        "kind": type(model).__name__,
        "summary": model.summary(),
        "names": None if names is None else [str(name) for name in names],
        "groups": None if groups is None else [str(label) for label in groups],
        "penalty_names": list(model.penalty_names_)[:1000],
    }
    with path.open("wb") as file:
        everything: dict[str, Any] = arrays | {"meta": np.array(json.dumps(meta))}
        np.savez_compressed(file, **everything)


def read_model(path: Path) -> SavedModel:
    """Read a saved model."""
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files if name != "meta"}
            meta = json.loads(str(archive["meta"]))
        arrays["coef_"], meta["kind"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as a saved model") from error
    return SavedModel(arrays, meta)
