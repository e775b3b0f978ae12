"""Compiled Hessian products of linear models: the same numbers as the reference's.

Dense algebra is the judge throughout; what else is there to get wrong is the curvature,
the sharing of buffers, threads, and rows that other tests never have.
"""

from __future__ import annotations

import concurrent.futures
import copy
import importlib.util
import pickle
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from test_linear_model import (
    BASE,
    LOSSES,
    PENALTIES,
    SPARSE_KINDS,
    OwnSquares,
    assert_is_reference,
    duplicated,
    frozen,
    small_case,
    sparse_features,
    targets_for,
)

import sparse_argdiff as sad
from sparse_argdiff.kernels.workspace import Workspace
from sparse_argdiff.linear_model import Glm
from sparse_argdiff.linear_model.hessian_product import one_pass
from sparse_argdiff.linear_model.hessian_product.one_pass import OnePass, TwoPasses

pytest.importorskip("numba")

COMPILED = {"kernels": "compiled"}


def unsorted(F):
    A = sparse.csr_array(F)
    for start, end in zip(A.indptr[:-1], A.indptr[1:], strict=True):
        A.indices[start:end] = A.indices[start:end][::-1].copy()
        A.data[start:end] = A.data[start:end][::-1].copy()
    A.has_sorted_indices = False
    return A


def with_index_type(dtype):
    def convert(F):
        A = sparse.csr_array(F)
        A.indices, A.indptr = A.indices.astype(dtype), A.indptr.astype(dtype)
        return A

    return convert


CSR_KINDS = {
    **SPARSE_KINDS,
    "unsorted": unsorted,
    "int64 indices": with_index_type(np.int64),
    "int64 read-only": lambda F: frozen(with_index_type(np.int64)(F)),
    "all ones": lambda F: sparse.csr_array((F != 0).astype(float)),
    "ones, twice": lambda F: duplicated(2.0 * (F != 0)),
    "float32 ones": lambda F: sparse.csr_array((F != 0).astype(np.float32)),
}


def pair(features, loss="logistic", seed=0, threads=1, **options):
    """Return (compiled Hessian, reference Hessian, rng) at one random point."""
    rng = np.random.default_rng(seed)
    t = targets_for(loss, rng, features.shape[0])
    fast = Glm(features, t, loss=loss, threads=threads, **COMPILED, **options)
    slow = Glm(features, t, loss=loss, kernels="reference", **options)
    x = (rng.standard_normal(fast.m) - 1.0).astype(fast.dtype)
    y = (0.3 * rng.standard_normal(fast.n)).astype(fast.dtype)
    return fast.hess(x, y), slow.hess(x, y), rng


# the numbers --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CSR_KINDS)
@pytest.mark.parametrize("loss", LOSSES)
def test_dense_algebra_for_every_kind_of_features(loss, kind):
    features = CSR_KINDS[kind](BASE)
    glm, *rest = small_case(loss, "per-feature", features, **COMPILED)
    assert isinstance(glm._model.products, OnePass)
    assert_is_reference(glm, *rest)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("loss", LOSSES)
def test_dense_algebra_for_every_model(loss, penalty, intercept, threads):
    case = small_case(
        loss, penalty, sparse.csr_array(BASE), intercept, threads=threads, **COMPILED
    )
    assert_is_reference(*case)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
def test_apply_returns_the_curvature(loss, intercept, dtype):
    F = sparse_features(np.random.default_rng(1), 60, 40).astype(dtype)
    H, known, rng = pair(F, loss, intercept=intercept)
    rtol = 1e-12 if dtype == np.float64 else 1e-5
    for _ in range(3):
        v = rng.standard_normal(H.shape[0]).astype(dtype)
        out = np.full_like(v, np.nan)
        curvature = H.apply(v, out)
        assert out.dtype == dtype
        expected = known @ v
        scale = np.abs(expected).max()
        np.testing.assert_allclose(out, expected, rtol, rtol * scale)
        assert isinstance(curvature, float)
        wide = v.astype(float) @ expected.astype(float)
        assert curvature == pytest.approx(wide, rel=10 * rtol)


