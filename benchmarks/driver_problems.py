"""Bi-level problems of many kinds, each drawn from a seed: what ``driver_profile.py`` runs.

    case = PROBLEMS["tables: poisson"](rng)          -> Case(problem, upper, x0, bounds)

Kinds: text (n >> N), tables (N >> n and N ~ n, dense, correlated), losses squared, logistic,
multinomial, Poisson and Huber, groups, one penalty, few penalties, priors, bounds and none,
data cleaning (a weight for each sample), an image and a chain (a weight for each edge),
constrained lower levels, and models given as plain functions, without the structure of Glm.
Real sets: scikit-learn's, and libsvm_a9a, libsvm_w8a, text_farm_ads, gene_small_n in a folder.
"""

from __future__ import annotations

import dataclasses
import gzip
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse
from scipy.special import expit

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm

BOX = (np.log(1e-8), np.log(1e3))


@dataclasses.dataclass(frozen=True)
class Case:
    """A bi-level problem with its start."""

    problem: Any
    upper: Any
    x0: np.ndarray
    bounds: Any = None


class Prior:
    """A held-out loss plus ½ Σ ((x − c) / s)² / rows: a Gaussian prior of log-penalties."""

    def __init__(self, loss, centre: np.ndarray, rows: int, deviation=1.0) -> None:
        self.loss, self.centre = loss, centre
        self.weight = 1.0 / (rows * deviation**2)
        self.grad_y = loss.grad_y

    def value(self, x, y):
        """Return the loss and the prior's part."""
        move = x - self.centre
        return self.loss.value(x, y) + 0.5 * self.weight * float(move @ move)

    def grad_x(self, x, y):
        """Return the prior's part of the derivative."""
        return self.weight * (x - self.centre)


# features ----------------------------------------------------------------------------


def text(rng, rows: int, columns: int, words: int):
    """Return sparse rows of Zipf-like columns, and the part of each row that matters."""
    frequency = 1.0 / np.arange(1, columns + 1) ** 0.8
    drawn = rng.choice(columns, size=(rows, words), p=frequency / frequency.sum())
    features = sparse.csr_array(
        (np.ones(rows * words), drawn.ravel(), np.arange(0, rows * words + 1, words)),
        shape=(rows, columns),
    )
    features.sum_duplicates()
    features.data[:] = 1.0
    truth = rng.standard_normal(columns) * (rng.random(columns) < 0.1)
    return features, features @ truth


def table(rng, rows: int, columns: int, *, decay: float = 0.0, share: float = 0.3):
    """Return dense features with principal deviations j^−decay, and a sparse signal."""
    features = rng.standard_normal((rows, columns))
    if decay:
        turn = np.linalg.qr(rng.standard_normal((columns, columns)))[0]
        spread = np.arange(1.0, columns + 1) ** -decay
        features = (features * (spread * np.sqrt(columns / (spread @ spread)))) @ turn.T
    truth = rng.standard_normal(columns) * (rng.random(columns) < share)
    signal = features @ truth
    return features, signal / (signal.std() or 1.0)


def targets_of(loss: str, signal, rng, classes: int = 4):
    """Return targets of a loss from a signal of deviation 1, with noise."""
    noise = rng.standard_normal(signal.shape)
    if loss == "logistic":
        return (2.0 * signal + noise > 0).astype(float)
    if loss == "poisson":
        return rng.poisson(np.exp(0.7 * signal)).astype(float)
    if loss == "huber":
        return signal + noise * np.where(rng.random(signal.shape) < 0.1, 5.0, 0.5)
    if loss == "multinomial":
        cuts = np.quantile(signal, np.linspace(0, 1, classes + 1)[1:-1])
        return np.searchsorted(cuts, signal + 0.5 * noise)
    return signal + 0.7 * noise


def glm_case(
    rng,
    features,
    targets,
    loss: str,
    *,
    train: float = 0.6,
    bounds: Any = None,
    prior: float | None = None,
    **options: Any,
) -> Case:
    """Return the case of a Glm whose rows are split at random; the start is one number."""
    order = rng.permutation(features.shape[0])
    half = int(train * len(order))
    fit, held = order[:half], order[half:]
    glm = Glm(features[fit], targets[fit], loss=loss, **options)
    upper = glm.held_out(features[held], targets[held])
    x0 = np.full(glm.m, np.log(10.0) * rng.uniform(-3.5, -0.5))
    if prior is not None:
        upper = Prior(upper, x0, len(held), prior)
    return Case(sad.Problem(glm), upper, x0, bounds)


def _text(loss, rows=600, columns=4000, words=40, **options):
    def build(rng):
        features, signal = text(rng, rows, columns, words)
        targets = targets_of(loss, signal / signal.std(), rng)
        return glm_case(rng, features, targets, loss, **options)

    return build


