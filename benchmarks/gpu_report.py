"""Everything on a device in one command: build, check, time; a table at the end.

    PYTHONPATH=. python3 benchmarks/gpu_report.py [--small]

Needs NumPy, SciPy and CuPy, and takes less than eight minutes on a data-centre card.
Each line compares with a peer in the same run: CG and MINRES with those of
``cupyx.scipy.sparse.linalg``, the Gram product with two cuSPARSE products, a hypergradient
and a bi-level run with the same code on this machine's CPU.  ``--small`` shrinks the sizes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import numpy as np
from scipy import sparse

import sparse_argdiff as sad
from sparse_argdiff.arrays import array_module
from sparse_argdiff.linear_model import Glm

LINES: list[tuple[str, str, str]] = []


def report(what: str, found: str, target: str = "") -> None:
    """Print a line of the table now, and keep it."""
    LINES.append((what, found, target))
    print(f"{what:58} {found:28} {target}", flush=True)


def wait(cp) -> None:
    """Let the device finish what was launched."""
    cuda = getattr(cp, "cuda", None)
    if cuda is not None:
        cuda.Device().synchronize()


def seconds(cp, function, rounds: int = 5) -> float:
    """Return the median time of a call, the device's work included."""
    function()
    wait(cp)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        wait(cp)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def laplacian(side: int, dtype) -> sparse.csr_array:
    """Return the 5-point matrix on a square, shifted to be well conditioned."""
    n = side * side
    near = np.ones(n - 1, dtype)
    near[side - 1 :: side] = 0.0
    far = np.ones(n - side, dtype)
    matrix = sparse.diags_array(
        [-far, -near, np.full(n, 4.1, dtype), -near, -far],
        offsets=[-side, -1, 0, 1, side],
    )
    return sparse.csr_array(matrix.tocsr().astype(dtype))


def design(rows: int, columns: int, row: int) -> tuple[sparse.csr_array, np.ndarray]:
    """Return sparse Gaussian rows and labels from a sparse model."""
    rng = np.random.default_rng(0)
    indices = rng.integers(0, columns, size=(rows, row), dtype=np.int32)
    indices.sort(axis=1)
    values = rng.standard_normal(rows * row)
    indptr = np.arange(0, rows * row + 1, row, dtype=np.int64)
    if rows * row < 2**31:
        indptr = indptr.astype(np.int32)
    features = sparse.csr_array((values, indices.ravel(), indptr), (rows, columns))
    features.sum_duplicates()
    truth = rng.standard_normal(columns) * (rng.random(columns) < 0.01)
    noise = rng.logistic(size=rows)
    return features, (features @ truth + noise > 0.0).astype(float)


def bandwidth(cp, size: int) -> float:
    """Return the bytes per second of a copy: what no kernel can beat."""
    source = cp.ones(size)
    target = cp.zeros(size)

    def copy() -> None:
        target[...] = source

    rate = 16.0 * size / seconds(cp, copy, 20)
    report(f"copy of {size:,} float64", f"{rate / 1e9:.0f} GB/s")
    return rate


def check(cp, side: int = 60, shape: tuple[int, int, int] = (4000, 1500, 20)) -> None:
    """Compare the device's results with the host's, on problems of moderate size."""
    A = laplacian(side, np.float64)
    b = np.random.default_rng(0).standard_normal(side * side)
    there = sad.to_device(A), sad.to_device(b)
    for solver in (sad.cg, sad.minres):
        ours, host = solver(*there, rtol=1e-11), solver(A, b, rtol=1e-11)
        error = np.linalg.norm(ours.x.get() - host.x) / np.linalg.norm(host.x)
        name = solver.__name__
        report(f"check {name}: device against host", f"{error:.1e}", "<= 1e-9")
        assert error <= 1e-9, name
    features, labels = design(*shape)
    for kernels in (None, "deterministic", "reference"):
        glm = Glm(
            features, labels, kernels=kernels if kernels != "deterministic" else None
        )
        device = Glm(sad.to_device(features), sad.to_device(labels), kernels=kernels)
        x, rng = np.full(glm.m, -3.0), np.random.default_rng(1)
        y, v = rng.standard_normal((2, glm.n))
        expected = glm.hess(x, y) @ v
        found = device.hess(sad.to_device(x), sad.to_device(y)) @ sad.to_device(v)
        error = np.linalg.norm(found.get() - expected) / np.linalg.norm(expected)
        report(f"check Gram product, kernels={kernels}", f"{error:.1e}", "<= 1e-12")
        assert error <= 1e-12, kernels


