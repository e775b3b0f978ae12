"""The projection onto null(C), in each of the four ways, against dense algebra."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_argdiff import aslinearoperator
from sparse_argdiff.krylov.null_space import null_space, null_space_of

N, P = 120, 24
RNG = np.random.default_rng(3)
SPARSE = sp.csr_array(sp.random(P, N, 0.06, random_state=1)) + sp.csr_array(
    (RNG.standard_normal(P), (np.arange(P), np.arange(P))), (P, N)
)
DEPENDENT = sp.csr_array(sp.vstack([SPARSE, SPARSE[:4] - 2.0 * SPARSE[4:8]]))
COLUMNS = np.arange(N)
MATRICES = {
    "independent": SPARSE,
    "dependent": DEPENDENT,
    "zero rows": sp.csr_array(sp.vstack([SPARSE, sp.csr_array((3, N))])),
    "badly scaled": sp.csr_array(
        sp.diags_array(10.0 ** np.linspace(-9, 9, P + 4)) @ DEPENDENT
    ),
    "disjoint": sp.csr_array((RNG.standard_normal(N), (COLUMNS % P, COLUMNS)), (P, N)),
    "disjoint, empty rows": sp.csr_array(
        (RNG.standard_normal(N), (COLUMNS % P, COLUMNS)), (P + 2, N)
    ),
    "more rows than columns": sp.csr_array(RNG.standard_normal((N + 5, 7))).T.tocsr().T,
}
METRICS = {"plain": lambda n: None, "metric": lambda n: 10.0 ** RNG.uniform(-3, 3, n)}
CASES = [
    (name, kind)
    for name in MATRICES
    for kind in ("dense", "normal", "augmented", "disjoint")
    if kind != "disjoint" or name.startswith("disjoint")
]


def by_dense_algebra(C, metric):
    """Return the projection and the rank, from the SVD of the scaled rows."""
    n = C.shape[1]
    root = np.ones(n) if metric is None else np.sqrt(metric)
    rows = C.toarray() / root
    sizes = np.linalg.norm(rows, axis=1)
    rows = rows / np.where(sizes > 0, sizes, 1.0)[:, None]
    basis = scipy.linalg.orth(rows.T, rcond=1e-9)
    return (np.eye(n) - basis @ basis.T) / np.outer(root, root), basis.shape[1]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_agrees_with_dense_algebra(name, kind, metric):
    C = MATRICES[name]
    n, G = C.shape[1], METRICS[metric](C.shape[1])
    projection, rank = by_dense_algebra(C, G)
    space = null_space(C, G, kind=kind)
    assert space.rank in {rank, None}
    assert (space.rank is None) == (kind == "augmented")
    sizes = np.linalg.norm(C.toarray(), axis=1)
    sizes = np.where(sizes > 0, sizes, 1.0)
    r = RNG.standard_normal((n, 3))
    z, w = space.project(r), space.multipliers(r)
    largest = 1.0 if G is None else 1.0 / G.min()
    np.testing.assert_allclose(z, projection @ r, rtol=0, atol=1e-11 * largest)
    assert np.linalg.norm((C @ z) / sizes[:, None]) <= 1e-12 * max(
        np.linalg.norm(z), 1e-12 * largest
    )
    back = z if G is None else G[:, None] * z
    np.testing.assert_allclose(back + C.T @ w, r, rtol=0, atol=1e-11)
    np.testing.assert_allclose(space.reduce(r), back, rtol=0, atol=1e-11)
    for j in range(3):
        np.testing.assert_allclose(
            space.project(r[:, j]), z[:, j], atol=1e-12 * largest
        )
    # a right-hand side that the rows can meet
    y0 = RNG.standard_normal((n, 2))
    y = space.particular(C @ y0)
    assert space.mismatch(C @ y0, y) <= 1e-12
    least = y0 - projection @ (y0 if G is None else G[:, None] * y0)
    np.testing.assert_allclose(y, least, rtol=0, atol=1e-9 * np.abs(least).max())


@pytest.mark.parametrize("kind", ["dense", "normal", "augmented"])
def test_a_contradiction_shows_at_its_size(kind):
    c = DEPENDENT @ np.ones(N)
    c[-1] += 3.0
    space = null_space(DEPENDENT, kind=kind)
    sizes = np.linalg.norm(DEPENDENT.toarray(), axis=1)
    y = np.linalg.lstsq(DEPENDENT.toarray() / sizes[:, None], c / sizes)[0]
    least = np.linalg.norm((c - DEPENDENT @ y) / sizes)
    y = space.particular(c)
    found = space.mismatch(c, y)
    whole = np.linalg.norm(c / sizes) + np.linalg.norm(y)
    assert 0.99 * least / whole <= found
    assert found >= 1e-3


@pytest.mark.parametrize("kind", ["dense", "normal", "augmented"])
def test_a_redundancy_is_orthogonal_to_consistent_right_hand_sides(kind):
    w = null_space(DEPENDENT, kind=kind).redundancy(RNG.standard_normal(P + 4))
    assert np.linalg.norm(DEPENDENT.T @ w) <= 1e-10 * np.linalg.norm(w)
    assert np.linalg.norm(w) > 0.1


def test_dependent_rows_are_named():
    assert list(null_space(DEPENDENT, kind="normal").dependent) != []
    keep = np.setdiff1d(
        np.arange(P + 4), null_space(DEPENDENT, kind="normal").dependent
    )
    assert np.linalg.matrix_rank(DEPENDENT.toarray()[keep]) == P == keep.size
    assert list(null_space(MATRICES["disjoint, empty rows"]).dependent) == [P, P + 1]


def test_the_way_is_chosen_by_what_C_is():
    assert null_space(RNG.standard_normal((3, 5))).kind == "dense"
    assert null_space(MATRICES["disjoint"]).kind == "disjoint"
    assert null_space(SPARSE).kind == "dense"  # it is small
    n, p = 40_000, 200
    rows = np.repeat(np.arange(p), 4)
    columns = np.minimum(rows * 150 + np.tile([0, 50, 150, 200], p), n - 1)
    banded = sp.csr_array((np.ones(4 * p), (rows, columns)), (p, n))
    assert null_space(banded).kind == "normal"
    with_slack = sp.csr_array(
        banded + sp.csr_array((np.ones(p), (np.arange(p), np.full(p, n - 1))), (p, n))
    )
    space = null_space(with_slack)
    assert space.kind == "augmented"
    z = space.project(RNG.standard_normal(n))
    assert np.linalg.norm(with_slack @ z) <= 1e-12 * np.linalg.norm(z)


def test_few_rows_with_full_columns_are_not_augmented():
    """The trap: C G⁻¹ C' has p² entries at most, however full its columns are."""
    C = sp.random(60, 4000, 0.7, random_state=0, format="csr")
    assert null_space(C).kind == "normal"