def _table(loss, rows, columns, *, decay=0.0, share=0.3, **options):
    def build(rng):
        features, signal = table(rng, rows, columns, decay=decay, share=share)
        return glm_case(rng, features, targets_of(loss, signal, rng), loss, **options)

    return build


def _groups(loss, rows, sizes, kind="per-group", **options):
    def build(rng):
        groups = np.repeat(np.arange(len(sizes)), sizes)
        features = rng.standard_normal((rows, len(groups)))
        size = np.exp(rng.uniform(-3.0, 1.0, len(sizes)))[groups]
        signal = features @ (rng.standard_normal(len(groups)) * size)
        targets = targets_of(loss, signal / signal.std(), rng)
        return glm_case(
            rng, features, targets, loss, penalty=kind, groups=groups, **options
        )

    return build


def one_penalty(rng) -> Case:
    """Return a ridge with one penalty, whose columns and targets have means."""
    features, signal = table(rng, 150, 20)
    features = features + 10.0 ** rng.uniform(-1, 2)
    targets = targets_of("squared", signal, rng) + 10.0
    case = glm_case(rng, features, targets, "squared", penalty="scalar")
    return dataclasses.replace(case, x0=np.array([rng.uniform(-8.0, 8.0)]))


# plain functions ---------------------------------------------------------------------


def plain(loss: str, rows: int, columns: int, *, density=0.1, decay=0.0):
    """Return a builder of a linear model as plain functions of (log-penalties, y)."""

    def build(rng):
        if decay:
            features, signal = table(rng, rows, columns, decay=decay)
        else:
            features = sparse.csr_array(
                sparse.random(rows, columns, density, rng=rng, format="csr")
            )
            signal = features @ rng.standard_normal(columns)
            signal = signal / signal.std()
        targets = targets_of(loss, signal, rng)
        half = int(0.6 * rows)
        A, a, B, b = features[:half], targets[:half], features[half:], targets[half:]
        if loss == "logistic":
            a, b = 2.0 * a - 1.0, 2.0 * b - 1.0
        value, slope, curvature = {
            "logistic": (
                lambda z, t: np.logaddexp(0.0, -t * z),
                lambda z, t: -t * expit(-t * z),
                lambda z, t: expit(z) * expit(-z),
            ),
            "squared": (
                lambda z, t: 0.5 * (z - t) ** 2,
                lambda z, t: z - t,
                lambda z, t: np.ones_like(z),
            ),
        }[loss]

        def hvp(x, y, v):
            return A.T @ (curvature(A @ y, a) / half * (A @ v)) + np.exp(x) * v

        objective = sad.FunctionObjective(
            n=columns,
            value=lambda x, y: value(A @ y, a).mean() + 0.5 * np.exp(x) @ y**2,
            grad=lambda x, y: A.T @ slope(A @ y, a) / half + np.exp(x) * y,
            hvp=hvp,
            cross_vjp=lambda x, y, w: np.exp(x) * y * w,
            cross_jvp=lambda x, y, u: np.exp(x) * y * u,
        )
        upper = sad.FunctionUpper(
            lambda x, y: value(B @ y, b).mean(),
            lambda x, y: B.T @ slope(B @ y, b) / len(b),
        )
        x0 = np.log(10.0) * rng.uniform(-3.5, -1.0) + 0.3 * rng.standard_normal(columns)
        return Case(sad.Problem(objective), upper, x0)

    return build


def cleaning(rng) -> Case:
    """Return logistic regression with a weight σ(x_i) for each row, some mislabelled."""
    features, signal = table(rng, 500, 30)
    labels = np.where(signal + 0.2 * rng.standard_normal(500) > 0, 1.0, -1.0)
    A, a, B, b = features[:300], labels[:300].copy(), features[300:], labels[300:]
    a[rng.random(300) < 0.25] *= -1.0

    def slope(x, y):
        return expit(x) / 300 * -a * expit(-a * (A @ y))

    def hvp(x, y, v):
        z = A @ y
        return A.T @ (expit(x) / 300 * expit(z) * expit(-z) * (A @ v)) + 1e-2 * v

    objective = sad.FunctionObjective(
        n=30,
        value=lambda x, y: (
            expit(x) @ np.logaddexp(0.0, -a * (A @ y)) / 300 + 5e-3 * float(y @ y)
        ),
        grad=lambda x, y: A.T @ slope(x, y) + 1e-2 * y,
        hvp=hvp,
        cross_vjp=lambda x, y, w: expit(-x) * slope(x, y) * (A @ w),
        cross_jvp=lambda x, y, u: A.T @ (expit(-x) * slope(x, y) * u),
    )
    upper = sad.FunctionUpper(
        lambda x, y: float(np.logaddexp(0.0, -b * (B @ y)).mean()),
        lambda x, y: B.T @ (-b * expit(-b * (B @ y))) / len(b),
    )
    return Case(sad.Problem(objective), upper, np.zeros(300))


