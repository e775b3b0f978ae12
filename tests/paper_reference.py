"""Dense references for the tests of the paper: nothing here calls the package.

Newton's method on matrices, fourth-order differences of the solution map, and the three
formulas of section 4.1 written out.  The modules of ``examples/paper`` are on the path.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import scipy.linalg

EXAMPLES = Path(__file__).parents[1] / "examples" / "paper"
sys.path.insert(0, str(EXAMPLES))


def newton(grad, hess, y):
    """Return a zero of grad by plain Newton, with the step halved while ‖grad‖ grows."""
    y = np.array(y, dtype=float)
    for _ in range(200):
        g = grad(y)
        step = np.linalg.solve(hess(y), g)
        length = 1.0
        while length > 1e-8:
            trial = grad(y - length * step)
            if np.all(np.isfinite(trial)) and np.linalg.norm(trial) <= (
                1.0 - 1e-4 * length
            ) * np.linalg.norm(g):
                break
            length *= 0.5
        else:
            return y - step if np.linalg.norm(step) < 1e-9 else y
        y = y - length * step
        if np.linalg.norm(step) <= 1e-16 * (1.0 + np.linalg.norm(y)):
            break
    return y


def kkt_newton(grad, hess, A, b, y, hess_rows=None):
    """Return y and multipliers of min f where A(y) = b(y) rows; A, b may be functions.

    ``A(y)`` is the Jacobian of the rows, ``b(y)`` their values; ``hess_rows(y, nu)`` the
    curvature they add.
    """
    y, nu = np.array(y, dtype=float), np.zeros(b(y).size)
    for _ in range(200):
        J, h = A(y), b(y)
        H = hess(y) if hess_rows is None else hess(y) + hess_rows(y, nu)
        K = np.block([[H, J.T], [J, np.zeros((h.size, h.size))]])
        step = np.linalg.lstsq(K, -np.r_[grad(y) + J.T @ nu, h], rcond=1e-13)[0]
        y, nu = y + step[: y.size], nu + step[y.size :]
        if np.linalg.norm(step) <= 1e-13 * (1.0 + np.linalg.norm(y)):
            break
    return y, nu


def differences(g, x, h=1e-3):
    """Return the Jacobian of g at x by fourth-order central differences."""
    columns = []
    for e in np.eye(x.size):
        ys = [np.atleast_1d(g(x + s * h * e)) for s in (-2, -1, 1, 2)]
        columns.append((ys[0] - 8.0 * ys[1] + 8.0 * ys[2] - ys[3]) / (12.0 * h))
    return np.column_stack(columns)


def lemma_3_2(H, B):
    """Return − H^-1 B, (13)."""
    return -np.linalg.solve(H, B)


def lemma_4_1(H, A, B):
    """Return − F (F'HF)^-1 F'B with F a basis of the null space of A, (50)."""
    F = scipy.linalg.null_space(A)
    return -F @ np.linalg.solve(F.T @ H @ F, F.T @ B)


def lemma_4_2(H, A, B):
    """Return (H^-1 A'(A H^-1 A')^-1 A H^-1 − H^-1) B; needs H and A H^-1 A' regular."""
    HA, HB = np.linalg.solve(H, A.T), np.linalg.solve(H, B)
    return HA @ np.linalg.solve(A @ HA, A @ HB) - HB


def equation_56(H, A, B):
    """Return the two parts of − K^-1 (B, 0): of y and of the multipliers, (56)."""
    m = A.shape[0]
    K = np.block([[H, A.T], [A, np.zeros((m, m))]])
    both = np.linalg.solve(K, -np.vstack([B, np.zeros((m, B.shape[1]))]))
    return both[: len(H)], both[len(H) :]


def worst(ours, reference):
    """Return the largest difference relative to the largest entry (at least 1)."""
    return float(np.abs(ours - reference).max() / max(1.0, np.abs(reference).max()))


# the soft-max classifier, written a second time ------------------------------------------


