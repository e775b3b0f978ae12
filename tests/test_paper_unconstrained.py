"""The paper's sections 2 and 3 but the soft-max: capabilities C1 to C9 and C11.

Gould et al., "On Differentiating Parameterized Argmin and Argmax Problems with
Application to Bi-level Optimization", 2016.  ``docs/paper.md`` has the table.
"""

from __future__ import annotations

import numpy as np
import paper_reference as ref
import pytest
from _scalar import FOLD, Mean, Quartic, slope, stationary_points
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

import sparse_argdiff as sad
from sparse_argdiff import Problem, Solution, Status


class Coupled:
    """f = ½ y'Qy + ¼ Σ w(x) y⁴ − y'(Bx) with w = e^{x_0}; x enters twice."""

    def __init__(self, n, m, seed, indefinite=False):
        rng = np.random.default_rng(seed)
        root = rng.standard_normal((n, n))
        self.Q = root @ root.T / n + 0.2 * np.eye(n)
        if indefinite:  # curvatures -2 to -0.5 and 0.5 to 1.5
            spread = np.linspace(-2.0, 1.5, n)
            spread = np.where(np.abs(spread) < 0.5, np.copysign(0.5, spread), spread)
            basis = np.linalg.qr(root)[0]
            self.Q = (basis * spread) @ basis.T
        self.B, self.n = rng.standard_normal((n, m)), n
        self.n_hess = 0

    def value(self, x, y):
        return float(
            0.5 * y @ self.Q @ y + 0.25 * np.exp(x[0]) * np.sum(y**4) - y @ (self.B @ x)
        )

    def grad(self, x, y):
        return self.Q @ y + np.exp(x[0]) * y**3 - self.B @ x

    def hess(self, x, y):
        self.n_hess += 1
        return self.Q + np.diag(3.0 * np.exp(x[0]) * y**2)

    def cross(self, x, y):
        cross = -self.B.copy()
        cross[:, 0] += np.exp(x[0]) * y**3
        return cross

    def solution(self, x, y=None):
        """Return y by the dense reference."""
        start = np.zeros(self.n) if y is None else y
        return ref.newton(lambda y: self.grad(x, y), lambda y: self.hess(x, y), start)

    def jacobian(self, x, y):
        return ref.lemma_3_2(self.hess(x, y), self.cross(x, y))


class Scalar:
    """f(x, y) of two numbers from f and its derivatives."""

    n = 1

    def __init__(self, f, f_y, f_xy, f_yy, scale=None):
        self.f, self.f_y, self.f_xy, self.f_yy = f, f_y, f_xy, f_yy
        if scale is not None:
            self.scale = lambda x: scale

    def value(self, x, y):
        return float(self.f(x[0], y[0]))

    def grad(self, x, y):
        return np.array([self.f_y(x[0], y[0])])

    def hess(self, x, y):
        return np.array([[self.f_yy(x[0], y[0])]])

    def cross(self, x, y):
        return np.array([[self.f_xy(x[0], y[0])]])


def slope_of(problem, solution, **options):
    return sad.derivative(problem, solution, rtol=1e-13, **options).todense()[0, 0]


# sections 1 and 2: the bi-level problem and its three approaches -----------------------


def test_hypergradient_is_direct_plus_implicit():
    """(1) and (4), C1: 1e-9 against dense algebra, 1e-6 against differences."""
    lower, rng = Coupled(12, 4, 0), np.random.default_rng(1)
    target, W = rng.standard_normal(12), rng.standard_normal((12, 4))
    upper = sad.FunctionUpper(
        lambda x, y: 0.5 * float(np.sum((y - target) ** 2)) + float(y @ W @ x + x @ x),
        lambda x, y: y - target + W @ x,
        lambda x, y: W.T @ y + 2.0 * x,
    )
    x = rng.standard_normal(4)
    F = sad.Hypergradient(Problem(lower), upper, tol=1e-13)
    value, gradient = F(x)
    y = lower.solution(x)
    direct = upper.grad_x(x, y)
    implicit = lower.jacobian(x, y).T @ upper.grad_y(x, y)
    assert abs(value - upper.value(x, y)) <= 1e-9 * abs(value)
    assert ref.worst(gradient, direct + implicit) <= 1e-9
    assert np.linalg.norm(direct) > 0.1 < np.linalg.norm(implicit)  # neither is idle
    slopes = ref.differences(lambda x: upper.value(x, lower.solution(x)), x)[0]
    assert ref.worst(gradient, slopes) <= 1e-6
    assert sad.check_hypergradient(F, x)


