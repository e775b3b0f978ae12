"""``sad.prior``, ``sad.Sum`` and the caveat of too many parameters."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

import sparse_argdiff as sad
from sparse_argdiff.bilevel.prior import overfitting_note
from sparse_argdiff.hypergradient.error_bound import bound
from sparse_argdiff.linear_model import Glm

X = np.array([0.5, -2.0, 3.0])
Y = np.zeros(2)


def model(rows=30, p=4, seed=0, loss="squared", intercept=False):
    rng = np.random.default_rng(seed)
    A, V = rng.standard_normal((40, p)), rng.standard_normal((rows, p))
    w = rng.standard_normal(p)
    t, s = A @ w + rng.standard_normal(40), V @ w + rng.standard_normal(rows)
    if loss == "logistic":
        t, s = (t > 0) * 1.0, (s > 0) * 1.0
    glm = Glm(A, t, loss=loss, intercept=intercept)
    return glm, glm.held_out(V, s)


@pytest.mark.parametrize("centre", [0.0, 1, np.array([1.0, 0.0, -1.0])])
@pytest.mark.parametrize("deviation", [2.0, np.array([0.5, 1.0, math.inf])])
def test_value_and_gradient(centre, deviation):
    term = sad.prior(centre, deviation, rows=20.0, noise=0.5)
    d = (X - centre) / deviation
    assert term.value(X, Y) == pytest.approx(0.5 * np.sum(d**2) / 40.0)
    step = 1e-6
    slopes = [
        (term.value(X + e, Y) - term.value(X - e, Y)) / (2 * step)
        for e in step * np.eye(3)
    ]
    assert term.grad_x(X, Y) == pytest.approx(np.array(slopes), abs=1e-8)
    assert not term.grad_y(X, Y).any()
    assert term.grad_y(X, Y).shape == (2,)
    along, none = term.hess_product(X, Y, np.ones(3), Y)
    assert along == pytest.approx(term.grad_x(X + 1.0, Y) - term.grad_x(X, Y))
    assert none is None


def test_is_the_log_density_per_row():
    """−log p(x) of N(c, s²) up to its constant, over N rows."""
    c, s, rows = -1.0, np.array([1.0, 2.0, 0.5]), 7.0
    log_density = -0.5 * ((X - c) / s) ** 2
    assert sad.prior(c, s, rows=rows).value(X, Y) == pytest.approx(
        -log_density.sum() / rows
    )


def test_float32_stays_float32():
    x = X.astype(np.float32)
    assert sad.prior(np.ones(3), 2.0).grad_x(x, Y).dtype == np.float32


@pytest.mark.parametrize(
    ("arguments", "error", "what"),
    [
        ({"centre": 0.0, "deviation": 0.0}, ValueError, "deviation must be > 0"),
        ({"centre": 0.0, "deviation": -1.0}, ValueError, "deviation must be > 0"),
        ({"centre": 0.0, "deviation": math.nan}, ValueError, "deviation must be > 0"),
        ({"centre": math.nan, "deviation": 1.0}, ValueError, "centre must be finite"),
        ({"centre": "zero", "deviation": 1.0}, TypeError, "centre must be an array"),
        ({"centre": np.ones((2, 2)), "deviation": 1.0}, ValueError, "centre must be"),
        (
            {"centre": np.ones(2), "deviation": np.ones(3)},
            ValueError,
            "centre and deviation must have the same shape",
        ),
        ({"centre": 0.0, "deviation": 1.0, "rows": 0.0}, ValueError, "rows must be"),
        ({"centre": 0.0, "deviation": 1.0, "noise": -1.0}, ValueError, "noise must be"),
        (
            {"centre": 0.0, "deviation": 1.0, "rows": math.inf},
            ValueError,
            "rows must be",
        ),
    ],
)
def test_wrong_arguments(arguments, error, what):
    with pytest.raises(error, match=what):
        sad.prior(**arguments)


def test_wrong_size_of_x():
    with pytest.raises(ValueError, match=r"centre of the prior has shape \(2,\)"):
        sad.prior(np.ones(2), 1.0).value(X, Y)


def test_the_users_arrays_are_copied():
    centre = np.zeros(3)
    term = sad.prior(centre, 1.0)
    before = term.value(X, Y)
    centre[:] = 5.0
    assert term.value(X, Y) == before


# Sum ------------------------------------------------------------------------------------


def test_sum_adds_and_flattens():
    parts = [
        sad.FunctionUpper(lambda x, y: float(y @ y), lambda x, y: 2 * y),
        sad.prior(0.0, 1.0),
        sad.FunctionUpper(
            lambda x, y: float(x.sum()), lambda x, y: 0 * y, lambda x, y: 0 * x + 1
        ),
    ]
    nested = sad.Sum(sad.Sum(*parts[:2]), parts[2])
    y = np.array([1.0, 2.0])
    assert nested.parts == tuple(parts)
    assert nested.value(X, y) == pytest.approx(5.0 + 0.5 * X @ X + X.sum())
    assert nested.grad_y(X, y) == pytest.approx(2 * y)
    assert nested.grad_x(X, y) == pytest.approx(X + 1.0)
    assert sad.Sum(parts[0]).grad_x(X, y) is None


def test_sum_refuses_what_is_no_upper_objective():
    with pytest.raises(TypeError, match="one or more"):
        sad.Sum()
    with pytest.raises(TypeError, match="part 1 of Sum must have the methods"):
        sad.Sum(sad.prior(0.0, 1.0), 3.0)


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_gradient_with_a_prior(loss):
    glm, upper = model(loss=loss)
    total = sad.Sum(upper, sad.prior(-1.0, 0.7, rows=30.0, noise=0.8))
    F = sad.Hypergradient(sad.Problem(glm), total, tol=1e-11)
    assert sad.check_hypergradient(F, np.array([-1.0, 0.3, -3.0, 1.0]), rtol=1e-6)


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("tol", [1e-1, 1e-3, 1e-6])
def test_proven_bounds_hold_and_stay(loss, tol):
    """A prior adds nothing to the error: the bound is that of the loss, but for rounding."""
    glm, upper = model(loss=loss)
    problem, x = sad.Problem(glm), np.array([-1.0, 0.3, -3.0, 1.0])
    total = sad.Sum(upper, sad.prior(-1.0, 0.7, rows=30.0))
    value, gradient = sad.Hypergradient(problem, total, tol=1e-13)(x)
    found = sad.Hypergradient(problem, total, tol=tol, M=None).evaluate(x)
    alone = sad.Hypergradient(problem, upper, tol=tol, M=None).evaluate(x)
    bound = found.certificate.bound
    assert math.isfinite(bound.gradient_error)
    assert np.linalg.norm(found.gradient - gradient) <= bound.gradient_error + 1e-13
    assert abs(found.value - value) <= bound.value_error + 1e-13
    assert np.linalg.norm(found.gradient - gradient) <= (
        found.certificate.gradient_error + 1e-13
    )
    assert bound.gradient_error == pytest.approx(
        alone.certificate.bound.gradient_error, rel=1e-6, abs=1e-11
    )


def test_nothing_is_proven_of_a_part_without_constants():
    glm, upper = model()
    problem, x = sad.Problem(glm), np.zeros(4)

    def bound_of(*parts):
        F = sad.Hypergradient(problem, sad.Sum(upper, *parts), tol=1e-8)
        return F.evaluate(x).certificate.bound.gradient_error

    bends = sad.FunctionUpper(lambda x, y: float(y @ y), lambda x, y: 2 * y)
    mixed = sad.FunctionUpper(lambda x, y: float(x @ y), lambda x, y: x, lambda x, y: y)
    mixed.lipschitz = lambda metric: 0.0
    assert math.isfinite(bound_of(sad.prior(0.0, 1.0)))
    assert math.isinf(bound_of(bends))
    assert math.isinf(bound_of(mixed))  # ∂f^U/∂x moves with y by an unknown constant
    mixed.direct_lipschitz = 1e3
    assert math.isfinite(bound_of(mixed))


def test_rounding_of_terms_that_cancel_is_in_the_bound():
    """Where prior and loss balance the gradient is small, and its rounding is theirs."""
    zero, half = np.zeros(1), np.ones(1)
    found = SimpleNamespace(
        adjoint=SimpleNamespace(
            adjoint=zero, x=half, krylov=SimpleNamespace(residual=zero)
        ),
        solution=SimpleNamespace(residual=zero),
        gradient=half - half,
        value=0.0,
    )
    known = sad.Constants(1.0, 0.0, 1.0, 0.0, 0.0, 0.0)
    assert bound(known, found, zero, 0.0).gradient_error >= 1e-14


# too many parameters --------------------------------------------------------------------


def test_minimize_warns_where_parameters_outnumber_rows():
    glm, upper = model(rows=6)
    with pytest.warns(sad.ConvergenceWarning, match="4 parameters without a prior"):
        found = sad.minimize(sad.Problem(glm), upper, np.zeros(4), maxiter=1)
    assert any("sad.prior" in note for note in found.warnings)
    cured = sad.Sum(upper, sad.prior(0.0, 1.0, rows=6.0))
    found = sad.minimize(sad.Problem(glm), cured, np.zeros(4), maxiter=1)
    assert not found.warnings


@pytest.mark.parametrize(("m", "rows", "warned"), [(3, 6, False), (4, 6, True)])
def test_the_limit_is_half_the_rows(m, rows, warned):
    assert bool(overfitting_note(model(rows=rows)[1], m)) is warned


def test_rows_without_weight_and_classes_count_as_they_tell():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((30, 4))
    glm = Glm(A, np.arange(30) % 3, loss="multinomial")
    weights = np.r_[np.ones(10), np.zeros(20)]
    held_out = glm.held_out(A, np.arange(30) % 3, sample_weight=weights)
    assert held_out.n_observations == 20  # two probabilities of ten rows


def test_partial_and_idle_priors():
    _, upper = model(rows=6)
    half = sad.prior(0.0, np.array([1.0, 1.0, math.inf, math.inf]))
    assert overfitting_note(sad.Sum(upper, half), 4) == ""
    assert "8 parameters" in overfitting_note(
        sad.Sum(upper, sad.prior(0.0, 1.0, noise=0.0)), 8
    )
    unknown = sad.FunctionUpper(lambda x, y: 0.0, lambda x, y: 0 * y)
    assert overfitting_note(unknown, 1000) == ""
    assert overfitting_note(sad.Sum(upper, unknown), 1000) == ""
