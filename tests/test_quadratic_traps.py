"""Situations from public trackers of QP solvers and layers, each with its right answer."""

from __future__ import annotations

import importlib.util
import itertools

import numpy as np
import pytest
from scipy import sparse

import sparse_argdiff as sad
from sparse_argdiff import Status

INF = np.inf
METHODS = ["active_set"]
METHODS += [name for name in ("piqp", "clarabel") if importlib.util.find_spec(name)]
each_method = pytest.mark.parametrize("method", METHODS)


def program(P, q, *rows, **options):
    problem = sad.QuadraticProgram(
        np.atleast_2d(np.asarray(P, float)), np.asarray(q, float), *rows, **options
    )
    return problem, problem.pack()


def adjoint(problem, solution, v):
    return sad.vjp(problem, solution, np.asarray(v, float)).x


@each_method
def test_infeasible_is_named(method):
    """cvxgrp/diffcp#70: off by 1e-12 is enough, whatever the engine tolerates."""
    G, h = np.array([[1.0], [-1.0]]), np.array([0.0, -1.0])
    problem, x = program(1.0, [0.0], None, None, G, h)
    with pytest.raises(sad.ConvergenceError, match="No y meets inequality row 0") as e:
        sad.solve(problem, x, method=method)
    assert e.value.status is Status.INFEASIBLE


@pytest.mark.parametrize("off", [1e-3, 1e-6, 1e-9])
def test_slightly_infeasible_is_no_solution(off):
    G, h = np.array([[1.0], [-1.0]]), np.array([1.0, -1.0 - off])
    problem, x = program(1.0, [0.0], None, None, G, h)
    with pytest.raises(sad.ConvergenceError):
        sad.solve(problem, x, tol=1e-11)


def test_the_same_whatever_was_solved_before():
    """osqp#62, cvxpy#2433: an LP with a tie gives one answer, in any order of calls."""
    problem, x = program(
        np.zeros((3, 3)), [1.0, 0.0, 0.0], np.ones((1, 3)), [1.0], lower=0.0
    )
    other = problem.pack(q=np.array([0.0, 2.0, 1.0]))
    first = sad.solve(problem, x).y
    sad.solve(problem, other)
    np.testing.assert_array_equal(sad.solve(problem, x).y, first)


@pytest.mark.parametrize("name", ["P", "q", "A", "b", "G", "h", "lower", "upper"])
def test_nan_is_named_before_any_engine(name):
    """pounce#113: ValueError that names the array."""
    data = {
        "P": np.eye(2),
        "q": np.ones(2),
        "A": np.ones((1, 2)),
        "b": np.ones(1),
        "G": np.ones((1, 2)),
        "h": np.ones(1),
        "lower": -np.ones(2),
        "upper": np.ones(2),
    }
    problem = sad.QuadraticProgram(**data, parameters=(name,))
    x = problem.pack()
    x[0] = np.nan
    with pytest.raises(ValueError, match=f"^{name} must be.* found nan"):
        sad.solve(problem, x)
    data[name] = data[name].copy()
    data[name].flat[0] = np.nan
    with pytest.raises(ValueError, match=f"^{name} must be.* found nan"):
        sad.QuadraticProgram(**data)


@each_method
@pytest.mark.parametrize("none", [INF, 1e20, 1e19])
def test_infinite_sides_are_dropped(method, none):
    """qpax#4, ecos-python#49: shapes are kept."""
    problem, x = program(
        np.eye(2), [1.0, 1.0], None, None, np.eye(2), [none, -2.0], lower=[-none, -none]
    )
    solution = sad.solve(problem, x, method=method)
    np.testing.assert_allclose(solution.y, [-1.0, -2.0], atol=1e-12)
    np.testing.assert_allclose(solution.multipliers, [0.0, 1.0], atol=1e-12)
    np.testing.assert_allclose(adjoint(problem, solution, [1, 1]), [-1, 0], atol=1e-12)
    brought = sad.Solution(y=np.array([-1.0, -2.0]), x=x)
    np.testing.assert_allclose(adjoint(problem, brought, [1, 1]), [-1, 0], atol=1e-9)


