"""What CG and MINRES cost and how true they are, beside SciPy's.

    python benchmarks/krylov_report.py [--data DIR] [--parts timing systems errors block]

DIR holds ``spd_harwell_boeing``, ``spd_pyamg`` and ``text_farm_ads``; without it the parts
that read them use generated problems.  Set OPENBLAS_NUM_THREADS=1.  Times are medians of
interleaved runs, in CPU seconds of this process: what others do on the machine counts less.
"""

from __future__ import annotations

import argparse
import math
import pathlib
import statistics
import sys
import time
import warnings

import numpy as np
import scipy.io
from scipy import sparse
from scipy.sparse import linalg

import sparse_argdiff as sad
from sparse_argdiff.krylov import Workspace
from sparse_argdiff.linear_model import Glm

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from benchmarks.designs import laplacian, text_like

OURS = {"cg": sad.cg, "minres": sad.minres}
PARTS = ("timing", "systems", "errors", "block")


def cpu_seconds(function, *args) -> float:
    """Return the CPU time of one call."""
    start = time.process_time()
    function(*args)
    return time.process_time() - start


def timing(args) -> None:
    """(a) Time per iteration: the slope between a short and a long run."""
    print(
        f"\n(a) 5-point Laplacian, n = {args.side**2:.1e}: ms per iteration (x SciPy)"
    )
    for dtype in ("float64", "float32"):
        A = laplacian(args.side).astype(dtype)
        b = np.random.default_rng(0).standard_normal(A.shape[0]).astype(dtype)
        for method in OURS:
            medians = _per_iteration(A, b, method, args.rounds)
            base = medians["scipy"]
            row = "  ".join(
                f"{name} {1e3 * t:7.2f} ({base / t:4.2f}x)"
                for name, t in medians.items()
            )
            print(f"  {dtype} {method:6s}  {row}")


def _per_iteration(A, b, method, rounds) -> dict[str, float]:
    workspace = Workspace()

    def ours(kernels):
        return lambda steps: OURS[method](
            A, b, rtol=0.0, maxiter=steps, kernels=kernels, workspace=workspace
        )

    runs = {
        "scipy": lambda steps: getattr(linalg, method)(A, b, rtol=0.0, maxiter=steps),
        "reference": ours("reference"),
        "compiled": ours("compiled"),
    }
    slopes: dict[str, list[float]] = {name: [] for name in runs}
    short, long = 2, 12
    runs["compiled"](1)  # compilation, or its cache, is not an iteration
    for _ in range(rounds):
        for name, run in runs.items():
            less, more = cpu_seconds(run, short), cpu_seconds(run, long)
            slopes[name].append((more - less) / (long - short))
    return {name: statistics.median(values) for name, values in slopes.items()}


def shared_systems(data: pathlib.Path | None):
    """Yield (name, A) of all matrices there, or of two generated ones."""
    if data is None:
        yield "laplacian 60", laplacian(60)
        yield "graded 500", sparse.diags_array(np.geomspace(1.0, 1e7, 500)).tocsr()
        return
    for path in sorted((data / "spd_harwell_boeing").glob("*.mtx.gz")):
        yield path.name.partition(".")[0], sparse.csr_array(scipy.io.mmread(path))
    for path in sorted((data / "spd_pyamg").glob("*.mat")):
        yield path.stem, sparse.csr_array(scipy.io.loadmat(path)["A"])


def right_hand_side(A, consistent: bool) -> np.ndarray:
    """Return a random vector, or A times one: consistent whatever A is."""
    v = np.random.default_rng(1).standard_normal(A.shape[1]).astype(A.dtype)
    return A @ v if consistent else v


