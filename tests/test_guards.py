"""One row per safety constant and guard: the smallest input on which it decides.

Each test names the constant; with the change that its docstring tells it fails.
"""

from __future__ import annotations

import math
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

import sparse_argdiff as sad
from sparse_argdiff.bilevel import gradient_descent, maid
from sparse_argdiff.bilevel.bundle import descend
from sparse_argdiff.bilevel.run import Run
from sparse_argdiff.hypergradient.error_estimate import _Linearized
from sparse_argdiff.linear_model import Glm
from sparse_argdiff.problem.constants import Constants
from sparse_argdiff.problem.multipliers import complete
from sparse_argdiff.problem.problem import ActiveSet

# linear_model/lipschitz_constants.py: what "proven" rests on --------------------------


def test_the_metric_of_a_model_with_an_intercept_is_halved():
    """``share``, 0.5 → 1: f_YY ≥ W is false where the intercept takes part."""
    rng, least = np.random.default_rng(0), math.inf
    for _ in range(50):
        n, p = int(rng.integers(1, 6)), int(rng.integers(1, 5))
        F = rng.standard_normal((n, p)) * 10.0 ** rng.uniform(-1, 2)
        F += rng.standard_normal(p)
        glm = Glm(F, rng.standard_normal(n), loss="squared")
        x, y = rng.uniform(-6, 2, glm.m), rng.standard_normal(glm.n)
        constants, H = glm.constants(x, y), glm.hess(x, y).todense()
        root = 1.0 / np.sqrt(constants.metric)
        least = min(least, np.linalg.eigvalsh(root[:, None] * H * root)[0])
        assert least >= constants.convexity * (1.0 - 1e-9)
    assert least <= 1.5 * constants.convexity  # the bound is nearly attained


def test_the_lipschitz_constant_of_the_hessian_is_attained():
    """``hess_lipschitz``, × 0.1: one sample, along its own row, at the largest ℓ'''."""
    rng, most = np.random.default_rng(0), 0.0
    for _ in range(50):
        F = rng.standard_normal((1, 4))
        glm = Glm(F, np.array([1.0]), loss="logistic", intercept=False)
        x = rng.uniform(-3, 1, glm.m)
        W = np.exp(x)
        v = F[0] / W
        y = v * (1.317 / (F[0] @ v))
        there = y * (1 + 1e-4)
        change = (glm.hess(x, y).todense() - glm.hess(x, there).todense()) @ v
        sizes = [math.sqrt(u @ (W * u)) for u in (y - there, v)]
        bound = glm.constants(x, y).hess_lipschitz * sizes[0] * sizes[1]
        most = max(most, math.sqrt(change @ (change / W)) / bound)
    assert 0.5 <= most <= 1.0 + 1e-6


# solvers/batched: what a member of a stack is called -----------------------------------


def flat_program(seed):
    """f falls for ever along a direction in which P has the curvature of its rounding."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal(3)
    row = rng.standard_normal((1, 3))
    problem = sad.QuadraticProgram(np.outer(a, a), np.zeros(3), row, np.ones(1))
    return problem, rng.standard_normal((1, 3))


def test_a_flat_direction_is_no_minimum_far_away():
    """``rounding`` of the curvature, 16 → 0: 6 of 60 are then handed on, and y = 1e9."""
    for seed in range(60):
        problem, X = flat_program(seed)
        found = sad.solve_many(problem, X, on_failure="ignore")
        assert found.status[0] is sad.Status.UNBOUNDED
        assert found.method == ("batched",)


def test_a_large_solution_is_no_contradiction_and_no_ray():
    """``_FAR``, 1e6 → 1e-3: y of size 1e4 and curvatures of 1e-4 are INFEASIBLE, UNBOUNDED."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        A, G = rng.standard_normal((2, 6)), rng.standard_normal((5, 6))
        M, y = rng.standard_normal((6, 2)), 1e4 * rng.standard_normal(6)
        P = M @ M.T + 1e-4 * np.eye(6)
        problem = sad.QuadraticProgram(P, np.zeros(6), A, A @ y, G, G @ y)
        found = sad.solve_many(
            problem, rng.standard_normal((1, 6)), on_failure="ignore"
        )
        assert found.converged[0]