def test_three_ways_of_section_2_agree():
    """(2), (3) and (4), C2: the same minimiser to 1e-8 on a problem with a closed form."""
    rng, n, m = np.random.default_rng(2), 6, 3
    root = rng.standard_normal((n, n))
    Q, B = root @ root.T + np.eye(n), rng.standard_normal((n, m))
    target, weight = rng.standard_normal(n), 0.3
    objective = sad.FunctionObjective(
        value=lambda x, y: float(0.5 * y @ Q @ y - y @ B @ x),
        grad=lambda x, y: Q @ y - B @ x,
        hvp=lambda x, y, v: Q @ v,
        cross_jvp=lambda x, y, u: -B @ u,
        cross_vjp=lambda x, y, w: -B.T @ w,
        n=n,
    )
    upper = sad.FunctionUpper(
        lambda x, y: float(0.5 * np.sum((y - target) ** 2) + 0.5 * weight * x @ x),
        lambda x, y: y - target,
        lambda x, y: weight * x,
    )
    # Way 1, (2): y*(x) = Q^-1 B x is put in, a linear least-squares problem is left.
    G = np.linalg.solve(Q, B)
    way_1 = np.linalg.solve(G.T @ G + weight * np.eye(m), G.T @ target)
    # Way 2, (3): the optimality conditions are constraints on (x, y) together.
    joint = sad.FunctionObjective(
        value=lambda _, z: upper.value(z[:m], z[m:]),
        grad=lambda _, z: np.r_[weight * z[:m], z[m:] - target],
        hvp=lambda _, z, v: np.r_[weight * v[:m], v[m:]],
        n=m + n,
    )
    conditions = sad.LinearEquality(np.hstack([-B, Q]), np.zeros(n))
    both = sad.solve(Problem(joint, equality=conditions), np.zeros(1), tol=1e-12)
    # Way 3, (4): descent along the gradient through the argmin.
    way_3 = sad.minimize(
        Problem(objective),
        upper,
        np.zeros(m),
        method="lbfgs",
        tol=1e-11,
        lower_tol=1e-13,
        adjoint_tol=1e-13,
    )
    assert ref.worst(both.y[:m], way_1) <= 1e-8
    assert ref.worst(both.y[m:], G @ way_1) <= 1e-8
    assert ref.worst(way_3.x, way_1) <= 1e-8


def test_lower_level_convex_and_upper_level_not():
    """After (3): f^L = (y − x³)²/2 is convex in y, and f^U(x, y*(x)) is not convex."""
    cubic = Scalar(
        lambda x, y: 0.5 * (y - x**3) ** 2,
        lambda x, y: y - x**3,
        lambda x, y: -3.0 * x**2,
        lambda x, y: 1.0,
    )
    upper = sad.FunctionUpper(
        lambda x, y: float(0.5 * (y[0] - 1.0) ** 2), lambda x, y: y - 1.0
    )
    F = sad.Hypergradient(Problem(cubic), upper, tol=1e-13)
    for x in (-1.2, -0.3, 0.4, 1.5):
        value, gradient = F(np.array([x]))
        assert value == pytest.approx(0.5 * (x**3 - 1.0) ** 2, rel=1e-12)
        assert gradient[0] == pytest.approx(3.0 * x**2 * (x**3 - 1.0), rel=1e-10)
    ends, middle = (
        F.value(np.zeros(1)) + F.value(np.array([0.5])),
        F.value(np.array([0.25])),
    )
    assert middle > 0.5 * ends + 0.01  # above the chord


# Lemma 3.1 ------------------------------------------------------------------------------