def test_infinite_sides_in_x():
    problem, _ = program(
        np.eye(2), [1.0, 1.0], None, None, np.eye(2), [0.0, -2.0], parameters=("h",)
    )
    solution = sad.solve(problem, problem.pack(h=np.array([INF, -2.0])))
    np.testing.assert_allclose(solution.y, [-1.0, -2.0])
    np.testing.assert_allclose(adjoint(problem, solution, [1.0, 1.0]), [0.0, 1.0])


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({"lower": [0.0, INF]}, r"lower .*found inf in entry 1"),
        ({"upper": [0.0, -INF]}, r"upper .*found -inf in entry 1"),
        ({"lower": [INF, 0.0], "upper": [INF, 1.0]}, r"lower .*found inf in entry 0"),
        (
            {"lower": [0.0, 2.0], "upper": [1.0, 1.0]},
            r"lower must be <= upper.*entry 1",
        ),
    ],
)
def test_bounds_that_leave_no_y(bounds, words):
    """pounce#275: refused, by the index."""
    with pytest.raises(ValueError, match=words):
        program(np.eye(2), [0.0, 0.0], **bounds)


@each_method
@pytest.mark.parametrize("q", [0.0, 1.0, -1.0])
def test_a_fixed_variable(method, q):
    """hpmpc#8: lower = upper, whatever the multiplier; zero included."""
    problem, x = program(
        np.eye(2), [q, 1.0], lower=[0.0, -5.0], upper=[0.0, 5.0], parameters=("q",)
    )
    solution = sad.solve(problem, x, method=method)
    np.testing.assert_allclose(solution.y, [0.0, -1.0], atol=1e-12)
    np.testing.assert_allclose(adjoint(problem, solution, [1, 1]), [0, -1], atol=1e-12)


@each_method
@pytest.mark.parametrize("c", [0.0, 1.0, -3.0])
@pytest.mark.parametrize("q", [[0.0, 0.0], [1.0, -2.0]])
def test_an_equality_as_two_inequalities(method, c, q):
    """discopt#1007, osqp#485: only the difference of the multipliers is determined."""
    G = np.array([[1.0, 1.0], [-1.0, -1.0]])
    problem, x = program(np.eye(2), q, None, None, G, [c, -c])
    solution = sad.solve(problem, x, method=method)
    found = adjoint(problem, solution, [1.0, 0.0])
    np.testing.assert_allclose(found, [-0.5, 0.5], atol=1e-9)


@each_method
def test_many_rows_leave_one_point(method):
    """pounce#282: 40 random rows a'y <= 0 in 5 unknowns."""
    G = np.random.default_rng(0).standard_normal((40, 5))
    problem, x = program(np.eye(5), np.ones(5), None, None, G, np.zeros(40))
    solution = sad.solve(problem, x, method=method)
    np.testing.assert_allclose(solution.y, np.zeros(5), atol=1e-10)
    np.testing.assert_allclose(adjoint(problem, solution, np.ones(5)), 0.0, atol=1e-9)


@each_method
def test_zero_rows(method):
    """qpth#47, piqp#1: dropped where they hold, with multiplier 0."""
    problem, x = program(
        1.0, [1.0], np.zeros((1, 1)), [0.0], np.zeros((1, 1)), [0.0], parameters=("q",)
    )
    solution = sad.solve(problem, x, method=method)
    np.testing.assert_allclose(solution.y, [-1.0])
    np.testing.assert_array_equal(solution.multipliers, [0.0, 0.0])
    np.testing.assert_allclose(adjoint(problem, solution, [1.0]), [-1.0])
    problem, x = program(1.0, [1.0], None, None, np.zeros((1, 1)), [-1.0])
    with pytest.raises(sad.ConvergenceError, match="INFEASIBLE"):
        sad.solve(problem, x, method=method)


@each_method
def test_dependent_equalities(method):
    """pounce#313: consistent rows (1,1,0 : 2) and (2,2,0 : 4)."""
    A = np.array([[1.0, 1.0, 0.0], [2.0, 2.0, 0.0]])
    problem, x = program(np.eye(3), [-1.0, -2.0, -3.0], A, [2.0, 4.0])
    solution = sad.solve(problem, x, method=method)
    np.testing.assert_allclose(solution.y, [0.5, 1.5, 3.0])
    assert solution.value == pytest.approx(-6.75)
    found = adjoint(problem, solution, [1.0, 0.0, 0.0])
    np.testing.assert_allclose(found, [-0.5, 0.5, 0.0], atol=1e-12)