def test_a_small_multiplier_is_one_and_rounding_is_none():
    """``UNDECIDED``, 1e-10 → 1e-6: the bound of 1e-8 is weak; → 0: touching rows are not."""
    problem = sad.QuadraticProgram(np.eye(2), np.zeros(2), lower=0.0)
    found = sad.solve_many(problem, np.array([[-1.0, 1e-8]]))
    assert found.active.fixed[0, 1]
    assert not found.active.weak_fixed.any()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        G, y = rng.standard_normal((3, 4)), rng.standard_normal(4)
        touches = sad.QuadraticProgram(np.eye(4), -y, G=G, h=G @ y)
        assert sad.solve_many(touches, -y[None, :]).active.weak.all()


def test_a_member_that_is_not_isolated_has_no_derivative():
    """``REGULAR``, 1e-10 → 1e3: zeros for a y that may be any of a segment."""
    problem = sad.QuadraticProgram(
        np.diag([1.0, 0.0]), np.zeros(2), lower=-1.0, upper=1.0
    )
    found = sad.solve_many(problem, np.array([[0.5, 0.0]]))
    with pytest.warns(sad.ConvergenceWarning, match="SINGULAR"):
        assert np.isnan(sad.vjp_many(problem, found, np.ones((1, 2)))).all()


# implicit/one_sided.py -----------------------------------------------------------------


def test_a_row_that_cannot_move_is_no_free_one():
    """``_IMMOBILE``, 1e-9 → 0: a multiplier of 1e16, and a y, where none is left."""
    a = np.array([0.3, 0.7, 0.9])
    row = sad.LinearOperator((1, 3), lambda y: np.array([a @ y]), lambda w: a * w[0])
    f = sad.FunctionObjective(
        value=lambda x, y: 0.5 * float(y @ y) - float(y[1]),
        grad=lambda x, y: y - np.array([0.0, 1.0, 0.0]),
        hvp=lambda x, y, v: v,
        cross_jvp=lambda x, y, u: 0.0 * y,
        cross_vjp=lambda x, y, w: np.zeros(2),
        n=3,
    )
    equality = sad.LinearEquality(row, lambda x: x[:1], b_jvp=lambda x, u: u[:1])
    inequality = sad.Inequality(
        lambda x, y: np.array([-2.0 * (a @ y) - x[1]]),
        lambda x, y: -2.0 * row,
        jac_x=lambda x, y: np.array([[0.0, -1.0]]),
    )
    problem = sad.Problem(f, equality=equality, inequality=inequality)
    push = a[1] / (a @ a)
    solution = sad.Solution(
        y=np.array([0.0, 1.0, 0.0]) - push * a,
        x=np.zeros(2),
        multipliers=np.array([push, 0.0]),
    )
    for u in ([1.0, 0.0], [-1.0, 2.0], [-1.0, 3.0]):
        found = sad.jvp(problem, solution, np.array(u), one_sided=True)
        np.testing.assert_allclose(found.y, u[0] * a / (a @ a), atol=1e-9)
    with pytest.raises(sad.ConvergenceError, match="INFEASIBLE"):
        sad.jvp(problem, solution, np.array([-1.0, 0.0]), one_sided=True)


# hypergradient/error_bound.py ---------------------------------------------------------


def scalar(mu=1.0, slope=1.0):
    """f = ½ μ y² − x y and f^U = slope · y, so that F = slope x / μ and λ = slope / μ."""
    lower = sad.FunctionObjective(
        value=lambda x, y: 0.5 * mu * float(y @ y) - float(x @ y),
        grad=lambda x, y: mu * y - x,
        hvp=lambda x, y, v: mu * v,
        cross_vjp=lambda x, y, w: -w,
        n=1,
    )
    upper = sad.FunctionUpper(
        lambda x, y: slope * float(y.sum()), lambda x, y: slope + 0.0 * y
    )
    return sad.Problem(lower), upper


