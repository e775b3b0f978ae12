"""``M="auto"`` and ``M`` as a function: what is chosen, when it is built, what it costs."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import scipy.sparse.linalg
from problems import PROBLEMS
from scipy import sparse

import sparse_argdiff as sad
from sparse_argdiff import preconditioners as pc
from sparse_argdiff.linear_model import Glm
from sparse_argdiff.preconditioners.auto import Choice, factor_price
from sparse_argdiff.preconditioners.damped_diagonal import data_share


def correlated(n=120, n_samples=240, decay=1.0, seed=0):
    """Logistic ridge on features whose principal deviations fall like j^-decay."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.standard_normal((n, n)))
    scale = 0.75 * n**0.5 * np.arange(1, n + 1.0) ** -decay
    F = (rng.standard_normal((2 * n_samples, n)) * scale) @ turn.T
    margin = F @ rng.standard_normal(n)
    t = (margin / margin.std() + rng.standard_normal(2 * n_samples) > 0).astype(float)
    glm = Glm(F[:n_samples], t[:n_samples])
    return sad.Problem(glm), glm.held_out(F[n_samples:], t[n_samples:])


def walk(problem, upper, M, steps=10, tol=1e-6):
    """Return the products of warm lower solves and adjoints, and the hypergradients."""
    x, rng = np.full(problem.objective.m, np.log(1e-3)), np.random.default_rng(1)
    y, adjoint, spent, found = np.zeros(problem.objective.n), None, 0, []
    for _ in range(steps):
        solution = sad.solve(problem, x, y, tol=tol, M=M)
        y = solution.y
        v = upper.grad_y(x, y)
        result = sad.vjp(problem, solution, v, adjoint0=adjoint, rtol=tol, M=M)
        adjoint = result.adjoint
        spent += solution.n_hvp + result.n_hvp
        found.append(result.x)
        p = rng.standard_normal(x.size)
        x = x + 0.3 * p / np.linalg.norm(p)
    return spent, found


def laplacian(side):
    one = sparse.diags_array(
        [-np.ones(side - 1), 2.0 * np.ones(side), -np.ones(side - 1)],
        offsets=[-1, 0, 1],
    )
    eye = sparse.eye_array(side)
    return sparse.csr_array(sparse.kron(one, eye) + sparse.kron(eye, one))


def split_of(data, ridge, samples=None, counts=None):
    """diag(data) + diag(ridge), which knows both, and perhaps a rank; products counted."""

    def product(v):
        if counts is not None:
            counts["products"] += 1 if v.ndim == 1 else v.shape[1]
        return data * v if v.ndim == 1 else data[:, None] * v

    def whole(v):
        return product(v) + (ridge * v if v.ndim == 1 else ridge[:, None] * v)

    shape, common = (data.size, data.size), {"symmetric": True, "dtype": float}
    rank = sad.Structure(rank=samples)
    options = {"matmat": product, "diagonal": data, "structure": rank}
    core = sad.LinearOperator(shape, product, **options, **common)
    split = sad.Structure(split=(core, ridge))
    diagonal = data + ridge
    return sad.LinearOperator(
        shape, whole, matmat=whole, diagonal=diagonal, structure=split, **common
    )


# what is chosen ---------------------------------------------------------------------


@pytest.mark.parametrize("side", [10, 20, 44])
def test_a_factor_is_made_at_once_where_it_costs_less_than_a_solve(side):
    """The one of 2000 unknowns takes as long as thousands of products with a grid."""
    A = laplacian(side)
    for K in (A, A.toarray())[: 1 + (side == 10)]:
        auto = pc.Auto(patience=2.0)
        for _ in range(3):
            M = auto(K)
            assert auto.name == ("cholesky" if side == 10 else "none")
            auto.observe(60, digits=8.0)
        if side == 10:
            np.testing.assert_allclose(A @ (M @ np.ones(100)), np.ones(100))
    auto.reset()
    assert auto.name == "none"
    assert auto(np.zeros((0, 0))) is None


def test_an_operator_takes_its_factor_once_the_solves_have_cost_as_much():
    A = laplacian(8).toarray()
    auto = pc.Auto(patience=1.0)

    K = sad.LinearOperator(A.shape, A.__matmul__, symmetric=True)

    price = math.ceil(64 + factor_price(64, 64 * 64))
    assert auto.choose(K) == (None, 0)
    auto.observe(price - 1, digits=5.0)
    assert auto.choose(K) == (None, 0)
    auto.observe(1, digits=5.0)
    M, products = auto.choose(K)
    assert auto.name == "cholesky"
    assert products == M.n_matvec == auto.n_matvec == 64
    assert auto(np.eye(500)) is None  # nothing is kept for another size


