"""Figure 3: a positive mean and its log-barrier approximations.

    g(x) = argmin_{y >= 0} (x − y)^2,    g_t(x) = argmin_y t (x − y)^2 − log y

The barrier's solutions are found and differentiated by the package and compared with the
closed form.  The paper says that as t grows they converge to the function and its
gradient: to the gradient they do not at x = 0, where g has none and g_t'(0) = 1/2.

    python examples/paper/figure_3.py --out DIR
"""

from __future__ import annotations

import numpy as np
from _picture import STYLE, canvas, folder, save
from _scalar import Mean, barrier_mean
from matplotlib import colormaps, rc_context

import sparse_argdiff as sad

PROBLEM = Mean(lambda x: np.array([x]), lambda _: np.ones(1)).positive()
WEIGHTS = (0.1, 1.0, 10.0, 100.0, 1e4)


def approximate(t, xs):
    """Return g_t and g_t' at each x, each solve from the last."""
    barrier, found, y = sad.LogBarrier(PROBLEM, t), [], np.ones(1)
    for x in xs:
        solution = sad.solve(barrier, np.array([x]), y, tol=1e-13)
        y = solution.y
        J = sad.derivative(barrier, solution, rtol=1e-13)
        found.append((y[0], J.todense()[0, 0]))
    return np.array(found)


def draw(path, xs, curves):
    figure = canvas(8.0, 3.3)
    left, right = figure.subplots(1, 2)
    shades = colormaps["Blues"](np.linspace(0.35, 0.95, len(curves)))
    for (t, curve), shade in zip(curves.items(), shades, strict=True):
        label = f"$t = {t:g}$" if t < 1e4 else "$t = 10^4$"
        left.plot(xs, curve[:, 0], color=shade, label=label)
        right.plot(xs, curve[:, 1], color=shade)
    left.plot(xs, np.maximum(xs, 0.0), "k--", lw=1.0, label="exact")
    right.plot([-2, 0], [0, 0], "k--", [0, 2], [1, 1], "k--", lw=1.0)
    right.plot(0.0, 0.5, "o", color="k", ms=4)
    note = "$g_t'(0) = 1/2$ for every $t$"
    right.annotate(
        note, (0.0, 0.5), (0.35, 0.3), arrowprops={"arrowstyle": "-", "lw": 0.6}
    )
    left.set(xlabel="$x$", ylabel="$g_t(x)$", title="function", xlim=(-2, 2))
    right.set(xlabel="$x$", ylabel="$g_t'(x)$", title="gradient", xlim=(-2, 2))
    left.legend(loc="upper left", labelspacing=0.15, fontsize=9)
    save(figure, path)


def main() -> None:
    out = folder(__doc__)
    near = np.linspace(0.1, -0.1, 41)  # where the gradient for t = 10^4 turns
    xs = np.unique(np.r_[np.linspace(-2.0, 2.0, 161), near].round(6))[::-1]
    curves = {t: approximate(t, xs) for t in WEIGHTS}
    print("       t   max |g_t - g|   sqrt(1/2t)   error of g_t'   g_t'(0)   g_t'(0.1)")
    for t, curve in curves.items():
        closed = np.column_stack(barrier_mean(xs, 1.0, 1, t))
        error = np.max(np.abs(curve - closed) / closed)
        gap = np.abs(curve[:, 0] - np.maximum(xs, 0.0)).max()
        at, near = np.argmin(np.abs(xs)), np.argmin(np.abs(xs - 0.1))
        print(
            f"{t:8g}{gap:15.6f}{np.sqrt(0.5 / t):13.6f}{error:15.1e}"
            f"{curve[at, 1]:11.6f}{curve[near, 1]:12.6f}"
        )
    with rc_context(STYLE):
        draw(out / "figure_3.png", xs, curves)


if __name__ == "__main__":
    main()
