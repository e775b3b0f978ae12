"""Minima at kinks of F: what ends there, what it says, and what it does not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import optimize

import sparse_argdiff as sad
from sparse_argdiff.bilevel.bundle import bound_normals, descend, least_combination
from sparse_argdiff.bilevel.kink import bracket_kink
from sparse_argdiff.linear_model import Glm

TOL = 1e-4
AT_KINKS = (2, 9, 17, 22, 24, 29)  # seeds; the tests measure the jump


def lasso(seed, penalty="scalar", rows=40, columns=12):
    """Return a lasso and its held-out loss."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((rows, columns))
    w = rng.standard_normal(columns) * (rng.random(columns) < 0.4)
    t = X @ w + rng.standard_normal(rows)
    V = rng.standard_normal((30, columns))
    v = V @ w + rng.standard_normal(30)
    glm = Glm(X, t, loss="squared", penalty=penalty, norm="l1")
    return sad.Problem(glm), glm.held_out(V, v)


def descriptors(columns, m, seed):
    """Return descriptors of the columns, the first of which is constant."""
    rng = np.random.default_rng(seed)
    return np.column_stack([np.ones(columns), rng.standard_normal((columns, m - 1))])


def scan(problem, upper, x, width, points=81):
    """Return F and its slope near x."""
    F = sad.Hypergradient(problem, upper, tol=1e-11, on_failure="ignore")
    places = x + np.linspace(-width, width, points)
    found = [F(np.array([p])) for p in places]
    return places, np.array([v for v, _ in found]), np.array([g[0] for _, g in found])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", AT_KINKS)
def test_one_penalty_ends_at_the_kink(seed):
    """Once 76 to 210 evaluations and LINE_SEARCH_FAILED."""
    problem, held = lasso(seed)
    found = sad.minimize(problem, held, np.array([-3.0]), bounds=(-9, 1), tol=TOL)
    x, F, slopes = scan(problem, held, found.x[0], 0.02)
    k = int(np.argmin(F))
    # The scan shows the kink: the slope jumps at the minimum, above what is small.
    assert slopes[k - 2] < -TOL * F[k]
    assert slopes[k + 2] > TOL * F[k]
    assert slopes[k + 2] - slopes[k - 2] > 4.0 * np.ptp(slopes[k + 2 : k + 7])
    assert 0 < k < x.shape[0] - 1
    assert found.status is sad.Status.CONVERGED
    assert found.fun <= F[k] + TOL * abs(F[k])
    assert found.nfev <= 20
    assert "minimum at a kink of F: slopes -" in found.message
    assert "can still fall by" in found.message
    assert "one-sided" in found.message
    assert "projected gradient" not in found.message


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", [0, 6, 8, 15, 25])
def test_a_smooth_minimum_is_not_called_a_kink(seed):
    """A search that was refused twice and narrows a bracket ends by the gradient."""
    problem, held = lasso(seed)
    found = sad.minimize(problem, held, np.array([-3.0]), bounds=(-9, 1), tol=TOL)
    assert found.status is sad.Status.CONVERGED
    assert "kink" not in found.message
    assert abs(found.jac[0]) <= TOL * found.fun


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("norm", ["l1", None])
def test_a_gradient_that_is_wrong_still_fails(norm):
    """The slope of −F has the wrong sign on both sides of each trial."""
    rng = np.random.default_rng(3)
    X, V = rng.standard_normal((2, 40, 6))
    w = rng.standard_normal(6)
    more = {} if norm is None else {"norm": norm}
    glm = Glm(
        X, X @ w + rng.standard_normal(40), loss="squared", penalty="scalar", **more
    )
    right = glm.held_out(V, V @ w + rng.standard_normal(40))
    wrong = sad.FunctionUpper(right.value, lambda x, y: -np.asarray(right.grad_y(x, y)))
    found = sad.minimize(sad.Problem(glm), wrong, np.array([-1.0]), bounds=(-9, 3))
    assert found.status is sad.Status.LINE_SEARCH_FAILED
    assert "kink" not in found.message
    assert not found.success


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", [1, 4, 6, 15, 16])
def test_several_penalties_end_at_kinks(seed):
    """Once LINE_SEARCH_FAILED: no direction lowers F by more than the tolerance."""
    problem, held = lasso(seed, descriptors(20, 3, seed), rows=60, columns=20)
    found = sad.minimize(problem, held, np.array([-3.0, 0.0, 0.0]), tol=TOL)
    assert found.status is sad.Status.CONVERGED
    assert found.success
    assert "at a kink of F: a convex combination of" in found.message
    assert "one-sided" in found.message
    assert norm_of(found.jac) > TOL * found.fun  # the gradient alone tells nothing
    F = sad.Hypergradient(problem, held, tol=1e-10, on_failure="ignore")
    rng, least = np.random.default_rng(seed), found.fun
    for length in (1e-3, 1e-2, 3e-2, 0.1):
        for _ in range(40):
            d = rng.standard_normal(3)
            least = min(least, F(found.x + length * d / norm_of(d))[0])
    assert found.fun - least <= 2.0 * TOL * found.fun


