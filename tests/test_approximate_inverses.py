"""preconditioners/: what every builder promises, and what each is for."""

from __future__ import annotations

import builtins
import tracemalloc

import numpy as np
import pytest
import scipy.linalg
from scipy import sparse

import sparse_argdiff as sad
from sparse_argdiff import preconditioners as pc
from sparse_argdiff.linear_model import Glm

N = 60


def spd(n=N, condition=1e4, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    A = (Q * np.geomspace(1.0, condition, n)) @ Q.T
    return (0.5 * (A + A.T)).astype(dtype)


def laplacian(side, dtype=np.float64):
    one = sparse.diags_array(
        [-np.ones(side - 1), 2.0 * np.ones(side), -np.ones(side - 1)],
        offsets=[-1, 0, 1],
    )
    eye = sparse.eye_array(side)
    return sparse.csr_array(sparse.kron(one, eye) + sparse.kron(eye, one), dtype=dtype)


def low_rank_plus_diagonal(n=N, rank=8, seed=1, dtype=np.float64, shift=0.0):
    """Return core + diag(d) as an operator with a split that counts its products."""
    rng = np.random.default_rng(seed)
    F = rng.standard_normal((n, rank)) * np.geomspace(100.0, 1.0, rank)
    core = (F @ F.T / n).astype(dtype)
    d = (np.exp(rng.standard_normal(n) + shift) * 1e-2).astype(dtype)
    return split_operator(core, d)


def split_operator(core, d):
    counts = {"products": 0}

    def product(v):
        counts["products"] += 1 if v.ndim == 1 else v.shape[1]
        return core @ v

    def whole(v):
        return product(v) + (d * v if v.ndim == 1 else d[:, None] * v)

    part = sad.LinearOperator(
        core.shape, product, matmat=product, dtype=core.dtype, symmetric=True
    )
    A = sad.LinearOperator(
        core.shape,
        whole,
        matmat=whole,
        dtype=core.dtype,
        symmetric=True,
        structure=sad.Structure(split=(part, d)),
    )
    return A, core + np.diag(d), counts


def pairs_of(A, k=10, seed=2):
    S = np.random.default_rng(seed).standard_normal((A.shape[0], k)).astype(A.dtype)
    return [(S[:, j], A @ S[:, j]) for j in range(k)]


def ritz(A, k=8):
    _, vectors = np.linalg.eigh(A.astype(np.float64))
    W = vectors[:, -k:].astype(A.dtype)
    return W, A @ W


BUILDERS = {
    "jacobi": lambda A: pc.jacobi(A.diagonal().copy()),
    "block_jacobi": lambda A: pc.block_jacobi(A, 7),
    "nystrom": lambda A: pc.nystrom(A, rank=min(10, max(A.shape[0], 1))),
    "cholesky": pc.cholesky,
    "amg": lambda A: pc.amg(sparse.csr_array(A)),
    "lbfgs": lambda A: pc.lbfgs(pairs_of(A)),
    "deflation": lambda A: pc.deflation(*ritz(A)),
}
each = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS.keys())


