"""Every loss with every norm, against differences of a solver of SciPy's, proven optimal.

The reference is ``scipy.optimize.root`` on the support, with formulas of this file, to 1e-12;
that the support is right is shown by the forces off it.  Then its differences are those of
the minimiser, whoever found the support.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import optimize
from scipy.special import expit, softmax

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm

DELTA = 1.35  # of Huber's loss
SLOPES = {
    "squared": lambda z, t: (z - t, np.ones_like(z)),
    "logistic": lambda z, t: (expit(z) - t, expit(z) * expit(-z)),
    "poisson": lambda z, t: (np.exp(z) - t, np.exp(z)),
    "gamma": lambda z, t: (1.0 - t * np.exp(-z), t * np.exp(-z)),
    "tweedie": lambda z, t: (
        np.exp(z / 2) - t * np.exp(-z / 2),
        (np.exp(z / 2) + t * np.exp(-z / 2)) / 2,
    ),
    "quantile": lambda z, t: (
        expit((z - t) / 0.1) - 0.5,
        expit((z - t) / 0.1) * expit((t - z) / 0.1) / 0.1,
    ),
    "huber": lambda z, t: (
        np.clip(z - t, -DELTA, DELTA),
        (np.abs(z - t) <= DELTA) * 1.0,
    ),
    "squared-hinge": lambda z, t: (
        -2.0 * t * np.maximum(1.0 - t * z, 0.0),
        2.0 * (t * z < 1.0),
    ),
}
SHAPES = {"tall": (80, 6), "wide": (24, 60), "correlated": (40, 12)}


def draw(kind, loss, seed):
    """Return features and targets."""
    N, p = SHAPES[kind]
    rng = np.random.default_rng(seed)
    F = rng.standard_normal((N, p))
    if kind == "correlated":
        F += 3.0 * rng.standard_normal((N, 1))
    z = F[:, :3] @ np.array([1.0, -0.8, 0.6]) + 0.5 * rng.standard_normal(N)
    if loss == "multinomial":
        return F, np.digitize(z, np.quantile(z, [1 / 3, 2 / 3]))
    targets = {
        "logistic": (z > 0) * 1.0,
        "squared-hinge": np.where(z > 0, 1.0, -1.0),
        "gamma": np.exp(0.5 * z),
        "tweedie": np.exp(0.5 * z) * (z > -1.0),
        "poisson": rng.poisson(np.exp(np.clip(0.3 * z, -2.0, 2.0))) * 1.0,
    }
    return F, targets.get(loss, z)


class Reference:
    """∇f and ∇²f of the mean loss, and the solution of a norm by SciPy."""

    def __init__(self, F, t, loss, norm, groups):
        self.F, self.t, self.loss, self.norm = F, t, loss, norm
        self.K = 3 if loss == "multinomial" else 1
        self.n = F.shape[1] * self.K
        self.groups = groups

    def derivatives(self, y):
        """Return the gradient and the Hessian of the mean loss."""
        F, N = self.F, len(self.t)
        if self.K == 1:
            slope, curvature = SLOPES[self.loss](F @ y, self.t)
            return F.T @ slope / N, (F.T * curvature) @ F / N
        P = softmax(F @ y.reshape(-1, 3), axis=1)
        gradient = F.T @ (P - np.eye(3)[self.t]) / N
        bends = np.einsum("ik,kl->ikl", P, np.eye(3)) - P[:, :, None] * P[:, None, :]
        H = np.einsum("ia,ib,ikl->akbl", F, F, bends) / N
        return gradient.reshape(-1), H.reshape(self.n, self.n)

    def penalty(self, y, x, there):
        """Return the gradient and the Hessian of the penalty on the support."""
        w = np.exp(x)
        if self.norm == "l1":
            return w[0] * np.sign(y), np.zeros((self.n, self.n))
        if self.norm == "elastic-net":
            return w[0] * np.sign(y) + w[1] * y, w[1] * np.eye(self.n)
        slope, bend = np.zeros(self.n), np.zeros((self.n, self.n))
        for g in range(self.groups.max() + 1):
            (own,) = np.nonzero(self.groups == g)
            if there[own].all():
                size = np.linalg.norm(y[own])
                u, weight = y[own] / size, w[0] * np.sqrt(len(own))
                slope[own] = weight * u
                bend[np.ix_(own, own)] = weight * (np.eye(len(own)) - np.outer(u, u))
                bend[np.ix_(own, own)] /= size
        return slope, bend

    def solve(self, x, start):
        """Return the solution with the support of a start, proven; None where it is not."""
        (S,) = np.nonzero(start)
        there = start != 0.0

        def whole(u):
            y = np.zeros(self.n)
            y[S] = u
            return y

        def equations(u):
            y = whole(u)
            (g, H), (s, B) = self.derivatives(y), self.penalty(y, x, there)
            return (g + s)[S], (H + B)[np.ix_(S, S)]

        found = optimize.root(equations, start[S], jac=True, tol=1e-14)
        y = whole(found.x)
        for _ in range(3):  # the last digits
            value, jacobian = equations(y[S])
            y = whole(y[S] - np.linalg.solve(jacobian, value))
        if np.abs(equations(y[S])[0]).max() > 1e-12 or (y[S] * start[S] <= 0.0).any():
            return None
        off, w = np.abs(self.derivatives(y)[0]), np.exp(x[0])
        if self.norm == "group-l1":
            for g in range(self.groups.max() + 1):
                own = self.groups == g
                if not there[own].any():
                    assert np.linalg.norm(off[own]) <= w * np.sqrt(own.sum()) + 1e-10
        else:
            assert off[~there].max(initial=0.0) <= w + 1e-10
        return y


@settings(max_examples=3, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    share=st.floats(0.15, 0.6),
    kind=st.sampled_from(list(SHAPES)),
)
@pytest.mark.parametrize("norm", ["l1", "elastic-net", "group-l1"])
@pytest.mark.parametrize("loss", [*SLOPES, "multinomial"])
def test_solution_and_derivative(loss, norm, seed, share, kind):
    F, t = draw(kind, loss, seed)
    K = 3 if loss == "multinomial" else 1
    pairs = np.arange(F.shape[1]) // 2 if K == 1 else np.arange(F.shape[1])
    options = {"groups": pairs} if norm == "group-l1" else {}
    glm = Glm(F, t, loss=loss, norm=norm, penalty="scalar", intercept=False, **options)
    reference = Reference(F, t, loss, norm, np.repeat(pairs, K))
    top = np.abs(reference.derivatives(np.zeros(glm.n))[0]).max()
    x = np.log([share * top, 0.3 * share * top][: glm.m])
    problem = sad.Problem(glm)
    solution = sad.solve(problem, x, tol=1e-11)
    assume((solution.y != 0.0).any())
    wanted = reference.solve(x, solution.y)
    assert wanted is not None
    size = np.abs(wanted).max()
    assert np.abs(solution.y - wanted).max() <= 1e-8 * size
    rng = np.random.default_rng(seed)
    u, v = rng.standard_normal(glm.m), rng.standard_normal(glm.n)

    ends = [reference.solve(x + h * u, solution.y) for h in (-2e-4, -1e-4, 1e-4, 2e-4)]
    assume(all(end is not None for end in ends))  # no sign changes in between
    a, b, c, d = (v @ end for end in ends)
    expected = (4.0 * (c - b) / 2e-4 - (d - a) / 4e-4) / 3.0
    if loss in {"huber", "squared-hinge"}:  # no sample changes its piece in between
        margin = np.abs(np.abs(F @ wanted - t) - DELTA)
        if loss == "squared-hinge":
            margin = np.abs(1.0 - t * (F @ wanted))
        assume(margin.min() > 2e-3 * (1.0 + np.abs(F @ wanted).max()))
    scale = max(abs(expected), size)
    assert abs(sad.jvp(problem, solution, u).y @ v - expected) <= 1e-6 * scale
    assert abs(sad.vjp(problem, solution, v).x @ u - expected) <= 1e-6 * scale


@pytest.mark.parametrize("norm", ["l1", "elastic-net", "group-l1"])
@pytest.mark.parametrize("loss", [*SLOPES, "multinomial"])
def test_duplicates_are_refused_or_told(loss, norm):
    """Copies are split evenly by a ridge; otherwise single coefficients have no derivative."""
    F, t = draw("tall", loss, 7)
    F = np.c_[F, F[:, 0]]
    K = 3 if loss == "multinomial" else 1
    glm = Glm(F, t, loss=loss, norm=norm, penalty="scalar", intercept=False)
    problem, x = sad.Problem(glm), np.full(glm.m, -3.0)
    solution = sad.solve(problem, x, on_failure="ignore")
    first, copy = solution.y[:K], solution.y[-K:]
    assert np.abs(first + copy).max() > 0.0
    if norm == "elastic-net":
        assert first == pytest.approx(copy, rel=1e-6)
        assert np.isfinite(sad.vjp(problem, solution, np.ones(glm.n)).x).all()
        return
    v = np.zeros(glm.n)
    v[np.nonzero(solution.y[:K])[0]] = 1.0
    v[-K:] = -1.0 * (copy != 0.0)
    if solution.support != "not settled":
        with pytest.raises(sad.ConvergenceError, match="SINGULAR"):
            sad.vjp(problem, solution, v)
