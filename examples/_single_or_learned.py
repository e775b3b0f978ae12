"""Learned penalties beside the best single one, by the same folds, over several draws."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

try:
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedKFold

    from sparse_argdiff.estimators import LinearClassifierCV
except ImportError as error:
    sys.exit(f"error: {error}; pip install 'sparse_argdiff[examples]'")


def compare(
    X: Any, y: np.ndarray, learn: int, grid: np.ndarray, seed: int, **options: Any
) -> tuple[list[float], LinearClassifierCV]:
    """Return the log losses of both on the rows from ``learn`` on, and the learned model."""
    shuffled = StratifiedKFold(5, shuffle=True, random_state=seed)
    folds = list(shuffled.split(y[:learn], y[:learn]))
    single = LogisticRegressionCV(
        Cs=grid,
        cv=folds,
        scoring="neg_log_loss",
        max_iter=1000,
        l1_ratios=(0.0,),
        use_legacy_attributes=False,
    )
    learned = LinearClassifierCV(cv=folds, **options)
    losses = []
    for model in (single, learned):
        model.fit(X[:learn], y[:learn])
        losses.append(log_loss(y[learn:], model.predict_proba(X[learn:])))
    return losses, learned


def over_draws(
    description: str | None,
    arguments: list[str] | None,
    compared: Callable[[int], tuple[list[float], LinearClassifierCV]],
    shown: Callable[[LinearClassifierCV], str],
) -> list[LinearClassifierCV]:
    """Print a line for each draw, and the mean change; return the models."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=5)
    draws = parser.parse_args(arguments).draws
    print(f"{'draw':>5s}{'single':>9s}{'learned':>9s}")
    losses, models = [], []
    for seed in range(draws):
        found, model = compared(seed)
        losses.append(found)
        models.append(model)
        print(f"{seed:5d}{found[0]:9.4f}{found[1]:9.4f}   {shown(model)}")
    print(f"\n{models[-1].summary()}")
    gains = np.diff(losses, axis=1)[:, 0]
    error = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else np.nan
    single, learned = np.mean(losses, axis=0)
    print(
        f"\nlog loss {single:.4f} and {learned:.4f}, change {gains.mean():+.4f} +- "
        f"{error:.4f} over {len(gains)} draws"
    )
    return models


def write(draw: Callable[[Any, Path], None], models: Any, name: str) -> None:
    """Draw the models into a file of the folder ``output``."""
    path = Path("output") / name
    path.parent.mkdir(exist_ok=True)
    draw(models, path)
    print(f"drawn in {path}")
