"""One adjoint of a sparse logistic model: sparse_argdiff, jaxopt, and torch by hand.

    python -m venv peers && peers/bin/pip install -r benchmarks/peers/requirements.txt
    PYTHONPATH=$PWD peers/bin/python benchmarks/peers/adjoint.py [--data DIR]

DIR holds X_raw.npz and y_raw.npy; without it a text-like design is generated.

The problem is logistic regression with a ridge weight e^x_j for each feature, an
unpenalised intercept, and x = log 1e-4.  Given its solution y and the gradient v of a
held-out loss, every contestant returns g'(x)ᵀ v: it evaluates the curvature at y, solves
f_YY λ = v to ‖v − f_YY λ‖ ≤ rtol ‖v‖ from zero, and multiplies with the cross derivative.

    sparse_argdiff        ``vjp`` with its defaults; the residual is recomputed.  Nothing
                          is left over from an earlier call at y.
    ours, M=None          the same without a preconditioner
    jaxopt solve_cg       ``custom_root(grad f, solve=partial(solve_cg, tol=rtol))``
    jaxopt default        ``solve_normal_cg`` with tol=rtol: of the normal equations, whose
                          residual says little about this one, printed
    default, tighter tol  the same with the tol at which a CG on the normal equations, run
                          here beforehand, met the residual asked for
    torch CG              a loop on torch's CSR products, F and Fᵀ both stored
    torch CG, Jacobi      the same with the diagonal as preconditioner

jaxopt is compiled and warm, with the fastest of three forms of F v: BCOO, gather and
segment sum, the same with Fᵀ stored as well (all three are timed first).  float64 and one
thread everywhere; runs interleave; medians of wall and of CPU time, which a busy machine
disturbs less.
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
import pathlib
import statistics
import sys
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax.experimental import sparse as jax_sparse
from jaxopt import implicit_diff, linear_solve
from scipy import sparse

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from benchmarks.designs import text_like

jax.config.update("jax_enable_x64", True)
torch.set_num_threads(1)
warnings.filterwarnings("ignore", message="Sparse (CSR|invariant)")


class Jaxopt:
    """``custom_root`` around a given solution."""

    def __init__(self, features, labels, form, solve, tighter=1.0):
        self.labels = jnp.asarray(labels)
        # An argument of what is compiled: as a constant it would be folded for minutes.
        self.matrix, self.times = FORMS[form](features)
        self.products, self.solution = 0, None
        self.solve, self.tighter = solve, tighter
        self.compiled = {}

    def function(self, rtol, counted=False):
        """Return (matrix, x, y, v) → g'(x)ᵀ v, compiled."""

        def solve(matvec, b, **kwargs):
            def spy(u):
                jax.debug.callback(self._count)
                return matvec(u)

            used = spy if counted else matvec
            found = self.solve(used, b, tol=self.tighter * rtol, **kwargs)
            if counted:
                jax.debug.callback(self._keep, -found)  # of the system with -v
            return found

        def pull_back(matrix, x, y, v):
            def objective(y, x):
                z = self.times(matrix, y[:-1]) + y[-1]
                loss = jnp.mean(jax.nn.softplus(z) - self.labels * z)
                return loss + 0.5 * jnp.sum(jnp.exp(x) * y[:-1] ** 2)

            @implicit_diff.custom_root(jax.grad(objective), solve=solve)
            def argmin(y, x):
                return y

            return jax.vjp(lambda x: argmin(y, x), x)[1](v)[0]

        return jax.jit(pull_back)

    def __call__(self, x, y, v, rtol):
        if rtol not in self.compiled:
            self.compiled[rtol] = self.function(rtol)
        return np.asarray(self.compiled[rtol](self.matrix, x, y, v))

    def trace(self, x, y, v, rtol):
        """Return (products, λ) of an untimed run."""
        self.products = 0
        self.function(rtol, counted=True)(self.matrix, x, y, v).block_until_ready()
        jax.effects_barrier()
        return self.products, self.solution

    def _count(self):
        # Transposed products run no callback: there are as many of the normal equations.
        self.products += 2 if self.solve is linear_solve.solve_normal_cg else 1

    def _keep(self, found):
        self.solution = np.asarray(found)


def bcoo(features):
    """F v by JAX's own sparse matrix."""
    return jax_sparse.BCOO.from_scipy_sparse(features), lambda matrix, v: matrix @ v


