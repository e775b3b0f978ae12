"""Every public function on arrays that are not NumPy's, against its own result on NumPy.

Two devices: array-api-strict's second one, from which ``np.asarray`` raises, and the
stand-in for CuPy, which also refuses what CuPy refuses.  A leak to the host is an error.
``COVERED`` names, for each public name, the test here that runs it.
"""

from __future__ import annotations

import cupy_standin
import numpy as np
import pytest
import scipy.sparse
from conftest import BACKENDS

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm

N, M = 12, 3
RNG = np.random.default_rng(7)
ROOT = RNG.standard_normal((N, N))
Q = ROOT @ ROOT.T / N + 0.3 * np.eye(N)
B = RNG.standard_normal((N, M))
A = RNG.standard_normal((3, N))
X = np.array([0.3, -0.4, 0.7])
GOAL = RNG.standard_normal(N)


class Quartic:
    """f = ½ y'Qy + ¼ Σ y⁴ − y'B x, in whatever namespace Q and B live."""

    def __init__(self, to):
        self.Q, self.B, self.n = to(Q), to(B), N

    def value(self, x, y):
        return float(0.5 * (y @ (self.Q @ y)) - y @ (self.B @ x)) + 0.25 * float(
            (y * y) @ (y * y)
        )

    def grad(self, x, y):
        return self.Q @ y + y**3 - self.B @ x

    def hess(self, x, y):
        Q, d = self.Q, 3.0 * y * y
        diagonal = sad.arrays.namespace(y).linalg.diagonal(Q) + d

        def product(v):
            return Q @ v + (d * v if v.ndim == 1 else d[:, None] * v)

        return sad.LinearOperator(
            (N, N), product, matmat=product, symmetric=True, diagonal=diagonal
        )

    def cross(self, x, y):
        return -self.B


def upper(to):
    goal = to(GOAL)
    return sad.FunctionUpper(
        lambda x, y: 0.5 * float((y - goal) @ (y - goal)), lambda x, y: y - goal
    )


def ball(to, square):
    """y'y <= square."""
    return sad.Inequality(
        lambda x, y: (
            (y @ y - square)[None]
            if hasattr(y @ y, "shape") and (y @ y).shape == ()
            else np.array([y @ y - square])
        ),
        lambda x, y: 2.0 * y[None, :],
        hess=lambda x, y, nu: sad.LinearOperator(
            (N, N), lambda v: 2.0 * nu[0] * v, symmetric=True
        ),
    )


def problems(to):
    """One problem of each class, by name; and how it is solved."""
    f = Quartic(to)
    linear = sad.LinearEquality(to(A), to(np.ones(3)))
    sphere = sad.Equality(
        lambda x, y: (y @ y - 2.0)[None],
        lambda x, y: 2.0 * y[None, :],
        hess=lambda x, y, nu: sad.LinearOperator(
            (N, N), lambda v: 2.0 * nu[0] * v, symmetric=True
        ),
    )
    return {
        "none": (sad.Problem(f), {}),
        "stationary": (sad.Problem(f), {"method": "newton_kkt"}),
        "linear": (sad.Problem(f, equality=linear), {}),
        "sphere": (sad.Problem(f, equality=sphere), {}),
        "bounds": (sad.Problem(f, lower=-0.4, upper=0.5), {}),
        "ball": (sad.Problem(f, inequality=ball(to, 0.5)), {}),
        "ball, barrier": (
            sad.Problem(f, inequality=ball(to, 0.5)),
            {"method": "barrier"},
        ),
        "mixed": (
            sad.Problem(
                f,
                equality=sad.LinearEquality(to(A[:1]), to(np.zeros(1))),
                inequality=ball(to, 0.5),
                lower=-0.4,
            ),
            {},
        ),
    }


NAMES = list(problems(np.array))


@pytest.fixture(
    params=["strict", "standin", pytest.param("cupy", marks=pytest.mark.gpu)]
)
def there(request):
    """A device: ``to, back``."""
    if request.param == "standin":
        if cupy_standin.COMPILER is None:
            pytest.skip("needs a C++ compiler")
        cupy_standin.install(request.getfixturevalue("monkeypatch"))
    return BACKENDS[request.param]()