def systems(args) -> None:
    """(b) Claimed and true residuals at rtol 1e-10, and in float32 at 1e-6."""
    cases = [("float64", 1e-10, "none"), ("float64", 1e-10, "jacobi")]
    cases.append(("float32", 1e-6, "jacobi"))
    for dtype, rtol, order in cases:
        print(f"\n(b) {dtype}, rtol {rtol:g}, M {order}; true = ‖b − A x‖ / ‖b‖")
        print(
            f"  {'matrix':28s} {'n':>6} method  {'status':18s} {'iter':>6} "
            f"{'claimed':>8} {'true':>8} | SciPy: says   true"
        )
        for name, A in shared_systems(args.data):
            for method in OURS:
                print(f"  {name:29s} {A.shape[0]:5d} {method:7s}", end=" ")
                print(_compared(A, method, dtype, rtol, order))
                if name == "unit_square":  # singular
                    print(f"  {'  inconsistent b':29s} {'':5s} {method:7s}", end=" ")
                    print(_compared(A, method, dtype, rtol, order, consistent=False))


def _compared(A, method, dtype, rtol, order, consistent=True) -> str:
    try:
        A = A if np.iscomplexobj(A.data) else A.astype(dtype)
        b = right_hand_side(A, consistent)
        M = None if order == "none" else sad.preconditioners.jacobi(A.diagonal())
        limit = 40 * A.shape[0]
        ours = OURS[method](A, b, rtol=rtol, M=M, maxiter=limit)
    except (TypeError, ValueError) as refusal:
        return f"refused: {refusal}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        diagonal = None if M is None else sparse.diags_array(M.diagonal()).tocsr()
        x, info = getattr(linalg, method)(A, b, rtol=rtol, maxiter=limit, M=diagonal)
    wide, size = A.astype(float), float(np.linalg.norm(b.astype(float)))

    def true(x):
        return float(np.linalg.norm(b - wide @ x.astype(float))) / size

    said = "solved" if info == 0 else "failed"
    return (
        f"{ours.status.name:18s} {ours.niter:6d} {ours.residual_norm / size:8.1e} "
        f"{true(ours.x):8.1e} | {said:>6} {true(x):8.1e}"
    )


def random_systems(count: int = 200):
    """Yield (name, A, M): spectra of five kinds, n to 300, condition 10 to 1e6."""
    rng = np.random.default_rng(0)
    for i in range(count):
        n, c = int(rng.integers(20, 300)), 10.0 ** rng.uniform(1.0, 6.0)
        spectrum = (
            np.geomspace(1.0, c, n),
            np.linspace(1.0, c, n),
            c ** rng.uniform(0.0, 1.0, n),
            1.0 / c + rng.standard_normal(n) ** 4,
            np.concatenate([c ** rng.uniform(0.0, 1.0, 5), rng.uniform(1, 2, n - 5)]),
        )[i % 5]
        Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
        A = (Q * spectrum) @ Q.T
        A = (A + A.T) / 2.0
        if i % 2:
            scale = 10.0 ** rng.uniform(-1.0, 1.0, n)
            A = scale[:, None] * A * scale
        yield (
            f"random {i}",
            A,
            sad.preconditioners.jacobi(np.diag(A)) if i % 2 else None,
        )


class Truth:
    """√(r'A⁻¹r) by a factorisation, of a residual in extended precision."""

    def __init__(self, A):
        self.dense = A.toarray() if sparse.issparse(A) else A
        self._factor = scipy.linalg.cho_factor(self.dense)
        self._wide = self.dense.astype(np.longdouble)

    def __call__(self, b, x) -> float:
        r = (b - self._wide @ x).astype(float)
        return math.sqrt(r @ scipy.linalg.cho_solve(self._factor, r))

    def smallest_eigenvalue(self, M) -> float:
        """Return that of M A."""
        scale = np.ones(len(self.dense)) if M is None else np.sqrt(M.diagonal())
        scaled = scale[:, None] * self.dense * scale
        return float(scipy.linalg.eigvalsh(scaled, subset_by_index=(0, 0))[0])