def test_right_hand_sides_of_dependent_equalities():
    """Only along the range do they have a derivative."""
    A = np.array([[1.0, 1.0, 0.0], [2.0, 2.0, 0.0]])
    problem, x = program(np.eye(3), np.zeros(3), A, [2.0, 4.0], parameters=("b",))
    solution = sad.solve(problem, x)
    for call in (
        lambda: sad.vjp(problem, solution, np.ones(3)),
        lambda: sad.jvp(problem, solution, np.array([1.0, 0.0])),
    ):
        with pytest.raises(sad.ConvergenceError) as caught:
            call()
        assert caught.value.status is Status.INCONSISTENT
    along = sad.jvp(problem, solution, np.array([1.0, 2.0])).y
    np.testing.assert_allclose(along, [0.5, 0.5, 0.0], atol=1e-12)


@each_method
@pytest.mark.parametrize("small", [1e-3, 1e-5, 1e-7, 1e-9])
def test_nearly_dependent_equalities(method, small):
    """pounce#284: dy/db = A⁻¹, entry −1/ε, not damped."""
    A = np.array([[1.0, 0.0], [1.0, small]])
    problem, x = program(np.eye(2), np.zeros(2), A, [1.0, 1.0], parameters=("b",))
    solution = sad.solve(problem, x, method=method)
    found = adjoint(problem, solution, [0.0, 1.0])
    np.testing.assert_allclose(found, [-1.0 / small, 1.0 / small], rtol=1e-6)


@each_method
def test_a_vertex_and_a_tie(method):
    """cvxpylayers#127: at a vertex the derivative is 0; a tie has none."""
    data = (np.ones((1, 3)), [1.0])
    problem, x = program(np.zeros((3, 3)), [0.0, 1.0, 2.0], *data, lower=0.0)
    solution = sad.solve(problem, x, method=method)
    np.testing.assert_allclose(solution.y, [1.0, 0.0, 0.0], atol=1e-12)
    np.testing.assert_array_equal(adjoint(problem, solution, [1.0, 2.0, 3.0]), 0.0)
    problem, x = program(np.zeros((3, 3)), [1.0, 0.0, 0.0], *data, lower=0.0)
    solution = sad.solve(problem, x, method=method)
    assert solution.y[0] == 0.0
    with pytest.raises(sad.ConvergenceError, match="SINGULAR"):
        sad.vjp(problem, solution, np.array([0.0, 1.0, -1.0]))


@each_method
@pytest.mark.parametrize("force", [1e-4, 1e-7, 1e-9])
def test_small_multipliers_are_decided(method, force):
    """osqpth#4: each row on its own scale, polished and proven."""
    problem, x = program(np.eye(2), [force, -1.0], lower=0.0)
    solution = sad.solve(problem, x, method=method)
    np.testing.assert_array_equal(solution.active.fixed, [True, False])
    assert not solution.active.degenerate
    np.testing.assert_allclose(adjoint(problem, solution, [1.0, 1.0]), [0.0, -1.0])


@each_method
def test_mixed_scales_in_one_problem(method):
    """pounce#958: no absolute floor."""
    P, q = np.diag([1e6, 1e-6]), [-1e6, 1e-3]
    problem, x = program(P, q, lower=0.0)
    solution = sad.solve(problem, x, method=method)
    np.testing.assert_allclose(solution.y, [1.0, 0.0])
    np.testing.assert_allclose(
        adjoint(problem, solution, [1, 1]), [-1e-6, 0], rtol=1e-9
    )


@pytest.mark.parametrize("factor", [1e-9, 1e9])
@each_method
def test_common_scales(method, factor):
    P, q = np.diag([1e6, 1e-6]), np.array([-1e6, 1e-3])
    problem, x = program(factor * P, factor * q, lower=0.0)
    solution = sad.solve(problem, x, method=method)
    found = factor * adjoint(problem, solution, [1.0, 1.0])
    np.testing.assert_allclose(found, [-1e-6, 0.0], rtol=1e-9)