def segment(features):
    """F v by gather and segment sum; JAX transposes it."""
    rows = np.repeat(np.arange(features.shape[0]), np.diff(features.indptr))
    count = features.shape[0]

    def product(matrix, v):
        values, columns, rows = matrix
        terms = values * v[columns]
        return jax.ops.segment_sum(terms, rows, count, indices_are_sorted=True)

    parts = features.data, features.indices, rows.astype(np.int32)
    return tuple(jnp.asarray(part) for part in parts), product


def stored(features):
    """F v and Fᵀ s by gather and sorted segment sum, each the derivative of the other."""
    F, forward = segment(features)
    Ft, backward = segment(sparse.csr_array(features.T))

    @jax.custom_vjp
    def times(matrix, v):
        return forward(matrix[0], v)

    @jax.custom_vjp
    def transposed(matrix, s):
        return backward(matrix[1], s)

    times.defvjp(
        lambda matrix, v: (times(matrix, v), matrix),
        lambda matrix, s: (None, transposed(matrix, s)),
    )
    transposed.defvjp(
        lambda matrix, s: (transposed(matrix, s), matrix),
        lambda matrix, v: (None, times(matrix, v)),
    )
    return (F, Ft), times


FORMS = {"bcoo": bcoo, "segment": segment, "stored": stored}


class Torch:
    """Conjugate gradients by hand on torch's CSR products."""

    def __init__(self, features, labels, jacobi):
        self.F, self.Ft = (
            torch.sparse_csr_tensor(
                torch.from_numpy(A.indptr.astype(np.int32)),
                torch.from_numpy(A.indices.astype(np.int32)),
                torch.from_numpy(A.data),
                size=A.shape,
            )
            for A in (features, sparse.csr_array(features.T))
        )
        squared = sparse.csr_array(features.T).power(2)
        self.squares = torch.sparse_csr_tensor(
            self.Ft.crow_indices(),
            self.Ft.col_indices(),
            torch.from_numpy(squared.data),
            size=squared.shape,
        )
        self.jacobi = jacobi

    def __call__(self, x, y, v, rtol):
        return self.trace(x, y, v, rtol)[2]

    def trace(self, x, y, v, rtol):
        """Return (products, λ, g'(x)ᵀ v)."""
        x, y, v = torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(v)
        probability = torch.sigmoid(self.F @ y[:-1] + y[-1])
        d = probability * (1.0 - probability) / probability.shape[0]
        ridge = torch.exp(x)

        def hess(p):
            s = d * (self.F @ p[:-1] + p[-1])
            q = torch.empty_like(p)
            torch.mul(ridge, p[:-1], out=q[:-1])
            q[:-1] += self.Ft @ s
            q[-1] = s.sum()
            return q

        inverse = None
        if self.jacobi:
            inverse = torch.empty_like(y)
            inverse[:-1] = 1.0 / (self.squares @ d + ridge)
            inverse[-1] = 1.0 / d.sum()
        u, r = torch.zeros_like(v), v.clone()
        z = r if inverse is None else inverse * r
        p, rho, products = z.clone(), float(r @ z), 0
        target = rtol * float(torch.linalg.vector_norm(v))
        while float(torch.linalg.vector_norm(r)) > target:
            q = hess(p)
            products += 1
            alpha = rho / float(p @ q)
            u.add_(p, alpha=alpha)
            r.add_(q, alpha=-alpha)
            z = r if inverse is None else inverse * r
            new = float(r @ z)
            p.mul_(new / rho).add_(z)
            rho = new
        return products, u.numpy(), -(ridge * y[:-1] * u[:-1]).numpy()


class Ours:
    """``vjp`` at a solution of ``solve``."""

    def __init__(self, problem, solution, M="auto"):
        self.problem, self.solution, self.M = problem, solution, M

    def forget(self, x, y):
        """Evaluate the model elsewhere: it keeps the predictors of its last point."""
        self.problem.value(x + 1.0, y + 1.0)

    def __call__(self, x, y, v, rtol):
        return sad.vjp(self.problem, self.solution, v, rtol=rtol, M=self.M).x

    def trace(self, x, y, v, rtol):
        """Return (products, λ)."""
        found = sad.vjp(self.problem, self.solution, v, rtol=rtol, M=self.M)
        return found.n_hvp, found.adjoint