def test_a_proof_allows_for_rounding():
    """``_ROUNDING``, 100 → 0: residuals that are zero in floating point prove too much."""
    decided = 0
    for k in range(3, 40):
        mu = 1.0 / k + 1.0
        constants = Constants(mu, 0.0, 1.0, 0.0, upper_lipschitz=0.0)
        F = sad.Hypergradient(*scalar(mu), constants=constants, tol=1e-15)
        found = F.evaluate(np.ones(1), certify=False)
        error = abs(Fraction(float(found.gradient[0])) - 1 / Fraction(mu))
        left = abs(found.solution.residual[0]) + abs(found.adjoint.krylov.residual[0])
        assert error <= F.prove(found).gradient_error <= 1e-12
        decided += left == 0.0 and error > 0
    assert decided


@pytest.mark.parametrize("convexity", [0.0, -1.0])
def test_nothing_is_proven_without_convexity(convexity):
    """``c.convexity > 0`` dropped: a bound by a division by zero, or a negative one."""
    constants = Constants(convexity, 0.0, 1.0, 0.0, upper_lipschitz=0.0)
    F = sad.Hypergradient(*scalar(), constants=constants)
    bound = F.prove(F.evaluate(np.ones(1), certify=False))
    assert bound.value_error == bound.gradient_error == math.inf


# hypergradient/descent_stopping.py ----------------------------------------------------


def adjoint_of(K, d, b, direct, start, *, bounded=True, **options):
    """Return an evaluation with f_XY = −I, f_YY = K and ∂f^U/∂y = b, until descent."""
    K, b, direct = (np.asarray(v, dtype=float) for v in (K, b, direct))
    structure = sad.Structure(split=(sad.aslinearoperator(K - np.diag(d)), np.array(d)))
    hess = sad.LinearOperator(
        K.shape,
        lambda v: K @ v,
        symmetric=True,
        structure=structure if bounded else sad.Structure(),
    )
    zero, objective = np.zeros(len(b)), SimpleNamespace(n=len(b))
    objective.grad = lambda x, y: 0.0 * y
    objective.hess, objective.cross = lambda x, y: hess, lambda x, y: -np.eye(len(b))
    upper = sad.FunctionUpper(
        lambda x, y: 0.0, lambda x, y: b, lambda x, y: direct + 0.0 * x
    )
    F = sad.Hypergradient(sad.Problem(objective), upper, method=sad.cg, M=None)
    options = {"adjoint_tol": 0.0, "until": "descent", "certify": False} | options
    return F.evaluate(zero, adjoint0=np.array(start), **options)


def ended_at_descent(found):
    return found.adjoint.krylov.status is sad.Status.APPROXIMATE


@pytest.mark.parametrize(("start", "shown"), [(0.58, True), (0.56, False)])
def test_a_start_shows_descent(start, shown):
    """``_ETA``, ¼ → ½ or 0: the threshold 4/7 becomes 2/3 or 1/2."""
    found = adjoint_of([[1.0]], [1.0], [1.0], [0.0], [start])
    assert ended_at_descent(found) == shown
    assert (found.gradient[0] == start) == shown


def test_nothing_descends_without_a_lower_bound():
    """``d is None`` dropped: no start and no iterate proves anything by itself."""
    found = adjoint_of([[1.0]], [1.0], [1.0], [0.0], [0.99], bounded=False)
    assert not ended_at_descent(found)
    assert found.gradient[0] == pytest.approx(1.0, rel=1e-12)


