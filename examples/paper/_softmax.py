"""The soft-max classifier (sections 3.3 and 4.4): its most likely feature vectors.

    g_i(theta) = argmax_y log ell_i(y),    ell_i(y) = exp(a_i'y + b_i) / sum_j exp(a_j'y + b_j)

theta = (a, b) holds m vectors a_j of n features, row by row, then m numbers b_j: these
are the parameters x of the package, and the feature vector is its y (the paper's x).
``Softmax`` is the problem in products of O(mn); ``closed_form`` is what the paper prints,
as dense matrices, corrected where ``docs/paper.md`` says so.
"""

from __future__ import annotations

import numpy as np
from scipy import optimize, sparse, special

import sparse_argdiff as sad


class Softmax:
    """f(theta, y) = sum_i log ell_i(y_i) for some classes i: y stacks their y_i.

    Parameters
    ----------
    m, n_features : int
        Classes and dimensions.
    classes : sequence of int, optional
        Those whose likelihood is maximised; all of them by default.
    """

    def __init__(self, m: int, n_features: int, classes=None) -> None:
        self.m, self.n_features = m, n_features
        self.classes = np.arange(m) if classes is None else np.atleast_1d(classes)
        self.n = self.classes.size * n_features

    def split(self, theta):
        """Return a (m, n_features) and b (m,)."""
        return unpack(theta, self.n_features)

    def rows(self, y):
        """Return y with one feature vector a row."""
        return y.reshape(self.classes.size, self.n_features)

    def _scores(self, theta, y):
        """Return the scores of each row relative to that of its own class."""
        a, b = self.split(theta)
        rows = np.arange(self.classes.size)
        scores = self.rows(y) @ a.T + b
        return scores - scores[rows, self.classes][:, None]

    def likelihoods(self, theta, y):
        """Return ell_j(y_i), one row for each i."""
        return special.softmax(self._scores(theta, y), axis=1)

    def _others(self, weights):
        """Return the weights (i, j, ...) with those of the own class i zero."""
        weights[np.arange(self.classes.size), self.classes] = 0.0
        return weights

    def value(self, theta, y):
        """Return the sum of − log(1 + sum of exp(score) of the other classes)."""
        scores = self._scores(theta, y)
        self._others(scores)[np.arange(self.classes.size), self.classes] = -np.inf
        return -float(np.sum(np.logaddexp(0.0, special.logsumexp(scores, axis=1))))

    def grad(self, theta, y):
        """Return a_i − abar for each i (29), as sum_j ell_j (a_i − a_j): no cancellation."""
        a, _ = self.split(theta)
        return self._from_own(a, self._others(self.likelihoods(theta, y))).ravel()

    def _from_own(self, a, weights):
        """Return sum_j w_ij (a_i − a_j) for each i; where w_ii is 0 it costs no digits."""
        return weights.sum(axis=1)[:, None] * a[self.classes] - weights @ a

    def scale(self, theta):
        """Return the size of the terms that cancel in the gradient."""
        return float(np.linalg.norm(self.split(theta)[0][self.classes]))

    def hess(self, theta, y):
        """Return − sum_j ell_j (a_j − abar)(a_j − abar)', which is (30), block by block."""
        a, _ = self.split(theta)
        ell = self.likelihoods(theta, y)
        k, n = self.classes.size, self.n_features
        own = a[self.classes]

        def product(V):
            V = V.reshape(k, n, -1)
            z = (
                np.einsum("jp,ipc->ijc", a, V)
                - np.einsum("ip,ipc->ic", own, V)[:, None]
            )
            z = self._others(z)  # zero but for rounding
            z -= np.einsum("ij,ijc->ic", ell, z)[:, None]
            w = self._others(ell[:, :, None] * z)
            total = w.sum(axis=1)[:, None] * own[:, :, None]
            return (total - np.einsum("ijc,jp->ipc", w, a)).reshape(k * n, -1)

        def diagonal():
            means = own - self.grad(theta, y).reshape(k, n)
            centred = a[None] - means[:, None]
            return -np.einsum("ij,ijp->ip", ell, centred**2).ravel()

        return sad.LinearOperator(
            (self.n, self.n),
            lambda v: product(v)[:, 0],
            matmat=product,
            dtype=y.dtype,
            symmetric=True,
            diagonal=diagonal,
        )

    def cross(self, theta, y):
        """Return the derivative of the gradient by all of theta, (31) and (32)."""
        a, _ = self.split(theta)
        ell, rows, own = self.likelihoods(theta, y), self.rows(y), self.classes
        index = np.arange(own.size)
        others = self._others(ell.copy())

        def forward(u):
            da, db = self.split(u)
            ds = rows @ da.T + db
            ds = ds - ds[index, own][:, None]
            change = self._others(ell * (ds - np.sum(ell * ds, axis=1, keepdims=True)))
            return (self._from_own(da, others) + self._from_own(a, change)).ravel()

        def adjoint(w):
            W = self.rows(w)
            q = W @ a.T
            q = q - q[index, own][:, None]  # (a_j − a_i)'w_i
            q = self._others(ell * (q - np.sum(ell * q, axis=1, keepdims=True)))
            pull = others.copy()
            q[index, own], pull[index, own] = -q.sum(axis=1), -pull.sum(axis=1)
            return pack(-(pull.T @ W) - q.T @ rows, -q.sum(axis=0))

        size = self.m * (self.n_features + 1)
        return sad.LinearOperator((self.n, size), forward, adjoint, dtype=y.dtype)

    # the three problems ---------------------------------------------------------------

    def free(self) -> sad.Problem:
        """Return the problem without constraints, (27)."""
        return sad.Problem(self, maximize=True)

    def sum_to_one(self) -> sad.Problem:
        """Return the problem with 1'y_i = 1, (73)."""
        k = self.classes.size
        A = sparse.kron(sparse.eye_array(k), np.ones((1, self.n_features)), "csr")
        equality = sad.LinearEquality(A, np.ones(k))
        return sad.Problem(self, equality=equality, maximize=True)

    def unit_ball(self) -> sad.Problem:
        """Return the problem with ||y_i||^2 <= 1, (76) and (77)."""
        k, n = self.classes.size, self.n_features
        ball = sad.Inequality(
            lambda _, y: np.sum(self.rows(y) ** 2, axis=1) - 1.0,
            lambda _, y: sparse.csr_array(
                (2.0 * y, np.arange(k * n), n * np.arange(k + 1)), shape=(k, k * n)
            ),
            hess=lambda _x, _y, nu: sparse.diags_array(np.repeat(2.0 * nu, n)),
        )
        return sad.Problem(self, inequality=ball, maximize=True)


