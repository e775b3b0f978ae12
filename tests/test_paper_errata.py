"""What the paper prints and what is right: the errata X1 to X18 of ``docs/paper.md``.

Each test computes both, and the truth by differences or a closed form.
"""

from __future__ import annotations

import numpy as np
import paper_reference as ref
import pytest
from _circle import TARGETS, UPPER, start
from _scalar import Quartic, barrier_mean, stationary_points
from _softmax import (
    Softmax,
    ball_inverse,
    barrier_inverse,
    closed_form,
    draw_parameters,
    has_maximum,
    softmax_at,
    unpack,
)

import sparse_argdiff as sad
from sparse_argdiff import Problem

THETA = draw_parameters(10, 2, 2016)
ACTIVE, INACTIVE = 0, 3  # without the ball class 0 has no maximum


# the barrier: X1 to X5 ----------------------------------------------------------------------


def constraints(z):
    """Return two functions, their gradients and Hessians."""
    f = np.array([z @ z - 2.0, np.exp(z[0]) - z[1] - 2.0])
    jac = np.array([2.0 * z, [np.exp(z[0]), -1.0]])
    hess = np.array([2.0 * np.eye(2), np.diag([np.exp(z[0]), 0.0])])
    return f, jac, hess


Z = np.array([0.3, -0.4])


def phi(z):
    return np.sum(np.log(-constraints(z)[0]))


def phi_gradient(z):
    f, jac, _ = constraints(z)
    return jac.T @ (1.0 / f)


def test_x1_gradient_of_phi():
    """(62) has the wrong sign for φ = Σ log(−f_i)."""
    printed = -phi_gradient(Z)
    truth = ref.differences(lambda z: np.array([phi(z)]), Z)[0]
    assert ref.worst(phi_gradient(Z), truth) <= 1e-8
    assert np.abs(printed - truth).max() > 0.1


def test_x2_hessian_of_phi():
    """(63) too."""
    f, jac, hess = constraints(Z)
    printed = (jac.T / f**2) @ jac - np.einsum("i,ijk->jk", 1.0 / f, hess)
    truth = ref.differences(phi_gradient, Z)
    assert ref.worst(-printed, truth) <= 1e-7
    assert np.abs(printed - truth).max() > 1.0


def moving_ball(t):
    """Return y, J_t and what (64) gives with (63) in it; max J is about 1.

    min ½‖y − x‖² in a ball of radius 1: at the boundary, ‖x‖ = 1.5.
    """
    x = np.array([0.9, 1.2])
    size = np.linalg.norm(x)
    rows = sad.Inequality(
        lambda _, y: np.array([y @ y - 1.0]),
        lambda _, y: 2.0 * y[None],
        hess=lambda x, y, nu: 2.0 * nu[0] * np.eye(2),
    )
    objective = sad.FunctionObjective(
        value=lambda x, y: 0.5 * float(np.sum((y - x) ** 2)),
        grad=lambda x, y: y - x,
        hvp=lambda x, y, v: v,
        cross_jvp=lambda x, y, u: -u,
        cross_vjp=lambda x, y, w: -w,
    )
    near = sad.LogBarrier(Problem(objective, inequality=rows), t)
    # The radius of g_t: t (r − ‖x‖)(1 − r²) + 2 r = 0.
    roots = np.roots([-t, t * size, t + 2.0, -t * size])
    radius = roots[(np.abs(roots.imag) < 1e-9) & (roots.real > 0) & (roots.real < 1)]
    y = radius.real[0] * x / size
    solution = sad.Solution(y=y, x=x)
    J = sad.derivative(near, solution, rtol=1e-13).todense()
    gap = 1.0 - y @ y
    wrong = (4.0 / gap**2) * np.outer(y, y) + 2.0 / gap * np.eye(2)  # (63) as printed
    return J, np.linalg.solve(t * np.eye(2) - wrong, t * np.eye(2)), x


def test_x3_signs_in_64():
    """(63) put into (64) as it stands: the error does not vanish as t grows."""
    errors = []
    for t in (1.0, 100.0, 1e6):
        J, literal, x = moving_ball(t)
        errors.append(np.abs(literal - J).max())
    size = np.linalg.norm(x)
    exact = (
        np.eye(2) - np.outer(x, x) / size**2
    ) / size  # of the projection on the ball
    assert ref.worst(J, exact) <= 1e-5
    assert min(errors) > 0.5