def test_a_negative_bound_bounds_nothing():
    """``any(d < 0)`` dropped: K = [½ 1; 1 1 + d₂] has the Schur complement d₂ − 1."""
    K, exact = np.array([[0.5, 1.0], [1.0, 2.001]]), np.ones(2)
    start = exact - np.linalg.solve(K, [0.0, 0.01])
    found = adjoint_of(K, [-0.5, 1.001], K @ exact, [0.0, 0.0], start)
    assert start @ exact < 0.1 * start @ start
    assert not ended_at_descent(found)


def test_descent_allows_for_rounding():
    """``_ROUNDING``, 100 → 0: z = 10⁻¹⁴ of a λ that rounding alone may have moved."""
    start = 1.0 - 2.0**-53
    for direct, shown in ((1e-14, False), (1e-12, True)):
        found = adjoint_of([[1.0]], [1.0], [1.0], [direct - start], [start])
        assert ended_at_descent(found) == shown


@pytest.mark.parametrize("slope", [1.0, 30.0])
def test_a_coordinate_without_a_bound_is_eliminated(slope):
    """``whole`` always False: a residual at d = 0 passes for none, and z ascends.

    K = [1 k; k k² + 1]: the residual r at the first coordinate moves λ by (1 + k²) r.
    """
    K, exact = np.array([[1.0, slope], [slope, slope**2 + 1.0]]), np.ones(2)
    start = exact - np.linalg.solve(K, [0.1, 0.0])
    found = adjoint_of(K, [0.0, 1.0], K @ exact, [0.0, 0.0], start)
    assert found.gradient @ exact > 0.0
    if slope == 30.0:  # the start shows nothing
        assert found.gradient == pytest.approx(exact, rel=1e-6)
    else:
        assert ended_at_descent(found)
        assert found.adjoint.krylov.n_matvec == 2  # the residual, and a column of K


def test_a_start_worse_than_zero_is_dropped():
    """``norm(left) <= norm(rhs)`` dropped: an adjoint of size 10⁹ is refined in vain."""
    F = sad.Hypergradient(*scalar(), method="cg")
    found = F.evaluate(
        np.ones(1), adjoint0=np.array([1e18]), until="descent", certify=False
    )
    assert found.gradient[0] == pytest.approx(1.0, rel=1e-12)


# hypergradient/hypergradient.py -------------------------------------------------------


def logistic(seed=0):
    rng = np.random.default_rng(seed)
    F, V = rng.standard_normal((80, 30)), rng.standard_normal((40, 30))
    glm = Glm(F, (rng.random(80) < 0.5) * 1.0)
    return glm, glm.held_out(V, (rng.random(40) < 0.5) * 1.0), np.full(glm.m, -4.0)


def test_a_loose_solution_is_not_reused_for_a_tight_gradient():
    """``cached[1] == tol`` dropped in ``_solution``."""
    glm, held, x = logistic()
    F = sad.Hypergradient(sad.Problem(glm), held)
    F.value(x, tol=1e-1)
    found = F.evaluate(x, tol=1e-10, certify=False)
    assert np.linalg.norm(glm.grad(x, found.solution.y)) <= 1e-10 * glm.scale(x)


def test_a_solution_is_not_reused_at_another_x():
    """``all(x == there)`` dropped in ``_solution``."""
    glm, held, x = logistic()
    F = sad.Hypergradient(sad.Problem(glm), held)
    F.value(x)
    found = F.evaluate(x + 1e-3, certify=False)
    np.testing.assert_array_equal(found.solution.x, x + 1e-3)


# hypergradient/error_estimate.py ------------------------------------------------------


def stale(step):
    """Return the certificate of λ = 1 + step where λ* = 1, the solves of 0.1 exact."""
    F = sad.Hypergradient(*scalar(), method="cg")
    found = F.evaluate(np.ones(1), adjoint0=np.array([1.0 + step]), adjoint_tol=0.99)
    assert found.gradient[0] == pytest.approx(1.0 + step)
    return found.certificate


