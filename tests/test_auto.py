"""``M="auto"`` and ``M`` as a function: what is chosen, when it is built, what it costs."""

from __future__ import annotations

import functools
import importlib.util

import numpy as np
import pytest
import scipy.sparse.linalg
from problems import PROBLEMS
from scipy import sparse

import sparse_argdiff as sad
from sparse_argdiff import preconditioners as pc
from sparse_argdiff.linear_model import Glm


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


def bare(A):
    return sad.LinearOperator(A.shape, A.__matmul__, symmetric=True)


# what is chosen ---------------------------------------------------------------------


def test_a_small_matrix_is_factorised_at_once():
    A = laplacian(20)
    auto = pc.Auto()
    for K in (A, A.toarray()):
        M = auto(K)
        assert auto.name == "cholesky"
        assert M.n_matvec == 0
        b = np.ones(400)
        np.testing.assert_allclose(A @ (M @ b), b, rtol=1e-10)


def test_a_large_laplacian_takes_amg_and_a_dominant_matrix_does_not():
    A = laplacian(60)
    auto = pc.Auto()
    M = auto(A)
    assert auto.name == "amg"
    b = np.random.default_rng(0).standard_normal(3600)
    assert sad.cg(A, b, M=M).niter <= 12
    dominant = sparse.csr_array(A + 10.0 * sparse.eye_array(3600))
    auto = pc.Auto()
    auto(dominant)
    assert auto.name == "jacobi"
    positive = abs(A)  # no M-matrix
    auto = pc.Auto()
    auto(positive)
    assert auto.name == "jacobi"