def test_nystrom_is_refused_once_where_the_spectrum_is_flat():
    counts = {"products": 0}
    K = split_of(np.ones(3000), np.full(3000, 1e-3), counts=counts)
    auto = pc.Auto()
    for products in (0, 20, 0):
        M, n_matvec = auto.choose(K)
        assert M is None
        assert n_matvec == products
        auto.observe(1000, digits=4.0)
    assert auto.n_matvec == counts["products"] == 20


def test_a_factor_is_made_once_the_solves_have_taken_as_long():
    A = laplacian(30).toarray()
    auto = pc.Auto(patience=1.0)
    price = factor_price(len(A), A.size)
    solves = 0
    auto(A)
    while auto.name != "cholesky":
        auto.observe(100, digits=2.0)
        solves += 1
        M = auto(A)
    assert 100 * (solves - 1) < price <= 100 * solves
    assert M.n_matvec == 0
    # The next matrices keep it, until its wear has cost as much again.
    auto.observe(2, digits=8.0)
    worn = 0
    while auto(1.0 * A) is M:
        auto.observe(12, digits=8.0)
        worn += 10
    assert price <= worn < price + 20


def test_multigrid_pays_at_once_where_the_condition_and_the_tolerance_say_so():
    large, small = laplacian(200), laplacian(60)
    ridge = sparse.eye_array(40_000)
    for A, rtol, name in (
        (large, 1e-8, "amg"),
        (large, 1e-2, "none"),
        (small, 1e-8, "none"),
        (sparse.csr_array(large + 0.05 * ridge), 1e-8, "none"),
        (sparse.csr_array(large + 1e-4 * ridge), 1e-8, "amg"),
    ):
        auto = pc.Auto(patience=2.0)
        auto(A, rtol)
        assert auto.name == name, (A.shape, rtol)


SPREAD = np.geomspace(0.1, 10.0, 50)
UNEVEN = np.geomspace(1e3, 1e-3, 50)


@pytest.mark.parametrize(
    ("ridge", "samples", "share"),
    [
        (np.ones(50), None, 1.0),
        (np.ones(50), 10**9, 1.0),
        (np.zeros(50), 5, 1.0),
        (np.ones(50), 49, None),
        (np.ones(50), 50, 0.5),
        (UNEVEN, 5, 0.1),
    ],
    ids=["rank unknown", "tall", "no ridge", "wide, even", "square", "wide, uneven"],
)
def test_the_table_of_diagonals(ridge, samples, share):
    auto, K = pc.Auto(), split_of(SPREAD, ridge, samples)
    M = auto(K, 1e-6)
    assert auto.n_matvec == 0
    if share is None:
        assert auto.name == "none"
        assert M is None
        return
    assert auto.name == "jacobi"
    found = (1.0 / M.diagonal() - ridge) / SPREAD
    np.testing.assert_allclose(found, found[-1], rtol=1e-6)
    if share == 1.0:
        np.testing.assert_allclose(1.0 / M.diagonal(), SPREAD + ridge)
    else:
        assert 0.0 < found[-1] < 2.0 * share
        expected = data_share(SPREAD, ridge + 1e-6 * SPREAD, samples)
        assert found[-1] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("samples", [3, 40, 10_000])
def test_the_share_of_the_data_solves_its_equation(samples):
    rng = np.random.default_rng(0)
    d, r = np.exp(3.0 * rng.standard_normal((2, 200)))
    share = data_share(d, r, samples)
    assert 0.0 < share < 1.0
    promised = np.sum(share * d / (share * d + r))
    assert share + promised / samples == pytest.approx(1.0, rel=0.2)
    # Many samples give the whole diagonal; no ridge and few samples hardly any of it.
    assert data_share(d, r, 10**9) == pytest.approx(1.0, rel=1e-6)
    assert data_share(d, 1e-9 * r, 3) < 1e-6