def test_lemma_3_1():
    """C3: − f_XY / f_YY to 1e-10 for cosh(y) − x y, where g = asinh."""
    problem = Problem(
        Scalar(
            lambda x, y: np.cosh(y) - x * y,
            lambda x, y: np.sinh(y) - x,
            lambda x, y: -1.0,
            lambda x, y: np.cosh(y),
            scale=1.0,
        )
    )
    for x in (-3.0, 0.0, 0.7, 20.0):
        solution = sad.solve(problem, np.array([x]), tol=1e-14)
        assert solution.y[0] == pytest.approx(np.arcsinh(x), abs=1e-12)
        exact = 1.0 / np.sqrt(1.0 + x * x)
        assert slope_of(problem, solution) == pytest.approx(exact, rel=1e-10)


def test_no_curvature_no_derivative():
    """C3: y⁴/4 − x y has g = cbrt(x), of infinite slope at 0: reported, not returned."""
    problem = Problem(
        Scalar(
            lambda x, y: 0.25 * y**4 - x * y,
            lambda x, y: y**3 - x,
            lambda x, y: -1.0,
            lambda x, y: 3.0 * y * y,
        )
    )
    here = Solution(y=np.zeros(1), x=np.zeros(1))
    for method in (None, "minres"):
        with pytest.raises(sad.ConvergenceError) as caught:
            slope_of(problem, here, method=method)
        assert caught.value.status in {Status.SINGULAR, Status.LEAST_SQUARES}
    solution = sad.solve(problem, np.array([1e-6]), np.ones(1), tol=1e-14)
    assert slope_of(problem, solution) == pytest.approx(1e4 / 3.0, rel=1e-8)


# Lemma 3.2 and (14) ---------------------------------------------------------------------


@settings(max_examples=25, deadline=None, database=None, derandomize=True)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 10**6))
def test_lemma_3_2_and_14(n, m, seed):
    """C4: J, J u, J'v to 1e-10 of dense algebra; the dot test to 1e-12."""
    lower, rng = Coupled(n, m, seed), np.random.default_rng(seed)
    problem, x = Problem(lower), 0.5 * rng.standard_normal(m)
    solution = sad.solve(problem, x, tol=1e-13)
    J = lower.jacobian(x, lower.solution(x))
    ours = sad.derivative(problem, solution, rtol=1e-14)
    assert ours.shape == (n, m)
    assert ref.worst(ours.todense(), J) <= 1e-10
    u, v = rng.standard_normal(m), rng.standard_normal(n)
    forward = sad.jvp(problem, solution, u, rtol=1e-14).y
    adjoint = sad.vjp(problem, solution, v, rtol=1e-14).x
    assert ref.worst(forward, J @ u) <= 1e-10
    assert ref.worst(adjoint, J.T @ v) <= 1e-10
    size = np.linalg.norm(v) * np.linalg.norm(J) * np.linalg.norm(u)
    assert abs(v @ forward - adjoint @ u) <= 1e-12 * size


def test_derivative_against_differences_of_the_solution():
    lower = Coupled(9, 5, 3)
    x = 0.3 * np.random.default_rng(4).standard_normal(5)
    solution = sad.solve(Problem(lower), x, tol=1e-13)
    J = sad.derivative(Problem(lower), solution).todense()
    assert ref.worst(J, ref.differences(lower.solution, x)) <= 1e-8


def test_one_linearisation_for_many_parameters():
    """(14), C5: f_YY is evaluated once for a block of 50 directions."""
    lower = Coupled(20, 50, 5)
    x = 0.1 * np.random.default_rng(6).standard_normal(50)
    problem = Problem(lower)
    solution = sad.solve(problem, x, tol=1e-13)
    before = lower.n_hess
    ours = sad.derivative(problem, solution, rtol=1e-13)
    block = ours @ np.eye(50)
    assert lower.n_hess == before + 1
    assert ref.worst(block, lower.jacobian(x, solution.y)) <= 1e-10


def test_an_adjoint_costs_the_same_whatever_the_number_of_parameters():
    """C5: Hessian products at 10² and at 10⁵ parameters."""
    n, products = 60, []
    diagonal = np.linspace(1.0, 20.0, n)
    v = np.random.default_rng(7).standard_normal(n)
    for m in (10**2, 10**5):
        spread = np.arange(m) % n  # parameter k pulls at y[k mod n]

        def pull(u, spread=spread):
            return np.bincount(spread, u, minlength=n)

        objective = sad.FunctionObjective(
            grad=lambda x, y, pull=pull: diagonal * y - pull(x),
            hvp=lambda x, y, v: diagonal * v,
            cross_jvp=lambda x, y, u, pull=pull: -pull(u),
            cross_vjp=lambda x, y, w, spread=spread: -w[spread],
            n=n,
        )
        problem = Problem(objective)
        solution = sad.solve(problem, np.ones(m), tol=1e-12)
        found = sad.vjp(problem, solution, v, rtol=1e-12)
        products.append(found.n_hvp)
        assert ref.worst(found.x, (v / diagonal)[spread]) <= 1e-10
    assert products[0] == products[1]