def test_amg_is_not_chosen_without_pyamg(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    auto = pc.Auto()
    auto(laplacian(60))
    assert auto.name == "jacobi"


def test_an_operator_pays_for_its_factor_once_the_solves_have_cost_as_much():
    A = laplacian(8).toarray()
    auto, K = pc.Auto(patience=1.0), bare(A)
    assert auto(K) is None
    auto.observe(63, digits=5.0)
    assert auto(K) is None
    assert auto.n_matvec == 0
    auto.observe(1, digits=5.0)
    M = auto(K)
    assert auto.name == "cholesky"
    assert M.n_matvec == auto.n_matvec == 64
    assert auto(K).n_matvec == 0  # it is there
    # A matrix nearby keeps the factor, until its wear has cost as much as building.
    auto.observe(1, digits=8.0)
    for _ in range(8):
        assert auto(bare(1.1 * A)).n_matvec == 0
        auto.observe(9, digits=8.0)
    assert auto(bare(1.1 * A)).n_matvec == 64
    np.testing.assert_allclose(auto(K) @ (1.1 * A @ np.ones(64)), 1.0)
    # Of another size there is nothing to keep.
    assert auto(bare(np.eye(5))) is None


def test_nystrom_is_refused_once_where_the_spectrum_is_flat():
    K = sad.LinearOperator(
        (3000, 3000),
        lambda v: v + 1e-3 * v,
        matmat=lambda v: v + 1e-3 * v,
        symmetric=True,
        split=(
            sad.LinearOperator(
                (3000, 3000), lambda v: v, matmat=lambda v: v, symmetric=True
            ),
            np.full(3000, 1e-3),
        ),
    )
    auto = pc.Auto()
    auto(K)
    auto.observe(1000, digits=4.0)
    M = auto(K)
    assert auto.n_matvec == 20
    assert M.n_matvec == 20  # the products are told, though nothing came of them
    auto.observe(1000, digits=4.0)
    again = auto(K)
    assert again is None or again.n_matvec == 0
    assert auto.n_matvec == 20


def split_of(data, ridge):
    """An operator that knows nothing but the diagonals of its two parts."""
    core = sad.LinearOperator(
        (data.size, data.size), lambda v: data * v, symmetric=True, diagonal=data
    )
    return sad.LinearOperator(
        core.shape,
        lambda v: data * v + ridge * v,
        symmetric=True,
        diagonal=data + ridge,
        split=(core, ridge),
    )


SPREAD = np.geomspace(0.1, 10.0, 50)


@pytest.mark.parametrize(
    ("data", "ridge", "first", "expected"),
    [
        (100.0 * SPREAD, np.ones(50), "jacobi", 100.0 * SPREAD + 1.0),
        (SPREAD, np.zeros(50), "jacobi", SPREAD),
        (SPREAD, np.ones(50), "shifted", 1.0 + SPREAD.mean()),
        (SPREAD, 1e3 * SPREAD, "between", 1e3 * SPREAD + 1e3**0.5 * SPREAD),
    ],
    ids=["data", "no ridge", "even ridge", "uneven ridge"],
)
def test_the_diagonal_of_a_single_solve(data, ridge, first, expected):
    auto = pc.Auto()
    M = auto(split_of(data, ridge))
    assert auto.name == first
    np.testing.assert_allclose(1.0 / M.diagonal(), expected * np.ones(50))


def test_an_unpenalised_coordinate_gets_its_own_curvature():
    data, ridge = SPREAD[::-1].copy(), 1e3 * SPREAD
    ridge[0], data[0] = 0.0, 7.0
    M = pc.Auto()(split_of(data, ridge))
    assert M.diagonal()[0] == pytest.approx(1.0 / 7.0)
    M = pc.Auto()(split_of(np.r_[data, 0.0], np.r_[ridge, 1.0]))
    assert M.diagonal()[-1] == pytest.approx(1.0)


@pytest.mark.parametrize("x", [[-6.0, 0.0], [-7.0, 2.0]], ids=["even", "uneven"])
def test_few_samples_cost_no_more_than_with_the_whole_diagonal(x):
    """Text: most features are rare, and the ridge is the bulk of the spectrum."""
    rng = np.random.default_rng(0)
    frequency = 0.5 / np.arange(1, 2001.0) ** 0.8
    F = sparse.csr_array((rng.random((120, 2000)) < frequency).astype(float))
    glm = Glm(F[:60], (rng.random(60) < 0.5).astype(float))
    mean, deviation = x
    x = mean + deviation * rng.standard_normal(glm.m)
    problem, y = sad.Problem(glm), np.zeros(glm.n)
    v = rng.standard_normal(glm.n)
    solution = sad.Solution(y=y, x=x, status=sad.Status.CONVERGED)

    def products(M):
        return sad.vjp(problem, solution, v, rtol=1e-6, M=M).n_hvp

    assert products("auto") <= 0.75 * products(pc.jacobi_of)


@pytest.mark.parametrize(
    ("log_ridge", "first", "second"),
    [(-9.0, "jacobi", "shifted"), (0.0, "shifted", "jacobi")],
)
def test_the_better_diagonal_stays(log_ridge, first, second):
    problem, _ = correlated()
    x = np.full(problem.objective.m, log_ridge)
    H = problem.hess(x, np.zeros(problem.objective.n))
    for rates, best in (((9, 3), second), ((3, 9), first)):
        auto = pc.Auto(max_rank=10**6)
        for niter in rates:
            auto(H)
            auto.observe(niter, digits=0.5)
        for _ in range(3):
            auto(H)
            assert auto.name == best
            auto.observe(min(rates) * 4, digits=4.0)


def test_a_patient_auto_does_not_experiment():
    problem, _ = correlated()
    x = np.full(problem.objective.m, -9.0)
    H = problem.hess(x, np.zeros(problem.objective.n))
    auto = pc.Auto(patience=2.0)
    for _ in range(5):
        auto(H)
        assert auto.name == "jacobi"
        auto.observe(5, digits=0.5)


def test_a_builder_that_refused_is_asked_again_later():
    auto, A = pc.Auto(), laplacian(8).toarray()
    auto(-A)  # an indefinite Hessian on the way
    assert auto.name == "none"
    auto.observe(99, digits=3.0)
    auto(A)
    assert auto.name == "jacobi"
    auto.observe(1, digits=3.0)
    auto(A)
    assert auto.name == "cholesky"


def test_reset_forgets():
    auto, A = pc.Auto(), laplacian(8).toarray()
    auto(A)
    auto.reset()
    assert auto.name == "none"
    assert auto(bare(A)) is None


def test_an_empty_operator_has_no_preconditioner():
    assert pc.Auto()(np.zeros((0, 0))) is None


# what it saves ------------------------------------------------------------------------


def test_a_shared_auto_saves_products_and_changes_no_gradient():
    problem, upper = correlated()
    plain, expected = walk(problem, upper, None)
    auto = pc.Auto()
    spent, found = walk(problem, upper, auto)
    assert auto.n_matvec > 0
    assert spent < 0.5 * plain
    for a, b in zip(found, expected, strict=True):
        assert np.linalg.norm(a - b) <= 1e-3 * np.linalg.norm(b)


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_auto_loses_little_against_the_best_fixed_choice(decay):
    problem, upper = correlated(decay=decay)
    fixed = [None, pc.jacobi_of, _kept(functools.partial(pc.nystrom, rank=50))]
    spent = [walk(problem, upper, M)[0] for M in fixed]
    assert walk(problem, upper, pc.Auto())[0] <= 1.1 * min(spent)


def _kept(build):
    kept = []

    def choose(K):
        kept.append(kept[-1].update(K) if kept else build(K))
        return kept[-1]

    return choose


def test_products_of_building_are_in_the_records():
    problem, upper = correlated(n=30)
    counts = {"products": 0}
    hess = problem.objective.hess

    def counting(x, y):
        H = hess(x, y)
        return _counted(H, counts)

    problem.objective.hess = counting
    auto = pc.Auto(patience=0.1)
    recorded, _ = walk(problem, upper, auto, steps=6)
    assert auto.n_matvec > 0
    assert recorded == counts["products"]


def _counted(H, counts):
    def product(A):
        def times(v):
            counts["products"] += 1 if v.ndim == 1 else v.shape[1]
            return A @ v

        return times

    core, d = H.split
    options = {"symmetric": True, "dtype": H.dtype}
    part = sad.LinearOperator(
        core.shape,
        product(core),
        matmat=product(core),
        diagonal=core.diagonal,
        **options,
    )
    return sad.LinearOperator(
        H.shape,
        product(H),
        matmat=product(H),
        diagonal=H.diagonal,
        split=(part, d),
        **options,
    )


# M as a function --------------------------------------------------------------------


@pytest.mark.parametrize(
    "M", [pc.cholesky, pc.nystrom, functools.partial(pc.nystrom, rank=5), pc.jacobi_of]
)
def test_a_builder_is_a_preconditioner(M):
    problem, upper = correlated(n=20)
    x = np.full(problem.objective.m, np.log(1e-2))
    plain = sad.solve(problem, x, M=None)
    solution = sad.solve(problem, x, M=M)
    assert np.linalg.norm(solution.y - plain.y) <= 1e-6 * np.linalg.norm(plain.y)
    v = upper.grad_y(x, plain.y)
    expected = sad.vjp(problem, plain, v, M=None)
    found = sad.vjp(problem, plain, v, M=M)
    assert np.linalg.norm(found.x - expected.x) <= 1e-6 * np.linalg.norm(expected.x)
    J = sad.derivative(problem, plain, M=M)
    np.testing.assert_allclose(J.T @ v, expected.x, rtol=1e-5, atol=1e-10)
    if M is pc.cholesky:
        assert found.krylov.niter <= 2
        assert found.n_hvp >= problem.objective.n  # its columns are counted


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


@pytest.mark.parametrize(
    "of",
    [
        lambda d: scipy.sparse.linalg.LinearOperator((5, 5), matvec=lambda r: r / d),
        lambda d: sparse.diags_array(1.0 / d),
        lambda d: np.diag(1.0 / d),
    ],
    ids=["SciPy operator", "sparse", "array"],
)
def test_an_operator_is_no_function(of):
    """SciPy's operators can be called."""
    problem, upper = correlated(n=4)
    x = np.full(problem.objective.m, np.log(1e-2))
    M = of(problem.hess(x, np.zeros(5)).diagonal())
    solution = sad.solve(problem, x, M=M)
    v = upper.grad_y(x, solution.y)
    expected = sad.vjp(problem, solution, v, M=None).x
    found = sad.vjp(problem, solution, v, M=M).x
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_function_of_the_wrong_shape_is_refused():
    problem, _ = correlated(n=5)
    x = np.zeros(problem.objective.m)
    with pytest.raises(ValueError, match="M must have shape"):
        sad.solve(problem, x, M=lambda K: pc.jacobi(np.ones(3)))


def test_an_unknown_word_is_refused():
    problem, _ = correlated(n=5)
    with pytest.raises(ValueError, match="M must be"):
        sad.solve(problem, np.zeros(problem.objective.m), M="best")


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