def test_what_the_choice_needs_is_computed_once_for_each_ridge():
    """And a constant ridge on few samples never reads the diagonal."""
    reads = []

    def read():
        reads.append(1)
        return SPREAD

    def K(ridge, samples):
        rank, split = sad.Structure(rank=samples), sad.Structure
        core = sad.LinearOperator((50, 50), None, diagonal=read, structure=rank)
        return sad.LinearOperator((50, 50), None, structure=split(split=(core, ridge)))

    auto = pc.Auto()
    for ridge, samples, expected in (
        (np.linspace(1.0, 1.9, 50), 5, [0, 0]),
        (np.linspace(1.0, 3.0, 50), 5, [1, 1]),
        (UNEVEN, 5, [1, 1]),
    ):
        for count in expected:
            reads.clear()
            auto(K(ridge.copy(), samples))
            assert len(reads) == count


def test_the_damped_diagonal_is_the_mean_of_the_inverse():
    """What the formula is: E K⁻¹ over random features, here by a sample of it."""
    rng = np.random.default_rng(0)
    n, samples, draws = 60, 30, 200
    d, r = np.exp(1.5 * rng.standard_normal((2, n)))
    mean = np.zeros((n, n))
    for _ in range(draws):
        F = rng.standard_normal((samples, n)) * np.sqrt(d / samples)
        mean += np.linalg.inv(F.T @ F + np.diag(r)) / draws
    damped = 1.0 / (data_share(d, r, samples) * d + r)
    gap = np.abs(np.log(np.diag(mean) / damped))
    assert np.median(gap) < 0.05
    assert np.median(gap) < 0.2 * np.median(np.abs(np.log(np.diag(mean) * (d + r))))


def test_a_builder_that_refused_is_asked_again_later():
    auto, A = pc.Auto(), laplacian(8).toarray()
    auto(-A)  # an indefinite Hessian on the way
    assert auto.name == "none"
    auto.observe(99, digits=3.0)
    auto(A)
    assert auto.name == "none"
    auto.observe(1, digits=3.0)
    auto(A)
    assert auto.name == "cholesky"


# what it saves ------------------------------------------------------------------------


def test_a_shared_auto_saves_products_counts_them_and_changes_no_gradient():
    problem, upper = correlated()
    plain, expected = walk(problem, upper, None)
    auto, counts, hess = pc.Auto(), {"products": 0}, problem.objective.hess

    def counting(x, y):
        H = hess(x, y)
        core, d = H.split

        def counted(A):
            def product(v):
                counts["products"] += 1 if v.ndim == 1 else v.shape[1]
                return A @ v

            return product

        part = sad.LinearOperator(H.shape, counted(core), matmat=counted(core))
        split = sad.Structure(split=(part, d))
        return sad.LinearOperator(
            H.shape, counted(H), matmat=counted(H), symmetric=True, structure=split
        )

    problem.objective.hess = counting
    spent, found = walk(problem, upper, auto)
    assert auto.n_matvec > 0
    assert spent == counts["products"]
    assert spent < 0.5 * plain
    for a, b in zip(found, expected, strict=True):
        assert np.linalg.norm(a - b) <= 1e-3 * np.linalg.norm(b)


# M as a function --------------------------------------------------------------------


@pytest.mark.parametrize(
    "row", [row for row in PROBLEMS if row.method == "cg"], ids=str
)
def test_the_direct_path_gives_the_same_answer(row):
    problem = row.problem
    v = np.random.default_rng(0).standard_normal(row.n)
    solution = row.at_solution(status=sad.Status.CONVERGED)
    expected = sad.vjp(problem, solution, v, M=None, rtol=1e-11).x
    found = sad.vjp(problem, solution, v, M=pc.cholesky, rtol=1e-11)
    scale = np.linalg.norm(expected)
    assert np.linalg.norm(found.x - expected) <= 1e-7 * scale
    assert np.linalg.norm(found.x - row.dense_jacobian().T @ v) <= 1e-7 * scale
    assert np.max(found.krylov.niter) <= 3


