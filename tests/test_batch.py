"""Many problems at once: solve_many, vjp_many, jvp_many against single solves and dense algebra."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest

import sparse_argdiff as sad
from sparse_argdiff.implicit import many
from sparse_argdiff.problem import stacked_quadratic
from sparse_argdiff.problem.optimality import is_as_left

INF = np.inf
ALL = ("P", "q", "A", "b", "G", "h", "h_lower", "lower", "upper")


def program(n=6, p=1, r=4, seed=0, parameters=("q",), **changes):
    """Return a feasible, strictly convex program with rows of two sides and bounds."""
    rng = np.random.default_rng(seed)
    M = rng.standard_normal((n, n))
    data = {
        "P": M @ M.T + np.eye(n),
        "q": rng.standard_normal(n),
        "A": rng.standard_normal((p, n)),
        "b": np.zeros(p),
        "G": rng.standard_normal((r, n)),
        "h": np.ones(r),
        "h_lower": -np.ones(r),
        "lower": np.full(n, -1.0),
        "upper": np.full(n, 1.5),
    } | changes
    return sad.QuadraticProgram(**data, parameters=parameters)


def draws(problem, k, seed, size=1.0):
    """Return k rows of x around the problem's own data."""
    rng = np.random.default_rng(seed)
    own = problem.pack()
    rows = np.stack([own] * k)
    for name, part in problem.unpack(own).items():
        if name in {"q", "b", "A", "G"}:
            place = problem.objective.data.parts[name][0]
            scale = 4.0 * size if name == "q" else 0.1 * size
            rows[:, place] += scale * rng.standard_normal((k, part.size))
    return rows


def dense_derivative(problem, solution):
    """Return g'(x) by dense algebra on the active set that holds exactly."""
    J = sad.derivative(problem, solution)
    return J @ np.eye(solution.x.shape[0])


@pytest.mark.parametrize("method", [None, "active_set"])
@pytest.mark.parametrize("seed", range(4))
def test_members_are_believed_as_they_are_left(seed, method):
    """By their residuals, whatever the units: no product is spent to judge them anew."""
    rng = np.random.default_rng(seed)
    D = 10.0 ** rng.uniform(-2.0, 2.0, 6)
    changed = {
        "P": np.diag(D**2),
        "A": rng.standard_normal((1, 6)) * D,
        "G": 2.0 * rng.standard_normal((4, 6)) * D,
        "lower": -0.3 / D,
        "upper": np.where(np.arange(6) == 0, -0.3, 0.4) / D,
        "b": [0.1],
    }
    problem = program(**changed)
    X = 2.0 * D * rng.standard_normal((6, 6))
    found = sad.solve_many(problem, X, method=method)
    assert found.active.fixed.any()
    assert found.active.strong.any()
    for i in range(6):
        assert is_as_left(problem, found[i])
        other = dataclasses.replace(found[i], x=1.001 * X[i])
        assert not is_as_left(problem, other)