def softmax(a, b, y):
    """Return ell, abar and H of one feature vector."""
    s = a @ y + b
    ell = np.exp(s - s.max())
    ell /= ell.sum()
    return ell, ell @ a, np.outer(ell @ a, ell @ a) - (a.T * ell) @ a


def softmax_cross(a, b, y, i):
    """Return d(a_i − abar)/dtheta (n, m(n + 1)) by (31) and (32), entry by entry."""
    ell, mean, _ = softmax(a, b, y)
    m, n = a.shape
    columns = []
    for j in range(m):
        for k in range(n):
            e = np.eye(n)[k]
            columns.append((j == i) * e - ell[j] * y[k] * (a[j] - mean) - ell[j] * e)
    columns += [-ell[j] * (a[j] - mean) for j in range(m)]
    return np.column_stack(columns)


def likeliest(theta, i, n, nu=0.0, t=None, y=None):
    """Return argmax log ell_i − nu ||y||^2, or + log(1 − ||y||^2)/t, by damped Newton.

    With t from zero, and along a path of weights up to t.
    """
    if t is not None and y is None:
        y = np.zeros(n)
        for weight in np.geomspace(min(t, 1.0), t, 1 + 2 * max(0, int(np.log10(t)))):
            y = likeliest(theta, i, n, t=weight, y=y)
        return y
    m = theta.size // (n + 1)
    a, b = theta[: m * n].reshape(m, n), theta[m * n :]

    def value(y):
        gap = 1.0 if t is None else 1.0 - y @ y
        if gap <= 0.0:
            return -np.inf
        s = a @ y + b
        top = s.max()
        likelihood = s[i] - top - np.log(np.exp(s - top).sum())
        return likelihood - nu * (y @ y) + (0.0 if t is None else np.log(gap) / t)

    y = np.zeros(n) if y is None else y
    for _ in range(200):
        _, mean, H = softmax(a, b, y)
        g, H = a[i] - mean - 2.0 * nu * y, H - 2.0 * nu * np.eye(n)
        if t is not None:
            gap = 1.0 - y @ y
            g = g - 2.0 * y / (gap * t)
            H = H - (4.0 / gap**2 * np.outer(y, y) + 2.0 / gap * np.eye(n)) / t
        step = -np.linalg.solve(H, g)
        length, here, slope = 1.0, value(y), g @ step
        while value(y + length * step) < here + 1e-4 * length * slope - 1e-15:
            length *= 0.5
            if length < 1e-12:
                return y
        y = y + length * step
        if (
            np.linalg.norm(step) <= 1e-12 * max(1.0, np.linalg.norm(y))
            or np.linalg.norm(g) <= 1e-15
        ):
            return y
    raise AssertionError("the reference did not converge")


def likeliest_in_ball(theta, i, n):
    """Return the likeliest y with ||y|| <= 1 and its multiplier.

    By bisection on the multiplier, whose last digits come from the conditions.
    """
    low, high = 1e-6, 1e3  # smaller multipliers are for other tests
    y = likeliest(theta, i, n, low)
    if y @ y < 1.0:
        return likeliest(theta, i, n), 0.0
    while high > 1.001 * low:
        nu = np.sqrt(low * high)
        y = likeliest(theta, i, n, nu, y=y)
        low, high = (nu, high) if y @ y > 1.0 else (low, nu)
    m = theta.size // (n + 1)
    a, b = theta[: m * n].reshape(m, n), theta[m * n :]
    for _ in range(6):
        _, mean, H = softmax(a, b, y)
        W = 2.0 * nu * np.eye(n) - H
        K = np.block([[W, 2.0 * y[:, None]], [2.0 * y[None], np.zeros((1, 1))]])
        step = np.linalg.solve(K, np.r_[a[i] - mean - 2.0 * nu * y, 1.0 - y @ y])
        y, nu = y + step[:n], nu + step[n]
    assert np.linalg.norm(step) <= 1e-12 * max(1.0, nu)
    return y, float(nu)