def test_an_operator_is_no_function():
    """SciPy's operators can be called."""
    problem, upper = correlated(n=4)
    x = np.full(problem.objective.m, np.log(1e-2))
    d = problem.hess(x, np.zeros(5)).diagonal()
    wrap = scipy.sparse.linalg.aslinearoperator
    diagonal = sparse.diags_array(1.0 / d)
    for M in (wrap(diagonal), diagonal, np.diag(1.0 / d)):
        solution = sad.solve(problem, x, M=M)
        v = upper.grad_y(x, solution.y)
        expected = sad.vjp(problem, solution, v, M=None).x
        found = sad.vjp(problem, solution, v, M=M).x
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_what_is_no_choice_is_refused():
    problem, _ = correlated(n=5)
    for M, message in (
        ("best", "M must be"),
        (lambda K: pc.jacobi(np.ones(3)), "M must have shape"),
    ):
        with pytest.raises(ValueError, match=message):
            sad.solve(problem, np.zeros(problem.objective.m), M=M)


def test_an_indefinite_hessian_is_found_with_every_choice():
    """A builder that refuses leaves the verdict to the solver."""
    A = np.diag([1.0, 2.0, -1.0])
    objective = sad.FunctionObjective(
        grad=lambda x, y: A @ y - x,
        cross_jvp=lambda x, y, u: -u,
        cross_vjp=lambda x, y, w: -w,
    )
    objective.hess = lambda x, y: A
    solution = sad.Solution(y=np.linalg.solve(A, np.ones(3)), x=np.ones(3))
    for M in ("auto", pc.Auto(), None):
        with pytest.raises(sad.ConvergenceError) as caught:
            sad.vjp(sad.Problem(objective), solution, np.array([0.1, 0.2, 1.0]), M=M)
        assert caught.value.status is sad.Status.NEGATIVE_CURVATURE


# a single solve ------------------------------------------------------------------------


@pytest.mark.parametrize("deviation", [0.0, 2.0])
@pytest.mark.parametrize("shape", [(900, 60), (60, 600)], ids=["tall", "wide"])
def test_a_single_solve_loses_little_to_the_diagonal_and_to_none(shape, deviation):
    rng = np.random.default_rng(3)
    units = np.exp(rng.standard_normal(shape[1])) if shape[0] > shape[1] else 1.0
    F = rng.standard_normal(shape) * units
    glm = Glm(F, (rng.random(shape[0]) < 0.5).astype(float))
    x = -6.0 + deviation * rng.standard_normal(glm.m)
    H, v = glm.hess(x, np.zeros(glm.n)), rng.standard_normal(glm.n)
    auto, jacobi, none = (
        sad.cg(H, v, rtol=1e-6, M=M, maxiter=10**5).niter
        for M in (pc.Auto(patience=2.0)(H, 1e-6), pc.jacobi_of(H), None)
    )
    assert auto <= 1.1 * min(jacobi, none)
    if shape[0] < shape[1] and deviation:
        assert auto <= 0.4 * min(jacobi, none)


def dense_problem(n, condition, seed=0):
    """½ y'A y − x'y, whose Hessian is a dense array without units: a diagonal is no help."""
    rng = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    A = (Q * np.geomspace(1.0, 1.0 / condition, n)) @ Q.T
    A = 0.5 * (A + A.T)
    objective = sad.FunctionObjective(
        grad=lambda x, y: A @ y - x,
        cross_jvp=lambda x, y, u: -u,
        cross_vjp=lambda x, y, w: -w,
        n=n,
    )
    objective.hess = lambda x, y: A
    x = A @ rng.standard_normal(n)
    solution = sad.Solution(y=np.linalg.solve(A, x), x=x, status=sad.Status.CONVERGED)
    return A, sad.Problem(objective), solution, rng.standard_normal(n)


@pytest.mark.parametrize("condition", [1e5, 1e8])
def test_a_solve_that_drags_on_gets_its_factor_on_the_way(condition):
    A, problem, solution, v = dense_problem(320, condition)
    found = sad.vjp(problem, solution, v)
    price = factor_price(len(A), A.size)
    assert found.krylov.converged
    assert 2.0 * price <= found.krylov.niter <= 2.0 * price + 5
    assert np.linalg.norm(A @ found.adjoint - v) <= 1e-8 * np.linalg.norm(v)
    assert found.n_hvp >= found.krylov.n_matvec > found.krylov.niter
    np.testing.assert_allclose(found.krylov.residual, v - A @ found.adjoint, atol=1e-12)