# Lemma 3.3 and any stationary point -----------------------------------------------------


def test_lemma_3_3():
    """C6: the maximum of f is differentiated as the user wrote f."""
    lower = Coupled(8, 3, 8)
    upside_down = sad.FunctionObjective(
        value=lambda x, y: -lower.value(x, y),
        grad=lambda x, y: -lower.grad(x, y),
        hvp=lambda x, y, v: -(lower.hess(x, y) @ v),
        cross_jvp=lambda x, y, u: -(lower.cross(x, y) @ u),
        cross_vjp=lambda x, y, w: -(lower.cross(x, y).T @ w),
        n=8,
    )
    x = np.array([0.2, -0.5, 0.9])
    problem = Problem(upside_down, maximize=True)
    solution = sad.solve(problem, x, tol=1e-13)
    y = lower.solution(x)
    assert ref.worst(solution.y, y) <= 1e-10
    assert solution.value == pytest.approx(-lower.value(x, y), rel=1e-12)
    J = sad.derivative(problem, solution, rtol=1e-13).todense()
    assert ref.worst(J, lower.jacobian(x, y)) <= 1e-10


@pytest.mark.parametrize("n", [2, 7, 30])
def test_saddle_points(n):
    """C7: a stationary point with curvatures of both signs, to 1e-10."""
    lower = Coupled(n, 2, 9 + n, indefinite=True)
    lower.B *= 0.2  # small enough for plain Newton to end at the saddle near 0
    x = np.array([-1.0, 0.4])
    y = lower.solution(x)
    assert np.linalg.norm(lower.grad(x, y)) <= 1e-14
    curvatures = np.linalg.eigvalsh(lower.hess(x, y))
    assert curvatures[0] < -0.01 < 0.01 < curvatures[-1]
    problem = Problem(lower)
    solution = sad.solve(problem, x, y + 1e-3, method="newton_kkt", tol=1e-13)
    assert ref.worst(solution.y, y) <= 1e-10
    ours = sad.derivative(problem, solution, method="minres", rtol=1e-13).todense()
    assert ref.worst(ours, lower.jacobian(x, y)) <= 1e-10
    slopes = ref.differences(lambda x: lower.solution(x, y), x)
    assert ref.worst(ours, slopes) <= 1e-6


def test_plain_cg_refuses_a_saddle():
    """C7: it would return something; it says why it does not."""
    problem = Problem(
        sad.FunctionObjective(
            grad=lambda x, y: np.array([-2.0, 1.5]) * (y - x),
            hvp=lambda x, y, v: np.array([-2.0, 1.5]) * v,
            cross_jvp=lambda x, y, u: -np.array([-2.0, 1.5]) * u,
            cross_vjp=lambda x, y, w: -np.array([-2.0, 1.5]) * w,
        )
    )
    here = Solution(y=np.ones(2), x=np.ones(2))
    with pytest.raises(sad.ConvergenceError) as caught:
        sad.derivative(problem, here, method="cg").todense()
    assert caught.value.status is Status.NEGATIVE_CURVATURE
    J = sad.derivative(problem, here, method="minres", rtol=1e-13).todense()
    assert ref.worst(J, np.eye(2)) <= 1e-10


# 3.1: the scalar mean -------------------------------------------------------------------


@pytest.mark.parametrize("m", [1, 2, 17])
def test_scalar_mean(m):
    """(15) to (18), C8: g and g' to 1e-12."""
    rates = np.linspace(-1.0, 2.0, m)
    mean = Mean(
        lambda x: np.sin(rates * x) + rates, lambda x: rates * np.cos(rates * x)
    )
    for x in (-2.0, 0.3, 1.7):
        solution = sad.solve(mean.free(), np.array([x]), tol=1e-15)
        assert abs(solution.y[0] - mean.h(x).mean()) <= 1e-12
        assert abs(slope_of(mean.free(), solution) - mean.dh(x).mean()) <= 1e-12


