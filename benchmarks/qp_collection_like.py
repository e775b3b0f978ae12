"""Convex QPs in the manner of the Maros-Meszaros collection, of fresh sizes and numbers.

    python benchmarks/qp_collection_like.py [--seed 0] [--rounds 2] [--method active_set] [--only UBH1]

Kinds with a published definition (CUTE) follow it, with sizes and data drawn; those of the Netlib
linear programs are drawn with their structure: staircases, networks, blends and growth, with
few curvatures, units over decades, dependent rows, sides of 0, 1e20 minus an offset.

There is no known solution: a solve is right where primal, dual and gap errors are ≤ 1e-7,
relative and by the rows, and f is that of PIQP or of Clarabel to 1e-6 of its terms, whichever
claims a solution (either may be wrong: both are printed).  Ratios are processor seconds
over Clarabel's, both shifted by one second.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from qp_generated import errors
from scipy import sparse

import sparse_argdiff as sad

ENDLESS = 1e20


def made(P, q, A=None, b=None, G=None, h=None, lower=None, upper=None):
    """Return the data of a program, every part of it there."""
    n = q.size
    none = sparse.csr_array((0, n))
    return {
        "P": sparse.csr_array(P),
        "q": np.asarray(q, dtype=float),
        "A": none if A is None else sparse.csr_array(A),
        "b": np.zeros(0) if b is None else np.asarray(b, dtype=float),
        "G": none if G is None else sparse.csr_array(G),
        "h": np.zeros(0) if h is None else np.asarray(h, dtype=float),
        "lower": np.full(n, -np.inf)
        if lower is None
        else np.broadcast_to(lower, n) + 0.0,
        "upper": np.full(n, np.inf)
        if upper is None
        else np.broadcast_to(upper, n) + 0.0,
    }


def differences(n, order):
    """Return the matrix of differences of an order, (n - order, n)."""
    D = sparse.eye_array(n, format="csr")
    for _ in range(order):
        D = D[1:] - D[:-1]
    return sparse.csr_array(D)


# fits under shape constraints -------------------------------------------------------
def liswet(rng):
    """Data fitted by a function whose differences of an order are >= 0."""
    n, order = int(rng.choice([1002, 4002, 10002])), int(rng.choice([2, 3, 4]))
    t = np.arange(n) / (n - 1.0)
    shapes = (np.sqrt(t), 1.0 / (0.1 + t), t**3, np.exp(-t), np.sin(4.0 * t), t**2 - t)
    c = shapes[rng.integers(len(shapes))] + 0.1 * np.sin(np.arange(n) + rng.random())
    G = -differences(n, order)
    return made(sparse.eye_array(n), -c, G=G, h=np.zeros(n - order))


def yao(rng):
    n = int(rng.choice([502, 2002, 4002]))
    c = np.sin((np.arange(1, n + 1) + rng.random()) / n)
    lower = np.full(n, -np.inf)
    lower[0], lower[-1] = 0.08, 0.0
    upper = np.full(n, np.inf)
    upper[-2:] = rng.uniform(0.0, 0.5)
    G = differences(n, 2) * rng.choice([-1.0, 1.0])
    return made(
        sparse.eye_array(n), -c, G=G, h=np.zeros(n - 2), lower=lower, upper=upper
    )


def powell20(rng):
    n = 2 * int(rng.integers(200, 5000))
    k = np.arange(1, n + 1)
    # x_k - x_{k+1} <= 1/2 - (-1)^k k, in a cycle
    steps = sparse.eye_array(n, format="csr") - sparse.eye_array(n, k=1, format="csr")
    steps = sparse.lil_array(steps)
    steps[n - 1, 0], h = -1.0, 0.5 - (-1.0) ** k * k
    h[-1] = 0.5 - n
    return made(sparse.eye_array(n), np.zeros(n), G=steps.tocsr(), h=h)


def stadat(rng):
    """Levels of a piecewise linear function between bounds on slopes and bends."""
    n = int(rng.choice([501, 2001]))
    data = np.cumsum(rng.standard_normal(n)) / np.sqrt(n)
    D1, D2 = n * differences(n, 1), n * n * differences(n, 2)
    G = sparse.vstack([D1, -D1, D2], format="csr")
    h = np.concatenate([np.full(2 * (n - 1), 1.0 + rng.random()), np.full(n - 2, 4.0)])
    count = n // 2
    P = sparse.diags_array(np.where(np.arange(n) % 2 == 0, 2.0 / count, 0.0))
    return made(P, -P @ data, G=G, h=h, lower=-1.0, upper=ENDLESS)


def ksip(rng):
    n, rows = 20, int(rng.choice([300, 1001, 3001]))
    t, j = np.arange(rows) / (rows - 1.0), np.arange(1, n + 1)
    G = -(t[:, None] ** (j - 1))
    return made(
        sparse.diags_array(1.0 / j), 1.0 / j, G=G, h=-np.tan(t * rng.uniform(0.8, 1.0))
    )


def laser(rng):
    n = int(rng.choice([202, 1002]))
    x = np.sort(rng.random((n, 3)), axis=0)
    d = np.linalg.norm(x[:, None] - x[None], axis=2)
    P = np.where(d < 0.02, 1.0, 0.0) * rng.random() + 2.0 * n * np.eye(n)
    G = differences(n, 2)
    return made(
        P,
        rng.standard_normal(n),
        G=sparse.vstack([G, -G]),
        h=np.full(2 * (n - 2), 1e-4),
    )


# control ----------------------------------------------------------------------------
def cont(rng):
    """Boundary control of a Laplace equation; the x01 kind has no curvature of the control."""
    N, flat = int(rng.choice([20, 50, 80])), bool(rng.random() < 0.4)
    size = N + 1
    place = np.arange(size * size).reshape(size, size)
    inner = place[1:-1, 1:-1].ravel()
    row = np.arange(inner.size)
    triples = [(row, inner, np.full(row.size, 4.0))]
    less = np.full(row.size, -1.0)
    triples += [(row, inner + shift, less) for shift in (1, -1, size, -size)]
    i, j, v = (np.concatenate(part) for part in zip(*triples, strict=True))
    A = sparse.csr_array((v, (i, j)), shape=(row.size, size * size))
    used = np.flatnonzero(np.asarray(abs(A).sum(axis=0)).ravel() > 0.0)
    s = np.linspace(0.0, 1.0, size)
    target = (1.0 - (1.0 - s)[:, None] * s[None, :] * 4.0).ravel()
    weight = np.full(size * size, 1.0 / N**2)
    border = np.ones((size, size), dtype=bool)
    border[1:-1, 1:-1] = False
    weight[border.ravel()] = 0.0 if flat else 0.01 / N
    q = -weight * target - np.where(border.ravel(), 1e-3 / N, 0.0) * flat
    lower, upper = np.zeros(size * size), np.full(size * size, rng.uniform(0.4, 0.8))
    upper[border.ravel()] = 1.0
    return made(
        sparse.diags_array(weight[used]),
        q[used],
        A[:, used],
        np.full(row.size, rng.uniform(1.0, 6.0) / N**2),
        lower=lower[used],
        upper=upper[used],
    )


def ubh1(rng):
    """A point mass in space is brought to rest; only the bounded forces cost."""
    steps = int(rng.choice([100, 500, 1500]))
    h, n = 1000.0 / steps, 9 * (steps + 1)
    at = np.arange(n).reshape(steps + 1, 9)  # position, velocity, force
    rows, columns, values, row = [], [], [], 0
    for part in (0, 3):
        for axis in range(3):
            lines = row + np.arange(steps)
            y, slope = part + axis, part + axis + 3
            for column, value in (
                (at[1:, y], 1.0),
                (at[:-1, y], -1.0),
                (at[1:, slope], -h / 2),
                (at[:-1, slope], -h / 2),
            ):
                rows.append(lines)
                columns.append(column)
                values.append(np.full(steps, value))
            row += steps
    A = sparse.csr_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
        shape=(row, n),
    )
    lower, upper = np.full(n, -np.inf), np.full(n, np.inf)
    lower[at[:, 6:].ravel()], upper[at[:, 6:].ravel()] = -0.01, 0.01
    lower[at[0, :6]] = upper[at[0, :6]] = (
        1000.0 * rng.standard_normal(6) * [1, 1, 1, 1e-3, 1e-3, 1e-3]
    )
    lower[at[-1, :6]] = upper[at[-1, :6]] = np.zeros(6)
    weight = np.zeros(n)
    weight[at[:, 6:].ravel()] = h
    return made(
        sparse.diags_array(weight),
        np.zeros(n),
        A,
        np.zeros(row),
        lower=lower,
        upper=upper,
    )


def dtoc3(rng):
    steps = int(rng.choice([300, 2000, 5000]))
    n = 3 * steps - 1
    x1, x2 = np.arange(steps), steps + np.arange(steps)
    u, S = 2 * steps + np.arange(steps - 1), 1.0 / steps
    k = np.arange(steps - 1)
    one = np.ones(steps - 1)
    rows = np.concatenate(
        [k, k, k, k + steps - 1, k + steps - 1, k + steps - 1, k + steps - 1]
    )
    columns = np.concatenate([x1[1:], x1[:-1], x2[:-1], x2[1:], x2[:-1], x1[:-1], u])
    values = np.concatenate([-one, one, S * one, -one, one, -S * one, S * one])
    start = sparse.csr_array((np.ones(2), ([0, 1], [0, steps])), shape=(2, n))
    A = sparse.vstack(
        [sparse.csr_array((values, (rows, columns)), shape=(2 * steps - 2, n)), start]
    )
    b = np.zeros(A.shape[0])
    b[-2:] = 15.0 * rng.random(), 5.0 * rng.random()
    weight = np.concatenate(
        [
            4.0 * S * np.ones(steps),
            2.0 * S * np.ones(steps),
            12.0 * S * np.ones(steps - 1),
        ]
    )
    return made(sparse.diags_array(weight), np.zeros(n), A, b)


def aug(rng):
    """Flows on the edges of a grid; some kinds have no cost on the border, some x >= 0."""
    shape = (
        (int(rng.integers(20, 80)),) * 2
        if rng.random() < 0.5
        else (int(rng.integers(6, 16)),) * 3
    )
    place = np.arange(int(np.prod(shape))).reshape(shape)
    ends = []
    for axis in range(len(shape)):
        low = np.take(place, range(shape[axis] - 1), axis).ravel()
        high = np.take(place, range(1, shape[axis]), axis).ravel()
        ends.append(np.stack([low, high]))
    low, high = np.concatenate(ends, axis=1)
    edges = np.arange(low.size)
    A = sparse.csr_array(
        (np.ones(edges.size), (low, edges)), shape=(place.size, edges.size)
    )
    A = A - sparse.csr_array((np.ones(edges.size), (high, edges)), shape=A.shape)
    extra = sparse.eye_array(place.size, format="csr")[:, : place.size // 2]
    A = sparse.csr_array(sparse.hstack([A, extra]))
    n = A.shape[1]
    weight = np.ones(n)
    if rng.random() < 0.5:
        weight[rng.random(n) < 0.1] = 0.0
    bounded = rng.random() < 0.6
    return made(
        sparse.diags_array(weight),
        0.1 * np.ones(n) * bounded,
        A,
        A @ rng.random(n),
        lower=0.0 if bounded else None,
    )


def gouldqp(rng):
    n = int(rng.choice([199, 349]))
    knots, heights = np.arange(n + 1), n + 1 + np.arange(n)
    total = 2 * n + 1
    k = np.arange(n)
    A = sparse.csr_array(
        (
            np.concatenate([np.ones(n), -np.ones(n), -np.ones(n)]),
            (np.tile(k, 3), np.concatenate([knots[1:], knots[:-1], heights])),
        ),
        shape=(n, total),
    )
    D = sparse.csr_array((total, total))
    D = sparse.lil_array(D)
    for i in range(n - 1):
        D[heights[i], heights[i]] = 1.0
        D[heights[i], heights[i + 1]] = -1.0
    D = D.tocsr()
    lower = np.concatenate([1.0 + knots / 10.0, np.full(n, 0.4)])
    upper = np.concatenate(
        [1.5 + knots / 10.0, np.full(n, 0.6 if rng.random() < 0.5 else ENDLESS)]
    )
    P = D.T @ D
    if rng.random() < 0.5:
        P = P + sparse.diags_array(np.r_[np.zeros(n + 1), np.ones(n)])
    inside = lower + rng.random(total) * np.minimum(upper - lower, 1.0)
    return made(P, np.zeros(total), A, A @ inside, lower=lower, upper=upper)


# huge scales, dense parts ----------------------------------------------------------
def hues(rng):
    """Two rows of integrals with entries up to 1e11 and y >= 0 of which P knows little."""
    n = int(rng.choice([1000, 10000]))
    r = (np.arange(1, n + 1) - 0.5) / n
    modest = rng.random() < 0.5
    scale = 1.0 if modest else 1e8
    A = scale * np.stack([r**2 * 8.0, r**4 * 12.0])
    y = np.maximum(0.0, 5.0 - 4.0 * r + rng.standard_normal(n))
    return made(2.0 * sparse.eye_array(n), np.zeros(n), A, A @ y * 1e3, lower=0.0)


def boyd1(rng):
    n, p = int(rng.choice([3000, 20000])), 18
    A = sparse.random_array(
        (p, n),
        density=0.3,
        rng=rng,
        data_sampler=lambda size: 1.0 + rng.integers(0, 9, size),
    )
    weight = 10.0 ** rng.uniform(-4.0, 1.0, n)
    y = rng.random(n) * (rng.random(n) < 0.3) * 100.0
    return made(
        sparse.diags_array(weight),
        -rng.random(n) * 10.0,
        A,
        A @ y,
        lower=0.0,
        upper=1e6,
    )


def boyd2(rng):
    """Chains of short rows with two columns that all of them have; hardly a curvature."""
    n = int(rng.choice([1500, 8000]))
    k = np.arange(n - 1)
    G = sparse.csr_array((np.ones(n - 1), (k, k)), shape=(n - 1, n + 2))
    G = G - sparse.csr_array((np.ones(n - 1), (k, k + 1)), shape=G.shape)
    wide = sparse.csr_array(
        (rng.choice([-1.0, 1.0], n - 1), (k, np.full(n - 1, n))), shape=G.shape
    )
    G = sparse.vstack(
        [
            G + wide,
            wide - G,
            sparse.csr_array(
                (np.ones(n), (np.arange(n), np.full(n, n + 1))), shape=(n, n + 2)
            )
            - sparse.eye_array(n, n + 2),
        ]
    )
    y = rng.random(n + 2)
    weight = np.zeros(n + 2)
    weight[[n, n + 1]] = 1e-3, 1.0
    h = G @ y + rng.exponential(0.1, G.shape[0]) * (rng.random(G.shape[0]) < 0.5)
    return made(
        sparse.diags_array(weight),
        rng.exponential(1.0, n + 2) - 0.1,
        G=G,
        h=h,
        lower=-1.0,
        upper=1e5,
    )


def exdata(rng):
    n = int(rng.choice([150, 600]))
    X = rng.standard_normal((n // 3, n)) * 10.0 ** rng.uniform(-3.0, 0.0, n)
    P = X.T @ X / n + 1e-12 * np.eye(n) * (rng.random() < 0.5)
    P = 0.5 * (P + P.T)
    p = np.ones((1, n))
    return made(P, -1e-2 * rng.random(n), p, [1.0], lower=0.0, upper=0.06)


def primal(rng):
    n, rows = int(rng.choice([325, 745, 1489])), int(rng.choice([8, 85]))
    G = sparse.random_array(
        (rows, n), density=0.2, rng=rng, data_sampler=rng.standard_normal
    )
    weight = np.ones(n)
    weight[0] = 0.0
    q = np.zeros(n)
    q[0] = -1.0
    first = sparse.csr_array(
        (np.ones(rows), (np.arange(rows), np.zeros(rows, dtype=int))), shape=G.shape
    )
    upper = np.full(n, np.inf)
    upper[rng.random(n) < 0.1] = ENDLESS - 17.0
    return made(
        sparse.diags_array(weight),
        q,
        G=sparse.csr_array(G) + first,
        h=rng.random(rows),
        upper=upper,
    )


def dual(rng):
    n = int(rng.choice([75, 111]))
    X = rng.standard_normal((n - 15, n))
    return made(X.T @ X, np.zeros(n), np.ones((1, n)), [1.0], lower=0.0, upper=1.0)


def dualc(rng):
    n, rows = int(rng.integers(7, 10)), int(rng.choice([215, 503]))
    X = 30.0 * rng.standard_normal((n, n))
    G = -rng.integers(1, 200, (rows, n)).astype(float)
    return made(
        X.T @ X,
        100.0 * rng.standard_normal(n),
        np.ones((1, n)),
        [1.0],
        G,
        np.full(rows, -1.0),
        0.0,
        1.0,
    )


def mosarqp(rng):
    n, rows = int(rng.choice([900, 2500])), int(rng.choice([30, 600]))
    G = sparse.random_array((rows, n), density=4.0 / n, rng=rng)
    R = sparse.random_array(
        (n, n), density=0.5 / n, rng=rng, data_sampler=rng.standard_normal
    )
    P = sparse.csr_array(R.T @ R) + sparse.diags_array(rng.random(n))
    return made(P, -10.0 * rng.random(n), G=G, h=rng.random(rows), lower=0.0)


def cvxqp(rng):
    n = int(rng.choice([100, 1000, 2000]))
    m = int(n * rng.choice([0.25, 0.5, 0.75]))
    i = np.arange(1, n + 1)
    one = np.ones(n)
    S = sparse.csr_array((one, (i - 1, i - 1)), shape=(n, n))
    for f in (2, 3):
        S = S + sparse.csr_array((one, (i - 1, (f * i - 1) % n)), shape=(n, n))
    P = S.T @ sparse.diags_array(i.astype(float)) @ S
    j = i[:m]
    A = sparse.csr_array((np.ones(m), (j - 1, j - 1)), shape=(m, n))
    for f, v in ((4, 2.0), (5, 3.0)):
        A = A + sparse.csr_array(
            (np.full(m, v), (j - 1, (f * j - 1) % n)), shape=(m, n)
        )
    y = np.full(n, rng.choice([0.5, 1.0, 5.0])) + 0.1 * rng.random(n) * (
        rng.random() < 0.5
    )
    return made(P, np.zeros(n), A, A @ y, lower=0.1, upper=10.0)


# linear programs with a few curvatures ------------------------------------------------
def few_curvatures(rng, n):
    """Return P of a few coupled variables, as the Q problems have."""
    k = int(min(n, rng.integers(2, 60)))
    R = sparse.random_array(
        (k, k), density=min(1.0, 3.0 / k), rng=rng, data_sampler=rng.standard_normal
    )
    block = R.T @ R + sparse.diags_array(rng.random(k) + 1e-3)
    place = rng.choice(n, k, replace=False)
    E = sparse.csr_array((np.ones(k), (np.arange(k), place)), shape=(k, n))
    return sparse.csr_array(E.T @ block @ E) * 10.0 ** rng.uniform(-3.0, 3.0)


def staircase(rng):
    """Periods of which each has rows of its own and takes over stocks (QSC*, QSTAIR, QPCSTAIR)."""
    periods, width, rows = (
        int(rng.integers(4, 12)),
        int(rng.integers(10, 40)),
        int(rng.integers(6, 20)),
    )
    blocks = [[None] * periods for _ in range(periods)]
    for t in range(periods):
        blocks[t][t] = sparse.random_array(
            (rows, width), density=0.25, rng=rng, data_sampler=rng.standard_normal
        )
        if t:
            blocks[t][t - 1] = -sparse.random_array(
                (rows, width), density=0.08, rng=rng
            )
    A = sparse.csr_array(sparse.block_array(blocks))
    return program_of(rng, A, share=rng.uniform(0.2, 0.8))


def network(rng):
    """Flows with capacities and a dependent row in each component (QSHIP*, QSHELL, QSIERRA)."""
    nodes, n = int(rng.integers(40, 250)), int(rng.integers(300, 1500))
    tail, head = rng.integers(nodes, size=(2, n))
    keep = tail != head
    tail, head, n = tail[keep], head[keep], int(keep.sum())
    A = sparse.csr_array((np.ones(n), (tail, np.arange(n))), shape=(nodes, n))
    A = A - sparse.csr_array((np.ones(n), (head, np.arange(n))), shape=(nodes, n))
    return program_of(rng, A, share=1.0, units=False)


def blend(rng):
    """Ratios of mixtures: most sides are 0, and y = 0 is a degenerate vertex (QPCBLEND, QE226)."""
    n, rows = int(rng.integers(60, 300)), int(rng.integers(30, 150))
    G = sparse.random_array(
        (rows, n), density=0.1, rng=rng, data_sampler=rng.standard_normal
    )
    data = program_of(rng, sparse.csr_array(G), share=rng.uniform(0.1, 0.5))
    h = data["h"].copy()
    h[rng.random(h.size) < 0.7] = 0.0
    feasible = np.maximum(data["G"] @ data.pop("inside"), 0.0)
    return data | {"h": np.maximum(h, feasible)}


def growth(rng):
    """Leontief production over periods, upper bounds alone hold it (QGROW*)."""
    periods, goods = int(rng.integers(5, 15)), int(rng.integers(10, 25))
    C = np.eye(goods) - 0.9 * rng.random((goods, goods)) / goods
    blocks = [[None] * (2 * periods) for _ in range(periods)]
    for t in range(periods):
        blocks[t][t] = sparse.csr_array(C)
        blocks[t][periods + t] = -sparse.eye_array(goods)
        if t:
            blocks[t][periods + t - 1] = sparse.eye_array(goods) * 0.8
    A = sparse.csr_array(sparse.block_array(blocks))
    data = program_of(rng, A, share=1.0)
    return data | {
        "q": np.where(
            rng.random(data["q"].size) < 0.3, data["q"], np.maximum(data["q"], 0.0)
        )
    }


def program_of(rng, rows, share, units=True):
    """Return a program of the rows, a share of them equations, that has a solution.

    q makes y >= 0 and multipliers, many of them 0, stationary up to forces of bounds; the units
    of rows and variables differ by decades.
    """
    n = rows.shape[1]
    y = rng.exponential(1.0, n) * (rng.random(n) < 0.4) * 10.0 ** rng.uniform(0.0, 4.0)
    equal = rng.random(rows.shape[0]) < share
    A, G = rows[equal], rows[~equal]
    if A.shape[0] > 3:  # rows that others span
        A = sparse.vstack([A, A[:1] - A[1:2], A[2:3]], format="csr")
    P = few_curvatures(rng, n)
    size = 10.0 ** rng.uniform(0.0, 3.0)
    nu = size * rng.standard_normal(A.shape[0]) * (rng.random(A.shape[0]) < 0.7)
    z = size * rng.exponential(1.0, G.shape[0]) * (rng.random(G.shape[0]) < 0.4)
    force = size * rng.exponential(1.0, n) * (y == 0.0) * (rng.random(n) < 0.8)
    slack = rng.exponential(1.0, G.shape[0]) * y.max() * (z == 0.0)
    q = force - P @ y - A.T @ nu - G.T @ z
    D = 10.0 ** rng.uniform(-2.0, 2.0, n) if units else np.ones(n)
    R = [
        10.0 ** rng.uniform(-1.0, 1.0, M.shape[0]) if units else np.ones(M.shape[0])
        for M in (A, G)
    ]
    inverse = sparse.diags_array(1.0 / D)
    upper = np.where(rng.random(n) < 0.2, ENDLESS - 100.0, np.inf)
    upper = np.where(
        rng.random(n) < 0.2, D * (y + rng.exponential(y.mean() + 0.1, n)), upper
    )
    return made(
        inverse @ P @ inverse,
        q / D,
        sparse.diags_array(R[0]) @ A @ inverse,
        R[0] * (A @ y),
        sparse.diags_array(R[1]) @ G @ inverse,
        R[1] * (G @ y + slack),
        lower=0.0,
        upper=upper,
    ) | {"inside": D * y}


KINDS = {
    f.__name__: f
    for f in (
        liswet,
        yao,
        powell20,
        stadat,
        ksip,
        laser,
        cont,
        ubh1,
        dtoc3,
        aug,
        gouldqp,
        hues,
        boyd1,
        boyd2,
        exdata,
        primal,
        dual,
        dualc,
        mosarqp,
        cvxqp,
        staircase,
        network,
        blend,
        growth,
    )
}


def clarabel_of(data):
    """Return Clarabel's value, its error, and the seconds; None where it claims no solution."""
    import clarabel

    n = data["q"].size
    upper = np.where(data["upper"] >= 1e19, np.inf, data["upper"])
    equal = data["lower"] == upper
    low = np.flatnonzero(np.isfinite(data["lower"]) & ~equal)
    high = np.flatnonzero(np.isfinite(upper) & ~equal)
    eye = sparse.eye_array(n, format="csr")
    rows = [data["A"], eye[equal], data["G"], -eye[low], eye[high]]
    sides = [data["b"], upper[equal], data["h"], -data["lower"][low], upper[high]]
    sides = np.concatenate(sides)
    p = data["b"].size + int(equal.sum())
    options = clarabel.DefaultSettings()
    options.verbose = False
    start = time.process_time()
    solver = clarabel.DefaultSolver(
        sparse.csc_matrix(sparse.triu(data["P"])),
        data["q"],
        sparse.csc_matrix(sparse.vstack([sparse.csr_array(r) for r in rows])),
        sides,
        [clarabel.ZeroConeT(p), clarabel.NonnegativeConeT(sides.size - p)],
        options,
    )
    found = solver.solve()
    seconds = time.process_time() - start
    solved = str(found.status) == "Solved"
    return (value_of(data, np.array(found.x)) if solved else None), seconds


