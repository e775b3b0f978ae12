"""Denoise an image by weighted total variation, whose map of weights is learned.

    g(x) = argmin_u   1/2 |u - f|^2 + sum_e h_e((D u)_e),    weights w = exp(Z x)

by its dual, in which the kinks are bounds that move with x,

    argmin_p   1/2 |D' p - f|^2 + delta/2 |p|^2   with  -w_e <= p_e <= w_e,      u = f - D' p

D takes differences of neighbours along rows and columns; h_e is w_e |.| but for a parabola
of width delta w_e, which makes p unique.  x is learned from one noisy copy of the image beside the
clean one: one weight, or a map of 5 x 5 smooth bumps.  Another noisy copy tests.

    python examples/total_variation.py                 # 64 x 64, seconds
    python examples/total_variation.py --size 256      # 130,560 dual unknowns, minutes
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
from scipy import sparse

import sparse_argdiff as sad

DELTA, NOISE, BUMPS = 0.01, 0.15, 5


def image(size):
    """Return a disc and a bar on the left, fine stripes on the right, in [0, 1]."""
    row, column = (
        (np.arange(size)[:, None] + 0.5) / size,
        (np.arange(size) + 0.5) / size,
    )
    u = np.full((size, size), 0.2)
    u[(row - 0.32) ** 2 + (column - 0.27) ** 2 < 0.04] = 0.9
    u[(row > 0.7) & (row < 0.88) & (column > 0.08) & (column < 0.45)] = 0.6
    stripes = (np.arange(size)[:, None] + np.arange(size)) // 3 % 2
    return np.where(column > 0.55, 0.25 + 0.5 * stripes, u)


def differences(size):
    """Return D (edges, pixels), along rows and then along columns, and the edges' middles."""
    d = sparse.diags_array(
        [-np.ones(size - 1), np.ones(size - 1)], offsets=[0, 1], shape=(size - 1, size)
    )
    one = sparse.eye_array(size)
    D = sparse.vstack([sparse.kron(one, d), sparse.kron(d, one)], format="csr")
    row, column = np.divmod(np.arange(size * size), size)
    middles = 0.5 * abs(D) @ np.column_stack([row, column])
    return D, (middles + 0.5) / size


def bumps(middles):
    """Return a partition of unity by products of hat functions (edges, BUMPS²)."""
    knots = np.linspace(0.0, 1.0, BUMPS)
    hats = np.maximum(1.0 - (BUMPS - 1) * np.abs(middles[:, :, None] - knots), 0.0)
    return np.einsum("ei,ej->eij", hats[:, 0], hats[:, 1]).reshape(len(middles), -1)


class Dual:
    """1/2 |D' p - f|^2 + delta/2 |p|^2, constant in x."""

    convex = True

    def __init__(self, D, f):
        self.D, self.f, self.n = D, f, D.shape[0]
        self.H = sparse.csr_array(D @ D.T + DELTA * sparse.eye_array(self.n))

    def value(self, x, p):
        """Return f."""
        u = self.f - self.D.T @ p
        return 0.5 * float(u @ u) + 0.5 * DELTA * float(p @ p)

    def grad(self, x, p):
        """Return its gradient."""
        return self.H @ p - self.D @ self.f

    def hess(self, x, p):
        """Return its Hessian, a sparse matrix."""
        return self.H

    def cross(self, x, p):
        """Return zero: x moves the bounds alone."""
        return sparse.csr_array((self.n, x.shape[0]))


def denoising(D, f, Z):
    """Return the dual problem: its bounds are -exp(Z x) and exp(Z x)."""

    def w(x):
        return np.exp(Z @ x)

    def along(x, u):
        return w(x) * (Z @ u)

    def back(x, v):
        return Z.T @ (w(x) * v)

    return sad.Problem(
        Dual(D, f),
        lower=lambda x: -w(x),
        upper=w,
        lower_jvp=lambda x, u: -along(x, u),
        lower_vjp=lambda x, v: -back(x, v),
        upper_jvp=along,
        upper_vjp=back,
    )


def distance(D, f, clean):
    """Return the mean square of u - clean, as a function of p."""

    def away(p):
        return f - D.T @ p - clean

    return sad.FunctionUpper(
        lambda _, p: float(away(p) @ away(p)) / len(f),
        lambda _, p: -2.0 / len(f) * (D @ away(p)),
    )


def decibels(u, clean):
    """Return the peak signal-to-noise ratio of an image in [0, 1]."""
    return -10.0 * np.log10(np.mean((u - clean) ** 2))


def picture(path, size, panels):
    """Save images side by side; those of the weights with a scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.1 * len(panels), 3.4))
    for axes, (title, values) in zip(
        figure.subplots(1, len(panels)), panels.items(), strict=True
    ):
        weights = "map" in title
        limits = {} if weights else {"vmin": 0, "vmax": 1}
        shown = axes.imshow(
            values.reshape(size, size), cmap="viridis" if weights else "gray", **limits
        )
        axes.set_title(title, fontsize=9)
        axes.axis("off")
        if weights:
            figure.colorbar(shown, ax=axes, shrink=0.7)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main():
    """Draw, learn, test, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--picture", type=Path, default=Path("output/total_variation.png")
    )
    arguments = parser.parse_args()
    size, rng = arguments.size, np.random.default_rng(arguments.seed)
    clean, (D, middles) = image(size).ravel(), differences(size)
    noisy, other = (clean + NOISE * rng.standard_normal(size**2) for _ in range(2))
    print(f"{size} x {size} pixels, {D.shape[0]} dual unknowns; PSNR in dB")
    print(f"{'':12s} learned from   test   evaluations  CPU s")
    print(f"{'noisy':12s} {decibels(noisy, clean):12.2f} {decibels(other, clean):6.2f}")
    panels, x0 = {"noisy": other}, np.array([np.log(NOISE)])
    for name, Z in (
        ("one weight", np.ones((D.shape[0], 1))),
        ("a map", bumps(middles)),
    ):
        start = time.process_time()
        x0 = np.full(Z.shape[1], x0[0])
        with warnings.catch_warnings():  # some edges are at a kink by chance: told
            warnings.simplefilter("ignore", sad.ConvergenceWarning)
            problem, upper = denoising(D, noisy, Z), distance(D, noisy, clean)
            found = sad.minimize(problem, upper, x0, tol=3e-3, maxiter=25)
            again = sad.solve(denoising(D, other, Z), found.x)
        seconds = time.process_time() - start
        learned, tested = noisy - D.T @ found.y, other - D.T @ again.y
        print(
            f"{name:12s} {decibels(learned, clean):12.2f} {decibels(tested, clean):6.2f} "
            f"{found.nfev:13d} {seconds:6.1f}"
        )
        panels[f"{name}: {decibels(tested, clean):.1f} dB"], x0 = tested, found.x
    spread = abs(D).T @ np.exp(Z @ found.x) / (abs(D).T @ np.ones(D.shape[0]))
    panels["the map of weights"] = spread
    panels = {key.replace("a map:", "learned:"): value for key, value in panels.items()}
    picture(arguments.picture, size, panels)
    print(f"wrote {arguments.picture}")


if __name__ == "__main__":
    main()