def test_curvature_is_not_negative_where_the_product_with_v_is():
    """v'(Hv) cancels to a rounding error of either sign; a sum of squares does not."""
    rng = np.random.default_rng(0)
    F = sparse.csr_array(rng.standard_normal((30, 300)).astype(np.float32))
    glm = Glm(F, np.ones(30), loss="squared", intercept=False, **COMPILED)
    # A penalty of e^-200 is 0 in float32: H is singular.
    H = glm.hess(np.full(300, -200.0, np.float32), np.zeros(300, np.float32))
    null = np.linalg.svd(F.toarray().astype(float))[2][30:].astype(np.float32)
    out, naive = np.empty(300, np.float32), []
    for v in null:
        assert 0.0 <= H.apply(v, out) < 1e-12
        naive.append(float(v @ out))
    assert min(naive) < 0.0, "a guard: the test can fail"


@pytest.mark.parametrize("columns", [1, 2, 3, 4, 5, 8, 15, 16, 17, 33, 64])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_blocks_of_every_width(columns, dtype):
    F = sparse_features(np.random.default_rng(1), 50, 30).astype(dtype)
    H, known, rng = pair(F)
    V = rng.standard_normal((H.shape[0], columns)).astype(dtype)
    tol = 1e-12 if dtype == np.float64 else 1e-5
    for layout in (np.ascontiguousarray, np.asfortranarray, lambda V: V[::-1][::-1]):
        product = H @ frozen(layout(V))
        assert product.dtype == dtype
        np.testing.assert_allclose(product, known @ V, tol, tol)


@pytest.mark.parametrize("classes", [2, 3, 4, 5, 16, 17, 40])
def test_any_number_of_classes(classes):
    """Up to a tile's width in one pass, beyond by the reference."""
    F = sparse_features(np.random.default_rng(1), 90, 20, 0.2)
    rng = np.random.default_rng(2)
    t = np.arange(90) % classes
    y = 0.3 * rng.standard_normal((21, classes)).reshape(-1)
    fast, slow = (
        Glm(F, t, loss="multinomial", kernels=k) for k in ("compiled", "reference")
    )
    x, v = np.zeros(fast.m), rng.standard_normal(y.shape[0])
    known = slow.hess(x, y) @ v
    H, out = fast.hess(x, y), np.empty(y.shape[0])
    curvature = H.apply(v, out)
    np.testing.assert_allclose(out, known, 1e-11, 1e-11)
    assert (curvature is None) == (classes > 16)
    if curvature is not None:
        assert curvature == pytest.approx(v @ known, rel=1e-12)


@pytest.mark.parametrize("rows", ["one", "two"])
def test_two_passes_where_the_product_is_large(rows, monkeypatch):
    F = sparse_features(np.random.default_rng(1), 80, 300, 0.05)
    monkeypatch.setattr(one_pass, "CACHE", 0 if rows == "two" else 2**20)
    for threads in (1, 3):
        H, known, rng = pair(F, threads=threads)
        v, out = rng.standard_normal(301), np.empty(301)
        curvature = H.apply(v, out)
        np.testing.assert_allclose(out, known @ v, 1e-12, 1e-13)
        assert curvature == pytest.approx(v @ out, rel=1e-12)


@pytest.mark.parametrize("threads", [1, 2, 5, 40])
@pytest.mark.parametrize("loss", ["poisson", "multinomial"])
@pytest.mark.parametrize(
    "make",
    {
        "one row": lambda rng: rng.random((1, 6)),
        "one column": lambda rng: rng.random((9, 1)),
        "no entry": lambda rng: np.zeros((7, 3)),
        "no column": lambda rng: np.zeros((7, 0)),
        "empty rows and columns": lambda rng: (
            rng.random((9, 8)) * (np.arange(9) % 3 == 1)[:, None] * (np.arange(8) != 2)
        ),
        "one full row": lambda rng: rng.random((20, 9)) * (np.arange(20) == 4)[:, None],
    }.values(),
)
def test_shapes_at_the_edge(make, loss, threads):
    rng = np.random.default_rng(0)
    features = sparse.csr_array(make(rng))
    if loss == "multinomial" and features.shape[0] < 3:
        pytest.skip("fewer rows than classes")
    H, known, rng = pair(features, loss, threads=threads)
    v = rng.standard_normal(H.shape[0])
    np.testing.assert_allclose(H @ v, known @ v, 1e-12, 1e-14)
    V = rng.standard_normal((H.shape[0], 6))
    np.testing.assert_allclose(H @ V, known @ V, 1e-12, 1e-14)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 30),
    st.integers(1, 30),
    st.floats(0.0, 1.0),
    st.integers(1, 4),
    st.integers(0, 2**32 - 1),
)
def test_any_sparse_matrix(N, p, density, threads, seed):
    rng = np.random.default_rng(seed)
    F = sparse_features(rng, N, p, density)
    H, known, rng = pair(F, "squared", seed, threads=threads)
    V = rng.standard_normal((p + 1, 5))
    dense = known.todense()
    out = np.empty(p + 1)
    curvature = H.apply(V[:, 0].copy(), out)
    np.testing.assert_allclose(out, dense @ V[:, 0], 1e-11, 1e-11)
    np.testing.assert_allclose(H @ V, dense @ V, 1e-11, 1e-11)
    assert curvature == pytest.approx(V[:, 0] @ dense @ V[:, 0], rel=1e-10)