def test_a_row_that_is_nearly_a_combination_with_large_coefficients_is_dependent():
    """The trap: δ (1 + ‖coefficients‖²) is no small pivot, yet the row is redundant."""
    base = sp.csr_array(np.eye(2, 40) + 1e-3 * np.eye(2, 40, 1))
    close = sp.csr_array(np.vstack([base.toarray()[0], base.toarray()[0]]))
    close = close + sp.csr_array(([1e-4], ([1], [7])), (2, 40))
    third = sp.csr_array(close[[1]] - close[[0]])  # 1e-4 e_7, at unit length e_7
    C = sp.csr_array(sp.vstack([close, third]))
    assert null_space(C, kind="normal").rank == 2


def nearly(distance, twice=False):
    """Return rows, one or two of which are this far from the span of the others."""
    away = RNG.standard_normal((2, N))
    away = away / np.linalg.norm(away, axis=1)[:, None]
    weights = RNG.standard_normal((2, P))
    first = weights @ SPARSE.toarray() + distance * away
    second = first[1:] - 3.0 * first[:1] if twice else first[:0]
    return sp.csr_array(np.vstack([SPARSE.toarray(), first, second]))


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("distance", [1e-4, 1e-6, 1e-8, 1e-10])
def test_rows_close_to_the_span_of_others_stay(distance, twice):
    """The trap: a row 1e-6 from the others was dropped, and C z was 1e-6 then."""
    C = nearly(distance, twice)
    space = null_space(C, kind="normal")
    assert space.rank == P + 2
    r = RNG.standard_normal((N, 2))
    z, w = space.project(r), space.multipliers(r)
    assert np.linalg.norm(C @ z) <= 1e-14 * C.shape[0] * np.linalg.norm(z)
    np.testing.assert_allclose(z + C.T @ w, r, rtol=0, atol=1e-14 / distance)
    basis = scipy.linalg.qr(C.toarray()[: P + 2].T, mode="economic")[0]
    np.testing.assert_allclose(
        z, r - basis @ (basis.T @ r), rtol=0, atol=1e-13 / distance
    )
    y0 = RNG.standard_normal(N)
    y = space.particular(C @ y0)
    assert space.mismatch(C @ y0, y) <= 1e-13
    np.testing.assert_allclose(y, basis @ (basis.T @ y0), atol=1e-13 / distance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_within_rounding_of_the_span_of_others_go(dtype):
    C = nearly(0.1 * np.finfo(dtype).eps).astype(dtype)
    assert null_space(C, kind="normal").rank == P


def test_second_differences_of_many_points():
    """Each row is far from its neighbours, and their span within 1e-5 of all."""
    n = 10_002
    C = sp.diags_array([1.0, -2.0, 1.0], offsets=[0, 1, 2], shape=(n - 2, n)).tocsr()
    space = null_space(C)
    assert (space.kind, space.rank) == ("normal", n - 2)
    t = np.linspace(-1.0, 1.0, n)
    lines = np.stack([np.ones(n), t], axis=1)
    r = np.sin(5.0 * t) + RNG.standard_normal(n)
    fit = lines @ np.linalg.lstsq(lines, r)[0]
    np.testing.assert_allclose(space.project(r), fit, rtol=0, atol=1e-7)
    assert np.linalg.norm(C @ space.project(r)) <= 1e-14 * np.linalg.norm(r)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0), (1, 1), (4, 4), (3, 4)])