def test_x4_64_belongs_at_the_barrier_solution():
    """Close to the exact solution, instead of at g_t, the derivative of (64) fades."""
    y, nu = ref.likeliest_in_ball(THETA, ACTIVE, 2)
    assert nu > 0.1
    true = closed_form(THETA, y, ACTIVE, ball_inverse(THETA, y, ACTIVE))
    sizes = []
    for d in (1e-3, 1e-6, 1e-9):
        inside = (1.0 - d) * y
        inverse = barrier_inverse(THETA, inside, 1.0)
        J = closed_form(THETA, inside, ACTIVE, inverse, stationary=False)
        sizes.append(np.abs(J).max())
    assert np.abs(true).max() > 0.1
    assert sizes[0] < 1e-2 * np.abs(true).max()
    assert np.array(sizes[:-1]) / np.array(sizes[1:]) == pytest.approx(1e3, rel=0.01)


def test_x5_gradient_at_a_mean_of_zero():
    """(72) says 0 where g = 0; at a mean of 0 it is 1/2 for every t, and slow near it."""
    for t in (0.1, 1.0, 1e4, 1e12):
        assert barrier_mean(0.0, 1.0, 1, t)[1] == pytest.approx(0.5, rel=1e-14)
    near = [float(barrier_mean(s * 1e-3, 1.0, 1, 1e4)[1]) for s in (1.0, -1.0)]
    assert near == pytest.approx([0.535, 0.465], abs=5e-4)


# (78) to (80): X6 to X9 ---------------------------------------------------------------------


def truth(i, t):
    y = ref.likeliest(THETA, i, 2, t=t)
    J = closed_form(THETA, y, i, barrier_inverse(THETA, y, t), stationary=False)
    return y, J


def error(J, i, inverse, y, *, stationary=False):
    wrong = closed_form(THETA, y, i, inverse, stationary=stationary)
    return float(np.abs(wrong - J).max() / np.abs(J).max())


@pytest.mark.parametrize("i", [ACTIVE, INACTIVE])
def test_x6_x7_own_class(i):
    """The i = j terms ell_i x_k (a_i − abar) and ell_i (a_i − abar) are missing; O(1/t)."""
    errors = []
    for t in (1.0, 1e2, 1e4, 1e5):
        y, J = truth(i, t)
        if t < 1e3:
            slopes = ref.differences(
                lambda th, t=t: ref.likeliest(th, i, 2, t=t), THETA, 1e-4
            )
            assert ref.worst(J, slopes) <= 1e-6
        errors.append(error(J, i, barrier_inverse(THETA, y, t), y, stationary=True))
        own_b = J[:, 20 + i]
        assert np.abs(own_b).max() > 1e-3 / t  # (79) says 0
        # A shift of all a_j, or of all b_j, changes no likelihood.
        assert np.abs(J[:, 20:].sum(axis=1)).max() <= 1e-9
        assert np.abs(J[:, :20].reshape(2, 10, 2).sum(axis=1)).max() <= 1e-9
    assert errors[0] > 0.05 > 10.0 * errors[3]
    if i == ACTIVE:
        assert errors[2] / errors[3] == pytest.approx(10.0, rel=0.1)


def test_x8_t_is_missing():
    """(78) and (79) without t are those of t = 1: in the ball's boundary wholly wrong."""
    errors = []
    for t in (1.0, 10.0, 100.0, 1e4):
        y, J = truth(ACTIVE, t)
        errors.append(error(J, ACTIVE, barrier_inverse(THETA, y, 1.0), y))
    assert errors[0] <= 1e-12
    assert errors[1] > 0.5
    assert min(errors[2:]) > 0.9


def test_x9_sign_in_80():
    """+ 4/(1 − r²)² x x' − 2/(1 − r²) I is indefinite for r² > 1/3; phi is concave."""
    for radius, definite in ((0.57, True), (0.58, False)):
        x = np.array([radius, 0.0])
        gap = 1.0 - x @ x
        printed = 4.0 / gap**2 * np.outer(x, x) - 2.0 / gap * np.eye(2)
        assert (np.linalg.eigvalsh(printed).max() < 0.0) == definite
        right = ref.differences(lambda z: -2.0 * z / (1.0 - z @ z), x, 1e-4)
        corrected = -4.0 / gap**2 * np.outer(x, x) - 2.0 / gap * np.eye(2)
        assert ref.worst(corrected, right) <= 1e-9
    y, J = truth(ACTIVE, 1.0)
    gap, H = 1.0 - y @ y, softmax_at(THETA, y)[2]
    printed = 4.0 / gap**2 * np.outer(y, y) - 2.0 / gap * np.eye(2)
    assert error(J, ACTIVE, np.linalg.inv(H + printed), y) > 0.3