def _edges(differences, clean, noisy, rng, bounds):
    """Return denoising: ½‖y − noisy‖² + Σ_e e^{x_e} √((D y)_e² + ε²), a weight an edge."""
    D, eps = differences, 0.05
    m, n = D.shape

    def root(y):
        d = D @ y
        return d, np.sqrt(d * d + eps * eps)

    def grad(x, y):
        d, r = root(y)
        return y - noisy + D.T @ (np.exp(x) * d / r)

    def hvp(x, y, v):
        _, r = root(y)
        return v + D.T @ (np.exp(x) * eps * eps / r**3 * (D @ v))

    def cross_vjp(x, y, w):
        d, r = root(y)
        return np.exp(x) * d / r * (D @ w)

    def cross_jvp(x, y, u):
        d, r = root(y)
        return D.T @ (np.exp(x) * d / r * u)

    objective = sad.FunctionObjective(
        n=n,
        value=lambda x, y: (
            0.5 * float((y - noisy) @ (y - noisy)) + float(np.exp(x) @ root(y)[1])
        ),
        grad=grad,
        hvp=hvp,
        cross_vjp=cross_vjp,
        cross_jvp=cross_jvp,
    )
    upper = sad.FunctionUpper(
        lambda x, y: 0.5 * float(np.mean((y - clean) ** 2)),
        lambda x, y: (y - clean) / n,
    )
    x0 = np.full(m, rng.uniform(-4.0, -1.5))
    return Case(sad.Problem(objective), upper, x0, bounds)


def image(rng) -> Case:
    """Return the denoising of a picture of 28 x 28 pixels."""
    s = 28
    a, b = np.mgrid[:s, :s] / s
    centre = rng.uniform(0.3, 0.7, 2)
    disc = (a - centre[0]) ** 2 + (b - centre[1]) ** 2 < 0.07
    clean = (
        0.3 + 0.4 * disc + 0.3 * (np.abs(b - rng.uniform(0.6, 0.9)) < 0.08)
    ).ravel()
    one = sparse.diags_array(
        [-np.ones(s - 1), np.ones(s - 1)], offsets=[0, 1], shape=(s - 1, s)
    )
    eye = sparse.eye_array(s)
    D = sparse.csr_array(sparse.vstack([sparse.kron(eye, one), sparse.kron(one, eye)]))
    noisy = clean + 0.1 * rng.standard_normal(s * s)
    return _edges(D, clean, noisy, rng, (-8.0, 4.0))