@each_method
@pytest.mark.parametrize("brought", [False, True])
def test_derivatives_of_multipliers(method, brought):
    """cvxpylayers#67: 1 % off at an engine's tolerance; μ = − (C C')⁻¹ (C q + c) here."""
    rng = np.random.default_rng(2)
    A, G = rng.standard_normal((2, 7)), rng.standard_normal((3, 7))
    C, c = np.concatenate([A, G[:2]]), rng.standard_normal(4)
    y, mu = np.linalg.pinv(C) @ c, np.array([1.0, -2.0, 0.5, 3.0])
    q = -y - C.T @ mu
    sides = np.concatenate([c[2:], [G[2] @ y + 1.0]])
    problem, x = program(np.eye(7), q, A, c[:2], G, sides)
    solution = sad.solve(problem, x, method=method)
    if brought:  # as an engine leaves it at its default tolerance
        y = solution.y + 1e-5 * rng.standard_normal(7)
        solution = sad.Solution(y=y, x=x)
    w = rng.standard_normal(4)
    found = sad.vjp(problem, solution, np.zeros(7), multipliers=np.append(w, 0.0)).x
    expected = -C.T @ np.linalg.solve(C @ C.T, w)
    assert np.linalg.norm(found - expected) <= 1e-9 * np.linalg.norm(expected)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array, sparse.coo_array])
def test_triangles_are_refused(kind):
    """osqp#425: half of P dropped in silence."""
    full = np.array([[2.0, 1.0], [1.0, 2.0]])
    for triangle in (np.triu(full), np.tril(full)):
        with pytest.raises(ValueError, match="triangle"):
            sad.QuadraticProgram(kind(triangle), np.ones(2))
    with pytest.raises(ValueError, match="symmetric"):
        sad.QuadraticProgram(kind(np.array([[2.0, 1.0], [0.5, 2.0]])), np.ones(2))
    problem = sad.QuadraticProgram(
        kind(full), np.ones(2), parameters=("P", "q"), lower=-5.0
    )
    solution = sad.solve(problem, problem.pack())
    y, u = solution.y, np.linalg.solve(full, [1.0, 0.0])
    found = problem.unpack(adjoint(problem, solution, [1.0, 0.0]))
    dense = found["P"] if isinstance(found["P"], np.ndarray) else found["P"].toarray()
    expected = -0.5 * (np.outer(u, y) + np.outer(y, u))
    np.testing.assert_allclose(dense, expected, atol=1e-12)
    np.testing.assert_allclose(found["q"], -u, atol=1e-12)


def test_stored_entries():
    """cvxpylayers#44: zeros, duplicates and order of the indices are kept."""
    rows, columns = np.array([1, 0, 0, 1, 0]), np.array([1, 0, 1, 0, 0])
    data = np.array([2.0, 1.0, 0.0, 0.0, 1.0])  # 2 at (0, 0) in two parts
    P = sparse.coo_array((data, (rows, columns)), shape=(2, 2))
    problem = sad.QuadraticProgram(P, np.ones(2), parameters=("P",))
    solution = sad.solve(problem, problem.pack())
    np.testing.assert_allclose(solution.y, [-0.5, -0.5])
    found = problem.unpack(adjoint(problem, solution, [1.0, 0.0]))["P"]
    assert found.data.shape == (5,)
    np.testing.assert_allclose(found.data, [0.0, 0.25, 0.125, 0.125, 0.25], atol=1e-12)


@each_method
def test_badly_scaled_but_feasible(method):
    """piqp#33: a large P and no linear term; and y <= 0 with y >= 1e-4 is infeasible."""
    P = np.diag([2e9, 1.0, 1e-3])
    problem, x = program(P, np.zeros(3), np.ones((1, 3)), [0.0], lower=-1.0)
    np.testing.assert_allclose(sad.solve(problem, x, method=method).y, 0.0, atol=1e-12)
    G = np.array([[1.0], [-1.0]])
    problem, x = program(1.0, [0.0], None, None, G, [0.0, -1e-4])
    with pytest.raises(sad.ConvergenceError, match="INFEASIBLE"):
        sad.solve(problem, x, method=method)


@each_method
def test_signs_of_multipliers(method):
    """piqp#42, proxsuite#343: P y + q + A'ν + G'λ − s = 0, recomputed on the user's rows."""
    rng = np.random.default_rng(1)
    n, p, k = 6, 2, 5
    A, G = rng.standard_normal((p, n)), rng.standard_normal((k, n))
    q = 3.0 * rng.standard_normal(n)
    problem = sad.QuadraticProgram(
        np.eye(n),
        q,
        A,
        np.zeros(p),
        G,
        0.5 * np.ones(k),
        -0.5,
        0.4,
        h_lower=-0.2 * np.ones(k),
    )
    solution = sad.solve(problem, q, method=method)
    nu, above, below = np.split(solution.multipliers, [p, p + k])
    assert min(above.min(), below.min()) >= 0.0
    assert max(above.max(), below.max()) > 0.0
    left = solution.y + q + A.T @ nu + G.T @ (above - below)
    np.testing.assert_allclose(left, solution.bound_multipliers, atol=1e-12)
    s = solution.bound_multipliers
    assert np.all(solution.y[s > 0.0] == -0.5)
    assert np.all(solution.y[s < 0.0] == 0.4)
    problem, x = program(2.0, [0.0], None, None, [[-1.0]], [-1.0])
    np.testing.assert_allclose(sad.solve(problem, x, method=method).multipliers, [2.0])