def krylov(cp, sides: list[int], rate: float, few: int = 50, many: int = 250) -> None:
    """Time an iteration of CG and MINRES beside CuPy's."""
    from cupyx.scipy.sparse import linalg

    passes = {"cg": 10, "minres": 12}  # vectors read and written, beside the product
    for side in sides:
        for dtype in (np.float64, np.float32):
            A = sad.to_device(laplacian(side, dtype))
            n = side * side
            b = cp.asarray(np.random.default_rng(0).standard_normal(n).astype(dtype))
            for name, ours in (("cg", sad.cg), ("minres", sad.minres)):
                theirs = getattr(linalg, name)
                option = "rtol" if name == "cg" else "tol"

                def run_ours(limit, ours=ours, A=A, b=b):
                    ours(A, b, rtol=0.0, maxiter=limit)

                def run_theirs(limit, theirs=theirs, A=A, b=b, option=option):
                    theirs(A, b, maxiter=limit, **{option: 0.0})

                each = [
                    (
                        seconds(cp, lambda run=run: run(many), 3)
                        - seconds(cp, lambda run=run: run(few), 3)
                    )
                    / (many - few)
                    for run in (run_ours, run_theirs)
                ]
                size = np.dtype(dtype).itemsize
                moved = n * (size * (passes[name] + 2) + 4) + A.nnz * (size + 4)
                share = moved / rate / each[0]
                target = {"cg": ">= 2 x", "minres": ">= 3 x"}[name]
                if n > 2e6:
                    target = ">= 85 % of bandwidth" if n >= 2e7 else ""
                report(
                    f"{name} n = {n:,} {np.dtype(dtype).name}",
                    f"{1e6 * each[0]:8.1f} us {each[1] / each[0]:5.2f} x {share:5.0%}",
                    target,
                )


def gram(cp, rows: int, columns: int, row: int) -> None:
    """Time the Gram product beside two products of cuSPARSE."""
    features, labels = design(rows, columns, row)
    glm = Glm(sad.to_device(features), sad.to_device(labels))
    fixed = Glm(sad.to_device(features), sad.to_device(labels), kernels="deterministic")
    F = sad.to_device(features)
    Ft = F.T.tocsr()
    x, y = cp.full(glm.m, -3.0), cp.zeros(glm.n)
    v = cp.asarray(np.random.default_rng(0).standard_normal(glm.n))
    d = cp.full(rows, 0.25 / rows)
    weights = cp.exp(x)
    out = cp.zeros(glm.n)

    def theirs():
        return Ft @ (d * (F @ v[:-1])) + weights * v[:-1]

    base = seconds(cp, theirs, 20)
    for name, model in (("one pass", glm), ("two passes", fixed)):
        hess = model.hess(x, y)
        time_ours = seconds(cp, lambda h=hess: h.apply(v, out), 20)
        report(
            f"Gram product, {features.nnz:,} nonzeros, {name}",
            f"{1e3 * time_ours:.3f} ms, {base / time_ours:.2f} x cuSPARSE twice",
        )


def bilevel(cp, rows: int, columns: int, row: int, steps: int) -> None:
    """Time a hypergradient and a bi-level run on the device and on the host."""
    features, labels = design(rows, columns, row)
    cut = rows - rows // 5
    glm = Glm(features[:cut], labels[:cut])
    upper = glm.held_out(features[cut:], labels[cut:])
    x = np.full(glm.m, np.log(1e-4))
    there = sad.to_device((glm, upper, x))
    results, times = [], []
    for model, held_out, start in (there, (glm, upper, x)):
        problem = sad.Problem(model)
        begin = time.perf_counter()
        F = sad.Hypergradient(problem, held_out, tol=1e-10)
        results.append(F.evaluate(start, certify=False))
        wait(cp)
        times.append(time.perf_counter() - begin)
    host = results[1].gradient
    error = np.linalg.norm(results[0].gradient.get() - host) / np.linalg.norm(host)
    report(
        f"hypergradient, {features.nnz:,} nonzeros, m = {glm.m:,}",
        f"{times[0]:.2f} s, {times[1] / times[0]:.1f} x the CPU",
        ">= 15 x",
    )
    report("hypergradient, device against host", f"{error:.1e}", "<= 1e-10")
    runs = []
    for model, held_out, start in (there, (glm, upper, x)):
        begin = time.perf_counter()
        upper = sad.Sum(held_out, sad.prior(-4.0, 2.0, rows=held_out.n_observations))
        found = sad.minimize(sad.Problem(model), upper, start, maxiter=steps)
        wait(cp)
        runs.append((time.perf_counter() - begin, found))
    report(
        f"bi-level run, {runs[0][1].nit} steps, {runs[0][1].n_hvp} products",
        f"{runs[0][0]:.2f} s, {runs[1][0] / runs[0][0]:.1f} x the CPU",
    )


def main() -> None:
    """Run it all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="sizes for a first try")
    small = parser.parse_args().small
    try:
        cp = array_module("cupy")
    except (ImportError, RuntimeError) as error:
        sys.exit(f"gpu_report needs a device: {error}")
    start = time.perf_counter()
    name = cp.cuda.runtime.getDeviceProperties(0)["name"].decode()
    report("device", name)
    report("CuPy, NumPy", f"{cp.__version__}, {np.__version__}")
    check(cp)
    rate = bandwidth(cp, 10**7 if small else 10**8)
    krylov(cp, [100, 300] if small else [100, 300, 1000, 4500], rate)
    gram(cp, *((10**5, 10**4, 50) if small else (10**6, 10**6, 100)))
    bilevel(cp, *((10**5, 10**5, 20, 3) if small else (10**6, 10**6, 100, 5)))
    report("whole report", f"{time.perf_counter() - start:.0f} s", "<= 480 s")


if __name__ == "__main__":
    main()