def test_not_a_number_comes_through():
    F = sparse_features(np.random.default_rng(1), 50, 30, 0.3)
    for threads in (1, 2):
        H, known, _ = pair(F, threads=threads)
        v = np.ones(31)
        v[3] = np.nan
        out = np.empty(31)
        assert np.isnan(H.apply(v, out))
        np.testing.assert_array_equal(np.isnan(out), np.isnan(known @ v))
        block = H @ np.stack([np.ones(31), v], axis=1)
        assert not np.isnan(block[:, 0]).any()
        np.testing.assert_array_equal(np.isnan(block[:, 1]), np.isnan(out))


def test_a_users_loss_has_compiled_products():
    F = sparse.csr_array(BASE)
    rng = np.random.default_rng(0)
    v = rng.standard_normal(6)
    x, y = np.zeros(5), rng.standard_normal(6)
    ours, plain = (
        Glm(F, np.ones(9), loss=loss, **COMPILED) for loss in (OwnSquares(), "squared")
    )
    np.testing.assert_allclose(ours.hess(x, y) @ v, plain.hess(x, y) @ v)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("kind", ["csr", "unsorted", "ones, twice", "float32 ones"])
def test_entries_are_formed_once_products_have_cost_as_much(kind, intercept, threads):
    F = CSR_KINDS[kind](sparse_features(np.random.default_rng(1), 400, 12, 0.4))
    H, known, rng = pair(F, intercept=intercept, threads=threads)
    own, dtype = H.into.__self__, H.dtype
    lengths = np.diff(F.indptr).astype(float)
    assert own.rows.price == pytest.approx((lengths @ (lengths + 1)) / (4 * F.nnz))
    tol = 1e-12 if dtype == np.float64 else 1e-4
    V = rng.standard_normal((H.shape[0], 5)).astype(dtype)
    expected = known @ V
    scale = np.abs(expected).max()
    for k in range(int(own.rows.price) + 3):
        out = np.empty(H.shape[0], dtype)
        square = H.apply(V[:, 0].copy(), out)
        np.testing.assert_allclose(out, expected[:, 0], tol, tol * scale)
        assert square == pytest.approx(V[:, 0] @ expected[:, 0], rel=10 * tol)
        assert (own.entries is not None) == (k >= own.rows.price)
    np.testing.assert_allclose(H @ V, expected, tol, tol * scale)


def test_entries_are_not_formed_where_they_are_more_than_the_features():
    F = sparse_features(np.random.default_rng(1), 50, 30, 0.2)
    H, _, rng = pair(F)
    assert F.nnz < 31**2
    for _ in range(100):
        H @ rng.standard_normal(31)
    assert H.into.__self__.entries is None


# what the caller's arrays are ---------------------------------------------------------


def test_operands_and_buffers_of_every_form():
    F = sparse_features(np.random.default_rng(1), 50, 30)
    H, known, rng = pair(F)
    v = rng.standard_normal(31)
    expected = known @ v
    wide = np.zeros((31, 3))
    wide[:, 1] = v
    for operand in (frozen(v.copy()), wide[:, 1], v[::-1].copy()[::-1]):
        before = operand.copy()
        for out in (np.empty(31), np.empty((31, 2))[:, 0]):
            curvature = H.apply(operand, out)
            np.testing.assert_allclose(out, expected, 1e-12)
            assert curvature == pytest.approx(v @ expected)
        np.testing.assert_array_equal(operand, before)
    overlapping = v.copy()
    assert H.apply(overlapping, overlapping) == pytest.approx(v @ expected)
    np.testing.assert_allclose(overlapping, expected, 1e-12)