def start(to):
    return to(0.1 * np.cos(np.arange(N)))


@pytest.mark.parametrize("name", NAMES)
def test_problems_are_solved_and_differentiated(there, name):
    to, back = there
    results = []
    for move, home in ((np.array, np.array), (to, back)):
        problem, options = problems(move)[name]
        x = move(X)
        solution = sad.solve(problem, x, start(move), tol=1e-9, **options)
        assert solution.status in {sad.Status.CONVERGED, sad.Status.ROUNDING_LIMIT}
        J = sad.derivative(problem, solution, rtol=1e-11)
        v, u = move(GOAL), move(np.array([1.0, -2.0, 0.5]))
        adjoint = sad.vjp(problem, solution, v, rtol=1e-11)
        tangent = sad.jvp(problem, solution, u, rtol=1e-11)
        assert type(adjoint.x) is type(x)
        found = [
            home(solution.y),
            home(J @ u),
            home(J.T @ v),
            home(adjoint.x),
            home(tangent.y),
            home(J @ move(np.eye(M))),
        ]
        if solution.multipliers is not None:
            found.append(home(solution.multipliers))
        results.append(found)
        bare = sad.Solution(y=solution.y, x=x)
        again = sad.vjp(problem, bare, v, rtol=1e-11)
        np.testing.assert_allclose(home(again.x), home(adjoint.x), rtol=1e-4, atol=1e-6)
    for host, device in zip(*results, strict=True):
        np.testing.assert_allclose(device, host, rtol=1e-5, atol=1e-6)


def test_the_barrier_is_a_problem_of_its_own(there):
    to, back = there
    found = []
    for move, home in ((np.array, np.array), (to, back)):
        problem = sad.LogBarrier(
            sad.Problem(Quartic(move), inequality=ball(move, 0.5), lower=-0.6), 20.0
        )
        solution = sad.solve(problem, move(X), start(move), tol=1e-10)
        found.append(home(sad.vjp(problem, solution, move(GOAL), rtol=1e-11).x))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-7, atol=1e-9)


def test_what_a_solution_tells(there):
    to, back = there
    found = []
    for move, home in ((np.array, np.array), (to, back)):
        problem = sad.Problem(Quartic(move), inequality=ball(move, 0.5), lower=-0.6)
        solution = sad.solve(problem, move(X), start(move), tol=1e-10)
        u = move(np.ones_like(X))
        told = sad.report(problem, solution, move(GOAL))
        assert told.stationarity is sad.Status.CONVERGED
        reach = sad.active_range(problem, solution, u)
        term = sad.prior(0.5, 2.0, rows=3.0)
        found.append(
            (
                home(told.gradient),
                home(sad.value_gradient(problem, solution)),
                reach.step,
                home(term.grad_x(move(X), solution.y)),
            )
        )
    for host, device in zip(*found, strict=True):
        np.testing.assert_allclose(device, host, rtol=1e-6, atol=1e-7)


