"""``influence``: differences in the weights, refits without a sample, dense algebra."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import Ridge

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm

LOSSES = ["logistic", "squared", "poisson", "huber", "multinomial"]
each_loss = pytest.mark.parametrize("loss", LOSSES)


class Task:
    """A model of N samples with p features, a held-out loss, and F of its weights."""

    def __init__(self, loss, N=60, p=5, intercept=True, weighted=True, seed=0, **glm):
        rng = np.random.default_rng(seed)
        self.loss, self.intercept, self.options = loss, intercept, glm
        self.features = rng.standard_normal((N, p))
        self.targets = self.draw(rng, self.features, True)
        self.held = rng.standard_normal((40, p))
        self.held_targets = self.draw(np.random.default_rng(seed + 1), self.held, False)
        self.weights = rng.uniform(0.5, 3.0, N) if weighted else None
        self.x = rng.uniform(-3.0, -1.0, self.glm(self.weights).m)

    def draw(self, rng, features, train):
        p = features.shape[1]
        c = np.random.default_rng(5).standard_normal((p, 3)) / np.sqrt(p)
        z = features @ c + 0.5 * rng.standard_normal((features.shape[0], 3))
        if self.loss == "multinomial":
            return np.argmax(z, axis=1)
        z = z[:, 0]
        if self.loss == "logistic":
            return (z > 0).astype(float)
        return np.floor(np.exp(z)) if self.loss == "poisson" else z

    def glm(self, weights, rows=slice(None)):
        return Glm(
            self.features[rows],
            self.targets[rows],
            loss=self.loss,
            intercept=self.intercept,
            sample_weight=weights,
            **self.options,
        )

    def evaluate(self, weights, rows=slice(None), y0=None, tol=1e-12):
        glm = self.glm(weights, rows)
        problem, held = sad.Problem(glm), glm.held_out(self.held, self.held_targets)
        F = sad.Hypergradient(problem, held, y0=y0, tol=tol)
        return problem, F.evaluate(self.x, certify=False)

    def value_without(self, i, y0):
        rows = np.arange(self.features.shape[0]) != i
        weights = None if self.weights is None else self.weights[rows]
        return self.evaluate(weights, rows, y0)[1].value


@each_loss
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_against_differences_in_the_weights(loss, intercept, weighted):
    task = Task(loss, intercept=intercept, weighted=weighted)
    problem, found = task.evaluate(task.weights)
    ours = sad.influence(problem, found)
    assert ours.shape == (60,)
    weights, y = np.ones(60) if task.weights is None else task.weights, found.solution.y
    assert abs(weights @ ours) <= 1e-12 * (weights @ np.abs(ours))
    expected, h = np.zeros(60), 1e-4
    for i in range(60):
        step = h * np.eye(60)[i]
        up = task.evaluate(weights + step, y0=y)[1].value
        down = task.evaluate(weights - step, y0=y)[1].value
        expected[i] = (up - down) / (2 * h)
    error = np.abs(ours - expected).max() / np.abs(expected).max()
    assert error <= 1e-6, error


@pytest.mark.parametrize("loss", ["logistic", "squared", "poisson", "multinomial"])
@pytest.mark.parametrize("weighted", [True, False])
def test_against_leaving_one_out(loss, weighted):
    """First order in 1/N: a thousand samples, refitted without every twenty-fifth."""
    task = Task(loss, N=1000, weighted=weighted)
    problem, found = task.evaluate(task.weights)
    weights = np.ones(1000) if task.weights is None else task.weights
    some = np.arange(0, 1000, 25)
    foretold = -(weights * sad.influence(problem, found))[some]
    true = np.array([task.value_without(i, found.solution.y) for i in some])
    true -= found.value
    correlation = np.corrcoef(foretold, true)[0, 1]
    error = np.linalg.norm(foretold - true) / np.linalg.norm(true)
    assert correlation > 0.99, correlation
    # Counts have samples of great leverage, whose second order shows longer.
    assert error < (0.2 if loss == "poisson" else 0.05), error
    assert np.linalg.norm(true) > 1e-5, "nothing to foretell"


def test_the_error_of_leaving_one_out_falls_with_the_samples():
    """It is the second order that is left out: relative 1/N."""
    errors = []
    for N in (100, 400, 1600):
        task = Task("logistic", N=N, weighted=False)
        problem, found = task.evaluate(None)
        some = np.arange(0, N, N // 20)
        foretold = -sad.influence(problem, found)[some]
        true = np.array([task.value_without(i, found.solution.y) for i in some])
        true -= found.value
        errors.append(np.linalg.norm(foretold - true) / np.linalg.norm(true))
    assert errors[1] < 0.5 * errors[0], errors
    assert errors[2] < 0.5 * errors[1], errors


def test_against_scikit_learn():
    """Ridge refitted by another library, its weights moved one by one."""
    task = Task("squared", N=50, penalty="scalar")
    task.x = np.array([-1.5])
    problem, found = task.evaluate(task.weights)
    ours = sad.influence(problem, found)

    def value(weights):
        # Σ w_i (z_i − t_i)² + alpha c'c, where ours is ½ of it over the sum of w.
        ridge = Ridge(alpha=np.exp(task.x[0]) * weights.sum(), tol=1e-12)
        ridge.fit(task.features, task.targets, sample_weight=weights)
        return 0.5 * np.mean((ridge.predict(task.held) - task.held_targets) ** 2)

    assert found.value == pytest.approx(value(task.weights), rel=1e-9)
    steps = 1e-4 * np.eye(50)
    expected = [
        (value(task.weights + s) - value(task.weights - s)) / 2e-4 for s in steps
    ]
    np.testing.assert_allclose(ours, expected, atol=1e-6 * np.abs(expected).max())


def test_against_dense_algebra():
    task = Task("squared", weighted=True)
    problem, found = task.evaluate(task.weights)
    glm, x, y = problem.objective, found.solution.x, found.solution.y
    H = np.stack([glm.hess(x, y).matvec(e) for e in np.eye(glm.n)])
    A, V = (
        np.column_stack([M, np.ones(M.shape[0])]) for M in (task.features, task.held)
    )
    adjoint = np.linalg.solve(H, V.T @ (V @ y - task.held_targets) / 40)
    slopes = A * (A @ y - task.targets)[:, None]
    mean = task.weights @ slopes / task.weights.sum()
    expected = -(slopes - mean) @ adjoint / task.weights.sum()
    np.testing.assert_allclose(sad.influence(problem, found), expected, rtol=1e-8)


def test_costs_one_product_and_no_solve():
    task, products = Task("logistic"), []
    A = task.features
    operator = sad.LinearOperator(
        A.shape,
        lambda v: products.append("forward") or A @ v,
        lambda s: products.append("backward") or A.T @ s,
        dtype=A.dtype,
    )
    glm = Glm(operator, task.targets, sample_weight=task.weights)
    problem = sad.Problem(glm)
    held = glm.held_out(task.held, task.held_targets)
    F = sad.Hypergradient(problem, held, tol=1e-12)
    found = F.evaluate(task.x, certify=False)
    spent = F.n_hvp
    glm.value(found.solution.x, found.solution.y)  # the predictor there is remembered
    products.clear()
    ours = sad.influence(problem, found)
    assert products == ["forward"]
    assert F.n_hvp == spent
    expected = sad.influence(*task.evaluate(task.weights))
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_of_a_maximum():
    """argmax of −f is argmin of f, with the same influences."""
    task = Task("logistic")
    problem, found = task.evaluate(task.weights)
    glm = problem.objective

    class Negative:
        n = glm.n
        value = staticmethod(lambda x, y: -glm.value(x, y))
        grad = staticmethod(lambda x, y: -glm.grad(x, y))
        hess = staticmethod(lambda x, y: -glm.hess(x, y))
        cross = staticmethod(lambda x, y: -glm.cross(x, y))
        weight_slopes = staticmethod(lambda x, y, v: -glm.weight_slopes(x, y, v))

    largest = sad.Problem(Negative(), maximize=True)
    held = glm.held_out(task.held, task.held_targets)
    again = sad.Hypergradient(largest, held, tol=1e-12).evaluate(task.x, certify=False)
    np.testing.assert_allclose(
        sad.influence(largest, again), sad.influence(problem, found), rtol=1e-6
    )


def test_with_a_constraint():
    """Coefficients that sum to one, whatever the weights: the row holds on refitting."""
    task = Task("squared", intercept=False)

    def evaluate(weights):
        glm = task.glm(weights)
        rows = sad.LinearEquality(np.ones((1, glm.n)), np.ones(1))
        problem = sad.Problem(glm, equality=rows)
        held = glm.held_out(task.held, task.held_targets)
        H = np.stack([glm.hess(task.x, np.zeros(5)).matvec(e) for e in np.eye(5)])
        K = np.block([[H, np.ones((5, 1))], [np.ones((1, 5)), np.zeros((1, 1))]])
        z = np.linalg.solve(K, np.append(-glm.grad(task.x, np.zeros(5)), 1.0))
        solution = sad.Solution(y=z[:5], x=task.x, multipliers=z[5:])
        return problem, held, solution

    problem, held, solution = evaluate(task.weights)
    adjoint = sad.vjp(
        problem,
        solution,
        held.grad_y(task.x, solution.y),
        method="minres",
        rtol=1e-13,
    )
    found = sad.HypergradientResult(
        value=held.value(task.x, solution.y),
        correction=0.0,
        gradient=adjoint.x,
        solution=solution,
        adjoint=adjoint,
        certificate=None,
        tol=1e-13,
        adjoint_tol=1e-13,
    )
    ours, expected = sad.influence(problem, found), []
    for step in 1e-4 * np.eye(60):
        (_, held, up), (_, _, down) = (
            evaluate(task.weights + s) for s in (step, -step)
        )
        difference = held.value(task.x, up.y) - held.value(task.x, down.y)
        expected.append(difference / 2e-4)
    np.testing.assert_allclose(ours, expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("convert", [sparse.csr_array, sparse.csc_array])
def test_sparse_and_single_precision(convert):
    task = Task("multinomial")
    expected = sad.influence(*task.evaluate(task.weights))
    for dtype, rtol in ((np.float64, 1e-8), (np.float32, 1e-2)):
        glm = Glm(
            convert(task.features.astype(dtype)),
            task.targets,
            loss="multinomial",
            sample_weight=task.weights.astype(dtype),
        )
        problem = sad.Problem(glm)
        held = glm.held_out(task.held.astype(dtype), task.held_targets)
        tol = 1e-12 if dtype is np.float64 else 1e-5
        F = sad.Hypergradient(problem, held, tol=tol)
        ours = sad.influence(problem, F.evaluate(task.x.astype(dtype), certify=False))
        assert ours.dtype == dtype
        scale = np.abs(expected).max()
        np.testing.assert_allclose(ours, expected, atol=rtol * scale)


def test_a_weightless_sample_has_an_influence_to_be():
    """What F would do if it were given a weight: the derivative is one-sided."""
    task = Task("logistic")
    task.weights[3] = 0.0
    problem, found = task.evaluate(task.weights)
    ours = sad.influence(problem, found)[3]
    values = [
        task.evaluate(task.weights + h * np.eye(60)[3], y0=found.solution.y)[1].value
        for h in (0.0, 1e-3, 2e-3)
    ]
    ahead = (-3.0 * values[0] + 4.0 * values[1] - values[2]) / 2e-3
    assert ours == pytest.approx(ahead, rel=1e-5)


def test_scaled_weights():
    """F does not change when all weights do; per unit of weight it does."""
    task = Task("poisson")
    one = sad.influence(*task.evaluate(task.weights))
    ten = sad.influence(*task.evaluate(10.0 * task.weights))
    np.testing.assert_allclose(ten, 0.1 * one, rtol=1e-6, atol=1e-9)


def test_wrong_objective():
    task = Task("logistic")
    _, found = task.evaluate(task.weights)
    plain = sad.FunctionObjective(
        grad=lambda x, y: y, hvp=lambda x, y, v: v, cross_vjp=lambda x, y, w: w
    )
    with pytest.raises(TypeError, match="weight_slopes, as Glm does"):
        sad.influence(sad.Problem(plain), found)


def test_example():
    import importlib

    module = importlib.import_module("sparse_argdiff.hypergradient.influence")
    assert doctest.testmod(module).attempted > 0
    assert doctest.testmod(module).failed == 0
