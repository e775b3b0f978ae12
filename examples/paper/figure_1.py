"""Figure 1: a function of y with three stationary points, and how each moves with x.

    f(x, y) = x y^4 + 2 x^2 y^3 − 12 y^2

Each branch is followed from x = 0.25 to 4 by Newton's method from the last point, and
differentiated where it is: no branch is a closed form here.  The closed forms (23) and
(24) are what it is compared with.

    python examples/paper/figure_1.py --out DIR
"""

from __future__ import annotations

import numpy as np
from _picture import BLUE, GREY, RED, STYLE, canvas, folder, save
from _scalar import FOLD, Quartic, slope, stationary_points
from matplotlib import rc_context

import sparse_argdiff as sad

NAMES = ("$g_0$, a maximum", "$g_{+}$, a minimum", "$g_{-}$, the global minimum")
COLOURS = (GREY, BLUE, RED)
PROBLEM = sad.Problem(Quartic())


def follow(xs, y0):
    """Return y and dy/dx along a branch of stationary points; raises where it ends."""
    y, found = np.array([y0]), []
    for x in xs[:, None]:
        solution = sad.solve(PROBLEM, x, y, method="newton_kkt", tol=1e-12)
        J = sad.derivative(PROBLEM, solution, method="minres", rtol=1e-12)
        y = solution.y
        found.append((y[0], J.todense()[0, 0]))
    return np.array(found)


def draw(path, xs, branches):
    figure = canvas(11.0, 4.8)
    grid = figure.add_gridspec(2, 4, width_ratios=[1.25, 1, 1, 1])
    top, bottom = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[1, 0])
    X, Y = np.meshgrid(np.linspace(0.1, 4.0, 300), np.linspace(-7.5, 5.0, 300))
    Z = X * Y**4 + 2.0 * X**2 * Y**3 - 12.0 * Y**2
    signed = np.sign(Z) * np.log10(1.0 + np.abs(Z))
    levels = np.linspace(-4.0, 4.0, 41)
    bands = top.contourf(X, Y, signed, levels, cmap="RdBu_r", vmin=-7, vmax=7)
    bands.set_edgecolor("face")
    lines = {"colors": "white", "linewidths": 0.4, "linestyles": "solid"}
    top.contour(X, Y, signed, levels[::2], **lines)
    for branch, colour in zip(branches, COLOURS, strict=True):
        top.plot(xs, branch[:, 0], color=colour)
    top.axvline(1.0, color="k", lw=0.8, ls=":")
    top.set(xlabel="$x$", ylabel="$y$", xlim=(0.1, 4.0), ylim=(-7.5, 5.0))
    top.set_title("$f(x, y)$ and its stationary points")
    y = np.linspace(-4.6, 3.2, 400)
    bottom.plot(y, y**4 + 2.0 * y**3 - 12.0 * y**2, color="k")
    for at, colour in zip(stationary_points(1.0), COLOURS, strict=True):
        bottom.plot(at, at**4 + 2.0 * at**3 - 12.0 * at**2, "o", color=colour, ms=6)
    bottom.set(xlabel="$y$", ylabel="$f(1, y)$", title="the slice at $x = 1$")
    for k, (branch, name, colour) in enumerate(
        zip(branches, NAMES, COLOURS, strict=True)
    ):
        above = figure.add_subplot(grid[0, k + 1])
        below = figure.add_subplot(grid[1, k + 1], sharex=above)
        closed = np.array([stationary_points(x)[k] for x in xs])
        some = slice(None, None, 12)
        for axes, ours, formula, label, formulas in (
            (above, branch[:, 0], closed, "$g(x)$", "equation (24)"),
            (below, branch[:, 1], slope(xs, closed), "$g'(x)$", "equation (23)"),
        ):
            axes.plot(xs, ours, color=colour, label="followed")
            axes.plot(xs[some], formula[some], "o", color="k", ms=2.5, label=formulas)
            axes.set_ylabel(label)
            if k == 0:
                axes.legend(fontsize=9)
            if np.ptp(formula) < 1e-9:
                axes.set_ylim(-1.0, 1.0)
        above.set_title(name)
        above.tick_params(labelbottom=False)
        below.set(xlabel="$x$", xticks=range(5), xlim=(0.0, 4.1))
    save(figure, path)


def main() -> None:
    out = folder(__doc__)
    xs = np.linspace(0.25, 4.0, 151)
    branches = [follow(xs, y) for y in stationary_points(0.25)]
    at_one = int(np.argmin(np.abs(xs - 1.0)))
    print("x = 1          y (24)      y found      g' (23)     g' found   f_YY")
    for branch, y, name in zip(branches, stationary_points(1.0), NAMES, strict=True):
        curvature = Quartic().hess(np.ones(1), np.array([y]))[0, 0]
        print(
            f"{name.split(',')[0]:8s}{y:13.6f}{branch[at_one, 0]:13.6f}"
            f"{slope(1.0, y):13.6f}{branch[at_one, 1]:13.6f}{curvature:7.1f}"
        )
    worst = max(
        np.abs(branch[:, 0] - [stationary_points(x)[k] for x in xs]).max()
        for k, branch in enumerate(branches)
    )
    print(f"largest distance from (24) along x = 0.25 ... 4: {worst:.1e}")
    xs_fold = np.linspace(-3.0, -2.0, 101)
    try:
        follow(xs_fold, stationary_points(-3.0)[2])
    except sad.ConvergenceError as error:
        print(f"the branch from x = -3 ends at the fold x = {FOLD:.7f}: {error}")
    with rc_context(STYLE):
        draw(out / "figure_1.png", xs, branches)


if __name__ == "__main__":
    main()
