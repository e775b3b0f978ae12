"""Figure 5: the same classifier in the unit ball, before and after a gradient step.

    g_i(theta) = argmax_{||y||^2 <= 1} log ell_i(y)

Class 0, which has no maximum without the ball.  Twice: exactly, where the solution lies
on the circle and moves along it; and by the log-barrier of (78) and (79), corrected,
which approaches that from inside.

    python examples/paper/figure_5.py --out DIR
"""

from __future__ import annotations

import numpy as np
from _picture import folder
from _softmax import (
    Softmax,
    ball_inverse,
    barrier_inverse,
    closed_form,
    draw_parameters,
)
from _step import draw, report, take

import sparse_argdiff as sad

M, CLASS, SEED = 10, 0, 2016


def barrier(problem, theta, exact) -> np.ndarray:
    """Print radius and derivative along the path in t; return its points."""
    print(
        "       t    1 - ||y_t||   J_t - corrected (78)   J_t - exact J   printed (78)"
    )
    y, path = np.zeros(2), []
    for t in (1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6):
        near = sad.LogBarrier(problem, t)
        solution = sad.solve(near, theta, y, tol=1e-12)
        y = solution.y
        path.append(y)
        J = sad.derivative(near, solution, rtol=1e-12).todense()
        inverse = barrier_inverse(theta, y, t)
        corrected = closed_form(theta, y, CLASS, inverse, stationary=False)
        print(
            f"{t:8g}{1.0 - np.linalg.norm(y):15.3e}{np.abs(J - corrected).max():23.1e}"
            f"{np.abs(J - exact).max():16.2e}{printed_error(theta, y, J):15.2e}"
        )
    return np.array(path)


def printed_error(theta, y, J) -> float:
    """Return how far (78) and (79), with (80), are from J as they stand in the paper."""
    H = np.linalg.inv(barrier_inverse(theta, y, np.inf))
    gap = 1.0 - y @ y
    phi = 4.0 / gap**2 * np.outer(y, y) - 2.0 / gap * np.eye(2)
    printed = closed_form(theta, y, CLASS, np.linalg.inv(H + phi))
    return float(np.abs(printed - J).max())


def main() -> None:
    out = folder(__doc__)
    theta = draw_parameters(M, 2, SEED)
    problem = Softmax(M, 2, CLASS).unit_ball()
    for eta in (0.1, 1.0):
        step = take(problem, theta, eta, method="active_set")
        report(step)
    y = step.before.y
    J = sad.derivative(problem, step.before, rtol=1e-12).todense()
    formula = closed_form(theta, y, CLASS, ball_inverse(theta, y, CLASS))
    print(f"multiplier of the ball: {step.before.multipliers[0]:.6f}")
    print(
        f"largest difference from the exact ball's formula: {np.abs(J - formula).max():.1e}"
    )
    print(f"y'dg/dtheta, zero on the circle: {np.abs(y @ J).max():.1e}")
    path = barrier(problem, theta, J)

    def circle(axes, panel) -> None:
        angle = np.linspace(0.0, 2.0 * np.pi, 400)
        axes.plot(np.cos(angle), np.sin(angle), "k--", lw=1.0)
        if panel == 0:
            axes.plot(*path.T, "o-", color="k", ms=2.5, lw=0.8)
            for k, name in enumerate(("$t = 1$", "$10$")):
                axes.annotate(name, path[k], (4, 3), textcoords="offset points")

    draw(out / "figure_5.png", step, (-1.4, 1.4), circle)


if __name__ == "__main__":
    main()