# conditions and claims: X10 to X18 ----------------------------------------------------------


def test_x10_zero_rows_are_not_no_rows():
    """With A = 0 the inverse (A H^-1 A')^-1 of Lemma 4.2 does not exist."""
    H, B = np.diag([1.0, 2.0, 3.0]), np.ones((3, 1))
    with pytest.raises(np.linalg.LinAlgError):
        ref.lemma_4_2(H, np.zeros((1, 3)), B)
    nothing = np.zeros((0, 3))  # m = 0 is what is meant; then both lemmas are 3.2
    assert ref.worst(ref.lemma_4_2(H, nothing, B), ref.lemma_3_2(H, B)) <= 1e-15
    assert ref.worst(ref.lemma_4_1(H, nothing, B), ref.lemma_3_2(H, B)) <= 1e-15


def test_x11_monotone_with_a_flat_point():
    """h(u) = u³ adds stationary points where f = 0: {−1, 0, 1} for f = y² − 1."""

    def slope(y):  # d/dy (y² − 1)³
        return 6.0 * y * (y * y - 1.0) ** 2

    assert [slope(y) for y in (-1.0, 0.0, 1.0)] == [0.0, 0.0, 0.0]
    cubed = Problem(
        sad.FunctionObjective(
            grad=lambda x, y: np.array([slope(y[0])]),
            hvp=lambda x, y, v: 6.0 * (y**2 - 1.0) * (5.0 * y**2 - 1.0) * v,
            cross_jvp=lambda x, y, u: 0.0 * u,
            cross_vjp=lambda x, y, w: 0.0 * w,
        )
    )
    # At the spurious ones there is no derivative; at 0, the argmin, there is.
    for y in (-1.0, 1.0):
        here = sad.Solution(y=np.array([y]), x=np.zeros(1))
        with pytest.raises(sad.ConvergenceError):
            sad.derivative(cubed, here, stationarity=1e-3, on_failure="raise").todense()
    here = sad.Solution(y=np.zeros(1), x=np.zeros(1))
    assert sad.derivative(cubed, here).todense() == 0.0


def test_x12_a_stationary_inflection_has_no_derivative():
    """f = y³/3 − x y: branches ±√x; slope 500 at x = 1e-6, none at 0."""
    problem = Problem(
        sad.FunctionObjective(
            grad=lambda x, y: y**2 - x,
            hvp=lambda x, y, v: 2.0 * y * v,
            cross_jvp=lambda x, y, u: -u,
            cross_vjp=lambda x, y, w: -w,
        )
    )
    for x, slope in ((1e-2, 5.0), (1e-4, 50.0), (1e-6, 500.0)):
        for side in (1.0, -1.0):  # a minimum and a maximum
            here = sad.Solution(y=side * np.sqrt([x]), x=np.array([x]))
            J = sad.derivative(problem, here, method="minres").todense()
            assert J[0, 0] == pytest.approx(side * slope, rel=1e-10)
    inflection = sad.Solution(y=np.zeros(1), x=np.zeros(1))
    with pytest.raises(sad.ConvergenceError):
        sad.derivative(problem, inflection, method="minres").todense()


def test_x13_two_minima_and_a_maximum():
    """At x = 1: f = 0, −16.72, −83.97 and f_YY = −24, 37.1, 67.9."""
    x = np.ones(1)
    points = [np.array([y]) for y in stationary_points(1.0)]
    values = [Quartic().value(x, y) for y in points]
    assert values == pytest.approx([0.0, -16.72, -83.97], abs=5e-3)
    curvatures = [Quartic().hess(x, y)[0, 0] for y in points]
    assert curvatures == pytest.approx([-24.0, 37.12, 67.86], abs=0.05)
    assert Quartic().value(-x, np.array([100.0])) < -1e7  # and no argmin for x < 0