def test_krylov_methods(there):
    to, back = there
    C, c = A, np.array([1.0, -1.0, 0.5])
    for solver in (sad.cg, sad.minres):
        for b in (GOAL, np.stack([GOAL, -2.0 * GOAL + 1.0], axis=1)):
            found = solver(to(Q), to(b), rtol=1e-11)
            np.testing.assert_allclose(back(found.x), np.linalg.solve(Q, b), rtol=1e-7)
    found = sad.projected_cg(to(Q), to(C), to(GOAL), to(c), rtol=1e-11)
    K = np.block([[Q, C.T], [C, np.zeros((3, 3))]])
    expected = np.linalg.solve(K, np.concatenate([GOAL, c]))
    np.testing.assert_allclose(back(found.x), expected[:N], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(
        back(found.multipliers), expected[N:], rtol=1e-7, atol=1e-9
    )


PRECONDITIONERS = {
    "jacobi": lambda p, to: p.jacobi(to(np.diag(Q).copy())),
    "block_jacobi": lambda p, to: p.block_jacobi(to(Q), 4),
    "cholesky": lambda p, to: p.cholesky(to(Q)),
    "nystrom": lambda p, to: p.nystrom(to(Q), rank=N),
    "lbfgs": lambda p, to: p.lbfgs([(to(v), to(Q @ v)) for v in np.eye(N)[:4]]),
    "constraint": lambda p, to: p.constraint(to(np.diag(Q).copy()), to(A)),
    "auto": lambda p, to: p.Auto()(sad.aslinearoperator(to(Q))),
}


@pytest.mark.parametrize("name", PRECONDITIONERS)
def test_preconditioners(there, name):
    to, back = there
    host = PRECONDITIONERS[name](sad.preconditioners, np.array)
    device = PRECONDITIONERS[name](sad.preconditioners, to)
    r = np.sin(np.arange(host.shape[0]) + 1.0)
    np.testing.assert_allclose(back(device @ to(r)), host @ r, rtol=1e-6, atol=1e-9)
    columns = np.stack([r, r**2], axis=1)
    np.testing.assert_allclose(
        back(device @ to(columns)), host @ columns, rtol=1e-6, atol=1e-9
    )


def test_a_start_from_old_adjoints(there):
    to, back = there
    found = []
    for move, home in ((np.array, np.array), (to, back)):
        recent = sad.preconditioners.RecentSolutions(3)
        for v in np.eye(N)[:3]:
            recent.keep(move(v), 50)
        start = recent.start()
        problem, _ = problems(move)["none"]
        solution = sad.solve(problem, move(X), tol=1e-10)
        adjoint = sad.vjp(problem, solution, move(GOAL), adjoint0=start, rtol=1e-11)
        found.append(home(adjoint.x))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-7)


def test_function_objectives_and_checks(there):
    to, back = there
    q, b = to(Q), to(B)
    objective = sad.FunctionObjective(
        value=lambda x, y: float(0.5 * (y @ (q @ y)) - y @ (b @ x)),
        grad=lambda x, y: q @ y - b @ x,
        hvp=lambda x, y, v: q @ v,
        cross_jvp=lambda x, y, u: -(b @ u),
        cross_vjp=lambda x, y, w: -(b.T @ w),
        n=N,
    )
    assert sad.check_derivatives(objective, to(X), to(GOAL))
    assert sad.dot_test(sad.aslinearoperator(to(A)), like=to(np.zeros(1)))
    F = sad.Hypergradient(sad.Problem(objective), upper(to), tol=1e-11)
    assert sad.check_hypergradient(F, to(X))
    solution = sad.solve(sad.Problem(objective), to(X), tol=1e-11)
    np.testing.assert_allclose(back(solution.y), np.linalg.solve(Q, B @ X), rtol=1e-7)


@pytest.mark.parametrize("name", ["none", "linear", "ball"])
def test_hypergradients_with_certificates(there, name):
    to, back = there
    found = []
    for move, home in ((np.array, np.array), (to, back)):
        problem, _ = problems(move)[name]
        F = sad.Hypergradient(problem, upper(move), y0=start(move), tol=1e-6)
        result = F.evaluate(move(X))
        assert result.certificate.descent in {"proven", "estimated"}
        result = F.evaluate(move(X + 0.01), tol=1e-9)
        found.append(home(result.gradient))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("method", ["maid", "hoag", "gradient_descent"])
def test_drivers(there, method, tmp_path):
    to, back = there
    found = []
    for k, (move, home) in enumerate(((np.array, np.array), (to, back))):
        problem, _ = problems(move)["none"]
        result = sad.minimize(
            problem,
            upper(move),
            move(X),
            method=method,
            bounds=(-2.0, 2.0),
            maxiter=100,
            checkpoint=tmp_path / f"run{k}.npz",
        )
        assert type(result.x) is type(move(X))
        found.append(result.fun)
        again = sad.minimize(
            problem,
            upper(move),
            move(X),
            method=method,
            bounds=(-2.0, 2.0),
            maxiter=100,
            checkpoint=tmp_path / f"run{k}.npz",
        )
        np.testing.assert_array_equal(home(again.x), home(result.x))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3)