@pytest.mark.parametrize("sparse", [False, True])
def test_shapes_at_the_border(shape, sparse):
    C = np.eye(*shape) if shape != (3, 4) else np.zeros(shape)
    space = null_space(sp.csr_array(C) if sparse else C)
    p, n = shape
    r = np.arange(1.0, n + 1.0)
    expected = r.copy() if shape in {(0, 4), (3, 4)} else np.zeros(n)
    np.testing.assert_array_equal(space.project(r), expected)
    assert space.multipliers(r).shape == (p,)
    assert space.particular(np.zeros(p)).shape == (n,)
    assert space.mismatch(np.zeros(p), r * 0.0) == 0.0
    assert space.project(np.ones((n, 0))).shape == (n, 0)


def test_float32_stays_float32():
    for C in (SPARSE.astype(np.float32), SPARSE.toarray().astype(np.float32)):
        for kind in ["dense", "normal", "augmented"][: 3 if sp.issparse(C) else 1]:
            space = null_space(C, kind=kind)
            r = RNG.standard_normal(N).astype(np.float32)
            z = space.project(r)
            assert {z.dtype, space.multipliers(r).dtype} == {np.dtype(np.float32)}
            assert space.particular(r[:P]).dtype == np.float32
            assert np.linalg.norm(C @ z) <= 1e-5 * np.linalg.norm(z)


def test_nothing_is_changed_and_nothing_must_be_contiguous():
    C = np.asfortranarray(RNG.standard_normal((12, 30)))[::2]
    r = RNG.standard_normal((60,))[::2]
    kept, kept_r = C.copy(), r.copy()
    C.flags.writeable = r.flags.writeable = False
    space = null_space(C)
    z = space.project(r)
    np.testing.assert_array_equal(C, kept)
    np.testing.assert_array_equal(r, kept_r)
    assert not np.shares_memory(z, r)
    stored = sp.csr_array((np.array([1.0, 0.0, 2.0]), ([0, 0, 1], [0, 1, 1])), (2, 3))
    assert null_space(stored).kind == "disjoint"
    assert stored.nnz == 3