def norm_of(v):
    return float(np.linalg.norm(v))


@pytest.mark.filterwarnings("ignore")
def test_several_penalties_with_a_wrong_gradient_fail():
    """The gradient of −F on all sides: no combination of them is small."""
    problem, right = lasso(1, descriptors(20, 3, 1), rows=60, columns=20)
    wrong = sad.FunctionUpper(right.value, lambda x, y: -np.asarray(right.grad_y(x, y)))
    found = sad.minimize(problem, wrong, np.array([-3.0, 0.0, 0.0]))
    assert found.status is sad.Status.LINE_SEARCH_FAILED
    assert not found.success


@dataclasses.dataclass
class Place:
    """The part of a solution that a bracket asks for."""

    x: np.ndarray


@dataclasses.dataclass
class Found:
    """Value and gradient of a function of one variable."""

    solution: Place
    value: float
    gradient: np.ndarray
    correction: float = 0.0


# the gradients on all sides alone ------------------------------------------------------


def greatest(planes, offsets, curvature=0.0):
    """Return the greatest of some planes, with a bowl, as an evaluation that counts."""

    def evaluate(x):
        values = planes @ x + offsets
        k, n = int(np.argmax(values)), x.shape[0]
        value = float(values[k]) + 0.5 * curvature * float(x @ x)
        assert n == planes.shape[1]
        counts.append(x)
        return Found(Place(x), value, planes[k] + curvature * x)

    counts = []
    return evaluate, counts


@pytest.mark.parametrize("curvature", [0.0, 0.3])
@pytest.mark.parametrize("m", [2, 3, 6])
@pytest.mark.parametrize("seed", range(3))
def test_the_minimum_of_the_greatest_of_planes(seed, m, curvature):
    """Beside Clarabel: at the minimum m + 1 planes may meet."""
    rng = np.random.default_rng(seed)
    planes = rng.standard_normal((2 * m + 2, m))
    planes -= planes.mean(axis=0)
    offsets = 3.0 + rng.random(2 * m + 2)
    P, q = np.diag(np.r_[np.full(m, curvature), 0.0]), np.r_[np.zeros(m), 1.0]
    program = sad.QuadraticProgram(
        P, q, G=np.column_stack([planes, -np.ones(len(planes))]), h=-offsets
    )
    least = sad.solve(program, program.pack(), method="clarabel").value
    evaluate, counts = greatest(planes, offsets, curvature)
    start = evaluate(rng.standard_normal(m))
    small = 1e-5
    found = descend([start], 1.0, evaluate, lambda _: small, lambda x: x, (None, None))
    assert found.is_stationary
    assert found.found.value - least <= small * (1.0 + 10.0)  # ε, and ‖p‖ ‖x' − x‖
    assert len(counts) <= 100
    assert found.combination.size <= small
    assert found.combination.error <= small


@pytest.mark.parametrize("seed", range(4))
def test_the_end_is_judged_apart_from_the_length_of_steps(seed):
    """Where rounding of F refuses all trials, steps and their t are next to nothing."""
    rng = np.random.default_rng(seed)
    planes = rng.standard_normal((8, 3))
    planes -= planes.mean(axis=0)
    evaluate, _ = greatest(planes, 3.0 + rng.random(8), 0.3)

    def rounded(x):
        found = evaluate(x)
        return Found(found.solution, float(np.round(found.value, 5)), found.gradient)

    small = 1e-4
    start = rounded(rng.standard_normal(3))
    found = descend([start], 1.0, rounded, lambda _: small, lambda x: x, (None, None))
    assert found.combination.sides > 1
    assert found.combination.size <= small