def error_ratios(cases, rtols=(1e-2, 1e-4, 1e-6, 1e-8)) -> np.ndarray:
    """Return the estimate and the bound of all solves that converged, over the truth."""
    rows = []
    for _, A, M in cases:
        truth = Truth(A)
        b = np.random.default_rng(2).standard_normal(A.shape[0])
        mu = 0.99 * truth.smallest_eigenvalue(M)
        for rtol in rtols:
            options = {"rtol": rtol, "M": M, "maxiter": 40 * len(b)}
            found = sad.cg(A, b, **options, smallest_eigenvalue=mu)
            if found.converged:
                true = truth(b, found.x)
                rows.append(
                    (found.energy_error / true, found.energy_error_bound / true)
                )
    return np.rec.fromrecords(rows, names=["ratio", "bound"])


def shared_definite(data):
    """Yield (name, A, M) of the definite systems, plain and with Jacobi."""
    for name, A in shared_systems(data):
        if name in {"helmholtz_2D", "recirc_flow", "unit_square"}:
            continue
        yield name, A, None
        yield name, A, sad.preconditioners.jacobi(A.diagonal())


def errors(args) -> None:
    """(c) The estimate of the energy norm of the error over the true one."""
    print("\n(c) energy_error / true at rtol 1e-2 ... 1e-8")
    groups = {
        "200 random": list(random_systems()),
        "shared": list(shared_definite(args.data)),
    }
    for group, cases in groups.items():
        found = error_ratios(cases)
        known = found.ratio[np.isfinite(found.ratio)]
        print(f"  {group}, {len(found)} solves")
        print(
            f"    energy_error_earlier   NaN {len(found) - len(known)}; no less than the "
            f"error of x in {100 * np.mean(known >= 1.0):.1f} %, median "
            f"{np.median(known):.1f} times"
        )
        print(
            f"    energy_error_bound     below the truth in "
            f"{np.sum(found.bound < 1.0 - 1e-9)}, median {np.median(found.bound):.2f}, "
            f"NaN {np.isnan(found.bound).sum()}"
        )


def block(args) -> None:
    """(d) 32 right-hand sides together and one by one."""
    if args.data is None:
        features, labels = text_like(4000, 55_000, 200)
    else:
        folder = args.data / "text_farm_ads"
        features = sparse.load_npz(folder / "X_raw.npz").tocsr()
        labels = np.load(folder / "y_raw.npy")
    glm = Glm(features, labels)
    x = np.full(glm.m, math.log(1e-4))
    y = sad.solve(sad.Problem(glm), x, tol=1e-6).y
    hess = glm.hess(x, y)
    M = sad.preconditioners.jacobi(hess.diagonal())
    B = np.random.default_rng(0).standard_normal((glm.n, 32))
    workspace = Workspace()
    options = {"M": M, "rtol": 1e-6, "workspace": workspace}

    def together():
        return sad.cg(hess, B, **options)

    def one_by_one():
        return [sad.cg(hess, B[:, j], **options) for j in range(B.shape[1])]

    plain = Glm(features, labels, kernels="reference").hess(x, y)
    diagonal = sparse.diags_array(M.diagonal()).tocsr()
    scipys = linalg.LinearOperator(plain.shape, plain.matvec, dtype=float)

    def scipy_one_by_one():
        for j in range(B.shape[1]):
            linalg.cg(scipys, B[:, j], rtol=1e-6, M=diagonal)

    times = {together: [], one_by_one: [], scipy_one_by_one: []}
    for _ in range(3):
        for function, seconds in times.items():
            seconds.append(cpu_seconds(function))
    both, each, scipy = (statistics.median(seconds) for seconds in times.values())
    found = together()
    print(
        f"\n(d) {glm}: 32 right-hand sides, {int(np.max(found.niter))} iterations at "
        f"most, all converged: {bool(np.all(found.converged))}\n"
        f"  together {both:.3f} s, one by one {each:.3f} s: {each / both:.2f}x; "
        f"SciPy's CG and products one by one {scipy:.3f} s: {scipy / both:.2f}x"
    )


def main() -> None:
    """Print the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--side", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    for part in args.parts:
        globals()[part](args)


if __name__ == "__main__":
    main()