def test_the_estimate_is_three_times_the_change():
    """``_SAFETY``, 3 → 1: the estimate is the change itself, with nothing to spare."""
    assert stale(0.1).gradient_error == pytest.approx(0.3, rel=1e-9)
    assert stale(0.1).descent == "estimated"


def test_a_large_change_needs_a_second_step():
    """``_WEAK``, 0.3 → ∞: a gradient that changes by half is taken for measured."""
    assert stale(-0.5).n_hvp > stale(-0.1).n_hvp
    assert stale(-0.5).gradient_error == pytest.approx(4.0 / 3.0 * 1.5, rel=1e-9)


def test_descent_is_not_claimed_where_the_error_reaches_the_gradient():
    """``error < size`` dropped."""
    assert stale(-0.5).descent == "not shown"


@pytest.mark.parametrize(("bounded", "hides"), [(True, 1e-3), (False, 0.05)])
def test_a_residual_may_hide_most_of_an_error(bounded, hides):
    """``_ENERGY``, 0.15 → ∞, or ``_BLIND``, 0.01 → 0.1: the last of λ is not seen.

    It is hides / 10⁻⁷, of a right-hand side whose residual is reduced to a tenth, twice.
    """
    w = np.r_[np.geomspace(0.1, 1.0, 20), 1e-7]
    b = np.r_[np.full(20, 20**-0.5), hides]
    found = adjoint_of(
        np.diag(w),
        np.full(21, 1e-7),
        b,
        np.zeros(21),
        np.r_[0.9 * b[:20] / w[:20], 0.0],
        bounded=bounded,
        adjoint_tol=0.5,
        until="tolerance",
        certify=True,
    )
    error = np.linalg.norm(found.gradient - b / w)
    assert error >= 0.9 * hides / 1e-7
    assert found.certificate.gradient_error >= error


def test_an_estimate_has_the_size_of_rounding_at_least():
    """``_UNITS``, 4 → 0: residuals of zero, which thirds leave, make an error of zero."""
    certificate = stale(0.0).gradient_error
    assert 1e-16 <= certificate <= 1e-13


def test_rounding_that_its_signs_hide_is_told():
    """``hidden`` left at 1: (1, −0.9) nearly vanishes along the eigenvector (1, 1)."""
    K = np.array([[1.0 + 1e-8, -1.0], [-1.0, 1.0 + 1e-8]])
    lower = sad.FunctionObjective(
        grad=lambda x, y: K @ y,
        hvp=lambda x, y, v: K @ v,
        cross_vjp=lambda x, y, w: 0.0 * x,
        n=2,
    )
    there = sad.Solution(y=np.zeros(2), x=np.zeros(1))
    solve = _Linearized(sad.Problem(lower), there, {"method": sad.cg, "M": None})
    solve.solve_rounded(np.zeros(2), 1e-10 * np.array([1.0, -0.9]))
    assert solve.hidden == pytest.approx(np.hypot(1.0, 0.9) / 0.1, rel=1e-3)


def bounded(x, y, **bounds):
    """Return the certificate at a given y of ½ y'Ky − x'y with K = [2 1; 1 2] in bounds."""
    K = np.array([[2.0, 1.0], [1.0, 2.0]])
    lower = sad.FunctionObjective(
        value=lambda x, y: 0.5 * float(y @ K @ y) - float(x @ y),
        grad=lambda x, y: K @ y - x,
        hvp=lambda x, y, v: K @ v,
        cross_vjp=lambda x, y, w: -w,
        n=2,
    )
    upper = sad.FunctionUpper(lambda x, y: 0.5 * float(y @ y), lambda x, y: 1.0 * y)
    F = sad.Hypergradient(
        sad.Problem(lower, **bounds),
        upper,
        solver=lambda problem, x, y0, tol: complete(problem, sad.Solution(y=y, x=x)),
        on_failure="ignore",
    )
    return F.evaluate(np.array(x)).certificate