def test_bounds_hold_what_they_can():
    """max(−x₀, x₀) + x₁ over x₁ >= 1: the normal of the bound takes the slope of x₁."""
    planes, offsets = np.array([[1.0, 1.0], [-1.0, 1.0]]), np.ones(2)
    evaluate, _ = greatest(planes, offsets)
    lower = np.array([-9.0, 1.0])
    start = evaluate(np.array([0.7, 1.5]))
    found = descend(
        [start],
        0.3,
        evaluate,
        lambda _: 1e-6,
        lambda x: np.maximum(x, lower),
        (lower, None),
    )
    assert found.is_stationary
    np.testing.assert_allclose(found.found.solution.x, [0.0, 1.0], atol=1e-6)


def test_a_smooth_valley_is_left_by_its_gradient():
    def evaluate(x):
        return Found(Place(x), 1.0 + float(x @ x), 2.0 * x)

    found = descend(
        [evaluate(np.ones(3))], 0.1, evaluate, lambda _: 1e-6, lambda x: x, (None, None)
    )
    assert found.is_stationary
    assert found.found.value <= 1.0 + 1e-6


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("bounded", [False, True])
def test_the_least_combination(seed, bounded):
    """Beside SciPy's SLSQP."""
    rng = np.random.default_rng(seed)
    size = 10.0 ** rng.uniform(-6, 6)
    g, errors = rng.standard_normal((4, 3)), rng.random(3)
    lower = np.array([0.0, 0.0, -1.0, -1.0]) if bounded else None
    normals = bound_normals(np.zeros(4), lower, None)
    assert normals.shape == (4, 2 if bounded else 0)
    weights, vector = least_combination(size * g, size**2 * errors, normals)
    held = np.arange(4) < normals.shape[1]

    def dual(w):
        p = g @ w
        p = np.where(held, np.minimum(p, 0.0), p)
        return 0.5 * float(p @ p) + float(errors @ w)

    best = optimize.minimize(
        dual,
        np.full(3, 1 / 3),
        bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1.0},
        method="SLSQP",
        options={"ftol": 1e-15},
    )
    assert weights.sum() == pytest.approx(1.0)
    assert (weights >= 0.0).all()
    found = 0.5 * np.sum((vector / size) ** 2) + errors @ weights
    assert found == pytest.approx(best.fun, rel=1e-5)


def evaluated(f, slope, counts=None):
    """Return a function that evaluates f, and counts."""

    def evaluate(x):
        if counts is not None:
            counts.append(x)
        return Found(Place(x), f(x[0]), np.array([slope(x[0])]))

    return evaluate


def narrowed(f, slope, small=1e-6, start=-1.0, end=1.0):
    counts = []
    evaluate = evaluated(f, slope, counts)
    first = evaluated(f, slope)(np.array([start]))
    return bracket_kink(first, np.array([end]), evaluate, lambda _: small), counts


@pytest.mark.parametrize("bend", [0.0, 1.0, -0.05])
def test_a_kink_is_bracketed_to_what_f_can_fall_by(bend):
    """Convex and, with a negative bend, concave on both sides."""
    kink = 0.237

    def f(x):
        t = x - kink
        return 1.0 + (-0.3 * t if t < 0 else 0.8 * t) + bend * t * t

    def slope(x):
        t = x - kink
        return (-0.3 if t < 0 else 0.8) + 2.0 * bend * t

    bracket, counts = narrowed(f, slope)
    assert bracket.is_kink
    assert bracket.lower.value - 1.0 <= 1e-6 + 1e-9
    assert len(counts) <= 18
    assert "slopes -0.3 and +0.8 along" in bracket.describe()


@pytest.mark.parametrize("power", [2, 4])
def test_slopes_that_shrink_with_the_bracket_are_no_kink(power):
    def f(x):
        return 1.0 + abs(x - 0.2) ** power

    def slope(x):
        return power * np.sign(x - 0.2) * abs(x - 0.2) ** (power - 1)

    bracket, _ = narrowed(f, slope, small=1e-9)
    assert not bracket.is_kink


def test_slopes_of_one_sign_give_no_bracket():
    assert narrowed(lambda x: x**2, lambda x: -1.0)[0] is None
