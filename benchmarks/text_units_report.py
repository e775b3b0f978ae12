"""F and ∇F of real text in other units: one column × 10⁸, a Unix time in ms, unit sizes.

    features D,  log-penalties + 2 log d        the same problem, the same F and ∇F

Usage: python benchmarks/text_units_report.py --data DIR --seed 1
"""

import argparse
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from solve_report import read

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm

UNIX_TIME, YEAR = 1.7e12, 3.15e10  # in ms


def evaluate(features, targets, train, x):
    """Return one evaluation by the default options."""
    features = sp.csr_array(features)
    glm = Glm(features[train], targets[train], loss="logistic", penalty="per-feature")
    held = glm.held_out(features[~train], targets[~train])
    start = time.perf_counter()
    found = sad.Hypergradient(sad.Problem(glm), held).evaluate(x, certify=False)
    return found, time.perf_counter() - start


def changes(features, x, rng):
    """Yield the name of a change of units, the plain problem and the changed one."""
    n, sizes = x.shape[0], np.ones(x.shape[0])
    sizes[np.argmax(np.bincount(features.indices))] = 1e8
    root = np.sqrt(np.asarray(features.multiply(features).mean(axis=0)).ravel())
    for name, d in (
        ("one column x 1e8", sizes),
        ("all columns x 1e±8", 10.0 ** rng.uniform(-8.0, 8.0, n)),
        ("unit sizes", 1.0 / np.where(root > 0.0, root, 1.0)),
    ):
        scaled = features @ sp.diags_array(d)
        yield name, (features, x), (scaled, x + 2.0 * np.log(d))
    stamps = np.round(UNIX_TIME + YEAR * rng.standard_normal(features.shape[0]))
    column = (stamps - UNIX_TIME) / YEAR
    with_column, with_stamps = (
        sp.hstack([features, sp.csr_array(c[:, None])]) for c in (column, stamps)
    )
    x, changed = np.append(x, x.mean()), np.append(x, x.mean() + 2.0 * np.log(YEAR))
    yield "a Unix time in ms", (with_column, x), (with_stamps, changed)


def main() -> None:
    """Print the differences of F and ∇F, the products and the seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    features, targets = read(arguments.data, "text_farm_ads")
    rng = np.random.default_rng(arguments.seed)
    train = rng.random(features.shape[0]) < 0.75
    print("penalty  change                 F        gradient  products     seconds")
    for penalty in (1e-2, 1e-4):
        x = np.log(penalty) + 0.3 * rng.standard_normal(features.shape[1])
        for name, plain, changed in changes(features, x, rng):
            (a, s), (b, t) = (
                evaluate(data, targets, train, at) for data, at in (plain, changed)
            )
            value = abs(a.value - b.value) / abs(a.value)
            gradient = np.linalg.norm(a.gradient - b.gradient)
            gradient /= np.linalg.norm(a.gradient)
            print(
                f"{penalty:<8.0e} {name:<20} {value:8.1e}  {gradient:8.1e}  "
                f"{a.n_hvp:>4} -> {b.n_hvp:<4} {s:.2f} -> {t:.2f}"
            )


if __name__ == "__main__":
    main()
