"""kernels/: passes over memory that agree, and allocate nothing."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest
import scipy.sparse

from sparse_argdiff import LinearOperator, Status, cg, minres
from sparse_argdiff.kernels import choose
from sparse_argdiff.krylov import Workspace
from sparse_argdiff.operators.linear_operator import aslinearoperator
from sparse_argdiff.preconditioners import jacobi

both = pytest.mark.parametrize("solver", [cg, minres], ids=["cg", "minres"])
makes = pytest.mark.parametrize("make", ["reference", "compiled", "threaded"])
compiled_makes = pytest.mark.parametrize("make", ["compiled", "threaded"])
dtypes = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def five_point(k, dtype=np.float64):
    line = scipy.sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(k, k))
    grid = scipy.sparse.kronsum(line, line)
    return scipy.sparse.csr_array(grid).astype(dtype)


def vectors(n, count, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(n).astype(dtype) for _ in range(count)]


def kernels(make, dtype=np.float64):
    return choose(make, np.zeros(1, dtype))


# the passes, against their formulas ---------------------------------------------------


@makes
@dtypes
@pytest.mark.parametrize("n", [0, 1, 3, 1000])
def test_each_pass_is_its_formula(make, dtype, n):
    k = kernels(make, dtype)
    tol = {"rtol": 0, "atol": 20 * np.finfo(dtype).eps}
    square = {"rel": 1e-5 if dtype is np.float32 else 1e-12, "abs": 1e-30}
    r, q, x, p, z = vectors(n, 5, dtype)

    assert k.dot(r, q) == pytest.approx(
        float(r.astype(float) @ q.astype(float)), rel=1e-5, abs=1e-4
    )

    new = r.copy()
    found, _ = k.cg_residual(new, q, 0.7)
    np.testing.assert_allclose(new, r - 0.7 * q, **tol)
    assert found == pytest.approx(np.sum(new.astype(float) ** 2), **square)

    new_x, new_p = x.copy(), p.copy()
    k.cg_advance(new_x, new_p, z, -0.3, 0.4)
    np.testing.assert_allclose(new_x, x - 0.3 * p, **tol)
    np.testing.assert_allclose(new_p, z + 0.4 * p, **tol)

    new = r.copy()
    found = k.lanczos(new, q, x, -0.2, 0.9, 1.1)
    np.testing.assert_allclose(new, -0.2 * r + 0.9 * q + 1.1 * x, **tol)
    assert found == pytest.approx(np.sum(new.astype(float) ** 2), **square)

    new_x, new_w = x.copy(), r.copy()
    k.minres_advance(new_x, new_w, p, z, (0.3, -0.6, 0.8), 1.4)
    np.testing.assert_allclose(new_w, 0.3 * r - 0.6 * p + 0.8 * z, **tol)
    np.testing.assert_allclose(new_x, x + 1.4 * new_w, **tol)

    out = np.empty_like(r)
    k.subtract(r, q, out)
    np.testing.assert_allclose(out, r - q, **tol)
    for array in (new_x, new_p, new_w, out):
        assert array.dtype == dtype


@compiled_makes
def test_sums_of_float32_are_in_double_precision(make):
    # Added one by one in float32, ones never pass 2²⁴.
    k, n = kernels(make, np.float32), 2**25
    ones = np.broadcast_to(np.float32(1.0), n).copy()
    assert k.dot(ones, ones) == n
    assert k.cg_residual(ones, ones, 0.0)[0] == n


@compiled_makes
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_compiled_sums_do_not_lose_what_is_not_finite(make, bad):
    k = kernels(make)
    x, y = np.ones(1000), np.ones(1000)
    x[637] = bad
    assert not np.isfinite(k.dot(x, y))
    assert not np.isfinite(k.cg_residual(y, x, 1.0)[0])


CSR = {
    "square": scipy.sparse.random_array((50, 50), density=0.2, rng=0, format="csr"),
    "empty rows": scipy.sparse.csr_array(np.diag([1.0, 0.0, 3.0, 0.0])),
    "no entry": scipy.sparse.csr_array((5, 5)),
    "n = 1": scipy.sparse.csr_array([[2.0]]),
    "n = 0": scipy.sparse.csr_array((0, 0)),
    "duplicates": scipy.sparse.csr_array(
        (np.ones(3), np.array([0, 0, 1]), np.array([0, 2, 3])), shape=(2, 2)
    ),
}


@compiled_makes
@dtypes
@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("A", CSR.values(), ids=CSR.keys())
def test_the_fused_product_is_the_product_and_its_quadratic_form(make, dtype, index, A):
    A = A.astype(dtype)
    A.indices, A.indptr = A.indices.astype(index), A.indptr.astype(index)
    A.data.flags.writeable = A.indices.flags.writeable = False
    (x,) = vectors(A.shape[0], 1, dtype)
    operator = kernels(make, dtype).operator(aslinearoperator(A))
    assert operator.into is not None
    out = np.full(A.shape[0], np.nan, dtype)
    square = operator.apply(x, out)
    np.testing.assert_allclose(out, A @ x, atol=1e-5 if dtype is np.float32 else 1e-13)
    assert square == pytest.approx(
        float(x.astype(float) @ out.astype(float)), rel=1e-12
    )
    np.testing.assert_array_equal(operator.matvec(x), A @ x)


@compiled_makes
def test_only_plain_csr_gets_the_fused_product(make):
    k = kernels(make)
    for A in (np.eye(3), scipy.sparse.csc_array(np.eye(3)), CSR["n = 1"].astype(int)):
        operator = aslinearoperator(A)
        assert k.operator(operator) is operator
    own = LinearOperator((3, 3), lambda x: x).with_product(lambda x, out: None)
    assert k.operator(own) is own


def test_the_cache_on_disk_keeps_the_threaded_make_apart(tmp_path):
    """Its key knows no options: a threaded loop was once the serial one, from disk."""
    code = (
        "import sys, numba, numpy\n"
        "from sparse_argdiff.kernels import choose\n"
        "x = numpy.ones(10**5)\n"
        "assert choose(sys.argv[1], x).dot(x, x) == x.size\n"
        "try:\n"
        "    print(bool(numba.threading_layer()))\n"
        "except ValueError:  # nothing has run in parallel\n"
        "    print(False)\n"
    )
    for make in ("compiled", "threaded", "compiled", "threaded"):
        done = subprocess.run(
            [sys.executable, "-c", code, make],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
            timeout=240,
        )
        assert done.stdout.strip() == str(make == "threaded")


def test_the_choice_is_by_argument_and_availability(strict_array):
    to, _ = strict_array
    assert choose(None, np.zeros(10)).name == "reference"
    assert choose(None, np.zeros(10**6)).name == "compiled"
    assert choose("compiled", np.zeros(2)).name == "compiled"
    assert choose("reference", np.zeros(10**6)).name == "reference"
    assert choose(None, to(np.zeros(10**6))).name == "reference"
    with pytest.raises(TypeError, match=r"compiled.*NumPy.*array_api_strict"):
        choose("compiled", to(np.zeros(3)))
    with pytest.raises(ValueError, match=r"kernels must be.*'numba'"):
        cg(np.eye(2), np.ones(2), kernels="numba")


def test_without_numba_the_reference_serves(monkeypatch):
    from sparse_argdiff.kernels import selection

    monkeypatch.setattr(selection, "_has_numba", lambda: False)
    assert choose(None, np.zeros(10**6)).name == "reference"
    with pytest.raises(ImportError, match=r"sparse_argdiff\[fast\]"):
        choose("compiled", np.zeros(3))


# the solvers over them ----------------------------------------------------------------


@both
@compiled_makes
@dtypes
@pytest.mark.parametrize("with_M", [False, True], ids=["plain", "jacobi"])
@pytest.mark.parametrize("form", ["csr", "dense", "operator"])
def test_all_makes_agree_to_rounding(solver, make, dtype, with_M, form):
    A, (b,) = five_point(12, dtype), vectors(144, 1, dtype)
    given = {
        "csr": A,
        "dense": A.toarray(),
        "operator": LinearOperator(A.shape, lambda x: A @ x, symmetric=True),
    }[form]
    # A diagonal that is not a multiple of the identity.
    M = jacobi(np.linspace(1.0, 3.0, 144).astype(dtype)) if with_M else None
    for steps in (1, 2, 15):
        options = {"M": M, "rtol": 0.0, "maxiter": steps}
        expected = solver(given, b, kernels="reference", **options)
        found = solver(given, b, kernels=make, **options)
        assert found.niter == expected.niter == steps
        assert found.x.dtype == found.residual.dtype == dtype
        atol = 1e4 * np.finfo(dtype).eps * np.abs(expected.x).max()
        np.testing.assert_allclose(found.x, expected.x, rtol=0, atol=atol)
        if solver is cg:
            assert found.energy_error == pytest.approx(
                expected.energy_error, rel=1e-2, nan_ok=True
            )
    rtol = 1e-3 if dtype is np.float32 else 1e-9
    assert solver(given, b, M=M, rtol=rtol, kernels=make).status is Status.CONVERGED


@both
@compiled_makes
def test_compiled_solvers_end_as_what_they_are(solver, make):
    for A, b, of_cg, of_minres in (
        (np.diag([1.0, -2.0]), np.ones(2), "NEGATIVE_CURVATURE", "CONVERGED"),
        (np.diag([1.0, -1.0]), np.ones(2), "NEGATIVE_CURVATURE", "CONVERGED"),
        (np.diag([1.0, 0.0]), np.ones(2), "SINGULAR", "LEAST_SQUARES"),
        (np.full((2, 2), np.nan), np.ones(2), "NOT_FINITE", "NOT_FINITE"),
        # x underflows to zero, and the residual is b.
        (1e200 * np.diag([1.0, 2.0]), 1e-200 * np.ones(2), *2 * ["ROUNDING_LIMIT"]),
        (np.array([[0.0, 1.0], [-1.0, 0.0]]), np.ones(2), "NOT_SYMMETRIC", None),
        (np.zeros((0, 0)), np.zeros(0), "CONVERGED", "CONVERGED"),
    ):
        for matrix in (A, scipy.sparse.csr_array(A)):
            status = solver(matrix, b, kernels=make).status.name
            expected = of_cg if solver is cg else of_minres or of_cg
            assert status == expected


@both
def test_odd_products_are_accepted_by_compiled_passes(solver):
    # Read-only, strided, of another dtype, the operand itself: numba types each apart.
    n, (b,) = 40, vectors(40, 1)
    d = np.linspace(1.0, 5.0, n)

    def read_only(x):
        y = d * x
        y.flags.writeable = False
        return y

    for product, diagonal in (
        (read_only, d),
        (lambda x: np.repeat(d * x, 2)[::2], d),
        (lambda x: (d * x).astype(np.float32), d),
        (lambda x: x, np.ones(n)),
    ):
        A = LinearOperator((n, n), product, symmetric=True)
        result = solver(A, b, rtol=1e-5, kernels="compiled")
        assert result.status is Status.CONVERGED
        np.testing.assert_allclose(diagonal * result.x, b, atol=1e-4)


# storage ------------------------------------------------------------------------------

STORAGE = [
    # solver, options, vectors in the workspace, as the docstrings say; one less where
    # compiled passes of CG take on the diagonal
    (cg, {}, 2),
    (cg, {"M": True}, 3),
    (cg, {"M": True, "smallest_eigenvalue": 1e-3}, 3),
    (minres, {}, 6),
    (minres, {"M": True}, 7),
]


@pytest.mark.parametrize(("solver", "options", "count"), STORAGE)
@makes
@dtypes
def test_the_workspace_holds_what_the_docstring_says(
    solver, options, count, make, dtype
):
    A, (b,) = five_point(20, dtype), vectors(400, 1, dtype)
    M = jacobi(A.diagonal()) if options.get("M") else None
    workspace = Workspace()
    count -= solver is cg and M is not None and make != "reference"
    for _ in range(3):
        solver(
            A,
            b,
            **{**options, "M": M},
            rtol=1e-3,
            kernels=make,
            workspace=workspace,
        )
        assert workspace.nbytes == count * b.nbytes
    workspace.clear()
    assert workspace.nbytes == 0


def allocated(function):
    """Return the most bytes in use at once during the call, beyond those before."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    result = function()
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert result is not None
    return peak