@pytest.mark.parametrize(("gap", "finite"), [(4.0, True), (2.0, False)])
def test_a_slack_within_the_error_of_y_is_no_slack(gap, finite):
    """``_SAFETY`` of ``_active_set_may_change``, 3 → 1: the solution 1e-3 away, a bound 2e-3."""
    y = np.array([1.0, 1.0])
    certificate = bounded([3.003, 3.0], y, upper=1.0 + 2e-3 * gap)
    moved = np.linalg.solve([[2.0, 1.0], [1.0, 2.0]], [3e-3, 0.0])  # 2e-3, −1e-3
    assert moved == pytest.approx([2e-3, -1e-3])
    assert math.isfinite(certificate.gradient_error) == finite


@pytest.mark.parametrize(("force", "finite"), [(5e-3, True), (2e-3, False)])
def test_a_force_within_the_error_of_y_is_no_force(force, finite):
    """Forces left out of ``_margins``: y₁ is held by a force that y₂ may turn round.

    y₂ is wrong by 1e-3, and so is the force on y₁.
    """
    y = np.array([0.0, 1.0])
    certificate = bounded([1.0 - force, 2.002], y, lower=0.0)
    assert math.isfinite(certificate.gradient_error) == finite
    assert (certificate.descent == "not shown") == (not finite)


def test_nothing_is_estimated_at_a_kink():
    """The comparison of margins with ``>=``: slack and force zero, and nothing moves."""
    certificate = bounded([0.0, 0.0], np.zeros(2), lower=0.0)
    assert certificate.gradient_error == math.inf


# hypergradient/hypergradient.py: what an interior end leaves ----------------------------


def test_an_interior_end_is_put_on_its_sides():
    """``onto_active_set`` dropped: a gap at a held variable is in no residual, nor in F."""
    lower = sad.FunctionObjective(
        value=lambda x, y: 0.5 * float(y @ y) - float(x @ y),
        grad=lambda x, y: y - x,
        hvp=lambda x, y, v: 1.0 * v,
        cross_vjp=lambda x, y, w: -w,
        n=2,
    )
    upper = sad.FunctionUpper(lambda x, y: float(y.sum()), lambda x, y: 1.0 + 0.0 * y)
    held = ActiveSet(
        *(np.array(v, dtype=bool) for v in ([], [], [True, False], [False, False]))
    )
    F = sad.Hypergradient(
        sad.Problem(lower, lower=0.0),
        upper,
        solver=lambda problem, x, y0, tol: sad.Solution(
            y=np.array([1e-9, 1.0]), x=x, multipliers=np.zeros(0), active=held
        ),
    )
    found = F.evaluate(np.array([-1.0, 1.0]), certify=False)
    assert found.value == 1.0
    assert found.solution.y[0] == 0.0


def test_a_row_that_is_idle_has_no_force():
    """``forces`` as they are: y is off by the force, and the residual is zero."""
    lower = sad.FunctionObjective(
        value=lambda x, y: 0.5 * float(y @ y) - float(x @ y),
        grad=lambda x, y: y - x,
        hvp=lambda x, y, v: 1.0 * v,
        cross_vjp=lambda x, y, w: -w,
        n=1,
    )
    rows = sad.Inequality(lambda x, y: y - 2.0, lambda x, y: np.eye(1))
    upper = sad.FunctionUpper(lambda x, y: float(y.sum()), lambda x, y: 1.0 + 0.0 * y)
    none = np.zeros(1, dtype=bool)
    F = sad.Hypergradient(
        sad.Problem(lower, inequality=rows),
        upper,
        tol=1e-3,
        solver=lambda problem, x, y0, tol: sad.Solution(
            y=x - 1e-6,
            x=x,
            multipliers=np.full(1, 1e-6),
            active=ActiveSet(none, none, none, none),
        ),
    )
    found = F.evaluate(np.ones(1), certify=False)
    assert found.value == pytest.approx(1.0, abs=1e-12)


# bilevel/gradient_descent.py and maid.py: the line searches ----------------------------