@pytest.mark.parametrize("model", [np.float32, np.float64])
@pytest.mark.parametrize("operand", [np.float32, np.float64])
def test_the_dtype_of_a_product_is_the_references(model, operand):
    F = sparse_features(np.random.default_rng(1), 50, 30).astype(model)
    H, known, rng = pair(F)
    v = rng.standard_normal(31).astype(operand)
    V = rng.standard_normal((31, 4)).astype(operand)
    assert (H @ v).dtype == (known @ v).dtype
    assert (H @ V).dtype == (known @ V).dtype
    out = np.empty(31, np.float64)
    H.apply(v, out)
    np.testing.assert_allclose(out, known @ v, 1e-5, 1e-5)


def test_the_features_are_neither_copied_nor_changed():
    F = sparse_features(np.random.default_rng(1), 50, 30)
    before = copy.deepcopy(F)
    glm = Glm(frozen(F), np.ones(50), loss="squared", **COMPILED)
    for mine, theirs in (
        (glm._model.products.values, F.data),
        (glm._model.products.indices, F.indices),
        (glm._model.products.indptr, F.indptr),
    ):
        assert np.shares_memory(mine, theirs)
    glm.hess(np.zeros(30), np.zeros(31)) @ np.ones(31)
    assert (before != F).nnz == 0


@pytest.mark.parametrize("bad", ["column", "negative", "pointer"])
def test_a_broken_matrix_is_refused_before_memory_is(bad):
    F = sparse_features(np.random.default_rng(1), 50, 30)
    if bad == "pointer":
        F.indptr[20] = F.indptr[21] + 1
    else:
        F.indices[7] = 30 if bad == "column" else -1
    with pytest.raises(ValueError, match="ind"):
        Glm(F, np.ones(50), loss="squared", **COMPILED)


# threads, buffers, processes ----------------------------------------------------------


@pytest.mark.parametrize("loss", ["logistic", "multinomial"])
def test_products_repeat_bit_by_bit_and_agree_among_threads(loss):
    F = sparse_features(np.random.default_rng(1), 500, 80)
    results = {}
    for threads in (1, 2, 3, 7):
        H, _, rng = pair(F, loss, threads=threads)
        v = rng.standard_normal(H.shape[0])
        out = np.empty_like(v)
        runs = []
        for _ in range(5):
            curvature = H.apply(v, out)
            runs.append(np.append(out, curvature))
        for run in runs[1:]:
            np.testing.assert_array_equal(run, runs[0])
        results[threads] = runs[0]
    for threads in (2, 3, 7):
        np.testing.assert_allclose(results[threads], results[1], 1e-11, 1e-13)


def test_chunks_cover_the_rows_and_share_the_nonzeros():
    F = sparse_features(np.random.default_rng(1), 1000, 50)
    for threads in (1, 2, 3, 8):
        chunks = Glm(F, np.ones(1000), loss="squared", threads=threads, **COMPILED)
        chunks = chunks._model.products.chunks
        assert len(chunks) == threads
        assert [row for a, b in chunks for row in range(a, b)] == list(range(1000))
        shares = [F.indptr[b] - F.indptr[a] for a, b in chunks]
        assert max(shares) <= F.nnz / threads + 50


def test_one_operator_serves_several_callers_at_once():
    F = sparse_features(np.random.default_rng(1), 3000, 400, 0.05)
    H, known, rng = pair(F, threads=2)
    vectors = [rng.standard_normal(401) for _ in range(8)]
    expected = [known @ v for v in vectors]

    def many(j):
        out = np.empty(401)
        for _ in range(30):
            out[:] = np.nan
            H.apply(vectors[j], out)
            np.testing.assert_allclose(out, expected[j], 1e-10, 1e-12)
            block = H @ np.stack([vectors[j], 2.0 * vectors[j]], axis=1)
            np.testing.assert_allclose(block[:, 1], 2.0 * expected[j], 1e-10, 1e-12)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(many, range(8)))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("passes", [1, 2])
