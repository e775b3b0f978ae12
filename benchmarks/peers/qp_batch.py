"""Many small quadratic programs and their gradients: sparse_argdiff, qpax, ProxQP, cvxpylayers.

    python -m venv peers && peers/bin/pip install -r benchmarks/peers/requirements.txt
    PYTHONPATH=$PWD peers/bin/python benchmarks/peers/qp_batch.py [--sizes 20:5:20:128 ...]

A size n:p:r:k is k programs

    min y'y + q_i'y    s.t.   A y = 0 (p rows),   G y <= 0.3 (r rows)

with q_i = 3 · normal, A and G normal and shared.  The loss is Σ_i ‖y_i‖², and every contestant
returns its gradient by all q_i: one solve and one adjoint of each program.

    sparse_argdiff   ``solve_many`` and ``vjp_many`` with their defaults
    qpax             ``jit(vmap(grad(solve_qp_primal)))``, warm; its gradient is that of a
                     relaxed problem
    ProxQP           ``dense.QP`` and ``compute_backward``, one after another, at 1e-9
    cvxpylayers      ``CvxpyLayer`` with its defaults, on torch, where it is installed

The error is that of the gradient, in the largest norm relative to the largest entry, from
dense KKT algebra at the exact active set: the set of our solutions, proven for each program
by multipliers >= 0 and slacks >= 0 of a dense solve on it.  float64, one thread, CPU;
processor time, runs interleave, medians.
"""

from __future__ import annotations

import os

ONE_THREAD = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}
os.environ.update(ONE_THREAD)  # read when the libraries are loaded, below

import argparse
import statistics
import time

import numpy as np

import sparse_argdiff as sad


class Programs:
    """k programs of one size."""

    def __init__(self, n, p, r, k, seed):
        rng = np.random.default_rng(seed)
        self.n, self.p, self.r, self.k = n, p, r, k
        self.q = 3.0 * rng.standard_normal((k, n))
        self.P = 2.0 * np.eye(n)
        self.A, self.b = rng.standard_normal((p, n)), np.zeros(p)
        self.G, self.h = rng.standard_normal((r, n)), np.full(r, 0.3)


def reference(programs, active):
    """Return the gradient by dense KKT algebra on active sets, which are proven on the way."""
    found = []
    for q, acts in zip(programs.q, active, strict=True):
        C = np.vstack([programs.A, programs.G[acts]])
        c = np.concatenate([programs.b, programs.h[acts]])
        zero = np.zeros((C.shape[0], C.shape[0]))
        K = np.block([[programs.P, C.T], [C, zero]])
        n = programs.n
        z = np.linalg.solve(K, np.concatenate([-q, c]))
        pushes, slack = z[n + programs.p :], programs.h - programs.G @ z[:n]
        if pushes.min(initial=0.0) < 0.0 or slack[~acts].min(initial=0.0) < 0.0:
            raise AssertionError("the active set is not that of the solution")
        rhs = np.concatenate([2.0 * z[:n], 0.0 * c])
        found.append(-np.linalg.solve(K, rhs)[:n])
    return np.array(found)


def ours(programs):
    problem = sad.QuadraticProgram(
        programs.P, programs.q[0], programs.A, programs.b, programs.G, programs.h
    )

    def run():
        solutions = sad.solve_many(problem, programs.q)
        run.active = solutions.active.strong
        return sad.vjp_many(problem, solutions, 2.0 * solutions.y)

    return run


def by_qpax(programs):
    import jax
    import qpax

    jax.config.update("jax_enable_x64", True)
    data = [jax.numpy.array(getattr(programs, name)) for name in "PAbGh"]

    def loss(q, P, A, b, G, h):
        return jax.numpy.sum(qpax.solve_qp_primal(P, q, A, b, G, h) ** 2)

    gradient = jax.jit(jax.vmap(jax.grad(loss), in_axes=(0, *[None] * 5)))
    q = jax.numpy.array(programs.q)
    return lambda: np.asarray(gradient(q, *data))


def by_proxqp(programs):
    from proxsuite import proxqp

    solvers = []
    for _ in range(programs.k):
        solver = proxqp.dense.QP(programs.n, programs.p, programs.r)
        solver.settings.eps_abs = 1e-9
        solver.settings.eps_rel = 0.0
        solver.settings.verbose = False
        solvers.append(solver)
    low = np.full(programs.r, -1e20)
    zeros = np.zeros(programs.p + programs.r)

    def run():
        found = []
        for solver, q in zip(solvers, programs.q, strict=True):
            data = programs.P, q, programs.A, programs.b, programs.G, low, programs.h
            solver.init(*data)
            solver.solve()
            v = np.concatenate([2.0 * solver.results.x, zeros])
            proxqp.dense.compute_backward(solver, v, 1e-9, 1e-9, 1e-9)
            found.append(np.array(solver.model.backward_data.dL_dg))
        return np.array(found)

    return run


def by_cvxpylayers(programs):
    import cvxpy as cp
    import torch
    from cvxpylayers.torch import CvxpyLayer

    torch.set_num_threads(1)
    y, q = cp.Variable(programs.n), cp.Parameter(programs.n)
    rows = [programs.A @ y == programs.b, programs.G @ y <= programs.h]
    convex = cp.Problem(cp.Minimize(cp.sum_squares(y) + q @ y), rows)
    layer = CvxpyLayer(convex, parameters=[q], variables=[y])

    def run():
        q = torch.tensor(programs.q, dtype=torch.float64, requires_grad=True)
        (found,) = layer(q)
        found.pow(2).sum().backward()
        return q.grad.numpy()

    return run


CONTESTANTS = {
    "sparse_argdiff": ours,
    "qpax": by_qpax,
    "ProxQP": by_proxqp,
    "cvxpylayers": by_cvxpylayers,
}


def compare(sizes, repetitions, seed):
    """Print one row for each contestant."""
    n, p, r, k = sizes
    programs = Programs(n, p, r, k, seed)
    runs = {}
    for name, make in CONTESTANTS.items():
        try:
            runs[name] = make(programs)
        except ImportError as error:
            print(f"{name:16s} not installed ({error})")
    times = {name: [] for name in runs}
    gradients = {}
    for _ in range(repetitions + 1):
        for name, run in runs.items():
            start = time.process_time()
            gradients[name] = run()
            times[name].append(time.process_time() - start)
    exact = reference(programs, runs["sparse_argdiff"].active)
    size = np.abs(exact).max()
    for name in runs:
        spent = statistics.median(times[name][1:]) / k * 1e3  # the first run warms up
        error = np.abs(gradients[name] - exact).max() / size
        print(
            f"n = {n:3d}, p = {p:3d}, r = {r:3d}, k = {k:4d}  {name:16s}"
            f"{spent:10.3f} ms a program   error {error:.1e}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = ["20:5:20:128", "100:20:100:128", "300:50:300:32"]
    parser.add_argument("--sizes", nargs="+", default=default, metavar="n:p:r:k")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for sizes in options.sizes:
        numbers = tuple(int(part) for part in sizes.split(":"))
        compare(numbers, options.repetitions, options.seed)


if __name__ == "__main__":
    main()