def evaluated(x, value, tol, gradient=1.0):
    return SimpleNamespace(
        value=value,
        correction=0.0,
        gradient=np.array([gradient]),
        tol=tol,
        adjoint_tol=tol,
        adjoint_error=0.0,
        adjoint=SimpleNamespace(x=np.zeros(1)),
        solution=SimpleNamespace(x=x, y=np.array([value]), relative_error=0.0),
    )


def test_a_step_must_fall_by_a_share_of_the_slope():
    """``_DECREASE``, 1e-4 → 0: a fall that the slope does not explain is accepted."""

    def searched(value):
        """Search along F = 1 − ..., x = 1 → 0, where the first trial has ``value``."""

        class F:
            def corrected_value(self, x):
                return (value if x[0] == 0.0 else 5.0), 0.0

            def evaluate(self, x, certify):
                return evaluated(x, value, 1e-8)

        run = Run(F(), None, None, 1e-4, None)
        return gradient_descent.line_search(run, evaluated(np.ones(1), 1.0, 1e-8), 1.0)[
            0
        ]

    assert searched(1.0 - 2e-4) is not None
    assert searched(1.0 - 5e-5) is None


def maid_searched(value, *, error=0.0, confirmed=None):
    """Search as MAID does along f^U = y, x = 1 → 0, with y that is off by ``error``."""

    class F:
        tol = adjoint_tol = 1e-8
        upper = sad.FunctionUpper(lambda x, y: float(y[0]), lambda x, y: np.ones(1))

        def solve(self, x, tol):
            y = np.array([value if x[0] == 0.0 else 5.0])
            return SimpleNamespace(x=x, y=y, relative_error=error)

        def evaluate(self, x, certify, tol=1e-8, adjoint_tol=1e-8):
            if tol == self.tol:
                return evaluated(x, confirmed, tol)
            return evaluated(x, value, tol, 1.0 if confirmed is None else 0.0)

    run = Run(F(), None, None, 1e-4, None)
    run.history.append(SimpleNamespace(value=1.0))
    start = evaluated(np.ones(1), 1.0, 0.1)
    start.solution.relative_error = error
    return maid.line_search(run, start, 1.0, 1)[0]


def test_a_step_of_maid_must_fall_beyond_the_error_of_its_values():
    """e at either end dropped: noise is taken for a fall."""
    assert maid_searched(0.90, error=0.05) is not None
    assert maid_searched(0.92, error=0.05) is None  # 0.92 + 0.046 > 1 − 0.05
    assert maid_searched(0.92) is not None
    assert maid_searched(1.0 - 5e-5) is None


def test_convergence_of_loose_solves_is_confirmed_with_its_value():
    """``trial.value <= ...`` dropped: a plateau above the start passes for a step."""
    assert maid_searched(0.5, confirmed=0.6).value == 0.6
    assert maid_searched(0.5, confirmed=1.4) is None


# solvers/infeasibility.py -------------------------------------------------------------


@pytest.mark.parametrize("tilt", [0.0, 1e-3])
def test_infeasible_is_said_with_a_proof_only(tilt):
    """``proof``, × 10⁶: rows that meet far away, at y₂ = 1 / tilt, pass for opposite."""
    A = np.array([[1.0, 0.0], [-1.0, -tilt]])
    lower = sad.FunctionObjective(
        value=lambda x, y: 0.5 * float(y @ y),
        grad=lambda x, y: 1.0 * y,
        hvp=lambda x, y, v: 1.0 * v,
        cross_vjp=lambda x, y, w: 0.0 * x,
        n=2,
    )
    rows = sad.Inequality(lambda x, y: A @ y - np.array([0.0, -1.0]), lambda x, y: A)
    problem = sad.Problem(lower, inequality=rows)
    if tilt:
        found = sad.solve(problem, np.zeros(1), method="barrier")
        np.testing.assert_allclose(found.y, [0.0, 1.0 / tilt], rtol=1e-4, atol=1e-3)
    else:
        with pytest.raises(sad.ConvergenceError) as caught:
            sad.solve(problem, np.zeros(1), method="barrier")
        assert caught.value.status is sad.Status.INFEASIBLE