def test_repeated_products_allocate_nothing(threads, passes, monkeypatch):
    monkeypatch.setattr(one_pass, "CACHE", 0 if passes == 2 else 2**20)
    F = sparse_features(np.random.default_rng(1), 4000, 3000, 0.005)
    H, _, rng = pair(F, threads=threads)
    v, out = rng.standard_normal(3001), np.empty(3001)
    H.apply(v, out)
    tracemalloc.start()
    H.apply(v, out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 10_000  # no vector: the smaller one has 24 kB


def test_a_model_travels():
    F = sparse_features(np.random.default_rng(1), 50, 30)
    glm = Glm(F, np.ones(50), loss="squared", threads=2, **COMPILED)
    v = np.arange(31.0)
    H = glm.hess(np.zeros(30), v)
    product = H @ v
    for other in (copy.deepcopy(glm), pickle.loads(pickle.dumps(glm))):
        np.testing.assert_array_equal(other.hess(np.zeros(30), v) @ v, product)


# the choice ---------------------------------------------------------------------------


def test_the_choice_by_argument_and_size(monkeypatch):
    small = sparse_features(np.random.default_rng(1), 50, 30)
    t = np.ones(50)

    def chosen(features, **options):
        return type(Glm(features, t, loss="squared", **options)._model.products)

    assert chosen(small) is TwoPasses
    assert chosen(small, kernels="compiled") is OnePass
    monkeypatch.setattr(one_pass, "WORTHWHILE", small.nnz)
    assert chosen(small) is OnePass
    assert chosen(small, kernels="reference") is TwoPasses
    assert chosen(sparse.csc_array(small)) is TwoPasses
    assert chosen(sparse.csc_array(small), kernels="compiled") is OnePass
    assert chosen(small.toarray()) is TwoPasses
    monkeypatch.setattr(one_pass, "WORTHWHILE", small.nnz + 1)
    assert chosen(small) is TwoPasses


def test_without_numba_there_is_the_reference(monkeypatch):
    F = sparse_features(np.random.default_rng(1), 50, 30)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == "numba" else found(name),
    )
    monkeypatch.setattr(one_pass, "WORTHWHILE", 0)
    assert isinstance(Glm(F, np.ones(50), loss="squared")._model.products, TwoPasses)
    with pytest.raises(ImportError, match=r"sparse_argdiff\[fast\]"):
        Glm(F, np.ones(50), loss="squared", **COMPILED)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"kernels": "fast"}, ValueError, "kernels must be one of .*found 'fast'"),
        ({"threads": 0}, ValueError, "threads must be at least 1, found 0"),
        ({"threads": 1.5}, ValueError, "threads must be a whole number"),
    ],
)
def test_wrong_choices(options, error, words):
    with pytest.raises(error, match=words):
        Glm(sparse.csr_array(BASE), np.ones(9), loss="squared", **options)


def test_compiled_products_are_for_sparse_features():
    with pytest.raises(ValueError, match=r"needs a SciPy sparse matrix.*ndarray"):
        Glm(BASE, np.ones(9), loss="squared", **COMPILED)


def test_a_small_model_loads_no_compiler():
    code = (
        "import sys, numpy as np; from scipy import sparse\n"
        "from sparse_argdiff.linear_model import Glm\n"
        "glm = Glm(sparse.csr_array(np.eye(4)), np.ones(4), loss='squared')\n"
        "glm.hess(np.zeros(4), np.zeros(5)) @ np.ones(5)\n"
        "assert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# what uses it -------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_solving_and_differentiating_agree_with_the_reference(loss):
    F = sparse_features(np.random.default_rng(1), 80, 30, 0.2)
    t = targets_for(loss, np.random.default_rng(2), 80)
    found = []
    for kernels in ("compiled", "reference"):
        glm = Glm(F, t, loss=loss, kernels=kernels)
        problem, x = sad.Problem(glm), np.full(glm.m, -2.0)
        solution = sad.solve(problem, x, tol=1e-10)
        v = np.random.default_rng(3).standard_normal(glm.n)
        J = sad.derivative(problem, solution, rtol=1e-11)
        found.append((solution.y, J.T @ v, J @ np.eye(glm.m)[:, :7]))
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(mine, theirs, 1e-7, 1e-9)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_fails_leaves_no_product():
    """Rows that were never added must not be missed in silence."""
    features = sparse.random_array((40, 6), density=0.5, rng=0, format="csr")
    glm = Glm(features, np.zeros(40), loss="squared", kernels="compiled", threads=2)
    product = glm._model.products
    first = product.chunks[1][0]

    def add(begin, end, target):
        if begin == first:
            sys.exit()  # ends the thread, without a trace on the screen
        return 0.0

    with pytest.raises(RuntimeError, match="its rows are missing"):
        product.by_chunks(add, np.zeros(7), Workspace())