def pack(a, b):
    """Return theta of a (m, n) and b (m,)."""
    return np.concatenate([a.ravel(), b])


def unpack(theta, n):
    """Return a (m, n) and b (m,) of theta."""
    m = theta.size // (n + 1)
    return theta[: m * n].reshape(m, n), theta[m * n :]


def draw_parameters(m, n, seed):
    """Return theta with independent N(0, 1) entries, a first."""
    rng = np.random.default_rng(seed)
    return pack(rng.standard_normal((m, n)), rng.standard_normal(m))


def has_maximum(a, i) -> bool:
    """Tell whether log ell_i attains a maximum: a_i in the relative interior of the hull.

    That is a_i = sum_j w_j a_j with all w_j > 0; a linear program finds the largest
    possible least weight.  Concavity alone, of which the paper speaks, is not enough.
    """
    m, n = a.shape
    # Unknowns (w, s): maximise s where w_j >= s, A'w = a_i, sum w = 1.
    found = optimize.linprog(
        np.r_[np.zeros(m), -1.0],
        A_ub=np.hstack([-np.eye(m), np.ones((m, 1))]),
        b_ub=np.zeros(m),
        A_eq=np.vstack([np.c_[a.T, np.zeros(n)], np.r_[np.ones(m), 0.0]]),
        b_eq=np.r_[a[i], 1.0],
        bounds=[(None, None)] * (m + 1),
    )
    return bool(found.success and -found.fun > 1e-9)


# the paper's formulas -----------------------------------------------------------------


def softmax_at(theta, y):
    """Return ell (m,), abar (n,) and H (n, n), (26) and (30), at one feature vector."""
    a, b = unpack(theta, y.size)
    scores = a @ y + b
    ell = np.exp(scores - scores.max())
    ell /= ell.sum()
    centred = a - ell @ a
    return ell, ell @ a, -(centred.T * ell) @ centred


def closed_form(theta, y, i, inverse, *, stationary=True):
    """Return dg_i/dtheta (n, m(n + 1)), column by column, as the paper prints it.

    Parameters
    ----------
    inverse : array (n, n)
        What stands for H^-1: ``H^-1`` itself for (33) and (34), :func:`plane_inverse`
        for (74) and (75), :func:`ball_inverse`, :func:`barrier_inverse` for (78), (79).
    stationary : bool
        Whether ``inverse`` takes a_i − abar to 0, as in (33), (34), (74), (75) and in the
        ball.  It does not under the barrier, where the paper drops that term all the
        same: False gives the corrected (78c) and (79c).
    """
    n = y.size
    a, _ = unpack(theta, n)
    ell, mean, _ = softmax_at(theta, y)
    by_a, by_b = np.zeros((*a.shape, n)), np.zeros((a.shape[0], n))
    for j in range(a.shape[0]):
        own = j == i
        moved = np.zeros(n) if own and stationary else ell[j] * (a[j] - mean)
        for k in range(n):
            unit = np.eye(n)[k]
            by_a[j, k] = inverse @ (y[k] * moved + (ell[j] - own) * unit)
        by_b[j] = inverse @ moved
    return np.vstack([by_a.reshape(-1, n), by_b]).T


def plane_inverse(H):
    """Return H† = H^-1 − H^-1 1 1'H^-1 / 1'H^-1 1 of section 4.4."""
    return project_out(np.linalg.inv(H), np.ones(len(H)))


def ball_inverse(theta, y, i):
    """Return its like on the unit sphere, W = H − 2 nu I in the place of H.

    nu = y'(a_i − abar) / 2 is the multiplier; where it is zero the ball does not matter.
    """
    a, _ = unpack(theta, y.size)
    _, mean, H = softmax_at(theta, y)
    if y @ y < 1.0 - 1e-6:
        return np.linalg.inv(H)
    nu = 0.5 * y @ (a[i] - mean)
    return project_out(np.linalg.inv(H - 2.0 * nu * np.eye(y.size)), y)


def barrier_inverse(theta, y, t):
    """Return (H + hess phi / t)^-1 with phi = log(1 − ||y||^2), (80c) and (78c).

    Both terms of hess phi are negative; the paper's (80) has a plus, and its (78) no t.
    """
    _, _, H = softmax_at(theta, y)
    gap = 1.0 - y @ y
    phi = -4.0 / gap**2 * np.outer(y, y) - 2.0 / gap * np.eye(y.size)
    return np.linalg.inv(H + phi / t)


def project_out(W, c):
    """Return W − W c c'W / c'W c: its products are orthogonal to c."""
    Wc = W @ c
    return W - np.outer(Wc, Wc) / (c @ Wc)