# krylov: the rounding level -----------------------------------------------------------


@pytest.mark.parametrize("method", [sad.cg, sad.minres])
def test_a_large_x_excuses_no_residual(method):
    """The cap at 0.1 ‖b‖ dropped: x₀ = 10¹⁷ absorbs each step, which excuses r = b."""
    A, b = np.full((2, 2), 0.5), np.ones(2)
    found = method(A, b, np.array([1e17, -1e17]))
    assert found.residual_norm >= 0.9 * np.linalg.norm(b)
    assert not found.status.acceptable


# problem/multipliers.py ---------------------------------------------------------------


def test_multipliers_of_a_brought_solution_are_not_negative():
    """``_recover`` without its signed fit: least squares gives (2, 1, −1) / 3."""
    A = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    lower = sad.FunctionObjective(
        value=lambda x, y: 0.5 * float(y @ y) - float(x @ y),
        grad=lambda x, y: y - x,
        hvp=lambda x, y, v: 1.0 * v,
        cross_vjp=lambda x, y, w: -w,
        n=2,
    )
    rows = sad.Inequality(lambda x, y: A @ y, lambda x, y: A)
    problem = sad.Problem(lower, inequality=rows)
    brought = sad.Solution(y=np.zeros(2), x=np.array([1.0, 0.0]))
    found = complete(problem, brought)
    np.testing.assert_allclose(found.multipliers, [1.0, 0.0, 0.0], atol=1e-6)
    np.testing.assert_array_equal(found.active.strong, [True, False, False])


# solvers/equality_support.py, augmented_lagrangian.py: kinks under linear equalities -----


class SmallWeights:
    """A least-squares loss of half as many samples as coefficients."""

    convex = True

    def __init__(self, seed, n):
        rng = np.random.default_rng(seed)
        self.A = rng.standard_normal((n // 2, n))
        self.t, self.n = rng.standard_normal(n // 2), n

    def value(self, x, y):
        return 0.5 * float(((self.A @ y - self.t) ** 2).mean())

    def grad(self, x, y):
        return self.A.T @ (self.A @ y - self.t) / len(self.t)

    def hess(self, x, y):
        return self.A.T @ self.A / len(self.t)

    def cross(self, x, y):
        return np.zeros((self.n, x.shape[0]))


def with_zero_sum(seed, n):
    rows = sad.LinearEquality(np.ones((1, n)), np.zeros(1))
    problem = sad.Problem(SmallWeights(seed, n), penalty=sad.L1(), equality=rows)
    return sad.solve(problem, np.log([0.003]), on_failure="ignore")


def test_a_flat_direction_leads_to_its_first_kink():
    """``_SHIFT``, 1e-9 → 0: the support is larger than the curvature has rank."""
    assert with_zero_sum(0, 10).status is sad.Status.CONVERGED


def test_multipliers_move_before_a_minimum_is_exact():
    """``_INNER``, 20 → 200: all iterations go into the first minimum."""
    assert with_zero_sum(3, 10).status is sad.Status.CONVERGED


# bilevel/bundle.py --------------------------------------------------------------------


def test_a_bundle_that_no_step_lowers_ends():
    """``_SHORTEST``, 1e-8 → 0: 100 evaluations where the gradient is that of −F."""
    counts = []

    def evaluate(x):
        counts.append(x)
        place = SimpleNamespace(x=x)
        return SimpleNamespace(solution=place, value=float(x @ x), gradient=-2.0 * x)

    start = evaluate(np.ones(2))
    found = descend([start], 0.1, evaluate, lambda _: 1e-4, lambda x: x, (None, None))
    assert not found.is_stationary
    assert found.found is start
    assert len(counts) <= 40