# 3.2: three stationary points -----------------------------------------------------------

QUARTIC = Problem(Quartic())


@pytest.mark.parametrize(
    ("x", "points", "slopes", "kinds"),
    [
        (
            1.0,
            (0.0, 1.8117376914898995, -3.3117376914898995),
            (0.0, -1.701503, 0.201503),
            ("max", "min", "min"),
        ),
        (0.25, None, None, ("max", "min", "min")),
        (4.0, None, None, ("max", "min", "min")),
        (-3.0, None, None, ("max", "max", "min")),
        (-1.0, None, None, ("max",)),
    ],
)
def test_branches_and_their_kinds(x, points, slopes, kinds):
    """(19) to (24), C9: every branch, its slope (23) to 1e-10, and what it is.

    For x > 0 there are one maximum and two minima, not three minima (X13).
    """
    ys = stationary_points(x)
    assert len(ys) == len(kinds)
    found_kinds = []
    for k, y in enumerate(ys):
        start = np.array([y + 0.01])
        solution = sad.solve(
            QUARTIC, np.array([x]), start, method="newton_kkt", tol=1e-14
        )
        assert solution.y[0] == pytest.approx(y, abs=1e-10)
        ours = slope_of(QUARTIC, solution, method="minres")
        assert ours == pytest.approx(slope(x, y), rel=1e-10, abs=1e-12)
        step = 1e-5
        near = [stationary_points(x + s * step)[k] for s in (-1.0, 1.0)]
        assert ours == pytest.approx((near[1] - near[0]) / (2.0 * step), abs=1e-6)
        if points is not None:
            assert y == pytest.approx(points[k], abs=1e-10)
            assert ours == pytest.approx(slopes[k], abs=1e-6)
        found_kinds.append(
            "min" if Quartic().hess(np.array([x]), np.array([y]))[0, 0] > 0 else "max"
        )
    if x > 0:
        assert tuple(found_kinds) == kinds
        assert min(ys, key=lambda y: Quartic().value([x], [y])) == ys[2]
    else:
        assert sorted(found_kinds) == sorted(
            ("max", "min", "max") if len(ys) == 3 else ("max",)
        )


def follow(branch, xs, passed):
    """Follow a branch by warm starts, never jumping; note each x that went well."""
    y = np.array([stationary_points(xs[0])[branch]])
    for x in xs:
        y = sad.solve(QUARTIC, np.array([x]), y, method="newton_kkt", tol=1e-13).y
        assert y[0] == pytest.approx(stationary_points(x)[branch], abs=1e-8)
        passed.append(x)


@pytest.mark.parametrize("branch", [0, 1, 2])
@pytest.mark.parametrize("steps", [16, 151])
def test_a_branch_is_followed(branch, steps):
    """C9: from x = 0.25 to 4 by warm starts, never jumping to another branch."""
    passed = []
    follow(branch, np.geomspace(0.25, 4.0, steps), passed)
    assert len(passed) == steps


def test_the_end_of_a_branch_is_said():
    """C9: two branches meet at the fold and are gone beyond; f_YY = 0 there."""
    assert pytest.approx(-2.2012848, abs=1e-7) == FOLD
    at_fold = np.array([1.6509636])
    assert np.abs(Quartic().hess(np.array([FOLD]), at_fold)) <= 1e-5
    for branch in (1, 2):
        passed = []
        with pytest.raises(sad.ConvergenceError) as caught:
            follow(branch, np.arange(-3.0, -2.0, 0.01), passed)
        assert FOLD - 0.011 <= passed[-1] < FOLD
        assert "branch" in str(caught.value)


def test_the_derivative_at_a_fold_is_refused():
    """(23) divides by zero there."""
    problem = Problem(  # y³/3 − x y, branches ±√x; slope 500 at x = 1e-6 (X12)
        Scalar(
            lambda x, y: y**3 / 3.0 - x * y,
            lambda x, y: y * y - x,
            lambda x, y: -1.0,
            lambda x, y: 2.0 * y,
        )
    )
    near = Solution(y=np.array([1e-3]), x=np.array([1e-6]))
    assert slope_of(problem, near) == pytest.approx(500.0, rel=1e-9)
    with pytest.raises(sad.ConvergenceError):
        slope_of(problem, Solution(y=np.zeros(1), x=np.zeros(1)), method="minres")


