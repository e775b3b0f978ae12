"""Figure 4: the same classifier with 1'x = 1, before and after a gradient step.

    g_i(theta) = argmax_{1'y = 1} log ell_i(y)

The solution moves along the line: the two rows of dg_i/dtheta add up to zero.

    python examples/paper/figure_4.py --out DIR
"""

from __future__ import annotations

import numpy as np
from _picture import folder
from _softmax import Softmax, closed_form, draw_parameters, plane_inverse, softmax_at
from _step import draw, report, take

import sparse_argdiff as sad

M, CLASS, SEED = 10, 3, 2016


def main() -> None:
    out = folder(__doc__)
    theta = draw_parameters(M, 2, SEED)
    problem = Softmax(M, 2, CLASS).sum_to_one()
    step = take(problem, theta, 0.1)
    report(step)
    y = step.before.y
    J = sad.derivative(problem, step.before, rtol=1e-12).todense()
    formula = closed_form(theta, y, CLASS, plane_inverse(softmax_at(theta, y)[2]))
    print(f"largest difference from (74) and (75): {np.abs(J - formula).max():.1e}")
    print(f"sum of the two rows of dg/dtheta: {np.abs(J.sum(axis=0)).max():.1e}")
    print(f"multiplier of 1'y = 1: {step.before.multipliers[0]:+.6f}")

    def line(axes, _) -> None:
        axes.plot([-4.0, 4.0], [5.0, -3.0], "k--", lw=1.0)
        axes.text(1.5, 0.0, "$x_1 + x_2 = 1$", fontsize=9)

    draw(out / "figure_4.png", step, (-4.0, 4.0), line)


if __name__ == "__main__":
    main()