def test_lbfgs_is_scipys_and_says_so(there):
    to, _ = there
    problem, _ = problems(to)["none"]
    with pytest.raises(TypeError, match=r"lbfgs.*NumPy"):
        sad.minimize(problem, upper(to), to(X), method="lbfgs")


# linear models: NumPy and CuPy alone, since sparse matrices are needed --------------------


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
@pytest.mark.parametrize(
    ("loss", "penalty"),
    [
        ("logistic", "per-feature"),
        ("squared", "per-group"),
        ("poisson", "scalar"),
        ("huber", "per-feature"),
        ("multinomial", "per-feature"),
        ("multinomial", "per-coefficient"),
    ],
)
def test_linear_models(cuda, loss, penalty, kind):
    rng = np.random.default_rng(3)
    features = scipy.sparse.random_array((90, 11), density=0.3, rng=rng, format="csr")
    features = features.toarray() if kind == "dense" else features.asformat(kind)
    targets = {
        "logistic": (rng.random(90) < 0.5).astype(float),
        "multinomial": rng.integers(0, 3, 90),
        "poisson": rng.poisson(2.0, 90).astype(float),
    }.get(loss, rng.standard_normal(90))
    groups = np.arange(11) % 4 if penalty == "per-group" else None
    glm = Glm(features[:60], targets[:60], loss=loss, penalty=penalty, groups=groups)
    held = glm.held_out(features[60:], targets[60:])
    x = np.full(glm.m, -2.0)
    found = []
    for model, validation, at in ((glm, held, x), sad.to_device((glm, held, x))):
        F = sad.Hypergradient(sad.Problem(model), validation, tol=1e-9)
        result = F.evaluate(at)
        influence = sad.influence(sad.Problem(model), result)
        found.append([sad.to_host(result.gradient), sad.to_host(influence)])
    for host, device in zip(*found, strict=True):
        np.testing.assert_allclose(device, host, rtol=1e-5, atol=1e-9)
    back = sad.to_host(sad.to_device(glm))
    np.testing.assert_array_equal(
        back.hess(x, 0.1 * np.ones(glm.n)) @ np.ones(glm.n),
        glm.hess(x, 0.1 * np.ones(glm.n)) @ np.ones(glm.n),
    )


