"""The device's kernels and loops, executed on the host: the .cu files by a shim.

What real CuPy would launch is launched here, by the same Python code, with blocks and
threads as fibers (``cuda_shim.h``); what would be read from the device is counted.
"""

from __future__ import annotations

import importlib.util
import itertools
import re
import shutil
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import cupy_standin
import numpy as np
import pytest
from cupy_standin import LOG

import sparse_argdiff as sad
from sparse_argdiff import Status
from sparse_argdiff.kernels import Device, choose
from sparse_argdiff.kernels.device import CHECK_EVERY

SOURCES = sorted(Path(sad.__file__).parent.rglob("*.cu"))
NVCC = shutil.which("nvcc")
each_source = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)

pytestmark = pytest.mark.skipif(
    cupy_standin.COMPILER is None, reason="needs a C++ compiler"
)


@pytest.fixture
def cupy(monkeypatch):
    LOG.clear()
    return cupy_standin.install(monkeypatch)


def spd(n, seed=0, condition=1e3, dtype=float):
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((n, n)))[0]
    A = (turn * np.geomspace(1.0, condition, n)) @ turn.T
    return (0.5 * (A + A.T)).astype(dtype), rng.standard_normal(n).astype(dtype)


def indefinite(n, condition=100.0, seed=0):
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((n, n)))[0]
    values = np.geomspace(1.0, condition, n)
    values *= np.where(np.arange(n) % 3 == 0, -1.0, 1.0)
    A = (turn * values) @ turn.T
    return 0.5 * (A + A.T), rng.standard_normal(n)


def test_the_shim_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = 'extern "C" __global__ void set(double* x) { x[0] = 3.0; }'
    names = [f"set /* {tmp_path.name} */"]  # compiled here, whatever came before
    kernel = cupy_standin.RawModule(code, name_expressions=names)
    x = cupy_standin.ndarray(np.zeros(1))
    kernel.get_function(names[0])((1,), (1,), (x,))
    assert x.get()[0] == 3.0
    assert list(tmp_path.iterdir()) == []


def test_there_are_sources():
    assert {path.stem for path in SOURCES} >= {"vectors", "loops"}


