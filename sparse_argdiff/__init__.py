"""Differentiate argmin and argmax problems at large scale, matrix-free.

    g(x) = argmin_y f(x, y),        g'(x) = − f_YY⁻¹ f_XY as products with a vector

See ``README.md`` for a first example and ``Problem``, ``solve``, ``derivative`` and
``Hypergradient`` for the way through.
"""

import logging

from . import linear_model, preconditioners
from .arrays.transfer import from_dlpack, to_device, to_host
from .bilevel import BilevelResult, Sum, minimize, prior
from .checks import (
    CheckError,
    CheckReport,
    check_derivatives,
    check_hypergradient,
    dot_test,
)
from .hypergradient.hypergradient import Hypergradient
from .hypergradient.influence import influence
from .hypergradient.result import Certificate, HypergradientResult
from .hypergradient.upper_objective import FunctionUpper, UpperObjective
from .implicit.active_range import ActiveRange, active_range
from .implicit.derivative import Adjoint, Tangent, derivative, jvp, vjp
from .implicit.many import jvp_many, vjp_many
from .implicit.value_gradient import value_gradient
from .krylov import KrylovResult, cg, minres, projected_cg
from .operators.linear_operator import LinearOperator, aslinearoperator
from .operators.structure import Structure
from .problem.batch_solution import BatchSolution
from .problem.constants import Constants
from .problem.constraints import Equality, Inequality, LinearEquality
from .problem.group_penalty import GroupL1
from .problem.log_barrier import LogBarrier
from .problem.objective import FunctionObjective, Objective
from .problem.penalties import L1, ElasticNet, Penalty
from .problem.problem import ActiveSet, Problem, Solution
from .problem.quadratic import QuadraticProgram
from .report import SolutionReport, report
from .solvers import solve, solve_many
from .status import ConvergenceError, ConvergenceWarning, Status

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())

__all__ = [  # noqa: RUF022  (in the order of sorted)
    "ActiveRange",
    "ActiveSet",
    "Adjoint",
    "BatchSolution",
    "BilevelResult",
    "Certificate",
    "CheckError",
    "CheckReport",
    "Constants",
    "ConvergenceError",
    "ConvergenceWarning",
    "ElasticNet",
    "Equality",
    "FunctionObjective",
    "FunctionUpper",
    "GroupL1",
    "Hypergradient",
    "HypergradientResult",
    "Inequality",
    "KrylovResult",
    "L1",
    "LinearEquality",
    "LinearOperator",
    "LogBarrier",
    "Objective",
    "Penalty",
    "Problem",
    "QuadraticProgram",
    "Solution",
    "SolutionReport",
    "Status",
    "Structure",
    "Sum",
    "Tangent",
    "UpperObjective",
    "active_range",
    "aslinearoperator",
    "cg",
    "check_derivatives",
    "check_hypergradient",
    "derivative",
    "dot_test",
    "from_dlpack",
    "influence",
    "jvp",
    "jvp_many",
    "linear_model",
    "minimize",
    "minres",
    "preconditioners",
    "prior",
    "projected_cg",
    "report",
    "solve",
    "solve_many",
    "to_device",
    "to_host",
    "value_gradient",
    "vjp",
    "vjp_many",
]


def __dir__() -> list[str]:
    """Name what is public; the modules beside it are not."""
    return __all__