@pytest.mark.parametrize("kernels", [None, "deterministic", "reference"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("ones", [False, True])
def test_gram_products(cuda, kernels, dtype, ones):
    rng = np.random.default_rng(3)
    features = scipy.sparse.random_array(
        (130, 40), density=0.1, rng=rng, format="csr", dtype=dtype
    )
    if ones:
        features.data[:] = 1.0
    targets = (rng.random(130) < 0.5).astype(dtype)
    for intercept in (False, True):
        host = Glm(features, targets, intercept=intercept, kernels="reference")
        device = Glm(
            sad.to_device(features),
            sad.to_device(targets),
            intercept=intercept,
            kernels=kernels,
        )
        x, y, v = (
            np.full(40, -2.0, dtype),
            *rng.standard_normal((2, host.n)).astype(dtype),
        )
        expected = host.hess(x, y) @ v
        hess = device.hess(*sad.to_device((x, y)))
        found = (hess @ sad.to_device(v)).get()
        assert found.dtype == dtype
        tolerance = 1e-5 if dtype == np.float32 else 1e-13
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
        columns = rng.standard_normal((host.n, 3)).astype(dtype)
        found = (hess @ sad.to_device(columns)).get()
        np.testing.assert_allclose(
            found, host.hess(x, y) @ columns, rtol=tolerance, atol=tolerance
        )


def test_minres_takes_a_step_of_length_zero(cuda):
    """b'K b = 0: the first step is zero, and its direction is needed for the next."""
    K = np.block([[np.eye(A.shape[1]), A.T], [A, np.zeros((3, 3))]])
    b = np.r_[np.zeros(A.shape[1]), np.ones(3)]
    host = sad.minres(K, b, rtol=1e-12)
    device = sad.minres(sad.to_device(K), sad.to_device(b), rtol=1e-12)
    assert device.converged
    assert device.niter == host.niter
    np.testing.assert_allclose(sad.to_host(device.x), host.x, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", ["csr", "csc"])
def test_sparse_rows_are_used_by_their_products(cuda, kind):
    rows = scipy.sparse.csr_array(A).asformat(kind)
    found = []
    for device in (False, True):
        to = sad.to_device if device else (lambda value: value)
        f = Quartic(lambda array, to=to: to(np.array(array)))
        problem = sad.Problem(f, equality=sad.LinearEquality(to(rows), to(np.ones(3))))
        x = to(X.copy())
        solution = sad.solve(problem, x, tol=1e-9)
        adjoint = sad.vjp(problem, solution, to(GOAL.copy()), rtol=1e-10)
        found.append([sad.to_host(solution.y), sad.to_host(adjoint.x)])
    for host, device in zip(*found, strict=True):
        np.testing.assert_allclose(device, host, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_multigrid_moves_its_levels_once(cuda, dtype):
    pytest.importorskip("pyamg")
    side = 40
    line = scipy.sparse.diags_array(
        [-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(side,) * 2
    )
    eye = scipy.sparse.eye_array(side)
    grid = scipy.sparse.kron(line, eye) + scipy.sparse.kron(eye, line)
    matrix = scipy.sparse.csr_array(grid.astype(dtype))
    host = sad.preconditioners.amg(matrix)
    device = sad.preconditioners.amg(sad.to_device(matrix))
    r = np.random.default_rng(0).standard_normal((side * side, 2)).astype(dtype)
    there = sad.to_device(r)
    before = cupy_standin.LOG["transfers"]
    for found, expected in (
        (device @ there, host @ r),
        (device @ there[:, 0].copy(), host @ r[:, 0].copy()),
    ):
        assert found.dtype == dtype
        np.testing.assert_allclose(
            sad.to_host(found), expected, rtol=1e-3, atol=1e3 * np.finfo(dtype).eps
        )
    assert cupy_standin.LOG["transfers"] == before
    b = sad.to_device(r[:, 0].astype(float))
    A = sad.to_device(scipy.sparse.csr_array(grid))
    solved = sad.cg(A, b, M=sad.preconditioners.amg(A))
    assert solved.status is sad.Status.CONVERGED
    assert solved.niter <= 12


# every public name ------------------------------------------------------------------------

COVERED = {
    "Hypergradient": test_hypergradients_with_certificates,
    "LinearOperator": test_problems_are_solved_and_differentiated,
    "LogBarrier": test_the_barrier_is_a_problem_of_its_own,
    "active_range": test_what_a_solution_tells,
    "aslinearoperator": test_function_objectives_and_checks,
    "cg": test_krylov_methods,
    "check_derivatives": test_function_objectives_and_checks,
    "check_hypergradient": test_function_objectives_and_checks,
    "derivative": test_problems_are_solved_and_differentiated,
    "dot_test": test_function_objectives_and_checks,
    "influence": test_linear_models,
    "jvp": test_problems_are_solved_and_differentiated,
    "minimize": test_drivers,
    "minres": test_krylov_methods,
    "prior": test_what_a_solution_tells,
    "projected_cg": test_krylov_methods,
    "report": test_what_a_solution_tells,
    "solve": test_problems_are_solved_and_differentiated,
    "to_device": test_linear_models,
    "to_host": test_linear_models,
    "value_gradient": test_what_a_solution_tells,
    "vjp": test_problems_are_solved_and_differentiated,
}


def test_every_public_function_is_here():
    functions = {
        name
        for name in sad.__all__
        if callable(getattr(sad, name)) and not isinstance(getattr(sad, name), type)
    }
    elsewhere = {"from_dlpack"}  # tests/test_transfer.py
    # tests/test_batch.py
    elsewhere |= {"QuadraticProgram", "solve_many", "vjp_many", "jvp_many"}
    assert functions - elsewhere <= set(COVERED)
    builders = set(sad.preconditioners.__all__)
    classes = {"Auto", "Choice", "ConstraintPreconditioner", "RecentSolutions"}
    assert builders - classes - set(PRECONDITIONERS) <= {
        "amg",  # of a sparse matrix: test_multigrid_moves_its_levels_once
        "constraint_of",
        "deflation",
        "galerkin_start",
        "jacobi_of",
    }