@both
@makes
@pytest.mark.parametrize("with_M", [False, True], ids=["plain", "preconditioned"])
@pytest.mark.parametrize("maxiter", [3, 60])
def test_a_repeated_solve_allocates_its_result_alone(solver, make, with_M, maxiter):
    # x and the residual are the caller's; everything else is the workspace's.
    n = 20_000
    d, (b,) = np.linspace(1.0, 50.0, n), vectors(n, 1)

    def into(x, out):
        np.multiply(d, x, out=out)

    A = LinearOperator((n, n), lambda x: d * x, symmetric=True).with_product(into)
    M = None
    if with_M:

        def halve(r, out):
            np.multiply(0.5, r, out=out)

        M = LinearOperator((n, n), lambda r: 0.5 * r, positive_definite=True)
        M = M.with_product(halve)
    options = {"M": M, "rtol": 0.0, "maxiter": maxiter, "kernels": make}
    workspace = Workspace()
    solver(A, b, workspace=workspace, **options)
    kept = workspace.nbytes
    peak = allocated(lambda: solver(A, b, workspace=workspace, **options))
    assert 2 * b.nbytes <= peak < 2 * b.nbytes + b.nbytes // 2
    assert workspace.nbytes == kept


@both
@compiled_makes
def test_the_product_of_a_plain_csr_matrix_allocates_nothing(solver, make):
    A = five_point(150)
    (b,) = vectors(A.shape[0], 1)
    workspace = Workspace()
    options = {"rtol": 1e-3, "kernels": make, "workspace": workspace}
    solver(A, b, **options)
    assert allocated(lambda: solver(A, b, **options)) < 2.5 * b.nbytes