def piqp_of(data):
    """Return PIQP's value, None where it claims no solution."""
    import piqp

    solver = piqp.SparseSolver()
    solver.settings.eps_abs = solver.settings.eps_rel = 1e-9
    solver.settings.eps_duality_gap_abs = solver.settings.eps_duality_gap_rel = 1e-9
    solver.settings.max_iter = 500
    P, A, G = (sparse.csc_matrix(data[name]) for name in "PAG")
    upper = np.where(data["upper"] >= 1e19, np.inf, data["upper"])
    solver.setup(
        P,
        data["q"],
        A,
        data["b"],
        G,
        np.full(data["h"].size, -np.inf),
        data["h"],
        data["lower"],
        upper,
    )
    solved = solver.solve() == piqp.PIQP_SOLVED
    return value_of(data, np.array(solver.result.x)) if solved else None


def value_of(data, y):
    return float(0.5 * y @ (data["P"] @ y) + data["q"] @ y)


def judged(data, method):
    """Return how a solve ended, its value and the seconds."""
    problem = sad.QuadraticProgram(**data)
    x = problem.pack()
    start = time.process_time()
    try:
        solution = sad.solve(problem, x, method=method)
    except sad.ConvergenceError as error:
        return f"REFUSED {error.status.name}", None, time.process_time() - start
    seconds = time.process_time() - start
    wrong = errors(data, solution)
    end = (
        "right"
        if max(wrong) <= 1e-7
        else "WRONG " + " ".join(f"{e:.0e}" for e in wrong)
    )
    settled = not any("did not settle" in note for note in solution.warnings)
    return end + ("" if settled else " (unsettled)"), solution.value, seconds