@each
@pytest.mark.parametrize("n", [1, 2, N])
@pytest.mark.parametrize("condition", [1.0, 1e8])
def test_symmetric_positive_definite_and_linear(build, n, condition):
    A = spd(n, condition)
    if build is BUILDERS["deflation"]:
        M = pc.deflation(*ritz(A, min(n, 8)))
    else:
        M = build(A)
    assert M.shape == (n, n)
    assert M.positive_definite
    sad.dot_test(M)
    dense = M @ np.eye(n)
    values = scipy.linalg.eigvalsh(0.5 * (dense + dense.T))
    assert values[0] > 0.0
    block = np.random.default_rng(0).standard_normal((n, 3))
    one_by_one = np.stack([M @ block[:, j] for j in range(3)], axis=1)
    np.testing.assert_allclose(M @ block, one_by_one, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(dense @ block, M @ block, atol=1e-9 * abs(dense).max())


@each
def test_float32_stays_float32(build):
    A = spd(condition=1e2, dtype=np.float32)
    M = build(A)
    assert M.dtype == np.float32
    r = np.ones(N, np.float32)
    assert (M @ r).dtype == np.float32
    assert (M @ np.stack([r, r], axis=1)).dtype == np.float32


@each
def test_arguments_are_left_alone(build):
    A = spd(condition=1e3)
    kept = A.copy()
    A.flags.writeable = False
    M = build(A)
    r = np.arange(float(N))
    r.flags.writeable = False
    first = M @ r
    np.testing.assert_array_equal(A, kept)
    np.testing.assert_array_equal(M @ r[::-1][::-1], first)


@pytest.mark.parametrize(
    "build",
    [pc.cholesky, pc.nystrom, lambda A: pc.block_jacobi(A, 2)],
    ids=["cholesky", "nystrom", "block_jacobi"],
)
def test_an_empty_matrix(build):
    M = build(np.zeros((0, 0)))
    assert M.shape == (0, 0)
    assert (M @ np.zeros(0)).shape == (0,)


@pytest.mark.parametrize("name", ["cholesky", "nystrom", "block_jacobi", "amg"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda A: A - 2.0 * np.diag(np.diag(A)),  # negative
        lambda A: A + np.triu(A, 1) * 0.5 if A.shape else A,  # not symmetric
        lambda A: np.where(np.eye(N, dtype=bool) & (A.max() == A), np.nan, A),
    ],
    ids=["negative", "asymmetric", "nan"],
)
def test_what_is_not_positive_definite_is_refused(name, spoil):
    A = spoil(spd(condition=10.0))
    if name == "block_jacobi" and not np.isnan(A).any():
        A = -A if (np.diag(A) > 0.0).all() else A
    with pytest.raises(ValueError, match=r"\bA\b"):
        BUILDERS[name](A)


@pytest.mark.parametrize("build", [pc.cholesky, lambda A: pc.nystrom(A, rank=N)])
def test_an_indefinite_matrix_is_refused(build):
    A = spd(condition=10.0)
    values, vectors = np.linalg.eigh(A)
    values[0] = -1.0
    with pytest.raises(ValueError, match="positive definite"):
        build((vectors * values) @ vectors.T)


def test_a_singular_matrix_has_no_factor_and_the_solver_says_so():
    F = np.random.default_rng(0).standard_normal((N, N // 2))
    A = F @ F.T
    with pytest.raises(ValueError, match="positive definite"):
        pc.cholesky(A)
    objective = sad.FunctionObjective(
        grad=lambda x, y: A @ y - x,
        value=lambda x, y: 0.5 * y @ A @ y - x @ y,
        cross_jvp=lambda x, y, u: -u,
        cross_vjp=lambda x, y, w: -w,
    )
    objective.hess = lambda x, y: A
    x = A @ np.ones(N)
    solution = sad.Solution(y=np.ones(N), x=x)
    v = np.random.default_rng(1).standard_normal(N)
    with pytest.raises(sad.ConvergenceError):
        sad.vjp(sad.Problem(objective), solution, v)


# each for what it is meant for ----------------------------------------------------


def iterations(A, b, M, **options):
    result = sad.cg(A, b, M=M, rtol=1e-8, **options)
    assert result.converged
    return result.niter


def test_cholesky_is_the_inverse():
    A = spd(condition=1e8)
    b = np.random.default_rng(0).standard_normal(N)
    M = pc.cholesky(A)
    np.testing.assert_allclose(M @ b, np.linalg.solve(A, b), rtol=1e-6)
    assert iterations(A, b, M) <= 2
    assert M.n_matvec == 0


@pytest.mark.parametrize("matrix", [spd, lambda: sparse.csr_array(spd())])
def test_cholesky_of_an_operator_costs_its_columns(matrix):
    A = sad.aslinearoperator(matrix())
    bare = sad.LinearOperator(A.shape, A.matvec, symmetric=True)
    b = np.ones(N)
    np.testing.assert_allclose(pc.cholesky(bare) @ b, pc.cholesky(A) @ b, rtol=1e-9)
    assert pc.cholesky(bare).n_matvec == N
    assert pc.cholesky(A).n_matvec == 0


@pytest.mark.parametrize("build", [pc.cholesky, lambda A: pc.nystrom(A, rank=12)])
def test_update_for_another_diagonal_costs_nothing_and_equals_a_rebuild(build):
    A, _, counts = low_rank_plus_diagonal()
    M = build(A)
    assert counts["products"] == M.n_matvec > 0
    d = np.exp(np.random.default_rng(9).standard_normal(N))
    core, _ = A.split
    split = sad.Structure(split=(core, d))
    other = sad.LinearOperator(A.shape, core.matvec, symmetric=True, structure=split)
    counts["products"] = 0
    updated = M.update(other)
    assert counts["products"] == 0
    assert updated.n_matvec == 0
    r = np.random.default_rng(3).standard_normal(N)
    np.testing.assert_allclose(updated @ r, build(other) @ r, rtol=1e-8)
    # And the old one is still the old one.
    np.testing.assert_allclose(M @ r, build(A) @ r, rtol=1e-8)
    twice = updated.update(A)
    np.testing.assert_allclose(twice @ r, M @ r, rtol=1e-8)


def test_update_for_another_matrix_equals_a_rebuild():
    A, B = spd(seed=1, condition=30.0), spd(seed=2, condition=30.0)
    r = np.random.default_rng(3).standard_normal(N)
    for build in (
        pc.cholesky,
        lambda A: pc.nystrom(A, rank=10),
        lambda A: pc.block_jacobi(A, 7),
    ):
        np.testing.assert_allclose(build(A).update(B) @ r, build(B) @ r, rtol=1e-9)
    W = np.random.default_rng(5).standard_normal((N, 5))
    updated = pc.deflation(W, A @ W).update(B)
    np.testing.assert_allclose(updated @ r, pc.deflation(W, B @ W) @ r, rtol=1e-9)
    assert updated.n_matvec == 5
    updated = pc.lbfgs(pairs_of(A)).update(pairs_of(B))
    np.testing.assert_allclose(updated @ r, pc.lbfgs(pairs_of(B)) @ r, rtol=1e-9)


def test_nystrom_of_low_rank_plus_diagonal_is_the_inverse():
    A, dense, counts = low_rank_plus_diagonal(rank=8)
    M = pc.nystrom(A, rank=12)
    assert counts["products"] == M.n_matvec == 12
    b = np.random.default_rng(0).standard_normal(N)
    np.testing.assert_allclose(M @ b, np.linalg.solve(dense, b), rtol=1e-6)
    assert iterations(A, b, M) <= 3
    assert iterations(A, b, None) > 12


def test_nystrom_doubles_its_rank_until_the_rest_is_small():
    n = 300
    rng = np.random.default_rng(0)
    Q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    core = (Q * np.arange(1, n + 1.0) ** -2.0) @ Q.T
    b = rng.standard_normal(n)
    spent = {}
    for size in (1e-2, 1e-4):
        A, _, counts = split_operator(core, np.full(n, size))
        M = pc.nystrom(A)
        assert counts["products"] == M.n_matvec
        spent[size] = M.n_matvec
        assert iterations(A, b, M) < 0.5 * iterations(A, b, None)
    assert spent[1e-2] == 20  # the twentieth eigenvalue is 1 / 400
    assert spent[1e-4] == 80  # the eightieth is about 1 / 6400
    A, _, _ = split_operator(core, np.full(n, 1e-4))
    assert pc.nystrom(A, max_rank=50).n_matvec == 50


def test_nystrom_refuses_a_flat_spectrum_where_asked():
    A, _, counts = split_operator(np.eye(N), np.full(N, 1e-3))
    with pytest.raises(ValueError, match="must fall by 10"):
        pc.nystrom(A, least_fall=10.0)
    assert counts["products"] == 20


def test_nystrom_is_reproducible_and_takes_a_generator():
    A, _, _ = low_rank_plus_diagonal(rank=40)
    r = np.ones(N)
    np.testing.assert_array_equal(pc.nystrom(A, 9) @ r, pc.nystrom(A, rank=9) @ r)
    other = pc.nystrom(A, rank=9, rng=np.random.default_rng(5)) @ r
    assert np.abs(other - pc.nystrom(A, rank=9) @ r).max() > 0.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nystrom_stays_positive_where_the_curvature_dwarfs_the_diagonal(dtype):
    F = np.random.default_rng(0).standard_normal((N, 4))
    A, _, _ = split_operator((1e12 * F @ F.T).astype(dtype), np.ones(N, dtype))
    M = pc.nystrom(A, rank=8)
    for r in np.stack([F[:, 0], F @ np.ones(4), np.ones(N)]).astype(dtype):
        assert float(r @ (M @ r)) > 0.0


@pytest.mark.parametrize("free", [1, 3])
@pytest.mark.parametrize("least", [0.0, 1e-11])
def test_nystrom_of_all_that_the_core_has_is_positive_beside_a_free_unknown(
    free, least
):
    """A sketch beyond the rank leaves no tail, and the diagonal of an intercept is zero."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        F = rng.standard_normal((N, 25)) * 10.0 ** rng.uniform(-3, 1, (N, 1))
        F[:free] = 1.0 + 0.1 * rng.standard_normal((free, 25))
        d = 10.0 ** rng.uniform(-4, 0, N)
        d[:free] = least
        A, dense, _ = split_operator(F @ F.T / 25.0, d)
        M = pc.nystrom(A, rank=30)
        axes, vectors = np.eye(N)[:, : free + 2], np.linalg.eigh(dense)[1]
        for r in np.hstack([axes, vectors, F]).T:
            assert float(r @ (M @ r)) > 0.0
        b = rng.standard_normal(N)
        assert iterations(A, b, M) <= 10


def test_nystrom_of_zero_curvature_is_refused():
    A, _, _ = split_operator(np.zeros((4, 4)), np.zeros(4))
    with pytest.raises(ValueError, match="no positive curvature"):
        pc.nystrom(A)
    A, _, _ = split_operator(np.zeros((4, 4)), np.array([1.0, 2.0, 4.0, 8.0]))
    np.testing.assert_allclose(pc.nystrom(A) @ np.ones(4), [1.0, 0.5, 0.25, 0.125])


@pytest.mark.parametrize("d", [[1.0, -1.0], [1.0, np.nan]])
def test_nystrom_refuses_a_diagonal_that_is_not_one_of_a_penalty(d):
    A, _, _ = split_operator(np.eye(2), np.array(d))
    with pytest.raises(ValueError, match=r"A\.split"):
        pc.nystrom(A)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_block_jacobi_inverts_its_blocks(kind):
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(5), [1, 2, 3, 4, 5]))
    A = spd(15, 10.0)
    blocks = np.where(labels[:, None] == labels[None, :], A, 0.0)
    M = pc.block_jacobi(sparse.csr_array(A) if kind == "sparse" else A, labels)
    np.testing.assert_allclose(M @ np.eye(15), np.linalg.inv(blocks), atol=1e-12)
    assert iterations(blocks, np.ones(15), M) <= 2


def test_block_jacobi_on_every_backend(xp_array):
    to, back = xp_array
    A = spd(8, 10.0)
    M = pc.block_jacobi(to(A), 3)
    r = np.random.default_rng(0).standard_normal((8, 2))
    expected = pc.block_jacobi(A, 3) @ r
    np.testing.assert_allclose(back(M @ to(r)), expected, rtol=1e-10)
    np.testing.assert_allclose(back(M @ to(r[:, 0])), expected[:, 0], rtol=1e-10)


def test_nystrom_lbfgs_and_deflation_on_every_backend(xp_array):
    to, back = xp_array
    A = spd(12, 100.0)
    r = np.random.default_rng(0).standard_normal(12)
    W, AW = ritz(A, 3)
    pairs = pairs_of(A, 4)
    for expected, M in (
        (pc.nystrom(A, rank=5), pc.nystrom(to(A), rank=5)),
        (pc.deflation(W, AW), pc.deflation(to(W), to(AW))),
        (pc.lbfgs(pairs), pc.lbfgs([(to(s), to(y)) for s, y in pairs])),
    ):
        np.testing.assert_allclose(back(M @ to(r)), expected @ r, rtol=1e-8)


def test_block_jacobi_needs_entries_and_sound_labels():
    A = spd(4, 2.0)
    with pytest.raises(TypeError, match="entries"):
        pc.block_jacobi(sad.LinearOperator(A.shape, A.__matmul__, symmetric=True), 2)
    for blocks in (0, np.ones(3, int), np.ones(4)):
        with pytest.raises(ValueError, match="blocks"):
            pc.block_jacobi(A, blocks)


def test_lbfgs_reproduces_its_pairs_and_drops_the_bad_ones():
    A = spd(condition=1e3)
    pairs = pairs_of(A)
    M = pc.lbfgs(pairs)
    s, y = pairs[-1]
    np.testing.assert_allclose(M @ y, s, rtol=1e-9)
    bad = [(s, -y), (0.0 * s, y), (s, 0.0 * y)]
    again = pc.lbfgs([*pairs[:3], *bad, *pairs[3:]])
    r = np.random.default_rng(7).standard_normal(N)
    np.testing.assert_allclose(again @ r, M @ r, rtol=1e-10)
    with pytest.raises(ValueError, match="pairs"):
        pc.lbfgs(bad)
    with pytest.raises(ValueError, match="pairs must be finite"):
        pc.lbfgs([(s, np.nan * y)])


def test_lbfgs_matches_the_matrix_formula():
    A = spd(6, 50.0)
    pairs = pairs_of(A, 3)
    H = np.diag(np.arange(1.0, 7.0))
    M = pc.lbfgs(pairs, M=H.copy())
    for s, y in pairs:
        rho = 1.0 / (s @ y)
        V = np.eye(6) - rho * np.outer(y, s)
        H = V.T @ H @ V + rho * np.outer(s, s)
    np.testing.assert_allclose(M @ np.eye(6), H, rtol=1e-9, atol=1e-12)


def test_lbfgs_from_the_pairs_of_a_solve_saves_iterations():
    A = spd(condition=1e3)
    b = np.random.default_rng(0).standard_normal(N)
    points = []
    sad.cg(A, b, rtol=1e-8, callback=lambda it: points.append(it.x.copy()))
    steps = np.diff(np.array(points), axis=0)[:40]
    M = pc.lbfgs([(s, A @ s) for s in steps])
    near = b + 0.1 * np.random.default_rng(1).standard_normal(N)
    assert iterations(A, near, M) < 0.8 * iterations(A, near, None)


@pytest.mark.parametrize("end", ["large", "small"])
def test_deflation_removes_an_end_of_the_spectrum(end):
    rng = np.random.default_rng(0)
    Q, _ = np.linalg.qr(rng.standard_normal((N, N)))
    outliers = (
        np.geomspace(1e3, 1e6, 8) if end == "large" else np.geomspace(1e-6, 1e-3, 8)
    )
    A = (Q * np.concatenate([outliers, np.linspace(1.0, 2.0, N - 8)])) @ Q.T
    W = Q[:, :8]
    M = pc.deflation(W, A @ W)
    b = rng.standard_normal(N)
    assert iterations(A, b, M) < 0.6 * iterations(A, b, None)
    np.testing.assert_allclose(M @ (A @ W), W, atol=1e-8)
    with_diagonal = pc.deflation(W, A @ W, M=pc.jacobi(np.diag(A).copy()))
    np.testing.assert_allclose(with_diagonal @ (A @ W), W, atol=1e-8)


def test_deflation_refuses_what_is_not_definite():
    A = spd(condition=10.0)
    W = np.random.default_rng(0).standard_normal((N, 3))
    for AW in (-A @ W, np.nan * W):
        with pytest.raises(ValueError, match="W'AW"):
            pc.deflation(W, AW)
    with pytest.raises(ValueError, match="W'AW"):
        pc.deflation(W[:, [0, 0]], (A @ W)[:, [0, 0]])
    with pytest.raises(ValueError, match="AW must have shape"):
        pc.deflation(W, A @ W[:, :2])


# a sequence of right-hand sides -----------------------------------------------------


def test_the_galerkin_start_is_the_best_of_the_span():
    A = spd(condition=1e3)
    rng = np.random.default_rng(0)
    W, b = rng.standard_normal((N, 3)), rng.standard_normal(N)
    x0, n_matvec = pc.galerkin_start(A, b, W)
    assert n_matvec == 3
    np.testing.assert_allclose(W.T @ (b - A @ x0), 0.0, atol=1e-9)
    expected = W @ np.linalg.solve(W.T @ A @ W, W.T @ b)
    np.testing.assert_allclose(x0, expected, rtol=1e-7)
    # Dependent columns and zeros do no harm, NaN and negative curvature give no start.
    again, _ = pc.galerkin_start(A, b, np.stack([*W.T, W[:, 0], 0.0 * b], axis=1))
    np.testing.assert_allclose(again, expected, rtol=1e-5)
    assert pc.galerkin_start(A, b, np.nan * W)[0] is None
    assert pc.galerkin_start(-A, b, W)[0] is None


def test_recent_adjoints_save_iterations_in_a_sequence():
    rng = np.random.default_rng(0)
    A, b = spd(300, 1e4), rng.standard_normal(300)
    turn, drift = rng.standard_normal(300), rng.standard_normal((300, 300)) / 300**0.5
    drift = drift @ drift.T
    objective = sad.FunctionObjective(
        grad=lambda x, y: A @ y,
        hvp=lambda x, y, v: A @ v + x[0] * (drift @ v),
        cross_jvp=lambda x, y, u: u[0] * (drift @ y),
        cross_vjp=lambda x, y, w: np.array([w @ drift @ y]),
    )
    problem, spent = sad.Problem(objective), {}
    for size in (1, 3):
        recent, spent[size] = pc.RecentSolutions(size), 0
        assert recent.start() is None
        for k in range(10):
            solution = sad.Solution(y=np.zeros(300), x=np.array([0.3 * k]))
            v = b + 0.02 * k * turn
            found = sad.vjp(
                problem, solution, v, adjoint0=recent.start(), M=None, rtol=1e-6
            )
            recent.keep(found.adjoint, found.krylov.niter)
            spent[size] += found.n_hvp
    assert spent[3] < 0.85 * spent[1]


def test_recent_returns_the_last_alone_where_solves_are_short():
    recent = pc.RecentSolutions(3)
    for k in range(5):
        recent.keep(np.full(4, float(k)), niter=5)
    np.testing.assert_array_equal(recent.start(), np.full(4, 4.0))
    recent.keep(np.full(4, 5.0), niter=100)
    np.testing.assert_array_equal(recent.start()[0], [5.0, 4.0, 3.0])
    recent.keep(np.ones(7), niter=100)  # another active set
    np.testing.assert_array_equal(recent.start(), np.ones(7))


# algebraic multigrid ----------------------------------------------------------------


def test_amg_needs_the_same_iterations_on_every_grid():
    counts = []
    for side in (32, 64, 128, 256):
        A = laplacian(side)
        b = np.random.default_rng(0).standard_normal(side * side)
        counts.append(iterations(A, b, pc.amg(A)))
    assert max(counts) - min(counts) <= 3
    assert max(counts) <= 12


@pytest.mark.parametrize("method", ["ruge_stuben", "smoothed_aggregation"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_amg_is_symmetric_positive_definite_in_its_dtype(method, dtype):
    A = laplacian(40, dtype)
    M = pc.amg(A, method=method)
    rng = np.random.default_rng(0)
    R = rng.standard_normal((1600, 3)).astype(dtype)
    Z = M @ R
    assert Z.dtype == M.dtype == dtype
    gram = R.T @ Z
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(gram, gram.T, atol=tolerance * abs(gram).max())
    assert np.linalg.eigvalsh(gram)[0] > 0.0
    np.testing.assert_allclose(
        Z[:, 1],
        M @ R[:, 1].copy(),
        rtol=1e-3 if dtype == np.float32 else 1e-9,
        atol=1e-5,
    )
    # An approximate inverse: the spectrum of M A is near 1.
    error = M @ (A @ R) - R
    assert np.linalg.norm(error) < 0.5 * np.linalg.norm(R)


@pytest.mark.parametrize("method", ["ruge_stuben", "smoothed_aggregation"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_compiled_cycle_is_the_reference_and_symmetric(method, dtype):
    """Vectors of a large level go through compiled passes, blocks through NumPy's."""
    pytest.importorskip("numba")
    side = 150
    A = laplacian(side, dtype)
    scale = np.geomspace(1.0, 1e3, side * side).astype(dtype)
    A = sparse.csr_array(sparse.diags_array(scale) @ A @ sparse.diags_array(scale))
    M = pc.amg(A, method=method)
    R = np.random.default_rng(0).standard_normal((side * side, 2)).astype(dtype)
    R *= scale[:, None]
    reference = M @ R
    r, s = (R[:, j].copy() for j in range(2))
    kept = r.copy()
    found, other = M @ r, M @ s
    assert found.dtype == dtype
    assert not np.array_equal(found, reference[:, 0])  # or nothing is compared
    unit = np.finfo(dtype).eps
    for z, column in ((found, 0), (other, 1)):
        expected = reference[:, column]
        np.testing.assert_allclose(
            z * scale, expected * scale, rtol=0, atol=1e3 * unit * abs(z * scale).max()
        )
    np.testing.assert_array_equal(r, kept)
    size = np.sqrt(float(r @ found) * float(s @ other))
    assert r @ found > 0.0
    assert abs(float(r @ other) - float(s @ found)) <= 1e3 * unit * size
    r.flags.writeable = False
    np.testing.assert_array_equal(M @ r, found)
    np.testing.assert_array_equal(M @ R[:, 0], found)
    np.testing.assert_allclose(
        M @ R[:, 0].astype(float),
        reference[:, 0],
        rtol=0,
        atol=1e3 * unit * abs(found).max(),
    )


@pytest.mark.parametrize("side", [120, 150])  # in NumPy, and compiled
def test_amg_of_nan_is_nan(side):
    M = pc.amg(laplacian(side))
    r = np.ones(side * side)
    r[77] = np.nan
    out = np.full(side * side, np.inf)
    M.apply(r, out)
    assert np.isnan(out).any()
    r[77], out[...] = 1.0, np.nan
    M.apply(r, out)  # what was there is not read
    assert np.isfinite(out).all()


def test_amg_update_keeps_the_hierarchy():
    A = laplacian(48)
    shift = sparse.diags_array(np.linspace(0.0, 0.5, 48 * 48))
    B = sparse.csr_array(A + shift)
    b = np.random.default_rng(0).standard_normal(48 * 48)
    fresh, updated = pc.amg(B), pc.amg(A).update(B)
    assert iterations(B, b, updated) <= iterations(B, b, fresh) + 3
    with pytest.raises(ValueError, match="must have shape"):
        pc.amg(A).update(laplacian(10))


def test_amg_of_a_graph_laplacian_that_is_singular_stays_definite():
    A = laplacian(40)
    A = sparse.csr_array(A - sparse.diags_array(A.sum(axis=1)))  # Neumann: A 1 = 0
    M = pc.amg(A)
    b = np.random.default_rng(0).standard_normal(1600)
    b -= b.mean()
    result = sad.minres(A, b, M=M, rtol=1e-8)
    assert result.converged
    assert result.niter < 40


def test_amg_without_pyamg_names_the_extra(monkeypatch):
    imported = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "pyamg":
            raise ImportError
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"sparse_argdiff\[amg\]"):
        pc.amg(laplacian(5))


def test_amg_refuses_what_it_cannot_use():
    with pytest.raises(TypeError, match="sparse"):
        pc.amg(np.eye(3))
    with pytest.raises(ValueError, match="method"):
        pc.amg(laplacian(3), method="geometric")


# the split of a linear model ----------------------------------------------------------


@pytest.mark.parametrize("loss", ["logistic", "squared", "multinomial"])
def test_a_glm_splits_its_hessian(loss):
    rng = np.random.default_rng(0)
    F = rng.standard_normal((30, 5))
    t = rng.integers(0, 3, 30) if loss == "multinomial" else rng.random(30)
    glm = Glm(F, t, loss=loss)
    x, y = rng.standard_normal(glm.m), rng.standard_normal(glm.n)
    H = glm.hess(x, y)
    core, d = H.split
    np.testing.assert_allclose(core.todense() + np.diag(d), H.todense(), atol=1e-12)
    np.testing.assert_allclose(core.diagonal(), np.diag(core.todense()), atol=1e-12)
    other, _ = glm.hess(x + 1.0, y).split
    np.testing.assert_array_equal(other.todense(), core.todense())


def test_a_scaled_or_restricted_operator_keeps_its_split_and_matrix():
    A, dense, _ = low_rank_plus_diagonal(n=6, rank=2)
    core, d = (2.0 * A).split
    np.testing.assert_allclose(core.todense() + np.diag(d), 2.0 * dense)
    B = sad.aslinearoperator(dense)
    np.testing.assert_array_equal((2.0 * B).matrix, 2.0 * dense)
    assert (B + B).matrix is None


@pytest.mark.parametrize("side", [120, 150])  # in NumPy, and compiled
def test_a_second_cycle_allocates_no_vector_but_its_answer(side):
    pytest.importorskip("pyamg")
    A = laplacian(side)
    M = pc.amg(A)
    r = np.random.default_rng(0).standard_normal(A.shape[0])
    expected, out = M @ r, np.empty_like(r)
    tracemalloc.start()
    try:
        M.apply(r, out)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < r.nbytes
    assert np.array_equal(out, expected)
    overlapping = r.copy()
    M.apply(overlapping, overlapping)
    assert np.array_equal(overlapping, expected)
    strided = np.empty((r.size, 2))[:, 0]
    M.apply(r, strided)
    assert np.array_equal(strided, expected)
    block = M @ np.stack([r, -2.0 * r], axis=1)
    assert np.allclose(block, np.stack([expected, -2.0 * expected], axis=1), rtol=1e-12)