@pytest.mark.parametrize("parameters", [("q",), ("q", "b"), ALL])
def test_members_are_what_they_are_alone(parameters):
    problem = program(parameters=parameters)
    X = draws(problem, 12, seed=1)
    found = sad.solve_many(problem, X)
    assert found.converged.all()
    assert np.nanmax(found.error) < 1e-12
    for i in range(4):
        alone = sad.solve(problem, X[i])
        np.testing.assert_allclose(found.y[i], alone.y, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(
            found.multipliers[i], alone.multipliers, rtol=1e-8, atol=1e-8
        )
        assert (found.active.strong[i] == alone.active.strong).all()
        assert (found.active.fixed[i] == alone.active.fixed).all()
        assert found.value[i] == pytest.approx(alone.value, rel=1e-9)
        one = sad.solve_many(problem, X[i : i + 1])
        np.testing.assert_allclose(one.y[0], found.y[i], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("n", "p", "r"), [(4, 0, 3), (6, 2, 0), (20, 3, 25), (60, 5, 70)]
)
def test_derivatives_are_those_of_members_and_of_differences(n, p, r):
    """Below and above the sizes at which stacks, LU and two roots take turns."""
    problem = program(n, p, r, seed=n, parameters=ALL)
    X = draws(problem, 5, seed=2, size=0.5)
    found = sad.solve_many(problem, X)
    assert found.converged.all()
    rng = np.random.default_rng(3)
    V, U = rng.standard_normal(found.y.shape), rng.standard_normal(X.shape)
    # P stays convex, and symmetric.
    W, T = sad.vjp_many(problem, found, V), sad.jvp_many(problem, found, U)
    np.testing.assert_allclose((W * U).sum(1), (V * T).sum(1), rtol=1e-9, atol=1e-9)
    for i in range(5):
        np.testing.assert_allclose(
            W[i], sad.vjp(problem, found[i], V[i]).x, rtol=1e-7, atol=1e-7
        )
        np.testing.assert_allclose(
            T[i], sad.jvp(problem, found[i], U[i]).y, rtol=1e-7, atol=1e-7
        )
    step = 1e-6
    ahead, behind = (sad.solve_many(problem, X + s * step * U) for s in (1.0, -1.0))
    slope = (ahead.y - behind.y) / (2.0 * step)
    same = (ahead.active.strong == behind.active.strong).all(1)
    same &= (ahead.active.fixed == behind.active.fixed).all(1)
    assert same.any()
    np.testing.assert_allclose(slope[same], T[same], rtol=1e-5, atol=1e-5)


def test_multipliers_have_seeds():
    problem = program(parameters=("q", "h", "G"))
    X = draws(problem, 4, seed=5)
    found = sad.solve_many(problem, X)
    rng = np.random.default_rng(6)
    V, U = rng.standard_normal(found.y.shape), rng.standard_normal(X.shape)
    M = rng.standard_normal(found.multipliers.shape)
    W = sad.vjp_many(problem, found, V, multipliers=M)
    n = found.y.shape[1]
    for i in range(4):
        both = sad.jvp(problem, found[i], U[i]).tangent
        expected = V[i] @ both[:n] + M[i] @ both[n:]
        assert W[i] @ U[i] == pytest.approx(expected, rel=1e-8)
        alone = sad.vjp(problem, found[i], V[i], multipliers=M[i])
        np.testing.assert_allclose(W[i], alone.x, rtol=1e-7, atol=1e-7)
    step = 1e-6
    ahead, behind = (sad.solve_many(problem, X + s * step * U) for s in (1.0, -1.0))
    change = (ahead.multipliers - behind.multipliers) * M + 0.0
    total = change.sum(1) + ((ahead.y - behind.y) * V).sum(1)
    np.testing.assert_allclose(total / (2 * step), (W * U).sum(1), rtol=1e-5, atol=1e-5)


def infeasible_between(problem, X):
    """Rows b that contradict the bounds, in member 1."""
    bad = X.copy()
    bad[1, problem.objective.data.parts["b"][0]] = 1e3
    return bad


def test_one_infeasible_member_costs_no_other():
    """diffcp#70, optimistix#66, qpth#31."""
    problem = program(parameters=("q", "b"))
    X = draws(problem, 3, seed=7)
    with pytest.warns(sad.ConvergenceWarning, match="INFEASIBLE.*member 1"):
        found = sad.solve_many(problem, infeasible_between(problem, X))
    good = sad.solve_many(problem, X)
    assert [s.name for s in found.status] == ["CONVERGED", "INFEASIBLE", "CONVERGED"]
    assert np.isnan(found.y[1]).all()
    assert (found.y[[0, 2]] == good.y[[0, 2]]).all()
    V = np.ones_like(found.y)
    with pytest.warns(sad.ConvergenceWarning, match="member 1 has no solution"):
        W = sad.vjp_many(problem, found, V)
    assert np.isnan(W[1]).all()
    np.testing.assert_array_equal(W[[0, 2]], sad.vjp_many(problem, good, V)[[0, 2]])
    with pytest.raises(sad.ConvergenceError, match="INFEASIBLE"):
        sad.solve_many(problem, infeasible_between(problem, X), on_failure="raise")


@pytest.mark.parametrize("bad", [np.nan, INF, -INF])
def test_a_neighbour_of_nan_is_the_same_to_the_bit(bad):
    """qpth#32, #62, jax#6181."""
    problem = program(parameters=("P", "q", "A", "b", "G", "h"))
    X = draws(problem, 6, seed=8)
    good = sad.solve_many(problem, X)
    X[2, 0] = bad
    found = sad.solve_many(problem, X, on_failure="ignore")
    assert found.status[2] is sad.Status.NOT_FINITE
    assert found.warnings == ("P of member 2 has NaN or infinite entries",)
    rest = [0, 1, 3, 4, 5]
    assert (found.y[rest] == good.y[rest]).all()
    assert (found.multipliers[rest] == good.multipliers[rest]).all()


def test_each_failure_has_its_status():
    problem = sad.QuadraticProgram(
        np.eye(2), np.zeros(2), G=np.eye(2), h=np.ones(2), parameters=("P", "q", "h")
    )
    pack = problem.pack
    X = np.stack(
        [
            pack(q=np.array([3.0, 1.0])),
            pack(P=np.diag([1.0, 0.0]), q=np.array([0.0, 1.0])),  # falls for ever
            pack(P=np.diag([1.0, -1.0])),
            pack(q=np.array([np.nan, 0.0])),
            pack(h=np.array([-INF, 1.0])),
            pack(h=np.array([INF, -2.0])),  # a row that is none
        ]
    )
    found = sad.solve_many(problem, X, on_failure="ignore")
    names = [s.name for s in found.status]
    assert names[0] == names[5] == "CONVERGED"
    assert names[1:5] == ["UNBOUNDED", "NEGATIVE_CURVATURE", "NOT_FINITE", "INFEASIBLE"]
    np.testing.assert_allclose(found.y[5], [0.0, -2.0], atol=1e-12)
    assert found.multipliers[5, 0] == 0.0


def test_shapes_stay():
    """cvxpylayers#200, #2."""
    problem = program()
    X = draws(problem, 1, seed=9)
    one = sad.solve_many(problem, X)
    assert one.y.shape == (1, 6)
    assert sad.vjp_many(problem, one, one.y).shape == (1, 6)
    none = sad.solve_many(problem, X[:0])
    assert none.y.shape == (0, 6)
    assert len(none) == 0
    assert sad.vjp_many(problem, none, none.y).shape == (0, 6)
    assert sad.jvp_many(problem, none, X[:0]).shape == (0, 6)
    with pytest.raises(ValueError, match="X must have shape"):
        sad.solve_many(problem, X[0])
    with pytest.raises(ValueError, match="x must have shape"):
        sad.solve_many(problem, X[:, :3])
    with pytest.raises(ValueError, match="V must have shape"):
        sad.vjp_many(problem, one, one.y[:, :2])


def test_no_rows_and_no_bounds():
    """qpth#45, qpax#7: none and (0, n) alike."""
    P, q = np.diag([2.0, 4.0]), np.zeros(2)
    for rows in ({}, {"A": np.zeros((0, 2)), "b": np.zeros(0)}):
        problem = sad.QuadraticProgram(P, q, **rows)
        found = sad.solve_many(problem, np.array([[2.0, 4.0], [0.0, -8.0]]))
        np.testing.assert_allclose(found.y, [[-1.0, -1.0], [0.0, 2.0]], atol=1e-14)
        np.testing.assert_allclose(
            sad.vjp_many(problem, found, np.ones((2, 2))), [[-0.5, -0.25]] * 2
        )


def test_indefinite_but_definite_on_the_rows():
    """qpth#28: diag(1, −1) with y_2 = 1 has the minimiser (−1, 1) for q = (1, 0)."""
    problem = sad.QuadraticProgram(
        np.diag([1.0, -1.0]), np.zeros(2), np.array([[0.0, 1.0]]), np.ones(1)
    )
    found = sad.solve_many(problem, np.array([[1.0, 0.0], [-2.0, 5.0]]))
    np.testing.assert_allclose(found.y, [[-1.0, 1.0], [2.0, 1.0]], atol=1e-12)
    W = sad.vjp_many(problem, found, np.ones((2, 2)))
    np.testing.assert_allclose(W, [[-1.0, 0.0]] * 2, atol=1e-12)


def test_zero_rows():
    """qpth#47, piqp#1: 0'y <= 0 and 0'y = 0 are dropped, 0'y <= -1 is infeasible."""
    problem = sad.QuadraticProgram(
        np.ones((1, 1)),
        np.ones(1),
        np.zeros((1, 1)),
        np.zeros(1),
        np.zeros((1, 1)),
        np.zeros(1),
        parameters=("q",),
    )
    X = np.array([[1.0], [-2.0]])
    found = sad.solve_many(problem, X)
    np.testing.assert_allclose(found.y, -X)
    np.testing.assert_array_equal(found.multipliers[:, 1], 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        W = sad.vjp_many(problem, found, np.ones((2, 1)))
    np.testing.assert_allclose(W, -1.0)
    moves = sad.QuadraticProgram(
        np.ones((1, 1)),
        np.ones(1),
        G=np.zeros((1, 1)),
        h=np.zeros(1),
        parameters=("h",),
    )
    status = sad.solve_many(
        moves, np.array([[0.0], [-1.0]]), on_failure="ignore"
    ).status
    assert [s.name for s in status] == ["CONVERGED", "INFEASIBLE"]


@pytest.mark.parametrize("near", [1e-3, 1e-7, 1e-9])
def test_rows_that_are_nearly_parallel(near):
    """pounce#284: rows (1, 0) and (1, ε), dy/db = A⁻¹ with the entry −1/ε."""
    problem = sad.QuadraticProgram(
        np.eye(2),
        np.zeros(2),
        np.array([[1.0, 0.0], [1.0, near]]),
        np.zeros(2),
        parameters=("b",),
    )
    found = sad.solve_many(problem, np.zeros((1, 2)))
    W = sad.vjp_many(problem, found, np.array([[0.0, 1.0]]))
    np.testing.assert_allclose(near * W, [[-1.0, 1.0]], rtol=1e-9)


def test_sides_that_leave_nothing():
    """pounce#275: lower = +inf is no absent bound; qpax#4: h = +inf is an absent row."""
    problem = sad.QuadraticProgram(
        np.eye(1), np.zeros(1), lower=np.zeros(1), parameters=("q", "lower")
    )
    X = np.array([[1.0, INF], [1.0, 1e20], [-2.0, -INF], [1.0, -1e20]])
    found = sad.solve_many(problem, X, on_failure="ignore")
    assert [s.name for s in found.status] == ["INFEASIBLE"] * 2 + ["CONVERGED"] * 2
    np.testing.assert_allclose(found.y[2:, 0], [2.0, -1.0])


def test_a_wrong_argument_is_no_failed_member():
    problem = program()
    with pytest.raises(ValueError, match="method must be one of"):
        sad.solve_many(problem, draws(problem, 2, seed=16), method="simplex")
    with pytest.raises(ValueError, match="Y0 must have shape"):
        sad.solve_many(problem, draws(problem, 2, seed=16), np.zeros(5))
    with pytest.raises(TypeError, match="X must be"):
        sad.solve_many(problem, np.zeros((2, 6), dtype=int))


def test_equal_bounds_hold_their_variable():
    """hpmpc#8: dy/dbound = 1 and dy/dq = 0, whatever the multiplier."""
    problem = sad.QuadraticProgram(
        np.eye(2),
        np.zeros(2),
        lower=np.array([1.0, -5.0]),
        upper=np.array([1.0, 5.0]),
        parameters=("q", "lower", "upper"),
    )
    X = np.stack([problem.pack(q=np.array([c, 1.0])) for c in (-3.0, -1.0, 2.0)])
    found = sad.solve_many(problem, X)
    np.testing.assert_allclose(found.y, [[1.0, -1.0]] * 3, atol=1e-14)
    W = sad.vjp_many(problem, found, np.ones((3, 2)))
    np.testing.assert_allclose(W[:, 0], 0.0, atol=1e-14)
    np.testing.assert_allclose(W[:, 2] + W[:, 4], 1.0)


def test_dependent_rows():
    """pounce#313: rows (1, 1, 0 : 2) and (2, 2, 0 : 4)."""
    problem = sad.QuadraticProgram(
        np.eye(3),
        np.zeros(3),
        np.array([[1.0, 1, 0], [2.0, 2, 0]]),
        np.array([2.0, 4.0]),
    )
    found = sad.solve_many(problem, np.array([[-1.0, -2.0, -3.0]] * 2))
    np.testing.assert_allclose(found.y, [[0.5, 1.5, 3.0]] * 2, atol=1e-10)
    W = sad.vjp_many(problem, found, np.array([[1.0, 0, 0]] * 2))
    np.testing.assert_allclose(W, [[-0.5, 0.5, 0.0]] * 2, atol=1e-8)


def test_vertex_of_many_rows():
    """pounce#282: 40 rows a'y <= 0 in 5 unknowns leave y = 0 alone."""
    rng = np.random.default_rng(0)
    problem = sad.QuadraticProgram(
        np.eye(5), np.zeros(5), G=rng.standard_normal((40, 5)), h=np.zeros(40)
    )
    X = rng.standard_normal((4, 5))
    found = sad.solve_many(problem, X)
    assert found.converged.all()
    np.testing.assert_allclose(found.y, 0.0, atol=1e-12)


def test_mixed_scales_in_one_member():
    """pounce#958: P = diag(1e6, 1e-6), q = (−1e6, 1e-3), y >= 0."""
    problem = sad.QuadraticProgram(np.diag([1e6, 1e-6]), np.zeros(2), lower=0.0)
    found = sad.solve_many(problem, np.array([[-1e6, 1e-3]]))
    np.testing.assert_allclose(found.y, [[1.0, 0.0]], atol=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        W = sad.vjp_many(problem, found, np.ones((1, 2)))
    np.testing.assert_allclose(W, [[-1e-6, 0.0]], atol=1e-14)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_units(scale):
    """f → c f and y → y / D leave the same problem."""
    problem = program(parameters=("q",))
    data = problem.objective.data.constant
    X = draws(problem, 8, seed=10)
    found = sad.solve_many(problem, X)
    d = scale ** np.linspace(-1.0, 1.0, 6)
    other = sad.QuadraticProgram(
        scale * d[:, None] * data.P * d,
        data.q,
        data.A * d,
        data.b,
        data.G * d,
        data.h,
        data.lower / d,
        data.upper / d,
        h_lower=data.h_lower,
    )
    again = sad.solve_many(other, scale * X * d)
    assert again.converged.all()
    np.testing.assert_allclose(again.y * d, found.y, rtol=1e-9, atol=1e-9)


def test_memory_layouts_and_dtypes(monkeypatch):
    """hpipm#93, acados#662: the same bits for every layout; float32 stays."""
    problem = program()
    X = draws(problem, 5, seed=11)
    found = sad.solve_many(problem, X)
    wide = np.zeros((5, 12))
    wide[:, ::2] = X
    frozen = X.copy()
    frozen.flags.writeable = False
    for same in (np.asfortranarray(X), wide[:, ::2], frozen):
        assert (sad.solve_many(problem, same).y == found.y).all()
    data = {
        k: v.astype(np.float32)
        for k, v in vars(problem.objective.data.constant).items()
    }
    single = sad.QuadraticProgram(**data)
    small = sad.solve_many(single, X.astype(np.float32))
    assert small.y.dtype == np.float32
    np.testing.assert_allclose(small.y, found.y, atol=1e-5)
    # Not one of them is differentiated by itself.
    monkeypatch.setattr(many, "vjp", None)
    W = sad.vjp_many(single, small, small.y)
    assert W.dtype == np.float32
    np.testing.assert_allclose(W, sad.vjp_many(problem, found, found.y), atol=1e-4)


def test_a_stack_does_not_show(monkeypatch):
    """Chunks of any size give the same bits."""
    problem = program()
    X = draws(problem, 11, seed=12)
    found = sad.solve_many(problem, X)
    V = np.ones_like(found.y)
    W = sad.vjp_many(problem, found, V)
    monkeypatch.setattr(stacked_quadratic, "STACK", 3 * 8 * (49 + 6 * 11 + 1))
    again = sad.solve_many(problem, X)
    assert (again.y == found.y).all()
    np.testing.assert_array_equal(sad.vjp_many(problem, again, V), W)


def test_order_does_not_matter():
    """Nothing of member i in member i + 1: osqp#62, cvxpy#2433."""
    problem = program()
    X = draws(problem, 9, seed=13)
    found, back = sad.solve_many(problem, X), sad.solve_many(problem, X[::-1])
    assert (back.y[::-1] == found.y).all()


@pytest.mark.parametrize("parameters", [("q",), ("q", "b", "G", "h", "lower")])
def test_a_neighbouring_solution_spares_the_iterations(parameters):
    problem = program(parameters=parameters)
    X = draws(problem, 20, seed=22, size=0.5)
    cold = sad.solve_many(problem, X)
    near = X + 1e-4 * np.random.default_rng(0).standard_normal(X.shape)
    near[3], near[7] = -near[3], np.nan
    expected = sad.solve_many(problem, near, on_failure="ignore")
    found = sad.solve_many(problem, near, cold, on_failure="ignore")
    assert found.status == expected.status
    np.testing.assert_allclose(found.y, expected.y, rtol=1e-11, atol=1e-11)
    assert (found.active.strong == expected.active.strong).all()
    assert np.median(found.niter) == 0
    assert np.median(expected.niter) > 2
    again = sad.solve_many(problem, X, cold.y)
    assert again.converged.all()
    assert (again.niter == 0).all()
    np.testing.assert_allclose(again.y, cold.y, rtol=1e-11, atol=1e-11)
    lost = sad.solve_many(problem, X, found)  # with a member that failed
    assert lost.converged.all()


def test_weak_members_are_told():
    problem = sad.QuadraticProgram(np.eye(2), np.zeros(2), lower=0.0)
    found = sad.solve_many(problem, np.array([[-1.0, 0.0], [-1.0, -1.0]]))
    assert found.active.weak_fixed[0, 1]
    assert not found.active.weak_fixed[1].any()
    with pytest.warns(sad.ConvergenceWarning, match=r"member 0: .*weakly active"):
        W = sad.vjp_many(problem, found, np.ones((2, 2)))
    np.testing.assert_allclose(W, -1.0)


def test_opposing_rows_that_do_not_push():
    """discopt#1007: y_1 + y_2 = 0 as two rows, q = 0: both sides give (−½, ½)."""
    problem = sad.QuadraticProgram(
        np.eye(2), np.zeros(2), G=np.array([[1.0, 1.0], [-1.0, -1.0]]), h=np.zeros(2)
    )
    found = sad.solve_many(problem, np.array([[0.0, 0.0], [1.0, 2.0]]))
    assert found.converged.all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        W = sad.vjp_many(problem, found, np.array([[1.0, 0.0]] * 2))
    np.testing.assert_allclose(W, [[-0.5, 0.5]] * 2, atol=1e-8)


def test_general_problems_one_after_another():
    """A smooth function that is no quadratic program, one member outside its domain."""
    f = sad.FunctionObjective(
        value=lambda x, y: float(np.sum(np.cosh(y) - x * y)),
        grad=lambda x, y: np.sinh(y) - x,
        hvp=lambda x, y, v: np.cosh(y) * v,
        cross_jvp=lambda x, y, u: -u,
        cross_vjp=lambda x, y, w: -w,
        n=3,
    )
    problem = sad.Problem(f, lower=0.0)
    X = np.array([[1.0, 2.0, -1.0], [np.nan, 0.0, 0.0], [3.0, -1.0, 0.5]])
    with pytest.warns(sad.ConvergenceWarning, match="member 1"):
        found = sad.solve_many(problem, X, np.full(3, 0.1))
    expected = np.maximum(np.arcsinh(X), 0.0)
    np.testing.assert_allclose(found.y[[0, 2]], expected[[0, 2]], atol=1e-7)
    assert found.status[1] is sad.Status.NOT_FINITE
    with pytest.warns(sad.ConvergenceWarning, match="member 1 has no solution"):
        W = sad.vjp_many(problem, found, np.ones((3, 3)))
    slope = (X > 0.0) / np.sqrt(1.0 + X**2)
    np.testing.assert_allclose(W[[0, 2]], slope[[0, 2]], atol=1e-7)
    brought = [sad.Solution(y=expected[i], x=X[i]) for i in (0, 2)]
    np.testing.assert_allclose(
        sad.vjp_many(problem, brought, np.ones((2, 3))), slope[[0, 2]], atol=1e-7
    )
    with pytest.raises(ValueError, match="'batched' is for quadratic programs"):
        sad.solve_many(problem, X, method="batched")


def test_linear_programs():
    """A vertex is constant in q."""
    rng = np.random.default_rng(14)
    n, k = 5, 20
    problem = sad.QuadraticProgram(
        np.zeros((n, n)),
        np.zeros(n),
        np.ones((1, n)),
        np.ones(1),
        lower=0.0,
        upper=0.75,
        parameters=("q", "b"),
    )
    X = np.hstack([rng.standard_normal((k, n)), np.ones((k, 1))])
    found = sad.solve_many(problem, X)
    order = np.argsort(X[:, :n], axis=1)
    expected = np.zeros((k, n))
    np.put_along_axis(expected, order[:, :1], 0.75, 1)
    np.put_along_axis(expected, order[:, 1:2], 0.25, 1)
    np.testing.assert_allclose(found.y, expected, atol=1e-12)
    W = sad.vjp_many(problem, found, np.ones((k, n)))
    np.testing.assert_allclose(W[:, :n], 0.0, atol=1e-10)
    np.testing.assert_allclose(W[:, n], 1.0, rtol=1e-9)


def test_maximize():
    problem = sad.QuadraticProgram(
        -np.eye(2), np.zeros(2), upper=1.0, maximize=True, parameters=("q", "P")
    )
    X = np.stack([problem.pack(q=q) for q in np.array([[3.0, 0.5], [-1.0, 2.0]])])
    found = sad.solve_many(problem, X)
    np.testing.assert_allclose(found.y, [[1.0, 0.5], [-1.0, 1.0]], atol=1e-12)
    np.testing.assert_allclose(
        found.value, [sad.solve(problem, x).value for x in X], rtol=1e-9
    )
    V = np.array([[1.0, 2.0], [3.0, 4.0]])
    W = sad.vjp_many(problem, found, V)
    for i in range(2):
        np.testing.assert_allclose(W[i], sad.vjp(problem, found[i], V[i]).x, atol=1e-9)


def test_a_changed_solution_is_not_believed():
    problem = program()
    X = draws(problem, 3, seed=15)
    found = sad.solve_many(problem, X)
    V = np.ones_like(found.y)
    found.y[1] += 0.3
    with pytest.warns(sad.ConvergenceWarning, match="member 1 has no derivative"):
        W = sad.vjp_many(problem, found, V)
    assert np.isnan(W[1]).all()
    assert np.isfinite(W[[0, 2]]).all()


def test_arrays_of_a_device(cuda):
    """The same on a device that refuses the host: nothing moves there in between."""
    problem = program(8, 1, 6, seed=20, parameters=("q", "b", "G"))
    X = draws(problem, 5, seed=21, size=0.5)
    expected = sad.solve_many(problem, X)
    V = np.ones_like(expected.y)
    data = vars(problem.objective.data.constant)
    there = sad.QuadraticProgram(
        **{name: cuda.asarray(value) for name, value in data.items()},
        parameters=("q", "b", "G"),
    )
    found = sad.solve_many(there, cuda.asarray(X))
    assert type(found.y) is type(cuda.asarray(X))
    assert found.converged.all()
    np.testing.assert_allclose(found.y.get(), expected.y, rtol=1e-9, atol=1e-9)
    W = sad.vjp_many(there, found, cuda.asarray(V))
    np.testing.assert_allclose(
        W.get(), sad.vjp_many(problem, expected, V), rtol=1e-8, atol=1e-8
    )
    T = sad.jvp_many(there, found, cuda.asarray(np.ones_like(X)))
    np.testing.assert_allclose(
        T.get(), sad.jvp_many(problem, expected, np.ones_like(X)), rtol=1e-8, atol=1e-8
    )


def test_an_objective_with_other_constraints_is_not_taken_for_its_program():
    program_ = sad.QuadraticProgram(np.eye(2), np.zeros(2), lower=0.0)
    X = np.array([[-1.0, 2.0], [3.0, -4.0]])
    other = sad.Problem(program_.objective, upper=0.5)
    found = sad.solve_many(other, X)
    np.testing.assert_allclose(found.y, np.minimum(-X, 0.5), atol=1e-8)
    lasso = sad.Problem(program_.objective, penalty=sad.L1(np.ones(2)))
    found = sad.solve_many(lasso, X)
    # With no constraints of its own a problem takes those of its objective.
    np.testing.assert_allclose(found.y, np.maximum(-X - 1.0, 0.0), atol=1e-8)
