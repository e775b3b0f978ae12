"""Figures 2, 4 and 5: the likelihood of a class before and after a gradient step.

    theta <- theta − eta e_1' dg_i/dtheta,      predicted change of y_1: − eta ||e_1' dg_i/dtheta||^2

on all parameters, which moves the most likely feature vector y = g_i(theta) to the left.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from _picture import RED, STYLE, canvas, save, surface
from _softmax import softmax_at, unpack
from matplotlib import rc_context
from matplotlib.ticker import MaxNLocator

import sparse_argdiff as sad


@dataclasses.dataclass(frozen=True)
class Step:
    """Parameters and solutions before and after; ``gradient`` is e_1' dg_i/dtheta."""

    i: int
    before: sad.Solution
    after: sad.Solution
    gradient: np.ndarray
    eta: float

    @property
    def predicted(self) -> float:
        return -self.eta * float(self.gradient @ self.gradient)

    @property
    def actual(self) -> float:
        return float(self.after.y[0] - self.before.y[0])


def take(problem, theta, eta, **options) -> Step:
    """Solve, differentiate once in adjoint mode, step, and solve again."""
    before = sad.solve(problem, theta, tol=1e-12, **options)
    first = np.eye(before.y.size)[0]
    gradient = sad.vjp(problem, before, first, rtol=1e-12).x
    after = sad.solve(problem, theta - eta * gradient, tol=1e-12, **options)
    return Step(int(problem.objective.classes[0]), before, after, gradient, eta)


def report(step: Step) -> None:
    """Print the two points and how well the derivative predicts the second."""
    for name, solution in (("before", step.before), ("after", step.after)):
        ell = softmax_at(solution.x, solution.y)[0][step.i]
        print(
            f"{name:7s} y = ({solution.y[0]:+.4f}, {solution.y[1]:+.4f}), "
            f"likelihood {ell:.4f}"
        )
    print(
        f"step eta = {step.eta:g}: change of y_1 {step.actual:+.4e}, "
        f"predicted {step.predicted:+.4e}"
    )


def draw(path, step: Step, limits, outline) -> None:
    """Draw both surfaces; ``outline(axes, k)`` draws the constraint on panel k."""
    likelihoods = [
        lambda points, theta=s.x: _likelihood(theta, points, step.i)
        for s in (step.before, step.after)
    ]
    side = np.linspace(*limits, 101)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    top = max(f(grid).max() for f in likelihoods)
    levels = MaxNLocator(15).tick_values(0.0, top)
    with rc_context(STYLE):
        figure = canvas(7.7, 3.7)
        figure.get_layout_engine().set(wspace=0.06)
        both = figure.subplots(1, 2, sharey=True)
        titles = ("before", rf"after a step $\eta = {step.eta:g}$")
        for k, (axes, f) in enumerate(zip(both, likelihoods, strict=True)):
            filled = surface(axes, f, limits, levels)
            outline(axes, k)
            axes.set(xlabel="$x_1$", title=titles[k])
        old, new = step.before.y, step.after.y
        both[0].set_ylabel("$x_2$")
        both[0].plot(*old, "o", color=RED, ms=7, mec="white", mew=1.0, zorder=5)
        both[1].plot(*old, "o", mfc="none", mec="white", ms=7, mew=1.2, zorder=4)
        both[1].plot(*new, "o", color=RED, ms=7, mec="white", mew=1.0, zorder=5)
        bar = figure.colorbar(filled, ax=both, shrink=0.9, aspect=30, pad=0.02)
        bar.set_label(rf"$\ell_{{{step.i}}}(\mathbf{{x}})$")
        bar.set_ticks(levels[::2])
        save(figure, path)


def _likelihood(theta, points, i):
    a, b = unpack(theta, points.shape[1])
    scores = points @ a.T + b
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores[:, i] / scores.sum(axis=1)