def normal_tolerance(hess, v, rtol):
    """Return the tolerance on ‖H r‖ / ‖H v‖ with which CG on H² u = H v meets ‖r‖."""
    r, gradient = v.copy(), hess @ v
    p, rho = gradient, gradient @ gradient
    first = rho
    while np.linalg.norm(r) > rtol * np.linalg.norm(v):
        image = hess @ p
        r -= rho / (image @ image) * image
        gradient = hess @ r
        rho, before = gradient @ gradient, rho
        p = gradient + rho / before * p
    return float(np.sqrt(rho / first))


def load(data):
    """Return features (CSR) and labels."""
    if data is None:
        return text_like(4000, 55_000, 200)
    features = sparse.csr_array(sparse.load_npz(data / "X_raw.npz"))
    return features, np.load(data / "y_raw.npy").astype(float)


def seconds(function, *args):
    """Return (wall, CPU) time of one call, threads included."""
    wall, cpu = time.perf_counter(), time.process_time()
    function(*args)
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--train", type=float, default=0.75, help="share of the rows")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rtol", type=float, nargs="+", default=[1e-2, 1e-6])
    args = parser.parse_args()
    features, labels = load(args.data)
    cut = round(args.train * features.shape[0])
    F, t = features[:cut], labels[:cut]
    glm = Glm(F, t)
    problem = sad.Problem(glm)
    x = np.full(glm.m, np.log(1e-4))
    solution = sad.solve(problem, x)
    y = solution.y
    v = glm.held_out(features[cut:], labels[cut:]).grad_y(x, y)
    hess = problem.hess(x, y)
    exact = sad.vjp(problem, solution, v, rtol=1e-12)
    print(f"{glm}, {F.nnz} nonzeros, kernels: {type(glm._products).__name__}")

    forms = {form: Jaxopt(F, t, form, linear_solve.solve_cg) for form in FORMS}
    spent = {}
    for form, contestant in forms.items():
        contestant(x, y, v, 1e-2)  # compiles
        spent[form] = min(seconds(contestant, x, y, v, 1e-2)[1] for _ in range(5))
    best = min(spent, key=spent.get)
    # The normal equations transpose products, which "stored" does not permit.
    other = min(("bcoo", "segment"), key=spent.get)
    listed = ", ".join(f"{form} {1e3 * s:.0f} ms" for form, s in spent.items())
    print(f"jaxopt solve_cg at rtol 1e-2: {listed}; {best} is used", flush=True)

    contestants = {
        "sparse_argdiff": Ours(problem, solution),
        "ours, M=None": Ours(problem, solution, M=None),
        "jaxopt solve_cg": forms[best],
        "jaxopt default": Jaxopt(F, t, other, linear_solve.solve_normal_cg),
        "torch CG": Torch(F, t, jacobi=False),
        "torch CG, Jacobi": Torch(F, t, jacobi=True),
    }
    print(
        f"{'rtol':>6} {'':>20} {'products':>8} {'residual':>9} {'error':>8} "
        f"{'wall ms':>9} {'x ours':>7} {'CPU ms':>9} {'x ours':>7} {'ms/prod':>8}",
        flush=True,
    )
    for rtol in args.rtol:
        facts = {}
        contestants["default, tighter tol"] = Jaxopt(
            F,
            t,
            other,
            linear_solve.solve_normal_cg,
            normal_tolerance(hess, v, rtol) / rtol,
        )
        for name, contestant in contestants.items():
            products, adjoint = contestant.trace(x, y, v, rtol)[:2]
            residual = np.linalg.norm(v - hess @ adjoint) / np.linalg.norm(v)
            gradient = contestant(x, y, v, rtol)
            error = np.linalg.norm(gradient - exact.x) / np.linalg.norm(exact.x)
            facts[name] = (products, residual, error)
        times = {name: [] for name in contestants}
        for turn in range(args.rounds):
            for name, contestant in contestants.items():
                if turn >= 1 and times[name][0][0] > 2.0:
                    continue  # one turn of the slow ones
                if isinstance(contestant, Ours):
                    contestant.forget(x, y)
                times[name].append(seconds(contestant, x, y, v, rtol))
        wall, cpu = (
            {name: statistics.median(pair[k] for pair in times[name]) for name in times}
            for k in (0, 1)
        )
        for name, (products, residual, error) in facts.items():
            print(
                f"{rtol:6.0e} {name:>20} {products:8d} {residual:9.1e} {error:8.1e} "
                f"{1e3 * wall[name]:9.2f} {wall[name] / wall['sparse_argdiff']:7.2f} "
                f"{1e3 * cpu[name]:9.2f} {cpu[name] / cpu['sparse_argdiff']:7.2f} "
                f"{1e3 * wall[name] / products:8.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