def test_strict_arrays(strict_array):
    to, back = strict_array
    C, r = RNG.standard_normal((3, 8)), RNG.standard_normal((8, 2))
    here, there = null_space(C), null_space(to(C))
    np.testing.assert_allclose(back(there.project(to(r))), here.project(r), atol=1e-14)
    np.testing.assert_allclose(
        back(there.multipliers(to(r))), here.multipliers(r), atol=1e-13
    )
    with pytest.raises(TypeError, match="mixed"):
        there.project(r)


def test_integers_become_floats():
    z = null_space(np.ones((1, 4), dtype=int)).project(np.array([1.0, 2.0, 3.0, 6.0]))
    np.testing.assert_allclose(z, [-2.0, -1.0, 0.0, 3.0], atol=1e-14)


@pytest.mark.parametrize(
    ("C", "metric", "kind", "error", "match"),
    [
        (aslinearoperator(np.eye(2)) * 1.0, None, None, TypeError, "minres"),
        (np.array([[np.nan, 1.0]]), None, None, ValueError, "finite"),
        (sp.csr_array([[np.inf, 1.0]]), None, None, ValueError, "finite"),
        (np.ones(3), None, None, ValueError, "two dimensions"),
        (1j * np.ones((1, 3)), None, None, TypeError, "real"),
        (sp.csr_array(1j * np.ones((1, 3))), None, None, TypeError, "real"),
        ([[1.0, 2.0]], None, None, TypeError, "list"),
        (np.ones((1, 2)), np.array([1.0, 0.0]), None, ValueError, "positive"),
        (np.ones((1, 2)), np.array([1.0, np.nan]), None, ValueError, "positive"),
        (np.ones((1, 2)), np.ones(3), None, ValueError, "shape"),
        (np.ones((1, 2)), None, "qr", ValueError, "kind"),
        (np.ones((2, 2)), None, "disjoint", ValueError, "disjoint"),
        (sp.csr_array(np.ones((2, 2))), None, "disjoint", ValueError, "disjoint"),
        (np.ones((1, 2)), None, "normal", ValueError, "sparse"),
    ],
)
def test_bad_input_is_named(C, metric, kind, error, match):
    with pytest.raises(error, match=match):
        null_space(C, metric, kind=kind)


@pytest.mark.parametrize("unit", [1e-200, 1e200])
def test_units_far_from_one(unit):
    r = RNG.standard_normal(N)
    plain = null_space(SPARSE, kind="normal")
    z = null_space(SPARSE * unit, kind="normal").project(r)
    np.testing.assert_allclose(z, plain.project(r), atol=1e-12)
    np.testing.assert_allclose(plain.project(unit * r) / unit, z, atol=1e-12)


def test_multipliers_of_an_operator():
    force = RNG.standard_normal(N)
    for unit in (1e-6, 1.0, 1e6):
        C = unit * DEPENDENT
        w = null_space_of(aslinearoperator(C) * 1.0).multipliers(force)
        best = force - C.T @ null_space_of(C).multipliers(force)
        np.testing.assert_allclose(force - C.T @ w, best, rtol=0, atol=1e-9)
    assert not null_space_of(aslinearoperator(SPARSE) * 0.0).multipliers(force).any()


@given(st.integers(1, 30), st.integers(0, 35), st.integers(0, 2**31), st.booleans())
@settings(max_examples=60, deadline=None)
def test_random_sparse_rows(n, p, seed, metric):
    rng = np.random.default_rng(seed)
    C = sp.csr_array(sp.random(p, n, 0.25, random_state=rng))
    G = 10.0 ** rng.uniform(-2, 2, n) if metric else None
    r = rng.standard_normal(n)
    spaces = [null_space(C, G, kind=kind) for kind in ("dense", "normal")]
    np.testing.assert_allclose(
        spaces[0].project(r), spaces[1].project(r), rtol=1e-6, atol=1e-7
    )
    assert spaces[0].rank == spaces[1].rank