@pytest.mark.parametrize("none", [None, np.zeros((0, 3))])
def test_no_rows(none):
    """qpth#45, qpax#7: None and (0, n) alike."""
    sides = None if none is None else np.zeros(0)
    P = np.diag([1.0, 2.0, 4.0])
    problem, x = program(P, [1.0, 2.0, 4.0], none, sides, none, sides)
    np.testing.assert_allclose(sad.solve(problem, x).y, -np.ones(3))


@each_method
def test_no_linear_term(method):
    """jaxopt#95: a relative tolerance of zero."""
    problem, x = program([[4.0, 1.0], [1.0, 2.0]], [0, 0], np.ones((1, 2)), [1.0])
    found = sad.solve(problem, x, method=method).y
    np.testing.assert_allclose(found, [0.25, 0.75])


@each_method
def test_what_is_wrong_with_P_is_told(method):
    """qpth#28, HiGHS#847: unbounded, indefinite, and indefinite where it does no harm."""
    problem, x = program(np.zeros((2, 2)), [1.0, 1.0], upper=0.0)
    with pytest.raises(sad.ConvergenceError, match="UNBOUNDED"):
        sad.solve(problem, x, method=method)
    box = {"lower": -1.0, "upper": 1.0}
    problem, x = program(np.diag([1.0, -1.0]), [0.0, 0.1], **box)
    told = []
    try:
        told = sad.solve(problem, x, np.array([0.1, 0.1]), method=method).warnings
    except sad.ConvergenceError as error:
        told = [str(error)]
    assert any("semidefinite" in note or "convex" in note for note in told)
    problem, x = program(np.diag([1.0, -1.0]), [1.0, 0.0], [[0.0, 1.0]], [1.0])
    solution = sad.solve(problem, x, method=method)
    np.testing.assert_allclose(solution.y, [-1.0, 1.0])
    np.testing.assert_allclose(adjoint(problem, solution, [1, 1]), [-1, 0], atol=1e-12)


@pytest.mark.parametrize("layout", ["C", "F", "strided", "read-only", "integer"])
def test_memory_layouts(layout):
    """hpipm#93: row-major read as column-major; integers."""
    P, G = np.array([[4, 1], [1, 3]]), np.array([[1, 2], [3, -1], [0, 1]])
    q, h = np.array([-8, -3]), np.array([2, 3, 1])

    def laid_out(a):
        if layout == "integer":
            return a
        a = a.astype(float)
        if layout == "strided":
            wide = np.zeros(tuple(2 * s for s in a.shape))
            wide[tuple(slice(None, None, 2) for _ in a.shape)] = a
            return wide[tuple(slice(None, None, 2) for _ in a.shape)]
        a = np.asarray(a, order="F" if layout == "F" else "C")
        a.flags.writeable = layout != "read-only"
        return a

    names = ("P", "q", "G", "h")
    reference = sad.QuadraticProgram(
        *(m.astype(float) for m in (P, q)),
        None,
        None,
        *(m.astype(float) for m in (G, h)),
        parameters=names,
    )
    given = [laid_out(m) for m in (P, q, G, h)]
    problem = sad.QuadraticProgram(
        given[0], given[1], None, None, given[2], given[3], parameters=names
    )
    np.testing.assert_array_equal(problem.pack(), reference.pack())
    first, second = (sad.solve(p, p.pack()) for p in (problem, reference))
    np.testing.assert_array_equal(first.y, second.y)


@each_method
def test_single_precision_stays(method):
    f = np.float32
    problem = sad.QuadraticProgram(
        np.eye(3, dtype=f), -np.ones(3, f), np.ones((1, 3), f), np.ones(1, f), lower=0.0
    )
    solution = sad.solve(problem, problem.pack(), method=method, tol=1e-4)
    assert solution.y.dtype == solution.multipliers.dtype == f
    found = sad.vjp(problem, solution, np.array([1, 0, 0], f))
    assert found.x.dtype == f
    np.testing.assert_allclose(found.x, [-2 / 3, 1 / 3, 1 / 3], rtol=1e-5)