def apart(data, value, other):
    """Return the difference of two values, relative to them and the terms they have."""
    if value is None or other is None:
        return np.nan
    return abs(value - other) / max(abs(value), abs(other), 1e-6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--method")
    parser.add_argument("--only", nargs="*", default=list(KINDS))
    options = parser.parse_args()
    ends, ours, theirs = {}, [], []
    for kind in options.only:
        for i in range(options.rounds):
            rng = np.random.default_rng([options.seed, i, sorted(KINDS).index(kind)])
            data = KINDS[kind](rng)
            data.pop("inside", None)
            end, value, seconds = judged(data, options.method)
            (reference, other), first = clarabel_of(data), piqp_of(data)
            off = [apart(data, value, r) for r in (first, reference)]
            if end.startswith("right") and np.isnan(off).all():
                end += ", no reference"
            elif end.startswith("right") and not np.nanmin(off) <= 1e-6:
                end = "DIFFERENT"
            ours.append(seconds)
            theirs.append(other)
            ends[end.split(" 1", 1)[0]] = ends.get(end, 0) + 1
            n, rows = data["q"].size, data["b"].size + data["h"].size
            print(
                f"{kind:10} {i} n={n:6} rows={rows:6} {end:24} "
                f"PIQP {off[0]:.0e} Clarabel {off[1]:.0e}  "
                f"{seconds:7.2f} s {other:7.2f} s {seconds / other:7.1f}",
                flush=True,
            )
    means = [np.exp(np.mean(np.log(1.0 + np.array(v)))) - 1.0 for v in (ours, theirs)]
    print(
        ends,
        f"shifted means {means[0]:.3f} and {means[1]:.3f} s, ratio {means[0] / means[1]:.2f}",
    )


if __name__ == "__main__":
    main()