@each_source
@pytest.mark.skipif(NVCC is None, reason="needs nvcc")
def test_the_sources_compile_for_a_device(source, tmp_path):
    """Every kernel, in both precisions."""
    code = source.read_text("utf-8")
    kernels = re.findall(r"template <([^>]*)>\n__global__ void (\w+)\(", code)
    assert len(kernels) == code.count("__global__ void")
    uses = "".join(
        f"void* use_{kernel}_{k} = (void*)&{kernel}<{types}>;\n"
        for parameters, kernel in kernels
        for k, types in enumerate(
            ("float", "double")
            if "," not in parameters
            else ("float, int", "double, long long")
        )
    )
    path = tmp_path / "all.cu"
    path.write_text(code + uses, "utf-8")
    done = subprocess.run(
        [NVCC, "-std=c++17", "-arch=sm_80", "-c", str(path), "-o", str(tmp_path / "o")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("n", [1, 2, 31, 33, 300, 520])
@pytest.mark.parametrize("solver", [sad.cg, sad.minres])
def test_agrees_with_the_reference(cupy, solver, n, preconditioned, dtype):
    A, b = spd(n, condition=30.0, dtype=dtype)
    M = sad.preconditioners.jacobi(np.diag(A).copy()) if preconditioned else None
    rtol = 1e-4 if dtype == np.float32 else 1e-9
    there = sad.preconditioners.jacobi(cupy.array(np.diag(A).copy())) if M else None
    host = solver(A, b, rtol=rtol, M=M, kernels="reference")
    device = solver(cupy.array(A), cupy.array(b), rtol=rtol, M=there)
    assert isinstance(device.x, cupy.ndarray)
    assert device.x.dtype == dtype
    assert device.status is host.status is Status.CONVERGED
    assert abs(device.niter - host.niter) <= 2 + host.niter // 50
    x = device.x.get()
    assert np.linalg.norm(b - A @ x) <= 1.1 * rtol * np.linalg.norm(b)
    np.testing.assert_allclose(
        float(device.residual_norm), np.linalg.norm(b - A @ x), rtol=0.3
    )
    if solver is sad.cg and n > 100 and device.niter == host.niter:
        expected = pytest.approx(host.energy_error, rel=0.2, nan_ok=True)
        assert device.energy_error == expected


def test_indefinite_systems_take_the_iterations_of_the_reference(cupy):
    """Where the Lanczos vectors stay orthogonal rounding does not change the count."""
    A, b = indefinite(200, condition=4.0)
    host = sad.minres(A, b, rtol=1e-9, kernels="reference")
    device = sad.minres(cupy.array(A), cupy.array(b), rtol=1e-9)
    assert host.niter < 100
    assert abs(device.niter - host.niter) <= 1


def test_indefinite_systems_agree_with_the_reference(cupy):
    A, b = indefinite(200)
    host = sad.minres(A, b, rtol=1e-9, kernels="reference")
    device = sad.minres(cupy.array(A), cupy.array(b), rtol=1e-9)
    assert device.status is Status.CONVERGED
    # Three times n: orthogonality is lost, and the count depends on rounding.
    assert abs(device.niter - host.niter) <= 3 + host.niter // 20
    np.testing.assert_allclose(device.x.get(), host.x, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("last", [-1.0, 0.0])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_zero_curvature_is_told_apart(cupy, last, preconditioned):
    A, b = np.diag([1.0, last]), np.ones(2)
    M = sad.preconditioners.jacobi(cupy.array(np.ones(2))) if preconditioned else None
    status = sad.cg(cupy.array(A), cupy.array(b), M=M).status
    assert status is (Status.NEGATIVE_CURVATURE if last else Status.SINGULAR)


@pytest.mark.parametrize("solver", [sad.cg, sad.minres])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_the_host_looks_once_every_ten_iterations(cupy, solver, preconditioned):
    A, b = spd(200, condition=1e5)
    there, rhs = cupy.array(A), cupy.array(b)
    M = None
    if preconditioned:
        M = sad.preconditioners.jacobi(cupy.array(np.diag(A).copy()))
    counts = {}
    for limit in (20, 120):
        LOG.clear()
        found = solver(there, rhs, rtol=0.0, maxiter=limit, M=M)
        assert found.niter == limit
        counts[limit] = LOG["syncs"]
    most = 100 // CHECK_EVERY * (1 if solver is sad.cg else 2)  # MINRES may ask for ‖x‖
    assert counts[120] - counts[20] <= most


@pytest.mark.parametrize("every", [1, 3, 25])
@pytest.mark.parametrize("solver", [sad.cg, sad.minres])
def test_how_often_the_host_looks_is_the_callers(cupy, solver, every):
    A, b = spd(60)
    host = solver(A, b, kernels="reference")
    found = solver(cupy.array(A), cupy.array(b), kernels=Device(check_every=every))
    assert found.status is Status.CONVERGED
    assert abs(found.niter - host.niter) <= 2
    assert found.n_matvec <= found.niter + 1 + every


def test_launches_of_an_iteration(cupy):
    """The product and three kernels; the scalars are launches of a thread or two."""
    A, b = spd(200, condition=1e5)
    there, rhs = cupy.array(A), cupy.array(b)
    for solver, kernels in (
        (sad.cg, {"dot", "cg_residual", "cg_advance"}),
        (sad.minres, {"dot", "lanczos", "minres_advance"}),
    ):
        LOG.clear()
        solver(there, rhs, rtol=0.0, maxiter=20)
        few = LOG.copy()
        LOG.clear()
        solver(there, rhs, rtol=0.0, maxiter=120)
        more = LOG - few
        launched = {k.split()[1].split("<")[0] for k in more if k.startswith("kernel")}
        assert launched == kernels
        assert all(more[f"kernel {name}<double>"] == 100 for name in kernels)
        assert more["launches"] <= (50 if solver is sad.cg else 130) * 100
        assert more["transfers"] == 0


@pytest.mark.parametrize("limit", [0, 1, 7, 10, 11, 25])
@pytest.mark.parametrize("solver", [sad.cg, sad.minres])
def test_the_limit_on_iterations_is_kept(cupy, solver, limit):
    A, b = spd(100, condition=300.0)
    host = solver(A, b, rtol=1e-14, maxiter=limit, kernels="reference")
    device = solver(cupy.array(A), cupy.array(b), rtol=1e-14, maxiter=limit)
    assert device.niter == host.niter == limit
    assert device.status is host.status is Status.ITERATION_LIMIT
    np.testing.assert_allclose(device.x.get(), host.x, rtol=1e-6, atol=1e-9)


def test_iterations_beyond_the_end_change_nothing(cupy):
    """The solution is that of the step at which it ended, and all products are counted."""
    A, b = spd(60, condition=10.0)
    products = []

    def product(v):
        products.append(1)
        return cupy.array(A) @ v

    there = sad.LinearOperator(A.shape, product, product, symmetric=True, dtype=A.dtype)
    host = sad.cg(A, b, rtol=1e-6, kernels="reference")
    assert host.niter % CHECK_EVERY != 0
    device = sad.cg(there, cupy.array(b), rtol=1e-6)
    assert device.niter == host.niter
    np.testing.assert_allclose(device.x.get(), host.x, rtol=1e-9, atol=1e-12)
    assert device.n_matvec == len(products)


def test_negative_curvature_is_met_and_its_direction_kept(cupy):
    A, b = indefinite(80)
    found = sad.cg(cupy.array(A), cupy.array(b))
    assert found.status is Status.NEGATIVE_CURVATURE
    p = found.direction.get()
    assert p @ A @ p < 0.0
    host = sad.cg(A, b, kernels="reference")
    assert found.niter == host.niter
    np.testing.assert_allclose(found.x.get(), host.x, rtol=1e-8, atol=1e-12)


def test_singular_systems_end_as_on_the_host(cupy):
    A, b = spd(40)
    values, vectors = np.linalg.eigh(A)
    values[0] = 0.0
    A = (vectors * values) @ vectors.T
    for solver in (sad.cg, sad.minres):
        host = solver(A, b, kernels="reference")
        device = solver(cupy.array(A), cupy.array(b))
        assert device.status is host.status
        assert not device.converged


def test_nan_and_an_indefinite_preconditioner_are_noticed(cupy):
    A, b = spd(40)
    for solver in (sad.cg, sad.minres):
        bad = A.copy()
        bad[3, 3] = np.nan
        found = solver(cupy.array(bad), cupy.array(b))
        assert found.status is Status.NOT_FINITE
        M = cupy.array(np.diag(np.where(np.arange(40) % 2, -1.0, 1.0)))
        found = solver(cupy.array(A), cupy.array(b), M=M)
        assert found.status is Status.INDEFINITE_PRECONDITIONER


def test_several_right_hand_sides(cupy):
    A, _ = spd(50)
    B = np.random.default_rng(1).standard_normal((50, 3))
    B[:, 1] = 0.0
    found = sad.cg(cupy.array(A), cupy.array(B))
    assert bool(found.converged.all())
    np.testing.assert_allclose(found.x.get(), np.linalg.solve(A, B), rtol=1e-5)


def test_the_arrays_choose_the_device(cupy):
    assert isinstance(choose(None, cupy.zeros(3)), Device)
    with pytest.raises(TypeError, match="kernels='device' needs CuPy arrays"):
        choose("device", np.zeros(3))
    with pytest.raises(TypeError, match="needs NumPy arrays, found cupy"):
        choose("compiled", cupy.zeros(3))


# the report --------------------------------------------------------------------------


def test_the_report_runs_on_tiny_sizes(cupy, monkeypatch, capsys):
    """All of benchmarks/gpu_report.py but CuPy's own solvers, which the stand-in lacks."""
    path = Path(__file__).parents[1] / "benchmarks" / "gpu_report.py"
    spec = importlib.util.spec_from_file_location("gpu_report", path)
    gpu_report = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_report", gpu_report)
    spec.loader.exec_module(gpu_report)
    linalg = types.ModuleType("cupyx.scipy.sparse.linalg")
    linalg.cg = lambda A, b, maxiter, rtol: sad.cg(A, b, rtol=rtol, maxiter=maxiter)
    linalg.minres = lambda A, b, maxiter, tol: sad.cg(A, b, rtol=tol, maxiter=maxiter)
    sys.modules["cupyx.scipy.sparse"].linalg = linalg
    monkeypatch.setitem(sys.modules, linalg.__name__, linalg)
    ticks = itertools.count(1)

    def seconds(cp, function, rounds=1):
        function()
        return 1.0 / next(ticks)

    monkeypatch.setattr(gpu_report, "seconds", seconds)
    gpu_report.check(cupy, 8, (60, 25, 5))
    gpu_report.krylov(cupy, [8], 1e9, 2, 4)
    gpu_report.gram(cupy, 60, 25, 5)
    gpu_report.bilevel(cupy, 60, 25, 5, 2)
    text = capsys.readouterr().out
    assert "device against host" in text
    assert "x cuSPARSE twice" in text
    assert "hypergradient" in text