def attained(a):
    """Count the a_i strictly inside the hull: no half-plane holds all others (2-D)."""
    inside = 0
    for i in range(len(a)):
        d = np.delete(a, i, axis=0) - a[i]
        angles = np.sort(np.arctan2(d[:, 1], d[:, 0]))
        inside += np.diff(np.r_[angles, angles[0] + 2.0 * np.pi]).max() < np.pi
    return inside


def test_x14_concave_is_not_attained():
    """Class 0 of figure 2 rises for ever; 4.5 classes of 10 have a maximum on average."""
    a, b = unpack(THETA, 2)
    angles = np.linspace(0.0, 2.0 * np.pi, 2001)
    circle = np.column_stack([np.cos(angles), np.sin(angles)])
    best = []
    for radius in (1.0, 10.0, 100.0):
        s = radius * circle @ a.T + b
        s -= s[:, [0]]
        best.append(float((-np.log(np.exp(s).sum(axis=1))).max()))
    assert best[0] < best[1] < best[2] <= 0.0
    assert best[2] > -1e-6  # 0 after rounding
    assert not has_maximum(a, 0)
    rng = np.random.default_rng(0)
    draws = rng.standard_normal((1000, 10, 2))
    assert np.mean([attained(a) for a in draws]) == pytest.approx(4.53, abs=0.15)
    assert attained(a) == sum(has_maximum(a, i) for i in range(10)) == 4


def test_x15_the_likelihood_need_not_tend_to_one():
    """a = 0, (1, 0), (−1, 0): class 0 reaches 1/3 at most, on a whole line."""
    theta = np.array([0.0, 0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0])
    problem = Softmax(3, 2, 0)
    far = [
        problem.likelihoods(theta, 1e3 * np.array([np.cos(u), np.sin(u)]))[0, 0]
        for u in np.linspace(0.0, 2.0 * np.pi, 721)
    ]
    assert max(far) <= 1.0 / 3.0 + 1e-12
    for height in (0.0, -5.0, 40.0):
        y = np.array([0.0, height])
        assert problem.likelihoods(theta, y)[0, 0] == pytest.approx(1.0 / 3.0)
        assert np.all(problem.grad(theta, y) == 0.0)
    here = sad.Solution(y=np.zeros(2), x=theta)
    with pytest.raises(sad.ConvergenceError):
        sad.derivative(problem.free(), here).todense()


def test_x16_a_diagonal_hessian_can_ascend():
    """The true gradient (−98, 13)/19 and the diagonal one (1, 0.22) have product −5.007."""
    H, v = np.array([[1.0, 9.0], [9.0, 100.0]]), np.array([1.0, 22.0])
    true, diagonal = np.linalg.solve(H, v), v / np.diag(H)
    assert true == pytest.approx(np.array([-98.0, 13.0]) / 19.0)
    assert diagonal == pytest.approx([1.0, 0.22])
    assert true @ diagonal == pytest.approx(-5.007, abs=5e-4)


def test_x17_y_in_60_is_a_vector():
    """(60) says y in R; (76) is (60) with n = 2, and the barrier takes any n."""
    for n in (1, 2, 7):
        theta = draw_parameters(n + 4, n, n)
        near = sad.LogBarrier(Softmax(n + 4, n, 0).unit_ball(), 1.0)
        solution = sad.solve(near, theta, tol=1e-12)
        assert ref.worst(solution.y, ref.likeliest(theta, 0, n, t=1.0)) <= 1e-9


def test_x18_step_82_is_the_gradient():
    """(82) is the gradient of ½ Σ ‖g_i − t_i‖², which (81), lost in our copy, must be."""
    theta, rows = start(1000), []

    def objective(theta):
        ys = [ref.likeliest_in_ball(theta, i, 2)[0] for i in range(3)]
        return np.array([0.5 * np.sum((np.array(ys) - TARGETS) ** 2)])

    for i in range(3):
        y, _ = ref.likeliest_in_ball(theta, i, 2)
        J = closed_form(theta, y, i, ball_inverse(theta, y, i))
        rows.append((y - TARGETS[i]) @ J)
    step_82 = np.sum(rows, axis=0)
    slopes = ref.differences(objective, theta, 1e-3)[0]
    assert ref.worst(step_82, slopes) <= 1e-7
    F = sad.Hypergradient(
        Softmax(3, 2).unit_ball(), UPPER, solver="active_set", tol=1e-12
    )
    value, gradient = F(theta)
    assert value == pytest.approx(objective(theta)[0], rel=1e-10)
    assert ref.worst(gradient, step_82) <= 1e-9
