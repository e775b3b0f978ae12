"""Differentiate argmin and argmax problems at large scale, matrix-free.

    g(x) = argmin_y f(x, y),        g'(x) = − f_YY⁻¹ f_XY as products with a vector

See ``README.md`` for a first example and ``Problem``, ``solve``, ``derivative`` and
``Hypergradient`` for the way through.
"""

import logging

from . import linear_model, preconditioners
from .barrier import LogBarrier
from .bilevel import BilevelResult, minimize
from .certificate import Certificate
from .checks import (
    CheckError,
    CheckReport,
    check_derivatives,
    check_hypergradient,
    dot_test,
)
from .constraints import Equality, Inequality, LinearEquality
from .error_bounds import Constants
from .hypergradient import Hypergradient, HypergradientResult
from .implicit import Adjoint, Tangent, derivative, jvp, vjp
from .influence import influence
from .krylov import KrylovResult, cg, minres, projected_cg
from .linear_operator import LinearOperator, aslinearoperator
from .objective import FunctionObjective, Objective
from .problem import ActiveSet, Problem, Solution
from .solvers import solve
from .status import ConvergenceError, ConvergenceWarning, Status
from .transfer import from_dlpack, to_device, to_host
from .upper import FunctionUpper, UpperObjective

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())

__all__ = [
    "ActiveSet",
    "Adjoint",
    "BilevelResult",
    "Certificate",
    "CheckError",
    "CheckReport",
    "Constants",
    "ConvergenceError",
    "ConvergenceWarning",
    "Equality",
    "FunctionObjective",
    "FunctionUpper",
    "Hypergradient",
    "HypergradientResult",
    "Inequality",
    "KrylovResult",
    "LinearEquality",
    "LinearOperator",
    "LogBarrier",
    "Objective",
    "Problem",
    "Solution",
    "Status",
    "Tangent",
    "UpperObjective",
    "aslinearoperator",
    "cg",
    "check_derivatives",
    "check_hypergradient",
    "derivative",
    "dot_test",
    "from_dlpack",
    "influence",
    "jvp",
    "linear_model",
    "minimize",
    "minres",
    "preconditioners",
    "projected_cg",
    "solve",
    "to_device",
    "to_host",
    "vjp",
]
