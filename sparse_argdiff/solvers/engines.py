"""Engines for quadratic programs: PIQP and Clarabel (extra ``qp``), asked for a proposal.

They are asked in units in which their absolute tolerances mean something; what they
return is the start of an exact solve, never an answer.
"""

from __future__ import annotations

import functools
import importlib.util
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from ..krylov.convex_program import ConvexProgram, PrimalDual
from ..krylov.convex_quadratic import ConvexQuadraticPath
from ..problem.problem import Problem
from ..problem.quadratic import QuadraticObjective

ENGINES = ("piqp", "clarabel")


def engine_for(problem: Problem) -> str | None:
    """Return the engine that solves a quadratic program by default, None for our own."""
    objective = problem.objective
    if not isinstance(objective, QuadraticObjective) or not has_entries(objective):
        return None
    return "piqp" if _is_installed("piqp") else None


@functools.cache
def _is_installed(engine: str) -> bool:
    return importlib.util.find_spec(engine) is not None


def has_entries(objective: QuadraticObjective) -> bool:
    """Tell whether an engine can be given the data: entries, on the host."""
    data = objective.data.constant
    given = (m for m in (data.P, data.A, data.G) if m is not None)
    return all(isinstance(m, np.ndarray) or sparse.issparse(m) for m in given)


class Proposal(NamedTuple):
    """The point that an engine returns, in the units of the program, and its iterations."""

    point: PrimalDual
    niter: int


def ask_engine(
    engine: str, path: ConvexQuadraticPath, tol: float
) -> tuple[Proposal | None, str]:
    """Return what an engine finds, in the program's own units, or a note of its failure."""
    f, (force, length) = path.program, path.units
    # y = length ỹ and f = force · length f̃: the engines' tolerances are absolute.
    program = ConvexProgram(
        P=f.P * (length / force),
        q=f.q / force,
        A=f.A,
        b=f.b / length,
        G=f.G,
        h=f.h / length,
        lower=f.lower / length,
        upper=f.upper / length,
    )
    asked = _piqp if engine == "piqp" else _clarabel
    found, status, niter = asked(program, min(max(0.1 * tol, 1e-11), 1e-9))
    if found is None:
        return None, f"{engine} ended with {status}; solved by the package's own method"
    y, nu, z, s = found
    point = PrimalDual(length * y, force * nu, force * z, force * s)
    return Proposal(path.scaling.given(point), niter), ""


def _extra(engine: str) -> Any:
    """Return the module of an engine."""
    if importlib.util.find_spec(engine) is None:
        raise ImportError(
            f"method={engine!r} needs {engine}, which is not installed: "
            "pip install 'sparse-argdiff[qp]'"
        )
    return importlib.import_module(engine)


def _piqp(program: ConvexProgram, tol: float) -> tuple[PrimalDual | None, str, int]:
    """Solve by PIQP.

    References
    ----------
    R. Schwan, Y. Jiang, D. Kuhn, C. N. Jones, CDC 2023, arXiv:2304.00290.
    """
    piqp = _extra("piqp")
    dense = program.n + program.b.size + program.h.size <= _DENSE
    solver = piqp.DenseSolver() if dense else piqp.SparseSolver()
    settings = solver.settings
    settings.eps_abs = settings.eps_rel = tol
    settings.eps_duality_gap_abs = settings.eps_duality_gap_rel = tol
    settings.verbose = False

    def entries(matrix: Any) -> Any:
        if dense:
            entries = matrix.toarray() if sparse.issparse(matrix) else matrix
            return np.asfortranarray(entries)
        return sparse.csc_matrix(matrix)

    h_low = np.full(program.h.size, -np.inf)
    solver.setup(
        entries(program.P),
        program.q,
        entries(program.A),
        program.b,
        entries(program.G),
        h_low,
        program.h,
        program.lower,
        program.upper,
    )
    status = solver.solve()
    found = solver.result
    if status != piqp.PIQP_SOLVED:
        return None, str(status.name), int(found.info.iter)
    s = np.asarray(found.z_bl) - np.asarray(found.z_bu)
    point = PrimalDual(
        np.array(found.x), np.array(found.y), np.maximum(found.z_u, 0.0), s
    )
    return point, "", int(found.info.iter)


def _clarabel(program: ConvexProgram, tol: float) -> tuple[PrimalDual | None, str, int]:
    """Solve by Clarabel.

    References
    ----------
    P. J. Goulart, Y. Chen, "Clarabel: an interior-point solver for conic programs with
    quadratic objectives", arXiv:2405.12762.
    """
    clarabel = _extra("clarabel")
    n, p, k = program.n, program.b.size, program.h.size
    low, high = (np.isfinite(v) for v in (program.lower, program.upper))
    identity = sparse.eye_array(n, format="csr")
    rows = [program.A, program.G, -identity[low], identity[high]]
    matrix = sparse.vstack([sparse.csr_array(part) for part in rows], format="csc")
    sides = np.concatenate(
        [program.b, program.h, -program.lower[low], program.upper[high]]
    )
    cones = [clarabel.ZeroConeT(p), clarabel.NonnegativeConeT(sides.size - p)]
    options = clarabel.DefaultSettings()
    options.verbose = options.presolve_enable = False
    options.tol_gap_abs = options.tol_gap_rel = options.tol_feas = tol
    solver = clarabel.DefaultSolver(
        sparse.csc_matrix(sparse.triu(program.P)),
        program.q,
        sparse.csc_matrix(matrix),
        sides,
        cones,
        options,
    )
    found = solver.solve()
    niter = int(found.iterations)
    if str(found.status) not in {"Solved", "AlmostSolved"}:
        return None, str(found.status), niter
    z = np.array(found.z)
    s = np.zeros(n)
    count = int(low.sum())
    s[low] = z[p + k : p + k + count]
    s[high] -= z[p + k + count :]
    point = PrimalDual(np.array(found.x), z[:p], np.maximum(z[p : p + k], 0.0), s)
    return point, "", niter


_DENSE = 200  # unknowns and rows up to which PIQP's dense solver is faster
