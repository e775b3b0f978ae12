"""Generated designs with fixed seeds, shared by the benchmark classes."""

from __future__ import annotations

import numpy as np
from scipy import sparse

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm, HeldOutLoss


def text_like(
    n_samples: int = 2000, n_features: int = 50_000, row: int = 100, seed: int = 0
) -> tuple[sparse.csr_array, np.ndarray]:
    """Binary rows with Zipf-like column frequencies, and labels from a sparse model."""
    rng = np.random.default_rng(seed)
    frequency = 1.0 / np.arange(1, n_features + 1) ** 0.8
    columns = rng.choice(
        n_features, size=(n_samples, row), p=frequency / frequency.sum()
    )
    features = sparse.csr_array(
        (
            np.ones(n_samples * row),
            columns.ravel().astype(np.int32),
            np.arange(0, n_samples * row + 1, row, dtype=np.int32),
        ),
        shape=(n_samples, n_features),
    )
    features.sum_duplicates()
    features.data[:] = 1.0
    truth = rng.standard_normal(n_features) * (rng.random(n_features) < 0.1)
    margin = features @ truth
    labels = (margin + rng.standard_normal(n_samples) > 0).astype(float)
    return features, labels


def text_problem(**kwargs: int) -> tuple[sad.Problem, HeldOutLoss, np.ndarray]:
    """Per-feature logistic ridge on half of the rows; validation loss on the rest."""
    features, labels = text_like(**kwargs)
    half = features.shape[0] // 2
    glm = Glm(features[:half], labels[:half])
    upper = glm.held_out(features[half:], labels[half:])
    return sad.Problem(glm), upper, np.full(glm.m, np.log(1e-3))


def correlated(
    n_samples: int = 3000, n_features: int = 1000, decay: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Dense features whose j-th principal deviation is j^-decay, and noisy labels."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.standard_normal((n_features, n_features)))
    deviations = 0.75 * np.sqrt(n_features) * np.arange(1, n_features + 1.0) ** -decay
    features = (rng.standard_normal((n_samples, n_features)) * deviations) @ turn.T
    margin = features @ rng.standard_normal(n_features)
    margin *= 2.0 / margin.std()
    labels = (margin + rng.standard_normal(n_samples) > 0).astype(float)
    return features, labels


def correlated_problem(**kwargs: float) -> tuple[sad.Problem, HeldOutLoss, np.ndarray]:
    """Per-feature logistic ridge on half of the rows; validation loss on the rest."""
    features, labels = correlated(**kwargs)
    half = features.shape[0] // 2
    glm = Glm(features[:half], labels[:half])
    upper = glm.held_out(features[half:], labels[half:])
    return sad.Problem(glm), upper, np.full(glm.m, np.log(1e-3))


def laplacian(side: int) -> sparse.csr_array:
    """The 5-point Laplacian on a square grid of side² unknowns."""
    one = sparse.diags_array(
        [-np.ones(side - 1), 2.0 * np.ones(side), -np.ones(side - 1)],
        offsets=[-1, 0, 1],
    )
    eye = sparse.eye_array(side)
    grid = sparse.csr_array(sparse.kron(one, eye) + sparse.kron(eye, one))
    grid.indices = grid.indices.astype(np.int32)
    grid.indptr = grid.indptr.astype(np.int32)
    return grid
