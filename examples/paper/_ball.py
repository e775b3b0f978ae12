"""Any solver will do: a maximum in the unit ball by Newton's method made for it.

    z = argmin_{||z|| <= 1} g'(z − y) + 1/2 (z − y)'H(z − y),      y <- y + alpha (z − y)

The quadratic models are minimised in the ball itself, by the secular equation of Moré and
Sorensen, so that the multiplier is accurate however small it is: soft-max classifiers with
large weights have multipliers of 1e-8.  Small dimensions only: each step takes an
eigendecomposition.
"""

from __future__ import annotations

import numpy as np
from _softmax import Softmax

import sparse_argdiff as sad

FLAT = 1e-30  # a likelihood that is 1 to thirty digits has no likeliest point


def maximum_in_ball(problem, theta, y0, tol) -> sad.Solution:
    """Solve ``Softmax.unit_ball()`` class by class; a ``method`` of ``sad.solve``.

    Stops when a full step is shorter than ``tol``: what is left is of order tol^2.
    """
    whole = problem.objective
    points, multipliers, status = [], [], sad.Status.CONVERGED
    for i, start in zip(whole.classes, whole.rows(y0), strict=True):
        one = Softmax(whole.m, whole.n_features, i)
        y, nu, ended = _maximum(one, theta, start, tol)
        points.append(y)
        multipliers.append(nu)
        status = status if ended is sad.Status.CONVERGED else ended
    y, nu = np.concatenate(points), np.array(multipliers)
    return sad.Solution(
        y=y,
        x=theta,
        value=whole.value(theta, y),
        multipliers=nu,
        active=_active(nu, whole.n),
        status=status,
    )


def _maximum(one, theta, start, tol, maxiter=200):
    y = start / max(1.0, float(np.linalg.norm(start)))
    for _ in range(maxiter):
        g, H = -one.grad(theta, y), -one.hess(theta, y).todense()
        if np.linalg.norm(g) + np.linalg.norm(H) < FLAT * one.scale(theta):
            return y, 0.0, sad.Status.SINGULAR
        z, nu = model_minimum(H, g - H @ y)
        d, value, length = z - y, one.value(theta, y), 1.0
        if np.linalg.norm(d) <= tol:
            return z, nu, sad.Status.CONVERGED
        slope, noise = g @ d, 1e-15 * (abs(value) + np.linalg.norm(g))
        while one.value(theta, y + length * d) < value - 1e-4 * length * slope - noise:
            length *= 0.5
            if length < 1e-10:
                return y, nu, sad.Status.LINE_SEARCH_FAILED
        y = y + length * d
    return y, nu, sad.Status.ITERATION_LIMIT


def model_minimum(H, c):
    """Return argmin_{||z|| <= 1} 1/2 z'Hz + c'z and its multiplier nu of ||z||^2 <= 1.

    (H + 2 nu I) z = −c; Newton's method on 1/||z|| = 1, from below, where it is monotone.
    """
    w, V = np.linalg.eigh(H)
    w = np.maximum(w, 1e-16 * w.max())
    c = V.T @ c
    size = float(np.linalg.norm(c))
    if np.all(np.abs(c) <= w) and np.linalg.norm(c / w) <= 1.0:
        return -V @ (c / w), 0.0
    shift = max(1e-20 * size, size - w.max())  # 2 nu
    for _ in range(100):
        z = -c / (w + shift)
        length = np.linalg.norm(z)
        step = (length - 1.0) * length**2 / np.sum(z**2 / (w + shift))
        shift += step
        if step <= 1e-15 * shift:
            break
    z = -c / (w + shift)
    return V @ (z / np.linalg.norm(z)), 0.5 * shift


def _active(nu, n) -> sad.ActiveSet:
    held, none = nu > 0.0, np.zeros(n, dtype=bool)
    return sad.ActiveSet(held, np.zeros_like(held), none, none)