@both
def test_columns_one_by_one_share_one_set_of_vectors(solver):
    A, B = five_point(20), np.random.default_rng(0).standard_normal((400, 5))
    workspace = Workspace()
    solver(A, B, workspace=workspace)
    assert workspace.nbytes == (2 if solver is cg else 6) * 400 * 8


# re-entrance --------------------------------------------------------------------------


@both
def test_a_solve_inside_a_product_may_use_the_same_workspace(solver):
    C, D = np.diag(np.linspace(1.0, 3.0, 8)), np.diag(np.linspace(2.0, 5.0, 8))
    workspace = Workspace()

    def product(x):
        return D @ x + solver(C, x, rtol=1e-14, workspace=workspace).x

    A = LinearOperator((8, 8), product, symmetric=True)
    b = np.arange(1.0, 9.0)
    result = solver(A, b, rtol=1e-9, workspace=workspace)
    dense = D + np.linalg.inv(C)
    assert result.converged
    np.testing.assert_allclose(result.x, np.linalg.solve(dense, b), rtol=1e-7)


@both
def test_threads_may_share_a_workspace(solver):
    A, workspace, found = five_point(25), Workspace(), {}
    B = np.random.default_rng(0).standard_normal((8, 625))

    def work(j):
        for _ in range(5):
            found[j] = solver(A, B[j], workspace=workspace).x

    threads = [threading.Thread(target=work, args=(j,)) for j in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for j in range(8):
        np.testing.assert_array_equal(found[j], solver(A, B[j]).x)


@both
def test_vectors_come_back_after_an_error(solver):
    workspace, (b,) = Workspace(), vectors(50, 1)

    def product(x):
        raise KeyError("mine")

    for _ in range(4):
        with pytest.raises(KeyError, match="mine"):
            solver(LinearOperator((50, 50), product), b, workspace=workspace)
        gc.collect()
    assert workspace.nbytes == (2 if solver is cg else 6) * b.nbytes


@both
def test_nothing_of_a_result_lies_in_the_workspace(solver):
    workspace, A, (b, c) = Workspace(), five_point(10), vectors(100, 2)
    first = solver(A, b, workspace=workspace)
    x, residual = first.x.copy(), first.residual.copy()
    solver(A, c, workspace=workspace)
    np.testing.assert_array_equal(first.x, x)
    np.testing.assert_array_equal(first.residual, residual)
    bad = cg(np.diag([1.0, -1.0]), np.ones(2), workspace=workspace)
    direction = bad.direction.copy()
    cg(np.eye(2), np.full(2, 7.0), workspace=workspace)
    np.testing.assert_array_equal(bad.direction, direction)


def test_a_workspace_keeps_sizes_dtypes_and_namespaces_apart(strict_array):
    to, back = strict_array
    workspace = Workspace()
    for A, b in (
        (np.eye(3), np.ones(3)),
        (np.eye(3, dtype="f4"), np.ones(3, "f4")),
        (np.eye(5), np.ones(5)),
    ):
        np.testing.assert_allclose(cg(A, b, workspace=workspace).x, 1.0)
    on_device = cg(to(np.eye(3)), to(np.ones(3)), workspace=workspace)
    np.testing.assert_allclose(back(on_device.x), 1.0)
    assert workspace.nbytes == 2 * (24 + 12 + 40 + 24)
    with pytest.raises(TypeError, match="workspace must be a Workspace, found dict"):
        cg(np.eye(2), np.ones(2), workspace={})