@each_method
def test_a_far_coordinate_hides_nothing(method):
    """A start at 1e9 along a coordinate without cost says nothing of the other rows."""
    problem, _ = program(
        np.zeros((3, 3)), [1.0, 1.0, 0.0], None, None, [[-1.0, -1.0, 0.0]], [-1.0], 0.0
    )
    start = np.array([0.0, 0.0, 1e9])
    solution = sad.solve(problem, problem.pack(), start, method=method)
    assert solution.value == pytest.approx(1.0)
    assert solution.y[0] + solution.y[1] >= 1.0 - 1e-12


def flat_rows(seed, n=5, rank=2, p=1, k=0, bounds=False, curvature=0.0, unit=1.0):
    """P has a null space along which q falls, and rows and bounds leave it free."""
    rng = np.random.default_rng(seed)
    M, A = rng.standard_normal((n, rank)), rng.standard_normal((p, n))
    d = np.linalg.svd(np.vstack([M.T, A]))[2][-1]
    G, y, q = (rng.standard_normal(shape) for shape in ((k, n), n, n))
    G = np.where((G @ d > 0.0)[:, None], -G, G)
    h = G @ y + np.abs(rng.standard_normal(k))
    q = -q if q @ d > 0.0 else q
    P = M @ M.T + curvature * np.linalg.norm(M) ** 2 * np.eye(n)
    P = 0.5 * (P + P.T)
    sides = {}
    if bounds:
        sides["lower"] = np.where(d >= 0.0, y - 1.0, -INF)
        sides["upper"] = np.where(d <= 0.0, y + 1.0, INF)
    rows = (A, A @ y, G, h) if k else (A, A @ y)
    return program(unit * P, unit * q, *rows, **sides)


@each_method
def test_a_flat_fall_is_unbounded(method):
    """P = a a', one equality row: y = 1e21 was CONVERGED for 3 of 60 seeds."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        a, row = rng.standard_normal(3), rng.standard_normal((1, 3))
        problem, _ = program(np.outer(a, a), np.zeros(3), row, np.ones(1))
        x = rng.standard_normal(3)
        found = sad.solve(problem, x, method=method, on_failure="ignore")
        assert found.status is Status.UNBOUNDED, seed


VARIANTS = {
    "rows": {},
    "no rows": {"p": 0},
    "many": {"n": 30, "rank": 12, "p": 6},
    "inequalities": {"n": 8, "rank": 3, "p": 2, "k": 12},
    "bounds": {"bounds": True},
    "both": {"k": 3, "p": 0, "bounds": True},
    "linear": {"n": 3, "rank": 0, "k": 2},
    "units": {"unit": 1e-9},
}


@each_method
@pytest.mark.parametrize("name", VARIANTS)
def test_flat_falls_of_many_shapes(method, name):
    for seed in range(15):
        problem, x = flat_rows(seed, **VARIANTS[name])
        found = sad.solve(problem, x, method=method, on_failure="ignore")
        assert found.status is Status.UNBOUNDED, seed


@each_method
@pytest.mark.parametrize(
    ("name", "curvature"),
    [
        *itertools.product(["rows", "no rows"], [1e-6, 1e-8, 1e-10]),
        *itertools.product(["inequalities", "both"], [1e-6, 1e-8]),
    ],
)
def test_a_small_curvature_is_no_flat_fall(method, name, curvature):
    """A solution is far away, or its conditions are lost in rounding: it is there."""
    for seed in range(5):
        problem, x = flat_rows(seed, **VARIANTS[name], curvature=curvature)
        found = sad.solve(problem, x, method=method, on_failure="ignore")
        assert found.status is not Status.UNBOUNDED, seed
        assert curvature < 1e-7 or found.status is Status.CONVERGED, seed
        if found.status is Status.CONVERGED:
            assert found.relative_error <= 1e-7


@each_method
def test_a_flat_direction_without_a_fall_is_solved(method):
    """q in the range of P and of the rows: any point of a line is a solution."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        M, A, y = (rng.standard_normal(s) for s in ((6, 2), (1, 6), 6))
        q = -M @ (M.T @ y) + A[0]
        problem, x = program(M @ M.T, q, A, A @ y)
        found = sad.solve(problem, x, method=method)
        assert found.relative_error <= 1e-9
        assert found.value == pytest.approx(problem.value(x, y), abs=1e-9)