def chain(rng) -> Case:
    """Return the denoising of a piecewise constant signal of 300 points, no bounds."""
    n = 300
    clean = np.repeat(rng.standard_normal(12), n // 12)
    D = sparse.csr_array(
        sparse.diags_array(
            [-np.ones(n - 1), np.ones(n - 1)], offsets=[0, 1], shape=(n - 1, n)
        )
    )
    return _edges(D, clean, clean + 0.3 * rng.standard_normal(n), rng, None)


def nonnegative(rng) -> Case:
    """Return a ridge with coefficients >= 0 and a penalty for each."""
    features, _ = table(rng, 240, 40)
    truth = np.maximum(rng.standard_normal(40), 0.0)
    signal = features @ truth
    targets = targets_of("squared", signal / signal.std(), rng)
    case = glm_case(rng, features, targets, "squared", intercept=False, bounds=(-12, 5))
    problem = sad.Problem(case.problem.objective, lower=0.0)
    return dataclasses.replace(case, problem=problem)


def summing_to_one(rng) -> Case:
    """Return a ridge whose coefficients sum to one."""
    features, signal = table(rng, 160, 60, decay=0.5)
    targets = targets_of("squared", signal, rng)
    case = glm_case(rng, features, targets, "squared", intercept=False)
    row = sad.LinearEquality(np.ones((1, 60)), np.ones(1))
    problem = sad.Problem(case.problem.objective, equality=row)
    return dataclasses.replace(case, problem=problem)


PROBLEMS: dict[str, Callable[[Any], Case]] = {
    "text: logistic": _text("logistic"),
    "text: squared, bounds": _text("squared", bounds=BOX),
    "text: poisson": _text("poisson", 500, 2000, 25, bounds=BOX),
    "text: logistic, prior": _text("logistic", 800, 3000, 40, prior=1.0),
    "tall: squared": _table("squared", 1000, 60),
    "tall: logistic": _table("logistic", 1200, 50, bounds=BOX),
    "correlated: logistic": _table("logistic", 700, 200, decay=1.0),
    "correlated: logistic, prior": _table("logistic", 700, 200, decay=1.0, prior=1.0),
    "correlated: squared, bounds": _table("squared", 500, 200, decay=0.7, bounds=BOX),
    "table: poisson": _table("poisson", 500, 80, decay=0.3),
    "table: huber, prior": _table("huber", 500, 100, prior=1.5),
    "table: huber, bounds": _table("huber", 400, 100, decay=0.5, bounds=BOX),
    "table: multinomial": _table("multinomial", 500, 40, decay=0.3),
    "table: multinomial, per coefficient": _table(
        "multinomial", 400, 30, penalty="per-coefficient", bounds=BOX
    ),
    "groups: squared": _groups("squared", 300, (30, 60, 90)),
    "groups: logistic": _groups("logistic", 500, (10,) * 20, bounds=BOX),
    "one penalty": one_penalty,
    "plain: logistic": plain("logistic", 800, 300),
    "plain: squared, correlated": plain("squared", 500, 150, decay=1.0),
    "cleaning": cleaning,
    "image": image,
    "chain": chain,
    "constrained: y >= 0": nonnegative,
    "constrained: sum of y": summing_to_one,
}


# real sets ---------------------------------------------------------------------------


def _scaled(features):
    spread = features.std(axis=0)
    return (features - features.mean(axis=0))[:, spread > 0] / spread[spread > 0]


def _of_sklearn(name: str, loss: str, **options: Any):
    def build(rng):
        from sklearn import datasets

        features, targets = getattr(datasets, f"load_{name}")(return_X_y=True)
        if loss == "squared":
            targets = (targets - targets.mean()) / targets.std()
        if loss == "logistic":
            targets = (targets > 0).astype(float)
        return glm_case(rng, _scaled(features), targets, loss, **options)

    return build


def _libsvm(path: pathlib.Path, columns: int, rows: int, **options: Any):
    def build(rng):
        from sklearn.datasets import load_svmlight_file

        with gzip.open(path) as file:
            features, targets = load_svmlight_file(file, n_features=columns)
        keep = rng.permutation(features.shape[0])[:rows]
        features = sparse.csr_array(features)[keep]
        used = np.flatnonzero(features.count_nonzero(axis=0))
        targets = (targets[keep] > 0).astype(float)
        return glm_case(rng, features[:, used], targets, "logistic", **options)

    return build


def _farm_ads(folder: pathlib.Path, **options: Any):
    def build(rng):
        features = sparse.csr_array(sparse.load_npz(folder / "X_raw.npz"))
        targets = np.load(folder / "y_raw.npy", allow_pickle=False)
        keep = rng.permutation(features.shape[0])[:800]
        features = features[keep]
        used = np.flatnonzero(features.count_nonzero(axis=0))
        targets = (targets[keep] > 0).astype(float)
        return glm_case(rng, features[:, used], targets, "logistic", **options)

    return build


def _leukemia(path: pathlib.Path):
    def build(rng):
        from scipy.io import loadmat

        data = loadmat(path)
        features = _scaled(np.asarray(data["X"], dtype=float))
        targets = np.asarray(data["Y"]).ravel()
        targets = (targets == targets.max()).astype(float)
        return glm_case(rng, features, targets, "logistic", bounds=BOX)

    return build


def real_problems(data: pathlib.Path | None) -> dict[str, Callable[[Any], Case]]:
    """Return the cases of scikit-learn's sets, and of those found in a folder."""
    found: dict[str, Callable[[Any], Case]] = {
        "real: breast_cancer": _of_sklearn("breast_cancer", "logistic", bounds=BOX),
        "real: diabetes": _of_sklearn("diabetes", "squared"),
        "real: wine": _of_sklearn("wine", "multinomial", prior=1.0),
        "real: digits": _of_sklearn("digits", "multinomial", train=0.4, bounds=BOX),
    }
    if data is None:
        return found
    of_folder = {
        "real: a9a": ("libsvm_a9a/a1a.gz", lambda p: _libsvm(p, 123, 1600)),
        "real: w8a": ("libsvm_w8a/w8a.gz", lambda p: _libsvm(p, 300, 3000, prior=1.0)),
        "real: farm_ads": ("text_farm_ads/X_raw.npz", lambda p: _farm_ads(p.parent)),
        "real: leukemia": ("gene_small_n/leukemia.mat", _leukemia),
    }
    for name, (path, build) in of_folder.items():
        if (data / path).is_file():
            found[name] = build(data / path)
    return found