def test_a_limit_and_a_failure_stay_what_they_are():
    """A factor that refuses is no verdict: the solve goes on with the diagonal."""
    A, problem, solution, v = dense_problem(320, 1e6)
    price = int(factor_price(len(A), A.size))
    with pytest.raises(sad.ConvergenceError) as caught:
        sad.vjp(problem, solution, v, maxiter=price)
    assert caught.value.status is sad.Status.ITERATION_LIMIT
    assert caught.value.result.niter == price
    values, vectors = np.linalg.eigh(A)
    A -= 1.5 * values[0] * np.outer(vectors[:, 0], vectors[:, 0])
    left = problem.grad(solution.x, solution.y)  # of the other A: as if solved with it
    solution = dataclasses.replace(solution, residual=left)
    with pytest.raises(sad.ConvergenceError) as caught:
        sad.vjp(problem, solution, v)
    assert not caught.value.status.acceptable
    assert caught.value.result.niter > 2.0 * price


def test_what_was_built_on_the_way_stays_and_its_own_pace_is_learnt():
    A, problem, solution, v = dense_problem(320, 1e6)
    auto = pc.Auto(patience=2.0)
    for niter in (int(2.0 * factor_price(len(A), A.size)), 0, 0):
        found = sad.vjp(problem, solution, v, M=auto).krylov.niter
        assert niter < found <= niter + 3
        assert auto.name == "cholesky"
    auto.observe(30, digits=8.0)  # far slower than right after the build, but once
    assert sad.vjp(problem, solution, v, M=auto).krylov.niter <= 3


def test_a_diagonal_keeps_out_shifts_of_all_outputs():
    rng = np.random.default_rng(5)
    features, classes = rng.standard_normal((60, 4)), rng.integers(0, 3, 60)
    glm = Glm(features, classes, loss="multinomial")
    y = rng.standard_normal(glm.n)
    folds, _ = glm.cross_validation(3)
    stacked = folds.hess(np.zeros(4), np.tile(y, 3))
    for K in (glm.hess(np.zeros(4), y), stacked, stacked.blocks.block(1)):
        M, _ = Choice("auto")(K)
        v = rng.standard_normal((K.shape[0] // 3, 3))
        image = M.matvec((v - v.mean(axis=1)[:, None]).ravel()).reshape(-1, 3)
        assert np.abs(image.mean(axis=1)).max() <= 1e-14 * np.abs(image).max()


def test_a_part_of_a_softmax_model_has_no_outputs_to_level():
    """Of unknowns at bounds some outputs are held, and others of the same column not."""
    rng = np.random.default_rng(0)
    F, labels = rng.standard_normal((80, 200)), rng.integers(0, 3, 80)
    glm = Glm(F, labels, loss="multinomial", penalty="scalar")
    problem, x = sad.Problem(glm, lower=-0.1, upper=0.1), np.array([-4.0])
    sol = sad.solve(problem, x, tol=1e-12)
    free = (np.abs(sol.y) < 0.1 - 1e-9).reshape(-1, 3)
    assert np.any(free.any(axis=1) & ~free.all(axis=1))
    v, h = rng.standard_normal(glm.n), 1e-5
    y = [sad.solve(problem, x + t, tol=1e-12).y for t in (h, -h)]
    slope = v @ (y[0] - y[1]) / (2 * h)
    np.testing.assert_allclose(sad.vjp(problem, sol, v).x, slope, rtol=1e-6)


# state --------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "name"), [(60, "cholesky"), (120, "nystrom")])
def test_the_state_of_auto_can_be_set_again(n, name):
    """A copy goes on as the first one does, bit for bit."""
    problem, upper = correlated(n)
    auto, copy = pc.Auto(), pc.Auto()
    walk(problem, upper, auto, steps=4)
    assert auto.name == name
    copy.state = auto.state
    assert repr(copy) == repr(auto)
    (spent, found), (again, others) = (
        walk(problem, upper, M, steps=4) for M in (auto, copy)
    )
    assert spent == again
    np.testing.assert_array_equal(found, others)


def test_the_factor_of_a_matrix_is_stored_and_a_hierarchy_is_not():
    auto, copy, b = pc.Auto(), pc.Auto(), np.linspace(-1.0, 1.0, 400)
    M, _ = auto.choose(laplacian(20), now=True)
    copy.state = auto.state
    assert (auto.name, copy.name) == ("cholesky", "cholesky")
    np.testing.assert_array_equal(copy.choose(laplacian(20))[0] @ b, M @ b)
    pytest.importorskip("pyamg")
    auto.choose(laplacian(60), now=True)
    copy.state = auto.state
    assert (auto.name, copy.name) == ("amg", "none")