# 3.4: monotone transformations ----------------------------------------------------------


def composed(h, dh, d2h):
    """Return h(f) for f = cosh(y − sin x) + x²/4, whose argmin is sin x."""

    def f(x, y):
        return np.cosh(y - np.sin(x)) + 0.25 * x * x

    def f_x(x, y):
        return -np.cos(x) * np.sinh(y - np.sin(x)) + 0.5 * x

    def f_y(x, y):
        return np.sinh(y - np.sin(x))

    def curve(x, y):
        return np.cosh(y - np.sin(x))

    return Scalar(
        lambda x, y: h(f(x, y)),
        lambda x, y: dh(f(x, y)) * f_y(x, y),
        lambda x, y: (
            d2h(f(x, y)) * f_x(x, y) * f_y(x, y) - dh(f(x, y)) * np.cos(x) * curve(x, y)
        ),
        lambda x, y: d2h(f(x, y)) * f_y(x, y) ** 2 + dh(f(x, y)) * curve(x, y),
        scale=1.0,
    )


TRANSFORMATIONS = {
    "identity": (lambda u: u, lambda u: 1.0, lambda u: 0.0),
    "exp": (np.exp, np.exp, np.exp),
    "log": (np.log, lambda u: 1.0 / u, lambda u: -1.0 / u**2),
    "cube": (lambda u: u**3, lambda u: 3.0 * u * u, lambda u: 6.0 * u),
    "decreasing": (lambda u: 1.0 / u, lambda u: -1.0 / u**2, lambda u: 2.0 / u**3),
}


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_lemma_3_4(name):
    """(35) to (45), C11: exp, log, the cube, and 1/u that turns it into a maximum."""
    problem = Problem(composed(*TRANSFORMATIONS[name]), maximize=name == "decreasing")
    for x in (-1.1, 0.4, 2.0):
        solution = sad.solve(problem, np.array([x]), np.array([0.1]), tol=1e-13)
        assert solution.y[0] == pytest.approx(np.sin(x), abs=1e-10)
        assert slope_of(problem, solution) == pytest.approx(np.cos(x), abs=1e-8)


def test_the_caveat_of_lemma_3_4():
    """C11, X11: h(u) = u³ with min f = 0 leaves no curvature; reported, and f does it."""

    def f_y(x, y):
        return 2.0 * (y - np.sin(x))

    cubed = Problem(
        Scalar(
            lambda x, y: (y - np.sin(x)) ** 6,
            lambda x, y: 6.0 * (y - np.sin(x)) ** 5,
            lambda x, y: -30.0 * (y - np.sin(x)) ** 4 * np.cos(x),
            lambda x, y: 30.0 * (y - np.sin(x)) ** 4,
        )
    )
    plain = Problem(
        Scalar(
            lambda x, y: (y - np.sin(x)) ** 2,
            f_y,
            lambda x, y: -2.0 * np.cos(x),
            lambda x, y: 2.0,
        )
    )
    here = Solution(y=np.sin([0.7]), x=np.array([0.7]))
    with pytest.raises(sad.ConvergenceError) as caught:
        slope_of(cubed, here)
    assert caught.value.status is Status.SINGULAR
    assert slope_of(plain, here) == pytest.approx(np.cos(0.7), rel=1e-12)


def test_scipy_minimises_what_we_differentiate():
    """The door of footnote 2: any minimiser of f^U by SciPy through F."""
    lower = Coupled(5, 3, 11)
    target = lower.solution(np.array([0.4, -0.2, 0.3]))
    upper = sad.FunctionUpper(
        lambda x, y: 0.5 * float(np.sum((y - target) ** 2)), lambda x, y: y - target
    )
    F = sad.Hypergradient(Problem(lower), upper, tol=1e-12)
    found = optimize.minimize(F, np.zeros(3), jac=True, options={"gtol": 1e-10})
    assert found.fun <= 1e-16
