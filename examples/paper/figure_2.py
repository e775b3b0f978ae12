"""Figure 2: the most likely feature vector of a soft-max class, and a gradient step.

    g_i(theta) = argmax_y log ell_i(y),    10 classes in the plane, parameters N(0, 1)

A class has a most likely feature vector only where its a_i lies inside the hull of all
a_j: 4 of the 10 here.  The picture shows class 3 before and after a step on all 30
parameters.

    python examples/paper/figure_2.py --out DIR
"""

from __future__ import annotations

import numpy as np
from _picture import folder
from _softmax import (
    Softmax,
    closed_form,
    draw_parameters,
    has_maximum,
    softmax_at,
    unpack,
)
from _step import draw, report, take

import sparse_argdiff as sad

M, CLASS, SEED = 10, 3, 2016


def main() -> None:
    out = folder(__doc__)
    theta = draw_parameters(M, 2, SEED)
    a, _ = unpack(theta, 2)
    print("classes with a maximum:", [i for i in range(M) if has_maximum(a, i)])
    problem = Softmax(M, 2, CLASS).free()
    for eta in (1e-4, 1e-3, 1e-2, 0.1):
        step = take(problem, theta, eta)
        print(
            f"eta = {eta:<7g} change of y_1 {step.actual:+.6e}, "
            f"predicted {step.predicted:+.6e}, ratio {step.actual / step.predicted:.6f}"
        )
    report(step)
    y = step.before.y
    J = sad.derivative(problem, step.before, rtol=1e-12).todense()
    formula = closed_form(theta, y, CLASS, np.linalg.inv(softmax_at(theta, y)[2]))
    by_a = J[:, : 2 * M].reshape(2, M, 2)
    print(f"largest difference from (33) and (34): {np.abs(J - formula).max():.1e}")
    print(
        f"sums over the classes, zero as shifts change nothing: by a "
        f"{np.abs(by_a.sum(axis=1)).max():.1e}, by b "
        f"{np.abs(J[:, 2 * M :].sum(axis=1)).max():.1e}"
    )
    draw(out / "figure_2.png", step, (-4.0, 4.0), lambda *_: None)


if __name__ == "__main__":
    main()
