"""Minima at kinks of F: what ends there, what it says, and what it does not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import sparse_argdiff as sad
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
def test_several_penalties_say_what_is_known_along_the_direction():
    """Some runs end at kinks, and are never CONVERGED there."""
    ends = []
    for seed in (0, 1, 4):
        problem, held = lasso(seed, descriptors(20, 3, seed), rows=60, columns=20)
        found = sad.minimize(problem, held, np.array([-3.0, 0.0, 0.0]), tol=TOL)
        if "kink" in found.message:
            ends.append(found)
            assert found.status is sad.Status.LINE_SEARCH_FAILED
            assert not found.success
            assert "along the last direction" in found.message
            assert "need not be a minimum" in found.message
    assert ends


# the bracket alone --------------------------------------------------------------------


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
